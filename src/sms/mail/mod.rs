//! The mail bridge: texts that become mail, and mail that becomes texts.
//!
//! | file | its question |
//! |---|---|
//! | [`arrive`] | a mail becomes texts |
//! | [`words`] | what a phone reads of a mail, and how a long one is cut (pure) |
//! | [`caps`] | how much of one sender, and for one phone, in a day |
//! | [`depart`] | a text becomes a mail |
//! | [`compose`] | what a phone wrote: addresses, subject, words (pure) |
//! | [`contact`] | with whom a phone exchanges mail |
//! | [`told`] | what whoever wrote is told of the end, by mail or by report |
//! | [`bounced`] | what somebody else tells of a mail of a phone's |
//! | [`status`] | what a status of mail means to a phone, and the other way round (pure) |
//! | [`leave`] | a mail that waits is handed over: to the relay, or to the servers of its domain |
//!
//! Knows: that an address is a recipient with a queue, as a phone is; so a mail that leaves waits, is tried, reported and shown like any
//! other text. Does not know: SMTP, MIME, DNS ([`crate::mail`], the shell).
//! Source: TS 23.040 §3.8; RFC 5321, 3461 to 3464, 3834.

mod arrive;
mod bounced;
mod caps;
mod compose;
mod contact;
pub(super) mod depart;
mod leave;
mod status;
mod told;
mod words;

use std::collections::BTreeMap;

pub(super) use self::arrive::COPY_WINDOW;
pub(super) use self::contact::contact_too_old;
pub(super) use self::leave::{Handing, RelayKey, in_log};
use self::leave::{Line, Relays};
pub(super) use self::told::News;
use super::record::Recipient;

/// What the bridge is at work on.
#[derive(Default)]
pub(super) struct Mails {
    /// Whose mail is being handed over, by the number that the answer bears.
    pub(super) handing: BTreeMap<u64, Recipient>,
    hand_count: u64,
    relays: Relays,
    line: Line,
    /// As many wait as may: said, and not taken back.
    is_full: bool,
    /// Mails that wait to leave.
    pub(super) waiting: usize,
}
