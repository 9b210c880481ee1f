#!/usr/bin/env python3
"""Runs the black-box tests and counts: tests, and how many of them ran against each independent program.

    python3 tests/blackbox/run.py                          all
    python3 tests/blackbox/run.py test_sipp Redirect       only tests whose name contains one of these
    python3 tests/blackbox/run.py --list                   their names

The last line is `N passed, N failed`; the exit code is 0 when nothing failed. Before it stands the table of peers, compared with
expected_peers.json: a test that silently stopped running against sipp or the simulated OpenBTS is a failure. After adding tests,
`--accept-peers` writes what was counted.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import sys
import time
import traceback
import unittest
from pathlib import Path

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE))
sys.path.insert(0, str(HERE.parent / "peers"))

import box                                                 # noqa: E402
import peers                                               # noqa: E402
import talk                                                # noqa: E402

EXPECTED = HERE / "expected_peers.json"
#: These run a second time with every datagram sent twice; not those that only wait.
TWICE = ("test_register", "test_calls.Calls", "test_texts.Texts", "test_text_kinds.Kinds")
NOT_TWICE = ("seconds", "while_he_is_paged", "lost_before")


class Result(unittest.TestResult):
    """One line for each test as it ends, the reasons at once, and the numbers."""

    def __init__(self, total: int):
        super().__init__()
        self.total, self.done, self.passed, self.failed = total, 0, 0, []
        self.pass_name = ""

    def startTest(self, test):
        super().startTest(test)
        self._started, self._faults = time.monotonic(), []

    def addError(self, test, error):
        self._fault(test, error)

    def addFailure(self, test, error):
        self._fault(test, error)

    def addSubTest(self, test, subtest, error):
        if error is not None:
            self._fault(subtest, error)

    def addSkip(self, test, reason):                       # nothing is skipped here
        self._faults_of(test).append(f"skipped: {reason}")

    def addExpectedFailure(self, test, error):
        self._fault(test, error)

    def addUnexpectedSuccess(self, test):
        pass

    def _faults_of(self, test):
        if not hasattr(self, "_faults"):
            self._faults = []
        return self._faults

    def _fault(self, test, error):
        text = "".join(traceback.format_exception(*error))
        if isinstance(test, unittest.TestCase):
            self._faults_of(test).append(f"{test}\n{text}")
        else:                                              # a set-up of a whole class: none of its tests could run
            self.failed.append(str(test))
            print(f"FAILED {test}{self.pass_name}\n{text}", flush=True)

    def stopTest(self, test):
        super().stopTest(test)
        self.done += 1
        took = time.monotonic() - self._started
        name = f"{test.id()}{self.pass_name}"
        if self._faults:
            self.failed.append(name)
            print(f"[{self.done}/{self.total}] FAILED {name} ({took:.1f} s)", flush=True)
            for fault in self._faults:
                print("    " + fault.replace("\n", "\n    "), flush=True)
        else:
            self.passed += 1
            print(f"[{self.done}/{self.total}] ok     {name} ({took:.1f} s)", flush=True)
        self._faults = []


def tests_in(suite):
    for each in suite:
        if isinstance(each, unittest.TestSuite):
            yield from tests_in(each)
        else:
            yield each


def chosen(suite: unittest.TestSuite, words: list[str]) -> unittest.TestSuite:
    return unittest.TestSuite(test for test in tests_in(suite) if not words or any(word in test.id() for word in words))


def count_cargo(log: Path, result: Result):
    """Adds what `cargo test` said: its numbers, and the lines `peer NAME: ..` of the tests that ran against one."""
    text = log.read_text(errors="replace") if log.exists() else ""
    summaries = re.findall(r"^test result: \w+\. (\d+) passed; (\d+) failed", text, re.M)
    result.passed += sum(int(passed) for passed, _ in summaries)
    failed = re.findall(r"^test (\S+) .*\.\.\. FAILED$", text, re.M)
    count = max(len(failed), sum(int(count) for _, count in summaries))
    result.failed += (failed + [f"a test in {log}"] * count)[:count]
    if not summaries:
        result.failed.append(f"cargo test ran nothing: see {log}")
    for place, peer in enumerate(re.findall(r"^peer ([\w.-]+): ", text, re.M)):
        peers.tests_against.setdefault(peer, set()).add(f"{log.stem} {place}")


def compare_peers(result: Result, accept: bool, with_cargo: bool):
    """The table of peers; one that is missing, or was run against less or more often than agreed, is a failure."""
    counted = {peer: len(tests) for peer, tests in sorted(peers.tests_against.items())}
    expected = json.loads(EXPECTED.read_text()) if EXPECTED.exists() else {}
    if accept:
        kept = {} if with_cargo else {peer: count for peer, count in expected.get("cargo test", {}).items()}
        ours = {peer: count for peer, count in counted.items() if not all(test.startswith(("core ", "whole ")) for test in peers.tests_against[peer])}
        cargo = {peer: count for peer, count in counted.items() if peer not in ours} or kept
        EXPECTED.write_text(json.dumps({"black box": ours, "cargo test": cargo}, indent=4) + "\n")
        expected = json.loads(EXPECTED.read_text())
    wanted = dict(expected.get("black box", {})) | (expected.get("cargo test", {}) if with_cargo else {})
    print("\ntests against each peer:")
    for peer in sorted(wanted | counted):
        have, want = counted.get(peer, 0), wanted.get(peer, 0)
        note = "" if have == want else f"   expected {want} (after adding or removing tests: run.py --accept-peers)"
        print(f"  {have:4}  {peer}{note}")
        if have != want:
            result.failed.append(f"{have} tests against {peer} in place of {want}")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("words", nargs="*", help="only tests whose name contains one of these")
    parser.add_argument("--list", action="store_true")
    parser.add_argument("--accept-peers", action="store_true", help="write expected_peers.json")
    parser.add_argument("--with-cargo-log", type=Path, action="append", default=[], help="add the numbers that cargo test printed")
    parser.add_argument("--exit-with", type=int, default=0, help="exit code when nothing fails here (an earlier step failed)")
    arguments = parser.parse_args()

    def suite():
        return chosen(unittest.defaultTestLoader.discover(str(HERE), "test_*.py", str(HERE)), arguments.words)

    once = suite()
    twice = unittest.TestSuite(test for test in tests_in(suite()) if test.id().startswith(TWICE) and not any(word in test.id() for word in NOT_TWICE))
    if arguments.list:
        for test in tests_in(once):
            print(test.id())
        return 0

    try:
        box.binary()
    except FileNotFoundError as error:                     # said once, and not by every test
        print(f"{error}\n0 passed, 1 failed")
        return 1
    started, result = time.monotonic(), Result(once.countTestCases() + twice.countTestCases())
    os.environ.pop("DOUBLE", None)
    talk.SideBySide.chosen = {test.id() for test in tests_in(once)}
    once.run(result)
    os.environ["DOUBLE"], result.pass_name = "1", " (every datagram twice)"
    talk.SideBySide.chosen = {test.id() for test in tests_in(twice)}
    # A class that came last is to be set up anew, although unittest believes that it still is.
    result._previousTestClass = None
    twice.run(result)
    for log in arguments.with_cargo_log:
        count_cargo(log, result)
    if not arguments.words:
        compare_peers(result, arguments.accept_peers, bool(arguments.with_cargo_log))
    if arguments.exit_with and not result.failed:
        result.failed.append("an earlier step failed: see above")
    if result.failed:
        print("\nfailed:")
        for name in result.failed:
            print(f"  {name}")
    print(f"\n{(time.monotonic() - started) / 60:.1f} minutes over real sockets")
    print(f"{result.passed} passed, {len(result.failed)} failed", flush=True)
    return 1 if result.failed else 0


if __name__ == "__main__":
    sys.exit(main())
