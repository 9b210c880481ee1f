//! Replicas converge: the merge rule of DESIGN promise 3, as properties.

use std::collections::BTreeMap;
use std::net::SocketAddr;

use encamp::ident::CellId;
use encamp::register::merge::{Binding, Entry, Record, decode, encode, merge};
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

fn any_binding() -> impl Strategy<Value = Binding> {
    let numbers = (any::<u64>(), any::<u64>(), any::<u32>(), any::<[u8; 4]>(), any::<u16>(), any::<bool>());
    let cell = option::of((any::<u16>(), any::<u16>(), 2u8..4, any::<u16>(), any::<u16>()));
    let texts = (any_text(), vec(any_text(), 0..3), option::of(any_text()), option::of(any_text()));
    (numbers, cell, texts).prop_map(|(numbers, cell, (call_id, path, instance, previous))| {
        let (expires_at_ms, since_ms, cseq, ip, port, v6) = numbers;
        let source = match v6 {
            true => SocketAddr::from(([0x2001, 0xdb8, 0, 0, 0, 0, 0, u16::from(ip[0])], port)),
            false => SocketAddr::from((ip, port)),
        };
        let cell = cell.map(|(mcc, mnc, mnc_digits, lac, ci)| CellId { mcc, mnc, mnc_digits, lac, ci });
        Binding { expires_at_ms, since_ms, call_id, cseq, source, cell, path, instance, previous }
    })
}

/// A record of writes as front ends make them: what a stamp says of a contact is always the same, for a stamp names one write.
fn any_record() -> impl Strategy<Value = Record> {
    let entry = ("[ab]|sip:c@d", any_stamp());
    (vec(entry, 0..5), option::of(any_stamp())).prop_map(|(entries, clear_stamp)| {
        let clear_stamp = clear_stamp.unwrap_or_default();
        let mut record = Record { clear_stamp, contacts: BTreeMap::new() };
        for (contact, stamp) in entries {
            let entry = Entry { stamp, binding: written(&contact, stamp) };
            record = merge(record, &Record { clear_stamp, contacts: BTreeMap::from([(contact, entry)]) });
        }
        record
    })
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
    ) {
        let contacts = contacts.into_iter().map(|(contact, stamp, binding)| (contact, Entry { stamp, binding })).collect();
        let record = Record { clear_stamp, contacts };
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
