//! What became of a mail of ours, as a report says it, or a mail server in its own words.
//!
//! Knows: RFC 3464 and RFC 6533, and what servers write that know neither. Does not know: MIME, whose mail it was.

use super::header::{Fields, hex, ids, one_line};
use crate::mail::address::Address;
use crate::mail::{Action, Bounce, BounceOf};

const RECIPIENTS_MAX: usize = 100;
const WHY_BYTES_MAX: usize = 500;
/// Of what a server says in its own words so much is looked at, for addresses and reasons.
const WORDS_LINES_MAX: usize = 500;

/// message/delivery-status: groups of fields with empty lines between them, the first of the mail, each other of a recipient
/// (RFC 3464 §2.1). Which is which shows in its fields: some servers leave the first one out, some put two empty lines.
pub fn status(content: &[u8]) -> Bounce {
    let mut bounce = Bounce::default();
    let mut rest = content;
    while !rest.is_empty() && bounce.recipients.len() < RECIPIENTS_MAX {
        let mut group = Fields::of(rest);
        let mut of = Group::default();
        for field in group.by_ref() {
            let line = || field.line();
            if field.is("Original-Envelope-Id") {
                bounce.envid = Some(xtext(&line())).filter(|envid| !envid.is_empty());
            } else if field.is("Original-Recipient") {
                of.original = typed(&line());
            } else if field.is("Final-Recipient") {
                of.last = typed(&line());
            } else if field.is("Action") {
                of.action = action(&line());
            } else if field.is("Status") {
                of.status = status_in(&line());
            } else if field.is("Diagnostic-Code") {
                let line = line();
                let said = line.split_once(';').map_or(line.as_str(), |(_, said)| said);
                of.why = one_line(said, WHY_BYTES_MAX);
            }
        }
        let behind = group.rest();
        bounce.recipients.extend(of.read());
        // A line that is no field: the group goes on behind it.
        rest = if behind.len() < rest.len() {
            behind
        } else {
            memchr::memchr(b'\n', rest).map_or(&[][..], |end| &rest[end + 1..])
        };
    }
    bounce
}

#[derive(Default)]
struct Group {
    original: Option<String>,
    last: Option<String>,
    action: Option<Action>,
    status: Option<(u8, u16, u16)>,
    why: String,
}

impl Group {
    fn read(self) -> Option<BounceOf> {
        let recipient = self.original.or(self.last)?;
        let action = self.action.unwrap_or(match self.status {
            Some((2, ..)) => Action::Delivered,
            Some((4, ..)) => Action::Delayed,
            _ => Action::Failed,
        });
        Some(BounceOf { recipient, action, status: self.status, why: self.why })
    }
}

fn action(line: &str) -> Option<Action> {
    let word = line.split(|char: char| char.is_whitespace() || char == '(' || char == ';').next().unwrap_or_default();
    Some(match word.to_ascii_lowercase().as_str() {
        "failed" => Action::Failed,
        "delayed" => Action::Delayed,
        "delivered" => Action::Delivered,
        "relayed" => Action::Relayed,
        "expanded" => Action::Expanded,
        _ => return None,
    })
}

/// `rfc822; carol@example.org` or `utf-8; …` without its type.
fn typed(line: &str) -> Option<String> {
    let (kind, address) = line.split_once(';').unwrap_or(("rfc822", line));
    let address = address.trim();
    let address = address.strip_prefix('<').and_then(|inside| inside.strip_suffix('>')).unwrap_or(address);
    let address = if kind.trim().eq_ignore_ascii_case("utf-8") { utf_8(address) } else { address.to_owned() };
    // Servers that hand ORCPT on as it was (RFC 3461 §4.2) leave `+` and `=` in xtext. A number's own `+` never has a letter behind it.
    let address = address.replace("+2B", "+").replace("+3D", "=");
    let address = one_line(&address, 320);
    (!address.is_empty()).then_some(address)
}

/// `\x{20AC}` of a utf-8 address in ASCII (RFC 6533 §3).
fn utf_8(address: &str) -> String {
    let mut said = String::with_capacity(address.len());
    let mut rest = address;
    while let Some((before, behind)) = rest.split_once("\\x{") {
        said.push_str(before);
        let read = behind.split_once('}').and_then(|(digits, behind)| {
            Some((u32::from_str_radix(digits, 16).ok().and_then(char::from_u32)?, behind))
        });
        match read {
            Some((char, behind)) => {
                said.push(char);
                rest = behind;
            }
            None => {
                said.push_str("\\x{");
                rest = behind;
            }
        }
    }
    said.push_str(rest);
    said
}

/// RFC 3461 §4: `+2B` is a `+`; its digits are capital letters, so that a `+` before anything else is one.
fn xtext(line: &str) -> String {
    let mut octets = Vec::with_capacity(line.len());
    let mut rest = line.as_bytes();
    while let Some((first, behind)) = rest.split_first() {
        let is_digit = |octet: &u8| octet.is_ascii_digit() || (b'A'..=b'F').contains(octet);
        let coded =
            behind.first_chunk().filter(|_| *first == b'+').filter(|digits: &&[u8; 2]| digits.iter().all(is_digit));
        match coded.and_then(hex) {
            Some(octet) => {
                octets.push(octet);
                rest = &behind[2..];
            }
            None => {
                octets.push(*first);
                rest = behind;
            }
        }
    }
    one_line(&String::from_utf8_lossy(&octets), WHY_BYTES_MAX)
}

/// The first `5.1.1` in it that is part of nothing longer (RFC 3463 §2).
pub fn status_in(text: &str) -> Option<(u8, u16, u16)> {
    let is_part = |char: char| char.is_ascii_digit() || char == '.';
    text.split(|char: char| !is_part(char)).find_map(|word| {
        let mut numbers = word.trim_end_matches('.').split('.');
        let class = numbers.next().filter(|class| matches!(*class, "2" | "4" | "5"))?.parse().ok()?;
        let mut next = || numbers.next().filter(|number| (1..=3).contains(&number.len()))?.parse().ok();
        let status = (class, next()?, next()?);
        numbers.next().is_none().then_some(status)
    })
}

/// Message-ID of the mail that was returned, or of what is left of its header.
pub fn returned_id(content: &[u8]) -> Option<String> {
    Fields::of(content).find(|field| field.is("Message-ID")).and_then(|field| ids(field.value).into_iter().next())
}

/// A server that knows no reports: it quotes our mail somewhere.
///
/// `failed` are the recipients that a field of its own names (X-Failed-Recipients).
pub fn in_words(subject: &str, text: &str, returned: Option<&[u8]>, failed: &[String]) -> Bounce {
    let message_id = returned.and_then(returned_id).or_else(|| quoted_id(text));
    // What is behind this is our mail, not what the server says of it.
    let copy = [
        "--- below this line",
        "------ this is a copy",
        "--- original message",
        "--- begin message",
        "--- returned mail",
    ];
    let mut recipients: Vec<String> = failed.to_vec();
    let (mut status, mut why) = (None, String::new());
    for line in text.lines().take(WORDS_LINES_MAX) {
        let line = line.trim();
        let lower = line.get(..60).unwrap_or(line).to_ascii_lowercase();
        if copy.iter().any(|mark| lower.starts_with(mark)) {
            break;
        }
        let bare = line.trim_end_matches(':');
        let bare = bare.strip_prefix('<').and_then(|inside| inside.strip_suffix('>')).unwrap_or(bare);
        if failed.is_empty() && recipients.len() < RECIPIENTS_MAX && bare.contains('@') && Address::parse(bare).is_ok()
        {
            recipients.push(bare.to_owned());
        }
        let is_code = |word: &str| {
            word.len() == 3 && word.starts_with(['4', '5']) && word.bytes().all(|octet| octet.is_ascii_digit())
        };
        let said = line.split([' ', '-', ':', '<', '(']).any(is_code);
        let found = status_in(line);
        if status.is_none() && (said || found.is_some()) {
            status = found;
            if why.is_empty() || found.is_some() {
                why = one_line(line, WHY_BYTES_MAX);
            }
        }
    }
    let subject = subject.to_ascii_lowercase();
    let is_delay =
        subject.contains("delayed") || subject.contains("warning:") || subject.contains("still being retried");
    let action = if is_delay { Action::Delayed } else { Action::Failed };
    let of = |recipient| BounceOf { recipient, action, status, why: why.clone() };
    Bounce { envid: None, message_id, recipients: recipients.into_iter().map(of).collect() }
}

/// `Message-ID: <…>` in any line of the text.
pub fn quoted_id(text: &str) -> Option<String> {
    text.lines().find_map(|line| {
        let line = line.trim_start_matches(['>', ' ', '|', '\t', '*']);
        let name = line.get(..11).filter(|name| name.eq_ignore_ascii_case("message-id:"))?;
        ids(&line.as_bytes()[name.len()..]).into_iter().next()
    })
}
