//! What the tests of the zone share: a site, a source of dice, and questions worth asking.

// Each test that includes this uses a part of it.
#![allow(dead_code)]

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::sync::Arc;

use encamp::config::mailing::{MailListener, MailProtocol};
use encamp::config::words::Templates;
use encamp::config::{
    Calls, Dialplan, Emergency, Front, Listener, Mail, Messages, Place, Registrar, Replica, Settings, Shard,
    Subscriber, Subscribers, Transport, Unlisted, ZoneSettings,
};
use encamp::gsm::auc::Auth;
use encamp::ident::{Imsi, Msisdn, Suffix};
use encamp::zone::answer::RType;
use encamp::zone::{Health, Map, Zone};

pub const APEX: &str = "gsm.example";

/// `udp:192.0.2.1:5060`
pub fn listener(text: &str) -> Listener {
    let (transport, address) = text.split_once(':').unwrap();
    let transport = if transport == "udp" { Transport::Udp } else { Transport::Tcp };
    Listener { transport, address: address.parse().unwrap(), advertise: None }
}

pub fn listeners(texts: &[&str]) -> Vec<Listener> {
    texts.iter().map(|text| listener(text)).collect()
}

pub fn local(listen: &[&str]) -> Place {
    Place::Local { path: PathBuf::from("replica"), listen: listeners(listen) }
}

pub fn remote(address: &str) -> Place {
    Place::Remote { address: address.parse().unwrap() }
}

/// A shard's name, its suffixes, and its replicas by name and place.
pub type ShardDraft<'a> = (&'a str, Vec<String>, Vec<(&'a str, Place)>);

pub fn settings(shards: Vec<ShardDraft<'_>>) -> Settings {
    let mut replicas = Vec::new();
    let mut all = Vec::new();
    for (index, (name, suffixes, its_replicas)) in shards.into_iter().enumerate() {
        let first = replicas.len();
        replicas.extend(its_replicas.into_iter().map(|(name, place)| Replica {
            name: name.into(),
            shard: index,
            place,
        }));
        all.push(Shard {
            name: name.into(),
            suffixes: suffixes.iter().map(|suffix| Suffix::parse(suffix).unwrap()).collect(),
            replicas: (first..replicas.len()).collect(),
            write_quorum: 1,
        });
    }
    Settings {
        domain: APEX.into(),
        data_dir: PathBuf::from("data"),
        control: PathBuf::from("data/control.sock"),
        cluster_key: None,
        front: Front {
            listen: listeners(&[
                "udp:192.0.2.1:5060",
                "tcp:192.0.2.1:5060",
                "udp:192.0.2.1:5063",
                "udp:192.0.2.1:5064",
            ]),
            base_stations: Vec::new(),
            peers: Vec::new(),
            unlisted: Unlisted::Silence,
        },
        base_stations: Vec::new(),
        trunks: Vec::new(),
        zone: ZoneSettings {
            apex: APEX.into(),
            listen: listeners(&["udp:192.0.2.1:53", "tcp:192.0.2.1:53", "udp:[2001:db8::1]:53"]),
            allow: Vec::new(),
            ttl_s: 60,
        },
        shards: all,
        replicas,
        registrar: Registrar::default(),
        dialplan: Dialplan::default(),
        calls: Calls::of(std::path::Path::new("/")),
        messages: Messages::of("/".as_ref()),
        short_codes: Vec::new(),
        templates: Templates::default(),
        mail: Some(Arc::new(mail("0.0.0.0:25"))),
        emergency: Emergency::default(),
        disk_reserve_bytes: 0,
        rehearsal: None,
        subscribers: Arc::new(Subscribers::default()),
    }
}

/// A mail domain below the apex.
pub fn mail(listen: &str) -> Mail {
    let listener = MailListener { protocol: MailProtocol::Smtp, address: listen.parse().unwrap() };
    Mail { listen: vec![listener], ..Mail::of(APEX) }
}

/// `00` to `49` and the like.
pub fn range(from: u32, to: u32) -> Vec<String> {
    (from..=to).map(|suffix| format!("{suffix:02}")).collect()
}

/// The site of DESIGN section 6 with everything that makes names hard: a split by one digit (356), by two (2345 of 45), by
/// two inside a split (01356 of 356), a shard that nobody hears (quiet) and a replica that is elsewhere (d).
pub fn site() -> Settings {
    let quiet = vec!["7712".to_owned()];
    let split = vec!["356".to_owned(), "2345".to_owned()];
    settings(vec![
        (
            "low",
            range(0, 49),
            vec![("a", local(&["udp:192.0.2.1:5070"])), ("b", local(&["udp:192.0.2.2:5071", "tcp:192.0.2.2:5071"]))],
        ),
        ("high", range(50, 99), vec![("c", local(&[])), ("d", remote("198.51.100.7:5070"))]),
        ("split", split, vec![("e", local(&["tcp:[2001:db8::5]:5070"]))]),
        ("deep", vec!["01356".to_owned()], vec![("f", local(&["udp:0.0.0.0:5070"]))]),
        ("quiet", quiet, vec![("g", local(&[]))]),
    ])
}

pub fn subscribers(numbers: &[&str]) -> Subscribers {
    Subscribers::new(numbers.iter().enumerate().map(|(index, number)| Subscriber {
        imsi: Imsi::parse(&format!("{:015}", 1_010_000_000_000 + index)).unwrap(),
        msisdn: vec![Msisdn::parse(number).unwrap()],
        name: "".into(),
        auth: Auth::None,
        barred: false,
        language: None,
        mail: None,
        file: "subscribers.d/test.toml".into(),
        line: 1,
    }))
}

pub fn zone_with(settings: Settings, numbers: &[&str]) -> Zone {
    let map = Arc::new(Map::new(&settings));
    let health = vec![Health::Healthy; settings.replicas.len()];
    Zone::new(Arc::new(settings), Arc::new(subscribers(numbers)), map, health, 2_026_112_101, 17)
}

pub fn zone() -> Zone {
    zone_with(site(), &["+15550001", "+15550002", "+1555", "+4930123456", "2001", "2002", "112", "+155500019"])
}

/// SplitMix64: dice that a seed repeats.
pub struct Dice(pub u64);

impl Dice {
    pub fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    pub fn below(&mut self, limit: usize) -> usize {
        (self.next() % limit as u64) as usize
    }

    pub fn pick<'a, T>(&mut self, from: &'a [T]) -> &'a T {
        &from[self.below(from.len())]
    }
}

/// Questions at, above, beside and below the names of the zone, with types that are there and types that are not.
pub fn questions(zone: &Zone, seed: u64, count: usize) -> Vec<(String, RType)> {
    const TYPES: [u16; 12] = [1, 2, 5, 6, 12, 15, 16, 28, 33, 35, 65, 257];
    const LABELS: [&str; 12] = ["x", "*", "_sip", "_udp", "10", "a-b", "imsi", "e164", "56", "0x", "shard", "www"];
    let mut names: BTreeSet<String> = BTreeSet::new();
    for rr in zone.dump() {
        let mut name = &*rr.name;
        loop {
            names.insert(name.to_owned());
            match name.split_once('.') {
                Some((_, parent)) if name != APEX => name = parent,
                _ => break,
            }
        }
    }
    let names: Vec<String> = names.into_iter().collect();
    let mut dice = Dice(seed);
    let mut all = Vec::with_capacity(count);
    while all.len() < count {
        let base = dice.pick(&names).clone();
        let name = match dice.below(10) {
            0 | 1 => base,
            2 | 3 => format!("{}.{base}", dice.below(10)),
            4 => format!("{}.{}.{base}", dice.below(10), dice.below(10)),
            5 => format!("{}.{base}", dice.pick(&LABELS)),
            6 => format!("{}.{}.{base}", dice.below(10), dice.pick(&LABELS)),
            // A whole IMSI of 14 or 15 digits, its last ones often those of a split.
            7 | 8 => {
                let mut digits: Vec<String> = (0..14 + dice.below(2)).map(|_| dice.below(10).to_string()).collect();
                let tail = dice.pick(&["56", "356", "1356", "01356", "2345", "345", "45", "7712", "712", "12", "3"]);
                if dice.below(3) > 0 {
                    let keep = digits.len() - tail.len();
                    digits.truncate(keep);
                    digits.extend(tail.chars().map(String::from));
                }
                format!("{}.imsi.{APEX}", digits.join("."))
            }
            // One label replaced.
            _ => {
                let mut labels: Vec<&str> = base.split('.').collect();
                let at = dice.below(labels.len());
                let digit = &"0123456789"[at % 10..=at % 10];
                labels[at] = if dice.below(2) == 0 { dice.pick::<&str>(&LABELS) } else { digit };
                labels.join(".")
            }
        };
        let rtype = if dice.below(3) == 0 { RType::NAPTR } else { RType(*dice.pick(&TYPES)) };
        all.push((name, rtype));
    }
    all
}
