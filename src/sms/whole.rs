//! The parts of a long text, put together where the whole is needed: by a SIP phone, a trunk, a number of the centre's own.
//!
//! Knows: that the parts of one text have its sender and its reference in common and stand in one queue, between others. Does not know: what
//! is done with the whole. A phone that can put texts together gets its parts as they are.
//! Limit: [`PARTS_WAIT`] after the first part was accepted what is there is the whole; the gaps are said.

use std::time::Duration;

use super::record::{self, Recipient, Text};
use super::{Centre, shift_ms};
use crate::config::words::Word;
use crate::gsm::header::Concatenation;
use crate::gsm::segment;
use crate::site::World;
use crate::store::{StoreError, StoreId};

/// A part that comes later than this after the first one is a text of its own.
pub const PARTS_WAIT: Duration = Duration::from_secs(120);
/// Texts of one queue among which the parts are looked for.
const SEARCH_MAX: usize = 1_000;

/// What a head is part of.
pub(super) enum Whole {
    /// All there is, in the order of the parts: one text that is no part of another, or as many parts as have come in time.
    Ready(Vec<Text>),
    /// Parts are missing that may still come.
    Missing { wait: Duration },
}

pub(super) fn concatenation(text: &Text) -> Option<Concatenation> {
    text.data().and_then(|data| data.header().ok()).and_then(Concatenation::of)
}

impl Centre {
    /// The parts of the head of this queue.
    ///
    /// Errors: the store cannot be read.
    pub(super) fn whole(&self, w: &mut World<'_, '_>, head: Text) -> Result<Whole, StoreError> {
        let Some(of) = concatenation(&head) else { return Ok(Whole::Ready(vec![head])) };
        let recipient: Recipient = head.recipient;
        let before = head.number.checked_sub(1).map(|number| record::text_key(recipient, number));
        let prefix = record::queue_prefix(recipient);
        let page = w.store(StoreId::Messages)?.scan(&prefix, before.as_deref(), SEARCH_MAX)?;
        let mut parts: Vec<Option<Text>> = vec![None; usize::from(of.parts)];
        for (key, value) in page {
            if self.unfinished.contains_key(&key) {
                continue;
            }
            let Some((_, number)) = record::read_text_key(&key) else { continue };
            let Ok(text) = record::decode(recipient, number, &value) else { continue };
            let same = text.sender == head.sender && text.shown == head.shown && text.dialled == head.dialled;
            if let Some(part) = concatenation(&text)
                && (part.reference, part.parts, same) == (of.reference, of.parts, true)
            {
                parts[usize::from(part.part) - 1].get_or_insert(text);
            }
        }
        let age_ms = w.wall().ms.saturating_sub(head.accepted_ms.saturating_add(shift_ms(w, head.accepted_ms)));
        let wait = PARTS_WAIT.saturating_sub(Duration::from_millis(age_ms));
        if parts.iter().any(Option::is_none) && !wait.is_zero() {
            return Ok(Whole::Missing { wait });
        }
        Ok(Whole::Ready(parts.into_iter().flatten().collect()))
    }
}

/// The words of parts in their order; a gap is said in the centre's words.
///
/// Errors: it has no words; why.
pub(super) fn words(w: &World<'_, '_>, parts: &[Text]) -> Result<String, &'static str> {
    let all: Vec<&Text> = parts.iter().collect();
    let Some(of) = parts.first().and_then(concatenation).filter(|of| usize::from(of.parts) > parts.len()) else {
        return super::form::words(&all);
    };
    let mut out = Vec::new();
    for part in 1..=of.parts {
        out.push(match parts.iter().find(|text| concatenation(text).is_some_and(|of| of.part == part)) {
            Some(text) => {
                let data: Vec<_> = text.data().into_iter().collect();
                segment::whole_text(&data).map_err(|none| none.words())?
            }
            None => {
                let (part, parts) = (part.to_string(), of.parts.to_string());
                w.site.settings.templates.say(None, Word::LOST_PART, &[("part", &part), ("parts", &parts)])
            }
        });
    }
    Ok(out.join(" "))
}
