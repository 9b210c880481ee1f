//! Phones and base stations of every dialect: how each registers, writes a text, and answers one.

use std::net::SocketAddr;

use encamp::config::Settings;
use encamp::gsm::report::{Command, CommandKind, StatusReport, SubmitReport};
use encamp::gsm::rpdu::{Direction, Rpdu, from_hex};
use encamp::gsm::tpdu::{Address, Deliver, Submit};
use encamp::store::StoreId;
use encamp::store::memory::{MemoryStore, MemoryStores};
use encamp::time::WallTime;

use super::texts::{FRONT, rp_data};
use super::{Desk, Sent, TODAY_MS, imsi};

/// Where SIP and IMS phones speak from: a listed address that is no base station of ours by name.
pub const SOFT: &str = "192.0.2.13:5080";
pub const RPDU: &str = "application/vnd.3gpp.sms";

/// Any box on its first day.
pub fn desk_of(settings: Settings) -> Desk {
    let mut stores = MemoryStores::default();
    for id in [StoreId::Node, StoreId::Messages, StoreId::Replica(0), StoreId::Replica(1)] {
        stores.stores.insert(id, MemoryStore::new());
    }
    Desk::of(WallTime { ms: TODAY_MS, trusted: true }, settings, stores)
}

fn register(desk: &mut Desk, from: &str, phone: u64, contact: &str, more: &str) {
    let (imsi, cseq) = (imsi(phone), 1 + desk.now_us / 1_000 + phone);
    let text = format!(
        "REGISTER sip:192.0.2.1 SIP/2.0\r\nVia: SIP/2.0/UDP {from};branch=z9hG4bKr{phone}.{cseq}\r\nMax-Forwards: 70\r\n\
         From: <sip:IMSI{imsi}@gsm.test>;tag=t{cseq}\r\nTo: <sip:IMSI{imsi}@gsm.test>\r\nCall-ID: {from}{phone}\r\n\
         CSeq: {cseq} REGISTER\r\nContact: {contact}\r\nExpires: 3600\r\n{more}Content-Length: 0\r\n\r\n"
    );
    let sent = desk.send(from, FRONT, &text);
    assert!(sent.iter().any(|text| text.starts_with("SIP/2.0 200")), "{sent:?}");
}

pub fn openbts(desk: &mut Desk, station: &str, phone: u64) {
    let contact = format!("<sip:IMSI{}@{station}>", imsi(phone));
    register(desk, station, phone, &contact, "User-Agent: OpenBTS 5.0-master\r\n");
}

pub fn yate(desk: &mut Desk, station: &str, phone: u64) {
    let contact = format!("<sip:IMSI{}@{station}>;+g.3gpp.smsip", imsi(phone));
    register(desk, station, phone, &contact, "User-Agent: YATE/6.0.1\r\nSupported: auth-gsm,auth-umts,reg-tmsi\r\n");
}

pub fn ims(desk: &mut Desk, phone: u64) {
    register(desk, SOFT, phone, &format!("<sip:IMSI{}@{SOFT}>;+g.3gpp.smsip", imsi(phone)), "");
}

pub fn plain(desk: &mut Desk, phone: u64) {
    register(desk, SOFT, phone, &format!("<sip:me@{SOFT}>"), "");
}

/// A MESSAGE as anybody may write it; the branch is of the Call-ID.
pub fn request(from: &str, user: &str, to: &str, call_id: &str, more: &str, body: &[u8]) -> Vec<u8> {
    let head = format!(
        "MESSAGE sip:{to}@192.0.2.1:5063 SIP/2.0\r\nVia: SIP/2.0/UDP {from};branch=z9hG4bK{call_id}\r\nMax-Forwards: 70\r\n\
         From: <sip:{user}@{from}>;tag=f{call_id}\r\nTo: <sip:{to}@192.0.2.1>\r\nCall-ID: {call_id}\r\nCSeq: 1 MESSAGE\r\n\
         {more}Content-Length: {}\r\n\r\n",
        body.len()
    );
    [head.as_bytes(), body].concat()
}

/// An RPDU in octets with a SUBMIT in it.
pub fn octets(submit: &Submit) -> Vec<u8> {
    from_hex(rp_data(submit).as_bytes()).unwrap()
}

/// An RPDU in octets with a COMMAND in it, about the text of this TP-MR; its own TP-MR is one of the upper half.
pub fn command(kind: CommandKind, to: &str, message: u8, report_wanted: bool) -> Vec<u8> {
    let (reference, destination) = (message ^ 0x80 ^ kind.0 << 4, Address::parse(to).unwrap());
    let (protocol, has_header, data) = (0, false, Vec::new());
    let command = Command { reference, report_wanted, protocol, kind, message, destination, has_header, data };
    Rpdu::DataFromPhone { reference, originator: None, destination: None, tpdu: &command.encode() }.encode().unwrap()
}

/// What we sent: a request or an answer.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Came {
    pub to: SocketAddr,
    pub head: String,
    pub body: Vec<u8>,
}

impl Came {
    pub fn read(sent: &Sent) -> Came {
        let end = sent.bytes.windows(4).position(|four| four == b"\r\n\r\n").unwrap();
        let head = String::from_utf8(sent.bytes[..end].to_vec()).unwrap();
        Came { to: sent.to, head, body: sent.bytes[end + 4..].to_vec() }
    }

    pub fn code(&self) -> u16 {
        self.head.strip_prefix("SIP/2.0 ").map_or(0, |rest| rest[..3].parse().unwrap())
    }

    pub fn has(&self, name: &str) -> bool {
        self.head.lines().any(|line| line.starts_with(&format!("{name}: ")))
    }

    pub fn header(&self, name: &str) -> &str {
        let line = self.head.lines().find(|line| line.starts_with(&format!("{name}: ")));
        line.unwrap_or_else(|| panic!("{name} in {}", self.head)).split_once(": ").unwrap().1
    }

    pub fn uri(&self) -> &str {
        self.head.split(' ').nth(1).unwrap()
    }

    /// The octets of an RPDU, in hex or not.
    pub fn octets(&self) -> Vec<u8> {
        assert_eq!(self.header("Content-Type"), RPDU);
        match self.body.first() {
            Some(first) if first.is_ascii_hexdigit() => from_hex(&self.body).unwrap(),
            _ => self.body.clone(),
        }
    }

    fn tpdu(&self) -> Vec<u8> {
        match Rpdu::decode(&self.octets()).unwrap() {
            (Rpdu::DataToPhone { tpdu, .. }, 0) => tpdu.to_vec(),
            other => panic!("{other:?}"),
        }
    }

    pub fn deliver(&self) -> Deliver {
        Deliver::decode(&self.tpdu()).unwrap().0
    }

    pub fn words(&self) -> String {
        match self.header("Content-Type").starts_with("text/plain") {
            true => String::from_utf8(self.body.clone()).unwrap(),
            false => encamp::gsm::text::decode(&self.deliver().data).unwrap(),
        }
    }

    pub fn is_report(&self) -> bool {
        self.tpdu()[0] & 0b11 == 0b10
    }

    pub fn report(&self) -> StatusReport {
        let (report, 0) = StatusReport::decode(&self.tpdu()).unwrap() else { panic!("{}", self.head) };
        report
    }

    /// RP-Message-Reference, cause (0: an RP-ACK) and the TP-SUBMIT-REPORT of what the centre says of a text.
    pub fn verdict(&self) -> (u8, u8, Option<SubmitReport>) {
        use encamp::gsm::report::Carrier;
        let octets = self.octets();
        match Rpdu::decode(&octets).unwrap() {
            (Rpdu::Ack { direction: Direction::ToPhone, reference, tpdu }, 0) => {
                let report = tpdu.map(|tpdu| SubmitReport::decode(tpdu, Carrier::Ack).unwrap().0);
                (reference, 0, report)
            }
            (Rpdu::Error { direction: Direction::ToPhone, reference, cause, tpdu }, 0) => {
                let report = tpdu.map(|tpdu| SubmitReport::decode(tpdu, Carrier::Error).unwrap().0);
                (reference, cause, report)
            }
            other => panic!("{other:?}"),
        }
    }

    /// An answer to it, with an RPDU where there is one.
    pub fn answer(&self, status: &str, rpdu: &[u8]) -> Vec<u8> {
        let echo = ["Via", "From", "To", "Call-ID", "CSeq"].map(|name| format!("{name}: {}\r\n", self.header(name)));
        let media = if rpdu.is_empty() { String::new() } else { format!("Content-Type: {RPDU}\r\n") };
        let head = format!("SIP/2.0 {status}\r\n{}{media}Content-Length: {}\r\n\r\n", echo.concat(), rpdu.len());
        [head.as_bytes(), rpdu].concat()
    }
}

/// A phone's RP-ACK, and its RP-ERROR with a cause and perhaps a TP-Failure-Cause.
pub fn ack() -> Vec<u8> {
    Rpdu::Ack { direction: Direction::FromPhone, reference: 1, tpdu: None }.encode().unwrap()
}

pub fn error(cause: u8, failure: Option<u8>) -> Vec<u8> {
    let tpdu = failure.map(|failure| vec![0, failure, 0]);
    let direction = Direction::FromPhone;
    Rpdu::Error { direction, reference: 1, cause, tpdu: tpdu.as_deref() }.encode().unwrap()
}

/// Everything that was sent since.
pub fn came(desk: &mut Desk) -> Vec<Came> {
    desk.take_sent().iter().map(Came::read).collect()
}

/// Sends a datagram; the code of its answer, and what else leaves at once.
pub fn tell(desk: &mut Desk, from: &str, bytes: &[u8]) -> (u16, Vec<Came>) {
    desk.send_bytes(from, FRONT, bytes);
    let (answers, requests): (Vec<Came>, Vec<Came>) = came(desk).into_iter().partition(|came| came.code() > 0);
    (answers.first().map_or(0, Came::code), requests)
}

/// As [`tell`], of what an answer is more than a code.
pub fn ask(desk: &mut Desk, from: &str, bytes: &[u8]) -> (Came, Vec<Came>) {
    desk.send_bytes(from, FRONT, bytes);
    let (mut answers, requests): (Vec<Came>, Vec<Came>) = came(desk).into_iter().partition(|came| came.code() > 0);
    assert_eq!(answers.len(), 1, "{answers:?}");
    (answers.remove(0), requests)
}

/// Answers a MESSAGE of ours from where it was sent to; what leaves at once.
pub fn reply(desk: &mut Desk, to: &Came, status: &str, rpdu: &[u8]) -> Vec<Came> {
    let (code, requests) = tell(desk, &to.to.to_string(), &to.answer(status, rpdu));
    assert_eq!(code, 0, "an answer is not answered");
    requests
}
