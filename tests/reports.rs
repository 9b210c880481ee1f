//! What a sender is told of his texts, and what he asks of them: STATUS-REPORT, SMS-COMMAND, texts that replace older ones.

mod desk;

use std::sync::Arc;

use desk::forms::{self, Came, came, command, desk_of, tell};
use desk::texts::{DALE, HILL, message, sms, submit};
use desk::{Desk, TODAY_MS, imsi, settings};
use encamp::config::{Settings, Trunk, TrunkMode};
use encamp::gsm::report::{CommandKind, Outcome, Status, StatusReport};
use encamp::gsm::rpdu::to_hex;
use encamp::gsm::segment::{Cut, split};
use encamp::gsm::tpdu::{Scts, Submit, Validity};
use encamp::seam::{Command, CommandAnswer, Input, QueueAsk, QueueFilter, TextAnswer};
use encamp::store::StoreId;

/// Phone 1 at the hill; phone 2 is listed, and was never here.
fn waiting() -> Desk {
    waiting_with(settings())
}

fn waiting_with(settings: Settings) -> Desk {
    let mut desk = desk_of(settings);
    assert_eq!(desk.cell(1, "bts", 1, 3600), 200);
    desk.take_sent();
    desk
}

fn come(desk: &mut Desk, phone: u64) -> Vec<Came> {
    assert_eq!(desk.cell_at(DALE, phone, "dale", phone as u32, 3600), 200);
    came(desk).into_iter().filter(|came| came.code() == 0).collect()
}

fn queue(desk: &mut Desk) -> Vec<TextAnswer> {
    match desk.command(Command::Queue(QueueAsk::List(QueueFilter::default()))) {
        CommandAnswer::Queue(texts) => texts,
        other => panic!("{other:?}"),
    }
}

fn happened(desk: &Desk, name: &str) -> usize {
    desk.events.iter().filter(|event| event.name() == name).count()
}

/// A SUBMIT of phone 1; the code of its answer and the MESSAGEs that leave at once.
fn write(desk: &mut Desk, id: &str, submit: &Submit) -> (u16, Vec<Came>) {
    tell(desk, HILL, sms(1, HILL, id, submit).as_bytes())
}

fn asking(to: &str, words: &str, reference: u8) -> Submit {
    Submit { report_wanted: true, ..submit(to, words, reference) }
}

/// A COMMAND of phone 1 about its text of this TP-MR.
fn order(desk: &mut Desk, kind: CommandKind, to: &str, reference: u8, report: bool) -> (u16, Vec<Came>) {
    let id = format!("c{}.{reference}.{}", kind.0, desk.now_us);
    let body = to_hex(&command(kind, to, reference, report));
    tell(desk, HILL, message(1, HILL, &id, "smsc", forms::RPDU, &body).as_bytes())
}

/// The one STATUS-REPORT among what was sent, which the phone takes; what leaves next.
fn report(desk: &mut Desk, requests: &[Came]) -> (StatusReport, Vec<Came>) {
    let reports: Vec<&Came> =
        requests.iter().filter(|came| came.uri().contains(imsi(1).as_str()) && came.is_report()).collect();
    assert_eq!(reports.len(), 1, "{requests:?}");
    (reports[0].report(), forms::reply(desk, reports[0], "200 OK", &[]))
}

// --- Reports ---

#[test]
fn a_text_that_arrives_is_reported_with_its_own_numbers_and_times() {
    let mut desk = waiting();
    assert_eq!(write(&mut desk, "a", &asking("+2002", "hello", 7)).0, 202);
    desk.wait_s(100);
    let mt = come(&mut desk, 2);
    assert!(!mt[0].deliver().report_wanted, "TP-SRI is nobody's business: the report is the centre's");
    let requests = forms::reply(&mut desk, &mt[0], "200 OK", &[]);
    let (report, rest) = report(&mut desk, &requests);
    assert!(rest.is_empty());
    assert_eq!((report.reference, report.status, report.of_command), (7, Status::RECEIVED, false));
    assert_eq!((report.recipient.number().as_str(), report.recipient.is_international()), ("+2002", true));
    assert_eq!(report.timestamp, mt[0].deliver().timestamp, "TP-SCTS is the text's");
    assert_eq!(report.discharged.unix_s(), Some(desk.wall.ms / 1000));
    assert!(queue(&mut desk).is_empty() && desk.is_at_rest());
    desk.wait_s(100);
    assert!(came(&mut desk).is_empty(), "a report has no report");
}

/// Of two texts of one second the later one has the next second for its time.
#[test]
fn no_text_is_reported_to_have_arrived_before_its_own_time() {
    let mut desk = waiting();
    come(&mut desk, 2);
    for (id, reference) in [("a", 7), ("b", 8)] {
        let mt = write(&mut desk, id, &asking("2002", "hello", reference)).1;
        let requests = forms::reply(&mut desk, &mt[0], "200 OK", &[]);
        let (report, _) = report(&mut desk, &requests);
        assert_eq!(report.reference, reference);
        let times = [&report.timestamp, &report.discharged].map(|stamp| stamp.unix_s().unwrap());
        let ahead = u64::from(reference == 8);
        assert_eq!(times, [TODAY_MS / 1000 + ahead; 2], "by the clock it is the same second");
    }
    assert!(queue(&mut desk).is_empty() && desk.is_at_rest());
}

#[test]
fn nobody_is_told_who_did_not_ask_and_whose_text_arrived() {
    let mut desk = waiting();
    write(&mut desk, "a", &submit("2002", "hello", 7));
    let mt = come(&mut desk, 2);
    assert!(forms::reply(&mut desk, &mt[0], "200 OK", &[]).is_empty());
    assert!(queue(&mut desk).is_empty());
}

#[test]
fn each_end_has_its_status() {
    // By the answer of a SIP phone, which is believed at once.
    for (status, expected) in [
        ("404 Not Found", Status::NOT_OBTAINABLE),
        ("603 Decline", Status::CONNECTION_REJECTED),
        ("415 Unsupported Media Type", Status::INCOMPATIBLE_DESTINATION),
    ] {
        let mut desk = waiting();
        forms::plain(&mut desk, 2);
        let (_, mt) = write(&mut desk, "a", &asking("2002", "hello", 9));
        let requests = forms::reply(&mut desk, &mt[0], status, &[]);
        let (report, _) = report(&mut desk, &requests);
        assert_eq!((report.reference, report.status), (9, expected), "{status}");
        assert_eq!(happened(&desk, "text_failed"), 1);
    }
    // A single shot, and what it was given up after.
    let mut desk = waiting();
    come(&mut desk, 2);
    let shot =
        Submit { validity: Some(Validity::Enhanced([0b0100_0000, 0, 0, 0, 0, 0, 0])), ..asking("2002", "now", 3) };
    let (_, mt) = write(&mut desk, "a", &shot);
    let requests = forms::reply(&mut desk, &mt[0], "480 No_Paging_Response", &[]);
    let (report, _) = report(&mut desk, &requests);
    assert_eq!((report.status, report.status.outcome()), (Status::NO_RESPONSE.given_up(), Outcome::GivenUp));
}

#[test]
fn a_text_whose_time_is_over_is_reported_and_nobody_is_told_in_words_too() {
    let mut desk = waiting();
    // Ten minutes, and the phone is never there.
    let submit = Submit { validity: Some(Validity::Relative(1)), ..asking("2002", "soon", 5) };
    write(&mut desk, "a", &submit);
    desk.wait_s(598);
    assert!(came(&mut desk).is_empty());
    desk.wait_s(3);
    let requests = came(&mut desk);
    let (report, rest) = report(&mut desk, &requests);
    assert_eq!((report.status, report.reference), (Status::VALIDITY_EXPIRED, 5));
    assert!(rest.is_empty() && queue(&mut desk).is_empty());
}

#[test]
fn each_part_of_a_long_text_has_its_own_report() {
    let mut desk = waiting();
    let long = "A text of more than a hundred and sixty characters goes in parts. ".repeat(5);
    let parts = split(&long, &Cut::new(encamp::gsm::header::Reference::Short(9))).unwrap();
    for (n, data) in parts.iter().enumerate() {
        // The second one is reported to nobody.
        let submit = Submit { report_wanted: n != 1, data: data.clone(), ..submit("2002", "", 20 + n as u8) };
        assert_eq!(write(&mut desk, &format!("p{n}"), &submit).0, 202);
    }
    let mut references = Vec::new();
    let mut requests = come(&mut desk, 2);
    while let Some(next) = requests.pop() {
        if next.uri().contains(imsi(1).as_str()) {
            references.push((next.report().reference, next.report().status));
        }
        requests.extend(forms::reply(&mut desk, &next, "200 OK", &[]));
    }
    assert_eq!(references, [(20, Status::RECEIVED), (22, Status::RECEIVED)]);
    assert!(queue(&mut desk).is_empty());
}

#[test]
fn behind_a_trunk_a_text_is_forwarded_and_no_more_is_known() {
    let mut settings = settings();
    settings.trunks.push(trunk());
    let mut desk = waiting_with(settings);
    let (code, requests) = write(&mut desk, "a", &asking("+15550001", "out", 4));
    assert_eq!((code, requests[0].words().as_str()), (202, "out"));
    let requests = forms::reply(&mut desk, &requests[0], "202 Accepted", &[]);
    assert_eq!(report(&mut desk, &requests).0.status, Status::FORWARDED);
}

fn trunk() -> Trunk {
    Trunk {
        name: "pbx".into(),
        address: "192.0.2.20:5060".parse().unwrap(),
        mode: TrunkMode::Recurse,
        texts: true,
        prefixes: vec!["+1".into()],
        username: None,
        password: None,
    }
}

#[test]
fn a_report_waits_for_its_phone_and_survives_a_power_cut_with_the_end_it_tells_of() {
    let mut desk = waiting();
    write(&mut desk, "a", &asking("2002", "hello", 7));
    let mt = come(&mut desk, 2);
    desk.slow = true;
    assert!(forms::reply(&mut desk, &mt[0], "200 OK", &[]).is_empty(), "no report before the end is on the disk");
    desk.slow = false;
    desk.restart();
    desk.wait_s(5);
    // What was not synced did not happen: the text goes out once more, marked, and is reported once.
    let again = came(&mut desk).into_iter().find(|came| came.uri().contains(imsi(2).as_str())).unwrap();
    let requests = forms::reply(&mut desk, &again, "200 OK", &[]);
    let reports: Vec<&Came> = requests.iter().filter(|came| came.is_report()).collect();
    assert_eq!(reports.len(), 1);
    assert!(forms::reply(&mut desk, reports[0], "480 No_Paging_Response", &[]).is_empty());
    desk.restart();
    desk.wait_s(1);
    assert_eq!(desk.cell(1, "bts", 50, 3600), 200);
    let requests: Vec<Came> = came(&mut desk).into_iter().filter(|came| came.code() == 0).collect();
    assert_eq!(report(&mut desk, &requests).0.reference, 7);
    desk.wait_s(200);
    assert!(came(&mut desk).is_empty() && queue(&mut desk).is_empty());
}

// --- Commands ---

#[test]
fn an_enquiry_says_how_it_stands_at_each_time() {
    let mut desk = waiting();
    write(&mut desk, "a", &submit("2002", "hello", 7));
    let ask = |desk: &mut Desk, number: &str| {
        desk.wait_s(1);
        let (code, requests) = order(desk, CommandKind::ENQUIRE, number, 7, false);
        assert_eq!(code, 202);
        report(desk, &requests).0
    };
    desk.wait_s(60);
    came(&mut desk);
    let absent = ask(&mut desk, "2002");
    assert_eq!((absent.status, absent.of_command, absent.reference), (Status::NO_RESPONSE, true, 7 ^ 0x80));
    assert_eq!((absent.timestamp, absent.recipient.number().as_str()), (Scts::new(TODAY_MS / 1000, 0), "2002"));
    assert_eq!(absent.discharged.unix_s(), Some(TODAY_MS / 1000), "when it was last tried");
    assert_eq!(ask(&mut desk, "+2002").status, Status::NO_RESPONSE, "with a + or without");
    assert_eq!(ask(&mut desk, "2003").status, Status::DOES_NOT_EXIST, "another TP-DA is another text");
    let mt = come(&mut desk, 2);
    let arrived_s = desk.wall.ms / 1000;
    forms::reply(&mut desk, &mt[0], "200 OK", &[]);
    // A second enquiry in the same octets is a copy until then.
    desk.wait_s(600);
    let done = ask(&mut desk, "2002");
    assert_eq!((done.status, done.discharged.unix_s()), (Status::RECEIVED, Some(arrived_s)));
    desk.wall.ms += settings().messages.history_life.as_millis() as u64;
    desk.wait_s(3);
    assert_eq!(ask(&mut desk, "2002").status, Status::DOES_NOT_EXIST, "after its history it is forgotten");
}

#[test]
fn a_text_is_taken_back_by_its_sender_alone_and_only_while_nobody_has_it() {
    let mut desk = waiting();
    come(&mut desk, 3);
    write(&mut desk, "a", &asking("2002", "take this back", 7));
    write(&mut desk, "b", &submit("2002", "and this not", 8));
    // Somebody else's reference is somebody else's text.
    let body = to_hex(&command(CommandKind::DELETE, "2002", 7, false));
    assert_eq!(tell(&mut desk, DALE, message(3, DALE, "eve", "smsc", forms::RPDU, &body).as_bytes()).0, 404);
    assert_eq!(queue(&mut desk).len(), 2);
    let (code, requests) = order(&mut desk, CommandKind::DELETE, "2002", 7, true);
    assert_eq!((code, happened(&desk, "text_deleted")), (202, 1));
    assert_eq!(queue(&mut desk).iter().filter(|text| text.to == "2002").count(), 1);
    // One report: the command's, which asked last.
    let (first, rest) = report(&mut desk, &requests);
    assert_eq!((first.status, first.of_command, first.reference), (Status::DELETED_BY_ORIGINATOR, true, 0xA7));
    assert!(rest.is_empty() && queue(&mut desk).len() == 1);
    // Once more: there is nothing to take back.
    desk.wait_s(1);
    assert_eq!(order(&mut desk, CommandKind::DELETE, "2002", 7, false).0, 404);
    desk.restart();
    let mt = come(&mut desk, 2);
    assert_eq!(mt[0].words(), "and this not");
    // It is in the phone's hands now.
    assert_eq!(order(&mut desk, CommandKind::DELETE, "2002", 8, true).0, 404);
    assert!(forms::reply(&mut desk, &mt[0], "200 OK", &[]).is_empty());
    assert_eq!((happened(&desk, "text_deleted"), happened(&desk, "text_delivered")), (1, 2));
    assert!(queue(&mut desk).is_empty() && desk.is_at_rest());
}

#[test]
fn a_command_that_asks_for_no_report_leaves_the_texts_own() {
    for (asked, reports) in [(true, 1), (false, 0)] {
        let mut desk = waiting();
        write(&mut desk, "a", &Submit { report_wanted: asked, ..submit("2002", "hello", 7) });
        let (code, requests) = order(&mut desk, CommandKind::DELETE, "2002", 7, false);
        assert_eq!((code, requests.len()), (202, reports));
        for came in &requests {
            let report = came.report();
            assert_eq!((report.status, report.of_command, report.reference), (Status::DELETED_BY_ORIGINATOR, false, 7));
        }
    }
}

#[test]
fn a_wish_for_a_report_is_changed_also_while_the_text_is_under_way() {
    for (kind, before) in [(CommandKind::CANCEL_REPORT, true), (CommandKind::ENABLE_REPORT, false)] {
        for under_way in [false, true] {
            let mut desk = waiting();
            write(&mut desk, "a", &Submit { report_wanted: before, ..submit("2002", "hello", 7) });
            let mut mt = if under_way { come(&mut desk, 2) } else { Vec::new() };
            let (code, requests) = order(&mut desk, kind, "2002", 7, false);
            assert!((code, requests.len()) == (202, 0), "{kind:?}");
            if !under_way {
                mt = come(&mut desk, 2);
            }
            let requests = forms::reply(&mut desk, &mt[0], "200 OK", &[]);
            assert_eq!(requests.iter().filter(|came| came.is_report()).count(), usize::from(!before), "{kind:?}");
        }
    }
}

#[test]
fn a_command_repeated_is_done_once_and_answered_again() {
    let mut desk = waiting();
    write(&mut desk, "a", &submit("2002", "hello", 7));
    desk.wait_s(1);
    let body = to_hex(&command(CommandKind::ENQUIRE, "2002", 7, true));
    let first = message(1, HILL, "first", "smsc", forms::RPDU, &body);
    let (code, requests) = tell(&mut desk, HILL, first.as_bytes());
    assert_eq!((code, requests.len()), (202, 1));
    // The phone's own repeat under a new Call-ID, also after a restart.
    desk.restart();
    assert_eq!(desk.cell(1, "bts", 60, 3600), 200);
    came(&mut desk);
    let again = message(1, HILL, "again", "smsc", forms::RPDU, &body);
    assert_eq!(tell(&mut desk, HILL, again.as_bytes()).0, 202);
    assert_eq!(queue(&mut desk).iter().filter(|text| text.to == "2001").count(), 1, "one report");
}

#[test]
fn a_command_that_cannot_be_is_refused_and_changes_nothing() {
    let mut desk = waiting();
    write(&mut desk, "a", &submit("2002", "hello", 7));
    assert_eq!(order(&mut desk, CommandKind(9), "2002", 7, true).0, 400, "no such command");
    assert_eq!(order(&mut desk, CommandKind::DELETE, "2002", 99, false).0, 404, "no such text");
    desk.wait_s(1);
    let (code, requests) = order(&mut desk, CommandKind::DELETE, "2002", 99, true);
    assert_eq!((code, report(&mut desk, &requests).0.status), (202, Status::DOES_NOT_EXIST));
    desk.stores.stores.get_mut(&StoreId::Messages).unwrap().set_full(true);
    assert_eq!(order(&mut desk, CommandKind::DELETE, "2002", 7, false).0, 503);
    assert_eq!((happened(&desk, "text_deleted"), queue(&mut desk).len()), (0, 1));
    desk.stores.stores.get_mut(&StoreId::Messages).unwrap().set_full(false);
    desk.wait_s(1);
    // No room for the report that it asks for.
    let mut few = settings();
    few.messages.count_max = 1;
    few.messages.count_per_phone_max = 1;
    desk.handle(Input::Settings(Arc::new(few)));
    assert_eq!(order(&mut desk, CommandKind::ENQUIRE, "2002", 7, true).0, 503);
    assert_eq!(order(&mut desk, CommandKind::DELETE, "2002", 7, false).0, 202, "which leaves room");
    assert!(queue(&mut desk).is_empty() && desk.is_at_rest());
}

// --- Replacing ---

#[test]
fn a_later_text_of_the_same_kind_takes_the_place_of_an_older_one() {
    let mut desk = waiting();
    let of = |protocol, words: &str, reference| Submit { protocol, ..asking("2002", words, reference) };
    assert_eq!(write(&mut desk, "a", &of(0x41, "rain", 1)).0, 202);
    write(&mut desk, "b", &of(0x42, "goal", 2));
    write(&mut desk, "c", &of(0x00, "hello", 3));
    write(&mut desk, "d", &of(0x00, "hello again", 4));
    assert_eq!(queue(&mut desk).len(), 4);
    let (code, requests) = write(&mut desk, "e", &of(0x41, "snow", 5));
    assert_eq!((code, happened(&desk, "text_replaced")), (202, 1));
    let (replaced, rest) = report(&mut desk, &requests);
    assert_eq!((replaced.reference, replaced.status, rest.len()), (1, Status::REPLACED, 0));
    assert_eq!(queue(&mut desk).len(), 4);
    // A copy of it replaces nothing.
    write(&mut desk, "f", &Submit { reject_duplicates: true, ..of(0x41, "snow", 5) });
    assert_eq!(happened(&desk, "text_replaced"), 1);
    desk.restart();
    let mut words = Vec::new();
    let mut requests = come(&mut desk, 2);
    while let Some(next) = requests.pop() {
        if !next.is_report() {
            words.push((next.words(), next.deliver().protocol));
            if next.words() == "goal" {
                // What the phone is getting at this moment is not taken out of its hands.
                let (code, _) = write(&mut desk, "g", &of(0x42, "two goals", 6));
                assert_eq!(code, 202);
            }
        }
        requests.extend(forms::reply(&mut desk, &next, "200 OK", &[]));
    }
    let expected = [("goal", 0x42), ("hello", 0), ("hello again", 0), ("snow", 0x41), ("two goals", 0x42)];
    assert_eq!(words, expected.map(|(words, protocol)| (words.to_owned(), protocol)));
    assert_eq!(happened(&desk, "text_replaced"), 1);
    assert!(queue(&mut desk).is_empty() && desk.is_at_rest());
}

#[test]
fn what_replaces_needs_no_room_of_its_own_and_changes_nothing_where_the_store_refuses() {
    let mut few = settings();
    few.messages.count_per_phone_max = 1;
    let mut desk = waiting_with(few);
    let of = |words: &str, reference| Submit { protocol: 0x43, ..submit("2002", words, reference) };
    assert_eq!(write(&mut desk, "a", &of("one", 1)).0, 202);
    desk.stores.stores.get_mut(&StoreId::Messages).unwrap().set_full(true);
    assert_eq!(write(&mut desk, "b", &of("two", 2)).0, 503);
    assert_eq!((happened(&desk, "text_replaced"), queue(&mut desk).len()), (0, 1));
    desk.stores.stores.get_mut(&StoreId::Messages).unwrap().set_full(false);
    assert_eq!(write(&mut desk, "c", &of("three", 3)).0, 202);
    assert_eq!((happened(&desk, "text_replaced"), queue(&mut desk).len()), (1, 1));
    // Nobody pages the absent phone for that.
    assert!(came(&mut desk).is_empty());
    assert_eq!(queue(&mut desk)[0].state, "absent");
    let mt = come(&mut desk, 2);
    assert_eq!((mt.len(), mt[0].words().as_str()), (1, "three"));
    forms::reply(&mut desk, &mt[0], "200 OK", &[]);
    assert!(queue(&mut desk).is_empty());
}

#[test]
fn the_parts_of_one_long_text_do_not_replace_each_other() {
    let mut desk = waiting();
    let long = |reference: u8| {
        let cut = Cut::new(encamp::gsm::header::Reference::Short(reference));
        split(&"a long text of a kind that replaces ".repeat(8), &cut).unwrap()
    };
    for (n, reference) in [5, 6].into_iter().enumerate() {
        for (part, data) in long(reference).into_iter().enumerate() {
            let submit = Submit { protocol: 0x44, data, ..submit("2002", "", (10 * n + part) as u8) };
            assert_eq!(write(&mut desk, &format!("{n}.{part}"), &submit).0, 202);
        }
        assert_eq!((happened(&desk, "text_replaced"), queue(&mut desk).len()), (2 * n, 2));
    }
}
