//! POST to a program of the operator's, and what it answers.
//!
//! Knows: a URL, a body, and how long the answer may take. Does not know: what was asked, or what the answer means.
//! The requests block, so they run on the threads that tokio keeps for such work: [`PLACES`] at a time, [`PLACES_PER_PROGRAM`] of them at
//! one program, so that one that hangs leaves room for the others; [`WAITING_MAX`] more wait for a place. Whoever asks has his answer when
//! the time is over, even where the thread still hangs in a name server's silence; its place is free only when it has come back.
//! One connection for each request: one kept open might have been closed by the other side a moment ago, and whether a POST on it was
//! heard nobody could tell. Nothing is followed and nothing is kept: no redirect, no proxy out of the environment, no cookie.
//! A URL may hold a secret: no log line and no error has its query or what stands before `@`.

use std::collections::BTreeMap;
use std::io::{self, Read as _};
use std::net::ToSocketAddrs as _;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use rustls::pki_types::CertificateDer;
use tokio::sync::Semaphore;
use ureq::Agent;
use ureq::config::Config;
use ureq::http::Uri;
use ureq::tls::{Certificate, RootCerts, TlsConfig};
use ureq::unversioned::resolver::{DefaultResolver, ResolvedSocketAddrs, Resolver};
use ureq::unversioned::transport::{DefaultConnector, NextTimeout};

use crate::seam::{HTTP_ANSWER_BYTES_MAX, HttpAnswer, HttpFailure};

/// Requests at a time.
const PLACES: usize = 8;
/// Of them at one host and port.
const PLACES_PER_PROGRAM: usize = 4;
/// Requests that wait for a place; with more, new ones fail at once.
const WAITING_MAX: usize = 256;
/// Of an answer, in which a program tells nothing that we read.
const HEADER_BYTES_MAX: usize = 16 * 1024;

/// What became of the requests; told by `status`.
#[derive(Default)]
pub struct Tally {
    answered: AtomicU64,
    failed: AtomicU64,
    refused: AtomicU64,
}

impl Tally {
    pub fn counts(&self) -> [(&'static str, u64); 3] {
        let of = |count: &AtomicU64| count.load(Ordering::Relaxed);
        [
            ("hook_posts_answered", of(&self.answered)),
            ("hook_posts_failed", of(&self.failed)),
            ("hook_posts_refused", of(&self.refused)),
        ]
    }
}

/// Who asks them.
pub struct Hooks {
    places: Arc<Semaphore>,
    /// By scheme, host and port; those that nobody waits for go with the next one that comes.
    programs: Mutex<BTreeMap<String, Arc<Semaphore>>>,
    under_way: AtomicUsize,
    plain: Agent,
    /// With the system's certificates, which are read when the first `https` is asked for, and anew after new settings: of which time.
    secure: Mutex<Option<(u64, Agent)>>,
    certificates_time: AtomicU64,
    pub tally: Tally,
}

impl Default for Hooks {
    fn default() -> Hooks {
        Hooks {
            places: Arc::new(Semaphore::new(PLACES)),
            programs: Mutex::default(),
            under_way: AtomicUsize::new(0),
            plain: agent(&[]),
            secure: Mutex::default(),
            certificates_time: AtomicU64::new(0),
            tally: Tally::default(),
        }
    }
}

impl Hooks {
    /// Certificates may have come or gone: who renews them runs `encamp apply`. Never waits: they may be being read.
    pub fn forget_certificates(&self) {
        self.certificates_time.fetch_add(1, Ordering::Relaxed);
    }

    /// Asks; answers within `timeout`, whatever happens.
    pub async fn post(
        self: &Arc<Hooks>,
        url: String,
        body: Vec<u8>,
        timeout: Duration,
    ) -> Result<HttpAnswer, HttpFailure> {
        let until = Instant::now() + timeout;
        let _counted = match Counted::of(self) {
            Some(counted) => counted,
            None => {
                self.tally.refused.fetch_add(1, Ordering::Relaxed);
                return Err(HttpFailure(format!("{WAITING_MAX} requests to programs wait already")));
            }
        };
        let shown = shown(&url);
        let result = match tokio::time::timeout(timeout, self.in_place(url, body, until)).await {
            Ok(result) => result,
            Err(_) => Err(HttpFailure(TOO_LATE.into())),
        };
        let (count, told) = match &result {
            Ok(answer) => (&self.tally.answered, format!("answered {}", answer.status)),
            Err(HttpFailure(why)) => (&self.tally.failed, why.clone()),
        };
        count.fetch_add(1, Ordering::Relaxed);
        tracing::debug!("POST to {shown}: {told}");
        result
    }

    async fn in_place(
        self: &Arc<Hooks>,
        url: String,
        body: Vec<u8>,
        until: Instant,
    ) -> Result<HttpAnswer, HttpFailure> {
        let closed = |_| HttpFailure("the box ends".into());
        let program = self.places_at(&url).acquire_owned().await.map_err(closed)?;
        let place = Arc::clone(&self.places).acquire_owned().await.map_err(closed)?;
        let hooks = Arc::clone(self);
        let asking = tokio::task::spawn_blocking(move || {
            let _places = (program, place);
            hooks.ask(&url, &body, until)
        });
        asking.await.unwrap_or_else(|_| Err(HttpFailure("the request broke off".into())))
    }

    /// The places at one program.
    fn places_at(&self, url: &str) -> Arc<Semaphore> {
        let program = url.parse::<Uri>().map_or_else(
            |_| String::new(),
            |uri| {
                let authority = uri.authority().map(|authority| (authority.host().to_owned(), authority.port_u16()));
                format!("{:?} {authority:?}", uri.scheme_str())
            },
        );
        let mut programs = lock(&self.programs);
        programs.retain(|name, places| *name == program || Arc::strong_count(places) > 1);
        Arc::clone(programs.entry(program).or_insert_with(|| Arc::new(Semaphore::new(PLACES_PER_PROGRAM))))
    }

    /// Blocks, but for a name that nobody resolves not much longer than until then.
    fn ask(&self, url: &str, body: &[u8], until: Instant) -> Result<HttpAnswer, HttpFailure> {
        let agent = if url.get(..6).is_some_and(|start| start.eq_ignore_ascii_case("https:")) {
            self.secure()?
        } else {
            self.plain.clone()
        };
        let left = until.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return Err(HttpFailure(TOO_LATE.into()));
        }
        let request = agent
            .post(url)
            .config()
            .timeout_global(Some(left))
            .build()
            .header("Content-Type", "application/json")
            .header("Connection", "close");
        let mut response = request.send(body).map_err(words)?;
        let content_type = response.headers().get("content-type").and_then(|value| value.to_str().ok());
        let content_type = content_type.and_then(|value| value.split(';').next()).unwrap_or_default();
        let content_type = content_type.trim().to_ascii_lowercase();
        let status = response.status().as_u16();
        // One more than may be: by it whoever judges the answer sees that it is too long.
        let (mut body, limit) = (Vec::new(), HTTP_ANSWER_BYTES_MAX as u64 + 1);
        let read = response.body_mut().as_reader().take(limit).read_to_end(&mut body);
        read.map_err(|error| words(error.into()))?;
        Ok(HttpAnswer { status, content_type, body })
    }

    fn secure(&self) -> Result<Agent, HttpFailure> {
        let mut secure = lock(&self.secure);
        let time = self.certificates_time.load(Ordering::Relaxed);
        if let Some((of, agent)) = &*secure
            && *of == time
        {
            return Ok(agent.clone());
        }
        let found = rustls_native_certs::load_native_certs();
        if found.certs.is_empty() {
            let why = found.errors.first().map(|error| format!(": {error}")).unwrap_or_default();
            return Err(HttpFailure(format!("this system has no certificates to know the program by{why}")));
        }
        Ok(secure.insert((time, agent(&found.certs))).1.clone())
    }
}

const TOO_LATE: &str = "no answer in time";

/// One request of those that are bounded.
struct Counted<'a>(&'a AtomicUsize);

impl Counted<'_> {
    fn of(hooks: &Hooks) -> Option<Counted<'_>> {
        let counted = Counted(&hooks.under_way);
        // Counted before it is compared, and given back by the drop: two that come together cannot both take the last place.
        (counted.0.fetch_add(1, Ordering::Relaxed) < PLACES + WAITING_MAX).then_some(counted)
    }
}

impl Drop for Counted<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

/// Nobody panics half way through a change, so a poisoned lock is as good as any.
fn lock<T>(of: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    of.lock().unwrap_or_else(PoisonError::into_inner)
}

fn agent(certificates: &[CertificateDer<'_>]) -> Agent {
    let roots: Vec<_> = certificates.iter().map(|certificate| Certificate::from_der(certificate).to_owned()).collect();
    let tls = TlsConfig::builder()
        .root_certs(RootCerts::from(roots))
        .unversioned_rustls_crypto_provider(Arc::new(rustls::crypto::ring::default_provider()))
        .build();
    let config = Config::builder()
        .user_agent(concat!("encamp/", env!("CARGO_PKG_VERSION")))
        .accept("application/json, text/plain")
        // What it says is the node's to judge.
        .http_status_as_error(false)
        .max_redirects(0)
        .max_redirects_will_error(false)
        .proxy(None)
        .max_idle_connections(0)
        .max_response_header_size(HEADER_BYTES_MAX)
        .tls_config(tls)
        .build();
    Agent::with_parts(config, DefaultConnector::default(), OnThisThread)
}

/// Asks for a name on the thread that holds the place: ureq's own resolver makes a thread for each, and where the name server is silent
/// there would be no bound to how many of them wait.
#[derive(Debug)]
struct OnThisThread;

impl Resolver for OnThisThread {
    fn resolve(&self, uri: &Uri, _: &Config, _: NextTimeout) -> Result<ResolvedSocketAddrs, ureq::Error> {
        let asked = uri.scheme().zip(uri.authority());
        let host = asked.and_then(|(scheme, authority)| DefaultResolver::host_and_port(scheme, authority));
        let host = host.ok_or_else(|| ureq::Error::BadUri(String::new()))?;
        let mut found = self.empty();
        // Those of a program with more addresses than ureq takes are as good as each other.
        host.to_socket_addrs()?.take(ADDRESSES_MAX).for_each(|address| found.push(address));
        if found.is_empty() { Err(ureq::Error::HostNotFound) } else { Ok(found) }
    }
}

const ADDRESSES_MAX: usize = 8;

/// For the operator, who knows the URL.
fn words(error: ureq::Error) -> HttpFailure {
    use ureq::Error;
    HttpFailure(match error {
        Error::Timeout(_) => TOO_LATE.into(),
        Error::HostNotFound => "nobody knows its name".into(),
        // Told in ureq's words they would show it.
        Error::BadUri(_) | Error::RequireHttpsOnly(_) | Error::Http(_) => "its URL is none that can be asked".into(),
        Error::LargeResponseHeader(..) => "the head of its answer is too long".into(),
        Error::Protocol(error) => format!("what it answers is no HTTP: {error}"),
        Error::Io(error) => match error.kind() {
            io::ErrorKind::ConnectionRefused => "nobody listens there".into(),
            io::ErrorKind::TimedOut => TOO_LATE.into(),
            io::ErrorKind::UnexpectedEof | io::ErrorKind::ConnectionReset | io::ErrorKind::BrokenPipe => {
                "it closed the connection before its answer was whole".into()
            }
            _ => error.to_string(),
        },
        error => error.to_string(),
    })
}

/// The URL without what may be a secret.
fn shown(url: &str) -> String {
    url.parse::<Uri>().map_or_else(
        |_| "a URL that cannot be read".into(),
        |uri| {
            let host = uri.authority().map(|authority| authority.as_str().rsplit('@').next().unwrap_or_default());
            format!("{}://{}{}", uri.scheme_str().unwrap_or_default(), host.unwrap_or_default(), uri.path())
        },
    )
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;
    use std::net::{SocketAddr, TcpListener, TcpStream};
    use std::sync::mpsc;
    use std::thread;

    use super::*;

    const PATIENT: Duration = Duration::from_secs(10);
    const IMPATIENT: Duration = Duration::from_millis(300);

    /// A program that does as `answer` does with each connection, until it returns `false`.
    fn program(answer: impl Fn(&mut TcpStream) -> bool + Send + Sync + 'static) -> SocketAddr {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let answer = Arc::new(answer);
        thread::spawn(move || {
            for mut stream in listener.incoming().map_while(Result::ok) {
                let answer = Arc::clone(&answer);
                thread::spawn(move || answer(&mut stream));
            }
        });
        address
    }

    /// Reads one request to the end of its body.
    fn request(stream: &mut TcpStream) -> String {
        let mut bytes = Vec::new();
        loop {
            let mut some = [0; 4096];
            let count = stream.read(&mut some).unwrap_or(0);
            bytes.extend_from_slice(&some[..count]);
            let text = String::from_utf8_lossy(&bytes).into_owned();
            let length = text
                .to_ascii_lowercase()
                .split("content-length: ")
                .nth(1)
                .map(|rest| rest.split("\r\n").next().unwrap().parse::<usize>().unwrap());
            let body = text.split_once("\r\n\r\n").map(|(_, body)| body.len());
            if count == 0 || body.is_some_and(|body| Some(body) >= length) {
                return text;
            }
        }
    }

    fn answers(text: impl Into<String>) -> impl Fn(&mut TcpStream) -> bool {
        let text = text.into();
        move |stream| {
            request(stream);
            let _ = stream.write_all(text.as_bytes());
            true
        }
    }

    fn runtime() -> tokio::runtime::Runtime {
        tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap()
    }

    fn post(url: String, timeout: Duration) -> Result<HttpAnswer, HttpFailure> {
        runtime().block_on(Arc::<Hooks>::default().post(url, b"{}".to_vec(), timeout))
    }

    fn check(
        answer: impl Fn(&mut TcpStream) -> bool + Send + Sync + 'static,
        expected: Result<(u16, &str, &str), &str>,
    ) {
        let url = format!("http://{}/sms", program(answer));
        let found = post(url, PATIENT);
        let found = found.as_ref().map(|HttpAnswer { status, content_type, body }| {
            (*status, content_type.as_str(), std::str::from_utf8(body).unwrap())
        });
        assert_eq!(found.map_err(|HttpFailure(why)| why.as_str()), expected);
    }

    #[test]
    fn a_program_is_told_json_by_post_and_its_answer_comes_back() {
        let (sender, asked) = mpsc::channel();
        let address = program(move |stream| {
            sender.send(request(stream)).unwrap();
            let _ = stream.write_all(
                b"HTTP/1.1 200 OK\r\nContent-Type: Application/JSON; charset=utf-8\r\nContent-Length: 13\r\n\r\n{\"text\":\"hi\"}",
            );
            true
        });
        let url = format!("http://ana:secret@{address}/sms?key=1");
        let answer = runtime().block_on(Arc::<Hooks>::default().post(url, b"{\"id\":1}".to_vec(), PATIENT));
        let expected =
            HttpAnswer { status: 200, content_type: "application/json".into(), body: b"{\"text\":\"hi\"}".into() };
        assert_eq!(answer, Ok(expected));
        let asked = asked.recv().unwrap();
        assert!(asked.starts_with("POST /sms?key=1 HTTP/1.1\r\n") && asked.ends_with("\r\n\r\n{\"id\":1}"), "{asked}");
        let headers: Vec<String> = asked.lines().map(str::to_ascii_lowercase).collect();
        for expected in [
            "content-type: application/json",
            &format!("user-agent: encamp/{}", env!("CARGO_PKG_VERSION")),
            "accept: application/json, text/plain",
            "content-length: 8",
            "connection: close",
            // base64 of "ana:secret" (RFC 7617), in small letters here.
            "authorization: basic yw5honnly3jlda==",
        ] {
            assert!(headers.iter().any(|header| header == expected), "no {expected:?} in {asked}");
        }
        assert!(!asked.to_ascii_lowercase().contains("cookie") && !asked.contains("accept-encoding"), "{asked}");
    }

    #[test]
    fn every_status_is_an_answer_and_no_redirect_is_followed() {
        let plain = "HTTP/1.1 204 No Content\r\n\r\n";
        check(answers(plain), Ok((204, "", "")));
        check(
            answers("HTTP/1.1 500 No\r\nContent-Type: text/plain\r\nContent-Length: 4\r\n\r\nnope"),
            Ok((500, "text/plain", "nope")),
        );
        for status in [301, 302, 303, 307, 308] {
            // Who follows it comes to a program that would be heard.
            let (sender, followed) = mpsc::channel();
            let elsewhere = program(move |stream| {
                sender.send(()).unwrap();
                answers("HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")(stream)
            });
            let redirect =
                format!("HTTP/1.1 {status} There\r\nLocation: http://{elsewhere}/\r\nContent-Length: 0\r\n\r\n");
            check(answers(redirect), Ok((status, "", "")));
            assert!(followed.try_recv().is_err(), "{status} was followed");
        }
    }

    #[test]
    fn of_an_answer_that_is_too_long_as_much_is_read_as_shows_it() {
        let with_length = |length: usize| {
            format!(
                "HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nContent-Length: {length}\r\n\r\n{}",
                "a".repeat(length)
            )
        };
        let (longest, too_long) = ("a".repeat(HTTP_ANSWER_BYTES_MAX), "a".repeat(HTTP_ANSWER_BYTES_MAX + 1));
        check(answers(with_length(HTTP_ANSWER_BYTES_MAX)), Ok((200, "text/plain", &longest)));
        for more in [1, 2, 100_000] {
            check(answers(with_length(HTTP_ANSWER_BYTES_MAX + more)), Ok((200, "text/plain", &too_long)));
        }
        // One that does not say how long it is, and never ends.
        let endless = |stream: &mut TcpStream| {
            request(stream);
            let _ = stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\n\r\n");
            while stream.write_all(&[b'a'; 4096]).is_ok() {}
            true
        };
        check(endless, Ok((200, "text/plain", &too_long)));
        let long_head = format!("HTTP/1.1 200 OK\r\nX: {}\r\n\r\n", "a".repeat(2 * HEADER_BYTES_MAX));
        check(answers(long_head), Err("the head of its answer is too long"));
    }

    #[test]
    fn who_breaks_off_or_speaks_something_else_is_a_failure_in_words() {
        let broken = "it closed the connection before its answer was whole";
        check(|_| false, Err(broken));
        check(answers(""), Err(broken));
        check(answers("HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nhalf"), Err(broken));
        let free = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
        let failed = |url: String| post(url, PATIENT).unwrap_err().0;
        assert_eq!(failed(format!("http://{free}/")), "nobody listens there");
        let odd = failed(format!("http://{}/", program(answers("RTSP/1.0 200 OK\r\n\r\n"))));
        assert!(odd.starts_with("what it answers is no HTTP"), "{odd}");
        for url in ["ftp://127.0.0.1/?key=secret", "/sms?key=secret", "http:///?key=secret", "", "http://[/?key=secret"]
        {
            assert_eq!(failed(url.into()), "its URL is none that can be asked", "{url}");
        }
        // A name that no name server may know (RFC 6761 §6.4).
        let unknown = failed("http://hook.invalid/?key=secret".into());
        assert!(!unknown.is_empty() && !unknown.contains("secret"), "{unknown}");
    }

    // Made for this test: an authority, a certificate of its for 127.0.0.1, and that one's key.
    const AUTHORITY: &str = "MIIBijCCAS+gAwIBAgIUJdaR/LPiQ75aoJQESW7q3LW4WNcwCgYIKoZIzj0EAwIwGTEXMBUGA1UEAwwOdGVzdCBhdXRob3JpdHkw\
        IBcNMjYxMTIyMDAwNDI0WhgPMjEyNjEwMjkwMDA0MjRaMBkxFzAVBgNVBAMMDnRlc3QgYXV0aG9yaXR5MFkwEwYHKoZIzj0CAQYI\
        KoZIzj0DAQcDQgAEuph13oscxbmCrietq5pVLqKz3oG48ZqdBdhTsBKFSuPwrdR1vELrdneEO3xV02pONMuDN8nl5p/3UxfPmMJO\
        aaNTMFEwHQYDVR0OBBYEFK3fk1OW84EiK9KDDBodOHlAx18bMB8GA1UdIwQYMBaAFK3fk1OW84EiK9KDDBodOHlAx18bMA8GA1Ud\
        EwEB/wQFMAMBAf8wCgYIKoZIzj0EAwIDSQAwRgIhANIwhQh1uRO8WtXGLqqSPImQ81sioFgjelbfM5zmYT5SAiEA2Lmkrt7Q/yAe\
        nfJinENkmO5UFTVvuvy6/4nTapBWQFM=";
    const CERTIFICATE: &str = "MIIBdjCCAR2gAwIBAgIBAjAKBggqhkjOPQQDAjAZMRcwFQYDVQQDDA50ZXN0IGF1dGhvcml0eTAgFw0yNjExMjIwMDA0MjRaGA8y\
        MTI2MTAyOTAwMDQyNFowDzENMAsGA1UEAwwEaG9vazBZMBMGByqGSM49AgEGCCqGSM49AwEHA0IABI39FRWua7N96K1jRB+jX731\
        TQ0BytxTiUyZN4OAWB9FH8PTYIi5mrS8IQveGez/v4szMJjefsYiThmPns8Z6e6jXjBcMA8GA1UdEQQIMAaHBH8AAAEwCQYDVR0T\
        BAIwADAdBgNVHQ4EFgQUqSx/ZytIqc2yojak+toU3kRkmzcwHwYDVR0jBBgwFoAUrd+TU5bzgSIr0oMMGh04eUDHXxswCgYIKoZI\
        zj0EAwIDRwAwRAIgE7GDd+lFhC9fjnBZ+UPpZuOdiLFRu6mtidmp6aCqvSwCIFnDGdJtlzuNPBr9eO3bDXGlg9hwei1ctZziZj3j\
        dM0J";
    const KEY: &str = "MIGHAgEAMBMGByqGSM49AgEGCCqGSM49AwEHBG0wawIBAQQgJ9SHNVlcF3Xr1TS4fvDlk34S8MTSVpOF+HATn4X2Xp+hRANCAASN\
        /RUVrmuzfeitY0Qfo1+99U0NAcrcU4lMmTeDgFgfRR/D02CIuZq0vCEL3hns/7+LMzCY3n7GIk4Zj57PGenu";

    #[test]
    fn https_is_for_who_shows_a_certificate_of_an_authority_that_this_system_knows() {
        use rustls::pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer};
        use rustls::{ServerConfig, ServerConnection, StreamOwned};
        let der = |text: &str| base64::Engine::decode(&base64::engine::general_purpose::STANDARD, text).unwrap();
        let config = ServerConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()))
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_no_client_auth()
            .with_single_cert(vec![der(CERTIFICATE).into()], PrivateKeyDer::from(PrivatePkcs8KeyDer::from(der(KEY))))
            .unwrap();
        let config = Arc::new(config);
        let address = program(move |stream| {
            let connection = ServerConnection::new(Arc::clone(&config)).unwrap();
            let mut stream = StreamOwned::new(connection, stream);
            let mut some = [0; 4096];
            while !some.windows(4).any(|end| end == b"\r\n\r\n") {
                if !matches!(stream.read(&mut some), Ok(1..)) {
                    return false;
                }
            }
            stream.write_all(b"HTTP/1.1 204 No Content\r\n\r\n").is_ok()
        });
        let hooks = Arc::<Hooks>::default();
        let ask = |authorities: &[CertificateDer<'_>]| {
            *lock(&hooks.secure) = Some((0, agent(authorities)));
            let asked = hooks.post(format!("https://{address}/"), b"{}".to_vec(), PATIENT);
            runtime().block_on(asked).map(|answer| answer.status)
        };
        assert_eq!(ask(&[der(AUTHORITY).into()]), Ok(204));
        let why = ask(&[der(CERTIFICATE).into()]).unwrap_err().0;
        assert!(why.contains("UnknownIssuer") || why.contains("BadSignature"), "{why}");
        let why = ask(&[]).unwrap_err().0;
        assert!(why.contains("UnknownIssuer"), "{why}");
    }

    #[test]
    fn who_speaks_no_tls_is_no_program_for_https() {
        let plain = program(|stream| stream.write_all(b"HTTP/1.1 400 Bad Request\r\n\r\n").is_ok());
        let why = post(format!("HTTPS://{plain}/?key=secret"), PATIENT).unwrap_err().0;
        // Which of the two depends on the machine.
        assert!(why.contains("InvalidContentType") || why.starts_with("this system has no certificates"), "{why}");
    }

    #[test]
    fn an_answer_that_comes_too_late_is_none_however_it_is_late() {
        let silent = |_: &mut TcpStream| {
            thread::sleep(PATIENT);
            true
        };
        let dripping = |stream: &mut TcpStream| {
            request(stream);
            let _ = stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\n");
            while stream.write_all(b"a").is_ok() {
                thread::sleep(Duration::from_millis(20));
            }
            true
        };
        for address in [program(silent), program(dripping)] {
            assert_eq!(post(format!("http://{address}/"), IMPATIENT), Err(HttpFailure(TOO_LATE.into())));
        }
    }

    /// A program that hangs has its places and no more, and those that wait for one have their answers in time as well.
    #[test]
    fn one_program_that_hangs_leaves_room_for_the_others_and_every_request_is_answered() {
        let hangs = program(|stream| {
            request(stream);
            thread::sleep(PATIENT);
            true
        });
        let works = program(answers("HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n"));
        let hooks = Arc::<Hooks>::default();
        runtime().block_on(async {
            let asked = |address, timeout| {
                let hooks = Arc::clone(&hooks);
                tokio::spawn(async move { hooks.post(format!("http://{address}/"), Vec::new(), timeout).await })
            };
            let slow: Vec<_> = (0..PLACES + WAITING_MAX).map(|_| asked(hangs, Duration::from_secs(2))).collect();
            while hooks.under_way.load(Ordering::Relaxed) < PLACES + WAITING_MAX {
                tokio::task::yield_now().await;
            }
            // There are as many as may wait.
            let refused = asked(hangs, PATIENT).await.unwrap().unwrap_err().0;
            assert!(refused.contains("wait already"), "{refused}");
            for slow in slow {
                assert_eq!(slow.await.unwrap(), Err(HttpFailure(TOO_LATE.into())));
            }
            // The four that were asked still hang here or there; the other program is heard all the same.
            let slow: Vec<_> = (0..PLACES).map(|_| asked(hangs, PATIENT)).collect();
            assert_eq!(asked(works, PATIENT).await.unwrap().map(|answer| answer.status), Ok(200));
            assert!(slow.iter().all(|slow| !slow.is_finished()), "those that hang were not in its way");
        });
        let counts = hooks.tally.counts().map(|(_, count)| count);
        assert_eq!((counts[1], counts[2]), ((PLACES + WAITING_MAX) as u64, 1));
    }

    #[test]
    fn a_url_is_shown_without_its_secrets() {
        assert_eq!(shown("http://ana:pw@127.0.0.1:8000/sms?key=1"), "http://127.0.0.1:8000/sms");
        assert_eq!(shown("https://hook.example"), "https://hook.example/");
        assert_eq!(shown("http://[/?key=1"), "a URL that cannot be read");
    }
}
