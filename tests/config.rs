//! What is said of an operator's files, and what they mean.
//!
//! A case is a text and the whole of what is said of it, each as `line:column what (hint)`. The texts of `MISTAKES` stand
//! below the two lines of [`BASE`], so they begin at line 3.

use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::time::Duration;

use encamp::config::choose::{WhyNot, may_have};
use encamp::config::diff::diff;
use encamp::config::keys::{ROOT, Section, Shape};
use encamp::config::mailing::{
    FirstContact, MailProtocol, MailRoute, NumberRange, Pictures, RelayTls, Senders, SubjectRule, Unproven,
};
use encamp::config::read::{Problem, Source, Sources, cluster_key_path, data_dir_path, read};
use encamp::config::words::Word;
use encamp::config::{
    Calls, CodeAction, Emergency, Mail, Messages, Password, Place, RecordFile, Registrar, Settings, Transport,
    TrunkMode, Unlisted, Welcome, short_codes_of_old,
};
use encamp::gsm::form::TextForm;
use encamp::ident::{Imsi, Language, Msisdn};
use proptest::prelude::*;

const BASE: &str = "domain = \"gsm.example\"\ndata_dir = \"/d\"\n";
const KI: &str = "00112233445566778899aabbccddeeff";

fn sources(main: &str, others: &[(&str, &str)]) -> Sources {
    let source = |name: &str, text: &str| Source { name: name.into(), text: text.into() };
    Sources {
        main: source("encamp.toml", main),
        subscribers: others.iter().map(|(name, text)| source(name, text)).collect(),
        cluster_key_file: None,
    }
}

fn told(problems: &[Problem]) -> Vec<String> {
    problems
        .iter()
        .map(|problem| {
            let place = problem.place.strip_prefix("encamp.toml:").unwrap_or(&problem.place);
            match &problem.hint {
                Some(hint) => format!("{place} {} ({hint})", problem.what),
                None => format!("{place} {}", problem.what),
            }
        })
        .collect()
}

/// The settings of a text that must be right, below `BASE`.
fn settings(text: &str) -> Settings {
    match read(&sources(&format!("{BASE}{text}"), &[])) {
        Ok((settings, _)) => settings,
        Err(problems) => panic!("{:#?}", told(&problems)),
    }
}

fn problems_of(main: &str, others: &[(&str, &str)]) -> Vec<String> {
    told(&read(&sources(main, others)).err().unwrap_or_default())
}

/// Compares every case before it fails, so that a change of words shows at once everywhere.
fn check_all<'c>(cases: impl IntoIterator<Item = (&'c str, Vec<String>, &'c [&'c str])>) {
    let mut wrong = String::new();
    for (input, found, expected) in cases {
        if found != expected {
            let _ = writeln!(wrong, "---- {input}\n  expected {expected:#?}\n  found {found:#?}");
        }
    }
    assert!(wrong.is_empty(), "{wrong}");
}

#[test]
fn every_mistake_is_told_with_its_place_and_what_to_write() {
    check_all(MISTAKES.iter().map(|(text, expected)| (*text, problems_of(&format!("{BASE}{text}"), &[]), *expected)));
}

#[test]
fn the_top_of_the_file_is_needed() {
    let cases: &[(&str, &[&str])] = &[
        (
            "",
            &[
                "1:1 `domain` is missing at the top of the file (write domain = \"gsm.example\")",
                "1:1 `data_dir` is missing at the top of the file (write data_dir = \"/var/lib/encamp\")",
            ],
        ),
        (
            "domain = \"gsm.example\"\n",
            &["1:1 `data_dir` is missing at the top of the file (write data_dir = \"/var/lib/encamp\")"],
        ),
        ("domian = \"gsm.example\"\ndata_dir = \"/d\"\n", &["1:1 unknown key `domian` (did you mean `domain`?)"]),
        (
            "domain = \"192.0.2.1\"\ndata_dir = \"\"\n",
            &[
                "1:10 \"192.0.2.1\" is an address, not a name (write a name like gsm.example: letters, digits, hyphens and dots)",
                "2:12 this is no path (write one such as \"/var/lib/encamp\")",
            ],
        ),
        (
            "domain = \"-a.example\"\ndata_dir = \"/d\"\ncontrol = \"\"\n",
            &[
                "1:10 \"-a.example\" is no host name (write a name like gsm.example: letters, digits, hyphens and dots)",
                "3:11 this is no path (write one such as \"/var/lib/encamp\")",
            ],
        ),
        (
            "domain = \"a..b\"\ndata_dir = \"/d\"\n",
            &[
                "1:10 \"a..b\" is no host name: a part of it is empty (write a name like gsm.example: letters, digits, hyphens and dots)",
            ],
        ),
        (
            "domain = \"a.a.a.a.a.a.a.a.a.a.a.a.a.a.a.a.a.a.a.a.a.a.a.a.a.a.a.a.a.a.a.a.a.a.a.a.a.a.a.a.a.a.a.a.a.a.a.a.a.a.a.a.a.a.a.a.a.a.a.a.a.a.a.a.a.a.a.a.a.a.a.a.a.a.a.a.a.a.a.a.a.a.a.a.a.a.a.a.a.a.a.a.a.a.a.a.a.a.a.a.a\"\ndata_dir = \"/d\"\n",
            &[
                "1:10 this name is longer than 180 characters (write a name like gsm.example: letters, digits, hyphens and dots)",
            ],
        ),
        (
            "cluster_key = \"0123\"\ndomain = \"x\"\ndata_dir = \"/d\"\n",
            &[
                "1:15 `cluster_key` is not 64 hex digits, but 4 characters (write 64 hex digits, the same on every box; `openssl rand -hex 32` makes some)",
            ],
        ),
        (
            "[front]\ndomain = \"x\"\ndata_dir = \"/d\"\n",
            &[
                "1:1 `domain` is missing at the top of the file (write domain = \"gsm.example\")",
                "1:1 `data_dir` is missing at the top of the file (write data_dir = \"/var/lib/encamp\")",
                "2:1 unknown key `domain` (`domain` belongs at the top of the file, before the first [section])",
                "3:1 unknown key `data_dir` (`data_dir` belongs at the top of the file, before the first [section])",
            ],
        ),
    ];
    check_all(cases.iter().map(|(text, expected)| (*text, problems_of(text, &[]), *expected)));
}

#[test]
fn spreadsheets_have_places_too() {
    check_all(SPREADSHEETS.iter().map(|(text, expected)| (*text, problems_of(BASE, &[("s.csv", text)]), *expected)));
}

#[test]
fn duplicates_are_found_across_files() {
    let main = format!(
        "{BASE}[[subscriber]]\nimsi = \"001010000000001\"\nmsisdn = [\"2001\"]\nauth = {{ algorithm = \"none\" }}\n"
    );
    let other = "[[subscriber]]\nimsi = \"IMSI001010000000001\"\nauth = { algorithm = \"none\" }\n";
    let sheet = "imsi,msisdn,algorithm\n001010000000002,+15550001 2001,none\n001010000000003,+15550001,none\n";
    let found = problems_of(&main, &[("subscribers.d/10.toml", other), ("subscribers.d/20.csv", sheet)]);
    assert_eq!(
        found,
        [
            "subscribers.d/10.toml:2:8 this IMSI is provisioned already (the first is at encamp.toml:4:8)",
            "subscribers.d/20.csv:2:17 this number is given already (the first is at encamp.toml:5:11)",
            "subscribers.d/20.csv:3:17 this number is given already (the first is at subscribers.d/20.csv:2:17)",
        ]
    );
}

#[test]
fn a_file_of_subscribers_holds_nothing_else() {
    let found = problems_of(BASE, &[("a.toml", "domain = \"x\"\n[[subscribr]]\nimsi = \"1\"\n")]);
    assert_eq!(
        found,
        [
            "a.toml:1:1 unknown key `domain` (`domain` belongs in encamp.toml; a file of subscribers.d holds [[subscriber]] and [[number]] only)",
            "a.toml:2:3 unknown key `subscribr` (did you mean `subscriber`?)",
        ]
    );
}

#[test]
fn two_lines_are_a_whole_box() {
    let (settings, notes) = read(&sources(BASE, &[])).unwrap();
    assert_eq!(
        told(&notes),
        ["1:1 no base station is listed, so nobody may speak for phones yet \
          (write base_stations = [\"192.0.2.0/28\"] in [front], or a [[base_station]])"]
    );
    let listen = |listeners: &[encamp::config::Listener]| -> Vec<String> {
        listeners.iter().map(|one| format!("{:?} {} {:?}", one.transport, one.address, one.advertise)).collect()
    };
    assert_eq!(
        listen(&settings.front.listen),
        ["Udp 0.0.0.0:5060 None", "Tcp 0.0.0.0:5060 None", "Udp 0.0.0.0:5063 None", "Udp 0.0.0.0:5064 None"]
    );
    assert_eq!(listen(&settings.zone.listen), ["Udp 0.0.0.0:53 None", "Tcp 0.0.0.0:53 None"]);
    assert_eq!((settings.zone.apex.as_str(), settings.zone.ttl_s), ("gsm.example", 60));
    assert!(settings.zone.allow.is_empty() && settings.front.base_stations.is_empty());
    assert_eq!(settings.front.unlisted, Unlisted::Silence);
    assert_eq!(settings.control.to_str(), Some("/d/control.sock"));
    assert_eq!(settings.disk_reserve_bytes, 64_000_000);
    assert_eq!(settings.registrar, Registrar::default());
    assert_eq!(settings.calls, Calls::of("/d".as_ref()));
    assert_eq!(settings.calls.records.path.to_str(), Some("/d/calls.csv"));
    assert_eq!((settings.messages, settings.emergency), (Messages::of(&settings.data_dir), Emergency::default()));
    assert_eq!((settings.shards.len(), settings.shards[0].name.as_str()), (1, "all"));
    let suffixes: Vec<&str> = settings.shards[0].suffixes.iter().map(|suffix| suffix.as_str()).collect();
    assert_eq!(suffixes, ["0", "1", "2", "3", "4", "5", "6", "7", "8", "9"]);
    assert_eq!((settings.shards[0].replicas.as_slice(), settings.shards[0].write_quorum), (&[0][..], 1));
    assert_eq!((settings.replicas.len(), settings.replicas[0].name.as_str()), (1, "a"));
    assert_eq!(settings.replicas[0].place, Place::Local { path: "/d/replica/a".into(), listen: Vec::new() });
    assert!(settings.rehearsal.is_none() && settings.cluster_key.is_none() && settings.subscribers.is_empty());
}

#[test]
fn the_sample_of_the_design_means_what_it_says() {
    let settings = settings(SAMPLE);
    assert_eq!(settings.base_stations[0].location_area.as_deref(), Some("valley"));
    assert!(settings.is_base_station("192.0.2.11".parse().unwrap()));
    assert!(settings.is_base_station("192.0.2.1".parse().unwrap()));
    assert!(!settings.is_base_station("192.0.2.20".parse().unwrap()));
    assert_eq!(settings.trunks[0].mode, TrunkMode::Recurse);
    let names: Vec<&str> = settings.replicas.iter().map(|replica| replica.name.as_str()).collect();
    assert_eq!(names, ["a", "b", "c", "d", "e"]);
    assert_eq!(settings.shards[1].replicas, [2, 3, 4]);
    assert_eq!((settings.shards[0].write_quorum, settings.shards[1].write_quorum), (1, 2));
    assert_eq!((settings.shards[0].suffixes.len(), settings.replicas[4].shard), (51, 1));
    assert_eq!(settings.replicas[3].place, Place::Remote { address: "198.51.100.7:5070".parse().unwrap() });
    let Place::Local { path, listen } = &settings.replicas[2].place else { panic!("c is local") };
    assert_eq!(path.to_str(), Some("/srv/disk1/c"));
    assert_eq!((listen[0].transport, listen[0].advertised()), (Transport::Udp, "192.0.2.1:5070".parse().unwrap()));
    assert_eq!(settings.cluster_key.unwrap().0[..3], [0x01, 0x23, 0xab]);
    assert_eq!(settings.registrar.stale_life, Duration::from_secs(36 * 3_600));
    assert_eq!(settings.registrar.write_deadline, Duration::from_millis(1_500));
    assert_eq!(
        settings.registrar.unknown_cause_by_plmn,
        [("310410".to_owned(), 13), ("26201".to_owned(), 3), ("262".to_owned(), 11)]
    );
    assert_eq!(settings.disk_reserve_bytes, 1_500_000);
    assert_eq!(settings.dialplan.local_prefixes, ["20", "+1555"]);
    let (pbx, gateway) = (&settings.trunks[0], &settings.trunks[1]);
    assert_eq!((pbx.prefixes.as_slice(), pbx.username.as_deref()), (&["+1".into(), "00".into()][..], Some("encamp")));
    assert!(pbx.password == Some(Password("a \"quoted\" secret".into())));
    assert!(gateway.prefixes.is_empty() && gateway.username.is_none() && gateway.password.is_none());
    assert_eq!(gateway.mode, TrunkMode::Redirect);
    let calls = Calls {
        ring_group: Duration::from_secs(12),
        setup_max: Duration::from_secs(45),
        duration_max: Duration::from_secs(7_200),
        probe_interval: Duration::from_secs(60),
        count_max: 50,
        records: RecordFile { path: "/var/log/encamp/calls.csv".into(), bytes_max: 1 << 20, count: 3 },
    };
    assert_eq!(settings.calls, calls);
    let life_max = Duration::from_secs(2 * 86_400);
    assert_eq!(
        settings.messages,
        Messages {
            service_centre: "+15550000".into(),
            life_max,
            count_max: 500,
            count_per_phone_max: 20,
            attempts_per_base_station_max: 4,
            time_zone_quarters: -14,
            night: Some((21 * 60 + 30, 5 * 60)),
            welcome: Welcome::Network,
            explain: false,
            history_life: life_max / 4,
            archive_life: Some(life_max * 15),
            number_digits_min: 12,
            // Who names one end need not know of the other.
            number_digits_max: 12,
            records: RecordFile { path: "/var/log/encamp/texts.csv".into(), bytes_max: 1_000_000, count: 2 },
        }
    );
    let number = |text: &str| Msisdn::parse(text).unwrap();
    let language = |text: &str| Language::parse(text).unwrap();
    let codes: Vec<(String, &CodeAction)> =
        settings.short_codes.iter().map(|code| (code.number.to_string(), &code.does)).collect();
    let timeout = Duration::from_millis(500);
    assert_eq!(
        codes,
        [
            ("100".into(), &CodeAction::ChooseNumber),
            (
                "300".into(),
                // The default language is the first, and so everybody's who has none of these.
                &CodeAction::Answer(vec![
                    (Some(language("sw")), "Wazi".into()),
                    (Some(language("fr")), "Ouvert".into())
                ])
            ),
            ("301".into(), &CodeAction::Hook { url: "https://[::1]:8443/sms?a=b".into(), timeout }),
            ("302".into(), &CodeAction::Group { members: vec![number("2001"), number("2003")] }),
            ("303".into(), &CodeAction::Broadcast),
            ("304".into(), &CodeAction::OwnNumber),
        ]
    );
    // As the subscriber has it; members may text to their group.
    let senders: Vec<_> = settings.short_codes.iter().map(|code| code.senders.clone()).collect();
    let members = Some(vec![number("2001"), number("2003")]);
    assert_eq!(senders, [None, Some(vec![number("+15550001")]), None, members, Some(vec![number("2003")]), None]);
    assert_eq!(settings.templates.default_language, language("sw"));
    assert_eq!(settings.templates.template(None, Word::BARRED), "{number} hawezi kupata ujumbe.");
    assert_eq!(settings.templates.written.len(), 1);
    assert_eq!((settings.base_stations[0].texts, settings.trunks[0].texts), (Some(TextForm::Yate), true));
    assert_eq!((settings.emergency.numbers.join(" ").as_str(), settings.emergency.trunk), ("112 911 110", Some(1)));
    assert_eq!(settings.zone.apex, "map.example");
    let ana = settings.subscribers.get(&Imsi::parse("001010000000001").unwrap()).unwrap();
    assert_eq!((&*ana.name, ana.auth.algorithm(), ana.barred), ("Ana", "milenage", true));
    assert_eq!(ana.msisdn.iter().map(|number| number.to_string()).collect::<Vec<_>>(), ["+15550001", "2001", "2003"]);
    assert_eq!(ana.language, Some(language("fr")));
    assert_eq!(
        (&*ana.file, ana.line),
        ("encamp.toml", 3 + SAMPLE[..SAMPLE.find("[[subscriber]]").unwrap()].matches('\n').count())
    );
}

#[test]
fn a_spreadsheet_is_read_in_any_order_and_with_what_spreadsheets_add() {
    let sheet = format!(
        "\u{feff}# ours\r\n\r\nName, imsi ,ki,algorithm,msisdn,barred\r\n\
         \"Ana, the \"\"mayor\"\"\",IMSI001010000000001,{KI},comp128v1,+15550001  2001,\r\n# gone\r\n\r\n\
         ,001010000000002,,none\r\n,,,,,\r\nBen,001010000000003,{KI},xor,,yes"
    );
    let (settings, _) =
        read(&sources(BASE, &[("s.csv", &sheet)])).unwrap_or_else(|problems| panic!("{:?}", told(&problems)));
    let get = |imsi: &str| settings.subscribers.get(&Imsi::parse(imsi).unwrap()).unwrap();
    let ana = get("001010000000001");
    assert_eq!((&*ana.name, ana.msisdn.len(), ana.auth.algorithm()), ("Ana, the \"mayor\"", 2, "comp128v1"));
    assert_eq!((&*ana.file, ana.line), ("s.csv", 4));
    assert_eq!((get("001010000000002").line, get("001010000000002").auth.algorithm()), (7, "none"));
    assert_eq!((get("001010000000003").line, get("001010000000003").barred), (9, true));
    assert_eq!(settings.subscribers.len(), 3);
}

#[test]
fn a_thousand_mistakes_are_enough() {
    let sheet = format!("imsi,algorithm\n{}", "1,none\n".repeat(1_200));
    let found = problems_of(BASE, &[("s.csv", &sheet)]);
    assert_eq!(found.len(), 1_001);
    assert!(found[1_000].starts_with("s.csv:1002:1 and 200 more from here on"), "{}", found[1_000]);
}

#[test]
fn no_more_replicas_than_sixteen_bits_count() {
    let names: Vec<String> = (0..65_536).map(|number| format!("\"r{number}\"")).collect();
    let text = format!("{BASE}[[shard]]\nname = \"all\"\nsuffixes = [\"0-9\"]\nreplicas = [\n{}]\n", names.join(",\n"));
    let found = problems_of(&text, &[]);
    let most = "6:1 a shard of 65536 replicas (7 are the most; split the shard by longer suffixes instead)";
    assert_eq!(found, [most, "65542:1 this is more than 65535 replicas (use fewer)"]);
}

#[test]
fn the_cluster_key_may_stand_in_a_file() {
    let main = format!("cluster_key = \"file:keys/cluster.key\"\n{BASE}");
    assert_eq!(cluster_key_path(&main).unwrap().to_str(), Some("keys/cluster.key"));
    assert_eq!(data_dir_path(&main).unwrap().to_str(), Some("/d"));
    assert_eq!(cluster_key_path(BASE), None);
    let mut sources = sources(&main, &[]);
    assert!(
        told(&read(&sources).unwrap_err())[0]
            .starts_with("1:15 \"keys/cluster.key\" cannot be read (the file must hold 64 hex")
    );
    sources.cluster_key_file = Some(format!("{}\n", "0123456789abcdef".repeat(4)));
    assert_eq!(read(&sources).unwrap().0.cluster_key.unwrap().0[..2], [0x01, 0x23]);
    sources.cluster_key_file = Some("0123\n".into());
    assert!(
        told(&read(&sources).unwrap_err())[0]
            .starts_with("1:15 keys/cluster.key is not 64 hex digits, but 4 characters")
    );
    assert!(!format!("{sources:?}").contains("0123"), "a secret cannot be printed");
}

#[test]
fn a_secret_is_never_repeated() {
    let leaky = "c0ffee00c0ffee00c0ffee00c0ffee0";
    for line in [
        format!("ki = \"{leaky}\""),
        format!("ki = \"{leaky}xyz\""),
        format!("ki = {leaky}"),
        format!("ki = [\"{leaky}\"]"),
        format!("ki = \"{leaky} \""),
        format!("ki = \"sealed:{leaky}\""),
        format!("op = \"{leaky}\", ki = \"{KI}\""),
        format!("opc = \"{leaky}\", ki = \"{KI}\""),
    ] {
        let text = format!(
            "{BASE}cluster_key = \"{leaky}\"\n[[subscriber]]\nimsi = \"001010000000001\"\nauth = {{ algorithm = \"milenage\", {line} }}\n"
        );
        let found = problems_of(&text, &[]);
        assert!(!found.is_empty() && !found.concat().contains(leaky), "{found:?}");
    }
}

#[test]
fn the_password_of_a_trunk_is_never_repeated() {
    let trunk = format!("{BASE}[[trunk]]\nname = \"pbx\"\naddress = \"192.0.2.20:5060\"\n");
    for line in [
        "password = \"hunter2\"",
        "username = \"u\"\npassword = \"hunter2\\u0007\"",
        "username = \"u\"\npassword = \"file:hunter2\"",
        "username = \"u\"\npassword = \"sealed:hunter2\"",
        "username = \"u\"\npassword = hunter2",
        "username = \"u\"\npassword = [\"hunter2\"]",
        "username = \"hunter2\\\"\"\npassword = \"x\"",
    ] {
        let found = problems_of(&format!("{trunk}{line}\n"), &[]);
        assert!(!found.is_empty() && !found.concat().contains("hunter2"), "{found:?}");
    }
    let settings = settings(&format!("{}username = \"u\"\npassword = \"hunter2\"\n", &trunk[BASE.len()..]));
    assert!(!format!("{settings:?}").contains("hunter2"));
    assert!(settings.trunks[0].password == Some(Password("hunter2".into())));
}

#[test]
fn who_shortens_the_whole_need_not_name_its_part() {
    let short = settings("[calls]\nsetup_max = \"12 s\"\n[messages]\ncount_max = 100\n");
    assert_eq!(short.calls.ring_group, Duration::from_secs(12));
    assert_eq!(short.messages.count_per_phone_max, 100);
}

#[test]
fn who_moves_the_data_moves_the_records_with_it() {
    let (old, _) = read(&sources(BASE, &[])).unwrap();
    let (new, _) = read(&sources(&BASE.replace("/d", "/e"), &[])).unwrap();
    assert_eq!(new.calls.records.path.to_str(), Some("/e/calls.csv"));
    let told: Vec<String> = diff(&old, &new).into_iter().map(|change| change.what).collect();
    assert_eq!(told[0], "`data_dir`: /d -> /e");
    assert!(!told.concat().contains("calls.csv"), "it waits for the restart with the rest: {told:?}");
}

#[test]
fn calls_that_could_not_go_out_are_noted() {
    let bts = "[front]\nbase_stations = [\"192.0.2.0/28\"]\n";
    let trunk = |name: &str, last: u8, more: &str| {
        format!("[[trunk]]\nname = \"{name}\"\naddress = \"192.0.2.{last}:5060\"\n{more}")
    };
    let ana =
        "[[subscriber]]\nimsi = \"001010000000001\"\nauth = { algorithm = \"none\" }\nmsisdn = [\"110\", \"911\"]\n";
    let stuck = "no trunk takes emergency calls: 112, 911 would be refused \
                 (write trunk = \"..\" in [emergency], with the name of a [[trunk]])";
    let cases: &[(String, &[&str])] = &[
        (bts.into(), &[&format!("1:1 {stuck}")]),
        (format!("{bts}[emergency]\nnumbers = [\"112\"]\n"), &[&format!("5:2 {stuck}")]),
        (format!("{bts}{}", trunk("pbx", 20, "")), &[]),
        (format!("{bts}{}", trunk("pbx", 20, "prefixes = [\"+44\"]\n")), &[&format!("5:3 {stuck}")]),
        (format!("{bts}{}", trunk("pbx", 20, "prefixes = [\"+44\"]\n[emergency]\ntrunk = \"pbx\"\n")), &[]),
        (
            format!("{bts}{}", trunk("pbx", 20, "prefixes = [\"11\"]\n")),
            &["5:3 no trunk takes emergency calls: 911 would be refused \
               (write trunk = \"..\" in [emergency], with the name of a [[trunk]])"],
        ),
        (
            format!("{bts}{}{ana}[emergency]\nnumbers = [\"110\"]\n", trunk("pbx", 20, "")),
            &[
                "11:18 911 is an emergency number: nobody reaches this phone by it (give the phone another number)",
                "13:12 a subscriber has the emergency number 110: nobody reaches his phone by it (it is given at encamp.toml:11:11)",
            ],
        ),
        (
            format!(
                "{bts}{}[dialplan]\nlocal_prefixes = [\"+4420\"]\n",
                trunk("pbx", 20, "prefixes = [\"+44\", \"+44207\"]\n") + &trunk("gw", 21, "")
            ),
            &["8:20 no call goes out by this prefix: \"+4420\" is in `local_prefixes` \
               (numbers that begin so are ours, and 404 where nobody has them)"],
        ),
        (
            format!("{bts}{}[calls]\nring_group = \"9 s\"\n", trunk("pbx", 20, "")),
            &["9:1 paging a phone takes up to 10 s, and it is given less to ring (the default of ring_group is 15 s)"],
        ),
    ];
    check_all(cases.iter().map(|(text, expected)| {
        let notes = read(&sources(&format!("{BASE}{text}"), &[])).map(|(_, notes)| notes);
        (text.as_str(), told(&notes.unwrap_or_else(|problems| problems)), *expected)
    }));
}

#[test]
fn every_mistake_of_mail_is_told_with_its_place_and_what_to_write() {
    let problems = |text: &&str| problems_of(&format!("{BASE}{text}"), &[]);
    check_all(MAIL_MISTAKES.iter().map(|(text, expected)| (*text, problems(text), *expected)));
    // A domain of mail that is the box's own is nobody's mistake.
    assert_eq!(settings("[mail]\ndomain = \"gsm.example\"\n").mail.unwrap().domain, "gsm.example");
}

/// As `MISTAKES`.
const MAIL_MISTAKES: &[(&str, &[&str])] = &[
    ("mail = 1\n", &["3:8 `mail` is a set of keys, not a number (write [mail] and its keys below)"]),
    (
        "[mail]\ndomain = \"192.0.2.1\"\n",
        &[
            "4:10 \"192.0.2.1\" is an address, not a name (write a name like gsm.example: letters, digits, hyphens and dots)",
        ],
    ),
    (
        "[mail]\nlisten = [\"udp:0.0.0.0:25\", \"0.0.0.0:25\", \"tcp:0.0.0.0\", \"lmtp:127.0.0.1:0\", \"tcp:mail.example:25\"]\n",
        &[
            "4:11 \"udp:0.0.0.0:25\" does not say tcp, tls or lmtp (write \"tcp:0.0.0.0:25\", \"tls:0.0.0.0:465\" or \"lmtp:127.0.0.1:24\")",
            "4:29 \"0.0.0.0:25\" does not say tcp, tls or lmtp (write \"tcp:0.0.0.0:25\", \"tls:0.0.0.0:465\" or \"lmtp:127.0.0.1:24\")",
            "4:43 \"tcp:0.0.0.0\" has no port (write \"tcp:0.0.0.0:25\")",
            "4:58 port 0 would be another port at each start (write \"lmtp:127.0.0.1:24\")",
            "4:78 \"tcp:mail.example:25\" is no address to listen on (write \"tcp:0.0.0.0:25\": an address in digits and a port)",
        ],
    ),
    (
        "[mail]\nlisten = [\"tls:0.0.0.0:465\"]\n",
        &[
            "4:11 there is no certificate to speak TLS with (write `certificate` and `certificate_key`, or listen on tcp)",
        ],
    ),
    (
        "[mail]\ncertificate = \"/c\"\nlisten = [\"tls:0.0.0.0:465\"]\n",
        &[
            "4:1 a `certificate` without a `certificate_key` (write both, each the path of a PEM file, or neither to do without TLS)",
        ],
    ),
    (
        "[mail]\ncertificate_key = \"\"\n",
        &[
            "4:1 a `certificate_key` without a `certificate` (write both, each the path of a PEM file, or neither to do without TLS)",
            "4:19 this is no path (write one such as \"/var/lib/encamp\")",
        ],
    ),
    (
        "[mail]\nlisten = [\"tcp:0.0.0.0:25\", \"lmtp:127.0.0.1:25\", \"tcp:0.0.0.0:5060\"]\n",
        &[
            "4:29 127.0.0.1:25 is listened on twice (the first is at encamp.toml:4:11)",
            "4:50 0.0.0.0:5060 is listened on twice ([front] listens there by default: write another port, or its `listen`)",
        ],
    ),
    (
        "[mail]\nlisten = [\"tcp:0.0.0.0:25\"]\n[pictures]\nlisten = \"127.0.0.1:25\"\nurl = \"http://a\"\n",
        &["6:10 127.0.0.1:25 is listened on twice (the first is at encamp.toml:4:11)"],
    ),
    (
        "[mail]\nrelay = \"mail.example\"\n",
        &[
            "4:9 \"mail.example\" does not begin with smtp:// or smtps:// (write \"smtp://mail.example\", \"smtp://mail.example:587\" or \"smtps://mail.example\")",
        ],
    ),
    (
        "[mail]\nrelay = \"smtp://me:secret@mail.example\"\n",
        &["4:9 a user or a password stands in this URL (write them as `relay_username` and `relay_password`)"],
    ),
    (
        "[mail]\nrelay = \"smtp://mail.example:0\"\n",
        &[
            "4:9 \"smtp://mail.example:0\" has no port where one should stand (write \"smtp://mail.example\", \"smtp://mail.example:587\" or \"smtps://mail.example\")",
        ],
    ),
    (
        "[mail]\nrelay = \"smtp://-mail.example\"\n",
        &[
            "4:9 \"smtp://-mail.example\" names no host (write \"smtp://mail.example\", \"smtp://mail.example:587\" or \"smtps://mail.example\")",
        ],
    ),
    (
        "[mail]\nrelay_tls = \"never\"\nrelay_authority = \"/ca\"\n",
        &[
            "4:1 a `relay_tls` without a `relay` (write relay = \"smtp://mail.example\", or remove it: mail goes straight to the MX)",
            "5:1 a `relay_authority` without a `relay` (write relay = \"smtp://mail.example\", or remove it: mail goes straight to the MX)",
        ],
    ),
    (
        "[mail]\nrelay = \"smtp://a\"\nrelay_username = \"u\"\n",
        &[
            "5:1 a `relay_username` without a `relay_password` (write both, or neither where the relay asks for no login)",
        ],
    ),
    (
        "[mail]\nrelay = \"smtp://a\"\nrelay_tls = \"offered\"\nrelay_username = \"u\"\nrelay_password = \"p\"\n",
        &[
            "5:1 the password could be read on its way to the relay (write relay_tls = \"required\"; without it passwords go to this machine only)",
        ],
    ),
    (
        "[mail]\nrelay = \"smtps://a\"\nrelay_tls = \"never\"\n",
        &["5:1 smtps:// is TLS from the first octet on (remove `relay_tls`, or write smtp:// in `relay`)"],
    ),
    (
        "[mail]\nrelay = \"smtp://a\"\nrelay_tls = \"require\"\n",
        &["5:13 `relay_tls` cannot be \"require\" (did you mean \"required\"?)"],
    ),
    (
        "[mail]\nshort_code = \"mail\"\n",
        &[
            "4:14 \"mail\" is no number: a number has 2 to 15 digits, with a leading + where it is international (write it as it is dialled: \"2001\", or \"+15550001\" with its country code)",
        ],
    ),
    ("[mail]\nshort_code = \"101\"\n", &["4:14 101 is a short code (write another one here)"]),
    (
        "[mail]\nshort_code = \"+300\"\n[[short_code]]\nnumber = \"300\"\ndoes = \"status\"\n",
        &["4:14 300 is a short code (it is given at encamp.toml:6:10: write another one here)"],
    ),
    ("[mail]\nshort_code = \"112\"\n", &["4:14 112 is an emergency number (write another one here)"]),
    (
        "[[subscriber]]\nimsi = \"001010000000001\"\nauth = { algorithm = \"none\" }\nmsisdn = [\"2001\", \"2002\"]\n[mail]\nshort_code = \"2001\"\nreply_pool = [\"2002-2003\"]\n",
        &[
            "8:14 a subscriber has the number 2001 (it is given at encamp.toml:6:11: write another one here)",
            "9:15 a subscriber has the number 2002 (it is given at encamp.toml:6:19: write another one here)",
        ],
    ),
    (
        "[mail]\nreply_pool = [\"2001-\", \"2001-20010\", \"2009-2001\", \"+2001-2002\", \"20 01\"]\n",
        &[
            "4:15 \"2001-\" is no range of numbers (write the first and the last number, as long as each other: \"+15559000-+15559099\")",
            "4:24 \"2001-20010\" ends with a number of another length (write the first and the last number, as long as each other: \"+15559000-+15559099\")",
            "4:38 \"2009-2001\" ends before it begins (write the first and the last number, as long as each other: \"+15559000-+15559099\")",
            "4:51 \"+2001-2002\" has a + on one side only (write the first and the last number, as long as each other: \"+15559000-+15559099\")",
            "4:65 \"20 01\" is no number: a number has 2 to 15 digits, with a leading + where it is international (write \"2001\")",
        ],
    ),
    (
        "[mail]\nshort_code = \"2005\"\nreply_pool = [\"2001-2009\", \"2009-2010\", \"1000\", \"100-120\"]\n[messages]\nservice_centre = \"1000\"\n",
        &[
            "5:15 2005 is the `short_code` of mail (it is given at encamp.toml:4:14: write numbers without it)",
            "5:28 a number of this stands in the pool already (write each number once)",
            "5:41 1000 is the number of the message centre (it is given at encamp.toml:7:18: write another one here)",
            "5:49 101 is a short code (write another one here)",
            "5:49 112 is an emergency number (write another one here)",
        ],
    ),
    (
        "[mail]\nreply_pool = [\"2000000-2099999\", \"31\"]\n",
        &["4:1 `reply_pool` has 100001 numbers (100000 are the most)"],
    ),
    (
        "[mail]\ntrusted = [\"mail.example\"]\nboxes = [\"192.0.2.0/33\"]\n",
        &[
            "4:12 \"mail.example\" is no network: an address or a network looks like 192.0.2.1 or 192.0.2.0/28 (trust is by address, so it stands here in digits and without a port)",
            "5:10 \"192.0.2.0/33\" is no network: an address or a network looks like 192.0.2.1 or 192.0.2.0/28 (trust is by address, so it stands here in digits and without a port)",
        ],
    ),
    (
        "[mail]\nsenders = \"all\"\nunproven = \"refuse_fail\"\nfirst_contact = \"yes\"\nsubject = \"News\"\n",
        &[
            "4:11 `senders` cannot be \"all\" (write one of everyone, listed)",
            "5:12 `unproven` cannot be \"refuse_fail\" (did you mean \"refuse_failed\"?)",
            "6:17 `first_contact` cannot be \"yes\" (write one of accept, ask)",
            "7:11 `subject` cannot be \"News\" (did you mean \"new\"?)",
        ],
    ),
    (
        "[mail]\nallow = [\"example.org\"]\ndeny = [\"@\", \"a b@example.org\"]\nresults_from = [\"mx example\"]\n",
        &[
            "4:10 \"example.org\" is no address of mail: there is no @ in it (write \"carol@example.org\", \"@example.org\" for all of a domain, or \"*\" for everybody)",
            "5:9 \"@\" is no address of mail: what stands behind the @ is no domain (write \"carol@example.org\", \"@example.org\" for all of a domain, or \"*\" for everybody)",
            "5:14 \"a b@example.org\" is no address of mail: what stands before the @ is no name (write \"carol@example.org\", \"@example.org\" for all of a domain, or \"*\" for everybody)",
            "6:17 \"mx example\" is no name of a server (write it as it stands in its Authentication-Results: \"mx.example.org\")",
        ],
    ),
    (
        "[mail]\nsegments_max = 21\nsize_max = \"1 kB\"\nrecipients_max = 0\nlife_max = \"90 days\"\n",
        &[
            "4:16 `segments_max` is a whole number from 1 to 20",
            "5:12 `size_max` cannot be 1000 bytes (write something from 10 kB to 100 MB)",
            "6:18 `recipients_max` is a whole number from 1 to 10000",
            "7:12 `life_max` cannot be \"90 days\" (write something from 1 s to 60 days)",
        ],
    ),
    (
        "[mail]\nsessions_max = 5\nsessions_per_address_max = 6\ncommand_timeout = \"2 min\"\nsession_max = \"1 min\"\n",
        &[
            "5:1 `sessions_per_address_max` (6) is above `sessions_max` (5) (the default of sessions_per_address_max is 20, of sessions_max 200)",
            "6:1 `command_timeout` (2 min) is above `session_max` (1 min) (the default of command_timeout is 5 min, of session_max 30 min)",
        ],
    ),
    (
        "[[mail_user]]\nname = \"u\"\npassword = \"p\"\n[[mail_route]]\nto = \"a@b.example\"\n[pictures]\nlisten = \"0.0.0.0:8090\"\nurl = \"http://a\"\n",
        &[
            "3:1 [[mail_user]] without [mail] (write [mail] as well, if only its title)",
            "6:1 [[mail_route]] without [mail] (write [mail] as well, if only its title)",
            "8:1 [pictures] without [mail] (write [mail] as well, if only its title)",
        ],
    ),
    (
        "[mail]\n[[mail_user]]\nname = \"u\"\npassword = \"p\"\n[[mail_user]]\nname = \"u\"\npassword = \"q\"\n[[mail_user]]\nname = \"a:b\"\n",
        &[
            "8:8 there is a [[mail_user]] \"u\" already (the first is at encamp.toml:5:8)",
            "10:1 `password` is missing in [[mail_user]] (write password = \"secret\")",
            "11:8 this is no name to log in with (write 1 to 128 characters without quotes, backslashes and colons)",
        ],
    ),
    (
        "[mail]\n[[mail_route]]\nprefixes = []\nto = \"{number}@sms.gsm.example\"\n[[mail_route]]\nprefixes = [\"44x\", \"+44\"]\nto = \"{nummer}@a.example\"\n[[mail_route]]\nprefixes = [\"+44\"]\nto = \"a@b.example\"\nbox = true\n[[mail_route]]\nto = \"hill\"\n[[mail_route]]\n",
        &[
            "5:1 this route has no numbers (write at least one prefix, or leave the key out for every number)",
            "6:6 sms.gsm.example is the mail domain of this box: the text would come back (write the address of another box, or of a mailbox)",
            "8:13 \"44x\" is no prefix of a number (write 1 to 15 digits, with a leading + where the numbers are international)",
            "9:6 nothing but {number} is filled in, and \"{nummer}@a.example\" has more in braces (write where such a text goes: \"{number}@sms.hill.example\")",
            "11:13 there is a [[mail_route]] for +44 already (the first is at encamp.toml:8:20)",
            "12:6 without {number} another box does not know whom a text is for (write where such a text goes: \"{number}@sms.hill.example\")",
            "15:6 \"hill\" is no address of mail: there is no @ in it (write where such a text goes: \"{number}@sms.hill.example\")",
            "16:1 `to` is missing in [[mail_route]] (write to = \"{number}@sms.hill.example\")",
            "16:1 there is a [[mail_route]] for every number already (the first is at encamp.toml:14:1)",
        ],
    ),
    (
        "[mail]\n[pictures]\n",
        &[
            "4:1 `listen` is missing in [pictures] (write listen = \"0.0.0.0:8090\")",
            "4:1 `url` is missing in [pictures] (write url = \"http://192.0.2.1:8090\")",
        ],
    ),
    (
        "[mail]\n[pictures]\nlisten = \"8090\"\nurl = \"http://a/b\"\nsize_max = \"2 MB\"\nbytes_max = \"1 MB\"\n",
        &[
            "5:10 \"8090\" is no address to listen on (write \"0.0.0.0:8090\": an address in digits and a port)",
            "6:7 a path stands in this URL (the box makes the paths itself: write one such as \"http://192.0.2.1:8090\")",
            "7:1 `size_max` (2000000) is above `bytes_max` (1000000) (the default of size_max is 5 MB, of bytes_max 256 MB)",
        ],
    ),
    (
        "[mail]\n[pictures]\nlisten = \"0.0.0.0:8090\"\nurl = \"a.example\"\n",
        &["6:7 this URL does not begin with http:// or https:// (write one such as \"http://192.0.2.1:8090\")"],
    ),
    (
        "[mail]\n[[subscriber]]\nimsi = \"001010000000001\"\nauth = { algorithm = \"none\" }\nmail_alias = [\"Ana\", \"ana\", \"+2001\", \"IMSI001010000000001\", \"a@b\", \"a%b\"]\nmail_copy = \"ana@SMS.gsm.example\"\nmail_allow = [\"carol\"]\n[[subscriber]]\nimsi = \"001010000000002\"\nauth = { algorithm = \"none\" }\nmail_alias = [\"ANA\"]\nmail_copy = \"ana\"\nmail_deny = [\"\"]\n",
        &[
            "7:22 the name \"ana\" is given already (the first is at encamp.toml:7:15; large and small letters are the same)",
            "7:29 \"+2001\" looks like a number or an IMSI (those are addresses already: write a name with letters)",
            "7:38 \"IMSI001010000000001\" looks like a number or an IMSI (those are addresses already: write a name with letters)",
            "7:61 \"a@b\" is a whole address (write what stands before the @ only: \"ana\")",
            "7:68 \"a%b\" is no name for an address (write letters, digits and . - _ between them, at most 64: \"ana\")",
            "8:13 sms.gsm.example is an address of this box: the copy would come back as a text (write the address of a mailbox elsewhere)",
            "9:15 \"carol\" is no address of mail: there is no @ in it (write \"carol@example.org\", \"@example.org\" for all of a domain, or \"*\" for everybody)",
            "13:15 the name \"ana\" is given already (the first is at encamp.toml:7:15; large and small letters are the same)",
            "14:13 \"ana\" is no address of mail: there is no @ in it (write one such as \"ana@example.org\")",
            "15:14 \"\" is no address of mail: there is no @ in it (write \"carol@example.org\", \"@example.org\" for all of a domain, or \"*\" for everybody)",
        ],
    ),
];

/// Everything of mail that has an effect, once.
const MAIL: &str = r#"
[mail]
domain = "SMS.gsm.example"
listen = ["tcp:0.0.0.0:25", "tls:[::]:465", "lmtp:127.0.0.1:24"]
certificate = "/etc/mail.pem"
certificate_key = "/etc/mail.key"
relay = "smtp://Mail.example"
relay_username = "encamp"
relay_password = "hunter2"
relay_authority = "/etc/ca.pem"
short_code = "1001"
reply_pool = ["+15559000-+15559099", "+15559200"]
fronts = ["127.0.0.1"]
trusted = ["192.0.2.25"]
boxes = ["198.51.100.0/24"]
senders = "listed"
allow = ["Carol@Example.org", "@clinic.example"]
deny = ["*"]
results_from = ["MX.example.org"]
unproven = "refuse"
first_contact = "ask"
per_sender_day_max = 10
per_phone_day_max = 20
subject = "always"
segments_max = 20
size_max = "10 kB"
recipients_max = 5
received_max = 6
sessions_max = 7
command_timeout = "2 s"
session_max = "10 s"
life_max = "3 s"
count_max = 8
thread_life = "2 min"
[pictures]
listen = "127.0.0.1:8090"
url = "https://pic.example/"
size_max = "1 kB"
bytes_max = "1 MB"
life = "1 h"
open_life = "1 s"
[[mail_user]]
name = "clinic"
password = "hunter2"
[[mail_route]]
prefixes = ["+1556", "1556"]
to = "{number}@sms.hill.example"
box = true
[[mail_route]]
to = "desk@example.org"
[[subscriber]]
imsi = "001010000000001"
auth = { algorithm = "none" }
mail_alias = ["Ana", "ana.b"]
mail_copy = "ana@example.org"
mail_allow = ["dave@example.org"]
mail_deny = ["*"]
"#;

#[test]
fn all_of_mail_means_what_it_says() {
    assert!(settings("").mail.is_none());
    assert_eq!(*settings("[mail]\n").mail.unwrap(), Mail::of("gsm.example"));
    let sheet =
        "imsi,algorithm,mail_alias,mail_copy\n001010000000002,none,ben BEN2,ben@example.org\n001010000000003,none,,\n";
    let read = read(&sources(&format!("{BASE}{MAIL}"), &[("s.csv", sheet)]));
    let (settings, _) = read.unwrap_or_else(|problems| panic!("{:#?}", told(&problems)));
    assert!(!format!("{settings:?}").contains("hunter2"));
    let number = |text: &str| Msisdn::parse(text).unwrap();
    let mail = settings.mail.unwrap();
    let listen: Vec<_> = mail.listen.iter().map(|one| (one.protocol, one.address.to_string())).collect();
    assert_eq!(
        listen,
        [
            (MailProtocol::Smtp, "0.0.0.0:25".into()),
            (MailProtocol::SmtpInTls, "[::]:465".into()),
            (MailProtocol::Lmtp, "127.0.0.1:24".into())
        ]
    );
    let path = |path: &Option<std::path::PathBuf>| path.as_ref().and_then(|path| path.to_str()).unwrap().to_owned();
    assert_eq!(
        (path(&mail.certificate), path(&mail.certificate_key)),
        ("/etc/mail.pem".into(), "/etc/mail.key".into())
    );
    let relay = mail.relay.as_ref().unwrap();
    assert_eq!((relay.host.as_str(), relay.port, relay.tls), ("mail.example", 587, RelayTls::Required));
    assert_eq!((relay.username.as_deref(), path(&relay.authority)), (Some("encamp"), "/etc/ca.pem".into()));
    assert!(relay.password == Some(Password("hunter2".into())));
    assert_eq!((mail.domain.as_str(), mail.short_code), ("sms.gsm.example", Some(number("1001"))));
    let range = |first: &str, last: &str| NumberRange { first: number(first), last: number(last) };
    assert_eq!(mail.reply_pool, [range("+15559000", "+15559099"), range("+15559200", "+15559200")]);
    assert!(mail.fronts[0].contains("127.0.0.1".parse().unwrap()) && mail.fronts.len() == 1);
    assert!(mail.trusted[0].contains("192.0.2.25".parse().unwrap()) && mail.trusted.len() == 1);
    assert!(mail.boxes[0].contains("198.51.100.7".parse().unwrap()) && mail.boxes.len() == 1);
    assert_eq!((mail.senders, mail.unproven), (Senders::Listed, Unproven::Refuse));
    assert_eq!((mail.first_contact, mail.subject), (FirstContact::Ask, SubjectRule::Always));
    assert_eq!((mail.allow.len(), mail.deny.len(), mail.results_from.join(" ")), (2, 1, "mx.example.org".into()));
    assert_eq!((mail.per_sender_day_max, mail.per_phone_day_max, mail.segments_max), (10, 20, 20));
    assert_eq!((mail.size_max, mail.recipients_max, mail.received_max, mail.count_max), (10_000, 5, 6, 8));
    assert_eq!((mail.sessions_max, mail.sessions_per_address_max), (7, 7), "the part follows the whole");
    let seconds = [mail.command_timeout, mail.session_max, mail.life_max, mail.thread_life].map(|time| time.as_secs());
    assert_eq!(seconds, [2, 10, 3, 120]);
    assert!(mail.users.len() == 1 && mail.users[0].name == "clinic" && mail.users[0].password.0 == "hunter2");
    let to_box = MailRoute {
        prefixes: vec!["+1556".into(), "1556".into()],
        to: "{number}@sms.hill.example".into(),
        is_box: true,
    };
    let to_desk = MailRoute { prefixes: Vec::new(), to: "desk@example.org".into(), is_box: false };
    assert_eq!(mail.routes, [to_box, to_desk]);
    let pictures = mail.pictures.as_ref().unwrap();
    assert_eq!((pictures.listen.to_string(), pictures.url.as_str()), ("127.0.0.1:8090".into(), "https://pic.example"));
    assert_eq!(
        (pictures.path.to_str(), pictures.size_max, pictures.bytes_max),
        (Some("/d/pictures"), 1_000, 1_000_000)
    );
    assert_eq!((pictures.life.as_secs(), pictures.open_life.as_secs()), (3_600, 1));

    let subscribers = &settings.subscribers;
    let get = |imsi: &str| subscribers.get(&Imsi::parse(imsi).unwrap()).unwrap();
    let ana = get("001010000000001").mail.as_deref().unwrap();
    assert_eq!(ana.aliases.concat(), "anaana.b");
    assert_eq!(ana.copy_to.as_ref().map(|to| to.as_str()), Some("ana@example.org"));
    assert_eq!((ana.allow.len(), ana.deny.len()), (1, 1));
    let by_alias = |alias: &str| subscribers.by_alias(alias).map(|subscriber| subscriber.imsi.to_string());
    assert_eq!(by_alias("ANA").as_deref(), Some("001010000000001"));
    assert_eq!(by_alias("ben2").as_deref(), Some("001010000000002"));
    assert_eq!(get("001010000000002").mail.as_ref().unwrap().copy_to.as_ref().unwrap().as_str(), "ben@example.org");
    assert!(get("001010000000003").mail.is_none(), "who has nothing of mail costs nothing");
}

#[test]
fn the_relay_has_a_port_and_tls_by_default() {
    let cases = [
        ("relay = \"smtp://a\"", 25, RelayTls::IfOffered),
        ("relay = \"smtp://a\"\nrelay_tls = \"never\"", 25, RelayTls::Never),
        ("relay = \"smtp://a:26\"\nrelay_tls = \"required\"", 26, RelayTls::Required),
        ("relay = \"smtps://a\"", 465, RelayTls::FromStart),
        (
            "relay = \"smtps://a\"\nrelay_tls = \"required\"\nrelay_username = \"u\"\nrelay_password = \"p\"",
            465,
            RelayTls::FromStart,
        ),
        ("relay = \"smtp://a\"\nrelay_username = \"u\"\nrelay_password = \"p\"", 587, RelayTls::Required),
        (
            "relay = \"smtp://[::1]\"\nrelay_tls = \"never\"\nrelay_username = \"u\"\nrelay_password = \"p\"",
            587,
            RelayTls::Never,
        ),
    ];
    for (text, port, tls) in cases {
        let relay = settings(&format!("[mail]\n{text}\n")).mail.unwrap().relay.clone().unwrap();
        assert_eq!((relay.port, relay.tls), (port, tls), "{text}");
    }
}

#[test]
fn the_passwords_of_mail_are_never_repeated() {
    let relay = "[mail]\nrelay = \"smtp://a\"\n";
    for text in [
        "[mail]\nrelay = \"smtp://me:hunter2@a\"".to_owned(),
        "[mail]\nrelay_password = \"hunter2\"".to_owned(),
        format!("{relay}relay_password = \"hunter2\""),
        format!("{relay}relay_username = \"u\"\nrelay_password = \"file:hunter2\""),
        format!("{relay}relay_username = \"u\"\nrelay_password = \"hunter2\"\nrelay_tls = \"never\""),
        "[mail]\n[[mail_user]]\nname = \"u\"\npassword = \"hunter2\\u0007\"".to_owned(),
        "[mail]\n[[mail_user]]\nname = \"hunter2\\\"\"\npassword = \"x\"".to_owned(),
    ] {
        let found = problems_of(&format!("{BASE}{text}\n"), &[]);
        assert!(!found.is_empty() && !found.concat().contains("hunter2"), "{found:?}");
    }
}

#[test]
fn what_is_hardly_meant_of_mail_is_noted() {
    let line = 3 + THREE.matches('\n').count();
    let cases: &[(&str, &[&str])] = &[
        (
            "[mail]\nsenders = \"listed\"\n",
            &[
                "2:1 nobody is listed, so only subscribers' own lists let anybody write (write `allow`, `trusted` or `boxes`, or a [[mail_user]])",
            ],
        ),
        (
            "[mail]\nunproven = \"refuse\"\n",
            &[
                "2:1 no server's findings are believed, so every mail is unproven (write `results_from` with the name of the server that checks SPF, DKIM and DMARC)",
            ],
        ),
        (
            "[mail]\nresults_from = [\"mx.example.org\"]\n",
            &[
                "2:1 nobody is in `fronts`, so nobody's findings are believed (write the address of the server that brings the mail in `fronts`)",
            ],
        ),
        (
            "[dialplan]\nlocal_prefixes = [\"+1556\"]\n[mail]\n[[mail_route]]\nprefixes = [\"+1556\", \"+15567\"]\nto = \"a@b.example\"\n",
            &[
                "5:13 no text goes this way: \"+1556\" is in `local_prefixes` (write a longer prefix for what of it is elsewhere)",
            ],
        ),
        (
            "[mail]\ntrusted = [\"0.0.0.0/0\"]\n",
            &["2:1 everybody is in `trusted` (name the networks of those whom you know)"],
        ),
        (
            "[mail]\nfronts = [\"192.0.2.25\"]\ntrusted = [\"192.0.2.25/32\"]\n",
            &[
                "3:1 192.0.2.25/32 is in `fronts`, too: who writes through it has the rights of `trusted` (a server that brings mail of everybody stands in `fronts` alone)",
            ],
        ),
        (
            "[mail]\nrelay = \"smtp://a\"\nrelay_authority = \"/ca\"\n",
            &["3:1 the relay's certificate is not looked at (write relay_tls = \"required\")"],
        ),
        (
            "[mail]\n[[mail_route]]\nprefixes = [\"+44\", \"411\", \"2001\", \"1000\"]\nto = \"a@b.example\"\n",
            &[
                "3:13 no text goes this way: the trunk `pbx` has the prefix too (of a trunk and a [[mail_route]] for the same numbers the trunk has them)",
                "3:20 texts to 411 do not go this way: it is a short code, which wins (a prefix is the beginning of numbers that are elsewhere)",
                "3:27 texts to 2001 do not go this way: it is a subscriber's, which wins (a prefix is the beginning of numbers that are elsewhere)",
                "3:35 texts to 1000 do not go this way: it is the message centre's, which wins (a prefix is the beginning of numbers that are elsewhere)",
            ],
        ),
        (
            "[mail]\n[[mail_route]]\nto = \"a@b.example\"\n[[trunk]]\nname = \"gw\"\naddress = \"192.0.2.21:5060\"\ntexts = true\n",
            &[
                "2:1 no text goes this way: the trunk `gw` takes every number too (of a trunk and a [[mail_route]] for the same numbers the trunk has them)",
            ],
        ),
        (
            "[[subscriber]]\nimsi = \"001010000000004\"\nauth = { algorithm = \"none\" }\nmail_alias = [\"a\"]\n\
             [[subscriber]]\nimsi = \"001010000000005\"\nauth = { algorithm = \"none\" }\nmail_copy = \"a@b.example\"\n",
            &[
                "4:15 what a subscriber has of mail has no effect without [mail] (write [mail] as well, if only its title)",
            ],
        ),
    ];
    check_all(cases.iter().map(|(text, expected)| {
        let read = read(&sources(&format!("{BASE}{THREE}{text}"), &[]));
        let found = told(&read.map(|(_, notes)| notes).unwrap_or_else(|problems| problems));
        let below = found.iter().map(|told| match told.split_once(':') {
            Some((row, rest)) => format!("{}:{rest}", row.parse::<usize>().unwrap() + 1 - line),
            None => told.clone(),
        });
        (*text, below.collect::<Vec<_>>(), *expected)
    }));
}

#[test]
fn a_difference_of_mail_is_told_in_words() {
    let changed = MAIL
        .replace("SMS.gsm.example", "text.gsm.example")
        .replace("\"tcp:0.0.0.0:25\", ", "")
        .replace("/etc/mail.pem", "/etc/new.pem")
        .replace("\"smtp://Mail.example\"", "\"smtps://mail.example\"")
        .replace("\"1001\"", "\"1002\"")
        .replace(", \"+15559200\"", "")
        .replace("127.0.0.1\"]\ntrusted", "127.0.0.2\"]\ntrusted")
        .replace("192.0.2.25", "192.0.2.26")
        .replace("\"listed\"", "\"everyone\"")
        .replace("@clinic.example", "@hospital.example")
        .replace("\"ask\"", "\"accept\"")
        .replace("segments_max = 20", "segments_max = 3")
        .replace("life_max = \"3 s\"", "life_max = \"1 min\"")
        .replace("name = \"clinic\"\npassword = \"hunter2\"", "name = \"clinic\"\npassword = \"hunter3\"")
        .replace("desk@example.org", "other@example.org")
        .replace("127.0.0.1:8090", "127.0.0.1:8091")
        .replace("bytes_max = \"1 MB\"", "bytes_max = \"2 MB\"")
        .replace("mail_deny = [\"*\"]", "mail_deny = []");
    let (old, new, none) = (settings(MAIL), settings(&changed), settings(""));
    let told = |old: &Settings, new: &Settings| -> Vec<String> {
        let told = |change: encamp::config::diff::Change| {
            format!("{}{}", change.what, if change.needs_restart { " [restart]" } else { "" })
        };
        diff(old, new).into_iter().map(told).collect()
    };
    let line = new.subscribers.iter().next().unwrap().line;
    assert_eq!(
        told(&old, &new),
        [
            "`mail.domain`: sms.gsm.example -> text.gsm.example",
            "`mail.listen`: tcp:0.0.0.0:25, tls:[::]:465, lmtp:127.0.0.1:24 -> tls:[::]:465, lmtp:127.0.0.1:24 [restart]",
            "`mail.certificate`: /etc/mail.pem -> /etc/new.pem",
            "`mail.relay`: smtp://mail.example:587, TLS required -> smtps://mail.example:465",
            "`mail.short_code`: 1001 -> 1002",
            "`mail.reply_pool`: +15559000-+15559099, +15559200 -> +15559000-+15559099",
            "`mail.fronts`: 127.0.0.1/32 -> 127.0.0.2/32",
            "`mail.trusted`: 192.0.2.25/32 -> 192.0.2.26/32",
            "mail user `clinic` changed",
            "`mail.senders` changed",
            "`mail.allow` changed",
            "`mail.first_contact` changed",
            "`mail.segments_max`: 20 -> 3",
            "`mail.life_max`: 3 s -> 1 min",
            "mail route `every number` changed",
            "`pictures.listen`: 127.0.0.1:8090 -> 127.0.0.1:8091 [restart]",
            "`pictures.bytes_max`: 1000000 -> 2000000",
            &format!("subscriber …0001 (encamp.toml:{line}) changed"),
        ]
    );
    assert_eq!(told(&old, &old), [""; 0]);
    let login = settings(&MAIL.replace("relay_password = \"hunter2\"", "relay_password = \"hunter3\""));
    assert_eq!(told(&old, &login), ["the login or the authority of `mail.relay` changed"]);
    assert_eq!(told(&none, &old)[0], "[mail] added [restart]");
    assert_eq!(told(&old, &none)[0], "[mail] removed [restart]");
}

/// Two who may be phoned, and one who has no number.
const THREE: &str = "[front]\nbase_stations = [\"192.0.2.0/28\"]\n[emergency]\ntrunk = \"pbx\"\n\
    [[trunk]]\nname = \"pbx\"\naddress = \"192.0.2.20:5060\"\nprefixes = [\"+44\", \"00\", \"+1555\"]\ntexts = true\n\
    [[subscriber]]\nimsi = \"001010000000001\"\nauth = { algorithm = \"none\" }\nmsisdn = [\"+15550001\", \"2001\"]\n\
    [[subscriber]]\nimsi = \"001010000000002\"\nauth = { algorithm = \"none\" }\nmsisdn = [\"2002\"]\n\
    [[subscriber]]\nimsi = \"001010000000003\"\nauth = { algorithm = \"none\" }\n";

#[test]
fn what_is_said_differently_than_meant_is_noted() {
    let line = 3 + THREE.matches('\n').count();
    let at = |row: usize, rest: &str| format!("{}:{rest}", line + row - 1);
    let cases: &[(&str, &[String])] = &[
        (
            "[[short_code]]\nnumber = \"300\"\ndoes = \"answer\"\ntext = \"na \u{17c}ywo \u{1f600}\"\n",
            &[at(4, "8 this text goes as UCS-2, 70 characters in one message instead of 160: the GSM alphabet lacks '\u{17c}', '\u{1f600}'")],
        ),
        (
            "[[texts]]\nlanguage = \"ru\"\nbarred = \"\u{43d}\u{435}\u{43b}\u{44c}\u{437}\u{44f} {number}\"\n",
            &[at(3, "10 this text goes as UCS-2, 70 characters in one message instead of 160: the GSM alphabet lacks '\u{435}', '\u{437}', '\u{43b}', '\u{43d}', '\u{44c}', ..")],
        ),
        (
            "[messages]\nlanguage = \"sw\"\n[[subscriber]]\nimsi = \"001010000000004\"\nauth = { algorithm = \"none\" }\nlanguage = \"fr\"\n\
             [[subscriber]]\nimsi = \"001010000000005\"\nauth = { algorithm = \"none\" }\nlanguage = \"fr\"\n\
             [[subscriber]]\nimsi = \"001010000000006\"\nauth = { algorithm = \"none\" }\nlanguage = \"en\"\n",
            &[
                at(2, "12 there is no [[texts]] in \"sw\", so all is said in English (write a [[texts]] with language = \"sw\")"),
                at(6, "12 there is no [[texts]] in \"fr\", so all is said in the `language` of [messages] (write a [[texts]] with language = \"fr\")"),
            ],
        ),
        ("[messages]\nlanguage = \"sw\"\n[[texts]]\nlanguage = \"sw\"\n", &[]),
        (
            "[[short_code]]\nnumber = \"300\"\ndoes = \"group\"\nmembers = [\"2001\", \"2009\", \"15550001\"]\nsenders = [\"+15550009\"]\n",
            &[
                at(4, "20 nobody has the number 2009 (give it to a subscriber, or take it out of the list)"),
                at(5, "12 nobody has the number +15550009 (give it to a subscriber, or take it out of the list)"),
            ],
        ),
        (
            "[[number]]\nimsi = \"001010000000009\"\nmsisdn = [\"2001\"]\n",
            &[at(2, "8 no subscriber has this IMSI, so its numbers have no effect (provision the SIM, or remove the [[number]])")],
        ),
        (
            "[messages]\nnumber_code = \"1555\"\n[[short_code]]\nnumber = \"44\"\ndoes = \"status\"\n",
            &[
                "10:13 texts to 44 do not go out here: it is a short code, which wins (give the short code another number if they are to go out)".into(),
                "10:26 texts to 1555 do not go out here: it is a short code, which wins (give the short code another number if they are to go out)".into(),
            ],
        ),
    ];
    let mut all: Vec<(&str, Vec<String>, Vec<&str>)> = Vec::new();
    for (text, expected) in cases {
        let notes = read(&sources(&format!("{BASE}{THREE}{text}"), &[])).map(|(_, notes)| notes);
        let found = told(&notes.unwrap_or_else(|problems| problems));
        all.push((text, found, expected.iter().map(String::as_str).collect()));
    }
    check_all(all.iter().map(|(text, found, expected)| (*text, found.clone(), expected.as_slice())));
}

#[test]
fn a_fixed_text_has_ten_parts_and_a_list_a_thousand_numbers_at_most() {
    let long = |text: &str, count: usize| {
        let text = text.repeat(count);
        problems_of(&format!("{BASE}[[short_code]]\nnumber = \"300\"\ndoes = \"answer\"\ntext = \"{text}\"\n"), &[])
    };
    assert_eq!((long("x", 1_530).len(), long("\u{17c}", 670).len()), (0, 0));
    assert_eq!(long("x", 1_531), ["6:8 this text would go in 11 parts of 153 characters (10 are the most)"]);
    assert_eq!(long("\u{17c}", 671), ["6:8 this text would go in 11 parts of 67 characters (10 are the most)"]);
    assert_eq!(
        long("x", 100_000),
        ["6:8 this text would go in more than 255 parts of 153 characters (10 are the most)"]
    );
    let group = |count: usize| {
        let numbers: Vec<String> = (0..count).map(|number| format!("\"{}\"", 200_000 + number)).collect();
        let text = format!("[[short_code]]\nnumber = \"300\"\ndoes = \"group\"\nmembers = [{}]\n", numbers.join(", "));
        problems_of(&format!("{BASE}{text}"), &[])
    };
    assert_eq!(group(1_000), [""; 0]);
    assert_eq!(group(1_001), ["6:1 `members` has 1001 numbers (1000 are the most)"]);
}

#[test]
fn numbers_that_are_given_apart_are_their_subscribers_and_those_of_a_gone_sim_are_free() {
    let sheet = "imsi,msisdn,algorithm,language\n001010000000001,2001,none,sw\n001010000000002,2002,none,\n";
    let early = "[[number]]\nimsi = \"IMSI001010000000002\"\nmsisdn = [\"2003\", \"+15550003\"]\n";
    let local = "[[number]]\nimsi = \"001010000000001\"\nmsisdn = [\"2004\"]\n\
                 [[number]]\nimsi = \"001010000000009\"\nmsisdn = [\"2001\"]\n\
                 [[number]]\nimsi = \"001010000000001\"\nmsisdn = [\"2005\"]\n";
    let files = [("10.toml", early), ("20.csv", sheet), ("90-local.toml", local)];
    let (settings, notes) = read(&sources(BASE, &files)).unwrap();
    let numbers = |imsi: &str| {
        let subscriber = settings.subscribers.get(&Imsi::parse(imsi).unwrap()).unwrap();
        subscriber.msisdn.iter().map(ToString::to_string).collect::<Vec<_>>().join(" ")
    };
    assert_eq!(numbers("001010000000001"), "2001 2004 2005");
    assert_eq!(numbers("001010000000002"), "2002 2003 +15550003");
    let owner = settings.subscribers.by_number(&Msisdn::parse("2005").unwrap()).unwrap();
    assert_eq!((owner.imsi.as_str(), owner.language), ("001010000000001", Language::parse("sw").ok()));
    assert_eq!(
        told(&notes)[2..],
        [
            "90-local.toml:5:8 no subscriber has this IMSI, so its numbers have no effect (provision the SIM, or remove the [[number]])"
        ]
    );
    // Whoever has it by his own table has it first.
    let taken = "[[number]]\nimsi = \"001010000000001\"\nmsisdn = [\"2002\"]\n";
    assert_eq!(
        problems_of(BASE, &[("10.toml", taken), ("20.csv", sheet)]),
        ["10.toml:3:11 this number is given already (the first is at 20.csv:3:17)"]
    );
}

#[test]
fn a_number_may_be_chosen_that_is_nobodys_and_of_no_use_elsewhere() {
    let text = format!(
        "{THREE}[messages]\nnumber_digits_min = 3\nnumber_digits_max = 15\nservice_centre = \"+10000\"\n\
         [[short_code]]\nnumber = \"300\"\ndoes = \"status\"\n\
         [[short_code]]\nnumber = \"+301\"\ndoes = \"status\"\n[dialplan]\nlocal_prefixes = [\"0044\", \"+1555777\"]\n\
         [mail]\nshort_code = \"+302\"\nreply_pool = [\"500-599\", \"+15557779\"]\n\
         [[mail_route]]\nprefixes = [\"+77\", \"+15557770\", \"0044\"]\nto = \"{{number}}@hill.example\"\n[[mail_route]]\nto = \"a@b.example\"\n"
    );
    let settings = settings(&text.replace("[emergency]\n", "[emergency]\nnumbers = [\"110\"]\n"));
    let asked = |imsi: &str, number: &str| {
        may_have(&settings, Imsi::parse(imsi).unwrap(), Msisdn::parse(number).unwrap()).err()
    };
    for (number, expected) in [
        ("2003", None),
        ("999999999999999", None),
        ("20", Some(WhyNot::Digits)),
        ("+2003", Some(WhyNot::Digits)),
        ("2001", Some(WhyNot::Taken)),
        // What is dialled is understood with and without its `+`.
        ("15550001", Some(WhyNot::Reserved)),
        ("10000", Some(WhyNot::Reserved)),
        ("101", Some(WhyNot::Reserved)),
        ("411", Some(WhyNot::Reserved)),
        ("300", Some(WhyNot::Reserved)),
        ("301", Some(WhyNot::Reserved)),
        ("112", Some(WhyNot::Reserved)),
        ("911", Some(WhyNot::Reserved)),
        ("110", Some(WhyNot::Reserved)),
        // Who dials +44.. or 00.. means the world outside,
        ("442071234", Some(WhyNot::Reserved)),
        ("004911", Some(WhyNot::Reserved)),
        // Of mail: its code, its pool, and what is at another box.
        ("302", Some(WhyNot::Reserved)),
        ("500", Some(WhyNot::Reserved)),
        ("599", Some(WhyNot::Reserved)),
        ("15557779", Some(WhyNot::Reserved)),
        ("7712", Some(WhyNot::Reserved)),
        // A route counts against `local_prefixes` where it is longer.
        ("155577701", Some(WhyNot::Reserved)),
        ("0044701", None),
        ("600", None),
        // unless that is in `local_prefixes` and never goes out.
        ("00447", None),
        ("15557771", None),
        ("15551", Some(WhyNot::Reserved)),
    ] {
        assert_eq!(asked("001010000000003", number), expected, "{number}");
    }
    // Whatever he asks for: he has one.
    assert_eq!(asked("001010000000002", "2003"), Some(WhyNot::Held));
    assert_eq!(asked("001010000000002", "2002"), Some(WhyNot::Held));
    let plain = crate::settings(&THREE.replace("prefixes", "#"));
    let asked = |number: &str| {
        let imsi = Imsi::parse("001010000000003").unwrap();
        may_have(&plain, imsi, Msisdn::parse(number).unwrap()).err()
    };
    assert_eq!(
        (asked("15550001"), asked("123456"), asked("12345678901")),
        (Some(WhyNot::Taken), Some(WhyNot::Digits), Some(WhyNot::Digits))
    );
    assert_eq!((asked("1234567"), asked("1234567890")), (None, None));
    let wide = crate::settings(&(THREE.replace("prefixes", "#") + "[messages]\nnumber_digits_max = 15\n"));
    let imsi = |last: char| format!("00101000000000{last}");
    let asked = |number: &str| may_have(&wide, Imsi::parse(&imsi('3')).unwrap(), Msisdn::parse(number).unwrap()).err();
    assert_eq!((asked(&imsi('2')), asked(&imsi('4'))), (Some(WhyNot::Taken), None), "dialled, it is the IMSI's");
}

#[test]
fn the_password_in_a_url_is_never_repeated() {
    for url in
        ["http://me:hunter2@a/", "hunter2://a/", "http://hunter2 /", "http://hunter2:hunter2/", "http://@hunter2"]
    {
        let text = format!("{BASE}[[short_code]]\nnumber = \"300\"\ndoes = \"hook\"\nurl = \"{url}\"\n");
        let found = problems_of(&text, &[]);
        assert!(found.len() == 1 && !found.concat().contains("hunter2"), "{found:?}");
    }
}

#[test]
fn keys_of_later_issues_are_noted() {
    let text = "[front]\nbase_stations = [\"192.0.2.0/28\"]\n[admin]\nlisten = \"127.0.0.1:8080\"\n\
                [[trunk]]\nname = \"pbx\"\naddress = \"192.0.2.20:5060\"\ntexts = true\n";
    let (settings, notes) = read(&sources(&format!("{BASE}{text}"), &[])).unwrap();
    assert!(settings.trunks[0].texts);
    assert_eq!(told(&notes), ["5:2 [admin] has no effect yet"]);
    let wrong = problems_of(&format!("{BASE}[admin]\nlistne = \"x\"\nlisten = 25\n"), &[]);
    assert_eq!(
        wrong,
        [
            "4:1 unknown key `listne` (did you mean `listen`?)",
            "5:10 `listen` is a text, not a number (write listen = \"127.0.0.1:8080\")"
        ]
    );
}

#[test]
fn what_is_hardly_meant_is_noted() {
    let text = "[front]\nbase_stations = [\"192.0.2.0/24\"]\n[[trunk]]\nname = \"pbx\"\naddress = \"192.0.2.20:5060\"\n\
                [registrar]\nwrite_deadline = \"6 s\"\n[rehearsal]\nimsi_prefix = \"00101\"\n\
                [[subscriber]]\nimsi = \"001010000000001\"\nauth = { algorithm = \"none\" }\n";
    let (_, notes) = read(&sources(&format!("{BASE}{text}"), &[])).unwrap();
    assert_eq!(
        told(&notes),
        [
            "7:11 192.0.2.20 is inside `base_stations`, so this trunk may also speak for phones (a trunk is better kept out of those networks)",
            "9:1 an old base station stops listening after 5 s, before `write_deadline` (2.5 s is the default)",
            "13:8 this IMSI begins with the `imsi_prefix` 00101 of [rehearsal] (a simulated SIM may take its place)",
        ]
    );
}

#[test]
fn the_demo_is_right() {
    let (demo, notes) = read(&sources(include_str!("../config/demo.toml"), &[])).unwrap();
    assert_eq!(told(&notes), [""; 0]);
    assert_eq!(
        demo.rehearsal.map(|rehearsal| (rehearsal.imsi_prefix, rehearsal.count)),
        Some(("00101999".into(), 100))
    );
    assert!(demo.replicas.iter().all(|replica| replica.is_local()) && demo.replicas.len() == 4);
    let all = demo.front.listen.iter().chain(&demo.zone.listen).map(|listener| listener.address);
    let all = all
        .chain(demo.base_stations.iter().map(|station| station.address))
        .chain(demo.trunks.iter().map(|trunk| trunk.address));
    for address in all {
        assert!(address.ip().is_loopback() && address.port() > 1024, "{address}");
    }
    for station in &demo.base_stations {
        assert!(demo.front.base_stations.iter().any(|network| network.contains(station.address.ip())));
    }
}

#[test]
fn the_examples_of_subscribers_are_right_once_their_marks_are_removed() {
    let toml = include_str!("../config/subscribers.d/example.toml");
    let csv = include_str!("../config/subscribers.d/example.csv");
    let (settings, _) = read(&sources(BASE, &[("example.toml", toml), ("example.csv", csv)])).unwrap();
    assert!(settings.subscribers.is_empty());
    for (name, text) in [("example.toml", toml), ("example.csv", csv)] {
        let (settings, _) = read(&sources(BASE, &[(name, &uncommented(text))])).unwrap();
        assert_eq!(settings.subscribers.len(), 2, "{name}");
        let languages = settings.subscribers.iter().filter_map(|subscriber| subscriber.language);
        assert_eq!(languages.map(|language| language.as_str().to_owned()).collect::<Vec<_>>(), ["sw"], "{name}");
    }
}

/// Every `#` that has no blank behind it is taken away.
fn uncommented(text: &str) -> String {
    let line = |line: &str| match line.strip_prefix('#') {
        Some(rest) if !rest.is_empty() && !rest.starts_with(' ') => format!("{rest}\n"),
        _ => format!("{line}\n"),
    };
    text.lines().map(line).collect()
}

const MANUAL: &str = include_str!("../config/encamp.toml");

#[test]
fn the_manual_is_a_working_configuration() {
    let (manual, _) = read(&sources(MANUAL, &[])).unwrap();
    assert_eq!((manual.shards.len(), manual.replicas.len()), (1, 1));
    assert_eq!(manual.registrar, Registrar::default());
}

#[test]
fn the_manual_shows_every_key_and_no_other_and_the_true_defaults() {
    let text = uncommented(MANUAL);
    let mut all = sources(&text, &[]);
    all.cluster_key_file = Some("00".repeat(32));
    // No other: an unknown key would be a problem.
    let (shown, notes) = read(&all).unwrap_or_else(|problems| panic!("{:#?}", told(&problems)));
    // What is noted as without effect is called so in the manual, and nothing else is.
    assert_eq!(notes.len(), 1, "{:#?}", told(&notes));
    let prose: Vec<&str> = MANUAL.lines().filter(|line| line.contains("effect yet")).collect();
    assert_eq!(prose.len(), 1, "one headline: {prose:#?}");

    let table: toml::Table = text.parse().unwrap();
    let mut missing = BTreeSet::new();
    missing_keys(&ROOT, &[&table], &mut missing);
    assert!(missing.is_empty(), "not in config/encamp.toml: {missing:?}");

    let (default, _) = read(&sources(BASE, &[])).unwrap();
    let unknown_cause_by_plmn = shown.registrar.unknown_cause_by_plmn.clone();
    assert_eq!(shown.registrar, Registrar { unknown_cause_by_plmn, ..default.registrar });
    assert_eq!(shown.front.listen, default.front.listen);
    assert_eq!((shown.front.unlisted, shown.disk_reserve_bytes), (default.front.unlisted, default.disk_reserve_bytes));
    assert_eq!((shown.zone.listen, shown.zone.ttl_s), (default.zone.listen, default.zone.ttl_s));
    assert_eq!(shown.zone.apex, shown.domain);
    assert_eq!(shown.control, shown.data_dir.join("control.sock"));
    assert_eq!(shown.trunks[0].mode, TrunkMode::Redirect);
    assert_eq!(shown.calls, Calls::of(&shown.data_dir));
    let night = shown.messages.night;
    assert_eq!(shown.messages, Messages { night, records: shown.messages.records.clone(), ..default.messages });
    assert_eq!(shown.messages.records, Messages::of(&shown.data_dir).records);
    assert_eq!(shown.emergency.numbers, default.emergency.numbers);
    assert_eq!((&shown.short_codes[..2], default.short_codes.len()), (&short_codes_of_old()[..], 2));
    assert_eq!(shown.templates.default_language, default.templates.default_language);
    // What the manual calls none by default, and shows all the same.
    let mail = shown.mail.unwrap();
    let none = Mail {
        listen: Vec::new(),
        certificate: None,
        certificate_key: None,
        relay: None,
        short_code: None,
        reply_pool: Vec::new(),
        fronts: Vec::new(),
        trusted: Vec::new(),
        boxes: Vec::new(),
        users: Vec::new(),
        allow: Vec::new(),
        deny: Vec::new(),
        results_from: Vec::new(),
        routes: Vec::new(),
        pictures: None,
        ..(*mail).clone()
    };
    assert_eq!(none, Mail::of(&shown.domain));
    let pictures = mail.pictures.clone().unwrap();
    assert_eq!(pictures, Pictures::of(&shown.data_dir, pictures.listen, pictures.url.clone()));
    for word in Word::all() {
        assert_eq!(shown.templates.written[&(Language::default(), word)], word.english(), "{}", word.key());
    }
}

#[test]
fn the_manual_tells_all_that_a_template_may_hold() {
    for word in Word::all() {
        let line = format!("#{} = \"{}\"", word.key(), word.english());
        let paragraph = MANUAL.split("\n\n").find(|paragraph| paragraph.lines().any(|one| one == line)).unwrap();
        for hole in word.may_hold().iter().map(|name| format!("{{{name}}}")) {
            let mut told = paragraph.lines().filter(|one| one.starts_with("# ") || *one == line);
            assert!(told.any(|one| one.contains(&hole)), "{hole} of {}", word.key());
        }
    }
}

/// The keys of a section that stand in none of the tables of its kind.
fn missing_keys(section: &Section, tables: &[&toml::Table], missing: &mut BTreeSet<String>) {
    for key in section.keys {
        let values: Vec<&toml::Value> = tables.iter().filter_map(|table| table.get(key.name)).collect();
        if values.is_empty() {
            missing.insert(format!("{} {}", section.title, key.name));
        }
        if let Shape::Table(inner) | Shape::Tables(inner) | Shape::Listeners(inner) | Shape::Causes(inner) = key.shape {
            let mut below: Vec<&toml::Table> = Vec::new();
            for value in values {
                match value {
                    toml::Value::Array(items) => below.extend(items.iter().filter_map(|item| item.as_table())),
                    toml::Value::Table(table) if matches!(key.shape, Shape::Causes(_)) => {
                        below.extend(table.values().filter_map(|value| value.as_table()));
                    }
                    toml::Value::Table(table) => below.push(table),
                    _ => {}
                }
            }
            // A section written as a plain list somewhere is looked for where it is written as a table.
            if !below.is_empty() || !matches!(key.shape, Shape::Listeners(_)) {
                missing_keys(inner, &below, missing);
            }
        }
    }
}

#[test]
fn a_difference_is_told_in_words_and_says_what_waits_for_a_restart() {
    let changed = SAMPLE
        .replace("location_area = \"valley\"", "location_area = \"hilltop\"")
        .replace("stale_life = \"36 h\"", "stale_life = \"2 days\"")
        .replace("ttl_s = 30", "ttl_s = 5")
        .replace("\"00-49\", \"150\"", "\"00-49\"")
        .replace("/srv/disk1/c", "/srv/disk2/c")
        .replace("name = \"Ana\"", "name = \"Anna\"")
        .replace("tcp:192.0.2.1:5060", "tcp:192.0.2.1:5061")
        .replace("secret\"\n", "secret!\"\n")
        .replace("probe_interval = \"1 min\"", "probe_interval = \"90 s\"")
        .replace("/var/log/encamp/calls.csv", "/srv/calls.csv")
        .replace("1 MiB", "2 MB")
        .replace("+15550000", "+15550009")
        .replace("language = \"sw\"\ntime_zone = \"-03:30\"\nnight = \"21:30-05:00\"\n", "time_zone = \"+05:45\"\n")
        .replace("welcome = \"network\"", "welcome = \"first\"")
        .replace("explain = false", "explain = true")
        .replace("history_life = \"12 h\"", "history_life = \"90 min\"")
        .replace("archive_life = \"30 days\"", "archive_life = \"0 s\"")
        .replace("attempts_per_base_station_max = 4", "attempts_per_base_station_max = 3")
        .replace("number_digits_min = 12", "number_digits_max = 5")
        .replace("number_code = \"100\"\nstatus_code = \"\"", "status_code = \"102\"")
        .replace("/var/log/encamp/texts.csv", "/srv/texts.csv")
        .replace("record_file_max = \"1 MB\"\nrecord_file_count = 2", "record_file_max = 1000\nrecord_file_count = 3")
        .replace("fr = \"Ouvert\"", "fr = \"Ferm\u{e9}\"")
        .replace("hawezi", "hataki")
        .replace("numbers = [\"110\", \"112\"]\ntrunk = \"gateway\"", "trunk = \"pbx\"");
    let (old, new) = (settings(SAMPLE), settings(&changed));
    let told: Vec<String> = diff(&old, &new)
        .into_iter()
        .map(|change| format!("{}{}", change.what, if change.needs_restart { " [restart]" } else { "" }))
        .collect();
    let line = new.subscribers.get(&Imsi::parse("001010000000001").unwrap()).unwrap().line;
    let ana = format!("subscriber …0001 (encamp.toml:{line}) changed");
    assert_eq!(
        told,
        [
            "`front.listen`: udp:192.0.2.1:5060, tcp:192.0.2.1:5060 -> udp:192.0.2.1:5060, tcp:192.0.2.1:5061 [restart]",
            "base station `hill` changed",
            "trunk `pbx` changed",
            "`zone.ttl_s`: 30 -> 5",
            "`shard low: suffixes`: 00-49, 150 -> 00-49 [restart]",
            "`replica c`: /srv/disk1/c, listening on udp:0.0.0.0:5070 as 192.0.2.1 -> /srv/disk2/c, listening on udp:0.0.0.0:5070 as 192.0.2.1 [restart]",
            "`registrar.stale_life`: 129600s -> 172800s",
            "`calls.record_file`: /var/log/encamp/calls.csv -> /srv/calls.csv",
            "`calls.probe_interval`: 1 min -> 90 s",
            "`calls.record_file_max`: 1048576 -> 2000000",
            "`messages.record_file`: /var/log/encamp/texts.csv -> /srv/texts.csv",
            "`messages.language`: sw -> en",
            "`messages.service_centre`: +15550000 -> +15550009",
            "`messages.history_life`: 720 min -> 90 min",
            "`messages.archive_life`: 30 days -> none",
            "`messages.attempts_per_base_station_max`: 4 -> 3",
            "`messages.explain`: false -> true",
            "`messages.number_digits_min`: 12 -> 5",
            "`messages.number_digits_max`: 12 -> 5",
            "`messages.time_zone`: -03:30 -> +05:45",
            "`messages.night`: 21:30-05:00 -> none",
            "`messages.welcome`: network -> first",
            "`messages.record_file_max`: 1000000 -> 1000",
            "`messages.record_file_count`: 2 -> 3",
            "short code `101` added",
            "short code `102` added",
            "short code `300` changed",
            "short code `100` removed",
            "texts `sw` changed",
            "`emergency.numbers`: 112, 911, 110 -> 112, 911",
            "`emergency.trunk`: gateway -> pbx",
            ana.as_str(),
        ]
    );
    assert_eq!(diff(&old, &old), []);
    for (from, to) in [
        ("name = \"Ana\"", "name = \"Anna\""),
        ("barred = true", "barred = false"),
        ("language = \"fr\"", "language = \"sw\""),
        ("msisdn = [\"2003\"]", "msisdn = []"),
        ("algorithm = \"milenage\"\nki = \"00", "algorithm = \"milenage\"\nki = \"ff"),
    ] {
        assert_eq!(SAMPLE.matches(from).count(), 1, "{from}");
        let told: Vec<String> =
            diff(&old, &settings(&SAMPLE.replace(from, to))).into_iter().map(|change| change.what).collect();
        assert!(told.len() == 1 && told[0].starts_with("subscriber …0001 "), "{from}: {told:?}");
    }
    let back: Vec<bool> = diff(&old, &settings("")).iter().map(|change| change.needs_restart).collect();
    assert!(back.contains(&true) && back.contains(&false));
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 2_000, failure_persistence: None, ..ProptestConfig::default() })]

    /// Each place that is named exists.
    #[test]
    fn mutated_text_is_refused_or_read_and_never_panics(
        which in 0usize..3,
        cuts in prop::collection::vec((any::<prop::sample::Index>(), 0usize..12, prop::sample::select(PIECES)), 1..5),
    ) {
        let manual = uncommented(MANUAL);
        let mut text = [SAMPLE, &manual, SHEET][which].to_owned();
        for (at, length, piece) in cuts {
            let near = |wanted: usize, text: &str| (0..=wanted.min(text.len())).rev().find(|at| text.is_char_boundary(*at)).unwrap();
            let from = near(at.index(text.len() + 1), &text);
            let to = near(from + length, &text);
            text.replace_range(from..to, piece);
        }
        let sources = match which {
            0 => sources(&format!("{BASE}{text}"), &[]),
            1 => sources(&text, &[("x.toml", &text)]),
            _ => sources(BASE, &[("x.csv", &text)]),
        };
        if let Err(problems) = read(&sources) {
            prop_assert!(!problems.is_empty());
            for problem in problems {
                let mut parts = problem.place.rsplitn(3, ':');
                let column: usize = parts.next().unwrap().parse().unwrap();
                let line: usize = parts.next().unwrap().parse().unwrap();
                let name = parts.next().unwrap();
                let all = std::iter::once(&sources.main).chain(&sources.subscribers);
                let text = &all.into_iter().find(|source| source.name == name).unwrap().text;
                let found = text.strip_prefix('\u{feff}').unwrap_or(text).split('\n').nth(line - 1).map(|line| line.chars().count());
                prop_assert!(found.is_some_and(|width| column <= width + 1), "{}", problem.place);
                prop_assert!(!problem.what.is_empty());
            }
        }
    }
}

const PIECES: &[&str] = &[
    "",
    "\"",
    "'",
    "\n",
    "[",
    "]",
    "[[",
    "]]",
    "{",
    "}",
    "=",
    ",",
    "#",
    ".",
    "-",
    "é",
    "\u{feff}",
    "\\u",
    "0x",
    "99999999999999999999",
    "[front]\n",
    "[[shard]]\n",
    "\"\"\"",
    "true",
    "1979-05-27",
    "nan",
    "\0",
    "\r",
    "a.b.c = 1\n",
    "00-99",
    "udp:",
    "[::1]:1",
    "-1",
    "sealed:",
];

const SHEET: &str = "imsi,msisdn,algorithm,ki,op,opc,name,barred\n\
    001010000000001,+15550001 2001,comp128v3,00112233445566778899aabbccddeeff,,,\"Ana, Ben\",\n\
    001010000000002,,milenage,00112233445566778899aabbccddeeff,,ffeeddccbbaa99887766554433221100,,true\n";

/// Everything that has an effect, once.
const SAMPLE: &str = r#"
cluster_key = "0123AB0000000000000000000000000000000000000000000000000000000000"
disk_reserve = "1.5 MB"

[front]
listen = ["udp:192.0.2.1:5060", { listen = "tcp:192.0.2.1:5060" }]
base_stations = ["192.0.2.0/28", "2001:db8::/64"]
peers = ["198.51.100.7"]
unlisted = "403"

[[base_station]]
name = "hill"
address = "192.0.2.11:5062"
location_area = "valley"
texts = "yatebts"

[[trunk]]
name = "pbx"
address = "192.0.2.20:5060"
mode = "recurse"
texts = true
prefixes = ["+1", "00"]
username = "encamp"
password = "a \"quoted\" secret"

[[trunk]]
name = "gateway"
address = "192.0.2.21:5060"

[zone]
apex = "Map.Example."
listen = ["udp:127.0.0.1:53"]
allow = ["127.0.0.0/8"]
ttl_s = 30

[[shard]]
name = "low"
suffixes = ["00-49", "150"]
replicas = ["a", "b"]

[[shard]]
name = "high"
suffixes = ["50-99"]
replicas = ["c", "d", "e"]

[[replica]]
name = "c"
path = "/srv/disk1/c"
listen = [{ listen = "udp:0.0.0.0:5070", advertise = "192.0.2.1" }]

[[replica]]
name = "a"
listen = ["udp:0.0.0.0:5071"]

[[replica]]
name = "b"
listen = ["udp:0.0.0.0:5072", "tcp:0.0.0.0:5072"]

[[replica]]
name = "e"
listen = ["udp:[::1]:5073"]

[[replica]]
name = "d"
address = "198.51.100.7:5070"

[registrar]
expires_s_default = 1800
stale_life = "36 h"
write_deadline = "1.5 s"
unknown_cause = { 262 = 11, 26201 = { cause = 3, lock_sim = true }, 310410 = 13 }

[dialplan]
local_prefixes = ["20", "+1555"]

[calls]
ring_group = "12 s"
setup_max = "45 s"
duration_max = "2 h"
probe_interval = "1 min"
count_max = 50
record_file = "/var/log/encamp/calls.csv"
record_file_max = "1 MiB"
record_file_count = 3

[messages]
service_centre = "+15550000"
life_max = "2 days"
count_max = 500
count_per_phone_max = 20
attempts_per_base_station_max = 4
language = "sw"
time_zone = "-03:30"
night = "21:30-05:00"
welcome = "network"
explain = false
history_life = "12 h"
archive_life = "30 days"
number_code = "100"
status_code = ""
number_digits_min = 12
record_file = "/var/log/encamp/texts.csv"
record_file_max = "1 MB"
record_file_count = 2

[[short_code]]
number = "300"
does = "answer"
texts = { fr = "Ouvert", sw = "Wazi" }
senders = ["15550001"]

[[short_code]]
number = "301"
does = "hook"
url = "https://[::1]:8443/sms?a=b"
timeout = "0.5 s"

[[short_code]]
number = "302"
does = "group"
members = ["2001", "2003", "2001"]

[[short_code]]
number = "303"
does = "broadcast"
senders = ["2003"]

[[short_code]]
number = "304"
does = "own_number"

[[texts]]
language = "sw"
barred = "{number} hawezi kupata ujumbe."

[emergency]
numbers = ["110", "112"]
trunk = "gateway"

[[subscriber]]
imsi = "IMSI001010000000001"
msisdn = ["+15550001", "2001"]
name = "Ana"
barred = true
language = "fr"
[subscriber.auth]
algorithm = "milenage"
ki = "00112233445566778899aabbccddeeff"
op = "ffeeddccbbaa99887766554433221100"

[[number]]
imsi = "001010000000001"
msisdn = ["2003"]
"#;

/// Below `BASE`: the first line of each text is line 3.
const MISTAKES: &[(&str, &[&str])] = &[
    ("data_dir = \"/e\"\n", &["3:1 `data_dir` stands twice in the same section (keep one of the two)"]),
    ("control = \n", &["3:11 a value is missing after `=`"]),
    ("control = /run/x\n", &["3:11 a text needs quotes (write it as \"..\")"]),
    ("[front\n", &["3:7 unclosed table, expected `]`"]),
    ("control = \"x\n", &["3:13 invalid basic string, expected `\"`"]),
    (
        "ki = 00112233445566778899aabbccddeeff\n",
        &["3:6 unexpected leading zero (digits that are no quantity stand in quotes: \"001..\")"],
    ),
    (
        "[zone]\nttl_s = 060\n",
        &["4:9 unexpected leading zero (digits that are no quantity stand in quotes: \"001..\")"],
    ),
    ("contrl = \"/x\"\n", &["3:1 unknown key `contrl` (did you mean `control`?)"]),
    ("stale_life = \"3 days\"\n", &["3:1 unknown key `stale_life` (`stale_life` belongs in [registrar])"]),
    (
        "[front]\nlisten = []\nlisen = []\nLISTEN = 1\n",
        &[
            "4:1 the replica `a` of the shard `all` must listen: a front end is elsewhere (encamp.toml:4:1) (write [[replica]] name = \"a\" with listen = [\"udp:0.0.0.0:5070\"])",
            "5:1 unknown key `lisen` (did you mean `listen`?)",
            "6:1 unknown key `LISTEN` (did you mean `listen`?)",
        ],
    ),
    (
        "[front]\ncontrol = \"/x\"\n",
        &["4:1 unknown key `control` (`control` belongs at the top of the file, before the first [section])"],
    ),
    (
        "frobnicate = 1\n",
        &[
            "3:1 unknown key `frobnicate` (the top of the file knows domain, data_dir, control, cluster_key, disk_reserve, front, base_station, trunk, zone, shard, replica, registrar, dialplan, calls, messages, short_code, texts, mail, mail_user, mail_route, pictures, emergency, rehearsal, subscriber, number, admin)",
        ],
    ),
    ("expires-s-min = 1\n", &["3:1 unknown key `expires-s-min` (did you mean `expires_s_min` in [registrar]?)"]),
    ("[registrar]\nstale_life_s = 3\n", &["4:1 unknown key `stale_life_s` (did you mean `stale_life`?)"]),
    ("[fornt]\n", &["3:2 unknown key `fornt` (did you mean `front`?)"]),
    ("[[front]]\n", &["3:1 [front] stands once (write it with single brackets)"]),
    ("[shard]\nname = \"a\"\n", &["3:1 there may be several of `shard` (write [[shard]] with two brackets each side)"]),
    ("front = \"x\"\n", &["3:9 `front` is a set of keys, not a text (write [front] and its keys below)"]),
    ("shard = [1]\n", &["3:10 each `shard` is a set of keys (write [[shard]])"]),
    (
        "[[subscriber]]\nimsi = \"001010000000001\"\nki = \"00\"\n",
        &[
            "3:1 `auth` is missing in [[subscriber]] (write auth = { algorithm = \"comp128v3\", ki = \"<32 hex digits>\" })",
            "5:1 unknown key `ki` (`ki` belongs in auth = { .. })",
        ],
    ),
    ("control = 5\n", &["3:11 `control` is a text, not a number (write control = \"/run/encamp/control.sock\")"]),
    (
        "disk_reserve = true\ncluster_key = []\n",
        &[
            "3:16 `disk_reserve` is a whole number of bytes, or a text with a unit (write disk_reserve = \"64 MB\")",
            "4:15 `cluster_key` is a text, not a list (write cluster_key = \"file:/etc/encamp/cluster.key\")",
        ],
    ),
    (
        "disk_reserve = \"64 XB\"\n",
        &["3:16 \"64 XB\" is no size (write a number and kB, MB, GB, KiB, MiB or GiB: \"64 MB\")"],
    ),
    (
        "disk_reserve = -1\n",
        &["3:16 `disk_reserve` is a whole number of bytes, or a text with a unit (write disk_reserve = \"64 MB\")"],
    ),
    (
        "[front]\nbase_stations = \"192.0.2.0/28\"\npeers = [1]\n",
        &[
            "4:17 `base_stations` is a list, not a text (write base_stations = [\"192.0.2.0/28\"])",
            "5:10 each of `peers` is a text, not a number (write peers = [\"192.0.2.0/28\"])",
        ],
    ),
    (
        "[front]\nlisten = \"udp:0.0.0.0:5060\"\n",
        &["4:10 `listen` is a list, not a text (write listen = [\"udp:0.0.0.0:5060\"])"],
    ),
    (
        "[front]\nlisten = [5060]\n",
        &["4:11 each of `listen` is a text, not a number (write listen = [\"udp:0.0.0.0:5060\"])"],
    ),
    ("[zone]\nttl_s = 0\n", &["4:9 `ttl_s` is a whole number from 1 to 86400"]),
    ("[zone]\nttl_s = \"60\"\n", &["4:9 `ttl_s` is a whole number from 1 to 86400"]),
    ("[registrar]\nclock_trusted = \"yes\"\n", &["4:17 `clock_trusted` is true or false, not a text (without quotes)"]),
    (
        "[registrar]\nstale_life = 30\n",
        &["4:14 `stale_life` is a time with its unit, not a number (write stale_life = \"30 days\")"],
    ),
    (
        "[registrar]\nstale_life = \"30\"\nwrite_deadline = \"2,5 s\"\nread_deadline = \"0 s\"\nreplica_absence_max = \"2 years\"\n",
        &[
            "4:14 \"30\" has no unit (write a number and ms, s, min, h, days or weeks: \"2.5 s\", \"30 days\")",
            "5:18 \"2,5 s\" is no time (write a number and ms, s, min, h, days or weeks: \"2.5 s\", \"30 days\")",
            "6:17 `read_deadline` cannot be \"0 s\" (write something from 10 ms to 1 min)",
            "7:23 \"2 years\" is no time (write a number and ms, s, min, h, days or weeks: \"2.5 s\", \"30 days\")",
        ],
    ),
    (
        "[registrar]\nexpires_s_min = 7200\nexpires_s_max = 3600\n",
        &[
            "4:1 `expires_s_min` (7200) is above `expires_s_max` (3600) (the default of expires_s_min is 60, of expires_s_max 86400)",
        ],
    ),
    (
        "[registrar]\ncontacts_per_aor_max = 0\nhint_count_max = 1.5\n",
        &[
            "4:24 `contacts_per_aor_max` is a whole number from 1 to 100",
            "5:18 `hint_count_max` is a whole number from 1 to 10000000",
        ],
    ),
    (
        "[front]\nlisten = [\"0.0.0.0:5060\", \"udp:5060\", \"udp:0.0.0.0\", \"tls:0.0.0.0:5061\", \"UDP:0.0.0.0:5060\", \"udp:box.example:5060\", \"udp:0.0.0.0:0\", \"5060\", \"http:0.0.0.0:80\"]\n",
        &[
            "4:11 \"0.0.0.0:5060\" does not say udp or tcp (write \"udp:0.0.0.0:5060\" or \"tcp:0.0.0.0:5060\")",
            "4:27 \"udp:5060\" is no address to listen on (write \"udp:0.0.0.0:5060\": an address in digits and a port)",
            "4:39 \"udp:0.0.0.0\" has no port (write \"udp:0.0.0.0:5060\")",
            "4:54 tls is not spoken yet (listen on udp or tcp)",
            "4:74 the transport is written in small letters (write \"udp:0.0.0.0:5060\" or \"tcp:0.0.0.0:5060\")",
            "4:94 \"udp:box.example:5060\" is no address to listen on (write \"udp:0.0.0.0:5060\": an address in digits and a port)",
            "4:118 port 0 would be another port at each start (write \"udp:0.0.0.0:5060\")",
            "4:135 \"5060\" is no address to listen on (write \"udp:0.0.0.0:5060\" or \"tcp:0.0.0.0:5060\")",
            "4:143 \"http:0.0.0.0:80\" does not say udp or tcp (write \"udp:0.0.0.0:5060\" or \"tcp:0.0.0.0:5060\")",
        ],
    ),
    (
        "[front]\nlisten = [\"udp:0.0.0.0:5060\", \"udp:0.0.0.0:5060\"]\n",
        &["4:31 0.0.0.0:5060 is listened on twice (the first is at encamp.toml:4:11)"],
    ),
    (
        "[front]\nlisten = [\"udp:127.0.0.1:53\", \"tcp:127.0.0.1:5060\"]\n",
        &[
            "4:11 127.0.0.1:53 is listened on twice ([zone] listens there by default: write another port, or its `listen`)",
        ],
    ),
    (
        "[front]\nlisten = [{ listen = \"udp:0.0.0.0:5060\", advertise = \"box.example\" }, { listen = \"udp:0.0.0.0:5063\", advertise = \"0.0.0.0\" }, { listen = \"udp:0.0.0.0:5064\", advertise = \"::1\" }, { advertise = \"192.0.2.1\" }, { listen = \"udp:0.0.0.0:5065\", advertize = \"192.0.2.1\" }]\n",
        &[
            "4:54 \"box.example\" is no address in digits (write the address at which others reach this listener, in digits: \"192.0.2.1\")",
            "4:114 nobody can be told the address 0.0.0.0 (write the address at which others reach this listener, in digits: \"192.0.2.1\")",
            "4:170 0.0.0.0:5064 cannot be reached at ::1: one is IPv4, one IPv6 (write the address at which others reach this listener, in digits: \"192.0.2.1\")",
            "4:179 `listen` is missing in listen = [{ .. }] (write listen = \"udp:0.0.0.0:5060\")",
            "4:239 unknown key `advertize` (did you mean `advertise`?)",
        ],
    ),
    ("[front]\nunlisted = 403\n", &["4:12 `unlisted` is a text, not a number (write unlisted = \"silence\")"]),
    ("[front]\nunlisted = \"deny\"\n", &["4:12 `unlisted` cannot be \"deny\" (write \"silence\" or \"403\")"]),
    (
        "[front]\nbase_stations = [\"192.0.2.0/33\", \"hill.example\", \"192.0.2.1:5062\"]\n",
        &[
            "4:18 \"192.0.2.0/33\" is no network: an address or a network looks like 192.0.2.1 or 192.0.2.0/28 (trust is by address, so it stands here in digits and without a port)",
            "4:34 \"hill.example\" is no network: an address or a network looks like 192.0.2.1 or 192.0.2.0/28 (trust is by address, so it stands here in digits and without a port)",
            "4:50 \"192.0.2.1:5062\" is no network: an address or a network looks like 192.0.2.1 or 192.0.2.0/28 (trust is by address, so it stands here in digits and without a port)",
        ],
    ),
    (
        "[[base_station]]\nname = \"hill\"\naddress = \"hill.example:5062\"\n",
        &[
            "5:11 \"hill.example:5062\" is no address in digits (write \"192.0.2.11:5062\": trust is by address, so it stands here in digits)",
        ],
    ),
    (
        "[[base_station]]\nname = \"hill\"\naddress = \"192.0.2.11\"\n",
        &["5:11 \"192.0.2.11\" has no port (write \"192.0.2.11:5062\")"],
    ),
    (
        "[[base_station]]\naddress = \"192.0.2.11:0\"\n",
        &[
            "3:1 `name` is missing in [[base_station]] (write name = \"hill\")",
            "4:11 nobody has port 0 (write \"192.0.2.11:5062\")",
        ],
    ),
    (
        "[[base_station]]\nname = \"\"\naddress = \"0.0.0.0:5062\"\n",
        &[
            "4:8 this name is empty (write one, as in \"hill\")",
            "5:11 nobody has the address 0.0.0.0 (write \"192.0.2.11:5062\")",
        ],
    ),
    (
        "[[base_station]]\nname = \"hill\"\naddress = \"192.0.2.11:5062\"\n[[base_station]]\nname = \"hill\"\naddress = \"192.0.2.12:5062\"\n",
        &["7:8 there is a base station `hill` already (the first is at encamp.toml:4:8)"],
    ),
    (
        "[[base_station]]\nname = \"hill\"\naddress = \"192.0.2.11:5062\"\n[[base_station]]\nname = \"dale\"\naddress = \"192.0.2.11:5064\"\n",
        &["8:11 there is a base station at 192.0.2.11 already (the first is at encamp.toml:5:11)"],
    ),
    (
        "[[base_station]]\nname = \"hill\"\naddress = \"192.0.2.11:5062\"\n[[trunk]]\nname = \"pbx\"\naddress = \"192.0.2.11:5060\"\n",
        &[
            "8:11 192.0.2.11 is the base station `hill` (who speaks is known by the address alone, so a trunk needs one of its own)",
        ],
    ),
    (
        "[[trunk]]\nname = \"pbx\"\naddress = \"192.0.2.20:5060\"\nmode = \"proxy\"\n[[trunk]]\nname = \"pbx\"\naddress = \"192.0.2.20:5070\"\n",
        &[
            "6:8 `mode` cannot be \"proxy\" (write \"redirect\", or \"recurse\" for a peer that cannot follow a 302)",
            "8:8 there is a trunk `pbx` already (the first is at encamp.toml:4:8)",
            "9:11 there is a trunk at 192.0.2.20 already (the first is at encamp.toml:5:11)",
        ],
    ),
    (
        "[zone]\napex = \"gsm_example\"\n",
        &["4:8 \"gsm_example\" is no host name (write a name like gsm.example: letters, digits, hyphens and dots)"],
    ),
    (
        "[zone]\nallow = [\"everybody\"]\n",
        &[
            "4:10 \"everybody\" is no network: an address or a network looks like 192.0.2.1 or 192.0.2.0/28 (trust is by address, so it stands here in digits and without a port)",
        ],
    ),
    (
        "[[shard]]\nname = \"all\"\nsuffixes = [\"00-49\"]\nreplicas = [\"a\"]\n[[shard]]\nname = \"high\"\nsuffixes = [\"50-74\", \"76-98\"]\nreplicas = [\"b\"]\n",
        &["5:1 no shard owns the suffixes 75, 99 (each IMSI must end in the suffix of some shard)"],
    ),
    (
        "[[shard]]\nname = \"all\"\nsuffixes = [\"0-9\", \"56\"]\nreplicas = [\"a\"]\n[[shard]]\nname = \"high\"\nsuffixes = [\"356\", \"56\"]\nreplicas = [\"b\"]\n",
        &["9:20 the suffix 56 has an owner already (the first is at encamp.toml:5:20)"],
    ),
    (
        "[[shard]]\nname = \"all\"\nsuffixes = [\"00-49\", \"40-99\"]\nreplicas = [\"a\"]\n",
        &["5:22 the suffixes 40-49 have an owner already (the first is at encamp.toml:5:13)"],
    ),
    (
        "[[shard]]\nname = \"all\"\nsuffixes = [\"56\"]\nreplicas = [\"a\"]\n",
        &[
            "5:1 no shard owns the suffixes 0-5, 7-9, 06, 16, 26, 36, 46, 66, 76, 86, 96 (each IMSI must end in the suffix of some shard)",
        ],
    ),
    (
        "[[shard]]\nname = \"all\"\nsuffixes = [\"0-99\", \"9-0\", \"a\", \"1-\", \"00000000000-1\", \"0000000-9999999\", \"0-9-9\"]\nreplicas = [\"a\"]\n",
        &[
            "5:13 \"0-99\" has 1 and 2 digits (write digits as in \"56\", or a range with the same number of digits on both sides: \"00-49\")",
            "5:21 \"9-0\" runs backwards (write digits as in \"56\", or a range with the same number of digits on both sides: \"00-49\")",
            "5:28 \"a\" is no suffix: a suffix has 1 to 10 digits (write digits as in \"56\", or a range with the same number of digits on both sides: \"00-49\")",
            "5:33 \"1-\" is no range: a suffix has 1 to 10 digits (write digits as in \"56\", or a range with the same number of digits on both sides: \"00-49\")",
            "5:39 \"00000000000-1\" is no range: a suffix has 1 to 10 digits (write digits as in \"56\", or a range with the same number of digits on both sides: \"00-49\")",
            "5:56 \"0000000-9999999\" is more than 10000 suffixes; shorter ones say the same (write digits as in \"56\", or a range with the same number of digits on both sides: \"00-49\")",
            "5:75 \"0-9-9\" is no range: a suffix has 1 to 10 digits (write digits as in \"56\", or a range with the same number of digits on both sides: \"00-49\")",
        ],
    ),
    (
        "[[shard]]\nsuffixes = [\"0-9\"]\n",
        &[
            "3:1 `name` is missing in [[shard]] (write name = \"low\")",
            "3:1 `replicas` is missing in [[shard]] (write replicas = [\"a\"])",
        ],
    ),
    (
        "[[shard]]\nname = \"all\"\nsuffixes = \"0-9\"\nreplicas = []\n",
        &[
            "5:12 `suffixes` is a list, not a text (write suffixes = [\"00-49\"])",
            "6:1 a shard without replicas keeps nothing (name at least one)",
        ],
    ),
    (
        "[[shard]]\nname = \"all\"\nsuffixes = [\"0-9\"]\nreplicas = [\"a\", \"b\", \"c\", \"d\", \"e\", \"f\", \"g\", \"h\"]\n",
        &["6:1 a shard of 8 replicas (7 are the most; split the shard by longer suffixes instead)"],
    ),
    (
        "[[shard]]\nname = \"all\"\nsuffixes = [\"0-9\"]\nreplicas = [\"a\", \"b\"]\nwrite_quorum = 3\n",
        &["7:16 `write_quorum` is 3, but the shard has 2 replicas (write 1 to 2)"],
    ),
    (
        "[[shard]]\nname = \"all\"\nsuffixes = [\"0-9\"]\nreplicas = [\"a\"]\nwrite_quorum = 0\n",
        &["7:16 `write_quorum` is a whole number from 1 to 65535"],
    ),
    (
        "[[shard]]\nname = \"low\"\nsuffixes = [\"0-4\"]\nreplicas = [\"a\", \"b\"]\n[[shard]]\nname = \"low\"\nsuffixes = [\"5-9\"]\nreplicas = [\"b\", \"c\", \"c\"]\n",
        &[
            "8:8 there is a shard `low` already (the first is at encamp.toml:4:8)",
            "10:13 the replica `b` belongs to another shard already (the first is at encamp.toml:6:18)",
            "10:23 the shard names the replica `c` twice (the first is at encamp.toml:10:18)",
        ],
    ),
    (
        "[[shard]]\nname = \"Low\"\nsuffixes = [\"0-9\"]\nreplicas = [\"A\", \"b_c\"]\n",
        &[
            "4:8 \"Low\" is no name for this (it is a label of the zone: 1 to 63 small letters, digits and hyphens, as in \"low\")",
            "6:13 \"A\" is no name for this (it is a label of the zone: 1 to 63 small letters, digits and hyphens, as in \"low\")",
            "6:18 \"b_c\" is no name for this (it is a label of the zone: 1 to 63 small letters, digits and hyphens, as in \"low\")",
        ],
    ),
    (
        "[[replica]]\nname = \"b\"\n",
        &["4:8 no shard has the replica `b` (name it in the `replicas` of a [[shard]], or remove the table)"],
    ),
    (
        "[[replica]]\nname = \"a\"\n[[replica]]\nname = \"a\"\n",
        &["6:8 there is a replica `a` already (the first is at encamp.toml:4:8)"],
    ),
    (
        "[[replica]]\nname = \"a\"\npath = \"/x\"\naddress = \"192.0.2.9:5070\"\n",
        &[
            "5:1 a replica with an `address` is elsewhere and has no `path` here (write `address` for a replica elsewhere, `path` and `listen` for one of this process)",
            "6:11 a replica elsewhere needs a `cluster_key`: nodes sign what they tell each other (write cluster_key = \"file:/etc/encamp/cluster.key\" at the top, with 64 hex digits in that file)",
        ],
    ),
    ("[[replica]]\nname = \"a\"\npath = \"\"\n", &["5:1 `path` is empty (leave it out for the default)"]),
    (
        "[[replica]]\nname = \"a\"\naddress = \"192.0.2.9\"\n",
        &["5:11 \"192.0.2.9\" has no port (write \"192.0.2.9:5070\")"],
    ),
    (
        "[[replica]]\nname = \"a\"\npath = \"/x\"\n[[replica]]\nname = \"b\"\npath = \"/x\"\n[[shard]]\nname = \"all\"\nsuffixes = [\"0-9\"]\nreplicas = [\"a\", \"b\"]\n",
        &["7:8 another replica has the path /x already (the first is at encamp.toml:4:8)"],
    ),
    (
        "[[replica]]\nname = \"a\"\naddress = \"192.0.2.9:5070\"\n[[replica]]\nname = \"b\"\naddress = \"192.0.2.9:5070\"\n[[shard]]\nname = \"all\"\nsuffixes = [\"0-9\"]\nreplicas = [\"a\", \"b\"]\n",
        &[
            "5:11 a replica elsewhere needs a `cluster_key`: nodes sign what they tell each other (write cluster_key = \"file:/etc/encamp/cluster.key\" at the top, with 64 hex digits in that file)",
            "8:11 another replica has the address 192.0.2.9:5070 already (the first is at encamp.toml:4:8)",
        ],
    ),
    (
        "[[replica]]\nname = \"a\"\naddress = \"192.0.2.9:5070\"\n[[shard]]\nname = \"all\"\nsuffixes = [\"0-9\"]\nreplicas = [\"a\", \"b\"]\n",
        &[
            "5:11 a replica elsewhere needs a `cluster_key`: nodes sign what they tell each other (write cluster_key = \"file:/etc/encamp/cluster.key\" at the top, with 64 hex digits in that file)",
            "9:18 the replica `b` of the shard `all` must listen: the replica `a` of its shard is elsewhere (write [[replica]] name = \"b\" with listen = [\"udp:0.0.0.0:5070\"])",
        ],
    ),
    (
        "[front]\npeers = [\"198.51.100.7\"]\n",
        &[
            "4:1 the replica `a` of the shard `all` must listen: a front end is elsewhere (encamp.toml:4:1) (write [[replica]] name = \"a\" with listen = [\"udp:0.0.0.0:5070\"])",
        ],
    ),
    (
        "[front]\nlisten = []\n[[replica]]\nname = \"a\"\n",
        &[
            "6:8 the replica `a` of the shard `all` must listen: a front end is elsewhere (encamp.toml:4:1) (write [[replica]] name = \"a\" with listen = [\"udp:0.0.0.0:5070\"])",
        ],
    ),
    (
        "[[replica]]\nname = \"a\"\nlisten = [\"udp:0.0.0.0:5064\"]\n",
        &[
            "5:11 0.0.0.0:5064 is listened on twice ([front] listens there by default: write another port, or its `listen`)",
        ],
    ),
    (
        "[[subscriber]]\nimsi = \"001010000000001\"\nauth = { algorithm = \"none\" }\n[[replica]]\nlisten = []\n",
        &["6:1 `name` is missing in [[replica]] (write name = \"a\")"],
    ),
    (
        "[registrar]\nunknown_cause = { 26201 = 3, 26202 = { cause = 2 }, 26203 = { cause = 6, lock_sim = false } }\n",
        &[
            "4:27 cause 3 locks the SIM of a stranger until he restarts his phone (write 11 or 13, or { cause = 3, lock_sim = true } if that is meant)",
            "4:48 cause 2 locks the SIM of a stranger until he restarts his phone (write 11 or 13, or { cause = 2, lock_sim = true } if that is meant)",
            "4:71 cause 6 locks the SIM of a stranger until he restarts his phone (write 11 or 13, or { cause = 6, lock_sim = true } if that is meant)",
        ],
    ),
    (
        "[registrar]\nunknown_cause = { 2620 = 11, x = 11, 26201 = 200, 26202 = \"11\", 26203 = { lock_sim = true } }\n",
        &[
            "4:19 \"2620\" is no network (write its MCC and MNC as 26201 or 310410, or an MCC alone)",
            "4:30 \"x\" is no network (write its MCC and MNC as 26201 or 310410, or an MCC alone)",
            "4:46 `cause` is a whole number from 1 to 127",
            "4:59 a cause is a whole number, not a text (write unknown_cause = { 26201 = 11 })",
            "4:73 `cause` is missing in unknown_cause (write { cause = 11 })",
        ],
    ),
    (
        "[registrar]\nunknown_cause = 11\n",
        &[
            "4:17 `unknown_cause` is a set of networks with their causes, not a number (write unknown_cause = { 26201 = 11 })",
        ],
    ),
    (
        "[dialplan]\nlocal_prefixes = [\"\", \"+\", \"2 0\"]\n",
        &[
            "4:19 \"\" is no prefix of a number (write 1 to 15 digits, with a leading + where the numbers are international)",
            "4:23 \"+\" is no prefix of a number (write 1 to 15 digits, with a leading + where the numbers are international)",
            "4:28 \"2 0\" is no prefix of a number (write 1 to 15 digits, with a leading + where the numbers are international)",
        ],
    ),
    (
        "[[trunk]]\nname = \"pbx\"\naddress = \"192.0.2.20:5060\"\nprefixes = [\"+\", \"4-4\", \"1234567890123456\"]\n",
        &[
            "6:13 \"+\" is no prefix of a number (write 1 to 15 digits, with a leading + where the numbers are international)",
            "6:18 \"4-4\" is no prefix of a number (write 1 to 15 digits, with a leading + where the numbers are international)",
            "6:25 \"1234567890123456\" is no prefix of a number (write 1 to 15 digits, with a leading + where the numbers are international)",
        ],
    ),
    (
        "[[trunk]]\nname = \"pbx\"\naddress = \"192.0.2.20:5060\"\nprefixes = \"+44\"\nusername = \"encamp\"\n",
        &[
            "6:12 `prefixes` is a list, not a text (write prefixes = [\"+44\"])",
            "7:1 a `username` without a `password` (write both, or neither where the trunk asks for no login)",
        ],
    ),
    (
        "[[trunk]]\nname = \"pbx\"\naddress = \"192.0.2.20:5060\"\nusername = \"a:b\"\npassword = \"\"\n",
        &[
            "6:12 this is no name to log in with (write 1 to 128 characters without quotes, backslashes and colons)",
            "7:12 this is no password (write 1 to 128 characters, none of them a control character)",
        ],
    ),
    (
        "[[trunk]]\nname = \"pbx\"\naddress = \"192.0.2.20:5060\"\npassword = \"file:/etc/encamp/pbx.key\"\n",
        &[
            "6:1 a `password` without a `username` (write both, or neither where the trunk asks for no login)",
            "6:12 a `password` cannot be read from \"file:..\" yet (write the password itself, and keep the file mode 0640)",
        ],
    ),
    (
        "[calls]\nring_group = \"70 s\"\n",
        &[
            "4:1 `ring_group` (70 s) is above `setup_max` (1 min) (the default of ring_group is 15 s, of setup_max 60 s)",
        ],
    ),
    (
        "[calls]\nring_group = \"0.5 s\"\nsetup_max = \"1 h\"\nduration_max = 14400\nprobe_interval = \"10\"\ncount_max = 0\n",
        &[
            "4:14 `ring_group` cannot be \"0.5 s\" (write something from 1 s to 5 min)",
            "5:13 `setup_max` cannot be \"1 h\" (write something from 1 s to 10 min)",
            "6:16 `duration_max` is a time with its unit, not a number (write duration_max = \"4 h\")",
            "7:18 \"10\" has no unit (write a number and ms, s, min, h, days or weeks: \"2.5 s\", \"30 days\")",
            "8:13 `count_max` is a whole number from 1 to 1000000",
        ],
    ),
    (
        "[calls]\nrecord_file = \"\"\nrecord_file_max = 999\nrecord_file_count = 0\n",
        &[
            "4:15 this is no path (write one such as \"/var/lib/encamp\")",
            "5:19 `record_file_max` cannot be 999 bytes (write something from 1 kB to 1000 GB)",
            "6:21 `record_file_count` is a whole number from 1 to 999",
        ],
    ),
    (
        "[calls]\nrecord_file_max = \"16 Mb\"\nrecord_fle = \"x\"\n",
        &[
            "4:19 \"16 Mb\" is no size (write a number and kB, MB, GB, KiB, MiB or GiB: \"64 MB\")",
            "5:1 unknown key `record_fle` (did you mean `record_file`?)",
        ],
    ),
    (
        "[calls]\nrecord_file_max = \"2000 GB\"\n",
        &["4:19 `record_file_max` cannot be 2000000000000 bytes (write something from 1 kB to 1000 GB)"],
    ),
    (
        "[messages]\nservice_centre = \"centre\"\nlife_max = \"2 years\"\ncount_per_phone_max = 200000\n",
        &[
            "4:18 \"centre\" is no number: a number has 2 to 15 digits, with a leading + where it is international (write one that nobody has: \"1000\")",
            "5:12 \"2 years\" is no time (write a number and ms, s, min, h, days or weeks: \"2.5 s\", \"30 days\")",
            "6:1 `count_per_phone_max` (200000) is above `count_max` (100000) (the default of count_per_phone_max is 1000, of count_max 100000)",
        ],
    ),
    (
        "[messages]\nservice_centre = \"+15550001\"\n[[subscriber]]\nimsi = \"001010000000001\"\nauth = { algorithm = \"none\" }\nmsisdn = [\"2001\", \"+15550001\"]\n",
        &[
            "4:18 a subscriber has the number of the `service_centre` (it is given at encamp.toml:8:19: write another one here)",
        ],
    ),
    (
        "[[subscriber]]\nimsi = \"001010000000001\"\nauth = { algorithm = \"none\" }\nmsisdn = [\"1000\"]\n",
        &[
            "6:11 1000 is the number of the message centre, unless it is told another (write service_centre = \"..\" in [messages], or another number here)",
        ],
    ),
    (
        "[messages]\nservice_centre = \"110\"\n[emergency]\nnumbers = [\"110\"]\n",
        &["4:18 110 is an emergency number (write a number that nobody dials)"],
    ),
    (
        "[messages]\nlanguage = \"Swahili\"\ntime_zone = \"+3\"\nnight = \"22:00\"\nwelcome = \"always\"\nexplain = \"no\"\nhistory_life = \"2 s\"\narchive_life = \"2 h\"\nattempts_per_base_station_max = 0\n",
        &[
            "4:12 \"Swahili\" is no language (write two or three small letters, as in ISO 639: \"sw\")",
            "5:13 \"+3\" is no time zone (write how far ahead of UTC it is, from \"-12:00\" to \"+14:00\" in quarters of an hour: \"+03:00\")",
            "6:9 \"22:00\" is no stretch of the day (write when it begins and ends in local time: \"22:00-06:00\"; leave it out for none)",
            "7:11 `welcome` cannot be \"always\" (write \"never\", \"first\", or \"network\" for every change of network as well)",
            "8:11 `explain` is true or false, not a text (without quotes)",
            "9:16 `history_life` cannot be \"2 s\" (write something from 1 min to 441 days)",
            "10:16 `archive_life` cannot be \"2 h\" (write something from 1 day to 441 days, or \"0 s\" to keep nothing)",
            "11:33 `attempts_per_base_station_max` is a whole number from 1 to 1000",
        ],
    ),
    (
        "[messages]\ntime_zone = \"+05:50\"\nnight = \"06:00-06:00\"\nlanguage = \"\"\narchive_life = \"0\"\nhistory_life = \"500 days\"\n",
        &[
            "4:13 \"+05:50\" is no whole quarter of an hour, which is all that a phone can be told (write how far ahead of UTC it is, from \"-12:00\" to \"+14:00\" in quarters of an hour: \"+03:00\")",
            "5:9 \"06:00-06:00\" begins when it ends (write when it begins and ends in local time: \"22:00-06:00\"; leave it out for none)",
            "6:12 \"\" is no language (write two or three small letters, as in ISO 639: \"sw\")",
            "7:16 \"0\" has no unit (write a number and ms, s, min, h, days or weeks: \"2.5 s\", \"30 days\")",
            "8:16 `history_life` cannot be \"500 days\" (write something from 1 min to 441 days)",
        ],
    ),
    (
        "[messages]\ntime_zone = \"+14:15\"\nnight = \"24:00-06:00\"\n",
        &[
            "4:13 \"+14:15\" is nobody's time zone (write how far ahead of UTC it is, from \"-12:00\" to \"+14:00\" in quarters of an hour: \"+03:00\")",
            "5:9 \"24:00-06:00\" is no stretch of the day (write when it begins and ends in local time: \"22:00-06:00\"; leave it out for none)",
        ],
    ),
    (
        "[messages]\ntime_zone = \"-12:15\"\nnight = \"22:60-6:00\"\n",
        &[
            "4:13 \"-12:15\" is nobody's time zone (write how far ahead of UTC it is, from \"-12:00\" to \"+14:00\" in quarters of an hour: \"+03:00\")",
            "5:9 \"22:60-6:00\" is no stretch of the day (write when it begins and ends in local time: \"22:00-06:00\"; leave it out for none)",
        ],
    ),
    (
        "[messages]\nnumber_code = \"1\"\nstatus_code = 411\nnumber_digits_min = 1\nnumber_digits_max = 16\n",
        &[
            "4:15 \"1\" is no number: a number has 2 to 15 digits, with a leading + where it is international (write it as it is dialled: \"2001\", or \"+15550001\" with its country code)",
            "5:15 `status_code` is a text, not a number (write status_code = \"411\")",
            "6:21 `number_digits_min` is a whole number from 2 to 15",
            "7:21 `number_digits_max` is a whole number from 2 to 15",
        ],
    ),
    (
        "[messages]\nnumber_digits_min = 9\nnumber_digits_max = 8\nrecord_file_count = 0\nrecord_file_max = 1\n",
        &[
            "4:1 `number_digits_min` (9) is above `number_digits_max` (8) (the default of number_digits_min is 7, of number_digits_max 10)",
            "6:21 `record_file_count` is a whole number from 1 to 999",
            "7:19 `record_file_max` cannot be 1 bytes (write something from 1 kB to 1000 GB)",
        ],
    ),
    (
        "[messages]\nrecord_file = \"/d/calls.csv\"\n",
        &[
            "4:1 calls and texts cannot be recorded in one file (write another `record_file` in [calls] or in [messages])",
        ],
    ),
    (
        "[calls]\nrecord_file = \"/d/texts.csv\"\n",
        &[
            "4:1 calls and texts cannot be recorded in one file (write another `record_file` in [calls] or in [messages])",
        ],
    ),
    (
        "[calls]\nrecord_file = \"/x\"\n[messages]\nrecord_file = \"/x.2\"\n",
        &[
            "6:1 calls and texts cannot be recorded in one file (write another `record_file` in [calls] or in [messages])",
        ],
    ),
    (
        "[messages]\nnumber_code = \"411\"\n",
        &[
            "4:15 411 is the `status_code`, unless it is told another (write status_code = \"..\" in [messages] (\"\" switches it off), or another number here)",
        ],
    ),
    (
        "[messages]\nservice_centre = \"101\"\n",
        &[
            "4:18 101 is the `number_code`, unless it is told another (write number_code = \"..\" in [messages] (\"\" switches it off), or another number here)",
        ],
    ),
    (
        "[messages]\nservice_centre = \"500\"\nnumber_code = \"500\"\nstatus_code = \"500\"\n",
        &[
            "5:15 500 is the number of the message centre (it is given at encamp.toml:4:18: write another one here)",
            "6:15 there is a short code 500 already (the first is at encamp.toml:5:15)",
            "6:15 500 is the number of the message centre (it is given at encamp.toml:4:18: write another one here)",
        ],
    ),
    (
        "[emergency]\nnumbers = [\"110\", \"101\"]\n",
        &[
            "4:19 101 is the `number_code`, unless it is told another (write number_code = \"..\" in [messages] (\"\" switches it off), or another number here)",
        ],
    ),
    (
        "[[subscriber]]\nimsi = \"001010000000001\"\nauth = { algorithm = \"none\" }\nmsisdn = [\"2001\", \"+411\"]\n",
        &[
            "6:19 411 is the `status_code`, unless it is told another (write status_code = \"..\" in [messages] (\"\" switches it off), or another number here)",
        ],
    ),
    (
        "[messages]\nnumber_code = \"2001\"\n[[subscriber]]\nimsi = \"001010000000001\"\nauth = { algorithm = \"none\" }\nmsisdn = [\"2001\"]\n[[number]]\nimsi = \"001010000000001\"\nmsisdn = [\"300\"]\n[[short_code]]\nnumber = \"300\"\ndoes = \"status\"\n",
        &[
            "4:15 a subscriber has the number 2001 (it is given at encamp.toml:8:11: write another one here)",
            "13:10 a subscriber has the number 300 (it is given at encamp.toml:11:11: write another one here)",
        ],
    ),
    (
        "[[short_code]]\nnumber = \"1000\"\ndoes = \"status\"\n[[short_code]]\nnumber = \"112\"\ndoes = \"own_number\"\n[[short_code]]\nnumber = \"101\"\ndoes = \"own_number\"\n[[short_code]]\nnumber = \"300\"\ndoes = \"own_number\"\n[[short_code]]\nnumber = \"+300\"\ndoes = \"status\"\n",
        &[
            "4:10 1000 is the number of the message centre, unless it is told another (write service_centre = \"..\" in [messages], or another number here)",
            "7:10 112 is an emergency number (write another one)",
            "10:10 101 is the `number_code`, unless it is told another (write number_code = \"..\" in [messages] (\"\" switches it off), or another number here)",
            "16:10 there is a short code +300 already (the first is at encamp.toml:13:10)",
        ],
    ),
    (
        "[[short_code]]\n[[short_code]]\nnumber = \"clinic\"\ndoes = \"anser\"\n[[short_code]]\nnumber = 301\ndoes = \"shell\"\n",
        &[
            "3:1 `number` is missing in [[short_code]] (write number = \"300\")",
            "3:1 `does` is missing in [[short_code]] (write does = \"answer\")",
            "5:10 \"clinic\" is no number: a number has 2 to 15 digits, with a leading + where it is international (write it as it is dialled: \"2001\", or \"+15550001\" with its country code)",
            "6:8 `does` cannot be \"anser\" (did you mean \"answer\"?)",
            "8:10 `number` is a text, not a number (write number = \"300\")",
            "9:8 `does` cannot be \"shell\" (write one of answer, own_number, status, choose_number, hook, group, broadcast)",
        ],
    ),
    (
        "[[short_code]]\nnumber = \"300\"\ndoes = \"answer\"\n[[short_code]]\nnumber = \"301\"\ndoes = \"hook\"\n[[short_code]]\nnumber = \"302\"\ndoes = \"group\"\n[[short_code]]\nnumber = \"303\"\ndoes = \"broadcast\"\n",
        &[
            "3:1 `text` is missing in [[short_code]] (write text = \"..\")",
            "6:1 `url` is missing in [[short_code]] (write url = \"http://127.0.0.1:8000/sms\")",
            "9:1 `members` is missing in [[short_code]] (write members = [\"2001\", \"2002\"])",
            "12:1 `senders` is missing in [[short_code]] (write senders = [\"2001\"])",
        ],
    ),
    (
        "[[short_code]]\nnumber = \"300\"\ndoes = \"status\"\ntext = \"x\"\nurl = \"http://a\"\nmembers = [\"2001\"]\n[[short_code]]\nnumber = \"301\"\ndoes = \"answer\"\ntext = \"x\"\ntimeout = \"3 s\"\n",
        &[
            "6:1 a short code that does \"status\" has no `text` (remove it, or write does = \"answer\")",
            "7:1 a short code that does \"status\" has no `url` (remove it, or write does = \"hook\")",
            "8:1 a short code that does \"status\" has no `members` (remove it, or write does = \"group\")",
            "13:1 a short code that does \"answer\" has no `timeout` (remove it, or write does = \"hook\")",
        ],
    ),
    (
        "[[short_code]]\nnumber = \"300\"\ndoes = \"answer\"\ntext = \" \"\n[[short_code]]\nnumber = \"301\"\ndoes = \"answer\"\ntexts = {}\n[[short_code]]\nnumber = \"302\"\ndoes = \"answer\"\ntexts = { english = \"x\", sw = 5, fr = \"\" }\n[[short_code]]\nnumber = \"303\"\ndoes = \"answer\"\ntexts = \"x\"\n",
        &[
            "6:8 this text is empty (write what is to be said, or leave the key out)",
            "10:1 a short code that has nothing to answer (write text = \"..\")",
            "14:11 \"english\" is no language (write two or three small letters, as in ISO 639: \"sw\")",
            "14:31 each of `texts` is a text, not a number (write texts = { en = \"The clinic is open from 8 to 12.\" })",
            "14:39 this text is empty (write what is to be said, or leave the key out)",
            "18:9 `texts` is a set of languages with their texts, not a text (write texts = { en = \"The clinic is open from 8 to 12.\" })",
        ],
    ),
    (
        "[[short_code]]\nnumber = \"300\"\ndoes = \"hook\"\nurl = \"ftp://a\"\ntimeout = \"2 min\"\n[[short_code]]\nnumber = \"301\"\ndoes = \"hook\"\nurl = \"http://me:hunter2@a/\"\n[[short_code]]\nnumber = \"302\"\ndoes = \"hook\"\nurl = \"http:///sms\"\n[[short_code]]\nnumber = \"303\"\ndoes = \"hook\"\nurl = \"http://a b/\"\n[[short_code]]\nnumber = \"304\"\ndoes = \"hook\"\nurl = \"http://a:0/\"\n[[short_code]]\nnumber = \"305\"\ndoes = \"hook\"\nurl = \"http://[::g]/\"\ntimeout = \"50 ms\"\n",
        &[
            "6:7 this URL does not begin with http:// or https:// (write one such as \"http://127.0.0.1:8000/sms\")",
            "7:11 `timeout` cannot be \"2 min\" (write something from 100 ms to 1 min)",
            "11:7 a user or a password stands in this URL (write one such as \"http://127.0.0.1:8000/sms\")",
            "15:7 this URL has no host, or no port where one should stand (write one such as \"http://127.0.0.1:8000/sms\")",
            "19:7 this is no URL of at most 1000 characters without blanks and `#` (write one such as \"http://127.0.0.1:8000/sms\")",
            "23:7 this URL has no host, or no port where one should stand (write one such as \"http://127.0.0.1:8000/sms\")",
            "27:7 this URL has no host, or no port where one should stand (write one such as \"http://127.0.0.1:8000/sms\")",
            "28:11 `timeout` cannot be \"50 ms\" (write something from 100 ms to 1 min)",
        ],
    ),
    (
        "[[short_code]]\nnumber = \"302\"\ndoes = \"group\"\nmembers = []\n[[short_code]]\nnumber = \"303\"\ndoes = \"broadcast\"\nsenders = [\"x\", 5]\n",
        &[
            "6:1 `members` names nobody (write at least one number)",
            "10:12 \"x\" is no number: a number has 2 to 15 digits, with a leading + where it is international (write it as it is dialled: \"2001\", or \"+15550001\" with its country code)",
            "10:17 each of `senders` is a text, not a number (write senders = [\"2001\"])",
        ],
    ),
    (
        "[[texts]]\nlanguage = \"sw\"\nwelcom = \"Karibu\"\nbarred = \"{nmber} x\"\nown_number = \"{cell}\"\nno_number = \"{code\"\nstatus = \"\"\n[[texts]]\nlanguage = \"sw\"\n[[texts]]\nbarred = 5\n[[texts]]\nlanguage = \"SW\"\n",
        &[
            "5:1 unknown key `welcom` (did you mean `welcome`?)",
            "6:10 `barred` has nothing for {nmber} (did you mean {number}? Here may stand {number})",
            "7:14 `own_number` has nothing for {cell} (here may stand {number}, {name}, {imsi})",
            "8:13 a brace is opened and not closed (write {imsi}, {code})",
            "9:10 this text is empty (write what is to be said, or leave the key out)",
            "11:12 there is a [[texts]] in \"sw\" already (the first is at encamp.toml:4:12)",
            "12:1 `language` is missing in [[texts]] (write language = \"sw\")",
            "13:10 `barred` is a text, not a number (write barred = \"{number} cannot get texts: yours was not sent.\")",
            "15:12 \"SW\" is no language (write two or three small letters, as in ISO 639: \"sw\")",
        ],
    ),
    (
        "[texts]\nlanguage = \"sw\"\n",
        &["3:1 there may be several of `texts` (write [[texts]] with two brackets each side)"],
    ),
    (
        "[[base_station]]\nname = \"hill\"\naddress = \"192.0.2.11:5062\"\ntexts = \"yate\"\n[[base_station]]\nname = \"dale\"\naddress = \"192.0.2.12:5062\"\ntexts = \"sip\"\n[[base_station]]\nname = \"lake\"\naddress = \"192.0.2.13:5062\"\ntexts = true\n",
        &[
            "6:9 `texts` cannot be \"yate\" (write one of openbts, yatebts, ims, plain, or leave it out: it is learned from the phones' REGISTERs)",
            "10:9 `texts` cannot be \"sip\" (write one of openbts, yatebts, ims, plain, or leave it out: it is learned from the phones' REGISTERs)",
            "14:9 `texts` is a text, not true or false (write texts = \"openbts\")",
        ],
    ),
    (
        "[[subscriber]]\nimsi = \"001010000000001\"\nauth = { algorithm = \"none\" }\nlanguage = \"swahili\"\n",
        &["6:12 \"swahili\" is no language (write two or three small letters, as in ISO 639: \"sw\")"],
    ),
    (
        "[[number]]\n[[number]]\nimsi = \"1\"\nmsisdn = [\"x\"]\n[[number]]\nimsi = \"001010000000001\"\nmsisdn = \"2001\"\n",
        &[
            "3:1 `imsi` is missing in [[number]] (write imsi = \"001010000000001\")",
            "3:1 `msisdn` is missing in [[number]] (write msisdn = [\"2001\"])",
            "5:8 \"1\" is no IMSI: an IMSI has 14 or 15 digits, with or without a leading IMSI (a spreadsheet drops leading zeros: give the column the format text)",
            "6:11 \"x\" is no number: a number has 2 to 15 digits, with a leading + where it is international (write it as it is dialled: \"2001\", or \"+15550001\" with its country code)",
            "9:10 `msisdn` is a list, not a text (write msisdn = [\"2001\"])",
        ],
    ),
    (
        "[[number]]\nimsi = \"001010000000001\"\nmsisdn = [\"2001\", \"2002\", \"2002\"]\n[[subscriber]]\nimsi = \"001010000000001\"\nauth = { algorithm = \"none\" }\nmsisdn = [\"2001\"]\n",
        &[
            "5:11 this number is given already (the first is at encamp.toml:9:11)",
            "5:27 this number is given already (the first is at encamp.toml:5:19)",
        ],
    ),
    (
        "[[short_code]]\nnumber = \"300\"\ndoes = \"hook\"\nurl = \"http://a\"\nsenders = 5\nbarred = true\n",
        &[
            "7:11 `senders` is a list, not a number (write senders = [\"2001\"])",
            "8:1 unknown key `barred` (`barred` belongs in [[texts]] or [[subscriber]])",
        ],
    ),
    (
        "[emergency]\nnumbers = [\"+112\", \"sos\", \"1\", \"1 1 0\"]\n",
        &[
            "4:12 \"+112\" is no emergency number (write 2 to 15 digits, as they are dialled: \"110\")",
            "4:20 \"sos\" is no emergency number (`sos` is one without being written)",
            "4:27 \"1\" is no emergency number (write 2 to 15 digits, as they are dialled: \"110\")",
            "4:32 \"1 1 0\" is no emergency number (write 2 to 15 digits, as they are dialled: \"110\")",
        ],
    ),
    ("[emergency]\ntrunk = \"pbx\"\n", &["4:9 there is no trunk \"pbx\" (write a [[trunk]] with this name)"]),
    (
        "[emergency]\ntrunk = \"pxb\"\n[[trunk]]\nname = \"pbx\"\naddress = \"192.0.2.20:5060\"\n",
        &["4:9 there is no trunk \"pxb\" (did you mean \"pbx\"?)"],
    ),
    (
        "[emergency]\ntrunk = \"elsewhere\"\n[[trunk]]\nname = \"pbx\"\naddress = \"192.0.2.20:5060\"\n[[trunk]]\nname = \"gw\"\naddress = \"192.0.2.21:5060\"\n",
        &["4:9 there is no trunk \"elsewhere\" (write one of pbx, gw)"],
    ),
    (
        "[emergency]\ntrunk = \"pbx\"\n[[trunk]]\nname = \"pbx\"\naddress = \"192.0.2.20\"\n",
        &["7:11 \"192.0.2.20\" has no port (write \"192.0.2.20:5060\")"],
    ),
    ("[rehearsal]\ncount = 5\n", &["3:1 `imsi_prefix` is missing in [rehearsal] (write imsi_prefix = \"00101999\")"]),
    (
        "[rehearsal]\nimsi_prefix = \"001\"\n",
        &["4:15 \"001\" is no beginning of an IMSI (write 5 to 14 digits: \"00101999\")"],
    ),
    (
        "[rehearsal]\nimsi_prefix = \"00101999000000\"\ncount = 11\n",
        &[
            "5:1 11 IMSIs do not fit behind \"00101999000000\": there are 10 (write a shorter `imsi_prefix` or a smaller `count`)",
        ],
    ),
    (
        "[[subscriber]]\nauth = { algorithm = \"none\" }\n",
        &["3:1 `imsi` is missing in [[subscriber]] (write imsi = \"001010000000001\")"],
    ),
    (
        "[[subscriber]]\nimsi = \"001010000000001\"\n",
        &[
            "3:1 `auth` is missing in [[subscriber]] (write auth = { algorithm = \"comp128v3\", ki = \"<32 hex digits>\" })",
        ],
    ),
    (
        "[[subscriber]]\nimsi = 1010000000001\nauth = { algorithm = \"none\" }\n",
        &["4:8 `imsi` is a text, not a number (write imsi = \"001010000000001\")"],
    ),
    (
        "[[subscriber]]\nimsi = \"1010000000001\"\nauth = { algorithm = \"none\" }\n",
        &[
            "4:8 \"1010000000001\" is no IMSI: an IMSI has 14 or 15 digits, with or without a leading IMSI (a spreadsheet drops leading zeros: give the column the format text)",
        ],
    ),
    (
        "[[subscriber]]\nimsi = \"1.01E+12\"\nauth = { algorithm = \"none\" }\n",
        &[
            "4:8 \"1.01E+12\" is no IMSI: an IMSI has 14 or 15 digits, with or without a leading IMSI (a spreadsheet has made a quantity of it: give the column the format text)",
        ],
    ),
    (
        "[[subscriber]]\nimsi = \"00101 0000000001\"\nauth = { algorithm = \"none\" }\n",
        &[
            "4:8 \"00101 0000000001\" is no IMSI: an IMSI has 14 or 15 digits, with or without a leading IMSI (write it without blanks)",
        ],
    ),
    (
        "[[subscriber]]\nimsi = \"TMSI0010100000000\"\nauth = { algorithm = \"none\" }\n",
        &[
            "4:8 \"TMSI0010100000000\" is no IMSI: an IMSI has 14 or 15 digits, with or without a leading IMSI (write it as the SIM's papers do: \"001010000000001\")",
        ],
    ),
    (
        "[[subscriber]]\nimsi = \"001010000000001\"\nauth = { algorithm = \"none\" }\n[[subscriber]]\nimsi = \"imsi001010000000001\"\nauth = { algorithm = \"none\" }\n",
        &["7:8 this IMSI is provisioned already (the first is at encamp.toml:4:8)"],
    ),
    (
        "[[subscriber]]\nimsi = \"001010000000001\"\nauth = { algorithm = \"none\" }\nmsisdn = [\"2001\", \"+1 555 0001\", \"2\", \"2001\"]\n",
        &[
            "6:19 \"+1 555 0001\" is no number: a number has 2 to 15 digits, with a leading + where it is international (write \"+15550001\")",
            "6:34 \"2\" is no number: a number has 2 to 15 digits, with a leading + where it is international (write it as it is dialled: \"2001\", or \"+15550001\" with its country code)",
            "6:39 this number is given already (the first is at encamp.toml:6:11)",
        ],
    ),
    (
        "[[subscriber]]\nimsi = \"001010000000001\"\nauth = { algorithm = \"none\" }\nmsisdn = 2001\n",
        &["6:10 `msisdn` is a list, not a number (write msisdn = [\"+15550001\"])"],
    ),
    (
        "[[subscriber]]\nimsi = \"001010000000001\"\nauth = { algorithm = \"none\" }\nname = \"a\\u0007\"\nbarred = 1\n",
        &[
            "6:8 this is no name to show (write at most 80 characters, none of them a control character)",
            "7:10 `barred` is true or false, not a number (without quotes)",
        ],
    ),
    (
        "[[subscriber]]\nimsi = \"001010000000001\"\nauth = { algorithm = \"comp128\", ki = \"00112233445566778899aabbccddeeff\" }\n",
        &["5:22 unknown algorithm \"comp128\" (write comp128v1, comp128v2 or comp128v3, as the SIM has it)"],
    ),
    (
        "[[subscriber]]\nimsi = \"001010000000001\"\nauth = { algorithm = \"comp128v4\", ki = \"00112233445566778899aabbccddeeff\" }\n",
        &["5:22 unknown algorithm \"comp128v4\" (did you mean \"comp128v1\"?)"],
    ),
    (
        "[[subscriber]]\nimsi = \"001010000000001\"\nauth = { algorithm = \"Milenage\", ki = \"00112233445566778899aabbccddeeff\" }\n",
        &["5:22 unknown algorithm \"Milenage\" (did you mean \"milenage\"?)"],
    ),
    (
        "[[subscriber]]\nimsi = \"001010000000001\"\nauth = { algorithm = \"aes\", ki = \"00112233445566778899aabbccddeeff\" }\n",
        &["5:22 unknown algorithm \"aes\" (write one of comp128v1, comp128v2, comp128v3, milenage, xor, none)"],
    ),
    (
        "[[subscriber]]\nimsi = \"001010000000001\"\nauth = { ki = \"00112233445566778899aabbccddeeff\" }\n",
        &["5:8 `algorithm` is missing in auth = { .. } (write algorithm = \"comp128v3\")"],
    ),
    (
        "[[subscriber]]\nimsi = \"001010000000001\"\nauth = { algorithm = \"xor\" }\n",
        &["5:22 \"xor\" needs a `ki` (write ki = \"<32 hex digits>\")"],
    ),
    (
        "[[subscriber]]\nimsi = \"001010000000001\"\nauth = { algorithm = \"xor\", ki = \"0x00112233445566778899aabbccddeeff\" }\n",
        &[
            "5:34 a Ki has 32 hex digits and no prefix; this one begins with 0x (write the 32 hex digits without blanks, dashes or 0x)",
        ],
    ),
    (
        "[[subscriber]]\nimsi = \"001010000000001\"\nauth = { algorithm = \"xor\", ki = \"00 11\" }\n",
        &[
            "5:34 a Ki has 32 hex digits and no blanks; this one has a blank at character 3 (write the 32 hex digits without blanks, dashes or 0x)",
        ],
    ),
    (
        "[[subscriber]]\nimsi = \"001010000000001\"\nauth = { algorithm = \"xor\", ki = \"00112233445566778899aabbccddeeff0\" }\n",
        &["5:34 a Ki has 32 hex digits; this one has 33 (write the 32 hex digits without blanks, dashes or 0x)"],
    ),
    (
        "[[subscriber]]\nimsi = \"001010000000001\"\nauth = { algorithm = \"xor\", ki = \"\" }\n",
        &["5:34 a Ki has 32 hex digits; this one is empty (write the 32 hex digits without blanks, dashes or 0x)"],
    ),
    (
        "[[subscriber]]\nimsi = \"001010000000001\"\nauth = { algorithm = \"xor\", ki = \"00112233445566778899aabbccddeefg\" }\n",
        &[
            "5:34 a Ki has 32 hex digits; character 32 of this one is not one (write the 32 hex digits without blanks, dashes or 0x)",
        ],
    ),
    (
        "[[subscriber]]\nimsi = \"001010000000001\"\nauth = { algorithm = \"xor\", ki = \"sealed:abc\" }\n",
        &["5:34 sealed keys cannot be read yet (write the 32 hex digits, and keep the file mode 0600)"],
    ),
    (
        "[[subscriber]]\nimsi = \"001010000000001\"\nauth = { algorithm = \"none\", ki = \"00112233445566778899aabbccddeeff\" }\n",
        &[
            "5:35 `ki` with the algorithm \"none\": the SIM would be believed unasked (name the SIM's algorithm, or remove the key)",
        ],
    ),
    (
        "[[subscriber]]\nimsi = \"001010000000001\"\nauth = { algorithm = \"milenage\", ki = \"00112233445566778899aabbccddeeff\" }\n",
        &["5:22 \"milenage\" needs an `opc` or an `op` (write opc = \"<32 hex digits>\")"],
    ),
    (
        "[[subscriber]]\nimsi = \"001010000000001\"\nauth = { algorithm = \"milenage\", ki = \"00112233445566778899aabbccddeeff\", op = \"00112233445566778899aabbccddeeff\", opc = \"00112233445566778899aabbccddeeff\" }\n",
        &["5:122 `op` and `opc` together (write the one that the SIM's papers give; OPc is made of OP and Ki)"],
    ),
    (
        "[[subscriber]]\nimsi = \"001010000000001\"\nauth = { algorithm = \"milenage\", ki = \"00112233445566778899aabbccddeeff\", opc = \"12\" }\n",
        &["5:81 an OPc has 32 hex digits; this one has 2 (write the 32 hex digits without blanks, dashes or 0x)"],
    ),
    (
        "[[subscriber]]\nimsi = \"001010000000001\"\nauth = { algorithm = \"milenage\", ki = \"00112233445566778899aabbccddeeff\", op = \"0x12\" }\n",
        &[
            "5:80 an OP has 32 hex digits and no prefix; this one begins with 0x (write the 32 hex digits without blanks, dashes or 0x)",
        ],
    ),
    (
        "[[subscriber]]\nimsi = \"001010000000001\"\nauth = { algorithm = \"comp128v1\", ki = \"00112233445566778899aabbccddeeff\", op = \"00112233445566778899aabbccddeeff\" }\n",
        &["5:81 \"comp128v1\" has no `op` (write algorithm = \"milenage\", or remove `op`)"],
    ),
    (
        "[[subscriber]]\nimsi = \"001010000000001\"\nauth = \"none\"\n",
        &["5:8 `auth` is a set of keys, not a text (write auth = { algorithm = .. })"],
    ),
    (
        "[front]\nlisten = [\"udp:127.0.0.1:5064\"]\n[[replica]]\nname = \"a\"\nlisten = [\"udp:0.0.0.0:5064\"]\n",
        &["7:11 0.0.0.0:5064 is listened on twice (the first is at encamp.toml:4:11)"],
    ),
    (
        "[registrar]\nexpires_s_min = 60\nexpires_s_max = 1800\nexpires_s_default = 3600\n",
        &["6:1 `expires_s_default` (3600) is outside of what is granted (write 60 to 1800)"],
    ),
    (
        "[[subscriber]]\nimsi = \"001010000000001\"\nauth = { algoritm = \"none\" }\n",
        &["5:10 unknown key `algoritm` (did you mean `algorithm`?)"],
    ),
];

const SPREADSHEETS: &[(&str, &[&str])] = &[
    (
        "imsi,algorithm,mail_alias,mail_copy\n001010000000001,none,ana 2001,ana\n",
        &[
            "s.csv:2:22 \"2001\" looks like a number or an IMSI (those are addresses already: write a name with letters)",
            "s.csv:2:31 \"ana\" is no address of mail: there is no @ in it (write one such as \"ana@example.org\")",
        ],
    ),
    (
        "imsi;msisdn;algorithm\n",
        &["s.csv:1:1 unknown column \"imsi;msisdn;algorithm\" (columns are separated by commas)"],
    ),
    (
        "imsi,msisdn,algoritm,foo\n",
        &[
            "s.csv:1:13 unknown column \"algoritm\" (did you mean `algorithm`?)",
            "s.csv:1:22 unknown column \"foo\" (the first line names the columns: imsi,msisdn,algorithm,ki,op,opc,name,barred,language,mail_alias,mail_copy)",
        ],
    ),
    (
        "imsi,msisdn\n001010000000001,2001\n",
        &[
            "s.csv:1:1 there is no column `algorithm` (the first line names the columns: imsi,msisdn,algorithm,ki,op,opc,name,barred,language,mail_alias,mail_copy)",
        ],
    ),
    ("imsi,imsi,algorithm\n", &["s.csv:1:6 the column `imsi` stands twice (the first is at s.csv:1:1)"]),
    (
        "imsi,algorithm\n,none\n001010000000001,\n",
        &[
            "s.csv:2:1 this line has no IMSI (remove the line, or fill in its `imsi`)",
            "s.csv:3:1 this line has no algorithm (write the SIM's algorithm; \"none\" believes the SIM unasked)",
        ],
    ),
    (
        "imsi,msisdn,algorithm,ki\n001010000000001,2001,comp128v1,00112233445566778899aabbccddeeff,x\n",
        &[
            "s.csv:2:65 5 fields, but 4 columns (a text with a comma in it stands in quotes; numbers are separated by blanks)",
        ],
    ),
    (
        "imsi,msisdn,algorithm,ki\n1.01E+12,2001 20x,comp128v1,\"00112233445566778899aabbccddeeff 0\"\n",
        &[
            "s.csv:2:1 \"1.01E+12\" is no IMSI: an IMSI has 14 or 15 digits, with or without a leading IMSI (a spreadsheet has made a quantity of it: give the column the format text)",
            "s.csv:2:10 \"20x\" is no number: a number has 2 to 15 digits, with a leading + where it is international (write it as it is dialled: \"2001\", or \"+15550001\" with its country code)",
            "s.csv:2:29 a Ki has 32 hex digits and no blanks; this one has a blank at character 33 (write the 32 hex digits without blanks, dashes or 0x)",
        ],
    ),
    (
        "# ours\n\nimsi,msisdn,algorithm,ki\n\n# a\n001010000000001,,comp128v9,\n001010000000001,,none,\n",
        &[
            "s.csv:6:18 unknown algorithm \"comp128v9\" (did you mean \"comp128v1\"?)",
            "s.csv:7:1 this IMSI is provisioned already (the first is at s.csv:6:1)",
        ],
    ),
    (
        "imsi,algorithm,barred,name\n001010000000001,none,maybe,\n001010000000002,none,,\"a,b\",c\n",
        &[
            "s.csv:2:22 `barred` cannot be \"maybe\" (write true or false)",
            "s.csv:3:29 5 fields, but 4 columns (a text with a comma in it stands in quotes; numbers are separated by blanks)",
        ],
    ),
    (
        "imsi,algorithm,name\n001010000000001,none,\"a\nb\"\n001010000000003,nome,\n",
        &[
            "s.csv:2:22 this is no name to show (write at most 80 characters, none of them a control character)",
            "s.csv:4:17 unknown algorithm \"nome\" (did you mean \"none\"?)",
        ],
    ),
    (
        "name,imsi,algorithm\n\"é,é\",1,none\n",
        &[
            "s.csv:2:7 \"1\" is no IMSI: an IMSI has 14 or 15 digits, with or without a leading IMSI (a spreadsheet drops leading zeros: give the column the format text)",
        ],
    ),
];
