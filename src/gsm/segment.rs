//! A long text as several messages: cut into segments, and put together again.
//!
//! Knows: where a text may be cut, what header its segments need, and when all of a set are there. Does not know: which
//! messages are a set, how long to wait for the rest. Reads and writes nothing.
//! Limits: 255 segments of 153 septets or 67 units (152 and 66 with a 16-bit reference), fewer where the header has more.
//! Read first: TS 23.040 §9.2.3.24.1.

use super::header::{self, Concatenation, Element, Reference};
use super::national::Languages;
use super::text::{self, Body, Coding, NoText, OCTETS_MAX, SEPTETS_MAX, UserData};

/// How a text is to be cut.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Cut {
    pub reference: Reference,
    /// The tables of a text in the GSM alphabet. Nothing is chosen for the caller: he knows which phones know them.
    pub languages: Languages,
    /// What else is in the header of each segment, application ports for instance. Concatenation and languages are not
    /// taken from here.
    pub elements: Vec<Element>,
}

impl Cut {
    /// With a header of nothing but what the cut itself needs.
    pub fn new(reference: Reference) -> Cut {
        Cut { reference, languages: Languages::default(), elements: Vec::new() }
    }
}

/// A text as one message where it fits, else as several.
///
/// Shape:  GSM 7-bit where these tables have every character of the whole text, else UCS-2, in which no language is named.
///         No escape sequence and no surrogate pair is split. One message that needs no header has none.
/// Errors: [`Uncut`].
/// Source: TS 23.040 §9.2.3.24, §9.2.3.24.1.
/// Tests:  tests/gsm_segments.rs
pub fn split(text: &str, cut: &Cut) -> Result<Vec<UserData>, Uncut> {
    use header::{CONCATENATION, CONCATENATION_LONG, LOCKING_SHIFT, SINGLE_SHIFT};

    let in_gsm = text::septets_in(text, cut.languages).is_some();
    let mut elements = if in_gsm { cut.languages.elements() } else { Vec::new() };
    let own = [CONCATENATION, CONCATENATION_LONG, LOCKING_SHIFT, SINGLE_SHIFT];
    elements.extend(cut.elements.iter().filter(|element| !own.contains(&element.identifier)).cloned());

    let alone = header::write(&elements).ok_or(Uncut::Header)?;
    let pieces = pieces(text, cut.languages, in_gsm, alone.len());
    if let Some([piece]) = pieces.as_deref() {
        return Ok(vec![one(piece, cut.languages, in_gsm, alone)]);
    }

    // The number of parts does not change how long the header is.
    let headed = |parts, part| {
        let concatenation = Concatenation { reference: cut.reference, parts, part }.element();
        header::write(&[&[concatenation], &elements[..]].concat()).ok_or(Uncut::Header)
    };
    let pieces = self::pieces(text, cut.languages, in_gsm, headed(1, 1)?.len()).ok_or(Uncut::Header)?;
    let parts = u8::try_from(pieces.len()).map_err(|_| Uncut::Long)?;
    (1..=parts).zip(pieces).map(|(part, piece)| Ok(one(piece, cut.languages, in_gsm, headed(parts, part)?))).collect()
}

/// Into how many messages [`split`] would cut a text, were there no end to them; 0 where the header leaves no room.
pub fn count(text: &str, cut: &Cut) -> usize {
    let in_gsm = text::septets_in(text, cut.languages).is_some();
    let header = |concatenation: Option<Element>| {
        let languages = if in_gsm { cut.languages.elements() } else { Vec::new() };
        let all: Vec<Element> =
            concatenation.into_iter().chain(languages).chain(cut.elements.iter().cloned()).collect();
        header::write(&all)
    };
    let concatenation = Concatenation { reference: cut.reference, parts: 1, part: 1 }.element();
    let alone = header(None).and_then(|header| pieces(text, cut.languages, in_gsm, header.len()));
    if alone.is_some_and(|pieces| pieces.len() == 1) {
        return 1;
    }
    let several = header(Some(concatenation)).and_then(|header| pieces(text, cut.languages, in_gsm, header.len()));
    several.map_or(0, |pieces| pieces.len())
}

/// The text in pieces that each fit behind a header of so many octets; one empty piece for an empty text. `None` where
/// some character does not fit at all.
fn pieces(text: &str, languages: Languages, in_gsm: bool, header_octets: usize) -> Option<Vec<&str>> {
    let room = match in_gsm {
        true => SEPTETS_MAX - (8 * header_octets).div_ceil(7),
        false => (OCTETS_MAX - header_octets) / 2,
    };
    let (mut pieces, mut begin, mut used) = (Vec::new(), 0, 0);
    for (at, char) in text.char_indices() {
        let needed = if in_gsm { text::septets_of(char, languages)? } else { char.len_utf16() };
        if needed > room {
            return None;
        }
        if used + needed > room {
            pieces.push(&text[begin..at]);
            (begin, used) = (at, 0);
        }
        used += needed;
    }
    pieces.push(&text[begin..]);
    Some(pieces)
}

/// A piece behind its header; it fits.
fn one(piece: &str, languages: Languages, in_gsm: bool, header: Vec<u8>) -> UserData {
    let has_header = !header.is_empty();
    let mut bytes = header;
    match text::septets_in(piece, languages) {
        Some(septets) if in_gsm => {
            let header_bits = 8 * bytes.len();
            let header_septets = header_bits.div_ceil(7);
            bytes.extend(text::pack(&septets, 7 * header_septets - header_bits));
            let length = (header_septets + septets.len()) as u8;
            UserData { coding: Coding::GSM7, has_header, length, bytes }
        }
        Some(_) | None => {
            bytes.extend(piece.encode_utf16().flat_map(u16::to_be_bytes));
            UserData { coding: Coding::UCS2, has_header, length: bytes.len() as u8, bytes }
        }
    }
}

/// The segments of one message in their order, once all are there.
///
/// Shape:  in any order; of a part that came twice the first is taken. A message that is no part of another is whole.
/// Errors: [`NotWhole`]; nothing is guessed.
/// Source: TS 23.040 §9.2.3.24.1.
pub fn in_order<'a>(segments: &[&'a UserData]) -> Result<Vec<&'a UserData>, NotWhole> {
    let of = |segment: &UserData| segment.header().ok().and_then(Concatenation::of);
    let first = segments.first().ok_or(NotWhole::Empty)?;
    let Some(Concatenation { reference, parts, .. }) = of(first) else {
        return if segments.len() == 1 { Ok(vec![*first]) } else { Err(NotWhole::Foreign) };
    };
    let mut found = vec![None; parts.into()];
    for segment in segments {
        match of(segment) {
            Some(one) if (one.reference, one.parts) == (reference, parts) => {
                found[usize::from(one.part) - 1].get_or_insert(*segment);
            }
            Some(_) | None => return Err(NotWhole::Foreign),
        }
    }
    let missing: Vec<u8> = (1..=parts).zip(&found).filter(|(_, one)| one.is_none()).map(|(part, _)| part).collect();
    if missing.is_empty() { Ok(found.into_iter().flatten().collect()) } else { Err(NotWhole::Missing(missing)) }
}

/// The text of segments that are in order.
///
/// Shape:  an escape or half a surrogate pair at the end of a segment goes with the beginning of the next, where both have
///         the same alphabet: there are phones that cut anywhere.
/// Errors: [`NoText`], if one of them has none.
pub fn whole_text(segments: &[&UserData]) -> Result<String, NoText> {
    let mut runs: Vec<Body> = Vec::new();
    for segment in segments {
        match (runs.last_mut(), text::body(segment)?) {
            (Some(Body::Gsm(run, languages)), Body::Gsm(septets, same)) if *languages == same => run.extend(septets),
            (Some(Body::Ucs2(run)), Body::Ucs2(octets)) => run.extend(octets),
            (_, body) => runs.push(body),
        }
    }
    Ok(runs.into_iter().map(Body::text).collect())
}

/// Why a text cannot be cut.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Uncut {
    /// More than 255 segments.
    Long,
    /// The header leaves no room for a character.
    Header,
}

impl Uncut {
    pub fn words(self) -> &'static str {
        match self {
            Uncut::Long => "a text of more than 255 segments",
            Uncut::Header => "a user data header that leaves no room for text",
        }
    }
}

/// Why segments are not one whole message.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum NotWhole {
    Empty,
    /// These parts, counted from 1, are not there yet.
    Missing(Vec<u8>),
    /// One of them has another reference or another number of parts than the first.
    Foreign,
}

impl NotWhole {
    pub fn words(&self) -> &'static str {
        match self {
            NotWhole::Empty => "no segment at all",
            NotWhole::Missing(_) => "segments are missing",
            NotWhole::Foreign => "segments of different messages",
        }
    }
}

told_by_words!(Uncut, NotWhole);
