//! DNS on the wire: UDP and TCP, packets in, [`Zone::answer_to`] asked, packets out.
//!
//! Knows: packets, sizes, EDNS, connections. Does not know: what is in the zone; it turns a question into our words and a
//! [`Reply`] into hickory's, and looks nothing up anywhere else.
//! Reads: the zone that the node last handed over, one look for each question. Writes: sockets and [`Counts`].
//! Limits: [`UDP_PAYLOAD_MAX`], [`TCP_CONNECTION_COUNT_MAX`], [`TCP_CONNECTION_PER_SOURCE_COUNT_MAX`], [`TCP_IDLE_MAX`]; one task a UDP
//! socket, which answers before it reads on, so there is no queue but the kernel's.
//! Read first: RFC 1035 §4, RFC 6891 §6, RFC 7766 §6.
//!
//! Packets are read and written by hickory-server's `Request` and `MessageResponseBuilder`. Its `Server`, which would own
//! the sockets, is not used: it answers or drops a malformed packet without telling us, so nobody could count it; it logs the
//! name of each question, which is a whole IMSI, at level info; it takes any number of connections; it leaves out the OPT
//! record when it truncates; and it keeps room for 65 535 questions when a packet of twelve bytes announces them.

#![allow(clippy::disallowed_types, clippy::disallowed_methods)] // the shell owns sockets

use std::collections::HashMap;
use std::fmt;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use arc_swap::ArcSwap;
use hickory_proto::op::{Edns, Metadata, ResponseCode};
use hickory_proto::rr::rdata::{A, AAAA, MX, NAPTR, NS, SOA, SRV, TXT};
use hickory_proto::rr::{Name, RData, Record};
use hickory_proto::serialize::binary::BinEncoder;
use hickory_server::net::xfer::Protocol;
use hickory_server::server::Request;
use hickory_server::zone_handler::MessageResponseBuilder;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream, UdpSocket};
use tokio::task::JoinSet;
use tokio::time::timeout;

use crate::config::{Listener, Transport};
use crate::zone::Zone;
use crate::zone::answer::{Class, Data, Question, RType, Rcode, Reply, Rr};

/// The largest answer that leaves by UDP, however much the asker would take: what passes without fragments (RFC 9715).
pub const UDP_PAYLOAD_MAX: u16 = 1_232;
/// What an asker without EDNS takes (RFC 1035 §4.2.1), and the least that EDNS can announce (RFC 6891 §6.2.5).
const UDP_PAYLOAD_MIN: u16 = 512;
/// All connections together; one more is closed at once and counted.
pub const TCP_CONNECTION_COUNT_MAX: usize = 200;
/// Those from one address.
pub const TCP_CONNECTION_PER_SOURCE_COUNT_MAX: usize = 20;
/// How long a connection may take to send its next question whole, or to take an answer.
pub const TCP_IDLE_MAX: Duration = Duration::from_secs(10);
/// After a listener failed (out of file descriptors, say): a pause, or the loop would spin.
const AFTER_FAULT: Duration = Duration::from_millis(100);

/// What happened on the DNS listeners since the start.
#[derive(Debug, Default)]
pub struct Counts {
    /// Questions that were answered, refusals included.
    pub questions: AtomicU64,
    /// Of these, refused.
    pub refused: AtomicU64,
    /// Of these, too long for the asker's UDP: he was told to come by TCP.
    pub truncated: AtomicU64,
    /// Packets that are no question: answered FORMERR, or dropped where not even that can be said.
    pub malformed: AtomicU64,
    /// Answers sent to us, which are dropped: two servers must not talk to each other for ever.
    pub unasked: AtomicU64,
    /// Operations and EDNS versions that we do not have.
    pub unsupported: AtomicU64,
    /// Connections over a limit.
    pub connections_refused: AtomicU64,
    /// Connections that were closed because nothing whole came or went in time.
    pub connections_timed_out: AtomicU64,
    /// Answers that the socket would not take, and faults of a listener.
    pub faults: AtomicU64,
}

impl Counts {
    /// Each with its name, for `status` and metrics.
    pub fn all(&self) -> [(&'static str, u64); 9] {
        [
            ("questions", self.questions.load(Relaxed)),
            ("refused", self.refused.load(Relaxed)),
            ("truncated", self.truncated.load(Relaxed)),
            ("malformed", self.malformed.load(Relaxed)),
            ("unasked", self.unasked.load(Relaxed)),
            ("unsupported", self.unsupported.load(Relaxed)),
            ("connections_refused", self.connections_refused.load(Relaxed)),
            ("connections_timed_out", self.connections_timed_out.load(Relaxed)),
            ("faults", self.faults.load(Relaxed)),
        ]
    }
}

/// Why a listener of `zone.listen` cannot be had.
#[derive(Debug)]
pub struct BindError {
    pub transport: Transport,
    pub address: SocketAddr,
    source: io::Error,
}

impl BindError {
    /// What the operator can do about it.
    pub fn hint(&self) -> Option<&'static str> {
        match self.source.kind() {
            io::ErrorKind::AddrInUse => Some("another name server has this port; `ss -lnp` shows which"),
            io::ErrorKind::AddrNotAvailable => Some("no interface of this box has this address"),
            io::ErrorKind::PermissionDenied if self.address.port() < 1024 => {
                Some("a port below 1024 needs CAP_NET_BIND_SERVICE, which the systemd unit gives")
            }
            _ => None,
        }
    }
}

impl fmt::Display for BindError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let transport = match self.transport {
            Transport::Udp => "udp",
            Transport::Tcp => "tcp",
        };
        write!(f, "the zone cannot listen on {transport}:{}", self.address)
    }
}

impl std::error::Error for BindError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        Some(&self.source)
    }
}

/// Sockets that are ours but not yet served, so that a fault at the start is known before anything is promised.
#[derive(Debug)]
pub struct Bound {
    udp: Vec<UdpSocket>,
    tcp: Vec<TcpListener>,
}

/// Takes all addresses of `zone.listen`, or none. Inside a tokio runtime.
pub fn bind(listen: &[Listener]) -> Result<Bound, BindError> {
    let mut bound = Bound { udp: Vec::new(), tcp: Vec::new() };
    for listener in listen {
        bound.bind(listener).map_err(|source| BindError {
            transport: listener.transport,
            address: listener.address,
            source,
        })?;
    }
    Ok(bound)
}

impl Bound {
    fn bind(&mut self, listener: &Listener) -> io::Result<()> {
        let (kind, protocol) = match listener.transport {
            Transport::Udp => (socket2::Type::DGRAM, socket2::Protocol::UDP),
            Transport::Tcp => (socket2::Type::STREAM, socket2::Protocol::TCP),
        };
        let socket = socket2::Socket::new(socket2::Domain::for_address(listener.address), kind, Some(protocol))?;
        if listener.address.is_ipv6() {
            // `[::]:53` beside `0.0.0.0:53` is two listeners, not one twice.
            socket.set_only_v6(true)?;
        }
        socket.set_nonblocking(true)?;
        match listener.transport {
            Transport::Udp => {
                socket.bind(&listener.address.into())?;
                self.udp.push(UdpSocket::from_std(socket.into())?);
            }
            Transport::Tcp => {
                // Connections of a server that has just ended must not keep the next one from starting.
                socket.set_reuse_address(true)?;
                socket.bind(&listener.address.into())?;
                socket.listen(128)?;
                self.tcp.push(TcpListener::from_std(socket.into())?);
            }
        }
        Ok(())
    }

    /// What was really bound: differs from what was asked where the port was 0.
    pub fn addresses(&self) -> io::Result<Vec<(Transport, SocketAddr)>> {
        let udp = self.udp.iter().map(|socket| Ok((Transport::Udp, socket.local_addr()?)));
        let tcp = self.tcp.iter().map(|listener| Ok((Transport::Tcp, listener.local_addr()?)));
        udp.chain(tcp).collect()
    }

    /// Answers from now on.
    pub fn serve(self, zone: Arc<ArcSwap<Zone>>) -> Serving {
        let shared = Arc::new(Shared { zone, counts: Counts::default(), connections: Mutex::default() });
        let mut tasks = JoinSet::new();
        for socket in self.udp {
            tasks.spawn(serve_udp(socket, shared.clone()));
        }
        for listener in self.tcp {
            tasks.spawn(serve_tcp(listener, shared.clone()));
        }
        Serving { tasks, shared }
    }
}

/// The running listeners; they end when this is dropped, or with [`Serving::stop`] for sure.
#[derive(Debug)]
pub struct Serving {
    tasks: JoinSet<()>,
    shared: Arc<Shared>,
}

impl Serving {
    pub fn counts(&self) -> &Counts {
        &self.shared.counts
    }

    /// Ends all listeners and connections at once: an answer promises nothing, so none need be waited for.
    pub async fn stop(mut self) {
        self.tasks.shutdown().await;
    }
}

#[derive(Debug)]
struct Shared {
    zone: Arc<ArcSwap<Zone>>,
    counts: Counts,
    /// Open connections by source.
    connections: Mutex<HashMap<IpAddr, usize>>,
}

async fn serve_udp(socket: UdpSocket, shared: Arc<Shared>) {
    // A question has 255 bytes of name and some options; what is longer is cut, and malformed then.
    let mut buffer = [0; 4_096];
    loop {
        match socket.recv_from(&mut buffer).await {
            // Nobody listens on port 0: a forged source.
            Ok((_, source)) if source.port() == 0 => count(&shared.counts.malformed),
            Ok((len, source)) => {
                let zone = shared.zone.load();
                let answer = answer_packet(&zone, &shared.counts, &buffer[..len], source, Transport::Udp);
                drop(zone);
                if let Some(answer) = answer
                    && socket.send_to(&answer, source).await.is_err()
                {
                    count(&shared.counts.faults);
                }
            }
            // ICMP errors of earlier answers arrive here as well, so this is no reason to stop.
            Err(_) => count(&shared.counts.faults),
        }
    }
}

async fn serve_tcp(listener: TcpListener, shared: Arc<Shared>) {
    let mut connections = JoinSet::new();
    loop {
        match listener.accept().await {
            Ok((stream, source)) => match Admission::of(&shared, source.ip()) {
                Some(admission) => {
                    connections.spawn(serve_connection(stream, source, admission));
                }
                None => count(&shared.counts.connections_refused),
            },
            Err(_) => {
                count(&shared.counts.faults);
                tokio::time::sleep(AFTER_FAULT).await;
            }
        }
        while connections.try_join_next().is_some() {}
    }
}

/// The right of one connection to be there; given back when dropped.
struct Admission {
    shared: Arc<Shared>,
    source: IpAddr,
}

impl Admission {
    fn of(shared: &Arc<Shared>, source: IpAddr) -> Option<Admission> {
        let mut connections = shared.connections.lock().unwrap_or_else(PoisonError::into_inner);
        let all: usize = connections.values().sum();
        let its = connections.get(&source).copied().unwrap_or_default();
        if all >= TCP_CONNECTION_COUNT_MAX || its >= TCP_CONNECTION_PER_SOURCE_COUNT_MAX {
            return None;
        }
        connections.insert(source, its + 1);
        Some(Admission { shared: shared.clone(), source })
    }
}

impl Drop for Admission {
    fn drop(&mut self) {
        let mut connections = self.shared.connections.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(its) = connections.get_mut(&self.source) {
            *its -= 1;
            if *its == 0 {
                connections.remove(&self.source);
            }
        }
    }
}

async fn serve_connection(mut stream: TcpStream, source: SocketAddr, admission: Admission) {
    let counts = &admission.shared.counts;
    // An answer is one write; waiting for more would only delay it. Where that cannot be said, it is slower, no more.
    let _ = stream.set_nodelay(true);
    loop {
        let answer = match timeout(TCP_IDLE_MAX, read_framed(&mut stream)).await {
            Ok(Ok(question)) => {
                let zone = admission.shared.zone.load_full();
                answer_packet(&zone, counts, &question, source, Transport::Tcp)
            }
            // The asker is done, or gone.
            Ok(Err(_)) => return,
            Err(_) => return count(&counts.connections_timed_out),
        };
        // What cannot be answered on a stream has lost its place in it.
        let Some(answer) = answer else { return };
        match timeout(TCP_IDLE_MAX, stream.write_all(&framed(&answer))).await {
            Ok(Ok(())) => (),
            Ok(Err(_)) => return count(&counts.faults),
            Err(_) => return count(&counts.connections_timed_out),
        }
    }
}

/// "The message is prefixed with a two byte length field" (RFC 1035 §4.2.2).
async fn read_framed(stream: &mut TcpStream) -> io::Result<Vec<u8>> {
    let len = stream.read_u16().await?;
    let mut message = vec![0; usize::from(len)];
    stream.read_exact(&mut message).await?;
    Ok(message)
}

fn framed(answer: &[u8]) -> Vec<u8> {
    // The encoder was told to stop at 65 535.
    let len = u16::try_from(answer.len()).unwrap_or(u16::MAX);
    [&len.to_be_bytes(), answer].concat()
}

fn count(counter: &AtomicU64) {
    counter.fetch_add(1, Relaxed);
}

/// One packet in, at most one packet out.
///
/// Shape:  the answer has at most 65 535 bytes; by UDP at most what the asker takes and [`UDP_PAYLOAD_MAX`].
/// Errors: none: what cannot be answered is counted and dropped.
/// Source: RFC 1035 §4.1, RFC 6891 §6 and §7, RFC 2181 §9 (truncation).
/// Tests:  tests/zone_nsd.rs
pub fn answer_packet(
    zone: &Zone,
    counts: &Counts,
    packet: &[u8],
    source: SocketAddr,
    transport: Transport,
) -> Option<Vec<u8>> {
    const QR: u8 = 0x80;
    const OPCODE: u8 = 0x78;
    let Some(head) = packet.first_chunk::<12>() else {
        count(&counts.malformed);
        return None;
    };
    if head[2] & QR != 0 {
        count(&counts.unasked);
        return None;
    }
    if head[2] & OPCODE != 0 {
        count(&counts.unsupported);
        return Some(header_only(head, ResponseCode::NotImp));
    }
    // One question (RFC 9619 §4), no answers, perhaps the SOA of an IXFR, OPT and TSIG. Looked at before hickory does: it
    // makes room for as many questions as are announced.
    let announced: [u16; 4] = std::array::from_fn(|at| u16::from_be_bytes([head[4 + 2 * at], head[5 + 2 * at]]));
    if announced[0] != 1 || announced[1] > 0 || announced[2] > 1 || announced[3] > 2 {
        count(&counts.malformed);
        return Some(header_only(head, ResponseCode::FormErr));
    }
    let protocol = match transport {
        Transport::Udp => Protocol::Udp,
        Transport::Tcp => Protocol::Tcp,
    };
    let Ok(request) = Request::from_bytes(packet.to_vec(), source, protocol) else {
        count(&counts.malformed);
        return Some(header_only(head, ResponseCode::FormErr));
    };

    let mut metadata = Metadata::response_from_request(&request.metadata);
    let edns = request.edns.as_ref().map(|asked| {
        let mut edns = Edns::new();
        edns.set_max_payload(UDP_PAYLOAD_MAX);
        edns.set_dnssec_ok(asked.flags().dnssec_ok);
        edns
    });
    let size_max = match (transport, &request.edns) {
        (Transport::Tcp, _) => u16::MAX,
        (Transport::Udp, None) => UDP_PAYLOAD_MIN,
        (Transport::Udp, Some(asked)) => asked.max_payload().clamp(UDP_PAYLOAD_MIN, UDP_PAYLOAD_MAX),
    };
    // "If a responder does not implement the VERSION level of the request, then it MUST respond with RCODE=BADVERS" (RFC
    // 6891 §6.1.3)
    if request.edns.as_ref().is_some_and(|asked| asked.version() > 0) {
        count(&counts.unsupported);
        metadata.response_code = ResponseCode::BADVERS;
        return encode(&request, metadata, edns.as_ref(), Sections::default(), size_max, counts);
    }

    let Some(query) = request.queries.queries().first() else {
        count(&counts.malformed);
        return Some(header_only(head, ResponseCode::FormErr));
    };
    let asked = query.original().name();
    let text = question_text(asked);
    let question =
        Question { name: &text, rtype: RType(query.query_type().into()), class: Class(query.query_class().into()) };
    let reply = zone.answer_to(source.ip(), &question);
    count(&counts.questions);
    metadata.authoritative = reply.authoritative;
    metadata.response_code = match reply.rcode {
        Rcode::NoError => ResponseCode::NoError,
        Rcode::NxDomain => ResponseCode::NXDomain,
        Rcode::Refused => {
            count(&counts.refused);
            ResponseCode::Refused
        }
    };
    encode(&request, metadata, edns.as_ref(), Sections::of(&reply, &text, asked), size_max, counts)
}

/// An answer to what could not be read: its id, its operation and why not. RD is copied, the question is not.
fn header_only(head: &[u8; 12], code: ResponseCode) -> Vec<u8> {
    const QR: u8 = 0x80;
    const OPCODE_AND_RD: u8 = 0x79;
    let mut answer = vec![0; 12];
    answer[..2].copy_from_slice(&head[..2]);
    answer[2] = QR | (head[2] & OPCODE_AND_RD);
    answer[3] = code.low();
    answer
}

/// The records of an answer, in hickory's words.
#[derive(Default)]
struct Sections {
    answers: Vec<Record>,
    authority: Vec<Record>,
    additional: Vec<Record>,
}

impl Sections {
    fn of(reply: &Reply, text: &str, asked: &Name) -> Sections {
        let records = |section: &[Rr]| section.iter().map(|rr| record(rr, text, asked)).collect();
        Sections {
            answers: records(&reply.answers),
            authority: records(&reply.authority),
            additional: records(&reply.additional),
        }
    }
}

fn encode(
    request: &Request,
    metadata: Metadata,
    edns: Option<&Edns>,
    mut sections: Sections,
    size_max: u16,
    counts: &Counts,
) -> Option<Vec<u8>> {
    let mut whole = try_encode(request, metadata, edns, &sections, size_max);
    if matches!(whole, Ok((_, true))) && !sections.additional.is_empty() {
        // "The TC bit should not be set merely because some extra information could have been included, but there was
        // insufficient room" (RFC 2181 §9)
        sections.additional.clear();
        whole = try_encode(request, metadata, edns, &sections, size_max);
    }
    if matches!(whole, Ok((_, true))) {
        count(&counts.truncated);
        // "The minimal response MUST be the DNS header, question section, and an OPT record. This MUST also occur when a
        // truncated response (using the DNS header's TC bit) is returned." (RFC 6891 §7) Half a set helps nobody.
        let mut cut = metadata;
        cut.truncation = true;
        whole = try_encode(request, cut, edns, &Sections::default(), size_max);
    }
    match whole {
        Ok((bytes, _)) => Some(bytes),
        Err(_) => {
            count(&counts.faults);
            None
        }
    }
}

/// The packet, and whether it is truncated.
fn try_encode(
    request: &Request,
    metadata: Metadata,
    edns: Option<&Edns>,
    sections: &Sections,
    size_max: u16,
) -> Result<(Vec<u8>, bool), hickory_proto::ProtoError> {
    let mut bytes = Vec::with_capacity(usize::from(UDP_PAYLOAD_MIN));
    let mut encoder = BinEncoder::new(&mut bytes);
    encoder.set_max_size(size_max);
    let info = MessageResponseBuilder::new(&request.queries, edns)
        .build(metadata, &sections.answers, &sections.authority, [], &sections.additional)
        .destructive_emit(&mut encoder)?;
    Ok((bytes, info.truncation))
}

/// The name as [`Question`] wants it.
fn question_text(name: &Name) -> String {
    use fmt::Write;
    let mut text = String::with_capacity(64);
    for label in name.iter() {
        if !text.is_empty() {
            text.push('.');
        }
        for byte in label {
            match byte {
                b'a'..=b'z' | b'0'..=b'9' | b'-' | b'_' | b'*' => text.push(char::from(*byte)),
                b'A'..=b'Z' => text.push(char::from(byte.to_ascii_lowercase())),
                // Writing to a String cannot fail.
                other => drop(write!(text, "\\{other:03}")),
            }
        }
    }
    text
}

/// Our record as hickory's. The name that was asked is given back as it was written, its capitals included.
fn record(rr: &Rr, text: &str, asked: &Name) -> Record {
    let owner = if *rr.name == *text { asked.clone() } else { name(&rr.name) };
    let data = match &rr.data {
        Data::A(address) => RData::A(A(*address)),
        Data::Aaaa(address) => RData::AAAA(AAAA(*address)),
        Data::Ns(target) => RData::NS(NS(name(target))),
        Data::Soa { mname, rname, serial, refresh_s, retry_s, expire_s, minimum_s } => {
            // hickory has these as signed; no setting is near 68 years.
            let seconds = |value: &u32| i32::try_from(*value).unwrap_or(i32::MAX);
            let (refresh, retry, expire) = (seconds(refresh_s), seconds(retry_s), seconds(expire_s));
            RData::SOA(SOA::new(name(mname), name(rname), *serial, refresh, retry, expire, *minimum_s))
        }
        Data::Naptr { order, preference, flags, service, regexp, replacement } => {
            let bytes = |text: &str| text.as_bytes().into();
            let replacement = name(replacement);
            RData::NAPTR(NAPTR::new(*order, *preference, bytes(flags), bytes(service), bytes(regexp), replacement))
        }
        Data::Srv { priority, weight, port, target } => RData::SRV(SRV::new(*priority, *weight, *port, name(target))),
        Data::Txt(texts) => RData::TXT(TXT::new(texts.clone())),
        Data::Mx { preference, exchange } => RData::MX(MX::new(*preference, name(exchange))),
    };
    Record::from_rdata(owner, rr.ttl, data)
}

/// One of the zone's own names; they are checked where the configuration is read, so none is too long.
fn name(text: &str) -> Name {
    let labels = text.split('.').filter(|label| !label.is_empty()).map(str::as_bytes);
    let mut name = Name::from_labels(labels).unwrap_or_default();
    name.set_fqdn(true);
    name
}
