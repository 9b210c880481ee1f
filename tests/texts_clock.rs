//! Texts under a clock that is wrong or is put right, and many of them at once.

mod desk;

use std::time::Duration;

use desk::forms::{came, desk_of, openbts, plain, reply, tell};
use desk::texts::{DALE, FRONT, HILL, answered, code, only, sms, submit, take, write};
use desk::{Desk, TODAY_MS, imsi, settings};
use encamp::config::Settings;
use encamp::gsm::header::Reference;
use encamp::gsm::segment::{Cut, split};
use encamp::gsm::text::encode;
use encamp::gsm::tpdu::{Submit, Validity};
use encamp::seam::{Command, CommandAnswer, QueueAsk, QueueFilter};
use encamp::sms::record;
use encamp::store::memory::{MemoryStore, MemoryStores};
use encamp::store::{Batch, Store as _, StoreId};
use encamp::time::WallTime;

const YEAR_MS: u64 = 365 * 86_400_000;
/// TP-VP of five minutes.
const SHORT: Option<Validity> = Some(Validity::Relative(0));
const SHORT_S: u64 = 300;

fn today() -> WallTime {
    WallTime { ms: TODAY_MS, trusted: true }
}

/// A box with these texts, keys and lists on its disk.
fn left_by_the_last_run(wall: WallTime, settings: Settings, batch: Batch) -> Desk {
    let mut stores = MemoryStores::default();
    for id in [StoreId::Node, StoreId::Messages, StoreId::Replica(0), StoreId::Replica(1)] {
        stores.stores.insert(id, MemoryStore::new());
    }
    let store = stores.stores.get_mut(&StoreId::Messages).unwrap();
    store.write(batch).unwrap();
    store.sync().unwrap();
    Desk::of(wall, settings, stores)
}

fn happened(desk: &Desk, name: &str) -> usize {
    desk.events.iter().filter(|event| event.name() == name).count()
}

fn waiting(desk: &mut Desk) -> usize {
    match desk.command(Command::Queue(QueueAsk::List(QueueFilter::default()))) {
        CommandAnswer::Queue(texts) => texts.len(),
        other => panic!("{other:?}"),
    }
}

fn keys(desk: &Desk, kind: u8) -> usize {
    desk.stores.stores[&StoreId::Messages].durable().keys().filter(|key| key[0] == kind).count()
}

/// Phone 1 at the hill; the others never came.
fn alone(mut settings: Settings) -> Desk {
    settings.messages.explain = false;
    let mut desk = desk_of(settings);
    openbts(&mut desk, HILL, 1);
    came(&mut desk);
    desk
}

fn writes(desk: &mut Desk, id: &str, submit: &Submit) {
    assert_eq!(code(&desk.send(HILL, FRONT, &sms(1, HILL, id, submit))), 202, "{id}");
}

// --- A clock that is put back ---

#[test]
fn a_clock_that_is_put_back_holds_no_life() {
    let mut desk = alone(settings());
    writes(&mut desk, "a", &Submit { validity: SHORT, ..submit("2002", "a", 1) });
    writes(&mut desk, "b", &Submit { validity: SHORT, ..submit("2002", "b", 2) });
    desk.wall.ms -= YEAR_MS;
    desk.wait_s(100);
    writes(&mut desk, "c", &Submit { validity: SHORT, ..submit("2002", "c", 3) });
    desk.wait_s(SHORT_S - 102);
    assert_eq!(happened(&desk, "text_expired"), 0, "none too early");
    desk.wait_s(4);
    assert!(happened(&desk, "text_expired") >= 1);
    desk.wait_s(SHORT_S + 10);
    assert_eq!((happened(&desk, "text_expired"), waiting(&mut desk)), (3, 0), "those behind it in twice their time");
}

#[test]
fn a_clock_that_is_put_back_does_not_wait_longer_for_parts() {
    let mut desk = alone(settings());
    plain(&mut desk, 2);
    came(&mut desk);
    let parts = split(&"word ".repeat(70), &Cut::new(Reference::Short(7))).unwrap();
    let (code, requests) = tell(
        &mut desk,
        HILL,
        sms(1, HILL, "a", &Submit { data: parts[0].clone(), ..submit("2002", "", 1) }).as_bytes(),
    );
    assert_eq!((code, requests.len()), (202, 0));
    desk.wait_s(10);
    desk.wall.ms -= YEAR_MS;
    desk.wait_s(115);
    let requests = came(&mut desk);
    assert_eq!(requests.len(), 1, "what there is, with the gaps said");
    assert!(reply(&mut desk, &requests[0], "200 OK", &[]).is_empty() && desk.is_at_rest());
}

#[test]
fn a_clock_that_lies_ahead_at_a_start_ends_nothing_that_was_left() {
    let mut desk = alone(settings());
    writes(&mut desk, "a", &Submit { validity: Some(Validity::Relative(11)), ..submit("2002", "an hour", 1) });
    desk.wait_s(60);
    desk.wall = WallTime { ms: TODAY_MS + 10 * YEAR_MS, trusted: false };
    desk.restart();
    desk.wait_s(300);
    // Somebody sets it, and the stamps that were given meanwhile hold ours where it was.
    desk.wall = WallTime { ms: TODAY_MS + 400_000, trusted: true };
    desk.wait_s(300);
    assert_eq!((happened(&desk, "text_expired"), waiting(&mut desk)), (0, 1));
    desk.wait_s(3_005);
    assert_eq!((happened(&desk, "text_expired"), waiting(&mut desk)), (1, 0), "an hour after the start");
}

#[test]
fn what_the_last_run_left_ends_by_a_clock_that_is_set_later() {
    let mut desk = alone(settings());
    writes(&mut desk, "a", &Submit { validity: Some(Validity::Relative(11)), ..submit("2002", "an hour", 1) });
    desk.wait_s(60);
    desk.wall = WallTime { ms: TODAY_MS + 100_000, trusted: false };
    desk.restart();
    desk.wait_s(60);
    assert_eq!(happened(&desk, "text_expired"), 0);
    desk.wall = WallTime { ms: TODAY_MS + 2 * 3_600_000, trusted: true };
    desk.wait_s(5);
    assert_eq!(happened(&desk, "text_expired"), 1);
}

#[test]
fn a_life_and_the_digests_of_a_run_whose_clock_was_wrong_are_kept_as_long_as_others() {
    let mut all = settings();
    all.messages.history_life = Duration::from_secs(1_500);
    let mut desk = left_by_the_last_run(WallTime { ms: 1_000_000, trusted: false }, all, Batch::default());
    openbts(&mut desk, HILL, 1);
    openbts(&mut desk, HILL, 2);
    came(&mut desk);
    write(&mut desk, 1, "a", "2002", "hello");
    let mt = only(take(&mut desk));
    answered(&mut desk, &mt, "200 OK");
    desk.wait_s(10);
    desk.wall = today();
    desk.wait_s(100);
    let known = |desk: &mut Desk| match desk.command(Command::Queue(QueueAsk::Explain(1))) {
        CommandAnswer::TextLife(life) => Some(life.state),
        _ => None,
    };
    assert_eq!(known(&mut desk), Some("delivered"));
    desk.wait_s(1_000);
    assert_eq!(known(&mut desk), Some("delivered"));
    desk.wait_s(800);
    assert_eq!(known(&mut desk), None);
    let left: Vec<u8> = desk.stores.stores[&StoreId::Messages].durable().keys().map(|key| key[0]).collect();
    assert_eq!(left, b"n", "no key stays for ever");
}

#[test]
fn no_timestamp_comes_twice_where_the_last_one_lies_ahead() {
    // Many texts came at once, each a second later than the one before.
    let last_s = TODAY_MS / 1000 + 700;
    let key = record::last_key(imsi(2));
    let batch = Batch::default()
        .put(key.clone(), record::encode_last(TODAY_MS, last_s))
        .put(record::old_key(TODAY_MS + 600_000, 1, record::OldOf::Acceptance), record::encode_old(&[key]));
    let mut desk = left_by_the_last_run(WallTime { ms: TODAY_MS + 650_000, trusted: true }, settings(), batch);
    openbts(&mut desk, HILL, 1);
    openbts(&mut desk, HILL, 2);
    came(&mut desk);
    desk.wait_s(3);
    write(&mut desk, 1, "a", "2002", "hello");
    let mt = only(take(&mut desk));
    assert_eq!(mt.deliver.timestamp.unix_s(), Some(last_s + 1));
    answered(&mut desk, &mt, "200 OK");
    desk.wait_s(2_400);
    assert_eq!(keys(&desk, b'l'), 0, "and it goes in the end");
}

// --- The night ---

#[test]
fn an_absent_phone_is_not_paged_at_night_after_a_start_either() {
    let mut all = settings();
    let minute = (TODAY_MS / 60_000 % 1440) as u16;
    all.messages.night = Some((minute.saturating_sub(5), minute + 30));
    let mut desk = alone(all);
    assert_eq!(desk.cell_at(DALE, 2, "dale", 1, 36_000), 200);
    came(&mut desk);
    write(&mut desk, 1, "a", "2002", "late");
    let mt = only(take(&mut desk));
    answered(&mut desk, &mt, "480 No_Paging_Response");
    desk.restart();
    desk.wait_s(25 * 60);
    assert!(take(&mut desk).is_empty());
    desk.wait_s(10 * 60);
    assert!(!take(&mut desk).is_empty(), "in the morning");
}

// --- Many ---

fn left_text(number: u64, life_ms: u64) -> record::Text {
    record::Text {
        number,
        accepted_ms: TODAY_MS,
        life_ms,
        cause: record::Cause::Absent,
        ..record::Text::new(
            record::Recipient::Phone(imsi(2)),
            record::Sender::Phone(imsi(1)),
            "2001".into(),
            record::Payload::Text(encode("hello").unwrap()),
        )
    }
}

#[test]
fn those_at_the_end_of_a_long_queue_end_in_their_own_time() {
    let mut all = settings();
    (all.messages.count_max, all.messages.count_per_phone_max, all.messages.explain) = (100_000, 100_000, false);
    let mut batch = Batch::default();
    for number in 1..=2_500 {
        let life_ms = if number > 2_350 { SHORT_S * 1000 } else { 36_000_000 };
        let text = left_text(number, life_ms);
        batch = batch
            .put(record::text_key(text.recipient, number), record::encode(&text))
            .put(record::fate_key(number), record::encode_fate(&record::Fate::Waits(text.recipient)));
    }
    let mut desk = left_by_the_last_run(today(), all, batch);
    desk.wait_s(SHORT_S - 2);
    assert_eq!(happened(&desk, "text_expired"), 0);
    desk.wait_s(20);
    assert_eq!(happened(&desk, "text_expired"), 150);
}

#[test]
fn many_texts_that_cannot_be_read_are_told_once_and_leave_others_their_turns() {
    let mut batch = Batch::default();
    let last = 1_400;
    for number in 1..=last {
        let text = left_text(number, 36_000_000);
        let bytes = if number == last { record::encode(&text) } else { vec![250] };
        batch = batch.put(record::text_key(text.recipient, number), bytes);
    }
    let mut desk = left_by_the_last_run(today(), settings(), batch);
    openbts(&mut desk, HILL, 2);
    let mut passed = 0;
    let mut before = 1_400;
    for _ in 0..100 {
        desk.wait_ms(100);
        let now = match desk.command(Command::Status) {
            CommandAnswer::Status(status) => status.texts_waiting as usize,
            other => panic!("{other:?}"),
        };
        passed = passed.max(before - now);
        before = now;
    }
    assert!((1..=500).contains(&passed), "{passed} in a turn");
    assert_eq!(happened(&desk, "messages_store_refused"), 1);
    let mt = only(take(&mut desk).into_iter().take(1).collect::<Vec<_>>());
    assert_eq!(mt.words(), "hello");
}

#[test]
fn a_phone_that_says_again_and_again_that_it_is_back_is_noted_once() {
    let mut desk = alone(settings());
    openbts(&mut desk, HILL, 2);
    came(&mut desk);
    write(&mut desk, 1, "a", "2002", "hello");
    let mt = only(take(&mut desk));
    answered(&mut desk, &mt, "480 No_Paging_Response");
    for n in 0..5 {
        assert_eq!(desk.cell(2, "again", 10 + n, 3_600), 200);
        desk.wait_ms(100);
    }
    assert_eq!(happened(&desk, "phone_returned"), 1);
    desk.wait_s(2);
    assert_eq!(take(&mut desk).len(), 1);
}

#[test]
fn a_long_text_in_any_script_goes_to_a_sip_phone_whole() {
    let mut desk = alone(settings());
    plain(&mut desk, 2);
    came(&mut desk);
    let long: String = "नमस्ते दुनिया ".chars().cycle().take(660).collect();
    let parts = split(&long, &Cut::new(Reference::Short(7))).unwrap();
    assert_eq!(parts.len(), 10);
    let mut all = Vec::new();
    for (n, data) in parts.into_iter().enumerate() {
        let part = Submit { data, ..submit("2002", "", n as u8) };
        let (code, requests) = tell(&mut desk, HILL, sms(1, HILL, &format!("p{n}"), &part).as_bytes());
        assert_eq!(code, 202);
        all.extend(requests);
    }
    assert_eq!((all.len(), all[0].words().as_str()), (1, long.as_str()));
    assert!(reply(&mut desk, &all[0], "200 OK", &[]).is_empty());
    assert_eq!((happened(&desk, "text_delivered"), waiting(&mut desk)), (10, 0));
}
