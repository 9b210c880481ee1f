//! Whose turn it is: places at base stations, the order of texts, their time, the night.

mod desk;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use desk::forms::{Came, came, desk_of, reply, tell};
use desk::texts::{DALE, HILL, sms, submit};
use desk::{Desk, TODAY_MS, imsi, settings};
use encamp::config::{Settings, Subscribers};
use encamp::gsm::tpdu::{Scts, Submit, Validity};
use encamp::ident::Msisdn;
use encamp::seam::{Command, CommandAnswer, Input, QueueAsk, QueueFilter, TextAnswer};
use encamp::store::StoreId;
use encamp::time::WallTime;

const PHONES: u64 = 20;

fn queue(desk: &mut Desk) -> Vec<TextAnswer> {
    match desk.command(Command::Queue(QueueAsk::List(QueueFilter::default()))) {
        CommandAnswer::Queue(texts) => texts,
        other => panic!("{other:?}"),
    }
}

fn happened(desk: &Desk, name: &str) -> usize {
    desk.events.iter().filter(|event| event.name() == name).count()
}

/// Phone 0 at the hill, and twenty others: 2101 to 2120.
fn many() -> Settings {
    let mut all = settings();
    let mut subscribers: Vec<_> = all.subscribers.iter().cloned().collect();
    for phone in 101..=100 + PHONES {
        let mut one = subscribers[0].clone();
        (one.imsi, one.msisdn) = (imsi(phone), vec![Msisdn::parse(&format!("2{phone}")).unwrap()]);
        subscribers.push(one);
    }
    all.subscribers = Arc::new(Subscribers::new(subscribers));
    all.messages.explain = false;
    all
}

fn write(desk: &mut Desk, phone: u64, id: &str, submit: &Submit) -> (u16, Vec<Came>) {
    tell(desk, HILL, sms(phone, HILL, id, submit).as_bytes())
}

fn phone_of(mt: &Came) -> u64 {
    mt.uri()["sip:IMSI00101000000".len()..][..4].parse().unwrap()
}

/// Phone 0 at the hill, the others in the dale, a text for each of them; what left at once.
fn crowd(desk: &mut Desk) -> Vec<Came> {
    desk.cell(0, "hill", 1, 36_000);
    for phone in 101..=100 + PHONES {
        assert_eq!(desk.cell_at(DALE, phone, "dale", phone as u32, 36_000), 200);
    }
    came(desk);
    let mut out = Vec::new();
    for phone in 101..=100 + PHONES {
        let (code, requests) =
            write(desk, 0, &format!("w{phone}"), &submit(&format!("2{phone}"), "hello", phone as u8));
        assert_eq!(code, 202);
        out.extend(requests);
    }
    out
}

// --- Places ---

#[test]
fn a_base_station_is_given_no_more_texts_at_a_time_than_it_has_places_and_each_phone_in_its_order() {
    let mut all = many();
    all.messages.attempts_per_base_station_max = 4;
    let mut desk = desk_of(all);
    let mut open = crowd(&mut desk);
    assert_eq!(open.iter().map(phone_of).collect::<Vec<_>>(), [101, 102, 103, 104]);
    assert_eq!(queue(&mut desk).iter().filter(|text| text.state == "sending").count(), 4);
    let mut order = vec![101, 102, 103, 104];
    // Each way in which an attempt ends gives the place to the next in line.
    for (n, status) in ["200 OK", "400 Bad Request", "480 No_Paging_Response", "500 Error", "404 Not Found"]
        .into_iter()
        .cycle()
        .take(12)
        .enumerate()
    {
        let mt = open.remove(0);
        let next = reply(&mut desk, &mt, status, &[]);
        assert_eq!(next.len(), 1, "{n} {status}");
        order.push(phone_of(&next[0]));
        open.extend(next);
    }
    // The last four are open, and their base station says nothing more; a phone that left it makes room, too.
    assert_eq!(open.len(), 4);
    desk.wait_s(30);
    let mut seen: BTreeSet<u64> = order.iter().copied().collect();
    order.extend(came(&mut desk).iter().map(phone_of).filter(|phone| seen.insert(*phone)));
    assert_eq!(order, (101..=100 + PHONES).collect::<Vec<_>>(), "fair");
}

#[test]
fn places_come_back_where_a_text_ends_in_the_line() {
    let mut all = many();
    all.messages.attempts_per_base_station_max = 1;
    let mut desk = desk_of(all);
    let open = crowd(&mut desk);
    assert_eq!(open.len(), 1);
    // A second text for the last one in line; the first ends there by its time.
    let short =
        Submit { validity: Some(Validity::Enhanced([0b0000_0010, 10, 0, 0, 0, 0, 0])), ..submit("2120", "short", 99) };
    write(&mut desk, 0, "short", &short);
    desk.wait_s(11);
    assert_eq!(happened(&desk, "text_expired"), 1, "one that is not the head, of a queue that stands in line");
    let mut delivered = Vec::new();
    let mut open = open;
    while let Some(mt) = open.pop() {
        delivered.push(phone_of(&mt));
        open.extend(reply(&mut desk, &mt, "200 OK", &[]));
    }
    assert_eq!(delivered, (101..=100 + PHONES).collect::<Vec<_>>());
    assert!(queue(&mut desk).is_empty() && desk.is_at_rest());
}

#[test]
fn a_number_of_places_that_is_changed_counts_from_the_next_one_on() {
    let mut all = many();
    all.messages.attempts_per_base_station_max = 6;
    let mut desk = desk_of(all.clone());
    let mut open = crowd(&mut desk);
    assert_eq!(open.len(), 6);
    let places = |desk: &mut Desk, places: usize| {
        let mut settings = all.clone();
        settings.messages.attempts_per_base_station_max = places;
        desk.handle(Input::Settings(Arc::new(settings)));
        // One more asks for a place, and so the number is known.
        assert_eq!(desk.cell_at(DALE, 1, "dale", 9_000 + places as u32, 36_000), 200);
        let id = format!("places{places}");
        came(desk);
        write(desk, 0, &id, &submit("2001", &id, places as u8)).1
    };
    assert!(places(&mut desk, 2).is_empty());
    for left in [5, 4, 3, 2] {
        let mt = open.remove(0);
        assert!(reply(&mut desk, &mt, "200 OK", &[]).is_empty());
        assert_eq!(open.len(), left);
    }
    for _ in 0..3 {
        let mt = open.remove(0);
        let next = reply(&mut desk, &mt, "200 OK", &[]);
        assert_eq!(next.len(), 1, "now one for one");
        open.extend(next);
    }
    while let Some(mt) = open.pop() {
        open.extend(reply(&mut desk, &mt, "200 OK", &[]));
    }
    assert!(queue(&mut desk).is_empty() && desk.is_at_rest());
}

#[test]
fn more_messages_wait_is_said_to_the_phone() {
    let mut desk = desk_of(many());
    desk.cell(0, "hill", 1, 36_000);
    desk.cell_at(DALE, 1, "dale", 1, 36_000);
    came(&mut desk);
    let (_, mut open) = write(&mut desk, 0, "a", &submit("2001", "a", 1));
    for (n, id) in ["b", "c"].into_iter().enumerate() {
        assert!(write(&mut desk, 0, id, &submit("2001", id, 2 + n as u8)).1.is_empty());
    }
    let mut more = Vec::new();
    while let Some(mt) = open.pop() {
        more.push(mt.deliver().more);
        open.extend(reply(&mut desk, &mt, "200 OK", &[]));
    }
    assert_eq!(more, [false, true, false], "the others came after the first had left");
}

// --- Time ---

/// Phone 0 at the hill, phone 1 was never here.
fn absent(settings: Settings) -> Desk {
    let mut desk = desk_of(settings);
    assert_eq!(desk.cell(0, "hill", 1, 2_000_000), 200);
    came(&mut desk);
    desk
}

#[test]
fn a_validity_period_ends_a_text_in_each_of_its_forms() {
    let s = TODAY_MS / 1000;
    let enhanced = |bytes: [u8; 3]| Validity::Enhanced([bytes[0], bytes[1], bytes[2], 0, 0, 0, 0]);
    for (validity, life_s) in [
        (Validity::Relative(0), 300),
        (Validity::Relative(143), 12 * 3600),
        (Validity::Absolute(Scts::new(s + 90, 4)), 90),
        (enhanced([0b001, 2, 0]), 900),
        (enhanced([0b010, 40, 0]), 40),
        (enhanced([0b011, 0x00, 0x10]), 60),
        // Over already: tried all the same, for a second.
        (Validity::Absolute(Scts::new(s - 90, 0)), 1),
    ] {
        let mut desk = absent(many());
        write(&mut desk, 0, "a", &Submit { validity: Some(validity), ..submit("2001", "soon", 1) });
        desk.wait_s(life_s - 1);
        assert_eq!(happened(&desk, "text_expired"), 0, "{validity:?}");
        desk.wait_s(2);
        assert_eq!(happened(&desk, "text_expired"), 1, "{validity:?}");
        assert!(queue(&mut desk).is_empty() && desk.is_at_rest());
    }
}

#[test]
fn a_single_shot_is_tried_once_and_never_again() {
    let mut desk = absent(many());
    desk.cell_at(DALE, 1, "dale", 1, 36_000);
    came(&mut desk);
    let shot =
        Submit { validity: Some(Validity::Enhanced([0b0100_0000, 0, 0, 0, 0, 0, 0])), ..submit("2001", "now", 1) };
    let (_, open) = write(&mut desk, 0, "a", &shot);
    assert!(reply(&mut desk, &open[0], "400 Bad Request", &[]).is_empty());
    assert!(queue(&mut desk).is_empty() && happened(&desk, "text_expired") == 1);
    desk.wait_s(4000);
    assert!(came(&mut desk).is_empty());
}

#[test]
fn a_shorter_longest_life_counts_for_those_who_wait_already_and_a_longer_one_does_not() {
    let mut desk = absent(many());
    let waits = |desk: &mut Desk, life: u64| {
        let mut settings = many();
        settings.messages.life_max = Duration::from_secs(life);
        desk.handle(Input::Settings(Arc::new(settings)));
    };
    waits(&mut desk, 20_000);
    for n in 1..=3 {
        write(&mut desk, 0, &format!("a{n}"), &submit(&format!("200{n}"), "hello", n));
    }
    waits(&mut desk, 40_000);
    desk.wait_s(300);
    waits(&mut desk, 600);
    desk.wait_s(2);
    assert_eq!(happened(&desk, "text_expired"), 0);
    desk.wait_s(300);
    assert_eq!(happened(&desk, "text_expired"), 3);
    assert!(queue(&mut desk).is_empty());
}

#[test]
fn a_text_behind_the_head_ends_in_its_own_time() {
    let mut desk = absent(many());
    write(&mut desk, 0, "a", &submit("2001", "first", 1));
    write(&mut desk, 0, "b", &Submit { validity: Some(Validity::Relative(0)), ..submit("2001", "second", 2) });
    write(&mut desk, 0, "c", &submit("2001", "third", 3));
    desk.wait_s(301);
    assert_eq!((happened(&desk, "text_expired"), queue(&mut desk).len()), (1, 2));
    desk.cell_at(DALE, 1, "dale", 1, 36_000);
    let mut open: Vec<Came> = came(&mut desk).into_iter().filter(|came| came.code() == 0).collect();
    let mut words = Vec::new();
    while let Some(mt) = open.pop() {
        words.push(mt.words());
        open.extend(reply(&mut desk, &mt, "200 OK", &[]));
    }
    assert_eq!(words, ["first", "third"]);
    assert!(queue(&mut desk).is_empty() && desk.is_at_rest());
}

#[test]
fn a_head_that_ends_while_its_phone_is_absent_is_no_reason_to_page_it_for_the_next() {
    let mut desk = absent(many());
    desk.cell_at(DALE, 1, "dale", 1, 36_000);
    came(&mut desk);
    let (_, open) =
        write(&mut desk, 0, "a", &Submit { validity: Some(Validity::Relative(0)), ..submit("2001", "a", 1) });
    write(&mut desk, 0, "b", &submit("2001", "b", 2));
    reply(&mut desk, &open[0], "480 No_Paging_Response", &[]);
    desk.wait_s(310);
    assert_eq!(happened(&desk, "text_expired"), 1);
    assert!(came(&mut desk).is_empty());
    assert_eq!(queue(&mut desk)[0].state, "absent");
    desk.cell_at(DALE, 1, "dale", 2, 36_000);
    let open: Vec<Came> = came(&mut desk).into_iter().filter(|came| came.code() == 0).collect();
    assert_eq!((open.len(), open[0].words().as_str()), (1, "b"));
}

#[test]
fn an_absent_phone_is_not_paged_at_night() {
    // 06:13 here; night until 9, all ladders end in it.
    let mut all = many();
    let minute = (TODAY_MS / 60_000 % 1440) as u16;
    all.messages.night = Some((minute.saturating_sub(5), minute + 180));
    let mut desk = absent(all);
    desk.cell_at(DALE, 1, "dale", 1, 36_000);
    came(&mut desk);
    let (_, open) = write(&mut desk, 0, "a", &submit("2001", "late", 1));
    assert_eq!(open.len(), 1, "a new text is tried: nobody has said that the phone is absent");
    reply(&mut desk, &open[0], "480 No_Paging_Response", &[]);
    desk.wait_s(3 * 3600 - 120);
    assert!(came(&mut desk).is_empty());
    desk.wait_s(1200);
    assert!(!came(&mut desk).is_empty(), "in the morning");
}

#[test]
fn a_clock_that_is_put_right_ends_no_text() {
    let mut stores = desk_of(many()).stores.clone();
    stores.stores.values_mut().for_each(|store| *store = encamp::store::memory::MemoryStore::new());
    let mut desk = Desk::of(WallTime { ms: 1_000_000, trusted: false }, many(), stores);
    assert_eq!(desk.cell(0, "hill", 1, 2_000_000), 200);
    came(&mut desk);
    // An absolute end means nothing to this clock.
    let absolute = Validity::Absolute(Scts::new(TODAY_MS / 1000 - 5_000, 0));
    assert_eq!(write(&mut desk, 0, "a", &Submit { validity: Some(absolute), ..submit("2001", "a", 1) }).0, 202);
    let relative = Submit { validity: Some(Validity::Relative(11)), ..submit("2002", "an hour", 2) };
    assert_eq!(write(&mut desk, 0, "b", &relative).0, 202);
    desk.wait_s(600);
    desk.wall = WallTime { ms: TODAY_MS, trusted: true };
    desk.wait_s(2_900);
    assert_eq!((happened(&desk, "text_expired"), queue(&mut desk).len()), (0, 2));
    desk.wait_s(200);
    assert_eq!((happened(&desk, "text_expired"), queue(&mut desk).len()), (1, 1));
}

// --- Everything at once ---

/// Random events at one box; at each step what must hold, and in the end that nothing is left of it.
#[test]
fn whatever_happens_each_text_ends_once_and_nothing_is_left() {
    for seed in 0..16u64 {
        let mut all = many();
        all.messages.attempts_per_base_station_max = 3;
        all.messages.life_max = Duration::from_secs(3_000);
        all.messages.history_life = Duration::from_secs(700);
        let mut desk = desk_of(all);
        desk.cell(0, "hill", 1, 2_000_000);
        for phone in 101..=106 {
            assert_eq!(desk.cell_at(DALE, phone, "dale", phone as u32, 2_000_000), 200);
        }
        came(&mut desk);
        let mut state = seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1;
        let mut roll = |below: u64| {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            state % below
        };
        // By Call-ID: what the base station has been asked and has not answered, and since when.
        let mut open: BTreeMap<String, (u64, Came)> = BTreeMap::new();
        let mut accepted = 0;
        for step in 0..300u64 {
            let phone = 101 + roll(6);
            let mut out = Vec::new();
            match roll(12) {
                0..=4 => {
                    let protocol = if roll(3) == 0 { 0x41 } else { 0 };
                    let validity =
                        [None, Some(Validity::Relative(0)), Some(Validity::Enhanced([0x42, 50, 0, 0, 0, 0, 0]))];
                    let validity = validity[roll(3) as usize];
                    let text = submit(&format!("2{phone}"), "hello", step as u8);
                    let (code, requests) =
                        write(&mut desk, 0, &format!("s{step}"), &Submit { protocol, validity, ..text });
                    accepted += usize::from(code == 202);
                    out = requests;
                }
                5..=7 => {
                    let any = roll(open.len().max(1) as u64) as usize;
                    if let Some(call_id) = open.keys().nth(any).cloned() {
                        let (_, mt) = open.remove(&call_id).unwrap();
                        let status = ["200 OK", "200 OK", "400 Bad Request", "480 No", "100 Trying"][roll(5) as usize];
                        out = reply(&mut desk, &mt, status, &[]);
                    }
                }
                8 => desk.wait_s(1 + roll(40)),
                9 => desk.wait_s(400),
                10 => {
                    desk.cell_at(DALE, phone, "dale", 1_000 + step as u32, 2_000_000);
                }
                _ => {
                    let is_full = roll(2) == 0;
                    desk.stores.stores.get_mut(&StoreId::Messages).unwrap().set_full(is_full);
                }
            }
            out.extend(came(&mut desk).into_iter().filter(|came| came.head.starts_with("MESSAGE")));
            for mt in out {
                open.insert(mt.header("Call-ID").to_owned(), (desk.now_us, mt));
            }
            // None is under way for longer than an attempt takes.
            open.retain(|_, (since, _)| desk.now_us - *since < 60_000_000);
            let sending: Vec<String> =
                queue(&mut desk).into_iter().filter(|text| text.state == "sending").map(|text| text.to).collect();
            let once: BTreeSet<&String> = sending.iter().collect();
            assert_eq!(once.len(), sending.len(), "seed {seed}: a phone is paged twice at once");
            assert!(sending.len() <= 3, "seed {seed}: more than there are places");
        }
        desk.stores.stores.get_mut(&StoreId::Messages).unwrap().set_full(false);
        desk.wait_s(3_100);
        let ends = ["text_delivered", "text_expired", "text_replaced", "text_failed", "text_deleted"];
        let ended: usize = ends.iter().map(|name| happened(&desk, name)).sum();
        assert_eq!((ended, queue(&mut desk).len()), (accepted, 0), "seed {seed}");
        assert!(desk.is_at_rest(), "seed {seed}");
        desk.wait_s(1_000);
        let left: Vec<u8> = desk.stores.stores[&StoreId::Messages].durable().keys().map(|key| key[0]).collect();
        assert_eq!(left, b"n", "seed {seed}: nothing of it is on the disk");
    }
}
