"""The real binary on loopback: configured, started, asked, stopped, killed.

    with Box(test) as box:                       # a directory, addresses and ports of its own; nothing is left behind
        hill = box.station("hill")               # a simulated OpenBTS that the box knows
        ana = box.phone("comp128v3")             # a SIM that the box knows
        assert hill.register(ana).ok
        print(box.lookup(ana.imsi))

`ENCAMP_BIN` names the binary (default target/release/encamp). `DOUBLE=1` lets every base station send every datagram twice.
Python 3 standard library only.
"""

from __future__ import annotations

import hashlib
import itertools
import json
import os
import random
import re
import secrets
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
import unittest
from dataclasses import dataclass, field
from pathlib import Path

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parent / "peers"))

import obts                                                # noqa: E402  (found through the line above)
import peers                                               # noqa: E402
import yate                                                # noqa: E402
from power_cut import Disk                                 # noqa: E402
from sip import Message, letters, uri_in                   # noqa: E402

#: Who is who on loopback. Trust goes by address, so each role has its own; ports are whatever is free.
BOX, SECOND_BOX = "127.0.0.65", "127.0.0.66"
STATIONS = {"hill": "127.0.0.71", "dale": "127.0.0.72", "mill": "127.0.0.73"}
AREAS = {"hill": "valley", "dale": "valley", "mill": "plain"}
NAMELESS_STATION = "127.0.0.78"                            # inside front.base_stations, without a table
PBX, PEER, STRANGER = "127.0.0.81", "127.0.0.82", "127.0.0.91"
SIPSAK = "127.0.0.1"                                       # sipsak cannot be told which address to send from
DOMAIN = "gsm.example"

ALGORITHMS = ("comp128v1", "comp128v2", "comp128v3", "milenage-op", "milenage-opc", "xor", "none")
START_S, STOP_S, COMMAND_S = 10, 10, 30


def binary() -> str:
    path = os.environ.get("ENCAMP_BIN") or str(HERE.parents[1] / "target" / "release" / "encamp")
    if not os.access(path, os.X_OK):
        raise FileNotFoundError(f"there is no binary at {path}: cargo build --release, or set ENCAMP_BIN")
    return path


# --- Ports ------------------------------------------------------------------------------------------------------------

_taken: set[tuple[str, int]] = set()
_dice = random.Random(os.getpid())                         # several suites may run on one machine


def free_port(host: str) -> int:
    """A port that is free for UDP and TCP, below those that the kernel gives away by itself."""
    for _ in range(200):
        port = _dice.randrange(20000, 32000)
        if (host, port) in _taken:
            continue
        try:
            for kind in (socket.SOCK_DGRAM, socket.SOCK_STREAM):
                with socket.socket(socket.AF_INET, kind) as trial:
                    if kind == socket.SOCK_STREAM:
                        trial.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
                    trial.bind((host, port))
        except OSError:
            continue
        _taken.add((host, port))
        return port
    raise RuntimeError(f"no free port at {host}")


# --- What is provisioned ------------------------------------------------------------------------------------------------

@dataclass
class Sim:
    """A SIM as it is written into subscribers.d. Its keys come from its IMSI: every run has the same."""

    imsi: str
    algorithm: str                                         # one of ALGORITHMS
    numbers: list[str] = field(default_factory=list)
    name: str = ""
    barred: bool = False
    language: str = ""
    more: str = ""                                         # more lines of its table

    def key(self, which: str) -> str:
        return hashlib.sha256(f"{which} of {self.imsi}".encode()).hexdigest()[:32]

    def toml(self) -> str:
        algorithm, _, variant = self.algorithm.partition("-")
        auth = [f'algorithm = "{algorithm}"']
        if algorithm != "none":
            auth.append(f'ki = "{self.key("ki")}"')
        if variant:
            auth.append(f'{variant} = "{self.key(variant)}"')
        numbers = ", ".join(f'"{number}"' for number in self.numbers)
        return (f'[[subscriber]]\nimsi = "{self.imsi}"\nmsisdn = [{numbers}]\nauth = {{ {", ".join(auth)} }}\n'
                + (f'name = "{self.name}"\n' if self.name else "") + ("barred = true\n" if self.barred else "")
                + (f'language = "{self.language}"\n' if self.language else "") + self.more + "\n")

    def phone(self) -> obts.Phone:
        algorithm, _, variant = self.algorithm.partition("-")
        return obts.Phone(self.imsi, "" if algorithm == "none" else self.key("ki"), algorithm,
                          **({variant: self.key(variant)} if variant else {}))


def sims_for_tests(count: int = 24) -> list[Sim]:
    """Some SIMs of each algorithm; their last two digits run through both halves of the demo's map."""
    sims, serial = [], itertools.count(1)
    for each in range(count):
        for algorithm in ALGORITHMS:
            number = next(serial)
            suffix = (number * 37) % 100
            sims.append(Sim(f"00101{number:08d}{suffix:02d}", algorithm, [f"+1555{number:05d}", f"2{number:03d}"],
                            f"{algorithm} {each}"))
    return sims


@dataclass
class Shard:
    name: str
    suffixes: list[str]
    replicas: list[str]
    write_quorum: int | None = None

    def toml(self) -> str:
        return (f'[[shard]]\nname = "{self.name}"\nsuffixes = {json.dumps(self.suffixes)}\nreplicas = {json.dumps(self.replicas)}\n'
                + (f"write_quorum = {self.write_quorum}\n" if self.write_quorum else "") + "\n")


def two_shards(write_quorum: int | None = None) -> list[Shard]:
    """The demo's map."""
    return [Shard("low", ["00-49"], ["a", "b"], write_quorum), Shard("high", ["50-99"], ["c", "d"], write_quorum)]


# --- The box ------------------------------------------------------------------------------------------------------------

@dataclass
class Reply:
    """What a command said."""

    code: int
    out: str
    err: str

    @property
    def data(self):
        return json.loads(self.out)


class Box:
    """One `encamp run` with a directory of its own.

    `test` is the test (or test class) that uses it. `remote` names replicas that are elsewhere, with their addresses;
    `listening` those of ours that others reach (all: there are peers). `disk=True` runs it on a disk that can fail (shim.c).
    """

    def __init__(self, test=None, *, host: str = BOX, shards: list[Shard] | None = None, sims: list[Sim] | None = None,
                 remote: dict[str, tuple[str, int]] | None = None, listening: tuple[str, ...] | None = None, cluster_key: str = "",
                 disk: bool = False, top_more: str = "", front_more: str = "", more: str = "", trunks: bool = True,
                 trunk_mode: str = "redirect", sites: dict[str, str] | None = None, station_more: dict[str, str] | None = None):
        self.test, self.host, self.shards = test, host, shards or two_shards()
        self.sims = sims_for_tests() if sims is None else sims
        self._unused = {algorithm: iter([s for s in self.sims if s.algorithm == algorithm and not s.barred]) for algorithm in ALGORITHMS}
        self.remote, self.cluster_key, self.trunks, self.trunk_mode = remote or {}, cluster_key, trunks, trunk_mode
        self.top_more, self.front_more, self.more = top_more, front_more, more     # more lines: at the top, in [front], at the end
        self.station_more = station_more or {}             # name -> more lines in its table
        self.directory = Path(tempfile.mkdtemp(prefix="encamp-box-"))
        self.data_dir = self.directory / "data"
        self.data_dir.mkdir(mode=0o700)
        self.config = self.directory / "encamp.toml"
        self.log_file = self.directory / "log"
        self.calls, self.texts, self.registration, self.dns = (free_port(host) for _ in range(4))
        if listening is None:
            listening = tuple(name for shard in self.shards for name in shard.replicas if name not in self.remote)
        self.listening = {name: free_port(host) for name in listening}
        # More base stations: name -> location area.
        self.areas = AREAS | (sites or {})
        self.addresses = STATIONS | {name: f"127.0.0.{101 + place}" for place, name in enumerate(sites or {})}
        self.station_ports = {name: free_port(address) for name, address in self.addresses.items()}
        self.pbx_port = free_port(PBX)
        self.process: subprocess.Popen | None = None
        self.stations: list[Station] = []
        self.disk = Disk(self.data_dir, self.directory) if disk else None
        if disk:
            self.used("shim")
        self.write()

    def __enter__(self) -> "Box":
        self.start()
        return self

    def __exit__(self, *_):
        self.close()

    def used(self, peer: str):
        peers.used(peer, self.test)

    # -- Files --

    def write(self):
        """Writes the configuration anew."""
        def listeners(*ports):
            return json.dumps([f"{kind}:{self.host}:{port}" for port in ports for kind in ("udp", "tcp")])

        text = [f'domain = "{DOMAIN}"\ndata_dir = "{self.data_dir}"\n{self.top_more}\n']
        if self.cluster_key:
            text.append(f'cluster_key = "{self.cluster_key}"\n')
        text.append(f"\n[front]\nlisten = {listeners(self.calls, self.texts, self.registration)}\n"
                    f'base_stations = ["127.0.0.72/29"]\npeers = ["{PEER}", "{SIPSAK}"]\n{self.front_more}\n')
        for name, address in self.addresses.items():
            text.append(f'[[base_station]]\nname = "{name}"\naddress = "{address}:{self.station_ports[name]}"\nlocation_area = "{self.areas[name]}"\n'
                        f'{self.station_more.get(name, "")}\n')
        if self.trunks:
            text.append(f'[[trunk]]\nname = "pbx"\naddress = "{PBX}:{self.pbx_port}"\nmode = "{self.trunk_mode}"\n\n')
        text.append(f'[zone]\napex = "{DOMAIN}"\nlisten = {listeners(self.dns)}\n\n')
        text += [shard.toml() for shard in self.shards]
        for name, port in self.listening.items():
            text.append(f'[[replica]]\nname = "{name}"\nlisten = {listeners(port)}\n\n')
        for name, (address, port) in self.remote.items():
            text.append(f'[[replica]]\nname = "{name}"\naddress = "{address}:{port}"\n\n')
        text.append(self.more)
        self.config.write_text("".join(text))
        provisioned = self.directory / "subscribers.d"
        provisioned.mkdir(exist_ok=True)
        (provisioned / "10-test.toml").write_text("".join(sim.toml() for sim in self.sims))

    def replica_directory(self, name: str) -> Path:
        return self.data_dir / "replica" / name

    def log(self) -> str:
        return self.log_file.read_text(errors="replace") if self.log_file.exists() else ""

    # -- The process --

    @property
    def registrar(self) -> tuple[str, int]:
        return self.host, self.registration

    def _environment(self) -> dict[str, str]:
        # Commands write files as well (90-local.toml), so they stand on the same disk.
        return dict(os.environ, NO_COLOR="1") | (self.disk.environment() if self.disk else {})

    def start(self, wait: bool = True) -> "Box":
        """Starts it and waits until every role answers."""
        assert self.process is None, "already running"
        with self.log_file.open("ab") as log:
            self.process = subprocess.Popen([binary(), "run", "--config", str(self.config)], stdin=subprocess.DEVNULL,
                                            stdout=log, stderr=log, env=self._environment(), cwd=self.directory)
        if wait:
            try:
                self.wait_until_ready()
            except BaseException:
                self.close()                               # nobody else will
                raise
        return self

    def wait_until_ready(self):
        # `status --wait` asks over the control socket; before that exists it needs patience of its own to show.
        reply = self.command("status", "--wait", str(START_S))
        if reply.code != 0:
            raise AssertionError(f"the box did not come up: exit {reply.code}\n{reply.out}{reply.err}\n--- its log\n{self.log()[-4000:]}")

    def kill(self):
        """kill -9."""
        if self.process:
            self.process.kill()
            self.process.wait()
            self.process = None

    def stop(self) -> tuple[int, float]:
        """SIGTERM; the exit code and how long it took."""
        started = time.monotonic()
        self.process.send_signal(signal.SIGTERM)
        try:
            code = self.process.wait(STOP_S)
        except subprocess.TimeoutExpired:
            self.kill()
            raise AssertionError(f"SIGTERM did not end it within {STOP_S} s\n{self.log()[-2000:]}") from None
        self.process = None
        return code, time.monotonic() - started

    def ended(self, timeout: float) -> int | None:
        """The exit code, once it has ended by itself within the time; None while it lives."""
        try:
            code = self.process.wait(timeout)
        except subprocess.TimeoutExpired:
            return None
        self.process = None
        return code

    def freeze(self):
        """SIGSTOP: it hears nothing and says nothing, and its ports stay taken. Returns once every thread stands still."""
        self.process.send_signal(signal.SIGSTOP)
        for _ in range(1000):
            threads = Path(f"/proc/{self.process.pid}/task").iterdir()
            if all((thread / "stat").read_text().rpartition(")")[2].split()[0] in "Tt" for thread in threads):
                return
            time.sleep(0.005)
        raise AssertionError("it does not stop")

    def thaw(self):
        self.process.send_signal(signal.SIGCONT)

    def restart(self):
        self.stop()
        self.start()

    def power_cut(self):
        """kill -9, and every file back to what was synced of it."""
        self.kill()
        return self.disk.cut()

    def close(self):
        for station in self.stations:
            station.close()
        self.stations = []
        self.kill()
        shutil.rmtree(self.directory, ignore_errors=True)

    # -- Commands --

    def command(self, *words: str, text: str | None = None, timeout: float = COMMAND_S) -> Reply:
        """`encamp <words> --config F --json`."""
        done = subprocess.run([binary(), *words, "--config", str(self.config), "--json"], input=text, capture_output=True, text=True,
                              timeout=timeout, cwd=self.directory, env=self._environment())
        return Reply(done.returncode, done.stdout, done.stderr)

    def lookup(self, who: str) -> dict:
        """Where is this IMSI or number; without a binding the list is empty."""
        reply = self.command("lookup", who)
        if reply.code not in (0, 1):
            raise AssertionError(f"lookup {who}: exit {reply.code}: {reply.err}")
        found = reply.data
        assert reply.code == (0 if found["bindings"] else 1), f"exit {reply.code} with {found['bindings']}"
        return found

    def where(self, imsi: str) -> list[str] | None:
        """The contacts of an IMSI; None where nobody can say."""
        reply = self.command("lookup", imsi)
        return [binding["contact"] for binding in reply.data["bindings"]] if reply.code in (0, 1) else None

    def replicas(self) -> dict[str, dict]:
        """Name -> what `replica status` says of it."""
        reply = self.command("replica", "status")
        assert reply.code in (0, 1), reply.err
        return {replica["name"]: replica for replica in reply.data}

    # -- Those who speak with it --

    def station(self, name: str, **more) -> "Station":
        """A simulated base station that the configuration names; closed with the box."""
        station = Station(self, self.addresses[name], self.station_ports[name], **more)
        self.stations.append(station)
        return station

    def nameless_station(self, **more) -> "Station":
        station = Station(self, NAMELESS_STATION, free_port(NAMELESS_STATION), **more)
        self.stations.append(station)
        return station

    def sim(self, algorithm: str = "comp128v1") -> Sim:
        """A SIM that no test has used yet."""
        return next(self._unused[algorithm])

    def phone(self, algorithm: str = "comp128v1") -> obts.Phone:
        return self.sim(algorithm).phone()

    def numbers_of(self, phone: obts.Phone) -> list[str]:
        return next(sim.numbers for sim in self.sims if sim.imsi == phone.imsi)


class Station(obts.BaseStation):
    """The simulated base station, told of its box; with DOUBLE=1 it sends every datagram twice."""

    def __init__(self, box: Box, host: str, port: int, twice: bool | None = None, **more):
        box.used("obts.py")
        self.box, self.twice = box, peers.doubled() if twice is None else twice
        super().__init__(host, port, box.registrar, (box.host, box.texts), (box.host, box.calls), **more)

    def _send(self, datagram: bytes, to: tuple[str, int]):
        super()._send(datagram, to)
        if self.twice:
            super()._send(datagram, to)

    def where(self, phone: obts.Phone) -> str:
        """The Contact of a phone that camps here."""
        return f"sip:IMSI{phone.imsi}@{self.host}:{self.port}"

    def faults(self) -> list[str]:
        """What an OpenBTS would have stumbled over, and copies of a request that were answered differently."""
        found, answers = list(self.complaints), {}
        for _, direction, _, datagram in list(self.traffic):
            if direction != "in" or not datagram.startswith(b"SIP/2.0 "):
                continue
            if len(datagram) >= obts.RECEIVE_MAX:
                found.append(f"an answer of {len(datagram)} bytes")
            answer = Message.parse(datagram)
            if answer.code >= 200:
                first = answers.setdefault((answer.call_id, answer.cseq), datagram)
                if first != datagram:
                    found.append(f"two answers to one request:\n{first.decode()}\n{datagram.decode()}")
        return found


class YateStation(Station, yate.YateBts):
    """The simulated YateBTS, told of its box."""

    def __init__(self, box: Box, host: str, port: int, **more):
        box.used("yate.py")
        super().__init__(box, host, port, **more)


class Talker:
    """A socket of a PBX, a peer or a stranger, and the well-formed SIP it speaks."""

    def __init__(self, box: Box, host: str = PBX, port: int = 0):
        self.box, self.host = box, host
        self.socket = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self.socket.bind((host, port or free_port(host)))
        self.port = self.socket.getsockname()[1]

    def __enter__(self) -> "Talker":
        return self

    def __exit__(self, *_):
        self.socket.close()

    def request(self, method: str, user: str, *more: tuple[str, str], body: bytes = b"", transport: str = "UDP", **changed: str) -> Message:
        """A request to `user` at the box. A header in `changed` (`max_forwards="0"`) replaces ours; "" leaves it out."""
        uri = f"sip:{user}@{self.box.host}:{self.box.calls}" if user else f"sip:{self.box.host}:{self.box.calls}"
        headers = {
            "Via": f"SIP/2.0/{transport} {self.host}:{self.port};branch=z9hG4bK{letters(12)}",
            "Max-Forwards": "70",
            "From": f"<sip:pbx@{self.host}>;tag={letters(8)}",
            "To": f"<{uri}>",
            "Call-ID": f"{secrets.token_hex(8)}@{self.host}",
            "CSeq": f"1 {method}",
            "Contact": f"<sip:pbx@{self.host}:{self.port}>",
        }
        for name, value in changed.items():
            headers[next(h for h in headers if h.lower() == name.replace("_", "-"))] = value
        written = [(name, value) for name, value in headers.items() if value] + list(more) + [("Content-Length", str(len(body)))]
        return Message(f"{method} {uri} SIP/2.0", written, body)

    def send(self, message: Message, to: tuple[str, int] | None = None):
        self.socket.sendto(message.encode(), to or (self.box.host, self.box.calls))

    def receive(self, timeout: float) -> Message | None:
        self.socket.settimeout(timeout)
        try:
            return Message.parse(self.socket.recvfrom(65536)[0])
        except (socket.timeout, ConnectionError):
            return None

    def answers(self, timeout: float) -> list[Message]:
        """Everything that comes within the time."""
        out, until = [], time.monotonic() + timeout
        while (left := until - time.monotonic()) > 0:
            if (one := self.receive(left)) is not None:
                out.append(one)
        return out

    def ask(self, message: Message, to: tuple[str, int] | None = None, timeout: float = 5) -> Message | None:
        """Sends and waits for the final answer."""
        self.send(message, to)
        until = time.monotonic() + timeout
        while (left := until - time.monotonic()) > 0:
            answer = self.receive(left)
            if answer is not None and answer.call_id == message.call_id and answer.code >= 200:
                return answer
        return None

    def invite(self, user: str, *more, **changed) -> Message | None:
        return self.ask(self.request("INVITE", user, *more, **changed))

    def ack(self, invite: Message, answer: Message):
        """The ACK of a refused INVITE (RFC 3261 17.1.1.3): its branch and Request-URI, the answer's To."""
        headers = [(name, value) for name, value in invite.headers if name in ("Via", "Max-Forwards", "From", "Call-ID")]
        headers += [("To", answer.get("to")), ("CSeq", f"{invite.cseq[0]} ACK"), ("Content-Length", "0")]
        self.send(Message(f"ACK {invite.uri} SIP/2.0", headers))


def contact_of(answer: Message) -> str:
    """The URI in the Contact of a redirect."""
    return uri_in(answer.get("contact"))


def q850(answer: Message) -> int | None:
    """The cause in `Reason: Q.850;cause=N`."""
    found = re.search(r"Q\.850\s*;\s*cause\s*=\s*(\d+)", answer.get("reason"))
    return int(found.group(1)) if found else None


class BoxTest(unittest.TestCase):
    """Tests that share one running box; each uses SIMs of its own. Whatever a base station complains of fails the test."""

    options: dict = {}

    @classmethod
    def setUpClass(cls):
        cls.box = Box(**cls.options).start()

    @classmethod
    def tearDownClass(cls):
        cls.box.close()

    def setUp(self):
        self.box.test = self
        self.box.stations = []
        self.addCleanup(self._close_stations)

    def _close_stations(self):
        for station in self.box.stations:
            station.close()
        faults = [fault for station in self.box.stations for fault in station.faults()]
        self.box.stations = []
        self.assertEqual(faults, [], "what an OpenBTS would have stumbled over")

    def assertRefused(self, done: obts.Registration, code: int, cause: int | None):
        """Not let in, with this answer and this GSM cause, and by no open door either."""
        self.assertEqual((done.code, done.reject_cause), (code, cause), f"{done.phrase} {done.error}")
        self.assertFalse(done.let_in_by_failmode, "the base station lets the phone in although it was refused")
        self.assertFalse(done.ok)
