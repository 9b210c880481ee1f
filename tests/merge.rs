//! Replicas converge: the merge rule of DESIGN promise 3, as properties.

use std::collections::BTreeMap;
use std::net::SocketAddr;

use encamp::gsm::form::TextForm;
use encamp::ident::CellId;
use encamp::register::merge::{Binding, Entry, Mark, Record, decode, encode, merge};
use encamp::register::replica::{Replica, purged};
use encamp::store::StoreId;
use encamp::store::memory::MemoryStore;
use encamp::time::Stamp;
use proptest::collection::vec;
use proptest::option;
use proptest::prelude::*;

fn any_stamp() -> impl Strategy<Value = Stamp> {
    // Few of them, so that they meet.
    (1u64..6, 0u32..3, 0u32..3).prop_map(|(ms, counter, front)| Stamp { ms, counter, front })
}

fn any_text() -> impl Strategy<Value = String> {
    prop_oneof!["[ -~]{0,40}", ".{0,20}", Just(String::new())]
}

fn any_form() -> impl Strategy<Value = TextForm> {
    prop::sample::select(TextForm::ALL.to_vec())
}

fn any_binding() -> impl Strategy<Value = Binding> {
    let numbers = (any::<u64>(), any::<u64>(), any::<u32>(), any::<[u8; 4]>(), any::<u16>(), any::<bool>());
    let cell = option::of((any::<u16>(), any::<u16>(), 2u8..4, any::<u16>(), any::<u16>()));
    let texts = (any_text(), vec(any_text(), 0..3), option::of(any_text()), option::of(any_text()));
    (numbers, cell, texts, any_form()).prop_map(|(numbers, cell, (call_id, path, instance, previous), texts)| {
        let (expires_at_ms, since_ms, cseq, ip, port, v6) = numbers;
        let source = match v6 {
            true => SocketAddr::from(([0x2001, 0xdb8, 0, 0, 0, 0, 0, u16::from(ip[0])], port)),
            false => SocketAddr::from((ip, port)),
        };
        let cell = cell.map(|(mcc, mnc, mnc_digits, lac, ci)| CellId { mcc, mnc, mnc_digits, lac, ci });
        Binding { expires_at_ms, since_ms, call_id, cseq, source, cell, path, instance, previous, texts }
    })
}

/// A record of writes as front ends make them: a stamp names one write. The form of texts alone is another one now and then, so that
/// even where that is not so the replicas become equal.
fn any_record() -> impl Strategy<Value = Record> {
    let entry = ("[ab]|sip:c@d", any_stamp(), any_form());
    let mark = (1u16..3, any_stamp());
    (vec(entry, 0..5), option::of(any_stamp()), vec(mark, 0..3)).prop_map(|(entries, clear_stamp, marks)| {
        let clear_stamp = clear_stamp.unwrap_or_default();
        let mut record = Record { clear_stamp, ..Record::default() };
        for (contact, stamp, texts) in entries {
            let binding = written(&contact, stamp).map(|binding| Binding { texts, ..binding });
            let entry = Entry { stamp, binding };
            let contacts = BTreeMap::from([(contact, entry)]);
            record = merge(record, &Record { clear_stamp, contacts, ..Record::default() });
        }
        for (port, stamp) in marks {
            record = merge(record, &marked(port, stamp, (stamp.counter != 1).then_some(stamp)));
        }
        record
    })
}

fn owner(port: u16) -> SocketAddr {
    SocketAddr::from(([192, 0, 2, 9], port))
}

/// A write of a mark, as its owner makes it.
fn marked(port: u16, stamp: Stamp, since: Option<Stamp>) -> Record {
    Record { marks: BTreeMap::from([(owner(port), Mark { stamp, since })]), ..Record::default() }
}

/// A write of one binding.
fn bound(contact: &str, stamp: Stamp) -> Record {
    let entry = Entry { stamp, binding: written(contact, stamp) };
    Record { contacts: BTreeMap::from([(contact.to_owned(), entry)]), ..Record::default() }
}

fn at(ms: u64) -> Stamp {
    Stamp { ms, counter: 0, front: 1 }
}

fn written(contact: &str, stamp: Stamp) -> Option<Binding> {
    (stamp.counter != 1).then(|| Binding {
        expires_at_ms: stamp.ms * 1000,
        since_ms: stamp.ms,
        call_id: format!("{contact} {stamp}"),
        cseq: stamp.counter,
        source: SocketAddr::from(([192, 0, 2, 1], 5062)),
        cell: None,
        path: Vec::new(),
        instance: None,
        previous: None,
        texts: TextForm::OpenBts,
    })
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 2_000, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn merge_is_commutative(a in any_record(), b in any_record()) {
        prop_assert_eq!(merge(a.clone(), &b), merge(b, &a));
    }

    #[test]
    fn merge_is_associative(a in any_record(), b in any_record(), c in any_record()) {
        let left = merge(merge(a.clone(), &b), &c);
        let right = merge(a, &merge(b, &c));
        prop_assert_eq!(left, right);
    }

    #[test]
    fn merge_is_idempotent(a in any_record(), b in any_record()) {
        let once = merge(a.clone(), &b);
        prop_assert_eq!(&merge(once.clone(), &b), &once);
        prop_assert_eq!(&merge(once.clone(), &a), &once);
        prop_assert_eq!(&merge(once.clone(), &once), &once);
    }

    /// Equal at rest: whatever order the writes came in, and however often.
    #[test]
    fn replicas_that_saw_the_same_writes_are_equal(
        writes in vec(any_record(), 0..8),
        order in vec(any::<prop::sample::Index>(), 0..24),
    ) {
        let one = writes.iter().fold(Record::default(), merge);
        let mut other = Record::default();
        for index in order {
            if !writes.is_empty() {
                other = merge(other, index.get(&writes));
            }
        }
        for write in writes.iter().rev() {
            other = merge(other, write);
        }
        prop_assert_eq!(one, other);
    }

    #[test]
    fn a_dead_contact_stays_dead(a in any_record(), b in any_record()) {
        let merged = merge(a, &b);
        prop_assert!(merged.contacts.values().all(|entry| entry.stamp >= merged.clear_stamp));
    }

    #[test]
    fn a_record_reads_back(
        clear_stamp in any_stamp(),
        contacts in vec((any_text(), any_stamp(), option::of(any_binding())), 0..4),
        marks in vec((any::<[u8; 4]>(), any::<u16>(), any_stamp(), option::of(any_stamp())), 0..3),
    ) {
        let contacts = contacts.into_iter().map(|(contact, stamp, binding)| (contact, Entry { stamp, binding })).collect();
        let mark = |(ip, port, stamp, since)| (SocketAddr::from((ip, port)), Mark { stamp, since });
        let marks: BTreeMap<_, _> = marks.into_iter().map(mark).collect();
        let record = Record { clear_stamp, contacts, marks };
        let first_form_alone = record.bindings().all(|(_, _, binding)| binding.texts == TextForm::OpenBts);
        let version = if !first_form_alone { 3 } else if record.marks.is_empty() { 1 } else { 2 };
        prop_assert_eq!(encode(&record)[0], version);
        prop_assert_eq!(decode(&encode(&record)), Ok(record));
    }

    #[test]
    fn decode_never_panics(bytes in vec(any::<u8>(), 0..200)) {
        let _ = decode(&bytes);
    }

    #[test]
    fn decode_never_panics_on_damaged_records(record in any_record(), at in any::<prop::sample::Index>(), byte in any::<u8>()) {
        let mut bytes = encode(&record);
        let at = at.index(bytes.len());
        bytes[at] = byte;
        let _ = decode(&bytes);
        prop_assert!(decode(&bytes[..at]).is_err(), "a record that was cut short is told from a whole one");
    }
}

/// A mark beside bindings: it is told of what is newer than the attempt that failed, by whatever write the two meet.
#[test]
fn who_waits_is_told_of_a_binding_that_is_newer_than_his_attempt() {
    let mut store = MemoryStore::new();
    let mut replica = Replica::open(&store, StoreId::Replica(0)).unwrap();
    let imsi = encamp::ident::Imsi::parse("001010000000001").unwrap();
    let mut apply = |delta: &Record| {
        let applied = replica.apply(&mut store, imsi, delta).unwrap();
        (applied.alert, applied.older_than)
    };
    let nobody = (Vec::new(), None);
    assert_eq!(apply(&bound("a", at(10))), nobody);
    assert_eq!(apply(&marked(1, at(50), Some(at(20)))), nobody, "older than the attempt");
    assert_eq!(apply(&bound("a", at(15))), (Vec::new(), None), "so is this, and a mark makes no REGISTER older");
    assert_eq!(apply(&bound("a", at(30))), (vec![owner(1)], None));
    assert_eq!(apply(&bound("a", at(30))), (vec![owner(1)], None), "a copy says the same");
    assert_eq!(apply(&bound("a", at(12))), (vec![owner(1)], Some(at(30))));
    assert_eq!(apply(&marked(2, at(60), Some(at(25)))).0, vec![owner(1), owner(2)], "a mark that comes late");
    assert_eq!(apply(&marked(1, at(70), None)).0, vec![owner(2)], "a tombstone");
    assert_eq!(apply(&marked(1, at(50), Some(at(20)))).0, vec![owner(2)], "an older mark does not come back");
    let clear = Record { clear_stamp: at(80), ..Record::default() };
    assert_eq!(apply(&clear), nobody, "no binding, no return");
    let after = encamp::register::replica::read(&store, imsi).unwrap();
    assert_eq!(after.marks.len(), 2, "to clear the bindings is not about marks");
    assert_eq!((after.stamp(), after.latest()), (at(80), at(80)));
    assert_eq!(marked(1, at(5), None).latest(), at(5));
    assert_eq!(marked(1, at(5), None).stamp(), Stamp::ZERO);
}

#[test]
fn marks_are_purged_like_bindings_and_their_tombstones_like_tombstones() {
    let record = merge(marked(1, at(1_000), Some(at(900))), &marked(2, at(1_000), None));
    let left = |now_ms: u64| {
        let rest = purged(&record, now_ms, 100, 300, |_| 0).unwrap_or_else(|| record.clone());
        rest.marks.into_keys().map(|owner| owner.port()).collect::<Vec<_>>()
    };
    assert_eq!(left(1_099), [1, 2], "a record of marks alone is kept");
    assert_eq!(left(1_100), [2]);
    assert_eq!(left(1_299), [2]);
    assert!(left(1_300).is_empty());
}

/// The bytes of the first release, which knew neither marks nor forms of texts, written down by hand.
#[test]
fn a_record_of_an_earlier_release_is_one_of_an_openbts_and_is_written_back_byte_for_byte() {
    let record = bound("a", at(10));
    let mut bytes = vec![1];
    bytes.extend(Stamp::ZERO.to_bytes());
    bytes.extend([0, 1, 0, 1, b'a']);
    bytes.extend(at(10).to_bytes());
    bytes.push(1);
    bytes.extend(10_000u64.to_be_bytes());
    bytes.extend(10u64.to_be_bytes());
    let call_id = format!("a {}", at(10));
    bytes.extend((call_id.len() as u16).to_be_bytes());
    bytes.extend(call_id.as_bytes());
    bytes.extend(0u32.to_be_bytes());
    bytes.extend([0, 14]);
    bytes.extend(b"192.0.2.1:5062");
    bytes.extend([0, 0, 0, 0, 0]);
    assert_eq!(decode(&bytes), Ok(record.clone()));
    assert_eq!(encode(&record), bytes);
    for form in [TextForm::Yate, TextForm::Ims, TextForm::Plain] {
        let mut other = record.clone();
        other.contacts.values_mut().filter_map(|entry| entry.binding.as_mut()).for_each(|binding| binding.texts = form);
        let bytes = encode(&other);
        assert_eq!(decode(&bytes), Ok(other));
        let mut newer = bytes.clone();
        let at = newer.len() - 3;
        newer[at] = 9;
        assert!(decode(&newer).is_err(), "a form that only a newer release knows");
    }
}
