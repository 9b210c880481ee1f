"""Programs that others wrote, run as trunks beside the box: baresip, Kamailio and sipp."""

from __future__ import annotations

import csv
import json
import os
import socket
import subprocess
import time
import unittest
from pathlib import Path

import peers
from box import Box, free_port

SCENARIOS = Path(__file__).resolve().parent / "sipp"


def unpacked(*below: str) -> Path:
    """A file of a package that tests/peers/fetch.sh has unpacked."""
    where = os.environ.get("ENCAMP_PEERS") or str(SCENARIOS.parents[2] / "target" / "peers")
    found = next(Path(where).glob(str(Path(*below))), None)
    if found is None:
        raise FileNotFoundError(f"{Path(*below)} is missing below {where}: tests/peers/fetch.sh {where}")
    return found


class Program:
    """A program that runs until closed; what it said is in `directory`/log."""

    def __init__(self, test: unittest.TestCase, peer: str, directory: Path):
        self.test, self.path, self.directory = test, peers.program(peer, test), directory
        directory.mkdir()
        self.process: subprocess.Popen | None = None
        test.addCleanup(self.close)

    def run(self, *words: str, **more):
        with (self.directory / "log").open("wb") as log:
            self.process = subprocess.Popen([self.path, *words], stdin=subprocess.DEVNULL, stdout=log, stderr=log, cwd=self.directory, **more)

    def log(self) -> str:
        return (self.directory / "log").read_text(errors="replace")

    def close(self):
        if self.process and self.process.poll() is None:
            self.process.terminate()
            try:
                self.process.wait(3)
            except subprocess.TimeoutExpired:
                self.process.kill()
                self.process.wait()


class Baresip(Program):
    """A softphone with a GSM codec: says what it hears, answers by itself, dials when told, and texts to its one `contact`."""

    def __init__(self, test, box: Box, host: str, port: int, number: str, contact: str = ""):
        super().__init__(test, "baresip", box.directory / f"baresip-{port}")
        self.host, self.port, self.control = host, port, free_port(host)
        modules = unpacked("usr", "lib", "baresip", "modules", "gsm.so").parent
        (self.directory / "config").write_text(f"""
module_path {modules}
sip_listen {host}:{port}
audio_source aubridge,itself
audio_player aubridge,itself
net_interface {host}
rtp_ports 17000-17998
module aubridge.so
module gsm.so
module_tmp account.so
module_app menu.so
module_app ctrl_tcp.so
module_app contact.so
ctrl_tcp_listen {host}:{self.control}
""")
        (self.directory / "accounts").write_text(f'<sip:{number}@{host}:{port}>;regint=0;answermode=auto;audio_codecs=gsm;outbound="sip:{box.host}:{box.calls}"\n')
        (self.directory / "contacts").write_text(f'"contact" <sip:{contact}@{box.host}:{box.calls}>;access=allow\n' if contact else "")
        self.run("-4", "-s", "-f", str(self.directory))
        until = time.monotonic() + 10
        while True:
            try:
                self.stream = socket.create_connection((host, self.control), 1)
                break
            except OSError:
                if time.monotonic() > until:
                    raise AssertionError(f"baresip does not listen:\n{self.log()[-2000:]}") from None
                time.sleep(0.1)
        test.addCleanup(self.stream.close)
        self.stream.settimeout(0.1)
        self.said = ""

    def told(self, event: str, count: int, timeout: float = 3) -> bool:
        """Whether it has told so many of these events (`CALL_CLOSED`) on its control connection; what it prints comes late."""
        until = time.monotonic() + timeout
        while self.said.count(f'"{event}"') < count and time.monotonic() < until:
            try:
                self.said += self.stream.recv(65536).decode(errors="replace")
            except TimeoutError:
                pass
        return self.said.count(f'"{event}"') >= count

    def command(self, name: str, parameters: str = ""):
        text = json.dumps({"command": name, "params": parameters, "token": "test"})
        self.stream.sendall(f"{len(text)}:{text},".encode())  # a netstring

    def text(self, text: str):
        """A MESSAGE to its contact."""
        self.command("message", text)

    def dial(self, number: str, box: Box):
        self.command("dial", f"sip:{number}@{box.host}:{box.calls}")


class Kamailio(Program):
    """A proxy as its operators write it: sends calls to the box and follows its 302 by itself, with a failure route.

    `behind` is a gateway that it hides: what comes from the box goes there, and the proxy stays in the way (Record-Route).
    """

    def __init__(self, test, box: Box, host: str, port: int, behind: tuple[str, int] | None = None):
        super().__init__(test, "kamailio", box.directory / f"kamailio-{port}")
        self.host, self.port = host, port
        modules = unpacked("usr", "lib", "*", "kamailio", "modules", "tm.so").parent
        hidden = f'if (is_method("INVITE") && src_ip == {box.host}) {{ record_route(); t_relay_to_udp("{behind[0]}", "{behind[1]}"); exit; }}' if behind else ""
        configuration = self.directory / "kamailio.cfg"
        configuration.write_text(f"""
debug=2
log_stderror=yes
fork=yes
children=2
disable_tcp=yes
auto_aliases=no
listen=udp:{host}:{port}
mpath="{modules}/"
loadmodule "pv.so"
loadmodule "tm.so"
loadmodule "sl.so"
loadmodule "rr.so"
loadmodule "maxfwd.so"
loadmodule "textops.so"
loadmodule "siputils.so"
loadmodule "uac_redirect.so"
modparam("uac_redirect", "acc_function", "")

request_route {{
    if (!mf_process_maxfwd_header("10")) {{
        sl_send_reply("483", "Too Many Hops");
        exit;
    }}
    if (has_totag()) {{
        loose_route();
        t_relay();
        exit;
    }}
    {hidden}
    if (is_method("INVITE")) {{
        t_on_failure("FOLLOW");
        t_relay_to_udp("{box.host}", "{box.calls}");
        exit;
    }}
    t_relay();
}}

failure_route[FOLLOW] {{
    if (t_check_status("30[0-9]")) {{
        get_redirects("*");
        t_relay();
    }}
}}
""")
        self.run("-f", str(configuration), "-DD", "-E", "-m", "16", "-M", "4", "-Y", str(self.directory), "-w", str(self.directory))
        until = time.monotonic() + 10
        while not self.listens():
            if time.monotonic() > until or self.process.poll() is not None:
                raise AssertionError(f"Kamailio does not listen:\n{self.log()[-2000:]}")
            time.sleep(0.1)

    def listens(self) -> bool:
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as trial:
            try:
                trial.bind((self.host, self.port))
            except OSError:
                return True
        return False


class Sipp(Program):
    """One sipp with a scenario, in the background; `done` demands that every call went well."""

    def __init__(self, test, box: Box, scenario: str, *, host: str, port: int = 0, to: tuple[str, int] | None = None, rows: list[tuple] = (), calls: int = 1,
                 more: tuple = ()):
        port = port or free_port(host)
        super().__init__(test, "sipp", box.directory / f"sipp-{scenario}-{port}")
        self.calls = calls
        what = ["-sf", str(SCENARIOS / f"{scenario}.xml")] if (SCENARIOS / f"{scenario}.xml").exists() else ["-sn", scenario]
        if rows:
            (self.directory / "rows.csv").write_text("SEQUENTIAL\n" + "".join(";".join(map(str, row)) + "\n" for row in rows))
            what += ["-inf", str(self.directory / "rows.csv")]
        self.run(*([f"{to[0]}:{to[1]}"] if to else []), *what, "-i", host, "-p", str(port), "-cp", str(free_port(host)), "-mp", str(free_port(host)),
                 "-m", str(calls), "-r", "10", "-l", "10", "-nostdin", "-timeout", "40s", "-timeout_error", "-trace_err", "-error_file",
                 str(self.directory / "errors"), "-trace_stat", "-stf", str(self.directory / "counts.csv"), "-fd", "1", "-trace_msg", "-message_file",
                 str(self.directory / "messages"), *more, env=dict(os.environ, TERM="dumb"))
        if not to:                                         # it waits for calls: let it bind first
            time.sleep(0.5)

    def done(self, timeout: float = 50):
        code = self.process.wait(timeout)
        errors = (self.directory / "errors").read_text(errors="replace")[:3000] if (self.directory / "errors").exists() else self.log()[-1500:]
        self.test.assertEqual(code, 0, errors)
        counts = list(csv.DictReader((self.directory / "counts.csv").read_text().splitlines(), delimiter=";"))[-1]
        self.test.assertEqual((int(counts["SuccessfulCall(C)"]), int(counts["FailedCall(C)"])), (self.calls, 0), errors)
