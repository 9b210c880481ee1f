"""The simulated base station against deliberately wrong registrars: a peer that lets every one of them pass proves nothing."""

import unittest
from types import SimpleNamespace

import box
import peers
from obts import Phone
from wrong_registrar import WRONGS, WrongRegistrar

KI = bytes(range(16))


class WrongBoxes(unittest.TestCase):
    def verdict(self, wrong: str, twice: bool = False) -> list[str]:
        """What the base station has against this registrar, after ana with the right key and mallory with a wrong one."""
        ana, mallory = Phone("001010000000001", KI.hex(), "comp128v1"), Phone("001010000000002", "ff" * 16, "comp128v1")
        found = []
        with WrongRegistrar({ana.imsi: KI, mallory.imsi: KI}, wrong) as registrar:
            around = SimpleNamespace(registrar=(registrar.host, registrar.port), host=registrar.host, texts=1, calls=1,
                                     used=lambda peer: peers.used(peer, self))
            with box.Station(around, box.STATIONS["hill"], box.free_port(box.STATIONS["hill"]), twice) as hill:
                done = hill.register(ana, timeout=1)
                if not done.ok:
                    found.append(f"ana was not let in: {done.code} {done.error}")
                elif done.kc != done.kc_of_phone and wrong != "lets everybody in":
                    found.append(f"another Kc: {done.kc}, the phone has {done.kc_of_phone}")
                done = hill.register(mallory, timeout=1)
                if done.ok:
                    found.append("mallory was let in")
                if done.let_in_by_failmode:
                    found.append("mallory was let in by FailMode")
                found += hill.faults()
        return found

    def test_nothing_is_said_against_a_right_one(self):
        self.assertEqual(self.verdict(""), [])

    def test_each_wrong_one_is_caught(self):
        for wrong, complaint in WRONGS.items():
            with self.subTest(wrong=wrong):
                found = self.verdict(wrong)
                self.assertTrue(any(complaint in each for each in found), f"not noticed; said was: {found}")

    def test_one_that_takes_a_copy_for_a_new_request_is_caught_by_sending_twice(self):
        found = self.verdict("", twice=True)
        self.assertTrue(any("two answers to one request" in each for each in found), found)


if __name__ == "__main__":
    unittest.main()
