"""What no base station may ever hear, shown to be noticed: each wrong thing written by hand into the traffic of a base station."""

import time
import unittest
from types import SimpleNamespace

from box import BOX, STATIONS
from talk import audit

US, THEM = (BOX, 5060), (STATIONS["mill"], 5062)
BOX_OF = SimpleNamespace(host=BOX)
IMSI = "001010000000001"


def said(start: str, cseq: str, call_id: str = "one", contact: str = "") -> bytes:
    via = f"SIP/2.0/UDP {BOX}:5060;branch=z9hG4bKa"
    return (f"{start}\r\nVia: {via}\r\nFrom: <sip:+1@{BOX}>;tag=a\r\nTo: <sip:IMSI{IMSI}@{THEM[0]}>;tag=b\r\nCall-ID: {call_id}\r\n"
            f"CSeq: {cseq}\r\n" + (f"Contact: {contact}\r\n" if contact else "") + "Content-Length: 0\r\n\r\n").encode()


def invite(call_id: str = "one", uri: str = f"sip:IMSI{IMSI}@{THEM[0]}:{THEM[1]}", contact: str = f"<sip:{BOX}:5060>", cseq: int = 1) -> bytes:
    return said(f"INVITE {uri} SIP/2.0", f"{cseq} INVITE", call_id, contact)


def text(call_id: str) -> bytes:
    return said(f"MESSAGE sip:IMSI{IMSI}@{THEM[0]}:{THEM[1]} SIP/2.0", "1 MESSAGE", call_id)


BYE, ACK, OK_BYE = said("BYE sip:x SIP/2.0", "2 BYE"), said("ACK sip:x SIP/2.0", "1 ACK"), said("SIP/2.0 200 OK", "2 BYE")
RINGING, OK, BUSY = (said(f"SIP/2.0 {words}", "1 INVITE") for words in ("180 Ringing", "200 OK", "486 User_Busy"))
OK_TEXT = said("SIP/2.0 200 OK", "1 MESSAGE")

#: What is wrong -> (seconds ago, way, datagram) of all that was said, and a word of what must be found; "" where nothing is wrong.
CASES = {
    "a whole call to a phone": ([(9, "in", invite()), (8, "out", RINGING), (8, "out", OK), (8, "in", ACK), (5, "in", BYE), (5, "out", OK_BYE)], ""),
    "a whole call from a phone": ([(9, "out", invite()), (8, "in", RINGING), (8, "in", OK), (8, "out", ACK), (5, "out", BYE), (5, "in", OK_BYE)], ""),
    "a busy phone": ([(9, "in", invite()), (9, "out", BUSY), (9, "in", ACK)], ""),
    "two texts, one after the other": ([(9, "in", text("one")), (8, "out", OK_TEXT), (7, "in", text("two"))], ""),
    "a text and its copy": ([(40, "in", text("one")), (28, "in", text("one"))], ""),
    "a packet after our BYE": ([(9, "out", invite()), (8, "in", OK), (8, "out", ACK), (5, "out", BYE), (5, "in", OK_BYE), (4, "in", BYE)], "after the BYE"),
    "a packet after their BYE": ([(9, "in", invite()), (8, "out", OK), (8, "in", ACK), (5, "in", BYE), (5, "out", OK_BYE), (4, "in", BYE)], "after the BYE"),
    "180 twice": ([(9, "out", invite()), (8, "in", RINGING), (7, "in", RINGING)], "2 times"),
    "an answer after a refusal": ([(9, "out", invite()), (8, "in", BUSY), (8, "out", ACK), (6, "in", OK)], "after a refusal"),
    "a refusal without ACK": ([(9, "in", invite()), (9, "out", BUSY)], "never acknowledged"),
    "a 200 without ACK": ([(50, "in", invite()), (49, "out", OK)], "never acknowledged"),
    "an INVITE for a number": ([(1, "in", invite(uri=f"sip:+1555@{THEM[0]}:{THEM[1]}"))], "an INVITE for"),
    "the caller's own Contact": ([(1, "in", invite(contact="<sip:x@127.0.0.71:5062>"))], "not ours"),
    "a re-INVITE": ([(3, "in", invite()), (2, "in", invite(cseq=2))], "second INVITE"),
    "a text again after its 200": ([(20, "in", text("one")), (18, "out", OK_TEXT), (8, "in", text("one"))], "after a text was answered"),
    "three copies of a text": ([(60, "in", text("one")), (48, "in", text("one")), (36, "in", text("one"))], "3 copies"),
    "a copy of a text too soon": ([(20, "in", text("one")), (16, "in", text("one"))], "second copy"),
    "two texts at once": ([(20, "in", text("one")), (19, "in", text("two"))], "in hand"),
}


class Audit(unittest.TestCase):
    def test_each_wrong_thing_is_found_and_nothing_else(self):
        now = time.monotonic()
        for name, (traffic, word) in CASES.items():
            with self.subTest(name):
                station = SimpleNamespace(host=THEM[0], port=THEM[1], complaints=[], traffic=[(now - ago, way, US, datagram) for ago, way, datagram in traffic])
                found = audit(station, BOX_OF)
                if word:
                    self.assertTrue(any(word in each for each in found), f"not noticed; found was {found}")
                else:
                    self.assertEqual(found, [])


if __name__ == "__main__":
    unittest.main()
