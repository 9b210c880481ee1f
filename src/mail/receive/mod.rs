//! What a mail says, out of its octets.
//!
//! | file | its question |
//! |---|---|
//! | [`header`] | what stands in a field |
//! | [`tokens`] | which words and marks |
//! | [`results`] | what did another server find out about the sender |
//! | [`coding`] | which octets and letters were meant: base64, quoted-printable, charsets |
//! | [`words`] | which of it did its author write |
//! | [`html`] | what would a reader see |
//! | [`bounce`] | what became of a mail of ours |
//!
//! Knows: MIME (RFC 2045 to 2047, 2183, 2231), reports (RFC 6522, 3464), automatic mail (RFC 3834). Does not know: who may send it, and to
//! whom. It reads whatever comes: a broken mail gives what can be read of it.
//!
//! The parts are found here, not by mail-parser: it looks for the end of each part by itself, so that boundaries that never come make it read
//! the rest again for each of them, and it holds mails within mails in one another, so that a thousand of them need the stack for a thousand
//! when they are dropped. Both are mails that somebody can send. Here each octet is looked at once for each of [`DEPTH_MAX`] levels.
//!
//! Limits: [`DEPTH_MAX`], [`PARTS_MAX`], [`FILES_MAX`], [`words::TEXT_BYTES_MAX`].

mod bounce;
mod coding;
mod header;
mod html;
mod results;
mod tokens;
mod words;

use std::borrow::Cow;
use std::collections::HashSet;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use memchr::{memchr, memmem};
use sha2::{Digest as _, Sha256};

use self::header::{Fields, Typed, one_line};
use super::{Attachment, Bounce, File, HEADERS_KEPT_MAX, Letter, Relayed};

pub use self::words::{ENCRYPTED, TEXT_BYTES_MAX};

/// Parts within parts.
pub const DEPTH_MAX: usize = 10;
pub const PARTS_MAX: usize = 200;
/// So many files are kept and named.
pub const FILES_MAX: usize = 100;
/// A picture that the text shows, and that is not larger, is decoration.
pub const DECORATION_BYTES_MAX: usize = 10 * 1024;

const REFERENCES_MAX: usize = 20;
const RESULTS_MAX: usize = 20;
const TRACES_MAX: usize = 100;
const NAME_BYTES_MAX: usize = 100;
const CONTENT_IDS_MAX: usize = 200;
/// RFC 2046 §5.1.1 has 70; who breaks that does not break it by much.
const BOUNDARY_BYTES_MAX: usize = 250;
/// The base64 of a [`Relayed`] is cut into lines of so many characters.
const FOLD_AT: usize = 72;

/// A mail and the files in it: `files` are those that `letter.attachments` names, in its order.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Received {
    pub letter: Letter,
    pub files: Vec<File>,
}

/// Reads the octets of a mail, as DATA gave them (dots unstuffed).
pub fn read(bytes: &[u8]) -> Received {
    let mut top = Top::read(bytes);
    let mut walk = Walk::default();
    walk.body(&top.part, top.body, 0);
    let Walk { written, files, content_ids, status, returned, is_report, .. } = walk;

    let mut letter = std::mem::take(&mut top.letter);
    let is_forward = words::is_forward(&letter.subject);
    let raw_text = |written: &Written| -> String {
        match written {
            Written::Plain(text) => words::without_armour(text),
            Written::Html(html) => html::text(html),
        }
    };
    letter.bounce = match status {
        Some(mut bounce) => {
            bounce.message_id = returned.as_deref().and_then(bounce::returned_id);
            Some(bounce)
        }
        None if !is_report => top.bounce_in_words(&letter, &written, returned.as_deref(), raw_text),
        None => None,
    };
    if let Some(bounce) = &mut letter.bounce {
        let about = || top.in_reply_to.first().or(letter.references.last()).cloned();
        bounce.message_id = bounce.message_id.take().or_else(about);
    }
    letter.automatic |= is_report || letter.bounce.is_some();

    for written in &written {
        let said = words::written(&raw_text(written), is_forward);
        if said.is_empty() || letter.text.len() >= TEXT_BYTES_MAX {
            continue;
        }
        if !letter.text.is_empty() {
            letter.text.push('\n');
        }
        letter.text.push_str(&said);
    }
    words::cut(&mut letter.text, TEXT_BYTES_MAX);

    let is_decoration = |found: &Found| {
        let is_shown = found.content_id.as_ref().is_some_and(|id| content_ids.contains(id));
        is_shown && found.file.content_type.starts_with("image/") && found.file.bytes.len() < DECORATION_BYTES_MAX
    };
    let files: Vec<File> = files.into_iter().filter(|found| !is_decoration(found)).map(|found| found.file).collect();
    letter.attachments =
        files.iter().map(|file| Attachment { name: file.name.clone(), octets: file.bytes.len() as u64 }).collect();
    Received { letter, files }
}

/// The value of `X-Encamp-Sms`, folded: what [`read`] finds in `letter.relayed`.
pub fn relayed_header(relayed: &Relayed) -> String {
    // Numbers, strings and octets: JSON has all of them.
    let json = serde_json::to_vec(relayed).unwrap_or_default();
    let coded = BASE64.encode(json);
    let lines: Vec<&str> = coded.as_bytes().chunks(FOLD_AT).filter_map(|line| std::str::from_utf8(line).ok()).collect();
    lines.join("\r\n ")
}

fn relayed(value: &[u8]) -> Option<Relayed> {
    let coded: Vec<u8> = value.iter().copied().filter(|octet| !octet.is_ascii_whitespace()).collect();
    serde_json::from_slice(&BASE64.decode(coded).ok()?).ok()
}

/// Fields that each server adds, or that differ between two copies of one mail.
fn is_of_hop(name: &[u8]) -> bool {
    const NAMES: &[&str] = &[
        "Received",
        "Return-Path",
        "Delivered-To",
        "X-Encamp-Trace",
        "Authentication-Results",
        "DKIM-Signature",
        "Received-SPF",
        "X-Original-To",
        "X-Delivered-To",
        "X-Received",
        "Envelope-To",
        "Delivery-Date",
        "X-Google-Smtp-Source",
        "X-Envelope-From",
        "X-Envelope-To",
    ];
    const FAMILIES: &[&str] = &["ARC-", "X-Spam", "X-Virus", "X-Google-DKIM", "X-MS-Exchange-"];
    let begins =
        |family: &&str| name.get(..family.len()).is_some_and(|begins| begins.eq_ignore_ascii_case(family.as_bytes()));
    NAMES.iter().any(|hop| name.eq_ignore_ascii_case(hop.as_bytes())) || FAMILIES.iter().any(begins)
}

/// What a part says of itself.
#[derive(Default)]
struct PartHead {
    /// `None`: it says nothing.
    typed: Option<Typed>,
    encoding: Encoding,
    disposition: Typed,
    content_id: Option<String>,
}

#[derive(Clone, Copy, PartialEq, Eq, Default)]
enum Encoding {
    #[default]
    Plain,
    Base64,
    QuotedPrintable,
}

impl PartHead {
    fn field(&mut self, field: &header::Field<'_>) {
        // All of them begin so, and few others do.
        if !field.name.get(..8).is_some_and(|begins| begins.eq_ignore_ascii_case(b"Content-")) {
            return;
        }
        if field.is("Content-Type") {
            // The first is what other readers believe.
            if self.typed.is_none() {
                self.typed = Some(Typed::read(field.value)).filter(|typed| !typed.kind.is_empty());
            }
        } else if field.is("Content-Transfer-Encoding") {
            let line = field.line();
            let word = line.split([' ', ';', '(']).next().unwrap_or_default();
            self.encoding = match word.trim_matches('"').to_ascii_lowercase().as_str() {
                "base64" => Encoding::Base64,
                "quoted-printable" => Encoding::QuotedPrintable,
                _ => Encoding::Plain,
            };
        } else if field.is("Content-Disposition") {
            self.disposition = Typed::read(field.value);
        } else if field.is("Content-ID") {
            self.content_id = header::ids(field.value).into_iter().next();
        }
    }

    fn decode<'a>(&self, body: &'a [u8]) -> Cow<'a, [u8]> {
        match self.encoding {
            Encoding::Plain => Cow::Borrowed(body),
            Encoding::Base64 => Cow::Owned(coding::base64(body)),
            Encoding::QuotedPrintable => Cow::Owned(coding::quoted_printable(body)),
        }
    }

    /// Its file name without directories: nobody is told where to write it.
    fn name(&self) -> Option<String> {
        let typed = self.typed.as_ref();
        let name =
            self.disposition.parameter("filename").or_else(|| typed.and_then(|typed| typed.parameter("name")))?;
        let name = name.rsplit(['/', '\\']).next().unwrap_or_default();
        Some(one_line(name, NAME_BYTES_MAX)).filter(|name| !name.is_empty() && name != "." && name != "..")
    }
}

/// The header of the mail itself.
struct Top<'a> {
    letter: Letter,
    part: PartHead,
    body: &'a [u8],
    in_reply_to: Vec<String>,
    failed_recipients: Vec<String>,
}

impl<'a> Top<'a> {
    fn read(bytes: &'a [u8]) -> Top<'a> {
        let mut letter = Letter::default();
        let mut part = PartHead::default();
        let mut references = Vec::new();
        let mut in_reply_to = Vec::new();
        let mut failed_recipients = Vec::new();
        let mut result_values: Vec<&[u8]> = Vec::new();
        let (mut has_from, mut has_subject) = (false, false);
        // Empty lines before the header are nobody's.
        let start = bytes.iter().take_while(|octet| matches!(octet, b'\r' | b'\n')).count();
        let bytes = &bytes[start..];
        let mut digest = Sha256::new();
        let (mut at, mut digested) = (0, 0);
        let mut fields = Fields::of(bytes);
        for field in fields.by_ref() {
            let begin = field.raw.as_ptr() as usize - bytes.as_ptr() as usize;
            at = begin + field.raw.len();
            if is_of_hop(field.name) {
                digest.update(&bytes[digested..begin]);
                digested = at;
            }
            part.field(&field);
            let name = field.name.to_ascii_lowercase();
            let is_auto =
                |line: &str| !line.get(..2).is_some_and(|no| no.eq_ignore_ascii_case("no")) || line.starts_with("not");
            match name.as_slice() {
                b"message-id" if letter.message_id.is_none() => {
                    letter.message_id = header::ids(field.value).into_iter().next();
                }
                b"references" => references.extend(header::ids(field.value)),
                b"in-reply-to" => in_reply_to.extend(header::ids(field.value)),
                b"from" if !has_from => {
                    (letter.from, letter.from_name) = header::mailbox(field.value);
                    has_from = true;
                }
                b"reply-to" if letter.reply_to.is_none() => letter.reply_to = header::mailbox(field.value).0,
                b"subject" if !has_subject => {
                    letter.subject = header::words(field.value);
                    has_subject = true;
                }
                b"received" => letter.received_count += 1,
                b"x-encamp-trace" if letter.traces.len() < TRACES_MAX => {
                    let domain = one_line(&field.line(), 255).to_ascii_lowercase();
                    letter.traces.push(domain);
                }
                b"x-encamp-sms" if letter.relayed.is_none() => letter.relayed = relayed(field.value),
                b"authentication-results" if result_values.len() < RESULTS_MAX => result_values.push(field.value),
                b"auto-submitted" => letter.automatic |= is_auto(field.line().as_str()),
                b"x-auto-response-suppress" => letter.automatic |= !field.line().eq_ignore_ascii_case("none"),
                b"precedence" => {
                    let line = field.line().to_ascii_lowercase();
                    letter.automatic |= ["bulk", "list", "junk", "auto_reply"].contains(&line.as_str());
                }
                b"return-path" => letter.automatic |= field.line().replace(' ', "") == "<>",
                b"x-failed-recipients" => {
                    let line = field.line();
                    let addresses = line.split(',').map(str::trim).filter(|address| !address.is_empty());
                    failed_recipients.extend(addresses.take(FILES_MAX).map(|address| one_line(address, 320)));
                }
                name if name.starts_with(b"list-") => letter.automatic = true,
                _ => (),
            }
        }
        digest.update(&bytes[digested..]);
        letter.digest.copy_from_slice(&digest.finalize()[..16]);
        letter.headers = kept(&bytes[..at]);
        // Each once, where it came first, but for the last: that is what it answers.
        let mut seen = HashSet::new();
        letter.references = references.into_iter().chain(in_reply_to.iter().cloned()).collect();
        letter.references.retain(|id| seen.insert(id.clone()));
        let excess = letter.references.len().saturating_sub(REFERENCES_MAX);
        // The first names the thread; of the others the newest are what somebody still knows.
        letter.references.drain(1.min(excess)..(1.min(excess) + excess));
        letter.results =
            result_values.into_iter().filter_map(|value| results::read(value, letter.from.as_ref())).collect();
        Top { letter, part, body: fields.rest(), in_reply_to, failed_recipients }
    }

    /// A server that writes no report. A vacation reply is none, nor is what a human at `postmaster` writes.
    fn bounce_in_words(
        &self,
        letter: &Letter,
        written: &[Written],
        returned: Option<&[u8]>,
        raw_text: impl Fn(&Written) -> String,
    ) -> Option<Bounce> {
        let local = letter.from.as_ref().map(|from| from.local().to_ascii_lowercase());
        let (is_daemon, is_postmaster) = match local.as_deref() {
            Some(local) => (local.starts_with("mailer-daemon"), local == "postmaster"),
            None => (letter.from_name.to_ascii_lowercase().contains("mail delivery"), false),
        };
        if !is_daemon && !is_postmaster {
            return None;
        }
        let text: String = written.iter().map(raw_text).collect::<Vec<_>>().join("\n");
        let bounce = bounce::in_words(&letter.subject, &text, returned, &self.failed_recipients);
        let is_known = bounce.message_id.is_some() || (is_daemon && !letter.references.is_empty());
        is_known.then_some(bounce)
    }
}

/// The header up to the last line end that fits.
fn kept(header: &[u8]) -> Vec<u8> {
    if header.len() <= HEADERS_KEPT_MAX {
        return header.to_vec();
    }
    let header = &header[..HEADERS_KEPT_MAX];
    header[..memchr::memrchr(b'\n', header).map_or(0, |end| end + 1)].to_vec()
}

/// Words of one part, not yet rendered: of two forms of the same only one is looked at.
enum Written {
    Plain(String),
    Html(String),
}

impl Written {
    fn is_blank(&self) -> bool {
        match self {
            Written::Plain(text) => text.chars().all(|char| char.is_whitespace() || char == '\u{FEFF}'),
            Written::Html(html) => html.trim().is_empty(),
        }
    }
}

struct Found {
    file: File,
    content_id: Option<String>,
}

/// All parts of a mail, in their order.
#[derive(Default)]
struct Walk<'a> {
    part_count: usize,
    written: Vec<Written>,
    files: Vec<Found>,
    /// What the HTML shows of the other parts.
    content_ids: HashSet<String>,
    status: Option<Bounce>,
    /// The mail that a report is about, or its header.
    returned: Option<Cow<'a, [u8]>>,
    /// multipart/report of whatever kind.
    is_report: bool,
}

impl<'a> Walk<'a> {
    fn part(&mut self, octets: &'a [u8], depth: usize, is_digest: bool) {
        if self.part_count >= PARTS_MAX {
            return;
        }
        self.part_count += 1;
        let mut head = PartHead::default();
        let mut fields = Fields::of(octets);
        fields.by_ref().for_each(|field| head.field(&field));
        if is_digest && head.typed.is_none() {
            head.typed = Some(Typed::of("message/rfc822"));
        }
        self.body(&head, fields.rest(), depth);
    }

    fn body(&mut self, head: &PartHead, body: &'a [u8], depth: usize) {
        let plain = Typed::of("text/plain");
        let typed = head.typed.as_ref().unwrap_or(&plain);
        let is_attached = head.disposition.is("attachment");
        // One that is named is a file, unless it is the first thing in the mail: that is what its author wrote, whatever he calls it.
        let is_file = is_attached || (head.name().is_some() && !self.written.is_empty());
        match typed.kind.as_str() {
            "application/pgp-encrypted" => (),
            "application/pgp-signature" | "application/pkcs7-signature" | "application/x-pkcs7-signature" => (),
            "message/disposition-notification" | "message/feedback-report" => (),
            "application/pkcs7-mime" | "application/x-pkcs7-mime"
                if typed.parameter("smime-type").is_none_or(|kind| kind.eq_ignore_ascii_case("enveloped-data")) =>
            {
                self.written.push(Written::Plain(ENCRYPTED.to_owned()));
            }
            "multipart/encrypted" => self.written.push(Written::Plain(ENCRYPTED.to_owned())),
            _ if typed.family() == "multipart" => self.multipart(typed, body, depth),
            "message/delivery-status" | "message/global-delivery-status" => {
                let said = bounce::status(&head.decode(body));
                match &mut self.status {
                    None => self.status = Some(said),
                    Some(status) => status.recipients.extend(said.recipients),
                }
            }
            "text/rfc822-headers" | "message/global-headers" => {
                self.returned.get_or_insert_with(|| head.decode(body));
            }
            "message/rfc822" | "message/global" => {
                let returned = head.decode(body);
                if !self.is_report {
                    let mut fields = Fields::of(&returned);
                    let subject = fields.find(|field| field.is("Subject")).map(|field| header::words(field.value));
                    let subject =
                        subject.map(|subject| one_line(&subject, NAME_BYTES_MAX)).filter(|subject| !subject.is_empty());
                    self.file(head, typed, body, subject);
                }
                self.returned.get_or_insert(returned);
            }
            "text/html" | "application/xhtml+xml" if !is_file => {
                let octets = head.decode(body);
                let html = coding::charset(typed.parameter("charset").or(said_charset(&octets)), &octets);
                self.shows(&html);
                self.written.push(Written::Html(html.into_owned()));
            }
            "text/plain" | "text" | "text/markdown" | "text/x-markdown" | "text/enriched" if !is_file => {
                let octets = head.decode(body);
                let text = coding::charset(typed.parameter("charset"), &octets);
                let is =
                    |name: &str, value: &str| typed.parameter(name).is_some_and(|has| has.eq_ignore_ascii_case(value));
                let text =
                    if is("format", "flowed") { words::unflowed(&text, is("delsp", "yes")) } else { text.into_owned() };
                self.written.push(Written::Plain(text));
            }
            // A second form of what the others say.
            "text/x-amp-html" | "text/watch-html" => (),
            _ => self.file(head, typed, body, None),
        }
    }

    fn multipart(&mut self, typed: &Typed, body: &'a [u8], depth: usize) {
        let pieces = match typed.parameter("boundary").filter(|boundary| !boundary.is_empty()) {
            Some(boundary) => pieces(body, boundary.as_bytes()),
            None => first_boundary(body).map(|boundary| pieces(body, boundary)).unwrap_or_default(),
        };
        if pieces.is_empty() || depth >= DEPTH_MAX {
            // Nobody finds its parts: what is there is its text, up to the first that looks like the mark of one.
            let text = coding::charset(None, if pieces.is_empty() { body } else { &[] });
            self.written.push(Written::Plain(text.into_owned()));
            return;
        }
        let is_digest = typed.is("multipart/digest");
        match typed.kind.as_str() {
            "multipart/alternative" => {
                let before = std::mem::take(&mut self.written);
                let mut forms: Vec<Vec<Written>> = Vec::new();
                for piece in pieces {
                    self.part(piece, depth + 1, false);
                    forms.push(std::mem::take(&mut self.written));
                }
                self.written = before;
                let has = |form: &Vec<Written>, plain: bool| {
                    form.iter().any(|written| !written.is_blank() && (!plain || matches!(written, Written::Plain(_))))
                };
                let best = forms
                    .iter()
                    .position(|form| has(form, true))
                    .or_else(|| forms.iter().position(|form| has(form, false)));
                if let Some(best) = best {
                    self.written.append(&mut forms[best]);
                }
            }
            "multipart/signed" => {
                if let Some(content) = pieces.first() {
                    self.part(content, depth + 1, false);
                }
            }
            "multipart/report" => {
                self.is_report = true;
                pieces.iter().for_each(|piece| self.part(piece, depth + 1, false));
            }
            _ => pieces.iter().for_each(|piece| self.part(piece, depth + 1, is_digest)),
        }
    }

    fn file(&mut self, head: &PartHead, typed: &Typed, body: &[u8], otherwise: Option<String>) {
        if self.files.len() >= FILES_MAX {
            return;
        }
        // It goes into a header again, where somebody fetches the file.
        let is_token = |part: &str| {
            let is_mark = |octet: u8| b"!#$&-^_.+".contains(&octet);
            !part.is_empty() && part.bytes().all(|octet| octet.is_ascii_alphanumeric() || is_mark(octet))
        };
        let is_kind = typed.kind.len() <= NAME_BYTES_MAX
            && typed.kind.split_once('/').is_some_and(|(family, kind)| is_token(family) && is_token(kind));
        let content_type = if is_kind { typed.kind.clone() } else { "application/octet-stream".to_owned() };
        let is_tnef = matches!(content_type.as_str(), "application/ms-tnef" | "application/vnd.ms-tnef");
        let otherwise = otherwise.or_else(|| is_tnef.then(|| "winmail.dat".to_owned()));
        let name = head.name().or(otherwise).unwrap_or_else(|| content_type.clone());
        let bytes = head.decode(body).into_owned();
        self.files.push(Found { file: File { name, content_type, bytes }, content_id: head.content_id.clone() });
    }

    /// `cid:` of RFC 2392, as it stands in an attribute or a style.
    fn shows(&mut self, html: &str) {
        for at in memmem::find_iter(html.as_bytes(), b"cid:") {
            let rest = &html[at + 4..];
            let end = rest.bytes().take(250).position(|octet| b"\"'<>() \t\r\n;,".contains(&octet));
            if let Some(id) = end.and_then(|end| rest.get(..end)).filter(|_| self.content_ids.len() < CONTENT_IDS_MAX) {
                self.content_ids.insert(id.to_owned());
            }
        }
    }
}

/// `<meta charset=…>`, where the part itself says nothing.
fn said_charset(html: &[u8]) -> Option<&str> {
    let begin = &html[..html.len().min(1024)];
    let at = memmem::find(begin, b"charset=")? + 8;
    let rest = begin[at..].trim_ascii_start();
    let rest = rest.strip_prefix(b"\"").or(rest.strip_prefix(b"'")).unwrap_or(rest);
    let length = rest.iter().take_while(|octet| octet.is_ascii_alphanumeric() || b"-_.:".contains(octet)).count();
    std::str::from_utf8(&rest[..length]).ok().filter(|name| !name.is_empty())
}

/// What stands between the lines of this boundary (RFC 2046 §5.1.1); the last one may have no end.
fn pieces<'a>(body: &'a [u8], boundary: &[u8]) -> Vec<&'a [u8]> {
    let boundary = boundary.get(..BOUNDARY_BYTES_MAX).unwrap_or(boundary);
    let mark = [b"--", boundary].concat();
    let mut pieces = Vec::new();
    let mut begin = None;
    for at in memmem::find_iter(body, &mark) {
        if at > 0 && body[at - 1] != b'\n' {
            continue;
        }
        let behind = &body[at + mark.len()..];
        let line_length = memchr(b'\n', behind).map_or(behind.len(), |end| end + 1);
        let line = behind[..line_length].trim_ascii_end();
        let is_last = line == b"--";
        // Another boundary that begins with this one.
        if !line.is_empty() && !is_last {
            continue;
        }
        if let Some(begin) = begin {
            let piece: &[u8] = body.get(begin..at).unwrap_or_default();
            let piece = piece.strip_suffix(b"\n").unwrap_or(piece);
            pieces.push(piece.strip_suffix(b"\r").unwrap_or(piece));
        }
        begin = (!is_last).then_some(at + mark.len() + line_length);
        if is_last || pieces.len() >= PARTS_MAX {
            return pieces;
        }
    }
    pieces.extend(begin.and_then(|begin| body.get(begin..)));
    pieces
}

/// Where the header does not say it: the first line that looks like one, without its dashes.
fn first_boundary(body: &[u8]) -> Option<&[u8]> {
    let line = body
        .split(|octet| *octet == b'\n')
        .find(|line| line.len() > 4 && line.starts_with(b"--") && line[2..].iter().any(u8::is_ascii_alphanumeric))?;
    let line = line.trim_ascii_end();
    (line.len() <= BOUNDARY_BYTES_MAX && !line.contains(&b' ')).then(|| &line[2..])
}
