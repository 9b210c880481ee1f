//! The numbers that the message centre answers itself, and what it tells a phone that comes.

mod desk;

use std::collections::BTreeMap;
use std::time::Duration;

use desk::texts::*;
use desk::{Desk, TODAY_MS, imsi, settings};
use encamp::config::{BaseStation, CodeAction, Settings, ShortCode, Subscriber, Subscribers, Welcome};
use encamp::gsm::auc::Auth;
use encamp::gsm::header::Reference;
use encamp::gsm::segment::{Cut, split};
use encamp::ident::{Imsi, Language, Msisdn};
use encamp::seam::{HTTP_ANSWER_BYTES_MAX, HttpAnswer, HttpFailure, Input, NotGiven, TextOutcome};
use encamp::sms::record::{self, Recipient, Text};
use encamp::store::memory::{MemoryStore, MemoryStores};
use encamp::store::{Store as _, StoreId};
use encamp::time::WallTime;

/// A subscriber without a number, and one who reads Swahili.
const NAMELESS: u64 = 7;
const ASHA: u64 = 3;

fn number(text: &str) -> Msisdn {
    Msisdn::parse(text).unwrap()
}

fn code_of(text: &str, does: CodeAction, senders: Option<&[&str]>) -> ShortCode {
    let senders = senders.map(|senders| senders.iter().map(|text| number(text)).collect());
    ShortCode { number: number(text), does, senders }
}

fn hook() -> CodeAction {
    CodeAction::Hook { url: "http://127.0.0.1:8000/sms".into(), timeout: Duration::from_secs(5) }
}

fn subscriber(phone: u64, numbers: &[&str]) -> Subscriber {
    Subscriber {
        imsi: imsi(phone),
        msisdn: numbers.iter().map(|text| number(text)).collect(),
        name: format!("somebody {phone}").into(),
        auth: Auth::None,
        barred: false,
        language: None,
        mail: None,
        file: "codes".into(),
        line: 1,
    }
}

fn of_settings(short_codes: Vec<ShortCode>) -> Settings {
    let swahili = Language::parse("sw").ok();
    let mut all: Vec<Subscriber> = (0..4).map(|phone| subscriber(phone, &[&format!("200{phone}")])).collect();
    all[ASHA as usize].language = swahili;
    all.push(subscriber(NAMELESS, &[]));
    Settings { short_codes, subscribers: std::sync::Arc::new(Subscribers::new(all)), ..settings() }
}

fn desk_of(settings: Settings) -> Desk {
    let mut stores = MemoryStores::default();
    for id in [StoreId::Node, StoreId::Messages, StoreId::Replica(0), StoreId::Replica(1)] {
        stores.stores.insert(id, MemoryStore::new());
    }
    let mut desk = Desk::of(WallTime { ms: TODAY_MS, trusted: true }, settings, stores);
    for phone in [1, 2, ASHA, NAMELESS] {
        assert_eq!(desk.cell(phone, "bts", phone as u32, 3600), 200);
    }
    desk.take_sent();
    desk
}

fn with(short_codes: Vec<ShortCode>) -> Desk {
    desk_of(of_settings(short_codes))
}

/// What a phone has got: who it is, whom it shows as the sender, the words.
type Got = (u64, String, String);

/// Every phone takes what it is sent, until nothing is sent any more.
fn inbox(desk: &mut Desk) -> Vec<Got> {
    let mut got = Vec::new();
    let mut mts = take(desk);
    while !mts.is_empty() {
        let mt = mts.remove(0);
        let user = mt.sip.strip_prefix("MESSAGE sip:IMSI").unwrap();
        let phone = user[11..15].parse().unwrap();
        got.push((phone, mt.deliver.originator.number(), mt.words()));
        mts.extend(answered(desk, &mt, "200 OK"));
    }
    got
}

/// Time passes, and every phone takes what comes.
fn wait(desk: &mut Desk, seconds: u64) -> Vec<Got> {
    let mut got = Vec::new();
    for _ in 0..seconds {
        desk.wait_s(1);
        got.extend(inbox(desk));
    }
    got
}

/// A phone writes to a number of the centre's; what comes of it at once.
fn ask(desk: &mut Desk, from: u64, call_id: &str, to: &str, words: &str) -> Vec<Got> {
    let sent = write(desk, from, call_id, to, words);
    assert_eq!(code(&sent), 202, "{sent:?}");
    inbox(desk)
}

/// The one answer, which the phone got from this number.
fn answer_of(got: Vec<Got>, phone: u64, from: &str) -> String {
    let (to, shown, words) = only(got);
    assert_eq!((to, shown.as_str()), (phone, from));
    words
}

fn happened(desk: &Desk, name: &str) -> usize {
    desk.events.iter().filter(|event| event.name() == name).count()
}

/// All texts that wait, by the store.
fn waiting(desk: &Desk) -> Vec<Text> {
    let store = &desk.stores.stores[&StoreId::Messages];
    let all = store.scan(record::TEXT_PREFIX, None, 100_000).unwrap();
    let read = |(key, value): (Vec<u8>, Vec<u8>)| {
        let (recipient, number) = record::read_text_key(&key).unwrap();
        record::decode(recipient, number, &value).unwrap()
    };
    all.into_iter().map(read).collect()
}

fn assert_rest(desk: &Desk) {
    assert!(desk.is_at_rest() && waiting(desk).is_empty(), "{:?}", waiting(desk));
}

fn last_end(desk: &Desk, to: &str) -> TextOutcome {
    desk.text_records.iter().rev().find(|record| record.to == to).unwrap().outcome
}

/// A text in parts, from this phone.
fn parts(from: u64, to: &str, words: &str, call_id: &str) -> Vec<String> {
    let cut = split(words, &Cut::new(Reference::Short(77))).unwrap();
    let part = |(n, data)| {
        let submit = encamp::gsm::tpdu::Submit { data, ..submit(to, "", 100 + n as u8) };
        sms(from, HILL, &format!("{call_id}{n}"), &submit)
    };
    cut.into_iter().enumerate().map(part).collect()
}

fn http(status: u16, content_type: &str, body: &str) -> Result<HttpAnswer, HttpFailure> {
    Ok(HttpAnswer { status, content_type: content_type.into(), body: body.into() })
}

/// The program answers the last question; what comes of it.
fn hooked(desk: &mut Desk, result: Result<HttpAnswer, HttpFailure>) -> Vec<Got> {
    let id = desk.posts.last().expect("a program is asked").id;
    desk.handle(Input::HttpDone { id, result });
    inbox(desk)
}

fn json(body: &str) -> Result<HttpAnswer, HttpFailure> {
    http(200, "application/json", body)
}

// --- What is answered at once ---

#[test]
fn ones_own_number_is_told_and_how_to_choose_one() {
    let mut desk =
        with(vec![code_of("101", CodeAction::ChooseNumber, None), code_of("412", CodeAction::OwnNumber, None)]);
    for (n, to) in ["412", "+412", "1000"].into_iter().enumerate() {
        let words = answer_of(ask(&mut desk, 1, &format!("a{n}"), to, "?"), 1, to.trim_start_matches('+'));
        assert_eq!(words, "Your number is 2001.");
    }
    let words = answer_of(ask(&mut desk, NAMELESS, "b", "412", ""), NAMELESS, "412");
    assert_eq!(words, "You have no number yet. Text the one that you would like to have to 101.");
    assert_rest(&desk);
    assert_eq!(last_end(&desk, "412"), TextOutcome::Answered);
    desk.set(|settings| settings.short_codes.clear());
    assert_eq!(answer_of(ask(&mut desk, NAMELESS, "c", "1000", ""), NAMELESS, "1000"), "Your number is -.");
}

#[test]
fn the_state_of_the_network_and_of_the_sender() {
    let mut desk = with(vec![code_of("411", CodeAction::Status, None)]);
    desk.set(|settings| settings.messages.time_zone_quarters = 12);
    for n in 0..3 {
        write(&mut desk, 1, &format!("w{n}"), "2000", "to one who was never here");
    }
    let words = answer_of(ask(&mut desk, 1, "a", "411", "?"), 1, "411");
    assert_eq!(words, "3 texts wait, 0 of them for you. Number 2001, cell hill, 17:13.");
    let words = answer_of(ask(&mut desk, NAMELESS, "b", "411", "?"), NAMELESS, "411");
    assert!(words.contains("Number -,"), "{words}");
}

#[test]
fn a_fixed_answer_is_in_the_language_of_the_sender() {
    let [sw, en] = ["sw", "en"].map(|text| Language::parse(text).ok());
    let words = vec![(en, "open {number}".to_owned()), (sw, "wazi".to_owned())];
    let mut desk = with(vec![code_of("300", CodeAction::Answer(words), None)]);
    assert_eq!(answer_of(ask(&mut desk, 1, "a", "300", "?"), 1, "300"), "open {number}", "it is no template");
    assert_eq!(answer_of(ask(&mut desk, ASHA, "b", "300", "?"), ASHA, "300"), "wazi");
    desk.set(|settings| {
        settings.short_codes[0].does = CodeAction::Answer(vec![(None, "all".into()), (sw, "wazi".into())]);
    });
    assert_eq!(answer_of(ask(&mut desk, 1, "c", "300", "?"), 1, "300"), "all");
}

#[test]
fn who_is_not_among_the_senders_is_told_so() {
    let mut desk = with(vec![code_of("302", hook(), Some(&["+2001", "2009"]))]);
    let words = answer_of(ask(&mut desk, 2, "a", "302", "let me in"), 2, "302");
    assert_eq!(words, "302 does not take texts from your number.");
    assert_eq!((desk.posts.len(), last_end(&desk, "302")), (0, TextOutcome::Failed));
    assert!(ask(&mut desk, 1, "b", "302", "me").is_empty());
    assert_eq!(desk.posts.len(), 1, "a number counts with and without its +");
}

#[test]
fn a_question_ends_where_its_answer_has_no_room() {
    let mut desk = with(vec![code_of("412", CodeAction::OwnNumber, None)]);
    desk.set(|settings| settings.messages.count_per_phone_max = 1);
    write(&mut desk, 2, "w", "2001", "it is in the way");
    let in_the_way = only(take(&mut desk));
    assert_eq!(code(&write(&mut desk, 1, "a", "412", "?")), 202);
    assert_eq!(happened(&desk, "text_not_told"), 1);
    assert_eq!(last_end(&desk, "412"), TextOutcome::Answered);
    assert!(answered(&mut desk, &in_the_way, "200 OK").is_empty());
    assert_rest(&desk);
}

#[test]
fn a_store_that_refuses_the_answer_takes_it_later_and_once() {
    let mut desk = with(vec![code_of("301", hook(), None)]);
    ask(&mut desk, 1, "a", "301", "x");
    desk.stores.stores.get_mut(&StoreId::Messages).unwrap().set_full(true);
    assert!(hooked(&mut desk, http(200, "text/plain", "well")).is_empty());
    desk.wait_s(5);
    desk.stores.stores.get_mut(&StoreId::Messages).unwrap().set_full(false);
    desk.wait_s(2);
    assert_eq!(answer_of(inbox(&mut desk), 1, "301"), "well");
    assert_eq!(desk.posts.len(), 1);
    assert_rest(&desk);
}

/// After each sync that there is from the question to the answer the power fails once.
#[test]
fn a_power_cut_at_any_step_loses_no_answer_and_doubles_none() {
    let members: Vec<Msisdn> = ["2001", "2002", "2003"].map(number).to_vec();
    let codes = vec![
        code_of("412", CodeAction::OwnNumber, None),
        code_of("301", hook(), None),
        code_of("302", CodeAction::Group { members }, None),
    ];
    for (to, expected) in [("412", 1), ("301", 1), ("302", 3)] {
        let mut accepted = 0;
        for syncs in 0..16 {
            let mut desk = with(codes.clone());
            desk.syncs_left = Some(syncs);
            let question = sms(1, HILL, "a", &submit(to, "hello", 9));
            accepted += usize::from(code(&desk.send(HILL, FRONT, &question)) == 202);
            let mut known = std::collections::BTreeSet::new();
            let mut collect = |desk: &mut Desk| {
                for (n, post) in std::mem::take(&mut desk.posts).into_iter().enumerate() {
                    let answer = http(200, "text/plain", "well");
                    desk.handle(Input::HttpDone { id: post.id, result: answer });
                    assert_eq!(n, 0);
                }
                let mut mts = take(desk);
                while !mts.is_empty() {
                    let mt = mts.remove(0);
                    known.insert((mt.header("To").to_owned(), mt.identity()));
                    mts.extend(answered(desk, &mt, "200 OK"));
                }
            };
            collect(&mut desk);
            desk.syncs_left = None;
            desk.restart();
            // The phone that has heard nothing says it again.
            assert_eq!(code(&desk.send(HILL, FRONT, &question)), 202);
            for _ in 0..10 {
                desk.wait_s(1);
                collect(&mut desk);
            }
            assert_eq!(known.len(), expected, "{to} after {syncs} syncs: {known:?}");
            assert_rest(&desk);
        }
        assert!(accepted > 5, "the cut came early and late");
    }
}

// --- Choose your number ---

fn choosing() -> Desk {
    with(vec![code_of("101", CodeAction::ChooseNumber, None), code_of("411", CodeAction::Status, None)])
}

/// The operator's files give somebody a number.
fn give(desk: &mut Desk, phone: u64, numbers: &[&str]) {
    let gets = subscriber(phone, numbers);
    desk.set(|settings| {
        let mut all: BTreeMap<Imsi, Subscriber> =
            settings.subscribers.iter().map(|subscriber| (subscriber.imsi, subscriber.clone())).collect();
        all.insert(gets.imsi, gets);
        settings.subscribers = std::sync::Arc::new(Subscribers::new(all.into_values()));
    });
}

#[test]
fn one_without_a_number_chooses_one() {
    let mut desk = choosing();
    assert!(ask(&mut desk, NAMELESS, "a", "101", "555-01 01").is_empty());
    let (id, who, asked) = only(std::mem::take(&mut desk.given));
    assert_eq!((who, asked), (imsi(NAMELESS), number("5550101")));
    assert!(!desk.is_at_rest());
    give(&mut desk, NAMELESS, &["5550101"]);
    desk.handle(Input::NumberGiven { id, result: Ok(()) });
    let words = answer_of(inbox(&mut desk), NAMELESS, "101");
    assert_eq!(words, "Your number is 5550101 now. Text to 411 for the state of this network.");
    assert_rest(&desk);
    desk.handle(Input::NumberGiven { id, result: Ok(()) });
    desk.wait_s(30);
    assert!(inbox(&mut desk).is_empty(), "it is said once");
}

#[test]
fn what_is_no_number_or_somebodys_is_asked_for_again() {
    let mut desk = choosing();
    for (n, (words, answer)) in [
        ("call me Al", "Text a number of 7 to 10 digits to 101."),
        ("12345", "Text a number of 7 to 10 digits to 101."),
        ("+5550101", "Text a number of 7 to 10 digits to 101."),
        ("", "Text a number of 7 to 10 digits to 101."),
    ]
    .into_iter()
    .enumerate()
    {
        let got = ask(&mut desk, NAMELESS, &format!("a{n}"), "101", words);
        assert_eq!(answer_of(got, NAMELESS, "101"), answer, "{words}");
    }
    give(&mut desk, 2, &["+5550101"]);
    let got = ask(&mut desk, NAMELESS, "b", "101", "5550101");
    assert_eq!(answer_of(got, NAMELESS, "101"), "5550101 is in use already. Text another one to 101.");
    let got = ask(&mut desk, 1, "c", "101", "5550101");
    assert_eq!(answer_of(got, 1, "101"), "Your number is 2001 already.");
    assert!(desk.given.is_empty());
    // Somebody was faster, or the file cannot be written, or nobody says anything.
    for (n, (result, answer)) in [
        (Some(NotGiven::Taken), "5550102 is in use already. Text another one to 101."),
        (Some(NotGiven::Failed("no room".into())), "5550102 could not be given to you. Try again later."),
        (None, "5550102 could not be given to you. Try again later."),
    ]
    .into_iter()
    .enumerate()
    {
        assert!(ask(&mut desk, NAMELESS, &format!("d{n}"), "101", "5550102").is_empty());
        let (id, ..) = desk.given.pop().unwrap();
        match result {
            Some(no) => desk.handle(Input::NumberGiven { id, result: Err(no) }),
            None => desk.wait_s(10),
        }
        assert_eq!(answer_of(inbox(&mut desk), NAMELESS, "101"), answer);
        desk.handle(Input::NumberGiven { id, result: Ok(()) });
        assert!(inbox(&mut desk).is_empty(), "too late");
        assert_rest(&desk);
    }
    assert_eq!(happened(&desk, "number_not_given"), 2);
}

#[test]
fn a_power_cut_while_a_number_is_given_asks_again_and_tells_once() {
    for was_given in [false, true] {
        let mut desk = choosing();
        ask(&mut desk, NAMELESS, "a", "101", "5550101");
        if was_given {
            give(&mut desk, NAMELESS, &["5550101"]);
        }
        desk.given.clear();
        desk.restart();
        desk.wait_s(4);
        if !was_given {
            let (id, _, asked) = only(std::mem::take(&mut desk.given));
            assert_eq!(asked, number("5550101"));
            desk.handle(Input::NumberGiven { id, result: Ok(()) });
        }
        assert!(desk.given.is_empty());
        let words = answer_of(inbox(&mut desk), NAMELESS, "101");
        assert!(words.starts_with("Your number is 5550101 now."), "{words}");
        assert_rest(&desk);
    }
}

// --- Programs ---

#[test]
fn a_program_is_told_all_that_it_needs_and_answers_the_sender() {
    let mut desk = with(vec![code_of("301", hook(), None)]);
    assert!(ask(&mut desk, ASHA, "a", "301", "bei ya \"mahindi\"\n").is_empty());
    let post = only(desk.posts.clone());
    assert_eq!((post.url.as_str(), post.timeout), ("http://127.0.0.1:8000/sms", Duration::from_secs(5)));
    let body: serde_json::Value = serde_json::from_str(&post.body).unwrap();
    let id = body["id"].as_str().unwrap().to_owned();
    let expected = serde_json::json!({
        "id": id, "to": "301", "from": "2003", "from_imsi": imsi(ASHA).to_string(), "from_name": "somebody 3",
        "text": "bei ya \"mahindi\"\n", "received": "2026-09-21T14:13:20Z", "language": "sw",
    });
    assert_eq!(body, expected);
    assert!(!desk.is_at_rest());
    let got = hooked(&mut desk, json(r#"{"text": "40 for a sack", "more": 1}"#));
    assert_eq!(answer_of(got, ASHA, "301"), "40 for a sack");
    assert_rest(&desk);
    assert_eq!(last_end(&desk, "301"), TextOutcome::Answered);
    for (n, (answer, words)) in [
        (http(200, "text/plain", "straight {number}\n"), Some("straight {number}")),
        (http(204, "", ""), None),
        (http(200, "text/html", " \n"), None),
        (json(r#"{"text": ""}"#), None),
        (json("{}"), None),
        (json(r#"{"text": null, "texts": []}"#), None),
    ]
    .into_iter()
    .enumerate()
    {
        ask(&mut desk, 1, &format!("b{n}"), "301", "?");
        let got = hooked(&mut desk, answer);
        assert_eq!(got.into_iter().map(|(_, _, words)| words).collect::<Vec<_>>(), Vec::from_iter(words));
        assert_rest(&desk);
    }
    assert_eq!(happened(&desk, "hook_failed"), 0);
}

#[test]
fn a_program_writes_to_others_and_no_more_than_it_may() {
    let mut desk = with(vec![code_of("301", hook(), None)]);
    ask(&mut desk, 1, "a", "301", "?");
    let to = |to: &str, text: &str| format!(r#"{{"to": "{to}", "text": "{text}"}}"#);
    let texts = [to("2002", "to two"), to("+2001", "to you"), to("2999", "to nobody"), to("2003", " ")];
    let got = hooked(&mut desk, json(&format!(r#"{{"text": "first", "texts": [{}]}}"#, texts.join(","))));
    let mut got: Vec<_> = got.iter().map(|(phone, from, words)| (*phone, from.as_str(), words.as_str())).collect();
    got.sort_unstable();
    assert_eq!(got, [(1, "301", "first"), (1, "301", "to you"), (2, "301", "to two")]);
    assert_eq!(happened(&desk, "hook_failed"), 1, "what it wrote to nobody is counted");
    ask(&mut desk, 1, "b", "301", "?");
    let many: Vec<String> = (0..25).map(|n| to("2002", &format!("n{n}"))).collect();
    let got = hooked(&mut desk, json(&format!(r#"{{"texts": [{}]}}"#, many.join(","))));
    assert_eq!(got.len(), 20);
    assert_eq!(got[19].2, "n19");
    assert_rest(&desk);
}

#[test]
fn a_long_answer_is_cut_to_ten_parts() {
    let mut desk = with(vec![code_of("301", hook(), None)]);
    for (n, (letter, length)) in [('x', 1530), ('Ж', 670)].into_iter().enumerate() {
        ask(&mut desk, 1, &format!("a{n}"), "301", "?");
        let body = letter.to_string().repeat(4_000);
        let got = hooked(&mut desk, http(200, "text/plain", &body));
        assert_eq!(got.len(), 10);
        let all: String = got.into_iter().map(|(_, _, words)| words).collect();
        assert_eq!(all, letter.to_string().repeat(length));
    }
    assert_rest(&desk);
}

#[test]
fn a_program_that_says_no_ends_the_question_in_words() {
    let mut desk = with(vec![code_of("301", hook(), None)]);
    let answers = [
        http(404, "text/plain", "no such thing"),
        http(302, "", ""),
        http(400, "application/json", r#"{"text": "no"}"#),
        json("[]x"),
        json(r#"{"texts": 7}"#),
        http(200, "text/html", "<html>"),
        Ok(HttpAnswer { status: 200, content_type: "text/plain".into(), body: vec![0xFF, 0xFE, 0x41] }),
        http(200, "text/plain", &"a".repeat(HTTP_ANSWER_BYTES_MAX + 1)),
    ];
    for (n, answer) in answers.into_iter().enumerate() {
        ask(&mut desk, 1, &format!("a{n}"), "301", "?");
        let words = answer_of(hooked(&mut desk, answer), 1, "301");
        assert_eq!(words, "301 could not be reached: your text was not sent.");
        assert_eq!(last_end(&desk, "301"), TextOutcome::Failed);
        assert_rest(&desk);
    }
    assert_eq!((happened(&desk, "hook_failed"), desk.posts.len()), (8, 8));
    let log: String = desk.events.iter().map(|event| event.to_string()).collect();
    assert!(!log.contains("no such thing") && !log.contains("127.0.0.1:8000"), "{log}");
}

#[test]
fn a_program_that_cannot_is_asked_again_with_the_same_id() {
    let mut desk = with(vec![code_of("301", hook(), None)]);
    ask(&mut desk, 1, "a", "301", "?");
    let mut answers =
        vec![http(500, "", ""), http(429, "", ""), Err(HttpFailure("connection refused".into())), http(503, "", "")];
    let mut asked = 1;
    while let Some(answer) = answers.pop() {
        assert!(hooked(&mut desk, answer).is_empty());
        assert!(desk.is_at_rest(), "a pause is nothing under way");
        asked += 1;
        (0..100).for_each(|_| {
            if desk.posts.len() < asked {
                desk.wait_s(1)
            }
        });
        assert_eq!(desk.posts.len(), asked);
    }
    assert!(desk.posts.iter().all(|post| post.body == desk.posts[0].body));
    assert_eq!(answer_of(hooked(&mut desk, http(200, "text/plain", "at last")), 1, "301"), "at last");
    assert_rest(&desk);
}

#[test]
fn a_program_that_never_answers_is_asked_five_times_and_its_sender_told() {
    let mut desk = with(vec![code_of("301", hook(), None)]);
    ask(&mut desk, 1, "a", "301", "?");
    desk.wait_s(9);
    assert!(!desk.is_at_rest());
    desk.wait_s(1);
    assert!(desk.is_at_rest(), "timeout and grace, though the shell says nothing");
    let late = desk.posts[0].id;
    desk.handle(Input::HttpDone { id: late, result: http(200, "text/plain", "late") });
    assert!(inbox(&mut desk).is_empty(), "a late answer is none");
    let words = answer_of(wait(&mut desk, 200), 1, "301");
    assert_eq!(words, "301 could not be reached: your text was not sent.");
    assert_eq!((desk.posts.len(), last_end(&desk, "301")), (5, TextOutcome::Failed));
    assert!(desk.posts.iter().all(|post| post.body == desk.posts[0].body));
    assert!(wait(&mut desk, 600).is_empty(), "it is said once");
    assert_eq!(desk.posts.len(), 5);
    assert_rest(&desk);
}

#[test]
fn a_restart_begins_no_new_count_of_what_a_program_did_not_answer() {
    let mut desk = with(vec![code_of("301", hook(), None)]);
    ask(&mut desk, 1, "a", "301", "?");
    let (mut told, mut asked) = (Vec::new(), 0);
    for status in [408, 503, 500, 429, 503] {
        asked += 1;
        for _ in 0..100 {
            if desk.posts.len() < asked {
                desk.wait_s(1);
            }
        }
        told.extend(hooked(&mut desk, http(status, "", "")));
        desk.restart();
    }
    assert_eq!(
        answer_of([told, wait(&mut desk, 10)].concat(), 1, "301"),
        "301 could not be reached: your text was not sent."
    );
    wait(&mut desk, 600);
    assert_eq!(desk.posts.len(), 5);
    assert_rest(&desk);
}

#[test]
fn eight_of_one_number_are_asked_at_a_time_and_one_of_a_sender() {
    let mut settings = of_settings(vec![code_of("301", hook(), None), code_of("302", hook(), None)]);
    let all = (0..30).map(|phone| subscriber(phone, &[&format!("20{phone:02}")]));
    settings.subscribers = std::sync::Arc::new(Subscribers::new(all));
    let mut desk = desk_of(settings);
    for phone in 0..12 {
        desk.cell(phone, "bts", 100 + phone as u32, 3600);
        for n in 0..2 {
            write(&mut desk, phone, &format!("a{phone}-{n}"), "301", &format!("{n}"));
        }
    }
    assert_eq!(desk.posts.len(), 8);
    write(&mut desk, 1, "other", "302", "x");
    assert_eq!(desk.posts.len(), 9, "another number has places of its own");
    let mut answered = 0;
    while answered < desk.posts.len() {
        let post = desk.posts[answered].clone();
        desk.handle(Input::HttpDone { id: post.id, result: http(204, "", "") });
        answered += 1;
        let under_way = desk.posts.len() - answered;
        assert!(under_way <= 9, "{under_way}");
    }
    assert_eq!(answered, 25);
    let mut senders: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for post in desk.posts.iter().filter(|post| post.body.contains("\"301\"")) {
        let body: serde_json::Value = serde_json::from_str(&post.body).unwrap();
        senders.entry(body["from"].to_string()).or_default().push(body["text"].as_str().unwrap().into());
    }
    assert_eq!(senders.len(), 12);
    assert!(senders.values().all(|texts| texts == &["0", "1"]), "each in his order: {senders:?}");
    assert_rest(&desk);
}

#[test]
fn a_number_that_is_taken_away_meanwhile_ends_what_is_under_way() {
    let members: Vec<Msisdn> = (0..500).map(|n| number(&format!("3{n:03}"))).collect();
    let mut settings = of_settings(vec![
        code_of("301", hook(), None),
        code_of("302", CodeAction::Group { members: members.clone() }, None),
    ]);
    let all = members.iter().zip(1000..).map(|(number, phone)| subscriber(phone, &[&number.to_string()]));
    let all: Vec<Subscriber> = settings.subscribers.iter().cloned().chain(all).collect();
    settings.subscribers = std::sync::Arc::new(Subscribers::new(all));
    let mut desk = desk_of(settings);
    ask(&mut desk, 1, "a", "301", "one");
    ask(&mut desk, 2, "b", "302", "to all");
    desk.wait_ms(1);
    desk.set(|settings| settings.short_codes.clear());
    desk.wait_ms(1);
    let words = answer_of(inbox(&mut desk), 2, "1000");
    assert!(words.ends_with("to 302 could not be delivered: this number is nobody's any more."), "{words}");
    assert_eq!(waiting(&desk).iter().filter(|text| text.shown == "302").count(), 200, "what is written is written");
    // Who was asked already may answer; whoever is to be asked again is not any more.
    assert!(hooked(&mut desk, http(500, "", "")).is_empty());
    desk.wait_s(10);
    let words = answer_of(inbox(&mut desk), 1, "1000");
    assert!(words.ends_with("to 301 could not be delivered: this number is nobody's any more."), "{words}");
    assert_eq!(code(&write(&mut desk, 1, "c", "301", "x")), 404);
}

// --- Long texts ---

#[test]
fn a_long_text_reaches_a_program_whole_and_a_part_that_came_twice_once() {
    let mut desk = with(vec![code_of("301", hook(), None)]);
    let words = "The river rises and the bridge at the mill is closed since this morning. ".repeat(5);
    let mut messages = parts(1, "301", &words, "a");
    assert_eq!(messages.len(), 3);
    // The last one first, and one twice under another TP-MR.
    messages.reverse();
    let submit_again = {
        let cut = split(&words, &Cut::new(Reference::Short(77))).unwrap().remove(2);
        sms(1, HILL, "copy", &encamp::gsm::tpdu::Submit { data: cut, ..submit("301", "", 200) })
    };
    assert_eq!(code(&desk.send(HILL, FRONT, &messages[0])), 202);
    assert_eq!(code(&desk.send(HILL, FRONT, &submit_again)), 202);
    assert_eq!(code(&desk.send(HILL, FRONT, &messages[1])), 202);
    assert!(desk.posts.is_empty());
    assert_eq!(code(&desk.send(HILL, FRONT, &messages[2])), 202);
    let body: serde_json::Value = serde_json::from_str(&only(desk.posts.clone()).body).unwrap();
    assert_eq!(body["text"], words);
    assert_eq!(answer_of(hooked(&mut desk, http(200, "text/plain", "noted")), 1, "301"), "noted");
    desk.wait_s(200);
    assert_eq!(desk.posts.len(), 1);
    assert_rest(&desk);
}

#[test]
fn a_part_that_does_not_come_is_said_to_be_missing() {
    let mut desk = with(vec![code_of("301", hook(), None)]);
    let words = "0123456789".repeat(40);
    let messages = parts(1, "301", &words, "a");
    for part in [0, 2] {
        assert_eq!(code(&desk.send(HILL, FRONT, &messages[part])), 202);
    }
    desk.wait_s(60);
    desk.restart();
    desk.wait_s(59);
    assert!(desk.posts.is_empty());
    desk.wait_s(2);
    let body: serde_json::Value = serde_json::from_str(&only(desk.posts.clone()).body).unwrap();
    let expected = format!("{} [part 2 of 3 is missing] {}", &words[..153], &words[306..]);
    assert_eq!(body["text"], expected);
    hooked(&mut desk, http(404, "", ""));
    assert_rest(&desk);
}

#[test]
fn what_has_no_words_is_told_so_once() {
    let mut desk = with(vec![code_of("301", hook(), None)]);
    let eight_bit = encamp::gsm::text::Coding(4);
    let data = encamp::gsm::tpdu::UserData { coding: eight_bit, has_header: false, length: 3, bytes: vec![1, 2, 3] };
    let submit = encamp::gsm::tpdu::Submit { data, ..submit("301", "", 3) };
    assert_eq!(code(&desk.send(HILL, FRONT, &sms(1, HILL, "a", &submit))), 202);
    let words = answer_of(inbox(&mut desk), 1, "301");
    assert!(words.starts_with("Your text to 301 was not sent: "), "{words}");
    assert!(desk.posts.is_empty());
    assert_rest(&desk);
}

// --- Groups ---

/// A group of so many phones that were never here, and one who writes.
fn group(count: u64) -> Desk {
    let numbers: Vec<Msisdn> = (0..count).map(|n| number(&format!("3{n:03}"))).collect();
    let mut members = numbers.clone();
    members.extend([number("2001"), number("+3000"), number("9999")]);
    let mut settings = of_settings(vec![code_of("600", CodeAction::Group { members }, None)]);
    let all = numbers.iter().zip(1000..).map(|(number, phone)| subscriber(phone, &[&number.to_string()]));
    let all: Vec<Subscriber> = settings.subscribers.iter().cloned().chain(all).collect();
    settings.subscribers = std::sync::Arc::new(Subscribers::new(all));
    desk_of(settings)
}

/// How many texts of this number wait for each phone.
fn for_each(desk: &Desk, shown: &str) -> BTreeMap<Recipient, usize> {
    let mut all = BTreeMap::new();
    for text in waiting(desk).into_iter().filter(|text| text.shown == shown) {
        *all.entry(text.recipient).or_default() += 1;
    }
    all
}

#[test]
fn a_text_to_a_group_goes_to_every_other_member_from_the_groups_number() {
    let members = ["2001", "2002", "2003"].map(number).to_vec();
    let mut desk = with(vec![code_of("600", CodeAction::Group { members }, Some(&["2001", "2002", "2003"]))]);
    let mut got = ask(&mut desk, 1, "a", "600", "who comes?");
    got.sort();
    let says = |phone: u64, words: &str| (phone, "600".to_owned(), words.to_owned());
    assert_eq!(got, [says(1, "Your text goes to 2 phones."), says(2, "2001: who comes?"), says(3, "2001: who comes?")]);
    assert_rest(&desk);
    desk.set(|settings| settings.short_codes[0].does = CodeAction::Group { members: vec![number("2001")] });
    assert_eq!(answer_of(ask(&mut desk, 1, "b", "600", "x"), 1, "600"), "Nobody else is in the group 600.");
}

#[test]
fn a_large_group_is_written_in_chunks_and_a_full_queue_is_passed_over() {
    let mut desk = group(250);
    desk.set(|settings| settings.messages.count_per_phone_max = 1);
    write(&mut desk, 2, "w", "3007", "it is in the way");
    assert!(ask(&mut desk, 1, "a", "600", "x").is_empty());
    assert_eq!(for_each(&desk, "600").len(), 99, "a chunk of 100 at once, one of them full");
    assert!(!desk.is_at_rest());
    desk.wait_ms(1);
    desk.wait_ms(1);
    assert_eq!(answer_of(inbox(&mut desk), 1, "600"), "Your text goes to 249 phones.");
    assert_eq!(happened(&desk, "text_passed_over"), 1);
    let all = for_each(&desk, "600");
    assert!(all.len() == 249 && all.values().all(|count| *count == 1), "{all:?}");
    let left: Vec<_> = desk.stores.stores[&StoreId::Messages].scan(b"g", None, 10).unwrap();
    assert!(left.is_empty(), "nothing is noted of it any more");
}

#[test]
fn a_power_cut_in_the_middle_of_a_group_leaves_nobody_out_and_doubles_none() {
    for syncs in (0..24).chain([40, 80, 160, 300]) {
        let mut desk = group(350);
        let question = sms(1, HILL, "a", &submit("600", "x", 9));
        desk.syncs_left = Some(syncs);
        desk.send(HILL, FRONT, &question);
        for _ in 0..syncs % 5 {
            desk.wait_ms(1);
        }
        desk.syncs_left = None;
        desk.restart();
        desk.send(HILL, FRONT, &question);
        let mut got = inbox(&mut desk);
        for _ in 0..10 {
            desk.wait_s(1);
            got.extend(inbox(&mut desk));
        }
        let all = for_each(&desk, "600");
        assert_eq!((all.len(), all.values().max()), (350, Some(&1)), "after {syncs} syncs");
        got.dedup();
        assert_eq!(answer_of(got, 1, "600"), "Your text goes to 350 phones.", "after {syncs} syncs");
    }
}

#[test]
fn a_store_that_is_full_in_the_middle_of_a_group_goes_on_later() {
    let mut desk = group(250);
    ask(&mut desk, 1, "a", "600", "x");
    desk.stores.stores.get_mut(&StoreId::Messages).unwrap().set_full(true);
    desk.wait_ms(1);
    assert!(desk.is_at_rest(), "it waits");
    desk.wait_s(30);
    desk.stores.stores.get_mut(&StoreId::Messages).unwrap().set_full(false);
    assert_eq!(answer_of(wait(&mut desk, 120), 1, "600"), "Your text goes to 250 phones.");
    let all = for_each(&desk, "600");
    assert_eq!((all.len(), all.values().max()), (250, Some(&1)));
}

// --- Broadcasts ---

fn shouting() -> Desk {
    let mut settings = of_settings(vec![code_of("700", CodeAction::Broadcast, Some(&["2001"]))]);
    settings.base_stations.push(BaseStation {
        name: "valley moor".into(),
        address: MOOR.parse().unwrap(),
        location_area: None,
        texts: None,
    });
    let mut desk = desk_of(settings);
    assert_eq!(desk.cell_at(DALE, 2, "dale", 50, 3600), 200);
    assert_eq!(desk.cell_at(MOOR, ASHA, "moor", 50, 3600), 200);
    desk.take_sent();
    desk
}

/// Asks, and gives back the key.
fn key(desk: &mut Desk, call_id: &str, words: &str, expected: &str) -> String {
    let asked = answer_of(ask(desk, 1, call_id, "700", words), 1, "700");
    let (before, rest) = asked.split_once(" Text yes ").expect("a key");
    assert_eq!(before, expected);
    let (key, rest) = rest.split_once(' ').unwrap();
    assert_eq!(rest, "to 700 within 10 minutes.");
    assert_eq!(key.len(), 4);
    key.to_owned()
}

#[test]
fn a_broadcast_goes_to_the_phones_of_a_place_once_it_is_confirmed() {
    let mut desk = shouting();
    let how = answer_of(ask(&mut desk, 1, "a", "700", "nowhere the river rises"), 1, "700");
    assert_eq!(how, "Text an area and the words to 700: dale, hill, valley, valley moor");
    let how = answer_of(ask(&mut desk, 1, "a2", "700", "valley"), 1, "700");
    assert!(how.starts_with("Text an area and the words"), "{how}");
    let first = key(&mut desk, "b", "VALLEY MOOR the river rises", "To 1 phones at valley moor?");
    let second = key(&mut desk, "c", "Valley the river rises", "To 3 phones at valley?");
    let gone = "There is nothing to confirm. Text an area and the words to 700.";
    if first != second {
        assert_eq!(answer_of(ask(&mut desk, 1, "d", "700", &format!("yes {first}")), 1, "700"), gone);
    }
    assert!(desk.is_at_rest());
    let mut got = ask(&mut desk, 1, "e", "700", &format!("Ndiyo {second} "));
    got.sort();
    let says = |phone: u64, words: &str| (phone, "700".to_owned(), words.to_owned());
    let sent = "Your text goes to 3 phones at valley.";
    let mut expected = vec![says(1, "the river rises"), says(1, sent), says(2, "the river rises")];
    expected.push(says(NAMELESS, "the river rises"));
    expected.sort();
    assert_eq!(got, expected);
    assert_eq!(answer_of(ask(&mut desk, 1, "f", "700", &second), 1, "700"), gone, "a key is good for once");
    assert_rest(&desk);
    let no = answer_of(ask(&mut desk, 2, "g", "700", "valley free beer"), 2, "700");
    assert_eq!(no, "700 does not take texts from your number.");
}

#[test]
fn a_phone_that_has_left_does_not_get_it_and_one_that_has_come_does() {
    let mut desk = shouting();
    let yes = key(&mut desk, "a", "hill fire", "To 2 phones at hill?");
    assert_eq!(desk.cell(2, "back", 60, 3600), 200);
    write(&mut desk, 1, "yes", "700", &format!("yes {yes}"));
    let mut mts = take(&mut desk);
    assert_eq!(mts.len(), 3, "those who are there now: {mts:?}");
    // One of them is absent, and turns up elsewhere.
    let at = mts.iter().position(|mt| mt.sip.contains(&imsi(2).to_string())).unwrap();
    let absent = mts.remove(at);
    answered(&mut desk, &absent, "480 No_Paging_Response");
    while !mts.is_empty() {
        let mt = mts.remove(0);
        mts.extend(answered(&mut desk, &mt, "200 OK"));
    }
    wait(&mut desk, 5);
    assert_eq!(desk.cell_at(MOOR, 2, "moor", 70, 3600), 200);
    assert!(wait(&mut desk, 5).is_empty(), "it is elsewhere");
    assert_eq!(desk.text_records.iter().filter(|record| record.outcome == TextOutcome::Failed).count(), 1);
    assert_rest(&desk);
}

#[test]
fn a_question_is_forgotten_after_ten_minutes_and_by_a_restart() {
    let gone = "There is nothing to confirm. Text an area and the words to 700.";
    for restart in [false, true] {
        let mut desk = shouting();
        let yes = key(&mut desk, "a", "hill fire", "To 2 phones at hill?");
        match restart {
            false => desk.wait_s(600),
            true => desk.restart(),
        }
        assert_eq!(answer_of(ask(&mut desk, 1, "b", "700", &format!("yes {yes}")), 1, "700"), gone);
        assert_rest(&desk);
    }
}

#[test]
fn a_power_cut_after_the_yes_loses_no_broadcast_and_doubles_none() {
    let long = "fire ".repeat(60);
    let mut confirmed = 0;
    for syncs in 0..24 {
        let mut desk = shouting();
        let messages = parts(1, "700", &format!("valley {long}"), "a");
        messages.iter().for_each(|message| drop(desk.send(HILL, FRONT, message)));
        // The question comes with the answer to the last part.
        let mut asked = String::new();
        let mut mts: Vec<Mt> = take(&mut desk);
        while !mts.is_empty() {
            let mt = mts.remove(0);
            asked += &mt.words();
            mts.extend(answered(&mut desk, &mt, "200 OK"));
        }
        let (_, yes) = asked.split_once("yes ").unwrap_or_else(|| panic!("{asked}"));
        let yes = &yes[..4];
        desk.syncs_left = Some(syncs);
        let message = sms(1, HILL, "yes", &submit("700", &format!("yes {yes}"), 9));
        let accepted = code(&desk.send(HILL, FRONT, &message)) == 202;
        let mut known = std::collections::BTreeSet::new();
        let mut collect = |desk: &mut Desk| {
            let mut mts = take(desk);
            while !mts.is_empty() {
                let mt = mts.remove(0);
                if mt.words().starts_with("fire") {
                    known.insert((mt.header("To").to_owned(), mt.identity()));
                }
                mts.extend(answered(desk, &mt, "200 OK"));
            }
        };
        collect(&mut desk);
        desk.syncs_left = None;
        desk.restart();
        for _ in 0..10 {
            desk.wait_s(1);
            collect(&mut desk);
        }
        assert!(known.len() == 3 || known.is_empty(), "all or none of it: {known:?}");
        assert!(accepted || known.is_empty());
        confirmed += usize::from(known.len() == 3);
        assert_rest(&desk);
    }
    assert!((1..24).contains(&confirmed), "the cut came before and after: {confirmed}");
}

#[test]
fn many_phones_are_looked_for_in_turns() {
    let count = 1_300;
    let mut settings = of_settings(vec![code_of("700", CodeAction::Broadcast, Some(&["2001"]))]);
    let all = (1000..1000 + count).map(|phone| subscriber(phone, &[]));
    let all: Vec<Subscriber> = settings.subscribers.iter().cloned().chain(all).collect();
    settings.subscribers = std::sync::Arc::new(Subscribers::new(all));
    settings.messages.attempts_per_base_station_max = 2_000;
    let mut desk = desk_of(settings);
    for phone in 1000..1000 + count {
        assert_eq!(desk.cell_at(DALE, phone, &format!("d{phone}"), 1, 3600), 200);
    }
    desk.take_sent();
    assert!(ask(&mut desk, 1, "a", "700", "dale the dam breaks").is_empty(), "it takes some turns");
    let mut turns = 0;
    let asked = loop {
        desk.wait_ms(1);
        turns += 1;
        let got = inbox(&mut desk);
        if !got.is_empty() {
            break answer_of(got, 1, "700");
        }
        assert!(turns < 20 && !desk.is_at_rest());
    };
    assert_eq!(turns, 2);
    let (_, yes) = asked.split_once("yes ").unwrap();
    assert!(asked.starts_with("To 1300 phones at dale?"), "{asked}");
    let mut got = ask(&mut desk, 1, "b", "700", &format!("yes {}", &yes[..4]));
    for _ in 0..40 {
        desk.wait_ms(1);
        got.extend(inbox(&mut desk));
    }
    let phones: std::collections::BTreeSet<u64> = got.iter().map(|(phone, ..)| *phone).collect();
    assert_eq!((got.len(), phones.len()), (1301, 1301));
    assert_eq!(got.iter().find(|(phone, ..)| *phone == 1).unwrap().2, "Your text goes to 1300 phones at dale.");
    assert_rest(&desk);
}

// --- Welcome ---

fn greeting(welcome: Welcome) -> Desk {
    let mut settings = of_settings(vec![code_of("101", CodeAction::ChooseNumber, None)]);
    settings.messages.welcome = welcome;
    let mut stores = MemoryStores::default();
    for id in [StoreId::Node, StoreId::Messages, StoreId::Replica(0), StoreId::Replica(1)] {
        stores.stores.insert(id, MemoryStore::new());
    }
    Desk::of(WallTime { ms: TODAY_MS, trusted: true }, settings, stores)
}

/// A REGISTER with a cell of this network.
fn comes(desk: &mut Desk, phone: u64, cseq: u32, network: &str) -> Vec<Got> {
    let imsi = imsi(phone);
    let text = format!(
        "REGISTER sip:192.0.2.1 SIP/2.0\r\nTo: <sip:IMSI{imsi}@192.0.2.1>\r\nFrom: <sip:IMSI{imsi}@192.0.2.1>;tag=t{cseq}\r\n\
         Via: SIP/2.0/UDP {HILL};branch=z9hG4bKc{phone}-{cseq}\r\nCall-ID: c{phone}\r\nCSeq: {cseq} REGISTER\r\n\
         Contact: <sip:IMSI{imsi}@{HILL}>;expires=3600\r\nMax-Forwards: 70\r\nUser-Agent: OpenBTS 5.0\r\n\
         P-Access-Network-Info: 3GPP-GERAN; cgi-3gpp={network}03e8000a\r\nContent-Length: 0\r\n\r\n"
    );
    let sent = desk.send(HILL, FRONT, &text);
    assert!(sent[0].starts_with("SIP/2.0 200"), "the phone is answered first: {sent:?}");
    inbox(desk)
}

#[test]
fn a_phone_is_welcomed_the_first_time() {
    let mut desk = greeting(Welcome::First);
    assert_eq!(answer_of(comes(&mut desk, 1, 1, "00101"), 1, "1000"), "Welcome. Your number is 2001.");
    let words = answer_of(comes(&mut desk, NAMELESS, 1, "00101"), NAMELESS, "101");
    assert_eq!(words, "Welcome. Text the number that you would like to have to 101.");
    for cseq in 2..5 {
        assert!(comes(&mut desk, 1, cseq, ["00101", "00102"][cseq as usize % 2]).is_empty());
        desk.wait_s(700);
    }
    assert!(inbox(&mut desk).is_empty());
    assert!(comes(&mut greeting(Welcome::Never), 1, 1, "00101").is_empty());
}

#[test]
fn a_phone_is_welcomed_in_another_network_and_not_at_every_turn() {
    let mut desk = greeting(Welcome::Network);
    assert_eq!(comes(&mut desk, 1, 1, "00101").len(), 1);
    let welcome = |network: &str| format!("Welcome to {network}. Your number is 2001.");
    assert_eq!(answer_of(comes(&mut desk, 1, 2, "26242"), 1, "1000"), welcome("262-42"));
    assert_eq!(answer_of(comes(&mut desk, 1, 3, "00101"), 1, "1000"), welcome("001-01"), "where it was first, too");
    for cseq in 4..8 {
        let network = ["26242", "00101"][cseq as usize % 2];
        assert!(comes(&mut desk, 1, cseq, network).is_empty(), "where two networks overlap");
    }
    desk.wait_s(600);
    assert_eq!(answer_of(comes(&mut desk, 1, 8, "26242"), 1, "1000"), welcome("262-42"));
    desk.wait_s(600);
    assert!(comes(&mut desk, 1, 9, "26242").is_empty());
    assert_eq!(answer_of(comes(&mut desk, 1, 10, "001001"), 1, "1000"), welcome("001-001"));
    assert!(comes(&mut desk, NAMELESS, 1, "00101")[0].2.contains("101"));
    desk.wait_s(600);
    let words = answer_of(comes(&mut desk, NAMELESS, 2, "26242"), NAMELESS, "1000");
    assert_eq!(words, "Welcome to 262-42. Your number is -.");
    assert_rest(&desk);
}

#[test]
fn a_welcome_without_room_is_left_out_and_counted() {
    let mut desk = greeting(Welcome::First);
    desk.stores.stores.get_mut(&StoreId::Messages).unwrap().set_full(true);
    assert!(comes(&mut desk, 1, 1, "00101").is_empty());
    assert_eq!(happened(&desk, "welcome_not_sent"), 1);
    desk.stores.stores.get_mut(&StoreId::Messages).unwrap().set_full(false);
    desk.wait_s(100);
    assert!(inbox(&mut desk).is_empty());
    assert_rest(&desk);
}
