//! Octets as they travel: base64, quoted-printable and charsets, each read as far as it can be.
//!
//! The tables of charsets are mail-parser's; its decoders of transfer encodings give up at the first wrong octet, these do not.

use std::borrow::Cow;

use mail_parser::decoders::charsets::map::charset_decoder;

use super::header::hex;

/// RFC 2045 §6.8: what is no digit of it is passed over.
pub fn base64(coded: &[u8]) -> Vec<u8> {
    let mut octets = Vec::with_capacity(coded.len() / 4 * 3 + 3);
    let (mut bits, mut count) = (0_u32, 0);
    for octet in coded {
        let value = match octet {
            b'A'..=b'Z' => octet - b'A',
            b'a'..=b'z' => octet - b'a' + 26,
            b'0'..=b'9' => octet - b'0' + 52,
            b'+' | b'-' => 62,
            b'/' | b'_' => 63,
            b'=' => {
                // The end of one text; another may follow where somebody has put two together.
                (bits, count) = (0, 0);
                continue;
            }
            _ => continue,
        };
        bits = bits << 6 | u32::from(value);
        count += 6;
        if count >= 8 {
            count -= 8;
            octets.push((bits >> count) as u8);
            bits &= (1 << count) - 1;
        }
    }
    octets
}

/// RFC 2045 §6.7: a `=` that begins nothing is one; blanks at the end of a line are nobody's.
pub fn quoted_printable(coded: &[u8]) -> Vec<u8> {
    let mut octets = Vec::with_capacity(coded.len());
    for line in coded.split_inclusive(|octet| *octet == b'\n') {
        let words = line.trim_ascii_end();
        let is_soft = words.ends_with(b"=");
        let words = if is_soft { &words[..words.len() - 1] } else { words };
        quoted(words, &mut octets, false);
        if !is_soft && line.ends_with(b"\n") {
            octets.push(b'\n');
        }
    }
    octets
}

/// The Q encoding (RFC 2047 §4.2).
pub fn quoted_word(coded: &[u8]) -> Vec<u8> {
    let mut octets = Vec::with_capacity(coded.len());
    quoted(coded, &mut octets, true);
    octets
}

fn quoted(coded: &[u8], octets: &mut Vec<u8>, underscore_is_blank: bool) {
    let mut rest = coded;
    while let Some((first, behind)) = rest.split_first() {
        rest = behind;
        match first {
            b'=' => match behind.first_chunk().and_then(hex) {
                Some(octet) => {
                    octets.push(octet);
                    rest = &behind[2..];
                }
                None => octets.push(b'='),
            },
            b'_' if underscore_is_blank => octets.push(b' '),
            _ => octets.push(*first),
        }
    }
}

/// To UTF-8. Of an unknown charset or none: UTF-8 where it is that, else what most mean who say nothing, windows-1252.
///
/// US-ASCII with octets above 127 is what is sent by those who do not know what they send, and is read so, too.
pub fn charset<'a>(name: Option<&str>, octets: &'a [u8]) -> Cow<'a, str> {
    let name = name.map(|name| name.trim().trim_matches(['"', '\''])).filter(|name| !name.is_empty());
    let says_nothing = name.is_none_or(|name| {
        ["us-ascii", "ascii", "utf-8", "utf8", "unicode-1-1-utf-8", "unknown-8bit", "x-unknown", "default"]
            .iter()
            .any(|nothing| name.eq_ignore_ascii_case(nothing))
    });
    let octets = octets.strip_prefix(b"\xEF\xBB\xBF").unwrap_or(octets);
    let decoder = if says_nothing { None } else { name.and_then(|name| charset_decoder(name.as_bytes())) };
    if let Some(decoder) = decoder {
        return Cow::Owned(decoder(octets));
    }
    let utf_8_is_said = name.is_some_and(|name| name.to_ascii_lowercase().contains("utf"));
    match std::str::from_utf8(octets) {
        Ok(text) => Cow::Borrowed(text),
        // Mostly UTF-8: somebody has cut it in the middle of a character.
        Err(_) if utf_8_is_said || is_mostly_utf_8(octets) => String::from_utf8_lossy(octets),
        Err(_) => match charset_decoder(b"windows-1252") {
            Some(decoder) => Cow::Owned(decoder(octets)),
            None => String::from_utf8_lossy(octets),
        },
    }
}

/// More characters of several octets than octets that are part of none.
fn is_mostly_utf_8(octets: &[u8]) -> bool {
    let (mut good, mut bad) = (0, 0);
    for chunk in octets.utf8_chunks() {
        good += chunk.valid().chars().filter(|char| !char.is_ascii()).count();
        bad += usize::from(!chunk.invalid().is_empty());
    }
    good > bad
}
