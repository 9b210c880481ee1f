//! Texts between two phones: what a base station sees of them, and what a power cut leaves.

mod desk;

use std::net::SocketAddr;

use desk::texts::*;
use desk::{Desk, Sent, TODAY_MS, imsi, settings};
use encamp::event::Event;
use encamp::gsm::tpdu::Submit;
use encamp::register::merge::decode;
use encamp::seam::{Command, CommandAnswer, Input, Port, QueueAsk, QueueFilter, TextAnswer};
use encamp::store::{Store as _, StoreId};
use encamp::time::WallTime;

/// Two phones, both at the hill.
fn valley() -> Desk {
    let mut desk = Desk::today();
    assert_eq!(desk.cell(1, "bts", 1, 3600), 200);
    assert_eq!(desk.cell(2, "bts", 2, 3600), 200);
    desk.take_sent();
    desk
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

// --- From phone to phone ---

#[test]
fn a_text_is_acknowledged_and_reaches_the_other_phone() {
    let mut desk = valley();
    let sent = write(&mut desk, 1, "a", "2002", "Hello self");
    assert_eq!(code(&sent), 202);
    assert!(sent[0].starts_with("SIP/2.0 202"), "the sender first: {sent:?}");
    let mt = only(take(&mut desk));
    assert_eq!(mt.station.to_string(), HILL);
    assert_eq!(mt.words(), "Hello self");
    assert_eq!(mt.deliver.originator.number(), "2001");
    assert_eq!(mt.deliver.timestamp.unix_s(), Some(TODAY_MS / 1000));
    assert!(mt.sip.starts_with(&format!("MESSAGE sip:IMSI{}@{HILL} SIP/2.0\r\n", imsi(2))));
    assert!(mt.header("From").starts_with("2001 <sip:2001@192.0.2.1:5064>;tag="), "the tag last");
    assert!(mt.header("Via").starts_with("SIP/2.0/UDP 192.0.2.1:5064;branch=z9hG4bK-m"));
    assert!(!mt.sip.contains(&imsi(1).to_string()), "the sender's IMSI stays here");
    assert_eq!(queue(&mut desk)[0].state, "sending");
    assert!(answered(&mut desk, &mt, "200 OK").is_empty());
    assert!(queue(&mut desk).is_empty() && desk.is_at_rest());
    assert_eq!(happened(&desk, "text_delivered"), 1);
    desk.wait_s(120);
    assert!(take(&mut desk).is_empty(), "nothing after a final answer");
    desk.restart();
    desk.wait_s(120);
    assert!(take(&mut desk).is_empty(), "nor after a restart");
}

#[test]
fn the_literal_of_a_transcript_is_understood() {
    let mut desk = valley();
    let body = "002a000381000012012a0481020200000ac8329bfd06cdcb6c33";
    let sent = desk.send(HILL, FRONT, &message(1, HILL, "927d512c1b2c876a", "smsc", "application/vnd.3gpp.sms", body));
    assert_eq!(code(&sent), 404, "TP-DA is 2020 there, which nobody has: {sent:?}");
    let body = "002a000381000012012a0481022000000ac8329bfd06cdcb6c33";
    let sent = desk.send(HILL, FRONT, &message(1, HILL, "927d512c1b2c876b", "smsc", "application/vnd.3gpp.sms", body));
    assert_eq!(code(&sent), 202);
    let mts = mts(&desk.take_sent());
    assert_eq!(mts.iter().find(|mt| mt.deliver.originator.number() == "2001").unwrap().words(), "Hello self");
}

#[test]
fn a_plain_text_goes_to_whom_the_request_uri_names() {
    let mut desk = valley();
    for (nr, content_type) in
        ["text/plain", "text/plain;charset=UTF-8", "Text/Plain; charset=\"utf-8\""].iter().enumerate()
    {
        let sent = desk.send(HILL, FRONT, &message(1, HILL, &format!("p{nr}"), "2002", content_type, "Grüße"));
        assert_eq!(code(&sent), 202, "{content_type}");
        let mt = only(take(&mut desk));
        assert_eq!((mt.words().as_str(), mt.deliver.originator.number().as_str()), ("Grüße", "2001"));
        answered(&mut desk, &mt, "200 OK");
    }
    let long = "x".repeat(161);
    assert_eq!(code(&desk.send(HILL, FRONT, &message(1, HILL, "long", "2002", "text/plain", &long))), 202);
    let first = only(take(&mut desk));
    let second = only(answered(&mut desk, &first, "200 OK"));
    assert!(answered(&mut desk, &second, "200 OK").is_empty() && queue(&mut desk).is_empty());
    let parts = [&first.deliver.data, &second.deliver.data];
    assert_eq!(encamp::gsm::segment::whole_text(&parts).unwrap(), long, "two parts of one text");
    let endless = "x".repeat(1600);
    let sent = desk.send(HILL, FRONT, &message(1, HILL, "endless", "2002", "text/plain", &endless));
    assert_eq!(code(&sent), 413);
    assert!(sent.iter().any(|text| text.contains("Warning: 399 encamp \"")));
}

#[test]
fn one_text_at_a_time_per_phone_and_in_order() {
    let mut desk = valley();
    for (n, words) in ["one", "two", "three"].iter().enumerate() {
        assert_eq!(code(&write(&mut desk, 1, &format!("o{n}"), "2002", words)), 202);
        let mts = take(&mut desk);
        assert_eq!(mts.len(), usize::from(n == 0), "the others wait");
        if let [mt] = &mts[..] {
            assert_eq!(mt.words(), "one");
            desk.events.clear();
        }
    }
    let listed: Vec<_> = queue(&mut desk).into_iter().map(|text| text.state).collect();
    assert_eq!(listed, ["sending", "waiting", "waiting"]);
    // The first MESSAGE was taken above; its second copy is the same.
    desk.wait_s(12);
    let mut mt = only(take(&mut desk));
    let mut call_ids = vec![mt.header("Call-ID").to_owned()];
    for words in ["two", "three"] {
        mt = only(answered(&mut desk, &mt, "200 OK"));
        assert_eq!(mt.words(), words);
        call_ids.push(mt.header("Call-ID").to_owned());
    }
    assert!(answered(&mut desk, &mt, "200 OK").is_empty() && desk.is_at_rest());
    call_ids.dedup();
    assert_eq!(call_ids.len(), 3, "a new Call-ID each");
}

#[test]
fn two_texts_of_one_second_have_two_timestamps() {
    let mut desk = valley();
    let mut identities = Vec::new();
    for n in 0..3 {
        write(&mut desk, 1, &format!("s{n}"), "2002", &format!("text {n}"));
        let mt = only(take(&mut desk));
        identities.push(mt.identity());
        answered(&mut desk, &mt, "200 OK");
        if n == 1 {
            desk.restart();
        }
    }
    let seconds: Vec<u8> = identities.iter().map(|(_, octets)| octets[5]).collect();
    identities.dedup();
    assert_eq!(identities.len(), 3, "{seconds:?}");
}

// --- No Timer E ---

#[test]
fn a_second_copy_after_12_s_of_nothing_and_30_s_of_silence_is_absent() {
    let mut desk = valley();
    write(&mut desk, 1, "a", "2002", "are you there?");
    let first = only(take(&mut desk));
    desk.wait_s(11);
    assert!(take(&mut desk).is_empty());
    desk.wait_s(1);
    assert_eq!(only(take(&mut desk)).sip, first.sip, "the same request again");
    desk.wait_s(17);
    assert!(take(&mut desk).is_empty());
    assert_eq!(queue(&mut desk)[0].state, "sending");
    desk.wait_s(1);
    assert!(take(&mut desk).is_empty());
    let waits = only(queue(&mut desk));
    assert_eq!((waits.state, waits.cause.as_str()), ("absent", "the phone is absent"));
    assert!(desk.is_at_rest());
    desk.wait_s(400);
    assert!(take(&mut desk).is_empty(), "the slow ladder begins at 10 min");
    desk.wait_s(400);
    let again = take(&mut desk);
    assert_eq!(again[0].identity(), first.identity(), "the same to the phone");
    assert_ne!(again[0].header("Call-ID"), first.header("Call-ID"), "and another request");
    assert_ne!(again[0].header("Via"), first.header("Via"));
    assert_eq!(happened(&desk, "text_possible_duplicate"), 1, "an answer may have been lost");
}

#[test]
fn a_base_station_that_says_100_gets_no_second_copy_and_more_time() {
    let mut desk = valley();
    write(&mut desk, 1, "a", "2002", "a long page");
    let mt = only(take(&mut desk));
    desk.wait_s(10);
    assert!(answered(&mut desk, &mt, "100 Trying").is_empty());
    desk.wait_s(25);
    assert!(take(&mut desk).is_empty());
    assert_eq!(queue(&mut desk)[0].state, "sending");
    answered(&mut desk, &mt, "200 OK");
    assert!(queue(&mut desk).is_empty());
}

#[test]
fn an_answer_that_comes_after_the_silence_counts() {
    let mut desk = valley();
    write(&mut desk, 1, "a", "2002", "slow");
    let mt = only(take(&mut desk));
    desk.wait_s(31);
    assert_eq!(queue(&mut desk)[0].state, "absent");
    answered(&mut desk, &mt, "200 OK");
    assert!(queue(&mut desk).is_empty(), "it is not sent again");
    assert_eq!(desk.cell(2, "bts", 3, 3600), 200);
    assert!(take(&mut desk).is_empty());
}

#[test]
fn a_400_is_tried_again_later_and_never_at_once() {
    let mut desk = valley();
    write(&mut desk, 1, "a", "2002", "memory full?");
    let first = only(take(&mut desk));
    assert!(answered(&mut desk, &first, "400 Bad Request").is_empty());
    let waits = only(queue(&mut desk));
    assert_eq!((waits.state, waits.cause.as_str()), ("waiting", "answered 400"));
    desk.wait_s(20);
    assert!(take(&mut desk).is_empty());
    desk.wait_s(20);
    let second = only(take(&mut desk));
    assert_eq!(second.identity(), first.identity());
    assert_eq!(happened(&desk, "text_possible_duplicate"), 0, "a refusal is an answer");
    answered(&mut desk, &second, "400 Bad Request");
    desk.wait_s(40);
    assert!(take(&mut desk).is_empty(), "the pause doubles");
    desk.wait_s(36);
    assert_eq!(take(&mut desk)[0].identity(), first.identity());
}

#[test]
fn a_text_that_nobody_takes_is_given_up_at_the_end_of_its_life() {
    let mut settings = settings();
    settings.messages.life_max = std::time::Duration::from_secs(7200);
    let mut desk = Desk::of(WallTime { ms: TODAY_MS, trusted: true }, settings, Desk::today().stores.clone());
    desk.cell(1, "bts", 1, 3600);
    assert_eq!(code(&write(&mut desk, 1, "a", "2002", "never")), 202, "a phone that was never here may come");
    assert_eq!(queue(&mut desk)[0].state, "absent");
    desk.wait_s(7211);
    assert_eq!(only(queue(&mut desk)).to, "2001", "what is left is what its sender is told");
    assert_eq!(happened(&desk, "text_expired"), 1);
    assert!(live_marks(&desk, 2).is_empty(), "nobody waits any more");
    let told = only(take(&mut desk));
    assert_eq!(told.station.to_string(), HILL);
    assert!(told.words().ends_with("to 2002 could not be delivered: its time was over."));
    answered(&mut desk, &told, "200 OK");
    desk.wait_s(2 * 7200);
    assert!(take(&mut desk).is_empty() && queue(&mut desk).is_empty());
}

// --- Absent, then back ---

/// Who waits for a phone, by the replicas of this box.
fn live_marks(desk: &Desk, phone: u64) -> Vec<SocketAddr> {
    let mut owners = Vec::new();
    for (id, store) in &desk.stores.stores {
        if !matches!(id, StoreId::Replica(_)) {
            continue;
        }
        if let Some(bytes) = store.get(format!("b{}", imsi(phone)).as_bytes()).unwrap() {
            let record = decode(&bytes).unwrap();
            owners.extend(record.marks.iter().filter(|(_, mark)| mark.since.is_some()).map(|(owner, _)| *owner));
        }
    }
    owners
}

#[test]
fn an_absent_phone_gets_its_texts_when_its_register_is_acknowledged() {
    let mut desk = valley();
    write(&mut desk, 1, "a", "2002", "one");
    let first = only(take(&mut desk));
    write(&mut desk, 1, "b", "2002", "two");
    assert!(answered(&mut desk, &first, "480 No_Paging_Response").is_empty());
    assert_eq!(live_marks(&desk, 2).len(), 2, "in every replica");
    desk.wait_s(300);
    assert!(take(&mut desk).is_empty());
    assert_eq!(desk.cell_at(DALE, 2, "bts2", 1, 3600), 200);
    let sent = desk.take_sent();
    assert!(sent[0].text().starts_with("SIP/2.0 200"), "the phone is answered first");
    let mt = only(mts(&sent));
    assert_eq!((mt.station.to_string().as_str(), mt.identity()), (DALE, first.identity()));
    let second = only(answered(&mut desk, &mt, "200 OK"));
    assert_eq!(second.words(), "two");
    assert!(live_marks(&desk, 2).is_empty(), "the phone is being served again");
    answered(&mut desk, &second, "200 OK");
    assert!(queue(&mut desk).is_empty() && desk.is_at_rest());
    assert_eq!(happened(&desk, "phone_returned"), 1);
    assert_eq!(desk.cell_at(DALE, 2, "bts2", 2, 3600), 200);
    assert!(take(&mut desk).is_empty());
}

#[test]
fn a_mark_that_could_not_be_stamped_is_written_when_there_is_room() {
    let mut desk = valley();
    write(&mut desk, 1, "a", "2002", "one");
    let first = only(take(&mut desk));
    desk.stores.stores.get_mut(&StoreId::Node).unwrap().set_full(true);
    // The stretch of stamps that is reserved on the disk runs out.
    desk.wait_s(25);
    assert!(answered(&mut desk, &first, "480 No_Paging_Response").is_empty());
    assert!(live_marks(&desk, 2).is_empty());
    desk.stores.stores.get_mut(&StoreId::Node).unwrap().set_full(false);
    desk.wait_s(2);
    assert_eq!(live_marks(&desk, 2).len(), 2, "in every replica");
}

#[test]
fn a_phone_that_comes_back_during_the_attempt_is_tried_again_when_that_ends() {
    let mut desk = valley();
    write(&mut desk, 1, "a", "2002", "moving");
    let first = only(take(&mut desk));
    desk.wait_s(20);
    desk.take_sent();
    assert_eq!(desk.cell_at(DALE, 2, "bts2", 1, 3600), 200);
    assert!(take(&mut desk).is_empty(), "one at a time");
    desk.wait_s(10);
    let again = only(take(&mut desk));
    assert_eq!((again.station.to_string().as_str(), again.identity()), (DALE, first.identity()));
    desk.wait_s(60);
    assert_eq!(take(&mut desk).len(), 1, "its second copy; and no further attempt for the same return");
}

#[test]
fn a_periodic_register_of_a_phone_without_texts_starts_nothing() {
    let mut desk = valley();
    for cseq in 3..6 {
        assert_eq!(desk.cell(2, "bts", cseq, 3600), 200);
    }
    assert!(take(&mut desk).is_empty());
}

// --- Refusals ---

#[test]
fn a_text_to_nobodys_number_is_404_and_a_text_in_words() {
    let mut desk = valley();
    desk.slow = true;
    assert!(write(&mut desk, 1, "a", "2109", "hello?").is_empty(), "nothing before the words are on the disk");
    desk.slow = false;
    desk.handle(Input::Timeout);
    let sent = desk.take_sent();
    assert!(sent[0].text().starts_with("SIP/2.0 404"), "{}", sent[0].text());
    let mt = only(mts(&sent));
    assert_eq!(mt.words(), "2109 is nobody's number: your text was not sent.");
    assert_eq!(mt.deliver.originator.number(), settings().messages.service_centre);
    assert!(mt.sip.starts_with(&format!("MESSAGE sip:IMSI{}", imsi(1))));
    answered(&mut desk, &mt, "200 OK");
    // The phone repeats it under a new Call-ID.
    let repeat = Submit { reject_duplicates: true, ..submit("2109", "hello?", b'a') };
    assert_eq!(code(&desk.send(HILL, FRONT, &sms(1, HILL, "b", &repeat))), 404);
    assert!(take(&mut desk).is_empty(), "told once");
}

#[test]
fn what_cannot_be_taken_is_refused_in_words() {
    let mut desk = valley();
    let good = rp_data(&submit("2002", "hi", 1));
    let cases = [
        ("message/cpim", "hello", 415),
        ("", "hello", 415),
        ("text/plain;charset=koi8-r", "hello", 415),
        ("application/vnd.3gpp.sms", "hello", 400),
        ("application/vnd.3gpp.sms", "", 400),
        ("application/vnd.3gpp.sms", &good[..good.len() - 4], 400),
        ("application/vnd.3gpp.sms", "002a00038100000412345678", 400),
        ("application/vnd.3gpp.sms", "0107", 400),
        ("text/plain", "hi", 404),
    ];
    for (nr, (content_type, body, expected)) in cases.into_iter().enumerate() {
        let uri_user = if expected == 404 { "2999" } else { "smsc" };
        let sent = desk.send(HILL, FRONT, &message(1, HILL, &format!("c{nr}"), uri_user, content_type, body));
        assert_eq!(code(&sent), expected, "{content_type} {body}");
        assert!(sent[0].contains("Warning: 399 encamp \""), "{}", sent[0]);
        assert_eq!(sent[0].contains("Accept: application/vnd.3gpp.sms, text/plain"), expected == 415);
    }
    assert_eq!(happened(&desk, "text_refused"), 9);
    // A phone's answer is read, and an RP-SMMA taken; neither is a text.
    for (nr, (body, expected)) in [("022a", 200), ("062a", 202)].into_iter().enumerate() {
        let sent =
            desk.send(HILL, FRONT, &message(1, HILL, &format!("n{nr}"), "smsc", "application/vnd.3gpp.sms", body));
        assert_eq!(code(&sent), expected);
    }
    let octets_behind = format!("{good}ffff");
    let sent = desk.send(HILL, FRONT, &message(1, HILL, "t", "smsc", "application/vnd.3gpp.sms", &octets_behind));
    assert_eq!((code(&sent), happened(&desk, "text_trailing")), (202, 1), "octets behind are ignored and counted");
}

#[test]
fn who_is_not_bound_there_may_not_send() {
    let mut desk = valley();
    let hello = submit("2002", "hello", 1);
    let from = |desk: &mut Desk, phone, station: &str, id: &str| {
        code(&desk.send(station, FRONT, &sms(phone, station, id, &hello)))
    };
    assert_eq!(from(&mut desk, 3, HILL, "a"), 403, "it never registered");
    assert_eq!(from(&mut desk, 9, HILL, "b"), 403, "nobody provisioned it");
    assert_eq!(from(&mut desk, 1, MOOR, "c"), 403, "it is at the hill, and the moor is no area of its");
    assert_eq!(from(&mut desk, 1, DALE, "d"), 202, "another of its location area");
    desk.wait_s(4000);
    desk.take_sent();
    assert_eq!(from(&mut desk, 1, HILL, "e"), 202, "stale counts");
    let sent = desk.send(HILL, FRONT, &sms(3, HILL, "f", &hello));
    assert!(sent[0].contains("Reason: Q.850;cause=21"));
    assert!(desk.send("192.0.2.99:5060", FRONT, &sms(1, HILL, "g", &hello)).is_empty(), "nobody listed it");
}

#[test]
fn a_full_store_or_queue_is_503_and_promises_nothing() {
    let mut desk = valley();
    desk.stores.stores.get_mut(&StoreId::Messages).unwrap().set_full(true);
    assert_eq!(code(&write(&mut desk, 1, "a", "2002", "hello")), 503);
    assert_eq!(code(&write(&mut desk, 1, "b", "2999", "hello")), 404, "a no needs no room");
    assert!(take(&mut desk).is_empty() && queue(&mut desk).is_empty());
    desk.stores.stores.get_mut(&StoreId::Messages).unwrap().set_full(false);
    let mut few = settings();
    few.messages.count_per_phone_max = 2;
    few.messages.count_max = 4;
    desk.handle(Input::Settings(std::sync::Arc::new(few)));
    for (id, to, expected, waiting) in [
        ("c", "2002", 202, 1),
        ("d", "2002", 202, 2),
        // One more: the words that say so, to phone 1.
        ("e", "2002", 503, 3),
        ("f", "2001", 202, 4),
        ("g", "2003", 503, 4),
    ] {
        assert_eq!(code(&write(&mut desk, 1, id, to, id)), expected, "{id}");
        assert_eq!(queue(&mut desk).len(), waiting, "{id}");
    }
}

#[test]
fn a_delivered_text_that_a_full_disk_will_not_forget_is_not_delivered_again() {
    let mut desk = valley();
    write(&mut desk, 1, "a", "2002", "one");
    let mt = only(take(&mut desk));
    write(&mut desk, 1, "b", "2002", "two");
    desk.stores.stores.get_mut(&StoreId::Messages).unwrap().set_full(true);
    assert!(answered(&mut desk, &mt, "200 OK").is_empty(), "a crash must not find two that may have been sent");
    desk.wait_s(100);
    assert!(take(&mut desk).is_empty());
    desk.stores.stores.get_mut(&StoreId::Messages).unwrap().set_full(false);
    desk.wait_s(2);
    let second = only(take(&mut desk));
    assert_eq!(second.words(), "two");
    answered(&mut desk, &second, "200 OK");
    assert!(queue(&mut desk).is_empty());
    desk.restart();
    desk.wait_s(100);
    assert!(take(&mut desk).is_empty());
}

// --- Duplicates ---

#[test]
fn a_copy_is_answered_again_and_stored_once_also_after_a_restart() {
    let mut desk = valley();
    let hello = submit("2002", "hello", 7);
    let request = sms(1, HILL, "call", &hello);
    assert_eq!(code(&desk.send(HILL, FRONT, &request)), 202);
    let mt = only(take(&mut desk));
    // OpenBTS repeats the request.
    assert_eq!(code(&desk.send(HILL, FRONT, &request)), 202);
    // The phone repeats its SUBMIT: new Call-ID, new RP-MR, TP-RD set.
    let repeat = Submit { reject_duplicates: true, ..hello.clone() };
    assert_eq!(code(&desk.send(HILL, FRONT, &sms(1, HILL, "other", &repeat))), 202);
    assert!(take(&mut desk).is_empty());
    assert_eq!(queue(&mut desk).len(), 1);
    answered(&mut desk, &mt, "200 OK");
    desk.restart();
    desk.wait_s(300);
    for (n, request) in [request, sms(1, HILL, "third", &repeat)].iter().enumerate() {
        assert_eq!(code(&desk.send(HILL, FRONT, request)), 202, "{n}");
    }
    assert!(take(&mut desk).is_empty() && queue(&mut desk).is_empty());
    assert!(happened(&desk, "text_duplicate") >= 3);
    // The same words, written again, are another text.
    assert_eq!(code(&desk.send(HILL, FRONT, &sms(1, HILL, "fourth", &submit("2002", "hello", 8)))), 202);
    let mt = only(take(&mut desk));
    answered(&mut desk, &mt, "200 OK");
    // When the window is over, what made the copies known is gone; what became of the two texts is told longer.
    desk.wait_s(700);
    let left = |desk: &Desk| -> Vec<u8> {
        desk.stores.stores[&StoreId::Messages].durable().keys().map(|key| key[0]).collect()
    };
    assert_eq!(left(&desk), b"iinrrxx", "two fates, by their numbers and their references");
    desk.wall.ms += settings().messages.history_life.as_millis() as u64;
    desk.wait_s(2);
    assert_eq!(left(&desk), b"n", "only the number of the next text");
    assert_eq!(code(&desk.send(HILL, FRONT, &sms(1, HILL, "fifth", &hello))), 202);
    assert_eq!(take(&mut desk).len(), 1, "after ten minutes it is a new text");
}

// --- The plug ---

#[test]
fn before_the_sync_there_is_no_202_and_after_a_power_cut_no_text() {
    let mut desk = valley();
    desk.slow = true;
    assert!(write(&mut desk, 1, "a", "2002", "hello").is_empty(), "neither 202 nor MESSAGE");
    desk.slow = false;
    desk.restart();
    desk.wait_s(100);
    assert!(take(&mut desk).is_empty() && queue(&mut desk).is_empty());
    assert_eq!(code(&write(&mut desk, 1, "a", "2002", "hello")), 202, "its copy is a new text");
    assert_eq!(take(&mut desk).len(), 1);
}

#[test]
fn a_copy_that_comes_before_the_sync_waits_for_it() {
    let mut desk = valley();
    desk.slow = true;
    let hello = submit("2002", "hello", 7);
    assert!(desk.send(HILL, FRONT, &sms(1, HILL, "a", &hello)).is_empty());
    assert!(desk.send(HILL, FRONT, &sms(1, HILL, "b", &hello)).is_empty(), "the phone's own repeat");
    desk.slow = false;
    desk.handle(Input::Timeout);
    let sent: Vec<String> = desk.take_sent().iter().map(Sent::text).collect();
    assert_eq!(sent.iter().filter(|text| text.starts_with("SIP/2.0 202")).count(), 2);
    assert_eq!(sent.iter().filter(|text| text.starts_with("MESSAGE")).count(), 1);
}

#[test]
fn what_was_under_way_at_a_power_cut_is_sent_again_as_the_same_text() {
    let mut desk = valley();
    for (id, to) in [("a", "2002"), ("b", "2002"), ("c", "2001")] {
        assert_eq!(code(&write(&mut desk, 1, id, to, id)), 202);
    }
    // The MESSAGE to phone 2 left with the first write.
    desk.take_sent();
    desk.restart();
    assert!(take(&mut desk).is_empty(), "spread, not all at once");
    desk.wait_s(4);
    let mts = take(&mut desk);
    let words: Vec<String> = mts.iter().map(Mt::words).collect();
    assert_eq!(words.len(), 2, "{words:?}");
    assert!(words.contains(&"a".into()) && words.contains(&"c".into()), "the oldest of each phone");
    assert_eq!(happened(&desk, "text_possible_duplicate"), 2);
    let first = mts.iter().find(|mt| mt.words() == "a").unwrap();
    assert_eq!(first.deliver.timestamp.unix_s(), Some(TODAY_MS / 1000), "the timestamp of its acceptance");
    let second = only(answered(&mut desk, first, "200 OK"));
    assert_eq!(second.words(), "b");
    assert_eq!(happened(&desk, "text_possible_duplicate"), 2, "this one was never under way");
}

#[test]
fn a_mark_survives_and_so_does_the_wait() {
    let mut desk = valley();
    write(&mut desk, 1, "a", "2002", "hello");
    let mt = only(take(&mut desk));
    answered(&mut desk, &mt, "480 No_Paging_Response");
    desk.restart();
    desk.take_sent();
    assert_eq!(desk.cell(2, "bts", 9, 3600), 200);
    let mt = only(take(&mut desk));
    answered(&mut desk, &mt, "200 OK");
    assert!(queue(&mut desk).is_empty() && live_marks(&desk, 2).is_empty());
}

// --- Two boxes ---

/// A text for a phone that both boxes have lost, written at the first one.
fn waiting_site() -> (Site, Mt) {
    let mut site = Site::new();
    for phone in [1, 2] {
        assert!(site.register(0, HILL, phone, phone as u32)[0].text().starts_with("SIP/2.0 200"));
    }
    write(&mut site.boxes[0], 1, "a", "2002", "hello");
    let first = only(mts(&site.carry()));
    site.boxes[0].send(HILL, FRONT, &first.answer("480 No_Paging_Response"));
    assert!(mts(&site.carry()).is_empty());
    (site, first)
}

#[test]
fn a_phone_that_comes_back_at_another_front_end_gets_its_text_by_a_signed_alert() {
    let (mut site, first) = waiting_site();
    assert_eq!((live_marks(&site.boxes[0], 2).len(), live_marks(&site.boxes[1], 2).len()), (1, 1));
    site.wait_s(60);
    let sent = site.register(1, DALE, 2, 1);
    assert!(sent[0].text().starts_with("SIP/2.0 200"));
    let mt = only(mts(&sent));
    assert_eq!((mt.station.to_string().as_str(), mt.identity()), (DALE, first.identity()));
    assert!(mt.header("Via").contains("192.0.2.1:5064"), "by the centre that accepted it");
    assert_eq!((site.alerts, happened(&site.boxes[0], "alert_received")), (1, 1), "told once, and answered");
    site.boxes[0].send(DALE, FRONT, &mt.answer("200 OK"));
    site.carry();
    assert!(site.boxes.iter().all(|desk| live_marks(desk, 2).is_empty() && desk.is_at_rest()));
    site.wait_s(10);
    assert_eq!(site.alerts, 1);
}

#[test]
fn a_phone_with_memory_again_wakes_every_centre_that_waits() {
    let mut site = Site::new();
    for phone in [1, 2] {
        site.register(0, HILL, phone, phone as u32);
    }
    write(&mut site.boxes[0], 1, "a", "2002", "hello");
    let first = only(mts(&site.carry()));
    // Back in the network, and still without room.
    site.boxes[0].send(HILL, FRONT, &first.answer("480 No_Paging_Response"));
    site.carry();
    site.wait_s(60);
    let second = only(mts(&site.register(1, DALE, 2, 3)));
    let full = encamp::gsm::rpdu::Rpdu::Error {
        direction: encamp::gsm::rpdu::Direction::FromPhone,
        reference: 1,
        cause: 22,
        tpdu: None,
    };
    let full = encamp::gsm::rpdu::to_hex(&full.encode().unwrap());
    let media = format!("Content-Type: application/vnd.3gpp.sms\r\nContent-Length: {}\r\n\r\n{full}", full.len());
    let answer = second.answer("500 Error").replace("Content-Length: 0\r\n\r\n", &media);
    site.boxes[0].send(DALE, FRONT, &answer);
    site.carry();
    assert_eq!(queue(&mut site.boxes[0])[0].cause, "the phone's memory is full");
    site.wait_s(10);
    site.alerts = 0;
    site.boxes[1].send(DALE, FRONT, &message(2, DALE, "smma", "smsc", "application/vnd.3gpp.sms", "062a"));
    let sent = site.carry();
    assert_eq!((only(mts(&sent)).identity(), site.alerts), (first.identity(), 1));
}

#[test]
fn a_mark_and_a_binding_that_meet_late_alert_too() {
    let mut site = Site::new();
    for phone in [1, 2] {
        site.register(0, HILL, phone, phone as u32);
    }
    write(&mut site.boxes[0], 1, "a", "2002", "hello");
    let first = only(mts(&site.carry()));
    // The boxes lose each other; the phone moves to the other one while the first one pages it.
    site.cut = true;
    site.wait_s(5);
    assert!(site.register(1, DALE, 2, 1)[0].text().starts_with("SIP/2.0 200"), "one replica of two is enough there");
    site.boxes[0].send(HILL, FRONT, &first.answer("480 No_Paging_Response"));
    assert!(mts(&site.wait_s(60)).is_empty(), "nobody can know");
    site.cut = false;
    let mt = mts(&site.wait_s(45));
    assert_eq!(mt[0].station.to_string(), DALE);
    assert_eq!(mt[0].identity(), first.identity());
}

#[test]
fn an_alert_that_is_not_signed_or_not_ours_moves_nothing() {
    let (mut site, _) = waiting_site();
    let imsi = imsi(2);
    let forged = format!(
        "NOTIFY sip:IMSI{imsi}@192.0.2.1:5064 SIP/2.0\r\nVia: SIP/2.0/UDP 192.0.2.2:5064;branch=z9hG4bK1\r\nFrom: <sip:front@gsm.test>;tag=1\r\n\
         To: <sip:IMSI{imsi}@gsm.test>\r\nCall-ID: 1\r\nCSeq: 1 NOTIFY\r\nEncamp: v=1;stamp=0-0-0;epoch=1;kid=1;mac={}\r\nContent-Length: 0\r\n\r\n",
        "0".repeat(64)
    );
    for port in [FRONT, Port::Replica(0, 0)] {
        assert!(site.boxes[0].send("192.0.2.2:5064", port, &forged).is_empty());
    }
    assert_eq!(happened(&site.boxes[0], "signature_refused"), 2);
    assert_eq!(queue(&mut site.boxes[0])[0].state, "absent");
}

/// A mark is no binding: it displaces nobody, and no REGISTER is older than it.
#[test]
fn marks_leave_bindings_and_registers_alone() {
    let (mut site, _) = waiting_site();
    assert_eq!(site.boxes[0].bound(2).len(), 1);
    site.boxes[0].events.clear();
    site.register(0, HILL, 2, 9);
    assert_eq!(happened(&site.boxes[0], "write_restamped"), 0);
    assert!(site.boxes[0].events.iter().any(|event| matches!(event, Event::Registered { moved: false, .. })));
    // A phone that never came has a record of marks alone, and is not there.
    write(&mut site.boxes[0], 1, "b", "2003", "hello");
    site.carry();
    assert_eq!(live_marks(&site.boxes[1], 3).len(), 1);
    let sent = site.boxes[0].send(HILL, FRONT, &sms(3, HILL, "c", &submit("2001", "hi", 1)));
    assert!(sent.iter().all(|text| !text.starts_with("SIP/2.0 2")), "{sent:?}");
    let answers: Vec<String> = site.carry().iter().map(Sent::text).collect();
    assert_eq!(code(&answers), 403, "{answers:?}");
}
