//! The transport layer of short messages: SUBMIT, which a phone sends, and DELIVER, which it gets.
//!
//! Knows: the fields of the two, numbers, times and validity periods. Does not know: the text ([`super::text`]), the relay
//! layer around it ([`super::rpdu`]), who may send what to whom. Reads and writes nothing; what time it is, it is told.
//!
//! Limits: an address has 20 digits or 11 characters, a user data 140 octets; so a TPDU has at most 164 octets.
//! Read first: TS 23.040 §9.1.2 (representation), §9.2.2.1 (DELIVER), §9.2.2.2 (SUBMIT), §9.2.3 (the fields).

use std::fmt;

pub use super::text::UserData;
use super::text::{self, Coding, OCTETS_MAX};
use crate::ident::Msisdn;

/// SMS-SUBMIT: what a phone wants sent.
///
/// Source: TS 23.040 §9.2.2.2.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub struct Submit {
    /// TP-MR, counted by the SIM.
    pub reference: u8,
    /// TP-DA.
    pub destination: Address,
    /// TP-PID.
    pub protocol: u8,
    /// TP-RD: the phone believes that it has sent this before.
    pub reject_duplicates: bool,
    /// TP-SRR.
    pub report_wanted: bool,
    /// TP-RP.
    pub reply_path: bool,
    /// TP-VP.
    pub validity: Option<Validity>,
    pub data: UserData,
}

impl Submit {
    /// Shape:  the second value counts the octets behind the TPDU, which are not looked at.
    /// Errors: [`BadTpdu`].
    /// Source: TS 23.040 §9.2.2.2.
    /// Tests:  tests/gsm_sms.rs
    pub fn decode(octets: &[u8]) -> Result<(Submit, usize), BadTpdu> {
        let mut rest = octets;
        let flags = octet(&mut rest)?;
        if flags & TYPE != SUBMIT {
            return Err(BadTpdu::NotSubmit);
        }
        let reference = octet(&mut rest)?;
        let destination = address(&mut rest)?;
        let protocol = octet(&mut rest)?;
        let coding = Coding(octet(&mut rest)?);
        let validity = match flags & VALIDITY {
            VALIDITY_RELATIVE => Some(Validity::Relative(octet(&mut rest)?)),
            VALIDITY_ENHANCED => Some(Validity::Enhanced(seven(&mut rest)?)),
            VALIDITY_ABSOLUTE => Some(Validity::Absolute(Scts(seven(&mut rest)?))),
            _ => None,
        };
        let submit = Submit {
            reference,
            destination,
            protocol,
            reject_duplicates: flags & REJECT_DUPLICATES != 0,
            report_wanted: flags & REPORT != 0,
            reply_path: flags & REPLY_PATH != 0,
            validity,
            data: user_data(&mut rest, coding, flags & HEADER != 0)?,
        };
        Ok((submit, rest.len()))
    }

    pub fn encode(&self) -> Vec<u8> {
        let (format, validity): (u8, &[u8]) = match &self.validity {
            None => (0, &[]),
            Some(Validity::Relative(octet)) => (VALIDITY_RELATIVE, std::slice::from_ref(octet)),
            Some(Validity::Enhanced(octets)) => (VALIDITY_ENHANCED, octets),
            Some(Validity::Absolute(time)) => (VALIDITY_ABSOLUTE, &time.0),
        };
        let flags = SUBMIT
            | format
            | flag(self.reject_duplicates, REJECT_DUPLICATES)
            | flag(self.report_wanted, REPORT)
            | flag(self.data.has_header, HEADER)
            | flag(self.reply_path, REPLY_PATH);
        let mut out = vec![flags, self.reference];
        self.destination.write(&mut out);
        out.extend([self.protocol, self.data.coding.0]);
        out.extend(validity);
        write_user_data(&mut out, &self.data);
        out
    }

    /// The same octets for the same message sent again: hash them, together with the sender, to know a repeat.
    ///
    /// A phone that got no answer repeats with the TP-Message-Reference of the first time and, being one that knows how,
    /// TP-Reject-Duplicates set: that bit is masked here, everything else counts.
    ///
    /// Source: TS 23.040 §9.2.3.6 and §9.2.3.25.
    pub fn repeat_key_bytes(&self) -> Vec<u8> {
        Submit { reject_duplicates: false, ..self.clone() }.encode()
    }
}

/// SMS-DELIVER: what a phone gets.
///
/// TP-Loop-Prevention is neither read nor set.
///
/// Source: TS 23.040 §9.2.2.1.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub struct Deliver {
    /// TP-MMS, which says it the other way round: more messages wait at the centre.
    pub more: bool,
    /// TP-OA.
    pub originator: Address,
    /// TP-PID.
    pub protocol: u8,
    /// TP-SRI.
    pub report_wanted: bool,
    /// TP-RP.
    pub reply_path: bool,
    /// TP-SCTS.
    pub timestamp: Scts,
    pub data: UserData,
}

impl Deliver {
    /// Shape and errors as [`Submit::decode`].
    ///
    /// Source: TS 23.040 §9.2.2.1.
    /// Tests:  tests/gsm_sms.rs
    pub fn decode(octets: &[u8]) -> Result<(Deliver, usize), BadTpdu> {
        let mut rest = octets;
        let flags = octet(&mut rest)?;
        if flags & TYPE != DELIVER {
            return Err(BadTpdu::NotDeliver);
        }
        let originator = address(&mut rest)?;
        let protocol = octet(&mut rest)?;
        let coding = Coding(octet(&mut rest)?);
        let deliver = Deliver {
            more: flags & NO_MORE == 0,
            originator,
            protocol,
            report_wanted: flags & REPORT != 0,
            reply_path: flags & REPLY_PATH != 0,
            timestamp: Scts(seven(&mut rest)?),
            data: user_data(&mut rest, coding, flags & HEADER != 0)?,
        };
        Ok((deliver, rest.len()))
    }

    pub fn encode(&self) -> Vec<u8> {
        let flags = DELIVER
            | flag(!self.more, NO_MORE)
            | flag(self.report_wanted, REPORT)
            | flag(self.data.has_header, HEADER)
            | flag(self.reply_path, REPLY_PATH);
        let mut out = vec![flags];
        self.originator.write(&mut out);
        out.extend([self.protocol, self.data.coding.0]);
        out.extend(self.timestamp.0);
        write_user_data(&mut out, &self.data);
        out
    }
}

/// A number or a name, as TP-OA, TP-DA and the addresses of the relay layer carry it.
///
/// Shape:  at most 20 semi-octets: digits `0`–`9`, `*`, `#`, `a`, `b`, `c`, or up to 11 packed septets of a name. One that
///         was received may be empty, one that is made here is not. `Debug` shows the last four characters.
/// Source: TS 23.040 §9.1.2.5: "The maximum length of the full address field (Address-Length, Type-of-Address and
///         Address-Value) is 12 octets."
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct Address {
    type_of_address: u8,
    /// How many semi-octets are in use.
    length: u8,
    /// The rest is zero, but for the fill of an odd number's last octet.
    octets: [u8; Address::OCTETS_MAX],
}

impl Address {
    /// Type "unknown" of the telephone numbering plan, as OpenBTS writes what its phones dial.
    pub const UNKNOWN: u8 = 0x81;
    pub const INTERNATIONAL: u8 = 0x91;
    pub const ALPHANUMERIC: u8 = 0xD0;

    pub const DIGITS_MAX: usize = 20;
    const OCTETS_MAX: usize = 10;

    /// What a human writes: `+15550001`, `2001`, `*100#`, or a name.
    ///
    /// Shape:  what begins with `+` is international. A number otherwise begins with a digit, `*` or `#` and has nothing
    ///         but those and `a`, `b`, `c`; anything else is a name, "cab" and "1&1" among them.
    /// Errors: [`BadAddress`].
    pub fn parse(text: &str) -> Result<Address, BadAddress> {
        if let Some(digits) = text.strip_prefix('+') {
            return Address::new(Address::INTERNATIONAL, digits);
        }
        let begins_as_number = text.starts_with(|first: char| first.is_ascii_digit() || "*#".contains(first));
        let is_number = begins_as_number && text.chars().all(|char| DIGITS.contains(char));
        Address::new(if is_number { Address::UNKNOWN } else { Address::ALPHANUMERIC }, text)
    }

    /// An address of any type, for instance 0xA1 for a national number.
    ///
    /// Shape:  `text` is digits without `+`, or a name where the type says so.
    /// Errors: [`BadAddress`].
    pub fn new(type_of_address: u8, text: &str) -> Result<Address, BadAddress> {
        if text.is_empty() {
            return Err(BadAddress::Empty);
        }
        if !is_alphanumeric(type_of_address) {
            let digit = |char| DIGITS.chars().position(|digit| digit == char).ok_or(BadAddress::Digit);
            let digits = text.chars().map(|char| Ok(digit(char)? as u8)).collect::<Result<Vec<u8>, _>>()?;
            return match digits.len() {
                ..=Address::DIGITS_MAX => Ok(Address::of_digits(type_of_address, &digits)),
                _ => Err(BadAddress::LongNumber),
            };
        }
        let septets = text::septets(text).ok_or(BadAddress::Character)?;
        // "excludes any semi octet containing only fill bits".
        let length = (7 * septets.len()).div_ceil(4);
        if length > Address::DIGITS_MAX {
            return Err(BadAddress::LongName);
        }
        let mut octets = [0; Address::OCTETS_MAX];
        for (to, from) in octets.iter_mut().zip(text::pack(&septets, 0)) {
            *to = from;
        }
        Ok(Address { type_of_address, length: length as u8, octets })
    }

    pub fn type_of_address(&self) -> u8 {
        self.type_of_address
    }

    pub fn is_international(&self) -> bool {
        self.type_of_address & TYPE_OF_NUMBER == Address::INTERNATIONAL & TYPE_OF_NUMBER
    }

    pub fn is_alphanumeric(&self) -> bool {
        is_alphanumeric(self.type_of_address)
    }

    /// The number with `+` where it is international, or the name.
    pub fn number(&self) -> String {
        if self.is_alphanumeric() {
            return text::gsm_text(text::unpack(&self.octets, 0, usize::from(self.length) * 4 / 7));
        }
        let plus = self.is_international().then_some('+');
        let digits = semi_octets(&self.octets).take(self.length.into());
        plus.into_iter().chain(digits.filter_map(|digit| DIGITS.chars().nth(digit.into()))).collect()
    }

    /// The type octet and the octets of digits, as the relay layer has them (TS 24.011 §8.2.5.1).
    pub(super) fn octets(&self) -> impl Iterator<Item = u8> {
        std::iter::once(self.type_of_address).chain(self.octets.into_iter().take(self.length.div_ceil(2).into()))
    }

    /// The other way. `None`: more than 20 digits, or an end mark between digits.
    pub(super) fn from_octets(type_of_address: u8, octets: &[u8]) -> Option<Address> {
        Address::read(type_of_address, octets, 2 * octets.len())
    }

    /// The first `length` semi-octets of `octets`.
    fn read(type_of_address: u8, octets: &[u8], length: usize) -> Option<Address> {
        let mut digits: Vec<u8> = semi_octets(octets).take(length).collect();
        if is_alphanumeric(type_of_address) {
            // Where an odd number of them is in use, the fill of a name is zero.
            digits.resize(length.next_multiple_of(2), 0);
        } else {
            // 1111 is "used as an endmark in the case of an odd number of number digits" (TS 24.008 §10.5.4.7), and no
            // digit where somebody counts it as one.
            while digits.last() == Some(&END_MARK) {
                digits.pop();
            }
            // Between digits it would have us guess the number.
            if digits.contains(&END_MARK) {
                return None;
            }
        }
        if digits.len() > Address::DIGITS_MAX {
            return None;
        }
        let address = Address::of_digits(type_of_address, &digits);
        Some(Address { length: address.length.min(length as u8), ..address })
    }

    /// What is beyond [`Address::DIGITS_MAX`] is not taken.
    fn of_digits(type_of_address: u8, digits: &[u8]) -> Address {
        let mut octets = [0; Address::OCTETS_MAX];
        for (octet, pair) in octets.iter_mut().zip(digits.chunks(2)) {
            *octet = pair[0] | pair.get(1).unwrap_or(&END_MARK) << 4;
        }
        Address { type_of_address, length: digits.len().min(Address::DIGITS_MAX) as u8, octets }
    }

    pub(super) fn write(&self, out: &mut Vec<u8>) {
        out.push(self.length);
        out.extend(self.octets());
    }
}

/// A subscriber's number has 15 digits at most, so it always fits.
impl From<&Msisdn> for Address {
    fn from(number: &Msisdn) -> Address {
        let kind = if number.is_international() { Address::INTERNATIONAL } else { Address::UNKNOWN };
        let digits: Vec<u8> = number.digits().bytes().map(|digit| digit - b'0').collect();
        Address::of_digits(kind, &digits)
    }
}

impl fmt::Debug for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let number = self.number();
        let last = number.char_indices().nth_back(3).map_or(0, |(at, _)| at);
        write!(f, "Address({:#04x} …{})", self.type_of_address, &number[last..])
    }
}

/// TP-Validity-Period, as it was received: how long the centre shall keep trying.
///
/// Source: TS 23.040 §9.2.3.12.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Validity {
    Relative(u8),
    Absolute(Scts),
    Enhanced([u8; 7]),
}

impl Validity {
    /// When the message is no longer worth delivering.
    ///
    /// Shape:  `None` where the phone leaves it open, or says it in a way that is reserved or no date. A time that was past
    ///         already is returned as it is.
    /// Units:  seconds since 1970.
    /// Source: TS 23.040 §9.2.3.12.1 to §9.2.3.12.3.
    pub fn ends_at_s(&self, received_at_s: u64) -> Option<u64> {
        match self {
            Validity::Relative(value) => Some(received_at_s.saturating_add(relative_s(*value))),
            Validity::Absolute(time) => time.unix_s(),
            Validity::Enhanced(octets) => Some(received_at_s.saturating_add(enhanced_s(octets)?)),
        }
    }

    /// "…the SC is required to make up to one delivery attempt": bit 6 of the functionality indicator.
    pub fn is_single_shot(&self) -> bool {
        match self {
            Validity::Enhanced([indicator, ..]) => indicator & 0b0100_0000 != 0,
            Validity::Relative(_) | Validity::Absolute(_) => false,
        }
    }
}

/// The table of TS 23.040 §9.2.3.12.1.
fn relative_s(value: u8) -> u64 {
    const MINUTE: u64 = 60;
    const HOUR: u64 = 60 * MINUTE;
    const DAY: u64 = 24 * HOUR;
    let number = u64::from(value);
    match value {
        0..=143 => (number + 1) * 5 * MINUTE,
        144..=167 => 12 * HOUR + (number - 143) * 30 * MINUTE,
        168..=196 => (number - 166) * DAY,
        197..=255 => (number - 192) * 7 * DAY,
    }
}

/// Source: TS 23.040 §9.2.3.12.2.
fn enhanced_s(octets: &[u8; 7]) -> Option<u64> {
    // Bit 7: another octet of the functionality indicator follows. None is defined, so each is passed over.
    let indicators = octets.iter().position(|octet| octet & 0b1000_0000 == 0)? + 1;
    let period = &octets[indicators..];
    match octets[0] & 0b111 {
        0b001 => Some(relative_s(*period.first()?)),
        // "…in the range 0 to 255 representing 0 to 255 seconds. A TP-VP value of zero is undefined and reserved for
        // future use."
        0b010 => Some(u64::from(*period.first()?)).filter(|seconds| *seconds != 0),
        // "The following 3 octets contain the relative time in Hours, Minutes and Seconds".
        0b011 => {
            let [hours, minutes, seconds] = period.first_chunk()?.map(two_digits);
            Some(hours * 3600 + minutes * 60 + seconds)
        }
        // 000 is "No Validity Period specified", the others are reserved.
        _ => None,
    }
}

/// TP-Service-Centre-Time-Stamp: local time and its distance from UTC, in seven octets, kept as they were received.
///
/// Source: TS 23.040 §9.2.3.11.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct Scts([u8; 7]);

impl Scts {
    /// A time in UTC, from seconds since 1970.
    pub fn from_unix(secs: u64) -> Scts {
        Scts::new(secs, 0)
    }

    /// The local time at a place whose clocks are `offset_quarters` quarters of an hour ahead of UTC.
    ///
    /// Shape:  the field has room for 79 quarters either way; more is taken as 79. Of the year the last two digits are
    ///         kept.
    pub fn new(unix_s: u64, offset_quarters: i8) -> Scts {
        let offset_quarters = offset_quarters.clamp(-79, 79);
        let local_s = unix_s.saturating_add_signed(i64::from(offset_quarters) * QUARTER_S);
        let (year, month, day) = civil(local_s / DAY_S);
        let second = local_s % DAY_S;
        let fields = [year % 100, month, day, second / 3600, second / 60 % 60, second % 60];
        let mut octets = [0; 7];
        for (octet, field) in octets.iter_mut().zip(fields) {
            *octet = swapped(field as u8);
        }
        // "…the first bit (bit 3 of the seventh octet of the TP-Service-Centre-Time-Stamp field) represents the algebraic
        // sign of this difference (0: positive, 1: negative)."
        octets[6] = swapped(offset_quarters.unsigned_abs()) | flag(offset_quarters < 0, SIGN);
        Scts(octets)
    }

    pub fn from_octets(octets: [u8; 7]) -> Scts {
        Scts(octets)
    }

    pub fn octets(&self) -> [u8; 7] {
        self.0
    }

    /// Quarters of an hour that the local time is ahead of UTC.
    pub fn offset_quarters(&self) -> i8 {
        let quarters = two_digits(self.0[6] & !SIGN) as i8;
        if self.0[6] & SIGN == 0 { quarters } else { -quarters }
    }

    /// Seconds since 1970; `None` where the digits are no date or no time of day.
    ///
    /// The standard does not say which century: 70 to 99 are read as 1970 to 1999, the others as 2000 to 2069.
    pub fn unix_s(&self) -> Option<u64> {
        let [year, month, day, hour, minute, second] = self.0.first_chunk::<6>()?.map(two_digits);
        let year = if year < 70 { 2000 + year } else { 1900 + year };
        if !(1..=12).contains(&month) || day == 0 || hour > 23 || minute > 59 || second > 59 {
            return None;
        }
        let days = days(year, month, day);
        // Day 31 of a short month is the first of the next.
        if civil(days) != (year, month, day) {
            return None;
        }
        let local_s = days * DAY_S + hour * 3600 + minute * 60 + second;
        local_s.checked_add_signed(-i64::from(self.offset_quarters()) * QUARTER_S)
    }
}

const DAY_S: u64 = 86_400;
const QUARTER_S: i64 = 900;
const SIGN: u8 = 0b1000;

/// Year, month and day of a number of days since 1970-01-01, in the Gregorian calendar.
///
/// Counted from 1 March of the year 0: then the leap day is the last day of its year, and of each 400 years.
fn civil(days: u64) -> (u64, u64, u64) {
    let days = days + DAYS_BEFORE_1970;
    let (era, day_of_era) = (days / 146_097, days % 146_097);
    let year_of_era = (day_of_era - day_of_era / 1460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let month_from_march = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * month_from_march + 2) / 5 + 1;
    let month = if month_from_march < 10 { month_from_march + 3 } else { month_from_march - 9 };
    (400 * era + year_of_era + u64::from(month <= 2), month, day)
}

/// The other way, for 1970 and later.
fn days(year: u64, month: u64, day: u64) -> u64 {
    let year = year - u64::from(month <= 2);
    let (era, year_of_era) = (year / 400, year % 400);
    let day_of_year = (153 * ((month + 9) % 12) + 2) / 5 + day - 1;
    146_097 * era + 365 * year_of_era + year_of_era / 4 - year_of_era / 100 + day_of_year - DAYS_BEFORE_1970
}

/// From 1 March of the year 0.
const DAYS_BEFORE_1970: u64 = 719_468;

/// Why octets are no TPDU that we can read.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum BadTpdu {
    Short,
    NotSubmit,
    NotDeliver,
    NotStatusReport,
    NotCommand,
    NotSubmitReport,
    NotDeliverReport,
    /// More than 20 digits, or an end mark between digits.
    Address,
    /// A TP-User-Data-Length beyond 140 octets; in a report, beyond what any TPDU has.
    LongUserData,
    /// A report or command of more than 164 octets.
    LongReport,
}

impl BadTpdu {
    pub fn words(self) -> &'static str {
        match self {
            BadTpdu::Short => "a TPDU that is cut short",
            BadTpdu::NotSubmit => "a TPDU that is no SMS-SUBMIT",
            BadTpdu::NotDeliver => "a TPDU that is no SMS-DELIVER",
            BadTpdu::NotStatusReport => "a TPDU that is no SMS-STATUS-REPORT",
            BadTpdu::NotCommand => "a TPDU that is no SMS-COMMAND",
            BadTpdu::NotSubmitReport => "a TPDU that is no SMS-SUBMIT-REPORT",
            BadTpdu::NotDeliverReport => "a TPDU that is no SMS-DELIVER-REPORT",
            BadTpdu::LongReport => "a report or command of more than 164 octets",
            BadTpdu::Address => "a TPDU whose number has more than 20 digits or a gap",
            BadTpdu::LongUserData => "a TPDU with more than 140 octets of user data",
        }
    }
}

/// Why a text is no address.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum BadAddress {
    Empty,
    Digit,
    LongNumber,
    Character,
    LongName,
}

impl BadAddress {
    pub fn words(self) -> &'static str {
        match self {
            BadAddress::Empty => "a number has at least one digit, a name one character",
            BadAddress::Digit => {
                "a number has the digits 0 to 9, *, #, a, b and c, after a + where it is international"
            }
            BadAddress::LongNumber => "a number has at most 20 digits",
            BadAddress::Character => "a name has characters of the GSM alphabet",
            BadAddress::LongName => "a name has at most 11 characters, {, }, [, ], ~, ^, |, \\ and € counting twice",
        }
    }
}

told_by_words!(BadTpdu, BadAddress);

// The first octet. Bit 2 has another name in each direction, and so has bit 5.
pub(super) const TYPE: u8 = 0b0000_0011;
const DELIVER: u8 = 0b0000_0000;
const SUBMIT: u8 = 0b0000_0001;
pub(super) const NO_MORE: u8 = 0b0000_0100;
const REJECT_DUPLICATES: u8 = 0b0000_0100;
const VALIDITY: u8 = 0b0001_1000;
const VALIDITY_ENHANCED: u8 = 0b0000_1000;
const VALIDITY_RELATIVE: u8 = 0b0001_0000;
const VALIDITY_ABSOLUTE: u8 = 0b0001_1000;
pub(super) const REPORT: u8 = 0b0010_0000;
pub(super) const HEADER: u8 = 0b0100_0000;
const REPLY_PATH: u8 = 0b1000_0000;

pub(super) fn flag(set: bool, bit: u8) -> u8 {
    if set { bit } else { 0 }
}

const TYPE_OF_NUMBER: u8 = 0b0111_0000;

fn is_alphanumeric(type_of_address: u8) -> bool {
    type_of_address & TYPE_OF_NUMBER == Address::ALPHANUMERIC & TYPE_OF_NUMBER
}

/// By their value (TS 23.040 §9.1.2.3).
const DIGITS: &str = "0123456789*#abc";
const END_MARK: u8 = 0b1111;

/// Of each octet the lower half comes first.
fn semi_octets(octets: &[u8]) -> impl Iterator<Item = u8> {
    octets.iter().flat_map(|octet| [octet & 0x0F, octet >> 4])
}

/// "If the MS receives a non-integer value in the SCTS, it shall assume that the digit is set to 0": so do we.
fn two_digits(octet: u8) -> u64 {
    let digit = |semi_octet: u8| if semi_octet > 9 { 0 } else { u64::from(semi_octet) };
    10 * digit(octet & 0x0F) + digit(octet >> 4)
}

fn swapped(number: u8) -> u8 {
    ((number % 10) << 4) | (number / 10)
}

pub(super) fn octet(rest: &mut &[u8]) -> Result<u8, BadTpdu> {
    rest.split_off_first().copied().ok_or(BadTpdu::Short)
}

pub(super) fn seven(rest: &mut &[u8]) -> Result<[u8; 7], BadTpdu> {
    let octets = rest.split_off(..7).and_then(|octets| octets.first_chunk());
    octets.copied().ok_or(BadTpdu::Short)
}

/// "The Address-Length field is an integer representation of the number of useful semi-octets within the Address-Value
/// field" (TS 23.040 §9.1.2.5).
pub(super) fn address(rest: &mut &[u8]) -> Result<Address, BadTpdu> {
    let length = usize::from(octet(rest)?);
    let type_of_address = octet(rest)?;
    if length > Address::DIGITS_MAX {
        return Err(BadTpdu::Address);
    }
    let octets = rest.split_off(..length.div_ceil(2)).ok_or(BadTpdu::Short)?;
    Address::read(type_of_address, octets, length).ok_or(BadTpdu::Address)
}

fn user_data(rest: &mut &[u8], coding: Coding, has_header: bool) -> Result<UserData, BadTpdu> {
    user_data_in(rest, coding, has_header, OCTETS_MAX)
}

pub(super) fn user_data_in(
    rest: &mut &[u8],
    coding: Coding,
    has_header: bool,
    octets_max: usize,
) -> Result<UserData, BadTpdu> {
    let length = octet(rest)?;
    let octets = coding.octets(length);
    if octets > octets_max {
        return Err(BadTpdu::LongUserData);
    }
    let bytes = rest.split_off(..octets).ok_or(BadTpdu::Short)?.to_vec();
    Ok(UserData { coding, has_header, length, bytes })
}

pub(super) fn write_user_data(out: &mut Vec<u8>, data: &UserData) {
    out.push(data.length);
    out.extend(&data.bytes);
}
