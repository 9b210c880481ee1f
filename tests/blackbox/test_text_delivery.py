"""When a text is tried, how often, and how it ends: memory, absence, its own validity period, limits, what more waits."""

import datetime
import time
import unittest

from box import BoxTest, YateStation                       # first: it puts the peers on the path
import sms
from talk import QUICK, SideBySide, messages, open_sims
from texting import OPTIONS, SERVICE_CENTRE, Texting, stamps, texts_for


class Delivery(Texting, SideBySide):
    options = OPTIONS | {"sites": {"ycode": "ycode", "ybody": "ybody"}}
    programs = ("yate.py", "ims.py")

    @classmethod
    def ready(cls):
        cls.hill, cls.mill = cls.station_at("hill"), cls.station_at("mill")
        cls.ycode, cls.ybody = cls.station_at("ycode", YateStation), cls.station_at("ybody", YateStation, refuses="body")

    def absent(self) -> object:
        """A phone that was never here: nobody pages it."""
        return self.box.phone("none")

    # -- A phone without room --

    def waits_for_room(self, ana, bob, deliver):
        """Memory full: it waits, and nobody asks again; RP-SMMA brings it at once, and once."""
        bob.memory_full = True
        self.assertSent(self.hill, ana, self.number(bob), "when you have room")
        waits = self.assertWaits(bob)[0]
        self.assertTrue(self.until(lambda: "memory" in self.waiting(bob)[0]["cause"], 5), waits)
        time.sleep(4)
        self.assertEqual(bob.texts(), [])
        deliver()
        self.assertInbox(bob, ["when you have room"], 4)
        self.assertWaits(bob, 0)

    def test_memory_full_at_a_yatebts_told_with_a_code(self):
        ana, bob = self.phones(2, self.hill, self.ycode)
        self.waits_for_room(ana, bob, lambda: self.assertTrue(self.ycode.memory_available(bob).ok))
        self.assertEqual(len(texts_for(self.ycode, self.number(bob))), 2)

    def test_memory_full_at_a_yatebts_told_in_a_200(self):
        ana, bob = self.phones(2, self.hill, self.ybody)
        self.waits_for_room(ana, bob, lambda: self.assertTrue(self.ybody.memory_available(bob).ok))
        self.assertEqual(len(texts_for(self.ybody, self.number(bob))), 2)

    def test_memory_full_at_an_ims_phone(self):
        ana, bob = self.phones(1, self.hill)[0], self.ims_phone()

        def room():
            sent = bob.memory_available()
            self.assertEqual(sent.code, 202)
            self.assertTrue(sent.reported() and sent.cause is None, "an RP-SMMA is acknowledged")

        self.waits_for_room(ana, bob, room)

    def test_room_again_behind_an_openbts_which_never_said_why(self):
        ana, bob = self.phones(2, self.hill, self.mill)
        bob.memory_full = True
        for text in ("one", "two"):
            self.assertSent(self.hill, ana, self.number(bob), text)
        self.assertTrue(self.until(lambda: texts_for(self.mill, f"IMSI{bob.imsi}"), 3))
        time.sleep(1)
        self.assertWaits(bob, 2)
        self.assertEqual(len(texts_for(self.mill, f"IMSI{bob.imsi}")), 1, "what refused one will not take the next one either")
        self.assertEqual(self.mill.memory_available(bob).code, 202)
        self.assertInbox(bob, ["one", "two"], 5)

    # -- A phone that is not there --

    def test_480_of_a_yatebts_is_absent(self):
        ana, bob = self.phones(2, self.hill, self.ycode)
        bob.on = False
        self.assertSent(self.hill, ana, self.number(bob), "where are you")
        self.assertTrue(self.until(lambda: [text["state"] for text in self.waiting(bob)] == ["absent"], 6), self.waiting(bob))
        bob.on = True
        self.assertTrue(self.ycode.register(bob).ok)
        self.assertInbox(bob, ["where are you"], 4)

    def test_404_of_a_yatebts_that_forgot_the_phone_is_no_end(self):
        ana, bob = self.phones(2, self.hill, self.ycode)
        self.ycode.phones.pop(bob.imsi)
        self.assertSent(self.hill, ana, self.number(bob), "you are forgotten")
        self.assertTrue(self.until(lambda: texts_for(self.ycode, self.number(bob)), 3))
        time.sleep(1)
        self.assertWaits(bob)
        self.assertTrue(self.ycode.register(bob).ok)
        self.assertInbox(bob, ["you are forgotten"], 4)

    # -- Those who will never take it --

    def test_what_a_phone_will_never_take_ends_and_is_told(self):
        ana, bob, carol = *self.phones(2, self.hill, self.ycode), self.soft_phone()
        bob.refusal_cause = 96                             # invalid mandatory information: the same tomorrow (TS 24.011 8.2.5.4)
        self.assertSent(self.hill, ana, self.number(bob), "x", report=True)
        self.assertTrue(self.until(lambda: ana.status_reports), "no STATUS-REPORT")
        self.assertTrue(0x40 <= ana.status_reports[0].status_report < 0x60, f"a permanent failure, not {ana.status_reports[0].status_report:#x}")
        carol.refuses = (415, "Unsupported Media Type")
        self.assertSent(self.hill, ana, self.number(carol), "x")
        self.assertWords(ana, self.number(carol))
        for phone in (bob, carol):
            self.assertWaits(phone, 0)
            self.assertEqual(self.record(to=self.number(phone))[0]["outcome"], "failed")

    # -- What more waits, and in which order --

    def test_five_texts_come_in_their_order_and_all_but_the_last_say_that_more_wait(self):
        for kind in ("OpenBTS", "YateBTS", "IMS"):
            with self.subTest(kind=kind):
                ana, bob = self.phones(1, self.hill)[0], self.absent() if kind != "IMS" else self.ims_phone(register=False)
                said = [f"{kind} {number}" for number in range(5)]
                for text in said:
                    self.assertSent(self.hill, ana, self.number(bob), text)
                self.assertWaits(bob, 5)
                if kind == "IMS":
                    self.assertEqual(bob.register().code, 200)
                else:
                    self.assertTrue((self.mill if kind == "OpenBTS" else self.ycode).register(bob).ok)
                self.assertInbox(bob, said, 10)
                self.assertEqual([one.more_waiting for one in bob.inbox], [True, True, True, True, False], "TP-MMS is 0 while more wait")
                self.assertEqual(len(set(stamps(bob))), 5)

    # -- Validity --

    def test_a_text_whose_time_is_over_is_not_delivered_and_its_sender_is_told(self):
        ana, bob = self.phones(1, self.hill)[0], self.absent()
        started = time.monotonic()
        self.assertSent(self.hill, ana, self.number(bob), "soon", validity=sms.enhanced(3))
        self.assertSent(self.hill, ana, self.number(bob), "until then", validity=sms.absolute(time.time() + 5))
        self.assertSent(self.hill, ana, self.number(bob), "whenever", validity=sms.relative(300))
        self.assertWaits(bob, 3)
        self.assertWords(ana, self.number(bob), timeout=8)
        self.assertGreater(time.monotonic() - started, 2.5)
        self.assertWords(ana, self.number(bob), nth=1, timeout=8)
        self.assertEqual({one.sender for one in ana.inbox}, {SERVICE_CENTRE})
        self.assertTrue(self.mill.register(bob).ok)
        self.assertInbox(bob, ["whenever"], 5)
        time.sleep(1)
        self.assertEqual((bob.texts(), len(ana.inbox)), (["whenever"], 2))

    def test_a_period_of_five_minutes_ends_in_five_minutes(self):
        ana, bob = self.phones(1, self.hill)[0], self.absent()
        self.assertSent(self.hill, ana, self.number(bob), "x", validity=sms.relative(300))
        self.assertSent(self.hill, ana, self.number(bob), "y", validity=sms.enhanced(3723))
        self.assertSent(self.hill, ana, self.number(bob), "z", validity=sms.absolute(time.time() + 600, quarters=-14))
        shown = [self.show(text) for text in self.assertWaits(bob, 3)]
        lives = [_moment(one["ends"]) - _moment(one["since"]) for one in shown]
        for life, wanted in zip(lives, (300, 3723, 600)):
            self.assertLess(abs(life - wanted), 5, lives)

    def test_single_shot_is_tried_once(self):
        ana, bob = self.phones(2, self.hill, self.mill)
        bob.memory_full = True
        self.assertSent(self.hill, ana, self.number(bob), "now or never", validity=sms.enhanced(None, single_shot=True))
        self.assertWords(ana, self.number(bob))
        bob.memory_full = False
        self.assertTrue(self.mill.register(bob).ok)
        self.assertSent(self.hill, ana, self.number(bob), "another one")
        self.assertInbox(bob, ["another one"], 5)
        self.assertEqual(len(texts_for(self.mill, f"IMSI{bob.imsi}")), 2)

    # -- Replacing --

    def test_a_later_text_of_the_same_kind_takes_the_place_of_one_that_waits(self):
        """TS 23.040 9.2.3.9: the same sender, the same TP-PID of 0x41 to 0x47."""
        ana, carol = self.phones(2, self.hill)
        bob = self.absent()
        for sender, text, pid in ((ana, "old", 0x41), (ana, "another kind", 0x42), (carol, "another's", 0x41), (ana, "new", 0x41), (ana, "plain", 0)):
            self.assertSent(self.hill, sender, self.number(bob), text, pid=pid)
        self.assertWaits(bob, 4)
        self.assertTrue(self.mill.register(bob).ok)
        self.assertTrue(self.until(lambda: len(bob.inbox) == 4, 6), bob.texts())
        self.assertEqual(sorted(bob.texts()), ["another kind", "another's", "new", "plain"])
        self.assertEqual({one.text: one.pid for one in bob.inbox}["new"], 0x41, "so that the phone replaces what it has")


class OneBaseStation(Texting, BoxTest):
    options = {"sims": open_sims(12), "trunks": False, "more": "[messages]\nattempts_per_base_station_max = 2\n"}

    def test_a_base_station_is_given_so_many_at_a_time_and_everybody_has_his_turn(self):
        hill, mill = self.box.station("hill", **QUICK), self.box.station("mill", **(QUICK | {"transfer_s": 0.5}))
        ana, phones = self.box.phone("none"), [self.box.phone("none") for _ in range(5)]
        self.assertTrue(hill.register(ana).ok)
        for place, phone in enumerate(phones):
            for number in range(6 if place == 0 else 1):   # one has many, and the others do not wait for all of them
                self.assertSent(hill, ana, self.number(phone), f"text {number}")
        for phone in phones:
            self.assertTrue(mill.register(phone).ok)
        self.assertTrue(self.until(lambda: sum(len(phone.inbox) for phone in phones) == 10, 15))
        in_hand, most = set(), 0
        for _, way, _, message in messages(mill):
            if message.cseq[1] == "MESSAGE" and way == "in" and message.is_request:
                in_hand.add(message.call_id)
            elif message.cseq[1] == "MESSAGE" and way == "out" and not message.is_request and message.code >= 200:
                in_hand.discard(message.call_id)
            most = max(most, len(in_hand))
        self.assertEqual(most, 2)
        self.assertInbox(phones[0], [f"text {number}" for number in range(6)])
        last = phones[0].inbox[-1].came
        self.assertTrue(all(phone.inbox[0].came < last for phone in phones[1:]), "one phone's many texts do not keep the others waiting")


def _moment(rfc3339: str) -> float:
    return datetime.datetime.fromisoformat(rfc3339.replace("Z", "+00:00")).timestamp()


if __name__ == "__main__":
    unittest.main()
