//! What leaves a phone or a base station, and what comes to it.

use std::net::SocketAddr;

use encamp::gsm::form::TextForm;
use encamp::gsm::header::{Concatenation, Reference, write};
use encamp::gsm::report::{DeliverReport, Extra, Failure, StatusReport};
use encamp::gsm::rpdu::{Cause, Direction, Rpdu, from_hex, to_hex};
use encamp::gsm::text;
use encamp::gsm::tpdu::{Address, Deliver, Submit, UserData};

use crate::boxes::{imsi, number};

pub const RPDU_TYPE: &str = "application/vnd.3gpp.sms";

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

    pub fn answer(&self, code: u16, body: Option<&[u8]>) -> Vec<u8> {
        let echo =
            ["Via", "From", "To", "Call-ID", "CSeq"].map(|name| format!("{name}: {}\r\n", self.header(name))).concat();
        let media = body.map_or(String::new(), |_| format!("Content-Type: {RPDU_TYPE}\r\n"));
        let body = body.unwrap_or_default();
        let mut out =
            format!("SIP/2.0 {code} Said\r\n{echo}{media}Content-Length: {}\r\n\r\n", body.len()).into_bytes();
        out.extend(body);
        out
    }

    /// The RPDU in it, however it is written.
    pub fn octets(&self) -> Vec<u8> {
        match self.body.first() {
            Some(first) if first.is_ascii_hexdigit() => from_hex(&self.body).unwrap_or_default(),
            _ => self.body.clone(),
        }
    }
}

/// What a phone shows.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Shown {
    Text {
        from: String,
        scts: [u8; 7],
        words: String,
    },
    Report {
        reference: u8,
        status: u8,
        to: String,
        scts: [u8; 7],
    },
    /// A SIP phone shows words, and nothing else.
    Plain(String),
}

impl Shown {
    pub fn of(sip: &Sip) -> Option<Shown> {
        if sip.header("Content-Type").starts_with("text/plain") {
            return Some(Shown::Plain(String::from_utf8_lossy(&sip.body).into_owned()));
        }
        let octets = sip.octets();
        let (Rpdu::DataToPhone { tpdu, .. }, _) = Rpdu::decode(&octets).ok()? else { return None };
        if let Ok((report, _)) = StatusReport::decode(tpdu) {
            return Some(Shown::Report {
                reference: report.reference,
                status: report.status.0,
                to: report.recipient.number(),
                scts: report.timestamp.octets(),
            });
        }
        let (deliver, _) = Deliver::decode(tpdu).ok()?;
        let words = text::decode(&deliver.data).unwrap_or_default();
        Some(Shown::Text { from: deliver.originator.number(), scts: deliver.timestamp.octets(), words })
    }
}

/// The tokens in some words, by which a part of a text is known: `#12.1#`.
pub fn tokens(words: &str) -> Vec<(usize, u8)> {
    let token = |piece: &str| {
        let (text, part) = piece.split_once('.')?;
        Some((text.parse().ok()?, part.parse().ok()?))
    };
    words.split('#').filter_map(token).collect()
}

/// A part of a text; its words say which.
pub fn part_data(text: usize, part: u8, parts: u8) -> UserData {
    let words = format!("#{text}.{part}# on my way");
    if parts == 1 {
        return text::encode(&words).expect("short");
    }
    let of = Concatenation { reference: Reference::Short(text as u8), parts, part };
    let header = write(&[of.element()]).expect("one element");
    // Six octets of header are seven septets, without any fill.
    let septets = text::septets(&words).expect("GSM's letters");
    let filled = (header.len() * 8).div_ceil(7);
    let mut bytes = header.clone();
    bytes.extend(text::pack(&septets, filled * 7 - header.len() * 8));
    let plain = text::encode(&words).expect("short");
    UserData { coding: plain.coding, has_header: true, length: (filled + septets.len()) as u8, bytes }
}

pub fn rp_submit(submit: &Submit, rp_reference: u8) -> Vec<u8> {
    let tpdu = submit.encode();
    let destination = Address::parse("0000").ok();
    let rpdu = Rpdu::DataFromPhone { reference: rp_reference, originator: None, destination, tpdu: &tpdu };
    rpdu.encode().expect("a short TPDU")
}

/// A MESSAGE of a phone.
#[allow(clippy::too_many_arguments, reason = "each is another thing")]
pub fn message(
    form: TextForm,
    phone: usize,
    at: SocketAddr,
    call_id: &str,
    branch: &str,
    user: &str,
    rpdu: Option<&[u8]>,
    words: &str,
    in_reply_to: Option<&str>,
) -> Vec<u8> {
    let from = match form {
        TextForm::Yate => number(phone),
        _ => format!("IMSI{}", imsi(phone)),
    };
    let body: Vec<u8> = match (form, rpdu) {
        (_, None) => words.as_bytes().to_vec(),
        (TextForm::OpenBts, Some(rpdu)) => to_hex(rpdu).into_bytes(),
        (_, Some(rpdu)) => rpdu.to_vec(),
    };
    let media = match rpdu {
        Some(_) => format!("Content-Type: {RPDU_TYPE}\r\n"),
        None if words.is_empty() => String::new(),
        None => "Content-Type: text/plain\r\n".to_owned(),
    };
    let more = match form {
        TextForm::OpenBts => "User-Agent: OpenBTS 5.0\r\n",
        TextForm::Yate => "Supported: sms-response\r\n",
        TextForm::Ims | TextForm::Plain => "",
    };
    let in_reply_to = in_reply_to.map_or(String::new(), |call_id| format!("In-Reply-To: {call_id}\r\n"));
    let mut out = format!(
        "MESSAGE sip:{user}@gsm.test SIP/2.0\r\nVia: SIP/2.0/UDP {at};branch=z9hG4bK{branch}\r\nMax-Forwards: 70\r\n\
         From: <sip:{from}@{at}>;tag=t{call_id}\r\nTo: <sip:{user}@gsm.test>\r\nCall-ID: {call_id}\r\nCSeq: 1 MESSAGE\r\n\
         {more}{in_reply_to}{media}Content-Length: {}\r\n\r\n",
        body.len()
    )
    .into_bytes();
    out.extend(body);
    out
}

pub fn register(form: TextForm, phone: usize, at: SocketAddr, cseq: u32, expires_s: u32) -> Vec<u8> {
    let imsi = imsi(phone);
    let (more, feature) = match form {
        TextForm::OpenBts => ("User-Agent: OpenBTS 5.0\r\n", ""),
        TextForm::Yate => ("Supported: auth-gsm\r\n", ""),
        TextForm::Ims => ("User-Agent: handset\r\n", ";+g.3gpp.smsip"),
        TextForm::Plain => ("User-Agent: softphone\r\n", ""),
    };
    format!(
        "REGISTER sip:gsm.test SIP/2.0\r\nVia: SIP/2.0/UDP {at};branch=z9hG4bKr{phone}x{cseq}\r\nMax-Forwards: 70\r\n\
         From: <sip:IMSI{imsi}@gsm.test>;tag=r{cseq}\r\nTo: <sip:IMSI{imsi}@gsm.test>\r\nCall-ID: reg{phone}at{at}\r\n\
         CSeq: {cseq} REGISTER\r\n{more}Contact: <sip:IMSI{imsi}@{at}>{feature};expires={expires_s}\r\n\
         Content-Length: 0\r\n\r\n"
    )
    .into_bytes()
}

pub fn rp_ack(reference: u8) -> Vec<u8> {
    let rpdu = Rpdu::Ack { direction: Direction::FromPhone, reference, tpdu: None };
    rpdu.encode().expect("short")
}

/// "Memory capacity exceeded", as a phone says it.
pub fn rp_full(reference: u8) -> Vec<u8> {
    let report = DeliverReport { failure: Some(Failure::MEMORY_EXCEEDED), extra: Extra::default() }.encode();
    let cause = Cause::MEMORY_EXCEEDED.0;
    let rpdu = Rpdu::Error { direction: Direction::FromPhone, reference, cause, tpdu: Some(&report) };
    rpdu.encode().expect("short")
}

pub fn rp_smma(reference: u8) -> Vec<u8> {
    Rpdu::Smma { reference }.encode().expect("short")
}

/// What the centre says to a text in an RPDU: yes, or no; `None`: nothing.
pub fn is_ack(octets: &[u8]) -> Option<bool> {
    match Rpdu::decode(octets).ok()?.0 {
        Rpdu::Ack { .. } => Some(true),
        Rpdu::Error { .. } => Some(false),
        _ => None,
    }
}

pub fn rp_reference(octets: &[u8]) -> u8 {
    Rpdu::decode(octets).map_or(0, |(rpdu, _)| rpdu.reference())
}
