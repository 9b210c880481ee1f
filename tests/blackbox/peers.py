"""Which test ran against which independent program: the list that tells whether a peer was silently left out."""

from __future__ import annotations

import os
import shutil
import unittest
from pathlib import Path

#: Peer -> the ids of the tests that used it.
tests_against: dict[str, set[str]] = {}

#: Peers that are programs of the system, with the Debian package to install.
PACKAGES = {"sipp": "sip-tester", "sipsak": "sipsak", "dig": "bind9-dnsutils", "cc": "gcc"}


def doubled() -> bool:
    """Whether every datagram of the simulated base stations is sent twice (DOUBLE=1)."""
    return os.environ.get("DOUBLE") == "1"


def used(peer: str, test: unittest.TestCase | type | None):
    """Notes that this test used this peer. A test class that uses one in its set-up notes it for each of its tests."""
    name = f"{peer}, every datagram twice" if doubled() and peer == "obts.py" else peer
    if isinstance(test, unittest.TestCase):
        tests_against.setdefault(name, set()).add(test.id())


def program(peer: str, test: unittest.TestCase) -> str:
    """The path of a peer that is a program. A missing one fails the test: it is never skipped."""
    used(peer, test)
    unpacked = os.environ.get("ENCAMP_PEERS")              # servers that are not installed: see tests/peers/fetch.sh
    if unpacked and Path(unpacked, "bin", peer).exists():
        return str(Path(unpacked, "bin", peer))
    found = shutil.which(peer)
    if not found:
        test.fail(f"{peer} is missing: " + (f"apt-get install {PACKAGES[peer]}" if peer in PACKAGES else "make peers, which unpacks it without installing it"))
    return found
