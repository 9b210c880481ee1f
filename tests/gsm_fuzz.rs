//! Each decoder of short messages, and of what is kept of them, against a stored corpus and fresh mutations of it, for six seconds: nothing
//! panics, and what was
//! read is written and read again as the same.
//!
//! The corpus is tests/data/gsm: for each decoder a file, a line for each input, in hex. An input that was found to break something
//! goes there. `ENCAMP_FUZZ_S=60` tries for longer, `ENCAMP_FUZZ_SEED=4711` another series; without it the series is always the
//! same, though a slower machine sees less of it.

#![allow(clippy::disallowed_types, clippy::disallowed_methods)] // a test that looks at the clock and reads files

use std::fmt::Debug;
use std::path::Path;
use std::time::{Duration, Instant};

use encamp::gsm::header::{self, Concatenation, Ports, Reference};
use encamp::gsm::national::{Language, Languages};
use encamp::gsm::report::Status;
use encamp::gsm::report::{Carrier, Command, DeliverReport, StatusReport, SubmitReport, TPDU_OCTETS_MAX};
use encamp::gsm::rpdu::{Cause, Rpdu, from_hex, to_hex};
use encamp::gsm::segment::{self, Cut};
use encamp::gsm::text::{self, Coding, OCTETS_MAX};
use encamp::gsm::tpdu::{Address, BadTpdu, Deliver, Submit, UserData};
use encamp::ident::{Imsi, Msisdn};
use encamp::seam::TextOutcome;
use encamp::sms::record::{self, Ended, Fate, Happened, Payload, Recipient, ReportOf, Sender, Text};
use rand_chacha::ChaCha8Rng;
use rand_core::{Rng, SeedableRng};

/// At least so many of the inputs have to be read, in a thousand: mutations that are all refused would prove little.
const READ_PER_MILLE_MIN: u64 = 20;

struct Fuzz {
    corpus: Vec<Vec<u8>>,
    rng: ChaCha8Rng,
}

impl Fuzz {
    fn new(name: &str) -> Fuzz {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data/gsm").join(name);
        let lines = std::fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
        let lines = lines.lines().filter(|line| !line.is_empty() && !line.starts_with('#'));
        let corpus: Vec<Vec<u8>> = lines.map(|line| from_hex(line.as_bytes()).expect(line)).collect();
        assert!(corpus.len() >= 5, "{} has {} inputs", path.display(), corpus.len());
        Fuzz::of(corpus)
    }

    fn of(corpus: Vec<Vec<u8>>) -> Fuzz {
        Fuzz { corpus, rng: ChaCha8Rng::seed_from_u64(from_environment("ENCAMP_FUZZ_SEED", 0x05)) }
    }

    fn below(&mut self, limit: usize) -> usize {
        self.rng.next_u32() as usize % limit.max(1)
    }

    /// One of the corpus with up to six changes.
    fn input(&mut self) -> Vec<u8> {
        let place = self.below(self.corpus.len());
        let mut octets = self.corpus[place].clone();
        for _ in 0..self.below(7) {
            let at = self.below(octets.len() + 1);
            let octet = self.rng.next_u32() as u8;
            match self.below(8) {
                0 if at < octets.len() => octets[at] ^= 1 << (octet % 8),
                1 if at < octets.len() => octets[at] = octet,
                2 if at < octets.len() => octets[at] = octets[at].wrapping_add(1),
                3 if at < octets.len() => octets[at] = [0x00, 0x01, 0x7F, 0x80, 0xFF][usize::from(octet) % 5],
                4 => octets.insert(at, octet),
                5 if at < octets.len() => _ = octets.remove(at),
                6 if octet < 64 => octets.truncate(at),
                7 => {
                    // The end of another one behind the beginning of this.
                    let other = self.below(self.corpus.len());
                    let from = self.below(self.corpus[other].len() + 1);
                    octets.truncate(at);
                    octets.extend(&self.corpus[other][from..]);
                }
                _ => (),
            }
        }
        octets.truncate(400);
        octets
    }

    /// `check` says whether it could read its input.
    fn run(mut self, check: impl Fn(&[u8]) -> bool) {
        for input in &self.corpus {
            check(input);
        }
        let until = Instant::now() + Duration::from_secs(from_environment("ENCAMP_FUZZ_S", 6));
        let (mut tried, mut read) = (0_u64, 0_u64);
        while Instant::now() < until {
            for _ in 0..64 {
                let input = self.input();
                let outcome = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| check(&input)));
                let Ok(was_read) = outcome else { panic!("breaks after {tried}: {}", to_hex(&input)) };
                tried += 1;
                read += u64::from(was_read);
            }
        }
        println!("{tried} inputs, {read} of them read");
        assert!(1000 * read >= READ_PER_MILLE_MIN * tried, "only {read} of {tried} were read");
    }
}

fn from_environment(name: &str, otherwise: u64) -> u64 {
    std::env::var(name).map_or(otherwise, |value| value.parse().expect(name))
}

/// What was read is written, and read again as the same; the octets behind it do not matter.
fn again<T: Debug + PartialEq>(
    octets: &[u8],
    decode: impl Fn(&[u8]) -> Result<(T, usize), BadTpdu>,
    encode: impl Fn(&T) -> Vec<u8>,
) -> Option<T> {
    match decode(octets) {
        Ok((read, trailing)) => {
            assert!(trailing < octets.len());
            assert!(octets.len() - trailing <= TPDU_OCTETS_MAX);
            // A TP-DCS that stands for nothing is written out where there is user data: one octet more at most.
            let written = encode(&read);
            assert!(written.len() <= octets.len() - trailing + 1);
            if written.len() <= TPDU_OCTETS_MAX {
                assert_eq!(decode(&written).as_ref().map(|(again, trailing)| (again, *trailing)), Ok((&read, 0)));
            }
            let _ = format!("{read:?}");
            Some(read)
        }
        Err(bad) => {
            assert!(!bad.words().is_empty());
            None
        }
    }
}

fn read_data(data: &UserData) {
    let header = data.header().unwrap_or_default();
    let _ = (Concatenation::of(header), Ports::of(header), data.coding.class(), format!("{data:?}"));
    if let Ok(said) = text::decode(data) {
        assert_eq!(segment::whole_text(&[data]).as_ref(), Ok(&said));
        let cut = Cut { languages: Languages::of(header), ..Cut::new(Reference::Short(1)) };
        let again = segment::split(&said, &cut).expect("no longer than a message");
        let parts: Vec<&UserData> = again.iter().collect();
        assert_eq!(segment::whole_text(&parts), Ok(said));
    }
    let _ = segment::in_order(&[data, data]);
}

fn read_address(address: &Address) {
    let _ = (address.number(), format!("{address:?}"));
}

#[test]
fn rpdu() {
    Fuzz::new("rpdu").run(|octets| {
        let Ok((rpdu, trailing)) = Rpdu::decode(octets) else { return false };
        assert!(trailing < octets.len());
        let written = rpdu.encode().expect("no longer than it was");
        assert_eq!(Rpdu::decode(&written), Ok((rpdu, 0)));
        if let Rpdu::Error { cause, .. } = rpdu {
            let _ = (Cause(cause).of_network(), Cause(cause).of_phone(), Cause(cause).words());
        }
        let _ = format!("{rpdu:?}");
        true
    });
}

#[test]
fn submit() {
    Fuzz::new("submit").run(|octets| {
        let Some(submit) = again(octets, Submit::decode, Submit::encode) else { return false };
        let _ = submit.validity.map(|validity| (validity.ends_at_s(u64::MAX), validity.is_single_shot()));
        read_address(&submit.destination);
        read_data(&submit.data);
        true
    });
}

#[test]
fn deliver() {
    Fuzz::new("deliver").run(|octets| {
        let Some(deliver) = again(octets, Deliver::decode, Deliver::encode) else { return false };
        let _ = (deliver.timestamp.unix_s(), deliver.timestamp.offset_quarters());
        read_address(&deliver.originator);
        read_data(&deliver.data);
        true
    });
}

#[test]
fn status_report() {
    Fuzz::new("status_report").run(|octets| {
        let Some(report) = again(octets, StatusReport::decode, StatusReport::encode) else { return false };
        let _ = (report.status.outcome(), report.status.words(), report.discharged.unix_s());
        read_address(&report.recipient);
        report.extra.data.iter().for_each(read_data);
        true
    });
}

#[test]
fn command() {
    Fuzz::new("command").run(|octets| {
        let Some(command) = again(octets, Command::decode, Command::encode) else { return false };
        read_address(&command.destination);
        true
    });
}

#[test]
fn answers() {
    Fuzz::new("answers").run(|octets| {
        let mut was_read = false;
        for carrier in [Carrier::Ack, Carrier::Error] {
            if let Some(report) = again(octets, |octets| SubmitReport::decode(octets, carrier), SubmitReport::encode) {
                assert_eq!(report.failure.is_some(), carrier == Carrier::Error);
                report.extra.data.iter().for_each(read_data);
                was_read = true;
            }
            if let Some(report) = again(octets, |octets| DeliverReport::decode(octets, carrier), DeliverReport::encode)
            {
                let _ = report.failure.map(|failure| (failure.is_memory_full(), failure.words()));
                report.extra.data.iter().for_each(read_data);
                was_read = true;
            }
        }
        was_read
    });
}

#[test]
fn headers() {
    Fuzz::new("header").run(|octets| {
        let elements = header::elements(octets);
        let _ = (Concatenation::of(octets), Ports::of(octets), Languages::of(octets));
        if !elements.is_empty() && octets.len() <= OCTETS_MAX {
            assert_eq!(header::write(&elements).as_deref(), Some(octets));
        }
        !elements.is_empty()
    });
}

/// The first three octets are TP-DCS with TP-UDHI in the second, and TP-UDL; what follows is user data, as long as it may be.
#[test]
fn user_data() {
    Fuzz::new("user_data").run(|octets| {
        let [coding, flags, length, bytes @ ..] = octets else { return false };
        let data =
            UserData { coding: Coding(*coding), has_header: flags & 1 != 0, length: *length, bytes: bytes.to_vec() };
        read_data(&data);
        text::decode(&data).is_ok()
    });
}

/// The first two octets are the languages, the rest septets.
#[test]
fn septets() {
    Fuzz::new("septets").run(|octets| {
        let [locking, single, septets @ ..] = octets else { return false };
        let languages =
            Languages { locking: Language::from_identifier(*locking), single: Language::from_identifier(*single) };
        let said = text::gsm_text_in(septets.iter().copied(), languages);
        assert!(said.chars().count() <= septets.len());
        if let Some(written) = text::septets_in(&said, languages) {
            assert_eq!(text::gsm_text_in(written, languages), said);
        }
        let unpacked: Vec<u8> = text::unpack(septets, usize::from(*locking) % 7, 8 * septets.len() / 7).collect();
        let packed = text::pack(&unpacked, usize::from(*locking) % 7);
        assert_eq!(text::unpack(&packed, usize::from(*locking) % 7, unpacked.len()).collect::<Vec<_>>(), unpacked);
        !said.is_empty()
    });
}

/// What the message centre keeps: a disk may hold anything.
#[test]
fn records() {
    let phone = Imsi::parse("001010000000001").unwrap();
    let number = Msisdn::parse("+15550001").unwrap();
    let data = text::encode("Hello").unwrap();
    let steps = [
        Happened::Failed(record::Cause::Absent, "192.0.2.11:5062".parse().ok()),
        Happened::Failed(record::Cause::Refused { code: 400, cause: 22 }, "[2001:db8::1]:5060".parse().ok()),
        Happened::Returned,
        Happened::Forgotten(3),
    ];
    let report = ReportOf {
        reference: 7,
        by_command: true,
        dialled: "2002".into(),
        accepted_s: 1,
        ended_s: 2,
        status: Status::RECEIVED,
    };
    let mut corpus = Vec::new();
    for recipient in [Recipient::Phone(phone), Recipient::Code(number, phone), Recipient::Trunk(number)] {
        for payload in [Payload::Text(data.clone()), Payload::Report(report.clone())] {
            for sender in [Sender::Centre, Sender::Phone(phone), Sender::Trunk("pbx".into())] {
                let mut text = Text::new(recipient, sender, "2001".into(), payload.clone());
                text.came_from = "192.0.2.11:5062".parse().ok();
                steps.iter().for_each(|step| text.happened(5, step.clone()));
                corpus.push(record::encode(&text));
                corpus.push(record::encode_fate(&Fate::Ended(Box::new(Ended {
                    text,
                    has_words: true,
                    at_ms: 9,
                    outcome: TextOutcome::Expired,
                    code: 480,
                    cause: 27,
                    status: Status::VALIDITY_EXPIRED,
                    taken_by: None,
                    why: "its time was over".into(),
                }))));
            }
        }
        corpus.push(record::encode_fate(&Fate::Waits(recipient)));
    }
    Fuzz::of(corpus).run(|octets| {
        let text = record::decode(Recipient::Phone(phone), 7, octets).ok();
        if let Some(text) = &text {
            let again = record::decode(Recipient::Phone(phone), 7, &record::encode(text));
            assert_eq!(again.as_ref(), Ok(text));
        }
        let fate = record::decode_fate(7, octets);
        if let Some(fate) = &fate {
            assert_eq!(record::decode_fate(7, &record::encode_fate(fate)).as_ref(), Some(fate));
        }
        let _ = (record::read_text_key(octets), record::decode_old(octets), record::read_old_key(octets));
        let _ = (record::decode_seen(octets), record::decode_last(octets), record::decode_number(octets));
        text.is_some() || fate.is_some()
    });
}
