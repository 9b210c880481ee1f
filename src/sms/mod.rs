//! What waits for whom: the message centre.
//!
//! | file | its question |
//! |---|---|
//! | [`record`] | what is on the disk |
//! | [`read`] | what a MESSAGE asks, in whichever dialect |
//! | [`accept`] | a text from a phone or a trunk: taken, repeated or refused |
//! | [`answer`] | how its sender is told |
//! | [`deliver`] | one attempt to give a text to its phone |
//! | [`form`] | the MESSAGE of an attempt, and what is said to it, in whichever dialect |
//! | [`verdict`] | what an answer means, and how long to wait after it (pure) |
//! | [`work`] | one batch of the store, and what happens once it is written |
//! | [`ending`] | a text comes to its end: its fate, its record, its report |
//! | [`operate`] | what an operator asks: what waits, what became of a text, away with it |
//! | [`aging`] | how old things are, by a clock that may lie |
//! | [`places`] | how many texts a base station, or a program, is given at a time |
//! | [`whole`] | the parts of a long text, put together where the whole is needed |
//! | [`code`] | the numbers that the centre itself answers: `code/hook`, `code/choose`, `code/several` |
//! | [`command`] | SMS-COMMAND, and texts that take the place of older ones |
//! | [`trunk`] | texts to numbers behind a trunk |
//! | [`mail`] | texts that become mail, and mail that becomes texts |
//! | [`welcome`] | what a phone is told that comes |
//!
//! Knows: one queue per recipient that somebody has written to, of which the head and the count are in memory and all else is on the
//! disk; what each queue waits for. Does not know: where phones are ([`crate::register::locate`]), how their return is told
//! ([`crate::register::marks`]).
//!
//! The way of a queue: a text is accepted and synced ([`State::Unkept`] until then) -> it stands in line for one of
//! [`ATTEMPTS_MAX`] places -> its phone is looked for -> it stands in line for one of the places of its base station -> MESSAGE ->
//! delivered, and the next one at once; or [`State::Waiting`], for the phone's return where it is absent, for room in its memory, and for
//! a pause that grows in any case.
//! Limits: `[messages] count_max`, `count_per_phone_max`, `attempts_per_base_station_max`, `life_max`; the named constants here and in
//! `verdict`.

pub mod accept;
mod aging;
pub mod answer;
mod code;
mod command;
pub mod deliver;
mod ending;
mod form;
mod mail;
pub mod operate;
mod places;
mod read;
pub mod record;
mod trunk;
pub mod verdict;
mod welcome;
pub mod whole;
mod work;

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::net::SocketAddr;
use std::time::Duration;

use self::accept::Submission;
use self::aging::{Lived, Searched, is_believed, is_over, shift_ms};
use self::answer::Note;
use self::code::Codes;
use self::deliver::{Attempt, Sent};
use self::mail::{Handing, Mails};
pub use self::operate::LIST_MAX;
use self::places::{Places, Taker};
use self::record::{Cause, Fate, Recipient, Text};
use self::welcome::Welcomed;
use self::work::{Full, Work, write};
use crate::event::Event;
use crate::ident::Imsi;
use crate::register::locate::Finder;
use crate::seam::{After, Inner, Output, Timer};
use crate::site::{Site, World};
use crate::store::{Batch, StoreError, StoreId};
use crate::time::{Instant, Stamp};

/// Recipients that are looked for or sent to at a time; the others stand in line.
pub const ATTEMPTS_MAX: usize = 1_000;
/// Two MESSAGEs to one phone leave no closer together, however often it says that it is back.
const ATTEMPT_PAUSE_MIN: Duration = Duration::from_secs(2);
/// A phone that comes back this soon after an attempt began is the one that it finds, and no reason for another.
const RETURN_NOTICED: Duration = Duration::from_secs(3);
/// A base station that does not know a phone this soon after it came back has not read our 200 to its REGISTER yet.
const RETURN_LEARNED: Duration = Duration::from_secs(5);
/// After a start the queues go on within this time, not all of them in one burst; those whose phone was absent take longer, because each
/// is paged for 10 s.
const RESUME: Duration = Duration::from_secs(3);
const RESUME_ABSENT: Duration = Duration::from_secs(60);
/// A repeat is told from a new text for so long after the first copy: 32 s of SIP's own repeating, 40 s of the phone's (TR1M) and a
/// human who presses *send again* with the same TP-MR. A second text with the same words has another TP-MR.
pub const REPEAT_WINDOW: Duration = Duration::from_secs(600);
/// Old keys, and endings that the store had refused, per second.
const PURGE_PER_SECOND: usize = 2_000;
/// Texts whose time is over, and queues in which none is, in one turn; and texts that are read for it.
const EXPIRE_PER_TURN: usize = 100;
const EXPIRE_READS_PER_TURN: usize = 10_000;
/// Of texts that cannot be read so many are passed over at once; their queue rests before it goes on.
const UNREADABLE_AT_ONCE: usize = 500;
const UNREADABLE_PAUSE: Duration = Duration::from_secs(1);

/// The message centre.
#[derive(Default)]
pub struct Centre {
    queues: BTreeMap<Recipient, Queue>,
    /// Texts that wait, in all queues.
    waiting: usize,
    /// Recipients whose turn has come, oldest first; who has left this state meanwhile is passed over.
    line: VecDeque<Recipient>,
    /// When a text of which queue may be over: one for each queue.
    ends: BTreeSet<(Instant, Recipient)>,
    /// Base stations that are being given texts, and programs that are being asked.
    takers: BTreeMap<Taker, Places>,
    /// Whose attempt a response belongs to.
    attempts: BTreeMap<u64, Recipient>,
    attempt_count: u64,
    /// Attempts under way: queues that are locating or sending. Mails that are handed over are counted by themselves.
    under_way: usize,
    /// Texts from phones whose sender is being looked for.
    submissions: BTreeMap<u64, Submission>,
    submission_count: u64,
    /// RPDUs of ours that an IMS phone has not said yes to.
    notes: BTreeMap<u64, Note>,
    note_count: u64,
    next_number: u64,
    /// Texts below this number are the last run's.
    first_number: u64,
    /// The clock was believed when it was last looked at: see [`is_believed`].
    believed: bool,
    /// Below it numbers may be given: the store knows.
    numbers_end: u64,
    /// The last timestamps given, while a later text may be given the same: the batch of an earlier one may have been refused.
    timestamps: BTreeMap<Imsi, u64>,
    /// Texts that came to their end, and are still on the disk because the store refused: what is to be written, by their keys.
    unfinished: BTreeMap<Vec<u8>, Work>,
    /// Those of them that have a batch, oldest first: what they add to a queue stands in its order there.
    unfinished_order: VecDeque<Vec<u8>>,
    /// The longest life of a text, and of a mail that leaves, as the settings had them when they were last looked at.
    life_max: [Duration; 2],
    /// Commands of the operator that take more than one turn.
    jobs: BTreeMap<u64, operate::Job>,
    /// What the numbers that the centre answers are at work on.
    codes: Codes,
    /// The mail bridge.
    mails: Mails,
    /// Who has been welcomed.
    welcomed: Welcomed,
    /// This node has a store for messages.
    open: bool,
}

/// The texts that wait for one recipient.
struct Queue {
    /// The number of the oldest one, and how many there are.
    head: u64,
    count: usize,
    /// Texts up to this number are on the disk.
    kept: u64,
    /// One that came to its end, and is not gone from the disk yet.
    removing: Option<u64>,
    state: State,
    /// Attempts that failed one after the other.
    failures: u32,
    /// Our mark is in the replicas, as far as we know.
    marked: bool,
    /// The phone came back while it was being sent to.
    returned: bool,
    /// The head may have been sent, which the disk does not say: by the last run, or while the store refused.
    resumed: bool,
    last_start: Option<Instant>,
    /// It came back then, and has not been tried twice since.
    last_return: Option<Instant>,
    /// The last attempt: a late answer to it is better than a second copy.
    sent: Option<Sent>,
    /// With whom it has a place.
    place: Option<Taker>,
    /// When the first of its texts may be over.
    ends: Option<Instant>,
    /// The search for those that are over goes on behind this one: `Some` while it takes more than one page.
    searched: Option<Searched>,
    /// Its texts of that time have lived since then, whatever the clock says.
    lived: Option<Lived>,
    /// For missing parts of the head nobody waits longer.
    parts_until: Option<Instant>,
    /// Texts at its front that could not be read.
    unreadable: usize,
}

enum State {
    /// The head is not on the disk yet, so nobody has been promised it; or the one before it still is.
    Unkept,
    InLine,
    Locating {
        text: Box<Text>,
        since: Stamp,
    },
    /// In the line of a base station, or of a program.
    Parked,
    Sending(Box<Attempt>),
    /// A mail is being handed over.
    Handing(Box<Handing>),
    /// A program of the operator's, or his files, are at work on it; by this number they answer.
    Working(u64),
    Waiting {
        at: Instant,
        why: Wait,
    },
}

/// What a queue waits for, beside its time.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Wait {
    /// For nothing else.
    Pause,
    /// For the phone's return.
    Return,
    /// For the phone to say that it has memory, or to return.
    Memory,
    /// For the missing parts of the text that the head is part of.
    Parts,
    /// For the relay, or the servers of its domain, to be reached.
    Relay,
}

impl Centre {
    /// Finds the queues that an earlier run left; each goes on within seconds.
    ///
    /// Errors: the store cannot be read.
    pub fn start(w: &mut World<'_, '_>) -> Result<Centre, StoreError> {
        let mut centre = Centre { next_number: 1, ..Centre::default() };
        let Some(store) = w.ctx.stores.store(StoreId::Messages) else { return Ok(centre) };
        (centre.open, centre.life_max) = (true, lives_max(w.site));
        let mut ends = Vec::new();
        if let Some(bytes) = store.get(record::NEXT_KEY)? {
            // The release before wrote it without a version.
            let before = || <[u8; 8]>::try_from(&bytes[..]).ok().map(u64::from_be_bytes);
            centre.next_number = record::decode_number(&bytes).or_else(before).unwrap_or(1);
        }
        let mut cursor: Option<Vec<u8>> = None;
        loop {
            let store = w.store(StoreId::Messages)?;
            let page = store.scan(record::TEXT_PREFIX, cursor.as_deref(), 1_000)?;
            let Some((last, _)) = page.last() else { break };
            cursor = Some(last.clone());
            let mut fates = Batch::default();
            for (key, value) in page {
                let broken = || StoreError::Broken("a key of the messages' store is not a text's".into());
                let (recipient, number) = record::read_text_key(&key).ok_or_else(broken)?;
                centre.next_number = centre.next_number.max(number + 1);
                centre.waiting += 1;
                centre.mails.waiting += usize::from(matches!(recipient, Recipient::Mail(_)));
                // One that cannot be read is told of when its turn comes.
                let text = record::glance(recipient, number, &value);
                match centre.queues.get_mut(&recipient) {
                    Some(queue) => {
                        queue.count += 1;
                        queue.kept = number;
                    }
                    None => {
                        let absent = text.as_ref().is_some_and(|text| text.cause == Cause::Absent);
                        let spread = if absent { RESUME_ABSENT } else { RESUME };
                        let micros = u64::try_from(spread.as_micros()).unwrap_or(u64::MAX);
                        let mut spread = Duration::from_micros(w.ctx.rng.below(micros));
                        let wall = w.wall();
                        if absent && wall.trusted {
                            let messages = &w.site.settings.messages;
                            let then_ms = wall.ms.saturating_add(millis(spread));
                            spread += verdict::until_day(then_ms, messages.time_zone_quarters, messages.night);
                        }
                        let at = w.ctx.now + spread;
                        w.timers.at(at, Timer::Text(recipient));
                        let why = if absent { Wait::Return } else { Wait::Pause };
                        let queue = Queue::new(number, State::Waiting { at, why });
                        centre.queues.insert(recipient, Queue { kept: number, marked: absent, resumed: true, ..queue });
                    }
                }
                let Some(text) = text else { continue };
                ends.push((recipient, number, text.accepted_ms, text.life_ms));
                if text.is_old {
                    let fate = record::encode_fate(&Fate::Waits(recipient));
                    fates = fates.put(record::fate_key(number), fate);
                }
            }
            // All of them are the last run's.
            centre.first_number = centre.next_number;
            for (recipient, number, accepted_ms, life_ms) in ends.drain(..) {
                let left = centre.life_left(w, recipient, number, accepted_ms, life_ms);
                centre.note_end(w.ctx.now + left, recipient);
            }
            if !fates.changes.is_empty() {
                // Where the store refuses them, which it tells, the next start tries again.
                let _ = write(w, fates);
            }
        }
        (centre.numbers_end, centre.believed) = (centre.next_number, is_believed(w));
        let all: Vec<Recipient> = centre.queues.keys().copied().collect();
        all.into_iter().for_each(|recipient| centre.note_lived(w, recipient));
        Ok(centre)
    }

    /// Attempts and acceptances under way; what merely waits is not.
    pub fn under_way(&self) -> usize {
        self.under_way + self.mails.handing.len() + self.submissions.len() + self.codes.under_way()
    }

    /// Texts that are accepted and not delivered.
    pub fn waiting(&self) -> usize {
        self.waiting
    }

    /// These texts are on the disk, and their senders have been told.
    pub fn kept(&mut self, w: &mut World<'_, '_>, finder: &mut Finder<'_>, texts: &[(Recipient, u64)]) {
        for (recipient, number) in texts {
            let Some(queue) = self.queues.get_mut(recipient) else { continue };
            queue.kept = queue.kept.max(*number);
            if let State::Waiting { why: Wait::Parts, .. } = queue.state {
                queue.state = State::Unkept;
            }
            self.next_in_line(*recipient);
        }
        self.work_off(w, finder);
    }

    /// A text that came to its end is gone from the disk.
    pub fn removed(&mut self, w: &mut World<'_, '_>, finder: &mut Finder<'_>, recipient: Recipient, number: u64) {
        let Some(queue) = self.queues.get_mut(&recipient) else { return };
        if queue.removing == Some(number) {
            queue.removing = None;
        }
        self.next_in_line(recipient);
        self.work_off(w, finder);
    }

    /// The head takes its place in the line, if it is on the disk and the one before it is not any more: so that after a power cut no
    /// other text than the head may have been under way.
    fn next_in_line(&mut self, recipient: Recipient) {
        if let Some(queue) = self.queues.get_mut(&recipient)
            && matches!(queue.state, State::Unkept)
            && queue.head <= queue.kept
            && queue.removing.is_none()
        {
            queue.state = State::InLine;
            self.line.push_back(recipient);
        }
    }

    /// A phone is back. `marked`: our mark told so.
    pub fn returned(&mut self, w: &mut World<'_, '_>, finder: &mut Finder<'_>, imsi: Imsi, marked: bool) {
        let recipient = Recipient::Phone(imsi);
        let Some(queue) = self.queues.get_mut(&recipient) else {
            if marked {
                // A mark that has outlived its queue.
                w.ctx.out.after(After::nothing(), Inner::Mark { imsi, since: None });
            }
            return;
        };
        queue.marked |= marked;
        queue.last_return = Some(w.ctx.now);
        let since_start = queue.last_start.map(|start| w.ctx.now - start);
        let soon = queue.last_start.map(|start| start + ATTEMPT_PAUSE_MIN);
        match queue.state {
            // It has said so already.
            State::Waiting { at, why: Wait::Pause } if soon == Some(at) && queue.failures == 0 => {}
            State::Waiting { .. } => {
                w.ctx.out.event(Event::PhoneReturned { imsi, texts: queue.count as u64 });
                queue.failures = 0;
                self.again_soon(w, recipient);
            }
            State::Sending(_) => queue.returned |= since_start.is_some_and(|elapsed| elapsed > RETURN_NOTICED),
            // It is found by the attempt that begins.
            State::Unkept
            | State::InLine
            | State::Parked
            | State::Locating { .. }
            | State::Handing(_)
            | State::Working(_) => {}
        }
        self.work_off(w, finder);
    }

    /// A deadline of this queue; an old one finds nothing due.
    pub fn timeout(&mut self, w: &mut World<'_, '_>, finder: &mut Finder<'_>, recipient: Recipient) {
        let now = w.ctx.now;
        match self.queues.get_mut(&recipient) {
            None => {}
            Some(queue) => match &mut queue.state {
                State::Waiting { at, .. } if now >= *at => {
                    queue.state = State::Unkept;
                    self.next_in_line(recipient);
                }
                State::Sending(_) => self.sending_timeout(w, recipient),
                State::Handing(_) => self.handing_timeout(w, recipient),
                State::Working(id) => {
                    let id = *id;
                    self.working_timeout(w, finder, id);
                }
                State::Waiting { .. } | State::Unkept | State::InLine | State::Parked | State::Locating { .. } => {}
            },
        }
        self.work_off(w, finder);
    }

    /// Once a second: ends what is over, forgets what is too old, and writes what a store that was full would not.
    pub fn housekeeping(&mut self, w: &mut World<'_, '_>, finder: &mut Finder<'_>) {
        if !self.open {
            return;
        }
        // Who is given less time now is over sooner than was noted.
        let life_max = lives_max(w.site);
        let before = std::mem::replace(&mut self.life_max, life_max);
        let is_less = before.iter().zip(&life_max).any(|(before, now)| before > now);
        // And what the last run left has aged by a clock that is right now.
        let believed = is_believed(w);
        let is_right = !std::mem::replace(&mut self.believed, believed) && believed;
        if is_less || is_right {
            let all: Vec<Recipient> = self.queues.keys().copied().collect();
            all.into_iter().for_each(|recipient| self.note_end(w.ctx.now, recipient));
        }
        let now_s = w.wall().ms / 1000;
        self.timestamps.retain(|_, timestamp_s| *timestamp_s >= now_s);
        let (mut left, mut reads) = (EXPIRE_PER_TURN, EXPIRE_READS_PER_TURN);
        while left > 0
            && reads > 0
            && let Some((at, recipient)) = self.ends.first().copied()
            && at <= w.ctx.now
        {
            let (over, read) = self.expire(w, recipient, left);
            (left, reads) = (left.saturating_sub(over.max(1)), reads.saturating_sub(read));
        }
        self.work_off(w, finder);
        // A store that refuses is asked again in a second.
        let _ = self.finish_older(w);
        let mut news = Vec::new();
        match self.too_old(w, &mut news) {
            Ok(batch) if batch.changes.is_empty() => {}
            Ok(batch) => drop(write(w, batch)),
            Err(error) => w.event(Event::MessagesStoreRefused { why: error.to_string() }),
        }
        self.tell_news(w, news);
        self.look_at_mail(w);
    }

    /// Whether this text may be in somebody's hands at this moment: it must not come to its end by other means then.
    fn is_under_way(&self, recipient: Recipient, number: u64) -> bool {
        let Some(queue) = self.queues.get(&recipient) else { return false };
        match &queue.state {
            State::Locating { .. } => number == queue.head,
            // With the head go the other parts of its text.
            State::Sending(attempt) => attempt.has(number),
            State::Working(_) => true,
            State::Handing(_) => number == queue.head,
            State::Unkept | State::InLine | State::Parked | State::Waiting { .. } => false,
        }
    }

    // --- Shared by all rooms of the centre ---

    /// One more text in this queue; it is sent once it is on the disk.
    fn enqueue(&mut self, recipient: Recipient, number: u64) {
        self.waiting += 1;
        self.mails.waiting += usize::from(matches!(recipient, Recipient::Mail(_)));
        match self.queues.get_mut(&recipient) {
            Some(queue) => queue.count += 1,
            None => {
                // One of an earlier queue may have ended without the disk's knowing of it yet.
                let before =
                    self.unfinished.range(record::queue_prefix(recipient)..=record::text_key(recipient, number));
                let removing =
                    before.filter_map(|(key, _)| record::read_text_key(key)).map(|(_, number)| number).next_back();
                self.queues.insert(recipient, Queue { removing, ..Queue::new(number, State::Unkept) });
            }
        }
    }

    /// Begins attempts for those in line while there are places.
    fn work_off(&mut self, w: &mut World<'_, '_>, finder: &mut Finder<'_>) {
        while self.under_way < ATTEMPTS_MAX
            && let Some(recipient) = self.line.pop_front()
        {
            if self.queues.get(&recipient).is_some_and(|queue| matches!(queue.state, State::InLine)) {
                self.begin(w, finder, recipient);
            }
        }
    }

    /// The recipient can be tried again at once, or nearly: never twice within [`ATTEMPT_PAUSE_MIN`].
    fn again_soon(&mut self, w: &mut World<'_, '_>, recipient: Recipient) {
        let Some(queue) = self.queues.get_mut(&recipient) else { return };
        let at = queue.last_start.map_or(w.ctx.now, |start| (start + ATTEMPT_PAUSE_MIN).max(w.ctx.now));
        if at > w.ctx.now {
            if matches!(queue.state, State::Waiting { at: then, why: Wait::Pause } if then == at) {
                return;
            }
            queue.state = State::Waiting { at, why: Wait::Pause };
            w.timers.at(at, Timer::Text(recipient));
        } else {
            queue.state = State::Unkept;
            self.next_in_line(recipient);
        }
    }

    /// A text has left its queue: where it was the head, the next one has its turn. `served`: the phone is there, so nobody needs to
    /// tell us.
    fn pass(&mut self, w: &mut World<'_, '_>, recipient: Recipient, number: u64, served: bool) {
        let Some(queue) = self.queues.get_mut(&recipient) else { return };
        self.waiting = self.waiting.saturating_sub(1);
        let mails = usize::from(matches!(recipient, Recipient::Mail(_)));
        self.mails.waiting = self.mails.waiting.saturating_sub(mails);
        queue.count = queue.count.saturating_sub(1);
        if queue.head != number {
            return;
        }
        if let State::Working(id) = queue.state {
            self.codes.forget(id);
        }
        // Where the head ends while its phone is waited for, the others wait on: each of them would page it again.
        let waits = match queue.state {
            State::Waiting { at, why: why @ (Wait::Return | Wait::Memory) } if !served => Some((at, why)),
            _ => None,
        };
        let next = match queue.count {
            0 => None,
            _ => match self.next_text(w, recipient, number) {
                Ok(next) => next,
                Err(error) => return end(w, &error),
            },
        };
        let Some(queue) = self.queues.get_mut(&recipient) else { return };
        if waits.is_none() {
            queue.failures = 0;
        }
        (queue.resumed, queue.returned, queue.parts_until) = (false, false, None);
        if queue.marked && (served || next.is_none()) {
            queue.marked = false;
            if let Recipient::Phone(imsi) = recipient {
                w.ctx.out.after(After::nothing(), Inner::Mark { imsi, since: None });
            }
        }
        self.forget_sent(recipient);
        self.leave_place(recipient);
        let Some(next) = next else {
            if let Some(ends) = self.queues.remove(&recipient).and_then(|queue| queue.ends) {
                self.ends.remove(&(ends, recipient));
            }
            return;
        };
        if let Some(queue) = self.queues.get_mut(&recipient) {
            queue.head = next;
            queue.state = waits.map_or(State::Unkept, |(at, why)| State::Waiting { at, why });
        }
        self.note_lived(w, recipient);
        self.next_in_line(recipient);
    }

    /// The number of the text behind this one in its queue; those that came to their end and are still on the disk are passed over.
    ///
    /// Errors: the store cannot be read.
    fn next_text(&self, w: &mut World<'_, '_>, recipient: Recipient, number: u64) -> Result<Option<u64>, StoreError> {
        let prefix = record::queue_prefix(recipient);
        let (mut cursor, mut from_start) = (Some(record::text_key(recipient, number)), false);
        loop {
            let page = w.store(StoreId::Messages)?.scan(&prefix, cursor.as_deref(), 1)?;
            let Some((key, value)) = page.into_iter().next() else {
                if from_start {
                    return Ok(None);
                }
                // What a full store took late stands before those that it took meanwhile.
                (cursor, from_start) = (None, true);
                continue;
            };
            let found = record::read_text_key(&key).map(|(_, number)| number);
            // One before it that cannot be read was passed over.
            let is_next = found.is_some_and(|found| found > number || record::decode(recipient, found, &value).is_ok());
            if is_next && !self.unfinished.contains_key(&key) {
                return Ok(found);
            }
            cursor = Some(key);
        }
    }

    /// No answer to the last attempt is waited for any more, not even a late one.
    fn forget_sent(&mut self, recipient: Recipient) {
        if let Some(sent) = self.queues.get_mut(&recipient).and_then(|queue| queue.sent.take()) {
            self.attempts.remove(&sent.attempt);
        }
    }
}

impl Queue {
    fn new(head: u64, state: State) -> Queue {
        Queue {
            head,
            count: 1,
            kept: 0,
            removing: None,
            state,
            failures: 0,
            marked: false,
            returned: false,
            resumed: false,
            last_start: None,
            last_return: None,
            sent: None,
            place: None,
            ends: None,
            searched: None,
            lived: None,
            parts_until: None,
            unreadable: 0,
        }
    }
}

/// "…where the node's own store or the messages' fails, the process ends" (promise 1): one that cannot be read any more has failed, and
/// what it holds is found at the next start.
fn end(w: &mut World<'_, '_>, error: &StoreError) {
    w.ctx.out.send(Output::End(format!("the messages' store cannot be read: {error}")));
}

fn lives_max(site: &Site) -> [Duration; 2] {
    let settings = &site.settings;
    [settings.messages.life_max, settings.mail.as_ref().map_or(settings.messages.life_max, |mail| mail.life_max)]
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

/// The number that a recipient is known by, else its IMSI.
fn number_of(site: &Site, recipient: Recipient) -> String {
    match recipient {
        Recipient::Phone(imsi) => {
            let number = site.subscribers.get(&imsi).and_then(|subscriber| subscriber.msisdn.first());
            number.map_or_else(|| format!("IMSI{imsi}"), ToString::to_string)
        }
        Recipient::Code(number, _) | Recipient::Trunk(number) => number.to_string(),
        Recipient::Mail(key) => format!("{key:?}"),
        Recipient::Copy(imsi) => format!("the mailbox of {}", number_of(site, Recipient::Phone(imsi))),
    }
}

/// The same for the recipient of a text: of a mail that leaves, its address.
fn name_of(site: &Site, text: &Text) -> String {
    match text.recipient {
        Recipient::Mail(_) => text.dialled.clone(),
        recipient => number_of(site, recipient),
    }
}

fn words_of(cause: Cause) -> String {
    match cause {
        Cause::New => String::new(),
        Cause::Absent => "the phone is absent".into(),
        Cause::MemoryFull => "the phone's memory is full".into(),
        Cause::Refused { code: 0, cause: 0 } => "it could not be sent".into(),
        Cause::Refused { code, cause: 0 } => format!("answered {code}"),
        Cause::Refused { code, cause } => {
            format!("answered {code}, cause {cause}: {}", crate::gsm::rpdu::Cause(cause).words())
        }
    }
}

/// Our own address among those who are to hear of a phone.
pub fn is_ours(site: &Site, owner: SocketAddr) -> bool {
    site.own_port().is_some_and(|(_, own)| own == owner)
}
