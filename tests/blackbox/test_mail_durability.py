"""Every 250 and every 202 arrives, in both directions: kill -9, power cuts, a line that is cut, a disk without room, a flood."""

import email.policy
import os
import random
import secrets
import smtplib
import threading
import time
import unittest

from mailing import CODE, FAR, HOME, RELAY_WITHIN_S, Mailing, MailTest, Scene, letter, words_of   # first: it puts the peers on the path
from box import BOX, SECOND_BOX, Box, Shard, free_port
from mta import CLIENT, Line
from talk import QUICK, open_sims
from texting import DELIVERED, SERVICE_CENTRE, three_segments

KILLS = 8
SYNC_DELAY_MS = 600
DELIVERED_WITHIN_S = 75                                    # 30 s of silence, and what comes after it


class Writer(threading.Thread):
    """Writes mail to phones as a server does: what gets no 250 is sent again, the same octets."""

    def __init__(self, scene: Scene, name: str, recipients: list[str], stop: threading.Event, source: str = CLIENT, pause_s: float = 0.01):
        super().__init__(daemon=True)
        self.scene, self.who, self.recipients, self.stop, self.source, self.pause_s = scene, f"{name}@{FAR}", recipients, stop, source, pause_s
        self.accepted: list[tuple[str, str]] = []          # words, recipient: answered 250
        self.refused: list[str] = []
        self.chance = random.Random(name)

    def run(self):
        number = 0
        while not self.stop.is_set():
            number += 1
            recipient, words = self.chance.choice(self.recipients), f"{self.who} {number}"
            octets = letter(self.who, recipient, words).as_bytes(policy=email.policy.SMTP)
            while not self.stop.is_set() and not self._sent(octets, recipient, words):
                time.sleep(0.05)
            time.sleep(self.pause_s)

    def _sent(self, octets: bytes, recipient: str, words: str) -> bool:
        try:
            with smtplib.SMTP(self.scene.host, self.scene.port, timeout=5, local_hostname="client.example", source_address=(self.source, 0)) as client:
                client.sendmail(self.who, [recipient], octets)
        except smtplib.SMTPResponseException as error:
            self.refused.append(f"{error.smtp_code} {error.smtp_error!r}")
            return False
        except (OSError, smtplib.SMTPException):
            return False
        self.accepted.append((words, recipient))
        return True


class OneMail(MailTest):
    def test_the_250_waits_for_the_disk(self):
        box = self.open(disk=True)
        bob = box.phone("none")
        box.disk.slow(SYNC_DELAY_MS)
        started = time.monotonic()
        self.assertEqual(self.hand_in(letter(f"carol@{FAR}", self.to(bob)), f"carol@{FAR}", self.to(bob))[0], 250)
        self.assertGreaterEqual(time.monotonic() - started, SYNC_DELAY_MS / 1000, "a 250 before its text was on the disk")

    def test_no_250_from_a_disk_that_fails(self):
        box = self.open(disk=True)
        bob = box.phone("none")
        box.disk.break_syncs("/messages")
        try:
            code, said = self.hand_in(letter(f"carol@{FAR}", self.to(bob)), f"carol@{FAR}", self.to(bob))
            self.assertTrue(400 <= code < 500, said)
        except (OSError, smtplib.SMTPException):
            pass
        self.assertIsNotNone(box.ended(5), "it went on without its store of messages")

    def test_what_was_answered_250_is_there_after_a_power_cut_and_its_copy_is_no_second_text(self):
        box = self.open(disk=True)
        mill, bob = box.station("mill", **QUICK), box.phone("none")
        mail = letter(f"carol@{FAR}", self.to(bob), "once")
        self.assertEqual(self.hand_in(mail, f"carol@{FAR}", self.to(bob))[0], 250)
        box.power_cut()
        box.start()
        self.assertEqual(self.hand_in(mail, f"carol@{FAR}", self.to(bob))[0], 250)
        self.assertEqual(len(self.queue()), 1)
        self.assertTrue(mill.register(bob).ok)
        self.assertInbox(bob, [f"carol@{FAR}: once"])
        box.kill()
        box.start()
        self.assertEqual(self.hand_in(mail, f"carol@{FAR}", self.to(bob))[0], 250)
        time.sleep(1.5)
        self.assertEqual(bob.texts(), [f"carol@{FAR}: once"])

    def test_a_disk_that_lies_would_be_noticed(self):
        box = self.open(disk=True)
        box.disk.lie("/messages/")
        bob = box.phone("none")
        self.assertEqual(self.hand_in(letter(f"carol@{FAR}", self.to(bob)), f"carol@{FAR}", self.to(bob))[0], 250)
        box.power_cut()
        box.start()
        self.assertEqual(self.queue(), [], "nothing was ever synced, and nothing was lost: the test is blind")

    def test_a_mail_whose_answer_was_never_heard_leaves_again_with_the_same_name(self):
        """kill -9 between the relay's 250 and our noting it."""
        box = self.open(lines=True)
        hill = box.station("hill", **QUICK)
        ana = self.phone_at(hill)
        self.scene.line.lose_answers(1)
        self.assertMailed(hill, ana, f"bob@{HOME} once")
        self.assertTrue(self.until(lambda: self.scene.line.lost == 1, 10))
        box.kill()
        box.start()
        self.assertTrue(self.until(lambda: len(self.scene.relay.mails(f"bob@{HOME}")) == 2, RELAY_WITHIN_S), self.queue())
        self.assertEqual(len({mail["message-id"] for mail in self.scene.relay.mails(f"bob@{HOME}")}), 1)

    def test_no_room_on_the_disk_is_452_and_loses_nothing(self):
        box = self.open()
        mill, bob = box.station("mill", **QUICK), box.phone("none")
        self.assertEqual(self.hand_in(letter(f"carol@{FAR}", self.to(bob), "before"), f"carol@{FAR}", self.to(bob))[0], 250)
        full = 'disk_reserve = "1000000 GB"'
        for box.top_more, code in ((full, 452), ("", 250)):
            box.write()
            self.assertEqual(box.command("apply").code, 0)
            mail = letter(f"carol@{FAR}", self.to(bob), "after")

            def answer():
                return self.hand_in(mail, f"carol@{FAR}", self.to(bob))[0]

            # It looks at the disk now and then.
            self.assertTrue(self.until(lambda: answer() == code, 10), f"{answer()} in place of {code}")
        self.assertTrue(mill.register(bob).ok)
        self.assertTrue(self.until(lambda: f"carol@{FAR}: after" in bob.texts()), bob.texts())
        self.assertEqual(bob.texts()[0], f"carol@{FAR}: before")


class Load(MailTest):
    def test_kill_9_at_random_moments_under_load_in_both_directions(self):
        """What was answered 250 is on its phone, what was answered 202 in its Maildir; every other time the power goes as well."""
        seed = int(os.environ.get("SEED", secrets.randbelow(1 << 32)))
        dice = random.Random(seed)
        box = self.open(24, disk=True)
        hill, mill = (box.station(name, **(QUICK | {"transfer_s": 0.02, "paging_s": 1})) for name in ("hill", "mill"))
        writers_of, readers = [self.phone_at(hill) for _ in range(6)], [self.phone_at(mill) for _ in range(6)]
        stop, sent, lock = threading.Event(), [], threading.Lock()

        def text(phone, place):
            number = 0
            while not stop.is_set():
                number += 1
                who, words = f"reader{(place + number) % 4}@{HOME}", f"text {place}.{number} of {seed}"
                answer = hill.sms(phone, CODE, f"{who} {words}", timeout=3, resend=(0, 1))
                if answer is not None and answer.code == 202:
                    with lock:
                        sent.append((words, who))
                time.sleep(0.05)

        writers = [Writer(self.scene, f"writer{number}", [self.to(phone) for phone in readers], stop) for number in range(4)]
        threads = writers + [threading.Thread(target=text, args=(phone, place), daemon=True) for place, phone in enumerate(writers_of)]
        for thread in threads:
            thread.start()
        for turn in range(KILLS):
            time.sleep(dice.uniform(0.2, 1.2))
            if turn % 2:
                box.power_cut()
            else:
                box.kill()
            box.start()
        time.sleep(0.5)
        stop.set()
        for thread in threads:
            thread.join()
        accepted = [each for writer in writers for each in writer.accepted]
        self.assertGreater(min(len(accepted), len(sent)), 40, f"seed {seed}: too few were taken to prove anything")

        def missing_texts():
            have = {(text, self.to(phone)) for phone in readers for text in phone.texts()}
            return [words for words, to in accepted if (f"{words.partition(' ')[0]}: {words}", to) not in have]

        def missing_mails():
            have = {(words_of(mail), who) for who in {who for _, who in sent} for mail in self.scene.relay.mails(who)}
            return [each for each in sent if each not in have]

        self.assertTrue(self.until(lambda: not missing_texts(), DELIVERED_WITHIN_S), f"seed {seed}: {len(missing_texts())} of {len(accepted)} mails: {missing_texts()[:5]}")
        end = time.monotonic() + RELAY_WITHIN_S
        while missing_mails() and time.monotonic() < end:
            time.sleep(0.5)
        self.assertEqual(missing_mails()[:5], [], f"seed {seed}: {len(missing_mails())} of {len(sent)} texts never became mail; {self.queue()[:3]}")
        # The same mail twice has the same name, and two mails never.
        for who in {who for _, who in sent}:
            names = {}
            for mail in self.scene.relay.mails(who):
                self.assertEqual(names.setdefault(mail["message-id"], words_of(mail)), words_of(mail), f"seed {seed}")
            self.assertEqual(len(set(names.values())), len(names), f"seed {seed}: one text under two names")
        # A mail that was answered 250 once is one text: what the phone has twice has one TP-OA and SCTS.
        for phone in readers:
            stamps = {}
            for one in phone.inbox:
                self.assertEqual(stamps.setdefault(one.text, (one.sender, one.stamp)), (one.sender, one.stamp), f"seed {seed}: {one.text}")
        self.assertTrue(self.until(lambda: not self.queue(), 20), self.queue()[:3])

    def test_the_relay_is_killed_over_and_over(self):
        box = self.open(24)
        hill = box.station("hill", **(QUICK | {"transfer_s": 0.02}))
        phones = [self.phone_at(hill) for _ in range(6)]
        sent, stop = [], threading.Event()

        def text(phone, place):
            number = 0
            while not stop.is_set():
                number += 1
                words = f"text {place}.{number}"
                if (answer := hill.sms(phone, CODE, f"reader{place}@{HOME} {words}", timeout=3)) is not None and answer.code == 202:
                    sent.append((words, f"reader{place}@{HOME}"))
                time.sleep(0.05)

        threads = [threading.Thread(target=text, args=(phone, place), daemon=True) for place, phone in enumerate(phones)]
        for thread in threads:
            thread.start()
        dice = random.Random(3)
        for _ in range(4):
            time.sleep(dice.uniform(0.2, 0.8))
            self.scene.relay.kill()
            time.sleep(dice.uniform(0.1, 0.5))
            self.scene.relay.start()
        stop.set()
        for thread in threads:
            thread.join()
        self.assertGreater(len(sent), 40)
        for place in range(len(phones)):
            want = [words for words, who in sent if who == f"reader{place}@{HOME}"]
            who = f"reader{place}@{HOME}"
            # What was sent and not answered waits for minutes.
            self.until(lambda: self.push() or not self.mail_waiting(who), DELIVERED_WITHIN_S)
            mails = self.scene.relay.wait_mails(who, len(want))
            self.assertEqual(sorted(words_of(mail) for mail in mails), sorted(want))


class Flood(MailTest):
    def test_a_mail_bomb_on_one_phone_leaves_the_others_alone(self):
        """Hundreds of mails for one phone that is slow: the mail for another one arrives as if nothing were."""
        box = self.open()
        hill, mill = box.station("hill", **(QUICK | {"transfer_s": 1.0})), box.station("mill", **QUICK)
        victim, bob = self.phone_at(hill), self.phone_at(mill)
        stop = threading.Event()
        bombers = [Writer(self.scene, f"bomber{number}", [self.to(victim)], stop, source=f"127.0.0.{110 + number}", pause_s=0) for number in range(4)]
        for bomber in bombers:
            bomber.start()
        self.assertTrue(self.until(lambda: sum(len(bomber.accepted) for bomber in bombers) > 300, 60), [bomber.refused[:2] for bomber in bombers])
        for number in range(5):
            self.assertEqual(self.hand_in(letter(f"carol@{FAR}", self.to(bob), f"number {number}"), f"carol@{FAR}", self.to(bob))[0], 250)
            self.assertTrue(self.until(lambda: len(bob.texts()) == number + 1, 5), "he waits behind the flood")
        stop.set()
        for bomber in bombers:
            bomber.join()
        self.assertGreater(len(self.waiting(victim)), 200)
        self.assertEqual(bob.texts(), [f"carol@{FAR}: number {number}" for number in range(5)])

    def test_a_full_queue_is_answered_with_come_again(self):
        box = self.open(messages="count_per_phone_max = 5\n")
        bob = box.phone("none")
        answers = [self.hand_in(letter(f"carol@{FAR}", self.to(bob), f"number {number}"), f"carol@{FAR}", self.to(bob))[0] for number in range(7)]
        self.assertEqual(answers, [250] * 5 + [452] * 2)
        mill = box.station("mill", **QUICK)
        self.assertTrue(mill.register(bob).ok)
        self.assertInbox(bob, [f"carol@{FAR}: number {number}" for number in range(5)])


class TwoBoxes(Mailing, unittest.TestCase):
    """Two boxes with phones of their own, each with the other's numbers behind a route, and a line between them."""

    def open(self):
        shards = [Shard("all", ["00-99"], ["a"], 1)]
        ports = {BOX: free_port(BOX), SECOND_BOX: free_port(SECOND_BOX)}
        self.there = Line(self, SECOND_BOX, (SECOND_BOX, ports[SECOND_BOX]), source=BOX)
        self.back = Line(self, BOX, (BOX, ports[BOX]), source=SECOND_BOX)
        self.ports, self.boxes = ports, []
        for host, own, other, prefix, line, peer in ((BOX, "hill.example", "dale.example", "+1400", self.there, SECOND_BOX),
                                                     (SECOND_BOX, "dale.example", "hill.example", "+1300", self.back, BOX)):
            more = (f'[mail]\ndomain = "{own}"\nlisten = ["tcp:{host}:{ports[host]}"]\nrelay = "smtp://{line.at[0]}:{line.at[1]}"\nrelay_tls = "never"\n'
                    f'boxes = ["{peer}"]\ntrusted = ["{CLIENT}"]\n[[mail_route]]\nprefixes = ["{prefix}"]\nto = "{{number}}@{other}"\nbox = true\n'
                    f'[messages]\nservice_centre = "{SERVICE_CENTRE}"\n[registrar]\nclock_trusted = true\n')
            box = Box(self, host=host, shards=shards, sims=open_sims(12, "3" if host == BOX else "4"), trunks=False, more=more)
            self.addCleanup(box.close)
            self.boxes.append(box.start())
        self.near, self.far = self.boxes
        self.box = self.near
        self.hill, self.mill = self.near.station("hill", **QUICK), self.far.station("mill", **QUICK)
        self.ana, self.bob = self.near.phone("none"), self.far.phone("none")
        self.assertTrue(self.hill.register(self.ana).ok and self.mill.register(self.bob).ok)
        self.anas, self.bobs = self.near.numbers_of(self.ana)[0], self.far.numbers_of(self.bob)[0]

    def test_a_text_is_at_the_other_box_what_it_was_here(self):
        """Its number, its alphabet, its length and its report: and the answer goes back the same way."""
        self.open()
        for place, text in enumerate(("hello", "Жук 🙂", three_segments())):
            self.assertSent(self.hill, self.ana, self.bobs, text, report=True)
            self.assertTrue(self.until(lambda: len(self.bob.texts()) == place + 1, 20), self.bob.texts())
            self.assertEqual(self.bob.texts()[-1], text)
        self.assertEqual({one.sender for one in self.bob.inbox}, {self.anas})
        self.assertSent(self.mill, self.bob, self.sender_of(self.bob), "and back")
        self.assertInbox(self.ana, ["and back"], 20)
        self.assertEqual(self.sender_of(self.ana), self.bobs)
        # One SUBMIT for each of the five parts, and the phone over there has each.
        self.assertTrue(self.until(lambda: [one.status_report for one in self.ana.status_reports].count(DELIVERED) >= 3, 30),
                        [hex(one.status_report) for one in self.ana.status_reports])

    def test_a_class_and_a_protocol_are_kept(self):
        self.open()
        self.assertSent(self.hill, self.ana, self.bobs, "flash", coding=0x10)
        self.assertSent(self.hill, self.ana, self.bobs, "typed", pid=0x41)
        self.assertInbox(self.bob, ["flash", "typed"], 20)
        self.assertEqual(self.bob.inbox[0].message_class, 0)
        self.assertEqual(self.bob.inbox[1].pid, 0x41)

    def test_who_has_no_number_there_is_told_to_the_sender(self):
        self.open()
        self.assertSent(self.hill, self.ana, "+14009999999", "hello")
        self.assertWords(self.ana, "+14009999999", timeout=20)

    def test_mail_for_a_number_at_the_other_box(self):
        """Whom this box trusts reaches it from here, and hears what became of it; others are refused."""
        self.open()
        to = f"{self.bobs}@hill.example"
        for source, code in ((CLIENT, 250), ("127.0.0.103", 550)):
            with smtplib.SMTP(BOX, self.ports[BOX], timeout=10, local_hostname="client.example", source_address=(source, 0)) as client:
                client.ehlo()
                client.mail(f"carol@{FAR}")
                self.assertEqual(client.rcpt(to)[0], code)
                if code == 250:
                    self.assertEqual(client.data(letter(f"carol@{FAR}", to, "from afar").as_bytes(policy=email.policy.SMTP))[0], 250)
        self.assertInbox(self.bob, [f"carol@{FAR}: from afar"], 20)

    def test_a_line_that_is_cut_for_a_while(self):
        """Texts on both sides wait, both boxes are killed meanwhile, and all arrive in their order when it is mended."""
        self.open()
        self.there.cut()
        self.back.cut()
        said = [f"number {number}" for number in range(10)]
        for text in said:
            self.assertSent(self.hill, self.ana, self.bobs, text)
            self.assertSent(self.mill, self.bob, self.anas, text)
        for box in self.boxes:
            box.kill()
            box.start()
            self.assertEqual(len(box.command("queue").data), 10)
        self.there.mend()
        self.back.mend()
        self.push(*self.boxes)
        self.assertInbox(self.bob, said, RELAY_WITHIN_S)
        self.assertInbox(self.ana, said, RELAY_WITHIN_S)
        self.assertTrue(self.until(lambda: not self.near.command("queue").data and not self.far.command("queue").data, 20))

    def test_a_line_that_loses_answers(self):
        """What was handed over twice under one Message-ID is one text."""
        self.open()
        self.there.lose_answers(3)
        said = [f"number {number}" for number in range(4)]
        for text in said:
            self.assertSent(self.hill, self.ana, self.bobs, text)
        end = time.monotonic() + RELAY_WITHIN_S
        while self.near.command("queue").data and time.monotonic() < end:
            self.push()
            time.sleep(0.3)
        self.assertEqual(self.there.lost, 3)
        self.assertInbox(self.bob, said)
        time.sleep(1)
        self.assertEqual(self.bob.texts(), said)

    def test_either_is_killed_while_texts_pass(self):
        """Each hop is durable: what was answered 202 on one side is on the phone on the other, once under one Message-ID."""
        self.open()
        dice, stop, accepted, lock = random.Random(11), threading.Event(), [], threading.Lock()

        def send(station, sender, to, recipient, side):
            number = 0
            while not stop.is_set():
                number += 1
                answer = station.sms(sender, to, f"{side} {number}", timeout=3, resend=(0, 1))
                if answer is not None and answer.code == 202:
                    with lock:
                        accepted.append((f"{side} {number}", recipient))
                time.sleep(0.05)

        threads = [threading.Thread(target=send, args=each, daemon=True) for each in ((self.hill, self.ana, self.bobs, self.bob, "there"),
                                                                                      (self.mill, self.bob, self.anas, self.ana, "back"))]
        for thread in threads:
            thread.start()
        for turn in range(6):
            time.sleep(dice.uniform(0.3, 1.0))
            box = self.boxes[turn % 2]
            box.kill()
            box.start()
        time.sleep(0.5)
        stop.set()
        for thread in threads:
            thread.join()
        self.assertGreater(len(accepted), 20)

        def missing():
            return [text for text, phone in accepted if text not in phone.texts()]

        self.assertTrue(self.until(lambda: self.push(*self.boxes) or not missing(), DELIVERED_WITHIN_S), missing()[:5])
        for phone in (self.ana, self.bob):
            stamps = {}
            for one in phone.inbox:
                self.assertEqual(stamps.setdefault(one.text, (one.sender, one.stamp)), (one.sender, one.stamp), f"{one.text}: came twice, and differs")

    def test_two_boxes_that_each_think_the_other_has_the_number(self):
        """The hop limit ends it, and the sender is told."""
        self.open()
        for box, prefix in ((self.near, "+1999"), (self.far, "+1999")):
            box.more = box.more.replace('prefixes = ["', f'prefixes = ["{prefix}", "', 1)
            box.write()
            self.assertEqual(box.command("apply").code, 0)
        self.assertSent(self.hill, self.ana, "+19995550001", "to and fro")
        self.assertWords(self.ana, "+19995550001", timeout=30)
        self.assertTrue(self.until(lambda: not self.near.command("queue").data and not self.far.command("queue").data, 20))


if __name__ == "__main__":
    unittest.main()
