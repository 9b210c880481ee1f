"""What an operator sees of calls: `encamp calls`, `calls end`, and the file of records."""

import csv
import time

from box import PBX, Station, Talker
from talk import QUICK, SideBySide, open_sims

COLUMNS = "id,started,answered,ended,duration_s,from,to,from_imsi,to_imsi,from_cell,to_cell,outcome,code,cause,ended_by,why".split(",")
TIME = r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d+)?Z$"


class Records(SideBySide):
    options = {"sims": open_sims(40)}

    @classmethod
    def ready(cls):
        cls.hill, cls.mill = (Station(cls.box, cls.box.addresses[name], cls.box.station_ports[name], **QUICK) for name in ("hill", "mill"))

    def listed(self, phone) -> dict | None:
        """The call of this phone, as `encamp calls` tells it; what is just being buried left out."""
        reply = self.box.command("calls")
        self.assertEqual(reply.code, 0, reply.err)
        found = [call for call in reply.data if self.number(phone) in (call["from"], call["to"]) and call["state"] != "ending"]
        self.assertLess(len(found), 2, found)
        return found[0] if found else None

    def record(self, dialled: str, caller: str) -> dict:
        """The one line of this call, once it is there."""
        def lines():
            path = self.box.data_dir / "calls.csv"
            return [row for row in csv.DictReader(path.open(newline=""))
                    if row["to"] == dialled and row["from"] == caller] if path.exists() else []
        self.assertTrue(self.hill.wait(lines, 8), f"no record of {caller} calling {dialled}")
        time.sleep(0.5)
        self.assertEqual(len(lines()), 1, "one line per call")
        row = lines()[0]
        self.assertEqual(list(row), COLUMNS)
        self.assertRegex(row["started"], TIME)
        self.assertRegex(row["ended"], TIME)
        return row

    def test_a_call_as_it_goes_on_and_its_record(self):
        ana, bob = self.phones(2, self.hill, self.mill)
        bob.answers = "ring"
        call = self.hill.call(ana, self.number(bob, 1))
        self.assertTrue(call.wait("ringing", timeout=5))
        shown = self.listed(ana)
        self.assertEqual((shown["state"], shown["from"]), ("ringing", self.number(ana)))
        self.assertIn(shown["to"], self.box.numbers_of(bob))
        call.cancel()
        bob.answers = "answer"
        call = self.hill.call(ana, self.number(bob))
        self.assertUp(call)
        time.sleep(1.2)
        shown = self.listed(ana)
        self.assertLessEqual({"id", "state", "from", "to", "since", "cells", "duration_s"}, set(shown))
        self.assertEqual((shown["state"], shown["from"], shown["to"]), ("up", self.number(ana), self.number(bob)))
        self.assertRegex(shown["since"], TIME)
        self.assertTrue(1 <= shown["duration_s"] <= 4, shown)
        self.assertEqual(len(shown["cells"]), 2)
        for cell, name in zip(shown["cells"], ("hill", "mill")):
            self.assertRegex(cell, rf"^{name}( 001-01-1000-10)?$")
        self.assertIn("001-01-1000-10", shown["cells"][1], "the 200 said from which cell")
        self.assertEqual(call.hangup(), 200)
        self.assertTrue(self.hill.wait(lambda: self.listed(ana) is None, 7))
        row = self.record(self.number(bob), self.number(ana))
        self.assertEqual((row["outcome"], row["code"], row["cause"], row["ended_by"]), ("answered", "200", "16", "caller"), row)
        self.assertEqual((row["from_imsi"], row["to_imsi"], row["id"]), (ana.imsi, bob.imsi, shown["id"]))
        self.assertRegex(row["answered"], TIME)
        self.assertTrue(1 <= float(row["duration_s"]) <= 4, row)
        self.assertTrue(row["from_cell"].startswith("hill") and row["to_cell"].startswith("mill"), row)
        row = self.record(self.number(bob, 1), self.number(ana))
        self.assertEqual((row["outcome"], row["code"], row["ended_by"], row["answered"]), ("cancelled", "487", "caller", ""), row)

    def test_calls_end_ends_it_at_both_phones(self):
        for state in ("up", "ringing"):
            ana, bob = self.phones(2, self.hill, self.mill, answers="answer" if state == "up" else "ring")
            call = self.hill.call(ana, self.number(bob))
            self.assertTrue(call.wait(state, timeout=8))
            other = self.called(self.mill, bob)
            self.hill.wait(lambda: state == "ringing" or other.got_ack, 3)
            reply = self.box.command("calls", "end", self.listed(ana)["id"])
            self.assertEqual(reply.code, 0, reply.err)
            if state == "up":
                self.assertTrue(call.wait("ended", timeout=4) and call.ended_by == "them", call)
                self.assertTrue(other.wait("ended", timeout=4) and other.ended_by == "them", other)
            else:
                self.assertTrue(call.wait("failed", timeout=4), call)
                self.assertTrue(other.wait("cancelled", timeout=4), other)
            self.assertQuiet((self.hill, call.invite.call_id), (self.mill, other.invite.call_id), buried=((self.mill, other.invite.call_id),))
            row = self.record(self.number(bob), self.number(ana))
            self.assertEqual(row["ended_by"], "us", row)
            self.assertIsNone(self.listed(ana))

    def test_no_such_call(self):
        reply = self.box.command("calls", "end", "nonsense")
        self.assertNotEqual(reply.code, 0)
        self.assertRegex(reply.err, r'"error"')

    def test_refused_calls_have_their_line(self):
        ana, busy, absent = self.phones(3, self.hill, self.mill)
        busy.answers, absent.on = "busy", False
        away, stranger = self.box.phone("none"), self.box.phone("none")
        self.hill.add(stranger)
        for caller, dialled, code, cause in ((ana, self.number(busy), 486, 17), (ana, self.number(absent), 480, 27), (ana, self.number(away), 480, 18),
                                             (stranger, self.number(busy), 403, 21)):
            call = self.hill.call(caller, dialled)
            self.assertTrue(call.wait("failed", timeout=12), call)
            row = self.record(dialled, self.number(caller))
            self.assertEqual((row["outcome"], row["code"], row["cause"], row["answered"]), ("refused", str(code), str(cause), ""), row)
            self.assertEqual(row["from_imsi"], caller.imsi)

    def test_a_redirected_call_has_its_line(self):
        bob = self.phones(1, self.mill)[0]
        with Talker(self.box, PBX) as pbx:
            self.assertEqual(pbx.invite(self.number(bob)).code, 302)
        row = self.record(self.number(bob), "pbx")
        self.assertEqual((row["outcome"], row["code"], row["to_imsi"], row["answered"]), ("redirected", "302", bob.imsi, ""), row)

    def test_the_log_names_nobody(self):
        ana, bob = self.phones(2, self.hill, self.mill)
        call = self.hill.call(ana, self.number(bob))
        self.assertUp(call)
        self.assertEqual(call.hangup(), 200)
        time.sleep(0.5)
        for secret in (ana.imsi, bob.imsi, self.number(ana), self.number(bob)):
            self.assertNotIn(secret, self.box.log())


class Turning(SideBySide):
    """A small file is turned, and the oldest goes."""

    options = {"sims": open_sims(6), "trunks": False, "more": '[calls]\nrecord_file_max = "1 kB"\nrecord_file_count = 2\n'}

    @classmethod
    def ready(cls):
        cls.hill = Station(cls.box, cls.box.addresses["hill"], cls.box.station_ports["hill"], **QUICK)

    def test_the_file_is_turned(self):
        ana = self.phones(1, self.hill)[0]
        for number in range(40):
            call = self.hill.call(ana, f"7{number:03d}")
            self.assertFailed(call, 404)
        time.sleep(1)
        files = sorted(path.name for path in self.box.data_dir.glob("calls.csv*"))
        self.assertEqual(files, ["calls.csv", "calls.csv.1", "calls.csv.2"])
        rows = []
        for name in reversed(files):
            path = self.box.data_dir / name
            self.assertLessEqual(path.stat().st_size, 1100)
            self.assertEqual(path.stat().st_mode & 0o007, 0, "who called whom is not for everybody")
            rows += [row["to"] for row in csv.DictReader(path.open(newline=""))]
        self.assertEqual(rows, [f"7{number:03d}" for number in range(40)][-len(rows):], "in order, and the youngest are kept")
        self.assertTrue(rows)
