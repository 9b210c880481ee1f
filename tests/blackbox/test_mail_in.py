"""Mail that becomes texts: sent by a person's own server, by swaks or by hand, judged at the phones."""

import base64
import email.policy
import quopri
import re
import time
import unittest
import urllib.error
import urllib.request

from mailing import FAR, NUMBERS, MailScenes, MailTest, letter   # first: it puts the peers on the path
from box import BOX, Sim, free_port
from mta import Exim, Smtpd, Swaks
from talk import QUICK, SideBySide, open_sims
from texting import three_segments

NAMED = Sim("001018000000002", "none", ["+18880002"], "named", more='mail_alias = ["Zoe", "front.desk"]\n')
BARRED = Sim("001018000000003", "none", ["+18880003"], "barred", barred=True)
BESIDE = "127.0.0.102"
WITHHELD = re.compile(r"\.\.\. \[(\d+) more parts withheld\]")


class In(MailScenes, SideBySide):
    sims = open_sims(140) + [NAMED, BARRED]
    programs = ("exim", "opensmtpd", "swaks")

    def bob(self):
        return self.phones(1, self.mill)[0]

    def plain(self, phone) -> str:
        """Without the plus, which swaks takes for the beginning of an option."""
        return self.to(phone).lstrip("+")

    def assertRead(self, phone, *texts: str, timeout: float = 15):
        self.assertInbox(phone, list(texts), timeout)

    # -- What a phone reads --

    def test_a_mail_is_a_text_of_its_sender(self):
        bob = self.bob()
        self.write(letter(f"Carol <carol@{FAR}>", self.to(bob), "come at six\n", "Supper"), f"carol@{FAR}", self.to(bob))
        self.assertRead(bob, f"carol@{FAR}: (Supper) come at six")
        self.assertTrue(self.sender_of(bob).startswith("+15559"), "a number of the pool, so that he can answer")

    def test_of_text_and_html_the_text_is_read(self):
        bob = self.bob()
        self.write(letter(f"carol@{FAR}", self.to(bob), "as text", html="<p>as <b>html</b></p>"), f"carol@{FAR}", self.to(bob))
        self.assertRead(bob, f"carol@{FAR}: as text")

    def test_html_alone_is_read_as_text(self):
        bob = self.bob()
        html = "<html><head><style>p {color: red}</style></head><body><p>Come at <b>six</b> &amp; bring <i>bread</i>.</p></body></html>"
        self.write(letter(f"carol@{FAR}", self.to(bob), "", html=html), f"carol@{FAR}", self.to(bob))
        self.assertRead(bob, f"carol@{FAR}: Come at six & bring bread.")

    def test_a_signature_and_what_is_quoted_are_left_out(self):
        bob = self.bob()
        words = "yes, gladly\n\nOn Sun, 22 Nov 2026, Bob wrote:\n> come at six\n> and bring bread\n\n-- \nCarol, head of nothing\n+44 1\n"
        self.write(letter(f"carol@{FAR}", self.to(bob), words), f"carol@{FAR}", self.to(bob))
        self.assertRead(bob, f"carol@{FAR}: yes, gladly")

    def test_words_in_every_charset(self):
        told = "Zażółć gęślą jaźń"
        for charset, encoding, words in (("utf-8", "base64", told), ("utf-8", "8bit", "Жук 🙂"), ("iso-8859-2", "quoted-printable", told),
                                         ("koi8-r", "base64", "Жук"), ("windows-1252", "quoted-printable", "5 € – “here”")):
            bob = self.bob()
            octets = words.encode(charset)
            body = {"base64": base64.encodebytes, "quoted-printable": quopri.encodestring, "8bit": lambda octets: octets + b"\n"}[encoding](octets)
            subject = "=?koi8-r?B?" + base64.b64encode("Ужин".encode("koi8-r")).decode() + "?="
            head = (f"From: carol@{FAR}\nTo: {self.to(bob)}\nSubject: {subject}\nMIME-Version: 1.0\nMessage-ID: <{charset}.{encoding}@{FAR}>\n"
                    f"Content-Type: text/plain; charset={charset}\nContent-Transfer-Encoding: {encoding}\n\n").encode()
            self.write((head + body).replace(b"\n", b"\r\n"), f"carol@{FAR}", self.to(bob), mail_options=["BODY=8BITMIME"])
            self.assertRead(bob, f"carol@{FAR}: (Ужин) {words}")

    def test_a_long_mail_is_one_long_text(self):
        bob = self.bob()
        self.write(letter(f"carol@{FAR}", self.to(bob), three_segments()), f"carol@{FAR}", self.to(bob))
        self.assertRead(bob, f"carol@{FAR}: {three_segments()}")
        self.assertGreaterEqual(len(bob.inbox), 3)

    def test_a_mail_that_is_too_long_says_how_much_is_withheld(self):
        bob = self.bob()
        words = " ".join(f"word{number}" for number in range(400))
        self.write(letter(f"carol@{FAR}", self.to(bob), words), f"carol@{FAR}", self.to(bob))
        self.assertTrue(self.until(lambda: len(bob.texts()) == 1 and WITHHELD.search(bob.texts()[0]), 20), bob.texts())
        self.assertEqual(len(bob.inbox), 6, "segments_max")
        said = bob.texts()[0]
        shown = WITHHELD.split(said)[0].strip()
        self.assertTrue(f"carol@{FAR}: {words}".startswith(shown), said)
        # 153 characters to a part.
        self.assertAlmostEqual(int(WITHHELD.search(said)[1]), len(words) / 153 - 6, delta=1.1)

    def test_files_are_named(self):
        bob = self.bob()
        mail = letter(f"carol@{FAR}", self.to(bob), "look")
        mail.add_attachment(b"%PDF-1.4 no more", maintype="application", subtype="pdf", filename="menu.pdf")
        mail.add_attachment(b"\xff\xd8\xff", maintype="image", subtype="jpeg", filename="żaba.jpg")
        self.write(mail, f"carol@{FAR}", self.to(bob))
        self.assertRead(bob, f"carol@{FAR}: look [with menu.pdf, żaba.jpg]")

    # -- To whom --

    def test_every_name_that_a_phone_has(self):
        zoe = NAMED.phone()
        self.assertTrue(self.mill.register(zoe).ok)
        names = ["+18880002", "18880002", f"imsi{zoe.imsi}", f"IMSI{zoe.imsi}", "zoe", "ZOE", "front.desk"]
        for place, name in enumerate(names):
            code, said = self.hand_in(letter(f"carol@{FAR}", f"{name}@{NUMBERS}", f"to {name}"), f"carol@{FAR}", f"{name}@{NUMBERS.upper()}")
            self.assertEqual(code, 250, said)
            self.assertTrue(self.until(lambda: len(zoe.texts()) == place + 1), zoe.texts())
        self.assertEqual(zoe.texts(), [f"carol@{FAR}: to {name}" for name in names])

    def test_one_mail_for_several_phones(self):
        bob, dan = self.phones(2, self.mill, self.hill)
        code, said = self.hand_in(letter(f"carol@{FAR}", "all of you:;", "to both"), f"carol@{FAR}", self.to(bob), self.to(dan, 1))
        self.assertEqual(code, 250, said)
        for phone in (bob, dan):
            self.assertRead(phone, f"carol@{FAR}: to both")

    def test_who_is_not_here_is_refused_at_once_and_says_why(self):
        for recipient, status in ((f"+15550009999@{NUMBERS}", "5.1.1"), (f"imsi001019999999999@{NUMBERS}", "5.1.1"), (f"nobody@{NUMBERS}", "5.1.1"),
                                  (f"112@{NUMBERS}", "5.1.1"), (f"600@{NUMBERS}", "5.1.1"), (f"+15559003@{NUMBERS}", "5.1.1"),
                                  (f"{BARRED.numbers[0]}@{NUMBERS}", "5.2.1")):
            code, said = self.hand_in(letter(f"carol@{FAR}", recipient), f"carol@{FAR}", recipient)
            self.assertEqual(code, 550, f"{recipient}: {code} {said}")
            self.assertTrue(said.startswith(status) and len(said) > 10, f"{recipient}: {said}")

    def test_a_sender_hears_from_his_own_server_that_nobody_has_the_number(self):
        self.write(letter(f"dora@{FAR}", f"+15550009998@{NUMBERS}"), f"dora@{FAR}", f"+15550009998@{NUMBERS}")
        self.assertIn("no subscriber has this number", self.wait_mail(f"dora@{FAR}")[0].as_string())

    # -- Once --

    def test_a_mail_waits_for_its_phone(self):
        bob = self.box.phone("none")
        code, said = self.hand_in(letter(f"carol@{FAR}", self.to(bob), "later"), f"carol@{FAR}", self.to(bob))
        self.assertEqual(code, 250, said)
        waiting = self.assertWaits(bob)
        self.assertIn(f"carol@{FAR}", str(self.show(waiting[0])))
        self.assertTrue(self.mill.register(bob).ok)
        self.assertRead(bob, f"carol@{FAR}: later")

    def test_the_same_mail_sent_again_is_no_second_text(self):
        """A server that lost our 250 sends it again, by another way perhaps: more Received lines."""
        bob = self.bob()
        mail = letter(f"carol@{FAR}", self.to(bob), "once")
        for path in ("", "Received: from one by two; Sun, 22 Nov 2026 12:00:00 +0000\r\n"):
            code, said = self.hand_in(path.encode() + mail.as_bytes(policy=email.policy.SMTP), f"carol@{FAR}", self.to(bob))
            self.assertEqual(code, 250, said)
        other = letter(f"carol@{FAR}", self.to(bob), "twice")
        self.assertEqual(self.hand_in(other, f"carol@{FAR}", self.to(bob))[0], 250)
        self.assertRead(bob, f"carol@{FAR}: once", f"carol@{FAR}: twice")
        time.sleep(1)
        self.assertEqual(len(bob.inbox), 2)

    # -- How it is said --

    def test_swaks_in_tls_with_pipelining(self):
        bob, swaks = self.bob(), Swaks(self)
        known = ("--tls-verify", "--tls-ca-path", str(self.scene.authority.certificate))
        for number, (port, how) in enumerate(((self.scene.port, ("--tls",)), (self.scene.tls_port, ("--tls-on-connect",)), (self.scene.port, ()))):
            talk = swaks((self.box.host, port), *how, *(known if how else ()), "--pipeline", "--from", f"carol@{FAR}", "--to", self.plain(bob),
                         "--header", f"Subject: {number}", "--body", f"words {number}")
            self.assertEqual(talk.code, 0, str(talk))
            for word in ("PIPELINING", "SIZE", "8BITMIME", "SMTPUTF8", "DSN", "CHUNKING", "ENHANCEDSTATUSCODES"):
                self.assertTrue(talk.offers(word), f"{word}: {talk}")
        self.assertRead(bob, *(f"carol@{FAR}: ({number}) words {number}" for number in range(3)))

    def test_lmtp_answers_for_each_recipient(self):
        bob, swaks = self.bob(), Swaks(self)
        nobody = f"15550009997@{NUMBERS}"
        talk = swaks((self.box.host, self.scene.lmtp_port), "--protocol", "LMTP", "--from", f"carol@{FAR}", "--to", f"{self.plain(bob)},{nobody},{self.to(bob, 1)}",
                     "--body", "by LMTP", "--header", "Subject: ")
        self.assertTrue(any(line.startswith("550 5.1.1") for line in talk.answers), str(talk))
        behind = [line for line in talk.answers[talk.answers.index(next(line for line in talk.answers if line.startswith("354"))) + 1:] if not line.startswith("221")]
        self.assertEqual([line[:3] for line in behind], ["250", "250"], str(talk))
        self.assertTrue(self.until(lambda: bob.texts()))
        self.assertEqual(set(bob.texts()), {f"carol@{FAR}: by LMTP"})

    def test_chunks(self):
        bob = self.bob()
        octets = letter(f"carol@{FAR}", self.to(bob), "in chunks").as_bytes(policy=email.policy.SMTP)
        with self.client() as client:
            self.assertEqual(client.mail(f"carol@{FAR}", ["BODY=BINARYMIME"] if client.has_extn("binarymime") else [])[0], 250)
            self.assertEqual(client.rcpt(self.to(bob))[0], 250)
            half = len(octets) // 2
            for piece, last in ((octets[:half], ""), (octets[half:], ""), (b"", " LAST")):
                client.send(f"BDAT {len(piece)}{last}\r\n".encode() + piece)
                code, said = client.getreply()
                self.assertEqual(code, 250, said)
        self.assertRead(bob, f"carol@{FAR}: in chunks")

    def test_dots_at_the_beginning_of_lines(self):
        bob = self.bob()
        self.assertEqual(self.hand_in(letter(f"carol@{FAR}", self.to(bob), ".\n..\n.end"), f"carol@{FAR}", self.to(bob))[0], 250)
        self.assertRead(bob, f"carol@{FAR}: .\n..\n.end")

    def test_many_mails_in_one_session(self):
        bob = self.bob()
        with self.client() as client:
            for number in range(20):
                client.sendmail(f"carol@{FAR}", [self.to(bob)], letter(f"carol@{FAR}", self.to(bob), f"number {number}").as_bytes(policy=email.policy.SMTP))
        self.assertRead(bob, *(f"carol@{FAR}: number {number}" for number in range(20)), timeout=30)

    def test_smtputf8(self):
        bob = self.bob()
        mail = letter("karol@example.org", self.to(bob), "od Karola").as_bytes(policy=email.policy.SMTP).replace(b"karol@", "karól@".encode())
        code, said = self.hand_in(mail, "karól@example.org", self.to(bob), options=["SMTPUTF8", "BODY=8BITMIME"])
        self.assertEqual(code, 250, said)
        self.assertRead(bob, "karól@example.org: od Karola")


class Pictures(MailTest):
    def test_files_are_on_a_page_that_opens_once(self):
        """The text has a link; who has it sees the files, for a moment; there is no list of pages, and a guess finds nothing."""
        port = free_port(BOX)
        box = self.open(tables=f'[pictures]\nlisten = "{BOX}:{port}"\nurl = "http://{BOX}:{port}"\nsize_max = "200 kB"\nopen_life = "3 s"\n')
        mill = box.station("mill", **QUICK)
        bob, dan = self.phone_at(mill), self.phone_at(mill)
        photo = b"\xff\xd8\xff" + bytes(range(256)) * 100
        mail = letter(f"carol@{FAR}", "both:;", "look")
        mail.add_attachment(photo, maintype="image", subtype="jpeg", filename="photo.jpg")
        self.write(mail, f"carol@{FAR}", self.to(bob), self.to(dan))
        pages = []
        for phone in (bob, dan):
            self.assertTrue(self.until(lambda: phone.texts(), 15))
            found = re.fullmatch(rf"carol@{FAR}: look \[photo\.jpg: (http://{BOX}:{port}/p/[0-9a-f]{{32}})\]", phone.texts()[0])
            self.assertTrue(found, phone.texts()[0])
            pages.append(found[1])
        self.assertNotEqual(*pages)
        box.kill()
        box.start()
        code, page = _get(pages[0])
        self.assertEqual((code, b"photo.jpg" in page), (200, True))
        self.assertEqual(_get(f"{pages[0]}/0"), (200, photo))
        self.assertTrue(self.until(lambda: _get(pages[0])[0] == 410 and _get(f"{pages[0]}/0")[0] in (404, 410), 10), "it is still open")
        self.assertEqual(_get(pages[1])[0], 200, "his own page")
        for path in ("", "/p", "/p/", f"/p/{'0' * 32}", f"/p/{pages[1][-32:-1]}0/../", "/p/%2e%2e/%2e%2e/encamp.toml"):
            self.assertEqual(_get(f"http://{BOX}:{port}{path}")[0], 404, path)


def _get(url: str) -> tuple[int, bytes]:
    try:
        with urllib.request.urlopen(url, timeout=5) as answer:
            return answer.status, answer.read()
    except urllib.error.HTTPError as error:
        return error.code, b""


class Lmtp(MailTest):
    def test_a_mail_server_beside_the_box_hands_over_by_lmtp(self):
        box = self.open()
        mill = box.station("mill", **QUICK)
        bob = self.phone_at(mill)
        nobody = f"+15550009999@{NUMBERS}"
        for place, kind in enumerate((Smtpd, Exim)):
            beside = kind(self, self.scene.directory, BESIDE, authority=self.scene.authority, name=f"beside{place}.example", domains=(FAR,),
                          lmtp={NUMBERS: (box.host, self.scene.lmtp_port)}).start()
            beside.submit(letter(f"carol@{FAR}", self.to(bob), f"by LMTP {place}").as_bytes(), f"carol@{FAR}", self.to(bob))
            self.assertInbox(bob, [f"carol@{FAR}: by LMTP {number}" for number in range(place + 1)], 15)
        # OpenSMTPD takes every LMTP error for a temporary one.
        beside.submit(letter(f"carol@{FAR}", nobody, "by LMTP").as_bytes(), f"carol@{FAR}", nobody)
        self.assertIn(nobody, beside.wait_mails(f"carol@{FAR}")[0].as_string())


if __name__ == "__main__":
    unittest.main()
