"""Mail beside the box, by programs that others wrote: Exim as its relay, OpenSMTPD as a sender's own MTA, swaks and smtplib as clients.

    authority = Authority(directory)                       # a private CA, made by openssl
    relay = Exim(test, directory, RELAY, authority=..)     # takes mail, keeps it in Maildirs or carries it on
    line = Line(test, host, to)                            # what lies between two: it can be cut, and lose an answer

Each server runs in a root directory of its own (chroot, made of copies): its users, spool and queue are there, and nothing of the machine's
mail is touched. That needs root, no mounts and no namespaces. Python 3 standard library only.
"""

from __future__ import annotations

import email.message
import email.policy
import mailbox
import os
import re
import shutil
import signal
import smtplib
import socket
import ssl
import subprocess
import threading
import time
import unittest
from dataclasses import dataclass
from pathlib import Path

from box import BOX, free_port                             # first: it puts the peers on the path
import peers
from real import unpacked

#: Who is who in mail. The relay may be told to trust the box; the sender's MTA is a stranger to it.
RELAY, SENDER, CLIENT = "127.0.0.96", "127.0.0.97", "127.0.0.98"
LOGIN, PASSWORD = "box", "wire and post"
START_S, STOP_S, COMMAND_S = 10, 5, 20
#: Whose the Maildirs are; like all of the servers' users of no meaning outside of their root directories.
_VMAIL = 4713
_NEW_KEY = ("-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes")
_ORDERS = ("refused", "deferred", "bounced")
_ENVIRONMENT = {"PATH": "/usr/sbin:/usr/bin:/sbin:/bin"}
Mail = email.message.EmailMessage

# --- Certificates -------------------------------------------------------------------------------------------------------------


class Authority:
    """A CA that nobody else believes. Its certificate is `certificate`."""

    def __init__(self, directory: Path):
        self.directory = directory
        directory.mkdir(exist_ok=True)
        self.certificate = directory / "authority.pem"
        self._key = directory / "authority.key"
        self._openssl("req", "-x509", *_NEW_KEY, "-days", "30", "-subj", "/CN=an authority of the tests", "-keyout", str(self._key),
                      "-out", str(self.certificate))

    def issue(self, *names: str) -> tuple[Path, Path]:
        """Certificate and key of a server with these names and addresses."""
        kinds = ",".join(("IP:" if re.fullmatch(r"[\d.]+", name) else "DNS:") + name for name in names)
        base = self.directory / names[0]
        certificate, key, request, extensions = (base.with_name(base.name + end) for end in (".pem", ".key", ".csr", ".ext"))
        extensions.write_text(f"subjectAltName={kinds}\n")
        self._openssl("req", *_NEW_KEY, "-subj", f"/CN={names[0]}", "-keyout", str(key), "-out", str(request))
        self._openssl("x509", "-req", "-days", "30", "-in", str(request), "-CA", str(self.certificate), "-CAkey", str(self._key),
                      "-CAcreateserial", "-extfile", str(extensions), "-out", str(certificate))
        key.chmod(0o600)
        return certificate, key

    def context(self) -> ssl.SSLContext:
        """For a client that believes this authority."""
        return ssl.create_default_context(cafile=str(self.certificate))

    @staticmethod
    def _openssl(*words: str):
        done = subprocess.run(["openssl", *words], capture_output=True, text=True, timeout=COMMAND_S)
        if done.returncode:
            raise RuntimeError(f"openssl {' '.join(words)}: {done.stderr}")


# --- Servers ------------------------------------------------------------------------------------------------------------------

class Server:
    """An MTA in a root directory of its own: mail for `domains` is kept, mail for a domain in `routes` carried on, all else refused.

    `port` wants TLS and a login where the program has that, `open_port` neither (for whoever writes to the box; all of it on loopback).
    """

    peer = ""
    #: Programs below the directory of the unpacked packages; the first is the server.
    programs: tuple[str, ...] = ()
    users: dict[str, tuple[int, str]] = {}

    def __init__(self, test: unittest.TestCase | None, directory: Path, host: str, *, authority: Authority, name: str,
                 domains: tuple[str, ...], routes: dict[str, tuple[str, int]] | None = None, lmtp: dict[str, tuple[str, int]] | None = None):
        self.noted(test)
        if os.geteuid() != 0:
            raise PermissionError(f"{self.peer} runs in a root directory of its own: that needs root")
        self.host, self.name, self.domains, self.routes, self.lmtp = host, name, domains, routes or {}, lmtp or {}
        self.port, self.open_port = free_port(host), free_port(host)
        self.root = directory / name
        self.process: subprocess.Popen | None = None
        self._build(authority)
        self.write()
        if isinstance(test, unittest.TestCase):
            test.addCleanup(self.close)

    def noted(self, test: unittest.TestCase | None):
        """This test runs against it."""
        peers.used(self.peer, test)

    # -- Its root directory --

    def _build(self, authority: Authority):
        root, users = self.root, {"root": (0, "/")} | self.users | {"vmail": (_VMAIL, "/mail")}
        top = unpacked(self.programs[0]).parents[len(Path(self.programs[0]).parts) - 1]
        programs = [path for program in self.programs for path in sorted(top.glob(program))]
        for each in programs:
            _take(each, root / each.relative_to(top))
        for each in (*programs, Path("/bin/sh")):
            for library in _libraries(each, top):
                _take(library, root / (library.relative_to(top) if library.is_relative_to(top) else library.relative_to("/")))
        _take(Path("/bin/sh"), root / "bin" / "sh")
        for each in ("etc/mail", "etc/ssl/certs", "dev", "tmp", "mail", "orders", "var/spool", "var/run", "var/log"):
            (root / each).mkdir(parents=True, exist_ok=True)
        (root / "tmp").chmod(0o1777)
        # No device: Debian's /tmp may have none, and nothing is read from it.
        (root / "dev" / "null").touch()
        (root / "dev" / "null").chmod(0o666)
        os.chown(root / "mail", _VMAIL, _VMAIL)
        etc = root / "etc"
        (etc / "passwd").write_text("".join(f"{user}:x:{uid}:{uid}::{home}:/bin/sh\n" for user, (uid, home) in users.items()))
        (etc / "group").write_text("".join(f"{user}:x:{uid}:\n" for user, (uid, _) in users.items()))
        # Nobody asks a name server anything.
        (etc / "resolv.conf").write_text("lookup file\n")
        (etc / "nsswitch.conf").write_text("passwd: files\ngroup: files\nhosts: files\n")
        (etc / "hosts").write_text(f"127.0.0.1 localhost\n{self.host} {self.name}\n")
        (etc / "services").write_text("smtp 25/tcp\nlmtp 24/tcp\n")
        (etc / "mailname").write_text(f"{self.name}\n")
        shutil.copy(authority.certificate, etc / "ssl/certs/ca-certificates.crt")
        for source, end in zip(authority.issue(self.name, self.host), ("pem", "key")):
            shutil.copy(source, etc / "mail" / f"own.{end}")
        for name in _ORDERS:
            self._order(name, ())

    def write(self):
        """Writes its configuration; what it is now told counts from its next start on."""
        raise NotImplementedError

    # -- The process --

    def _words(self, program: str, *words: str, group: int = 0) -> list[str]:
        return ["chroot", f"--userspec=0:{group}", str(self.root), program, *words]

    def _command(self) -> list[str]:
        raise NotImplementedError

    def start(self) -> "Server":
        """Starts it and waits until both ports greet."""
        assert self.process is None, "already running"
        with (self.root / "var/log/said").open("ab") as log:
            self.process = subprocess.Popen(self._command(), stdin=subprocess.DEVNULL, stdout=log, stderr=log, env=_ENVIRONMENT, start_new_session=True)
        until = time.monotonic() + START_S
        for port in (self.port, self.open_port):
            while not _greets(self.host, port):
                if self.process.poll() is not None or time.monotonic() > until:
                    self.kill()
                    raise AssertionError(f"{self.peer} did not come up:\n{self.log()[-3000:]}")
                time.sleep(0.05)
        return self

    def _family(self) -> list[int]:
        """Its processes: those whose root directory is ours."""
        found, own = [], str(self.root.resolve())
        for entry in Path("/proc").glob("[0-9]*"):
            try:
                if os.readlink(entry / "root") == own and "State:\tZ" not in (entry / "status").read_text():
                    found.append(int(entry.name))
            except OSError:
                continue
        return found

    def signal(self, number: int):
        """To all of it."""
        for pid in self._family():
            try:
                os.kill(pid, number)
            except ProcessLookupError:
                pass

    def kill(self):
        """kill -9, all of it at once."""
        if self.process is None:
            return
        until = time.monotonic() + STOP_S
        while self._family():
            assert time.monotonic() < until, f"{self.peer} does not die"
            self.signal(signal.SIGKILL)
            self.process.poll()
            time.sleep(0.01)
        self.process.wait()
        self.process = None

    def stop(self):
        """SIGTERM: it ends in order."""
        if self.process is not None:
            self.process.terminate()
            try:
                self.process.wait(STOP_S)
            except subprocess.TimeoutExpired:
                pass
            self.kill()

    def close(self):
        self.kill()
        shutil.rmtree(self.root, ignore_errors=True)

    def log(self) -> str:
        return "".join(f"{path.name}:\n{path.read_text(errors='replace')}" for path in sorted((self.root / "var/log").rglob("*")) if path.is_file())

    def run(self, program: str, *words: str, group: int = 0) -> str:
        """One of its programs, there."""
        done = subprocess.run(self._words(program, *words, group=group), capture_output=True, text=True, timeout=COMMAND_S, env=_ENVIRONMENT)
        if done.returncode:
            raise AssertionError(f"{program} {' '.join(words)}: {done.stdout}{done.stderr}")
        return done.stdout

    # -- What it is told --

    def refuse(self, *addresses: str):
        """550 at RCPT: for these from now on, and for no others."""
        self._order("refused", addresses)

    def defer(self, *addresses: str):
        """451 at RCPT."""
        self._order("deferred", addresses)

    def bounce(self, *addresses: str):
        """It takes mail for these, and then finds that there is no such mailbox: a DSN to the sender."""
        self._order("bounced", addresses)

    def _order(self, name: str, addresses: tuple[str, ...]):
        (self.root / "orders" / name).write_text("".join(f"{address}:\n" for address in addresses))

    def flush(self):
        """What waits in its queue is tried now."""
        raise NotImplementedError

    def waiting(self) -> list[str]:
        """A line for each envelope in its queue."""
        raise NotImplementedError

    def until_sent(self, timeout: float = 20):
        """Tries what waits, over and over, until nothing does."""
        until = time.monotonic() + timeout
        while waiting := self.waiting():
            assert time.monotonic() < until, f"still in the queue of {self.name}: {waiting}\n{self.log()[-2000:]}"
            self.flush()
            time.sleep(0.1)

    # -- What it has --

    def mails(self, address: str) -> list[Mail]:
        """What was delivered to this address, in the order in which it came; copies included."""
        path = self.root / "mail" / "new"
        raw = []
        for each in sorted(path.iterdir() if path.is_dir() else [], key=lambda file: file.stat().st_mtime_ns):
            raw.append(mailbox.Maildir(path.parent, factory=None, create=False).get_bytes(each.name))
        mails = [email.message_from_bytes(octets, policy=email.policy.default) for octets in raw]
        return [mail for mail in mails if address.lower() in re.split(r"[,\s]+", (mail["delivered-to"] or mail["envelope-to"] or "").lower())]

    def wait_mails(self, address: str, count: int = 1, timeout: float = 15) -> list[Mail]:
        """Waits for so many (those of one Message-ID are one)."""
        until = time.monotonic() + timeout
        while len(found := once(self.mails(address))) < count:
            assert time.monotonic() < until, f"{len(found)} mails for {address} in place of {count}\n{self.log()[-2500:]}"
            time.sleep(0.05)
        return found

    # -- Sending by it --

    def submit(self, mail: str | bytes, sender: str, *recipients: str, mail_options=(), rcpt_options=()):
        """As a person whose MTA this is."""
        with smtplib.SMTP(self.host, self.open_port, timeout=COMMAND_S, local_hostname="client.example") as client:
            client.sendmail(sender, list(recipients), mail, mail_options=mail_options, rcpt_options=rcpt_options)


class Smtpd(Server):
    """OpenSMTPD, as a sender's own MTA. Its reports are multipart/mixed with a message/delivery-status in it.

    What Debian 12 has of it cannot be a server of TLS (6.8 on OpenSSL 3 loses its private key), so nobody logs in here. It tries what waits
    again after 400 s, or when it is told to.
    """

    peer = "opensmtpd"
    programs = ("usr/sbin/smtpd", "usr/sbin/smtpctl", "usr/libexec/opensmtpd/*")
    users = {"opensmtpd": (4711, "/var/lib/opensmtpd/empty"), "opensmtpq": (4712, "/var/spool/smtpd")}

    def _build(self, authority: Authority):
        super()._build(authority)
        (self.root / "var/spool").chmod(0o711)
        (self.root / "var/lib/opensmtpd/empty").mkdir(parents=True)
        keep = self.root / "bin" / "keep"
        # A mail is kept, or there is no such mailbox (EX_NOUSER).
        keep.write_text('#!/bin/sh\nwhile read -r line; do [ "$line" != "$1:" ] || { echo "no mailbox $1"; exit 67; }; done </orders/bounced\n'
                        'exec /usr/libexec/opensmtpd/mail.maildir /mail\n')
        keep.chmod(0o755)

    def write(self):
        lines = [
            "table refused file:/orders/refused", "table deferred file:/orders/deferred", 'table people { "@" = vmail }',
            "smtp max-message-size 40M",
            'filter refuse phase rcpt-to match rcpt-to <refused> reject "550 5.7.1 Not to this one"',
            'filter defer phase rcpt-to match rcpt-to <deferred> reject "451 4.7.1 Come again later"',
            'filter orders chain { "refuse", "defer" }',
            *(f"listen on {self.host} port {port} hostname {self.name} filter orders" for port in (self.port, self.open_port)),
            'action keep mda "/bin/keep %{rcpt}" virtual <people>',
        ]
        for place, (domain, (host, port)) in enumerate(self.routes.items()):
            lines += [f'action route{place} relay host "smtp://{host}:{port}" src {self.host} helo {self.name}',
                      f'match from any for domain "{domain}" action route{place}']
        for place, (domain, (host, port)) in enumerate(self.lmtp.items()):
            lines += [f'action lmtp{place} lmtp "{host}:{port}" rcpt-to virtual <people>', f'match from any for domain "{domain}" action lmtp{place}']
        domains = ", ".join(f'"{name}"' for name in self.domains)
        lines += [f"match from any for domain {{ {domains} }} action keep", "match from any for any reject"]
        (self.root / "etc/smtpd.conf").write_text("\n".join(lines) + "\n")

    def _command(self) -> list[str]:
        return self._words("/usr/sbin/smtpd", "-d", "-v")

    def _order(self, name: str, addresses: tuple[str, ...]):
        # A table wants an entry at least.
        (self.root / "orders" / name).write_text("".join(f"{address}:\n" if name == "bounced" else f"{address}\n" for address in addresses or ("x@x",)))
        if self.process is not None and name != "bounced":
            self.control("update", "table", name)

    def control(self, *words: str) -> str:
        return self.run("/usr/sbin/smtpctl", *words, group=self.users["opensmtpq"][0])

    def flush(self):
        self.control("schedule", "all")

    def waiting(self) -> list[str]:
        return self.control("show", "queue").splitlines()


class Exim(Server):
    """Exim, as a relay: TLS and a login at `port`. Its reports are multipart/report (RFC 3464)."""

    peer = "exim"
    programs = ("usr/sbin/exim4",)
    users = {"Debian-exim": (4711, "/var/spool/exim4")}

    def _build(self, authority: Authority):
        super()._build(authority)
        uid = self.users["Debian-exim"][0]
        for each in ("var/spool/exim4", "var/log/exim4"):
            (self.root / each).mkdir()
            os.chown(self.root / each, uid, uid)
        # It reads its key as this user, and never becomes another one: it has no setuid bit here, nor would every /tmp heed it.
        for each in ("etc/mail/own.key", "mail"):
            os.chown(self.root / each, uid, uid)

    def write(self):
        def listed(name):
            return f"${{lookup{{$local_part@$domain}}lsearch{{/orders/{name}}}{{yes}}{{no}}}}"

        routers, transports = [], []
        for place, (domain, (host, port)) in enumerate((self.routes | self.lmtp).items()):
            protocol = "lmtp" if domain in self.lmtp else "smtp"
            routers.append(f"route{place}:\n driver = manualroute\n domains = {domain}\n transport = out{place}\n route_list = * {host} byname\n self = send\n"
                           " no_more\n")
            transports.append(f"out{place}:\n driver = smtp\n protocol = {protocol}\n port = {port}\n interface = {self.host}\n helo_data = {self.name}\n"
                              f" allow_localhost\n tls_verify_certificates = /etc/ssl/certs/ca-certificates.crt\n tls_verify_hosts = *\n")
        (self.root / "etc/exim4").mkdir(exist_ok=True)
        (self.root / "etc/exim4/exim4.conf").write_text(f"""
primary_hostname = {self.name}
qualify_domain = {self.name}
keep_environment =
deliver_drop_privilege = true
local_interfaces = <; [{self.host}]:{self.port} ; [{self.host}]:{self.open_port}
tls_certificate = /etc/mail/own.pem
tls_privatekey = /etc/mail/own.key
tls_advertise_hosts = *
dsn_advertise_hosts = *
chunking_advertise_hosts = *
smtputf8_advertise_hosts = *
message_size_limit = 40M
smtp_accept_max = 200
smtp_accept_max_per_connection = 100000
smtp_accept_queue_per_connection = 0
smtp_enforce_sync = true
delay_warning =
host_lookup =
rfc1413_query_timeout = 0s
never_users =
trusted_users = Debian-exim
acl_smtp_rcpt = at_rcpt

begin acl
at_rcpt:
 deny condition = ${{if and{{{{eq{{$received_port}}{{{self.port}}}}}{{eq{{$authenticated_id}}{{}}}}}}}}
  message = 5.7.0 Log in first
 deny condition = {listed("refused")}
  message = 5.7.1 Not to this one
 defer condition = {listed("deferred")}
  message = 4.7.1 Come again later
 accept domains = {" : ".join((*self.domains, *self.routes, *self.lmtp))}
 deny message = 5.7.1 No relay for this domain

begin routers
{"".join(routers)}
gone:
 driver = redirect
 condition = {listed("bounced")}
 allow_fail
 data = :fail: no such mailbox
keep:
 driver = accept
 transport = keep

begin transports
{"".join(transports)}
keep:
 driver = appendfile
 directory = /mail
 maildir_format
 envelope_to_add
 return_path_add

begin retry
* * F,4d,1s

begin authenticators
plain:
 driver = plaintext
 public_name = PLAIN
 server_prompts = :
 server_condition = ${{if and{{{{eq{{$auth2}}{{{LOGIN}}}}}{{eq{{$auth3}}{{{PASSWORD}}}}}}}}}
 server_set_id = $auth2
 server_advertise_condition = ${{if def:tls_in_cipher}}
login:
 driver = plaintext
 public_name = LOGIN
 server_prompts = <| Username: | Password:
 server_condition = ${{if and{{{{eq{{$auth1}}{{{LOGIN}}}}}{{eq{{$auth2}}{{{PASSWORD}}}}}}}}}
 server_set_id = $auth1
 server_advertise_condition = ${{if def:tls_in_cipher}}
""")

    def _command(self) -> list[str]:
        return self._words("/usr/sbin/exim4", "-bdf", "-q1s")

    def flush(self):
        self.run("/usr/sbin/exim4", "-qff")

    def waiting(self) -> list[str]:
        # A line about the mail, and one further to the right for each recipient.
        return [line.strip() for line in self.run("/usr/sbin/exim4", "-bp").splitlines() if line.startswith(" " * 8)]


def once(mails: list[Mail]) -> list[Mail]:
    """Without copies: what a reader does that folds one Message-ID into one."""
    seen, out = set(), []
    for mail in mails:
        if mail["message-id"] not in seen:
            seen.add(mail["message-id"])
            out.append(mail)
    return out


def _greets(host: str, port: int) -> bool:
    try:
        with socket.create_connection((host, port), 1) as connection:
            return connection.recv(4) == b"220 "
    except OSError:
        return False


def _libraries(program: Path, top: Path) -> list[Path]:
    """What the dynamic linker needs for it, with itself."""
    beside = ":".join(sorted({str(path.parent) for path in (top / "usr" / "lib").rglob("lib*.so*")}))
    done = subprocess.run(["ldd", str(program)], capture_output=True, text=True, timeout=COMMAND_S, env={"LD_LIBRARY_PATH": beside, "PATH": os.environ["PATH"]})
    return [Path(path) for path in re.findall(r"(?:=> |^\s*)(/\S+)", done.stdout, re.M)]


def _take(source: Path, target: Path):
    if not target.exists():
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(source.resolve(), target)
        target.chmod(0o755)


# --- swaks --------------------------------------------------------------------------------------------------------------------

@dataclass
class Talk:
    """What was said in one session, line by line: `<` is the server."""

    code: int                                              # how swaks ended; 0: the mail was taken
    lines: list[tuple[str, str]]

    @property
    def answers(self) -> list[str]:
        return [line for way, line in self.lines if way == "<"]

    @property
    def last(self) -> str:
        """The last answer that is none to QUIT."""
        said = [line for line in self.answers if not line.startswith("221")]
        return said[-1] if said else ""

    def offers(self, word: str) -> bool:
        """Whether an answer to EHLO or LHLO says this."""
        return any(re.match(rf"250[- ]{word}\b", line) for line in self.answers)

    def __str__(self) -> str:
        return f"exit {self.code}\n" + "\n".join(f"{way} {line}" for way, line in self.lines)


class Swaks:
    """The Swiss army knife of SMTP as a client; `swaks(("127.0.0.65", 25), "--to", ..)`."""

    def __init__(self, test: unittest.TestCase, source: str = CLIENT):
        self.path, self.source = peers.program("swaks", test), source

    def __call__(self, to: tuple[str, int], *words: str, timeout: float = COMMAND_S) -> Talk:
        done = subprocess.run([self.path, "--server", to[0], "--port", str(to[1]), "--local-interface", self.source, "--helo", "client.example",
                               "--suppress-data", *words], capture_output=True, stdin=subprocess.DEVNULL, timeout=timeout)
        lines = []
        for line in done.stdout.decode(errors="replace").splitlines():
            # `<-` and `->` in the clear, `<~` and `~>` in TLS, `<*` and `*>` where it is no good.
            if said := re.match(r"(<[-~*]{1,2}|\s?[-~*]{1,2}>) ?(.*)", line):
                lines.append(("<" if said[1].startswith("<") else ">", said[2].strip()))
            elif line.startswith("***"):
                lines.append(("*", line))
        return Talk(done.returncode, lines + [("*", line) for line in done.stderr.decode(errors="replace").splitlines()])


# --- What lies between two ----------------------------------------------------------------------------------------------------

class Line:
    """TCP from `at` to `to`. It can be cut and mended, be silent, and lose the answer to the end of a mail (where there is no TLS)."""

    def __init__(self, test: unittest.TestCase | None, host: str, to: tuple[str, int], *, source: str = ""):
        self.at, self.to, self.source = (host, free_port(host)), to, source
        self.lock = threading.Lock()
        self.listener: socket.socket | None = None
        self.ends: set[socket.socket] = set()
        self.answers_to_lose, self.lost, self.silent, self.taken = 0, 0, False, 0
        self.mend()
        if test is not None:
            test.addCleanup(self.cut)

    def mend(self):
        if self.listener is None:
            self.listener = socket.create_server(self.at, backlog=100)
            threading.Thread(target=self._listen, args=(self.listener,), daemon=True).start()
        self.silent = False

    def cut(self):
        """Whoever talks is cut off, and whoever comes is refused."""
        with self.lock:
            listener, self.listener = self.listener, None
            ends, self.ends = self.ends, set()
        if listener:
            listener.shutdown(socket.SHUT_RDWR)
            listener.close()
        for end in ends:
            _break(end)

    def lose_answers(self, count: int):
        """Of so many mails the server's answer is lost and the line breaks: it has the mail, and nobody says so."""
        self.answers_to_lose = count

    def _listen(self, listener: socket.socket):
        while True:
            try:
                near, _ = listener.accept()
            except OSError:
                return
            self.taken += 1
            threading.Thread(target=self._carry, args=(near,), daemon=True).start()

    def _carry(self, near: socket.socket):
        with self.lock:
            self.ends.add(near)
        if self.silent:
            return
        try:
            far = socket.create_connection(self.to, 5, source_address=(self.source, 0) if self.source else None)
            far.settimeout(None)
        except OSError:
            return _break(near)
        with self.lock:
            self.ends.add(far)
            if self.listener is None:
                _break(near)
                _break(far)
        says = _Mail()
        back = threading.Thread(target=self._pump, args=(far, near, says, False), daemon=True)
        back.start()
        self._pump(near, far, says, True)
        back.join()
        with self.lock:
            self.ends -= {near, far}
        near.close()
        far.close()

    def _pump(self, source: socket.socket, target: socket.socket, mail: "_Mail", is_client: bool):
        try:
            while octets := source.recv(65536):
                if is_client:
                    mail.client(octets)
                elif mail.server(octets) and self._loses():
                    _break(source)
                    return _break(target)
                target.sendall(octets)
            target.shutdown(socket.SHUT_WR)
        except OSError:
            _break(source)
            _break(target)

    def _loses(self) -> bool:
        with self.lock:
            if self.answers_to_lose == 0:
                return False
            self.answers_to_lose -= 1
            self.lost += 1
            return True


class _Mail:
    """Where in a session without TLS a mail ends."""

    def __init__(self):
        self.is_open = self.is_over = False
        self.tail = b""

    def client(self, octets: bytes):
        self.tail = (self.tail + octets)[-5:]
        if self.is_open and self.tail == b"\r\n.\r\n":
            self.is_open, self.is_over = False, True

    def server(self, octets: bytes) -> bool:
        """Whether this is the answer to the end of a mail."""
        if octets.startswith(b"354"):
            self.is_open, self.tail = True, b""
        is_answer, self.is_over = self.is_over, False
        return is_answer


def _break(end: socket.socket):
    try:
        end.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
        end.shutdown(socket.SHUT_RDWR)
        end.close()
    except OSError:
        pass
