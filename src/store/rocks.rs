//! A store on disk: one RocksDB and one thread that syncs its log.
//!
//! Knows: when a write has become safe, when the disk is nearly full, and when it can no longer be trusted.
//! Does not know: what the records mean, and what a node does about a closed store.
//! Reads and writes: the directory it is given; beside RocksDB's files there is `encamp.lock`, see [`Floor`].
//! Limits: [`Shared`] bounds the memory of all stores of the process; `disk_reserve_bytes` bounds the disk.
//! Read first: [`crate::store`], the contract; `tests/store_battery.rs`, which both stores pass.
//!
//! ```text
//!  node's thread                        syncer's thread
//!  write: append to the log, no sync
//!         written = 7, ring the bell -> take written = 7
//!  write: 8, 9                          flush_wal(true)           (8 and 9 may be under it too; nobody counts on it)
//!                                       synced = 7, notify(7)
//!                                       take written = 9 ...      one sync for two writes: this is group commit
//! ```
//!
//! A write does not wait for a sync, but it appends to a file: about one in 300 was seen to wait some milliseconds while a
//! sync committed the journal of its file system (ext4). `manual_wal_flush` would move that wait to a lock, not end it.
//!
//! **When a sync fails** the kernel may have dropped the pages it could not write and call the next sync a success, so
//! there is no next one: the store is closed, and its RocksDB is leaked rather than closed, because closing may write.
//!
//! **After a power cut** the log may end in anything, for its unsynced pages reach the disk in any order: in half a record,
//! or in zeros between two good ones. RocksDB's point-in-time recovery takes the records before the first bad one, which
//! is right there, and is silently wrong where the disk has lost *synced* records: it would take the first half of the log
//! for the whole. `TolerateCorruptedTailRecords` refuses that, but refuses many a power cut too, and an unattended box has
//! to come up again. So recovery is point-in-time, and [`Floor`] tells the two apart.
#![allow(
    clippy::disallowed_methods,
    clippy::disallowed_types,
    reason = "this is the disk's own room: it has the syncer's thread, its clock, and the lock file"
)]

use super::{Batch, CommitId, Record, Seq, Store, StoreError, StoreId};
use rocksdb::{
    BlockBasedIndexType, BlockBasedOptions, Cache, DB, DBCompressionType, DBRecoveryMode, Env, LogLevel,
    LruCacheOptions, Options, PrefixRange, ReadOptions, WriteBatch, WriteBufferManager, WriteOptions,
};
use std::cell::RefCell;
use std::ffi::CString;
use std::fmt;
use std::fs::{File, TryLockError};
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

const MIB: usize = 1024 * 1024;

/// Blocks, indexes, filters and memtables of all stores together.
const CACHE_BYTES_MAX: usize = 16 * MIB;
/// The memtables' part of it: beyond, the store that writes flushes early.
const MEMTABLES_BYTES_MAX: usize = 8 * MIB;
const MEMTABLE_BYTES_MAX: usize = 2 * MIB;
const OPEN_FILES_MAX: i32 = 256;
const INFO_LOG_BYTES_MAX: usize = MIB;
/// How often free space is looked at, and the floor raised, while writes come.
const LOOK_EVERY: Duration = Duration::from_secs(1);
/// From the begin of one sync to that of the next, at least. The first write after a pause is synced at once; under load each
/// sync then covers more writes, and costs the processor less, for at most this much later an answer.
const SYNC_EVERY_MIN: Duration = Duration::from_millis(1);
/// How long a drop waits for the last sync.
const LAST_SYNC_MAX: Duration = Duration::from_secs(2);

/// What the stores of one process have in common, so that ten of them fit a box of 1 GiB.
pub struct Shared {
    /// RocksDB has one default environment per process anyway: here its threads are numbered.
    env: Env,
    cache: Cache,
    memtables: WriteBufferManager,
}

impl Shared {
    pub fn new() -> Result<Shared, StoreError> {
        let mut env = Env::new().map_err(|error| StoreError::Broken(error.into_string()))?;
        env.set_high_priority_background_threads(1); // flushes
        env.set_low_priority_background_threads(1); // compactions
        // Four shards of 4 MB rather than the default 64 small ones: what is larger than its shard is never kept, and was
        // seen read anew with every get.
        let mut cache = LruCacheOptions::default();
        cache.set_capacity(CACHE_BYTES_MAX);
        cache.set_num_shard_bits(2);
        let cache = Cache::new_lru_cache_opts(&cache);
        // No stall: a write is told to go ahead or to fail, never to wait.
        let memtables =
            WriteBufferManager::new_write_buffer_manager_with_cache(MEMTABLES_BYTES_MAX, false, cache.clone());
        Ok(Shared { env, cache, memtables })
    }
}

/// What the syncer tells, from its own thread.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum SyncReport {
    /// This write and all before it are safe.
    Synced(CommitId),
    /// The store is closed, once and for all; why.
    Failed(StoreId, String),
}

/// A [`Store`] on disk.
///
/// Errors: a sync or a write that fails closes the store ([`StoreError::Closed`]), and the syncer reports it once; no
/// space left is [`StoreError::Full`], and a read that fails [`StoreError::Broken`], without closing anything.
/// Drop:   syncs what is written, waits for that at most 2 s, and closes the database without flushing it: the log has
///         everything. A closed store is leaked, and its path cannot be opened again by this process.
pub struct RocksStore {
    core: Arc<Core>,
    written_seq: Seq,
    write_options: WriteOptions,
    read_options: ReadOptions,
    /// What was read last, until something is written: a REGISTER is decided by a record, and merged into the same one at once.
    last_read: RefCell<Option<Read>>,
    syncer: Option<JoinHandle<()>>,
    /// Nothing is ever sent: it is cut off when the syncer ends.
    syncer_ended: Receiver<()>,
}

/// A key, and what stood there.
type Read = (Vec<u8>, Option<Vec<u8>>);

/// What the node's thread and the syncer share.
struct Core {
    db: DB,
    id: StoreId,
    path: PathBuf,
    disk_reserve_bytes: AtomicU64,
    /// Dropped after `db`: the lock is given back when nobody writes any more.
    floor: Floor,
    synced_seq: AtomicU64,
    full: AtomicBool,
    closed: AtomicBool,
    desk: Mutex<Desk>,
    bell: Condvar,
}

/// What lies on the syncer's desk when the bell rings.
#[derive(Default)]
struct Desk {
    written_seq: Seq,
    /// RocksDB's own count after that write.
    change: u64,
    /// A write failed in a way that only a closed store answers.
    broken: Option<String>,
    leaving: bool,
    /// The bell costs a system call, so it is rung for a sleeper only.
    asleep: bool,
}

enum Task {
    Sync { seq: Seq, change: u64 },
    Close(String),
    Look,
    Leave,
}

impl RocksStore {
    /// Opens the store at `path`, which is created where it does not exist.
    ///
    /// Units:  below `disk_reserve_bytes` of free space writes are refused, 10 % above it they are accepted again.
    /// Errors: [`StoreError::Broken`], in words: the path is open elsewhere, synced records are missing, or what RocksDB
    ///         or the system says.
    /// `notify` is called by the syncer and should not block for long: it holds up the next sync.
    pub fn open(
        path: &Path,
        id: StoreId,
        shared: &Shared,
        disk_reserve_bytes: u64,
        notify: Box<dyn Fn(SyncReport) + Send + Sync>,
    ) -> Result<RocksStore, StoreError> {
        let broken = |words: &dyn fmt::Display| StoreError::Broken(format!("{}: {words}", path.display()));
        create_durably(path).map_err(|error| broken(&error))?;
        let floor = Floor::lock(path).map_err(|words| broken(&words))?;
        let options = options(shared).map_err(|error| broken(&error))?;
        if let Some(synced) = floor.read()
            && synced > 0
        {
            // Looked at without writing first: a real open would cut the log where it is damaged and remove what follows.
            let found = if path.join("CURRENT").exists() {
                DB::open_for_read_only(&options, path, false).map_err(|error| broken(&error))?.latest_sequence_number()
            } else {
                0
            };
            if found < synced {
                return Err(broken(&format_args!(
                    "records that were synced are missing: the log ends at change {found}, and change {synced} was on the \
                     disk. The disk has lost data. Restore a backup or let a sibling replica refill an empty directory; to \
                     go on with what is left, remove {}",
                    path.join(Floor::NAME).display()
                )));
            }
        }
        let db = DB::open(&options, path).map_err(|error| broken(&error))?;
        // What was recovered has been flushed to a table and synced by the open.
        floor.raise(db.latest_sequence_number());
        let core = Arc::new(Core {
            db,
            id,
            path: path.to_owned(),
            disk_reserve_bytes: AtomicU64::new(disk_reserve_bytes),
            floor,
            synced_seq: AtomicU64::new(0),
            full: AtomicBool::new(false),
            closed: AtomicBool::new(false),
            desk: Mutex::default(),
            bell: Condvar::new(),
        });
        core.look_for_space();
        let (ended, syncer_ended) = std::sync::mpsc::channel();
        let syncer = std::thread::Builder::new()
            .name(match id {
                StoreId::Node => "sync-node".to_owned(),
                StoreId::Replica(index) => format!("sync-{index}"),
                StoreId::Messages => "sync-messages".to_owned(),
            })
            .spawn({
                let core = Arc::clone(&core);
                move || sync_until_told(core, notify, ended)
            })
            .map_err(|error| broken(&error))?;
        let mut write_options = WriteOptions::default();
        write_options.set_sync(false);
        write_options.set_no_slowdown(true);
        Ok(RocksStore {
            core,
            written_seq: 0,
            write_options,
            read_options: ReadOptions::default(),
            last_read: RefCell::default(),
            syncer: Some(syncer),
            syncer_ended,
        })
    }
}

impl RocksStore {
    /// Another reserve than the one it was opened with; holds from the next write on.
    pub fn set_disk_reserve(&self, bytes: u64) {
        self.core.disk_reserve_bytes.store(bytes, Ordering::Release);
        self.core.look_for_space();
    }
}

impl Store for RocksStore {
    fn get(&self, key: &[u8]) -> Result<Option<Vec<u8>>, StoreError> {
        self.core.readable()?;
        let mut last_read = self.last_read.borrow_mut();
        if let Some((_, value)) = last_read.as_ref().filter(|(last, _)| last == key) {
            return Ok(value.clone());
        }
        let value = self.core.db.get_opt(key, &self.read_options);
        let value = value.map_err(|error| StoreError::Broken(error.into_string()))?;
        *last_read = Some((key.to_vec(), value.clone()));
        Ok(value)
    }

    fn scan(&self, prefix: &[u8], cursor: Option<&[u8]>, limit: usize) -> Result<Vec<Record>, StoreError> {
        self.core.readable()?;
        let mut options = ReadOptions::default();
        // Without an upper bound a scan that has read the last record would step over the deletions behind it.
        options.set_iterate_range(PrefixRange(prefix));
        let mut found = self.core.db.raw_iterator_opt(options);
        match cursor {
            Some(cursor) if cursor >= prefix => {
                found.seek(cursor);
                if found.key() == Some(cursor) {
                    found.next();
                }
            }
            _ => found.seek(prefix),
        }
        let mut records = Vec::new();
        while records.len() < limit
            && let Some((key, value)) = found.item()
        {
            records.push((key.to_vec(), value.to_vec()));
            found.next();
        }
        // An iterator that meets a damaged block ends like one that has read everything, but for this.
        found.status().map_err(|error| StoreError::Broken(error.into_string()))?;
        Ok(records)
    }

    fn write(&mut self, batch: Batch) -> Result<Seq, StoreError> {
        self.core.readable()?;
        if self.core.full.load(Ordering::Acquire) {
            return Err(StoreError::Full);
        }
        batch.check()?;
        self.last_read.take();
        let mut changes = WriteBatch::default();
        for (key, value) in &batch.changes {
            match value {
                Some(value) => changes.put(key, value),
                None => changes.delete(key),
            }
        }
        if let Err(error) = self.core.db.write_opt(changes, &self.write_options) {
            return Err(self.core.refuse(error.into_string()));
        }
        self.written_seq += 1;
        let change = self.core.db.latest_sequence_number();
        let mut desk = self.core.desk();
        desk.written_seq = self.written_seq;
        desk.change = change;
        self.core.ring(desk);
        Ok(self.written_seq)
    }

    fn written_seq(&self) -> Seq {
        self.written_seq
    }

    fn synced_seq(&self) -> Seq {
        self.core.synced_seq.load(Ordering::Acquire)
    }
}

impl Drop for RocksStore {
    fn drop(&mut self) {
        let mut desk = self.core.desk();
        desk.leaving = true;
        self.core.ring(desk);
        let in_time = self.syncer_ended.recv_timeout(LAST_SYNC_MAX) != Err(RecvTimeoutError::Timeout);
        if in_time && let Some(syncer) = self.syncer.take() {
            let _ = syncer.join(); // a panic of `notify` has closed the store, and was printed where it happened
        }
        if !in_time || self.core.closed.load(Ordering::Acquire) {
            // Closing a RocksDB flushes and syncs files. After a failed sync that could make a later one look good, and on
            // a disk that hangs it would hang us too; the process ends soon, and the system closes the files.
            std::mem::forget(Arc::clone(&self.core));
        }
    }
}

impl fmt::Debug for RocksStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "RocksStore({}, written {}, synced {})",
            self.core.path.display(),
            self.written_seq,
            self.synced_seq()
        )
    }
}

/// The syncer's whole life. `ended` is dropped with it, however it ends.
fn sync_until_told(core: Arc<Core>, notify: Box<dyn Fn(SyncReport) + Send + Sync>, ended: Sender<()>) {
    let _ended = ended;
    // Without its syncer a store would accept writes and never call one safe.
    struct CloseOnPanic(Arc<Core>);
    impl Drop for CloseOnPanic {
        fn drop(&mut self) {
            if std::thread::panicking() {
                self.0.closed.store(true, Ordering::Release);
            }
        }
    }
    let guard = CloseOnPanic(core);
    let core = &*guard.0;
    let mut looked_at = Instant::now();
    let mut synced_change = None;
    let mut began_at: Option<Instant> = None;
    loop {
        let mut task = core.next_task();
        if let (Task::Sync { .. }, Some(began_at)) = (&task, began_at)
            && let Some(early) = SYNC_EVERY_MIN.checked_sub(began_at.elapsed())
        {
            std::thread::sleep(early);
            // What was written meanwhile comes under the same sync.
            task = core.next_task();
        }
        began_at = Some(Instant::now());
        let words = match task {
            Task::Sync { seq, change } => match core.db.flush_wal(true) {
                Ok(()) => {
                    core.synced_seq.store(seq, Ordering::Release);
                    notify(SyncReport::Synced(CommitId { store: core.id, seq }));
                    synced_change = Some(change);
                    if looked_at.elapsed() >= LOOK_EVERY {
                        core.floor.raise(change);
                        core.look_for_space();
                        looked_at = Instant::now();
                    }
                    continue;
                }
                Err(error) => format!("sync failed: {error}"),
            },
            Task::Look => {
                core.look_for_space();
                continue;
            }
            Task::Leave => {
                if let Some(change) = synced_change {
                    core.floor.raise(change);
                }
                return;
            }
            Task::Close(words) => format!("write failed: {words}"),
        };
        core.closed.store(true, Ordering::Release);
        // Compactions are of no use any more, and would go on writing to the disk. With `avoid_flush_during_shutdown` this
        // flushes nothing.
        core.db.cancel_all_background_work(false);
        notify(SyncReport::Failed(core.id, words));
        return;
    }
}

impl Core {
    fn readable(&self) -> Result<(), StoreError> {
        if self.closed.load(Ordering::Acquire) { Err(StoreError::Closed) } else { Ok(()) }
    }

    /// The desk's holder cannot panic half way through a change, so a poisoned lock is as good as any.
    fn desk(&self) -> MutexGuard<'_, Desk> {
        self.desk.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn ring(&self, desk: MutexGuard<'_, Desk>) {
        let asleep = desk.asleep;
        drop(desk);
        if asleep {
            self.bell.notify_one();
        }
    }

    /// What the syncer does next; waits until there is something.
    fn next_task(&self) -> Task {
        let synced_seq = self.synced_seq.load(Ordering::Acquire);
        let mut desk = self.desk();
        loop {
            if let Some(words) = desk.broken.take() {
                return Task::Close(words);
            }
            if desk.written_seq > synced_seq {
                return Task::Sync { seq: desk.written_seq, change: desk.change };
            }
            if desk.leaving {
                return Task::Leave;
            }
            desk.asleep = true;
            // While writes are refused none rings the bell, so somebody has to look whether there is space again.
            if self.full.load(Ordering::Acquire) {
                let (awake, timeout) = self.bell.wait_timeout(desk, LOOK_EVERY).unwrap_or_else(PoisonError::into_inner);
                desk = awake;
                if timeout.timed_out() {
                    desk.asleep = false;
                    return Task::Look;
                }
            } else {
                desk = self.bell.wait(desk).unwrap_or_else(PoisonError::into_inner);
            }
            desk.asleep = false;
        }
    }

    /// What to say for a write that RocksDB did not take, by its words.
    fn refuse(&self, words: String) -> StoreError {
        if words.contains("No space left on device") {
            // Somebody was faster than our look once a second. RocksDB recovers by itself when there is space again; the
            // bell is for the syncer, which sleeps without an end as long as the store is not full.
            self.full.store(true, Ordering::Release);
            self.ring(self.desk());
            return StoreError::Full;
        }
        // "Result incomplete" alone would not do: it is also said of a write behind an error that stays.
        if words.contains("Write stall") {
            return StoreError::Stalled;
        }
        // Part of the batch may be in the log, and RocksDB takes no more. The syncer reports it: to do so from here would
        // call the node's own thread back into itself.
        self.closed.store(true, Ordering::Release);
        let mut desk = self.desk();
        desk.broken = Some(words);
        self.ring(desk);
        StoreError::Closed
    }

    fn look_for_space(&self) {
        // Where the system does not tell, what it told last holds.
        if let Ok(free_bytes) = free_bytes(&self.path) {
            let full =
                is_full(self.full.load(Ordering::Acquire), free_bytes, self.disk_reserve_bytes.load(Ordering::Acquire));
            self.full.store(full, Ordering::Release);
        }
    }
}

/// `encamp.lock`: keeps every other process out, and remembers how far the log has been synced.
///
/// Its one line, `synced 123 123 by process 4711`, is rewritten in place once a second while writes come, never by a sync
/// of its own: after a power cut it is up to half a minute old (the kernel's write-back), and so never claims more than is
/// true. If the log ends before it, synced records are gone. What was synced after the line last reached the disk, and
/// was then lost by the disk, goes unnoticed.
struct Floor(File);

impl Floor {
    const NAME: &str = "encamp.lock";

    fn lock(directory: &Path) -> Result<Floor, String> {
        let path = directory.join(Floor::NAME);
        let file = File::options().read(true).write(true).create(true).truncate(false).open(&path);
        let file = file.map_err(|error| format!("{}: {error}", Floor::NAME))?;
        let floor = Floor(file);
        // Held until the file is closed, thus also when the process is killed. RocksDB has a lock of its own, which a
        // second spelling of the path, or a symbolic link, gets past within one process.
        match floor.0.try_lock() {
            Ok(()) => Ok(floor),
            Err(TryLockError::WouldBlock) => Err(format!(
                "is in use: {} is locked by {}. Only one process at a time can have a store open",
                path.display(),
                floor.holder().unwrap_or("another process".to_owned())
            )),
            Err(TryLockError::Error(error)) => Err(format!("{} cannot be locked: {error}", path.display())),
        }
    }

    /// How far the log was synced when this was last noted. Of a line that is damaged nothing is believed.
    fn read(&self) -> Option<u64> {
        let line = self.line()?;
        let mut words = line.split(' ').skip(1);
        let (first, second) = (words.next()?, words.next()?);
        if first == second { first.parse().ok() } else { None }
    }

    fn holder(&self) -> Option<String> {
        let line = self.line()?;
        Some(line.split_once(" by ")?.1.trim_end().to_owned())
    }

    fn line(&self) -> Option<String> {
        let mut line = [0; 80];
        let len = self.0.read_at(&mut line, 0).ok()?;
        Some(String::from_utf8_lossy(&line[..len]).into_owned())
    }

    fn raise(&self, change: u64) {
        // Numbers and process are padded: the line never gets shorter, so nothing of an old one stays behind it.
        let line = format!("synced {change:020} {change:020} by process {:<10}\n", std::process::id());
        // Best effort: a line that is not written leaves the one before, which is lower and as true.
        let _ = self.0.write_all_at(line.as_bytes(), 0);
    }
}

impl Drop for Floor {
    /// Closing the file is not enough: a process that is just being started has its descriptors from us, and would hold
    /// the lock for a moment longer. Where this fails, closing has to do.
    fn drop(&mut self) {
        let _ = self.0.unlock();
    }
}

fn options(shared: &Shared) -> Result<Options, rocksdb::Error> {
    // Flushing at shutdown would write in a hurry what the log has anyway; the binding has no setter for this one.
    // First of all, because it makes new options of which it copies only what C++ knows.
    let mut options = Options::default().get_options_from_string("avoid_flush_during_shutdown=true")?;
    options.create_if_missing(true);
    options.set_env(&shared.env);
    options.set_paranoid_checks(true);
    options.set_wal_recovery_mode(DBRecoveryMode::PointInTime);
    options.set_max_background_jobs(2);
    options.set_max_open_files(OPEN_FILES_MAX);

    options.set_write_buffer_manager(&shared.memtables);
    options.set_write_buffer_size(MEMTABLE_BYTES_MAX);
    options.set_max_write_buffer_number(4);
    options.set_compression_type(DBCompressionType::Lz4);
    // Tables go to the disk little by little, so that a sync of the log does not queue behind megabytes of them.
    options.set_bytes_per_sync(MIB as u64 / 2);

    // The index of filters is small and stays; the filters themselves are read like any other block.
    let mut table = BlockBasedOptions::default();
    table.set_block_cache(&shared.cache);
    table.set_cache_index_and_filter_blocks(true);
    table.set_bloom_filter(10.0, false);
    table.set_partition_filters(true);
    table.set_index_type(BlockBasedIndexType::TwoLevelIndexSearch);
    table.set_metadata_block_size(4096);
    table.set_pin_top_level_index_and_filter(true);
    options.set_block_based_table_factory(&table);

    // RocksDB's own diary. Its defaults keep a thousand files of any size, and reserve 4 MB for the list of tables.
    options.set_log_level(LogLevel::Warn);
    options.set_max_log_file_size(INFO_LOG_BYTES_MAX);
    options.set_keep_log_file_num(2);
    options.set_stats_dump_period_sec(0);
    options.set_stats_persist_period_sec(0);
    options.set_max_manifest_file_size(MIB);
    options.set_manifest_preallocation_size(64 * 1024);
    Ok(options)
}

/// Creates a directory such that it is still there after a power cut: its name stands in its parent, which has to be
/// synced too. RocksDB sees to its own files only.
fn create_durably(path: &Path) -> io::Result<()> {
    if path.is_dir() {
        return Ok(());
    }
    let parent = match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent,
        _ => Path::new("."),
    };
    create_durably(parent)?;
    match std::fs::create_dir(path) {
        Err(error) if error.kind() != io::ErrorKind::AlreadyExists => return Err(error),
        _ => (),
    }
    File::open(parent)?.sync_all()
}

/// What is left for somebody who is not root.
fn free_bytes(path: &Path) -> io::Result<u64> {
    let path = CString::new(path.as_os_str().as_bytes())?;
    let mut answer = std::mem::MaybeUninit::<libc::statvfs>::uninit();
    // SAFETY: `path` ends in NUL, and `answer` is read only where the call says that it has filled it.
    let answer = unsafe {
        if libc::statvfs(path.as_ptr(), answer.as_mut_ptr()) != 0 {
            return Err(io::Error::last_os_error());
        }
        answer.assume_init()
    };
    Ok((answer.f_bavail as u64).saturating_mul(answer.f_frsize as u64))
}

/// The gap of a tenth keeps a store at the edge from changing its mind with every write.
fn is_full(was_full: bool, free_bytes: u64, disk_reserve_bytes: u64) -> bool {
    if was_full {
        free_bytes <= disk_reserve_bytes.saturating_add(disk_reserve_bytes / 10) && disk_reserve_bytes > 0
    } else {
        free_bytes < disk_reserve_bytes
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_full_store_accepts_writes_again_a_tenth_above_its_reserve() {
        assert!(!is_full(false, 1000, 1000));
        assert!(is_full(false, 999, 1000));
        assert!(is_full(true, 1100, 1000));
        assert!(!is_full(true, 1101, 1000));
        assert!(is_full(true, u64::MAX, u64::MAX));
        assert!(!is_full(true, 0, 0), "no reserve: only the disk itself says that it is full");
    }
}
