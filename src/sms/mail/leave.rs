//! One attempt to hand a mail over: to the relay, or straight to the servers of its domain.
//!
//! Knows: that what a server says of one mail is no word on others, and that where nobody can be reached all mail waits for one that tries.
//! Does not know: how a mail is written or sent (the shell).
//! Limits: [`RELAY_PLACES`] mails at a time for one relay or domain, one while it is out of reach; the ladders here; `[mail] life_max`.

use std::collections::BTreeMap;
use std::time::Duration;

use crate::event::Event;
use crate::gsm::report::Status;
use crate::mail::{MailFailure, MailTaken};
use crate::register::locate::Finder;
use crate::seam::{Output, TextOutcome, Timer};
use crate::site::{Site, World};
use crate::sms::ending::End;
use crate::sms::places::Taker;
use crate::sms::record::{self, Cause, Happened, Outgoing, Recipient, Text};
use crate::sms::verdict;
use crate::sms::{Centre, State, Wait, Work, write};
use crate::store::Batch;
use crate::time::Instant;

/// Mails handed over to one relay, or to one domain, at a time.
pub(in crate::sms) const RELAY_PLACES: usize = 16;
/// An attempt may take so long: a server may think for minutes about the end of a mail (RFC 5321 §4.5.3.2.6 has ten).
const HANDING_MAX: Duration = Duration::from_secs(10 * 60);
/// The shell says that the time is over; if it does not say even that, nobody waits longer than this.
const GRACE: Duration = Duration::from_secs(10);

/// A mail on its way out.
pub(in crate::sms) struct Handing {
    id: u64,
    text: Text,
    pub(in crate::sms) deadline: Instant,
}

/// Where mail goes: to the relay (0), or to a domain by its digest.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(in crate::sms) struct RelayKey(u128);

const RELAY: RelayKey = RelayKey(0);

/// Those that could not be reached.
#[derive(Default)]
pub(super) struct Relays(BTreeMap<RelayKey, Unreached>);

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
        if let Some(unreached) = self.mails.relays.0.get(&key)
            && (now < unreached.until || unreached.probed)
        {
            // Behind the one that tries they stand in line.
            let at = if unreached.probed { now + HANDING_MAX } else { unreached.until };
            let spread = Duration::from_millis(w.ctx.rng.below(1_000));
            return self.wait_for_relay(w, recipient, at + spread);
        }
        if !self.take_place(w, recipient, Taker::Relay(key)) {
            return;
        }
        if let Some(unreached) = self.mails.relays.0.get_mut(&key) {
            unreached.probed = true;
        }
        self.mails.hand_count += 1;
        let id = self.mails.hand_count;
        let mail = Box::new(mail.clone());
        let deadline = now + HANDING_MAX + GRACE;
        self.mails.handing.insert(id, recipient);
        self.under_way += 1;
        if let Some(queue) = self.queues.get_mut(&recipient) {
            queue.last_start = Some(now);
            queue.state = State::Handing(Box::new(Handing { id, text, deadline }));
        }
        w.timers.at(deadline, Timer::Text(recipient));
        w.ctx.out.send(Output::SendMail { id, mail, timeout: HANDING_MAX });
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
        self.handed_over(w, id, result);
        self.work_off(w, finder);
    }

    /// Nobody has said in time what became of it.
    pub(in crate::sms) fn handing_timeout(&mut self, w: &mut World<'_, '_>, recipient: Recipient) {
        let Some(queue) = self.queues.get(&recipient) else { return };
        let State::Handing(handing) = &queue.state else { return };
        if w.ctx.now >= handing.deadline {
            let id = handing.id;
            self.handed_over(w, id, Err(MailFailure::Lost("nobody said what became of it".into())));
        }
    }

    fn handed_over(&mut self, w: &mut World<'_, '_>, id: u64, result: Result<MailTaken, MailFailure>) {
        // It may be said after its deadline.
        let Some(recipient) = self.mails.handing.remove(&id) else { return };
        let Some(queue) = self.queues.get_mut(&recipient) else { return };
        let State::Handing(handing) = std::mem::replace(&mut queue.state, State::InLine) else { return };
        self.under_way -= 1;
        let mut text = handing.text;
        let Some(to) = text.mail().map(|outgoing| outgoing.mail.to.clone()) else { return };
        let key = relay_of(w.site, to.domain());
        let reached = !matches!(result, Err(MailFailure::Unreachable(_)));
        if reached {
            self.relay_reached(w, key);
        }
        match result {
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
                let at = self.relay_unreached(w, key, &why);
                // The one that tried keeps what it heard; the others have not tried.
                self.note_attempt(w, &mut text, 0, why);
                self.wait_for_relay(w, recipient, at);
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
        w.event(Event::MailNotTaken { text: text.number, code, why: why.clone(), next_s });
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
        if self.mails.relays.0.remove(&key).is_none() {
            return;
        }
        w.event(Event::RelayReached { direct: w.site.relay().is_none() });
        self.wake_for_relay();
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
            self.mails.relays.0.values_mut().for_each(|unreached| unreached.until = w.ctx.now);
        }
    }

    /// The way out is another one: what was out of reach on the old one says nothing of it.
    pub fn relay_changed(&mut self, w: &mut World<'_, '_>, finder: &mut Finder<'_>) {
        self.mails.relays.0.clear();
        self.wake_for_relay();
        self.work_off(w, finder);
    }

    /// What the operator has to look after.
    pub fn alarms(&self) -> Vec<String> {
        let waiting = self.mails.waiting;
        let relay = self.mails.relays.0.get(&RELAY);
        relay
            .map(|unreached| format!("the relay cannot be reached, {waiting} wait for it: {}", unreached.why))
            .into_iter()
            .collect()
    }

    /// When it is tried again.
    fn relay_unreached(&mut self, w: &mut World<'_, '_>, key: RelayKey, why: &str) -> Instant {
        let before = self.mails.relays.0.get(&key);
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
        let unreached = Unreached { failures: failures.saturating_add(1), until, probed: false, why: why.to_owned() };
        self.mails.relays.0.insert(key, unreached);
        let direct = w.site.relay().is_none();
        w.event(Event::RelayUnreached {
            direct,
            why: why.to_owned(),
            waiting: self.mails.waiting,
            next_s: pause.as_secs(),
        });
        until
    }
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
