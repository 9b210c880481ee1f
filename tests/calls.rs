//! Calls by the clock: each deadline of a call at its default, the sessions that a trunk must refresh, and the base stations that are
//! asked whether they live.

mod desk;

use desk::texts::{DALE, FRONT, HILL};
use desk::{Desk, Sent, TODAY_MS, settings};
use encamp::config::{Trunk, TrunkMode};
use encamp::seam::{CallOutcome, Command, CommandAnswer};
use encamp::store::StoreId;
use encamp::store::memory::{MemoryStore, MemoryStores};
use encamp::time::WallTime;

const TRUNK: &str = "192.0.2.20:5060";
const SDP: &str =
    "v=0\r\no=- 1 1 IN IP4 192.0.2.20\r\ns=-\r\nt=0 0\r\nm=audio 4000 RTP/AVP 3\r\nc=IN IP4 192.0.2.20\r\n";

/// Two phones, at the hill and in the dale, and a trunk that cannot follow a 302.
fn valley() -> Desk {
    let mut all = settings();
    all.trunks.push(Trunk {
        name: "pbx".into(),
        address: TRUNK.parse().unwrap(),
        mode: TrunkMode::Recurse,
        texts: false,
        prefixes: Vec::new(),
        username: None,
        password: None,
    });
    let mut stores = MemoryStores::default();
    for id in [StoreId::Node, StoreId::Messages, StoreId::Replica(0), StoreId::Replica(1)] {
        stores.stores.insert(id, MemoryStore::new());
    }
    let mut desk = Desk::of(WallTime { ms: TODAY_MS, trusted: true }, all, stores);
    assert_eq!(desk.cell_at(HILL, 1, "bts1", 1, 3600), 200);
    assert_eq!(desk.cell_at(DALE, 2, "bts2", 1, 3600), 200);
    desk.take_sent();
    desk
}

/// An INVITE of a phone at the hill or of the trunk; `more` are further headers, each with its end of line.
fn invite(from: &str, user: &str, to: &str, more: &str) -> String {
    format!(
        "INVITE sip:{to}@192.0.2.1:5064 SIP/2.0\r\nVia: SIP/2.0/UDP {from};branch=z9hG4bKi{user}{to}\r\nFrom: <sip:{user}@{from}>;tag=caller\r\n\
         To: <sip:{to}@192.0.2.1>\r\nCall-ID: call-{user}-{to}\r\nCSeq: 7 INVITE\r\nContact: <sip:{user}@{from}>\r\nMax-Forwards: 70\r\n{more}\
         Content-Type: application/sdp\r\nContent-Length: {}\r\n\r\n{SDP}",
        SDP.len()
    )
}

fn header(text: &str, name: &str) -> String {
    let line = text.lines().find_map(|line| line.strip_prefix(&format!("{name}: ")));
    line.unwrap_or_else(|| panic!("no {name} in {text}")).to_owned()
}

/// The requests of this method that went to this address.
fn requests(sent: &[Sent], method: &str, to: &str) -> Vec<String> {
    let texts = sent.iter().filter(|sent| sent.to.to_string() == to).map(Sent::text);
    texts.filter(|text| text.starts_with(&format!("{method} "))).collect()
}

/// The codes that went to this address.
fn codes(sent: &[Sent], to: &str) -> Vec<String> {
    let texts = sent.iter().filter(|sent| sent.to.to_string() == to).map(Sent::text);
    texts
        .filter(|text| text.starts_with("SIP/2.0"))
        .map(|text| text.split(' ').nth(1).unwrap_or_default().into())
        .collect()
}

/// An answer to a request of the box, with a tag and a Contact.
fn answer(request: &str, status: &str, from: &str, more: &str, body: &str) -> String {
    let mut to = header(request, "To");
    if !to.contains(";tag=") {
        to.push_str(";tag=called");
    }
    let kind = if body.is_empty() { "" } else { "Content-Type: application/sdp\r\n" };
    format!(
        "SIP/2.0 {status}\r\nVia: {}\r\nFrom: {}\r\nTo: {to}\r\nCall-ID: {}\r\nCSeq: {}\r\nContact: <sip:x@{from}>\r\n{more}{kind}\
         Content-Length: {}\r\n\r\n{body}",
        header(request, "Via"),
        header(request, "From"),
        header(request, "Call-ID"),
        header(request, "CSeq"),
        body.len()
    )
}

/// A request of the caller inside the dialog that this 200 opened.
fn inside(ok: &str, method: &str, number: u32, from: &str, body: &str) -> String {
    format!(
        "{method} sip:x@192.0.2.1:5064 SIP/2.0\r\nVia: SIP/2.0/UDP {from};branch=z9hG4bK{method}{number}\r\nFrom: {}\r\nTo: {}\r\n\
         Call-ID: {}\r\nCSeq: {number} {method}\r\nContact: <sip:x@{from}>\r\nContent-Length: {}\r\n\r\n{body}",
        header(ok, "From"),
        header(ok, "To"),
        header(ok, "Call-ID"),
        body.len()
    )
}

/// Sends, and gives what the box sent at that.
fn send(desk: &mut Desk, from: &str, text: &str) -> Vec<Sent> {
    desk.take_sent();
    desk.send(from, FRONT, text);
    desk.take_sent()
}

/// Everything that is sent in this time; requests that need no thought are answered 200, unless their receiver is `mute`.
fn wait_s(desk: &mut Desk, seconds: u64, mute: &[&str]) -> Vec<Sent> {
    let mut all = Vec::new();
    for _ in 0..seconds {
        desk.wait_s(1);
        let mut sent = desk.take_sent();
        for one in &sent {
            let (text, to) = (one.text(), one.to.to_string());
            let is_plain = ["BYE ", "CANCEL ", "OPTIONS "].iter().any(|method| text.starts_with(method));
            if is_plain && !mute.contains(&to.as_str()) {
                desk.send(&to, FRONT, &answer(&text, "200 OK", &to, "", ""));
            }
        }
        all.append(&mut sent);
    }
    all
}

/// A call of the phone at the hill (or of the trunk) to the phone in the dale (or to the trunk) that is up; its 200.
fn up(desk: &mut Desk, from: &str, user: &str, to: &str, at: &str, more: (&str, &str)) -> (String, String) {
    let sent = send(desk, from, &invite(from, user, to, more.0));
    let request = requests(&sent, "INVITE", at).pop().expect("an INVITE");
    let sent = send(desk, at, &answer(&request, "200 OK", at, more.1, SDP));
    assert_eq!(requests(&sent, "ACK", at).len(), 1);
    let ok = sent.iter().map(Sent::text).find(|text| text.starts_with("SIP/2.0 200")).expect("a 200");
    send(desk, from, &inside(&ok, "ACK", 7, from, ""));
    (ok, request)
}

fn calls(desk: &mut Desk) -> usize {
    match desk.command(Command::Calls) {
        CommandAnswer::Calls(calls) => calls.iter().filter(|call| call.state == "up").count(),
        other => panic!("{other:?}"),
    }
}

const ANA: &str = "IMSI001010000000001";

#[test]
fn a_ring_group_has_15_s_and_the_whole_setup_60() {
    let mut desk = valley();
    let sent = send(&mut desk, HILL, &invite(HILL, ANA, "2002", ""));
    assert_eq!(codes(&sent, HILL), ["100"], "at once");
    let request = requests(&sent, "INVITE", DALE).pop().expect("an INVITE");
    send(&mut desk, DALE, &answer(&request, "100 Trying", DALE, "", ""));
    assert!(requests(&wait_s(&mut desk, 14, &[]), "CANCEL", DALE).is_empty());
    let sent = wait_s(&mut desk, 2, &[]);
    assert_eq!(requests(&sent, "CANCEL", DALE).len(), 1);
    let second = requests(&sent, "INVITE", HILL).pop().expect("the other base station of the location area is tried");
    send(&mut desk, HILL, &answer(&second, "180 Ringing", HILL, "", ""));
    // It rings: no group's time counts any more, only that of the whole setup.
    assert!(codes(&wait_s(&mut desk, 43, &[]), HILL).is_empty());
    let sent = wait_s(&mut desk, 2, &[]);
    assert_eq!(requests(&sent, "CANCEL", HILL).len(), 1);
    assert!(codes(&sent, HILL).contains(&"480".to_owned()), "{:?}", codes(&sent, HILL));
    wait_s(&mut desk, 200, &[]);
    assert!(desk.is_at_rest());
}

#[test]
fn without_an_ack_both_legs_end_after_32_s() {
    let mut desk = valley();
    let sent = send(&mut desk, HILL, &invite(HILL, ANA, "2002", ""));
    let request = requests(&sent, "INVITE", DALE).pop().expect("an INVITE");
    send(&mut desk, DALE, &answer(&request, "200 OK", DALE, "", SDP));
    let sent = wait_s(&mut desk, 31, &[]);
    assert!(codes(&sent, HILL).len() > 5, "the 200 is said again until its ACK");
    assert!(requests(&sent, "BYE", DALE).is_empty());
    let sent = wait_s(&mut desk, 2, &[]);
    assert_eq!((requests(&sent, "BYE", DALE).len(), requests(&sent, "BYE", HILL).len()), (1, 1));
    wait_s(&mut desk, 200, &[]);
    assert!(desk.is_at_rest());
}

#[test]
fn a_call_that_nobody_ends_lasts_4_hours_and_its_base_stations_are_asked_meanwhile() {
    let mut desk = valley();
    up(&mut desk, HILL, ANA, "2002", DALE, ("", ""));
    let sent = wait_s(&mut desk, 4 * 3600 - 5, &[]);
    let probes = requests(&sent, "OPTIONS", DALE).len();
    assert!((20..30).contains(&probes), "every ten minutes: {probes}");
    assert_eq!((requests(&sent, "BYE", DALE).len(), calls(&mut desk)), (0, 1));
    let sent = wait_s(&mut desk, 10, &[]);
    assert_eq!((requests(&sent, "BYE", DALE).len(), requests(&sent, "BYE", HILL).len()), (1, 1));
    wait_s(&mut desk, 200, &[]);
    assert!(desk.is_at_rest());
}

#[test]
fn a_base_station_that_is_silent_twice_ends_its_call() {
    let mut desk = valley();
    up(&mut desk, HILL, ANA, "2002", DALE, ("", ""));
    let sent = wait_s(&mut desk, 700, &[DALE]);
    assert!(!requests(&sent, "OPTIONS", DALE).is_empty());
    assert_eq!(requests(&sent, "BYE", HILL).len(), 1, "the phone that is left is told");
    assert_eq!(calls(&mut desk), 0);
    // One answer in time, and nothing is ended.
    let mut desk = valley();
    up(&mut desk, HILL, ANA, "2002", DALE, ("", ""));
    assert!(requests(&wait_s(&mut desk, 3600, &[]), "BYE", HILL).is_empty());
    assert_eq!(calls(&mut desk), 1);
}

#[test]
fn a_trunk_that_calls_refreshes_its_session_or_loses_it() {
    let timer = "Supported: timer\r\nSession-Expires: 120;refresher=uac\r\n";
    let mut desk = valley();
    let (ok, _) = up(&mut desk, TRUNK, "+4420", "2002", DALE, (timer, ""));
    assert_eq!(header(&ok, "Session-Expires"), "120;refresher=uac");
    assert_eq!(header(&ok, "Require"), "timer");
    wait_s(&mut desk, 100, &[]);
    let sent = send(&mut desk, TRUNK, &inside(&ok, "UPDATE", 8, TRUNK, ""));
    assert_eq!(codes(&sent, TRUNK), ["200"]);
    wait_s(&mut desk, 100, &[]);
    // An INVITE refreshes, too: it is answered with what the trunk heard before, and nothing of it reaches the base station.
    let again = inside(&ok, "INVITE", 9, TRUNK, SDP)
        .replace("Content-Length", "Content-Type: application/sdp\r\nContent-Length");
    let sent = send(&mut desk, TRUNK, &again);
    let texts: Vec<String> = sent.iter().map(Sent::text).collect();
    assert!(texts.len() == 1 && texts[0].starts_with("SIP/2.0 200") && texts[0].ends_with(SDP), "{texts:?}");
    send(&mut desk, TRUNK, &inside(&ok, "ACK", 9, TRUNK, ""));
    assert!(requests(&wait_s(&mut desk, 118, &[]), "BYE", DALE).is_empty());
    let sent = wait_s(&mut desk, 4, &[]);
    assert_eq!((requests(&sent, "BYE", DALE).len(), requests(&sent, "BYE", TRUNK).len()), (1, 1));
    wait_s(&mut desk, 200, &[]);
    assert!(desk.is_at_rest());
}

#[test]
fn a_trunk_that_is_called_is_asked_to_refresh_and_watched() {
    let mut desk = valley();
    let (_, request) =
        up(&mut desk, HILL, ANA, "+4420", TRUNK, ("", "Require: timer\r\nSession-Expires: 1800;refresher=uas\r\n"));
    assert_eq!(header(&request, "Session-Expires"), "1800;refresher=uas");
    assert!(requests(&wait_s(&mut desk, 1790, &[]), "BYE", HILL).is_empty());
    let sent = wait_s(&mut desk, 20, &[]);
    assert_eq!((requests(&sent, "BYE", HILL).len(), requests(&sent, "BYE", TRUNK).len()), (1, 1));
    // One that has no timers is not held to any.
    let mut desk = valley();
    up(&mut desk, HILL, ANA, "+4420", TRUNK, ("", ""));
    assert!(requests(&wait_s(&mut desk, 3600, &[]), "BYE", HILL).is_empty());
}

#[test]
fn a_changed_session_is_488_and_the_call_goes_on() {
    let mut desk = valley();
    let (ok, _) = up(&mut desk, TRUNK, "+4420", "2002", DALE, ("", ""));
    let held = SDP.replace("s=-", "s=-\r\na=sendonly");
    let hold = inside(&ok, "INVITE", 8, TRUNK, &held)
        .replace("Content-Length", "Content-Type: application/sdp\r\nContent-Length");
    assert_eq!(codes(&send(&mut desk, TRUNK, &hold), TRUNK), ["488"]);
    assert_eq!(calls(&mut desk), 1);
}

#[test]
fn a_disk_that_hangs_leaves_nobody_on_the_line() {
    let mut desk = valley();
    let sent = send(&mut desk, HILL, &invite(HILL, ANA, "2002", ""));
    let request = requests(&sent, "INVITE", DALE).pop().expect("an INVITE");
    desk.slow = true;
    let sent = send(&mut desk, DALE, &answer(&request, "200 OK", DALE, "", SDP));
    assert!(!codes(&sent, HILL).contains(&"200".to_owned()), "no 200 before the record is on the disk");
    assert!(requests(&wait_s(&mut desk, 55, &[]), "BYE", DALE).is_empty());
    let sent = wait_s(&mut desk, 7, &[]);
    assert_eq!(requests(&sent, "BYE", DALE).len(), 1);
    assert!(codes(&sent, HILL).contains(&"480".to_owned()), "{:?}", codes(&sent, HILL));
    desk.slow = false;
    let sent = wait_s(&mut desk, 200, &[]);
    assert!(!codes(&sent, HILL).contains(&"200".to_owned()));
    assert!(desk.is_at_rest());
}

#[test]
fn who_has_no_number_is_shown_as_nobody() {
    let mut desk = valley();
    let sent = send(&mut desk, TRUNK, &invite(TRUNK, "anonymous", "2002", ""));
    let request = requests(&sent, "INVITE", DALE).pop().expect("an INVITE");
    assert!(
        header(&request, "From").starts_with("anonymous ") && !request.contains("P-Asserted-Identity"),
        "{request}"
    );
}

#[test]
fn every_call_has_one_record() {
    let mut desk = valley();
    let (ok, _) = up(&mut desk, HILL, ANA, "2002", DALE, ("", ""));
    wait_s(&mut desk, 5, &[]);
    send(&mut desk, HILL, &inside(&ok, "BYE", 8, HILL, ""));
    send(&mut desk, HILL, &invite(HILL, "IMSI001010000000003", "2002", ""));
    wait_s(&mut desk, 200, &[]);
    let records: Vec<_> = desk.records.iter().map(|one| (one.outcome, one.code, one.cause, one.ended_by)).collect();
    assert_eq!(records, [(CallOutcome::Answered, 200, 0, "caller"), (CallOutcome::Refused, 403, 21, "us")]);
    assert_eq!((desk.records[0].from.as_str(), desk.records[0].to.as_str()), ("2001", "2002"));
    assert_eq!((desk.records[0].from_cell.as_str(), desk.records[0].to_cell.as_str()), ("hill", "dale"));
    assert_eq!(desk.records[0].ended_ms - desk.records[0].answered_ms.unwrap(), 5_000);
}
