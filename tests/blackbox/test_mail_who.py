"""Who may write to whom, and what a server that anybody reaches has to bear: never an open relay, and bounds for everything."""

import email.policy
import smtplib
import socket
import time
import unittest

from mailing import FAR, HOME, NUMBERS, MailScenes, MailTest, letter   # first: it puts the peers on the path
from box import Sim
from mta import CLIENT, RELAY, Swaks
from talk import QUICK, SideBySide, open_sims

CAREFUL = Sim("001018000000004", "none", ["+18880004"], "careful", more=f'mail_allow = ["friend@{FAR}"]\nmail_deny = ["*"]\n')
STRANGER = "127.0.0.99"
USER = '[[mail_user]]\nname = "clinic"\npassword = "open wide"\n'


class Open(MailScenes, SideBySide):
    """A box that takes mail of everybody, for its own phones and nobody else."""

    sims = open_sims(140) + [CAREFUL]
    programs = ("exim", "opensmtpd", "swaks")
    mail_more = (f'size_max = "64 kB"\ndeny = ["@spam.example"]\nresults_from = ["mx.example"]\nfronts = ["{RELAY}"]\ncommand_timeout = "3 s"\n'
                 "received_max = 10\nrecipients_max = 5\nsessions_per_address_max = 30\n")
    tables = USER

    def test_the_known_tricks_of_open_relays(self):
        """Nothing but an address of ours is taken, and none of them brings a mail anywhere."""
        bob = self.phones(1, self.mill)[0]
        number, victim = self.number(bob), f"victim@{HOME}"
        recipients = [
            victim, f"@{NUMBERS}:{victim}", f"@{HOME},@{NUMBERS}:{victim}", f"victim%{HOME}@{NUMBERS}", f"{HOME}!victim@{NUMBERS}",
            f"{NUMBERS}!{HOME}!victim", f'"{victim}"@{NUMBERS}', f'"victim%{HOME}"@{NUMBERS}', f'"{victim}"', f"victim@{HOME}@{NUMBERS}",
            f"{victim}%{NUMBERS}@{NUMBERS}", f"victim@[{RELAY}]", f"victim@[{self.box.host}]", f"{number}@{NUMBERS}.{HOME}", f"{number}@x{NUMBERS}",
            f"{number}@{NUMBERS}@{HOME}", f'"{number}@{HOME}"@{NUMBERS}', f"{number}%{HOME}@{NUMBERS}", f"{number}@gsm.example", f"{number}@localhost",
            f"{number}@{HOME}%{NUMBERS}", f"victim@{HOME}.", f"{HOME}!victim", "victim%" + HOME, f"<{victim}>", f"{number}\\@{HOME}@{NUMBERS}",
        ]
        for sender in (f"carol@{FAR}", "", f"{number}@{HOME}", f"postmaster@{HOME}"):
            for recipient in recipients:
                with self.client() as client:
                    client.putcmd(f"MAIL FROM:<{sender}>")
                    code, said = client.getreply()
                    self.assertEqual(code, 250, f"{sender}: {said}")
                    client.putcmd(f"RCPT TO:<{recipient}>")
                    code, said = client.getreply()
                    self.assertTrue(500 <= code < 560, f"{recipient}: {code} {said}")
                    client.putcmd("DATA")
                    self.assertGreaterEqual(client.getreply()[0], 500, recipient)
        swaks = Swaks(self)
        for recipient in recipients:
            talk = swaks((self.box.host, self.scene.port), "--from", f"carol@{FAR}", "--to", recipient.replace(",", "\\,").lstrip("+"))
            self.assertNotEqual(talk.code, 0, str(talk))
        time.sleep(1)
        self.assertNoMail(victim)
        self.assertEqual((bob.texts(), self.mail_waiting(HOME)), ([], []))

    def test_nobody_outside_writes_as_a_phone_of_ours(self):
        bob, dan = self.phones(2, self.mill)
        code, said = self.hand_in(letter(self.to(dan), self.to(bob)), self.to(dan), self.to(bob))
        self.assertEqual(code, 550, said)
        self.assertTrue(said.startswith("5.7.1"), said)

    def test_who_has_logged_in_relays_no_more_than_others(self):
        with self.client() as client:
            client.starttls(context=self.scene.authority.context())
            client.login("clinic", "open wide")
            client.mail(f"carol@{FAR}")
            code, said = client.rcpt(f"victim@{HOME}")
            self.assertEqual(code, 550, said)

    def test_a_login_only_with_the_password(self):
        swaks = Swaks(self)
        at = (self.box.host, self.scene.port)
        words = ("--from", f"carol@{FAR}", "--quit-after", "AUTH", "--auth-user", "clinic")
        known = ("--tls", "--tls-verify", "--tls-ca-path", str(self.scene.authority.certificate))
        for kind in ("PLAIN", "LOGIN"):
            talk = swaks(at, *words, *known, "--auth", kind, "--auth-password", "open wide")
            self.assertEqual(talk.code, 0, str(talk))
            self.assertTrue(any(line.startswith("235") for line in talk.answers), str(talk))
            talk = swaks(at, *words, *known, "--auth", kind, "--auth-password", "wrong")
            self.assertTrue(any(line.startswith("535") for line in talk.answers), str(talk))

    def test_what_was_said_before_starttls_is_forgotten(self):
        """A command that somebody pushed behind STARTTLS in the clear is not taken for one said in TLS (CVE-2011-0411)."""
        with self.client() as client:
            client.send("STARTTLS\r\nMAIL FROM:<pushed@far.example>\r\n".encode())
            code, said = client.getreply()
            if code == 220:
                try:
                    client.sock = self.scene.authority.context().wrap_socket(client.sock, server_hostname=self.box.host)
                    client.file = None
                    client.ehlo_resp = client.helo_resp = None
                    self.assertEqual(client.ehlo()[0], 250)
                    self.assertEqual(client.rcpt(f"+15550009999@{NUMBERS}")[0], 503, "MAIL was never said")
                except (OSError, smtplib.SMTPServerDisconnected):
                    pass                                   # nor is it wrong to hang up

    def test_size(self):
        bob = self.phones(1, self.mill)[0]
        with self.client() as client:
            self.assertEqual(int(client.esmtp_features["size"]), 64_000)
            code, said = client.mail(f"carol@{FAR}", ["SIZE=64001"])
            self.assertEqual(code, 552, said)
        code, said = self.hand_in(letter(f"carol@{FAR}", self.to(bob), "x" * 60 + ("\n" + "y" * 70) * 1000), f"carol@{FAR}", self.to(bob))
        self.assertEqual(code, 552, said)
        self.assertTrue(said.startswith("5.3.4"), said)
        self.assertEqual(self.hand_in(letter(f"carol@{FAR}", self.to(bob), "small"), f"carol@{FAR}", self.to(bob), options=["SIZE=2000"])[0], 250)
        self.assertInbox(bob, [f"carol@{FAR}: small"])

    def test_lists_of_the_box_and_of_a_subscriber(self):
        bob, eve = self.phones(1, self.mill)[0], CAREFUL.phone()
        self.assertTrue(self.mill.register(eve).ok)
        careful = f"{CAREFUL.numbers[0]}@{NUMBERS}"
        for sender, recipient, code in (("offer@spam.example", self.to(bob), 550), ("offer@deep.spam.example", self.to(bob), 550),
                                        (f"carol@{FAR}", careful, 550), (f"friend@{FAR}", careful, 250)):
            answer, said = self.hand_in(letter(sender, recipient, "hello"), sender, recipient)
            self.assertEqual(answer, code, f"{sender}: {said}")
            self.assertTrue(code == 250 or said.startswith("5.7.1"), said)
        self.assertInbox(eve, [f"friend@{FAR}: hello"])
        self.assertEqual(bob.texts(), [])

    def test_what_a_listed_server_found_out_about_the_sender(self):
        bob = self.phones(1, self.mill)[0]
        for source, server, found, code in ((RELAY, "mx.example", "spf=fail smtp.mailfrom=far.example", 550), (RELAY, "mx.example", "dmarc=fail", 550),
                                            (RELAY, "mx.example", "spf=pass; dkim=fail; dmarc=pass", 250), (RELAY, "liar.example", "spf=fail", 250),
                                            (RELAY, "mx.example", "spf=none", 250)):
            mail = letter(f"carol@{FAR}", self.to(bob), f"{server} {found}").as_bytes(policy=email.policy.SMTP)
            mail = f"Authentication-Results: {server}; {found}\r\n".encode() + mail
            answer, said = self.hand_in(mail, f"carol@{FAR}", self.to(bob), source=source)
            self.assertEqual(answer, code, f"{server} {found}: {said}")
        self.assertTrue(self.until(lambda: len(bob.texts()) == 3), bob.texts())

    def test_a_loop_is_cut(self):
        bob = self.phones(1, self.mill)[0]
        passed = "".join(f"Received: from a{number} by b{number}; Sun, 22 Nov 2026 12:00:00 +0000\r\n" for number in range(11))
        for head in (passed, f"X-Encamp-Trace: {NUMBERS}\r\n"):
            mail = head.encode() + letter(f"carol@{FAR}", self.to(bob)).as_bytes(policy=email.policy.SMTP)
            code, said = self.hand_in(mail, f"carol@{FAR}", self.to(bob))
            self.assertEqual(code, 554, said)
            self.assertTrue(said.startswith("5.4.6"), said)
        self.assertEqual(bob.texts(), [])

    def test_more_recipients_than_may_be(self):
        phones = self.phones(6, self.mill)
        with self.client() as client:
            client.mail(f"carol@{FAR}")
            self.assertEqual([client.rcpt(self.to(phone))[0] for phone in phones], [250] * 5 + [452])
            self.assertEqual(client.data(letter(f"carol@{FAR}", "you:;", "to five").as_bytes(policy=email.policy.SMTP))[0], 250)
        for phone in phones[:5]:
            self.assertInbox(phone, [f"carol@{FAR}: to five"])
        self.assertEqual(phones[5].texts(), [])

    def test_more_sessions_of_one_address_than_may_be(self):
        held = [socket.create_connection((self.box.host, self.scene.port), 5, source_address=(STRANGER, 0)) for _ in range(30)]
        try:
            for each in held:
                self.assertTrue(each.recv(200).startswith(b"220"))
            with socket.create_connection((self.box.host, self.scene.port), 5, source_address=(STRANGER, 0)) as more:
                self.assertTrue(more.recv(200).startswith(b"421"))
            with self.client() as other:
                self.assertEqual(other.noop()[0], 250, "others are not concerned")
        finally:
            for each in held:
                each.close()

    def test_who_says_nothing_for_too_long_is_sent_away(self):
        """Before EHLO, between commands, and in the middle of a mail."""
        bob = self.phones(1, self.mill)[0]
        for said in (b"", b"EHLO x\r\n", f"EHLO x\r\nMAIL FROM:<a@far.example>\r\nRCPT TO:<{self.to(bob)}>\r\nDATA\r\nSubject: x\r\n\r\nhalf".encode()):
            with socket.create_connection((self.box.host, self.scene.port), 5, source_address=("127.0.0.100", 0)) as client:
                client.settimeout(10)
                client.sendall(said)
                heard = b""
                while octets := client.recv(4096):
                    heard += octets
                self.assertIn(b"\r\n421", b"\r\n" + heard)
        self.assertEqual(bob.texts(), [])

    def test_nonsense(self):
        """Each is answered or hung up on, and the box goes on."""
        bob = self.phones(1, self.mill)[0]
        for said in (b"\0" * 2000 + b"\r\n", b"A" * 100_000, b"MAIL FROM:<" + b"x" * 3000 + b"@y.example>\r\n", b"DATA\r\n.\r\nRCPT\r\nBDAT 99999999999999999999\r\n",
                     b"EHLO x\r\nMAIL FROM:<a@far.example> SIZE=abc\r\n", b"GET / HTTP/1.1\r\nHost: x\r\n\r\n", bytes(range(256)) * 20 + b"\r\n"):
            with socket.create_connection((self.box.host, self.scene.port), 5, source_address=("127.0.0.101", 0)) as client:
                client.settimeout(10)
                try:
                    client.sendall(said + b"QUIT\r\n")
                    while client.recv(4096):
                        pass
                except ConnectionError:
                    pass
        self.assertEqual(self.hand_in(letter(f"carol@{FAR}", self.to(bob), "still here"), f"carol@{FAR}", self.to(bob))[0], 250)
        self.assertInbox(bob, [f"carol@{FAR}: still here"])

    def test_a_lone_line_feed_smuggles_no_second_mail(self):
        """LF . CR LF and the like end no mail (CVE-2023-51764)."""
        bob = self.phones(1, self.mill)[0]
        for end in (b"\n.\n", b"\n.\r\n", b"\r.\r", b"\r\n.\n"):
            second = f"MAIL FROM:<smuggled@spam.example>\r\nRCPT TO:<{self.to(bob)}>\r\nDATA\r\nSubject: smuggled\r\n\r\nsmuggled\r\n.\r\n".encode()
            with self.client() as client:
                client.mail(f"carol@{FAR}")
                client.rcpt(self.to(bob))
                client.putcmd("DATA")
                self.assertEqual(client.getreply()[0], 354)
                client.send(b"Subject: first\r\n\r\nfirst" + end + second)
                client.getreply()
        time.sleep(1.5)
        self.assertEqual([text for text in bob.texts() if text.startswith("smuggled@")], [])


class Listed(MailScenes, SideBySide):
    """senders = "listed", few mails a day, and phones that are asked about strangers."""

    sims = open_sims(140)
    mail_more = f'senders = "listed"\nallow = ["friend@{FAR}", "@clinic.example"]\ntrusted = ["{RELAY}"]\nper_sender_day_max = 3\n'
    tables = USER

    def test_only_who_is_listed_writes(self):
        bob = self.phones(1, self.mill)[0]
        for sender, source, code in ((f"carol@{FAR}", CLIENT, 550), (f"carol@{FAR}", RELAY, 250), (f"friend@{FAR}", CLIENT, 250), ("x@clinic.example", CLIENT, 250),
                                     ("x@notclinic.example", CLIENT, 550)):
            answer, said = self.hand_in(letter(sender, self.to(bob), "hello"), sender, self.to(bob), source=source)
            self.assertEqual(answer, code, f"{sender} at {source}: {said}")
        with self.client() as client:
            client.starttls(context=self.scene.authority.context())
            client.login("clinic", "open wide")
            client.sendmail("nurse@any.example", [self.to(bob)], letter("nurse@any.example", self.to(bob), "hello").as_bytes(policy=email.policy.SMTP))
        self.assertTrue(self.until(lambda: len(bob.texts()) == 4), bob.texts())

    def test_so_many_a_day_and_no_more(self):
        phones = self.phones(4, self.mill)
        answers = []
        for number, phone in enumerate(phones):
            answers.append(self.hand_in(letter("often@clinic.example", self.to(phone), f"hello {number}"), "often@clinic.example", self.to(phone))[0])
        self.assertEqual(answers[:3], [250] * 3)
        self.assertTrue(400 <= answers[3] < 500, "it may come again tomorrow")
        self.assertEqual(self.hand_in(letter("else@clinic.example", self.to(phones[3]), "hello"), "else@clinic.example", self.to(phones[3]))[0], 250)


class Certificates(MailTest):
    def test_a_new_certificate_counts_from_the_next_session_on(self):
        """The operator writes the new files in the place of the old ones and applies."""
        box = self.open()

        def shown() -> int:
            with self.client() as client:
                client.starttls(context=self.scene.authority.context())
                return int(client.sock.getpeercert()["serialNumber"], 16)

        before = shown()
        self.scene.authority.issue("box.example", box.host)
        self.assertEqual(box.command("apply").code, 0)
        self.assertTrue(self.until(lambda: shown() != before), "still the old one")


class FirstContact(MailTest):
    def test_a_phone_is_asked_about_a_stranger_and_its_answer_counts(self):
        """His server is told to come again; the phone is asked once; yes lets it in, no keeps it out."""
        box = self.open(more='first_contact = "ask"\n')
        mill = box.station("mill", **QUICK)
        bob, dan = self.phone_at(mill), self.phone_at(mill)
        for phone, word in ((bob, "yes"), (dan, "no")):
            self.write(letter(f"carol@{FAR}", self.to(phone), "may I"), f"carol@{FAR}", self.to(phone))
            self.assertWords(phone, f"carol@{FAR}")
            for _ in range(2):
                code, said = self.hand_in(letter(f"carol@{FAR}", self.to(phone), "may I"), f"carol@{FAR}", self.to(phone))
                self.assertEqual(code, 451, said)
                self.assertTrue(said.startswith("4.7.1"), said)
            self.assertEqual(len(phone.texts()), 1, "it is asked once")
            self.assertSent(mill, phone, self.sender_of(phone), word)
            self.assertWords(phone, f"carol@{FAR}", nth=1)
        self.scene.post.until_sent()
        self.assertTrue(self.until(lambda: f"carol@{FAR}: may I" in bob.texts()), bob.texts())
        self.assertIn(self.to(dan), self.wait_mail(f"carol@{FAR}")[0].as_string())
        self.assertEqual(self.hand_in(letter(f"carol@{FAR}", self.to(dan), "again"), f"carol@{FAR}", self.to(dan))[0], 550)
        self.assertEqual(len(dan.texts()), 2)


if __name__ == "__main__":
    unittest.main()
