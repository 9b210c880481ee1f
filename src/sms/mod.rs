//! What waits for whom: the message centre.
//!
//! | file | its question |
//! |---|---|
//! | [`record`] | what is on the disk |
//! | [`accept`] | a text from a phone: taken, repeated or refused |
//! | [`deliver`] | one attempt to give a text to its phone |
//!
//! Knows: one queue per phone that somebody has written to, of which the head and the count are in memory and all else is on the disk;
//! what each queue waits for. Does not know: where phones are ([`crate::register::locate`]), how their return is told
//! ([`crate::register::marks`]), what reports, long texts and mail will make of the records.
//!
//! The way of a queue: a text is accepted and synced ([`State::Unkept`] until then) -> it stands in line for one of
//! [`ATTEMPTS_MAX`] places -> its phone is looked for -> MESSAGE to its base station -> delivered, and the next one at once; or
//! [`State::Waiting`], for the phone's return where it is absent, and for a pause that grows in any case.
//! Limits: `[messages] count_max`, `count_per_phone_max`, `life_max`; the named constants here and in `deliver`.

pub mod accept;
pub mod deliver;
pub mod record;

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::net::SocketAddr;
use std::time::Duration;

use self::accept::Submission;
use self::deliver::{Attempt, Sent};
use self::record::{Cause, Text};
use crate::event::Event;
use crate::ident::Imsi;
use crate::register::front::Arrival;
use crate::register::locate::Finder;
use crate::seam::{After, Inner, Output, TextAnswer, Timer};
use crate::site::{Site, World};
use crate::store::{Batch, CommitId, StoreError, StoreId};
use crate::time::{Instant, Stamp};

/// Phones that are looked for or sent to at a time; the others stand in line.
pub const ATTEMPTS_MAX: usize = 1_000;
/// Two MESSAGEs to one phone leave no closer together, however often it says that it is back.
const ATTEMPT_PAUSE_MIN: Duration = Duration::from_secs(2);
/// A phone that comes back this soon after an attempt began is the one that it finds, and no reason for another.
const RETURN_NOTICED: Duration = Duration::from_secs(3);
/// After a start the queues go on within this time, not all of them in one burst; those whose phone was absent take longer, because each
/// is paged for 10 s.
const RESUME: Duration = Duration::from_secs(3);
const RESUME_ABSENT: Duration = Duration::from_secs(60);
/// A repeat is told from a new text for so long after the first copy: 32 s of SIP's own repeating, 40 s of the phone's (TR1M) and a
/// human who presses *send again* with the same TP-MR. A second text with the same words has another TP-MR.
pub const REPEAT_WINDOW: Duration = Duration::from_secs(600);
/// Texts shown to an operator.
const LIST_MAX: usize = 2_000;
/// Old keys, and deletions that the store had refused, per second.
const PURGE_PER_SECOND: usize = 500;

/// The message centre.
#[derive(Default)]
pub struct Centre {
    queues: BTreeMap<Imsi, Queue>,
    /// Texts that wait, in all queues.
    waiting: usize,
    /// Phones whose turn has come, oldest first; who has left this state meanwhile is passed over.
    line: VecDeque<Imsi>,
    /// Whose attempt a response belongs to.
    attempts: BTreeMap<u64, Imsi>,
    attempt_count: u64,
    /// Attempts under way: queues that are locating or sending.
    under_way: usize,
    /// Texts from phones whose sender is being looked for.
    submissions: BTreeMap<u64, Submission>,
    submission_count: u64,
    next_number: u64,
    /// Delivered, or given up, and still on the disk, because the store refused.
    undeleted: BTreeSet<Vec<u8>>,
    /// This node has a store for messages.
    open: bool,
}

/// The texts that wait for one phone.
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
    /// The last run may have sent the head.
    resumed: bool,
    last_start: Option<Instant>,
    /// The last attempt: a late answer to it is better than a second copy.
    sent: Option<Sent>,
}

enum State {
    /// The head is not on the disk yet, so nobody has been promised it; or the one before it still is.
    Unkept,
    InLine,
    Locating {
        text: Box<Text>,
        since: Stamp,
    },
    Sending(Box<Attempt>),
    Waiting {
        at: Instant,
        absent: bool,
    },
}

impl Centre {
    /// Finds the queues that an earlier run left; each goes on within seconds.
    ///
    /// Errors: the store cannot be read.
    pub fn start(w: &mut World<'_, '_>) -> Result<Centre, StoreError> {
        let mut centre = Centre { next_number: 1, ..Centre::default() };
        let Some(store) = w.ctx.stores.store(StoreId::Messages) else { return Ok(centre) };
        centre.open = true;
        if let Some(bytes) = store.get(record::NEXT_KEY)? {
            centre.next_number = <[u8; 8]>::try_from(&bytes[..]).map_or(1, u64::from_be_bytes);
        }
        let mut cursor: Option<Vec<u8>> = None;
        loop {
            let store = w.store(StoreId::Messages)?;
            let page = store.scan(record::TEXT_PREFIX, cursor.as_deref(), 1_000)?;
            let Some((last, _)) = page.last() else { break };
            cursor = Some(last.clone());
            for (key, value) in page {
                let broken = || StoreError::Broken("a key of the messages' store is not a text's".into());
                let (imsi, number) = record::read_text_key(&key).ok_or_else(broken)?;
                centre.next_number = centre.next_number.max(number + 1);
                centre.waiting += 1;
                if let Some(queue) = centre.queues.get_mut(&imsi) {
                    queue.count += 1;
                    queue.kept = number;
                    continue;
                }
                // Only heads are read. One that cannot be read is told of when its turn comes.
                let head = record::decode(imsi, number, &value).ok();
                let absent = head.is_some_and(|text| text.cause == Cause::Absent);
                let spread = if absent { RESUME_ABSENT } else { RESUME };
                let micros = u64::try_from(spread.as_micros()).unwrap_or(u64::MAX);
                let at = w.ctx.now + Duration::from_micros(w.ctx.rng.below(micros));
                w.timers.at(at, Timer::Text(imsi));
                let state = State::Waiting { at, absent };
                centre
                    .queues
                    .insert(imsi, Queue { kept: number, marked: absent, resumed: true, ..Queue::new(number, state) });
            }
        }
        Ok(centre)
    }

    /// Attempts and acceptances under way; what merely waits is not.
    pub fn under_way(&self) -> usize {
        self.under_way + self.submissions.len()
    }

    /// Texts that are accepted and not delivered.
    pub fn waiting(&self) -> usize {
        self.waiting
    }

    /// A text is on the disk, and its sender has been told.
    pub fn kept(&mut self, w: &mut World<'_, '_>, finder: &mut Finder<'_>, imsi: Imsi, number: u64) {
        let Some(queue) = self.queues.get_mut(&imsi) else { return };
        queue.kept = queue.kept.max(number);
        self.next_in_line(imsi);
        self.work_off(w, finder);
    }

    /// A text that came to its end is gone from the disk.
    pub fn removed(&mut self, w: &mut World<'_, '_>, finder: &mut Finder<'_>, imsi: Imsi, number: u64) {
        let Some(queue) = self.queues.get_mut(&imsi) else { return };
        if queue.removing == Some(number) {
            queue.removing = None;
        }
        self.next_in_line(imsi);
        self.work_off(w, finder);
    }

    /// The head takes its place in the line, if it is on the disk and the one before it is not any more: so that after a power cut no
    /// other text than the head may have been under way.
    fn next_in_line(&mut self, imsi: Imsi) {
        if let Some(queue) = self.queues.get_mut(&imsi)
            && matches!(queue.state, State::Unkept)
            && queue.head <= queue.kept
            && queue.removing.is_none()
        {
            queue.state = State::InLine;
            self.line.push_back(imsi);
        }
    }

    /// A phone has registered here, and was told so.
    pub fn arrived(&mut self, _w: &mut World<'_, '_>, _finder: &mut Finder<'_>, _imsi: Imsi, _arrival: Arrival) {}

    /// A phone is back. `marked`: our mark told so.
    pub fn returned(&mut self, w: &mut World<'_, '_>, finder: &mut Finder<'_>, imsi: Imsi, marked: bool) {
        let Some(queue) = self.queues.get_mut(&imsi) else {
            if marked {
                // A mark that has outlived its queue.
                w.ctx.out.after(After::nothing(), Inner::Mark { imsi, since: None });
            }
            return;
        };
        queue.marked |= marked;
        let since_start = queue.last_start.map(|start| w.ctx.now - start);
        match queue.state {
            State::Waiting { .. } => {
                w.ctx.out.event(Event::PhoneReturned { imsi, texts: queue.count as u64 });
                queue.failures = 0;
                self.again_soon(w, imsi);
            }
            State::Sending(_) => queue.returned |= since_start.is_some_and(|elapsed| elapsed > RETURN_NOTICED),
            // It is found by the attempt that begins.
            State::Unkept | State::InLine | State::Locating { .. } => {}
        }
        self.work_off(w, finder);
    }

    /// A deadline of this phone's queue; an old one finds nothing due.
    pub fn timeout(&mut self, w: &mut World<'_, '_>, finder: &mut Finder<'_>, imsi: Imsi) {
        let now = w.ctx.now;
        match self.queues.get_mut(&imsi) {
            None => {}
            Some(queue) => match &mut queue.state {
                State::Waiting { at, .. } if now >= *at => {
                    queue.state = State::InLine;
                    self.line.push_back(imsi);
                }
                State::Sending(_) => self.sending_timeout(w, imsi),
                State::Waiting { .. } | State::Unkept | State::InLine | State::Locating { .. } => {}
            },
        }
        self.work_off(w, finder);
    }

    /// Once a second: forgets repeats that are too old, and removes what a store that was full would not.
    pub fn housekeeping(&mut self, w: &mut World<'_, '_>) {
        if !self.open {
            return;
        }
        let mut batch = Batch::default();
        let gone: Vec<Vec<u8>> = self.undeleted.iter().take(PURGE_PER_SECOND).cloned().collect();
        for key in &gone {
            batch = batch.delete(key.clone());
        }
        match self.old_keys(w) {
            Ok(keys) => batch = keys.into_iter().fold(batch, Batch::delete),
            Err(error) => w.event(Event::MessagesStoreRefused { why: error.to_string() }),
        }
        // A store that refuses is asked again in a second.
        if !batch.changes.is_empty() && write(w, batch).is_ok() {
            self.undeleted.retain(|key| !gone.contains(key));
        }
    }

    fn old_keys(&self, w: &mut World<'_, '_>) -> Result<Vec<Vec<u8>>, StoreError> {
        let mut keys = Vec::new();
        for (old, value) in w.store(StoreId::Messages)?.scan(record::OLD_PREFIX, None, PURGE_PER_SECOND)? {
            let at_ms = record::read_old_key(&old).unwrap_or_default();
            if !is_over(w, at_ms, Duration::ZERO) {
                break;
            }
            for key in record::decode_old(&value) {
                // A key may have been written again since: then it is on a later list, too.
                let bytes = w.store(StoreId::Messages)?.get(&key)?.unwrap_or_default();
                let written_ms = record::decode_seen(&bytes).map(|seen| seen.at_ms);
                let written_ms = written_ms.or_else(|| record::decode_last(&bytes).map(|(at_ms, _)| at_ms));
                if written_ms.is_none_or(|written_ms| is_over(w, written_ms, REPEAT_WINDOW)) {
                    keys.push(key);
                }
            }
            keys.push(old);
        }
        Ok(keys)
    }

    /// `encamp queue`: the texts that wait, by phone and in their order, up to [`LIST_MAX`].
    ///
    /// Errors: the store cannot be read.
    pub fn list(&self, w: &mut World<'_, '_>) -> Result<Vec<TextAnswer>, StoreError> {
        let mut texts = Vec::new();
        let wall_ms = w.wall().ms;
        for (imsi, queue) in &self.queues {
            let left = LIST_MAX - texts.len();
            if left == 0 {
                break;
            }
            let before_head = queue.head.checked_sub(1).map(|number| record::text_key(*imsi, number));
            let page = w.store(StoreId::Messages)?.scan(&record::queue_prefix(*imsi), before_head.as_deref(), left)?;
            for (key, value) in page {
                let Some((_, number)) = record::read_text_key(&key) else { continue };
                let Ok(text) = record::decode(*imsi, number, &value) else { continue };
                let is_head = number == queue.head;
                let (state, next_attempt) = match &queue.state {
                    State::Sending(_) | State::Locating { .. } if is_head => ("sending", None),
                    State::Waiting { at, absent } => {
                        let in_ms = u64::try_from((*at - w.ctx.now).as_millis()).unwrap_or(u64::MAX);
                        (if *absent { "absent" } else { "waiting" }, Some(wall_ms.saturating_add(in_ms)))
                    }
                    _ => ("waiting", None),
                };
                texts.push(TextAnswer {
                    id: number.to_string(),
                    from: text.shown,
                    to: number_of(w.site, *imsi),
                    state,
                    since: text.accepted_ms.saturating_add(shift_ms(w, text.accepted_ms)),
                    next_attempt: next_attempt.filter(|_| is_head),
                    cause: words_of(text.cause),
                });
            }
        }
        Ok(texts)
    }

    // --- Shared by acceptance and delivery ---

    /// One more text for this phone; it is sent once it is on the disk.
    fn enqueue(&mut self, imsi: Imsi, number: u64) {
        self.waiting += 1;
        match self.queues.get_mut(&imsi) {
            Some(queue) => queue.count += 1,
            None => drop(self.queues.insert(imsi, Queue::new(number, State::Unkept))),
        }
    }

    /// Begins attempts for those in line while there are places.
    fn work_off(&mut self, w: &mut World<'_, '_>, finder: &mut Finder<'_>) {
        while self.under_way < ATTEMPTS_MAX
            && let Some(imsi) = self.line.pop_front()
        {
            if self.queues.get(&imsi).is_some_and(|queue| matches!(queue.state, State::InLine)) {
                self.begin(w, finder, imsi);
            }
        }
    }

    /// The phone can be tried again at once, or nearly: never twice within [`ATTEMPT_PAUSE_MIN`].
    fn again_soon(&mut self, w: &mut World<'_, '_>, imsi: Imsi) {
        let Some(queue) = self.queues.get_mut(&imsi) else { return };
        let at = queue.last_start.map_or(w.ctx.now, |start| (start + ATTEMPT_PAUSE_MIN).max(w.ctx.now));
        if at > w.ctx.now {
            queue.state = State::Waiting { at, absent: false };
            w.timers.at(at, Timer::Text(imsi));
        } else {
            queue.state = State::InLine;
            self.line.push_back(imsi);
        }
    }

    /// The head has come to its end: it leaves the disk, and the next one has its turn.
    fn remove_head(&mut self, w: &mut World<'_, '_>, imsi: Imsi, served: bool) {
        let Some(queue) = self.queues.get_mut(&imsi) else { return };
        let key = record::text_key(imsi, queue.head);
        let number = queue.head;
        match write(w, Batch::default().delete(key.clone())) {
            Ok(commit) => {
                queue.removing = Some(number);
                w.ctx.out.after(After::nothing().and(commit), Inner::TextRemoved { imsi, text: number });
            }
            // A full disk: the others are delivered all the same. Only a crash before there is room again would find it there.
            Err(_) => {
                self.undeleted.insert(key.clone());
            }
        }
        self.pass_head(w, imsi, &key, served);
    }

    /// Goes on to the next text of this phone. `served`: the phone is there, so nobody needs to tell us.
    fn pass_head(&mut self, w: &mut World<'_, '_>, imsi: Imsi, key: &[u8], served: bool) {
        let Some(queue) = self.queues.get_mut(&imsi) else { return };
        let mut next = None;
        if queue.count > 1 {
            let found =
                w.store(StoreId::Messages).and_then(|store| store.scan(&record::queue_prefix(imsi), Some(key), 1));
            match found {
                Ok(page) => {
                    next = page.first().and_then(|(key, _)| record::read_text_key(key)).map(|(_, number)| number)
                }
                Err(error) => return end(w, &error),
            }
        }
        self.waiting = self.waiting.saturating_sub(1);
        queue.count = queue.count.saturating_sub(1);
        (queue.failures, queue.resumed, queue.returned) = (0, false, false);
        if queue.marked && (served || next.is_none()) {
            queue.marked = false;
            w.ctx.out.after(After::nothing(), Inner::Mark { imsi, since: None });
        }
        let Some(next) = next else {
            self.forget_sent(imsi);
            self.queues.remove(&imsi);
            return;
        };
        queue.head = next;
        queue.state = State::Unkept;
        self.next_in_line(imsi);
    }

    /// No answer to the last attempt is waited for any more, not even a late one.
    fn forget_sent(&mut self, imsi: Imsi) {
        if let Some(sent) = self.queues.get_mut(&imsi).and_then(|queue| queue.sent.take()) {
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
            sent: None,
        }
    }
}

/// Writes to the messages' store; a refusal is told.
fn write(w: &mut World<'_, '_>, batch: Batch) -> Result<CommitId, StoreError> {
    let result = w.store(StoreId::Messages).and_then(|store| store.write(batch));
    if let Err(error) = &result {
        w.event(Event::MessagesStoreRefused { why: error.to_string() });
    }
    result.map(|seq| CommitId { store: StoreId::Messages, seq })
}

/// "…where the node's own store or the messages' fails, the process ends" (promise 1): one that cannot be read any more has failed, and
/// what it holds is found at the next start.
fn end(w: &mut World<'_, '_>, error: &StoreError) {
    w.ctx.out.send(Output::End(format!("the messages' store cannot be read: {error}")));
}

/// By how much a time that was noted then is too small, because the clock was wrong.
fn shift_ms(w: &World<'_, '_>, at_ms: u64) -> u64 {
    w.clock.shift_ms(Stamp { ms: at_ms, ..Stamp::ZERO })
}

/// Whether so much time has passed since then.
fn is_over(w: &World<'_, '_>, since_ms: u64, life: Duration) -> bool {
    let life_ms = u64::try_from(life.as_millis()).unwrap_or(u64::MAX);
    since_ms.saturating_add(shift_ms(w, since_ms)).saturating_add(life_ms) <= w.wall().ms
}

/// The number that a phone is known by, else its IMSI.
fn number_of(site: &Site, imsi: Imsi) -> String {
    let number = site.subscribers.get(&imsi).and_then(|subscriber| subscriber.msisdn.first());
    number.map_or_else(|| format!("IMSI{imsi}"), ToString::to_string)
}

fn words_of(cause: Cause) -> String {
    match cause {
        Cause::New => String::new(),
        Cause::Absent => "the phone is absent".into(),
        Cause::Refused(0) => "it could not be sent".into(),
        Cause::Refused(code) => format!("answered {code}"),
    }
}

/// Our own address among those who are to hear of a phone.
pub fn is_ours(site: &Site, owner: SocketAddr) -> bool {
    site.own_port().is_some_and(|(_, own)| own == owner)
}
