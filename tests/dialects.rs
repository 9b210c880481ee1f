//! Every way in which texts come and go: OpenBTS, YateBTS, IMS phones, SIP phones, trunks (wire.md 4 and 11; TS 24.341).

mod desk;

use base64::Engine as _;
use desk::forms::{
    Came, RPDU, SOFT, ack, ask, came, command, desk_of, error, ims, octets, openbts, plain, reply, request, tell, yate,
};
use desk::texts::{DALE, HILL, MOOR, sms, submit};
use desk::{Desk, TODAY_MS, imsi, settings};
use encamp::config::{Settings, Trunk, TrunkMode};
use encamp::gsm::form::TextForm;
use encamp::gsm::header::Reference;
use encamp::gsm::report::{CommandKind, Failure};
use encamp::gsm::rpdu::{Rpdu, to_hex};
use encamp::gsm::segment::{Cut, split};
use encamp::gsm::text::{Coding, UserData};
use encamp::gsm::tpdu::Submit;
use encamp::seam::{Command, CommandAnswer, QueueAsk, QueueFilter, TextAnswer};
use encamp::store::StoreId;

const TRUNKS: [&str; 2] = ["192.0.2.20:5060", "192.0.2.21:5060"];
/// What a YateBTS says that reads answers in a body.
const YATE_SAYS: &str = "Supported: sms-response\r\nContent-Type: application/vnd.3gpp.sms\r\n";
const RPDU_IN: &str = "Content-Type: application/vnd.3gpp.sms\r\n";
const PLAIN: &str = "Content-Type: text/plain\r\n";

fn queue(desk: &mut Desk) -> Vec<TextAnswer> {
    match desk.command(Command::Queue(QueueAsk::List(QueueFilter::default()))) {
        CommandAnswer::Queue(texts) => texts,
        other => panic!("{other:?}"),
    }
}

fn happened(desk: &Desk, name: &str) -> usize {
    desk.events.iter().filter(|event| event.name() == name).count()
}

fn today() -> Desk {
    desk_of(settings())
}

/// Phone 1 at an OpenBTS writes `words` to phone 2; the MESSAGE that leaves.
fn writes(desk: &mut Desk, id: &str, words: &str) -> Came {
    let reference = id.bytes().fold(0u8, |sum, byte| sum.wrapping_mul(31).wrapping_add(byte));
    let (code, mut requests) = tell(desk, HILL, sms(1, HILL, id, &submit("2002", words, reference)).as_bytes());
    assert_eq!((code, requests.len()), (202, 1), "{requests:?}");
    requests.remove(0)
}

/// Phone 1 at an OpenBTS, phone 2 as it is bound by this.
fn valley(bind: impl Fn(&mut Desk)) -> Desk {
    valley_with(settings(), bind)
}

fn valley_with(settings: Settings, bind: impl Fn(&mut Desk)) -> Desk {
    let mut desk = desk_of(settings);
    openbts(&mut desk, HILL, 1);
    bind(&mut desk);
    came(&mut desk);
    desk
}

// --- In ---

#[test]
fn an_rpdu_is_read_however_it_is_written() {
    let base64 = |octets: &[u8]| base64::engine::general_purpose::STANDARD.encode(octets).into_bytes();
    let hex = |octets: &[u8]| to_hex(octets).into_bytes();
    let upper = |octets: &[u8]| to_hex(octets).to_uppercase().into_bytes();
    let folded = |octets: &[u8]| [&base64(octets)[..8], b"\r\n", &base64(octets)[8..]].concat();
    type Write<'a> = &'a dyn Fn(&[u8]) -> Vec<u8>;
    let forms: [(&str, Write<'_>); 7] = [
        ("", &hex),
        ("", &upper),
        ("", &|octets| octets.to_vec()),
        ("Content-Transfer-Encoding: binary\r\n", &|octets| octets.to_vec()),
        ("Content-Transfer-Encoding: hex\r\n", &hex),
        ("Content-Transfer-Encoding: base64\r\n", &base64),
        ("Content-Transfer-Encoding: base64\r\n", &folded),
    ];
    let mut desk = valley(|desk| openbts(desk, DALE, 2));
    for (n, (coding, write)) in forms.iter().enumerate() {
        let body = write(&octets(&submit("2002", &format!("form {n}"), n as u8)));
        let user = format!("IMSI{}", imsi(1));
        let bytes = request(HILL, &user, "smsc", &format!("f{n}"), &format!("{RPDU_IN}{coding}"), &body);
        let (code, requests) = tell(&mut desk, HILL, &bytes);
        assert_eq!((code, requests.len()), (202, 1), "{n}");
        assert_eq!(requests[0].words(), format!("form {n}"));
        reply(&mut desk, &requests[0], "200 OK", &[]);
    }
    let unknown = request(
        HILL,
        &format!("IMSI{}", imsi(1)),
        "smsc",
        "x",
        &format!("{RPDU_IN}Content-Transfer-Encoding: uuencode\r\n"),
        b"begin",
    );
    assert_eq!(tell(&mut desk, HILL, &unknown).0, 400);
}

#[test]
fn a_yatebts_gets_the_rp_ack_of_its_phone_in_the_200_once_the_disk_has_the_text() {
    let mut desk = today();
    yate(&mut desk, HILL, 1);
    came(&mut desk);
    desk.slow = true;
    let body = octets(&submit("2002", "hello", 0x42));
    desk.send_bytes(HILL, desk::texts::FRONT, &request(HILL, "2001", "smsc", "y", YATE_SAYS, &body));
    assert!(came(&mut desk).is_empty());
    desk.slow = false;
    desk.handle(encamp::seam::Input::Timeout);
    let answer = came(&mut desk).remove(0);
    assert_eq!((answer.code(), answer.verdict()), (200, (0x42, 0, None)));
    // One that is known for a YateBTS is answered so also where it does not say what it reads; a copy as its first.
    let (answer, _) = ask(&mut desk, HILL, &request(HILL, "2001", "smsc", "z", RPDU_IN, &body));
    assert_eq!((answer.code(), answer.verdict()), (200, (0x42, 0, None)));
    assert_eq!(queue(&mut desk).len(), 1);
    // In its text mode the number stands in the Request-URI, and there is no RPDU to answer with.
    let (answer, _) = ask(&mut desk, HILL, &request(HILL, "2001", "2003", "t", PLAIN, b"in words"));
    assert_eq!((answer.code(), answer.body.len()), (202, 0));
}

#[test]
fn each_no_is_an_rp_error_with_its_cause_where_the_phone_can_show_it() {
    let mut all = settings();
    let mut subscribers: Vec<_> = all.subscribers.iter().cloned().collect();
    subscribers[3].barred = true;
    all.subscribers = std::sync::Arc::new(encamp::config::Subscribers::new(subscribers));
    all.messages.count_per_phone_max = 1;
    let mut desk = desk_of(all);
    yate(&mut desk, HILL, 1);
    let text = |to: &str, n: u8| octets(&submit(to, "hello", n));
    let says = |desk: &mut Desk, id: &str, user: &str, from: &str, body: &[u8]| {
        let (answer, _) = ask(desk, from, &request(from, user, "smsc", id, YATE_SAYS, body));
        assert_eq!(answer.code(), 200, "{id}: {}", answer.head);
        let (reference, cause, report) = answer.verdict();
        (reference, cause, report.and_then(|report| report.failure))
    };
    let one = "2001";
    assert_eq!(says(&mut desk, "a", one, HILL, &text("2999", 1)), (1, 1, Some(Failure::INVALID_ADDRESS)));
    assert_eq!(says(&mut desk, "b", one, HILL, &text("2003", 2)), (2, 21, Some(Failure::DESTINATION_BARRED)));
    assert_eq!(says(&mut desk, "c", one, HILL, &text("2002", 3)), (3, 0, None));
    assert_eq!(says(&mut desk, "d", one, HILL, &text("2002", 4)), (4, 42, Some(Failure::CENTRE_BUSY)));
    assert_eq!(says(&mut desk, "e", "2003", HILL, &text("2001", 5)), (5, 8, None), "a sender who is barred");
    assert_eq!(says(&mut desk, "f", "9999", HILL, &text("2001", 6)), (6, 28, None), "a sender whom nobody knows");
    assert_eq!(says(&mut desk, "g", one, MOOR, &text("2002", 7)), (7, 28, None), "a sender who is elsewhere");
    let order = |kind, message| command(kind, "2002", message, false);
    let (_, cause, failure) = says(&mut desk, "h", one, HILL, &order(CommandKind::DELETE, 99));
    assert_eq!((cause, failure), (29, Some(Failure::COMMAND_IMPOSSIBLE)));
    let (_, cause, failure) = says(&mut desk, "i", one, HILL, &order(CommandKind(7), 3));
    assert_eq!((cause, failure), (69, Some(Failure::COMMAND_NOT_SUPPORTED)));
    desk.stores.stores.get_mut(&StoreId::Messages).unwrap().set_full(true);
    assert_eq!(says(&mut desk, "j", one, HILL, &text("2001", 8)), (8, 41, Some(Failure::CENTRE_FAILURE)));
    desk.stores.stores.get_mut(&StoreId::Messages).unwrap().set_full(false);
    // Nobody is told in words what his phone shows him.
    assert!(queue(&mut desk).iter().all(|text| text.to == "2002"));
    // What is no RPDU has no reference to answer to.
    let (answer, _) = ask(&mut desk, HILL, &request(HILL, one, "smsc", "k", YATE_SAYS, b"\x07\x01"));
    assert_eq!(answer.code(), 400);
}

#[test]
fn an_ims_phone_is_told_by_a_message_of_its_own() {
    let mut desk = today();
    ims(&mut desk, 1);
    came(&mut desk);
    let user = format!("IMSI{}", imsi(1));
    let body = octets(&submit("2002", "hello", 0x42));
    let (answer, requests) = ask(&mut desk, SOFT, &request(SOFT, &user, "smsc", "ims-1", RPDU_IN, &body));
    assert_eq!((answer.code(), answer.body.len(), requests.len()), (202, 0, 1));
    let note = &requests[0];
    assert_eq!((note.to.to_string().as_str(), note.header("In-Reply-To")), (SOFT, "ims-1"));
    assert_eq!(note.uri(), format!("sip:IMSI{}@{SOFT}", imsi(1)));
    let (reference, cause, report) = note.verdict();
    assert_eq!((reference, cause), (0x42, 0));
    assert_eq!(report.unwrap().timestamp.unix_s(), Some(TODAY_MS / 1000), "TP-SCTS, which a report will repeat");
    // It is said again until it is heard, and not for ever.
    desk.wait_ms(600);
    let copy = came(&mut desk).remove(0);
    assert_eq!((&copy.head, &copy.body), (&note.head, &note.body));
    assert!(reply(&mut desk, note, "200 OK", &[]).is_empty());
    desk.wait_s(60);
    assert!(came(&mut desk).iter().all(|came| !came.has("In-Reply-To")));
    let (_, requests) =
        ask(&mut desk, SOFT, &request(SOFT, &user, "smsc", "ims-2", RPDU_IN, &octets(&submit("2999", "?", 7))));
    let (reference, cause, report) = requests[0].verdict();
    assert_eq!((reference, cause, report.unwrap().failure), (7, 1, Some(Failure::INVALID_ADDRESS)));
    desk.wait_s(60);
    assert_eq!(came(&mut desk).iter().filter(|came| came.has("In-Reply-To")).count(), 4, "five copies in all");
    let unheard = desk.events.iter().filter(|event| event.name() == "text_answer_unheard").count();
    assert_eq!(unheard, 1, "the one that was answered is not counted");
}

#[test]
fn what_an_ims_phone_is_told_is_what_its_report_says() {
    let mut desk = today();
    ims(&mut desk, 1);
    openbts(&mut desk, HILL, 2);
    came(&mut desk);
    let user = format!("IMSI{}", imsi(1));
    // The second text of one second has a timestamp of its own.
    for (n, id) in ["a", "b"].into_iter().enumerate() {
        let body = octets(&Submit { report_wanted: true, ..submit("2002", id, n as u8) });
        let (_, requests) = ask(&mut desk, SOFT, &request(SOFT, &user, "smsc", id, RPDU_IN, &body));
        let note = requests.iter().find(|came| came.has("In-Reply-To")).unwrap();
        let told = note.verdict().2.unwrap().timestamp;
        assert_eq!(told.unix_s(), Some(TODAY_MS / 1000 + n as u64));
        // Told again, it is told the same.
        let (_, copies) = ask(&mut desk, SOFT, &request(SOFT, &user, "smsc", &format!("{id}2"), RPDU_IN, &body));
        let copy = copies.iter().find(|came| came.has("In-Reply-To")).unwrap();
        assert_eq!(copy.verdict().2.unwrap().timestamp, told);
        let mt = requests.iter().find(|came| came.uri().contains(imsi(2).as_str())).unwrap();
        assert_eq!(mt.deliver().timestamp, told);
        let requests = reply(&mut desk, mt, "200 OK", &[]);
        let report = requests.iter().find(|came| came.is_report()).unwrap();
        assert_eq!(report.report().timestamp, told);
        reply(&mut desk, report, "200 OK", &[]);
        assert!(
            tell(&mut desk, SOFT, &request(SOFT, &user, "smsc", &format!("ack{id}"), &answers(report), &ack()))
                .1
                .is_empty()
        );
    }
    assert!(queue(&mut desk).is_empty());
}

#[test]
fn a_copy_after_a_crash_is_answered_in_the_dialect_of_its_phone() {
    let mut desk = today();
    ims(&mut desk, 1);
    yate(&mut desk, HILL, 3);
    came(&mut desk);
    let user = format!("IMSI{}", imsi(1));
    let of_ims = request(SOFT, &user, "smsc", "i", RPDU_IN, &octets(&submit("2002", "hello", 0x42)));
    let of_yate = request(HILL, "2003", "smsc", "y", RPDU_IN, &octets(&submit("2002", "hello", 0x43)));
    for restarted in [false, true] {
        let (answer, requests) = ask(&mut desk, SOFT, &of_ims);
        assert_eq!((answer.code(), requests.len()), (202, 1), "{restarted}");
        assert_eq!((requests[0].header("In-Reply-To"), requests[0].verdict().0), ("i", 0x42));
        reply(&mut desk, &requests[0], "200 OK", &[]);
        let (answer, _) = ask(&mut desk, HILL, &of_yate);
        assert_eq!((answer.code(), answer.verdict()), (200, (0x43, 0, None)), "{restarted}");
        desk.restart();
    }
    assert_eq!((queue(&mut desk).len(), happened(&desk, "text_duplicate")), (2, 2));
}

#[test]
fn an_ims_phone_behind_a_connection_is_told_where_it_is_bound() {
    let mut desk = today();
    ims(&mut desk, 1);
    came(&mut desk);
    let user = format!("IMSI{}", imsi(1));
    let far_end = "192.0.2.13:49152";
    let bytes = request(far_end, &user, "smsc", "tcp", RPDU_IN, &octets(&submit("2002", "hello", 0x42)));
    desk.stream(far_end, &bytes);
    let note = came(&mut desk).remove(0);
    assert_eq!((note.to.to_string().as_str(), note.header("In-Reply-To")), (SOFT, "tcp"));
}

#[test]
fn what_cannot_be_read_is_told_in_the_dialect_of_its_phone() {
    // A SUBMIT that ends in the middle, with an RP-Message-Reference that can be read.
    let cut = |reference: u8| {
        let tpdu = submit("2002", "hello", reference).encode();
        let destination = encamp::gsm::tpdu::Address::parse("0000").ok();
        Rpdu::DataFromPhone { reference, originator: None, destination, tpdu: &tpdu[..4] }.encode().unwrap()
    };
    let mut desk = today();
    openbts(&mut desk, HILL, 1);
    yate(&mut desk, DALE, 2);
    ims(&mut desk, 3);
    came(&mut desk);
    let from_openbts = request(HILL, &format!("IMSI{}", imsi(1)), "smsc", "o", RPDU_IN, to_hex(&cut(1)).as_bytes());
    let (code, told) = tell(&mut desk, HILL, &from_openbts);
    assert_eq!((code, told.len()), (400, 1));
    assert!(told[0].words().starts_with("Your text to - was not sent: "), "{}", told[0].words());
    assert_eq!(tell(&mut desk, HILL, &from_openbts).0, 400);
    reply(&mut desk, &told[0], "200 OK", &[]);
    let (answer, told) = ask(&mut desk, DALE, &request(DALE, "2002", "smsc", "y", RPDU_IN, &cut(2)));
    assert_eq!((answer.code(), answer.verdict(), told.len()), (200, (2, 111, None), 0));
    let user = format!("IMSI{}", imsi(3));
    let (answer, told) = ask(&mut desk, SOFT, &request(SOFT, &user, "smsc", "i", RPDU_IN, &cut(3)));
    assert_eq!((answer.code(), told.len(), told[0].verdict()), (202, 1, (3, 111, None)));
    // Who is elsewhere is told nothing in words.
    let elsewhere = request(MOOR, &format!("IMSI{}", imsi(1)), "smsc", "e", RPDU_IN, to_hex(&cut(1)).as_bytes());
    assert_eq!(tell(&mut desk, MOOR, &elsewhere), (403, Vec::new()));
    assert!(queue(&mut desk).is_empty());
}

#[test]
fn a_text_that_found_no_room_is_taken_when_it_is_sent_again() {
    let mut all = settings();
    all.messages.count_per_phone_max = 1;
    let mut desk = valley_with(all, |desk| openbts(desk, DALE, 2));
    let first = writes(&mut desk, "a", "in the way");
    let again = submit("2002", "hello", 9);
    let (code, told) = tell(&mut desk, HILL, sms(1, HILL, "b", &again).as_bytes());
    assert_eq!((code, told.len()), (503, 1));
    reply(&mut desk, &told[0], "200 OK", &[]);
    assert!(reply(&mut desk, &first, "200 OK", &[]).is_empty());
    let (code, requests) = tell(&mut desk, HILL, sms(1, HILL, "c", &again).as_bytes());
    assert_eq!((code, requests.len()), (202, 1));
    assert_eq!(requests[0].words(), "hello");
}

/// The headers of an IMS phone's answer to this MESSAGE.
fn answers(to: &Came) -> String {
    format!("{RPDU_IN}In-Reply-To: {}\r\n", to.header("Call-ID"))
}

// --- Out ---

#[test]
fn a_yatebts_gets_octets_under_the_number_and_says_itself_what_its_phone_said() {
    let final_yes: [(&str, Vec<u8>); 3] = [("200 OK", ack()), ("202 Accepted", Vec::new()), ("200 OK", Vec::new())];
    for (status, rpdu) in final_yes {
        let mut desk = valley(|desk| yate(desk, DALE, 2));
        let mt = writes(&mut desk, "a", "hello");
        assert_eq!((mt.uri(), mt.to.to_string().as_str()), (format!("sip:2002@{DALE}").as_str(), DALE));
        assert_eq!((mt.body[0], mt.words().as_str()), (1, "hello"), "octets, not hex");
        reply(&mut desk, &mt, status, &rpdu);
        assert!(queue(&mut desk).is_empty() && happened(&desk, "text_delivered") == 1, "{status}");
    }
    for (status, rpdu, state, cause) in [
        ("200 OK", error(22, None), "waiting", "the phone's memory is full"),
        ("480 Temporarily Unavailable", error(22, None), "waiting", "the phone's memory is full"),
        ("400 Bad Request", error(111, Some(0xD0)), "waiting", "the phone's memory is full"),
        ("500 Error", error(41, None), "waiting", "answered 500, cause 41: temporary failure"),
        ("200 OK", error(27, None), "absent", "the phone is absent"),
        ("480 Temporarily Unavailable", Vec::new(), "absent", "the phone is absent"),
        ("404 Not Found", Vec::new(), "absent", "the phone is absent"),
        ("488 Not Acceptable", Vec::new(), "waiting", "answered 488"),
    ] {
        let mut desk = valley(|desk| yate(desk, DALE, 2));
        let mt = writes(&mut desk, "a", "hello");
        assert!(reply(&mut desk, &mt, status, &rpdu).is_empty());
        let waits = queue(&mut desk);
        assert_eq!((waits[0].state, waits[0].cause.as_str()), (state, cause), "{status}");
    }
    // For ever: the sender is told in words.
    for rpdu in [error(1, None), error(50, None), error(96, None), error(111, Some(0x90))] {
        let mut desk = valley(|desk| yate(desk, DALE, 2));
        let mt = writes(&mut desk, "a", "hello");
        let told = reply(&mut desk, &mt, "200 OK", &rpdu);
        assert_eq!((happened(&desk, "text_failed"), told.len()), (1, 1));
        assert!(told[0].words().contains("to 2002 could not be delivered: "), "{}", told[0].words());
    }
}

#[test]
fn an_ims_phone_says_200_first_and_then_what_became_of_it() {
    let user = format!("IMSI{}", imsi(2));
    let says = |desk: &mut Desk, from: &str, id: &str, to: &Came, rpdu: &[u8]| {
        tell(desk, from, &request(from, &user, "smsc", id, &answers(to), rpdu))
    };
    let mut desk = valley(|desk| ims(desk, 2));
    let mt = writes(&mut desk, "a", "hello");
    assert_eq!((mt.header("Accept-Contact"), mt.body[0]), ("*;+g.3gpp.smsip;require;explicit", 1));
    assert_eq!(mt.uri(), format!("sip:IMSI{}@{SOFT}", imsi(2)));
    reply(&mut desk, &mt, "200 OK", &[]);
    assert_eq!(queue(&mut desk)[0].state, "sending", "read, and no more");
    // Not from there, and not about that.
    assert_eq!(says(&mut desk, DALE, "wrong", &mt, &ack()).0, 200);
    let stranger = format!("{RPDU_IN}In-Reply-To: m99-0@192.0.2.1\r\n");
    assert_eq!(tell(&mut desk, SOFT, &request(SOFT, &user, "smsc", "unknown", &stranger, &ack())).0, 200);
    assert_eq!(happened(&desk, "drop_response_unknown"), 2, "answered, and counted");
    assert_eq!(queue(&mut desk)[0].state, "sending");
    assert_eq!(says(&mut desk, SOFT, "right", &mt, &ack()).0, 200);
    assert!(queue(&mut desk).is_empty() && desk.is_at_rest());
    assert_eq!(says(&mut desk, SOFT, "again", &mt, &ack()).0, 200, "nothing is left of it, and it is answered");

    // Before the 200, which was lost.
    let mt = writes(&mut desk, "b", "fast");
    says(&mut desk, SOFT, "b1", &mt, &ack());
    assert!(queue(&mut desk).is_empty());

    // An RP-ERROR, and an SMMA later.
    let mt = writes(&mut desk, "c", "full");
    reply(&mut desk, &mt, "200 OK", &[]);
    says(&mut desk, SOFT, "c1", &mt, &error(22, None));
    assert_eq!(queue(&mut desk)[0].cause, "the phone's memory is full");
    desk.wait_s(5);
    let smma = Rpdu::Smma { reference: 0x33 }.encode().unwrap();
    let (code, requests) = tell(&mut desk, SOFT, &request(SOFT, &user, "smsc", "smma", RPDU_IN, &smma));
    assert_eq!((code, requests.len()), (202, 2));
    let note = requests.iter().find(|came| came.has("In-Reply-To")).unwrap();
    assert_eq!((note.header("In-Reply-To"), note.verdict()), ("smma", (0x33, 0, None)));
    reply(&mut desk, note, "200 OK", &[]);
    let mt = requests.iter().find(|came| !came.has("In-Reply-To")).unwrap();
    reply(&mut desk, mt, "200 OK", &[]);
    says(&mut desk, SOFT, "c2", mt, &ack());
    assert!(queue(&mut desk).is_empty());

    // Never: it is tried again, as what may be there already; a copy of the 200 gives it no more time.
    let mt = writes(&mut desk, "d", "silent");
    reply(&mut desk, &mt, "200 OK", &[]);
    desk.wait_s(30);
    reply(&mut desk, &mt, "200 OK", &[]);
    desk.wait_s(16);
    let waits = queue(&mut desk);
    assert_eq!((waits[0].state, waits[0].cause.as_str()), ("waiting", "it could not be sent"));
    // Late: it is believed, and nothing is sent again.
    says(&mut desk, SOFT, "d1", &mt, &ack());
    assert!(queue(&mut desk).is_empty() && desk.is_at_rest());
    desk.wait_s(600);
    assert!(came(&mut desk).is_empty());
}

#[test]
fn a_phone_with_memory_again_is_tried_at_once_in_whatever_form_it_says_so() {
    let smma = Rpdu::Smma { reference: 9 }.encode().unwrap();
    type Bind = fn(&mut Desk);
    let bound_openbts: Bind = |desk| openbts(desk, DALE, 2);
    let bound_yate: Bind = |desk| yate(desk, DALE, 2);
    let hex = to_hex(&smma).into_bytes();
    for (n, (bind, user, to, more, body, code)) in [
        (bound_openbts, format!("IMSI{}", imsi(2)), "smsc", RPDU_IN, hex, 202),
        (bound_yate, "2002".to_owned(), "smsc", YATE_SAYS, smma.clone(), 200),
        (bound_yate, "2002".to_owned(), "SMMA", "", Vec::new(), 202),
        (bound_yate, "2002".to_owned(), "SMMA", RPDU_IN, Vec::new(), 202),
    ]
    .into_iter()
    .enumerate()
    {
        let mut desk = valley(bind);
        let mt = writes(&mut desk, "a", "one more");
        reply(&mut desk, &mt, "500 Error", &error(22, None));
        desk.wait_s(10);
        assert!(came(&mut desk).is_empty());
        let says = request(DALE, &user, to, "smma", more, &body);
        // Another phone's memory is no reason.
        let other = request(HILL, &format!("IMSI{}", imsi(1)), "SMMA", "other", "", &[]);
        assert_eq!(tell(&mut desk, HILL, &other), (202, Vec::new()), "{n}");
        // Nor is that of one who is not there.
        let elsewhere = request(MOOR, &user, "SMMA", "elsewhere", "", &[]);
        let (refused, requests) = tell(&mut desk, MOOR, &elsewhere);
        assert_eq!((refused, requests.len()), (403, 0));
        let (answered, requests) = tell(&mut desk, DALE, &says);
        assert_eq!((answered, requests.len(), requests[0].words().as_str()), (code, 1, "one more"), "{n}");
        assert_eq!(happened(&desk, "phone_has_memory"), 2);
    }
}

#[test]
fn a_sip_phone_gets_words_and_a_long_text_whole() {
    let mut desk = valley(|desk| plain(desk, 2));
    let mt = writes(&mut desk, "a", "Grüße {}");
    assert_eq!((mt.words().as_str(), mt.uri()), ("Grüße {}", format!("sip:me@{SOFT}").as_str()));
    assert!(mt.header("From").contains("sip:2001@"), "{}", mt.head);
    reply(&mut desk, &mt, "200 OK", &[]);
    // Three parts, the second one first.
    let long = "Sie haben doch gewiß nichts dagegen, wenn es länger wird. ".repeat(6);
    let parts = split(&long, &Cut::new(Reference::Short(7))).unwrap();
    assert_eq!(parts.len(), 3);
    let part = |n: usize| Submit { data: parts[n].clone(), ..submit("2002", "", 60 + n as u8) };
    for n in [1, 0] {
        let (code, requests) = tell(&mut desk, HILL, sms(1, HILL, &format!("l{n}"), &part(n)).as_bytes());
        assert_eq!((code, requests.len()), (202, 0), "the whole is waited for");
    }
    let (code, requests) = tell(&mut desk, HILL, sms(1, HILL, "l2", &part(2)).as_bytes());
    assert_eq!((code, requests.len(), requests[0].words().as_str()), (202, 1, long.as_str()));
    assert_eq!(queue(&mut desk).len(), 3);
    assert!(reply(&mut desk, &requests[0], "200 OK", &[]).is_empty());
    assert!(queue(&mut desk).is_empty() && desk.is_at_rest());
    assert_eq!(happened(&desk, "text_delivered"), 4);
}

#[test]
fn octets_are_no_words_and_the_sender_is_told() {
    let mut desk = valley(|desk| plain(desk, 2));
    let data = UserData { coding: Coding(0x04), has_header: false, length: 3, bytes: vec![1, 2, 3] };
    let submit = Submit { data, report_wanted: true, ..submit("2002", "", 7) };
    let (code, requests) = tell(&mut desk, HILL, sms(1, HILL, "a", &submit).as_bytes());
    assert_eq!((code, requests.len()), (202, 1));
    assert!(requests[0].is_report());
    assert_eq!(requests[0].report().status, encamp::gsm::report::Status::INCOMPATIBLE_DESTINATION);
    assert_eq!(happened(&desk, "text_failed"), 1);
    assert!(reply(&mut desk, &requests[0], "200 OK", &[]).is_empty());
    assert!(queue(&mut desk).is_empty() && desk.is_at_rest());
}

#[test]
fn a_sip_phone_writes_words_of_any_length() {
    let mut desk = valley(|desk| plain(desk, 2));
    let long = "word ".repeat(70);
    let bytes = request(SOFT, &format!("IMSI{}", imsi(2)), "2001", "w", PLAIN, long.as_bytes());
    let (code, mut requests) = tell(&mut desk, SOFT, &bytes);
    assert_eq!(code, 202);
    let mut parts = Vec::new();
    while let Some(mt) = requests.pop() {
        parts.push(mt.deliver());
        requests = reply(&mut desk, &mt, "200 OK", &[]);
    }
    assert_eq!(parts.iter().map(|part| part.more).collect::<Vec<_>>(), [true, true, false], "TP-MMS");
    let data: Vec<_> = parts.iter().map(|part| &part.data).collect();
    assert_eq!(encamp::gsm::segment::whole_text(&data).unwrap(), long);
}

#[test]
fn a_configured_form_goes_before_what_was_learned() {
    for form in TextForm::ALL {
        let mut all = settings();
        all.base_stations[1].texts = Some(form);
        let mut desk = valley_with(all, |desk| yate(desk, DALE, 2));
        let mt = writes(&mut desk, "a", "hello");
        let expected = match form {
            TextForm::OpenBts => (format!("sip:IMSI{}@{DALE}", imsi(2)), RPDU, b'0'),
            TextForm::Yate => (format!("sip:2002@{DALE}"), RPDU, 1),
            TextForm::Ims => (format!("sip:IMSI{}@{DALE}", imsi(2)), RPDU, 1),
            TextForm::Plain => (format!("sip:IMSI{}@{DALE}", imsi(2)), "text/plain;charset=UTF-8", b'h'),
        };
        assert_eq!((mt.uri(), mt.header("Content-Type"), mt.body[0]), (expected.0.as_str(), expected.1, expected.2));
    }
}

// --- Trunks ---

fn with_trunks() -> Settings {
    let mut all = settings();
    for (name, address) in ["pbx", "gateway"].into_iter().zip(TRUNKS) {
        all.trunks.push(Trunk {
            name: name.into(),
            address: address.parse().unwrap(),
            mode: TrunkMode::Recurse,
            texts: true,
            prefixes: vec!["+1".into()],
            username: None,
            password: None,
        });
    }
    all
}

#[test]
fn a_text_from_a_trunk_goes_to_a_phone_and_nowhere_else() {
    let mut all = with_trunks();
    all.trunks[1].texts = false;
    let mut desk = valley_with(all, |_| ());
    let from_trunk = |id: &str, user: &str, to: &str, words: &str| {
        request(TRUNKS[0], user, to, id, "Content-Type: text/plain;charset=UTF-8\r\n", words.as_bytes())
    };
    let bytes = from_trunk("a", "+15550001", "2001", "from far");
    let (code, requests) = tell(&mut desk, TRUNKS[0], &bytes);
    assert_eq!((code, requests.len()), (202, 1));
    assert_eq!(
        (requests[0].words().as_str(), requests[0].deliver().originator.number().as_str()),
        ("from far", "+15550001")
    );
    assert_eq!(tell(&mut desk, TRUNKS[0], &bytes), (202, Vec::new()), "its copy");
    reply(&mut desk, &requests[0], "200 OK", &[]);
    assert_eq!(tell(&mut desk, TRUNKS[0], &from_trunk("b", "+15550001", "2999", "?")).0, 404);
    assert_eq!(tell(&mut desk, TRUNKS[0], &from_trunk("c", "+15550001", "+15550002", "?")).0, 404, "not to a trunk");
    assert_eq!(tell(&mut desk, TRUNKS[0], &from_trunk("d", "", "2001", "?")).0, 400, "from nobody");
    // What a From may not hold as it is.
    let (code, requests) = tell(&mut desk, TRUNKS[0], &from_trunk("f", "a,b;c", "2001", "odd"));
    assert_eq!((code, requests[0].deliver().originator.number().as_str()), (202, "a,b;c"));
    assert!(requests[0].header("From").starts_with("<sip:a%2Cb%3Bc@"), "{}", requests[0].head);
    reply(&mut desk, &requests[0], "200 OK", &[]);
    let other = request(TRUNKS[1], "+15550001", "2001", "e", PLAIN, b"?");
    assert_eq!(tell(&mut desk, TRUNKS[1], &other).0, 403, "this one takes and gives none");
    assert!(queue(&mut desk).is_empty() && came(&mut desk).is_empty());
}

#[test]
fn a_trunk_that_fails_leaves_its_turn_to_the_next_and_the_last_one_to_a_pause() {
    let mut desk = valley_with(with_trunks(), |_| ());
    let (code, requests) = tell(&mut desk, HILL, sms(1, HILL, "a", &submit("+15550001", "out", 1)).as_bytes());
    assert_eq!((code, requests[0].uri()), (202, format!("sip:+15550001@{}", TRUNKS[0]).as_str()));
    assert!(requests[0].header("From").contains("sip:2001@"));
    reply(&mut desk, &requests[0], "503 Service Unavailable", &[]);
    desk.wait_ms(10);
    let second = came(&mut desk).remove(0);
    assert_eq!(second.to.to_string(), TRUNKS[1], "at once");
    // Silence of a trunk is no absent phone.
    desk.wait_s(31);
    came(&mut desk);
    assert_eq!(queue(&mut desk)[0].state, "waiting");
    desk.wait_s(21);
    assert!(came(&mut desk).is_empty(), "the ladder begins at 30 s");
    desk.wait_s(18);
    let third = came(&mut desk);
    assert_eq!(third[0].to.to_string(), TRUNKS[0], "from the beginning");
    reply(&mut desk, &third[0], "200 OK", &[]);
    assert!(queue(&mut desk).is_empty() && desk.is_at_rest());
}

#[test]
fn what_one_trunk_does_not_know_the_next_one_is_asked_for_and_the_last_one_is_believed() {
    for status in ["404 Not Found", "403 Forbidden", "405 Method Not Allowed"] {
        let mut desk = valley_with(with_trunks(), |_| ());
        let (_, first) = tell(&mut desk, HILL, sms(1, HILL, "a", &submit("+15550001", "out", 1)).as_bytes());
        let second = reply(&mut desk, &first[0], status, &[]);
        desk.wait_ms(10);
        let second = second.into_iter().chain(came(&mut desk)).next().unwrap();
        assert_eq!((second.to.to_string().as_str(), second.words().as_str()), (TRUNKS[1], "out"), "{status}");
        let told = reply(&mut desk, &second, status, &[]);
        assert_eq!((told.len(), happened(&desk, "text_failed")), (1, 1), "{status}");
        assert!(told[0].words().contains("to +15550001 could not be delivered"), "{}", told[0].words());
    }
}

/// What RFC 7616 §3.4.1 has as the response, without `qop`.
fn digest_response(hash: fn(&str) -> String, uri: &str, password: &str) -> String {
    hash(&format!("{}:n1:{}", hash(&format!("box:pbx:{password}")), hash(&format!("MESSAGE:{uri}"))))
}

fn md5_hex(text: &str) -> String {
    use md5::Digest as _;
    encamp::sip::write::hex(&md5::Md5::digest(text))
}

fn sha256_hex(text: &str) -> String {
    use sha2::Digest as _;
    encamp::sip::write::hex(&sha2::Sha256::digest(text))
}

#[test]
fn a_trunk_that_asks_for_a_login_gets_that_of_its_table() {
    type Hash = fn(&str) -> String;
    let hashes: [(&str, Hash); 2] = [("MD5", md5_hex), ("SHA-256", sha256_hex)];
    for (algorithm, hash) in hashes {
        for (code, asks, answers) in [
            ("401 Unauthorized", "WWW-Authenticate", "Authorization"),
            ("407 Proxy Authentication Required", "Proxy-Authenticate", "Proxy-Authorization"),
        ] {
            let mut all = with_trunks();
            all.trunks.truncate(1);
            all.trunks[0].username = Some("box".into());
            all.trunks[0].password = Some(encamp::config::Password("secret".into()));
            let mut desk = valley_with(all, |_| ());
            let (_, first) = tell(&mut desk, HILL, sms(1, HILL, "a", &submit("+15550001", "out", 1)).as_bytes());
            let status = format!("{code}\r\n{asks}: Digest realm=\"pbx\", nonce=\"n1\", algorithm={algorithm}");
            let again = reply(&mut desk, &first[0], &status, &[]);
            assert_eq!(again.len(), 1, "{algorithm} {code}");
            let again = &again[0];
            for same in ["Call-ID", "From", "To", "Content-Type"] {
                assert_eq!(again.header(same), first[0].header(same));
            }
            assert_eq!((again.header("CSeq"), again.words().as_str()), ("2 MESSAGE", "out"));
            assert_ne!(again.header("Via"), first[0].header("Via"));
            let expected = digest_response(hash, again.uri(), "secret");
            let value = again.header(answers);
            assert!(value.contains(&format!("response=\"{expected}\"")), "{value}");
            // A copy of the challenge is none to the second one.
            assert!(reply(&mut desk, &first[0], &status, &[]).is_empty());
            // Silence, then a copy of the second one.
            desk.wait_s(13);
            assert_eq!(only_one(came(&mut desk)).header("CSeq"), "2 MESSAGE");
            assert!(reply(&mut desk, again, "202 Accepted", &[]).is_empty());
            assert!(queue(&mut desk).is_empty() && happened(&desk, "text_delivered") == 1 && desk.is_at_rest());
        }
    }
}

fn only_one(mut all: Vec<Came>) -> Came {
    assert_eq!(all.len(), 1, "{all:?}");
    all.remove(0)
}

#[test]
fn a_login_that_is_wrong_or_not_there_is_no_end() {
    for login in [Some("wrong"), None] {
        let mut all = with_trunks();
        all.trunks[0].username = login.map(|_| "box".into());
        all.trunks[0].password = login.map(|word| encamp::config::Password(word.into()));
        let mut desk = valley_with(all, |_| ());
        let (_, mut open) = tell(&mut desk, HILL, sms(1, HILL, "a", &submit("+15550001", "out", 1)).as_bytes());
        let status = "401 Unauthorized\r\nWWW-Authenticate: Digest realm=\"pbx\", nonce=\"n1\", qop=\"auth\"";
        let mut asked = 0;
        while open[0].to.to_string() == TRUNKS[0] {
            asked += 1;
            let challenged = open.remove(0);
            open = reply(&mut desk, &challenged, status, &[]);
            desk.wait_ms(10);
            open.extend(came(&mut desk));
            assert!(asked < 5 && open.len() == 1);
        }
        assert_eq!(asked, if login.is_some() { 2 } else { 1 });
        let log: String = desk.events.iter().map(ToString::to_string).collect();
        assert!(log.contains("it takes texts with a login only") && !log.contains("wrong"), "{log}");
        reply(&mut desk, &open[0], "200 OK", &[]);
        assert!(queue(&mut desk).is_empty() && desk.is_at_rest());
    }
}

#[test]
fn a_single_shot_that_was_never_fired_is_not_over() {
    let mut desk = valley_with(with_trunks(), |_| ());
    let validity = Some(encamp::gsm::tpdu::Validity::Enhanced([0b0100_0000, 0, 0, 0, 0, 0, 0]));
    desk.slow = true;
    let text = sms(1, HILL, "a", &Submit { validity, ..submit("+15550001", "out", 1) });
    desk.send_bytes(HILL, desk::texts::FRONT, text.as_bytes());
    desk.set(|settings| settings.trunks.iter_mut().for_each(|trunk| trunk.texts = false));
    desk.slow = false;
    desk.wait_s(1);
    assert!(came(&mut desk).iter().all(|came| came.code() == 202));
    assert_eq!((happened(&desk, "text_expired"), queue(&mut desk).len()), (0, 1));
    desk.set(|settings| settings.trunks.iter_mut().for_each(|trunk| trunk.texts = true));
    let mut shot = Vec::new();
    while shot.is_empty() {
        desk.wait_s(1);
        shot = came(&mut desk);
    }
    let shot = shot.remove(0);
    assert_eq!(shot.words(), "out");
    reply(&mut desk, &shot, "503 Service Unavailable", &[]);
    assert_eq!(happened(&desk, "text_expired"), 1, "once");
}

#[test]
fn nobodys_number_is_refused_where_no_trunk_takes_texts() {
    let mut all = with_trunks();
    all.trunks.iter_mut().for_each(|trunk| trunk.texts = false);
    let mut desk = valley_with(all, |_| ());
    let (code, told) = tell(&mut desk, HILL, sms(1, HILL, "a", &submit("+15550001", "out", 1)).as_bytes());
    assert_eq!((code, told.len()), (404, 1));
    assert!(told[0].words().starts_with("+15550001 is nobody's number"));
}
