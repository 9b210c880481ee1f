"""STATUS-REPORTs, and what a sender asks of his texts by SMS-COMMAND; judged at the sender's phone."""

import time
import unittest

from box import YateStation                                # first: it puts the peers on the path
import sms
from talk import SideBySide
from texting import DELETED_BY_SENDER, DELIVERED, DROPPED_BY_CENTRE, EXPIRED, OPTIONS, UNKNOWN, Texting, three_segments


class Reports(Texting, SideBySide):
    options = OPTIONS | {"sites": {"yate": "yate"}}
    programs = ("yate.py", "ims.py")

    @classmethod
    def ready(cls):
        cls.hill, cls.mill = cls.station_at("hill"), cls.station_at("mill")
        cls.yate = cls.station_at("yate", YateStation)

    def assertReported(self, phone, status: int, reference: int, recipient: str, timeout: float = 8, nth: int = 0, more: int = 0) -> sms.Deliver:
        """The nth STATUS-REPORT of a phone says this; beyond it `more` have come."""
        reports = phone.status_reports
        self.assertTrue(self.until(lambda: len(reports) > nth + more, timeout), f"no STATUS-REPORT; came {[hex(one.status_report) for one in reports]}")
        one = reports[nth]
        self.assertEqual((hex(one.status_report), one.reference, one.sender), (hex(status), reference, recipient))
        return one

    def assertQuietAt(self, phone, reports: int, texts: int = 0, seconds: float = 2):
        time.sleep(seconds)
        self.assertEqual((len(phone.status_reports), len(phone.inbox)), (reports, texts))

    # -- Reports --

    def test_a_report_of_a_text_that_arrived(self):
        ana, bob = self.phones(2, self.hill, self.mill)
        for which in (0, 1):
            dialled, before = self.number(bob, which), time.time()
            self.assertSent(self.hill, ana, dialled, f"hello {which}", report=True)
            report = self.assertReported(ana, DELIVERED, ana.submitted[-1], dialled, nth=which)
            self.assertInbox(bob, [f"hello {n}" for n in range(which + 1)])
            self.assertEqual(report.stamped, bob.inbox[-1].stamped, "TP-SCTS is the text's own")
            self.assertTrue(int(before) - 1 <= report.stamped <= report.discharged_at <= time.time() + 1, (before, report))
            self.assertFalse(report.of_command)
        self.assertQuietAt(ana, 2)

    def test_no_report_that_nobody_asked_for_and_none_of_a_report(self):
        ana, bob = self.phones(2, self.hill, self.mill)
        self.assertSent(self.hill, ana, self.number(bob), "quietly")
        self.assertInbox(bob, ["quietly"])
        self.assertSent(self.hill, ana, self.number(bob), "loudly", report=True)
        self.assertReported(ana, DELIVERED, ana.submitted[-1], self.number(bob))
        self.assertQuietAt(ana, 1)
        self.assertQuietAt(bob, 0, 2, seconds=0)

    def test_reports_at_a_yatebts_and_an_ims_phone(self):
        ana, bob = self.phones(1, self.yate)[0], self.ims_phone()
        self.assertSent(self.yate, ana, self.number(bob), "hello", report=True)
        self.assertReported(ana, DELIVERED, ana.submitted[-1], self.number(bob))
        sent = bob.sms(self.number(ana), "back", report=True)
        self.assertReported(bob, DELIVERED, sent.message_reference, self.number(ana))
        self.assertEqual((bob.texts(), ana.texts()), (["hello"], ["back"]))

    def test_each_part_of_a_long_text_has_its_report(self):
        ana, bob = self.phones(2, self.hill, self.mill)
        self.assertSent(self.hill, ana, self.number(bob), three_segments(), report=True)
        self.assertInbox(bob, [three_segments()], 15)
        self.assertTrue(self.until(lambda: len(ana.status_reports) == 3))
        self.assertEqual([one.reference for one in ana.status_reports], ana.submitted[-3:])
        self.assertEqual({one.status_report for one in ana.status_reports}, {DELIVERED})

    def test_a_report_waits_for_its_phone_as_a_text_does(self):
        ana, bob = self.phones(1, self.hill)[0], self.box.phone("none")
        self.assertSent(self.hill, ana, self.number(bob), "hello", report=True)
        self.assertEqual(self.hill.detach(ana, timeout=5).code, 200)
        self.assertTrue(self.mill.register(bob).ok)
        self.assertInbox(bob, ["hello"])
        self.assertWaits(ana, 1)
        ana.on = True
        self.assertTrue(self.mill.register(ana).ok)
        self.assertReported(ana, DELIVERED, ana.submitted[-1], self.number(bob))
        self.assertWaits(ana, 0)

    def test_a_report_of_a_text_whose_time_was_over(self):
        ana, bob = self.phones(1, self.hill)[0], self.box.phone("none")
        self.assertSent(self.hill, ana, self.number(bob), "soon", report=True, validity=sms.enhanced(2))
        report = self.assertReported(ana, EXPIRED, ana.submitted[-1], self.number(bob))
        self.assertGreaterEqual(report.discharged_at - report.stamped, 1)
        self.assertQuietAt(ana, 1)                         # whoever asked for a report is not told in words too

    def test_a_report_of_a_text_that_the_operator_dropped(self):
        ana, bob = self.phones(1, self.hill)[0], self.box.phone("none")
        self.assertSent(self.hill, ana, self.number(bob), "never", report=True)
        self.assertEqual(self.box.command("queue", "drop", self.assertWaits(bob)[0]["id"]).code, 0)
        self.assertReported(ana, DROPPED_BY_CENTRE, ana.submitted[-1], self.number(bob))
        self.assertQuietAt(ana, 1)

    def test_a_report_of_a_text_that_the_operator_ended(self):
        ana, bob = self.phones(1, self.hill)[0], self.box.phone("none")
        self.assertSent(self.hill, ana, self.number(bob), "over", report=True)
        self.assertEqual(self.box.command("queue", "expire", self.assertWaits(bob)[0]["id"]).code, 0)
        self.assertReported(ana, EXPIRED, ana.submitted[-1], self.number(bob))

    # -- Commands --

    def test_an_enquiry_is_answered(self):
        ana, bob = self.phones(1, self.hill)[0], self.box.phone("none")
        self.assertSent(self.hill, ana, self.number(bob), "hello")
        reference = ana.submitted[-1]
        self.assertEqual(self.hill.command(ana, sms.ENQUIRY, self.number(bob), reference, timeout=6).code, 202)
        self.assertTrue(self.until(lambda: ana.status_reports), "no answer")
        answer = ana.status_reports[0]
        self.assertTrue(answer.of_command, "TP-SRQ: it answers a command")
        self.assertEqual(answer.sender, self.number(bob))
        self.assertIn(answer.reference, (reference, ana.submitted[-1]))
        self.assertTrue(0x20 <= answer.status_report < 0x40, f"still trying, not {answer.status_report:#x}")
        self.assertTrue(self.mill.register(bob).ok)
        self.assertInbox(bob, ["hello"])
        self.assertEqual(self.hill.command(ana, sms.ENQUIRY, self.number(bob), reference, timeout=6).code, 202)
        self.assertTrue(self.until(lambda: len(ana.status_reports) == 2), "no answer about one that has arrived")
        self.assertEqual(ana.status_reports[1].status_report, DELIVERED)

    def test_an_enquiry_about_nothing(self):
        ana, bob = self.phones(2, self.hill, self.mill)
        self.assertEqual(self.hill.command(ana, sms.ENQUIRY, self.number(bob), 77, timeout=6).code, 202)
        self.assertTrue(self.until(lambda: ana.status_reports), "no answer")
        self.assertEqual((hex(ana.status_reports[0].status_report), ana.status_reports[0].of_command), (hex(UNKNOWN), True))

    def test_a_text_that_its_sender_takes_back(self):
        ana, eve = self.phones(2, self.hill)
        bob = self.box.phone("none")
        self.assertSent(self.hill, ana, self.number(bob), "take this back", report=True)
        taken_back = ana.submitted[-1]
        self.assertSent(self.hill, ana, self.number(bob), "and this not")
        # Somebody else's reference is nobody's business.
        self.assertEqual(self.hill.command(eve, sms.DELETE, self.number(bob), taken_back, timeout=6).code, 202)
        self.assertTrue(self.until(lambda: eve.status_reports))
        self.assertEqual(hex(eve.status_reports[0].status_report), hex(UNKNOWN))
        self.assertWaits(bob, 2)
        self.assertEqual(self.hill.command(ana, sms.DELETE, self.number(bob), taken_back, timeout=6).code, 202)
        self.assertWaits(bob, 1)
        self.assertTrue(self.until(lambda: ana.status_reports), "no report")
        self.assertEqual({hex(one.status_report) for one in ana.status_reports}, {hex(DELETED_BY_SENDER)})
        self.assertTrue(self.mill.register(bob).ok)
        self.assertInbox(bob, ["and this not"])
        time.sleep(1)
        self.assertEqual(bob.texts(), ["and this not"])

    def test_a_report_that_its_sender_no_longer_wants(self):
        ana, bob = self.phones(1, self.hill)[0], self.box.phone("none")
        self.assertSent(self.hill, ana, self.number(bob), "no report please", report=True)
        self.assertEqual(self.hill.command(ana, sms.CANCEL_REPORT, self.number(bob), ana.submitted[-1], report=False, timeout=6).code, 202)
        self.assertTrue(self.mill.register(bob).ok)
        self.assertInbox(bob, ["no report please"])
        time.sleep(2)
        self.assertEqual([one for one in ana.status_reports if not one.of_command], [])


if __name__ == "__main__":
    unittest.main()
