//! A text to several: the members of a group, or all phones at a place.
//!
//! Knows: who they are, how far the text has got. Does not know: where their phones are when it is delivered.
//! Phones are taken in the order of their IMSIs, [`CHUNK`] in one batch, which notes the last one, too: so after a crash nobody gets it
//! twice, and nobody is left out who was there all the time. The batch of the last ones ends the question.
//! Who broadcasts is asked first. What he wrote is kept in memory until he says yes, and goes into his queue with his *yes*, as a text with a
//! place: from then on it survives a crash.
//! Limits: [`ASKED_MAX`], one for each sender and number; a turn looks at [`FIND_AT_ONCE`] records, or writes one chunk.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use super::{Doing, Job, Question, action, answered, number_of};
use crate::config::words::Word;
use crate::config::{CodeAction, Settings};
use crate::event::Event;
use crate::gsm::report::Status;
use crate::ident::{Imsi, Msisdn};
use crate::register::locate::Finder;
use crate::register::merge::Binding;
use crate::seam::{TextOutcome, Timer};
use crate::site::World;
use crate::sms::ending::{End, parts};
use crate::sms::record::{self, Payload, Recipient, Sender, Text};
use crate::sms::verdict::{Said, Verdict};
use crate::sms::{Centre, Work, end};
use crate::store::StoreId;
use crate::time::{Instant, Stamp};

/// Phones whose texts are written in one batch.
const CHUNK: usize = 100;
/// Records that are looked at in one turn.
const FIND_AT_ONCE: usize = 500;
/// Others have their turn in between.
const TURN: Duration = Duration::from_millis(1);
/// Broadcasts that wait for their sender's yes.
const ASKED_MAX: usize = 1_000;
const ASKED_LIFE: Duration = Duration::from_secs(600);

/// A broadcast whose sender has been asked.
pub(super) struct Asked {
    key: String,
    area: String,
    words: String,
    until: Instant,
}

pub(super) type AllAsked = BTreeMap<(Msisdn, Imsi), Asked>;

/// All phones at a place are being looked for.
pub(super) struct Finding {
    area: String,
    words: String,
    confirmed: bool,
    cursor: Option<(usize, Imsi)>,
    found: BTreeSet<Imsi>,
}

/// A text is on its way into the queues of several.
pub(super) struct Round {
    /// Who has not got it yet, in order.
    left: BTreeSet<Imsi>,
    words: String,
    /// Where it is delivered only.
    area: Option<String>,
}

impl Centre {
    // --- A group ---

    pub(super) fn ask_group(&mut self, w: &mut World<'_, '_>, question: Question, members: &[Msisdn]) {
        let Some(words) = self.words_of(w, &question) else { return };
        let site = w.site;
        let members = members.iter().filter_map(|number| site.resolve(&number.to_string()));
        let members = members.filter(|member| !member.barred && member.imsi != question.sender);
        let left: BTreeSet<Imsi> = members.map(|member| member.imsi).collect();
        // They answer the group, and see who wrote.
        let words = format!("{}: {words}", number_of(site, Recipient::Phone(question.sender)));
        self.begin_round(w, question, Round { left, words, area: None });
    }

    fn begin_round(&mut self, w: &mut World<'_, '_>, mut question: Question, mut round: Round) {
        if question.head().is_some_and(|head| head.progress > 0) {
            let key = record::reached_key(question.number());
            match w.store(StoreId::Messages).and_then(|store| store.get(&key)) {
                Ok(bytes) => {
                    let reached = bytes.and_then(|bytes| record::decode_reached(&bytes));
                    round.left.retain(|imsi| reached.is_none_or(|reached| *imsi > reached));
                }
                Err(error) => return end(w, &error),
            }
        }
        let id = self.work_on(w, question, Doing::Round(round), None);
        self.go_round(w, id);
    }

    /// The next chunk.
    pub(super) fn go_round(&mut self, w: &mut World<'_, '_>, id: u64) {
        let Some(Job { doing: Doing::Round(_), .. }) = self.codes.jobs.get(&id) else { return };
        let Some(Job { mut question, doing: Doing::Round(mut round), deadline }) = self.codes.jobs.remove(&id) else {
            return;
        };
        // The operator may have taken the number away meanwhile.
        if !matches!(action(w.site, question.code), Some(CodeAction::Group { .. } | CodeAction::Broadcast)) {
            return self.gone(w, &question);
        }
        let (recipient, shown) = (question.recipient(), question.code.to_string());
        let mut work = Work::default();
        let mut written = 0;
        let mut last = None;
        for _ in 0..CHUNK {
            let Some(imsi) = round.left.pop_first() else { break };
            last = Some(imsi);
            match self.write_as(w, &mut work, imsi, (&shown, round.area.as_deref()), &round.words) {
                Ok(()) => written += 1,
                Err(_) => w.event(Event::TextPassedOver { text: question.number(), imsi }),
            }
        }
        let before = question.head().map_or(0, |head| head.progress);
        let count = before + written;
        if let Some(head) = question.head() {
            head.progress = count;
        }
        if round.left.is_empty() {
            let (count, code) = (count.to_string(), shown.as_str());
            match &round.area {
                None if last.is_none() && before == 0 => {
                    self.say_back(w, &mut work, &question, Word::GROUP_EMPTY, &[("code", code)]);
                }
                None => {
                    self.say_back(w, &mut work, &question, Word::GROUP_SENT, &[("count", &count), ("code", code)]);
                }
                Some(area) => {
                    self.say_back(w, &mut work, &question, Word::BROADCAST_SENT, &[("count", &count), ("area", area)]);
                }
            }
            return self.close(w, &question, answered().told(), work);
        }
        let number = question.number();
        if let (Some(head), Some(last), true) = (question.head(), last, count > 0) {
            work.put(record::text_key(recipient, number), record::encode(head));
            work.put(record::reached_key(number), record::encode_reached(last));
        }
        if self.commit(w, work).is_err() {
            // What this chunk would have reached is not noted, so that it is what is begun with.
            if let Some(head) = question.head() {
                head.progress = before;
            }
            return self.again_later(w, question);
        }
        self.codes.jobs.insert(id, Job { question, doing: Doing::Round(round), deadline });
        w.timers.at(w.ctx.now + TURN, Timer::Text(recipient));
    }

    fn again_later(&mut self, w: &mut World<'_, '_>, question: Question) {
        let verdict = Verdict::Temporary("the store refused it");
        self.failed(w, question.texts, Stamp::ZERO, None, verdict, Said::default());
    }

    // --- A place ---

    pub(super) fn broadcast(&mut self, w: &mut World<'_, '_>, finder: &mut Finder<'_>, mut question: Question) {
        let Some(words) = self.words_of(w, &question) else { return };
        // Only what was confirmed has a place.
        if let Some(area) = question.head().and_then(|head| head.only_at.clone()) {
            return self.begin_find(w, finder, question, area, words, true);
        }
        let areas = areas(&w.site.settings);
        match area_in(&areas, &words) {
            Some((area, rest)) if !rest.is_empty() => {
                self.begin_find(w, finder, question, area.to_owned(), rest.to_owned(), false);
            }
            _ => match confirmation(&words) {
                Some(key) => self.confirm(w, question, key),
                None => {
                    let (code, areas) = (question.code.to_string(), areas.join(", "));
                    let values = [("code", code.as_str()), ("areas", &areas)];
                    self.reply(w, &question, answered(), Word::BROADCAST_HOW, &values);
                }
            },
        }
    }

    fn begin_find(
        &mut self,
        w: &mut World<'_, '_>,
        finder: &mut Finder<'_>,
        question: Question,
        area: String,
        words: String,
        confirmed: bool,
    ) {
        let finding = Finding { area, words, confirmed, cursor: None, found: BTreeSet::new() };
        let id = self.work_on(w, question, Doing::Finding(finding), None);
        self.find(w, finder, id);
    }

    /// The next page of those who are at the place.
    pub(super) fn find(&mut self, w: &mut World<'_, '_>, finder: &mut Finder<'_>, id: u64) {
        let Some(Job { question, doing: Doing::Finding(finding), .. }) = self.codes.jobs.get_mut(&id) else { return };
        let (site, recipient) = (w.site, question.recipient());
        let wanted = |binding: &Binding| site.settings.is_at(binding.source.ip(), &finding.area);
        let (page, cursor) = finder.replicas.bound_at(w, &wanted, finding.cursor, FIND_AT_ONCE);
        // Of others than subscribers, whom no queue is for, there may be any number.
        let known = |imsi: &Imsi| site.subscribers.get(imsi).is_some_and(|subscriber| !subscriber.barred);
        finding.found.extend(page.into_iter().filter(known));
        finding.cursor = cursor;
        if cursor.is_some() {
            return w.timers.at(w.ctx.now + TURN, Timer::Text(recipient));
        }
        let Some(Job { question, doing: Doing::Finding(finding), .. }) = self.codes.jobs.remove(&id) else { return };
        let Finding { area, words, confirmed, found, .. } = finding;
        match confirmed {
            true => self.begin_round(w, question, Round { left: found, words, area: Some(area) }),
            false => self.ask(w, &question, area, words, found.len()),
        }
    }

    /// Whether it is to go out.
    fn ask(&mut self, w: &mut World<'_, '_>, question: &Question, area: String, words: String, count: usize) {
        let key = (1_000 + w.ctx.rng.below(9_000)).to_string();
        let (count, code, minutes) =
            (count.to_string(), question.code.to_string(), (ASKED_LIFE.as_secs() / 60).to_string());
        let values =
            [("count", count.as_str()), ("area", &area), ("key", &key), ("code", &code), ("minutes", &minutes)];
        self.reply(w, question, answered(), Word::BROADCAST_ASK, &values);
        let now = w.ctx.now;
        let asked = &mut self.codes.asked;
        asked.retain(|_, asked| asked.until > now);
        if asked.len() >= ASKED_MAX
            && let Some(oldest) = asked.iter().min_by_key(|(_, asked)| asked.until).map(|(whose, _)| *whose)
        {
            asked.remove(&oldest);
        }
        asked.insert((question.code, question.sender), Asked { key, area, words, until: now + ASKED_LIFE });
    }

    /// He says yes: what he wrote takes the place of that in his queue.
    fn confirm(&mut self, w: &mut World<'_, '_>, question: Question, key: &str) {
        let whose = (question.code, question.sender);
        let code = question.code.to_string();
        let now = w.ctx.now;
        let asked = self.codes.asked.get(&whose).filter(|asked| asked.until > now && asked.key == key);
        let Some((area, words)) = asked.map(|asked| (asked.area.clone(), asked.words.clone())) else {
            return self.reply(w, &question, answered(), Word::BROADCAST_GONE, &[("code", &code)]);
        };
        let parts = parts(w, &words);
        let mut work = Work::default();
        let room = self.room(w, &work, question.recipient(), parts.len());
        let added = room.and_then(|()| {
            parts.into_iter().try_for_each(|data| {
                let (came_from, shown) =
                    question.texts.first().map(|text| (text.came_from, text.shown.clone())).unwrap_or_default();
                let text = Text::new(question.recipient(), Sender::Phone(question.sender), shown, Payload::Text(data));
                let text = Text { came_from, dialled: code.clone(), only_at: Some(area.clone()), ..text };
                self.add(w, &mut work, text).map(drop)
            })
        });
        if added.is_err() {
            let end = End::new(TextOutcome::Failed, Status::CONGESTION, "as many texts wait as may");
            return self.reply(w, &question, end, Word::TOO_MANY_FOR_ONE, &[("number", &code)]);
        }
        self.codes.asked.remove(&whose);
        self.close(w, &question, answered(), work);
    }
}

/// The places that a text may go to: location areas and base stations, by their names.
fn areas(settings: &Settings) -> Vec<&str> {
    let stations = &settings.base_stations;
    let names = stations.iter().map(|station| station.name.as_str());
    let areas = stations.iter().filter_map(|station| station.location_area.as_deref());
    areas.chain(names).collect::<BTreeSet<&str>>().into_iter().collect()
}

/// The place with which these words begin, however it is written, and what follows it; of several the longest.
fn area_in<'a, 'w>(areas: &[&'a str], words: &'w str) -> Option<(&'a str, &'w str)> {
    let words = words.trim();
    let after = |area: &str| {
        let mut chars = words.char_indices();
        for wanted in area.chars() {
            let (_, char) = chars.next()?;
            if !char.to_lowercase().eq(wanted.to_lowercase()) {
                return None;
            }
        }
        let rest = chars.as_str();
        let ends = rest.chars().next().is_none_or(|char| !char.is_alphanumeric());
        ends.then(|| rest.trim_start_matches([':', ',']).trim())
    };
    let found = areas.iter().filter_map(|area| Some((*area, after(area)?)));
    found.max_by_key(|(area, _)| area.chars().count())
}

/// The key, where these words are a yes with one, in whichever language, or a key alone.
fn confirmation(words: &str) -> Option<&str> {
    let is_key = |word: &str| word.len() == 4 && word.bytes().all(|byte| byte.is_ascii_digit());
    let words: Vec<&str> = words.split_whitespace().collect();
    match words[..] {
        [key] | [_, key] if is_key(key) => Some(key),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_place_is_found_at_the_beginning_and_the_longest_one_counts() {
        let areas = ["hill", "hill top", "Ñandú", "valley"];
        for (words, found) in [
            ("hill water is cut", Some(("hill", "water is cut"))),
            (" HILL TOP  water", Some(("hill top", "water"))),
            ("hill topics", Some(("hill", "topics"))),
            ("hill: water", Some(("hill", "water"))),
            ("hills of water", None),
            ("ñANDÚ si", Some(("Ñandú", "si"))),
            ("valley", Some(("valley", ""))),
            ("vall", None),
            ("", None),
        ] {
            assert_eq!(area_in(&areas, words), found, "{words}");
        }
    }

    #[test]
    fn a_yes_has_a_key_of_four_digits() {
        for (words, key) in [
            ("yes 1234", Some("1234")),
            ("Yes  1234\n", Some("1234")),
            ("1234", Some("1234")),
            ("ndiyo 1234", Some("1234")),
            ("yes 12345", None),
            ("yes", None),
            ("yes 1234 now", None),
        ] {
            assert_eq!(confirmation(words), key, "{words}");
        }
    }
}
