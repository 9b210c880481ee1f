//! Text as a short message carries it: the data coding scheme, the GSM 7-bit alphabet, UCS-2.
//!
//! Knows: how the octets of a TP-User-Data become a `String` and back. Does not know: what stands in a user data header
//! ([`super::header`]), only how long it is and which tables it chooses; whose text it is; how a longer text is cut into segments
//! ([`super::segment`]). Reads and writes nothing.
//! Limits: one message has 160 septets or 140 octets ([`SEPTETS_MAX`], [`OCTETS_MAX`]).
//! Read first: TS 23.038 §4 (data coding scheme), §6.1.2.1 (packing), §6.2.1 (alphabet); TS 23.040 §9.2.3.24 (header).

use std::fmt;

use super::national::{Language, Languages};

/// What fits the user data of one message (TS 23.040 §9.2.3.24): 140 octets, which are 160 septets.
pub const OCTETS_MAX: usize = 140;
pub const SEPTETS_MAX: usize = 160;
/// 70 characters, or fewer where some of them are surrogate pairs.
pub const UCS2_UNITS_MAX: usize = 70;

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Alphabet {
    Gsm7,
    /// "8 bit data is user defined" (TS 23.038 §6.2.2): no text for us.
    EightBit,
    /// The standard says UCS-2; phones write UTF-16 in it, and so do we.
    Ucs2,
}

/// The message class: where the phone puts it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Class {
    /// Class 0: shown at once, not stored.
    Flash,
    /// Class 1.
    Phone,
    /// Class 2.
    Sim,
    /// Class 3: the terminal beside the phone.
    Terminal,
}

/// TP-DCS, the data coding scheme: one octet, all 256 of which mean something.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct Coding(pub u8);

impl Coding {
    /// The GSM alphabet, without a class.
    pub const GSM7: Coding = Coding(0x00);
    /// UCS-2, without a class.
    pub const UCS2: Coding = Coding(0x08);

    /// Shape:  `None` where the text is compressed: nobody here can read it.
    /// Source: TS 23.038 §4.
    pub fn alphabet(self) -> Option<Alphabet> {
        match self.0 >> 4 {
            _ if self.is_compressed() => None,
            // General data coding, and the same marked for automatic deletion: bits 3 and 2 are the alphabet.
            0b0000..=0b0111 => match self.0 >> 2 & 0b11 {
                0b01 => Some(Alphabet::EightBit),
                0b10 => Some(Alphabet::Ucs2),
                // "Any reserved codings shall be assumed to be the GSM 7 bit default alphabet (the same as codepoint
                // 00000000) by a receiving entity." 11 is one of those.
                _ => Some(Alphabet::Gsm7),
            },
            // Message waiting, with a text to be stored, in UCS-2.
            0b1110 => Some(Alphabet::Ucs2),
            0b1111 if self.0 & 0b0100 != 0 => Some(Alphabet::EightBit),
            // Data coding and message class; message waiting 1100 and 1101; the reserved groups 1000 to 1011.
            _ => Some(Alphabet::Gsm7),
        }
    }

    /// Shape:  `None` where the coding has no class, which is the usual case.
    /// Source: TS 23.038 §4.
    pub fn class(self) -> Option<Class> {
        // In the general groups bit 4 set to 1 "indicates that bits 1 to 0 have a message class meaning".
        let has_class = self.0 >> 4 == 0b1111 || self.0 & 0b1001_0000 == 0b0001_0000;
        has_class.then_some(match self.0 & 0b11 {
            0 => Class::Flash,
            1 => Class::Phone,
            2 => Class::Sim,
            _ => Class::Terminal,
        })
    }

    /// Bit 5 of the general groups.
    pub fn is_compressed(self) -> bool {
        self.0 & 0b1010_0000 == 0b0010_0000
    }

    /// How many octets a TP-User-Data of this TP-User-Data-Length has.
    ///
    /// "If the TP-User-Data is coded using the GSM 7 bit default alphabet, the TP-User-Data-Length field gives an integer
    /// representation of the number of septets within the TP-User-Data field to follow"; with any other, and with
    /// compressed text, of octets.
    ///
    /// Source: TS 23.040 §9.2.3.16.
    pub fn octets(self, length: u8) -> usize {
        match self.alphabet() {
            Some(Alphabet::Gsm7) => (7 * usize::from(length)).div_ceil(8),
            Some(Alphabet::EightBit | Alphabet::Ucs2) | None => length.into(),
        }
    }
}

/// TP-User-Data with what it takes to read it. `Debug` shows no octet of it: it is somebody's letter.
///
/// Shape:  `bytes` has `coding.octets(length)` octets, header included, and `length` counts the header too. Whatever is
///         decoded or encoded here is so; a value made otherwise is written as it is and read as far as it goes.
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct UserData {
    pub coding: Coding,
    /// TP-UDHI: `bytes` begins with a header.
    pub has_header: bool,
    /// TP-UDL: septets for the GSM alphabet, else octets.
    pub length: u8,
    pub bytes: Vec<u8>,
}

impl UserData {
    /// The user data header with its length octet; empty where there is none.
    ///
    /// Errors: [`NoText::Header`].
    /// Source: TS 23.040 §9.2.3.24.
    pub fn header(&self) -> Result<&[u8], NoText> {
        match self.bytes.first() {
            _ if !self.has_header => Ok(&[]),
            Some(header_octets) => self.bytes.get(..=usize::from(*header_octets)).ok_or(NoText::Header),
            None => Err(NoText::Header),
        }
    }
}

impl fmt::Debug for UserData {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let header = if self.has_header { ", header" } else { "" };
        write!(f, "UserData(coding {:#04x}{header}, length {}, …)", self.coding.0, self.length)
    }
}

/// The shortest coding of a text: GSM 7-bit where it has every character, else UCS-2.
///
/// Shape:  no header and no class. The `é` of one code point is in the GSM alphabet, the one of two is not: the text is
///         not normalised.
/// Errors: [`TooLong`]; nothing is cut off. [`fitting`] cuts.
/// Source: TS 23.038 §6.2.
/// Tests:  tests/gsm_sms.rs
pub fn encode(text: &str) -> Result<UserData, TooLong> {
    // An escaped character has two septets and one UCS-2 unit, so 70 units are at most 140 septets: where the GSM
    // alphabet does not fit, UCS-2 does not either.
    let (alphabet, coding, length, length_max, bytes) = match septets(text) {
        Some(septets) => (Alphabet::Gsm7, Coding::GSM7, septets.len(), SEPTETS_MAX, pack(&septets, 0)),
        None => {
            let bytes: Vec<u8> = text.encode_utf16().flat_map(u16::to_be_bytes).collect();
            (Alphabet::Ucs2, Coding::UCS2, bytes.len(), OCTETS_MAX, bytes)
        }
    };
    match u8::try_from(length) {
        Ok(length) if usize::from(length) <= length_max => Ok(UserData { coding, has_header: false, length, bytes }),
        Ok(_) | Err(_) => Err(TooLong { alphabet }),
    }
}

/// The longest beginning of a text that [`encode`] takes. It ends between two characters: no surrogate pair and no
/// escape sequence is split.
pub fn fitting(text: &str) -> &str {
    let (mut septets, mut units, mut in_gsm) = (0, 0, true);
    for (at, char) in text.char_indices() {
        match code(char, Languages::default()) {
            Some(Code::Basic(_)) => septets += 1,
            Some(Code::Extended(_)) => septets += 2,
            None => in_gsm = false,
        }
        units += char.len_utf16();
        if !(in_gsm && septets <= SEPTETS_MAX || units <= UCS2_UNITS_MAX) {
            return &text[..at];
        }
    }
    text
}

/// The text of a user data, without its header.
///
/// Shape:  half a surrogate pair or half a unit becomes U+FFFD: a segment may end anywhere.
/// Errors: [`NoText`].
/// Source: TS 23.038 §6.2; TS 23.040 §9.2.3.24 (where the text begins behind a header).
/// Tests:  tests/gsm_sms.rs
pub fn decode(data: &UserData) -> Result<String, NoText> {
    body(data).map(Body::text)
}

/// What stands behind the header, before it is a text.
pub(super) enum Body {
    Gsm(Vec<u8>, Languages),
    Ucs2(Vec<u8>),
}

impl Body {
    pub(super) fn text(self) -> String {
        match self {
            Body::Gsm(septets, languages) => gsm_text_in(septets, languages),
            Body::Ucs2(octets) => ucs2_text(&octets),
        }
    }
}

pub(super) fn body(data: &UserData) -> Result<Body, NoText> {
    let header = data.header()?;
    let body = &data.bytes[header.len()..];
    match data.coding.alphabet() {
        Some(Alphabet::Gsm7) => {
            // "If 7 bit data is used and the TP-UD-Header does not finish on a septet boundary then fill bits are
            // inserted after the last Information Element Data octet so that there is an integral number of septets
            // for the entire TP-UD header."
            let header_bits = 8 * header.len();
            let header_septets = header_bits.div_ceil(7);
            let count = usize::from(data.length).checked_sub(header_septets).ok_or(NoText::Header)?;
            let septets = unpack(body, 7 * header_septets - header_bits, count).collect();
            Ok(Body::Gsm(septets, Languages::of(header)))
        }
        Some(Alphabet::Ucs2) => Ok(Body::Ucs2(body.to_vec())),
        Some(Alphabet::EightBit) => Err(NoText::EightBit),
        None => Err(NoText::Compressed),
    }
}

/// Why a text does not go into one message.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct TooLong {
    /// What it would have been written in.
    pub alphabet: Alphabet,
}

impl TooLong {
    pub fn words(self) -> &'static str {
        match self.alphabet {
            Alphabet::Gsm7 => "a message has 160 characters of the GSM alphabet; this text has more",
            Alphabet::EightBit | Alphabet::Ucs2 => {
                "a message has 70 characters where one of them is not in the GSM alphabet; this text has more"
            }
        }
    }
}

/// Why a user data cannot be read as text. It can still be passed on.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum NoText {
    EightBit,
    Compressed,
    /// The header is longer than the user data.
    Header,
}

impl NoText {
    pub fn words(self) -> &'static str {
        match self {
            NoText::EightBit => "8-bit data, which is no text",
            NoText::Compressed => "compressed text",
            NoText::Header => "a user data header that is longer than the user data",
        }
    }
}

told_by_words!(TooLong, NoText);

/// The septets of a text, escapes included; `None` where the GSM alphabet lacks a character.
pub fn septets(text: &str) -> Option<Vec<u8>> {
    septets_in(text, Languages::default())
}

/// The same, in tables that the caller has chosen and will name in the header.
pub fn septets_in(text: &str, languages: Languages) -> Option<Vec<u8>> {
    let mut out = Vec::with_capacity(text.len());
    for char in text.chars() {
        match code(char, languages)? {
            Code::Basic(code) => out.push(code),
            Code::Extended(code) => out.extend([ESCAPE, code]),
        }
    }
    Some(out)
}

/// How many septets one character has.
pub(super) fn septets_of(char: char, languages: Languages) -> Option<usize> {
    code(char, languages).map(|code| match code {
        Code::Basic(_) => 1,
        Code::Extended(_) => 2,
    })
}

/// The text of septets; any septets have one.
///
/// Source: TS 23.038 §6.2.1 and §6.2.1.1.
pub fn gsm_text(septets: impl IntoIterator<Item = u8>) -> String {
    gsm_text_in(septets, Languages::default())
}

/// The same, in the tables that the header chose.
///
/// Shape:  U+FFFD for a septet that has no character in a national locking shift table.
/// Source: TS 23.038 §6.2.1.2.
pub fn gsm_text_in(septets: impl IntoIterator<Item = u8>, languages: Languages) -> String {
    let mut out = String::new();
    let mut escaped = false;
    for septet in septets {
        let septet = septet & 0x7F;
        if escaped {
            // "In the event that an MS receives a code where a symbol is not represented in the above table then the MS
            // shall display either the character shown in the main GSM 7 bit default alphabet table …": we do. A second
            // escape "is reserved for the extension to another extension table. On receipt of this code, a receiving
            // entity shall display a space until another extension table is defined", and a space is what BASIC has.
            out.push(extended(septet, languages).unwrap_or_else(|| basic(septet, languages)));
            escaped = false;
        } else if septet == ESCAPE {
            escaped = true;
        } else {
            out.push(basic(septet, languages));
        }
    }
    if escaped {
        // Nothing follows that it could escape. An entity that "does not understand the meaning of this escape mechanism
        // shall display it as a space character".
        out.push(basic(ESCAPE, languages));
    }
    out
}

/// Septets into octets, the first of them after `fill_bits` zeros.
///
/// Source: TS 23.038 §6.1.2.1.1: the first septet is in the low bits of the first octet.
pub fn pack(septets: &[u8], fill_bits: usize) -> Vec<u8> {
    let mut out = vec![0; (fill_bits + 7 * septets.len()).div_ceil(8)];
    for (place, septet) in septets.iter().enumerate() {
        let bit = fill_bits + 7 * place;
        let [low, high] = (u16::from(septet & 0x7F) << (bit % 8)).to_le_bytes();
        out[bit / 8] |= low;
        // Zero where the septet ends in this octet, and the last one ends in the last octet.
        if let Some(next) = out.get_mut(bit / 8 + 1) {
            *next |= high;
        }
    }
    out
}

/// The other way; ends early where the octets do.
pub fn unpack(octets: &[u8], fill_bits: usize, count: usize) -> impl Iterator<Item = u8> {
    (0..count).map_while(move |place| {
        let bit = fill_bits + 7 * place;
        let low = *octets.get(bit / 8)?;
        let high = match octets.get(bit / 8 + 1) {
            Some(next) => *next,
            None if bit % 8 <= 1 => 0,
            None => return None,
        };
        Some((u16::from_le_bytes([low, high]) >> (bit % 8)) as u8 & 0x7F)
    })
}

fn ucs2_text(octets: &[u8]) -> String {
    let (pairs, rest) = octets.as_chunks();
    let units = pairs.iter().map(|pair| u16::from_be_bytes(*pair));
    let mut out: String = char::decode_utf16(units).map(|char| char.unwrap_or(char::REPLACEMENT_CHARACTER)).collect();
    if !rest.is_empty() {
        out.push(char::REPLACEMENT_CHARACTER);
    }
    out
}

enum Code {
    Basic(u8),
    Extended(u8),
}

fn code(char: char, languages: Languages) -> Option<Code> {
    if char == char::REPLACEMENT_CHARACTER {
        return None;
    }
    // Letters, digits and most other signs of ASCII stand at their own places in the default alphabet: no search.
    if languages.locking.is_none()
        && let Ok(code @ 0..128) = u8::try_from(char)
        && code != ESCAPE
        && BASIC[usize::from(code)] == char
    {
        return Some(Code::Basic(code));
    }
    // The space at ESCAPE's place is for reading only.
    match (0..128).find(|code| *code != ESCAPE && basic(*code, languages) == char) {
        Some(code) => Some(Code::Basic(code)),
        None => match languages.single.map(Language::single_table) {
            None => EXTENSION.iter().find(|(_, found)| *found == char).map(|(code, _)| Code::Extended(*code)),
            Some(table) => {
                table.iter().find(|(_, cell)| symbol(*cell) == Some(char)).map(|(code, _)| Code::Extended(*code))
            }
        },
    }
}

fn basic(septet: u8, languages: Languages) -> char {
    match languages.locking.and_then(Language::locking_table) {
        None => BASIC[usize::from(septet)],
        Some(table) => symbol(table[usize::from(septet)]).unwrap_or(char::REPLACEMENT_CHARACTER),
    }
}

/// Behind an escape.
fn extended(septet: u8, languages: Languages) -> Option<char> {
    match languages.single.map(Language::single_table) {
        None => EXTENSION.iter().find(|(code, _)| *code == septet).map(|(_, char)| *char),
        Some(table) => table.iter().find(|(code, _)| *code == septet).and_then(|(_, char)| symbol(*char)),
    }
}

/// Of a cell in a national table, where zero stands for no character.
fn symbol(cell: u16) -> Option<char> {
    char::from_u32(cell.into()).filter(|char| *char != '\0')
}

const ESCAPE: u8 = 0x1B;

/// The GSM 7 bit default alphabet: each line here is a column of the table in TS 23.038 §6.2.1.
///
/// 0x09 is the capital Ç; tables that have the small one there are not the standard's.
#[rustfmt::skip]
static BASIC: [char; 128] = [
    '@', '£', '$', '¥', 'è', 'é', 'ù', 'ì', 'ò', 'Ç', '\n', 'Ø', 'ø', '\r', 'Å', 'å',
    'Δ', '_', 'Φ', 'Γ', 'Λ', 'Ω', 'Π', 'Ψ', 'Σ', 'Θ', 'Ξ', ' ', 'Æ', 'æ', 'ß', 'É',
    ' ', '!', '"', '#', '¤', '%', '&', '\'', '(', ')', '*', '+', ',', '-', '.', '/',
    '0', '1', '2', '3', '4', '5', '6', '7', '8', '9', ':', ';', '<', '=', '>', '?',
    '¡', 'A', 'B', 'C', 'D', 'E', 'F', 'G', 'H', 'I', 'J', 'K', 'L', 'M', 'N', 'O',
    'P', 'Q', 'R', 'S', 'T', 'U', 'V', 'W', 'X', 'Y', 'Z', 'Ä', 'Ö', 'Ñ', 'Ü', '§',
    '¿', 'a', 'b', 'c', 'd', 'e', 'f', 'g', 'h', 'i', 'j', 'k', 'l', 'm', 'n', 'o',
    'p', 'q', 'r', 's', 't', 'u', 'v', 'w', 'x', 'y', 'z', 'ä', 'ö', 'ñ', 'ü', 'à',
];

/// The extension table of TS 23.038 §6.2.1.1: what stands behind an escape.
static EXTENSION: [(u8, char); 10] = [
    (0x0A, '\u{c}'),
    (0x14, '^'),
    (0x28, '{'),
    (0x29, '}'),
    (0x2F, '\\'),
    (0x3C, '['),
    (0x3D, '~'),
    (0x3E, ']'),
    (0x40, '|'),
    (0x65, '€'),
];
