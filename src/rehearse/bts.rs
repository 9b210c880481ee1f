//! A base station without a radio: what an OpenBTS sends, byte for byte, and what it misreads.
//!
//! Knows: wire.md sections 1 and 2, and nothing of our parser and writer: a fault of theirs must not be mirrored here. One socket,
//! one Call-ID and one CSeq counter for all registrations, new ones after [`Station::restart`]. Calls are in [`super::call`], texts
//! in [`super::text`]. Does not know: what the box should have said; it notes as a complaint what an OpenBTS would have stumbled over.
//! Limits: [`ANSWER_WAIT`] a leg, [`READ_BYTES_MAX`] a datagram, [`COMPLAINT_COUNT_MAX`] different complaints.
//! Read first: wire.md 1.1, 1.5, 1.6, 1.9, 2.

use std::collections::{BTreeMap, HashMap};
use std::fmt::Write as _;
use std::io;
use std::net::{SocketAddr, UdpSocket};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{RecvTimeoutError, Sender, channel};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use super::air::Air;
use super::heard::{Heard, tag_of};
use super::phone::{Phone, Registration, Saw, reject_cause};
use crate::ident::Imsi;

/// "The registrar has 12 s per leg" (wire.md 1.4); then the channel is dropped without a word.
pub const ANSWER_WAIT: Duration = Duration::from_secs(12);
/// The older ones send a REGISTER again every 500 ms, and give up after 5 s (wire.md 1.4).
const OLD_RESEND: Duration = Duration::from_millis(500);
const OLD_ANSWER_WAIT: Duration = Duration::from_secs(5);
/// What is longer is cut; an answer must be shorter than this (wire.md 2).
pub const READ_BYTES_MAX: usize = 1500;
/// More different complaints than this are not told apart.
pub const COMPLAINT_COUNT_MAX: usize = 50;
pub(super) const USER_AGENT: &str = "OpenBTS 5.0-master Build Date 2026-11-21T11:58:28";
/// SIP.RegistrationPeriod, 90 minutes.
const EXPIRES_S: u32 = 5400;

/// Which release writes.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Dialect {
    /// OpenBTS 5.0: two blanks after `To:` and `From:`, quoted Authorization, no REGISTER is ever sent twice.
    V5,
    /// OpenBTS 4.0 and older: display names, a bare `;branch`, a comma after `Digest`, nothing quoted; it cannot read a quoted nonce.
    V4,
}

/// The cell behind P-Access-Network-Info.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Cell {
    pub mcc: &'static str,
    pub mnc: &'static str,
    pub lac: u16,
    pub ci: u16,
}

impl Cell {
    /// "MCC + MNC + LAC `%04x` + CI `%04x` glued" (wire.md 1.2).
    pub fn glued(&self) -> String {
        let Cell { mcc, mnc, lac, ci } = self;
        format!("{mcc}{mnc}{lac:04x}{ci:04x}")
    }
}

/// One REGISTER before it is text: everything in it that is not the same each time.
#[derive(Clone, Copy, Debug)]
pub struct Register<'a> {
    pub dialect: Dialect,
    /// SIP.Proxy.Registration.
    pub registrar: SocketAddr,
    /// SIP.Local.IP and SIP.Local.Port.
    pub own: SocketAddr,
    pub cell: Cell,
    pub imsi: &'a Imsi,
    pub call_id: &'a str,
    pub cseq: u32,
    /// 16 letters.
    pub tag: &'a str,
    /// 16 letters; the old dialect has none.
    pub branch: &'a str,
    /// The base station's clock, in ms since 1970.
    pub time_ms: u64,
    pub expires_s: u32,
    pub authorization: Option<&'a str>,
}

impl Register<'_> {
    /// The datagram.
    ///
    /// Source: wire.md 1.1 and 1.9, both seen live or quoted from OpenBTS's source.
    pub fn text(&self) -> String {
        let Register { registrar, own, imsi, call_id, cseq, tag, branch, expires_s, .. } = *self;
        let (cell, host) = (self.cell.glued(), registrar.ip());
        let authorization = self.authorization.map(|value| format!("Authorization: {value}\n")).unwrap_or_default();
        let text = match self.dialect {
            Dialect::V5 => {
                let (seconds, millis) = (self.time_ms / 1000, self.time_ms % 1000);
                format!(
                    "REGISTER sip:{host} SIP/2.0\n\
                     To:  <sip:IMSI{imsi}@{registrar}>\n\
                     From:  <sip:IMSI{imsi}@{registrar}>;tag=OBTS{tag}\n\
                     Via: SIP/2.0/UDP {own};branch=z9hG4bKOBTS{branch}\n\
                     Call-ID: {call_id}\n\
                     CSeq: {cseq} REGISTER\n\
                     Contact: <sip:IMSI{imsi}@{own}>;expires={expires_s}\n\
                     {authorization}\
                     Max-Forwards: 70\n\
                     P-Preferred-Identity: <sip:IMSI{imsi}@{host}>\n\
                     P-PHY-Info: OpenBTS; IMSI=no-MMUser TA=0 TE=0.000000 UpRSSI=-65.000000 TxPwr=33 DnRSSIdBm=-71 time={seconds}.{millis:03}\n\
                     P-Access-Network-Info: 3GPP-GERAN; cgi-3gpp={cell}\n\
                     User-Agent: {USER_AGENT}\n\
                     Content-Length: 0\n\n"
                )
            }
            Dialect::V4 => format!(
                "REGISTER sip:{host} SIP/2.0\n\
                 Via: SIP/2.0/UDP {own};branch\n\
                 From: IMSI{imsi} <sip:IMSI{imsi}@{host}>;tag=tag{tag}\n\
                 To: IMSI{imsi} <sip:IMSI{imsi}@{host}>\n\
                 Call-ID: {call_id}\n\
                 CSeq: {cseq} REGISTER\n\
                 Contact: <sip:IMSI{imsi}@{own}>;expires={expires_s}\n\
                 {authorization}\
                 User-Agent: OpenBTS 4.0TRUNK Build Date May 25 2013\n\
                 Max-Forwards: 70\n\
                 P-PHY-Info: OpenBTS; TA=0 TE=0.122070 UpRSSI=-36.000000 TxPwr=17 DnRSSIdBm=-77\n\
                 P-Access-Network-Info: 3GPP-GERAN; cgi-3gpp={cell}\n\
                 P-Preferred-Identity: <sip:IMSI{imsi}@{host}:5060>\n\
                 Content-Length: 0\n\n"
            ),
        };
        text.replace('\n', "\r\n")
    }
}

/// The value of Authorization. "`uri` = bare IMSI digits without prefix" (wire.md 1.2).
pub fn authorization(dialect: Dialect, nonce: &str, imsi: &Imsi, sres: &str) -> String {
    match dialect {
        Dialect::V5 => format!("Digest nonce=\"{nonce}\", uri=\"{imsi}\", response=\"{sres}\""),
        Dialect::V4 => format!("Digest, nonce={nonce}, uri={imsi}, response={sres}"),
    }
}

/// The nonce of a challenge as the release reads it; empty where it finds none.
///
/// 5.0: "The value must begin with `Digest`; only `nonce` is read, quoted or token". Older: "they search the text `nonce` and jump 6
/// characters" (wire.md 1.5).
pub fn read_nonce(dialect: Dialect, value: &str) -> &str {
    fn token(text: &str) -> &str {
        text.split([' ', '\t', ',', ';', '"', '\r', '\n']).next().unwrap_or_default()
    }
    if dialect == Dialect::V4 {
        let Some(at) = value.find("nonce") else { return "" };
        return value[at..].get(6..).unwrap_or_default().split([' ', ',']).next().unwrap_or_default();
    }
    let Some(params) = value.trim_start().strip_prefix("Digest") else { return "" };
    for (at, _) in params.match_indices("nonce") {
        // `cnonce` is another word.
        if params[..at].ends_with(|before: char| before.is_ascii_alphanumeric()) {
            continue;
        }
        let Some(rest) = params[at + 5..].trim_start().strip_prefix('=') else { continue };
        let rest = rest.trim_start();
        return match rest.strip_prefix('"') {
            Some(quoted) => quoted.split('"').next().unwrap_or_default(),
            None => token(rest),
        };
    }
    ""
}

/// "nonce = RAND, exactly 32 hex digits. Anything else is a registration error" (wire.md 1.5).
pub fn rand_of(nonce: &str) -> Option<[u8; 16]> {
    if nonce.len() != 32 || !nonce.bytes().all(|byte| byte.is_ascii_hexdigit()) {
        return None;
    }
    Some(u128::from_str_radix(nonce, 16).ok()?.to_be_bytes())
}

/// Whom a base station sends what to: SIP.Proxy.Registration, .Speech and .SMS.
#[derive(Clone, Copy, Debug)]
pub struct Proxies {
    pub registration: SocketAddr,
    pub speech: SocketAddr,
    pub texts: SocketAddr,
}

/// A simulated base station. All methods may be called from several threads at once, as several phones speak at once.
pub struct Station {
    pub name: String,
    pub dialect: Dialect,
    identity: Mutex<Identity>,
    pub(super) shared: Arc<Shared>,
    reader: Option<JoinHandle<()>>,
}

/// "One value per BTS process, shared by every IMSI", and one counter (wire.md 1.2).
struct Identity {
    call_id: String,
    cseq: u32,
}

/// Whose answer this is: Call-ID, CSeq number and method. "Via, branch, tags are ignored" (wire.md 1.2).
pub(super) type Key = (String, u32, &'static str);

/// What the phones' threads and the reader have in common.
pub(super) struct Shared {
    socket: UdpSocket,
    pub(super) own: SocketAddr,
    pub(super) cell: Cell,
    pub(super) proxies: Proxies,
    closing: AtomicBool,
    waiting: Mutex<HashMap<Key, Sender<Heard>>>,
    complaints: Mutex<BTreeMap<String, u32>>,
    requests: Mutex<Vec<String>>,
    pub(super) air: Mutex<Air>,
    /// Something in `air` is not as it was.
    pub(super) changed: Condvar,
}

impl Station {
    /// Errors: the address cannot be bound here, or there are no dice.
    pub fn new(name: &str, address: SocketAddr, proxies: Proxies, dialect: Dialect, cell: Cell) -> io::Result<Station> {
        let socket = UdpSocket::bind(address)?;
        // The reader looks up this often whether a timer is due, or whether it shall end.
        socket.set_read_timeout(Some(Duration::from_millis(10)))?;
        let own = socket.local_addr()?;
        let identity = Mutex::new(Identity::new(dialect, own)?);
        let shared = Arc::new(Shared {
            socket,
            own,
            cell,
            proxies,
            closing: AtomicBool::new(false),
            waiting: Mutex::default(),
            complaints: Mutex::default(),
            requests: Mutex::default(),
            air: Mutex::default(),
            changed: Condvar::new(),
        });
        let reader = {
            let shared = Arc::clone(&shared);
            std::thread::Builder::new().name(format!("bts {name}")).spawn(move || shared.read())?
        };
        Ok(Station { name: name.to_owned(), dialect, identity, shared, reader: Some(reader) })
    }

    /// Where it listens, and what stands in its Contact.
    pub fn address(&self) -> SocketAddr {
        self.shared.own
    }

    /// Power off and on: a new Call-ID and another CSeq; what was under way is forgotten.
    pub fn restart(&self) -> io::Result<()> {
        *lock(&self.identity) = Identity::new(self.dialect, self.shared.own)?;
        lock(&self.shared.waiting).clear();
        Ok(())
    }

    /// What an OpenBTS would have stumbled over so far, each with how often.
    pub fn complaints(&self) -> Vec<(String, u32)> {
        lock(&self.shared.complaints).iter().map(|(what, count)| (what.clone(), *count)).collect()
    }

    /// The methods of the requests that came in.
    pub fn requests(&self) -> Vec<String> {
        lock(&self.shared.requests).clone()
    }

    /// A whole location updating: REGISTER, challenge, REGISTER with the answer.
    pub fn register(&self, phone: &Phone) -> Registration {
        let started = Instant::now();
        let mut seen = Registration {
            saw: Saw::NoAnswer,
            code: None,
            nonce: String::new(),
            authorization: None,
            numbers: Vec::new(),
            flaws: Vec::new(),
            took: Duration::ZERO,
        };
        self.legs(phone, &mut seen);
        if matches!(seen.saw, Saw::Registered | Saw::LetIn { .. }) {
            lock(&self.shared.air).numbers.insert(phone.imsi, seen.numbers.clone());
        }
        seen.took = started.elapsed();
        seen
    }

    fn legs(&self, phone: &Phone, seen: &mut Registration) {
        let Some(first) = self.leg(&phone.imsi, None) else { return };
        seen.code = Some(first.code());
        let Some(challenge) = first.get("WWW-Authenticate").filter(|_| first.code() == 401) else {
            self.note(phone, &first, None, seen);
            if seen.saw == Saw::Registered && phone.has_key() {
                seen.flaws.push("200 without a challenge, although the SIM has a key".into());
            }
            return;
        };
        let nonce = read_nonce(self.dialect, challenge).to_owned();
        seen.nonce.clone_from(&nonce);
        let Some(rand) = rand_of(&nonce) else {
            // FailMode ACCEPT: "A broken challenge is a silent open door" (wire.md 1.5).
            seen.saw = Saw::LetIn { why: "a 401 whose nonce is not 32 hex digits" };
            return;
        };
        if !phone.has_key() {
            seen.flaws.push("a challenge for a SIM without a key".into());
        }
        let vector = phone.vector(rand);
        let sres = vector.as_ref().map_or_else(|| "00000000".to_owned(), |vector| vector.sres.hex());
        let answer = authorization(self.dialect, &nonce, &phone.imsi, &sres);
        let second = self.leg(&phone.imsi, Some(&answer));
        seen.authorization = Some(answer);
        seen.code = second.as_ref().map(Heard::code);
        let Some(second) = second else { return };
        self.note(phone, &second, vector.as_ref().map(|vector| vector.kc.hex()), seen);
    }

    /// A REGISTER with an Authorization that somebody recorded, and no first leg: what a thief would send.
    pub fn replay(&self, imsi: &Imsi, authorization: &str) -> Saw {
        match self.leg(imsi, Some(authorization)) {
            None => Saw::NoAnswer,
            Some(answer) => self.end_of(&answer, true),
        }
    }

    /// IMSI DETACH: `expires=0`, "never with Authorization, once", and nobody looks at the answer (wire.md 1.3).
    pub fn detach(&self, imsi: &Imsi) {
        let (_, text) = self.request(imsi, None, 0);
        self.shared.send(text.as_bytes(), self.shared.proxies.registration);
    }

    /// How an answer ends the updating. `authorized`: the REGISTER had an Authorization.
    fn end_of(&self, answer: &Heard, authorized: bool) -> Saw {
        if answer.code() == 200 {
            return Saw::Registered;
        }
        if answer.code() == 401
            && authorized
            && answer.get("WWW-Authenticate").is_some_and(|value| !read_nonce(self.dialect, value).is_empty())
        {
            // "A second 401 carrying a nonce after Authorization was sent is treated as an error, not as a new challenge, and so,
            // by FailMode ACCEPT, lets the phone in" (wire.md 1.5).
            return Saw::LetIn { why: "a second 401 with a nonce, after the Authorization" };
        }
        Saw::Refused { cause: reject_cause(answer.code(), answer.get("P-GSM-Reject-Cause")) }
    }

    /// Reads the final answer: wire.md 1.6 and 1.7.
    fn note(&self, phone: &Phone, answer: &Heard, kc: Option<String>, seen: &mut Registration) {
        seen.saw = self.end_of(answer, seen.authorization.is_some());
        if let 201..=299 = answer.code() {
            seen.flaws.push(format!("{} where only 200 lets a phone in", answer.code()));
        }
        if answer.code() != 200 {
            return;
        }
        // OpenBTS does not look at it, but who else asks does (RFC 3261 §10.3 step 8).
        let contact = format!("<sip:IMSI{}@{}>", phone.imsi, self.shared.own);
        if !answer.all("Contact").any(|value| value.contains(&contact)) {
            seen.flaws.push("200 without the Contact that was registered".into());
        }
        if let Some(kc) = kc {
            let told = match answer.get("Authentication-Info") {
                Some(value) => Some(read_cnonce(value)),
                None => answer.get("P-GSM-Kc").map(str::trim),
            };
            match told {
                None => seen.flaws.push("200 without Kc: nothing would be ciphered".into()),
                Some(told) if !told.eq_ignore_ascii_case(&kc) => {
                    seen.flaws.push("200 with another Kc than the SIM's: ciphering would be noise".into());
                }
                Some(_) => {}
            }
        }
        for value in answer.all("P-Associated-URI").chain(answer.all("P-Asserted-Identity")) {
            for uri in value.split(',').filter_map(|one| one.split('<').nth(1)?.split('>').next()) {
                let rest = uri.split_once(':').map_or("", |(_, rest)| rest);
                seen.numbers.push(rest.split([';', '@']).next().unwrap_or_default().to_owned());
            }
        }
    }

    /// One REGISTER and its final answer; `None` when there was none in time.
    pub fn leg(&self, imsi: &Imsi, authorization: Option<&str>) -> Option<Heard> {
        let (key, text) = self.request(imsi, authorization, EXPIRES_S);
        let to = self.shared.proxies.registration;
        match self.dialect {
            Dialect::V5 => self.transact(key, &text, to, &[0], ANSWER_WAIT),
            Dialect::V4 => {
                let count = (OLD_ANSWER_WAIT.as_millis() / OLD_RESEND.as_millis()) as u64;
                let at_ms: Vec<u64> = (0..count).map(|turn| turn * OLD_RESEND.as_millis() as u64).collect();
                self.transact(key, &text, to, &at_ms, OLD_ANSWER_WAIT)
            }
        }
    }

    /// Sends a request, at each of these times until something comes, and waits for its final answer: "1xx is ignored" (wire.md 1.2)
    /// but that it stops the sending.
    pub(super) fn transact(
        &self,
        key: Key,
        text: &str,
        to: SocketAddr,
        at_ms: &[u64],
        wait: Duration,
    ) -> Option<Heard> {
        let (sender, receiver) = channel();
        lock(&self.shared.waiting).insert(key.clone(), sender);
        let started = Instant::now();
        let mut sendings = at_ms.iter().map(|at_ms| Duration::from_millis(*at_ms)).peekable();
        let answer = loop {
            let elapsed = started.elapsed();
            if elapsed >= wait {
                break None;
            }
            if sendings.next_if(|at| *at <= elapsed).is_some() {
                self.shared.send(text.as_bytes(), to);
                continue;
            }
            let until = sendings.peek().copied().unwrap_or(wait).min(wait);
            match receiver.recv_timeout(until - elapsed) {
                Ok(answer) if answer.code() >= 200 => break Some(answer),
                Ok(_) => while sendings.next().is_some() {},
                Err(RecvTimeoutError::Timeout) => {}
                // The station was restarted, and nobody waits any longer.
                Err(RecvTimeoutError::Disconnected) => break None,
            }
        };
        lock(&self.shared.waiting).remove(&key);
        answer
    }

    fn request(&self, imsi: &Imsi, authorization: Option<&str>, expires_s: u32) -> (Key, String) {
        let (call_id, cseq) = {
            let mut identity = lock(&self.identity);
            identity.cseq = identity.cseq.wrapping_add(1) & 0x7FFF_FFFF;
            (identity.call_id.clone(), identity.cseq)
        };
        let register = Register {
            dialect: self.dialect,
            registrar: self.shared.proxies.registration,
            own: self.shared.own,
            cell: self.shared.cell,
            imsi,
            call_id: &call_id,
            cseq,
            tag: &letters(),
            branch: &letters(),
            time_ms: now_ms(),
            expires_s,
            authorization,
        };
        let text = register.text();
        ((call_id, cseq, "REGISTER"), text)
    }
}

impl Drop for Station {
    fn drop(&mut self) {
        self.shared.closing.store(true, Ordering::Relaxed);
        if let Some(reader) = self.reader.take() {
            // It ends within one read timeout; that it panicked would be no news for the phones.
            let _ = reader.join();
        }
    }
}

impl Identity {
    fn new(dialect: Dialect, own: SocketAddr) -> io::Result<Identity> {
        let dice = dice()?;
        let call_id = match dialect {
            // "up to 16 hex digits (time + random, leading zeros dropped), no @host"
            Dialect::V5 => format!("{:x}", dice >> 64 & u128::from(u64::MAX)),
            Dialect::V4 => format!("{}@{}", dice >> 64 & 0x7FFF_FFFF, own.ip()),
        };
        // "starts at a random 20-bit number"
        Ok(Identity { call_id, cseq: (dice & 0xF_FFFF) as u32 })
    }
}

pub(super) fn dice() -> io::Result<u128> {
    let mut bytes = [0; 16];
    getrandom::fill(&mut bytes).map_err(io::Error::other)?;
    Ok(u128::from_be_bytes(bytes))
}

/// The base station's clock.
pub(super) fn now_ms() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_millis() as u64)
}

/// 16 lower-case letters: what a tag and a branch end with.
pub(super) fn letters() -> String {
    let mut dice = dice().unwrap_or_default();
    let mut text = String::with_capacity(16);
    for _ in 0..16 {
        text.push(char::from(b'a' + (dice % 26) as u8));
        dice /= 26;
    }
    text
}

/// As the older ones read it, "the same for `cnonce`": all others can read that too.
fn read_cnonce(value: &str) -> &str {
    let Some(at) = value.find("nonce") else { return "" };
    let rest = value[at..].get(6..).unwrap_or_default();
    rest.split([' ', ',', ';']).next().unwrap_or_default()
}

// --- What comes in and goes out ----------------------------------------------------------------------------------------

impl Shared {
    fn read(&self) {
        let mut buffer = vec![0; 65_536];
        while !self.closing.load(Ordering::Relaxed) {
            match self.socket.recv_from(&mut buffer) {
                Ok((len, from)) => {
                    if len >= READ_BYTES_MAX {
                        self.complain(format!("a datagram of {READ_BYTES_MAX} bytes or more: the rest is lost"));
                    }
                    self.hear(from, &buffer[..len.min(READ_BYTES_MAX)]);
                }
                // A timeout, mostly; anything else must not make this loop spin.
                Err(_) => std::thread::sleep(Duration::from_millis(1)),
            }
            self.tick();
        }
    }

    fn hear(&self, from: SocketAddr, datagram: &[u8]) {
        if datagram.trim_ascii().is_empty() {
            return; // a keep-alive
        }
        let Some(heard) = Heard::parse(datagram) else {
            return self.complain(format!("a datagram from {from} that is no SIP"));
        };
        for (name, value) in &heard.headers {
            if ["c", "l", "k", "s"].iter().any(|short| name.eq_ignore_ascii_case(short)) {
                self.complain(format!("the compact header name {name:?}, which no OpenBTS knows"));
            }
            let is_party = ["To", "From", "t", "f"].iter().any(|party| name.eq_ignore_ascii_case(party));
            if is_party && tag_of(value).contains(';') {
                // "Parameters after `;tag=` in From/To are taken into the tag" (wire.md 2).
                self.complain(format!("a parameter after the tag in {name}"));
            }
        }
        if heard.method().is_empty() { self.answered(from, heard) } else { self.asked(heard) }
    }

    /// "Transaction match of the answer: Call-ID + CSeq method + CSeq number only" (wire.md 1.2).
    fn answered(&self, from: SocketAddr, answer: Heard) {
        if answer.code() == 0 {
            return self.complain(format!("an answer from {from} without a code"));
        }
        let (Some((number, method)), Some(call_id)) = (answer.cseq(), answer.get("Call-ID")) else {
            return self.complain(format!("an answer from {from} without Call-ID or CSeq"));
        };
        let method = match method {
            "INVITE" => return self.invite_answered(&answer, number),
            "REGISTER" => "REGISTER",
            "MESSAGE" => "MESSAGE",
            "BYE" => "BYE",
            "CANCEL" => "CANCEL",
            _ => return,
        };
        if method == "REGISTER" && !answer.get("To").is_some_and(|to| to.contains("sip:IMSI")) {
            self.complain("an answer whose To has no user that begins with IMSI".into());
        }
        let key = (call_id.to_owned(), number, method);
        // Nobody waits for the answer to a detach, or for one that comes too late.
        if let Some(waiting) = lock(&self.waiting).get(&key) {
            // It gave up in this very moment.
            let _ = waiting.send(answer);
        }
    }

    /// "any request outside a dialog except INVITE and MESSAGE gets `404 Not Found`" (wire.md 2).
    fn asked(&self, request: Heard) {
        {
            let mut requests = lock(&self.requests);
            if requests.len() < COMPLAINT_COUNT_MAX {
                requests.push(request.method().to_owned());
            }
        }
        match request.method() {
            "INVITE" => self.invited(request),
            "ACK" => self.acknowledged(&request),
            "BYE" => self.hung_up(&request),
            "CANCEL" => self.cancelled(&request),
            "MESSAGE" => self.texted(request),
            _ => {
                self.reply(&request, "404 Not Found", "", "", b"");
            }
        }
    }

    /// An answer, sent as an OpenBTS does: "Several Vias come back folded into one comma-separated Via header"; "Answers go to the
    /// sent-by of the top Via, not to the source address" (wire.md 2). `tag` is for To where it has none; empty: none.
    pub(super) fn reply(&self, request: &Heard, status: &str, tag: &str, more: &str, body: &[u8]) -> Vec<u8> {
        let mut text = format!("SIP/2.0 {status}\r\n");
        let to = request.get("To").unwrap_or_default();
        let tag = if tag.is_empty() || to.contains(";tag=") { String::new() } else { format!(";tag={tag}") };
        for (name, value) in [
            ("To", format!(" {to}{tag}")),
            ("From", format!(" {}", request.get("From").unwrap_or_default())),
            ("Via", request.vias()),
            ("Call-ID", request.call_id().to_owned()),
            ("CSeq", request.get("CSeq").unwrap_or_default().to_owned()),
        ] {
            let _ = write!(text, "{name}: {value}\r\n");
        }
        let _ = write!(text, "{more}User-Agent: {USER_AGENT}\r\nContent-Length: {}\r\n\r\n", body.len());
        let mut datagram = text.into_bytes();
        datagram.extend_from_slice(body);
        match request.sent_by() {
            Some(to) => self.send(&datagram, to),
            None => self.complain(format!("a {} whose top Via names no address", request.method())),
        }
        datagram
    }

    pub(super) fn send(&self, datagram: &[u8], to: SocketAddr) {
        if let Err(error) = self.socket.send_to(datagram, to) {
            self.complain(format!("cannot send to {to}: {error}"));
        }
    }

    pub(super) fn complain(&self, what: String) {
        let mut complaints = lock(&self.complaints);
        if complaints.len() < COMPLAINT_COUNT_MAX || complaints.contains_key(&what) {
            *complaints.entry(what).or_default() += 1;
        }
    }
}

/// A phone's thread that panicked leaves nothing half done under these locks.
pub(super) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn imsi(text: &str) -> Imsi {
        Imsi::parse(text).unwrap()
    }

    const CELL: Cell = Cell { mcc: "001", mnc: "01", lac: 1000, ci: 10 };

    /// wire.md 1.1, seen live.
    #[test]
    fn both_legs_of_5_0_are_byte_for_byte_what_was_seen_live() {
        let register = Register {
            dialect: Dialect::V5,
            registrar: "127.0.0.1:5064".parse().unwrap(),
            own: "127.0.0.1:5062".parse().unwrap(),
            cell: CELL,
            imsi: &imsi("001010000000001"),
            call_id: "9200ac34758d0f49",
            cseq: 131_736,
            tag: "medozorenxebtuzb",
            branch: "nsjuyybeaexeivcf",
            time_ms: 1_795_265_024_340,
            expires_s: 5400,
            authorization: None,
        };
        let first = "REGISTER sip:127.0.0.1 SIP/2.0\r\n\
            To:  <sip:IMSI001010000000001@127.0.0.1:5064>\r\n\
            From:  <sip:IMSI001010000000001@127.0.0.1:5064>;tag=OBTSmedozorenxebtuzb\r\n\
            Via: SIP/2.0/UDP 127.0.0.1:5062;branch=z9hG4bKOBTSnsjuyybeaexeivcf\r\n\
            Call-ID: 9200ac34758d0f49\r\n\
            CSeq: 131736 REGISTER\r\n\
            Contact: <sip:IMSI001010000000001@127.0.0.1:5062>;expires=5400\r\n\
            Max-Forwards: 70\r\n\
            P-Preferred-Identity: <sip:IMSI001010000000001@127.0.0.1>\r\n\
            P-PHY-Info: OpenBTS; IMSI=no-MMUser TA=0 TE=0.000000 UpRSSI=-65.000000 TxPwr=33 DnRSSIdBm=-71 time=1795265024.340\r\n\
            P-Access-Network-Info: 3GPP-GERAN; cgi-3gpp=0010103e8000a\r\n\
            User-Agent: OpenBTS 5.0-master Build Date 2026-11-21T11:58:28\r\n\
            Content-Length: 0\r\n\r\n";
        assert_eq!(register.text(), first);
        // "Sizes: 670 / 778 bytes up" (wire.md 1.1).
        assert_eq!(first.len(), 670);

        let answer =
            "Digest nonce=\"4f3710c525946fc37dbdcc865b155779\", uri=\"001010000000001\", response=\"666e2f7a\"";
        let nonce = read_nonce(Dialect::V5, "Digest  nonce=4f3710c525946fc37dbdcc865b155779");
        assert_eq!(authorization(Dialect::V5, nonce, &imsi("001010000000001"), "666e2f7a"), answer);
        let second = Register { cseq: 131_737, authorization: Some(answer), ..register };
        let expected = first.replace("131736", "131737").replace(
            "expires=5400\r\n",
            "expires=5400\r\nAuthorization: Digest nonce=\"4f3710c525946fc37dbdcc865b155779\", \
             uri=\"001010000000001\", response=\"666e2f7a\"\r\n",
        );
        assert_eq!(second.text(), expected);
        assert_eq!(expected.len(), 778);
    }

    /// wire.md 1.9, verbatim from the comments of OpenBTS's authors.
    #[test]
    fn the_dialect_of_4_0_is_byte_for_byte_what_its_authors_quote() {
        let sim = imsi("001010002220002");
        let answer = authorization(Dialect::V4, "7fa68566fa8af919c926247b1b2a04c7", &sim, "a4b2f099");
        let register = Register {
            dialect: Dialect::V4,
            registrar: "127.0.0.1:5064".parse().unwrap(),
            own: "127.0.0.1:5062".parse().unwrap(),
            cell: Cell { lac: 1007, ..CELL },
            imsi: &sim,
            call_id: "1543864025@127.0.0.1",
            cseq: 244,
            tag: "xwojprsxydjpfaqf",
            branch: "",
            time_ms: 0,
            expires_s: 5400,
            authorization: Some(&answer),
        };
        let expected = "REGISTER sip:127.0.0.1 SIP/2.0\r\n\
            Via: SIP/2.0/UDP 127.0.0.1:5062;branch\r\n\
            From: IMSI001010002220002 <sip:IMSI001010002220002@127.0.0.1>;tag=tagxwojprsxydjpfaqf\r\n\
            To: IMSI001010002220002 <sip:IMSI001010002220002@127.0.0.1>\r\n\
            Call-ID: 1543864025@127.0.0.1\r\n\
            CSeq: 244 REGISTER\r\n\
            Contact: <sip:IMSI001010002220002@127.0.0.1:5062>;expires=5400\r\n\
            Authorization: Digest, nonce=7fa68566fa8af919c926247b1b2a04c7, uri=001010002220002, response=a4b2f099\r\n\
            User-Agent: OpenBTS 4.0TRUNK Build Date May 25 2013\r\n\
            Max-Forwards: 70\r\n\
            P-PHY-Info: OpenBTS; TA=0 TE=0.122070 UpRSSI=-36.000000 TxPwr=17 DnRSSIdBm=-77\r\n\
            P-Access-Network-Info: 3GPP-GERAN; cgi-3gpp=0010103ef000a\r\n\
            P-Preferred-Identity: <sip:IMSI001010002220002@127.0.0.1:5060>\r\n\
            Content-Length: 0\r\n\r\n";
        assert_eq!(register.text(), expected);
    }

    #[test]
    fn a_nonce_is_read_as_each_release_reads_it() {
        const RAND: &str = "4f3710c525946fc37dbdcc865b155779";
        for accepted in [
            format!("Digest realm=\"openbts\", nonce=\"{RAND}\", algorithm=MD5, qop=\"auth\""),
            format!("Digest nonce={RAND}"),
            format!("Digest realm=\"x\",nonce={RAND},algorithm=AKAv1-MD5"),
            format!("Digest cnonce=1, nonce={RAND}"),
        ] {
            assert_eq!(read_nonce(Dialect::V5, &accepted), RAND, "{accepted}");
        }
        assert_eq!(read_nonce(Dialect::V5, &format!("Basic nonce={RAND}")), "");
        assert_eq!(read_nonce(Dialect::V4, &format!("Digest nonce={RAND}")), RAND);
        assert!(rand_of(read_nonce(Dialect::V4, &format!("Digest nonce=\"{RAND}\""))).is_none());
        assert!(rand_of("abcd").is_none() && rand_of(&format!("+{}", &RAND[1..])).is_none());
        assert_eq!(rand_of(RAND).unwrap()[..2], [0x4F, 0x37]);
    }

    #[test]
    fn each_answer_has_the_cause_that_was_seen_at_the_phone() {
        for (code, header, cause) in [
            (401, None, 4),
            (404, None, 4),
            (403, None, 12),
            (424, None, 13),
            (504, None, 22),
            (603, None, 4),
            (604, None, 2),
            (503, None, 17),
            (202, None, 17),
            (404, Some("11"), 11),
            (401, Some("12"), 12),
        ] {
            assert_eq!(reject_cause(code, header), cause, "{code} {header:?}");
        }
    }

    #[test]
    fn an_options_is_answered_404_with_its_vias_folded_into_one() {
        let asker = UdpSocket::bind("127.0.0.1:0").unwrap();
        asker.set_read_timeout(Some(Duration::from_secs(5))).unwrap();
        let own = asker.local_addr().unwrap();
        let proxies = Proxies { registration: own, speech: own, texts: own };
        let station = Station::new("hill", "127.0.0.1:0".parse().unwrap(), proxies, Dialect::V5, CELL).unwrap();
        let request = format!(
            "OPTIONS sip:{} SIP/2.0\r\nVia: SIP/2.0/UDP {own};branch=z9hG4bKa\r\nVia: SIP/2.0/UDP 192.0.2.1;branch=z9hG4bKb\r\n\
             To: <sip:x>\r\nFrom: <sip:y>;tag=1\r\nCall-ID: c\r\nCSeq: 1 OPTIONS\r\nContent-Length: 0\r\n\r\n",
            station.address()
        );
        asker.send_to(request.as_bytes(), station.address()).unwrap();
        let mut buffer = [0; 2000];
        let (len, _) = asker.recv_from(&mut buffer).unwrap();
        let text = std::str::from_utf8(&buffer[..len]).unwrap();
        assert!(text.starts_with("SIP/2.0 404 Not Found\r\nTo:  <sip:x>\r\n"), "{text}");
        let vias = format!("Via: SIP/2.0/UDP {own};branch=z9hG4bKa,SIP/2.0/UDP 192.0.2.1;branch=z9hG4bKb\r\n");
        assert!(text.contains(&vias), "{text}");
        assert_eq!(station.requests(), ["OPTIONS"]);
    }
}
