//! What is asked of replicas on other boxes, in SIP: requests that are signed, sent again, answered or given up.
//!
//! Knows: which request a response belongs to, and whether it is really that replica's. Does not know: what follows from an answer
//! ([`super::replicas`]). A write and a query are REGISTER (with and without Contact), a lookup is INVITE, "how are you" is OPTIONS, "the phone is
//! back" is NOTIFY, which goes to whoever waits for it.
//! Limits: every request ends by its deadline; there are as many as registrations and lookups under way, and one more per replica.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;

use super::cluster::{self, Signed};
use super::merge::{Binding, Record, decode, encode};
use crate::event::{Drop, Event};
use crate::gsm::form::TextForm;
use crate::ident::Imsi;
use crate::seam::{After, Output, Timer};
use crate::sip::header::{HeaderName, Uri};
use crate::sip::parse::{Contacts, Message};
use crate::sip::write::Writer;
use crate::site::World;
use crate::time::{Instant, Stamp};

/// The one CSeq of each request: every request has a Call-ID of its own.
const CSEQ: u32 = 1;
/// A base station that is not known.
const NOWHERE: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::UNSPECIFIED), 0);
/// More message centres than this do not wait for one phone; the answer that names them is one datagram.
const ALERT_OWNERS_MAX: usize = 16;

/// Whose write it is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Write {
    /// Of a REGISTER.
    Register(u64),
    /// Of a mark.
    Mark(u64),
}

/// Why we ask, to be given back with the answer.
#[derive(Clone, Debug)]
pub enum What {
    Write {
        write: Write,
    },
    Query {
        asker: Asker,
    },
    Lookup {
        lookup: u64,
    },
    Hint {
        imsi: Imsi,
        record: Record,
    },
    Probe,
    /// To whoever waits for this phone: it is back. This is no replica's business, and asked of no replica.
    Alert {
        imsi: Imsi,
    },
}

/// Who asked for a record.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Asker {
    Register(u64),
    Command(u64),
    Locate(u64),
}

/// A request in the making.
pub struct Question<'a> {
    /// Index in `Settings::replicas`, and where that is.
    pub replica: usize,
    pub address: SocketAddr,
    pub what: What,
    /// The user of To: `IMSI..`, or a replica's name.
    pub user: String,
    /// What is to be written; `None` asks.
    pub record: Option<&'a Record>,
    /// Sent again after these times, and given up after that.
    pub resend: &'a [Duration],
    pub deadline: Duration,
    /// What must be on the disk before it may leave, each time.
    pub after: After,
    /// More fields of the `Encamp` header, each with its leading `;`.
    pub fields: String,
}

/// What a replica answered; its signature is right.
#[derive(Debug)]
pub struct Reply {
    pub code: u16,
    pub stamp: Stamp,
    /// Its *no* may be believed.
    pub level: bool,
    /// It knew a newer write than ours.
    pub older: bool,
    /// To a write: it had nothing of this phone before.
    pub is_new: bool,
    /// It has our founding mark, and nothing from before it.
    pub is_no_older: bool,
    /// `None` where the record cannot be read.
    pub record: Option<Record>,
    /// The first Contact of a 302.
    pub contact: Option<String>,
    /// To a lookup: how short messages go there, and where its REGISTER came from.
    pub texts: TextForm,
    pub station: SocketAddr,
    /// To a write: who waits for this phone and is to hear that it is back.
    pub alert: Vec<SocketAddr>,
}

/// A request under way, with all that its answer must be signed over.
struct Asked {
    replica: usize,
    address: SocketAddr,
    what: What,
    branch: String,
    method: &'static str,
    uri: String,
    to: String,
    call_id: String,
    bytes: Vec<u8>,
    resend_at: Vec<Instant>,
    after: After,
    deadline: Instant,
}

/// The requests under way.
#[derive(Default)]
pub struct Asking {
    under_way: BTreeMap<u64, Asked>,
    count: u64,
}

impl Asking {
    /// Sends a signed request; `false` where there is no port to send it from, or no key to sign with.
    pub fn ask(&mut self, w: &mut World<'_, '_>, question: Question<'_>) -> bool {
        let (Some((from, own)), Some(key)) = (w.site.own_port(), &w.site.settings.cluster_key) else { return false };
        let Question { replica, address, what, user, record, resend, deadline, after, fields } = question;
        let method = match what {
            What::Write { .. } | What::Query { .. } | What::Hint { .. } => "REGISTER",
            What::Lookup { .. } => "INVITE",
            What::Probe => "OPTIONS",
            What::Alert { .. } => "NOTIFY",
        };
        self.count += 1;
        let id = self.count;
        let branch = format!("z9hG4bK{id:x}.{:016x}", w.ctx.rng.u64());
        let call_id = format!("{:016x}@{}", w.ctx.rng.u64(), own.ip());
        let domain = &w.site.settings.domain;
        let (uri, to) = (format!("sip:{user}@{address}"), format!("sip:{user}@{domain}"));
        let text = record.map(|record| BASE64.encode(encode(record))).unwrap_or_default();
        let signed = Signed { method, uri: &uri, to: &to, call_id: &call_id, cseq: CSEQ, status: 0, record: &text };
        let stamp = record.map_or(Stamp::ZERO, Record::latest);
        let header = cluster::sign(key, &signed, stamp, w.site.epoch, &fields);
        let mut writer = Writer::request(method, &uri);
        writer
            .header_fmt("Via", format_args!("SIP/2.0/UDP {own};branch={branch}"))
            .header_fmt("From", format_args!("<sip:front@{domain}>;tag={:016x}", w.ctx.rng.u64()))
            .header_fmt("To", format_args!("<{to}>"))
            .header("Call-ID", &call_id)
            .header_fmt("CSeq", format_args!("{CSEQ} {method}"));
        if let Some(record) = record {
            put_contacts(&mut writer, record, w.clock.wall(w.ctx.now, w.ctx.wall).ms);
        }
        if method == "INVITE" {
            writer.header_fmt("Contact", format_args!("<sip:front@{own}>"));
        }
        writer.header("Max-Forwards", "70").header(cluster::HEADER, &header);
        if !text.is_empty() {
            writer.header(cluster::RECORD_HEADER, &text);
        }
        let bytes = writer.finish();
        w.ctx.out.send_after(after, Output::Datagram { from, to: address, bytes: bytes.clone() });
        let deadline = w.ctx.now + deadline;
        let resend_at: Vec<Instant> = resend.iter().map(|pause| w.ctx.now + *pause).collect();
        let asked =
            Asked { replica, address, what, branch, method, uri, to, call_id, bytes, resend_at, after, deadline };
        w.timers.at(asked.next_at(), Timer::Asked(id));
        self.under_way.insert(id, asked);
        true
    }

    /// A timer of a request has come: it is sent again; or it is over, and whom and why we asked is given back.
    pub fn timeout(&mut self, w: &mut World<'_, '_>, id: u64) -> Option<(usize, What)> {
        let asked = self.under_way.get_mut(&id)?;
        if w.ctx.now >= asked.deadline {
            return self.under_way.remove(&id).map(|asked| (asked.replica, asked.what));
        }
        asked.resend_at.retain(|at| *at > w.ctx.now);
        if let Some((from, _)) = w.site.own_port() {
            let bytes = asked.bytes.clone();
            w.ctx.out.send_after(asked.after, Output::Datagram { from, to: asked.address, bytes });
        }
        w.timers.at(asked.next_at(), Timer::Asked(id));
        None
    }

    /// A response has come: whom and why we asked, and the answer.
    ///
    /// `None` for one that answers nothing, is provisional, or is not signed: then the deadline decides. Each is counted.
    pub fn answered(
        &mut self,
        w: &mut World<'_, '_>,
        from: SocketAddr,
        message: &Message<'_>,
    ) -> Option<(usize, What, Reply)> {
        let code = message.code().unwrap_or_default();
        let branch = message.via().ok().and_then(|via| via.branch).unwrap_or_default();
        let id = branch.strip_prefix("z9hG4bK").and_then(|rest| rest.split_once('.'));
        let id = id.and_then(|(id, _)| u64::from_str_radix(id, 16).ok()).unwrap_or_default();
        let Some(asked) = self.under_way.get(&id).filter(|asked| asked.branch == branch) else {
            w.event(Event::DatagramDropped { from, why: Drop::ResponseUnknown });
            return None;
        };
        if code < 200 {
            return None;
        }
        if asked.method == "INVITE" {
            acknowledge(w, asked, message);
        }
        let reply = match asked.read(w, message, code) {
            Ok(reply) => reply,
            Err(why) => {
                w.event(Event::SignatureRefused { from, why });
                return None;
            }
        };
        if w.observe(reply.stamp).is_err() {
            w.event(Event::StampAhead { from });
            return None;
        }
        self.under_way.remove(&id).map(|asked| (asked.replica, asked.what, reply))
    }
}

impl Asked {
    /// When something is due: sending it again, or giving it up.
    fn next_at(&self) -> Instant {
        self.resend_at.first().copied().unwrap_or(self.deadline).min(self.deadline)
    }

    /// Reads an answer and verifies that it is that replica's, to this request.
    fn read(&self, w: &World<'_, '_>, message: &Message<'_>, code: u16) -> Result<Reply, &'static str> {
        let text = message.header_named(cluster::RECORD_HEADER).unwrap_or_default();
        let signed = Signed {
            method: self.method,
            uri: &self.uri,
            to: &self.to,
            call_id: &self.call_id,
            cseq: CSEQ,
            status: code,
            record: text,
        };
        let header = match (&w.site.settings.cluster_key, message.header_named(cluster::HEADER)) {
            (Some(key), Some(value)) => cluster::verify(key, &signed, value)?,
            _ => return Err("its answer is not signed"),
        };
        let contact = match message.contacts() {
            Ok(Contacts::List(mut list)) if code == 302 => list.next().map(|contact| contact.uri.to_owned()),
            _ => None,
        };
        // Unspecified where an earlier release answers with a name for a contact.
        let station = header.field("station").and_then(|station| station.parse().ok());
        let station = station.or_else(|| address_of(contact.as_deref()?)).unwrap_or(NOWHERE);
        Ok(Reply {
            code,
            stamp: header.stamp,
            level: header.field("state") == Some("level"),
            older: header.field("result") == Some("older"),
            is_new: header.field("new") == Some("1"),
            is_no_older: header.field("older") == Some("0") && header.field("mark").is_some(),
            record: if text.is_empty() { Some(Record::default()) } else { decode_text(text) },
            contact,
            texts: texts_of(&header),
            station,
            alert: alert_of(&header),
        })
    }
}

/// The field of an answer that names who waits: `;alert=192.0.2.1:5060,192.0.2.2:5060`.
pub fn alert_field(owners: &[SocketAddr]) -> String {
    let owners: Vec<String> = owners.iter().take(ALERT_OWNERS_MAX).map(ToString::to_string).collect();
    if owners.is_empty() { String::new() } else { format!(";alert={}", owners.join(",")) }
}

/// Where a contact is, if it says so in numbers.
fn address_of(contact: &str) -> Option<SocketAddr> {
    Uri::parse(contact).ok()?.address()
}

/// The fields of a 302 that tell what its Contact does not: `;texts=yatebts;station=192.0.2.1:5062`; none for an OpenBTS, whose contacts
/// are its own address, so that nothing is different there from what earlier releases said and read.
pub fn place_fields(contact: &str, binding: &Binding) -> String {
    let mut fields = String::new();
    if binding.texts != TextForm::OpenBts {
        fields = format!(";texts={}", binding.texts.name());
    }
    if address_of(contact) != Some(binding.source) {
        fields += &format!(";station={}", binding.source);
    }
    fields
}

/// A form that this release does not know counts like none.
fn texts_of(header: &cluster::Header<'_>) -> TextForm {
    let name = header.field("texts").unwrap_or_default();
    TextForm::ALL.into_iter().find(|form| form.name() == name).unwrap_or_default()
}

fn alert_of(header: &cluster::Header<'_>) -> Vec<SocketAddr> {
    let owners = header.field("alert").unwrap_or_default();
    owners.split(',').filter_map(|owner| owner.parse().ok()).take(ALERT_OWNERS_MAX).collect()
}

/// The same as the record says, for a registrar that is not ours. A mark says nothing to it, and above all not `*`.
fn put_contacts(writer: &mut Writer, record: &Record, now_ms: u64) {
    for (contact, entry) in &record.contacts {
        let left_ms = entry.binding.as_ref().map_or(0, |binding| binding.expires_at_ms.saturating_sub(now_ms));
        writer.header_fmt("Contact", format_args!("<{contact}>;expires={}", left_ms.div_ceil(1000)));
    }
    if record.contacts.is_empty() && !record.is_of_marks() {
        writer.header("Contact", "*").header("Expires", "0");
    }
}

/// A final response of 300 to 699 to INVITE is acknowledged in the same transaction (RFC 3261 §17.1.1.2).
fn acknowledge(w: &mut World<'_, '_>, asked: &Asked, message: &Message<'_>) {
    let Some((from, own)) = w.site.own_port() else { return };
    let (Some(sender), Some(to)) = (message.header(HeaderName::From), message.header(HeaderName::To)) else { return };
    let mut ack = Writer::request("ACK", &asked.uri);
    ack.header_fmt("Via", format_args!("SIP/2.0/UDP {own};branch={}", asked.branch))
        .header("From", sender)
        .header("To", to)
        .header("Call-ID", &asked.call_id)
        .header_fmt("CSeq", format_args!("{CSEQ} ACK"))
        .header("Max-Forwards", "70");
    w.ctx.out.send(Output::Datagram { from, to: asked.address, bytes: ack.finish() });
}

/// A record as it stands in `Encamp-Record`.
pub fn decode_text(text: &str) -> Option<Record> {
    BASE64.decode(text).ok().and_then(|bytes| decode(&bytes).ok())
}
