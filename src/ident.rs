//! Who and where: IMSI, number, suffix, cell, network. Each type proves that its digits are right.
//!
//! Knows: the digits. Does not know: whom they belong to. All types are `Copy` and allocate nothing.
//! Read first: 3GPP TS 23.003 §2.2 (IMSI), §3.3 (MSISDN), §4.3 (cell).

use std::fmt;
use std::net::IpAddr;

use serde::{Deserialize, Serialize};

/// Why a text is not an identity; says what was expected, for the operator.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct IdentError(pub &'static str);

impl fmt::Display for IdentError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.0)
    }
}

impl std::error::Error for IdentError {}

/// Up to 15 ASCII digits, kept in place.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
struct Digits {
    bytes: [u8; 15],
    len: u8,
}

impl Digits {
    fn parse(text: &str) -> Option<Digits> {
        let raw = text.as_bytes();
        if raw.len() > 15 || !raw.iter().all(u8::is_ascii_digit) {
            return None;
        }
        let mut bytes = [0; 15];
        bytes[..raw.len()].copy_from_slice(raw);
        Some(Digits { bytes, len: raw.len() as u8 })
    }

    fn as_str(&self) -> &str {
        std::str::from_utf8(&self.bytes[..usize::from(self.len)]).unwrap_or_default()
    }
}

/// The identity on the SIM and the shard key: 14 or 15 digits (TS 23.003 §2.2: "not more than 15 digits").
///
/// `Display` writes all digits; `Debug` and [`Imsi::short`] the last four, for logs.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Imsi(Digits);

impl Imsi {
    /// Accepts the digits with or without a leading `IMSI` in any case.
    pub fn parse(text: &str) -> Result<Imsi, IdentError> {
        const WRONG: IdentError = IdentError("an IMSI has 14 or 15 digits, with or without a leading IMSI");
        let digits = match text.get(..4) {
            Some(head) if head.eq_ignore_ascii_case("IMSI") => &text[4..],
            _ => text,
        };
        match Digits::parse(digits) {
            Some(digits) if digits.len >= 14 => Ok(Imsi(digits)),
            _ => Err(WRONG),
        }
    }

    pub fn as_str(&self) -> &str {
        self.0.as_str()
    }

    /// The last four digits, with an ellipsis: what a log line shows.
    pub fn short(&self) -> String {
        let text = self.as_str();
        format!("…{}", &text[text.len() - 4..])
    }
}

impl TryFrom<String> for Imsi {
    type Error = IdentError;

    fn try_from(text: String) -> Result<Imsi, IdentError> {
        Imsi::parse(&text)
    }
}

impl From<Imsi> for String {
    fn from(imsi: Imsi) -> String {
        imsi.as_str().to_owned()
    }
}

impl fmt::Display for Imsi {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl fmt::Debug for Imsi {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Imsi({})", self.short())
    }
}

/// A number that others dial: 2 to 15 digits, with `+` where it is international (E.164), else a short number.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Msisdn {
    international: bool,
    digits: Digits,
}

impl Msisdn {
    pub fn parse(text: &str) -> Result<Msisdn, IdentError> {
        const WRONG: IdentError = IdentError("a number has 2 to 15 digits, with a leading + where it is international");
        let (international, digits) = match text.strip_prefix('+') {
            Some(rest) => (true, rest),
            None => (false, text),
        };
        match Digits::parse(digits) {
            Some(digits) if digits.len >= 2 => Ok(Msisdn { international, digits }),
            _ => Err(WRONG),
        }
    }

    pub fn is_international(&self) -> bool {
        self.international
    }

    /// The digits without `+`.
    pub fn digits(&self) -> &str {
        self.digits.as_str()
    }

    /// `…0001`: what a log line shows.
    pub fn short(&self) -> String {
        let text = self.digits();
        format!("…{}", &text[text.len().saturating_sub(4)..])
    }
}

impl TryFrom<String> for Msisdn {
    type Error = IdentError;

    fn try_from(text: String) -> Result<Msisdn, IdentError> {
        Msisdn::parse(&text)
    }
}

impl From<Msisdn> for String {
    fn from(number: Msisdn) -> String {
        number.to_string()
    }
}

impl fmt::Display for Msisdn {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}{}", if self.international { "+" } else { "" }, self.digits())
    }
}

impl fmt::Debug for Msisdn {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Msisdn({})", self.short())
    }
}

/// A language, by the two or three letters of ISO 639: `sw`.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct Language([u8; 3]);

impl Language {
    pub fn parse(text: &str) -> Result<Language, IdentError> {
        let bytes = text.as_bytes();
        if !(2..=3).contains(&bytes.len()) || !bytes.iter().all(u8::is_ascii_lowercase) {
            return Err(IdentError("a language is two or three small letters: en"));
        }
        let mut letters = [0; 3];
        letters[..bytes.len()].copy_from_slice(bytes);
        Ok(Language(letters))
    }

    pub fn as_str(&self) -> &str {
        let len = self.0.iter().take_while(|letter| **letter != 0).count();
        std::str::from_utf8(&self.0[..len]).unwrap_or_default()
    }
}

impl Default for Language {
    fn default() -> Language {
        Language(*b"en\0")
    }
}

/// The last digits of an IMSI that select a shard: 1 to 10 digits.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Suffix(Digits);

impl Suffix {
    pub const DIGITS_MAX: usize = 10;

    pub fn parse(text: &str) -> Result<Suffix, IdentError> {
        match Digits::parse(text) {
            Some(digits) if (1..=Self::DIGITS_MAX as u8).contains(&digits.len) => Ok(Suffix(digits)),
            _ => Err(IdentError("a suffix has 1 to 10 digits")),
        }
    }

    pub fn as_str(&self) -> &str {
        self.0.as_str()
    }

    pub fn matches(&self, imsi: &Imsi) -> bool {
        imsi.as_str().ends_with(self.as_str())
    }
}

impl fmt::Display for Suffix {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl fmt::Debug for Suffix {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Suffix({self})")
    }
}

/// A cell: network, location area and cell identity, as a base station names it.
///
/// Shown as `001-01-1000-10`: MCC, MNC (2 or 3 digits), LAC and CI in decimal.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct CellId {
    pub mcc: u16,
    pub mnc: u16,
    pub mnc_digits: u8,
    pub lac: u16,
    pub ci: u16,
}

impl CellId {
    /// Reads the value of `cgi-3gpp=`: MCC, MNC, LAC `%04x`, CI `%04x`, glued. "MNC may be 2 or 3 digits", so LAC and CI
    /// are read from the right (wire.md 1.2).
    pub fn parse_cgi(text: &str) -> Option<CellId> {
        if !text.is_ascii() || !(13..=14).contains(&text.len()) {
            return None;
        }
        let (plmn, rest) = text.split_at(text.len() - 8);
        if !plmn.bytes().all(|byte| byte.is_ascii_digit()) || !rest.bytes().all(|byte| byte.is_ascii_hexdigit()) {
            return None;
        }
        Some(CellId {
            mcc: plmn[..3].parse().ok()?,
            mnc: plmn[3..].parse().ok()?,
            mnc_digits: (plmn.len() - 3) as u8,
            lac: u16::from_str_radix(&rest[..4], 16).ok()?,
            ci: u16::from_str_radix(&rest[4..], 16).ok()?,
        })
    }
}

impl CellId {
    pub fn plmn(&self) -> Plmn {
        Plmn { mcc: self.mcc, mnc: self.mnc, mnc_digits: self.mnc_digits }
    }
}

impl fmt::Display for CellId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}-{}-{}", self.plmn(), self.lac, self.ci)
    }
}

/// A network: MCC and MNC, shown as `001-01`. `01` and `001` are two (TS 23.003 §2.2: an MNC has two or three digits).
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct Plmn {
    pub mcc: u16,
    pub mnc: u16,
    pub mnc_digits: u8,
}

impl fmt::Display for Plmn {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let width = usize::from(self.mnc_digits);
        write!(f, "{:03}-{:0width$}", self.mcc, self.mnc)
    }
}

/// An address or a network in CIDR notation: `192.0.2.1`, `192.0.2.0/28`, `2001:db8::/32`.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Network {
    address: IpAddr,
    prefix: u8,
}

impl Network {
    pub fn parse(text: &str) -> Result<Network, IdentError> {
        const WRONG: IdentError = IdentError("an address or a network looks like 192.0.2.1 or 192.0.2.0/28");
        let (address, prefix) = match text.split_once('/') {
            Some((address, prefix)) => (address, Some(prefix)),
            None => (text, None),
        };
        let address: IpAddr = address.parse().map_err(|_| WRONG)?;
        let most = if address.is_ipv4() { 32 } else { 128 };
        let prefix = match prefix {
            None => most,
            Some(prefix) => prefix.parse().ok().filter(|prefix| *prefix <= most).ok_or(WRONG)?,
        };
        Ok(Network { address, prefix })
    }

    pub fn contains(&self, address: IpAddr) -> bool {
        fn bits(address: IpAddr) -> (u128, u32) {
            match address {
                IpAddr::V4(v4) => (u128::from(u32::from(v4)), 32),
                IpAddr::V6(v6) => (u128::from(v6), 128),
            }
        }
        let ((own, width), (other, other_width)) = (bits(self.address), bits(address.to_canonical()));
        let keep = u32::from(self.prefix);
        width == other_width && (keep == 0 || (own ^ other) >> (width - keep) == 0)
    }
}

impl fmt::Display for Network {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.address, self.prefix)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_imsi_is_the_same_with_and_without_its_prefix() {
        for text in ["001010000000001", "IMSI001010000000001", "imsi001010000000001"] {
            assert_eq!(Imsi::parse(text).unwrap().as_str(), "001010000000001");
        }
        for text in [
            "",
            "IMSI",
            "0010100000001",
            "0010100000000011",
            "00101000000000x",
            "IMSIIMSI00101000000000",
            "é01010000000001",
        ] {
            assert!(Imsi::parse(text).is_err(), "{text}");
        }
        assert_eq!(format!("{:?}", Imsi::parse("001010000000001").unwrap()), "Imsi(…0001)");
    }

    #[test]
    fn lac_and_ci_are_read_from_the_right() {
        let cell = CellId::parse_cgi("0010103e8000a").unwrap();
        assert_eq!(cell.to_string(), "001-01-1000-10");
        assert_eq!(CellId::parse_cgi("31041003e8000a").unwrap().to_string(), "310-410-1000-10");
        assert!(CellId::parse_cgi("001013e8000a").is_none());
    }

    #[test]
    fn a_network_contains_its_addresses() {
        let network = Network::parse("192.0.2.0/28").unwrap();
        assert!(network.contains("192.0.2.15".parse().unwrap()) && !network.contains("192.0.2.16".parse().unwrap()));
        assert!(Network::parse("0.0.0.0/0").unwrap().contains("8.8.8.8".parse().unwrap()));
        assert!(network.contains("::ffff:192.0.2.3".parse().unwrap()));
        assert!(Network::parse("2001:db8::/32").unwrap().contains("2001:db8::1".parse().unwrap()));
        assert!(Network::parse("192.0.2.0/33").is_err());
    }
}
