#!/usr/bin/env python3
"""A simulated YateBTS in roaming mode: the calls and the radio of obts.py, the REGISTER of its `yate` dialect, and YateBTS's own
short messages.

    with YateBts("127.0.0.72", 5062, registrar=("127.0.0.1", 5064)) as dale:
        assert dale.register(ana).ok and ana.numbers == ["+155500001"]
        sent = dale.sms(ana, "2102", "hello")
        assert sent.code == 200 and sent.cause is None         # what the phone sees: RP-ACK, or the cause of an RP-ERROR

It knows a phone by the number that the registrar gave it, so without a P-Associated-URI it can neither send nor get texts.
Standard library only.
"""

from __future__ import annotations

import base64
import secrets
from dataclasses import dataclass

import sms
from obts import BaseStation, Phone
from sip import Message, letters, sent_by, user_host_port

SMS_TYPE = "application/vnd.3gpp.sms"
#: What becomes of a SIP answer without an RPDU: the cause in the RP-ERROR that the phone gets.
CAUSE_OF = {403: 29, 408: 38, 415: 127, 480: 41, 488: 127, 502: 38}
CAUSE_OF_OTHERS = 127
RESEND_AT_S = (0, 0.5, 1.5, 3.5, 7.5, 11.5, 15.5)
#: Each form of a body, as a Content-Transfer-Encoding says it.
ENCODINGS = {"": lambda octets: octets, "binary": lambda octets: octets, "hex": lambda octets: octets.hex().encode(), "base64": base64.b64encode}


@dataclass
class Sent:
    """What came of an RPDU that a phone sent."""

    code: int | None = None                    # None: no answer
    answer: Message | None = None
    rpdu: sms.Rpdu | None = None               # what the phone was told by the centre itself, if anything
    cause: int | None = None                   # what the phone sees: None is an RP-ACK

    @property
    def ok(self) -> bool:
        return self.code is not None and self.cause is None


class YateBts(BaseStation):
    """`encoding` is that of what it sends: "" (binary), "binary", "hex" or "base64"; `sms_response=False` leaves `Supported` out.

    `refuses` says how a refusal of the phone is passed on: "code" (`refusal_code` with the RP-ERROR as its body), "body" (200 with
    the RP-ERROR), "bare" (`refusal_code` without a body).  `bare_200` leaves the RP-ACK out of the 200.
    """

    def __init__(self, *words, encoding: str = "", sms_response: bool = True, service_centre: str = "1000", refuses: str = "code",
                 refusal_code: int = 488, **more):
        self.encoding, self.sms_response, self.service_centre = encoding, sms_response, service_centre
        self.refuses, self.refusal_code, self.bare_200 = refuses, refusal_code, False
        self._answered: dict[tuple, bytes] = {}            # by Via and CSeq: a copy gets the same answer
        super().__init__(*words, dialect="yate", **more)

    # -- From a phone --

    def sms(self, phone: Phone, number: str, text: str, *, report: bool = False, timeout: float = 10, **more) -> Sent:
        """Sends a text, all its parts one after the other, and says what the phone saw of the last one."""
        out = Sent()
        for rpdu in self.sms_rpdus(phone, number, text, report=report, **more):
            out = self.rpdu(phone, rpdu, self.service_centre, number, timeout)
            if not out.ok:
                break
        return out

    def command(self, phone: Phone, kind: int, number: str, message_reference: int, *, timeout: float = 10, **more) -> Sent:
        reference = self._next_reference(phone)
        tpdu = sms.command(kind, number, message_reference, reference=reference, **more)
        return self.rpdu(phone, sms.rp_data_mo(tpdu, reference=reference, service_centre=self.service_centre), self.service_centre, number, timeout)

    def memory_available(self, phone: Phone, timeout: float = 10) -> Sent:
        """RP-SMMA: a MESSAGE to the user `SMMA`."""
        phone.memory_full = False
        return self.rpdu(phone, sms.rp_smma(next(phone.references)), "SMMA", "", timeout)

    def rpdu(self, phone: Phone, rpdu: bytes, user: str, called: str, timeout: float = 10) -> Sent:
        """One RPDU, and what the phone sees of the answer."""
        out = Sent()
        out.answer = answer = self.transact(self.rpdu_request_to(phone, rpdu, user, called), self.sms_proxy, timeout, RESEND_AT_S)
        if answer is None:
            out.cause = CAUSE_OF[408]
            return out
        out.code = answer.code
        if 200 <= answer.code < 300:
            if answer.body:
                try:
                    out.rpdu = sms.parse_rpdu_mt(_octets_of(answer))
                except (sms.Malformed, ValueError) as error:
                    self._complain(f"the body of a {answer.code} is no RPDU for a phone: {error}: {answer.body!r}")
                    out.cause = 111
                    return out
                if out.rpdu.reference != rpdu[1] or out.rpdu.kind == "data":
                    self._complain(f"the RPDU of a {answer.code} answers nothing that was asked: {out.rpdu}")
                out.cause = out.rpdu.cause
            return out
        out.cause = CAUSE_OF.get(answer.code, CAUSE_OF_OTHERS)
        return out

    def rpdu_request_to(self, phone: Phone, rpdu: bytes, user: str, called: str) -> Message:
        """MESSAGE as roaming.js builds it: from the phone's number, to the service centre that is on its SIM."""
        own, node = f"{self.host}:{self.port}", f"{self.sms_proxy[0]}:{self.sms_proxy[1]}"
        number = phone.numbers[0] if phone.numbers else f"IMSI{phone.imsi}"
        body = ENCODINGS[self.encoding](rpdu)
        return Message(f"MESSAGE sip:{user}@{node} SIP/2.0", [
            ("Via", f"SIP/2.0/UDP {own};rport;branch=z9hG4bK{secrets.randbits(31)}"),
            ("From", f"<sip:{number}@{node}>;tag={secrets.randbits(30)}"),
            ("To", f"<sip:{user}@{node}>"),
            ("Call-ID", f"{secrets.randbits(31)}@{self.host}"),
            ("CSeq", f"{secrets.randbelow(1000)} MESSAGE"),
            *([("P-Called-Party-ID", f"<tel:{called}>")] if called else []),
            ("P-Access-Network-Info", self._access_network()),
            ("P-PHY-Info", "YateBTS; TA=0 TE=0 UpRSSI=-50 TxPwr=10 DnRSSIdBm=-60"),
            *([("Supported", "sms-response")] if self.sms_response else []),
            ("User-Agent", "YATE/6.4.1"),
            ("Max-Forwards", "20"),
            ("Content-Type", SMS_TYPE),
            *([("Content-Transfer-Encoding", self.encoding)] if self.encoding else []),
            ("Content-Length", str(len(body))),
        ], body)

    # -- To a phone --

    def _look(self, message: Message):
        """YateBTS reads every header that RFC 3261 allows; what it needs is the length."""
        if message.get("content-length") not in ("", str(len(message.body))):
            self._complain(f"Content-Length {message.get('content-length')} of a body of {len(message.body)} bytes")

    def _on_message(self, message: Message):
        self.messages_seen += 1
        key = (message.vias()[0], message.cseq)
        if key in self._answered:
            self._send(self._answered[key], sent_by(message.vias()[0]))
            return
        if message.call_id in self._texts:                 # a copy of one under way
            return
        user = user_host_port(message.uri)[0]
        phone = next((phone for phone in self.phones.values() if user in phone.numbers[:1]), None)
        if phone is None:
            self._final(message, 404, "Not Found")
            return
        if message.get("content-type").partition(";")[0].strip().lower() != SMS_TYPE:
            self._final(message, 415, "Unsupported Media Type")
            return
        try:
            seen = sms.parse_rp_data_mt(_octets_of(message))
        except ValueError as error:
            self._complain(f"short message refused: {error}: {message.body[:120]!r}")
            self._final(message, 400, "Bad Request")
            return
        self._texts[message.call_id] = {}
        self.pages.append(phone.imsi)
        here = self._is_here(phone)
        self._after(self.transfer_s if here else self.paging_s, lambda: self._transfer(message, phone, seen))

    def _transfer(self, message: Message, phone: Phone, seen: sms.Deliver):
        if self._texts.pop(message.call_id, None) is None:
            return                                         # restarted meanwhile
        if not self._is_here(phone):
            self._final(message, 480, "Temporarily Unavailable")
            return
        cause = 22 if phone.memory_full else phone.refusal_cause
        if cause is None:
            self._keep(phone, seen)
            self._final(message, 200, "OK", b"" if self.bare_200 else sms.rp_ack(seen.rp_reference))
            return
        error = sms.rp_error(seen.rp_reference, cause, sms.delivery_failed(0xD3 if cause == 22 else 0xFF))
        if self.refuses == "body":
            self._final(message, 200, "OK", error)
        else:
            self._final(message, self.refusal_code, "Not Acceptable Here", error if self.refuses == "code" else b"")

    def _final(self, message: Message, code: int, phrase: str, rpdu: bytes = b""):
        more = [("Content-Type", SMS_TYPE)] if rpdu else []
        self._answered[message.vias()[0], message.cseq] = self._answer(message, code, phrase, letters(8), more, rpdu)

    def _answer(self, request: Message, code: int, phrase: str, tag: str = "", more=(), body: bytes = b"") -> bytes:
        """One Via a line, the tag where it belongs; what goes beyond that is as obts.py answers."""
        to = request.get("to")
        if tag and ";tag=" not in to:
            to = f"{to};tag={tag}"
        datagram = Message(f"SIP/2.0 {code} {phrase}", [
            *[("Via", via) for via in request.vias()], ("From", request.get("from")), ("To", to), ("Call-ID", request.call_id),
            ("CSeq", request.get("cseq")), ("Server", "YATE/6.4.1"), *more, ("Content-Length", str(len(body)))], body).encode()
        self._send(datagram, sent_by(request.vias()[0]))
        return datagram


def _octets_of(message: Message) -> bytes:
    """The RPDU in a body, as its Content-Transfer-Encoding says: binary where it says nothing."""
    encoding = message.get("content-transfer-encoding").lower()
    if encoding in ("", "binary"):
        return message.body
    if encoding == "hex":
        return bytes.fromhex(message.body.decode("ascii"))
    if encoding == "base64":
        return base64.b64decode(message.body, validate=True)
    raise ValueError(f"Content-Transfer-Encoding {encoding!r}")
