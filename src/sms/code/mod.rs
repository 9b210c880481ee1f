//! The numbers that the centre itself answers.
//!
//! | file | its question |
//! |---|---|
//! | [`hook`] | a program of the operator's: what it is told, and what it says |
//! | [`choose`] | a subscriber chooses his number |
//! | [`several`] | a text to a group, or to all phones at a place |
//!
//! Knows: what each number does and for whom, and what is under way for a question. Does not know: how a question came in, or how an
//! answer gets to its phone.
//! A question stands in the queue of its number and its sender, and leaves it in the batch that puts the answer into the sender's queue: a
//! crash finds the question, which is asked again, or its answer. Where there is no room for the answer the question ends all the same.
//! Limits: [`HOOKS_PER_CODE_MAX`]; what is under way ends by its own deadline, whether or not anybody answers.

mod choose;
mod hook;
mod several;

use std::collections::BTreeMap;
use std::time::Duration;

use super::ending::{End, local_time};
use super::mail::depart::{self, Behind};
use super::record::{Recipient, Text};
use super::whole::{self, Whole};
use super::{Centre, State, Work, end, number_of};
use crate::config::words::{NOTHING, Word};
use crate::config::{CodeAction, ShortCode};
use crate::event::Event;
use crate::gsm::report::Status;
use crate::ident::{Imsi, Language, Msisdn};
use crate::register::locate::Finder;
use crate::seam::{TextOutcome, Timer};
use crate::site::{Site, World};
use crate::time::Instant;

/// Questions that the program behind one number is asked at a time; of one sender it is one.
pub(super) const HOOKS_PER_CODE_MAX: usize = 8;

/// What is under way for questions.
#[derive(Default)]
pub(super) struct Codes {
    jobs: BTreeMap<u64, Job>,
    count: u64,
    asked: several::AllAsked,
}

struct Job {
    question: Question,
    doing: Doing,
    /// `None`: each turn brings it on.
    deadline: Option<Instant>,
}

enum Doing {
    /// A program is being asked.
    Hook,
    /// The operator's files take in that the sender has this number.
    Number(Msisdn),
    Finding(several::Finding),
    Round(several::Round),
}

/// What a subscriber wrote to a number of ours: a text, or all parts of one.
pub(in crate::sms) struct Question {
    pub(in crate::sms) code: Msisdn,
    pub(in crate::sms) sender: Imsi,
    pub(in crate::sms) texts: Vec<Text>,
}

impl Question {
    fn recipient(&self) -> Recipient {
        Recipient::Code(self.code, self.sender)
    }

    /// The one that stands first in the queue.
    fn head(&mut self) -> Option<&mut Text> {
        self.texts.iter_mut().min_by_key(|text| text.number)
    }

    fn number(&self) -> u64 {
        self.texts.iter().map(|text| text.number).min().unwrap_or_default()
    }

    /// Of the sender; `None`: of all who have none of their own.
    fn language(&self, site: &Site) -> Option<Language> {
        site.subscribers.get(&self.sender).and_then(|subscriber| subscriber.language)
    }
}

impl Codes {
    pub(super) fn under_way(&self) -> usize {
        self.jobs.len()
    }

    /// Its question has come to its end otherwise.
    pub(super) fn forget(&mut self, id: u64) {
        self.jobs.remove(&id);
    }
}

impl Centre {
    /// The head of what this subscriber wrote to this number of ours has its turn.
    pub(super) fn answer_code(
        &mut self,
        w: &mut World<'_, '_>,
        finder: &mut Finder<'_>,
        code: Msisdn,
        sender: Imsi,
        text: Text,
    ) {
        let behind = depart::behind(w.site, code);
        if let Some(Behind::Route(route)) = behind
            && route.is_box
        {
            return self.forward_to_box(w, Question { code, sender, texts: vec![text] }, route);
        }
        let texts = match self.whole(w, text) {
            Ok(Whole::Ready(texts)) => texts,
            Ok(Whole::Missing { wait }) => return self.wait_for_parts(w, Recipient::Code(code, sender), wait),
            Err(error) => return end(w, &error),
        };
        let question = Question { code, sender, texts };
        let site = w.site;
        if behind.is_some_and(|behind| self.becomes_mail(w, &question, behind)) {
            return;
        }
        let Some(does) = action(site, code) else { return self.gone(w, &question) };
        if !may_ask(site, code, sender) {
            let end = End::new(TextOutcome::Failed, Status::CONNECTION_REJECTED, "its sender may not text there");
            return self.reply(w, &question, end, Word::NOT_FOR_YOU, &[("code", &code.to_string())]);
        }
        match does {
            CodeAction::OwnNumber => self.own_number(w, &question),
            CodeAction::Status => self.status(w, finder, &question),
            CodeAction::Answer(words) => {
                let language = question.language(site);
                let own = words.iter().find(|(known, _)| language.is_some() && *known == language);
                let words = own.or(words.first()).map_or("", |(_, words)| words);
                let mut work = Work::default();
                self.write_back(w, &mut work, &question, words);
                self.close(w, &question, answered(), work);
            }
            CodeAction::ChooseNumber => self.choose_number(w, question),
            CodeAction::Hook { url, timeout } => self.ask_hook(w, question, url, *timeout),
            CodeAction::Group { members } => self.ask_group(w, question, members),
            CodeAction::Broadcast => self.broadcast(w, finder, question),
        }
    }

    fn own_number(&mut self, w: &mut World<'_, '_>, question: &Question) {
        let imsi = question.sender.to_string();
        match (number(w.site, question.sender), code_of(w.site, &CodeAction::ChooseNumber)) {
            (None, Some(code)) => {
                self.reply(w, question, answered(), Word::NO_NUMBER, &[("imsi", &imsi), ("code", &code)]);
            }
            (number, _) => {
                let number = number.unwrap_or_else(|| NOTHING.into());
                let name = name(w.site, question.sender);
                let values = [("number", number.as_str()), ("name", name), ("imsi", &imsi)];
                self.reply(w, question, answered(), Word::OWN_NUMBER, &values);
            }
        }
    }

    fn status(&mut self, w: &mut World<'_, '_>, finder: &mut Finder<'_>, question: &Question) {
        let (site, sender) = (w.site, question.sender);
        // The question is no text that waits for anybody.
        let queued = self.waiting.saturating_sub(question.texts.len()).to_string();
        let yours = self.queues.get(&Recipient::Phone(sender)).map_or(0, |queue| queue.count).to_string();
        let from = question.texts.first().and_then(|text| text.came_from);
        let shard = site.map.shard_of(&sender);
        let record = shard.and_then(|shard| finder.replicas.read_local(w, shard, sender).ok().flatten());
        let binding = record.as_ref().and_then(|record| record.newest()).map(|(_, _, binding)| binding);
        let binding = binding.filter(|binding| from.is_some_and(|from| from.ip() == binding.source.ip()));
        let station = from.map_or_else(|| NOTHING.into(), |from| site.station_name(from));
        let cell = match binding.and_then(|binding| binding.cell) {
            Some(cell) => format!("{station} {cell}"),
            None => station,
        };
        let number = number(site, sender).unwrap_or_else(|| NOTHING.into());
        let time = local_time(w, w.wall().ms);
        let imsi = sender.to_string();
        let values = [
            ("queued", queued.as_str()),
            ("yours", &yours),
            ("number", &number),
            ("imsi", &imsi),
            ("cell", &cell),
            ("time", &time),
        ];
        self.reply(w, question, answered(), Word::STATUS, &values);
    }

    /// The number does nothing any more; its sender is told as of any text that could not be delivered.
    pub(in crate::sms) fn gone(&mut self, w: &mut World<'_, '_>, question: &Question) {
        let end = End::new(TextOutcome::Failed, Status::NOT_OBTAINABLE, "this number is nobody's any more");
        self.close(w, question, end, Work::default());
    }

    /// What was written; `None`: it has no words, and its sender is told so.
    fn words_of(&mut self, w: &mut World<'_, '_>, question: &Question) -> Option<String> {
        let texts: Vec<&Text> = question.texts.iter().collect();
        match whole::words(w, &texts) {
            Ok(words) => Some(words),
            Err(why) => {
                let end = End::new(TextOutcome::Failed, Status::INCOMPATIBLE_DESTINATION, why);
                let code = question.code.to_string();
                self.reply(w, question, end, Word::NOT_A_TEXT, &[("number", &code), ("why", why)]);
                None
            }
        }
    }

    // --- An answer, and the end of its question ---

    /// Words for the sender, in his language and from the number that he wrote to, and the end of his question: one batch.
    fn reply(&mut self, w: &mut World<'_, '_>, question: &Question, end: End, word: Word, values: &[(&str, &str)]) {
        let mut work = Work::default();
        self.say_back(w, &mut work, question, word, values);
        self.close(w, question, end.told(), work);
    }

    pub(in crate::sms) fn say_back(
        &mut self,
        w: &mut World<'_, '_>,
        work: &mut Work,
        question: &Question,
        word: Word,
        values: &[(&str, &str)],
    ) {
        let words = w.site.settings.templates.say(question.language(w.site), word, values);
        self.write_back(w, work, question, &words);
    }

    fn write_back(&mut self, w: &mut World<'_, '_>, work: &mut Work, question: &Question, words: &str) {
        let shown = question.code.to_string();
        if self.write_as(w, work, question.sender, (&shown, None), words).is_err() {
            w.event(Event::TextNotTold { text: question.number(), sender: question.sender });
        }
    }

    pub(in crate::sms) fn close(&mut self, w: &mut World<'_, '_>, question: &Question, end: End, work: Work) {
        let all: Vec<&Text> = question.texts.iter().collect();
        self.conclude(w, &all, &end, work, true);
    }

    // --- What takes longer than a turn ---

    /// The question is being worked on from now on, for so long at most where somebody else has to say something; the number by which the work is known.
    fn work_on(&mut self, w: &mut World<'_, '_>, question: Question, doing: Doing, longest: Option<Duration>) -> u64 {
        self.codes.count += 1;
        let (id, recipient, deadline) =
            (self.codes.count, question.recipient(), longest.map(|longest| w.ctx.now + longest));
        self.codes.jobs.insert(id, Job { question, doing, deadline });
        if let Some(queue) = self.queues.get_mut(&recipient) {
            queue.state = State::Working(id);
            queue.last_start = Some(w.ctx.now);
        }
        if let Some(deadline) = deadline {
            w.timers.at(deadline, Timer::Text(recipient));
        }
        id
    }

    /// Something of this work is due: its next step, or its end.
    pub(super) fn working_timeout(&mut self, w: &mut World<'_, '_>, finder: &mut Finder<'_>, id: u64) {
        let Some(job) = self.codes.jobs.get(&id) else { return };
        let is_over = job.deadline.is_some_and(|deadline| w.ctx.now >= deadline);
        match job.doing {
            Doing::Hook | Doing::Number(_) if !is_over => {}
            Doing::Hook => self.hook_said(w, id, Err("nobody said what became of it".into())),
            Doing::Number(_) => self.number_said(w, id, Err("nobody said what became of it".into())),
            Doing::Finding(_) => self.find(w, finder, id),
            Doing::Round(_) => self.go_round(w, id),
        }
    }
}

fn answered() -> End {
    End::new(TextOutcome::Answered, Status::RECEIVED, "")
}

fn short_code(site: &Site, code: Msisdn) -> Option<&ShortCode> {
    site.settings.short_codes.iter().find(|short| short.number == code)
}

/// What a number of the centre's own does; the one that it is shown as tells who asks his own number.
fn action(site: &Site, code: Msisdn) -> Option<&CodeAction> {
    let centre = Msisdn::parse(&site.settings.messages.service_centre).ok();
    let own = (centre == Some(code)).then_some(&CodeAction::OwnNumber);
    short_code(site, code).map(|short| &short.does).or(own)
}

/// Whether this subscriber may text there; a number counts with or without its `+`.
fn may_ask(site: &Site, code: Msisdn, sender: Imsi) -> bool {
    let Some(senders) = short_code(site, code).and_then(|short| short.senders.as_ref()) else { return true };
    let numbers = site.subscribers.get(&sender).map_or(&[][..], |subscriber| &subscriber.msisdn);
    senders.iter().any(|may| numbers.iter().any(|number| number.digits() == may.digits()))
}

/// The first number that does this.
pub(super) fn code_of(site: &Site, does: &CodeAction) -> Option<String> {
    site.settings.short_codes.iter().find(|short| short.does == *does).map(|short| short.number.to_string())
}

pub(super) fn number(site: &Site, imsi: Imsi) -> Option<String> {
    site.subscribers.get(&imsi).and_then(|subscriber| subscriber.msisdn.first()).map(ToString::to_string)
}

pub(super) fn name(site: &Site, imsi: Imsi) -> &str {
    site.subscribers.get(&imsi).map_or("", |subscriber| &subscriber.name)
}
