//! What an operator asks of the texts: `encamp queue`.
//!
//! Knows: how a text and its life are told in words; that nothing here may hold the node up: what may be long is done in pages, one
//! per turn. Does not know: how it is asked, and how it is shown.
//! Limits: [`JOBS_MAX`] long commands at a time, each for [`JOB_MAX`]; [`LOOKED_AT_PER_TURN`] texts are looked at, or
//! [`ENDED_PER_TURN`] ended, between two turns of everybody else; [`LIST_MAX`] are shown.

use std::time::Duration;

use super::ending::End;
use super::record::{self, Ended, Fate, Happened, Recipient, Sender, Step, Text};
use super::whole::{self, concatenation};
use super::{Centre, Queue, State, Wait, Work, form, millis, name_of, shift_ms, words_of, write};
use crate::gsm::header::{Concatenation, Ports};
use crate::gsm::report::Status;
use crate::gsm::rpdu::to_hex;
use crate::gsm::text::{Alphabet, Class, UserData};
use crate::ident::{Imsi, Msisdn};
use crate::mail::MailOut;
use crate::mail::address::{Address, MailKey};
use crate::register::locate::Finder;
use crate::seam::{
    After, CommandAnswer, ErrorAnswer, LifeStep, MailShown, Output, QueueAsk, QueueFilter, QueuePick, TextAnswer,
    TextLife, TextOutcome, TextShown, Timer, Who,
};
use crate::site::World;
use crate::store::{Batch, StoreError, StoreId};
use crate::time::Instant;

/// Texts shown to an operator at once.
pub const LIST_MAX: usize = 2_000;
const LOOKED_AT_PER_TURN: usize = 5_000;
const ENDED_PER_TURN: usize = 500;
/// Between two turns of a command others have theirs.
const TURN: Duration = Duration::from_millis(1);
const JOBS_MAX: usize = 8;
const JOB_MAX: Duration = Duration::from_secs(30);
/// The parts of one text are accepted one after the other: so many numbers before and after one its siblings are looked for.
const SIBLINGS_WITHIN: u64 = 20;

/// A command that takes more than one turn.
pub(super) struct Job {
    what: Task,
    deadline: Instant,
}

enum Task {
    List(List),
    End(Ending),
}

struct List {
    /// What is still to be read, the next one last: the beginning of its keys, and the last key that was looked at.
    left: Vec<(Vec<u8>, Option<Vec<u8>>)>,
    phone: Option<Phone>,
    /// In small letters.
    cause: Option<String>,
    limit: usize,
    found: Vec<TextAnswer>,
}

/// All that wait for somebody are ended.
struct Ending {
    /// The next one last.
    left: Vec<Recipient>,
    cursor: Option<Vec<u8>>,
    how: How,
    /// Texts that were accepted later are none of its business.
    below: u64,
    ended: u64,
    refused: bool,
}

/// Whom an operator means.
struct Phone {
    imsi: Option<Imsi>,
    /// As it was given, with and without a `+`.
    numbers: Vec<Msisdn>,
    mail: Option<MailKey>,
    recipients: Vec<Recipient>,
}

#[derive(Clone, Copy)]
enum How {
    Drop,
    Expire,
}

impl How {
    fn end(self) -> End {
        match self {
            How::Drop => End::new(TextOutcome::Dropped, Status::DELETED_BY_CENTRE, "by the operator"),
            How::Expire => End::expired(),
        }
    }
}

enum Found {
    Waits(Box<Text>),
    Ended(Box<Ended>),
}

/// What is done, or why not.
type Done = Result<CommandAnswer, CommandAnswer>;

impl Centre {
    /// Does what the operator asks, and answers him, in this turn or a later one.
    pub fn operate(&mut self, w: &mut World<'_, '_>, finder: &mut Finder<'_>, command: u64, ask: QueueAsk) {
        let done = match ask {
            _ if !self.open => Err(error("there are no texts", "this node has no message centre", "ask one that has")),
            QueueAsk::List(filter) => {
                let list = Task::List(List::new(w, filter));
                return self.begin_job(w, finder, command, list);
            }
            QueueAsk::Show(number) => self.show(w, number),
            QueueAsk::Explain(number) => self.explain(w, number),
            QueueAsk::Retry(pick) => self.retry(w, pick),
            QueueAsk::Drop(QueuePick::Text(number)) => self.end_text(w, number, How::Drop),
            QueueAsk::Expire(QueuePick::Text(number)) => self.end_text(w, number, How::Expire),
            QueueAsk::Drop(QueuePick::Phone(who)) => return self.end_all(w, finder, command, who, How::Drop),
            QueueAsk::Expire(QueuePick::Phone(who)) => return self.end_all(w, finder, command, who, How::Expire),
        };
        self.work_off(w, finder);
        answer(w, command, done);
    }

    /// One more turn of a command that takes several.
    pub fn job_turn(&mut self, w: &mut World<'_, '_>, finder: &mut Finder<'_>, command: u64) {
        let Some(mut job) = self.jobs.remove(&command) else { return };
        let done = match &mut job.what {
            Task::List(list) => self.list_some(w, list),
            Task::End(ending) => self.end_some(w, ending),
        };
        self.work_off(w, finder);
        match done {
            Some(done) => answer(w, command, done),
            None if w.ctx.now >= job.deadline => {
                let why = format!("it takes longer than {} s", JOB_MAX.as_secs());
                answer(w, command, Err(error("not finished", &why, "ask for less: one phone, or a smaller limit")));
            }
            None => {
                self.jobs.insert(command, job);
                w.timers.at(w.ctx.now + TURN, Timer::Operator(command));
            }
        }
    }

    /// The first turn is at once.
    fn begin_job(&mut self, w: &mut World<'_, '_>, finder: &mut Finder<'_>, command: u64, what: Task) {
        if self.jobs.len() >= JOBS_MAX {
            let why = "as many commands as may are still reading the texts";
            return answer(w, command, Err(error("not now", why, "ask again in a moment")));
        }
        self.jobs.insert(command, Job { what, deadline: w.ctx.now + JOB_MAX });
        self.job_turn(w, finder, command);
    }

    // --- Looking ---

    fn list_some(&self, w: &mut World<'_, '_>, list: &mut List) -> Option<Done> {
        let mut looked_at = 0;
        while let Some((prefix, cursor)) = list.left.last_mut() {
            if list.found.len() >= list.limit {
                break;
            }
            if looked_at >= LOOKED_AT_PER_TURN {
                return None;
            }
            let mut wanted = LOOKED_AT_PER_TURN - looked_at;
            if list.phone.is_none() && list.cause.is_none() {
                wanted = wanted.min(list.limit - list.found.len());
            }
            let page = w.store(StoreId::Messages).and_then(|store| store.scan(prefix, cursor.as_deref(), wanted));
            let page = match page {
                Ok(page) => page,
                Err(why) => return Some(Err(unreadable(&why))),
            };
            looked_at += page.len();
            let all_of_them = prefix.as_slice() == record::TEXT_PREFIX;
            match page.last() {
                Some((last, _)) if page.len() == wanted => *cursor = Some(last.clone()),
                _ => drop(list.left.pop()),
            }
            for (key, value) in page {
                let Some((recipient, number)) = record::read_text_key(&key) else { continue };
                let Some(queue) = self.queues.get(&recipient) else { continue };
                // The end of these is not on the disk yet.
                if number < queue.head || self.unfinished.contains_key(&key) {
                    continue;
                }
                // Those for this phone stand in the list already.
                if all_of_them && list.phone.as_ref().is_some_and(|phone| phone.recipients.contains(&recipient)) {
                    continue;
                }
                let Ok(text) = record::decode(recipient, number, &value) else { continue };
                if all_of_them && list.phone.as_ref().is_some_and(|phone| !phone.has_written(&text)) {
                    continue;
                }
                let row = row(w, queue, &text);
                let is_wanted = |cause: &String| {
                    row.cause.to_lowercase().contains(cause) || row.state.to_lowercase().contains(cause)
                };
                if list.cause.as_ref().is_none_or(is_wanted) {
                    list.found.push(row);
                }
            }
        }
        list.found.truncate(list.limit);
        Some(Ok(CommandAnswer::Queue(std::mem::take(&mut list.found))))
    }

    /// Where the text of this number is.
    ///
    /// Errors: nobody knows it, in words.
    fn find_text(&self, w: &mut World<'_, '_>, number: u64) -> Result<Found, CommandAnswer> {
        let get = |w: &mut World<'_, '_>, key: &[u8]| {
            w.store(StoreId::Messages).and_then(|store| store.get(key)).map_err(|why| unreadable(&why))
        };
        let Some(bytes) = get(w, &record::fate_key(number))? else { return Err(not_known(w)) };
        let garbled = || unreadable(&StoreError::Broken(format!("text {number} cannot be read by this release")));
        match record::decode_fate(number, &bytes).ok_or_else(garbled)? {
            Fate::Ended(ended) => Ok(Found::Ended(ended)),
            Fate::Waits(recipient) => {
                let key = record::text_key(recipient, number);
                let bytes = get(w, &key)?.ok_or_else(|| not_known(w))?;
                let is_over = self.queues.get(&recipient).is_none_or(|queue| number < queue.head);
                if is_over || self.unfinished.contains_key(&key) {
                    let why = "it has come to its end, which the store has not taken yet";
                    return Err(error("it does not wait any more", why, "see the log for why the store refuses"));
                }
                record::decode(recipient, number, &bytes)
                    .map(|text| Found::Waits(Box::new(text)))
                    .map_err(|why| unreadable(&why))
            }
        }
    }

    fn show(&self, w: &mut World<'_, '_>, number: u64) -> Done {
        let text = self.find_waiting(w, number)?;
        let queue = self.queues.get(&text.recipient).ok_or_else(|| not_known(w))?;
        let life_ms = text.life_ms.min(millis(super::aging::life_max(w, text.recipient)));
        Ok(CommandAnswer::Text(Box::new(TextShown {
            text: row(w, queue, &text),
            kind: text.kind(),
            mail: text.mail().map(|outgoing| mail_shown(&outgoing.mail)),
            words: form::words(&[&text]).ok(),
            octets: text.data().map(|data| to_hex(&data.bytes)).unwrap_or_default(),
            coding: text.data().map(coding).unwrap_or_default(),
            attempts: text.attempts,
            possible_duplicate: text.possible_duplicate,
            ends: shifted(w, text.accepted_ms).saturating_add(life_ms),
            report_wanted: text.report_wanted,
            life: life(w, &text),
        })))
    }

    fn explain(&self, w: &mut World<'_, '_>, number: u64) -> Done {
        let found = self.find_text(w, number)?;
        let (text, ended) = match &found {
            Found::Waits(text) => (&**text, None),
            Found::Ended(ended) => (&ended.text, Some(ended)),
        };
        let mut life = life(w, text);
        life.extend(ended.map(|ended| LifeStep { at: shifted(w, ended.at_ms), what: end_in_words(w, ended) }));
        let state = match (ended, self.queues.get(&text.recipient)) {
            (Some(ended), _) => ended.outcome.word(),
            (None, queue) => queue.map_or("waiting", |queue| state(queue, number).0),
        };
        let is_kept = ended.is_none_or(|ended| ended.has_words) || text.data().is_none();
        let words = if is_kept { self.words(w, text) } else { None };
        Ok(CommandAnswer::TextLife(Box::new(TextLife {
            id: number.to_string(),
            from: from(text),
            to: name_of(w.site, text),
            state,
            life,
            words,
        })))
    }

    /// What is written in it; of a part of a long text the whole, where all parts are kept and their numbers stand near to this one.
    fn words(&self, w: &mut World<'_, '_>, text: &Text) -> Option<String> {
        let own = form::words(&[text]).ok();
        let Some(of) = concatenation(text) else { return own };
        let mut parts: Vec<Option<Text>> = vec![None; usize::from(of.parts)];
        let before = text.number.checked_sub(SIBLINGS_WITHIN + 1).map(record::fate_key);
        let count = 2 * SIBLINGS_WITHIN as usize + 1;
        let store = w.store(StoreId::Messages).ok()?;
        for (key, value) in store.scan(record::FATE_PREFIX, before.as_deref(), count).ok()? {
            let Some(number) = record::read_fate_key(&key) else { continue };
            let other = match record::decode_fate(number, &value) {
                Some(Fate::Ended(ended)) if ended.has_words => Some(ended.text),
                Some(Fate::Waits(recipient)) => {
                    let bytes = store.get(&record::text_key(recipient, number)).ok()?;
                    bytes.and_then(|bytes| record::decode(recipient, number, &bytes).ok())
                }
                _ => None,
            };
            let Some(other) = other else { continue };
            let same =
                other.recipient == text.recipient && other.sender.is_same(&text.sender) && other.shown == text.shown;
            if let Some(part) = concatenation(&other)
                && (part.reference, part.parts, same) == (of.reference, of.parts, true)
            {
                parts[usize::from(part.part) - 1].get_or_insert(other);
            }
        }
        match parts.into_iter().collect::<Option<Vec<Text>>>() {
            Some(all) => whole::words(w, &all.iter().collect::<Vec<_>>()).ok(),
            None => own,
        }
    }

    // --- Doing ---

    /// The heads of these queues have their turn now; how many it were.
    fn retry(&mut self, w: &mut World<'_, '_>, pick: QueuePick) -> Done {
        let heads: Vec<(Recipient, u64)> = match pick {
            QueuePick::Text(number) => {
                let recipient = self.find_waiting(w, number)?.recipient;
                let head = self.queues.get(&recipient).map_or(number, |queue| queue.head);
                if head != number {
                    let why = format!("it stands behind text {head}, and no text overtakes another");
                    return Err(error("not tried", &why, &format!("encamp queue retry {head}")));
                }
                vec![(recipient, head)]
            }
            QueuePick::Phone(who) => {
                let recipients = self.those_who_wait(w, who)?;
                recipients.into_iter().filter_map(|one| Some((one, self.queues.get(&one)?.head))).collect()
            }
        };
        let mut texts = 0;
        for (recipient, head) in heads {
            let Some(queue) = self.queues.get_mut(&recipient) else { continue };
            if !matches!(queue.state, State::Waiting { .. } | State::Parked) {
                continue;
            }
            queue.failures = 0;
            self.note_retry(w, recipient, head);
            self.ask_relay(w, recipient);
            self.again_soon(w, recipient);
            texts += 1;
        }
        match texts {
            0 => Err(error(
                "not tried",
                "it is being tried at this moment",
                "encamp queue explain tells what comes of it",
            )),
            texts => Ok(CommandAnswer::Texts { texts }),
        }
    }

    /// A store that refuses has told so, and the text is tried all the same.
    fn note_retry(&mut self, w: &mut World<'_, '_>, recipient: Recipient, number: u64) {
        let key = record::text_key(recipient, number);
        let now_ms = w.wall().ms;
        let bytes = w.store(StoreId::Messages).and_then(|store| store.get(&key)).ok().flatten();
        if let Some(mut text) = bytes.and_then(|bytes| record::decode(recipient, number, &bytes).ok()) {
            text.happened(now_ms, Happened::Retried);
            let _ = write(w, Batch::default().put(key, record::encode(&text)));
        }
    }

    fn end_text(&mut self, w: &mut World<'_, '_>, number: u64, how: How) -> Done {
        let text = self.find_waiting(w, number)?;
        if self.is_under_way(text.recipient, number) {
            let why = "it is under way at this moment, and the phone may have it already";
            return Err(error("not ended", why, "ask again in a minute; encamp queue explain tells what came of it"));
        }
        self.conclude(w, &[&text], &how.end(), Work::default(), false);
        match self.unfinished.contains_key(&record::text_key(text.recipient, number)) {
            true => Err(refused()),
            false => Ok(CommandAnswer::Texts { texts: 1 }),
        }
    }

    fn end_all(&mut self, w: &mut World<'_, '_>, finder: &mut Finder<'_>, command: u64, who: Who, how: How) {
        match self.those_who_wait(w, who) {
            Err(none) => answer(w, command, Err(none)),
            Ok(left) => {
                let below = self.next_number;
                let ending = Ending { left, cursor: None, how, below, ended: 0, refused: false };
                self.begin_job(w, finder, command, Task::End(ending));
            }
        }
    }

    /// Those behind the head first: if it went first, the next one would be sent, only to be ended on its way.
    fn end_some(&mut self, w: &mut World<'_, '_>, ending: &mut Ending) -> Option<Done> {
        // What has ended and is put off would be read as waiting, and be written meanwhile.
        let _ = self.finish_older(w);
        let mut left = ENDED_PER_TURN;
        while let Some(recipient) = ending.left.last().copied() {
            if left == 0 {
                return None;
            }
            let Some(head) = self.queues.get(&recipient).map(|queue| queue.head) else {
                ending.left.pop();
                ending.cursor = None;
                continue;
            };
            let cursor = ending.cursor.take().unwrap_or_else(|| record::text_key(recipient, head));
            let page = w
                .store(StoreId::Messages)
                .and_then(|store| store.scan(&record::queue_prefix(recipient), Some(&cursor), left));
            let page = match page {
                Ok(page) => page,
                Err(why) => return Some(Err(unreadable(&why))),
            };
            let is_last = page.len() < left;
            ending.cursor = page.last().map(|(key, _)| key.clone());
            left -= page.len();
            for (key, value) in page {
                let Some((_, number)) = record::read_text_key(&key) else { continue };
                if number != head {
                    self.end_one_of(w, ending, recipient, number, &value);
                }
            }
            if is_last {
                let head = self.queues.get(&recipient).map_or(head, |queue| queue.head);
                let key = record::text_key(recipient, head);
                if let Ok(Some(value)) = w.store(StoreId::Messages).and_then(|store| store.get(&key)) {
                    self.end_one_of(w, ending, recipient, head, &value);
                }
                ending.left.pop();
                ending.cursor = None;
            }
        }
        match ending.refused {
            true => Some(Err(refused())),
            false => Some(Ok(CommandAnswer::Texts { texts: ending.ended })),
        }
    }

    /// What is under way stays, and so does what cannot be read.
    fn end_one_of(
        &mut self,
        w: &mut World<'_, '_>,
        ending: &mut Ending,
        recipient: Recipient,
        number: u64,
        value: &[u8],
    ) {
        let key = record::text_key(recipient, number);
        if number >= ending.below || self.is_under_way(recipient, number) || self.unfinished.contains_key(&key) {
            return;
        }
        let Ok(text) = record::decode(recipient, number, value) else { return };
        self.conclude(w, &[&text], &ending.how.end(), Work::default(), false);
        ending.ended += 1;
        ending.refused |= self.unfinished.contains_key(&key);
    }

    fn find_waiting(&self, w: &mut World<'_, '_>, number: u64) -> Result<Box<Text>, CommandAnswer> {
        match self.find_text(w, number)? {
            Found::Waits(text) => Ok(text),
            Found::Ended(ended) => {
                let (why, hint) = (end_in_words(w, &ended), format!("encamp queue explain {number}"));
                Err(error("it does not wait any more", &why, &hint))
            }
        }
    }

    fn those_who_wait(&self, w: &World<'_, '_>, who: Who) -> Result<Vec<Recipient>, CommandAnswer> {
        let mut recipients = Phone::new(w, who).recipients;
        recipients.retain(|recipient| self.queues.contains_key(recipient));
        match recipients.is_empty() {
            true => Err(error("no such text", "nothing waits there", "encamp queue shows what waits for whom")),
            false => Ok(recipients),
        }
    }
}

impl List {
    fn new(w: &World<'_, '_>, filter: QueueFilter) -> List {
        let phone = filter.phone.map(|who| Phone::new(w, who));
        let mut left = vec![(record::TEXT_PREFIX.to_vec(), None)];
        let own = phone.iter().flat_map(|phone| phone.recipients.iter().rev());
        left.extend(own.map(|recipient| (record::queue_prefix(*recipient), None)));
        let limit = filter.limit.unwrap_or(LIST_MAX).min(LIST_MAX);
        let cause = filter.cause.map(|cause| cause.to_lowercase());
        List { left, phone, cause, limit, found: Vec::new() }
    }
}

impl Phone {
    fn new(w: &World<'_, '_>, who: Who) -> Phone {
        let (imsi, numbers) = match who {
            Who::Mail(_) => (None, Vec::new()),
            Who::Imsi(imsi) => (Some(imsi), Vec::new()),
            Who::Number(number) => {
                let digits = number.digits();
                let both = [digits.to_owned(), format!("+{digits}")];
                let numbers = both.iter().filter_map(|text| Msisdn::parse(text).ok()).collect();
                (w.site.resolve(&number.to_string()).map(|subscriber| subscriber.imsi), numbers)
            }
        };
        let mail = match who {
            Who::Mail(key) => Some(key),
            Who::Imsi(_) | Who::Number(_) => None,
        };
        let mut recipients: Vec<Recipient> = imsi.into_iter().map(Recipient::Phone).collect();
        recipients.extend(imsi.map(Recipient::Copy));
        recipients.extend(numbers.iter().copied().map(Recipient::Trunk));
        recipients.extend(mail.map(Recipient::Mail));
        Phone { imsi, numbers, mail, recipients }
    }

    /// It has written this text, or the text is for this number of the centre's own.
    fn has_written(&self, text: &Text) -> bool {
        let is_number = |number: Msisdn| self.numbers.contains(&number);
        let is_code = matches!(text.recipient, Recipient::Code(code, _) if is_number(code));
        match &text.sender {
            _ if is_code => true,
            Sender::Phone(imsi) => self.imsi == Some(*imsi),
            Sender::Mail(from) if self.mail.is_some() => {
                Address::parse(&from.from).is_ok_and(|from| self.mail == Some(from.key()))
            }
            Sender::Trunk(_) | Sender::Centre | Sender::Mail(_) => Msisdn::parse(&text.shown).is_ok_and(is_number),
        }
    }
}

/// An answer may tell of what the disk does not have yet: it waits until it does.
fn answer(w: &mut World<'_, '_>, id: u64, done: Done) {
    let answer = done.unwrap_or_else(|why| why);
    let after = match w.unsynced(StoreId::Messages) {
        Some(commit) if matches!(answer, CommandAnswer::Texts { .. }) => After::nothing().and(commit),
        _ => After::nothing(),
    };
    w.ctx.out.send_after(after, Output::Answer { id, answer });
}

fn error(error: &str, cause: &str, hint: &str) -> CommandAnswer {
    CommandAnswer::Error(ErrorAnswer { error: error.into(), cause: cause.into(), hint: hint.into() })
}

fn not_known(w: &World<'_, '_>) -> CommandAnswer {
    let days = w.site.settings.messages.history_life.as_secs_f64() / 86_400.0;
    let hint = format!("what became of a text is known for {days:.1} days, `history_life` in [messages]");
    error("no such text", "no text has this number, or its history is over", &hint)
}

fn unreadable(why: &StoreError) -> CommandAnswer {
    error("cannot read the texts", &why.to_string(), "see the log")
}

fn refused() -> CommandAnswer {
    let why = "the messages' store takes nothing at this moment; what has ended is noted as soon as it does";
    error("not on the disk", why, "see the log for why the store refuses")
}

fn shifted(w: &World<'_, '_>, at_ms: u64) -> u64 {
    at_ms.saturating_add(shift_ms(w, at_ms))
}

/// The state of a text of this queue, and when its next attempt is due.
fn state(queue: &Queue, number: u64) -> (&'static str, Option<Instant>) {
    let is_head = number == queue.head;
    match &queue.state {
        State::Sending(_) | State::Locating { .. } | State::Handing(_) | State::Working(_) if is_head => {
            ("sending", None)
        }
        State::Waiting { at, why } => {
            (if *why == Wait::Return { "absent" } else { "waiting" }, Some(*at).filter(|_| is_head))
        }
        _ => ("waiting", None),
    }
}

fn row(w: &World<'_, '_>, queue: &Queue, text: &Text) -> TextAnswer {
    let (state, next) = state(queue, text.number);
    TextAnswer {
        id: text.number.to_string(),
        from: from(text),
        to: name_of(w.site, text),
        state,
        since: shifted(w, text.accepted_ms),
        next_attempt: next.map(|at| w.wall().ms.saturating_add(millis(at - w.ctx.now))),
        cause: words_of(text.cause),
    }
}

/// Whoever wrote a mail by his address, not by the number as which a phone sees him.
fn from(text: &Text) -> String {
    match &text.sender {
        Sender::Mail(mail) => mail.from.clone(),
        Sender::Centre | Sender::Phone(_) | Sender::Trunk(_) => text.shown.clone(),
    }
}

/// What happened to a text until now.
fn life(w: &World<'_, '_>, text: &Text) -> Vec<LifeStep> {
    let accepted = match (&text.sender, text.came_from) {
        (Sender::Centre, _) => "written by the message centre".to_owned(),
        (Sender::Trunk(name), _) => format!("accepted from {name}"),
        (Sender::Mail(mail), _) => format!("accepted as a mail of {}", mail.from),
        (Sender::Phone(_), Some(from)) => format!("accepted from {}", w.site.station_name(from)),
        (Sender::Phone(_), None) => "accepted".to_owned(),
    };
    let mut life = vec![LifeStep { at: shifted(w, text.accepted_ms), what: accepted }];
    life.extend(text.life.iter().map(|step| LifeStep { at: shifted(w, step.at_ms), what: in_words(w, step) }));
    life
}

fn in_words(w: &World<'_, '_>, step: &Step) -> String {
    match &step.what {
        Happened::Failed(cause, Some(to)) => format!("tried at {}: {}", w.site.station_name(*to), words_of(*cause)),
        Happened::Failed(cause, None) => format!("could not be tried: {}", words_of(*cause)),
        Happened::MailFailed { code: 0, why } => why.clone(),
        Happened::MailFailed { code, why } => format!("answered {code}: {why}"),
        Happened::Returned => "the phone came back".into(),
        Happened::Retried => "tried again by the operator".into(),
        Happened::Forgotten(count) => format!("{count} steps forgotten"),
    }
}

fn end_in_words(w: &World<'_, '_>, ended: &Ended) -> String {
    let mut words = ended.outcome.word().to_owned();
    if let Some(to) = ended.taken_by {
        words += &format!(" at {}", w.site.station_name(to));
    }
    if !ended.why.is_empty() {
        words += &format!(": {}", ended.why);
    }
    if ended.outcome != TextOutcome::Delivered && ended.code != 0 {
        let cause = record::Cause::Refused { code: ended.code, cause: ended.cause };
        words += &format!(" ({})", words_of(cause));
    }
    words
}

fn mail_shown(mail: &MailOut) -> MailShown {
    let name = &mail.header_from_name;
    MailShown {
        envelope_from: mail.from.as_ref().map_or_else(|| "<>".into(), ToString::to_string),
        header_from: match name.is_empty() {
            true => mail.header_from.to_string(),
            false => format!("{name} <{}>", mail.header_from),
        },
        subject: mail.subject.clone(),
        message_id: mail.message_id.clone(),
        in_reply_to: mail.in_reply_to.clone(),
    }
}

fn coding(data: &UserData) -> String {
    let mut words = match data.coding.alphabet() {
        Some(Alphabet::Gsm7) => "GSM",
        Some(Alphabet::Ucs2) => "UCS-2",
        Some(Alphabet::EightBit) => "8 bit",
        None => "compressed",
    }
    .to_owned();
    words += match data.coding.class() {
        None => "",
        Some(Class::Flash) => ", class 0",
        Some(Class::Phone) => ", class 1",
        Some(Class::Sim) => ", class 2",
        Some(Class::Terminal) => ", class 3",
    };
    let header = data.header().unwrap_or_default();
    if let Some(Concatenation { part, parts, .. }) = Concatenation::of(header) {
        words += &format!(", part {part} of {parts}");
    }
    let port = Ports::of(header).map(|ports| match ports {
        Ports::Short { destination, .. } => u16::from(destination),
        Ports::Long { destination, .. } => destination,
    });
    words + &port.map_or_else(String::new, |port| format!(", to port {port}"))
}
