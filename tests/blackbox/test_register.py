"""REGISTER and the redirect, as a base station and a PBX see them: the table of answers, over real sockets.

run.py runs this file a second time with DOUBLE=1: every base station then sends each datagram twice, and nothing may be
answered differently or done twice.
"""

import re
import socket
import threading
import time
import unittest

from box import (ALGORITHMS, AREAS, DOMAIN, PEER, STATIONS, STRANGER, Box, BoxTest, Sim, Station, Talker, contact_of, free_port, q850, sims_for_tests,
                 two_shards)
from obts import Phone
from sip import Message, tag_of

DIALECTS = ("5.0", "4.0", "realm", "yate")
CHALLENGE_LIFE_S = 30

BARRED = Sim("001010099999901", "comp128v1", ["+15559901", "9901"], "Barred", barred=True)


def answered(station: Station, phone: Phone, nonce: str | Message, rand: str = "", spoil: bool = False, expires: int | None = None):
    """The second leg by hand: answers a challenge with the right SRES, or with a spoiled one."""
    if isinstance(nonce, Message):
        rand = station.read_challenge(nonce)[0].hex()
    sres, _ = phone.authenticate(bytes.fromhex(rand))
    if spoil:
        sres = bytes([sres[0] ^ 0x80]) + sres[1:]
    return station.register_leg(phone, station.authorization(phone, nonce, sres), expires, 5)


def cause_of(answer: Message) -> int | None:
    text = answer.get("p-gsm-reject-cause")
    return int(text) if text.isdigit() else None


class Register(BoxTest):
    options = {"sims": sims_for_tests(100) + [BARRED]}

    def assertAt(self, phone: Phone, station: Station | None):
        """The one place where the phone is found: by lookup and by redirect."""
        bindings = self.box.lookup(phone.imsi)["bindings"]
        if station is None:
            self.assertEqual(bindings, [])
        else:
            self.assertEqual([binding["contact"] for binding in bindings], [station.where(phone)])
        with Talker(self.box) as pbx:
            answer = pbx.invite(self.box.numbers_of(phone)[0])
        if station is None:
            self.assertEqual(answer.code, 480)
        else:
            self.assertEqual((answer.code, contact_of(answer)), (302, station.where(phone)))

    def refuse(self, station: Station, answer: Message | None, code: int, cause: int | None, authorized: bool = True):
        self.assertIsNotNone(answer, "no answer")
        self.assertEqual((answer.code, cause_of(answer)), (code, cause), str(answer))
        self.assertFalse(station.lets_in_by_failmode(answer, authorized), "the base station lets the phone in although it was refused")

    # -- Being let in --

    def test_every_dialect_with_every_algorithm(self):
        for dialect in DIALECTS:
            station = self.box.station("hill", dialect=dialect)
            for algorithm in ALGORITHMS:
                with self.subTest(dialect=dialect, algorithm=algorithm):
                    phone = self.box.phone(algorithm)
                    done = station.register(phone)
                    self.assertEqual((done.code, done.error), (200, ""), done.answers and str(done.answers[-1]))
                    numbers = self.box.numbers_of(phone)
                    self.assertEqual(done.numbers[0].lstrip("+"), numbers[0].lstrip("+"))
                    last = done.answers[-1]
                    if algorithm == "none":
                        self.assertEqual(len(done.answers), 1, "an open SIM is let in at once")
                        self.assertEqual(last.get("authentication-info"), "")
                    else:
                        self.assertEqual(len(done.answers), 2)
                        if dialect != "yate":
                            self.assertEqual(done.kc.lower(), done.kc_of_phone)
                    # The contact is ours, with the life that was asked for.
                    self.assertIn(station.where(phone), last.get("contact"))
                    asked = 3600 if dialect == "yate" else 5400
                    self.assertRegex(f"{last.get('contact')} {last.get('expires')}", rf"\b{asked}\b|\b{asked - 1}\b")
                    self.assertAt(phone, station)
            self._close(station)

    def _close(self, station: Station):
        """Another one takes its address."""
        faults = station.faults()
        station.close()
        self.box.stations.remove(station)
        self.assertEqual(faults, [])

    def test_the_challenge_is_written_so_that_the_oldest_base_station_can_read_it(self):
        hill, ana = self.box.station("hill"), self.box.phone()
        answer = hill.register_leg(ana)
        self.assertEqual(answer.code, 401)
        self.assertRegex(answer.get("www-authenticate"), r"^Digest +nonce=[0-9a-f]{32}$")
        self.assertEqual(len(answer.vias()), 1, "our own Via does not belong into an answer")

    def test_no_two_challenges_are_alike(self):
        hill, ana = self.box.station("hill"), self.box.phone()
        self.assertEqual(len({hill.register_leg(ana).get("www-authenticate") for _ in range(20)}), 20)

    def test_one_call_id_and_one_counter_serve_all_phones_of_a_base_station(self):
        hill = self.box.station("hill")
        phones = [self.box.phone(algorithm) for algorithm in ALGORITHMS if algorithm != "none"]
        challenges = [(phone, hill.register_leg(phone)) for phone in phones]
        for phone, challenge in reversed(challenges):
            self.assertEqual(answered(hill, phone, challenge).code, 200)
        for phone in phones:
            self.assertAt(phone, hill)

    def test_many_phones_at_once(self):
        hill = self.box.station("hill")
        phones, results = [self.box.phone("comp128v2") for _ in range(8)], {}

        def one(phone):
            results[phone.imsi] = hill.register(phone)

        threads = [threading.Thread(target=one, args=(phone,)) for phone in phones]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(30)
        self.assertEqual([results[phone.imsi].code for phone in phones], [200] * 8)

    def test_a_base_station_inside_the_listed_network_needs_no_table(self):
        station, ana = self.box.nameless_station(), self.box.phone()
        self.assertTrue(station.register(ana).ok)
        self.assertIsNone(self.box.lookup(ana.imsi)["bindings"][0]["base_station"])
        self.assertAt(ana, station)

    def test_lookup_tells_who_where_and_for_how_long(self):
        hill, ana = self.box.station("hill", lac=0x3E8, cell=10), self.box.phone()
        self.assertTrue(hill.register(ana, expires=600).ok)
        for who in (ana.imsi, f"IMSI{ana.imsi}", *self.box.numbers_of(ana)):
            found = self.box.lookup(who)
            self.assertEqual((found["imsi"], found["msisdn"]), (ana.imsi, self.box.numbers_of(ana)))
        binding = found["bindings"][0]
        self.assertEqual((binding["base_station"], binding["location_area"], binding["cell"], binding["stale"]),
                         ("hill", AREAS["hill"], "001-01-1000-10", False))
        self.assertTrue(590 <= binding["expires_s"] <= 600, binding)
        self.assertRegex(binding["since"], r"^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d")

    def test_an_answer_goes_out_well_within_the_time_of_a_radio_channel(self):
        hill = self.box.station("hill")
        took = sorted(hill.register(self.box.phone("comp128v1")).seconds for _ in range(5))
        self.assertLess(took[2], 1.0, "both legs")

    # -- Being refused --

    def test_an_unknown_imsi_is_404_with_cause_4(self):
        for dialect, code, cause in (("5.0", 404, 4), ("4.0", 404, 4), ("realm", 404, 4), ("yate", 488, None)):
            with self.subTest(dialect=dialect):
                station = self.box.station("hill", dialect=dialect)
                done = station.register(Phone("001019876543210", "00" * 16))
                self.assertRefused(done, code, cause if dialect != "yate" else done.reject_cause)
                self.assertEqual(len(done.answers), 1, "refused on the first leg")
                self._close(station)

    def test_a_wrong_sres_stays_out(self):
        for dialect, code, cause in (("5.0", 401, 4), ("4.0", 401, 4), ("realm", 401, 4), ("yate", 488, None)):
            for algorithm in ("comp128v1", "comp128v3", "milenage-op", "xor"):
                with self.subTest(dialect=dialect, algorithm=algorithm):
                    station, mallory = self.box.station("hill", dialect=dialect), self.box.phone(algorithm)
                    mallory.ki = "ff" * 16
                    done = station.register(mallory)
                    self.assertRefused(done, code, cause if dialect != "yate" else done.reject_cause)
                    self.assertEqual(done.answers[-1].get("www-authenticate"), "", "after an Authorization there is never another challenge")
                    self.assertEqual(done.answers[-1].get("authentication-info"), "", "no Kc for a stranger")
                    self.assertEqual(self.box.lookup(mallory.imsi)["bindings"], [])
                    self._close(station)

    def test_a_wrong_sres_does_not_touch_the_binding_that_is_there(self):
        hill, dale, ana = self.box.station("hill"), self.box.station("dale"), self.box.phone()
        self.assertTrue(hill.register(ana).ok)
        mallory = Phone(ana.imsi, "ff" * 16, ana.algorithm)
        self.assertRefused(dale.register(mallory), 401, 4)
        self.assertAt(ana, hill)

    def test_a_wrong_answer_burns_the_challenge(self):
        hill, ana = self.box.station("hill"), self.box.phone()
        challenge = hill.register_leg(ana)
        self.refuse(hill, answered(hill, ana, challenge, spoil=True), 401, 4)
        self.refuse(hill, answered(hill, ana, challenge), 503, 17)
        self.assertAt(ana, None)

    def test_a_barred_subscriber_is_403_with_cause_13(self):
        for dialect, code, cause in (("5.0", 403, 13), ("yate", 488, None)):
            with self.subTest(dialect=dialect):
                station = self.box.station("hill", dialect=dialect)
                done = station.register(BARRED.phone())
                self.assertRefused(done, code, cause if dialect != "yate" else done.reject_cause)
                self._close(station)

    def test_an_authorization_that_cannot_be_read_is_never_answered_with_a_challenge(self):
        hill, ana = self.box.station("hill"), self.box.phone()
        nonce = hill._nonce_text(hill.register_leg(ana))
        for authorization in ("Digest", "Basic Zm9vOmJhcg==", f'Digest nonce="{nonce}"', f'Digest nonce="{nonce}", uri="{ana.imsi}", response=""',
                              f'Digest nonce="{nonce}", uri="{ana.imsi}", response="xyzxyzxy"',
                              f'Digest nonce="{nonce}", uri="{ana.imsi}", response="{"0" * 24}"'):
            with self.subTest(authorization=authorization):
                answer = hill.register_leg(ana, authorization, timeout=5)
                self.assertIsNotNone(answer)
                self.assertGreaterEqual(answer.code, 400)
                self.assertFalse(hill.lets_in_by_failmode(answer, True), str(answer))
        self.assertAt(ana, None)

    # -- Nonces --

    def test_a_recorded_answer_is_worthless(self):
        for dialect, code, cause in (("5.0", 503, 17), ("4.0", 503, 17), ("realm", 503, 17), ("yate", 500, None)):
            with self.subTest(dialect=dialect):
                station, ana = self.box.station("hill", dialect=dialect), self.box.phone()
                challenge = station.register_leg(ana)
                self.assertEqual(answered(station, ana, challenge).code, 200)
                answer = answered(station, ana, challenge)
                self.refuse(station, answer, code, cause if dialect != "yate" else cause_of(answer))
                self._close(station)

    def test_a_nonce_that_was_never_issued(self):
        hill, ana = self.box.station("hill"), self.box.phone()
        nonce = "0123456789abcdef" * 2
        self.refuse(hill, answered(hill, ana, nonce, nonce), 503, 17)
        challenge = hill.register_leg(ana)
        self.refuse(hill, answered(hill, ana, nonce, nonce), 503, 17)
        self.assertEqual(answered(hill, ana, challenge).code, 200, "the rightful challenge is still good")

    def test_the_nonce_of_another_imsi(self):
        hill, ana, bob = self.box.station("hill"), self.box.phone(), self.box.phone()
        challenge = hill.register_leg(ana)
        self.refuse(hill, answered(hill, bob, challenge), 503, 17)
        self.assertEqual(answered(hill, ana, challenge).code, 200, "the rightful owner can still use it")
        self.assertAt(bob, None)

    def test_a_nonce_given_to_another_base_station(self):
        hill, dale, ana = self.box.station("hill"), self.box.station("dale"), self.box.phone()
        challenge = hill.register_leg(ana)
        self.refuse(dale, answered(dale, ana, challenge), 503, 17)
        self.assertEqual(answered(hill, ana, challenge).code, 200, "a right answer from a wrong source burns nothing")
        self.assertAt(ana, hill)

    def test_a_new_challenge_replaces_the_one_before(self):
        hill, ana = self.box.station("hill"), self.box.phone()
        first, second = hill.register_leg(ana), hill.register_leg(ana)
        self.assertNotEqual(first.get("www-authenticate"), second.get("www-authenticate"))
        self.refuse(hill, answered(hill, ana, first), 503, 17)
        self.assertEqual(answered(hill, ana, second).code, 200)

    def test_a_challenge_dies_after_30_s(self):
        hill, ana, bob = self.box.station("hill"), self.box.phone(), self.box.phone()
        challenge, other = hill.register_leg(ana), hill.register_leg(bob)
        time.sleep(CHALLENGE_LIFE_S / 2)
        self.assertEqual(answered(hill, bob, other).code, 200, "half of its life")
        time.sleep(CHALLENGE_LIFE_S / 2 + 1)
        self.refuse(hill, answered(hill, ana, challenge), 503, 17)

    def test_challenges_do_not_survive_a_restart(self):
        hill, ana = self.box.station("hill"), self.box.phone()
        challenge = hill.register_leg(ana)
        self.box.restart()
        self.refuse(hill, answered(hill, ana, challenge), 503, 17)

    # -- Leaving, moving, coming back --

    def test_a_detach_is_honoured_without_a_challenge(self):
        for dialect in ("5.0", "4.0"):
            with self.subTest(dialect=dialect):
                station, ana = self.box.station("hill", dialect=dialect), self.box.phone()
                self.assertTrue(station.register(ana).ok)
                self.assertEqual(station.detach(ana, timeout=5).code, 200)
                self.assertAt(ana, None)
                self._close(station)

    def test_a_detach_of_a_phone_that_is_nowhere_is_200(self):
        hill, ana = self.box.station("hill"), self.box.phone()
        self.assertEqual(hill.detach(ana, timeout=5).code, 200)
        self.assertAt(ana, None)

    def test_a_detach_with_another_contact_is_answered_and_ignored(self):
        hill, ana = self.box.station("hill"), self.box.phone()
        self.assertTrue(hill.register(ana).ok)
        request = hill.register_request(ana, None, 0)
        request.headers = [(name, value.replace(f":{hill.port}>", f":{hill.port + 1}>") if name == "Contact" else value)
                           for name, value in request.headers]
        self.assertEqual(hill.transact(request, hill.registrar, 5).code, 200)
        self.assertAt(ana, hill)

    def test_a_detach_from_the_old_cell_after_a_move_is_answered_and_ignored(self):
        hill, dale, ana = self.box.station("hill"), self.box.station("dale"), self.box.phone()
        self.assertTrue(hill.register(ana).ok and dale.register(ana).ok)
        self.assertEqual(hill.detach(ana, timeout=5).code, 200)
        self.assertAt(ana, dale)

    def test_nobody_detaches_a_phone_of_another_base_station_by_naming_its_contact(self):
        hill, dale, ana = self.box.station("hill"), self.box.station("dale"), self.box.phone()
        self.assertTrue(hill.register(ana).ok)
        forged = dale.register_request(ana, None, 0)
        forged.headers = [(name, f"<{hill.where(ana)}>;expires=0" if name == "Contact" else value) for name, value in forged.headers]
        dale.transact(forged, dale.registrar, 5)
        self.assertAt(ana, hill)

    def test_a_detach_with_a_star_from_a_base_station_removes_nothing(self):
        hill, dale, ana = self.box.station("hill"), self.box.station("dale"), self.box.phone()
        self.assertTrue(hill.register(ana).ok)
        star = dale.register_request(ana, None, 0)
        star.headers = [(name, "*" if name == "Contact" else value) for name, value in star.headers] + [("Expires", "0")]
        dale.transact(star, dale.registrar, 5)
        self.assertAt(ana, hill)

    def test_a_phone_that_moves_is_found_in_its_new_cell_only(self):
        hill, dale, mill, ana = *(self.box.station(name) for name in STATIONS), self.box.phone()
        for station in (hill, dale, mill, hill):
            self.assertTrue(station.register(ana).ok)
            self.assertAt(ana, station)

    def test_a_base_station_that_restarts_has_another_call_id_and_a_lower_cseq(self):
        hill, ana, bob = self.box.station("hill"), self.box.phone(), self.box.phone()
        hill.restart(cseq=500_000)
        self.assertTrue(hill.register(ana).ok and hill.register(bob).ok)
        hill.restart(cseq=1)
        self.assertTrue(hill.register(ana).ok)
        self.assertEqual(hill.detach(bob, timeout=5).code, 200)
        self.assertAt(ana, hill)
        self.assertAt(bob, None)

    def test_a_phone_that_registers_again_stays_one_binding(self):
        hill, ana = self.box.station("hill"), self.box.phone()
        for _ in range(4):
            self.assertTrue(hill.register(ana).ok)
        self.assertAt(ana, hill)

    def test_a_binding_past_its_expiry_is_stale_and_still_routable(self):
        hill, ana = self.box.station("hill"), self.box.phone()
        self.assertTrue(hill.register(ana, expires=1).ok, "base stations are exempt from the minimum: they cannot read a 423")
        self.assertFalse(self.box.lookup(ana.imsi)["bindings"][0]["stale"])
        time.sleep(2.2)
        binding = self.box.lookup(ana.imsi)["bindings"][0]
        self.assertTrue(binding["stale"])
        self.assertLess(binding["expires_s"], 0)
        self.assertAt(ana, hill)
        self.assertEqual(hill.detach(ana, timeout=5).code, 200)
        self.assertAt(ana, None)

    def test_bindings_survive_a_restart_of_the_box(self):
        hill, ana, bob = self.box.station("hill"), self.box.phone(), self.box.phone()
        self.assertTrue(hill.register(ana).ok and hill.register(bob).ok)
        self.assertEqual(hill.detach(bob, timeout=5).code, 200)
        code, took = self.box.stop()
        self.assertEqual(code, 0)
        self.assertLess(took, 2, "SIGTERM ends cleanly within 2 s")
        self.box.start()
        self.assertAt(ana, hill)
        self.assertAt(bob, None)

    # -- Copies --

    def test_a_copy_gets_the_identical_answer_and_nothing_is_done_twice(self):
        hill, ana = self.box.station("hill"), self.box.phone()
        request = hill.register_request(ana)
        challenge = hill.transact(request, hill.registrar, 5)
        for _ in range(3):
            copy = hill.transact(request, hill.registrar, 5)
            self.assertEqual(copy.encode(), challenge.encode())
        sres, _ = ana.authenticate(hill.read_challenge(challenge)[0])
        second = hill.register_request(ana, hill.authorization(ana, challenge, sres))
        done = hill.transact(second, hill.registrar, 5)
        self.assertEqual(done.code, 200)
        since = self.box.lookup(ana.imsi)["bindings"][0]["since"]
        for _ in range(3):
            copy = hill.transact(second, hill.registrar, 5)
            self.assertEqual(copy.encode(), done.encode(), "not 503: the nonce is spent, but this is the same request")
        self.assertEqual(self.box.lookup(ana.imsi)["bindings"][0]["since"], since)

    def test_a_copy_that_comes_late_undoes_nothing(self):
        hill, dale, ana = self.box.station("hill"), self.box.station("dale"), self.box.phone()
        challenge = hill.register_leg(ana)
        sres, _ = ana.authenticate(hill.read_challenge(challenge)[0])
        second = hill.register_request(ana, hill.authorization(ana, challenge, sres))
        self.assertEqual(hill.transact(second, hill.registrar, 5).code, 200)
        self.assertTrue(dale.register(ana).ok)
        hill.transact(second, hill.registrar, 5)
        self.assertAt(ana, dale)

    def test_other_methods_are_405_with_allow(self):
        hill, ana = self.box.station("hill"), self.box.phone()
        for method in ("SUBSCRIBE", "NOTIFY", "PUBLISH", "REFER", "FOO"):
            with self.subTest(method=method):
                request = hill.register_request(ana)
                request.start = request.start.replace("REGISTER", method, 1)
                request.headers = [(name, value.replace("REGISTER", method)) for name, value in request.headers if name not in ("Contact",)]
                answer = hill.transact(request, hill.registrar, 5)
                self.assertIsNotNone(answer)
                self.assertEqual(answer.code, 405)
                self.assertIn("REGISTER", answer.get("allow"))


class Redirect(BoxTest):
    """A call from a trunk, and those who are not a trunk."""

    options = {"sims": sims_for_tests(20) + [BARRED]}

    def test_a_trunk_is_sent_to_the_base_station_and_its_ack_absorbed(self):
        hill, ana = self.box.station("hill"), self.box.phone()
        self.assertTrue(hill.register(ana).ok)
        with Talker(self.box) as pbx:
            for user in (*self.box.numbers_of(ana), f"IMSI{ana.imsi}"):
                with self.subTest(user=user):
                    invite = pbx.request("INVITE", user)
                    answer = pbx.ask(invite)
                    self.assertEqual((answer.code, contact_of(answer)), (302, hill.where(ana)))
                    self.assertTrue(tag_of(answer.get("to")))
                    self.assertEqual(answer.get("cseq"), invite.get("cseq"))
                    pbx.ack(invite, answer)
                    self.assertEqual(pbx.answers(0.3), [], "an ACK is never answered")

    def test_the_302_is_stateless(self):
        hill, ana = self.box.station("hill"), self.box.phone()
        self.assertTrue(hill.register(ana).ok)
        with Talker(self.box) as pbx:
            invite = pbx.request("INVITE", self.box.numbers_of(ana)[0])
            first = pbx.ask(invite)
            self.assertEqual(pbx.answers(1.2), [], "the 302 is not sent again by itself")
            self.assertEqual(pbx.ask(invite).encode(), first.encode(), "a copy gets the same, To tag included")

    def test_a_number_that_is_nobodys_is_404_with_cause_1(self):
        with Talker(self.box) as pbx:
            for user in ("+15551234567", "7777", "IMSI001019876543210"):
                answer = pbx.invite(user)
                self.assertEqual((answer.code, q850(answer)), (404, 1), user)

    def test_a_phone_that_is_away_is_480_with_cause_20(self):
        ana = self.box.phone()
        with Talker(self.box) as pbx:
            answer = pbx.invite(self.box.numbers_of(ana)[0])
            self.assertEqual((answer.code, q850(answer)), (480, 20))

    def test_a_barred_subscriber_cannot_be_called(self):
        with Talker(self.box) as pbx:
            answer = pbx.invite(BARRED.numbers[0])
            self.assertEqual((answer.code, q850(answer)), (403, 21))

    def test_max_forwards_0_is_483(self):
        with Talker(self.box) as pbx:
            self.assertEqual(pbx.invite("2001", max_forwards="0").code, 483)

    def test_options_from_those_we_know_is_200(self):
        for host in ("127.0.0.81", PEER):
            with self.subTest(host=host), Talker(self.box, host) as peer:
                self.assertEqual(peer.ask(peer.request("OPTIONS", "")).code, 200)

    def test_a_bye_of_no_dialog_is_481(self):
        with Talker(self.box) as pbx:
            request = pbx.request("BYE", "2001")
            request.headers = [(name, value + ";tag=none" if name == "To" else value) for name, value in request.headers]
            self.assertEqual(pbx.ask(request).code, 481)

    def test_strangers_hear_nothing(self):
        ana = self.box.phone()
        with Talker(self.box, STRANGER) as stranger:
            number = self.box.numbers_of(ana)[0]
            for message in (stranger.request("INVITE", number), stranger.request("OPTIONS", ""), stranger.request("REGISTER", ""),
                            stranger.request("MESSAGE", number), stranger.request("FOO", "")):
                for port in (self.box.calls, self.box.texts, self.box.registration, *self.box.listening.values()):
                    stranger.send(message, (self.box.host, port))
            stranger.socket.sendto(b"\0\1garbage", (self.box.host, self.box.calls))
            self.assertEqual(stranger.answers(1), [])

    def test_a_base_station_whose_address_nobody_listed_registers_nobody(self):
        ana = self.box.phone()
        station = Station(self.box, STRANGER, free_port(STRANGER))
        self.box.stations.append(station)
        self.assertIsNone(station.register_leg(ana, timeout=1))
        self.assertEqual(self.box.lookup(ana.imsi)["bindings"], [])

    def test_strangers_get_a_403_where_the_operator_wants_it_so(self):
        hill, ana = self.box.station("hill"), self.box.phone()
        self.assertTrue(hill.register(ana).ok)
        self.box.front_more = 'unlisted = "403"'
        self.box.write()
        try:
            reply = self.box.command("apply")
            self.assertEqual(reply.code, 0, reply.err)
            with Talker(self.box, STRANGER) as stranger:
                self.assertEqual(stranger.ask(stranger.request("OPTIONS", "")).code, 403)
        finally:
            self.box.front_more = ""
            self.box.write()
            self.box.command("apply")
        with Talker(self.box, STRANGER) as stranger:
            self.assertIsNone(stranger.ask(stranger.request("OPTIONS", ""), timeout=0.5))
        self.assertEqual(len(self.box.lookup(ana.imsi)["bindings"]), 1, "new settings drop no binding")

    def test_a_trunk_may_not_register_a_phone(self):
        ana = self.box.phone("none")
        with Talker(self.box) as pbx:
            request = pbx.request("REGISTER", "", ("Expires", "600"), to=f"<sip:IMSI{ana.imsi}@{DOMAIN}>", contact=f"<sip:IMSI{ana.imsi}@{pbx.host}>")
            for port in (self.box.registration, self.box.calls):
                answer = pbx.ask(request, (self.box.host, port), timeout=1)
                self.assertTrue(answer is None or answer.code >= 400, answer and str(answer))
        self.assertEqual(self.box.lookup(ana.imsi)["bindings"], [])

    def test_the_port_of_a_replica_answers_trunks_and_peers_only(self):
        hill, ana = self.box.station("hill"), self.box.phone()
        self.assertTrue(hill.register(ana).ok)
        half = ("a", "b") if int(ana.imsi[-2:]) < 50 else ("c", "d")
        for host in ("127.0.0.81", PEER):
            with Talker(self.box, host) as peer:
                for name in half:
                    with self.subTest(host=host, replica=name):
                        port = self.box.listening[name]
                        answer = peer.ask(peer.request("INVITE", f"IMSI{ana.imsi}"), (self.box.host, port))
                        self.assertIsNotNone(answer)
                        self.assertEqual((answer.code, contact_of(answer)), (302, hill.where(ana)))
        for name in half:                                  # base stations and their phones have no business there
            hill._send(hill.register_request(ana).encode(), (self.box.host, self.box.listening[name]))
        hill.traffic.clear()
        time.sleep(0.5)
        self.assertEqual([peer for _, way, peer, _ in hill.traffic if way == "in"], [])

    def test_an_unsigned_register_at_a_replica_binds_nothing(self):
        open_sim = self.box.phone("none")
        for host in ("127.0.0.81", PEER, self.box.host):
            with Talker(self.box, host) as peer:
                request = peer.request("REGISTER", "", ("Expires", "600"), to=f"<sip:IMSI{open_sim.imsi}@{DOMAIN}>",
                                       contact=f"<sip:IMSI{open_sim.imsi}@{peer.host}>")
                for port in self.box.listening.values():
                    peer.send(request, (self.box.host, port))
        time.sleep(0.3)
        self.assertEqual(self.box.lookup(open_sim.imsi)["bindings"], [])

    def test_tcp_on_the_port_for_calls(self):
        hill, ana = self.box.station("hill"), self.box.phone()
        self.assertTrue(hill.register(ana).ok)
        with Talker(self.box) as pbx, socket.socket() as stream:
            stream.bind((pbx.host, 0))
            stream.settimeout(5)
            stream.connect((self.box.host, self.box.calls))
            first, second = (pbx.request("INVITE", number, transport="TCP") for number in (self.box.numbers_of(ana)[0], "7777"))
            stream.sendall(b"\r\n\r\n" + first.encode()[:100])           # a keep-alive, and a message in pieces
            time.sleep(0.1)
            stream.sendall(first.encode()[100:] + second.encode())       # and the next one right behind it
            heard = b""
            while not (all(each.call_id.encode() in heard for each in (first, second)) and heard.endswith(b"\r\n\r\n")):
                more = stream.recv(65536)
                if not more:
                    break
                heard += more
        codes = {call_id: int(code) for code, call_id in re.findall(rb"SIP/2\.0 (\d{3}) .*?Call-ID: *([^\r]+)", heard, re.S | re.I)}
        self.assertEqual(codes.get(first.call_id.encode()), 302, heard)
        self.assertEqual(codes.get(second.call_id.encode()), 404, heard)
        self.assertIn(hill.where(ana).encode(), heard)

    def test_tcp_from_a_stranger_is_not_answered(self):
        with Talker(self.box, STRANGER) as stranger, socket.socket() as stream:
            stream.bind((STRANGER, 0))
            stream.settimeout(1)
            stream.connect((self.box.host, self.box.calls))
            stream.sendall(stranger.request("OPTIONS", "", transport="TCP").encode())
            try:
                self.assertEqual(stream.recv(100), b"")
            except socket.timeout:
                pass

    def test_garbage_harms_nothing(self):
        hill, ana = self.box.station("hill"), self.box.phone()
        good = hill.register_request(ana).encode()
        lines = good.split(b"\r\n")
        for spoiled in [b"", b"\r\n\r\n", b"\0" * 40, b"REGISTER", b"REGISTER sip:x SIP/2.0\r\n\r\n", good[:60], good.replace(b"CSeq: ", b"CSeq: x"),
                        good.replace(b"\r\n", b"\n"), b"A" * 60000, b"\r\n".join(lines[:1] + lines[1:] * 40)[:65000], b"SIP/2.0 200 OK\r\n\r\n",
                        *(b"\r\n".join(lines[:place] + lines[place + 1:]) for place in range(len(lines) - 2))]:
            hill._send(spoiled, hill.registrar)
        time.sleep(0.3)
        hill.traffic.clear()                               # many of them had one Call-ID and CSeq, and were answered each in its way
        self.assertTrue(hill.register(ana).ok)
        self.assertIsNone(self.box.process.poll())

    def test_an_answer_too_long_for_a_datagram_is_not_sent(self):
        hill, ana = self.box.station("hill"), self.box.phone()
        request = hill.register_request(ana)
        request.headers = [(name, "x" * 1400 if name == "Call-ID" else value) for name, value in request.headers]
        hill._send(request.encode(), hill.registrar)
        time.sleep(0.5)
        for _, way, _, datagram in hill.traffic:
            if way == "in":
                self.assertLess(len(datagram), 1500)
        self.assertTrue(hill.register(ana).ok)


class OneShard(unittest.TestCase):
    """The smallest site there is: one shard, one replica, one base station."""

    def test_a_phone_registers_and_is_found(self):
        shards = two_shards()[:1]
        shards[0].suffixes, shards[0].replicas = ["00-99"], ["a"]
        with Box(self, shards=shards) as box:
            hill, ana = box.station("hill"), box.phone("milenage-opc")
            self.assertTrue(hill.register(ana).ok)
            self.assertEqual(box.lookup(ana.imsi)["bindings"][0]["contact"], hill.where(ana))
            self.assertEqual(hill.faults(), [])


if __name__ == "__main__":
    unittest.main()
