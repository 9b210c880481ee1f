//! The parts of a long text, put together where the whole is needed: by a SIP phone, a trunk, a number of the centre's own.
//!
//! Knows: that the parts of one text have its sender and its reference in common and stand in one queue, between others. Does not know: what
//! is done with the whole. A phone that can put texts together gets its parts as they are.
//! Limit: [`PARTS_WAIT`] after the first part was accepted what is there is the whole; the gaps are said.

use std::time::Duration;

use super::record::{self, Recipient, Text};
use super::{Centre, form, shift_ms};
use crate::config::words::Word;
use crate::gsm::header::Concatenation;
use crate::site::World;
use crate::store::{StoreError, StoreId};

/// A part that comes later than this after the first one is a text of its own.
pub const PARTS_WAIT: Duration = Duration::from_secs(120);
/// Texts of one queue among which the parts are looked for.
const SEARCH_MAX: usize = 1_000;

/// What a head is part of.
pub(super) enum Whole {
    /// All there is, in the order of the parts: one text that is no part of another, or as many parts as have come in time. A part that
    /// came twice stands behind them once more: it ends with the whole.
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
        let mut copies = Vec::new();
        for (key, value) in page {
            if self.unfinished.contains_key(&key) {
                continue;
            }
            let Some((_, number)) = record::read_text_key(&key) else { continue };
            // One that is not synced is promised to nobody yet, and wakes the queue when it is.
            if self.queues.get(&recipient).is_some_and(|queue| number > queue.kept) {
                break;
            }
            let Ok(text) = record::decode(recipient, number, &value) else { continue };
            let same = text.sender.is_same(&head.sender) && text.shown == head.shown && text.dialled == head.dialled;
            if let Some(part) = concatenation(&text)
                && (part.reference, part.parts, same) == (of.reference, of.parts, true)
            {
                match &mut parts[usize::from(part.part) - 1] {
                    Some(first) if first.payload == text.payload => copies.push(text),
                    // Under the same reference, and something else: of another text, which comes after this one.
                    Some(_) => {}
                    none => *none = Some(text),
                }
            }
        }
        let age_ms = w.wall().ms.saturating_sub(head.accepted_ms.saturating_add(shift_ms(w, head.accepted_ms)));
        let until = self.queues.get(&recipient).and_then(|queue| queue.parts_until);
        let wait = match until.is_some_and(|until| w.ctx.now >= until) {
            true => Duration::ZERO,
            false => PARTS_WAIT.saturating_sub(Duration::from_millis(age_ms)),
        };
        if parts.iter().any(Option::is_none) && !wait.is_zero() {
            return Ok(Whole::Missing { wait });
        }
        Ok(Whole::Ready(parts.into_iter().flatten().chain(copies).collect()))
    }
}

/// The words of parts in their order, each once; a gap is said in the centre's words.
///
/// Errors: it has no words; why.
pub(super) fn words(w: &World<'_, '_>, texts: &[&Text]) -> Result<String, &'static str> {
    let Some(of) = texts.first().and_then(|text| concatenation(text)) else { return form::words(texts) };
    let here = |part| texts.iter().copied().find(|text| concatenation(text).is_some_and(|of| of.part == part));
    let parts: Vec<Option<&Text>> = (1..=of.parts).map(here).collect();
    if let Some(whole) = parts.iter().copied().collect::<Option<Vec<&Text>>>() {
        return form::words(&whole);
    }
    let said = |(number, part): (u8, &Option<&Text>)| match part {
        Some(text) => form::words(&[text]),
        None => {
            let (part, parts) = (number.to_string(), of.parts.to_string());
            Ok(w.site.settings.templates.say(None, Word::LOST_PART, &[("part", &part), ("parts", &parts)]))
        }
    };
    let said: Result<Vec<String>, _> = (1..=of.parts).zip(&parts).map(said).collect();
    Ok(said?.join(" "))
}
