//! What a replica of ours answers to other nodes at its own port.
//!
//! A stamped, signed REGISTER writes or asks, a signed INVITE looks up, a signed OPTIONS asks how the replica is. "An unsigned
//! REGISTER there, from whomever, binds nothing" (DESIGN section 9). Every answer is signed, and says in which state the replica is.

use std::net::SocketAddr;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;

use super::asking::{alert_field, decode_text, place_fields};
use super::cluster::{self, Signed};
use super::merge::{Record, encode};
use super::replica;
use super::replicas::{Replicas, mark_name};
use crate::event::Event;
use crate::ident::Imsi;
use crate::seam::{After, Inner, ReplyTo, TransactionKey};
use crate::sip::header::Uri;
use crate::sip::parse::Message;
use crate::sip::write::Writer;
use crate::site::World;
use crate::store::{StoreError, StoreId};
use crate::time::Stamp;

/// A request that came to the port of one of our replicas.
pub struct Request<'a> {
    pub replica: usize,
    pub from: SocketAddr,
    pub to: ReplyTo,
    pub key: Option<TransactionKey>,
    pub message: &'a Message<'a>,
}

/// What is answered, and what it waits for.
struct Reply {
    code: u16,
    phrase: &'static str,
    stamp: Stamp,
    fields: String,
    record: Option<Record>,
    contact: Option<String>,
    after: After,
}

impl Reply {
    fn plain(code: u16, phrase: &'static str) -> Reply {
        Reply {
            code,
            phrase,
            stamp: Stamp::ZERO,
            fields: String::new(),
            record: None,
            contact: None,
            after: After::nothing(),
        }
    }
}

/// Whether a request is meant for a replica by another node: it carries a signature.
pub fn is_stamped(message: &Message<'_>) -> bool {
    message.header_named(cluster::HEADER).is_some()
}

/// Answers a stamped request.
///
/// Errors: a signature that is missing or wrong is refused with 403 and counted; nothing is read or written.
pub fn serve(w: &mut World<'_, '_>, replicas: &mut Replicas, request: &Request<'_>) {
    let message = request.message;
    let (cseq, method) = message.cseq();
    let to = message.to().map(|to| to.uri).unwrap_or_default();
    let record_text = message.header_named(cluster::RECORD_HEADER).unwrap_or_default();
    let signed = Signed {
        method,
        uri: message.uri().unwrap_or_default(),
        to,
        call_id: message.call_id(),
        cseq,
        status: 0,
        record: record_text,
    };
    let verified = match (&w.site.settings.cluster_key, message.header_named(cluster::HEADER)) {
        (None, _) => Err("no cluster_key is configured here"),
        (_, None) => Err("it is not signed"),
        (Some(key), Some(value)) => cluster::verify(key, &signed, value),
    };
    let header = match verified {
        Ok(header) => header,
        Err(why) => {
            w.event(Event::SignatureRefused { from: request.from, why });
            let mut writer = Writer::response_to(message, 403, "Forbidden", Some(&w.site.stateless_tag(message)), None);
            let bytes = writer.header_fmt("Warning", format_args!("399 encamp \"{why}\"")).finish();
            w.ctx.out.after(After::nothing(), Inner::Answer { key: request.key, to: request.to, bytes });
            return;
        }
    };
    let user = Uri::parse(to).ok().and_then(|uri| uri.user);
    let reply = if w.observe(header.stamp).is_err() {
        w.event(Event::StampAhead { from: request.from });
        Reply::plain(500, "Stamp Ahead Of The Clock")
    } else if method == "OPTIONS" {
        health(w, replicas, request.replica, header.field("mark"), header.field("before"))
    } else {
        match user.and_then(|user| Imsi::parse(user).ok()) {
            None => Reply::plain(404, "Not Found"),
            Some(imsi) => match owner_elsewhere(w, request, imsi) {
                Some(moved) => moved,
                None if method == "INVITE" => lookup(w, replicas, request.replica, imsi),
                None if record_text.is_empty() => query(w, replicas, request.replica, imsi),
                None => write(w, replicas, request.replica, imsi, record_text),
            },
        }
    };
    answer(w, replicas, request, &signed, reply);
}

/// A signed NOTIFY to whoever waits for a phone: it is back. `None` where the signature is wrong: it is counted, and not answered.
///
/// A copy is answered like the first: it leads to nothing that the first has not led to.
pub fn alert(w: &mut World<'_, '_>, from: SocketAddr, to: ReplyTo, message: &Message<'_>) -> Option<Imsi> {
    let (cseq, method) = message.cseq();
    let to_uri = message.to().map(|to| to.uri).unwrap_or_default();
    let uri = message.uri().unwrap_or_default();
    let signed = Signed { method, uri, to: to_uri, call_id: message.call_id(), cseq, status: 0, record: "" };
    let verified = match (&w.site.settings.cluster_key, message.header_named(cluster::HEADER)) {
        (Some(key), Some(value)) => cluster::verify(key, &signed, value).map(|_| key),
        _ => Err("it is not signed, or no cluster_key is configured here"),
    };
    let key = match verified {
        Ok(key) => key,
        Err(why) => {
            w.event(Event::SignatureRefused { from, why });
            return None;
        }
    };
    let imsi = Uri::parse(to_uri).ok().and_then(|uri| uri.user).and_then(|user| Imsi::parse(user).ok());
    let (status, phrase) = if imsi.is_some() { (200, "OK") } else { (404, "Not Found") };
    let header = cluster::sign(key, &Signed { status, ..signed }, Stamp::ZERO, w.site.epoch, "");
    let mut writer = Writer::response_to(message, status, phrase, Some(&w.site.stateless_tag(message)), None);
    let bytes = writer.header(cluster::HEADER, &header).finish();
    w.ctx.out.after(After::nothing(), Inner::Answer { key: None, to, bytes });
    imsi
}

/// "…a replica that no longer owns a suffix answers 301 with the owner's name and the front end looks again" (DESIGN section 4).
fn owner_elsewhere(w: &mut World<'_, '_>, request: &Request<'_>, imsi: Imsi) -> Option<Reply> {
    let owner = w.site.map.shard_of(&imsi)?;
    if w.site.settings.replicas[request.replica].shard == owner {
        return None;
    }
    w.event(Event::WrongShard { imsi, from: request.from });
    let name = &w.site.settings.shards[owner].name;
    let contact = format!("sip:IMSI{imsi}@{name}.shard.{}", w.site.settings.zone.apex);
    Some(Reply { contact: Some(contact), ..Reply::plain(301, "Moved Permanently") })
}

fn write(w: &mut World<'_, '_>, replicas: &mut Replicas, index: usize, imsi: Imsi, text: &str) -> Reply {
    let Some(delta) = decode_text(text) else { return Reply::plain(400, "Record Cannot Be Read") };
    match replicas.apply_local(w, index, imsi, &delta) {
        Err(error) => refused(&error),
        Ok(applied) => Reply {
            stamp: applied.older_than.unwrap_or_else(|| delta.latest()),
            // "*Every* yes to a REGISTER carries its marks" (DESIGN section 4).
            fields: format!(
                ";result={}{}{}",
                if applied.older_than.is_some() { "older" } else { "ok" },
                if applied.is_new { ";new=1" } else { "" },
                alert_field(&applied.alert)
            ),
            after: After::nothing().and(applied.commit),
            ..Reply::plain(200, "OK")
        },
    }
}

fn read(w: &mut World<'_, '_>, index: usize, imsi: Imsi) -> Result<(Record, After), StoreError> {
    let id = StoreId::Replica(index as u16);
    let record = replica::read(w.store(id)?, imsi)?;
    let after = w.unsynced(id).map_or(After::nothing(), |commit| After::nothing().and(commit));
    Ok((record, after))
}

/// A list of bindings is a promise: it waits until all that it was read from is synced.
fn query(w: &mut World<'_, '_>, replicas: &Replicas, index: usize, imsi: Imsi) -> Reply {
    if replicas.open_local(index).is_none() {
        return refused(&StoreError::Closed);
    }
    match read(w, index, imsi) {
        Err(error) => refused(&error),
        Ok((record, after)) => Reply { stamp: record.latest(), record: Some(record), after, ..Reply::plain(200, "OK") },
    }
}

/// One replica's word: 302, or 480 where it is caught up. Whether one such *no* is enough is for the asker to count.
fn lookup(w: &mut World<'_, '_>, replicas: &Replicas, index: usize, imsi: Imsi) -> Reply {
    let Some(replica) = replicas.open_local(index) else { return refused(&StoreError::Closed) };
    let level = replica.is_level();
    match read(w, index, imsi) {
        Err(error) => refused(&error),
        Ok((record, after)) => match record.newest() {
            Some((contact, stamp, binding)) => Reply {
                stamp,
                fields: place_fields(contact, binding),
                contact: Some(contact.to_owned()),
                ..Reply::plain(302, "Moved Temporarily")
            },
            None if level => Reply { stamp: record.stamp(), after, ..Reply::plain(480, "Temporarily Unavailable") },
            None => Reply::plain(503, "Catching Up"),
        },
    }
}

/// How the replica is; to a sibling that was founded, whether we hold anything older than its founding.
fn health(w: &mut World<'_, '_>, replicas: &Replicas, index: usize, mark: Option<&str>, before: Option<&str>) -> Reply {
    let Some(replica) = replicas.open_local(index) else { return refused(&StoreError::Closed) };
    let ours = mark_name(&w.site.settings, w.site.settings.replicas[index].shard);
    let mut fields = String::new();
    if let (Some(mark), Some(before_ms)) = (mark, before.and_then(|before| u64::from_str_radix(before, 16).ok()))
        && mark == ours
        && replica.mark.is_some()
    {
        let mut older = 0u64;
        let counted = w.store(StoreId::Replica(index as u16)).and_then(|store| {
            replica::for_each_record(store, |_, record| older += u64::from(record.latest().ms < before_ms))
        });
        if counted.is_ok() {
            fields = format!(";mark={ours};older={older}");
        }
    }
    Reply { fields, ..Reply::plain(200, "OK") }
}

fn refused(error: &StoreError) -> Reply {
    match error {
        StoreError::Full => Reply::plain(503, "Disk Full"),
        StoreError::Stalled => Reply::plain(503, "Store Stalled"),
        StoreError::Closed => Reply::plain(503, "Store Closed"),
        StoreError::Broken(_) => Reply::plain(500, "Store Broken"),
    }
}

fn answer(w: &mut World<'_, '_>, replicas: &Replicas, request: &Request<'_>, asked: &Signed<'_>, reply: Reply) {
    let Some(key) = &w.site.settings.cluster_key else { return };
    let record = reply
        .record
        .as_ref()
        .filter(|record| **record != Record::default())
        .map(|record| BASE64.encode(encode(record)));
    let signed = Signed { status: reply.code, record: record.as_deref().unwrap_or_default(), ..*asked };
    let level = replicas.open_local(request.replica).is_some_and(|replica| replica.is_level());
    let fields = format!(";state={}{}", if level { "level" } else { "catching-up" }, reply.fields);
    let header = cluster::sign(key, &signed, reply.stamp, w.site.epoch, &fields);
    let mut writer = Writer::response_to(
        request.message,
        reply.code,
        reply.phrase,
        Some(&w.site.stateless_tag(request.message)),
        None,
    );
    if let Some(contact) = &reply.contact {
        writer.header_fmt("Contact", format_args!("<{contact}>"));
    }
    if let Some(found) = &reply.record {
        let now_ms = w.clock.wall(w.ctx.now, w.ctx.wall).ms;
        for (contact, _, binding) in found.bindings() {
            let left_s = binding.expires_at_ms.saturating_sub(now_ms).div_ceil(1000);
            writer.header_fmt("Contact", format_args!("<{contact}>;expires={left_s}"));
        }
    }
    writer.header(cluster::HEADER, &header);
    if let Some(record) = &record {
        writer.header(cluster::RECORD_HEADER, record);
    }
    let bytes = writer.finish();
    w.ctx.out.after(reply.after, Inner::Answer { key: request.key, to: request.to, bytes });
}
