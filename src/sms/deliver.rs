//! One attempt to give a text to its recipient: find it, send a MESSAGE to its base station, and take what comes of it.
//!
//! Knows: what OpenBTS does with a MESSAGE (wire.md 4.2): no answer until the phone has it, none at all where the phone is absent, a second
//! SMS for every copy after a final answer. Hence no Timer E: one second copy where nothing was heard, silence means absent, nothing
//! after a final answer. An IMS phone says first that it has read it, and then, by a MESSAGE of its own, what became of it.
//! Limits: an attempt ends after [`SILENCE`], or [`ATTEMPT_MAX`] where the base station said 100.

use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use super::ending::End;
use super::form::{self, Marked, Target};
use super::record::{self, Cause, Happened, Recipient, Text};
use super::trunk;
use super::verdict::{self, Said, Verdict, verdict};
use super::whole::{PARTS_WAIT, Whole};
use super::{
    Centre, RETURN_LEARNED, State, Taker, UNREADABLE_AT_ONCE, UNREADABLE_PAUSE, Wait, Work, end, number_of, write,
};
use crate::event::{Drop, Event};
use crate::gsm::form::TextForm;
use crate::gsm::report::Status;
use crate::ident::Imsi;
use crate::register::locate::{Finder, Located, Seeker, Want};
use crate::seam::{After, Inner, Local, Output, TextOutcome, Timer};
use crate::sip::digest;
use crate::sip::header::Uri;
use crate::sip::parse::Message;
use crate::site::World;
use crate::store::{Batch, StoreId};
use crate::time::{Instant, Stamp};

/// The branch of every MESSAGE of ours begins with this, and by it its answers are known.
pub const BRANCH: &str = "z9hG4bK-m";
/// The second copy leaves after this, where nothing at all was heard: the first may be lost. It restarts paging (10 s).
const SECOND_COPY: Duration = Duration::from_secs(12);
/// "…treat 30 s silence as *absent*, then stop" (wire.md 4.2); counted from the start, or from the last 100.
const SILENCE: Duration = Duration::from_secs(30);
const ATTEMPT_MAX: Duration = Duration::from_secs(60);
/// An IMS phone that has read a text says what became of it within this.
const REPORT_MAX: Duration = Duration::from_secs(45);

/// A MESSAGE under way.
pub(super) struct Attempt {
    number: u64,
    /// One text, or all parts of one.
    texts: Vec<Text>,
    /// A binding that is newer than this means that the phone has come back.
    since: Stamp,
    target: Target,
    from: Local,
    /// From tag.
    tag: u64,
    bytes: Vec<u8>,
    started: Instant,
    heard: bool,
    copied: bool,
    /// A trunk's challenge has been answered: once is enough.
    logged_in: bool,
    /// It has been read, and what became of it will be told.
    read: bool,
    deadline: Instant,
}

impl Attempt {
    pub(super) fn has(&self, number: u64) -> bool {
        self.texts.iter().any(|text| text.number == number)
    }

    /// One of its texts, whose sender thinks of something else.
    pub(super) fn text_mut(&mut self, number: u64) -> Option<&mut Text> {
        self.texts.iter_mut().find(|text| text.number == number)
    }
}

/// An attempt that has ended without a final answer, or is under way.
pub(super) struct Sent {
    pub(super) attempt: u64,
    branch: String,
    call_id: String,
    form: TextForm,
    to: SocketAddr,
    texts: Vec<u64>,
}

impl Centre {
    /// Looks for the recipient; a text that is too old is given up instead.
    pub(super) fn begin(&mut self, w: &mut World<'_, '_>, finder: &mut Finder<'_>, recipient: Recipient) {
        let Some(queue) = self.queues.get(&recipient) else { return };
        let (head, resumed) = (queue.head, queue.resumed);
        let key = record::text_key(recipient, head);
        let bytes = match w.store(StoreId::Messages).and_then(|store| store.get(&key)) {
            Ok(bytes) => bytes.unwrap_or_default(),
            Err(error) => return end(w, &error),
        };
        let mut text = match record::decode(recipient, head, &bytes) {
            Ok(text) => text,
            Err(error) => {
                // It stays on the disk, for a release that can read it; those behind it are not held up, and nobody else by many of it.
                let Some(queue) = self.queues.get_mut(&recipient) else { return };
                queue.unreadable += 1;
                let count = queue.unreadable;
                if count.is_multiple_of(UNREADABLE_AT_ONCE) {
                    let at = w.ctx.now + UNREADABLE_PAUSE;
                    queue.state = State::Waiting { at, why: Wait::Pause };
                    return w.timers.at(at, Timer::Text(recipient));
                }
                if count == 1 {
                    w.event(Event::MessagesStoreRefused { why: error.to_string() });
                }
                return self.pass(w, recipient, head, false);
            }
        };
        if self.left(w, &text).is_zero() {
            return self.conclude(w, &[&text], &End::expired(), Work::default(), false);
        }
        text.possible_duplicate |= resumed;
        // Where the node's own store refuses one, which it tells, no mark can be stamped either.
        let since = w.stamp().map(|(stamp, _)| stamp).unwrap_or_default();
        self.forget_sent(recipient);
        let Some(queue) = self.queues.get_mut(&recipient) else { return };
        queue.returned = false;
        match recipient {
            Recipient::Phone(imsi) => {
                // The word of one replica may be the one that missed the phone's last move.
                let want = if text.attempts > 0 { Want::Newest } else { Want::Contact };
                queue.state = State::Locating { text: Box::new(text), since };
                self.under_way += 1;
                finder.seek(w, imsi, Seeker::Recipient(imsi), want, None);
            }
            Recipient::Code(code, sender) => self.answer_code(w, finder, code, sender, text),
            Recipient::Trunk(number) => self.send_to_trunk(w, number, text, since),
            Recipient::Mail(_) => self.hand_over(w, recipient, text),
            Recipient::Copy(imsi) => self.copy_to_mail(w, imsi, text),
        }
    }

    /// Where the phone is.
    pub fn recipient_located(&mut self, w: &mut World<'_, '_>, finder: &mut Finder<'_>, imsi: Imsi, located: Located) {
        let recipient = Recipient::Phone(imsi);
        let Some(queue) = self.queues.get_mut(&recipient) else { return };
        if !matches!(queue.state, State::Locating { .. }) {
            return;
        }
        let State::Locating { text, since } = std::mem::replace(&mut queue.state, State::InLine) else { return };
        self.under_way -= 1;
        let refused = |why| Verdict::Temporary(why);
        match located {
            Located::Found { contact, record, form, station } => {
                // A front end whose clock goes ahead has bound it: that is no return after this attempt.
                let newest = record.as_ref().and_then(|record| record.newest()).map(|(_, stamp, _)| stamp);
                let since = since.max(newest.unwrap_or_default());
                if text.only_at.as_deref().is_some_and(|place| !w.site.settings.is_at(station.ip(), place)) {
                    let end = End::new(TextOutcome::Failed, Status::NOT_OBTAINABLE, "its phone is elsewhere");
                    self.conclude(w, &[&text], &end, Work::default(), true);
                } else if let Some(to) = address_of(&contact) {
                    let target = Target { form, to, uri: uri_for(w, form, imsi, to, contact) };
                    self.send(w, recipient, *text, since, target);
                } else {
                    self.failed(
                        w,
                        vec![*text],
                        since,
                        None,
                        refused("its contact is no numeric address"),
                        Said::default(),
                    );
                }
            }
            Located::Away => {
                self.failed(w, vec![*text], since, None, Verdict::Absent("it is not registered"), Said::default());
            }
            Located::TooFew => {
                let why = refused("too few replicas could say where it is");
                self.failed(w, vec![*text], since, None, why, Said::default());
            }
        }
        self.work_off(w, finder);
    }

    /// Sends the head, or the whole that it is part of, where its form asks for that; or lets it stand in line for its base station.
    pub(super) fn send(
        &mut self,
        w: &mut World<'_, '_>,
        recipient: Recipient,
        text: Text,
        since: Stamp,
        target: Target,
    ) {
        if !self.take_place(w, recipient, Taker::Station(target.to.ip())) {
            return;
        }
        let texts = match target.form {
            TextForm::Plain => match self.whole(w, text.clone()) {
                Ok(Whole::Ready(mut texts)) => {
                    // Read anew, they do not know what is known of the head beside the disk.
                    texts.iter_mut().for_each(|part| part.possible_duplicate |= text.possible_duplicate);
                    texts
                }
                Ok(Whole::Missing { wait }) => return self.wait_for_parts(w, recipient, wait),
                Err(error) => return end(w, &error),
            },
            TextForm::OpenBts | TextForm::Yate | TextForm::Ims => vec![text],
        };
        self.attempt_count += 1;
        let number = self.attempt_count;
        let branch = format!("{BRANCH}{number:x}-{:016x}", w.ctx.rng.u64());
        let own = w.site.own_port().map(|(_, own)| own.ip().to_string()).unwrap_or_default();
        let call_id = format!("m{number:x}-{:016x}@{own}", w.ctx.rng.u64());
        let more = self.queues.get(&recipient).is_some_and(|queue| queue.count > texts.len());
        let all: Vec<&Text> = texts.iter().collect();
        let tag = w.ctx.rng.u64();
        let marked = Marked { branch: &branch, call_id: &call_id, tag, login: None };
        let (from, bytes) = match form::message(w, &all, more, &target, &marked) {
            Ok(message) => message,
            Err(unsendable) => return self.failed(w, texts, since, None, unsendable, Said::default()),
        };
        if texts.iter().any(|text| text.possible_duplicate) {
            w.event(Event::TextPossibleDuplicate { text: texts[0].number, recipient });
        }
        let started = w.ctx.now;
        let deadline = started + SILENCE;
        w.ctx.out.send(Output::Datagram { from, to: target.to, bytes: bytes.clone() });
        w.timers.at(started + SECOND_COPY, Timer::Text(recipient));
        w.timers.at(deadline, Timer::Text(recipient));
        let sent = Sent {
            attempt: number,
            branch,
            call_id,
            form: target.form,
            to: target.to,
            texts: texts.iter().map(|text| text.number).collect(),
        };
        let attempt = Attempt {
            number,
            texts,
            since,
            target,
            from,
            tag,
            bytes,
            started,
            heard: false,
            copied: false,
            logged_in: false,
            read: false,
            deadline,
        };
        self.attempts.insert(number, recipient);
        self.under_way += 1;
        if let Some(queue) = self.queues.get_mut(&recipient) {
            queue.last_start = Some(started);
            queue.state = State::Sending(Box::new(attempt));
            queue.sent = Some(sent);
        }
    }

    /// Parts are missing: the queue waits for them, and no longer than they may take.
    pub(super) fn wait_for_parts(&mut self, w: &mut World<'_, '_>, recipient: Recipient, wait: Duration) {
        self.leave_place(recipient);
        let Some(queue) = self.queues.get_mut(&recipient) else { return };
        // A clock that is put back says each time that there is time.
        let until = *queue.parts_until.get_or_insert(w.ctx.now + PARTS_WAIT);
        let at = until.min(w.ctx.now + wait);
        queue.state = State::Waiting { at, why: Wait::Parts };
        w.timers.at(at, Timer::Text(recipient));
    }

    /// A deadline of a MESSAGE: its second copy, or its end.
    pub(super) fn sending_timeout(&mut self, w: &mut World<'_, '_>, recipient: Recipient) {
        let Some(queue) = self.queues.get_mut(&recipient) else { return };
        let State::Sending(attempt) = &mut queue.state else { return };
        if w.ctx.now >= attempt.deadline {
            let State::Sending(attempt) = std::mem::replace(&mut queue.state, State::InLine) else { return };
            self.under_way -= 1;
            let Attempt { mut texts, since, target, read, .. } = *attempt;
            // The answer may have been lost, and the phone have it.
            texts.iter_mut().for_each(|text| text.possible_duplicate = true);
            let verdict = match read {
                true => Verdict::Temporary("it has read it, and said nothing of it"),
                false => Verdict::Absent("its base station says nothing"),
            };
            return self.failed(w, texts, since, Some(target.to), verdict, Said::default());
        }
        if !attempt.heard && !attempt.copied && w.ctx.now >= attempt.started + SECOND_COPY {
            attempt.copied = true;
            let (from, to, bytes) = (attempt.from, attempt.target.to, attempt.bytes.clone());
            w.ctx.out.send(Output::Datagram { from, to, bytes });
        }
    }

    /// A response whose branch is one of ours.
    pub fn response(
        &mut self,
        w: &mut World<'_, '_>,
        finder: &mut Finder<'_>,
        from: SocketAddr,
        branch: &str,
        message: &Message<'_>,
    ) {
        let number = branch.strip_prefix(BRANCH).and_then(|rest| rest.split_once('-'));
        let number = number.and_then(|(number, _)| u64::from_str_radix(number, 16).ok()).unwrap_or_default();
        let recipient = self.attempts.get(&number).copied();
        let ours = recipient.filter(|recipient| {
            let queue = self.queues.get(recipient);
            queue.and_then(|queue| queue.sent.as_ref()).is_some_and(|sent| sent.branch == branch)
        });
        match ours {
            Some(recipient) => {
                if !self.log_in(w, recipient, number, message) {
                    self.said(w, from, recipient, number, form::said(message));
                }
            }
            None => w.event(Event::DatagramDropped { from, why: Drop::ResponseUnknown }),
        }
        self.work_off(w, finder);
    }

    /// Answers a trunk's challenge: the same MESSAGE, with the login of its table. `false`: it is a final answer like others.
    fn log_in(&mut self, w: &mut World<'_, '_>, recipient: Recipient, number: u64, message: &Message<'_>) -> bool {
        let Some(queue) = self.queues.get_mut(&recipient) else { return false };
        let (Recipient::Trunk(_), State::Sending(attempt), Some(sent)) = (recipient, &mut queue.state, &mut queue.sent)
        else {
            return false;
        };
        let site = w.site;
        let trunk = site.settings.trunks.iter().find(|trunk| trunk.address == attempt.target.to);
        let login = trunk.and_then(|trunk| Some((trunk.username.as_deref()?, trunk.password.as_ref()?)));
        let Some((username, password)) = login.filter(|_| attempt.number == number && !attempt.logged_in) else {
            return false;
        };
        let cnonce = format!("{:016x}", w.ctx.rng.u64());
        let credentials = digest::Credentials { username, password: &password.0 };
        let login = digest::answer_to(message, &credentials, "MESSAGE", &attempt.target.uri, &cnonce);
        if login.is_none() {
            return false;
        }
        let branch = format!("{BRANCH}{number:x}-{:016x}", w.ctx.rng.u64());
        let marked = Marked { branch: &branch, call_id: &sent.call_id, tag: attempt.tag, login };
        let all: Vec<&Text> = attempt.texts.iter().collect();
        // A trunk gets words, and no word of what else waits.
        let Ok((from, bytes)) = form::message(w, &all, false, &attempt.target, &marked) else { return false };
        attempt.logged_in = true;
        attempt.heard = false;
        (attempt.from, attempt.bytes) = (from, bytes.clone());
        attempt.started = w.ctx.now;
        attempt.deadline = w.ctx.now + SILENCE;
        sent.branch = branch;
        w.ctx.out.send(Output::Datagram { from, to: attempt.target.to, bytes });
        w.timers.at(attempt.started + SECOND_COPY, Timer::Text(recipient));
        w.timers.at(attempt.deadline, Timer::Text(recipient));
        true
    }

    /// An IMS phone tells what became of the text of this Call-ID; `false`: it is none of ours.
    pub(super) fn reported(&mut self, w: &mut World<'_, '_>, from: SocketAddr, call_id: &str, said: Said) -> bool {
        let number = call_id.strip_prefix('m').and_then(|rest| rest.split_once('-'));
        let number = number.and_then(|(number, _)| u64::from_str_radix(number, 16).ok()).unwrap_or_default();
        let Some(recipient) = self.attempts.get(&number).copied() else { return false };
        let sent = self.queues.get(&recipient).and_then(|queue| queue.sent.as_ref());
        if !sent.is_some_and(|sent| sent.call_id == call_id && sent.to.ip() == from.ip()) {
            return false;
        }
        self.said(w, from, recipient, number, said);
        true
    }

    fn said(&mut self, w: &mut World<'_, '_>, from: SocketAddr, recipient: Recipient, number: u64, said: Said) {
        let Some(queue) = self.queues.get_mut(&recipient) else { return };
        match &mut queue.state {
            State::Sending(attempt) if (100..200).contains(&said.code) => {
                attempt.heard = true;
                attempt.deadline = (w.ctx.now + SILENCE).min(attempt.started + ATTEMPT_MAX).max(attempt.deadline);
                w.timers.at(attempt.deadline, Timer::Text(recipient));
            }
            // "The UE … shall send … a 200 (OK)", and the RP-ACK comes in a MESSAGE of its own.
            State::Sending(attempt)
                if attempt.target.form == TextForm::Ims && (200..300).contains(&said.code) && said.rpdu.is_none() =>
            {
                // A copy of the 200 gives no more time.
                if !std::mem::replace(&mut attempt.read, true) {
                    attempt.heard = true;
                    attempt.deadline = w.ctx.now + REPORT_MAX;
                    w.timers.at(attempt.deadline, Timer::Text(recipient));
                }
            }
            State::Sending(attempt) if attempt.number == number => {
                let State::Sending(attempt) = std::mem::replace(&mut queue.state, State::InLine) else { return };
                self.under_way -= 1;
                let Attempt { mut texts, since, target, copied, .. } = *attempt;
                // What is said to the second copy may say nothing of the first one, which the phone may have got.
                texts.iter_mut().for_each(|text| text.possible_duplicate |= copied);
                match verdict(target.form, said) {
                    Verdict::Delivered => self.delivered(w, texts, target.to, said),
                    failure => self.failed(w, texts, since, Some(target.to), failure, said),
                }
            }
            // It came late, and the phone has the text: it is not sent again.
            State::Waiting { .. } | State::InLine | State::Parked => {
                let Some(sent) = &queue.sent else { return };
                let is_yes = verdict(sent.form, said) == Verdict::Delivered
                    && (sent.form != TextForm::Ims || said.rpdu.is_some());
                let (to, numbers) = (sent.to, sent.texts.clone());
                if !is_yes || !numbers.contains(&queue.head) {
                    return w.event(Event::DatagramDropped { from, why: Drop::ResponseUnknown });
                }
                let texts = numbers.into_iter().filter_map(|number| {
                    let key = record::text_key(recipient, number);
                    if self.unfinished.contains_key(&key) {
                        return None;
                    }
                    let bytes = w.store(StoreId::Messages).and_then(|store| store.get(&key)).ok()??;
                    record::decode(recipient, number, &bytes).ok()
                });
                let texts: Vec<Text> = texts.collect();
                self.delivered(w, texts, to, said);
            }
            State::Unkept | State::Locating { .. } | State::Sending(_) | State::Handing(_) | State::Working(_) => {
                w.event(Event::DatagramDropped { from, why: Drop::ResponseUnknown });
            }
        }
    }

    fn delivered(&mut self, w: &mut World<'_, '_>, mut texts: Vec<Text>, to: SocketAddr, said: Said) {
        texts.iter_mut().for_each(|text| text.attempts = text.attempts.saturating_add(1));
        let code = said.code.max(200);
        // Behind a trunk nobody knows what becomes of it.
        let status = match texts.first().map(|text| text.recipient) {
            Some(Recipient::Trunk(_)) => Status::FORWARDED,
            _ => Status::RECEIVED,
        };
        let end = End { code, taken_by: Some(to), ..End::new(TextOutcome::Delivered, status, "") };
        let all: Vec<&Text> = texts.iter().collect();
        self.conclude(w, &all, &end, Work::default(), true);
    }

    /// Notes what came of an attempt, which nobody waits for, and decides when the next one begins.
    pub(super) fn failed(
        &mut self,
        w: &mut World<'_, '_>,
        mut texts: Vec<Text>,
        since: Stamp,
        to: Option<SocketAddr>,
        verdict: Verdict,
        said: Said,
    ) {
        let Some(recipient) = texts.first().map(|text| text.recipient) else { return };
        self.leave_place(recipient);
        let code = said.code;
        let rp_cause = match said.rpdu {
            Some(super::verdict::SaidByPhone::Error { cause, .. }) => cause.0,
            _ => 0,
        };
        let failures = self.queues.get(&recipient).map_or(0, |queue| queue.failures);
        let is_next = matches!(recipient, Recipient::Trunk(number) if trunk::has_next(w.site, number, failures));
        let is_single = texts.iter().any(|text| text.single_shot);
        // Where nothing left because of ourselves, the one shot has not been fired.
        let is_tried =
            to.is_some() || matches!(verdict, Verdict::Absent(_)) || matches!(recipient, Recipient::Code(..));
        // Behind a trunk is nobody whose return could be noticed.
        let verdict = match (verdict, recipient) {
            (
                Verdict::Absent(why),
                Recipient::Trunk(_) | Recipient::Code(..) | Recipient::Mail(_) | Recipient::Copy(_),
            ) => Verdict::Temporary(why),
            // What one trunk does not know or take another one may.
            (Verdict::Permanent { why, .. }, _) if is_next && code > 0 && !is_single => Verdict::Temporary(why),
            (verdict, _) => verdict,
        };
        let (cause, why) = match verdict {
            Verdict::Absent(why) => (Cause::Absent, why),
            Verdict::MemoryFull => (Cause::MemoryFull, "the phone's memory is full"),
            Verdict::Temporary(why) | Verdict::Permanent { why, .. } => (Cause::Refused { code, cause: rp_cause }, why),
            // Not a failure, and not sent here.
            Verdict::Delivered => return,
        };
        let now_ms = w.wall().ms;
        for text in &mut texts {
            text.attempts = text.attempts.saturating_add(1);
            text.cause = cause;
            text.happened(now_ms, Happened::Failed(cause, to));
        }
        let all: Vec<&Text> = texts.iter().collect();
        let last = match verdict {
            Verdict::Permanent { status, .. } => Some((TextOutcome::Failed, status)),
            _ if is_single && is_tried => Some((TextOutcome::Expired, verdict::still_trying(cause).given_up())),
            _ => None,
        };
        if let Some((outcome, status)) = last {
            let end = End { code, cause: rp_cause, ..End::new(outcome, status, why) };
            return self.conclude(w, &all, &end, Work::default(), false);
        }
        // A store that refuses has told so; the text is there, and is sent again all the same.
        let batch = all.iter().fold(Batch::default(), |batch, text| {
            batch.put(record::text_key(recipient, text.number), record::encode(text))
        });
        let is_known = write(w, batch).is_ok() || !texts.iter().any(|text| text.possible_duplicate);
        let Some(queue) = self.queues.get_mut(&recipient) else { return };
        // A round of all trunks is one failure.
        let mut pause = match recipient {
            _ if is_next => Duration::ZERO,
            Recipient::Code(..) => verdict::program_pause(queue.failures, w.ctx.rng),
            Recipient::Trunk(number) => {
                let rounds = queue.failures / trunk::count(w.site, number).max(1);
                verdict::pause(cause, rounds, w.ctx.rng)
            }
            Recipient::Phone(_) | Recipient::Mail(_) | Recipient::Copy(_) => {
                verdict::pause(cause, queue.failures, w.ctx.rng)
            }
        };
        queue.failures = queue.failures.saturating_add(1);
        // What is kept of the head says it from now on.
        queue.resumed = !is_known;
        let absent = cause == Cause::Absent;
        let waits_for_phone = absent || cause == Cause::MemoryFull;
        if absent && w.wall().trusted {
            let messages = &w.site.settings.messages;
            let then_ms = w.wall().ms.saturating_add(super::millis(pause));
            pause += verdict::until_day(then_ms, messages.time_zone_quarters, messages.night);
        }
        let (number, next_s) = (texts[0].number, pause.as_secs());
        w.ctx.out.event(match cause {
            Cause::Absent => Event::PhoneAbsent { text: number, recipient, why, next_s },
            Cause::MemoryFull => Event::PhoneMemoryFull { text: number, recipient, next_s },
            Cause::New | Cause::Refused { .. } => {
                Event::TextAttemptFailed { text: number, recipient, code, why, next_s }
            }
        });
        if let (true, Some(imsi)) = (waits_for_phone, recipient.phone()) {
            queue.marked = true;
            w.ctx.out.after(After::nothing(), Inner::Mark { imsi, since: Some(since) });
        }
        let is_new_there = queue.last_return.take().is_some_and(|at| w.ctx.now - at < RETURN_LEARNED) && code == 404;
        if std::mem::take(&mut queue.returned) || is_new_there {
            queue.failures = 0;
            return self.again_soon(w, recipient);
        }
        let at = w.ctx.now + pause;
        let why = match cause {
            Cause::Absent => Wait::Return,
            Cause::MemoryFull => Wait::Memory,
            Cause::New | Cause::Refused { .. } => Wait::Pause,
        };
        queue.state = State::Waiting { at, why };
        w.timers.at(at, Timer::Text(recipient));
    }
}

/// Request-URI and To of a text: what the base station knows the phone by.
fn uri_for(w: &World<'_, '_>, form: TextForm, imsi: Imsi, to: SocketAddr, contact: String) -> String {
    match form {
        TextForm::OpenBts => format!("sip:IMSI{imsi}@{to}"),
        TextForm::Yate => format!("sip:{}@{to}", number_of(w.site, Recipient::Phone(imsi))),
        TextForm::Ims | TextForm::Plain => contact,
    }
}

/// Where a contact is; names are not resolved here.
pub(super) fn address_of(contact: &str) -> Option<SocketAddr> {
    let uri = Uri::parse(contact).ok().filter(Uri::is_sip)?;
    Some(SocketAddr::new(uri.host.parse::<IpAddr>().ok()?, uri.port.unwrap_or(5060)))
}
