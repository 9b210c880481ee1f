//! The zone's answers, by the sentence that each proves, and all of them against a literal reading of RFC 1034 and 4592.

mod zone;

use std::collections::{BTreeMap, HashSet};
use std::sync::Arc;

use encamp::config::Mail;
use encamp::ident::{Imsi, Network};
use encamp::zone::answer::{Class, Data, Question, RType, Rcode, Reply, Rr};
use encamp::zone::{Health, Zone};
use zone::{APEX, Dice, listeners, local, mail, questions, remote, settings, site, zone, zone_with};

fn ask(zone: &Zone, name: &str, rtype: RType) -> Reply {
    zone.answer(&Question { name: &full(name), rtype, class: Class::IN })
}

/// `5.6.imsi` as `5.6.imsi.gsm.example`.
fn full(name: &str) -> String {
    if name.is_empty() { APEX.to_owned() } else { format!("{name}.{APEX}") }
}

/// The data of an answer as a master file has it, sorted.
fn data(reply: &Reply) -> Vec<String> {
    let mut all: Vec<String> = reply.answers.iter().map(|rr| rr.data.to_string()).collect();
    all.sort();
    all
}

/// The shards that the NAPTR records of a name lead to; `NODATA` or `NXDOMAIN` where there is none.
fn shard(zone: &Zone, name: &str) -> String {
    let reply = ask(zone, name, RType::NAPTR);
    match (reply.rcode, &reply.answers[..]) {
        (Rcode::NxDomain, []) => "NXDOMAIN".into(),
        (Rcode::NoError, []) => "NODATA".into(),
        (Rcode::NoError, [first, ..]) => {
            assert!(reply.answers.iter().all(|rr| *rr.name == *full(name)), "the owner is the name that was asked");
            let Data::Naptr { replacement, .. } = &first.data else { panic!("{first}") };
            replacement.split('.').nth(2).unwrap().to_owned()
        }
        other => panic!("{other:?}"),
    }
}

fn below_imsi(digits: &str) -> String {
    let labels: Vec<String> = digits.chars().map(String::from).collect();
    format!("{}.imsi", labels.join("."))
}

#[test]
fn a_whole_imsi_finds_its_shard_and_the_longer_suffix_wins() {
    let zone = zone();
    for (imsi, expected) in [
        ("001010000000001", "low"),
        ("001010000000356", "split"),
        ("001010000000256", "high"),
        ("001010000021356", "split"),
        ("001010000101356", "deep"),
        ("001010000201356", "deep"),
        ("00101000000356", "split"),
        ("00101000012345", "split"),
        ("00101000013345", "low"),
        ("001010000007712", "quiet"),
        ("001010000008712", "low"),
    ] {
        assert_eq!(shard(&zone, &below_imsi(imsi)), expected, "{imsi}");
        let imsi = Imsi::parse(imsi).unwrap();
        let of_map = zone.map.shard_of(&imsi).map(|at| &*zone.settings.shards[at].name);
        assert_eq!(of_map, Some(expected), "DNS and the map agree on {imsi}");
    }
}

#[test]
fn names_between_a_suffix_and_its_owner_are_published_exactly_and_as_wildcards() {
    let zone = zone();
    let owned_by = |name: &str| shard(&zone, name);
    // 2345 splits 45 by two digits, so 345 is published with 45's records; 01356 splits 356, so 1356 with 356's.
    assert_eq!(owned_by("3.4.5.imsi"), "low");
    assert_eq!(owned_by("*.3.4.5.imsi"), "low");
    assert_eq!(owned_by("9.3.4.5.imsi"), "low");
    assert_eq!(owned_by("2.3.4.5.imsi"), "split");
    assert_eq!(owned_by("1.3.5.6.imsi"), "split");
    assert_eq!(owned_by("9.1.3.5.6.imsi"), "split");
    assert_eq!(owned_by("0.1.3.5.6.imsi"), "deep");
    let dumped: HashSet<String> = zone.dump().iter().map(|rr| rr.name.to_string()).collect();
    for name in ["3.4.5.imsi", "*.3.4.5.imsi", "1.3.5.6.imsi", "*.1.3.5.6.imsi"] {
        assert!(dumped.contains(&full(name)), "{name}");
    }
    // A split by one digit needs none.
    assert!(!dumped.contains(&full("7.3.5.6.imsi")));
}

#[test]
fn rfc_4592_wildcards_and_empty_non_terminals() {
    let zone = zone();
    // "A wildcard domain name can be owner of data" and is found under its own name; nothing exists below it.
    assert_eq!(shard(&zone, "*.5.6.imsi"), "high");
    assert_eq!(shard(&zone, "3.*.5.6.imsi"), "NXDOMAIN");
    assert_eq!(shard(&zone, "*.*.5.6.imsi"), "NXDOMAIN");
    // A label that is no digit follows the wildcard of the closest encloser, and so does what is below it.
    assert_eq!(shard(&zone, "x.5.6.imsi"), "high");
    assert_eq!(shard(&zone, "3.x.5.6.imsi"), "high");
    assert_eq!(shard(&zone, "*.x.5.6.imsi"), "high");
    assert_eq!(shard(&zone, "10.5.6.imsi"), "high");
    // An empty non-terminal exists, and stands between `imsi` and everybody else.
    assert_eq!(shard(&zone, "6.imsi"), "NODATA");
    assert_eq!(shard(&zone, "x.6.imsi"), "NXDOMAIN");
    assert_eq!(shard(&zone, "*.6.imsi"), "NXDOMAIN");
    assert_eq!(shard(&zone, "x.imsi"), "NXDOMAIN");
    assert_eq!(shard(&zone, "shard"), "NODATA");
    assert_eq!(shard(&zone, "_udp"), "NODATA");
    assert_eq!(shard(&zone, "_udp.low.shard"), "NODATA");
}

#[test]
fn rfc_2308_nothing_is_told_with_the_soa() {
    let zone = zone();
    for (name, rtype, rcode) in [
        ("5.6.imsi", RType::A, Rcode::NoError),
        ("9.5.6.imsi", RType::TXT, Rcode::NoError),
        ("6.imsi", RType::NAPTR, Rcode::NoError),
        ("front", RType::NAPTR, Rcode::NoError),
        ("nobody", RType::A, Rcode::NxDomain),
        ("x.front", RType::A, Rcode::NxDomain),
        ("0.imsi.imsi", RType::NAPTR, Rcode::NxDomain),
    ] {
        let reply = ask(&zone, name, rtype);
        assert_eq!((reply.rcode, reply.authoritative), (rcode, true), "{name} {rtype}");
        assert!(reply.answers.is_empty(), "{name} {rtype}");
        let [soa] = &reply.authority[..] else { panic!("{name} {rtype}: {:?}", reply.authority) };
        assert_eq!(
            soa.to_string(),
            "gsm.example. 60 IN SOA ns.gsm.example. hostmaster.gsm.example. 2026112101 60 30 604800 60"
        );
    }
}

#[test]
fn outside_the_apex_another_class_or_a_transfer_is_refused() {
    let zone = zone();
    let refused = |name: &str, rtype: RType, class: u16| {
        let reply = zone.answer(&Question { name, rtype, class: Class(class) });
        assert_eq!(reply, Reply::refused(), "{name} {rtype} {class}");
    };
    refused("example", RType::SOA, 1);
    refused("xgsm.example", RType::A, 1);
    refused("", RType::NS, 1);
    refused(APEX, RType::SOA, 3);
    refused(APEX, RType::AXFR, 1);
    refused(APEX, RType::IXFR, 1);
}

#[test]
fn any_is_answered_with_one_set_only() {
    // RFC 8482 §4.1; nsd would send all, so this is not compared with it.
    let reply = ask(&zone(), "", RType::ANY);
    assert_eq!(reply.answers.iter().map(|rr| rr.data.rtype()).collect::<Vec<_>>(), [RType::SOA]);
    assert_eq!(ask(&zone(), "6.imsi", RType::ANY).answers, []);
    assert_eq!(ask(&zone(), "x.5.6.imsi", RType::ANY).answers.len(), 1);
}

#[test]
fn a_shard_is_told_by_naptr_then_srv_then_addresses() {
    let zone = zone();
    assert_eq!(
        data(&ask(&zone, "0.1.imsi", RType::NAPTR)),
        [
            "10 10 \"s\" \"SIP+D2U\" \"\" _sip._udp.low.shard.gsm.example.",
            "10 20 \"s\" \"SIP+D2T\" \"\" _sip._tcp.low.shard.gsm.example.",
        ]
    );
    let srv = ask(&zone, "_sip._udp.low.shard", RType::SRV);
    assert_eq!(data(&srv), ["10 10 5070 a.replica.gsm.example.", "10 10 5071 b.replica.gsm.example."]);
    let additional: Vec<String> = srv.additional.iter().map(Rr::to_string).collect();
    assert_eq!(additional, ["a.replica.gsm.example. 60 IN A 192.0.2.1", "b.replica.gsm.example. 60 IN A 192.0.2.2"]);
    assert_eq!(data(&ask(&zone, "_sip._tcp.low.shard", RType::SRV)), ["10 10 5071 b.replica.gsm.example."]);
    assert_eq!(data(&ask(&zone, "low.shard", RType::TXT)), ["\"replicas=2 quorum=1 epoch=17\""]);
    assert_eq!(data(&ask(&zone, "imsi", RType::TXT)), ["\"digits=5 epoch=17\""]);
}

#[test]
fn naptr_and_srv_exist_for_the_transports_on_which_a_replica_listens() {
    let zone = zone();
    // Of `high`, c does not listen and d is elsewhere, which is UDP.
    assert_eq!(data(&ask(&zone, "_sip._udp.high.shard", RType::SRV)), ["10 10 5070 d.replica.gsm.example."]);
    assert_eq!(ask(&zone, "_sip._tcp.high.shard", RType::SRV).rcode, Rcode::NxDomain);
    assert_eq!(
        data(&ask(&zone, "5.0.imsi", RType::NAPTR)),
        ["10 10 \"s\" \"SIP+D2U\" \"\" _sip._udp.high.shard.gsm.example."]
    );
    assert_eq!(data(&ask(&zone, "d.replica", RType::A)), ["198.51.100.7"]);
    assert_eq!(ask(&zone, "c.replica", RType::A).rcode, Rcode::NxDomain);
    // `split` listens on TCP over IPv6 only.
    assert_eq!(
        data(&ask(&zone, "3.5.6.imsi", RType::NAPTR)),
        ["10 20 \"s\" \"SIP+D2T\" \"\" _sip._tcp.split.shard.gsm.example."]
    );
    assert_eq!(data(&ask(&zone, "e.replica", RType::AAAA)), ["2001:db8::5"]);
    // f's address is not known ("any"), so it has a port and no address.
    assert_eq!(data(&ask(&zone, "_sip._udp.deep.shard", RType::SRV)), ["10 10 5070 f.replica.gsm.example."]);
    assert_eq!(ask(&zone, "f.replica", RType::A).rcode, Rcode::NxDomain);
}

#[test]
fn a_shard_that_nobody_hears_is_reached_through_the_front() {
    let zone = zone();
    assert_eq!(data(&ask(&zone, "_sip._udp.quiet.shard", RType::SRV)), ["10 10 5060 front.gsm.example."]);
    assert_eq!(data(&ask(&zone, "_sip._tcp.quiet.shard", RType::SRV)), ["10 10 5060 front.gsm.example."]);
    assert_eq!(ask(&zone, "7.7.1.2.imsi", RType::NAPTR).answers.len(), 2);

    let mut nowhere = site();
    nowhere.front.listen.clear();
    let zone = zone_with(nowhere, &[]);
    assert_eq!(data(&ask(&zone, "_sip._udp.quiet.shard", RType::SRV)), ["10 10 0 ."]);
    assert_eq!(shard(&zone, "9.7.7.1.2.imsi"), "quiet");
}

#[test]
fn the_apex_leads_to_the_front() {
    let zone = zone();
    assert_eq!(data(&ask(&zone, "", RType::NS)), ["ns.gsm.example."]);
    let additional: Vec<String> = ask(&zone, "", RType::NS).additional.iter().map(|rr| rr.data.to_string()).collect();
    assert_eq!(additional, ["192.0.2.1", "2001:db8::1"]);
    assert_eq!(
        data(&ask(&zone, "", RType::NAPTR)),
        ["10 10 \"s\" \"SIP+D2U\" \"\" _sip._udp.gsm.example.", "10 20 \"s\" \"SIP+D2T\" \"\" _sip._tcp.gsm.example."]
    );
    assert_eq!(data(&ask(&zone, "_sip._udp", RType::SRV)), ["10 10 5060 front.gsm.example."]);
    for name in ["ns", "front", "mail"] {
        assert_eq!(data(&ask(&zone, name, RType::A)), ["192.0.2.1"], "{name}");
    }
    let mut advertised = site();
    advertised.front.listen = listeners(&["udp:0.0.0.0:5060"]);
    assert_eq!(ask(&zone_with(advertised.clone(), &[]), "front", RType::A).rcode, Rcode::NxDomain);
    advertised.front.listen[0].advertise = Some("203.0.113.9".parse().unwrap());
    assert_eq!(data(&ask(&zone_with(advertised, &[]), "front", RType::A)), ["203.0.113.9"]);
}

#[test]
fn the_mail_domain_leads_to_the_box_where_that_takes_mail_from_strangers() {
    assert_eq!(data(&ask(&zone(), "sms", RType::MX)), ["10 mail.gsm.example."]);
    let with = |domain: &str, listen: &str| {
        let mut settings = site();
        settings.mail = Some(Arc::new(Mail { domain: domain.into(), ..mail(listen) }));
        zone_with(settings, &[])
    };
    let elsewhere = with("sms.gsm.example", "203.0.113.25:25");
    let reply = ask(&elsewhere, "sms", RType::MX);
    assert_eq!(data(&reply), ["10 mail.gsm.example."]);
    assert_eq!(reply.additional.iter().map(|rr| rr.data.to_string()).collect::<Vec<_>>(), ["203.0.113.25"]);
    assert_eq!(data(&ask(&with(APEX, "0.0.0.0:25"), "", RType::MX)), ["10 mail.gsm.example."]);
    for (domain, listen) in [("sms.gsm.example", "127.0.0.1:25"), ("sms.other.example", "0.0.0.0:25")] {
        assert_eq!(ask(&with(domain, listen), "sms", RType::MX).rcode, Rcode::NxDomain, "{domain} {listen}");
    }
    assert!(ask(&with("notgsm.example", "0.0.0.0:25"), "", RType::MX).answers.is_empty());
}

#[test]
fn a_replica_that_is_not_well_has_a_worse_priority() {
    let zone = zone();
    let mut health = zone.health.clone();
    health[1] = Health::Worse;
    let turned = zone.turn(health, zone.serial + 1);
    assert_eq!(
        data(&ask(&turned, "_sip._udp.low.shard", RType::SRV)),
        ["10 10 5070 a.replica.gsm.example.", "20 10 5071 b.replica.gsm.example."]
    );
    assert!(data(&ask(&turned, "", RType::SOA))[0].contains(" 2026112102 "));
    assert_eq!(data(&ask(&zone, "_sip._udp.low.shard", RType::SRV))[1], "10 10 5071 b.replica.gsm.example.");
}

#[test]
fn numbers_are_told_reversed_and_without_the_imsi() {
    let zone = zone();
    let e164 = ask(&zone, "1.0.0.0.5.5.5.1.e164", RType::NAPTR);
    assert_eq!(data(&e164), ["10 100 \"u\" \"E2U+sip\" \"!^.*$!sip:+15550001@gsm.example!\" ."]);
    let short = ask(&zone, "1.0.0.2.num", RType::NAPTR);
    assert_eq!(data(&short), ["10 100 \"u\" \"E2U+sip\" \"!^.*$!sip:2001@gsm.example!\" ."]);
    for (name, rcode) in [
        ("0.0.0.5.5.5.1.e164", Rcode::NoError), // the beginning of a number is NODATA
        ("1.e164", Rcode::NoError),
        ("e164", Rcode::NoError),
        ("num", Rcode::NoError),
        ("3.0.0.0.5.5.5.1.e164", Rcode::NxDomain), // nobody's
        ("2.e164", Rcode::NxDomain),
        ("1.0.0.2.e164", Rcode::NxDomain), // short numbers are not international ones
        ("1.0.0.0.5.5.5.1.num", Rcode::NxDomain),
        ("9.2.0.0.2.num", Rcode::NxDomain), // longer than any
        ("*.e164", Rcode::NxDomain),
        ("x.5.5.5.1.e164", Rcode::NxDomain),
        ("1.1.1.1.1.1.1.1.1.1.1.1.1.1.1.1.1.e164", Rcode::NxDomain),
    ] {
        let reply = ask(&zone, name, RType::NAPTR);
        assert_eq!((reply.rcode, reply.answers.len()), (rcode, 0), "{name}");
    }
    // One number may be the beginning of another.
    assert_eq!(ask(&zone, "5.5.5.1.e164", RType::NAPTR).answers.len(), 1);
    assert_eq!(ask(&zone_with(site(), &["2001"]), "e164", RType::NAPTR).rcode, Rcode::NxDomain);
}

#[test]
fn allow_hides_subscribers_from_others_and_nothing_else() {
    let mut site = site();
    site.zone.allow = vec![Network::parse("192.0.2.0/24").unwrap(), Network::parse("2001:db8::/32").unwrap()];
    let zone = zone_with(site, &["+15550001", "2001"]);
    let rcode = |source: &str, name: &str| {
        let question = Question { name: &full(name), rtype: RType::NAPTR, class: Class::IN };
        zone.answer_to(source.parse().unwrap(), &question).rcode
    };
    for name in ["5.6.imsi", "x.5.6.imsi", "imsi", "6.imsi", "x.imsi", "1.e164", "e164", "num", "9.num", "x.y.num"] {
        assert_eq!(rcode("198.51.100.1", name), Rcode::Refused, "{name}");
        assert_ne!(rcode("192.0.2.77", name), Rcode::Refused, "{name}");
        assert_ne!(rcode("::ffff:192.0.2.77", name), Rcode::Refused, "{name}");
        assert_ne!(rcode("2001:db8::77", name), Rcode::Refused, "{name}");
    }
    for name in ["", "front", "low.shard", "a.replica", "imsi.front", "ximsi"] {
        assert_ne!(rcode("198.51.100.1", name), Rcode::Refused, "{name}");
    }
}

#[test]
fn the_dump_is_a_master_file_and_json() {
    let zone = zone();
    let text = zone.dump_text();
    assert!(text.starts_with("gsm.example. 60 IN SOA "), "{}", &text[..80]);
    for line in [
        "*.5.6.imsi.gsm.example. 60 IN NAPTR 10 10 \"s\" \"SIP+D2U\" \"\" _sip._udp.high.shard.gsm.example.",
        "2.1.1.num.gsm.example. 60 IN NAPTR 10 100 \"u\" \"E2U+sip\" \"!^.*$!sip:112@gsm.example!\" .",
    ] {
        assert!(text.lines().any(|have| have == line), "{line}");
    }
    let lines: HashSet<&str> = text.lines().collect();
    assert_eq!(lines.len(), text.lines().count(), "no record twice");
    assert_eq!(serde_json::to_value(&zone.dump()[0]).unwrap()["type"], serde_json::json!("SOA"),);
    let a = zone.dump().into_iter().find(|rr| *rr.name == *full("a.replica")).unwrap();
    assert_eq!(
        serde_json::to_string(&a).unwrap(),
        r#"{"name":"a.replica.gsm.example.","ttl":60,"type":"A","data":"192.0.2.1"}"#
    );
}

/// A secondary that read the RFCs and nothing else.
struct Secondary {
    records: BTreeMap<String, Vec<Rr>>,
}

impl Secondary {
    fn load(dump: Vec<Rr>) -> Secondary {
        let mut records: BTreeMap<String, Vec<Rr>> = BTreeMap::new();
        for rr in dump {
            // Every name above one that owns something exists, with or without records (RFC 4592 §2.2.2).
            let labels: Vec<&str> = rr.name.split('.').collect();
            for at in 0..=labels.len() - APEX.split('.').count() {
                records.entry(labels[at..].join(".")).or_default();
            }
            records.get_mut(&*rr.name).unwrap().push(rr);
        }
        Secondary { records }
    }

    fn answer(&self, name: &str, rtype: RType) -> (Rcode, HashSet<Rr>, HashSet<Rr>) {
        if name != APEX && !name.ends_with(&format!(".{APEX}")) {
            return (Rcode::Refused, HashSet::new(), HashSet::new());
        }
        let soa = self.records[APEX].iter().find(|rr| rr.data.rtype() == RType::SOA).unwrap().clone();
        // "Start matching down, label by label, in the zone" (RFC 1034 §4.3.2 step 3).
        let labels: Vec<&str> = name.split('.').collect();
        let mut at = labels.len() - APEX.split('.').count();
        let mut closest = APEX.to_owned();
        while at > 0 && self.records.contains_key(&labels[at - 1..].join(".")) {
            at -= 1;
            closest = labels[at..].join(".");
        }
        let source = if at == 0 { closest } else { format!("*.{closest}") };
        let Some(records) = self.records.get(&source) else {
            // "If the '*' label does not exist, […] set an authoritative name error" (step 3c).
            return (Rcode::NxDomain, HashSet::new(), HashSet::from([soa]));
        };
        // "copy them into the answer section, but set the owner of the RR to be QNAME, and not the node with the '*' label"
        let answers: HashSet<Rr> = records
            .iter()
            .filter(|rr| rr.data.rtype() == rtype)
            .map(|rr| Rr { name: Arc::from(name), ..rr.clone() })
            .collect();
        let authority = if answers.is_empty() { HashSet::from([soa]) } else { HashSet::new() };
        (Rcode::NoError, answers, authority)
    }
}

fn compare(zone: &Zone, seed: u64, count: usize) -> BTreeMap<String, usize> {
    let secondary = Secondary::load(zone.dump());
    let mut kinds = BTreeMap::new();
    for (name, rtype) in questions(zone, seed, count) {
        let reply = zone.answer(&Question { name: &name, rtype, class: Class::IN });
        let (rcode, answers, authority) = secondary.answer(&name, rtype);
        let kind = format!("{rcode:?} {}", if answers.is_empty() { "nothing" } else { "answers" });
        *kinds.entry(kind).or_default() += 1;
        assert_eq!(reply.answers.len(), answers.len(), "seed {seed}: {name} {rtype}");
        assert_eq!(
            (reply.rcode, reply.answers.into_iter().collect(), reply.authority.into_iter().collect()),
            (rcode, answers, authority),
            "seed {seed}: {name} {rtype}"
        );
    }
    kinds
}

#[test]
fn every_answer_is_a_secondarys() {
    let kinds = compare(&zone(), 1, 50_000);
    // The questions are worth nothing if they all meet the same end.
    for kind in ["NoError answers", "NoError nothing", "NxDomain nothing", "Refused nothing"] {
        assert!(kinds.get(kind).is_some_and(|count| *count > 500), "{kind}: {kinds:?}");
    }
}

#[test]
fn every_answer_is_a_secondarys_whatever_the_map() {
    for seed in 0..300 {
        let mut dice = Dice(seed);
        // Few digits, so that suffixes meet; sometimes with holes in the map, which a reader would refuse.
        let mut taken = HashSet::new();
        let mut shards = Vec::new();
        let places =
            [local(&["udp:192.0.2.7:5070"]), local(&["tcp:192.0.2.8:5070"]), local(&[]), remote("192.0.2.9:5070")];
        for (name, replica) in [("s", "r1"), ("T", "R2"), ("u", "r3")] {
            let mut suffixes = Vec::new();
            for _ in 0..dice.below(6) {
                let suffix: String = (0..1 + dice.below(5)).map(|_| char::from(b'1' + dice.below(3) as u8)).collect();
                if taken.insert(suffix.clone()) {
                    suffixes.push(suffix);
                }
            }
            shards.push((name, suffixes, vec![(replica, dice.pick(&places).clone())]));
        }
        let numbers: Vec<String> =
            (0..dice.below(8)).map(|_| format!("{}{}", ["+", ""][dice.below(2)], 10 + dice.below(300))).collect();
        let numbers: Vec<&str> = numbers.iter().map(String::as_str).collect();
        compare(&zone_with(settings(shards), &numbers), seed, 1_000);
    }
}

#[test]
fn the_map_that_dns_tells_is_the_map_of_the_front_end() {
    let zone = zone();
    let mut dice = Dice(7);
    for _ in 0..20_000 {
        let imsi: String = (0..14 + dice.below(2)).map(|_| char::from(b'0' + dice.below(10) as u8)).collect();
        let of_map = zone.map.shard_of(&Imsi::parse(&imsi).unwrap()).unwrap();
        assert_eq!(shard(&zone, &below_imsi(&imsi)), zone.settings.shards[of_map].name, "{imsi}");
    }
}

/// Looking through 100 000 numbers would take more than 100 µs; prints what it takes (`-- --nocapture`).
#[test]
#[allow(clippy::disallowed_methods, clippy::disallowed_types)] // a measurement needs a clock
fn no_answer_looks_through_the_zone() {
    const ROUNDS: u32 = 20_000;
    let numbers: Vec<String> = (0..100_000).map(|number| format!("+1555{number:06}")).collect();
    let numbers: Vec<&str> = numbers.iter().map(String::as_str).collect();
    let zone = zone_with(site(), &numbers);
    let started = std::time::Instant::now();
    let zone = zone.turn(zone.health.clone(), zone.serial + 1);
    println!("a turn: {:?}", started.elapsed());
    for (name, rtype) in [
        ("0.0.1.0.1.0.0.0.0.0.0.0.2.5.6.imsi", RType::NAPTR),
        ("0.0.0.0.0.0.5.5.5.1.e164", RType::NAPTR),
        ("_sip._udp.low.shard", RType::SRV),
        ("x.imsi", RType::A),
    ] {
        let name = full(name);
        let question = Question { name: &name, rtype, class: Class::IN };
        let started = std::time::Instant::now();
        for _ in 0..ROUNDS {
            std::hint::black_box(zone.answer(std::hint::black_box(&question)));
        }
        let took = started.elapsed() / ROUNDS;
        println!("{name} {rtype}: {took:?}");
        assert!(took.as_micros() < 100, "{name} {rtype}: {took:?}");
    }
}
