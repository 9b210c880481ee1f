//! The MESSAGE that carries a text, and what is said to it, in the dialect of whoever takes it.
//!
//! Knows: what each [`TextForm`] needs on the wire (wire.md 4.2, 11; TS 24.341 §5.3.2.4; RFC 3428) and where its phones' own answers are. Does not
//! know: when it is sent, and what an answer means ([`super::verdict`]).

use std::net::SocketAddr;

use super::record::{Payload, ReportOf, Text};
use super::verdict::{Said, SaidByPhone, Verdict};
use crate::gsm::form::TextForm;
use crate::gsm::report::{Carrier, DeliverReport, Extra, Failure, Status, StatusReport};
use crate::gsm::rpdu::{self, Rpdu, from_hex, to_hex};
use crate::gsm::segment;
use crate::gsm::tpdu::{Address, Deliver, Scts, UserData};
use crate::seam::Local;
use crate::sip::header::HeaderName;
use crate::sip::parse::Message;
use crate::sip::write::{DATAGRAM_BYTES_MAX, Writer};
use crate::site::World;

pub(super) const RPDU_TYPE: &str = "application/vnd.3gpp.sms";
pub(super) const PLAIN_TYPE: &str = "text/plain";
/// A text of 255 parts in any script, but for the rarest signs; below what a datagram holds (65 507 bytes).
const PLAIN_BYTES_MAX: usize = 60_000;

/// Whom a MESSAGE goes to, and how.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct Target {
    pub(super) form: TextForm,
    pub(super) to: SocketAddr,
    /// Request-URI and To.
    pub(super) uri: String,
}

/// What tells a MESSAGE from others, and what a challenge to the first one is answered with.
pub(super) struct Marked<'a> {
    pub(super) branch: &'a str,
    pub(super) call_id: &'a str,
    pub(super) tag: u64,
    pub(super) login: Option<(&'static str, String)>,
}

/// The MESSAGE of one attempt, one datagram: our numeric address, the tag last.
///
/// Shape:  `texts` are one text, or for [`TextForm::Plain`] all parts of one, in their order. `more`: others wait for the phone (TP-MMS).
/// Errors: it cannot be put into this form; never tried again, where trying again could not help.
pub(super) fn message(
    w: &mut World<'_, '_>,
    texts: &[&Text],
    more: bool,
    target: &Target,
    marked: &Marked<'_>,
) -> Result<(Local, Vec<u8>), Verdict> {
    let unsendable = |why| Verdict::Permanent { why, status: Status::INCOMPATIBLE_DESTINATION };
    let text = *texts.first().ok_or(unsendable("there is no text"))?;
    let (from, own) = w.site.own_port().ok_or(Verdict::Temporary("this node has no UDP port to send it from"))?;
    let Target { form, to, uri } = target;
    let (shown, centre) = (&text.shown, &w.site.settings.messages.service_centre);
    let (body, media) = match form {
        TextForm::Plain => {
            (super::whole::words(w, texts).map_err(unsendable)?.into_bytes(), "text/plain;charset=UTF-8")
        }
        TextForm::OpenBts | TextForm::Yate | TextForm::Ims => {
            let tpdu = tpdu(w, text, more).ok_or(unsendable("its sender can be shown by no phone"))?;
            let originator = Address::parse(centre).ok();
            let [reference] = w.ctx.rng.bytes();
            let rpdu = Rpdu::DataToPhone { reference, originator, destination: None, tpdu: &tpdu };
            let octets = rpdu.encode().map_err(|_| unsendable("it is too long"))?;
            let body = if *form == TextForm::OpenBts { to_hex(&octets).into_bytes() } else { octets };
            (body, RPDU_TYPE)
        }
    };
    // An IMS phone is spoken to by the centre; who wrote stands in the TPDU. The others show this number.
    let shown = if *form == TextForm::Ims { centre } else { shown };
    let Marked { branch, call_id, tag, login } = marked;
    let (display, user) = (display(shown), escaped(shown));
    let cseq = if login.is_some() { "2 MESSAGE" } else { "1 MESSAGE" };
    let mut writer = Writer::request("MESSAGE", uri);
    writer
        .header_fmt("Via", format_args!("SIP/2.0/UDP {own};branch={branch}"))
        .header_fmt("From", format_args!("{display}<sip:{user}@{own}>;tag={tag:016x}"))
        .header_fmt("To", format_args!("<{uri}>"))
        .header("Call-ID", call_id)
        .header("CSeq", cseq)
        .header("Max-Forwards", "70");
    if let Some((name, value)) = login {
        writer.header(name, value);
    }
    if *form == TextForm::Ims {
        writer
            .header_fmt("P-Asserted-Identity", format_args!("<sip:{user}@{own}>"))
            .header("Request-Disposition", "no-fork")
            .header("Accept-Contact", "*;+g.3gpp.smsip;require;explicit")
            .header("Content-Transfer-Encoding", "binary");
    }
    // A base station has its limit; of everybody else SIP asks that he take what UDP can carry.
    let is_station = *form != TextForm::Plain || w.site.settings.base_station_at(to.ip()).is_some();
    let limit = if is_station { DATAGRAM_BYTES_MAX } else { PLAIN_BYTES_MAX };
    let bytes = writer.body(media, &body).finish_within(limit).ok_or(unsendable("it is too long"))?;
    Ok((from, bytes))
}

/// A display name that needs no quotes, and a blank behind it; nothing, where it would need them: base stations are no good at that.
fn display(shown: &str) -> String {
    let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'+';
    if !shown.is_empty() && shown.bytes().all(is_plain) { format!("{shown} ") } else { String::new() }
}

/// As the user of a URI: a trunk's sender may hold whatever a phone can show.
fn escaped(shown: &str) -> String {
    let mut user = String::with_capacity(shown.len());
    for byte in shown.bytes() {
        if byte.is_ascii_alphanumeric() || b"+-_.!~*'".contains(&byte) {
            user.push(char::from(byte));
        } else {
            user.push_str(&format!("%{byte:02X}"));
        }
    }
    user
}

/// DELIVER or STATUS-REPORT; `None`: the number of its sender cannot be written.
fn tpdu(w: &World<'_, '_>, text: &Text, more: bool) -> Option<Vec<u8>> {
    let zone = w.site.settings.messages.time_zone_quarters;
    let octets = match &text.payload {
        Payload::Text(data) => Deliver {
            more,
            originator: Address::parse(&text.shown).ok()?,
            protocol: text.protocol,
            report_wanted: false,
            reply_path: text.reply_path,
            timestamp: Scts::new(text.timestamp_s, zone),
            data: data.clone(),
        }
        .encode(),
        Payload::Report(report) => StatusReport {
            more,
            of_command: report.by_command,
            reference: report.reference,
            recipient: Address::parse(&report.dialled).ok()?,
            timestamp: Scts::new(report.accepted_s, zone),
            discharged: Scts::new(report.ended_s, zone),
            status: report.status,
            extra: Extra::default(),
        }
        .encode(),
        // No phone is sent one.
        Payload::Mail(_) => return None,
    };
    Some(octets)
}

/// All of it as text.
///
/// Errors: it has none, in words.
pub(super) fn words(texts: &[&Text]) -> Result<String, &'static str> {
    let mut parts: Vec<&UserData> = Vec::new();
    for text in texts {
        match &text.payload {
            Payload::Text(data) => parts.push(data),
            Payload::Report(ReportOf { dialled, status, .. }) => return Ok(format!("{dialled}: {}", status.words())),
            Payload::Mail(outgoing) => return Ok(outgoing.mail.words().to_owned()),
        }
    }
    segment::whole_text(&parts).map_err(|none| none.words())
}

/// What an answer says, or a MESSAGE of an IMS phone: its code (a request has none), and the phone's own RPDU.
pub(super) fn said(message: &Message<'_>) -> Said {
    let code = message.code().unwrap_or_default();
    Said { code, rpdu: read_rpdu(message).as_deref().and_then(said_by_phone) }
}

/// The octets of an RPDU, however it is written; `None` where there is none that can be read.
fn read_rpdu(message: &Message<'_>) -> Option<Vec<u8>> {
    let media = message.header(HeaderName::ContentType)?.split(';').next()?.trim();
    if !media.eq_ignore_ascii_case(RPDU_TYPE) || message.body.is_empty() {
        return None;
    }
    octets_of(message).ok()
}

/// The octets of a body that is an RPDU: binary, or hex digits, or base64 where a header says so.
///
/// OpenBTS sends hex without a word of it, and no RPDU begins with the octet of a hex digit: its upper five bits are spare and 0
/// (TS 24.011 §8.2.2).
pub(super) fn octets_of(message: &Message<'_>) -> Result<Vec<u8>, &'static str> {
    use base64::Engine as _;
    let coding = message.header_named("Content-Transfer-Encoding").unwrap_or_default().trim().to_ascii_lowercase();
    let body = message.body;
    match coding.as_str() {
        "base64" => {
            let text: Vec<u8> = body.iter().copied().filter(|byte| !byte.is_ascii_whitespace()).collect();
            base64::engine::general_purpose::STANDARD
                .decode(text)
                .map_err(|_| "a body that is not the base64 it says it is")
        }
        "" | "binary" | "8bit" | "hex" => match body.first() {
            Some(first) if *first < 8 && coding != "hex" => Ok(body.to_vec()),
            _ => from_hex(body).map_err(|bad| bad.words()),
        },
        _ => Err("a Content-Transfer-Encoding that is not known"),
    }
}

/// Of an RP-ACK or RP-ERROR that a phone said to a text.
pub(super) fn said_by_phone(octets: &[u8]) -> Option<SaidByPhone> {
    match Rpdu::decode(octets).ok()?.0 {
        // The direction is not looked at: a switch may have turned it.
        Rpdu::Ack { .. } => Some(SaidByPhone::Ack),
        Rpdu::Error { cause, tpdu, .. } => {
            Some(SaidByPhone::Error { cause: rpdu::Cause(cause), failure: tpdu.and_then(failure_in) })
        }
        Rpdu::DataFromPhone { .. } | Rpdu::DataToPhone { .. } | Rpdu::Smma { .. } => None,
    }
}

pub(super) fn failure_in(tpdu: &[u8]) -> Option<Failure> {
    DeliverReport::decode(tpdu, Carrier::Error).ok().and_then(|(report, _)| report.failure)
}
