//! One attempt to hand a mail over: to the relay, or straight to the servers of its domain.
//!
//! Knows: that what a server says of one mail is no word on others, and that where nobody can be reached all mail waits for one that tries.
//! Does not know: how a mail is written or sent (the shell).
//! A hand-over may take minutes, in which a server says nothing: it takes none of the places of the phones.
//! Limits: [`HANDED_MAX`] mails at a time, [`RELAY_PLACES`] of them for one relay, [`DOMAIN_PLACES`] for one domain, one while it is out of
//! reach; the ladders here; `[mail] life_max`.

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use crate::event::Event;
use crate::gsm::report::Status;
use crate::mail::{Body, MailFailure, MailTaken};
use crate::register::locate::Finder;
use crate::seam::{Output, TextOutcome, Timer};
use crate::site::{Site, World};
use crate::sms::ending::End;
use crate::sms::places::Taker;
use crate::sms::record::{self, Cause, Happened, Outgoing, Recipient, Text};
use crate::sms::verdict;
use crate::sms::{Centre, Queue, State, Wait, Work, shift_ms, write};
use crate::store::Batch;
use crate::time::Instant;

/// Mails handed over at a time: the shell has as many places.
const HANDED_MAX: usize = 64;
/// Those to one relay, and to one domain.
const RELAY_PLACES: usize = 16;
const DOMAIN_PLACES: usize = 4;
/// An attempt may take so long: a server may think for minutes about the end of a mail (RFC 5321 §4.5.3.2.6 has ten).
const HANDING_MAX: Duration = Duration::from_secs(10 * 60);
/// The shell says that the time is over; if it does not say even that, nobody waits longer than this.
const GRACE: Duration = Duration::from_secs(10);
/// Those who wait for a relay do not come in one moment.
const OTHERS_SPREAD_MS: u64 = 1_000;
const OTHERS_SPREAD: Duration = Duration::from_millis(OTHERS_SPREAD_MS);
/// Who was out of reach and has been asked for by nobody for so long is forgotten: whoever waits asks within the longest pause.
const FORGOTTEN: Duration = Duration::from_secs(3600);

/// A mail on its way out.
pub(in crate::sms) struct Handing {
    id: u64,
    text: Text,
    /// To whom, by the settings of that moment.
    key: RelayKey,
    era: u64,
    pub(in crate::sms) deadline: Instant,
}

/// Where mail goes: to the relay (0), or to a domain by its digest.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(in crate::sms) struct RelayKey(u128);

const RELAY: RelayKey = RelayKey(0);

impl RelayKey {
    /// Mails that may be handed over to it at a time.
    pub(in crate::sms) fn places(self) -> usize {
        if self == RELAY { RELAY_PLACES } else { DOMAIN_PLACES }
    }
}

/// Those that could not be reached.
#[derive(Default)]
pub(super) struct Relays {
    unreached: BTreeMap<RelayKey, Unreached>,
    /// It was said of the relay, and not taken back.
    is_told: bool,
    /// Counts the changes of the settings: what was handed over before one says nothing of the way out behind it.
    era: u64,
}

/// Mails that have a place with the relay or their domain, and wait for one of all; who has left this state meanwhile is passed over.
pub(super) type Line = VecDeque<Recipient>;

struct Unreached {
    failures: u32,
    /// Nobody tries before.
    until: Instant,
    /// One tries.
    probed: bool,
    why: String,
}

impl Centre {
    /// The head of the queue of this address has its turn.
    pub(in crate::sms) fn hand_over(&mut self, w: &mut World<'_, '_>, recipient: Recipient, text: Text) {
        let Some(Outgoing { mail, .. }) = text.mail() else {
            let end = End::new(TextOutcome::Failed, Status::NOT_OBTAINABLE, "it is no mail");
            return self.conclude(w, &[&text], &end, Work::default(), false);
        };
        let key = relay_of(w.site, mail.to.domain());
        let now = w.ctx.now;
        if let Some(unreached) = self.mails.relays.unreached.get(&key)
            && (now < unreached.until || unreached.probed)
        {
            // Behind the one that tries they stand in line.
            let at = if unreached.probed { now + HANDING_MAX } else { unreached.until };
            let spread = Duration::from_millis(w.ctx.rng.below(OTHERS_SPREAD_MS));
            self.wait_for_relay(w, recipient, at + spread);
            return self.next_mail();
        }
        if !self.take_place(w, recipient, Taker::Relay(key)) {
            return self.next_mail();
        }
        if self.mails.handing.len() >= HANDED_MAX {
            if let Some(queue) = self.queues.get_mut(&recipient) {
                queue.state = State::Parked;
                self.mails.line.push_back(recipient);
            }
            return;
        }
        if let Some(unreached) = self.mails.relays.unreached.get_mut(&key) {
            unreached.probed = true;
        }
        self.mails.hand_count += 1;
        let id = self.mails.hand_count;
        let mut mail = Box::new(mail.clone());
        // The clock may have been set since.
        if let Body::Sms { sms, .. } = &mut mail.body {
            sms.accepted_ms = sms.accepted_ms.saturating_add(shift_ms(w, sms.accepted_ms));
        }
        let deadline = now + HANDING_MAX + GRACE;
        self.mails.handing.insert(id, recipient);
        if let Some(queue) = self.queues.get_mut(&recipient) {
            queue.last_start = Some(now);
            let era = self.mails.relays.era;
            queue.state = State::Handing(Box::new(Handing { id, text, key, era, deadline }));
        }
        w.timers.at(deadline, Timer::Text(recipient));
        w.ctx.out.send(Output::SendMail { id, mail, timeout: HANDING_MAX });
    }

    /// One more of those in line for a place of all, where there is one.
    fn next_mail(&mut self) {
        if self.mails.handing.len() >= HANDED_MAX {
            return;
        }
        while let Some(next) = self.mails.line.pop_front() {
            if let Some(queue) = self.queues.get_mut(&next)
                && matches!(queue.state, State::Parked)
            {
                queue.state = State::InLine;
                return self.line.push_back(next);
            }
        }
    }

    fn wait_for_relay(&mut self, w: &mut World<'_, '_>, recipient: Recipient, at: Instant) {
        self.leave_place(recipient);
        let Some(queue) = self.queues.get_mut(&recipient) else { return };
        queue.state = State::Waiting { at, why: Wait::Relay };
        w.timers.at(at, Timer::Text(recipient));
    }

    /// What became of a mail that was handed over.
    pub fn mail_sent(
        &mut self,
        w: &mut World<'_, '_>,
        finder: &mut Finder<'_>,
        id: u64,
        result: Result<MailTaken, MailFailure>,
    ) {
        self.handed_over(w, id, Some(result));
        self.work_off(w, finder);
    }

    /// Nobody has said in time what became of it.
    pub(in crate::sms) fn handing_timeout(&mut self, w: &mut World<'_, '_>, recipient: Recipient) {
        let Some(queue) = self.queues.get(&recipient) else { return };
        let State::Handing(handing) = &queue.state else { return };
        if w.ctx.now >= handing.deadline {
            let id = handing.id;
            self.handed_over(w, id, None);
        }
    }

    /// `result`: `None`: nobody has said anything.
    fn handed_over(&mut self, w: &mut World<'_, '_>, id: u64, result: Option<Result<MailTaken, MailFailure>>) {
        // It may be said after its deadline.
        let Some(recipient) = self.mails.handing.remove(&id) else { return };
        let Some(queue) = self.queues.get_mut(&recipient) else { return };
        let State::Handing(handing) = std::mem::replace(&mut queue.state, State::InLine) else { return };
        self.next_mail();
        let Handing { mut text, key, era, .. } = *handing;
        let is_of_now = era == self.mails.relays.era;
        match &result {
            Some(Err(MailFailure::Unreachable(_))) => {}
            Some(_) if is_of_now => self.relay_reached(w, key),
            None if is_of_now => self.relay_silent(w, key),
            Some(_) | None => {}
        }
        match result.unwrap_or_else(|| Err(MailFailure::Lost("nobody said what became of it".into()))) {
            Ok(taken) => {
                text.attempts = text.attempts.saturating_add(1);
                let why = format!("taken by {}: {}", taken.by, taken.said);
                let end = End::new(TextOutcome::Delivered, Status::FORWARDED, why);
                let end = End { code: taken.code, will_tell: taken.will_tell, ..end };
                self.conclude(w, &[&text], &end, Work::default(), true);
            }
            Err(MailFailure::Permanent { code, why }) => {
                text.attempts = text.attempts.saturating_add(1);
                let end = End { code, ..End::new(TextOutcome::Failed, Status::CONNECTION_REJECTED, why) };
                self.conclude(w, &[&text], &end, Work::default(), false);
            }
            Err(MailFailure::Temporary { code, why }) => self.not_taken(w, text, code, why),
            Err(MailFailure::Lost(why)) => {
                text.possible_duplicate = true;
                self.not_taken(w, text, 0, why);
            }
            Err(MailFailure::Unreachable(why)) => {
                self.leave_place(recipient);
                let at = if is_of_now { self.relay_unreached(w, key, &why) } else { w.ctx.now };
                // The one that tried keeps what it heard; the others have not tried.
                self.note_attempt(w, &mut text, 0, why);
                // It comes behind them: where it is this mail that is not spoken of, another one is.
                let spread = OTHERS_SPREAD_MS + w.ctx.rng.below(OTHERS_SPREAD_MS);
                self.wait_for_relay(w, recipient, at + Duration::from_millis(spread));
            }
        }
    }

    /// This mail is tried again after a pause that grows.
    fn not_taken(&mut self, w: &mut World<'_, '_>, mut text: Text, code: u16, why: String) {
        let recipient = text.recipient;
        self.leave_place(recipient);
        let failures = self.queues.get(&recipient).map_or(0, |queue| queue.failures);
        let pause = verdict::mail_pause(failures, w.ctx.rng);
        let next_s = pause.as_secs();
        w.event(Event::MailNotTaken { text: text.number, code, why: in_log(&why), next_s });
        let is_known = self.note_attempt(w, &mut text, code, why);
        let Some(queue) = self.queues.get_mut(&recipient) else { return };
        queue.failures = failures.saturating_add(1);
        queue.resumed = !is_known;
        let at = w.ctx.now + pause;
        queue.state = State::Waiting { at, why: Wait::Pause };
        w.timers.at(at, Timer::Text(recipient));
    }

    /// `false`: the disk does not know that the mail may be there already.
    fn note_attempt(&mut self, w: &mut World<'_, '_>, text: &mut Text, code: u16, why: String) -> bool {
        let now_ms = w.wall().ms;
        text.attempts = text.attempts.saturating_add(1);
        text.cause = Cause::Refused { code, cause: 0 };
        text.happened(now_ms, Happened::MailFailed { code, why });
        let batch = Batch::default().put(record::text_key(text.recipient, text.number), record::encode(text));
        // A store that refuses has told so; the mail is there, and leaves again all the same, under the same Message-ID.
        write(w, batch).is_ok() || !text.possible_duplicate
    }

    fn relay_reached(&mut self, w: &mut World<'_, '_>, key: RelayKey) {
        let was_unreached = self.mails.relays.unreached.remove(&key).is_some();
        let is_told = key == RELAY && std::mem::take(&mut self.mails.relays.is_told);
        if was_unreached || is_told {
            w.event(Event::RelayReached { direct: key != RELAY });
        }
        if was_unreached {
            self.wake_for_relay();
        }
    }

    /// Who waited for it has its turn, not all of them in one burst: they take the places there are.
    fn wake_for_relay(&mut self) {
        let waiting: Vec<Recipient> = self
            .queues
            .iter()
            .filter(|(_, queue)| matches!(queue.state, State::Waiting { why: Wait::Relay, .. }))
            .map(|(recipient, _)| *recipient)
            .collect();
        for recipient in waiting {
            if let Some(queue) = self.queues.get_mut(&recipient) {
                queue.state = State::Unkept;
            }
            self.next_in_line(recipient);
        }
    }

    /// An operator wants this one tried: he knows that the relay is back, or else the next attempt says what is still wrong.
    pub(in crate::sms) fn ask_relay(&mut self, w: &World<'_, '_>, recipient: Recipient) {
        if matches!(recipient, Recipient::Mail(_)) {
            self.mails.relays.unreached.values_mut().for_each(|unreached| unreached.until = w.ctx.now);
        }
    }

    /// The way out is another one: what was out of reach on the old one says nothing of it.
    pub fn relay_changed(&mut self, w: &mut World<'_, '_>, finder: &mut Finder<'_>) {
        self.mails.relays.unreached.clear();
        self.mails.relays.era += 1;
        self.wake_for_relay();
        self.work_off(w, finder);
    }

    /// What the operator has to look after.
    pub fn alarms(&self) -> Vec<String> {
        let waiting = self.mails.waiting;
        let relay = self.mails.relays.unreached.get(&RELAY);
        let relay =
            relay.map(|unreached| format!("the relay cannot be reached, {waiting} wait for it: {}", unreached.why));
        let spool = self.mails.is_full.then(|| {
            format!("no more mail leaves, or no text is taken: {waiting} mails and {} texts wait", self.waiting)
        });
        relay.into_iter().chain(spool).collect()
    }

    /// Once a second: whether there is room for mail, which is told when that changes; and who was out of reach and is not asked for any more.
    pub(in crate::sms) fn look_at_mail(&mut self, w: &mut World<'_, '_>) {
        let now = w.ctx.now;
        self.mails.relays.unreached.retain(|_, unreached| unreached.probed || now < unreached.until + FORGOTTEN);
        let Some(mail) = w.site.settings.mail.as_ref() else {
            self.mails.is_full = false;
            return;
        };
        let of =
            |(waiting, most): (usize, usize), percent: usize| waiting >= most.saturating_mul(percent).div_ceil(100);
        let spools = [(self.mails.waiting, mail.count_max), (self.waiting, w.site.settings.messages.count_max)];
        // A little room is no end of it.
        let percent = if self.mails.is_full { 90 } else { 100 };
        let is_full = spools.into_iter().any(|spool| of(spool, percent));
        if is_full != self.mails.is_full {
            self.mails.is_full = is_full;
            let waiting = self.mails.waiting;
            w.event(if is_full { Event::MailSpoolFull { waiting } } else { Event::MailSpoolFreed { waiting } });
        }
    }

    /// Whoever tried it heard nothing: it is neither reached nor out of reach, and another one tries after a pause.
    fn relay_silent(&mut self, w: &mut World<'_, '_>, key: RelayKey) {
        if let Some(unreached) = self.mails.relays.unreached.get_mut(&key) {
            unreached.until = w.ctx.now + verdict::relay_pause(unreached.failures, w.ctx.rng);
            unreached.failures = unreached.failures.saturating_add(1);
            unreached.probed = false;
        }
    }

    /// When it is tried again.
    fn relay_unreached(&mut self, w: &mut World<'_, '_>, key: RelayKey, why: &str) -> Instant {
        let before = self.mails.relays.unreached.get(&key);
        // Those that were on their way together fail together, which is one failure.
        if let Some(unreached) = before
            && w.ctx.now < unreached.until
            && !unreached.probed
        {
            return unreached.until;
        }
        let failures = before.map_or(0, |unreached| unreached.failures);
        let pause = verdict::relay_pause(failures, w.ctx.rng);
        let until = w.ctx.now + pause;
        let unreached = Unreached { failures: failures.saturating_add(1), until, probed: false, why: in_log(why) };
        self.mails.relays.unreached.insert(key, unreached);
        self.mails.relays.is_told |= key == RELAY;
        w.event(Event::RelayUnreached {
            direct: key != RELAY,
            why: in_log(why),
            waiting: self.mails.waiting,
            next_s: pause.as_secs(),
        });
        // Some of those who stood behind the one that tried are in front of it now.
        let behind = |queue: &Queue| matches!(queue.state, State::Waiting { at, why: Wait::Relay } if at > until + OTHERS_SPREAD);
        let others = self.queues.iter_mut().filter(|(_, queue)| behind(queue));
        for (recipient, queue) in others.take(RELAY_PLACES) {
            let at = until + Duration::from_millis(w.ctx.rng.below(OTHERS_SPREAD_MS));
            queue.state = State::Waiting { at, why: Wait::Relay };
            w.timers.at(at, Timer::Text(*recipient));
        }
        until
    }
}

/// Words of a server as they stand in the log: an address in them is as short as everywhere there.
pub(in crate::sms) fn in_log(words: &str) -> String {
    let short = |word: &str| match word.rsplit_once('@') {
        Some((local, rest)) => {
            let begin = local.find(|char: char| char.is_alphanumeric()).unwrap_or(local.len());
            let first: String = local[begin..].chars().take(1).collect();
            format!("{}{first}…@{rest}", &local[..begin])
        }
        None => word.to_owned(),
    };
    words.split(' ').map(short).collect::<Vec<_>>().join(" ")
}

/// By whom mail for this domain is taken.
fn relay_of(site: &Site, domain: &str) -> RelayKey {
    use sha2::{Digest as _, Sha256};
    if site.relay().is_some() {
        return RELAY;
    }
    let digest = Sha256::digest(domain);
    let mut first = [0; 16];
    first.copy_from_slice(&digest[..16]);
    RelayKey(u128::from_be_bytes(first))
}
