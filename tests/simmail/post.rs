//! The mail outside: servers that bring it and try for days, a relay with its moods, and people who answer.

use encamp::mail::address::Address;
use encamp::mail::{
    Action, AutoSubmitted, Body, Bounce, BounceOf, Letter, MailFailure, MailIn, MailOut, MailTaken, Notify, Peer, Rcpt,
    RcptTo, Reply, admit,
};
use encamp::seam::Input;

use crate::boxes::*;
use crate::checks::{LOOPS, Mail};
use crate::wire::token;
use crate::world::{Breaker, Ev, HOUR, MINUTE, MS, SECOND, World};

/// A server gives up after this.
const PATIENCE_US: u64 = 4 * 24 * HOUR;
const FIRST_PAUSE_US: u64 = 3 * MINUTE;
const LONGEST_PAUSE_US: u64 = 2 * HOUR;
/// So long it waits for the answer to a mail.
const ANSWER_US: u64 = 10 * MINUTE;
/// Nobody writes for ever.
const REPLIES_MAX: usize = 40;

/// A mail in the queue of a server that brings it to a box.
pub struct Carried {
    mail: MailIn,
    which: usize,
    pub about: Option<usize>,
    tries: u32,
    first_us: u64,
    pub is_done: bool,
    pub gave_up: bool,
}

/// Whose answer a box is thinking about.
pub enum Flight {
    Carried(usize),
    /// A mail of the other box, in this life of it, under this number.
    Hop {
        from: usize,
        life: u32,
        id: u64,
    },
}

#[derive(Default)]
pub struct Relay {
    /// Nobody reaches it until then.
    pub down_until_us: u64,
    pub offers_dsn: bool,
}

impl World {
    // --- Servers that bring mail ---

    /// Somebody writes to some phones of one box.
    pub fn write_mail(&mut self, mail: Mail) {
        let which = box_of(mail.to[0].0);
        let index = self.ledger.mails.len();
        let digest = u128::from_be_bytes([index as u8 + 1; 16]).to_be_bytes();
        let id = format!("m{index}@far.example");
        let text = mail.words.replace("{}", &index.to_string());
        let rcpt = |(phone, notify): &(usize, Option<Notify>)| Rcpt {
            to: RcptTo::Phone(imsi(*phone)),
            typed: address(&address_of(*phone)),
            notify: *notify,
            orcpt: None,
            link: None,
        };
        let letter = Letter {
            message_id: Some(id.clone()),
            references: mail.references.clone(),
            from: Some(mail.writer.clone()),
            text: text.clone(),
            automatic: mail.automatic,
            received_count: 2,
            headers: format!("Message-ID: <{id}>\r\n").into_bytes(),
            digest,
            ..Letter::default()
        };
        let mail_in = MailIn {
            from: (!mail.is_null).then(|| mail.writer.clone()),
            peer: peer_outside(),
            recipients: mail.to.iter().map(rcpt).collect(),
            envid: None,
            each_answered: mail.each_answered,
            letter,
        };
        self.tell(|| format!("{} writes m{index} to {:?}, {} characters", mail.writer, mail.to, text.len()));
        self.ledger.mails.push(Mail { words: text, ..mail });
        self.carry(mail_in, which, Some(index));
    }

    fn carry(&mut self, mail: MailIn, which: usize, about: Option<usize>) {
        let first_us = self.now_us;
        let (tries, is_done, gave_up) = (0, false, false);
        self.carried.push(Carried { mail, which, about, tries, first_us, is_done, gave_up });
        let index = self.carried.len() - 1;
        let late_us = self.rng.below(2 * SECOND);
        self.later(late_us, Ev::Bring(index));
    }

    fn bring_again(&mut self, index: usize) {
        let tries = self.carried[index].tries.min(10);
        let pause_us = (FIRST_PAUSE_US << tries.saturating_sub(1)).min(LONGEST_PAUSE_US);
        let pause_us = pause_us / 2 + self.rng.below(pause_us);
        if self.now_us + pause_us > self.carried[index].first_us + PATIENCE_US {
            self.meet("a server gives up");
            self.tell(|| format!("carried {index} is given up"));
            (self.carried[index].is_done, self.carried[index].gave_up) = (true, true);
            return;
        }
        self.later(pause_us, Ev::Bring(index));
    }

    pub fn bring(&mut self, index: usize) {
        let one = &mut self.carried[index];
        if one.is_done {
            return;
        }
        one.tries += 1;
        let (tries, which) = (one.tries, one.which);
        if self.boxes[which].node.is_none() || self.bad(12) {
            return self.bring_again(index);
        }
        let mut mail = self.carried[index].mail.clone();
        match self.let_in(which, &mut mail) {
            Ok(()) => {}
            Err(reply) => return self.answered(index, &[reply]),
        }
        self.next_id += 1;
        let id = self.next_id;
        let life = self.boxes[which].life;
        self.flights.insert((which, life, id), Flight::Carried(index));
        self.later(ANSWER_US, Ev::NoAnswer { which, life, id, index });
        self.tell(|| format!("carried {index} comes to box {which} for the {tries}. time"));
        self.feed(which, Input::Mail { id, mail: Box::new(mail) });
    }

    /// RCPT and DATA, as a session asks for them.
    fn let_in(&self, which: usize, mail: &mut MailIn) -> Result<(), Reply> {
        let settings = &self.boxes[which].settings;
        admit::sender(settings, &mail.peer, mail.from.as_ref())?;
        let (peer, from) = (mail.peer.clone(), mail.from.clone());
        let mut refused = None;
        mail.recipients.retain_mut(|rcpt| match admit::recipient(settings, &peer, from.as_ref(), &rcpt.typed) {
            Ok(to) => {
                rcpt.to = to;
                true
            }
            Err(reply) => {
                refused = Some(reply);
                false
            }
        });
        if let (true, Some(reply)) = (mail.recipients.is_empty(), refused) {
            return Err(reply);
        }
        admit::proven(settings, mail)?;
        admit::no_loop(settings, mail)
    }

    pub fn no_answer(&mut self, which: usize, life: u32, id: u64, index: usize) {
        if self.flights.remove(&(which, life, id)).is_some() {
            self.bring_again(index);
        }
    }

    /// What a box says to a mail that was brought.
    pub fn mail_answer(&mut self, which: usize, id: u64, replies: &[Reply]) {
        let life = self.boxes[which].life;
        let Some(flight) = self.flights.remove(&(which, life, id)) else { return };
        let codes: Vec<u16> = replies.iter().map(|reply| reply.code).collect();
        match flight {
            Flight::Carried(index) => {
                self.tell(|| format!("box {which} says {codes:?} to carried {index}"));
                self.promised(which, index, replies);
                if self.bad(8) {
                    self.meet("a yes to a mail is lost");
                    return self.bring_again(index);
                }
                self.answered(index, replies);
            }
            Flight::Hop { from, life, id } => {
                self.tell(|| format!("box {which} says {codes:?} to mail {id} of box {from}"));
                self.hop_promised(which, (from, life, id), replies);
                let reply = replies[0].clone();
                let why = reply.text;
                let result = match reply.code {
                    _ if self.line_down || self.bad(8) => {
                        self.meet("a yes between two boxes is lost");
                        Err(MailFailure::Lost("the line broke".into()))
                    }
                    250 => Ok(self.hop_taken((from, life, id))),
                    code @ 400..500 => Err(MailFailure::Temporary { code, why }),
                    code => Err(MailFailure::Permanent { code, why }),
                };
                self.sent(from, life, id, 5 * MS, result);
            }
        }
    }

    fn answered(&mut self, index: usize, replies: &[Reply]) {
        let again = replies.iter().any(|reply| (400..500).contains(&reply.code));
        let about = self.carried[index].about;
        if again && replies.len() > 1 {
            // LMTP: those who were refused for now come again, and the others do not.
            let mut replies = replies.iter();
            let rcpts = &mut self.carried[index].mail.recipients;
            rcpts.retain(|_| replies.next().is_none_or(|reply| (400..500).contains(&reply.code)));
        }
        if again {
            self.meet("a mail is refused for now");
            return self.bring_again(index);
        }
        self.carried[index].is_done = true;
        if let (Some(mail), Some(500..)) = (about, replies.iter().map(|reply| reply.code).max()) {
            self.meet("a mail is refused");
            self.tell(|| format!("m{mail} is refused: {replies:?}"));
        }
    }

    // --- Mail that leaves a box ---

    pub fn send_mail(&mut self, which: usize, id: u64, mut mail: MailOut) {
        self.tell(|| format!("box {which} sends mail {id} {} to {}", mail.message_id, mail.to));
        self.spoilt(&mut mail);
        self.leaving(which, id, &mail);
        let life = self.boxes[which].life;
        let late_us = 50 * MS + self.rng.below(2 * SECOND);
        self.later(late_us, Ev::Take { which, life, id, mail: Box::new(mail) });
    }

    /// A mail after a world that is broken on purpose had its hands on it.
    fn spoilt(&mut self, mail: &mut MailOut) {
        match self.breaker {
            Some(Breaker::NewMessageId)
                if matches!(mail.body, Body::Text(_)) && mail.message_id.len().is_multiple_of(2) =>
            {
                self.next_id += 1;
                mail.message_id = format!("{}{}", self.next_id, mail.message_id);
            }
            Some(Breaker::WrongThread) if mail.in_reply_to.is_some() && matches!(mail.body, Body::Text(_)) => {
                mail.to = address("stranger@far.example");
            }
            Some(Breaker::ReportOfReport) if matches!(mail.body, Body::Report(_)) => {
                mail.in_reply_to = Some(mail.message_id.clone());
            }
            Some(Breaker::ReportLies) => {
                if let Body::Report(report) = &mut mail.body {
                    let is_failed = report.action == Action::Failed;
                    report.action = if is_failed { Action::Delivered } else { Action::Failed };
                }
            }
            _ => {}
        }
    }

    /// The other side has the first octets of it.
    pub fn take(&mut self, which: usize, life: u32, id: u64, mail: MailOut) {
        let other = (0..BOXES).find(|other| domain(*other) == mail.to.domain());
        if let Some(other) = other {
            return self.hop(which, life, id, &mail, other);
        }
        let local = mail.to.local().to_owned();
        let kind = local.as_bytes()[0];
        let why = || "of the relay's moods".to_owned();
        let tries = self.ledger.tries_of(&mail.message_id);
        let (is_taken, result) = match () {
            () if self.relay.down_until_us > self.now_us => {
                self.meet("the relay is out of reach");
                (false, Err(MailFailure::Unreachable(why())))
            }
            () if self.bad(20) => (false, Err(MailFailure::Unreachable(why()))),
            () if kind == b'x' => (false, Err(MailFailure::Permanent { code: 550, why: "5.1.1 unknown".into() })),
            () if kind == b'g' && tries < 2 => (false, Err(MailFailure::Temporary { code: 451, why: why() })),
            () if self.bad(12) => (false, Err(MailFailure::Temporary { code: 452, why: why() })),
            () if self.bad(15) => (false, Err(MailFailure::Lost(why()))),
            () if self.bad(8) => {
                self.meet("the relay's yes is lost");
                (true, Err(MailFailure::Lost(why())))
            }
            () => {
                let will_tell = self.relay.offers_dsn && mail.notify.success && mail.from.is_some();
                let taken = MailTaken { by: "mail.far.example".into(), code: 250, said: "queued".into(), will_tell };
                (true, Ok(taken))
            }
        };
        let forgets = self.breaker == Some(Breaker::RelayForgets) && matches!(mail.body, Body::Text(_));
        if is_taken && !forgets {
            self.has_taken(&mail);
        }
        let late_us = 10 * MS + self.rng.below(SECOND);
        self.sent(which, life, id, late_us, result);
    }

    fn sent(&mut self, which: usize, life: u32, id: u64, us: u64, result: Result<MailTaken, MailFailure>) {
        self.later(us, Ev::Sent { which, life, id, result });
    }

    pub fn mail_sent(&mut self, which: usize, life: u32, id: u64, result: Result<MailTaken, MailFailure>) {
        if self.boxes[which].life != life || self.boxes[which].node.is_none() {
            return;
        }
        self.tell(|| format!("box {which} hears of mail {id}: {result:?}"));
        self.handed_over(which, id, &result);
        self.feed(which, Input::MailSent { id, result });
    }

    /// The relay answers for it now.
    fn has_taken(&mut self, mail: &MailOut) {
        self.taken(mail);
        let comes_back = is_bounced(&mail.to);
        let offers_dsn = self.relay.offers_dsn;
        let late_us = match self.rng.below(3) {
            0 => self.rng.below(100 * MS),
            1 => self.rng.below(MINUTE),
            _ => self.rng.below(6 * HOUR),
        };
        if let Some(from) = &mail.from {
            let action = match comes_back {
                true if mail.notify.failure => Some(Action::Failed),
                false if offers_dsn && mail.notify.success => Some(Action::Delivered),
                _ => None,
            };
            if let (Some(action), Some(phone)) = (action, phone_at(from.as_str())) {
                let letter = bounce(mail, action, offers_dsn);
                self.later(late_us, Ev::Report { phone, letter: Box::new(letter) });
            }
        }
        let is_for_people = matches!(mail.body, Body::Text(_)) && mail.auto_submitted == AutoSubmitted::No;
        if is_for_people
            && !comes_back
            && !self.is_story
            && self.ledger.replies < REPLIES_MAX
            && self.one_in(3)
            && let Some(phone) = mail.from.as_ref().and_then(|from| phone_at(from.as_str()))
        {
            self.ledger.replies += 1;
            let (writer, references) = (mail.to.clone(), vec![mail.message_id.clone()]);
            self.later(late_us, Ev::Reply { writer, phone, references });
        }
    }

    /// A notification, or a bounce in the way that servers had before there was DSN.
    pub fn report(&mut self, phone: usize, letter: Letter) {
        let which = box_of(phone);
        let typed = address(&address_of(phone));
        let (notify, orcpt, link) = (None, None, None);
        let recipients = vec![Rcpt { to: RcptTo::Phone(imsi(phone)), typed, notify, orcpt, link }];
        let peer = peer_outside();
        self.meet("a notification comes");
        self.carry(MailIn { from: None, peer, recipients, envid: None, each_answered: false, letter }, which, None);
    }

    pub fn reply(&mut self, writer: Address, phone: usize, references: Vec<String>) {
        self.meet("somebody answers a phone");
        let words = self.words_of_mail(&writer, 0);
        self.write_mail(Mail { writer, to: vec![(phone, None)], words, references, ..Mail::default() });
    }

    // --- From box to box ---

    fn hop(&mut self, from: usize, life: u32, id: u64, mail: &MailOut, to: usize) {
        if self.line_down || self.boxes[to].node.is_none() {
            self.meet("a box cannot reach the other one");
            let result = Err(MailFailure::Unreachable("no line".into()));
            return self.sent(from, life, id, SECOND, result);
        }
        let mut mail_in = as_read(mail, from, to);
        if let Err(reply) = self.let_in(to, &mut mail_in) {
            let (code, why) = (reply.code, reply.text);
            let result = match code {
                400..500 => Err(MailFailure::Temporary { code, why }),
                _ => Err(MailFailure::Permanent { code, why }),
            };
            return self.sent(from, life, id, 5 * MS, result);
        }
        if mail.traces.len() > 3 {
            self.broken(LOOPS, format!("{} has passed {:?}", mail.message_id, mail.traces));
        }
        self.next_id += 1;
        let (there, flight) = (self.next_id, Flight::Hop { from, life, id });
        let there_life = self.boxes[to].life;
        self.flights.insert((to, there_life, there), flight);
        self.later(5 * MINUTE, Ev::HopWait { which: to, life: there_life, id: there });
        self.tell(|| format!("mail {id} of box {from} comes to box {to}"));
        self.feed(to, Input::Mail { id: there, mail: Box::new(mail_in) });
    }

    pub fn hop_wait(&mut self, which: usize, life: u32, there: u64) {
        if let Some(Flight::Hop { from, life, id }) = self.flights.remove(&(which, life, there)) {
            self.sent(from, life, id, 0, Err(MailFailure::Lost("no answer".into())));
        }
    }

    // --- What people write ---

    /// So many units of twenty characters, each with the token of the mail: no part of it is without one.
    pub fn words_of_mail(&mut self, writer: &Address, units: usize) -> String {
        let index = self.ledger.mails.len();
        let unit = |at: usize| format!("#m{index}# {at:02} abcdefghij").chars().cycle().take(20).collect::<String>();
        let head = writer.as_str().len() + 2;
        let mut words: String = (0..=units).map(unit).collect();
        while head + words.len() > 160 && (1..60).contains(&((head + words.len()) % 153)) {
            words.push_str(&unit(units));
        }
        debug_assert_eq!(token('m', &words), Some(index));
        words.replace("{}", "")
    }
}

/// A mailbox that takes mail and brings it back.
pub fn is_bounced(to: &Address) -> bool {
    to.local().starts_with('b')
}

fn peer_outside() -> Peer {
    let (hello, user) = ("mail.far.example".into(), None);
    Peer { ip: "198.51.100.25".parse().expect("an address"), hello, user, is_encrypted: true }
}

/// What a server tells of this mail.
fn bounce(mail: &MailOut, action: Action, offers_dsn: bool) -> Letter {
    let failed = action == Action::Failed;
    let recipients = vec![BounceOf {
        recipient: mail.to.to_string(),
        action,
        status: Some(if failed { (5, 2, 2) } else { (2, 0, 0) }),
        why: "as the mailbox says".into(),
    }];
    let envid = mail.envid.clone().filter(|_| offers_dsn);
    let told = Bounce { envid, message_id: Some(mail.message_id.clone()), recipients };
    let text = format!("what became of {}", mail.message_id);
    Letter { bounce: Some(told), automatic: true, received_count: 1, text, ..Letter::default() }
}

/// A mail of one box as the other one reads it.
fn as_read(mail: &MailOut, from: usize, to: usize) -> MailIn {
    let (bounce, relayed) = match &mail.body {
        Body::Text(_) => (None, None),
        Body::Sms { sms, .. } => (None, Some(sms.clone())),
        Body::Report(report) => {
            let recipients = vec![BounceOf {
                recipient: report.recipient.clone(),
                action: report.action,
                status: Some(report.status),
                why: report.why.clone(),
            }];
            let (envid, message_id) = (report.envid.clone(), mail.in_reply_to.clone());
            (Some(Bounce { envid, message_id, recipients }), None)
        }
    };
    let letter = Letter {
        message_id: Some(mail.message_id.clone()),
        references: mail.references.clone(),
        from: Some(mail.header_from.clone()),
        text: mail.words().to_owned(),
        subject: mail.subject.clone(),
        automatic: mail.auto_submitted != AutoSubmitted::No,
        received_count: mail.traces.len(),
        traces: mail.traces.clone(),
        bounce,
        relayed,
        headers: format!("Message-ID: <{}>\r\n", mail.message_id).into_bytes(),
        ..Letter::default()
    };
    let typed = mail.to.clone();
    let to = RcptTo::Phone(imsi(if to == 0 { 0 } else { 3 }));
    let notify = Some(mail.notify);
    MailIn {
        from: mail.from.clone(),
        peer: Peer { ip: ip_of(from), hello: domain(from).into(), user: None, is_encrypted: true },
        recipients: vec![Rcpt { to, typed, notify, orcpt: None, link: None }],
        envid: mail.envid.clone(),
        each_answered: false,
        letter,
    }
}

impl Carried {
    /// Phones that it is for still, in its order.
    pub fn phones(&self) -> Vec<usize> {
        self.mail.recipients.iter().filter_map(|rcpt| phone_at(rcpt.typed.as_str())).collect()
    }
}
