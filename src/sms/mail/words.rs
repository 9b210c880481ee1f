//! What a phone reads of a mail: `carol@example.org: (Lunch) At one? [with menu.pdf]`. Pure.
//!
//! Knows: in what order it stands, and how a long one is cut, so that what is said of the cut is true and fits. Does not know: who gets it.
//! Limits: `[mail] segments_max`; [`FILES_NAMED_MAX`], [`FILE_NAME_MAX`].

use std::borrow::Cow;

use crate::config::mailing::SubjectRule;
use crate::gsm::header::Reference;
use crate::gsm::segment::{self, Cut, split};
use crate::gsm::text;
use crate::gsm::tpdu::UserData;
use crate::mail::{Attachment, Letter};

/// Files that are named; the others are counted.
const FILES_NAMED_MAX: usize = 3;
/// A longer name is cut.
const FILE_NAME_MAX: usize = 30;
/// Of a text in one message there are at most so many characters.
const PART_CHARS_MAX: usize = 160;

/// The three pieces of it: the middle one is what may be cut.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct Words {
    pub(super) before: String,
    pub(super) body: String,
    pub(super) after: String,
}

impl Words {
    /// `files`: what is said of its files, empty where there are none.
    pub(super) fn of(from: &str, letter: &Letter, rule: SubjectRule, files: String) -> Words {
        let body = letter.text.trim();
        let subject = one_line(&letter.subject);
        let is_answer = !letter.references.is_empty() || plain_subject(&subject).len() < subject.len();
        let is_told = match rule {
            SubjectRule::Never => false,
            SubjectRule::New => !is_answer,
            SubjectRule::Always => true,
        };
        // Where there is nothing else, it is what the mail says.
        let is_told = (is_told || body.is_empty()) && !subject.is_empty() && subject != body;
        let subject = if is_told { format!(" ({subject})") } else { String::new() };
        let space = if body.is_empty() { "" } else { " " };
        let after = if files.is_empty() { String::new() } else { format!(" {files}") };
        Words { before: format!("{from}:{subject}{space}"), body: body.to_owned(), after }
    }

    pub(super) fn whole(&self) -> String {
        [self.before.as_str(), &self.body, &self.after].concat()
    }

    /// In one message, or in as many parts as it takes, and no more than may be: `cut_words` says that so many parts are withheld.
    pub(super) fn parts(
        &self,
        parts_max: usize,
        reference: Reference,
        cut_words: impl Fn(usize) -> String,
    ) -> Vec<UserData> {
        let cut = Cut::new(reference);
        let parts_max = parts_max.clamp(1, usize::from(u8::MAX));
        let within = |words: &str| match text::encode(words) {
            Ok(data) => Some(vec![data]),
            Err(_) => split(words, &cut).ok().filter(|parts| parts.len() <= parts_max),
        };
        let whole = self.whole();
        // A text of more characters than fit is not written to find that out.
        let is_short = whole.chars().nth(PART_CHARS_MAX * parts_max).is_none();
        if let Some(parts) = within(&whole).filter(|_| is_short) {
            return parts;
        }
        let count = segment::count(&whole, &cut);
        let mut withheld = count.saturating_sub(parts_max);
        let mut found = Vec::new();
        // Where the rest would change the alphabet, fewer parts than may be are shown, and more are withheld.
        for _ in 0..3 {
            let end = [cut_words(withheld).as_str(), &self.after].concat();
            let Some(parts) = longest(&self.before, &self.body, parts_max, |begin| within(&format!("{begin}{end}")))
            else {
                break;
            };
            let rest = count.saturating_sub(parts.len());
            found = parts;
            if rest == withheld {
                break;
            }
            withheld = rest;
        }
        if !found.is_empty() {
            return found;
        }
        // The sender's address alone leaves no room for what is to be said behind it.
        longest("", &whole, parts_max, within).unwrap_or_default()
    }
}

/// The longest beginning of a text that still fits behind what stands before it. More of it never needs fewer parts, so it is found by
/// halving.
fn longest(
    before: &str,
    text: &str,
    parts_max: usize,
    within: impl Fn(&str) -> Option<Vec<UserData>>,
) -> Option<Vec<UserData>> {
    let begin = |end: usize| format!("{before}{}", text[..end].trim_end());
    let ends = text.char_indices().map(|(at, char)| at + char.len_utf8()).take(PART_CHARS_MAX * parts_max);
    let ends: Vec<usize> = std::iter::once(0).chain(ends).collect();
    let fitting = ends.partition_point(|end| within(&begin(*end)).is_some());
    within(&begin(ends[fitting.checked_sub(1)?]))
}

/// The names of its files, each cut, and how many more there are; empty where there are none.
pub(super) fn files(attachments: &[Attachment]) -> String {
    let name = |attachment: &Attachment| one_line(&attachment.name).chars().take(FILE_NAME_MAX).collect::<String>();
    let named: Vec<String> = attachments.iter().take(FILES_NAMED_MAX).map(name).collect();
    match attachments.len().saturating_sub(FILES_NAMED_MAX) {
        0 => named.join(", "),
        more => format!("{} +{more}", named.join(", ")),
    }
}

/// A subject without what each answer puts before it: `Re:`, `AW:`, `Fwd:` and their like, `Re[2]:` too.
pub(super) fn plain_subject(subject: &str) -> &str {
    /// In English, German, Dutch, Swedish, French, Spanish, Italian, Portuguese, Polish.
    const MARKS: [&str; 13] = ["re", "aw", "antw", "antwort", "sv", "vs", "odp", "rif", "fwd", "fw", "wg", "tr", "rv"];
    let mut rest = subject.trim();
    while let Some((mark, behind)) = rest.split_once([':', '：']) {
        let mark = mark.trim_end();
        let mark = mark.split_once('[').filter(|(_, count)| count.ends_with(']')).map_or(mark, |(mark, _)| mark);
        if !MARKS.iter().any(|known| mark.eq_ignore_ascii_case(known)) {
            break;
        }
        rest = behind.trim_start();
    }
    rest
}

/// Line breaks and other runs of space are one space.
fn one_line(text: &str) -> Cow<'_, str> {
    match text.chars().any(|char| char.is_control() || char.is_whitespace()) {
        true => text
            .split(|char: char| char.is_control() || char.is_whitespace())
            .filter(|word| !word.is_empty())
            .collect::<Vec<_>>()
            .join(" ")
            .into(),
        false => text.into(),
    }
}
