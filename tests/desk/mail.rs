//! A box with a mail domain; mail that comes to it, and what becomes of mail that leaves.

use std::sync::Arc;

use encamp::config::{Mail, Settings};
use encamp::ident::Msisdn;
use encamp::mail::address::Address;
use encamp::mail::{Letter, MailFailure, MailIn, MailTaken, Notify, Peer, Rcpt, RcptTo, Reply};
use encamp::seam::Input;

use super::forms::desk_of;
use super::texts::{answered, take};
use super::{Desk, imsi, settings};

pub const CAROL: &str = "carol@example.org";
pub const DAVE: &str = "dave@example.org";
/// Number@this is a phone of the desk's.
pub const MAIL_DOMAIN: &str = "sms.gsm.test";
/// As whose texts mail comes where there is no pool; the first and the last number of [`with_pool`].
pub const CENTRE: &str = "1000";
pub const POOL: [&str; 2] = ["7000", "7009"];

/// The settings of the desk, with every default of `[mail]`, changed by this.
pub fn mail_settings(change: impl FnOnce(&mut Mail)) -> Settings {
    let mut settings = settings();
    let mut mail = Mail::of("gsm.test");
    change(&mut mail);
    settings.mail = Some(Arc::new(mail));
    settings
}

/// The operator changes `[mail]`.
pub fn set_mail(desk: &mut Desk, change: impl FnOnce(&mut Mail)) {
    desk.set(|settings| change(Arc::make_mut(settings.mail.as_mut().expect("a box with mail"))));
}

/// Each who writes to one phone has a number of his own there.
pub fn with_pool(mail: &mut Mail) {
    let [first, last] = POOL.map(|number| Msisdn::parse(number).unwrap());
    mail.reply_pool = vec![encamp::config::mailing::NumberRange { first, last }];
}

/// A box with mail where phones 1, 2 and 3 are bound.
pub fn mail_desk(change: impl FnOnce(&mut Mail)) -> Desk {
    let mut desk = desk_of(mail_settings(change));
    for phone in [1, 2, 3] {
        assert_eq!(desk.cell(phone, "bts", phone as u32, 3600), 200);
    }
    desk.take_sent();
    desk
}

pub fn address(text: &str) -> Address {
    Address::parse(text).unwrap()
}

/// The address of a phone of the desk's.
pub fn of_phone(phone: u64) -> Address {
    address(&format!("200{phone}@{MAIL_DOMAIN}"))
}

/// As RCPT lets it in: `number@domain`, without ORCPT and NOTIFY.
pub fn rcpt(phone: u64) -> Rcpt {
    let (to, typed) = (RcptTo::Phone(imsi(phone)), of_phone(phone));
    Rcpt { to, typed, notify: None, orcpt: None, link: None }
}

pub fn elsewhere(number: &str) -> Rcpt {
    let typed = address(&format!("{number}@{MAIL_DOMAIN}"));
    Rcpt { to: RcptTo::Elsewhere(Msisdn::parse(number).unwrap()), typed, notify: None, orcpt: None, link: None }
}

pub const NEVER: Notify = Notify { success: false, failure: false, delay: false };
pub const ALWAYS: Notify = Notify { success: true, failure: true, delay: false };

/// A mail of carol's to one phone, by SMTP, over a relay without a name of note. The id is its Message-ID and makes its digest.
pub fn mail(phone: u64, id: &str, words: &str) -> MailIn {
    mail_from(CAROL, phone, id, words)
}

pub fn mail_from(from: &str, phone: u64, id: &str, words: &str) -> MailIn {
    let mut digest = [0; 16];
    for (at, byte) in id.bytes().chain(words.bytes()).enumerate() {
        digest[at % 16] = u8::rotate_left(digest[at % 16], 1) ^ byte;
    }
    let from = (!from.is_empty()).then(|| address(from));
    let message_id = format!("{id}@example.org");
    MailIn {
        from: from.clone(),
        peer: Peer {
            ip: "198.51.100.25".parse().unwrap(),
            hello: "mx.example.org".into(),
            user: None,
            is_encrypted: true,
        },
        recipients: vec![rcpt(phone)],
        envid: None,
        each_answered: false,
        letter: Letter {
            message_id: Some(message_id.clone()),
            from,
            text: words.into(),
            received_count: 2,
            headers: format!("Message-ID: <{message_id}>\r\n").into_bytes(),
            digest,
            ..Letter::default()
        },
    }
}

/// A mail comes; what is said to it, where that is at once.
pub fn try_bring(desk: &mut Desk, mail: MailIn) -> Option<Vec<Reply>> {
    desk.mail_answers.clear();
    desk.handle(Input::Mail { id: 7, mail: Box::new(mail) });
    let (id, replies) = desk.mail_answers.pop()?;
    assert_eq!((id, desk.mail_answers.len()), (7, 0), "one answer to one mail");
    Some(replies)
}

/// The one reply to a mail.
pub fn bring(desk: &mut Desk, mail: MailIn) -> Reply {
    let mut replies = try_bring(desk, mail).expect("an answer at once");
    assert_eq!(replies.len(), 1, "{replies:?}");
    let reply = replies.remove(0);
    let class = u8::try_from(reply.code / 100).unwrap();
    assert_eq!(reply.status.0, class, "the status says what the code says: {reply:?}");
    assert!(reply.text.is_ascii() && !reply.text.contains(['\r', '\n']), "{reply:?}");
    reply
}

/// Every phone takes what it is sent, until nothing is sent any more: which phone, whom it shows as the sender, the words of each part.
pub fn inbox(desk: &mut Desk) -> Vec<(u64, String, String)> {
    let mut got = Vec::new();
    let mut mts = take(desk);
    while !mts.is_empty() {
        let mt = mts.remove(0);
        let user = mt.sip.strip_prefix("MESSAGE sip:IMSI").unwrap();
        got.push((user[11..15].parse().unwrap(), mt.deliver.originator.number(), mt.words()));
        mts.extend(answered(desk, &mt, "200 OK"));
    }
    got
}

/// The relay, or the server of a domain, has taken the mail of this number (the first of [`Desk::mails`]' pair).
pub fn mail_taken(desk: &mut Desk, id: u64, will_tell: bool) {
    let taken = MailTaken { by: "mail.example".into(), code: 250, said: "2.0.0 queued".into(), will_tell };
    desk.handle(Input::MailSent { id, result: Ok(taken) });
}

pub fn mail_failed(desk: &mut Desk, id: u64, failure: MailFailure) {
    desk.handle(Input::MailSent { id, result: Err(failure) });
}

pub fn happened(desk: &Desk, name: &str) -> usize {
    desk.events.iter().filter(|event| event.name() == name).count()
}
