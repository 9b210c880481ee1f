//! The relay layer of short messages: the envelope in which a TPDU goes between phone and message centre.
//!
//! Knows: the RPDUs and the hex text in which OpenBTS sends them. Does not know: what the TPDU says ([`super::tpdu`]), nor
//! which reference belongs to which message. Reads and writes nothing.
//! Read first: TS 24.011 §7.3 (the messages), §8.2 (their elements).

use std::fmt;

use super::tpdu::Address;

/// One RPDU. `Debug` shows how long a TPDU is, not what is in it.
///
/// `reference` is RP-Message-Reference; the answer has the one of its RP-DATA or RP-SMMA.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Rpdu<'a> {
    /// RP-DATA with a SUBMIT (or COMMAND) in it. The originator is empty on the wire: the network knows who sends.
    DataFromPhone { reference: u8, originator: Option<Address>, destination: Option<Address>, tpdu: &'a [u8] },
    /// RP-DATA with a DELIVER (or STATUS-REPORT) in it. The originator is the message centre, the destination empty.
    DataToPhone { reference: u8, originator: Option<Address>, destination: Option<Address>, tpdu: &'a [u8] },
    /// RP-ACK, with or without a report as its user data.
    Ack { direction: Direction, reference: u8, tpdu: Option<&'a [u8]> },
    /// RP-ERROR. `cause` is the number in a [`Cause`]; its diagnostic is not kept.
    Error { direction: Direction, reference: u8, cause: u8, tpdu: Option<&'a [u8]> },
    /// RP-SMMA: the phone has memory again. Only phones send it.
    Smma { reference: u8 },
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Direction {
    FromPhone,
    ToPhone,
}

impl<'a> Rpdu<'a> {
    /// Shape:  the second value counts the octets behind the RPDU, which are not looked at; optional elements that are not
    ///         RP-User-Data are among them. The five spare bits of the first octet are not looked at either.
    /// Errors: [`BadRpdu`].
    /// Source: TS 24.011 §7.3, §8.2.2.
    /// Tests:  tests/gsm_sms.rs
    pub fn decode(octets: &'a [u8]) -> Result<(Rpdu<'a>, usize), BadRpdu> {
        let mut rest = octets;
        let kind = octet(&mut rest)? & 0b111;
        let reference = octet(&mut rest)?;
        let direction = if kind & 1 == 0 { Direction::FromPhone } else { Direction::ToPhone };
        let rpdu = match kind {
            DATA_FROM_PHONE | DATA_TO_PHONE => {
                let originator = address(&mut rest)?;
                let destination = address(&mut rest)?;
                let tpdu = counted(&mut rest)?;
                match direction {
                    Direction::FromPhone => Rpdu::DataFromPhone { reference, originator, destination, tpdu },
                    Direction::ToPhone => Rpdu::DataToPhone { reference, originator, destination, tpdu },
                }
            }
            ACK_FROM_PHONE | ACK_TO_PHONE => Rpdu::Ack { direction, reference, tpdu: user_data(&mut rest)? },
            ERROR_FROM_PHONE | ERROR_TO_PHONE => {
                // Bit 8 is an extension bit, the other seven the cause.
                let cause = counted(&mut rest)?.first().ok_or(BadRpdu::Short)? & 0x7F;
                Rpdu::Error { direction, reference, cause, tpdu: user_data(&mut rest)? }
            }
            SMMA => Rpdu::Smma { reference },
            _ => return Err(BadRpdu::Type),
        };
        Ok((rpdu, rest.len()))
    }

    /// Errors: [`BadRpdu::Long`] for a TPDU of more than 255 octets, which no TPDU has; otherwise none.
    /// Source: TS 24.011 §7.3.
    pub fn encode(&self) -> Result<Vec<u8>, BadRpdu> {
        let mut out = Vec::new();
        match *self {
            Rpdu::DataFromPhone { reference, originator, destination, tpdu }
            | Rpdu::DataToPhone { reference, originator, destination, tpdu } => {
                let from_phone = matches!(self, Rpdu::DataFromPhone { .. });
                out.extend([if from_phone { DATA_FROM_PHONE } else { DATA_TO_PHONE }, reference]);
                write_address(&mut out, originator);
                write_address(&mut out, destination);
                write_counted(&mut out, tpdu)?;
            }
            Rpdu::Ack { direction, reference, tpdu } => {
                let kind = match direction {
                    Direction::FromPhone => ACK_FROM_PHONE,
                    Direction::ToPhone => ACK_TO_PHONE,
                };
                out.extend([kind, reference]);
                write_user_data(&mut out, tpdu)?;
            }
            Rpdu::Error { direction, reference, cause, tpdu } => {
                let kind = match direction {
                    Direction::FromPhone => ERROR_FROM_PHONE,
                    Direction::ToPhone => ERROR_TO_PHONE,
                };
                out.extend([kind, reference, 1, cause & 0x7F]);
                write_user_data(&mut out, tpdu)?;
            }
            Rpdu::Smma { reference } => out.extend([SMMA, reference]),
        }
        Ok(out)
    }

    pub fn reference(&self) -> u8 {
        match *self {
            Rpdu::DataFromPhone { reference, .. }
            | Rpdu::DataToPhone { reference, .. }
            | Rpdu::Ack { reference, .. }
            | Rpdu::Error { reference, .. }
            | Rpdu::Smma { reference } => reference,
        }
    }
}

impl fmt::Debug for Rpdu<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let reference = self.reference();
        let length = |tpdu: &Option<&[u8]>| tpdu.map_or(0, <[u8]>::len);
        match self {
            Rpdu::DataFromPhone { originator, destination, tpdu, .. }
            | Rpdu::DataToPhone { originator, destination, tpdu, .. } => {
                let way = if matches!(self, Rpdu::DataFromPhone { .. }) { "FromPhone" } else { "ToPhone" };
                write!(f, "Data({way} {reference}, {originator:?} to {destination:?}, {} octets)", tpdu.len())
            }
            Rpdu::Ack { direction, tpdu, .. } => write!(f, "Ack({direction:?} {reference}, {} octets)", length(tpdu)),
            Rpdu::Error { direction, cause, tpdu, .. } => {
                write!(f, "Error({direction:?} {reference}, cause {cause}, {} octets)", length(tpdu))
            }
            Rpdu::Smma { .. } => write!(f, "Smma({reference})"),
        }
    }
}

/// RP-Cause: a number of TS 24.011 §8.2.5.4, table 8.4.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct Cause(pub u8);

impl Cause {
    pub const UNASSIGNED_NUMBER: Cause = Cause(1);
    pub const OPERATOR_BARRING: Cause = Cause(8);
    pub const CALL_BARRED: Cause = Cause(10);
    pub const TRANSFER_REJECTED: Cause = Cause(21);
    /// Only from a phone: it says so with SMMA when it has room again.
    pub const MEMORY_EXCEEDED: Cause = Cause(22);
    pub const DESTINATION_OUT_OF_ORDER: Cause = Cause(27);
    pub const UNIDENTIFIED_SUBSCRIBER: Cause = Cause(28);
    pub const FACILITY_REJECTED: Cause = Cause(29);
    pub const UNKNOWN_SUBSCRIBER: Cause = Cause(30);
    pub const NETWORK_OUT_OF_ORDER: Cause = Cause(38);
    pub const TEMPORARY_FAILURE: Cause = Cause(41);
    pub const CONGESTION: Cause = Cause(42);
    pub const RESOURCES_UNAVAILABLE: Cause = Cause(47);
    pub const NOT_SUBSCRIBED: Cause = Cause(50);
    pub const NOT_IMPLEMENTED: Cause = Cause(69);
    pub const INVALID_REFERENCE: Cause = Cause(81);
    pub const INVALID_MESSAGE: Cause = Cause(95);
    pub const INVALID_MANDATORY_INFORMATION: Cause = Cause(96);
    pub const UNKNOWN_MESSAGE_TYPE: Cause = Cause(97);
    pub const WRONG_STATE: Cause = Cause(98);
    pub const UNKNOWN_ELEMENT: Cause = Cause(99);
    pub const PROTOCOL_ERROR: Cause = Cause(111);
    pub const INTERWORKING: Cause = Cause(127);

    /// What a phone has to read in it, coming from the network: a cause that the table does not have for this direction
    /// stands for 41, temporary failure.
    pub fn of_network(self) -> Cause {
        match self.0 {
            1 | 8 | 10 | 11 | 21 | 27..=30 | 38 | 41 | 42 | 47 | 50 | 69 | 81 | 95..=99 | 111 | 127 => self,
            _ => Cause::TEMPORARY_FAILURE,
        }
    }

    /// What we have to read in it, coming from a phone: one that the table does not have for this direction stands for
    /// 111, protocol error.
    pub fn of_phone(self) -> Cause {
        match self.0 {
            22 | 81 | 95..=99 | 111 => self,
            _ => Cause::PROTOCOL_ERROR,
        }
    }

    pub fn words(self) -> &'static str {
        match self.0 {
            1 => "unassigned number",
            8 => "barred by the operator",
            10 => "call barred",
            11 => "reserved",
            21 => "short message transfer rejected",
            22 => "memory full",
            27 => "destination out of order",
            28 => "unidentified subscriber",
            29 => "facility rejected",
            30 => "unknown subscriber",
            38 => "network out of order",
            41 => "temporary failure",
            42 => "congestion",
            47 => "resources unavailable",
            50 => "facility not subscribed",
            69 => "facility not implemented",
            81 => "invalid reference",
            95 => "invalid message",
            96 => "invalid mandatory information",
            97 => "unknown type of message",
            98 => "message not compatible with the state",
            99 => "unknown information element",
            111 => "protocol error",
            127 => "interworking error",
            _ => "a cause that is not listed",
        }
    }
}

/// The octets of a hex text, which is how OpenBTS sends and takes an RPDU.
///
/// Shape:  digits of either case; white space before and behind them does not matter.
/// Errors: [`BadRpdu::NotHex`], [`BadRpdu::OddHex`].
pub fn from_hex(text: &[u8]) -> Result<Vec<u8>, BadRpdu> {
    let digits = text.trim_ascii();
    let digit = |digit: u8| char::from(digit).to_digit(16).map(|value| value as u8).ok_or(BadRpdu::NotHex);
    let (pairs, rest) = digits.as_chunks();
    let octets = pairs.iter().map(|[high, low]| Ok(digit(*high)? << 4 | digit(*low)?)).collect::<Result<_, _>>()?;
    match rest {
        [] => Ok(octets),
        [last, ..] => Err(digit(*last).err().unwrap_or(BadRpdu::OddHex)),
    }
}

/// Lower case, as OpenBTS writes it; it reads either.
pub fn to_hex(octets: &[u8]) -> String {
    octets.iter().flat_map(|octet| [octet >> 4, octet & 0x0F]).filter_map(|d| char::from_digit(d.into(), 16)).collect()
}

/// Why a body is no RPDU.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum BadRpdu {
    NotHex,
    OddHex,
    Short,
    /// The one value of eight that no message has.
    Type,
    /// More than 20 digits, or an end mark between digits.
    Address,
    Long,
}

impl BadRpdu {
    pub fn words(self) -> &'static str {
        match self {
            BadRpdu::NotHex => "a body that is not hex digits",
            BadRpdu::OddHex => "a body with an odd number of hex digits",
            BadRpdu::Short => "an RPDU that is cut short",
            BadRpdu::Type => "an RPDU of the reserved type 7",
            BadRpdu::Address => "an RPDU whose address has more than 20 digits or a gap",
            BadRpdu::Long => "an RPDU with more than 255 octets of user data",
        }
    }
}

told_by_words!(BadRpdu);

// RP-MTI (TS 24.011 §8.2.2): even from the phone, odd to it.
const DATA_FROM_PHONE: u8 = 0;
const DATA_TO_PHONE: u8 = 1;
const ACK_FROM_PHONE: u8 = 2;
const ACK_TO_PHONE: u8 = 3;
const ERROR_FROM_PHONE: u8 = 4;
const ERROR_TO_PHONE: u8 = 5;
const SMMA: u8 = 6;

/// The identifier of RP-User-Data where it is optional (TS 24.011 §8.2.5.3).
const USER_DATA: u8 = 0x41;

fn octet(rest: &mut &[u8]) -> Result<u8, BadRpdu> {
    rest.split_off_first().copied().ok_or(BadRpdu::Short)
}

/// An octet that counts, and as many octets.
fn counted<'a>(rest: &mut &'a [u8]) -> Result<&'a [u8], BadRpdu> {
    let length = octet(rest)?;
    rest.split_off(..usize::from(length)).ok_or(BadRpdu::Short)
}

/// Here the length counts octets, the type among them; in a TPDU it counts digits (TS 24.011 §8.2.5.1, §8.2.5.2).
fn address(rest: &mut &[u8]) -> Result<Option<Address>, BadRpdu> {
    match counted(rest)? {
        [] => Ok(None),
        [type_of_address, digits @ ..] => {
            Address::from_octets(*type_of_address, digits).map(Some).ok_or(BadRpdu::Address)
        }
    }
}

fn user_data<'a>(rest: &mut &'a [u8]) -> Result<Option<&'a [u8]>, BadRpdu> {
    if rest.first() != Some(&USER_DATA) {
        return Ok(None);
    }
    rest.split_off_first();
    counted(rest).map(Some)
}

fn write_address(out: &mut Vec<u8>, address: Option<Address>) {
    let at = out.len();
    out.push(0);
    out.extend(address.iter().flat_map(Address::octets));
    // At most 11.
    out[at] = (out.len() - at - 1) as u8;
}

fn write_counted(out: &mut Vec<u8>, octets: &[u8]) -> Result<(), BadRpdu> {
    out.push(u8::try_from(octets.len()).map_err(|_| BadRpdu::Long)?);
    out.extend(octets);
    Ok(())
}

fn write_user_data(out: &mut Vec<u8>, tpdu: Option<&[u8]>) -> Result<(), BadRpdu> {
    match tpdu {
        None => Ok(()),
        Some(tpdu) => {
            out.push(USER_DATA);
            write_counted(out, tpdu)
        }
    }
}
