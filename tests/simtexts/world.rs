//! The world: boxes that lose power, disks that are slow, a net that loses, doubles, delays and reorders, in virtual time.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::net::SocketAddr;

use encamp::seam::{Command, Input, Local, Output, QueueAsk, QueuePick, Rng, Who};
use encamp::store::{CommitId, StoreId};

use crate::boxes::*;
use crate::checks::{Ledger, To, Violation};
use crate::phone::{Later, Phone};
use crate::wire::Sip;

pub const SECOND: u64 = 1_000_000;
const MS: u64 = 1_000;
const TROUBLE_EVERY_US: u64 = 250 * MS;
pub const BUSY_US: u64 = 300 * SECOND;
/// After the faults end nobody registers for so long: what was under way comes to rest, boxes that came back send again.
const REST_US: u64 = 120 * SECOND;
/// Then all are back, and the rest is delivered within this; the ladders of temporary failures are an hour long.
const CALM_US: u64 = 3 * 3600 * SECOND;
const TRACE_LINES: usize = 50_000;

/// A deliberate fault of the world, which the check named with it has to notice.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Breaker {
    SyncIgnored,
    SyncedLost,
    DigestsLost,
    LastFirst,
    /// The net doubles MESSAGEs to base stations, which show a copy again.
    NetDoubles,
    /// The second attempt comes with another timestamp.
    NewTimestamp,
    /// Nobody is told that a text may be a duplicate.
    MarksUnsaid,
    /// What became of a text is told wrongly.
    ReportLies,
    /// Every MESSAGE leaves twice, as two.
    TwoAtOnce,
    /// A station is given more than it has room for.
    MorePlaces,
    /// No box tells another that a phone is back.
    AlertsLost,
    /// A box hears no deadline any more.
    TimersStop,
    /// Each line of the records is written twice.
    RecordsTwice,
    /// A base station says yes and has not given it to the phone.
    YesWithoutPhone,
}

/// One text, and how its phone is.
#[derive(Clone, Copy, Debug)]
pub struct Story {
    pub from: usize,
    pub to: usize,
    pub parts: u8,
    pub report: bool,
    pub absent: bool,
    pub full: bool,
}

pub enum Ev {
    Arrive {
        from: SocketAddr,
        to: SocketAddr,
        bytes: Vec<u8>,
    },
    Sync {
        which: usize,
        life: u32,
        store: StoreId,
    },
    Synced {
        which: usize,
        life: u32,
        commit: CommitId,
    },
    Start {
        which: usize,
    },
    Trouble,
    Phone(Later),
    /// A phone came back then: those who waited for it have gone on.
    CheckReturn {
        phone: usize,
        at_us: u64,
        waiting: Vec<(usize, Vec<u64>)>,
    },
}

pub struct World {
    pub breaker: Option<Breaker>,
    pub rng: Rng,
    pub now_us: u64,
    pub boxes: Vec<Site>,
    pub events: BTreeMap<(u64, u64), Ev>,
    count: u64,
    pub phones: Vec<Phone>,
    pub ledger: Ledger,
    pub next_text: usize,
    pub next_id: u64,
    /// Requests of phones that nobody has answered: said again.
    pub pending: BTreeMap<String, (SocketAddr, SocketAddr, Vec<u8>)>,
    /// MESSAGEs at base stations that page for them.
    pub paging: BTreeSet<(SocketAddr, String)>,
    /// What others than OpenBTS have answered, and say again to a copy.
    pub answered: BTreeMap<(SocketAddr, String), Vec<u8>>,
    links_down: BTreeSet<(usize, usize)>,
    pub fair: bool,
    coarse: bool,
    pub quiet: bool,
    pub trace: Option<VecDeque<String>>,
    pub digest: u64,
    pub met: BTreeMap<&'static str, u64>,
    pub violation: Option<Violation>,
    /// Steps of a box's life: at these it loses power.
    pub step: u64,
    pub cut_at: BTreeSet<u64>,
    pub cut_only: Option<usize>,
    /// What phones and base stations say is mutilated, and nothing is promised but that nobody falls over it.
    pub fuzz: bool,
    /// When a box died last.
    pub died_us: u64,
    /// An operator ended texts before their time.
    pub expired_by_hand: bool,
}

impl World {
    pub fn new(seed: u64, breaker: Option<Breaker>, trace: bool) -> World {
        let mut bytes = [9; 32];
        bytes[..8].copy_from_slice(&seed.to_be_bytes());
        let mut rng = Rng::from_seed(bytes);
        let lie = match breaker {
            Some(Breaker::SyncIgnored) => Lie::SyncIgnored,
            Some(Breaker::SyncedLost) => Lie::SyncedLost,
            Some(Breaker::DigestsLost) => Lie::DigestsLost,
            Some(Breaker::LastFirst) => Lie::LastFirst,
            _ => Lie::None,
        };
        let places = if breaker == Some(Breaker::MorePlaces) { PLACES + 2 } else { PLACES };
        // One box may wake up in 1970, and learn later what time it is.
        let untrusted = rng.below(4) as usize;
        let boxes = (0..BOXES).map(|which| Site::new(which, seed, lie, places, which != untrusted)).collect();
        let cuts = rng.below(3);
        let cut_at = (0..cuts).map(|_| rng.below(12_000)).collect();
        World {
            breaker,
            rng,
            now_us: 0,
            boxes,
            events: BTreeMap::new(),
            count: 0,
            phones: Phone::all(),
            ledger: Ledger::default(),
            next_text: 0,
            next_id: 0,
            pending: BTreeMap::new(),
            paging: BTreeSet::new(),
            answered: BTreeMap::new(),
            links_down: BTreeSet::new(),
            fair: false,
            coarse: false,
            quiet: false,
            trace: trace.then(VecDeque::new),
            digest: 0xcbf2_9ce4_8422_2325,
            met: BTreeMap::new(),
            violation: None,
            step: 0,
            cut_at,
            cut_only: None,
            fuzz: false,
            died_us: 0,
            expired_by_hand: false,
        }
    }

    pub fn tell(&mut self, what: impl FnOnce() -> String) {
        let now_us = self.now_us;
        if let Some(trace) = &mut self.trace {
            trace.push_back(format!("{:>10.3} {}", now_us as f64 / 1e6, what()));
            if trace.len() > TRACE_LINES {
                trace.pop_front();
            }
        }
    }

    pub fn meet(&mut self, what: &'static str) {
        *self.met.entry(what).or_default() += 1;
    }

    pub fn broken(&mut self, promise: &'static str, what: String) {
        if self.violation.is_none() && !self.fuzz {
            self.violation = Some(Violation { promise, what, at_us: self.now_us });
        }
    }

    pub fn one_in(&mut self, n: u64) -> bool {
        self.rng.below(n) == 0
    }

    /// In a bad time, once in so many.
    pub fn bad(&mut self, n: u64) -> bool {
        !self.fair && self.one_in(n)
    }

    pub fn later(&mut self, us: u64, ev: Ev) {
        self.count += 1;
        self.events.insert((self.now_us + us, self.count), ev);
    }

    // --- The run ---

    pub fn run(&mut self) -> Option<Violation> {
        for which in 0..BOXES {
            self.start(which);
        }
        self.run_until(5 * SECOND);
        for phone in 0..PHONES {
            self.phones[phone].on = true;
            self.phones[phone].place = self.rng.below(self.phones[phone].places().len() as u64) as usize;
            self.register(phone);
        }
        self.later(0, Ev::Trouble);
        self.run_until(BUSY_US);
        self.end_of_trouble();
        self.violation.clone()
    }

    /// The faults end, all come back, and nothing is left.
    pub fn end_of_trouble(&mut self) {
        self.tell(|| "the faults end".into());
        self.fair = true;
        self.cut_at.clear();
        self.links_down.clear();
        for which in 0..BOXES {
            self.boxes[which].slow_until_us = 0;
            self.set_full(which, false);
            self.boxes[which].trusted = true;
            if self.boxes[which].shift_ms < -1_000_000 {
                self.boxes[which].shift_ms = 0;
            }
        }
        let until = self.now_us + REST_US;
        self.run_until(until);
        self.quiet = true;
        for round in 0..2 {
            for phone in 0..PHONES {
                self.set_memory(phone, true);
                self.phones[phone].on = true;
                if round == 0 {
                    self.phones[phone].place = self.rng.below(self.phones[phone].places().len() as u64) as usize;
                }
                self.register(phone);
                let until = self.now_us + 20 * SECOND;
                self.run_until(until);
            }
            let until = self.now_us + 200 * SECOND;
            self.run_until(until);
        }
        self.drain();
    }

    /// Phones at their first places, no weather, and one text; this box loses power at this step of it. How many steps there are.
    pub fn run_one(&mut self, story: Story, which: usize, cut_at: Option<u64>) -> (u64, Option<Violation>) {
        self.fair = true;
        self.quiet = true;
        self.cut_at.clear();
        for other in 0..BOXES {
            self.boxes[other].trusted = true;
            self.boxes[other].shift_ms = 0;
            self.start(other);
        }
        for phone in 0..PHONES {
            self.phones[phone].on = true;
            self.register(phone);
        }
        self.run_until(10 * SECOND);
        if story.absent {
            self.phones[story.to].on = false;
        }
        self.set_memory(story.to, !story.full);
        (self.step, self.cut_only) = (0, Some(which));
        self.cut_at.extend(cut_at);
        self.compose(story.from, To::Phone(story.to), story.parts, story.report, (None, None, false));
        self.run_until(45 * SECOND);
        self.set_memory(story.to, true);
        self.phones[story.to].place = self.phones[story.to].places().len() - 1;
        self.phones[story.to].on = true;
        self.register(story.to);
        self.run_until(107 * SECOND);
        let steps = self.step;
        self.cut_at.clear();
        self.cut_only = None;
        self.drain();
        (steps, self.violation.clone())
    }

    /// Everything ends, however long the ladders are.
    fn drain(&mut self) {
        self.coarse = true;
        let end = self.now_us + CALM_US;
        while self.now_us < end && self.violation.is_none() && !self.is_calm() {
            let until = self.now_us + 60 * SECOND;
            self.run_until(until);
        }
        if self.violation.is_none() {
            self.check_end();
        }
    }

    fn is_calm(&self) -> bool {
        self.ledger.waiting() == 0
            && self.pending.is_empty()
            && self
                .boxes
                .iter()
                .all(|one| one.out.held_count() == 0 && one.node.as_ref().is_some_and(|node| node.under_way() == 0))
    }

    pub fn run_until(&mut self, end_us: u64) {
        while self.violation.is_none() {
            let event = self.events.first_key_value().map(|((at, _), _)| *at);
            let timeout = (0..BOXES).filter_map(|which| Some((self.timeout_of(which)?, which))).min();
            let next = match (event, timeout) {
                (Some(event), Some((timeout, _))) => event.min(timeout),
                (Some(event), None) => event,
                (None, Some((timeout, _))) => timeout,
                (None, None) => break,
            };
            if next > end_us {
                break;
            }
            self.now_us = self.now_us.max(next);
            match (event, timeout) {
                (Some(event), _) if event <= self.now_us => {
                    let Some((_, ev)) = self.events.pop_first() else { break };
                    self.happen(ev);
                }
                (_, Some((_, which))) => self.feed(which, Input::Timeout),
                _ => break,
            }
        }
        self.now_us = self.now_us.max(end_us);
    }

    fn timeout_of(&self, which: usize) -> Option<u64> {
        if self.breaker == Some(Breaker::TimersStop) && which == 0 && self.quiet {
            return None;
        }
        let at = self.boxes[which].next_timeout_us()?;
        Some(if self.coarse { at.next_multiple_of(10 * SECOND) } else { at })
    }

    fn happen(&mut self, ev: Ev) {
        match ev {
            Ev::Arrive { from, to, bytes } => match port_of(to) {
                Some((which, port)) => {
                    if let Some((other, _)) = port_of(from)
                        && self.links_down.contains(&(other.min(which), other.max(which)))
                    {
                        return;
                    }
                    if self.boxes[which].node.is_none() {
                        return;
                    }
                    self.heard(which, &bytes);
                    let to = Local { port, address: None };
                    self.feed(which, Input::Datagram { from, to, bytes: &bytes });
                }
                None => self.at_phone(from, to, &bytes),
            },
            Ev::Sync { which, life, store } => self.sync(which, life, store),
            Ev::Synced { which, life, commit } => {
                if self.boxes[which].life == life {
                    self.feed(which, Input::Synced(commit));
                }
            }
            Ev::Start { which } => self.start(which),
            Ev::Trouble => {
                self.trouble();
                if self.now_us < BUSY_US {
                    self.later(TROUBLE_EVERY_US, Ev::Trouble);
                }
            }
            Ev::Phone(later) => self.phone_later(later),
            Ev::CheckReturn { phone, at_us, waiting } => self.check_return(phone, at_us, &waiting),
        }
    }

    // --- Boxes ---

    pub fn start(&mut self, which: usize) {
        if self.boxes[which].node.is_some() {
            return;
        }
        self.tell(|| format!("box {which} starts"));
        let now_us = self.now_us;
        self.boxes[which].start(now_us);
        self.took_in(which);
    }

    pub fn feed(&mut self, which: usize, input: Input<'_>) {
        if self.boxes[which].handle(self.now_us, input) {
            self.took_in(which);
        }
    }

    /// What an input led to: writes, then what leaves.
    fn took_in(&mut self, which: usize) {
        let fresh = self.boxes[which].messages().take_fresh();
        for (seq, batch) in fresh {
            self.written(which, seq, &batch);
        }
        let life = self.boxes[which].life;
        let ids: Vec<StoreId> = self.boxes[which].disks.0.keys().copied().collect();
        for store in ids {
            let slow_until_us = self.boxes[which].slow_until_us;
            let disk = self.boxes[which].disks.0.get_mut(&store).expect("it has it");
            if disk.needs_sync() && !disk.sync_scheduled {
                disk.sync_scheduled = true;
                let takes_us = 300 + self.rng.below(5 * MS);
                let wait_us = slow_until_us.saturating_sub(self.now_us) + takes_us;
                self.later(wait_us, Ev::Sync { which, life, store });
            }
        }
        if self.step_of(which) {
            return;
        }
        while let Some(output) = self.boxes[which].out.pop() {
            self.leaves(which, output);
            if self.violation.is_some() || self.boxes[which].life != life || self.boxes[which].node.is_none() {
                return;
            }
            if self.step_of(which) {
                return;
            }
        }
    }

    /// One more step of a box; `true`: it was its last one.
    fn step_of(&mut self, which: usize) -> bool {
        if self.cut_only.is_some_and(|only| only != which) {
            return false;
        }
        self.step += 1;
        if !self.cut_at.remove(&self.step) {
            return false;
        }
        self.power_cut(which);
        true
    }

    fn leaves(&mut self, which: usize, output: Output) {
        match output {
            Output::Datagram { from, to, bytes } => {
                for byte in &bytes {
                    self.digest = (self.digest ^ u64::from(*byte)).wrapping_mul(0x100_0000_01b3);
                }
                self.sent(which, to, &bytes);
                let from = source_of(which, from.port);
                if self.breaker == Some(Breaker::TwoAtOnce) && bytes.starts_with(b"MESSAGE ") && port_of(to).is_none() {
                    let other = String::from_utf8_lossy(&bytes).replace("Call-ID: m", "Call-ID: mm").into_bytes();
                    self.sent(which, to, &other);
                }
                self.wire(from, to, bytes);
            }
            Output::Event(event) => {
                self.tell(|| format!("box {which}: {event}"));
                self.told(which, &event);
            }
            Output::TextRecord(record) => {
                self.recorded(which, &record);
                if self.breaker == Some(Breaker::RecordsTwice) {
                    self.recorded(which, &record);
                }
            }
            Output::End(why) => {
                self.tell(|| format!("box {which} ends: {why}"));
                self.meet("a store fails");
                self.power_cut(which);
            }
            _ => {}
        }
    }

    fn sync(&mut self, which: usize, life: u32, store: StoreId) {
        let one = &mut self.boxes[which];
        if one.life != life || one.node.is_none() {
            return;
        }
        if one.slow_until_us > self.now_us {
            let wait_us = one.slow_until_us - self.now_us;
            return self.later(wait_us, Ev::Sync { which, life, store });
        }
        let disk = one.disks.0.get_mut(&store).expect("it has it");
        disk.sync_scheduled = false;
        match disk.sync() {
            Ok(seq) => {
                let late_us = self.rng.below(2 * MS);
                self.later(late_us, Ev::Synced { which, life, commit: CommitId { store, seq } });
                // Between a sync and the word of it.
                self.step_of(which);
            }
            Err(error) => self.feed(which, Input::StoreFailed(store, error.to_string())),
        }
    }

    pub fn power_cut(&mut self, which: usize) {
        self.tell(|| format!("box {which} loses power"));
        self.meet("power cut");
        self.note_cut(which);
        self.dies(which, false);
    }

    /// `kindly`: the machine goes on, and so what was written is there.
    pub fn dies(&mut self, which: usize, kindly: bool) {
        let one = &mut self.boxes[which];
        if one.node.take().is_none() {
            return;
        }
        while one.out.pop().is_some() {}
        self.died_us = self.now_us;
        let mut kept = 0;
        for (id, disk) in &mut one.disks.0 {
            let unsynced = disk.unsynced();
            let more = if kindly { unsynced } else { self.rng.below(unsynced + 1) };
            let reached = disk.power_cut(more);
            if *id == StoreId::Messages {
                kept = reached;
            }
        }
        self.lost_power(which, kept);
        let down_us = 200 * MS + self.rng.below(15 * SECOND);
        self.later(down_us, Ev::Start { which });
    }

    fn set_full(&mut self, which: usize, full: bool) {
        self.boxes[which].messages().set_full(full);
        self.boxes[which].full_until_us = 0;
    }

    // --- The net ---

    pub fn wire(&mut self, from: SocketAddr, to: SocketAddr, mut bytes: Vec<u8>) {
        let is_mt = bytes.starts_with(b"MESSAGE ") && port_of(to).is_none();
        if self.breaker == Some(Breaker::AlertsLost) && bytes.starts_with(b"NOTIFY ") {
            return;
        }
        if is_mt {
            bytes = self.spoilt(bytes);
        }
        if self.fuzz && port_of(from).is_none() && !self.fair && self.one_in(2) {
            self.mutilate(&mut bytes);
        }
        let may_double = !is_mt || self.breaker == Some(Breaker::NetDoubles);
        let copies = match (self.fair, self.rng.below(20)) {
            (false, 0) => 0,
            // A copy of a MESSAGE that comes after its answer is a second SMS at OpenBTS, and none of our doing.
            (false, 1) if may_double => 2,
            _ => 1,
        };
        if copies == 0 {
            self.note_lost(&bytes);
        }
        for copy in 0..copies {
            let late_us = match self.bad(20) {
                // After the answer, that is.
                _ if copy > 0 && is_mt => 8 * SECOND + self.rng.below(4 * SECOND),
                true => self.rng.below(4 * SECOND),
                false => MS + self.rng.below(20 * MS),
            };
            self.later(late_us, Ev::Arrive { from, to, bytes: bytes.clone() });
        }
    }

    /// Octets changed, cut out and put in, in the body first of all.
    fn mutilate(&mut self, bytes: &mut Vec<u8>) {
        let body = bytes.windows(4).position(|four| four == b"\r\n\r\n").map_or(0, |at| at + 4);
        let from = if self.one_in(4) { 0 } else { body };
        for _ in 0..=self.rng.below(4) {
            let length = (bytes.len() - from.min(bytes.len())) as u64;
            let at = from + self.rng.below(length + 1) as usize;
            let octet = self.rng.below(256) as u8;
            match self.rng.below(4) {
                0 if at < bytes.len() => drop(bytes.remove(at)),
                1 => bytes.insert(at.min(bytes.len()), octet),
                2 => bytes.truncate(at),
                _ => bytes.iter_mut().skip(at).take(1).for_each(|held| *held = octet),
            }
        }
    }

    /// A MESSAGE to a phone, after a world that is broken on purpose had its hands on it.
    fn spoilt(&mut self, bytes: Vec<u8>) -> Vec<u8> {
        use encamp::gsm::report::{Status, StatusReport};
        use encamp::gsm::rpdu::{Rpdu, from_hex, to_hex};
        use encamp::gsm::tpdu::{Deliver, Scts};
        let Some(sip) = Sip::read(&bytes).filter(|_| self.breaker.is_some()) else { return bytes };
        let Ok(octets) = from_hex(&sip.body) else { return bytes };
        let Ok((Rpdu::DataToPhone { reference, originator, destination, tpdu }, _)) = Rpdu::decode(&octets) else {
            return bytes;
        };
        let tpdu = match (self.breaker, Deliver::decode(tpdu), StatusReport::decode(tpdu)) {
            (Some(Breaker::NewTimestamp), Ok((deliver, _)), _) => {
                let timestamp = Scts::from_unix(TODAY_MS / 1000 + self.now_us / SECOND);
                Deliver { timestamp, ..deliver }.encode()
            }
            (Some(Breaker::ReportLies), _, Ok((report, _))) => {
                let status = if report.status == Status::RECEIVED { Status::BUSY } else { Status::RECEIVED };
                StatusReport { status, ..report }.encode()
            }
            _ => return bytes,
        };
        let rpdu = Rpdu::DataToPhone { reference, originator, destination, tpdu: &tpdu };
        let body = to_hex(&rpdu.encode().expect("as long as before"));
        let head = String::from_utf8_lossy(&bytes[..bytes.len() - sip.body.len()]).into_owned();
        format!("{head}{body}").into_bytes()
    }

    // --- Trouble ---

    fn trouble(&mut self) {
        let phone = self.rng.below(PHONES as u64) as usize;
        let which = self.rng.below(BOXES as u64) as usize;
        if self.boxes[which].full_until_us != 0 && self.boxes[which].full_until_us < self.now_us {
            self.set_full(which, false);
        }
        match self.rng.below(200) {
            0..16 => self.write(phone),
            16..20 => self.moves(phone),
            20..23 => {
                self.tell(|| format!("phone {phone} loses coverage"));
                self.phones[phone].on = false;
                self.aborts(phone);
            }
            23 => self.detaches(phone),
            24..28 => self.comes_back(phone),
            28..30 => self.set_memory(phone, false),
            30..32 => self.set_memory(phone, true),
            32 => {
                let other = (which + 1) % BOXES;
                let link = (which.min(other), which.max(other));
                if !self.links_down.remove(&link) {
                    self.links_down.insert(link);
                }
            }
            33..35 => self.boxes[which].slow_until_us = self.now_us + self.rng.below(4 * SECOND),
            35 => {
                self.tell(|| format!("the disk of box {which} is full"));
                self.meet("a full disk");
                self.boxes[which].full_until_us = self.now_us + self.rng.below(20 * SECOND) + 1;
                self.boxes[which].messages().set_full(true);
            }
            36 => self.power_cut(which),
            37 if self.one_in(2) => {
                self.tell(|| format!("kill -9 of box {which}"));
                self.meet("kill -9");
                self.dies(which, true);
            }
            38 => {
                let one = &mut self.boxes[which];
                if one.trusted {
                    one.shift_ms += self.rng.below(120_000) as i64 - 60_000;
                    self.meet("a clock that jumps");
                } else {
                    one.trusted = true;
                    one.shift_ms = 0;
                    self.meet("a clock that wakes up");
                }
                self.ledger.jumped.insert(which);
            }
            39 if self.one_in(3) => self.boxes[which].messages().fail_next_sync(),
            40 => self.operates(which, phone),
            41..44 => self.commands(phone),
            _ => {}
        }
    }

    /// An operator drops or expires what waits for a phone, or has it tried again.
    fn operates(&mut self, which: usize, phone: usize) {
        let pick = match self.ledger.some_waiting(which, phone) {
            Some(number) if self.one_in(2) => QueuePick::Text(number),
            _ => QueuePick::Phone(Who::Imsi(imsi(phone))),
        };
        let ask = match self.rng.below(6) {
            0 => QueueAsk::Drop(pick),
            1 => QueueAsk::Expire(pick),
            _ => QueueAsk::Retry(pick),
        };
        self.expired_by_hand |= matches!(ask, QueueAsk::Expire(_));
        self.tell(|| format!("the operator of box {which}: {ask:?}"));
        self.feed(which, Input::Command { id: 1, command: Command::Queue(ask) });
    }
}
