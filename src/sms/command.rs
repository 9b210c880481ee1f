//! SMS-COMMAND: what a phone asks of a text that it has sent; and texts that take the place of older ones.
//!
//! Knows: that a text is meant by its sender, its TP-MR and its TP-DA together; what each command changes. Does not know: how a command is
//! written, and how its sender is answered.
//! A command that asks for a report (an enquiry does by its nature) gets one about every text, known or not; without one the phone is
//! told by a refusal that nothing was done.
//! Source: TS 23.040 §9.2.3.19 (TP-Command-Type), §9.2.3.9 (replacing), §9.2.3.15 (what a report says).

use super::accept::No;
use super::answer::{self, Reply};
use super::ending::{End, report_text, told};
use super::read::Letter;
use super::record::{self, Ended, Fate, Happened, Recipient, ReportOf, Sender, Text};
use super::whole::concatenation;
use super::{Centre, State, Work, end, verdict};
use crate::gsm::report::{Command, CommandKind, Status};
use crate::ident::Imsi;
use crate::seam::{After, TextOutcome};
use crate::site::{Request, World};
use crate::store::{StoreError, StoreId};

/// TP-PID of the seven kinds of texts that take the place of an older one of the same kind.
const REPLACE: std::ops::RangeInclusive<u8> = 0x41..=0x47;
/// Texts of one queue among which those that are replaced are looked for.
const SEARCH_MAX: usize = 1_000;

/// The text that a command means.
enum Meant {
    Nothing,
    Waits(Box<Text>),
    Ended(Box<Ended>),
}

/// How a text ends that another one takes the place of.
pub(super) fn end_replaced() -> End {
    End::new(TextOutcome::Replaced, Status::REPLACED, "a later text of its sender took its place")
}

fn end_deleted() -> End {
    End::new(TextOutcome::Deleted, Status::DELETED_BY_ORIGINATOR, "its sender took it back")
}

impl Centre {
    pub(super) fn command(
        &mut self,
        w: &mut World<'_, '_>,
        request: &Request<'_>,
        reply: &Reply,
        sender: Imsi,
        command: &Command,
        digests: &[[u8; 16]],
    ) {
        if let Err(no) = self.obey(w, request, reply, sender, command, digests) {
            self.refuse(w, request, reply, Some(sender), &command.destination.number(), no, digests);
        }
    }

    /// One batch: what changes, the reports, and what makes a copy of the command known.
    fn obey(
        &mut self,
        w: &mut World<'_, '_>,
        request: &Request<'_>,
        reply: &Reply,
        sender: Imsi,
        command: &Command,
        digests: &[[u8; 16]],
    ) -> Result<(), No> {
        // What has ended, and is still on the disk because that refused, must not be put there again.
        self.finish_older(w).map_err(|_| No::Overload)?;
        let kind = command.kind;
        let report_wanted = match kind {
            CommandKind::ENQUIRE => true,
            CommandKind::DELETE | CommandKind::CANCEL_REPORT | CommandKind::ENABLE_REPORT => command.report_wanted,
            _ => return Err(No::CommandUnknown),
        };
        let meant = match meant(w, sender, command) {
            Ok(meant) => meant,
            Err(error) => {
                end(w, &error);
                return Err(No::Overload);
            }
        };
        let is_deleted = matches!(&meant, Meant::Waits(_) if kind == CommandKind::DELETE);
        let is_possible = match &meant {
            Meant::Waits(text) if is_deleted => {
                let key = record::text_key(text.recipient, text.number);
                !self.is_under_way(text.recipient, text.number) && !self.unfinished.contains_key(&key)
            }
            Meant::Waits(_) => true,
            Meant::Ended(_) | Meant::Nothing => report_wanted,
        };
        if !is_possible {
            return Err(No::CommandImpossible);
        }
        let mut work = Work::default();
        let number = self.take_number(&mut work);
        if report_wanted {
            let report = report_on(w, command, &meant, is_deleted);
            // A number that cannot be told of cannot be meant.
            crate::gsm::tpdu::Address::parse(&report.dialled).map_err(|_| No::CommandImpossible)?;
            self.add(w, &mut work, report_text(w, sender, report))?;
        }
        let wishes = match kind {
            CommandKind::CANCEL_REPORT => Some(false),
            CommandKind::ENABLE_REPORT => Some(true),
            _ => None,
        };
        if let Meant::Waits(text) = &meant {
            if is_deleted {
                // One report tells it: the command's, else the one that the text had asked for.
                let text = Text { report_wanted: text.report_wanted && !report_wanted, ..(**text).clone() };
                self.end_one(w, &mut work, &text, &end_deleted(), false);
            } else if let Some(report_wanted) = wishes {
                let changed = Text { report_wanted, ..(**text).clone() };
                work.put(record::text_key(text.recipient, text.number), record::encode(&changed));
            }
        }
        self.remember(w, &mut work, digests, 202, number);
        let commit = self.commit(w, work).map_err(|_| No::Overload)?;
        if let Meant::Waits(text) = &meant {
            if is_deleted {
                told(w, text, &end_deleted());
                self.leave(w, text.recipient, &[text.as_ref()], Some(commit), false);
            } else if let Some(report_wanted) = wishes {
                self.change_report(text.recipient, text.number, report_wanted);
            }
        }
        answer::accept(self, w, request, reply, Some(w.wall().ms / 1000), After::nothing().and(commit));
        Ok(())
    }

    /// What an attempt under way holds of a text is what is written of it when that ends.
    fn change_report(&mut self, recipient: Recipient, number: u64, report_wanted: bool) {
        let Some(queue) = self.queues.get_mut(&recipient) else { return };
        let text = match &mut queue.state {
            State::Locating { text, .. } if text.number == number => Some(&mut **text),
            State::Sending(attempt) => attempt.text_mut(number),
            State::Locating { .. }
            | State::Unkept
            | State::InLine
            | State::Parked
            | State::Handing(_)
            | State::Working(_)
            | State::Waiting { .. } => None,
        };
        if let Some(text) = text {
            text.report_wanted = report_wanted;
        }
    }

    /// The texts that this one takes the place of: older ones of the same sender, recipient and TP-PID that nobody has in his hands.
    ///
    /// Errors: the store cannot be read.
    pub(super) fn replaced(
        &mut self,
        w: &mut World<'_, '_>,
        recipient: Recipient,
        sender: &Sender,
        letter: &Letter,
    ) -> Result<Vec<Text>, No> {
        if !REPLACE.contains(&letter.protocol) || !self.queues.contains_key(&recipient) {
            return Ok(Vec::new());
        }
        let of_letter = letter.data.first().and_then(|data| data.header().ok());
        let of_letter = of_letter.and_then(crate::gsm::header::Concatenation::of);
        let page = w
            .store(StoreId::Messages)
            .and_then(|store| store.scan(&record::queue_prefix(recipient), None, SEARCH_MAX))
            .map_err(|_| No::Overload)?;
        let texts = page.into_iter().filter_map(|(key, value)| {
            let (_, number) = record::read_text_key(&key)?;
            let text = record::decode(recipient, number, &value).ok()?;
            // The parts of one long text all have the same TP-PID.
            let is_part = concatenation(&text)
                .is_some_and(|of| of_letter.as_ref().is_some_and(|letter| letter.reference == of.reference));
            let is_older = text.sender == *sender && text.protocol == letter.protocol && !is_part;
            let is_free = !self.is_under_way(recipient, number) && !self.unfinished.contains_key(&key);
            (is_older && is_free).then_some(text)
        });
        Ok(texts.collect())
    }
}

/// Errors: the store cannot be read.
fn meant(w: &mut World<'_, '_>, sender: Imsi, command: &Command) -> Result<Meant, StoreError> {
    let store = w.store(StoreId::Messages)?;
    let number = store.get(&record::reference_key(sender, command.message))?;
    let Some(number) = number.and_then(|bytes| record::decode_number(&bytes)) else { return Ok(Meant::Nothing) };
    let fate = store.get(&record::fate_key(number))?.and_then(|bytes| record::decode_fate(number, &bytes));
    let meant = match fate {
        Some(Fate::Waits(recipient)) => {
            let bytes = store.get(&record::text_key(recipient, number))?.unwrap_or_default();
            record::decode(recipient, number, &bytes).map_or(Meant::Nothing, |text| Meant::Waits(Box::new(text)))
        }
        Some(Fate::Ended(ended)) => Meant::Ended(ended),
        None => Meant::Nothing,
    };
    let dialled = match &meant {
        Meant::Waits(text) => &text.dialled,
        Meant::Ended(ended) => &ended.text.dialled,
        Meant::Nothing => return Ok(meant),
    };
    let asked = command.destination.number();
    let is_same = dialled.trim_start_matches('+') == asked.trim_start_matches('+');
    Ok(if is_same { meant } else { Meant::Nothing })
}

/// What the command's own report says: TP-MR is the command's, TP-DT when it came to that, or was tried last.
fn report_on(w: &World<'_, '_>, command: &Command, meant: &Meant, is_deleted: bool) -> ReportOf {
    let now_s = w.wall().ms / 1000;
    let (dialled, accepted_s, ended_s, status) = match meant {
        Meant::Nothing => (command.destination.number(), now_s, now_s, Status::DOES_NOT_EXIST),
        Meant::Ended(ended) => (ended.text.dialled.clone(), ended.text.timestamp_s, ended.at_ms / 1000, ended.status),
        Meant::Waits(text) if is_deleted => {
            (text.dialled.clone(), text.timestamp_s, now_s, Status::DELETED_BY_ORIGINATOR)
        }
        Meant::Waits(text) => {
            let tried = text.life.iter().rev().find(|step| matches!(step.what, Happened::Failed(..)));
            let tried_s = tried.map_or(now_s, |step| step.at_ms / 1000);
            (text.dialled.clone(), text.timestamp_s, tried_s, verdict::still_trying(text.cause))
        }
    };
    // As of every report: the time that a text was given may lie ahead of the clock.
    let ended_s = ended_s.max(accepted_s);
    ReportOf { reference: command.reference, by_command: true, dialled, accepted_s, ended_s, status }
}
