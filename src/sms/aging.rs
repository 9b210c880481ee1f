//! How old things are, by a clock that may lie: when a text's time is over, and when what is kept of one may go.
//!
//! Knows: eras that a wrong clock has lived ([`crate::time::Clock`]), a clock that is put back or lies ahead, and the monotonic one, which never does.
//! Does not know: how a text ends ([`super::ending`]).

use std::time::Duration;

use super::mail::COPY_WINDOW;
use super::mail::News;
use super::record::{self, Fate, Recipient, Text};
use super::{Centre, PURGE_PER_SECOND, REPEAT_WINDOW, millis};
use crate::site::World;
use crate::store::{Batch, StoreError, StoreId};
use crate::time::{Instant, Stamp, StampClock};

#[derive(Clone, Copy)]
pub(super) struct Searched {
    pub(super) number: u64,
    /// When the first of those that it has seen may be over.
    pub(super) ends: Option<Instant>,
}

/// These texts were there at this moment.
#[derive(Clone, Copy)]
pub(super) struct Lived {
    pub(super) since: Instant,
    /// Those below this number.
    pub(super) below: u64,
}

impl Centre {
    /// What is to go, and what stays of it. `news`: lists of what somebody is to be told of now.
    pub(super) fn too_old(&self, w: &mut World<'_, '_>, news: &mut Vec<News>) -> Result<Batch, StoreError> {
        let mut batch = Batch::default();
        for (old, value) in w.store(StoreId::Messages)?.scan(record::OLD_PREFIX, None, PURGE_PER_SECOND)? {
            let (at_ms, number) = record::read_old_key(&old).unwrap_or_default();
            if !is_over(w, at_ms, Duration::ZERO) {
                break;
            }
            // What is younger than the list says, because the clock jumped or a timestamp lies ahead, is looked at again.
            let mut again: Option<u64> = None;
            let now_ms = w.wall().ms;
            let (history_life, archive_life) = {
                let messages = &w.site.settings.messages;
                (messages.history_life, messages.archive_life)
            };
            let keys = record::decode_old(&value);
            if record::is_of_news(&old) {
                news.push(News { old, keys });
                continue;
            }
            if record::is_of_contact(&old) {
                batch = super::mail::contact_too_old(w, batch, &old, &keys, value)?;
                continue;
            }
            let window = if record::is_of_mail(&old) { COPY_WINDOW } else { REPEAT_WINDOW };
            for key in &keys {
                // A key may have been written again since: then it is on a later list, too.
                let bytes = w.store(StoreId::Messages)?.get(key)?.unwrap_or_default();
                if record::is_of_words(&old) {
                    if let Some(Fate::Ended(mut ended)) = record::decode_fate(number, &bytes) {
                        match young_until(w, ended.at_ms, archive_life.unwrap_or_default()) {
                            Some(until_ms) => again = Some(until_ms),
                            None => {
                                ended.forget_words();
                                batch = batch.put(key.clone(), record::encode_fate(&Fate::Ended(ended)));
                            }
                        }
                    }
                    continue;
                }
                let is_old = match key.first() {
                    Some(b'i') => match record::decode_fate(number, &bytes) {
                        Some(Fate::Waits(_)) => false,
                        Some(Fate::Ended(ended)) => {
                            let archived = archive_life.filter(|_| ended.has_words).unwrap_or_default();
                            again = young_until(w, ended.at_ms, history_life.max(archived));
                            again.is_none()
                        }
                        None => true,
                    },
                    // It goes with the life that it leads to.
                    Some(b'r') => again.is_none() && record::decode_number(&bytes).is_none_or(|last| last == number),
                    Some(b'l') => match record::decode_last(&bytes) {
                        Some((written_ms, timestamp_s)) => {
                            // One that is written later has a later list.
                            let is_newer = written_ms > at_ms.saturating_sub(millis(REPEAT_WINDOW));
                            let last_ms = written_ms.max(timestamp_s.saturating_mul(1000));
                            let is_old = is_over(w, written_ms, REPEAT_WINDOW) && is_over(w, last_ms, REPEAT_WINDOW);
                            if !is_old && !is_newer {
                                again = Some(now_ms.saturating_add(millis(REPEAT_WINDOW)));
                            }
                            is_old
                        }
                        None => true,
                    },
                    _ => match record::decode_seen(&bytes) {
                        Some(seen) => {
                            let is_old = is_over(w, seen.at_ms, window);
                            let is_its_own =
                                seen.number == number || at_ms == seen.at_ms.saturating_add(millis(window));
                            if !is_old && is_its_own {
                                again = Some(now_ms.saturating_add(millis(window)));
                            }
                            is_old
                        }
                        None => true,
                    },
                };
                if is_old {
                    batch = batch.delete(key.clone());
                }
            }
            if let Some(again_ms) = again {
                batch = batch.put(record::old_key_at(&old, again_ms), value);
            }
            batch = batch.delete(old);
        }
        Ok(batch)
    }

    /// A text of this queue may be over then.
    pub(super) fn note_end(&mut self, at: Instant, recipient: Recipient) {
        let Some(queue) = self.queues.get_mut(&recipient) else { return };
        if let Some(searched) = &mut queue.searched {
            searched.ends = Some(searched.ends.map_or(at, |ends| ends.min(at)));
        }
        self.note_search(at, recipient);
    }

    /// Then this queue is to be searched for texts that are over.
    pub(super) fn note_search(&mut self, at: Instant, recipient: Recipient) {
        let Some(queue) = self.queues.get_mut(&recipient) else { return };
        match queue.ends {
            Some(ends) if ends <= at => return,
            Some(ends) => drop(self.ends.remove(&(ends, recipient))),
            None => {}
        }
        queue.ends = Some(at);
        self.ends.insert((at, recipient));
    }

    /// From now on the texts of this queue age by the monotonic clock, too, unless older ones than these do so already.
    pub(super) fn note_lived(&mut self, w: &World<'_, '_>, recipient: Recipient) {
        let below = self.next_number;
        let Some(queue) = self.queues.get_mut(&recipient) else { return };
        if queue.lived.is_none_or(|lived| lived.below <= queue.head) {
            queue.lived = Some(Lived { since: w.ctx.now, below });
        }
    }

    /// How long a text may still be tried: its own life, and never longer than [`life_max`] is today.
    pub(super) fn left(&self, w: &World<'_, '_>, text: &Text) -> Duration {
        self.life_left(w, text.recipient, text.number, text.accepted_ms, text.life_ms)
    }

    /// It is as old as the clock says, and no younger than we have seen it: a clock that is put back stands still. What the last run
    /// left ages by what we have seen alone while the clock is not believed.
    pub(super) fn life_left(
        &self,
        w: &World<'_, '_>,
        recipient: Recipient,
        number: u64,
        accepted_ms: u64,
        life_ms: u64,
    ) -> Duration {
        let life_ms = life_ms.min(millis(life_max(w, recipient)));
        let since_ms = accepted_ms.saturating_add(shift_ms(w, accepted_ms));
        let told_ms = match number < self.first_number && !is_believed(w) {
            true => 0,
            false => w.wall().ms.saturating_sub(since_ms),
        };
        let lived = self.queues.get(&recipient).and_then(|queue| queue.lived).filter(|lived| number < lived.below);
        let seen_ms = lived.map_or(0, |lived| millis(w.ctx.now - lived.since));
        Duration::from_millis(life_ms.saturating_sub(told_ms.max(seen_ms)))
    }
}

/// The longest that a text for this recipient may live.
pub(super) fn life_max(w: &World<'_, '_>, recipient: Recipient) -> Duration {
    let settings = &w.site.settings;
    match (recipient, &settings.mail) {
        (Recipient::Mail(_), Some(mail)) => mail.life_max,
        _ => settings.messages.life_max,
    }
}

/// By how much a time that was noted then is too small, because the clock was wrong.
pub(super) fn shift_ms(w: &World<'_, '_>, at_ms: u64) -> u64 {
    w.clock.shift_ms(Stamp { ms: at_ms, ..Stamp::ZERO })
}

/// Whether so much time has passed since then.
pub(super) fn is_over(w: &World<'_, '_>, since_ms: u64, life: Duration) -> bool {
    let life_ms = u64::try_from(life.as_millis()).unwrap_or(u64::MAX);
    since_ms.saturating_add(shift_ms(w, since_ms)).saturating_add(life_ms) <= w.wall().ms
}

/// Until when something of that time is young, where the clock was wrong then, and its list was made by that clock.
pub(super) fn young_until(w: &World<'_, '_>, at_ms: u64, life: Duration) -> Option<u64> {
    let shift_ms = shift_ms(w, at_ms);
    let until_ms = at_ms.saturating_add(shift_ms).saturating_add(millis(life));
    (shift_ms > 0 && until_ms > w.wall().ms).then_some(until_ms)
}

/// Whether the clock can end what the last run left: somebody has set it, and no stamp of a time when it lay ahead holds it there.
pub(super) fn is_believed(w: &World<'_, '_>) -> bool {
    let wall = w.wall();
    wall.trusted && wall.ms <= w.ctx.wall.ms.saturating_add(StampClock::AHEAD_MS_MAX)
}
