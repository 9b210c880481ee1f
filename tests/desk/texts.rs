//! Phones that write to each other, base stations between them and the boxes, and a site of two boxes.

use std::net::SocketAddr;

use encamp::config::{Place, Settings};
use encamp::gsm::rpdu::{Rpdu, from_hex, to_hex};
use encamp::gsm::text;
use encamp::gsm::tpdu::{Address, Deliver, Submit};
use encamp::register::replicas;
use encamp::seam::{Input, Local, Port};
use encamp::store::StoreId;
use encamp::store::memory::{MemoryStore, MemoryStores};
use encamp::time::WallTime;

use super::{Desk, Sent, TODAY_MS, imsi, settings};

pub const HILL: &str = "192.0.2.11:5062";
pub const DALE: &str = "192.0.2.12:5062";
/// In no location area.
pub const MOOR: &str = "192.0.2.13:5062";
pub const FRONT: Port = Port::Front(0);

/// An SMS-SUBMIT as a phone writes it.
pub fn submit(to: &str, words: &str, reference: u8) -> Submit {
    Submit {
        reference,
        destination: Address::parse(to).unwrap(),
        protocol: 0,
        reject_duplicates: false,
        report_wanted: false,
        reply_path: false,
        validity: None,
        data: text::encode(words).unwrap(),
    }
}

pub fn rp_data(submit: &Submit) -> String {
    let destination = Some(Address::parse("0000").unwrap());
    let tpdu = submit.encode();
    to_hex(
        &Rpdu::DataFromPhone { reference: submit.reference, originator: None, destination, tpdu: &tpdu }
            .encode()
            .unwrap(),
    )
}

/// A MESSAGE as OpenBTS sends it (wire.md 4.1).
pub fn message(from: u64, station: &str, call_id: &str, uri_user: &str, content_type: &str, body: &str) -> String {
    let imsi = imsi(from);
    format!(
        "MESSAGE sip:{uri_user}@192.0.2.1:5063 SIP/2.0\r\nTo:  <sip:{uri_user}@192.0.2.1>\r\nFrom:  <sip:IMSI{imsi}@{station}>;tag=OBTSv{call_id}\r\n\
         Via: SIP/2.0/UDP {station};branch=z9hG4bKOBTS{call_id}\r\nCall-ID: {call_id}\r\nCSeq: 131737 MESSAGE\r\n\
         Contact: <sip:IMSI{imsi}@{station}>;expires=3600\r\nMax-Forwards: 70\r\nP-Preferred-Identity: <sip:IMSI{imsi}@192.0.2.1>\r\n\
         User-Agent: OpenBTS 5.0-master Build Date 2026-11-21T11:58:28\r\nContent-Type: {content_type}\r\nContent-Length: {}\r\n\r\n{body}",
        body.len()
    )
}

pub fn sms(from: u64, station: &str, call_id: &str, submit: &Submit) -> String {
    message(from, station, call_id, "smsc", "application/vnd.3gpp.sms", &rp_data(submit))
}

/// Writes a text; what leaves at once.
pub fn write(desk: &mut Desk, from: u64, call_id: &str, to: &str, words: &str) -> Vec<String> {
    let reference = call_id.bytes().fold(0u8, u8::wrapping_add);
    desk.send(HILL, FRONT, &sms(from, HILL, call_id, &submit(to, words, reference)))
}

/// The code of the answer to a base station; 0 where there is none.
pub fn code(sent: &[String]) -> u16 {
    let answer = sent.iter().find(|text| text.starts_with("SIP/2.0 "));
    answer.and_then(|text| text.split(' ').nth(1)).map_or(0, |code| code.parse().unwrap())
}

/// A MESSAGE of ours, at the base station that it came to.
#[derive(Clone, Debug)]
pub struct Mt {
    pub station: SocketAddr,
    pub sip: String,
    pub deliver: Deliver,
}

impl Mt {
    pub fn read(sent: &Sent) -> Option<Mt> {
        let sip = sent.text();
        if !sip.starts_with("MESSAGE ") {
            return None;
        }
        assert!(sent.bytes.len() < 1472);
        let (_, body) = sip.split_once("\r\n\r\n").unwrap();
        let octets = from_hex(body.as_bytes()).unwrap();
        assert_eq!(body, body.to_lowercase());
        let (Rpdu::DataToPhone { tpdu, .. }, 0) = Rpdu::decode(&octets).unwrap() else { panic!("{body}") };
        let (deliver, 0) = Deliver::decode(tpdu).unwrap() else { panic!("{body}") };
        Some(Mt { station: sent.to, deliver, sip: sip.clone() })
    }

    pub fn header(&self, name: &str) -> &str {
        let line = self.sip.lines().find(|line| line.starts_with(&format!("{name}: ")));
        line.unwrap_or_else(|| panic!("{name} in {}", self.sip)).split_once(": ").unwrap().1
    }

    pub fn words(&self) -> String {
        text::decode(&self.deliver.data).unwrap()
    }

    /// What tells a phone this text from others.
    pub fn identity(&self) -> (String, [u8; 7]) {
        (self.deliver.originator.number(), self.deliver.timestamp.octets())
    }

    /// As OpenBTS answers: without a To tag.
    pub fn answer(&self, status: &str) -> String {
        let echo = ["Via", "From", "To", "Call-ID", "CSeq"].map(|name| format!("{name}: {}\r\n", self.header(name)));
        format!("SIP/2.0 {status}\r\n{}Content-Length: 0\r\n\r\n", echo.concat())
    }
}

pub fn mts(sent: &[Sent]) -> Vec<Mt> {
    sent.iter().filter_map(Mt::read).collect()
}

pub fn take(desk: &mut Desk) -> Vec<Mt> {
    mts(&desk.take_sent())
}

/// The base station answers; what leaves at once.
pub fn answered(desk: &mut Desk, mt: &Mt, status: &str) -> Vec<Mt> {
    desk.send(&mt.station.to_string(), FRONT, &mt.answer(status));
    take(desk)
}

pub fn only<T: std::fmt::Debug>(mut all: Vec<T>) -> T {
    assert_eq!(all.len(), 1, "{all:?}");
    all.remove(0)
}

/// Two boxes, each with one of the two replicas, and the wire between them.
pub struct Site {
    pub boxes: [Desk; 2],
    /// Whether datagrams between the boxes are lost.
    pub cut: bool,
    pub alerts: usize,
}

pub fn box_settings(this: usize) -> Settings {
    let mut settings = settings();
    let text = |address: &str| address.replace("192.0.2.1:", &format!("192.0.2.{}:", this + 1));
    for listener in &mut settings.front.listen {
        listener.address = text(&listener.address.to_string()).parse().unwrap();
    }
    for (n, replica) in settings.replicas.iter_mut().enumerate() {
        let address: SocketAddr = format!("192.0.2.{}:{}", n + 1, 5070 + n).parse().unwrap();
        match &mut replica.place {
            Place::Local { listen, .. } if n == this => listen[0].address = address,
            place => *place = Place::Remote { address },
        }
    }
    settings.shards[0].write_quorum = 1;
    settings
}

/// One of the two boxes, on its first day.
pub fn open_box(this: usize) -> Desk {
    let settings = box_settings(this);
    let mut stores = MemoryStores::default();
    let replica = StoreId::Replica(this as u16);
    for id in [StoreId::Node, StoreId::Messages, replica] {
        stores.stores.insert(id, MemoryStore::new());
    }
    let store = stores.stores.get_mut(&replica).unwrap();
    replicas::found(store, &settings, 0, TODAY_MS, true).unwrap();
    Desk::of(WallTime { ms: TODAY_MS, trusted: true }, settings, stores)
}

/// The port of a box that an address names, and the address that a port of its speaks from.
pub fn port_of(address: SocketAddr) -> Port {
    if address.port() == 5064 { FRONT } else { Port::Replica(address.port() - 5070, 0) }
}

pub fn source_of(this: usize, port: Port) -> SocketAddr {
    let number = match port {
        Port::Front(_) => 5064,
        Port::Replica(n, _) => 5070 + n,
    };
    format!("192.0.2.{}:{number}", this + 1).parse().unwrap()
}

impl Site {
    pub fn new() -> Site {
        let mut site = Site { boxes: [open_box(0), open_box(1)], cut: false, alerts: 0 };
        site.wait_s(5);
        site
    }

    /// Carries what the boxes tell each other; gives back what goes to base stations.
    pub fn carry(&mut self) -> Vec<Sent> {
        let mut out = Vec::new();
        loop {
            let sent: Vec<(usize, Sent)> =
                (0..2).flat_map(|n| self.boxes[n].take_sent().into_iter().map(move |sent| (n, sent))).collect();
            if sent.is_empty() {
                return out;
            }
            for (from, sent) in sent {
                let other = 1 - from;
                if sent.to.ip().to_string() != format!("192.0.2.{}", other + 1) {
                    out.push(sent);
                    continue;
                }
                self.alerts += usize::from(sent.bytes.starts_with(b"NOTIFY"));
                if self.cut {
                    continue;
                }
                let to = Local { port: port_of(sent.to), address: None };
                let source = source_of(from, sent.from);
                self.boxes[other].handle(Input::Datagram { from: source, to, bytes: &sent.bytes });
            }
        }
    }

    pub fn wait_s(&mut self, seconds: u64) -> Vec<Sent> {
        let mut out = Vec::new();
        for _ in 0..seconds {
            self.boxes.iter_mut().for_each(|desk| desk.wait_s(1));
            out.extend(self.carry());
        }
        out
    }

    pub fn register(&mut self, at: usize, station: &str, phone: u64, cseq: u32) -> Vec<Sent> {
        self.boxes[at].cell_at(station, phone, &format!("bts{station}"), cseq, 3600);
        self.carry()
    }
}
