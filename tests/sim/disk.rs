//! The disks of a simulated node: [`MemoryStore`]s that remember what was written since the last look, and that can lie.

use std::collections::{BTreeMap, BTreeSet};

use encamp::ident::Imsi;
use encamp::register::merge::{Record, decode};
use encamp::register::replica::Replica;
use encamp::store::memory::MemoryStore;
use encamp::store::{Batch, Seq, Store, StoreError, StoreId, Stores};

/// How a disk breaks its promise; only in the tests of the checks.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum Lie {
    #[default]
    None,
    /// It says *synced* and has made nothing durable.
    SyncIgnored,
    /// Its reads show, after every second write of a record, what stood there before: a cache that nobody told.
    ReadsStale,
}

#[derive(Clone, Default)]
pub struct Disk {
    inner: MemoryStore,
    pub lie: Lie,
    /// What a lying disk says is synced.
    claimed: Seq,
    records_written: u64,
    stale: BTreeMap<Vec<u8>, Vec<u8>>,
    /// Whose records were written since [`Disk::take_touched`].
    touched: BTreeSet<Imsi>,
    pub sync_scheduled: bool,
    pub failed: bool,
    fails_next: bool,
    full: bool,
}

impl Disk {
    pub fn with_lie(lie: Lie) -> Disk {
        Disk { lie, ..Disk::default() }
    }

    pub fn sync(&mut self) -> Result<Seq, StoreError> {
        if self.lie == Lie::SyncIgnored {
            self.claimed = self.inner.written_seq();
            return Ok(self.claimed);
        }
        if std::mem::take(&mut self.fails_next) {
            self.inner.fail_next_sync();
        }
        let result = self.inner.sync();
        self.failed = result.is_err();
        result
    }

    /// Part of what was not synced may have reached the disk all the same.
    pub fn sync_a_part(&mut self, seq: Seq) {
        if self.lie != Lie::SyncIgnored && !self.failed {
            let _ = self.inner.sync_to(seq);
        }
    }

    pub fn power_cut(&mut self) {
        self.inner.power_cut();
        self.closed();
    }

    /// The process ended and the machine did not: what was written is still in the page cache, and opening the store again
    /// replays its log and syncs what it found (RocksDB flushes what it recovered before it says that it is open).
    ///
    /// A store whose sync had failed holds what was durable: nobody can say more of it.
    pub fn process_ended(&mut self) {
        if !self.failed {
            self.inner.set_mute(false);
            self.set_full(false);
            if self.lie != Lie::SyncIgnored {
                let _ = self.inner.sync();
            }
        }
        if self.lie == Lie::SyncIgnored && !self.failed {
            // The page cache is honest even where the disk is not: keep what was written readable.
            let live = self.inner.clone();
            self.inner.power_cut();
            for (key, value) in live.scan(b"", None, usize::MAX).unwrap_or_default() {
                let _ = self.inner.write(Batch::default().put(key, value));
            }
            self.claimed = self.inner.written_seq();
            self.opened();
            return;
        }
        self.power_cut();
    }

    fn closed(&mut self) {
        self.claimed = 0;
        self.opened();
    }

    fn opened(&mut self) {
        self.failed = false;
        self.sync_scheduled = false;
    }

    pub fn set_mute(&mut self, mute: bool) {
        self.inner.set_mute(mute);
    }

    pub fn is_full(&self) -> bool {
        self.full
    }

    pub fn set_full(&mut self, full: bool) {
        self.full = full;
        self.inner.set_full(full);
    }

    pub fn set_fails_next(&mut self, fails_next: bool) {
        self.fails_next = fails_next;
    }

    pub fn needs_sync(&self) -> bool {
        !self.failed && self.written_seq() > self.synced_seq()
    }

    pub fn take_touched(&mut self) -> BTreeSet<Imsi> {
        std::mem::take(&mut self.touched)
    }

    /// What a power cut at this moment would leave of a phone's record.
    pub fn durable_record(&self, imsi: Imsi) -> Record {
        self.inner.durable().get(&record_key(imsi)).and_then(|bytes| decode(bytes).ok()).unwrap_or_default()
    }

    pub fn live_record(&self, imsi: Imsi) -> Record {
        self.inner.get(&record_key(imsi)).ok().flatten().and_then(|bytes| decode(&bytes).ok()).unwrap_or_default()
    }

    /// Keys under a prefix whose live and durable values differ.
    pub fn not_durable(&self, prefix: &[u8]) -> Vec<Vec<u8>> {
        let live: BTreeMap<_, _> = self.inner.scan(prefix, None, usize::MAX).unwrap_or_default().into_iter().collect();
        let durable = self.inner.durable();
        let keys: BTreeSet<&Vec<u8>> =
            live.keys().chain(durable.keys().filter(|key| key.starts_with(prefix))).collect();
        keys.into_iter().filter(|key| live.get(*key) != durable.get(*key)).cloned().collect()
    }

    /// Its *no* may be believed; of one that was closed while the no was on its way, what its disk says.
    pub fn is_level(&self, id: StoreId) -> bool {
        let mut reopened;
        let mut store: &dyn Store = self;
        if self.failed {
            reopened = self.inner.clone();
            reopened.power_cut();
            store = &reopened;
        }
        Replica::open(store, id).is_ok_and(|replica| replica.is_level())
    }

    pub fn has(&self, key: &[u8]) -> bool {
        self.inner.get(key).is_ok_and(|value| value.is_some())
    }
}

fn record_key(imsi: Imsi) -> Vec<u8> {
    [b"b", imsi.as_str().as_bytes()].concat()
}

fn imsi_of(key: &[u8]) -> Option<Imsi> {
    let text = std::str::from_utf8(key.strip_prefix(b"b")?).ok()?;
    Imsi::parse(text).ok()
}

impl Store for Disk {
    fn get(&self, key: &[u8]) -> Result<Option<Vec<u8>>, StoreError> {
        match self.stale.get(key) {
            Some(stale) => Ok(Some(stale.clone())),
            None => self.inner.get(key),
        }
    }

    fn scan(&self, prefix: &[u8], cursor: Option<&[u8]>, limit: usize) -> Result<Vec<(Vec<u8>, Vec<u8>)>, StoreError> {
        self.inner.scan(prefix, cursor, limit)
    }

    fn write(&mut self, batch: Batch) -> Result<Seq, StoreError> {
        let keys: Vec<Vec<u8>> = batch.changes.iter().map(|(key, _)| key.clone()).collect();
        let before: Vec<Option<Vec<u8>>> = keys.iter().map(|key| self.inner.get(key).ok().flatten()).collect();
        let seq = self.inner.write(batch)?;
        for (key, before) in keys.into_iter().zip(before) {
            let Some(imsi) = imsi_of(&key) else { continue };
            self.touched.insert(imsi);
            self.records_written += 1;
            self.stale.remove(&key);
            if let (Lie::ReadsStale, Some(before), true) = (self.lie, before, self.records_written.is_multiple_of(2)) {
                self.stale.insert(key, before);
            }
        }
        Ok(seq)
    }

    fn written_seq(&self) -> Seq {
        self.inner.written_seq()
    }

    fn synced_seq(&self) -> Seq {
        if self.lie == Lie::SyncIgnored { self.claimed } else { self.inner.synced_seq() }
    }
}

#[derive(Clone, Default)]
pub struct Disks(pub BTreeMap<StoreId, Disk>);

impl Stores for Disks {
    fn store(&mut self, id: StoreId) -> Option<&mut dyn Store> {
        self.0.get_mut(&id).map(|disk| disk as &mut dyn Store)
    }
}
