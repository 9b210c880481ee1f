//! The calls that pass through us: which one a message is about, and which may begin.
//!
//! Knows: the calls by their id, their caller's Call-ID and From tag, and what has just ended. Does not know: what happens inside one
//! ([`super::call`]). Our own branch parameters and Call-IDs carry the call's id, so what comes back needs no table.
//! Limits: `calls.count_max`, twice as many for emergency calls; a call that has ended is remembered for 32 s, so that a late copy of its INVITE begins no second one.

use std::collections::{BTreeMap, VecDeque};
use std::net::SocketAddr;

use super::No;
use super::call::{Call, answer};
use super::dialplan;
use super::kept;
use super::leg::{PATIENCE, Party, Way};
use crate::event::{Drop, Event};
use crate::register::locate::{Finder, Located, Seeker, Want};
use crate::seam::CallAnswer;
use crate::sip::header::{HeaderName, NameAddr, Uri, values};
use crate::sip::parse::Message;
use crate::sip::write::Writer;
use crate::site::{Request, World};
use crate::store::{Batch, StoreError, StoreId};
use crate::time::Instant;

/// How the branch parameter of every request of a call begins; its id follows.
pub const BRANCH: &str = "z9hG4bK-c";

/// Who sent the INVITE.
#[derive(Clone, Copy, Debug)]
pub enum From {
    /// A listed base station.
    Station,
    /// Index into `Settings::trunks`.
    Trunk(usize),
}

/// Call-ID and From tag: what a base station's CANCEL still has in common with its INVITE (wire.md 3.2).
type CallerKey = (String, String);

#[derive(Default)]
pub struct Calls {
    all: BTreeMap<u64, Call>,
    by_caller: BTreeMap<CallerKey, u64>,
    /// What has ended, with the CSeq number of its INVITE.
    ended: BTreeMap<CallerKey, u32>,
    ended_order: VecDeque<(Instant, CallerKey)>,
    /// Records of what has ended that a full disk has kept: the next start would take them for calls that are up.
    unforgotten: VecDeque<u64>,
}

impl Calls {
    /// Takes up what an earlier run left behind.
    ///
    /// Errors: the node's own store cannot be read.
    pub fn start(w: &mut World<'_, '_>) -> Result<Calls, StoreError> {
        let (kept, unreadable) = kept::load(w.store(StoreId::Node)?)?;
        let mut calls = Calls::default();
        let count = kept.len();
        for one in kept {
            if let Some(call) = Call::resume(w, one) {
                calls.insert(w, call);
            }
        }
        if count + unreadable > 0 {
            w.event(Event::CallsResumed { count: count as u64, unreadable: unreadable as u64 });
        }
        Ok(calls)
    }

    pub fn under_way(&self) -> usize {
        self.all.len()
    }

    /// What has ended, and is remembered for late copies.
    pub fn remembered(&self) -> usize {
        self.ended.len() + self.ended_order.len() + self.by_caller.len() + self.unforgotten.len()
    }

    pub fn describe(&self, w: &World<'_, '_>) -> Vec<CallAnswer> {
        self.all.values().map(|call| call.describe(w)).collect()
    }

    /// Ends a call for the operator; `false` where there is none of that id.
    pub fn end(&mut self, w: &mut World<'_, '_>, id: &str) -> bool {
        let Ok(id) = u64::from_str_radix(id, 16) else { return false };
        if !self.all.contains_key(&id) {
            return false;
        }
        self.with(w, id, |call, w| call.end_by_hand(w));
        true
    }

    fn insert(&mut self, w: &mut World<'_, '_>, mut call: Call) {
        let leg = call.caller_leg();
        let key = (leg.call_id.clone(), leg.remote_tag.clone().unwrap_or_default());
        self.by_caller.insert(key, call.id);
        if call.is_over() {
            // Nothing to wait for: a call of an earlier run that nobody can be told of.
            if !call.forget(w) {
                self.unforgotten.push_back(call.id);
            }
        }
        call.arm(w);
        self.all.insert(call.id, call);
    }

    /// Lets something happen in a call, then arms its timer or forgets it.
    fn with(&mut self, w: &mut World<'_, '_>, id: u64, act: impl FnOnce(&mut Call, &mut World<'_, '_>)) {
        let Some(call) = self.all.get_mut(&id) else { return };
        act(call, w);
        if !call.is_over() {
            return call.arm(w);
        }
        if !call.forget(w) {
            self.unforgotten.push_back(id);
        }
        let leg = call.caller_leg();
        let key = (leg.call_id.clone(), leg.remote_tag.clone().unwrap_or_default());
        self.by_caller.remove(&key);
        self.ended.insert(key.clone(), call.caller_cseq());
        self.ended_order.push_back((w.ctx.now, key));
        if self.ended_order.len() > w.site.settings.registrar.transaction_count_max
            && let Some((_, oldest)) = self.ended_order.pop_front()
        {
            self.ended.remove(&oldest);
        }
        self.all.remove(&id);
    }

    /// Forgets what has ended long enough ago.
    pub fn housekeeping(&mut self, w: &mut World<'_, '_>) {
        while let Some(id) = self.unforgotten.pop_front() {
            if w.node_write(kept::delete(Batch::default(), id)).is_err() {
                self.unforgotten.push_front(id);
                break;
            }
        }
        let now = w.ctx.now;
        while let Some((since, key)) = self.ended_order.front() {
            if now - *since < PATIENCE {
                return;
            }
            self.ended.remove(key);
            self.ended_order.pop_front();
        }
    }

    // --- Requests ---

    /// An INVITE outside of a dialog.
    pub fn invite(&mut self, w: &mut World<'_, '_>, finder: &mut Finder<'_>, by: From, request: &Request<'_>) {
        let message = request.message;
        let key = caller_key(message);
        if let Some(id) = self.by_caller.get(&key).copied() {
            // A higher number is no copy, but a base station never sends one; the first call must not be forked all the same.
            return self.with(w, id, |call, w| call.copy(w));
        }
        if self.ended.get(&key).is_some_and(|cseq| *cseq >= message.cseq().0) {
            return w.event(Event::Retransmission { from: request.from });
        }
        if let Some(id) = self.begin(w, finder, by, request) {
            self.by_caller.insert(key, id);
            // It may be over already: a refusal waits for its ACK all the same, so it is not.
            self.with(w, id, |_, _| {});
        }
    }

    fn begin(
        &mut self,
        w: &mut World<'_, '_>,
        finder: &mut Finder<'_>,
        by: From,
        request: &Request<'_>,
    ) -> Option<u64> {
        let message = request.message;
        let is_emergency = dialplan::is_emergency(&w.site.settings, &super::call::dialled(message));
        let count_max = w.site.settings.calls.count_max * if is_emergency { 2 } else { 1 };
        if self.all.len() >= count_max {
            overload(w, request);
            return None;
        }
        let user = message.from().ok().and_then(|from| Uri::parse(from.uri).ok()).and_then(|uri| uri.user);
        let user = user.unwrap_or_default();
        let subscriber = w.site.resolve(user).cloned();
        let (party, number) = match by {
            From::Trunk(index) => {
                let trunk = w.site.settings.trunks.get(index)?;
                (Party::Trunk { name: trunk.name.clone() }, asserted(message).unwrap_or(user).to_owned())
            }
            From::Station => {
                let imsi = subscriber.as_ref().map(|subscriber| subscriber.imsi.as_str().to_owned());
                let number = subscriber.as_ref().and_then(|subscriber| subscriber.msisdn.first());
                let number = number.map(ToString::to_string).unwrap_or_else(|| match &imsi {
                    Some(imsi) => format!("IMSI{imsi}"),
                    None => user.to_owned(),
                });
                (Party::Phone { imsi, cell: None }, number)
            }
        };
        // Forty-eight dice: never one that an earlier run used.
        let id = w.ctx.rng.u64() >> 16;
        let mut call = Call::begin(w, id, party, number, request)?;
        if message.max_forwards() == Some(Ok(0)) {
            call.refuse_no(w, No::TooManyHops);
        } else if let (From::Trunk(_), Some(_)) = (by, message.header(HeaderName::Require)) {
            call.refuse_no(w, No::Extension);
        } else {
            match (by, subscriber) {
                (From::Trunk(_), _) => call.route(w, finder),
                // Emergency first: bound or not, known or not.
                (From::Station, _) if is_emergency => call.route(w, finder),
                (From::Station, None) => call.refuse_no(w, No::NotBoundThere),
                (From::Station, Some(subscriber)) if subscriber.barred => call.refuse_no(w, No::Barred),
                (From::Station, Some(subscriber)) => {
                    let want = Want::BoundAt(request.from.ip());
                    finder.seek(w, subscriber.imsi, Seeker::Caller(id), want, None);
                }
            }
        }
        self.all.insert(id, call);
        Some(id)
    }

    /// A CANCEL: matched by Call-ID and From tag, because a base station's has a new branch, another number and a To tag. `false`
    /// where it is of none of our calls.
    pub fn cancel(&mut self, w: &mut World<'_, '_>, inside: &Request<'_>) -> bool {
        let Some(id) = self.by_caller.get(&caller_key(inside.message)).copied() else { return false };
        self.with(w, id, |call, w| call.cancelled(w, inside));
        true
    }

    /// An ACK; `false` where it is of none of our calls.
    pub fn ack(&mut self, w: &mut World<'_, '_>, message: &Message<'_>) -> bool {
        let Some(id) = self.find(message) else { return false };
        self.with(w, id, |call, w| call.acked(w, message));
        true
    }

    /// A request inside a dialog; `false` where we have no such dialog.
    pub fn inside(&mut self, w: &mut World<'_, '_>, finder: &mut Finder<'_>, inside: &Request<'_>) -> bool {
        let Some(id) = self.find(inside.message) else { return false };
        self.with(w, id, |call, w| match (inside.message.cseq().1, call.side_of(inside.message)) {
            ("BYE", _) => call.bye_came(w, finder, inside),
            (_, Some(side)) => call.inside(w, side, inside),
            (_, None) => answer(w, inside, 481, "Call/Transaction Does Not Exist"),
        });
        true
    }

    /// The call that a request belongs to: by its caller's Call-ID and tag, or by the id in a Call-ID that we gave.
    fn find(&self, message: &Message<'_>) -> Option<u64> {
        if let Some(id) = self.by_caller.get(&caller_key(message)) {
            return Some(*id);
        }
        let id = message.call_id().split_once('-').and_then(|(id, _)| u64::from_str_radix(id, 16).ok())?;
        let call = self.all.get(&id)?;
        (call.side_of(message).is_some() || call.is_early(message)).then_some(id)
    }

    // --- Answers, time, disk ---

    /// An answer to a request of a call; its branch begins with [`BRANCH`].
    pub fn response(
        &mut self,
        w: &mut World<'_, '_>,
        finder: &mut Finder<'_>,
        from: SocketAddr,
        message: &Message<'_>,
    ) {
        let branch = message.via().ok().and_then(|via| via.branch).unwrap_or_default();
        let id = branch.strip_prefix(BRANCH).and_then(|rest| rest.split_once('.')).map(|(id, _)| id);
        let id = id.and_then(|id| u64::from_str_radix(id, 16).ok()).unwrap_or_default();
        let (_, method) = message.cseq();
        if !self.all.contains_key(&id) {
            if message.code().is_some_and(|code| (200..300).contains(&code)) && method == "INVITE" {
                return end_stray(w, from, message);
            }
            if message.code().is_some_and(|code| (101..200).contains(&code)) && method == "INVITE" {
                return cancel_stray(w, from, message);
            }
            return w.event(Event::DatagramDropped { from, why: Drop::ResponseUnknown });
        }
        self.with(w, id, |call, w| match method {
            // It has its INVITE's branch.
            "CANCEL" if message.code().is_some_and(|code| code >= 200) => call.cancel_answered(branch),
            "CANCEL" => {}
            _ => call.response(w, finder, from, message, branch),
        });
    }

    pub fn located(&mut self, w: &mut World<'_, '_>, finder: &mut Finder<'_>, seeker: Seeker, located: Located) {
        match seeker {
            Seeker::Caller(id) => self.with(w, id, |call, w| call.caller_located(w, finder, located)),
            Seeker::Callee(id) => self.with(w, id, |call, w| call.callee_located(w, finder, located)),
            _ => {}
        }
    }

    pub fn timeout(&mut self, w: &mut World<'_, '_>, finder: &mut Finder<'_>, id: u64) {
        self.with(w, id, |call, w| call.timeout(w, finder));
    }

    /// The record of an answered call is on the disk.
    pub fn kept(&mut self, w: &mut World<'_, '_>, id: u64) {
        self.with(w, id, |call, w| call.kept(w));
    }
}

/// A *no* that nothing is kept of: a copy of the INVITE gets it again.
fn overload(w: &mut World<'_, '_>, request: &Request<'_>) {
    let (code, phrase, cause, why) = No::Overload.answer();
    let mut writer = request.stateless_response(w.site, code, phrase);
    if let Some(cause) = cause {
        writer.header_fmt("Reason", format_args!("Q.850;cause={cause}"));
    }
    w.event(Event::RouteRefused { code, why });
    Way::of(request.to, request.from).send(w, writer.finish());
}

fn caller_key(message: &Message<'_>) -> CallerKey {
    let tag = message.from().ok().and_then(|from| from.tag()).unwrap_or_default();
    (message.call_id().to_owned(), tag.to_owned())
}

/// The number that a trunk vouches for.
fn asserted<'a>(message: &Message<'a>) -> Option<&'a str> {
    let value = message.headers_of(HeaderName::PAssertedIdentity).flat_map(values).next()?;
    Uri::parse(NameAddr::parse(value).ok()?.uri).ok()?.user
}

/// A 200 of a base station to an INVITE of a call that is no more, perhaps of an earlier run: acknowledged and hung up, statelessly;
/// should it come again, it is told again.
pub(super) fn end_stray(w: &mut World<'_, '_>, from: SocketAddr, message: &Message<'_>) {
    let Some(way) = Way::to(w.site, from).filter(|_| w.site.is_listed(from.ip())) else {
        return w.event(Event::DatagramDropped { from, why: Drop::ResponseUnknown });
    };
    let contact = message.headers_of(HeaderName::Contact).flat_map(values).next();
    let contact = contact.and_then(|contact| NameAddr::parse(contact).ok()).map(|contact| contact.uri.to_owned());
    let (Some(sender), Some(to)) = (message.header(HeaderName::From), message.header(HeaderName::To)) else { return };
    let uri = contact.unwrap_or_else(|| format!("sip:{from}"));
    let own = super::leg::own_address(w.site);
    w.event(Event::StrayAnswer { from });
    let (number, _) = message.cseq();
    for (method, number) in [("ACK", number), ("BYE", number.saturating_add(1))] {
        let branch = format!("{BRANCH}0.0.{:016x}", w.ctx.rng.u64());
        let mut writer = Writer::request(method, &uri);
        writer
            .header_fmt("Via", format_args!("SIP/2.0/UDP {own};branch={branch}"))
            .header("From", sender)
            .header("To", to)
            .header("Call-ID", message.call_id())
            .header_fmt("CSeq", format_args!("{number} {method}"))
            .header("Max-Forwards", "70");
        way.send(w, writer.finish());
    }
}

/// A phone rings for a call that is no more: a power cut took what was known of it, or a late copy of the INVITE paged it anew. CANCEL,
/// statelessly, by the Call-ID and the branch that the answer echoes; should it ring on, it is told again.
fn cancel_stray(w: &mut World<'_, '_>, from: SocketAddr, message: &Message<'_>) {
    let Some(way) = Way::to(w.site, from).filter(|_| w.site.is_listed(from.ip())) else {
        return w.event(Event::DatagramDropped { from, why: Drop::ResponseUnknown });
    };
    let branch = message.via().ok().and_then(|via| via.branch).unwrap_or_default();
    let (Some(sender), Ok(to)) = (message.header(HeaderName::From), message.to()) else { return };
    let own = super::leg::own_address(w.site);
    w.event(Event::StrayAnswer { from });
    let mut writer = Writer::request("CANCEL", to.uri);
    writer
        .header_fmt("Via", format_args!("SIP/2.0/UDP {own};branch={branch}"))
        .header("From", sender)
        .header_fmt("To", format_args!("<{}>", to.uri))
        .header("Call-ID", message.call_id())
        .header_fmt("CSeq", format_args!("{} CANCEL", message.cseq().0))
        .header("Max-Forwards", "70");
    way.send(w, writer.finish());
}

/// A *no* to a request inside a dialog that we do not have.
pub fn no_such_dialog(w: &mut World<'_, '_>, inside: &Request<'_>) {
    answer(w, inside, 481, "Call/Transaction Does Not Exist");
}
