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
//! | `Answering` | the record on the disk | the disk; its failure ends the process |
//! | `Up` | BYE | `duration_max`; 32 s for the first ACK |
//! | `Ending` | ACK, answers to BYE and CANCEL | 32 s; 5 s for a cancelled branch |

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
use crate::sip::header::{HeaderName, Uri, auth_params, values};
use crate::sip::parse::{Message, StartLine, parse};
use crate::sip::write::{DATAGRAM_BYTES_MAX, Writer};
use crate::site::World;
use crate::store::{Batch, StoreError};
use crate::time::Instant;

/// A cancelled branch is buried after this: a base station sends no 487 (wire.md 3.3).
const BURIAL: Duration = Duration::from_secs(5);
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
    cancel_sent: bool,
}

/// A request of ours other than INVITE, under way.
struct Ask {
    branch: String,
    bytes: Vec<u8>,
    way: Way,
    resend: Resend,
    what: What,
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

/// A request inside a dialog, as it came in.
pub struct Inside<'a> {
    pub from: SocketAddr,
    pub reply: ReplyTo,
    pub key: TransactionKey,
    pub bytes: &'a [u8],
    pub message: &'a Message<'a>,
}

pub struct Call {
    pub id: u64,
    pub state: State,
    started_ms: u64,
    answered: Option<(u64, Instant)>,
    /// Number, else `IMSI..`, of the caller; what was dialled.
    from: String,
    to: String,
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
    probes_missed: u8,
    /// An answer to a refreshing INVITE of either side, until its ACK.
    refreshed: Vec<(Side, u32, Vec<u8>, Resend)>,
    armed: Option<Instant>,
    is_kept: bool,
    is_recorded: bool,
}

/// An INVITE that begins a call.
pub struct Begin<'a> {
    pub id: u64,
    pub party: Party,
    /// Number, else `IMSI..`.
    pub number: String,
    pub from: SocketAddr,
    pub reply: ReplyTo,
    pub bytes: &'a [u8],
    pub message: &'a Message<'a>,
}

impl Call {
    /// Takes an INVITE; 100 is sent at once.
    pub fn begin(w: &mut World<'_, '_>, begin: Begin<'_>) -> Option<Call> {
        let Begin { id, party, number, from, reply, bytes, message } = begin;
        let tag = format!("{:016x}", w.ctx.rng.u64());
        let mut leg = Leg::called_by(message, Way::of(reply, from), party, tag)?;
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
            relayed: Vec::new(),
            group_until: None,
            setup_until: w.ctx.now + w.site.settings.calls.setup_max,
            bye_caller: None,
            offerless: message.body.is_empty(),
            end_at: None,
            probe_at: None,
            probes_missed: 0,
            refreshed: Vec::new(),
            armed: None,
            is_kept: false,
            is_recorded: false,
        };
        let source = (from.ip(), Some(from.port()));
        // "…MUST NOT" have a To tag is said of nothing: OpenBTS takes one for its CANCEL, which we match without (wire.md 3.2).
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

    // --- Finding out where to ---

    /// Whether the caller is where it calls from.
    pub fn caller_located(&mut self, w: &mut World<'_, '_>, finder: &mut Finder<'_>, located: Located) {
        if self.state != State::Checking {
            return;
        }
        match located {
            Located::Found { .. } => self.route(w, finder),
            Located::Away => self.refuse_no(w, No::NotBoundThere),
            Located::TooFew => self.refuse_no(w, No::TooFew),
        }
    }

    /// Resolves what was dialled.
    pub fn route(&mut self, w: &mut World<'_, '_>, finder: &mut Finder<'_>) {
        let site = w.site;
        let dialled = match self.caller_is_phone() {
            true => dialplan::by_phone(site, &self.to),
            false => dialplan::by_trunk(site, &self.to),
        };
        match dialled {
            Dialled::Nobody => self.refuse_no(w, No::UnknownNumber),
            Dialled::NoTrunk => self.refuse_no(w, No::NoTrunk),
            Dialled::Phone(subscriber) if subscriber.barred => self.refuse_no(w, No::Barred),
            Dialled::Phone(subscriber) => {
                let imsi = subscriber.imsi;
                self.plan = Plan::Phone { imsi, tried: Vec::new(), groups: VecDeque::new(), reread: false };
                self.state = State::Locating;
                finder.seek(w, imsi, Seeker::Callee(self.id), Want::Contact, None);
            }
            Dialled::Trunks(trunks) => self.dial_trunks(w, trunks, false),
            Dialled::Emergency(trunks) => {
                w.event(Event::EmergencyCall { from: self.caller.from });
                self.dial_trunks(w, trunks, true);
            }
        }
    }

    fn dial_trunks(&mut self, w: &mut World<'_, '_>, trunks: Vec<usize>, emergency: bool) {
        self.plan = Plan::Trunks { left: trunks.into(), emergency };
        self.state = State::Ringing;
        self.next_trunk(w);
    }

    /// Where the called phone is: first by the word of one replica, then by that of all.
    pub fn callee_located(&mut self, w: &mut World<'_, '_>, finder: &mut Finder<'_>, located: Located) {
        if self.state != State::Locating {
            return;
        }
        let Plan::Phone { imsi, tried, groups, reread } = &mut self.plan else { return };
        match located {
            Located::Found { contact, record } => {
                if *reread {
                    *groups = elsewhere(w, *imsi, &contact, record.as_deref(), tried);
                } else {
                    groups.push_back(vec![contact]);
                }
                self.state = State::Ringing;
                self.next_group(w, finder);
            }
            // What the first base station said stands, where there was one.
            Located::Away | Located::TooFew if *reread => self.give_up(w),
            Located::Away => self.refuse_no(w, No::Away),
            Located::TooFew => self.refuse_no(w, No::TooFew),
        }
    }

    // --- Ringing ---

    /// Pages the phone at the next group of places; with none left the replicas are read again, once.
    fn next_group(&mut self, w: &mut World<'_, '_>, finder: &mut Finder<'_>) {
        self.group_until = None;
        let Plan::Phone { imsi, tried, groups, reread } = &mut self.plan else { return self.give_up(w) };
        let imsi = *imsi;
        while let Some(group) = groups.pop_front() {
            let mut ways = Vec::new();
            for contact in group {
                let Some(address) = address_of(&contact) else { continue };
                if let (Some(way), false) = (Way::to(w.site, address), tried.contains(&address)) {
                    tried.push(address);
                    ways.push((way, contact));
                }
            }
            if ways.is_empty() {
                continue;
            }
            for (way, contact) in ways {
                let party = Party::Phone { imsi: Some(imsi.as_str().to_owned()), cell: None };
                self.ring(w, party, way, contact, None);
            }
            self.group_until = Some(w.ctx.now + w.site.settings.calls.ring_group);
            return self.keep(w, KeptState::Setup);
        }
        if *reread {
            return self.give_up(w);
        }
        // "480 No_Paging_Response: the other replicas are read again (the phone may have moved)".
        *reread = true;
        self.state = State::Locating;
        finder.seek(w, imsi, Seeker::Callee(self.id), Want::Newest, None);
    }

    /// The next trunk, as long as there is one.
    fn next_trunk(&mut self, w: &mut World<'_, '_>) {
        loop {
            let Plan::Trunks { left, .. } = &mut self.plan else { return self.give_up(w) };
            let Some(index) = left.pop_front() else { return self.give_up(w) };
            let Some(trunk) = w.site.settings.trunks.get(index) else { continue };
            let (name, address) = (trunk.name.clone(), trunk.address);
            let Some(way) = Way::to(w.site, address) else { continue };
            let uri = format!("sip:{}@{address}", escaped(&self.to));
            self.ring(w, Party::Trunk { name }, way, uri, Some(index));
            return self.keep(w, KeptState::Setup);
        }
    }

    /// Sends an INVITE; what it says of the caller comes from our own data.
    fn ring(&mut self, w: &mut World<'_, '_>, party: Party, way: Way, uri: String, trunk: Option<usize>) {
        let own = own_address(w.site);
        let domain = &w.site.settings.domain;
        let is_number = self.from.bytes().any(|b| b.is_ascii_digit()) && !self.from.starts_with("IMSI");
        let user = if is_number { escaped(&self.from) } else { "anonymous".to_owned() };
        // An OpenBTS shows the display name if it is no IMSI (wire.md 3.3); it has no blanks here and needs no quotes.
        let local = match trunk {
            None => format!("{user} <sip:{user}@{own}>"),
            Some(_) => format!("{user} <sip:{user}@{domain}>"),
        };
        self.count += 1;
        let leg = Leg {
            party,
            way,
            call_id: format!("{}-{}-{:016x}", self.name(), self.count, w.ctx.rng.u64()),
            local,
            local_tag: format!("{:016x}", w.ctx.rng.u64()),
            remote: format!("<{uri}>"),
            remote_tag: None,
            target: uri.clone(),
            route: Vec::new(),
            cseq: 0,
            remote_cseq: 0,
            told: None,
            refresh: None,
        };
        let branch = Branch {
            leg,
            uri,
            branch: String::new(),
            bytes: Vec::new(),
            resend: None,
            rings: false,
            trunk,
            challenged: false,
            buried_at: None,
            cancelled: false,
            cancel_sent: false,
        };
        self.send_invite(w, branch, None);
    }

    /// Sends the INVITE of a branch, the first time or with credentials.
    fn send_invite(&mut self, w: &mut World<'_, '_>, mut branch: Branch, credentials: Option<(&'static str, String)>) {
        branch.leg.cseq += 1;
        branch.branch = self.new_branch(w);
        let Ok(invite) = parse(&self.caller.invite) else { return };
        let mut writer = branch.leg.request(w.site, "INVITE", branch.leg.cseq, &branch.branch);
        let is_number = !self.from.starts_with("IMSI");
        let user = if is_number { escaped(&self.from) } else { "anonymous".to_owned() };
        writer.header("Contact", &branch.leg.contact(w.site, &user));
        if is_number {
            writer.header_fmt("P-Asserted-Identity", format_args!("<sip:{user}@{}>", w.site.settings.domain));
        }
        if branch.trunk.is_some() {
            writer
                .header("Allow", ALLOW)
                .header("Supported", "timer")
                .header_fmt("Session-Expires", format_args!("{SESSION_S};refresher=uas"));
            // Where an emergency call comes from is for those who help.
            if let (Plan::Trunks { emergency: true, .. }, Some(cell)) =
                (&self.plan, invite.header_named("P-Access-Network-Info"))
            {
                writer.header("P-Access-Network-Info", cell);
            }
        }
        if let Some((name, value)) = credentials {
            writer.header(name, &value);
        }
        if !invite.body.is_empty() {
            let kind = invite.header(HeaderName::ContentType).unwrap_or("application/sdp");
            writer.body(kind, invite.body);
            branch.leg.told = Some((kind.to_owned(), invite.body.to_vec()));
        }
        let bytes = writer.finish();
        if branch.leg.party.is_phone() && bytes.len() > DATAGRAM_BYTES_MAX {
            self.failure = Some(Refusal {
                code: 513,
                phrase: "Message Too Large".into(),
                reason: Some("Q.850;cause=95".into()),
                why: "its session description is too long for a base station".into(),
            });
            return;
        }
        // A base station that says nothing at all is as good as a phone that does not answer its paging: the group's time decides.
        let patience = if branch.trunk.is_some() { TRUNK_SILENCE } else { PATIENCE };
        branch.resend = Some(Resend::invite(w.ctx.now, patience));
        branch.bytes = bytes.clone();
        branch.leg.way.send(w, bytes);
        self.branches.push(branch);
    }

    /// Our own branch parameters tell whose they are: `z9hG4bK-c`, the call, a number, dice.
    fn new_branch(&mut self, w: &mut World<'_, '_>) -> String {
        self.count += 1;
        format!("{}{}.{:x}.{:016x}", super::calls::BRANCH, self.name(), self.count, w.ctx.rng.u64())
    }

    /// An answer to an INVITE of ours.
    fn invite_answered(
        &mut self,
        w: &mut World<'_, '_>,
        finder: &mut Finder<'_>,
        at: usize,
        from: SocketAddr,
        message: &Message<'_>,
    ) {
        let code = message.code().unwrap_or_default();
        let now = w.ctx.now;
        if code < 200 {
            let branch = &mut self.branches[at];
            branch.resend = None;
            if branch.cancelled {
                // A CANCEL must not overtake its INVITE (RFC 3261 §9.1): it has waited for this.
                return self.send_cancel(w, at, None);
            }
            if code > 100 && self.state == State::Ringing {
                branch.leg.learn(message, from);
                if !branch.rings {
                    branch.rings = true;
                    self.keep(w, KeptState::Setup);
                }
                // It rings somewhere: no other place is looked for.
                self.group_until = None;
                self.relay_ringing(w, code, message);
            }
            return;
        }
        let mut branch = self.branches.remove(at);
        if code < 300 {
            branch.leg.learn(message, from);
            if self.state == State::Ringing && !branch.cancelled {
                return self.answered(w, branch, message);
            }
            // Answered when nobody waits for it any more: it is told so, decently.
            self.acknowledge(w, &branch.leg, None);
            return self.bye(w, branch.leg, None);
        }
        acknowledge_no(w, &branch, message);
        if branch.cancelled || self.state != State::Ringing {
            return;
        }
        if matches!(code, 401 | 407)
            && !branch.challenged
            && let Some(credentials) = credentials(w, &branch, message, code)
        {
            branch.challenged = true;
            self.send_invite(w, branch, Some(credentials));
            return self.keep(w, KeptState::Setup);
        }
        let mut refusal = Refusal::passed_on(message, code);
        let is_final = match branch.trunk {
            // It is not the phone's fault, and a base station would call its user busy.
            Some(_) if matches!(code, 300..=399 | 401 | 407) => {
                refusal = Refusal {
                    code: 503,
                    phrase: "Service Unavailable".into(),
                    reason: Some("Q.850;cause=38".into()),
                    why: format!("the trunk says {code}, which cannot be answered"),
                };
                false
            }
            Some(_) => !(500..600).contains(&code) && code != 408,
            // The phone was there, and said so; anything else only says that it is not there.
            None => match code {
                480 => branch.rings,
                404 | 408 | 500..=599 => false,
                _ => true,
            },
        };
        if is_final {
            self.cancel_branches(w, None);
            return self.refuse(w, refusal, "called");
        }
        if self.failure.is_none() {
            self.failure = Some(refusal);
        }
        self.branch_gone(w, finder, now);
    }

    /// One place less: with the last of its group gone the next is tried.
    fn branch_gone(&mut self, w: &mut World<'_, '_>, finder: &mut Finder<'_>, now: Instant) {
        let waits = self.branches.iter().any(|branch| !branch.cancelled);
        if self.state != State::Ringing || waits {
            return;
        }
        if now >= self.setup_until {
            return self.give_up(w);
        }
        match self.plan {
            Plan::Trunks { .. } => self.next_trunk(w),
            Plan::Phone { .. } | Plan::Unknown => self.next_group(w, finder),
        }
    }

    /// Everything was tried.
    fn give_up(&mut self, w: &mut World<'_, '_>) {
        let to_phone = self.caller_is_phone();
        let refusal = self.failure.take().unwrap_or_else(|| Refusal::of(No::Away, to_phone));
        self.cancel_branches(w, None);
        self.refuse(w, refusal, "called");
    }

    /// 180 and 183 pass once each.
    fn relay_ringing(&mut self, w: &mut World<'_, '_>, code: u16, message: &Message<'_>) {
        if !matches!(code, 180 | 183) || self.relayed.contains(&code) {
            return;
        }
        self.relayed.push(code);
        let phrase = if code == 180 { "Ringing" } else { "Session Progress" };
        let kind = message.header(HeaderName::ContentType).unwrap_or("application/sdp").to_owned();
        let Some(mut writer) = self.to_caller(w, code, phrase) else { return };
        if !message.body.is_empty() {
            writer.body(&kind, message.body);
        }
        self.caller.last = writer.finish();
        self.say_again(w);
    }

    // --- Answered ---

    /// The first 200: the others are cancelled, and the record is written.
    fn answered(&mut self, w: &mut World<'_, '_>, mut branch: Branch, message: &Message<'_>) {
        self.cancel_branches(w, None);
        self.group_until = None;
        self.state = State::Answering;
        if let Some(interval_s) = session_expires(message, "uas") {
            let interval = Duration::from_secs(interval_s);
            branch.leg.refresh = Some((w.ctx.now + interval, interval));
        }
        let kind = message.header(HeaderName::ContentType).unwrap_or("application/sdp").to_owned();
        self.caller.leg.told = (!message.body.is_empty()).then(|| (kind, message.body.to_vec()));
        if !self.offerless {
            self.callee_ack = Some(self.acknowledge(w, &branch.leg, None));
        }
        self.callee = Some(branch.leg);
        let wall_ms = w.wall().ms;
        self.answered = Some((wall_ms, w.ctx.now));
        let call = self.id;
        let after = match self.write_kept(w, KeptState::Up) {
            Ok(commit) => After::nothing().and(commit),
            // "Disk full: lookups and calls go on" (promise 8); this one would not survive a restart, and the event has said so.
            Err(_) => After::nothing(),
        };
        w.ctx.out.after(after, Inner::CallKept { call });
    }

    /// The record is on the disk: the caller is told.
    pub fn kept(&mut self, w: &mut World<'_, '_>) {
        if self.state != State::Answering {
            return;
        }
        let asked = parse(&self.caller.invite).ok().and_then(|invite| session_expires(&invite, "uac"));
        let Some(mut writer) = self.to_caller(w, 200, "OK") else { return };
        writer.header("Allow", ALLOW);
        if let (Some(interval_s), false) = (asked, self.caller_is_phone()) {
            writer.header("Require", "timer").header_fmt("Session-Expires", format_args!("{interval_s};refresher=uac"));
            let interval = Duration::from_secs(interval_s);
            self.caller.leg.refresh = Some((w.ctx.now + interval, interval));
        }
        if let Some((kind, body)) = &self.caller.leg.told {
            writer.body(kind, body);
        }
        let bytes = writer.finish();
        if self.caller_is_phone() && bytes.len() > DATAGRAM_BYTES_MAX {
            self.hang_up(w, Side::Called, None);
            let why = "the answer's session description is too long for a base station".into();
            let reason = Some("Q.850;cause=95".into());
            return self.refuse(w, Refusal { code: 488, phrase: "Not Acceptable Here".into(), reason, why }, "us");
        }
        self.caller.last = bytes;
        self.caller.resend = Some(Resend::other(w.ctx.now, PATIENCE));
        self.state = State::Up;
        self.watch(w, w.site.settings.calls.duration_max);
        w.event(Event::CallAnswered { from: self.from.clone(), to: self.to.clone() });
        self.say_again(w);
    }

    /// From now on the call has a longest life, and its base stations are asked whether they live.
    fn watch(&mut self, w: &mut World<'_, '_>, left: Duration) {
        self.end_at = Some(w.ctx.now + left);
        let interval_ms = u64::try_from(w.site.settings.calls.probe_interval.as_millis()).unwrap_or(u64::MAX).max(2);
        let jittered_ms = interval_ms / 2 + w.ctx.rng.below(interval_ms / 2 + 1);
        self.probe_at = Some(w.ctx.now + Duration::from_millis(jittered_ms));
    }

    /// An ACK of the caller, seconds late, at whichever of our ports.
    pub fn acked(&mut self, w: &mut World<'_, '_>, message: &Message<'_>) {
        let (number, _) = message.cseq();
        self.refreshed.retain(|(_, cseq, ..)| *cseq != number);
        // A CANCEL counts one up (wire.md 3.2); the ACK of an OpenBTS keeps its INVITE's number.
        if number != self.caller.leg.remote_cseq || self.caller.resend.is_none() {
            return;
        }
        self.caller.resend = None;
        if self.state != State::Up {
            return;
        }
        if let Some(callee) = self.callee.as_ref().filter(|_| self.offerless && self.callee_ack.is_none()) {
            let kind = message.header(HeaderName::ContentType).unwrap_or("application/sdp").to_owned();
            let leg = callee.clone();
            self.callee_ack = Some(self.acknowledge(w, &leg, Some((&kind, message.body))));
        }
    }

    /// ACK to a 200 (RFC 3261 §13.2.2.4): a transaction of its own, with the INVITE's number. Its bytes, for copies of the 200.
    fn acknowledge(&mut self, w: &mut World<'_, '_>, leg: &Leg, body: Option<(&str, &[u8])>) -> Vec<u8> {
        let branch = self.new_branch(w);
        let mut writer = leg.request(w.site, "ACK", leg.cseq, &branch);
        if let Some((kind, body)) = body.filter(|(_, body)| !body.is_empty()) {
            writer.body(kind, body);
        }
        let bytes = writer.finish();
        leg.way.send(w, bytes.clone());
        bytes
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
                What::Bye | What::Cancel => {}
                What::Probe(_) => self.probes_missed = 0,
                What::Relay { key, reply, from, request } => {
                    let Ok(request) = parse(&request) else { return };
                    let phrase = match message.start {
                        StartLine::Response { reason, .. } => reason.to_owned(),
                        StartLine::Request { .. } => String::new(),
                    };
                    let inside = Inside { from, reply, key, bytes: &[], message: &request };
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

    /// CANCEL, matched by Call-ID and From tag; it has been answered 200.
    pub fn cancelled(&mut self, w: &mut World<'_, '_>, message: &Message<'_>) {
        let reason = message.header(HeaderName::Reason).map(str::to_owned);
        self.caller_gave_up(w, reason);
    }

    fn caller_gave_up(&mut self, w: &mut World<'_, '_>, reason: Option<String>) {
        let no = Refusal::of(No::Cancelled, self.caller_is_phone());
        match self.state {
            State::Checking | State::Locating | State::Ringing => {
                self.cancel_branches(w, reason.as_deref());
                self.refuse(w, no, "caller");
            }
            // The 200 of the called side crossed it: BYE (glare).
            State::Answering => {
                self.hang_up(w, Side::Called, reason);
                self.refuse(w, no, "caller");
            }
            State::Up => {
                self.hang_up(w, Side::Called, reason.clone());
                self.hang_up_caller(w, reason.clone());
                self.ended(w, "caller", reason.as_deref(), "the caller gave up when the call had just been answered");
            }
            State::Ending => {}
        }
    }

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

    /// BYE: 200 at once, and the other side is told.
    pub fn bye_came(&mut self, w: &mut World<'_, '_>, finder: &mut Finder<'_>, inside: &Inside<'_>) {
        answer(w, inside, 200, "OK");
        let reason = inside.message.header(HeaderName::Reason).map(str::to_owned);
        match self.side_of(inside.message) {
            Some(Side::Caller) if matches!(self.state, State::Up) => {
                self.caller.resend = None;
                self.bye_caller = None;
                self.hang_up(w, Side::Called, reason.clone());
                self.ended(w, "caller", reason.as_deref(), "hung up");
            }
            Some(Side::Caller) => self.caller_gave_up(w, reason),
            Some(Side::Called) => {
                let callee = self.callee.take();
                match self.state {
                    State::Up => {
                        self.hang_up_caller(w, reason.clone());
                        self.ended(w, "called", reason.as_deref(), "hung up");
                    }
                    State::Answering => {
                        let phrase = "Temporarily Unavailable".into();
                        let why = "the called side hung up as soon as it had answered".into();
                        self.refuse(w, Refusal { code: 480, phrase, reason, why }, "called");
                    }
                    _ => self.callee = callee,
                }
            }
            None => {
                if let Some(at) = self.branches.iter().position(|branch| branch.leg.is_of(inside.message)) {
                    self.branches.remove(at);
                    self.branch_gone(w, finder, w.ctx.now);
                }
            }
        }
    }

    /// The operator ends it.
    pub fn end_by_hand(&mut self, w: &mut World<'_, '_>) {
        self.end_from_here(w, "us", "ended by the operator");
    }

    /// We end it: whatever its state.
    fn end_from_here(&mut self, w: &mut World<'_, '_>, by: &'static str, why: &str) {
        let reason = Some("Q.850;cause=31".to_owned());
        match self.state {
            State::Ending => {}
            State::Up => {
                self.hang_up(w, Side::Called, reason.clone());
                self.hang_up_caller(w, reason.clone());
                self.ended(w, by, reason.as_deref(), why);
            }
            State::Checking | State::Locating | State::Ringing | State::Answering => {
                self.cancel_branches(w, reason.as_deref());
                self.hang_up(w, Side::Called, reason.clone());
                let phrase = "Temporarily Unavailable".into();
                self.refuse(w, Refusal { code: 480, phrase, reason, why: why.into() }, by);
            }
        }
    }

    /// A final *no* to the caller.
    fn refuse(&mut self, w: &mut World<'_, '_>, refusal: Refusal, by: &'static str) {
        self.state = State::Ending;
        self.group_until = None;
        w.event(Event::CallRefused { code: refusal.code, why: refusal.why.clone() });
        let outcome = if refusal.code == 487 { CallOutcome::Cancelled } else { CallOutcome::Refused };
        self.record(w, outcome, refusal.code, refusal.cause(), by, &refusal.why);
        if let Some(mut writer) = self.to_caller(w, refusal.code, &refusal.phrase) {
            if let Some(reason) = &refusal.reason {
                writer.header("Reason", reason);
            }
            self.caller.last = writer.finish();
            self.caller.resend = Some(Resend::other(w.ctx.now, PATIENCE));
            self.say_again(w);
        }
    }

    pub fn refuse_no(&mut self, w: &mut World<'_, '_>, no: No) {
        let refusal = Refusal::of(no, self.caller_is_phone());
        self.refuse(w, refusal, "us");
    }

    /// An established call is over.
    fn ended(&mut self, w: &mut World<'_, '_>, by: &'static str, reason: Option<&str>, why: &str) {
        self.state = State::Ending;
        self.end_at = None;
        self.probe_at = None;
        self.asks.retain(|ask| !matches!(ask.what, What::Probe(_)));
        // Whoever of the two was not heard to know it by the time of a crash is told again after it.
        self.keep(w, KeptState::Ending);
        self.record(w, CallOutcome::Answered, 200, reason.map_or(0, cause_of), by, why);
    }

    /// BYE to one side, where it has a dialog.
    fn hang_up(&mut self, w: &mut World<'_, '_>, side: Side, reason: Option<String>) {
        let leg = match side {
            Side::Caller => Some(self.caller.leg.clone()),
            Side::Called => self.callee.clone(),
        };
        if let Some(leg) = leg {
            if side == Side::Called && self.callee_ack.is_none() {
                // Without its ACK it would go on telling us 200.
                self.callee_ack = Some(self.acknowledge(w, &leg, None));
            }
            self.bye(w, leg, reason);
        }
    }

    /// BYE to the caller, once its ACK has come or the grace is over.
    fn hang_up_caller(&mut self, w: &mut World<'_, '_>, reason: Option<String>) {
        if self.caller.resend.is_some() {
            self.bye_caller = Some((reason, w.ctx.now + ACK_GRACE));
        } else {
            self.hang_up(w, Side::Caller, reason);
        }
    }

    fn bye(&mut self, w: &mut World<'_, '_>, mut leg: Leg, reason: Option<String>) {
        leg.cseq += 1;
        let branch = self.new_branch(w);
        let mut writer = leg.request(w.site, "BYE", leg.cseq, &branch);
        if let Some(reason) = reason {
            writer.header("Reason", &reason);
        }
        let bytes = writer.finish();
        self.ask(w, branch, bytes, leg.way, What::Bye, PATIENCE);
    }

    fn ask(&mut self, w: &mut World<'_, '_>, branch: String, bytes: Vec<u8>, way: Way, what: What, patience: Duration) {
        way.send(w, bytes.clone());
        self.asks.push(Ask { branch, bytes, way, resend: Resend::other(w.ctx.now, patience), what });
    }

    fn cancel_branches(&mut self, w: &mut World<'_, '_>, reason: Option<&str>) {
        for at in 0..self.branches.len() {
            if !self.branches[at].cancelled {
                let branch = &mut self.branches[at];
                branch.cancelled = true;
                branch.buried_at = Some(w.ctx.now + BURIAL);
                // A trunk that has said nothing yet must not be sent a CANCEL; a base station takes it by its Call-ID.
                if branch.resend.take().is_none() || branch.trunk.is_none() {
                    self.send_cancel(w, at, reason);
                }
            }
        }
    }

    /// CANCEL has its INVITE's branch, Request-URI, To and number (RFC 3261 §9.1).
    fn send_cancel(&mut self, w: &mut World<'_, '_>, at: usize, reason: Option<&str>) {
        let branch = &mut self.branches[at];
        if std::mem::replace(&mut branch.cancel_sent, true) {
            return;
        }
        let bytes = cancel_bytes(w, &branch.leg, &branch.uri, &branch.branch, reason);
        let (way, name) = (branch.leg.way, branch.branch.clone());
        // Its answer has the INVITE's branch, too: told apart by the method ([`Call::cancel_answered`]).
        self.ask(w, format!("{name}/CANCEL"), bytes, way, What::Cancel, BURIAL);
    }

    /// An answer to a CANCEL of ours.
    pub fn cancel_answered(&mut self, branch: &str) {
        self.asks.retain(|ask| ask.branch.strip_suffix("/CANCEL") != Some(branch));
    }

    // --- Inside the dialog ---

    /// INFO passes; a refreshing INVITE or UPDATE is answered with what the side last heard; a changed session is 488, because no base
    /// station takes one (wire.md 3.3).
    pub fn inside(&mut self, w: &mut World<'_, '_>, side: Side, inside: &Inside<'_>) {
        let message = inside.message;
        let (number, method) = message.cseq();
        if self.state != State::Up {
            return answer(w, inside, 481, "Call/Transaction Does Not Exist");
        }
        let leg = match side {
            Side::Caller => &mut self.caller.leg,
            Side::Called => match &mut self.callee {
                Some(callee) => callee,
                None => return,
            },
        };
        match method {
            "INVITE" | "UPDATE" => {
                leg.remote_cseq = number.max(leg.remote_cseq);
                if let Some((at, interval)) = &mut leg.refresh {
                    *at = w.ctx.now + *interval;
                }
                let heard = match side {
                    Side::Caller => self.callee.as_ref().and_then(|callee| callee.told.clone()),
                    Side::Called => self.caller.leg.told.clone(),
                };
                let is_same =
                    message.body.is_empty() || heard.is_some_and(|(_, body)| is_same_session(&body, message.body));
                let leg = match side {
                    Side::Caller => &self.caller.leg,
                    Side::Called => match &self.callee {
                        Some(callee) => callee,
                        None => return,
                    },
                };
                if !is_same {
                    return answer(w, inside, 488, "Not Acceptable Here");
                }
                let mut writer = response(w, inside, 200, "OK");
                writer.header("Contact", &leg.contact(w.site, &escaped(&self.to))).header("Allow", ALLOW);
                if let Some((_, interval)) = leg.refresh {
                    let refresher = message.header_named("Session-Expires").map_or("uac", refresher_of);
                    writer
                        .header("Require", "timer")
                        .header_fmt("Session-Expires", format_args!("{};refresher={refresher}", interval.as_secs()));
                }
                if let Some((kind, body)) = leg.told.as_ref().filter(|_| method == "INVITE") {
                    writer.body(kind, body);
                }
                let bytes = writer.finish();
                if method == "INVITE" {
                    self.refreshed.push((side, number, bytes.clone(), Resend::other(w.ctx.now, PATIENCE)));
                }
                w.ctx.out.after(After::nothing(), Inner::Answer { key: Some(inside.key), to: inside.reply, bytes });
            }
            "INFO" => {
                let other = match side {
                    Side::Caller => self.callee.as_mut(),
                    Side::Called => Some(&mut self.caller.leg),
                };
                let Some(other) = other else { return };
                other.cseq += 1;
                let leg = other.clone();
                let branch = self.new_branch(w);
                let mut writer = leg.request(w.site, "INFO", leg.cseq, &branch);
                if let Some(kind) = message.header(HeaderName::ContentType).filter(|_| !message.body.is_empty()) {
                    writer.body(kind, message.body);
                }
                let bytes = writer.finish();
                let what = What::Relay {
                    key: inside.key,
                    reply: inside.reply,
                    from: inside.from,
                    request: inside.bytes.to_vec(),
                };
                self.ask(w, branch, bytes, leg.way, what, PATIENCE);
            }
            "OPTIONS" => answer(w, inside, 200, "OK"),
            _ => answer(w, inside, 405, "Method Not Allowed"),
        }
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
        if is_setup && self.setup_until <= now {
            // "480 no answer if 180 was seen, else no user responding" (wire.md 3.2).
            let cause = if self.relayed.contains(&180) { 19 } else { 18 };
            let reason = Some(format!("Q.850;cause={cause}"));
            let why = "nobody answered in time".to_owned();
            let refusal = Refusal { code: 480, phrase: "Temporarily Unavailable".into(), reason, why };
            self.cancel_branches(w, None);
            self.refuse(w, refusal, "us");
        } else if self.state == State::Ringing && self.group_until.is_some_and(|at| at <= now) {
            self.cancel_branches(w, None);
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
                        let inside = Inside { from, reply, key, bytes: &[], message: &request };
                        answer(w, &inside, 408, "Request Timeout");
                    }
                }
                What::Probe(side) => {
                    w.event(Event::ProbeUnanswered { to: ask.way.peer() });
                    self.probes_missed += 1;
                    if self.probes_missed >= PROBES_MISSED_MAX {
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

    fn branches_due(&mut self, w: &mut World<'_, '_>, finder: &mut Finder<'_>) {
        let now = w.ctx.now;
        let mut gone = false;
        let mut at = 0;
        while at < self.branches.len() {
            let branch = &mut self.branches[at];
            if branch.buried_at.is_some_and(|at| at <= now) {
                self.branches.remove(at);
                continue;
            }
            if let Some(resend) = &mut branch.resend {
                if resend.is_over(now) {
                    if let Some(trunk) = branch.trunk.and_then(|trunk| w.site.settings.trunks.get(trunk)) {
                        w.event(Event::TrunkSilent { trunk: trunk.name.clone() });
                    }
                    self.branches.remove(at);
                    gone = true;
                    continue;
                }
                if resend.is_due(now) {
                    let (way, bytes) = (branch.leg.way, branch.bytes.clone());
                    way.send(w, bytes);
                }
            }
            at += 1;
        }
        if gone {
            if self.failure.is_none() && matches!(self.plan, Plan::Trunks { .. }) {
                self.failure = Some(Refusal {
                    code: 503,
                    phrase: "Service Unavailable".into(),
                    reason: Some("Q.850;cause=38".into()),
                    why: "no trunk answers".into(),
                });
            }
            self.branch_gone(w, finder, now);
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

    /// Asks the base stations of the call whether they live: outside of the dialog, because inside a base station answers 404
    /// whatever it knows of the dialog (wire.md 2).
    fn probe(&mut self, w: &mut World<'_, '_>) {
        let own = own_address(w.site);
        let legs = [(Side::Caller, Some(self.caller.leg.clone())), (Side::Called, self.callee.clone())];
        for (side, leg) in legs {
            let Some(leg) = leg.filter(|leg| leg.party.is_phone()) else { continue };
            let branch = self.new_branch(w);
            let peer = leg.way.peer();
            let domain = &w.site.settings.domain;
            let mut writer = Writer::request("OPTIONS", &format!("sip:{peer}"));
            writer
                .header_fmt("Via", format_args!("SIP/2.0/UDP {own};branch={branch}"))
                .header_fmt("From", format_args!("<sip:probe@{domain}>;tag={:016x}", w.ctx.rng.u64()))
                .header_fmt("To", format_args!("<sip:{peer}>"))
                .header_fmt("Call-ID", format_args!("{}-{:016x}", self.name(), w.ctx.rng.u64()))
                .header("CSeq", "1 OPTIONS")
                .header("Max-Forwards", "70");
            let bytes = writer.finish();
            self.ask(w, branch, bytes, leg.way, What::Probe(side), PROBE_PATIENCE);
        }
        self.probe_at = Some(w.ctx.now + w.site.settings.calls.probe_interval);
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
            .chain(is_setup.then_some(self.setup_until))
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

    /// Keeps what a restart must know, without waiting for it.
    fn keep(&mut self, w: &mut World<'_, '_>, state: KeptState) {
        // A refusal has been told; without the record the call goes on, and would not survive us.
        let _ = self.write_kept(w, state);
    }

    fn write_kept(&mut self, w: &mut World<'_, '_>, state: KeptState) -> Result<crate::store::CommitId, StoreError> {
        let branch = |branch: &Branch| KeptBranch {
            leg: KeptLeg::of(&branch.leg),
            branch: branch.branch.clone(),
            uri: branch.uri.clone(),
        };
        let is_setup = state == KeptState::Setup;
        let kept = Kept {
            id: self.id,
            state,
            started_ms: self.started_ms,
            answered_ms: self.answered.map(|(ms, _)| ms),
            from: self.from.clone(),
            to: self.to.clone(),
            to_imsi: self.to_imsi().map(|imsi| imsi.as_str().to_owned()),
            caller: KeptLeg::of(&self.caller.leg),
            invite: is_setup.then(|| String::from_utf8_lossy(&self.caller.invite).into_owned()),
            callee: self.callee.as_ref().map(KeptLeg::of),
            branches: if is_setup { self.branches.iter().map(branch).collect() } else { Vec::new() },
        };
        let commit = w.node_write(kept::put(Batch::default(), &kept))?;
        self.is_kept = true;
        Ok(commit)
    }

    /// Takes the record away: nothing is under way any more.
    pub fn forget(&mut self, w: &mut World<'_, '_>) {
        if self.is_kept {
            // Where the store refuses it stays, and the next start tells both sides again that the call is over.
            let _ = w.node_write(kept::delete(Batch::default(), self.id));
        }
    }

    /// A call that an earlier run left behind.
    pub fn resume(w: &mut World<'_, '_>, kept: Kept) -> Option<Call> {
        let now = w.ctx.now;
        let leg = kept.caller.leg(w.site, now)?;
        let callee = kept.callee.as_ref().and_then(|callee| callee.leg(w.site, now));
        let (from, reply) = match leg.way {
            Way::Datagram { from, to } => (to, ReplyTo::Datagram { from, to }),
            Way::Stream { conn, peer } => (peer, ReplyTo::Stream(conn)),
        };
        let invite = kept.invite.unwrap_or_default().into_bytes();
        let offerless = parse(&invite).is_ok_and(|invite| invite.body.is_empty());
        let plan = match kept.to_imsi.as_deref().and_then(|imsi| Imsi::parse(imsi).ok()) {
            Some(imsi) => Plan::Phone { imsi, tried: Vec::new(), groups: VecDeque::new(), reread: true },
            None => Plan::Unknown,
        };
        let mut call = Call {
            id: kept.id,
            state: State::Up,
            started_ms: kept.started_ms,
            answered: kept.answered_ms.map(|ms| (ms, now)),
            from: kept.from,
            to: kept.to,
            caller: Caller { leg, invite, from, reply, last: Vec::new(), resend: None },
            callee_ack: None,
            callee,
            plan,
            branches: Vec::new(),
            asks: Vec::new(),
            count: 0x1000,
            failure: None,
            relayed: Vec::new(),
            group_until: None,
            setup_until: now,
            bye_caller: None,
            offerless,
            end_at: None,
            probe_at: None,
            probes_missed: 0,
            refreshed: Vec::new(),
            armed: None,
            is_kept: true,
            is_recorded: false,
        };
        match kept.state {
            KeptState::Up => {
                let lived_ms = w.wall().ms.saturating_sub(kept.answered_ms.unwrap_or_default());
                let left = w.site.settings.calls.duration_max.saturating_sub(Duration::from_millis(lived_ms));
                call.watch(w, left);
                // Whether the other ends were restarted as well is not known: they are asked soon.
                call.probe_at = Some(now + Duration::from_millis(1000 + w.ctx.rng.below(10_000)));
                if let Some(callee) = call.callee.clone() {
                    // Should its 200 come again, it has the same ACK as before.
                    let branch = call.new_branch(w);
                    let ack = callee.request(w.site, "ACK", callee.cseq.saturating_sub(1000), &branch).finish();
                    call.callee_ack = Some(ack);
                }
            }
            KeptState::Ending => {
                call.state = State::Ending;
                call.is_recorded = true;
                call.hang_up(w, Side::Called, None);
                call.hang_up(w, Side::Caller, None);
            }
            // "A call in the making at a crash: after the restart CANCEL to the called base station, 503 cause 41 to the caller."
            KeptState::Setup => {
                call.state = State::Ringing;
                for branch in kept.branches {
                    let Some(mut leg) = branch.leg.leg(w.site, now) else { continue };
                    leg.cseq = leg.cseq.saturating_sub(1000);
                    let mut unknown_tag = leg.clone();
                    unknown_tag.remote_tag = None;
                    let bytes = cancel_bytes(w, &unknown_tag, &branch.uri, &branch.branch, Some("Q.850;cause=41"));
                    call.ask(w, format!("{}/CANCEL", branch.branch), bytes, leg.way, What::Cancel, BURIAL);
                    // It may have been answered in the last moment, which a CANCEL does not end; a base station takes the BYE by
                    // its Call-ID.
                    if leg.party.is_phone() || leg.remote_tag.is_some() {
                        call.bye(w, leg, Some("Q.850;cause=41".into()));
                    }
                }
                call.refuse_no(w, No::Restarted);
            }
        }
        Some(call)
    }

    fn to_imsi(&self) -> Option<Imsi> {
        match &self.plan {
            Plan::Phone { imsi, .. } => Some(*imsi),
            Plan::Trunks { .. } | Plan::Unknown => None,
        }
    }

    /// The base station or trunk of a side, with the cell where that is known.
    fn place(&self, w: &World<'_, '_>, leg: Option<&Leg>) -> String {
        let Some(leg) = leg else { return String::new() };
        match &leg.party {
            Party::Trunk { name } => name.clone(),
            Party::Phone { cell, .. } => {
                let peer = leg.way.peer();
                let station = w.site.settings.base_station_at(peer.ip());
                let name = station.map_or_else(|| peer.to_string(), |station| station.name.clone());
                match cell {
                    Some(cell) => format!("{name} {cell}"),
                    None => name,
                }
            }
        }
    }

    fn far_leg(&self) -> Option<&Leg> {
        self.callee.as_ref().or_else(|| self.branches.first().map(|branch| &branch.leg))
    }

    pub fn describe(&self, w: &World<'_, '_>) -> CallAnswer {
        let state = match self.state {
            State::Checking | State::Locating => "locating",
            State::Ringing | State::Answering => "ringing",
            State::Up => "up",
            State::Ending => "ending",
        };
        let since = self.answered.map_or(self.started_ms, |(ms, _)| ms);
        CallAnswer {
            id: self.name(),
            state,
            from: self.from.clone(),
            to: self.to.clone(),
            since,
            duration_s: w.clock.wall(w.ctx.now, w.ctx.wall).ms.saturating_sub(since) / 1000,
            cells: vec![self.place(w, Some(&self.caller.leg)), self.place(w, self.far_leg())],
        }
    }

    /// One record per call.
    fn record(
        &mut self,
        w: &mut World<'_, '_>,
        outcome: CallOutcome,
        code: u16,
        cause: u8,
        by: &'static str,
        why: &str,
    ) {
        if std::mem::replace(&mut self.is_recorded, true) {
            return;
        }
        let record = CallRecord {
            id: self.name(),
            started_ms: self.started_ms,
            answered_ms: self.answered.map(|(ms, _)| ms).filter(|_| outcome == CallOutcome::Answered),
            ended_ms: w.wall().ms,
            from: self.from.clone(),
            to: self.to.clone(),
            from_imsi: self.caller.leg.party.imsi(),
            to_imsi: self.to_imsi(),
            from_cell: self.place(w, Some(&self.caller.leg)),
            to_cell: self.place(w, self.far_leg()),
            outcome,
            code,
            cause,
            ended_by: by,
            why: why.to_owned(),
        };
        w.event(Event::CallEnded { from: self.from.clone(), to: self.to.clone(), code, why: why.to_owned() });
        w.ctx.out.send(Output::CallRecord(Box::new(record)));
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

/// The places where a phone may be that did not answer its paging: where it has been seen since, the other base stations of its
/// location area, and the one where it was before: "any BTS pages any IMSI" (wire.md 8).
fn elsewhere(
    w: &World<'_, '_>,
    imsi: Imsi,
    contact: &str,
    record: Option<&Record>,
    tried: &[SocketAddr],
) -> VecDeque<Vec<String>> {
    let is_new = |contact: &str| address_of(contact).is_some_and(|address| !tried.contains(&address));
    let mut groups = VecDeque::new();
    if is_new(contact) {
        groups.push_back(vec![contact.to_owned()]);
    }
    let newest = record.and_then(Record::newest).map(|(_, _, binding)| binding);
    let settings = &w.site.settings;
    let home = newest.and_then(|binding| settings.base_station_at(binding.source.ip()));
    let area = home.and_then(|station| station.location_area.as_deref());
    let mut others: Vec<String> = settings
        .base_stations
        .iter()
        .filter(|station| area.is_some() && station.location_area.as_deref() == area)
        .map(|station| format!("sip:IMSI{imsi}@{}", station.address))
        .collect();
    others.extend(newest.and_then(|binding| binding.previous.clone()));
    others.retain(|other| is_new(other) && address_of(other) != address_of(contact));
    others.sort();
    others.dedup_by_key(|other| address_of(other));
    if !others.is_empty() {
        groups.push_back(others);
    }
    groups
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

fn response(w: &World<'_, '_>, inside: &Inside<'_>, code: u16, phrase: &str) -> Writer {
    let source = (inside.from.ip(), Some(inside.from.port()));
    Writer::response_to(inside.message, code, phrase, Some(&w.site.stateless_tag(inside.message)), Some(source))
}

/// A final answer to a request that is no INVITE of a new call, kept for its copies.
pub(super) fn answer(w: &mut World<'_, '_>, inside: &Inside<'_>, code: u16, phrase: &str) {
    let bytes = response(w, inside, code, phrase).finish();
    w.ctx.out.after(After::nothing(), Inner::Answer { key: Some(inside.key), to: inside.reply, bytes });
}

fn cancel_bytes(w: &World<'_, '_>, leg: &Leg, uri: &str, branch: &str, reason: Option<&str>) -> Vec<u8> {
    let mut invite = leg.clone();
    uri.clone_into(&mut invite.target);
    invite.remote_tag = None;
    invite.route.clear();
    let mut writer = invite.request(w.site, "CANCEL", invite.cseq, branch);
    if let Some(reason) = reason {
        writer.header("Reason", reason);
    }
    writer.finish()
}

/// ACK to a final *no*: in the INVITE's own transaction (RFC 3261 §17.1.1.3).
fn acknowledge_no(w: &mut World<'_, '_>, branch: &Branch, message: &Message<'_>) {
    let mut leg = branch.leg.clone();
    branch.uri.clone_into(&mut leg.target);
    leg.route.clear();
    leg.remote_tag = message.to().ok().and_then(|to| to.tag()).map(str::to_owned);
    let bytes = leg.request(w.site, "ACK", leg.cseq, &branch.branch).finish();
    leg.way.send(w, bytes);
}

/// What a trunk's 401 or 407 is answered with, where it has credentials of ours.
fn credentials(
    w: &mut World<'_, '_>,
    branch: &Branch,
    message: &Message<'_>,
    code: u16,
) -> Option<(&'static str, String)> {
    let trunk = w.site.settings.trunks.get(branch.trunk?)?;
    let (username, password) = (trunk.username.as_deref()?, trunk.password.as_ref()?);
    let (asks, answers) = match code {
        401 => (HeaderName::WwwAuthenticate, "Authorization"),
        _ => (HeaderName::ProxyAuthenticate, "Proxy-Authorization"),
    };
    let cnonce = format!("{:016x}", w.ctx.rng.u64());
    let credentials = digest::Credentials { username, password: &password.0 };
    // Several challenges may be offered: the first one that we can answer.
    let value = message
        .headers_of(asks)
        .find_map(|value| digest::answer(&auth_params(value)?, &credentials, "INVITE", &branch.uri, &cnonce))?;
    Some((answers, value))
}

/// The interval of `Session-Expires`, where the side named is the one to refresh.
fn session_expires(message: &Message<'_>, refresher: &str) -> Option<u64> {
    let value = message.header_named("Session-Expires")?;
    let seconds: u64 = value.split(';').next()?.trim().parse().ok()?;
    // "the absolute minimum for the Session-Expires header field is 90 seconds" (RFC 4028 §4).
    (seconds >= 90 && refresher_of(value) == refresher).then_some(seconds)
}

fn refresher_of(value: &str) -> &'static str {
    let named = value.split(';').skip(1).find_map(|param| param.trim().strip_prefix("refresher="));
    if named.is_some_and(|named| named.trim().eq_ignore_ascii_case("uas")) { "uas" } else { "uac" }
}

/// Whether a session description is the one that is known, but for the version in its `o=` line.
fn is_same_session(known: &[u8], offered: &[u8]) -> bool {
    let lines = |body: &[u8]| -> Vec<Vec<u8>> {
        let lines = body.split(|byte| *byte == b'\n').map(|line| line.trim_ascii().to_vec());
        lines.filter(|line| !line.is_empty() && !line.starts_with(b"o=")).collect()
    };
    known == offered || lines(known) == lines(offered)
}
