//! Short messages: the octets of known ones, the tables of the standards, and what holds for any octets at all.
//!
//! | vectors | from |
//! |---|---|
//! | [`OPENBTS_SUBMIT`] | a MESSAGE of OpenBTS 5.0 |
//! | [`SMQUEUE_DELIVER`] | a MESSAGE of smqueue, which OpenBTS took |
//! | the DELIVER and SUBMIT "hellohello" | L. Pettersson's "SMS and the PDU format", which every second implementation tests against |
//! | "message", "Selamat Datang!" | examples of modems' manuals, passed around for exercise |

use encamp::gsm::rpdu::{BadRpdu, Direction, Rpdu, from_hex, to_hex};
use encamp::gsm::text::{
    self, Alphabet, Class, Coding, NoText, OCTETS_MAX, SEPTETS_MAX, TooLong, UCS2_UNITS_MAX, UserData,
};
use encamp::gsm::tpdu::{Address, BadAddress, BadTpdu, Deliver, Scts, Submit, Validity};
use encamp::ident::Msisdn;
use proptest::prelude::*;

const OPENBTS_SUBMIT: &str = "002a000381000012012a0481121000000ac8329bfd06cdcb6c33";
const SMQUEUE_DELIVER: &str = "01A203A1000000170404A1121000006211122100010009C8329BFD0609DF62";

fn hex(text: &str) -> Vec<u8> {
    from_hex(text.as_bytes()).expect("hex")
}

fn submit(text: &str) -> Submit {
    let (submit, trailing) = Submit::decode(&hex(text)).expect(text);
    assert_eq!(trailing, 0, "{text}");
    assert_eq!(to_hex(&submit.encode()), text.to_lowercase());
    submit
}

fn deliver(text: &str) -> Deliver {
    let (deliver, trailing) = Deliver::decode(&hex(text)).expect(text);
    assert_eq!(trailing, 0, "{text}");
    assert_eq!(to_hex(&deliver.encode()), text.to_lowercase());
    deliver
}

/// Seconds since 1970, counted day by day: slow and plain.
fn unix(year: u64, month: u64, day: u64, hour: u64, minute: u64, second: u64) -> u64 {
    let is_leap = |year: u64| year.is_multiple_of(4) && !year.is_multiple_of(100) || year.is_multiple_of(400);
    let months = |year| [31, if is_leap(year) { 29 } else { 28 }, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31];
    let years: u64 = (1970..year).map(|year| if is_leap(year) { 366 } else { 365 }).sum();
    let days = years + months(year)[..month as usize - 1].iter().sum::<u64>() + day - 1;
    ((days * 24 + hour) * 60 + minute) * 60 + second
}

// The relay layer.

#[test]
fn an_rp_data_of_openbts_is_read_to_the_last_octet() {
    let octets = hex(OPENBTS_SUBMIT);
    let (rpdu, trailing) = Rpdu::decode(&octets).unwrap();
    let Rpdu::DataFromPhone { reference: 0x2A, originator: None, destination: Some(centre), tpdu } = rpdu else {
        panic!("{rpdu:?}")
    };
    assert_eq!((trailing, centre.number().as_str(), centre.type_of_address()), (0, "0000", 0x81));
    assert_eq!(to_hex(&rpdu.encode().unwrap()), OPENBTS_SUBMIT);

    let (submit, trailing) = Submit::decode(tpdu).unwrap();
    let expected = Submit {
        reference: 0x2A,
        destination: Address::parse("2101").unwrap(),
        protocol: 0,
        reject_duplicates: false,
        report_wanted: false,
        reply_path: false,
        validity: None,
        data: text::encode("Hello self").unwrap(),
    };
    assert_eq!((submit.clone(), trailing), (expected, 0));
    assert_eq!(text::decode(&submit.data).unwrap(), "Hello self");
    assert_eq!(submit.encode(), tpdu);
}

#[test]
fn an_rp_data_that_openbts_takes_is_written_to_the_last_octet() {
    let deliver = Deliver {
        more: false,
        originator: Address::new(0xA1, "2101").unwrap(),
        protocol: 0,
        report_wanted: false,
        reply_path: false,
        timestamp: Scts::from_unix(unix(2026, 11, 21, 12, 0, 10)),
        data: text::encode("Hello Bob").unwrap(),
    };
    let tpdu = deliver.encode();
    let originator = Some(Address::new(0xA1, "0000").unwrap());
    let rpdu = Rpdu::DataToPhone { reference: 0xA2, originator, destination: None, tpdu: &tpdu };
    let octets = rpdu.encode().unwrap();
    assert_eq!(to_hex(&octets), SMQUEUE_DELIVER.to_lowercase());
    assert_eq!(Rpdu::decode(&octets), Ok((rpdu, 0)));
    assert_eq!(Deliver::decode(&tpdu), Ok((deliver, 0)));
}

/// TS 24.011 §7.3.2 to §7.3.4.
#[test]
fn answers_and_smma_are_read_and_written() {
    use Direction::{FromPhone, ToPhone};
    let check = |text: &str, expected: Rpdu<'_>| {
        assert_eq!(Rpdu::decode(&hex(text)), Ok((expected, 0)), "{text}");
        assert_eq!(to_hex(&expected.encode().unwrap()), text);
    };
    check("02a2", Rpdu::Ack { direction: FromPhone, reference: 0xA2, tpdu: None });
    check("032a", Rpdu::Ack { direction: ToPhone, reference: 0x2A, tpdu: None });
    check("02a241020000", Rpdu::Ack { direction: FromPhone, reference: 0xA2, tpdu: Some(&[0, 0]) });
    check("04a20116", Rpdu::Error { direction: FromPhone, reference: 0xA2, cause: 22, tpdu: None });
    check("052a017f", Rpdu::Error { direction: ToPhone, reference: 0x2A, cause: 127, tpdu: None });
    check("04a201164100", Rpdu::Error { direction: FromPhone, reference: 0xA2, cause: 22, tpdu: Some(&[]) });
    check("0607", Rpdu::Smma { reference: 7 });

    // With a diagnostic, an extension bit, and spare bits that are not zero.
    let (rpdu, trailing) = Rpdu::decode(&[0xF4, 0xA2, 2, 0x96, 0xD0]).unwrap();
    assert_eq!(rpdu, Rpdu::Error { direction: FromPhone, reference: 0xA2, cause: 22, tpdu: None });
    assert_eq!((trailing, rpdu.reference()), (0, 0xA2));
    // An element that we do not know is behind the RPDU.
    assert_eq!(Rpdu::decode(&[2, 1, 0x42, 1, 9]).unwrap().1, 3);
}

#[test]
fn what_is_no_rpdu_is_told_why() {
    let check = |text: &str, expected: BadRpdu| {
        assert_eq!(Rpdu::decode(&hex(text)), Err(expected), "{text}");
    };
    check("", BadRpdu::Short);
    check("00", BadRpdu::Short);
    check("002a", BadRpdu::Short);
    check("002a0003810000", BadRpdu::Short);
    check("002a000381000002ff", BadRpdu::Short);
    check("002a00ff810000", BadRpdu::Short);
    check("04a2", BadRpdu::Short);
    check("04a200", BadRpdu::Short);
    check("02a24105", BadRpdu::Short);
    check("072a", BadRpdu::Type);
    // 22 digits; an end mark between digits.
    check("002a000c81000000000000000000000000", BadRpdu::Address);
    check("002a000381f00000", BadRpdu::Address);

    let octets = [0; 256];
    let rpdu = |tpdu| Rpdu::DataToPhone { reference: 0, originator: None, destination: None, tpdu };
    assert_eq!(rpdu(&octets).encode(), Err(BadRpdu::Long));
    assert_eq!(rpdu(&octets[1..]).encode().map(|octets| octets.len()), Ok(260));
    assert_eq!(BadRpdu::Long.to_string(), "an RPDU with more than 255 octets of user data");
}

#[test]
fn hex_is_read_in_either_case_and_white_space_around_it_does_not_matter() {
    assert_eq!(from_hex(b"00aF"), Ok(vec![0x00, 0xAF]));
    assert_eq!(from_hex(b" \r\n\t00Af\r\n"), Ok(vec![0x00, 0xAF]));
    assert_eq!(from_hex(b" "), Ok(vec![]));
    for text in ["0g", "g0", "0 0", "+1", "0x00", "00é"] {
        assert_eq!(from_hex(text.as_bytes()), Err(BadRpdu::NotHex), "{text}");
    }
    assert_eq!(from_hex(b"012"), Err(BadRpdu::OddHex));
    assert_eq!(from_hex(b"01z"), Err(BadRpdu::NotHex));
    assert_eq!(to_hex(&[0x0A, 0xF0]), "0af0");
}

/// What is logged tells of no text, and the end of a number at most.
#[test]
fn debug_shows_neither_text_nor_numbers() {
    let octets = hex(OPENBTS_SUBMIT);
    let (rpdu, _) = Rpdu::decode(&octets).unwrap();
    assert_eq!(format!("{rpdu:?}"), "Data(FromPhone 42, None to Some(Address(0x81 …0000)), 18 octets)");
    assert_eq!(format!("{:?}", Address::parse("+15550001").unwrap()), "Address(0x91 …0001)");
    assert_eq!(format!("{:?}", text::encode("hi").unwrap()), "UserData(coding 0x00, length 2, …)");
}

// The transport layer.

#[test]
fn the_public_examples_are_read_and_written() {
    let check = |text: &str, number: &str, timestamp: u64, quarters: i8, said: &str| {
        let deliver = deliver(text);
        assert_eq!(deliver.originator.number(), number);
        assert_eq!(deliver.timestamp.unix_s(), Some(timestamp), "{said}");
        assert_eq!(deliver.timestamp, Scts::new(timestamp, quarters));
        assert_eq!(text::decode(&deliver.data).unwrap(), said);
        assert_eq!(text::encode(said).unwrap(), deliver.data);
        assert!(!deliver.more && !deliver.report_wanted && !deliver.reply_path);
    };
    let hello = "040BC87238880900F10000993092516195800AE8329BFD4697D9EC37";
    check(hello, "27838890001", unix(1999, 3, 29, 13, 16, 59), 8, "hellohello");
    // Time and user data are those of the examples; the number before them is ours.
    let message = "040481121000002080629173148007EDF27C1E3E9701";
    check(message, "2101", unix(2002, 8, 26, 17, 37, 41), 8, "message");
    let selamat = "04048112100000317050201171820FD3323BDC0ED341C4303DEC3E8700";
    check(selamat, "2101", unix(2013, 7, 4, 19, 11, 17), 28, "Selamat Datang!");

    let hello = submit("11000B916407281553F80000AA0AE8329BFD4697D9EC37");
    assert_eq!(hello.destination.number(), "+46708251358");
    assert_eq!(hello.validity, Some(Validity::Relative(0xAA)));
    assert_eq!(hello.validity.unwrap().ends_at_s(1_000_000), Some(1_000_000 + 4 * 86_400));
    assert_eq!(text::decode(&hello.data).unwrap(), "hellohello");
}

/// TS 23.040 §9.2.2.1 and §9.2.2.2: the bits of the first octet.
#[test]
fn each_flag_has_its_bit() {
    let of_submit = |first: u8| submit(&format!("{first:02x}000481121000000161"));
    assert!(of_submit(0b0000_0101).reject_duplicates);
    assert!(of_submit(0b0010_0001).report_wanted);
    assert!(of_submit(0b1000_0001).reply_path);
    let plain = of_submit(0b0000_0001);
    assert!(!plain.reject_duplicates && !plain.report_wanted && !plain.reply_path && !plain.data.has_header);
    assert_eq!(plain.validity, None);

    let of_deliver = |first: u8| deliver(&format!("{first:02x}04811210000062111221000100020161"));
    assert!(of_deliver(0b0000_0000).more);
    assert!(!of_deliver(0b0000_0100).more);
    assert!(of_deliver(0b0010_0000).report_wanted);
    assert!(of_deliver(0b1000_0000).reply_path);
    assert!(of_deliver(0b0100_0000).data.has_header);
}

/// OpenBTS passes on what phones do: the repeat has another RP-MR (not in the TPDU), the same TP-MR, and TP-RD set.
#[test]
fn a_repeat_of_the_phone_has_the_key_of_the_first_time() {
    let first = submit("012a0481121000000ac8329bfd06cdcb6c33");
    let repeat = submit("052a0481121000000ac8329bfd06cdcb6c33");
    assert_ne!(first, repeat);
    assert_eq!(first.repeat_key_bytes(), repeat.repeat_key_bytes());
    assert_eq!(first.repeat_key_bytes(), first.encode());
    for other in [
        "012b0481121000000ac8329bfd06cdcb6c33",
        "012a0481121100000ac8329bfd06cdcb6c33",
        "012a0481121000000ac8329bfd06cdcb6c23",
        "212a0481121000000ac8329bfd06cdcb6c33",
    ] {
        assert_ne!(submit(other).repeat_key_bytes(), first.repeat_key_bytes(), "{other}");
    }
}

#[test]
fn octets_behind_a_tpdu_are_counted() {
    let octets = hex("012a0481121000000ac8329bfd06cdcb6c33ffffff");
    assert_eq!(Submit::decode(&octets).unwrap().1, 3);
    let octets = hex("0404a1121000006211122100010009c8329bfd0609df620000");
    assert_eq!(Deliver::decode(&octets).unwrap().1, 2);
}

#[test]
fn what_is_no_tpdu_is_told_why() {
    let check = |text: &str, expected: BadTpdu| {
        assert_eq!(Submit::decode(&hex(text)), Err(expected), "{text}");
    };
    let whole = "112a0481121000000a0ac8329bfd06cdcb6c33";
    for cut in 0..whole.len() / 2 {
        check(&whole[..2 * cut], BadTpdu::Short);
    }
    check("002a0481121000000ac8329bfd06cdcb6c33", BadTpdu::NotSubmit);
    check("022a0481121000000ac8329bfd06cdcb6c33", BadTpdu::NotSubmit);
    // 21 digits; an end mark between digits; 161 septets; 141 octets.
    check("012a15811210", BadTpdu::Address);
    check("012a04811f100000010000", BadTpdu::Address);
    check("012a048112100000a1", BadTpdu::LongUserData);
    check("012a0481121000048d", BadTpdu::LongUserData);
    check("012a0481121000048c", BadTpdu::Short);

    let whole = hex("0404a1121000006211122100010009c8329bfd0609df62");
    for cut in 0..whole.len() {
        assert_eq!(Deliver::decode(&whole[..cut]), Err(BadTpdu::Short), "{cut}");
    }
    assert_eq!(Deliver::decode(&hex(whole_submit())), Err(BadTpdu::NotDeliver));
    assert_eq!(BadTpdu::NotDeliver.to_string(), "a TPDU that is no SMS-DELIVER");
}

fn whole_submit() -> &'static str {
    &OPENBTS_SUBMIT[16..]
}

/// TS 23.040 §9.1.2.3 and §9.1.2.5.
#[test]
fn numbers_and_names_are_written_and_read() {
    // As TP-OA of a DELIVER.
    let check = |text: &str, octets: &str| {
        let address = Address::parse(text).unwrap();
        let read = deliver(&format!("04{octets}00006211122100010000")).originator;
        assert_eq!((address, address.number().as_str()), (read, text));
    };
    check("2101", "04811210");
    check("101", "038101f1");
    check("+15550001", "089151550010");
    check("+1", "0191f1");
    check("0", "0181f0");
    check("*100#", "05811a00fb");
    check("12*#abc", "078121badcfe");
    check("12345678901234567890", "148121436587092143658709");
    // Names of 1, 4, 7, 8 and 11 characters: the count is of semi-octets in use.
    check("A", "02d041");
    check("ABCD", "07d041e19008");
    check("Encamp", "0bd045f738dc8603");
    check("Voyager", "0dd0d6773e7c2ecb01");
    check("cab", "06d0e3b018");
    check("€", "04d09b32");

    // An end mark that is counted among the digits is none.
    let read = |octets: &str| deliver_from(&format!("04{octets}00006211122100010000")).originator;
    assert_eq!(read("048101f1"), Address::parse("101").unwrap());
    // The fill of an odd number may be anything; it is written as it should be.
    assert_eq!(read("03810101"), Address::parse("101").unwrap());
    assert_eq!(read("07d041e19078"), Address::parse("ABCD").unwrap());
    // An empty one is read, and leads nowhere.
    assert_eq!(read("0081").number(), "");
}

fn deliver_from(text: &str) -> Deliver {
    Deliver::decode(&hex(text)).expect(text).0
}

#[test]
fn types_of_address_are_told_apart() {
    let international = Address::parse("+15550001").unwrap();
    assert!(international.is_international() && !international.is_alphanumeric());
    assert_eq!(international.type_of_address(), Address::INTERNATIONAL);
    let name = Address::parse("1&1").unwrap();
    assert!(name.is_alphanumeric() && !name.is_international());
    assert_eq!(Address::new(0xA1, "2101").unwrap().number(), "2101");

    for number in ["+15550001", "2001", "123456789012345"] {
        let address = Address::from(&Msisdn::parse(number).unwrap());
        assert_eq!((address.number().as_str(), Ok(address)), (number, Address::parse(number)));
    }
}

#[test]
fn what_is_no_address_is_told_why() {
    let check = |text: &str, expected: BadAddress| assert_eq!(Address::parse(text), Err(expected), "{text}");
    check("", BadAddress::Empty);
    check("+", BadAddress::Empty);
    check("+1 555", BadAddress::Digit);
    check("123456789012345678901", BadAddress::LongNumber);
    check("twelve chars", BadAddress::LongName);
    check("[encamp] :)", BadAddress::LongName);
    check("Лагерь", BadAddress::Character);
    assert_eq!(Address::new(Address::UNKNOWN, "é"), Err(BadAddress::Digit));
    assert_eq!(BadAddress::LongNumber.to_string(), "a number has at most 20 digits");
}

// Time.

/// TS 23.040 §9.2.3.12.1, line by line at both ends.
#[test]
fn a_relative_validity_period_is_read_by_the_table() {
    let (minute, hour, day, week) = (60, 3600, 86_400, 604_800);
    for (value, expected) in [
        (0, 5 * minute),
        (1, 10 * minute),
        (143, 12 * hour),
        (144, 12 * hour + 30 * minute),
        (167, 24 * hour),
        (168, 2 * day),
        (196, 30 * day),
        (197, 5 * week),
        (255, 63 * week),
    ] {
        let validity = submit(&format!("1100048112100000{value:02x}00")).validity;
        assert_eq!(validity, Some(Validity::Relative(value)));
        assert_eq!(validity.unwrap().ends_at_s(7), Some(7 + expected), "{value}");
        assert!(!validity.unwrap().is_single_shot());
    }
    assert_eq!(Validity::Relative(255).ends_at_s(u64::MAX), Some(u64::MAX));
}

/// TS 23.040 §9.2.3.12.3: as the service centre time stamp.
#[test]
fn an_absolute_validity_period_is_a_time() {
    let validity = submit("19000481121000006211122100014000").validity.unwrap();
    // 12:00:10 at a place four quarters of an hour ahead.
    assert_eq!(validity.ends_at_s(0), Some(unix(2026, 11, 21, 11, 0, 10)));
    assert_eq!(Validity::Absolute(Scts::from_octets([0; 7])).ends_at_s(0), None);
}

/// TS 23.040 §9.2.3.12.2.
#[test]
fn an_enhanced_validity_period_is_read_in_each_of_its_formats() {
    let check = |octets: &str, expected: Option<u64>, single_shot: bool| {
        let validity = submit(&format!("0900048112100000{octets}00")).validity.unwrap();
        assert_eq!((validity.ends_at_s(1000), validity.is_single_shot()), (expected, single_shot), "{octets}");
    };
    check("00000000000000", None, false);
    check("40000000000000", None, true);
    check("01aa0000000000", Some(1000 + 4 * 86_400), false);
    check("021e0000000000", Some(1030), false);
    check("42ff0000000000", Some(1255), true);
    check("02000000000000", None, false);
    // 12 h 34 min 56 s.
    check("03214365000000", Some(1000 + 12 * 3600 + 34 * 60 + 56), false);
    // The indicator goes on for another octet; for all seven.
    check("82001e00000000", Some(1030), false);
    check("ffffffffffffff", None, true);
    check("83808080808021", None, false);
    for reserved in 4..8 {
        check(&format!("{reserved:02x}1e0000000000"), None, false);
    }
}

/// TS 23.040 §9.2.3.11.
#[test]
fn a_time_stamp_is_local_time_and_its_distance_from_utc() {
    let noon = unix(2026, 11, 21, 12, 0, 10);
    let check = |quarters: i8, octets: &str| {
        let stamp = Scts::new(noon, quarters);
        assert_eq!(to_hex(&stamp.octets()), octets);
        assert_eq!((stamp.unix_s(), stamp.offset_quarters()), (Some(noon), quarters));
        assert_eq!(Scts::from_octets(stamp.octets()), stamp);
    };
    check(0, "62111221000100");
    check(4, "62111231000140");
    // Kathmandu, Newfoundland, Los Angeles in summer, and over the end of a day.
    check(23, "62111271540132");
    check(-14, "62111280030149");
    check(-28, "6211125000018a");
    check(56, "62112220000165");
    check(-48, "6211120000018c");
    check(79, "62112270540197");
    assert_eq!(Scts::new(noon, i8::MIN), Scts::new(noon, -79));

    for (octets, expected) in [
        ("00102000000000", Some(unix(2000, 1, 2, 0, 0, 0))),
        ("00209200000000", Some(unix(2000, 2, 29, 0, 0, 0))),
        ("07101000000000", Some(0)),
        ("96211332959500", Some(unix(2069, 12, 31, 23, 59, 59))),
        // No such day, month, hour, minute, second; before 1970 in UTC.
        ("62209200000000", None),
        ("62110300000000", Some(unix(2026, 11, 30, 0, 0, 0))),
        ("62111300000000", None),
        ("62310100000000", None),
        ("62001100000000", None),
        ("62110000000000", None),
        ("62111242000000", None),
        ("62111200060000", None),
        ("62111200000600", None),
        ("07101000000040", None),
        // "If the MS receives a non-integer value in the SCTS, it shall assume that the digit is set to 0".
        ("6211122100fff0", Some(unix(2026, 11, 21, 12, 0, 0))),
    ] {
        let stamp = Scts::from_octets(hex(octets).try_into().unwrap());
        assert_eq!(stamp.unix_s(), expected, "{octets}");
        assert_eq!(to_hex(&stamp.octets()), octets, "kept as received");
    }
}

#[test]
fn every_day_of_the_century_is_written_as_it_is() {
    let mut day_s = 0;
    for year in 1970..2070 {
        let is_leap = year % 4 == 0;
        for (month, days) in (1..).zip([31, if is_leap { 29 } else { 28 }, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31]) {
            for day in 1..=days {
                let stamp = Scts::from_unix(day_s + 86_399);
                let digits: String = to_hex(&stamp.octets())
                    .as_bytes()
                    .chunks(2)
                    .flat_map(|pair| [char::from(pair[1]), char::from(pair[0])])
                    .collect();
                assert_eq!(digits, format!("{:02}{month:02}{day:02}23595900", year % 100));
                assert_eq!(stamp.unix_s(), Some(day_s + 86_399));
                day_s += 86_400;
            }
        }
    }
}

// Text.

/// TS 23.038 §4, all 256 codings: `7`, `8`, `2` and `c`ompressed, then the class or `-`.
#[test]
fn a_data_coding_scheme_is_an_alphabet_and_a_class() {
    for dcs in 0..=255 {
        let general = |bits: u8| match bits >> 2 & 3 {
            _ if bits & 0x20 != 0 => 'c',
            1 => '8',
            2 => '2',
            _ => '7',
        };
        let (alphabet, has_class) = match dcs {
            0x00..=0x7F => (general(dcs), dcs & 0x10 != 0),
            0x80..=0xDF => ('7', false),
            0xE0..=0xEF => ('2', false),
            0xF0..=0xF3 | 0xF8..=0xFB => ('7', true),
            _ => ('8', true),
        };
        let found = match Coding(dcs).alphabet() {
            Some(Alphabet::Gsm7) => '7',
            Some(Alphabet::EightBit) => '8',
            Some(Alphabet::Ucs2) => '2',
            None => 'c',
        };
        assert_eq!((found, Coding(dcs).class().is_some()), (alphabet, has_class), "{dcs:#04x}");
        assert_eq!(Coding(dcs).is_compressed(), alphabet == 'c', "{dcs:#04x}");
    }
    for (dcs, class) in [(0x10, Class::Flash), (0x11, Class::Phone), (0xF2, Class::Sim), (0xF7, Class::Terminal)] {
        assert_eq!(Coding(dcs).class(), Some(class));
    }
}

/// TS 23.038 §6.1.2.1.1: how one, two, seven, eight and nine characters are packed.
#[test]
fn septets_are_packed_from_the_low_bits() {
    let check = |septets: &[u8], fill_bits: usize, octets: &str| {
        let packed = text::pack(septets, fill_bits);
        assert_eq!(to_hex(&packed), octets);
        assert_eq!(text::unpack(&packed, fill_bits, septets.len()).collect::<Vec<_>>(), septets);
    };
    check(&[], 0, "");
    check(&[0x7F], 0, "7f");
    check(&[0x31, 0x32], 0, "3119");
    check(b"1234567", 0, "31d98c56b3dd00");
    check(b"12345678", 0, "31d98c56b3dd70");
    check(b"123456789", 0, "31d98c56b3dd7039");
    check(&[0x7F], 1, "fe");
    check(&[0x41], 6, "4010");
    // Septets that are not there are not made up.
    assert_eq!(text::unpack(&[0xFF], 0, 9).count(), 1);
    assert_eq!(text::unpack(&[0xFF; 7], 0, 9).count(), 8);
    assert_eq!(text::unpack(&[], 3, 1).count(), 0);
}

/// TS 23.038 §6.2.1 and §6.2.1.1.
#[test]
fn every_character_of_the_gsm_alphabet_has_its_code() {
    let check = |char: char, septets: &[u8]| {
        assert_eq!(text::septets(&char.to_string()).as_deref(), Some(septets), "{char}");
        assert_eq!(text::gsm_text(septets.iter().copied()), char.to_string());
    };
    // Where ASCII has the same character at the same place.
    for code in (b' '..=b'z').filter(|code| !b"$@[\\]^_`".contains(code)) {
        check(code.into(), &[code]);
    }
    for (code, char) in (0..).zip("@£$¥èéùìòÇ\nØø\rÅåΔ_ΦΓΛΩΠΨΣΘΞ".chars()) {
        check(char, &[code]);
    }
    for (code, char) in [(0x1C, 'Æ'), (0x1D, 'æ'), (0x1E, 'ß'), (0x1F, 'É'), (0x24, '¤'), (0x40, '¡'), (0x60, '¿')]
    {
        check(char, &[code]);
    }
    for (code, char) in (0x5B..).zip("ÄÖÑÜ§".chars()).chain((0x7B..).zip("äöñüà".chars())) {
        check(char, &[code]);
    }
    for (code, char) in
        [0x0A, 0x14, 0x28, 0x29, 0x2F, 0x3C, 0x3D, 0x3E, 0x40, 0x65].into_iter().zip("\u{c}^{}\\[~]|€".chars())
    {
        check(char, &[0x1B, code]);
    }
    // All 127 and ten are checked: there are no more.
    let known =
        (0..=char::MAX as u32).filter_map(char::from_u32).filter(|char| text::septets(&char.to_string()).is_some());
    assert_eq!(known.count(), 127 + 10);
    for foreign in ['ç', '`', '\0', '\x1b', '\t', 'Α', '\u{a0}', '’'] {
        assert_eq!(text::septets(&foreign.to_string()), None);
    }

    // A code without a symbol in the extension table, an escape behind an escape, an escape at the end.
    assert_eq!(text::gsm_text([0x1B, 0x41]), "A");
    assert_eq!(text::gsm_text([0x1B, 0x1B, 0x41]), " A");
    assert_eq!(text::gsm_text([0x41, 0x1B]), "A ");
    assert_eq!(text::gsm_text([0xC1]), "A", "the eighth bit is none of theirs");
}

#[test]
fn a_text_takes_the_shortest_coding_that_has_all_of_it() {
    let check = |text: &str, coding: Coding, length: u8, octets: &str| {
        let data = text::encode(text).unwrap();
        assert_eq!((data.coding, data.length, to_hex(&data.bytes).as_str()), (coding, length, octets), "{text}");
        assert!(!data.has_header);
        assert_eq!(text::decode(&data).unwrap(), text);
    };
    check("", Coding::GSM7, 0, "");
    check("@", Coding::GSM7, 1, "00");
    check("€", Coding::GSM7, 2, "9b32");
    check("ç", Coding::UCS2, 2, "00e7");
    check("Привет", Coding::UCS2, 12, "041f04400438043204350442");
    check("a🏕", Coding::UCS2, 6, "0061d83cdfd5");
}

#[test]
fn one_message_has_160_septets_or_70_units() {
    let (gsm, ucs2) = (TooLong { alphabet: Alphabet::Gsm7 }, TooLong { alphabet: Alphabet::Ucs2 });
    for (text, expected) in [
        ("a".repeat(160), Ok(140)),
        ("a".repeat(161), Err(gsm)),
        ("€".repeat(80), Ok(140)),
        ("€".repeat(81), Err(gsm)),
        ("a".repeat(400), Err(gsm)),
        ("ж".repeat(70), Ok(140)),
        ("ж".repeat(71), Err(ucs2)),
        ("🏕".repeat(35), Ok(140)),
        ("🏕".repeat(35) + "a", Err(ucs2)),
        ("a".repeat(160) + "ж", Err(ucs2)),
    ] {
        assert_eq!(text::encode(&text).map(|data| data.bytes.len()), expected, "{text}");
    }
    assert_eq!((SEPTETS_MAX, UCS2_UNITS_MAX, OCTETS_MAX), (160, 70, 140));
    assert!(gsm.to_string().starts_with("a message has 160 characters"));
}

#[test]
fn what_is_cut_is_cut_between_characters() {
    for (text, expected) in [
        ("a".repeat(161), "a".repeat(160)),
        // The escape of the last € would be the 160th septet.
        ("a".repeat(159) + "€", "a".repeat(159)),
        ("ж".repeat(71), "ж".repeat(70)),
        // The first half of the last tent would be the 70th unit.
        ("a".to_owned() + &"🏕".repeat(35), "a".to_owned() + &"🏕".repeat(34)),
        ("a".repeat(100) + "ж", "a".repeat(100)),
        ("ж".to_owned() + &"a".repeat(100), "ж".to_owned() + &"a".repeat(69)),
        ("short".to_owned(), "short".to_owned()),
    ] {
        assert_eq!(text::fitting(&text), expected);
    }
}

/// TS 23.040 §9.2.3.24: the second of two parts of a text, by a phone.
#[test]
fn a_header_is_passed_through_and_the_text_begins_behind_it() {
    // Six octets of header are seven septets with one fill bit.
    let mut bytes = hex("050003a70202");
    bytes.extend(text::pack(b"camp", 1));
    let data = UserData { coding: Coding::GSM7, has_header: true, length: 7 + 4, bytes };
    assert_eq!(data.header(), Ok(&hex("050003a70202")[..]));
    assert_eq!(text::decode(&data).unwrap(), "camp");
    assert_eq!(to_hex(&data.bytes), "050003a70202c6e1361c");

    // SUBMIT in, DELIVER out: not an octet of it changes.
    let submit = submit("412a0481121000000b050003a70202c6e1361c");
    assert_eq!(submit.data, data);

    let ucs2 = UserData { coding: Coding::UCS2, has_header: true, length: 9, bytes: hex("060804a7a702020416") };
    assert_eq!(text::decode(&ucs2).unwrap(), "Ж");

    // Nothing behind the header; a header that says it is longer than everything; none at all.
    let check = |length: u8, bytes: &str, expected: Result<&str, NoText>| {
        let data = UserData { coding: Coding::GSM7, has_header: true, length, bytes: hex(bytes) };
        assert_eq!(text::decode(&data), expected.map(str::to_owned), "{bytes}");
    };
    check(7, "050003a70202", Ok(""));
    check(6, "050003a70202", Err(NoText::Header));
    check(7, "060003a70202", Err(NoText::Header));
    check(0, "", Err(NoText::Header));
    check(2, "0000", Ok(""));
}

#[test]
fn what_is_no_text_is_told_why() {
    let data = |coding: u8, length: u8, bytes: &str| UserData {
        coding: Coding(coding),
        has_header: false,
        length,
        bytes: hex(bytes),
    };
    assert_eq!(text::decode(&data(0x04, 2, "cafe")), Err(NoText::EightBit));
    assert_eq!(text::decode(&data(0x20, 2, "cafe")), Err(NoText::Compressed));
    // Half a pair, the wrong half first, half a unit.
    assert_eq!(text::decode(&data(0x08, 4, "0061d83c")).unwrap(), "a\u{fffd}");
    assert_eq!(text::decode(&data(0x08, 4, "dfd50061")).unwrap(), "\u{fffd}a");
    assert_eq!(text::decode(&data(0x08, 3, "006100")).unwrap(), "a\u{fffd}");
    assert_eq!(NoText::EightBit.to_string(), "8-bit data, which is no text");
}

// What holds for anything.

fn any_user_data() -> impl Strategy<Value = UserData> {
    (any::<u8>(), any::<bool>(), 0_u8..=160).prop_flat_map(|(coding, has_header, length)| {
        let coding = Coding(coding);
        let length = if coding.octets(length) > OCTETS_MAX { 140 } else { length };
        prop::collection::vec(any::<u8>(), coding.octets(length)).prop_map(move |bytes| UserData {
            coding,
            has_header,
            length,
            bytes,
        })
    })
}

fn any_address() -> impl Strategy<Value = Address> {
    "\\+?[0-9*#][0-9*#abc]{0,19}|[A-Za-zÄ§Δ ]{1,11}|[€{]{1,5}"
        .prop_map(|text| Address::parse(&text).expect("an address"))
}

fn any_validity() -> impl Strategy<Value = Option<Validity>> {
    prop_oneof![
        Just(None),
        any::<u8>().prop_map(|octet| Some(Validity::Relative(octet))),
        any::<[u8; 7]>().prop_map(|octets| Some(Validity::Absolute(Scts::from_octets(octets)))),
        any::<[u8; 7]>().prop_map(|octets| Some(Validity::Enhanced(octets))),
    ]
}

/// Octets that are likely to be a message, or one with a few octets wrong.
fn likely_octets() -> impl Strategy<Value = Vec<u8>> {
    let known = prop_oneof![
        Just(hex(OPENBTS_SUBMIT)),
        Just(hex(SMQUEUE_DELIVER)),
        Just(hex(whole_submit())),
        Just(hex("112a0481121000000a0ac8329bfd06cdcb6c33")),
        Just(hex("412a0481121000000b050003a70202c6e1361c")),
        Just(hex("0404a1121000006211122100010009c8329bfd0609df62")),
        Just(hex("040dd0d6773e7c2ecb0100086211122100010009060804a7a702020416")),
        Just(hex("04a201164102ffff")),
    ];
    let damage = prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 0..4);
    let damaged = (known, damage, any::<prop::sample::Index>()).prop_map(|(mut octets, damage, cut)| {
        for (at, octet) in damage {
            let at = at.index(octets.len());
            octets[at] = octet;
        }
        // Half of them are cut.
        let cut = cut.index(2 * octets.len());
        octets.truncate(cut.max(1));
        octets
    });
    prop_oneof![damaged, prop::collection::vec(any::<u8>(), 0..300)]
}

fn read_text(data: &UserData) {
    let _ = (text::decode(data), data.header(), data.coding.class(), format!("{data:?}"));
}

/// Whatever was read is written, and read again as the same.
fn read_tpdu(octets: &[u8]) {
    if let Ok((submit, trailing)) = Submit::decode(octets) {
        assert!(trailing < octets.len());
        let written = submit.encode();
        // An end mark that was counted as a digit is not written again.
        assert!(written.len() + trailing <= octets.len());
        assert_eq!(Submit::decode(&written).as_ref(), Ok(&(submit.clone(), 0)));
        assert!(written.len() <= 164);
        let _ = (
            submit.validity.map(|validity| (validity.ends_at_s(u64::MAX), validity.is_single_shot())),
            submit.repeat_key_bytes(),
        );
        let _ = (submit.destination.number(), format!("{submit:?}"));
        read_text(&submit.data);
    }
    if let Ok((deliver, trailing)) = Deliver::decode(octets) {
        let written = deliver.encode();
        // An end mark that was counted as a digit is not written again.
        assert!(written.len() + trailing <= octets.len());
        assert_eq!(Deliver::decode(&written).as_ref(), Ok(&(deliver.clone(), 0)));
        let _ = (deliver.timestamp.unix_s(), deliver.timestamp.offset_quarters());
        let _ = (deliver.originator.number(), format!("{deliver:?}"));
        read_text(&deliver.data);
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(4096))]

    #[test]
    fn any_octets_are_read_or_refused(octets in likely_octets()) {
        read_tpdu(&octets);
        if let Ok((rpdu, trailing)) = Rpdu::decode(&octets) {
            prop_assert!(trailing < octets.len());
            let written = rpdu.encode().expect("no longer than it was");
            prop_assert_eq!(Rpdu::decode(&written), Ok((rpdu, 0)));
            let _ = format!("{rpdu:?}");
            match rpdu {
                Rpdu::DataFromPhone { tpdu, .. } | Rpdu::DataToPhone { tpdu, .. } => read_tpdu(tpdu),
                Rpdu::Ack { .. } | Rpdu::Error { .. } | Rpdu::Smma { .. } => (),
            }
        }
        let _ = from_hex(&octets);
        prop_assert_eq!(from_hex(to_hex(&octets).as_bytes()), Ok(octets));
    }

    /// Also user data that nobody has decoded: the fields are open.
    #[test]
    fn any_user_data_is_read_or_refused(
        coding in any::<u8>(), has_header in any::<bool>(), length in any::<u8>(), bytes in prop::collection::vec(any::<u8>(), 0..300),
    ) {
        read_text(&UserData { coding: Coding(coding), has_header, length, bytes });
    }

    #[test]
    fn any_text_is_an_address_or_not(kind in any::<u8>(), text in any::<String>()) {
        for address in [Address::parse(&text), Address::new(kind, &text)].into_iter().flatten() {
            let plus = address.is_international() && !text.starts_with('+');
            prop_assert_eq!(address.number(), if plus { format!("+{text}") } else { text.clone() });
            let _ = format!("{address:?}");
        }
    }

    #[test]
    fn a_submit_that_is_written_is_read(
        reference in any::<u8>(), destination in any_address(), protocol in any::<u8>(), flags in any::<[bool; 3]>(),
        validity in any_validity(), data in any_user_data(), trailing in 0..4_usize,
    ) {
        let [reject_duplicates, report_wanted, reply_path] = flags;
        let submit = Submit { reference, destination, protocol, reject_duplicates, report_wanted, reply_path, validity, data };
        let mut octets = submit.encode();
        octets.extend(vec![0xFF; trailing]);
        prop_assert_eq!(Submit::decode(&octets), Ok((submit, trailing)));
    }

    #[test]
    fn a_deliver_that_is_written_is_read(
        originator in any_address(), protocol in any::<u8>(), flags in any::<[bool; 3]>(), octets in any::<[u8; 7]>(),
        data in any_user_data(), trailing in 0..4_usize,
    ) {
        let [more, report_wanted, reply_path] = flags;
        let timestamp = Scts::from_octets(octets);
        let deliver = Deliver { more, originator, protocol, report_wanted, reply_path, timestamp, data };
        let mut octets = deliver.encode();
        octets.extend(vec![0xFF; trailing]);
        prop_assert_eq!(Deliver::decode(&octets), Ok((deliver, trailing)));
    }

    #[test]
    fn an_address_of_the_relay_layer_that_is_written_is_read(address in any_address()) {
        let rpdu = Rpdu::DataToPhone { reference: 1, originator: Some(address), destination: None, tpdu: &[] };
        let octets = rpdu.encode().expect("short");
        let (read, trailing) = Rpdu::decode(&octets).expect("of our own making");
        prop_assert_eq!(trailing, 0);
        // There the length counts octets, so a name may gain a character of fill; no message centre has one.
        if !address.is_alphanumeric() {
            prop_assert_eq!(read, rpdu);
        }
    }

    #[test]
    fn any_text_is_encoded_and_read_again_or_too_long(
        text in prop_oneof![any::<String>(), "[ -~€£Δ]{0,170}", "[ -~ж🏕]{0,80}", "[€{}a]{60,90}"],
    ) {
        let septets = text::septets(&text).map(|septets| septets.len());
        let fits = septets.is_some_and(|septets| septets <= SEPTETS_MAX) || text.encode_utf16().count() <= UCS2_UNITS_MAX;
        prop_assert_eq!(text::encode(&text).is_ok(), fits);
        if let Ok(data) = text::encode(&text) {
            prop_assert_eq!(data.bytes.len(), data.coding.octets(data.length));
            prop_assert!(data.bytes.len() <= OCTETS_MAX);
            prop_assert_eq!(text::decode(&data), Ok(text.clone()));
        }
        let cut = text::fitting(&text);
        prop_assert!(text.starts_with(cut) && text::encode(cut).is_ok());
        prop_assert_eq!(cut == text, fits);
        if let Some(next) = text[cut.len()..].chars().next() {
            prop_assert!(text::encode(&format!("{cut}{next}")).is_err(), "one more would have fitted");
        }
    }

    #[test]
    fn septets_that_are_packed_are_unpacked(septets in prop::collection::vec(0..128_u8, 0..200), fill_bits in 0..7_usize) {
        let octets = text::pack(&septets, fill_bits);
        prop_assert_eq!(text::unpack(&octets, fill_bits, septets.len()).collect::<Vec<_>>(), septets);
    }

    #[test]
    fn a_time_that_is_written_is_read(unix_s in 90_000..3_155_000_000_u64, quarters in -79..=79_i8) {
        let stamp = Scts::new(unix_s, quarters);
        prop_assert_eq!((stamp.unix_s(), stamp.offset_quarters()), (Some(unix_s), quarters));
    }

    #[test]
    fn any_time_is_written(unix_s in any::<u64>(), quarters in any::<i8>(), other in any::<u64>()) {
        for unix_s in [unix_s, u64::MAX, 0] {
            let _ = Scts::new(unix_s, quarters).unix_s();
        }
        // The table has no step back.
        let (a, b) = (unix_s as u8, other as u8);
        let ends = |value| Validity::Relative(value).ends_at_s(0);
        prop_assert_eq!(ends(a).cmp(&ends(b)), a.cmp(&b));
    }
}
