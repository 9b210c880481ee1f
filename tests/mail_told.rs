//! What whoever wrote hears of the end: the writer of a mail by a notification, a phone by report or in words; and what others tell of a
//! phone's mail.

mod desk;

use desk::forms::{self, Came, came, error};
use desk::mail::{
    ALWAYS, CAROL, MAIL_DOMAIN, NEVER, address, bring, happened, mail_desk, mail_failed, mail_from, mail_settings,
    mail_taken, of_phone, set_mail, try_bring,
};

use desk::texts::{HILL, sms, submit};
use desk::{Desk, TODAY_MS, imsi};
use encamp::gsm::text;
use encamp::gsm::tpdu::Submit;
use encamp::mail::{
    Action, AutoSubmitted, Body, Bounce, BounceOf, MailFailure, MailIn, MailOut, Notify, Relayed, Report,
};
use encamp::seam::{Command, CommandAnswer, QueueAsk, QueuePick};
use encamp::sms::record::{self, FromMail, Letter, OldOf, Outgoing, Payload, Recipient, ReportWish, Sender, Text};
use encamp::store::memory::{MemoryStore, MemoryStores};
use encamp::store::{Batch, Store as _, StoreId};
use encamp::time::WallTime;

const DAY_MS: u64 = 86_400_000;
const FAILURE: Notify = Notify { success: false, failure: true, delay: false };
const LETTER: u64 = 900;
const FIRST: u64 = 901;
/// The text that is a mail of phone 1's.
const MAIL: u64 = 950;

// --- What stands on the disk ---

/// A start of the box on a disk with these texts, and what else belongs to them.
fn started_with(desk: &mut Desk, texts: &[Text], more: Vec<(Vec<u8>, Vec<u8>)>) {
    let mut batch = Batch::default().put(record::NEXT_KEY.to_vec(), record::encode_number(1_000));
    for text in texts {
        batch = batch.put(record::text_key(text.recipient, text.number), record::encode(text));
        let fate = record::Fate::Waits(text.recipient);
        batch = batch.put(record::fate_key(text.number), record::encode_fate(&fate));
    }
    batch = more.into_iter().fold(batch, |batch, (key, value)| batch.put(key, value));
    let store = desk.stores.stores.get_mut(&StoreId::Messages).unwrap();
    store.write(batch).unwrap();
    store.sync().unwrap();
    desk.restart();
    desk.take_sent();
    desk.mails.clear();
}

fn on_disk(desk: &Desk, key: &[u8]) -> Option<Vec<u8>> {
    desk.stores.stores[&StoreId::Messages].get(key).unwrap()
}

fn letter(notify: Notify, left: u32) -> Letter {
    Letter {
        from: address(CAROL),
        to: of_phone(2),
        orcpt: Some("rfc822;2002@sms.gsm.test".into()),
        notify,
        envid: Some("QQ+2B1".into()),
        message_id: Some("m1@example.org".into()),
        accepted_ms: TODAY_MS,
        headers: "Message-ID: <m1@example.org>\r\nSubject: hello\r\n".into(),
        left,
        failed: None,
    }
}

/// The texts that a mail of carol's became, for phone 2.
fn parts(count: u32) -> Vec<Text> {
    let part = |n: u32| {
        let from = FromMail { from: CAROL.into(), letter: LETTER };
        let data = text::encode(&format!("part {n}")).unwrap();
        let sender = Sender::Mail(Box::new(from));
        Text {
            number: FIRST + u64::from(n),
            timestamp_s: TODAY_MS / 1000 + u64::from(n),
            accepted_ms: TODAY_MS,
            life_ms: 7 * DAY_MS,
            dialled: "2002".into(),
            ..Text::new(Recipient::Phone(imsi(2)), sender, "1000".into(), Payload::Text(data))
        }
    };
    (0..count).map(part).collect()
}

/// A box that has taken a mail for phone 2 in so many parts.
fn with_letter(notify: Notify, count: u32) -> Desk {
    let mut desk = mail_desk(|_| {});
    let kept = (record::letter_key(LETTER), record::encode_letter(&letter(notify, count)));
    started_with(&mut desk, &parts(count), vec![kept]);
    desk
}

fn message_id() -> String {
    format!("{MAIL}.00112233aabbccdd@{MAIL_DOMAIN}")
}

fn wish(reference: u8) -> ReportWish {
    ReportWish { reference, dialled: "1000".into(), accepted_s: TODAY_MS / 1000 + u64::from(reference) }
}

/// A mail of phone 1's for carol.
fn outgoing(reports: Vec<ReportWish>) -> Outgoing {
    let mail = MailOut {
        from: Some(of_phone(1)),
        to: address(CAROL),
        header_from: of_phone(1),
        header_from_name: String::new(),
        subject: "hello".into(),
        body: Body::Text("hello".into()),
        message_id: message_id(),
        in_reply_to: None,
        references: Vec::new(),
        date_s: TODAY_MS / 1000,
        auto_submitted: AutoSubmitted::No,
        notify: Notify { success: !reports.is_empty(), failure: true, delay: false },
        envid: message_id().split('@').next().map(str::to_owned),
        traces: vec![MAIL_DOMAIN.into()],
    };
    Outgoing { mail, reports, letter: 0 }
}

fn of_sender(sender: Sender, outgoing: Outgoing) -> Text {
    let to = outgoing.mail.to.clone();
    let recipient = Recipient::Mail(to.key());
    Text {
        number: MAIL,
        timestamp_s: TODAY_MS / 1000,
        accepted_ms: TODAY_MS,
        life_ms: 5 * DAY_MS,
        dialled: to.to_string(),
        ..Text::new(recipient, sender, "2001".into(), Payload::Mail(Box::new(outgoing)))
    }
}

/// A box with a mail of phone 1's that is under way.
fn with_mail(outgoing: Outgoing) -> Desk {
    let mut desk = mail_desk(|_| {});
    started_with(&mut desk, &[of_sender(Sender::Phone(imsi(1)), outgoing)], Vec::new());
    desk.wait_s(4);
    assert_eq!(desk.mails.len(), 1);
    desk
}

// --- What is heard ---

/// What leaves for the phones within a minute, the next of it when the one before is taken.
fn heard(desk: &mut Desk) -> Vec<Came> {
    let mut heard = Vec::new();
    let mut left = came(desk);
    for _ in 0..60 {
        while !left.is_empty() {
            let next = left.remove(0);
            if next.code() > 0 {
                continue;
            }
            left.extend(forms::reply(desk, &next, "200 OK", &[]));
            heard.push(next);
        }
        desk.wait_s(1);
        left.extend(came(desk));
    }
    heard
}

/// TP-MR, TP-RA and TP-ST of the reports, and the words, that phone 1 gets within a minute.
fn told(desk: &mut Desk) -> (Vec<(u8, String, u8)>, Vec<String>) {
    let (reports, words): (Vec<Came>, Vec<Came>) = heard(desk).into_iter().partition(Came::is_report);
    assert!(words.iter().chain(&reports).all(|came| came.uri().contains(imsi(1).as_str())));
    let line = |came: &Came| {
        let report = came.report();
        assert_eq!(report.timestamp.unix_s(), Some(TODAY_MS / 1000 + u64::from(report.reference)));
        assert!(!report.of_command);
        (report.reference, report.recipient.number(), report.status.0)
    };
    (reports.iter().map(line).collect(), words.iter().map(Came::words).collect())
}

fn report_of(reference: u8, status: u8) -> (u8, String, u8) {
    (reference, "1000".into(), status)
}

/// The notifications that have left: each once, however often it was tried.
fn notifications(desk: &Desk) -> Vec<(MailOut, Report)> {
    let mut all: Vec<(MailOut, Report)> = Vec::new();
    for (_, mail) in &desk.mails {
        if let Body::Report(report) = &mail.body
            && all.iter().all(|(known, _)| known.message_id != mail.message_id)
        {
            all.push((mail.clone(), report.clone()));
        }
    }
    all
}

/// The one notification, which the relay has taken.
fn notification(desk: &mut Desk) -> (MailOut, Report) {
    let all = notifications(desk);
    assert_eq!(all.len(), 1, "{all:?}");
    let id = desk.mails.last().unwrap().0;
    mail_taken(desk, id, true);
    all.into_iter().next().unwrap()
}

fn drop_or_expire(desk: &mut Desk, ask: fn(QueuePick) -> QueueAsk, number: u64) {
    let answer = desk.command(Command::Queue(ask(QueuePick::Text(number))));
    assert!(matches!(answer, CommandAnswer::Texts { texts: 1 } | CommandAnswer::Done), "{answer:?}");
}

/// The next text for phone 2 is answered so.
fn answer(desk: &mut Desk, status: &str, rpdu: &[u8]) {
    for _ in 0..10 {
        let waiting: Vec<Came> = came(desk).into_iter().filter(|came| came.code() == 0).collect();
        if let [text] = &waiting[..] {
            let next = forms::reply(desk, text, status, rpdu);
            NEXT.with(|kept| *kept.borrow_mut() = next);
            return;
        }
        let kept = NEXT.with(|kept| std::mem::take(&mut *kept.borrow_mut()));
        if let [text] = &kept[..] {
            let next = forms::reply(desk, text, status, rpdu);
            NEXT.with(|kept| *kept.borrow_mut() = next);
            return;
        }
        desk.wait_s(1);
    }
    panic!("no text came");
}

thread_local! {
    /// What left when the text before was answered.
    static NEXT: std::cell::RefCell<Vec<Came>> = const { std::cell::RefCell::new(Vec::new()) };
}

// --- The writer of a mail ---

#[test]
fn a_delivery_that_was_asked_for_is_told_with_all_that_the_mail_said_of_itself() {
    let mut desk = with_letter(ALWAYS, 1);
    answer(&mut desk, "200 OK", &[]);
    let (mail, report) = notification(&mut desk);
    assert_eq!((mail.from, mail.to.as_str()), (None, CAROL));
    assert_eq!((mail.auto_submitted, mail.notify), (AutoSubmitted::Replied, NEVER));
    assert_eq!(mail.in_reply_to.as_deref(), Some("m1@example.org"));
    assert_eq!(mail.traces, [MAIL_DOMAIN]);
    let expected = Report {
        words: "Your mail of 2026-09-21 14:13 (UTC+00:00) to 2002@sms.gsm.test has arrived at the phone.\n".into(),
        reporting: MAIL_DOMAIN.into(),
        envid: Some("QQ+2B1".into()),
        arrived_s: TODAY_MS / 1000,
        orcpt: Some("rfc822;2002@sms.gsm.test".into()),
        recipient: "2002@sms.gsm.test".into(),
        action: Action::Delivered,
        status: (2, 0, 0),
        why: String::new(),
        headers: "Message-ID: <m1@example.org>\r\nSubject: hello\r\n".into(),
    };
    assert_eq!(report, expected);
    assert_eq!(on_disk(&desk, &record::letter_key(LETTER)), None);
}

#[test]
fn each_end_is_told_where_notify_asks_for_it_and_never_where_it_does_not() {
    type End = fn(&mut Desk);
    let delivered: End = |desk| answer(desk, "200 OK", &[]);
    let barred: End = |desk| answer(desk, "400 Bad Request", &error(21, None));
    let unknown: End = |desk| answer(desk, "400 Bad Request", &error(1, None));
    let no_such_texts: End = |desk| answer(desk, "400 Bad Request", &error(111, Some(0x90)));
    let dropped: End = |desk| drop_or_expire(desk, QueueAsk::Drop, FIRST);
    let expired: End = |desk| drop_or_expire(desk, QueueAsk::Expire, FIRST);
    let full: End = |desk| {
        answer(desk, "400 Bad Request", &error(22, None));
        drop_or_expire(desk, QueueAsk::Expire, FIRST);
    };
    for (name, end, action, status) in [
        ("delivered", delivered, Action::Delivered, (2, 0, 0)),
        ("barred", barred, Action::Failed, (5, 7, 1)),
        ("unknown", unknown, Action::Failed, (5, 1, 1)),
        ("no such texts", no_such_texts, Action::Failed, (5, 6, 1)),
        ("dropped", dropped, Action::Failed, (5, 7, 1)),
        ("expired", expired, Action::Failed, (4, 4, 7)),
        ("full", full, Action::Failed, (5, 2, 2)),
    ] {
        for notify in [NEVER, FAILURE, ALWAYS, Notify { failure: false, ..ALWAYS }] {
            let mut desk = with_letter(notify, 1);
            end(&mut desk);
            desk.wait_s(10);
            let is_asked = if action == Action::Failed { notify.failure } else { notify.success };
            if is_asked {
                let (_, report) = notification(&mut desk);
                assert_eq!((report.action, report.status), (action, status), "{name}");
                assert!(report.words.contains("2002@sms.gsm.test") && report.words.contains("14:13"), "{name}");
                assert!(action != Action::Failed || report.words.contains(&report.why), "{name}");
                assert!(action != Action::Failed || !report.why.is_empty(), "{name}");
            }
            assert_eq!(desk.mails.len(), usize::from(is_asked), "{name} {notify:?}");
            assert_eq!(on_disk(&desk, &record::letter_key(LETTER)), None, "{name}");
        }
    }
}

#[test]
fn a_mail_in_parts_is_told_of_once_and_failed_when_one_part_did() {
    for failing in [None, Some(0), Some(1), Some(2)] {
        let mut desk = with_letter(ALWAYS, 3);
        for part in 0..3 {
            assert!(desk.mails.is_empty(), "not before the last part");
            match failing == Some(part) {
                true => answer(&mut desk, "400 Bad Request", &error(1, None)),
                false => answer(&mut desk, "200 OK", &[]),
            }
        }
        let (_, report) = notification(&mut desk);
        let expected = match failing {
            None => (Action::Delivered, (2, 0, 0), ""),
            Some(_) => (Action::Failed, (5, 1, 1), "nobody has this number there"),
        };
        assert_eq!((report.action, report.status, report.why.as_str()), expected, "{failing:?}");
        desk.wait_s(10);
        assert_eq!(desk.mails.len(), 1);
    }
}

#[test]
fn parts_that_end_while_the_disk_is_full_are_counted_all_the_same() {
    let mut desk = mail_desk(|_| {});
    let kept = (record::letter_key(LETTER), record::encode_letter(&letter(ALWAYS, 3)));
    let soon_over: Vec<Text> = parts(3).into_iter().map(|part| Text { life_ms: 30_000, ..part }).collect();
    started_with(&mut desk, &soon_over, vec![kept]);
    answer(&mut desk, "480 No_Paging_Response", &[]);
    desk.stores.stores.get_mut(&StoreId::Messages).unwrap().set_full(true);
    desk.wait_s(60);
    assert!(desk.mails.is_empty());
    desk.stores.stores.get_mut(&StoreId::Messages).unwrap().set_full(false);
    desk.wait_s(3);
    let (_, report) = notification(&mut desk);
    assert_eq!((report.action, report.status), (Action::Failed, (4, 4, 7)));
}

#[test]
fn a_power_cut_in_any_moment_leaves_one_notification() {
    for notify in [ALWAYS, FAILURE] {
        for fails in [false, true] {
            for syncs in 0..12 {
                let mut desk = with_letter(notify, 2);
                desk.syncs_left = Some(syncs);
                let mut seen = Vec::new();
                play(&mut desk, fails, &mut seen);
                desk.restart();
                desk.syncs_left = None;
                desk.take_sent();
                play(&mut desk, fails, &mut seen);
                seen.sort();
                seen.dedup();
                let expected = usize::from(if fails { notify.failure } else { notify.success });
                assert_eq!(seen.len(), expected, "{notify:?}, fails: {fails}, power cut after {syncs} syncs");
                assert_eq!(on_disk(&desk, &record::letter_key(LETTER)), None);
            }
        }
    }
}

/// Both parts are answered, and whatever mail leaves is taken: the Message-IDs of what the relay was given.
fn play(desk: &mut Desk, fails: bool, seen: &mut Vec<String>) {
    for _ in 0..8 {
        for text in came(desk).into_iter().filter(|came| came.code() == 0) {
            let mut next = vec![text];
            while let Some(text) = next.pop() {
                next.extend(match fails {
                    true => forms::reply(desk, &text, "400 Bad Request", &error(1, None)),
                    false => forms::reply(desk, &text, "200 OK", &[]),
                });
            }
        }
        for (id, mail) in std::mem::take(&mut desk.mails) {
            seen.push(mail.message_id);
            mail_taken(desk, id, false);
        }
        desk.wait_s(1);
    }
}

#[test]
fn nobody_is_told_of_a_notification_that_nobody_takes() {
    let mut desk = with_letter(FAILURE, 1);
    answer(&mut desk, "400 Bad Request", &error(1, None));
    assert_eq!(notifications(&desk).len(), 1);
    let id = desk.mails[0].0;
    mail_failed(&mut desk, id, MailFailure::Permanent { code: 550, why: "5.1.1 no such user".into() });
    desk.wait_s(60);
    assert_eq!((desk.mails.len(), happened(&desk, "mail_report_lost")), (1, 1));
    assert!(heard(&mut desk).is_empty());
}

#[test]
fn a_delay_is_told_once_where_it_was_asked_for_and_the_end_afterwards() {
    for delay in [true, false] {
        let mut desk = mail_desk(|_| {});
        let notify = Notify { delay, ..FAILURE };
        let key = record::letter_key(LETTER);
        let list = record::old_key(TODAY_MS + 4 * 3_600_000, LETTER, OldOf::News);
        let mut more = vec![(key.clone(), record::encode_letter(&letter(notify, 1)))];
        if delay {
            more.push((list, record::encode_old(&[key])));
        }
        started_with(&mut desk, &parts(1), more);
        answer(&mut desk, "480 No_Paging_Response", &[]);
        desk.wait_s(4 * 3600 - 60);
        assert!(desk.mails.is_empty());
        desk.wait_s(120);
        if delay {
            let (mail, report) = notification(&mut desk);
            assert_eq!((report.action, report.status), (Action::Delayed, (4, 4, 1)));
            assert!(mail.subject.starts_with("Not delivered yet"));
        }
        desk.wait_s(4 * 3600);
        assert_eq!(desk.mails.len(), usize::from(delay));
        desk.mails.clear();
        drop_or_expire(&mut desk, QueueAsk::Expire, FIRST);
        let (_, report) = notification(&mut desk);
        assert_eq!((report.action, report.status), (Action::Failed, (4, 4, 7)));
        assert!(report.why.contains("the phone is absent"), "{}", report.why);
    }
}

#[test]
fn a_mail_that_passes_is_told_of_when_the_next_server_will_not_tell() {
    let passing = |from: Option<&str>, notify| {
        let mut desk = mail_desk(|_| {});
        let mut passing = outgoing(Vec::new());
        (passing.mail.from, passing.mail.notify, passing.letter) = (from.map(address), notify, LETTER);
        let from = FromMail { from: CAROL.into(), letter: LETTER };
        let text = of_sender(Sender::Mail(Box::new(from)), passing);
        let kept = (record::letter_key(LETTER), record::encode_letter(&letter(ALWAYS, 1)));
        started_with(&mut desk, &[text], vec![kept]);
        desk.wait_s(4);
        assert_eq!(desk.mails.len(), 1);
        desk
    };
    for (from, notify, will_tell, is_told) in [
        (Some(CAROL), ALWAYS, false, true),
        (Some(CAROL), ALWAYS, true, false),
        // Nobody would be told there, or not of all.
        (None, ALWAYS, true, true),
        (Some(CAROL), FAILURE, true, true),
    ] {
        let mut desk = passing(from, notify);
        let id = desk.mails.remove(0).0;
        mail_taken(&mut desk, id, will_tell);
        desk.wait_s(5);
        let actions: Vec<Action> = notifications(&desk).iter().map(|(_, report)| report.action).collect();
        assert_eq!(actions, vec![Action::Relayed; usize::from(is_told)], "{from:?} {will_tell}");
        assert_eq!(on_disk(&desk, &record::letter_key(LETTER)), None);
    }
    let mut desk = passing(Some(CAROL), ALWAYS);
    let id = desk.mails.remove(0).0;
    mail_failed(&mut desk, id, MailFailure::Permanent { code: 550, why: "5.1.1 no such user".into() });
    let (_, report) = notification(&mut desk);
    assert_eq!((report.action, report.why.as_str()), (Action::Failed, "5.1.1 no such user"));
}

#[test]
fn what_a_box_without_mail_has_to_tell_is_counted() {
    let mut desk = with_letter(ALWAYS, 1);
    desk.set(|settings| settings.mail = None);
    answer(&mut desk, "200 OK", &[]);
    assert_eq!((desk.mails.len(), happened(&desk, "mail_not_told")), (0, 1));
}

// --- A phone whose mail is handed over ---

#[test]
fn a_phone_hears_what_it_asked_for_when_its_mail_is_handed_over() {
    for (reports, will_tell) in
        [(vec![], false), (vec![], true), (vec![wish(7)], false), (vec![wish(7), wish(9)], false)]
    {
        let mut desk = with_mail(outgoing(reports.clone()));
        let id = desk.mails[0].0;
        mail_taken(&mut desk, id, will_tell);
        let expected: Vec<_> = reports.iter().map(|wish| report_of(wish.reference, 0x01)).collect();
        assert_eq!(told(&mut desk), (expected, vec![]), "{reports:?}");
    }
}

#[test]
fn a_mail_that_is_not_taken_is_reported_where_that_was_asked_and_else_told_in_words() {
    let permanent = |why: &str| MailFailure::Permanent { code: 550, why: why.into() };
    for (why, status, words) in [
        ("5.1.1 <carol@example.org>: Recipient address rejected", 0x43, "there is no such mailbox"),
        ("5.2.2 over quota", 0x65, "the mailbox is full"),
        ("5.7.1 go away", 0x42, "it was refused"),
        ("Nein, danke.", 0x42, "Nein, danke"),
    ] {
        let mut desk = with_mail(outgoing(vec![wish(7)]));
        let id = desk.mails[0].0;
        mail_failed(&mut desk, id, permanent(why));
        assert_eq!(told(&mut desk), (vec![report_of(7, status)], vec![]), "{why}");
        let mut desk = with_mail(outgoing(vec![]));
        let id = desk.mails[0].0;
        mail_failed(&mut desk, id, permanent(why));
        let expected = format!("Your text of 14:13 to carol@example.org could not be delivered: {words}.");
        assert_eq!(told(&mut desk), (vec![], vec![expected]), "{why}");
        assert!(desk.mails.len() == 1, "no mail tells of it");
    }
}

#[test]
fn the_end_of_a_mails_time_is_told_and_what_the_operator_removes_is_not_told_in_words() {
    let later = || MailFailure::Temporary { code: 450, why: "4.2.1 later".into() };
    let mut desk = with_mail(outgoing(vec![]));
    let id = desk.mails[0].0;
    mail_failed(&mut desk, id, later());
    drop_or_expire(&mut desk, QueueAsk::Expire, MAIL);
    let expected = "Your text of 14:13 to carol@example.org could not be delivered: its time was over.";
    assert_eq!(told(&mut desk), (vec![], vec![expected.into()]));
    for (wishes, explain, ask, expected) in [
        (vec![wish(7)], true, QueueAsk::Expire as fn(QueuePick) -> QueueAsk, vec![report_of(7, 0x46)]),
        (vec![wish(7)], true, QueueAsk::Drop, vec![report_of(7, 0x48)]),
        (vec![], true, QueueAsk::Drop, vec![]),
        (vec![], false, QueueAsk::Expire, vec![]),
    ] {
        let mut desk = with_mail(outgoing(wishes));
        desk.set(|settings| settings.messages.explain = explain);
        let id = desk.mails[0].0;
        mail_failed(&mut desk, id, later());
        drop_or_expire(&mut desk, ask, MAIL);
        assert_eq!(told(&mut desk), (expected, vec![]));
    }
}

#[test]
fn a_clock_that_is_put_right_makes_no_delay_and_ends_no_wait() {
    let mut stores = MemoryStores::default();
    for id in [StoreId::Node, StoreId::Messages, StoreId::Replica(0), StoreId::Replica(1)] {
        stores.stores.insert(id, MemoryStore::new());
    }
    let unset = WallTime { ms: 1_000_000, trusted: false };
    let mut desk = Desk::of(unset, mail_settings(|_| {}), stores);
    let mut asked = mail_from(CAROL, 2, "m1", "hello");
    asked.recipients[0].notify = Some(Notify { delay: true, ..FAILURE });
    assert_eq!(bring(&mut desk, asked).code, 250);
    assert_eq!(desk.cell(1, "bts", 1, 3600), 200);
    desk.take_sent();
    let wished = Submit { report_wanted: true, ..submit("1000", "carol@example.org hello", 7) };
    desk.send(HILL, desk::texts::FRONT, &sms(1, HILL, "a", &wished));
    let (id, _) = desk.mails.pop().unwrap();
    mail_taken(&mut desk, id, true);
    desk.wall = WallTime { ms: TODAY_MS, trusted: true };
    desk.wait_s(3600);
    assert!(desk.mails.is_empty() && heard(&mut desk).is_empty());
    desk.wait_s(3 * 3600 + 120);
    assert_eq!(notification(&mut desk).1.action, Action::Delayed);
    assert!(heard(&mut desk).is_empty());
    desk.wait_s(21 * 3600);
    assert!(!heard(&mut desk).is_empty(), "its report");
}

#[test]
fn reports_wait_a_day_for_whoever_tells_and_say_then_what_is_known() {
    let mut desk = with_mail(outgoing(vec![wish(7), wish(9)]));
    let id = desk.mails[0].0;
    mail_taken(&mut desk, id, true);
    assert!(heard(&mut desk).is_empty());
    desk.wait_s(12 * 3600);
    desk.restart();
    assert!(heard(&mut desk).is_empty());
    desk.wait_s(12 * 3600 - 400);
    assert!(heard(&mut desk).is_empty());
    // Three minutes went by while it was listened.
    desk.wait_s(200);
    assert_eq!(told(&mut desk), (vec![report_of(7, 0x01), report_of(9, 0x01)], vec![]));
    assert_eq!(on_disk(&desk, &record::awaited_key(MAIL)), None);
    desk.wait_s(24 * 3600);
    assert!(heard(&mut desk).is_empty());
}

#[test]
fn reports_of_a_text_for_another_box_wait_as_long_as_it_may_live_there() {
    let mut forwarded = outgoing(vec![wish(7)]);
    let data = text::encode("hello").unwrap();
    let (from, to) = ("2001".to_owned(), "3001".to_owned());
    let sms = Relayed {
        from,
        to,
        accepted_ms: TODAY_MS,
        life_ms: 2 * DAY_MS,
        single_shot: false,
        protocol: 0,
        reply_path: false,
        hops: 9,
        data,
    };
    forwarded.mail.body = Body::Sms { words: "hello".into(), sms };
    let mut desk = with_mail(forwarded);
    let id = desk.mails[0].0;
    mail_taken(&mut desk, id, true);
    desk.wait_s(2 * 24 * 3600);
    assert!(heard(&mut desk).is_empty());
    assert_eq!(bring(&mut desk, bounce(told_of(Action::Delivered, Some((2, 0, 0)), ""))).code, 250);
    assert_eq!(told(&mut desk).0, [report_of(7, 0x00)]);
}

// --- What others tell ---

fn told_of(action: Action, status: Option<(u8, u16, u16)>, why: &str) -> Bounce {
    let recipients = vec![BounceOf { recipient: CAROL.into(), action, status, why: why.into() }];
    Bounce { envid: None, message_id: Some(message_id()), recipients }
}

/// A mail from `<>` to phone 1 that tells this.
fn bounce(told: Bounce) -> MailIn {
    let mut mail = mail_from("", 1, "bounce", "Undelivered Mail Returned to Sender");
    mail.letter.bounce = Some(told);
    mail.letter.automatic = true;
    mail
}

/// Phone 1's mail has been handed over.
fn handed_over(reports: Vec<ReportWish>, will_tell: bool) -> Desk {
    let mut desk = with_mail(outgoing(reports));
    let id = desk.mails.remove(0).0;
    mail_taken(&mut desk, id, will_tell);
    desk
}

#[test]
fn a_mail_that_comes_back_is_told_in_words_once() {
    for (status, why, words) in [
        (Some((5, 1, 1)), "550 5.1.1 unknown", "there is no such mailbox"),
        (Some((4, 2, 2)), "", "the mailbox is full"),
        (Some((5, 7, 1)), "554 spam", "it was refused"),
        (None, "550 5.1.1 unknown", "there is no such mailbox"),
        (Some((5, 0, 0)), "550 Gr\u{fc}\u{df}e\r\nan alle", "550 Gr??e an alle"),
        (Some((5, 0, 0)), "", "nobody says why"),
    ] {
        let mut desk = handed_over(vec![], true);
        let told_of = told_of(Action::Failed, status, why);
        for _ in 0..3 {
            assert_eq!(bring(&mut desk, bounce(told_of.clone())).code, 250);
        }
        let expected = format!("Your text of 14:13 to carol@example.org did not arrive: {words}.");
        assert_eq!(told(&mut desk), (vec![], vec![expected]), "{why}");
        desk.wait_s(3600);
        assert_eq!(bring(&mut desk, bounce(told_of)).code, 250);
        assert!(heard(&mut desk).is_empty());
        assert_eq!((happened(&desk, "mail_came_back"), happened(&desk, "bounce_ignored")), (1, 3));
        assert!(desk.mails.is_empty(), "nobody answers it");
    }
}

#[test]
fn what_is_told_of_an_awaited_mail_is_reported_once() {
    for (action, status, expected) in [
        (Action::Delivered, Some((2, 0, 0)), 0x00),
        (Action::Relayed, Some((2, 0, 0)), 0x01),
        (Action::Expanded, None, 0x01),
        (Action::Failed, Some((5, 1, 1)), 0x43),
        (Action::Failed, Some((4, 4, 7)), 0x46),
        (Action::Failed, Some((5, 2, 2)), 0x65),
        (Action::Failed, None, 0x40),
    ] {
        let mut desk = handed_over(vec![wish(7), wish(9)], true);
        // That it is tried still is no end.
        assert_eq!(bring(&mut desk, bounce(told_of(Action::Delayed, Some((4, 4, 1)), ""))).code, 250);
        assert!(heard(&mut desk).is_empty());
        for _ in 0..2 {
            assert_eq!(bring(&mut desk, bounce(told_of(action, status, ""))).code, 250);
        }
        assert_eq!(told(&mut desk), (vec![report_of(7, expected), report_of(9, expected)], vec![]), "{action:?}");
        desk.wait_s(25 * 3600);
        assert!(heard(&mut desk).is_empty());
    }
}

#[test]
fn a_mail_that_comes_back_after_its_report_is_told_in_words() {
    let mut desk = handed_over(vec![wish(7)], false);
    assert_eq!(told(&mut desk).0, [report_of(7, 0x01)]);
    assert_eq!(bring(&mut desk, bounce(told_of(Action::Failed, Some((5, 2, 2)), ""))).code, 250);
    let expected = "Your text of 14:13 to carol@example.org did not arrive: the mailbox is full.";
    assert_eq!(told(&mut desk), (vec![], vec![expected.into()]));
}

#[test]
fn what_is_forged_or_unknown_is_taken_and_forgotten() {
    let with = |change: fn(&mut MailIn, &mut Bounce)| {
        let mut told = told_of(Action::Failed, Some((5, 1, 1)), "");
        let mut mail = bounce(Bounce::default());
        change(&mut mail, &mut told);
        mail.letter.bounce = Some(told);
        mail
    };
    let mut desk = handed_over(vec![wish(7)], true);
    for (name, mail) in [
        ("no id at all", with(|_, told| told.message_id = None)),
        ("other dice", with(|_, told| told.message_id = Some(format!("{MAIL}.00112233aabbccde@{MAIL_DOMAIN}")))),
        ("cut dice", with(|_, told| told.message_id = Some(format!("{MAIL}.@{MAIL_DOMAIN}")))),
        ("another number", with(|_, told| told.message_id = Some(format!("1.00112233aabbccdd@{MAIL_DOMAIN}")))),
        ("another domain", with(|_, told| told.message_id = Some(format!("{MAIL}.00112233aabbccdd@example.org")))),
        ("no number", with(|_, told| told.message_id = Some(format!("x.00112233aabbccdd@{MAIL_DOMAIN}")))),
        ("another phone", with(|mail, _| mail.recipients = vec![desk::mail::rcpt(2)])),
        ("nobody here", with(|mail, _| mail.recipients = vec![desk::mail::elsewhere("3001")])),
        ("delayed", with(|_, told| told.recipients[0].action = Action::Delayed)),
    ] {
        let before = happened(&desk, "bounce_ignored");
        assert_eq!(bring(&mut desk, mail).code, 250, "{name}");
        assert!(heard(&mut desk).is_empty(), "{name}");
        assert_eq!(happened(&desk, "bounce_ignored"), before + 1, "{name}");
    }
    // It is found all the same, by its ENVID too, and in brackets.
    let mut mail = with(|_, told| {
        (told.message_id, told.envid) = (None, message_id().split('@').next().map(str::to_owned));
        told.recipients[0].recipient = "carol.s@elsewhere.example".into();
    });
    mail.each_answered = true;
    mail.recipients.push(desk::mail::rcpt(2));
    let replies = try_bring(&mut desk, mail).unwrap();
    assert_eq!(replies.iter().map(|reply| reply.code).collect::<Vec<_>>(), [250, 250]);
    assert_eq!(told(&mut desk).0, [report_of(7, 0x43)]);
}

#[test]
fn a_bounce_in_words_alone_is_believed_and_a_delivery_that_nobody_asked_for_is_not_told() {
    let mut desk = handed_over(vec![], false);
    assert_eq!(bring(&mut desk, bounce(told_of(Action::Delivered, Some((2, 0, 0)), ""))).code, 250);
    assert!(heard(&mut desk).is_empty());
    let in_words = Bounce { message_id: Some(format!("<{}>", message_id())), ..Bounce::default() };
    assert_eq!(bring(&mut desk, bounce(in_words)).code, 250);
    let expected = "Your text of 14:13 to carol@example.org did not arrive: nobody says why.";
    assert_eq!(told(&mut desk).1, [expected]);
}

#[test]
fn what_comes_back_before_the_relays_yes_comes_again() {
    let mut desk = with_mail(outgoing(vec![]));
    let told_of = told_of(Action::Failed, Some((5, 1, 1)), "");
    assert_eq!(bring(&mut desk, bounce(told_of.clone())).code, 451);
    let id = desk.mails[0].0;
    mail_taken(&mut desk, id, true);
    assert_eq!(bring(&mut desk, bounce(told_of)).code, 250);
    assert_eq!(told(&mut desk).1.len(), 1);
}

#[test]
fn a_full_disk_refuses_what_is_told_for_now_and_a_full_queue_drops_it() {
    let mut desk = handed_over(vec![], false);
    let told_of = told_of(Action::Failed, Some((5, 1, 1)), "");
    desk.stores.stores.get_mut(&StoreId::Messages).unwrap().set_full(true);
    assert_eq!(bring(&mut desk, bounce(told_of.clone())).code, 451);
    desk.stores.stores.get_mut(&StoreId::Messages).unwrap().set_full(false);
    desk.wait_s(2);
    desk.set(|settings| settings.messages.count_per_phone_max = 0);
    assert_eq!(bring(&mut desk, bounce(told_of)).code, 250);
    assert_eq!((told(&mut desk), happened(&desk, "text_not_told")), ((vec![], vec![]), 1));
}

#[test]
fn a_power_cut_in_any_moment_leaves_one_word_of_each_mail() {
    for wishes in [vec![], vec![wish(7)]] {
        for syncs in 0..8 {
            let mut desk = with_mail(outgoing(wishes.clone()));
            desk.syncs_left = Some(syncs);
            let (id, _) = desk.mails.remove(0);
            mail_taken(&mut desk, id, true);
            let told_of = told_of(Action::Failed, Some((5, 1, 1)), "");
            let first = try_bring(&mut desk, bounce(told_of.clone())).map(|replies| replies[0].code);
            desk.restart();
            (desk.syncs_left, desk.slow) = (None, false);
            desk.take_sent();
            desk.wait_s(4);
            // Where the yes of the relay was lost, it is given the mail again.
            while let Some((id, mail)) = desk.mails.pop() {
                assert_eq!(mail.message_id, message_id());
                mail_taken(&mut desk, id, true);
            }
            if first != Some(250) {
                assert_eq!(bring(&mut desk, bounce(told_of.clone())).code, 250, "after {syncs} syncs");
            }
            assert_eq!(bring(&mut desk, bounce(told_of)).code, 250);
            let (reports, words) = told(&mut desk);
            assert_eq!((reports.len(), words.len()), (wishes.len(), 1 - wishes.len()), "after {syncs} syncs");
            desk.wait_s(25 * 3600);
            assert!(heard(&mut desk).is_empty());
        }
    }
}

// --- Two boxes ---

/// As the other box reads it, which hears `domain` for its own.
fn as_bounce(mail: &MailOut, report: &Report, phone: u64) -> MailIn {
    let told = BounceOf {
        recipient: report.recipient.clone(),
        action: report.action,
        status: Some(report.status),
        why: report.why.clone(),
    };
    let mut back = mail_from("", phone, &mail.message_id, &report.words);
    let message_id = mail.in_reply_to.clone();
    back.letter.bounce = Some(Bounce { envid: report.envid.clone(), message_id, recipients: vec![told] });
    back
}

#[test]
fn a_notification_between_two_boxes_is_a_report_there_and_nobody_answers_it() {
    for (ends, expected) in [("200 OK", 0x00), ("400 Bad Request", 0x43)] {
        // Phone 1 at home wrote to a phone of the other box, which has taken the mail.
        let mut home = handed_over(vec![wish(7)], true);
        let mut letter = letter(ALWAYS, 1);
        (letter.from, letter.message_id) = (of_phone(1), Some(message_id()));
        letter.envid = message_id().split('@').next().map(str::to_owned);
        let mut there = mail_desk(|mail| mail.domain = "sms.there.test".into());
        let kept = (record::letter_key(LETTER), record::encode_letter(&letter));
        started_with(&mut there, &parts(1), vec![kept]);
        answer(&mut there, ends, &if expected == 0 { vec![] } else { error(1, None) });
        let (mail, report) = notification(&mut there);
        assert_eq!(mail.to, of_phone(1));
        assert_eq!(bring(&mut home, as_bounce(&mail, &report, 1)).code, 250);
        assert_eq!(told(&mut home), (vec![report_of(7, expected)], vec![]));
        // What comes back to the box that told, from wherever, ends there.
        assert_eq!(bring(&mut there, as_bounce(&mail, &report, 2)).code, 250);
        set_mail(&mut there, |mail| mail.domain = MAIL_DOMAIN.into());
        assert_eq!(bring(&mut there, as_bounce(&mail, &report, 2)).code, 250);
        there.wait_s(60);
        assert_eq!((home.mails.len(), there.mails.len()), (0, 1));
    }
}

// --- From one end to the other ---

#[test]
fn a_mail_that_comes_is_told_of_and_one_that_nobody_may_answer_is_not() {
    type Change = fn(&mut MailIn);
    for (name, change, is_told) in [
        ("default", (|_| {}) as Change, true),
        ("never", |mail| mail.recipients[0].notify = Some(NEVER), false),
        ("automatic, a list, bulk", |mail| mail.letter.automatic = true, false),
    ] {
        let mut desk = mail_desk(|_| {});
        let mut mail = mail_from(CAROL, 2, "m1", "hello");
        mail.envid = Some("QQ1".into());
        change(&mut mail);
        assert_eq!(bring(&mut desk, mail).code, 250, "{name}");
        answer(&mut desk, "400 Bad Request", &error(1, None));
        desk.wait_s(10);
        assert_eq!(desk.mails.len(), usize::from(is_told), "{name}");
        if is_told {
            let (mail, report) = notification(&mut desk);
            assert_eq!((mail.to.as_str(), report.action, report.status), (CAROL, Action::Failed, (5, 1, 1)));
            assert_eq!((report.envid.as_deref(), report.headers.contains("<m1@example.org>")), (Some("QQ1"), true));
        }
    }
}

#[test]
fn what_is_told_of_a_mail_that_a_phone_wrote_finds_its_report() {
    let mut desk = mail_desk(|_| {});
    let written = Submit { report_wanted: true, ..submit("1000", "carol@example.org Hello", 77) };
    assert_eq!(forms::tell(&mut desk, HILL, sms(1, HILL, "a", &written).as_bytes()).0, 202);
    let (id, mail) = desk.mails.remove(0);
    assert!(mail.notify.success && mail.notify.failure);
    mail_taken(&mut desk, id, true);
    assert!(heard(&mut desk).is_empty());
    let recipients = told_of(Action::Delivered, Some((2, 0, 0)), "").recipients;
    let told = Bounce { envid: mail.envid, message_id: None, recipients };
    assert_eq!(bring(&mut desk, bounce(told)).code, 250);
    let reports: Vec<_> = heard(&mut desk).iter().map(Came::report).collect();
    assert_eq!(reports.len(), 1);
    assert_eq!((reports[0].reference, reports[0].status.0), (77, 0x00));
    assert_eq!(reports[0].recipient.number(), "1000");
}
