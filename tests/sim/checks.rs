//! The promises of DESIGN section 3, each checked at the moment it is made: when the output leaves the node.
//!
//! Knows everything: the live and durable images of all boxes, what was sent, what was answered. What a promise does not cover is
//! said at its check.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::net::SocketAddr;

use encamp::event::Event;
use encamp::gsm::auc::Auth;
use encamp::ident::Imsi;
use encamp::register::merge::Record;
use encamp::store::StoreId;
use encamp::time::Stamp;

use crate::disk::Disks;
use crate::plan::{PhonePlan, Plan};
use crate::wire::Read;
use crate::world::{Kind, Leg};

const SECOND: u64 = 1_000_000;
/// A REGISTER is answered or given up by then: what arrived longer ago is no longer under way.
const UNDER_WAY_US: u64 = 6 * SECOND;

pub const W_COPIES: &str = "1: nothing is acknowledged before it is safe";
pub const NO_FROM_TOO_FEW: &str = "2: a no is never taken from too few";
pub const NOT_FROM_BEHIND: &str = "2: one that is behind is not read from";
pub const EQUAL: &str = "3: replicas converge";
pub const KEPT: &str = "1: what was acknowledged survives";
pub const ONE_NONCE: &str = "5: one nonce, one subscriber, one use";
pub const ENDS: &str = "7: every wait ends";
pub const CALLS_GO_ON: &str = "8: calls go on whatever the disk says";
pub const NEW_ONCE: &str = "2: a phone that anybody remembers is not new";
pub const BEARABLE: &str = "a base station can bear the answer";
pub const ADMITTED: &str = "only the right SIM is let in";

#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Violation {
    pub promise: &'static str,
    pub what: String,
}

fn broken<T>(promise: &'static str, what: String) -> Result<T, Violation> {
    Err(Violation { promise, what })
}

type LegKey = (SocketAddr, String, u32);

struct LegState {
    leg: Leg,
    imsi: Imsi,
    /// Box, incarnation, when: the first copy that this run of the box got.
    arrived: Option<(usize, u64, u64)>,
    /// What this run of the box answered.
    answered: Option<u16>,
}

struct Call {
    phone: usize,
    node: usize,
    /// Of each copy that is not answered yet; one that was absorbed makes the next answer's look older than it is.
    arrived_us: VecDeque<u64>,
}

struct Look {
    phone: usize,
    node: usize,
    asked_us: u64,
}

/// A 200 that bound something.
#[derive(Clone, Debug)]
struct Acked {
    imsi: Imsi,
    contact: String,
    stamp: Stamp,
    /// When its REGISTER came, and when its 200 left.
    arrived_us: u64,
    at_us: u64,
    incarnation: u64,
}

pub struct Checks {
    incarnations: BTreeMap<usize, u64>,
    legs: BTreeMap<LegKey, LegState>,
    calls: BTreeMap<String, Call>,
    looks: BTreeMap<u64, Look>,
    nonces: BTreeSet<String>,
    nonces_accepted: BTreeSet<String>,
    /// The stamp of each write that any replica has seen, the largest where it was stamped anew.
    stamps: BTreeMap<(Imsi, String, String, u32), Stamp>,
    newest_of_contact: BTreeMap<(Imsi, String), Stamp>,
    /// Until when a replica held no live binding of a phone; absent while it has held none ever.
    bound: BTreeSet<(Imsi, u16)>,
    none_until_us: BTreeMap<(Imsi, u16), u64>,
    acked: Vec<Acked>,
    last_acked: BTreeMap<Imsi, Acked>,
    acked_by_front: BTreeMap<(usize, Imsi), Acked>,
    removal_arrived_us: BTreeMap<Imsi, u64>,
    bind_arrived_us: BTreeMap<Imsi, u64>,
    contact_arrived_us: BTreeMap<(Imsi, String), u64>,
    detached: BTreeSet<(usize, Imsi)>,
    /// Boxes that ever closed a replica.
    closed_some: BTreeSet<usize>,
    arrivals: Vec<(u64, usize, Imsi)>,
    /// Phones that were taken for new.
    first_seen: BTreeSet<Imsi>,
    /// Phones whose replicas may differ until they register again: a front end was lost between telling one replica and the
    /// next, and no other box knows what it knew. Levelling them is repair over the network, a later release.
    torn: BTreeSet<Imsi>,
    /// Hints made while the box's own store had no room, and when it had room again.
    loose: BTreeSet<(usize, Imsi)>,
    room_again_us: BTreeMap<usize, u64>,
    /// Clocks of two boxes may differ by this, so that of two writes less apart either may win.
    skew_us: u64,
    pub checked: BTreeMap<&'static str, u64>,
}

impl Checks {
    pub fn new(plan: &Plan) -> Checks {
        // A box that restarts goes on above the floor that it had reserved, up to 10 s ahead.
        let floor_us = if plan.weather.loses_nothing() { 0 } else { 11 * SECOND };
        Checks {
            incarnations: BTreeMap::new(),
            legs: BTreeMap::new(),
            calls: BTreeMap::new(),
            looks: BTreeMap::new(),
            nonces: BTreeSet::new(),
            nonces_accepted: BTreeSet::new(),
            stamps: BTreeMap::new(),
            newest_of_contact: BTreeMap::new(),
            bound: BTreeSet::new(),
            none_until_us: BTreeMap::new(),
            acked: Vec::new(),
            last_acked: BTreeMap::new(),
            acked_by_front: BTreeMap::new(),
            removal_arrived_us: BTreeMap::new(),
            bind_arrived_us: BTreeMap::new(),
            contact_arrived_us: BTreeMap::new(),
            detached: BTreeSet::new(),
            closed_some: BTreeSet::new(),
            arrivals: Vec::new(),
            first_seen: BTreeSet::new(),
            torn: BTreeSet::new(),
            loose: BTreeSet::new(),
            room_again_us: BTreeMap::new(),
            skew_us: plan.skew_ms * 1000 + floor_us,
            checked: BTreeMap::new(),
        }
    }

    // --- What happens ---

    pub fn started(&mut self, node: usize, incarnation: u64) {
        self.incarnations.insert(node, incarnation);
        for state in self.legs.values_mut().filter(|state| state.leg.node == node) {
            state.arrived = None;
            state.answered = None;
        }
    }

    /// Before the disks forget: whose replicas may differ from now on.
    pub fn crashed(&mut self, plan: &Plan, node: usize, now_us: u64, power_cut: bool, disks: &Disks) {
        let mut torn: BTreeSet<Imsi> = self
            .arrivals
            .iter()
            .filter(|(when, at, _)| *at == node && when + UNDER_WAY_US > now_us)
            .map(|(_, _, imsi)| *imsi)
            .collect();
        self.arrivals.retain(|(when, ..)| when + UNDER_WAY_US > now_us);
        if self.room_again_us.get(&node).is_none_or(|when| when + 2 * SECOND > now_us) {
            torn.extend(self.loose.iter().filter(|(at, _)| *at == node).map(|(_, imsi)| *imsi));
        }
        self.loose.retain(|(at, _)| *at != node);
        if power_cut {
            for disk in disks.0.values() {
                for key in disk.not_durable(b"b").into_iter().chain(disk.not_durable(b"h/")) {
                    let text = String::from_utf8_lossy(&key);
                    let digits = text.rsplit('/').next().unwrap_or_default().trim_start_matches('b');
                    torn.extend(Imsi::parse(digits));
                }
            }
        }
        let not_levelled = |phone: &&PhonePlan| !plan.shards[phone.shard].is_on(node);
        self.torn
            .extend(plan.phones.iter().filter(not_levelled).map(|phone| phone.imsi).filter(|imsi| torn.contains(imsi)));
        for call in self.calls.values_mut().filter(|call| call.node == node) {
            call.arrived_us.clear();
        }
        self.detached.retain(|(at, _)| *at != node);
    }

    /// A base station's REGISTER has cleared what was before it.
    pub fn mended(&mut self, imsi: Imsi) {
        self.torn.remove(&imsi);
    }

    /// The box's own store has room again: what it could not keep is on its way to it.
    pub fn has_room(&mut self, node: usize, now_us: u64) {
        self.room_again_us.insert(node, now_us);
    }

    pub fn event(&mut self, node: usize, event: &Event, is_full: bool) -> Result<(), Violation> {
        if let Event::FirstSeen { imsi } = event {
            self.count(NEW_ONCE);
            if !self.first_seen.insert(*imsi) {
                return broken(NEW_ONCE, format!("{imsi:?} is new to box {node}, and was new before"));
            }
        }
        if let Event::ReplicaMissedWrite { imsi, .. } = event
            && is_full
        {
            self.loose.insert((node, *imsi));
            self.room_again_us.remove(&node);
        }
        if let Event::Detached { imsi } = event {
            self.detached.insert((node, *imsi));
        }
        if let Event::ReplicaClosed { .. } = event {
            self.closed_some.insert(node);
        }
        Ok(())
    }

    pub fn sent(&mut self, leg: &Leg, phone: &PhonePlan) {
        let key = (leg.from, leg.call_id.clone(), leg.cseq);
        self.legs.insert(key, LegState { leg: leg.clone(), imsi: phone.imsi, arrived: None, answered: None });
    }

    pub fn leg(&self, to: SocketAddr, said: &Read) -> Option<&Leg> {
        self.legs.get(&(to, said.call_id.clone(), said.cseq)).map(|state| &state.leg)
    }

    /// A REGISTER reaches a box that is up; `Some` for the first copy: it is to be answered.
    pub fn arrives(
        &mut self,
        from: SocketAddr,
        said: &Read,
        node: usize,
        incarnation: u64,
        now_us: u64,
    ) -> Option<Leg> {
        let state = self.legs.get_mut(&(from, said.call_id.clone(), said.cseq))?;
        let arrivals =
            if state.leg.kind == Kind::Bind { &mut self.bind_arrived_us } else { &mut self.removal_arrived_us };
        arrivals.insert(state.imsi, now_us);
        if state.leg.kind == Kind::Bind {
            self.contact_arrived_us.insert((state.imsi, state.leg.contact.clone()), now_us);
        }
        self.arrivals.push((now_us, node, state.imsi));
        if state.arrived.is_some() {
            return None;
        }
        state.arrived = Some((node, incarnation, now_us));
        Some(state.leg.clone())
    }

    pub fn calls(&mut self, call_id: &str, phone: usize, node: usize) {
        self.calls.insert(call_id.to_owned(), Call { phone, node, arrived_us: VecDeque::new() });
    }

    pub fn call_arrives(&mut self, call_id: &str, now_us: u64) {
        if let Some(call) = self.calls.get_mut(call_id) {
            call.arrived_us.push_back(now_us);
        }
    }

    pub fn called(&self, call_id: &str) -> Option<usize> {
        self.calls.get(call_id).map(|call| call.phone)
    }

    pub fn looks(&mut self, id: u64, phone: usize, node: usize, asked_us: u64) {
        self.looks.insert(id, Look { phone, node, asked_us });
    }

    /// A replica's record of a phone changed: which write has which stamp, and since when something is bound.
    pub fn records_changed(&mut self, plan: &Plan, node: usize, phone: &PhonePlan, disks: &Disks, now_us: u64) {
        for (at, index) in &plan.shards[phone.shard].members {
            let Some(disk) = disks.0.get(&StoreId::Replica(*index)).filter(|_| *at == node) else { continue };
            let record = disk.live_record(phone.imsi);
            for (contact, stamp, binding) in record.bindings() {
                let write = (phone.imsi, contact.to_owned(), binding.call_id.clone(), binding.cseq);
                let known = self.stamps.entry(write).or_default();
                *known = stamp.max(*known);
                let newest = self.newest_of_contact.entry((phone.imsi, contact.to_owned())).or_default();
                *newest = stamp.max(*newest);
            }
            let key = (phone.imsi, *index);
            if record.bindings().next().is_none() {
                self.bound.remove(&key);
            } else if self.bound.insert(key) {
                self.none_until_us.insert(key, now_us);
            }
        }
    }

    fn count(&mut self, promise: &'static str) {
        *self.checked.entry(promise).or_default() += 1;
    }

    // --- At the moment a promise leaves ---

    /// An answer to a base station or SIP phone leaves.
    #[allow(clippy::too_many_arguments, reason = "a moment has many sides")]
    pub fn answered(
        &mut self,
        plan: &Plan,
        boxes: &[&Disks],
        node: usize,
        to: SocketAddr,
        said: &Read,
        len: usize,
        now_us: u64,
    ) -> Result<(), Violation> {
        let key = (to, said.call_id.clone(), said.cseq);
        let Some(state) = self.legs.get_mut(&key) else {
            return broken(BEARABLE, format!("box {node} answers {to}, which has not asked: {said:?}"));
        };
        let (leg, imsi) = (state.leg.clone(), state.imsi);
        let Some((_, incarnation, arrived_us)) = state.arrived else {
            return broken(BEARABLE, format!("box {node} answers what this run of it has not heard: {said:?}"));
        };
        if let Some(before) = state.answered.replace(said.code) {
            if before != said.code {
                return broken(BEARABLE, format!("a copy is answered {}, the first was answered {before}", said.code));
            }
            return Ok(());
        }
        self.count(BEARABLE);
        if len >= 1500 {
            return broken(BEARABLE, format!("an answer of {len} bytes to {to}"));
        }
        if leg.nonce.is_some() && said.has_challenge {
            return broken(BEARABLE, format!("a challenge follows an Authorization of phone {}", leg.phone));
        }
        if let Some(nonce) = said.nonce.as_ref().filter(|_| said.has_challenge) {
            self.count(ONE_NONCE);
            if !self.nonces.insert(nonce.clone()) {
                return broken(ONE_NONCE, format!("the nonce {nonce} is issued twice"));
            }
        }
        if said.code != 200 {
            return Ok(());
        }
        self.admitted(plan, &leg)?;
        let phone = &plan.phones[leg.phone];
        if leg.kind == Kind::Bind {
            let Some(stamp) = self.w_copies(plan, boxes, phone, &leg, arrived_us)? else { return Ok(()) };
            let contact = leg.contact.clone();
            let acked = Acked { imsi, contact, stamp, arrived_us, at_us: now_us, incarnation };
            self.last_acked.insert(imsi, acked.clone());
            self.acked_by_front.insert((node, imsi), acked.clone());
            self.acked.push(acked);
        } else if self.detached.remove(&(node, imsi)) {
            self.acked_by_front.remove(&(node, imsi));
            self.w_copies_removed(plan, boxes, phone, &leg, now_us)?;
        }
        Ok(())
    }

    /// "Only the SIMs it should": with a key, for one right answer to one challenge; a detach is believed of a base station.
    fn admitted(&mut self, plan: &Plan, leg: &Leg) -> Result<(), Violation> {
        self.count(ADMITTED);
        let phone = &plan.phones[leg.phone];
        if matches!(phone.auth, Auth::None) || (leg.kind == Kind::Detach && !phone.soft) {
            return Ok(());
        }
        match &leg.nonce {
            None => broken(ADMITTED, format!("phone {} was let in without a challenge", leg.phone)),
            Some(_) if leg.wrong => broken(ADMITTED, format!("phone {} was let in with a wrong answer", leg.phone)),
            Some(nonce) if !self.nonces_accepted.insert(nonce.clone()) => {
                broken(ONE_NONCE, format!("the nonce {nonce} is accepted twice"))
            }
            Some(_) => Ok(()),
        }
    }

    /// "W times for a binding": at the moment of the 200 so many replicas have this write, or a newer one, on disk. Its stamp, where
    /// any replica has ever held it: one that came later may have overtaken it on the way to all of them.
    fn w_copies(
        &mut self,
        plan: &Plan,
        boxes: &[&Disks],
        phone: &PhonePlan,
        leg: &Leg,
        arrived_us: u64,
    ) -> Result<Option<Stamp>, Violation> {
        self.count(W_COPIES);
        let write = (phone.imsi, leg.contact.clone(), leg.call_id.clone(), leg.cseq);
        let stamp = self.stamps.get(&write).copied();
        if stamp.is_none() && self.removal_arrived_us.get(&phone.imsi).is_some_and(|when| *when >= arrived_us) {
            return Ok(None);
        }
        let shard = &plan.shards[phone.shard];
        let came_later = |record: &Record| {
            record.bindings().any(|(contact, ..)| {
                self.contact_arrived_us.get(&(phone.imsi, contact.to_owned())).is_some_and(|when| *when >= arrived_us)
            })
        };
        let is_copy = |record: &Record| match stamp {
            Some(stamp) => covers(record, &leg.contact, stamp),
            None => came_later(record),
        };
        let copies = records(boxes, &shard.members, phone.imsi).filter(is_copy).count();
        if copies < shard.write_quorum {
            let what = format!("200 to phone {} with {copies} copies on disk, not {}", leg.phone, shard.write_quorum);
            return broken(W_COPIES, what);
        }
        Ok(stamp)
    }

    /// The same for a removal, unless the phone came back meanwhile.
    fn w_copies_removed(
        &mut self,
        plan: &Plan,
        boxes: &[&Disks],
        phone: &PhonePlan,
        leg: &Leg,
        now_us: u64,
    ) -> Result<(), Violation> {
        if self.bind_arrived_us.get(&phone.imsi).is_some_and(|when| when + UNDER_WAY_US + self.skew_us > now_us) {
            return Ok(());
        }
        self.count(W_COPIES);
        let shard = &plan.shards[phone.shard];
        let durable = records(boxes, &shard.members, phone.imsi);
        let is_gone =
            |record: &Record| record.bindings().all(|(contact, ..)| leg.kind == Kind::Detach && contact != leg.contact);
        let copies = durable.filter(is_gone).count();
        if copies < shard.write_quorum {
            let what =
                format!("200 to the detach of phone {}, gone on {copies} disks, not {}", leg.phone, shard.write_quorum);
            return broken(W_COPIES, what);
        }
        Ok(())
    }

    /// "Every wait ends": five seconds after it came, a REGISTER has been answered, whatever the disks and the other boxes do.
    pub fn every_wait_ends(&mut self, leg: &Leg) -> Result<(), Violation> {
        self.count(ENDS);
        let key = (leg.from, leg.call_id.clone(), leg.cseq);
        match self.legs.get(&key) {
            Some(state) if state.answered.is_none() => {
                broken(ENDS, format!("no answer to {:?} of phone {} (cseq {}) in 5 s", leg.kind, leg.phone, leg.cseq))
            }
            _ => Ok(()),
        }
    }

    /// An answer to the trunk leaves.
    pub fn call_answered(
        &mut self,
        plan: &Plan,
        boxes: &[&Disks],
        node: usize,
        said: &Read,
        now_us: u64,
    ) -> Result<(), Violation> {
        let Some(call) = self.calls.get_mut(&said.call_id) else { return Ok(()) };
        let (phone, arrived_us) = (call.phone, call.arrived_us.pop_front().unwrap_or(now_us));
        match (said.code, &said.contact) {
            (480, _) => self.no_from_enough(plan, boxes, phone, arrived_us),
            (302, Some(contact)) => {
                let contact = contact.clone();
                self.not_from_behind(plan, node, phone, &[contact], arrived_us, "302")
            }
            (503, _) => self.calls_go_on(plan, node, phone, arrived_us),
            (404, _) => broken(NO_FROM_TOO_FEW, format!("404 for the number of phone {phone}, which is provisioned")),
            _ => Ok(()),
        }
    }

    /// "480 needs R-W+1 caught-up replicas that agree": so many held nothing at some moment since the call came; and no 200 that had
    /// left before the call came says otherwise, unless the phone may have detached since.
    fn no_from_enough(
        &mut self,
        plan: &Plan,
        boxes: &[&Disks],
        phone: usize,
        arrived_us: u64,
    ) -> Result<(), Violation> {
        self.count(NO_FROM_TOO_FEW);
        let imsi = plan.phones[phone].imsi;
        let shard = &plan.shards[plan.phones[phone].shard];
        let needed = shard.members.len() + 1 - shard.write_quorum;
        let says_no = |(at, index): &&(usize, u16)| {
            let id = StoreId::Replica(*index);
            let Some(disk) = boxes[*at].0.get(&id) else { return false };
            let key = (imsi, *index);
            let was_none =
                !self.bound.contains(&key) || self.none_until_us.get(&key).is_some_and(|until| *until >= arrived_us);
            was_none && disk.is_level(id)
        };
        let found = shard.members.iter().filter(says_no).count();
        if found < needed {
            return broken(
                NO_FROM_TOO_FEW,
                format!("480 for phone {phone} and {found} replicas could say so, not {needed}"),
            );
        }
        if let Some(acked) = self.last_acked.get(&imsi)
            && acked.at_us < arrived_us
            && !self.may_be_removed(acked)
        {
            let what = format!(
                "480 for phone {phone}, which was told 200 for {} at {:.3} s",
                acked.contact,
                acked.at_us as f64 / 1e6
            );
            return broken(NO_FROM_TOO_FEW, what);
        }
        Ok(())
    }

    /// A disk that is full or hangs does not silence calls: where all replicas are on this box and none is closed, the phone that
    /// was told 200 is found.
    fn calls_go_on(&mut self, plan: &Plan, node: usize, phone: usize, arrived_us: u64) -> Result<(), Violation> {
        self.count(CALLS_GO_ON);
        let shard = &plan.shards[plan.phones[phone].shard];
        let Some(acked) = self.last_acked.get(&plan.phones[phone].imsi).cloned() else { return Ok(()) };
        let are_here = shard.members.iter().all(|(at, _)| *at == node);
        if !are_here || self.closed_some.contains(&node) || acked.at_us >= arrived_us || self.may_be_removed(&acked) {
            return Ok(());
        }
        broken(CALLS_GO_ON, format!("503 for phone {phone}, which was told 200 for {}", acked.contact))
    }

    /// A removal came, or was still under way when the binding was written, or may have the larger stamp by a clock that is ahead.
    fn may_be_removed(&self, acked: &Acked) -> bool {
        let removal_us = self.removal_arrived_us.get(&acked.imsi);
        removal_us.is_some_and(|when| when + UNDER_WAY_US + self.skew_us > acked.arrived_us)
    }

    /// "A replica that missed a write is behind: the front end does not read from it until it is level": where it sends a call is no
    /// older than what it has itself acknowledged. Another front end, or itself after a restart, may know less until there
    /// is repair over the network.
    fn not_from_behind(
        &mut self,
        plan: &Plan,
        node: usize,
        phone: usize,
        contacts: &[String],
        asked_us: u64,
        how: &str,
    ) -> Result<(), Violation> {
        self.count(NOT_FROM_BEHIND);
        let imsi = plan.phones[phone].imsi;
        let Some(acked) = self.acked_by_front.get(&(node, imsi)) else { return Ok(()) };
        if acked.at_us >= asked_us || self.incarnations.get(&node) != Some(&acked.incarnation) {
            return Ok(());
        }
        // A REGISTER that came later and was told no may show all the same: a 302 promises nothing.
        let came_later = |contact: &String| {
            self.contact_arrived_us.get(&(imsi, contact.clone())).is_some_and(|when| *when >= acked.arrived_us)
        };
        if contacts.iter().any(came_later) {
            return Ok(());
        }
        let newest = contacts.iter().filter_map(|contact| self.newest_of_contact.get(&(imsi, contact.clone()))).max();
        let stale = match newest {
            Some(stamp) => *stamp < acked.stamp && !self.may_be_removed(acked),
            None => !self.may_be_removed(acked),
        };
        if stale {
            let what = format!(
                "box {node} answers {how} {contacts:?} for phone {phone}, and has itself acknowledged {}",
                acked.contact
            );
            return broken(NOT_FROM_BEHIND, what);
        }
        Ok(())
    }

    pub fn looked_up(&mut self, plan: &Plan, id: u64, contacts: &[String]) -> Result<(), Violation> {
        let Some(look) = self.looks.remove(&id) else { return Ok(()) };
        self.not_from_behind(plan, look.node, look.phone, contacts, look.asked_us, "lookup")
    }

    // --- At rest ---

    /// Replicas of a shard are equal once the faults are over and all hints are told, but for phones that a lost front end tore.
    pub fn equal_at_rest(&mut self, plan: &Plan, boxes: &[&Disks], when: &str) -> Result<(), Violation> {
        for phone in &plan.phones {
            self.count(EQUAL);
            let shard = &plan.shards[phone.shard];
            let durable: Vec<Record> = records(boxes, &shard.members, phone.imsi).collect();
            let live = |(at, index): &(usize, u16)| boxes[*at].0[&StoreId::Replica(*index)].live_record(phone.imsi);
            if shard.members.iter().map(live).ne(durable.iter().cloned()) {
                return broken(EQUAL, format!("{when}, the record of {:?} is not on disk", phone.imsi));
            }
            if !self.torn.contains(&phone.imsi) && durable.iter().any(|record| *record != durable[0]) {
                return broken(EQUAL, format!("{when}, the records of {:?} differ: {durable:#?}", phone.imsi));
            }
        }
        Ok(())
    }

    /// Every write that was ever acknowledged is known to all replicas, or by a newer one; to W of them where a front end was lost.
    pub fn acknowledged_is_kept(&mut self, plan: &Plan, boxes: &[&Disks], when: &str) -> Result<(), Violation> {
        for acked in std::mem::take(&mut self.acked) {
            self.count(KEPT);
            let Some(phone) = plan.phones.iter().find(|phone| phone.imsi == acked.imsi) else { continue };
            let shard = &plan.shards[phone.shard];
            let needed = if self.torn.contains(&acked.imsi) { shard.write_quorum } else { shard.members.len() };
            let durable = records(boxes, &shard.members, phone.imsi);
            let copies = durable.filter(|record| covers(record, &acked.contact, acked.stamp)).count();
            if copies < needed {
                return broken(KEPT, format!("{when}, {copies} of {needed} replicas have {acked:?}"));
            }
        }
        Ok(())
    }
}

/// What the disks of a shard's replicas hold of a phone.
fn records<'a>(boxes: &'a [&Disks], members: &'a [(usize, u16)], imsi: Imsi) -> impl Iterator<Item = Record> + 'a {
    members.iter().map(move |(at, index)| boxes[*at].0[&StoreId::Replica(*index)].durable_record(imsi))
}

/// The record has this write, or one that came after it.
fn covers(record: &Record, contact: &str, stamp: Stamp) -> bool {
    record.clear_stamp > stamp || record.contacts.get(contact).is_some_and(|entry| entry.stamp >= stamp)
}
