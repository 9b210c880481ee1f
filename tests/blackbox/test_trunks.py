"""Calls between phones and trunks, in both directions; and trunks that others wrote."""

import time

from box import Station, Talker, contact_of, free_port, q850
from real import Baresip, Kamailio, Sipp
from sip import Message, tag_of, user_host_port
from talk import QUICK, RawStation, SideBySide, Sound, assert_sound, calls_to, codes, display_name, heard, media, open_sims
from trunk import Trunk, sdp

ANY, SECOND, UK, LONDON, FRANCE, REDIRECT, BARE, SIPP, SOS, PLAIN, ITALY, NORWAY = (f"127.0.0.{number}" for number in (83, 84, 85, 86, 87, 88, 89, 90, 92, 93, 96, 97))
#: name -> address, prefixes, mode, more
TRUNKS = {
    "any": (ANY, [], "recurse", ""),
    "second": (SECOND, [], "recurse", ""),
    "uk": (UK, ["+44"], "recurse", 'username = "encamp"\npassword = "open sesame"\n'),
    "london": (LONDON, ["+4420"], "recurse", ""),
    "france": (FRANCE, ["+33"], "recurse", 'username = "encamp"\npassword = "le sésame"\n'),
    "redirect": (REDIRECT, ["+99"], "redirect", ""),
    "bare": (BARE, ["+48"], "recurse", ""),
    "sipp": (SIPP, ["+49"], "recurse", ""),
    "sos": (SOS, ["+000"], "recurse", ""),
    "italy": (ITALY, ["+39"], "recurse", 'username = "encamp"\npassword = "sesamo"\n'),
    "norway": (NORWAY, ["+47"], "recurse", ""),
    "plain": (PLAIN, ["+98"], "recurse", ""),
}


class Trunks(SideBySide):
    options = {"sims": open_sims(80), "trunks": False}

    @classmethod
    def setUpClass(cls):
        cls.ports = {name: free_port(address) for name, (address, *_) in TRUNKS.items()}
        tables = "".join(f'[[trunk]]\nname = "{name}"\naddress = "{address}:{cls.ports[name]}"\nmode = "{mode}"\n'
                         f'{f"prefixes = {prefixes}" if prefixes else ""}\n{more}\n'.replace("'", '"')
                         for name, (address, prefixes, mode, more) in TRUNKS.items())
        cls.options = cls.options | {"more": tables + '[emergency]\nnumbers = ["112", "911", "999"]\ntrunk = "sos"\n\n[dialplan]\nlocal_prefixes = ["3", "+13"]\n'}
        super().setUpClass()

    @classmethod
    def ready(cls):
        cls.hill, cls.mill = (Station(cls.box, cls.box.addresses[name], cls.box.station_ports[name], **QUICK) for name in ("hill", "mill"))
        to = (cls.box.host, cls.box.calls)
        cls.any, cls.second, cls.sos, cls.plain, cls.london = (Trunk(TRUNKS[name][0], cls.ports[name], to=to)
                                                               for name in ("any", "second", "sos", "plain", "london"))
        cls.uk = Trunk(UK, cls.ports["uk"], to=to, login=(401, "encamp", "open sesame"))
        cls.france = Trunk(FRANCE, cls.ports["france"], to=to, login=(407, "encamp", "le sésame"), qop=False)
        cls.italy = Trunk(ITALY, cls.ports["italy"], to=to, login=(401, "encamp", "another"))

    def assertReached(self, trunk: Trunk, number: str, timeout: float = 5):
        self.assertTrue(trunk.wait(lambda: trunk.reached(number), timeout), f"no INVITE for {number} at the trunk")
        return trunk.reached(number)[-1]

    # -- From a phone --

    def test_a_phone_calls_a_number_of_nobodys(self):
        ana = self.phones(1, self.hill)[0]
        for who in ("phone", "trunk"):
            call = self.hill.call(ana, "+8613912345")
            self.assertUp(call)
            other = self.assertReached(self.any, "+8613912345")
            self.assertTrue(self.any.wait(lambda: other.got_ack, 3))
            self.assertEqual((other.sdp, call.sdp), (call.invite.body, other.own_sdp))
            self.assertEqual(user_host_port(other.invite.uri), ("+8613912345", self.any.host, self.any.port))
            self.assertEqual(codes(call), [100, 180, 200])
            # He appears as his number, and no IMSI leaves the house.
            self.assertIn(self.number(ana), other.invite.get("from"))
            self.assertIn(self.number(ana), other.invite.get("p-asserted-identity"))
            self.assertNotIn(ana.imsi, other.invite.start + "".join(f"{name}: {value}\n" for name, value in other.invite.headers))
            self.assertNotIn("P-PHY-Info", str(other.invite))
            if who == "phone":
                self.assertEqual(call.hangup(), 200)
                self.assertTrue(other.wait("ended", timeout=3) and other.ended_by == "them", other)
            else:
                self.assertEqual(other.hangup(), 200)
                self.assertTrue(call.wait("ended", timeout=3) and call.ended_by == "them", call)
            self.assertQuiet((self.hill, call.invite.call_id), (self.any, other.invite.call_id))

    def test_the_sound_goes_from_port_to_port(self):
        ana = self.phones(1, self.hill)[0]
        call = self.hill.call(ana, "+8613912346")
        self.assertUp(call)
        other = self.assertReached(self.any, "+8613912346")
        assert_sound(self, call.invite.body, call.sdp, other.own_sdp, other.sdp)
        self.assertEqual(call.hangup(), 200)

    def test_a_refusal_of_the_trunk_is_heard_at_the_phone_and_nobody_else_is_tried(self):
        ana = self.phones(1, self.hill)[0]
        for number, code, phrase in (("+8600488", 488, "Not Acceptable Here"), ("+8600486", 486, "Busy Here"), ("+8600404", 404, "Not Found"),
                                     ("+8600603", 603, "Decline"), ("+8600403", 403, "Forbidden")):
            self.any.plans[number] = [(0, 100, "Trying"), (0.1, code, phrase)]
            self.assertFailed(self.hill.call(ana, number), code, None, phrase)
            other = self.assertReached(self.any, number)
            self.assertTrue(self.any.wait(lambda: other.got_ack, 3), f"the {code} was not acknowledged")
            self.assertEqual(self.second.reached(number), [])

    def test_the_reason_of_a_trunk_passes(self):
        ana = self.phones(1, self.hill)[0]
        self.plain.plans["+9801"] = [(0, 480, "Away")]
        self.plain.more = [("Reason", 'Q.850;cause=31;text="Normal, unspecified"')]
        self.assertFailed(self.hill.call(ana, "+9801"), 480, 31, "Away")

    def test_a_trunk_that_cannot_is_followed_by_the_next(self):
        ana = self.phones(1, self.hill)[0]
        for number, plan in (("+8600503", [(0, 503, "Service Unavailable")]), ("+8600500", [(0, 100, "Trying"), (0.1, 500, "Broken")]),
                             ("+8600502", [(0, 180, "Ringing"), (0.1, 502, "Bad Gateway")])):
            self.any.plans[number] = plan
            call = self.hill.call(ana, number)
            self.assertUp(call)
            self.assertEqual(call.sdp, self.assertReached(self.second, number).own_sdp)
            other = self.assertReached(self.any, number)
            self.assertTrue(self.any.wait(lambda: other.got_ack, 3))
            self.assertEqual(call.hangup(), 200)

    def test_a_trunk_that_is_silent_is_followed_by_the_next(self):
        ana = self.phones(1, self.hill)[0]
        self.any.plans["+8600000"] = []
        started = time.monotonic()
        call = self.hill.call(ana, "+8600000")
        self.assertUp(call, 45)
        self.assertLess(time.monotonic() - started, 36)
        self.assertEqual(call.sdp, self.assertReached(self.second, "+8600000").own_sdp)
        self.assertEqual(call.hangup(), 200)

    def test_none_of_them_can(self):
        ana = self.phones(1, self.hill)[0]
        self.any.plans["+8600999"] = self.second.plans["+8600999"] = [(0, 503, "Service Unavailable")]
        self.assertFailed(self.hill.call(ana, "+8600999"), 503)
        self.assertEqual((len(self.any.reached("+8600999")), len(self.second.reached("+8600999"))), (1, 1))

    def test_a_trunk_that_asks_for_a_password_gets_it(self):
        ana = self.phones(1, self.hill)[0]
        for trunk, number in ((self.uk, "+441612345"), (self.france, "+33123456")):
            call = self.hill.call(ana, number)
            self.assertUp(call)
            other = self.assertReached(trunk, number)
            asked = [each for each in trunk.calls if user_host_port(each.invite.uri)[0] == number and each.code in (401, 407)]
            self.assertEqual(len(asked), 1, "once is enough")
            self.assertTrue(asked[0].got_ack)
            self.assertGreater(other.invite.cseq[0], asked[0].invite.cseq[0], "RFC 3261 22.2: a new CSeq")
            self.assertNotEqual(other.invite.vias()[0], asked[0].invite.vias()[0])
            self.assertEqual(codes(call), [100, 180, 200], "the base station hears nothing of it")
            self.assertNotIn("sesame", str(other.invite))
            self.assertEqual(call.hangup(), 200)
            self.assertTrue(other.wait("ended", timeout=3))

    def test_a_wrong_password_ends_the_call(self):
        ana = self.phones(1, self.hill)[0]
        # Whether another trunk is tried then is the dial plan's business; there it is refused as well.
        self.any.plans["+391234"] = self.second.plans["+391234"] = [(0, 503, "Service Unavailable")]
        call = self.hill.call(ana, "+391234")
        self.assertTrue(call.wait("failed", timeout=10), call)
        self.assertNotIn(call.code, (401, 407), "a base station can do nothing with it")
        self.assertLessEqual(len(self.italy.calls), 2)

    def test_the_longest_prefix_chooses_the_trunk(self):
        ana = self.phones(1, self.hill)[0]
        call = self.hill.call(ana, "+442071234")
        self.assertUp(call)
        self.assertReached(self.london, "+442071234")
        self.assertEqual((self.uk.reached("+442071234"), self.any.reached("+442071234")), ([], []))
        self.assertEqual(call.hangup(), 200)

    def test_a_number_of_ours_that_nobody_has_never_leaves(self):
        ana = self.phones(1, self.hill)[0]
        for number in ("39999", "+1399999999"):
            self.assertFailed(self.hill.call(ana, number), 404, 1)
            self.assertEqual([trunk.reached(number) for trunk in (self.any, self.second)], [[], []])

    def test_the_phone_gives_up_before_the_trunk_answers(self):
        ana = self.phones(1, self.hill)[0]
        self.any.plans["+8600180"] = [(0, 180, "Ringing")]
        call = self.hill.call(ana, "+8600180")
        self.assertTrue(call.wait("ringing", timeout=5))
        self.assertEqual(call.cancel(), 200)
        other = self.assertReached(self.any, "+8600180")
        self.assertTrue(other.wait("cancelled", timeout=3) and self.any.wait(lambda: other.got_ack, 3), other)
        self.assertTrue(self.hill.wait(lambda: call.answers[-1].code == 487, 3))
        self.assertQuiet((self.hill, call.invite.call_id), (self.any, other.invite.call_id))

    def test_an_emergency_goes_out_from_every_phone(self):
        bound, unbound, unknown = self.phones(1, self.hill)[0], self.box.phone("none"), self.box.phone("none")
        unknown.imsi = "262019999999999"
        for phone, number in ((bound, "112"), (unbound, "911"), (unknown, "sos"), (unbound, "999"), (unknown, "112")):
            self.hill.add(phone)
            before = len(self.sos.reached(number))
            call = self.hill.call(phone, number)
            self.assertUp(call)
            self.assertEqual(len(self.sos.reached(number)), before + 1)
            self.assertEqual(call.sdp, self.sos.reached(number)[-1].own_sdp)
            self.assertEqual(call.hangup(), 200)
            self.hill.wait(lambda: self.sos.reached(number)[-1].state == "ended", 3)

    # -- From a trunk --

    def test_a_trunk_that_cannot_follow_calls_a_phone(self):
        bob = self.phones(1, self.mill)[0]
        for which, who in ((0, "trunk"), (1, "phone")):
            call = self.any.call(self.number(bob, which))
            self.assertUp(call)
            other = self.called(self.mill, bob, nth=which)
            self.assertEqual((other.sdp, call.sdp), (call.invite.body, other.own_sdp))
            self.assertEqual(display_name(other.invite.get("from")), "+442012345")
            self.assertTrue(self.mill.wait(lambda: other.got_ack, 3))
            self.assertNotIn(bob.imsi, "".join(f"{name}: {value}\n" for answer in call.answers for name, value in answer.headers), "no IMSI to the outside")
            if who == "phone":
                self.assertEqual(other.hangup(), 200)
                self.assertTrue(call.wait("ended", timeout=3) and call.ended_by == "them")
            else:
                self.assertEqual(call.hangup(), 200)
                self.assertTrue(other.wait("ended", timeout=3) and other.ended_by == "them")
            self.assertQuiet((self.any, call.invite.call_id), (self.mill, other.invite.call_id))

    def test_a_call_from_a_trunk_without_an_offer(self):
        bob = self.phones(1, self.mill)[0]
        call = self.second.call(self.number(bob), body=b"")
        self.assertUp(call)
        other = self.called(self.mill, bob)
        self.assertEqual((other.sdp, call.sdp), (b"", other.own_sdp))
        self.assertEqual(call.hangup(), 200)

    def test_a_trunk_hears_why_a_phone_does_not_answer(self):
        bob, absent, busy, unwilling = self.phones(4, self.mill)
        absent.on, busy.answers, unwilling.answers = False, "busy", "reject"
        away = self.box.phone("none")
        for phone, code, cause, phrase in ((absent, 480, 27, "No_Paging_Response"), (busy, 486, 17, "User_Busy"), (unwilling, 403, 21, "Call_Rejected"),
                                           (away, 480, 20, None)):
            self.assertFailed(self.any.call(self.number(phone)), code, cause, phrase)
        self.assertFailed(self.any.call("39998"), 404, 1)

    def test_a_trunk_gives_up(self):
        bob = self.phones(1, self.mill, answers="ring")[0]
        call = self.any.call(self.number(bob))
        self.assertTrue(call.wait("ringing", timeout=5))
        other = self.called(self.mill, bob)
        self.assertTrue(call.cancel(), call)
        self.assertTrue(other.wait("cancelled", timeout=3), other)
        self.assertQuiet((self.any, call.invite.call_id), (self.mill, other.invite.call_id), seconds=6, buried=((self.mill, other.invite.call_id),))

    def test_never_from_trunk_to_trunk(self):
        for number in ("+441612345", "+8613912345", "+49123"):
            before = [len(trunk.reached(number)) for trunk in (self.any, self.second, self.uk)]
            self.assertFailed(self.plain.call(number), 404, 1)
            self.assertEqual([len(trunk.reached(number)) for trunk in (self.any, self.second, self.uk)], before)

    def test_the_phone_refuses_the_codec(self):
        raw, bob = RawStation(self, "dale"), self.box.phone("none")   # a base station that says 488
        raw.register(bob)
        call = self.any.call(self.number(bob), body=sdp(self.any.host, 7100, "8", "a=rtpmap:8 PCMA/8000\r\n"))
        invite = raw.invite_to(bob)
        self.assertEqual(invite.body, call.invite.body)
        raw.bts_answer(invite, 488, "Not Acceptable Here")
        self.assertFailed(call, 488, None, "Not Acceptable Here")
        self.assertTrue(tag_of(raw.expect("ACK", call_id=invite.call_id).get("to")))

    # -- Real ones --

    def test_sipp_calls_a_phone_through_us(self):
        bob, carol = self.phones(2, self.mill)
        sipp = Sipp(self, self.box, "uac_call", host=SIPP, to=(self.box.host, self.box.calls), calls=2, rows=[(self.number(bob),), (self.number(carol, 1),)])
        sipp.done()
        for phone in (bob, carol):
            self.assertEqual([call.state for call in calls_to(self.mill, phone)], ["ended"])
            self.assertTrue(calls_to(self.mill, phone)[0].got_ack)

    def test_sipp_follows_our_302(self):
        bob = self.phones(1, self.mill)[0]
        sipp = Sipp(self, self.box, "uac_follow", host=REDIRECT, to=(self.box.host, self.box.calls), rows=[(self.number(bob),)])
        sipp.done()
        self.assertEqual([(call.state, call.ended_by) for call in calls_to(self.mill, bob)], [("ended", "them")])

    def test_sipp_answers_a_phone(self):
        ana = self.phones(1, self.hill)[0]
        sipp = Sipp(self, self.box, "uas", host=SIPP, port=self.ports["sipp"], calls=2)
        for number in ("+491", "+492"):
            call = self.hill.call(ana, number)
            self.assertUp(call)
            self.assertEqual(media(call.sdp)[0], SIPP)
            time.sleep(0.5)
            self.assertEqual(call.hangup(), 200)
        sipp.done()

    def test_baresip_answers_a_phone_and_calls_one(self):
        ana, bob = self.phones(2, self.hill, self.mill)
        bare = Baresip(self, self.box, BARE, self.ports["bare"], "+48123")

        def assertEcho(own: bytes, other: bytes):
            """What the phone says comes back through baresip's decoder and encoder; silence would come back as one frame for ever."""
            with Sound(own) as phone:
                phone.talk(media(other), 60)
                packets, sources = phone.heard(40)
            self.assertEqual({port for _, port in sources}, {media(other)[1]}, "the sound came through somebody else")
            self.assertGreater(len({packet[12:] for packet in packets}), 20, f"{len(packets)} packets, and no echo in them")

        call = self.hill.call(ana, "+48123")
        self.assertUp(call)
        time.sleep(0.5)
        assertEcho(call.invite.body, call.sdp)
        self.assertEqual(call.hangup(), 200)
        self.assertTrue(bare.told("CALL_CLOSED", 1), bare.said[-1500:])
        for ends in ("baresip", "phone"):
            bare.dial(self.number(bob), self.box)
            other = self.called(self.mill, bob, nth=0 if ends == "baresip" else 1)
            self.assertTrue(other.wait("up", timeout=5) and self.mill.wait(lambda: other.got_ack, 3), bare.log()[-3000:])
            if ends == "baresip":
                assertEcho(other.own_sdp, other.sdp)
                bare.command("hangup")
                self.assertTrue(other.wait("ended", timeout=3) and other.ended_by == "them", other)
            else:
                self.assertEqual(other.hangup(), 200)
                self.assertTrue(bare.told("CALL_CLOSED", 3), bare.said[-1500:])

    def test_a_proxy_that_follows_our_302(self):
        """sipp calls through Kamailio, whose failure route takes the base station from our answer."""
        bob, away = self.phones(1, self.mill)[0], self.box.phone("none")
        proxy = Kamailio(self, self.box, REDIRECT, self.ports["redirect"])
        sipp = Sipp(self, self.box, "uac_call", host="127.0.0.94", to=(proxy.host, proxy.port), calls=1, rows=[(self.number(bob),)])
        sipp.done()
        other = calls_to(self.mill, bob)
        self.assertEqual([(call.state, call.got_ack, call.ended_by) for call in other], [("ended", True, "them")], proxy.log()[-1500:])
        self.assertIn(f"{proxy.host}:{proxy.port}", other[0].invite.vias()[0], "the proxy called, and not we")
        with Talker(self.box, "127.0.0.95") as caller:     # and it hands on our no
            answer = caller.ask(caller.request("INVITE", self.number(away)), (proxy.host, proxy.port))
            self.assertEqual((answer.code, q850(answer)), (480, 20))

    def test_a_gateway_behind_a_proxy_that_stays_in_the_way(self):
        """The trunk's address is Kamailio's; the gateway's own Contact is nobody's whom we know."""
        ana = self.phones(1, self.hill)[0]
        gateway = ("127.0.0.98", free_port("127.0.0.98"))
        proxy = Kamailio(self, self.box, NORWAY, self.ports["norway"], behind=gateway)
        sipp = Sipp(self, self.box, "uas", host=gateway[0], port=gateway[1])
        call = self.hill.call(ana, "+471234")
        self.assertUp(call)
        time.sleep(0.5)
        self.assertEqual(call.hangup(), 200)
        sipp.done()                                        # it has its ACK and its BYE
        self.assertEqual(proxy.process.poll(), None, proxy.log()[-1500:])

    def test_a_trunk_that_asks_again_in_the_middle_of_a_call(self):
        """A re-INVITE: OpenBTS knows none, so the trunk is told no, and the call goes on."""
        bob = self.phones(1, self.mill)[0]
        call = self.plain.call(self.number(bob))
        self.assertUp(call)
        other = self.called(self.mill, bob)
        self.assertTrue(self.mill.wait(lambda: other.got_ack, 3))
        call.cseq += 1
        headers = [("Via", f"SIP/2.0/UDP {self.plain.host}:{self.plain.port};branch=z9hG4bKagain"), ("Max-Forwards", "70"), ("From", call.local), ("To", call.remote),
                   ("Call-ID", call.invite.call_id), ("CSeq", f"{call.cseq} INVITE"), ("Contact", f"<sip:x@{self.plain.host}:{self.plain.port}>"),
                   ("Content-Type", "application/sdp"), ("Content-Length", str(len(call.own_sdp)))]
        self.plain.send(Message(f"INVITE {call.contact} SIP/2.0", headers, call.own_sdp), user_host_port(call.contact)[1:])
        def final():
            return [m for m in self.plain.heard("SIP/2.0", call.invite.call_id) if m.cseq == (call.cseq, "INVITE") and m.code >= 200]
        self.assertTrue(self.plain.wait(final, 5), "no answer to a re-INVITE")
        self.assertIn(final()[0].code, (200, 488), final()[0].start)
        ack = [h for h in headers if h[0] in ("Max-Forwards", "From", "To", "Call-ID")] + [("CSeq", f"{call.cseq} ACK"), ("Content-Length", "0")]
        self.plain.send(Message(f"ACK {call.contact} SIP/2.0", [headers[0]] + ack), user_host_port(call.contact)[1:])
        time.sleep(1)
        self.assertEqual((call.state, other.state), ("up", "up"))
        self.assertEqual(call.hangup(), 200)
        self.assertTrue(other.wait("ended", timeout=3))

    def test_an_offer_too_long_for_a_base_station(self):
        """OpenBTS reads 1500 bytes and loses the rest: better no call than half an offer."""
        bob = self.phones(1, self.mill)[0]
        long = sdp(self.plain.host, 7200, "3", "a=rtpmap:3 GSM/8000\r\n" + "".join(f"a=x-candidate:{number:04d} {'y' * 60}\r\n" for number in range(18)))
        call = self.plain.call(self.number(bob), body=long)
        self.assertFailed(call, 513, timeout=20)
        for _, way, _, datagram in list(self.mill.traffic):
            self.assertTrue(way == "out" or len(datagram) < 1500)
        self.assertEqual(calls_to(self.mill, bob), [])

    def test_a_trunk_in_redirect_mode_is_told_where(self):
        bob = self.phones(1, self.mill)[0]
        with Talker(self.box, REDIRECT) as pbx:
            answer = pbx.invite(self.number(bob))
            self.assertEqual((answer.code, contact_of(answer)), (302, self.mill.where(bob)))
        self.assertEqual(calls_to(self.mill, bob), [])

    def _audited(self):
        super()._audited()
        for trunk in (self.any, self.second, self.uk, self.france, self.london, self.sos, self.plain):
            self.assertEqual(trunk.complaints, [])
            left = [call for call in trunk.calls if call.state in ("up", "ringing", "proceeding")]
            self.assertEqual(left, [], heard(trunk, left[0].invite.call_id) if left else "")
