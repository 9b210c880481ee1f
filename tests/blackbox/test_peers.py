"""The simulated peers themselves: who judges is judged first."""

import subprocess
import sys
import unittest

from box import HERE

PEERS = HERE.parent / "peers"


class Peers(unittest.TestCase):
    def runs(self, script: str):
        done = subprocess.run([sys.executable, str(PEERS / script)], capture_output=True, text=True, timeout=60, cwd=PEERS)
        self.assertEqual(done.returncode, 0, done.stdout + done.stderr)

    def test_short_messages_are_written_and_read_rightly(self):
        self.runs("sms.py")

    def test_each_peer_says_what_its_source_says(self):
        self.runs("selftest.py")


if __name__ == "__main__":
    unittest.main()
