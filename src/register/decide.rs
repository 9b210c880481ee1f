//! The decision on one REGISTER: a refusal, or an outcome. Pure: facts in, record out.
//!
//! A REGISTER is decided once, at the front end, against the newest record it can have; what is replicated is the outcome.
//! Source: RFC 3261 §10.3 steps 6 to 8; wire.md 1.3 (detach), 8 (moves); DESIGN promise 3.

use std::net::SocketAddr;

use super::merge::{Binding, Entry, Record};
use crate::config::Registrar;
use crate::gsm::form::TextForm;
use crate::ident::CellId;
use crate::time::Stamp;

/// What a REGISTER asks for, already believed.
#[derive(Clone, Debug)]
pub struct Ask {
    pub contacts: Contacts,
    pub call_id: String,
    pub cseq: u32,
    pub source: SocketAddr,
    pub cell: Option<CellId>,
    pub path: Vec<String>,
    /// A base station speaks: one binding per IMSI, no minimum expiry. A SIP phone adds.
    pub base_station: bool,
}

#[derive(Clone, Debug)]
pub enum Contacts {
    /// Asks what is bound.
    None,
    /// `Contact: *` with `Expires: 0`: everything goes.
    All,
    Some(Vec<AskedContact>),
}

/// One Contact of a REGISTER.
#[derive(Clone, Debug)]
pub struct AskedContact {
    /// As received, byte for byte.
    pub uri: String,
    /// Where one was asked.
    pub expires_s: Option<u32>,
    pub instance: Option<String>,
    pub texts: TextForm,
}

/// What is known when it is decided.
#[derive(Clone, Copy, Debug)]
pub struct Facts<'a> {
    pub old: &'a Record,
    pub now_ms: u64,
    /// The stamp that the write will have.
    pub stamp: Stamp,
    pub limits: &'a Registrar,
}

#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Refusal {
    /// 423 with Min-Expires.
    IntervalTooBrief { expires_s_min: u32 },
    /// The same Call-ID with a smaller CSeq than that of the binding.
    OutOfOrder,
    /// A base station named more than one contact in one REGISTER, or a SIP phone more than may be bound at all.
    TooManyContacts,
}

#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Outcome {
    /// Nothing is written: the bindings are told as they are.
    Told,
    /// A detach that names another contact than the binding's: answered 200, nothing is changed.
    DetachIgnored,
    /// `delta` is what this REGISTER changes, to be merged into every replica.
    Write { delta: Record, kind: Kind },
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Kind {
    Bound { moved: bool },
    Removed,
}

/// Decides one REGISTER.
///
/// Shape:  the delta's entries all have `facts.stamp`; merged into `facts.old` it leaves at most `contacts_per_aor_max`
///         bindings, the displaced ones (oldest first) standing in it as tombstones.
/// Units:  `now_ms` in milliseconds since 1970; `*_s` in seconds.
/// Errors: [`Refusal`]; on any, nothing is to be changed.
/// Tests:  tests/decide.rs
pub fn decide_register(ask: &Ask, facts: Facts<'_>) -> Result<Outcome, Refusal> {
    let Facts { old, now_ms, stamp, limits } = facts;
    let asked = match &ask.contacts {
        Contacts::None => return Ok(Outcome::Told),
        Contacts::All => {
            in_order(ask, old)?;
            let delta = Record { clear_stamp: stamp, ..Record::default() };
            return Ok(Outcome::Write { delta: tombstones_for_all(delta, old, stamp), kind: Kind::Removed });
        }
        Contacts::Some(asked) => asked,
    };
    if ask.base_station && asked.len() != 1 || asked.len() > limits.contacts_per_aor_max.max(1) {
        return Err(Refusal::TooManyContacts);
    }
    in_order(ask, old)?;
    let mut delta = Record::default();
    let mut kind = Kind::Removed;
    for AskedContact { uri: contact, expires_s, instance, texts } in asked {
        let expires_s = expires(ask, *expires_s, limits)?;
        if expires_s == 0 {
            // A detach from the old cell, arriving after the registration at the new one, must not remove the new binding: it is
            // obeyed only if its Contact equals the stored one (wire.md 8). A base station's is not authenticated, so it also
            // has to come from the one that the phone registered at (wire.md 10, point 8).
            let bound = old.contacts.get(contact).and_then(|entry| entry.binding.as_ref());
            if bound.is_some_and(|bound| !ask.base_station || bound.source.ip() == ask.source.ip()) {
                delta.contacts.insert(contact.clone(), Entry { stamp, binding: None });
            }
            continue;
        }
        let newest = old.newest();
        let moved = newest.is_some_and(|(held, ..)| held != contact);
        let (since_ms, previous) = match newest {
            Some((held, _, binding)) if held == contact => (binding.since_ms, binding.previous.clone()),
            Some((held, ..)) if ask.base_station => (now_ms, Some(held.to_owned())),
            _ => (
                old.contacts.get(contact).and_then(|entry| entry.binding.as_ref()).map_or(now_ms, |b| b.since_ms),
                None,
            ),
        };
        let binding = Binding {
            expires_at_ms: now_ms + u64::from(expires_s) * 1000,
            since_ms,
            call_id: ask.call_id.clone(),
            cseq: ask.cseq,
            source: ask.source,
            cell: ask.cell,
            path: ask.path.clone(),
            instance: instance.clone(),
            previous,
            texts: *texts,
        };
        delta.contacts.insert(contact.clone(), Entry { stamp, binding: Some(binding) });
        kind = Kind::Bound { moved };
        if ask.base_station {
            delta.clear_stamp = stamp;
        }
    }
    if delta == Record::default() {
        return Ok(Outcome::DetachIgnored);
    }
    if !ask.base_station {
        displace(&mut delta, old, stamp, limits.contacts_per_aor_max);
    }
    Ok(Outcome::Write { delta, kind })
}

/// "If they are the same, the registrar compares the CSeq value. If the value is higher than that of the existing binding, it
/// MUST update or remove the binding as above. If not, the update MUST be aborted and the request fails." (RFC 3261 §10.3
/// step 7), for this AOR alone: a base station has one Call-ID and one counter for all its IMSIs. An equal CSeq is a copy
/// whose answer was forgotten, and is no later than itself: it is taken.
fn in_order(ask: &Ask, old: &Record) -> Result<(), Refusal> {
    let late = old.bindings().any(|(_, _, binding)| binding.call_id == ask.call_id && ask.cseq < binding.cseq);
    if late { Err(Refusal::OutOfOrder) } else { Ok(()) }
}

/// The granted expiry.
fn expires(ask: &Ask, asked_s: Option<u32>, limits: &Registrar) -> Result<u32, Refusal> {
    let asked_s = asked_s.unwrap_or(limits.expires_s_default);
    // "…greater than zero AND smaller than one hour AND less than a registrar-configured minimum, the registrar MAY reject
    // the registration with a response of 423" (RFC 3261 §10.3). Base stations are exempt: they cannot read a 423.
    if !ask.base_station && 0 < asked_s && asked_s < 3600 && asked_s < limits.expires_s_min {
        return Err(Refusal::IntervalTooBrief { expires_s_min: limits.expires_s_min });
    }
    Ok(asked_s.min(limits.expires_s_max))
}

/// Each binding that `*` removes is told apart by a tombstone, so that a binding of the same contact with a smaller stamp,
/// which a slower replica still sends about, stays dead.
fn tombstones_for_all(mut delta: Record, old: &Record, stamp: Stamp) -> Record {
    for (contact, ..) in old.bindings() {
        delta.contacts.insert(contact.to_owned(), Entry { stamp, binding: None });
    }
    delta
}

/// The limit acts here, when a REGISTER is decided: the oldest bindings beyond it become tombstones of this write.
fn displace(delta: &mut Record, old: &Record, stamp: Stamp, contacts_max: usize) {
    let bound = delta.contacts.values().filter(|entry| entry.binding.is_some()).count();
    let mut kept: Vec<(&str, Stamp)> = old
        .bindings()
        .filter(|(contact, ..)| !delta.contacts.contains_key(*contact))
        .map(|(contact, stamp, _)| (contact, stamp))
        .collect();
    kept.sort_by_key(|(contact, stamp)| (*stamp, contact.to_string()));
    let excess = (bound + kept.len()).saturating_sub(contacts_max);
    let displaced: Vec<String> = kept.into_iter().take(excess).map(|(contact, _)| contact.to_owned()).collect();
    for contact in displaced {
        delta.contacts.insert(contact, Entry { stamp, binding: None });
    }
}
