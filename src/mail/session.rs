//! One session of SMTP or LMTP, from the greeting to QUIT: octets in, octets and steps out.
//!
//! Knows: the commands, their order, their limits, and what is answered ([`super::admit`] says who may). Does not know: sockets, TLS,
//! clocks, what a mail says, and what the message centre makes of it. Pure: the same octets give the same answers, however they are cut.
//! [`smtp_proto`] reads commands and parameters. Lines, paths and the octets of a mail are read here, strictly, for it takes a bare LF
//! for the end of a line, follows source routes, and lets `CR LF . CR CR LF` end a mail: each of these is how one mail is smuggled in another.
//! Limits: the constants here, and `[mail]`: `size_max`, `recipients_max`.
//! Source: RFC 5321, 2033 (LMTP), 1870 (SIZE), 2034 and 3463 (status codes), 2920 (PIPELINING), 3030 (CHUNKING), 3207 (STARTTLS), 3461 (DSN),
//! 4954 (AUTH), 6152 (8BITMIME), 6531 (SMTPUTF8).

mod octets;
mod written;

use std::borrow::Cow;
use std::mem::take;
use std::net::IpAddr;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use memchr::{memchr, memchr2};
use sha2::{Digest as _, Sha256};
use smtp_proto::{AUTH_LOGIN, AUTH_PLAIN, Error, MAIL_SMTPUTF8, Request};
use subtle::{Choice, ConstantTimeEq as _};
use zeroize::Zeroizing;

use self::octets::Data;
use super::address::Address;
use super::{Peer, Rcpt, Reply, admit};
use crate::config::Settings;
use crate::config::mailing::{Mail, MailUser};

/// Of a command, without its CR LF: more than the 512 octets of RFC 5321 §4.5.3.1.4, which DSN, AUTH= and others extend; a login of ours
/// fits as well.
pub const LINE_OCTETS_MAX: usize = 2_048;
/// Commands from one accepted mail to the next.
pub const COMMANDS_MAX: u32 = 1_000;
/// Commands that could not be read, or came out of their order; the tenth is the last.
pub const ERRORS_MAX: u32 = 10;
/// Recipients that were refused, from one accepted mail to the next: who guesses addresses stops here.
pub const REFUSED_MAX: u32 = 100;
/// Wrong passwords.
pub const LOGINS_MAX: u32 = 3;
/// A mail up to this size is taken even where there is no room for larger ones.
pub const SMALL_OCTETS_MAX: usize = 64 * 1024;
/// Of a mail that is refused for its length so much is read, in multiples of what was allowed, to be heard at all.
const DISCARD_TIMES: u64 = 4;
/// From this error on each has to wait for its answer, longer every time.
const ERRORS_FREE: u32 = 2;
const ERROR_PAUSE: Duration = Duration::from_millis(250);
const LOGIN_PAUSE: Duration = Duration::from_secs(1);
/// A line of a reply has at most 512 octets, its code and CR LF included (RFC 5321 §4.5.3.1.5).
const REPLY_TEXT_MAX: usize = 400;
/// RFC 3461 §4.4 and §4.2.
const ENVID_MAX: usize = 100;
const ORCPT_MAX: usize = 500;
/// Of what a client calls itself; a domain has no more.
const HELLO_MAX: usize = 255;

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Protocol {
    Smtp,
    /// Each recipient has an answer of its own at the end of a mail.
    Lmtp,
}

/// What is to be done before the next octets are fed.
#[derive(PartialEq, Eq, Debug)]
pub enum Step {
    /// Every octet is used: what is to be written is written, then more is read.
    More,
    /// The handshake begins when all is written. Octets that came before it are dropped, unread: somebody else may have
    /// put them there (CVE-2011-0411). Then [`Session::secured`].
    StartTls,
    /// A mail has come whole; [`Session::answered`] goes on.
    Mail(Box<Taken>),
    /// What is to be written is written, then the connection ends; `is_asked`: with QUIT.
    Close { is_asked: bool },
}

/// A mail that nobody has read yet.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Taken {
    pub from: Option<Address>,
    pub peer: Peer,
    /// Each once, as far as it is the same phone or number.
    pub recipients: Vec<Rcpt>,
    pub envid: Option<String>,
    pub each_answered: bool,
    pub octets: Vec<u8>,
}

/// Why something was not taken, by the second number of its status: what `status` counts.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Class {
    /// X.1: no such address.
    Address,
    /// X.2: it is barred.
    Mailbox,
    /// X.3: we are full, or the mail is too long.
    System,
    /// X.4: it goes round.
    Loop,
    /// X.5: it is no SMTP.
    Protocol,
    /// X.6: it cannot be read.
    Content,
    /// X.7: not for him.
    Policy,
}

pub const CLASSES: usize = 7;

/// What happened since it was last asked.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Counts {
    /// Mails that somebody answers for now: ours.
    pub accepted: u64,
    /// 4xx.
    pub deferred: u64,
    /// 5xx, by [`Class`].
    pub refused: [u64; CLASSES],
    pub logins: u64,
    /// Wrong passwords.
    pub logins_wrong: u64,
}

/// One connection.
pub struct Session {
    protocol: Protocol,
    peer: Peer,
    greeted: bool,
    /// There is a certificate, and nothing is encrypted yet.
    offers_tls: bool,
    /// Nothing may be written on the disk now.
    is_full: bool,
    /// As much mail as may is on its way in, in all sessions.
    is_short: bool,
    /// From there too many wrong passwords have come.
    is_barred: bool,
    /// A mail has been taken in this session.
    has_mail: bool,
    state: State,
    transaction: Option<Transaction>,
    /// The last MAIL was refused: who gathers commands has sent the rest of them already, and that is no error of his.
    mail_refused: bool,
    /// The beginning of a line whose end has not come.
    line: Vec<u8>,
    /// The line is too long; its rest is not kept.
    overlong: bool,
    out: Vec<u8>,
    counts: Counts,
    pause: Option<Duration>,
    commands: u32,
    errors: u32,
    refused: u32,
    wrong_logins: u32,
}

enum State {
    Command,
    Login(Login),
    Data(Data),
    Chunk(Chunk),
    /// A mail is with whoever stores it; how many answers it gets, and of which recipient each.
    Answering(Vec<usize>),
    Handshake,
    Closed,
}

enum Login {
    Plain,
    Name,
    Password(Zeroizing<String>),
}

struct Transaction {
    from: Option<Address>,
    envid: Option<String>,
    is_utf8: bool,
    recipients: Vec<Rcpt>,
    /// For each RCPT that was let in, which of `recipients` it is.
    order: Vec<usize>,
    octets: Vec<u8>,
    /// Its octets come by BDAT.
    is_chunked: bool,
}

struct Chunk {
    octets: u64,
    left: u64,
    is_last: bool,
    /// Its octets are dropped, and this is said.
    refusal: Option<Reply>,
}

impl Session {
    /// `offers_tls`: STARTTLS is possible here.
    pub fn new(protocol: Protocol, ip: IpAddr, offers_tls: bool, is_encrypted: bool) -> Session {
        Session {
            protocol,
            peer: Peer { ip, hello: String::new(), user: None, is_encrypted },
            greeted: false,
            offers_tls: offers_tls && !is_encrypted,
            is_full: false,
            is_short: false,
            is_barred: false,
            has_mail: false,
            state: State::Command,
            transaction: None,
            mail_refused: false,
            line: Vec::new(),
            overlong: false,
            out: Vec::new(),
            counts: Counts::default(),
            pause: None,
            commands: 0,
            errors: 0,
            refused: 0,
            wrong_logins: 0,
        }
    }

    /// The first line.
    pub fn greet(&mut self, settings: &Settings) {
        let domain = settings.mail.as_ref().map_or(settings.domain.as_str(), |mail| mail.domain.as_str());
        let protocol = match self.protocol {
            Protocol::Smtp => "ESMTP",
            Protocol::Lmtp => "LMTP",
        };
        // No status in the greeting (RFC 2034 §3).
        self.say(&format!("220 {domain} {protocol} Encamp\r\n"));
    }

    /// Takes octets off the input until something is to be done.
    pub fn feed(&mut self, settings: &Settings, input: &mut &[u8]) -> Step {
        let Some(mail) = settings.mail.as_deref() else {
            return self.end(421, (4, 3, 2), "mail is no longer taken here");
        };
        loop {
            let step = match &mut self.state {
                State::Closed => return Step::Close { is_asked: false },
                State::Handshake | State::Answering(_) => return Step::More,
                State::Data(data) => {
                    let Some(transaction) = &mut self.transaction else {
                        self.state = State::Command;
                        continue;
                    };
                    let ended = data.read(input, mail.size_max, self.is_short, &mut transaction.octets);
                    // Also where its end has come with the rest: it makes no difference how it was cut.
                    if data.count > mail.size_max.saturating_mul(DISCARD_TIMES) {
                        return self.end(552, (5, 3, 4), &too_long(mail));
                    }
                    if ended {
                        let refusal = data.refusal(mail);
                        self.taken(refusal)
                    } else {
                        None
                    }
                }
                State::Chunk(chunk) => {
                    let (now, rest) =
                        input.split_at(input.len().min(usize::try_from(chunk.left).unwrap_or(usize::MAX)));
                    *input = rest;
                    chunk.left -= now.len() as u64;
                    if let Some(transaction) = &mut self.transaction
                        && chunk.refusal.is_none()
                    {
                        transaction.octets.extend_from_slice(now);
                        if self.is_short && transaction.octets.len() > SMALL_OCTETS_MAX {
                            transaction.octets = Vec::new();
                            chunk.refusal = Some(no_room());
                        }
                    }
                    if chunk.left == 0 { self.chunk_ended() } else { None }
                }
                State::Command | State::Login(_) => self.read_line(settings, mail, input),
            };
            match step {
                Some(step) => return step,
                None if input.is_empty() && !self.has_empty_chunk() => return Step::More,
                None => (),
            }
        }
    }

    /// What became of the mail: one answer, or one for each of its recipients.
    pub fn answered(&mut self, replies: &[Reply]) {
        let State::Answering(order) = &mut self.state else { return };
        let order = take(order);
        self.state = State::Command;
        let unknown = Reply::new(451, (4, 3, 0), "nobody knows what became of it: send it again");
        let mut any = false;
        for at in order {
            let reply = replies.get(at).or(replies.first()).unwrap_or(&unknown);
            any |= reply.code / 100 == 2;
            self.count(reply);
            self.write(reply);
        }
        if any {
            self.has_mail = true;
            self.counts.accepted += 1;
            self.commands = 0;
            self.refused = 0;
        }
    }

    /// The handshake is done: nothing of before is known any more (RFC 3207 §4.2).
    pub fn secured(&mut self) {
        self.state = State::Command;
        self.transaction = None;
        self.mail_refused = false;
        self.line.clear();
        self.overlong = false;
        self.greeted = false;
        self.offers_tls = false;
        self.peer = Peer { ip: self.peer.ip, hello: String::new(), user: None, is_encrypted: true };
    }

    /// Nothing is taken for now.
    pub fn set_full(&mut self, is_full: bool) {
        self.is_full = is_full;
    }

    /// No large mail is taken for now.
    pub fn set_short(&mut self, is_short: bool) {
        self.is_short = is_short;
    }

    /// Nobody logs in from there for now.
    pub fn set_barred(&mut self, is_barred: bool) {
        self.is_barred = is_barred;
    }

    /// Octets of memory that hold what has come of a mail.
    pub fn held(&self) -> u64 {
        self.transaction.as_ref().map_or(0, |transaction| transaction.octets.capacity() as u64)
    }

    /// Whether it has brought a mail that was taken.
    pub fn has_mail(&self) -> bool {
        self.has_mail
    }

    /// The session is over from our side: too slow, too long.
    pub fn give_up(&mut self, status: (u8, u16, u16), why: &str) -> Step {
        self.end(421, status, why)
    }

    /// What is to be written.
    pub fn out(&self) -> &[u8] {
        &self.out
    }

    /// It is written.
    pub fn written(&mut self) {
        self.out.clear();
    }

    pub fn take_counts(&mut self) -> Counts {
        take(&mut self.counts)
    }

    /// So long nothing is written: it answers errors.
    pub fn take_pause(&mut self) -> Option<Duration> {
        self.pause.take()
    }

    /// In the middle of a mail or of a line: the other side should be bringing octets.
    pub fn is_receiving(&self) -> bool {
        matches!(self.state, State::Data(_) | State::Chunk(_)) || !self.line.is_empty() || self.overlong
    }

    /// Between two mails nobody loses anything when it ends.
    pub fn is_idle(&self) -> bool {
        matches!(self.state, State::Command) && self.transaction.is_none()
    }

    pub fn peer(&self) -> &Peer {
        &self.peer
    }

    // --- Answers ---

    fn say(&mut self, text: &str) {
        self.out.extend_from_slice(text.as_bytes());
    }

    fn write(&mut self, reply: &Reply) {
        let (class, subject, detail) = reply.status;
        let head = match reply.code {
            300..400 => format!("{} ", reply.code),
            code => format!("{code} {class}.{subject}.{detail} "),
        };
        self.say(&head);
        let shown = |char: char| if char.is_ascii_graphic() || char == ' ' { char as u8 } else { b'?' };
        self.out.extend(reply.text.chars().take(REPLY_TEXT_MAX).map(shown));
        self.say("\r\n");
    }

    fn count(&mut self, reply: &Reply) {
        match reply.code {
            400..500 => self.counts.deferred += 1,
            500.. => {
                let class = match reply.status.1 {
                    1 => Class::Address,
                    2 => Class::Mailbox,
                    3 => Class::System,
                    4 => Class::Loop,
                    6 => Class::Content,
                    7 => Class::Policy,
                    _ => Class::Protocol,
                };
                self.counts.refused[class as usize] += 1;
            }
            _ => (),
        }
    }

    fn reply(&mut self, code: u16, status: (u8, u16, u16), text: impl Into<String>) -> Option<Step> {
        self.answer(&Reply::new(code, status, text))
    }

    fn answer(&mut self, reply: &Reply) -> Option<Step> {
        self.count(reply);
        self.write(reply);
        None
    }

    /// A command that could not be read, or came out of its order.
    fn error(&mut self, code: u16, status: (u8, u16, u16), text: impl Into<String>) -> Option<Step> {
        self.errors += 1;
        if self.errors >= ERRORS_MAX {
            return Some(self.end(421, (4, 7, 0), "too many errors"));
        }
        if self.errors > ERRORS_FREE {
            self.pause = Some(ERROR_PAUSE * self.errors);
        }
        self.reply(code, status, text)
    }

    fn end(&mut self, code: u16, status: (u8, u16, u16), text: &str) -> Step {
        if !matches!(self.state, State::Closed) {
            self.reply(code, status, text);
            self.state = State::Closed;
            self.transaction = None;
        }
        Step::Close { is_asked: code == 221 }
    }

    // --- Lines ---

    fn read_line(&mut self, settings: &Settings, mail: &Mail, input: &mut &[u8]) -> Option<Step> {
        let Some(end) = memchr(b'\n', input) else {
            self.keep_line(input);
            *input = &[];
            return None;
        };
        let (now, rest) = input.split_at(end + 1);
        *input = rest;
        if self.line.is_empty() && !self.overlong {
            return self.line_ended(settings, mail, now);
        }
        self.keep_line(now);
        let mut line = take(&mut self.line);
        let step = self.line_ended(settings, mail, &line);
        // Its room is used again.
        line.clear();
        self.line = line;
        step
    }

    fn keep_line(&mut self, octets: &[u8]) {
        if self.line.len() + octets.len() > LINE_OCTETS_MAX + 2 {
            self.overlong = true;
            self.line.clear();
        }
        if !self.overlong {
            self.line.extend_from_slice(octets);
        }
    }

    /// `line` ends with LF.
    fn line_ended(&mut self, settings: &Settings, mail: &Mail, line: &[u8]) -> Option<Step> {
        self.commands += 1;
        if self.commands > COMMANDS_MAX {
            return Some(self.end(421, (4, 7, 0), "too many commands without a mail"));
        }
        let state = std::mem::replace(&mut self.state, State::Command);
        if take(&mut self.overlong) || line.len() > LINE_OCTETS_MAX + 2 {
            return self.error(500, (5, 5, 2), format!("no line has more than {LINE_OCTETS_MAX} octets"));
        }
        // Who ends lines in another way than we would be believed to have said something else than he has.
        let Some(text) = line.strip_suffix(b"\r\n").filter(|text| memchr2(b'\r', 0, text).is_none()) else {
            return self.error(500, (5, 5, 2), "a line ends with CR LF, and has neither of them nor NUL inside");
        };
        let Ok(text) = std::str::from_utf8(text) else {
            return self.error(500, (5, 5, 2), "that is no UTF-8");
        };
        match state {
            State::Login(login) => self.login_line(mail, login, text),
            _ => self.command(settings, mail, text, line),
        }
    }

    /// `line` is `text` with its CR LF.
    fn command(&mut self, settings: &Settings, mail: &Mail, text: &str, line: &[u8]) -> Option<Step> {
        if let Some(rest) = written::argument(text, "MAIL") {
            return self.mail_from(settings, mail, rest);
        }
        if let Some(rest) = written::argument(text, "RCPT") {
            return self.rcpt_to(settings, mail, rest);
        }
        if text.get(..4).is_some_and(|head| head.eq_ignore_ascii_case("BDAT")) {
            return match written::chunk(text) {
                Some((octets, is_last)) => self.bdat(mail, octets, is_last),
                // What follows may be commands or the octets of a mail.
                None => Some(self.end(501, (5, 5, 4), "write BDAT octets [LAST]")),
            };
        }
        let request = match Request::parse(&mut line.iter()) {
            Ok(request) => request,
            Err(Error::SyntaxError { syntax }) => return self.error(501, (5, 5, 4), format!("write {syntax}")),
            Err(Error::InvalidParameter { param }) => {
                return self.error(501, (5, 5, 4), format!("{param} cannot be read"));
            }
            // A browser that somebody made speak to us says nothing that is meant for us.
            Err(_) if ["GET ", "POST ", "PUT ", "CONNECT ", "OPTIONS "].iter().any(|word| text.starts_with(word)) => {
                return Some(self.end(554, (5, 5, 1), "this is no web server"));
            }
            Err(_) => return self.error(500, (5, 5, 1), "there is no such command"),
        };
        match (request, self.protocol) {
            (Request::Ehlo { host }, Protocol::Smtp) | (Request::Lhlo { host }, Protocol::Lmtp) => {
                self.hello(mail, &host, true)
            }
            (Request::Helo { host }, Protocol::Smtp) => self.hello(mail, &host, false),
            (Request::Ehlo { .. } | Request::Helo { .. }, Protocol::Lmtp) => {
                self.error(500, (5, 5, 1), "this is LMTP: say LHLO")
            }
            (Request::Lhlo { .. }, Protocol::Smtp) => self.error(500, (5, 5, 1), "this is SMTP: say EHLO"),
            (Request::Data, _) => self.data(text),
            (Request::Rset, _) => {
                self.transaction = None;
                self.mail_refused = false;
                self.reply(250, (2, 0, 0), "nothing has been said")
            }
            (Request::Noop { .. }, _) => self.reply(250, (2, 0, 0), "yes"),
            (Request::Vrfy { .. }, _) => self.reply(252, (2, 5, 0), "write to it, and you will see"),
            (Request::Help { .. }, _) => {
                self.reply(214, (2, 0, 0), format!("mail to NUMBER@{} becomes a text to that phone", mail.domain))
            }
            (Request::Quit, _) => Some(self.end(221, (2, 0, 0), "good bye")),
            (Request::StartTls, _) => self.start_tls(text),
            (Request::Auth { mechanism, initial_response }, _) => self.auth(mail, mechanism, &initial_response),
            (
                Request::Expn { .. } | Request::Etrn { .. } | Request::Atrn { .. } | Request::Burl { .. },
                Protocol::Smtp | Protocol::Lmtp,
            ) => self.error(502, (5, 5, 1), "this command is not done here"),
            // They were read before; a line that only resembles them lands here.
            (Request::Mail { .. } | Request::Rcpt { .. } | Request::Bdat { .. }, _) => {
                self.error(501, (5, 5, 4), "that cannot be read")
            }
        }
    }

    fn hello(&mut self, mail: &Mail, host: &str, is_extended: bool) -> Option<Step> {
        self.transaction = None;
        self.mail_refused = false;
        self.greeted = true;
        self.peer.hello = host.chars().filter(|char| !char.is_control()).take(HELLO_MAX).collect();
        if !is_extended {
            self.say(&format!("250 {}\r\n", mail.domain));
            return None;
        }
        let mut lines = format!(
            "250-{}\r\n250-PIPELINING\r\n250-SIZE {}\r\n250-8BITMIME\r\n250-SMTPUTF8\r\n250-DSN\r\n250-CHUNKING\r\n",
            mail.domain, mail.size_max
        );
        if self.offers_tls {
            lines.push_str("250-STARTTLS\r\n");
        }
        if !mail.users.is_empty() && self.may_login() {
            lines.push_str("250-AUTH PLAIN LOGIN\r\n");
        }
        lines.push_str("250 ENHANCEDSTATUSCODES\r\n");
        self.say(&lines);
        None
    }

    fn start_tls(&mut self, text: &str) -> Option<Step> {
        if self.peer.is_encrypted {
            return self.error(503, (5, 5, 1), "this is TLS already");
        }
        if !self.offers_tls {
            return self.error(502, (5, 5, 1), "there is no certificate here");
        }
        // It takes no parameter (RFC 3207 §4).
        if text.trim_end().len() != "STARTTLS".len() {
            return self.error(501, (5, 5, 4), "STARTTLS stands alone");
        }
        self.reply(220, (2, 0, 0), "begin");
        self.state = State::Handshake;
        Some(Step::StartTls)
    }

    // --- Logins ---

    /// A password goes over TLS, or does not leave this machine.
    fn may_login(&self) -> bool {
        self.peer.is_encrypted || self.peer.ip.to_canonical().is_loopback()
    }

    fn auth(&mut self, mail: &Mail, mechanism: u64, initial: &str) -> Option<Step> {
        if mail.users.is_empty() {
            return self.error(502, (5, 5, 1), "nobody logs in here");
        }
        if !self.may_login() {
            return self.error(538, (5, 7, 11), "no password without TLS: say STARTTLS");
        }
        if self.peer.user.is_some() || self.transaction.is_some() || !self.greeted {
            return self.error(503, (5, 5, 1), "not now: EHLO comes first, one login, then mail");
        }
        if self.is_barred {
            return self.reply(454, (4, 7, 0), "too many wrong passwords from there: come again");
        }
        // A response may be empty, which is written as `=` (RFC 4954 §4).
        let initial = match initial {
            "" => None,
            "=" => Some(""),
            response => Some(response),
        };
        let (login, asks) = match mechanism {
            AUTH_PLAIN => (Login::Plain, "334 \r\n"),
            AUTH_LOGIN => (Login::Name, "334 VXNlcm5hbWU6\r\n"),
            _ => return self.error(504, (5, 5, 4), "PLAIN and LOGIN are known"),
        };
        match initial {
            Some(response) => self.login_line(mail, login, response),
            None => {
                self.say(asks);
                self.state = State::Login(login);
                None
            }
        }
    }

    fn login_line(&mut self, mail: &Mail, login: Login, text: &str) -> Option<Step> {
        if text == "*" {
            return self.error(501, (5, 7, 0), "no login, then");
        }
        let decoded = BASE64.decode(text).ok().and_then(|octets| String::from_utf8(octets).ok()).map(Zeroizing::new);
        let Some(decoded) = decoded else {
            return self.error(501, (5, 5, 2), "that is no base64");
        };
        match login {
            Login::Name => {
                self.say("334 UGFzc3dvcmQ6\r\n");
                self.state = State::Login(Login::Password(decoded));
                None
            }
            Login::Password(name) => self.logged_in(mail, &name, &decoded),
            Login::Plain => {
                // On whose behalf, who, with what (RFC 4616 §2).
                let mut parts = decoded.split('\0');
                match (parts.next(), parts.next(), parts.next(), parts.next()) {
                    (Some(behalf), Some(name), Some(password), None) if behalf.is_empty() || behalf == name => {
                        self.logged_in(mail, name, password)
                    }
                    _ => self.logged_in(mail, "", ""),
                }
            }
        }
    }

    fn logged_in(&mut self, mail: &Mail, name: &str, password: &str) -> Option<Step> {
        if knows(&mail.users, name, password) {
            self.peer.user = Some(name.to_owned());
            self.counts.logins += 1;
            return self.reply(235, (2, 7, 0), "welcome");
        }
        self.wrong_logins += 1;
        self.counts.logins_wrong += 1;
        self.pause = Some(LOGIN_PAUSE * self.wrong_logins);
        if self.wrong_logins >= LOGINS_MAX {
            return Some(self.end(421, (4, 7, 0), "too many wrong passwords"));
        }
        self.reply(535, (5, 7, 8), "name or password is wrong")
    }

    // --- A mail ---

    fn mail_from(&mut self, settings: &Settings, mail: &Mail, rest: &str) -> Option<Step> {
        if !self.greeted {
            return self.error(503, (5, 5, 1), "say who you are first");
        }
        if self.transaction.is_some() {
            return self.error(503, (5, 5, 1), "a mail has begun already");
        }
        let (path, parameters) = match written::path(rest, "FROM") {
            Ok(found) => found,
            Err(why) => return self.error(501, (5, 5, 4), why),
        };
        let from = match path {
            "" => None,
            path if path.starts_with('@') => {
                return self.error(501, (5, 1, 7), "a source route is no sender");
            }
            path => match Address::parse(path) {
                Ok(address) => Some(address),
                Err(why) => return self.error(501, (5, 1, 7), format!("the sender is no address: {why}")),
            },
        };
        let asked = match written::mail_parameters(parameters) {
            Ok(asked) => asked,
            Err(error) => return self.bad_parameter(&error),
        };
        if let Some(foreign) = written::foreign_of_mail(&asked) {
            return self.error(555, (5, 5, 4), format!("{foreign} is not offered here"));
        }
        let is_utf8 = asked.flags & MAIL_SMTPUTF8 != 0;
        if let Some(from) = &from
            && !from.is_ascii()
            && !is_utf8
        {
            return self.error(553, (5, 6, 7), "such an address needs SMTPUTF8");
        }
        let envid = match written::xtext(parameters, "ENVID=", ENVID_MAX) {
            Ok(envid) => envid.map(str::to_owned),
            Err(()) => return self.error(501, (5, 5, 4), "ENVID cannot be read"),
        };
        let size = written::size(parameters);
        self.mail_refused = true;
        if size > mail.size_max {
            return self.reply(552, (5, 3, 4), too_long(mail));
        }
        if self.is_full {
            return self.reply(452, (4, 3, 1), "the disk is full: come again");
        }
        if self.is_short && size > SMALL_OCTETS_MAX as u64 {
            return self.answer(&no_room());
        }
        if let Err(refusal) = admit::sender(settings, &self.peer, from.as_ref()) {
            return self.refuse(&refusal);
        }
        self.mail_refused = false;
        self.transaction = Some(Transaction {
            from,
            envid,
            is_utf8,
            recipients: Vec::new(),
            order: Vec::new(),
            // What was only announced takes no room.
            octets: Vec::new(),
            is_chunked: false,
        });
        self.reply(250, (2, 1, 0), "go on")
    }

    fn rcpt_to(&mut self, settings: &Settings, mail: &Mail, rest: &str) -> Option<Step> {
        if self.transaction.as_ref().is_none_or(|transaction| transaction.is_chunked) {
            return self.without_mail();
        }
        let (path, parameters) = match written::path(rest, "TO") {
            Ok(found) => found,
            Err(why) => return self.error(501, (5, 5, 4), why),
        };
        let is_utf8 = self.transaction.as_ref().is_some_and(|transaction| transaction.is_utf8);
        let Ok((orcpt, parameters)) = written::orcpt(parameters, is_utf8, ORCPT_MAX) else {
            return self.error(501, (5, 5, 4), "ORCPT cannot be read");
        };
        let asked = match written::rcpt_parameters(&parameters) {
            Ok(asked) => asked,
            Err(error) => return self.bad_parameter(&error),
        };
        let notify = match written::notify(&asked) {
            Ok(notify) => notify,
            Err(why) => return self.error(501, (5, 5, 4), why),
        };
        if path.starts_with('@') {
            return self.refuse(&Reply::new(550, (5, 7, 1), "no source route is followed here"));
        }
        // The one name that needs no domain (RFC 5321 §4.5.1).
        let path = if path.eq_ignore_ascii_case("postmaster") {
            Cow::Owned(format!("{path}@{}", mail.domain))
        } else {
            Cow::Borrowed(path)
        };
        let typed = match Address::parse(&path) {
            Ok(address) => address,
            Err(why) => return self.refuse(&Reply::new(501, (5, 1, 3), format!("the recipient is no address: {why}"))),
        };
        let Some(transaction) = &mut self.transaction else { return None };
        if !typed.is_ascii() && !transaction.is_utf8 {
            return self.error(553, (5, 6, 7), "such an address needs SMTPUTF8");
        }
        if transaction.order.len() >= mail.recipients_max {
            return self.reply(452, (4, 5, 3), format!("one mail has at most {} recipients", mail.recipients_max));
        }
        match admit::recipient(settings, &self.peer, transaction.from.as_ref(), &typed) {
            Err(refusal) => self.refuse(&refusal),
            Ok(to) => {
                let at = transaction.recipients.iter().position(|known| known.to == to);
                transaction.order.push(at.unwrap_or(transaction.recipients.len()));
                if at.is_none() {
                    transaction.recipients.push(Rcpt { to, typed, notify, orcpt, link: None });
                }
                self.reply(250, (2, 1, 5), "go on")
            }
        }
    }

    /// An address that is not let in.
    fn refuse(&mut self, refusal: &Reply) -> Option<Step> {
        self.refused += 1;
        if self.refused >= REFUSED_MAX {
            return Some(self.end(421, (4, 7, 0), "too many addresses that are not here"));
        }
        self.answer(refusal)
    }

    fn bad_parameter(&mut self, error: &Error) -> Option<Step> {
        match error {
            Error::InvalidParameter { param } => self.error(501, (5, 5, 4), format!("{param} cannot be read")),
            Error::UnsupportedParameter { param } => self.error(555, (5, 5, 4), format!("{param} is not offered here")),
            _ => self.error(501, (5, 5, 4), "what follows the address cannot be read"),
        }
    }

    fn data(&mut self, text: &str) -> Option<Step> {
        if text.trim_end().len() != "DATA".len() {
            return self.error(501, (5, 5, 4), "DATA stands alone");
        }
        match &self.transaction {
            Some(transaction) if transaction.is_chunked => {
                self.error(503, (5, 5, 1), "it has begun with BDAT and goes on so")
            }
            Some(transaction) if !transaction.order.is_empty() => {
                self.say("354 go on, up to a line with a dot\r\n");
                self.state = State::Data(Data::new());
                None
            }
            // Who gathers commands says it without knowing that nobody was let in: no error of his.
            Some(_) => self.reply(503, (5, 5, 1), "there is no recipient"),
            None => self.without_mail(),
        }
    }

    fn without_mail(&mut self) -> Option<Step> {
        match self.mail_refused {
            true => self.reply(503, (5, 5, 1), "MAIL comes first, and was refused"),
            false => self.error(503, (5, 5, 1), "MAIL comes first"),
        }
    }

    fn bdat(&mut self, mail: &Mail, octets: u64, is_last: bool) -> Option<Step> {
        let refusal = match &mut self.transaction {
            None => Some(Reply::new(503, (5, 5, 1), "MAIL comes first")),
            Some(transaction) if transaction.order.is_empty() => {
                Some(Reply::new(503, (5, 5, 1), "there is no recipient"))
            }
            Some(transaction) => {
                transaction.is_chunked = true;
                let all = (transaction.octets.len() as u64).saturating_add(octets);
                (all > mail.size_max).then(|| Reply::new(552, (5, 3, 4), too_long(mail)))
            }
        };
        if let Some(refusal) = &refusal
            && octets > mail.size_max.saturating_mul(DISCARD_TIMES)
        {
            return Some(self.end(refusal.code, refusal.status, &refusal.text));
        }
        self.state = State::Chunk(Chunk { octets, left: octets, is_last, refusal });
        None
    }

    /// `BDAT 0` has ended with its line.
    fn has_empty_chunk(&self) -> bool {
        matches!(&self.state, State::Chunk(chunk) if chunk.left == 0)
    }

    fn chunk_ended(&mut self) -> Option<Step> {
        let State::Chunk(chunk) = std::mem::replace(&mut self.state, State::Command) else { return None };
        match chunk.refusal {
            Some(refusal) if refusal.code == 503 => match self.transaction {
                None if !self.mail_refused => self.error(refusal.code, refusal.status, refusal.text),
                _ => self.answer(&refusal),
            },
            Some(refusal) if chunk.is_last => self.taken(Some(refusal)),
            Some(refusal) => {
                self.transaction = None;
                self.mail_refused = true;
                self.answer(&refusal)
            }
            // A CR or LF alone does no harm here: the end is counted, not looked for.
            None if chunk.is_last => self.taken(None),
            None => self.reply(250, (2, 0, 0), format!("{} octets", chunk.octets)),
        }
    }

    /// All of it has come.
    fn taken(&mut self, refusal: Option<Reply>) -> Option<Step> {
        let Some(transaction) = self.transaction.take() else {
            self.state = State::Command;
            return None;
        };
        let Transaction { from, envid, recipients, order, octets, .. } = transaction;
        self.state = State::Answering(match self.protocol {
            Protocol::Smtp => vec![0],
            Protocol::Lmtp => order,
        });
        if let Some(refusal) = refusal {
            self.answered(&[refusal]);
            return None;
        }
        let each_answered = self.protocol == Protocol::Lmtp;
        Some(Step::Mail(Box::new(Taken { from, peer: self.peer.clone(), recipients, envid, each_answered, octets })))
    }
}

fn no_room() -> Reply {
    Reply::new(452, (4, 3, 1), "too much mail comes in at this moment: come again")
}

fn too_long(mail: &Mail) -> String {
    format!("a mail has at most {} octets here", mail.size_max)
}

/// Compares with every user, in the same time whoever it is.
fn knows(users: &[MailUser], name: &str, password: &str) -> bool {
    let digest = |name: &str, password: &str| {
        let mut digest = Sha256::new();
        digest.update((name.len() as u64).to_be_bytes());
        digest.update(name);
        digest.update(password);
        digest.finalize()
    };
    let given = digest(name, password);
    let known = users.iter().map(|user| digest(&user.name, &user.password.0).as_slice().ct_eq(given.as_slice()));
    known.fold(Choice::from(0), |any, same| any | same).into()
}
