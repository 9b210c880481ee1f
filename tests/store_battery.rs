//! One battery for every store: what the memory store promises in a test, the disk keeps in the field.
#![allow(
    clippy::disallowed_methods,
    clippy::disallowed_types,
    reason = "the disk is tested with files, threads and a clock"
)]

use encamp::store::memory::MemoryStore;
use encamp::store::{Batch, Record, Seq, Store, StoreError, VALUE_BYTES_MAX};
use proptest::prelude::*;
use std::collections::BTreeMap;

/// A store and the world around it that a test can turn against it.
trait Bench: Sized {
    fn open() -> Self;
    fn store(&mut self) -> &mut dyn Store;
    /// Returns when everything written is synced.
    fn sync(&mut self);
    /// Ends this store and opens it again. `sync` first: whether more than the synced survives is the store's affair.
    fn reopen(self) -> Self;
    /// From now on the disk is full up to its reserve.
    fn fill(self) -> Self;
    /// Makes a sync fail, and returns when the store has noticed.
    fn fail_a_sync(&mut self);
}

struct Memory(MemoryStore);

impl Bench for Memory {
    fn open() -> Memory {
        Memory(MemoryStore::new())
    }
    fn store(&mut self) -> &mut dyn Store {
        &mut self.0
    }
    fn sync(&mut self) {
        self.0.sync().unwrap();
    }
    fn reopen(mut self) -> Memory {
        self.0.power_cut();
        self
    }
    fn fill(mut self) -> Memory {
        self.0.set_full(true);
        self
    }
    fn fail_a_sync(&mut self) {
        self.0.write(put("unlucky", "1")).unwrap();
        self.0.fail_next_sync();
        assert_eq!(self.0.sync(), Err(StoreError::Closed));
    }
}

fn put(key: impl Into<Vec<u8>>, value: impl Into<Vec<u8>>) -> Batch {
    Batch::default().put(key, value)
}

fn keys(records: Vec<Record>) -> Vec<Vec<u8>> {
    records.into_iter().map(|(key, _)| key).collect()
}

macro_rules! store_battery {
    ($name:ident, $bench:ty, cases = $cases:expr) => {
        mod $name {
            use super::*;

            #[test]
            fn a_written_value_is_read_until_it_is_deleted() {
                let mut bench = <$bench>::open();
                let store = bench.store();
                assert_eq!(store.get(b"a").unwrap(), None);
                store.write(put("a", "1")).unwrap();
                assert_eq!(store.get(b"a").unwrap(), Some(b"1".to_vec()));
                store.write(put("a", "2")).unwrap();
                assert_eq!(store.get(b"a").unwrap(), Some(b"2".to_vec()));
                store.write(Batch::default().delete("a")).unwrap();
                assert_eq!(store.get(b"a").unwrap(), None);
                store.write(Batch::default().delete("a")).unwrap();
                assert_eq!(store.get(b"a").unwrap(), None);
            }

            #[test]
            fn a_batch_happens_in_its_own_order_and_as_one_write() {
                let mut bench = <$bench>::open();
                let store = bench.store();
                let batch = put("a", "1").put("b", "1").delete("a").put("b", "2").delete("c").put("c", "3");
                assert_eq!(store.write(batch).unwrap(), 1);
                assert_eq!(store.get(b"a").unwrap(), None);
                assert_eq!(store.get(b"b").unwrap(), Some(b"2".to_vec()));
                assert_eq!(store.get(b"c").unwrap(), Some(b"3".to_vec()));
            }

            #[test]
            fn a_refused_batch_changes_nothing() {
                let mut bench = <$bench>::open();
                let store = bench.store();
                store.write(put("a", "1")).unwrap();
                let refused = store.write(put("a", "2").put("b", vec![0; VALUE_BYTES_MAX + 1]).put("c", "3"));
                assert!(matches!(refused, Err(StoreError::Broken(_))), "{refused:?}");
                assert_eq!(store.scan(b"", None, 9).unwrap(), [(b"a".to_vec(), b"1".to_vec())]);
                assert_eq!(store.written_seq(), 1);
            }

            #[test]
            fn the_longest_value_and_the_empty_one_are_kept() {
                let mut bench = <$bench>::open();
                bench.store().write(put("long", vec![7; VALUE_BYTES_MAX]).put("empty", "")).unwrap();
                bench.sync();
                let mut bench = bench.reopen();
                let store = bench.store();
                assert_eq!(store.get(b"long").unwrap(), Some(vec![7; VALUE_BYTES_MAX]));
                assert_eq!(store.get(b"empty").unwrap(), Some(vec![]));
                assert_eq!(store.scan(b"e", None, 9).unwrap(), [(b"empty".to_vec(), vec![])]);
            }

            #[test]
            fn a_batch_without_changes_is_a_write_too() {
                let mut bench = <$bench>::open();
                assert_eq!(bench.store().write(Batch::default()).unwrap(), 1);
                bench.sync();
                assert_eq!(bench.store().synced_seq(), 1);
            }

            #[test]
            fn a_scan_is_in_byte_order_and_stops_at_its_limit() {
                let mut bench = <$bench>::open();
                let store = bench.store();
                for key in ["p/b", "p/", "q", "p/a", "o", "p", "p/a/1", "p\u{0}"] {
                    store.write(put(key, key)).unwrap();
                }
                let all = keys(store.scan(b"p/", None, usize::MAX).unwrap());
                assert_eq!(all, [&b"p/"[..], b"p/a", b"p/a/1", b"p/b"]);
                assert_eq!(keys(store.scan(b"p/", None, 2).unwrap()), all[..2]);
                assert_eq!(keys(store.scan(b"p/", None, 0).unwrap()), all[..0]);
                assert_eq!(keys(store.scan(b"", None, 99).unwrap()).len(), 8);
                assert_eq!(keys(store.scan(b"nobody", None, 99).unwrap()), all[..0]);
            }

            #[test]
            fn a_cursor_goes_on_after_its_key_whether_that_exists_or_not() {
                let mut bench = <$bench>::open();
                let store = bench.store();
                for key in ["o", "p1", "p2", "p3", "q"] {
                    store.write(put(key, "")).unwrap();
                }
                let after = |cursor: &str| keys(store.scan(b"p", Some(cursor.as_bytes()), 9).unwrap());
                assert_eq!(after("p1"), [b"p2", b"p3"]);
                assert_eq!(after("p11"), [b"p2", b"p3"]);
                assert_eq!(after("p"), [b"p1", b"p2", b"p3"]);
                assert_eq!(after("p3").len(), 0);
                // A cursor outside the prefix: before it nothing is skipped, behind it nothing is left.
                assert_eq!(after("a"), [b"p1", b"p2", b"p3"]);
                assert_eq!(after("z").len(), 0);
            }

            #[test]
            fn a_prefix_that_ends_in_0xff_has_an_end_too() {
                let mut bench = <$bench>::open();
                let store = bench.store();
                let all: [&[u8]; 7] = [b"\xfe\xff", b"\xff", b"\xff\x00", b"\xff\xfe\xff", b"\xff\xff", b"\xff\xff\x01", b"a"];
                for key in all {
                    store.write(put(key, "")).unwrap();
                }
                assert_eq!(keys(store.scan(b"\xff", None, 9).unwrap()), all[1..6]);
                assert_eq!(keys(store.scan(b"\xff\xff", None, 9).unwrap()), all[4..6]);
                assert_eq!(keys(store.scan(b"\xff\xff", Some(b"\xff\xff"), 9).unwrap()), all[5..6]);
                assert_eq!(keys(store.scan(b"\xfe", None, 9).unwrap()), all[..1]);
                assert_eq!(keys(store.scan(b"\xff\xff\xff", None, 9).unwrap()), all[..0]);
            }

            #[test]
            fn an_empty_key_is_a_key() {
                let mut bench = <$bench>::open();
                let store = bench.store();
                store.write(put("", "nothing").put("a", "1")).unwrap();
                assert_eq!(store.get(b"").unwrap(), Some(b"nothing".to_vec()));
                assert_eq!(keys(store.scan(b"", None, 9).unwrap()), [&b""[..], b"a"]);
                assert_eq!(keys(store.scan(b"", Some(b""), 9).unwrap()), [b"a"]);
            }

            #[test]
            fn writes_are_counted_from_one_and_a_sync_covers_the_smaller_ones() {
                let mut bench = <$bench>::open();
                assert_eq!((bench.store().written_seq(), bench.store().synced_seq()), (0, 0));
                for seq in 1..=20 {
                    assert_eq!(bench.store().write(put("a", "1")).unwrap(), seq);
                    assert_eq!(bench.store().written_seq(), seq);
                    assert!(bench.store().synced_seq() <= seq);
                }
                bench.sync();
                assert_eq!(bench.store().synced_seq(), 20);
                let mut bench = bench.reopen();
                assert_eq!((bench.store().written_seq(), bench.store().synced_seq()), (0, 0));
                assert_eq!(bench.store().write(put("a", "2")).unwrap(), 1);
            }

            #[test]
            fn what_is_synced_is_there_after_a_reopen() {
                let mut bench = <$bench>::open();
                bench.store().write(put("a", "1").put("b", "1").put("c", "1")).unwrap();
                bench.store().write(Batch::default().delete("b").put("c", "2")).unwrap();
                bench.sync();
                for _ in 0..3 {
                    bench = bench.reopen();
                    let all = bench.store().scan(b"", None, 9).unwrap();
                    assert_eq!(all, [(b"a".to_vec(), b"1".to_vec()), (b"c".to_vec(), b"2".to_vec())]);
                }
            }

            #[test]
            fn a_full_store_refuses_writes_and_serves_reads() {
                let mut bench = <$bench>::open();
                bench.store().write(put("a", "1")).unwrap();
                bench.sync();
                let mut bench = bench.fill();
                let written = bench.store().written_seq();
                assert_eq!(bench.store().write(put("a", "2")), Err(StoreError::Full));
                assert_eq!(bench.store().write(Batch::default().delete("a")), Err(StoreError::Full));
                assert_eq!(bench.store().written_seq(), written);
                assert_eq!(bench.store().get(b"a").unwrap(), Some(b"1".to_vec()));
                assert_eq!(keys(bench.store().scan(b"", None, 9).unwrap()), [b"a"]);
            }

            #[test]
            fn after_a_failed_sync_nothing_is_read_or_written() {
                let mut bench = <$bench>::open();
                bench.store().write(put("a", "1")).unwrap();
                bench.sync();
                bench.fail_a_sync();
                let store = bench.store();
                assert_eq!(store.get(b"a"), Err(StoreError::Closed));
                assert_eq!(store.scan(b"", None, 9), Err(StoreError::Closed));
                assert_eq!(store.write(put("b", "1")), Err(StoreError::Closed));
                assert_eq!(store.synced_seq(), 1, "the failed sync must not count");
                let mut bench = bench.reopen();
                assert_eq!(bench.store().get(b"a").unwrap(), Some(b"1".to_vec()));
                bench.store().write(put("b", "1")).unwrap();
                bench.sync();
                assert_eq!(bench.store().synced_seq(), 1);
            }

            proptest! {
                #![proptest_config(ProptestConfig { cases: $cases, failure_persistence: None, ..ProptestConfig::default() })]
                #[test]
                fn it_behaves_like_a_map(steps in proptest::collection::vec(step(), 1..40)) {
                    let mut bench = <$bench>::open();
                    let mut model: BTreeMap<Vec<u8>, Vec<u8>> = BTreeMap::new();
                    let mut written: Seq = 0;
                    for step in steps {
                        match step {
                            Step::Write(changes) => {
                                for (key, value) in &changes {
                                    match value {
                                        Some(value) => model.insert(key.clone(), value.clone()),
                                        None => model.remove(key),
                                    };
                                }
                                written += 1;
                                prop_assert_eq!(bench.store().write(Batch { changes }), Ok(written));
                            }
                            Step::Get(key) => prop_assert_eq!(bench.store().get(&key), Ok(model.get(&key).cloned())),
                            Step::Scan { prefix, cursor, limit } => {
                                let expected: Vec<Record> = model
                                    .iter()
                                    .filter(|(key, _)| key.starts_with(&prefix))
                                    .filter(|(key, _)| cursor.as_ref().is_none_or(|cursor| *key > cursor))
                                    .take(limit)
                                    .map(|(key, value)| (key.clone(), value.clone()))
                                    .collect();
                                prop_assert_eq!(bench.store().scan(&prefix, cursor.as_deref(), limit), Ok(expected));
                            }
                            Step::Sync => {
                                bench.sync();
                                prop_assert_eq!(bench.store().synced_seq(), written);
                            }
                            Step::SyncAndReopen => {
                                bench.sync();
                                bench = bench.reopen();
                                written = 0;
                            }
                        }
                        prop_assert_eq!(bench.store().written_seq(), written);
                        prop_assert!(bench.store().synced_seq() <= written);
                    }
                }
            }
        }
    };
}

store_battery!(memory, Memory, cases = 256);

#[derive(Clone, Debug)]
enum Step {
    Write(Vec<(Vec<u8>, Option<Vec<u8>>)>),
    Get(Vec<u8>),
    Scan { prefix: Vec<u8>, cursor: Option<Vec<u8>>, limit: usize },
    Sync,
    SyncAndReopen,
}

/// Few letters and short keys, so that keys meet; 0x00 and 0xff, because prefixes end there.
fn key() -> impl Strategy<Value = Vec<u8>> {
    proptest::collection::vec(prop_oneof![Just(0u8), Just(b'a'), Just(b'b'), Just(0xfe), Just(0xff)], 0..4)
}

fn step() -> impl Strategy<Value = Step> {
    let change = (key(), proptest::option::weighted(0.7, proptest::collection::vec(any::<u8>(), 0..4)));
    prop_oneof![
        6 => proptest::collection::vec(change, 0..5).prop_map(Step::Write),
        3 => key().prop_map(Step::Get),
        4 => (key(), proptest::option::of(key()), 0..6usize)
            .prop_map(|(prefix, cursor, limit)| Step::Scan { prefix, cursor, limit }),
        1 => Just(Step::Sync),
        1 => Just(Step::SyncAndReopen),
    ]
}

// What only the memory store can show: the moment of the power cut is chosen by the test.

#[test]
fn a_power_cut_loses_exactly_what_was_not_synced() {
    let mut store = MemoryStore::new();
    for seq in 1..=5u8 {
        store.write(put([seq], [seq])).unwrap();
    }
    store.write(Batch::default().delete([1])).unwrap();
    assert_eq!(store.sync_to(3), Ok(3));
    assert_eq!((store.written_seq(), store.synced_seq()), (6, 3));
    assert_eq!(store.get(&[1]).unwrap(), None);
    store.power_cut();
    assert_eq!(keys(store.scan(b"", None, 9).unwrap()), [[1], [2], [3]]);
    assert_eq!((store.written_seq(), store.synced_seq()), (0, 0));
}

#[test]
fn a_sync_never_goes_back_nor_beyond_what_is_written() {
    let mut store = MemoryStore::new();
    store.write(put("a", "1")).unwrap();
    store.write(put("b", "1")).unwrap();
    assert_eq!(store.sync_to(99), Ok(2));
    assert_eq!(store.sync_to(1), Ok(2));
}

#[test]
fn a_mute_disk_accepts_writes_and_never_syncs() {
    let mut store = MemoryStore::new();
    store.set_mute(true);
    store.write(put("a", "1")).unwrap();
    assert_eq!(store.sync(), Ok(0));
    assert_eq!(store.get(b"a").unwrap(), Some(b"1".to_vec()));
    store.set_mute(false);
    assert_eq!(store.sync(), Ok(1));
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]
    #[test]
    fn a_power_cut_leaves_the_records_as_they_were_after_the_last_synced_write(
        batches in proptest::collection::vec(proptest::collection::vec((key(), proptest::option::of(key())), 0..4), 1..12),
        synced in 0..12u64,
    ) {
        let mut store = MemoryStore::new();
        let mut prefix = MemoryStore::new();
        for (seq, changes) in (1..).zip(&batches) {
            store.write(Batch { changes: changes.clone() }).unwrap();
            if seq <= synced {
                prefix.write(Batch { changes: changes.clone() }).unwrap();
            }
        }
        let reached = store.sync_to(synced).unwrap();
        prop_assert_eq!(reached, synced.min(batches.len() as u64));
        prop_assert_eq!(store.durable(), &prefix.scan(b"", None, usize::MAX).unwrap().into_iter().collect());
        store.power_cut();
        prop_assert_eq!(store.scan(b"", None, usize::MAX), prefix.scan(b"", None, usize::MAX));
    }
}

#[cfg(feature = "box")]
mod on_disk {
    use super::*;
    use encamp::store::rocks::{RocksStore, Shared, SyncReport};
    use encamp::store::{CommitId, StoreId};
    use std::fs::{self, File};
    use std::io::{BufRead, BufReader, Read, Write};
    use std::os::fd::{AsRawFd, IntoRawFd, RawFd};
    use std::path::{Path, PathBuf};
    use std::process::{Command, Stdio};
    use std::sync::mpsc::{Receiver, channel};
    use std::sync::{Mutex, OnceLock};
    use std::time::{Duration, Instant};
    use tempfile::TempDir;

    const ID: StoreId = StoreId::Replica(0);
    /// Longer than any sync takes on a machine that still works.
    const PATIENCE: Duration = Duration::from_secs(30);

    pub struct Rocks {
        store: Option<RocksStore>,
        reports: Receiver<SyncReport>,
        directory: TempDir,
    }

    impl Bench for Rocks {
        fn open() -> Rocks {
            Rocks::open_in(directory(), 0)
        }
        fn store(&mut self) -> &mut dyn Store {
            self.rocks()
        }
        fn sync(&mut self) {
            let written = self.rocks().written_seq();
            while self.rocks().synced_seq() < written {
                self.reports.recv_timeout(PATIENCE).expect("a sync in time");
            }
        }
        fn reopen(mut self) -> Rocks {
            let directory = if self.rocks().get(b"") == Err(StoreError::Closed) {
                // A closed store keeps its directory until the process ends; what the next process would find is a copy.
                copy_of(self.directory.path())
            } else {
                drop(self.store.take());
                self.directory
            };
            Rocks::open_in(directory, 0)
        }
        fn fill(mut self) -> Rocks {
            drop(self.store.take());
            Rocks::open_in(self.directory, u64::MAX)
        }
        fn fail_a_sync(&mut self) {
            // A pipe takes what is written to it, and cannot be synced.
            let (hears, takes) = std::io::pipe().unwrap();
            replace_log_file(self.directory.path(), takes.into_raw_fd());
            self.rocks().write(put("unlucky", "1")).unwrap();
            loop {
                match self.reports.recv_timeout(PATIENCE).expect("a report in time") {
                    SyncReport::Synced(_) => (),
                    SyncReport::Failed(id, words) => {
                        assert_eq!(id, ID);
                        assert!(words.contains("sync failed"), "{words}");
                        break;
                    }
                }
            }
            drop(hears);
        }
    }

    impl Rocks {
        fn open_in(directory: TempDir, disk_reserve_bytes: u64) -> Rocks {
            let (report, reports) = channel();
            let notify = Box::new(move |told| report.send(told).unwrap_or(()));
            let store = RocksStore::open(directory.path(), ID, shared(), disk_reserve_bytes, notify);
            Rocks { store: Some(store.unwrap()), reports, directory }
        }

        fn rocks(&mut self) -> &mut RocksStore {
            self.store.as_mut().unwrap()
        }
    }

    fn shared() -> &'static Shared {
        static SHARED: OnceLock<Shared> = OnceLock::new();
        SHARED.get_or_init(|| Shared::new().unwrap())
    }

    /// Beside the test's own binary rather than in memory, where a sync costs nothing and proves nothing.
    fn directory() -> TempDir {
        TempDir::new_in(env!("CARGO_TARGET_TMPDIR")).unwrap()
    }

    fn copy_of(original: &Path) -> TempDir {
        let copy = directory();
        for entry in fs::read_dir(original).unwrap().flatten() {
            fs::copy(entry.path(), copy.path().join(entry.file_name())).unwrap();
        }
        copy
    }

    fn open(path: &Path) -> Result<RocksStore, StoreError> {
        RocksStore::open(path, ID, shared(), 0, Box::new(|_| ()))
    }

    fn refusal(path: &Path) -> String {
        match open(path) {
            Ok(_) => panic!("{} was opened", path.display()),
            Err(StoreError::Broken(words)) => words,
            Err(other) => panic!("{other:?}"),
        }
    }

    /// Puts another file under the log that the store in `directory` has open.
    fn replace_log_file(directory: &Path, with: RawFd) {
        let directory = directory.canonicalize().unwrap();
        let mut replaced = 0;
        for entry in fs::read_dir("/proc/self/fd").unwrap().flatten() {
            let Ok(target) = fs::read_link(entry.path()) else { continue };
            if target.starts_with(&directory) && target.extension().is_some_and(|extension| extension == "log") {
                let fd: RawFd = entry.file_name().to_str().unwrap().parse().unwrap();
                // SAFETY: both descriptors are open, and RocksDB goes on using `fd` by its number.
                assert_eq!(unsafe { libc::dup2(with, fd) }, fd);
                replaced += 1;
            }
        }
        assert_eq!(replaced, 1, "the store has one log open");
    }

    fn log_file(directory: &Path) -> PathBuf {
        let logs = fs::read_dir(directory).unwrap().map(|entry| entry.unwrap().path());
        let mut logs: Vec<PathBuf> =
            logs.filter(|path| path.extension().is_some_and(|extension| extension == "log")).collect();
        logs.sort();
        logs.pop().unwrap()
    }

    #[test]
    fn one_sync_covers_all_that_was_written_while_the_one_before_it_ran() {
        let directory = directory();
        let (release, held) = channel::<()>();
        let held = Mutex::new(held);
        let (report, reports) = channel();
        let notify = Box::new(move |told| {
            report.send(told).unwrap();
            let _ = held.lock().unwrap().recv(); // the first report is held up; then the other end is dropped
        });
        let mut store = RocksStore::open(directory.path(), ID, shared(), 0, notify).unwrap();
        store.write(put("a", "1")).unwrap();
        let first = reports.recv_timeout(PATIENCE).unwrap();
        assert_eq!(first, SyncReport::Synced(CommitId { store: ID, seq: 1 }));
        for _ in 1..1000 {
            store.write(put("a", "2")).unwrap();
        }
        drop(release);
        let second = reports.recv_timeout(PATIENCE).unwrap();
        assert_eq!(second, SyncReport::Synced(CommitId { store: ID, seq: 1000 }));
        drop(store);
        assert_eq!(reports.iter().count(), 0, "nothing was left to sync");
    }

    #[test]
    fn a_thousand_writes_need_far_fewer_syncs() {
        let mut bench = Rocks::open();
        for seq in 1..=1000u32 {
            bench.store().write(put(seq.to_be_bytes(), vec![b'v'; 150])).unwrap();
        }
        drop(bench.store.take());
        let mut last = 0;
        let mut syncs = 0;
        for told in bench.reports.iter() {
            let SyncReport::Synced(CommitId { store: ID, seq }) = told else { panic!("{told:?}") };
            assert!(seq > last, "{seq} after {last}");
            last = seq;
            syncs += 1;
        }
        assert_eq!(last, 1000);
        assert!(syncs <= 500, "{syncs} syncs for 1000 writes");
    }

    #[test]
    fn a_drop_syncs_what_is_written() {
        let mut bench = Rocks::open();
        for seq in 1..=500u32 {
            bench.store().write(put(seq.to_be_bytes(), "1")).unwrap();
        }
        let began = Instant::now();
        drop(bench.store.take());
        assert!(began.elapsed() < Duration::from_secs(2));
        let last = bench.reports.iter().last();
        assert_eq!(last, Some(SyncReport::Synced(CommitId { store: ID, seq: 500 })));
        let mut bench = Rocks::open_in(bench.directory, 0);
        assert_eq!(bench.store().scan(b"", None, 999).unwrap().len(), 500);
    }

    #[test]
    fn two_stores_of_one_process_are_independent() {
        let (mut a, mut b) = (Rocks::open(), Rocks::open());
        a.store().write(put("a", "1")).unwrap();
        a.store().write(put("a", "2")).unwrap();
        b.store().write(put("b", "1")).unwrap();
        a.sync();
        b.sync();
        assert_eq!((a.store().synced_seq(), b.store().synced_seq()), (2, 1));
        assert_eq!(keys(b.store().scan(b"", None, 9).unwrap()), [b"b"]);
        a.fail_a_sync();
        assert_eq!(a.store().get(b"a"), Err(StoreError::Closed));
        b.store().write(put("b", "2")).unwrap();
        b.sync();
        assert_eq!(b.store().get(b"b").unwrap(), Some(b"2".to_vec()));
    }

    #[test]
    fn a_failed_sync_is_told_once_and_never_tried_again() {
        let mut bench = Rocks::open();
        bench.fail_a_sync();
        for _ in 0..9 {
            assert_eq!(bench.store().write(put("a", "1")), Err(StoreError::Closed));
        }
        let began = Instant::now();
        drop(bench.store.take());
        assert!(began.elapsed() < Duration::from_secs(2));
        assert_eq!(bench.reports.iter().collect::<Vec<_>>(), []);
    }

    #[test]
    fn no_space_for_the_log_is_full_until_there_is_space_again() {
        let mut bench = Rocks::open();
        bench.store().write(put("a", "1")).unwrap();
        bench.sync();
        let full = File::options().write(true).open("/dev/full").unwrap();
        replace_log_file(bench.directory.path(), full.as_raw_fd());
        assert_eq!(bench.store().write(put("a", "2")), Err(StoreError::Full));
        assert_eq!(bench.store().write(put("a", "2")), Err(StoreError::Full));
        assert_eq!(bench.store().get(b"a").unwrap(), Some(b"1".to_vec()));
        assert_eq!(bench.store().written_seq(), 1);
        // RocksDB finds that the disk has space after all and begins another log; the syncer looks once a second.
        let began = Instant::now();
        while let Err(error) = bench.store().write(put("a", "3")) {
            assert!(matches!(error, StoreError::Full | StoreError::Stalled), "{error}");
            assert!(began.elapsed() < PATIENCE, "still full");
            std::thread::sleep(Duration::from_millis(20));
        }
        bench.sync();
        assert_eq!(bench.reopen().store().scan(b"", None, 9).unwrap(), [(b"a".to_vec(), b"3".to_vec())]);
    }

    #[test]
    fn a_second_process_is_refused_in_words_and_a_killed_one_leaves_what_it_synced() {
        const HOLD: &str = "STORE_BATTERY_HOLD";
        if let Some(path) = std::env::var_os(HOLD) {
            // This is the first process: it syncs a record, says so, and holds the store until it is killed.
            let (report, reports) = channel();
            let notify = Box::new(move |told| report.send(told).unwrap());
            let mut store = RocksStore::open(Path::new(&path), ID, shared(), 0, notify).unwrap();
            store.write(put("a", "1")).unwrap();
            reports.recv_timeout(PATIENCE).unwrap();
            writeln!(std::io::stderr(), "held").unwrap();
            let _ = std::io::stdin().read(&mut [0]);
            return;
        }
        let directory = directory();
        let path = directory.path().join("not/yet/there");
        let mut first = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "--nocapture"])
            .arg("on_disk::a_second_process_is_refused_in_words_and_a_killed_one_leaves_what_it_synced")
            .env(HOLD, &path)
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let said =
            BufReader::new(first.stderr.take().unwrap()).lines().map_while(Result::ok).find(|line| line == "held");
        assert!(said.is_some(), "the first process did not open the store");
        let words = refusal(&path);
        assert!(words.contains("is in use"), "{words}");
        assert!(words.contains(&format!("encamp.lock is locked by process {}.", first.id())), "{words}");
        first.kill().unwrap();
        first.wait().unwrap();
        assert_eq!(open(&path).unwrap().get(b"a").unwrap(), Some(b"1".to_vec()));
    }

    #[test]
    fn a_second_spelling_of_the_path_is_refused_too() {
        let bench = Rocks::open();
        let links = directory();
        let link = links.path().join("link");
        std::os::unix::fs::symlink(bench.directory.path(), &link).unwrap();
        assert!(refusal(&link).contains("is in use"), "{}", refusal(&link));
    }

    /// Writes records 1 to `count`, of 500 bytes each, and closes the store: they are in its log.
    fn filled(count: u8) -> Rocks {
        let mut bench = Rocks::open();
        for seq in 1..=count {
            bench.store().write(put([seq], vec![seq; 500])).unwrap();
        }
        drop(bench.store.take());
        bench
    }

    #[test]
    fn a_torn_tail_of_the_log_is_cut_off() {
        let bench = filled(200);
        let log = fs::read(log_file(bench.directory.path())).unwrap();
        assert!(log.len() > 100_000, "closing leaves the records in the log");
        for torn in [&[][..], &[0; 9], &[0; 9000], &[0xaa; 9], &[0xaa; 40_000]] {
            let copy = copy_of(bench.directory.path());
            File::options().append(true).open(log_file(copy.path())).unwrap().write_all(torn).unwrap();
            let found = Rocks::open_in(copy, 0).store().scan(b"", None, 999).unwrap();
            assert_eq!(found.len(), 200, "{} torn bytes", torn.len());
        }
    }

    #[test]
    fn an_unsynced_tail_may_be_torn_anywhere_and_leaves_the_records_before() {
        // The lock file of a moment when nothing was synced makes the whole log an unsynced tail.
        let mut bench = Rocks::open();
        let nothing_synced = fs::read(bench.directory.path().join("encamp.lock")).unwrap();
        for seq in 1..=200u8 {
            bench.store().write(put([seq], vec![seq; 500])).unwrap();
        }
        drop(bench.store.take());
        let log = fs::read(log_file(bench.directory.path())).unwrap();
        let end = log.len();
        for at in [1, 300, 4096, 20_000, 32_767, 32_768, 32_775, 40_960, 65_536, end - 1] {
            // The end is missing; or one page of the middle, for pages come to the disk in any order.
            let mut page_missing = log.clone();
            page_missing[at..end.min(at + 4096)].fill(0);
            for torn in [&log[..at], &page_missing] {
                let copy = copy_of(bench.directory.path());
                fs::write(log_file(copy.path()), torn).unwrap();
                fs::write(copy.path().join("encamp.lock"), &nothing_synced).unwrap();
                let found = keys(Rocks::open_in(copy, 0).store().scan(b"", None, 999).unwrap());
                let before: Vec<[u8; 1]> = (1..=200).map(|seq| [seq]).take(found.len()).collect();
                assert_eq!(found, before, "a prefix, without a hole");
                assert!((at / 540..=at / 500 + 1).contains(&(found.len() + 1)), "{} records before {at}", found.len());
            }
        }
    }

    #[test]
    fn a_log_that_lost_synced_records_is_refused_and_left_alone() {
        let bench = filled(200);
        let directory = bench.directory.path();
        let log = log_file(directory);
        let good = fs::read(&log).unwrap();
        let middle = good.len() / 2;
        let mut flipped = good.clone();
        flipped[middle] ^= 1;
        let mut zeroed = good.clone();
        zeroed[middle..middle + 4096].fill(0);
        for damaged in [&flipped, &zeroed, &good[..middle].to_vec(), &good[..good.len() - 1].to_vec()] {
            fs::write(&log, damaged).unwrap();
            for _ in 0..2 {
                let words = refusal(directory);
                assert!(words.contains("records that were synced are missing"), "{words}");
            }
            assert_eq!(fs::read(&log).unwrap(), *damaged, "the evidence is kept");
        }
        // The operator's way on: without the lock file, what is left is taken.
        let copy = copy_of(directory);
        fs::write(log_file(copy.path()), &flipped).unwrap();
        fs::remove_file(copy.path().join("encamp.lock")).unwrap();
        let left = Rocks::open_in(copy, 0).store().scan(b"", None, 999).unwrap().len();
        assert!((90..=100).contains(&left), "{left}");
        // And nothing that was tried has harmed what was good.
        fs::write(&log, &good).unwrap();
        assert_eq!(open(directory).unwrap().scan(b"", None, 999).unwrap().len(), 200);
    }

    #[test]
    fn an_emptied_directory_with_its_lock_file_is_refused() {
        let bench = filled(9);
        let lock = bench.directory.path().join("encamp.lock");
        let emptied = directory();
        fs::copy(&lock, emptied.path().join("encamp.lock")).unwrap();
        assert!(refusal(emptied.path()).contains("the log ends at change 0, and change 9 was"));
    }

    #[test]
    fn a_busy_store_neither_waits_nor_loses_anything() {
        let mut bench = Rocks::open();
        let mut stalled = 0u32;
        let mut longest = Duration::ZERO;
        for key in 0..50_000u32 {
            loop {
                let began = Instant::now();
                let written = bench.store().write(put(key.to_be_bytes(), vec![b'v'; 150]));
                longest = longest.max(began.elapsed());
                match written {
                    Ok(_) => break,
                    Err(StoreError::Stalled) => {
                        stalled += 1;
                        std::thread::sleep(Duration::from_millis(1));
                    }
                    Err(other) => panic!("{other}"),
                }
            }
        }
        println!("{stalled} writes were told to come again; the longest took {longest:?}");
        bench.sync();
        let mut bench = bench.reopen();
        assert_eq!(bench.store().scan(b"", None, usize::MAX).unwrap().len(), 50_000);
    }

    store_battery!(rocks, Rocks, cases = 24);
}
