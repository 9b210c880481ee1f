//! A second opinion on short messages, from two independent programs. A missing one fails the test.
//!
//! - `tshark` (the Debian package of that name, unpacked by tests/peers/fetch.sh) dissects what we write: every type of
//!   TPDU in its RPDU, with headers, segments and reports. It knows no national tables.
//! - `gsmcodecs` (PyPI, fetched by tests/peers/fetch.sh after tests/peers/requirements.txt) decodes every septet in every national
//!   table.
//!
//! Both are looked for below the directory `ENCAMP_PEERS`, or below target/peers.

#![allow(clippy::disallowed_types, clippy::disallowed_methods)] // a test of other programs, with files between them

use std::io::Write;
use std::path::PathBuf;
use std::process::Command as Program;

use encamp::gsm::header::{Concatenation, Ports, Reference};
use encamp::gsm::national::{Language, Languages};
use encamp::gsm::report::{
    Carrier, Command, CommandKind, DeliverReport, Extra, Failure, Status, StatusReport, SubmitReport,
};
use encamp::gsm::rpdu::{Direction, Rpdu};
use encamp::gsm::segment::{self, Cut};
use encamp::gsm::text;
use encamp::gsm::tpdu::{Address, Deliver, Scts, Submit, UserData, Validity};
use rand_chacha::ChaCha8Rng;
use rand_core::{Rng, SeedableRng};

fn peers() -> PathBuf {
    let given = std::env::var_os("ENCAMP_PEERS").map(PathBuf::from);
    given.unwrap_or_else(|| PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("target/peers"))
}

/// One RPDU for tshark, and what it shall say of each field; an empty field is one that is not there.
struct Case {
    octets: Vec<u8>,
    expected: Vec<(&'static str, String)>,
}

const FIELDS: &[&str] = &[
    "gsm_a.rp.msg_type",
    "gsm_sms.tp-mti",
    "gsm_sms.tp-mr",
    "gsm_sms.tp-oa",
    "gsm_sms.tp-da",
    "gsm_sms.tp-ra",
    "gsm_sms.tp-pid",
    "gsm_sms.tp-dcs",
    "gsm_sms.tp-srq",
    "gsm_sms.tp-mms",
    "gsm_sms.tp-fcs",
    "gsm_sms.tp.command_type",
    "gsm_sms.tp.message_number",
    "gsm_sms.tp.command_data_length",
    "gsm_sms.dis_field.st_error",
    "gsm_sms.dis.field_st_reason",
    "gsm_sms.scts.hour",
    "gsm_sms.scts.minutes",
    "gsm_sms.udh.mm.msg_id",
    "gsm_sms.udh.mm.msg_parts",
    "gsm_sms.udh.mm.msg_part",
    "gsm_sms.destination_port",
    "gsm_sms.originator_port",
    "gsm_sms.sms_text",
    "_ws.malformed",
];

fn dissected(cases: &[Case]) -> Vec<Vec<String>> {
    let directory = tempfile::tempdir().unwrap();
    let capture = directory.path().join("sms.pcap");
    // The header of a capture of "user 0" packets, which the preference below hands to the dissector of the relay layer.
    let mut octets = Vec::new();
    for word in [0xA1B2_C3D4_u32, 0x0004_0002, 0, 0, 65_535, 147] {
        octets.extend(word.to_le_bytes());
    }
    for (place, case) in cases.iter().enumerate() {
        let length = case.octets.len() as u32;
        for word in [place as u32, 0, length, length] {
            octets.extend(word.to_le_bytes());
        }
        octets.extend(&case.octets);
    }
    std::fs::write(&capture, octets).unwrap();

    let mut program = Program::new(peers().join("bin/tshark"));
    program.env("LC_ALL", "C.UTF-8").env("HOME", directory.path()).arg("-r").arg(&capture);
    program.args(["-o", r#"uat:user_dlts:"User 0 (DLT=147)","gsm_a_rp","0","","0","""#]);
    // Each segment as it is: not put together with the next.
    program.args(["-o", "gsm_sms.reassemble:FALSE", "-T", "fields", "-E", "separator=/t", "-E", "aggregator=;"]);
    program.args(FIELDS.iter().flat_map(|field| ["-e", field]));
    let output = program.output().unwrap_or_else(|error| {
        panic!("tshark does not start ({error}); `make peers` fetches it from Debian's tshark")
    });
    let said = String::from_utf8(output.stdout).unwrap();
    assert!(output.status.success(), "{}\n{}", said, String::from_utf8_lossy(&output.stderr));
    said.lines().map(|line| line.split('\t').map(str::to_owned).collect()).collect()
}

fn data_to_phone(tpdu: &[u8], expected: Vec<(&'static str, String)>) -> Case {
    let originator = Some(Address::parse("+15550000").unwrap());
    let rpdu = Rpdu::DataToPhone { reference: 7, originator, destination: None, tpdu };
    Case {
        octets: rpdu.encode().unwrap(),
        expected: [vec![("gsm_a.rp.msg_type", "0x01".to_owned())], expected].concat(),
    }
}

fn data_from_phone(tpdu: &[u8], expected: Vec<(&'static str, String)>) -> Case {
    let destination = Some(Address::parse("+15550000").unwrap());
    let rpdu = Rpdu::DataFromPhone { reference: 7, originator: None, destination, tpdu };
    Case {
        octets: rpdu.encode().unwrap(),
        expected: [vec![("gsm_a.rp.msg_type", "0x00".to_owned())], expected].concat(),
    }
}

/// What tshark shall say of a user data; without a header in it where there is none.
fn of_data(data: &UserData) -> Vec<(&'static str, String)> {
    let mut expected = vec![("gsm_sms.tp-dcs", data.coding.0.to_string())];
    expected.push(("gsm_sms.sms_text", text::decode(data).unwrap()));
    let header = data.header().unwrap();
    let (id, parts, part, destination, originator) = (
        "gsm_sms.udh.mm.msg_id",
        "gsm_sms.udh.mm.msg_parts",
        "gsm_sms.udh.mm.msg_part",
        "gsm_sms.destination_port",
        "gsm_sms.originator_port",
    );
    let concatenation = Concatenation::of(header);
    let reference = concatenation.map(|one| match one.reference {
        Reference::Short(reference) => reference.to_string(),
        Reference::Long(reference) => reference.to_string(),
    });
    expected.push((id, reference.unwrap_or_default()));
    expected.push((parts, concatenation.map(|one| one.parts.to_string()).unwrap_or_default()));
    expected.push((part, concatenation.map(|one| one.part.to_string()).unwrap_or_default()));
    let ports = Ports::of(header).map(|ports| match ports {
        Ports::Short { destination, originator } => (destination.to_string(), originator.to_string()),
        Ports::Long { destination, originator } => (destination.to_string(), originator.to_string()),
    });
    let (to, from) = ports.unwrap_or_default();
    expected.extend([(destination, to), (originator, from)]);
    expected
}

fn status_in_words(status: u8) -> [(&'static str, String); 2] {
    let (error, reason) = (status >> 5 & 0b11, status & 0b1_1111);
    [("gsm_sms.dis_field.st_error", error.to_string()), ("gsm_sms.dis.field_st_reason", reason.to_string())]
}

#[test]
fn tshark_reads_what_we_write() {
    let mut rng = ChaCha8Rng::seed_from_u64(23_040);
    let mut cases = Vec::new();
    let texts = ["camp", "", "{€}[~] äöüß", "Привет", "a🏕b", "ΔΦΓΛΩΠΨΣΘΞ", "0123456"];
    let long: String = (0..60).flat_map(|_| ["five chars, €", " & more "]).collect();
    let wide: String = "Привет 🏕 ".repeat(30);
    for round in 0..40_u8 {
        let mut octet = || rng.next_u32() as u8;
        let (reference, protocol, kind, message) = (octet(), octet() & 0x3F, octet() & 3, octet());
        let (hour, minute) = (octet() % 24, octet() % 60);
        // With a country code, which tshark wants to know.
        let digits: String = (0..round % 15).map(|_| char::from(b'0' + octet() % 10)).collect();
        let number = format!("4670{digits}");
        let address = Address::parse(&format!("+{number}")).unwrap();
        let time = Scts::from_unix(1_800_000_000 / 86_400 * 86_400 + u64::from(hour) * 3600 + u64::from(minute) * 60);
        let time_said = |count: usize| {
            [
                ("gsm_sms.scts.hour", vec![hour.to_string(); count].join(";")),
                ("gsm_sms.scts.minutes", vec![minute.to_string(); count].join(";")),
            ]
        };

        // Texts: one message, segments with either reference, with ports or without.
        let said = match round % 10 {
            8 => &long,
            9 => &wide,
            at => texts[usize::from(at) % texts.len()],
        };
        let concatenated = if round % 4 < 2 {
            Reference::Short(octet())
        } else {
            Reference::Long(u16::from_be_bytes([octet(), octet()]))
        };
        // Of the range that is free for anything: tshark would read on in a port that it knows, WAP's for instance.
        let ports = Ports::Long { destination: 16_500, originator: 16_000 + u16::from(octet()) };
        let elements = if round % 3 == 0 { vec![ports.element()] } else { vec![] };
        let cut = Cut { elements, ..Cut::new(concatenated) };
        for data in segment::split(said, &cut).unwrap() {
            let deliver = Deliver {
                more: round % 2 == 0,
                originator: address,
                protocol,
                report_wanted: false,
                reply_path: false,
                timestamp: time,
                data: data.clone(),
            };
            let mut expected = of_data(&data);
            expected.extend(time_said(1));
            expected.extend([("gsm_sms.tp-mti", "0".to_owned()), ("gsm_sms.tp-oa", number.clone())]);
            expected.push(("gsm_sms.tp-pid", protocol.to_string()));
            expected.push(("gsm_sms.tp-mms", u8::from(!deliver.more).to_string()));
            cases.push(data_to_phone(&deliver.encode(), expected));
            let submit = Submit {
                reference,
                destination: address,
                protocol,
                reject_duplicates: false,
                report_wanted: true,
                reply_path: false,
                validity: Some(Validity::Relative(octet())),
                data: data.clone(),
            };
            let mut expected = of_data(&data);
            expected.extend([("gsm_sms.tp-mti", "1".to_owned()), ("gsm_sms.tp-da", number.clone())]);
            expected.push(("gsm_sms.tp-mr", reference.to_string()));
            cases.push(data_from_phone(&submit.encode(), expected));
        }

        // Reports, with and without something extra.
        let data = (round % 2 == 1).then(|| text::encode(texts[usize::from(round) % 4]).unwrap());
        let extra = Extra { protocol: (round % 3 == 1).then_some(protocol), data };
        let of_extra = |extra: &Extra| {
            let mut expected = extra.data.as_ref().map(of_data).unwrap_or_default();
            expected.push(("gsm_sms.tp-pid", extra.protocol.map(|protocol| protocol.to_string()).unwrap_or_default()));
            expected
        };
        let status = match round {
            0..32 => ((round & 3) << 5) + [0, 1, 2, 0, 1, 2, 1, 2][usize::from(round >> 2)],
            _ => 0x40 + (round - 32) + 2,
        };
        let report = StatusReport {
            more: false,
            of_command: round % 5 == 0,
            reference,
            recipient: address,
            timestamp: time,
            discharged: time,
            status: Status(status),
            extra: extra.clone(),
        };
        let mut expected = of_extra(&extra);
        expected.extend(time_said(2));
        expected.extend(status_in_words(status));
        expected.extend([("gsm_sms.tp-mti", "2".to_owned()), ("gsm_sms.tp-ra", number.clone())]);
        expected.extend([("gsm_sms.tp-mr", reference.to_string()), ("gsm_sms.tp-mms", "1".to_owned())]);
        expected.push(("gsm_sms.tp-srq", u8::from(report.of_command).to_string()));
        cases.push(data_to_phone(&report.encode(), expected));

        let command = Command {
            reference,
            report_wanted: true,
            protocol,
            kind: CommandKind(kind),
            message,
            destination: address,
            has_header: false,
            data: vec![0xCA; (round % 7).into()],
        };
        let mut expected = vec![("gsm_sms.tp-mti", "2".to_owned()), ("gsm_sms.tp-da", number.clone())];
        expected.extend([("gsm_sms.tp-mr", reference.to_string()), ("gsm_sms.tp.command_type", kind.to_string())]);
        expected.push(("gsm_sms.tp.message_number", message.to_string()));
        expected.push(("gsm_sms.tp.command_data_length", command.data.len().to_string()));
        cases.push(data_from_phone(&command.encode(), expected));

        for (direction, carrier) in [
            (Direction::FromPhone, Carrier::Ack),
            (Direction::FromPhone, Carrier::Error),
            (Direction::ToPhone, Carrier::Ack),
            (Direction::ToPhone, Carrier::Error),
        ] {
            let failure = match carrier {
                Carrier::Ack => None,
                Carrier::Error => {
                    Some([Failure::MEMORY_EXCEEDED, Failure::DUPLICATE, Failure::UNSPECIFIED][usize::from(round) % 3])
                }
            };
            let mut expected = of_extra(&extra);
            let tpdu = match direction {
                Direction::FromPhone => DeliverReport { failure, extra: extra.clone() }.encode(),
                Direction::ToPhone => {
                    expected.extend(time_said(1));
                    SubmitReport { failure, timestamp: time, extra: extra.clone() }.encode()
                }
            };
            let mti = if direction == Direction::FromPhone { "0" } else { "1" };
            expected.push(("gsm_sms.tp-mti", mti.to_owned()));
            let cause = failure.map(|failure| format!("{:#04x}", failure.0)).unwrap_or_default();
            expected.push(("gsm_sms.tp-fcs", cause));
            let tpdu = Some(&tpdu[..]);
            let rpdu = match carrier {
                Carrier::Ack => Rpdu::Ack { direction, reference, tpdu },
                Carrier::Error => Rpdu::Error { direction, reference, cause: 111, tpdu },
            };
            cases.push(Case { octets: rpdu.encode().unwrap(), expected });
        }
    }

    let said = dissected(&cases);
    assert_eq!(said.len(), cases.len());
    for (case, said) in cases.iter().zip(&said) {
        let of = |name: &str| {
            let place =
                FIELDS.iter().position(|field| *field == name).unwrap_or_else(|| panic!("{name} is not asked for"));
            said[place].as_str()
        };
        let octets = encamp::gsm::rpdu::to_hex(&case.octets);
        for (name, expected) in &case.expected {
            assert_eq!(of(name), expected, "{name} of {octets}");
        }
        assert_eq!(of("_ws.malformed"), "", "{octets}");
    }
    // Written past the test harness, which would swallow it when all is well.
    writeln!(std::io::stdout(), "\npeer tshark: {} comparisons", cases.len()).unwrap();
}

/// Each table on a line: the language, its kind, and 128 code points in hex, zero where it has no character.
const ASK: &str = r#"
from gsmcodecs.charmaps import GSMCHARMAPS
for language in range(1, 14):
    tables = GSMCHARMAPS[language]
    for name in ("locking", "singleShift"):
        table = tables.get(name, {}).get("decode")
        if table is not None:
            print(language, name, *("%x" % (table.get(septet) or 0) for septet in range(128)))
"#;

#[test]
fn gsmcodecs_has_the_same_national_tables() {
    let output = Program::new("python3").args(["-c", ASK]).env("PYTHONPATH", peers().join("python")).output().unwrap();
    assert!(
        output.status.success(),
        "gsmcodecs is missing; `make peers` fetches it\n{}",
        String::from_utf8_lossy(&output.stderr)
    );
    let said = String::from_utf8(output.stdout).unwrap();
    let (mut comparisons, mut tables) = (0, 0);
    for line in said.lines() {
        let mut words = line.split(' ');
        let language = Language::from_identifier(words.next().unwrap().parse().unwrap()).unwrap();
        let is_locking = words.next() == Some("locking");
        let languages = match is_locking {
            true => Languages { locking: Some(language), single: None },
            false => Languages { locking: None, single: Some(language) },
        };
        tables += 1;
        for (septet, word) in (0..128_u8).zip(words) {
            let theirs = char::from_u32(u32::from_str_radix(word, 16).unwrap()).filter(|char| *char != '\0');
            let ours = match is_locking {
                true => text::gsm_text_in([septet], languages),
                false => text::gsm_text_in([0x1B, septet], languages),
            };
            let expected = match theirs {
                // "'" at the comma's place: see the head of src/gsm/national.rs.
                Some('\'') if is_locking && septet == 0x2C => ",".to_owned(),
                Some(char) => char.to_string(),
                None if is_locking => "\u{fffd}".to_owned(),
                // What the table does not have is the character of the default alphabet.
                None => text::gsm_text([septet]),
            };
            assert_eq!(ours, expected, "{septet:#04x} of {line}");
            // And back, where a character has one place.
            if let Some(septets) = text::septets_in(&ours, languages) {
                assert_eq!(text::gsm_text_in(septets, languages), ours);
            }
            comparisons += 1;
        }
    }
    assert_eq!(tables, 13 + 12, "{said}");
    writeln!(std::io::stdout(), "\npeer gsmcodecs: {comparisons} comparisons").unwrap();
}
