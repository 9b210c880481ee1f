#!/usr/bin/env python3
"""The peers against a fake centre: whether they say what their sources say, before they judge anybody.

    python3 tests/peers/selftest.py
"""

import http.client
import json
import time
import unittest
import urllib.request

import sms
from agent import Agent
from hook import Hook
from ims import ImsPhone, SoftPhone
from obts import BaseStation, Phone
from sip import Message, uri_in, user_host_port
from yate import YateBts

HERE = "127.0.0.1"
SMS_TYPE = ("Content-Type", "application/vnd.3gpp.sms")


class Centre(Agent):
    """Registers everybody and answers each MESSAGE as `answers` says: code, headers, body, made from the request."""

    def __init__(self):
        self.seen: list[Message] = []
        self.numbers: dict[str, str] = {}                  # IMSI -> number
        self.says = lambda request: (202, "Accepted", (), b"")
        super().__init__(HERE, 0)

    def on_request(self, request, peer):
        if request.method == "REGISTER":
            imsi = user_host_port(uri_in(request.get("to")))[0].removeprefix("IMSI")
            number = self.numbers.get(imsi)
            self.answer(request, peer, 200, "OK", *([("P-Associated-URI", f"<tel:{number}>")] if number else []))
            return
        self.seen.append(request)
        code, phrase, more, body = self.says(request)
        self.answer(request, peer, code, phrase, *more, body=body)

    def send_to(self, port: int, user: str, body: bytes, *more, timeout: float = 5, kind=SMS_TYPE) -> Message | None:
        uri = f"sip:{user}@{HERE}:{port}"
        return self.transact(self.request("MESSAGE", uri, f"sip:1000@{HERE}:{self.port}", uri, kind, *more, body=body), (HERE, port), timeout)


class Peers(unittest.TestCase):
    def setUp(self):
        self.centre = Centre()
        self.addCleanup(self.centre.close)
        self.at = (HERE, self.centre.port)

    def made(self, peer):
        self.addCleanup(peer.close)
        return peer

    def station(self, kind=BaseStation, imsi="001010000000001", **more):
        station = self.made(kind(HERE, 0, self.at, self.at, self.at, paging_s=0.3, transfer_s=0.05, **more))
        station.port = station._socket.getsockname()[1]
        phone = Phone(imsi, algorithm="none")
        self.centre.numbers[imsi] = "+155500001"
        self.assertTrue(station.register(phone).ok)
        return station, phone

    # -- OpenBTS --

    def test_an_openbts_phone_gets_texts_and_reports_and_sees_what_waits(self):
        station, phone = self.station()
        for more in (True, False):
            body = sms.rp_data_mt(sms.deliver("2102", "hello", more_waiting=more), reference=3).hex().encode()
            self.assertEqual(self.centre.send_to(station.port, f"IMSI{phone.imsi}", body).code, 200)
        self.assertEqual([(one.text, one.more_waiting) for one in phone.inbox], [("hello", True), ("hello", False)])
        report = sms.status_report("2102", 7, 0, stamp=sms.time_stamp(1e9), discharged=sms.time_stamp(1e9 + 5))
        self.assertEqual(self.centre.send_to(station.port, f"IMSI{phone.imsi}", sms.rp_data_mt(report).hex().encode()).code, 200)
        self.assertEqual([(one.reference, one.status_report) for one in phone.status_reports], [(7, 0)])
        self.assertEqual(len(phone.inbox), 2)

    def test_an_openbts_phone_sends_every_kind(self):
        station, phone = self.station()
        self.assertEqual(station.sms(phone, "2102", "x" * 400, report=True, validity=sms.relative(300), wide=True).code, 202)
        self.assertEqual(station.command(phone, sms.ENQUIRY, "2102", phone.submitted[0]).code, 202)
        self.assertEqual(station.memory_available(phone).code, 202)
        self.assertEqual(station.sms(phone, "2102", "", octets=b"\1\2", ports=(5505, 0)).code, 202)
        bodies = [bytes.fromhex(request.body.decode()) for request in self.centre.seen]
        self.assertEqual([body[0] for body in bodies], [0, 0, 0, 0, 6, 0])
        tpdus = [body[8:] for body in bodies[:3]]
        self.assertEqual([tpdu[0] for tpdu in tpdus], [0x71] * 3, "SUBMIT, relative period, report, header")
        self.assertEqual([tpdu[2:8].hex() for tpdu in tpdus], ["048112200000"] * 3)
        self.assertEqual([tpdu[10:15].hex()[:6] for tpdu in tpdus], ["060804"] * 3)
        self.assertEqual(bodies[3][8:][:2], bytes([0x22, phone.submitted[3]]))
        self.assertEqual(bodies[3][8:][4], phone.submitted[0])

    # -- YateBTS --

    def test_a_yatebts_sends_in_three_encodings_and_reads_the_answer(self):
        for encoding in ("", "hex", "base64"):
            station, phone = self.station(YateBts, encoding=encoding)
            reference = []

            def says(request):
                import yate
                rpdu = yate._octets_of(request)
                reference.append(rpdu[1])
                self.assertEqual(sms.parse_submit(rpdu[rpdu[3] + 5:]), ("2102", "hello"))
                self.assertEqual(user_host_port(uri_in(request.get("from")))[0], "+155500001")
                self.assertEqual(request.get("p-called-party-id"), "<tel:2102>")
                return 200, "OK", [SMS_TYPE], bytes([3, rpdu[1]])

            self.centre.says = says
            sent = station.sms(phone, "2102", "hello")
            self.assertEqual((sent.code, sent.cause, sent.rpdu.kind, len(reference)), (200, None, "ack", 1))
            self.centre.says = lambda request: (200, "OK", [SMS_TYPE], bytes([5, reference[-1] + 1 & 0xFF, 1, 1]))
            self.assertEqual(station.sms(phone, "2102", "hello").cause, 1)
            self.assertEqual(station.complaints, [])
        for code, cause in ((202, None), (403, 29), (415, 127), (480, 41), (488, 127), (502, 38), (404, 127), (503, 127)):
            self.centre.says = lambda request: (code, "x", (), b"")
            sent = station.sms(phone, "2102", "hello")
            self.assertEqual((sent.code, sent.cause), (code, cause))
        self.centre.says = lambda request: (200, "OK", [SMS_TYPE], b"\x03\xff\x00\x00\x00")
        self.assertEqual(station.sms(phone, "2102", "hello").cause, 111)
        self.assertEqual(len(station.complaints), 1)
        self.centre.seen.clear()
        self.centre.says = lambda request: (202, "x", (), b"")
        self.assertTrue(station.memory_available(phone).ok)
        self.assertEqual(user_host_port(self.centre.seen[0].uri)[0], "SMMA")

    def test_a_yatebts_phone_gets_texts_by_its_number_alone(self):
        station, phone = self.station(YateBts)
        rpdu = sms.rp_data_mt(sms.deliver("2102", "hello"), reference=5)
        self.assertEqual(self.centre.send_to(station.port, f"IMSI{phone.imsi}", rpdu).code, 404)
        for encoding, body in (("", rpdu), ("hex", rpdu.hex().encode())):
            more = [("Content-Transfer-Encoding", encoding)] if encoding else []
            answer = self.centre.send_to(station.port, "+155500001", body, *more)
            self.assertEqual((answer.code, answer.body), (200, sms.rp_ack(5)))
        self.assertEqual(phone.texts(), ["hello", "hello"])
        phone.memory_full = True
        answer = self.centre.send_to(station.port, "+155500001", rpdu)
        self.assertEqual((answer.code, answer.body[:4].hex()), (488, "04050116"))
        station.refuses = "body"
        answer = self.centre.send_to(station.port, "+155500001", rpdu)
        self.assertEqual((answer.code, answer.body[:4].hex()), (200, "04050116"))
        phone.on = False
        self.assertEqual(self.centre.send_to(station.port, "+155500001", rpdu).code, 480)
        self.assertEqual(self.centre.send_to(station.port, "+155500001", rpdu.hex().encode()).code, 400)
        self.assertEqual(len(station.complaints), 1)

    # -- IMS and SIP phones --

    def test_an_ims_phone_hears_of_its_text_in_a_message_of_its_own(self):
        phone = self.made(ImsPhone(HERE, 0, "001010000000001", self.at))
        self.centre.numbers[phone.imsi] = "+155500001"
        self.assertEqual((phone.register().code, phone.numbers), (200, ["+155500001"]))
        sent = phone.sms("2102", "hello")
        self.assertEqual((sent.code, sent.report), (202, None))
        for cause in (None, 1):
            body = bytes([3, sent.rp_reference]) if cause is None else bytes([5, sent.rp_reference, 1, cause])
            self.assertEqual(self.centre.send_to(phone.port, phone.imsi, body, ("In-Reply-To", sent.call_id)).code, 200)
        self.assertTrue(phone.wait(lambda: len(sent.reports) == 2, 1))
        self.assertEqual([report.cause for report in sent.reports], [None, 1])
        self.assertEqual(phone.complaints, [])
        self.centre.send_to(phone.port, phone.imsi, bytes([3, 1]), ("In-Reply-To", "nothing"))
        self.assertTrue(phone.wait(lambda: len(phone.complaints) == 1, 1))

    def test_an_ims_phone_acknowledges_in_a_message_of_its_own(self):
        phone = self.made(ImsPhone(HERE, 0, "001010000000001", self.at))
        for full, begins in ((False, "0205"), (True, "04050116")):
            phone.memory_full = full
            self.centre.seen.clear()
            identity = ("P-Asserted-Identity", f"<sip:centre@{HERE}>")
            answer = self.centre.send_to(phone.port, phone.imsi, sms.rp_data_mt(sms.deliver("2102", "hello"), reference=5), identity)
            self.assertEqual((answer.code, answer.body), (200, b""))
            self.assertTrue(self.centre.wait(lambda: self.centre.seen, 2))
            report = self.centre.seen[0]
            self.assertEqual((report.uri, report.body.hex()[:len(begins)]), (f"sip:centre@{HERE}", begins))
            self.assertEqual(report.get("in-reply-to"), self.centre.sent("MESSAGE")[-1].call_id)
        self.assertEqual(phone.texts(), ["hello"])
        self.assertEqual(phone.memory_available().code, 202)
        self.assertEqual(phone.complaints, [])

    def test_a_softphone_knows_plain_text_only(self):
        phone = self.made(SoftPhone(HERE, 0, "001010000000001", self.at))
        self.assertEqual(phone.register().code, 200)
        self.assertEqual(phone.text("2102", "Жук").code, 202)
        self.assertEqual(self.centre.seen[0].body.decode(), "Жук")
        self.assertEqual(self.centre.send_to(phone.port, phone.imsi, "ß".encode(), kind=("Content-Type", "text/plain;charset=UTF-8")).code, 200)
        self.assertEqual(phone.inbox, [("1000", "ß")])
        self.assertEqual(self.centre.send_to(phone.port, phone.imsi, b"\1").code, 415)
        phone.refuses = (486, "Busy Here")
        self.assertEqual(self.centre.send_to(phone.port, phone.imsi, b"x", kind=("Content-Type", "text/plain")).code, 486)
        # A copy of what was answered gets the same answer and is no second text.
        phone.refuses = None
        request = self.centre.request("MESSAGE", f"sip:a@{HERE}", "sip:1000@x", f"sip:a@{HERE}", ("Content-Type", "text/plain"), body=b"once")
        for _ in range(2):
            self.assertEqual(self.centre.transact(request, (HERE, phone.port), 2).code, 200)
        self.assertEqual(phone.texts(), ["ß", "once"])

    # -- The hook --

    def test_a_hook_answers_as_planned(self):
        with Hook() as hook:
            def ask(timeout: float = 2):
                request = urllib.request.Request(hook.url, json.dumps({"text": "a"}).encode(), {"Content-Type": "application/json"})
                with urllib.request.urlopen(request, timeout=timeout) as answer:
                    return answer.status, answer.headers.get("Content-Type", ""), answer.read()

            hook.plan("ok", {"text": "ok"}, 204, 500, "cut", "half", ("slow", 5, "late"), b"nonsense\r\n\r\n", ("status", 201, "made"))
            self.assertEqual(ask()[1:], ("text/plain; charset=utf-8", b"ok"))
            self.assertEqual(json.loads(ask()[2]), {"text": "ok"})
            self.assertEqual(ask()[0], 204)
            for error in (urllib.error.HTTPError, OSError, http.client.IncompleteRead, TimeoutError, http.client.BadStatusLine):
                with self.assertRaises(error):
                    ask(0.3)
            self.assertEqual(ask()[0], 201)
            self.assertTrue(hook.wait(9))
            self.assertEqual(hook.asked[0].json, {"text": "a"})
            self.assertEqual(hook.complaints, [])
            started = time.monotonic()
        self.assertLess(time.monotonic() - started, 3, "it waits for nobody when closed")


if __name__ == "__main__":
    unittest.main()
