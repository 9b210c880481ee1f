"""Texts between phones, judged at the phones: what is in their inboxes, and how often their base station was asked to page them."""

import time
import unittest

from box import Station                                    # first: it puts the peers on the path
import peers
import sms
from sip import letters, user_host_port
from talk import QUICK, RawStation, SideBySide, audit, messages, open_sims, two_boxes

ALPHABETS = ("hello", "{[~]} ^ \\ | €", "¿Ça va à Ærøskøbing?", "Привет, Боб", "漢字 ok", "🙂 done", "x" * 160, "ж" * 70, "@", "two\nlines")


def texts_for(station, imsi: str) -> list[tuple[float, object]]:
    """The MESSAGEs that reached this base station for this phone, copies included, with their times."""
    return [(when, message) for when, way, _, message in messages(station)
            if way == "in" and message.is_request and message.method == "MESSAGE" and user_host_port(message.uri)[0] == f"IMSI{imsi}"]


class Texts(SideBySide):
    options = {"sims": open_sims(120), "trunks": False, "sites": {f"raw{number}": f"alone{number}" for number in range(6)} | {"slow": "slow"},
               "more": '[messages]\nservice_centre = "1000"\n'}

    @classmethod
    def ready(cls):
        cls.hill, cls.dale, cls.mill = (Station(cls.box, cls.box.addresses[name], cls.box.station_ports[name], **QUICK) for name in ("hill", "dale", "mill"))
        cls.slow = Station(cls.box, cls.box.addresses["slow"], cls.box.station_ports["slow"], **(QUICK | {"transfer_s": 1.0}))

    def assertSent(self, station, phone, number: str, text: str, **more):
        answer = station.sms(phone, number, text, timeout=5, **more)
        self.assertIsNotNone(answer, "no answer to a MESSAGE")
        self.assertEqual(answer.code, 202, str(answer))
        return answer

    def assertInbox(self, station, phone, texts: list[str], timeout: float = 8):
        station.wait(lambda: len(phone.texts()) >= len(texts), timeout)
        self.assertEqual(phone.texts(), texts)

    def waiting(self, phone) -> list[dict]:
        """What waits for this phone, by the operator's list."""
        reply = self.box.command("queue")
        self.assertEqual(reply.code, 0, reply.err)
        return [text for text in reply.data if text["to"] in (*self.box.numbers_of(phone), f"IMSI{phone.imsi}", phone.imsi)]

    def submit(self, phone, number: str, text: str, reference: int, repeat: bool = False) -> bytes:
        """The body of a MESSAGE, with the phone's own reference."""
        tpdu = sms.submit(number, text, reference=reference, reject_duplicates=repeat)
        return sms.rp_data_mo(tpdu, reference=reference + repeat).hex().encode()

    def send(self, station, phone, body: bytes, kind: str = "application/vnd.3gpp.sms", user: str = "smsc", **more):
        return station.transact(station._message(phone, user, kind, body), station.sms_proxy, 5, **more)

    # -- Being delivered --

    def test_a_text_to_another_cell(self):
        ana, bob = self.phones(2, self.hill, self.mill)
        for which in (0, 1):
            self.assertSent(self.hill, ana, self.number(bob, which), f"hello {which}")
        self.assertInbox(self.mill, bob, ["hello 0", "hello 1"])
        self.assertEqual({one.sender for one in bob.inbox}, {self.number(ana)}, "shown is the sender's first number")
        self.assertEqual({one.service_centre for one in bob.inbox}, {"1000"})
        time.sleep(3)
        self.assertEqual(len(texts_for(self.mill, bob.imsi)), 2, "once each, and no more after the 200")
        self.assertEqual(self.waiting(bob), [])
        # And what is shown can be answered.
        self.assertSent(self.mill, bob, bob.inbox[0].sender, "hello yourself")
        self.assertInbox(self.hill, ana, ["hello yourself"])

    def test_a_text_in_the_same_cell_and_to_oneself(self):
        ana, bob = self.phones(2, self.hill)
        self.assertSent(self.hill, ana, self.number(bob), "near")
        self.assertSent(self.hill, ana, self.number(ana), "myself")
        self.assertInbox(self.hill, bob, ["near"])
        self.assertInbox(self.hill, ana, ["myself"])

    def test_a_text_as_plain_text(self):
        ana, bob = self.phones(2, self.hill, self.mill)
        for text in ("plain", "Straße €", "Жук"):
            self.assertSent(self.hill, ana, self.number(bob), text, as_text=True)
        self.assertInbox(self.mill, bob, ["plain", "Straße €", "Жук"])
        self.assertEqual({one.sender for one in bob.inbox}, {self.number(ana)})

    def test_every_alphabet(self):
        ana, bob = self.phones(2, self.hill, self.mill)
        for text in ALPHABETS:
            self.assertSent(self.hill, ana, self.number(bob), text)
        self.assertInbox(self.mill, bob, list(ALPHABETS), 20)

    def test_the_parts_of_a_long_one(self):
        ana, bob = self.phones(2, self.hill, self.mill)
        text = "".join(f"{number} bottles of {{beer}}, " for number in range(99, 60, -1))
        self.assertSent(self.hill, ana, self.number(bob), text)
        self.assertInbox(self.mill, bob, [text], 15)

    def test_the_literal_text_of_wire_md(self):
        """The body of wire.md 4.1 goes to 2101; the DELIVER that comes has its text."""
        raw, ana = RawStation(self, "raw0"), self.box.phone("none")
        raw.register(ana)
        body = "002a000381000012012a0481121000000ac8329bfd06cdcb6c33"
        call_id = letters(12)
        raw.send(f"""MESSAGE sip:smsc@{self.box.host}:{self.box.texts} SIP/2.0
To:  <sip:smsc@{self.box.host}>
From:  <sip:IMSI{ana.imsi}@{raw.host}:{raw.port}>;tag=OBTSvzgnaalnutwucdjc
Via: SIP/2.0/UDP {raw.host}:{raw.port};branch=z9hG4bKOBTSwwzwouywbrzggksh
Call-ID: {call_id}
CSeq: 131737 MESSAGE
Contact: <sip:IMSI{ana.imsi}@{raw.host}:{raw.port}>;expires=3600
Max-Forwards: 70
P-Preferred-Identity: <sip:IMSI{ana.imsi}@{self.box.host}>
User-Agent: OpenBTS 5.0-master Build Date 2026-11-21T11:58:28
Content-Type: application/vnd.3gpp.sms
Content-Length: 52

{body}""", (self.box.host, self.box.texts))
        answer = raw.expect("SIP/2.0 ", call_id=call_id)
        self.assertEqual(answer.code, 404, "2101 is nobody here")
        # So the centre says in words that it was not sent: read as a phone reads it, and acknowledged as OpenBTS does.
        came = raw.expect("MESSAGE", 5)
        self.assertIsNotNone(came, "no words")
        words = sms.parse_rp_data_mt(bytes.fromhex(came.body.decode()))
        self.assertEqual((words.sender, "2101" in words.text), ("1000", True), words)
        raw.answer(came, 200, "OK")
        time.sleep(2)
        self.assertEqual(len(raw.heard("MESSAGE")), 1)

    def test_one_at_a_time_and_in_their_order(self):
        senders, bob = self.phones(4, self.hill), self.phones(1, self.slow)[0]
        sent = []
        for number in range(6):
            self.assertSent(self.hill, senders[number % 4], self.number(bob), f"number {number}")
            sent.append(f"number {number}")
        self.assertInbox(self.slow, bob, sent, 15)
        times = [(way, when) for when, way, _, message in messages(self.slow)
                 if message.cseq[1] == "MESSAGE" and (way == "out") != message.is_request and bob.imsi in str(message)]
        if peers.doubled():
            times = [each for place, each in enumerate(times) if each[0] == "in" or times[place - 1][0] == "in"]
        self.assertEqual([way for way, _ in times], ["in", "out"] * 6, "the next one only after the answer to the one before")
        stamps = [one.stamp for one in bob.inbox]
        self.assertEqual(len(set(stamps)), 6, "TP-OA and SCTS tell one text from another")

    def test_two_phones_do_not_wait_for_each_other(self):
        ana, bob, away = self.phones(3, self.hill, self.mill)
        away.on = False
        self.assertSent(self.hill, ana, self.number(away), "you are away")
        self.assertSent(self.hill, ana, self.number(bob), "you are not")
        self.assertInbox(self.mill, bob, ["you are not"], 3)

    # -- Being absent --

    def test_one_who_was_never_there_gets_it_when_he_comes(self):
        ana, bob = self.phones(1, self.hill)[0], self.box.phone("none")
        self.assertSent(self.hill, ana, self.number(bob), "one")
        self.assertSent(self.hill, ana, self.number(bob), "two")
        time.sleep(1)
        self.assertEqual(len(self.waiting(bob)), 2)
        self.assertEqual(self.waiting(bob)[0]["from"], self.number(ana))
        self.assertIn(self.waiting(bob)[0]["state"], ("absent", "waiting"))
        self.assertTrue(self.mill.register(bob).ok)
        self.assertInbox(self.mill, bob, ["one", "two"], 5)
        self.assertEqual(self.waiting(bob), [])

    def test_one_who_went_and_comes_back_in_another_cell(self):
        ana, bob = self.phones(2, self.hill, self.mill)
        self.assertEqual(self.mill.detach(bob, timeout=5).code, 200)
        self.assertSent(self.hill, ana, self.number(bob), "where are you")
        time.sleep(1)
        self.assertEqual(texts_for(self.mill, bob.imsi), [], "he said that he went")
        bob.on = True
        self.assertTrue(self.dale.register(bob).ok)
        self.assertInbox(self.dale, bob, ["where are you"], 5)

    def test_silence_for_30_seconds_is_absent_and_12_seconds_bring_one_copy(self):
        """A base station that never answers: two datagrams, one Call-ID, and a new one when the phone comes again."""
        raw, ana, bob = RawStation(self, "raw1"), self.phones(1, self.hill)[0], self.box.phone("none")
        raw.register(bob)
        self.assertSent(self.hill, ana, self.number(bob), "anybody?")
        time.sleep(33)
        came = texts_for(raw, bob.imsi)
        self.assertEqual(len(came), 2, [f"{when - came[0][0]:.1f}" for when, _ in came])
        self.assertTrue(11 < came[1][0] - came[0][0] < 13, came[1][0] - came[0][0])
        self.assertEqual(came[0][1].encode(), came[1][1].encode())
        self.assertEqual([text["state"] for text in self.waiting(bob)], ["absent"])
        raw.register(bob)
        self.assertTrue(raw.wait(lambda: len(texts_for(raw, bob.imsi)) == 3, 3), "he is here again, and nothing comes")
        third = texts_for(raw, bob.imsi)[2][1]
        self.assertNotEqual(third.call_id, came[0][1].call_id)
        one, other = (sms.parse_rp_data_mt(bytes.fromhex(message.body.decode())) for message in (came[0][1], third))
        self.assertEqual((one.sender, one.stamp, one.text), (other.sender, other.stamp, other.text), "a possible copy has the same TP-OA and SCTS")
        raw.answer(third, 200, "OK")
        self.assertTrue(self.hill.wait(lambda: self.waiting(bob) == [], 3))
        time.sleep(2)
        self.assertEqual(len(texts_for(raw, bob.imsi)), 3)

    def test_one_who_registers_elsewhere_while_he_is_paged(self):
        ana, bob = self.phones(2, self.hill, self.mill)
        bob.on = False
        self.assertSent(self.hill, ana, self.number(bob), "on the way")
        self.assertTrue(self.mill.wait(lambda: texts_for(self.mill, bob.imsi), 3))
        time.sleep(2)                                      # the paging is over, and the base station says nothing
        bob.on = True
        self.assertTrue(self.dale.register(bob).ok)
        self.assertInbox(self.dale, bob, ["on the way"], 35)
        time.sleep(3)
        self.assertEqual(bob.texts(), ["on the way"])

    def test_a_phone_without_room_gets_it_later(self):
        ana, bob = self.phones(2, self.hill, self.mill)
        bob.memory_full = True
        self.assertSent(self.hill, ana, self.number(bob), "when you have room")
        self.assertTrue(self.mill.wait(lambda: texts_for(self.mill, bob.imsi), 3))
        time.sleep(2)
        self.assertEqual(len(self.waiting(bob)), 1, "400 says nothing about why, so it is no end")
        bob.memory_full = False
        self.assertTrue(self.mill.register(bob).ok)
        self.assertInbox(self.mill, bob, ["when you have room"], 5)

    # -- Copies and repeats --

    def test_a_message_that_comes_again_is_one_text(self):
        ana, bob = self.phones(2, self.hill, self.mill)
        request = self.hill._message(ana, "smsc", "application/vnd.3gpp.sms", self.submit(ana, self.number(bob), "once", 7))
        codes = [self.hill.transact(request, self.hill.sms_proxy, 5).code]
        for pause in (0, 1, 2):
            time.sleep(pause)
            codes.append(self.hill.transact(request, self.hill.sms_proxy, 5).code)
        self.assertEqual(codes, [202] * 4)
        time.sleep(2)
        self.assertEqual(bob.texts(), ["once"])
        self.assertEqual(len(texts_for(self.mill, bob.imsi)), 1)

    def test_the_phones_own_repeat_is_one_text(self):
        ana, bob = self.phones(2, self.hill, self.mill)
        for repeat in (False, True, True):                 # a new MESSAGE each, a new RP-MR, the same TP-MR
            self.assertEqual(self.send(self.hill, ana, self.submit(ana, self.number(bob), "again", 9, repeat)).code, 202)
            time.sleep(0.5)
        time.sleep(2)
        self.assertEqual(bob.texts(), ["again"])
        # Another TP-MR is another text, even with the same words; so is another phone's.
        self.assertEqual(self.send(self.hill, ana, self.submit(ana, self.number(bob), "again", 10)).code, 202)
        eve = self.phones(1, self.hill)[0]
        self.assertEqual(self.send(self.hill, eve, self.submit(eve, self.number(bob), "again", 9)).code, 202)
        self.assertInbox(self.mill, bob, ["again"] * 3)

    # -- Being refused --

    def test_a_text_to_nobodys_number(self):
        ana = self.phones(1, self.hill)[0]
        self.assertEqual(self.hill.sms(ana, "39999", "hello?", timeout=5).code, 404)
        self.assertTrue(self.hill.wait(lambda: ana.texts(), 5), "nobody tells the sender why")
        self.assertEqual((ana.inbox[0].sender, "39999" in ana.inbox[0].text), ("1000", True), ana.inbox)
        time.sleep(2)
        self.assertEqual(len(ana.inbox), 1)

    def test_who_and_what_is_refused(self):
        ana, bob = self.phones(2, self.hill, self.mill)
        stranger = self.box.phone("none")
        self.hill.add(stranger)
        self.assertEqual(self.hill.sms(stranger, self.number(bob), "x", timeout=5).code, 403)
        self.mill.add(ana)                                 # of another location area
        self.assertEqual(self.mill.sms(ana, self.number(bob), "x", timeout=5).code, 403)
        self.hill.add(ana)
        for body, kind, code in ((b"x", "message/cpim", 415), (b"zz", "application/vnd.3gpp.sms", 400), (b"002a", "application/vnd.3gpp.sms", 400),
                                 (b"", "application/vnd.3gpp.sms", 400)):
            self.assertEqual(self.send(self.hill, ana, body, kind).code, code, (body, kind))
        self.dale.add(ana)                                 # of the same location area
        self.assertSent(self.dale, ana, self.number(bob), "good")
        self.assertInbox(self.mill, bob, ["good"])


class TwoBoxes(unittest.TestCase):
    """Two front ends, each with a replica of the one shard."""

    def test_a_text_waits_in_one_box_and_its_phone_comes_to_the_other(self):
        front, far = two_boxes(self, open_sims(12))
        hill, mill = front.station("hill", **QUICK), far.station("mill", **QUICK)
        ana, bob, carol, dave = (front.phone("none") for _ in range(4))
        self.assertTrue(hill.register(ana).ok)
        # bob was never there; carol was here and fell silent; dave is there already.
        self.assertTrue(hill.register(carol).ok and mill.register(dave).ok)
        self.assertEqual(hill.detach(carol, timeout=5).code, 200)
        for phone, text in ((bob, "to bob"), (carol, "to carol"), (dave, "to dave")):
            answer = hill.sms(ana, front.numbers_of(phone)[0], text, timeout=5)
            self.assertEqual(answer.code, 202)
        self.assertTrue(mill.wait(lambda: dave.texts() == ["to dave"], 5), dave.texts())
        time.sleep(1)
        front.kill()                                       # and the mark outlives the box that made it
        front.start()
        carol.on = True
        for phone, text in ((bob, "to bob"), (carol, "to carol")):
            self.assertTrue(mill.register(phone).ok)
            self.assertTrue(mill.wait(lambda: phone.texts(), 10), f"{text}: the phone registered at the other box, and nothing came")
            self.assertEqual(phone.texts(), [text])
            self.assertEqual(phone.inbox[0].sender, front.numbers_of(ana)[0])
        # The other way round: sent through the far one, to a phone of the near one.
        self.assertEqual(mill.sms(dave, front.numbers_of(ana)[0], "back", timeout=5).code, 202)
        self.assertTrue(hill.wait(lambda: ana.texts() == ["back"], 5), ana.texts())
        self.assertEqual(audit(hill, front) + audit(mill, far) + audit(mill, front), [])


if __name__ == "__main__":
    unittest.main()
