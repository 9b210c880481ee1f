//! Mail that comes in: listeners, connections, TLS, time.
//!
//! Knows: sockets, certificates, how long anybody may take, how many may speak at a time. Does not know: what is said
//! ([`crate::mail::session`]), who may ([`crate::mail::admit`]), what a mail says ([`crate::mail::receive`]), what becomes of it (the node).
//! A session is a task; it feeds what it reads to a [`Session`] and writes what that gives. The octets of a mail are its own until they
//! are read, and are on no disk; what the node says of it comes through [`Door::mail`], a yes once all of it is kept.
//! All sessions together hold [`held_max`] octets of mails, beside small ones; a large mail is read on a thread that may take its time, so
//! many at a time as [`READERS`].
//! Limits: `[mail]`: `sessions_max`, `sessions_per_address_max`, `command_timeout`, `session_max`, and those of the session; the constants here.

use std::collections::HashMap;
use std::net::{IpAddr, Ipv6Addr, SocketAddr};
use std::os::unix::ffi::OsStrExt as _;
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use rustls::ServerConfig;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio::time::timeout;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;

use super::control::now_ms;
use super::node::Door;
use super::pictures::{NotKept, Page, Pictures};
use crate::config::Settings;
use crate::config::mailing::{Mail, MailProtocol};
use crate::mail::address::Address;
use crate::mail::receive::{self, Received};
use crate::mail::session::{self, Protocol, Session, Step, Taken};
use crate::mail::{File, MailIn, RcptTo, Reply, admit};

/// Read at once.
const READ_BYTES: usize = 16 * 1024;
/// Who is in the middle of a mail or of a command brings so many octets a minute, or loses its place to somebody who does.
const OCTETS_PER_MINUTE_MIN: u64 = 1_000;
const MINUTE: Duration = Duration::from_secs(60);
/// From the last octet of a mail to its answer: a client waits for ten minutes (RFC 5321 §4.5.3.2.6).
const ANSWER_MAX: Duration = Duration::from_secs(5 * 60);
const HANDSHAKE_MAX: Duration = Duration::from_secs(30);
/// A session that we end is read for so long, and so much of it, that the other side sees our last word before the reset.
const LINGER: Duration = Duration::from_secs(2);
const LINGER_OCTETS_MAX: usize = 1024 * 1024;
/// The free room on the disk is looked up this often.
const ROOM_CHECK: Duration = Duration::from_secs(1);
/// Out of file descriptors, most likely: those in use end by themselves.
const AFTER_FAULT: Duration = Duration::from_millis(100);
/// Octets of mails that are on their way in: this, or less where mails are small, but some of the largest.
const HELD_OCTETS_MAX: u64 = 64 * 1024 * 1024;
const HELD_MAILS_MAX: u64 = 64;
const HELD_MAILS_MIN: u64 = 4;
/// A mail above this is not read between two other things: HTML of a megabyte takes some ten milliseconds.
const READ_INLINE_OCTETS_MAX: usize = 64 * 1024;
/// So many of them are read at a time.
const READERS: usize = 2;
/// Whom nobody has listed begins his first mail before that.
const FIRST_MAIL_MAX: Duration = Duration::from_secs(5 * 60);
/// Wrong passwords of one address in a minute; then nobody logs in from there until it is over.
const WRONG_PASSWORDS_MAX: u64 = 10;
/// Of so many addresses it is known; of more, those whose minute is over are forgotten first.
const WRONG_ADDRESSES_MAX: usize = 10_000;

/// What happened on the listeners; told by `status`.
#[derive(Default)]
pub struct Tally {
    sessions: AtomicU64,
    /// There was no place for them.
    sessions_refused: AtomicU64,
    /// Ended by us: too slow, too long, too many errors.
    sessions_broken: AtomicU64,
    tls: AtomicU64,
    tls_failed: AtomicU64,
    logins: AtomicU64,
    logins_wrong: AtomicU64,
    accepted: AtomicU64,
    deferred: AtomicU64,
    refused: [AtomicU64; session::CLASSES],
}

impl Tally {
    pub fn counts(&self) -> Vec<(&'static str, u64)> {
        let names = [
            "mail_refused_address",
            "mail_refused_barred",
            "mail_refused_size",
            "mail_refused_loop",
            "mail_refused_protocol",
            "mail_refused_content",
            "mail_refused_policy",
        ];
        let refused = names.into_iter().zip(&self.refused);
        let own = [
            ("mail_sessions", &self.sessions),
            ("mail_sessions_refused", &self.sessions_refused),
            ("mail_sessions_broken", &self.sessions_broken),
            ("mail_tls", &self.tls),
            ("mail_tls_failed", &self.tls_failed),
            ("mail_logins", &self.logins),
            ("mail_logins_wrong", &self.logins_wrong),
            ("mail_accepted", &self.accepted),
            ("mail_deferred", &self.deferred),
        ];
        own.into_iter().chain(refused).map(|(name, count)| (name, count.load(Relaxed))).collect()
    }

    fn add(&self, counts: session::Counts) {
        let all = [
            (&self.accepted, counts.accepted),
            (&self.deferred, counts.deferred),
            (&self.logins, counts.logins),
            (&self.logins_wrong, counts.logins_wrong),
        ];
        for (count, more) in all.into_iter().chain(self.refused.iter().zip(counts.refused)) {
            // Most often there is nothing to add, and a shared line of memory stays where it is.
            if more != 0 {
                count.fetch_add(more, Relaxed);
            }
        }
    }
}

/// Every listener of `[mail] listen`.
pub async fn bind(settings: &Settings) -> Result<Vec<(MailProtocol, TcpListener)>, String> {
    let mut listeners = Vec::new();
    for listener in settings.mail.iter().flat_map(|mail| &mail.listen) {
        let address = listener.address;
        let bound = TcpListener::bind(address).await.map_err(|error| {
            let hint = match error.kind() {
                std::io::ErrorKind::AddrInUse => ": another mail server has this port; `ss -ltnp` shows which",
                _ => "",
            };
            format!("cannot listen on tcp:{address} for mail: {error}{hint}")
        })?;
        listeners.push((listener.protocol, bound));
    }
    Ok(listeners)
}

/// What all sessions share.
pub struct Reception {
    door: Door,
    /// The settings in force.
    current: Box<dyn Fn() -> Arc<Settings> + Send + Sync>,
    /// Where files of mails go; `None`: they are only named.
    pictures: Option<Arc<Pictures>>,
    tally: Arc<Tally>,
    places: Mutex<Places>,
    certificate: Mutex<Certificate>,
    room: Room,
    /// Octets of mails that are on their way in.
    held: AtomicU64,
    readers: Semaphore,
    wrong: Mutex<Wrong>,
}

#[derive(Default)]
struct Places {
    count: usize,
    /// Those of whom nobody is listed.
    strangers: usize,
    by_address: HashMap<IpAddr, usize>,
}

/// Wrong passwords, since when and how many.
#[derive(Default)]
struct Wrong(HashMap<IpAddr, (Instant, u64)>);

/// The certificate, and for which settings it was read.
#[derive(Default)]
struct Certificate {
    read_for: Option<Arc<Settings>>,
    config: Option<Arc<ServerConfig>>,
}

/// Whether the disk takes more.
struct Room {
    since: Instant,
    checked_ms: AtomicU64,
    is_full: AtomicBool,
}

impl Reception {
    /// Reads the certificate; without a good one nothing is encrypted, and that is told.
    pub fn new(
        door: Door,
        tally: Arc<Tally>,
        pictures: Option<Arc<Pictures>>,
        current: impl Fn() -> Arc<Settings> + Send + Sync + 'static,
    ) -> Arc<Reception> {
        let reception = Arc::new(Reception {
            door,
            current: Box::new(current),
            pictures,
            tally,
            places: Mutex::default(),
            certificate: Mutex::default(),
            room: Room { since: Instant::now(), checked_ms: AtomicU64::new(0), is_full: AtomicBool::new(false) },
            held: AtomicU64::new(0),
            readers: Semaphore::new(READERS),
            wrong: Mutex::default(),
        });
        let settings = (reception.current)();
        reception.tls(&settings);
        reception
    }

    /// Accepts until the runtime ends.
    pub async fn serve(self: Arc<Reception>, protocol: MailProtocol, listener: TcpListener) {
        let mut told: Option<Instant> = None;
        loop {
            match listener.accept().await {
                Ok((stream, from)) => self.accepted(protocol, stream, from),
                Err(error) => {
                    if told.is_none_or(|told| told.elapsed() >= MINUTE) {
                        told = Some(Instant::now());
                        tracing::warn!("cannot accept a connection for mail: {error}");
                    }
                    tokio::time::sleep(AFTER_FAULT).await;
                }
            }
        }
    }

    fn accepted(self: &Arc<Reception>, protocol: MailProtocol, stream: TcpStream, from: SocketAddr) {
        let settings = (self.current)();
        let Some(mail) = &settings.mail else { return };
        let Some(place) = Place::take(self, mail, from.ip().to_canonical()) else {
            self.tally.sessions_refused.fetch_add(1, Relaxed);
            if protocol != MailProtocol::SmtpInTls {
                // What does not fit into a fresh socket is nobody's loss.
                let _ = stream.try_write(format!("421 {} has too many sessions\r\n", mail.domain).as_bytes());
            }
            return;
        };
        self.tally.sessions.fetch_add(1, Relaxed);
        let reception = Arc::clone(self);
        tokio::spawn(async move {
            let _place = place;
            reception.session(protocol, stream, from.ip().to_canonical()).await;
        });
    }

    async fn session(&self, protocol: MailProtocol, stream: TcpStream, ip: IpAddr) {
        let settings = (self.current)();
        // Answers are small and waited for.
        let _ = stream.set_nodelay(true);
        let tls = self.tls(&settings);
        let mut session = Session::new(
            match protocol {
                MailProtocol::Smtp | MailProtocol::SmtpInTls => Protocol::Smtp,
                MailProtocol::Lmtp => Protocol::Lmtp,
            },
            ip,
            tls.is_some(),
            protocol == MailProtocol::SmtpInTls,
        );
        let mut line = Line::Plain(stream);
        if protocol == MailProtocol::SmtpInTls {
            let Some(secured) = self.secure(line, tls.as_ref(), ip).await else { return };
            line = secured;
        }
        session.greet(&settings);
        drop(settings);
        let why = self.converse(&mut session, line, tls.as_ref(), ip).await;
        self.add(session.take_counts(), ip);
        if let Broken::ByUs = why {
            self.tally.sessions_broken.fetch_add(1, Relaxed);
        }
    }

    /// Until one of the two ends it.
    async fn converse(&self, session: &mut Session, line: Line, tls: Option<&TlsAcceptor>, ip: IpAddr) -> Broken {
        let mut line = line;
        let begun = Instant::now();
        let mut pace = Pace { since: begun, octets: 0 };
        let mut held = Held { of_all: &self.held, own: 0 };
        let mut buffer = vec![0; READ_BYTES];
        let (mut from, mut to) = (0, 0);
        loop {
            let settings = (self.current)();
            session.set_full(self.room.is_full(&settings));
            session.set_short(settings.mail.as_ref().is_some_and(|mail| self.held.load(Relaxed) >= held_max(mail)));
            session.set_barred(self.wrong.lock().unwrap_or_else(PoisonError::into_inner).has_too_many(ip));
            let mut input = &buffer[from..to];
            let step = session.feed(&settings, &mut input);
            from = to - input.len();
            self.add(session.take_counts(), ip);
            if let Step::Mail(taken) = step {
                // Until it is answered for its octets are there, in one form or another.
                let replies = self.take(&settings, *taken).await;
                session.answered(&replies);
                held.follow(session.held());
                continue;
            }
            held.follow(session.held());
            if let Some(pause) = session.take_pause() {
                tokio::time::sleep(pause).await;
            }
            let Some(mail) = settings.mail.as_ref() else { return self.end(session, line, false).await };
            let is_proven = session.has_mail() || session.peer().user.is_some() || is_known(mail, ip);
            let session_max = mail.session_max;
            let idle_max = if is_proven { session_max } else { session_max.min(FIRST_MAIL_MAX) };
            let command_timeout = mail.command_timeout;
            match step {
                Step::Mail(_) => (),
                Step::Close { is_asked } => return self.end(session, line, is_asked).await,
                Step::StartTls => {
                    if !line.write(session, command_timeout).await {
                        return Broken::ByThem;
                    }
                    // What has come before the handshake is fed to nobody: the buffer is filled anew.
                    let Some(secured) = self.secure(line, tls, ip).await else { return Broken::ByThem };
                    line = secured;
                    session.secured();
                }
                Step::More => {
                    if !line.write(session, command_timeout).await {
                        return Broken::ByThem;
                    }
                }
            }
            let waited = timeout(command_timeout, line.read(&mut buffer)).await;
            let age = begun.elapsed();
            match waited {
                Ok(Ok(0) | Err(_)) => return Broken::ByThem,
                Ok(Ok(octets)) => (from, to) = (0, octets),
                Err(_) => {
                    session.give_up((4, 4, 2), "nothing came for too long");
                    return self.end(session, line, false).await;
                }
            }
            // Who is in the middle of his mail may be on a slow line.
            if age > session_max * 2 || (age > idle_max && session.is_idle()) {
                session.give_up((4, 4, 2), "the session lasts too long");
                return self.end(session, line, false).await;
            }
            if pace.is_too_slow(session.is_receiving(), to, begun + age) {
                session.give_up((4, 4, 2), "that is too slow");
                return self.end(session, line, false).await;
            }
        }
    }

    /// Says the last word, so that it is heard.
    async fn end(&self, session: &mut Session, mut line: Line, is_asked: bool) -> Broken {
        let heard = line.write(session, LINGER).await;
        if heard {
            line.shutdown().await;
        }
        if is_asked {
            return Broken::Asked;
        }
        if heard {
            // Octets that nobody has read when a socket is closed reset the connection, and our word with it.
            let _ = timeout(LINGER, line.drain()).await;
        }
        Broken::ByUs
    }

    fn add(&self, counts: session::Counts, ip: IpAddr) {
        self.tally.add(counts);
        if counts.logins_wrong > 0 {
            // Programs that bar addresses read this line.
            tracing::info!("mail: wrong password from {ip}");
            self.wrong.lock().unwrap_or_else(PoisonError::into_inner).add(ip, counts.logins_wrong);
        }
    }

    /// What a mail says. `None`: nobody can read it now.
    async fn read(&self, octets: Vec<u8>) -> Option<Received> {
        if octets.len() <= READ_INLINE_OCTETS_MAX {
            return Some(receive::read(&octets));
        }
        let _turn = self.readers.acquire().await.ok()?;
        tokio::task::spawn_blocking(move || receive::read(&octets)).await.ok()
    }

    /// What becomes of a mail.
    async fn take(&self, settings: &Settings, taken: Taken) -> Vec<Reply> {
        let Taken { from, peer, recipients, envid, each_answered, octets } = taken;
        let Some(Received { letter, files }) = self.read(octets).await else {
            return vec![Reply::new(451, (4, 3, 0), "it cannot be read now: come again")];
        };
        let mut mail = MailIn { from, peer, recipients, envid, each_answered, letter };
        let shown = mail.from.as_ref().map_or_else(|| "<>".to_owned(), |from| from.short());
        let checked = admit::no_loop(settings, &mail).and_then(|()| admit::proven(settings, &mail));
        let pages = match checked {
            Ok(()) => self.keep(files, &mail).await,
            Err(refusal) => Err(refusal),
        };
        let replies = match pages {
            Err(refusal) => vec![refusal],
            Ok(pages) => {
                for (rcpt, page) in mail.recipients.iter_mut().zip(&pages) {
                    rcpt.link = Some(page.url.clone());
                }
                // A disk that hangs holds its answer back: nobody waits for ever, and a copy is known when it comes again.
                let answered = timeout(ANSWER_MAX, self.door.mail(Box::new(mail))).await.unwrap_or(Ok(None));
                // Where nobody knows what became of it the text may be kept, and its link with it.
                let (replies, may_be_kept) = match answered {
                    Ok(Some(replies)) => (replies, false),
                    Ok(None) => (vec![Reply::new(451, (4, 3, 1), "the node says nothing: come again")], true),
                    Err(why) => (vec![Reply::new(451, (4, 3, 1), why)], false),
                };
                self.settle(pages, &replies, may_be_kept).await;
                replies
            }
        };
        for Reply { code, text, .. } in &replies {
            tracing::debug!("mail of {shown}: {code} {text}");
        }
        replies
    }

    /// A page with the files for each recipient, on the disk before the mail is answered for.
    /// Where there is no room for them they are only named.
    async fn keep(&self, files: Vec<File>, mail: &MailIn) -> Result<Vec<Page>, Reply> {
        let Some(pictures) = &self.pictures else { return Ok(Vec::new()) };
        let files: Vec<File> = files.into_iter().filter(|file| pictures.takes(file)).collect();
        if files.is_empty() {
            return Ok(Vec::new());
        }
        let pictures = Arc::clone(pictures);
        let whose = mail.recipients.iter().map(|rcpt| of_page(mail, &rcpt.to)).collect::<Vec<_>>();
        match tokio::task::spawn_blocking(move || pictures.keep(&files, &whose, now_ms())).await {
            Ok(Ok(pages)) => Ok(pages),
            Ok(Err(NotKept::Full)) => Ok(Vec::new()),
            Ok(Err(NotKept::DiskFull)) => Err(Reply::new(452, (4, 3, 1), "there is no room for its files: come again")),
            Ok(Err(NotKept::Twice)) => Err(Reply::new(451, (4, 3, 0), "a copy of it is coming in: come again")),
            Ok(Err(NotKept::Failed(error))) => {
                tracing::error!("the files of a mail cannot be kept: {error}");
                Err(Reply::new(451, (4, 3, 0), "its files cannot be kept: come again"))
            }
            Err(_) => Err(Reply::new(451, (4, 3, 0), "its files cannot be kept: come again")),
        }
    }

    /// Removes the pages of those who do not get the mail.
    async fn settle(&self, pages: Vec<Page>, replies: &[Reply], may_be_kept: bool) {
        let is_kept = |at: usize| replies.get(at).or(replies.first()).is_some_and(|reply| reply.code / 100 == 2);
        let settled: Vec<(Page, bool)> =
            pages.into_iter().enumerate().map(|(at, page)| (page, may_be_kept || is_kept(at))).collect();
        if let Some(pictures) = self.pictures.clone()
            && !settled.is_empty()
        {
            // What is not removed now is removed when it is too old.
            let _ = tokio::task::spawn_blocking(move || pictures.settle(&settled)).await;
        }
    }

    /// What STARTTLS is done with: of the files that the settings in force name, read when these came into force.
    fn tls(&self, settings: &Arc<Settings>) -> Option<TlsAcceptor> {
        let mut certificate = self.certificate.lock().unwrap_or_else(PoisonError::into_inner);
        if !certificate.read_for.as_ref().is_some_and(|read_for| Arc::ptr_eq(read_for, settings)) {
            certificate.read_for = Some(Arc::clone(settings));
            if let Some(pictures) = &self.pictures
                && let Some(changed) = settings.mail.as_ref().and_then(|mail| mail.pictures.as_ref())
            {
                pictures.follow(changed);
            }
            match settings.mail.as_deref().and_then(read_certificate) {
                None => certificate.config = None,
                Some(Ok(config)) => certificate.config = Some(Arc::new(config)),
                Some(Err(why)) => {
                    let left = if certificate.config.is_some() { "the former one stays" } else { "no TLS for mail" };
                    tracing::error!(alarm = true, "ALARM: the certificate of [mail]: {why}; {left}");
                }
            }
        }
        certificate.config.clone().map(TlsAcceptor::from)
    }

    async fn secure(&self, line: Line, tls: Option<&TlsAcceptor>, ip: IpAddr) -> Option<Line> {
        let (Line::Plain(stream), Some(tls)) = (line, tls) else { return None };
        let why = match timeout(HANDSHAKE_MAX, tls.accept(stream)).await {
            Ok(Ok(stream)) => {
                self.tally.tls.fetch_add(1, Relaxed);
                return Some(Line::Secure(Box::new(stream)));
            }
            Ok(Err(error)) => error.to_string(),
            Err(_) => "it took too long".to_owned(),
        };
        self.tally.tls_failed.fetch_add(1, Relaxed);
        tracing::debug!("no TLS with {ip}: {why}");
        None
    }
}

/// Who ended a session.
enum Broken {
    Asked,
    ByThem,
    ByUs,
}

/// How fast somebody brings octets.
struct Pace {
    since: Instant,
    octets: u64,
}

impl Pace {
    /// `octets` have come now.
    fn is_too_slow(&mut self, is_receiving: bool, octets: usize, now: Instant) -> bool {
        if !is_receiving {
            *self = Pace { since: now, octets: 0 };
            return false;
        }
        self.octets += octets as u64;
        let elapsed = now.duration_since(self.since);
        if elapsed < MINUTE {
            return false;
        }
        let is_slow =
            u128::from(self.octets) * MINUTE.as_millis() < u128::from(OCTETS_PER_MINUTE_MIN) * elapsed.as_millis();
        *self = Pace { since: now, octets: 0 };
        is_slow
    }
}

/// One connection, plain or not.
enum Line {
    Plain(TcpStream),
    Secure(Box<TlsStream<TcpStream>>),
}

impl Line {
    async fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
        match self {
            Line::Plain(stream) => stream.read(buffer).await,
            Line::Secure(stream) => stream.read(buffer).await,
        }
    }

    /// Writes what the session has to say, all at once. Whether it could.
    async fn write(&mut self, session: &mut Session, patience: Duration) -> bool {
        let octets = session.out();
        if octets.is_empty() {
            return true;
        }
        let written = timeout(patience, async {
            match self {
                Line::Plain(stream) => stream.write_all(octets).await,
                Line::Secure(stream) => {
                    stream.write_all(octets).await?;
                    stream.flush().await
                }
            }
        });
        let written = matches!(written.await, Ok(Ok(())));
        session.written();
        written
    }

    async fn shutdown(&mut self) {
        // It is gone already, then.
        let _ = match self {
            Line::Plain(stream) => stream.shutdown().await,
            Line::Secure(stream) => stream.shutdown().await,
        };
    }

    async fn drain(&mut self) {
        let mut buffer = [0; 4096];
        let mut left = LINGER_OCTETS_MAX;
        while let Ok(octets @ 1..) = self.read(&mut buffer).await {
            left = left.saturating_sub(octets);
            if left == 0 {
                return;
            }
        }
    }
}

/// What makes a page the one of this mail and this recipient: a copy of the mail, which comes where our answer was lost, has the same.
fn of_page(mail: &MailIn, to: &RcptTo) -> Vec<u8> {
    let to = match to {
        RcptTo::Phone(imsi) => format!("IMSI{imsi}"),
        RcptTo::Elsewhere(number) => number.to_string(),
    };
    let from = mail.from.as_ref().map_or("", Address::as_str);
    [&mail.letter.digest[..], from.as_bytes(), b"\0", to.as_bytes()].concat()
}

/// What all sessions may hold of mails that are on their way in.
fn held_max(mail: &Mail) -> u64 {
    let many = mail.size_max.saturating_mul(HELD_MAILS_MAX).min(HELD_OCTETS_MAX);
    many.max(mail.size_max.saturating_mul(HELD_MAILS_MIN))
}

/// What one session holds of it.
struct Held<'a> {
    of_all: &'a AtomicU64,
    own: u64,
}

impl Held<'_> {
    fn follow(&mut self, own: u64) {
        if own >= self.own {
            self.of_all.fetch_add(own - self.own, Relaxed);
        } else {
            self.of_all.fetch_sub(self.own - own, Relaxed);
        }
        self.own = own;
    }
}

impl Drop for Held<'_> {
    fn drop(&mut self) {
        self.follow(0);
    }
}

impl Wrong {
    fn add(&mut self, ip: IpAddr, more: u64) {
        if self.0.len() >= WRONG_ADDRESSES_MAX {
            self.0.retain(|_, (since, _)| since.elapsed() < MINUTE);
        }
        if self.0.len() >= WRONG_ADDRESSES_MAX {
            self.0.clear();
        }
        let (since, count) = self.0.entry(one_of_all(ip)).or_insert((Instant::now(), 0));
        if since.elapsed() >= MINUTE {
            (*since, *count) = (Instant::now(), 0);
        }
        *count += more;
    }

    fn has_too_many(&self, ip: IpAddr) -> bool {
        let known = if self.0.is_empty() { None } else { self.0.get(&one_of_all(ip)) };
        known.is_some_and(|(since, count)| *count >= WRONG_PASSWORDS_MAX && since.elapsed() < MINUTE)
    }
}

/// Whom the operator has listed, and who is on this machine: for them places are kept.
fn is_known(mail: &Mail, ip: IpAddr) -> bool {
    admit::is_listed(mail, ip) || ip.is_loopback()
}

/// A session counts as long as this lives.
struct Place {
    reception: Arc<Reception>,
    is_stranger: bool,
    /// `None`: a server that the operator has listed; it is counted with all, and not by itself.
    address: Option<IpAddr>,
}

impl Place {
    fn take(reception: &Arc<Reception>, mail: &Mail, ip: IpAddr) -> Option<Place> {
        let address = (!admit::is_listed(mail, ip)).then(|| one_of_all(ip));
        let is_stranger = !is_known(mail, ip);
        let strangers_max = mail.sessions_max - mail.sessions_max / 4;
        let mut places = reception.places.lock().unwrap_or_else(PoisonError::into_inner);
        if places.count >= mail.sessions_max || (is_stranger && places.strangers >= strangers_max) {
            return None;
        }
        if let Some(address) = address {
            let count = places.by_address.entry(address).or_default();
            if *count >= mail.sessions_per_address_max {
                return None;
            }
            *count += 1;
        }
        places.count += 1;
        places.strangers += usize::from(is_stranger);
        Some(Place { reception: Arc::clone(reception), is_stranger, address })
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut places = self.reception.places.lock().unwrap_or_else(PoisonError::into_inner);
        places.count = places.count.saturating_sub(1);
        places.strangers = places.strangers.saturating_sub(usize::from(self.is_stranger));
        if let Some(address) = self.address
            && let Some(count) = places.by_address.get_mut(&address)
        {
            *count = count.saturating_sub(1);
            if *count == 0 {
                places.by_address.remove(&address);
            }
        }
    }
}

/// Of IPv6 somebody has a whole /64.
fn one_of_all(ip: IpAddr) -> IpAddr {
    match ip {
        IpAddr::V4(_) => ip,
        IpAddr::V6(ip) => Ipv6Addr::from_bits(ip.to_bits() >> 64 << 64).into(),
    }
}

impl Room {
    /// The same bound as the store's, which is asked in the end; here it spares the way there.
    fn is_full(&self, settings: &Settings) -> bool {
        let now_ms = self.since.elapsed().as_millis() as u64 + 1;
        let checked_ms = self.checked_ms.load(Relaxed);
        let is_due = checked_ms == 0 || now_ms - checked_ms.min(now_ms) >= ROOM_CHECK.as_millis() as u64;
        if is_due && self.checked_ms.compare_exchange(checked_ms, now_ms, Relaxed, Relaxed).is_ok() {
            let free = free_bytes(&settings.data_dir);
            self.is_full.store(free.is_some_and(|free| free < settings.disk_reserve_bytes), Relaxed);
        }
        self.is_full.load(Relaxed)
    }
}

/// `None`: the system does not say.
fn free_bytes(folder: &Path) -> Option<u64> {
    let path = std::ffi::CString::new(folder.as_os_str().as_bytes()).ok()?;
    // SAFETY: all zeroes is a value of the structure; the path ends with a zero and lives for the call.
    unsafe {
        let mut state: libc::statvfs = std::mem::zeroed();
        (libc::statvfs(path.as_ptr(), &mut state) == 0).then(|| state.f_bavail * state.f_frsize)
    }
}

/// `None`: none is named.
fn read_certificate(mail: &Mail) -> Option<Result<ServerConfig, String>> {
    let (certificate, key) = (mail.certificate.as_deref()?, mail.certificate_key.as_deref()?);
    Some(server_config(certificate, key))
}

fn server_config(certificate: &Path, key: &Path) -> Result<ServerConfig, String> {
    let of = |path: &Path, why: String| format!("{}: {why}", path.display());
    let chain = CertificateDer::pem_file_iter(certificate).map_err(|error| of(certificate, error.to_string()))?;
    let chain = chain.collect::<Result<Vec<_>, _>>().map_err(|error| of(certificate, error.to_string()))?;
    if chain.is_empty() {
        return Err(of(certificate, "there is no certificate in it".into()));
    }
    let secret = PrivateKeyDer::from_pem_file(key).map_err(|error| of(key, error.to_string()))?;
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .and_then(|builder| builder.with_no_client_auth().with_single_cert(chain, secret))
        .map_err(|error| of(certificate, error.to_string()))
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::io::{Read as _, Write as _};
    use std::net::TcpStream as StdStream;
    use std::process::{Command, Stdio};
    use std::thread;

    use arc_swap::ArcSwap;

    use super::super::node::{Ear, Told, door};
    use super::*;
    use crate::config::read::{Source, Sources, read};

    const MAIL: &str = "MAIL FROM:<a@b.example>\r\nRCPT TO:<2001@sms.gsm.example>\r\nDATA\r\n";

    /// `rest` stands in `[mail]`.
    fn settings(data_dir: &Path, rest: &str) -> Settings {
        let data_dir = data_dir.display();
        let text = format!(
            "domain = \"gsm.example\"\ndata_dir = \"{data_dir}\"\n[mail]\ncommand_timeout = \"60 s\"\n{rest}\n[[mail_user]]\n\
             name = \"clinic\"\npassword = \"open sesame\"\n[[subscriber]]\nimsi = \"001010000000001\"\nmsisdn = [\"2001\"]\n\
             auth = {{ algorithm = \"none\" }}\n"
        );
        let main = Source { name: "encamp.toml".into(), text };
        read(&Sources { main, ..Sources::default() }).unwrap_or_else(|problems| panic!("{problems:#?}")).0
    }

    /// A reception on a port of its own, and a node that answers each mail with 250 and its words.
    struct Desk {
        address: SocketAddr,
        tally: Arc<Tally>,
        settings: Arc<ArcSwap<Settings>>,
        door: Door,
        taken: Arc<Mutex<Vec<MailIn>>>,
        reception: Arc<Reception>,
        _folder: tempfile::TempDir,
        _runtime: tokio::runtime::Runtime,
    }

    fn desk(protocol: MailProtocol, rest: &str, is_encrypted: bool) -> Desk {
        let folder = tempfile::tempdir().unwrap();
        let mut rest = rest.to_owned();
        if is_encrypted {
            let paths = certificate(folder.path(), "first");
            rest = format!("certificate = {:?}\ncertificate_key = {:?}\n{rest}", paths.0, paths.1);
        }
        let settings = Arc::new(ArcSwap::from_pointee(settings(folder.path(), &rest)));
        let (door, ear) = door().unwrap();
        let taken = Arc::<Mutex<Vec<MailIn>>>::default();
        let node = Arc::clone(&taken);
        thread::spawn(move || answer(&ear, &node));
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
        let tally = Arc::<Tally>::default();
        let followed = Arc::clone(&settings);
        let pictures = settings.load().mail.as_ref().and_then(|mail| mail.pictures.clone());
        let pictures = pictures.map(|pictures| Arc::new(Pictures::open(&pictures).unwrap()));
        let reception = Reception::new(door.clone(), Arc::clone(&tally), pictures, move || followed.load_full());
        let listener = runtime.block_on(TcpListener::bind("127.0.0.1:0")).unwrap();
        let address = listener.local_addr().unwrap();
        runtime.spawn(Arc::clone(&reception).serve(protocol, listener));
        Desk { address, tally, settings, door, taken, reception, _folder: folder, _runtime: runtime }
    }

    fn answer(ear: &Ear, taken: &Mutex<Vec<MailIn>>) {
        while let Some(told) = ear.next() {
            match told {
                Told::Mail { mail, .. } if mail.letter.subject == "stop" => taken.lock().unwrap().push(*mail),
                Told::Mail { mail, answer } if mail.letter.subject == "no" => {
                    taken.lock().unwrap().push(*mail);
                    let _ = answer.send(vec![Reply::new(550, (5, 7, 1), "no")]);
                }
                Told::Mail { mail, answer } => {
                    let replies = match mail.each_answered {
                        true => mail.recipients.iter().map(|_| Reply::new(250, (2, 6, 0), "each")).collect(),
                        false => vec![Reply::new(250, (2, 6, 0), "kept")],
                    };
                    taken.lock().unwrap().push(*mail);
                    let _ = answer.send(replies);
                }
                Told::Stop => return,
                _ => (),
            }
        }
    }

    /// A certificate for 127.0.0.1, signed by itself, and its key.
    fn certificate(folder: &Path, name: &str) -> (std::path::PathBuf, std::path::PathBuf) {
        let (certificate, key) = (folder.join(format!("{name}.pem")), folder.join(format!("{name}.key")));
        let made = Command::new("openssl")
            .args(["req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-days", "2"])
            .args(["-subj", &format!("/CN={name}"), "-addext", "subjectAltName=IP:127.0.0.1"])
            .args(["-addext", "basicConstraints=critical,CA:FALSE"])
            .arg("-keyout")
            .arg(&key)
            .arg("-out")
            .arg(&certificate)
            .stderr(Stdio::null())
            .status();
        assert!(made.is_ok_and(|made| made.success()), "openssl makes no certificate");
        (certificate, key)
    }

    /// What is said to these words until the connection ends.
    fn talk(address: SocketAddr, said: &str) -> String {
        let mut stream = StdStream::connect(address).unwrap();
        stream.write_all(said.as_bytes()).unwrap();
        stream.shutdown(std::net::Shutdown::Write).unwrap();
        let mut told = String::new();
        // One that is reset has said what it had to say.
        let _ = stream.read_to_string(&mut told);
        told
    }

    fn count(desk: &Desk, name: &str) -> u64 {
        let counts = desk.tally.counts();
        counts.iter().find(|(known, _)| *known == name).unwrap_or_else(|| panic!("no {name}")).1
    }

    #[test]
    fn a_mail_goes_through_the_door_and_its_answer_comes_back() {
        let smtp = desk(MailProtocol::Smtp, "", false);
        let mail = "Subject: hello\r\nFrom: Ana <a@b.example>\r\n\r\ncome home\r\n.\r\n";
        let said = format!("EHLO x\r\n{MAIL}{mail}{MAIL}{mail}QUIT\r\n");
        let told = talk(smtp.address, &said);
        assert!(told.starts_with("220 sms.gsm.example ESMTP Encamp\r\n250-"), "{told}");
        assert_eq!(told.matches("250 2.6.0 kept\r\n").count(), 2, "{told}");
        assert!(told.ends_with("221 2.0.0 good bye\r\n"), "{told}");
        let taken = smtp.taken.lock().unwrap();
        assert_eq!((taken[0].letter.text.as_str(), taken[0].letter.subject.as_str()), ("come home", "hello"));
        assert_eq!((count(&smtp, "mail_accepted"), count(&smtp, "mail_sessions")), (2, 1));

        let lmtp = desk(MailProtocol::Lmtp, "", false);
        let told = talk(lmtp.address, &format!("LHLO x\r\n{MAIL}x\r\n.\r\nQUIT\r\n"));
        assert!(told.starts_with("220 sms.gsm.example LMTP") && told.contains("250 2.6.0 each\r\n221"), "{told}");
    }

    #[test]
    fn a_mail_that_goes_round_never_comes_to_the_node() {
        let desk = desk(MailProtocol::Smtp, "", false);
        let told =
            talk(desk.address, &format!("EHLO x\r\n{MAIL}X-Encamp-Trace: sms.gsm.example\r\n\r\nx\r\n.\r\nQUIT\r\n"));
        assert!(told.contains("554 5.4.6"), "{told}");
        assert!(desk.taken.lock().unwrap().is_empty());
        assert_eq!(count(&desk, "mail_refused_loop"), 1);
    }

    #[test]
    fn a_large_mail_is_read_and_its_octets_are_given_back() {
        let desk = desk(MailProtocol::Smtp, "", false);
        let words = "all of it is here\r\n".repeat(READ_INLINE_OCTETS_MAX / 10);
        let told = talk(desk.address, &format!("EHLO x\r\n{MAIL}Subject: large\r\n\r\n{words}.\r\nQUIT\r\n"));
        assert!(told.contains("250 2.6.0 kept"), "{told}");
        assert!(desk.taken.lock().unwrap()[0].letter.text.starts_with("all of it is here\nall"));
        let until = Instant::now() + MINUTE;
        while desk.reception.held.load(Relaxed) != 0 {
            assert!(Instant::now() < until);
        }
    }

    #[test]
    fn what_all_sessions_hold_is_bounded() {
        let folder = tempfile::tempdir().unwrap();
        let held_max = |size: &str| {
            let settings = settings(folder.path(), &format!("size_max = \"{size}\""));
            held_max(settings.mail.as_deref().unwrap())
        };
        assert_eq!(
            [held_max("10 kB"), held_max("1 MB"), held_max("5 MB"), held_max("100 MB")],
            [640_000, 64_000_000, HELD_OCTETS_MAX, 400_000_000]
        );
        let all = AtomicU64::new(0);
        let mut one = Held { of_all: &all, own: 0 };
        let mut other = Held { of_all: &all, own: 0 };
        one.follow(100);
        other.follow(50);
        one.follow(30);
        assert_eq!(all.load(Relaxed), 80);
        drop(one);
        assert_eq!(all.load(Relaxed), 50, "a session that ends gives back what it held");
        drop(other);
        // Another one holds it all: a small mail comes through.
        let desk = desk(MailProtocol::Smtp, "", false);
        desk.reception.held.store(1 << 40, Relaxed);
        let large = "x\r\n".repeat(40_000);
        let told = talk(desk.address, &format!("EHLO x\r\n{MAIL}small\r\n.\r\n{MAIL}{large}.\r\nQUIT\r\n"));
        assert!(told.contains("250 2.6.0 kept") && told.contains("452 4.3.1 too much mail"), "{told}");
        assert_eq!(desk.taken.lock().unwrap().len(), 1);
    }

    #[test]
    fn after_too_many_wrong_passwords_of_an_address_nobody_logs_in_from_there() {
        let desk = desk(MailProtocol::Smtp, "", false);
        let ip: IpAddr = [127, 0, 0, 1].into();
        let wrong = |more| desk.reception.add(session::Counts { logins_wrong: more, ..Default::default() }, ip);
        let login = || talk(desk.address, "EHLO x\r\nAUTH PLAIN AGNsaW5pYwBvcGVuIHNlc2FtZQ==\r\nQUIT\r\n");
        wrong(WRONG_PASSWORDS_MAX - 1);
        assert!(login().contains("235 2.7.0"), "{}", login());
        wrong(1);
        assert!(login().contains("454 4.7.0"), "{}", login());
        assert_eq!(count(&desk, "mail_logins_wrong"), WRONG_PASSWORDS_MAX);
        let mut all = Wrong::default();
        for at in 0..WRONG_ADDRESSES_MAX as u32 + 5 {
            all.add(std::net::Ipv4Addr::from_bits(at).into(), WRONG_PASSWORDS_MAX);
        }
        assert!(all.0.len() <= WRONG_ADDRESSES_MAX && all.has_too_many([0, 0, 0x27, 0x14].into()));
    }

    #[test]
    fn places_are_kept_for_those_whom_the_operator_has_listed() {
        let desk = desk(MailProtocol::Smtp, "sessions_max = 8\nfronts = [\"192.0.2.1\"]", false);
        let settings = desk.settings.load_full();
        let mail = settings.mail.as_deref().unwrap();
        let take = |ip: &str| Place::take(&desk.reception, mail, ip.parse().unwrap());
        let strangers: Vec<Place> = (0..6).filter_map(|_| take("203.0.113.9")).collect();
        assert_eq!(strangers.len(), 6);
        assert!(take("198.51.100.9").is_none(), "a quarter is not for strangers");
        let listed = [take("192.0.2.1"), take("127.0.0.1")];
        assert!(listed.iter().all(Option::is_some));
        assert!(take("192.0.2.1").is_none(), "all places are taken");
        drop(strangers);
        assert!(take("198.51.100.9").is_some());
    }

    #[test]
    fn a_node_that_has_stopped_makes_mail_wait_elsewhere() {
        let desk = desk(MailProtocol::Smtp, "", false);
        desk.door.tell(Told::Stop);
        let told = talk(desk.address, &format!("EHLO x\r\n{MAIL}x\r\n.\r\nQUIT\r\n"));
        assert!(told.contains("451 4.3.1 the node has"), "{told}");
        assert_eq!(count(&desk, "mail_deferred"), 1);
    }

    #[test]
    fn the_files_of_a_mail_are_on_a_page_before_the_node_hears_of_it() {
        let rest = "[pictures]\nlisten = \"127.0.0.1:8090\"\nurl = \"http://192.0.2.1:8090\"\nsize_max = \"1 kB\"";
        let part = |name: &str, words: &str| {
            let head = format!("--b\r\nContent-Type: image/png\r\nContent-Disposition: attachment; filename={name}");
            format!("{head}\r\n\r\n{words}\r\n")
        };
        let mail_about = |subject: &str, parts: &str| {
            let head = format!("Subject: {subject}\r\nMIME-Version: 1.0\r\nContent-Type: multipart/mixed; boundary=b");
            format!("{MAIL}{head}\r\n\r\n--b\r\n\r\nlook\r\n{parts}--b--\r\n.\r\n")
        };
        let mail = |parts: &str| mail_about("x", parts);
        let pages = |desk: &Desk| {
            let path = desk.settings.load().mail.as_ref().and_then(|mail| Some(mail.pictures.as_ref()?.path.clone()));
            fs::read_dir(path.unwrap()).unwrap().filter(|entry| entry.as_ref().unwrap().path().is_dir()).count()
        };
        let desk = desk(MailProtocol::Smtp, rest, false);
        // One that is too long has none, and is only named.
        let said = [mail(&part("a.png", "picture")), mail(&part("b.png", &"x".repeat(2_000)))].concat();
        let told = talk(desk.address, &format!("EHLO x\r\n{said}QUIT\r\n"));
        assert_eq!(told.matches("250 2.6.0 kept").count(), 2, "{told}");
        {
            let taken = desk.taken.lock().unwrap();
            let links: Vec<_> = taken.iter().map(|mail| mail.recipients[0].link.as_deref()).collect();
            assert!(links[0].is_some_and(|link| link.starts_with("http://192.0.2.1:8090/p/")), "{links:?}");
            assert_eq!(links[1], None);
        }
        assert_eq!(pages(&desk), 1);
        let link = |at: usize| desk.taken.lock().unwrap()[at].recipients[0].link.clone();
        // Its answer was lost.
        talk(desk.address, &format!("EHLO x\r\n{}QUIT\r\n", mail(&part("a.png", "picture"))));
        assert_eq!((pages(&desk), link(2)), (1, link(0)), "a copy has the same page");
        // Nobody answers for this one, so nobody gets a link to its page.
        let told = talk(desk.address, &format!("EHLO x\r\n{}QUIT\r\n", mail_about("no", &part("c.png", "picture"))));
        assert!(told.contains("550 5.7.1 no"), "{told}");
        assert_eq!(pages(&desk), 1);
        // What became of this one nobody knows: it may be on the disk.
        let told = talk(desk.address, &format!("EHLO x\r\n{}QUIT\r\n", mail_about("stop", &part("c.png", "picture"))));
        assert!(told.contains("451 4.3.1"), "{told}");
        assert_eq!(pages(&desk), 2);
        // There is no room for this one, which is no reason to keep its words.
        let settings = desk.settings.load_full();
        let mut changed = Settings::clone(&settings);
        let mut words = settings.mail.as_deref().cloned().unwrap();
        words.pictures.as_mut().unwrap().bytes_max = 20;
        changed.mail = Some(words.into());
        desk.settings.store(Arc::new(changed));
        let told = talk(desk.address, &format!("EHLO x\r\n{}QUIT\r\n", mail(&part("d.png", "picture"))));
        assert!(told.contains("250 2.6.0 kept"), "{told}");
        assert_eq!((pages(&desk), link(5)), (2, None));
    }

    #[test]
    fn with_too_many_sessions_the_next_one_is_told_to_come_again() {
        let desk = desk(MailProtocol::Smtp, "sessions_per_address_max = 2", false);
        let mut first = [0; 4];
        let mut sessions: Vec<StdStream> = (0..2).map(|_| StdStream::connect(desk.address).unwrap()).collect();
        for session in &mut sessions {
            session.read_exact(&mut first).unwrap();
            assert_eq!(&first, b"220 ");
        }
        assert_eq!(talk(desk.address, ""), "421 sms.gsm.example has too many sessions\r\n");
        assert_eq!(count(&desk, "mail_sessions_refused"), 1);
        sessions.clear();
        // Their places are free in a moment.
        let until = Instant::now() + MINUTE;
        while !talk(desk.address, "QUIT\r\n").starts_with("220") {
            assert!(Instant::now() < until);
        }
    }

    #[test]
    fn who_makes_errors_hears_the_last_word() {
        let desk = desk(MailProtocol::Smtp, "", false);
        let told = talk(desk.address, &format!("GET / HTTP/1.1\r\n{}", "x".repeat(100_000)));
        assert!(told.ends_with("554 5.5.1 this is no web server\r\n"), "{told}");
        let told = talk(desk.address, "EHLO x\r\nMAIL FROM:<>\r\nRCPT TO:<x@example.org>\r\nQUIT\r\n");
        assert!(told.contains("550 5.7.1 no mail is relayed here"), "{told}");
        assert_eq!(count(&desk, "mail_refused_policy"), 1);
    }

    /// What openssl has said and heard: STARTTLS is its own doing.
    fn secure(address: SocketAddr, is_implicit: bool, said: &str) -> String {
        let mut command = Command::new("openssl");
        command.args(["s_client", "-quiet", "-crlf", "-connect", &address.to_string()]);
        if !is_implicit {
            command.args(["-starttls", "smtp", "-name", "x"]);
        }
        let mut client =
            command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::null()).spawn().expect("openssl");
        let mut words = client.stdin.take().unwrap();
        words.write_all(said.as_bytes()).unwrap();
        let mut told = String::new();
        client.stdout.take().unwrap().read_to_string(&mut told).unwrap();
        drop(words);
        client.wait().unwrap();
        told
    }

    #[test]
    fn a_mail_comes_by_tls_with_a_login() {
        // base64 of `\0clinic\0open sesame`.
        let said = "EHLO x\nAUTH PLAIN AGNsaW5pYwBvcGVuIHNlc2FtZQ==\nMAIL FROM:<a@b.example>\nRCPT TO:<2001@sms.gsm.example>\n\
                    DATA\nsecret\n.\nQUIT\n";
        for (protocol, is_implicit) in [(MailProtocol::Smtp, false), (MailProtocol::SmtpInTls, true)] {
            let desk = desk(protocol, "", true);
            let told = secure(desk.address, is_implicit, said);
            assert!(told.contains("235 2.7.0") && told.contains("250 2.6.0 kept"), "{protocol:?}: {told}");
            assert!(!told.contains("250-STARTTLS"), "{protocol:?}: {told}");
            let taken = desk.taken.lock().unwrap();
            assert!(taken[0].peer.is_encrypted && taken[0].peer.user.as_deref() == Some("clinic"));
            assert_eq!((count(&desk, "mail_tls"), count(&desk, "mail_logins")), (1, 1));
        }
    }

    #[test]
    fn words_put_behind_starttls_are_never_obeyed() {
        let desk = desk(MailProtocol::Smtp, "", true);
        let told = talk(desk.address, &format!("EHLO x\r\nSTARTTLS\r\n{MAIL}x\r\n.\r\n"));
        assert!(told.ends_with("220 2.0.0 begin\r\n"), "{told}");
        assert!(desk.taken.lock().unwrap().is_empty());
    }

    #[test]
    fn new_settings_bring_a_new_certificate_and_a_bad_one_leaves_the_old() {
        let desk = desk(MailProtocol::SmtpInTls, "", true);
        let shown = || {
            let told = Command::new("openssl")
                .args(["s_client", "-connect", &desk.address.to_string()])
                .stdin(Stdio::null())
                .output()
                .expect("openssl");
            String::from_utf8_lossy(&told.stdout).into_owned()
        };
        assert!(shown().contains("CN = first") || shown().contains("CN=first"), "{}", shown());
        let settings = desk.settings.load_full();
        let file = settings.mail.as_ref().and_then(|mail| mail.certificate.clone()).unwrap();
        let key = settings.mail.as_ref().and_then(|mail| mail.certificate_key.clone()).unwrap();
        let (renewed, renewed_key) = certificate(file.parent().unwrap(), "second");
        fs::copy(renewed, &file).unwrap();
        fs::copy(renewed_key, &key).unwrap();
        desk.settings.store(Arc::new(Settings::clone(&settings)));
        assert!(shown().contains("CN = second") || shown().contains("CN=second"), "{}", shown());
        fs::write(&file, "nothing").unwrap();
        desk.settings.store(Arc::new(Settings::clone(&settings)));
        assert!(shown().contains("second"), "{}", shown());
    }

    #[test]
    fn who_drips_is_too_slow_and_who_waits_is_not() {
        let begun = Instant::now();
        let at = |seconds| begun + Duration::from_secs(seconds);
        let new = || Pace { since: begun, octets: 0 };
        let mut dripping = new();
        assert!(!dripping.is_too_slow(true, 1, at(30)) && !dripping.is_too_slow(true, 1, at(59)));
        assert!(dripping.is_too_slow(true, 1, at(61)));
        let mut steady = new();
        assert!((1..20).all(|n| !steady.is_too_slow(true, 600, at(n * 30))));
        // Between two commands nobody owes anything.
        let mut waiting = new();
        assert!(!waiting.is_too_slow(false, 6, at(200)) && !waiting.is_too_slow(true, 6, at(210)));
    }

    #[test]
    fn of_ipv6_a_network_is_one_address() {
        let one = |text: &str| one_of_all(text.parse().unwrap()).to_string();
        assert_eq!(one("2001:db8:1:2:3:4:5:6"), "2001:db8:1:2::");
        assert_eq!(one("192.0.2.1"), "192.0.2.1");
    }

    #[test]
    fn a_box_with_less_room_than_its_reserve_is_full() {
        let folder = tempfile::tempdir().unwrap();
        let room = || Room { since: Instant::now(), checked_ms: AtomicU64::new(0), is_full: AtomicBool::new(false) };
        let mut settings = settings(folder.path(), "");
        settings.disk_reserve_bytes = 0;
        assert!(!room().is_full(&settings));
        settings.disk_reserve_bytes = u64::MAX;
        assert!(room().is_full(&settings));
    }
}
