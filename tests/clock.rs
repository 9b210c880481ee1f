//! Time may lie (DESIGN promise 9), through a whole node: 1970, a jump, a neighbour whose clock is ahead, and many restarts.

mod desk;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use desk::{Desk, KEY, TODAY_MS, imsi};
use encamp::event::Event;
use encamp::register::cluster::{self, Signed};
use encamp::register::merge::{Entry, Record, encode};
use encamp::seam::Port;
use encamp::time::{Stamp, WallTime};

/// A box without a clock battery: the kernel counts from 1970, then somebody tells it the date.
fn from_1970() -> Desk {
    Desk::at(WallTime { ms: 30_000, trusted: false })
}

fn today(desk: &mut Desk) {
    desk.wall = WallTime { ms: TODAY_MS, trusted: true };
}

#[track_caller]
fn check_bound_for(desk: &mut Desk, left_s: std::ops::RangeInclusive<i64>) {
    let bound = desk.bound(0);
    assert_eq!(bound.len(), 1);
    assert!(left_s.contains(&bound[0].expires_s), "{} s are left", bound[0].expires_s);
    assert!(!bound[0].stale);
}

#[test]
fn a_binding_made_in_1970_outlives_the_jump_to_today() {
    let mut desk = from_1970();
    assert_eq!(desk.cell(0, "x", 1, 5400), 200);
    desk.wait_s(60);
    check_bound_for(&mut desk, 5_330..=5_345);
    today(&mut desk);
    desk.wait_s(5);
    assert!(desk.events.iter().any(|event| matches!(event, Event::ClockJumped { .. })));
    check_bound_for(&mut desk, 5_325..=5_340);
    assert!((TODAY_MS - 70_000..TODAY_MS).contains(&desk.bound(0)[0].since));
    assert_eq!(desk.cell(0, "x", 2, 5400), 200);
    check_bound_for(&mut desk, 5_390..=5_400);
}

#[test]
fn a_binding_made_in_1970_outlives_a_restart_by_the_right_date() {
    let mut desk = from_1970();
    assert_eq!(desk.cell(0, "x", 1, 5400), 200);
    desk.wait_s(60);
    today(&mut desk);
    desk.restart();
    desk.wait_s(5);
    // Nobody knows how long it was off; its last run had reserved up to 15 s more than it lived.
    check_bound_for(&mut desk, 5_310..=5_345);
    desk.restart();
    desk.wait_s(5);
    check_bound_for(&mut desk, 5_305..=5_340);
}

#[test]
fn a_binding_expires_and_is_purged_by_a_clock_that_was_always_right() {
    let mut desk = Desk::today();
    assert_eq!(desk.cell(0, "x", 1, 60), 200);
    desk.wait_s(70);
    assert!(desk.bound(0)[0].stale);
    desk.wall.ms += 31 * 86_400_000;
    desk.wait_s(2);
    assert_eq!(desk.bound(0).len(), 0);
}

/// A signed REGISTER of another node: a write with this stamp, or without one a query.
fn stamped(desk: &mut Desk, n: u64, stamp: Option<Stamp>) -> String {
    let to = format!("sip:IMSI{}@gsm.test", imsi(0));
    let uri = format!("sip:IMSI{}@192.0.2.1:5070", imsi(0));
    let call_id = format!("w{n}");
    let record = stamp.map_or(String::new(), |stamp| {
        let mut record = Record::default();
        record.contacts.insert("sip:a@192.0.2.11:5062".into(), Entry { stamp, binding: None });
        BASE64.encode(encode(&record))
    });
    let signed =
        Signed { method: "REGISTER", uri: &uri, to: &to, call_id: &call_id, cseq: 1, status: 0, record: &record };
    let header = cluster::sign(&KEY, &signed, stamp.unwrap_or_default(), 1, "");
    let outcome = match stamp {
        None => String::new(),
        Some(_) => format!("Contact: <sip:a@192.0.2.11:5062>;expires=0\r\nEncamp-Record: {record}\r\n"),
    };
    let text = format!(
        "REGISTER {uri} SIP/2.0\r\nVia: SIP/2.0/UDP 192.0.2.9:5064;branch=z9hG4bK{call_id}\r\nFrom: <sip:front@gsm.test>;tag=1\r\n\
         To: <{to}>\r\nCall-ID: {call_id}\r\nCSeq: 1 REGISTER\r\nMax-Forwards: 70\r\nEncamp: {header}\r\n{outcome}\
         Content-Length: 0\r\n\r\n"
    );
    desk.send("192.0.2.9:5064", Port::Replica(0, 0), &text).concat()
}

fn write(desk: &mut Desk, n: u64, stamp: Stamp) -> String {
    stamped(desk, n, Some(stamp))
}

/// The largest stamp that a replica has for the phone.
fn newest_stamp(desk: &mut Desk, n: u64) -> Stamp {
    let answer = stamped(desk, n, None);
    let stamp = answer.split_once("stamp=").and_then(|(_, rest)| rest.split(';').next()).expect("a stamp");
    stamp.parse().expect("a stamp")
}

#[test]
fn a_stamp_more_than_five_minutes_ahead_is_refused_with_an_alarm() {
    let mut desk = Desk::today();
    let ahead = |s: u64| Stamp { ms: TODAY_MS + s * 1000, counter: 0, front: 9 };
    assert!(write(&mut desk, 1, ahead(299)).starts_with("SIP/2.0 200"));
    assert!(write(&mut desk, 2, ahead(301)).starts_with("SIP/2.0 500"), "and no stamp that was taken moves the bound");
    assert!(desk.events.iter().any(|event| matches!(event, Event::StampAhead { .. })));
}

#[test]
fn a_box_that_has_not_been_told_the_date_believes_its_neighbour() {
    let mut desk = from_1970();
    assert!(write(&mut desk, 1, Stamp { ms: TODAY_MS, counter: 0, front: 9 }).starts_with("SIP/2.0 200"));
    assert_eq!(desk.cell(0, "x", 1, 5400), 200);
    check_bound_for(&mut desk, 5_390..=5_400);
    desk.wait_s(100);
    check_bound_for(&mut desk, 5_290..=5_300);
}

/// Each start goes on above the floor that the last run had reserved; that must not add up.
#[test]
fn a_hundred_restarts_do_not_drive_the_clock_ahead() {
    let mut desk = Desk::today();
    for n in 0..100 {
        assert_eq!(desk.cell(0, "x", n + 1, 5400), 200);
        desk.restart();
    }
    let ahead_ms = newest_stamp(&mut desk, 1).ms.saturating_sub(TODAY_MS);
    assert!(ahead_ms < 30_000, "{ahead_ms} ms ahead");
}
