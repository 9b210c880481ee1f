"""The shim keeps its own promises: otherwise every durability test built on it would be worth nothing."""

import signal
import subprocess
import sys
import tempfile
import time
import unittest
from pathlib import Path

import peers
from power_cut import Disk

#: What the watched program knows without being told.
PRELUDE = """
import os, sys, time
root = os.environ["SHIM_ROOT"]
def make(name): return os.open(os.path.join(root, name), os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
def here(word):
    sys.stdout.write(word + "\\n"); sys.stdout.flush()
"""


class Shim(unittest.TestCase):
    def setUp(self):
        peers.used("shim", self)
        place = tempfile.TemporaryDirectory(prefix="encamp-shim-test-")
        self.addCleanup(place.cleanup)
        self.root, beside = Path(place.name, "disk"), Path(place.name, "beside")
        self.root.mkdir()
        beside.mkdir()
        self.disk = Disk(self.root, beside)

    def run_until_killed(self, program: str):
        """Runs a program until it says `ready`, then kills it where it stands."""
        running = subprocess.Popen([sys.executable, "-c", PRELUDE + program + "\nhere('ready')\ntime.sleep(60)\n"],
                                   env={**self.disk.environment(), "PATH": "/usr/bin:/bin"}, stdout=subprocess.PIPE, text=True)
        try:
            self.assertEqual(running.stdout.readline(), "ready\n")
        finally:
            running.send_signal(signal.SIGKILL)
            running.wait()
            running.stdout.close()

    def run_to_the_end(self, program: str) -> list[str]:
        done = subprocess.run([sys.executable, "-c", PRELUDE + program], env={**self.disk.environment(), "PATH": "/usr/bin:/bin"},
                              stdout=subprocess.PIPE, text=True, timeout=60, check=True)
        return done.stdout.split()

    def content(self, name: str) -> bytes:
        return Path(self.root, name).read_bytes()

    def test_unsynced_bytes_are_gone_and_synced_ones_stay(self):
        self.run_until_killed("fd = make('log'); os.write(fd, b'safe'); os.fdatasync(fd); os.write(fd, b'lost')")
        self.assertEqual(self.content("log"), b"safelost", "the page cache survives kill -9: that is why we cut")
        losses = self.disk.cut()
        self.assertEqual(self.content("log"), b"safe")
        self.assertEqual([(loss.path.name, loss.before, loss.after) for loss in losses], [("log", 8, 4)])

    def test_a_file_that_was_never_synced_is_empty(self):
        self.run_until_killed("fd = make('a'); os.write(fd, b'x' * 5000); os.close(fd)")
        self.disk.cut()
        self.assertEqual(self.content("a"), b"")

    def test_fsync_counts_as_fdatasync_does(self):
        self.run_until_killed("fd = make('a'); os.write(fd, b'whole'); os.fsync(fd)")
        self.assertEqual(self.disk.cut(), [])
        self.assertEqual(self.content("a"), b"whole")

    def test_a_renamed_file_keeps_what_was_synced(self):
        self.run_until_killed("fd = make('tmp'); os.write(fd, b'new'); os.fdatasync(fd); os.rename(root + '/tmp', root + '/CURRENT')")
        self.assertEqual(self.disk.cut(), [])
        self.assertEqual(self.content("CURRENT"), b"new")

    def test_a_file_on_the_inode_of_a_removed_one_inherits_nothing(self):
        self.run_until_killed("""
for n in range(200):
    fd = make('old'); os.write(fd, b'synced'); os.fdatasync(fd); os.close(fd); os.unlink(root + '/old')
fd = make('new'); os.write(fd, b'lost'); os.close(fd)""")
        self.disk.cut()
        self.assertEqual(self.content("new"), b"")

    def test_what_is_overwritten_or_truncated_and_not_synced_again_is_lost(self):
        self.run_until_killed("""
fd = make('a'); os.write(fd, b'0123456789'); os.fdatasync(fd); os.pwrite(fd, b'x', 4)
fd = make('b'); os.write(fd, b'0123456789'); os.fdatasync(fd); os.ftruncate(fd, 3); os.pwrite(fd, b'abcdefg', 3)""")
        self.disk.cut()
        self.assertEqual((self.content("a"), self.content("b")), (b"0123", b"012"))

    def test_a_later_sync_makes_all_of_it_safe_again(self):
        self.run_until_killed("""
fd = make('a'); os.write(fd, b'0123456789'); os.fdatasync(fd); os.pwrite(fd, b'x', 4); os.fdatasync(fd)""")
        self.assertEqual(self.disk.cut(), [])
        self.assertEqual(self.content("a"), b"0123x56789")

    def test_a_second_run_appends_to_what_the_first_has_left(self):
        self.run_until_killed("fd = make('a'); os.write(fd, b'one'); os.fdatasync(fd); os.write(fd, b'gone')")
        self.disk.cut()
        self.run_until_killed("fd = os.open(root + '/a', os.O_WRONLY | os.O_APPEND); os.write(fd, b'two'); os.fdatasync(fd); os.write(fd, b'gone')")
        self.disk.cut()
        self.assertEqual(self.content("a"), b"onetwo")

    def test_a_sync_can_be_made_slow_while_the_program_runs(self):
        program = """
import threading
fd = make('a'); os.write(fd, b'1')
def timed():
    start = time.monotonic(); os.fdatasync(fd); here(str(time.monotonic() - start))
timed()
open(os.environ['SHIM_CONTROL'], 'w').write('delay_ms=300\\n')
timed()"""
        fast, slow = (float(word) for word in self.run_to_the_end(program))
        self.assertLess(fast, 0.25)
        self.assertGreaterEqual(slow, 0.3)

    def test_syncs_of_one_directory_fail_and_the_others_live(self):
        self.disk.break_syncs("/replica/a/")
        program = """
for name in ('a', 'b'):
    os.makedirs(f'{root}/replica/{name}')
    fd = make(f'replica/{name}/log'); os.write(fd, b'1')
    for sync in (os.fdatasync, os.fsync):
        try: sync(fd); here('synced')
        except OSError as error: here(error.strerror.replace(' ', '_'))"""
        self.assertEqual(self.run_to_the_end(program), ["Input/output_error"] * 2 + ["synced"] * 2)
        self.disk.cut()
        self.assertEqual((self.content("replica/a/log"), self.content("replica/b/log")), (b"", b"1"))

    def test_a_sync_that_lasts_while_bytes_arrive_vouches_only_for_the_earlier_ones(self):
        self.disk.slow(400)
        self.run_until_killed("""
import threading
fd = make('a'); os.write(fd, b'early')
syncing = threading.Thread(target=os.fdatasync, args=(fd,)); syncing.start()
time.sleep(0.1); os.write(fd, b'late'); syncing.join()""")
        self.disk.cut()
        self.assertEqual(self.content("a"), b"early")

    def test_a_kill_in_the_middle_of_a_sync_leaves_it_unsynced(self):
        self.disk.slow(5000)
        self.run_until_killed("""
import threading
fd = make('a'); os.write(fd, b'never'); threading.Thread(target=os.fdatasync, args=(fd,), daemon=True).start(); time.sleep(0.1)""")
        self.disk.cut()
        self.assertEqual(self.content("a"), b"")

    def test_a_sync_that_lies_saves_nothing(self):
        self.disk.lie("/a")
        self.run_until_killed("fd = make('a'); os.write(fd, b'lost'); os.fdatasync(fd); fd = make('b'); os.write(fd, b'kept'); os.fdatasync(fd)")
        self.disk.cut()
        self.assertEqual((self.content("a"), self.content("b")), (b"", b"kept"))

    def test_files_elsewhere_are_left_alone(self):
        elsewhere = self.root.parent / "elsewhere"
        self.disk.slow(2000)
        self.disk.break_syncs("elsewhere")
        started = time.monotonic()
        self.run_to_the_end(f"fd = os.open({str(elsewhere)!r}, os.O_WRONLY | os.O_CREAT, 0o600); os.write(fd, b'x'); os.fsync(fd)")
        self.assertLess(time.monotonic() - started, 2)
        self.assertNotIn(elsewhere.stat().st_ino, [inode for _, inode in self.disk.synced()])


if __name__ == "__main__":
    unittest.main()
