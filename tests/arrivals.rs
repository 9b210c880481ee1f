//! What a REGISTER leaves for the message centre: how texts go to the phone, whether it was ever here before, and who is in an area.

mod desk;

use std::collections::BTreeMap;
use std::sync::Arc;

use desk::texts::{DALE, FRONT, HILL, Site, write};
use desk::{Desk, KEY, TODAY_MS, imsi, settings};
use encamp::event::Event;
use encamp::gsm::form::TextForm;
use encamp::ident::{Imsi, Suffix};
use encamp::register::cluster::{self, Signed};
use encamp::register::merge::{Binding, Entry, Record, decode};
use encamp::register::replicas::{self, Replicas};
use encamp::seam::{Ctx, Outbox, Port, Rng, Timers};
use encamp::site::World;
use encamp::store::memory::{MemoryStore, MemoryStores};
use encamp::store::{Batch, Store as _, StoreId};
use encamp::time::{Clock, Instant, Stamp, WallTime};
use encamp::zone::Map;

/// A REGISTER with what tells one kind of base station or phone from another; the code of the answer.
fn register(desk: &mut Desk, from: &str, phone: u64, cseq: u32, contact: &str, more: &str) -> String {
    let (imsi, host) = (imsi(phone), from.split(':').next().unwrap());
    let text = format!(
        "REGISTER sip:192.0.2.1 SIP/2.0\r\nVia: SIP/2.0/UDP {from};branch=z9hG4bK{phone}.{cseq}\r\nMax-Forwards: 70\r\n\
         From: <sip:IMSI{imsi}@gsm.test>;tag=t{cseq}\r\nTo: <sip:IMSI{imsi}@gsm.test>\r\nCall-ID: {host}\r\n\
         CSeq: {cseq} REGISTER\r\nContact: {contact}\r\nExpires: 3600\r\n{more}Content-Length: 0\r\n\r\n"
    );
    let sent = desk.send(from, FRONT, &text);
    sent.iter().find(|text| text.starts_with("SIP/2.0 ")).map(|text| text[8..11].to_owned()).unwrap_or_default()
}

const OPENBTS: &str = "User-Agent: OpenBTS 5.0-master\r\n";
const YATE: &str = "User-Agent: YATE/6.0.1\r\nSupported: auth-gsm\r\n";

/// As an OpenBTS in this network.
fn in_network(desk: &mut Desk, station: &str, phone: u64, cseq: u32, plmn: &str) {
    let contact = format!("<sip:IMSI{}@{station}>", imsi(phone));
    let cell = format!("{OPENBTS}P-Access-Network-Info: 3GPP-GERAN; cgi-3gpp={plmn}03e8000a\r\n");
    assert_eq!(register(desk, station, phone, cseq, &contact, &cell), "200");
}

fn site_of(settings: encamp::config::Settings) -> encamp::site::Site {
    let (subscribers, map) = (Arc::clone(&settings.subscribers), Arc::new(Map::new(&settings)));
    encamp::site::Site { settings: Arc::new(settings), subscribers, map, epoch: 1, secret: [0; 16] }
}

fn first_seen(desk: &Desk) -> usize {
    desk.events.iter().filter(|event| matches!(event, Event::FirstSeen { .. })).count()
}

// --- How texts go there ---

fn kept_form(desk: &Desk, phone: u64) -> TextForm {
    let key = format!("b{}", imsi(phone));
    let forms = [0, 1].map(|replica| {
        let bytes = desk.stores.stores[&StoreId::Replica(replica)].get(key.as_bytes()).unwrap().unwrap();
        decode(&bytes).unwrap().newest().unwrap().2.texts
    });
    assert_eq!(forms[0], forms[1]);
    forms[0]
}

#[test]
fn the_form_of_texts_is_learned_from_the_register() {
    let mut desk = Desk::today();
    let contact = format!("<sip:IMSI{}@{HILL}>", imsi(1));
    let tagged = format!("{contact};+sip.instance=\"<urn:gsma:imei:35469503-356129-0>\";+G.3gpp.SMSip");
    for (cseq, contact, more, form) in [
        (1, &contact, OPENBTS, TextForm::OpenBts),
        (2, &contact, YATE, TextForm::Yate),
        // A base station names the tag for every phone: what it speaks itself is what counts.
        (3, &tagged, YATE, TextForm::Yate),
        (4, &tagged, OPENBTS, TextForm::OpenBts),
        (5, &tagged, "", TextForm::Ims),
        (6, &contact, "", TextForm::Plain),
    ] {
        assert_eq!(register(&mut desk, HILL, 1, cseq, contact, more), "200");
        assert_eq!(kept_form(&desk, 1), form, "{contact} {more}");
    }
}

#[test]
fn a_configured_form_goes_before_a_learned_one() {
    let mut settings = settings();
    settings.base_stations[0].texts = Some(TextForm::Ims);
    let site = site_of(settings);
    let at = |station: &str, learned| site.texts_at(station.parse().unwrap(), learned);
    for learned in TextForm::ALL {
        assert_eq!(at(HILL, learned), TextForm::Ims);
        assert_eq!(at("192.0.2.11:5080", learned), TextForm::Ims, "by address alone");
        assert_eq!(at(DALE, learned), learned);
        assert_eq!(at("192.0.2.99:5062", learned), learned);
    }
    let name = |address: &str| site.station_name(address.parse().unwrap());
    assert_eq!([name(HILL), name("192.0.2.99:5062")], ["hill", "192.0.2.99:5062"]);
    let area = |address: &str| site.area_of(address.parse().unwrap());
    assert_eq!([area("192.0.2.12"), area("192.0.2.99")], [Some("valley"), None]);
}

/// A lookup of another node, as the answer's `Encamp` header has it.
fn looked_up(desk: &mut Desk, phone: u64) -> String {
    let (uri, to) = (format!("sip:IMSI{}@192.0.2.1:5070", imsi(phone)), format!("sip:IMSI{}@gsm.test", imsi(phone)));
    let signed = Signed { method: "INVITE", uri: &uri, to: &to, call_id: "look", cseq: 1, status: 0, record: "" };
    let header = cluster::sign(&KEY, &signed, Stamp::ZERO, 1, "");
    let count = desk.events.len();
    let text = format!(
        "INVITE {uri} SIP/2.0\r\nVia: SIP/2.0/UDP 192.0.2.9:5064;branch=z9hG4bKlook{count}\r\nFrom: <sip:front@gsm.test>;tag=1\r\n\
         To: <{to}>\r\nCall-ID: look\r\nCSeq: 1 INVITE\r\nContact: <sip:front@192.0.2.9>\r\nMax-Forwards: 70\r\n\
         Encamp: {header}\r\nContent-Length: 0\r\n\r\n"
    );
    let sent = desk.send("192.0.2.9:5064", Port::Replica(0, 0), &text);
    assert!(sent[0].starts_with("SIP/2.0 302"), "{sent:?}");
    sent[0].lines().find_map(|line| line.strip_prefix("Encamp: ")).unwrap().to_owned()
}

#[test]
fn a_302_says_no_more_of_an_openbts_than_it_always_did() {
    let mut desk = Desk::today();
    let contact = format!("<sip:IMSI{}@{HILL}>", imsi(1));
    register(&mut desk, HILL, 1, 1, &contact, OPENBTS);
    let header = looked_up(&mut desk, 1);
    assert!(!header.contains("texts=") && !header.contains("station="), "{header}");
    register(&mut desk, HILL, 1, 2, &contact, YATE);
    let header = looked_up(&mut desk, 1);
    assert!(header.contains(";texts=yatebts") && !header.contains("station="), "{header}");
    register(&mut desk, HILL, 1, 3, "<sip:me@phone.example>", "");
    let header = looked_up(&mut desk, 1);
    assert!(header.contains(";texts=plain;station=192.0.2.11:5062"), "{header}");
}

// --- Whether it was here before ---

#[test]
fn a_phone_is_new_once() {
    let mut desk = Desk::today();
    assert_eq!(desk.cell(1, "bts", 1, 3600), 200);
    assert_eq!(first_seen(&desk), 1);
    assert_eq!(desk.cell(1, "bts", 2, 3600), 200, "a refresh");
    assert_eq!(desk.cell_at(DALE, 1, "dale", 1, 3600), 200, "a move");
    assert_eq!(desk.cell_at(DALE, 1, "dale", 2, 0), 200, "a detach");
    assert_eq!(desk.cell_at(DALE, 1, "dale", 3, 3600), 200, "a tombstone is a memory, too");
    desk.restart();
    assert_eq!(desk.cell(1, "bts", 4, 3600), 200);
    assert_eq!(first_seen(&desk), 1);
    assert_eq!(desk.cell(2, "bts", 5, 0), 200, "a detach of one that never came is no arrival");
    assert_eq!(first_seen(&desk), 1);
    assert_eq!(desk.cell(2, "bts", 6, 3600), 200);
    assert_eq!(first_seen(&desk), 2);
}

#[test]
fn a_refused_phone_and_one_whose_disk_has_not_synced_have_not_arrived() {
    let mut desk = Desk::today();
    desk.cell(9, "bts", 1, 3600);
    desk.slow = true;
    desk.cell(1, "bts", 2, 3600);
    assert_eq!(first_seen(&desk), 0);
    desk.slow = false;
    desk.wait_ms(1);
    assert_eq!(first_seen(&desk), 1, "with its 200");
}

/// One yes of two is enough for a phone there, and not to say that nobody has ever seen it.
#[test]
fn that_a_phone_is_new_needs_as_many_replicas_as_that_it_is_away() {
    let mut site = Site::new();
    let seen = |site: &Site| site.boxes.each_ref().map(first_seen);
    site.register(0, HILL, 1, 1);
    assert_eq!(seen(&site), [1, 0], "the other box was heard");
    site.register(1, DALE, 1, 1);
    assert_eq!(seen(&site), [1, 0]);
    site.cut = true;
    assert!(site.register(1, DALE, 2, 2)[0].text().starts_with("SIP/2.0 200"));
    site.wait_s(10);
    assert!(site.register(0, HILL, 2, 2)[0].text().starts_with("SIP/2.0 200"));
    site.wait_s(10);
    assert_eq!(seen(&site), [1, 0], "neither can know what the other has");
    site.cut = false;
    site.wait_s(60);
    site.register(0, HILL, 3, 3);
    assert_eq!(seen(&site), [2, 0]);
}

#[test]
fn who_was_written_to_before_he_ever_came_is_new_all_the_same() {
    let mut desk = Desk::today();
    assert_eq!(desk.cell(1, "bts", 1, 3600), 200);
    write(&mut desk, 1, "a", "2002", "hello");
    assert_eq!(desk.cell(2, "bts", 2, 3600), 200);
    assert_eq!(first_seen(&desk), 2);
}

#[test]
fn a_change_of_network_is_one_between_two_that_are_known() {
    let mut desk = Desk::at(WallTime { ms: TODAY_MS, trusted: true });
    let changes = |desk: &Desk| {
        let network = |event: &Event| match event {
            Event::NetworkChanged { network, .. } => Some(network.to_string()),
            _ => None,
        };
        desk.events.iter().filter_map(network).collect::<Vec<_>>()
    };
    in_network(&mut desk, HILL, 1, 1, "00101");
    in_network(&mut desk, HILL, 1, 2, "00101");
    assert!(changes(&desk).is_empty());
    in_network(&mut desk, DALE, 1, 1, "001001");
    assert_eq!(changes(&desk), ["001-001"], "an MNC of three digits is another one");
    in_network(&mut desk, DALE, 1, 2, "001001");
    in_network(&mut desk, HILL, 1, 3, "00101");
    assert_eq!(changes(&desk), ["001-001", "001-01"]);
    let contact = format!("<sip:IMSI{}@{DALE}>", imsi(1));
    assert_eq!(register(&mut desk, DALE, 1, 3, &contact, OPENBTS), "200");
    in_network(&mut desk, HILL, 1, 4, "00102");
    assert_eq!(changes(&desk).len(), 2, "from a cell that did not say where it is");
}

// --- Who is there ---

/// Two shards by the last digit, even and odd, each with two replicas here; a third one whose replica is elsewhere.
struct Shards {
    site: encamp::site::Site,
    replicas: Replicas,
    stores: MemoryStores,
    rng: Rng,
    out: Outbox,
    clock: Clock,
    timers: Timers,
    unreadable: usize,
}

impl Shards {
    fn new() -> Shards {
        let mut settings = settings();
        let suffixes = |digits: &[u32]| digits.iter().map(|n| Suffix::parse(&n.to_string()).unwrap()).collect();
        settings.shards.push(settings.shards[0].clone());
        settings.shards.push(settings.shards[0].clone());
        for (shard, digits) in [&[0, 2, 4, 6, 8][..], &[1, 3, 5, 7], &[9]].into_iter().enumerate() {
            settings.shards[shard].name = format!("s{shard}");
            settings.shards[shard].suffixes = suffixes(digits);
            settings.shards[shard].replicas = if shard == 2 { vec![4] } else { vec![2 * shard, 2 * shard + 1] };
        }
        for n in 2..5 {
            let mut replica = settings.replicas[n % 2].clone();
            (replica.name, replica.shard) = (format!("r{n}"), n / 2);
            settings.replicas.push(replica);
        }
        settings.replicas[4].place = encamp::config::Place::Remote { address: "192.0.2.99:5070".parse().unwrap() };
        let mut stores = MemoryStores::default();
        stores.stores.insert(StoreId::Node, MemoryStore::new());
        for n in 0..4 {
            let mut store = MemoryStore::new();
            replicas::found(&mut store, &settings, usize::from(n) / 2, TODAY_MS, true).unwrap();
            stores.stores.insert(StoreId::Replica(n), store);
        }
        let replicas = Replicas::new(&settings);
        let clock = Clock::new(1, TODAY_MS, Vec::new(), None, Instant(0));
        let (rng, out, timers) = (Rng::from_seed([1; 32]), Outbox::default(), Timers::default());
        let site = site_of(settings);
        let mut shards = Shards { site, replicas, stores, rng, out, clock, timers, unreadable: 0 };
        shards.with(|replicas, w| replicas.start(w, false)).unwrap();
        shards
    }

    fn with<T>(&mut self, what: impl FnOnce(&mut Replicas, &mut World<'_, '_>) -> T) -> T {
        let wall = WallTime { ms: TODAY_MS, trusted: true };
        let (rng, stores, out) = (&mut self.rng, &mut self.stores, &mut self.out);
        let mut ctx = Ctx { now: Instant(0), wall, rng, stores, out };
        let (clock, timers) = (&mut self.clock, &mut self.timers);
        let result = what(&mut self.replicas, &mut World { ctx: &mut ctx, site: &self.site, clock, timers });
        while let Some(output) = self.out.pop() {
            let text = format!("{output:?}");
            self.unreadable += usize::from(text.contains("RecordUnreadable"));
        }
        result
    }

    /// A binding at a base station, which has expired so long ago, on both replicas of its shard that are here, or on one.
    fn bind(&mut self, phone: u64, n: u64, station: &str, expired_s: u64, replicas: &[usize]) {
        let stamp = Stamp { ms: TODAY_MS + n, counter: 0, front: 1 };
        let binding = Binding {
            expires_at_ms: TODAY_MS - expired_s * 1000,
            since_ms: 0,
            call_id: "x".into(),
            cseq: 1,
            source: station.parse().unwrap(),
            cell: None,
            path: Vec::new(),
            instance: None,
            previous: None,
            texts: TextForm::OpenBts,
        };
        let contacts = BTreeMap::from([(format!("sip:{station}"), Entry { stamp, binding: Some(binding) })]);
        let delta = Record { contacts, ..Record::default() };
        for index in replicas {
            self.with(|all, w| all.apply_local(w, *index, imsi(phone), &delta).map(drop)).unwrap();
        }
    }

    /// Everybody at a base station, read in pages of so many.
    fn at(&mut self, station: &str, limit: usize) -> Vec<Imsi> {
        let (mut all, mut cursor, mut looked_at) = (Vec::new(), None, 0);
        for _ in 0..1_000 {
            let read = std::cell::Cell::new(0);
            let wanted = |binding: &Binding| {
                read.set(read.get() + 1);
                binding.source.to_string() == station
            };
            let (bound, next) = self.with(|replicas, w| replicas.bound_at(w, &wanted, cursor, limit));
            assert!(read.get() <= limit && bound.len() <= limit, "{} records in one page", read.get());
            looked_at += read.get();
            all.extend(bound);
            cursor = next;
            if cursor.is_none() {
                assert!(looked_at > 0);
                return all;
            }
        }
        panic!("it comes to no end");
    }
}

#[test]
fn an_area_is_read_page_by_page_and_each_phone_once() {
    let mut shards = Shards::new();
    for phone in 0..40 {
        let index = 2 * (phone as usize % 2);
        if phone % 10 == 9 {
            continue;
        }
        shards.bind(phone, 1, if phone % 3 == 0 { HILL } else { DALE }, 0, &[index, index + 1]);
    }
    let mut expected: Vec<Imsi> = (0..40).filter(|phone| phone % 3 == 0 && phone % 10 != 9).map(imsi).collect();
    expected.sort();
    for limit in [1, 2, 3, 7, 18, 36, 1_000] {
        let mut all = shards.at(HILL, limit);
        assert!(all.is_sorted_by_key(|imsi| (imsi.as_str().as_bytes()[14] % 2, *imsi)), "by shard, then by IMSI");
        all.sort();
        assert_eq!(all, expected, "in pages of {limit}");
    }
}

#[test]
fn the_newest_binding_says_where_a_phone_is_and_an_old_one_counts_while_it_would_be_routed_to() {
    let mut shards = Shards::new();
    let stale_s = shards.site.settings.registrar.stale_life.as_secs();
    shards.bind(0, 1, HILL, 0, &[0, 1]);
    shards.bind(0, 2, DALE, 0, &[0, 1]);
    shards.bind(2, 1, DALE, 0, &[0, 1]);
    shards.bind(2, 2, HILL, stale_s - 1, &[0, 1]);
    shards.bind(4, 1, HILL, stale_s, &[0, 1]);
    assert_eq!(shards.at(HILL, 10), [imsi(2)]);
    assert_eq!(shards.at(DALE, 10), [imsi(0)]);
}

#[test]
fn a_replica_that_is_not_level_is_not_read_and_a_record_that_cannot_be_read_holds_nobody_up() {
    let mut shards = Shards::new();
    shards.bind(0, 1, HILL, 0, &[0]);
    shards.bind(2, 1, HILL, 0, &[0, 1]);
    shards.bind(1, 1, HILL, 0, &[2, 3]);
    assert_eq!(shards.at(HILL, 10), [imsi(0), imsi(2), imsi(1)]);
    shards.with(|replicas, w| replicas.closed(w, StoreId::Replica(0), "gone".into()));
    assert_eq!(shards.at(HILL, 10), [imsi(2), imsi(1)], "the other one of the shard is read");
    // A page that was begun at one is gone on with at the other.
    let (page, cursor) = shards.with(|replicas, w| replicas.bound_at(w, &|_| true, Some((0, imsi(0))), 1));
    assert_eq!((page, cursor), (vec![imsi(2)], Some((0, imsi(2)))));
    let store = shards.stores.stores.get_mut(&StoreId::Replica(1)).unwrap();
    store.write(Batch::default().put(format!("b{}", imsi(0)), [99u8])).unwrap();
    assert_eq!(shards.at(HILL, 10), [imsi(2), imsi(1)]);
    assert_eq!(shards.unreadable, 1);
    // A phone of another shard, which the map gave to another one.
    shards.bind(3, 1, HILL, 0, &[1]);
    assert_eq!(shards.at(HILL, 10), [imsi(2), imsi(1)]);
}
