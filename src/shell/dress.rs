//! What a mail of ours looks like on the wire.
//!
//! Knows: the form of header and body (RFC 5322, MIME, RFC 3464), which lettre writes where it can. Does not know: who gets it, and how.
//! Shape:  lines of ASCII, ended by CRLF, none longer than 998 octets; UTF-8 only in a header with an address that has it. Nothing that
//!         somebody wrote ends a line or a header of ours. The same mail is the same octets, however often it is tried.

use std::fmt::Write as _;
use std::time::{Duration, SystemTime};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use hickory_proto::rr::Name;
use lettre::message::Body as Encoded;
use lettre::message::header::{Date, Header as _, HeaderName, HeaderValue, Headers};
use sha2::{Digest as _, Sha256};

use crate::gsm::text::Class;
use crate::mail::address::Address;
use crate::mail::receive::relayed_header;
use crate::mail::{Action, AutoSubmitted, Body, MailOut, Relayed, Report};

/// Octets of UTF-8 in one encoded word, which has 75 characters at most with all that stands around them (RFC 2047 §2).
const ENCODED_WORD_BYTES: usize = 45;
/// Where a line of a header is folded, and what one field of a report may say.
const LINE_WIDTH: usize = 76;
const FIELD_CHARS_MAX: usize = 900;
/// RFC 5322 §2.1.1.
const LINE_MAX: usize = 998;
/// Ids in References; of more, the first and the last ones.
const REFERENCES_MAX: usize = 20;
/// The last second that a date can be written of: that of the year 9999.
const DATE_S_MAX: u64 = 253_402_300_799;

/// A mail, ready to be said.
pub struct Dressed {
    /// MAIL FROM and RCPT TO, without their brackets; the former is empty for `<>`.
    pub from: String,
    pub to: String,
    /// Dots are not doubled yet.
    pub octets: Vec<u8>,
    /// An address in it can be written in UTF-8 only.
    pub needs_utf8: bool,
}

pub fn dress(mail: &MailOut) -> Dressed {
    let (from, to) = (mail.from.as_ref().map(spelled).unwrap_or_default(), spelled(&mail.to));
    let header_from = spelled(&mail.header_from);
    let mut octets = String::new();
    // lettre keeps one header of each name, and these are several.
    for domain in &mail.traces {
        let _ = write!(octets, "X-Encamp-Trace: {}\r\n", one_line(domain, FIELD_CHARS_MAX));
    }
    let mut headers = Headers::new();
    let mut add = |name: &'static str, value: String| {
        let name = HeaderName::new_from_ascii_str(name);
        headers.insert_raw(HeaderValue::dangerous_new_pre_encoded(name, String::new(), value));
    };
    let name = phrase(&mail.header_from_name);
    add("From", if name.is_empty() { header_from.clone() } else { format!("{name}\r\n <{header_from}>") });
    add("To", to.clone());
    add("Date", date(mail.date_s));
    if let Some(id) = id(&mail.message_id) {
        add("Message-ID", id);
    }
    if let Some(id) = mail.in_reply_to.as_deref().and_then(id) {
        add("In-Reply-To", id);
    }
    let references: Vec<String> = mail.references.iter().filter_map(|text| id(text)).collect();
    if let Some((first, rest)) = references.split_first() {
        let rest = &rest[rest.len().saturating_sub(REFERENCES_MAX - 1)..];
        add("References", rest.iter().fold(first.clone(), |all, id| all + "\r\n " + id));
    }
    add("Subject", unstructured("Subject", &mail.subject));
    match mail.auto_submitted {
        AutoSubmitted::No => (),
        AutoSubmitted::Generated => add("Auto-Submitted", "auto-generated".into()),
        AutoSubmitted::Replied => add("Auto-Submitted", "auto-replied".into()),
    }
    if let Body::Sms { sms, .. } = &mail.body {
        add("X-Encamp-Originator", unstructured("X-Encamp-Originator", &sms.from));
        add("X-Encamp-Time", date(sms.accepted_ms / 1_000));
        add("X-Encamp-Class", class(sms).into());
        add("X-Encamp-Report", if mail.notify.success { "yes" } else { "no" }.into());
        // The first line begins behind the name of the header.
        add("X-Encamp-Sms", format!("\r\n {}", relayed_header(sms)));
    }
    add("MIME-Version", "1.0".into());
    let body = match &mail.body {
        Body::Text(words) | Body::Sms { words, .. } => {
            let body = Encoded::new(lines(words));
            add("Content-Type", "text/plain; charset=utf-8".into());
            headers.set(body.encoding());
            body.into_vec()
        }
        Body::Report(report) => {
            let boundary = boundary(&mail.message_id);
            let kind = format!("multipart/report; report-type=delivery-status;\r\n boundary=\"{boundary}\"");
            add("Content-Type", kind);
            report_parts(report, &boundary)
        }
    };
    let _ = write!(octets, "{headers}\r\n");
    let mut octets = octets.into_bytes();
    octets.extend_from_slice(&body);
    if !octets.ends_with(b"\r\n") {
        octets.extend_from_slice(b"\r\n");
    }
    let needs_utf8 = [&from, &to, &header_from].iter().any(|address| !address.is_ascii());
    Dressed { from, to, octets, needs_utf8 }
}

/// The address with its domain in ASCII, which needs nobody's leave.
fn spelled(address: &Address) -> String {
    if address.domain().is_ascii() {
        return address.as_str().to_owned();
    }
    format!("{}@{}", address.local(), ascii_domain(address.domain()))
}

/// A domain as DNS and TLS know it (RFC 5891); one that has no such form stays.
pub fn ascii_domain(domain: &str) -> String {
    match Name::from_utf8(domain) {
        Ok(name) => name.to_ascii().trim_end_matches('.').to_owned(),
        Err(_) => domain.to_owned(),
    }
}

fn date(seconds: u64) -> String {
    let time = SystemTime::UNIX_EPOCH + Duration::from_secs(seconds.min(DATE_S_MAX));
    let value = Date::new(time).display();
    // "Date: " before it and CRLF behind it, as lettre writes a header.
    let mut headers = Headers::new();
    headers.insert_raw(value);
    headers.to_string().trim_start_matches("Date:").trim().to_owned()
}

/// `<id>`; `None` where it is none that may stand in a header.
fn id(text: &str) -> Option<String> {
    let fits = |byte: u8| byte.is_ascii_graphic() && !b"<>".contains(&byte);
    (!text.is_empty() && text.len() <= FIELD_CHARS_MAX && text.bytes().all(fits)).then(|| format!("<{text}>"))
}

/// What a human wrote, in a header.
fn unstructured(name: &str, text: &str) -> String {
    let text = blanked(text);
    if is_plain(&text) { folded(name.len() + 1, &text) } else { encoded_words(&text) }
}

/// Shape:  lines of [`LINE_WIDTH`] at most where a blank lets it be folded, the first one with `width` before it; none is
///         blank.
fn folded(mut width: usize, text: &str) -> String {
    let mut value = String::with_capacity(text.len());
    for (at, word) in text.split(' ').enumerate() {
        if at > 0 {
            let folds = width + 1 + word.len() > LINE_WIDTH && !word.is_empty() && !value.trim().is_empty();
            value.push_str(if folds { "\r\n " } else { " " });
            width = if folds { 1 } else { width + 1 };
        }
        value.push_str(word);
        width += word.len();
    }
    value
}

/// A name before an address.
fn phrase(name: &str) -> String {
    let name = blanked(name);
    let name = name.trim();
    if name.is_empty() {
        return String::new();
    }
    if !is_plain(name) || name.len() > ENCODED_WORD_BYTES {
        return encoded_words(name);
    }
    if name.bytes().all(|byte| byte.is_ascii_alphanumeric() || b" !#$%&'*+-/=?^_`{|}~".contains(&byte)) {
        return name.to_owned();
    }
    format!("\"{}\"", name.replace('\\', "\\\\").replace('"', "\\\""))
}

/// Nothing in it has to be encoded: printable words with one blank between two, short enough for a line, and none that looks encoded.
fn is_plain(text: &str) -> bool {
    let fits = |word: &str| {
        !word.is_empty() && word.len() <= LINE_WIDTH / 2 && word.bytes().all(|byte| byte.is_ascii_graphic())
    };
    text.is_empty() || !text.contains("=?") && text.split(' ').all(fits)
}

/// RFC 2047 §4.1, a line each: between two of them the blanks are no part of the text (§6.2).
fn encoded_words(text: &str) -> String {
    let mut words: Vec<String> = Vec::new();
    let mut rest = text;
    while !rest.is_empty() {
        let mut end = rest.len().min(ENCODED_WORD_BYTES);
        while !rest.is_char_boundary(end) {
            end -= 1;
        }
        let (word, behind) = rest.split_at(end);
        words.push(format!("=?utf-8?B?{}?=", STANDARD.encode(word)));
        rest = behind;
    }
    words.join("\r\n ")
}

/// Control characters are blanks in a header.
fn blanked(text: &str) -> String {
    text.replace("\r\n", " ").chars().map(|char| if char.is_control() { ' ' } else { char }).collect()
}

/// A line of ASCII, and not too long.
fn one_line(text: &str, chars_max: usize) -> String {
    let fits = |char: char| if char == ' ' || char.is_ascii_graphic() { char } else { '?' };
    blanked(text).chars().take(chars_max).map(fits).collect()
}

/// Words as a mail carries them: lines end in `\n` here (CRLF on the wire) and the last one too; NUL is no character of a mail
/// (RFC 5322 §4.1 lets nobody send it).
pub fn lines(words: &str) -> String {
    let mut text = words.replace("\r\n", "\n").replace('\r', "\n").replace('\0', "\u{fffd}");
    if !text.ends_with('\n') {
        text.push('\n');
    }
    text
}

fn class(sms: &Relayed) -> &'static str {
    match sms.data.coding.class() {
        None => "none",
        Some(Class::Flash) => "0",
        Some(Class::Phone) => "1",
        Some(Class::Sim) => "2",
        Some(Class::Terminal) => "3",
    }
}

/// Between the parts of a report: `=_` stands in no line of base64 or quoted-printable (RFC 2045 §6.7), and nobody who writes to us knows
/// the Message-ID of the report that he will get.
fn boundary(message_id: &str) -> String {
    let digest = Sha256::digest(message_id);
    digest[..12].iter().fold("=_encamp_".to_owned(), |text, byte| text + &format!("{byte:02x}"))
}

/// What programs read goes as it is, ASCII in short lines: not all of them undo an encoding there.
fn report_parts(report: &Report, boundary: &str) -> Vec<u8> {
    let words = Encoded::new(lines(&report.words));
    let head = |kind: &str, encoding: &str| {
        format!("--{boundary}\r\nContent-Type: {kind}\r\nContent-Transfer-Encoding: {encoding}\r\n\r\n")
    };
    let mut octets = head("text/plain; charset=utf-8", &words.encoding().to_string()).into_bytes();
    octets.extend_from_slice(words.as_ref());
    for (kind, text) in
        [("message/delivery-status", status(report)), ("text/rfc822-headers", returned(&report.headers))]
    {
        octets.extend_from_slice(format!("\r\n{}{text}", head(kind, "7bit")).as_bytes());
    }
    octets.extend_from_slice(format!("\r\n--{boundary}--\r\n").as_bytes());
    octets
}

/// message/delivery-status (RFC 3464 §2): about the mail, an empty line, about its recipient.
fn status(report: &Report) -> String {
    let Report { reporting, envid, arrived_s, orcpt, recipient, action, status, why, .. } = report;
    let short = |text: &str| one_line(text, FIELD_CHARS_MAX);
    let mut text = field("Reporting-MTA", &format!("dns; {}", short(&ascii_domain(reporting))));
    if let Some(envid) = envid {
        text += &field("Original-Envelope-Id", &short(&of_xtext(envid)));
    }
    text += &field("Arrival-Date", &date(*arrived_s));
    text += "\r\n";
    if let Some((kind, address)) = orcpt.as_ref().and_then(|orcpt| orcpt.split_once(';')) {
        text += &field("Original-Recipient", &format!("{}; {}", short(kind), typed(&of_xtext(address))));
    }
    let kind = if recipient.is_ascii() { "rfc822" } else { "utf-8" };
    text += &field("Final-Recipient", &format!("{kind}; {}", typed(recipient)));
    let action = match action {
        Action::Failed => "failed",
        Action::Delayed => "delayed",
        Action::Delivered => "delivered",
        Action::Relayed => "relayed",
        Action::Expanded => "expanded",
    };
    text += &field("Action", action);
    let (class, subject, detail) = status;
    text += &field("Status", &format!("{class}.{subject}.{detail}"));
    if !why.is_empty() {
        text += &field("Diagnostic-Code", &format!("x-encamp; {}", short(why)));
    }
    text
}

/// One field of a report.
fn field(name: &str, value: &str) -> String {
    let words: Vec<&str> = value.split_ascii_whitespace().collect();
    format!("{name}: {}\r\n", folded(name.len() + 2, &words.join(" ")))
}

/// The header of somebody's mail, as it was but for what no mail may have.
fn returned(headers: &str) -> String {
    let fits = |char: char| if char == '\t' || char == ' ' || char.is_ascii_graphic() { char } else { '?' };
    lines(headers).lines().fold(String::with_capacity(headers.len()), |text, line| {
        let line: String = line.chars().take(LINE_MAX).map(fits).collect();
        text + &folded(0, &line) + "\r\n"
    })
}

/// An address in a report: what is not ASCII as `\x{…}` (utf-8-addr-xtext, RFC 6533 §3).
fn typed(address: &str) -> String {
    let mut text = String::new();
    for char in address.chars() {
        if text.len() >= FIELD_CHARS_MAX {
            break;
        }
        match char {
            _ if char.is_control() => text.push('?'),
            _ if char.is_ascii() => text.push(char),
            _ => {
                let _ = write!(text, "\\x{{{:X}}}", u32::from(char));
            }
        }
    }
    text
}

/// RFC 3461 §4: printable ASCII but `+` and `=` stands for itself, all else is `+` and two hex digits.
pub fn to_xtext(text: &str) -> String {
    text.bytes().fold(String::with_capacity(text.len()), |mut encoded, byte| {
        if byte.is_ascii_graphic() && !b"+=".contains(&byte) {
            encoded.push(char::from(byte));
        } else {
            let _ = write!(encoded, "+{byte:02X}");
        }
        encoded
    })
}

/// What is no xtext stays as it is.
fn of_xtext(text: &str) -> String {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let Some((&first, behind)) = rest.split_first() {
        let hex = behind.get(..2).filter(|_| first == b'+').and_then(|hex| std::str::from_utf8(hex).ok());
        match hex.and_then(|hex| u8::from_str_radix(hex, 16).ok()) {
            Some(byte) => {
                bytes.push(byte);
                rest = &behind[2..];
            }
            None => {
                bytes.push(first);
                rest = behind;
            }
        }
    }
    String::from_utf8_lossy(&bytes).into_owned()
}
