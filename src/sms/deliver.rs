//! One attempt to give a text to its phone: find it, send a MESSAGE to its base station, and take what comes of it.
//!
//! Knows: what OpenBTS does with a MESSAGE (wire.md 4.2): no answer until the phone has it, none at all where the phone is absent, 400
//! for whatever the phone refused, a second SMS for every copy after a final answer. Hence no Timer E: one second copy where nothing
//! was heard, silence means absent, nothing after a final answer.
//! Limits: an attempt ends after [`SILENCE`], or [`ATTEMPT_MAX`] where the base station said 100.

use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use super::record::{self, Cause, Text};
use super::{Centre, State, end, is_over, write};
use crate::event::{Drop, Event};
use crate::gsm::rpdu::{Rpdu, to_hex};
use crate::gsm::tpdu::{Address, Deliver, Scts};
use crate::ident::Imsi;
use crate::register::locate::{Finder, Located, Seeker, Want};
use crate::seam::{After, Inner, Output, Timer};
use crate::sip::header::Uri;
use crate::sip::parse::Message;
use crate::sip::write::{DATAGRAM_BYTES_MAX, Writer};
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
/// Pauses after a failed attempt: the first one, and the longest; each is twice the one before, and jittered.
const ABSENT_PAUSE: (Duration, Duration) = (Duration::from_secs(600), Duration::from_secs(6 * 3600));
const REFUSED_PAUSE: (Duration, Duration) = (Duration::from_secs(30), Duration::from_secs(3600));

/// A MESSAGE under way.
pub(super) struct Attempt {
    number: u64,
    text: Box<Text>,
    /// A binding that is newer than this means that the phone has come back.
    since: Stamp,
    to: SocketAddr,
    bytes: Vec<u8>,
    started: Instant,
    heard: bool,
    copied: bool,
    deadline: Instant,
}

/// An attempt that has ended without a final answer, or is under way.
pub(super) struct Sent {
    pub(super) attempt: u64,
    branch: String,
    text: u64,
}

/// Why a text is not with its phone.
enum Failure {
    Absent(&'static str),
    Refused { code: u16, why: &'static str },
}

impl Centre {
    /// Looks for the phone; a text that is too old is given up instead.
    pub(super) fn begin(&mut self, w: &mut World<'_, '_>, finder: &mut Finder<'_>, imsi: Imsi) {
        let Some(queue) = self.queues.get(&imsi) else { return };
        let (key, resumed) = (record::text_key(imsi, queue.head), queue.resumed);
        let head = queue.head;
        let bytes = match w.store(StoreId::Messages).and_then(|store| store.get(&key)) {
            Ok(bytes) => bytes.unwrap_or_default(),
            Err(error) => return end(w, &error),
        };
        let mut text = match record::decode(imsi, head, &bytes) {
            Ok(text) => text,
            Err(error) => {
                // It stays on the disk, for a release that can read it; those behind it are not held up.
                w.event(Event::MessagesStoreRefused { why: error.to_string() });
                return self.pass_head(w, imsi, &key, false);
            }
        };
        if is_over(w, text.accepted_ms, w.site.settings.messages.life_max) {
            w.event(Event::TextGivenUp { text: head, recipient: imsi, why: "it could not be delivered in its life" });
            return self.remove_head(w, imsi, false);
        }
        text.possible_duplicate |= resumed;
        // Where the node's own store refuses one, which it tells, no mark can be stamped either.
        let since = w.stamp().map(|(stamp, _)| stamp).unwrap_or_default();
        self.forget_sent(imsi);
        // The word of one replica may be the one that missed the phone's last move.
        let want = if text.attempts > 0 { Want::Newest } else { Want::Contact };
        let Some(queue) = self.queues.get_mut(&imsi) else { return };
        queue.returned = false;
        queue.state = State::Locating { text: Box::new(text), since };
        self.under_way += 1;
        finder.seek(w, imsi, Seeker::Recipient(imsi), want, None);
    }

    /// Where the phone is.
    pub fn recipient_located(&mut self, w: &mut World<'_, '_>, finder: &mut Finder<'_>, imsi: Imsi, located: Located) {
        let Some(queue) = self.queues.get_mut(&imsi) else { return };
        if !matches!(queue.state, State::Locating { .. }) {
            return;
        }
        let State::Locating { text, since } = std::mem::replace(&mut queue.state, State::InLine) else { return };
        match located {
            Located::Found { contact, record, .. } => {
                // A front end whose clock goes ahead has bound it: that is no return after this attempt.
                let newest = record.as_ref().and_then(|record| record.newest()).map(|(_, stamp, _)| stamp);
                let since = since.max(newest.unwrap_or_default());
                match address_of(&contact) {
                    Some(to) => self.send(w, imsi, text, since, to),
                    None => self.failed(w, imsi, text, since, refused("its contact is no numeric address")),
                }
            }
            Located::Away => self.failed(w, imsi, text, since, Failure::Absent("it is not registered")),
            Located::TooFew => {
                self.failed(w, imsi, text, since, refused("too few replicas could say where it is"));
            }
        }
        self.work_off(w, finder);
    }

    fn send(&mut self, w: &mut World<'_, '_>, imsi: Imsi, text: Box<Text>, since: Stamp, to: SocketAddr) {
        self.attempt_count += 1;
        let number = self.attempt_count;
        let branch = format!("{BRANCH}{number:x}-{:016x}", w.ctx.rng.u64());
        let Some((from, bytes)) = message(w, &text, &branch, to) else {
            return self.failed(w, imsi, text, since, refused("it cannot be put into one datagram"));
        };
        if text.possible_duplicate {
            w.event(Event::TextPossibleDuplicate { text: text.number, recipient: imsi });
        }
        let started = w.ctx.now;
        let deadline = started + SILENCE;
        w.ctx.out.send(Output::Datagram { from, to, bytes: bytes.clone() });
        w.timers.at(started + SECOND_COPY, Timer::Text(imsi));
        w.timers.at(deadline, Timer::Text(imsi));
        let sent = Sent { attempt: number, branch, text: text.number };
        let attempt = Attempt { number, text, since, to, bytes, started, heard: false, copied: false, deadline };
        self.attempts.insert(number, imsi);
        if let Some(queue) = self.queues.get_mut(&imsi) {
            queue.last_start = Some(w.ctx.now);
            queue.state = State::Sending(Box::new(attempt));
            queue.sent = Some(sent);
        }
    }

    /// A deadline of a MESSAGE: its second copy, or its end.
    pub(super) fn sending_timeout(&mut self, w: &mut World<'_, '_>, imsi: Imsi) {
        let Some(queue) = self.queues.get_mut(&imsi) else { return };
        let State::Sending(attempt) = &mut queue.state else { return };
        if w.ctx.now >= attempt.deadline {
            let State::Sending(attempt) = std::mem::replace(&mut queue.state, State::InLine) else { return };
            let Attempt { mut text, since, .. } = *attempt;
            // The answer may have been lost, and the phone have it.
            text.possible_duplicate = true;
            return self.failed(w, imsi, text, since, Failure::Absent("its base station says nothing"));
        }
        if !attempt.heard && !attempt.copied && w.ctx.now >= attempt.started + SECOND_COPY {
            attempt.copied = true;
            let (to, bytes) = (attempt.to, attempt.bytes.clone());
            if let Some((from, _)) = w.site.own_port() {
                w.ctx.out.send(Output::Datagram { from, to, bytes });
            }
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
        let code = message.code().unwrap_or_default();
        let number = branch.strip_prefix(BRANCH).and_then(|rest| rest.split_once('-'));
        let number = number.and_then(|(number, _)| u64::from_str_radix(number, 16).ok()).unwrap_or_default();
        let imsi = self.attempts.get(&number).copied();
        let queue = imsi.and_then(|imsi| self.queues.get_mut(&imsi));
        let ours = queue.filter(|queue| queue.sent.as_ref().is_some_and(|sent| sent.branch == branch));
        let (Some(imsi), Some(queue)) = (imsi, ours) else {
            return w.event(Event::DatagramDropped { from, why: Drop::ResponseUnknown });
        };
        match &mut queue.state {
            State::Sending(attempt) if code < 200 => {
                attempt.heard = true;
                attempt.deadline = (w.ctx.now + SILENCE).min(attempt.started + ATTEMPT_MAX).max(attempt.deadline);
                w.timers.at(attempt.deadline, Timer::Text(imsi));
            }
            State::Sending(attempt) if attempt.number == number => {
                let State::Sending(attempt) = std::mem::replace(&mut queue.state, State::InLine) else { return };
                let Attempt { text, since, .. } = *attempt;
                match verdict(code) {
                    None => self.delivered(w, imsi, &text),
                    Some(failure) => self.failed(w, imsi, text, since, failure),
                }
            }
            // It came late, and the phone has the text: it is not sent again.
            State::Waiting { .. } | State::InLine if (200..300).contains(&code) => {
                let late = queue.sent.as_ref().is_some_and(|sent| sent.text == queue.head);
                let key = record::text_key(imsi, queue.head);
                let read = w.store(StoreId::Messages).and_then(|store| store.get(&key));
                let text = read.and_then(|bytes| record::decode(imsi, queue.head, &bytes.unwrap_or_default()));
                if let (true, Ok(text)) = (late, text) {
                    self.under_way += 1;
                    self.delivered(w, imsi, &text);
                }
            }
            State::Unkept | State::InLine | State::Locating { .. } | State::Sending(_) | State::Waiting { .. } => {
                w.event(Event::DatagramDropped { from, why: Drop::ResponseUnknown })
            }
        }
        self.work_off(w, finder);
    }

    fn delivered(&mut self, w: &mut World<'_, '_>, imsi: Imsi, text: &Text) {
        self.under_way -= 1;
        let since_ms = text.accepted_ms.saturating_add(super::shift_ms(w, text.accepted_ms));
        let elapsed_ms = w.wall().ms.saturating_sub(since_ms);
        let attempts = text.attempts + 1;
        w.event(Event::TextDelivered { text: text.number, recipient: imsi, elapsed_ms, attempts });
        self.forget_sent(imsi);
        self.remove_head(w, imsi, true);
    }

    /// Notes what came of an attempt, which nobody waits for, and decides when the next one begins.
    fn failed(&mut self, w: &mut World<'_, '_>, imsi: Imsi, mut text: Box<Text>, since: Stamp, failure: Failure) {
        self.under_way -= 1;
        text.attempts = text.attempts.saturating_add(1);
        text.cause = match failure {
            Failure::Absent(_) => Cause::Absent,
            Failure::Refused { code, .. } => Cause::Refused(code),
        };
        // A store that refuses has told so; the text is there, and is sent again all the same.
        let _ = write(w, Batch::default().put(record::text_key(imsi, text.number), record::encode(&text)));
        let absent = matches!(failure, Failure::Absent(_));
        let Some(queue) = self.queues.get_mut(&imsi) else { return };
        let (first, longest) = if absent { ABSENT_PAUSE } else { REFUSED_PAUSE };
        let doubled = first.saturating_mul(1 << queue.failures.min(16)).min(longest);
        let millis = u64::try_from(doubled.as_millis()).unwrap_or(u64::MAX);
        let pause = Duration::from_millis(millis * 3 / 4 + w.ctx.rng.below(millis / 2 + 1));
        queue.failures = queue.failures.saturating_add(1);
        // What is kept of the head says it from now on.
        queue.resumed = false;
        let (recipient, number, next_s) = (imsi, text.number, pause.as_secs());
        w.ctx.out.event(match failure {
            Failure::Absent(why) => Event::PhoneAbsent { text: number, recipient, why, next_s },
            Failure::Refused { code, why } => Event::TextAttemptFailed { text: number, recipient, code, why, next_s },
        });
        if absent {
            queue.marked = true;
            w.ctx.out.after(After::nothing(), Inner::Mark { imsi, since: Some(since) });
        }
        if std::mem::take(&mut queue.returned) {
            queue.failures = 0;
            return self.again_soon(w, imsi);
        }
        let at = w.ctx.now + pause;
        queue.state = State::Waiting { at, absent };
        w.timers.at(at, Timer::Text(imsi));
    }
}

fn refused(why: &'static str) -> Failure {
    Failure::Refused { code: 0, why }
}

/// What a final answer says; `None`: the phone has it.
fn verdict(code: u16) -> Option<Failure> {
    match code {
        200..300 => None,
        404 | 408 | 410 | 480 | 604 => Some(Failure::Absent("its base station cannot reach it")),
        // "400 = RP-ERROR of unknown cause -> retry later, do not bounce at once" (wire.md 10).
        400 => Some(Failure::Refused { code, why: "the phone did not take it" }),
        _ => Some(Failure::Refused { code, why: "its base station refuses it" }),
    }
}

/// Where a contact is; names are not resolved here.
fn address_of(contact: &str) -> Option<SocketAddr> {
    let uri = Uri::parse(contact).ok().filter(Uri::is_sip)?;
    Some(SocketAddr::new(uri.host.parse::<IpAddr>().ok()?, uri.port.unwrap_or(5060)))
}

/// The MESSAGE, as a base station needs it: our numeric address, the tag last, hex in the body, one datagram.
fn message(w: &mut World<'_, '_>, text: &Text, branch: &str, to: SocketAddr) -> Option<(crate::seam::Local, Vec<u8>)> {
    let (from, own) = w.site.own_port()?;
    let service_centre = Address::parse(&w.site.settings.messages.service_centre).ok();
    let deliver = Deliver {
        more: false,
        originator: Address::parse(&text.shown).ok()?,
        protocol: text.protocol,
        report_wanted: false,
        reply_path: text.reply_path,
        timestamp: Scts::from_unix(text.timestamp_s),
        data: text.data.clone(),
    };
    let [reference] = w.ctx.rng.bytes();
    let rpdu = Rpdu::DataToPhone { reference, originator: service_centre, destination: None, tpdu: &deliver.encode() };
    let body = to_hex(&rpdu.encode().ok()?);
    let (imsi, shown) = (text.recipient, &text.shown);
    let mut writer = Writer::request("MESSAGE", &format!("sip:IMSI{imsi}@{to}"));
    let bytes = writer
        .header_fmt("Via", format_args!("SIP/2.0/UDP {own};branch={branch}"))
        .header_fmt("From", format_args!("{shown} <sip:{shown}@{own}>;tag={:016x}", w.ctx.rng.u64()))
        .header_fmt("To", format_args!("<sip:IMSI{imsi}@{to}>"))
        .header_fmt("Call-ID", format_args!("{:016x}@{}", w.ctx.rng.u64(), own.ip()))
        .header("CSeq", "1 MESSAGE")
        .header("Max-Forwards", "70")
        .body("application/vnd.3gpp.sms", body.as_bytes())
        .finish_within(DATAGRAM_BYTES_MAX)?;
    Some((from, bytes))
}
