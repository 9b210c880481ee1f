//! A text comes to its end: what is kept of it, and who is told.
//!
//! Knows: that one batch of the store removes the text, notes its fate, and adds the report that its sender asked for, so that a crash
//! finds all of it or nothing. Does not know: why it ends.
//! Every accepted text ends once, by [`Centre::conclude`]; a store that refuses is asked again until it takes the batch.

use super::record::{self, Ended, Fate, OldOf, Payload, Recipient, ReportOf, Sender, Text};
use super::{Centre, Searched, Work, end, number_of, shift_ms};
use crate::config::words::Word;
use crate::event::Event;
use crate::gsm::header::Reference;
use crate::gsm::report::Status;
use crate::gsm::segment::{Cut, split};
use crate::gsm::text;
use crate::gsm::tpdu::UserData;
use crate::ident::Imsi;
use crate::seam::{After, Inner, TextOutcome, TextRecord};
use crate::site::World;
use crate::store::{CommitId, StoreId};
use crate::time::Instant;

use std::net::SocketAddr;
use std::time::Duration;

/// A text that is under way while its time ends is asked for again after this.
const EXPIRE_AGAIN: Duration = Duration::from_secs(5);
/// Longer words of the centre's own are cut: nobody reads more on a phone, and each part holds a channel.
pub(super) const PARTS_MAX: usize = 10;
/// Texts of one queue that are read to find those that are over.
const EXPIRE_PAGE: usize = 1_000;

/// How a text ends.
pub(super) struct End {
    pub(super) outcome: TextOutcome,
    pub(super) status: Status,
    /// The last answer's code, and the cause of an RP-ERROR; 0: none.
    pub(super) code: u16,
    pub(super) cause: u8,
    pub(super) taken_by: Option<SocketAddr>,
    pub(super) why: String,
    /// The sender is told of it by words of their own, in the same work.
    pub(super) told: bool,
    /// Whoever took a mail tells later what became of it.
    pub(super) will_tell: bool,
    /// What it says goes on as something else, whose end is told: of this one nobody hears.
    pub(super) goes_on: bool,
}

impl End {
    pub(super) fn new(outcome: TextOutcome, status: Status, why: impl Into<String>) -> End {
        let (told, will_tell, goes_on) = (false, false, false);
        End { outcome, status, code: 0, cause: 0, taken_by: None, why: why.into(), told, will_tell, goes_on }
    }

    /// Its sender is told in other words than that it was not delivered.
    pub(super) fn told(self) -> End {
        End { told: true, ..self }
    }

    /// What follows it tells the sender how it all ends.
    pub(super) fn goes_on(self) -> End {
        End { goes_on: true, ..self }
    }

    pub(super) fn expired() -> End {
        End::new(TextOutcome::Expired, Status::VALIDITY_EXPIRED, "its time was over")
    }
}

impl Centre {
    /// These texts of one queue, its head among them or not, end together and all alike; none of them is under way any more. What else
    /// belongs to the end (an answer to the sender) is in `work`. `served`: the phone is there.
    pub(super) fn conclude(&mut self, w: &mut World<'_, '_>, texts: &[&Text], end: &End, mut work: Work, served: bool) {
        let Some(first) = texts.first() else { return };
        let recipient = first.recipient;
        for text in texts {
            // Words about a long text are said once, a report is of each part.
            let explain = !end.told && text.number == first.number;
            self.end_one(w, &mut work, text, end, explain);
            told(w, text, end);
        }
        let key = record::text_key(recipient, first.number);
        // Those that a refusing store still shows are passed over when the next head is looked for.
        let commit = self.finish(w, &key, work);
        self.leave(w, recipient, texts, commit, served);
    }

    /// These texts have left this queue. `commit`: with it the disk knows; `None`: the store has refused it so far.
    pub(super) fn leave(
        &mut self,
        w: &mut World<'_, '_>,
        recipient: Recipient,
        texts: &[&Text],
        commit: Option<CommitId>,
        served: bool,
    ) {
        let numbers: Vec<u64> = texts.iter().map(|text| text.number).collect();
        let head = self.queues.get(&recipient).map(|queue| queue.head);
        let removing = head.filter(|head| numbers.contains(head));
        // Also where the store refuses: the next one is sent when the disk knows of this end. Else a crash would find two that may have
        // been under way.
        if let (Some(text), Some(queue)) = (removing, self.queues.get_mut(&recipient)) {
            queue.removing = removing;
            if let Some(commit) = commit {
                w.ctx.out.after(After::nothing().and(commit), Inner::TextRemoved { recipient, text });
            }
        }
        // The head last: then the others are no heads on the way.
        let (heads, others): (Vec<u64>, Vec<u64>) = numbers.into_iter().partition(|number| Some(*number) == head);
        others.into_iter().chain(heads).for_each(|number| self.pass(w, recipient, number, served));
    }

    /// What the store is to hold of an end, as a part of this work. `explain`: where there is no report, words tell it.
    pub(super) fn end_one(&mut self, w: &mut World<'_, '_>, work: &mut Work, text: &Text, end: &End, explain: bool) {
        let now_ms = w.wall().ms;
        work.will_end(&[text]);
        work.delete(record::text_key(text.recipient, text.number));
        if text.progress > 0 {
            work.delete(record::reached_key(text.number));
        }
        let settings = &w.site.settings.messages;
        let archived = settings.archive_life.filter(|_| text.data().is_some());
        let mut ended = Ended {
            text: text.clone(),
            has_words: true,
            at_ms: now_ms,
            outcome: end.outcome,
            code: end.code,
            cause: end.cause,
            status: end.status,
            taken_by: end.taken_by,
            why: end.why.clone(),
        };
        let mut life = settings.history_life;
        match archived {
            None => ended.forget_words(),
            Some(archived) if archived < life => {
                work.old(now_ms, archived, text.number, OldOf::Words, vec![record::fate_key(text.number)]);
            }
            Some(archived) => life = archived,
        }
        work.put(record::fate_key(text.number), record::encode_fate(&Fate::Ended(Box::new(ended))));
        let mut keys = vec![record::fate_key(text.number)];
        if let Some(sender) = text.sender.phone() {
            keys.push(record::reference_key(sender, text.reference));
        }
        work.old(now_ms, life, text.number, OldOf::Life, keys);
        self.tell_sender(w, work, text, end, explain);
        let accepted_ms = text.accepted_ms.saturating_add(shift_ms(w, text.accepted_ms));
        let attempts = text.attempts;
        let site = w.site;
        let record = TextRecord {
            id: text.number.to_string(),
            accepted_ms,
            ended_ms: now_ms,
            from: match &text.sender {
                Sender::Mail(mail) => mail.from.clone(),
                Sender::Centre | Sender::Phone(_) | Sender::Trunk(_) => text.shown.clone(),
            },
            to: if text.dialled.is_empty() { number_of(site, text.recipient) } else { text.dialled.clone() },
            from_imsi: text.sender.phone(),
            to_imsi: text.recipient.phone(),
            from_cell: text.came_from.map_or_else(String::new, |from| w.site.station_name(from)),
            to_cell: end.taken_by.map_or_else(String::new, |to| w.site.station_name(to)),
            kind: text.kind(),
            octets: match text.mail() {
                Some(outgoing) => outgoing.mail.words().len(),
                None => text.data().map_or(0, |data| data.bytes.len()),
            },
            attempts,
            outcome: end.outcome,
            code: end.code,
            cause: end.cause,
            why: end.why.clone(),
        };
        work.records.push(record);
    }

    /// The sender's STATUS-REPORT where he asked for one; else, where his text did not arrive, words that say so. What somebody has
    /// removed on purpose, the operator among them, is not told in words.
    fn tell_sender(&mut self, w: &mut World<'_, '_>, work: &mut Work, text: &Text, end: &End, explain: bool) {
        // Of a copy its sender knows nothing.
        if end.goes_on || matches!(text.recipient, Recipient::Copy(_)) {
            return;
        }
        let sender = match (&text.sender, &text.payload) {
            (Sender::Mail(_), _) | (_, Payload::Mail(_)) => return self.tell_of_mail(w, work, text, end, explain),
            (Sender::Phone(sender), Payload::Text(_)) => sender,
            _ => return,
        };
        let told = if text.report_wanted {
            let report = report_of(w, text, end.status, text.reference, false);
            self.add(w, work, report_text(w, *sender, report)).map(drop)
        } else {
            if !explain || !is_explained(w, end) {
                return;
            }
            let time = local_time(w, text.accepted_ms.saturating_add(shift_ms(w, text.accepted_ms)));
            let values = [("number", text.dialled.as_str()), ("time", &time), ("why", &end.why)];
            self.say(w, work, *sender, Word::NOT_DELIVERED, &values)
        };
        if told.is_err() {
            w.event(Event::TextNotTold { text: text.number, sender: *sender });
        }
    }

    /// Words of the centre's own for this phone, in its language, as a part of this work.
    ///
    /// Errors: there is no room for them.
    pub(super) fn say(
        &mut self,
        w: &mut World<'_, '_>,
        work: &mut Work,
        to: Imsi,
        word: Word,
        values: &[(&str, &str)],
    ) -> Result<(), super::Full> {
        let language = w.site.subscribers.get(&to).and_then(|subscriber| subscriber.language);
        let words = w.site.settings.templates.say(language, word, values);
        let shown = w.site.settings.messages.service_centre.clone();
        self.write_as(w, work, to, (&shown, None), &words)
    }

    /// The same with words that stand already: in one text, or in as many parts as it takes. `shown`: the number that it comes from;
    /// `only_at`: the place at which it is delivered.
    pub(super) fn write_as(
        &mut self,
        w: &mut World<'_, '_>,
        work: &mut Work,
        to: Imsi,
        (shown, only_at): (&str, Option<&str>),
        words: &str,
    ) -> Result<(), super::Full> {
        let parts = parts(w, words);
        // All parts of it or none.
        self.room(w, work, Recipient::Phone(to), parts.len())?;
        for data in parts {
            let text = Text::new(Recipient::Phone(to), Sender::Centre, shown.to_owned(), Payload::Text(data));
            self.add(w, work, Text { only_at: only_at.map(str::to_owned), ..text })?;
        }
        Ok(())
    }

    /// Ends the texts of this queue whose time is over, up to so many; how many it were, and how many were read.
    ///
    /// One page at a time: where there are more, the search goes on at once, and others have their turns between.
    pub(super) fn expire(&mut self, w: &mut World<'_, '_>, recipient: Recipient, limit: usize) -> (usize, usize) {
        // Before the queue is read: what has ended and is put off would be read as waiting, and be written meanwhile.
        let _ = self.finish_older(w);
        self.note_lived(w, recipient);
        let Some(queue) = self.queues.get_mut(&recipient) else { return (0, 0) };
        if let Some(ends) = queue.ends.take() {
            self.ends.remove(&(ends, recipient));
        }
        let before = queue.searched.take();
        let cursor = before.map(|before| record::text_key(recipient, before.number));
        let found = w
            .store(StoreId::Messages)
            .and_then(|store| store.scan(&record::queue_prefix(recipient), cursor.as_deref(), EXPIRE_PAGE));
        let page = match found {
            Ok(page) => page,
            Err(error) => {
                end(w, &error);
                return (0, 0);
            }
        };
        let now = w.ctx.now;
        let (mut over, mut read, mut searched) = (0, 0, None);
        let mut ends = before.and_then(|before| before.ends);
        let mut note = |at: Instant| ends = Some(ends.map_or(at, |ends: Instant| ends.min(at)));
        let is_full = page.len() == EXPIRE_PAGE;
        for (key, value) in page {
            let Some((_, number)) = record::read_text_key(&key) else { continue };
            read += 1;
            if over == limit {
                break;
            }
            // What cannot be read, or has ended, is behind it, too.
            searched = Some(number);
            let Ok(text) = record::decode(recipient, number, &value) else { continue };
            if self.unfinished.contains_key(&key) {
                continue;
            }
            let left = self.left(w, &text);
            if !left.is_zero() {
                note(now + left);
            } else if self.is_under_way(recipient, number) {
                note(now + EXPIRE_AGAIN);
            } else {
                self.conclude(w, &[&text], &End::expired(), Work::default(), false);
                over += 1;
            }
        }
        let goes_on = is_full || over == limit;
        if let (true, Some(number), Some(queue)) = (goes_on, searched, self.queues.get_mut(&recipient)) {
            queue.searched = Some(Searched { number, ends });
            self.note_search(now, recipient);
        } else if let Some(ends) = ends {
            self.note_end(ends, recipient);
        }
        (over, read)
    }
}

/// Whether words are said of it: it did not arrive, and nobody wanted it so.
pub(super) fn is_explained(w: &World<'_, '_>, end: &End) -> bool {
    let arrived = matches!(end.outcome, TextOutcome::Delivered | TextOutcome::Answered);
    let by_will = matches!(end.outcome, TextOutcome::Deleted | TextOutcome::Replaced | TextOutcome::Dropped);
    !arrived && !by_will && w.site.settings.messages.explain
}

/// The log of an end that has come.
pub(super) fn told(w: &mut World<'_, '_>, text: &Text, end: &End) {
    let (recipient, attempts) = (text.recipient, text.attempts);
    let accepted_ms = text.accepted_ms.saturating_add(shift_ms(w, text.accepted_ms));
    w.event(match end.outcome {
        TextOutcome::Delivered => {
            let elapsed_ms = w.wall().ms.saturating_sub(accepted_ms);
            Event::TextDelivered { text: text.number, recipient, elapsed_ms, attempts }
        }
        outcome => Event::TextEnded { text: text.number, recipient, outcome, why: crate::sms::mail::in_log(&end.why) },
    });
}

/// What is told of a text at this moment: TP-SCTS is the one that it was given, TP-DT is now. The former may lie ahead of the clock, where
/// texts of one second have each a second of their own; no text has ended before it was there.
pub(super) fn report_of(w: &World<'_, '_>, text: &Text, status: Status, reference: u8, by_command: bool) -> ReportOf {
    ReportOf {
        reference,
        by_command,
        dialled: text.dialled.clone(),
        accepted_s: text.timestamp_s,
        ended_s: (w.wall().ms / 1000).max(text.timestamp_s),
        status,
    }
}

/// The STATUS-REPORT on its way to this phone, as a text of the centre's.
pub(super) fn report_text(w: &World<'_, '_>, to: Imsi, report: ReportOf) -> Text {
    let shown = w.site.settings.messages.service_centre.clone();
    Text::new(Recipient::Phone(to), Sender::Centre, shown, Payload::Report(report))
}

/// One text, or as many parts of one as it takes; of what needs more than [`PARTS_MAX`] the end is cut.
pub(super) fn parts(w: &mut World<'_, '_>, words: &str) -> Vec<UserData> {
    if let Ok(data) = text::encode(words) {
        return vec![data];
    }
    let [reference] = w.ctx.rng.bytes();
    let cut = Cut::new(Reference::Short(reference));
    let within = |words: &str| split(words, &cut).ok().filter(|parts| parts.len() <= PARTS_MAX);
    if let Some(parts) = within(words) {
        return parts;
    }
    // More of it never needs fewer parts: the longest beginning that fits is found by halving.
    let ends: Vec<usize> = words.char_indices().map(|(at, char)| at + char.len_utf8()).collect();
    let fitting = ends.partition_point(|end| within(&words[..*end]).is_some());
    fitting.checked_sub(1).and_then(|last| within(&words[..ends[last]])).unwrap_or_default()
}

/// `14:05`, by the clock of this place.
pub(super) fn local_time(w: &World<'_, '_>, at_ms: u64) -> String {
    let quarters = i64::from(w.site.settings.messages.time_zone_quarters);
    let minutes = (i64::try_from(at_ms / 60_000).unwrap_or_default() + quarters * 15).rem_euclid(24 * 60);
    format!("{:02}:{:02}", minutes / 60, minutes % 60)
}
