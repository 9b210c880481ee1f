"""Calls between phones, judged at the phones: what each base station heard, and what it did not."""

import time
import unittest

from box import NAMELESS_STATION, Station, free_port
import peers
from sip import letters, tag_of
from talk import QUICK, Literal, RawStation, SideBySide, assert_sound, audit, calls_to, codes, display_name, heard, open_sims, two_boxes


class Stations:
    """Three base stations that answer quickly: hill and dale in the valley, mill on the plain."""

    @classmethod
    def ready(cls):
        cls.hill, cls.dale, cls.mill = (Station(cls.box, cls.box.addresses[name], cls.box.station_ports[name], **QUICK) for name in ("hill", "dale", "mill"))


class Calls(Stations, SideBySide):
    options = {"sims": open_sims(120), "trunks": False,
               "sites": {f"raw{number}": f"alone{number}" for number in range(16)}}

    # -- Being connected --

    def talk(self, here, there, ana, bob, dialled: str, nth: int = 0):
        call = here.call(ana, dialled)
        self.assertUp(call)
        other = self.called(there, bob, nth=nth)
        self.assertTrue(there.wait(lambda: other.got_ack, 5), "the called base station got no ACK")
        return call, other

    def test_a_phone_in_another_cell_is_called_and_the_caller_hangs_up(self):
        ana, bob = self.phones(2, self.hill, self.mill)
        for which in (0, 1):                               # the long number and the short one
            call, other = self.talk(self.hill, self.mill, ana, bob, self.number(bob, which), which)
            self.assertEqual(other.sdp, call.invite.body, "the offer was touched")
            self.assertEqual(call.sdp, other.own_sdp, "the answer was touched")
            self.assertNotEqual(other.invite.call_id, call.invite.call_id, "two legs are two dialogs")
            self.assertNotIn(call.local_tag, other.invite.get("from"))
            self.assertEqual(codes(call), [100, 180, 200])
            self.assertEqual(call.hangup(), 200)
            self.assertTrue(other.wait("ended", timeout=3) and other.ended_by == "them", other)
            self.assertQuiet((self.hill, call.invite.call_id), (self.mill, other.invite.call_id))

    def test_a_phone_in_the_same_cell_is_called_and_hangs_up(self):
        ana, bob = self.phones(2, self.hill)
        call, other = self.talk(self.hill, self.hill, ana, bob, self.number(bob))
        self.assertEqual((other.sdp, call.sdp), (call.invite.body, other.own_sdp))
        self.assertEqual(other.hangup(), 200)
        self.assertTrue(call.wait("ended", timeout=3) and call.ended_by == "them", call)
        self.assertQuiet((self.hill, call.invite.call_id), (self.hill, other.invite.call_id))

    def test_the_sound_goes_from_port_to_port(self):
        ana, bob = self.phones(2, self.dale, self.mill)
        call, other = self.talk(self.dale, self.mill, ana, bob, self.number(bob))
        assert_sound(self, call.invite.body, call.sdp, other.own_sdp, other.sdp)
        self.assertEqual(call.hangup(), 200)

    def test_an_offer_that_nobody_here_understands_passes_untouched(self):
        ana, bob = self.phones(2, self.dale, self.mill)
        odd = (b"v=0\r\no=x 0 0 IN IP4 127.0.0.72\r\ns=\xc3\xa4\r\nt=0 0\r\nm=audio 17990 RTP/AVP 3 98\r\nc=IN IP4 127.0.0.72\r\n"
               b"a=rtpmap:98 AMR/8000\r\na=fmtp:98 octet-align=1\r\nx-what: ever\r\n")
        call = self.dale.call(ana, self.number(bob), odd)
        self.assertUp(call)
        self.assertEqual(self.called(self.mill, bob).sdp, odd)
        self.assertEqual(call.hangup(), 200)

    def test_the_caller_shows_his_first_number(self):
        ana, bob = self.phones(2, self.hill, self.mill)
        ana.numbers = ["+99999"]                           # what the base station believes is not asked
        call, other = self.talk(self.hill, self.mill, ana, bob, self.number(bob))
        self.assertEqual(display_name(other.invite.get("from")), self.number(ana))
        self.assertIn(self.number(ana), other.invite.get("p-asserted-identity"))
        self.assertNotIn("99999", str(other.invite))
        call.hangup()

    def test_a_caller_in_another_cell_of_his_location_area(self):
        ana, bob = self.phones(2, self.hill, self.mill)
        self.dale.add(ana)                                 # moved within the valley, and told nobody
        call, _ = self.talk(self.dale, self.mill, ana, bob, self.number(bob))
        self.assertEqual(call.hangup(), 200)

    def test_the_100_comes_at_once(self):
        ana, bob = self.phones(2, self.hill, self.mill)
        bob.on = False
        call = self.hill.call(ana, self.number(bob))
        self.assertTrue(call.wait("proceeding", timeout=0.9), "OpenBTS sends its INVITE again after a second")
        self.assertEqual(call.answers[0].code, 100)
        self.assertTrue(call.wait("failed", timeout=10))
        self.assertEqual(len([m for m in self.hill.sent("INVITE") if m.call_id == call.invite.call_id]), 2 if peers.doubled() else 1)

    # -- wire.md, literally --

    def test_the_literal_call(self):
        """INVITE, a late ACK and a BYE as wire.md has them."""
        raw, bob = RawStation(self, "raw0"), self.phones(1, self.mill)[0]
        ana = self.box.phone("none")
        raw.register(ana)
        call = Literal(raw, ana, self.number(bob, 1))
        call.say_invite()
        call.expect("SIP/2.0 100")
        call.expect("SIP/2.0 180")
        answer = call.expect("SIP/2.0 200")
        other = self.called(self.mill, bob)
        self.assertEqual(answer.body, other.own_sdp)
        time.sleep(2)                                      # the phone's CONNECT ACK takes its time
        call.say_ack(answer)
        self.assertTrue(self.mill.wait(lambda: other.got_ack, 3))
        time.sleep(0.3)
        call.say_bye(answer)
        self.assertTrue(raw.wait(lambda: any(a.cseq == (701617, "BYE") for a in call.answers("SIP/2.0 200")), 3), "no 200 to the BYE")
        self.assertTrue(other.wait("ended", timeout=3) and other.ended_by == "them")
        self.assertQuiet((raw, call.call_id), (self.mill, other.invite.call_id))
        self.assertEqual(raw.complaints, [])

    def test_the_literal_cancel(self):
        """A new branch, CSeq + 1, To with a tag: 200, and 487 for the INVITE; and the called phone stops ringing."""
        raw, bob = RawStation(self, "raw1"), self.phones(1, self.mill, answers="ring")[0]
        ana = self.box.phone("none")
        raw.register(ana)
        call = Literal(raw, ana, self.number(bob, 1))
        call.say_invite()
        call.expect("SIP/2.0 180")
        other = self.called(self.mill, bob)
        self.assertEqual(other.state, "ringing")
        call.say_cancel()
        answer = call.expect("SIP/2.0 200")
        self.assertEqual(answer.cseq, (701617, "CANCEL"))
        refused = call.expect("SIP/2.0 487")
        self.assertEqual(refused.cseq, (701616, "INVITE"))
        call.say_ack(refused)
        self.assertTrue(other.wait("cancelled", timeout=3), other)
        self.assertQuiet((raw, call.call_id), (self.mill, other.invite.call_id), seconds=6,   # the branch is buried after 5 s
                         buried=((self.mill, other.invite.call_id),))
        self.assertEqual(raw.complaints, [])

    def test_an_ack_after_seconds_and_to_another_of_our_ports(self):
        for number, port in (("raw2", "texts"), ("raw3", "registration")):
            raw, bob = RawStation(self, number), self.phones(1, self.mill)[0]
            ana = self.box.phone("none")
            raw.register(ana)
            call = Literal(raw, ana, self.number(bob))
            call.say_invite()
            answer = call.expect("SIP/2.0 200")
            other = self.called(self.mill, bob)
            time.sleep(4)
            call.say_ack(answer, (self.box.host, getattr(self.box, port)))
            self.assertTrue(self.mill.wait(lambda: other.got_ack, 3), f"an ACK at the port for {port} was not taken")
            before = len(call.answers("SIP/2.0 200"))
            time.sleep(5)                                  # a 200 that waits for its ACK comes again every 4 s at least
            self.assertEqual(len(call.answers("SIP/2.0 200")), before, "the 200 comes again although it was acknowledged")
            self.assertEqual(other.state, "up")
            call.say_bye(answer, (self.box.host, getattr(self.box, port)))
            self.assertTrue(other.wait("ended", timeout=3), f"a BYE at the port for {port} was not taken")

    def test_an_invite_that_comes_again_forks_no_second_call(self):
        raw, bob = RawStation(self, "raw4"), self.phones(1, self.mill, answers="ring")[0]
        ana = self.box.phone("none")
        raw.register(ana)
        call = Literal(raw, ana, self.number(bob))
        started = time.monotonic()
        for at in (0, 0.01, 1, 3, 7):
            time.sleep(max(0, started + at - time.monotonic()))
            call.say_invite()
        time.sleep(0.5)
        def at_bob():
            """Calls, and not datagrams: while it rings the base station is asked again whether it was picked up."""
            return {message.call_id for message in self.mill.received("INVITE") if f"IMSI{bob.imsi}@" in message.uri}
        self.assertEqual(len(at_bob()), 1)
        self.assertEqual(self.mill.pages.count(bob.imsi), 1)
        self.assertEqual(len({tag_of(a.get("to")) for a in call.answers() if tag_of(a.get("to"))}), 1, "one call has one To tag")
        bob.answers = "answer"
        other = self.called(self.mill, bob)
        call.say_cancel()
        self.assertTrue(other.wait("cancelled", timeout=3))
        # And one after the end of it all: the same answer once more, and nobody's phone rings.
        refused = call.expect("SIP/2.0 487")
        call.say_invite()
        time.sleep(1)
        call.say_ack(refused)
        self.assertEqual(len(at_bob()), 1)

    # -- What passes from the called base station --

    def test_180_and_183_pass_once_each(self):
        raw, ana, bob = RawStation(self, "raw5"), self.phones(1, self.hill)[0], self.box.phone("none")
        raw.register(bob)
        call = self.hill.call(ana, self.number(bob))
        invite = raw.invite_to(bob)
        for code, phrase in ((100, "Trying"), (100, "Trying"), (180, "Ringing"), (180, "Ringing"), (183, "Session Progress"), (183, "Session Progress"),
                             (180, "Ringing")):
            raw.bts_answer(invite, code, phrase)
            time.sleep(0.1)
        body = raw.sdp(bob.imsi)
        raw.bts_answer(invite, 200, "OK", body=body)
        self.assertUp(call)
        self.assertEqual(codes(call), [100, 180, 183, 200])
        self.assertEqual(call.sdp, body)
        self.assertIsNotNone(raw.expect("ACK", call_id=invite.call_id))
        call.hangup()
        bye = raw.expect("BYE", call_id=invite.call_id)
        self.assertIsNotNone(bye)
        self.assertEqual(bye.get("from").partition(";tag=")[2], invite.get("from").partition(";tag=")[2])
        self.assertEqual(tag_of(bye.get("to")), "OBTSfddyqelvoeyzgxgf")
        self.assertGreater(bye.cseq[0], invite.cseq[0])
        raw.bts_answer(bye, 200, "OK")
        self.assertQuiet((raw, invite.call_id))
        self.assertEqual(raw.complaints, [])

    def test_the_phrase_and_the_reason_of_a_refusal_pass_unchanged(self):
        raw, ana = RawStation(self, "raw6"), self.phones(1, self.hill)[0]
        for code, phrase, cause in ((486, "User_Busy", 17), (403, "Call_Rejected", 21), (603, "Call_Rejected", 21), (503, "Channel_Unavailable", 44),
                                    (480, "No_User_Responding", 18), (404, "Unassigned_Number", 1), (408, "Recovery_On_Timer_Expiry", 102)):
            bob = self.box.phone("none")
            raw.register(bob)
            call = self.hill.call(ana, self.number(bob))
            invite = raw.invite_to(bob)
            raw.bts_answer(invite, 100, "Trying")
            raw.bts_answer(invite, code, phrase, ("Reason", f'Q.850;cause={cause} ;text="{phrase}"'))
            self.assertFailed(call, code, cause, phrase)
            self.assertIn(f'text="{phrase}"', call.reason)
            ack = raw.expect("ACK", call_id=invite.call_id)
            self.assertIsNotNone(ack, "the refusal was not acknowledged")
            self.assertEqual((ack.vias()[0], ack.cseq[0], ack.uri), (invite.vias()[0], invite.cseq[0], invite.uri))
            self.assertEqual(tag_of(ack.get("to")), "OBTSfddyqelvoeyzgxgf")
        self.assertEqual(raw.complaints, [])

    def test_a_busy_and_an_unwilling_phone(self):
        ana, busy, unwilling = self.phones(3, self.hill, self.mill)
        busy.answers, unwilling.answers = "busy", "reject"
        self.assertFailed(self.hill.call(ana, self.number(busy)), 486, 17, "User_Busy")
        self.assertFailed(self.hill.call(ana, self.number(unwilling)), 403, 21, "Call_Rejected")

    def test_two_phones_that_call_each_other_are_both_busy(self):
        stations, phones = [RawStation(self, "raw14"), RawStation(self, "raw15")], [self.box.phone("none"), self.box.phone("none")]
        numbers = [raw.register(phone) for raw, phone in zip(stations, phones)]
        calls = [Literal(raw, phone, number) for raw, phone, number in zip(stations, phones, reversed(numbers))]
        for call in calls:
            call.say_invite()
        # Each base station has a phone that is dialling; where we know that ourselves, no INVITE comes.
        for raw, phone, call in zip(stations, phones, calls):
            if raw.wait(lambda: raw.heard(f"INVITE sip:IMSI{phone.imsi}@") or call.answers("SIP/2.0 486"), 5) and raw.heard("INVITE"):
                raw.bts_answer(raw.heard("INVITE")[0], 486, "User_Busy", ("Reason", 'Q.850;cause=17 ;text="User_Busy"'))
        for call in calls:
            refused = call.expect("SIP/2.0 486")
            self.assertIn("cause=17", refused.get("reason"))
            call.say_ack(refused)

    # -- Who may not --

    def test_numbers_that_are_nobodys(self):
        ana = self.phones(1, self.hill)[0]
        for dialled in ("+155500001234", "39999", "7", "IMSI001019999999999"):
            self.assertFailed(self.hill.call(ana, dialled), 404, 1)

    def test_a_caller_who_is_not_registered_here(self):
        ana, bob = self.phones(2, self.hill, self.mill)
        stranger, nobody = self.box.phone("none"), self.box.phone("none")
        nobody.imsi = "001019999999998"
        for phone, station in ((stranger, self.hill), (nobody, self.hill), (ana, self.mill)):
            station.add(phone)                             # ana: of another location area
            self.assertFailed(station.call(phone, self.number(bob)), 403, 21)
        self.assertEqual(calls_to(self.mill, bob), [])

    def test_a_registration_that_has_expired_still_counts(self):
        ana, bob = self.phones(2, self.hill, self.mill)
        self.assertTrue(self.hill.register(ana, expires=1).ok and self.mill.register(bob, expires=1).ok)
        time.sleep(2.5)
        self.assertTrue(self.box.lookup(bob.imsi)["bindings"][0]["stale"])
        call, _ = self.talk(self.hill, self.mill, ana, bob, self.number(bob))
        self.assertEqual(call.hangup(), 200)

    def test_one_who_is_registered_nowhere(self):
        ana, bob = self.phones(1, self.hill)[0], self.box.phone("none")
        self.assertFailed(self.hill.call(ana, self.number(bob)), 480, 18)

    def test_calling_oneself(self):
        ana = self.phones(1, self.hill)[0]
        call = self.hill.call(ana, self.number(ana))
        self.assertTrue(call.wait("failed", timeout=10))
        self.assertEqual(call.code, 486, "the base station says that its phone is busy")

    # -- Paging --

    def test_one_who_answers_no_paging(self):
        ana, bob = self.phones(2, self.hill, self.dale)
        bob.on = False
        call = self.hill.call(ana, self.number(bob))
        self.assertFailed(call, 480, 27, "No_Paging_Response", timeout=15)
        self.assertIn('text="No_Paging_Response"', call.reason)
        # Any base station pages any phone: the other one of the valley was asked too, each once.
        self.assertEqual((self.dale.pages.count(bob.imsi), self.hill.pages.count(bob.imsi), self.mill.pages.count(bob.imsi)), (1, 1, 0))

    def test_one_who_moved_within_the_location_area(self):
        ana, bob = self.phones(2, self.mill, self.dale)
        self.hill.add(bob)
        call = self.mill.call(ana, self.number(bob))
        self.assertUp(call, 15)
        self.assertEqual(call.sdp, self.called(self.hill, bob).own_sdp)
        self.assertEqual(call.hangup(), 200)
        self.assertTrue(calls_to(self.hill, bob)[0].wait("ended", timeout=3))

    def test_one_who_went_back_to_where_he_came_from(self):
        ana, bob = self.phones(2, self.hill, self.mill)
        self.assertTrue(self.dale.register(bob).ok)        # from the plain to the valley
        self.mill.add(bob)                                 # and back, without a word
        call = self.hill.call(ana, self.number(bob))
        self.assertUp(call, 15)
        self.assertEqual(call.sdp, self.called(self.mill, bob).own_sdp)
        self.assertEqual(call.hangup(), 200)

    def test_one_who_registers_elsewhere_while_he_is_paged(self):
        ana, bob = self.phones(2, self.hill, self.dale)
        bob.on = False
        call = self.hill.call(ana, self.number(bob))
        self.assertTrue(self.dale.wait(lambda: bob.imsi in self.dale.pages, 3))
        bob.on = True
        self.assertTrue(self.mill.register(bob).ok)
        self.assertUp(call, 15)
        self.assertEqual(call.sdp, self.called(self.mill, bob).own_sdp)
        self.assertEqual(call.hangup(), 200)

    # -- Giving up --

    def test_the_caller_gives_up_while_it_rings(self):
        ana, bob = self.phones(2, self.hill, self.mill, answers="ring")
        call = self.hill.call(ana, self.number(bob))
        self.assertTrue(call.wait("ringing", timeout=5))
        other = self.called(self.mill, bob)
        self.assertEqual(call.cancel(), 200)
        self.assertTrue(self.hill.wait(lambda: call.answers[-1].code == 487, 3), call.answers[-1].start)
        self.assertTrue(other.wait("cancelled", timeout=3), other)
        self.assertQuiet((self.hill, call.invite.call_id), (self.mill, other.invite.call_id), seconds=6, buried=((self.mill, other.invite.call_id),))
        # The phone is free again.
        bob.answers = "answer"
        again = self.hill.call(ana, self.number(bob))
        self.assertUp(again)
        self.assertEqual(again.hangup(), 200)

    def test_the_caller_gives_up_while_he_who_is_absent_is_paged(self):
        ana, bob = self.phones(2, self.hill, self.mill)
        bob.on = False
        call = self.hill.call(ana, self.number(bob))
        other = self.called(self.mill, bob)
        self.assertEqual(call.cancel(), 200)
        self.assertTrue(other.wait("cancelled", timeout=3), other)
        self.assertTrue(self.hill.wait(lambda: call.answers[-1].code == 487, 3))
        time.sleep(4)                                      # no other base station is asked for him
        self.assertEqual((self.hill.pages.count(bob.imsi), self.dale.pages.count(bob.imsi), self.mill.pages.count(bob.imsi)), (0, 0, 1))

    def test_an_answer_that_crosses_the_cancel(self):
        """The called base station says 200 after our CANCEL: it hears ACK and BYE, and nobody talks to nobody."""
        raw, ana, bob = RawStation(self, "raw7"), self.phones(1, self.hill)[0], self.box.phone("none")
        raw.register(bob)
        call = self.hill.call(ana, self.number(bob))
        invite = raw.invite_to(bob)
        raw.bts_answer(invite, 180, "Ringing")
        self.assertTrue(call.wait("ringing", timeout=5))
        self.assertEqual(call.cancel(), 200)
        cancel = raw.expect("CANCEL", call_id=invite.call_id)
        self.assertIsNotNone(cancel, "the called base station heard no CANCEL")
        self.assertEqual((cancel.uri, cancel.vias()[0], cancel.cseq[0]), (invite.uri, invite.vias()[0], invite.cseq[0]))
        raw.bts_answer(invite, 200, "OK", body=raw.sdp(bob.imsi))
        raw.bts_answer(cancel, 200, "OK")
        self.assertIsNotNone(raw.expect("ACK", 3, invite.call_id), "a 200 wants its ACK")
        bye = raw.expect("BYE", 3, invite.call_id)
        self.assertIsNotNone(bye, "the phone that answered is left alone on the line")
        raw.bts_answer(bye, 200, "OK")
        self.assertTrue(self.hill.wait(lambda: call.answers[-1].code == 487, 3), call.answers[-1].start)
        self.assertQuiet((raw, invite.call_id), (self.hill, call.invite.call_id))

    def test_a_cancel_that_crosses_the_answer(self):
        """Both on the way at one moment, in whatever order we see them: both phones are free afterwards."""
        raw, hill, ana, bob = RawStation(self, "raw8"), RawStation(self, "raw9"), self.box.phone("none"), self.box.phone("none")
        raw.register(bob)
        hill.register(ana)
        for order in ("answer first", "cancel first"):
            call = Literal(hill, ana, self.number(bob))
            call.say_invite()
            invite = raw.invite_to(bob, nth=0 if order == "answer first" else 1)
            raw.bts_answer(invite, 180, "Ringing")
            call.expect("SIP/2.0 180")
            if order == "answer first":
                raw.bts_answer(invite, 200, "OK", body=raw.sdp(bob.imsi))
                call.say_cancel()
            else:
                call.say_cancel()
                raw.bts_answer(invite, 200, "OK", body=raw.sdp(bob.imsi))
            bye = raw.expect("BYE", 6, invite.call_id)
            self.assertIsNotNone(bye, f"{order}: no BYE for the one who answered; he heard {heard(raw, invite.call_id)}")
            raw.bts_answer(bye, 200, "OK")
            for cancel in raw.heard("CANCEL", invite.call_id):
                raw.bts_answer(cancel, 200, "OK")
            # The caller hears 487, or 200 and then a BYE.
            self.assertTrue(hill.wait(lambda: call.answers("SIP/2.0 487") or hill.heard("BYE", call.call_id), 6), f"{order}: {heard(hill, call.call_id)}")
            for answer in call.answers("SIP/2.0 487"):
                call.say_ack(answer)
            for bye in hill.heard("BYE", call.call_id):
                hill.bts_answer(bye, 200, "OK")
            self.assertQuiet((raw, invite.call_id), (hill, call.call_id))

    def test_no_ack_for_32_seconds_ends_both_legs(self):
        raw, bob = RawStation(self, "raw10"), self.phones(1, self.mill)[0]
        ana = self.box.phone("none")
        raw.register(ana)
        call = Literal(raw, ana, self.number(bob))
        call.say_invite()
        call.expect("SIP/2.0 200")
        other = self.called(self.mill, bob)
        answered = time.monotonic()
        self.assertTrue(other.wait("ended", timeout=40), "the called phone is left on the line")
        self.assertGreater(time.monotonic() - answered, 25)
        bye = raw.expect("BYE", 3, call.call_id)
        self.assertIsNotNone(bye, "and the caller is told too")
        raw.bts_answer(bye, 200, "OK")

    def test_a_base_station_that_is_silent_has_15_seconds(self):
        """The first group is left after 15 s: paging takes 10 s."""
        raw, ana, bob = RawStation(self, "raw11"), self.phones(1, self.hill)[0], self.phones(1, self.mill)[0]
        raw.register(bob)                                  # bound at the silent one, and mill is where he was before
        self.mill.add(bob)
        started = time.monotonic()
        call = self.hill.call(ana, self.number(bob))
        invite = raw.invite_to(bob)
        self.assertUp(call, 30)
        took = time.monotonic() - started
        self.assertTrue(13 < took < 20, took)
        self.assertLessEqual(len(raw.heard("INVITE", invite.call_id)), 8, "it is called again by RFC 3261's timer A, no faster")
        self.assertEqual(call.hangup(), 200)

    # -- In a dialog --

    def test_both_hang_up_at_once(self):
        ana, bob = self.phones(2, self.hill, self.mill)
        call, other = self.talk(self.hill, self.mill, ana, bob, self.number(bob))
        self.hill.crossing, self.mill.crossing = {call.invite.call_id}, {other.invite.call_id}
        self.hill._bye(call)                               # both have said it before either hears of the other one
        self.mill._bye(other)
        for station, each in ((self.hill, call), (self.mill, other)):
            self.assertTrue(station.wait(lambda: each.bye_code is not None, 4), f"{each}: no answer to its BYE")
            self.assertIn(each.bye_code, (200, 481))
        time.sleep(1)
        self.assertQuiet((self.hill, call.invite.call_id), (self.mill, other.invite.call_id))

    def test_a_base_station_without_a_name(self):
        """Inside front.base_stations, in no table: its phones call and are called like all others."""
        station = Station(self.box, NAMELESS_STATION, free_port(NAMELESS_STATION), **QUICK)
        self.addCleanup(station.close)
        ana, bob = self.phones(2, station, self.mill)
        for here, caller, there, callee in ((station, ana, self.mill, bob), (self.mill, bob, station, ana)):
            call, other = self.talk(here, there, caller, callee, self.number(callee))
            self.assertEqual(call.hangup(), 200)
            self.assertTrue(other.wait("ended", timeout=3))
        ana.on = False
        self.assertFailed(self.mill.call(bob, self.number(ana)), 480, 27, "No_Paging_Response")
        self.assertEqual((self.hill.pages.count(ana.imsi), self.dale.pages.count(ana.imsi)), (0, 0), "it is of no location area")
        time.sleep(2.5)
        self.assertEqual(audit(station, self.box), [])

    def test_a_second_invite_in_a_dialog_and_a_bye_of_no_dialog(self):
        raw, bob = RawStation(self, "raw12"), self.phones(1, self.mill)[0]
        ana = self.box.phone("none")
        raw.register(ana)
        call = Literal(raw, ana, self.number(bob))
        call.say_invite()
        answer = call.expect("SIP/2.0 200")
        call.say_ack(answer)
        other = self.called(self.mill, bob)
        for wrong in ("call_id", "from_tag"):              # not ours: refused, and the call lives on
            kept = getattr(call, wrong)
            setattr(call, wrong, kept + "x")
            call.say_bye(answer, raw.to)
            refused = raw.wait(lambda: any(a.cseq[1] == "BYE" and a.code == 481 for a in raw.heard("SIP/2.0 481")), 3)
            setattr(call, wrong, kept)
            self.assertTrue(refused, f"a BYE with another {wrong}")
            raw.traffic.clear()
        time.sleep(0.5)
        self.assertEqual(other.state, "up")
        raw.send(call._dialog("BYE", f"sip:{call.dialled}@{call.proxy}", 701618, f"z9hG4bK{letters(8)}", tag_of(answer.get("to")), True), raw.to)
        self.assertTrue(other.wait("ended", timeout=3))

    def test_a_bye_that_comes_again_gets_its_200_again(self):
        raw, bob = RawStation(self, "raw13"), self.phones(1, self.mill)[0]
        ana = self.box.phone("none")
        raw.register(ana)
        call = Literal(raw, ana, self.number(bob))
        call.say_invite()
        answer = call.expect("SIP/2.0 200")
        call.say_ack(answer)
        time.sleep(0.3)
        bye = call._dialog("BYE", f"sip:{call.dialled}@{call.proxy}", 701617, f"z9hG4bK{letters(8)}", tag_of(answer.get("to")), True)
        for _ in range(3):
            raw.send(bye)
            time.sleep(0.3)
        answers = [a.code for a in call.answers() if a.cseq[1] == "BYE"]
        self.assertEqual(answers, [200] * 3)
        at_bob = [m for m in self.mill.received("BYE") if m.call_id == self.called(self.mill, bob).invite.call_id]
        self.assertEqual(len(at_bob), 1)


class ShortTimes(Stations, SideBySide):
    """The same times, made short: the first group has 2 s, a whole setup 6 s; cells are probed each second."""

    options = {"sims": open_sims(30), "trunks": False, "sites": {f"raw{number}": f"alone{number}" for number in range(4)} | {"moor": "fens", "fen": "fens"},
               "more": '[calls]\nring_group = "2 s"\nsetup_max = "6 s"\nprobe_interval = "1 s"\n'}

    @classmethod
    def ready(cls):
        super().ready()
        cls.moor, cls.fen = (Station(cls.box, cls.box.addresses[name], cls.box.station_ports[name], **QUICK) for name in ("moor", "fen"))

    def test_a_phone_that_nobody_picks_up(self):
        ana, bob = self.phones(2, self.hill, self.mill, answers="ring")
        started = time.monotonic()
        call = self.hill.call(ana, self.number(bob))
        self.assertTrue(call.wait("failed", timeout=12), call)
        self.assertTrue(5 < time.monotonic() - started < 9)
        self.assertIn(call.code, (480, 408), "no answer, at the phone")
        self.assertTrue(calls_to(self.mill, bob)[0].wait("cancelled", timeout=3), "it rings on")

    def test_a_dead_base_station_is_left_for_the_others_of_its_area(self):
        ana, bob = self.phones(2, self.hill, self.moor)
        self.fen.add(bob)
        self.moor.mute = True
        started = time.monotonic()
        call = self.hill.call(ana, self.number(bob))
        self.assertUp(call, 8)
        self.assertTrue(1.5 < time.monotonic() - started < 5, "after the 2 s of the first group")
        self.assertEqual(call.sdp, self.called(self.fen, bob).own_sdp)
        self.assertEqual(call.hangup(), 200)
        self.moor.mute = False                             # and is told of the end

    def test_a_silent_one_that_rings_late_does_not_ring_twice(self):
        """The first one wakes up after it was given up: it is cancelled, and one phone talks."""
        raw, ana, bob = RawStation(self, "raw0"), self.phones(1, self.hill)[0], self.phones(1, self.mill)[0]
        raw.register(bob)
        self.mill.add(bob)
        call = self.hill.call(ana, self.number(bob))
        invite = raw.invite_to(bob)
        self.assertUp(call, 8)
        raw.bts_answer(invite, 100, "Trying")
        raw.bts_answer(invite, 180, "Ringing")
        cancel = raw.expect("CANCEL", 3, invite.call_id)
        self.assertIsNotNone(cancel, "the late one is not cancelled")
        raw.bts_answer(cancel, 200, "OK")
        self.assertEqual([a.code for a in call.answers].count(200), 1)
        self.assertEqual(call.hangup(), 200)

    def test_a_late_200_of_one_that_was_given_up_is_ended(self):
        raw, ana, bob = RawStation(self, "raw1"), self.phones(1, self.hill)[0], self.phones(1, self.mill)[0]
        raw.register(bob)
        self.mill.add(bob)
        call = self.hill.call(ana, self.number(bob))
        invite = raw.invite_to(bob)
        raw.bts_answer(invite, 100, "Trying")
        self.assertUp(call, 8)
        own = call.sdp
        raw.bts_answer(invite, 200, "OK", body=raw.sdp(bob.imsi))
        bye = raw.expect("BYE", 4, invite.call_id)
        self.assertIsNotNone(bye, f"at most one branch is answered: {heard(raw, invite.call_id)}")
        raw.bts_answer(bye, 200, "OK")
        self.assertEqual(call.sdp, own)
        self.assertEqual(call.hangup(), 200)

    def test_a_cell_that_has_died_is_found(self):
        """The called cell falls silent in a call: its OPTIONS are not answered, and the caller is told."""
        raw, ana, bob = RawStation(self, "raw2"), self.phones(1, self.hill)[0], self.box.phone("none")
        raw.register(bob)
        call = self.hill.call(ana, self.number(bob))
        invite = raw.invite_to(bob)
        raw.bts_answer(invite, 200, "OK", body=raw.sdp(bob.imsi))
        self.assertUp(call)
        probe = raw.expect("OPTIONS", 4)
        self.assertIsNotNone(probe, "nobody asks whether it lives")
        self.assertNotEqual(probe.call_id, invite.call_id, "in a dialog it would be answered 404, whatever became of the call")
        self.assertTrue(call.wait("ended", timeout=60), call)
        bye = raw.expect("BYE", 3, invite.call_id)
        self.assertIsNotNone(bye, "it may live after all")
        raw.bts_answer(bye, 200, "OK")


class Maximum(Stations, SideBySide):
    options = {"sims": open_sims(4), "trunks": False, "more": '[calls]\nduration_max = "5 s"\n'}

    def test_a_call_ends_at_its_maximum(self):
        ana, bob = self.phones(2, self.hill, self.mill)
        call = self.hill.call(ana, self.number(bob))
        self.assertUp(call)
        started = time.monotonic()
        self.assertTrue(call.wait("ended", timeout=12) and call.ended_by == "them", call)
        self.assertTrue(calls_to(self.mill, bob)[0].wait("ended", timeout=3))
        self.assertTrue(3 < time.monotonic() - started < 9)


class TwoBoxes(unittest.TestCase):
    def test_a_call_to_a_phone_that_registered_at_the_other_box(self):
        front, far = two_boxes(self, open_sims(8))
        hill, mill = front.station("hill", **QUICK), far.station("mill", **QUICK)
        ana, bob = front.phone("none"), front.phone("none")
        self.assertTrue(hill.register(ana).ok and mill.register(bob).ok)
        for here, caller, there, callee in ((hill, ana, mill, bob), (mill, bob, hill, ana)):
            call = here.call(caller, front.numbers_of(callee)[0])
            self.assertTrue(call.wait("up", timeout=8), call)
            other = calls_to(there, callee)[0]
            self.assertEqual((other.sdp, call.sdp), (call.invite.body, other.own_sdp))
            self.assertEqual(call.hangup(), 200)
            self.assertTrue(other.wait("ended", timeout=4))
        # He comes to the near one while the far one is dead: the newest word counts.
        far.freeze()
        try:
            bob.camps_on.phones.clear()
            self.assertTrue(hill.register(bob).ok)
            call = hill.call(ana, front.numbers_of(bob)[0])
            self.assertTrue(call.wait("up", timeout=8), call)
            self.assertEqual(call.hangup(), 200)
        finally:
            far.thaw()
        time.sleep(2.5)
        self.assertEqual(audit(hill, front) + audit(mill, far), [])
