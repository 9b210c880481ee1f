//! The zone as it is served, beside nsd that loaded our dump; and what is particular to packets.
//!
//! nsd is Debian's (package `nsd`), found under the directory `ENCAMP_PEERS` (a root that packages were unpacked into) or in
//! the PATH. It is started here, with a directory and a port of its own; no service is touched. Without it the test fails.

#![cfg(feature = "box")]
#![allow(clippy::disallowed_types, clippy::disallowed_methods)] // a test of sockets, files and another program

mod zone;

use std::collections::BTreeSet;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream, UdpSocket};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::{Duration, Instant};

use arc_swap::ArcSwap;
use encamp::config::Transport;
use encamp::ident::Network;
use encamp::shell::dns::{self, Counts, Serving};
use encamp::zone::{Health, Zone};
use hickory_proto::op::{Edns, Message, MessageType, OpCode, Query, ResponseCode};
use hickory_proto::rr::{DNSClass, Name, Record, RecordType};
use zone::{APEX, Dice, listeners, local, questions, range, settings, site, zone, zone_with};

/// One of our servers on a port of its own.
struct Server {
    runtime: tokio::runtime::Runtime,
    serving: Option<Serving>,
    zone: Arc<ArcSwap<Zone>>,
    udp: SocketAddr,
    tcp: SocketAddr,
}

impl Server {
    fn start(zone: Zone) -> Server {
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
        let zone = Arc::new(ArcSwap::from_pointee(zone));
        let (serving, addresses) = runtime.block_on(async {
            let bound = dns::bind(&listeners(&["udp:127.0.0.1:0", "tcp:127.0.0.1:0"])).unwrap();
            let addresses = bound.addresses().unwrap();
            (bound.serve(zone.clone()), addresses)
        });
        let at = |wanted: Transport| addresses.iter().find(|(transport, _)| *transport == wanted).unwrap().1;
        Server { udp: at(Transport::Udp), tcp: at(Transport::Tcp), serving: Some(serving), runtime, zone }
    }

    fn counts(&self) -> &Counts {
        self.serving.as_ref().unwrap().counts()
    }
}

fn question(name: &str, rtype: RecordType) -> Message {
    let mut message = Message::new(4_711, MessageType::Query, OpCode::Query);
    message.add_query(Query::query(Name::from_ascii(format!("{name}.")).unwrap(), rtype));
    message
}

fn with_edns(mut message: Message, payload: u16) -> Message {
    let mut edns = Edns::new();
    edns.set_max_payload(payload);
    message.set_edns(edns);
    message
}

fn udp_socket() -> UdpSocket {
    let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
    socket.set_read_timeout(Some(Duration::from_secs(5))).unwrap();
    socket
}

/// The raw answer to a raw question.
fn exchange(socket: &UdpSocket, server: SocketAddr, packet: &[u8]) -> Vec<u8> {
    let mut buffer = vec![0; 65_535];
    socket.send_to(packet, server).unwrap();
    let (len, _) = socket.recv_from(&mut buffer).expect("an answer within 5 s");
    buffer.truncate(len);
    buffer
}

fn ask(server: SocketAddr, message: &Message) -> Message {
    Message::from_vec(&exchange(&udp_socket(), server, &message.to_vec().unwrap())).unwrap()
}

fn connect(server: SocketAddr) -> TcpStream {
    let stream = TcpStream::connect(server).unwrap();
    stream.set_read_timeout(Some(Duration::from_secs(5))).unwrap();
    stream
}

fn framed(message: &Message) -> Vec<u8> {
    let bytes = message.to_vec().unwrap();
    [&(bytes.len() as u16).to_be_bytes(), &bytes[..]].concat()
}

fn read_framed(stream: &mut TcpStream) -> std::io::Result<Message> {
    let mut len = [0; 2];
    stream.read_exact(&mut len)?;
    let mut bytes = vec![0; usize::from(u16::from_be_bytes(len))];
    stream.read_exact(&mut bytes)?;
    Ok(Message::from_vec(&bytes).unwrap())
}

fn ask_tcp(server: SocketAddr, message: &Message) -> Message {
    let mut stream = connect(server);
    stream.write_all(&framed(message)).unwrap();
    read_framed(&mut stream).unwrap()
}

/// A section as a set, TTLs included. Names in lower case: an answer's case is the question's or the zone's.
fn set(section: &[Record]) -> BTreeSet<String> {
    section.iter().map(|record| record.to_string().to_ascii_lowercase()).collect()
}

fn rcode(message: &Message) -> ResponseCode {
    message.metadata.response_code
}

/// nsd with one zone, ended when dropped.
struct Nsd {
    process: Child,
    address: SocketAddr,
    _directory: tempfile::TempDir,
}

impl Nsd {
    fn start(master_file: &str) -> Nsd {
        let (program, libraries) = find_nsd();
        let directory = tempfile::tempdir().unwrap();
        let path = |name: &str| directory.path().join(name).display().to_string();
        // A port that was free a moment ago; it is ours unless somebody is quicker.
        let address = UdpSocket::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
        std::fs::write(path("zone"), master_file).unwrap();
        let configuration = format!(
            "server:\n  ip-address: 127.0.0.1@{}\n  server-count: 1\n  username: \"\"\n  chroot: \"\"\n  zonesdir: \"{}\"\n  \
             database: \"\"\n  pidfile: \"{}\"\n  xfrdfile: \"{}\"\n  xfrdir: \"{}\"\n  zonelistfile: \"{}\"\n  logfile: \"{}\"\n  \
             rrl-ratelimit: 0\n  minimal-responses: yes\nremote-control:\n  control-enable: no\n\
             zone:\n  name: \"{APEX}\"\n  zonefile: \"zone\"\n",
            address.port(),
            directory.path().display(),
            path("pid"),
            path("xfrd"),
            directory.path().display(),
            path("zonelist"),
            path("log"),
        );
        std::fs::write(path("conf"), configuration).unwrap();
        let process = Command::new(&program)
            .args(["-d", "-c", &path("conf")])
            .env("LD_LIBRARY_PATH", libraries)
            .stdin(Stdio::null())
            .spawn()
            .unwrap_or_else(|fault| panic!("{}: {fault}", program.display()));
        let log = path("log");
        let nsd = Nsd { process, address, _directory: directory };
        nsd.wait(&log);
        nsd
    }

    /// Until it answers with the zone.
    fn wait(&self, log: &str) {
        let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
        socket.set_read_timeout(Some(Duration::from_millis(100))).unwrap();
        let soa = question(APEX, RecordType::SOA).to_vec().unwrap();
        let until = Instant::now() + Duration::from_secs(20);
        let mut buffer = [0; 512];
        while Instant::now() < until {
            socket.send_to(&soa, self.address).unwrap();
            if let Ok((len, _)) = socket.recv_from(&mut buffer)
                && Message::from_vec(&buffer[..len]).is_ok_and(|message| !message.answers.is_empty())
            {
                return;
            }
            std::thread::sleep(Duration::from_millis(20));
        }
        panic!("nsd does not answer: {}", std::fs::read_to_string(log).unwrap_or_default());
    }
}

impl Drop for Nsd {
    fn drop(&mut self) {
        // Its main process ends its children on SIGTERM; a SIGKILL would leave them behind.
        let _ = Command::new("kill").arg(self.process.id().to_string()).status();
        let _ = self.process.wait();
    }
}

fn find_nsd() -> (PathBuf, PathBuf) {
    if let Some(peers) = std::env::var_os("ENCAMP_PEERS") {
        let program = Path::new(&peers).join("usr/sbin/nsd");
        if program.is_file() {
            let libraries = format!("usr/lib/{}-linux-gnu", std::env::consts::ARCH);
            return (program, Path::new(&peers).join(libraries));
        }
    }
    let path = std::env::var_os("PATH").unwrap_or_default();
    let program = std::env::split_paths(&path)
        .chain(["/usr/sbin".into()])
        .map(|directory| directory.join("nsd"))
        .find(|program| program.is_file())
        .expect("peer nsd is missing: unpack the Debian package `nsd` and name the directory in ENCAMP_PEERS");
    (program, PathBuf::new())
}

#[test]
fn nsd_with_our_dump_answers_as_we_do() {
    const QUESTIONS: usize = 2_000;
    let zone = zone();
    let mut health = zone.health.clone();
    health[1] = Health::Worse;
    let zone = zone.turn(health, zone.serial + 1);
    let nsd = Nsd::start(&zone.dump_text());
    let asked = questions(&zone, 20_261_121, QUESTIONS);
    let server = Server::start(zone);
    let socket = udp_socket();
    let mut dice = Dice(1);
    let mut outcomes = std::collections::BTreeMap::<String, usize>::new();
    for (name, rtype) in asked {
        // Now and then in capitals, as resolvers do against forgery.
        let name = if dice.below(4) == 0 { name.to_ascii_uppercase() } else { name };
        let mut message = question(&name, RecordType::from(rtype.0));
        if dice.below(2) == 0 {
            message = with_edns(message, 1_232);
        }
        let packet = message.to_vec().unwrap();
        let ours = Message::from_vec(&exchange(&socket, server.udp, &packet)).unwrap();
        let theirs = Message::from_vec(&exchange(&socket, nsd.address, &packet)).unwrap();
        let what = |message: &Message| {
            let metadata = &message.metadata;
            let flags = (metadata.id, metadata.authoritative, metadata.truncation, message.queries.clone());
            (rcode(message), flags, set(&message.answers), set(&message.authorities), message.edns.is_some())
        };
        assert_eq!(what(&ours), what(&theirs), "{name} {rtype}");
        assert_eq!(ours.answers.len(), theirs.answers.len(), "{name} {rtype}");
        *outcomes.entry(format!("{:?}, {}", rcode(&ours), ours.answers.is_empty())).or_default() += 1;
    }
    assert!(outcomes.len() >= 4, "the questions met too few ends: {outcomes:?}");
    // Written past the test harness, which would swallow it when all is well.
    writeln!(std::io::stdout(), "\npeer nsd: {QUESTIONS} questions").unwrap();
}

/// A zone with one shard of so many replicas.
fn wide(replicas: usize) -> Zone {
    let names: Vec<String> = (0..replicas).map(|index| format!("replica-{index:02}")).collect();
    let listens: Vec<String> = (0..replicas).map(|index| format!("udp:192.0.2.{index}:5070")).collect();
    let replicas = names.iter().zip(&listens).map(|(name, listen)| (name.as_str(), local(&[listen]))).collect();
    zone_with(settings(vec![("low", range(0, 99), replicas)]), &[])
}

#[test]
fn what_is_too_long_is_truncated_and_comes_by_tcp() {
    let server = Server::start(wide(60));
    let srv = question("_sip._udp.low.shard.gsm.example", RecordType::SRV);
    for (message, size_max) in
        [(srv.clone(), 512), (with_edns(srv.clone(), 1_000), 1_000), (with_edns(srv.clone(), 65_535), 1_232)]
    {
        let packet = exchange(&udp_socket(), server.udp, &message.to_vec().unwrap());
        assert!(packet.len() <= size_max, "{} of {size_max}", packet.len());
        let answer = Message::from_vec(&packet).unwrap();
        assert!(answer.metadata.truncation && answer.answers.is_empty() && answer.queries == message.queries);
        // RFC 6891 §7: an OPT record also where the response is truncated.
        assert_eq!(answer.edns.is_some(), message.edns.is_some());
        assert_eq!(rcode(&answer), ResponseCode::NoError);
    }
    let whole = ask_tcp(server.tcp, &srv);
    assert!(!whole.metadata.truncation);
    assert_eq!((whole.answers.len(), whole.additionals.len()), (60, 60));
    assert_eq!(server.counts().truncated.load(Relaxed), 3);
}

#[test]
fn addresses_that_do_not_fit_are_left_out_without_a_word() {
    let server = Server::start(wide(8));
    let srv = question("_sip._udp.low.shard.gsm.example", RecordType::SRV);
    let short = ask(server.udp, &srv);
    assert_eq!((short.metadata.truncation, short.answers.len(), short.additionals.len()), (false, 8, 0));
    let long = ask(server.udp, &with_edns(srv, 1_232));
    assert_eq!((long.metadata.truncation, long.answers.len(), long.additionals.len()), (false, 8, 8));
}

#[test]
fn edns_of_another_version_is_badvers() {
    let server = Server::start(zone());
    let mut message = with_edns(question(APEX, RecordType::SOA), 1_232);
    message.edns.as_mut().unwrap().set_version(1);
    let answer = ask(server.udp, &message);
    // 16 is BADVERS here and BADSIG beside a TSIG; hickory reads it as the latter.
    assert_eq!(u16::from(rcode(&answer)), 16);
    assert_eq!(answer.edns.as_ref().map(Edns::version), Some(0));
    assert!(answer.answers.is_empty());
    // DO is copied (RFC 3225 §3).
    let mut message = with_edns(question(APEX, RecordType::SOA), 1_232);
    message.edns.as_mut().unwrap().set_dnssec_ok(true);
    let answer = ask(server.udp, &message);
    assert!(answer.edns.is_some_and(|edns| edns.flags().dnssec_ok && edns.max_payload() == 1_232));
    assert_eq!(ask(server.udp, &question(APEX, RecordType::SOA)).edns, None);
}

#[test]
fn what_we_do_not_do_is_refused_in_the_right_words() {
    let server = Server::start(zone());
    for opcode in [OpCode::Status, OpCode::Notify, OpCode::Update] {
        let mut message = question(APEX, RecordType::SOA);
        message.metadata.op_code = opcode;
        let answer = ask(server.udp, &message);
        assert_eq!((rcode(&answer), answer.metadata.op_code), (ResponseCode::NotImp, opcode));
    }
    let mut chaos = question("version.bind", RecordType::TXT);
    chaos.queries[0].set_query_class(DNSClass::CH);
    assert_eq!(rcode(&ask(server.udp, &chaos)), ResponseCode::Refused);
    let mut chaos = question(APEX, RecordType::SOA);
    chaos.queries[0].set_query_class(DNSClass::CH);
    assert_eq!(rcode(&ask(server.udp, &chaos)), ResponseCode::Refused);
    assert_eq!(rcode(&ask(server.udp, &question("www.example.org", RecordType::A))), ResponseCode::Refused);
    for rtype in [RecordType::AXFR, RecordType::IXFR] {
        let answer = ask_tcp(server.tcp, &question(APEX, rtype));
        assert_eq!((rcode(&answer), answer.answers.len()), (ResponseCode::Refused, 0));
    }
    // It goes on answering on both, and RD is copied, RA not set.
    let mut message = question(APEX, RecordType::SOA);
    message.metadata.recursion_desired = true;
    let answer = ask(server.udp, &message);
    assert!(answer.metadata.recursion_desired && !answer.metadata.recursion_available && answer.metadata.authoritative);
}

#[test]
fn bad_packets_cost_little_and_are_counted() {
    let server = Server::start(zone());
    let socket = udp_socket();
    let good = question(APEX, RecordType::SOA).to_vec().unwrap();
    let mut many = good.clone();
    many[4..6].copy_from_slice(&[0xff, 0xff]);
    let mut none = good.clone();
    none[4..6].copy_from_slice(&[0, 0]);
    let cut = &good[..good.len() - 3];
    let mut pointer_to_itself = good[..12].to_vec();
    pointer_to_itself.extend([0xc0, 0x0c, 0, 6, 0, 1]);
    for packet in [&many[..], &none[..], cut, &pointer_to_itself[..]] {
        let answer = Message::from_vec(&exchange(&socket, server.udp, packet)).unwrap();
        assert_eq!((rcode(&answer), answer.metadata.id), (ResponseCode::FormErr, 4_711));
    }
    let mut response = good.clone();
    response[2] |= 0x80;
    // Neither the empty, the short nor the response is answered: the next answer is the good one's.
    for packet in [&b""[..], &good[..11], &response[..]] {
        socket.send_to(packet, server.udp).unwrap();
    }
    assert_eq!(rcode(&Message::from_vec(&exchange(&socket, server.udp, &good)).unwrap()), ResponseCode::NoError);
    let counts = server.counts();
    let (malformed, unasked) = (counts.malformed.load(Relaxed), counts.unasked.load(Relaxed));
    assert_eq!((malformed, unasked, counts.questions.load(Relaxed)), (6, 1, 1));
}

#[test]
fn no_packet_makes_it_panic() {
    let (zone, counts) = (zone(), Counts::default());
    let source = "192.0.2.1:53000".parse().unwrap();
    let mut dice = Dice(42);
    let bases = [
        question("x.5.6.imsi.gsm.example", RecordType::NAPTR).to_vec().unwrap(),
        with_edns(question(APEX, RecordType::SOA), 4_096).to_vec().unwrap(),
    ];
    for _ in 0..200_000 {
        let mut packet = dice.pick(&bases).clone();
        for _ in 0..1 + dice.below(4) {
            match dice.below(3) {
                0 => {
                    let at = dice.below(packet.len().max(1));
                    packet.truncate(at);
                }
                1 => packet.push(dice.next() as u8),
                _ if packet.is_empty() => (),
                _ => {
                    let at = dice.below(packet.len());
                    packet[at] = dice.next() as u8;
                }
            }
        }
        for transport in [Transport::Udp, Transport::Tcp] {
            if let Some(answer) = dns::answer_packet(&zone, &counts, &packet, source, transport) {
                assert_eq!(answer[..2], packet[..2], "{packet:02x?}");
                assert!(answer[2] & 0x80 != 0, "{packet:02x?}");
                Message::from_vec(&answer).unwrap_or_else(|fault| panic!("{fault}: {packet:02x?}"));
            }
        }
    }
}

#[test]
fn a_dot_inside_a_label_is_no_boundary() {
    let server = Server::start(zone());
    let labels = |labels: &[&[u8]]| {
        let mut message = Message::new(1, MessageType::Query, OpCode::Query);
        let labels = labels.iter().copied().chain([&b"gsm"[..], b"example"]);
        message.add_query(Query::query(Name::from_labels(labels).unwrap(), RecordType::NAPTR));
        ask(server.udp, &message)
    };
    assert_eq!(rcode(&labels(&[b"x.5", b"6", b"imsi"])), ResponseCode::NXDomain);
    assert_eq!(rcode(&labels(&[b"x", b"5", b"6.imsi"])), ResponseCode::NXDomain);
    let odd = labels(&[b"\xff.\x00\\", b"5", b"6", b"imsi"]);
    assert_eq!((rcode(&odd), odd.answers.len()), (ResponseCode::NoError, 1));
    assert_eq!(odd.answers[0].name, *odd.queries[0].name());
}

#[test]
fn the_case_of_the_question_is_kept() {
    let server = Server::start(zone());
    for name in ["X.5.6.ImSi.gSm.ExAmPlE", "5.6.ImSi.gSm.ExAmPlE"] {
        let answer = ask(server.udp, &question(name, RecordType::NAPTR));
        assert_eq!(answer.answers.len(), 1);
        assert_eq!(answer.answers[0].name.to_string(), format!("{name}."));
    }
}

#[test]
fn names_of_subscribers_are_for_those_who_may_ask() {
    let mut site = site();
    site.zone.allow = vec![Network::parse("192.0.2.0/24").unwrap()];
    let server = Server::start(zone_with(site.clone(), &[]));
    assert_eq!(rcode(&ask(server.udp, &question("5.6.imsi.gsm.example", RecordType::NAPTR))), ResponseCode::Refused);
    assert_eq!(rcode(&ask(server.udp, &question("front.gsm.example", RecordType::A))), ResponseCode::NoError);
    // The node hands over a new zone; the next answer is from it.
    site.zone.allow = vec![Network::parse("127.0.0.0/8").unwrap()];
    server.zone.store(Arc::new(zone_with(site, &[])));
    assert_eq!(rcode(&ask(server.udp, &question("5.6.imsi.gsm.example", RecordType::NAPTR))), ResponseCode::NoError);
    assert_eq!(server.counts().refused.load(Relaxed), 1);
}

#[test]
fn tcp_answers_many_questions_in_order_and_limits_each_source() {
    let server = Server::start(zone());
    let mut stream = connect(server.tcp);
    let mut both = framed(&question(APEX, RecordType::SOA));
    both.extend(framed(&question("1.5.6.imsi.gsm.example", RecordType::NAPTR)));
    // Byte by byte, and two in a row.
    for byte in both {
        stream.write_all(&[byte]).unwrap();
    }
    assert_eq!(read_framed(&mut stream).unwrap().answers[0].record_type(), RecordType::SOA);
    assert_eq!(read_framed(&mut stream).unwrap().answers[0].record_type(), RecordType::NAPTR);

    let mut open: Vec<TcpStream> = (1..dns::TCP_CONNECTION_PER_SOURCE_COUNT_MAX).map(|_| connect(server.tcp)).collect();
    let soa = framed(&question(APEX, RecordType::SOA));
    for stream in &mut open {
        stream.write_all(&soa).unwrap();
        assert_eq!(read_framed(stream).unwrap().answers.len(), 1);
    }
    let mut one_more = connect(server.tcp);
    assert!(one_more.write_all(&soa).and_then(|()| read_framed(&mut one_more)).is_err(), "one too many");
    assert_eq!(server.counts().connections_refused.load(Relaxed), 1);
    // When one ends there is room again.
    drop(open.pop());
    let until = Instant::now() + Duration::from_secs(5);
    loop {
        let mut stream = connect(server.tcp);
        if stream.write_all(&soa).and_then(|()| read_framed(&mut stream)).is_ok() {
            break;
        }
        assert!(Instant::now() < until, "no room after one ended");
        std::thread::sleep(Duration::from_millis(10));
    }
}

#[test]
fn an_address_that_is_taken_is_told_and_one_that_was_stopped_is_free() {
    let mut server = Server::start(zone_with(site(), &[]));
    let (udp, tcp) = (format!("udp:{}", server.udp), format!("tcp:{}", server.tcp));
    let open = connect(server.tcp);
    server.runtime.block_on(async {
        for address in [&udp, &tcp] {
            let fault = dns::bind(&listeners(&[address])).unwrap_err();
            assert_eq!(fault.to_string(), format!("the zone cannot listen on {address}"));
            assert!(fault.hint().is_some_and(|hint| hint.contains("another name server")), "{fault:?}");
        }
        server.serving.take().unwrap().stop().await;
        dns::bind(&listeners(&[&udp, &tcp])).expect("free again");
    });
    drop(open);
}
