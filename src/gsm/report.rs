//! What is said about a short message: STATUS-REPORT and COMMAND, and the reports that ride in RP-ACK and RP-ERROR.
//!
//! Knows: the fields of the four, what a status and a failure cause mean. Does not know: which message is meant, nor what
//! is to be done about it. Reads and writes nothing.
//!
//! The first octet has two bits of type, and each means another thing in each direction: a TPDU alone does not say what it
//! is. The caller knows the direction, and for the two reports whether they came in an RP-ACK or in an RP-ERROR.
//!
//! Limits: a TPDU has at most 164 octets ([`TPDU_OCTETS_MAX`]).
//! Read first: TS 23.040 §9.2.2.1a, §9.2.2.2a, §9.2.2.3, §9.2.2.4 (the four), §9.2.3.13 to §9.2.3.22 (their fields).

use std::fmt;

use super::text::{Coding, UserData};
use super::tpdu::{
    Address, BadTpdu, HEADER, NO_MORE, REPORT, Scts, TYPE, address, flag, octet, seven, user_data_in, write_user_data,
};

/// What an RP-User-Data carries at most: the 140 octets of user data of a SUBMIT or DELIVER and what is before them. The
/// reports have no limit of their own for their user data but this one.
pub const TPDU_OCTETS_MAX: usize = 164;

/// SMS-STATUS-REPORT: what became of a message, told to the phone that sent it.
///
/// TP-Loop-Prevention is neither read nor set.
///
/// Source: TS 23.040 §9.2.2.3.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub struct StatusReport {
    /// TP-MMS, which says it the other way round: more messages wait at the centre.
    pub more: bool,
    /// TP-SRQ: the answer to an SMS-COMMAND, an enquiry for instance; otherwise to an SMS-SUBMIT.
    pub of_command: bool,
    /// TP-MR of that message.
    pub reference: u8,
    /// TP-RA: who that message was for.
    pub recipient: Address,
    /// TP-SCTS: when the centre took that message.
    pub timestamp: Scts,
    /// TP-DT: when what TP-Status says happened, or was last tried.
    pub discharged: Scts,
    /// TP-ST.
    pub status: Status,
    pub extra: Extra,
}

impl StatusReport {
    /// Shape:  the second value counts the octets behind the TPDU. Without any octet behind TP-Status there is no TP-PI,
    ///         and nothing extra.
    /// Errors: [`BadTpdu`].
    /// Source: TS 23.040 §9.2.2.3: TP-PI is "mandatory if any of the optional parameters following TP-PI is present,
    ///         otherwise optional".
    /// Tests:  tests/gsm_reports.rs
    pub fn decode(octets: &[u8]) -> Result<(StatusReport, usize), BadTpdu> {
        let mut rest = octets;
        let flags = octet(&mut rest)?;
        if flags & TYPE != STATUS_REPORT {
            return Err(BadTpdu::NotStatusReport);
        }
        let report = StatusReport {
            more: flags & NO_MORE == 0,
            of_command: flags & REPORT != 0,
            reference: octet(&mut rest)?,
            recipient: address(&mut rest)?,
            timestamp: Scts::from_octets(seven(&mut rest)?),
            discharged: Scts::from_octets(seven(&mut rest)?),
            status: Status(octet(&mut rest)?),
            extra: if rest.is_empty() { Extra::default() } else { Extra::read(&mut rest, flags)? },
        };
        Ok((report, within_limit(octets, rest)?))
    }

    /// Without anything extra TP-PI is left out, as the standard allows.
    pub fn encode(&self) -> Vec<u8> {
        let flags = STATUS_REPORT
            | flag(!self.more, NO_MORE)
            | flag(self.of_command, REPORT)
            | flag(self.extra.has_header(), HEADER);
        let mut out = vec![flags, self.reference];
        self.recipient.write(&mut out);
        out.extend(self.timestamp.octets());
        out.extend(self.discharged.octets());
        out.push(self.status.0);
        if self.extra != Extra::default() {
            self.extra.write(&mut out);
        }
        out
    }
}

/// SMS-COMMAND: a phone asks about a message that it has sent, or takes it back.
///
/// Source: TS 23.040 §9.2.2.4.
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct Command {
    /// TP-MR of the command itself.
    pub reference: u8,
    /// TP-SRR.
    pub report_wanted: bool,
    /// TP-PID.
    pub protocol: u8,
    /// TP-CT.
    pub kind: CommandKind,
    /// TP-MN: the TP-MR of the message that is meant.
    pub message: u8,
    /// TP-DA of the message that is meant.
    pub destination: Address,
    /// TP-UDHI: `data` begins with a header.
    pub has_header: bool,
    /// TP-CD, at most 146 octets.
    pub data: Vec<u8>,
}

impl Command {
    /// Shape:  the second value counts the octets behind the TPDU.
    /// Errors: [`BadTpdu`].
    /// Source: TS 23.040 §9.2.2.4.
    /// Tests:  tests/gsm_reports.rs
    pub fn decode(octets: &[u8]) -> Result<(Command, usize), BadTpdu> {
        let mut rest = octets;
        let flags = octet(&mut rest)?;
        if flags & TYPE != COMMAND {
            return Err(BadTpdu::NotCommand);
        }
        let reference = octet(&mut rest)?;
        let protocol = octet(&mut rest)?;
        let kind = CommandKind(octet(&mut rest)?);
        let message = octet(&mut rest)?;
        let destination = address(&mut rest)?;
        let length = octet(&mut rest)?;
        let command = Command {
            reference,
            report_wanted: flags & REPORT != 0,
            protocol,
            kind,
            message,
            destination,
            has_header: flags & HEADER != 0,
            data: rest.split_off(..usize::from(length)).ok_or(BadTpdu::Short)?.to_vec(),
        };
        Ok((command, within_limit(octets, rest)?))
    }

    /// Of `data` what does not fit is not written.
    pub fn encode(&self) -> Vec<u8> {
        let flags = COMMAND | flag(self.report_wanted, REPORT) | flag(self.has_header, HEADER);
        let mut out = vec![flags, self.reference, self.protocol, self.kind.0, self.message];
        self.destination.write(&mut out);
        let data = &self.data[..self.data.len().min(TPDU_OCTETS_MAX - 1 - out.len())];
        out.push(data.len() as u8);
        out.extend(data);
        out
    }
}

impl fmt::Debug for Command {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Command { reference, kind, message, destination, data, .. } = self;
        write!(f, "Command({reference}, {kind:?} of {message} to {destination:?}, {} octets)", data.len())
    }
}

/// TP-Command-Type.
///
/// Source: TS 23.040 §9.2.3.19.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct CommandKind(pub u8);

impl CommandKind {
    /// What became of the message? Answered by a STATUS-REPORT with TP-SRQ set.
    pub const ENQUIRE: CommandKind = CommandKind(0x00);
    /// No status report is wanted any longer.
    pub const CANCEL_REPORT: CommandKind = CommandKind(0x01);
    pub const DELETE: CommandKind = CommandKind(0x02);
    /// One is wanted after all.
    pub const ENABLE_REPORT: CommandKind = CommandKind(0x03);
}

/// TP-Status: what became of a message.
///
/// Source: TS 23.040 §9.2.3.15.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct Status(pub u8);

/// What a status means for who waits.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Outcome {
    /// The transaction is completed. [`Status::FORWARDED`] and [`Status::REPLACED`] are here too.
    Delivered,
    /// A temporary error; the centre still tries.
    Trying,
    /// A permanent error; the centre does not try any longer.
    Permanent,
    /// A temporary error; the centre does not try any longer.
    GivenUp,
}

impl Status {
    /// "Short message received by the SME".
    pub const RECEIVED: Status = Status(0x00);
    /// Forwarded, but it cannot be told whether it was delivered.
    pub const FORWARDED: Status = Status(0x01);
    /// Another one has taken its place (replace-type PIDs).
    pub const REPLACED: Status = Status(0x02);

    // The temporary errors while the centre still tries. Each of them with `given_up` is one after which it does not.
    pub const CONGESTION: Status = Status(0x20);
    pub const BUSY: Status = Status(0x21);
    pub const NO_RESPONSE: Status = Status(0x22);
    pub const SERVICE_REJECTED: Status = Status(0x23);
    pub const QUALITY_NOT_AVAILABLE: Status = Status(0x24);
    pub const ERROR_IN_SME: Status = Status(0x25);

    // The permanent errors.
    pub const REMOTE_PROCEDURE_ERROR: Status = Status(0x40);
    pub const INCOMPATIBLE_DESTINATION: Status = Status(0x41);
    pub const CONNECTION_REJECTED: Status = Status(0x42);
    pub const NOT_OBTAINABLE: Status = Status(0x43);
    pub const QUALITY_NEVER_AVAILABLE: Status = Status(0x44);
    pub const NO_INTERWORKING: Status = Status(0x45);
    pub const VALIDITY_EXPIRED: Status = Status(0x46);
    pub const DELETED_BY_ORIGINATOR: Status = Status(0x47);
    pub const DELETED_BY_CENTRE: Status = Status(0x48);
    /// Also the answer to an enquiry about a message that we do not know.
    pub const DOES_NOT_EXIST: Status = Status(0x49);

    /// The same temporary error, after the last attempt.
    ///
    /// Shape:  a status of another kind stays what it is.
    pub fn given_up(self) -> Status {
        if self.0 & 0b1110_0000 == 0b0010_0000 { Status(self.0 | 0b0100_0000) } else { self }
    }

    /// Bits 6 and 5, unless the value is reserved.
    ///
    /// A reserved value is to be read as 0x63, service rejected: a temporary error after which nothing is tried. Values that
    /// are left to a service centre have the meaning of their group.
    ///
    /// Source: TS 23.040 §9.2.3.15.
    pub fn outcome(self) -> Outcome {
        match self.0 {
            0x00..=0x02 | 0x10..=0x1F => Outcome::Delivered,
            0x20..=0x25 | 0x30..=0x3F => Outcome::Trying,
            0x40..=0x49 | 0x50..=0x5F => Outcome::Permanent,
            0x60..=0x65 | 0x70..=0x7F => Outcome::GivenUp,
            0x03..=0x0F | 0x26..=0x2F | 0x4A..=0x4F | 0x66..=0x6F | 0x80..=0xFF => Outcome::GivenUp,
        }
    }

    pub fn words(self) -> &'static str {
        match self.0 {
            0x00 => "received",
            0x01 => "forwarded, delivery not confirmed",
            0x02 => "replaced by another message",
            0x20 | 0x60 => "congestion",
            0x21 | 0x61 => "busy",
            0x22 | 0x62 => "no response",
            0x23 | 0x63 => "service rejected",
            0x24 | 0x44 | 0x64 => "quality of service not available",
            0x25 | 0x65 => "error in the phone",
            0x40 => "remote procedure error",
            0x41 => "incompatible destination",
            0x42 => "connection rejected",
            0x43 => "not obtainable",
            0x45 => "no interworking available",
            0x46 => "validity period expired",
            0x47 => "deleted by the sender",
            0x48 => "deleted by the message centre",
            0x49 => "no such message",
            0x10..=0x1F | 0x30..=0x3F | 0x50..=0x5F | 0x70..=0x7F => "a status of that message centre's own",
            _ => "a reserved status",
        }
    }
}

/// What carries a SUBMIT-REPORT or DELIVER-REPORT. The report of an RP-ERROR has TP-FCS, that of an RP-ACK has not, and
/// nothing in the TPDU tells the two apart.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Carrier {
    Ack,
    Error,
}

/// SMS-SUBMIT-REPORT: the centre's answer to a SUBMIT or COMMAND.
///
/// Source: TS 23.040 §9.2.2.2a.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub struct SubmitReport {
    /// TP-FCS: present in an RP-ERROR, and only there.
    pub failure: Option<Failure>,
    /// TP-SCTS: when the centre took the message. It comes back in the STATUS-REPORT.
    pub timestamp: Scts,
    pub extra: Extra,
}

impl SubmitReport {
    /// Shape:  the second value counts the octets behind the TPDU.
    /// Errors: [`BadTpdu`].
    /// Source: TS 23.040 §9.2.2.2a.
    /// Tests:  tests/gsm_reports.rs
    pub fn decode(octets: &[u8], carrier: Carrier) -> Result<(SubmitReport, usize), BadTpdu> {
        let mut rest = octets;
        let flags = octet(&mut rest)?;
        if flags & TYPE != SUBMIT_REPORT {
            return Err(BadTpdu::NotSubmitReport);
        }
        let failure = Failure::read(&mut rest, carrier)?;
        // TP-PI comes before TP-SCTS here, and what it announces behind.
        let announced = Announced::read(&mut rest)?;
        let timestamp = Scts::from_octets(seven(&mut rest)?);
        let report = SubmitReport { failure, timestamp, extra: Extra::announced(&mut rest, announced, flags)? };
        Ok((report, within_limit(octets, rest)?))
    }

    pub fn encode(&self) -> Vec<u8> {
        let mut out = vec![SUBMIT_REPORT | flag(self.extra.has_header(), HEADER)];
        out.extend(self.failure.map(|failure| failure.0));
        out.push(self.extra.indicator());
        out.extend(self.timestamp.octets());
        self.extra.write_announced(&mut out);
        out
    }
}

/// SMS-DELIVER-REPORT: the phone's answer to a DELIVER or STATUS-REPORT.
///
/// Source: TS 23.040 §9.2.2.1a.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub struct DeliverReport {
    /// TP-FCS: present in an RP-ERROR, and only there.
    pub failure: Option<Failure>,
    pub extra: Extra,
}

impl DeliverReport {
    /// Shape:  the second value counts the octets behind the TPDU.
    /// Errors: [`BadTpdu`].
    /// Source: TS 23.040 §9.2.2.1a.
    /// Tests:  tests/gsm_reports.rs
    pub fn decode(octets: &[u8], carrier: Carrier) -> Result<(DeliverReport, usize), BadTpdu> {
        let mut rest = octets;
        let flags = octet(&mut rest)?;
        if flags & TYPE != DELIVER_REPORT {
            return Err(BadTpdu::NotDeliverReport);
        }
        let failure = Failure::read(&mut rest, carrier)?;
        let report = DeliverReport { failure, extra: Extra::read(&mut rest, flags)? };
        Ok((report, within_limit(octets, rest)?))
    }

    pub fn encode(&self) -> Vec<u8> {
        let mut out = vec![DELIVER_REPORT | flag(self.extra.has_header(), HEADER)];
        out.extend(self.failure.map(|failure| failure.0));
        self.extra.write(&mut out);
        out
    }
}

/// TP-Failure-Cause.
///
/// Source: TS 23.040 §9.2.3.22.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct Failure(pub u8);

impl Failure {
    pub const TYPE_0_NOT_SUPPORTED: Failure = Failure(0x81);
    pub const CANNOT_REPLACE: Failure = Failure(0x82);
    pub const PROTOCOL_ERROR: Failure = Failure(0x8F);
    pub const CODING_NOT_SUPPORTED: Failure = Failure(0x90);
    pub const COMMAND_IMPOSSIBLE: Failure = Failure(0xA0);
    pub const COMMAND_NOT_SUPPORTED: Failure = Failure(0xA1);
    pub const TPDU_NOT_SUPPORTED: Failure = Failure(0xB0);
    pub const CENTRE_BUSY: Failure = Failure(0xC0);
    pub const NO_SUBSCRIPTION: Failure = Failure(0xC1);
    pub const CENTRE_FAILURE: Failure = Failure(0xC2);
    pub const INVALID_ADDRESS: Failure = Failure(0xC3);
    pub const DESTINATION_BARRED: Failure = Failure(0xC4);
    pub const DUPLICATE: Failure = Failure(0xC5);
    pub const VALIDITY_FORMAT_NOT_SUPPORTED: Failure = Failure(0xC6);
    pub const VALIDITY_NOT_SUPPORTED: Failure = Failure(0xC7);
    pub const STORAGE_FULL: Failure = Failure(0xD0);
    pub const NO_STORAGE: Failure = Failure(0xD1);
    pub const ERROR_IN_PHONE: Failure = Failure(0xD2);
    pub const MEMORY_EXCEEDED: Failure = Failure(0xD3);
    pub const TOOLKIT_BUSY: Failure = Failure(0xD4);
    pub const DOWNLOAD_ERROR: Failure = Failure(0xD5);
    pub const UNSPECIFIED: Failure = Failure(0xFF);

    /// The phone has no room: it says so with SMMA when it has again.
    pub fn is_memory_full(self) -> bool {
        matches!(self, Failure::STORAGE_FULL | Failure::MEMORY_EXCEEDED)
    }

    pub fn words(self) -> &'static str {
        match self.0 {
            0x80 => "telematic interworking not supported",
            0x81 => "short message type 0 not supported",
            0x82 => "cannot replace a short message",
            0x8F => "an error of the protocol identifier",
            0x90 => "data coding scheme not supported",
            0x91 => "message class not supported",
            0x9F => "an error of the data coding scheme",
            0xA0 => "command cannot be carried out",
            0xA1 => "command not supported",
            0xAF => "an error of the command",
            0xB0 => "TPDU not supported",
            0xC0 => "message centre busy",
            0xC1 => "no subscription at the message centre",
            0xC2 => "message centre failure",
            0xC3 => "invalid address",
            0xC4 => "destination barred",
            0xC5 => "refused as a duplicate",
            0xC6 => "validity period format not supported",
            0xC7 => "validity period not supported",
            0xD0 => "storage of the SIM full",
            0xD1 => "the SIM has no storage for messages",
            0xD2 => "error in the phone",
            0xD3 => "memory full",
            0xD4 => "SIM application toolkit busy",
            0xD5 => "error in the download to the SIM",
            0xE0..=0xFE => "a cause of that application's own",
            0xFF => "unspecified",
            _ => "a reserved cause",
        }
    }

    fn read(rest: &mut &[u8], carrier: Carrier) -> Result<Option<Failure>, BadTpdu> {
        match carrier {
            Carrier::Ack => Ok(None),
            Carrier::Error => octet(rest).map(|cause| Some(Failure(cause))),
        }
    }
}

/// What a report may carry besides: that which TP-PI announces.
///
/// A TP-DCS without user data is read and not kept: it says how nothing is coded.
///
/// Source: TS 23.040 §9.2.3.27.
#[derive(Clone, PartialEq, Eq, Hash, Debug, Default)]
pub struct Extra {
    /// TP-PID.
    pub protocol: Option<u8>,
    /// TP-DCS, TP-UDL and TP-UD. What is made here shall leave room for the rest: see [`TPDU_OCTETS_MAX`].
    pub data: Option<UserData>,
}

impl Extra {
    fn has_header(&self) -> bool {
        self.data.as_ref().is_some_and(|data| data.has_header)
    }

    fn read(rest: &mut &[u8], flags: u8) -> Result<Extra, BadTpdu> {
        let announced = Announced::read(rest)?;
        Extra::announced(rest, announced, flags)
    }

    fn announced(rest: &mut &[u8], announced: Announced, flags: u8) -> Result<Extra, BadTpdu> {
        let has = |bit| announced.0 & bit != 0;
        let protocol = if has(PROTOCOL) { Some(octet(rest)?) } else { None };
        // User data without a TP-DCS is in the default alphabet, says the standard.
        let coding = if has(CODING) { Coding(octet(rest)?) } else { Coding::GSM7 };
        let data = match has(USER_DATA) {
            true => Some(user_data_in(rest, coding, flags & HEADER != 0, TPDU_OCTETS_MAX)?),
            false => None,
        };
        Ok(Extra { protocol, data })
    }

    fn indicator(&self) -> u8 {
        flag(self.protocol.is_some(), PROTOCOL) | flag(self.data.is_some(), CODING | USER_DATA)
    }

    fn write(&self, out: &mut Vec<u8>) {
        out.push(self.indicator());
        self.write_announced(out);
    }

    fn write_announced(&self, out: &mut Vec<u8>) {
        out.extend(self.protocol);
        if let Some(data) = &self.data {
            out.push(data.coding.0);
            write_user_data(out, data);
        }
    }
}

/// TP-PI.
#[derive(Clone, Copy)]
struct Announced(u8);

impl Announced {
    /// Bit 7: another octet of TP-PI follows. None is defined, so each is passed over, as the other reserved bits are.
    fn read(rest: &mut &[u8]) -> Result<Announced, BadTpdu> {
        let first = octet(rest)?;
        let mut last = first;
        while last & EXTENSION != 0 {
            last = octet(rest)?;
        }
        Ok(Announced(first))
    }
}

fn within_limit(octets: &[u8], rest: &[u8]) -> Result<usize, BadTpdu> {
    match octets.len() - rest.len() {
        ..=TPDU_OCTETS_MAX => Ok(rest.len()),
        _ => Err(BadTpdu::LongReport),
    }
}

const DELIVER_REPORT: u8 = 0b00;
const SUBMIT_REPORT: u8 = 0b01;
const STATUS_REPORT: u8 = 0b10;
const COMMAND: u8 = 0b10;

const PROTOCOL: u8 = 0b0000_0001;
const CODING: u8 = 0b0000_0010;
const USER_DATA: u8 = 0b0000_0100;
const EXTENSION: u8 = 0b1000_0000;
