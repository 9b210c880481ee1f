//! What a REGISTER leaves for the message centre: how texts go to the phone, whether it was ever here before, and who is in an area.

mod desk;

use std::sync::Arc;

use desk::texts::{DALE, FRONT, HILL, Site, write};
use desk::{Desk, KEY, TODAY_MS, imsi, settings};
use encamp::event::Event;
use encamp::gsm::form::TextForm;
use encamp::register::cluster::{self, Signed};
use encamp::register::merge::decode;
use encamp::seam::Port;
use encamp::store::{Store as _, StoreId};
use encamp::time::{Stamp, WallTime};
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
    let (subscribers, map) = (Arc::clone(&settings.subscribers), Arc::new(Map::new(&settings)));
    let site = encamp::site::Site { settings: Arc::new(settings), subscribers, map, epoch: 1, secret: [0; 16] };
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
