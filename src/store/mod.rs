//! What is on the disk: a small ordered key-value store that says when a write has become safe.
//!
//! Knows: keys, values, batches, and the line between *written* (visible at once) and *synced* (survives a power cut).
//! Does not know: what the records mean; typed records stand with their owners, each beginning with a version byte.
//! Limits: a batch is atomic; a value is at most [`VALUE_BYTES_MAX`].

pub mod memory;
#[cfg(feature = "box")]
pub mod rocks;

use std::fmt;

pub const VALUE_BYTES_MAX: usize = 64 * 1024;

/// Which store of this node.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum StoreId {
    /// The node's own records: clock floor, zone serial, hints.
    Node,
    /// The bindings of a local replica: its index in `Settings::replicas`.
    Replica(u16),
    /// The message centre's texts.
    Messages,
}

/// The number of a write within its store, counted from 1 since the store was opened; 0 is before all of them.
pub type Seq = u64;

/// One write: it is safe when its store has synced `seq`, which covers every smaller one.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct CommitId {
    pub store: StoreId,
    pub seq: Seq,
}

/// Puts and deletions that happen all or not at all.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Batch {
    /// Key, and its new value; `None` deletes.
    pub changes: Vec<(Vec<u8>, Option<Vec<u8>>)>,
}

impl Batch {
    pub fn put(mut self, key: impl Into<Vec<u8>>, value: impl Into<Vec<u8>>) -> Batch {
        self.changes.push((key.into(), Some(value.into())));
        self
    }

    pub fn delete(mut self, key: impl Into<Vec<u8>>) -> Batch {
        self.changes.push((key.into(), None));
        self
    }

    /// Every store asks this before it writes, so that no batch passes in memory and fails on the disk.
    fn check(&self) -> Result<(), StoreError> {
        match self.changes.iter().filter_map(|(_, value)| value.as_ref()).find(|value| value.len() > VALUE_BYTES_MAX) {
            None => Ok(()),
            Some(value) => Err(StoreError::Broken(format!(
                "a value of {} bytes; at most {VALUE_BYTES_MAX} are stored",
                value.len()
            ))),
        }
    }
}

/// Why a store did not do what it was asked.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum StoreError {
    /// Less than `disk_reserve` is left: reads go on, writes are refused.
    Full,
    /// The write would have had to wait for compaction; nothing was written.
    Stalled,
    /// A sync failed, or the store was closed: nothing is read or written any more.
    Closed,
    /// The database itself complains; its words.
    Broken(String),
}

impl fmt::Display for StoreError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            StoreError::Full => f.write_str("the disk is full up to its reserve"),
            StoreError::Stalled => f.write_str("the store would have had to wait for its compaction"),
            StoreError::Closed => f.write_str("the store is closed after a failed sync"),
            StoreError::Broken(words) => write!(f, "the store complains: {words}"),
        }
    }
}

impl std::error::Error for StoreError {}

/// Key and value.
pub type Record = (Vec<u8>, Vec<u8>);

/// An ordered key-value store; memory and RocksDB pass the same battery.
pub trait Store {
    fn get(&self, key: &[u8]) -> Result<Option<Vec<u8>>, StoreError>;

    /// Up to `limit` records whose key begins with `prefix`, in key order, those after `cursor` where one is given.
    fn scan(&self, prefix: &[u8], cursor: Option<&[u8]>, limit: usize) -> Result<Vec<Record>, StoreError>;

    /// Visible at once; safe once [`Store::synced_seq`] has reached the returned number. Never waits for the disk.
    fn write(&mut self, batch: Batch) -> Result<Seq, StoreError>;

    fn written_seq(&self) -> Seq;

    fn synced_seq(&self) -> Seq;
}

/// The stores of one node.
pub trait Stores {
    /// `None` where this node has no such store open.
    fn store(&mut self, id: StoreId) -> Option<&mut dyn Store>;
}
