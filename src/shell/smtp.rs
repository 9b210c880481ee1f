//! Mail that comes in: listeners, connections, TLS, time.
//!
//! Knows: sockets, certificates, how long anybody may take, how many may speak at a time. Does not know: what is said
//! ([`crate::mail::session`]), who may ([`crate::mail::admit`]), what a mail says ([`crate::mail::receive`]), what becomes of it (the node).
//! A session is a task; it feeds what it reads to a [`Session`] and writes what that gives. The octets of a mail are its own until they
//! are read, and are on no disk; what the node says of it comes through [`Door::mail`], a yes once all of it is kept.
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
use tokio::time::timeout;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;

use super::node::Door;
use crate::config::Settings;
use crate::config::mailing::{Mail, MailProtocol};
use crate::mail::session::{self, Protocol, Session, Step, Taken};
use crate::mail::{Letter, MailIn, Reply, admit};

/// Read at once.
const READ_BYTES: usize = 16 * 1024;
/// Who is in the middle of a mail or of a command brings so many octets a minute, or loses its place to somebody who does.
const OCTETS_PER_MINUTE_MIN: u64 = 1_000;
const MINUTE: Duration = Duration::from_secs(60);
const HANDSHAKE_MAX: Duration = Duration::from_secs(30);
/// A session that we end is read for so long, and so much of it, that the other side sees our last word before the reset.
const LINGER: Duration = Duration::from_secs(2);
const LINGER_OCTETS_MAX: usize = 1024 * 1024;
/// The free room on the disk is looked up this often.
const ROOM_CHECK: Duration = Duration::from_secs(1);
/// Out of file descriptors, most likely: those in use end by themselves.
const AFTER_FAULT: Duration = Duration::from_millis(100);

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
            ("mail_accepted", &self.accepted),
            ("mail_deferred", &self.deferred),
        ];
        own.into_iter().chain(refused).map(|(name, count)| (name, count.load(Relaxed))).collect()
    }

    fn add(&self, counts: session::Counts) {
        let all = [(&self.accepted, counts.accepted), (&self.deferred, counts.deferred), (&self.logins, counts.logins)];
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
    tally: Arc<Tally>,
    places: Mutex<Places>,
    certificate: Mutex<Certificate>,
    room: Room,
}

#[derive(Default)]
struct Places {
    count: usize,
    by_address: HashMap<IpAddr, usize>,
}

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
        current: impl Fn() -> Arc<Settings> + Send + Sync + 'static,
    ) -> Arc<Reception> {
        let reception = Arc::new(Reception {
            door,
            current: Box::new(current),
            tally,
            places: Mutex::default(),
            certificate: Mutex::default(),
            room: Room { since: Instant::now(), checked_ms: AtomicU64::new(0), is_full: AtomicBool::new(false) },
        });
        let settings = (reception.current)();
        reception.tls(&settings);
        reception
    }

    /// Accepts until the runtime ends.
    pub async fn serve(self: Arc<Reception>, protocol: MailProtocol, listener: TcpListener) {
        loop {
            match listener.accept().await {
                Ok((stream, from)) => self.accepted(protocol, stream, from),
                Err(error) => {
                    tracing::warn!("cannot accept a connection for mail: {error}");
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
        self.tally.add(session.take_counts());
        if let Broken::ByUs = why {
            self.tally.sessions_broken.fetch_add(1, Relaxed);
        }
    }

    /// Until one of the two ends it.
    async fn converse(&self, session: &mut Session, line: Line, tls: Option<&TlsAcceptor>, ip: IpAddr) -> Broken {
        let mut line = line;
        let begun = Instant::now();
        let mut pace = Pace { since: begun, octets: 0 };
        let mut buffer = vec![0; READ_BYTES];
        let (mut from, mut to) = (0, 0);
        loop {
            let settings = (self.current)();
            session.set_full(self.room.is_full(&settings));
            let mut input = &buffer[from..to];
            let step = session.feed(&settings, &mut input);
            from = to - input.len();
            self.tally.add(session.take_counts());
            if let Step::Mail(taken) = step {
                let replies = self.take(&settings, *taken).await;
                session.answered(&replies);
                continue;
            }
            if let Some(pause) = session.take_pause() {
                tokio::time::sleep(pause).await;
            }
            let Some(patience) = settings.mail.as_ref().map(|mail| (mail.command_timeout, mail.session_max)) else {
                return self.end(session, line, false).await;
            };
            let (command_timeout, session_max) = patience;
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
            if age > session_max && (session.is_idle() || age > session_max * 2) {
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

    /// What becomes of a mail.
    async fn take(&self, settings: &Settings, taken: Taken) -> Vec<Reply> {
        let Taken { from, peer, recipients, envid, each_answered, octets } = taken;
        let letter = read(&octets);
        drop(octets);
        let mail = MailIn { from, peer, recipients, envid, each_answered, letter };
        let checked = admit::no_loop(settings, &mail).and_then(|()| admit::proven(settings, &mail));
        let shown = mail.from.as_ref().map_or_else(|| "<>".to_owned(), |from| from.short());
        let replies = match checked {
            Err(refusal) => vec![refusal],
            Ok(()) => match self.door.mail(Box::new(mail)).await {
                Ok(replies) => replies,
                Err(why) => vec![Reply::new(451, (4, 3, 1), why)],
            },
        };
        for Reply { code, text, .. } in &replies {
            tracing::debug!("mail of {shown}: {code} {text}");
        }
        replies
    }

    /// What STARTTLS is done with: of the files that the settings in force name, read when these came into force.
    fn tls(&self, settings: &Arc<Settings>) -> Option<TlsAcceptor> {
        let mut certificate = self.certificate.lock().unwrap_or_else(PoisonError::into_inner);
        if !certificate.read_for.as_ref().is_some_and(|read_for| Arc::ptr_eq(read_for, settings)) {
            certificate.read_for = Some(Arc::clone(settings));
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

/// A session counts as long as this lives.
struct Place {
    reception: Arc<Reception>,
    /// `None`: a server that the operator has listed; it is counted with all, and not by itself.
    address: Option<IpAddr>,
}

impl Place {
    fn take(reception: &Arc<Reception>, mail: &Mail, ip: IpAddr) -> Option<Place> {
        let is_listed = mail.trusted.iter().chain(&mail.boxes).any(|network| network.contains(ip));
        let address = (!is_listed).then(|| one_of_all(ip));
        let mut places = reception.places.lock().unwrap_or_else(PoisonError::into_inner);
        if places.count >= mail.sessions_max {
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
        Some(Place { reception: Arc::clone(reception), address })
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut places = self.reception.places.lock().unwrap_or_else(PoisonError::into_inner);
        places.count = places.count.saturating_sub(1);
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

/// What a mail says.
fn read(octets: &[u8]) -> Letter {
    crate::mail::receive::read(octets).letter
}
