//! What the message centre keeps on the disk.
//!
//! | key | value |
//! |---|---|
//! | `t` [`Recipient`] `/` number | a [`Text`] that waits; numbers grow, so a recipient's texts stand in the order of their acceptance |
//! | `n` | no text has this number yet, nor a larger one |
//! | `i` number | [`Fate`]: in whose queue the text stands, or how it ended |
//! | `r` IMSI TP-MR | the number of the last text that this phone sent under this reference |
//! | `d` digest | [`Seen`]: what was answered to the request or the SUBMIT of this digest |
//! | `l` IMSI | the last timestamp that this phone was given |
//! | `g` number | whom a text to several has reached, in the order of their IMSIs: while it is under way |
//! | `e` number | [`Letter`]: whom a mail is answered for that became these texts |
//! | `u` | how much mail came of late: `sms/mail/caps` |
//! | `w` number | [`Awaited`]: reports of a mail that somebody has taken who will tell what becomes of it |
//! | `c`, `p`, `q` | with whom a phone exchanges mail: `sms/mail/contact` |
//! | `x` time number kind | the keys that are too old at that time |
//!
//! Each value begins with a version byte; a release reads its own and the one before. Knows no queue and no time.

use std::net::{IpAddr, SocketAddr};

use serde::{Deserialize, Serialize};

use crate::gsm::report::Status;
use crate::gsm::text::Coding;
use crate::gsm::tpdu::{Scts, UserData, Validity};
use crate::ident::{Imsi, Msisdn};
use crate::mail::address::{Address, MailKey};
use crate::mail::{Body, MailOut, Notify};
use crate::seam::TextOutcome;
use crate::store::StoreError;

const VERSION: u8 = 2;
/// Texts of the release before this one: no fate, no life, a validity period as it was written.
const VERSION_BEFORE: u8 = 1;

pub const NEXT_KEY: &[u8] = b"n";
pub const TEXT_PREFIX: &[u8] = b"t";
pub const FATE_PREFIX: &[u8] = b"i";
pub const OLD_PREFIX: &[u8] = b"x";

/// Steps of a text's life that are kept: the first ones, and the last ones.
const STEPS_FIRST: usize = 4;
const STEPS_MAX: usize = 24;

/// In whose queue a text stands.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum Recipient {
    Phone(Imsi),
    /// The centre itself: what this subscriber wrote to this number of its own.
    Code(Msisdn, Imsi),
    /// Somebody behind a trunk.
    Trunk(Msisdn),
    /// An address of mail; it stands in [`Text::dialled`].
    Mail(MailKey),
    /// The mailbox of a subscriber's own: copies of the texts for his phone, which become mail.
    Copy(Imsi),
}

impl Recipient {
    /// Its IMSI, where it is a phone.
    pub fn phone(&self) -> Option<Imsi> {
        match self {
            Recipient::Phone(imsi) => Some(*imsi),
            Recipient::Code(..) | Recipient::Trunk(_) | Recipient::Mail(_) | Recipient::Copy(_) => None,
        }
    }
}

/// What a log line shows of it.
impl std::fmt::Display for Recipient {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Recipient::Phone(imsi) => f.write_str(&imsi.short()),
            Recipient::Code(code, _) => write!(f, "{code}"),
            Recipient::Trunk(number) => f.write_str(&number.short()),
            Recipient::Mail(key) => write!(f, "mail {key:?}"),
            Recipient::Copy(imsi) => write!(f, "the mailbox of {}", imsi.short()),
        }
    }
}

#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Sender {
    /// The centre has written it.
    Centre,
    Phone(Imsi),
    /// Somebody behind the trunk of this name; who, stands in [`Text::shown`].
    Trunk(String),
    /// Whoever wrote a mail.
    Mail(Box<FromMail>),
}

/// The mail that a text was made of.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct FromMail {
    pub from: String,
    /// The number of the letter that is kept for it ([`letter_key`]): somebody is told how it ends. 0: nobody is.
    pub letter: u64,
}

impl Sender {
    /// The same one wrote both; of a mail, whoever is answered for it.
    pub fn is_same(&self, other: &Sender) -> bool {
        match (self, other) {
            (Sender::Mail(one), Sender::Mail(other)) => one.from == other.from,
            _ => self == other,
        }
    }

    pub fn phone(&self) -> Option<Imsi> {
        match self {
            Sender::Phone(imsi) => Some(*imsi),
            Sender::Centre | Sender::Trunk(_) | Sender::Mail(_) => None,
        }
    }
}

/// What is delivered. `Debug` shows nothing of what is written ([`UserData`] does not).
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Payload {
    Text(UserData),
    Report(ReportOf),
    /// Only in the queue of an address.
    Mail(Box<Outgoing>),
}

/// A mail that waits to leave, and who hears what becomes of it.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Outgoing {
    pub mail: MailOut,
    /// The parts of the text that it was made of, whose sender asked for a report of each.
    pub reports: Vec<ReportWish>,
    /// The letter of a mail that passes through us ([`FromMail::letter`]); 0: none.
    pub letter: u64,
}

#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct ReportWish {
    /// TP-MR.
    pub reference: u8,
    /// TP-RA: what the phone dialled, which is no address of mail.
    pub dialled: String,
    /// TP-SCTS, seconds since 1970.
    pub accepted_s: u64,
}

/// What a STATUS-REPORT is about: a text that this phone has sent (TS 23.040 §9.2.2.3).
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct ReportOf {
    /// TP-MR of its SUBMIT, or of the COMMAND that asked.
    pub reference: u8,
    /// TP-SRQ: a COMMAND asked.
    pub by_command: bool,
    /// TP-RA: what was dialled.
    pub dialled: String,
    /// TP-SCTS and TP-DT, seconds since 1970.
    pub accepted_s: u64,
    pub ended_s: u64,
    pub status: Status,
}

/// How the last attempt ended.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum Cause {
    /// There was none yet.
    #[default]
    New,
    Absent,
    /// It could not be given to it: the answer's code (0: it could not be sent at all), and the cause of an RP-ERROR (0: none told).
    Refused {
        code: u16,
        cause: u8,
    },
    /// The phone's memory is full; it tells when it has room (TS 23.040 §10.3).
    MemoryFull,
}

/// One thing that happened to a text.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Step {
    /// Milliseconds since 1970.
    pub at_ms: u64,
    pub what: Happened,
}

#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Happened {
    /// An attempt failed; where it was sent to, if it was.
    Failed(Cause, Option<SocketAddr>),
    /// A mail was not taken: the answer's code (0: there was none), and what was said.
    MailFailed { code: u16, why: String },
    /// The phone came back, or has memory again.
    Returned,
    /// The operator had it tried again.
    Retried,
    /// Steps before this one were forgotten; how many.
    Forgotten(u32),
}

/// A text, from its acceptance to its end.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Text {
    /// Its number: never given twice, and growing.
    pub number: u64,
    pub recipient: Recipient,
    pub sender: Sender,
    /// The base station or trunk that it came from.
    pub came_from: Option<SocketAddr>,
    /// Whom the phone shows as its sender: TP-OA, the same in every attempt.
    pub shown: String,
    /// TP-SCTS, seconds since 1970, the same in every attempt: with `shown` it is this text and no other to the phone.
    pub timestamp_s: u64,
    /// Milliseconds since 1970.
    pub accepted_ms: u64,
    /// For how long after its acceptance it is tried, milliseconds: its validity period, else `life_max` of that day.
    pub life_ms: u64,
    /// Tried once, and ended then (TS 23.040 §9.2.3.12.3).
    pub single_shot: bool,
    pub protocol: u8,
    pub reply_path: bool,
    pub payload: Payload,
    pub report_wanted: bool,
    /// TP-MR of its SUBMIT, and what was dialled.
    pub reference: u8,
    pub dialled: String,
    /// Delivered only at this location area or base station; it ends where the phone is elsewhere.
    pub only_at: Option<String>,
    /// How far a text to several has got: so many of them have it in their queues.
    pub progress: u32,
    pub attempts: u32,
    /// The phone may have it already: an answer was lost.
    pub possible_duplicate: bool,
    pub cause: Cause,
    pub life: Vec<Step>,
}

impl Ended {
    /// Nothing of what was written is kept any more.
    pub fn forget_words(&mut self) {
        self.has_words = false;
        match &mut self.text.payload {
            Payload::Text(data) => (data.length, data.bytes) = (0, Vec::new()),
            Payload::Report(_) => {}
            Payload::Mail(outgoing) => {
                outgoing.mail.subject = String::new();
                outgoing.mail.body = Body::Text(String::new());
            }
        }
    }
}

impl Text {
    /// One that nobody has tried to deliver; its number and times are given when it is stored.
    pub fn new(recipient: Recipient, sender: Sender, shown: String, payload: Payload) -> Text {
        Text {
            number: 0,
            recipient,
            sender,
            came_from: None,
            shown,
            timestamp_s: 0,
            accepted_ms: 0,
            life_ms: 0,
            single_shot: false,
            protocol: 0,
            reply_path: false,
            payload,
            report_wanted: false,
            reference: 0,
            dialled: String::new(),
            only_at: None,
            progress: 0,
            attempts: 0,
            possible_duplicate: false,
            cause: Cause::New,
            life: Vec::new(),
        }
    }

    pub fn data(&self) -> Option<&UserData> {
        match &self.payload {
            Payload::Text(data) => Some(data),
            Payload::Report(_) | Payload::Mail(_) => None,
        }
    }

    pub fn mail(&self) -> Option<&Outgoing> {
        match &self.payload {
            Payload::Mail(outgoing) => Some(outgoing),
            Payload::Text(_) | Payload::Report(_) => None,
        }
    }

    /// It is a mail that tells what became of another one.
    pub fn tells(&self) -> bool {
        self.mail().is_some_and(|outgoing| matches!(outgoing.mail.body, Body::Report(_)))
    }

    pub fn kind(&self) -> &'static str {
        match &self.payload {
            Payload::Text(_) => "text",
            Payload::Report(_) => "report",
            Payload::Mail(_) => "mail",
        }
    }

    /// One more step of its life; of a long one the middle is forgotten.
    pub fn happened(&mut self, at_ms: u64, what: Happened) {
        self.life.push(Step { at_ms, what });
        if self.life.len() > STEPS_MAX {
            let forgotten = match self.life[STEPS_FIRST].what {
                Happened::Forgotten(count) => count.saturating_add(1),
                _ => 2,
            };
            self.life[STEPS_FIRST].what = Happened::Forgotten(forgotten);
            self.life.remove(STEPS_FIRST + 1);
        }
    }
}

/// A mail that became texts, or passes through us: whoever sent it is told what becomes of it (RFC 3461).
///
/// Shape:  one for each recipient of the mail.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Letter {
    /// MAIL FROM: there is none for which nobody is told.
    pub from: Address,
    /// RCPT TO as it was written, with its ORCPT and NOTIFY; ENVID of the mail.
    pub to: Address,
    pub orcpt: Option<String>,
    pub notify: Notify,
    pub envid: Option<String>,
    pub message_id: Option<String>,
    /// Milliseconds since 1970.
    pub accepted_ms: u64,
    /// The header of the mail, cut.
    pub headers: String,
    /// Parts that have not come to their end.
    pub left: u32,
    /// Of the first part that did not arrive: its status, and why.
    pub failed: Option<((u8, u16, u16), String)>,
}

/// A mail of a phone's, which somebody has taken who tells later what becomes of it: until then the reports of its parts wait.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Awaited {
    pub sender: Imsi,
    pub message_id: String,
    pub to: Address,
    pub reports: Vec<ReportWish>,
    /// Since then.
    pub since_ms: u64,
    /// Nobody waits longer, milliseconds since 1970: then all that is known is that it was handed over.
    pub until_ms: u64,
}

/// Where the text of a number is.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Fate {
    Waits(Recipient),
    Ended(Box<Ended>),
}

/// A text after its end.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Ended {
    /// Its words are there only where they are archived.
    pub text: Text,
    pub has_words: bool,
    /// Milliseconds since 1970.
    pub at_ms: u64,
    pub outcome: TextOutcome,
    /// The last answer's code, and the cause of an RP-ERROR; 0: none.
    pub code: u16,
    pub cause: u8,
    /// What a report says of it.
    pub status: Status,
    /// Who took it, where somebody did.
    pub taken_by: Option<SocketAddr>,
    pub why: String,
}

/// What a copy of a request, or of a SUBMIT, is answered.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Seen {
    /// Milliseconds since 1970.
    pub at_ms: u64,
    pub code: u16,
    /// The text that it became: the sender's, or the one that told him why not.
    pub number: u64,
}

pub fn text_key(recipient: Recipient, number: u64) -> Vec<u8> {
    let mut key = queue_prefix(recipient);
    key.extend_from_slice(&number.to_be_bytes());
    key
}

/// All texts of one queue begin with this.
pub fn queue_prefix(recipient: Recipient) -> Vec<u8> {
    let mut key = TEXT_PREFIX.to_vec();
    match recipient {
        // Digits first, as the release before wrote it.
        Recipient::Phone(imsi) => key.extend_from_slice(imsi.as_str().as_bytes()),
        Recipient::Code(code, sender) => key.extend_from_slice(format!("c{code},{sender}").as_bytes()),
        Recipient::Trunk(number) => key.extend_from_slice(format!("n{number}").as_bytes()),
        Recipient::Mail(mail) => key.extend_from_slice(format!("m{mail:?}").as_bytes()),
        Recipient::Copy(imsi) => key.extend_from_slice(format!("k{imsi}").as_bytes()),
    }
    key.push(b'/');
    key
}

/// Queue and number of a text by its key alone.
pub fn read_text_key(key: &[u8]) -> Option<(Recipient, u64)> {
    let (rest, number) = key.strip_prefix(TEXT_PREFIX)?.split_last_chunk::<8>()?;
    let whose = std::str::from_utf8(rest.strip_suffix(b"/")?).ok()?;
    let recipient = if let Some(rest) = whose.strip_prefix('c') {
        let (code, sender) = rest.split_once(',')?;
        Recipient::Code(Msisdn::parse(code).ok()?, Imsi::parse(sender).ok()?)
    } else if let Some(number) = whose.strip_prefix('n') {
        Recipient::Trunk(Msisdn::parse(number).ok()?)
    } else if let Some(mail) = whose.strip_prefix('m') {
        let key = u128::from_str_radix(mail, 16).ok().filter(|_| mail.len() == 32)?;
        Recipient::Mail(MailKey(key.to_be_bytes()))
    } else if let Some(imsi) = whose.strip_prefix('k') {
        Recipient::Copy(Imsi::parse(imsi).ok()?)
    } else {
        Recipient::Phone(Imsi::parse(whose).ok()?)
    };
    Some((recipient, u64::from_be_bytes(*number)))
}

pub fn fate_key(number: u64) -> Vec<u8> {
    [FATE_PREFIX, &number.to_be_bytes()].concat()
}

pub fn read_fate_key(key: &[u8]) -> Option<u64> {
    Some(u64::from_be_bytes(key.strip_prefix(FATE_PREFIX)?.try_into().ok()?))
}

pub fn reference_key(sender: Imsi, reference: u8) -> Vec<u8> {
    [b"r", sender.as_str().as_bytes(), &[b'/', reference]].concat()
}

pub fn seen_key(digest: &[u8; 16]) -> Vec<u8> {
    [b"d".as_slice(), digest].concat()
}

pub fn last_key(recipient: Imsi) -> Vec<u8> {
    [b"l", recipient.as_str().as_bytes()].concat()
}

/// How much mail of one sender, or for one phone, has come of late: a [`Seen`] with the count for its number.
pub fn count_key(of: u8, whose: &[u8]) -> Vec<u8> {
    [b"u".as_slice(), &[of], whose].concat()
}

/// JSON behind a byte for the version.
pub fn encode_json<T: Serialize>(value: &T) -> Vec<u8> {
    let mut bytes = vec![VERSION];
    bytes.extend(serde_json::to_vec(value).unwrap_or_default());
    bytes
}

pub fn decode_json<T: for<'de> Deserialize<'de>>(bytes: &[u8]) -> Option<T> {
    match bytes.split_first()? {
        (&VERSION, json) => serde_json::from_slice(json).ok(),
        _ => None,
    }
}

pub fn letter_key(number: u64) -> Vec<u8> {
    [b"e".as_slice(), &number.to_be_bytes()].concat()
}

pub fn encode_letter(letter: &Letter) -> Vec<u8> {
    encode_json(letter)
}

pub fn decode_letter(bytes: &[u8]) -> Option<Letter> {
    decode_json(bytes)
}

pub fn awaited_key(number: u64) -> Vec<u8> {
    [b"w".as_slice(), &number.to_be_bytes()].concat()
}

pub fn encode_awaited(awaited: &Awaited) -> Vec<u8> {
    encode_json(awaited)
}

pub fn decode_awaited(bytes: &[u8]) -> Option<Awaited> {
    decode_json(bytes)
}

/// How far the text of this number has got, which goes to several.
pub fn reached_key(number: u64) -> Vec<u8> {
    [b"g".as_slice(), &number.to_be_bytes()].concat()
}

/// The last one whom it has reached.
pub fn encode_reached(imsi: Imsi) -> Vec<u8> {
    [[VERSION].as_slice(), imsi.as_str().as_bytes()].concat()
}

pub fn decode_reached(bytes: &[u8]) -> Option<Imsi> {
    let digits = bytes.strip_prefix(&[VERSION])?;
    Imsi::parse(std::str::from_utf8(digits).ok()?).ok()
}

/// Whose keys are listed there.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum OldOf {
    /// Of an acceptance: digests, and the last timestamp.
    Acceptance = 0,
    /// Of a life that has ended.
    Life = 1,
    /// Of one whose words are to go before what is known of it: its fate, which stays without them.
    Words = 2,
    /// Of somebody who exchanges mail with a phone.
    Contact = 3,
    /// Of a mail that has come: what makes a copy of it known, and how many came that day.
    Mail = 4,
    /// Not to go, but to be looked at then: an [`Awaited`] of which nobody has told anything, a [`Letter`] whose writer wants to hear that
    /// it still waits.
    News = 5,
}

pub fn old_key(at_ms: u64, number: u64, of: OldOf) -> Vec<u8> {
    [OLD_PREFIX, &at_ms.to_be_bytes(), &number.to_be_bytes(), &[of as u8]].concat()
}

/// The same list at another time.
pub fn old_key_at(old_key: &[u8], at_ms: u64) -> Vec<u8> {
    [OLD_PREFIX, &at_ms.to_be_bytes(), old_key.get(OLD_PREFIX.len() + 8..).unwrap_or_default()].concat()
}

/// When the keys that it lists are too old, and of which text they are.
pub fn read_old_key(key: &[u8]) -> Option<(u64, u64)> {
    let (at_ms, rest) = key.strip_prefix(OLD_PREFIX)?.split_first_chunk::<8>()?;
    let (number, _) = rest.split_first_chunk::<8>()?;
    Some((u64::from_be_bytes(*at_ms), u64::from_be_bytes(*number)))
}

/// Only the words are too old.
pub fn is_of_words(old_key: &[u8]) -> bool {
    old_key.last() == Some(&(OldOf::Words as u8))
}

/// They are of somebody who exchanges mail with a phone.
pub fn is_of_contact(old_key: &[u8]) -> bool {
    old_key.last() == Some(&(OldOf::Contact as u8))
}

/// They are of a mail that has come.
pub fn is_of_mail(old_key: &[u8]) -> bool {
    old_key.last() == Some(&(OldOf::Mail as u8))
}

/// Somebody is to be told something then.
pub fn is_of_news(old_key: &[u8]) -> bool {
    old_key.last() == Some(&(OldOf::News as u8))
}

pub fn encode_number(number: u64) -> Vec<u8> {
    [[VERSION].as_slice(), &number.to_be_bytes()].concat()
}

pub fn decode_number(bytes: &[u8]) -> Option<u64> {
    let mut input = Reader(bytes);
    let [VERSION] = input.array()? else { return None };
    Some(u64::from_be_bytes(input.array()?))
}

pub fn encode(text: &Text) -> Vec<u8> {
    let mut out = vec![VERSION];
    write_text(&mut out, text);
    out
}

fn write_text(out: &mut Vec<u8>, text: &Text) {
    out.push(text.flags());
    out.extend_from_slice(&text.attempts.to_be_bytes());
    write_cause(out, text.cause);
    for number in [text.accepted_ms, text.life_ms, text.timestamp_s] {
        out.extend_from_slice(&number.to_be_bytes());
    }
    out.extend_from_slice(&text.progress.to_be_bytes());
    let (kind, sender) = match &text.sender {
        Sender::Centre => (0, ""),
        Sender::Phone(imsi) => (1, imsi.as_str()),
        Sender::Trunk(name) => (2, name.as_str()),
        Sender::Mail(from) => (3, from.from.as_str()),
    };
    out.push(kind);
    put(out, sender.as_bytes());
    if let Sender::Mail(from) = &text.sender {
        out.extend_from_slice(&from.letter.to_be_bytes());
    }
    write_address(out, text.came_from);
    put(out, text.shown.as_bytes());
    put(out, text.dialled.as_bytes());
    put(out, text.only_at.as_deref().unwrap_or_default().as_bytes());
    out.extend_from_slice(&[text.reference, text.protocol]);
    match &text.payload {
        Payload::Text(data) => {
            out.extend_from_slice(&[0, data.coding.0, data.length]);
            put(out, &data.bytes);
        }
        Payload::Report(report) => {
            out.extend_from_slice(&[1, report.reference, u8::from(report.by_command), report.status.0]);
            out.extend_from_slice(&report.accepted_s.to_be_bytes());
            out.extend_from_slice(&report.ended_s.to_be_bytes());
            put(out, report.dialled.as_bytes());
        }
        Payload::Mail(outgoing) => {
            out.push(2);
            put_long(out, &serde_json::to_vec(outgoing).unwrap_or_default());
        }
    }
    out.push(text.life.len().min(usize::from(u8::MAX)) as u8);
    for step in text.life.iter().take(usize::from(u8::MAX)) {
        out.extend_from_slice(&step.at_ms.to_be_bytes());
        match &step.what {
            Happened::Failed(cause, to) => {
                out.push(0);
                write_cause(out, *cause);
                write_address(out, *to);
            }
            Happened::Returned => out.push(1),
            Happened::Retried => out.push(2),
            Happened::MailFailed { code, why } => {
                out.push(4);
                out.extend_from_slice(&code.to_be_bytes());
                put(out, why.as_bytes());
            }
            Happened::Forgotten(count) => {
                out.push(3);
                out.extend_from_slice(&count.to_be_bytes());
            }
        }
    }
}

fn write_cause(out: &mut Vec<u8>, cause: Cause) {
    let (kind, code, cause) = match cause {
        Cause::New => (0, 0, 0),
        Cause::Absent => (1, 0, 0),
        Cause::Refused { code, cause } => (2, code, cause),
        Cause::MemoryFull => (3, 0, 0),
    };
    let [high, low] = code.to_be_bytes();
    out.extend_from_slice(&[kind, high, low, cause]);
}

fn write_address(out: &mut Vec<u8>, address: Option<SocketAddr>) {
    match address {
        None => out.push(0),
        Some(address) => {
            match address.ip() {
                IpAddr::V4(ip) => {
                    out.push(4);
                    out.extend_from_slice(&ip.octets());
                }
                IpAddr::V6(ip) => {
                    out.push(6);
                    out.extend_from_slice(&ip.octets());
                }
            }
            out.extend_from_slice(&address.port().to_be_bytes());
        }
    }
}

/// Reads what [`encode`] wrote under the key of this queue and number; never panics, whatever the bytes.
pub fn decode(recipient: Recipient, number: u64, bytes: &[u8]) -> Result<Text, StoreError> {
    let wrong = || StoreError::Broken(format!("text {number} cannot be read by this release"));
    let mut input = Reader(bytes);
    let text = match input.array() {
        Some([VERSION]) => input.whole_text(recipient, number),
        Some([VERSION_BEFORE]) => input.text_of_before(recipient, number),
        _ => None,
    };
    text.filter(|_| input.0.is_empty()).ok_or_else(wrong)
}

/// What a start needs of each text that waits, read without the rest of it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Glance {
    pub cause: Cause,
    pub accepted_ms: u64,
    pub life_ms: u64,
    /// The release before this one has written it, which kept no fates.
    pub is_old: bool,
}

/// `None`: it is damaged near its beginning, or of another release.
pub fn glance(recipient: Recipient, number: u64, bytes: &[u8]) -> Option<Glance> {
    if bytes.first() == Some(&VERSION_BEFORE) {
        let Text { cause, accepted_ms, life_ms, .. } = decode(recipient, number, bytes).ok()?;
        return Some(Glance { cause, accepted_ms, life_ms, is_old: true });
    }
    let mut input = Reader(bytes.strip_prefix(&[VERSION])?);
    // Flags and attempts.
    input.take(5)?;
    let cause = input.cause()?;
    let [accepted_ms, life_ms] = [input.array()?, input.array()?].map(u64::from_be_bytes);
    Some(Glance { cause, accepted_ms, life_ms, is_old: false })
}

pub fn encode_fate(fate: &Fate) -> Vec<u8> {
    let mut out = vec![VERSION];
    match fate {
        Fate::Waits(recipient) => {
            out.push(0);
            put(&mut out, &queue_prefix(*recipient));
        }
        Fate::Ended(ended) => {
            out.extend_from_slice(&[1, u8::from(ended.has_words), ended.outcome as u8, ended.status.0, ended.cause]);
            out.extend_from_slice(&ended.code.to_be_bytes());
            out.extend_from_slice(&ended.at_ms.to_be_bytes());
            write_address(&mut out, ended.taken_by);
            put(&mut out, ended.why.as_bytes());
            put(&mut out, &queue_prefix(ended.text.recipient));
            write_text(&mut out, &ended.text);
        }
    }
    out
}

pub fn decode_fate(number: u64, bytes: &[u8]) -> Option<Fate> {
    let mut input = Reader(bytes);
    let fate = match input.array()? {
        [VERSION, 0] => Fate::Waits(input.recipient()?),
        [VERSION, 1] => {
            let [has_words, outcome, status, cause] = input.array()?;
            let code = u16::from_be_bytes(input.array()?);
            let at_ms = u64::from_be_bytes(input.array()?);
            let taken_by = input.address()?;
            let why = input.text()?;
            let recipient = input.recipient()?;
            let text = input.whole_text(recipient, number)?;
            let outcome = *OUTCOMES.get(usize::from(outcome))?;
            let (has_words, status) = (has_words != 0, Status(status));
            Fate::Ended(Box::new(Ended { text, has_words, at_ms, outcome, code, cause, status, taken_by, why }))
        }
        _ => return None,
    };
    input.0.is_empty().then_some(fate)
}

/// In the order of their numbers on the disk, which is that of their declaration.
const OUTCOMES: [TextOutcome; 8] = [
    TextOutcome::Delivered,
    TextOutcome::Answered,
    TextOutcome::Refused,
    TextOutcome::Failed,
    TextOutcome::Expired,
    TextOutcome::Dropped,
    TextOutcome::Deleted,
    TextOutcome::Replaced,
];

pub fn encode_seen(seen: &Seen) -> Vec<u8> {
    let mut out = vec![VERSION];
    out.extend_from_slice(&seen.at_ms.to_be_bytes());
    out.extend_from_slice(&seen.code.to_be_bytes());
    out.extend_from_slice(&seen.number.to_be_bytes());
    out
}

pub fn decode_seen(bytes: &[u8]) -> Option<Seen> {
    let mut input = Reader(bytes);
    let [VERSION | VERSION_BEFORE] = input.array()? else { return None };
    Some(Seen {
        at_ms: u64::from_be_bytes(input.array()?),
        code: u16::from_be_bytes(input.array()?),
        number: u64::from_be_bytes(input.array()?),
    })
}

/// When, in milliseconds, a phone was given which timestamp, in seconds.
pub fn encode_last(at_ms: u64, timestamp_s: u64) -> Vec<u8> {
    [[VERSION].as_slice(), &at_ms.to_be_bytes(), &timestamp_s.to_be_bytes()].concat()
}

pub fn decode_last(bytes: &[u8]) -> Option<(u64, u64)> {
    let mut input = Reader(bytes);
    let [VERSION | VERSION_BEFORE] = input.array()? else { return None };
    Some((u64::from_be_bytes(input.array()?), u64::from_be_bytes(input.array()?)))
}

pub fn encode_old(keys: &[Vec<u8>]) -> Vec<u8> {
    let mut out = vec![VERSION];
    keys.iter().for_each(|key| put(&mut out, key));
    out
}

pub fn decode_old(bytes: &[u8]) -> Vec<Vec<u8>> {
    let mut input = Reader(bytes);
    let mut keys = Vec::new();
    if let Some([VERSION | VERSION_BEFORE]) = input.array() {
        while let Some(key) = input.counted() {
            keys.push(key.to_vec());
        }
    }
    keys
}

const HEADER: u8 = 1;
const REPLY_PATH: u8 = 2;
const REPORT: u8 = 4;
const POSSIBLE_DUPLICATE: u8 = 8;
const SINGLE_SHOT: u8 = 16;

impl Text {
    fn flags(&self) -> u8 {
        let flag = |set: bool, bit: u8| if set { bit } else { 0 };
        flag(self.data().is_some_and(|data| data.has_header), HEADER)
            | flag(self.reply_path, REPLY_PATH)
            | flag(self.report_wanted, REPORT)
            | flag(self.possible_duplicate, POSSIBLE_DUPLICATE)
            | flag(self.single_shot, SINGLE_SHOT)
    }
}

/// Nothing that is kept is longer than one TPDU, one number or one name.
fn put(out: &mut Vec<u8>, bytes: &[u8]) {
    let bytes = &bytes[..bytes.len().min(usize::from(u8::MAX))];
    out.push(bytes.len() as u8);
    out.extend_from_slice(bytes);
}

/// A mail, a list.
fn put_long(out: &mut Vec<u8>, bytes: &[u8]) {
    out.extend_from_slice(&u32::try_from(bytes.len()).unwrap_or(u32::MAX).to_be_bytes());
    out.extend_from_slice(bytes);
}

struct Reader<'a>(&'a [u8]);

impl<'a> Reader<'a> {
    fn take(&mut self, count: usize) -> Option<&'a [u8]> {
        let (head, rest) = self.0.split_at_checked(count)?;
        self.0 = rest;
        Some(head)
    }

    fn array<const N: usize>(&mut self) -> Option<[u8; N]> {
        self.take(N)?.try_into().ok()
    }

    fn counted(&mut self) -> Option<&'a [u8]> {
        let [count] = self.array()?;
        self.take(usize::from(count))
    }

    fn counted_long(&mut self) -> Option<&'a [u8]> {
        let count = u32::from_be_bytes(self.array()?);
        self.take(usize::try_from(count).ok()?)
    }

    /// Names are cut by bytes where they are too long, so a broken end is possible and no reason to lose a text.
    fn text(&mut self) -> Option<String> {
        Some(String::from_utf8_lossy(self.counted()?).into_owned())
    }

    fn cause(&mut self) -> Option<Cause> {
        match self.array::<4>()? {
            [0, ..] => Some(Cause::New),
            [1, ..] => Some(Cause::Absent),
            [2, high, low, cause] => Some(Cause::Refused { code: u16::from_be_bytes([high, low]), cause }),
            [3, ..] => Some(Cause::MemoryFull),
            _ => None,
        }
    }

    #[allow(clippy::option_option, reason = "the outer one: it cannot be read")]
    fn address(&mut self) -> Option<Option<SocketAddr>> {
        let ip = match self.array()? {
            [0] => return Some(None),
            [4] => IpAddr::from(self.array::<4>()?),
            [6] => IpAddr::from(self.array::<16>()?),
            _ => return None,
        };
        Some(Some(SocketAddr::new(ip, u16::from_be_bytes(self.array()?))))
    }

    fn recipient(&mut self) -> Option<Recipient> {
        let key = [self.counted()?, &[0; 8]].concat();
        read_text_key(&key).map(|(recipient, _)| recipient)
    }

    fn whole_text(&mut self, recipient: Recipient, number: u64) -> Option<Text> {
        let [flags] = self.array()?;
        let attempts = u32::from_be_bytes(self.array()?);
        let cause = self.cause()?;
        let [accepted_ms, life_ms, timestamp_s] = [self.array()?, self.array()?, self.array()?].map(u64::from_be_bytes);
        let progress = u32::from_be_bytes(self.array()?);
        let [kind] = self.array()?;
        let name = self.text()?;
        let sender = match kind {
            0 => Sender::Centre,
            1 => Sender::Phone(Imsi::parse(&name).ok()?),
            2 => Sender::Trunk(name),
            3 => Sender::Mail(Box::new(FromMail { from: name, letter: u64::from_be_bytes(self.array()?) })),
            _ => return None,
        };
        let came_from = self.address()?;
        let (shown, dialled, only_at) = (self.text()?, self.text()?, self.text()?);
        let [reference, protocol] = self.array()?;
        let payload = match self.array()? {
            [0] => {
                let [coding, length] = self.array()?;
                let has_header = flags & HEADER != 0;
                Payload::Text(UserData { coding: Coding(coding), has_header, length, bytes: self.counted()?.to_vec() })
            }
            [1] => {
                let [reference, by_command, status] = self.array()?;
                let (accepted_s, ended_s) = (u64::from_be_bytes(self.array()?), u64::from_be_bytes(self.array()?));
                let (by_command, status, dialled) = (by_command != 0, Status(status), self.text()?);
                Payload::Report(ReportOf { reference, by_command, dialled, accepted_s, ended_s, status })
            }
            [2] => Payload::Mail(Box::new(serde_json::from_slice(self.counted_long()?).ok()?)),
            _ => return None,
        };
        let [steps] = self.array()?;
        let life = (0..steps).map(|_| self.step()).collect::<Option<Vec<Step>>>()?;
        Some(Text {
            number,
            recipient,
            sender,
            came_from,
            shown,
            timestamp_s,
            accepted_ms,
            life_ms,
            single_shot: flags & SINGLE_SHOT != 0,
            protocol,
            reply_path: flags & REPLY_PATH != 0,
            payload,
            report_wanted: flags & REPORT != 0,
            reference,
            dialled,
            only_at: (!only_at.is_empty()).then_some(only_at),
            progress,
            attempts,
            possible_duplicate: flags & POSSIBLE_DUPLICATE != 0,
            cause,
            life,
        })
    }

    fn step(&mut self) -> Option<Step> {
        let at_ms = u64::from_be_bytes(self.array()?);
        let what = match self.array()? {
            [0] => Happened::Failed(self.cause()?, self.address()?),
            [1] => Happened::Returned,
            [2] => Happened::Retried,
            [3] => Happened::Forgotten(u32::from_be_bytes(self.array()?)),
            [4] => Happened::MailFailed { code: u16::from_be_bytes(self.array()?), why: self.text()? },
            _ => return None,
        };
        Some(Step { at_ms, what })
    }

    fn text_of_before(&mut self, recipient: Recipient, number: u64) -> Option<Text> {
        let [flags] = self.array()?;
        let attempts = u32::from_be_bytes(self.array()?);
        let cause = match self.array::<3>()? {
            [0, ..] => Cause::New,
            [1, ..] => Cause::Absent,
            [2, high, low] => Cause::Refused { code: u16::from_be_bytes([high, low]), cause: 0 },
            _ => return None,
        };
        let (accepted_ms, timestamp_s) = (u64::from_be_bytes(self.array()?), u64::from_be_bytes(self.array()?));
        let sender = match self.text()?.as_str() {
            "" => Sender::Centre,
            digits => Sender::Phone(Imsi::parse(digits).ok()?),
        };
        let (shown, dialled) = (self.text()?, self.text()?);
        let [reference, protocol, coding, length] = self.array()?;
        let has_header = flags & HEADER != 0;
        let data = UserData { coding: Coding(coding), has_header, length, bytes: self.counted()?.to_vec() };
        let validity = match self.array::<1>()? {
            [0] => None,
            [1] => Some(Validity::Relative(self.array::<1>()?[0])),
            [2] => Some(Validity::Absolute(Scts::from_octets(self.array()?))),
            [3] => Some(Validity::Enhanced(self.array()?)),
            _ => return None,
        };
        let accepted_s = accepted_ms / 1000;
        let ends_s = validity.and_then(|validity| validity.ends_at_s(accepted_s));
        Some(Text {
            number,
            timestamp_s,
            accepted_ms,
            life_ms: ends_s.map_or(u64::MAX, |ends_s| ends_s.saturating_sub(accepted_s).saturating_mul(1000)),
            single_shot: validity.is_some_and(|validity| validity.is_single_shot()),
            protocol,
            reply_path: flags & REPLY_PATH != 0,
            report_wanted: flags & REPORT != 0,
            reference,
            dialled,
            attempts,
            possible_duplicate: flags & POSSIBLE_DUPLICATE != 0,
            cause,
            ..Text::new(recipient, sender, shown, Payload::Text(data))
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn imsi(text: &str) -> Imsi {
        Imsi::parse(text).unwrap()
    }

    fn number(text: &str) -> Msisdn {
        Msisdn::parse(text).unwrap()
    }

    fn phone() -> Recipient {
        Recipient::Phone(imsi("001010000000002"))
    }

    fn data() -> UserData {
        UserData { coding: Coding(4), has_header: true, length: 3, bytes: vec![2, 0, 0] }
    }

    fn a_text(recipient: Recipient) -> Text {
        let to = "192.0.2.11:5062".parse().ok();
        let steps = [
            Happened::Failed(Cause::Absent, to),
            Happened::Failed(Cause::Refused { code: 400, cause: 22 }, None),
            Happened::Failed(Cause::MemoryFull, "[2001:db8::1]:5060".parse().ok()),
            Happened::Returned,
            Happened::Retried,
            Happened::Forgotten(7),
        ];
        Text {
            number: 7,
            came_from: to,
            timestamp_s: 1_795_265_024,
            accepted_ms: 1_795_265_024_340,
            life_ms: 604_800_000,
            single_shot: true,
            protocol: 0x41,
            reply_path: true,
            report_wanted: true,
            reference: 42,
            dialled: "2002".into(),
            only_at: Some("valley".into()),
            progress: 12,
            attempts: 3,
            possible_duplicate: true,
            cause: Cause::Refused { code: 400, cause: 111 },
            life: steps.into_iter().zip(5..).map(|(what, at_ms)| Step { at_ms, what }).collect(),
            ..Text::new(recipient, Sender::Phone(imsi("00101000000001")), "+15550001".into(), Payload::Text(data()))
        }
    }

    fn recipients() -> [Recipient; 4] {
        let code = Recipient::Code(number("411"), imsi("001010000000002"));
        [phone(), code, Recipient::Trunk(number("+15550001")), Recipient::Trunk(number("15550001"))]
    }

    fn report() -> Payload {
        let (dialled, status) = ("+2002".into(), Status::RECEIVED);
        Payload::Report(ReportOf { reference: 9, by_command: true, dialled, accepted_s: 5, ended_s: 6, status })
    }

    #[test]
    fn a_text_and_its_fate_read_back_and_a_cut_one_does_not() {
        for recipient in recipients() {
            let whole = a_text(recipient);
            let bare =
                Text { sender: Sender::Centre, only_at: None, life: Vec::new(), cause: Cause::New, ..whole.clone() };
            let trunk =
                Text { sender: Sender::Trunk("pbx".into()), payload: report(), came_from: None, ..whole.clone() };
            for text in [whole, bare, trunk] {
                let bytes = encode(&text);
                assert_eq!(decode(recipient, text.number, &bytes), Ok(text.clone()));
                let (cause, accepted_ms, life_ms) = (text.cause, text.accepted_ms, text.life_ms);
                let seen = Some(Glance { cause, accepted_ms, life_ms, is_old: false });
                assert_eq!(glance(recipient, text.number, &bytes), seen);
                (0..26).for_each(|len| assert_eq!(glance(recipient, text.number, &bytes[..len]), None));
                (0..bytes.len()).for_each(|len| assert!(decode(recipient, text.number, &bytes[..len]).is_err()));
                for outcome in OUTCOMES {
                    let why = "it is old".into();
                    let ended = Ended {
                        text: text.clone(),
                        has_words: true,
                        at_ms: 9,
                        outcome,
                        code: 480,
                        cause: 27,
                        status: Status::VALIDITY_EXPIRED,
                        taken_by: text.came_from,
                        why,
                    };
                    let fate = Fate::Ended(Box::new(ended));
                    let bytes = encode_fate(&fate);
                    assert_eq!(decode_fate(text.number, &bytes), Some(fate));
                    (0..bytes.len()).for_each(|len| assert_eq!(decode_fate(text.number, &bytes[..len]), None));
                }
            }
            let fate = Fate::Waits(recipient);
            assert_eq!(decode_fate(1, &encode_fate(&fate)), Some(fate));
        }
    }

    /// Written by the release before this one.
    #[test]
    fn a_text_of_the_release_before_is_read() {
        let mut bytes = vec![1, HEADER | REPORT, 0, 0, 0, 3, 2, 1, 0x90];
        bytes.extend_from_slice(&1_795_265_024_340u64.to_be_bytes());
        bytes.extend_from_slice(&1_795_265_024u64.to_be_bytes());
        for part in ["00101000000001", "+15550001", "2002"] {
            put(&mut bytes, part.as_bytes());
        }
        bytes.extend_from_slice(&[42, 0x41, 4, 3]);
        put(&mut bytes, &[2, 0, 0]);
        // A relative validity period of ten minutes (TS 23.040 §9.2.3.12.1: (1 + 1) times five minutes).
        bytes.extend_from_slice(&[1, 1]);
        let text = decode(phone(), 7, &bytes).unwrap();
        assert_eq!((text.life_ms, text.cause), (600_000, Cause::Refused { code: 400, cause: 0 }));
        let (cause, accepted_ms, life_ms) = (text.cause, text.accepted_ms, text.life_ms);
        assert_eq!(glance(phone(), 7, &bytes), Some(Glance { cause, accepted_ms, life_ms, is_old: true }));
        assert_eq!((text.data(), text.report_wanted, text.attempts), (Some(&data()), true, 3));
        assert_eq!((text.sender.phone(), text.dialled.as_str()), (Imsi::parse("00101000000001").ok(), "2002"));
        (0..bytes.len()).for_each(|len| assert!(decode(phone(), 7, &bytes[..len]).is_err()));
    }

    #[test]
    fn keys_stand_in_the_order_of_acceptance_and_read_back() {
        let (one, other) = (Recipient::Phone(imsi("00101000000001")), Recipient::Phone(imsi("001010000000012")));
        assert!(text_key(one, 255) < text_key(one, 256));
        assert!(!text_key(other, 1).starts_with(&queue_prefix(one)), "one IMSI may be the beginning of another");
        for recipient in recipients() {
            assert_eq!(read_text_key(&text_key(recipient, 256)), Some((recipient, 256)));
        }
        assert_eq!(read_text_key(b"t1/12345678"), None);
        let seen = Seen { at_ms: 5, code: 202, number: 9 };
        assert_eq!(decode_seen(&encode_seen(&seen)), Some(seen));
        assert_eq!(decode_last(&encode_last(3, 4)), Some((3, 4)));
        assert_eq!(decode_number(&encode_number(77)), Some(77));
        assert_eq!(decode_reached(&encode_reached(imsi("00101000000001"))), Some(imsi("00101000000001")));
        let keys = vec![seen_key(&[7; 16]), last_key(imsi("00101000000001")), fate_key(4)];
        assert_eq!(decode_old(&encode_old(&keys)), keys);
        assert_eq!(read_old_key(&old_key(77, 1, OldOf::Life)), Some((77, 1)));
        assert_ne!(old_key(77, 1, OldOf::Life), old_key(77, 1, OldOf::Acceptance));
    }

    #[test]
    fn of_a_long_life_the_beginning_and_the_end_are_kept() {
        let mut text = Text { life: Vec::new(), ..a_text(phone()) };
        (0..100).for_each(|at_ms| text.happened(at_ms, Happened::Returned));
        assert_eq!(text.life.len(), STEPS_MAX);
        let times: Vec<u64> = text.life.iter().map(|step| step.at_ms).collect();
        assert_eq!((&times[..4], times[STEPS_MAX - 1]), (&[0, 1, 2, 3][..], 99));
        assert_eq!(text.life[STEPS_FIRST].what, Happened::Forgotten(77));
        assert_eq!(text.life.len() - 1 + 77, 100);
    }
}
