"""A SIP trunk that keeps RFC 3261, and a socket that says literally what a test tells it to.

    with Trunk(PBX, box=(box.host, box.calls)) as pbx:
        pbx.plan = [(0, 180, "Ringing"), (0.2, 200, "OK")]     # how it answers the next calls; [] is silence
        call = pbx.call("+155500001")                          # and how it calls
        assert call.wait("up") and call.hangup() == 200

What a strict trunk would not bear (an ACK with another branch, a CANCEL of another CSeq, a BYE that is not for its Contact) is kept
in `complaints`. Python 3 standard library only.
"""

from __future__ import annotations

import hashlib
import heapq
import itertools
import re
import secrets
import select
import socket
import threading
import time

import box                                                 # noqa: F401  (puts the peers on the path)
from sip import Message, NotSip, letters, sent_by, tag_of, uri_in, user_host_port

RINGS_AND_ANSWERS = [(0, 180, "Ringing"), (0.3, 200, "OK")]
RESEND_AT_S = (0, 0.5, 1.5, 3.5, 7.5, 15.5, 31.5)


def sdp(host: str, port: int, payloads: str = "3", more: str = "a=rtpmap:3 GSM/8000\r\n") -> bytes:
    """An offer or an answer; the name of the session makes each one different."""
    return (f"v=0\r\no=- {secrets.randbits(31)} 1 IN IP4 {host}\r\ns={letters(8)}\r\nc=IN IP4 {host}\r\nt=0 0\r\n"
            f"m=audio {port} RTP/AVP {payloads}\r\n{more}").encode()


class Wire:
    """One UDP socket, a thread that listens, timers, and everything that was said and heard."""

    def __init__(self, host: str, port: int = 0, *, to: tuple[str, int] = ("", 0)):
        self.socket = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self.socket.bind((host, port or box.free_port(host)))
        self.host, self.port = self.socket.getsockname()
        self.to = to                                       # where requests go
        self.traffic: list[tuple[float, str, tuple[str, int], Message]] = []
        self.complaints: list[str] = []
        self.mute = False
        self._changed = threading.Condition(threading.RLock())
        self._timers: list = []
        self._order = itertools.count()
        self._wake_in, self._wake_out = socket.socketpair()
        self._closing = False
        self._thread = threading.Thread(target=self._loop, daemon=True, name=f"wire {host}:{port}")
        self._thread.start()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()

    def close(self):
        self._closing = True
        self._wake_out.send(b"x")
        self._thread.join(2)
        for each in (self.socket, self._wake_in, self._wake_out):
            each.close()

    def send(self, message: Message | bytes | str, to: tuple[str, int] | None = None):
        """A message; a text is sent as it stands, with the line ends of the wire."""
        if isinstance(message, str):
            message = message.replace("\r\n", "\n").replace("\n", "\r\n").encode()
        datagram = message if isinstance(message, bytes) else message.encode()
        with self._changed:
            self.traffic.append((time.monotonic(), "out", to or self.to, Message.parse(datagram)))
            self.socket.sendto(datagram, to or self.to)

    def answer(self, request: Message, code: int, phrase: str, *more: tuple[str, str], tag: str = "", body: bytes = b"", to: tuple[str, int] | None = None):
        """An answer as RFC 3261 8.2.6 builds it, to where the top Via says."""
        to_header = request.get("to")
        if tag and ";tag=" not in to_header:
            to_header += f";tag={tag}"
        headers = [("Via", via) for via in request.vias()] + [("From", request.get("from")), ("To", to_header), ("Call-ID", request.call_id),
                                                              ("CSeq", request.get("cseq")), *more, ("Content-Length", str(len(body)))]
        message = Message(f"SIP/2.0 {code} {phrase}", headers, body)
        self.send(message, to or sent_by(request.vias()[0]))
        return message

    def heard(self, start: str = "", call_id: str | None = None) -> list[Message]:
        """What came in and begins so (`INVITE`, `SIP/2.0 180`), in order."""
        with self._changed:
            return [m for _, way, _, m in self.traffic if way == "in" and m.start.startswith(start) and call_id in (None, m.call_id)]

    def expect(self, start: str, timeout: float = 5, call_id: str | None = None, nth: int = 0) -> Message | None:
        """The nth message that begins so, as soon as it is there."""
        self.wait(lambda: len(self.heard(start, call_id)) > nth, timeout)
        found = self.heard(start, call_id)
        return found[nth] if len(found) > nth else None

    def wait(self, condition, timeout: float) -> bool:
        until = time.monotonic() + timeout
        with self._changed:
            while not condition():
                left = until - time.monotonic()
                if left <= 0:
                    return bool(condition())
                self._changed.wait(min(left, 0.05))
            return True

    def after(self, seconds: float, action):
        with self._changed:
            heapq.heappush(self._timers, (time.monotonic() + seconds, next(self._order), action))
        self._wake_out.send(b"x")

    def hear(self, message: Message, peer: tuple[str, int]):
        """For those who answer by themselves; called with the lock held."""

    def _loop(self):
        while not self._closing:
            with self._changed:
                pause = max(0.0, self._timers[0][0] - time.monotonic()) if self._timers else 1.0
            ready, _, _ = select.select([self.socket, self._wake_in], [], [], min(pause, 1.0))
            if self._wake_in in ready:
                self._wake_in.recv(4096)
            if self.socket in ready:
                try:
                    datagram, peer = self.socket.recvfrom(65536)
                except OSError:
                    datagram = b""
                if datagram.strip() and not self.mute:
                    with self._changed:
                        try:
                            message = Message.parse(datagram)
                            self.traffic.append((time.monotonic(), "in", peer, message))
                            self.look(message)
                            self.hear(message, peer)
                        except (NotSip, ValueError, IndexError) as error:
                            self.complaints.append(f"unreadable: {error}: {datagram[:80]!r}")
                        self._changed.notify_all()
            while True:
                with self._changed:
                    if not self._timers or self._timers[0][0] > time.monotonic():
                        break
                    heapq.heappop(self._timers)[2]()
                    self._changed.notify_all()

    def look(self, message: Message):
        """What RFC 3261 demands of every message."""
        length = message.get("content-length")
        if length != str(len(message.body)):
            self.complaints.append(f"Content-Length {length!r} of a body of {len(message.body)} bytes: {message.start}")
        needed = ["via", "from", "to", "call-id", "cseq"] + (["max-forwards"] if message.is_request else [])
        self.complaints += [f"no {name}: {message.start}" for name in needed if not message.get(name)]
        if message.is_request and not message.vias()[0].rpartition("branch=")[2].startswith("z9hG4bK"):
            self.complaints.append(f"no branch of RFC 3261: {message.vias()[0]}")
        if not message.is_request and message.code > 100 and message.cseq[1] == "INVITE" and not tag_of(message.get("to")):
            self.complaints.append(f"an answer without a To tag: {message.start}")


class TrunkCall:
    """A call at a trunk. `state` goes calling, proceeding, ringing, up, ended; or failed; or cancelled."""

    def __init__(self, trunk: "Trunk", invite: Message, outgoing: bool):
        self.trunk, self.invite, self.outgoing = trunk, invite, outgoing
        self.state = "calling"
        self.code: int | None = None
        self.phrase = self.reason = ""
        self.answers: list[Message] = []
        self.contact = ""                                  # the other side's
        self.sdp = b"" if outgoing else invite.body
        self.own_sdp = invite.body if outgoing else b""
        self.remote = self.local = ""                      # To and From of our requests
        self.tag = letters(10)
        self.cseq = invite.cseq[0] if outgoing else 0
        self.got_ack = False
        self.ended_by = ""
        self.bye_code: int | None = None
        self.last: Message | None = None                   # our last answer

    def wait(self, *states: str, timeout: float = 10) -> bool:
        return self.trunk.wait(lambda: self.state in states, timeout)

    def hangup(self, timeout: float = 5) -> int | None:
        self.state, self.ended_by = "ended", "us"
        self.cseq += 1
        self.trunk._request(self, "BYE", self.contact, self.cseq, user_host_port(self.contact)[1:])
        self.trunk.wait(lambda: self.bye_code is not None, timeout)
        return self.bye_code

    def cancel(self, timeout: float = 5) -> bool:
        """CANCEL, and whether the 487 came."""
        invite = self.invite
        headers = [(n, v) for n, v in invite.headers if n in ("Via", "Max-Forwards", "From", "To", "Call-ID")]
        self.trunk.send(Message(f"CANCEL {invite.uri} SIP/2.0", headers + [("CSeq", f"{invite.cseq[0]} CANCEL"), ("Content-Length", "0")]), self.trunk.to)
        return self.wait("failed", timeout=timeout) and self.code == 487

    def __repr__(self) -> str:
        return f"<TrunkCall {'out' if self.outgoing else 'in'} {self.state} {self.code or ''} {self.phrase}>"


class Trunk(Wire):
    """Answers calls as `plan` says and makes some. `login=(code, user, password)` asks everybody who calls it for a password."""

    def __init__(self, host: str, port: int = 0, *, to: tuple[str, int] = ("", 0), plan=None, login: tuple[int, str, str] | None = None, qop: bool = True):
        self.plan = RINGS_AND_ANSWERS if plan is None else plan
        self.plans: dict[str, list] = {}                   # for single numbers
        self.login, self.qop, self.realm = login, qop, "trunk.example"
        self.calls: list[TrunkCall] = []
        self.payloads = ("3", "a=rtpmap:3 GSM/8000\r\n")   # what it answers with
        self.rtp_port = 0
        self.more: list[tuple[str, str]] = []              # headers of its final answers
        self.nonces: set[str] = set()
        self.texts: list[tuple[str, str, str]] = []        # from, to, text of each MESSAGE that it took
        self.text_plans: dict[str, list[tuple[int, str] | None]] = {}      # number -> answers to the next ones, None for silence; then 200
        self._answered_texts: dict[str, tuple[int, str] | None] = {}
        super().__init__(host, port, to=to)

    # -- Calls that it makes --

    def call(self, user: str, *, body: bytes | None = None, caller: str = "+442012345", more: tuple = ()) -> TrunkCall:
        uri = f"sip:{user}@{self.to[0]}:{self.to[1]}"
        body = sdp(self.host, self.rtp_port or 7000 + 2 * secrets.randbelow(500)) if body is None else body
        headers = [("Via", f"SIP/2.0/UDP {self.host}:{self.port};branch=z9hG4bK{letters(12)}"), ("Max-Forwards", "70"),
                   ("From", f'"{caller}" <sip:{caller}@{self.host}:{self.port}>;tag={letters(8)}'), ("To", f"<{uri}>"),
                   ("Call-ID", f"{secrets.token_hex(8)}@{self.host}"), ("CSeq", "101 INVITE"), ("Contact", f"<sip:{caller}@{self.host}:{self.port}>"),
                   *more, *([("Content-Type", "application/sdp")] if body else []), ("Content-Length", str(len(body)))]
        call = TrunkCall(self, Message(f"INVITE {uri} SIP/2.0", headers, body), True)
        call.local, call.remote, call.contact = call.invite.get("from"), call.invite.get("to"), uri
        with self._changed:
            self.calls.append(call)
        for at in RESEND_AT_S:
            self.after(at, lambda: call.state == "calling" and self.send(call.invite))
        return call

    def _on_invite_answer(self, call: TrunkCall, answer: Message):
        call.answers.append(answer)
        if answer.code == 100:
            if call.state == "calling":
                call.state = "proceeding"
            return
        call.remote = answer.get("to")
        if answer.code < 200:
            if call.state in ("calling", "proceeding"):
                call.state = "ringing"
        elif answer.code < 300:
            call.contact = uri_in(answer.get("contact"))
            if not call.contact:
                self.complaints.append("a 2xx without a Contact")
            if call.state in ("calling", "proceeding", "ringing"):
                call.state, call.code, call.phrase, call.sdp = "up", answer.code, answer.phrase, answer.body
            self._request(call, "ACK", call.contact, call.invite.cseq[0], user_host_port(call.contact)[1:])
        else:
            headers = [(n, v) for n, v in call.invite.headers if n in ("Via", "Max-Forwards", "From", "Call-ID")]
            self.send(Message(f"ACK {call.invite.uri} SIP/2.0", headers + [("To", answer.get("to")), ("CSeq", f"{call.invite.cseq[0]} ACK"), ("Content-Length", "0")]))
            if call.state in ("calling", "proceeding", "ringing"):
                call.state, call.code, call.phrase, call.reason = "failed", answer.code, answer.phrase, answer.get("reason")

    def _request(self, call: TrunkCall, method: str, uri: str, cseq: int, to: tuple[str, int]):
        request = Message(f"{method} {uri} SIP/2.0", [
            ("Via", f"SIP/2.0/UDP {self.host}:{self.port};branch=z9hG4bK{letters(12)}"), ("Max-Forwards", "70"), ("From", call.local), ("To", call.remote),
            ("Call-ID", call.invite.call_id), ("CSeq", f"{cseq} {method}"), ("Content-Length", "0")])
        if method == "ACK":
            self.send(request, to)
            return
        for at in RESEND_AT_S:
            self.after(at, lambda: call.bye_code is None and self.send(request, to))

    # -- Calls that come --

    def hear(self, message: Message, peer: tuple[str, int]):
        if not message.is_request:
            for call in self.calls:
                if call.invite.call_id == message.call_id:
                    if message.cseq == call.invite.cseq and call.outgoing:
                        self._on_invite_answer(call, message)
                    elif message.cseq == (call.cseq, "BYE") and message.code >= 200:
                        call.bye_code = message.code
            return
        known = self._known(message)
        if message.method == "OPTIONS":
            self.answer(message, 200, "OK", tag=letters(8))
        elif message.method == "INVITE":
            if known:
                if known.last:
                    self.send(known.last, sent_by(message.vias()[0]))
            else:
                self._on_invite(message)
        elif message.method == "ACK":
            if known:
                known.got_ack = True
                same = message.vias()[0] == known.invite.vias()[0]
                if same != (known.last is None or known.last.code >= 300):
                    self.complaints.append(f"an ACK with {'the' if same else 'another'} branch of its INVITE after {known.last and known.last.start}")
        elif message.method == "CANCEL":
            self.answer(message, 200, "OK", tag=known.tag if known else letters(8))
            if known:
                if message.vias()[0] != known.invite.vias()[0] or message.cseq[0] != known.invite.cseq[0] or message.uri != known.invite.uri:
                    self.complaints.append(f"a CANCEL that is not of its INVITE:\n{message}\n{known.invite}")
                if known.state in ("proceeding", "ringing", "calling"):
                    known.state = "cancelled"
                    self._say(known, 487, "Request Terminated")
        elif message.method == "BYE":
            self.answer(message, 200 if known else 481, "OK" if known else "No such call")
            if known:
                if message.uri != f"sip:trunk@{self.host}:{self.port}" and not known.outgoing:
                    self.complaints.append(f"a BYE that is not for our Contact: {message.uri}")
                if known.state == "up":
                    known.state, known.ended_by = "ended", "them"
        elif message.method == "MESSAGE":
            self._on_text(message)
        else:
            self.answer(message, 405, "Method Not Allowed", tag=letters(8))

    # -- Texts --

    def _on_text(self, request: Message):
        """text/plain and nothing else; a copy, known by its branch, gets the same answer and is no second text."""
        via = request.vias()[0]
        if via not in self._answered_texts:
            if request.get("content-type").partition(";")[0].strip().lower() != "text/plain":
                self._answered_texts[via] = (415, "Unsupported Media Type")
            else:
                plan = self.text_plans.get(user_host_port(request.uri)[0])
                self._answered_texts[via] = said = plan.pop(0) if plan else (200, "OK")
                if said and said[0] < 300:
                    self.texts.append((user_host_port(uri_in(request.get("from")))[0], user_host_port(request.uri)[0], request.body.decode()))
        if self._answered_texts[via]:
            self.answer(request, *self._answered_texts[via], tag=letters(8))

    def text(self, user: str, text: str, *, caller: str = "+442012345", kind: str = "text/plain;charset=UTF-8", timeout: float = 6, more: tuple = ()) -> Message | None:
        """A text to this number, and the final answer."""
        uri = f"sip:{user}@{self.to[0]}:{self.to[1]}"
        body = text.encode()
        request = Message(f"MESSAGE {uri} SIP/2.0", [
            ("Via", f"SIP/2.0/UDP {self.host}:{self.port};branch=z9hG4bK{letters(12)}"), ("Max-Forwards", "70"),
            ("From", f"<sip:{caller}@{self.host}:{self.port}>;tag={letters(8)}"), ("To", f"<{uri}>"), ("Call-ID", f"{secrets.token_hex(8)}@{self.host}"),
            ("CSeq", "1 MESSAGE"), *more, ("Content-Type", kind), ("Content-Length", str(len(body)))], body)

        def final():
            return next((answer for answer in self.heard("SIP/2.0", request.call_id) if answer.code >= 200), None)

        for at in (0, 0.5, 1.5, 3.5):
            self.after(at, lambda: final() is None and self.send(request))
        self.wait(lambda: final() is not None, timeout)
        return final()

    def _known(self, request: Message) -> TrunkCall | None:
        """Its call; INVITE, ACK and CANCEL belong to an INVITE of the same number (one with a password has another)."""
        of_it = [call for call in self.calls if call.invite.call_id == request.call_id]
        if request.method in ("INVITE", "ACK", "CANCEL"):
            of_it = [call for call in of_it if call.outgoing or call.invite.cseq[0] == request.cseq[0]]
        return of_it[-1] if of_it else None

    def _on_invite(self, invite: Message):
        call = TrunkCall(self, invite, False)
        call.local, call.remote, call.contact = f"{invite.get('to')};tag={call.tag}", invite.get("from"), uri_in(invite.get("contact"))
        self.calls.append(call)
        if self.login and not self._proved(invite):
            nonce = secrets.token_hex(12)
            self.nonces.add(nonce)
            name = "WWW-Authenticate" if self.login[0] == 401 else "Proxy-Authenticate"
            self._say(call, self.login[0], "Prove it", (name, f'Digest realm="{self.realm}", nonce="{nonce}", algorithm=MD5' + (', qop="auth"' if self.qop else "")))
            call.state = "failed"
            return
        for delay, code, phrase in self.plans.get(user_host_port(invite.uri)[0], self.plan):
            self.after(delay, lambda code=code, phrase=phrase: call.state not in ("cancelled", "failed", "ended", "up") and self._say(call, code, phrase))

    def _say(self, call: TrunkCall, code: int, phrase: str, *more):
        body = b""
        if code == 200 or code == 183:
            payloads, lines = self.payloads
            body = call.own_sdp = call.own_sdp or sdp(self.host, self.rtp_port or 7000 + 2 * secrets.randbelow(500), payloads, lines)
        headers = list(more) + ([("Contact", f"<sip:trunk@{self.host}:{self.port}>")] if code > 100 else [])
        headers += ([("Content-Type", "application/sdp")] if body else []) + (self.more if code >= 300 else [])
        call.last = self.answer(call.invite, code, phrase, *headers, tag="" if code == 100 else call.tag, body=body)
        if code >= 200 and call.state != "cancelled":
            call.state, call.code = ("up" if code < 300 else "failed"), code
        elif 100 < code < 200:
            call.state = "ringing"
        if code >= 200:                                    # until the ACK is there
            for at in RESEND_AT_S[1:]:
                self.after(at, lambda last=call.last: not call.got_ack and self.send(last, sent_by(call.invite.vias()[0])))

    def _proved(self, invite: Message) -> bool:
        code, user, password = self.login
        value = invite.get("authorization" if code == 401 else "proxy-authorization")
        said = {name.lower(): quoted or plain for name, quoted, plain in re.findall(r'(\w+)\s*=\s*(?:"([^"]*)"|([^\s,]+))', value)}
        if said.get("username") != user or said.get("realm") != self.realm or said.get("nonce") not in self.nonces or said.get("uri") != invite.uri:
            return False
        ha1, ha2 = _md5(f"{user}:{self.realm}:{password}"), _md5(f"INVITE:{said['uri']}")
        if self.qop:
            wanted = _md5(":".join((ha1, said["nonce"], said.get("nc", ""), said.get("cnonce", ""), said.get("qop", ""), ha2)))
            return said.get("qop") == "auth" and said.get("response") == wanted
        return "qop" not in said and said.get("response") == _md5(f"{ha1}:{said['nonce']}:{ha2}")

    def reached(self, user: str) -> list[TrunkCall]:
        """The calls to this number that came, those that were asked for a password left out."""
        return [call for call in self.calls if not call.outgoing and user_host_port(call.invite.uri)[0] == user and call.code not in (401, 407)]


def _md5(text: str) -> str:
    return hashlib.md5(text.encode()).hexdigest()
