//! How a call reaches a phone: an INVITE from a trunk is answered 302 with the contact that one replica has.
//!
//! Knows: the lookups under way, and how many replicas must agree on a *no*. Does not know: how replicas are reached. Stateless
//! towards the trunk (RFC 3261 §8.2.7): the tag is computed, the 302 is not repeated, the ACK is dropped.
//! Limits: a lookup asks each replica once, for `read_deadline` each.

use std::collections::BTreeMap;
use std::net::SocketAddr;

use crate::event::Event;
use crate::ident::Imsi;
use crate::register::front::Front;
use crate::register::merge::Record;
use crate::register::replicas::Replicas;
use crate::seam::{After, Inner, ReplyTo, TransactionKey};
use crate::sip::header::Uri;
use crate::sip::parse::{Message, parse};
use crate::sip::write::Writer;
use crate::site::World;
use crate::store::StoreId;

/// Our *no* to a caller; it knows its answer and the cause of Q.850 that goes with it (DESIGN section 6).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum No {
    UnknownNumber,
    Away,
    Barred,
    /// A *no* from too few, or nobody to ask.
    TooFew,
    Overload,
    TooManyHops,
    Cancelled,
}

impl No {
    /// Code, phrase, cause of Q.850 for a trunk, and why in words.
    fn answer(self) -> (u16, &'static str, Option<u8>, &'static str) {
        match self {
            No::UnknownNumber => (404, "Not Found", Some(1), "the number is nobody's"),
            No::Away => (480, "Temporarily Unavailable", Some(20), "the phone is not registered"),
            No::Barred => (403, "Forbidden", Some(21), "the subscriber is barred"),
            No::TooFew => (503, "Service Unavailable", Some(42), "too few replicas could say where the phone is"),
            No::Overload => (503, "Service Unavailable", Some(42), "overload"),
            No::TooManyHops => (483, "Too Many Hops", None, "Max-Forwards is 0"),
            No::Cancelled => (487, "Request Terminated", None, "the caller gave up"),
        }
    }
}

/// An INVITE as it came in.
pub struct Request<'a> {
    pub from: SocketAddr,
    pub to: ReplyTo,
    pub key: TransactionKey,
    pub bytes: &'a [u8],
    pub message: &'a Message<'a>,
    /// It came to this replica's own port: it is read first.
    pub replica: Option<usize>,
}

/// The lookups under way.
#[derive(Default)]
pub struct Route {
    under_way: BTreeMap<u64, Lookup>,
    by_key: BTreeMap<TransactionKey, u64>,
    count: u64,
}

struct Lookup {
    bytes: Vec<u8>,
    from: SocketAddr,
    to: ReplyTo,
    key: TransactionKey,
    imsi: Imsi,
    /// Replicas not yet asked, the next one last.
    left: Vec<usize>,
    /// How many caught-up replicas have said no, and how many must.
    no: usize,
    no_needed: usize,
    /// What the noes were read from and is not yet synced.
    after: After,
}

impl Route {
    pub fn under_way(&self) -> usize {
        self.under_way.len()
    }

    /// An INVITE from a trunk.
    pub fn invite(&mut self, w: &mut World<'_, '_>, front: &Front, replicas: &mut Replicas, request: &Request<'_>) {
        // "Copies of a lookup under way are absorbed" (DESIGN section 9).
        if self.by_key.contains_key(&request.key) {
            return w.event(Event::Retransmission { from: request.from });
        }
        if request.message.max_forwards() == Some(Ok(0)) {
            return refuse(w, request, No::TooManyHops, After::nothing());
        }
        let user =
            request.message.uri().and_then(|uri| Uri::parse(uri).ok()).and_then(|uri| uri.user).unwrap_or_default();
        let Some(subscriber) = w.site.resolve(user) else {
            return refuse(w, request, No::UnknownNumber, After::nothing());
        };
        let (imsi, barred) = (subscriber.imsi, subscriber.barred);
        let Some(shard) = w.site.map.shard_of(&imsi).filter(|_| !barred) else {
            return refuse(w, request, if barred { No::Barred } else { No::TooFew }, After::nothing());
        };
        if self.under_way.len() >= w.site.settings.registrar.transaction_count_max {
            return refuse(w, request, No::Overload, After::nothing());
        }
        let shard = &w.site.settings.shards[shard];
        let mut left = replicas.in_order(&shard.replicas, imsi);
        // Neither one that is behind, nor one elsewhere that still owes us the yes for a write of this phone (promise 2).
        left.retain(|index| !(replicas.is_remote(*index) && front.is_owed(imsi, *index)));
        // The replica whose port it came to is read first; the sort is stable.
        left.sort_by_key(|index| request.replica == Some(*index));
        self.count += 1;
        let id = self.count;
        let lookup = Lookup {
            bytes: request.bytes.to_vec(),
            from: request.from,
            to: request.to,
            key: request.key,
            imsi,
            left,
            no: 0,
            // "480 or *not bound here* needs R-W+1 caught-up replicas that agree; with fewer it is 503" (promise 2).
            no_needed: shard.replicas.len() + 1 - shard.write_quorum,
            after: After::nothing(),
        };
        self.under_way.insert(id, lookup);
        self.by_key.insert(request.key, id);
        self.ask_next(w, replicas, id);
    }

    /// Reads one replica after the other: the first contact found answers; local ones at once, those elsewhere over the wire.
    fn ask_next(&mut self, w: &mut World<'_, '_>, replicas: &mut Replicas, id: u64) {
        loop {
            let Some(lookup) = self.under_way.get_mut(&id) else { return };
            if lookup.no >= lookup.no_needed {
                return self.finish(w, id, Err(No::Away));
            }
            let Some(index) = lookup.left.pop() else { return self.finish(w, id, Err(No::TooFew)) };
            if replicas.is_remote(index) {
                if replicas.lookup(w, index, lookup.imsi, id) {
                    return;
                }
                continue;
            }
            let Ok(Some(record)) = replicas.read_one(w, index, lookup.imsi) else { continue };
            match contact_of(&record) {
                Some(contact) => return self.finish(w, id, Ok(contact)),
                None if replicas.is_believed(index, lookup.imsi) => {
                    lookup.no += 1;
                    if let Some(commit) = w.unsynced(StoreId::Replica(index as u16)) {
                        lookup.after = lookup.after.and(commit);
                    }
                }
                None => {}
            }
        }
    }

    /// A replica elsewhere has the phone.
    pub fn found(&mut self, w: &mut World<'_, '_>, id: u64, contact: String) {
        self.finish(w, id, Ok(contact));
    }

    /// A caught-up replica elsewhere has it not.
    pub fn absent(&mut self, w: &mut World<'_, '_>, replicas: &mut Replicas, id: u64) {
        if let Some(lookup) = self.under_way.get_mut(&id) {
            lookup.no += 1;
            self.ask_next(w, replicas, id);
        }
    }

    /// A replica elsewhere could not say.
    pub fn no_answer(&mut self, w: &mut World<'_, '_>, replicas: &mut Replicas, id: u64) {
        self.ask_next(w, replicas, id);
    }

    /// CANCEL: 200, and 487 to the INVITE while its lookup is under way; else there is nothing to cancel.
    pub fn cancel(&mut self, w: &mut World<'_, '_>, request: &Request<'_>, invite: TransactionKey) {
        let under_way = self.by_key.get(&invite).copied();
        let (code, phrase) = match under_way {
            Some(_) => (200, "OK"),
            None => (481, "Call/Transaction Does Not Exist"),
        };
        let bytes = response(w, request, code, phrase).finish();
        w.ctx.out.after(After::nothing(), Inner::Answer { key: None, to: request.to, bytes });
        if let Some(id) = under_way {
            self.finish(w, id, Err(No::Cancelled));
        }
    }

    fn finish(&mut self, w: &mut World<'_, '_>, id: u64, end: Result<String, No>) {
        let Some(lookup) = self.under_way.remove(&id) else { return };
        self.by_key.remove(&lookup.key);
        let Ok(message) = parse(&lookup.bytes) else { return };
        let Lookup { from, to, key, .. } = lookup;
        let request = Request { from, to, key, bytes: &lookup.bytes, message: &message, replica: None };
        match end {
            Err(no) => refuse(w, &request, no, lookup.after),
            Ok(contact) => {
                let mut writer = response(w, &request, 302, "Moved Temporarily");
                let bytes = writer.header_fmt("Contact", format_args!("<{contact}>")).finish();
                w.event(Event::Redirected { imsi: lookup.imsi });
                // A 302 promises nothing and waits for no disk (promise 1).
                w.ctx.out.after(After::nothing(), Inner::Answer { key: None, to, bytes });
            }
        }
    }
}

/// Where a call goes: the binding written last, stale or not ("routing to a stale binding is the better choice", wire.md 1.4).
fn contact_of(record: &Record) -> Option<String> {
    record.newest().map(|(contact, ..)| contact.to_owned())
}

fn refuse(w: &mut World<'_, '_>, request: &Request<'_>, no: No, after: After) {
    let (code, phrase, cause, why) = no.answer();
    let mut writer = response(w, request, code, phrase);
    if let Some(cause) = cause {
        writer.header_fmt("Reason", format_args!("Q.850;cause={cause}"));
    }
    w.event(Event::RouteRefused { code, why });
    w.ctx.out.after(after, Inner::Answer { key: None, to: request.to, bytes: writer.finish() });
}

fn response(w: &World<'_, '_>, request: &Request<'_>, code: u16, phrase: &str) -> Writer {
    let source = (request.from.ip(), Some(request.from.port()));
    Writer::response_to(request.message, code, phrase, Some(&w.site.stateless_tag(request.message)), Some(source))
}
