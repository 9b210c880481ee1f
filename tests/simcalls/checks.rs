//! What is promised to phones and base stations, checked at the moment it leaves a box or arrives at a phone.
//!
//! A call is known by its session description, which passes untouched: whoever is called with an offer that nobody made, or hears an
//! answer that nobody gave, is a broken promise already. Where the weather makes a promise impossible, the check says so.

use std::collections::BTreeSet;

use encamp::sip::parse::Message;
use encamp::store::{Store, StoreId};

use crate::cell::{Leg, Side, State};
use crate::disk::Disk;
use crate::phone::{Phone, Registered};
use crate::plan::Breaker;
use crate::says::{self, Final};
use crate::world::{Ev, MS, SECOND, World};

pub const ONE_CALL: &str = "one INVITE is one call, its copies included";
pub const ONE_ANSWER: &str = "at most one branch ends up answered";
pub const SDP: &str = "the session description is the same at both ends";
pub const NUMBER: &str = "the called phone shows the caller's number";
pub const BOUND: &str = "only who is registered there may call";
pub const DURABLE: &str = "a 200 leaves when the call's record is on the disk";
pub const AT_ONCE: &str = "an INVITE is answered 100 at once";
pub const RING_ENDS: &str = "nobody is charged a ring after the call has ended";
pub const AFTER_BYE: &str = "nothing is said to a leg after its BYE";
pub const BYE_REACHES: &str = "no leg is left behind: a BYE reaches the other side";
pub const END_HEARD: &str = "BYE and CANCEL are answered";
pub const CAUSE: &str = "the cause at the phone is the right one";
pub const BEARABLE: &str = "a base station can bear what it hears";
pub const EMPTY: &str = "nothing is under way when nobody talks";

/// A CANCEL is resent for so long, and a branch remembered.
const BURIAL_US: u64 = 5 * SECOND;

#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Violation {
    pub promise: &'static str,
    pub what: String,
}

/// How long ago a call has ended, when it is seen who still rings.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Stage {
    AtOnce,
    Buried,
    Last,
    /// A second after the box has heard that it rings for nobody.
    Forgotten,
}

/// What a box has said and heard of one Call-ID.
#[derive(Default, Debug)]
pub struct Told {
    pub cancels: u32,
    pub byes: u32,
    pub byes_arrived: u32,
    /// Branches of its BYEs that were not answered.
    open_byes: BTreeSet<String>,
    /// Datagrams lost in either direction.
    losses: u32,
    /// Its own BYE was answered; it has answered theirs.
    bye_answered: bool,
    they_left: bool,
}

/// A call, as those who know everything see it.
pub struct CallTruth {
    pub mo: usize,
    pub mts: Vec<usize>,
    pub node: usize,
    caller: usize,
    callee: Option<usize>,
    /// Nothing of it was lost or late, and no box fell.
    calm: bool,
    crashed: bool,
    /// A 200 has left towards the caller; a BYE of either side was answered.
    pub promised: bool,
    end_promised: bool,
    /// A power cut took its record before anything had been promised.
    torn: bool,
    /// Its record could not be written because the disk was full.
    loose: bool,
    /// The leg whose answer the caller has heard.
    answered: Option<usize>,
    is_over: bool,
    began_us: u64,
}

impl CallTruth {
    /// Nobody can tell a box what it could not write down before it fell.
    pub fn is_forgotten(&self) -> bool {
        self.torn || (self.loose && self.crashed)
    }

    pub fn legs(&self) -> impl Iterator<Item = usize> {
        self.mts.iter().copied().chain([self.mo])
    }
}

impl World {
    pub fn count_check(&mut self, promise: &'static str) {
        *self.checked.entry(promise).or_default() += 1;
    }

    // --- At the phones ---

    pub fn call_begins(&mut self, leg: usize, dialled: &str) {
        let one = &self.legs[leg];
        let caller = one.phone.unwrap_or_default();
        let digits = dialled.trim_start_matches("IMSI");
        let callee = self.plan.phones.iter().position(|phone| phone.number == digits || phone.imsi.as_str() == digits);
        let (offer, peer) = (one.calling.sdp.clone(), one.peer);
        let node = self.box_at(peer).unwrap_or_default();
        let call = self.calls.len();
        self.offers.insert(offer, call);
        self.legs[leg].call = Some(call);
        self.calls.push(CallTruth {
            mo: leg,
            mts: Vec::new(),
            node,
            caller,
            callee,
            calm: true,
            crashed: false,
            promised: false,
            end_promised: false,
            torn: false,
            loose: false,
            answered: None,
            is_over: false,
            began_us: self.now_us,
        });
    }

    /// An INVITE reaches a base station that does not know its Call-ID.
    pub fn called_begins(&mut self, leg: usize, message: &Message<'_>) {
        self.count_check(SDP);
        let cell = self.legs[leg].cell;
        let Some(call) = self.offers.get(message.body).copied() else {
            return self.broken(SDP, format!("cell {cell} is offered what nobody offers"));
        };
        self.legs[leg].call = Some(call);
        self.count_check(ONE_CALL);
        let truth = &self.calls[call];
        let (caller, mo) = (truth.caller, truth.mo);
        let call_id = message.call_id();
        let (same, others): (Vec<usize>, Vec<usize>) =
            truth.mts.iter().partition(|other| self.legs[**other].calling.call_id == call_id);
        // What has ended is not remembered over a restart: a copy that is so late begins a call that nobody waits for.
        let forgotten = truth.is_forgotten() || (truth.crashed && truth.is_over);
        if others.iter().any(|other| self.legs[*other].cell == cell) && !forgotten {
            return self.broken(ONE_CALL, format!("cell {cell} is asked twice for call {call}"));
        }
        if !same.is_empty() {
            // A late copy, and the base station has forgotten the first one: to it that is a new call.
            self.meet("late copy of an INVITE");
        }
        let truth = &self.calls[call];
        if same.is_empty() && !truth.mts.is_empty() {
            self.meet("paging fallback");
        }
        self.count_check(NUMBER);
        let shown = message.from().ok().and_then(|from| from.display).unwrap_or_default();
        if shown != self.plan.phones[caller].number {
            return self.broken(NUMBER, format!("phone {caller} is shown as {shown:?}"));
        }
        self.count_check(BOUND);
        let from_cell = self.legs[mo].cell;
        let is_near = self.phones[caller].seen_at.iter().any(|seen| self.is_near(*seen, from_cell));
        if !is_near {
            return self.broken(BOUND, format!("phone {caller} calls from cell {from_cell}, where it never was"));
        }
        self.calls[call].mts.push(leg);
    }

    fn is_near(&self, a: usize, b: usize) -> bool {
        let area = |cell: usize| self.plan.cells[cell].area;
        a == b || (area(a).is_some() && area(a) == area(b))
    }

    /// The caller's phone hears a 200.
    pub fn caller_connected(&mut self, leg: usize, message: &Message<'_>) {
        let Some(call) = self.legs[leg].call else { return };
        self.count_check(SDP);
        let called = self.answers.get(message.body).copied().filter(|mt| self.legs[*mt].call == Some(call));
        let Some(called) = called else {
            return self.broken(SDP, format!("the caller of call {call} hears an answer that nobody gave"));
        };
        self.count_check(ONE_ANSWER);
        if self.calls[call].answered.replace(called).is_some_and(|before| before != called) {
            self.broken(ONE_ANSWER, format!("call {call} is answered twice"));
        }
    }

    /// The caller's phone is refused.
    pub fn caller_refused(&mut self, leg: usize, end: &Final) {
        let Some(call) = self.legs[leg].call else { return };
        if end.code == 503 && end.cause() == 41 {
            self.meet("503 after a restart");
        }
        let truth = &self.calls[call];
        if !truth.calm {
            return;
        }
        let ends: Vec<&Final> = truth.mts.iter().filter_map(|mt| self.legs[*mt].end.as_ref()).collect();
        let gave_up = self.legs[leg].hung_up;
        let lasted_us = self.now_us - truth.began_us;
        let is_foul = self.plan.weather.lost + self.plan.weather.late + self.plan.weather.kills > 0
            || self.plan.weather.power_cuts + self.plan.weather.disks_full > 0;
        let caller = &self.phones[truth.caller];
        let is_bound = |phone: &Phone| {
            let was_yes = |registered: Registered| registered.is_yes && registered.yes_us < truth.began_us;
            phone.registered.is_some_and(was_yes) && !phone.detached && !is_foul
        };
        let from_cell = self.legs[leg].cell;
        let caller_near = caller.registered.is_some_and(|registered| self.is_near(registered.cell, from_cell));
        let said_no = ends.iter().any(|end| matches!(end.code, 486 | 403));
        let right = match (end.code, end.cause()) {
            _ if ends.contains(&end) => true,
            (487, _) => gave_up,
            _ if said_no => false,
            (404, 1) => truth.callee.is_none(),
            (403, 21) => !(caller_near && is_bound(caller)),
            // It picked up and hung up while the record was still on its way to the disk.
            (480, 16) => truth.mts.iter().any(|mt| self.legs[*mt].hung_up),
            (480, 18 | 19) if lasted_us > 14 * SECOND => true,
            (480, 18) => truth.callee.is_some_and(|callee| !is_bound(&self.phones[callee])),
            // A slow disk elsewhere is a replica that does not answer.
            (503, _) => is_foul || self.plan.weather.slow_syncs > 0,
            _ => false,
        };
        let what = format!("the caller of call {call} hears {end:?}, the base stations said {ends:?}");
        self.count_check(CAUSE);
        match end.code {
            486 => self.meet("busy at the caller"),
            404 => self.meet("404 at the caller"),
            403 if end.cause() == 21 => self.meet("403 at the caller"),
            480 if end.phrase == "No_Paging_Response" => self.meet("480 No_Paging_Response at the caller"),
            480 => self.meet("480 at the caller"),
            487 => self.meet("487 at the caller"),
            _ => {}
        }
        if !right {
            self.broken(CAUSE, what);
        }
    }

    /// A base station has said BYE or CANCEL for 32 s, and nobody answered.
    pub fn gave_up(&mut self, leg: usize) {
        let one = &mut self.legs[leg];
        one.unheard = true;
        let (heard, answered) = (one.end_heard, one.end_answered);
        let crashed = one.call.is_some_and(|call| self.calls[call].crashed);
        self.count_check(END_HEARD);
        if heard && !answered && !crashed {
            self.broken(END_HEARD, format!("leg {leg} has said so for 32 s"));
        }
    }

    // --- At the box ---

    /// A datagram of a base station reaches a box that is up.
    pub fn box_hears(&mut self, cell: usize, message: &Message<'_>) {
        if message.cseq().1 == "MESSAGE" {
            return self.text_answer_heard(message);
        }
        let Some(leg) = self.leg_of.get(&(cell, message.call_id().to_owned())).copied() else { return };
        if message.code() == Some(180) && self.legs[leg].torn {
            // It has forgotten the call, and hears that a phone rings for it.
            self.meet("rings for a forgotten call");
            self.legs[leg].ringing_heard = true;
            if let Some(call) = self.legs[leg].call {
                self.after(SECOND, Ev::RingCheck { call, stage: Stage::Forgotten });
            }
        }
        if matches!(message.method(), Some("BYE" | "CANCEL")) {
            self.legs[leg].end_heard = true;
        }
        if message.code().is_some_and(|code| code >= 200) && message.cseq().1 == "BYE" {
            let told = self.told.entry(message.call_id().to_owned()).or_default();
            told.bye_answered = true;
            told.open_byes.remove(&branch_of(message));
        }
    }

    /// It has handled it.
    pub fn box_has_heard(&mut self, message: &Message<'_>) {
        if message.method() != Some("INVITE") || self.has_spoken {
            return;
        }
        let Some(call) = self.offers.get(message.body).copied() else { return };
        // A copy may be met with silence once the call is up or over.
        if !self.calls[call].promised && !self.calls[call].is_over && !self.told.contains_key(message.call_id()) {
            self.broken(AT_ONCE, format!("call {call} is met with silence"));
        }
    }

    /// A datagram leaves a box for a base station.
    pub fn box_says(&mut self, node: usize, cell: usize, message: &Message<'_>, len: usize) {
        let call_id = message.call_id().to_owned();
        let is_answering = self.hearing.as_deref() == Some(&call_id);
        self.has_spoken |= is_answering;
        self.count_check(BEARABLE);
        if len >= 1500 {
            return self.broken(BEARABLE, format!("{len} bytes to cell {cell}"));
        }
        let (_, method) = message.cseq();
        if matches!(method, "REGISTER" | "OPTIONS") {
            return;
        }
        if method == "MESSAGE" {
            return self.text_leaves(node, cell, message);
        }
        self.after_bye(cell, message, is_answering);
        let told = self.told.entry(call_id.clone()).or_default();
        match message.method() {
            Some("CANCEL") => told.cancels += 1,
            Some("BYE") => {
                told.byes += 1;
                // One that is answered is no open one, even if it is said again.
                if !is_answering || !told.bye_answered {
                    told.open_byes.insert(branch_of(message));
                }
            }
            _ => {}
        }
        let leg = self.leg_of.get(&(cell, call_id)).copied();
        let (Some(leg), Some(code)) = (leg, message.code()) else { return };
        if matches!(method, "BYE" | "CANCEL") {
            self.legs[leg].end_answered = true;
            self.count_check(END_HEARD);
        }
        let Some(call) = self.legs[leg].call else { return };
        let is_caller = self.legs[leg].side == Side::Caller;
        match (code, method) {
            (200..300, "INVITE") if is_caller && !self.calls[call].promised => self.promises(node, call, leg),
            (300.., "INVITE") | (200, "CANCEL") if is_caller => self.box_knows_the_end(call),
            (200, "BYE") => {
                let told = self.told.entry(message.call_id().to_owned()).or_default();
                told.they_left = true;
                self.calls[call].end_promised = true;
                if is_caller || self.calls[call].answered == Some(leg) {
                    self.box_knows_the_end(call);
                }
                if self.plan.breaker == Some(Breaker::TalksOn) {
                    self.talks_on(node, cell, leg);
                }
            }
            _ => {}
        }
    }

    /// The breaker: a box that has not understood that the call is over.
    fn talks_on(&mut self, node: usize, cell: usize, leg: usize) {
        let call_id = self.legs[leg].calling.call_id.clone();
        let text = format!(
            "INFO sip:x@10.1.0.1 SIP/2.0\r\nVia: SIP/2.0/UDP 10.0.0.1:5064;branch=z9hG4bKx\r\nFrom: <sip:a@b>;tag=1\r\n\
             To: <sip:c@d>;tag=2\r\nCall-ID: {call_id}\r\nCSeq: 99 INFO\r\nContent-Length: 0\r\n\r\n"
        );
        let hearing = self.hearing.take();
        if let Ok(message) = encamp::sip::parse::parse(text.as_bytes()) {
            self.box_says(node, cell, &message, text.len());
        }
        self.hearing = hearing;
    }

    /// "No datagram of the box goes to a phone's leg after its BYE was answered", other than answers to copies.
    fn after_bye(&mut self, cell: usize, message: &Message<'_>, is_answering: bool) {
        let Some(told) = self.told.get(message.call_id()) else { return };
        if !told.bye_answered && !told.they_left {
            return;
        }
        // A restarted box may have two under way, where the base station's 200 was late.
        let is_own_bye_again = message.method() == Some("BYE") && told.open_byes.contains(&branch_of(message));
        let (bye_answered, they_left) = (told.bye_answered, told.they_left);
        self.count_check(AFTER_BYE);
        // The answer to a BYE or CANCEL may have waited for the disk.
        let is_late_answer = !message.is_request() && matches!(message.cseq().1, "BYE" | "CANCEL");
        if !is_answering && !is_own_bye_again && !is_late_answer {
            let what = format!(
                "cell {cell} hears {} after the BYE (ours answered: {bye_answered}, theirs: {they_left})",
                says::describe(message)
            );
            self.broken(AFTER_BYE, what);
        }
    }

    /// The first 200 to the caller leaves.
    fn promises(&mut self, node: usize, call: usize, leg: usize) {
        self.calls[call].promised = true;
        self.count_check(DURABLE);
        let call_id = self.legs[leg].calling.call_id.clone();
        // The box has said that it could not write.
        if self.boxes[node].full_at == Some(self.now_us) {
            self.meet("200 on a full disk");
            self.calls[call].loose = true;
        } else if !record_says(&self.boxes[node].disks.0[&StoreId::Node], &call_id, "\"state\":\"Up\"") {
            self.broken(DURABLE, format!("the 200 of call {call} leaves, and a power cut would forget it"));
        }
        // Those who ring elsewhere are to stop.
        self.ring_checks(call);
    }

    fn box_knows_the_end(&mut self, call: usize) {
        if !std::mem::replace(&mut self.calls[call].is_over, true) {
            self.ring_checks(call);
        }
    }

    fn ring_checks(&mut self, call: usize) {
        let stages = [(SECOND, Stage::AtOnce), (BURIAL_US + 300 * MS, Stage::Buried), (3 * BURIAL_US, Stage::Last)];
        for (delay_us, stage) in stages {
            self.after(delay_us, Ev::RingCheck { call, stage });
        }
    }

    pub fn check_ringing(&mut self, call: usize, stage: Stage) {
        let truth = &self.calls[call];
        if truth.is_forgotten() && stage != Stage::Forgotten {
            return;
        }
        let (calm, crashed, is_over) = (truth.calm, truth.crashed, truth.is_over);
        for mt in truth.mts.clone() {
            self.count_check(RING_ENDS);
            let leg = &self.legs[mt];
            let told = self.told.get(&leg.calling.call_id);
            let is_told = told.is_some_and(|told| told.cancels + told.byes > 0);
            let loses_nothing = told.is_none_or(|told| told.losses == 0);
            let must = match stage {
                // The CANCEL leaves at once, and nothing happens to it, but that it may overtake the INVITE: then it is only paged.
                Stage::AtOnce => calm && leg.state == State::Ringing,
                Stage::Buried => calm || (!is_told && !crashed),
                // Late ones by 4 s each way, the last of them sent after 5 s.
                Stage::Forgotten => leg.torn && leg.ringing_heard && !is_told,
                Stage::Last => calm || ((loses_nothing || !is_told) && !crashed),
            };
            let state = leg.state;
            if leg.rings() && must && (!leg.torn || stage == Stage::Forgotten) {
                let what = format!("leg {mt} of call {call} is {state:?} after the end; told: {told:?}");
                return self.broken(RING_ENDS, what);
            }
            if stage == Stage::Last && calm && is_over && leg.is_up() && !leg.hung_up {
                return self.broken(BYE_REACHES, format!("leg {mt} of call {call} is {state:?} after the end"));
            }
        }
    }

    // --- The weather ---

    /// A datagram is lost, or late.
    pub fn weather_hits(&mut self, message: &Message<'_>, is_lost: bool) {
        let id = message.call_id();
        self.text_weather(id);
        if is_lost {
            self.told.entry(id.to_owned()).or_default().losses += 1;
        }
        let by_body = self.offers.get(message.body).copied();
        let by_leg = (0..self.cells.len()).filter_map(|cell| self.leg_of.get(&(cell, id.to_owned())));
        let calls: Vec<usize> = by_leg.filter_map(|leg| self.legs[*leg].call).chain(by_body).collect();
        for call in calls {
            self.calls[call].calm = false;
        }
    }

    /// A box has gone down, and its disks are as the next start will find them.
    pub fn note_crash(&mut self, node: usize, power_cut: bool) {
        self.texts_crash(node, power_cut);
        let disk = &self.boxes[node].disks.0[&StoreId::Node];
        let records: Vec<String> = disk
            .scan(b"call/", None, usize::MAX)
            .unwrap_or_default()
            .into_iter()
            .map(|(_, value)| String::from_utf8_lossy(&value).into_owned())
            .collect();
        let full_at = if disk.is_full() { Some(self.now_us) } else { self.boxes[node].full_at };
        for call in 0..self.calls.len() {
            let truth = &self.calls[call];
            let all: Vec<usize> = truth.mts.iter().copied().chain([truth.mo]).collect();
            let legs = || all.iter();
            let is_over = legs().all(|leg| self.legs[*leg].is_over());
            if truth.node != node {
                continue;
            }
            // What was answered may not have been on the disk; and a record stays until the last ACK.
            let ids: Vec<String> = legs().map(|leg| self.legs[*leg].calling.call_id.clone()).collect();
            for id in &ids {
                if let Some(told) = self.told.get_mut(id) {
                    told.bye_answered = false;
                    told.they_left = false;
                }
            }
            let truth = &mut self.calls[call];
            truth.calm = false;
            truth.crashed = true;
            truth.loose |= full_at.is_some_and(|at| at >= truth.began_us);
            if is_over {
                continue;
            }
            let truth = &self.calls[call];
            let mo = &self.legs[truth.mo];
            let met = match mo.state {
                State::Up | State::Answered => "crash when up",
                _ if !truth.mts.is_empty() => "crash in setup",
                _ => "crash before setup",
            };
            let is_kept = records.iter().any(|record| record.contains(&mo.calling.call_id));
            let truth = &mut self.calls[call];
            let was_promised = truth.promised || truth.end_promised;
            truth.torn |= power_cut && !was_promised && !is_kept;
            for mt in &truth.mts {
                let id = &self.legs[*mt].calling.call_id;
                let is_kept = records.iter().any(|record| record.contains(id));
                self.legs[*mt].torn |= power_cut && !was_promised && !is_kept;
            }
            self.meet(met);
        }
    }

    // --- At rest ---

    /// Every leg is over, or its call is up at both ends and nobody has hung up.
    pub fn check_rest(&mut self) {
        for leg in 0..self.legs.len() {
            let one = &self.legs[leg];
            if one.is_over() {
                continue;
            }
            self.count_check(BYE_REACHES);
            let one = &self.legs[leg];
            let Some(call) = one.call else { continue };
            let truth = &self.calls[call];
            let other = match one.side {
                Side::Caller => self.answers.get(&one.body_heard).copied(),
                Side::Called => Some(truth.mo).filter(|mo| self.answers.get(&self.legs[*mo].body_heard) == Some(&leg)),
            };
            let talks = |leg: &Leg| leg.is_up() && !leg.hung_up;
            if talks(one) && other.is_some_and(|other| talks(&self.legs[other])) {
                self.meet("call still up");
                continue;
            }
            // Nobody can hear what never arrives, or remember what was never promised.
            let told = self.told.get(&one.calling.call_id);
            let deaf = told.is_some_and(|told| told.byes >= 5 && told.byes_arrived == 0);
            let others = truth.mts.iter().chain([&truth.mo]).filter(|other| **other != leg);
            let unheard = others.clone().any(|other| self.legs[*other].unheard || self.legs[*other].vanished);
            let forgotten = truth.is_forgotten() || one.torn;
            let states: Vec<_> = others.map(|other| (other, self.legs[*other].state)).collect();
            let what = format!(
                "leg {leg} of call {call} is {:?} ({:?}), the others {states:?}, told {told:?}",
                one.state, one.side
            );
            if deaf || unheard || forgotten {
                self.meet("left behind, and nobody's fault");
                continue;
            }
            return self.broken(BYE_REACHES, what);
        }
    }

    /// 200 s after the last word: nothing is remembered either.
    pub fn check_tables(&mut self) {
        self.count_check(EMPTY);
        self.check_texts();
    }
}

fn branch_of(message: &Message<'_>) -> String {
    message.via().ok().and_then(|via| via.branch).unwrap_or_default().to_owned()
}

/// What a power cut at this moment would leave has a record of this Call-ID that says so.
fn record_says(disk: &Disk, call_id: &str, words: &str) -> bool {
    let mut durable = disk.clone();
    durable.power_cut();
    let records = durable.scan(b"call/", None, usize::MAX).unwrap_or_default();
    records.iter().any(|(_, value)| {
        let text = String::from_utf8_lossy(value);
        text.contains(call_id) && text.contains(words)
    })
}
