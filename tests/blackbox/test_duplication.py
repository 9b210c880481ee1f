"""Many writes, one read: each replica holds everything of its shard by itself."""

import shutil
import time
import unittest

from box import BOX, SECOND_BOX, Box, Shard, Talker, contact_of, free_port, sims_for_tests, two_shards

CLUSTER_KEY = "6b" * 32


class Directories(unittest.TestCase):
    def test_each_directory_lost_in_turn_and_nobody_forgotten(self):
        with Box(self, shards=two_shards(2)) as box:
            hill, dale = box.station("hill"), box.station("dale")
            phones = [box.phone("none") for _ in range(16)]
            for number, phone in enumerate(phones):
                self.assertTrue((hill, dale)[number % 2].register(phone).ok)
            gone, away = phones[0], box.phone("none")
            self.assertEqual(hill.detach(gone, timeout=5).code, 200)
            for name in ("a", "b", "c", "d"):
                with self.subTest(lost=name):
                    box.stop()
                    shutil.rmtree(box.replica_directory(name))
                    box.start()
                    with Talker(box) as pbx:
                        for number, phone in enumerate(phones[1:], 1):
                            station = (hill, dale)[number % 2]
                            found = [binding["contact"] for binding in box.lookup(phone.imsi)["bindings"]]
                            self.assertEqual(found, [station.where(phone)])
                            answer = pbx.invite(box.numbers_of(phone)[0])
                            self.assertEqual((answer.code, contact_of(answer)), (302, station.where(phone)))
                        for phone in (gone, away):
                            # From one empty replica and one full one no *no* may be taken (promise 2), and never a 302.
                            answer = pbx.invite(box.numbers_of(phone)[0])
                            self.assertIn(answer.code, (480, 503))
                    # What was lost is written anew, so that the next loss finds two full copies: phones register again.
                    for number, phone in enumerate(phones[1:], 1):
                        self.assertTrue((hill, dale)[number % 2].register(phone).ok)
            self.assertEqual(hill.faults() + dale.faults(), [])

    def test_the_replicas_share_nothing(self):
        with Box(self, shards=two_shards(2)) as box:
            hill = box.station("hill")
            for _ in range(8):
                self.assertTrue(hill.register(box.phone("none")).ok)
            box.stop()
            inodes: dict[tuple[int, int], str] = {}
            for name in ("a", "b", "c", "d"):
                directory = box.replica_directory(name)
                self.assertFalse(directory.is_symlink())
                self.assertEqual(directory.resolve(), directory)
                files = [path for path in directory.rglob("*")]
                self.assertTrue(any(path.suffix == ".log" or path.suffix == ".sst" for path in files), f"{name} holds nothing: {files}")
                for path in files:
                    self.assertFalse(path.is_symlink(), path)
                    about = path.stat()
                    if path.is_file():
                        self.assertEqual(about.st_nlink, 1, f"{path} has a second name")
                        self.assertNotIn((about.st_dev, about.st_ino), inodes)
                        inodes[about.st_dev, about.st_ino] = str(path)

    def test_no_key_is_in_any_store(self):
        with Box(self) as box:
            hill = box.station("hill")
            phones = [box.phone(algorithm) for algorithm in ("comp128v1", "comp128v3", "xor", "milenage-op")]
            for phone in phones:
                self.assertTrue(hill.register(phone).ok)
            box.stop()
            for path in box.data_dir.rglob("*"):
                if path.is_file():
                    content = path.read_bytes()
                    for phone in phones:
                        for secret in (phone.ki, phone.op):
                            self.assertFalse(secret and (bytes.fromhex(secret) in content or secret.encode() in content.lower()), path)
            for phone in phones:
                self.assertNotIn(phone.ki, box.log().lower())


class TwoBoxes(unittest.TestCase):
    """One shard, one replica here and one in a second process, which can fall silent."""

    def pair(self, write_quorum: int):
        """The front, and the box with its remote replica; both started."""
        shards = [Shard("all", ["00-99"], ["a", "b"], write_quorum)]
        sims = sims_for_tests(4)
        front = Box(self, host=BOX, shards=shards, sims=sims, listening=("a",), cluster_key=CLUSTER_KEY)
        far = Box(self, host=SECOND_BOX, shards=shards, sims=sims, listening=("b",), cluster_key=CLUSTER_KEY)
        self.addCleanup(front.close)
        self.addCleanup(far.close)
        front.remote, far.remote = {"b": (SECOND_BOX, far.listening["b"])}, {"a": (BOX, front.listening["a"])}
        far.station_ports, far.pbx_port = front.station_ports, front.pbx_port
        for box in (front, far):
            box.write()
            founded = box.command("init")                  # not all replicas of the map are local: somebody must say that this is the beginning
            self.assertEqual(founded.code, 0, founded.err)
        far.start()
        front.start()
        return front, far

    @staticmethod
    def states(box: Box) -> set[str]:
        """The different states of all its replicas."""
        return {replica["state"] for replica in box.replicas().values()}

    def test_both_have_it(self):
        front, far = self.pair(2)
        hill = front.station("hill")
        for algorithm in ("none", "comp128v3", "milenage-op"):
            ana = front.phone(algorithm)
            self.assertTrue(hill.register(ana).ok)
            for box in (front, far):
                self.assertEqual([binding["contact"] for binding in box.lookup(ana.imsi)["bindings"]], [hill.where(ana)])
        # The far one alone: the front is gone, and its own replica answers.
        front.kill()
        self.assertEqual([binding["contact"] for binding in far.lookup(ana.imsi)["bindings"]], [hill.where(ana)])
        self.assertEqual(hill.faults(), [])

    def test_a_mute_replica_costs_nobody_his_registration(self):
        front, far = self.pair(1)
        hill, dale, ana = front.station("hill"), front.station("dale"), front.phone("comp128v1")
        self.assertTrue(hill.register(ana).ok)
        far.freeze()
        try:
            for station in (dale, hill, dale):
                done = station.register(ana)
                self.assertTrue(done.ok, done)
                self.assertLess(done.seconds, 2.5)
                self.assertEqual([binding["contact"] for binding in front.lookup(ana.imsi)["bindings"]], [station.where(ana)])
                with Talker(front) as pbx:
                    answer = pbx.invite(front.numbers_of(ana)[0])
                    self.assertEqual((answer.code, contact_of(answer)), (302, station.where(ana)))
            self.assertTrue(hill.wait(lambda: len(self.states(front)) == 2, 6), "a replica that missed a write is behind, and says so")
        finally:
            far.thaw()
        # It gets what it missed (a bounded hint), and is level again without anybody doing anything.
        self.assertTrue(hill.wait(lambda: far.where(ana.imsi) == [dale.where(ana)], 20), far.where(ana.imsi))
        self.assertTrue(hill.wait(lambda: self.states(front) == {"level"}, 20), front.replicas())

    def test_a_mute_replica_at_quorum_two_is_504_in_time(self):
        front, far = self.pair(2)
        ana, bob = front.phone("comp128v1"), front.phone("none")
        for dialect, code, cause in (("5.0", 504, 22), ("yate", 500, None)):
            with self.subTest(dialect=dialect):
                hill = front.station("hill", dialect=dialect)
                self.assertTrue(hill.register(ana).ok)
                far.freeze()
                try:
                    for phone in (ana, bob):
                        done = hill.register(phone)
                        self.assertEqual(done.code, code)
                        if cause:
                            self.assertEqual(done.reject_cause, cause)
                        self.assertFalse(done.let_in_by_failmode)
                        self.assertLess(done.seconds, 5, "an old base station listens for 5 s")
                finally:
                    far.thaw()
                self.assertEqual(hill.faults(), [])
                hill.close()
                front.stations.remove(hill)

    def test_a_no_is_not_taken_from_one_of_two(self):
        front, far = self.pair(2)
        ana = front.phone("none")
        with Talker(front) as pbx:
            answer = pbx.invite(front.numbers_of(ana)[0])
            self.assertEqual(answer.code, 480)
            far.freeze()
            try:
                # W = 2 of R = 2: R-W+1 = 1, so one caught-up replica may say no. With W = 1 it may not:
                self.assertEqual(pbx.invite(front.numbers_of(ana)[0]).code, 480)
            finally:
                far.thaw()

    def test_at_quorum_one_a_no_needs_both(self):
        front, far = self.pair(1)
        ana = front.phone("none")
        with Talker(front) as pbx:
            # The far one is believed once it has told that it is caught up.
            until = time.monotonic() + 5
            while (code := pbx.invite(front.numbers_of(ana)[0]).code) == 503 and time.monotonic() < until:
                time.sleep(0.2)
            self.assertEqual(code, 480)
            far.freeze()
            try:
                self.assertEqual(pbx.invite(front.numbers_of(ana)[0]).code, 503, "the one that is mute may have it")
            finally:
                far.thaw()

    def test_a_box_with_another_cluster_key_writes_nothing_here(self):
        front, far = self.pair(1)
        far.stop()
        far.cluster_key = "7c" * 32
        far.write()
        far.start()
        mill, ana = far.station("mill"), far.phone("none")
        far.stations[-1].registrar = far.registrar
        mill.register(ana)
        self.assertEqual(front.replicas()["a"]["bindings"], 0, "a replica's port writes for nobody else")


if __name__ == "__main__":
    unittest.main()
