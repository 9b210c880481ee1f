"""The mail programs among themselves: what the tests of the mail bridge say of the box is only as good as these."""

import smtplib
import tempfile
import unittest
from pathlib import Path

from mta import CLIENT, LOGIN, PASSWORD, RELAY, SENDER, Authority, Exim, Line, Smtpd, Swaks, once   # first: it puts the peers on the path


def mail(identity: str, words: str = "hello") -> str:
    return f"From: ana@home.example\nTo: bob@far.example\nSubject: {identity}\nMessage-ID: <{identity}@home.example>\n\n{words}\n"


class Peers(unittest.TestCase):
    def setUp(self):
        directory = tempfile.TemporaryDirectory()
        self.addCleanup(directory.cleanup)
        self.directory = Path(directory.name)
        self.authority = Authority(self.directory / "authority")

    def relay(self, kind=Exim, **more):
        return kind(self, self.directory, RELAY, authority=self.authority, name="relay.example", domains=("far.example",), **more).start()

    def test_a_login_over_checked_tls_and_nothing_without(self):
        relay, swaks = self.relay(), Swaks(self)
        known = ("--tls", "--tls-verify", "--tls-ca-path", str(self.authority.certificate))
        words = ("--from", "ana@home.example", "--to", "bob@far.example", "--header", "Subject: one")
        login = ("--auth", "PLAIN", "--auth-user", LOGIN, "--auth-password")
        at = (relay.host, relay.port)
        talk = swaks(at, *words, *known, *login, PASSWORD)
        self.assertEqual(talk.code, 0, str(talk))
        self.assertTrue(talk.offers("DSN") and talk.offers("SIZE"), str(talk))
        self.assertEqual(relay.wait_mails("bob@far.example")[0]["subject"], "one")
        for wrong in (words, (*words, *known), (*words, *known, *login, "wrong"), (*words, "--tls", "--tls-verify", *login, PASSWORD)):
            talk = swaks(at, *wrong)
            self.assertNotEqual(talk.code, 0, str(talk))
        self.assertEqual(len(relay.mails("bob@far.example")), 1)

    def test_what_it_refuses_puts_off_and_bounces(self):
        relay = self.relay()
        relay.refuse("no@far.example")
        relay.defer("later@far.example")
        relay.bounce("gone@far.example")
        for recipient, code in (("no@far.example", 550), ("later@far.example", 451), ("x@elsewhere.example", 550)):
            with self.assertRaises(smtplib.SMTPRecipientsRefused) as refused:
                relay.submit(mail("a"), "ana@far.example", recipient)
            self.assertEqual(refused.exception.recipients[recipient][0], code)
        relay.defer()
        relay.submit(mail("b"), "ana@far.example", "later@far.example", "gone@far.example")
        self.assertEqual(len(relay.wait_mails("later@far.example")), 1)
        report = relay.wait_mails("ana@far.example")[0]
        self.assertEqual(report.get_content_type(), "multipart/report")
        self.assertEqual([part.get_content_type() for part in report.iter_parts()][1], "message/delivery-status")
        self.assertIn("gone@far.example", report.as_string())

    def test_what_waits_is_carried_on_after_kill_9_and_a_line_that_was_cut(self):
        far = Smtpd(self, self.directory, SENDER, authority=self.authority, name="far.example", domains=("far.example",)).start()
        line = Line(self, RELAY, (far.host, far.open_port))
        near = Exim(self, self.directory, RELAY, authority=self.authority, name="relay.example", domains=("home.example",),
                     routes={"far.example": line.at}).start()
        line.cut()
        near.submit(mail("one"), "ana@home.example", "bob@far.example")
        self.assertEqual(len(near.waiting()), 1)
        near.kill()
        near.start()
        self.assertEqual(len(near.waiting()), 1)
        line.mend()
        near.until_sent()
        self.assertEqual([each["subject"] for each in far.wait_mails("bob@far.example")], ["one"])

    def test_an_answer_that_is_lost_makes_a_second_mail_of_the_same_name(self):
        far = Smtpd(self, self.directory, SENDER, authority=self.authority, name="far.example", domains=("far.example",)).start()
        line = Line(self, RELAY, (far.host, far.open_port))
        line.lose_answers(1)
        for _ in range(2):
            try:
                with smtplib.SMTP(*line.at, timeout=5, source_address=(CLIENT, 0)) as client:
                    client.sendmail("ana@home.example", ["bob@far.example"], mail("one"))
            except smtplib.SMTPServerDisconnected:
                pass
        self.assertEqual(line.lost, 1)
        while len(far.mails("bob@far.example")) < 2:
            far.wait_mails("bob@far.example")
        self.assertEqual(len(once(far.mails("bob@far.example"))), 1)


if __name__ == "__main__":
    unittest.main()
