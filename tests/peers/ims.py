#!/usr/bin/env python3
"""An IMS phone that sends and gets short messages over IP (TS 24.341 5.3), and a plain SIP softphone (RFC 3428).

    with ImsPhone("127.0.0.77", 5080, "001010000000001", registrar=("127.0.0.1", 5064), proxy=("127.0.0.1", 5063)) as ana:
        assert ana.register().code == 200
        sent = ana.sms("2102", "hello")
        assert sent.code == 202 and sent.reported(5) and sent.cause is None      # RP-ACK, in a MESSAGE of its own

Neither has a key: the SIM's algorithm is none.  Standard library only.
"""

from __future__ import annotations

import itertools
import secrets
import threading
import time
from dataclasses import dataclass, field

import sms
from agent import Registered
from sip import Message, uri_in, user_host_port

SMS_TYPE = "application/vnd.3gpp.sms"


@dataclass
class Submission:
    """One RPDU that this phone sent, and what came of it."""

    phone: "ImsPhone"
    call_id: str
    rp_reference: int
    message_reference: int | None = None       # TP-MR
    code: int | None = None                    # of the answer to the MESSAGE
    answer: Message | None = None
    report: sms.Rpdu | None = None             # RP-ACK or RP-ERROR, which comes as a MESSAGE with In-Reply-To
    reports: list[sms.Rpdu] = field(default_factory=list)

    def reported(self, timeout: float = 5) -> bool:
        self.phone.wait(lambda: self.report is not None, timeout)
        return self.report is not None

    @property
    def cause(self) -> int | None:
        """Of an RP-ERROR; None after an RP-ACK."""
        return self.report.cause if self.report else None


class ImsPhone(Registered):
    """`service_centre` is on the SIM.  `memory_full` answers with RP-ERROR 22; `refusal` is another cause; `acknowledges=False` is a
    phone that was lost between its 200 and its RP-ACK; `refuses` is a SIP answer such as (480, "Temporarily Unavailable")."""

    user_agent = "IMS phone"
    contact_parameters = ';+sip.instance="<urn:gsma:imei:35469503-356129-0>";+g.3gpp.smsip'

    def __init__(self, *words, service_centre: str = "1000", **more):
        self.service_centre = service_centre
        self.inbox: list[sms.Deliver] = []
        self.status_reports: list[sms.Deliver] = []
        self.on, self.memory_full, self.acknowledges = True, False, True
        self.refusal: int | None = None
        self.refuses: tuple[int, str] | None = None
        self.ack_after_s = 0.05
        self._references = itertools.count(secrets.randbelow(200))
        self._submissions: dict[str, Submission] = {}      # by Call-ID
        super().__init__(*words, **more)

    def texts(self) -> list[str]:
        return sms.put_together(self.inbox)

    # -- From the phone --

    def sms(self, number: str, text: str, timeout: float = 8, **more) -> Submission:
        """Sends a text; of a long one, part by part, and returns what became of the last."""
        pieces = sms.segments(text, more.get("wide", False)) if more.get("octets") is None else [None]
        group, out = secrets.randbelow(256), None
        for place, piece in enumerate(pieces, 1):
            reference = next(self._references) & 0xFF
            part = (group, len(pieces), place) if len(pieces) > 1 else None
            tpdu = sms.submit(number, text, reference=reference, part=part, piece=piece, **more)
            out = self.tpdu(tpdu, timeout)
            out.message_reference = reference
            if out.code is None or out.code >= 300:
                break
            if place < len(pieces):
                out.reported(timeout)                      # the next one only after the RP-ACK (TS 24.011: one at a time)
        return out

    def command(self, kind: int, number: str, message_reference: int, timeout: float = 8) -> Submission:
        reference = next(self._references) & 0xFF
        out = self.tpdu(sms.command(kind, number, message_reference, reference=reference), timeout)
        out.message_reference = reference
        return out

    def tpdu(self, tpdu: bytes, timeout: float = 8) -> Submission:
        reference = next(self._references) & 0xFF
        return self.rpdu(sms.rp_data_mo(tpdu, reference=reference, service_centre=self.service_centre), timeout)

    def memory_available(self, timeout: float = 8) -> Submission:
        """RP-SMMA: there is room again."""
        self.memory_full = False
        return self.rpdu(sms.rp_smma(next(self._references) & 0xFF), timeout)

    def rpdu(self, rpdu: bytes, timeout: float = 8) -> Submission:
        """A MESSAGE to the service centre."""
        centre = f"sip:{self.service_centre}@{self.domain}"
        request = self.request("MESSAGE", centre, self.identity, centre, ("P-Preferred-Identity", f"<{self.identity}>"),
                               ("Accept-Contact", "*;+g.3gpp.smsip"), ("Content-Type", SMS_TYPE), body=rpdu)
        out = Submission(self, request.call_id, rpdu[1])
        self._submissions[request.call_id] = out
        out.answer = self.transact(request, self.proxy, timeout)
        out.code = out.answer.code if out.answer else None
        return out

    # -- To the phone --

    def on_request(self, request: Message, peer):
        if request.method != "MESSAGE":
            self.answer(request, peer, 405, "Method Not Allowed")
            return
        if not self.on:
            return
        if request.get("content-type").partition(";")[0].strip().lower() != SMS_TYPE:
            self.answer(request, peer, 415, "Unsupported Media Type", ("Accept", SMS_TYPE))
            return
        if self.refuses:
            self.answer(request, peer, *self.refuses)
            return
        if request.get("content-transfer-encoding").lower() not in ("", "binary"):
            self.complaints.append(f"an RPDU in {request.get('content-transfer-encoding')}: TS 24.341 has it binary")
        try:
            rpdu = sms.parse_rpdu_mt(request.body)
        except sms.Malformed as error:
            self.complaints.append(f"{error}: {request.body.hex()}")
            self.answer(request, peer, 400, "Bad Request")
            return
        self.answer(request, peer, 200, "OK")
        if rpdu.kind == "data":
            self.after(self.ack_after_s, lambda: self._take(request, rpdu, peer))
            return
        submission = self._submissions.get(request.get("in-reply-to"))
        if submission is None:
            self.complaints.append(f"a report for nothing that was sent: In-Reply-To {request.get('in-reply-to')!r}")
        elif submission.rp_reference != rpdu.reference:
            self.complaints.append(f"RP-MR {rpdu.reference} in answer to {submission.rp_reference}")
        else:
            submission.reports.append(rpdu)
            submission.report = submission.report or rpdu

    def _take(self, request: Message, rpdu: sms.Rpdu, peer):
        """The phone has read it: RP-ACK or RP-ERROR go in a MESSAGE of their own, to whom the network asserted (TS 24.341 5.3.2.4)."""
        if not self.acknowledges:
            return
        cause = 22 if self.memory_full else self.refusal
        if cause is None:
            rpdu.deliver.came = time.monotonic()
            (self.inbox if rpdu.deliver.status_report is None else self.status_reports).append(rpdu.deliver)
            body = sms.rp_ack(rpdu.reference)
        else:
            body = sms.rp_error(rpdu.reference, cause, sms.delivery_failed(0xD3 if cause == 22 else 0xFF))
        to = uri_in(request.get("p-asserted-identity") or request.get("from"))
        report = self.request("MESSAGE", to, self.identity, to, ("In-Reply-To", request.call_id), ("P-Preferred-Identity", f"<{self.identity}>"),
                              ("Content-Type", SMS_TYPE), body=body)
        self._in_background(report)

    def _in_background(self, request: Message):
        def say():
            answer = self.transact(request, self.proxy, 10)
            if answer is None or answer.code >= 300:
                self.complaints.append(f"a report of this phone was answered {answer.start if answer else 'by nobody'}")

        threading.Thread(target=say, daemon=True).start()


class SoftPhone(Registered):
    """A SIP phone that knows text/plain and nothing else.  `refuses` is an answer such as (486, "Busy Here"), `on=False` silence."""

    user_agent = "softphone"

    def __init__(self, *words, **more):
        self.inbox: list[tuple[str, str]] = []             # number of the sender, text
        self.on = True
        self.refuses: tuple[int, str] | None = None
        super().__init__(*words, **more)

    def texts(self) -> list[str]:
        return [text for _, text in self.inbox]

    def text(self, number: str, text: str, timeout: float = 8, kind: str = "text/plain;charset=UTF-8", more: tuple = ()) -> Message | None:
        """MESSAGE to a number, and its final answer."""
        uri = f"sip:{number}@{self.domain}"
        return self.transact(self.request("MESSAGE", uri, self.identity, uri, ("Content-Type", kind), *more, body=text.encode()), self.proxy, timeout)

    def on_request(self, request: Message, peer):
        if request.method != "MESSAGE":
            self.answer(request, peer, 200 if request.method == "OPTIONS" else 405, "OK" if request.method == "OPTIONS" else "Method Not Allowed")
            return
        if not self.on:
            return
        kind = request.get("content-type").partition(";")[0].strip().lower()
        if kind != "text/plain":
            self.answer(request, peer, 415, "Unsupported Media Type", ("Accept", "text/plain"))
            return
        if self.refuses:
            self.answer(request, peer, *self.refuses)
            return
        charset = request.get("content-type").lower().partition("charset=")[2].strip('" ')
        self.inbox.append((user_host_port(uri_in(request.get("from")))[0], request.body.decode(charset or "utf-8")))
        self.answer(request, peer, 200, "OK")
