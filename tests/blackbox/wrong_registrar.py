"""A registrar of sixty lines, right or deliberately wrong in one way: the base station must notice.

`wrong` is "" (right), or one of WRONGS. It knows one kind of SIM (comp128v1) and no disk; it is no model for anything.
"""

from __future__ import annotations

import secrets
import socket
import threading

import box                                                 # noqa: F401  (puts the peers on the path)
import comp128
from sip import Message, letters, uri_in, user_host_port

#: What it does wrong -> what the base station makes of it.
WRONGS = {
    "second challenge": "let in by FailMode",
    "short nonce": "nonce is not 32 hex digits",
    "base64 nonce": "nonce is not 32 hex digits",
    "tag not last": "parameter after the tag",
    "compact names": "compact header name",
    "too long": "OpenBTS reads 1500",
    "lets everybody in": "mallory was let in",
    "refuses everybody": "ana was not let in",
    "silent": "ana was not let in",
    "wrong Kc": "another Kc",
    "two answers": "two answers to one request",
}


class WrongRegistrar:
    """Listens on loopback until closed. `keys` is IMSI -> Ki."""

    def __init__(self, keys: dict[str, bytes], wrong: str = ""):
        assert not wrong or wrong in WRONGS, wrong
        self.keys, self.wrong, self.nonces = keys, wrong, {}
        self.socket = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self.socket.bind((box.BOX, box.free_port(box.BOX)))
        self.host, self.port = self.socket.getsockname()
        threading.Thread(target=self._serve, daemon=True).start()

    def __enter__(self) -> "WrongRegistrar":
        return self

    def __exit__(self, *_):
        self.socket.sendto(b"", (self.host, self.port))    # wakes the loop, which then ends

    def _serve(self):
        while True:
            datagram, peer = self.socket.recvfrom(65536)
            if not datagram:
                self.socket.close()
                return
            if self.wrong != "silent":
                request = Message.parse(datagram)
                for _ in range(2 if self.wrong == "two answers" else 1):
                    self.socket.sendto(self._answer(request, *self._decide(request)).encode(), peer)

    def _decide(self, request: Message):
        imsi = user_host_port(uri_in(request.get("to")))[0].removeprefix("IMSI")
        authorization = request.get("authorization")
        if imsi not in self.keys or self.wrong == "refuses everybody":
            return "404 Not Found", [("P-GSM-Reject-Cause", "4")]
        if not authorization and self.wrong != "lets everybody in":
            return self._challenge(imsi)
        rand = self.nonces.pop(imsi, bytes(16))
        sres, kc = comp128.ALGORITHMS["comp128v1"](self.keys[imsi], rand)
        if f'response="{sres.hex()}"' not in authorization and self.wrong != "lets everybody in":
            return self._challenge(imsi) if self.wrong == "second challenge" else ("401 Unauthorized", [("P-GSM-Reject-Cause", "4")])
        kc = bytes(8) if self.wrong == "wrong Kc" else kc
        return "200 OK", [("Contact", request.get("contact")), ("Authentication-Info", f"cnonce={kc.hex()}")]

    def _challenge(self, imsi: str):
        rand = self.nonces[imsi] = secrets.token_bytes(16)
        nonce = {"short nonce": "abcd", "base64 nonce": "AAECAwQFBgcICQoLDA0ODw=="}.get(self.wrong, rand.hex())
        return "401 Unauthorized", [("WWW-Authenticate", f"Digest nonce={nonce}")]

    def _answer(self, request: Message, start: str, more: list) -> Message:
        tag = f";tag={letters(8)}" + (";late=yes" if self.wrong == "tag not last" else "")
        headers = [("Via", request.get("via")), ("From", request.get("from")), ("To", request.get("to") + tag),
                   ("Call-ID", request.get("call-id")), ("CSeq", request.get("cseq")), *more]
        if self.wrong == "too long":
            headers.append(("X-Echo", "x" * 1500))
        headers.append(("l" if self.wrong == "compact names" else "Content-Length", "0"))
        return Message(f"SIP/2.0 {start}", headers)
