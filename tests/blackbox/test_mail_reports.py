"""What a writer of mail is told of his texts: delivery status notifications (RFC 3461 to 3464) in his Maildir."""

import email.policy
import re
import time
import unittest

from mailing import FAR, HOME, MailScenes, MailTest, letter, report_of   # first: it puts the peers on the path
from talk import QUICK, SideBySide, open_sims

WISH = ["NOTIFY=SUCCESS,FAILURE,DELAY"]
QUIET_S = 3


class Reports(MailScenes, SideBySide):
    sims = open_sims(140)

    def assertReport(self, to: str, action: str, recipient: str, timeout: float = 30, **fields: str):
        """One report has come, of RFC 3464's form and with these fields of the recipient."""
        mail = self.wait_mail(to, timeout=timeout)[0]
        # OpenSMTPD writes no Return-Path where there is none.
        self.assertIn(mail["return-path"], (None, "<>"), "nobody is told what becomes of a report")
        self.assertEqual((mail.get_content_type(), mail.get_param("report-type")), ("multipart/report", "delivery-status"))
        self.assertNotEqual(mail["auto-submitted"] or "no", "no")
        about, recipients = report_of(mail)
        self.assertEqual(len(recipients), 1)
        self.assertTrue(about["reporting-mta"].startswith("dns;"), about.as_string())
        one = recipients[0]
        self.assertEqual(one["action"].lower(), action, one.as_string())
        self.assertIn(recipient, one["final-recipient"])
        self.assertTrue(one["status"].startswith({"delivered": "2.", "failed": "5."}[action]), one["status"])
        for name, value in fields.items():
            said = one[name.replace("_", "-")] or about[name.replace("_", "-")] or ""
            self.assertEqual(re.sub(r";\s+", ";", said), value)
        return mail

    def test_delivered_to_the_phone_is_told_to_who_asked(self):
        bob, carol = self.phones(1, self.mill)[0], f"carol@{FAR}"
        mail = letter(carol, self.to(bob), "hello", "Supper")
        code, said = self.hand_in(mail, carol, self.to(bob), options=["ENVID=QQ+2B7", "RET=HDRS"],
                                  rcpt_options=[*WISH, "ORCPT=rfc822;Bob+2B1@home.example"])
        self.assertEqual(code, 250, said)
        self.assertInbox(bob, [f"{carol}: (Supper) hello"])
        report = self.assertReport(carol, "delivered", self.to(bob), original_envelope_id="QQ+7", original_recipient="rfc822;Bob+1@home.example")
        self.assertIn(mail["message-id"], report.as_string(), "the header of the mail that it is about")

    def test_only_when_the_phone_has_it(self):
        bob, carol = self.box.phone("none"), f"cleo@{FAR}"
        self.assertEqual(self.hand_in(letter(carol, self.to(bob), "later"), carol, self.to(bob), rcpt_options=WISH)[0], 250)
        self.assertWaits(bob)
        time.sleep(QUIET_S)
        self.assertNoMail(carol)
        self.assertTrue(self.mill.register(bob).ok)
        self.assertReport(carol, "delivered", self.to(bob))

    def test_a_report_through_the_senders_own_server(self):
        bob, carol = self.phones(1, self.mill)[0], f"celia@{FAR}"
        self.write(letter(carol, self.to(bob), "hello"), carol, self.to(bob), mail_options=["ENVID=abc", "RET=HDRS"], rcpt_options=WISH)
        self.assertReport(carol, "delivered", self.to(bob), original_envelope_id="abc")

    def test_a_long_text_has_one_report(self):
        bob, carol = self.phones(1, self.mill)[0], f"cora@{FAR}"
        self.assertEqual(self.hand_in(letter(carol, self.to(bob), "word " * 100), carol, self.to(bob), rcpt_options=WISH)[0], 250)
        self.assertReport(carol, "delivered", self.to(bob))
        time.sleep(QUIET_S)
        self.assertNoMail(carol, 1)

    def test_two_phones_have_a_report_each(self):
        (bob, dan), carol = self.phones(2, self.mill), f"clara@{FAR}"
        self.assertEqual(self.hand_in(letter(carol, "both:;", "hello"), carol, self.to(bob), self.to(dan), rcpt_options=WISH)[0], 250)
        told = {report_of(mail)[1][0]["final-recipient"].partition(";")[2].strip() for mail in self.wait_mail(carol, 2, 30)}
        self.assertEqual(told, {self.to(bob), self.to(dan)})

    def test_what_is_not_told(self):
        """Nothing that nobody asked for; nothing for machines, lists and bulk, whatever they ask for."""
        bob = self.phones(1, self.mill)[0]
        cases = [("plain", {}, []), ("never", {}, ["NOTIFY=NEVER"]), ("robot", {"Auto_Submitted": "auto-generated"}, WISH),
                 ("list", {"List_Id": "<all.far.example>"}, WISH), ("bulk", {"Precedence": "bulk"}, WISH)]
        for who, headers, wish in cases:
            code, said = self.hand_in(letter(f"{who}@{FAR}", self.to(bob), who, **headers), f"{who}@{FAR}", self.to(bob), rcpt_options=wish)
            self.assertEqual(code, 250, said)
        self.assertTrue(self.until(lambda: len(bob.texts()) == 5, 20), bob.texts())
        time.sleep(QUIET_S)
        for who in ("plain", "never", "robot", "list", "bulk"):
            self.assertNoMail(f"{who}@{FAR}")

    def test_mail_without_a_sender_that_reports_nothing_of_ours_is_refused(self):
        bob = self.phones(1, self.mill)[0]
        code, said = self.hand_in(letter(f"nobody@{FAR}", self.to(bob), "nobody"), "", self.to(bob), rcpt_options=WISH)
        self.assertEqual(code, 550, said)
        self.assertTrue(said.startswith("5.7.1"), said)

    def test_given_up_by_the_operator_is_a_failure(self):
        bob, carol = self.box.phone("none"), f"connie@{FAR}"
        mail = letter(carol, self.to(bob), "never", "Supper")
        self.assertEqual(self.hand_in(mail, carol, self.to(bob))[0], 250)
        self.assertEqual(self.box.command("queue", "drop", self.assertWaits(bob)[0]["id"]).code, 0)
        report = self.assertReport(carol, "failed", self.to(bob))
        self.assertIn(mail["message-id"], report.as_string())
        self.assertTrue(self.until(lambda: not self.mail_waiting(carol)))

    def test_a_report_that_cannot_be_delivered_is_the_end_of_it(self):
        """Its sender does not exist: the relay refuses the report, nobody is told of that, and nothing is left."""
        bob, ghost = self.phones(1, self.mill)[0], "ghost@nowhere.example"
        self.assertEqual(self.hand_in(letter(ghost, self.to(bob), "boo"), ghost, self.to(bob), rcpt_options=WISH)[0], 250)
        self.assertInbox(bob, [f"{ghost}: boo"])
        self.assertTrue(self.until(lambda: not self.mail_waiting(ghost), 10), self.queue())
        time.sleep(QUIET_S)
        self.assertEqual(len(bob.texts()), 1)


class Expiry(MailTest):
    def test_a_text_whose_time_is_over_is_a_failure(self):
        box = self.open(messages='life_max = "3 s"\n')
        bob, carol = box.phone("none"), f"carol@{FAR}"
        mill = box.station("mill", **QUICK)
        self.assertEqual(self.hand_in(letter(carol, self.to(bob), "too late"), carol, self.to(bob))[0], 250)
        mail = self.wait_mail(carol, timeout=30)[0]
        one = report_of(mail)[1][0]
        self.assertEqual((one["action"].lower(), one["status"]), ("failed", "4.4.7"), "delivery time expired (RFC 3463)")
        self.assertTrue(mill.register(bob).ok)
        time.sleep(1.5)
        self.assertEqual(bob.texts(), [])

    def test_an_autoresponder_and_a_bridge_do_not_talk_to_each_other(self):
        """What a machine answers to a text's mail reaches the phone, and no machine hears anything of it."""
        box = self.open()
        hill = box.station("hill", **QUICK)
        ana, away = self.phone_at(hill), f"away@{HOME}"
        self.assertMailed(hill, ana, f"{away} are you there")
        mail = self.wait_mail(away)[0]
        answer = letter(away, self.to(ana), "I am away", answers=mail, Auto_Submitted="auto-replied")
        self.scene.relay.submit(answer.as_bytes(policy=email.policy.SMTP), "", self.to(ana), rcpt_options=[])
        time.sleep(QUIET_S)
        self.assertLessEqual(len(ana.texts()), 1, ana.texts())
        self.assertNoMail(away, 1)


if __name__ == "__main__":
    unittest.main()
