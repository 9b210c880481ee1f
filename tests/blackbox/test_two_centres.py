"""Two message centres and phones that move between them: every text arrives once, whoever accepted it."""

import random
import threading
import time
import unittest

from box import Box                                        # first: it puts the peers on the path
from talk import QUICK, audit, open_sims, two_boxes
from texting import Texting, stamps

DELIVERED_WITHIN_S = 75                                    # 30 s of silence, and what comes after it


class TwoCentres(Texting, unittest.TestCase):
    def open(self, count: int = 12):
        self.front, self.far = two_boxes(self, open_sims(count))
        self.box = self.front                              # for numbers; phones are the same at both
        self.hill, self.mill = self.front.station("hill", **QUICK), self.far.station("mill", **QUICK)
        self.front.used("obts.py")

    def phone_at(self, station):
        phone = self.front.phone("none")
        self.assertTrue(station.register(phone).ok)
        return phone

    def queues(self, timeout: float = 8) -> list:
        """What waits at either, once nothing does."""
        self.until(lambda: not self.front.command("queue").data and not self.far.command("queue").data, timeout)
        return self.front.command("queue").data + self.far.command("queue").data

    def assertNothingHeardTwice(self):
        self.assertEqual(audit(self.hill, self.front) + audit(self.hill, self.far) + audit(self.mill, self.far) + audit(self.mill, self.front), [])

    def test_texts_wait_at_both_and_their_phone_comes_to_either(self):
        self.open()
        ana, dave, bob = self.phone_at(self.hill), self.phone_at(self.mill), self.front.phone("none")
        for turn, station in enumerate((self.mill, self.hill, self.mill)):
            near, away = [f"near {turn}.{n}" for n in range(3)], [f"far {turn}.{n}" for n in range(3)]
            for one, other in zip(near, away):
                self.assertSent(self.hill, ana, self.number(bob), one)
                self.assertSent(self.mill, dave, self.number(bob), other)
            bob.on = True
            self.assertTrue(station.register(bob).ok)
            self.assertTrue(self.until(lambda: len(bob.texts()) >= 6 * (turn + 1), 10), bob.texts())
            time.sleep(1)
            came = bob.texts()[6 * turn:]
            self.assertEqual(([text for text in came if text in near], [text for text in came if text in away]), (near, away),
                             "each centre's in their order, all once")
            self.assertEqual(len(came), 6)
            self.assertEqual(station.detach(bob, timeout=5).code, 200)
        self.assertEqual(self.queues(), [])
        self.assertNothingHeardTwice()

    def test_a_phone_that_moves_all_the_time(self):
        """Twenty texts from either side while he goes to and fro: all arrive, and what comes twice can be told as the same."""
        self.open()
        ana, dave, bob = self.phone_at(self.hill), self.phone_at(self.mill), self.phone_at(self.hill)
        dice, said = random.Random(5), []
        going = threading.Event()

        def send(station, sender, side):
            for number in range(20):
                text = f"{side} {number}"
                self.assertSent(station, sender, self.number(bob), text)
                said.append(text)
                time.sleep(0.1)

        def move():
            here = 0
            while not going.is_set():
                here += 1
                (self.mill, self.hill)[here % 2].register(bob)
                time.sleep(dice.uniform(0.1, 0.6))

        mover = threading.Thread(target=move)
        senders = [threading.Thread(target=send, args=each) for each in ((self.hill, ana, "near"), (self.mill, dave, "far"))]
        for thread in (mover, *senders):
            thread.start()
        for thread in senders:
            thread.join()
        going.set()
        mover.join()
        self.assertEqual(len(said), 40)
        self.assertTrue(self.until(lambda: set(said) <= set(bob.texts()), DELIVERED_WITHIN_S), sorted(set(said) - set(bob.texts())))
        self.assertEqual(self.queues(40), [])
        self.assertEqual(set(bob.texts()), set(said))
        self.assertSameStamps(bob)

    def assertSameStamps(self, phone):
        """What came twice has the same TP-OA and SCTS both times, and no two texts have one."""
        by_text = {}
        for one, stamp in zip(phone.inbox, stamps(phone)):
            self.assertEqual(by_text.setdefault(one.text, stamp), stamp, one.text)
        self.assertEqual(len(set(by_text.values())), len(by_text))

    def test_either_is_killed_while_it_works(self):
        self.open(24)
        phones = [self.phone_at(station) for station in (self.hill, self.mill) for _ in range(6)]
        home = {phone.imsi: self.hill if place < 6 else self.mill for place, phone in enumerate(phones)}
        dice, accepted, lock = random.Random(7), [], threading.Lock()
        stop = threading.Event()

        def send(station, side):
            chance, number = random.Random(side), 0
            own = [phone for phone in phones if home[phone.imsi] is station]
            while not stop.is_set():
                sender, recipient, text = chance.choice(own), chance.choice(phones), f"{side} {number}"
                number += 1
                answer = station.sms(sender, self.number(recipient), text, timeout=3, resend=(0, 1))
                if answer is not None and answer.code == 202:
                    with lock:
                        accepted.append((text, recipient))
                time.sleep(0.02)

        threads = [threading.Thread(target=send, args=each) for each in ((self.hill, "near"), (self.mill, "far"))]
        for thread in threads:
            thread.start()
        for turn in range(4):
            time.sleep(dice.uniform(0.3, 1.0))
            box: Box = (self.front, self.far)[turn % 2]
            box.kill()
            box.start()
        time.sleep(0.5)
        stop.set()
        for thread in threads:
            thread.join()
        self.assertGreater(len(accepted), 50)

        def missing():
            return [text for text, phone in accepted if text not in phone.texts()]

        self.assertTrue(self.until(lambda: not missing(), DELIVERED_WITHIN_S), missing()[:5])
        self.assertEqual(self.queues(40), [])
        for phone in phones:
            self.assertSameStamps(phone)


if __name__ == "__main__":
    unittest.main()
