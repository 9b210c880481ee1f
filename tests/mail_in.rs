//! A mail becomes texts: what is taken, what is refused, and what the phone reads.

mod desk;

use std::sync::Arc;

use desk::mail::*;
use desk::texts::*;
use desk::{Desk, imsi};
use encamp::config::mailing::{FirstContact, MailRoute, SubjectRule};
use encamp::config::{Subscriber, Subscribers};
use encamp::gsm::header::{Concatenation, Reference};
use encamp::gsm::segment::{Cut, split};
use encamp::gsm::text;
use encamp::ident::{Imsi, Msisdn, Network};
use encamp::mail::address::Pattern;
use encamp::mail::{Attachment, AutoSubmitted, Body, Bounce, MailIn, Rcpt, RcptTo, Relayed};
use encamp::seam::{Command, CommandAnswer, Input, QueueAsk, TextOutcome};
use encamp::sms::record::{self, Letter, Sender, Text};
use encamp::store::{Store as _, StoreId};

/// All texts that wait, by the store.
fn waiting(desk: &Desk) -> Vec<Text> {
    let all = desk.stores.stores[&StoreId::Messages].scan(record::TEXT_PREFIX, None, 100_000).unwrap();
    let read = |(key, value): (Vec<u8>, Vec<u8>)| {
        let (recipient, number) = record::read_text_key(&key).unwrap();
        record::decode(recipient, number, &value).unwrap()
    };
    all.into_iter().map(read).collect()
}

fn keys(desk: &Desk, prefix: &[u8]) -> usize {
    desk.stores.stores[&StoreId::Messages].scan(prefix, None, 100_000).unwrap().len()
}

/// Phone 1 reads this of the mail.
fn reads(desk: &mut Desk, words: &str) {
    let got = inbox(desk);
    assert_eq!(got, [(1, CENTRE.to_owned(), words.to_owned())]);
}

/// Other numbers of phones, and what they have written of mail.
fn with_subscribers(desk: &mut Desk, change: impl Fn(&mut Subscriber)) {
    desk.set(|settings| {
        let mut all: Vec<Subscriber> = settings.subscribers.iter().cloned().collect();
        all.iter_mut().for_each(change);
        settings.subscribers = Arc::new(Subscribers::new(all));
    });
}

fn to_all(phones: &[u64], id: &str, words: &str) -> MailIn {
    MailIn { recipients: phones.iter().map(|phone| rcpt(*phone)).collect(), ..mail(phones[0], id, words) }
}

fn changed(mail: MailIn, change: impl FnOnce(&mut encamp::mail::Letter)) -> MailIn {
    let mut mail = mail;
    change(&mut mail.letter);
    mail
}

fn asking(mail: &mut encamp::config::Mail) {
    mail.first_contact = FirstContact::Ask;
}

#[test]
fn a_mail_becomes_one_text_and_yes_is_said_when_it_is_on_the_disk() {
    let mut desk = mail_desk(|_| ());
    desk.slow = true;
    assert_eq!(try_bring(&mut desk, mail(1, "m1", "Hello")), None);
    assert!(take(&mut desk).is_empty(), "nothing leaves before it either");
    desk.slow = false;
    desk.wait_ms(1);
    let (7, replies) = desk.mail_answers.pop().unwrap() else { panic!() };
    assert_eq!((replies.len(), replies[0].code, replies[0].status), (1, 250, (2, 0, 0)));
    reads(&mut desk, "carol@example.org: Hello");
    let record = desk.text_records.last().unwrap();
    assert_eq!((record.from.as_str(), record.outcome), (CAROL, TextOutcome::Delivered));
    assert!(waiting(&desk).is_empty());
}

#[test]
fn a_copy_is_answered_as_the_first_one_also_after_a_restart_and_makes_no_second_text() {
    let mut desk = mail_desk(|_| ());
    let first = bring(&mut desk, mail(1, "m1", "Hello"));
    assert_eq!(inbox(&mut desk).len(), 1);
    assert_eq!(bring(&mut desk, mail(1, "m1", "Hello")), first);
    desk.restart();
    desk.wait_s(4 * 86_400 / 1_000);
    // Another hop has given it another Received line, and other octets.
    let again = changed(mail(1, "m1", "Hello"), |letter| (letter.digest, letter.received_count) = ([9; 16], 3));
    assert_eq!(bring(&mut desk, again), first);
    assert_eq!((inbox(&mut desk).len(), happened(&desk, "mail_duplicate")), (0, 2));
}

#[test]
fn a_copy_is_known_for_five_days_and_then_forgotten() {
    let mut desk = mail_desk(|_| ());
    bring(&mut desk, mail(1, "m1", "Hello"));
    inbox(&mut desk);
    let day_ms = 86_400_000;
    desk.wait_ms(5 * day_ms - 10_000);
    bring(&mut desk, mail(1, "m1", "Hello"));
    assert_eq!(happened(&desk, "mail_duplicate"), 1);
    assert!(keys(&desk, b"d") > 0);
    desk.wait_ms(20_000);
    desk.wait_s(2);
    assert_eq!(keys(&desk, b"d"), 0, "nothing is kept for ever");
}

#[test]
fn one_message_id_for_all_mails_loses_none_that_says_something_else() {
    let mut desk = mail_desk(|_| ());
    for words in ["Door open", "Door shut"] {
        assert_eq!(bring(&mut desk, mail(1, "alarm", words)).code, 250);
        reads(&mut desk, &format!("carol@example.org: {words}"));
    }
    let bare = |words: &str| changed(mail(1, "", words), |letter| letter.message_id = None);
    for words in ["one", "two", "two"] {
        assert_eq!(bring(&mut desk, bare(words)).code, 250);
    }
    assert_eq!(inbox(&mut desk).len(), 2, "without any, its octets make a copy known");
}

#[test]
fn who_is_named_twice_gets_it_once() {
    let mut desk = mail_desk(|_| ());
    let mut twice = to_all(&[1, 1, 2], "m1", "Hello");
    twice.recipients[1].typed = address("somebody@sms.gsm.test");
    assert_eq!(bring(&mut desk, twice).code, 250);
    let got: Vec<u64> = inbox(&mut desk).into_iter().map(|(phone, ..)| phone).collect();
    assert_eq!(got, [1, 2]);
}

#[test]
fn the_subject_stands_before_the_words_by_rule() {
    let plain = |id: &str| changed(mail(1, id, "At one?"), |letter| letter.subject = " Lunch \r\n today ".into());
    let answer = |id: &str| changed(plain(id), |letter| letter.references = vec!["x@sms.gsm.test".into()]);
    for (rule, new, answered) in [
        (SubjectRule::Never, "At one?", "At one?"),
        (SubjectRule::New, "(Lunch today) At one?", "At one?"),
        (SubjectRule::Always, "(Lunch today) At one?", "(Lunch today) At one?"),
    ] {
        let mut desk = mail_desk(|mail| mail.subject = rule);
        bring(&mut desk, plain("m1"));
        reads(&mut desk, &format!("carol@example.org: {new}"));
        bring(&mut desk, answer("m2"));
        reads(&mut desk, &format!("carol@example.org: {answered}"));
    }
    let mut desk = mail_desk(|_| ());
    bring(&mut desk, changed(mail(1, "m1", "At one?"), |letter| letter.subject = "AW: Lunch".into()));
    reads(&mut desk, "carol@example.org: At one?");
}

#[test]
fn an_empty_mail_says_its_subject_and_else_who_wrote() {
    let mut desk = mail_desk(|mail| mail.subject = SubjectRule::Never);
    bring(&mut desk, changed(mail(1, "m1", " \n"), |letter| letter.subject = "Call me".into()));
    reads(&mut desk, "carol@example.org: (Call me)");
    bring(&mut desk, mail(1, "m2", ""));
    reads(&mut desk, "carol@example.org:");
}

#[test]
fn files_are_named_or_linked() {
    let mut desk = mail_desk(|_| ());
    let files = |count: usize| {
        let name = |n: usize| if n == 0 { "photo.jpg".to_owned() } else { format!("a{n}.pdf") };
        (0..count).map(|n| Attachment { name: name(n), octets: 1_000 }).collect::<Vec<_>>()
    };
    let with = |id: &str, count| changed(mail(1, id, "Look"), |letter| letter.attachments = files(count));
    bring(&mut desk, with("m1", 1));
    reads(&mut desk, "carol@example.org: Look [with photo.jpg]");
    bring(&mut desk, with("m2", 5));
    reads(&mut desk, "carol@example.org: Look [with photo.jpg, a1.pdf, a2.pdf +2]");
    let mut linked = with("m3", 1);
    linked.recipients[0].link = Some("http://192.0.2.1:8090/p/0123".into());
    bring(&mut desk, linked);
    reads(&mut desk, "carol@example.org: Look [photo.jpg: http://192.0.2.1:8090/p/0123]");
}

/// The words of all parts in their order, and how many there are.
fn long(desk: &mut Desk) -> (String, usize) {
    let mut parts = Vec::new();
    let mut mts = take(desk);
    while !mts.is_empty() {
        let mt = mts.remove(0);
        let at = Concatenation::of(mt.deliver.data.header().unwrap()).map_or((1, 1), |it| (it.part, it.parts));
        parts.push((at, mt.words()));
        mts.extend(answered(desk, &mt, "200 OK"));
    }
    let total = parts.len();
    assert!(
        parts.iter().enumerate().all(|(n, ((part, of), _))| usize::from(*part) == n + 1 && usize::from(*of) == total)
    );
    (parts.into_iter().map(|(_, words)| words).collect(), total)
}

#[test]
fn a_long_mail_is_cut_and_the_count_of_what_is_withheld_is_right() {
    for (unit, per_part) in [("abcdefghi ", 153), ("\u{436}\u{436}\u{436}\u{436} ", 67)] {
        for count in [6usize, 7, 9, 120, 700] {
            let mut desk = mail_desk(|_| ());
            let words: String = unit.chars().cycle().take(count * per_part - "carol@example.org: ".len() - 3).collect();
            assert_eq!(bring(&mut desk, mail(1, "m1", &words)).code, 250);
            let (read, parts) = long(&mut desk);
            let whole = format!("carol@example.org: {}", words.trim_end());
            if count <= 6 {
                assert_eq!((read, parts), (whole, count));
                continue;
            }
            let (begin, end) = read.split_once("... [").unwrap_or_else(|| panic!("{read}"));
            assert_eq!((end, parts), (format!("{} more parts withheld]", count - 6).as_str(), 6));
            assert!(whole.starts_with(begin), "{begin}");
            assert!(read.chars().count() > 6 * per_part - 12, "no more is withheld than must be: {}", read.len());
        }
    }
}

#[test]
fn the_words_of_a_cut_mail_leave_room_for_its_link() {
    let mut desk = mail_desk(|mail| mail.segments_max = 1);
    let mut linked = mail(1, "m1", &"words ".repeat(100));
    linked.letter.attachments = vec![Attachment { name: "photo.jpg".into(), octets: 9 }];
    linked.recipients[0].link = Some("http://192.0.2.1:8090/p/00112233445566778899aabbccddeeff".into());
    bring(&mut desk, linked);
    let (read, parts) = long(&mut desk);
    assert_eq!(parts, 1);
    let end = "... [4 more parts withheld] [photo.jpg: http://192.0.2.1:8090/p/00112233445566778899aabbccddeeff]";
    assert!(read.starts_with("carol@example.org: words") && read.ends_with(end), "{read}");
    // An address that leaves no room for anything is cut, and nothing fails.
    let name = format!("{}@{}example.org", "a".repeat(60), "long.".repeat(30));
    bring(&mut desk, mail_from(&name, 1, "m2", &"words ".repeat(100)));
    assert_eq!(long(&mut desk).1, 1);
}

#[test]
fn as_many_of_a_sender_and_for_a_phone_come_in_a_day_as_may_also_over_a_restart() {
    for (sender_max, phone_max, blocked) in [(2, 0, (CAROL, 2)), (0, 2, (DAVE, 1))] {
        let mut desk = mail_desk(|mail| (mail.per_sender_day_max, mail.per_phone_day_max) = (sender_max, phone_max));
        for id in ["m1", "m2"] {
            assert_eq!(bring(&mut desk, mail(1, id, "Hello")).code, 250);
        }
        inbox(&mut desk);
        desk.restart();
        let (from, phone) = blocked;
        let third = mail_from(from, phone, "m3", "Hello");
        let reply = bring(&mut desk, third.clone());
        assert_eq!((reply.code, reply.status), (452, (4, 7, 1)));
        // Whom it does not concern.
        let (other, at) = if sender_max > 0 { (DAVE, 1) } else { (CAROL, 2) };
        assert_eq!(bring(&mut desk, mail_from(other, at, "m4", "Hello")).code, 250);
        // What is refused counts for nothing, and the next day it comes.
        desk.wait_ms(86_400_000);
        assert_eq!(bring(&mut desk, third).code, 250);
        assert_eq!(happened(&desk, "mail_refused_4xx"), 1);
        desk.wait_ms(5 * 86_400_000);
        desk.wait_ms(86_400_000);
        desk.wait_s(2);
        assert_eq!(keys(&desk, b"u"), 0, "nothing is kept for ever");
    }
}

#[test]
fn without_room_nothing_is_kept_and_it_is_said_for_whom() {
    let mut desk = mail_desk(|_| ());
    desk.set(|settings| settings.messages.count_per_phone_max = 2);
    bring(&mut desk, mail(0, "m1", "Hello"));
    let reply = bring(&mut desk, mail(0, "m2", &"long ".repeat(50)));
    assert_eq!((reply.code, reply.status), (452, (4, 2, 2)), "all parts or none");
    // One that has no room keeps the others waiting: of a mail with one answer nothing is kept.
    let reply = bring(&mut desk, to_all(&[1, 0, 2], "m3", &"long ".repeat(50)));
    assert_eq!((reply.code, reply.status), (452, (4, 2, 2)));
    assert_eq!((waiting(&desk).len(), inbox(&mut desk).len()), (1, 0));
    assert_eq!(desk.text_records.iter().filter(|record| record.outcome == TextOutcome::Refused).count(), 4);
    // By LMTP each has an answer of his own.
    let lmtp = MailIn { each_answered: true, ..to_all(&[1, 0, 2], "m3", &"long ".repeat(50)) };
    let codes: Vec<u16> = try_bring(&mut desk, lmtp).unwrap().iter().map(|reply| reply.code).collect();
    assert_eq!(codes, [250, 452, 250]);
    assert_eq!(inbox(&mut desk).len(), 4);
    desk.set(|settings| settings.messages.count_max = 1);
    let reply = bring(&mut desk, mail(1, "m4", "Hello"));
    assert_eq!((reply.code, reply.status), (452, (4, 3, 1)));
}

#[test]
fn a_full_disk_takes_nothing_and_loses_nothing() {
    let mut desk = mail_desk(|mail| {
        with_pool(mail);
        (mail.per_phone_day_max, mail.per_sender_day_max) = (10, 10);
    });
    let full = |desk: &mut Desk, full| desk.stores.stores.get_mut(&StoreId::Messages).unwrap().set_full(full);
    full(&mut desk, true);
    let before = desk.stores.stores[&StoreId::Messages].durable().clone();
    let reply = bring(&mut desk, to_all(&[1, 2], "m1", "Hello"));
    assert_eq!((reply.code, reply.status), (452, (4, 3, 1)));
    assert_eq!(desk.stores.stores[&StoreId::Messages].durable(), &before);
    full(&mut desk, false);
    assert_eq!(bring(&mut desk, to_all(&[1, 2], "m1", "Hello")).code, 250);
    assert_eq!(inbox(&mut desk).len(), 2);
}

#[test]
fn an_unknown_sender_is_asked_about_once_and_comes_again_when_he_is_wanted() {
    let mut desk = mail_desk(|mail| {
        asking(mail);
        with_pool(mail);
    });
    let first = mail(1, "m1", "Hello");
    let reply = bring(&mut desk, first.clone());
    assert_eq!((reply.code, reply.status), (451, (4, 7, 1)));
    let ask = "carol@example.org wants to write to you. Text yes to 7000 to get it, or no.";
    assert_eq!(inbox(&mut desk), [(1, "7000".into(), ask.into())]);
    assert_eq!(bring(&mut desk, first.clone()).code, 451);
    assert!(inbox(&mut desk).is_empty(), "once");
    // Each has a number, so that the answer is about him.
    assert_eq!(bring(&mut desk, mail_from(DAVE, 1, "d1", "Hi")).code, 451);
    assert_eq!(inbox(&mut desk)[0].1, "7001");
    write(&mut desk, 1, "yes", "7000", " Yes! ");
    let told = "From now on you get what carol@example.org writes.";
    assert_eq!(inbox(&mut desk), [(1, "7000".into(), told.into())]);
    write(&mut desk, 1, "no", "7001", "hapana");
    assert_eq!(inbox(&mut desk), [(1, "7001".into(), "You get nothing from dave@example.org.".into())]);
    assert_eq!(bring(&mut desk, first).code, 250);
    assert_eq!(inbox(&mut desk), [(1, "7000".into(), "carol@example.org: Hello".into())]);
    let reply = bring(&mut desk, mail_from(DAVE, 1, "d1", "Hi"));
    assert_eq!((reply.code, reply.status), (550, (5, 7, 1)));
}

#[test]
fn without_a_pool_one_question_waits_at_a_time() {
    let mut desk = mail_desk(asking);
    assert_eq!(bring(&mut desk, mail(1, "m1", "Hello")).code, 451);
    assert_eq!(inbox(&mut desk).len(), 1);
    assert_eq!(bring(&mut desk, mail_from(DAVE, 1, "d1", "Hi")).code, 451);
    assert!(inbox(&mut desk).is_empty(), "a yes would be about him, and meant for carol");
    write(&mut desk, 1, "yes", CENTRE, "ja");
    inbox(&mut desk);
    assert_eq!(bring(&mut desk, mail_from(DAVE, 1, "d1", "Hi")).code, 451);
    assert!(inbox(&mut desk)[0].2.starts_with(DAVE));
    assert_eq!(bring(&mut desk, mail(1, "m1", "Hello")).code, 250);
}

#[test]
fn who_stands_in_an_allow_list_is_not_asked_about() {
    let mut desk = mail_desk(|mail| {
        asking(mail);
        mail.allow = vec![Pattern::parse("@example.org").unwrap()];
    });
    assert_eq!(bring(&mut desk, mail(1, "m1", "Hello")).code, 250);
    set_mail(&mut desk, |mail| mail.allow.clear());
    assert_eq!(bring(&mut desk, mail(2, "m2", "Hello")).code, 451);
    with_subscribers(&mut desk, |subscriber| {
        let allow = vec![Pattern::parse(CAROL).unwrap()];
        subscriber.mail = Some(Box::new(encamp::config::SubscriberMail { allow, ..Default::default() }));
    });
    assert_eq!(bring(&mut desk, mail(3, "m3", "Hello")).code, 250);
}

#[test]
fn a_flood_of_unknown_senders_asks_a_phone_ten_times_a_day() {
    let mut desk = mail_desk(|mail| {
        asking(mail);
        with_pool(mail);
        mail.reply_pool[0].last = Msisdn::parse("7099").unwrap();
    });
    // He who is known keeps his number.
    set_mail(&mut desk, |mail| mail.first_contact = FirstContact::Accept);
    bring(&mut desk, mail(1, "m1", "Hello"));
    assert_eq!(inbox(&mut desk)[0].1, "7000");
    set_mail(&mut desk, asking);
    let mut asked = 0;
    for n in 0..100 {
        assert_eq!(bring(&mut desk, mail_from(&format!("spam{n}@example.com"), 1, &format!("s{n}"), "x")).code, 451);
        asked += inbox(&mut desk).len();
    }
    assert_eq!(asked, 10);
    bring(&mut desk, mail(1, "m2", "Hello"));
    assert_eq!(inbox(&mut desk)[0].1, "7000");
}

#[test]
fn what_goes_in_circles_is_refused() {
    let mut desk = mail_desk(|_| ());
    for circle in [
        changed(mail(1, "m1", "Hello"), |letter| letter.received_count = 51),
        changed(mail(1, "m1", "Hello"), |letter| letter.traces = vec!["other.example".into(), "SMS.gsm.test".into()]),
    ] {
        let reply = bring(&mut desk, circle);
        assert_eq!((reply.code, reply.status), (554, (5, 4, 6)));
    }
    let other = changed(mail(1, "m1", "Hello"), |letter| {
        (letter.received_count, letter.traces) = (50, vec!["other.example".into()]);
    });
    assert_eq!(bring(&mut desk, other).code, 250);
    let record = &desk.text_records[0];
    assert_eq!((record.from.as_str(), record.to.as_str(), record.code), (CAROL, "2001@sms.gsm.test", 554));
    assert_eq!((record.kind, record.outcome, record.id.as_str()), ("mail", TextOutcome::Refused, ""));
    assert_eq!(happened(&desk, "mail_refused_5xx"), 2);
}

#[test]
fn from_nobody_comes_an_answer_in_a_thread_and_nothing_else() {
    let mut desk = mail_desk(with_pool);
    let nobody = |id: &str| {
        let mut mail = mail_from("", 1, id, "I am away");
        (mail.letter.from, mail.letter.automatic) = (Some(address(CAROL)), true);
        mail
    };
    assert_eq!(bring(&mut desk, nobody("v1")).code, 550);
    bring(&mut desk, mail(1, "m1", "Hello"));
    assert_eq!(bring(&mut desk, nobody("v2")).code, 550, "she is known, but nothing of hers is answered");
    let answer = changed(nobody("v3"), |letter| letter.references = vec!["m1@example.org".into()]);
    assert_eq!(bring(&mut desk, answer).code, 250);
    assert_eq!(inbox(&mut desk).last().unwrap().2, "carol@example.org: I am away");
    assert_eq!(keys(&desk, b"e"), 0, "nobody is told of it");
    let report = changed(nobody("b1"), |letter| letter.bounce = Some(Bounce::default()));
    assert_eq!(bring(&mut desk, report).code, 250, "what tells of a mail of ours is never refused");
    assert!(inbox(&mut desk).is_empty());
}

fn letters(desk: &Desk) -> Vec<Letter> {
    let all = desk.stores.stores[&StoreId::Messages].scan(b"e", None, 100).unwrap();
    all.into_iter().map(|(_, bytes)| record::decode_letter(&bytes).unwrap()).collect()
}

#[test]
fn whoever_is_to_be_told_is_kept_with_the_count_of_parts() {
    let mut desk = mail_desk(|_| ());
    let mut wished = mail(0, "m1", &"long ".repeat(100));
    wished.envid = Some("QQ314159".into());
    (wished.recipients[0].notify, wished.recipients[0].orcpt) = (Some(ALWAYS), Some("rfc822;me@example.net".into()));
    bring(&mut desk, wished.clone());
    let texts = waiting(&desk);
    let letter = letters(&desk).remove(0);
    assert_eq!((letter.left as usize, texts.len()), (4, 4));
    assert_eq!((&letter.from, &letter.to, letter.notify), (&address(CAROL), &of_phone(0), ALWAYS));
    assert_eq!((letter.envid, letter.orcpt), (wished.envid.clone(), wished.recipients[0].orcpt.clone()));
    assert_eq!(letter.message_id.as_deref(), Some("m1@example.org"));
    let Sender::Mail(from) = &texts[0].sender else { panic!() };
    assert!(from.letter > 0 && texts.iter().all(|text| text.sender == texts[0].sender));
    for (id, notify, automatic, kept) in
        [("m2", None, false, 1), ("m3", Some(NEVER), false, 0), ("m4", None, true, 0), ("m5", Some(ALWAYS), true, 0)]
    {
        let before = letters(&desk).len();
        let mut mail = changed(mail(0, id, "Hello"), |letter| letter.automatic = automatic);
        mail.recipients[0].notify = notify;
        bring(&mut desk, mail);
        assert_eq!(letters(&desk).len() - before, kept, "{id}");
    }
}

#[test]
fn where_some_are_refused_for_good_the_others_get_it_and_its_sender_is_told_once() {
    let mut desk = mail_desk(|_| ());
    with_subscribers(&mut desk, |subscriber| subscriber.barred = subscriber.imsi == imsi(2));
    let mut some = to_all(&[1, 2, 3], "m1", "Hello");
    some.recipients.push(Rcpt { to: RcptTo::Phone(Imsi::parse("001010000009999").unwrap()), ..rcpt(1) });
    some.recipients[3].notify = Some(NEVER);
    assert_eq!(bring(&mut desk, some.clone()).code, 250);
    assert_eq!(inbox(&mut desk).len(), 2);
    let (_, told) = desk.mails.pop().unwrap();
    let Body::Report(report) = &told.body else { panic!("{told:?}") };
    assert_eq!((told.from.clone(), told.to.clone()), (None, address(CAROL)));
    assert_eq!((report.status, report.recipient.contains("2002")), ((5, 2, 1), true), "{report:?}");
    assert!(desk.mails.is_empty(), "who asked for NEVER hears nothing");
    assert_eq!(bring(&mut desk, some.clone()).code, 250);
    assert!(inbox(&mut desk).is_empty() && desk.mails.is_empty(), "a copy is told nothing anew");
    // None of them: it is said at once, and nothing is mailed.
    let none = MailIn { recipients: some.recipients[1..2].to_vec(), ..mail(2, "m2", "Hello") };
    let reply = bring(&mut desk, none);
    assert_eq!((reply.code, reply.status), (550, (5, 2, 1)));
    assert!(desk.mails.is_empty());
}

#[test]
fn who_is_asked_about_by_one_phone_reaches_the_others() {
    let mut desk = mail_desk(|_| ());
    bring(&mut desk, mail(1, "m1", "Hello"));
    inbox(&mut desk);
    set_mail(&mut desk, asking);
    assert_eq!(bring(&mut desk, to_all(&[1, 2], "m2", "Hello")).code, 250);
    let got: Vec<_> = inbox(&mut desk).into_iter().map(|(phone, _, words)| (phone, words)).collect();
    assert!(got.contains(&(1, "carol@example.org: Hello".into())), "{got:?}");
    assert!(got.iter().any(|(phone, words)| *phone == 2 && words.contains("wants to write to you")), "{got:?}");
    let Body::Report(report) = desk.mails.pop().unwrap().1.body else { panic!() };
    assert_eq!(report.status, (5, 7, 1));
    write(&mut desk, 2, "yes", CENTRE, "yes");
    inbox(&mut desk);
    assert_eq!(bring(&mut desk, to_all(&[1, 2], "m2", "Hello")).code, 250);
    assert!(inbox(&mut desk).is_empty() && desk.mails.is_empty(), "a copy has had its end");
    let reply = bring(&mut desk, mail(2, "m2", "Hello"));
    assert_eq!((reply.code, reply.status), (550, (5, 7, 1)), "and who sends it again hears so");
    assert_eq!(bring(&mut desk, mail(2, "m3", "Hello")).code, 250);
    assert_eq!(inbox(&mut desk), [(2, CENTRE.into(), "carol@example.org: Hello".into())]);
}

fn relayed(hops: u32, accepted_ms: u64) -> Relayed {
    Relayed {
        from: "+15550001".into(),
        to: "2001".into(),
        accepted_ms,
        life_ms: 3_600_000,
        single_shot: false,
        protocol: 0x41,
        reply_path: true,
        hops,
        data: text::encode("as it \u{e4}s").unwrap(),
    }
}

fn of_box(id: &str, sms: Relayed) -> MailIn {
    let ip = "198.51.100.7".parse().unwrap();
    let mut mail = changed(mail(1, id, "as it was, in words"), |letter| letter.relayed = Some(sms));
    mail.peer.ip = ip;
    mail
}

fn boxes(mail: &mut encamp::config::Mail) {
    mail.boxes = vec![Network::parse("198.51.100.7").unwrap()];
}

#[test]
fn a_text_of_a_listed_box_is_as_it_was() {
    let mut desk = mail_desk(boxes);
    let then_ms = desk.wall.ms - 600_000;
    assert_eq!(bring(&mut desk, of_box("x1", relayed(1, then_ms))).code, 250);
    let text = waiting(&desk).remove(0);
    assert_eq!(
        (text.timestamp_s, text.life_ms),
        (then_ms / 1_000, 3_000_000),
        "its time, and what is left of its life"
    );
    let mt = only(take(&mut desk));
    assert_eq!(mt.deliver.originator.number(), "+15550001");
    assert_eq!((mt.deliver.protocol, mt.deliver.reply_path), (0x41, true));
    assert_eq!(mt.deliver.data, text::encode("as it \u{e4}s").unwrap());
    answered(&mut desk, &mt, "200 OK");
    // A second one of that second is another text to the phone.
    assert_eq!(bring(&mut desk, of_box("x2", relayed(1, then_ms))).code, 250);
    assert_eq!(waiting(&desk)[0].timestamp_s, then_ms / 1_000 + 1);
}

#[test]
fn a_text_of_a_box_has_bounds() {
    let mut desk = mail_desk(boxes);
    let now_ms = desk.wall.ms;
    let long = {
        let mut sms = relayed(1, now_ms);
        sms.data.bytes = vec![0; 141];
        sms
    };
    let unreadable = Relayed { from: "1".repeat(21), ..relayed(1, now_ms) };
    for (sms, code, status) in [
        (relayed(11, now_ms), 554, (5, 4, 6)),
        (relayed(1, now_ms - 3_600_000), 550, (5, 4, 7)),
        (long, 554, (5, 6, 0)),
        (unreadable, 554, (5, 6, 0)),
    ] {
        let reply = bring(&mut desk, of_box("x", sms));
        assert_eq!((reply.code, reply.status), (code, status));
    }
    assert!(waiting(&desk).is_empty());
}

#[test]
fn what_others_say_of_a_phone_is_not_believed() {
    let mut desk = mail_desk(|_| ());
    let now_ms = desk.wall.ms;
    bring(&mut desk, of_box("x1", relayed(1, now_ms)));
    reads(&mut desk, "carol@example.org: as it was, in words");
}

#[test]
fn a_mail_for_a_number_elsewhere_goes_on_by_its_route_or_is_nobodys() {
    let mut desk = mail_desk(boxes);
    let far = |id: &str| MailIn { recipients: vec![elsewhere("+4930123")], ..mail(1, id, "Hello") };
    let reply = bring(&mut desk, far("m1"));
    assert_eq!((reply.code, reply.status), (550, (5, 1, 1)));
    let to = "{number}@sms.hill.example".to_owned();
    set_mail(&mut desk, |mail| mail.routes = vec![MailRoute { prefixes: vec!["+49".into()], to, is_box: true }]);
    let mut wished = changed(far("m2"), |letter| letter.traces = vec!["dale.example".into()]);
    wished.recipients[0].notify = Some(ALWAYS);
    assert_eq!(bring(&mut desk, wished).code, 250);
    let (_, mail) = desk.mails.pop().unwrap();
    assert_eq!((mail.to.as_str(), mail.from.unwrap().as_str()), ("+4930123@sms.hill.example", CAROL));
    assert_eq!((mail.body, mail.notify), (Body::Text("Hello".into()), ALWAYS));
    assert_eq!(mail.traces, ["dale.example", MAIL_DOMAIN]);
    assert_eq!(letters(&desk)[0].left, 1);
    // The text of a box passes as it is, with one hop more.
    let sms = relayed(3, desk.wall.ms);
    let passing = MailIn { recipients: vec![elsewhere("+4930124")], ..of_box("x1", sms.clone()) };
    assert_eq!(bring(&mut desk, passing).code, 250);
    let Body::Sms { sms: passed, .. } = desk.mails.pop().unwrap().1.body else { panic!() };
    assert_eq!(passed, Relayed { hops: 4, ..sms.clone() });
    let far = MailIn { recipients: vec![elsewhere("+4930124")], ..of_box("x2", relayed(10, sms.accepted_ms)) };
    assert_eq!(bring(&mut desk, far).status, (5, 4, 6));
}

#[test]
fn a_power_cut_at_any_sync_leaves_all_of_a_mail_or_nothing_and_it_comes_once() {
    let mut kept = 0;
    for syncs in 0..8 {
        let mut desk = mail_desk(|mail| {
            with_pool(mail);
            mail.per_sender_day_max = 100;
        });
        let mail = to_all(&[1, 2, 3], "m1", &"long ".repeat(60));
        desk.syncs_left = Some(syncs);
        let promised = try_bring(&mut desk, mail.clone()).is_some_and(|replies| replies[0].code == 250);
        let mut got = std::collections::BTreeSet::new();
        let mut collect = |desk: &mut Desk| {
            let mut mts = take(desk);
            while !mts.is_empty() {
                let mt = mts.remove(0);
                got.insert((mt.header("To").to_owned(), mt.identity()));
                mts.extend(answered(desk, &mt, "200 OK"));
            }
        };
        collect(&mut desk);
        desk.syncs_left = None;
        desk.restart();
        let known = keys(&desk, b"d") > 0;
        assert!(known || !promised, "what was promised is there");
        kept += usize::from(known);
        // Its sender has heard nothing, or something that was lost: it comes again.
        assert_eq!(bring(&mut desk, mail).code, 250);
        for _ in 0..10 {
            desk.wait_s(1);
            collect(&mut desk);
        }
        assert_eq!(got.len(), 9, "three parts for each of three, and each once");
        assert!(waiting(&desk).is_empty());
    }
    assert!((1..8).contains(&kept), "the cut came before and after: {kept}");
}

/// When phones 2 and 3 get what others write to them, while this happens every ten milliseconds.
fn delivery_times(bomb: Option<usize>) -> Vec<(u64, u64)> {
    let mut desk = mail_desk(|_| ());
    let mut times = Vec::new();
    let mut left = bomb.unwrap_or_default();
    for tick in 0..1_000u64 {
        for _ in 0..left.min(10) {
            // Phone 0 is at no base station, phone 1 answers busily.
            let mail = mail_from(&format!("bomb{left}@example.com"), left as u64 % 2, &format!("b{left}"), "boom");
            let code = bring(&mut desk, mail).code;
            assert!(code == 250 || code == 452, "{code}");
            left -= 1;
        }
        if tick.is_multiple_of(50) {
            let phone = 2 + tick / 50 % 2;
            assert_eq!(bring(&mut desk, mail_from(DAVE, phone, &format!("d{tick}"), "Hello")).code, 250);
        }
        desk.wait_ms(10);
        let mut mts = take(&mut desk);
        while !mts.is_empty() {
            let mt = mts.remove(0);
            if mt.words().starts_with(DAVE) {
                times.push((desk.now_us, mt.header("To").len() as u64));
            }
            mts.extend(answered(&mut desk, &mt, "200 OK"));
        }
    }
    assert_eq!(left, 0);
    times
}

#[test]
fn ten_thousand_mails_for_one_phone_leave_the_others_delivery_times_as_they_are() {
    let quiet = delivery_times(None);
    assert_eq!(quiet.len(), 20);
    assert_eq!(delivery_times(Some(10_000)), quiet);
}

#[test]
fn an_answer_finds_the_thread_of_the_last_mail() {
    let mut desk = mail_desk(with_pool);
    let first = changed(mail(1, "m1", "Hello"), |letter| letter.subject = "Re: Lunch".into());
    bring(&mut desk, first);
    let second = changed(mail(1, "m2", "At one?"), |letter| {
        letter.subject = "AW: Re: Lunch".into();
        letter.references = vec!["m1@example.org".into()];
    });
    bring(&mut desk, second);
    inbox(&mut desk);
    write(&mut desk, 1, "answer", "7000", "Yes, at one");
    let (_, mail) = desk.mails.pop().unwrap();
    assert_eq!((mail.to.as_str(), mail.subject.as_str()), (CAROL, "Re: Lunch"));
    assert_eq!(mail.in_reply_to.as_deref(), Some("m2@example.org"));
    assert_eq!(mail.references, ["m1@example.org", "m2@example.org"]);
}

#[test]
fn a_box_without_mail_takes_none() {
    let mut desk = Desk::today();
    let reply = bring(&mut desk, mail(1, "m1", "Hello"));
    assert_eq!((reply.code, reply.status), (451, (4, 3, 2)));
    desk.handle(Input::Timeout);
}

// --- Whose words they are, and who gets the answer ---

#[test]
fn who_writes_is_who_stands_in_from_and_an_answer_goes_where_he_wants_it() {
    let mut desk = mail_desk(with_pool);
    bring(&mut desk, mail(1, "m1", "Hello"));
    // Somebody who would like to be her.
    let forged = changed(mail_from("eve@evil.example", 1, "e1", "Send money"), |letter| {
        letter.reply_to = Some(address(CAROL));
    });
    bring(&mut desk, forged);
    let shown: Vec<_> = inbox(&mut desk).into_iter().map(|(_, from, words)| (from, words)).collect();
    assert_eq!(shown[0], ("7000".into(), "carol@example.org: Hello".into()));
    assert_eq!(shown[1], ("7001".into(), "eve@evil.example: Send money".into()));
    bring(&mut desk, changed(mail(1, "m2", "Hello"), |letter| letter.reply_to = Some(address(DAVE))));
    assert_eq!(inbox(&mut desk)[0].1, "7000");
    write(&mut desk, 1, "a", "7000", "Yes");
    assert_eq!(desk.mails.pop().unwrap().1.to.as_str(), DAVE);
    bring(&mut desk, mail(1, "m3", "Hello"));
    inbox(&mut desk);
    write(&mut desk, 1, "b", "7000", "Yes again");
    assert_eq!(desk.mails.pop().unwrap().1.to.as_str(), CAROL);
}

#[test]
fn strangers_take_no_number_from_whoever_was_heard_of_this_day() {
    let mut desk = mail_desk(with_pool);
    for n in 0..10 {
        bring(&mut desk, mail_from(&format!("friend{n}@example.org"), 1, &format!("f{n}"), "Hello"));
    }
    inbox(&mut desk);
    for n in 0..30 {
        bring(&mut desk, mail_from(&format!("spam{n}@example.com"), 1, &format!("s{n}"), "x"));
        assert_eq!(inbox(&mut desk)[0].1, CENTRE, "{n}");
    }
    write(&mut desk, 1, "a", "7003", "For you");
    assert_eq!(desk.mails.pop().unwrap().1.to.as_str(), "friend3@example.org");
    bring(&mut desk, mail_from("friend4@example.org", 1, "f40", "Hello again"));
    inbox(&mut desk);
    write(&mut desk, 1, "b", CENTRE, "Who are you?");
    assert_eq!(desk.mails.pop().unwrap().1.to.as_str(), "spam29@example.com", "who came as from there last");
    // After a day somebody's is free, the one of who was silent for longest.
    desk.wait_s(25 * 3600);
    bring(&mut desk, mail_from("friend0@example.org", 1, "f10", "Hello"));
    assert_eq!(inbox(&mut desk)[0].1, "7000");
    bring(&mut desk, mail_from(DAVE, 1, "d1", "Hello"));
    assert_eq!(inbox(&mut desk)[0].1, "7001");
}

#[test]
fn who_is_only_asked_about_or_not_wanted_gives_his_number_to_a_friend() {
    let mut desk = mail_desk(|mail| {
        asking(mail);
        with_pool(mail);
        mail.reply_pool[0].last = Msisdn::parse("7001").unwrap();
    });
    for name in ["one", "two", "three"] {
        bring(&mut desk, mail_from(&format!("{name}@example.com"), 1, name, "x"));
    }
    assert_eq!(inbox(&mut desk).iter().map(|got| got.1.as_str()).collect::<Vec<_>>(), ["7000", "7001", CENTRE]);
    write(&mut desk, 1, "no", "7000", "no");
    inbox(&mut desk);
    write(&mut desk, 1, "late", "7000", "yes");
    assert!(inbox(&mut desk)[0].2.starts_with("Nobody has written to you from 7000"));
    set_mail(&mut desk, |mail| mail.first_contact = FirstContact::Accept);
    for (from, number) in [(CAROL, "7000"), (DAVE, "7001"), ("erin@example.org", CENTRE)] {
        bring(&mut desk, mail_from(from, 1, from, "Hello"));
        assert_eq!(inbox(&mut desk)[0].1, number, "{from}");
    }
}

#[test]
fn a_question_is_answered_by_yes_or_no_alone_and_within_a_week() {
    let mut desk = mail_desk(asking);
    bring(&mut desk, mail(1, "m1", "Hello"));
    inbox(&mut desk);
    for (id, words) in [("a", "ok"), ("b", "y"), ("c", "yes please")] {
        write(&mut desk, 1, id, CENTRE, words);
        inbox(&mut desk);
        assert_eq!(bring(&mut desk, mail(1, "m1", "Hello")).code, 451, "{words}");
    }
    desk.wait_s(8 * 86_400);
    for phone in [1, 2, 3] {
        desk.cell(phone, "bts", 9 + phone as u32, 3600);
    }
    desk.take_sent();
    write(&mut desk, 1, "d", CENTRE, "yes");
    inbox(&mut desk);
    assert_eq!(bring(&mut desk, mail(1, "m1", "Hello")).code, 451);
    assert!(inbox(&mut desk)[0].2.contains("wants to write to you"), "it is asked anew");
    write(&mut desk, 1, "e", CENTRE, " Yes! ");
    inbox(&mut desk);
    assert_eq!(bring(&mut desk, mail(1, "m1", "Hello")).code, 250);
}

#[test]
fn a_phone_that_has_not_read_one_question_is_not_asked_another() {
    let mut desk = mail_desk(asking);
    assert_eq!(bring(&mut desk, mail(0, "m1", "Hello")).code, 451);
    desk.wait_s(25 * 3600);
    assert_eq!(bring(&mut desk, mail_from(DAVE, 0, "d1", "Hi")).code, 451);
    assert_eq!(waiting(&desk).len(), 1);
}

#[test]
fn whoever_a_phone_has_only_written_to_takes_no_number_of_somebody_elses() {
    let mut desk = mail_desk(|mail| {
        with_pool(mail);
        mail.reply_pool[0].last = mail.reply_pool[0].first;
    });
    bring(&mut desk, mail_from(DAVE, 1, "d1", "Hello"));
    inbox(&mut desk);
    desk.wait_s(25 * 3600);
    write(&mut desk, 1, "a", CENTRE, "carol@example.org Hello");
    write(&mut desk, 1, "b", "7000", "Yes");
    assert_eq!(desk.mails.pop().unwrap().1.to.as_str(), DAVE);
}

// --- Refusals of some ---

#[test]
fn whoever_may_be_asked_about_no_more_today_keeps_nobody_else_waiting() {
    let mut desk = mail_desk(with_pool);
    bring(&mut desk, mail(1, "m1", "Hello"));
    set_mail(&mut desk, |mail| {
        asking(mail);
        mail.reply_pool[0].last = Msisdn::parse("7099").unwrap();
    });
    for n in 0..10 {
        bring(&mut desk, mail_from(&format!("spam{n}@example.com"), 2, &format!("s{n}"), "x"));
    }
    inbox(&mut desk);
    assert_eq!(bring(&mut desk, to_all(&[1, 2], "m2", "Hello")).code, 250);
    assert_eq!(inbox(&mut desk).len(), 1);
}

#[test]
fn a_refusal_that_cannot_be_told_refuses_all_for_now() {
    let mut desk = mail_desk(|mail| mail.count_max = 0);
    with_subscribers(&mut desk, |subscriber| subscriber.barred = subscriber.imsi == imsi(2));
    let some = to_all(&[0, 2], "m1", "Hello");
    desk.set(|settings| settings.messages.count_max = 1);
    let reply = bring(&mut desk, some.clone());
    assert_eq!((reply.code, reply.status, waiting(&desk).len()), (452, (4, 3, 1), 0));
    desk.set(|settings| settings.messages.count_max = 2);
    assert_eq!(bring(&mut desk, some).code, 250, "what phones may write is no bound of it");
    assert_eq!((waiting(&desk).len(), desk.mails.len()), (2, 1));
}

#[test]
fn no_flood_of_reports_comes_of_one_mail() {
    for refused in [10, 11] {
        let mut desk = mail_desk(|_| ());
        let mut mail = to_all(&[1], "m1", "Hello");
        for n in 0..refused {
            let nobody = Imsi::parse(&format!("0010100000099{n:02}")).unwrap();
            mail.recipients.push(Rcpt { to: RcptTo::Phone(nobody), ..rcpt(1) });
        }
        let reply = bring(&mut desk, mail);
        match refused {
            10 => assert_eq!((reply.code, waiting(&desk).len()), (250, 11)),
            _ => assert_eq!((reply.code, reply.status, waiting(&desk).len()), (452, (4, 5, 3), 0)),
        }
    }
}

// --- Between boxes ---

#[test]
fn a_text_of_a_box_whose_clock_was_not_set_is_of_now() {
    let mut desk = mail_desk(boxes);
    desk.wall.ms += 90 * 86_400_000;
    assert_eq!(bring(&mut desk, of_box("x1", relayed(1, 1_000_000))).code, 250);
    let text = waiting(&desk).remove(0);
    assert_eq!((text.timestamp_s / 60, text.life_ms), (desk.wall.ms / 60_000, 3_600_000));
}

#[test]
fn the_parts_of_a_box_are_one_text() {
    let mut desk = mail_desk(boxes);
    let parts = split(&"long ".repeat(50), &Cut::new(Reference::Short(5))).unwrap();
    let now_ms = desk.wall.ms;
    for (n, data) in parts.into_iter().enumerate() {
        let sms = Relayed { data, ..relayed(1, now_ms) };
        let mail = MailIn { recipients: vec![rcpt(0)], ..of_box(&format!("x{n}"), sms) };
        assert_eq!(bring(&mut desk, mail).code, 250);
    }
    let first = waiting(&desk).remove(0);
    assert!(matches!(&first.sender, Sender::Mail(from) if from.letter != 0), "each has a letter of its own");
    let ask = QueueAsk::Explain(first.number);
    let CommandAnswer::TextLife(shown) = desk.command(Command::Queue(ask)) else { panic!() };
    assert_eq!(shown.words, Some("long ".repeat(50)));
}

#[test]
fn who_wants_copies_gets_them_of_the_texts_of_another_box() {
    let mut desk = mail_desk(boxes);
    with_subscribers(&mut desk, |subscriber| {
        let copy_to = Some(address(DAVE));
        subscriber.mail = Some(Box::new(encamp::config::SubscriberMail { copy_to, ..Default::default() }));
    });
    let now_ms = desk.wall.ms;
    assert_eq!(bring(&mut desk, of_box("x1", relayed(1, now_ms))).code, 250);
    let (_, copy) = desk.mails.pop().unwrap();
    assert_eq!((copy.from, copy.to, copy.body), (None, address(DAVE), Body::Text("as it \u{e4}s".into())));
}

#[test]
fn what_is_automatic_stays_so_behind_a_hub() {
    let mut desk = mail_desk(boxes);
    let to = "{number}@sms.hill.example".to_owned();
    set_mail(&mut desk, |mail| mail.routes = vec![MailRoute { prefixes: vec!["+49".into()], to, is_box: true }]);
    for automatic in [true, false] {
        let far = MailIn { recipients: vec![elsewhere("+4930123")], ..mail(1, &format!("m{automatic}"), "Hello") };
        assert_eq!(bring(&mut desk, changed(far, |letter| letter.automatic = automatic)).code, 250);
        let (id, mail) = desk.mails.pop().unwrap();
        assert_eq!(mail.auto_submitted != AutoSubmitted::No, automatic);
        mail_taken(&mut desk, id, false);
    }
}
