//! One replica of this process: its records, its founding mark, and whether its *no* may be believed.
//!
//! Knows: one store and the merge rule. Does not know: requests, quorums, other replicas.
//! Keys: `b` + IMSI -> record; `m` -> [`Mark`]. Each value begins with a version byte.

use std::net::SocketAddr;

use super::merge::{Record, decode, encode, merge};
use crate::ident::Imsi;
use crate::store::{Batch, CommitId, Store, StoreError, StoreId};
use crate::time::Stamp;

const MARK_KEY: &[u8] = b"m";
const MARK_VERSION: u8 = 1;

/// The founding mark: this store began empty, together with its siblings, by an operator's word or because nothing existed.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Mark {
    /// `domain/shard`: siblings found each other under the same one.
    pub name: String,
    /// When, ms since 1970.
    pub founded_ms: u64,
    /// It has been compared, so its *no* counts (DESIGN promise 2).
    pub level: bool,
}

/// A replica of this process.
#[derive(Debug)]
pub struct Replica {
    pub store: StoreId,
    pub mark: Option<Mark>,
    /// Live bindings, counted at the start and kept since.
    pub bindings: u64,
}

/// What came of applying a write.
#[derive(Debug, PartialEq, Eq)]
pub struct Applied {
    /// The write is safe when this is synced.
    pub commit: CommitId,
    /// The replica knew a newer write of this AOR: its largest stamp.
    pub older_than: Option<Stamp>,
    /// Who waits for this phone, now that what was written leaves it bound later than their mark.
    pub alert: Vec<SocketAddr>,
    /// It held nothing of this phone before: no binding, and no memory of one.
    pub is_new: bool,
}

impl Replica {
    /// Opens what is there; counts the bindings.
    pub fn open(store: &dyn Store, id: StoreId) -> Result<Replica, StoreError> {
        let mark = store.get(MARK_KEY)?.map(|bytes| decode_mark(&bytes)).transpose()?;
        let mut bindings = 0;
        for_each_record(store, |_, record| bindings += record.bindings().count() as u64)?;
        Ok(Replica { store: id, mark, bindings })
    }

    pub fn is_level(&self) -> bool {
        self.mark.as_ref().is_some_and(|mark| mark.level)
    }

    pub fn set_mark(&mut self, store: &mut dyn Store, mark: Mark) -> Result<(), StoreError> {
        store.write(Batch::default().put(MARK_KEY, encode_mark(&mark)))?;
        self.mark = Some(mark);
        Ok(())
    }

    /// Merges an outcome into the record of this AOR.
    pub fn apply(&mut self, store: &mut dyn Store, imsi: Imsi, delta: &Record) -> Result<Applied, StoreError> {
        let key = key(imsi);
        let held = store.get(&key)?;
        let old = held.as_deref().map_or(Ok(Record::default()), |bytes| readable(imsi, bytes))?;
        let newest = old.stamp();
        let is_new = old.is_of_marks();
        let before = old.bindings().count() as u64;
        let merged = merge(old, delta);
        // A mark is neither older nor newer than a binding.
        let older_than = (!delta.is_of_marks() && newest > delta.stamp()).then_some(newest);
        let alert = merged.returned_for().collect();
        let bytes = encode(&merged);
        if held.map_or(merged == Record::default(), |held| held == bytes) {
            // A copy: what it repeats may still be on its way to the disk, so it waits for everything written so far.
            let commit = CommitId { store: self.store, seq: store.written_seq() };
            return Ok(Applied { commit, older_than, alert, is_new });
        }
        let seq = store.write(Batch::default().put(key, bytes))?;
        self.bindings = self.bindings + merged.bindings().count() as u64 - before;
        Ok(Applied { commit: CommitId { store: self.store, seq }, older_than, alert, is_new })
    }

    /// Puts what is left of a record (see [`purged`]) in its place.
    pub fn purge(
        &mut self,
        store: &mut dyn Store,
        imsi: Imsi,
        record: &Record,
        rest: &Record,
    ) -> Result<(), StoreError> {
        let batch = match rest == &Record::default() {
            true => Batch::default().delete(key(imsi)),
            false => Batch::default().put(key(imsi), encode(rest)),
        };
        store.write(batch)?;
        let gone = record.bindings().count().saturating_sub(rest.bindings().count());
        self.bindings = self.bindings.saturating_sub(gone as u64);
        Ok(())
    }
}

/// The record of one AOR; empty where there is none.
pub fn read(store: &dyn Store, imsi: Imsi) -> Result<Record, StoreError> {
    match store.get(&key(imsi))? {
        None => Ok(Record::default()),
        Some(bytes) => readable(imsi, &bytes),
    }
}

/// A page of records after `cursor`, in order of IMSI.
///
/// Errors: the store's, and any record that cannot be read.
pub fn page(store: &dyn Store, cursor: Option<Imsi>, limit: usize) -> Result<Vec<(Imsi, Record)>, StoreError> {
    let all = page_readable(store, cursor, limit)?.into_iter();
    all.map(|(imsi, record)| Ok((imsi, record.ok_or_else(|| unreadable(imsi))?))).collect()
}

/// As [`page`], with `None` for a record that cannot be read.
pub fn page_readable(
    store: &dyn Store,
    cursor: Option<Imsi>,
    limit: usize,
) -> Result<Vec<(Imsi, Option<Record>)>, StoreError> {
    let cursor = cursor.map(key);
    let mut records = Vec::new();
    for (key, value) in store.scan(b"b", cursor.as_deref(), limit)? {
        let text = std::str::from_utf8(&key[1..]).map_err(|_| StoreError::Broken("a key is not an IMSI".into()))?;
        let imsi = Imsi::parse(text).map_err(|_| StoreError::Broken("a key is not an IMSI".into()))?;
        records.push((imsi, decode(&value).ok()));
    }
    Ok(records)
}

/// Every record, in order of IMSI, page by page.
pub fn for_each_record(store: &dyn Store, mut each: impl FnMut(Imsi, Record)) -> Result<(), StoreError> {
    let mut cursor = None;
    loop {
        let records = page(store, cursor, 1000)?;
        let Some((last, _)) = records.last() else { return Ok(()) };
        cursor = Some(*last);
        for (imsi, record) in records {
            each(imsi, record);
        }
    }
}

/// What is left of a record at this time: bindings past their expiry by more than `stale_ms`, marks older than that, and tombstones of
/// either older than `tombstone_ms` go. `None` when nothing changes.
///
/// The same on every replica at the same time, so replicas stay equal without telling each other. `shift_ms` says by how much
/// the times in a write are too small, because it was written while the clock was wrong.
pub fn purged(
    record: &Record,
    now_ms: u64,
    stale_ms: u64,
    tombstone_ms: u64,
    shift_ms: impl Fn(Stamp) -> u64,
) -> Option<Record> {
    let mut rest = record.clone();
    rest.contacts.retain(|_, entry| match &entry.binding {
        Some(binding) => binding.expires_at_ms.saturating_add(stale_ms + shift_ms(entry.stamp)) > now_ms,
        None => entry.stamp.ms.saturating_add(tombstone_ms + shift_ms(entry.stamp)) > now_ms,
    });
    rest.marks.retain(|_, mark| {
        let life_ms = if mark.since.is_some() { stale_ms } else { tombstone_ms };
        mark.stamp.ms.saturating_add(life_ms + shift_ms(mark.stamp)) > now_ms
    });
    let clear_stamp_needed = rest.clear_stamp.ms.saturating_add(tombstone_ms + shift_ms(rest.clear_stamp)) > now_ms;
    if rest.contacts.is_empty() && !clear_stamp_needed {
        rest.clear_stamp = Stamp::ZERO;
    }
    (rest != *record).then_some(rest)
}

fn readable(imsi: Imsi, bytes: &[u8]) -> Result<Record, StoreError> {
    decode(bytes).map_err(|_| unreadable(imsi))
}

fn unreadable(imsi: Imsi) -> StoreError {
    StoreError::Broken(format!("the record of {} cannot be read by this release", imsi.short()))
}

fn key(imsi: Imsi) -> Vec<u8> {
    let mut key = Vec::with_capacity(16);
    key.push(b'b');
    key.extend_from_slice(imsi.as_str().as_bytes());
    key
}

fn encode_mark(mark: &Mark) -> Vec<u8> {
    let mut out = vec![MARK_VERSION, u8::from(mark.level)];
    out.extend_from_slice(&mark.founded_ms.to_be_bytes());
    out.extend_from_slice(mark.name.as_bytes());
    out
}

fn decode_mark(bytes: &[u8]) -> Result<Mark, StoreError> {
    let wrong = || StoreError::Broken("the founding mark cannot be read by this release".into());
    match bytes {
        [MARK_VERSION, level, rest @ ..] if rest.len() >= 8 => {
            let (founded, name) = rest.split_at(8);
            let founded_ms = u64::from_be_bytes(founded.try_into().map_err(|_| wrong())?);
            let name = String::from_utf8(name.to_vec()).map_err(|_| wrong())?;
            Ok(Mark { name, founded_ms, level: *level == 1 })
        }
        _ => Err(wrong()),
    }
}
