//! The PBX as a trunk that talks: it answers what the box sends out, and it rings phones where the box's 302 points.
//!
//! Knows: RFC 3261 by way of rsip, as [`super::pbx`]. Does not know: who should call whom.
//! Limits: a call that is not acknowledged gets its 200 at [`ANSWER_AT_MS`]; a phone that is rung has [`RING_WAIT`].
//! Read first: RFC 3261 §8.1.3.4 (3xx), §13.3.1.4 (the 200 of an INVITE), §15 (BYE).

use std::collections::HashMap;
use std::io;
use std::net::{SocketAddr, UdpSocket};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{RecvTimeoutError, Sender, channel};
use std::sync::{Arc, Condvar, Mutex};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use rsip::headers::{ToTypedHeader, UntypedHeader};
use rsip::message::HeadersExt;
use rsip::{Header, Headers, Method, Param, Request, Response, SipMessage, StatusCode, Uri, Version};

use super::bts::lock;
use super::pbx::{self, Draft, Told};
use super::rtp::Ear;

const RING_AFTER: Duration = Duration::from_millis(200);
const PICK_UP_AFTER: Duration = Duration::from_millis(400);
/// "an interval that starts at T1 seconds and doubles for each retransmission until it reaches T2" (RFC 3261 §13.3.1.4).
const ANSWER_AT_MS: [u64; 5] = [0, 500, 1_500, 3_500, 7_500];
const SEND_AT_MS: [u64; 4] = [0, 500, 1_500, 3_500];
const RING_WAIT: Duration = Duration::from_secs(10);
const BYE_WAIT: Duration = Duration::from_secs(5);

/// One call at the PBX.
#[derive(Clone)]
pub struct Line {
    /// What was dialled.
    pub dialled: String,
    /// The numbers that the caller is said to have: P-Asserted-Identity, display name and user of From, where they are.
    pub shown: Vec<String>,
    pub ear: Arc<Ear>,
    pub ours: Vec<u8>,
    pub theirs: Vec<u8>,
    pub is_up: bool,
    pub is_over: bool,
    pub is_acknowledged: bool,
    pub ended_by_them: bool,
    pub call_id: String,
    began: Instant,
    /// From and To of our own requests in the dialog.
    local: String,
    remote: String,
    /// Where they go.
    target: Option<(Uri, SocketAddr)>,
    cseq: u32,
}

/// A PBX with a socket and a thread of its own.
pub struct Exchange {
    shared: Arc<Shared>,
    reader: Option<JoinHandle<()>>,
}

struct Shared {
    socket: UdpSocket,
    own: SocketAddr,
    closing: AtomicBool,
    /// By Call-ID and CSeq number.
    waiting: Mutex<HashMap<(String, u32), Sender<Response>>>,
    lines: Mutex<HashMap<String, Line>>,
    changed: Condvar,
    complaints: Mutex<Vec<String>>,
}

impl Exchange {
    /// Errors: the trunk's address cannot be bound here.
    pub fn new(address: SocketAddr) -> io::Result<Exchange> {
        let socket = UdpSocket::bind(address)?;
        socket.set_read_timeout(Some(Duration::from_millis(50)))?;
        let own = socket.local_addr()?;
        let shared = Arc::new(Shared {
            socket,
            own,
            closing: AtomicBool::new(false),
            waiting: Mutex::default(),
            lines: Mutex::default(),
            changed: Condvar::new(),
            complaints: Mutex::default(),
        });
        let reader = {
            let shared = Arc::clone(&shared);
            std::thread::Builder::new().name("pbx".into()).spawn(move || read(&shared))?
        };
        Ok(Exchange { shared, reader: Some(reader) })
    }

    /// What was wrong with what came in.
    pub fn complaints(&self) -> Vec<String> {
        lock(&self.shared.complaints).clone()
    }

    /// Calls that are not over, by what was dialled.
    pub fn open_lines(&self) -> Vec<String> {
        lock(&self.shared.lines).values().filter(|line| !line.is_over).map(|line| line.dialled.clone()).collect()
    }

    /// The call that came in for this number, as soon as `is_so`, else as it is after `wait`.
    pub fn incoming_when(&self, dialled: &str, wait: Duration, is_so: impl Fn(&Line) -> bool) -> Option<Line> {
        self.line_when(wait, |line| line.dialled == dialled, is_so)
    }

    /// A call as soon as `is_so`, else as it is after `wait`.
    pub fn call_when(&self, call_id: &str, wait: Duration, is_so: impl Fn(&Line) -> bool) -> Option<Line> {
        self.line_when(wait, |line| line.call_id == call_id, is_so)
    }

    fn line_when(&self, wait: Duration, is_it: impl Fn(&Line) -> bool, is_so: impl Fn(&Line) -> bool) -> Option<Line> {
        let until = Instant::now() + wait;
        let mut lines = lock(&self.shared.lines);
        loop {
            let found = lines.values().filter(|line| is_it(line)).max_by_key(|line| line.began);
            let left = until.saturating_duration_since(Instant::now());
            if found.is_some_and(&is_so) || left.is_zero() {
                return found.cloned();
            }
            lines = self
                .shared
                .changed
                .wait_timeout(lines, left)
                .map_or_else(|error| error.into_inner().0, |(lines, _)| lines);
        }
    }

    /// Rings a phone as a PBX does that follows a 302: "`sip:`uri by way of the box at `to`", then the Contact it is sent to.
    ///
    /// Errors: what the caller was told in place of an answered call.
    pub fn ring(&self, to: SocketAddr, uri: &str, number: &str) -> Result<Line, Told> {
        let unreadable = |error: &dyn std::fmt::Display| Told::Unreadable(error.to_string());
        let mut dice = [0; 16];
        getrandom::fill(&mut dice).map_err(|error| unreadable(&error))?;
        let dice = u128::from_be_bytes(dice);
        let ear = Arc::new(Ear::open(self.shared.own.ip()).map_err(|error| unreadable(&error))?);
        let ours = ear.sdp("pbx");
        let draft = |uri: Uri, cseq: u32| Draft {
            own: self.shared.own,
            uri,
            user: number.to_owned(),
            branch: format!("z9hG4bK{dice:032x}{cseq}"),
            tag: format!("{:x}", dice >> 96),
            call_id: format!("{dice:032x}@{}", self.shared.own.ip()),
            cseq,
            body: ours.clone(),
        };
        let callee = Uri::try_from(uri).map_err(|error| unreadable(&error))?;
        let first = draft(callee, 1).invite();
        let answer = self.transact(&first, to, RING_WAIT).ok_or(Told::NoAnswer)?;
        pbx::acknowledge(&self.shared.socket, to, &first, &answer);
        let (target, to) = match pbx::read(&answer) {
            Told::Redirect { to, .. } => (contact_of(&answer.headers).map_err(|error| unreadable(&error))?, to),
            other => return Err(other),
        };
        // "it is RECOMMENDED that the UAC reuse the same To, From, and Call-ID used in the original redirected request" (§8.1.3.4)
        let second = draft(target, 2).invite();
        let answer = self.transact(&second, to, RING_WAIT).ok_or(Told::NoAnswer)?;
        if answer.status_code.code() != 200 {
            pbx::acknowledge(&self.shared.socket, to, &second, &answer);
            return Err(pbx::read(&answer));
        }
        let target = contact_of(&answer.headers).map_err(|error| unreadable(&error))?;
        let to = address_of(&target).ok_or_else(|| unreadable(&"a 200 whose Contact is no address"))?;
        let text = |header: Option<&Header>| header.map(value_of).unwrap_or_default();
        let find = |headers: &Headers, is: fn(&Header) -> bool| text(headers.iter().find(|header| is(header)));
        let line = Line {
            dialled: uri.to_owned(),
            shown: Vec::new(),
            ear,
            ours: ours.clone(),
            theirs: answer.body.clone(),
            is_up: true,
            is_over: false,
            is_acknowledged: true,
            ended_by_them: false,
            call_id: format!("{dice:032x}@{}", self.shared.own.ip()),
            began: Instant::now(),
            local: find(&second.headers, |header| matches!(header, Header::From(_))),
            remote: find(&answer.headers, |header| matches!(header, Header::To(_))),
            target: Some((target, to)),
            cseq: 2,
        };
        let ack = self.shared.in_dialog(&line, Method::Ack, 2);
        self.shared.send(Vec::from(ack), to);
        lock(&self.shared.lines).insert(line.call_id.clone(), line.clone());
        Ok(line)
    }

    /// The PBX hangs up: the code of the answer to its BYE.
    pub fn hang_up(&self, call_id: &str) -> Option<u16> {
        let (bye, to) = {
            let mut lines = lock(&self.shared.lines);
            let line = lines.get_mut(call_id)?;
            line.is_over = true;
            line.cseq += 1;
            (self.shared.in_dialog(line, Method::Bye, line.cseq), line.target.as_ref()?.1)
        };
        self.transact(&bye, to, BYE_WAIT).map(|answer| answer.status_code.code())
    }

    /// Sends, again until something comes, and waits for the final answer.
    fn transact(&self, request: &Request, to: SocketAddr, wait: Duration) -> Option<Response> {
        let call_id = request.call_id_header().ok()?.value().to_owned();
        let cseq = request.cseq_header().ok()?.typed().ok()?;
        let key = (call_id, cseq.seq);
        let (sender, receiver) = channel();
        lock(&self.shared.waiting).insert(key.clone(), sender);
        let (started, datagram) = (Instant::now(), Vec::from(request.clone()));
        let mut sendings = SEND_AT_MS.iter().map(|at_ms| Duration::from_millis(*at_ms)).peekable();
        let answer = loop {
            let elapsed = started.elapsed();
            if elapsed >= wait {
                break None;
            }
            if sendings.next_if(|at| *at <= elapsed).is_some() {
                self.shared.send(datagram.clone(), to);
                continue;
            }
            let until = sendings.peek().copied().unwrap_or(wait).min(wait);
            match receiver.recv_timeout(until - elapsed) {
                Ok(answer) if answer.status_code.code() >= 200 => break Some(answer),
                Ok(_) => while sendings.next().is_some() {},
                Err(RecvTimeoutError::Timeout) => {}
                Err(RecvTimeoutError::Disconnected) => break None,
            }
        };
        lock(&self.shared.waiting).remove(&key);
        answer
    }
}

impl Drop for Exchange {
    fn drop(&mut self) {
        self.shared.closing.store(true, Ordering::Relaxed);
        if let Some(reader) = self.reader.take() {
            // It ends within one read timeout; that it panicked would be no news for the phones.
            let _ = reader.join();
        }
    }
}

// --- What comes in --------------------------------------------------------------------------------------------------------

fn read(shared: &Arc<Shared>) {
    let mut buffer = vec![0; 65_536];
    while !shared.closing.load(Ordering::Relaxed) {
        let Ok((len, from)) = shared.socket.recv_from(&mut buffer) else { continue };
        if buffer[..len].trim_ascii().is_empty() {
            continue;
        }
        match SipMessage::try_from(&buffer[..len]) {
            Ok(SipMessage::Response(response)) => shared.answered(response),
            Ok(SipMessage::Request(request)) => shared.asked(request, from),
            Err(error) => shared.complain(format!("a datagram from {from} that a PBX cannot read: {error}")),
        }
    }
}

impl Shared {
    fn send(&self, datagram: Vec<u8>, to: SocketAddr) {
        // What does not arrive is missed at the other end, and stands there in the report.
        let _ = self.socket.send_to(&datagram, to);
    }

    fn complain(&self, what: String) {
        let mut complaints = lock(&self.complaints);
        if complaints.len() < super::bts::COMPLAINT_COUNT_MAX && !complaints.contains(&what) {
            complaints.push(what);
        }
    }

    fn answered(&self, response: Response) {
        let (Ok(call_id), Ok(Ok(cseq))) = (response.call_id_header(), response.cseq_header().map(|cseq| cseq.typed()))
        else {
            return self.complain("an answer without Call-ID or CSeq".into());
        };
        if let Some(waiting) = lock(&self.waiting).get(&(call_id.value().to_owned(), cseq.seq)) {
            // It gave up in this very moment.
            let _ = waiting.send(response);
        }
    }

    fn asked(self: &Arc<Shared>, request: Request, from: SocketAddr) {
        let Ok(call_id) = request.call_id_header().map(|call_id| call_id.value().to_owned()) else {
            return self.complain("a request without a Call-ID".into());
        };
        let is_known = lock(&self.lines).contains_key(&call_id);
        let code = match request.method {
            Method::Invite if is_known => return, // a copy: the answer is on its way
            Method::Invite => return self.invited(request, from, call_id),
            Method::Ack => {
                if let Some(line) = lock(&self.lines).get_mut(&call_id) {
                    line.is_acknowledged = true;
                }
                self.changed.notify_all();
                return;
            }
            Method::Bye if is_known => {
                if let Some(line) = lock(&self.lines).get_mut(&call_id) {
                    line.ended_by_them |= !line.is_over;
                    line.is_over = true;
                }
                self.changed.notify_all();
                200
            }
            Method::Cancel if is_known => {
                if let Some(line) = lock(&self.lines).get_mut(&call_id).filter(|line| !line.is_up) {
                    (line.ended_by_them, line.is_over) = (true, true);
                }
                200
            }
            Method::Bye | Method::Cancel => {
                self.complain(format!("a {} for a call that there is not", request.method));
                481
            }
            Method::Options => 200,
            _ => 405,
        };
        self.send(Vec::from(answer(&request, code, "pbx", Vec::new(), &[])), from);
    }

    /// Rings, picks up, and says so until it is acknowledged; in a thread of its own, which ends by itself.
    fn invited(self: &Arc<Shared>, request: Request, from: SocketAddr, call_id: String) {
        let tag = format!(
            "pbx{:x}",
            call_id.bytes().fold(0u32, |sum, byte| sum.wrapping_mul(31).wrapping_add(u32::from(byte)))
        );
        let ear = match Ear::open(self.own.ip()) {
            Ok(ear) => Arc::new(ear),
            Err(error) => return self.complain(format!("no port for RTP: {error}")),
        };
        let target = contact_of(&request.headers).ok().and_then(|uri| Some((uri.clone(), address_of(&uri)?)));
        if target.is_none() {
            self.complain("an INVITE without a Contact that is an address".into());
        }
        let (mut shown, mut local, mut remote) = (Vec::new(), String::new(), String::new());
        for header in request.headers.iter() {
            match header {
                Header::To(to) => local = format!("{};tag={tag}", to.value()),
                Header::From(from) => {
                    remote = from.value().to_owned();
                    if let Ok(from) = from.typed() {
                        shown.extend(from.display_name.map(|name| name.trim_matches('"').to_owned()));
                        shown.extend(from.uri.user().map(str::to_owned));
                    }
                }
                Header::Other(name, value) if name.eq_ignore_ascii_case("P-Asserted-Identity") => {
                    shown.push(super::heard::user_of(super::heard::uri_in(value)).to_owned());
                }
                _ => {}
            }
        }
        shown.retain(|name| !name.is_empty());
        let ours = ear.sdp("pbx");
        let line = Line {
            dialled: request.uri.user().unwrap_or_default().to_owned(),
            shown,
            ear,
            ours: ours.clone(),
            theirs: request.body.clone(),
            is_up: false,
            is_over: false,
            is_acknowledged: false,
            ended_by_them: false,
            call_id: call_id.clone(),
            began: Instant::now(),
            local,
            remote,
            target,
            cseq: 0,
        };
        lock(&self.lines).insert(call_id.clone(), line);
        self.changed.notify_all();
        let contact = || {
            let uri = Uri {
                scheme: Some(rsip::Scheme::Sip),
                auth: Some(("pbx", None::<String>).into()),
                host_with_port: self.own.into(),
                ..Uri::default()
            };
            Header::from(rsip::typed::Contact { display_name: None, uri, params: Vec::new() })
        };
        self.send(Vec::from(answer(&request, 100, "", Vec::new(), &[])), from);
        let ringing = Vec::from(answer(&request, 180, &tag, vec![contact()], &[]));
        let content = Header::ContentType("application/sdp".into());
        let picked_up = Vec::from(answer(&request, 200, &tag, vec![contact(), content], &ours));
        let terminated = Vec::from(answer(&request, 487, &tag, Vec::new(), &[]));
        let shared = Arc::clone(self);
        let run = move || {
            let is = |what: fn(&Line) -> bool| lock(&shared.lines).get(&call_id).is_none_or(what);
            std::thread::sleep(RING_AFTER);
            shared.send(ringing, from);
            std::thread::sleep(PICK_UP_AFTER);
            if is(|line| line.is_over) {
                return shared.send(terminated, from);
            }
            if let Some(line) = lock(&shared.lines).get_mut(&call_id) {
                line.is_up = true;
            }
            shared.changed.notify_all();
            let mut before = 0;
            for at_ms in ANSWER_AT_MS {
                std::thread::sleep(Duration::from_millis(at_ms - before));
                before = at_ms;
                if is(|line| line.is_acknowledged || line.is_over) || shared.closing.load(Ordering::Relaxed) {
                    return;
                }
                shared.send(picked_up.clone(), from);
            }
        };
        if let Err(error) = std::thread::Builder::new().name("pbx call".into()).spawn(run) {
            self.complain(format!("no thread for a call: {error}"));
        }
    }

    fn in_dialog(&self, line: &Line, method: Method, cseq: u32) -> Request {
        let uri = line.target.as_ref().map(|(uri, _)| uri.clone()).unwrap_or_default();
        let via = rsip::typed::Via {
            version: Version::V2,
            transport: rsip::Transport::Udp,
            uri: Uri { host_with_port: self.own.into(), ..Uri::default() },
            params: vec![Param::Branch(
                format!("z9hG4bK{}{method}{cseq}", line.call_id.split('@').next().unwrap_or_default()).into(),
            )],
        };
        let mut headers = Headers::default();
        headers.push(via.into());
        headers.push(rsip::headers::MaxForwards::default().into());
        headers.push(Header::From(line.local.clone().into()));
        headers.push(Header::To(line.remote.clone().into()));
        headers.push(Header::CallId(line.call_id.clone().into()));
        headers.push(rsip::typed::CSeq { seq: cseq, method }.into());
        headers.push(rsip::headers::ContentLength::default().into());
        Request { method, uri, version: Version::V2, headers, body: Vec::new() }
    }
}

/// "the same Via, From, Call-ID, CSeq, and To with a tag added" (RFC 3261 §8.2.6.2).
fn answer(request: &Request, code: u16, tag: &str, more: Vec<Header>, body: &[u8]) -> Response {
    let mut headers = Headers::default();
    for header in request.headers.iter() {
        match header {
            Header::To(to) if !tag.is_empty() && !to.value().contains(";tag=") => {
                headers.push(Header::To(format!("{};tag={tag}", to.value()).into()));
            }
            Header::Via(_) | Header::From(_) | Header::To(_) | Header::CallId(_) | Header::CSeq(_) => {
                headers.push(header.clone());
            }
            _ => {}
        }
    }
    for header in more {
        headers.push(header);
    }
    headers.push(Header::ContentLength(body.len().to_string().into()));
    Response { status_code: StatusCode::from(code), version: Version::V2, headers, body: body.to_vec() }
}

fn contact_of(headers: &Headers) -> Result<Uri, rsip::Error> {
    let contact = headers.iter().find_map(|header| match header {
        Header::Contact(contact) => Some(contact.typed()),
        _ => None,
    });
    Ok(contact.ok_or(rsip::Error::missing_header("Contact"))??.uri)
}

fn address_of(uri: &Uri) -> Option<SocketAddr> {
    super::heard::address(&uri.host_with_port.to_string())
}

fn value_of(header: &Header) -> String {
    header.to_string().split_once(':').map(|(_, value)| value.trim().to_owned()).unwrap_or_default()
}
