//! What a status of mail means to a phone, and a phone's to mail. Pure.
//!
//! Knows: TP-Status (TS 23.040 §9.2.3.15), the codes of RFC 3463, and words for who reads either. Does not know: who is told.
//! Tests:  here, as tables.

use crate::gsm::report::Status;
use crate::mail::Action;
use crate::seam::TextOutcome;
use crate::sms::record::Cause;

/// class.subject.detail (RFC 3463 §2).
pub(in crate::sms) type MailStatus = (u8, u16, u16);

/// What is quoted of somebody else's words on a phone: the rest of a text is wanted for whom it is about.
const WHY_CHARS_MAX: usize = 60;

/// What a mail's writer is told of a text that has ended so. `cause`: what the last attempt failed by.
pub(super) fn of_end(outcome: TextOutcome, status: Status, cause: Cause) -> (Action, MailStatus) {
    match outcome {
        // Whoever has it now does not tell.
        TextOutcome::Delivered if status == Status::FORWARDED => return (Action::Relayed, (2, 0, 0)),
        TextOutcome::Delivered | TextOutcome::Answered => return (Action::Delivered, (2, 0, 0)),
        // To a phone this is a success (TS 23.040 §9.2.3.15), though nobody reads it: a newer one says more.
        TextOutcome::Replaced => return (Action::Relayed, (2, 0, 0)),
        // Whoever removes it will not have it delivered: that it is not allowed to be is the nearest that RFC 3463 has.
        TextOutcome::Dropped | TextOutcome::Deleted => return (Action::Failed, (5, 7, 1)),
        TextOutcome::Failed | TextOutcome::Expired | TextOutcome::Refused => {}
    }
    let code = match (status, cause) {
        // The phone is there and has no room, so that is what was wrong all the time.
        (Status(0x46 | 0x65), Cause::MemoryFull) => (5, 2, 2),
        (Status::VALIDITY_EXPIRED, _) => (4, 4, 7),
        (Status::REMOTE_PROCEDURE_ERROR, _) => (5, 5, 0),
        (Status::INCOMPATIBLE_DESTINATION, _) => (5, 6, 1),
        (Status::CONNECTION_REJECTED | Status::DELETED_BY_ORIGINATOR | Status::DELETED_BY_CENTRE, _) => (5, 7, 1),
        (Status::NOT_OBTAINABLE | Status::DOES_NOT_EXIST, _) => (5, 1, 1),
        (Status::QUALITY_NEVER_AVAILABLE | Status::NO_INTERWORKING, _) => (5, 3, 3),
        // Temporary errors after which nothing is tried any more.
        (Status(0x60), _) => (4, 4, 5),
        (Status(0x61 | 0x62), _) => (4, 4, 1),
        (Status(0x63), _) => (4, 3, 2),
        (Status(0x65), _) => (4, 2, 0),
        (Status(0x40..=0x5F), _) => (5, 0, 0),
        _ => (4, 0, 0),
    };
    (Action::Failed, code)
}

/// What a phone's report says of a mail that failed so. Of what [`of_end`] tells another box most comes back as it was.
pub(super) fn to_phone(status: MailStatus) -> Status {
    match status {
        (_, 1, _) => Status::NOT_OBTAINABLE,
        (_, 2, 2) => Status::ERROR_IN_SME.given_up(),
        (_, 2, 3) | (_, 3, 4) | (_, 6, _) => Status::INCOMPATIBLE_DESTINATION,
        (_, 3, 3) => Status::NO_INTERWORKING,
        (_, 4, 1) => Status::NO_RESPONSE.given_up(),
        (_, 4, 4) => Status::NOT_OBTAINABLE,
        (_, 4, 5) | (_, 3, 1) => Status::CONGESTION.given_up(),
        (_, 4, 7) => Status::VALIDITY_EXPIRED,
        (_, 5, _) => Status::REMOTE_PROCEDURE_ERROR,
        (_, 7, _) | (5, 2, _) => Status::CONNECTION_REJECTED,
        (4, 2, _) => Status::ERROR_IN_SME.given_up(),
        (4, ..) => Status::SERVICE_REJECTED.given_up(),
        _ => Status::REMOTE_PROCEDURE_ERROR,
    }
}

/// The status that a server's words begin with, or hold: `550 5.1.1 <carol@example.org>: unknown`.
pub(super) fn in_words(said: &str) -> Option<MailStatus> {
    let read = |word: &str| {
        let word = word.trim_matches(|char: char| !char.is_ascii_digit());
        let mut parts = word.splitn(3, '.');
        let class: u8 = parts.next()?.parse().ok().filter(|class| matches!(class, 2 | 4 | 5))?;
        let [subject, detail] = [parts.next()?, parts.next()?].map(|part| part.parse().ok());
        Some((class, subject.filter(|subject| *subject <= 7)?, detail.filter(|detail| *detail <= 999)?))
    };
    said.split_whitespace().take(3).find_map(read)
}

/// Why a mail did not arrive, for whoever wrote it on a phone: no full stop at its end.
pub(super) fn words(status: Option<MailStatus>, said: &str) -> String {
    let known = match status {
        Some((_, 1, 0 | 1 | 3 | 6)) => "there is no such mailbox",
        Some((_, 1, 2 | 10) | (_, 4, 4)) => "there is no such domain",
        Some((_, 2, 1)) => "the mailbox is closed",
        Some((_, 2, 2)) => "the mailbox is full",
        Some((_, 2, 3) | (_, 3, 4)) => "it is too long",
        Some((_, 4, 1)) => "nobody answers there",
        Some((_, 4, 6)) => "it went round in a circle",
        Some((_, 4, 7)) => "nobody took it in time",
        Some((_, 7, _)) => "it was refused",
        _ => "",
    };
    if !known.is_empty() {
        return known.into();
    }
    let said = one_line(said, WHY_CHARS_MAX);
    if said.is_empty() { "nobody says why".into() } else { said }
}

/// Somebody's words in printable ASCII, on one line, cut.
pub(super) fn one_line(said: &str, chars_max: usize) -> String {
    let plain = |char: char| match char {
        ' '..='~' => char,
        char if char.is_control() || char.is_whitespace() => ' ',
        _ => '?',
    };
    let all: String = said.chars().map(plain).collect();
    let words: Vec<&str> = all.split(' ').filter(|word| !word.is_empty()).collect();
    let cut: String = words.join(" ").chars().take(chars_max).collect();
    cut.trim_end_matches(['.', ' ']).to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_end_of_a_text_has_one_status_of_mail() {
        use TextOutcome::{Answered, Deleted, Delivered, Dropped, Expired, Failed, Replaced};
        let refused = Cause::Refused { code: 480, cause: 0 };
        for (outcome, status, cause, action, code) in [
            (Delivered, 0x00, Cause::New, Action::Delivered, (2, 0, 0)),
            (Delivered, 0x01, Cause::New, Action::Relayed, (2, 0, 0)),
            (Answered, 0x00, Cause::New, Action::Delivered, (2, 0, 0)),
            (Replaced, 0x02, Cause::Absent, Action::Relayed, (2, 0, 0)),
            (Dropped, 0x48, Cause::Absent, Action::Failed, (5, 7, 1)),
            (Deleted, 0x47, Cause::Absent, Action::Failed, (5, 7, 1)),
            (Expired, 0x46, Cause::Absent, Action::Failed, (4, 4, 7)),
            (Expired, 0x46, refused, Action::Failed, (4, 4, 7)),
            (Expired, 0x46, Cause::MemoryFull, Action::Failed, (5, 2, 2)),
            (Expired, 0x65, Cause::MemoryFull, Action::Failed, (5, 2, 2)),
            (Expired, 0x65, refused, Action::Failed, (4, 2, 0)),
            (Expired, 0x60, Cause::New, Action::Failed, (4, 4, 5)),
            (Expired, 0x61, refused, Action::Failed, (4, 4, 1)),
            (Expired, 0x62, Cause::Absent, Action::Failed, (4, 4, 1)),
            (Expired, 0x63, refused, Action::Failed, (4, 3, 2)),
            (Expired, 0x64, refused, Action::Failed, (4, 0, 0)),
            (Failed, 0x40, refused, Action::Failed, (5, 5, 0)),
            (Failed, 0x41, refused, Action::Failed, (5, 6, 1)),
            (Failed, 0x42, refused, Action::Failed, (5, 7, 1)),
            (Failed, 0x43, refused, Action::Failed, (5, 1, 1)),
            (Failed, 0x44, refused, Action::Failed, (5, 3, 3)),
            (Failed, 0x45, refused, Action::Failed, (5, 3, 3)),
            (Failed, 0x49, refused, Action::Failed, (5, 1, 1)),
            (Failed, 0x50, refused, Action::Failed, (5, 0, 0)),
        ] {
            assert_eq!(of_end(outcome, Status(status), cause), (action, code), "{outcome:?} {status:#x} {cause:?}");
        }
    }

    #[test]
    fn each_status_of_mail_is_one_of_a_phone_and_no_success_or_trying() {
        for (code, status) in [
            ((5, 1, 1), 0x43),
            ((5, 1, 2), 0x43),
            ((5, 2, 0), 0x42),
            ((5, 2, 2), 0x65),
            ((4, 2, 2), 0x65),
            ((5, 2, 3), 0x41),
            ((4, 2, 0), 0x65),
            ((4, 3, 1), 0x60),
            ((4, 3, 2), 0x63),
            ((5, 3, 3), 0x45),
            ((5, 3, 4), 0x41),
            ((4, 4, 1), 0x62),
            ((5, 4, 4), 0x43),
            ((4, 4, 5), 0x60),
            ((4, 4, 7), 0x46),
            ((5, 4, 7), 0x46),
            ((5, 5, 0), 0x40),
            ((5, 6, 1), 0x41),
            ((5, 7, 1), 0x42),
            ((4, 0, 0), 0x63),
            ((5, 0, 0), 0x40),
        ] {
            assert_eq!(to_phone(code).0, status, "{code:?}");
            assert!(to_phone(code).0 & 0x40 != 0);
        }
        // Between two boxes a report says the same at both ends.
        for status in [0x40, 0x41, 0x42, 0x43, 0x45, 0x46, 0x60, 0x62, 0x63, 0x65] {
            let (_, code) = of_end(TextOutcome::Expired, Status(status), Cause::New);
            assert_eq!(to_phone(code).0, status);
        }
    }

    #[test]
    fn a_status_is_found_where_servers_write_it() {
        for (said, status) in [
            ("5.1.1 <carol@example.org>: Recipient address rejected", Some((5, 1, 1))),
            ("550 5.7.1 Service unavailable", Some((5, 7, 1))),
            ("550-5.1.1 The email account", Some((5, 1, 1))),
            ("smtp; 552 5.2.2 Mailbox full", Some((5, 2, 2))),
            ("No such user", None),
            ("550 192.0.2.1 is blocked", None),
            ("3.1.1", None),
            ("5.1", None),
            ("", None),
        ] {
            // `550-5.1.1` is one word to us: the part behind the hyphen counts.
            let said = said.replacen("550-", "550 ", 1);
            assert_eq!(in_words(&said), status, "{said}");
        }
    }

    #[test]
    fn a_phone_is_told_why_in_words_that_it_can_show() {
        let words = |status: Option<MailStatus>, said: &str| words(status, said);
        assert_eq!(words(Some((5, 1, 1)), "550 5.1.1 user unknown"), "there is no such mailbox");
        assert_eq!(words(Some((5, 2, 2)), ""), "the mailbox is full");
        assert_eq!(words(Some((5, 7, 26)), "unauthenticated"), "it was refused");
        assert_eq!(words(None, "554 Nein: Gr\u{fc}\u{df}e\r\n\tan alle."), "554 Nein: Gr??e an alle");
        assert_eq!(words(Some((5, 0, 0)), &"a ".repeat(200)).len(), 59);
        assert_eq!(words(None, " \r\n"), "nobody says why");
    }
}
