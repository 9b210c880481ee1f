"""What the tests of the mail bridge share: a box between phones, its relay, and somebody's own mail server.

    phones -- base station -- box -- relay (Exim, people at home.example) -- post (OpenSMTPD, people at far.example)

Everybody's mail for the phones' domain goes to the box. Python 3 standard library only.
"""

from __future__ import annotations

import email
import email.policy
import json
import shutil
import smtplib
import tempfile
import time
import unittest
from email.message import EmailMessage
from email.utils import make_msgid
from pathlib import Path

from box import BOX, DOMAIN, Box, Sim, free_port           # first: it puts the peers on the path
from mta import CLIENT, LOGIN, PASSWORD, RELAY, SENDER, Authority, Exim, Line, Mail, Smtpd
from talk import open_sims
from texting import SERVICE_CENTRE, Texting

#: The domain of the phones' numbers, the number that mail is texted to, and those as whom writers of mail appear.
NUMBERS, CODE, POOL = f"sms.{DOMAIN}", "600", "+15559000-+15559019"
#: People with mail: behind the relay, and at a server of their own.
HOME, FAR = "home.example", "far.example"
#: Exim notes what waits and tries again each second; our own ladder begins with less than a minute.
BOUNCED_WITHIN_S, RELAY_WITHIN_S = 30, 90


class Scene:
    """Relay, post and the settings of a box between them and the phones."""

    def __init__(self, *, pool: bool = True, lines: bool = False, test: unittest.TestCase | None = None, relay: bool = True, host: str = BOX):
        self.directory = Path(tempfile.mkdtemp(prefix="encamp-mail-"))
        self.host, self.test, self.closed = host, test, False
        self.port, self.tls_port, self.lmtp_port = (free_port(host) for _ in range(3))
        self.authority = Authority(self.directory / "authority")
        self.certificate, self.key = self.authority.issue("box.example", host)
        self.post_port = None
        own = dict(authority=self.authority)
        box = (host, self.port)
        self.post = Smtpd(None, self.directory, SENDER, name="post.far.example", domains=(FAR,), routes={NUMBERS: box}, **own)
        self.relay = Exim(None, self.directory, RELAY, name="relay.example", domains=(HOME,),
                          routes={NUMBERS: box, FAR: (SENDER, self.post.open_port)}, **own) if relay else None
        #: What lies between the box and the relay, where a test wants to cut it: without TLS then.
        self.line = Line(test, host, (RELAY, self.relay.open_port)) if lines else None
        self.pool = pool
        if test is not None:
            test.addCleanup(self.close)
            for server in self.servers:
                server.noted(test)

    @property
    def servers(self) -> list:
        return [server for server in (self.post, self.relay) if server]

    def settings(self, more: str = "", tables: str = "", messages: str = "") -> str:
        """[mail] and what stands behind it."""
        if self.line:
            out = f'relay = "smtp://{self.line.at[0]}:{self.line.at[1]}"\nrelay_tls = "never"\n'
        else:
            out = (f'relay = "smtp://{RELAY}:{self.relay.port}"\nrelay_tls = "required"\nrelay_username = "{LOGIN}"\nrelay_password = "{PASSWORD}"\n'
                   f'relay_authority = "{self.authority.certificate}"\n')
        pool = f'reply_pool = ["{POOL}"]\n' if self.pool else ""
        return (f'[mail]\nlisten = ["tcp:{self.host}:{self.port}", "tls:{self.host}:{self.tls_port}", "lmtp:{self.host}:{self.lmtp_port}"]\n'
                f'certificate = "{self.certificate}"\ncertificate_key = "{self.key}"\nshort_code = "{CODE}"\n{out}{pool}{more}\n{tables}\n'
                f'[messages]\nservice_centre = "{SERVICE_CENTRE}"\n{messages}\n[registrar]\nclock_trusted = true\n')

    def start(self) -> "Scene":
        for server in self.servers:
            server.start()
        return self

    def close(self):
        if not self.closed:
            self.closed = True
            for server in self.servers:
                server.close()
            shutil.rmtree(self.directory, ignore_errors=True)


class Mailing(Texting):
    """For test cases with a `box` and a `scene`; mail is judged in the Maildirs, texts at the phones."""

    scene: Scene

    def to(self, phone, which: int = 0) -> str:
        """The address of a phone."""
        return f"{self.number(phone, which)}@{NUMBERS}"

    # -- Phones that write --

    def assertMailed(self, station, phone, words: str, **more):
        """To the short code."""
        return self.assertSent(station, phone, CODE, words, **more)

    def wait_mail(self, address: str, count: int = 1, timeout: float = 15) -> list[Mail]:
        """What has come for this one, at home or far."""
        server = self.scene.relay if address.endswith(HOME) else self.scene.post
        return server.wait_mails(address, count, timeout)

    def mail_waiting(self, address: str) -> list[dict]:
        """What waits to leave for this address."""
        return [text for text in self.queue() if address in (text["to"] or "")]

    def shown(self, address: str) -> str:
        """All that the operator is told of what waits for this address."""
        return " ".join(json.dumps(self.show(text)) for text in self.mail_waiting(address))

    def push(self, *boxes: Box):
        """The operator has no patience: what waits to leave is tried now."""
        for box in boxes or (self.box,):
            for identity in {text["to"]: text["id"] for text in reversed(box.command("queue").data) if "@" in (text["to"] or "")}.values():
                box.command("queue", "retry", identity)

    def assertNoMail(self, address: str, count: int = 0):
        server = self.scene.relay if address.endswith(HOME) else self.scene.post
        self.assertEqual(len(server.mails(address)), count)

    # -- People who write --

    def write(self, mail: Mail | str | bytes, sender: str, *recipients: str, **more):
        """By the writer's own server (far), which brings it to the box."""
        self.scene.post.submit(_octets(mail), sender, *recipients, **more)

    def client(self, *, source: str = CLIENT, port: int = 0) -> smtplib.SMTP:
        """A session with the box itself, after EHLO."""
        client = smtplib.SMTP(self.scene.host, port or self.scene.port, timeout=20, local_hostname="client.example", source_address=(source, 0))
        self.addCleanup(client.close)
        client.ehlo()
        return client

    def hand_in(self, mail: Mail | str | bytes, sender: str, *recipients: str, options=(), rcpt_options=(), source: str = CLIENT) -> tuple[int, str]:
        """One mail to the box: the answer to DATA, or the first that is no yes."""
        with self.client(source=source) as client:
            code, said = client.mail(sender, options)
            for recipient in recipients:
                if code == 250:
                    code, said = client.rcpt(recipient, rcpt_options)
            if code == 250:
                code, said = client.data(_octets(mail))
            return code, said.decode()


class MailScenes(Mailing):
    """Before SideBySide in the bases of a class: its scenarios share one box, one relay and one post."""

    scene_options: dict = {}
    mail_more = tables = messages_more = ""
    sims = open_sims(140)
    programs = ("exim", "opensmtpd")

    @classmethod
    def setUpClass(cls):
        cls.scene = Scene(**cls.scene_options)
        cls.options = {"sims": cls.sims, "trunks": False, "more": cls.scene.settings(cls.mail_more, cls.tables, cls.messages_more)} | cls.options
        try:
            cls.scene.start()
            super().setUpClass()
        except BaseException:
            cls.scene.close()
            raise

    @classmethod
    def ready(cls):
        cls.hill, cls.mill = cls.station_at("hill"), cls.station_at("mill")

    @classmethod
    def tearDownClass(cls):
        try:
            super().tearDownClass()
        finally:
            cls.scene.close()


class MailTest(Mailing, unittest.TestCase):
    """Tests with a box and a scene each."""

    def open(self, count: int = 12, *, more: str = "", tables: str = "", messages: str = "", pool: bool = True, lines: bool = False, start: bool = True,
             **options) -> Box:
        self.scene = Scene(pool=pool, lines=lines, test=self).start()
        options = {"sims": open_sims(count), "trunks": False} | options
        self.box = Box(self, more=self.scene.settings(more, tables, messages), **options)
        self.addCleanup(self.box.close)
        if start:
            self.box.start()
        return self.box

    def phone_at(self, station, **values):
        phone = self.box.phone("none")
        for name, value in values.items():
            setattr(phone, name, value)
        self.assertTrue(station.register(phone).ok)
        return phone


# --- Mails --------------------------------------------------------------------------------------------------------------------

def letter(sender: str, to: str, words: str = "hello", subject: str = "", *, html: str = "", answers: Mail | None = None, **headers: str) -> Mail:
    """A mail as a mail program writes it. `answers`: the mail that it answers. `headers`: `auto_submitted="yes"`."""
    mail = EmailMessage(policy=email.policy.SMTP)
    mail["From"], mail["To"] = sender, to
    mail["Message-ID"] = make_msgid(domain=sender.rpartition("@")[2].strip(">"))
    mail["Date"] = email.utils.localtime()
    if answers is not None:
        subject = subject or f"Re: {(answers['subject'] or '').removeprefix('Re: ')}"
        mail["In-Reply-To"] = answers["message-id"]
        mail["References"] = " ".join(filter(None, (answers["references"], answers["message-id"])))
    if subject:
        mail["Subject"] = subject
    for name, value in headers.items():
        mail[name.replace("_", "-")] = value
    if words or not html:
        mail.set_content(words)
        if html:
            mail.add_alternative(html, subtype="html")
    else:
        mail.set_content(html, subtype="html")
    return mail


def report_of(mail: Mail) -> tuple[Mail, list[Mail]]:
    """The fields about the mail, and those of each recipient, of a report (RFC 3464)."""
    for part in mail.walk():
        if part.get_content_type() == "message/delivery-status":
            about, *recipients = part.get_payload()
            return about, [each for each in recipients if each.keys()]
    raise AssertionError(f"it is no report:\n{mail.as_string()[:2000]}")


def words_of(mail: Mail) -> str:
    """The text of a mail, without blank ends."""
    return mail.get_body(("plain",)).get_content().strip().replace("\r\n", "\n")


def identities(mail: Mail) -> list[str]:
    return (mail["references"] or "").split()


def until(condition, timeout: float) -> bool:
    end = time.monotonic() + timeout
    while not condition():
        if time.monotonic() > end:
            return bool(condition())
        time.sleep(0.03)
    return True


def told(reply) -> str:
    """All that a command said, for a message."""
    try:
        return json.dumps(reply.data, indent=1)
    except ValueError:
        return reply.out + reply.err


def sims_with(*more: Sim, count: int = 60) -> list[Sim]:
    return open_sims(count) + list(more)


def _octets(mail: Mail | str | bytes) -> bytes:
    if isinstance(mail, bytes):
        return mail
    if isinstance(mail, str):
        return mail.encode().replace(b"\r\n", b"\n").replace(b"\n", b"\r\n")
    return mail.as_bytes(policy=email.policy.SMTP)
