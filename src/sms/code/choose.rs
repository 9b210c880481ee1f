//! A subscriber chooses his number.
//!
//! Knows: what he wrote, and what he is told. Does not know: which numbers are free ([`may_have`]), or how one gets into the operator's files
//! (the shell does it, and says what became of it).
//! A crash in between finds the question in its queue and asks it again: who holds the very number by then has chosen it.

use std::time::Duration;

use super::{Doing, Question, answered, code_of};
use crate::config::CodeAction;
use crate::config::choose::{WhyNot, may_have};
use crate::config::words::{NOTHING, Word};
use crate::event::Event;
use crate::ident::Msisdn;
use crate::register::locate::Finder;
use crate::seam::{NotGiven, Output};
use crate::site::World;
use crate::sms::Centre;

/// The files are written within this.
const GIVEN_WITHIN: Duration = Duration::from_secs(10);

impl Centre {
    pub(super) fn choose_number(&mut self, w: &mut World<'_, '_>, question: Question) {
        let Some(words) = self.words_of(w, &question) else { return };
        let site = w.site;
        let asked = number_in(&words);
        let held = site.subscribers.get(&question.sender).and_then(|subscriber| {
            let numbers = &subscriber.msisdn;
            let same = |number: &&Msisdn| asked.is_some_and(|asked| asked.digits() == number.digits());
            numbers.iter().find(same).or(numbers.first()).copied()
        });
        if let Some(held) = held {
            return match asked.is_some_and(|asked| asked.digits() == held.digits()) {
                true => self.number_chosen(w, &question, held),
                false => {
                    self.reply(w, &question, answered(), Word::NUMBER_HELD, &[("number", &held.to_string())]);
                }
            };
        }
        let no = match asked {
            None => WhyNot::Digits,
            Some(asked) => match may_have(&site.settings, question.sender, asked) {
                Ok(()) => {
                    let imsi = question.sender;
                    let id = self.work_on(w, question, Doing::Number(asked), Some(GIVEN_WITHIN));
                    return w.ctx.out.send(Output::GiveNumber { id, imsi, number: asked });
                }
                Err(no) => no,
            },
        };
        self.number_refused(w, &question, asked, no);
    }

    /// Whether the number that a subscriber chose is his.
    pub fn number_given(
        &mut self,
        w: &mut World<'_, '_>,
        finder: &mut Finder<'_>,
        id: u64,
        result: Result<(), NotGiven>,
    ) {
        let said = match result {
            Ok(()) => Ok(true),
            Err(NotGiven::Taken) => Ok(false),
            Err(NotGiven::Failed(why)) => Err(why),
        };
        self.number_said(w, id, said);
        self.work_off(w, finder);
    }

    /// It is his, it is somebody else's, or that could not be done.
    pub(super) fn number_said(&mut self, w: &mut World<'_, '_>, id: u64, said: Result<bool, String>) {
        let Some(super::Job { doing: Doing::Number(number), .. }) = self.codes.jobs.get(&id) else { return };
        let number = *number;
        let Some(super::Job { question, .. }) = self.codes.jobs.remove(&id) else { return };
        match said {
            Ok(true) => self.number_chosen(w, &question, number),
            Ok(false) => self.number_refused(w, &question, Some(number), WhyNot::Taken),
            Err(why) => {
                w.event(Event::NumberNotGiven { imsi: question.sender, why });
                self.reply(w, &question, answered(), Word::NUMBER_FAILED, &[("number", &number.to_string())]);
            }
        }
    }

    fn number_chosen(&mut self, w: &mut World<'_, '_>, question: &Question, number: Msisdn) {
        let status = code_of(w.site, &CodeAction::Status).unwrap_or_else(|| NOTHING.into());
        let values = [("number", number.to_string()), ("status", status)];
        let values = values.each_ref().map(|(name, value)| (*name, value.as_str()));
        self.reply(w, question, answered(), Word::NUMBER_CHOSEN, &values);
    }

    fn number_refused(&mut self, w: &mut World<'_, '_>, question: &Question, asked: Option<Msisdn>, no: WhyNot) {
        let messages = &w.site.settings.messages;
        let (min, max) = (messages.number_digits_min.to_string(), messages.number_digits_max.to_string());
        let code = question.code.to_string();
        let number = asked.map_or_else(|| NOTHING.into(), |number| number.to_string());
        match no {
            WhyNot::Taken | WhyNot::Reserved => {
                self.reply(w, question, answered(), Word::NUMBER_TAKEN, &[("number", &number), ("code", &code)]);
            }
            WhyNot::Held => self.reply(w, question, answered(), Word::NUMBER_HELD, &[("number", &number)]),
            WhyNot::Digits => {
                let values = [("min", min.as_str()), ("max", &max), ("code", &code)];
                self.reply(w, question, answered(), Word::NUMBER_WRONG, &values);
            }
        }
    }
}

/// The number that these words are, as people write one.
fn number_in(words: &str) -> Option<Msisdn> {
    let between = |char: char| char.is_whitespace() || matches!(char, '-' | '.' | '/' | '(' | ')');
    let digits: String = words.chars().filter(|char| !between(*char)).collect();
    Msisdn::parse(&digits).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_number_is_read_as_people_write_it() {
        for (words, number) in [
            ("5551234", Some("5551234")),
            (" 555-12 34\n", Some("5551234")),
            ("(555) 12.34", Some("5551234")),
            ("+5551234", Some("+5551234")),
            ("my number: 5551234", None),
            ("", None),
            ("5551234567890123", None),
        ] {
            assert_eq!(number_in(words).map(|number| number.to_string()).as_deref(), number, "{words:?}");
        }
    }
}
