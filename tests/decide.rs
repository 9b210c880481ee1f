//! The decision on one REGISTER (RFC 3261 §10.3; wire.md 1.3, 8; DESIGN promise 3), as cases: old bindings, a request, what is bound
//! afterwards.

mod desk;

use std::net::SocketAddr;

use encamp::config::Registrar;
use encamp::gsm::form::TextForm;
use encamp::register::decide::{Ask, AskedContact, Contacts, Facts, Kind, Outcome, Refusal, decide_register};
use encamp::register::merge::{Record, merge};
use encamp::time::Stamp;

use desk::Desk;

const NOW_MS: u64 = 1_790_000_000_000;

fn asked(uri: &str, expires_s: Option<u32>, texts: TextForm) -> AskedContact {
    AskedContact { uri: uri.to_owned(), expires_s, instance: None, texts }
}

/// A base station: one Call-ID and one counter for all its phones.
fn cell(contact: &str, call_id: &str, cseq: u32, expires_s: u32) -> Ask {
    Ask {
        contacts: Contacts::Some(vec![asked(contact, Some(expires_s), TextForm::OpenBts)]),
        call_id: call_id.to_owned(),
        cseq,
        source: SocketAddr::from(([192, 0, 2, 11], 5062)),
        cell: None,
        path: Vec::new(),
        base_station: true,
    }
}

fn soft(contact: &str, call_id: &str, cseq: u32, expires_s: Option<u32>) -> Ask {
    let contacts = Contacts::Some(vec![asked(contact, expires_s, TextForm::Plain)]);
    Ask { contacts, base_station: false, ..cell(contact, call_id, cseq, 0) }
}

fn soft_many(contacts: &[&str]) -> Ask {
    let contacts = contacts.iter().map(|contact| asked(contact, Some(600), TextForm::Plain)).collect();
    Ask { contacts: Contacts::Some(contacts), ..soft("", "many", 1, None) }
}

fn clear(call_id: &str, cseq: u32) -> Ask {
    Ask { contacts: Contacts::All, ..soft("", call_id, cseq, None) }
}

fn stamp(n: u64) -> Stamp {
    Stamp { ms: NOW_MS + n, counter: 0, front: 1 }
}

fn limits() -> Registrar {
    Registrar { contacts_per_aor_max: 2, ..Registrar::default() }
}

fn decide(old: &Record, n: u64, ask: &Ask) -> Result<Outcome, Refusal> {
    decide_register(ask, Facts { old, now_ms: NOW_MS + n, stamp: stamp(n), limits: &limits() })
}

/// Decides one after the other; what is bound in the end.
fn after(asks: &[Ask]) -> Record {
    asks.iter().enumerate().fold(Record::default(), |old, (n, ask)| match decide(&old, n as u64 + 1, ask) {
        Ok(Outcome::Write { delta, .. }) => merge(old, &delta),
        Ok(Outcome::Told | Outcome::DetachIgnored) => old,
        Err(refusal) => panic!("request {} is refused: {refusal:?}", n + 1),
    })
}

#[track_caller]
fn check(asks: &[Ask], bound: &[&str]) {
    let record = after(asks);
    let found: Vec<&str> = record.bindings().map(|(contact, ..)| contact).collect();
    assert_eq!(found, bound);
}

#[track_caller]
fn check_refused(before: &[Ask], ask: &Ask, refusal: Refusal) {
    let old = after(before);
    assert_eq!(decide(&old, 100, ask), Err(refusal));
}

#[test]
fn a_base_station_binds_one_contact_and_the_former_is_kept_as_previous() {
    check(&[cell("a", "x", 1, 5400)], &["a"]);
    check(&[cell("a", "x", 1, 5400), cell("b", "y", 1, 5400)], &["b"]);
    let record = after(&[cell("a", "x", 1, 5400), cell("b", "y", 1, 5400)]);
    let (_, _, binding) = record.newest().unwrap();
    assert_eq!(binding.previous.as_deref(), Some("a"));
    assert_eq!(binding.since_ms, NOW_MS + 2);
    let record = after(&[cell("a", "x", 1, 5400), cell("b", "y", 1, 5400), cell("b", "y", 2, 5400)]);
    let (_, _, binding) = record.newest().unwrap();
    assert_eq!((binding.previous.as_deref(), binding.since_ms), (Some("a"), NOW_MS + 2), "a refresh is no move");
}

#[test]
fn what_a_contact_says_of_texts_is_kept_with_it_and_follows_its_last_register() {
    let yate = |cseq: u32| {
        let contacts = Contacts::Some(vec![asked("a", Some(600), TextForm::Yate)]);
        Ask { contacts, ..cell("a", "x", cseq, 0) }
    };
    let texts = |asks: &[Ask]| after(asks).newest().map(|(_, _, binding)| binding.texts);
    assert_eq!(texts(&[cell("a", "x", 1, 600), yate(2)]), Some(TextForm::Yate));
    assert_eq!(texts(&[yate(1), cell("a", "x", 2, 600)]), Some(TextForm::OpenBts));
    let record = after(&[soft("a", "x", 1, Some(600)), {
        let contacts = Contacts::Some(vec![asked("b", Some(600), TextForm::Ims)]);
        Ask { contacts, ..soft("b", "y", 1, None) }
    }]);
    let all: Vec<_> = record.bindings().map(|(contact, _, binding)| (contact, binding.texts)).collect();
    assert_eq!(all, [("a", TextForm::Plain), ("b", TextForm::Ims)], "each contact has its own");
}

#[test]
fn a_move_is_told_from_a_refresh() {
    let old = after(&[cell("a", "x", 1, 5400)]);
    for (ask, moved) in [(cell("a", "x", 2, 5400), false), (cell("b", "y", 1, 5400), true)] {
        let Ok(Outcome::Write { kind, .. }) = decide(&old, 5, &ask) else { panic!("{ask:?}") };
        assert_eq!(kind, Kind::Bound { moved });
    }
}

#[test]
fn a_lower_cseq_of_the_same_call_id_is_refused_and_an_equal_one_is_taken() {
    check_refused(&[cell("a", "x", 7, 5400)], &cell("a", "x", 6, 5400), Refusal::OutOfOrder);
    check_refused(&[cell("a", "x", 7, 5400)], &cell("a", "x", 6, 0), Refusal::OutOfOrder);
    check_refused(&[soft("a", "x", 7, Some(600))], &clear("x", 6), Refusal::OutOfOrder);
    check(&[cell("a", "x", 7, 5400), cell("a", "x", 7, 5400)], &["a"]);
    // A base station that restarted counts from elsewhere, under a new Call-ID.
    check(&[cell("a", "x", 7, 5400), cell("a", "y", 1, 5400)], &["a"]);
}

#[test]
fn a_detach_is_obeyed_only_for_the_contact_that_is_bound() {
    check(&[cell("a", "x", 1, 5400), cell("a", "x", 2, 0)], &[]);
    let old = after(&[cell("a", "x", 1, 5400), cell("b", "y", 1, 5400)]);
    assert_eq!(decide(&old, 9, &cell("a", "x", 2, 0)), Ok(Outcome::DetachIgnored), "it comes late from the old cell");
    assert_eq!(decide(&Record::default(), 9, &cell("a", "x", 2, 0)), Ok(Outcome::DetachIgnored));
}

#[test]
fn a_phone_that_detached_registers_again() {
    check(&[cell("a", "x", 1, 5400), cell("a", "x", 2, 0), cell("a", "x", 3, 5400)], &["a"]);
}

#[test]
fn a_wildcard_removes_all_and_each_is_remembered() {
    let record = after(&[soft("a", "x", 1, Some(600)), soft("b", "y", 1, Some(600)), clear("z", 1)]);
    assert_eq!(record.bindings().count(), 0);
    assert_eq!(record.clear_stamp, stamp(3));
    // A write that was decided before and comes late stays dead.
    let Ok(Outcome::Write { delta, .. }) = decide(&Record::default(), 1, &soft("a", "x", 1, Some(600))) else {
        panic!()
    };
    assert_eq!(merge(record.clone(), &delta), record);
}

#[test]
fn a_sip_phone_adds_and_the_limit_displaces_the_oldest_as_tombstones() {
    check(&[soft("a", "x", 1, Some(600)), soft("b", "y", 1, Some(600))], &["a", "b"]);
    let asks = [soft("b", "y", 1, Some(600)), soft("a", "x", 1, Some(600)), soft("c", "z", 1, Some(600))];
    check(&asks, &["a", "c"]);
    let record = after(&asks);
    let displaced = &record.contacts["b"];
    assert!(displaced.binding.is_none() && displaced.stamp == stamp(3), "merge alone would bring it back");
    // A refresh displaces nobody.
    check(&[soft("a", "x", 1, Some(600)), soft("b", "y", 1, Some(600)), soft("a", "x", 2, Some(600))], &["a", "b"]);
}

#[test]
fn more_contacts_at_once_than_the_limit_are_refused() {
    check(&[soft_many(&["a", "b"])], &["a", "b"]);
    check_refused(&[], &soft_many(&["a", "b", "c"]), Refusal::TooManyContacts);
}

#[test]
fn a_base_station_names_one_contact() {
    let ask = Ask { base_station: true, ..soft_many(&["a", "b"]) };
    check_refused(&[], &ask, Refusal::TooManyContacts);
}

#[test]
fn an_expiry_below_the_minimum_is_423_for_phones_and_none_for_base_stations() {
    let brief = Refusal::IntervalTooBrief { expires_s_min: 60 };
    check_refused(&[], &soft("a", "x", 1, Some(59)), brief);
    check(&[soft("a", "x", 1, Some(60))], &["a"]);
    check(&[cell("a", "x", 1, 1)], &["a"]);
    // One that is too brief stores none of the others either.
    let both = Contacts::Some(vec![asked("a", Some(600), TextForm::Plain), asked("b", Some(59), TextForm::Plain)]);
    check_refused(
        &[],
        &Ask { contacts: both, ..soft("a", "x", 1, None) },
        Refusal::IntervalTooBrief { expires_s_min: 60 },
    );
}

#[test]
fn an_expiry_is_clamped_and_has_a_default() {
    for (asked_s, granted_s) in [(Some(100_000), 86_400), (None, 3_600), (Some(5_400), 5_400), (Some(u32::MAX), 86_400)]
    {
        let record = after(&[soft("a", "x", 1, asked_s)]);
        let (_, _, binding) = record.newest().unwrap();
        assert_eq!(binding.expires_at_ms, NOW_MS + 1 + granted_s * 1000, "{asked_s:?}");
    }
}

#[test]
fn a_request_without_contact_changes_nothing() {
    let old = after(&[soft("a", "x", 1, Some(600))]);
    assert_eq!(decide(&old, 5, &Ask { contacts: Contacts::None, ..soft("a", "x", 0, None) }), Ok(Outcome::Told));
}

// --- What is read from the headers before, through the node ---

#[test]
fn a_wildcard_contact_needs_expires_zero() {
    let mut desk = Desk::today();
    assert_eq!(desk.soft(0, "<sip:a@192.0.2.11:5080>", "600"), 200);
    assert_eq!(desk.soft(0, "*", "600"), 400);
    assert_eq!(desk.bound(0).len(), 1);
    assert_eq!(desk.soft(0, "*", "0"), 200);
    assert_eq!(desk.bound(0).len(), 0);
}

/// "…one value per BTS process, shared by every IMSI" (wire.md 1.2): the order of CSeq is kept per AOR.
#[test]
fn another_phone_with_the_same_call_id_is_not_affected() {
    let mut desk = Desk::today();
    assert_eq!(desk.cell(0, "9200ac34758d0f49", 131_736, 5400), 200);
    assert_eq!(desk.cell(1, "9200ac34758d0f49", 131_730, 5400), 200);
    assert_eq!(desk.cell(0, "9200ac34758d0f49", 131_735, 5400), 400, "the same phone's is older");
    assert_eq!((desk.bound(0).len(), desk.bound(1).len()), (1, 1));
}
