"""A phone and somebody with mail answer each other, and neither types an address."""

import email.utils
import unittest

from mailing import CODE, FAR, HOME, MailScenes, MailTest, identities, letter, words_of   # first: it puts the peers on the path
from talk import QUICK, SideBySide, open_sims


class Threads(MailScenes, SideBySide):
    sims = open_sims(140)

    def answered(self, phone, count: int) -> str:
        """The number that the phone answers to, once it has so many texts."""
        self.assertTrue(self.until(lambda: len(phone.texts()) >= count, 20), phone.texts())
        return self.sender_of(phone)

    def test_five_turns_begun_by_mail(self):
        bob, carol = self.phones(1, self.mill)[0], f"carol@{FAR}"
        mail = letter(f"Carol <{carol}>", self.to(bob), "turn 0", "Supper")
        first = mail["message-id"]
        for turn in range(5):
            self.write(mail, carol, self.to(bob))
            code = self.answered(bob, turn + 1)
            self.assertEqual(bob.texts()[-1], f"{carol}: (Supper) turn 0" if turn == 0 else f"{carol}: turn {turn}")
            self.assertSent(self.mill, bob, code, f"answer {turn}")
            answer = self.wait_mail(carol, turn + 1, 30)[-1]
            self.assertEqual((words_of(answer), answer["subject"]), (f"answer {turn}", "Re: Supper"))
            self.assertEqual(email.utils.parseaddr(answer["from"])[1], self.to(bob))
            self.assertEqual(answer["in-reply-to"], mail["message-id"], "what it answers")
            self.assertEqual((identities(answer)[0], identities(answer)[-1]), (first, mail["message-id"]), "the whole thread")
            mail = letter(f"Carol <{carol}>", self.to(bob), f"turn {turn + 1}", answers=answer)
        self.assertEqual(len({one.sender for one in bob.inbox}), 1, "she has one number for him all the time")

    def test_five_turns_begun_by_a_text(self):
        ana, dora = self.phones(1, self.hill)[0], f"dora@{HOME}"
        self.assertMailed(self.hill, ana, f"{dora}(Lunch)turn 0")
        for turn in range(5):
            mail = self.wait_mail(dora, turn + 1, 30)[-1]
            self.assertEqual(words_of(mail), f"turn {turn}")
            answer = letter(dora, self.to(ana), f"answer {turn}\n\n> turn {turn}\n", answers=mail)
            self.scene.relay.submit(answer.as_bytes(), dora, self.to(ana))
            code = self.answered(ana, turn + 1)
            self.assertEqual(ana.texts()[-1], f"{dora}: answer {turn}")
            self.assertSent(self.hill, ana, code, f"turn {turn + 1}")
            self.assertEqual(self.wait_mail(dora, turn + 2, 30)[-1]["in-reply-to"], answer["message-id"])

    def test_two_who_write_to_one_phone_have_a_number_each(self):
        bob = self.phones(1, self.mill)[0]
        people = [f"one@{FAR}", f"two@{FAR}", f"three@{FAR}"]
        for place, who in enumerate(people):
            self.write(letter(who, self.to(bob), "hello"), who, self.to(bob))
            self.answered(bob, place + 1)
        codes = [one.sender for one in bob.inbox]
        self.assertEqual(len(set(codes)), 3, codes)
        for code, words in zip(codes, ("to one", "to two", "to three")):
            self.assertSent(self.mill, bob, code, words)
        self.assertEqual([words_of(self.wait_mail(who, timeout=30)[0]) for who in people], ["to one", "to two", "to three"])

    def test_one_number_means_another_person_at_another_phone(self):
        bob, dan = self.phones(2, self.mill, self.hill)
        for phone, who in ((bob, f"ida@{FAR}"), (dan, f"jon@{FAR}")):
            self.write(letter(who, self.to(phone), "hello"), who, self.to(phone))
            self.answered(phone, 1)
        for phone, station, who in ((bob, self.mill, f"ida@{FAR}"), (dan, self.hill, f"jon@{FAR}")):
            self.assertSent(station, phone, self.sender_of(phone), f"for {who}")
            self.assertEqual(words_of(self.wait_mail(who, timeout=30)[0]), f"for {who}")

    def test_an_answer_to_a_number_of_nobody(self):
        """Nobody writes to this phone from there: it is told, and nothing leaves."""
        bob = self.phones(1, self.mill)[0]
        self.mill.sms(bob, "+15559019", "hello", timeout=6)
        self.assertWords(bob, "+15559019")

    def test_reply_to_is_whom_an_answer_goes_to(self):
        bob = self.phones(1, self.mill)[0]
        self.write(letter(f"robot@{FAR}", self.to(bob), "hello", Reply_To=f"desk@{HOME}"), f"robot@{FAR}", self.to(bob))
        self.assertSent(self.mill, bob, self.answered(bob, 1), "to the desk")
        self.assertEqual(words_of(self.wait_mail(f"desk@{HOME}", timeout=30)[0]), "to the desk")


class Longer(MailTest):
    def test_a_thread_is_remembered_over_kill_9(self):
        box = self.open()
        mill = box.station("mill", **QUICK)
        bob, carol = self.phone_at(mill), f"carol@{FAR}"
        mail = letter(carol, self.to(bob), "hello", "Supper")
        self.write(mail, carol, self.to(bob))
        self.assertInbox(bob, [f"{carol}: (Supper) hello"], 15)
        box.kill()
        box.start()
        self.assertSent(mill, bob, self.sender_of(bob), "still here")
        answer = self.wait_mail(carol, timeout=30)[0]
        self.assertEqual((words_of(answer), answer["in-reply-to"]), ("still here", mail["message-id"]))

    def test_without_a_pool_the_short_code_answers_who_wrote_last(self):
        box = self.open(pool=False)
        mill = box.station("mill", **QUICK)
        bob = self.phone_at(mill)
        for place, who in enumerate((f"carol@{FAR}", f"dora@{FAR}")):
            self.write(letter(who, self.to(bob), "hello"), who, self.to(bob))
            self.assertTrue(self.until(lambda: len(bob.texts()) > place, 15))
            self.assertEqual(self.sender_of(bob), CODE)
            self.assertSent(mill, bob, CODE, f"for {who}")
            self.assertEqual(words_of(self.wait_mail(who, timeout=30)[0]), f"for {who}")
        self.assertSent(mill, bob, CODE, f"carol@{FAR} to her, by address")
        self.assertEqual(words_of(self.wait_mail(f"carol@{FAR}", 2, 30)[1]), "to her, by address")

    def test_the_pool_is_smaller_than_the_number_of_people(self):
        """Nobody gives up a number on the day on which he wrote: a newcomer comes as from the short code."""
        box = self.open()
        mill = box.station("mill", **QUICK)
        bob = self.phone_at(mill)
        people = [f"person{number}@{FAR}" for number in range(21)]
        for place, who in enumerate(people):
            code, said = self.hand_in(letter(who, self.to(bob), f"hello {place}"), who, self.to(bob))
            self.assertEqual(code, 250, said)
            self.assertTrue(self.until(lambda: len(bob.texts()) > place, 20), bob.texts())
        codes = [one.sender for one in bob.inbox]
        self.assertEqual(len(set(codes[:20])), 20)
        self.assertEqual(codes[20], "600")
        self.assertSent(mill, bob, codes[20], "for the last")
        self.assertEqual(words_of(self.wait_mail(people[20], timeout=30)[0]), "for the last")
        self.assertNoMail(people[0])


if __name__ == "__main__":
    unittest.main()
