//! One connection to a server of mail, from its greeting on.
//!
//! Knows: the dialogue of SMTP (RFC 5321) and which commands a server's offers allow: STARTTLS, AUTH, SIZE, 8BITMIME, SMTPUTF8, DSN.
//! Does not know: which server, when to try again, what an answer means for the queues.
//! Limits: every step has an end; an answer is [`ANSWER_BYTES_MAX`] at most. lettre writes the commands; the dialogue is held here, because
//! its connection reads lines of any length, and what was sent in plain before TLS it would take for what came after.

use std::fmt;
use std::io;
use std::net::SocketAddr;
use std::ops::RangeInclusive;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use lettre::Address;
use lettre::transport::smtp::authentication::{Credentials, Mechanism};
use lettre::transport::smtp::commands::{Auth, Data, Ehlo, Mail, Quit, Rcpt, Rset, Starttls};
use lettre::transport::smtp::extension::{ClientId, MailBodyParameter, MailParameter, RcptParameter};
use rustls::ClientConfig;
use rustls::pki_types::ServerName;
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _, ReadBuf};
use tokio::net::TcpStream;
use tokio::time::{Instant, timeout_at};
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use super::{Journal, Until};
use crate::config::{Password, mailing::RelayTls};
use crate::mail::{MailOut, Notify};
use crate::shell::dress::{Dressed, to_xtext};

const ANSWER_BYTES_MAX: usize = 64 * 1024;
/// Of what a server says so much is told on.
const SAID_CHARS_MAX: usize = 500;
const CONNECTING_MAX: Duration = Duration::from_secs(30);
/// Those who make strangers wait make them wait for the greeting.
const GREETING_MAX: Duration = Duration::from_secs(120);
/// RFC 5321 §4.5.3.2 has five minutes for MAIL and RCPT, two for DATA, three for a block, and ten at the end, for which the attempt has no more.
const COMMAND_MAX: Duration = Duration::from_secs(300);
/// RFC 3461 §4.4.
const ENVID_BYTES_MAX: usize = 100;
const GOODBYE_MAX: Duration = Duration::from_secs(5);
/// Octets of a mail in one piece: each has its time.
const BLOCK_BYTES: usize = 64 * 1024;

/// By its first digit a code is known that nobody knows (RFC 5321 §4.3.2).
const YES: RangeInclusive<u16> = 200..=299;
/// Who refuses a mail in the middle of it says so at once.
const REFUSAL_MAX: Duration = Duration::from_secs(1);

/// Whom to reach, and on which terms.
pub(super) struct Terms<'a> {
    /// As its certificate has it, and as it is named to people.
    pub host: &'a str,
    pub address: SocketAddr,
    /// What we call ourselves.
    pub hello: &'a str,
    pub tls: RelayTls,
    pub tls_config: Option<Arc<ClientConfig>>,
    pub login: Option<(&'a str, &'a Password)>,
}

/// No connection, or none that mail may go over.
pub(super) enum Unopened {
    /// TLS was offered and did not come about: who may do without can try again without.
    Tls(String),
    Other(String),
}

/// What became of one mail on a connection.
pub(super) enum Handed {
    Taken {
        code: u16,
        said: String,
        will_tell: bool,
    },
    /// 4xx or 5xx to this mail.
    Refused {
        code: u16,
        why: String,
    },
    /// 421, or a word that means that nothing more can be said on this line; nobody has the mail.
    Gone {
        code: u16,
        why: String,
    },
    /// The line broke before the end of the mail was sent.
    Broken(String),
    /// It broke when all had been sent.
    Lost(String),
    /// This server cannot take such a mail.
    Cannot(String),
}

/// One answer: its code, and its lines without it.
#[derive(Debug)]
struct Answer {
    code: u16,
    lines: Vec<String>,
}

/// What EHLO was answered.
#[derive(Default)]
struct Offers {
    starttls: bool,
    utf8: bool,
    eight_bit: bool,
    dsn: bool,
    /// `Some(0)`: it knows SIZE and has no fixed one.
    size: Option<u64>,
    plain: bool,
    login: bool,
}

pub(super) struct Line {
    stream: Stream,
    /// What has come and was not read yet.
    buffer: Vec<u8>,
    offers: Offers,
    journal: Journal,
    /// Its host, for people.
    pub by: String,
    pub mails: u32,
    /// Nothing can be said on it any more.
    pub is_broken: bool,
}

impl Line {
    /// Connects, greets, and does what the terms ask for.
    pub async fn open(terms: &Terms<'_>, until: Instant, journal: Journal) -> Result<Line, Unopened> {
        let other = Unopened::Other;
        let Terms { host, address, .. } = terms;
        let connecting = timeout_at(until.min(Instant::now() + CONNECTING_MAX), TcpStream::connect(address));
        let stream = match connecting.await {
            Ok(Ok(stream)) => stream,
            Ok(Err(error)) => return Err(other(format!("{host} ({address}): {}", words(&error)))),
            Err(_) => return Err(other(format!("{host} ({address}): no connection in time"))),
        };
        // An answer of ours is a line, and Nagle would keep it back for the answer to the one before.
        let _ = stream.set_nodelay(true);
        journal.tell("connection", || format!("connected to {host} ({address})"));
        let mut line = Line {
            stream: Stream::Plain(stream),
            buffer: Vec::new(),
            offers: Offers::default(),
            journal,
            by: (*host).to_owned(),
            mails: 0,
            is_broken: false,
        };
        if terms.tls == RelayTls::FromStart {
            line.secure(terms, until).await?;
        }
        let named = |why: String| Unopened::Other(format!("{host}: {why}"));
        let greeting = line.answer(until.min(Instant::now() + GREETING_MAX)).await.map_err(named)?;
        line.journal.tell("greeting", || greeting.shown());
        if greeting.code != 220 {
            return Err(named(format!("it greets with {}", greeting.shown())));
        }
        line.hello(terms, until).await.map_err(named)?;
        match terms.tls {
            RelayTls::FromStart | RelayTls::Never => (),
            RelayTls::Required if !line.offers.starttls => return Err(named("it offers no STARTTLS".into())),
            RelayTls::IfOffered if !line.offers.starttls => {
                line.journal.tell("tls", || "not offered: the mail goes in plain".into());
            }
            RelayTls::Required | RelayTls::IfOffered => {
                let answer = line.say(&Starttls.to_string(), until).await.map_err(named)?;
                if answer.code != 220 {
                    let why = format!("{host}: to STARTTLS it says {}", answer.shown());
                    return Err(if answer.code == 421 { other(why) } else { Unopened::Tls(why) });
                }
                // What came in plain behind that answer was put there by somebody in between.
                if !line.buffer.is_empty() {
                    return Err(named("it said more in plain than its answer to STARTTLS".into()));
                }
                line.secure(terms, until).await?;
                line.hello(terms, until).await.map_err(named)?;
            }
        }
        if let Some((name, password)) = terms.login {
            line.log_in(name, password, until).await.map_err(named)?;
        }
        Ok(line)
    }

    async fn hello(&mut self, terms: &Terms<'_>, until: Instant) -> Result<(), String> {
        let id = ClientId::Domain(terms.hello.to_owned());
        let mut answer = self.say(&Ehlo::new(id).to_string(), until).await?;
        // A server older than ESMTP (RFC 5321 §4.1.4).
        if (500..=504).contains(&answer.code) {
            answer = self.say(&format!("HELO {}\r\n", terms.hello), until).await?;
            answer.lines.truncate(1);
        }
        if answer.code != 250 {
            return Err(format!("to EHLO it says {}", answer.shown()));
        }
        self.offers = Offers::of(&answer.lines);
        self.journal.tell("hello", || {
            let offers: Vec<String> = answer.lines.iter().skip(1).map(|line| clean(line)).collect();
            format!("it offers {}", if offers.is_empty() { "nothing".into() } else { offers.join(", ") })
        });
        Ok(())
    }

    async fn secure(&mut self, terms: &Terms<'_>, until: Instant) -> Result<(), Unopened> {
        let host = terms.host;
        let tls = |why: String| Unopened::Tls(format!("{host}: {why}"));
        let config = terms.tls_config.clone().ok_or_else(|| tls("no TLS is set up".into()))?;
        let bare = host.trim_start_matches('[').trim_end_matches(']');
        let name = ServerName::try_from(bare.to_owned()).map_err(|_| tls("a name that no certificate has".into()))?;
        let Stream::Plain(stream) = std::mem::replace(&mut self.stream, Stream::None) else {
            return Err(tls("TLS inside TLS".into()));
        };
        let connecting = TlsConnector::from(config).connect(name.clone(), stream);
        let stream = match timeout_at(until.min(Instant::now() + CONNECTING_MAX), connecting).await {
            Ok(Ok(stream)) => stream,
            Ok(Err(error)) => return Err(tls(format!("no TLS with it: {}", words(&error)))),
            Err(_) => return Err(tls("no TLS with it in time".into())),
        };
        self.journal.tell("tls", || {
            let connection = stream.get_ref().1;
            let version = connection.protocol_version().and_then(|version| version.as_str().map(str::to_owned));
            let checked = match terms.tls {
                RelayTls::FromStart | RelayTls::Required => "its certificate is good".into(),
                RelayTls::IfOffered | RelayTls::Never => match super::judge(connection.peer_certificates(), &name) {
                    Ok(()) => "its certificate is good, though none was asked for".into(),
                    Err(why) => format!("its certificate would not be believed ({why}), and need not be here"),
                },
            };
            format!("{}, {checked}", version.unwrap_or_default().replace('_', "."))
        });
        self.stream = Stream::Tls(Box::new(stream));
        Ok(())
    }

    async fn log_in(&mut self, name: &str, password: &Password, until: Instant) -> Result<(), String> {
        let failed = |error| format!("no login can be written: {error}");
        let credentials = Credentials::new(name.to_owned(), password.0.clone());
        let mut answer;
        if self.offers.plain {
            let auth = Auth::new(Mechanism::Plain, credentials, None).map_err(failed)?;
            answer = self.say(&auth.to_string(), until).await?;
        } else if self.offers.login {
            let auth = Auth::new(Mechanism::Login, credentials.clone(), None).map_err(failed)?;
            answer = self.say(&auth.to_string(), until).await?;
            // It asks for the name and for the password, in this order, whatever words it has for it.
            for challenge in ["Username:", "Password:"] {
                if answer.code == 334 {
                    let auth = Auth::new(Mechanism::Login, credentials.clone(), Some(challenge.into()));
                    answer = self.say(&auth.map_err(failed)?.to_string(), until).await?;
                }
            }
        } else {
            return Err("it offers neither AUTH PLAIN nor AUTH LOGIN".into());
        }
        self.journal.tell("login", || format!("as {name}: {}", answer.shown()));
        if answer.code == 235 { Ok(()) } else { Err(format!("the login is refused: {}", answer.shown())) }
    }

    /// Hands one mail over; afterwards the next one may be, unless [`Line::is_broken`].
    pub async fn hand(&mut self, mail: &MailOut, dressed: &Dressed, until: Until) -> Handed {
        if let Some(size) = self.offers.size
            && size > 0
            && (dressed.octets.len() as u64) > size
        {
            let why =
                format!("5.3.4 {} takes no mail above {size} octets; this one has {}", self.by, dressed.octets.len());
            return Handed::Cannot(why);
        }
        if dressed.needs_utf8 && !self.offers.utf8 {
            return Handed::Cannot(format!("5.6.7 {} takes no address in UTF-8 (it offers no SMTPUTF8)", self.by));
        }
        match self.said_envelope(mail, dressed, until.sent).await {
            Ok(None) => (),
            Ok(Some(handed)) => return self.after_refusal(handed).await,
            Err(why) => {
                self.is_broken = true;
                return Handed::Broken(format!("{}: {why}", self.by));
            }
        }
        let handed = self.said_mail(mail, dressed, until).await;
        self.is_broken |= matches!(handed, Handed::Gone { .. } | Handed::Broken(_) | Handed::Lost(_));
        self.mails += 1;
        handed
    }

    /// MAIL, RCPT, DATA: `Some` where one of them is refused.
    async fn said_envelope(
        &mut self,
        mail: &MailOut,
        dressed: &Dressed,
        until: Instant,
    ) -> Result<Option<Handed>, String> {
        let other = |keyword: &str, value: &str| (keyword.to_owned(), Some(value.to_owned()));
        let mut terms = Vec::new();
        if self.offers.size.is_some() {
            terms.push(MailParameter::Size(dressed.octets.len()));
        }
        if dressed.needs_utf8 {
            if self.offers.eight_bit {
                terms.push(MailParameter::Body(MailBodyParameter::EightBitMime));
            }
            terms.push(MailParameter::SmtpUtfEight);
        }
        if self.offers.dsn {
            let (keyword, value) = other("RET", "HDRS");
            terms.push(MailParameter::Other { keyword, value });
            if let Some(envid) = envid(mail) {
                // In xtext; a `+` would be encoded twice, so this is written by hand.
                terms.push(MailParameter::Other { keyword: format!("ENVID={envid}"), value: None });
            }
        }
        let from = address(&dressed.from);
        let answer = self.say(&Mail::new(from, terms).to_string(), until).await?;
        self.journal.tell("sender", || format!("MAIL FROM:<{}>: {}", dressed.from, answer.shown()));
        if let Some(handed) = refused(&answer, YES) {
            return Ok(Some(handed));
        }
        let mut terms = Vec::new();
        if self.offers.dsn {
            terms.push(RcptParameter::Other { keyword: format!("NOTIFY={}", notify(mail)), value: None });
            if mail.to.is_ascii() {
                let keyword = format!("ORCPT=rfc822;{}", to_xtext(mail.to.as_str()));
                terms.push(RcptParameter::Other { keyword, value: None });
            }
        }
        let Some(to) = address(&dressed.to) else {
            return Ok(Some(Handed::Cannot("5.1.3 there is no recipient".into())));
        };
        let answer = self.say(&Rcpt::new(to, terms).to_string(), until).await?;
        self.journal.tell("recipient", || format!("RCPT TO:<{}>: {}", dressed.to, answer.shown()));
        // 251: it is not here, and they will pass it on; 252: they will try.
        if let Some(handed) = refused(&answer, YES) {
            return Ok(Some(handed));
        }
        let answer = self.say(&Data.to_string(), until).await?;
        Ok(refused(&answer, 354..=354))
    }

    /// The mail itself, and what is said to it.
    async fn said_mail(&mut self, mail: &MailOut, dressed: &Dressed, until: Until) -> Handed {
        let by = self.by.clone();
        if let Err(why) = self.write_or_hear(&stuffed(&dressed.octets), until.sent).await {
            return self.refused_midway().await.unwrap_or(Handed::Broken(format!("{by}: {why}")));
        }
        if Instant::now() >= until.sent {
            return Handed::Broken(format!("{by}: too little time is left for its answer"));
        }
        // With its first octet on the way they may have it.
        if let Err(why) = self.write(b".\r\n", until.answered).await {
            return self.refused_midway().await.unwrap_or(Handed::Lost(format!("{by}: {why}")));
        }
        let answer = match self.answer(until.answered).await {
            Ok(answer) => answer,
            Err(why) => return Handed::Lost(format!("{by}: {why}")),
        };
        self.journal.tell("mail", || format!("{} octets: {}", dressed.octets.len(), answer.shown()));
        match answer.code {
            200..=299 => Handed::Taken {
                code: answer.code,
                said: answer.said(),
                will_tell: self.offers.dsn && mail.notify.success && mail.from.is_some(),
            },
            400..=599 => refused(&answer, YES).unwrap_or(Handed::Lost(by)),
            _ => Handed::Lost(format!("{by}: {}", answer.shown())),
        }
    }

    /// Writes until something is said: nobody has to say anything before the end of a mail.
    async fn write_or_hear(&mut self, octets: &[u8], until: Instant) -> Result<(), String> {
        const TOO_EARLY: &str = "it speaks before the end of the mail";
        if !self.buffer.is_empty() {
            return Err(TOO_EARLY.into());
        }
        let (mut reader, mut writer) = tokio::io::split(&mut self.stream);
        let writing = async {
            for block in octets.chunks(BLOCK_BYTES) {
                let writing = async {
                    writer.write_all(block).await?;
                    writer.flush().await
                };
                match timeout_at(until.min(Instant::now() + COMMAND_MAX), writing).await {
                    Ok(Ok(())) => (),
                    Ok(Err(error)) => return Err(words(&error)),
                    Err(_) => return Err("it takes nothing more in time".into()),
                }
            }
            Ok(())
        };
        tokio::select! {
            biased;
            heard = reader.read_buf(&mut self.buffer) => match heard {
                Ok(0) => Err("it has closed the connection".into()),
                Ok(_) => Err(TOO_EARLY.into()),
                Err(error) => Err(words(&error)),
            },
            written = writing => written,
        }
    }

    /// What a server that reads no further has said of the mail, if it has said anything.
    async fn refused_midway(&mut self) -> Option<Handed> {
        self.is_broken = true;
        let answer = self.answer(Instant::now() + REFUSAL_MAX).await.ok()?;
        self.journal.tell("mail", || format!("before its end: {}", answer.shown()));
        (answer.code >= 400).then(|| refused(&answer, YES)).flatten()
    }

    /// The server forgets the envelope, so that the next mail may come.
    async fn after_refusal(&mut self, handed: Handed) -> Handed {
        if matches!(handed, Handed::Gone { .. }) {
            self.is_broken = true;
        } else {
            let reset = self.say(&Rset.to_string(), Instant::now() + GOODBYE_MAX).await;
            self.is_broken |= !matches!(reset, Ok(answer) if answer.code == 250);
        }
        handed
    }

    /// Says goodbye, and does not wait for what is said to it.
    pub async fn close(mut self) {
        if !self.is_broken {
            let _ = self.write(Quit.to_string().as_bytes(), Instant::now() + GOODBYE_MAX).await;
        }
        let _ = timeout_at(Instant::now() + GOODBYE_MAX, self.stream.shutdown()).await;
    }

    async fn say(&mut self, command: &str, until: Instant) -> Result<Answer, String> {
        let until = until.min(Instant::now() + COMMAND_MAX);
        self.write(command.as_bytes(), until).await?;
        self.answer(until).await
    }

    async fn write(&mut self, octets: &[u8], until: Instant) -> Result<(), String> {
        let writing = async {
            self.stream.write_all(octets).await?;
            self.stream.flush().await
        };
        match timeout_at(until.min(Instant::now() + COMMAND_MAX), writing).await {
            Ok(Ok(())) => Ok(()),
            Ok(Err(error)) => Err(words(&error)),
            Err(_) => Err("it takes nothing more in time".into()),
        }
    }

    async fn answer(&mut self, until: Instant) -> Result<Answer, String> {
        match timeout_at(until, self.read_answer()).await {
            Ok(answer) => answer,
            Err(_) => Err("no answer in time".into()),
        }
    }

    async fn read_answer(&mut self) -> Result<Answer, String> {
        let mut lines = Vec::new();
        let mut count = 0;
        loop {
            let Some(end) = self.buffer.iter().position(|byte| *byte == b'\n') else {
                if count + self.buffer.len() > ANSWER_BYTES_MAX {
                    return Err("its answer is too long".into());
                }
                match self.stream.read_buf(&mut self.buffer).await {
                    Ok(0) => return Err("it has closed the connection".into()),
                    Ok(_) => continue,
                    Err(error) => return Err(words(&error)),
                }
            };
            count += end + 1;
            let line: Vec<u8> = self.buffer.drain(..=end).collect();
            let line = String::from_utf8_lossy(&line);
            let line = line.trim_end_matches(['\r', '\n']);
            let code = line.get(..3).filter(|code| code.bytes().all(|byte| byte.is_ascii_digit()));
            let code = code.and_then(|code| code.parse::<u16>().ok()).filter(|code| (200..600).contains(code));
            let more = line.get(3..4).unwrap_or(" ");
            let (Some(code), true) = (code, [" ", "-"].contains(&more)) else {
                return Err(format!("what it says is no SMTP: {}", clean(line)));
            };
            lines.push(line.get(4..).unwrap_or_default().to_owned());
            if more == " " {
                return Ok(Answer { code, lines });
            }
            if count > ANSWER_BYTES_MAX {
                return Err("its answer is too long".into());
            }
        }
    }
}

impl Answer {
    /// In one line, without its code.
    fn said(&self) -> String {
        clean(&self.lines.join(" "))
    }

    fn shown(&self) -> String {
        format!("{} {}", self.code, self.said()).trim_end().to_owned()
    }
}

impl Offers {
    fn of(lines: &[String]) -> Offers {
        let mut offers = Offers::default();
        for line in lines.iter().skip(1) {
            let line = line.to_ascii_uppercase();
            let mut words = line.split_whitespace();
            match words.next() {
                Some("STARTTLS") => offers.starttls = true,
                Some("SMTPUTF8") => offers.utf8 = true,
                Some("8BITMIME") => offers.eight_bit = true,
                Some("DSN") => offers.dsn = true,
                Some("SIZE") => offers.size = Some(words.next().and_then(|size| size.parse().ok()).unwrap_or(0)),
                Some("AUTH") => words.for_each(|word| match word {
                    "PLAIN" => offers.plain = true,
                    "LOGIN" => offers.login = true,
                    _ => (),
                }),
                _ => (),
            }
        }
        offers
    }
}

/// What an answer that is not the expected one means for the mail.
fn refused(answer: &Answer, expected: RangeInclusive<u16>) -> Option<Handed> {
    match answer.code {
        code if expected.contains(&code) => None,
        // 421: it closes. 530, 534, 535, 538: it wants a login or TLS of us (RFC 4954 §6).
        code @ (421 | 530 | 534 | 535 | 538) => Some(Handed::Gone { code, why: answer.said() }),
        code @ 400..=599 => Some(Handed::Refused { code, why: answer.said() }),
        _ => Some(Handed::Gone { code: 0, why: format!("an answer that none expects: {}", answer.shown()) }),
    }
}

/// Of an address that is one already: lettre is stricter than the standard in some of them.
fn address(text: &str) -> Option<Address> {
    text.rsplit_once('@').map(|(local, domain)| Address::new_dangerous(local, domain))
}

/// In xtext. Of our own Message-ID what stands before the domain is enough where all is too long: a report brings it back
/// to us. What somebody else gave us he would not know again.
fn envid(mail: &MailOut) -> Option<String> {
    let envid = mail.envid.as_deref()?;
    let whole = to_xtext(envid);
    if whole.len() <= ENVID_BYTES_MAX {
        return Some(whole);
    }
    let (local, _) = envid.split_once('@').filter(|_| envid == mail.message_id)?;
    Some(to_xtext(local)).filter(|local| local.len() <= ENVID_BYTES_MAX)
}

fn notify(mail: &MailOut) -> String {
    let Notify { success, failure, delay } = mail.notify;
    let wishes = [(success, "SUCCESS"), (failure, "FAILURE"), (delay, "DELAY")];
    let wishes: Vec<&str> = wishes.into_iter().filter(|(wished, _)| *wished).map(|(_, word)| word).collect();
    if wishes.is_empty() { "NEVER".into() } else { wishes.join(",") }
}

/// A dot at the start of a line is doubled (RFC 5321 §4.5.2).
fn stuffed(octets: &[u8]) -> Vec<u8> {
    let mut stuffed = Vec::with_capacity(octets.len() + 16);
    for line in octets.split_inclusive(|byte| *byte == b'\n') {
        if line.starts_with(b".") {
            stuffed.push(b'.');
        }
        stuffed.extend_from_slice(line);
    }
    stuffed
}

/// One line that may be shown: of what a server says nothing moves a cursor.
fn clean(text: &str) -> String {
    text.chars().take(SAID_CHARS_MAX).map(|char| if char.is_control() { ' ' } else { char }).collect()
}

fn words(error: &io::Error) -> String {
    match error.kind() {
        io::ErrorKind::ConnectionRefused => "nobody listens there".into(),
        io::ErrorKind::ConnectionReset | io::ErrorKind::BrokenPipe | io::ErrorKind::UnexpectedEof => {
            "it has closed the connection".into()
        }
        _ => clean(&error.to_string()),
    }
}

enum Stream {
    Plain(TcpStream),
    Tls(Box<TlsStream<TcpStream>>),
    /// Between the two.
    None,
}

impl fmt::Debug for Stream {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Stream")
    }
}

impl AsyncRead for Stream {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        match &mut *self {
            Stream::Plain(stream) => Pin::new(stream).poll_read(cx, buf),
            Stream::Tls(stream) => Pin::new(stream).poll_read(cx, buf),
            Stream::None => Poll::Ready(Err(io::ErrorKind::NotConnected.into())),
        }
    }
}

impl AsyncWrite for Stream {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        match &mut *self {
            Stream::Plain(stream) => Pin::new(stream).poll_write(cx, buf),
            Stream::Tls(stream) => Pin::new(stream).poll_write(cx, buf),
            Stream::None => Poll::Ready(Err(io::ErrorKind::NotConnected.into())),
        }
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match &mut *self {
            Stream::Plain(stream) => Pin::new(stream).poll_flush(cx),
            Stream::Tls(stream) => Pin::new(stream).poll_flush(cx),
            Stream::None => Poll::Ready(Ok(())),
        }
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match &mut *self {
            Stream::Plain(stream) => Pin::new(stream).poll_shutdown(cx),
            Stream::Tls(stream) => Pin::new(stream).poll_shutdown(cx),
            Stream::None => Poll::Ready(Ok(())),
        }
    }
}
