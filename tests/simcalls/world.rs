//! The simulated world: boxes with their disks, the network, and what happens when, under one seed.
//!
//! Everything that happens is an event with a time; equal seeds give equal runs, to the byte. Base stations are in `cell.rs`, phones in
//! `phone.rs` and `texts.rs`; what is promised to them is checked in `checks.rs`, at the moment it leaves a box or arrives at a phone.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;

use encamp::config::{Place, Settings};
use encamp::event::Event;
use encamp::node::Node;
use encamp::register::replicas;
use encamp::seam::{Command, CommandAnswer, Ctx, Input, Local, Outbox, Output, Port, Rng};
use encamp::sip::parse::{Message, parse};
use encamp::store::{Batch, CommitId, Store, StoreId};
use encamp::time::{Instant, WallTime};

use crate::cell::{Cell, Leg, Tick};
use crate::checks::{CallTruth, Stage, Told, Violation};
use crate::disk::{Disk, Disks, Lie};
use crate::phone::Phone;
use crate::plan::{self, Breaker, Plan, TODAY_MS, front, node_ip};
use crate::says;
use crate::texts::{Incoming, TextTick, Trying, Written};

pub const SECOND: u64 = 1_000_000;
pub const MS: u64 = 1_000;

pub struct World {
    pub seed: u64,
    pub plan: Plan,
    pub rng: Rng,
    pub now_us: u64,
    queue: BTreeMap<(u64, u64), Ev>,
    event_count: u64,
    pub boxes: Vec<SimBox>,
    pub cells: Vec<Cell>,
    pub phones: Vec<Phone>,
    /// Every dialog that a base station ever had.
    pub legs: Vec<Leg>,
    pub leg_of: BTreeMap<(usize, String), usize>,
    pub calls: Vec<CallTruth>,
    /// Whose session description this is: the call that offers it, the leg that answers with it.
    pub offers: BTreeMap<Vec<u8>, usize>,
    pub answers: BTreeMap<Vec<u8>, usize>,
    /// By Call-ID: what a box has said there.
    pub told: BTreeMap<String, Told>,
    /// The Call-ID of what the box is handling, and whether it has said something there.
    pub hearing: Option<String>,
    pub has_spoken: bool,
    pub count: u64,
    /// The weather is over.
    pub fair: bool,
    /// Phones do nothing on their own any more.
    pub calm: bool,
    crashes_left: u64,
    pub texts: Vec<Written>,
    /// By the Call-ID of a phone's MESSAGE; of a box's.
    pub text_of: BTreeMap<String, usize>,
    pub tried: BTreeMap<String, Trying>,
    pub incoming: Vec<Incoming>,
    pub incoming_of: BTreeMap<(usize, String), usize>,
    /// Calls that a box says it has.
    listed: Vec<String>,
    pub met: BTreeMap<&'static str, u64>,
    pub checked: BTreeMap<&'static str, u64>,
    /// A digest of all outputs: equal seeds, equal digests.
    pub digest: u64,
    pub trace: Option<Vec<String>>,
    pub violation: Option<Violation>,
}

pub struct SimBox {
    pub node: Option<Node>,
    out: Outbox,
    pub disks: Disks,
    rng: Rng,
    pub incarnation: u64,
    timer_at: Option<u64>,
    /// When its own disk was last full.
    pub full_at: Option<u64>,
}

pub enum Ev {
    Text(TextTick),
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
    DiskFull {
        node: usize,
        until_us: u64,
    },
    DiskMend {
        node: usize,
    },
    CellRestarts(usize),
    PhoneActs(usize),
    /// A REGISTER should have been answered by now.
    Registered {
        phone: usize,
        cseq: u32,
    },
    Leg {
        leg: usize,
        tick: Tick,
    },
    /// What rings for a call that is over must have stopped.
    RingCheck {
        call: usize,
        stage: Stage,
    },
}

impl World {
    pub fn new(seed: u64, breaker: Option<Breaker>, traced: bool) -> World {
        let mut rng = Rng::from_seed(seed_bytes(seed, 0, 0));
        let plan = plan::draw(&mut rng, breaker);
        let boxes = (0..plan.nodes.len()).map(|node| SimBox {
            node: None,
            out: Outbox::default(),
            disks: new_disks(&plan, node),
            rng: Rng::from_seed(seed_bytes(seed, 1 + node as u64, 0)),
            incarnation: 0,
            timer_at: None,
            full_at: None,
        });
        let boxes = boxes.collect();
        let cells = plan
            .cells
            .iter()
            .map(|_| Cell { register_call_id: format!("{:x}", rng.u64()), cseq: rng.below(1 << 20) as u32 })
            .collect();
        let phones = plan.phones.iter().map(|_| Phone::default()).collect();
        let crashes_left = plan.weather.kills + plan.weather.power_cuts;
        let mut world = World {
            seed,
            rng,
            now_us: SECOND,
            queue: BTreeMap::new(),
            event_count: 0,
            boxes,
            cells,
            phones,
            legs: Vec::new(),
            leg_of: BTreeMap::new(),
            calls: Vec::new(),
            offers: BTreeMap::new(),
            answers: BTreeMap::new(),
            told: BTreeMap::new(),
            hearing: None,
            has_spoken: false,
            count: 0,
            fair: false,
            calm: false,
            crashes_left,
            listed: Vec::new(),
            texts: Vec::new(),
            text_of: BTreeMap::new(),
            tried: BTreeMap::new(),
            incoming: Vec::new(),
            incoming_of: BTreeMap::new(),
            met: BTreeMap::new(),
            checked: BTreeMap::new(),
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
        let then: [fn(&mut World); 5] =
            [World::heal, World::rest_with_calls, World::all_hang_up, World::rest, World::check_tables];
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
        for phone in 0..self.phones.len() {
            let when = self.now_us + SECOND / 2 + self.rng.below(5 * SECOND);
            self.at(when, Ev::PhoneActs(phone));
        }
        for (count, power_cut) in [(self.plan.weather.kills, false), (self.plan.weather.power_cuts, true)] {
            // The others come when it hurts: see `maybe_crash`.
            for _ in 0..count.div_ceil(2) {
                let node = self.rng.below(self.boxes.len() as u64) as usize;
                let when = self.now_us + 5 * SECOND + self.rng.below(busy_us);
                self.at(when, Ev::Crash { node, power_cut });
            }
        }
        for _ in 0..self.plan.weather.disks_full {
            let node = self.rng.below(self.boxes.len() as u64) as usize;
            let when = self.now_us + 5 * SECOND + self.rng.below(busy_us);
            let until_us = when + self.rng.below(20 * SECOND);
            self.at(when, Ev::DiskFull { node, until_us });
        }
        for _ in 0..self.plan.weather.cell_restarts {
            let cell = self.rng.below(self.cells.len() as u64) as usize;
            let when = self.now_us + 5 * SECOND + self.rng.below(busy_us);
            self.at(when, Ev::CellRestarts(cell));
        }
    }

    pub fn at(&mut self, when: u64, ev: Ev) {
        self.event_count += 1;
        self.queue.insert((when.max(self.now_us), self.event_count), ev);
    }

    pub fn after(&mut self, delay_us: u64, ev: Ev) {
        self.at(self.now_us + delay_us, ev);
    }

    pub fn tick(&mut self, leg: usize, delay_us: u64, tick: Tick) {
        self.after(delay_us, Ev::Leg { leg, tick });
    }

    /// Evenly from `from` to just below `to`, in milliseconds; the result in microseconds.
    pub fn between_ms(&mut self, from: u64, to: u64) -> u64 {
        (from + self.rng.below(to - from)) * MS + self.rng.below(MS)
    }

    pub fn one_in(&mut self, times: u64) -> bool {
        self.rng.below(times) == 0
    }

    pub fn meet(&mut self, what: &'static str) {
        *self.met.entry(what).or_default() += 1;
    }

    pub fn run_until(&mut self, end_us: u64) {
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
        self.violation.get_or_insert(Violation { promise, what });
    }

    fn happen(&mut self, ev: Ev) {
        let is_now = |world: &World, node: usize, incarnation: u64| {
            world.boxes[node].incarnation == incarnation && world.boxes[node].node.is_some()
        };
        match ev {
            Ev::Deliver { from, to, bytes } => self.deliver(from, to, &bytes),
            Ev::Timer { node, incarnation } => {
                if is_now(self, node, incarnation) {
                    self.boxes[node].timer_at = None;
                    self.timer(node);
                }
            }
            Ev::Sync { node, store, incarnation } => {
                if is_now(self, node, incarnation) {
                    self.sync(node, store);
                }
            }
            Ev::Start { node } => self.start(node),
            Ev::Crash { node, power_cut } => {
                if self.boxes[node].node.is_some() {
                    self.crash(node, power_cut);
                    let pause = self.between_ms(200, 4_000);
                    self.after(pause, Ev::Start { node });
                }
            }
            Ev::DiskFull { node, until_us } => {
                tell!(self, "box {node}: its own disk is full");
                self.meet("disk full");
                self.boxes[node].disks.0.get_mut(&StoreId::Node).expect("a disk").set_full(true);
                self.at(until_us, Ev::DiskMend { node });
            }
            Ev::DiskMend { node } => {
                tell!(self, "box {node}: its own disk has room again");
                self.boxes[node].full_at = Some(self.now_us);
                self.boxes[node].disks.0.get_mut(&StoreId::Node).expect("a disk").set_full(false);
                self.settle(node);
            }
            Ev::CellRestarts(cell) => self.cell_restarts(cell),
            Ev::PhoneActs(phone) => {
                if !self.calm {
                    self.phone_acts(phone);
                    let pause = self.between_ms(500, 9_000);
                    self.after(pause, Ev::PhoneActs(phone));
                }
            }
            Ev::Registered { phone, cseq } => self.register_due(phone, cseq),
            Ev::Leg { leg, tick } => self.leg_tick(leg, tick),
            Ev::RingCheck { call, stage } => self.check_ringing(call, stage),
            Ev::Text(tick) => self.text_tick(tick),
        }
    }

    // --- The boxes ---

    fn with_node<T>(&mut self, node: usize, act: impl FnOnce(&mut Option<Node>, &mut Ctx<'_>) -> T) -> T {
        let now = Instant(self.now_us);
        let wall = WallTime { ms: TODAY_MS + self.now_us / 1000, trusted: true };
        let SimBox { node, out, disks, rng, .. } = &mut self.boxes[node];
        act(node, &mut Ctx { now, wall, rng, stores: disks, out })
    }

    pub fn start(&mut self, node: usize) {
        if self.boxes[node].node.is_some() {
            return;
        }
        let settings = Arc::clone(&self.plan.nodes[node]);
        self.boxes[node].out = Outbox::default();
        self.boxes[node].incarnation += 1;
        self.boxes[node].timer_at = None;
        let incarnation = self.boxes[node].incarnation;
        self.boxes[node].rng = Rng::from_seed(seed_bytes(self.seed, 1 + node as u64, incarnation));
        tell!(self, "box {node} starts");
        let started = self.with_node(node, |slot, ctx| Node::start(ctx, settings).map(|node| *slot = Some(node)));
        if let Err(error) = started {
            tell!(self, "box {node} does not start: {error}");
            return self.after(SECOND, Ev::Start { node });
        }
        self.settle(node);
    }

    pub fn crash(&mut self, node: usize, power_cut: bool) {
        if self.boxes[node].node.is_none() {
            return;
        }
        let what = if power_cut { "loses power" } else { "is killed" };
        tell!(self, "box {node} {what}");
        self.boxes[node].node = None;
        self.boxes[node].incarnation += 1;
        for disk in self.boxes[node].disks.0.values_mut() {
            if power_cut {
                let unsynced = disk.written_seq() - disk.synced_seq();
                disk.sync_a_part(disk.synced_seq() + self.rng.below(unsynced + 1));
                disk.power_cut();
            } else {
                disk.process_ended();
            }
        }
        if self.plan.breaker == Some(Breaker::RecordsLost)
            && let Some(disk) = self.boxes[node].disks.0.get_mut(&StoreId::Node)
        {
            for (key, _) in disk.scan(b"call/", None, usize::MAX).unwrap_or_default() {
                let _ = disk.write(Batch::default().delete(key));
            }
            let _ = disk.sync();
        }
        self.note_crash(node, power_cut);
    }

    /// Something has happened after which a crash hurts most.
    pub fn maybe_crash(&mut self, node: usize, times: u64) {
        if self.crashes_left > 0 && !self.fair && self.one_in(times) {
            self.crashes_left -= 1;
            let power_cut = self.plan.weather.power_cuts > 0 && (self.plan.weather.kills == 0 || self.one_in(2));
            let pause = self.rng.below(60 * MS);
            self.after(pause, Ev::Crash { node, power_cut });
        }
    }

    fn timer(&mut self, node: usize) {
        let due = self.boxes[node].node.as_ref().and_then(Node::poll_timeout);
        if due.is_some_and(|when| when.0 <= self.now_us) {
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
        while let Some(output) = self.boxes[node].out.pop() {
            match output {
                Output::Datagram { from, to, bytes } => self.leaves(node, from, to, bytes),
                Output::Event(event) => {
                    tell!(self, "  box {node}: {event}");
                    self.event(node, &event);
                }
                Output::End(words) => {
                    tell!(self, "  box {node} ends: {words}");
                    self.crash(node, false);
                    return self.after(SECOND, Ev::Start { node });
                }
                Output::Answer { answer, .. } => {
                    tell!(self, "  box {node} answers: {answer:?}");
                    if let CommandAnswer::Calls(calls) = answer {
                        self.listed = calls.into_iter().map(|call| call.id).collect();
                    }
                }
                _ => {}
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
                let delay = 200 + self.rng.below(most);
                self.after(delay, Ev::Sync { node, store, incarnation });
            }
        }
        let next = self.boxes[node].node.as_ref().and_then(Node::poll_timeout).map(|when| when.0);
        if let Some(when) = next
            && self.boxes[node].timer_at.is_none_or(|at| when < at)
        {
            self.boxes[node].timer_at = Some(when);
            self.at(when, Ev::Timer { node, incarnation });
        }
    }

    fn sync(&mut self, node: usize, store: StoreId) {
        let Some(disk) = self.boxes[node].disks.0.get_mut(&store) else { return };
        disk.sync_scheduled = false;
        if let Ok(seq) = disk.sync() {
            self.handle(node, Input::Synced(CommitId { store, seq }));
        }
    }

    fn event(&mut self, node: usize, event: &Event) {
        match event {
            Event::NodeStoreRefused { .. } => self.boxes[node].full_at = Some(self.now_us),
            Event::StrayAnswer { .. } => self.meet("stray 200"),
            Event::CallsResumed { count, .. } if *count > 0 => self.meet("calls resumed"),
            _ => {}
        }
    }

    // --- The network ---

    fn leaves(&mut self, node: usize, from: Local, to: SocketAddr, bytes: Vec<u8>) {
        let from = SocketAddr::new(node_ip(node), port_number(&self.plan.nodes[node], from.port));
        let Ok(message) = parse(&bytes) else {
            return self.broken("what we write can be read", String::from_utf8_lossy(&bytes).into_owned());
        };
        if let Some(cell) = self.cell_at(to) {
            let Some(changed) = self.breaks(&message, &bytes) else { return };
            let bytes = changed.unwrap_or_else(|| bytes.clone());
            let Ok(message) = parse(&bytes) else { return };
            for byte in &bytes {
                self.digest = (self.digest ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3);
            }
            tell!(self, "  box {node} > cell {cell}: {}", says::describe(&message));
            self.box_says(node, cell, &message, bytes.len());
            return self.send(from, to, bytes);
        }
        self.send(from, to, bytes);
    }

    /// What a breaker does to a datagram on its way out: `None` where it never leaves, `Some(None)` where nothing is done to it.
    #[allow(clippy::option_option, reason = "two questions: does it leave, and is it another one")]
    fn breaks(&mut self, message: &Message<'_>, bytes: &[u8]) -> Option<Option<Vec<u8>>> {
        let replaced = |from: &str, to: &str| {
            let text = String::from_utf8_lossy(bytes).into_owned();
            Some(text.contains(from).then(|| text.replacen(from, to, 1).into_bytes()))
        };
        match self.plan.breaker {
            Some(Breaker::NeverSends(method)) if message.method() == Some(method) => None,
            Some(Breaker::SdpChanged) if !message.body.is_empty() => replaced("a=rtpmap:3", "a=rtpmap:8"),
            Some(Breaker::PhraseLost) if message.code() == Some(486) => {
                replaced("486 User_Busy", "486 Busy Here").map(|changed| {
                    let changed = String::from_utf8(changed?).ok()?;
                    Some(changed.replacen("Q.850;cause=17", "Q.850;cause=31", 1).into_bytes())
                })
            }
            _ => Some(None),
        }
    }

    pub fn send(&mut self, from: SocketAddr, to: SocketAddr, bytes: Vec<u8>) {
        let bytes: Arc<[u8]> = bytes.into();
        let weather = &self.plan.weather;
        let (lost, doubled, late, late_ms_max, delay_us_max) = match self.fair {
            true => (0, 0, 0, 1, 5_000),
            false => (weather.lost, weather.doubled, weather.late, weather.late_ms_max, weather.delay_us_max),
        };
        let copies = if self.rng.below(1000) < doubled { 2 } else { 1 };
        if copies == 2 {
            self.meet("duplicate");
        }
        let (mut arrive, mut is_late) = (0, false);
        for _ in 0..copies {
            if self.rng.below(1000) < lost {
                continue;
            }
            let mut delay_us = 100 + self.rng.below(delay_us_max);
            if self.rng.below(1000) < late {
                delay_us += self.rng.below(late_ms_max) * 1000;
                is_late = true;
            }
            arrive += 1;
            let bytes = Arc::clone(&bytes);
            self.after(delay_us, Ev::Deliver { from, to, bytes });
        }
        if (arrive == 0 || is_late)
            && let Ok(message) = parse(&bytes)
        {
            if arrive == 0 {
                tell!(self, "    lost: {}", says::describe(&message));
            }
            self.weather_hits(&message, arrive == 0);
        }
    }

    fn deliver(&mut self, from: SocketAddr, to: SocketAddr, bytes: &[u8]) {
        let Ok(message) = parse(bytes) else { return };
        if let Some(node) = self.box_at(to) {
            let Some(port) = port_of(&self.plan.nodes[node], to) else { return };
            let from_cell = self.cell_at(from);
            if self.boxes[node].node.is_none() {
                return self.weather_hits(&message, true);
            }
            let is_text_taken = message.cseq().1 == "MESSAGE" && message.code() == Some(200);
            if self.plan.breaker == Some(Breaker::AnswersUnheard) && is_text_taken {
                return;
            }
            if let Some(cell) = from_cell {
                tell!(self, "box {node} < cell {cell}: {}", says::describe(&message));
                self.box_hears(cell, &message);
                self.hearing = Some(message.call_id().to_owned());
                self.has_spoken = false;
            }
            if from_cell.is_none() {
                tell!(self, "box {node} < box: {}", says::describe(&message));
            }
            let to = Local { port, address: Some(to.ip()) };
            let mut changed = None;
            if self.plan.breaker == Some(Breaker::CopiesDiffer) && message.method() == Some("INVITE") && self.one_in(3)
            {
                let text = String::from_utf8_lossy(bytes).replacen(";tag=OBTS", ";tag=OBTT", 1);
                changed = Some(text.into_bytes());
            }
            self.handle(node, Input::Datagram { from, to, bytes: changed.as_deref().unwrap_or(bytes) });
            if from_cell.is_some() {
                self.box_has_heard(&message);
                self.hearing = None;
            }
        } else if let Some(cell) = self.cell_at(to) {
            tell!(self, "cell {cell} <: {}", says::describe(&message));
            self.cell_hears(cell, from, &message, bytes);
        }
    }

    pub fn box_at(&self, address: SocketAddr) -> Option<usize> {
        (0..self.plan.nodes.len()).find(|node| node_ip(*node) == address.ip())
    }

    pub fn cell_at(&self, address: SocketAddr) -> Option<usize> {
        self.plan.cells.iter().position(|cell| cell.address == address)
    }

    // --- The end ---

    fn heal(&mut self) {
        tell!(self, "the faults are over");
        self.fair = true;
        self.calm = true;
        self.queue.retain(|_, ev| !matches!(ev, Ev::Crash { .. } | Ev::DiskFull { .. } | Ev::CellRestarts(_)));
        for node in 0..self.boxes.len() {
            if self.boxes[node].disks.0[&StoreId::Node].is_full() {
                self.happen(Ev::DiskMend { node });
            }
            self.start(node);
        }
        // Everybody comes back, and is heard of now and then.
        for _ in 0..3 {
            for phone in 0..self.phones.len() {
                if self.phones[phone].at.is_none() {
                    self.phones[phone].at = Some(self.rng.below(self.cells.len() as u64) as usize);
                }
                self.register(phone, 5400);
            }
            self.run_until(self.now_us + 60 * SECOND);
        }
    }

    /// 200 s in which nobody begins anything: what is not a call between two phones is over.
    fn rest_with_calls(&mut self) {
        // A phone that was found absent while the disk was full is not waited for by name: its texts come after their pause.
        let pause_s = if self.plan.weather.disks_full > 0 { 1_500 } else { 0 };
        self.run_until(self.now_us + (200 + pause_s) * SECOND);
        if self.violation.is_none() {
            self.check_rest();
        }
    }

    fn all_hang_up(&mut self) {
        tell!(self, "everybody hangs up");
        for leg in 0..self.legs.len() {
            self.leg_tick(leg, Tick::HangUp);
        }
        self.run_until(self.now_us + 100 * SECOND);
        // Of a call whose base stations were restarted nobody tells the box, and probes find them alive; and what a full disk had no
        // room for was not kept. The operator ends it.
        let vanished = |call: &CallTruth| call.is_forgotten() || call.legs().any(|leg| self.legs[leg].vanished);
        let left = self.calls.iter().filter(|call| vanished(call)).count();
        for node in 0..self.boxes.len() {
            self.listed.clear();
            self.handle(node, Input::Command { id: 1, command: Command::Calls });
            if self.listed.len() <= left {
                for id in std::mem::take(&mut self.listed) {
                    self.meet("ended by the operator");
                    self.handle(node, Input::Command { id: 2, command: Command::CallEnd(id) });
                }
            }
        }
        self.run_until(self.now_us + 100 * SECOND);
    }

    fn rest(&mut self) {
        self.check_rest();
        for node in 0..self.boxes.len() {
            let under_way = self.boxes[node].node.as_ref().map_or(1, Node::under_way);
            let held = self.boxes[node].out.held_count();
            let disk = &self.boxes[node].disks.0[&StoreId::Node];
            let records: usize =
                [&b"call/"[..], b"invite/"].map(|of| disk.scan(of, None, 10).unwrap_or_default().len()).iter().sum();
            if under_way + held + records > 0 {
                let what = format!("box {node}: {under_way} under way, {held} held, {records} records");
                self.handle(node, Input::Command { id: 1, command: Command::Calls });
                self.broken(crate::checks::EMPTY, what);
            }
        }
        self.run_until(self.now_us + 200 * SECOND);
        for node in 0..self.boxes.len() {
            let remembered = self.boxes[node].node.as_ref().map_or(1, Node::remembered);
            // Two boxes ask each other now and then whether they live.
            if remembered > 0 && self.boxes.len() == 1 {
                self.broken(crate::checks::EMPTY, format!("box {node} remembers {remembered} things 200 s later"));
            }
        }
    }
}

fn new_disks(plan: &Plan, node: usize) -> Disks {
    let settings = &plan.nodes[node];
    let mut disks = Disks::default();
    let lie = if plan.breaker == Some(Breaker::SyncIgnored) { Lie::SyncIgnored } else { Lie::None };
    disks.0.insert(StoreId::Node, Disk::with_lie(lie));
    disks.0.insert(StoreId::Messages, Disk::with_lie(lie));
    for (index, replica) in settings.replicas.iter().enumerate() {
        if !replica.is_local() {
            continue;
        }
        let mut disk = Disk::default();
        if plan.nodes.len() > 1 {
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
        Port::Replica(n, _) => plan::replica_port(usize::from(n)),
    }
}

fn port_of(settings: &Settings, address: SocketAddr) -> Option<Port> {
    if address.port() == plan::FRONT_PORT {
        return Some(Port::Front(0));
    }
    let n = settings.replicas.iter().position(|replica| match &replica.place {
        Place::Local { listen, .. } => listen.iter().any(|listener| listener.address == address),
        Place::Remote { .. } => false,
    })?;
    Some(Port::Replica(n as u16, 0))
}

/// Where a base station sends what is no part of a dialog yet.
pub fn proxy_of(plan: &Plan, cell: usize) -> SocketAddr {
    front(plan.cells[cell].node)
}
