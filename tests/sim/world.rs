//! The simulated world: boxes with their disks, the network between them, base stations, phones and a trunk, under one seed.
//!
//! Everything that happens is an event with a time; equal seeds give equal runs, to the byte. The checks of `checks.rs` are made
//! at the moment a promise leaves a node.

/// A line of the trace, where somebody reads it.
macro_rules! tell {
    ($world:expr, $($text:tt)*) => {
        if let Some(trace) = &mut $world.trace {
            trace.push(format!("{:>10.4} {}", $world.now_us as f64 / 1e6, format_args!($($text)*)));
        }
    };
}

mod phones;
mod rest;

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::sync::Arc;

use encamp::config::{Place, Settings};
use encamp::event::Event;
use encamp::ident::Imsi;
use encamp::node::Node;
use encamp::register::replicas;
use encamp::seam::{Ctx, Input, Local, Outbox, Output, Port, Rng};
use encamp::store::{CommitId, Store, StoreError, StoreId};
use encamp::time::{Instant, WallTime};

use crate::checks::{Checks, Violation};
use crate::coverage::Coverage;
use crate::disk::{Disk, Disks};
use crate::plan::{Breaker, NodePlan, Plan, TODAY_MS, node_ip};
use crate::wire::{self, Read};

const SECOND: u64 = 1_000_000;
/// After the busy time: the last late datagrams arrive, and hints are told.
const QUIET_US_MIN: u64 = 40 * SECOND;
const QUIET_US_MAX: u64 = 240 * SECOND;

pub struct World {
    pub seed: u64,
    pub plan: Plan,
    rng: Rng,
    pub now_us: u64,
    queue: BTreeMap<(u64, u64), Ev>,
    event_count: u64,
    boxes: Vec<SimBox>,
    stations: Vec<Station>,
    phones: Vec<Phone>,
    cut_links: BTreeSet<(usize, usize)>,
    fair: bool,
    pub checks: Checks,
    pub coverage: Coverage,
    invite_count: u64,
    branch_count: u64,
    /// Answers of the last INVITE to each front and phone, for the checks at rest.
    routed: BTreeMap<(usize, usize), (u16, Option<String>)>,
    looked_up: BTreeMap<u64, Vec<String>>,
    hints_told: u64,
    /// A digest of all outputs: equal seeds, equal digests.
    pub digest: u64,
    pub trace: Option<Vec<String>>,
    pub violation: Option<Violation>,
}

struct SimBox {
    node: Option<Node>,
    out: Outbox,
    disks: Disks,
    rng: Rng,
    incarnation: u64,
    timer_at: Option<u64>,
}

struct Station {
    address: SocketAddr,
    node: usize,
    call_id: String,
    cseq: u32,
}

#[derive(Default)]
struct Phone {
    /// Where it believes to be registered: the station, or for a SIP phone the line.
    at: Option<usize>,
    cseq: u32,
    /// The code that its last registration ended with.
    last_code: u16,
    last_contact: String,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Kind {
    Bind,
    Detach,
    /// `Contact: *`
    Star,
}

/// One REGISTER, as its sender knows it.
#[derive(Clone, Debug)]
pub struct Leg {
    pub phone: usize,
    pub kind: Kind,
    pub from: SocketAddr,
    pub node: usize,
    pub call_id: String,
    pub cseq: u32,
    pub contact: String,
    pub expires_s: u32,
    pub nonce: Option<String>,
    pub wrong: bool,
    pub replayed: bool,
}

enum Ev {
    Deliver {
        from: SocketAddr,
        to: SocketAddr,
        bytes: Arc<[u8]>,
    },
    Timer {
        node: usize,
        incarnation: u64,
    },
    Sync {
        node: usize,
        store: StoreId,
        incarnation: u64,
    },
    Start {
        node: usize,
    },
    Crash {
        node: usize,
        power_cut: bool,
    },
    CutLink {
        a: usize,
        b: usize,
        until_us: u64,
    },
    MendLink {
        a: usize,
        b: usize,
    },
    DiskFault {
        node: usize,
        store: StoreId,
        what: u64,
        until_us: u64,
    },
    DiskMend {
        node: usize,
        store: StoreId,
    },
    PhoneActs(usize),
    SecondLeg(Leg),
    StationRestarts(usize),
    Invites,
    Looks,
    /// Whoever sent this should have an answer by now.
    Due {
        leg: Leg,
        node: usize,
        incarnation: u64,
    },
}

impl World {
    pub fn new(seed: u64, breaker: Option<Breaker>, traced: bool) -> World {
        let mut rng = Rng::from_seed(seed_bytes(seed, 0, 0));
        let plan = crate::plan::draw(&mut rng, breaker);
        let boxes = (0..plan.nodes.len()).map(|node| SimBox {
            node: None,
            out: Outbox::default(),
            disks: new_disks(&plan, node),
            rng: Rng::from_seed(seed_bytes(seed, 1 + node as u64, 0)),
            incarnation: 0,
            timer_at: None,
        });
        let boxes = boxes.collect();
        let stations = plan.stations.iter().map(|station| Station {
            address: station.address,
            node: station.node,
            call_id: format!("{:x}", rng.u64()),
            cseq: rng.below(1 << 20) as u32,
        });
        let stations = stations.collect();
        let phones = plan.phones.iter().map(|_| Phone::default()).collect();
        let mut world = World {
            seed,
            rng,
            now_us: SECOND,
            queue: BTreeMap::new(),
            event_count: 0,
            boxes,
            stations,
            phones,
            cut_links: BTreeSet::new(),
            fair: false,
            checks: Checks::new(&plan),
            coverage: Coverage::default(),
            invite_count: 0,
            branch_count: 0,
            routed: BTreeMap::new(),
            looked_up: BTreeMap::new(),
            hints_told: 0,
            digest: 0xcbf2_9ce4_8422_2325,
            trace: traced.then(Vec::new),
            violation: None,
            plan,
        };
        world.set_up();
        world
    }

    /// The whole life of one seed; the first broken promise ends it.
    pub fn run(&mut self) -> Option<Violation> {
        let busy_until = self.now_us + self.plan.weather.busy_s * SECOND;
        self.run_until(busy_until);
        let then: [fn(&mut World); 6] = [
            World::heal,
            World::drain,
            |world| world.check_rest("after the faults"),
            World::register_all,
            World::find_all,
            World::detach_some,
        ];
        for act in then {
            if self.violation.is_none() {
                act(self);
            }
        }
        self.violation.take()
    }

    fn set_up(&mut self) {
        for node in 0..self.boxes.len() {
            self.at(self.now_us, Ev::Start { node });
        }
        let busy_us = self.plan.weather.busy_s * SECOND;
        let until_us = self.now_us + busy_us;
        for phone in 0..self.phones.len() {
            let when = self.now_us + SECOND / 2 + self.rng.below(8 * SECOND);
            self.at(when, Ev::PhoneActs(phone));
        }
        for station in 0..self.stations.len() {
            if self.rng.below(3) == 0 {
                let when = self.now_us + self.rng.below(busy_us);
                self.at(when, Ev::StationRestarts(station));
            }
        }
        self.at(self.now_us + SECOND, Ev::Invites);
        self.at(self.now_us + 2 * SECOND, Ev::Looks);
        let node_count = self.boxes.len() as u64;
        let (partitions, kills, power_cuts, disk_faults) = {
            let weather = &self.plan.weather;
            (weather.partitions, weather.kills, weather.power_cuts, weather.disk_faults)
        };
        for _ in 0..partitions {
            let (a, b) = (self.rng.below(node_count) as usize, self.rng.below(node_count) as usize);
            let when = self.now_us + self.rng.below(busy_us);
            let lasts = self.rng.below(25 * SECOND);
            self.at(when, Ev::CutLink { a: a.min(b), b: a.max(b), until_us: (when + lasts).min(until_us) });
        }
        for (count, power_cut) in [(kills, false), (power_cuts, true)] {
            for _ in 0..count {
                let node = self.rng.below(node_count) as usize;
                let when = self.now_us + self.rng.below(busy_us);
                self.at(when, Ev::Crash { node, power_cut });
            }
        }
        if power_cuts > 0 && self.rng.below(3) == 0 {
            // The plug is pulled before the first start is on the disk.
            let node = self.rng.below(node_count) as usize;
            let when = self.now_us + self.rng.below(SECOND / 20);
            self.at(when, Ev::Crash { node, power_cut: true });
        }
        for _ in 0..disk_faults {
            let node = self.rng.below(node_count) as usize;
            let stores: Vec<StoreId> = self.boxes[node].disks.0.keys().copied().collect();
            let store = stores[self.rng.below(stores.len() as u64) as usize];
            let when = self.now_us + self.rng.below(busy_us);
            let lasts = self.rng.below(20 * SECOND);
            let what = self.rng.below(3);
            self.at(when, Ev::DiskFault { node, store, what, until_us: (when + lasts).min(until_us) });
        }
    }

    fn at(&mut self, when: u64, ev: Ev) {
        self.event_count += 1;
        self.queue.insert((when.max(self.now_us), self.event_count), ev);
    }

    fn run_until(&mut self, end_us: u64) {
        while self.violation.is_none() {
            match self.queue.first_key_value() {
                Some(((when, _), _)) if *when <= end_us => {}
                _ => break,
            }
            let Some(((when, _), ev)) = self.queue.pop_first() else { break };
            self.now_us = when;
            self.happen(ev);
        }
        self.now_us = self.now_us.max(end_us);
    }

    pub fn broken(&mut self, promise: &'static str, what: String) {
        tell!(self, "BROKEN {promise}: {what}");
        if self.violation.is_none() {
            self.violation = Some(Violation { promise, what });
        }
    }

    fn happen(&mut self, ev: Ev) {
        match ev {
            Ev::Deliver { from, to, bytes } => self.deliver(from, to, &bytes),
            Ev::Timer { node, incarnation } => {
                if self.boxes[node].incarnation == incarnation {
                    self.boxes[node].timer_at = None;
                    self.timer(node);
                }
            }
            Ev::Sync { node, store, incarnation } => {
                if self.boxes[node].incarnation == incarnation {
                    self.sync(node, store);
                }
            }
            Ev::Start { node } => self.start(node),
            Ev::Crash { node, power_cut } => {
                self.crash(node, power_cut);
                let pause = SECOND / 10 + self.rng.below(6 * SECOND);
                self.at(self.now_us + pause, Ev::Start { node });
            }
            Ev::CutLink { a, b, until_us } => {
                tell!(self, "the link between box {a} and box {b} is cut");
                self.cut_links.insert((a, b));
                self.at(until_us, Ev::MendLink { a, b });
            }
            Ev::MendLink { a, b } => drop(self.cut_links.remove(&(a, b))),
            Ev::DiskFault { node, store, what, until_us } => self.disk_fault(node, store, what, until_us),
            Ev::DiskMend { node, store } => self.disk_mend(node, store),
            Ev::PhoneActs(phone) => {
                if !self.fair {
                    self.phone_acts(phone);
                    let pause = SECOND + self.rng.below(15 * SECOND);
                    self.at(self.now_us + pause, Ev::PhoneActs(phone));
                }
            }
            Ev::SecondLeg(leg) => self.send_leg(&leg),
            Ev::StationRestarts(station) => {
                tell!(self, "base station {station} restarts");
                self.stations[station].call_id = format!("{:x}", self.rng.u64());
                self.stations[station].cseq = self.rng.below(1 << 20) as u32;
            }
            Ev::Invites => {
                if !self.fair {
                    let phone = self.rng.below(self.phones.len() as u64) as usize;
                    let node = self.rng.below(self.boxes.len() as u64) as usize;
                    self.call(node, phone);
                    let pause = SECOND / 20 + self.rng.below(SECOND);
                    self.at(self.now_us + pause, Ev::Invites);
                }
            }
            Ev::Looks => {
                if !self.fair {
                    let phone = self.rng.below(self.phones.len() as u64) as usize;
                    let node = self.rng.below(self.boxes.len() as u64) as usize;
                    self.look(node, phone);
                    self.at(self.now_us + 2 * SECOND, Ev::Looks);
                }
            }
            Ev::Due { leg, node, incarnation } => {
                if self.boxes[node].incarnation == incarnation && self.boxes[node].node.is_some() {
                    let due = self.checks.every_wait_ends(&leg);
                    self.check(due);
                }
            }
        }
    }

    pub fn check(&mut self, result: Result<(), Violation>) {
        if let Err(violation) = result {
            self.broken(violation.promise, violation.what);
        }
    }

    // --- Boxes ---

    fn wall(&self, node: usize) -> WallTime {
        let plan = &self.plan.nodes[node];
        let ms = self.now_us / 1000;
        match plan.wakes_in_1970_until_ms {
            // The kernel counts from its start; nobody has told it the date yet.
            Some(until_ms) if ms < until_ms => WallTime { ms, trusted: false },
            _ => WallTime { ms: (TODAY_MS + ms).saturating_add_signed(plan.clock_offset_ms), trusted: true },
        }
    }

    fn with_node<T>(&mut self, node: usize, act: impl FnOnce(&mut Option<Node>, &mut Ctx<'_>) -> T) -> T {
        let (now, wall) = (Instant(self.now_us), self.wall(node));
        let SimBox { node, out, disks, rng, .. } = &mut self.boxes[node];
        act(node, &mut Ctx { now, wall, rng, stores: disks, out })
    }

    fn start(&mut self, node: usize) {
        if self.boxes[node].node.is_some() {
            return;
        }
        let settings = Arc::clone(&self.plan.nodes[node].settings);
        self.boxes[node].out = Outbox::default();
        self.boxes[node].incarnation += 1;
        self.boxes[node].timer_at = None;
        let dice = match self.plan.breaker {
            Some(Breaker::ReplayedNonce) => 0,
            _ => self.boxes[node].incarnation,
        };
        self.boxes[node].rng = Rng::from_seed(seed_bytes(self.seed, 1 + node as u64, dice));
        tell!(self, "box {node} starts");
        let started = self.with_node(node, |slot, ctx| Node::start(ctx, settings).map(|node| *slot = Some(node)));
        if let Err(error) = started {
            let founded = self.boxes[node].disks.0[&StoreId::Node].has(b"f");
            if error == StoreError::Full && !founded {
                // A new site needs a disk.
                tell!(self, "box {node} has no room to begin");
                return self.at(self.now_us + SECOND, Ev::Start { node });
            }
            self.broken("a node starts", format!("box {node} does not start: {error}"));
        }
        self.checks.started(node, self.boxes[node].incarnation);
        self.settle(node);
    }

    fn crash(&mut self, node: usize, power_cut: bool) {
        if self.boxes[node].node.is_none() {
            return;
        }
        let what = if power_cut { "loses power" } else { "is killed" };
        tell!(self, "box {node} {what}");
        self.coverage.input_everywhere(node, if power_cut { "power cut" } else { "kill -9" });
        self.boxes[node].node = None;
        self.boxes[node].incarnation += 1;
        self.checks.crashed(&self.plan, node, self.now_us, power_cut, &self.boxes[node].disks);
        let rng = &mut self.rng;
        for disk in self.boxes[node].disks.0.values_mut() {
            if power_cut {
                let unsynced = disk.written_seq() - disk.synced_seq();
                disk.sync_a_part(disk.synced_seq() + rng.below(unsynced + 1));
                disk.power_cut();
            } else {
                disk.process_ended();
            }
        }
        self.note_records(node, None);
    }

    fn timer(&mut self, node: usize) {
        let due = self.boxes[node].node.as_ref().and_then(Node::poll_timeout);
        if due.is_some_and(|when| when.0 <= self.now_us) {
            self.coverage.input_everywhere(node, "timeout");
            self.handle(node, Input::Timeout);
        } else {
            self.settle(node);
        }
    }

    fn handle(&mut self, node: usize, input: Input<'_>) {
        let alive = self.with_node(node, |slot, ctx| match slot {
            Some(node) => {
                node.handle(ctx, input);
                true
            }
            None => false,
        });
        if alive {
            self.settle(node);
        }
    }

    /// Takes what came out, at the moment it leaves; then sees to disks and deadlines.
    fn settle(&mut self, node: usize) {
        let touched: BTreeSet<Imsi> =
            self.boxes[node].disks.0.values_mut().flat_map(|disk| disk.take_touched()).collect();
        if !touched.is_empty() {
            self.note_records(node, Some(&touched));
            self.coverage.wrote(node, &touched);
        }
        while let Some(output) = self.boxes[node].out.pop() {
            match output {
                Output::Datagram { from, to, bytes } => self.leaves(node, from, to, bytes),
                Output::Event(event) => {
                    tell!(self, "  box {node}: {event}");
                    self.event(node, &event);
                }
                Output::Answer { id, answer } => self.command_answered(id, &answer),
                Output::End(words) => {
                    tell!(self, "  box {node} ends: {words}");
                    self.crash(node, false);
                    self.at(self.now_us + SECOND, Ev::Start { node });
                    return;
                }
                Output::Zone(_) | Output::Stream { .. } | Output::StreamClose { .. } | Output::CallRecord(_) => {}
                Output::TextRecord(_) | Output::HttpPost { .. } | Output::GiveNumber { .. } => {}
                Output::MailAnswer { .. } | Output::SendMail { .. } => {}
            }
        }
        let ids: Vec<StoreId> = self.boxes[node].disks.0.keys().copied().collect();
        let incarnation = self.boxes[node].incarnation;
        for store in ids {
            let Some(disk) = self.boxes[node].disks.0.get_mut(&store) else { continue };
            if disk.needs_sync() && !disk.sync_scheduled {
                disk.sync_scheduled = true;
                let slow = self.rng.below(1000) < self.plan.weather.slow_syncs && !self.fair;
                let most = if slow { 4 * SECOND } else { self.plan.weather.sync_us_max };
                let when = self.now_us + 200 + self.rng.below(most);
                self.at(when, Ev::Sync { node, store, incarnation });
            }
        }
        let next = self.boxes[node].node.as_ref().and_then(Node::poll_timeout).map(|when| when.0);
        if let Some(when) = next
            && self.boxes[node].timer_at.is_none_or(|at| when < at)
        {
            self.boxes[node].timer_at = Some(when);
            self.at(when, Ev::Timer { node, incarnation });
        }
        if self.boxes[node].node.as_ref().is_some_and(|node| node.under_way() == 0) {
            self.coverage.at_rest(node);
        }
    }

    fn sync(&mut self, node: usize, store: StoreId) {
        let Some(disk) = self.boxes[node].disks.0.get_mut(&store) else { return };
        disk.sync_scheduled = false;
        let before = disk.synced_seq();
        match disk.sync() {
            Ok(seq) if seq > before => {
                self.coverage.input_everywhere(node, "synced");
                tell!(self, "  box {node}: {store:?} synced {seq}");
                self.handle(node, Input::Synced(CommitId { store, seq }));
            }
            // Mute: it will be tried again once the fault is over.
            Ok(_) => {}
            Err(error) => {
                self.coverage.input_everywhere(node, "sync failed");
                tell!(self, "  box {node}: {store:?} fails to sync");
                self.handle(node, Input::StoreFailed(store, error.to_string()));
                // The operator sees the alarm and starts it again.
                let when = self.now_us + 2 * SECOND + self.rng.below(20 * SECOND);
                self.at(when, Ev::Crash { node, power_cut: false });
            }
        }
    }

    fn disk_fault(&mut self, node: usize, store: StoreId, what: u64, until_us: u64) {
        let Some(disk) = self.boxes[node].disks.0.get_mut(&store) else { return };
        let name = match what {
            0 => {
                disk.set_full(true);
                "is full"
            }
            1 => {
                disk.set_mute(true);
                "does not answer"
            }
            _ => {
                disk.set_fails_next(true);
                "will fail its next sync"
            }
        };
        tell!(self, "box {node}: {store:?} {name}");
        self.at(until_us, Ev::DiskMend { node, store });
    }

    fn disk_mend(&mut self, node: usize, store: StoreId) {
        if let Some(disk) = self.boxes[node].disks.0.get_mut(&store) {
            disk.set_full(false);
            disk.set_mute(false);
            disk.set_fails_next(false);
        }
        if store == StoreId::Node {
            self.checks.has_room(node, self.now_us);
        }
        tell!(self, "box {node}: {store:?} works again");
        self.settle(node);
    }

    fn note_records(&mut self, node: usize, touched: Option<&BTreeSet<Imsi>>) {
        let disks = &self.boxes[node].disks;
        for phone in &self.plan.phones {
            if touched.is_none_or(|touched| touched.contains(&phone.imsi)) {
                self.checks.records_changed(&self.plan, node, phone, disks, self.now_us);
            }
        }
    }

    // --- The network ---

    fn leaves(&mut self, node: usize, from: Local, to: SocketAddr, bytes: Vec<u8>) {
        for byte in &bytes {
            self.digest = (self.digest ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3);
        }
        let settings = &self.plan.nodes[node].settings;
        let from = SocketAddr::new(node_ip(node), port_number(settings, from.port));
        let Some(said) = wire::read(&bytes) else {
            return self.broken("what we write can be read", String::from_utf8_lossy(&bytes).into_owned());
        };
        tell!(self, "  box {node} > {to}: {}", describe(&said));
        self.coverage.output(node, &said);
        if to.ip() == self.plan.trunk.ip() {
            let result = self.trunk_answered(node, &said);
            self.check(result);
        } else if self.box_at(to).is_none() {
            let boxes: Vec<&Disks> = self.boxes.iter().map(|one| &one.disks).collect();
            let result = self.checks.answered(&self.plan, &boxes, node, to, &said, bytes.len(), self.now_us);
            self.check(result);
        }
        self.send(from, to, bytes);
    }

    fn send(&mut self, from: SocketAddr, to: SocketAddr, bytes: Vec<u8>) {
        let bytes: Arc<[u8]> = bytes.into();
        let (a, b) = (self.box_at(from), self.box_at(to));
        if let (Some(a), Some(b)) = (a, b)
            && self.cut_links.contains(&(a.min(b), a.max(b)))
            && a != b
        {
            return;
        }
        let weather = &self.plan.weather;
        let (lost, doubled, late, late_ms_max, delay_us_max) = match self.fair {
            true => (0, 0, 0, 1, 5_000),
            false => (weather.lost, weather.doubled, weather.late, weather.late_ms_max, weather.delay_us_max),
        };
        let mut copies = 1;
        if self.rng.below(1000) < doubled {
            copies = 2;
        }
        for _ in 0..copies {
            if self.rng.below(1000) < lost {
                continue;
            }
            let mut delay_us = 100 + self.rng.below(delay_us_max);
            if self.rng.below(1000) < late {
                delay_us += self.rng.below(late_ms_max) * 1000;
            }
            let bytes = Arc::clone(&bytes);
            self.at(self.now_us + delay_us, Ev::Deliver { from, to, bytes });
        }
    }

    fn box_at(&self, address: SocketAddr) -> Option<usize> {
        (0..self.plan.nodes.len()).find(|node| node_ip(*node) == address.ip())
    }

    fn deliver(&mut self, from: SocketAddr, to: SocketAddr, bytes: &[u8]) {
        let Some(said) = wire::read(bytes) else { return };
        if let Some(node) = self.box_at(to) {
            let Some(port) = port_of(&self.plan.nodes[node].settings, to) else { return };
            if self.boxes[node].node.is_none() {
                return;
            }
            tell!(self, "box {node} < {from}: {}", describe(&said));
            let incarnation = self.boxes[node].incarnation;
            if self.box_at(from).is_none() && said.code == 0 {
                if said.method == "REGISTER" {
                    if let Some(leg) = self.checks.arrives(from, &said, node, incarnation, self.now_us) {
                        self.at(self.now_us + 5 * SECOND, Ev::Due { leg, node, incarnation });
                    }
                } else {
                    self.checks.call_arrives(&said.call_id, self.now_us);
                }
            }
            self.coverage.input(node, &said, from);
            let to = Local { port, address: Some(to.ip()) };
            self.handle(node, Input::Datagram { from, to, bytes });
        } else if said.code >= 200 && to.ip() != self.plan.trunk.ip() {
            self.phone_hears(to, &said);
        }
    }

    fn event(&mut self, node: usize, event: &Event) {
        self.coverage.event(node, event);
        let is_full = self.boxes[node].disks.0.get(&StoreId::Node).is_some_and(Disk::is_full);
        let result = self.checks.event(node, event, is_full);
        self.check(result);
    }
}

fn new_disks(plan: &Plan, node: usize) -> Disks {
    let NodePlan { settings, lies, .. } = &plan.nodes[node];
    let lone_box = plan.nodes.len() == 1;
    let mut disks = Disks::default();
    let node_lie = match plan.breaker {
        Some(Breaker::SyncIgnored) => crate::disk::Lie::SyncIgnored,
        _ => crate::disk::Lie::None,
    };
    disks.0.insert(StoreId::Node, Disk::with_lie(node_lie));
    for (index, replica) in settings.replicas.iter().enumerate() {
        if !replica.is_local() {
            continue;
        }
        let mut disk = Disk::with_lie(lies[index]);
        if !lone_box {
            // `encamp init` on each box, by an operator who knows that nothing existed before.
            replicas::found(&mut disk, settings, replica.shard, TODAY_MS, true).expect("an empty store takes its mark");
            let _ = disk.sync();
            disk.power_cut();
        }
        disks.0.insert(StoreId::Replica(index as u16), disk);
    }
    disks
}

fn seed_bytes(seed: u64, who: u64, incarnation: u64) -> [u8; 32] {
    let mut bytes = [0; 32];
    bytes[..8].copy_from_slice(&seed.to_be_bytes());
    bytes[8..16].copy_from_slice(&who.to_be_bytes());
    bytes[16..24].copy_from_slice(&incarnation.to_be_bytes());
    bytes
}

fn port_number(settings: &Settings, port: Port) -> u16 {
    match port {
        Port::Front(n) => settings.front.listen[usize::from(n)].address.port(),
        Port::Replica(n, m) => match &settings.replicas[usize::from(n)].place {
            Place::Local { listen, .. } => listen[usize::from(m)].address.port(),
            Place::Remote { address } => address.port(),
        },
    }
}

fn port_of(settings: &Settings, address: SocketAddr) -> Option<Port> {
    if let Some(n) = settings.front.listen.iter().position(|listener| listener.address == address) {
        return Some(Port::Front(n as u16));
    }
    settings.replicas.iter().enumerate().find_map(|(n, replica)| match &replica.place {
        Place::Local { listen, .. } => {
            let m = listen.iter().position(|listener| listener.address == address)?;
            Some(Port::Replica(n as u16, m as u16))
        }
        Place::Remote { .. } => None,
    })
}

fn describe(said: &Read) -> String {
    let what = if said.code == 0 { said.method.clone() } else { format!("{} to {}", said.code, said.method) };
    let who = said.imsi.map(|imsi| imsi.short()).unwrap_or_default();
    let mut text = format!("{what} {who} {} {}", said.call_id, said.cseq);
    for (is, word) in [
        (said.has_challenge, "challenge"),
        (said.has_authorization, "authorization"),
        (said.has_record, "record"),
        (said.is_older, "older"),
    ] {
        if is {
            text.push(' ');
            text.push_str(word);
        }
    }
    if let Some(contact) = &said.contact {
        text.push_str(&format!(" <{contact}>"));
    }
    text
}
