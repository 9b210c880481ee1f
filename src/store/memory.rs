//! A store in memory that can lose power.
//!
//! Knows: two images of the same records, *live* (what reads see) and *durable* (what a power cut leaves), and the batches
//! between them. Does not know: when to sync; whoever drives it says so, which is how a disk is slow here.
//! Reads and writes: nothing outside itself; no thread, no clock.
//! Limits: those of [`Store`]; memory is as large as the records are.
//! Read first: [`crate::store`], the contract; `tests/store_battery.rs`, which both stores pass.

use super::{Batch, Record, Seq, Store, StoreError, StoreId, Stores};
use std::collections::{BTreeMap, VecDeque};
use std::ops::Bound;

type Image = BTreeMap<Vec<u8>, Vec<u8>>;

/// A store whose disk obeys the test: it syncs when told, and fails when told.
///
/// A *slow* disk is one that is not synced for a while; a sync that survived only in part is [`MemoryStore::sync_to`]
/// followed by [`MemoryStore::power_cut`].
#[derive(Clone, Debug, Default)]
pub struct MemoryStore {
    live: Image,
    durable: Image,
    /// Written and not synced, oldest first: `live` is `durable` with these applied.
    unsynced: VecDeque<Batch>,
    synced_seq: Seq,
    mute: bool,
    full: bool,
    next_sync_fails: bool,
    closed: bool,
}

impl MemoryStore {
    pub fn new() -> MemoryStore {
        MemoryStore::default()
    }

    /// Makes all that is written durable, and tells how far that is.
    pub fn sync(&mut self) -> Result<Seq, StoreError> {
        self.sync_to(self.written_seq())
    }

    /// Makes the writes up to `seq` durable, and tells how far the store is synced, which may be more (it was already) or
    /// less (it is mute, or less is written).
    pub fn sync_to(&mut self, seq: Seq) -> Result<Seq, StoreError> {
        self.readable()?;
        if std::mem::take(&mut self.next_sync_fails) {
            // Nobody can say what a disk holds whose sync failed, so nothing more is read from it or written to it.
            self.closed = true;
            return Err(StoreError::Closed);
        }
        if self.mute {
            return Ok(self.synced_seq);
        }
        while self.synced_seq < seq
            && let Some(batch) = self.unsynced.pop_front()
        {
            apply(&mut self.durable, batch);
            self.synced_seq += 1;
        }
        Ok(self.synced_seq)
    }

    /// Pulls the plug and opens the store again: what was not synced is gone, and sequence numbers start anew.
    ///
    /// A store that a failed sync had closed is open again; a disk that was mute or full still is.
    pub fn power_cut(&mut self) {
        self.live = self.durable.clone();
        self.unsynced.clear();
        self.synced_seq = 0;
        self.closed = false;
    }

    /// Mute: writes are accepted, and no sync ever ends. This is a disk that hangs rather than fails.
    pub fn set_mute(&mut self, mute: bool) {
        self.mute = mute;
    }

    /// Full up to its reserve: writes are refused, reads go on.
    pub fn set_full(&mut self, full: bool) {
        self.full = full;
    }

    /// The next sync fails, and the store is closed until [`MemoryStore::power_cut`].
    pub fn fail_next_sync(&mut self) {
        self.next_sync_fails = true;
    }

    /// What a power cut at this moment would leave; for tests that check a promise when it is made.
    pub fn durable(&self) -> &BTreeMap<Vec<u8>, Vec<u8>> {
        &self.durable
    }

    fn readable(&self) -> Result<(), StoreError> {
        if self.closed { Err(StoreError::Closed) } else { Ok(()) }
    }
}

impl Store for MemoryStore {
    fn get(&self, key: &[u8]) -> Result<Option<Vec<u8>>, StoreError> {
        self.readable()?;
        Ok(self.live.get(key).cloned())
    }

    fn scan(&self, prefix: &[u8], cursor: Option<&[u8]>, limit: usize) -> Result<Vec<Record>, StoreError> {
        self.readable()?;
        // Keys with one prefix stand together, beginning at the prefix itself: no upper bound is needed, so none can be
        // wrong where the prefix ends in 0xff.
        let from = match cursor {
            Some(cursor) if cursor >= prefix => Bound::Excluded(cursor),
            _ => Bound::Included(prefix),
        };
        let found = self.live.range::<[u8], _>((from, Bound::Unbounded));
        let found = found.take_while(|(key, _)| key.starts_with(prefix)).take(limit);
        Ok(found.map(|(key, value)| (key.clone(), value.clone())).collect())
    }

    fn write(&mut self, batch: Batch) -> Result<Seq, StoreError> {
        self.readable()?;
        if self.full {
            return Err(StoreError::Full);
        }
        batch.check()?;
        apply(&mut self.live, batch.clone());
        self.unsynced.push_back(batch);
        Ok(self.written_seq())
    }

    fn written_seq(&self) -> Seq {
        self.synced_seq + self.unsynced.len() as Seq
    }

    fn synced_seq(&self) -> Seq {
        self.synced_seq
    }
}

fn apply(image: &mut Image, batch: Batch) {
    for (key, value) in batch.changes {
        match value {
            Some(value) => image.insert(key, value),
            None => image.remove(&key),
        };
    }
}

/// The stores of a node under test.
#[derive(Clone, Debug, Default)]
pub struct MemoryStores {
    pub stores: BTreeMap<StoreId, MemoryStore>,
}

impl Stores for MemoryStores {
    fn store(&mut self, id: StoreId) -> Option<&mut dyn Store> {
        self.stores.get_mut(&id).map(|store| store as &mut dyn Store)
    }
}
