//! How the sender of a text is told: in the answer's code alone, in an RPDU in its body, or in a MESSAGE of its own.
//!
//! Knows: that any 2xx is an RP-ACK at an OpenBTS's phone and anything else an RP-ERROR 127, whatever the code (wire.md 4.1); that YateBTS hands an
//! RPDU in the body of a 2xx to its phone, and makes causes of codes (wire.md 11); that an IMS phone waits for a MESSAGE with `In-Reply-To` (TS 24.341
//! §5.3.1.3). Does not know: why.
//! Limits: [`NOTES_MAX`] MESSAGEs of the last kind are under way; each is said [`NOTE_COPIES_MAX`] times. One that is lost makes the phone send its text again,
//! which is known for a copy.

use std::net::SocketAddr;
use std::time::Duration;

use super::Centre;
use super::accept::No;
use super::form::{PLAIN_TYPE, RPDU_TYPE};
use crate::event::{Drop, Event};
use crate::gsm::report::{Extra, Failure, SubmitReport};
use crate::gsm::rpdu::{Cause, Direction, Rpdu};
use crate::gsm::tpdu::Scts;
use crate::seam::{After, Inner, Local, Output, Timer};
use crate::sip::parse::Message;
use crate::sip::write::{DATAGRAM_BYTES_MAX, Writer};
use crate::site::{Request, World};

/// The branch of every such MESSAGE begins with this.
pub const NOTE_BRANCH: &str = "z9hG4bK-n";
const NOTES_MAX: usize = 10_000;
/// Timers E of RFC 3261 §17.1.2.1: 0.5, 1, 2, 4 s, which is longer than a phone keeps its channel for.
const NOTE_FIRST_PAUSE: Duration = Duration::from_millis(500);
const NOTE_COPIES_MAX: u32 = 5;

/// How this sender is told.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) enum Reply {
    /// By the code of the answer.
    Code,
    /// By an RPDU in a 200.
    InBody { rp_reference: u8 },
    /// By an RPDU in a MESSAGE of its own, after a 202, to where the phone is bound.
    Message { rp_reference: u8, to: SocketAddr, uri: String },
}

impl Reply {
    /// Whether the phone itself can show why.
    pub(super) fn shows_causes(&self) -> bool {
        !matches!(self, Reply::Code)
    }
}

/// A MESSAGE with an RPDU of ours that an IMS phone has not said yes to.
pub(super) struct Note {
    branch: String,
    from: Local,
    to: SocketAddr,
    bytes: Vec<u8>,
    /// What the first copy waits for, and so the others.
    after: After,
    copies: u32,
}

/// A yes: once it is safe. `timestamp_s`: when the text or command was taken, of which a SUBMIT-REPORT tells; an RP-SMMA has none.
pub(super) fn accept(
    centre: &mut Centre,
    w: &mut World<'_, '_>,
    request: &Request<'_>,
    reply: &Reply,
    timestamp_s: Option<u64>,
    after: After,
) {
    match reply {
        Reply::Code => answer(w, request, (202, "Accepted"), None, after),
        Reply::InBody { rp_reference } => {
            let rpdu = Rpdu::Ack { direction: Direction::ToPhone, reference: *rp_reference, tpdu: None };
            answer(w, request, (200, "OK"), rpdu.encode().ok(), after);
        }
        Reply::Message { rp_reference, .. } => {
            let zone = w.site.settings.messages.time_zone_quarters;
            let tpdu = timestamp_s.map(|timestamp_s| {
                let timestamp = Scts::new(timestamp_s, zone);
                SubmitReport { failure: None, timestamp, extra: Extra::default() }.encode()
            });
            let (direction, reference) = (Direction::ToPhone, *rp_reference);
            let rpdu = Rpdu::Ack { direction, reference, tpdu: tpdu.as_deref() };
            answer(w, request, (202, "Accepted"), None, after);
            centre.note(w, request, reply, rpdu.encode().unwrap_or_default(), after);
        }
    }
}

/// A no.
pub(super) fn refuse(
    centre: &mut Centre,
    w: &mut World<'_, '_>,
    request: &Request<'_>,
    reply: &Reply,
    no: No,
    after: After,
) {
    let (code, phrase, cause, why) = no.answer();
    let (rp_reference, in_body) = match reply {
        Reply::InBody { rp_reference } => (*rp_reference, true),
        Reply::Message { rp_reference, .. } => (*rp_reference, false),
        Reply::Code => {
            let mut writer = response(w, request, code, phrase);
            if let Some(cause) = cause {
                writer.header_fmt("Reason", format_args!("Q.850;cause={cause}"));
            }
            if no == No::ContentType {
                writer.header_fmt("Accept", format_args!("{RPDU_TYPE}, {PLAIN_TYPE}"));
            }
            let bytes = writer.header_fmt("Warning", format_args!("399 encamp \"{why}\"")).finish();
            return w.ctx.out.after(after, Inner::Answer { key: Some(request.key), to: request.to, bytes });
        }
    };
    let (cause, failure) = no.of_gsm();
    let zone = w.site.settings.messages.time_zone_quarters;
    let timestamp = Scts::new(w.wall().ms / 1000, zone);
    let tpdu = SubmitReport { failure, timestamp, extra: Extra::default() }.encode();
    let tpdu = failure.map(|_| tpdu.as_slice());
    let rpdu = Rpdu::Error { direction: Direction::ToPhone, reference: rp_reference, cause: cause.0, tpdu };
    let rpdu = rpdu.encode().unwrap_or_default();
    if in_body {
        return answer(w, request, (200, "OK"), Some(rpdu), after);
    }
    answer(w, request, (202, "Accepted"), None, after);
    centre.note(w, request, reply, rpdu, after);
}

fn answer(
    w: &mut World<'_, '_>,
    request: &Request<'_>,
    (code, phrase): (u16, &str),
    rpdu: Option<Vec<u8>>,
    after: After,
) {
    let mut writer = response(w, request, code, phrase);
    if let Some(rpdu) = rpdu {
        writer.body(RPDU_TYPE, &rpdu);
    }
    let bytes = writer.finish();
    w.ctx.out.after(after, Inner::Answer { key: Some(request.key), to: request.to, bytes });
}

/// What is no text is answered so.
pub(super) fn noted(w: &mut World<'_, '_>, request: &Request<'_>, code: u16, phrase: &str) {
    answer(w, request, (code, phrase), None, After::nothing());
}

fn response(w: &mut World<'_, '_>, request: &Request<'_>, code: u16, phrase: &str) -> Writer {
    request.response(&format!("{:016x}", w.ctx.rng.u64()), code, phrase)
}

impl Centre {
    /// Tells an IMS phone by a MESSAGE what became of its own.
    fn note(&mut self, w: &mut World<'_, '_>, request: &Request<'_>, reply: &Reply, rpdu: Vec<u8>, after: After) {
        let (Reply::Message { to, uri, .. }, Some((from, own))) = (reply, w.site.own_port()) else { return };
        let to = *to;
        if self.notes.len() >= NOTES_MAX {
            return w.event(Event::DatagramDropped { from: request.from, why: Drop::Overload });
        }
        self.note_count += 1;
        let id = self.note_count;
        let branch = format!("{NOTE_BRANCH}{id:x}-{:016x}", w.ctx.rng.u64());
        let centre = &w.site.settings.messages.service_centre;
        let (tag, call_id) = (w.ctx.rng.u64(), w.ctx.rng.u64());
        let bytes = Writer::request("MESSAGE", uri)
            .header_fmt("Via", format_args!("SIP/2.0/UDP {own};branch={branch}"))
            .header_fmt("From", format_args!("<sip:{centre}@{own}>;tag={tag:016x}"))
            .header_fmt("To", format_args!("<{uri}>"))
            .header_fmt("Call-ID", format_args!("{call_id:016x}@{}", own.ip()))
            .header("CSeq", "1 MESSAGE")
            .header("Max-Forwards", "70")
            .header("In-Reply-To", request.message.call_id())
            .header_fmt("P-Asserted-Identity", format_args!("<sip:{centre}@{own}>"))
            .header("Request-Disposition", "no-fork")
            .header("Content-Transfer-Encoding", "binary")
            .body(RPDU_TYPE, &rpdu)
            .finish_within(DATAGRAM_BYTES_MAX);
        let Some(bytes) = bytes else {
            return w.event(Event::DatagramDropped { from: request.from, why: Drop::AnswerTooLong });
        };
        self.notes.insert(id, Note { branch, from, to, bytes: bytes.clone(), after, copies: 1 });
        w.ctx.out.send_after(after, Output::Datagram { from, to, bytes });
        w.timers.at(w.ctx.now + NOTE_FIRST_PAUSE, Timer::TextNote(id));
    }

    /// Nothing was heard to it: once more, or never again.
    pub fn note_timeout(&mut self, w: &mut World<'_, '_>, id: u64) {
        let Some(note) = self.notes.get_mut(&id) else { return };
        if note.copies >= NOTE_COPIES_MAX {
            w.ctx.out.event(Event::TextAnswerUnheard { to: note.to });
            self.notes.remove(&id);
            return;
        }
        let pause = NOTE_FIRST_PAUSE * 2u32.pow(note.copies);
        note.copies += 1;
        let (from, to, bytes, after) = (note.from, note.to, note.bytes.clone(), note.after);
        w.ctx.out.send_after(after, Output::Datagram { from, to, bytes });
        w.timers.at(w.ctx.now + pause, Timer::TextNote(id));
    }

    /// An answer to it: any final one ends it.
    pub fn note_response(&mut self, w: &mut World<'_, '_>, from: SocketAddr, branch: &str, message: &Message<'_>) {
        let id = branch.strip_prefix(NOTE_BRANCH).and_then(|rest| rest.split_once('-'));
        let id = id.and_then(|(id, _)| u64::from_str_radix(id, 16).ok()).unwrap_or_default();
        if self.notes.get(&id).is_none_or(|note| note.branch != branch) {
            return w.event(Event::DatagramDropped { from, why: Drop::ResponseUnknown });
        }
        if message.code().is_some_and(|code| code >= 200) {
            self.notes.remove(&id);
        }
    }
}

impl No {
    /// RP-Cause, and TP-Failure-Cause where the standard has one.
    ///
    /// Source: TS 24.011 §8.2.5.4, TS 23.040 §9.2.3.22.
    fn of_gsm(self) -> (Cause, Option<Failure>) {
        match self {
            No::UnknownNumber => (Cause::UNASSIGNED_NUMBER, Some(Failure::INVALID_ADDRESS)),
            No::NotAPhone | No::NotHere => (Cause::UNIDENTIFIED_SUBSCRIBER, None),
            No::SenderBarred => (Cause::OPERATOR_BARRING, None),
            No::RecipientBarred => (Cause::TRANSFER_REJECTED, Some(Failure::DESTINATION_BARRED)),
            No::ContentType => (Cause::INTERWORKING, None),
            No::Unreadable(_) => (Cause::PROTOCOL_ERROR, None),
            No::TooLong(_) => (Cause::FACILITY_REJECTED, None),
            No::NotFromThere => (Cause::FACILITY_REJECTED, None),
            No::CommandImpossible => (Cause::FACILITY_REJECTED, Some(Failure::COMMAND_IMPOSSIBLE)),
            No::CommandUnknown => (Cause::NOT_IMPLEMENTED, Some(Failure::COMMAND_NOT_SUPPORTED)),
            No::TooFew | No::Overload => (Cause::TEMPORARY_FAILURE, Some(Failure::CENTRE_FAILURE)),
            No::TooMany | No::TooManyForOne => (Cause::CONGESTION, Some(Failure::CENTRE_BUSY)),
        }
    }
}
