//! One call through us: two dialogs, and what has to happen between them.
//!
//! Knows: the state of this call, its legs, its deadlines. Does not know: other calls ([`super::calls`]), or how replicas are asked.
//! Towards base stations a back-to-back user agent, because OpenBTS follows no 302, matches by Call-ID and CSeq alone, sends ACK and
//! BYE to the Contact's host with the dialled user, and never a 487 (wire.md 3). SDP passes untouched; RTP never comes here.
//!
//! | state | waits for | and no longer than |
//! |---|---|---|
//! | `Checking` | whether the caller is where the INVITE came from | `read_deadline` per replica |
//! | `Locating` | where the called phone is | `read_deadline` per replica |
//! | `Ringing` | an answer of one of the branches | `ring_group` until it rings, `setup_max` in all |
//! | `Answering` | the record on the disk | `setup_max` in all: a disk may hang |
//! | `Up` | BYE | `duration_max`; 32 s for the first ACK |
//! | `Ending` | ACK, answers to BYE and CANCEL | 32 s; 5 s for a cancelled branch |
//!
//! | file | its part |
//! |---|---|
//! | here | the state, what comes back to us, the clock |
//! | [`ringing`] | finding the called side |
//! | [`talking`] | from the answer to the BYE |
//! | [`ending`] | how it ends |
//! | [`keeping`] | what is kept, told and recorded of it |

mod ending;
mod keeping;
mod ringing;
mod talking;

use std::collections::VecDeque;
use std::net::SocketAddr;
use std::time::Duration;

use super::No;
use super::dialplan::{self, Dialled};
use super::kept::{self, Kept, KeptBranch, KeptState};
use super::leg::{KeptLeg, Leg, PATIENCE, Party, Resend, Way, address_of, own_address};
use crate::event::Event;
use crate::ident::Imsi;
use crate::register::locate::{Finder, Located, Seeker, Want};
use crate::register::merge::Record;
use crate::seam::{After, CallAnswer, CallOutcome, CallRecord, Inner, Output, ReplyTo, Timer, TransactionKey};
use crate::sip::digest;
use crate::sip::header::{HeaderName, Uri, values};
use crate::sip::parse::{Message, StartLine, parse};
use crate::sip::write::{DATAGRAM_BYTES_MAX, Writer};
use crate::site::{Request, World};
use crate::store::{Batch, StoreError, StoreId};
use crate::time::Instant;

/// A cancelled branch is buried after this: a base station sends no 487 (wire.md 3.3).
const BURIAL: Duration = Duration::from_secs(5);
/// While a phone rings its base station is asked so often whether it was picked up.
const RING_POLL: Duration = Duration::from_secs(4);
/// A trunk that has not said a word in this time is silent: the next one is tried.
const TRUNK_SILENCE: Duration = Duration::from_secs(5);
/// One side has hung up before the other had sent its ACK: that is waited for so long ("The callee's UA MUST NOT send a BYE on a
/// confirmed dialog until it has received an ACK for its 2xx response or until the server transaction times out", RFC 3261 §15;
/// a base station's comes about 2 s late).
const ACK_GRACE: Duration = Duration::from_secs(4);
/// How long a base station may take to answer a probe, and how often it may be silent.
const PROBE_PATIENCE: Duration = Duration::from_secs(8);
const PROBES_MISSED_MAX: u8 = 2;
/// A silent one is asked again after this.
const PROBE_AGAIN: Duration = Duration::from_secs(30);
/// Requests of ours that may be under way in one call; more keys than these nobody presses at once.
const ASKS_MAX: usize = 32;
/// What we ask of a trunk for the refreshing of a session (RFC 4028 §7.1); it refreshes, we watch.
const SESSION_S: u64 = 1800;

pub(super) const ALLOW: &str = "INVITE, ACK, CANCEL, BYE, OPTIONS, INFO, UPDATE";

/// A *no* to the caller, whether ours or the far side's: code, phrase and `Reason` as they decide the cause at the phone.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Refusal {
    pub code: u16,
    pub phrase: String,
    pub reason: Option<String>,
    pub why: String,
}

impl Refusal {
    /// Ours: the causes of DESIGN section 6.
    pub fn of(no: No, to_phone: bool) -> Refusal {
        let (code, phrase, cause, why) = no.answer();
        // "known, away: 480, cause 20 to trunks, 18 to base stations".
        let cause = if no == No::Away && to_phone { Some(18) } else { cause };
        Refusal {
            code,
            phrase: phrase.into(),
            reason: cause.map(|cause| format!("Q.850;cause={cause}")),
            why: why.into(),
        }
    }

    /// The far side's, unchanged: the phrase wins over the code at an OpenBTS, then `Reason` (wire.md 2).
    fn passed_on(message: &Message<'_>, code: u16) -> Refusal {
        let phrase = match message.start {
            StartLine::Response { reason, .. } => reason.to_owned(),
            StartLine::Request { .. } => String::new(),
        };
        let reason = message.header(HeaderName::Reason).map(str::to_owned);
        Refusal { code, why: format!("the far side says {code} {phrase}"), phrase, reason }
    }

    fn cause(&self) -> u8 {
        self.reason.as_deref().map_or(0, cause_of)
    }
}

/// The cause of Q.850 in a `Reason`; 0 where there is none.
fn cause_of(reason: &str) -> u8 {
    let cause = reason.split(';').find_map(|part| part.trim().strip_prefix("cause="));
    cause.and_then(|cause| cause.trim().parse().ok()).unwrap_or(0)
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum State {
    Checking,
    Locating,
    Ringing,
    Answering,
    Up,
    Ending,
}

/// Which leg.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Side {
    Caller,
    Called,
}

/// The side that called us: a dialog in which we are the server.
struct Caller {
    leg: Leg,
    invite: Vec<u8>,
    from: SocketAddr,
    reply: ReplyTo,
    /// What was answered last: a copy of the INVITE gets it again.
    last: Vec<u8>,
    /// A final answer that waits for its ACK.
    resend: Option<Resend>,
}

/// Where the call goes, and what is left to try.
enum Plan {
    Unknown,
    Phone {
        imsi: Imsi,
        /// Addresses of base stations that have been asked.
        tried: Vec<SocketAddr>,
        /// Groups of contacts still to be paged.
        groups: VecDeque<Vec<String>>,
        /// The replicas have been read again.
        reread: bool,
    },
    Trunks {
        left: VecDeque<usize>,
        emergency: bool,
    },
}

/// One INVITE of ours.
struct Branch {
    leg: Leg,
    uri: String,
    branch: String,
    bytes: Vec<u8>,
    /// `None` once something was heard.
    resend: Option<Resend>,
    rings: bool,
    /// Index of the trunk, whose challenge may be answered once.
    trunk: Option<usize>,
    challenged: bool,
    /// It is being cancelled, and forgotten at this time.
    buried_at: Option<Instant>,
    cancelled: bool,
}

/// A request of ours other than INVITE, under way.
struct Ask {
    branch: String,
    bytes: Vec<u8>,
    way: Way,
    resend: Resend,
    what: What,
}

impl Ask {
    fn is_cancel_of(&self, call_id: &str) -> bool {
        matches!(self.what, What::Cancel) && parse(&self.bytes).is_ok_and(|cancel| cancel.call_id() == call_id)
    }
}

enum What {
    Bye,
    Cancel,
    Probe(Side),
    /// A request of the other side inside the dialog, passed on: whom its answer goes to.
    Relay {
        key: TransactionKey,
        reply: ReplyTo,
        from: SocketAddr,
        request: Vec<u8>,
    },
}

pub struct Call {
    pub id: u64,
    pub state: State,
    started_ms: u64,
    answered: Option<(u64, Instant)>,
    /// Number, else `IMSI..`, of the caller; what was dialled.
    from: String,
    to: String,
    /// Where the called side was when it hung up.
    to_cell: String,
    caller: Caller,
    /// The side that answered; its ACK, for copies of its 200.
    callee: Option<Leg>,
    callee_ack: Option<Vec<u8>>,
    plan: Plan,
    branches: Vec<Branch>,
    asks: Vec<Ask>,
    count: u32,
    /// The best *no* so far.
    failure: Option<Refusal>,
    relayed: Vec<u16>,
    group_until: Option<Instant>,
    setup_until: Instant,
    /// One side has hung up before the caller's ACK: BYE to the caller with this Reason, then or after the grace.
    bye_caller: Option<(Option<String>, Instant)>,
    /// The caller's INVITE had no session description: its ACK has it.
    offerless: bool,
    end_at: Option<Instant>,
    probe_at: Option<Instant>,
    /// Of the caller's and of the called one's base station: how often it was silent, one time after the other.
    probes_missed: [u8; 2],
    /// An answer to a refreshing INVITE of either side, until its ACK.
    refreshed: Vec<(Side, u32, Vec<u8>, Resend)>,
    armed: Option<Instant>,
    is_kept: bool,
    is_recorded: bool,
}

impl Call {
    /// Takes an INVITE that begins a call; 100 is sent at once. `number` is the caller's, else `IMSI..`.
    pub fn begin(w: &mut World<'_, '_>, id: u64, party: Party, number: String, request: &Request<'_>) -> Option<Call> {
        let Request { from, to: reply, bytes, message, .. } = *request;
        let tag = format!("{:016x}", w.ctx.rng.u64());
        let mut leg = Leg::called_by(w.site, message, Way::of(reply, from), party, tag)?;
        leg.learn_cell(message);
        let user = dialled(message);
        let mut call = Call {
            id,
            state: State::Checking,
            started_ms: w.wall().ms,
            answered: None,
            from: number,
            to: user,
            caller: Caller { leg, invite: bytes.to_vec(), from, reply, last: Vec::new(), resend: None },
            callee: None,
            callee_ack: None,
            plan: Plan::Unknown,
            branches: Vec::new(),
            asks: Vec::new(),
            count: 0,
            failure: None,
            to_cell: String::new(),
            relayed: Vec::new(),
            group_until: None,
            setup_until: w.ctx.now + w.site.settings.calls.setup_max,
            bye_caller: None,
            offerless: message.body.is_empty(),
            end_at: None,
            probe_at: None,
            probes_missed: [0; 2],
            refreshed: Vec::new(),
            armed: None,
            is_kept: false,
            is_recorded: false,
        };
        let source = (from.ip(), Some(from.port()));
        call.caller.last = Writer::response_to(message, 100, "Trying", None, Some(source)).finish();
        call.say_again(w);
        Some(call)
    }

    pub fn name(&self) -> String {
        format!("{:012x}", self.id)
    }

    fn caller_is_phone(&self) -> bool {
        self.caller.leg.party.is_phone()
    }

    pub fn caller_leg(&self) -> &Leg {
        &self.caller.leg
    }

    /// What makes the INVITE itself: its copies never fork a second call.
    pub fn caller_cseq(&self) -> u32 {
        self.caller.leg.remote_cseq
    }

    /// A copy of the INVITE: the last answer again, unless its ACK has come.
    pub fn copy(&mut self, w: &mut World<'_, '_>) {
        w.event(Event::Retransmission { from: self.caller.from });
        if self.state != State::Up || self.caller.resend.is_some() {
            self.say_again(w);
        }
    }

    fn say_again(&self, w: &mut World<'_, '_>) {
        let bytes = self.caller.last.clone();
        w.ctx.out.send(match self.caller.reply {
            ReplyTo::Datagram { from, to } => Output::Datagram { from, to, bytes },
            ReplyTo::Stream(conn) => Output::Stream { conn, bytes },
        });
    }

    /// Our own branch parameters tell whose they are: `z9hG4bK-c`, the call, a number, dice.
    fn new_branch(&mut self, w: &mut World<'_, '_>) -> String {
        self.count += 1;
        format!("{}{}.{:x}.{:016x}", super::calls::BRANCH, self.name(), self.count, w.ctx.rng.u64())
    }

    // --- Responses ---

    /// An answer to something of ours; `branch` is its top Via's.
    pub fn response(
        &mut self,
        w: &mut World<'_, '_>,
        finder: &mut Finder<'_>,
        from: SocketAddr,
        message: &Message<'_>,
        branch: &str,
    ) {
        let code = message.code().unwrap_or_default();
        if let Some(at) = self.branches.iter().position(|one| one.branch == branch) {
            return self.invite_answered(w, finder, at, from, message);
        }
        if let Some(at) = self.asks.iter().position(|ask| ask.branch == branch) {
            if code < 200 {
                // Timer E goes on at T2 once something was heard (RFC 3261 §17.1.2.2).
                let ask = &mut self.asks[at];
                ask.resend.pause = super::leg::T2;
                return;
            }
            let ask = self.asks.remove(at);
            return match ask.what {
                // Whoever has heard the BYE has nothing left to cancel.
                What::Bye => self.asks.retain(|ask| !ask.is_cancel_of(message.call_id())),
                What::Cancel => {}
                What::Probe(side) => self.probes_missed[side as usize] = 0,
                What::Relay { key, reply, from, request } => {
                    let Ok(request) = parse(&request) else { return };
                    let phrase = match message.start {
                        StartLine::Response { reason, .. } => reason.to_owned(),
                        StartLine::Request { .. } => String::new(),
                    };
                    let inside = Request { from, to: reply, key, bytes: &[], message: &request };
                    answer(w, &inside, code, &phrase);
                }
            };
        }
        if (200..300).contains(&code) && message.cseq().1 == "INVITE" {
            match (&self.callee, &self.callee_ack) {
                // A copy of the 200 of the side that answered: our ACK was lost, or it waits for the caller's.
                (Some(callee), ack) if callee.call_id == message.call_id() => {
                    if let Some(ack) = ack {
                        callee.way.send(w, ack.clone());
                    }
                }
                _ => super::calls::end_stray(w, from, message),
            }
        }
    }

    // --- The end ---

    /// Which side a request inside a dialog comes from.
    pub fn side_of(&self, message: &Message<'_>) -> Option<Side> {
        if self.caller.leg.is_of(message) {
            Some(Side::Caller)
        } else if self.callee.as_ref().is_some_and(|callee| callee.is_of(message)) {
            Some(Side::Called)
        } else {
            None
        }
    }

    /// A phone's early dialog: its BYE may come before our 200 to it, or instead of a CANCEL.
    pub fn is_early(&self, message: &Message<'_>) -> bool {
        self.branches.iter().any(|branch| branch.leg.is_of(message))
    }

    fn ask(&mut self, w: &mut World<'_, '_>, branch: String, bytes: Vec<u8>, way: Way, what: What, patience: Duration) {
        way.send(w, bytes.clone());
        self.asks.push(Ask { branch, bytes, way, resend: Resend::other(w.ctx.now, patience), what });
    }

    // --- Time ---

    /// Whatever is due.
    pub fn timeout(&mut self, w: &mut World<'_, '_>, finder: &mut Finder<'_>) {
        let now = w.ctx.now;
        if self.armed.is_some_and(|armed| armed <= now) {
            self.armed = None;
        }
        self.asks_due(w);
        self.branches_due(w, finder);
        self.caller_due(w);
        let leg_refresh = [Some(&self.caller.leg), self.callee.as_ref()];
        let is_stale = leg_refresh.into_iter().flatten().any(|leg| leg.refresh.is_some_and(|(at, _)| at <= now));
        if self.state == State::Up && is_stale {
            self.end_from_here(w, "us", "the session was not refreshed (RFC 4028)");
        }
        if self.state == State::Up && self.end_at.is_some_and(|at| at <= now) {
            self.end_from_here(w, "us", "it lasted longer than duration_max");
        }
        if self.state == State::Up && self.probe_at.is_some_and(|at| at <= now) {
            self.probe(w);
        }
        let is_setup = matches!(self.state, State::Checking | State::Locating | State::Ringing);
        if self.state == State::Answering && self.setup_until <= now {
            self.end_from_here(w, "us", "the disk did not keep its record in time");
        } else if is_setup && self.setup_until <= now {
            // "480 no answer if 180 was seen, else no user responding" (wire.md 3.2).
            let cause = if self.relayed.contains(&180) { 19 } else { 18 };
            let reason = Some(format!("Q.850;cause={cause}"));
            let why = "nobody answered in time".to_owned();
            let refusal = Refusal { code: 480, phrase: "Temporarily Unavailable".into(), reason, why };
            self.cancel_branches(w, None);
            self.refuse(w, refusal, "us");
        } else if self.state == State::Ringing && self.group_until.is_some_and(|at| at <= now) {
            self.cancel_branches(w, None);
            if self.failure.is_none() {
                let mut refusal = Refusal::of(No::Away, self.caller_is_phone());
                refusal.why = "no base station got an answer from the phone".into();
                self.failure = Some(refusal);
            }
            self.branch_gone(w, finder, now);
        }
    }

    fn asks_due(&mut self, w: &mut World<'_, '_>) {
        let now = w.ctx.now;
        let mut silent = Vec::new();
        let mut at = 0;
        while at < self.asks.len() {
            let ask = &mut self.asks[at];
            if ask.resend.is_over(now) {
                silent.push(self.asks.remove(at));
                continue;
            }
            if ask.resend.is_due(now) {
                ask.way.send(w, ask.bytes.clone());
            }
            at += 1;
        }
        for ask in silent {
            match ask.what {
                What::Bye | What::Cancel => {}
                What::Relay { key, reply, from, request } => {
                    if let Ok(request) = parse(&request) {
                        let inside = Request { from, to: reply, key, bytes: &[], message: &request };
                        answer(w, &inside, 408, "Request Timeout");
                    }
                }
                What::Probe(side) => {
                    w.event(Event::ProbeUnanswered { to: ask.way.peer() });
                    self.probes_missed[side as usize] += 1;
                    if self.probes_missed[side as usize] >= PROBES_MISSED_MAX {
                        let why = "a base station of it does not answer any more";
                        let by = if side == Side::Caller { "caller" } else { "called" };
                        self.end_from_here(w, by, why);
                    } else if self.state == State::Up {
                        self.probe_at = Some(now + PROBE_AGAIN);
                    }
                }
            }
        }
    }

    fn caller_due(&mut self, w: &mut World<'_, '_>) {
        let now = w.ctx.now;
        if let Some(resend) = &mut self.caller.resend {
            if resend.is_over(now) {
                self.caller.resend = None;
                if self.state == State::Up {
                    // "If the server retransmits the 2xx response for 64*T1 seconds without receiving an ACK, … it SHOULD terminate
                    // the session" (RFC 3261 §13.3.1.4): both legs.
                    self.end_from_here(w, "us", "its 200 was not acknowledged");
                }
            } else if resend.is_due(now) {
                self.say_again(w);
            }
        }
        if let Some((reason, at)) = &self.bye_caller
            && (self.caller.resend.is_none() || *at <= now)
        {
            let reason = reason.clone();
            self.bye_caller = None;
            self.caller.resend = None;
            self.hang_up(w, Side::Caller, reason);
        }
        let reply = |side: &Side, call: &Call| match side {
            Side::Caller => Some(call.caller.leg.way),
            Side::Called => call.callee.as_ref().map(|callee| callee.way),
        };
        let mut refreshed = std::mem::take(&mut self.refreshed);
        refreshed.retain(|(.., resend)| !resend.is_over(now));
        for (side, _, bytes, resend) in &mut refreshed {
            if resend.is_due(now)
                && let Some(way) = reply(side, self)
            {
                way.send(w, bytes.clone());
            }
        }
        self.refreshed = refreshed;
    }

    /// Sets the timer for the next thing that is due.
    pub fn arm(&mut self, w: &mut World<'_, '_>) {
        let is_setup = matches!(self.state, State::Checking | State::Locating | State::Ringing);
        let next = self
            .asks
            .iter()
            .map(|ask| ask.resend.due())
            .chain(self.branches.iter().filter_map(|branch| branch.buried_at))
            .chain(self.branches.iter().filter_map(|branch| branch.resend.map(|resend| resend.due())))
            .chain(self.caller.resend.map(|resend| resend.due()))
            .chain(self.bye_caller.as_ref().map(|(_, at)| if self.caller.resend.is_none() { w.ctx.now } else { *at }))
            .chain(self.refreshed.iter().map(|(.., resend)| resend.due()))
            .chain(self.group_until)
            .chain(self.end_at)
            .chain(self.probe_at)
            .chain(self.caller.leg.refresh.filter(|_| self.state == State::Up).map(|(at, _)| at))
            .chain(
                self.callee.as_ref().and_then(|leg| leg.refresh).filter(|_| self.state == State::Up).map(|(at, _)| at),
            )
            .chain((is_setup || self.state == State::Answering).then_some(self.setup_until))
            .min();
        if let Some(next) = next
            && self.armed.is_none_or(|armed| next < armed)
        {
            self.armed = Some(next);
            w.timers.at(next, Timer::Call(self.id));
        }
    }

    /// Nothing is under way any more.
    pub fn is_over(&self) -> bool {
        self.state == State::Ending
            && self.branches.is_empty()
            && self.asks.is_empty()
            && self.caller.resend.is_none()
            && self.bye_caller.is_none()
    }

    // --- What is kept and told ---

    fn to_imsi(&self) -> Option<Imsi> {
        match &self.plan {
            Plan::Phone { imsi, .. } => Some(*imsi),
            Plan::Trunks { .. } | Plan::Unknown => None,
        }
    }

    /// An answer to the caller's INVITE, with our tag and Contact.
    fn to_caller(&self, w: &World<'_, '_>, code: u16, phrase: &str) -> Option<Writer> {
        let invite = parse(&self.caller.invite).ok()?;
        let source = (self.caller.from.ip(), Some(self.caller.from.port()));
        let mut writer = Writer::response_to(&invite, code, phrase, Some(&self.caller.leg.local_tag), Some(source));
        if code < 300 {
            for route in invite.headers_of(HeaderName::RecordRoute).flat_map(values) {
                writer.header("Record-Route", route);
            }
        }
        // "An INVITE answer to a base station carries our Contact or none: its ACK goes there" (DESIGN section 6).
        writer.header("Contact", &self.caller.leg.contact(w.site, &escaped(&self.to)));
        Some(writer)
    }
}

/// What was dialled: the user of the Request-URI.
pub(super) fn dialled(message: &Message<'_>) -> String {
    let user = message.uri().and_then(|uri| Uri::parse(uri).ok()).and_then(|uri| uri.user).unwrap_or_default();
    // `#` must be escaped in a URI, and `*` may be (RFC 3261 §25.1).
    user.replace("%23", "#").replace("%2A", "*").replace("%2a", "*").replace("%2B", "+").replace("%2b", "+")
}

/// A number as the user of a URI: nothing in it can end that user.
pub(super) fn escaped(user: &str) -> String {
    let mut out = String::with_capacity(user.len());
    for byte in user.bytes() {
        match byte {
            b'0'..=b'9' | b'a'..=b'z' | b'A'..=b'Z' | b'+' | b'*' | b'-' | b'_' | b'.' => out.push(char::from(byte)),
            _ => out.push_str(&format!("%{byte:02X}")),
        }
    }
    out
}

/// A final answer to a request that is no INVITE of a new call, kept for its copies.
pub(super) fn answer(w: &mut World<'_, '_>, inside: &Request<'_>, code: u16, phrase: &str) {
    answer_after(w, inside, code, phrase, After::nothing());
}

/// One that is a promise: it waits for the disk.
pub(super) fn answer_after(w: &mut World<'_, '_>, inside: &Request<'_>, code: u16, phrase: &str, after: After) {
    let bytes = inside.stateless_response(w.site, code, phrase).finish();
    w.ctx.out.after(after, Inner::Answer { key: Some(inside.key), to: inside.to, bytes });
}
