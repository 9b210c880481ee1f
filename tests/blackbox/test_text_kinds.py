"""Every kind of phone and base station texts with every other one: OpenBTS, YateBTS in its encodings, IMS phones, SIP phones."""

import unittest

from box import BoxTest, Sim, YateStation                  # first: it puts the peers on the path
from test_texts import ALPHABETS
from texting import OPTIONS, SERVICE_CENTRE, Texting, texts_for, three_segments
import sms
from sip import uri_in, user_host_port
from talk import QUICK, SideBySide, open_sims

BARRED = Sim("001017000000199", "none", ["+17000001", "70001"], "barred", barred=True)


class Kinds(Texting, SideBySide):
    options = OPTIONS | {
        "sims": open_sims(140) + [BARRED],
        "sites": {name: name for name in ("ybin", "yhex", "ybase", "yold", "ybare", "flat")},
        "station_more": {"flat": 'texts = "plain"'},
    }
    programs = ("yate.py", "ims.py")

    @classmethod
    def ready(cls):
        cls.hill, cls.mill = cls.station_at("hill"), cls.station_at("mill")
        cls.ybin = cls.station_at("ybin", YateStation)
        cls.yhex = cls.station_at("yhex", YateStation, encoding="hex")
        cls.ybase = cls.station_at("ybase", YateStation, encoding="base64")
        cls.yold = cls.station_at("yold", YateStation, sms_response=False)
        cls.ybare = cls.station_at("ybare", YateStation)
        cls.ybare.bare_200 = True
        cls.flat = cls.station_at("flat")                  # an OpenBTS whose operator wrote texts = "plain"

    # -- YateBTS --

    def test_yatebts_in_each_encoding_and_openbts(self):
        for station in (self.ybin, self.yhex, self.ybase, self.yold):
            with self.subTest(encoding=station.encoding, sms_response=station.sms_response):
                ana, bob = self.phones(2, station, self.hill)
                self.assertSent(station, ana, self.number(bob), f"from {station.host}")
                self.assertInbox(bob, [f"from {station.host}"])
                self.assertEqual((self.sender_of(bob), bob.inbox[0].service_centre), (self.number(ana), SERVICE_CENTRE))
                self.assertSent(self.hill, bob, self.sender_of(bob), "back")
                self.assertInbox(ana, ["back"])
                self.assertEqual(self.sender_of(ana), self.number(bob))
                users = {user_host_port(message.uri)[0] for _, message in texts_for(station, self.number(ana), f"IMSI{ana.imsi}")}
                self.assertEqual(users, {self.number(ana)}, "a YateBTS knows a phone by its number")
                self.assertEqual((self.waiting(ana), self.waiting(bob)), ([], []))

    def test_two_yatebts(self):
        ana, bob = self.phones(2, self.ybin, self.yhex)
        self.assertSent(self.ybin, ana, self.number(bob), "hello")
        self.assertSent(self.yhex, bob, self.number(ana, 1), "hello yourself")
        self.assertInbox(bob, ["hello"])
        self.assertInbox(ana, ["hello yourself"])

    def test_a_yatebts_without_a_body_in_its_200(self):
        ana, bob = self.phones(2, self.hill, self.ybare)
        self.assertSent(self.hill, ana, self.number(bob), "taken")
        self.assertInbox(bob, ["taken"])
        self.assertWaits(bob, 0)

    def test_every_alphabet_to_and_from_a_yatebts(self):
        ana, bob = self.phones(2, self.ybin, self.hill)
        for text in ALPHABETS:
            self.assertSent(self.ybin, ana, self.number(bob), text)
        self.assertInbox(bob, list(ALPHABETS), 20)
        for text in ALPHABETS:
            self.assertSent(self.hill, bob, self.number(ana), text)
        self.assertInbox(ana, list(ALPHABETS), 20)

    def test_long_texts_to_and_from_a_yatebts(self):
        ana, bob = self.phones(2, self.ybin, self.hill)
        self.assertSent(self.ybin, ana, self.number(bob), three_segments("up "))
        self.assertInbox(bob, [three_segments("up ")], 15)
        self.assertSent(self.hill, bob, self.number(ana), three_segments("down "), wide=True)
        self.assertInbox(ana, [three_segments("down ")], 15)
        self.assertEqual({len(one.part) for one in ana.inbox}, {3})

    def test_a_phone_that_moves_from_openbts_to_yatebts_and_back(self):
        ana, bob = self.phones(2, self.hill, self.mill)
        for place, station in enumerate((self.ybin, self.mill, self.yhex)):
            bob.on = False
            self.assertEqual(bob.camps_on.detach(bob, timeout=5).code, 200)
            self.assertSent(self.hill, ana, self.number(bob), f"move {place}")
            self.assertWaits(bob, 1)
            bob.on = True
            self.assertTrue(station.register(bob).ok)
            self.assertInbox(bob, [f"move {n}" for n in range(place + 1)], 5)

    def test_what_the_phone_behind_a_yatebts_sees_of_a_refusal(self):
        # One that says that it reads an RPDU in an answer, and one that does so without a word of it.
        for station, ana in zip((self.ybin, self.yold), self.phones(2, self.ybin, self.yold)):
            sent = station.sms(ana, "39998", "hello?")
            self.assertEqual((sent.code, sent.rpdu and sent.rpdu.kind, sent.cause), (200, "error", 1), "unassigned number (TS 24.011 8.2.5.4)")
            self.assertFalse(sent.ok)

    # -- IMS phones --

    def test_an_ims_phone_and_openbts(self):
        ana, bob = self.ims_phone(), self.phones(1, self.hill)[0]
        sent = ana.sms(self.number(bob), "from afar")
        self.assertEqual(sent.code, 202)
        self.assertTrue(sent.reported(), "no RP-ACK")
        self.assertEqual(sent.cause, None)
        self.assertInbox(bob, ["from afar"])
        self.assertEqual(self.sender_of(bob), self.number(ana))
        self.assertSent(self.hill, bob, self.number(ana), "back")
        self.assertInbox(ana, ["back"])
        self.assertEqual((self.sender_of(ana), ana.inbox[0].service_centre), (self.number(bob), SERVICE_CENTRE))
        self.assertWaits(ana, 0)
        self.assertEqual(len(ana.received("MESSAGE")), 2, "an RP-ACK and a text, each once")

    def test_an_ims_phone_and_a_number_that_is_nobodys(self):
        ana = self.ims_phone()
        sent = ana.sms("39997", "hello?")
        self.assertEqual(sent.code, 202)
        self.assertTrue(sent.reported(), "no RP-ERROR")
        self.assertEqual(sent.cause, 1)

    def test_an_ims_phone_in_every_alphabet_and_at_length(self):
        ana, bob = self.ims_phone(), self.phones(1, self.ybin)[0]
        said = [*ALPHABETS, three_segments()]
        for text in said:
            sent = ana.sms(self.number(bob), text)
            self.assertTrue(sent.reported() and sent.cause is None, text)
        self.assertInbox(bob, said, 25)
        for text in said:
            self.assertSent(self.ybin, bob, self.number(ana), text)
        self.assertInbox(ana, said, 25)

    def test_an_ims_phone_that_is_lost_before_its_rp_ack(self):
        """The 200 says that the request came, not that the phone has the text (TS 24.341 5.3.2.4): it comes again, and can be told as the same."""
        ana, bob = self.phones(1, self.hill)[0], self.ims_phone()
        bob.acknowledges = False
        self.assertSent(self.hill, ana, self.number(bob), "perhaps")
        self.assertTrue(bob.wait(lambda: bob.received("MESSAGE"), 5))
        self.assertEqual(len(self.waiting(bob)), 1)
        bob.wait(lambda: False, 35)
        bob.acknowledges = True
        self.assertEqual(bob.register().code, 200)
        self.assertInbox(bob, ["perhaps"], 20)
        bodies = {message.body[2:].hex() for message in bob.received("MESSAGE")}
        self.assertEqual(len(bodies), 1, "the same TP-OA and SCTS")
        self.assertWaits(bob, 0)

    # -- SIP phones --

    def test_a_sip_phone_speaks_plain_text(self):
        ana, bob = self.soft_phone(), self.phones(1, self.hill)[0]
        said = ["plain", "Straße €", "Жук", "🙂 done", "two\nlines"]
        for text in said:
            answer = ana.text(self.number(bob), text)
            self.assertEqual(answer.code, 202, str(answer))
            self.assertSent(self.hill, bob, self.number(ana), text)
        self.assertInbox(bob, said, 15)
        self.assertInbox(ana, said, 15)
        self.assertEqual((self.sender_of(bob), self.sender_of(ana)), (self.number(ana), self.number(bob)))
        for message in ana.received("MESSAGE"):
            self.assertTrue(message.get("content-type").lower().startswith("text/plain"), message.get("content-type"))
            self.assertNotIn(bob.imsi, str(message), "whoever wrote is known by his number")
            self.assertEqual(uri_in(message.get("from")).partition("@")[0], f"sip:{self.number(bob)}")
        self.assertEqual(len(ana.received("MESSAGE")), len(said))

    def test_a_long_text_is_one_at_a_sip_phone_and_three_at_a_phone(self):
        ana, bob = self.soft_phone(), self.phones(1, self.hill)[0]
        self.assertSent(self.hill, bob, self.number(ana), three_segments())
        self.assertInbox(ana, [three_segments()], 15)
        self.assertEqual(len(ana.inbox), 1)
        self.assertEqual(ana.text(self.number(bob), three_segments("up ")).code, 202)
        self.assertInbox(bob, [three_segments("up ")], 15)
        self.assertEqual([one.part[1:] for one in bob.inbox], [(3, 1), (3, 2), (3, 3)])
        self.assertEqual(len({one.part[0] for one in bob.inbox}), 1)
        long = "жук и жаба, " * 20
        self.assertSent(self.hill, bob, self.number(ana), long)
        self.assertInbox(ana, [three_segments(), long], 15)

    def test_two_sip_phones(self):
        ana, bob = self.soft_phone(), self.soft_phone()
        self.assertEqual(ana.text(self.number(bob), "hello").code, 202)
        self.assertInbox(bob, ["hello"])
        self.assertEqual(ana.text("39996", "hello?").code, 404)

    def test_a_sip_phone_that_is_busy_or_gone_gets_it_later(self):
        ana, bob, carol = self.phones(1, self.hill)[0], self.soft_phone(), self.soft_phone()
        bob.refuses = (486, "Busy Here")
        self.assertEqual(carol.register(expires=0).code, 200)
        self.assertSent(self.hill, ana, self.number(bob), "later")
        self.assertSent(self.hill, ana, self.number(carol), "later")
        self.assertWaits(bob, 1)
        self.assertWaits(carol, 1)
        bob.refuses = None
        for phone in (bob, carol):
            self.assertEqual(phone.register().code, 200)
            self.assertInbox(phone, ["later"], 5)

    # -- As the operator says --

    def test_texts_of_a_base_station_as_configured(self):
        ana, bob = self.phones(2, self.hill, self.flat)
        for text in ("plain", "Жук", three_segments()):
            self.assertSent(self.hill, ana, self.number(bob), text)
        self.assertInbox(bob, ["plain", "Жук", three_segments()], 15)
        for _, message in texts_for(self.flat, f"IMSI{bob.imsi}"):
            self.assertTrue(message.get("content-type").startswith("text/plain"), message.get("content-type"))
        self.assertEqual(self.sender_of(bob), self.number(ana))

    # -- What passes through untouched --

    def test_octets_ports_classes_and_references_pass_through(self):
        ana, bob = self.phones(2, self.hill, self.ybin)
        self.assertSent(self.hill, ana, self.number(bob), "", octets=bytes(range(100)), ports=(5505, 9200))
        self.assertSent(self.hill, ana, self.number(bob), "at once", coding=0xF0)
        self.assertSent(self.hill, ana, self.number(bob), "kept", pid=0x7F)
        self.assertSent(self.hill, ana, self.number(bob), "x" * 300, wide=True)
        self.assertTrue(self.until(lambda: len(bob.inbox) == 5, 10), bob.inbox)
        data, flash, kept, *parts = bob.inbox
        self.assertEqual((data.octets, data.ports), (bytes(range(100)), (5505, 9200)))
        self.assertEqual((flash.text, flash.message_class), ("at once", 0))
        self.assertEqual((kept.text, kept.pid), ("kept", 0x7F))
        self.assertEqual([[element for element, _ in part.elements] for part in parts], [[8], [8]])

    # -- Refused, and told why --

    def test_a_sender_is_told_in_words_what_an_openbts_cannot_show(self):
        ana = self.phones(1, self.hill)[0]
        self.assertRefusedText(self.hill, ana, "39995", "hello?", 404)
        self.assertWords(ana, "39995")
        self.assertRefusedText(self.hill, ana, BARRED.numbers[0], "hello?", 403)
        self.assertWords(ana, BARRED.numbers[0], nth=1)
        self.assertEqual({one.sender for one in ana.inbox}, {SERVICE_CENTRE})


class Unexplained(Texting, BoxTest):
    options = {"sims": open_sims(6), "trunks": False, "more": f'[messages]\nservice_centre = "{SERVICE_CENTRE}"\nexplain = false\n'}

    def test_no_words_where_the_operator_wants_none(self):
        hill = self.box.station("hill", **QUICK)
        ana = self.box.phone("none")
        self.assertTrue(hill.register(ana).ok)
        self.assertRefusedText(hill, ana, "39999", "hello?", 404)
        # What nobody takes within its time is not told either; a text to himself that comes later says that nothing else came before.
        self.assertSent(hill, ana, self.number(self.box.phone("none")), "anybody?", validity=sms.enhanced(1))
        self.assertTrue(self.until(lambda: self.queue() == [], 10))
        self.assertSent(hill, ana, self.number(ana), "myself")
        self.assertInbox(ana, ["myself"])


if __name__ == "__main__":
    unittest.main()
