//! What a replica has missed: the writes that are kept for it until it has them.
//!
//! A replica with a hint is *behind*: it is written to, but not read from. Hints are kept in the node's own store, so that a
//! restart does not forget who is behind. Limit: `hint_count_max` per replica; beyond it the replica needs repair.

use std::collections::{BTreeMap, BTreeSet};

use super::merge::{Record, decode, encode, merge};
use crate::ident::Imsi;
use crate::store::{Batch, CommitId, Store, StoreError, StoreId};

/// The hints for one replica.
#[derive(Default, Debug)]
pub struct Hints {
    /// Everything that it missed of each AOR, merged into one record.
    missed: BTreeMap<Imsi, Record>,
    /// More was missed than is kept.
    pub overflowed: bool,
    /// What the node's own store had no room for: it is written as soon as it has.
    unkept: BTreeSet<Imsi>,
}

impl Hints {
    /// Reads what an earlier run kept for the replica of this name.
    pub fn load(store: &dyn Store, replica: &str) -> Result<Hints, StoreError> {
        let mut hints = Hints { overflowed: store.get(&overflow_key(replica))?.is_some(), ..Hints::default() };
        let prefix = prefix(replica);
        let mut cursor: Option<Vec<u8>> = None;
        loop {
            let page = store.scan(&prefix, cursor.as_deref(), 1000)?;
            let Some((last, _)) = page.last() else { return Ok(hints) };
            cursor = Some(last.clone());
            for (key, value) in page {
                let imsi = std::str::from_utf8(&key[prefix.len()..]).ok().and_then(|text| Imsi::parse(text).ok());
                match (imsi, decode(&value)) {
                    (Some(imsi), Ok(record)) => drop(hints.missed.insert(imsi, record)),
                    // What cannot be read cannot be replayed: the replica needs repair.
                    _ => hints.overflowed = true,
                }
            }
        }
    }

    /// Keeps one more missed write; the commit is of the node's own store.
    pub fn add(
        &mut self,
        store: &mut dyn Store,
        replica: &str,
        imsi: Imsi,
        delta: &Record,
        count_max: usize,
    ) -> Result<CommitId, StoreError> {
        if self.missed.len() >= count_max && !self.missed.contains_key(&imsi) {
            self.overflowed = true;
        } else {
            let record = merge(self.missed.remove(&imsi).unwrap_or_default(), delta);
            self.missed.insert(imsi, record);
        }
        self.unkept.insert(imsi);
        self.keep(store, replica)
    }

    /// Writes what is not in the node's own store yet.
    pub fn keep(&mut self, store: &mut dyn Store, replica: &str) -> Result<CommitId, StoreError> {
        let mut batch = Batch::default();
        for imsi in &self.unkept {
            batch = match self.missed.get(imsi) {
                Some(record) => batch.put(key(replica, *imsi), encode(record)),
                None if self.overflowed => batch.put(overflow_key(replica), [1u8]),
                // The replica has it by now.
                None => batch,
            };
        }
        let seq = store.write(batch)?;
        self.unkept.clear();
        Ok(CommitId { store: StoreId::Node, seq })
    }

    pub fn is_kept(&self) -> bool {
        self.unkept.is_empty()
    }

    /// The replica has this record: forgets it, unless more was missed of the AOR since.
    pub fn done(&mut self, store: &mut dyn Store, replica: &str, imsi: Imsi, told: &Record) -> Result<(), StoreError> {
        if self.missed.get(&imsi) == Some(told) {
            self.missed.remove(&imsi);
            store.write(Batch::default().delete(key(replica, imsi)))?;
        }
        Ok(())
    }

    /// All siblings were compared: nothing is missing any more.
    pub fn clear(&mut self, store: &mut dyn Store, replica: &str) -> Result<(), StoreError> {
        let mut batch = Batch::default().delete(overflow_key(replica));
        for imsi in self.missed.keys() {
            batch = batch.delete(key(replica, *imsi));
        }
        *self = Hints::default();
        store.write(batch).map(drop)
    }

    /// The next write to tell it again.
    pub fn next(&self) -> Option<(Imsi, &Record)> {
        self.iter().next()
    }

    pub fn iter(&self) -> impl Iterator<Item = (Imsi, &Record)> {
        self.missed.iter().map(|(imsi, record)| (*imsi, record))
    }

    /// What it missed of this AOR.
    pub fn missed(&self, imsi: Imsi) -> Option<&Record> {
        self.missed.get(&imsi)
    }

    /// It missed a binding of this AOR: what it has of it is not to be believed. A missed mark is no reason.
    pub fn lacks(&self, imsi: Imsi) -> bool {
        self.missed(imsi).is_some_and(|record| !record.is_of_marks())
    }

    pub fn behind(&self) -> bool {
        self.overflowed || !self.missed.is_empty()
    }

    pub fn len(&self) -> usize {
        self.missed.len()
    }

    pub fn is_empty(&self) -> bool {
        self.missed.is_empty()
    }

    /// The oldest stamp of what it misses.
    pub fn oldest_ms(&self) -> Option<u64> {
        self.missed.values().map(|record| record.latest().ms).min()
    }
}

fn prefix(replica: &str) -> Vec<u8> {
    format!("h/{replica}/").into_bytes()
}

fn key(replica: &str, imsi: Imsi) -> Vec<u8> {
    format!("h/{replica}/{imsi}").into_bytes()
}

fn overflow_key(replica: &str) -> Vec<u8> {
    format!("o/{replica}").into_bytes()
}
