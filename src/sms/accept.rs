//! A text from a phone or a trunk: taken, answered again, or refused.
//!
//! Knows: who may send, whom a number means, what makes a copy a copy. Does not know: how it is written ([`super::read`]), how the answer is
//! ([`super::answer`]), how a text gets to its phone.
//! Where a phone can only show that it failed, the words of a refusal go into a text of their own, in the same batch as what makes
//! a copy known.
//!
//! Duplicates: the same request sent again is (source address, Call-ID, CSeq, From tag); the phone's own repeat is (IMSI, TP-MR, TP-DA, the
//! TPDU with TP-RD masked). Both digests are stored in the batch of the text, outlive its delivery by [`REPEAT_WINDOW`], and so a
//! restart. A copy gets the first one's answer, once that is safe.
//! Limits: as many wait for their sender's place as transactions may be under way; a search ends by its own deadlines.

use std::net::SocketAddr;
use std::time::Duration;

use sha2::{Digest as _, Sha256};

use super::answer::{self, Reply};
use super::command;
use super::deliver::address_of;
use super::ending::told;
use super::mail::depart::copy_of;
use super::read::{Asked, Letter, Read, read};
use super::record::{self, Fate, OldOf, Payload, Recipient, Seen, Sender, Text};
use super::{Centre, Full, REPEAT_WINDOW, Work, is_over};
use crate::config::words::{NOTHING, Word};
use crate::event::{Drop, Event};
use crate::gsm::form::TextForm;
use crate::gsm::text;
use crate::gsm::tpdu::Validity;
use crate::ident::{Imsi, Msisdn};
use crate::register::locate::{Finder, Located, Seeker, Want};
use crate::route::dialplan::{TextWay, text_way};
use crate::seam::{After, Inner, ReplyTo, TextOutcome, TextRecord, TransactionKey};
use crate::sip::header::HeaderName;
use crate::sip::parse::{Message, parse};
use crate::site::{Request, World};
use crate::store::StoreId;

/// A longer number or name is cut where it stands in a text of ours.
const DIALLED_SHOWN_MAX: usize = 20;
/// A clock that is put right later must not end a text now.
const LIFE_MIN: Duration = Duration::from_secs(1);

/// A text whose sender is being looked for.
pub(super) struct Submission {
    bytes: Vec<u8>,
    from: SocketAddr,
    to: ReplyTo,
    key: TransactionKey,
    sender: Imsi,
    read: Read,
}

/// Our *no* to a text; it knows its answer.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum No {
    NotAPhone,
    NotHere,
    TooFew,
    SenderBarred,
    RecipientBarred,
    ContentType,
    Unreadable(&'static str),
    TooLong(&'static str),
    UnknownNumber,
    /// A trunk's text for something that is no phone of ours.
    NotFromThere,
    CommandImpossible,
    CommandUnknown,
    Overload,
    TooMany,
    TooManyForOne,
}

impl No {
    /// Code, phrase, cause of Q.850, and why in words.
    pub(super) fn answer(self) -> (u16, &'static str, Option<u8>, &'static str) {
        match self {
            No::NotAPhone => (403, "Forbidden", Some(21), "its sender is no subscriber"),
            No::NotHere => (
                403,
                "Forbidden",
                Some(21),
                "its sender is not bound at that base station or another of its location area",
            ),
            No::TooFew => (503, "Service Unavailable", Some(42), "too few replicas could say where its sender is"),
            No::SenderBarred => (403, "Forbidden", Some(21), "its sender is barred"),
            No::RecipientBarred => (403, "Forbidden", Some(21), "the subscriber that it is for is barred"),
            No::ContentType => {
                (415, "Unsupported Media Type", None, "a text is application/vnd.3gpp.sms or text/plain")
            }
            No::Unreadable(why) => (400, "Bad Request", None, why),
            No::TooLong(why) => (413, "Request Entity Too Large", None, why),
            No::UnknownNumber => (404, "Not Found", Some(1), "the number is nobody's"),
            No::NotFromThere => (404, "Not Found", Some(1), "texts from a trunk go to subscribers only"),
            No::CommandImpossible => (404, "Not Found", None, "no text of that reference and number waits"),
            No::CommandUnknown => (400, "Bad Request", None, "an SMS-COMMAND that is not known"),
            No::Overload => (503, "Service Unavailable", Some(42), "overload, or the disk is full"),
            No::TooMany => (503, "Service Unavailable", Some(42), "as many texts wait as may"),
            No::TooManyForOne => (503, "Service Unavailable", Some(42), "as many texts wait for that phone as may"),
        }
    }

    /// What a phone is told in a text, which itself can only show that it failed.
    fn words(self) -> Option<Word> {
        match self {
            No::UnknownNumber => Some(Word::UNKNOWN_NUMBER),
            No::RecipientBarred => Some(Word::BARRED),
            No::TooManyForOne => Some(Word::TOO_MANY_FOR_ONE),
            No::Unreadable(_) | No::TooLong(_) => Some(Word::NOT_A_TEXT),
            // Its sender is not known for sure, or there is no room for another text, or there is no human who asks.
            No::NotAPhone
            | No::NotHere
            | No::TooFew
            | No::SenderBarred
            | No::ContentType
            | No::NotFromThere
            | No::CommandImpossible
            | No::CommandUnknown
            | No::Overload
            | No::TooMany => None,
        }
    }
}

impl From<Full> for No {
    fn from(full: Full) -> No {
        match full {
            Full::Centre => No::TooMany,
            Full::Recipient => No::TooManyForOne,
            Full::Store => No::Overload,
        }
    }
}

impl Centre {
    /// A MESSAGE from a base station, the first copy as far as memory reaches.
    pub fn message(&mut self, w: &mut World<'_, '_>, finder: &mut Finder<'_>, request: &Request<'_>) {
        match self.admit(w, finder, request) {
            Err((reply, no)) => self.refuse(w, request, &reply, None, "", no, &[]),
            Ok(None) => {}
            Ok(Some((sender, read))) => {
                if self.submissions.len() >= w.site.settings.registrar.transaction_count_max {
                    return self.refuse(w, request, &early_reply(request, &read), None, "", No::Overload, &[]);
                }
                self.submission_count += 1;
                let id = self.submission_count;
                let Request { from, to, key, .. } = *request;
                let bytes = request.bytes.to_vec();
                self.submissions.insert(id, Submission { bytes, from, to, key, sender, read });
                finder.seek(w, sender, Seeker::Sender(id), Want::BoundAt(from.ip()), None);
            }
        }
    }

    /// Who sends what; `None`: it is answered already.
    fn admit(
        &mut self,
        w: &mut World<'_, '_>,
        finder: &mut Finder<'_>,
        request: &Request<'_>,
    ) -> Result<Option<(Imsi, Read)>, (Reply, No)> {
        if !self.open {
            return Err((Reply::Code, No::Overload));
        }
        let read = read(request.message, w.ctx.rng);
        if let Asked::Said(said) = read.asked {
            let said = super::verdict::Said { code: 0, rpdu: Some(said) };
            let call_id = request.message.header_named("In-Reply-To").unwrap_or_default();
            let known = self.reported(w, request.from, call_id.trim(), said);
            answer::noted(w, request, 200, "OK");
            match known {
                true => self.work_off(w, finder),
                false => w.event(Event::DatagramDropped { from: request.from, why: Drop::ResponseUnknown }),
            }
            return Ok(None);
        }
        let reply = early_reply(request, &read);
        let subscriber = sender_of(w, request.message).ok_or((reply.clone(), No::NotAPhone))?;
        let (sender, barred) = (subscriber.imsi, subscriber.barred);
        if barred {
            return Err((reply, No::SenderBarred));
        }
        if let Asked::Unread(No::ContentType) = read.asked {
            return Err((reply, No::ContentType));
        }
        let trailing = match &read.asked {
            Asked::Said(_) | Asked::Memory | Asked::Unread(_) => 0,
            Asked::Send(letter) => letter.trailing,
            Asked::Command { trailing, .. } => *trailing,
        };
        if trailing > 0 {
            w.event(Event::TextTrailing { from: request.from, octets: trailing });
        }
        // What a phone's own layer waits for is known when the phone is found.
        let is_known = reply.shows_causes() || read.rp_reference.is_none();
        if is_known && self.repeated(w, request, &reply, &[request_digest(request.from, request.message)]) {
            return Ok(None);
        }
        Ok(Some((sender, read)))
    }

    /// Whether the sender is where his text came from.
    pub fn sender_located(&mut self, w: &mut World<'_, '_>, finder: &mut Finder<'_>, id: u64, located: Located) {
        let Some(submission) = self.submissions.remove(&id) else { return };
        let Ok(message) = parse(&submission.bytes) else { return };
        let Submission { from, to, key, sender, read, .. } = submission;
        let request = Request { from, to, key, bytes: &submission.bytes, message: &message };
        let reply = early_reply(&request, &read);
        let (contact, form, record) = match located {
            Located::Found { contact, form, record, .. } => (contact, form, record),
            Located::Away => return self.refuse(w, &request, &reply, None, "", No::NotHere, &[]),
            Located::TooFew => return self.refuse(w, &request, &reply, None, "", No::TooFew, &[]),
        };
        let reply = match (form, read.rp_reference) {
            (TextForm::Ims, Some(rp_reference)) => {
                // To the far end of a connection no datagram goes.
                let bound = match to {
                    ReplyTo::Stream(_) => address_of(&contact),
                    ReplyTo::Datagram { .. } => None,
                };
                Reply::Message { rp_reference, to: bound.unwrap_or(from), uri: contact }
            }
            (TextForm::Yate, Some(rp_reference)) => Reply::InBody { rp_reference },
            _ => reply,
        };
        match read.asked {
            Asked::Send(letter) => self.take(w, &request, &reply, sender, letter),
            Asked::Command { command, repeat, .. } => {
                let mut digests = vec![request_digest(request.from, request.message)];
                digests.push(digest(b"command", &[sender.as_str().as_bytes(), &repeat]));
                if !self.repeated(w, &request, &reply, &digests) {
                    self.command(w, &request, &reply, sender, &command, &digests);
                }
            }
            Asked::Memory => {
                answer::accept(self, w, &request, &reply, None, After::nothing());
                w.event(Event::PhoneHasMemory { imsi: sender });
                // Every centre that waits for it, as when it registers.
                let marks = record.iter().flat_map(|record| &record.marks);
                let owners = marks.filter(|(_, mark)| mark.since.is_some()).map(|(owner, _)| *owner).collect();
                let back = Inner::Returned { imsi: sender, owners, registered: true };
                w.ctx.out.after(After::nothing(), back);
            }
            Asked::Unread(no) => {
                let digests = [request_digest(request.from, request.message)];
                if !self.repeated(w, &request, &reply, &digests) {
                    self.refuse(w, &request, &reply, Some(sender), "", no, &digests);
                }
            }
            Asked::Said(_) => {}
        }
        self.work_off(w, finder);
    }

    /// A MESSAGE from a trunk that takes texts.
    pub fn trunk_message(&mut self, w: &mut World<'_, '_>, trunk: usize, request: &Request<'_>) {
        let digests = [request_digest(request.from, request.message)];
        let reply = Reply::Code;
        if !self.open {
            return self.refuse(w, request, &reply, None, "", No::Overload, &[]);
        }
        let letter = match read(request.message, w.ctx.rng).asked {
            Asked::Send(letter) => letter,
            Asked::Unread(no) => return self.refuse(w, request, &reply, None, "", no, &[]),
            Asked::Command { .. } | Asked::Said(_) | Asked::Memory => {
                return self.refuse(w, request, &reply, None, "", No::ContentType, &[]);
            }
        };
        if self.repeated(w, request, &reply, &digests) {
            return;
        }
        let recipient = match w.site.resolve(&letter.dialled) {
            Some(subscriber) if subscriber.barred => Err(No::RecipientBarred),
            Some(subscriber) => Ok(Recipient::Phone(subscriber.imsi)),
            None => Err(No::NotFromThere),
        };
        let from = request.message.from().ok().and_then(|from| from.uri().ok());
        let shown = from.and_then(|uri| uri.user).unwrap_or_default().to_owned();
        let shown_by_phones = crate::gsm::tpdu::Address::parse(&shown).is_ok();
        let sender = Sender::Trunk(w.site.settings.trunks[trunk].name.clone());
        let taken = match recipient {
            Ok(_) if !shown_by_phones => Err(No::Unreadable("a From that names no number")),
            Ok(recipient) => self.accept(w, request, &reply, (sender, shown), recipient, &letter, &digests),
            Err(no) => Err(no),
        };
        if let Err(no) = taken {
            self.refuse(w, request, &reply, None, &letter.dialled, no, &digests);
        }
    }

    /// Stores the text, and answers when the disk has it.
    fn take(&mut self, w: &mut World<'_, '_>, request: &Request<'_>, reply: &Reply, sender: Imsi, letter: Letter) {
        let mut digests = vec![request_digest(request.from, request.message)];
        digests.extend(letter.repeat.as_ref().map(|repeat| digest(b"repeat", &[sender.as_str().as_bytes(), repeat])));
        if self.repeated(w, request, reply, &digests) {
            return;
        }
        let taken = whom(w, &letter.dialled, sender).and_then(|recipient| {
            let number = w.site.subscribers.get(&sender).and_then(|subscriber| subscriber.msisdn.first());
            // The bare digits: a phone can show them, and an answer to them finds its way.
            let shown = number.map_or_else(|| sender.to_string(), ToString::to_string);
            self.accept(w, request, reply, (Sender::Phone(sender), shown), recipient, &letter, &digests)
        });
        if let Err(no) = taken {
            self.refuse(w, request, reply, Some(sender), &letter.dialled, no, &digests);
        }
    }

    #[allow(clippy::too_many_arguments, reason = "each is another thing")]
    fn accept(
        &mut self,
        w: &mut World<'_, '_>,
        request: &Request<'_>,
        reply: &Reply,
        (sender, shown): (Sender, String),
        recipient: Recipient,
        letter: &Letter,
        digests: &[[u8; 16]],
    ) -> Result<(), No> {
        // What has ended, and is still on the disk because that refused, is not replaced.
        self.finish_older(w).map_err(|_| No::Overload)?;
        let mut work = Work::default();
        // First, so that they leave room.
        let (replaced, end) = (self.replaced(w, recipient, &sender, letter)?, command::end_replaced());
        replaced.iter().for_each(|text| self.end_one(w, &mut work, text, &end, false));
        let (mut first, mut copies) = (None, Vec::new());
        for data in &letter.data {
            let (life_ms, single_shot) = life(w, letter.validity);
            let text = Text {
                came_from: Some(request.from),
                life_ms,
                single_shot,
                protocol: letter.protocol,
                reply_path: letter.reply_path,
                report_wanted: letter.report_wanted,
                reference: letter.reference,
                dialled: letter.dialled.clone(),
                ..Text::new(recipient, sender.clone(), shown.clone(), Payload::Text(data.clone()))
            };
            copies.extend(copy_of(w.site, &text));
            let number = self.add(w, &mut work, text)?;
            first.get_or_insert(number);
        }
        let number = first.ok_or(No::Unreadable("there is no text in it"))?;
        self.add_copies(w, &mut work, copies);
        if let (Sender::Phone(imsi), Some(_)) = (&sender, &letter.repeat) {
            work.put(record::reference_key(*imsi, letter.reference), record::encode_number(number));
        }
        let timestamp_s = work.added.iter().find(|added| added.number == number).map(|added| added.timestamp_s);
        self.remember(w, &mut work, digests, 202, number);
        let commit = self.commit(w, work).map_err(|_| No::Overload)?;
        replaced.iter().for_each(|text| told(w, text, &end));
        self.leave(w, recipient, &replaced.iter().collect::<Vec<_>>(), Some(commit), false);
        answer::accept(self, w, request, reply, timestamp_s, After::nothing().and(commit));
        Ok(())
    }

    /// Notes what makes a copy of this request known, and what it is answered.
    pub(super) fn remember(
        &mut self,
        w: &World<'_, '_>,
        work: &mut Work,
        digests: &[[u8; 16]],
        code: u16,
        number: u64,
    ) {
        let now_ms = w.wall().ms;
        let seen = record::encode_seen(&Seen { at_ms: now_ms, code, number });
        let keys: Vec<Vec<u8>> = digests.iter().map(record::seen_key).collect();
        keys.iter().for_each(|key| work.put(key.clone(), seen.clone()));
        work.old(now_ms, REPEAT_WINDOW, number, OldOf::Acceptance, keys);
    }

    /// Says no; where the phone can only show that it failed, a text tells why. `sender`: he is where he says he is.
    #[allow(clippy::too_many_arguments, reason = "each is another thing")]
    pub(super) fn refuse(
        &mut self,
        w: &mut World<'_, '_>,
        request: &Request<'_>,
        reply: &Reply,
        sender: Option<Imsi>,
        dialled: &str,
        no: No,
        digests: &[[u8; 16]],
    ) {
        let mut after = After::nothing();
        let word = no.words().filter(|_| !reply.shows_causes() && w.site.settings.messages.explain);
        if let (Some(sender), Some(word)) = (sender, word) {
            let shown: String = dialled.chars().filter(|char| text::septets(&char.to_string()).is_some()).collect();
            let shown: String = shown.chars().take(DIALLED_SHOWN_MAX).collect();
            let shown = if shown.is_empty() { NOTHING } else { &shown };
            let (code, _, _, why) = no.answer();
            let mut work = Work::default();
            // Without room for the words the phone is told no all the same, and a repeat is a new text.
            if self.say(w, &mut work, sender, word, &[("number", shown), ("why", why)]).is_ok() {
                let number = work.added.first().map_or(0, |added| added.number);
                // When the human sends it again there may be room; the digest of the request stands first.
                let remembered = match no {
                    No::TooManyForOne => digests.get(..1).unwrap_or_default(),
                    _ => digests,
                };
                self.remember(w, &mut work, remembered, code, number);
                if let Ok(commit) = self.commit(w, work) {
                    after = after.and(commit);
                }
            }
        }
        let now_ms = w.wall().ms;
        let (code, _, cause, why) = no.answer();
        w.event(Event::TextRefused { from: request.from, code, why });
        let from = request.message.from().ok().and_then(|from| from.uri().ok()).and_then(|uri| uri.user);
        let record = TextRecord {
            id: String::new(),
            accepted_ms: now_ms,
            ended_ms: now_ms,
            from: from.unwrap_or_default().to_owned(),
            to: dialled.to_owned(),
            from_imsi: sender,
            to_imsi: None,
            from_cell: w.site.station_name(request.from),
            to_cell: String::new(),
            kind: if matches!(no, No::CommandImpossible | No::CommandUnknown) { "command" } else { "text" },
            octets: request.message.body.len(),
            attempts: 0,
            outcome: TextOutcome::Refused,
            code,
            cause: cause.unwrap_or_default(),
            why: why.to_owned(),
        };
        w.ctx.out.send(crate::seam::Output::TextRecord(Box::new(record)));
        answer::refuse(self, w, request, reply, no, after);
    }

    /// Answers a copy as the first one was answered, once that is safe.
    fn repeated(&mut self, w: &mut World<'_, '_>, request: &Request<'_>, reply: &Reply, digests: &[[u8; 16]]) -> bool {
        let find = |w: &mut World<'_, '_>, digest: &[u8; 16]| {
            let bytes = w.store(StoreId::Messages).ok()?.get(&record::seen_key(digest)).ok()??;
            record::decode_seen(&bytes).filter(|seen| !is_over(w, seen.at_ms, REPEAT_WINDOW))
        };
        let Some(seen) = digests.iter().find_map(|digest| find(w, digest)) else { return false };
        w.event(Event::TextDuplicate { from: request.from });
        let after = w.unsynced(StoreId::Messages).map_or(After::nothing(), |commit| After::nothing().and(commit));
        let no = match seen.code {
            202 => {
                let timestamp_s = timestamp_of(w, seen.number).unwrap_or(seen.at_ms / 1000);
                answer::accept(self, w, request, reply, Some(timestamp_s), after);
                return true;
            }
            400 => No::Unreadable("it could not be read"),
            403 => No::RecipientBarred,
            413 => No::TooLong("it is too long"),
            503 => No::TooManyForOne,
            _ => No::UnknownNumber,
        };
        answer::refuse(self, w, request, reply, no, after);
        true
    }
}

/// TP-SCTS of a text that was accepted, as far as it is known.
fn timestamp_of(w: &mut World<'_, '_>, number: u64) -> Option<u64> {
    let store = w.store(StoreId::Messages).ok()?;
    match record::decode_fate(number, &store.get(&record::fate_key(number)).ok()??)? {
        Fate::Ended(ended) => Some(ended.text.timestamp_s),
        Fate::Waits(recipient) => {
            let bytes = store.get(&record::text_key(recipient, number)).ok()??;
            Some(record::decode(recipient, number, &bytes).ok()?.timestamp_s)
        }
    }
}

/// What is known before the sender was found: who says that he reads answers in a body is believed.
fn early_reply(request: &Request<'_>, read: &Read) -> Reply {
    let supported = request.message.headers_of(HeaderName::Supported).flat_map(|text| text.split(','));
    let mut supported = supported.map(str::trim);
    match read.rp_reference {
        Some(rp_reference) if supported.any(|tag| tag == "sms-response") => Reply::InBody { rp_reference },
        _ => Reply::Code,
    }
}

/// The subscriber who sends: an IMSI from OpenBTS, a number from YateBTS, either from an IMS phone.
fn sender_of<'w>(w: &'w World<'_, '_>, message: &Message<'_>) -> Option<&'w crate::config::Subscriber> {
    let from = message.from().ok()?.uri().ok()?;
    w.site.resolve(from.user?)
}

/// Whom a phone's text is for.
fn whom(w: &World<'_, '_>, dialled: &str, sender: Imsi) -> Result<Recipient, No> {
    let site = w.site;
    if let Some(code) = site.settings.code(dialled) {
        return Ok(Recipient::Code(code, sender));
    }
    match site.resolve(dialled) {
        Some(subscriber) if subscriber.barred => return Err(No::RecipientBarred),
        Some(subscriber) => return Ok(Recipient::Phone(subscriber.imsi)),
        None => {}
    }
    let number = Msisdn::parse(dialled).map_err(|_| No::UnknownNumber)?;
    match text_way(&site.settings, &number.to_string()) {
        Some(TextWay::Trunks) => Ok(Recipient::Trunk(number)),
        Some(TextWay::Mail(_)) => Ok(Recipient::Code(number, sender)),
        None => Err(No::UnknownNumber),
    }
}

/// For how long it is tried, in milliseconds (0: for as long as may be), and whether only once.
///
/// An absolute time means nothing to a clock that is not trusted.
fn life(w: &World<'_, '_>, validity: Option<Validity>) -> (u64, bool) {
    let Some(validity) = validity else { return (0, false) };
    let now_s = w.wall().ms / 1000;
    let ends_s = match validity {
        Validity::Absolute(_) if !w.wall().trusted => None,
        validity => validity.ends_at_s(now_s),
    };
    let life_ms =
        ends_s.map_or(0, |ends_s| ends_s.saturating_sub(now_s).saturating_mul(1000).max(super::millis(LIFE_MIN)));
    (life_ms, validity.is_single_shot())
}

/// "SIP retransmission = (source, Call-ID, CSeq, From tag)" (wire.md 4.1).
fn request_digest(from: SocketAddr, message: &Message<'_>) -> [u8; 16] {
    let (cseq, _) = message.cseq();
    let tag = message.from().ok().and_then(|from| from.tag()).unwrap_or_default();
    let (source, cseq) = (from.ip().to_string(), cseq.to_string());
    digest(b"request", &[source.as_bytes(), message.call_id().as_bytes(), cseq.as_bytes(), tag.as_bytes()])
}

pub(super) fn digest(kind: &[u8], parts: &[&[u8]]) -> [u8; 16] {
    let mut digest = Sha256::new();
    for part in [kind].iter().chain(parts) {
        digest.update((part.len() as u64).to_be_bytes());
        digest.update(part);
    }
    let mut first = [0; 16];
    first.copy_from_slice(&digest.finalize()[..16]);
    first
}
