//! All replicas that this node knows, local and remote alike: telling them a write, asking them for a record, and knowing which
//! of them may be believed.
//!
//! Knows: who is behind (hints), who is silent, what was asked of whom until when. Does not know: quorums; they are counted by
//! those who asked. A remote replica is spoken to in SIP: REGISTER with a stamp (a write), REGISTER without Contact (a query),
//! INVITE (a lookup), OPTIONS (how are you).
//! Limits: one hint under way per replica; every request ends by its deadline.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;

use super::cluster::{self, Signed};
use super::hints::Hints;
use super::merge::{Record, decode, encode, merge};
use super::replica::{self, Mark, Replica};
use crate::config::{Place, Settings};
use crate::event::{Drop, Event};
use crate::ident::Imsi;
use crate::seam::{After, Ctx, Inner, Output, ReplicaAnswer, Timer};
use crate::sip::header::HeaderName;
use crate::sip::parse::{Contacts, Message};
use crate::sip::write::Writer;
use crate::site::World;
use crate::store::{Store, StoreError, StoreId};
use crate::time::{Instant, Stamp};
use crate::zone::Health;

/// A write to a remote replica is sent again after these times (promise 7).
const WRITE_RESEND: [Duration; 2] = [Duration::from_millis(500), Duration::from_millis(1500)];
/// A replica that is behind or silent is tried again after 1 s, then twice as long each time, up to this.
const RETRY_S_MAX: u64 = 30;
/// Hints told to a local replica in one go.
const LOCAL_HINTS_PER_TRY: usize = 64;

pub struct Replicas {
    all: Vec<One>,
    asked: BTreeMap<u64, Asked>,
    asked_count: u64,
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

/// A request to a remote replica.
struct Asked {
    replica: usize,
    branch: String,
    what: What,
    bytes: Vec<u8>,
    resend_at: Vec<Instant>,
    /// What must be on the disk before it may leave, each time.
    after: After,
    deadline: Instant,
    method: &'static str,
    uri: String,
    to: String,
    call_id: String,
    cseq: u32,
}

#[derive(Clone, Debug)]
enum What {
    Write { write: u64 },
    Query { asker: Asker },
    Lookup { lookup: u64 },
    Hint { imsi: Imsi, record: Record },
    Probe,
}

/// Who asked for a record.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Asker {
    Register(u64),
    Command(u64),
}

/// What a remote replica said, or that it said nothing in time.
#[derive(Debug)]
pub enum Told {
    Written {
        write: u64,
        replica: usize,
        older_than: Option<Stamp>,
    },
    NotWritten {
        write: u64,
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
        Replicas { all: all.collect(), asked: BTreeMap::new(), asked_count: 0 }
    }

    /// Opens the local replicas, levels siblings on this box, founds where nothing existed, and asks the remote ones how they are.
    ///
    /// `founding`: this is the first start of a new site (see [`is_new`]), or the first whose marks reached the disk.
    /// Errors: a store that cannot be read.
    pub fn start(&mut self, w: &mut World<'_, '_>, founding: bool) -> Result<(), StoreError> {
        for index in 0..self.all.len() {
            let name = self.all[index].name.clone();
            self.all[index].hints = Hints::load(w.store(StoreId::Node)?, &name)?;
            if let OnePlace::Local { replica, closed } = &mut self.all[index].place {
                let id = StoreId::Replica(index as u16);
                match w.store(id).and_then(|store| Replica::open(store, id)) {
                    Ok(opened) => *replica = Some(opened),
                    Err(error) => {
                        *closed = Some(error.to_string());
                        w.event(Event::ReplicaClosed { replica: name, why: error.to_string() });
                    }
                }
            }
        }
        if founding {
            // A mark may only be on disk after the word that this is the first start: else a power cut between the two leaves a
            // site of which nobody knows whether it is new.
            let after = w.unsynced(StoreId::Node).map_or(After::nothing(), |commit| After::nothing().and(commit));
            w.ctx.out.after(after, Inner::Found);
        }
        for shard in 0..w.site.settings.shards.len() {
            self.level_siblings(w, shard)?;
        }
        for index in 0..self.all.len() {
            match &self.all[index].place {
                OnePlace::Remote { .. } => self.probe(w, index),
                OnePlace::Local { replica: Some(replica), .. } if !replica.is_level() => {
                    if replica.mark.is_none() && !founding {
                        w.event(Event::ReplicaNotFounded { replica: self.all[index].name.clone() });
                    }
                }
                OnePlace::Local { .. } => {}
            }
            if self.all[index].hints.behind() {
                self.arm(w, index);
            }
        }
        Ok(())
    }

    /// Gives every local replica its mark: nothing existed before, so nothing is missing.
    pub fn found(&mut self, w: &mut World<'_, '_>) {
        let founded_ms = w.wall().ms;
        for index in 0..self.all.len() {
            let name = mark_name(&w.site.settings, self.all[index].shard);
            let one = &mut self.all[index];
            let OnePlace::Local { replica: Some(replica), closed: None } = &mut one.place else { continue };
            if replica.mark.is_some() {
                continue;
            }
            let Some(store) = w.ctx.stores.store(replica.store) else { continue };
            let replica_name = one.name.clone();
            // One whose disk is full is tried again each second; until then it stands among the alarms.
            if replica.set_mark(store, Mark { name, founded_ms, level: true }).is_ok() {
                w.event(Event::ReplicaFounded { replica: replica_name });
            }
        }
    }

    /// All local replicas have their marks on disk.
    pub fn is_founded(&self, w: &mut World<'_, '_>) -> bool {
        (0..self.all.len()).filter(|index| !self.is_remote(*index)).all(|index| {
            let is_marked = self.open_local(index).is_some_and(|replica| replica.mark.is_some());
            is_marked && w.unsynced(StoreId::Replica(index as u16)).is_none()
        })
    }

    /// Makes the local replicas of one shard equal: after a power cut one may have a write on disk that its sibling has not, and
    /// one whose directory was lost takes everything. Only replicas of this box; those elsewhere are repaired over the network.
    fn level_siblings(&mut self, w: &mut World<'_, '_>, shard: usize) -> Result<(), StoreError> {
        let members = &w.site.settings.shards[shard].replicas;
        let open: Vec<usize> = members.iter().copied().filter(|index| self.open_local(*index).is_some()).collect();
        if open.len() < 2 {
            if let [alone] = members[..]
                && self.open_local(alone).is_some_and(|replica| replica.mark.is_some())
            {
                self.set_level(w, alone)?;
            }
            return Ok(());
        }
        let mut lacking = Vec::new();
        for to in &open {
            // The first takes from all others, so the next ones find everything there.
            for from in open.iter().filter(|from| *from != to) {
                if !self.copy_records(w, *from, *to)? {
                    lacking.push(*to);
                }
            }
        }
        let one_was_level = open.iter().any(|index| self.open_local(*index).is_some_and(Replica::is_level));
        let all_here = open.len() == members.len();
        let all_marked = open.iter().all(|index| self.open_local(*index).is_some_and(|replica| replica.mark.is_some()));
        if one_was_level || (all_here && all_marked) {
            for index in open {
                unless_full(self.set_level(w, index))?;
                if all_here && self.all[index].hints.behind() && !lacking.contains(&index) {
                    let name = self.all[index].name.clone();
                    unless_full(self.all[index].hints.clear(w.store(StoreId::Node)?, &name))?;
                }
            }
        }
        Ok(())
    }

    /// Gives one local replica what another has; `false` where its store refused some: it is noted as behind for those.
    fn copy_records(&mut self, w: &mut World<'_, '_>, from: usize, to: usize) -> Result<bool, StoreError> {
        let mut cursor = None;
        let mut copied = 0;
        let mut took_all = true;
        loop {
            let records = replica::page(w.store(StoreId::Replica(from as u16))?, cursor, 1000)?;
            let Some((last, _)) = records.last() else { break };
            cursor = Some(*last);
            for (imsi, record) in records {
                let written = w.store(StoreId::Replica(to as u16))?.written_seq();
                match self.apply_local(w, to, imsi, &record) {
                    Ok(_) => copied += w.store(StoreId::Replica(to as u16))?.written_seq() - written,
                    Err(StoreError::Full | StoreError::Stalled) => {
                        took_all = false;
                        let why = "it cannot take what its sibling has";
                        // A hint that cannot be kept either is remembered until the next start, which looks again.
                        let _ = self.missed(w, to, imsi, &record, why);
                    }
                    Err(error) => return Err(error),
                }
            }
        }
        if copied > 0 {
            w.event(Event::ReplicaRefilled { replica: self.all[to].name.clone(), records: copied });
        }
        Ok(took_all)
    }

    fn set_level(&mut self, w: &mut World<'_, '_>, index: usize) -> Result<(), StoreError> {
        let mark_name = mark_name(&w.site.settings, self.all[index].shard);
        let now_ms = w.wall().ms;
        let one = &mut self.all[index];
        let OnePlace::Local { replica: Some(replica), .. } = &mut one.place else { return Ok(()) };
        if replica.is_level() {
            return Ok(());
        }
        let founded_ms = replica.mark.as_ref().map_or(now_ms, |mark| mark.founded_ms);
        let store = w.ctx.stores.store(replica.store).ok_or(StoreError::Closed)?;
        replica.set_mark(store, Mark { name: mark_name, founded_ms, level: true })?;
        w.ctx.out.event(Event::ReplicaLevel { replica: one.name.clone() });
        Ok(())
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
            true => !hints.overflowed && hints.missed(imsi).is_none(),
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
        level && !hints.overflowed && hints.missed(imsi).is_none()
    }

    /// A write of this AOR is kept for it.
    pub fn has_missed(&self, index: usize, imsi: Imsi) -> bool {
        self.all[index].hints.missed(imsi).is_some()
    }

    /// It did not answer the last time: asked after the others.
    pub fn is_silent(&self, index: usize) -> bool {
        matches!(self.all[index].place, OnePlace::Remote { answering: Some(false), .. })
    }

    pub fn health(&self) -> Vec<Health> {
        let worse = |one: &One| {
            one.hints.behind()
                || match &one.place {
                    OnePlace::Local { replica, closed } => {
                        closed.is_some() || !replica.as_ref().is_some_and(Replica::is_level)
                    }
                    OnePlace::Remote { level, answering, .. } => !level || *answering != Some(true),
                }
        };
        self.all.iter().map(|one| if worse(one) { Health::Worse } else { Health::Healthy }).collect()
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
    pub fn write(&mut self, w: &mut World<'_, '_>, index: usize, imsi: Imsi, delta: &Record, write: u64, after: After) {
        if self.is_remote(index) {
            let deadline = w.ctx.now + w.site.settings.registrar.write_deadline;
            let resend = WRITE_RESEND.iter().map(|pause| w.ctx.now + *pause).collect();
            if !self.tell(w, index, imsi, delta, What::Write { write }, resend, deadline, after) {
                w.ctx.out.after(After::nothing(), Inner::NotWritten { write, replica: index });
            }
            return;
        }
        let what = match self.apply_local(w, index, imsi, delta) {
            Ok(applied) => {
                let after = after.and(applied.commit);
                w.ctx.out.after(after, Inner::Written { write, replica: index, older_than: applied.older_than });
                return;
            }
            Err(_) => Inner::NotWritten { write, replica: index },
        };
        w.ctx.out.after(After::nothing(), what);
    }

    fn apply_local(
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

    /// For a request from another node that writes to a replica of ours.
    pub fn serve_write(
        &mut self,
        w: &mut World<'_, '_>,
        index: usize,
        imsi: Imsi,
        delta: &Record,
    ) -> Result<replica::Applied, StoreError> {
        self.apply_local(w, index, imsi, delta)
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

    /// Asks a remote replica for a record; it comes as [`Told::Record`].
    pub fn query(&mut self, w: &mut World<'_, '_>, index: usize, imsi: Imsi, asker: Asker) {
        let deadline = w.ctx.now + w.site.settings.registrar.read_deadline;
        let to = format!("sip:IMSI{imsi}@{}", w.site.settings.domain);
        self.ask(
            w,
            index,
            "REGISTER",
            to,
            What::Query { asker },
            Vec::new(),
            deadline,
            After::nothing(),
            "",
            Stamp::ZERO,
            |_| {},
        );
    }

    /// Asks a remote replica where a phone is; it comes as [`Told::Found`], [`Told::Absent`] or [`Told::NoAnswer`].
    pub fn lookup(&mut self, w: &mut World<'_, '_>, index: usize, imsi: Imsi, lookup: u64) {
        let deadline = w.ctx.now + w.site.settings.registrar.read_deadline;
        let to = format!("sip:IMSI{imsi}@{}", w.site.settings.domain);
        self.ask(
            w,
            index,
            "INVITE",
            to,
            What::Lookup { lookup },
            Vec::new(),
            deadline,
            After::nothing(),
            "",
            Stamp::ZERO,
            |_| {},
        );
    }

    // --- Speaking SIP to a remote replica ---

    #[allow(clippy::too_many_arguments, reason = "each is a part of one request; a struct would name them once more")]
    fn tell(
        &mut self,
        w: &mut World<'_, '_>,
        index: usize,
        imsi: Imsi,
        record: &Record,
        what: What,
        resend: Vec<Instant>,
        deadline: Instant,
        after: After,
    ) -> bool {
        let to = format!("sip:IMSI{imsi}@{}", w.site.settings.domain);
        let now_ms = w.wall().ms;
        let text = BASE64.encode(encode(record));
        let contacts = |writer: &mut Writer| {
            for (contact, entry) in &record.contacts {
                let left_ms = entry.binding.as_ref().map_or(0, |binding| binding.expires_at_ms.saturating_sub(now_ms));
                writer.header_fmt("Contact", format_args!("<{contact}>;expires={}", left_ms.div_ceil(1000)));
            }
            if record.contacts.is_empty() {
                writer.header("Contact", "*").header("Expires", "0");
            }
        };
        self.ask(w, index, "REGISTER", to, what, resend, deadline, after, &text, record.stamp(), contacts)
    }

    /// Sends a signed request; `false` where there is no port to send it from.
    #[allow(clippy::too_many_arguments, reason = "each is a part of one request; a struct would name them once more")]
    fn ask(
        &mut self,
        w: &mut World<'_, '_>,
        index: usize,
        method: &'static str,
        to: String,
        what: What,
        resend_at: Vec<Instant>,
        deadline: Instant,
        after: After,
        record: &str,
        stamp: Stamp,
        contacts: impl FnOnce(&mut Writer),
    ) -> bool {
        let OnePlace::Remote { address, .. } = self.all[index].place else { return false };
        let (Some((from, own)), Some(key)) = (w.site.own_port(), &w.site.settings.cluster_key) else { return false };
        self.asked_count += 1;
        let id = self.asked_count;
        let branch = format!("z9hG4bK{id:x}.{:016x}", w.ctx.rng.u64());
        let call_id = format!("{:016x}@{}", w.ctx.rng.u64(), own.ip());
        let cseq = 1;
        let uri = format!("sip:{}@{address}", to.trim_start_matches("sip:").split('@').next().unwrap_or_default());
        let signed = Signed { method, uri: &uri, to: &to, call_id: &call_id, cseq, status: 0, record };
        let fields = self.probe_fields(&what, index, &w.site.settings).unwrap_or_default();
        let header = cluster::sign(key, &signed, stamp, w.site.epoch, &fields);
        let mut writer = Writer::request(method, &uri);
        writer
            .header_fmt("Via", format_args!("SIP/2.0/UDP {own};branch={branch}"))
            .header_fmt("From", format_args!("<sip:front@{}>;tag={:016x}", w.site.settings.domain, w.ctx.rng.u64()))
            .header_fmt("To", format_args!("<{to}>"))
            .header("Call-ID", &call_id)
            .header_fmt("CSeq", format_args!("{cseq} {method}"));
        contacts(&mut writer);
        if method == "INVITE" {
            writer.header_fmt("Contact", format_args!("<sip:front@{own}>"));
        }
        writer.header("Max-Forwards", "70").header(cluster::HEADER, &header);
        if !record.is_empty() {
            writer.header(cluster::RECORD_HEADER, record);
        }
        let bytes = writer.finish();
        w.ctx.out.send_after(after, Output::Datagram { from, to: address, bytes: bytes.clone() });
        let first = resend_at.first().copied().unwrap_or(deadline);
        w.timers.at(first.min(deadline), Timer::Asked(id));
        let asked =
            Asked { replica: index, branch, what, bytes, resend_at, after, deadline, method, uri, to, call_id, cseq };
        self.asked.insert(id, asked);
        true
    }

    /// A replica of ours that was founded but not compared asks its siblings whether they are older than it.
    fn probe_fields(&self, what: &What, index: usize, settings: &Settings) -> Option<String> {
        let What::Probe = what else { return None };
        let shard = self.all[index].shard;
        let members = &settings.shards[shard].replicas;
        let (_, waiting) = self.local().find(|(index, replica)| members.contains(index) && !replica.is_level())?;
        let mark = waiting.mark.as_ref()?;
        Some(format!(";mark={};before={:x}", mark.name, mark.founded_ms))
    }

    fn probe(&mut self, w: &mut World<'_, '_>, index: usize) {
        if self.all[index].busy {
            return;
        }
        let deadline = w.ctx.now + w.site.settings.registrar.write_deadline;
        let to = format!("sip:{}@{}", self.all[index].name, w.site.settings.domain);
        self.all[index].busy = self.ask(
            w,
            index,
            "OPTIONS",
            to,
            What::Probe,
            Vec::new(),
            deadline,
            After::nothing(),
            "",
            Stamp::ZERO,
            |_| {},
        );
    }

    /// The deadline of a request came: again, or no more.
    pub fn asked_timeout(&mut self, w: &mut World<'_, '_>, id: u64) -> Told {
        let Some(asked) = self.asked.get_mut(&id) else { return Told::Nothing };
        let OnePlace::Remote { address, .. } = self.all[asked.replica].place else { return Told::Nothing };
        if w.ctx.now < asked.deadline {
            asked.resend_at.retain(|at| *at > w.ctx.now);
            if let Some((from, _)) = w.site.own_port() {
                w.ctx.out.send_after(asked.after, Output::Datagram { from, to: address, bytes: asked.bytes.clone() });
            }
            let next = asked.resend_at.first().copied().unwrap_or(asked.deadline);
            w.timers.at(next.min(asked.deadline), Timer::Asked(id));
            return Told::Nothing;
        }
        let Some(asked) = self.asked.remove(&id) else { return Told::Nothing };
        let one = &mut self.all[asked.replica];
        if let OnePlace::Remote { answering, .. } = &mut one.place
            && *answering != Some(false)
        {
            *answering = Some(false);
            one.retry = 0;
            w.ctx.out.event(Event::ReplicaSilent { replica: one.name.clone() });
        }
        self.arm(w, asked.replica);
        self.gone(asked, "no answer in time")
    }

    /// Says of a request that it came to nothing.
    fn gone(&mut self, asked: Asked, why: &'static str) -> Told {
        let replica = asked.replica;
        match asked.what {
            What::Write { write } => Told::NotWritten { write, replica, why },
            What::Query { asker } => Told::Record { asker, record: None },
            What::Lookup { lookup } => Told::NoAnswer { lookup },
            What::Hint { .. } | What::Probe => {
                self.all[replica].busy = false;
                Told::Nothing
            }
        }
    }

    /// A response came: which of our requests it answers, and what it says.
    pub fn response(&mut self, w: &mut World<'_, '_>, from: SocketAddr, message: &Message<'_>) -> Told {
        let unknown = |w: &mut World<'_, '_>| {
            w.event(Event::DatagramDropped { from, why: Drop::ResponseUnknown });
            Told::Nothing
        };
        let branch = message.via().ok().and_then(|via| via.branch).unwrap_or_default();
        let id = branch.strip_prefix("z9hG4bK").and_then(|rest| rest.split_once('.'));
        let id = id.and_then(|(id, _)| u64::from_str_radix(id, 16).ok()).unwrap_or_default();
        let Some(asked) = self.asked.get(&id) else { return unknown(w) };
        let code = message.code().unwrap_or_default();
        if asked.branch != branch || code < 200 {
            return if code < 200 { Told::Nothing } else { unknown(w) };
        }
        let OnePlace::Remote { address, .. } = self.all[asked.replica].place else { return unknown(w) };
        if asked.method == "INVITE" {
            self.acknowledge(w, asked, address, message);
        }
        let record = message.header_named(cluster::RECORD_HEADER).unwrap_or_default();
        let signed = Signed {
            method: asked.method,
            uri: &asked.uri,
            to: &asked.to,
            call_id: &asked.call_id,
            cseq: asked.cseq,
            status: code,
            record,
        };
        let header = match (&w.site.settings.cluster_key, message.header_named(cluster::HEADER)) {
            (Some(key), Some(value)) => cluster::verify(key, &signed, value),
            _ => Err("its answer is not signed"),
        };
        let header = match header {
            Ok(header) => header,
            Err(why) => {
                // What is not signed is not an answer: the deadline decides.
                w.event(Event::SignatureRefused { from, why });
                return Told::Nothing;
            }
        };
        if w.observe(header.stamp).is_err() {
            w.event(Event::StampAhead { from });
            return Told::Nothing;
        }
        let (stamp, level) = (header.stamp, header.field("state") == Some("level"));
        let older = header.field("result") == Some("older");
        let sibling_is_no_older = header.field("older") == Some("0") && header.field("mark").is_some();
        let Some(asked) = self.asked.remove(&id) else { return Told::Nothing };
        let index = asked.replica;
        if let OnePlace::Remote { level: known, answering, .. } = &mut self.all[index].place {
            *known = level;
            *answering = Some(true);
        }
        if code < 500 {
            self.all[index].retry = 0;
        }
        let record = if record.is_empty() { Some(Record::default()) } else { decode_text(record) };
        match asked.what {
            What::Write { write } if code == 200 => {
                Told::Written { write, replica: index, older_than: older.then_some(stamp) }
            }
            What::Query { asker } if code == 200 => Told::Record { asker, record },
            What::Lookup { lookup } => match (code, message.contacts()) {
                (302, Ok(Contacts::List(mut list))) => match list.next() {
                    Some(contact) => Told::Found { lookup, contact: contact.uri.to_owned() },
                    None => Told::NoAnswer { lookup },
                },
                (480, _) if level => Told::Absent { lookup },
                _ => Told::NoAnswer { lookup },
            },
            What::Hint { imsi, record } if code == 200 => {
                self.all[index].busy = false;
                self.hint_done(w, index, imsi, &record);
                self.replay(w, index);
                Told::Nothing
            }
            What::Probe => {
                self.all[index].busy = false;
                if code == 200 && sibling_is_no_older {
                    self.sibling_compared(w, index);
                }
                if level && !self.all[index].hints.behind() && !self.some_sibling_waits(w, index) {
                    // All is well: asked again after the longest pause, so that one which dies unnoticed is told in the zone.
                    self.all[index].retry = u32::MAX;
                }
                self.arm(w, index);
                Told::Nothing
            }
            _ => {
                let why = if code == 301 { "it says that another shard owns the IMSI" } else { "it refused" };
                if self.all[index].hints.behind() {
                    self.arm(w, index);
                }
                self.gone(asked, why)
            }
        }
    }

    /// "…the UAC MUST generate an ACK" to a final response of INVITE (RFC 3261 §17.1.1.3).
    fn acknowledge(&self, w: &mut World<'_, '_>, asked: &Asked, address: SocketAddr, message: &Message<'_>) {
        let Some((from, own)) = w.site.own_port() else { return };
        let (Some(sender), Some(to)) = (message.header(HeaderName::From), message.header(HeaderName::To)) else {
            return;
        };
        let mut ack = Writer::request("ACK", &asked.uri);
        ack.header_fmt("Via", format_args!("SIP/2.0/UDP {own};branch={}", asked.branch))
            .header("From", sender)
            .header("To", to)
            .header("Call-ID", &asked.call_id)
            .header_fmt("CSeq", format_args!("{} ACK", asked.cseq))
            .header("Max-Forwards", "70");
        w.ctx.out.send(Output::Datagram { from, to: address, bytes: ack.finish() });
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
        let deadline = w.ctx.now + w.site.settings.registrar.write_deadline;
        let what = What::Hint { imsi, record: record.clone() };
        self.all[index].busy = self.tell(w, index, imsi, &record, what, Vec::new(), deadline, After::nothing());
    }

    /// Tells a replica of this box some of what it missed; the hints are forgotten when its disk has it.
    fn replay_here(&mut self, w: &mut World<'_, '_>, index: usize) {
        let hints = &self.all[index].hints;
        let told: Vec<(Imsi, Record)> =
            hints.iter().take(LOCAL_HINTS_PER_TRY).map(|(imsi, record)| (imsi, record.clone())).collect();
        let mut after = After::nothing();
        for (imsi, record) in &told {
            match self.apply_local(w, index, *imsi, record) {
                Ok(applied) => after = after.and(applied.commit),
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

    // --- Founding together with siblings elsewhere ---

    fn some_sibling_waits(&self, w: &World<'_, '_>, index: usize) -> bool {
        let members = &w.site.settings.shards[self.all[index].shard].replicas;
        members
            .iter()
            .any(|member| self.open_local(*member).is_some_and(|replica| replica.mark.is_some() && !replica.is_level()))
    }

    /// A sibling elsewhere has the same mark and nothing older than our founding: where all have said so, ours is level.
    fn sibling_compared(&mut self, w: &mut World<'_, '_>, index: usize) {
        if let OnePlace::Remote { level, .. } = &mut self.all[index].place {
            *level = true;
        }
        let members = w.site.settings.shards[self.all[index].shard].replicas.clone();
        let all_compared = members.iter().all(|member| match &self.all[*member].place {
            OnePlace::Remote { level, answering, .. } => *level && *answering == Some(true),
            OnePlace::Local { replica, .. } => replica.as_ref().is_some_and(|replica| replica.mark.is_some()),
        });
        if !all_compared {
            return;
        }
        for member in members {
            if let Err(error) = self.set_level(w, member) {
                w.event(Event::NodeStoreRefused { why: error.to_string() });
            }
        }
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

/// A full disk leaves a mark or a hint as it is until the next start; nothing is wrong by that.
fn unless_full(result: Result<(), StoreError>) -> Result<(), StoreError> {
    if result == Err(StoreError::Full) { Ok(()) } else { result }
}

/// Nothing exists yet: all replicas of the map are on this box, and each is empty. Then `run` founds them by itself.
/// One that cannot be opened may hold anything.
pub fn is_new(ctx: &mut Ctx<'_>, settings: &Settings) -> bool {
    settings.replicas.iter().enumerate().all(|(index, replica)| {
        let id = StoreId::Replica(index as u16);
        let opened = ctx.stores.store(id).filter(|_| replica.is_local()).map(|store| Replica::open(store, id));
        matches!(opened, Some(Ok(Replica { mark: None, bindings: 0, .. })))
    })
}

/// Gives an empty store its founding mark: what `encamp init` does for the local replicas of a site that is new.
///
/// `level`: nothing existed before anywhere, so nothing is missing; else the replica first compares itself with its siblings.
pub fn found(
    store: &mut dyn Store,
    settings: &Settings,
    shard: usize,
    founded_ms: u64,
    level: bool,
) -> Result<(), StoreError> {
    let mark = Mark { name: mark_name(settings, shard), founded_ms, level };
    // The id names a store within a node; a mark is the same whichever it is.
    Replica::open(store, StoreId::Node)?.set_mark(store, mark)
}

/// Siblings found each other under this name.
pub fn mark_name(settings: &Settings, shard: usize) -> String {
    format!("{}/{}", settings.domain, settings.shards[shard].name)
}

pub fn decode_text(text: &str) -> Option<Record> {
    BASE64.decode(text).ok().and_then(|bytes| decode(&bytes).ok())
}
