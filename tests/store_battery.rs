//! One battery for every store: what the memory store promises in a test, the disk keeps in the field.

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
