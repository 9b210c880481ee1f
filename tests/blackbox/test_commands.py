"""The commands, as an operator and his scripts use them."""

import json
import re
import signal
import stat
import time
import unittest

from box import BoxTest, Box, Sim, sims_for_tests


def error_of(reply) -> dict:
    """The JSON error on stderr."""
    return json.loads(reply.err)


class Commands(BoxTest):
    options = {"sims": sims_for_tests(12)}

    def test_status_says_that_every_role_answers(self):
        reply = self.box.command("status")
        self.assertEqual(reply.code, 0, reply.err)
        said = reply.data
        self.assertLessEqual({"state", "since", "version", "roles", "configuration"}, set(said))
        self.assertTrue(said["roles"])
        self.assertIsNone(said["configuration"]["error"])
        self.assertRegex(said["since"], r"^\d{4}-\d\d-\d\dT")

    def test_options_stand_before_or_after_the_command_and_a_noun_has_a_first_verb(self):
        listed = self.box.command("replica").data
        self.assertEqual({replica["name"] for replica in listed}, {"a", "b", "c", "d"})
        for replica in listed:
            self.assertLessEqual({"name", "shard", "state", "bindings", "lag_s"}, set(replica))
        self.assertEqual([replica["name"] for replica in self.box.command("replica", "status").data], [replica["name"] for replica in listed])
        self.assertTrue(self.box.command("zone").data)

    def test_lookup_of_one_without_a_binding_is_1(self):
        ana = self.box.phone()
        reply = self.box.command("lookup", ana.imsi)
        self.assertEqual((reply.code, reply.data["bindings"], reply.data["imsi"]), (1, [], ana.imsi))

    def test_subscribers_are_listed_and_shown_without_their_keys(self):
        sim = self.box.sim("milenage-opc")
        listed = {each["imsi"]: each for each in self.box.command("subscriber", "list").data}
        self.assertEqual(set(listed), {each.imsi for each in self.box.sims})
        self.assertEqual((listed[sim.imsi]["msisdn"], listed[sim.imsi]["algorithm"], listed[sim.imsi]["name"]), (sim.numbers, "milenage", sim.name))
        self.assertTrue(listed[sim.imsi]["file"].endswith("10-test.toml"))
        lines = (self.box.directory / "subscribers.d" / "10-test.toml").read_text().splitlines()
        around = "\n".join(lines[listed[sim.imsi]["line"] - 1:listed[sim.imsi]["line"] + 1])
        self.assertTrue("[[subscriber]]" in around or sim.imsi in around, around)
        for words in (("subscriber", "list"), ("subscriber", "show", sim.imsi), ("subscriber", "show", sim.numbers[0]), ("lookup", sim.imsi)):
            reply = self.box.command(*words)
            for secret in (sim.key("ki"), sim.key("opc")):
                self.assertNotIn(secret, (reply.out + reply.err).lower(), words)

    def test_a_subscriber_is_added_used_and_removed(self):
        ana = Sim("001017000000042", "comp128v2", ["+17000042", "742"])
        hill = self.box.station("hill")
        self.assertEqual(hill.register(ana.phone()).code, 404)
        reply = self.box.command("subscriber", "add", f"IMSI{ana.imsi}", "--msisdn", *ana.numbers, "--algorithm", "comp128v2", "--ki", "-",
                                 "--name", "Ana", text=ana.key("ki") + "\n")
        self.assertEqual(reply.code, 0, reply.err)
        self.assertTrue(hill.register(ana.phone()).ok, "it holds at once")
        self.assertEqual(self.box.lookup("742")["name"], "Ana")
        local = self.box.data_dir / "subscribers.d" / "90-local.toml"
        self.assertIn(ana.imsi, local.read_text())
        self.assertEqual(stat.S_IMODE(local.stat().st_mode) & 0o077, 0, "it holds a key")
        # A second of the same is refused, and says where the first stands.
        again = self.box.command("subscriber", "add", ana.imsi, "--msisdn", "743", "--algorithm", "none")
        self.assertNotEqual(again.code, 0)
        self.assertEqual(set(error_of(again)), {"error", "cause", "hint"})
        self.assertEqual(self.box.command("subscriber", "remove", ana.imsi).code, 0)
        self.assertEqual(hill.register(ana.phone()).code, 404)

    def test_one_from_the_operators_own_file_is_not_removed_by_command(self):
        sim = self.box.sim("none")
        reply = self.box.command("subscriber", "remove", sim.imsi)
        self.assertNotEqual(reply.code, 0)
        self.assertIn("10-test.toml", reply.err)
        self.assertEqual(self.box.lookup(sim.imsi)["imsi"], sim.imsi)

    def test_new_files_are_taken_in_by_apply_and_by_sighup(self):
        hill, ana = self.box.station("hill"), self.box.phone("none")
        self.assertTrue(hill.register(ana).ok)
        provisioned = self.box.directory / "subscribers.d" / "20-more.csv"
        self.addCleanup(lambda: (provisioned.unlink(), self.box.command("apply")))
        for number, how in enumerate(("apply", "SIGHUP")):
            with self.subTest(how=how):
                new = Sim(f"00101710000000{number}", "comp128v1", [f"71{number}"])
                self.assertEqual(hill.register(new.phone()).code, 404)
                provisioned.write_text(f"imsi,ki,msisdn,algorithm\nIMSI{new.imsi},{new.key('ki')},71{number},comp128v1\n")
                if how == "apply":
                    reply = self.box.command("apply")
                    self.assertEqual(reply.code, 0, reply.err)
                else:
                    self.box.process.send_signal(signal.SIGHUP)
                    listed = lambda: [each["imsi"] for each in self.box.command("subscriber", "list").data]  # noqa: E731
                    self.assertTrue(hill.wait(lambda: new.imsi in listed(), 5))
                self.assertTrue(hill.register(new.phone()).ok)
                self.assertEqual(len(self.box.lookup(ana.imsi)["bindings"]), 1, "no binding is dropped")

    def test_a_bad_file_leaves_the_old_settings_in_force(self):
        hill, ana = self.box.station("hill"), self.box.phone("none")
        bad = self.box.directory / "subscribers.d" / "50-bad.toml"
        bad.write_text('[[subscriber]]\nimsi = "12"\nauth = { algorithm = "none" }\n')
        try:
            reply = self.box.command("apply")
            self.assertNotEqual(reply.code, 0)
            self.assertIn("50-bad.toml:2", reply.out + reply.err)
            self.box.process.send_signal(signal.SIGHUP)
            self.assertTrue(hill.wait(lambda: self.box.command("status").data["configuration"]["error"], 5))
            self.assertIn("50-bad.toml:2", str(self.box.command("status").data["configuration"]["error"]))
            self.assertTrue(hill.register(ana).ok)
        finally:
            bad.unlink()
        self.assertEqual(self.box.command("apply").code, 0)
        self.assertIsNone(self.box.command("status").data["configuration"]["error"])

    def test_the_control_socket_is_its_owners_alone(self):
        control = self.box.data_dir / "control.sock"
        self.assertEqual(stat.S_IMODE(control.stat().st_mode) & 0o077, 0)

    def test_a_second_run_on_the_same_directory_is_refused_and_disturbs_nobody(self):
        hill, ana = self.box.station("hill"), self.box.phone("none")
        reply = self.box.command("run", timeout=10)
        self.assertEqual(reply.code, 2, reply.err)
        self.assertTrue(hill.register(ana).ok)
        self.assertEqual(self.box.command("status").code, 0)

    def test_the_log_shows_four_digits_and_no_key(self):
        hill, phones = self.box.station("hill"), [self.box.phone(algorithm) for algorithm in ("comp128v1", "xor", "none")]
        for phone in phones:
            self.assertTrue(hill.register(phone).ok)
        hill.register(Sim("001018880001234", "none").phone())
        log = self.box.log()
        self.assertTrue(log.strip(), "a log that says nothing proves nothing")
        for phone in phones:
            self.assertNotIn(phone.imsi, log)
            self.assertFalse(phone.ki and phone.ki in log)
        self.assertNotIn("001018880001234", log)


class WithoutABox(unittest.TestCase):
    """What can be done, and what cannot, while nothing is running."""

    def box(self, **options) -> Box:
        box = Box(self, **({"sims": sims_for_tests(1)} | options))
        self.addCleanup(box.close)
        return box

    def test_status_with_nothing_running_is_1(self):
        box = self.box()
        started = time.monotonic()
        self.assertEqual(box.command("status").code, 1)
        self.assertEqual(box.command("status", "--wait", "1").code, 1)
        self.assertLess(time.monotonic() - started, 5)

    def test_check_says_yes_and_touches_nothing(self):
        box = self.box()
        box.data_dir.rmdir()
        reply = box.command("check")
        self.assertEqual(reply.code, 0, reply.out + reply.err)
        self.assertFalse(box.data_dir.exists())

    def test_every_mistake_is_named_with_its_place(self):
        for text, place, words in (
            ('domain = "gsm.example"\ndata_dir = "x"\nlistn = 1\n', r"encamp\.toml:3:1: ", "listn"),
            ('domain = "gsm.example"\ndata_dir = "x"\n[front]\nbase_statons = []\n', r"encamp\.toml:4:1: ", "base_stations"),
            ('domain = "gsm.example"\ndata_dir = "x"\n[[shard]]\nname = "s"\nsuffixes = ["00-49"]\nreplicas = ["a"]\n', r"encamp\.toml:\d+:\d+: ", "50"),
            ('domain = "gsm.example"\ndata_dir = "x"\n[[shard]]\nname = "s"\nsuffixes = ["00-99"]\nreplicas = ["a"]\nwrite_quorum = 2\n',
             r"encamp\.toml:7:\d+: ", "quorum"),
            ('domain = "gsm.example"\ndata_dir = \n', r"encamp\.toml:2:\d+: ", ""),
        ):
            with self.subTest(text=text):
                box = self.box()
                box.config.write_text(text)
                reply = box.command("check")
                self.assertNotEqual(reply.code, 0, reply.out + reply.err)
                problems = reply.data
                self.assertTrue(problems)
                self.assertEqual(set(problems[0]), {"error", "cause", "hint"})
                self.assertTrue(any(re.search(place, problem["error"]) for problem in problems), problems)
                self.assertIn(words, json.dumps(problems))
                run = box.command("run", timeout=10)
                self.assertEqual(run.code, 2, "nothing starts with it")

    def test_two_subscribers_with_one_imsi_or_number_and_a_short_ki(self):
        for text, place, words in (
            ('[[subscriber]]\nimsi = "001010000000001"\nauth = { algorithm = "none" }\n\n[[subscriber]]\nimsi = "IMSI001010000000001"\nauth = { algorithm = "none" }\n',
             "30-x.toml:6:", "30-x.toml:2"),
            ('[[subscriber]]\nimsi = "001010000000001"\nmsisdn = ["77"]\nauth = { algorithm = "none" }\n\n[[subscriber]]\nimsi = "001010000000002"\n'
             'msisdn = ["77"]\nauth = { algorithm = "none" }\n', "30-x.toml:8:", "30-x.toml:3"),
            ('[[subscriber]]\nimsi = "001010000000001"\nauth = { algorithm = "comp128v1", ki = "0011" }\n', "30-x.toml:3:", "32"),
        ):
            with self.subTest(place=place):
                box = self.box(sims=[])
                (box.directory / "subscribers.d" / "30-x.toml").write_text(text)
                reply = box.command("check")
                self.assertNotEqual(reply.code, 0)
                self.assertIn(place, reply.out)
                self.assertIn(words, reply.out)

    def test_an_empty_directory_is_founded_once_and_by_itself_where_all_is_local(self):
        box = self.box()
        box.start()
        self.assertTrue(box.station("hill").register(box.phone("none")).ok)
        box.stop()
        self.assertTrue(all((box.replica_directory(name)).is_dir() for name in "abcd"))


if __name__ == "__main__":
    unittest.main()
