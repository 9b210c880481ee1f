//! What whoever wrote is told of the end: the writer of a mail by a delivery status notification, a phone by report or in words.
//!
//! Knows: that a letter is kept for each recipient of a mail whose writer is to be told (`e`), that its last part tells, and that all of it
//! is in the batch of the end; that a notification comes from `<>`, so that nobody is told of its own end. Does not know: how one is
//! written, and whether a mail may be answered at all ([`super::arrive`] keeps no letter then).
//! Source: RFC 3461 §4.1, §5.2; RFC 3464; RFC 3834 §2; TS 23.040 §9.2.3.15.
//! Limits: one notification for each letter, and one more where it was asked that a delay be told, after [`DELAY`].

use std::time::Duration;

use super::contact::get_with;
use super::depart::date_s;
use super::status::{self, MailStatus};
use crate::config::words::Word;
use crate::event::Event;
use crate::gsm::report::Status;
use crate::ident::Imsi;
use crate::mail::address::Address;
use crate::mail::{Action, AutoSubmitted, Body, MailOut, Notify, Report};
use crate::seam::TextOutcome;
use crate::site::World;
use crate::sms::aging::young_until;
use crate::sms::ending::{End, is_explained, local_time, report_text};
use crate::sms::record::{
    self, Awaited, Letter, OldOf, Outgoing, Payload, Recipient, ReportOf, ReportWish, Sender, Text,
};
use crate::sms::{Centre, Full, Work, millis, shift_ms, words_of};
use crate::store::StoreError;

/// A mail that waits for so long is told of where NOTIFY=DELAY asked for it.
const DELAY: Duration = Duration::from_secs(4 * 3600);
/// Whoever took a mail and tells nothing for so long will not: then all that is known is that it was handed over.
const AWAITED: Duration = Duration::from_secs(24 * 3600);
/// Of what somebody said so much stands in a notification.
const DIAGNOSTIC_CHARS_MAX: usize = 200;

/// Keys of which somebody is to be told, and the list that they stood in.
pub(in crate::sms) struct News {
    pub(in crate::sms) old: Vec<u8>,
    pub(in crate::sms) keys: Vec<Vec<u8>>,
}

impl Centre {
    /// Keeps the letter of a mail as a part of this work; its number is one of [`Centre::take_number`].
    pub(in crate::sms) fn keep_letter(&self, w: &World<'_, '_>, work: &mut Work, number: u64, letter: &Letter) {
        let key = record::letter_key(number);
        work.put(key.clone(), record::encode_letter(letter));
        if letter.notify.delay {
            work.old(w.wall().ms, DELAY, number, OldOf::News, vec![key]);
        }
    }

    /// A notification for whoever wrote this mail, as a part of this work, if NOTIFY asks for one of this kind.
    ///
    /// Shape:  `why` in words for a human; may be empty.
    /// Errors: there is no room for it, which is told, and the work is as it was.
    pub(in crate::sms) fn dsn(
        &mut self,
        w: &mut World<'_, '_>,
        work: &mut Work,
        letter: &Letter,
        action: Action,
        status: MailStatus,
        why: &str,
    ) -> Result<(), Full> {
        let is_asked = match action {
            Action::Failed => letter.notify.failure,
            Action::Delayed => letter.notify.delay,
            Action::Delivered | Action::Relayed | Action::Expanded => letter.notify.success,
        };
        if !is_asked {
            return Ok(());
        }
        let Some(text) = notification(w, letter, action, status, why) else {
            w.event(Event::MailNotTold { why: "there is no [mail] any more" });
            return Ok(());
        };
        let added = self.add(w, work, text).map(drop);
        if let Err(full) = added {
            w.event(Event::MailNotTold {
                why: match full {
                    Full::Centre => "as many texts wait as may",
                    Full::Recipient => "as many mails wait for him as may",
                    Full::Store => "the store cannot be read",
                },
            });
        }
        added
    }

    /// The end of a text that was a mail, or is one: whoever wrote it is told, as a part of this work.
    pub(in crate::sms) fn tell_of_mail(
        &mut self,
        w: &mut World<'_, '_>,
        work: &mut Work,
        text: &Text,
        end: &End,
        explain: bool,
    ) {
        let passes = text.mail().map_or(0, |outgoing| outgoing.letter);
        match (&text.sender, text.mail()) {
            _ if passes != 0 => self.letter_ended(w, work, passes, text, end),
            (Sender::Mail(from), _) if from.letter != 0 => self.letter_ended(w, work, from.letter, text, end),
            (Sender::Phone(sender), Some(outgoing)) => self.mail_ended(w, work, *sender, outgoing, text, end, explain),
            (_, Some(Outgoing { mail, .. })) if matches!(mail.body, Body::Report(_)) && !has_arrived(end) => {
                w.event(Event::MailReportLost { text: text.number, why: end.why.clone() });
            }
            _ => {}
        }
    }

    /// One part of a mail has come to its end: the last one tells of all.
    fn letter_ended(&mut self, w: &mut World<'_, '_>, work: &mut Work, number: u64, text: &Text, end: &End) {
        let key = record::letter_key(number);
        let mut letter = match self.letter_now(w, work, &key) {
            Ok(Some(letter)) => letter,
            // All of it has been told.
            Ok(None) => return,
            Err(_) => return w.event(Event::MailNotTold { why: "the store cannot be read" }),
        };
        let (action, status) = status::of_end(end.outcome, end.status, text.cause);
        let why = why_of(text, end);
        if action == Action::Failed && letter.failed.is_none() {
            letter.failed = Some((status, why.clone()));
        }
        letter.left = letter.left.saturating_sub(1);
        if letter.left > 0 {
            return work.put(key, record::encode_letter(&letter));
        }
        work.delete(key);
        // The end comes whether it can be told or not.
        let _ = match letter.failed.take() {
            Some((status, why)) => self.dsn(w, work, &letter, Action::Failed, status, &why),
            // The next server was asked all that the letter asks, and has said that it tells (RFC 3461 §5.2.2).
            None if is_told_there(text, end, &letter) => Ok(()),
            None => self.dsn(w, work, &letter, action, status, &why),
        };
    }

    /// What is known of a letter at this moment: by this work, by one that the store has refused so far, by the store.
    fn letter_now(&self, w: &mut World<'_, '_>, work: &Work, key: &[u8]) -> Result<Option<Letter>, StoreError> {
        let is_changed = |work: &Work| work.get(key).is_some();
        let refused = self.unfinished_order.iter().rev().filter_map(|key| self.unfinished.get(key));
        let latest = std::iter::once(work).chain(refused).find(|work| is_changed(work));
        let bytes = get_with(w, latest.unwrap_or(work), key)?;
        Ok(bytes.and_then(|bytes| record::decode_letter(&bytes)))
    }

    /// A mail of a phone's has been handed over, or will never be.
    #[allow(clippy::too_many_arguments, reason = "the work, the text and its end, and what stands in the text")]
    fn mail_ended(
        &mut self,
        w: &mut World<'_, '_>,
        work: &mut Work,
        sender: Imsi,
        outgoing: &Outgoing,
        text: &Text,
        end: &End,
        explain: bool,
    ) {
        let Outgoing { mail, reports, .. } = outgoing;
        let told = match (reports.is_empty(), has_arrived(end)) {
            (false, true) if end.will_tell && mail.notify.success && mail.from.is_some() => {
                return self.await_news(w, work, sender, outgoing, text.number);
            }
            (false, true) => self.report(w, work, sender, reports, end.status),
            (false, false) => {
                let said = status::in_words(&end.why).filter(|_| end.outcome == TextOutcome::Failed);
                self.report(w, work, sender, reports, said.map_or(end.status, status::to_phone))
            }
            (true, _) if !explain || !is_explained(w, end) => return,
            (true, _) => {
                let why = match end.outcome {
                    TextOutcome::Failed => status::words(status::in_words(&end.why), &end.why),
                    _ => end.why.clone(),
                };
                let time = local_time(w, text.accepted_ms.saturating_add(shift_ms(w, text.accepted_ms)));
                let values = [("number", mail.to.as_str()), ("time", &time), ("why", &why)];
                self.say(w, work, sender, Word::NOT_DELIVERED, &values)
            }
        };
        if told.is_err() {
            w.event(Event::TextNotTold { text: text.number, sender });
        }
    }

    /// The reports of a mail wait for whoever has taken it: he tells.
    fn await_news(&mut self, w: &mut World<'_, '_>, work: &mut Work, sender: Imsi, outgoing: &Outgoing, number: u64) {
        let Outgoing { mail, reports, .. } = outgoing;
        // Another box tells when its phone has the text, which may be at the end of its life.
        let life = match &mail.body {
            Body::Sms { sms, .. } => AWAITED.saturating_add(Duration::from_millis(sms.life_ms)),
            Body::Text(_) | Body::Report(_) => AWAITED,
        };
        let now_ms = w.wall().ms;
        let until_ms = now_ms.saturating_add(millis(life));
        let (message_id, to, reports) = (mail.message_id.clone(), mail.to.clone(), reports.clone());
        let awaited = Awaited { sender, message_id, to, reports, since_ms: now_ms, until_ms };
        let key = record::awaited_key(number);
        work.put(key.clone(), record::encode_awaited(&awaited));
        work.old(now_ms, life, number, OldOf::News, vec![key]);
    }

    /// The STATUS-REPORT of each part that asked for one.
    ///
    /// Errors: there is no room for all of them; those before have one.
    pub(super) fn report(
        &mut self,
        w: &mut World<'_, '_>,
        work: &mut Work,
        sender: Imsi,
        reports: &[ReportWish],
        status: Status,
    ) -> Result<(), Full> {
        let now_s = w.wall().ms / 1000;
        for ReportWish { reference, dialled, accepted_s } in reports {
            let (reference, dialled, accepted_s) = (*reference, dialled.clone(), *accepted_s);
            let ended_s = now_s.max(accepted_s);
            let report = ReportOf { reference, by_command: false, dialled, accepted_s, ended_s, status };
            let text = report_text(w, sender, report);
            self.add(w, work, text)?;
        }
        Ok(())
    }

    /// What is still not known of mails that were to be told of by now: their phones are told what is.
    pub(in crate::sms) fn tell_news(&mut self, w: &mut World<'_, '_>, news: Vec<News>) {
        if news.is_empty() {
            return;
        }
        let mut work = Work::default();
        for News { old, keys } in news {
            for key in keys {
                let told = match key.first() {
                    Some(b'w') => self.no_news(w, &mut work, &old, key),
                    _ => self.still_waits(w, &mut work, &old, &key),
                };
                if let Err(error) = told {
                    return w.event(Event::MessagesStoreRefused { why: error.to_string() });
                }
            }
            work.delete(old);
        }
        // A store that refuses has told so; the lists are there still, and looked at again in a second.
        let _ = self.commit(w, work);
    }

    /// Nobody has told what became of this mail.
    fn no_news(&mut self, w: &mut World<'_, '_>, work: &mut Work, old: &[u8], key: Vec<u8>) -> Result<(), StoreError> {
        let bytes = get_with(w, work, &key)?;
        let Some(awaited) = bytes.and_then(|bytes| record::decode_awaited(&bytes)) else { return Ok(()) };
        let Awaited { sender, reports, since_ms, until_ms, .. } = awaited;
        let life = Duration::from_millis(until_ms.saturating_sub(since_ms));
        if let Some(later_ms) = young_until(w, since_ms, life) {
            work.put(record::old_key_at(old, later_ms), record::encode_old(&[key]));
            return Ok(());
        }
        if self.report(w, work, sender, &reports, Status::FORWARDED).is_err() {
            let number = key.get(1..).and_then(|number| number.try_into().ok()).map_or(0, u64::from_be_bytes);
            w.event(Event::TextNotTold { text: number, sender });
        }
        work.delete(key);
        Ok(())
    }

    /// A mail whose writer wants to hear that it still waits, if it does.
    fn still_waits(
        &mut self,
        w: &mut World<'_, '_>,
        work: &mut Work,
        old: &[u8],
        key: &[u8],
    ) -> Result<(), StoreError> {
        if let Some(letter) = self.letter_now(w, work, key)? {
            // A clock that was wrong then has jumped.
            if let Some(later_ms) = young_until(w, letter.accepted_ms, DELAY) {
                work.put(record::old_key_at(old, later_ms), record::encode_old(&[key.to_vec()]));
                return Ok(());
            }
            let _ = self.dsn(w, work, &letter, Action::Delayed, (4, 4, 1), "it could not be delivered yet");
        }
        Ok(())
    }
}

fn has_arrived(end: &End) -> bool {
    matches!(end.outcome, TextOutcome::Delivered | TextOutcome::Answered)
}

/// A mail that passed through us, and that the next server will tell its writer of: it was asked what the letter asks.
fn is_told_there(text: &Text, end: &End, letter: &Letter) -> bool {
    let asked =
        |Outgoing { mail, .. }: &Outgoing| mail.from.as_ref() == Some(&letter.from) && mail.notify == letter.notify;
    end.will_tell && text.mail().is_some_and(asked)
}

/// Why, for whoever wrote a mail.
fn why_of(text: &Text, end: &End) -> String {
    let last = match end.outcome {
        // A mail says more itself: what its server said last stands in its life.
        TextOutcome::Expired => words_of(text.cause),
        _ => String::new(),
    };
    match (end.why.as_str(), last.as_str()) {
        (why, "") => why.to_owned(),
        ("", last) => last.to_owned(),
        (why, last) if why == last => why.to_owned(),
        (why, last) => format!("{why}; {last}"),
    }
}

/// The mail that tells of this letter. `None`: there is no mail domain that it could come from.
fn notification(w: &mut World<'_, '_>, letter: &Letter, action: Action, status: MailStatus, why: &str) -> Option<Text> {
    let settings = w.site.settings.mail.clone()?;
    let domain = settings.domain.as_str();
    let header_from = Address::parse(&format!("postmaster@{domain}")).ok()?;
    let arrived_ms = letter.accepted_ms.saturating_add(shift_ms(w, letter.accepted_ms));
    let why = status::one_line(why, DIAGNOSTIC_CHARS_MAX);
    let (to, time) = (&letter.to, date_and_time(w, arrived_ms));
    let colon = if why.is_empty() { String::new() } else { format!(": {why}") };
    let (subject, words) = match action {
        Action::Failed => (
            format!("Not delivered: your mail to {to}"),
            format!("Your mail of {time} to {to} was not delivered{colon}.\n\nIt is not tried again.\n"),
        ),
        Action::Delayed => (
            format!("Not delivered yet: your mail to {to}"),
            format!(
                "Your mail of {time} to {to} still waits{colon}.\n\nIt is tried again, and there is nothing that you need to do. \
                 You hear of it once more if it cannot be delivered.\n"
            ),
        ),
        Action::Delivered => (
            format!("Delivered: your mail to {to}"),
            format!("Your mail of {time} to {to} has arrived at the phone.\n"),
        ),
        Action::Relayed | Action::Expanded => (
            format!("Handed on: your mail to {to}"),
            format!("Your mail of {time} to {to} was handed on{colon}.\n\nWhat becomes of it there is not told.\n"),
        ),
    };
    let report = Report {
        words,
        reporting: domain.to_owned(),
        envid: letter.envid.clone(),
        arrived_s: arrived_ms / 1000,
        orcpt: letter.orcpt.clone(),
        recipient: to.to_string(),
        action,
        status,
        why,
        headers: letter.headers.clone(),
    };
    let references: Vec<String> = letter.message_id.iter().cloned().collect();
    let mail = MailOut {
        from: None,
        to: letter.from.clone(),
        header_from,
        header_from_name: "Message centre".into(),
        subject,
        body: Body::Report(report),
        // No number before the dot: nobody tells of it, and it is no text of a phone's.
        message_id: format!("report.{:016x}@{domain}", w.ctx.rng.u64()),
        in_reply_to: letter.message_id.clone(),
        references,
        date_s: date_s(w),
        auto_submitted: AutoSubmitted::Replied,
        // Nobody is told of what tells.
        notify: Notify::default(),
        envid: None,
        traces: vec![domain.to_owned()],
    };
    let shown = w.site.settings.messages.service_centre.clone();
    let recipient = Recipient::Mail(letter.from.key());
    let payload = Payload::Mail(Box::new(Outgoing { mail, reports: Vec::new(), letter: 0 }));
    Some(Text {
        dialled: letter.from.to_string(),
        life_ms: millis(settings.life_max),
        ..Text::new(recipient, Sender::Centre, shown, payload)
    })
}

/// `2026-11-22 14:05`, by the clock of this place, and how far that is from UTC.
fn date_and_time(w: &World<'_, '_>, at_ms: u64) -> String {
    let quarters = i64::from(w.site.settings.messages.time_zone_quarters);
    let minutes = i64::try_from(at_ms / 60_000).unwrap_or_default() + quarters * 15;
    let (days, of_day) = (minutes.div_euclid(24 * 60), minutes.rem_euclid(24 * 60));
    let (year, month, day) = civil(days);
    let (sign, zone) = (if quarters < 0 { '-' } else { '+' }, quarters.abs() * 15);
    format!(
        "{year:04}-{month:02}-{day:02} {:02}:{:02} (UTC{sign}{:02}:{:02})",
        of_day / 60,
        of_day % 60,
        zone / 60,
        zone % 60
    )
}

/// Year, month and day of a day counted from 1970-01-01.
fn civil(days: i64) -> (i64, i64, i64) {
    // Years begin in March here, so that the day that comes and goes is the last one; 400 of them are 146 097 days.
    let shifted = days + 719_468;
    let (era, of_era) = (shifted.div_euclid(146_097), shifted.rem_euclid(146_097));
    let year_of_era = (of_era - of_era / 1_460 + of_era / 36_524 - of_era / 146_096) / 365;
    let of_year = of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let shifted_month = (5 * of_year + 2) / 153;
    let month = if shifted_month < 10 { shifted_month + 3 } else { shifted_month - 9 };
    let year = era * 400 + year_of_era + i64::from(month <= 2);
    (year, month, of_year - (153 * shifted_month + 2) / 5 + 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_day_is_counted_as_the_calendar_has_it() {
        for (days, date) in [
            (0, (1970, 1, 1)),
            (59, (1970, 3, 1)),
            (11_015, (2000, 2, 28)),
            (11_016, (2000, 2, 29)),
            (11_017, (2000, 3, 1)),
            (20_758, (2026, 11, 1)),
            (-1, (1969, 12, 31)),
        ] {
            assert_eq!(civil(days), date, "{days}");
        }
        assert_eq!(super::super::depart::DATE_MIN_S, 20_758 * 86_400);
    }
}
