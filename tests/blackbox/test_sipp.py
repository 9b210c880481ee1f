"""What others wrote: sipp as trunk and base station, sipsak as a ping, dig as the one who asks the zone."""

import csv
import os
import re
import subprocess
import unittest
from pathlib import Path

import peers
from box import DOMAIN, PBX, SIPSAK, STATIONS, BoxTest, free_port, sims_for_tests

SCENARIOS = Path(__file__).resolve().parent / "sipp"
CALLS, CALLS_PER_S = 60, 20


class Sipp(BoxTest):
    options = {"sims": sims_for_tests(40)}

    def sipp(self, scenario: str, rows: list[tuple], *, host: str = PBX, port: int | None = None, calls: int, to_port: int, more: tuple = ()):
        """Runs a scenario so often, with a line of `rows` for each call in turn, and demands that every call went well."""
        directory = self.box.directory / f"sipp-{self.id().rpartition('.')[2]}-{scenario}"
        directory.mkdir()
        (directory / "rows.csv").write_text("SEQUENTIAL\n" + "".join(";".join(map(str, row)) + "\n" for row in rows))
        command = [peers.program("sipp", self), f"{self.box.host}:{to_port}", "-sf", str(SCENARIOS / f"{scenario}.xml"),
                   "-inf", str(directory / "rows.csv"), "-i", host, "-p", str(port or free_port(host)), "-cp", str(free_port(host)), "-m", str(calls),
                   "-r", str(CALLS_PER_S), "-l", "40", "-nostdin", "-timeout", "60s", "-timeout_error", "-max_retrans", "2",
                   "-trace_err", "-error_file", str(directory / "errors"), "-trace_stat", "-stf", str(directory / "counts.csv"), "-fd", "1", *more]
        done = subprocess.run(command, capture_output=True, text=True, timeout=90, cwd=directory, env=dict(os.environ, TERM="dumb"))
        errors = (directory / "errors").read_text(errors="replace")[:3000] if (directory / "errors").exists() else done.stderr[-2000:]
        self.assertEqual(done.returncode, 0, errors)
        counts = list(csv.DictReader((directory / "counts.csv").read_text().splitlines(), delimiter=";"))[-1]
        self.assertEqual((int(counts["SuccessfulCall(C)"]), int(counts["FailedCall(C)"])), (calls, 0), errors)
        # Every answer came before sipp asked again: none was late, none was lost.
        self.assertEqual(int(counts["Retransmissions(C)"]), 0)

    def test_calls_from_a_trunk_are_redirected_and_acknowledged(self):
        hill = self.box.station("hill")
        phones = [self.box.phone("none") for _ in range(10)]
        for phone in phones:
            self.assertTrue(hill.register(phone).ok)
        rows = [(number,) for phone in phones for number in self.box.numbers_of(phone)]
        self.sipp("invite_302", rows, calls=CALLS, to_port=self.box.calls)

    def test_calls_over_tcp_are_redirected_too(self):
        hill, ana = self.box.station("hill"), self.box.phone("none")
        self.assertTrue(hill.register(ana).ok)
        self.sipp("invite_302", [(number,) for number in self.box.numbers_of(ana)], calls=20, to_port=self.box.calls, more=("-t", "t1"))

    def test_calls_to_nobody_and_to_the_absent(self):
        away = self.box.phone("none")
        rows = [("+15551234567",), (self.box.numbers_of(away)[0],)]
        self.sipp("invite_refused", rows, calls=20, to_port=self.box.calls)

    def test_open_sims_register_and_detach(self):
        rows = [(self.box.sim("none").imsi,) for _ in range(20)]
        self.sipp("register_open", rows, host=STATIONS["hill"], port=self.box.station_ports["hill"], calls=20, to_port=self.box.registration)
        for imsi, in rows:
            self.assertEqual(self.box.lookup(imsi)["bindings"], [])

    def test_a_wrong_sres_stays_out(self):
        rows = [(self.box.sim(algorithm).imsi,) for algorithm in ("comp128v1", "comp128v2", "milenage-op", "xor") for _ in range(5)]
        self.sipp("register_challenged", rows, host=STATIONS["dale"], calls=20, to_port=self.box.registration)
        for imsi, in rows:
            self.assertEqual(self.box.lookup(imsi)["bindings"], [])

    def test_an_unknown_imsi_is_404(self):
        rows = [(f"00101888000{number:04d}",) for number in range(20)]
        self.sipp("register_unknown", rows, host=STATIONS["dale"], calls=20, to_port=self.box.registration)

    def test_sipsak_pings(self):
        for port in (self.box.calls, self.box.texts, self.box.registration):
            done = subprocess.run([peers.program("sipsak", self), "-vv", "-s", f"sip:ping@{self.box.host}:{port}", "-l", str(free_port(SIPSAK))],
                                  capture_output=True, text=True, timeout=30)
            self.assertEqual(done.returncode, 0, done.stdout + done.stderr)
            self.assertRegex(done.stdout + done.stderr, r"SIP/2\.0 200")


class Dig(BoxTest):
    """The zone as anybody sees it."""

    options = {"sims": sims_for_tests(3)}

    def dig(self, name: str, kind: str, *more: str) -> tuple[str, list[list[str]], str]:
        """Response code, the answer's records as lists of words, and all that dig printed."""
        done = subprocess.run([peers.program("dig", self), f"@{self.box.host}", "-p", str(self.box.dns), name, kind, "+tries=1", "+time=5",
                               "+norecurse", *more], capture_output=True, text=True, timeout=30)
        self.assertEqual(done.returncode, 0, done.stdout + done.stderr)
        self.assertNotIn("Warning", done.stdout)
        self.assertNotIn("WARNING", done.stdout.replace("WARNING: recursion requested but not available", ""))
        section = done.stdout.partition(";; ANSWER SECTION:")[2].partition("\n\n")[0]
        records = [line.split(None, 4) for line in section.strip().splitlines()]
        return re.search(r"status: (\w+)", done.stdout).group(1), records, done.stdout

    @staticmethod
    def name_of(imsi: str) -> str:
        return f"{'.'.join(imsi)}.imsi.{DOMAIN}"

    def values(self, name: str, kind: str, *more: str) -> list[str]:
        status, records, out = self.dig(name, kind, *more)
        self.assertEqual(status, "NOERROR", out)
        return sorted(record[4] for record in records if record[3] == kind)

    def test_from_an_imsi_to_the_addresses_of_its_replicas(self):
        for imsi, shard, replicas in (("001010000000349", "low", "ab"), ("001010000000350", "high", "cd"), ("00101000000007", "low", "ab")):
            with self.subTest(imsi=imsi):
                naptr = self.values(self.name_of(imsi), "NAPTR")
                services = {record.split()[3].strip('"'): record.split()[5] for record in naptr}
                self.assertEqual(services, {"SIP+D2U": f"_sip._udp.{shard}.shard.{DOMAIN}.", "SIP+D2T": f"_sip._tcp.{shard}.shard.{DOMAIN}."})
                for service in services.values():
                    srv = [record.split() for record in self.values(service, "SRV")]
                    self.assertEqual(sorted((int(port), target) for _, _, port, target in srv),
                                     sorted((self.box.listening[name], f"{name}.replica.{DOMAIN}.") for name in replicas))
                    self.assertEqual({(priority, weight) for priority, weight, _, _ in srv}, {("10", "10")})
                    for _, _, _, target in srv:
                        self.assertEqual(self.values(target, "A"), [self.box.host])

    def test_numbers_long_and_short(self):
        ana = self.box.sim("none")
        long, short = ana.numbers
        digits = ".".join(reversed(long.lstrip("+")))
        self.assertEqual(self.values(f"{digits}.e164.{DOMAIN}", "NAPTR"),
                         [f'10 100 "u" "E2U+sip" "!^.*$!sip:{long}@{DOMAIN}!" .'])
        found = self.values(f"{'.'.join(reversed(short))}.num.{DOMAIN}", "NAPTR")
        self.assertEqual(len(found), 1)
        self.assertIn(f"sip:{short}@{DOMAIN}", found[0])
        self.assertNotIn(ana.imsi, found[0], "no IMSI to the outside")
        # The prefix of a number exists, and has nothing.
        status, records, out = self.dig(f"{digits.partition('.')[2]}.e164.{DOMAIN}", "NAPTR")
        self.assertEqual((status, records), ("NOERROR", []), out)
        self.assertIn("SOA", out)

    def test_the_map_tells_how_many_digits_it_uses(self):
        text = " ".join(self.values(f"imsi.{DOMAIN}", "TXT"))
        self.assertRegex(text, r"\bdigits=2\b")
        self.assertRegex(text, r"\bepoch=\d+")
        self.assertRegex(" ".join(self.values(f"low.shard.{DOMAIN}", "TXT")), r"replicas=2 quorum=1 epoch=\d+")

    def test_the_apex(self):
        soa = self.values(DOMAIN, "SOA")
        self.assertEqual(len(soa), 1)
        self.assertEqual(len(self.values(DOMAIN, "NS")), 1)
        naptr = self.values(DOMAIN, "NAPTR")
        self.assertTrue(any(f"_sip._udp.front.{DOMAIN}." in record for record in naptr) or any(f"_sip._udp.{DOMAIN}." in record for record in naptr), naptr)
        self.assertEqual(self.values(f"front.{DOMAIN}", "A"), [self.box.host])

    def test_what_is_not_there_is_told_with_the_soa(self):
        for name, kind, status in ((f"nothing.{DOMAIN}", "A", "NXDOMAIN"), (f"9.9.9.e164.{DOMAIN}", "NAPTR", "NXDOMAIN"),
                                   (f"a.replica.{DOMAIN}", "TXT", "NOERROR"), (self.name_of("001010000000349"), "MX", "NOERROR")):
            with self.subTest(name=name):
                got, records, out = self.dig(name, kind)
                self.assertEqual((got, records), (status, []), out)
                self.assertRegex(out, r"AUTHORITY SECTION:\n\S+\s+\d+\s+IN\s+SOA")

    def test_what_is_not_ours_is_refused(self):
        for name, kind in (("example.org", "A"), (".", "NS"), (DOMAIN, "AXFR")):
            with self.subTest(name=name, kind=kind):
                done = subprocess.run([peers.program("dig", self), f"@{self.box.host}", "-p", str(self.box.dns), name, kind, "+tries=1", "+time=5"],
                                      capture_output=True, text=True, timeout=30)
                self.assertTrue("REFUSED" in done.stdout or "Transfer failed" in done.stdout, done.stdout)

    def test_tcp_and_edns(self):
        name = self.name_of("001010000000349")
        over_udp = self.values(name, "NAPTR")
        self.assertEqual(self.values(name, "NAPTR", "+tcp"), over_udp)
        self.assertEqual(self.values(name, "NAPTR", "+noedns"), over_udp)
        self.assertEqual(self.values(name, "NAPTR", "+bufsize=512"), over_udp)
        _, _, out = self.dig(name, "NAPTR")
        self.assertRegex(out, r"flags: qr aa")
        self.assertRegex(out, r"EDNS: version: 0")

    def test_upper_and_lower_case_are_the_same(self):
        self.assertEqual(self.values(f"FRONT.{DOMAIN.upper()}", "A"), [self.box.host])

    def test_the_zone_dump_says_what_dig_hears(self):
        dump = self.box.command("zone", "dump")
        self.assertEqual(dump.code, 0, dump.err)
        records = {(record["name"].rstrip(".").lower(), record["type"]) for record in dump.data}
        for name, kind in ((DOMAIN, "SOA"), (f"imsi.{DOMAIN}", "TXT"), (f"a.replica.{DOMAIN}", "A"), (f"_sip._udp.low.shard.{DOMAIN}", "SRV"),
                           (f"*.9.4.imsi.{DOMAIN}", "NAPTR"), (f"9.4.imsi.{DOMAIN}", "NAPTR")):
            self.assertIn((name, kind), records)


if __name__ == "__main__":
    unittest.main()
