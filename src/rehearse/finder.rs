//! Who asks the zone from outside: where a phone's calls go, and whose number it is.
//!
//! Knows: DNS by way of hickory-proto's messages over UDP, nothing of our zone's own code; NAPTR, SRV and A as RFC 3263 has them, ENUM
//! as RFC 6116. Does not know: what should come out.
//! Limits: each question is sent [`SEND_COUNT_MAX`] times, [`ANSWER_WAIT`] apart; an SRV set of at most [`TARGET_COUNT_MAX`] targets.

use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddr, UdpSocket};
use std::time::{Duration, Instant};

use hickory_proto::op::{Edns, Message, MessageType, Query, ResponseCode};
use hickory_proto::rr::{Name, RData, Record, RecordType};

use crate::ident::{Imsi, Msisdn};

const SEND_COUNT_MAX: u32 = 3;
const ANSWER_WAIT: Duration = Duration::from_secs(1);
const TARGET_COUNT_MAX: usize = 16;
/// What passes without fragments (RFC 9715).
const PAYLOAD_BYTES: u16 = 1232;

/// Why nothing was found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Nothing {
    /// NXDOMAIN, or no record of that type.
    NoSuchName,
    NoAnswer,
    /// An answer that is of no use, and why.
    Faulty(String),
}

impl Nothing {
    /// In words, for the table.
    pub fn text(&self) -> String {
        match self {
            Nothing::NoSuchName => "nothing".into(),
            Nothing::NoAnswer => "no answer".into(),
            Nothing::Faulty(why) => why.clone(),
        }
    }
}

pub struct Finder {
    socket: UdpSocket,
    zone: SocketAddr,
    apex: String,
}

impl Finder {
    /// Errors: no socket can be opened.
    pub fn new(zone: SocketAddr, apex: &str) -> io::Result<Finder> {
        let any: IpAddr = if zone.is_ipv4() { Ipv4Addr::UNSPECIFIED.into() } else { [0u16; 8].into() };
        let socket = UdpSocket::bind((any, 0))?;
        socket.connect(zone)?;
        Ok(Finder { socket, zone, apex: apex.trim_end_matches('.').to_owned() })
    }

    pub fn zone(&self) -> SocketAddr {
        self.zone
    }

    /// Where a front end elsewhere sends the INVITE for this phone: NAPTR of the IMSI's name, SRV, A; best target first.
    pub fn imsi(&self, imsi: &Imsi) -> Result<Vec<SocketAddr>, Nothing> {
        // "The digits stand in their own order, one label each" (DESIGN section 1).
        let name = self.name(&format!("{}.imsi", dotted(imsi.as_str().chars())))?;
        let mut pointers: Vec<(u16, u16, Name)> = self
            .ask(&name, RecordType::NAPTR)?
            .iter()
            .filter_map(|record| match &record.data {
                RData::NAPTR(naptr) if is(&naptr.services, "SIP+D2U") && is(&naptr.flags, "s") => {
                    Some((naptr.order, naptr.preference, naptr.replacement.clone()))
                }
                _ => None,
            })
            .collect();
        pointers.sort();
        let Some((_, _, service)) = pointers.into_iter().next() else {
            return Err(Nothing::Faulty("no NAPTR for SIP+D2U".into()));
        };
        let answer = self.whole(&service, RecordType::SRV)?;
        let mut targets: Vec<(u16, u16, u16, Name)> = of(&answer.answers, &service, RecordType::SRV)
            .filter_map(|record| match &record.data {
                RData::SRV(srv) => Some((srv.priority, u16::MAX - srv.weight, srv.port, srv.target.clone())),
                _ => None,
            })
            .collect();
        targets.sort();
        targets.truncate(TARGET_COUNT_MAX);
        let mut found = Vec::new();
        for (_, _, port, target) in targets {
            let mut addresses: Vec<Record> = of(&answer.additionals, &target, RecordType::A).cloned().collect();
            if addresses.is_empty() {
                addresses = self.ask(&target, RecordType::A).unwrap_or_default();
            }
            found.extend(addresses.iter().filter_map(|record| match &record.data {
                RData::A(address) => Some(SocketAddr::new(IpAddr::V4(address.0), port)),
                _ => None,
            }));
        }
        if found.is_empty() {
            Err(Nothing::Faulty(format!("no target with an A record at {service}")))
        } else {
            Ok(found)
        }
    }

    /// The URI behind a number: ENUM below `e164` for an international one, below `num` for a short one.
    ///
    /// Shape: the only regular expression that is understood is the whole of `^.*$`, which is what our zone writes.
    pub fn number(&self, number: &Msisdn) -> Result<String, Nothing> {
        let tree = if number.is_international() { "e164" } else { "num" };
        let name = self.name(&format!("{}.{tree}", dotted(number.digits().chars().rev())))?;
        let records = self.ask(&name, RecordType::NAPTR)?;
        let regexp = records.iter().find_map(|record| match &record.data {
            RData::NAPTR(naptr) if is(&naptr.services, "E2U+sip") && is(&naptr.flags, "u") => {
                Some(String::from_utf8_lossy(&naptr.regexp).into_owned())
            }
            _ => None,
        });
        let Some(regexp) = regexp else { return Err(Nothing::Faulty("no NAPTR for E2U+sip".into())) };
        // "The first character in the <subst-expr> is the delimiter" (RFC 3402 §3.2).
        let mut parts = regexp.chars().next().map(|mark| regexp.split(mark).skip(1)).into_iter().flatten();
        match (parts.next(), parts.next()) {
            (Some("^.*$"), Some(uri)) if !uri.is_empty() && !uri.contains('\\') => Ok(uri.to_owned()),
            _ => Err(Nothing::Faulty(format!("the expression {regexp:?} cannot be used"))),
        }
    }

    fn name(&self, below: &str) -> Result<Name, Nothing> {
        Name::from_ascii(format!("{below}.{}.", self.apex))
            .map_err(|error| Nothing::Faulty(format!("{below} below {} is no name: {error}", self.apex)))
    }

    fn ask(&self, name: &Name, rtype: RecordType) -> Result<Vec<Record>, Nothing> {
        let answer = self.whole(name, rtype)?;
        let records: Vec<Record> = of(&answer.answers, name, rtype).cloned().collect();
        if records.is_empty() { Err(Nothing::NoSuchName) } else { Ok(records) }
    }

    fn whole(&self, name: &Name, rtype: RecordType) -> Result<Message, Nothing> {
        let fault = |error: &dyn std::fmt::Display| Nothing::Faulty(error.to_string());
        let mut question = Message::query();
        question.add_query(Query::query(name.clone(), rtype));
        let mut edns = Edns::new();
        edns.set_max_payload(PAYLOAD_BYTES);
        question.set_edns(edns);
        let bytes = question.to_vec().map_err(|error| fault(&error))?;
        let mut buffer = vec![0; 65_536];
        for _ in 0..SEND_COUNT_MAX {
            self.socket.send(&bytes).map_err(|error| fault(&error))?;
            let until = Instant::now() + ANSWER_WAIT;
            loop {
                let left = until.saturating_duration_since(Instant::now());
                if left.is_zero() {
                    break;
                }
                self.socket.set_read_timeout(Some(left)).map_err(|error| fault(&error))?;
                // A timeout, or that nobody listens there: the question is sent again.
                let Ok(len) = self.socket.recv(&mut buffer) else { break };
                let Ok(answer) = Message::from_vec(&buffer[..len]) else { continue };
                let is_ours = answer.metadata.id == question.metadata.id
                    && answer.metadata.message_type == MessageType::Response
                    && answer.queries == question.queries;
                if !is_ours {
                    continue;
                }
                return match answer.metadata.response_code {
                    _ if answer.metadata.truncation => Err(Nothing::Faulty(format!("{rtype} truncated"))),
                    ResponseCode::NoError if answer.metadata.authoritative => Ok(answer),
                    ResponseCode::NoError => Err(Nothing::Faulty("an answer without authority".into())),
                    ResponseCode::NXDomain => Err(Nothing::NoSuchName),
                    other => Err(Nothing::Faulty(other.to_string())),
                };
            }
        }
        Err(Nothing::NoAnswer)
    }
}

fn of<'a>(records: &'a [Record], name: &'a Name, rtype: RecordType) -> impl Iterator<Item = &'a Record> {
    records.iter().filter(move |record| record.name == *name && record.record_type() == rtype)
}

fn is(field: &[u8], text: &str) -> bool {
    field.eq_ignore_ascii_case(text.as_bytes())
}

fn dotted(digits: impl Iterator<Item = char>) -> String {
    digits.map(String::from).collect::<Vec<_>>().join(".")
}
