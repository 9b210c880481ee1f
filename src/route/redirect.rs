//! An INVITE from a trunk is answered 302 with the contact that one replica has.
//!
//! Knows: the lookups under way. Does not know: how replicas are asked ([`crate::register::locate`]). Stateless towards the trunk
//! (RFC 3261 §8.2.7): the tag is computed, the 302 is not repeated, the ACK is dropped.

use std::collections::BTreeMap;
use std::net::SocketAddr;

use super::No;
use crate::event::Event;
use crate::ident::Imsi;
use crate::register::locate::{Finder, Located, Seeker, Want};
use crate::seam::{After, Inner, ReplyTo, TransactionKey};
use crate::sip::header::Uri;
use crate::sip::parse::{Message, parse};
use crate::sip::write::Writer;
use crate::site::World;

/// An INVITE as it came in.
#[derive(Clone, Copy)]
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
pub struct Redirect {
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
}

impl Redirect {
    pub fn under_way(&self) -> usize {
        self.under_way.len()
    }

    /// An INVITE from a trunk.
    pub fn invite(&mut self, w: &mut World<'_, '_>, finder: &mut Finder<'_>, request: &Request<'_>) {
        // "Copies of a lookup under way are absorbed" (DESIGN section 9).
        if self.by_key.contains_key(&request.key) {
            return w.event(Event::Retransmission { from: request.from });
        }
        if request.message.max_forwards() == Some(Ok(0)) {
            return refuse(w, request, No::TooManyHops);
        }
        let user =
            request.message.uri().and_then(|uri| Uri::parse(uri).ok()).and_then(|uri| uri.user).unwrap_or_default();
        let Some(subscriber) = w.site.resolve(user) else {
            return refuse(w, request, No::UnknownNumber);
        };
        let (imsi, barred) = (subscriber.imsi, subscriber.barred);
        if barred {
            return refuse(w, request, No::Barred);
        }
        if self.under_way.len() >= w.site.settings.registrar.transaction_count_max {
            return refuse(w, request, No::Overload);
        }
        self.count += 1;
        let id = self.count;
        let (bytes, Request { from, to, key, .. }) = (request.bytes.to_vec(), *request);
        self.under_way.insert(id, Lookup { bytes, from, to, key, imsi });
        self.by_key.insert(key, id);
        // The replica whose port it came to is read first.
        finder.seek(w, imsi, Seeker::Redirect(id), Want::Contact, request.replica);
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
            Err(no) => refuse(w, &request, no),
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

fn refuse(w: &mut World<'_, '_>, request: &Request<'_>, no: No) {
    let (code, phrase, cause, why) = no.answer();
    let mut writer = response(w, request, code, phrase);
    if let Some(cause) = cause {
        writer.header_fmt("Reason", format_args!("Q.850;cause={cause}"));
    }
    w.event(Event::RouteRefused { code, why });
    w.ctx.out.after(After::nothing(), Inner::Answer { key: None, to: request.to, bytes: writer.finish() });
}

fn response(w: &World<'_, '_>, request: &Request<'_>, code: u16, phrase: &str) -> Writer {
    let source = (request.from.ip(), Some(request.from.port()));
    Writer::response_to(request.message, code, phrase, Some(&w.site.stateless_tag(request.message)), Some(source))
}
