//! The world: two boxes that lose power, a line between them, a relay, servers and phones, in virtual time.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;

use encamp::config::Settings;
use encamp::config::mailing::{Relay as RelaySettings, RelayTls};
use encamp::mail::address::Address;
use encamp::mail::{Letter, MailFailure, MailOut, MailTaken, Notify};
use encamp::seam::{Input, Output, Rng};
use encamp::store::{CommitId, StoreId};

use crate::boxes::*;
use crate::checks::{Kind, Ledger, Mail, Violation};
use crate::phone::Phone;
use crate::post::{Carried, Flight, Relay};
use crate::wire::Shown;

pub const MS: u64 = 1_000;
pub const SECOND: u64 = 1_000_000;
pub const MINUTE: u64 = 60 * SECOND;
pub const HOUR: u64 = 60 * MINUTE;
/// After the faults end everything is over within this: servers try for four days.
const FAIR_US: u64 = 6 * 24 * HOUR;
const TRACE_LINES: usize = 50_000;

/// A deliberate fault of the world, which the check named with it has to notice.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Breaker {
    SyncIgnored,
    SyncedLost,
    DigestsLost,
    LastFirst,
    LettersLost,
    /// A phone shows a text again after its answer.
    ShownTwice,
    /// A base station says yes and has not given it to the phone.
    YesWithoutPhone,
    /// Each attempt has a Message-ID of its own.
    NewMessageId,
    /// An answer goes to somebody else.
    WrongThread,
    /// The relay says yes and has nothing.
    RelayForgets,
    /// Success is told where there was none.
    ReportLies,
    /// What tells is told of.
    ReportOfReport,
    /// Every mail was from `<>`, and the box has not noticed.
    NullForgotten,
    /// A box hears no deadline any more.
    TimersStop,
    /// A yes of the relay is never heard.
    YesUnheard,
    /// Nobody is asked.
    AskForgotten,
}

/// What happens, once, in fair weather; a box loses power at one step of it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Story {
    MailIn,
    TextOut,
    MailWithSuccess,
    Bounce,
    BoxToBox,
}

pub enum Ev {
    ToBox { phone: usize, bytes: Vec<u8> },
    ToPhone { phone: usize, bytes: Vec<u8> },
    Took { phone: usize, shown: Box<Shown>, bytes: Vec<u8> },
    Again { phone: usize, call_id: String },
    Sync { which: usize, life: u32, store: StoreId },
    Synced { which: usize, life: u32, commit: CommitId },
    Start { which: usize },
    Trouble,
    Bring(usize),
    NoAnswer { which: usize, life: u32, id: u64, index: usize },
    Take { which: usize, life: u32, id: u64, mail: Box<MailOut> },
    Sent { which: usize, life: u32, id: u64, result: Result<MailTaken, MailFailure> },
    HopWait { which: usize, life: u32, id: u64 },
    Report { phone: usize, letter: Box<Letter> },
    Reply { writer: Address, phone: usize, references: Vec<String> },
}

pub struct World {
    pub breaker: Option<Breaker>,
    pub plan: Plan,
    pub rng: Rng,
    pub now_us: u64,
    pub boxes: Vec<Site>,
    events: BTreeMap<(u64, u64), Ev>,
    count: u64,
    pub phones: Vec<Phone>,
    pub ledger: Ledger,
    pub next_id: u64,
    pub carried: Vec<Carried>,
    pub flights: BTreeMap<(usize, u32, u64), Flight>,
    pub relay: Relay,
    pub line_down: bool,
    /// Phones that have missed words of the centre (1000) or the report on their text of this TP-MR.
    pub refusals: BTreeSet<(usize, u32)>,
    pub fair: bool,
    pub is_story: bool,
    /// Deadlines are heard at its multiples.
    coarse_us: u64,
    trouble_us: u64,
    busy_us: u64,
    pub trace: Option<VecDeque<String>>,
    pub digest: u64,
    pub met: BTreeMap<&'static str, u64>,
    pub violation: Option<Violation>,
    /// Steps of a box's life: at this one it loses power.
    pub step: u64,
    cut_at: Option<u64>,
    cut_only: Option<usize>,
    pub cuts: u64,
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
            Some(Breaker::LettersLost) => Lie::LettersLost,
            _ => Lie::None,
        };
        let mut one_in = |n: u64| rng.below(n) == 0;
        let plan = Plan { pool: one_in(2), ask: one_in(4), caps: one_in(4), copies: one_in(3) };
        let is_long = one_in(2);
        let made = Plan { ask: plan.ask && breaker != Some(Breaker::AskForgotten), ..plan };
        let boxes = (0..BOXES).map(|which| Site::new(which, seed, lie, made)).collect();
        // Days with a trouble now and then, or half an hour full of them.
        let (coarse_us, trouble_us, busy_us) = match is_long {
            true => (10 * SECOND, 10 * MINUTE, 2 * 24 * HOUR),
            false => (100 * MS, 4 * SECOND, 30 * MINUTE),
        };
        let offers_dsn = rng.below(2) == 0;
        World {
            breaker,
            plan,
            rng,
            now_us: 0,
            boxes,
            events: BTreeMap::new(),
            count: 0,
            phones: (0..PHONES).map(|_| Phone::default()).collect(),
            ledger: Ledger::default(),
            next_id: 0,
            carried: Vec::new(),
            flights: BTreeMap::new(),
            relay: Relay { down_until_us: 0, offers_dsn },
            line_down: false,
            refusals: BTreeSet::new(),
            fair: false,
            is_story: false,
            coarse_us,
            trouble_us,
            busy_us,
            trace: trace.then(VecDeque::new),
            digest: 0xcbf2_9ce4_8422_2325,
            met: BTreeMap::new(),
            violation: None,
            step: 0,
            cut_at: None,
            cut_only: None,
            cuts: 0,
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
        if self.violation.is_none() {
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
        (0..BOXES).for_each(|which| self.start(which));
        self.run_until(SECOND);
        (0..PHONES).for_each(|phone| self.register(phone));
        self.later(SECOND, Ev::Trouble);
        // A relay that stays away makes it longer.
        while self.now_us < self.busy_us && self.violation.is_none() {
            self.run_until(self.busy_us);
        }
        self.drain();
        self.violation.clone()
    }

    /// The faults end, all come back, and nothing is left.
    fn drain(&mut self) {
        self.tell(|| "the faults end".into());
        self.fair = true;
        self.line_down = false;
        self.relay.down_until_us = 0;
        self.cut_at = None;
        for which in 0..BOXES {
            self.boxes[which].slow_until_us = 0;
            self.set_full(which, false);
        }
        let fair_us = self.now_us;
        let end_us = fair_us + FAIR_US;
        let mut round = 0;
        while self.now_us < end_us && self.violation.is_none() {
            if round % 3 == 0 {
                (0..PHONES).for_each(|phone| {
                    self.register(phone);
                    self.send_next(phone);
                });
            }
            round += 1;
            self.coarse_us = if round < 4 && !self.is_story { SECOND } else { 20 * SECOND };
            // Not at the moment when deadlines are heard: then there is always something to sync.
            let until = (self.now_us + 10 * MINUTE).next_multiple_of(MINUTE) + 3 * SECOND;
            self.run_until(until);
            self.check_waiting(fair_us);
            if round > if self.is_story { 1 } else { 6 } && self.is_calm() {
                break;
            }
        }
        let hours = (self.now_us - fair_us) / HOUR;
        self.tell(|| format!("calm after {hours} hours"));
        if self.violation.is_none() {
            self.check_end();
        }
    }

    fn is_calm(&self) -> bool {
        let is_clear = |key: &Vec<u8>| !key.starts_with(b"t") && !key.starts_with(b"e") && !key.starts_with(b"w");
        let is_coming = |ev: &Ev| !matches!(ev, Ev::NoAnswer { .. } | Ev::HopWait { .. });
        !self.events.values().any(is_coming)
            && self.boxes.iter().all(|one| {
                one.durable().keys().all(is_clear)
                    && one.out.held_count() == 0
                    && one.node.as_ref().is_some_and(|node| node.under_way() == 0)
            })
    }

    /// No weather, and one story; this box loses power at this step of it. How many steps there are.
    pub fn run_story(&mut self, story: Story, which: usize, cut_at: Option<u64>) -> (u64, Option<Violation>) {
        self.fair = true;
        self.is_story = true;
        self.relay.offers_dsn = story != Story::TextOut;
        self.coarse_us = 100 * MS;
        (0..BOXES).for_each(|which| self.start(which));
        self.run_until(SECOND);
        (0..PHONES).for_each(|phone| self.register(phone));
        self.run_until(5 * SECOND);
        (self.step, self.cut_only, self.cut_at) = (0, Some(which), cut_at);
        let always = Some(Notify { success: true, failure: true, delay: false });
        let writer = address("w1@far.example");
        match story {
            Story::MailIn | Story::MailWithSuccess => {
                let units = if story == Story::MailIn { 10 } else { 1 };
                let words = self.words_of_mail(&writer, units);
                let to = vec![(0, if story == Story::MailIn { None } else { always })];
                self.write_mail(Mail { writer, to, words, ..Mail::default() });
            }
            Story::TextOut => self.write_new(0, "u", 2, true),
            Story::Bounce => self.write_new(0, "b", 1, false),
            Story::BoxToBox => {
                let text = self.ledger.texts.len();
                let words = [format!("#s{text}# over the hill")];
                self.write(0, &number(3), Kind::Phone(3), &words, true);
            }
        }
        self.run_until(2 * MINUTE);
        (self.cut_at, self.cut_only) = (None, None);
        let steps = self.step;
        self.drain();
        (steps, self.violation.clone())
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
        if self.breaker == Some(Breaker::TimersStop) && self.fair {
            return None;
        }
        let at = self.boxes[which].next_timeout_us()?;
        Some(at.next_multiple_of(self.coarse_us))
    }

    fn happen(&mut self, ev: Ev) {
        match ev {
            Ev::ToBox { phone, bytes } => self.at_box(phone, &bytes),
            Ev::ToPhone { phone, bytes } => self.at_phone(phone, &bytes),
            Ev::Took { phone, shown, bytes } => {
                self.got_answer(phone, &shown);
                self.at_box(phone, &bytes);
            }
            Ev::Again { phone, call_id } => self.again(phone, &call_id),
            Ev::Sync { which, life, store } => self.sync(which, life, store),
            Ev::Synced { which, life, commit } => {
                if self.boxes[which].life == life {
                    self.feed(which, Input::Synced(commit));
                }
            }
            Ev::Start { which } => self.start(which),
            Ev::Trouble => {
                if self.fair {
                    return;
                }
                self.trouble();
                if self.now_us + self.trouble_us < self.busy_us {
                    self.later(self.trouble_us, Ev::Trouble);
                }
            }
            Ev::Bring(index) => self.bring(index),
            Ev::NoAnswer { which, life, id, index } => self.no_answer(which, life, id, index),
            Ev::Take { which, life, id, mail } => self.take(which, life, id, *mail),
            Ev::Sent { which, life, id, result } => {
                let is_unheard = self.breaker == Some(Breaker::YesUnheard) && self.one_in(3) && result.is_ok();
                if is_unheard {
                    self.handed_over(which, id, &result);
                    let result = Err(MailFailure::Lost("unheard".into()));
                    return self.mail_sent(which, life, id, result);
                }
                self.mail_sent(which, life, id, result);
            }
            Ev::HopWait { which, life, id } => self.hop_wait(which, life, id),
            Ev::Report { phone, letter } => self.report(phone, *letter),
            Ev::Reply { writer, phone, references } => self.reply(writer, phone, references),
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
            let is_over = self.boxes[which].life != life || self.boxes[which].node.is_none();
            if self.violation.is_some() || is_over || self.step_of(which) {
                return;
            }
        }
    }

    /// One more step of a box; `true`: it was its last one.
    fn step_of(&mut self, which: usize) -> bool {
        if self.cut_only != Some(which) {
            return false;
        }
        self.step += 1;
        if self.cut_at != Some(self.step) {
            return false;
        }
        self.power_cut(which);
        true
    }

    fn leaves(&mut self, which: usize, output: Output) {
        match output {
            Output::Datagram { to, bytes, .. } => {
                for byte in &bytes {
                    self.digest = (self.digest ^ u64::from(*byte)).wrapping_mul(0x100_0000_01b3);
                }
                let Some(phone) = (0..PHONES).find(|phone| station(*phone) == to) else { return };
                if !self.bad(25) {
                    let late_us = MS + self.rng.below(20 * MS);
                    self.later(late_us, Ev::ToPhone { phone, bytes });
                }
            }
            Output::SendMail { id, mail, .. } => self.send_mail(which, id, *mail),
            Output::MailAnswer { id, replies } => self.mail_answer(which, id, &replies),
            Output::Event(event) => {
                self.tell(|| format!("box {which}: {event}"));
                self.told_event(which, &event);
            }
            Output::End(why) => {
                self.tell(|| format!("box {which} ends: {why}"));
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
        let since_us = self.dirty_since(which);
        let one = &mut self.boxes[which];
        if one.node.take().is_none() {
            return;
        }
        self.cuts += 1;
        while one.out.pop().is_some() {}
        let mut kept = 0;
        for (id, disk) in &mut one.disks.0 {
            let unsynced = disk.unsynced();
            let reached = disk.power_cut(self.rng.below(unsynced + 1));
            if *id == StoreId::Messages {
                kept = reached;
            }
        }
        self.tell(|| format!("box {which} loses power"));
        self.meet("a power cut");
        self.lost_power(which, kept, since_us);
        let longest_us = if !self.fair && self.one_in(4) { HOUR } else { 15 * SECOND };
        let down_us = 200 * MS + self.rng.below(longest_us);
        self.later(down_us, Ev::Start { which });
    }

    fn set_full(&mut self, which: usize, full: bool) {
        self.boxes[which].messages().set_full(full);
        self.boxes[which].full_since_us = full.then_some(self.now_us);
    }

    fn set(&mut self, which: usize, change: impl FnOnce(&mut Settings)) {
        let mut settings = (*self.boxes[which].settings).clone();
        change(&mut settings);
        self.boxes[which].settings = Arc::new(settings);
        let settings = Arc::clone(&self.boxes[which].settings);
        self.feed(which, Input::Settings(settings));
    }

    // --- Trouble ---

    fn trouble(&mut self) {
        let phone = self.rng.below(PHONES as u64) as usize;
        let which = self.rng.below(BOXES as u64) as usize;
        match self.rng.below(100) {
            0..20 => self.somebody_writes(),
            20..40 => self.phone_writes(phone),
            40..44 => self.phones[phone].on = false,
            44..52 => {
                self.register(phone);
                self.send_next(phone);
            }
            52..55 => self.power_cut(which),
            55..57 => {
                self.line_down = !self.line_down;
                self.meet("the line between the boxes is cut");
            }
            57 => {
                let hours = if self.one_in(4) { 7 * 24 } else { 1 + self.rng.below(12) };
                self.tell(|| format!("the relay is out of reach for {hours} hours"));
                self.relay.down_until_us = self.now_us + hours * HOUR;
                self.busy_us = self.busy_us.max((self.now_us + hours * HOUR).min(9 * 24 * HOUR));
                self.trouble_us = self.trouble_us.max(self.busy_us / 400);
                self.coarse_us = self.coarse_us.max(self.busy_us / 20_000);
            }
            58 => self.relay.offers_dsn = !self.relay.offers_dsn,
            59..61 => self.boxes[which].slow_until_us = self.now_us + self.rng.below(4 * SECOND),
            61..64 => {
                let full = self.boxes[which].full_since_us.is_none();
                self.tell(|| format!("the disk of box {which} is full: {full}"));
                self.meet("a full disk");
                self.set_full(which, full);
            }
            64..68 => self.set_full(which, false),
            68 => {
                self.boxes[which].shift_ms += self.rng.below(600_000) as i64 - 300_000;
                self.meet("a clock that jumps");
            }
            69..72 => self.changes(which),
            _ => {}
        }
    }

    /// The operator changes what is written in the files.
    fn changes(&mut self, which: usize) {
        let is_pool = self.plan.pool;
        match self.rng.below(3) {
            0 if is_pool => {
                self.meet("the pool changes");
                let last = if self.one_in(2) { "7001" } else { "7003" };
                self.set(which, |settings| mail_of(settings).reply_pool = pool("7000", last));
            }
            1 => {
                self.meet("the relay changes");
                let relay = RelaySettings {
                    host: "mail.far.example".into(),
                    port: 25,
                    tls: RelayTls::Never,
                    username: None,
                    password: None,
                    authority: None,
                };
                let relay = self.one_in(2).then_some(relay);
                self.set(which, |settings| mail_of(settings).relay = relay);
            }
            2 => {
                self.meet("a route goes or comes");
                let routes = if self.one_in(3) { Vec::new() } else { vec![route(which)] };
                self.set(which, |settings| mail_of(settings).routes = routes);
            }
            _ => {}
        }
    }

    fn somebody_writes(&mut self) {
        if self.ledger.mails.len() > 80 {
            return;
        }
        let local = ["w1", "w2", "w3", "b4", "w5", "w6"][self.rng.below(6) as usize];
        let writer = address(&format!("{local}@far.example"));
        let units = match self.rng.below(6) {
            0 => 8 + self.rng.below(30) as usize,
            1 => 60,
            _ => 0,
        };
        let words = self.words_of_mail(&writer, units);
        let first = self.rng.below(PHONES as u64) as usize;
        let notify = |n| match n {
            0 => Some(Notify { success: true, failure: true, delay: false }),
            1 => Some(Notify::default()),
            2 => Some(Notify { success: true, failure: false, delay: false }),
            _ => None,
        };
        let mut to = vec![(first, notify(self.rng.below(6)))];
        let second = self.rng.below(PHONES as u64) as usize;
        if second != first && box_of(second) == box_of(first) && self.one_in(2) {
            to.push((second, notify(self.rng.below(6))));
        }
        let (automatic, each_answered) = (self.one_in(6), self.one_in(4));
        self.write_mail(Mail { writer, automatic, each_answered, to, words, ..Mail::default() });
    }

    fn phone_writes(&mut self, phone: usize) {
        let report_wanted = self.one_in(3);
        let text = self.ledger.texts.len();
        match self.rng.below(10) {
            0..4 => {
                let kind = ["u", "u", "b", "x", "g"][self.rng.below(5) as usize];
                let parts = if self.one_in(4) { 2 } else { 1 };
                self.write_new(phone, kind, parts, report_wanted);
            }
            4..7 => {
                // Whoever has not written is not answered, but somebody may text to any number.
                let from: Vec<String> = self.ledger.writers_to(phone);
                let pick = self.rng.below(from.len() as u64 + 1) as usize;
                let to =
                    from.get(pick).cloned().unwrap_or_else(|| if self.plan.pool { "7003" } else { CENTRE }.to_owned());
                self.write(phone, &to, Kind::Answer, &[format!("#s{text}# answered")], report_wanted);
            }
            _ => {
                let to = self.rng.below(PHONES as u64) as usize;
                if to != phone {
                    let words = [format!("#s{text}# from phone to phone")];
                    self.write(phone, &number(to), Kind::Phone(to), &words, report_wanted);
                }
            }
        }
    }

    /// A text to an address of its own.
    pub fn write_new(&mut self, phone: usize, kind: &str, parts: usize, report_wanted: bool) {
        let text = self.ledger.texts.len();
        let head = format!("{kind}t{text}@far.example #s{text}# hello ");
        let words: Vec<String> =
            (0..parts).map(|part| if part == 0 { head.clone() } else { format!("#s{text}# and more") }).collect();
        self.write(phone, CENTRE, Kind::New, &words, report_wanted);
    }
}

fn mail_of(settings: &mut Settings) -> &mut encamp::config::Mail {
    Arc::make_mut(settings.mail.as_mut().expect("a box with mail"))
}
