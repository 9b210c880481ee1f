"""A SIP user agent that keeps RFC 3261, without calls: one socket, requests that are repeated until answered, answers to copies.

What it cannot accept of the other side (a length that is wrong, a header that is missing, a branch without the cookie) is kept
in `complaints`.  Those who use it write `on_request`.  Standard library only.
"""

from __future__ import annotations

import heapq
import itertools
import secrets
import select
import socket
import threading
import time

from sip import Message, NotSip, letters, sent_by, split_commas, tag_of, uri_in

RESEND_AT_S = (0, 0.5, 1.5, 3.5, 7.5, 11.5, 15.5, 19.5, 23.5, 27.5, 31.5)      # timer E of RFC 3261 17.1.2.2
GIVE_UP_S = 32
NEEDED = ("via", "from", "to", "call-id", "cseq")


class Agent:
    """One socket with a thread. `mute` hears nothing and says nothing, as one that died."""

    user_agent = "agent"

    def __init__(self, host: str, port: int):
        self.host, self.port = host, port
        self.traffic: list[tuple[float, str, tuple[str, int], bytes]] = []
        self.complaints: list[str] = []
        self.mute = False
        self._transactions: dict[tuple[str, str], list[Message]] = {}      # by branch and method: answers to ours
        self._answered: dict[tuple[str, str, str], bytes] = {}             # theirs: by sent-by, branch, method
        self._timers: list = []
        self._order = itertools.count()
        self._changed = threading.Condition(threading.RLock())
        self._closing = False
        self._socket = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self._socket.bind((host, port))
        self.port = self._socket.getsockname()[1]
        self._wake_in, self._wake_out = socket.socketpair()
        self._thread = threading.Thread(target=self._loop, daemon=True, name=f"agent {host}:{self.port}")
        self._thread.start()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()

    def close(self):
        self._closing = True
        self._wake_out.send(b"x")
        self._thread.join(2)
        for each in (self._socket, self._wake_in, self._wake_out):
            each.close()

    # -- What it says --

    def request(self, method: str, uri: str, sender: str, recipient: str, *more: tuple[str, str], body: bytes = b"", call_id: str = "",
                cseq: int | None = None) -> Message:
        """A request outside a dialog; `sender` and `recipient` are URIs."""
        return Message(f"{method} {uri} SIP/2.0", [
            ("Via", f"SIP/2.0/UDP {self.host}:{self.port};branch=z9hG4bK{letters(16)};rport"),
            ("Max-Forwards", "70"),
            ("From", f"<{sender}>;tag={letters(10)}"),
            ("To", f"<{recipient}>"),
            ("Call-ID", call_id or f"{secrets.token_hex(12)}@{self.host}"),
            ("CSeq", f"{secrets.randbelow(1 << 16) + 1 if cseq is None else cseq} {method}"),
            ("User-Agent", self.user_agent),
            *more,
            ("Content-Length", str(len(body))),
        ], body)

    def transact(self, request: Message, to: tuple[str, int], timeout: float = GIVE_UP_S, resend=RESEND_AT_S) -> Message | None:
        """Sends it, and again until an answer stops that; the final answer, None when there was none."""
        key = (request.vias()[0].partition("branch=")[2].partition(";")[0], request.method)
        answers: list[Message] = []
        with self._changed:
            self._transactions[key] = answers
        started, plan, datagram = time.monotonic(), list(resend), request.encode()
        try:
            while True:
                elapsed = time.monotonic() - started
                if plan and elapsed >= plan[0]:
                    plan.pop(0)
                    self.send(datagram, to)
                with self._changed:
                    final = next((answer for answer in answers if answer.code >= 200), None)
                    if final:
                        return final
                    if elapsed >= timeout:
                        return None
                    next_at = min(plan[0] if plan else timeout, timeout)
                    self._changed.wait(max(0.001, next_at - (time.monotonic() - started)))
        finally:
            with self._changed:
                self._transactions.pop(key, None)

    def send(self, datagram: bytes, to: tuple[str, int]):
        if self.mute:
            return
        with self._changed:
            self.traffic.append((time.monotonic(), "out", to, datagram))
            self._socket.sendto(datagram, to)

    def answer(self, request: Message, peer: tuple[str, int], code: int, phrase: str, *more: tuple[str, str], body: bytes = b""):
        """Answers as RFC 3261 8.2.6 and 18.2.2 say: to the source address, at the port of the top Via (or of the source, with rport)."""
        to = request.get("to")
        if code > 100 and not tag_of(to):
            to += f";tag={letters(10)}"
        message = Message(f"SIP/2.0 {code} {phrase}", [
            *[("Via", via) for via in request.vias()], ("From", request.get("from")), ("To", to), ("Call-ID", request.call_id),
            ("CSeq", request.get("cseq")), *more, ("User-Agent", self.user_agent), ("Content-Length", str(len(body)))], body)
        datagram = message.encode()
        via = request.vias()[0]
        where = (peer[0], peer[1] if ";rport" in via else sent_by(via)[1])
        if code >= 200:
            self._answered[self._key(request)] = datagram
        self.send(datagram, where)

    # -- What it hears --

    def on_request(self, request: Message, peer: tuple[str, int]):
        """A request that is no copy; called with the lock held. Answer it now, later, or never."""
        self.answer(request, peer, 405, "Method Not Allowed")

    def received(self, method: str) -> list[Message]:
        """Requests of this method that came in, copies included."""
        with self._changed:
            chosen = [data for _, way, _, data in self.traffic if way == "in" and data.startswith(method.encode() + b" ")]
        return [Message.parse(data) for data in chosen]

    def sent(self, method: str) -> list[Message]:
        with self._changed:
            chosen = [data for _, way, _, data in self.traffic if way == "out" and data.startswith(method.encode() + b" ")]
        return [Message.parse(data) for data in chosen]

    def wait(self, condition, timeout: float) -> bool:
        """Waits until the condition holds; says whether it did."""
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

    @staticmethod
    def _key(request: Message) -> tuple[str, str, str]:
        via = request.vias()[0]
        return str(sent_by(via)), via.partition("branch=")[2].partition(";")[0], request.method

    def _loop(self):
        while not self._closing:
            with self._changed:
                pause = max(0.0, self._timers[0][0] - time.monotonic()) if self._timers else 1.0
            ready, _, _ = select.select([self._socket, self._wake_in], [], [], min(pause, 1.0))
            if self._wake_in in ready:
                self._wake_in.recv(4096)
            if self._socket in ready:
                try:
                    datagram, peer = self._socket.recvfrom(65536)
                except OSError:
                    datagram = b""
                if datagram.strip() and not self.mute:
                    self._hear(datagram, peer)
            with self._changed:
                while self._timers and self._timers[0][0] <= time.monotonic():
                    heapq.heappop(self._timers)[2]()
                    self._changed.notify_all()

    def _hear(self, datagram: bytes, peer: tuple[str, int]):
        with self._changed:
            self.traffic.append((time.monotonic(), "in", peer, datagram))
            try:
                message = Message.parse(datagram)
                self._look(message)
                if not message.is_request:
                    branch = message.vias()[0].partition("branch=")[2].partition(";")[0]
                    self._transactions.get((branch, message.cseq[1]), []).append(message)
                elif self._key(message) in self._answered:
                    self.send(self._answered[self._key(message)], (peer[0], sent_by(message.vias()[0])[1]))
                else:
                    self.on_request(message, peer)
            except (NotSip, ValueError, IndexError) as error:
                self.complaints.append(f"unreadable from {peer}: {error}: {datagram[:80]!r}")
            self._changed.notify_all()

    def _look(self, message: Message):
        length = message.get("content-length")
        if length != str(len(message.body)):
            self.complaints.append(f"Content-Length {length!r} of a body of {len(message.body)} bytes: {message.start}")
        needed = NEEDED + (("max-forwards",) if message.is_request else ())
        self.complaints += [f"no {name}: {message.start}" for name in needed if not message.get(name)]
        if message.is_request and not message.vias()[0].rpartition("branch=")[2].startswith("z9hG4bK"):
            self.complaints.append(f"no branch of RFC 3261: {message.vias()[0]}")
        if message.is_request and not tag_of(message.get("from")):
            self.complaints.append(f"no From tag: {message.get('from')}")
        if message.body and not message.get("content-type"):
            self.complaints.append(f"a body without a Content-Type: {message.start}")


class Registered(Agent):
    """An agent that registers at a registrar as `IMSI..`, without a key: the SIM of algorithm none."""

    #: Parameters of its Contact, and headers of its REGISTER.
    contact_parameters = ""
    register_headers: tuple = ()

    def __init__(self, host: str, port: int, imsi: str, registrar: tuple[str, int], proxy: tuple[str, int] | None = None, *, domain: str = "gsm.example"):
        self.imsi, self.domain = imsi, domain
        self.registrar, self.proxy = registrar, proxy or registrar
        self.numbers: list[str] = []                       # what the registrar said in P-Associated-URI
        self._register_call_id = f"{secrets.token_hex(8)}@{host}"
        self._register_cseq = itertools.count(1)
        super().__init__(host, port)

    @property
    def identity(self) -> str:
        return f"sip:{self.imsi}@{self.domain}"

    @property
    def contact(self) -> str:
        return f"sip:{self.imsi}@{self.host}:{self.port}"

    def register(self, expires: int = 3600, timeout: float = 5) -> Message | None:
        """One REGISTER and its answer; `expires=0` takes this contact away."""
        request = self.request("REGISTER", f"sip:{self.domain}", self.identity, self.identity,
                               ("Contact", f"<{self.contact}>{self.contact_parameters};expires={expires}"), *self.register_headers,
                               call_id=self._register_call_id, cseq=next(self._register_cseq))
        answer = self.transact(request, self.registrar, timeout)
        if answer is not None and answer.code == 200:
            values = [each for value in answer.all("p-associated-uri") for each in split_commas(value)]
            self.numbers = [uri_in(value).partition(":")[2].partition("@")[0].partition(";")[0] for value in values]
        return answer
