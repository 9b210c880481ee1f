//! How mail leaves: to the relay that the settings name, else straight to the servers of its domain.
//!
//! Knows: which server, over which kept connection, with which certificates believed, and what its word means for the core
//! ([`MailFailure`]). Does not know: when a mail is tried again, or what it is about. What a mail looks like: [`super::dress`]; the
//! dialogue: [`line`]; where a domain's servers are: [`names`].
//! Limits: [`PLACES`] mails at a time; a connection is kept for [`KEPT_FOR`] and [`MAILS_PER_LINE`] mails.

mod line;
mod names;

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use arc_swap::ArcSwap;
use rustls::client::WebPkiServerVerifier;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{CryptoProvider, verify_tls12_signature, verify_tls13_signature};
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::{ClientConfig, DigitallySignedStruct, RootCertStore, SignatureScheme};
use tokio::sync::{OnceCell, Semaphore};
use tokio::time::{Instant, timeout_at};

use self::line::{Handed, Line, Terms, Unopened};
pub use self::names::Ways;
use self::names::{Names, Server};
use super::dress::{ascii_domain, dress};
use crate::config::mailing::{Mail, Relay, RelayTls};
use crate::mail::{MailFailure, MailOut, MailTaken};

/// Mails at a time, wherever they go; the core gives no more than sixteen for one relay or domain.
const PLACES: usize = 64;
/// A connection that nothing goes over is kept for so long, and no more of them than this.
const KEPT_FOR: Duration = Duration::from_secs(5);
const KEPT_MAX: usize = 32;
/// Many servers end a connection after a hundred.
const MAILS_PER_LINE: u32 = 100;

/// Kept for the answer to the end of a mail, which is not sent with less: without it nobody knows who has the mail.
const ANSWER_MIN: Duration = Duration::from_secs(60);

const TOO_LATE: &str = "no answer in time";

/// What became of the mails; told by `status`.
#[derive(Default)]
pub struct Tally {
    taken: AtomicU64,
    temporary: AtomicU64,
    permanent: AtomicU64,
    unreachable: AtomicU64,
    lost: AtomicU64,
}

impl Tally {
    pub fn counts(&self) -> [(&'static str, u64); 5] {
        let of = |count: &AtomicU64| count.load(Ordering::Relaxed);
        [
            ("mails_taken", of(&self.taken)),
            ("mails_refused_for_now", of(&self.temporary)),
            ("mails_refused", of(&self.permanent)),
            ("mails_unreachable", of(&self.unreachable)),
            ("mails_lost_line", of(&self.lost)),
        ]
    }

    fn count(&self, result: &Result<MailTaken, MailFailure>) {
        let count = match result {
            Ok(_) => &self.taken,
            Err(MailFailure::Temporary { .. }) => &self.temporary,
            Err(MailFailure::Permanent { .. }) => &self.permanent,
            Err(MailFailure::Unreachable(_)) => &self.unreachable,
            Err(MailFailure::Lost(_)) => &self.lost,
        };
        count.fetch_add(1, Ordering::Relaxed);
    }
}

/// Who follows each step: its name, and what happened.
type Hearer = dyn Fn(&'static str, String) + Send + Sync;

/// Where each step is told, if anybody wants to know.
#[derive(Clone, Default)]
pub struct Journal(Option<Arc<Hearer>>);

impl Journal {
    pub fn of(hearer: impl Fn(&'static str, String) + Send + Sync + 'static) -> Journal {
        Journal(Some(Arc::new(hearer)))
    }

    fn tell(&self, step: &'static str, what: impl FnOnce() -> String) {
        if let Some(hearer) = &self.0 {
            hearer(step, what());
        }
    }
}

/// How long each part of an attempt may take.
#[derive(Clone, Copy)]
struct Until {
    connected: Instant,
    /// All of the mail but its end is sent.
    sent: Instant,
    answered: Instant,
}

impl Until {
    fn of(now: Instant, timeout: Duration) -> Until {
        let sent = timeout - ANSWER_MIN.min(timeout / 2);
        Until { connected: now + sent / 2, sent: now + sent, answered: now + timeout }
    }
}

/// Who hands mails over.
pub struct Mailer {
    way: ArcSwap<Way>,
    ways: Ways,
    places: Semaphore,
    /// Connections that wait for the next mail, by the relay or the domain they lead to.
    kept: Mutex<Kept>,
    journal: Journal,
    pub tally: Tally,
}

#[derive(Default)]
struct Kept {
    lines: BTreeMap<String, Vec<(Instant, Line)>>,
    count: usize,
    /// Somebody looks after those whose time is over.
    is_swept: bool,
    /// Connections that were opened before new settings are not kept.
    settings: u64,
}

/// The way out as the settings have it.
struct Way {
    /// Of which settings.
    time: u64,
    hello: Option<String>,
    relay: Option<Relay>,
    names: Names,
    /// Certificates are read with the first mail that needs them, and anew after new settings. That they could not be read
    /// is not kept.
    checked: OnceCell<Arc<ClientConfig>>,
    unchecked: OnceCell<Arc<ClientConfig>>,
}

impl Way {
    fn of(mail: Option<&Mail>, ways: Ways, time: u64) -> Way {
        let own: Vec<SocketAddr> = mail.iter().flat_map(|mail| &mail.listen).map(|listener| listener.address).collect();
        Way {
            time,
            hello: mail.map(|mail| ascii_domain(&mail.domain)),
            relay: mail.and_then(|mail| mail.relay.clone()),
            names: Names::new(ways, own),
            checked: OnceCell::new(),
            unchecked: OnceCell::new(),
        }
    }

    /// Errors: no certificates can be read.
    async fn tls(&self, tls: RelayTls) -> Result<Option<Arc<ClientConfig>>, String> {
        match tls {
            RelayTls::Never => Ok(None),
            RelayTls::IfOffered => {
                Ok(Some(Arc::clone(self.unchecked.get_or_init(async || Arc::new(unchecked())).await)))
            }
            RelayTls::FromStart | RelayTls::Required => {
                let authority = self.relay.as_ref().and_then(|relay| relay.authority.clone());
                let reading = async || {
                    let reading = tokio::task::spawn_blocking(move || checked(authority.as_deref()));
                    reading.await.unwrap_or_else(|_| Err("reading the certificates broke off".into()))
                };
                self.checked.get_or_try_init(reading).await.cloned().map(Some)
            }
        }
    }
}

impl Mailer {
    /// Shape:  `mail` is `None` where there is no `[mail]`: then nothing can leave.
    pub fn new(mail: Option<&Mail>, ways: Ways, journal: Journal) -> Arc<Mailer> {
        Arc::new(Mailer {
            way: ArcSwap::from_pointee(Way::of(mail, ways, 0)),
            ways,
            places: Semaphore::new(PLACES),
            kept: Mutex::default(),
            journal,
            tally: Tally::default(),
        })
    }

    /// New settings: the next mail goes by them, and certificates are read anew.
    pub fn follow(&self, mail: Option<&Mail>) {
        let mut kept = self.kept();
        kept.settings += 1;
        kept.count = 0;
        let lines = std::mem::take(&mut kept.lines);
        self.way.store(Arc::new(Way::of(mail, self.ways, kept.settings)));
        drop(kept);
        drop(lines);
    }

    /// Hands one mail over; answers within `timeout`, whatever happens.
    pub async fn send(self: &Arc<Mailer>, mail: &MailOut, timeout: Duration) -> Result<MailTaken, MailFailure> {
        let until = Until::of(Instant::now(), timeout);
        let result = match timeout_at(until.connected, self.places.acquire()).await {
            Ok(Ok(_place)) => self.send_in_place(mail, until).await,
            Ok(Err(_)) => Err(MailFailure::Unreachable("the box ends".into())),
            // Which is no word on where it goes.
            Err(_) => Err(MailFailure::Temporary { code: 0, why: "too many mails leave at once".into() }),
        };
        self.tally.count(&result);
        let to = mail.to.short();
        // At debug level only: what a server says often names the recipient in full.
        match &result {
            Ok(taken) => tracing::debug!("mail to {to}: {} took it with {} {}", taken.by, taken.code, taken.said),
            Err(failure) => tracing::debug!("mail to {to}: {}", told(failure)),
        }
        result
    }

    async fn send_in_place(self: &Arc<Mailer>, mail: &MailOut, until: Until) -> Result<MailTaken, MailFailure> {
        let way = self.way.load_full();
        let Some(hello) = &way.hello else {
            return Err(MailFailure::Unreachable("the settings have no [mail]".into()));
        };
        let dressed = dress(mail);
        let key = if way.relay.is_some() { String::new() } else { mail.to.domain().to_owned() };
        if let Some(mut line) = self.kept_line(&key, way.time) {
            match line.hand(mail, &dressed, until).await {
                // It was closed a while ago, and nobody has this mail: it may go over a new one.
                Handed::Gone { .. } | Handed::Broken(_) if Instant::now() < until.connected => line.close_behind(),
                handed => return self.judged(handed, line, key, way.time),
            }
        }
        let line = match &way.relay {
            Some(relay) => self.to_relay(&way, hello, relay, until.connected).await,
            None => self.to_domain(&way, hello, mail.to.domain(), until.connected).await,
        };
        let mut line = line?;
        let handed = line.hand(mail, &dressed, until).await;
        self.judged(handed, line, key, way.time)
    }

    /// A connection to the relay.
    async fn to_relay(&self, way: &Way, hello: &str, relay: &Relay, until: Instant) -> Result<Line, MailFailure> {
        let Relay { host, port, tls, username, password, .. } = relay;
        let unreachable = MailFailure::Unreachable;
        let login = match (username, password) {
            (Some(name), Some(password)) => Some((name.as_str(), password)),
            _ => None,
        };
        let bare = host.trim_start_matches('[').trim_end_matches(']');
        self.journal.tell("route", || format!("to the relay {host}:{port}"));
        let addresses = match timeout_at(until, tokio::net::lookup_host((bare, *port))).await {
            Ok(Ok(addresses)) => addresses.collect::<Vec<_>>(),
            Ok(Err(error)) => return Err(unreachable(format!("nobody knows where {host} is: {error}"))),
            Err(_) => return Err(unreachable(format!("where {host} is: {TOO_LATE}"))),
        };
        let is_near = addresses.iter().all(|address| address.ip().is_loopback());
        if login.is_some() && matches!(tls, RelayTls::IfOffered | RelayTls::Never) && !is_near {
            return Err(unreachable(format!("no password goes to {host} over a line that is not surely encrypted")));
        }
        let servers = addresses.into_iter().map(|address| Server { host: bare.to_owned(), address }).collect();
        self.first_of(way, hello, servers, *tls, login, until).await
    }

    /// A connection to a server of the domain.
    async fn to_domain(&self, way: &Way, hello: &str, domain: &str, until: Instant) -> Result<Line, MailFailure> {
        self.journal.tell("route", || format!("no relay is set up: straight to the servers of {domain}"));
        let servers = way.names.servers(domain, until, &self.journal).await?;
        self.first_of(way, hello, servers, RelayTls::IfOffered, None, until).await
    }

    /// One after the other, until one lets us in.
    async fn first_of(
        &self,
        way: &Way,
        hello: &str,
        servers: Vec<Server>,
        tls: RelayTls,
        login: Option<(&str, &crate::config::Password)>,
        until: Instant,
    ) -> Result<Line, MailFailure> {
        let tls_config = way.tls(tls).await.map_err(MailFailure::Unreachable)?;
        let mut why = "it has no address".to_owned();
        for Server { host, address } in &servers {
            let mut terms = Terms { host, address: *address, hello, tls, tls_config: tls_config.clone(), login };
            let mut opened = Line::open(&terms, until, self.journal.clone()).await;
            if let (Err(Unopened::Tls(failed)), RelayTls::IfOffered) = (&opened, tls) {
                // Mail that may go in plain is not kept back because somebody's TLS is broken.
                self.journal.tell("tls", || format!("{failed}; once more in plain"));
                terms.tls = RelayTls::Never;
                opened = Line::open(&terms, until, self.journal.clone()).await;
            }
            match opened {
                Ok(line) => return Ok(line),
                Err(Unopened::Tls(failed) | Unopened::Other(failed)) => {
                    self.journal.tell("failed", || failed.clone());
                    why = failed;
                }
            }
            if Instant::now() >= until {
                break;
            }
        }
        Err(MailFailure::Unreachable(why))
    }

    /// What the core is told; the connection is kept where it can be.
    fn judged(
        self: &Arc<Mailer>,
        handed: Handed,
        line: Line,
        key: String,
        time: u64,
    ) -> Result<MailTaken, MailFailure> {
        let by = line.by.clone();
        if line.is_broken || line.mails >= MAILS_PER_LINE {
            line.close_behind();
        } else {
            self.keep(key, line, time);
        }
        match handed {
            Handed::Taken { code, said, will_tell } => Ok(MailTaken { by, code, said, will_tell }),
            Handed::Refused { code, why } if code < 500 => Err(MailFailure::Temporary { code, why }),
            Handed::Refused { code, why } => Err(MailFailure::Permanent { code, why }),
            // A word on us, not on this mail: it holds for all mail until the settings are others.
            Handed::Gone { code: code @ (530 | 534 | 535 | 538), why } => {
                Err(MailFailure::Unreachable(format!("{by} wants a login or TLS: {code} {why}")))
            }
            // A word on this mail: the server has let us in, and may take the next one.
            Handed::Gone { code, why } => Err(MailFailure::Temporary { code, why }),
            Handed::Broken(why) => Err(MailFailure::Temporary { code: 0, why }),
            Handed::Lost(why) => Err(MailFailure::Lost(why)),
            Handed::Cannot(why) => Err(MailFailure::Permanent { code: 0, why }),
        }
    }

    fn kept(&self) -> std::sync::MutexGuard<'_, Kept> {
        self.kept.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The one that was used last: the others grow old.
    fn kept_line(&self, key: &str, time: u64) -> Option<Line> {
        let mut kept = self.kept();
        if kept.settings != time {
            return None;
        }
        let lines = kept.lines.get_mut(key)?;
        let (since, line) = lines.pop()?;
        if lines.is_empty() {
            kept.lines.remove(key);
        }
        kept.count -= 1;
        drop(kept);
        if since.elapsed() < KEPT_FOR {
            return Some(line);
        }
        line.close_behind();
        None
    }

    fn keep(self: &Arc<Mailer>, key: String, line: Line, time: u64) {
        let mut kept = self.kept();
        if kept.count >= KEPT_MAX || kept.settings != time {
            drop(kept);
            return line.close_behind();
        }
        kept.count += 1;
        kept.lines.entry(key).or_default().push((Instant::now(), line));
        if !std::mem::replace(&mut kept.is_swept, true) {
            let mailer = Arc::clone(self);
            tokio::spawn(async move { mailer.sweep().await });
        }
    }

    /// Closes connections whose time is over, until none is left.
    async fn sweep(&self) {
        loop {
            tokio::time::sleep(KEPT_FOR / 4).await;
            let (old, is_over) = {
                let mut kept = self.kept();
                let mut old = Vec::new();
                for lines in kept.lines.values_mut() {
                    let count = lines.iter().take_while(|(since, _)| since.elapsed() >= KEPT_FOR).count();
                    old.extend(lines.drain(..count));
                }
                kept.lines.retain(|_, lines| !lines.is_empty());
                kept.count -= old.len();
                kept.is_swept = kept.count > 0;
                (old, !kept.is_swept)
            };
            for (_, line) in old {
                line.close_behind();
            }
            if is_over {
                return;
            }
        }
    }
}

impl Line {
    /// Nobody waits for it.
    fn close_behind(self) {
        tokio::spawn(self.close());
    }
}

/// For a log line.
pub fn told(failure: &MailFailure) -> String {
    match failure {
        MailFailure::Unreachable(why) => format!("nobody to give it to: {why}"),
        MailFailure::Temporary { code: 0, why } => format!("not now: {why}"),
        MailFailure::Temporary { code, why } => format!("not now: {code} {why}"),
        MailFailure::Permanent { code: 0, why } => format!("never: {why}"),
        MailFailure::Permanent { code, why } => format!("never: {code} {why}"),
        MailFailure::Lost(why) => format!("whether it was taken nobody knows: {why}"),
    }
}

// --- Certificates ---

fn provider() -> Arc<CryptoProvider> {
    Arc::new(rustls::crypto::ring::default_provider())
}

/// The system's authorities, and those of a file beside them.
fn roots(authority: Option<&Path>) -> Result<RootCertStore, String> {
    let found = rustls_native_certs::load_native_certs();
    let mut roots = RootCertStore::empty();
    roots.add_parsable_certificates(found.certs);
    if let Some(path) = authority {
        let failed = |why: String| format!("the certificates of {} cannot be read: {why}", path.display());
        let bytes = std::fs::read(path).map_err(|error| failed(error.to_string()))?;
        let certificates: Result<Vec<CertificateDer<'_>>, _> = CertificateDer::pem_slice_iter(&bytes).collect();
        let certificates = certificates.map_err(|error| failed(error.to_string()))?;
        if certificates.is_empty() {
            return Err(failed("there is none in it".into()));
        }
        for certificate in certificates {
            roots.add(certificate.into_owned()).map_err(|error| failed(error.to_string()))?;
        }
    }
    if roots.is_empty() {
        let why = found.errors.first().map(|error| format!(": {error}")).unwrap_or_default();
        return Err(format!("this system has no certificates to know the relay by{why}"));
    }
    Ok(roots)
}

fn checked(authority: Option<&Path>) -> Result<Arc<ClientConfig>, String> {
    let config = ClientConfig::builder_with_provider(provider())
        .with_safe_default_protocol_versions()
        .map_err(|error| error.to_string())?
        .with_root_certificates(roots(authority)?)
        .with_no_client_auth();
    Ok(Arc::new(config))
}

/// Whatever its certificate: encrypted to somebody is better than plain to everybody.
fn unchecked() -> ClientConfig {
    let provider = provider();
    let verifier = Arc::new(Unchecked(Arc::clone(&provider)));
    let builder = ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions();
    // ring has the suites of both versions.
    let builder = builder.unwrap_or_else(|_| unreachable!("ring speaks TLS 1.2 and 1.3"));
    builder.dangerous().with_custom_certificate_verifier(verifier).with_no_client_auth()
}

/// For people: what a check would have said.
fn judge(certificates: Option<&[CertificateDer<'_>]>, name: &ServerName<'_>) -> Result<(), String> {
    let (first, rest) = certificates.and_then(<[_]>::split_first).ok_or("it shows none")?;
    let roots = Arc::new(roots(None)?);
    let verifier = WebPkiServerVerifier::builder_with_provider(roots, provider()).build();
    let verifier = verifier.map_err(|error| error.to_string())?;
    let verified = verifier.verify_server_cert(first, rest, name, &[], UnixTime::now());
    verified.map(|_| ()).map_err(|error| error.to_string())
}

#[derive(Debug)]
struct Unchecked(Arc<CryptoProvider>);

impl ServerCertVerifier for Unchecked {
    fn verify_server_cert(
        &self,
        _end_entity: &CertificateDer<'_>,
        _intermediates: &[CertificateDer<'_>],
        _server_name: &ServerName<'_>,
        _ocsp_response: &[u8],
        _now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls12_signature(message, cert, dss, &self.0.signature_verification_algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls13_signature(message, cert, dss, &self.0.signature_verification_algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.signature_verification_algorithms.supported_schemes()
    }
}
