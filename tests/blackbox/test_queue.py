"""What an operator sees of texts and does with them: `encamp queue`, the records of texts, and what is kept of one that is over."""

import datetime
import time
import unittest

from box import Box, BoxTest                               # first: it puts the peers on the path
import peers
import sms
from talk import QUICK, open_sims
from texting import SERVICE_CENTRE, Texting, records, texts_for, three_segments

FIELDS = {"id", "from", "to", "state", "since", "next_attempt", "cause"}
SECRET = "Rumpelstilzchen heisst er"


class Queue(Texting, BoxTest):
    options = {"sims": open_sims(60), "trunks": False, "more": f'[messages]\nservice_centre = "{SERVICE_CENTRE}"\n'}

    def setUp(self):
        super().setUp()
        self.hill, self.mill = self.box.station("hill", **QUICK), self.box.station("mill", **QUICK)
        self.ana = self.box.phone("none")
        self.assertTrue(self.hill.register(self.ana).ok)

    def away(self, *texts: str, **more):
        """A phone that was never here, for which these wait."""
        bob = self.box.phone("none")
        for text in texts:
            self.assertSent(self.hill, self.ana, self.number(bob), text, **more)
        self.assertWaits(bob, len(texts))
        return bob

    def refuser(self, *texts: str):
        """A phone that answers with 400, for which these wait."""
        bob = self.box.phone("none")
        self.assertTrue(self.mill.register(bob).ok)
        bob.memory_full = True
        for text in texts:
            self.assertSent(self.hill, self.ana, self.number(bob), text)
        self.assertTrue(self.until(lambda: any("400" in (text["cause"] or "") for text in self.waiting(bob))), self.waiting(bob))
        return bob

    def change(self, *words: str, count: int):
        reply = self.box.command("queue", *words)
        self.assertEqual(reply.code, 0, reply.err)
        self.assertEqual(reply.data["texts"], count, reply.out)

    # -- Looking --

    def test_the_list_and_its_filters(self):
        bob, carol = self.away("one", "two"), self.away("three")
        dave = self.refuser("four")
        listed = self.queue("list")
        self.assertEqual([text["id"] for text in self.queue()], [text["id"] for text in listed], "a bare noun is its first verb")
        self.assertTrue(all(FIELDS <= set(text) for text in listed), listed)
        mine = [text for text in listed if text["from"] == self.number(self.ana)]
        self.assertEqual(len(mine), 4)
        for number in (self.number(bob), self.number(bob, 1), bob.imsi):
            self.assertEqual([text["to"] for text in self.queue("list", "--phone", number)], [self.number(bob)] * 2)
        self.assertEqual(len(self.queue("list", "--phone", self.number(self.ana))), 4, "those from it as well")
        causes = [text["to"] for text in self.queue("list", "--cause", "400")]
        self.assertIn(self.number(dave), causes)
        self.assertNotIn(self.number(carol), causes)
        self.assertEqual([text["to"] for text in self.queue("list", "--phone", self.number(self.ana), "--cause", "absent")],
                         [text["to"] for text in mine if text["to"] != self.number(dave)])
        self.assertEqual(self.queue("list", "--cause", "no such thing"), [])
        self.assertNotEqual(self.box.command("queue", "list", "--phone", "nobody").code, 0)

    def test_one_that_waits_is_shown_whole(self):
        bob = self.away(SECRET, validity=sms.relative(300), report=True)
        text = self.waiting(bob)[0]
        shown = self.show(text)
        self.assertEqual([shown[name] for name in ("id", "from", "to", "state", "since", "cause")], [text[name] for name in ("id", "from", "to", "state", "since", "cause")])
        self.assertIn("next_attempt", shown)
        self.assertEqual((shown["kind"], shown["words"], shown["attempts"], shown["possible_duplicate"], shown["report_wanted"]), ("text", SECRET, 1, False, True))
        self.assertTrue(shown["coding"].startswith("GSM"), shown["coding"])
        self.assertLess(abs(_moment(shown["ends"]) - _moment(shown["since"]) - 300), 5, shown)
        self.assertTrue(shown["life"])
        for step in shown["life"]:
            self.assertLess(abs(_moment(step["at"]) - time.time()), 60)
        parts = self.box.phone("none")
        self.assertSent(self.hill, self.ana, self.number(parts), three_segments())
        self.assertSent(self.hill, self.ana, self.number(parts), "", octets=b"\1\2\3", ports=(5505, 0))
        shown = [self.show(text) for text in self.assertWaits(parts, 4)]
        self.assertEqual(["part 1 of 3" in shown[0]["coding"], "part 3 of 3" in shown[2]["coding"]], [True, True])
        self.assertEqual((shown[3]["coding"].startswith("8"), "5505" in shown[3]["coding"], shown[3]["octets"].endswith("010203")), (True, True, True))

    def test_what_nobody_has(self):
        for verb in ("show", "explain"):
            reply = self.box.command("queue", verb, "99999999")
            self.assertEqual(reply.code, 1, reply)
            reply = self.box.command("queue", verb, "../../etc/passwd")
            self.assertIn(reply.code, (1, 2), reply)
        for verb in ("retry", "drop", "expire"):
            self.assertEqual(self.box.command("queue", verb, "99999999").code, 1)

    def test_the_life_of_a_text_is_told_after_its_end(self):
        bob = self.away(SECRET)
        identity = self.waiting(bob)[0]["id"]
        self.assertIn(self.explain(identity)["state"], ("absent", "waiting"))
        self.assertTrue(self.mill.register(bob).ok)
        self.assertInbox(bob, [SECRET])
        self.assertTrue(self.until(lambda: self.explain(identity)["state"] == "delivered"))
        told = self.explain(identity)
        self.assertEqual((told["id"], told["from"], told["to"], told["words"]), (identity, self.number(self.ana), self.number(bob), None))
        times = [_moment(step["at"]) for step in told["life"]]
        self.assertEqual(times, sorted(times))
        self.assertGreaterEqual(len(times), 3, told["life"])     # accepted, absent, back and delivered
        self.assertNotIn(SECRET, str(told))
        self.box.restart()
        self.assertEqual(self.explain(identity), told)

    # -- Acting --

    def test_a_retry_comes_at_once(self):
        bob = self.refuser("again")
        bob.memory_full = False
        time.sleep(1)
        self.assertEqual(bob.texts(), [], "not by itself so soon")
        self.change("retry", self.waiting(bob)[0]["id"], count=1)
        self.assertInbox(bob, ["again"], 3)
        carol = self.refuser("one", "two")
        carol.memory_full = False
        self.change("retry", "--phone", self.number(carol), count=1)          # one after the other: the first of those that wait
        self.assertInbox(carol, ["one", "two"], 4)

    def test_what_is_dropped_is_gone(self):
        bob = self.away("one", "two", "three")
        self.change("drop", self.waiting(bob)[1]["id"], count=1)
        self.assertWaits(bob, 2)
        carol = self.away("four", "five")
        self.change("drop", "--phone", self.number(carol), count=2)
        self.assertWaits(carol, 0)
        self.box.restart()
        for phone, texts in ((bob, ["one", "three"]), (carol, [])):
            self.assertTrue(self.mill.register(phone).ok)
            self.assertInbox(phone, texts, 5)
        time.sleep(1)
        self.assertEqual(carol.texts(), [])
        self.assertEqual(sorted(line["outcome"] for line in self.record(to=self.number(bob), count=3)), ["delivered", "delivered", "dropped"])

    def test_what_is_ended_is_told_to_its_sender(self):
        bob = self.away("soon")
        self.change("expire", self.waiting(bob)[0]["id"], count=1)
        self.assertWords(self.ana, self.number(bob))
        self.assertEqual(self.record(to=self.number(bob))[0]["outcome"], "expired")
        carol = self.away("a", "b")
        self.change("expire", "--phone", carol.imsi, count=2)
        self.assertWaits(carol, 0)

    def test_what_reaches_the_phone_while_it_is_dropped_is_told_rightly(self):
        """A drop in the middle of an attempt: the text is either at the phone and delivered, or neither."""
        bob = self.box.phone("none")
        self.mill.transfer_s = 1.5
        self.assertTrue(self.mill.register(bob).ok)
        self.assertSent(self.hill, self.ana, self.number(bob), "between")
        self.assertTrue(self.until(lambda: texts_for(self.mill, f"IMSI{bob.imsi}"), 3))
        self.box.command("queue", "drop", self.waiting(bob)[0]["id"])
        self.assertWaits(bob, 0, 6)
        self.assertTrue(self.until(lambda: bob.texts(), 4))
        self.assertEqual(bob.texts(), ["between"])
        self.assertEqual(len(self.record(to=self.number(bob))), 1)

    # -- Records --

    def test_one_line_for_each_text(self):
        bob, carol = self.box.phone("none"), self.box.phone("none")
        self.assertTrue(self.mill.register(bob).ok)
        self.assertSent(self.hill, self.ana, self.number(bob), "hello")
        self.assertInbox(bob, ["hello"])
        line = self.record(to=self.number(bob))[0]
        self.assertEqual((line["from"], line["from_imsi"], line["to_imsi"]), (self.number(self.ana), self.ana.imsi, bob.imsi))
        self.assertEqual((line["from_cell"], line["to_cell"], line["kind"], line["outcome"], line["attempts"]), ("hill", "mill", "text", "delivered", "1"))
        self.assertEqual((line["code"], line["octets"]), ("200", "5"))
        self.assertTrue(line["id"])
        self.assertRefusedText(self.hill, self.ana, "39994", "x", 404)
        line = self.record(to="39994")[0]
        self.assertEqual((line["outcome"], line["code"], line["id"]), ("refused", "404", ""))
        self.assertSent(self.hill, self.ana, self.number(carol), "soon", validity=sms.enhanced(1))
        line = self.record(to=self.number(carol), timeout=8)[0]
        self.assertEqual((line["outcome"], line["to_imsi"]), ("expired", carol.imsi))
        self.assertSent(self.hill, self.ana, self.number(bob), "with report", report=True)
        self.assertTrue(self.until(lambda: self.ana.status_reports))
        self.assertTrue(self.until(lambda: [line for line in records(self.box) if line["kind"] == "report" and line["to"] == self.number(self.ana)]),
                        "a report has a line too")
        self.assertNotIn("hello", (self.box.data_dir / "texts.csv").read_text())
        self.assertEqual((self.box.data_dir / "texts.csv").stat().st_mode & 0o777, 0o640)


class Archive(Texting, unittest.TestCase):
    """What is on the disk of a text that is over."""

    def delivered(self, more: str) -> str:
        """Delivers the secret, through a queue; returns its id."""
        peers.used("obts.py", self)
        self.box = Box(self, sims=open_sims(6), trunks=False, more=f'[messages]\nservice_centre = "{SERVICE_CENTRE}"\n{more}')
        self.addCleanup(self.box.close)
        self.box.start()
        hill, mill = self.box.station("hill", **QUICK), self.box.station("mill", **QUICK)
        ana, bob = self.box.phone("none"), self.box.phone("none")
        self.assertTrue(hill.register(ana).ok)
        self.assertSent(hill, ana, self.number(bob), SECRET)
        identity = self.assertWaits(bob)[0]["id"]
        self.assertTrue(mill.register(bob).ok)
        self.assertInbox(bob, [SECRET])
        self.assertTrue(self.until(lambda: self.explain(identity)["state"] == "delivered"))
        return identity

    def test_without_an_archive_the_words_are_gone(self):
        identity = self.delivered("")
        self.assertEqual(self.explain(identity)["words"], None)
        self.box.restart()
        self.assertEqual(self.explain(identity)["words"], None)
        self.assertNotIn(SECRET, self.box.log())

    def test_with_an_archive_they_are_shown(self):
        identity = self.delivered('archive_life = "1 days"\n')
        self.assertEqual(self.explain(identity)["words"], SECRET)
        self.box.kill()
        self.box.start()
        self.assertEqual(self.explain(identity)["words"], SECRET)


def _moment(rfc3339: str) -> float:
    return datetime.datetime.fromisoformat(rfc3339.replace("Z", "+00:00")).timestamp()


if __name__ == "__main__":
    unittest.main()
