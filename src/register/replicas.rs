//! All replicas that this node knows, local and remote alike: telling them a write, asking them for a record, and knowing which
//! of them may be believed.
//!
//! Knows: who is behind (hints), who is silent, who is level. Does not know: quorums, which are counted by those who asked; or how one
//! elsewhere is spoken to ([`super::asking`]).
//! Limits: one hint under way per replica; a pause that grows up to [`RETRY_S_MAX`] between tries.

mod founding;

use std::net::SocketAddr;
use std::time::Duration;

pub use founding::{found, is_new, mark_name};

use super::asking::{Asker, Asking, Question, What, Write};
use super::hints::Hints;
use super::merge::{Binding, Record, merge};
use super::replica::{self, Replica};
use crate::config::{Place, Settings};
use crate::event::Event;
use crate::gsm::form::TextForm;
use crate::ident::Imsi;
use crate::seam::{After, Inner, ReplicaAnswer, Timer};
use crate::sip::parse::Message;
use crate::site::World;
use crate::store::{StoreError, StoreId};
use crate::time::{Instant, Stamp};
use crate::zone::Health;

/// A write to a remote replica is sent again after these times (promise 7).
const WRITE_RESEND: [Duration; 2] = [Duration::from_millis(500), Duration::from_millis(1500)];
/// A replica that is behind or silent is tried again after 1 s, then twice as long each time, up to this.
const RETRY_S_MAX: u64 = 30;
/// Hints told to a local replica in one go.
const LOCAL_HINTS_PER_TRY: usize = 64;
/// Alerts that may be under way at a time.
const ALERTS_MAX: usize = 1_000;

pub struct Replicas {
    all: Vec<One>,
    asking: Asking,
    /// Alerts under way.
    alerts: usize,
}

struct One {
    name: String,
    shard: usize,
    place: OnePlace,
    hints: Hints,
    retry: u32,
    /// When it is tried again; a timer that comes earlier or later than this is an old one.
    retry_at: Option<Instant>,
    /// A hint or a probe is under way.
    busy: bool,
    /// Its disk is full up to the reserve.
    full: bool,
}

enum OnePlace {
    Local { replica: Option<Replica>, closed: Option<String> },
    Remote { address: SocketAddr, level: bool, answering: Option<bool> },
}

/// What a remote replica said, or that it said nothing in time.
#[derive(Debug)]
pub enum Told {
    Written {
        write: Write,
        replica: usize,
        older_than: Option<Stamp>,
        alert: Vec<SocketAddr>,
        /// It had nothing of this phone before.
        is_new: bool,
    },
    NotWritten {
        write: Write,
        replica: usize,
        why: &'static str,
    },
    /// `None`: no answer that can be used.
    Record {
        asker: Asker,
        record: Option<Record>,
    },
    /// A lookup: a contact, or a believed no, or neither.
    Found {
        lookup: u64,
        contact: String,
        texts: TextForm,
        station: SocketAddr,
    },
    Absent {
        lookup: u64,
    },
    NoAnswer {
        lookup: u64,
    },
    Nothing,
}

impl Replicas {
    pub fn new(settings: &Settings) -> Replicas {
        let all = settings.replicas.iter().map(|replica| One {
            name: replica.name.clone(),
            shard: replica.shard,
            place: match &replica.place {
                Place::Local { .. } => OnePlace::Local { replica: None, closed: None },
                Place::Remote { address } => OnePlace::Remote { address: *address, level: true, answering: None },
            },
            hints: Hints::default(),
            retry: 0,
            retry_at: None,
            busy: false,
            full: false,
        });
        Replicas { all: all.collect(), asking: Asking::default(), alerts: 0 }
    }

    /// The settings changed: shards and replicas stay until a restart, addresses of remote ones follow.
    pub fn settings_changed(&mut self, settings: &Settings) {
        for (one, typed) in self.all.iter_mut().zip(&settings.replicas) {
            if let (OnePlace::Remote { address, .. }, Place::Remote { address: new }) = (&mut one.place, &typed.place) {
                *address = *new;
            }
        }
    }

    // --- What may be believed ---

    fn local(&self) -> impl Iterator<Item = (usize, &Replica)> {
        self.all.iter().enumerate().filter_map(|(index, one)| match &one.place {
            OnePlace::Local { replica: Some(replica), closed: None } => Some((index, replica)),
            _ => None,
        })
    }

    /// A local replica whose store is open.
    pub fn open_local(&self, index: usize) -> Option<&Replica> {
        match &self.all.get(index)?.place {
            OnePlace::Local { replica: Some(replica), closed: None } => Some(replica),
            _ => None,
        }
    }

    pub fn is_remote(&self, index: usize) -> bool {
        matches!(self.all[index].place, OnePlace::Remote { .. })
    }

    pub fn name(&self, index: usize) -> &str {
        &self.all[index].name
    }

    /// It missed no write of this AOR that we know of, or its store is here and what it missed is added when it is read.
    ///
    /// One write that a full disk refused must not silence the whole replica: "lookups and calls go on" (promise 8).
    pub fn is_readable(&self, index: usize, imsi: Imsi) -> bool {
        let hints = &self.all[index].hints;
        match self.is_remote(index) {
            true => !hints.overflowed && !hints.lacks(imsi),
            false => !hints.overflowed && self.open_local(index).is_some(),
        }
    }

    /// Its *no* about this AOR may be believed: it is caught up, and missed nothing of it that we know of.
    pub fn is_believed(&self, index: usize, imsi: Imsi) -> bool {
        let hints = &self.all[index].hints;
        let level = match &self.all[index].place {
            OnePlace::Local { .. } => self.open_local(index).is_some_and(Replica::is_level),
            OnePlace::Remote { level, .. } => *level,
        };
        level && !hints.overflowed && !hints.lacks(imsi)
    }

    /// A write of this AOR is kept for it.
    pub fn has_missed(&self, index: usize, imsi: Imsi) -> bool {
        self.all[index].hints.missed(imsi).is_some()
    }

    /// It did not answer the last time: asked after the others.
    pub fn is_silent(&self, index: usize) -> bool {
        matches!(self.all[index].place, OnePlace::Remote { answering: Some(false), .. })
    }

    pub fn health(&self) -> impl Iterator<Item = Health> {
        let worse = |one: &One| {
            one.hints.behind()
                || match &one.place {
                    OnePlace::Local { replica, closed } => {
                        closed.is_some() || !replica.as_ref().is_some_and(Replica::is_level)
                    }
                    OnePlace::Remote { level, answering, .. } => !level || *answering != Some(true),
                }
        };
        self.all.iter().map(move |one| if worse(one) { Health::Worse } else { Health::Healthy })
    }

    pub fn describe(&self, settings: &Settings, now_ms: u64) -> Vec<ReplicaAnswer> {
        let describe = |one: &One| {
            let (state, bindings) = match &one.place {
                OnePlace::Local { closed: Some(_), .. } | OnePlace::Local { replica: None, .. } => ("closed", None),
                OnePlace::Local { replica: Some(replica), .. } => {
                    (if replica.is_level() { "level" } else { "catching up" }, Some(replica.bindings))
                }
                OnePlace::Remote { answering: Some(false) | None, .. } => ("not answering", None),
                OnePlace::Remote { level: false, .. } => ("catching up", None),
                OnePlace::Remote { .. } => ("level", None),
            };
            let state = if state != "closed" && one.hints.behind() { "behind" } else { state };
            ReplicaAnswer {
                name: one.name.clone(),
                shard: settings.shards.get(one.shard).map(|shard| shard.name.clone()).unwrap_or_default(),
                state: state.into(),
                bindings,
                lag_s: one.hints.oldest_ms().map_or(0, |ms| now_ms.saturating_sub(ms) / 1000),
                hints: one.hints.len() as u64,
            }
        };
        self.all.iter().map(describe).collect()
    }

    /// What needs a human.
    pub fn alarms(&self) -> Vec<String> {
        let alarm = |one: &One| match &one.place {
            OnePlace::Local { closed: Some(why), .. } => Some(format!("replica {} is closed: {why}", one.name)),
            OnePlace::Local { replica: Some(replica), .. } if replica.mark.is_none() => {
                Some(format!("replica {} has no founding mark", one.name))
            }
            _ if one.full => {
                Some(format!("replica {}: the disk is full up to its reserve, writes are refused", one.name))
            }
            _ if one.hints.overflowed => Some(format!("replica {} needs repair", one.name)),
            _ => None,
        };
        self.all.iter().filter_map(alarm).collect()
    }

    // --- Writing ---

    /// Tells one replica a write; its yes or no comes as [`Inner::Written`], [`Inner::NotWritten`] or [`Told`].
    pub fn write(
        &mut self,
        w: &mut World<'_, '_>,
        index: usize,
        imsi: Imsi,
        delta: &Record,
        write: Write,
        after: After,
    ) {
        if self.is_remote(index) {
            let deadline = w.site.settings.registrar.write_deadline;
            if !self.ask(w, index, What::Write { write }, Some(imsi), Some(delta), deadline, after) {
                w.ctx.out.after(After::nothing(), Inner::NotWritten { write, replica: index });
            }
            return;
        }
        let what = match self.apply_local(w, index, imsi, delta) {
            Ok(applied) => {
                let after = after.and(applied.commit);
                let replica::Applied { older_than, alert, .. } = applied;
                w.ctx.out.after(after, Inner::Written { write, replica: index, older_than, alert });
                return;
            }
            Err(_) => Inner::NotWritten { write, replica: index },
        };
        w.ctx.out.after(After::nothing(), what);
    }

    /// Writes to a replica of ours, for this front end or for another node's.
    pub fn apply_local(
        &mut self,
        w: &mut World<'_, '_>,
        index: usize,
        imsi: Imsi,
        delta: &Record,
    ) -> Result<replica::Applied, StoreError> {
        let OnePlace::Local { replica: Some(replica), closed: None } = &mut self.all[index].place else {
            return Err(StoreError::Closed);
        };
        let store = w.ctx.stores.store(replica.store).ok_or(StoreError::Closed)?;
        let applied = replica.apply(store, imsi, delta);
        let full = applied == Err(StoreError::Full);
        let one = &mut self.all[index];
        if full != one.full {
            one.full = full;
            let replica = one.name.clone();
            w.ctx.out.event(if full { Event::DiskFull { replica } } else { Event::DiskFreed { replica } });
        }
        applied
    }

    /// A replica does not have a write: it is behind until it has, and is told again.
    ///
    /// The commit is of the hint; a promise that counts without this replica waits for it, so that a restart knows who is behind.
    pub fn missed(
        &mut self,
        w: &mut World<'_, '_>,
        index: usize,
        imsi: Imsi,
        delta: &Record,
        why: &'static str,
    ) -> Result<crate::store::CommitId, StoreError> {
        let count_max = w.site.settings.registrar.hint_count_max;
        let one = &mut self.all[index];
        if delta.is_of_marks() && one.hints.len() >= count_max {
            // Nobody is promised anything by a mark: it is not worth that the replica needs repair.
            w.ctx.out.event(Event::MarkNotKept { replica: one.name.clone(), imsi });
            return Err(StoreError::Full);
        }
        let overflowed = one.hints.overflowed;
        if !one.hints.behind() {
            one.retry = 0;
        }
        let store = w.ctx.stores.store(StoreId::Node).ok_or(StoreError::Closed)?;
        let commit = one.hints.add(store, &one.name, imsi, delta, count_max);
        w.ctx.out.event(Event::ReplicaMissedWrite { replica: one.name.clone(), imsi, why });
        if one.hints.overflowed && !overflowed {
            w.ctx.out.event(Event::HintsOverflowed { replica: one.name.clone() });
        }
        self.arm(w, index);
        commit
    }

    /// Hints that the node's own store had no room for are tried again.
    pub fn keep_hints(&mut self, w: &mut World<'_, '_>) {
        for one in self.all.iter_mut().filter(|one| !one.hints.is_kept()) {
            if let Some(store) = w.ctx.stores.store(StoreId::Node) {
                // The refusal was told when the hint was made.
                let _ = one.hints.keep(store, &one.name);
            }
        }
    }

    /// A local store failed: out of the write set and the read set until the next start.
    pub fn closed(&mut self, w: &mut World<'_, '_>, id: StoreId, why: String) {
        let StoreId::Replica(index) = id else { return };
        let one = &mut self.all[usize::from(index)];
        if let OnePlace::Local { closed, .. } = &mut one.place
            && closed.is_none()
        {
            *closed = Some(why.clone());
            w.ctx.out.event(Event::ReplicaClosed { replica: one.name.clone(), why });
        }
    }

    // --- Reading ---

    /// What a local replica has of an AOR, and what it missed of it; `None` where it is closed or elsewhere.
    ///
    /// Errors: a record that cannot be read.
    pub fn read_one(&self, w: &mut World<'_, '_>, index: usize, imsi: Imsi) -> Result<Option<Record>, StoreError> {
        let Some(replica) = self.open_local(index) else { return Ok(None) };
        let record = replica::read(w.ctx.stores.store(replica.store).ok_or(StoreError::Closed)?, imsi)?;
        Ok(Some(match self.all[index].hints.missed(imsi) {
            None => record,
            Some(missed) => merge(record, missed),
        }))
    }

    /// The newest record that the local replicas of a shard have, merged; `None` where there is none that may be read.
    ///
    /// Errors: a record that cannot be read.
    pub fn read_local(&self, w: &mut World<'_, '_>, shard: usize, imsi: Imsi) -> Result<Option<Record>, StoreError> {
        let mut newest: Option<Record> = None;
        for index in &w.site.settings.shards[shard].replicas {
            if !self.is_remote(*index)
                && self.is_readable(*index, imsi)
                && let Some(record) = self.read_one(w, *index, imsi)?
            {
                newest = Some(match newest {
                    None => record,
                    Some(newest) => merge(newest, &record),
                });
            }
        }
        Ok(newest)
    }

    /// Who of those with a record here is bound as `wanted` says, by the binding written last; one that is stale counts while it would be
    /// routed to. A page of them: `cursor` says where the last one ended, `None` comes back after the last.
    ///
    /// Each phone once, in order of shard and IMSI; of a shard's replicas that are here one is read, which is level, and a shard that has
    /// none here is passed over, as is what this one missed altogether. No more than `limit` records are looked at.
    pub fn bound_at(
        &self,
        w: &mut World<'_, '_>,
        wanted: &dyn Fn(&Binding) -> bool,
        cursor: Option<(usize, Imsi)>,
        limit: usize,
    ) -> (Vec<Imsi>, Option<(usize, Imsi)>) {
        let stale_life = w.site.settings.registrar.stale_life;
        let stale_ms = u64::try_from(stale_life.as_millis()).unwrap_or(u64::MAX);
        let now_ms = w.wall().ms;
        let mut left = limit.max(1);
        let (first, mut after) = cursor.map_or((0, None), |(shard, imsi)| (shard, Some(imsi)));
        let mut bound = Vec::new();
        for (shard, members) in w.site.settings.shards.iter().enumerate().skip(first) {
            let after = after.take();
            let Some(index) = self.to_read_through(&members.replicas) else { continue };
            let page = w.store(StoreId::Replica(index as u16)).and_then(|s| replica::page_readable(s, after, left));
            let Ok(page) = page else {
                w.event(Event::RecordUnreadable { replica: self.all[index].name.clone() });
                continue;
            };
            for (imsi, record) in &page {
                let Some(record) = record else {
                    w.event(Event::RecordUnreadable { replica: self.all[index].name.clone() });
                    continue;
                };
                let merged = self.all[index].hints.missed(*imsi).map(|missed| merge(record.clone(), missed));
                let is_bound = merged.as_ref().unwrap_or(record).newest().is_some_and(|(_, stamp, binding)| {
                    let gone_ms =
                        binding.expires_at_ms.saturating_add(stale_ms.saturating_add(w.clock.shift_ms(stamp)));
                    gone_ms > now_ms && wanted(binding)
                });
                // One that another shard owns by now is found there.
                if is_bound && w.site.map.shard_of(imsi) == Some(shard) {
                    bound.push(*imsi);
                }
            }
            left = left.saturating_sub(page.len());
            if let (0, Some((last, _))) = (left, page.last()) {
                return (bound, Some((shard, *last)));
            }
        }
        (bound, None)
    }

    /// The replica of a shard that is read where all of its records are: here and level, one that missed nothing before one that did.
    fn to_read_through(&self, members: &[usize]) -> Option<usize> {
        let level = |index: &usize| self.open_local(*index).is_some_and(Replica::is_level);
        let readable = members.iter().copied().filter(level).filter(|index| !self.all[*index].hints.overflowed);
        readable.min_by_key(|index| (self.all[*index].hints.behind(), *index))
    }

    /// Who of a shard's replicas is to be asked about an AOR, the first one last: those that may be read, those on this box before those
    /// elsewhere, the silent ones at the end.
    pub fn in_order(&self, members: &[usize], imsi: Imsi) -> Vec<usize> {
        let mut order: Vec<usize> = members.iter().copied().filter(|index| self.is_readable(*index, imsi)).collect();
        order.sort_by_key(|index| std::cmp::Reverse((self.is_silent(*index), self.is_remote(*index))));
        order
    }

    /// Asks a remote replica for a record; it comes as [`Told::Record`]. `false`: it cannot be asked, and nothing will come.
    #[must_use]
    pub fn query(&mut self, w: &mut World<'_, '_>, index: usize, imsi: Imsi, asker: Asker) -> bool {
        let deadline = w.site.settings.registrar.read_deadline;
        self.ask(w, index, What::Query { asker }, Some(imsi), None, deadline, After::nothing())
    }

    /// Asks a remote replica where a phone is; it comes as [`Told::Found`], [`Told::Absent`] or [`Told::NoAnswer`]. `false`: it cannot be
    /// asked, and nothing will come.
    #[must_use]
    pub fn lookup(&mut self, w: &mut World<'_, '_>, index: usize, imsi: Imsi, lookup: u64) -> bool {
        let deadline = w.site.settings.registrar.read_deadline;
        self.ask(w, index, What::Lookup { lookup }, Some(imsi), None, deadline, After::nothing())
    }

    // --- Asking replicas elsewhere ---

    /// Asks about an IMSI, or how the replica is; `false` where it cannot be asked.
    #[allow(clippy::too_many_arguments, reason = "what varies between the five things that are asked")]
    fn ask(
        &mut self,
        w: &mut World<'_, '_>,
        index: usize,
        what: What,
        imsi: Option<Imsi>,
        record: Option<&Record>,
        deadline: Duration,
        after: After,
    ) -> bool {
        let OnePlace::Remote { address, .. } = self.all[index].place else { return false };
        let resend: &[Duration] = if matches!(what, What::Write { .. }) { &WRITE_RESEND } else { &[] };
        let fields = match what {
            What::Probe => self.probe_fields(index, &w.site.settings).unwrap_or_default(),
            _ => String::new(),
        };
        let user = imsi.map_or_else(|| self.all[index].name.clone(), |imsi| format!("IMSI{imsi}"));
        let question = Question { replica: index, address, what, user, record, resend, deadline, after, fields };
        self.asking.ask(w, question)
    }

    /// A replica of ours that was founded but not compared asks its siblings whether they are older than it.
    fn probe_fields(&self, index: usize, settings: &Settings) -> Option<String> {
        let members = &settings.shards[self.all[index].shard].replicas;
        let (_, waiting) = self.local().find(|(index, replica)| members.contains(index) && !replica.is_level())?;
        let mark = waiting.mark.as_ref()?;
        Some(format!(";mark={};before={:x}", mark.name, mark.founded_ms))
    }

    fn probe(&mut self, w: &mut World<'_, '_>, index: usize) {
        if !self.all[index].busy {
            let deadline = w.site.settings.registrar.write_deadline;
            self.all[index].busy = self.ask(w, index, What::Probe, None, None, deadline, After::nothing());
        }
    }

    /// A timer of a request came: it is sent again, or given up.
    pub fn asked_timeout(&mut self, w: &mut World<'_, '_>, id: u64) -> Told {
        let Some((index, what)) = self.asking.timeout(w, id) else { return Told::Nothing };
        if let What::Alert { imsi } = what {
            self.alerts -= 1;
            w.event(Event::AlertLost { imsi, why: "no answer in time" });
            return Told::Nothing;
        }
        let one = &mut self.all[index];
        if let OnePlace::Remote { answering, .. } = &mut one.place
            && *answering != Some(false)
        {
            *answering = Some(false);
            one.retry = 0;
            w.ctx.out.event(Event::ReplicaSilent { replica: one.name.clone() });
        }
        self.arm(w, index);
        self.gone(index, what, "no answer in time")
    }

    /// Says of a request that it came to nothing.
    fn gone(&mut self, replica: usize, what: What, why: &'static str) -> Told {
        match what {
            What::Write { write } => Told::NotWritten { write, replica, why },
            What::Query { asker } => Told::Record { asker, record: None },
            What::Lookup { lookup } => Told::NoAnswer { lookup },
            What::Hint { .. } | What::Probe => {
                self.all[replica].busy = false;
                Told::Nothing
            }
            What::Alert { .. } => Told::Nothing,
        }
    }

    /// A response came: what it says.
    pub fn response(&mut self, w: &mut World<'_, '_>, from: SocketAddr, message: &Message<'_>) -> Told {
        let Some((index, what, reply)) = self.asking.answered(w, from, message) else { return Told::Nothing };
        if let What::Alert { imsi } = what {
            self.alerts -= 1;
            if reply.code != 200 {
                w.event(Event::AlertLost { imsi, why: "it was refused" });
            }
            return Told::Nothing;
        }
        if let OnePlace::Remote { level, answering, .. } = &mut self.all[index].place {
            *level = reply.level;
            *answering = Some(true);
        }
        if reply.code < 500 {
            self.all[index].retry = 0;
            if !reply.level {
                // It is catching up. It tells nobody when it is done, and the next probe may be half a minute away.
                self.arm(w, index);
            }
        }
        match what {
            What::Write { write } if reply.code == 200 => {
                let older_than = reply.older.then_some(reply.stamp);
                let (alert, is_new) = (reply.alert, reply.is_new);
                Told::Written { write, replica: index, older_than, alert, is_new }
            }
            What::Query { asker } if reply.code == 200 => Told::Record { asker, record: reply.record },
            What::Lookup { lookup } => match (reply.code, reply.contact) {
                (302, Some(contact)) => Told::Found { lookup, contact, texts: reply.texts, station: reply.station },
                (480, _) if reply.level => Told::Absent { lookup },
                _ => Told::NoAnswer { lookup },
            },
            What::Hint { imsi, record } if reply.code == 200 => {
                self.all[index].busy = false;
                self.hint_done(w, index, imsi, &record);
                back(w, After::nothing(), imsi, reply.alert);
                self.replay(w, index);
                Told::Nothing
            }
            What::Probe => {
                self.all[index].busy = false;
                if reply.code == 200 && reply.is_no_older {
                    self.sibling_compared(w, index);
                }
                if reply.level && !self.all[index].hints.behind() && !self.some_sibling_waits(w, index) {
                    // All is well: asked again after the longest pause, so that one which dies unnoticed is told in the zone.
                    self.all[index].retry = u32::MAX;
                }
                self.arm(w, index);
                Told::Nothing
            }
            what => {
                if self.all[index].hints.behind() {
                    self.arm(w, index);
                }
                let why = if reply.code == 301 { "it says that another shard owns the IMSI" } else { "it refused" };
                self.gone(index, what, why)
            }
        }
    }

    // --- Those who are behind ---

    /// Arms the next try, after a pause that grows and is jittered; one that is armed for later is brought forward.
    fn arm(&mut self, w: &mut World<'_, '_>, index: usize) {
        let one = &mut self.all[index];
        let pause_ms = 1000 * (1u64 << one.retry.min(5)).min(RETRY_S_MAX);
        let jittered_ms = pause_ms / 2 + w.ctx.rng.below(pause_ms / 2 + 1);
        let at = w.ctx.now + Duration::from_millis(jittered_ms);
        if one.retry_at.is_none_or(|armed| at < armed) {
            one.retry = one.retry.saturating_add(1);
            one.retry_at = Some(at);
            w.timers.at(at, Timer::Replica(index));
        }
    }

    /// The pause is over: tells a replica what it missed, or asks a silent one how it is.
    pub fn retry(&mut self, w: &mut World<'_, '_>, index: usize) {
        if self.all[index].retry_at.is_none_or(|at| w.ctx.now < at) {
            return;
        }
        self.all[index].retry_at = None;
        if self.all[index].hints.next().is_some() {
            self.replay(w, index);
        } else if self.is_remote(index) {
            self.probe(w, index);
        }
    }

    fn replay(&mut self, w: &mut World<'_, '_>, index: usize) {
        if self.all[index].busy {
            return;
        }
        if !self.is_remote(index) {
            return self.replay_here(w, index);
        }
        let Some((imsi, record)) = self.all[index].hints.next().map(|(imsi, record)| (imsi, record.clone())) else {
            return;
        };
        let deadline = w.site.settings.registrar.write_deadline;
        let what = What::Hint { imsi, record: record.clone() };
        self.all[index].busy = self.ask(w, index, what, Some(imsi), Some(&record), deadline, After::nothing());
    }

    /// Tells a replica of this box some of what it missed; the hints are forgotten when its disk has it.
    fn replay_here(&mut self, w: &mut World<'_, '_>, index: usize) {
        let hints = &self.all[index].hints;
        let told: Vec<(Imsi, Record)> =
            hints.iter().take(LOCAL_HINTS_PER_TRY).map(|(imsi, record)| (imsi, record.clone())).collect();
        let mut after = After::nothing();
        for (imsi, record) in &told {
            match self.apply_local(w, index, *imsi, record) {
                Ok(applied) => {
                    after = after.and(applied.commit);
                    back(w, After::nothing().and(applied.commit), *imsi, applied.alert);
                }
                Err(_) if self.open_local(index).is_none() => return,
                Err(_) => return self.arm(w, index),
            }
        }
        if !told.is_empty() {
            self.all[index].busy = true;
            w.ctx.out.after(after, Inner::HintsWritten { replica: index, told });
        }
    }

    /// A local replica has these hints on disk.
    pub fn hints_written(&mut self, w: &mut World<'_, '_>, index: usize, told: &[(Imsi, Record)]) {
        self.all[index].busy = false;
        for (imsi, record) in told {
            self.hint_done(w, index, *imsi, record);
        }
        self.replay(w, index);
    }

    fn hint_done(&mut self, w: &mut World<'_, '_>, index: usize, imsi: Imsi, record: &Record) {
        let one = &mut self.all[index];
        let done = match w.ctx.stores.store(StoreId::Node) {
            None => Err(StoreError::Closed),
            Some(store) => one.hints.done(store, &one.name, imsi, record),
        };
        if let Err(error) = done {
            w.ctx.out.event(Event::NodeStoreRefused { why: error.to_string() });
        }
        if !one.hints.behind() {
            one.retry = 0;
            w.ctx.out.event(Event::ReplicaLevel { replica: one.name.clone() });
        }
    }

    // --- Those who wait for a phone ---

    /// Tells somebody elsewhere that the phone which he waits for is back. What gets lost is found by his own slow ladder.
    pub fn alert(&mut self, w: &mut World<'_, '_>, imsi: Imsi, owner: SocketAddr) {
        let deadline = w.site.settings.registrar.write_deadline;
        let question = Question {
            replica: usize::MAX,
            address: owner,
            what: What::Alert { imsi },
            user: format!("IMSI{imsi}"),
            record: None,
            resend: &WRITE_RESEND,
            deadline,
            after: After::nothing(),
            fields: String::new(),
        };
        if self.alerts >= ALERTS_MAX {
            return w.event(Event::AlertLost { imsi, why: "too many are under way" });
        }
        if !self.asking.ask(w, question) {
            return w.event(Event::AlertLost { imsi, why: "there is no port or no key to send it with" });
        }
        self.alerts += 1;
        w.event(Event::AlertSent { imsi, to: owner });
    }

    // --- Purging ---

    /// Purges up to `limit` records after `cursor` of a local replica; the new cursor, `None` at the end.
    pub fn purge(&mut self, w: &mut World<'_, '_>, index: usize, cursor: Option<Imsi>, limit: usize) -> Option<Imsi> {
        let settings = &w.site.settings.registrar;
        let stale_ms = u64::try_from(settings.stale_life.as_millis()).unwrap_or(u64::MAX);
        let tombstone_ms =
            stale_ms.saturating_add(u64::try_from(settings.replica_absence_max.as_millis()).unwrap_or(u64::MAX));
        let now_ms = w.wall().ms;
        let OnePlace::Local { replica: Some(replica), closed: None } = &mut self.all[index].place else { return None };
        let store = w.ctx.stores.store(replica.store)?;
        let Ok(records) = replica::page(store, cursor, limit) else {
            w.ctx.out.event(Event::RecordUnreadable { replica: self.all[index].name.clone() });
            return None;
        };
        let last = records.last().map(|(imsi, _)| *imsi);
        let mut count = 0;
        for (imsi, record) in records {
            let clock = &w.clock;
            if let Some(rest) = replica::purged(&record, now_ms, stale_ms, tombstone_ms, |stamp| clock.shift_ms(stamp))
            {
                // A store that refuses keeps the record until the next round.
                count += u64::from(replica.purge(store, imsi, &record, &rest).is_ok());
            }
        }
        if count > 0 {
            w.ctx.out.event(Event::Purged { replica: self.all[index].name.clone(), records: count });
        }
        last
    }

    pub fn count(&self) -> usize {
        self.all.len()
    }
}

/// A write that reached its replica late has left a phone bound later than a mark: whoever waits for it is told.
fn back(w: &mut World<'_, '_>, after: After, imsi: Imsi, owners: Vec<SocketAddr>) {
    if !owners.is_empty() {
        w.ctx.out.after(after, Inner::Returned { imsi, owners, registered: false });
    }
}
