//! What an operator asks of the texts: `encamp queue`, one promise each.

mod desk;

use desk::texts::*;
use desk::{Desk, TODAY_MS, imsi, settings};
use encamp::config::Settings;
use encamp::event::Event;
use encamp::gsm::header::{Ports, Reference, write as header_of};
use encamp::gsm::report::StatusReport;
use encamp::gsm::rpdu::{Rpdu, from_hex};
use encamp::gsm::segment::{Cut, split};
use encamp::gsm::text::{Coding, UserData, encode};
use encamp::gsm::tpdu::Submit;
use encamp::ident::Msisdn;
use encamp::seam::{Command, CommandAnswer, QueueAsk, QueueFilter, QueuePick, TextAnswer, TextLife, TextShown, Who};
use encamp::sms::record;
use encamp::store::memory::{MemoryStore, MemoryStores};
use encamp::store::{Store as _, StoreId};
use encamp::time::WallTime;
use std::time::Duration;

/// Two phones at the hill.
fn valley() -> Desk {
    valley_with(settings())
}

fn disks() -> MemoryStores {
    let mut stores = MemoryStores::default();
    for id in [StoreId::Node, StoreId::Messages, StoreId::Replica(0), StoreId::Replica(1)] {
        stores.stores.insert(id, MemoryStore::new());
    }
    stores
}

fn valley_with(settings: Settings) -> Desk {
    let mut desk = Desk::of(WallTime { ms: TODAY_MS, trusted: true }, settings, disks());
    assert_eq!(desk.cell(1, "bts", 1, 3600), 200);
    assert_eq!(desk.cell(2, "bts", 2, 3600), 200);
    desk.take_sent();
    desk
}

fn ask(desk: &mut Desk, ask: QueueAsk) -> CommandAnswer {
    desk.command(Command::Queue(ask))
}

fn number(text: &str) -> Who {
    Who::Number(Msisdn::parse(text).unwrap())
}

fn list(desk: &mut Desk, filter: QueueFilter) -> Vec<TextAnswer> {
    match ask(desk, QueueAsk::List(filter)) {
        CommandAnswer::Queue(texts) => texts,
        other => panic!("{other:?}"),
    }
}

fn all(desk: &mut Desk) -> Vec<TextAnswer> {
    list(desk, QueueFilter::default())
}

fn ids(texts: &[TextAnswer]) -> Vec<&str> {
    texts.iter().map(|text| text.id.as_str()).collect()
}

fn show(desk: &mut Desk, id: u64) -> TextShown {
    match ask(desk, QueueAsk::Show(id)) {
        CommandAnswer::Text(shown) => *shown,
        other => panic!("{other:?}"),
    }
}

fn explain(desk: &mut Desk, id: u64) -> TextLife {
    match ask(desk, QueueAsk::Explain(id)) {
        CommandAnswer::TextLife(life) => *life,
        other => panic!("{other:?}"),
    }
}

fn steps(life: &TextLife) -> Vec<&str> {
    life.life.iter().map(|step| step.what.as_str()).collect()
}

/// Error and cause.
fn no(answer: CommandAnswer) -> (String, String) {
    match answer {
        CommandAnswer::Error(error) => (error.error, error.cause),
        other => panic!("{other:?}"),
    }
}

fn texts(answer: CommandAnswer) -> u64 {
    match answer {
        CommandAnswer::Texts { texts } => texts,
        other => panic!("{other:?}"),
    }
}

fn happened(desk: &Desk, name: &str) -> usize {
    desk.events.iter().filter(|event| event.name() == name).count()
}

/// Texts for an absent phone: the first one has been tried.
fn absent(desk: &mut Desk, words: &[&str]) {
    for (n, words) in words.iter().enumerate() {
        assert_eq!(code(&write(desk, 1, &format!("absent{n}-{}", words.len()), "2002", words)), 202);
        if n == 0 {
            let mt = only(take(desk));
            answered(desk, &mt, "480 No_Paging_Response");
        }
    }
    desk.take_sent();
}

// --- Lists ---

#[test]
fn a_list_is_filtered_by_phone_by_cause_and_by_length() {
    let mut desk = valley();
    absent(&mut desk, &["one", "two"]);
    // From phone 2 to phone 3, which never came, and to phone 1, which will not have it.
    for (id, to) in [("b", "2003"), ("c", "2001")] {
        let sent = desk.send(HILL, FRONT, &sms(2, HILL, id, &submit(to, id, id.as_bytes()[0])));
        assert_eq!(code(&sent), 202);
    }
    let mt = only(take(&mut desk));
    answered(&mut desk, &mt, "400 Bad Request");
    assert_eq!(ids(&all(&mut desk)), ["4", "1", "2", "3"], "by recipient, and in their order");
    let mut by = |phone: Option<Who>, cause: Option<&str>, limit| {
        let filter = QueueFilter { phone, cause: cause.map(str::to_owned), limit };
        list(&mut desk, filter).into_iter().map(|text| text.id).collect::<Vec<_>>()
    };
    assert_eq!(by(Some(number("2002")), None, None), ["1", "2", "4", "3"], "those for it, then those from it");
    assert_eq!(by(Some(number("+2002")), None, Some(3)), ["1", "2", "4"]);
    assert_eq!(by(Some(Who::Imsi(imsi(3))), None, None), ["3"]);
    assert_eq!(by(Some(number("2099")), None, None), [""; 0]);
    assert_eq!(by(None, Some("ABSENT"), None), ["1", "2", "3"], "whatever its letters");
    assert_eq!(by(None, Some("400"), None), ["4"]);
    assert_eq!(by(Some(number("2001")), Some("absent"), None), ["1", "2", "3"][..2]);
    assert_eq!(by(None, None, Some(1)), ["4"]);
}

/// So many texts for a phone that never came, as if accepted by an earlier run.
fn flood(count: u64, sender: impl Fn(u64) -> u64) -> Desk {
    let mut settings = settings();
    settings.messages.count_max = 1_000_000;
    settings.messages.count_per_phone_max = 1_000_000;
    let mut stores = disks();
    let store = stores.stores.get_mut(&StoreId::Messages).unwrap();
    for n in 1..=count {
        let text = record::Text {
            number: n,
            accepted_ms: TODAY_MS,
            life_ms: 86_400_000,
            cause: record::Cause::Absent,
            ..record::Text::new(
                record::Recipient::Phone(imsi(3)),
                record::Sender::Phone(imsi(sender(n))),
                format!("200{}", sender(n)),
                record::Payload::Text(encode("hello").unwrap()),
            )
        };
        let batch = encamp::store::Batch::default()
            .put(record::text_key(text.recipient, n), record::encode(&text))
            .put(record::fate_key(n), record::encode_fate(&record::Fate::Waits(text.recipient)));
        store.write(batch).unwrap();
    }
    store.sync().unwrap();
    Desk::of(WallTime { ms: TODAY_MS, trusted: true }, settings, stores)
}

#[test]
fn a_long_search_leaves_others_their_turns_and_a_short_one_ends_where_it_may() {
    // The one text of phone 1 stands at the end.
    let mut desk = flood(12_000, |n| if n == 11_999 { 1 } else { 2 });
    assert_eq!(all(&mut desk).len(), 2_000, "as many as are shown, at once");
    let filter = QueueFilter { phone: Some(number("2001")), ..QueueFilter::default() };
    let mut turns = 0;
    let mut found = desk.try_command(Command::Queue(QueueAsk::List(filter)));
    while found.is_none() {
        // Others are served meanwhile.
        assert_eq!(desk.cell(1, "bts", 1 + turns, 3600), 200);
        desk.wait_ms(1);
        turns += 1;
        found = desk.take_answer();
    }
    let Some(CommandAnswer::Queue(found)) = found else { panic!("{found:?}") };
    assert_eq!((ids(&found), turns), (vec!["11999"], 2), "5 000 at a time");
}

#[test]
fn only_so_many_searches_are_under_way() {
    let mut desk = flood(6_000, |_| 2);
    let ask = |desk: &mut Desk, id| {
        let filter = QueueFilter { phone: Some(number("2001")), ..QueueFilter::default() };
        desk.handle(encamp::seam::Input::Command { id, command: Command::Queue(QueueAsk::List(filter)) });
        desk.take_answer()
    };
    for id in 1..=8 {
        assert!(ask(&mut desk, id).is_none());
    }
    assert_eq!(no(ask(&mut desk, 9).unwrap()).0, "not now");
    desk.wait_ms(1);
    let mut answers = 0;
    while let Some(CommandAnswer::Queue(texts)) = desk.take_answer() {
        assert!(texts.is_empty());
        answers += 1;
    }
    assert_eq!(answers, 8);
    assert!(ask(&mut desk, 10).is_none(), "there is room again");
}

// --- One text ---

#[test]
fn one_that_waits_is_shown_with_its_words_and_its_life() {
    let mut desk = valley();
    absent(&mut desk, &["Grüße"]);
    desk.wait_s(60);
    assert_eq!(texts(ask(&mut desk, QueueAsk::Retry(QueuePick::Text(1)))), 1);
    let mt = only(take(&mut desk));
    answered(&mut desk, &mt, "400 Bad Request");
    let shown = show(&mut desk, 1);
    assert_eq!((shown.kind, shown.words.as_deref(), shown.coding.as_str()), ("text", Some("Grüße"), "GSM"));
    assert_eq!((shown.text.state, shown.text.cause.as_str(), shown.attempts), ("waiting", "answered 400", 2));
    assert_eq!(shown.ends, TODAY_MS + settings().messages.life_max.as_millis() as u64);
    assert_eq!(shown.octets, "47b9df5306");
    let explained = explain(&mut desk, 1);
    assert_eq!(explained.words.as_deref(), Some("Grüße"));
    assert_eq!(
        steps(&explained),
        [
            "accepted from hill",
            "tried at hill: the phone is absent",
            "tried again by the operator",
            "tried at hill: answered 400",
        ]
    );
    assert_eq!(explained.life[2].at, TODAY_MS + 60_000);
}

#[test]
fn an_ended_one_is_explained_and_its_words_are_gone() {
    let mut desk = valley();
    write(&mut desk, 1, "a", "2002", "secret words");
    let mt = only(take(&mut desk));
    answered(&mut desk, &mt, "200 OK");
    let explained = explain(&mut desk, 1);
    assert_eq!((explained.state, explained.words.as_deref()), ("delivered", None));
    assert_eq!(steps(&explained), ["accepted from hill", "delivered at hill"]);
    assert_eq!(no(ask(&mut desk, QueueAsk::Show(1))), ("it does not wait any more".into(), "delivered at hill".into()));
    for ask_of in [QueueAsk::Show, QueueAsk::Explain] {
        assert_eq!(no(ask(&mut desk, ask_of(77))).0, "no such text");
    }
    // Neither as they were written, nor as they were sent.
    let packed = encode("secret words").unwrap().bytes;
    let bytes = everything(&desk);
    assert!(!holds(&bytes, b"secret") && !holds(&bytes, &packed));
}

fn everything(desk: &Desk) -> Vec<u8> {
    let store = desk.stores.stores[&StoreId::Messages].durable();
    store.iter().flat_map(|(key, value)| [&key[..], &value[..]].concat()).collect()
}

fn holds(bytes: &[u8], part: &[u8]) -> bool {
    bytes.windows(part.len()).any(|window| window == part)
}

#[test]
fn words_are_archived_for_as_long_as_is_configured_and_the_history_outlives_them() {
    let mut settings = settings();
    settings.messages.archive_life = Some(Duration::from_secs(600));
    settings.messages.history_life = Duration::from_secs(1800);
    let mut desk = valley_with(settings);
    write(&mut desk, 1, "a", "2002", "secret words");
    let mt = only(take(&mut desk));
    answered(&mut desk, &mt, "200 OK");
    assert_eq!(explain(&mut desk, 1).words.as_deref(), Some("secret words"));
    let packed = encode("secret words").unwrap().bytes;
    desk.wait_s(590);
    assert!(holds(&everything(&desk), &packed));
    desk.wait_s(20);
    let explained = explain(&mut desk, 1);
    assert_eq!((explained.state, explained.words.as_deref()), ("delivered", None));
    assert!(!holds(&everything(&desk), &packed));
    desk.wait_s(1800);
    assert_eq!(no(ask(&mut desk, QueueAsk::Explain(1))).0, "no such text");
    let left: Vec<u8> = desk.stores.stores[&StoreId::Messages].durable().keys().map(|key| key[0]).collect();
    assert_eq!(left, b"n", "only the number of the next text");
}

#[test]
fn an_archive_may_outlive_the_history() {
    let mut settings = settings();
    settings.messages.archive_life = Some(Duration::from_secs(1800));
    settings.messages.history_life = Duration::from_secs(60);
    let mut desk = valley_with(settings);
    write(&mut desk, 1, "a", "2002", "secret words");
    let mt = only(take(&mut desk));
    answered(&mut desk, &mt, "200 OK");
    desk.wait_s(1700);
    assert_eq!(explain(&mut desk, 1).words.as_deref(), Some("secret words"));
    desk.wait_s(200);
    assert_eq!(no(ask(&mut desk, QueueAsk::Explain(1))).0, "no such text");
    let left: Vec<u8> = desk.stores.stores[&StoreId::Messages].durable().keys().map(|key| key[0]).collect();
    assert_eq!(left, b"n");
}

#[test]
fn a_part_of_a_long_text_is_shown_as_one_and_explained_as_the_whole() {
    let mut settings = settings();
    settings.messages.archive_life = Some(Duration::from_secs(600));
    let mut desk = valley_with(settings);
    let words = "long ".repeat(70);
    let parts = split(&words, &Cut::new(Reference::Short(9))).unwrap();
    assert_eq!(parts.len(), 3);
    for (n, data) in parts.into_iter().enumerate() {
        let submit = Submit { data, ..submit("2002", "", n as u8) };
        assert_eq!(code(&desk.send(HILL, FRONT, &sms(1, HILL, &format!("p{n}"), &submit))), 202);
    }
    let shown = show(&mut desk, 2);
    assert_eq!(shown.coding, "GSM, part 2 of 3");
    assert!(shown.words.is_some_and(|part| part.len() < words.len()));
    let mut mt = take(&mut desk);
    while let Some(first) = mt.first() {
        mt = answered(&mut desk, first, "200 OK");
    }
    assert_eq!(explain(&mut desk, 2).words, Some(words));
}

#[test]
fn codings_classes_and_ports_are_told() {
    let mut desk = valley();
    let ports = header_of(&[Ports::Long { destination: 5505, originator: 1 }.element()]).unwrap();
    let with_port = [&ports[..], b"data"].concat();
    let data = |coding, has_header, bytes: &[u8]| UserData {
        coding: Coding(coding),
        has_header,
        length: bytes.len() as u8,
        bytes: bytes.to_vec(),
    };
    let cases = [
        (encode("ж").unwrap(), "UCS-2", Some("ж")),
        (data(0x04, false, b"data"), "8 bit", None),
        (data(0x18, false, &[0x04, 0x36]), "UCS-2, class 0", Some("ж")),
        (data(0xf5, true, &with_port), "8 bit, class 1, to port 5505", None),
    ];
    for (nr, (data, coding, words)) in (1..).zip(cases) {
        let submit = Submit { data, ..submit("2003", "", nr as u8) };
        assert_eq!(code(&desk.send(HILL, FRONT, &sms(1, HILL, &format!("c{nr}"), &submit))), 202);
        let shown = show(&mut desk, nr);
        assert_eq!((shown.coding.as_str(), shown.words.as_deref()), (coding, words));
    }
}

#[test]
fn a_text_of_the_release_before_is_found_by_its_number() {
    // Version, flags, attempts, cause (absent); when it was accepted, its timestamp; sender, what he shows, what was dialled.
    let mut bytes = vec![1, 0, 0, 0, 0, 1, 1, 0, 0];
    bytes.extend_from_slice(&TODAY_MS.to_be_bytes());
    bytes.extend_from_slice(&(TODAY_MS / 1000).to_be_bytes());
    for part in [imsi(1).as_str(), "2001", "2003"] {
        bytes.push(part.len() as u8);
        bytes.extend_from_slice(part.as_bytes());
    }
    // Reference, protocol, coding, length; "hi"; no validity period.
    bytes.extend_from_slice(&[7, 0, 0, 2, 2, 0xe8, 0x34, 0]);
    let mut stores = disks();
    let store = stores.stores.get_mut(&StoreId::Messages).unwrap();
    let key = record::text_key(record::Recipient::Phone(imsi(3)), 7);
    store.write(encamp::store::Batch::default().put(key, bytes)).unwrap();
    store.sync().unwrap();
    let mut desk = Desk::of(WallTime { ms: TODAY_MS, trusted: true }, settings(), stores);
    let shown = show(&mut desk, 7);
    assert_eq!((shown.words.as_deref(), shown.text.state), (Some("hi"), "absent"));
    assert_eq!(texts(ask(&mut desk, QueueAsk::Drop(QueuePick::Text(7)))), 1);
    assert_eq!(explain(&mut desk, 7).state, "dropped");
}

// --- Again ---

#[test]
fn a_retry_is_at_once_and_no_text_overtakes_another() {
    let mut desk = valley();
    absent(&mut desk, &["one", "two"]);
    desk.wait_s(60);
    let (error, why) = no(ask(&mut desk, QueueAsk::Retry(QueuePick::Text(2))));
    assert_eq!((error.as_str(), why.contains("behind text 1")), ("not tried", true));
    assert!(take(&mut desk).is_empty());
    assert_eq!(texts(ask(&mut desk, QueueAsk::Retry(QueuePick::Phone(number("2002"))))), 1);
    let mt = only(take(&mut desk));
    assert_eq!(mt.words(), "one");
    assert_eq!(no(ask(&mut desk, QueueAsk::Retry(QueuePick::Text(1)))).1, "it is being tried at this moment");
    assert_eq!(no(ask(&mut desk, QueueAsk::Retry(QueuePick::Phone(number("2001"))))).0, "no such text");
    let mt = only(answered(&mut desk, &mt, "200 OK"));
    answered(&mut desk, &mt, "200 OK");
    assert!(all(&mut desk).is_empty() && desk.is_at_rest());
    assert!(steps(&explain(&mut desk, 1)).contains(&"tried again by the operator"));
}

// --- Away ---

fn answer_to(message: &str) -> String {
    let line = |name: &str| message.lines().find(|line| line.starts_with(&format!("{name}: "))).unwrap();
    let echo = ["Via", "From", "To", "Call-ID", "CSeq"].map(|name| format!("{}\r\n", line(name)));
    format!("SIP/2.0 200 OK\r\n{}Content-Length: 0\r\n\r\n", echo.concat())
}

/// The statuses of the reports that leave, each answered.
fn reports(desk: &mut Desk) -> Vec<(String, u8)> {
    let mut statuses = Vec::new();
    loop {
        let sent = desk.take_sent();
        let Some((station, text)) =
            sent.iter().map(|sent| (sent.to, sent.text())).find(|(_, text)| text.starts_with("MESSAGE "))
        else {
            return statuses;
        };
        let (_, body) = text.split_once("\r\n\r\n").unwrap();
        let octets = from_hex(body.as_bytes()).unwrap();
        let (Rpdu::DataToPhone { tpdu, .. }, 0) = Rpdu::decode(&octets).unwrap() else { panic!("{body}") };
        let (report, 0) = StatusReport::decode(tpdu).unwrap() else { panic!("{body}") };
        statuses.push((report.recipient.number(), report.status.0));
        let answer = answer_to(&text);
        desk.send(&station.to_string(), FRONT, &answer);
    }
}

#[test]
fn what_is_dropped_or_expired_ends_once_and_who_asked_is_told() {
    let mut desk = valley();
    for (n, id) in ["a", "b"].iter().enumerate() {
        let submit = Submit { report_wanted: true, ..submit("2003", "hello", n as u8) };
        assert_eq!(code(&desk.send(HILL, FRONT, &sms(1, HILL, id, &submit))), 202);
    }
    assert_eq!(texts(ask(&mut desk, QueueAsk::Drop(QueuePick::Text(1)))), 1);
    assert_eq!(reports(&mut desk), [("2003".into(), 0x48)], "deleted by the centre");
    assert_eq!(texts(ask(&mut desk, QueueAsk::Expire(QueuePick::Text(2)))), 1);
    assert_eq!(reports(&mut desk), [("2003".into(), 0x46)], "its time is over");
    assert!(all(&mut desk).is_empty() && desk.is_at_rest());
    assert_eq!(explain(&mut desk, 1).state, "dropped");
    assert_eq!(steps(&explain(&mut desk, 1))[2], "dropped: by the operator");
    assert_eq!(explain(&mut desk, 2).state, "expired");
    assert_eq!(no(ask(&mut desk, QueueAsk::Drop(QueuePick::Text(1)))).0, "it does not wait any more");
    assert_eq!((happened(&desk, "text_dropped"), happened(&desk, "text_expired")), (1, 1));
    desk.restart();
    assert!(all(&mut desk).is_empty());
}

#[test]
fn what_is_under_way_is_not_dropped() {
    let mut desk = valley();
    write(&mut desk, 1, "a", "2002", "one");
    let mt = only(take(&mut desk));
    for id in ["b", "c"] {
        write(&mut desk, 1, id, "2002", id);
    }
    assert_eq!(no(ask(&mut desk, QueueAsk::Drop(QueuePick::Text(1)))).0, "not ended");
    assert_eq!(texts(ask(&mut desk, QueueAsk::Drop(QueuePick::Phone(number("2002"))))), 2, "without it");
    assert!(answered(&mut desk, &mt, "200 OK").is_empty());
    assert!(all(&mut desk).is_empty() && desk.is_at_rest());
    assert_eq!((happened(&desk, "text_dropped"), happened(&desk, "text_delivered")), (2, 1));
    assert_eq!(no(ask(&mut desk, QueueAsk::Drop(QueuePick::Phone(number("2002"))))).0, "no such text");
}

#[test]
fn a_drop_does_not_page_a_phone_that_is_absent() {
    let mut desk = valley();
    absent(&mut desk, &["one", "two"]);
    assert_eq!(texts(ask(&mut desk, QueueAsk::Drop(QueuePick::Text(1)))), 1);
    desk.wait_s(300);
    assert!(take(&mut desk).is_empty());
    assert_eq!(all(&mut desk)[0].state, "absent");
    assert_eq!(desk.cell(2, "bts", 9, 3600), 200);
    let mt = only(take(&mut desk));
    assert_eq!(mt.words(), "two");
    answered(&mut desk, &mt, "200 OK");
    assert!(all(&mut desk).is_empty() && desk.is_at_rest());
}

#[test]
fn a_drop_is_answered_when_the_disk_has_it() {
    let mut desk = valley();
    absent(&mut desk, &["one"]);
    desk.slow = true;
    assert!(desk.try_command(Command::Queue(QueueAsk::Drop(QueuePick::Text(1)))).is_none());
    desk.slow = false;
    desk.handle(encamp::seam::Input::Timeout);
    assert_eq!(texts(desk.take_answer().unwrap()), 1);
    // And a store that refuses is told of.
    absent(&mut desk, &["three"]);
    desk.stores.stores.get_mut(&StoreId::Messages).unwrap().set_full(true);
    let id = all(&mut desk)[0].id.parse().unwrap();
    assert_eq!(no(ask(&mut desk, QueueAsk::Drop(QueuePick::Text(id)))).0, "not on the disk");
    assert!(all(&mut desk).is_empty());
    assert_eq!(no(ask(&mut desk, QueueAsk::Show(id))).0, "it does not wait any more");
    desk.stores.stores.get_mut(&StoreId::Messages).unwrap().set_full(false);
    desk.wait_s(2);
    assert_eq!(explain(&mut desk, id).state, "dropped");
}

#[test]
fn a_long_queue_is_dropped_in_pieces_and_none_of_it_is_sent_meanwhile() {
    let mut desk = flood(1_200, |_| 1);
    assert_eq!(desk.cell(3, "bts", 1, 3600), 200);
    let mt = only(take(&mut desk));
    answered(&mut desk, &mt, "480 No_Paging_Response");
    let mut answer = desk.try_command(Command::Queue(QueueAsk::Drop(QueuePick::Phone(number("2003")))));
    assert!(answer.is_none(), "500 at a time");
    let mut turns = 0;
    while answer.is_none() {
        desk.wait_ms(1);
        turns += 1;
        answer = desk.take_answer();
    }
    assert_eq!((texts(answer.unwrap()), turns), (1_200, 2));
    assert!(take(&mut desk).is_empty() && all(&mut desk).is_empty());
    assert_eq!(happened(&desk, "text_dropped"), 1_200);
}

#[test]
fn a_part_that_is_under_way_with_its_head_is_neither_dropped_nor_expired() {
    let mut settings = settings();
    settings.messages.life_max = Duration::from_secs(60);
    let mut desk = valley_with(settings);
    assert_eq!(desk.soft(3, "<sip:me@192.0.2.11:5090>", "3600"), 200);
    let parts = split(&"long ".repeat(50), &Cut::new(Reference::Short(9))).unwrap();
    assert_eq!(parts.len(), 2);
    desk.take_sent();
    for (n, data) in parts.into_iter().enumerate() {
        let submit = Submit { data, ..submit("2003", "", n as u8) };
        assert_eq!(code(&desk.send(HILL, FRONT, &sms(1, HILL, &format!("p{n}"), &submit))), 202);
    }
    // Silence, and then again shortly before its time is over.
    desk.wait_s(50);
    assert_eq!(ids(&all(&mut desk)), ["1", "2"]);
    desk.take_sent();
    assert_eq!(texts(ask(&mut desk, QueueAsk::Retry(QueuePick::Text(1)))), 1);
    let message = only(desk.take_sent()).text();
    assert!(message.starts_with("MESSAGE ") && message.contains("text/plain"), "{message}");
    assert_eq!(no(ask(&mut desk, QueueAsk::Drop(QueuePick::Text(2)))).0, "not ended");
    desk.wait_s(15);
    desk.send("192.0.2.11:5090", FRONT, &answer_to(&message));
    assert_eq!((happened(&desk, "text_delivered"), happened(&desk, "text_expired")), (2, 0));
    assert!(all(&mut desk).is_empty() && desk.is_at_rest());
}

// --- What is counted ---

#[test]
fn a_copy_of_a_refused_text_is_neither_counted_nor_recorded_again() {
    let mut desk = valley();
    assert_eq!(code(&write(&mut desk, 1, "a", "2109", "hello?")), 404);
    let repeat = Submit { reject_duplicates: true, ..submit("2109", "hello?", b'a') };
    assert_eq!(code(&desk.send(HILL, FRONT, &sms(1, HILL, "b", &repeat))), 404);
    assert_eq!((happened(&desk, "text_refused"), happened(&desk, "text_duplicate")), (1, 1));
    assert_eq!(desk.text_records.len(), 1);
    assert_eq!((desk.text_records[0].id.as_str(), desk.text_records[0].code), ("", 404));
}

#[test]
fn each_kind_of_failure_has_its_counter() {
    let mut desk = valley();
    for (id, status, counter) in [
        ("a", "480 No_Paging_Response", "phone_absent"),
        ("b", "400 Bad Request", "text_attempt_failed_4xx"),
        ("c", "503 Service Unavailable", "text_attempt_failed_5xx"),
        ("d", "600 Busy Everywhere", "text_attempt_failed_6xx"),
    ] {
        write(&mut desk, 1, id, "2002", id);
        let mt = only(take(&mut desk));
        answered(&mut desk, &mt, status);
        assert_eq!(happened(&desk, counter), 1, "{counter}");
        assert_eq!(texts(ask(&mut desk, QueueAsk::Drop(QueuePick::Phone(number("2002"))))), 1);
        desk.wait_s(3);
    }
    assert!(desk.events.iter().any(|event| matches!(event, Event::TextEnded { .. })));
}

#[test]
fn a_node_without_a_message_centre_says_so() {
    let mut stores = disks();
    stores.stores.remove(&StoreId::Messages);
    let mut desk = Desk::of(WallTime { ms: TODAY_MS, trusted: true }, settings(), stores);
    assert_eq!(no(ask(&mut desk, QueueAsk::Show(1))).0, "there are no texts");
    assert_eq!(no(ask(&mut desk, QueueAsk::List(QueueFilter::default()))).0, "there are no texts");
}
