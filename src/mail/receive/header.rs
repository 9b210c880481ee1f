//! The fields of a header, and what stands in them: words in any charset, parameters, addresses, Message-IDs.
//!
//! Knows: RFC 5322 §2.2 and §3, RFC 2047, RFC 2231. Does not know: which of the fields matter.
//! Every function reads what there is; of a field no more than [`VALUE_BYTES_MAX`].

use std::borrow::Cow;

use memchr::memchr;

use super::coding::{base64, charset, quoted_word};
use super::tokens::{Token, Tokens};
use crate::mail::address::Address;

/// Of a field so much is looked at: more than any that is meant.
pub const VALUE_BYTES_MAX: usize = 16 * 1024;
pub const PARAMETERS_MAX: usize = 64;
const WORDS_BYTES_MAX: usize = 1000;
const IDS_MAX: usize = 100;

/// One field as it stands: its name, what is behind the colon, and its octets with the line ends.
pub struct Field<'a> {
    pub name: &'a [u8],
    pub value: &'a [u8],
    pub raw: &'a [u8],
}

impl Field<'_> {
    pub fn is(&self, name: &str) -> bool {
        self.name.eq_ignore_ascii_case(name.as_bytes())
    }

    /// On one line, its words not yet decoded.
    pub fn line(&self) -> String {
        unfolded(self.value)
    }
}

/// The fields of a header one after the other; afterwards [`Fields::rest`] is the body.
///
/// A line that is neither a field nor the continuation of one ends the header, as the empty line does that was forgotten before it.
/// The `From ` line of a mailbox file, wherever it stands, is no field and ends nothing.
pub struct Fields<'a> {
    all: &'a [u8],
    at: usize,
}

impl<'a> Fields<'a> {
    pub fn of(octets: &'a [u8]) -> Fields<'a> {
        Fields { all: octets, at: 0 }
    }

    pub fn rest(&self) -> &'a [u8] {
        &self.all[self.at..]
    }

    /// The end of the line that begins there, behind its line end.
    fn line_end(&self, from: usize) -> usize {
        memchr(b'\n', &self.all[from..]).map_or(self.all.len(), |length| from + length + 1)
    }
}

impl<'a> Iterator for Fields<'a> {
    type Item = Field<'a>;

    fn next(&mut self) -> Option<Field<'a>> {
        loop {
            let start = self.at;
            let mut end = self.line_end(start);
            let line = &self.all[start..end];
            match line {
                b"" => return None,
                b"\n" | b"\r\n" | b"\r" => {
                    self.at = end;
                    return None;
                }
                _ => (),
            }
            if line.starts_with(b"From ") || line.starts_with(b">From ") {
                self.at = end;
                continue;
            }
            let is_name = |octet: &u8| (33..=126).contains(octet);
            let colon = memchr(b':', line)?;
            let name = line[..colon].trim_ascii_end();
            if name.is_empty() || !name.iter().all(is_name) {
                return None;
            }
            while let Some(b' ' | b'\t') = self.all.get(end) {
                // A line of nothing but blanks is the end of the header to whoever trims his lines, and goes on to nobody.
                let next = self.line_end(end);
                if self.all[end..next].trim_ascii().is_empty() {
                    break;
                }
                end = next;
            }
            self.at = end;
            let raw = &self.all[start..end];
            let value = &raw[colon + 1..];
            return Some(Field { name, value: &value[..value.len().min(VALUE_BYTES_MAX)], raw });
        }
    }
}

/// One line of it, in UTF-8 as it ought to be, else as most who send raw octets mean them.
pub fn unfolded(value: &[u8]) -> String {
    let mut line: Vec<u8> = value.iter().copied().filter(|octet| *octet != b'\n' && *octet != b'\r').collect();
    line.iter_mut().filter(|octet| **octet == b'\t').for_each(|octet| *octet = b' ');
    charset(None, line.trim_ascii()).into_owned()
}

/// What a human reads: words decoded, one line, no control characters, at most [`WORDS_BYTES_MAX`] octets.
pub fn words(value: &[u8]) -> String {
    one_line(&decoded(&unfolded(value)), WORDS_BYTES_MAX)
}

/// White space to single blanks, controls away, cut at the limit.
pub fn one_line(text: &str, bytes_max: usize) -> String {
    let mut line = String::new();
    let mut is_blank = false;
    for char in text.chars() {
        if char.is_whitespace() || char.is_control() {
            is_blank = !line.is_empty();
        } else if !matches!(char, '\u{200B}' | '\u{2060}' | '\u{FEFF}') {
            if line.len() + char.len_utf8() + usize::from(is_blank) > bytes_max {
                break;
            }
            if is_blank {
                line.push(' ');
            }
            is_blank = false;
            line.push(char);
        }
    }
    line
}

struct Encoded<'a> {
    charset: &'a str,
    octets: Vec<u8>,
    length: usize,
}

/// An encoded-word (RFC 2047 §2) at the beginning of the text.
fn encoded_word(text: &str) -> Option<Encoded<'_>> {
    let inside = text.strip_prefix("=?")?;
    // An encoded-word has 75 characters at most; those who write longer ones do not write ten times as much.
    let charset_end = inside.bytes().take(60).position(|octet| octet == b'?')?;
    let (charset, rest) = (&inside[..charset_end], &inside[charset_end + 1..]);
    let encoding = *rest.as_bytes().first()?;
    let coded = rest.get(1..)?.strip_prefix('?')?;
    // The end is `?=`, and in Q a `=` may stand behind a `?` that is text only where it was not encoded: nobody can tell.
    let mut end = 0;
    let coded_bytes = coded.as_bytes();
    loop {
        end += memchr(b'?', coded_bytes.get(end..coded_bytes.len().min(1000))?)?;
        if coded_bytes.get(end + 1) == Some(&b'=') {
            break;
        }
        end += 1;
    }
    let coded = &coded[..end];
    let octets = match encoding {
        b'b' | b'B' => base64(coded.as_bytes()),
        b'q' | b'Q' => quoted_word(coded.as_bytes()),
        _ => return None,
    };
    // RFC 2231 §5: a language may stand behind the charset.
    let charset = charset.split('*').next().unwrap_or_default();
    Some(Encoded { charset, octets, length: 2 + charset_end + 3 + end + 2 })
}

/// RFC 2047: what is between two encoded-words is no blank; and a character that was cut in two between them is whole again.
pub fn decoded(text: &str) -> Cow<'_, str> {
    if !text.contains("=?") {
        return Cow::Borrowed(text);
    }
    let mut said = String::with_capacity(text.len());
    let mut pending: Option<(&str, Vec<u8>)> = None;
    let mut rest = text;
    let finish = |said: &mut String, pending: &mut Option<(&str, Vec<u8>)>| {
        if let Some((name, octets)) = pending.take() {
            said.push_str(&charset(Some(name), &octets));
        }
    };
    while let Some(start) = rest.find("=?") {
        let (before, word) = rest.split_at(start);
        let Some(encoded) = encoded_word(word) else {
            finish(&mut said, &mut pending);
            said.push_str(before);
            said.push_str("=?");
            rest = &word[2..];
            continue;
        };
        let is_between_words = pending.is_some() && before.trim().is_empty();
        match &mut pending {
            Some((name, octets)) if is_between_words && name.eq_ignore_ascii_case(encoded.charset) => {
                octets.extend(encoded.octets);
            }
            _ => {
                finish(&mut said, &mut pending);
                if !is_between_words {
                    said.push_str(before);
                }
                pending = Some((encoded.charset, encoded.octets));
            }
        }
        rest = &word[encoded.length..];
    }
    finish(&mut said, &mut pending);
    said.push_str(rest);
    Cow::Owned(said)
}

/// `text/plain; charset=utf-8`: what is before the first semicolon in small letters, and the parameters.
#[derive(Default, Debug)]
pub struct Typed {
    pub kind: String,
    parameters: Vec<(String, String)>,
}

impl Typed {
    pub fn of(kind: &str) -> Typed {
        Typed { kind: kind.to_owned(), ..Typed::default() }
    }

    /// RFC 2045 §5.1 and RFC 2183; parameters in parts and in charsets as RFC 2231 has them, and as RFC 2047 against its own word.
    pub fn read(value: &[u8]) -> Typed {
        let line = unfolded(value);
        let mut tokens = Tokens::of(&line);
        let mut kind = String::new();
        for token in tokens.by_ref() {
            match token {
                Token::Word(word) => kind.push_str(&word),
                Token::Mark('/') => kind.push('/'),
                Token::Mark(';') => break,
                Token::Mark(_) => (),
            }
        }
        let mut pieces: Vec<Piece> = Vec::new();
        'parameters: while pieces.len() < PARAMETERS_MAX {
            let mut name = None;
            loop {
                match tokens.next() {
                    None => break 'parameters,
                    Some(Token::Word(word)) => name = Some(word.into_owned()),
                    Some(Token::Mark(';')) => continue 'parameters,
                    Some(Token::Mark('=')) => break,
                    Some(Token::Mark(_)) => (),
                }
            }
            let value = tokens.parameter();
            if let Some(name) = name {
                pieces.push(Piece::of(&name, value));
            }
        }
        Typed { kind: kind.to_ascii_lowercase(), parameters: together(pieces) }
    }

    pub fn parameter(&self, name: &str) -> Option<&str> {
        self.parameters.iter().find(|(has, _)| has == name).map(|(_, value)| value.as_str())
    }

    pub fn is(&self, kind: &str) -> bool {
        self.kind == kind
    }

    /// What stands before the slash.
    pub fn family(&self) -> &str {
        self.kind.split('/').next().unwrap_or_default()
    }
}

/// One parameter, or a part of one: `filename*1*=…`.
struct Piece {
    name: String,
    part: Option<u32>,
    is_percent: bool,
    value: String,
}

impl Piece {
    fn of(name: &str, value: String) -> Piece {
        let mut name = name.to_ascii_lowercase();
        let is_percent = name.ends_with('*');
        if is_percent {
            name.pop();
        }
        let part = name.rsplit_once('*').and_then(|(_, part)| part.parse().ok());
        if part.is_some() {
            name.truncate(name.rfind('*').unwrap_or(name.len()));
        }
        Piece { name, part, is_percent, value }
    }
}

/// RFC 2231 §3 and §4: parts in the order of their numbers, the charset said once at the beginning. Such a value is taken before a plain
/// one of the same name, which is there for those who cannot read it.
fn together(mut pieces: Vec<Piece>) -> Vec<(String, String)> {
    let mut parameters: Vec<(String, String)> = Vec::new();
    let is_extended = |piece: &Piece| piece.part.is_some() || piece.is_percent;
    let (mut extended, plain): (Vec<Piece>, Vec<Piece>) = {
        let (extended, plain) = pieces.drain(..).partition(is_extended);
        (extended, plain)
    };
    extended.sort_by(|one, other| (&one.name, one.part).cmp(&(&other.name, other.part)));
    for group in extended.chunk_by(|one, other| one.name == other.name) {
        let mut octets = Vec::new();
        let mut said_charset = None;
        for (place, piece) in group.iter().enumerate() {
            let mut value = piece.value.as_str();
            if piece.is_percent {
                if place == 0 {
                    let mut ends = value.splitn(3, '\'');
                    if let (Some(charset), Some(_language), Some(rest)) = (ends.next(), ends.next(), ends.next()) {
                        said_charset = Some(charset);
                        value = rest;
                    }
                }
                octets.extend(percent(value.as_bytes()));
            } else {
                octets.extend(value.as_bytes());
            }
        }
        parameters.push((group[0].name.clone(), charset(said_charset, &octets).into_owned()));
    }
    for piece in plain {
        if !parameters.iter().any(|(name, _)| *name == piece.name) {
            let value = decoded(&piece.value).into_owned();
            parameters.push((piece.name, value));
        }
    }
    parameters
}

fn percent(coded: &[u8]) -> Vec<u8> {
    let mut octets = Vec::with_capacity(coded.len());
    let mut rest = coded;
    while let Some((first, behind)) = rest.split_first() {
        match (first, behind.first_chunk().and_then(hex)) {
            (b'%', Some(octet)) => {
                octets.push(octet);
                rest = &behind[2..];
            }
            _ => {
                octets.push(*first);
                rest = behind;
            }
        }
    }
    octets
}

/// Two hexadecimal digits.
pub fn hex(digits: &[u8; 2]) -> Option<u8> {
    let digit = |digit: u8| char::from(digit).to_digit(16);
    Some((digit(digits[0])? * 16 + digit(digits[1])?) as u8)
}

/// Message-IDs without their brackets. Without any brackets: words with an `@`, as some write In-Reply-To.
pub fn ids(value: &[u8]) -> Vec<String> {
    let line = unfolded(value);
    let is_id =
        |id: &str| !id.is_empty() && id.len() <= 500 && !id.contains(|char: char| char.is_whitespace() || char == '<');
    let mut ids: Vec<String> = Vec::new();
    let mut rest = line.as_str();
    while let Some((_, behind)) = rest.split_once('<') {
        let Some((id, behind)) = behind.split_once('>') else { break };
        // A folded Message-ID has blanks in it that nobody wrote.
        let id: String = id.chars().filter(|char| !char.is_whitespace()).collect();
        if is_id(&id) && ids.len() < IDS_MAX {
            ids.push(id);
        }
        rest = behind;
    }
    if ids.is_empty() && !line.contains('<') {
        let words = line.split_whitespace().filter(|word| word.contains('@') && is_id(word));
        ids.extend(words.take(1).map(str::to_owned));
    }
    ids
}

/// The first mailbox of From or Reply-To, and the name before it (RFC 5322 §3.4); a comment is a name where there is no other.
pub fn mailbox(value: &[u8]) -> (Option<Address>, String) {
    let line = unfolded(value);
    let (mut name, mut comment) = (String::new(), String::new());
    // What stands in angle brackets, and what stands in none, which is the address where there are no brackets.
    let (mut inside, mut bare) = (String::new(), String::new());
    let (mut depth, mut is_quoted, mut is_angle, mut has_at) = (0_usize, false, false, false);
    let mut chars = line.chars();
    while let Some(char) = chars.next() {
        match char {
            '\\' if depth > 0 => comment.extend(chars.next()),
            '(' if depth > 0 => depth += 1,
            ')' if depth > 0 => depth -= 1,
            _ if depth > 0 => comment.push(char),
            '\\' if is_quoted => {
                let next = chars.next();
                if is_angle { &mut inside } else { &mut bare }.extend([Some(char), next].into_iter().flatten());
                name.extend(next.filter(|_| !is_angle));
            }
            '"' => {
                is_quoted = !is_quoted;
                if is_angle { &mut inside } else { &mut bare }.push(char);
            }
            '(' if !is_quoted => depth = 1,
            '<' if !is_quoted && !is_angle => is_angle = true,
            '>' if !is_quoted && is_angle => break,
            _ if is_angle => inside.push(char),
            // The name of a group: its first mailbox is meant.
            ':' if !is_quoted && !has_at => {
                name.clear();
                bare.clear();
            }
            ',' | ';' if !is_quoted && has_at => break,
            _ => {
                has_at |= char == '@' && !is_quoted;
                bare.push(char);
                name.push(char);
            }
        }
    }
    let address: String = if is_angle { &inside } else { &bare }.split_whitespace().collect();
    // A route is nobody's any more (RFC 5322 §4.4).
    let address = match address.strip_prefix('@').and_then(|route| route.split_once(':')) {
        Some((_, mailbox)) => mailbox,
        None => address.as_str(),
    };
    let name = if is_angle && !name.trim().is_empty() { name } else { comment };
    (Address::parse(address).ok(), one_line(&decoded(name.trim()), 200))
}
