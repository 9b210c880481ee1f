//! What leaves a base station, and what comes to it: OpenBTS's form, which is enough here.

use encamp::gsm::header::{Concatenation, Reference, write};
use encamp::gsm::report::StatusReport;
use encamp::gsm::rpdu::{Rpdu, from_hex, to_hex};
use encamp::gsm::text;
use encamp::gsm::tpdu::{Address, Deliver, Submit, UserData};

use crate::boxes::{imsi, station};

/// A message of SIP, as far as a phone reads it.
#[derive(Clone, Debug)]
pub struct Sip {
    pub start: String,
    headers: Vec<(String, String)>,
    pub body: Vec<u8>,
}

impl Sip {
    pub fn read(bytes: &[u8]) -> Option<Sip> {
        let end = bytes.windows(4).position(|four| four == b"\r\n\r\n")?;
        let head = std::str::from_utf8(&bytes[..end]).ok()?;
        let mut lines = head.split("\r\n");
        let start = lines.next()?.to_owned();
        let headers = lines.filter_map(|line| line.split_once(':'));
        let headers = headers.map(|(name, value)| (name.to_owned(), value.trim().to_owned())).collect();
        Some(Sip { start, headers, body: bytes[end + 4..].to_vec() })
    }

    pub fn header(&self, name: &str) -> &str {
        let found = self.headers.iter().find(|(held, _)| held.eq_ignore_ascii_case(name));
        found.map_or("", |(_, value)| value)
    }

    /// Of a response; 0 for a request.
    pub fn code(&self) -> u16 {
        let rest = self.start.strip_prefix("SIP/2.0 ").unwrap_or_default();
        rest.get(..3).and_then(|code| code.parse().ok()).unwrap_or(0)
    }

    pub fn answer(&self, code: u16) -> Vec<u8> {
        let echo =
            ["Via", "From", "To", "Call-ID", "CSeq"].map(|name| format!("{name}: {}\r\n", self.header(name))).concat();
        format!("SIP/2.0 {code} Said\r\n{echo}Content-Length: 0\r\n\r\n").into_bytes()
    }
}

/// What a phone shows.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum Shown {
    Text {
        from: String,
        scts: [u8; 7],
        words: String,
        /// Which part of how many, and the reference that they share; 1 of 1 where it is no part.
        part: (u8, u8, u8),
    },
    Report {
        reference: u8,
        status: u8,
        scts: [u8; 7],
    },
}

impl Shown {
    pub fn of(sip: &Sip) -> Option<Shown> {
        let octets = from_hex(&sip.body).ok()?;
        let (Rpdu::DataToPhone { tpdu, .. }, _) = Rpdu::decode(&octets).ok()? else { return None };
        if let Ok((report, _)) = StatusReport::decode(tpdu) {
            let (reference, status) = (report.reference, report.status.0);
            return Some(Shown::Report { reference, status, scts: report.timestamp.octets() });
        }
        let (deliver, _) = Deliver::decode(tpdu).ok()?;
        let words = text::decode(&deliver.data).unwrap_or_default();
        let header = deliver.data.header().unwrap_or_default();
        let part = Concatenation::of(header).map_or((1, 1, 0), |part| match part.reference {
            Reference::Short(reference) => (part.part, part.parts, reference),
            Reference::Long(reference) => (part.part, part.parts, reference as u8),
        });
        let (from, scts) = (deliver.originator.number(), deliver.timestamp.octets());
        Some(Shown::Text { from, scts, words, part })
    }
}

/// The number in some words by which a mail (`m`) or a text (`s`) is known: `#m12#`.
pub fn token(kind: char, words: &str) -> Option<usize> {
    words.split('#').find_map(|piece| piece.strip_prefix(kind)?.parse().ok())
}

/// One part of a text of a phone's.
pub fn part_data(words: &str, reference: u8, part: u8, parts: u8) -> UserData {
    let plain = text::encode(words).expect("short");
    if parts == 1 {
        return plain;
    }
    let of = Concatenation { reference: Reference::Short(reference), parts, part };
    let header = write(&[of.element()]).expect("one element");
    // Six octets of header are seven septets, without any fill.
    let septets = text::septets(words).expect("GSM's letters");
    let filled = (header.len() * 8).div_ceil(7);
    let mut bytes = header.clone();
    bytes.extend(text::pack(&septets, filled * 7 - header.len() * 8));
    UserData { coding: plain.coding, has_header: true, length: (filled + septets.len()) as u8, bytes }
}

pub fn message(phone: usize, call_id: &str, submit: &Submit) -> Vec<u8> {
    let (imsi, at) = (imsi(phone), station(phone));
    let tpdu = submit.encode();
    let destination = Address::parse("0000").ok();
    let rpdu = Rpdu::DataFromPhone { reference: submit.reference, originator: None, destination, tpdu: &tpdu };
    let body = to_hex(&rpdu.encode().expect("a short TPDU"));
    format!(
        "MESSAGE sip:smsc@gsm.test SIP/2.0\r\nVia: SIP/2.0/UDP {at};branch=z9hG4bK{call_id}\r\nMax-Forwards: 70\r\n\
         From: <sip:IMSI{imsi}@{at}>;tag=t{call_id}\r\nTo: <sip:smsc@gsm.test>\r\nCall-ID: {call_id}\r\nCSeq: 1 MESSAGE\r\n\
         User-Agent: OpenBTS 5.0\r\nContent-Type: application/vnd.3gpp.sms\r\nContent-Length: {}\r\n\r\n{body}",
        body.len()
    )
    .into_bytes()
}

pub fn register(phone: usize, cseq: u32) -> Vec<u8> {
    let (imsi, at) = (imsi(phone), station(phone));
    format!(
        "REGISTER sip:gsm.test SIP/2.0\r\nVia: SIP/2.0/UDP {at};branch=z9hG4bKr{phone}x{cseq}\r\nMax-Forwards: 70\r\n\
         From: <sip:IMSI{imsi}@{at}>;tag=r{cseq}\r\nTo: <sip:IMSI{imsi}@{at}>\r\nCall-ID: reg{phone}\r\n\
         CSeq: {cseq} REGISTER\r\nUser-Agent: OpenBTS 5.0\r\nContact: <sip:IMSI{imsi}@{at}>;expires=3600\r\n\
         Content-Length: 0\r\n\r\n"
    )
    .into_bytes()
}
