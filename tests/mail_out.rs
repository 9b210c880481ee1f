//! Texts that become mail: what a phone wrote leaves as a mail, once, whatever happens on the way.

mod desk;

use desk::Desk;
use desk::mail::*;
use desk::texts::*;
use encamp::mail::{Body, MailOut};
use encamp::seam::TextOutcome;

/// The mails that were to leave since they were taken last.
fn leaving(desk: &mut Desk) -> Vec<(u64, MailOut)> {
    std::mem::take(&mut desk.mails)
}

fn text(mail: &MailOut) -> (&str, &str, &str) {
    let Body::Text(words) = &mail.body else { panic!("{mail:?}") };
    (mail.to.as_str(), &mail.subject, words)
}

#[test]
fn an_address_and_words_leave_as_a_mail() {
    let mut desk = mail_desk(|_| {});
    assert_eq!(code(&write(&mut desk, 1, "a", CENTRE, "carol@example.org Hello")), 202);
    let (id, mail) = only(leaving(&mut desk));
    assert_eq!(text(&mail), ("carol@example.org", "Hello", "Hello"));
    assert_eq!(mail.from, Some(of_phone(1)));
    assert_eq!((&mail.header_from, mail.header_from_name.as_str()), (&of_phone(1), "somebody"));
    assert_eq!((&mail.in_reply_to, mail.references.len()), (&None, 0));
    assert!(mail.notify.failure && !mail.notify.success);
    let (number, rest) = mail.message_id.split_once('.').unwrap();
    assert!(number.parse::<u64>().is_ok() && rest.ends_with("@sms.gsm.test"), "{}", mail.message_id);
    mail_taken(&mut desk, id, false);
    assert!(desk.is_at_rest() && inbox(&mut desk).is_empty(), "nobody is told of what went well");
    let ends: Vec<(&str, TextOutcome)> = desk.text_records.iter().map(|record| (record.kind, record.outcome)).collect();
    assert_eq!(ends, [("text", TextOutcome::Answered), ("mail", TextOutcome::Delivered)]);
    assert_eq!((desk.text_records[1].to.as_str(), desk.text_records[1].from.as_str()), ("carol@example.org", "2001"));
}
