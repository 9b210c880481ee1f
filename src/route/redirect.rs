//! An INVITE from a trunk is answered 302 with the contact that one replica has.
//!
//! Knows: the lookups under way. Does not know: how replicas are asked ([`crate::register::locate`]). Stateless towards the trunk
//! (RFC 3261 §8.2.7): the tag is computed, the 302 is not repeated, the ACK is dropped.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::net::SocketAddr;

use super::No;
use super::call::dialled;
use super::leg::{PATIENCE, address_of};
use crate::event::Event;
use crate::ident::Imsi;
use crate::register::locate::{Finder, Located, Seeker, Want};
use crate::seam::{After, CallOutcome, CallRecord, Inner, Output, ReplyTo, TransactionKey};
use crate::sip::header::Uri;
use crate::sip::parse::parse;
use crate::site::{Request, World};
use crate::time::Instant;

/// The lookups under way.
#[derive(Default)]
pub struct Redirect {
    under_way: BTreeMap<u64, Lookup>,
    by_key: BTreeMap<TransactionKey, u64>,
    count: u64,
    /// The INVITEs that have their record, and since when; at most `transaction_count_max`, the oldest forgotten first.
    recorded: BTreeSet<TransactionKey>,
    recorded_order: VecDeque<(Instant, TransactionKey)>,
}

struct Lookup {
    bytes: Vec<u8>,
    from: SocketAddr,
    to: ReplyTo,
    key: TransactionKey,
    imsi: Imsi,
    started_ms: u64,
}

impl Redirect {
    pub fn under_way(&self) -> usize {
        self.under_way.len()
    }

    /// An INVITE from a trunk; `first` is the replica whose own port it came to, which is read first.
    pub fn invite(
        &mut self,
        w: &mut World<'_, '_>,
        finder: &mut Finder<'_>,
        request: &Request<'_>,
        first: Option<usize>,
    ) {
        // "Copies of a lookup under way are absorbed" (DESIGN section 9).
        if self.by_key.contains_key(&request.key) {
            return w.event(Event::Retransmission { from: request.from });
        }
        if request.message.max_forwards() == Some(Ok(0)) {
            return self.refuse(w, request, No::TooManyHops);
        }
        let user =
            request.message.uri().and_then(|uri| Uri::parse(uri).ok()).and_then(|uri| uri.user).unwrap_or_default();
        let Some(subscriber) = w.site.resolve(user) else {
            return self.refuse(w, request, No::UnknownNumber);
        };
        let (imsi, barred) = (subscriber.imsi, subscriber.barred);
        if barred {
            return self.refuse(w, request, No::Barred);
        }
        if self.under_way.len() >= w.site.settings.registrar.transaction_count_max {
            return self.refuse(w, request, No::Overload);
        }
        self.count += 1;
        let id = self.count;
        let (bytes, Request { from, to, key, .. }) = (request.bytes.to_vec(), *request);
        self.under_way.insert(id, Lookup { bytes, from, to, key, imsi, started_ms: w.wall().ms });
        self.by_key.insert(key, id);
        finder.seek(w, imsi, Seeker::Redirect(id), Want::Contact, first);
    }

    /// Where the phone is.
    pub fn located(&mut self, w: &mut World<'_, '_>, id: u64, located: Located) {
        self.finish(
            w,
            id,
            match located {
                Located::Found { contact, .. } => Ok(contact),
                Located::Away => Err(No::Away),
                Located::TooFew => Err(No::TooFew),
            },
        );
    }

    /// CANCEL: 200, and 487 to the INVITE while its lookup is under way; else there is nothing to cancel.
    pub fn cancel(&mut self, w: &mut World<'_, '_>, request: &Request<'_>, invite: TransactionKey) {
        let under_way = self.by_key.get(&invite).copied();
        let (code, phrase) = match under_way {
            Some(_) => (200, "OK"),
            None => (481, "Call/Transaction Does Not Exist"),
        };
        let bytes = request.stateless_response(w.site, code, phrase).finish();
        w.ctx.out.after(After::nothing(), Inner::Answer { key: None, to: request.to, bytes });
        if let Some(id) = under_way {
            self.finish(w, id, Err(No::Cancelled));
        }
    }

    fn finish(&mut self, w: &mut World<'_, '_>, id: u64, end: Result<String, No>) {
        let Some(lookup) = self.under_way.remove(&id) else { return };
        self.by_key.remove(&lookup.key);
        let Ok(message) = parse(&lookup.bytes) else { return };
        let Lookup { from, to, key, imsi, started_ms, .. } = lookup;
        let request = Request { from, to, key, bytes: &lookup.bytes, message: &message };
        match end {
            Err(no) => self.refuse(w, &request, no),
            Ok(contact) => {
                let mut writer = request.stateless_response(w.site, 302, "Moved Temporarily");
                let bytes = writer.header_fmt("Contact", format_args!("<{contact}>")).finish();
                w.event(Event::Redirected { imsi });
                let phone = Some((imsi, contact.as_str()));
                self.record(w, &request, started_ms, phone, (302, 0, "what became of it is not known here"));
                // A 302 promises nothing and waits for no disk (promise 1).
                w.ctx.out.after(After::nothing(), Inner::Answer { key: None, to, bytes });
            }
        }
    }

    fn refuse(&mut self, w: &mut World<'_, '_>, request: &Request<'_>, no: No) {
        let (code, phrase, cause, why) = no.answer();
        let mut writer = request.stateless_response(w.site, code, phrase);
        if let Some(cause) = cause {
            writer.header_fmt("Reason", format_args!("Q.850;cause={cause}"));
        }
        w.event(Event::RouteRefused { code, why });
        self.record(w, request, w.wall().ms, None, (code, cause.unwrap_or(0), why));
        w.ctx.out.after(After::nothing(), Inner::Answer { key: None, to: request.to, bytes: writer.finish() });
    }

    /// One record per call: a copy of an INVITE that was answered is answered again, and not recorded again.
    fn record(
        &mut self,
        w: &mut World<'_, '_>,
        request: &Request<'_>,
        started_ms: u64,
        phone: Option<(Imsi, &str)>,
        (code, cause, why): (u16, u8, &str),
    ) {
        if !self.recorded.insert(request.key) {
            return;
        }
        self.recorded_order.push_back((w.ctx.now, request.key));
        if self.recorded_order.len() > w.site.settings.registrar.transaction_count_max
            && let Some((_, oldest)) = self.recorded_order.pop_front()
        {
            self.recorded.remove(&oldest);
        }
        let settings = &w.site.settings;
        let trunk = settings.trunk_at(request.from.ip()).map(|trunk| trunk.name.clone());
        let station = phone.and_then(|(_, contact)| address_of(contact)).map(|address| w.site.station_name(address));
        let caller = request.message.from().ok().and_then(|from| Uri::parse(from.uri).ok()).and_then(|uri| uri.user);
        let record = CallRecord {
            id: w.site.stateless_tag(request.message).chars().take(12).collect(),
            started_ms,
            answered_ms: None,
            ended_ms: w.wall().ms,
            from: caller.unwrap_or_default().to_owned(),
            to: dialled(request.message),
            from_imsi: None,
            to_imsi: phone.map(|(imsi, _)| imsi),
            from_cell: trunk.unwrap_or_else(|| request.from.to_string()),
            to_cell: station.unwrap_or_default(),
            outcome: match code {
                302 => CallOutcome::Redirected,
                487 => CallOutcome::Cancelled,
                _ => CallOutcome::Refused,
            },
            code,
            cause,
            ended_by: if code == 487 { "caller" } else { "us" },
            why: why.to_owned(),
        };
        w.ctx.out.send(Output::CallRecord(Box::new(record)));
    }

    /// Forgets what was recorded long enough ago.
    pub fn housekeeping(&mut self, now: Instant) {
        while let Some((since, key)) = self.recorded_order.front() {
            if now - *since < PATIENCE {
                return;
            }
            self.recorded.remove(key);
            self.recorded_order.pop_front();
        }
    }
}
