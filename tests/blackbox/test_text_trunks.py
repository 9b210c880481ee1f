"""Texts to and from trunks that take them: text/plain MESSAGE (RFC 3428)."""

import time
import unittest

from box import free_port                                  # first: it puts the peers on the path
from real import Baresip
from sip import uri_in
from talk import SideBySide, open_sims
from texting import DELIVERED, FORWARDED, SERVICE_CENTRE, Texting, three_segments
from trunk import Trunk

#: name -> address, prefixes, texts
TRUNKS = {
    "uk": ("127.0.0.85", ["+44"], True),
    "first": ("127.0.0.86", ["+33155"], True),
    "second": ("127.0.0.87", ["+3315"], True),
    "busy": ("127.0.0.88", ["+353"], True),
    "bare": ("127.0.0.90", ["+48"], True),
    "speech": ("127.0.0.89", ["+7"], False),
}


class TextTrunks(Texting, SideBySide):
    @classmethod
    def setUpClass(cls):
        cls.ports = {name: free_port(address) for name, (address, *_) in TRUNKS.items()}
        tables = "".join(f'[[trunk]]\nname = "{name}"\naddress = "{address}:{cls.ports[name]}"\nmode = "recurse"\nprefixes = {prefixes}\n'.replace("'", '"')
                         + ("texts = true\n" if texts else "") + "\n" for name, (address, prefixes, texts) in TRUNKS.items())
        cls.options = {"sims": open_sims(60), "trunks": False, "more": f'{tables}[messages]\nservice_centre = "{SERVICE_CENTRE}"\n'}
        super().setUpClass()

    @classmethod
    def ready(cls):
        cls.hill, cls.mill = cls.station_at("hill"), cls.station_at("mill")
        cls.uk, cls.first, cls.second, cls.busy, cls.speech = (Trunk(TRUNKS[name][0], cls.ports[name], to=(cls.box.host, cls.box.texts))
                                                     for name in ("uk", "first", "second", "busy", "speech"))

    def texts_to(self, trunk: Trunk, number: str) -> list[tuple[str, str, str]]:
        return [text for text in list(trunk.texts) if text[1] == number]

    def assertTaken(self, trunk: Trunk, number: str, *said: tuple[str, str], timeout: float = 8):
        self.until(lambda: len(self.texts_to(trunk, number)) >= len(said), timeout)
        self.assertEqual([(sender, text) for sender, _, text in self.texts_to(trunk, number)], list(said))

    # -- Out --

    def test_a_text_to_a_number_of_nobodys_goes_out(self):
        ana = self.phones(1, self.hill)[0]
        for text in ("hello", "Жук 🙂", three_segments()):
            self.assertSent(self.hill, ana, "+447700900001", text)
        self.assertTaken(self.uk, "+447700900001", *[(self.number(ana), text) for text in ("hello", "Жук 🙂", three_segments())], timeout=15)
        for message in self.uk.heard("MESSAGE sip:+447700900001@"):
            self.assertNotIn(ana.imsi, str(message), "no IMSI leaves the house")
            self.assertEqual(uri_in(message.get("from")).partition("@")[0], f"sip:{self.number(ana)}")
            self.assertTrue(message.get("content-type").startswith("text/plain"))
        self.assertTrue(self.until(lambda: not [text for text in self.queue() if text["to"] == "+447700900001"]))

    def test_a_report_of_a_text_that_went_out(self):
        ana = self.phones(1, self.hill)[0]
        self.assertSent(self.hill, ana, "+447700900002", "hello", report=True)
        self.assertTrue(self.until(lambda: ana.status_reports), "no STATUS-REPORT")
        report = ana.status_reports[0]
        self.assertIn(report.status_report, (DELIVERED, FORWARDED))
        self.assertEqual((report.sender, report.reference), ("+447700900002", ana.submitted[-1]))

    def test_a_trunk_that_fails_is_followed_by_the_next_one(self):
        ana = self.phones(1, self.hill)[0]
        self.first.text_plans["+33155500001"] = [(503, "Service Unavailable")]
        self.assertSent(self.hill, ana, "+33155500001", "hello")
        self.assertTaken(self.second, "+33155500001", (self.number(ana), "hello"))
        self.assertEqual(self.texts_to(self.first, "+33155500001"), [])

    def test_a_text_that_its_trunk_does_not_take_now_waits(self):
        ana = self.phones(1, self.hill)[0]
        self.busy.text_plans["+35355500001"] = [(503, "Service Unavailable")]
        self.assertSent(self.hill, ana, "+35355500001", "is anybody there")
        self.assertTrue(self.busy.wait(lambda: self.busy.heard("MESSAGE"), 3))
        waits = [text for text in self.queue() if text["to"] == "+35355500001"]
        self.assertEqual(len(waits), 1)
        self.assertEqual(self.box.command("queue", "retry", waits[0]["id"]).code, 0)
        self.assertTaken(self.busy, "+35355500001", (self.number(ana), "is anybody there"))
        self.assertEqual(ana.texts(), [])

    def test_a_text_that_a_trunk_refuses_for_good(self):
        ana = self.phones(1, self.hill)[0]
        self.uk.text_plans["+447700900404"] = [(404, "Not Found")]
        self.assertSent(self.hill, ana, "+447700900404", "hello")
        self.assertWords(ana, "+447700900404")
        self.assertEqual(self.record(to="+447700900404")[0]["outcome"], "failed")

    def test_a_number_that_no_trunk_takes_texts_for(self):
        ana = self.phones(1, self.hill)[0]
        self.assertRefusedText(self.hill, ana, "+74955500001", "hello", 404)
        self.assertWords(ana, "+74955500001")
        self.assertEqual(self.speech.heard("MESSAGE"), [])

    def test_baresip_texts_a_phone_and_is_texted(self):
        ana = self.phones(1, self.hill)[0]
        bare = Baresip(self, self.box, TRUNKS["bare"][0], self.ports["bare"], "+48123", contact=self.number(ana))
        time.sleep(0.5)
        bare.text("hello from afar")
        self.assertInbox(ana, ["hello from afar"])
        self.assertEqual(ana.inbox[0].sender, "+48123")
        self.assertSent(self.hill, ana, "+48123", "Zażółć gęślą jaźń")
        self.assertTrue(self.until(lambda: "Zażółć gęślą jaźń" in bare.log()), bare.log()[-1500:])
        self.assertIn(self.number(ana), bare.log())

    # -- In --

    def test_a_text_from_outside_reaches_a_phone(self):
        bob = self.phones(1, self.mill)[0]
        said = ["hello", "Жук 🙂", three_segments()]
        for text in said:
            answer = self.uk.text(self.number(bob), text, caller="+447700900005")
            self.assertEqual(answer.code, 202, str(answer))
        self.assertInbox(bob, said, 15)
        self.assertEqual({one.sender for one in bob.inbox}, {"+447700900005"})
        self.assertSent(self.mill, bob, bob.inbox[0].sender, "and back")
        self.assertTaken(self.uk, "+447700900005", (self.number(bob), "and back"))

    def test_a_text_from_outside_waits_for_its_phone(self):
        bob = self.box.phone("none")
        self.assertEqual(self.uk.text(self.number(bob), "later").code, 202)
        self.assertWaits(bob)
        self.assertTrue(self.mill.register(bob).ok)
        self.assertInbox(bob, ["later"])

    def test_what_is_not_taken_from_outside(self):
        bob = self.phones(1, self.mill)[0]
        self.assertEqual(self.uk.text("39993", "x").code, 404)
        self.assertEqual(self.uk.text("+33155500009", "x").code, 404, "never from trunk to trunk")
        self.assertEqual(self.uk.text(self.number(bob), "x", kind="message/cpim").code, 415)
        self.assertGreaterEqual(self.speech.text(self.number(bob), "x").code, 400)
        self.assertEqual(self.uk.text(self.number(bob), "good").code, 202)
        self.assertInbox(bob, ["good"])
        self.assertEqual(self.texts_to(self.first, "+33155500009") + self.texts_to(self.second, "+33155500009"), [])


if __name__ == "__main__":
    unittest.main()
