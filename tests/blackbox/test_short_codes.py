"""Numbers that the message centre itself answers: 101 and 411 of old, and what an operator defines; welcome texts."""

import json
import re
import threading
import time
import tomllib
import unittest
from pathlib import Path

from box import Box, Sim                                   # first: it puts the peers on the path
from hook import Hook
import peers
from talk import QUICK, SideBySide, open_sims
from texting import OPTIONS, SERVICE_CENTRE, Texting, three_segments, unnumbered_sims

#: One for each scenario: they run side by side.
SWAHILI = [Sim(f"00101900000019{n}", "none", [f"+1900000{n}", f"9000{n}"], f"asha {n}", language="sw") for n in (1, 2)]
GROUP = [Sim(f"0010190000002{n}{n}", "none", [f"+1900010{n}", f"9010{n}"], f"member {n}") for n in range(3)]
CALLER = Sim("001019000000393", "none", ["+19000301", "90301"], "caller")
CREW = Sim("001019000000494", "none", ["+19000401", "90401"], "crew")
LONG = "The clinic is open from 8 to 12 on Mondays and from 13 to 17 on all other days. " * 4
#: What stands in a text that a shell would act on.
TRICKS = "$(touch trap) ;touch trap| touch trap && touch trap '\"\\ ${IFS} %s %n\n ../../etc/passwd"
HOOKS = {"json": 500, "plain": 501, "silent": 502, "flaky": 503, "slow": 504, "many": 505, "tricks": 506, "long": 507, "closed": 508, "guarded": 509,
         "foreign": 510, "verbose": 511}


class ShortCodes(Texting, SideBySide):
    programs = ("hook.py",)

    @classmethod
    def setUpClass(cls):
        cls.hooks = {name: Hook() for name in HOOKS}
        tables = []
        for name, code in HOOKS.items():
            senders = f'senders = ["{CREW.numbers[0]}"]\n' if name == "guarded" else ""
            tables.append(f'[[short_code]]\nnumber = "{code}"\ndoes = "hook"\nurl = "{cls.hooks[name].url}"\ntimeout = "1 s"\n{senders}')
        members = json.dumps([sim.numbers[0] for sim in GROUP])
        tables.append(f"""
[[short_code]]
number = "300"
does = "answer"
texts = {{ en = "The clinic is open.", sw = "Kliniki iko wazi." }}

[[short_code]]
number = "301"
does = "answer"
text = "{LONG.strip()}"

[[short_code]]
number = "412"
does = "own_number"

[[short_code]]
number = "600"
does = "group"
members = {members}

[[short_code]]
number = "700"
does = "broadcast"
senders = ["{CALLER.numbers[0]}"]

[[texts]]
language = "sw"
own_number = "Namba yako ni {{number}}."
""")
        cls.options = OPTIONS | {"sims": [*open_sims(120), *unnumbered_sims(30), *SWAHILI, *GROUP, CALLER, CREW],
                                 "sites": {"far": "far", "lone": "lone"}, "more": OPTIONS["more"] + "\n" + "\n".join(tables)}
        try:
            super().setUpClass()
        except BaseException:
            cls._close_hooks()
            raise

    @classmethod
    def tearDownClass(cls):
        super().tearDownClass()
        cls._close_hooks()

    @classmethod
    def _close_hooks(cls):
        for hook in cls.hooks.values():
            hook.close()

    @classmethod
    def ready(cls):
        cls.hill, cls.mill, cls.far, cls.lone = (cls.station_at(name) for name in ("hill", "mill", "far", "lone"))
        cls._nameless = iter(sim for sim in cls.box.sims if not sim.numbers)
        cls._taking = threading.Lock()

    def nameless(self):
        """A phone of a subscriber without a number, registered."""
        with self._taking:
            phone = next(self._nameless).phone()
        self.assertTrue(self.hill.register(phone).ok)
        return phone

    def phone_of(self, sim: Sim, station=None):
        phone = sim.phone()
        self.assertTrue((station or self.hill).register(phone).ok)
        return phone

    # -- 101: choose your number --

    def test_one_without_a_number_chooses_one(self):
        ana, bob = self.nameless(), self.phones(1, self.mill)[0]
        self.assertSent(self.hill, ana, "101", "5550101")
        self.assertWords(ana, "5550101", "411")
        self.assertEqual(ana.inbox[0].sender, "101")
        self.assertSent(self.mill, bob, "5550101", "hello")
        self.assertTrue(self.until(lambda: "hello" in ana.texts()), ana.texts())
        self.assertSent(self.hill, ana, self.number(bob), "back")
        self.assertInbox(bob, ["back"])
        self.assertEqual(bob.inbox[0].sender, "5550101")
        written = tomllib.loads((self.box.data_dir / "subscribers.d" / "90-local.toml").read_text())
        self.assertIn("5550101", json.dumps(written))
        self.assertEqual(self.box.lookup("5550101")["imsi"], ana.imsi)
        # And the base station learns it with the next REGISTER.
        self.assertEqual(self.hill.register(ana).numbers, ["5550101"])

    def test_a_number_that_is_taken(self):
        ana, bob = self.nameless(), self.phones(1, self.hill)[0]
        for place, number in enumerate((self.number(bob), CALLER.numbers[0])):
            self.assertSent(self.hill, ana, "101", number.removeprefix("+"))        # with + and without it is the same number
            self.assertWords(ana, "in use", nth=place)
        self.assertEqual(self.box.lookup(ana.imsi)["msisdn"], [])
        # He may try again.
        self.assertSent(self.hill, ana, "101", "5550102")
        self.assertWords(ana, "5550102", nth=2)
        self.assertEqual(self.box.lookup(ana.imsi)["msisdn"], ["5550102"])

    def test_what_is_no_number(self):
        ana = self.nameless()
        for place, text in enumerate(("123", "12345678901", "call me Al", "555 01\n03 please", "٥٥٥٠١٠٣", "$(id)5550103")):
            self.assertSent(self.hill, ana, "101", text)
            self.assertWords(ana, "7", "10", nth=place)
        self.assertEqual(self.box.lookup(ana.imsi)["msisdn"], [])

    def test_one_who_has_a_number(self):
        ana = self.phones(1, self.hill)[0]
        self.assertSent(self.hill, ana, "101", "5550104")
        self.assertWords(ana, self.number(ana))
        self.assertEqual(self.box.lookup(ana.imsi)["msisdn"], self.box.numbers_of(ana))
        self.assertEqual(self.box.command("lookup", "5550104").code, 1)

    def test_two_who_want_the_same_number(self):
        both = [self.nameless() for _ in range(2)]
        threads = [threading.Thread(target=self.hill.sms, args=(phone, "101", "5550105"), kwargs={"timeout": 6}) for phone in both]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        words = [self.assertWords(phone, "5550105") for phone in both]
        self.assertEqual(sum("in use" in each for each in words), 1, words)
        self.assertEqual(sorted(self.box.lookup(phone.imsi)["msisdn"] for phone in both), [[], ["5550105"]])

    # -- 411 and own number --

    def test_411_tells_what_is_known_of_the_sender(self):
        ana, bob = self.phones(1, self.hill)[0], self.box.phone("none")
        self.assertSent(self.hill, ana, "411", "?")
        words = self.assertWords(ana, self.number(ana))
        self.assertRegex(words, r"\d")
        self.assertEqual(ana.inbox[0].sender, "411")
        self.assertNotIn(bob.imsi, words)
        nameless = self.nameless()
        self.assertSent(self.hill, nameless, "411", "")
        self.assertWords(nameless)

    def test_ones_own_number_in_ones_own_language(self):
        ana, asha, nameless = self.phones(1, self.hill)[0], self.phone_of(SWAHILI[0]), self.nameless()
        for phone in (ana, asha, nameless):
            self.assertSent(self.hill, phone, "412", "")
        self.assertInbox(ana, [f"Your number is {self.number(ana)}."])
        self.assertInbox(asha, [f"Namba yako ni {SWAHILI[0].numbers[0]}."])
        self.assertWords(nameless, "101")
        self.assertEqual(ana.inbox[0].sender, "412")
        self.assertSent(self.hill, ana, SERVICE_CENTRE, "who am I")
        self.assertWords(ana, self.number(ana), nth=1)
        self.assertEqual(ana.inbox[1].sender, SERVICE_CENTRE)

    # -- A fixed answer --

    def test_a_fixed_answer_in_two_languages(self):
        ana, asha = self.phones(1, self.hill)[0], self.phone_of(SWAHILI[1])
        for phone in (ana, asha):
            self.assertSent(self.hill, phone, "300", "when are you open")
        self.assertInbox(ana, ["The clinic is open."])
        self.assertTrue(self.until(lambda: "Kliniki iko wazi." in asha.texts()), asha.texts())
        self.assertEqual(ana.inbox[0].sender, "300")
        self.record(to="300", sender=self.number(ana))
        self.assertEqual(self.record(to="300", sender=self.number(ana))[0]["outcome"], "answered")

    def test_a_long_answer_is_cut_into_parts(self):
        ana = self.phones(1, self.hill)[0]
        self.assertSent(self.hill, ana, "301", "?")
        self.assertInbox(ana, [LONG.strip()], 10)
        self.assertEqual([one.part[1:] for one in ana.inbox], [(3, 1), (3, 2), (3, 3)])

    def test_a_long_question_is_answered_once(self):
        ana = self.phones(1, self.hill)[0]
        self.assertSent(self.hill, ana, "300", three_segments())
        self.assertInbox(ana, ["The clinic is open."])
        time.sleep(2)
        self.assertEqual(ana.texts(), ["The clinic is open."])

    # -- A program of the operator's --

    def test_a_hook_that_answers_with_json(self):
        hook, ana = self.hooks["json"], self.phones(1, self.hill)[0]
        hook.plan({"text": "thank you, Жук"})
        self.assertSent(self.hill, ana, "500", "hello, hook")
        self.assertInbox(ana, ["thank you, Жук"])
        self.assertEqual(ana.inbox[0].sender, "500")
        asked = hook.asked[0]
        self.assertEqual(asked.method, "POST")
        self.assertTrue(asked.headers["content-type"].startswith("application/json"))
        self.assertEqual(asked.json["text"], "hello, hook")
        self.assertEqual((asked.json["from"], asked.json["to"]), (self.number(ana), "500"))

    def test_a_hook_that_answers_with_plain_text(self):
        hook, ana = self.hooks["plain"], self.phones(1, self.hill)[0]
        hook.plan("straight {number} €")
        self.assertSent(self.hill, ana, "501", "x")
        self.assertInbox(ana, ["straight {number} €"])     # it is no template

    def test_a_hook_that_has_nothing_to_say(self):
        hook, ana = self.hooks["silent"], self.phones(1, self.hill)[0]
        self.assertSent(self.hill, ana, "502", "x")
        self.assertTrue(hook.wait(1))
        time.sleep(2)
        self.assertEqual((ana.texts(), len(hook.asked)), ([], 1))
        self.assertEqual(self.record(to="502")[0]["outcome"], "answered")

    def test_a_hook_that_fails_and_then_works(self):
        """It is asked again, with the same id; the next text is answered."""
        hook, ana = self.hooks["flaky"], self.phones(1, self.hill)[0]
        hook.otherwise = "works"
        hook.plan(500)
        self.assertSent(self.hill, ana, "503", "one")
        self.assertWords(ana, "works", timeout=15)
        self.assertSent(self.hill, ana, "503", "two")
        self.assertWords(ana, "works", nth=1)
        self.assertEqual(len(ana.inbox), 2)
        first, again, other = (asked.json["id"] for asked in hook.asked)
        self.assertEqual(first, again)
        self.assertNotEqual(first, other)

    def test_a_hook_that_is_too_slow_and_one_that_closes(self):
        """What came of them nobody knows: they are asked again, with the same id."""
        ana, bob = self.phones(2, self.hill)
        self.hooks["slow"].plan(("slow", 3, "too late"))
        self.hooks["closed"].plan("cut", "half", b"nonsense\r\n\r\n")
        for phone, name, code in ((ana, "slow", "504"), (bob, "closed", "508")):
            self.hooks[name].otherwise = f"{name} works"
            self.assertSent(self.hill, phone, code, "x")
        self.assertInbox(ana, ["slow works"], 12)
        self.assertTrue(self.hooks["closed"].wait(2, 10))
        for name, times in (("slow", 2), ("closed", 2)):
            ids = [asked.json["id"] for asked in self.hooks[name].asked[:times]]
            self.assertEqual(ids, ids[:1] * times, name)
        self.assertEqual((len(ana.inbox), bob.texts()), (1, []), "a late answer is no answer, nor is half of one")

    def test_a_hook_that_sends_several_texts(self):
        hook, ana, bob = self.hooks["many"], *self.phones(2, self.hill, self.mill)
        hook.plan({"texts": [{"to": self.number(bob), "text": "to bob"}, {"to": self.number(ana), "text": "to ana"}]})
        self.assertSent(self.hill, ana, "505", "x")
        self.assertInbox(bob, ["to bob"])
        self.assertInbox(ana, ["to ana"])
        self.assertEqual((bob.inbox[0].sender, ana.inbox[0].sender), ("505", "505"))

    def test_a_hook_whose_answer_is_not_what_was_agreed(self):
        hook, ana = self.hooks["foreign"], self.phones(1, self.hill)[0]
        for place, plan in enumerate(({"texts": 7}, {"text": ["a", "list"]}, ["a", "list"], ("status", 302, "elsewhere"), ("status", 404, "nothing"))):
            with self.subTest(plan=plan):
                hook.otherwise = plan
                self.assertSent(self.hill, ana, "510", f"x {place}")
                self.assertWords(ana, "510", nth=place)
        self.assertEqual(len(hook.asked), 5, "asked once each")

    def test_an_endless_answer_is_no_answer(self):
        hook, ana = self.hooks["verbose"], self.phones(1, self.hill)[0]
        hook.otherwise = "x" * 200_000
        self.assertSent(self.hill, ana, "511", "x")
        self.assertWords(ana, "511")
        self.assertEqual((len(ana.inbox), ana.inbox[0].part, len(hook.asked)), (1, None, 1))

    def test_no_text_reaches_a_shell(self):
        hook, ana = self.hooks["tricks"], self.phones(1, self.hill)[0]
        hook.otherwise = TRICKS
        self.assertSent(self.hill, ana, "506", TRICKS)
        self.assertInbox(ana, [TRICKS])
        self.assertEqual(hook.asked[0].json["text"], TRICKS)
        self.assertEqual([*self.box.directory.rglob("trap"), *Path(".").glob("trap")], [])

    def test_a_long_text_reaches_a_hook_whole(self):
        hook, ana = self.hooks["long"], self.phones(1, self.hill)[0]
        hook.otherwise = three_segments("answer ")
        self.assertSent(self.hill, ana, "507", three_segments())
        self.assertInbox(ana, [three_segments("answer ")], 15)
        self.assertEqual([asked.json["text"] for asked in hook.asked], [three_segments()])

    def test_a_short_code_for_some(self):
        hook, crew, ana = self.hooks["guarded"], self.phone_of(CREW), self.phones(1, self.hill)[0]
        hook.otherwise = "welcome aboard"
        self.assertSent(self.hill, crew, "509", "x")
        self.assertInbox(crew, ["welcome aboard"])
        answer = self.hill.sms(ana, "509", "x", timeout=6)
        self.assertIn(answer.code, (202, 403))
        self.assertWords(ana, "509")
        self.assertEqual(len(hook.asked), 1)

    # -- Groups --

    def test_a_text_to_a_group(self):
        members, eve = [self.phone_of(sim, station) for sim, station in zip(GROUP, (self.hill, self.mill, self.lone))], self.phones(1, self.hill)[0]
        members[2].on = False
        self.assertEqual(self.lone.detach(members[2], timeout=5).code, 200)
        self.assertSent(self.hill, members[0], "600", "to all")
        # From the group's number, so that an answer goes to the group.
        to_all = f"{GROUP[0].numbers[0]}: to all"
        self.assertInbox(members[1], [to_all])
        self.assertEqual(members[1].inbox[0].sender, "600")
        self.assertWords(members[0], "2")
        members[2].on = True
        self.assertTrue(self.lone.register(members[2]).ok)
        self.assertInbox(members[2], [to_all], 5)
        # The next one, from another, is long.
        self.assertSent(self.mill, members[1], "600", three_segments())
        long = f"{GROUP[1].numbers[0]}: {three_segments()}"
        self.assertTrue(self.until(lambda: long in members[0].texts() and long in members[2].texts(), 15))
        answer = self.hill.sms(eve, "600", "me too", timeout=6)
        self.assertIn(answer.code, (202, 403))
        self.assertWords(eve, "600")
        time.sleep(1)
        self.assertNotIn("me too", "".join(members[1].texts()))

    # -- Broadcasts --

    def test_a_broadcast_is_confirmed_first(self):
        caller, *audience = self.phone_of(CALLER), *self.phones(3, self.far)
        eve = self.phones(1, self.hill)[0]
        self.assertSent(self.hill, caller, "700", "nowhere the river rises")
        self.assertWords(caller, "far", "700")             # no such area: it names those that there are
        self.assertSent(self.hill, caller, "700", "far the river rises")
        ask = self.assertWords(caller, "3", "far", "yes", nth=1)
        key = re.search(r"yes (\w+)", ask).group(1)
        self.assertSent(self.hill, caller, "700", "yes nothing")
        self.assertWords(caller, "700", nth=2)
        time.sleep(1)
        self.assertEqual([phone.texts() for phone in audience], [[]] * 3, "not before it is confirmed")
        self.assertSent(self.hill, caller, "700", f"yes {key}")
        for phone in audience:
            self.assertInbox(phone, ["the river rises"])
        self.assertWords(caller, "3", nth=3)
        self.assertSent(self.hill, caller, "700", f"yes {key}")
        self.assertWords(caller, "700", nth=4)             # a key is good for once
        answer = self.hill.sms(eve, "700", "far free beer", timeout=6)
        self.assertIn(answer.code, (202, 403))
        self.assertWords(eve, "700")
        time.sleep(1)
        self.assertEqual([phone.texts() for phone in audience], [["the river rises"]] * 3)
        self.assertEqual(len(eve.inbox), 1)


class Kept(Texting, unittest.TestCase):
    """What a restart must not forget, and welcomes: each with a box of its own."""

    def open(self, more: str = "", **options) -> Box:
        peers.used("obts.py", self)
        self.box = Box(self, **({"sims": open_sims(6) + unnumbered_sims(6), "trunks": False,
                                 "more": f'[messages]\nservice_centre = "{SERVICE_CENTRE}"\n{more}'} | options))
        self.addCleanup(self.box.close)
        self.box.start()
        # Whose first REGISTER comes before the replicas are level is not known to be new.
        self.assertTrue(self.until(lambda: {each["state"] for each in self.box.replicas().values()} == {"level"}))
        self.hill = self.box.station("hill", **QUICK)
        return self.box

    def nameless(self):
        phone = next(sim for sim in self.box.sims if not sim.numbers).phone()
        self.assertTrue(self.hill.register(phone).ok)
        return phone

    def test_a_chosen_number_survives_a_restart(self):
        box = self.open()
        ana = self.nameless()
        self.assertSent(self.hill, ana, "101", "5550106")
        self.assertWords(ana, "5550106")
        box.kill()
        box.start()
        self.assertEqual(box.lookup("5550106")["imsi"], ana.imsi)
        self.assertSent(self.hill, ana, "5550106", "still me")
        self.assertTrue(self.until(lambda: "still me" in ana.texts()), ana.texts())
        self.assertSent(self.hill, ana, "101", "5550107")
        self.assertTrue(self.until(lambda: len(ana.texts()) == 3), ana.texts())
        self.assertIn("5550106", ana.texts()[2])

    def test_codes_that_were_moved_and_switched_off(self):
        self.open('number_code = "1010"\nstatus_code = ""\nnumber_digits_min = 4\nnumber_digits_max = 5\n')
        ana = self.nameless()
        for code in ("101", "411"):
            self.assertRefusedText(self.hill, ana, code, "x", 404)
        self.assertSent(self.hill, ana, "1010", "77001")
        self.assertTrue(self.until(lambda: any("77001" in text and "now" in text for text in ana.texts())), ana.texts())

    def test_a_welcome_the_first_time(self):
        self.open('welcome = "first"\n')
        ana, nameless = self.box.phone("none"), self.nameless()
        self.assertTrue(self.hill.register(ana).ok)
        self.assertInbox(ana, [f"Welcome. Your number is {self.number(ana)}."])
        self.assertEqual(ana.inbox[0].sender, SERVICE_CENTRE)
        self.assertWords(nameless, "101")
        self.assertTrue(self.hill.register(ana).ok)
        self.assertEqual(self.hill.detach(ana, timeout=5).code, 200)
        ana.on = True
        mill = self.box.station("mill", **QUICK)
        self.assertTrue(mill.register(ana).ok)
        self.box.restart()
        self.assertTrue(mill.register(ana).ok)
        time.sleep(2)
        self.assertEqual(len(ana.inbox), 1)

    def test_a_welcome_in_each_network(self):
        self.open('welcome = "network"\n[[texts]]\nlanguage = "en"\nwelcome_network = "{network} greets {number}"\n')
        abroad = self.box.station("mill", **QUICK, mcc="262", mnc="42")
        ana = self.box.phone("none")
        self.assertTrue(self.hill.register(ana).ok)
        self.assertTrue(self.until(lambda: len(ana.inbox) == 1), ana.inbox)
        self.assertTrue(self.hill.register(ana).ok)
        self.assertTrue(abroad.register(ana).ok)
        words = self.assertWords(ana, "greets", self.number(ana), "262", "42", nth=1)
        self.assertNotIn("{", words)
        self.assertTrue(abroad.register(ana).ok)
        time.sleep(2)
        self.assertEqual(len(ana.inbox), 2)
        self.assertTrue(self.hill.register(ana).ok)
        self.assertTrue(self.until(lambda: len(ana.inbox) == 3), "home again is another network too")


if __name__ == "__main__":
    unittest.main()
