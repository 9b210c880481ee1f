//! Reports and commands: the octets of known ones, the tables of TS 23.040, and what holds for any octets at all.
//!
//! They are our own, after the tables of the standard; [`PUBLIC_REPORT`] is laid out as what modems show with AT+CDS.
//! That another program reads them alike is for tests/oracle_sms.rs.

use encamp::gsm::report::{
    Carrier, Command, CommandKind, DeliverReport, Extra, Failure, Outcome, Status, StatusReport, SubmitReport,
    TPDU_OCTETS_MAX,
};
use encamp::gsm::rpdu::{Cause, Rpdu, from_hex, to_hex};
use encamp::gsm::text::{self, Coding, UserData};
use encamp::gsm::tpdu::{Address, BadTpdu, Scts};
use proptest::prelude::*;

/// All but TP-Status.
const PUBLIC_REPORT: &str = "06c80891515500105090225103058050902251230580";

fn hex(text: &str) -> Vec<u8> {
    from_hex(text.as_bytes()).expect("hex")
}

fn stamp(text: &str) -> Scts {
    Scts::from_octets(hex(text).try_into().expect("seven octets"))
}

/// TS 23.040 §9.2.2.3.
#[test]
fn a_status_report_is_read_and_written_to_the_last_octet() {
    let text = format!("{PUBLIC_REPORT}00");
    let (report, trailing) = StatusReport::decode(&hex(&text)).unwrap();
    let expected = StatusReport {
        more: false,
        of_command: false,
        reference: 0xC8,
        recipient: Address::parse("+15550001").unwrap(),
        timestamp: stamp("50902251030580"),
        discharged: stamp("50902251230580"),
        status: Status::RECEIVED,
        extra: Extra::default(),
    };
    assert_eq!((report.clone(), trailing), (expected, 0));
    assert_eq!(to_hex(&report.encode()), text);

    // Each flag has its bit.
    let flags = |first: u8| {
        let mut octets = hex(&text);
        octets[0] = first;
        let report = StatusReport::decode(&octets).unwrap().0;
        (report.more, report.of_command)
    };
    assert_eq!(
        [flags(0b0000_0110), flags(0b0000_0010), flags(0b0010_0110)],
        [(false, false), (true, false), (false, true)]
    );
}

/// TS 23.040 §9.2.3.27: each of the three is there where its bit is.
#[test]
fn what_tp_pi_announces_is_read() {
    let check = |behind: &str, protocol: Option<u8>, said: Option<&str>, written: &str| {
        let text = format!("{PUBLIC_REPORT}46{behind}");
        let (report, trailing) = StatusReport::decode(&hex(&text)).unwrap();
        assert_eq!((report.extra.protocol, trailing), (protocol, 0), "{behind}");
        let read = report.extra.data.as_ref().map(|data| text::decode(data).unwrap());
        assert_eq!(read.as_deref(), said, "{behind}");
        assert_eq!(to_hex(&report.encode()), format!("{PUBLIC_REPORT}46{written}"), "{behind}");
    };
    check("00", None, None, "");
    check("0141", Some(0x41), None, "0141");
    check("0608020416", None, Some("Ж"), "0608020416");
    check("0700000361f118", Some(0), Some("abc"), "0700000361f118");
    // Without TP-DCS it is the default alphabet; without TP-UDL a TP-DCS says nothing.
    check("040361f118", None, Some("abc"), "06000361f118");
    check("0208", None, None, "");
    // Reserved bits; a second and a third octet of TP-PI.
    check("7941", Some(0x41), None, "0141");
    check("81ff0041", Some(0x41), None, "0141");
}

/// TS 23.040 §9.2.2.2a and §9.2.2.1a.
#[test]
fn a_report_in_an_rp_error_has_a_cause_and_one_in_an_rp_ack_has_none() {
    let (report, trailing) = SubmitReport::decode(&hex("010062111221000100"), Carrier::Ack).unwrap();
    let expected = SubmitReport { failure: None, timestamp: stamp("62111221000100"), extra: Extra::default() };
    assert_eq!((report.clone(), trailing), (expected, 0));
    assert_eq!(to_hex(&report.encode()), "010062111221000100");

    let (report, trailing) = SubmitReport::decode(&hex("01c50062111221000100"), Carrier::Error).unwrap();
    assert_eq!((report.failure, report.timestamp, trailing), (Some(Failure::DUPLICATE), stamp("62111221000100"), 0));
    assert_eq!(to_hex(&report.encode()), "01c50062111221000100");

    // TP-PI is before the time, what it announces behind it.
    let text = "01c0076211122100010000000361f118";
    let (report, _) = SubmitReport::decode(&hex(text), Carrier::Error).unwrap();
    assert_eq!(text::decode(report.extra.data.as_ref().unwrap()).unwrap(), "abc");
    assert_eq!(to_hex(&report.encode()), text);

    // As phones send it in an RP-ACK and, memory full, in an RP-ERROR.
    let answer = hex("02a241020000");
    let Ok((Rpdu::Ack { tpdu: Some(tpdu), .. }, 0)) = Rpdu::decode(&answer) else { panic!() };
    let (report, trailing) = DeliverReport::decode(tpdu, Carrier::Ack).unwrap();
    assert_eq!((report.clone(), trailing), (DeliverReport { failure: None, extra: Extra::default() }, 0));
    assert_eq!(report.encode(), tpdu);
    let answer = hex("04a20116410300d300");
    let Ok((Rpdu::Error { cause, tpdu: Some(tpdu), .. }, 0)) = Rpdu::decode(&answer) else { panic!() };
    let (report, _) = DeliverReport::decode(tpdu, Carrier::Error).unwrap();
    assert!(report.failure == Some(Failure::MEMORY_EXCEEDED) && report.failure.unwrap().is_memory_full());
    assert_eq!(Cause(cause), Cause::MEMORY_EXCEEDED);
    assert_eq!(report.encode(), tpdu);
}

/// TS 23.040 §9.2.2.4 and §9.2.3.19.
#[test]
fn a_command_is_read_and_written_to_the_last_octet() {
    let check = |text: &str, kind: CommandKind, data: &str| {
        let (command, trailing) = Command::decode(&hex(text)).unwrap();
        let expected = Command {
            reference: 0x2B,
            report_wanted: text.starts_with("22"),
            protocol: 0,
            kind,
            message: 0x2A,
            destination: Address::parse("2101").unwrap(),
            has_header: false,
            data: hex(data),
        };
        assert_eq!((command.clone(), trailing), (expected, 0), "{text}");
        assert_eq!(to_hex(&command.encode()), text);
        assert!(!format!("{command:?}").contains("2a, 2b"));
    };
    check("222b00002a0481121000", CommandKind::ENQUIRE, "");
    check("022b00012a0481121000", CommandKind::CANCEL_REPORT, "");
    check("222b00022a0481121002cafe", CommandKind::DELETE, "cafe");
    check("022b00032a0481121000", CommandKind::ENABLE_REPORT, "");
    check("022b00e02a0481121000", CommandKind(0xE0), "");
}

#[test]
fn what_is_no_report_is_told_why() {
    let whole = hex(&format!("{PUBLIC_REPORT}000700000361f118"));
    for cut in 0..whole.len() {
        // Behind TP-Status it may end.
        let expected = if cut == PUBLIC_REPORT.len() / 2 + 1 { None } else { Some(BadTpdu::Short) };
        assert_eq!(StatusReport::decode(&whole[..cut]).err(), expected, "{cut}");
    }
    let whole = hex("222b00022a0481121002cafe");
    for cut in 0..whole.len() {
        assert_eq!(Command::decode(&whole[..cut]), Err(BadTpdu::Short), "{cut}");
    }
    let whole = hex("01c0076211122100010000000361f118");
    for cut in 0..whole.len() {
        assert_eq!(SubmitReport::decode(&whole[..cut], Carrier::Error), Err(BadTpdu::Short), "{cut}");
    }
    let whole = hex("00d30700000361f118");
    for cut in 0..whole.len() {
        assert_eq!(DeliverReport::decode(&whole[..cut], Carrier::Error), Err(BadTpdu::Short), "{cut}");
    }
    assert_eq!(StatusReport::decode(&[0]), Err(BadTpdu::NotStatusReport));
    assert_eq!(Command::decode(&[1]), Err(BadTpdu::NotCommand));
    assert_eq!(SubmitReport::decode(&[2], Carrier::Ack), Err(BadTpdu::NotSubmitReport));
    assert_eq!(DeliverReport::decode(&[3], Carrier::Ack), Err(BadTpdu::NotDeliverReport));
    assert_eq!(BadTpdu::NotCommand.to_string(), "a TPDU that is no SMS-COMMAND");

    // 159 octets behind an octet of flags and four of TP-PI, TP-DCS and TP-UDL: 163, 164, 165.
    for (length, expected) in
        [(159, Ok(0)), (160, Ok(0)), (161, Err(BadTpdu::LongReport)), (165, Err(BadTpdu::LongUserData))]
    {
        let mut octets = vec![0, 0b110, 0x04, length];
        octets.extend(vec![0; length.into()]);
        assert_eq!(DeliverReport::decode(&octets, Carrier::Ack).map(|(_, trailing)| trailing), expected, "{length}");
    }
}

/// The table of TS 23.040 §9.2.3.15, each of the 256.
#[test]
fn every_status_has_its_outcome() {
    use Outcome::{Delivered, GivenUp, Permanent, Trying};
    let groups = [
        // First and last that are defined or left to a centre, and what they mean.
        (0x00, 0x02, Delivered),
        (0x10, 0x1F, Delivered),
        (0x20, 0x25, Trying),
        (0x30, 0x3F, Trying),
        (0x40, 0x49, Permanent),
        (0x50, 0x5F, Permanent),
        (0x60, 0x65, GivenUp),
        (0x70, 0x7F, GivenUp),
    ];
    for value in 0..=255_u8 {
        let group = groups.iter().find(|(first, last, _)| (*first..=*last).contains(&value));
        // A reserved one is "Service Rejected".
        let expected = group.map_or(Status(0x63).outcome(), |(_, _, outcome)| *outcome);
        assert_eq!(Status(value).outcome(), expected, "{value:#04x}");
        assert_eq!(Status(value).words() == "a reserved status", group.is_none(), "{value:#04x}");
    }
    for status in
        [Status::CONGESTION, Status::BUSY, Status::NO_RESPONSE, Status::SERVICE_REJECTED, Status::ERROR_IN_SME]
    {
        assert_eq!((status.outcome(), status.given_up().outcome()), (Trying, GivenUp));
        assert_eq!(status.words(), status.given_up().words());
    }
    assert_eq!(Status::VALIDITY_EXPIRED.given_up(), Status::VALIDITY_EXPIRED);
    assert_eq!(Status::RECEIVED.given_up(), Status::RECEIVED);
}

#[test]
fn a_cause_that_is_not_listed_is_the_one_that_the_standard_names() {
    for value in 0..=127 {
        let cause = Cause(value);
        let (of_network, of_phone) = (cause.of_network(), cause.of_phone());
        assert!(of_network == cause || of_network == Cause::TEMPORARY_FAILURE, "{value}");
        assert!(of_phone == cause || of_phone == Cause::PROTOCOL_ERROR, "{value}");
        assert_ne!(of_network.words(), "a cause that is not listed", "{value}");
    }
    assert_eq!(Cause(22).of_network(), Cause::TEMPORARY_FAILURE, "only phones have a memory");
    assert_eq!(Cause(22).of_phone(), Cause::MEMORY_EXCEEDED);
    assert_eq!(Cause(38).of_phone(), Cause::PROTOCOL_ERROR);
    assert_eq!(Cause(2).of_network(), Cause::TEMPORARY_FAILURE);
    assert_eq!(Cause(21).words(), "short message transfer rejected");
}

// What holds for anything.

fn any_address() -> impl Strategy<Value = Address> {
    "\\+?[0-9*#][0-9*#abc]{0,19}|[A-Za-zÄ§Δ ]{1,11}".prop_map(|text| Address::parse(&text).expect("an address"))
}

/// At most 131 octets of user data, which every report has room for.
fn any_extra() -> impl Strategy<Value = Extra> {
    let data = (any::<u8>(), any::<bool>(), 0_u8..=131).prop_flat_map(|(coding, has_header, length)| {
        let coding = Coding(coding);
        prop::collection::vec(any::<u8>(), coding.octets(length)).prop_map(move |bytes| UserData {
            coding,
            has_header,
            length,
            bytes,
        })
    });
    (prop::option::of(any::<u8>()), prop::option::of(data)).prop_map(|(protocol, data)| Extra { protocol, data })
}

fn any_stamp() -> impl Strategy<Value = Scts> {
    any::<[u8; 7]>().prop_map(Scts::from_octets)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(4096))]

    #[test]
    fn a_status_report_that_is_written_is_read(
        more in any::<bool>(), of_command in any::<bool>(), reference in any::<u8>(), recipient in any_address(),
        times in (any_stamp(), any_stamp()), status in any::<u8>(), extra in any_extra(),
    ) {
        let (timestamp, discharged) = times;
        let report = StatusReport { more, of_command, reference, recipient, timestamp, discharged, status: Status(status), extra };
        let octets = report.encode();
        prop_assert!(octets.len() <= TPDU_OCTETS_MAX);
        prop_assert_eq!(StatusReport::decode(&octets), Ok((report, 0)));
    }

    #[test]
    fn a_report_that_is_written_is_read(failure in prop::option::of(any::<u8>()), timestamp in any_stamp(), extra in any_extra(), trailing in 0..4_usize) {
        let carrier = if failure.is_some() { Carrier::Error } else { Carrier::Ack };
        let failure = failure.map(Failure);
        let report = SubmitReport { failure, timestamp, extra: extra.clone() };
        let mut octets = report.encode();
        octets.extend(vec![0xFF; trailing]);
        prop_assert_eq!(SubmitReport::decode(&octets, carrier), Ok((report, trailing)));
        let report = DeliverReport { failure, extra };
        let mut octets = report.encode();
        octets.extend(vec![0xFF; trailing]);
        prop_assert_eq!(DeliverReport::decode(&octets, carrier), Ok((report, trailing)));
    }

    #[test]
    fn a_command_that_is_written_is_read(
        octets in any::<[u8; 4]>(), flags in any::<[bool; 2]>(), destination in any_address(),
        data in prop::collection::vec(any::<u8>(), 0..200), trailing in 0..4_usize,
    ) {
        let [reference, protocol, kind, message] = octets;
        let [report_wanted, has_header] = flags;
        let command = Command { reference, report_wanted, protocol, kind: CommandKind(kind), message, destination, has_header, data };
        let mut octets = command.encode();
        prop_assert!(octets.len() <= TPDU_OCTETS_MAX);
        octets.extend(vec![0xFF; trailing]);
        let (read, behind) = Command::decode(&octets).expect("of our own making");
        // What was too long was cut, and nothing else.
        prop_assert!(command.data.starts_with(&read.data) && (read.data.len() == command.data.len() || read.data.len() >= 146));
        prop_assert_eq!((Command { data: command.data.clone(), ..read }, behind), (command, trailing));
    }
}
