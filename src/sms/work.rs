//! One batch of the messages' store: what is new with it, what ends with it, and what happens once it is written.
//!
//! Knows: that a text, what makes a copy of it known, its fate and its sender's report are written together or not at all; what a store that
//! refuses is asked again, in its order. Does not know: why anything is written.
//! Limits: `[messages] count_max`, `count_per_phone_max`; of mail that leaves `[mail] count_max`, but of what tells what became of a mail.

use std::collections::HashMap;
use std::time::Duration;

use super::aging::life_max;
use super::record::{self, Fate, OldOf, Recipient, Text};
use super::{Centre, PURGE_PER_SECOND, REPEAT_WINDOW, millis};
use crate::event::Event;
use crate::ident::Imsi;
use crate::seam::{After, Inner, Output, TextRecord};
use crate::site::World;
use crate::store::{Batch, CommitId, StoreError, StoreId};

/// Numbers are taken from a stretch of so many, which is noted before the first of it is given: a crash skips some.
const NUMBERS_AT_ONCE: u64 = 1_000;

/// Of more changes than this it is known where each key stands.
const SEARCHED_MAX: usize = 64;

/// One batch of the messages' store, and what is to be done when it is written.
#[derive(Default)]
pub(super) struct Work {
    pub(super) batch: Batch,
    /// Where each key stands in a large batch, the last place behind the others.
    places: HashMap<Vec<u8>, Vec<usize>>,
    /// Texts that are new with it.
    pub(super) added: Vec<Added>,
    /// Texts that end with it, which leave room for new ones.
    pub(super) ended: Vec<(Recipient, u64)>,
    /// Below this number numbers are given with it, and the store is to know that.
    pub(super) numbers_end: Option<u64>,
    /// A line for each that ends with it: written when the disk has the end, so that no power cut makes a second one.
    pub(super) records: Vec<TextRecord>,
}

#[derive(Clone, Copy)]
pub(super) struct Added {
    pub(super) recipient: Recipient,
    pub(super) number: u64,
    pub(super) timestamp_s: u64,
    pub(super) life: Duration,
    pub(super) sender: Option<Imsi>,
}

/// Why no text can be added.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Full {
    /// As many wait as may, in all.
    Centre,
    /// As many wait for this recipient as may.
    Recipient,
    /// The store cannot be read.
    Store,
}

impl Centre {
    /// Makes a new text part of this work: gives it its number and its times, within the limits.
    ///
    /// Shape:  `text.life_ms` of 0 becomes the longest that a text may live; a longer one is cut. A `text.timestamp_s` that another box
    ///         has given it stays, as far as nothing to that phone has a later one.
    /// Errors: [`Full`]: nothing is added then, and the work is as it was.
    pub(super) fn add(&mut self, w: &mut World<'_, '_>, work: &mut Work, mut text: Text) -> Result<u64, Full> {
        match text.tells() {
            true => self.room_for_texts(w, work, text.recipient, 1)?,
            false => self.room(w, work, text.recipient, 1)?,
        }
        let life_max_ms = millis(life_max(w, text.recipient));
        let now_ms = w.wall().ms;
        let number = self.take_number(work);
        text.number = number;
        text.accepted_ms = now_ms;
        text.life_ms = if text.life_ms == 0 { life_max_ms } else { text.life_ms.min(life_max_ms) };
        text.timestamp_s = match text.timestamp_s {
            0 => now_ms / 1000,
            first_s => first_s.min(now_ms / 1000),
        };
        if let Recipient::Phone(imsi) = text.recipient {
            let key = record::last_key(imsi);
            let last = match work.get(&key) {
                Some(value) => value.clone(),
                None => w.store(StoreId::Messages).and_then(|store| store.get(&key)).map_err(|_| Full::Store)?,
            };
            // "(TP-OA, SCTS)" tells a phone two texts apart: no two to one phone have the same second, also after a restart.
            let last_s = last.and_then(|bytes| record::decode_last(&bytes)).map_or(0, |(_, timestamp_s)| timestamp_s);
            let last_s = last_s.max(self.timestamps.get(&imsi).copied().unwrap_or_default());
            text.timestamp_s = text.timestamp_s.max(last_s + 1);
            self.timestamps.insert(imsi, text.timestamp_s);
            work.put(key.clone(), record::encode_last(now_ms, text.timestamp_s));
            work.old(now_ms, REPEAT_WINDOW, number, OldOf::Acceptance, vec![key]);
        }
        work.put(record::text_key(text.recipient, number), record::encode(&text));
        work.put(record::fate_key(number), record::encode_fate(&Fate::Waits(text.recipient)));
        let life = Duration::from_millis(text.life_ms);
        work.added.push(Added {
            recipient: text.recipient,
            number,
            timestamp_s: text.timestamp_s,
            life,
            sender: text.sender.phone(),
        });
        Ok(number)
    }

    /// A number that nothing else has; what it is given to is written with this work.
    pub(super) fn take_number(&mut self, work: &mut Work) -> u64 {
        // The store knows of a stretch once it has taken the batch, and a batch may be refused.
        if self.next_number >= self.numbers_end.max(work.numbers_end.unwrap_or_default()) {
            work.numbers_end = Some(self.next_number + NUMBERS_AT_ONCE);
        }
        let number = self.next_number;
        self.next_number += 1;
        number
    }

    /// Whether so many texts more for this recipient are within the limits.
    pub(super) fn room(&self, w: &World<'_, '_>, work: &Work, recipient: Recipient, count: usize) -> Result<(), Full> {
        if let (Recipient::Mail(_), Some(mail)) = (recipient, &w.site.settings.mail) {
            let is_mail = |recipient: &Recipient| matches!(recipient, Recipient::Mail(_));
            let added = work.added.iter().filter(|added| is_mail(&added.recipient)).count();
            let over = work.ended.iter().filter(|(ended, _)| is_mail(ended)).count();
            if self.mails.waiting + added + count > mail.count_max + over {
                return Err(Full::Centre);
            }
        }
        self.room_for_texts(w, work, recipient, count)
    }

    /// By the limits of texts alone: a mail that tells what became of another one has room where phones may write no more.
    fn room_for_texts(&self, w: &World<'_, '_>, work: &Work, recipient: Recipient, count: usize) -> Result<(), Full> {
        let limits = &w.site.settings.messages;
        if self.waiting + work.added.len() + count > limits.count_max + work.ended.len() {
            return Err(Full::Centre);
        }
        let mine = work.added.iter().filter(|added| added.recipient == recipient).count();
        let queued = self.queues.get(&recipient).map_or(0, |queue| queue.count);
        // What ends with it leaves room.
        let over = work.ended.iter().filter(|(ended, _)| *ended == recipient).count();
        if queued + mine + count > limits.count_per_phone_max + over {
            return Err(Full::Recipient);
        }
        Ok(())
    }

    /// Writes it, and puts its new texts into their queues, where they wait for the disk.
    ///
    /// Errors: the store refuses, which is told; nothing has happened then.
    pub(super) fn commit(&mut self, w: &mut World<'_, '_>, work: Work) -> Result<CommitId, StoreError> {
        self.finish_older(w)?;
        let commit = write(w, self.whole_batch(&work))?;
        self.enter(w, work, commit);
        Ok(commit)
    }

    /// The same for what must be written in the end: what a store refuses is tried again every second. `key`: the text that it ends.
    pub(super) fn finish(&mut self, w: &mut World<'_, '_>, key: &[u8], work: Work) -> Option<CommitId> {
        let written = self.finish_older(w).and_then(|()| write(w, self.whole_batch(&work)));
        match written {
            Ok(commit) => {
                self.enter(w, work, commit);
                Some(commit)
            }
            Err(_) => {
                for (recipient, number) in &work.ended {
                    self.unfinished.insert(record::text_key(*recipient, *number), Work::default());
                }
                self.unfinished.insert(key.to_vec(), work);
                self.unfinished_order.push_back(key.to_vec());
                None
            }
        }
    }

    /// What was refused before comes first: its numbers are smaller, and one that enters a queue behind a larger one is not found.
    ///
    /// Errors: the store refuses still, or there is more than is written in one turn.
    pub(super) fn finish_older(&mut self, w: &mut World<'_, '_>) -> Result<(), StoreError> {
        for _ in 0..PURGE_PER_SECOND {
            let Some(key) = self.unfinished_order.front().cloned() else { return Ok(()) };
            let batch = self.unfinished.get(&key).map(|work| self.whole_batch(work)).unwrap_or_default();
            let commit = write(w, batch)?;
            self.unfinished_order.pop_front();
            let work = self.unfinished.remove(&key).unwrap_or_default();
            let ended = work.ended.clone();
            // Those without a batch of their own end with this one.
            for (recipient, number) in &ended {
                self.unfinished.remove(&record::text_key(*recipient, *number));
            }
            self.enter(w, work, commit);
            for (recipient, text) in ended {
                w.ctx.out.after(After::nothing().and(commit), Inner::TextRemoved { recipient, text });
            }
        }
        if self.unfinished_order.is_empty() { Ok(()) } else { Err(StoreError::Full) }
    }

    /// What is to be written of it. One that was refused before others were written must not take their numbers back.
    pub(super) fn whole_batch(&self, work: &Work) -> Batch {
        match work.numbers_end {
            Some(end) => work.batch.clone().put(record::NEXT_KEY, record::encode_number(end.max(self.numbers_end))),
            None => work.batch.clone(),
        }
    }

    pub(super) fn enter(&mut self, w: &mut World<'_, '_>, work: Work, commit: CommitId) {
        let Work { added, records, numbers_end, .. } = work;
        self.numbers_end = self.numbers_end.max(numbers_end.unwrap_or_default());
        for record in records {
            w.ctx.out.send_after(After::nothing().and(commit), Output::TextRecord(Box::new(record)));
        }
        for Added { recipient, number, life, sender, .. } in &added {
            w.event(Event::TextAccepted { text: *number, sender: *sender, recipient: *recipient });
            self.enqueue(*recipient, *number);
            self.note_end(w.ctx.now + *life, *recipient);
            self.note_lived(w, *recipient);
        }
        if !added.is_empty() {
            let texts = added.iter().map(|added| (added.recipient, added.number)).collect();
            w.ctx.out.after(After::nothing().and(commit), Inner::TextsKept { texts });
        }
    }
}

impl Work {
    pub(super) fn put(&mut self, key: Vec<u8>, value: Vec<u8>) {
        self.change(key, Some(value));
    }

    pub(super) fn delete(&mut self, key: Vec<u8>) {
        self.change(key, None);
    }

    fn change(&mut self, key: Vec<u8>, value: Option<Vec<u8>>) {
        let place = self.batch.changes.len();
        if place >= SEARCHED_MAX {
            if self.places.is_empty() {
                for (place, (key, _)) in self.batch.changes.iter().enumerate() {
                    self.places.entry(key.clone()).or_default().push(place);
                }
            }
            self.places.entry(key.clone()).or_default().push(place);
        }
        self.batch.changes.push((key, value));
    }

    fn place(&self, key: &[u8]) -> Option<usize> {
        match self.places.is_empty() {
            true => self.batch.changes.iter().rposition(|(changed, _)| changed == key),
            false => self.places.get(key)?.last().copied(),
        }
    }

    /// What it changes this to: `Some(None)` where it goes.
    pub(super) fn get(&self, key: &[u8]) -> Option<&Option<Vec<u8>>> {
        self.place(key).map(|place| &self.batch.changes[place].1)
    }

    /// Takes back all but the first changes, and the first texts that are added.
    pub(super) fn cut(&mut self, changes: usize, added: usize) {
        for (key, _) in self.batch.changes.drain(changes.min(self.batch.changes.len())..) {
            if let Some(places) = self.places.get_mut(&key) {
                places.pop();
                if places.is_empty() {
                    self.places.remove(&key);
                }
            }
        }
        self.added.truncate(added);
    }

    /// All of another one that adds texts and ends none, behind what is here.
    pub(super) fn absorb(&mut self, other: Work) {
        other.batch.changes.into_iter().for_each(|(key, value)| self.change(key, value));
        self.added.extend(other.added);
        self.numbers_end = self.numbers_end.max(other.numbers_end);
    }

    /// These texts come to their end with this work, and leave room for what comes of them.
    pub(super) fn will_end(&mut self, texts: &[&Text]) {
        for text in texts {
            let ended = (text.recipient, text.number);
            if !self.ended.contains(&ended) {
                self.ended.push(ended);
            }
        }
    }

    /// These keys are too old after this life.
    pub(super) fn old(&mut self, now_ms: u64, life: Duration, number: u64, of: OldOf, keys: Vec<Vec<u8>>) {
        let key = record::old_key(now_ms.saturating_add(millis(life)), number, of);
        match self.place(&key).map(|place| &mut self.batch.changes[place].1) {
            Some(Some(value)) => {
                let mut all = record::decode_old(value);
                all.extend(keys);
                *value = record::encode_old(&all);
            }
            _ => self.put(key, record::encode_old(&keys)),
        }
    }
}

/// Writes to the messages' store; a refusal is told.
pub(super) fn write(w: &mut World<'_, '_>, batch: Batch) -> Result<CommitId, StoreError> {
    let result = w.store(StoreId::Messages).and_then(|store| store.write(batch));
    if let Err(error) = &result {
        w.event(Event::MessagesStoreRefused { why: error.to_string() });
    }
    result.map(|seq| CommitId { store: StoreId::Messages, seq })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A large batch answers as a small one: by what was changed last, and what is taken back was never there.
    #[test]
    fn a_batch_is_known_by_its_last_changes_however_large_it_is() {
        for count in [10, 60, 70, 500] {
            let mut work = Work::default();
            let key = |n: usize| format!("k{}", n % 50).into_bytes();
            let value = |n: usize| n.to_string().into_bytes();
            for n in 0..count {
                work.put(key(n), value(n));
            }
            let kept = work.batch.changes.len();
            work.put(b"new".to_vec(), value(0));
            work.delete(key(0));
            assert_eq!(work.get(&key(0)), Some(&None));
            work.old(0, Duration::ZERO, 7, OldOf::Mail, vec![key(1)]);
            work.old(0, Duration::ZERO, 7, OldOf::Mail, vec![key(2)]);
            let list = work.get(&record::old_key(0, 7, OldOf::Mail)).cloned().flatten().unwrap();
            assert_eq!(record::decode_old(&list), [key(1), key(2)]);
            work.cut(kept, 0);
            assert_eq!((work.get(b"new"), work.batch.changes.len()), (None, count));
            for n in count.saturating_sub(50)..count {
                assert_eq!(work.get(&key(n)), Some(&Some(value(n))), "{count}");
            }
            let mut other = Work::default();
            other.put(b"other".to_vec(), value(1));
            work.absorb(other);
            assert_eq!(work.get(b"other"), Some(&Some(value(1))));
        }
    }
}
