//! Mail without sockets and without a disk: what an address is, how a session goes, what a mail says.
//!
//! | file | its question |
//! |---|---|
//! | [`address`] | what is an address, and which list has it |
//! | [`session`] | what is said in a session of SMTP or LMTP, and what comes of it |
//! | [`admit`] | may he write to whom he wants to write to |
//! | [`receive`] | what does a mail say |
//!
//! Knows: the standards of mail. Does not know: queues, phones and threads ([`crate::sms`]), sockets and TLS (the shell).
//! The types here are what crosses the seam: a mail that has come, and one that is to leave.

pub mod address;
pub mod admit;
pub mod receive;
pub mod session;

use std::net::IpAddr;

use serde::{Deserialize, Serialize};

use self::address::Address;
use crate::gsm::tpdu::UserData;
use crate::ident::{Imsi, Msisdn};

/// Of the header of a mail so much is kept, for the report that it could not be delivered.
pub const HEADERS_KEPT_MAX: usize = 4 * 1024;

// --- Mail that comes in ---

/// A mail whose octets have come whole: its envelope, and what it says.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct MailIn {
    /// MAIL FROM; `None`: `<>`.
    pub from: Option<Address>,
    pub peer: Peer,
    pub recipients: Vec<Rcpt>,
    /// ENVID as it was written, in xtext (RFC 3461 §4.4).
    pub envid: Option<String>,
    /// LMTP: each recipient has an answer of its own. Else one answer is for all.
    pub each_answered: bool,
    pub letter: Letter,
}

/// Who speaks to us.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Peer {
    pub ip: IpAddr,
    /// What it calls itself in EHLO or LHLO; nothing is believed of it.
    pub hello: String,
    /// Who has logged in.
    pub user: Option<String>,
    pub is_encrypted: bool,
}

/// One recipient, as it was let in.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Rcpt {
    pub to: RcptTo,
    /// As it was written.
    pub typed: Address,
    /// `None`: nothing was said, which means failure (RFC 3461 §4.1).
    pub notify: Option<Notify>,
    /// ORCPT as it was written: `rfc822;…` in xtext.
    pub orcpt: Option<String>,
    /// The page of this recipient, on which the files of the mail are.
    pub link: Option<String>,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum RcptTo {
    Phone(Imsi),
    /// A number that lives at another box or behind a trunk.
    Elsewhere(Msisdn),
}

/// NOTIFY of RFC 3461 §4.1; all of them `false`: NEVER.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub struct Notify {
    pub success: bool,
    pub failure: bool,
    pub delay: bool,
}

/// What we answer to a command or to a mail: `250 2.1.5 text`.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Reply {
    pub code: u16,
    /// RFC 3463.
    pub status: (u8, u16, u16),
    /// One line, ASCII.
    pub text: String,
}

impl Reply {
    pub fn new(code: u16, status: (u8, u16, u16), text: impl Into<String>) -> Reply {
        Reply { code, status, text: text.into() }
    }
}

/// What a mail says.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Letter {
    /// Without its brackets, as all of these.
    pub message_id: Option<String>,
    /// References and In-Reply-To, oldest first, each once.
    pub references: Vec<String>,
    /// The first address of From, and the name before it.
    pub from: Option<Address>,
    pub from_name: String,
    pub reply_to: Option<Address>,
    pub subject: String,
    /// The words of the mail, in UTF-8 with `\n`: without signature, without what it quotes, without blank ends.
    pub text: String,
    pub attachments: Vec<Attachment>,
    /// Auto-Submitted, a list, bulk: nobody answers it (RFC 3834 §2).
    pub automatic: bool,
    /// How many Received lines it has.
    pub received_count: usize,
    /// The mail domains of the boxes that it has passed through: our own trace lines (`X-Encamp-Trace`).
    pub traces: Vec<String>,
    /// Authentication-Results (RFC 8601), the topmost first.
    pub results: Vec<Results>,
    /// It reports what became of another mail (RFC 3464), or says so in words.
    pub bounce: Option<Bounce>,
    /// The text of a phone at another box, as that box has it. Believed of a listed box only.
    pub relayed: Option<Relayed>,
    /// Its header, cut at [`HEADERS_KEPT_MAX`] at the end of a line.
    pub headers: Vec<u8>,
    /// Of all its octets but the trace lines that each hop adds: the same mail sent again has the same.
    pub digest: [u8; 16],
}

#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Attachment {
    /// Its file name, or what kind it is: `photo.jpg`, `image/jpeg`.
    pub name: String,
    pub octets: u64,
}

/// A file that came with a mail.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct File {
    pub name: String,
    pub content_type: String,
    pub bytes: Vec<u8>,
}

/// What one server has found out about who sent a mail.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Results {
    /// The server's own name for itself (authserv-id).
    pub by: String,
    pub spf: Option<Proof>,
    pub dkim: Option<Proof>,
    pub dmarc: Option<Proof>,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Proof {
    Pass,
    Fail,
    /// neutral, none, softfail, temperror and all else: it proves nothing either way.
    Unknown,
}

/// What became of a mail of ours, as somebody else says.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Bounce {
    /// Original-Envelope-Id, decoded.
    pub envid: Option<String>,
    /// Message-ID of the mail that it is about, without brackets: from what is returned of it, else from In-Reply-To.
    pub message_id: Option<String>,
    pub recipients: Vec<BounceOf>,
}

#[derive(Clone, PartialEq, Eq, Debug)]
pub struct BounceOf {
    /// Original-Recipient, else Final-Recipient, without its type.
    pub recipient: String,
    pub action: Action,
    pub status: Option<(u8, u16, u16)>,
    /// Diagnostic-Code without its type, one line; may be empty.
    pub why: String,
}

/// RFC 3464 §2.3.3.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Action {
    Failed,
    Delayed,
    Delivered,
    Relayed,
    Expanded,
}

/// A text between two boxes: everything of its SUBMIT that the far end needs.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Relayed {
    /// TP-OA as the phone is to show it, and whom it is for.
    pub from: String,
    pub to: String,
    /// When the first box took it, milliseconds since 1970, and for how long from then on it is tried, milliseconds.
    pub accepted_ms: u64,
    pub life_ms: u64,
    pub single_shot: bool,
    pub protocol: u8,
    pub reply_path: bool,
    /// How many boxes have passed it on.
    pub hops: u32,
    #[serde(with = "user_data")]
    pub data: UserData,
}

// --- Mail that leaves ---

/// A mail of ours, whole but for its dress.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct MailOut {
    /// MAIL FROM; `None`: `<>`, nobody is told what becomes of it.
    pub from: Option<Address>,
    /// RCPT TO, and To.
    pub to: Address,
    /// From, and the name before it, which may be empty.
    pub header_from: Address,
    pub header_from_name: String,
    pub subject: String,
    pub body: Body,
    /// Without its brackets: the same in every attempt.
    pub message_id: String,
    pub in_reply_to: Option<String>,
    /// Oldest first.
    pub references: Vec<String>,
    /// Date, seconds since 1970.
    pub date_s: u64,
    pub auto_submitted: AutoSubmitted,
    /// Asked of a server that offers DSN.
    pub notify: Notify,
    /// ENVID, not yet in xtext.
    pub envid: Option<String>,
    /// The domains of the boxes that it has passed through, ours the last: each a trace line.
    pub traces: Vec<String>,
}

impl MailOut {
    /// What it says to whoever reads it.
    pub fn words(&self) -> &str {
        match &self.body {
            Body::Text(words) | Body::Sms { words, .. } => words,
            Body::Report(report) => &report.words,
        }
    }
}

/// RFC 3834 §5.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub enum AutoSubmitted {
    No,
    Generated,
    Replied,
}

#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub enum Body {
    Text(String),
    /// multipart/report (RFC 6522) with message/delivery-status (RFC 3464).
    Report(Report),
    /// For another box: its words, and all else.
    Sms {
        words: String,
        sms: Relayed,
    },
}

/// A delivery status notification of ours.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Report {
    /// For whoever reads it.
    pub words: String,
    /// Reporting-MTA.
    pub reporting: String,
    /// As it was given to us, in xtext.
    pub envid: Option<String>,
    /// Arrival-Date, seconds since 1970.
    pub arrived_s: u64,
    pub orcpt: Option<String>,
    /// Final-Recipient.
    pub recipient: String,
    pub action: Action,
    pub status: (u8, u16, u16),
    /// Diagnostic-Code, of type `x-encamp`.
    pub why: String,
    /// The header of the mail that it is about.
    pub headers: String,
}

/// A mail that somebody else answers for now.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct MailTaken {
    /// Its host.
    pub by: String,
    pub code: u16,
    /// What it said, one line.
    pub said: String,
    /// It will tell what becomes of it, where that was asked.
    pub will_tell: bool,
}

/// Why a mail was not handed over.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum MailFailure {
    /// Nobody to give it to: no connection, no TLS, no greeting, no login. It says nothing of this mail.
    Unreachable(String),
    /// 4xx to this mail.
    Temporary { code: u16, why: String },
    /// 5xx to this mail; or code 0: it cannot be sent anywhere, ever.
    Permanent { code: u16, why: String },
    /// The line broke when all of it was sent: they may have it.
    Lost(String),
}

mod user_data {
    use serde::{Deserialize, Deserializer, Serialize, Serializer};

    use crate::gsm::text::Coding;
    use crate::gsm::tpdu::UserData;

    #[derive(Serialize, Deserialize)]
    struct Written {
        coding: u8,
        has_header: bool,
        length: u8,
        bytes: Vec<u8>,
    }

    pub fn serialize<S: Serializer>(data: &UserData, serializer: S) -> Result<S::Ok, S::Error> {
        let UserData { coding, has_header, length, bytes } = data.clone();
        Written { coding: coding.0, has_header, length, bytes }.serialize(serializer)
    }

    pub fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<UserData, D::Error> {
        let Written { coding, has_header, length, bytes } = Written::deserialize(deserializer)?;
        Ok(UserData { coding: Coding(coding), has_header, length, bytes })
    }
}
