"""What the tests of the message centre share: texts sent and awaited in every dialect, what the operator is told, the records.

Python 3 standard library only.
"""

from __future__ import annotations

import csv
import time

from box import DOMAIN, Box, Sim, Station, YateStation       # first: it puts the peers on the path
import obts
import peers
from ims import ImsPhone, SoftPhone
from sip import user_host_port
from talk import QUICK, messages, open_sims

SERVICE_CENTRE = "1000"
#: Addresses that may speak for phones, without a table: SIP phones of both kinds register from there.
SIP_PHONES, IMS_PHONES = "127.0.0.79", "127.0.0.77"
#: TP-Status, TS 23.040 9.2.3.15.
DELIVERED, FORWARDED, REPLACED, EXPIRED, DELETED_BY_SENDER, DROPPED_BY_CENTRE, UNKNOWN = 0x00, 0x01, 0x02, 0x46, 0x47, 0x48, 0x49


def three_segments(mark: str = "") -> str:
    """A text of three segments in the GSM alphabet, with something of it at both ends."""
    return f"{mark}begin " + "".join(f"{number} bottles of {{beer}}, " for number in range(99, 82, -1)) + "end"


def texts_for(station, *users: str) -> list[tuple[float, object]]:
    """The MESSAGEs that reached this base station for one of these users (IMSI.. or a number), copies included, with their times."""
    return [(when, message) for when, way, _, message in messages(station)
            if way == "in" and message.is_request and message.method == "MESSAGE" and user_host_port(message.uri)[0] in users]


def records(box: Box, name: str = "texts.csv") -> list[dict]:
    """The lines of the text records."""
    path = box.data_dir / name
    return list(csv.DictReader(path.read_text().splitlines())) if path.exists() else []


OPTIONS = {"sims": open_sims(140), "trunks": False, "more": f'[messages]\nservice_centre = "{SERVICE_CENTRE}"\n[registrar]\nclock_trusted = true\n'}


class Texting:
    """For test cases with a `box`; a text is judged where it arrives."""

    #: What `outcome` notes beside obts.py.
    programs: tuple = ()

    def outcome(self, name: str):
        for program in self.programs:
            peers.used(program, self)
        super().outcome(name)

    @classmethod
    def station_at(cls, name: str, kind=Station, **more):
        """For `ready` of a class whose scenarios run side by side."""
        return kind(cls.box, cls.box.addresses[name], cls.box.station_ports[name], **(QUICK | more))

    # -- Phones of the other kinds --

    def soft_phone(self, register: bool = True) -> SoftPhone:
        return self._sip_phone(SoftPhone, SIP_PHONES, register)

    def ims_phone(self, register: bool = True, **more) -> ImsPhone:
        return self._sip_phone(ImsPhone, IMS_PHONES, register, service_centre=SERVICE_CENTRE, **more)

    def _sip_phone(self, kind, address: str, register: bool, **more):
        box = self.box
        phone = kind(address, 0, box.phone("none").imsi, box.registrar, (box.host, box.texts), domain=DOMAIN, **more)
        self.addCleanup(self._closed, phone)
        if register:
            answer = phone.register()
            self.assertTrue(answer is not None and answer.code == 200, answer)
        return phone

    def _closed(self, phone):
        phone.close()
        self.assertEqual(phone.complaints, [], "what a SIP phone would have stumbled over")

    # -- Sending and getting --

    def number(self, phone, which: int = 0) -> str:
        return self.box.numbers_of(phone)[which]

    def assertSent(self, station, phone, number: str, text: str, **more):
        """From a phone at a base station of either kind."""
        answer = station.sms(phone, number, text, timeout=6, **more)
        self.assertIsNotNone(answer, "no answer to a MESSAGE")
        if isinstance(station, YateStation):
            self.assertTrue(answer.ok and answer.code in (200, 202), answer)
        else:
            self.assertEqual(answer.code, 202, str(answer))
        return answer

    def assertRefusedText(self, station, phone, number: str, text: str, code: int, **more):
        answer = station.sms(phone, number, text, timeout=6, **more)
        self.assertIsNotNone(answer, "no answer to a MESSAGE")
        self.assertEqual(answer.code, code, str(answer))

    def assertInbox(self, phone, texts: list[str], timeout: float = 8):
        """Exactly these, in this order; waits for the last of them."""
        self.until(lambda: len(phone.texts()) >= len(texts), timeout)
        self.assertEqual(phone.texts(), texts)

    def assertWords(self, phone, *parts: str, timeout: float = 8, nth: int = 0) -> str:
        """The nth text of the service centre (or of a short code) holds these."""
        self.assertTrue(self.until(lambda: len(phone.texts()) > nth, timeout), f"no words; the phone has {phone.texts()}")
        words = phone.texts()[nth]
        for part in parts:
            self.assertIn(part, words)
        return words

    def until(self, condition, timeout: float = 8) -> bool:
        end = time.monotonic() + timeout
        while not condition():
            if time.monotonic() > end:
                return bool(condition())
            time.sleep(0.03)
        return True

    def sender_of(self, phone, nth: int = -1) -> str:
        one = phone.inbox[nth]
        return one[0] if isinstance(one, tuple) else one.sender

    # -- The operator --

    def queue(self, *words: str) -> list[dict]:
        reply = self.box.command("queue", *(words or ("list",)))
        self.assertEqual(reply.code, 0, reply.err)
        return reply.data

    def waiting(self, phone) -> list[dict]:
        """What waits for this phone."""
        names = (*self.box.numbers_of(phone), f"IMSI{phone.imsi}", phone.imsi)
        return [text for text in self.queue() if text["to"] in names]

    def assertWaits(self, phone, count: int = 1, timeout: float = 5) -> list[dict]:
        self.assertTrue(self.until(lambda: len(self.waiting(phone)) == count, timeout), f"{len(self.waiting(phone))} wait in place of {count}")
        return self.waiting(phone)

    def show(self, text: dict | str) -> dict:
        """Everything about one that waits."""
        reply = self.box.command("queue", "show", text["id"] if isinstance(text, dict) else text)
        self.assertEqual(reply.code, 0, reply.err)
        return reply.data

    def explain(self, identity: str) -> dict:
        reply = self.box.command("queue", "explain", identity)
        self.assertEqual(reply.code, 0, reply.err)
        return reply.data

    def record(self, *, to: str, timeout: float = 5, sender: str = "", count: int = 1) -> list[dict]:
        """The records of texts to this number; a record may come a moment after what it tells."""
        def have():
            return [line for line in records(self.box) if line["to"] == to and sender in ("", line["from"])]

        self.until(lambda: len(have()) >= count, timeout)
        self.assertEqual(len(have()), count, f"records of texts to {to}: {have()}")
        return have()


def unnumbered_sims(count: int, prefix: str = "8") -> list[Sim]:
    """SIMs that nobody gave a number."""
    return [Sim(f"00101{prefix}{number:06d}{number % 7}{number % 100:02d}", "none", [], f"nameless {number}") for number in range(count)]


def stamps(phone: obts.Phone) -> list[tuple[str, str]]:
    return [(one.sender, one.stamp) for one in phone.inbox]
