//! A text from a phone: taken, answered again, or refused.
//!
//! Knows: what OpenBTS sends (wire.md 4.1), who may send, what makes a copy a copy. Does not know: how a text gets to its phone.
//! Any 2xx is an RP-ACK at the phone, anything else an RP-ERROR 127 whatever the code: the words go into a Warning for whoever reads
//! along, and where a human needs them into a text of their own.
//!
//! Duplicates: the same request sent again is (source address, Call-ID, CSeq, From tag); the phone's own repeat is (IMSI, TP-MR, TP-DA, the
//! TPDU with TP-RD masked). Both digests are stored in the batch of the text, outlive its delivery by [`REPEAT_WINDOW`], and so a
//! restart. A copy gets the first one's answer, once that is safe.
//! Limits: as many wait for their sender's place as transactions may be under way; a search ends by its own deadlines.

use std::net::SocketAddr;

use sha2::{Digest as _, Sha256};

use super::record::{self, Cause, Seen, Text};
use super::{Centre, REPEAT_WINDOW, is_over, write};
use crate::event::Event;
use crate::gsm::rpdu::{self, BadRpdu, Direction, Rpdu};
use crate::gsm::text;
use crate::gsm::tpdu::{Submit, UserData, Validity};
use crate::ident::Imsi;
use crate::register::locate::{Finder, Located, Seeker, Want};
use crate::seam::{After, Inner, ReplyTo, TransactionKey};
use crate::sip::header::{HeaderName, Uri};
use crate::sip::parse::{Message, parse};
use crate::sip::write::Writer;
use crate::site::{Request, World};
use crate::store::{Batch, CommitId, StoreError, StoreId};

const RPDU_TYPE: &str = "application/vnd.3gpp.sms";
const PLAIN_TYPE: &str = "text/plain";
/// A longer number or name is cut where it stands in a text of ours.
const DIALLED_SHOWN_MAX: usize = 20;

/// A text whose sender is being looked for.
pub(super) struct Submission {
    bytes: Vec<u8>,
    from: SocketAddr,
    to: ReplyTo,
    key: TransactionKey,
    sender: Imsi,
    letter: Letter,
}

/// What is written, and to whom.
struct Letter {
    dialled: String,
    protocol: u8,
    reply_path: bool,
    report_wanted: bool,
    reference: u8,
    validity: Option<Validity>,
    data: UserData,
    /// What the phone's own repeat has in common with it; `None` where the phone did not write the TPDU.
    repeat: Option<Vec<u8>>,
    /// Octets behind what was read.
    trailing: usize,
}

/// What a MESSAGE asks.
enum Asked {
    Send(Box<Letter>),
    /// The phone acknowledges something, or has memory again: nothing waits for that yet.
    Noted,
}

/// Our *no* to a text; it knows its answer.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum No {
    NotAPhone,
    NotHere,
    TooFew,
    SenderBarred,
    RecipientBarred,
    ContentType,
    Unreadable(&'static str),
    TooLong(&'static str),
    UnknownNumber,
    CentreItself,
    Overload,
    TooMany,
    TooManyForOne,
}

impl No {
    /// Code, phrase, cause of Q.850, and why in words.
    fn answer(self) -> (u16, &'static str, Option<u8>, &'static str) {
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
            No::CentreItself => (404, "Not Found", Some(1), "the message centre reads no texts yet"),
            No::Overload => (503, "Service Unavailable", Some(42), "overload, or the disk is full"),
            No::TooMany => (503, "Service Unavailable", Some(42), "as many texts wait as may"),
            No::TooManyForOne => (503, "Service Unavailable", Some(42), "as many texts wait for that phone as may"),
        }
    }
}

impl Centre {
    /// A MESSAGE from a base station, the first copy as far as memory reaches.
    pub fn message(&mut self, w: &mut World<'_, '_>, finder: &mut Finder<'_>, request: &Request<'_>) {
        match self.admit(w, request) {
            Err(no) => refuse(w, request, no),
            Ok(None) => {}
            Ok(Some((sender, letter))) => {
                if self.submissions.len() >= w.site.settings.registrar.transaction_count_max {
                    return refuse(w, request, No::Overload);
                }
                self.submission_count += 1;
                let id = self.submission_count;
                let Request { from, to, key, .. } = *request;
                let bytes = request.bytes.to_vec();
                self.submissions.insert(id, Submission { bytes, from, to, key, sender, letter });
                finder.seek(w, sender, Seeker::Sender(id), Want::BoundAt(from.ip()), None);
            }
        }
    }

    /// Who sends what; `None`: it is answered already.
    fn admit(&self, w: &mut World<'_, '_>, request: &Request<'_>) -> Result<Option<(Imsi, Letter)>, No> {
        if !self.open {
            return Err(No::Overload);
        }
        let from = request.message.from().ok().and_then(|from| from.uri().ok());
        let user = from.and_then(|uri| uri.user).unwrap_or_default();
        let subscriber = w.site.resolve(user).ok_or(No::NotAPhone)?;
        let sender = subscriber.imsi;
        if subscriber.barred {
            return Err(No::SenderBarred);
        }
        let letter = match read(request.message)? {
            Asked::Noted => {
                answer(w, request, (202, "Accepted"), After::nothing());
                return Ok(None);
            }
            Asked::Send(letter) => *letter,
        };
        if letter.trailing > 0 {
            w.event(Event::TextTrailing { from: request.from, octets: letter.trailing });
        }
        if self.repeated(w, request, &[request_digest(request.from, request.message)]) {
            return Ok(None);
        }
        Ok(Some((sender, letter)))
    }

    /// Whether the sender is where his text came from.
    pub fn sender_located(&mut self, w: &mut World<'_, '_>, id: u64, located: Located) {
        let Some(submission) = self.submissions.remove(&id) else { return };
        let Ok(message) = parse(&submission.bytes) else { return };
        let Submission { from, to, key, sender, letter, .. } = submission;
        let request = Request { from, to, key, bytes: &submission.bytes, message: &message };
        let taken = match located {
            Located::Found { .. } => self.take(w, &request, sender, letter),
            Located::Away => Err(No::NotHere),
            Located::TooFew => Err(No::TooFew),
        };
        if let Err(no) = taken {
            refuse(w, &request, no);
        }
    }

    /// Stores the text, and answers when the disk has it.
    fn take(&mut self, w: &mut World<'_, '_>, request: &Request<'_>, sender: Imsi, letter: Letter) -> Result<(), No> {
        let mut digests = vec![request_digest(request.from, request.message)];
        digests.extend(letter.repeat.as_ref().map(|repeat| digest(b"repeat", &[sender.as_str().as_bytes(), repeat])));
        if self.repeated(w, request, &digests) {
            return Ok(());
        }
        let settings = &w.site.settings;
        let no = match w.site.resolve(&letter.dialled) {
            Some(subscriber) if subscriber.barred => return Err(No::RecipientBarred),
            Some(subscriber) => {
                let subscriber = subscriber.imsi;
                return self.accept(w, request, sender, subscriber, letter, &digests);
            }
            None if is_same_number(&letter.dialled, &settings.messages.service_centre) => No::CentreItself,
            None => No::UnknownNumber,
        };
        // "text to nobody's number 404 and a text in words" (DESIGN section 9): the phone itself can only show that it failed.
        let dialled: String =
            letter.dialled.chars().filter(|char| text::septets(&char.to_string()).is_some()).collect();
        let dialled: String = dialled.chars().take(DIALLED_SHOWN_MAX).collect();
        let words = match no {
            No::CentreItself => {
                format!("{dialled} is the message centre, which reads no texts yet: your text was not sent")
            }
            _ => format!("{dialled} is nobody's number: your text was not sent"),
        };
        let (code, phrase, cause, why) = no.answer();
        match self.tell(w, sender, &words, code, &digests) {
            // Without room for the words the phone is told no all the same, and a repeat is a new text.
            Err(_) => Err(no),
            Ok((commit, number)) => {
                w.event(Event::TextRefused { from: request.from, code, why });
                let after = After::nothing().and(commit);
                let mut writer = response(w, request, code, phrase);
                if let Some(cause) = cause {
                    writer.header_fmt("Reason", format_args!("Q.850;cause={cause}"));
                }
                let bytes = writer.header_fmt("Warning", format_args!("399 encamp \"{why}\"")).finish();
                w.ctx.out.after(after, Inner::Answer { key: Some(request.key), to: request.to, bytes });
                w.ctx.out.after(after, Inner::TextKept { imsi: sender, text: number });
                Ok(())
            }
        }
    }

    fn accept(
        &mut self,
        w: &mut World<'_, '_>,
        request: &Request<'_>,
        sender: Imsi,
        recipient: Imsi,
        letter: Letter,
        digests: &[[u8; 16]],
    ) -> Result<(), No> {
        let number = w.site.subscribers.get(&sender).and_then(|subscriber| subscriber.msisdn.first());
        let text = Text {
            number: 0,
            recipient,
            sender: Some(sender),
            // The bare digits: a phone can show them, and an answer to them finds its way.
            shown: number.map_or_else(|| sender.to_string(), ToString::to_string),
            timestamp_s: 0,
            accepted_ms: 0,
            protocol: letter.protocol,
            reply_path: letter.reply_path,
            data: letter.data,
            report_wanted: letter.report_wanted,
            reference: letter.reference,
            dialled: letter.dialled,
            validity: letter.validity,
            attempts: 0,
            possible_duplicate: false,
            cause: Cause::New,
        };
        let (commit, number) = self.store(w, text, 202, digests)?;
        w.event(Event::TextAccepted { text: number, sender: Some(sender), recipient });
        let after = After::nothing().and(commit);
        answer(w, request, (202, "Accepted"), after);
        w.ctx.out.after(after, Inner::TextKept { imsi: recipient, text: number });
        Ok(())
    }

    /// A text in the centre's own words: one message, as short as it takes.
    fn tell(
        &mut self,
        w: &mut World<'_, '_>,
        recipient: Imsi,
        words: &str,
        code: u16,
        digests: &[[u8; 16]],
    ) -> Result<(CommitId, u64), No> {
        let data = text::encode(text::fitting(words)).map_err(|_| No::Overload)?;
        let text = Text {
            number: 0,
            recipient,
            sender: None,
            shown: w.site.settings.messages.service_centre.clone(),
            timestamp_s: 0,
            accepted_ms: 0,
            protocol: 0,
            reply_path: false,
            data,
            report_wanted: false,
            reference: 0,
            dialled: String::new(),
            validity: None,
            attempts: 0,
            possible_duplicate: false,
            cause: Cause::New,
        };
        let (commit, number) = self.store(w, text, code, digests)?;
        w.event(Event::TextAccepted { text: number, sender: None, recipient });
        Ok((commit, number))
    }

    /// Numbers the text, gives it its timestamp, and writes it in one batch with what makes a copy of it known.
    fn store(
        &mut self,
        w: &mut World<'_, '_>,
        mut text: Text,
        code: u16,
        digests: &[[u8; 16]],
    ) -> Result<(CommitId, u64), No> {
        let limits = &w.site.settings.messages;
        if self.waiting >= limits.count_max {
            return Err(No::TooMany);
        }
        if self.queues.get(&text.recipient).is_some_and(|queue| queue.count >= limits.count_per_phone_max) {
            return Err(No::TooManyForOne);
        }
        let now_ms = w.wall().ms;
        let number = self.next_number;
        text.number = number;
        text.accepted_ms = now_ms;
        text.timestamp_s = next_timestamp_s(w, text.recipient, now_ms).map_err(|_| No::Overload)?;
        let seen = record::encode_seen(&Seen { at_ms: now_ms, code, number });
        let last = record::last_key(text.recipient);
        let mut batch = Batch::default()
            .put(record::text_key(text.recipient, number), record::encode(&text))
            .put(record::NEXT_KEY, (number + 1).to_be_bytes())
            .put(last.clone(), record::encode_last(now_ms, text.timestamp_s));
        let mut old = vec![last];
        for digest in digests {
            let key = record::seen_key(digest);
            batch = batch.put(key.clone(), seen.clone());
            old.push(key);
        }
        let window_ms = u64::try_from(REPEAT_WINDOW.as_millis()).unwrap_or(u64::MAX);
        batch = batch.put(record::old_key(now_ms.saturating_add(window_ms), number), record::encode_old(&old));
        let commit = write(w, batch).map_err(|_| No::Overload)?;
        self.next_number = number + 1;
        self.enqueue(text.recipient, number);
        Ok((commit, number))
    }

    /// Answers a copy as the first one was answered, once that is safe.
    fn repeated(&self, w: &mut World<'_, '_>, request: &Request<'_>, digests: &[[u8; 16]]) -> bool {
        let find = |w: &mut World<'_, '_>, digest: &[u8; 16]| {
            let bytes = w.store(StoreId::Messages).ok()?.get(&record::seen_key(digest)).ok()??;
            record::decode_seen(&bytes).filter(|seen| !is_over(w, seen.at_ms, REPEAT_WINDOW))
        };
        let Some(seen) = digests.iter().find_map(|digest| find(w, digest)) else { return false };
        w.event(Event::TextDuplicate { from: request.from });
        let after = w.unsynced(StoreId::Messages).map_or(After::nothing(), |commit| After::nothing().and(commit));
        let status = if seen.code == 202 { (202, "Accepted") } else { (404, "Not Found") };
        answer(w, request, status, after);
        true
    }
}

/// "(TP-OA, SCTS)" tells a phone two texts apart: no two to one phone have the same second, also after a restart.
fn next_timestamp_s(w: &mut World<'_, '_>, recipient: Imsi, now_ms: u64) -> Result<u64, StoreError> {
    let last = w.store(StoreId::Messages)?.get(&record::last_key(recipient))?;
    let last_s = last.and_then(|bytes| record::decode_last(&bytes)).map_or(0, |(_, timestamp_s)| timestamp_s);
    Ok((now_ms / 1000).max(last_s + 1))
}

/// Reads the body.
fn read(message: &Message<'_>) -> Result<Asked, No> {
    let content_type = message.header(HeaderName::ContentType).unwrap_or_default();
    let (media, params) = content_type.split_once(';').unwrap_or((content_type, ""));
    let media = media.trim();
    if message.header(HeaderName::ContentEncoding).is_some_and(|coding| !coding.trim().eq_ignore_ascii_case("identity"))
    {
        return Err(No::ContentType);
    }
    if media.eq_ignore_ascii_case(RPDU_TYPE) {
        read_rpdu(message.body)
    } else if media.eq_ignore_ascii_case(PLAIN_TYPE) {
        let words = plain(message.body, params)?;
        let user = message.uri().and_then(|uri| Uri::parse(uri).ok()).and_then(|uri| uri.user);
        let dialled = user.filter(|user| !user.is_empty()).ok_or(No::Unreadable("its Request-URI names nobody"))?;
        let data = text::encode(&words).map_err(|too_long| No::TooLong(too_long.words()))?;
        Ok(Asked::Send(Box::new(Letter {
            dialled: dialled.to_owned(),
            protocol: 0,
            reply_path: false,
            report_wanted: false,
            reference: 0,
            validity: None,
            data,
            repeat: None,
            trailing: 0,
        })))
    } else {
        Err(No::ContentType)
    }
}

fn read_rpdu(body: &[u8]) -> Result<Asked, No> {
    let unreadable = |bad: BadRpdu| No::Unreadable(bad.words());
    let octets = rpdu::from_hex(body).map_err(unreadable)?;
    let (rpdu, behind_rpdu) = Rpdu::decode(&octets).map_err(unreadable)?;
    let tpdu = match rpdu {
        Rpdu::DataFromPhone { tpdu, .. } => tpdu,
        Rpdu::Ack { direction: Direction::FromPhone, .. }
        | Rpdu::Error { direction: Direction::FromPhone, .. }
        | Rpdu::Smma { .. } => return Ok(Asked::Noted),
        Rpdu::DataToPhone { .. } | Rpdu::Ack { .. } | Rpdu::Error { .. } => {
            return Err(No::Unreadable("an RPDU of the direction to a phone"));
        }
    };
    let (submit, behind_tpdu) = Submit::decode(tpdu).map_err(|bad| No::Unreadable(bad.words()))?;
    let dialled = submit.destination.number();
    if dialled.is_empty() {
        return Err(No::Unreadable("a SUBMIT without a number"));
    }
    let repeat = Some(submit.repeat_key_bytes());
    Ok(Asked::Send(Box::new(Letter {
        dialled,
        protocol: submit.protocol,
        reply_path: submit.reply_path,
        report_wanted: submit.report_wanted,
        reference: submit.reference,
        validity: submit.validity,
        data: submit.data,
        repeat,
        trailing: behind_rpdu + behind_tpdu,
    })))
}

/// A text in UTF-8, which ASCII is too, or in Latin-1.
fn plain(body: &[u8], params: &str) -> Result<String, No> {
    let charset = params.split(';').filter_map(|param| param.split_once('='));
    let charset =
        charset.filter(|(name, _)| name.trim().eq_ignore_ascii_case("charset")).map(|(_, value)| value).next();
    match charset.unwrap_or("utf-8").trim().trim_matches('"').to_ascii_lowercase().as_str() {
        "utf-8" | "utf8" | "us-ascii" => {
            String::from_utf8(body.to_vec()).map_err(|_| No::Unreadable("a text that is not the UTF-8 it says it is"))
        }
        "iso-8859-1" | "latin1" => Ok(body.iter().map(|byte| char::from(*byte)).collect()),
        _ => Err(No::ContentType),
    }
}

/// With or without `+`, as [`crate::site::Site::resolve`] takes what is dialled.
fn is_same_number(dialled: &str, number: &str) -> bool {
    dialled.trim_start_matches('+') == number.trim_start_matches('+')
}

/// "SIP retransmission = (source, Call-ID, CSeq, From tag)" (wire.md 4.1).
fn request_digest(from: SocketAddr, message: &Message<'_>) -> [u8; 16] {
    let (cseq, _) = message.cseq();
    let tag = message.from().ok().and_then(|from| from.tag()).unwrap_or_default();
    let (source, cseq) = (from.ip().to_string(), cseq.to_string());
    digest(b"request", &[source.as_bytes(), message.call_id().as_bytes(), cseq.as_bytes(), tag.as_bytes()])
}

fn digest(kind: &[u8], parts: &[&[u8]]) -> [u8; 16] {
    let mut digest = Sha256::new();
    for part in [kind].iter().chain(parts) {
        digest.update((part.len() as u64).to_be_bytes());
        digest.update(part);
    }
    let mut first = [0; 16];
    first.copy_from_slice(&digest.finalize()[..16]);
    first
}

fn refuse(w: &mut World<'_, '_>, request: &Request<'_>, no: No) {
    let (code, phrase, cause, why) = no.answer();
    w.event(Event::TextRefused { from: request.from, code, why });
    let mut writer = response(w, request, code, phrase);
    if let Some(cause) = cause {
        writer.header_fmt("Reason", format_args!("Q.850;cause={cause}"));
    }
    if no == No::ContentType {
        writer.header_fmt("Accept", format_args!("{RPDU_TYPE}, {PLAIN_TYPE}"));
    }
    let bytes = writer.header_fmt("Warning", format_args!("399 encamp \"{why}\"")).finish();
    w.ctx.out.after(After::nothing(), Inner::Answer { key: Some(request.key), to: request.to, bytes });
}

fn answer(w: &mut World<'_, '_>, request: &Request<'_>, (code, phrase): (u16, &str), after: After) {
    let bytes = response(w, request, code, phrase).finish();
    w.ctx.out.after(after, Inner::Answer { key: Some(request.key), to: request.to, bytes });
}

fn response(w: &mut World<'_, '_>, request: &Request<'_>, code: u16, phrase: &str) -> Writer {
    request.response(&format!("{:016x}", w.ctx.rng.u64()), code, phrase)
}
