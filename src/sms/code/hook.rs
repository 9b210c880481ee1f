//! A number behind which a program of the operator's answers.
//!
//! Knows: what the program is told (JSON), and what its answer means. Does not know: HTTP; the shell posts, and says what came.
//! The program is asked once for each question, and again where it did not answer or was not able to (5xx, 408, 429): `id` is the same
//! then, so that it may know a repeat. Any other no, an answer that cannot be read, or the last of [`HOOK_ATTEMPTS_MAX`], is the end. What
//! it answers goes out in the batch that ends the question.
//! Limits: [`HOOK_ATTEMPTS_MAX`] for one question; [`super::HOOKS_PER_CODE_MAX`] at a time for one number, one for each sender; [`TEXTS_MAX`] in one answer.

use std::time::Duration;

use serde::Deserialize;

use super::{Doing, Question, answered, name, number_of};
use crate::config::words::Word;
use crate::event::Event;
use crate::gsm::report::Status;
use crate::register::locate::Finder;
use crate::seam::{HttpAnswer, HttpFailure, Output, TextOutcome};
use crate::site::World;
use crate::sms::ending::End;
use crate::sms::record::Recipient;
use crate::sms::verdict::{Said, Verdict};
use crate::sms::{Centre, Taker, Work, shift_ms};
use crate::time::Stamp;

/// Texts to others in one answer.
const TEXTS_MAX: usize = 20;
/// How often a program is asked the same: whoever texted there waits for an answer, and soon thinks that there is none.
const HOOK_ATTEMPTS_MAX: u32 = 5;
/// The shell says that the time is over; if it does not say even that, nobody waits longer than this.
const GRACE: Duration = Duration::from_secs(5);

/// What a program may answer.
#[derive(Deserialize, Default)]
#[serde(default)]
struct Answer {
    /// For the sender.
    text: Option<String>,
    texts: Vec<ToOther>,
}

#[derive(Deserialize)]
struct ToOther {
    /// The number of a subscriber.
    to: String,
    text: String,
}

impl Centre {
    pub(super) fn ask_hook(&mut self, w: &mut World<'_, '_>, question: Question, url: &str, timeout: Duration) {
        let Some(words) = self.words_of(w, &question) else { return };
        if !self.take_place(w, question.recipient(), Taker::Hook(question.code)) {
            return;
        }
        let body = body(w, &question, &words);
        let id = self.work_on(w, question, Doing::Hook, Some(timeout + GRACE));
        w.ctx.out.send(Output::HttpPost { id, url: url.to_owned(), body, timeout });
    }

    /// What came of a POST.
    pub fn hook_answered(
        &mut self,
        w: &mut World<'_, '_>,
        finder: &mut Finder<'_>,
        id: u64,
        result: Result<HttpAnswer, HttpFailure>,
    ) {
        self.hook_said(w, id, result.map_err(|HttpFailure(why)| why));
        self.work_off(w, finder);
    }

    pub(super) fn hook_said(&mut self, w: &mut World<'_, '_>, id: u64, said: Result<HttpAnswer, String>) {
        // It may answer after its deadline.
        let Some(super::Job { doing: Doing::Hook, .. }) = self.codes.jobs.get(&id) else { return };
        let Some(super::Job { mut question, .. }) = self.codes.jobs.remove(&id) else { return };
        let code = question.code;
        let attempts = question.texts.iter().map(|text| text.attempts).max().unwrap_or_default();
        let no_answer = "the program behind it did not answer";
        let last = (attempts + 1 >= HOOK_ATTEMPTS_MAX).then_some(no_answer);
        let failed = |status, why: &str| Event::HookFailed { code, status, why: why.into() };
        let (status, failure) = match said {
            Ok(answer) => match answer.status {
                status @ 200..300 => match read(&answer) {
                    Ok(heard) => {
                        question.texts.iter_mut().for_each(|text| text.attempts = text.attempts.saturating_add(1));
                        return self.pass_on(w, &question, status, heard);
                    }
                    // It has done what it does; a second time would not be better.
                    Err(why) => {
                        w.event(failed(status, why));
                        (status, Some("the program behind it says what nobody understands"))
                    }
                },
                status @ (0..200 | 408 | 429 | 500..) => {
                    w.event(failed(status, "which is no answer to a text"));
                    (status, last)
                }
                status @ 300..500 => {
                    w.event(failed(status, "which is no answer to a text"));
                    (status, Some("the program behind it refused it"))
                }
            },
            Err(why) => {
                w.event(failed(0, &why));
                (0, last)
            }
        };
        let Some(why) = failure else {
            let verdict = Verdict::Temporary(no_answer);
            let said = Said { code: status, rpdu: None };
            return self.failed(w, question.texts, Stamp::ZERO, None, verdict, said);
        };
        question.texts.iter_mut().for_each(|text| text.attempts = text.attempts.saturating_add(1));
        let end = End { code: status, ..End::new(TextOutcome::Failed, Status::CONNECTION_REJECTED, why) };
        self.reply(w, &question, end, Word::HOOK_FAILED, &[("code", &code.to_string())]);
    }

    /// What the program said goes to whom it is for, from the number that it stands behind.
    fn pass_on(&mut self, w: &mut World<'_, '_>, question: &Question, status: u16, heard: Answer) {
        let mut work = Work::default();
        if let Some(words) = heard.text.filter(|words| !words.trim().is_empty()) {
            self.write_back(w, &mut work, question, &words);
        }
        let shown = question.code.to_string();
        let mut ignored = heard.texts.len().saturating_sub(TEXTS_MAX);
        for ToOther { to, text } in heard.texts.iter().take(TEXTS_MAX) {
            let subscriber = w.site.resolve(to).filter(|subscriber| !subscriber.barred);
            let Some(subscriber) = subscriber.filter(|_| !text.trim().is_empty()) else {
                ignored += 1;
                continue;
            };
            if self.write_as(w, &mut work, subscriber.imsi, (&shown, None), text).is_err() {
                w.event(Event::TextPassedOver { text: question.number(), imsi: subscriber.imsi });
            }
        }
        if ignored > 0 {
            let why = format!("{ignored} of its texts are empty, too many, or for nobody here");
            w.event(Event::HookFailed { code: question.code, status, why });
        }
        self.close(w, question, End { code: status, ..answered() }, work);
    }
}

/// What the program is told.
fn body(w: &World<'_, '_>, question: &Question, words: &str) -> Vec<u8> {
    let (site, sender) = (w.site, question.sender);
    let accepted_ms = question.texts.first().map_or(0, |text| text.accepted_ms);
    let language = question.language(site).unwrap_or(site.settings.templates.default_language);
    let json = serde_json::json!({
        "id": question.number().to_string(),
        "to": question.code.to_string(),
        "from": number_of(site, Recipient::Phone(sender)),
        "from_imsi": sender.to_string(),
        "from_name": name(site, sender),
        "text": words,
        "received": rfc3339(accepted_ms.saturating_add(shift_ms(w, accepted_ms)) / 1000),
        "language": language.as_str(),
    });
    json.to_string().into_bytes()
}

/// Errors: it cannot be understood; why.
fn read(answer: &HttpAnswer) -> Result<Answer, &'static str> {
    if answer.status == 204 || answer.body.trim_ascii().is_empty() {
        return Ok(Answer::default());
    }
    match answer.content_type.as_str() {
        "application/json" => {
            serde_json::from_slice(&answer.body).map_err(|_| "JSON of another form than it should have")
        }
        "text/plain" => match std::str::from_utf8(&answer.body) {
            Ok(text) => Ok(Answer { text: Some(text.trim_end().to_owned()), texts: Vec::new() }),
            Err(_) => Err("text/plain that is not UTF-8"),
        },
        _ => Err("something that is neither application/json nor text/plain"),
    }
}

/// `2026-11-21T23:41:06Z`.
///
/// Units:  seconds since 1970.
fn rfc3339(at_s: u64) -> String {
    let (mut days, second) = (at_s / 86_400, at_s % 86_400);
    let leap = |year: u64| year.is_multiple_of(4) && (!year.is_multiple_of(100) || year.is_multiple_of(400));
    let mut year = 1970;
    while days >= 365 + u64::from(leap(year)) {
        days -= 365 + u64::from(leap(year));
        year += 1;
    }
    let mut month = 1;
    for length in [31, 28 + u64::from(leap(year)), 31, 30, 31, 30, 31, 31, 30, 31, 30] {
        if days < length {
            break;
        }
        days -= length;
        month += 1;
    }
    let (hour, minute, second) = (second / 3600, second / 60 % 60, second % 60);
    format!("{year:04}-{month:02}-{:02}T{hour:02}:{minute:02}:{second:02}Z", days + 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_time_is_written_as_rfc_3339_has_it() {
        for (at_s, written) in [
            (0, "1970-01-01T00:00:00Z"),
            (951_782_399, "2000-02-28T23:59:59Z"),
            (951_782_400, "2000-02-29T00:00:00Z"),
            (951_868_800, "2000-03-01T00:00:00Z"),
            (1_790_000_000, "2026-09-21T14:13:20Z"),
            (4_107_542_399, "2100-02-28T23:59:59Z"),
            (4_107_542_400, "2100-03-01T00:00:00Z"),
            (1_767_225_599, "2025-12-31T23:59:59Z"),
        ] {
            assert_eq!(rfc3339(at_s), written);
        }
    }
}
