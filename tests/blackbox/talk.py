"""What the tests of calls and texts share: scenarios side by side, sound, a base station that says exactly what a test tells it to,
and what must be true of everything that a base station ever heard.

Python 3 standard library only.
"""

from __future__ import annotations

import re
import socket
import threading
import time
import traceback
import unittest

from box import BOX, SECOND_BOX, Box, BoxTest, Shard, Sim, Station   # first: it puts the peers on the path
import obts
import peers
from sip import Message, letters, tag_of, uri_in, user_host_port
from trunk import Wire

#: A base station whose radio is quick: pages for 1.5 s, a phone rings after 0.3 s and is answered 0.2 s later.
QUICK = dict(paging_s=1.5, ring_s=0.3, answer_s=0.2, ack_delay_s=0.3, transfer_s=0.2)
QUIET_S = 2.5                                              # so long nothing more may come after a call has ended


def open_sims(count: int, prefix: str = "3") -> list[Sim]:
    """SIMs without a key: one leg to register. Each has a long and a short number."""
    return [Sim(f"00101{prefix}{number:06d}{number % 7}{number % 100:02d}", "none", [f"+1{prefix}00{number:05d}", f"{prefix}{number:04d}"], f"phone {number}")
            for number in range(count)]


def two_boxes(test: unittest.TestCase, sims: list[Sim]) -> tuple[Box, Box]:
    """Two front ends, each with a replica of the one shard; started and level. Both know the same base stations."""
    shards = [Shard("all", ["00-99"], ["a", "b"], 1)]
    front = Box(test, host=BOX, shards=shards, sims=sims, listening=("a",), cluster_key="6b" * 32, trunks=False)
    far = Box(test, host=SECOND_BOX, shards=shards, sims=sims, listening=("b",), cluster_key="6b" * 32, trunks=False)
    test.addCleanup(front.close)
    test.addCleanup(far.close)
    front.remote, far.remote = {"b": (SECOND_BOX, far.listening["b"])}, {"a": (BOX, front.listening["a"])}
    far.station_ports = front.station_ports
    for box in (front, far):
        box.write()
        founded = box.command("init")                      # not all replicas of the map are local: somebody must say that this is the beginning
        test.assertEqual(founded.code, 0, founded.err)
    far.start()
    front.start()
    until = time.monotonic() + 15
    while {each["state"] for box in (front, far) for each in box.replicas().values()} != {"level"}:
        test.assertLess(time.monotonic(), until, f"{front.replicas()} {far.replicas()}")
        time.sleep(0.1)
    return front, far


# --- Scenarios side by side ---------------------------------------------------------------------------------------------------

class SideBySide(BoxTest):
    """All tests of the class run at once, each in a thread, against one box and one set of base stations; each is still told apart.

    Most of them wait: for a paging, for a ring, for the silence after a call.
    """

    #: The ids of the tests that will be asked for; None: all.
    chosen: set[str] | None = None
    _scenarios: dict = {}

    def __init_subclass__(cls, **more):
        super().__init_subclass__(**more)
        cls._scenarios = {name: function for name, function in vars(cls).items() if name.startswith("test_")}
        for name in cls._scenarios:
            setattr(cls, name, _waits_for(name))
        cls.test_zz_what_no_base_station_may_hear = cls._audited

    @classmethod
    def setUpClass(cls):
        super().setUpClass()
        cls._faults, cls._threads = {}, {}
        try:
            cls.ready()
        except BaseException:
            cls.tearDownClass()
            raise
        for name, scenario in cls._scenarios.items():
            if SideBySide.chosen is not None and cls(name).id() not in SideBySide.chosen:
                continue
            cls._threads[name] = threading.Thread(target=cls._run, args=(name, scenario), daemon=True)
            cls._threads[name].start()
            time.sleep(0.05)                               # not all REGISTERs at one moment

    @classmethod
    def ready(cls):
        """Starts the base stations and trunks that the scenarios share."""

    @classmethod
    def _run(cls, name, scenario):
        instance = cls(name)
        try:
            scenario(instance)
        except BaseException:
            cls._faults[name] = traceback.format_exc()
        finally:
            try:
                instance.doCleanups()
            except BaseException:
                cls._faults[name] = cls._faults.get(name, "") + traceback.format_exc()

    @classmethod
    def tearDownClass(cls):
        for thread in cls._threads.values():
            thread.join(120)
        for name, station in list(vars(cls).items()):
            if isinstance(station, (obts.BaseStation, Wire)):
                station.close()
                delattr(cls, name)                         # unittest may come here twice
        super().tearDownClass()

    def setUp(self):
        pass                                               # the stations are everybody's

    def outcome(self, name: str):
        peers.used("obts.py", self)
        self._threads[name].join(120)
        self.assertFalse(self._threads[name].is_alive(), "it does not end")
        if name in self._faults:
            self.fail(self._faults[name])

    def _audited(self):
        for thread in self._threads.values():
            thread.join(120)
        peers.used("obts.py", self)
        stations = [each for each in vars(type(self)).values() if isinstance(each, obts.BaseStation)]
        self.assertTrue(stations)
        self.assertEqual([fault for station in stations for fault in audit(station, self.box)], [])
        # Some were told on purpose to say what differs from copy to copy; nobody else may.
        self.assertEqual([fault for station in stations if isinstance(station, Station) for fault in station.faults()], [])
        self.assertTrue(stations[0].wait(lambda: not self.box.command("calls").data, 15), f"left behind: {self.box.command('calls').out}")

    # -- For scenarios --

    def phones(self, count: int, *stations, **more) -> list[obts.Phone]:
        """New phones, each registered at its station (the last one takes all the rest)."""
        out = []
        for place in range(count):
            phone = self.box.phone("none")
            for name, value in more.items():
                setattr(phone, name, value)
            station = stations[min(place, len(stations) - 1)]
            done = station.register(phone)
            self.assertTrue(done.ok, f"REGISTER at {station.host}: {done}")
            out.append(phone)
        return out

    def number(self, phone: obts.Phone, which: int = 0) -> str:
        return self.box.numbers_of(phone)[which]

    def called(self, station, phone, timeout: float = 5, nth: int = 0) -> obts.Call:
        """The call that reached this phone at this base station."""
        self.assertTrue(station.wait(lambda: len(calls_to(station, phone)) > nth, timeout), f"no INVITE reached {station.host} for the phone")
        return calls_to(station, phone)[nth]

    def assertUp(self, call, timeout: float = 10):
        self.assertTrue(call.wait("up", timeout=timeout), f"{call}: {[answer.start for answer in call.answers]}")

    def assertFailed(self, call, code: int, cause: int | None = None, phrase: str | None = None, timeout: float = 10):
        self.assertTrue(call.wait("failed", timeout=timeout), f"{call}: {[answer.start for answer in call.answers]}")
        self.assertEqual(call.code, code, f"{call}: {call.reason}")
        if cause is not None:
            self.assertEqual(cause_in(call.reason), cause, call.reason)
        if phrase is not None:
            self.assertEqual(call.phrase, phrase)

    def assertQuiet(self, *ends: tuple, seconds: float = QUIET_S, buried: tuple = ()):
        """Nothing more comes to these (station, Call-ID).

        To one in `buried`, whose INVITE was cancelled, a BYE may come, once: its 200 could have been lost, and who is told 404 is sure.
        """
        time.sleep(0.3)                                    # what was said at the same moment
        before = [heard(station, call_id) for station, call_id in ends]
        time.sleep(seconds)
        for (station, call_id), count in zip(ends, before):
            more = heard(station, call_id)[len(count):]
            if (station, call_id) in buried and more and more[0].startswith("BYE "):
                more = more[1:]
            self.assertEqual(more, [], f"at {station.host} after the end of the call")


def _waits_for(name: str):
    def test(self):
        self.outcome(name)
    test.__name__ = name
    return test


# --- Looking at what was heard --------------------------------------------------------------------------------------------------

def calls_to(station, phone) -> list[obts.Call]:
    return [call for call in list(station.calls) if not call.outgoing and call.phone.imsi == phone.imsi]


def messages(station) -> list[tuple[float, str, tuple[str, int], Message]]:
    """All that a base station or a wire said and heard, in order: when, way, with whom, what."""
    if isinstance(station, Wire):
        return list(station.traffic)
    out = []
    for when, way, peer, datagram in list(station.traffic):
        try:
            out.append((when, way, peer, Message.parse(datagram)))
        except ValueError:
            pass
    return out


def heard(station, call_id: str) -> list[str]:
    """The first lines and CSeq of what came in with this Call-ID; answers to a copy of ours left out."""
    came = [f"{message.start} ({message.get('cseq')})" for _, way, _, message in messages(station) if way == "in" and message.call_id == call_id]
    return list(dict.fromkeys(came)) if peers.doubled() else came


def codes(call) -> list[int]:
    """The answers that a caller heard; where he says everything twice, his copy gets one more 100."""
    out = [answer.code for answer in call.answers]
    return out[1:] if peers.doubled() and out[:2] == [100, 100] else out


def cause_in(reason: str) -> int | None:
    found = re.search(r"Q\.850\s*;\s*cause\s*=\s*(\d+)", reason)
    return int(found.group(1)) if found else None


def display_name(value: str) -> str:
    """Of a From: what OpenBTS shows as the caller."""
    return value.partition("<")[0].strip().strip('"')


def audit(station, box) -> list[str]:
    """What no base station may ever hear of us, whatever the scenario was; judged by its own traffic."""
    found, dialogs, copies = list(getattr(station, "complaints", [])), {}, set()
    for when, way, peer, message in messages(station):
        if peer[0] != box.host:
            continue
        if peers.doubled():                                # our own copies, and the answers that they get
            copy = way, message.encode()
            if copy in copies:
                continue
            copies.add(copy)
        dialogs.setdefault(message.call_id, []).append((when, way, message))
    for call_id, said in dialogs.items():
        def when_first(way, test, after=0.0):
            return next((when for when, w, m in said if w == way and when >= after and test(m)), None)

        def later(moment, words):
            found.extend(f"{station.host}: {words}: {m.start} ({m.get('cseq')}) {when - moment:.3f} s later, call {call_id}"
                         for when, w, m in said if w == "in" and when > moment)

        def answer_to(method, codes=range(200, 700)):
            return lambda m: not m.is_request and m.cseq[1] == method and m.code in codes

        def request(method):
            return lambda m: m.is_request and m.method == method

        # A text is sent twice at most, and never again after an answer: a copy then would be a second text at the phone.
        texts_in = [(when, m) for when, w, m in said if w == "in" and request("MESSAGE")(m)]
        if texts_in:
            done = when_first("out", answer_to("MESSAGE"))
            if done:
                later(done, "after a text was answered")
            if len(texts_in) > 2:
                found.append(f"{station.host}: {len(texts_in)} copies of a text, call {call_id}")
            if len(texts_in) == 2 and not 10 < texts_in[1][0] - texts_in[0][0] < 14:
                found.append(f"{station.host}: the second copy of a text {texts_in[1][0] - texts_in[0][0]:.1f} s after the first")
        invites_out = [m for _, w, m in said if w == "out" and request("INVITE")(m)]
        invites_in = [m for _, w, m in said if w == "in" and request("INVITE")(m)]
        # After a BYE and its 200, in either direction, silence; where both ends hung up at once, their BYEs cross.
        for asks, answers in () if call_id in getattr(station, "crossing", ()) else (("out", "in"), ("in", "out")):
            bye = when_first(asks, request("BYE"))
            done = bye and when_first(answers, answer_to("BYE"), bye)
            if done:
                later(done, "after the BYE was answered")
        if len(invites_out) == 1:
            provisional = [m.code for _, w, m in said if w == "in" and answer_to("INVITE", range(101, 200))(m)]
            found += [f"{station.host}: {code} came {provisional.count(code)} times, call {call_id}" for code in set(provisional) if provisional.count(code) > 1]
            refused = when_first("in", answer_to("INVITE", range(300, 700)))
            acked = refused and when_first("out", request("ACK"), refused)
            if acked:
                later(acked + 0.3, "after a refusal was acknowledged")
        if invites_in:
            if not re.match(rf"sip:IMSI\d{{14,15}}@{re.escape(station.host)}:{station.port}$", invites_in[0].uri):
                found.append(f"{station.host}: an INVITE for {invites_in[0].uri}")
            for header in (invites_in[0].vias()[0].split()[1].partition(";")[0], user_host_port(uri_in(invites_in[0].get("contact")))[1]):
                if header.partition(":")[0] != box.host:
                    found.append(f"{station.host}: an INVITE whose Via or Contact is not ours: {header}")
            if len(invites_in[0].vias()) != 1:
                found.append(f"{station.host}: an INVITE with {len(invites_in[0].vias())} Vias")
            if len({m.cseq for m in invites_in}) > 1:
                found.append(f"{station.host}: a second INVITE in one dialog")
            if getattr(station, "mute", False):
                continue
            refused = when_first("out", answer_to("INVITE", range(300, 700)))
            if refused and time.monotonic() - refused > 2 and when_first("in", request("ACK"), refused) is None:
                found.append(f"{station.host}: a refusal was never acknowledged, call {call_id}")
            accepted = when_first("out", answer_to("INVITE", range(200, 300)))
            if accepted and time.monotonic() - accepted > 35 and when_first("in", request("ACK"), accepted) is None:
                found.append(f"{station.host}: a 200 was never acknowledged, call {call_id}")
    return found + one_text_at_a_time(station, box)


def one_text_at_a_time(station, box) -> list[str]:
    """No text reaches a base station for a phone while it still has another one in hand for it."""
    found, in_hand = [], {}
    for when, way, peer, message in messages(station):
        if peer[0] != box.host or message.cseq[1] != "MESSAGE":
            continue
        if way == "in" and message.is_request:
            imsi = user_host_port(message.uri)[0]
            other, since = in_hand.get(imsi, (message.call_id, when))
            if other != message.call_id and when - since < 29:
                found.append(f"{station.host}: a text for {imsi} while another one was in hand for {when - since:.1f} s")
            in_hand[imsi] = (message.call_id, when)
        elif way == "out" and not message.is_request and message.code >= 200:
            in_hand = {imsi: hand for imsi, hand in in_hand.items() if hand[0] != message.call_id}
    return found


# --- Sound ------------------------------------------------------------------------------------------------------------------------

def media(body: bytes) -> tuple[str, int]:
    """Where this SDP wants its sound."""
    text = body.decode()
    return re.search(r"^c=IN IP4 (\S+)", text, re.M).group(1), int(re.search(r"^m=audio (\d+) ", text, re.M).group(1))


class Sound:
    """The RTP port that a phone's SDP names: sends GSM frames and keeps what comes."""

    def __init__(self, own_sdp: bytes):
        self.socket = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self.socket.bind(media(own_sdp))
        self.socket.setblocking(False)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.socket.close()

    def talk(self, to: tuple[str, int], frames: int = 10, every_s: float = 0.02, payload: int = 3) -> list[bytes]:
        source, sent = int.from_bytes(letters(4).encode(), "big"), []
        for number in range(frames):
            frame = b"\xd0" + letters(32).encode() if payload == 3 else letters(160).encode()
            sent.append(bytes([0x80, payload]) + number.to_bytes(2, "big") + (160 * number).to_bytes(4, "big") + source.to_bytes(4, "big") + frame)
            self.socket.sendto(sent[-1], to)
            time.sleep(every_s)
        return sent

    def heard(self, frames: int = 1, timeout: float = 3) -> tuple[list[bytes], set]:
        """What came, and from whom."""
        packets, sources, until = [], set(), time.monotonic() + timeout
        while len(packets) < frames and time.monotonic() < until:
            try:
                packet, source = self.socket.recvfrom(2048)
                packets.append(packet)
                sources.add(source)
            except BlockingIOError:
                time.sleep(0.01)
        return packets, sources


def assert_sound(test: unittest.TestCase, one_own: bytes, one_heard: bytes, other_own: bytes, other_heard: bytes):
    """Each end sends from the port of its own SDP to where the SDP that it *received* says, and the other one has it."""
    with Sound(one_own) as one, Sound(other_own) as other:
        for speaker, listener, to in ((one, other, one_heard), (other, one, other_heard)):
            sent = speaker.talk(media(to))
            packets, sources = listener.heard(len(sent))
            test.assertEqual(packets, sent, "the sound did not arrive")
            test.assertEqual(sources, {speaker.socket.getsockname()}, "the sound came through somebody else")


# --- A base station by hand -------------------------------------------------------------------------------------------------------

class RawStation(Wire):
    """An address that the box knows as a base station, and nothing that acts by itself: each datagram is written by the test."""

    def __init__(self, test, name: str):
        box = test.box
        self.box, self.test = box, test
        self.retired = False
        super().__init__(box.addresses[name], box.station_ports[name], to=(box.host, box.calls))
        if isinstance(test, SideBySide):
            setattr(type(test), f"_raw_{name}", self)      # closed with the class
            test.addCleanup(self.retire)
        else:
            test.addCleanup(self.close)

    def retire(self):
        """The test is over: from now on it says yes to every end, so that nothing is left behind."""
        self.retired = True

    def hear(self, message: Message, peer: tuple[str, int]):
        if self.retired and message.is_request and message.method in ("BYE", "CANCEL", "OPTIONS"):
            self.bts_answer(message, 200, "OK")

    def register(self, phone) -> str:
        """wire.md 1.1, literally; returns the phone's first number."""
        call_id = letters(12)
        self.send(f"""REGISTER sip:{self.box.host} SIP/2.0
To:  <sip:IMSI{phone.imsi}@{self.box.host}:{self.box.registration}>
From:  <sip:IMSI{phone.imsi}@{self.box.host}:{self.box.registration}>;tag=OBTSmedozorenxebtuzb
Via: SIP/2.0/UDP {self.host}:{self.port};branch=z9hG4bKOBTS{letters(16)}
Call-ID: {call_id}
CSeq: 131736 REGISTER
Contact: <sip:IMSI{phone.imsi}@{self.host}:{self.port}>;expires=5400
Max-Forwards: 70
P-Preferred-Identity: <sip:IMSI{phone.imsi}@{self.box.host}>
P-PHY-Info: OpenBTS; IMSI=no-MMUser TA=0 TE=0.000000 UpRSSI=-65.000000 TxPwr=33 DnRSSIdBm=-71 time=1795265024.340
P-Access-Network-Info: 3GPP-GERAN; cgi-3gpp=0010103e8000a
User-Agent: OpenBTS 5.0-master Build Date 2026-11-21T11:58:28
Content-Length: 0

""", self.box.registrar)
        answer = self.expect("SIP/2.0 ", call_id=call_id)
        self.test.assertIsNotNone(answer, "no answer to a REGISTER")
        self.test.assertEqual(answer.code, 200)
        return self.box.numbers_of(phone)[0]

    def invite_to(self, phone, timeout: float = 5, nth: int = 0) -> Message:
        """The nth INVITE for this phone (each Call-ID counts once)."""
        def have():
            return list({m.call_id: m for m in reversed(self.heard(f"INVITE sip:IMSI{phone.imsi}@"))}.values())[::-1]
        self.test.assertTrue(self.wait(lambda: len(have()) > nth, timeout), "no INVITE came")
        return have()[nth]

    def bts_answer(self, request: Message, code: int, phrase: str, *more, tag: str = "OBTSfddyqelvoeyzgxgf", body: bytes = b""):
        """As an OpenBTS answers: Vias folded, its Contact in each answer to an INVITE."""
        imsi = user_host_port(request.uri)[0]
        contact = [("Contact", f"<sip:{imsi}@{self.host}:{self.port}>;expires=3600")] if request.method == "INVITE" else []
        folded = Message(request.start, [h for h in request.headers if h[0].lower() != "via"] + [("Via", ",".join(request.vias()))])
        typed = [("Content-Type", "application/sdp")] if body else []
        return self.answer(folded, code, phrase, *contact, *more, *typed, tag=tag, body=body)

    def sdp(self, imsi: str) -> bytes:
        """wire.md 3.1."""
        return (f"v=0\r\no=IMSI{imsi} 0 0 IN IP4 {self.host}\r\ns=Talk Time\r\nt=0 0\r\nm=audio 16494 RTP/AVP 3\r\n"
                f"c=IN IP4 {self.host}\r\na=rtpmap:3 GSM/8000\r\n").encode()


class Literal:
    """A call of wire.md 3.1 and 3.2: INVITE, CANCEL, ACK and BYE as an OpenBTS wrote them, with our addresses in them."""

    def __init__(self, station: RawStation, phone, dialled: str):
        self.station, self.phone, self.dialled = station, phone, dialled
        self.call_id, self.from_tag = letters(14), f"OBTS{letters(16)}"
        self.branch = f"z9hG4bKOBTS{letters(16)}"
        box = station.box
        self.proxy = f"{box.host}:{box.calls}"
        self.own = f"{station.host}:{station.port}"
        body = station.sdp(phone.imsi)
        self.invite = f"""INVITE sip:{dialled}@{self.proxy} SIP/2.0
To:  <sip:{dialled}@{station.host}>
From:  <sip:IMSI{phone.imsi}@{self.own}>;tag={self.from_tag}
Via: SIP/2.0/UDP {self.own};branch={self.branch}
Call-ID: {self.call_id}
CSeq: 701616 INVITE
Contact: <sip:IMSI{phone.imsi}@{self.own}>;expires=3600
Max-Forwards: 70
P-Preferred-Identity: <sip:IMSI{phone.imsi}@{box.host}>
P-Associated-URI: <tel:2101>
P-PHY-Info: OpenBTS; IMSI=no-MMUser TA=0 TE=0.000000 UpRSSI=-65.000000 TxPwr=33 DnRSSIdBm=-71 time=1795265097.613
P-Access-Network-Info: 3GPP-GERAN; cgi-3gpp=0010103e8000a
User-Agent: OpenBTS 5.0-master Build Date 2026-11-21T11:58:28
Content-Type: application/sdp
Content-Length: {len(body)}

""" + body.decode()

    def say_invite(self):
        self.station.send(self.invite)

    def answers(self, start: str = "SIP/2.0") -> list[Message]:
        return self.station.heard(start, self.call_id)

    def expect(self, start: str, timeout: float = 5, nth: int = 0) -> Message:
        found = self.station.expect(start, timeout, self.call_id, nth)
        self.station.test.assertIsNotNone(found, f"no {start}; came: {heard(self.station, self.call_id)}")
        return found

    def _dialog(self, method: str, uri: str, cseq: int, branch: str, to_tag: str, reason: bool) -> str:
        return f"""{method} {uri} SIP/2.0
To: <sip:{self.dialled}@{self.station.host}>;tag={to_tag}
From:  <sip:IMSI{self.phone.imsi}@{self.own}>;tag={self.from_tag}
Via: SIP/2.0/UDP {self.own};branch={branch}
Call-ID: {self.call_id}
CSeq: {cseq} {method}
Max-Forwards: 70
""" + ('Reason: Q.850;cause=16 ;text="Normal_Call_Clearing"\n' if reason else "") + """User-Agent: OpenBTS 5.0-master Build Date 2026-11-21T11:58:28
Content-Length: 0

"""

    def say_cancel(self):
        """A new branch, CSeq + 1, a To with the tag of the last answer: malformed, and exactly so."""
        last = [a for a in self.answers() if a.cseq[1] == "INVITE"][-1]
        self.station.send(self._dialog("CANCEL", f"sip:{self.dialled}@{self.proxy}", 701617, f"z9hG4bKOBTS{letters(16)}", tag_of(last.get("to")), True),
                          self._contact(last))

    def say_ack(self, answer: Message, to: tuple[str, int] | None = None):
        """The branch of the INVITE and the dialled user in the URI, to the Contact of the answer."""
        self.station.send(self._dialog("ACK", f"sip:{self.dialled}@{self.proxy}", 701616, self.branch, tag_of(answer.get("to")), False),
                          to or self._contact(answer))

    def say_bye(self, answer: Message, to: tuple[str, int] | None = None):
        """The dialled user at the Contact's host and port: the Contact's user is lost."""
        host, port = self._contact(answer)
        self.station.send(self._dialog("BYE", f"sip:{self.dialled}@{host}:{port}", 701617, f"z9hG4bKOBTS{letters(16)}", tag_of(answer.get("to")), True),
                          to or (host, port))

    def _contact(self, answer: Message) -> tuple[str, int]:
        with_one = [a for a in self.answers() if a.get("contact")]
        value = answer.get("contact") or (with_one[-1].get("contact") if with_one else "")
        return user_host_port(uri_in(value))[1:] if value else self.station.to
