//! The user data header: information elements before the text of a message.
//!
//! Knows: how elements are written one behind the other, and what concatenation, application ports and the language
//! elements say. Does not know: the other elements, which are kept as they are; which messages belong together. Reads and writes
//! nothing.
//! Limits: the header and the text share 140 octets.
//! Read first: TS 23.040 §9.2.3.24 (the header), §9.2.3.24.1 to .4, .8 (concatenation, ports), .15, .16 (languages).

use super::national::{Language, Languages};
use super::text::OCTETS_MAX;

/// One information element, whatever it is.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub struct Element {
    pub identifier: u8,
    /// At most 255 octets.
    pub content: Vec<u8>,
}

/// The elements of a header, in their order.
///
/// Shape:  `header` with its length octet, as [`super::text::UserData::header`] has it. Of one whose last element is longer
///         or shorter than what is left, none: the standard has us ignore all of such a header.
/// Source: TS 23.040 §9.2.3.24.
pub fn elements(header: &[u8]) -> Vec<Element> {
    let mut rest = match header.split_first() {
        Some((length, rest)) if rest.len() == usize::from(*length) => rest,
        Some(_) | None => return Vec::new(),
    };
    let mut out = Vec::new();
    while let Some((identifier, behind)) = rest.split_first() {
        let content = behind.split_first().and_then(|(length, behind)| behind.get(..usize::from(*length)));
        let Some(content) = content else { return Vec::new() };
        out.push(Element { identifier: *identifier, content: content.to_vec() });
        rest = &behind[1 + content.len()..];
    }
    out
}

/// A header with its length octet.
///
/// Shape:  `None` where it is longer than a user data. No elements are no header at all.
pub fn write(elements: &[Element]) -> Option<Vec<u8>> {
    if elements.is_empty() {
        return Some(Vec::new());
    }
    let mut out = vec![0];
    for Element { identifier, content } in elements {
        out.extend([*identifier, u8::try_from(content.len()).ok()?]);
        out.extend(content);
    }
    out[0] = u8::try_from(out.len() - 1).ok()?;
    (out.len() <= OCTETS_MAX).then_some(out)
}

/// This message is one part of a longer one.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct Concatenation {
    pub reference: Reference,
    /// How many parts there are, from 1.
    pub parts: u8,
    /// Which one this is, from 1 to `parts`.
    pub part: u8,
}

/// What the parts of a message have in common, apart from their sender and receiver. One of 8 bits and one of 16 are
/// different references, even with the same number.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Reference {
    Short(u8),
    Long(u16),
}

impl Concatenation {
    /// Shape:  `None` where there is none. One with zero parts, a part zero or one beyond the last is no concatenation: the
    ///         standard has us ignore such an element. Of several the last one counts, 8 bits or 16.
    /// Source: TS 23.040 §9.2.3.24.1, §9.2.3.24.8.
    pub fn of(header: &[u8]) -> Option<Concatenation> {
        let read = |element: &Element| {
            let (reference, parts, part) = match (element.identifier, &element.content[..]) {
                (CONCATENATION, [reference, parts, part]) => (Reference::Short(*reference), *parts, *part),
                (CONCATENATION_LONG, [high, low, parts, part]) => {
                    (Reference::Long(u16::from_be_bytes([*high, *low])), *parts, *part)
                }
                _ => return None,
            };
            (1..=parts).contains(&part).then_some(Concatenation { reference, parts, part })
        };
        elements(header).iter().filter_map(read).next_back()
    }

    pub fn element(&self) -> Element {
        match self.reference {
            Reference::Short(reference) => {
                Element { identifier: CONCATENATION, content: vec![reference, self.parts, self.part] }
            }
            Reference::Long(reference) => {
                let [high, low] = reference.to_be_bytes();
                Element { identifier: CONCATENATION_LONG, content: vec![high, low, self.parts, self.part] }
            }
        }
    }
}

/// Application ports: the message is for a program in the phone.
///
/// Ranges that are reserved are not judged here.
///
/// Source: TS 23.040 §9.2.3.24.3, §9.2.3.24.4.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Ports {
    Short { destination: u8, originator: u8 },
    Long { destination: u16, originator: u16 },
}

impl Ports {
    /// Shape:  of several the last one counts.
    pub fn of(header: &[u8]) -> Option<Ports> {
        let read = |element: &Element| match (element.identifier, &element.content[..]) {
            (PORTS, [destination, originator]) => {
                Some(Ports::Short { destination: *destination, originator: *originator })
            }
            (PORTS_LONG, [a, b, c, d]) => Some(Ports::Long {
                destination: u16::from_be_bytes([*a, *b]),
                originator: u16::from_be_bytes([*c, *d]),
            }),
            _ => None,
        };
        elements(header).iter().filter_map(read).next_back()
    }

    pub fn element(&self) -> Element {
        match *self {
            Ports::Short { destination, originator } => {
                Element { identifier: PORTS, content: vec![destination, originator] }
            }
            Ports::Long { destination, originator } => Element {
                identifier: PORTS_LONG,
                content: [destination.to_be_bytes(), originator.to_be_bytes()].concat(),
            },
        }
    }
}

impl Languages {
    /// The tables that a header chooses for its text; the default ones where it chooses none, or one that is not described.
    ///
    /// Source: TS 23.040 §9.2.3.24.15, §9.2.3.24.16.
    pub fn of(header: &[u8]) -> Languages {
        let mut languages = Languages::default();
        for element in elements(header) {
            if let (identifier @ (SINGLE_SHIFT | LOCKING_SHIFT), [language]) =
                (element.identifier, &element.content[..])
            {
                let Some(language) = Language::from_identifier(*language) else { continue };
                match identifier {
                    SINGLE_SHIFT => languages.single = Some(language),
                    // There is no such table of Spanish.
                    _ if language.locking_table().is_none() => (),
                    _ => languages.locking = Some(language),
                }
            }
        }
        languages
    }

    /// What the header of a text in these tables must have.
    pub fn elements(&self) -> Vec<Element> {
        let element = |identifier, language: Language| Element { identifier, content: vec![language.identifier()] };
        let locking = self.locking.filter(|language| language.locking_table().is_some());
        let single = self.single.map(|language| element(SINGLE_SHIFT, language));
        single.into_iter().chain(locking.map(|language| element(LOCKING_SHIFT, language))).collect()
    }
}

pub(super) const CONCATENATION: u8 = 0x00;
pub(super) const CONCATENATION_LONG: u8 = 0x08;
const PORTS: u8 = 0x04;
const PORTS_LONG: u8 = 0x05;
pub(super) const SINGLE_SHIFT: u8 = 0x24;
pub(super) const LOCKING_SHIFT: u8 = 0x25;
