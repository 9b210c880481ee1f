//! What a MESSAGE asks, in whichever dialect it is written.
//!
//! Knows: hex RP-DATA of OpenBTS, binary, hex and base64 RP-DATA of YateBTS, binary RP-DATA of IMS phones, text/plain; SUBMIT and COMMAND in them (wire.md 4.1,
//! 11; TS 24.341 §5.3.1; TS 24.011 §7.3). Does not know: who may.

use super::accept::No;
use super::form::{PLAIN_TYPE, RPDU_TYPE, octets_of, said_by_phone};
use super::verdict::SaidByPhone;
use crate::gsm::header::Reference;
use crate::gsm::report::Command;
use crate::gsm::rpdu::{Direction, Rpdu};
use crate::gsm::segment::{Cut, split};
use crate::gsm::text;
use crate::gsm::tpdu::{Submit, UserData, Validity};
use crate::seam::Rng;
use crate::sip::header::{HeaderName, Uri};
use crate::sip::parse::Message;

/// A text in plain is cut into no more parts than this.
const PLAIN_PARTS_MAX: usize = 10;

/// What is written, and to whom.
#[derive(Clone)]
pub(super) struct Letter {
    pub(super) dialled: String,
    pub(super) protocol: u8,
    pub(super) reply_path: bool,
    pub(super) report_wanted: bool,
    pub(super) reference: u8,
    pub(super) validity: Option<Validity>,
    /// One, or the parts of a long text in plain.
    pub(super) data: Vec<UserData>,
    /// What the phone's own repeat has in common with it; `None` where the phone did not write the TPDU.
    pub(super) repeat: Option<Vec<u8>>,
    /// Octets behind what was read.
    pub(super) trailing: usize,
}

/// What a MESSAGE asks.
pub(super) enum Asked {
    Send(Letter),
    Command {
        command: Command,
        repeat: Vec<u8>,
        trailing: usize,
    },
    /// An IMS phone tells what became of a text.
    Said(SaidByPhone),
    /// The phone has memory again.
    Memory,
    /// It cannot be told.
    Unread(No),
}

/// The request, and RP-Message-Reference where it has one: the answer of the phone's own layer needs it.
pub(super) struct Read {
    pub(super) asked: Asked,
    pub(super) rp_reference: Option<u8>,
}

/// Reads the body.
pub(super) fn read(message: &Message<'_>, rng: &mut Rng) -> Read {
    let content_type = message.header(HeaderName::ContentType).unwrap_or_default();
    let (media, params) = content_type.split_once(';').unwrap_or((content_type, ""));
    let media = media.trim();
    let user = message.uri().and_then(|uri| Uri::parse(uri).ok()).and_then(|uri| uri.user).unwrap_or_default();
    // Whatever it says of the type of a body that it has not.
    if user == "SMMA" && message.body.is_empty() {
        return Read { asked: Asked::Memory, rp_reference: None };
    }
    let coding = message.header(HeaderName::ContentEncoding);
    let asked = if coding.is_some_and(|coding| !coding.trim().eq_ignore_ascii_case("identity")) {
        Err(No::ContentType)
    } else if media.eq_ignore_ascii_case(RPDU_TYPE) {
        return read_rpdu(message);
    } else if media.eq_ignore_ascii_case(PLAIN_TYPE) {
        read_plain(message.body, params, user, rng)
    } else {
        Err(No::ContentType)
    };
    Read { asked: asked.unwrap_or_else(Asked::Unread), rp_reference: None }
}

fn read_plain(body: &[u8], params: &str, user: &str, rng: &mut Rng) -> Result<Asked, No> {
    let words = plain(body, params)?;
    if user.is_empty() {
        return Err(No::Unreadable("its Request-URI names nobody"));
    }
    Ok(Asked::Send(Letter {
        dialled: user.to_owned(),
        protocol: 0,
        reply_path: false,
        report_wanted: false,
        reference: 0,
        validity: None,
        data: cut(&words, rng)?,
        repeat: None,
        trailing: 0,
    }))
}

/// One text, or as many parts as it takes.
fn cut(words: &str, rng: &mut Rng) -> Result<Vec<UserData>, No> {
    if let Ok(data) = text::encode(words) {
        return Ok(vec![data]);
    }
    let [reference] = rng.bytes();
    let parts = split(words, &Cut::new(Reference::Short(reference))).map_err(|uncut| No::TooLong(uncut.words()))?;
    if parts.len() > PLAIN_PARTS_MAX {
        return Err(No::TooLong("a text of more than ten parts"));
    }
    Ok(parts)
}

fn read_rpdu(message: &Message<'_>) -> Read {
    let unread = |no| Read { asked: Asked::Unread(no), rp_reference: None };
    let octets = match octets_of(message) {
        Ok(octets) => octets,
        Err(why) => return unread(No::Unreadable(why)),
    };
    match Rpdu::decode(&octets) {
        Ok((rpdu, behind)) => {
            let asked = read_asked(&octets, &rpdu, behind).unwrap_or_else(Asked::Unread);
            Read { asked, rp_reference: Some(rpdu.reference()) }
        }
        Err(bad) => unread(No::Unreadable(bad.words())),
    }
}

fn read_asked(octets: &[u8], rpdu: &Rpdu<'_>, behind_rpdu: usize) -> Result<Asked, No> {
    let tpdu = match rpdu {
        Rpdu::DataFromPhone { tpdu, .. } => tpdu,
        Rpdu::Ack { direction: Direction::FromPhone, .. } | Rpdu::Error { direction: Direction::FromPhone, .. } => {
            return said_by_phone(octets).map(Asked::Said).ok_or(No::Unreadable("an answer of a phone"));
        }
        Rpdu::Smma { .. } => return Ok(Asked::Memory),
        Rpdu::DataToPhone { .. } | Rpdu::Ack { .. } | Rpdu::Error { .. } => {
            return Err(No::Unreadable("an RPDU of the direction to a phone"));
        }
    };
    if let Ok((command, behind)) = Command::decode(tpdu) {
        return Ok(Asked::Command { command, repeat: tpdu.to_vec(), trailing: behind_rpdu + behind });
    }
    let (submit, behind_tpdu) = Submit::decode(tpdu).map_err(|bad| No::Unreadable(bad.words()))?;
    let dialled = submit.destination.number();
    if dialled.is_empty() {
        return Err(No::Unreadable("a SUBMIT without a number"));
    }
    let repeat = Some(submit.repeat_key_bytes());
    Ok(Asked::Send(Letter {
        dialled,
        protocol: submit.protocol,
        reply_path: submit.reply_path,
        report_wanted: submit.report_wanted,
        reference: submit.reference,
        validity: submit.validity,
        data: vec![submit.data],
        repeat,
        trailing: behind_rpdu + behind_tpdu,
    }))
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
