"""Texts that become mail, judged in the Maildirs behind the relay, and what their senders are told."""

import email.utils
import time
import unittest

from mailing import BOUNCED_WITHIN_S, CODE, FAR, HOME, NUMBERS, RELAY_WITHIN_S, MailScenes, MailTest, letter, told, words_of   # first
from box import Sim, YateStation
from mta import PASSWORD
from talk import QUICK, SideBySide, open_sims
from texting import DELIVERED, FORWARDED, SERVICE_CENTRE, three_segments

COPIED = Sim("001018000000001", "none", ["+18880001"], "copied", more=f'mail_copy = "archive@{HOME}"\n')


NAMELESS = Sim("001018000000005", "none", [], "nameless")


class Out(MailScenes, SideBySide):
    tables = f'[[mail_route]]\nprefixes = ["+1700"]\nto = "{{number}}@{HOME}"\n'
    sims = open_sims(140) + [COPIED, NAMELESS]
    options = {"sites": {"yate": "yate"}}
    programs = ("exim", "opensmtpd", "yate.py", "ims.py")

    @classmethod
    def ready(cls):
        super().ready()
        cls.yate = cls.station_at("yate", YateStation)
        cls.scene.relay.refuse(f"no@{HOME}")
        cls.scene.relay.bounce(f"gone@{HOME}")
        cls.scene.post.bounce(f"gone@{FAR}")
        cls.scene.post.refuse(f"no@{FAR}")

    # -- What a mail is made of --

    def test_a_text_to_the_short_code_is_a_mail_of_its_sender(self):
        ana = self.phones(1, self.hill)[0]
        self.assertMailed(self.hill, ana, f"bob@{HOME}(Supper)come at six")
        mail = self.wait_mail(f"bob@{HOME}")[0]
        self.assertEqual((mail["subject"], words_of(mail)), ("Supper", "come at six"))
        self.assertEqual(email.utils.parseaddr(mail["from"])[1], self.to(ana))
        self.assertEqual(mail["return-path"].strip("<>"), self.to(ana), "what becomes of it is told to her number")
        self.assertEqual(email.utils.parseaddr(mail["to"])[1], f"bob@{HOME}")
        self.assertTrue(mail["message-id"].endswith(f"@{NUMBERS}>"), mail["message-id"])
        self.assertLess(abs(email.utils.parsedate_to_datetime(mail["date"]).timestamp() - time.time()), 60)
        self.assertNotIn(ana.imsi, mail.as_string(), "no IMSI leaves the house")
        self.assertTrue(self.until(lambda: not self.mail_waiting(f"bob@{HOME}")))

    def test_a_subject_between_number_signs_and_one_that_is_not_written(self):
        ana = self.phones(1, self.hill)[0]
        for number, (text, subject, words) in enumerate((("##Supper# at six", "Supper", "at six"), ("#Lunch# at one", "Lunch", "at one"),
                                                         (" Breakfast at eight", "Breakfast at eight", "Breakfast at eight"))):
            self.assertMailed(self.hill, ana, f"subject{number}@{HOME}{text}")
            mail = self.wait_mail(f"subject{number}@{HOME}")[0]
            self.assertEqual((mail["subject"], words_of(mail)), (subject, words), text)

    def test_phones_of_every_kind_write_and_are_answered(self):
        """A YateBTS, an IMS phone, one that knows text/plain only, and one that nobody gave a number."""
        yves, ida, sol = self.phones(1, self.yate)[0], self.ims_phone(), self.soft_phone()
        self.assertMailed(self.yate, yves, f"kind0@{HOME} hello")
        self.assertEqual(ida.sms(CODE, f"kind1@{HOME} hello").code, 202)
        self.assertEqual(sol.text(CODE, f"kind2@{HOME} hello").code, 202)
        nameless = NAMELESS.phone()
        self.assertTrue(self.hill.register(nameless).ok)
        self.assertMailed(self.hill, nameless, f"kind3@{HOME} hello")
        for place, phone in enumerate((yves, ida, sol, nameless)):
            mail = self.wait_mail(f"kind{place}@{HOME}")[0]
            own = f"imsi{nameless.imsi}@{NUMBERS}" if phone is nameless else self.to(phone)
            self.assertEqual((words_of(mail), email.utils.parseaddr(mail["from"])[1]), ("hello", own))
            answer = letter(f"kind{place}@{HOME}", own, "and back", answers=mail)
            self.scene.relay.submit(answer.as_bytes(), f"kind{place}@{HOME}", own)
            self.assertInbox(phone, [f"kind{place}@{HOME}: and back"], 15)

    def test_a_phone_that_has_no_at_sign(self):
        ana = self.phones(1, self.hill)[0]
        self.assertMailed(self.hill, ana, f"no$at$all*{HOME} hello")
        self.assertEqual(words_of(self.wait_mail(f"no_at_all@{HOME}")[0]), "hello")

    def test_several_recipients_get_a_mail_each(self):
        ana = self.phones(1, self.hill)[0]
        to = [f"one@{HOME}", f"two@{HOME}", f"three@{FAR}"]
        self.assertMailed(self.hill, ana, f"{','.join(to)} to all of you")
        mails = [self.wait_mail(address, timeout=BOUNCED_WITHIN_S) for address in to]
        self.assertEqual([[words_of(mail) for mail in each] for each in mails], [["to all of you"]] * 3)

    def test_words_in_every_alphabet(self):
        ana = self.phones(1, self.hill)[0]
        self.assertMailed(self.hill, ana, f"letters@{HOME}(Жук)Zażółć gęślą jaźń 🙂")
        mail = self.wait_mail(f"letters@{HOME}")[0]
        self.assertEqual((mail["subject"], words_of(mail)), ("Жук", "Zażółć gęślą jaźń 🙂"))

    def test_a_long_text_is_one_mail(self):
        ana = self.phones(1, self.hill)[0]
        words = three_segments()
        self.assertMailed(self.hill, ana, f"long@{HOME} {words}")
        mail = self.wait_mail(f"long@{HOME}")[0]
        self.assertEqual(words_of(mail).replace("\n", " "), words)
        self.assertNoMail(f"long@{HOME}", 1)


    def test_mails_to_one_person_leave_in_their_order(self):
        ana = self.phones(1, self.hill)[0]
        for words in ("one", "two", "three"):
            self.assertMailed(self.hill, ana, f"order@{HOME} {words}")
        self.assertEqual([words_of(mail) for mail in self.wait_mail(f"order@{HOME}", 3)], ["one", "two", "three"])

    def test_words_without_an_address_are_answered_with_how_to_write_one(self):
        ana = self.phones(1, self.hill)[0]
        self.hill.sms(ana, CODE, "hello there", timeout=6)
        self.assertWords(ana, CODE)

    def test_a_number_that_a_route_has_is_written_to_by_mail(self):
        ana = self.phones(1, self.hill)[0]
        self.assertSent(self.hill, ana, "+17005551234", "to a number elsewhere")
        mail = self.wait_mail(f"+17005551234@{HOME}")[0]
        self.assertEqual((words_of(mail), email.utils.parseaddr(mail["from"])[1]), ("to a number elsewhere", self.to(ana)))

    def test_a_subscribers_mailbox_gets_a_copy_of_each_text_for_him(self):
        ana, bob = self.phones(1, self.hill)[0], COPIED.phone()
        self.assertTrue(self.mill.register(bob).ok)
        for text in ("hello", three_segments()):
            self.assertSent(self.hill, ana, COPIED.numbers[0], text)
        self.assertInbox(bob, ["hello", three_segments()], 15)
        mails = self.wait_mail(f"archive@{HOME}", 2)
        self.assertEqual([words_of(mail).replace("\n", " ") for mail in mails], ["hello", three_segments()])
        self.assertEqual({mail["return-path"] for mail in mails}, {"<>"}, "nobody is told what becomes of a copy")

    # -- What its sender is told --

    def test_a_report_when_the_mail_is_in_its_mailbox(self):
        """The relay tells by a DSN that it was delivered, and the phone has a STATUS-REPORT."""
        ana = self.phones(1, self.hill)[0]
        self.assertMailed(self.hill, ana, f"reported@{HOME} hello", report=True)
        self.assertTrue(self.until(lambda: ana.status_reports, BOUNCED_WITHIN_S), "no STATUS-REPORT")
        report = ana.status_reports[-1]
        self.assertIn(report.status_report, (DELIVERED, FORWARDED))
        self.assertTrue(self.until(lambda: ana.status_reports[-1].status_report == DELIVERED, BOUNCED_WITHIN_S), ana.status_reports)
        self.assertEqual(ana.status_reports[-1].reference, ana.submitted[-1])
        self.assertEqual(ana.texts(), [])

    def test_nothing_is_said_of_a_mail_that_arrived(self):
        ana = self.phones(1, self.hill)[0]
        self.assertMailed(self.hill, ana, f"quiet@{HOME} hello")
        self.wait_mail(f"quiet@{HOME}")
        self.assertTrue(self.until(lambda: not self.mail_waiting(f"quiet@{HOME}")))
        time.sleep(2)
        self.assertEqual((ana.texts(), ana.status_reports), ([], []))

    def test_a_recipient_whom_the_relay_refuses(self):
        ana = self.phones(1, self.hill)[0]
        self.assertMailed(self.hill, ana, f"no@{HOME} hello")
        self.assertWords(ana, f"no@{HOME}", "refused")
        self.assertEqual(self.record(to=f"no@{HOME}", sender=self.number(ana))[0]["outcome"], "failed")

    def test_a_mail_that_comes_back_is_told_in_words(self):
        """The relay took it and found later that there is no such mailbox: multipart/report."""
        ana = self.phones(1, self.hill)[0]
        self.assertMailed(self.hill, ana, f"gone@{HOME} hello")
        self.assertWords(ana, f"gone@{HOME}", timeout=BOUNCED_WITHIN_S)

    def test_a_mail_that_comes_back_from_farther_away(self):
        """One who refuses at RCPT, so that the relay writes the report; and one who takes it and writes one that is multipart/mixed."""
        ana = self.phones(1, self.hill)[0]
        for place, who in enumerate((f"no@{FAR}", f"gone@{FAR}")):
            self.assertMailed(self.hill, ana, f"{who} hello")
            self.assertWords(ana, who, timeout=BOUNCED_WITHIN_S, nth=place)

    def test_a_failure_reported_where_a_report_was_asked_for(self):
        ana = self.phones(1, self.hill)[0]
        self.assertMailed(self.hill, ana, f"no@{HOME} hello", report=True)
        self.assertTrue(self.until(lambda: ana.status_reports), "no STATUS-REPORT")
        self.assertEqual(ana.status_reports[0].status_report & 0x60, 0x40, hex(ana.status_reports[0].status_report))

    # -- Waiting --

    def test_a_mail_that_is_put_off_waits_and_says_why(self):
        ana = self.phones(1, self.hill)[0]
        self.scene.relay.defer(f"later@{HOME}")
        self.assertMailed(self.hill, ana, f"later@{HOME} hello")
        self.assertTrue(self.until(lambda: "451" in self.shown(f"later@{HOME}")), self.queue())
        self.assertMailed(self.hill, ana, f"sooner@{HOME} not behind the other")
        self.wait_mail(f"sooner@{HOME}")
        self.scene.relay.defer()
        retried = self.box.command("queue", "retry", self.mail_waiting(f"later@{HOME}")[0]["id"])
        self.assertEqual(retried.code, 0, retried.err)
        self.assertEqual(words_of(self.wait_mail(f"later@{HOME}")[0]), "hello")
        self.assertEqual(ana.texts(), [])

    def test_a_mail_is_sent_for_a_trial_and_each_step_is_told(self):
        tried = self.box.command("mail", "test", f"trial@{HOME}")
        self.assertEqual(tried.code, 0, told(tried))
        self.wait_mail(f"trial@{HOME}")
        for step in ("TLS", str(self.scene.relay.port)):
            self.assertIn(step, tried.out, told(tried))
        refused = self.box.command("mail", "test", f"no@{HOME}")
        self.assertNotEqual(refused.code, 0)
        self.assertIn("Not to this one", refused.out + refused.err)


class Relay(MailTest):
    """What lies between the box and its relay."""

    def test_a_relay_that_is_away_holds_mail_up_and_loses_none(self):
        box = self.open(lines=True)
        hill = box.station("hill", **QUICK)
        ana = self.phone_at(hill)
        self.scene.line.cut()
        for number in range(5):
            self.assertMailed(hill, ana, f"bob@{HOME} number {number}")
            self.assertMailed(hill, ana, f"carol{number}@{HOME} number {number}")
        self.assertTrue(self.until(lambda: len(self.queue()) == 10), self.queue())
        self.assertIn(f"bob@{HOME}", {text["to"] for text in self.queue()})
        self.assertIn("ALARM: the relay cannot be reached", box.log())
        self.assertTrue(box.command("status").data["node"]["alarms"], "the operator sees it as long as it lasts")
        box.kill()
        box.start()
        self.assertEqual(len(self.queue()), 10)
        self.scene.line.mend()
        self.push()
        mails = self.wait_mail(f"bob@{HOME}", 5, RELAY_WITHIN_S)
        self.assertEqual([words_of(mail) for mail in mails], [f"number {number}" for number in range(5)])
        for number in range(5):
            self.wait_mail(f"carol{number}@{HOME}", timeout=RELAY_WITHIN_S)
        self.assertTrue(self.until(lambda: not self.queue()), self.queue())
        self.assertEqual(box.command("status").data["node"]["alarms"], [])

    def test_an_answer_that_is_lost_does_not_make_two_mails(self):
        """The relay has it and nobody says so: it is sent again under the same Message-ID."""
        box = self.open(lines=True)
        hill = box.station("hill", **QUICK)
        ana = self.phone_at(hill)
        self.scene.line.lose_answers(2)
        self.assertMailed(hill, ana, f"bob@{HOME} once")
        self.assertTrue(self.until(lambda: self.scene.line.lost == 1, 10))
        self.assertTrue(self.until(lambda: self.push() or not self.mail_waiting(f"bob@{HOME}"), RELAY_WITHIN_S), self.queue())
        self.assertEqual(self.scene.line.lost, 2)
        mails = self.scene.relay.mails(f"bob@{HOME}")
        self.assertEqual(len(mails), 3)
        self.assertEqual(len({mail["message-id"] for mail in mails}), 1)
        self.assertEqual(ana.texts(), [])

    def test_no_password_for_a_relay_that_nobody_vouches_for(self):
        box = self.open(start=False)
        box.more = box.more.replace(f'relay_authority = "{self.scene.authority.certificate}"\n', "")
        box.write()
        box.start()
        hill = box.station("hill", **QUICK)
        ana = self.phone_at(hill)
        self.assertMailed(hill, ana, f"bob@{HOME} hello")
        self.assertTrue(self.until(lambda: "certificate" in self.shown(f"bob@{HOME}").lower()), self.queue())
        self.assertNotIn("AUTH", self.scene.relay.log())
        tried = box.command("mail", "test", f"bob@{HOME}")
        self.assertNotEqual(tried.code, 0)
        self.assertIn("certificate", (tried.out + tried.err).lower())

    def test_a_wrong_password_is_no_fault_of_the_mail(self):
        """It waits until the operator has written the right one and applies it."""
        box = self.open(start=False)
        right = f'relay_password = "{PASSWORD}"'
        box.more = box.more.replace(right, 'relay_password = "wrong"')
        box.write()
        box.start()
        hill = box.station("hill", **QUICK)
        ana = self.phone_at(hill)
        self.assertMailed(hill, ana, f"bob@{HOME} hello")
        self.assertTrue(self.until(lambda: "535" in self.shown(f"bob@{HOME}")), self.shown(f"bob@{HOME}"))
        tried = box.command("mail", "test", f"bob@{HOME}")
        self.assertNotEqual(tried.code, 0)
        self.assertIn("535", tried.out + tried.err)
        self.assertNotIn("wrong", tried.out + tried.err + box.log() + self.shown(f"bob@{HOME}"), "a password is in no log")
        box.more = box.more.replace('relay_password = "wrong"', right)
        box.write()
        self.assertEqual(box.command("apply").code, 0)
        self.push()
        self.assertEqual(words_of(self.wait_mail(f"bob@{HOME}")[0]), "hello")
        self.assertEqual(ana.texts(), [])

    def test_so_much_mail_may_wait_and_no_more(self):
        """A text beyond it is not accepted: the phone tries again, and what waits is not concerned."""
        box = self.open(more="count_max = 3\n", lines=True)
        hill = box.station("hill", **QUICK)
        ana = self.phone_at(hill)
        self.scene.line.cut()
        for number in range(3):
            self.assertMailed(hill, ana, f"bob@{HOME} number {number}")
            self.assertTrue(self.until(lambda: len(self.mail_waiting(f"bob@{HOME}")) == number + 1), self.queue())
        more = hill.sms(ana, CODE, f"bob@{HOME} number 3", timeout=6)
        self.assertTrue(more is None or more.code == 503 or self.until(lambda: ana.texts()), f"{more}: neither refused nor told")
        self.scene.line.mend()
        self.push()
        self.assertEqual([words_of(mail) for mail in self.wait_mail(f"bob@{HOME}", 3, RELAY_WITHIN_S)], [f"number {number}" for number in range(3)])

    def test_a_long_text_whose_parts_come_before_and_after_kill_9(self):
        box = self.open()
        hill = box.station("hill", **QUICK)
        ana, words = self.phone_at(hill), three_segments()
        requests = hill.sms_requests(ana, CODE, f"bob@{HOME} {words}")
        self.assertGreaterEqual(len(requests), 3)
        for place, request in enumerate(requests):
            answer = hill.transact(request, hill.sms_proxy, 6)
            self.assertEqual(answer.code, 202, str(answer))
            if place + 1 < len(requests):
                box.kill()
                box.start()
        self.assertEqual([words_of(mail).replace("\n", " ") for mail in self.wait_mail(f"bob@{HOME}")], [words])

    def test_the_sender_is_told_when_the_time_is_over(self):
        box = self.open(more='life_max = "3 s"\n', lines=True)
        hill = box.station("hill", **QUICK)
        ana = self.phone_at(hill)
        self.scene.line.cut()
        self.assertMailed(hill, ana, f"bob@{HOME} hello")
        self.assertWords(ana, f"bob@{HOME}", timeout=15)
        self.assertEqual(self.record(to=f"bob@{HOME}")[0]["outcome"], "expired")

    def test_the_centres_own_number_takes_mail_where_there_is_no_short_code(self):
        box = self.open(start=False)
        box.more = box.more.replace(f'short_code = "{CODE}"\n', "")
        box.write()
        box.start()
        hill = box.station("hill", **QUICK)
        ana = self.phone_at(hill)
        self.assertSent(hill, ana, SERVICE_CENTRE, f"bob@{HOME} hello")
        self.assertEqual(words_of(self.wait_mail(f"bob@{HOME}")[0]), "hello")
        self.assertSent(hill, ana, SERVICE_CENTRE, "what is my number")
        self.assertWords(ana, self.number(ana))


if __name__ == "__main__":
    unittest.main()
