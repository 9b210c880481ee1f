"""Every 202 is delivered: kill -9 and power cuts in the middle of texts."""

import os
import random
import secrets
import threading
import time
import unittest

from box import Box                                        # first: it puts the peers on the path
import sms
from talk import QUICK, messages, open_sims

TEXTS, KILLS = 1000, 10
CELLS = ("hill", "dale", "mill", "moor")
SYNC_DELAY_MS = 600
DELIVERED_WITHIN_S = 75                                    # 30 s of silence, and what comes after it


class OneText(unittest.TestCase):
    def open(self, **options):
        self.box = box = Box(self, **({"sims": open_sims(12), "trunks": False} | options))
        self.addCleanup(box.close)
        box.start()
        self.hill, self.mill = (box.station(name, **QUICK) for name in ("hill", "mill"))
        self.ana, self.bob = box.phone("none"), box.phone("none")
        self.assertTrue(self.hill.register(self.ana).ok)
        return box

    def request(self, text: str, reference: int, repeat: bool = False):
        tpdu = sms.submit(self.box.numbers_of(self.bob)[0], text, reference=reference, reject_duplicates=repeat)
        return self.hill._message(self.ana, "smsc", "application/vnd.3gpp.sms", sms.rp_data_mo(tpdu, reference=reference).hex().encode())

    def send(self, request) -> int:
        answer = self.hill.transact(request, self.hill.sms_proxy, 6)
        self.assertIsNotNone(answer)
        return answer.code

    def test_the_202_waits_for_the_disk(self):
        box = self.open(disk=True)
        box.disk.slow(SYNC_DELAY_MS)
        started = time.monotonic()
        self.assertEqual(self.send(self.request("slowly", 1)), 202)
        self.assertGreaterEqual(time.monotonic() - started, SYNC_DELAY_MS / 1000, "a 202 before its text was on the disk")

    def test_no_202_from_a_disk_that_fails(self):
        box = self.open(disk=True)
        box.disk.break_syncs("/messages")
        answer = self.hill.transact(self.request("never", 1), self.hill.sms_proxy, 3)
        self.assertTrue(answer is None or answer.code >= 400, answer)
        self.assertIsNotNone(box.ended(5), "it went on without its store of messages")

    def test_what_waits_is_there_after_a_power_cut_and_so_is_what_makes_a_copy_a_copy(self):
        box = self.open(disk=True)
        first, second = self.request("first", 1), self.request("second", 2)
        self.assertEqual((self.send(first), self.send(second)), (202, 202))
        box.power_cut()
        box.start()
        # The same request sent again (its 202 was lost), and the phone's own repeat of the other one.
        self.assertEqual(self.send(first), 202)
        self.assertEqual(self.send(self.request("second", 2, repeat=True)), 202)
        self.assertEqual(len(box.command("queue").data), 2)
        self.assertTrue(self.mill.register(self.bob).ok)
        self.assertTrue(self.mill.wait(lambda: len(self.bob.texts()) >= 2, 8), self.bob.texts())
        time.sleep(2)
        self.assertEqual(self.bob.texts(), ["first", "second"])
        self.assertEqual({one.sender for one in self.bob.inbox}, {box.numbers_of(self.ana)[0]})
        # And when it is delivered: a copy after one more restart is no new text.
        box.kill()
        box.start()
        self.assertEqual(self.send(first), 202)
        time.sleep(2)
        self.assertEqual(self.bob.texts(), ["first", "second"])
        self.assertEqual(box.command("queue").data, [])

    def test_a_disk_that_lies_would_be_noticed(self):
        box = self.open(disk=True)
        box.disk.lie("/messages/")
        self.assertEqual(self.send(self.request("lost", 1)), 202)
        box.power_cut()
        box.start()
        self.assertEqual(box.command("queue").data, [], "nothing was ever synced, and nothing was lost: the test is blind")

    def test_a_text_whose_200_was_never_heard_comes_again_with_its_mark(self):
        box = self.open()
        self.assertTrue(self.mill.register(self.bob).ok)
        self.mill.transfer_s = 2
        self.assertEqual(self.send(self.request("twice", 1)), 202)
        self.assertTrue(self.mill.wait(lambda: self.mill.messages_seen == 1, 5))
        box.kill()
        self.assertTrue(self.mill.wait(lambda: self.bob.texts() == ["twice"], 5))
        box.start()
        self.assertTrue(self.mill.wait(lambda: len(self.bob.inbox) == 2, DELIVERED_WITHIN_S), "it cannot know that the phone has it")
        one, other = self.bob.inbox
        self.assertEqual((one.sender, one.stamp, one.text), (other.sender, other.stamp, other.text), "so that the phone can fold the two together")


class Thousand(unittest.TestCase):
    def test_a_thousand_texts_and_kill_9_at_random_moments(self):
        """Each that was answered 202 arrives; none arrives twice without the same TP-OA and SCTS. Every other time the power goes as well."""
        seed = int(os.environ.get("SEED", secrets.randbelow(1 << 32)))
        dice = random.Random(seed)
        with Box(self, disk=True, sims=open_sims(100), trunks=False, sites={"moor": "moor"}) as box:
            stations = [box.station(name, **(QUICK | {"transfer_s": 0.02, "paging_s": 1})) for name in CELLS]
            phones = [sim.phone() for sim in box.sims]
            home = {}
            for place, phone in enumerate(phones):
                home[phone.imsi] = stations[place % len(stations)]
                self.assertTrue(home[phone.imsi].register(phone).ok)
            accepted: list[tuple[str, str, str]] = []      # text, number of its sender, IMSI of its recipient
            maybe: set[str] = set()                        # no answer came: it may arrive, once
            lock = threading.Lock()

            def send(station, numbers):
                chance = random.Random(seed + numbers.start)
                own = [phone for phone in phones if home[phone.imsi] is station]
                for number in numbers:
                    sender, recipient = chance.choice(own), chance.choice(phones)
                    text = f"text {number} of {seed}"
                    answer = station.sms(sender, box.numbers_of(recipient)[0], text, timeout=3, resend=(0, 1))
                    with lock:
                        if answer is not None and answer.code == 202:
                            accepted.append((text, box.numbers_of(sender)[0], recipient.imsi))
                        elif answer is None:
                            maybe.add(text)
                    time.sleep(0.01)

            each = TEXTS // len(stations)
            threads = [threading.Thread(target=send, args=(station, range(place * each, (place + 1) * each))) for place, station in enumerate(stations)]
            for thread in threads:
                thread.start()
            for turn in range(KILLS):
                time.sleep(dice.uniform(0.1, 1.2))
                if turn % 2:
                    box.power_cut()
                else:
                    box.kill()
                box.start()
            for thread in threads:
                thread.join()
            self.assertGreater(len(accepted), TEXTS * 0.8, f"seed {seed}: too few were taken to prove anything")

            inbox = {phone.imsi: phone.inbox for phone in phones}

            def missing():
                have = {(one.text, imsi) for imsi, texts in inbox.items() for one in list(texts)}
                return [(text, imsi) for text, _, imsi in accepted if (text, imsi) not in have]

            stations[0].wait(lambda: not missing(), DELIVERED_WITHIN_S)
            self.assertEqual(missing()[:5], [], f"seed {seed}: {len(missing())} of {len(accepted)} that were answered 202 never arrived; "
                                                f"the queue: {box.command('queue').out[:1500]}")
            time.sleep(2)
            wrong, copies, sender_of = [], 0, {text: sender for text, sender, _ in accepted}
            recipient_of = {text: imsi for text, _, imsi in accepted}
            for imsi, texts in inbox.items():
                first = {}
                for one in texts:
                    if one.text in sender_of and (sender_of[one.text], recipient_of[one.text]) != (one.sender, imsi):
                        wrong.append(f"{one.text}: from {one.sender} at {imsi}")
                    if one.text not in sender_of and one.text not in maybe:
                        wrong.append(f"{one.text}: nobody sent it, or he was told no")
                    before = first.setdefault(one.text, one)
                    if before is not one:
                        copies += 1
                        if (before.sender, before.stamp) != (one.sender, one.stamp):
                            wrong.append(f"{one.text} came twice, at {before.stamp} and at {one.stamp}")
                stamps = [(one.sender, one.stamp) for one in first.values()]
                if len(set(stamps)) != len(stamps):
                    wrong.append(f"{imsi}: two texts with one TP-OA and SCTS: a phone would throw one away")
            self.assertEqual(wrong[:5], [], f"seed {seed}: {len(wrong)} in all")
            # At most what was in hand at a kill comes twice: one for each phone.
            self.assertLess(copies, KILLS * len(phones))
            self.assertEqual(box.command("queue").data, [])
            answered = [message for station in stations for _, way, _, message in messages(station)
                        if way == "in" and message.is_request and message.method == "MESSAGE"]
            self.assertGreaterEqual(len(answered), len(accepted))


if __name__ == "__main__":
    unittest.main()
