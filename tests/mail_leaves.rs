//! How mail leaves: real sockets, a server of mail that misbehaves in every way, and a name server of the test's own.
//!
//! The certificates of `data/mail` were made for these tests: an authority, and a server's for 127.0.0.1 and mx.example.org.

#![cfg(feature = "box")]
#![allow(clippy::disallowed_types, clippy::disallowed_methods)] // a test of sockets

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::Path;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use encamp::config::Password;
use encamp::config::mailing::{Mail, MailListener, MailProtocol, Relay, RelayTls};
use encamp::mail::address::Address;
use encamp::mail::{AutoSubmitted, Body, MailFailure, MailOut, MailTaken, Notify};
use encamp::shell::mail_test::{letter, tested};
use encamp::shell::relay::{Journal, Mailer, Ways};
use hickory_proto::op::{Message, MessageType, OpCode, ResponseCode};
use hickory_proto::rr::rdata::{A, AAAA, MX};
use hickory_proto::rr::{Name, RData, Record, RecordType};
use rustls::ServerConfig;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use tokio::io::{AsyncBufReadExt, AsyncRead, AsyncWrite, AsyncWriteExt, BufReader};
use tokio::net::{TcpListener, UdpSocket};
use tokio_rustls::TlsAcceptor;

const PATIENT: Duration = Duration::from_secs(30);
const IMPATIENT: Duration = Duration::from_secs(2);

// --- A server of mail ---

/// What the server does where a script says so.
#[derive(Clone)]
enum Act {
    Say(&'static str),
    Drop,
    Silent,
    /// The answer, after a while.
    Late(Duration, &'static str),
    /// The answer to DATA, this in the middle of the mail, and nothing more is read; `true`: it closes, too.
    Midway(&'static str, bool),
    /// The answer, and TLS behind it.
    Tls(&'static str),
}

use Act::{Drop as Hang, Late, Midway, Say, Silent, Tls};

/// For the n-th connection (from 0 on) and a verb: CONNECT, EHLO, MAIL, `.` and so on; `None`: as a good server does.
type Script = dyn Fn(usize, &str) -> Option<Act> + Send + Sync;

#[derive(Clone, Default)]
struct Seen {
    /// Every line, but those of mails.
    lines: Arc<Mutex<Vec<String>>>,
    mails: Arc<Mutex<Vec<String>>>,
    connections: Arc<AtomicUsize>,
}

impl Seen {
    fn lines(&self) -> Vec<String> {
        self.lines.lock().unwrap().clone()
    }

    fn mails(&self) -> Vec<String> {
        self.mails.lock().unwrap().clone()
    }

    fn count(&self) -> usize {
        self.connections.load(Ordering::SeqCst)
    }
}

async fn server(script: impl Fn(usize, &str) -> Option<Act> + Send + Sync + 'static) -> (SocketAddr, Seen) {
    server_at("127.0.0.1:0".parse().unwrap(), script).await
}

async fn server_at(
    address: SocketAddr,
    script: impl Fn(usize, &str) -> Option<Act> + Send + Sync + 'static,
) -> (SocketAddr, Seen) {
    let listener = TcpListener::bind(address).await.unwrap();
    let address = listener.local_addr().unwrap();
    let (seen, script): (_, Arc<Script>) = (Seen::default(), Arc::new(script));
    let for_task = seen.clone();
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            let count = for_task.connections.fetch_add(1, Ordering::SeqCst);
            let (script, seen) = (Arc::clone(&script), for_task.clone());
            tokio::spawn(async move {
                let first = script(count, "TLS");
                let stream: Box<dyn Both> = match first {
                    Some(Tls(_)) => match acceptor().accept(stream).await {
                        Ok(stream) => Box::new(stream),
                        Err(_) => return,
                    },
                    _ => Box::new(stream),
                };
                converse(stream, count, &*script, &seen).await;
            });
        }
    });
    (address, seen)
}

trait Both: AsyncRead + AsyncWrite + Unpin + Send {}
impl<T: AsyncRead + AsyncWrite + Unpin + Send> Both for T {}

fn acceptor() -> TlsAcceptor {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data/mail");
    let certificate = CertificateDer::from_pem_file(folder.join("relay.pem")).unwrap();
    let key = PrivateKeyDer::from_pem_file(folder.join("relay.key")).unwrap();
    let config = ServerConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()))
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(vec![certificate], key)
        .unwrap();
    TlsAcceptor::from(Arc::new(config))
}

fn usual(verb: &str) -> Act {
    match verb {
        "CONNECT" => Say("220 mx.example.org ESMTP"),
        "EHLO" => Say("250-mx.example.org\r\n250-SIZE 100000\r\n250-8BITMIME\r\n250 DSN"),
        "DATA" => Say("354 go on"),
        "." => Say("250 2.0.0 queued as 4711"),
        "AUTH" => Say("235 2.7.0 welcome"),
        "QUIT" => Say("221 bye"),
        _ => Say("250 2.0.0 ok"),
    }
}

async fn converse(stream: Box<dyn Both>, count: usize, script: &Script, seen: &Seen) {
    let mut stream = BufReader::new(stream);
    let mut verb = "CONNECT".to_owned();
    loop {
        let mut act = script(count, &verb).unwrap_or_else(|| usual(&verb));
        if let Late(pause, text) = act {
            tokio::time::sleep(pause).await;
            act = Say(text);
        }
        match act {
            Say(text) | Late(_, text) => {
                if stream.write_all(format!("{text}\r\n").as_bytes()).await.is_err() {
                    return;
                }
                if verb == "DATA" && text.starts_with('3') {
                    let mut mail = String::new();
                    loop {
                        let mut line = String::new();
                        if !matches!(stream.read_line(&mut line).await, Ok(1..)) {
                            return;
                        }
                        if line == ".\r\n" {
                            break;
                        }
                        mail.push_str(line.strip_prefix('.').unwrap_or(&line));
                    }
                    seen.mails.lock().unwrap().push(mail);
                    verb = ".".into();
                    continue;
                }
            }
            Midway(text, closes) => {
                stream.write_all(b"354 go on\r\n").await.unwrap();
                let mut line = String::new();
                stream.read_line(&mut line).await.unwrap();
                stream.write_all(format!("{text}\r\n").as_bytes()).await.unwrap();
                if closes {
                    return;
                }
                std::future::pending().await
            }
            Hang => return,
            Silent => std::future::pending().await,
            Tls(text) => {
                if stream.write_all(format!("{text}\r\n").as_bytes()).await.is_err() {
                    return;
                }
                let Ok(secured) = acceptor().accept(stream.into_inner()).await else { return };
                stream = BufReader::new(Box::new(secured));
                seen.lines.lock().unwrap().push("(TLS)".into());
            }
        }
        let mut line = String::new();
        if !matches!(stream.read_line(&mut line).await, Ok(1..)) {
            return;
        }
        let line = line.trim_end().to_owned();
        verb = line.split(' ').next().unwrap_or_default().to_ascii_uppercase();
        seen.lines.lock().unwrap().push(line);
    }
}

// --- A name server ---

/// What it says of a name, for MX and A; `Err`: with this code.
type Zone = fn(&str, RecordType) -> Result<Vec<RData>, ResponseCode>;

async fn name_server(zone: Zone) -> SocketAddr {
    name_server_at("127.0.0.1:0".parse().unwrap(), zone).await
}

async fn name_server_at(address: SocketAddr, zone: Zone) -> SocketAddr {
    let socket = UdpSocket::bind(address).await.unwrap();
    let address = socket.local_addr().unwrap();
    tokio::spawn(async move {
        let mut buffer = [0; 4096];
        while let Ok((length, from)) = socket.recv_from(&mut buffer).await {
            let Ok(question) = Message::from_vec(&buffer[..length]) else { continue };
            let query = question.queries[0].clone();
            let mut answer = Message::new(question.metadata.id, MessageType::Response, OpCode::Query);
            answer.metadata.recursion_available = true;
            let name = query.name().to_ascii();
            match zone(name.trim_end_matches('.'), query.query_type()) {
                Ok(data) => {
                    for data in data {
                        answer.add_answer(Record::from_rdata(query.name().clone(), 60, data));
                    }
                }
                Err(code) => answer.metadata.response_code = code,
            }
            answer.add_query(query);
            socket.send_to(&answer.to_vec().unwrap(), from).await.unwrap();
        }
    });
    address
}

fn mx(preference: u16, host: &str) -> RData {
    RData::MX(MX::new(preference, Name::from_ascii(host).unwrap()))
}

fn a(text: &str) -> RData {
    RData::A(A(text.parse().unwrap()))
}

fn aaaa(text: &str) -> RData {
    RData::AAAA(AAAA(text.parse().unwrap()))
}

// --- Mails and mailers ---

fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap()
}

fn address(text: &str) -> Address {
    Address::parse(text).unwrap()
}

fn mail_to(to: &str) -> MailOut {
    MailOut {
        from: Some(address("+15550001@sms.gsm.example")),
        to: address(to),
        header_from: address("+15550001@sms.gsm.example"),
        header_from_name: "Ana".into(),
        subject: "Hello".into(),
        body: Body::Text("Words\n.\nmore words\n".into()),
        message_id: "1.0123456789abcdef@sms.gsm.example".into(),
        in_reply_to: None,
        references: Vec::new(),
        date_s: 1_800_000_000,
        auto_submitted: AutoSubmitted::No,
        notify: Notify { success: true, failure: true, delay: false },
        envid: Some("17+a".into()),
        traces: vec!["sms.gsm.example".into()],
    }
}

fn carol() -> MailOut {
    mail_to("carol@example.org")
}

fn relay(server: SocketAddr) -> Mail {
    let relay = Relay {
        host: server.ip().to_string(),
        port: server.port(),
        tls: RelayTls::Never,
        username: None,
        password: None,
        authority: None,
    };
    Mail { relay: Some(relay), ..Mail::of("gsm.example") }
}

fn secured(server: SocketAddr, tls: RelayTls, authority: Option<&str>) -> Mail {
    let mut mail = relay(server);
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data/mail");
    if let Some(relay) = &mut mail.relay {
        relay.tls = tls;
        relay.authority = authority.map(|file| folder.join(file));
    }
    mail
}

fn with_login(mut mail: Mail) -> Mail {
    if let Some(relay) = &mut mail.relay {
        relay.username = Some("ana".into());
        relay.password = Some(Password("s3cret".into()));
    }
    mail
}

fn mailer(mail: &Mail) -> Arc<Mailer> {
    Mailer::new(Some(mail), Ways::default(), Journal::default())
}

async fn sent(mail: &Mail, out: &MailOut, timeout: Duration) -> Result<MailTaken, MailFailure> {
    mailer(mail).send(out, timeout).await
}

/// In a word: `taken`, or which failure with which code.
fn word(result: &Result<MailTaken, MailFailure>) -> String {
    match result {
        Ok(taken) => format!("taken {}", taken.code),
        Err(MailFailure::Temporary { code, .. }) => format!("temporary {code}"),
        Err(MailFailure::Permanent { code, .. }) => format!("permanent {code}"),
        Err(MailFailure::Unreachable(_)) => "unreachable".into(),
        Err(MailFailure::Lost(_)) => "lost".into(),
    }
}

fn why(result: &Result<MailTaken, MailFailure>) -> &str {
    match result {
        Ok(taken) => &taken.said,
        Err(
            MailFailure::Unreachable(why)
            | MailFailure::Lost(why)
            | MailFailure::Temporary { why, .. }
            | MailFailure::Permanent { why, .. },
        ) => why,
    }
}

// --- To a relay ---

#[test]
fn a_server_that_offers_dsn_is_asked_to_tell_and_one_that_does_not_is_not() {
    runtime().block_on(async {
        let (address, seen) = server(|_, _| None).await;
        let taken = sent(&relay(address), &carol(), PATIENT).await.unwrap();
        let expected =
            MailTaken { by: "127.0.0.1".into(), code: 250, said: "2.0.0 queued as 4711".into(), will_tell: true };
        assert_eq!(taken, expected);
        let octets = seen.mails()[0].len();
        assert_eq!(
            seen.lines()[..4],
            [
                "EHLO sms.gsm.example".to_owned(),
                format!("MAIL FROM:<+15550001@sms.gsm.example> SIZE={octets} RET=HDRS ENVID=17+2Ba"),
                "RCPT TO:<carol@example.org> NOTIFY=SUCCESS,FAILURE ORCPT=rfc822;carol@example.org".into(),
                "DATA".into(),
            ]
        );
        assert!(seen.mails()[0].ends_with("\r\n\r\nWords\r\n.\r\nmore words\r\n"), "{:?}", seen.mails());

        let (address, seen) = server(|_, verb| (verb == "EHLO").then_some(Say("250 mx"))).await;
        let mut out = carol();
        assert!(!sent(&relay(address), &out, PATIENT).await.unwrap().will_tell);
        assert_eq!(seen.lines()[1], "MAIL FROM:<+15550001@sms.gsm.example>");
        assert_eq!(seen.lines()[2], "RCPT TO:<carol@example.org>");

        let (address, seen) = server(|_, _| None).await;
        (out.from, out.notify, out.envid) = (None, Notify::default(), None);
        assert!(!sent(&relay(address), &out, PATIENT).await.unwrap().will_tell);
        assert!(seen.lines()[1].starts_with("MAIL FROM:<> SIZE="), "{:?}", seen.lines());
        assert_eq!(seen.lines()[2], "RCPT TO:<carol@example.org> NOTIFY=NEVER ORCPT=rfc822;carol@example.org");
    });
}

/// Every stage, and everything that can go wrong there.
#[test]
fn what_a_server_says_at_each_stage_means_what_the_core_takes_it_for() {
    let long: &'static str = Box::leak(format!("250-{}", "a".repeat(100_000)).into_boxed_str());
    let cases: Vec<(&'static str, Act, &'static str)> = vec![
        ("CONNECT", Say("421 4.3.2 closing"), "unreachable"),
        ("CONNECT", Say("450 not now"), "unreachable"),
        ("CONNECT", Say("554 5.7.1 nobody from there"), "unreachable"),
        ("CONNECT", Say("SSH-2.0-OpenSSH_9"), "unreachable"),
        ("CONNECT", Hang, "unreachable"),
        ("CONNECT", Silent, "unreachable"),
        ("EHLO", Say("421 closing"), "unreachable"),
        ("EHLO", Say("451 later"), "unreachable"),
        ("EHLO", Say("550 no"), "unreachable"),
        ("EHLO", Say(long), "unreachable"),
        ("EHLO", Hang, "unreachable"),
        ("EHLO", Silent, "unreachable"),
        // An old server: HELO, and nothing is offered.
        ("EHLO", Say("502 what?"), "taken 250"),
        ("MAIL", Say("421 closing"), "temporary 421"),
        ("MAIL", Say("451 4.7.1 greylisted"), "temporary 451"),
        ("MAIL", Say("550 5.7.1 no"), "permanent 550"),
        ("MAIL", Say("252 perhaps"), "taken 250"),
        ("MAIL", Say("299 what else"), "taken 250"),
        ("MAIL", Say("354 go on"), "temporary 0"),
        ("MAIL", Say("530 5.7.0 log in first"), "unreachable"),
        ("MAIL", Hang, "temporary 0"),
        ("MAIL", Silent, "temporary 0"),
        ("RCPT", Say("251 will forward"), "taken 250"),
        ("RCPT", Say("452 4.2.2 full"), "temporary 452"),
        ("RCPT", Say("550 5.1.1 nobody"), "permanent 550"),
        ("RCPT", Say("421 4.7.0 not to this one now"), "temporary 421"),
        ("RCPT", Say("252 will try"), "taken 250"),
        ("RCPT", Say("354 go on"), "temporary 0"),
        ("RCPT", Hang, "temporary 0"),
        ("RCPT", Silent, "temporary 0"),
        ("DATA", Say("421 closing"), "temporary 421"),
        ("DATA", Say("250 ok"), "temporary 0"),
        ("DATA", Say("451 later"), "temporary 451"),
        ("DATA", Say("554 no valid recipients"), "permanent 554"),
        ("DATA", Hang, "temporary 0"),
        ("DATA", Silent, "temporary 0"),
        (".", Say("421 4.7.0 too much of it"), "temporary 421"),
        (".", Say("451 4.3.0 later"), "temporary 451"),
        (".", Say("554 5.6.0 spam"), "permanent 554"),
        (".", Say("hm"), "lost"),
        (".", Hang, "lost"),
        (".", Silent, "lost"),
    ];
    runtime().block_on(async {
        // All at a time, because some of them wait.
        let trying = cases.into_iter().map(|(stage, act, expected)| {
            tokio::spawn(async move {
                let act_there = act.clone();
                let (address, _) = server(move |_, verb| (verb == stage).then(|| act_there.clone())).await;
                let timeout = if matches!(act, Silent) { IMPATIENT } else { PATIENT };
                let mailer = mailer(&relay(address));
                let result = mailer.send(&carol(), timeout).await;
                let shown = if let Say(text) = act { &text[..text.len().min(30)] } else { "" };
                assert_eq!(word(&result), expected, "{stage} {shown}: {result:?}");
                let counts = mailer.tally.counts().map(|(_, count)| count);
                assert_eq!(counts.iter().sum::<u64>(), 1);
            })
        });
        for case in trying.collect::<Vec<_>>() {
            case.await.unwrap();
        }
    });
}

/// A relay that is asked to slow down for one recipient is there for all others.
#[test]
fn a_server_that_closes_over_one_mail_may_take_the_next_one() {
    runtime().block_on(async {
        for stage in ["MAIL", "RCPT", "DATA", "."] {
            let mails = AtomicUsize::new(0);
            let once = move |_: usize, verb: &str| {
                (verb == stage && mails.fetch_add(1, Ordering::SeqCst) == 0).then_some(Say("421 4.7.0 not now"))
            };
            let (address, seen) = server(once).await;
            let mailer_ = mailer(&relay(address));
            let result = mailer_.send(&carol(), PATIENT).await;
            assert_eq!((word(&result), why(&result)), ("temporary 421".into(), "4.7.0 not now"), "{stage}");
            assert_eq!(word(&mailer_.send(&carol(), PATIENT).await), "taken 250", "{stage}");
            assert_eq!(seen.count(), 2, "the first line was over");
        }
    });
}

/// Its answer could come only when nobody waits for it any more, and the mail would be there twice.
#[test]
fn the_end_of_a_mail_is_not_sent_without_time_for_its_answer() {
    runtime().block_on(async {
        let slow = |_: usize, verb: &str| match verb {
            "DATA" => Some(Late(Duration::from_millis(2_500), "354 go on")),
            "." => Some(Silent),
            _ => None,
        };
        let (address, seen) = server(slow).await;
        let result = sent(&relay(address), &carol(), Duration::from_secs(4)).await;
        assert_eq!((word(&result), seen.mails().len()), ("temporary 0".into(), 0), "{result:?}");
    });
}

/// One that has seen enough says so at once, and reads no further.
#[test]
fn what_is_said_in_the_middle_of_a_mail_is_heard() {
    let mut long = carol();
    long.body = Body::Text("0123456789 ".repeat(3_000_000));
    runtime().block_on(async {
        for (said, expected) in [
            ("552 5.3.4 too much of it", "permanent 552"),
            ("451 4.3.0 not now", "temporary 451"),
            ("421 4.7.0 closing", "temporary 421"),
            ("250 thanks", "temporary 0"),
        ] {
            for then in [Hang, Silent] {
                let full = move |_: usize, verb: &str| match verb {
                    "EHLO" => Some(Say("250 mx")),
                    "DATA" => Some(Midway(said, matches!(then, Hang))),
                    _ => None,
                };
                let (address, seen) = server(full).await;
                let result = sent(&relay(address), &long, PATIENT).await;
                assert_eq!((word(&result).as_str(), seen.mails().len()), (expected, 0), "{said}: {result:?}");
            }
        }
    });
}

#[test]
fn what_a_server_says_is_told_on_in_one_line() {
    runtime().block_on(async {
        let say = |_: usize, verb: &str| {
            (verb == "RCPT").then_some(Say("550-5.1.1 nobody\x1b[31m\r\n550 5.1.1 of that name"))
        };
        let (address, _) = server(say).await;
        let result = sent(&relay(address), &carol(), PATIENT).await;
        assert_eq!(why(&result), "5.1.1 nobody [31m 5.1.1 of that name");
    });
}

#[test]
fn where_nobody_listens_nobody_is_reached() {
    runtime().block_on(async {
        let free = TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap();
        let result = sent(&relay(free), &carol(), PATIENT).await;
        assert_eq!(word(&result), "unreachable");
        assert!(why(&result).contains("nobody listens there"), "{result:?}");
        let without = Mailer::new(None, Ways::default(), Journal::default());
        assert_eq!(word(&without.send(&carol(), PATIENT).await), "unreachable");
    });
}

const WITH_TLS: &str = "250-mx\r\n250-STARTTLS\r\n250 AUTH LOGIN PLAIN";

fn offers_tls(_: usize, verb: &str) -> Option<Act> {
    match verb {
        "EHLO" => Some(Say(WITH_TLS)),
        "STARTTLS" => Some(Tls("220 go")),
        _ => None,
    }
}

#[test]
fn tls_is_checked_where_it_is_required_and_better_than_plain_where_it_is_not() {
    runtime().block_on(async {
        let (address, seen) = server(offers_tls).await;
        let result = sent(&secured(address, RelayTls::Required, Some("authority.pem")), &carol(), PATIENT).await;
        assert_eq!(word(&result), "taken 250", "{result:?}");
        let lines = seen.lines();
        assert_eq!(lines[1..4], ["STARTTLS", "(TLS)", "EHLO sms.gsm.example"], "and EHLO once more");

        // Nobody knows the authority; and a file that holds none.
        for authority in [None, Some("relay.key"), Some("missing.pem")] {
            let (address, seen) = server(offers_tls).await;
            let result = sent(&secured(address, RelayTls::Required, authority), &carol(), PATIENT).await;
            assert_eq!(word(&result), "unreachable", "{authority:?}");
            assert!(seen.mails().is_empty());
        }

        let (address, seen) = server(offers_tls).await;
        let result = sent(&secured(address, RelayTls::IfOffered, None), &carol(), PATIENT).await;
        assert_eq!(word(&result), "taken 250");
        assert!(seen.lines().contains(&"(TLS)".to_owned()));

        // Not offered.
        let (address, seen) = server(|_, _| None).await;
        let required = secured(address, RelayTls::Required, Some("authority.pem"));
        assert!(why(&sent(&required, &carol(), PATIENT).await).contains("offers no STARTTLS"));
        let result = sent(&secured(address, RelayTls::IfOffered, None), &carol(), PATIENT).await;
        assert_eq!((word(&result), seen.mails().len()), ("taken 250".into(), 1));
    });
}

#[test]
fn tls_from_the_first_octet_on_is_checked() {
    runtime().block_on(async {
        let from_start = |_: usize, verb: &str| (verb == "TLS").then_some(Tls(""));
        let (address, _) = server(from_start).await;
        let good = secured(address, RelayTls::FromStart, Some("authority.pem"));
        assert_eq!(word(&sent(&good, &carol(), PATIENT).await), "taken 250");
        let result = sent(&secured(address, RelayTls::FromStart, None), &carol(), PATIENT).await;
        assert_eq!(word(&result), "unreachable");
        // One that speaks in plain there.
        let (address, _) = server(|_, _| None).await;
        let plain = secured(address, RelayTls::FromStart, Some("authority.pem"));
        assert_eq!(word(&sent(&plain, &carol(), PATIENT).await), "unreachable");
    });
}

#[test]
fn broken_tls_keeps_no_mail_back_that_may_go_in_plain_and_every_other_one() {
    let broken = |_: usize, verb: &str| match verb {
        "EHLO" => Some(Say(WITH_TLS)),
        // No TLS follows.
        "STARTTLS" => Some(Say("220 go\r\nnot TLS")),
        _ => None,
    };
    let refused = |_: usize, verb: &str| match verb {
        "EHLO" => Some(Say(WITH_TLS)),
        "STARTTLS" => Some(Say("454 4.7.0 not now")),
        _ => None,
    };
    runtime().block_on(async {
        let (address, seen) = server(refused).await;
        let result = sent(&secured(address, RelayTls::IfOffered, None), &carol(), PATIENT).await;
        assert_eq!((word(&result), seen.count()), ("taken 250".into(), 2));
        let result = sent(&secured(address, RelayTls::Required, Some("authority.pem")), &carol(), PATIENT).await;
        assert_eq!(word(&result), "unreachable");

        // Words in plain behind the answer to STARTTLS are somebody's who wants them taken for the server's.
        let (address, seen) = server(broken).await;
        let result = sent(&secured(address, RelayTls::Required, Some("authority.pem")), &carol(), PATIENT).await;
        assert_eq!((word(&result), seen.mails().len()), ("unreachable".into(), 0));
        assert!(why(&result).contains("more in plain than its answer to STARTTLS"), "{result:?}");
    });
}

#[test]
fn a_login_goes_over_checked_tls_or_to_this_machine_and_its_refusal_says_nothing_of_the_mail() {
    runtime().block_on(async {
        let (address, seen) = server(offers_tls).await;
        let good = with_login(secured(address, RelayTls::Required, Some("authority.pem")));
        assert_eq!(word(&sent(&good, &carol(), PATIENT).await), "taken 250");
        // base64 of NUL, ana, NUL, s3cret (RFC 4616).
        assert!(seen.lines().contains(&"AUTH PLAIN AGFuYQBzM2NyZXQ=".to_owned()), "{:?}", seen.lines());

        let refusing = |count: usize, verb: &str| match verb {
            "AUTH" => Some(Say("535 5.7.8 wrong")),
            _ => offers_tls(count, verb),
        };
        let (address, seen) = server(refusing).await;
        let refused = with_login(secured(address, RelayTls::Required, Some("authority.pem")));
        let result = sent(&refused, &carol(), PATIENT).await;
        assert_eq!(word(&result), "unreachable");
        assert!(why(&result).contains("the login is refused: 535 5.7.8 wrong"), "{result:?}");
        assert!(!why(&result).contains("s3cret") && seen.mails().is_empty());

        // LOGIN asks for both; what is said then has no verb, so the script knows the lines (in capitals).
        let asking = |_: usize, verb: &str| match verb {
            "EHLO" => Some(Say("250-mx\r\n250 AUTH LOGIN")),
            "AUTH" => Some(Say("334 VXNlcm5hbWU6")),
            "YW5H" => Some(Say("334 UGFzc3dvcmQ6")),
            "CZNJCMV0" => Some(Say("235 in")),
            _ => None,
        };
        let (address, seen) = server(asking).await;
        assert_eq!(word(&sent(&with_login(relay(address)), &carol(), PATIENT).await), "taken 250");
        assert_eq!(seen.lines()[1..4], ["AUTH LOGIN", "YW5h", "czNjcmV0"]);

        // Not to a stranger in plain: nobody is even connected to (192.0.2.0/24 is nobody's, RFC 5737).
        for tls in [RelayTls::Never, RelayTls::IfOffered] {
            let stranger = with_login(secured("192.0.2.1:25".parse().unwrap(), tls, None));
            let result = sent(&stranger, &carol(), PATIENT).await;
            assert!(why(&result).starts_with("no password goes to 192.0.2.1"), "{result:?}");
        }
        let (address, _) = server(|_, _| None).await;
        assert!(why(&sent(&with_login(relay(address)), &carol(), PATIENT).await).contains("neither AUTH PLAIN"));
    });
}

#[test]
fn a_connection_serves_several_mails_and_one_that_was_closed_meanwhile_costs_none() {
    runtime().block_on(async {
        let (address, seen) = server(|_, _| None).await;
        let mailer_ = mailer(&relay(address));
        for _ in 0..3 {
            mailer_.send(&carol(), PATIENT).await.unwrap();
        }
        assert_eq!((seen.count(), seen.mails().len()), (1, 3));

        // A refusal leaves the line as it was.
        let (address, seen) = server(|_, verb| (verb == "RCPT").then_some(Say("550 no"))).await;
        let mailer_ = mailer(&relay(address));
        for _ in 0..2 {
            assert_eq!(word(&mailer_.send(&carol(), PATIENT).await), "permanent 550");
        }
        assert_eq!(seen.count(), 1);
        assert_eq!(seen.lines().iter().filter(|line| *line == "RSET").count(), 2);

        // The first connection takes one mail, and then it is closed, or says that it closes.
        for end in [Hang, Say("421 too long here")] {
            for stage in ["MAIL", "RCPT", "DATA"] {
                let (mails, end) = (AtomicUsize::new(0), end.clone());
                let once = move |count: usize, verb: &str| {
                    if verb == "." {
                        mails.fetch_add(1, Ordering::SeqCst);
                    }
                    (count == 0 && verb == stage && mails.load(Ordering::SeqCst) > 0).then(|| end.clone())
                };
                let (address, seen) = server(once).await;
                let mailer_ = mailer(&relay(address));
                for _ in 0..2 {
                    assert_eq!(word(&mailer_.send(&carol(), PATIENT).await), "taken 250", "{stage}");
                }
                assert_eq!((seen.count(), seen.mails().len()), (2, 2), "{stage}");
            }
        }

        // Where all of the mail had been sent it is never sent again.
        let mails = AtomicUsize::new(0);
        let lost =
            move |_: usize, verb: &str| (verb == "." && mails.fetch_add(1, Ordering::SeqCst) > 0).then_some(Hang);
        let (address, seen) = server(lost).await;
        let mailer_ = mailer(&relay(address));
        assert_eq!(word(&mailer_.send(&carol(), PATIENT).await), "taken 250");
        assert_eq!(word(&mailer_.send(&carol(), PATIENT).await), "lost");
        assert_eq!((seen.count(), seen.mails().len()), (1, 2));
    });
}

#[test]
fn new_settings_send_the_next_mail_their_way() {
    runtime().block_on(async {
        let (first, seen_first) = server(|_, _| None).await;
        let (second, seen_second) = server(|_, _| None).await;
        let mailer = mailer(&relay(first));
        mailer.send(&carol(), PATIENT).await.unwrap();
        mailer.follow(Some(&relay(second)));
        mailer.send(&carol(), PATIENT).await.unwrap();
        assert_eq!((seen_first.mails().len(), seen_second.mails().len()), (1, 1));
    });
}

#[test]
fn what_a_server_cannot_take_is_not_brought_to_it() {
    runtime().block_on(async {
        let (address, seen) = server(|_, verb| (verb == "EHLO").then_some(Say("250-mx\r\n250 SIZE 100"))).await;
        let result = sent(&relay(address), &carol(), PATIENT).await;
        assert_eq!(word(&result), "permanent 0");
        assert!(why(&result).starts_with("5.3.4 127.0.0.1 takes no mail above 100 octets"), "{result:?}");
        // A domain has another spelling, a name before the @ has none.
        let (address, also_seen) = server(|_, _| None).await;
        let result = sent(&relay(address), &mail_to("jörg@example.org"), PATIENT).await;
        assert_eq!(word(&result), "permanent 0");
        assert!(why(&result).contains("SMTPUTF8"), "{result:?}");
        assert!(seen.mails().is_empty() && also_seen.mails().is_empty());
        let result = sent(&relay(address), &mail_to("carol@bücher.example"), PATIENT).await;
        assert_eq!(word(&result), "taken 250");
        assert!(also_seen.lines().iter().any(|line| line.starts_with("RCPT TO:<carol@xn--bcher-kva.example>")));

        let utf8 = |_: usize, verb: &str| (verb == "EHLO").then_some(Say("250-mx\r\n250-8BITMIME\r\n250 SMTPUTF8"));
        let (address, seen) = server(utf8).await;
        assert_eq!(word(&sent(&relay(address), &mail_to("jörg@example.org"), PATIENT).await), "taken 250");
        assert_eq!(seen.lines()[1], "MAIL FROM:<+15550001@sms.gsm.example> BODY=8BITMIME SMTPUTF8");
        assert_eq!(seen.lines()[2], "RCPT TO:<jörg@example.org>");
    });
}

#[test]
fn an_envelope_id_is_no_longer_than_servers_take_it() {
    runtime().block_on(async {
        let long = "d".repeat(60) + "." + &"e".repeat(60);
        let ours = format!("17.0123456789abcdef@{long}");
        for (message_id, envid, expected) in [
            (ours.clone(), ours.clone(), Some("17.0123456789abcdef")),
            (
                "17.0123456789abcdef@gsm.example".into(),
                "17.0123456789abcdef@gsm.example".into(),
                Some("17.0123456789abcdef@gsm.example"),
            ),
            // Whose it is knows it as a whole.
            (ours, format!("theirs@{long}"), None),
        ] {
            let (address, seen) = server(|_, _| None).await;
            let mut out = carol();
            (out.message_id, out.envid) = (message_id, Some(envid));
            sent(&relay(address), &out, PATIENT).await.unwrap();
            let lines = seen.lines();
            assert_eq!(lines[1].split_once("ENVID=").map(|(_, envid)| envid), expected, "{lines:?}");
        }
    });
}

#[test]
fn a_long_mail_arrives_as_it_was_with_every_dot() {
    runtime().block_on(async {
        let (address, seen) = server(|_, verb| (verb == "EHLO").then_some(Say("250 mx"))).await;
        let mut out = carol();
        let words: String = (0..20_000).map(|line| format!("..{line}\n.\n")).collect();
        out.body = Body::Text(words.clone());
        assert_eq!(word(&sent(&relay(address), &out, PATIENT).await), "taken 250");
        let (_, body) = seen.mails()[0].split_once("\r\n\r\n").map(|(a, b)| (a.to_owned(), b.to_owned())).unwrap();
        assert_eq!(body.replace("\r\n", "\n"), words);
    });
}

// --- Straight to the servers of a domain ---

fn direct(name_server: SocketAddr, port: u16) -> (Mail, Ways) {
    let ways = Ways { nameserver: Some(name_server), port: Some(port), loopback: true, ..Ways::default() };
    (Mail::of("gsm.example"), ways)
}

async fn sent_directly(zone: Zone, port: u16, to: &str) -> Result<MailTaken, MailFailure> {
    let (mail, ways) = direct(name_server(zone).await, port);
    Mailer::new(Some(&mail), ways, Journal::default()).send(&mail_to(to), PATIENT).await
}

#[test]
fn a_domain_without_servers_says_so_for_ever_and_a_silent_name_server_for_now() {
    fn zone(name: &str, kind: RecordType) -> Result<Vec<RData>, ResponseCode> {
        match (name, kind) {
            ("null.example.org", RecordType::MX) => Ok(vec![mx(0, ".")]),
            ("broken.example.org", _) => Err(ResponseCode::ServFail),
            ("gone.example.org", RecordType::MX) => Ok(vec![mx(10, "nobody.example.org.")]),
            ("unsure.example.org", RecordType::MX) => {
                Ok(vec![mx(10, "nobody.example.org."), mx(20, "broken.example.org.")])
            }
            ("empty.example.org", _) => Ok(vec![]),
            ("nowhere.example.org", RecordType::A) => Ok(vec![a("0.0.0.0")]),
            ("nowhere.example.org", _) => Ok(vec![]),
            _ => Err(ResponseCode::NXDomain),
        }
    }
    runtime().block_on(async {
        for (domain, expected, told) in [
            ("null.example.org", "permanent 0", "5.1.10 null.example.org takes no mail"),
            ("missing.example.org", "permanent 0", "5.1.2 there is no missing.example.org"),
            ("gone.example.org", "permanent 0", "5.1.2 there is no nobody.example.org"),
            ("empty.example.org", "permanent 0", "5.1.2 "),
            ("nowhere.example.org", "permanent 0", "5.4.4 nowhere.example.org is 0.0.0.0"),
            ("broken.example.org", "unreachable", "no name server says where broken.example.org is"),
            ("unsure.example.org", "unreachable", "no name server says where broken.example.org is"),
        ] {
            let result = sent_directly(zone, 9, &format!("carol@{domain}")).await;
            assert_eq!(word(&result), expected, "{domain}: {result:?}");
            assert!(why(&result).starts_with(told), "{domain}: {result:?}");
        }
    });
}

#[test]
fn the_servers_of_a_domain_are_tried_by_preference_until_one_lets_us_in() {
    fn zone(name: &str, kind: RecordType) -> Result<Vec<RData>, ResponseCode> {
        match (name, kind) {
            ("example.org", RecordType::MX) => {
                Ok(vec![mx(30, "c.example.org."), mx(10, "a.example.org."), mx(20, "b.example.org.")])
            }
            ("a.example.org", RecordType::A) => Ok(vec![a("127.0.0.11")]),
            ("b.example.org", RecordType::A) => Ok(vec![a("127.0.0.12")]),
            ("c.example.org", RecordType::A) | ("plain.example.org", RecordType::A) => Ok(vec![a("127.0.0.13")]),
            _ => Ok(vec![]),
        }
    }
    runtime().block_on(async {
        let (third, seen) = server_at("127.0.0.13:0".parse().unwrap(), |_, _| None).await;
        // Nobody listens at the first; the second lets nobody in.
        let second = SocketAddr::new(IpAddr::V4(Ipv4Addr::new(127, 0, 0, 12)), third.port());
        let busy = |_: usize, verb: &str| (verb == "CONNECT").then_some(Say("421 4.7.0 busy"));
        let (_, also_seen) = server_at(second, busy).await;
        let taken = sent_directly(zone, third.port(), "carol@example.org").await.unwrap();
        assert_eq!((taken.by.as_str(), also_seen.count()), ("c.example.org", 1));
        // Without MX the domain's own address counts.
        let taken = sent_directly(zone, third.port(), "carol@plain.example.org").await.unwrap();
        assert_eq!(taken.by, "plain.example.org");
        // An address that was written out.
        let taken = sent_directly(zone, third.port(), "carol@[127.0.0.13]").await.unwrap();
        assert_eq!((taken.by.as_str(), seen.mails().len()), ("127.0.0.13", 3));
    });
}

#[test]
fn no_other_server_is_asked_once_one_has_spoken_of_the_mail() {
    fn zone(name: &str, kind: RecordType) -> Result<Vec<RData>, ResponseCode> {
        match (name, kind) {
            ("example.org", RecordType::MX) => Ok(vec![mx(10, "a.example.org."), mx(20, "b.example.org.")]),
            ("a.example.org", RecordType::A) => Ok(vec![a("127.0.0.21")]),
            ("b.example.org", RecordType::A) => Ok(vec![a("127.0.0.22")]),
            _ => Ok(vec![]),
        }
    }
    runtime().block_on(async {
        let grey = |_: usize, verb: &str| (verb == "RCPT").then_some(Say("451 4.7.1 come again"));
        let (first, _) = server_at("127.0.0.21:0".parse().unwrap(), grey).await;
        let second = SocketAddr::new(IpAddr::V4(Ipv4Addr::new(127, 0, 0, 22)), first.port());
        let (_, seen) = server_at(second, |_, _| None).await;
        assert_eq!(word(&sent_directly(zone, first.port(), "carol@example.org").await), "temporary 451");
        assert_eq!(seen.count(), 0);
    });
}

#[test]
fn a_way_that_leads_back_to_this_box_is_none() {
    fn zone(name: &str, kind: RecordType) -> Result<Vec<RData>, ResponseCode> {
        match (name, kind) {
            ("first.example.org", RecordType::MX) => Ok(vec![mx(10, "us.example.org."), mx(20, "other.example.org.")]),
            ("last.example.org", RecordType::MX) => Ok(vec![mx(20, "us.example.org."), mx(10, "other.example.org.")]),
            ("us.example.org", RecordType::A) => Ok(vec![a("127.0.0.31")]),
            ("other.example.org", RecordType::A) => Ok(vec![a("127.0.0.32")]),
            _ => Ok(vec![]),
        }
    }
    runtime().block_on(async {
        let (ours, seen) = server_at("127.0.0.31:0".parse().unwrap(), |_, _| None).await;
        let other = SocketAddr::new(IpAddr::V4(Ipv4Addr::new(127, 0, 0, 32)), ours.port());
        let (_, also_seen) = server_at(other, |_, _| None).await;
        for own in [ours, SocketAddr::new(IpAddr::V4(Ipv4Addr::UNSPECIFIED), ours.port())] {
            // Bound to every address, the other one is ours too.
            let is_every = own.ip().is_unspecified();
            let (mut mail, ways) = direct(name_server(zone).await, ours.port());
            mail.listen = vec![MailListener { protocol: MailProtocol::Smtp, address: own }];
            let mailer = Mailer::new(Some(&mail), ways, Journal::default());
            for (to, expected) in [
                ("carol@us.example.org", "permanent 0"),
                ("carol@first.example.org", "permanent 0"),
                ("carol@last.example.org", if is_every { "permanent 0" } else { "taken 250" }),
                ("carol@[127.0.0.31]", "permanent 0"),
            ] {
                let result = mailer.send(&mail_to(to), PATIENT).await;
                assert_eq!(word(&result), expected, "{to} {own}: {result:?}");
                assert!(result.is_ok() || why(&result).starts_with("5.4.6 "), "{result:?}");
            }
        }
        assert_eq!((seen.count(), also_seen.mails().len()), (0, 1));
    });
}

#[test]
fn what_leads_to_this_machine_or_its_cable_leads_nowhere_on_a_real_box_however_it_is_spelled() {
    fn zone(name: &str, kind: RecordType) -> Result<Vec<RData>, ResponseCode> {
        Ok(match (name, kind) {
            ("loop.example.org", RecordType::A) => vec![a("127.0.0.1")],
            ("mapped.example.org", RecordType::AAAA) => vec![aaaa("::ffff:127.0.0.1")],
            ("loop6.example.org", RecordType::AAAA) => vec![aaaa("::1")],
            ("cable.example.org", RecordType::A) => vec![a("169.254.1.1")],
            ("cable6.example.org", RecordType::AAAA) => vec![aaaa("fe80::1")],
            ("none.example.org", RecordType::A) => vec![a("0.0.0.0")],
            ("nonemapped.example.org", RecordType::AAAA) => vec![aaaa("::ffff:0.0.0.0")],
            _ => vec![],
        })
    }
    runtime().block_on(async {
        let (address, seen) = server(|_, _| None).await;
        let (mail, ways) = direct(name_server(zone).await, address.port());
        let real = Mailer::new(Some(&mail), Ways { loopback: false, ..ways }, Journal::default());
        for domain in [
            "loop.example.org",
            "mapped.example.org",
            "loop6.example.org",
            "cable.example.org",
            "cable6.example.org",
            "none.example.org",
            "nonemapped.example.org",
            "[127.0.0.1]",
            "[127.1.2.3]",
            "[0.0.0.0]",
            "[169.254.1.1]",
            "[255.255.255.255]",
            "[IPv6:::1]",
            "[IPv6:::]",
            "[IPv6:::ffff:127.0.0.1]",
            "[IPv6:fe80::1]",
        ] {
            let result = real.send(&mail_to(&format!("carol@{domain}")), PATIENT).await;
            assert_eq!(word(&result), "permanent 0", "{domain}: {result:?}");
            assert!(why(&result).starts_with("5.4.4 "), "{domain}: {result:?}");
        }
        assert_eq!(seen.count(), 0);
        // Our own address by its other spelling is our own, too; and so is what it leads to where a test may go there.
        let mailer = Mailer::new(Some(&mail), ways, Journal::default());
        let taken = mailer.send(&mail_to("carol@[IPv6:::ffff:127.0.0.1]"), PATIENT).await.unwrap();
        assert_eq!((taken.by.as_str(), seen.mails().len()), ("127.0.0.1", 1));
        let mut ours = mail.clone();
        ours.listen = vec![MailListener { protocol: MailProtocol::Smtp, address }];
        let mailer = Mailer::new(Some(&ours), ways, Journal::default());
        for domain in ["mapped.example.org", "[IPv6:::ffff:127.0.0.1]"] {
            let result = mailer.send(&mail_to(&format!("carol@{domain}")), PATIENT).await;
            assert!(why(&result).starts_with("5.4.6 "), "{domain}: {result:?}");
        }
        // A relay of this machine is the operator's wish.
        let real = Mailer::new(Some(&relay(address)), Ways::default(), Journal::default());
        assert_eq!(word(&real.send(&carol(), PATIENT).await), "taken 250");
    });
}

/// The link may come after the first mail, and another link after that.
#[test]
fn name_servers_that_come_later_or_change_are_asked() {
    fn first(_: &str, kind: RecordType) -> Result<Vec<RData>, ResponseCode> {
        Ok(if kind == RecordType::A { vec![a("127.0.0.51")] } else { vec![] })
    }
    fn second(_: &str, kind: RecordType) -> Result<Vec<RData>, ResponseCode> {
        Ok(if kind == RecordType::A { vec![a("127.0.0.52")] } else { vec![] })
    }
    runtime().block_on(async {
        let folder = tempfile::tempdir().unwrap();
        let path: &'static Path = Box::leak(folder.path().join("resolv.conf").into_boxed_path());
        let one = name_server_at("127.0.0.53:0".parse().unwrap(), first).await;
        let other = SocketAddr::new(IpAddr::V4(Ipv4Addr::new(127, 0, 0, 54)), one.port());
        name_server_at(other, second).await;
        let (old, seen_old) = server_at("127.0.0.51:0".parse().unwrap(), |_, _| None).await;
        let new = SocketAddr::new(IpAddr::V4(Ipv4Addr::new(127, 0, 0, 52)), old.port());
        let (_, seen_new) = server_at(new, |_, _| None).await;
        let ways = Ways {
            resolv_conf: Some(path),
            nameserver_port: Some(one.port()),
            port: Some(old.port()),
            loopback: true,
            ..Ways::default()
        };
        let mailer = Mailer::new(Some(&Mail::of("gsm.example")), ways, Journal::default());
        let result = mailer.send(&carol(), PATIENT).await;
        assert!(why(&result).starts_with("no name server can be asked"), "{result:?}");
        for (minute, server, taken) in [(1, one, (1, 0)), (2, other, (1, 1))] {
            std::fs::write(path, format!("nameserver {}\n", server.ip())).unwrap();
            // Its time is another one, however coarse the clock of the disk is.
            let time = std::time::UNIX_EPOCH + Duration::from_secs(1_800_000_000 + minute * 60);
            std::fs::File::options().write(true).open(path).unwrap().set_modified(time).unwrap();
            // Each to a domain of its own: no connection is kept for it.
            let result = mailer.send(&mail_to(&format!("carol@nr{minute}.example.org")), PATIENT).await;
            assert_eq!(word(&result), "taken 250", "{result:?}");
            assert_eq!((seen_old.mails().len(), seen_new.mails().len()), taken);
        }
    });
}

#[test]
fn an_authority_that_cannot_be_read_for_a_moment_is_read_with_the_next_mail() {
    runtime().block_on(async {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("authority.pem");
        let (address, _) = server(offers_tls).await;
        let mut mail = secured(address, RelayTls::Required, None);
        if let Some(relay) = &mut mail.relay {
            relay.authority = Some(path.clone());
        }
        let mailer = mailer(&mail);
        let result = mailer.send(&carol(), PATIENT).await;
        assert!(word(&result) == "unreachable" && why(&result).contains("cannot be read"), "{result:?}");
        std::fs::copy(Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data/mail/authority.pem"), &path).unwrap();
        assert_eq!(word(&mailer.send(&carol(), PATIENT).await), "taken 250");
    });
}

#[test]
fn each_step_is_told_to_who_asks_and_no_password_with_it() {
    runtime().block_on(async {
        let (address, _) = server(offers_tls).await;
        let mail = with_login(secured(address, RelayTls::Required, Some("authority.pem")));
        let steps = Arc::new(Mutex::new(Vec::new()));
        let hearing = Arc::clone(&steps);
        let journal = Journal::of(move |step, what| hearing.lock().unwrap().push((step, what)));
        Mailer::new(Some(&mail), Ways::default(), journal).send(&carol(), PATIENT).await.unwrap();
        let steps = steps.lock().unwrap();
        let names: Vec<&str> = steps.iter().map(|(step, _)| *step).collect();
        let expected =
            ["route", "connection", "greeting", "hello", "tls", "hello", "login", "sender", "recipient", "mail"];
        assert_eq!(names, expected);
        let all: String = steps.iter().map(|(_, what)| format!("{what}\n")).collect();
        assert!(all.contains("TLSv1.3, its certificate is good"), "{all}");
        assert!(!all.contains("s3cret") && !all.contains("AGFuYQBzM2NyZXQ="), "{all}");
    });
}

// --- `encamp mail test` ---

/// The exit code, and each step as `name: what`.
async fn tried(mail: &Mail, ways: Ways, to: &str) -> (u8, Vec<String>) {
    let out = letter(mail, address("postmaster@sms.gsm.example"), address(to));
    let (code, steps) = tested(mail, ways, &out, false).await;
    let step = |step: &serde_json::Value| {
        assert!(step["ms"].is_u64());
        format!("{}: {}", step["step"].as_str().unwrap(), step["told"].as_str().unwrap())
    };
    (code, steps.as_array().unwrap().iter().map(step).collect())
}

#[test]
fn a_mail_that_is_tried_by_hand_tells_its_steps_its_end_and_what_may_help() {
    fn zone(name: &str, kind: RecordType) -> Result<Vec<RData>, ResponseCode> {
        match (name, kind) {
            ("example.org", RecordType::MX) => Ok(vec![mx(10, "mx.example.org.")]),
            ("mx.example.org", RecordType::A) => Ok(vec![a("127.0.0.1")]),
            _ => Ok(vec![]),
        }
    }
    runtime().block_on(async {
        let (server_, seen) = server(offers_tls).await;
        let (mail, ways) = direct(name_server(zone).await, server_.port());
        let (code, steps) = tried(&mail, ways, "carol@example.org").await;
        let all = steps.join("\n");
        assert_eq!(code, 0, "{all}");
        for expected in [
            "begin: a mail from postmaster@sms.gsm.example to carol@example.org, as sms.gsm.example",
            "route: no relay is set up: straight to the servers of example.org",
            "dns: MX of example.org: 10 mx.example.org",
            "dns: mx.example.org is 127.0.0.1",
            &format!("connection: connected to mx.example.org ({server_})"),
            "greeting: 220 mx.example.org ESMTP",
            "hello: it offers STARTTLS, AUTH LOGIN PLAIN",
            "recipient: RCPT TO:<carol@example.org>: 250 2.0.0 ok",
            "end: mx.example.org has taken it (250 2.0.0 queued as 4711)",
        ] {
            assert!(steps.iter().any(|step| step == expected), "no {expected:?} in\n{all}");
        }
        assert!(all.contains("tls: TLSv1.3, its certificate would not be believed"), "{all}");
        assert!(seen.mails()[0].contains("Auto-Submitted: auto-generated\r\n"));

        let ways = Ways::default();
        let (code, steps) = tried(&secured(server_, RelayTls::Required, None), ways, "carol@example.org").await;
        let last = steps.last().unwrap();
        assert!(code == 2 && last.starts_with("hint: ") && last.contains("relay_authority"), "{steps:?}");
        let (refusing, _) = server(|_, verb| (verb == "RCPT").then_some(Say("550 5.1.1 nobody"))).await;
        let (code, steps) = tried(&relay(refusing), ways, "carol@example.org").await;
        assert_eq!((code, steps.last().unwrap().as_str()), (1, "end: never: 550 5.1.1 nobody"));
        // Who knows nobody of that name says nothing of us; who refuses a stranger does, and who says "later" means it.
        for (said, expected) in [
            ("550 5.1.1 nobody", "end: never: 550 5.1.1 nobody"),
            ("550 5.7.1 we do not know you", "hint: servers refuse strangers"),
            ("451 4.7.1 greylisted", "hint: it may take it later"),
        ] {
            let (refusing, _) = server(move |_, verb| (verb == "RCPT").then_some(Say(said))).await;
            let (mail, ways) = direct(name_server(zone).await, refusing.port());
            let (code, steps) = tried(&mail, ways, "carol@example.org").await;
            assert!(code == 1 && steps.last().unwrap().starts_with(expected), "{said}: {steps:?}");
        }
        let (wrong, _) = server(|count, verb| match verb {
            "AUTH" => Some(Say("535 5.7.8 wrong")),
            _ => offers_tls(count, verb),
        })
        .await;
        let login = with_login(secured(wrong, RelayTls::Required, Some("authority.pem")));
        let (code, steps) = tried(&login, ways, "carol@example.org").await;
        assert!(code == 2 && steps.last().unwrap().contains("name and password"), "{steps:?}");
    });
}
