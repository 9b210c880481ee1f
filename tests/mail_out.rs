//! Texts that become mail: what a phone wrote leaves as a mail, once, whatever happens on the way.

mod desk;

use std::collections::BTreeSet;
use std::time::Duration;

use desk::Desk;
use desk::mail::*;
use desk::texts::*;
use encamp::config::mailing::{MailRoute, Relay, RelayTls};
use encamp::config::{Subscriber, SubscriberMail, Subscribers, Trunk, TrunkMode};
use encamp::gsm::header::Reference;
use encamp::gsm::report::{Status, StatusReport};
use encamp::gsm::rpdu::{Rpdu, from_hex};
use encamp::gsm::segment::{Cut, split};
use encamp::gsm::text::Coding;
use encamp::gsm::tpdu::{Submit, UserData, Validity};
use encamp::ident::Msisdn;
use encamp::mail::{Body, MailFailure, MailOut};
use encamp::route::dialplan::{TextWay, text_way};
use encamp::seam::{Command, CommandAnswer, QueueAsk, QueueFilter, QueuePick, TextOutcome, Who};
use encamp::store::StoreId;
use encamp::store::memory::{MemoryStore, MemoryStores};
use encamp::time::WallTime;

/// The mails that were to leave since they were taken last.
fn leaving(desk: &mut Desk) -> Vec<(u64, MailOut)> {
    std::mem::take(&mut desk.mails)
}

fn text(mail: &MailOut) -> (&str, &str, &str) {
    let Body::Text(words) = &mail.body else { panic!("{mail:?}") };
    (mail.to.as_str(), &mail.subject, words)
}

#[test]
fn an_address_and_words_leave_as_a_mail() {
    let mut desk = mail_desk(|_| {});
    assert_eq!(code(&write(&mut desk, 1, "a", CENTRE, "carol@example.org Hello")), 202);
    let (id, mail) = only(leaving(&mut desk));
    assert_eq!(text(&mail), ("carol@example.org", "Hello", "Hello"));
    assert_eq!(mail.from, Some(of_phone(1)));
    assert_eq!((&mail.header_from, mail.header_from_name.as_str()), (&of_phone(1), "somebody"));
    assert_eq!((&mail.in_reply_to, mail.references.len()), (&None, 0));
    assert!(mail.notify.failure && !mail.notify.success);
    let (number, rest) = mail.message_id.split_once('.').unwrap();
    assert!(number.parse::<u64>().is_ok() && rest.ends_with("@sms.gsm.test"), "{}", mail.message_id);
    mail_taken(&mut desk, id, false);
    assert!(desk.is_at_rest() && inbox(&mut desk).is_empty(), "nobody is told of what went well");
    let ends: Vec<(&str, TextOutcome)> = desk.text_records.iter().map(|record| (record.kind, record.outcome)).collect();
    assert_eq!(ends, [("text", TextOutcome::Answered), ("mail", TextOutcome::Delivered)]);
    assert_eq!((desk.text_records[1].to.as_str(), desk.text_records[1].from.as_str()), ("carol@example.org", "2001"));
}

fn fail(desk: &mut Desk, id: u64, code: u16, why: &str) {
    let why = why.to_owned();
    mail_failed(
        desk,
        id,
        match code {
            0 => MailFailure::Unreachable(why),
            400..500 => MailFailure::Temporary { code, why },
            _ => MailFailure::Permanent { code, why },
        },
    );
}

/// Time passes, a minute at a time; what was sent to phones.
fn wait_min(desk: &mut Desk, minutes: u64) -> Vec<(u64, String, String)> {
    let mut got = Vec::new();
    for _ in 0..minutes {
        desk.wait_ms(60_000);
        got.extend(inbox(desk));
    }
    got
}

/// What a phone is told that writes this, which leaves as no mail.
fn told(desk: &mut Desk, call_id: &str, to: &str, words: &str) -> String {
    assert_eq!(code(&write(desk, 1, call_id, to, words)), 202);
    assert_eq!(leaving(desk), [], "{words}");
    let (phone, from, words) = only(inbox(desk));
    assert_eq!((phone, from.as_str()), (1, to));
    assert!(desk.is_at_rest());
    words
}

fn submit_of(to: &str, data: UserData, reference: u8) -> Submit {
    Submit { data, ..submit(to, "", reference) }
}

fn send_sms(desk: &mut Desk, from: u64, call_id: &str, submit: &Submit) -> u16 {
    code(&desk.send(HILL, FRONT, &sms(from, HILL, call_id, submit)))
}

#[test]
fn several_addresses_get_a_mail_each_and_one_of_them_tells_of_it() {
    let mut desk = mail_desk(|_| {});
    let asks =
        Submit { report_wanted: true, ..submit(CENTRE, "carol@example.org,dave*example.org(Lunch) At noon?", 9) };
    assert_eq!(send_sms(&mut desk, 1, "a", &asks), 202);
    let mails = leaving(&mut desk);
    let shown: Vec<_> = mails.iter().map(|(_, mail)| text(mail)).collect();
    assert_eq!(shown, [(CAROL, "Lunch", "At noon?"), (DAVE, "Lunch", "At noon?")]);
    assert_eq!(mails.iter().map(|(_, mail)| mail.notify.success).collect::<Vec<_>>(), [true, false]);
    assert_ne!(mails[0].1.message_id, mails[1].1.message_id);
    mails.iter().for_each(|(id, _)| mail_taken(&mut desk, *id, false));
    let report = only(desk.take_sent().into_iter().filter(|sent| sent.text().starts_with("MESSAGE ")).collect());
    let (_, body) =
        report.text().split_once("\r\n\r\n").map(|(head, body)| (head.to_owned(), body.to_owned())).unwrap();
    let octets = from_hex(body.as_bytes()).unwrap();
    let (Rpdu::DataToPhone { tpdu, .. }, 0) = Rpdu::decode(&octets).unwrap() else { panic!("{body}") };
    let (report, 0) = StatusReport::decode(tpdu).unwrap() else { panic!("{body}") };
    assert_eq!((report.reference, report.status, report.recipient.number()), (9, Status::FORWARDED, CENTRE.into()));
}

#[test]
fn who_has_a_number_of_the_pool_is_answered_without_an_address() {
    let mut desk = mail_desk(with_pool);
    write(&mut desk, 1, "a", CENTRE, "carol@example.org(Lunch) At noon?");
    let (id, first) = only(leaving(&mut desk));
    mail_taken(&mut desk, id, false);
    desk.restart();
    write(&mut desk, 1, "b", POOL[0], "Or at one?");
    let (id, second) = only(leaving(&mut desk));
    mail_taken(&mut desk, id, false);
    assert_eq!(text(&second), (CAROL, "Re: Lunch", "Or at one?"));
    assert_eq!(second.in_reply_to.as_ref(), Some(&first.message_id));
    write(&mut desk, 1, "c", POOL[0], "carol@badly..made at two?");
    let (id, third) = only(leaving(&mut desk));
    mail_taken(&mut desk, id, false);
    assert_eq!(text(&third), (CAROL, "Re: Lunch", "carol@badly..made at two?"));
    assert_eq!(third.references, [first.message_id, second.message_id]);
    // Nobody else's number, and not for another phone.
    let unknown = |number| format!("Nobody has written to you from {number} of late: your text was not sent.");
    assert_eq!(told(&mut desk, "d", "7001", "Hello"), unknown("7001"));
    assert_eq!(code(&write(&mut desk, 2, "e", POOL[0], "Hello")), 202);
    assert_eq!((leaving(&mut desk).len(), only(inbox(&mut desk)).2), (0, unknown("7000")));
}

#[test]
fn a_text_that_makes_no_mail_is_answered_in_words() {
    let mut desk = mail_desk(|_| {});
    assert_eq!(told(&mut desk, "a", CENTRE, "Hello"), "Your number is 2001.", "as ever");
    let wrong = "carol@-x.example.org: what stands behind the @ is no domain";
    let said = format!("Your text to {CENTRE} was not sent: {wrong}.");
    assert_eq!(told(&mut desk, "b", CENTRE, "carol@-x.example.org Hello"), said);
    let here = told(&mut desk, "c", CENTRE, "2002@sms.gsm.test Hello");
    assert!(here.contains("2002@sms.gsm.test is here"), "{here}");
    let how = |code| format!("Text an address and your words to {code}: carol@example.org Hello");
    assert_eq!(told(&mut desk, "d", CENTRE, "carol@example.org"), how(CENTRE));
    set_mail(&mut desk, |mail| mail.short_code = Msisdn::parse("500").ok());
    assert_eq!(told(&mut desk, "e", "500", "Hello"), how("500"));
    assert_eq!(told(&mut desk, "f", CENTRE, "carol@example.org Hello"), "Your number is 2001.");
    write(&mut desk, 1, "g", "500", "carol@example.org Hello");
    assert_eq!(leaving(&mut desk).len(), 1);
    // The phone says that it is a mail: then it is one, or told.
    let marked = Submit { protocol: 0x32, ..submit("500", "carol@hill Hello", 7) };
    assert_eq!(send_sms(&mut desk, 1, "h", &marked), 202);
    assert_eq!(text(&only(leaving(&mut desk)).1), ("carol@hill", "Hello", "Hello"));
}

#[test]
fn where_there_is_no_room_nothing_leaves_and_the_sender_is_told() {
    let mut desk = mail_desk(|mail| mail.count_max = 2);
    for n in 0..2 {
        write(&mut desk, 1, &format!("a{n}"), CENTRE, &format!("c{n}@example.org Hello"));
    }
    assert_eq!(leaving(&mut desk).len(), 2);
    let full = told_while(&mut desk, "b", "c3@example.org Hello");
    assert_eq!(full, format!("Your text to {CENTRE} was not sent: as many mails wait as may."));
    // All addresses of a text, or none.
    set_mail(&mut desk, |mail| mail.count_max = 3);
    assert_eq!(told_while(&mut desk, "c", "c3@example.org,c4@example.org Hello"), full);
    // At the limit of all texts the text leaves room for the mail that it becomes.
    set_mail(&mut desk, |mail| mail.count_max = 100);
    desk.set(|settings| settings.messages.count_max = 3);
    assert_eq!(code(&write(&mut desk, 1, "d", CENTRE, "c5@example.org Hello")), 202);
    assert_eq!(leaving(&mut desk).len(), 1);
}

/// As [`told`], while mails wait.
fn told_while(desk: &mut Desk, call_id: &str, words: &str) -> String {
    assert_eq!(code(&write(desk, 1, call_id, CENTRE, words)), 202);
    assert_eq!(leaving(desk), []);
    only(inbox(desk)).2
}

#[test]
fn parts_come_in_any_order_and_one_that_is_missing_is_said() {
    let mut desk = mail_desk(|_| {});
    let words = format!("carol@example.org {}", "long words ".repeat(40));
    let parts = split(&words, &Cut::new(Reference::Short(5))).unwrap();
    assert_eq!(parts.len(), 3);
    for (call_id, part) in [("a", 2), ("b", 0), ("c", 1)] {
        assert_eq!(leaving(&mut desk).len(), 0);
        assert_eq!(send_sms(&mut desk, 1, call_id, &submit_of(CENTRE, parts[part].clone(), part as u8)), 202);
    }
    let (id, mail) = only(leaving(&mut desk));
    assert_eq!(format!("carol@example.org {}", text(&mail).2), words.trim_end());
    mail_taken(&mut desk, id, false);
    let parts = split(&words, &Cut::new(Reference::Short(6))).unwrap();
    for part in [2, 0] {
        send_sms(&mut desk, 1, &format!("d{part}"), &submit_of(CENTRE, parts[part].clone(), 10 + part as u8));
    }
    desk.wait_s(100);
    assert_eq!(leaving(&mut desk).len(), 0, "it may come yet");
    desk.wait_s(30);
    let (_, mail) = only(leaving(&mut desk));
    assert!(text(&mail).2.contains("[part 2 of 3 is missing]"), "{}", text(&mail).2);
    assert!(inbox(&mut desk).is_empty());
}

/// The power fails at each sync of the way: the mail leaves once or more under one name, and is gone when it was taken.
#[test]
fn a_power_cut_at_any_sync_loses_no_mail_and_makes_no_second_one() {
    for syncs in 0.. {
        let mut desk = mail_desk(with_pool);
        desk.syncs_left = Some(syncs);
        let accepted = code(&write(&mut desk, 1, "a", CENTRE, "carol@example.org Hello")) == 202;
        let before: Vec<String> = leaving(&mut desk).into_iter().map(|(_, mail)| mail.message_id).collect();
        let was_cut = desk.syncs_left == Some(0);
        desk.syncs_left = None;
        desk.restart();
        let mut after = leaving(&mut desk);
        for _ in 0..10 {
            desk.wait_s(1);
            after.extend(leaving(&mut desk));
        }
        match after.as_slice() {
            [] => assert!(!accepted && before.is_empty(), "{syncs}: it was promised"),
            [(id, mail)] => {
                assert!(before.iter().all(|id| *id == mail.message_id), "{syncs}: one name for one mail");
                mail_taken(&mut desk, *id, false);
            }
            more => panic!("{syncs}: {more:?}"),
        }
        desk.restart();
        desk.wait_s(10);
        assert_eq!(leaving(&mut desk), [], "{syncs}");
        assert!(desk.is_at_rest());
        if !was_cut {
            assert!(syncs > 2);
            return;
        }
    }
}

#[test]
fn a_lost_answer_is_met_with_the_same_message_id() {
    let mut desk = mail_desk(|_| {});
    write(&mut desk, 1, "a", CENTRE, "carol@example.org Hello");
    let (id, first) = only(leaving(&mut desk));
    mail_failed(&mut desk, id, MailFailure::Lost("the line broke".into()));
    assert_eq!(leaving(&mut desk).len(), 0, "after a pause");
    wait_min(&mut desk, 2);
    let (id, second) = only(leaving(&mut desk));
    assert_eq!(second, first, "all of it is the same");
    desk.restart();
    desk.wait_s(10);
    let (again, third) = only(leaving(&mut desk));
    assert_eq!(third, first);
    mail_taken(&mut desk, again, false);
    mail_taken(&mut desk, id + 100, false);
    assert!(desk.is_at_rest() && inbox(&mut desk).is_empty());
}

#[test]
fn a_4xx_is_tried_again_ever_later_and_a_5xx_is_told() {
    let mut desk = mail_desk(|_| {});
    write(&mut desk, 1, "a", CENTRE, "carol@example.org Hello");
    let mut tries = 0;
    let mut told = Vec::new();
    for _ in 0..6 * 24 * 60 {
        for (id, _) in leaving(&mut desk) {
            tries += 1;
            fail(&mut desk, id, 450, "4.2.1 try later");
        }
        told.extend(wait_min(&mut desk, 1));
    }
    // Half a minute, doubled up to two hours, for five days.
    assert!((60..100).contains(&tries), "{tries}");
    let (phone, _, words) = only(told);
    assert_eq!(phone, 1);
    assert!(words.contains("carol@example.org"), "{words}");
    let ended = only(desk.text_records.iter().filter(|record| record.kind == "mail").collect());
    assert_eq!((ended.outcome, ended.attempts, ended.octets), (TextOutcome::Expired, tries, 5));
    write(&mut desk, 1, "b", CENTRE, "dave@example.org Hello");
    let (id, _) = only(leaving(&mut desk));
    fail(&mut desk, id, 550, "5.1.1 no such user");
    let (_, _, words) = only(inbox(&mut desk));
    assert!(words.contains("dave@example.org") && words.contains("no such mailbox"), "{words}");
    assert!(desk.is_at_rest());
}

/// Nobody can be reached for a week: one tries, and the others wait for it.
fn week_without_relay(life_days: u64) -> (Desk, Vec<(u64, String, String)>) {
    const MAILS: u64 = 40;
    let mut desk = mail_desk(|mail| {
        mail.life_max = Duration::from_secs(life_days * 86_400);
        mail.relay = Some(relay());
    });
    for n in 0..MAILS {
        write(&mut desk, 1 + n % 2, &format!("a{n}"), CENTRE, &format!("c{}@example.org {n}", n % 30));
    }
    let (mut tries, mut told) = (0, Vec::new());
    for minute in 0..7 * 24 * 60 {
        let now = leaving(&mut desk);
        assert!(now.len() <= if minute == 0 { 16 } else { 1 }, "{} at a time after {minute} minutes", now.len());
        tries += now.len();
        for (id, _) in now {
            fail(&mut desk, id, 0, "no route to host");
        }
        told.extend(wait_min(&mut desk, 1));
    }
    assert!(tries < 600, "{tries}");
    (desk, told)
}

fn relay() -> Relay {
    let (username, password, authority) = (None, None, None);
    Relay { host: "mail.example".into(), port: 25, tls: RelayTls::IfOffered, username, password, authority }
}

/// A mail that waits for a relay that was out of reach at the first attempt.
fn without_relay() -> Desk {
    let mut desk = mail_desk(|mail| mail.relay = Some(relay()));
    write(&mut desk, 1, "a", CENTRE, "carol@example.org one");
    write(&mut desk, 2, "b", CENTRE, "dave@example.org two");
    for (id, _) in leaving(&mut desk) {
        fail(&mut desk, id, 0, "no route to host");
    }
    desk.wait_s(3);
    assert_eq!(leaving(&mut desk), []);
    desk
}

fn alarms(desk: &mut Desk) -> Vec<String> {
    let CommandAnswer::Status(status) = desk.command(Command::Status) else { panic!() };
    status.alarms
}

#[test]
fn an_operator_who_wants_it_tried_does_not_wait_for_the_relay() {
    let mut desk = without_relay();
    let pick = QueuePick::Phone(Who::Mail(address(CAROL).key()));
    for _ in 0..2 {
        let CommandAnswer::Texts { texts: 1 } = desk.command(Command::Queue(QueueAsk::Retry(pick))) else { panic!() };
        desk.wait_s(3);
        let (id, mail) = only(leaving(&mut desk));
        assert_eq!(text(&mail).2, "one");
        fail(&mut desk, id, 0, "no route to host");
    }
    let CommandAnswer::Texts { texts: 1 } = desk.command(Command::Queue(QueueAsk::Retry(pick))) else { panic!() };
    desk.wait_s(3);
    let (id, _) = only(leaving(&mut desk));
    mail_taken(&mut desk, id, false);
    assert_eq!(text(&only(leaving(&mut desk)).1).2, "two", "it is back for all");
}

#[test]
fn another_relay_is_tried_at_once() {
    let mut desk = without_relay();
    set_mail(&mut desk, |mail| mail.relay = Some(Relay { host: "other.example".into(), ..relay() }));
    assert_eq!(leaving(&mut desk).len(), 2);
}

#[test]
fn a_relay_out_of_reach_is_an_alarm_for_as_long_as_it_is() {
    let mut desk = without_relay();
    assert!(only(alarms(&mut desk)).contains("no route to host"));
    wait_min(&mut desk, 2);
    let (id, _) = only(leaving(&mut desk));
    mail_taken(&mut desk, id, false);
    assert_eq!(alarms(&mut desk), Vec::<String>::new());
}

#[test]
fn a_week_without_the_relay_ends_mails_that_may_live_five_days_and_their_senders_are_told() {
    let (mut desk, told) = week_without_relay(5);
    assert_eq!(told.len(), 40);
    assert!(told.iter().all(|(_, _, words)| words.contains("@example.org")), "{told:?}");
    wait_min(&mut desk, 60);
    assert_eq!(leaving(&mut desk), []);
    assert!(desk.is_at_rest());
}

#[test]
fn after_a_week_without_the_relay_all_leaves_in_order_and_few_at_a_time() {
    let (mut desk, told) = week_without_relay(10);
    assert_eq!(told, []);
    let mut taken: Vec<MailOut> = Vec::new();
    for _ in 0..60 {
        loop {
            let now = leaving(&mut desk);
            assert!(now.len() <= 16, "{} at a time", now.len());
            if now.is_empty() {
                break;
            }
            for (id, mail) in now {
                taken.push(mail);
                mail_taken(&mut desk, id, false);
            }
            if taken.len() == 1 {
                assert!(desk.mails.len() > 1, "the first one that is taken tells the others");
            }
        }
        wait_min(&mut desk, 1);
    }
    assert_eq!(taken.len(), 40);
    for address in 0..30 {
        let to = format!("c{address}@example.org");
        let words: Vec<u64> =
            taken.iter().filter(|mail| mail.to.as_str() == to).map(|mail| text(mail).2.parse().unwrap()).collect();
        assert!(words.is_sorted(), "{to}: {words:?}");
    }
    assert!(inbox(&mut desk).is_empty());
}

#[test]
fn a_thousand_mails_wait_over_a_restart_and_leave() {
    let mut desk = mail_desk(|mail| mail.relay = Some(relay()));
    desk.set(|settings| settings.messages.count_per_phone_max = 2_000);
    for n in 0..1_000 {
        assert_eq!(code(&write(&mut desk, 1, &format!("a{n}"), CENTRE, &format!("c{n}@example.org {n}"))), 202);
        desk.wait_ms(1);
    }
    leaving(&mut desk);
    desk.restart();
    let mut taken = BTreeSet::new();
    for _ in 0..100 {
        for (id, mail) in leaving(&mut desk) {
            assert!(taken.insert(mail.message_id), "once");
            mail_taken(&mut desk, id, false);
        }
        desk.wait_ms(100);
    }
    assert_eq!(taken.len(), 1_000);
    assert!(desk.is_at_rest() && inbox(&mut desk).is_empty());
}

fn route(prefixes: &[&str], to: &str, is_box: bool) -> MailRoute {
    MailRoute { prefixes: prefixes.iter().map(|prefix| (*prefix).into()).collect(), to: to.into(), is_box }
}

#[test]
fn a_number_that_a_route_has_gets_one_mail_of_the_whole() {
    let mut desk = mail_desk(|mail| mail.routes = vec![route(&["+44"], "{number}@sms.hill.example", false)]);
    let words = "words for far away ".repeat(15);
    let parts = split(&words, &Cut::new(Reference::Short(5))).unwrap();
    for (part, data) in parts.iter().enumerate() {
        let call_id = format!("a{part}");
        assert_eq!(send_sms(&mut desk, 1, &call_id, &submit_of("+4477", data.clone(), part as u8)), 202);
    }
    let (_, mail) = only(leaving(&mut desk));
    assert_eq!((mail.to.as_str(), text(&mail).2), ("+4477@sms.hill.example", words.as_str()));
    // What looks like an address is none to a number.
    write(&mut desk, 1, "b", "+4478", "carol@example.org is her address");
    assert_eq!(text(&only(leaving(&mut desk)).1).2, "carol@example.org is her address");
    assert_eq!(code(&write(&mut desk, 1, "c", "+3377", "Hello")), 404, "no route has it");
    desk.set(|settings| settings.dialplan.local_prefixes = vec!["+447".into()]);
    assert_eq!(code(&write(&mut desk, 1, "d", "+4477", "Hello")), 404, "it is local, and nobody's");
}

#[test]
fn another_box_gets_each_part_as_the_phone_sent_it() {
    let mut desk = mail_desk(|mail| mail.routes = vec![route(&[], "{number}@sms.hill.example", true)]);
    let data = UserData {
        coding: Coding(4),
        has_header: true,
        length: 12,
        bytes: vec![6, 5, 4, 0x15, 0x81, 0, 0, 1, 2, 3, 4, 5],
    };
    let ringtone = Submit {
        protocol: 0x41,
        reply_path: true,
        report_wanted: true,
        validity: Some(Validity::Relative(11)),
        ..submit_of("3001", data.clone(), 77)
    };
    assert_eq!(send_sms(&mut desk, 1, "a", &ringtone), 202);
    let (_, mail) = only(leaving(&mut desk));
    let Body::Sms { words, sms } = &mail.body else { panic!("{mail:?}") };
    assert_eq!((words.as_str(), &sms.data, sms.hops), ("", &data, 1));
    assert_eq!((sms.from.as_str(), sms.to.as_str()), ("2001", "3001"));
    assert_eq!((sms.protocol, sms.reply_path, sms.single_shot), (0x41, true, false));
    // (11 + 1) times five minutes (TS 23.040 §9.2.3.12.1).
    assert_eq!((sms.life_ms, sms.accepted_ms / 60_000), (3_600_000, desk.wall.ms / 60_000));
    assert!(mail.notify.success && mail.traces == ["sms.gsm.test"]);
    // A part does not wait for the others.
    let parts = split(&"long ".repeat(60), &Cut::new(Reference::Short(5))).unwrap();
    send_sms(&mut desk, 1, "b", &submit_of("3002", parts[1].clone(), 8));
    let (_, mail) = only(leaving(&mut desk));
    assert!(matches!(&mail.body, Body::Sms { sms, .. } if sms.data == parts[1]));
}

fn trunk(prefixes: &[&str]) -> Trunk {
    Trunk {
        name: "pbx".into(),
        address: "192.0.2.40:5060".parse().unwrap(),
        mode: TrunkMode::Redirect,
        texts: true,
        prefixes: prefixes.iter().map(|prefix| (*prefix).into()).collect(),
        username: None,
        password: None,
    }
}

#[test]
fn the_longest_prefix_decides_between_a_trunk_and_a_route() {
    let mut settings = mail_settings(|mail| {
        mail.routes = vec![route(&["+4", "+447"], "a@a.example", false), route(&["+447"], "b@b.example", false)];
    });
    let way = |settings: &encamp::config::Settings, number: &str| text_way(settings, number);
    assert_eq!(way(&settings, "+4477"), Some(TextWay::Mail(0)), "the first of two");
    assert_eq!(way(&settings, "+3377"), None);
    settings.trunks = vec![trunk(&["+44"]), trunk(&["+447", "+448"])];
    assert_eq!(way(&settings, "+4477"), Some(TextWay::Trunks), "a trunk where both are as long");
    assert_eq!(way(&settings, "+4400"), Some(TextWay::Trunks));
    assert_eq!(way(&settings, "+4300"), Some(TextWay::Mail(0)));
    settings.trunks = vec![trunk(&[])];
    assert_eq!(way(&settings, "+4300"), Some(TextWay::Mail(0)));
    assert_eq!(way(&settings, "+3300"), Some(TextWay::Trunks), "the last resort");
    settings.trunks[0].texts = false;
    assert_eq!(way(&settings, "+3300"), None);
}

fn with_copies(desk: &mut Desk, phone: u64, to: &str) {
    let copy_to = address(to);
    desk.set(|settings| {
        let mut all: Vec<Subscriber> = settings.subscribers.iter().cloned().collect();
        let mail = SubscriberMail { copy_to: Some(copy_to), ..SubscriberMail::default() };
        all[phone as usize].mail = Some(Box::new(mail));
        settings.subscribers = std::sync::Arc::new(Subscribers::new(all));
    });
}

#[test]
fn who_wants_copies_gets_a_mail_of_each_text_from_nobody() {
    let mut desk = mail_desk(|_| {});
    with_copies(&mut desk, 2, "dave@example.org");
    let parts = split(&"long words ".repeat(20), &Cut::new(Reference::Short(5))).unwrap();
    for (part, data) in parts.iter().enumerate() {
        let asks = Submit { report_wanted: true, ..submit_of("2002", data.clone(), part as u8) };
        assert_eq!(send_sms(&mut desk, 1, &format!("a{part}"), &asks), 202);
    }
    let (id, mail) = only(leaving(&mut desk));
    assert_eq!((mail.from.as_ref(), &mail.header_from), (None, &of_phone(1)));
    assert_eq!((mail.to.as_str(), text(&mail).2), (DAVE, "long words ".repeat(20).as_str()));
    assert_eq!(mail.notify, NEVER);
    // The mailbox is full: nobody hears of it.
    fail(&mut desk, id, 552, "5.2.2 full");
    let records: Vec<(&str, &str)> = desk.text_records.iter().map(|record| (record.kind, record.to.as_str())).collect();
    assert_eq!(records, [("text", "the mailbox of 2002"), ("text", "the mailbox of 2002"), ("mail", DAVE)]);
    // What the centre says itself is not copied, nor what goes to somebody else.
    write(&mut desk, 2, "b", "2001", "Hello");
    write(&mut desk, 2, "c", CENTRE, "Hello");
    assert_eq!(leaving(&mut desk), []);
}

#[test]
fn a_copy_without_room_never_refuses_a_text() {
    let mut desk = mail_desk(|_| {});
    with_copies(&mut desk, 2, "dave@example.org");
    desk.set(|settings| settings.messages.count_max = 1);
    assert_eq!(code(&write(&mut desk, 1, "a", "2002", "Hello")), 202);
    assert_eq!((leaving(&mut desk).len(), happened(&desk, "copy_left_out")), (0, 1));
    assert_eq!(only(inbox(&mut desk)).2, "Hello");
}

#[test]
fn an_operator_sees_a_mail_as_any_text_and_finds_it_by_its_address() {
    let mut desk = mail_desk(|_| {});
    write(&mut desk, 1, "a", CENTRE, "carol@example.org(Lunch) At noon?");
    write(&mut desk, 2, "b", CENTRE, "dave@example.org Hello");
    let (id, first) = leaving(&mut desk).remove(0);
    fail(&mut desk, id, 450, "4.2.1 try later");
    let who = |text: &str| Who::Mail(address(text).key());
    let filter = QueueFilter { phone: Some(who("Carol@example.org")), ..QueueFilter::default() };
    let CommandAnswer::Queue(rows) = desk.command(Command::Queue(QueueAsk::List(filter))) else { panic!() };
    let row = only(rows);
    assert_eq!((row.from.as_str(), row.to.as_str(), row.state), ("2001", CAROL, "waiting"));
    let number = row.id.parse().unwrap();
    let CommandAnswer::Text(shown) = desk.command(Command::Queue(QueueAsk::Show(number))) else { panic!() };
    let mail = shown.mail.unwrap();
    assert_eq!((shown.kind, shown.words.as_deref(), mail.subject.as_str()), ("mail", Some("At noon?"), "Lunch"));
    assert_eq!((mail.message_id, mail.envelope_from.as_str()), (first.message_id, "2001@sms.gsm.test"));
    assert!(shown.life.iter().any(|step| step.what == "answered 450: 4.2.1 try later"), "{:?}", shown.life);
    assert_eq!(shown.ends, desk.wall.ms + 5 * 86_400_000);
    let pick = QueuePick::Phone(who(CAROL));
    let CommandAnswer::Texts { texts: 1 } = desk.command(Command::Queue(QueueAsk::Retry(pick))) else { panic!() };
    desk.wait_s(3);
    let (id, _) = only(leaving(&mut desk));
    fail(&mut desk, id, 450, "4.2.1 try later");
    let CommandAnswer::Texts { texts: 1 } = desk.command(Command::Queue(QueueAsk::Drop(pick))) else { panic!() };
    let CommandAnswer::TextLife(life) = desk.command(Command::Queue(QueueAsk::Explain(number))) else { panic!() };
    assert_eq!((life.to.as_str(), life.state), (CAROL, "dropped"));
    // What was texted tells where it went.
    let CommandAnswer::TextLife(life) = desk.command(Command::Queue(QueueAsk::Explain(1))) else { panic!() };
    let last = life.life.last().unwrap();
    assert!(last.what.contains(&format!("it leaves as mail {number}")), "{}", last.what);
}

#[test]
fn a_mail_of_a_clock_that_nobody_has_set_has_a_date_of_this_software() {
    let mut desk = mail_desk(|_| {});
    desk.wall = WallTime { ms: 1_000_000, trusted: false };
    write(&mut desk, 1, "a", CENTRE, "carol@example.org Hello");
    let (_, mail) = only(leaving(&mut desk));
    assert!(mail.date_s >= 1_793_491_200, "{}", mail.date_s);
}

/// Somebody about whom the phone was asked gets nothing of what it writes to the number alone; its yes lets him in.
#[test]
fn yes_and_no_are_no_mail_to_whom_the_phone_is_asked_about() {
    for change in [with_pool as fn(&mut encamp::config::Mail), |_| {}] {
        let mut desk = mail_desk(|mail| {
            change(mail);
            mail.first_contact = encamp::config::mailing::FirstContact::Ask;
        });
        assert_eq!(bring(&mut desk, mail(1, "m1", "Hello")).code, 451);
        let (_, from, ask) = only(inbox(&mut desk));
        assert!(ask.contains(CAROL), "{ask}");
        write(&mut desk, 1, "a", &from, "who is that?");
        assert_eq!(leaving(&mut desk), [], "not for her");
        inbox(&mut desk);
        write(&mut desk, 1, "b", &from, "Yes");
        assert_eq!(leaving(&mut desk), []);
        assert!(only(inbox(&mut desk)).2.contains(CAROL));
        assert_eq!(bring(&mut desk, mail(1, "m1", "Hello")).code, 250);
        assert!(only(inbox(&mut desk)).2.contains("Hello"));
        write(&mut desk, 1, "c", &from, "Hi Carol");
        let (_, answer) = only(leaving(&mut desk));
        assert_eq!((answer.to.as_str(), answer.in_reply_to.as_deref()), (CAROL, Some("m1@example.org")));
    }
}

// --- Many mails, and servers that say nothing ---

#[test]
fn mails_whose_servers_say_nothing_are_few_in_all_and_fewer_at_a_domain_and_hold_up_no_text() {
    let mut desk = mail_desk(|_| {});
    for n in 0..8 {
        let to: Vec<String> = (0..10).map(|m| format!("a@d{n}{m}.example")).collect();
        assert_eq!(code(&write(&mut desk, 1, &format!("a{n}"), CENTRE, &format!("{} x", to.join(",")))), 202);
    }
    let mut out = leaving(&mut desk);
    assert_eq!(out.len(), 64);
    // Who ends makes room for one; who is put off does, too.
    mail_taken(&mut desk, out.remove(0).0, false);
    fail(&mut desk, out.remove(0).0, 450, "later");
    fail(&mut desk, out.remove(0).0, 0, "no route to host");
    assert_eq!(leaving(&mut desk).len(), 3);
    write(&mut desk, 1, "b", "2002", "Hello");
    assert_eq!(only(inbox(&mut desk)).2, "Hello");
    let mut desk = mail_desk(|_| {});
    let to: Vec<String> = (0..10).map(|m| format!("a{m}@example.org")).collect();
    write(&mut desk, 1, "c", CENTRE, &format!("{} x", to.join(",")));
    let mut seen = BTreeSet::new();
    for _ in 0..3 {
        let out = leaving(&mut desk);
        assert!(out.len() <= 4, "{}", out.len());
        for (id, mail) in out {
            assert!(seen.insert(mail.to.to_string()));
            mail_taken(&mut desk, id, false);
        }
    }
    assert_eq!(seen.len(), 10);
}

#[test]
fn a_way_out_that_changes_under_an_attempt_leaves_nobody_waiting_for_it() {
    let mut desk = mail_desk(|_| {});
    write(&mut desk, 1, "a", CENTRE, "carol@example.org one");
    let (id, _) = only(leaving(&mut desk));
    fail(&mut desk, id, 0, "no route to host");
    wait_min(&mut desk, 2);
    // One tries, while the operator tries a relay, and takes it out again.
    let (id, _) = only(leaving(&mut desk));
    set_mail(&mut desk, |mail| mail.relay = Some(relay()));
    fail(&mut desk, id, 450, "later");
    set_mail(&mut desk, |mail| mail.relay = None);
    write(&mut desk, 2, "b", CENTRE, "dave@example.org two");
    let (id, mail) = only(leaving(&mut desk));
    assert_eq!(text(&mail).2, "two");
    mail_taken(&mut desk, id, false);
    // What the old way says of itself is no word on the new one.
    write(&mut desk, 2, "c", CENTRE, "dave@example.org three");
    let (id, _) = only(leaving(&mut desk));
    set_mail(&mut desk, |mail| mail.relay = Some(relay()));
    fail(&mut desk, id, 0, "no route to host");
    assert_eq!(alarms(&mut desk), Vec::<String>::new());
}

#[test]
fn a_mail_that_ends_each_attempt_for_all_lets_another_one_try() {
    let mut desk = mail_desk(|mail| mail.relay = Some(relay()));
    write(&mut desk, 1, "a", CENTRE, "carol@example.org bad");
    let (id, _) = only(leaving(&mut desk));
    fail(&mut desk, id, 0, "421 not this one");
    write(&mut desk, 2, "b", CENTRE, "dave@example.org good");
    let mut taken = Vec::new();
    for _ in 0..10 {
        wait_min(&mut desk, 1);
        for (id, mail) in leaving(&mut desk) {
            match text(&mail).2 {
                "bad" => fail(&mut desk, id, 0, "421 not this one"),
                _ => {
                    taken.push(text(&mail).2.to_owned());
                    mail_taken(&mut desk, id, false);
                }
            }
        }
    }
    assert_eq!(taken, ["good"]);
}

#[test]
fn an_attempt_of_which_nothing_is_heard_reaches_nobody() {
    let mut desk = without_relay();
    wait_min(&mut desk, 2);
    only(leaving(&mut desk));
    desk.wait_s(11 * 60);
    assert_eq!((happened(&desk, "relay_reached"), alarms(&mut desk).len()), (0, 1));
    wait_min(&mut desk, 3);
    assert_eq!(leaving(&mut desk).len(), 1, "another one tries after a pause");
}

#[test]
fn what_is_written_before_the_clock_is_set_leaves_with_its_right_time() {
    let mut stores = MemoryStores::default();
    for id in [StoreId::Node, StoreId::Messages, StoreId::Replica(0), StoreId::Replica(1)] {
        stores.stores.insert(id, MemoryStore::new());
    }
    let settings = mail_settings(|mail| {
        mail.relay = Some(relay());
        mail.routes = vec![route(&[], "{number}@sms.hill.example", true)];
    });
    let mut desk = Desk::of(WallTime { ms: 1_000_000, trusted: false }, settings, stores);
    assert_eq!(desk.cell(1, "bts", 1, 3600), 200);
    desk.take_sent();
    write(&mut desk, 1, "a", "3001", "Hello");
    let (id, _) = only(leaving(&mut desk));
    fail(&mut desk, id, 0, "no route to host");
    desk.wall = WallTime { ms: desk::TODAY_MS, trusted: true };
    wait_min(&mut desk, 2);
    let (_, mail) = only(leaving(&mut desk));
    let Body::Sms { sms, .. } = mail.body else { panic!() };
    let age_ms = desk.wall.ms - sms.accepted_ms;
    assert!(age_ms < 600_000, "{age_ms}");
}

#[test]
fn a_full_spool_is_an_alarm_until_there_is_room() {
    let mut desk = mail_desk(|mail| mail.count_max = 10);
    for n in 0..10 {
        write(&mut desk, 1, &format!("a{n}"), CENTRE, &format!("c{n}@d{n}.example x"));
    }
    desk.wait_s(3);
    assert!(only(alarms(&mut desk)).contains("10 mails"));
    let mut out = leaving(&mut desk);
    mail_taken(&mut desk, out.remove(0).0, false);
    desk.wait_s(3);
    assert_eq!(alarms(&mut desk).len(), 1, "a little room is no end of it");
    mail_taken(&mut desk, out.remove(0).0, false);
    desk.wait_s(3);
    assert_eq!(alarms(&mut desk), Vec::<String>::new());
    assert_eq!((happened(&desk, "mail_spool_full"), happened(&desk, "mail_spool_freed")), (1, 1));
}

#[test]
fn no_log_has_an_address_that_a_server_says() {
    let mut desk = mail_desk(|_| {});
    write(&mut desk, 1, "a", CENTRE, "carol@example.org x");
    for (code, why) in [(450, "4.2.1 <carol@example.org>: wait"), (550, "5.1.1 <carol@example.org>: none")] {
        let (id, _) = only(leaving(&mut desk));
        fail(&mut desk, id, code, why);
        wait_min(&mut desk, 10);
    }
    let log: Vec<String> = desk.events.iter().map(ToString::to_string).collect();
    assert!(!log.iter().any(|line| line.contains("carol@")), "{log:?}");
    assert!(log.iter().any(|line| line.contains("<c\u{2026}@example.org>: none")), "{log:?}");
}

#[test]
fn of_local_prefixes_and_routes_the_longest_counts() {
    let mut settings = mail_settings(|mail| mail.routes = vec![route(&["+15557"], "{number}@sms.hill.example", true)]);
    settings.dialplan.local_prefixes = vec!["+1555".into()];
    assert_eq!(text_way(&settings, "+15557001"), Some(TextWay::Mail(0)));
    assert_eq!(text_way(&settings, "+15558001"), None);
    settings.dialplan.local_prefixes = vec!["+15557".into()];
    assert_eq!(text_way(&settings, "+15557001"), None);
}
