//! When a replica's *no* may be believed: founding, and levelling with its siblings.
//!
//! Knows: the founding mark, and who has been compared with whom. A new site founds itself, or is founded by `encamp init`; siblings on one
//! box are made equal at each start; a replica with siblings elsewhere asks them whether they hold anything older than it.
//! Read first: DESIGN promise 2.

use super::{OnePlace, Replicas, back};
use crate::config::Settings;
use crate::event::Event;
use crate::register::hints::Hints;
use crate::register::replica::{self, Mark, Replica};
use crate::seam::{After, Ctx, Inner};
use crate::site::World;
use crate::store::{Store, StoreError, StoreId};

impl Replicas {
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
                    Ok(applied) => {
                        copied += w.store(StoreId::Replica(to as u16))?.written_seq() - written;
                        back(w, After::nothing().and(applied.commit), imsi, applied.alert);
                    }
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

    pub(super) fn some_sibling_waits(&self, w: &World<'_, '_>, index: usize) -> bool {
        let members = &w.site.settings.shards[self.all[index].shard].replicas;
        members
            .iter()
            .any(|member| self.open_local(*member).is_some_and(|replica| replica.mark.is_some() && !replica.is_level()))
    }

    /// A sibling elsewhere has the same mark and nothing older than our founding: where all have said so, ours is level.
    pub(super) fn sibling_compared(&mut self, w: &mut World<'_, '_>, index: usize) {
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
