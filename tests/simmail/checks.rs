//! What is promised of a mail and of a text that becomes one, checked at the moment it is made: the ledger beside the world.

use std::collections::{BTreeMap, BTreeSet};

use encamp::event::Event;
use encamp::mail::address::Address;
use encamp::mail::{Action, Body, MailFailure, MailOut, MailTaken, Notify, Reply};
use encamp::seam::TextOutcome;
use encamp::sms::record::{self, Fate, Payload, Sender, Text};
use encamp::store::{Batch, Seq};

use crate::boxes::*;
use crate::post::is_bounced;
use crate::wire::{Shown, token};
use crate::world::{HOUR, MINUTE, World};

pub const DURABLE: &str = "250 leaves when the texts of a mail are on the disk";
pub const ONE_END: &str = "each mail comes to one end for each of its recipients";
pub const TRUTH: &str = "what is told of a mail is true";
pub const WHOLE: &str = "a mail is shown whole, and in its order";
pub const ONCE: &str = "a phone gets a text twice only after a lost answer or a power cut, and the same one";
pub const MESSAGE_ID: &str = "one Message-ID for each text and recipient";
pub const COPIES: &str = "what was taken is not sent again";
pub const TEXT_END: &str = "each text for mail is at the relay, or its sender is told once";
pub const REPORTS: &str = "one report for each wish";
pub const THREADS: &str = "an answer goes to who has written to that phone under that number";
pub const ASKED: &str = "who is new to a phone is not asked about all the time, and waits for its yes";
pub const CAPS: &str = "no more mail of one sender, or for one phone, than may";
pub const NOBODY: &str = "nothing is told to <>, nor of what tells";
pub const LOOPS: &str = "no mail goes round";
pub const DRAINED: &str = "in fair weather nothing waits for ever";

/// In fair weather nothing waits for longer: the longest ladder of all, and its dice.
const WAITS_MAX_US: u64 = 15 * HOUR;
/// Whatever was written so long ago is on the disk, where it was not full or slow.
const WRITTEN_US: u64 = MINUTE;

#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Violation {
    pub promise: &'static str,
    pub what: String,
    pub at_us: u64,
}

/// A mail that somebody writes to some phones of one box.
#[derive(Clone, Debug)]
pub struct Mail {
    pub writer: Address,
    /// Its envelope is from `<>`.
    pub is_null: bool,
    pub automatic: bool,
    pub each_answered: bool,
    pub to: Vec<(usize, Option<Notify>)>,
    pub words: String,
    pub references: Vec<String>,
    /// Phones for which a box has promised it.
    pub promised: BTreeSet<usize>,
}

impl Default for Mail {
    fn default() -> Mail {
        Mail {
            writer: address("w1@far.example"),
            is_null: false,
            automatic: false,
            each_answered: false,
            to: Vec::new(),
            words: String::new(),
            references: Vec::new(),
            promised: BTreeSet::new(),
        }
    }
}

impl Mail {
    fn notify(&self, phone: usize) -> Notify {
        let notify = self.to.iter().find(|(to, _)| *to == phone).and_then(|(_, notify)| *notify);
        notify.unwrap_or(Notify { failure: true, ..Notify::default() })
    }

    fn is_told(&self) -> bool {
        !self.is_null && !self.automatic
    }
}

/// What a phone writes.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum Kind {
    /// To an address of its own: the number of the text stands in it.
    #[default]
    New,
    /// To the number under which somebody wrote.
    Answer,
    /// To a phone at the other box, or at its own.
    Phone(usize),
    /// Yes or no.
    Word,
}

#[derive(Clone, Debug, Default)]
pub struct Sms {
    pub phone: usize,
    pub kind: Kind,
    pub to: String,
    pub report_wanted: bool,
    /// By TP-MR, and what the phone was told.
    pub parts: BTreeMap<u8, Option<bool>>,
    /// Words of failure about it.
    pub told: u32,
    /// What the mails are that it became, by recipient.
    pub ids: BTreeMap<String, BTreeSet<String>>,
}

impl Sms {
    /// The box has said yes to all of it, and the phone knows.
    fn is_sure(&self) -> bool {
        self.parts.values().all(|yes| *yes == Some(true))
    }
}

/// A text in a box.
#[derive(Clone, PartialEq, Eq, Debug)]
enum What {
    Mail {
        mail: usize,
        phone: usize,
    },
    /// A text of the other box.
    Hop {
        text: usize,
        phone: usize,
    },
    Report {
        of: String,
        to: String,
        action: Action,
    },
    Other,
}

#[derive(Clone, Debug)]
struct Kept {
    what: What,
    /// Written with this batch; 0: by an earlier life.
    seq: Seq,
    since_us: u64,
    waits: bool,
}

/// A yes, and in which life of which box it was heard.
#[derive(Clone, Copy, Debug)]
struct Heard {
    which: usize,
    at_us: u64,
}

struct Seen {
    shown: Shown,
    life: u32,
    answered: Option<Heard>,
    count: u32,
}

/// Something that a phone shows, whichever copy of it: who, kind, number, part.
type Key = (usize, char, usize, u8);

#[derive(Default)]
pub struct Ledger {
    pub mails: Vec<Mail>,
    pub texts: Vec<Sms>,
    pub replies: usize,
    /// What a phone has said of somebody about whom it was asked.
    pub decided: BTreeMap<(usize, String), bool>,
    /// Under which number it has said yes: without a number for each, it is about whoever was asked about last.
    pub said_yes: BTreeSet<(usize, String)>,
    pub checked: BTreeMap<&'static str, u64>,
    kept: BTreeMap<(usize, u64), Kept>,
    seen: BTreeMap<Key, Seen>,
    /// Words and reports of the centres', each once.
    words: BTreeMap<usize, BTreeSet<Shown>>,
    reports: BTreeMap<(usize, u8), BTreeSet<Shown>>,
    told_others: BTreeMap<usize, u32>,
    /// When it showed the question last.
    asked: BTreeMap<(usize, String), u64>,
    /// Who has written to a phone under a number, or was let in under it.
    pub wrote_as: BTreeSet<(usize, String, String)>,
    /// Sent mails: how often, and the yes to it.
    sent: BTreeMap<String, (u64, Option<Heard>)>,
    open: BTreeMap<(usize, u64), MailOut>,
    taken: BTreeMap<String, u32>,
    /// DSNs at their writers: of which mail and phone; by Message-ID.
    dsns: BTreeMap<(usize, usize), BTreeMap<String, Action>>,
    dsns_lost: BTreeSet<(usize, usize)>,
    not_told: u32,
    taken_at: BTreeMap<(usize, String), Vec<u64>>,
}

impl Ledger {
    pub fn tries_of(&self, message_id: &str) -> u64 {
        self.sent.get(message_id).map_or(0, |(tries, _)| *tries)
    }

    /// Under which numbers somebody has written to this phone, as it has shown them.
    pub fn writers_to(&self, phone: usize) -> Vec<String> {
        let from = |seen: &Seen| match &seen.shown {
            Shown::Text { from, .. } => Some(from.clone()),
            Shown::Report { .. } => None,
        };
        let seen = self.seen.range((phone, 'm', 0, 0)..=(phone, 'm', usize::MAX, u8::MAX));
        let from: BTreeSet<String> = seen.filter_map(|(_, seen)| from(seen)).collect();
        from.into_iter().collect()
    }

    fn checked(&mut self, promise: &'static str) {
        *self.checked.entry(promise).or_default() += 1;
    }

    fn is_shown(&self, key: &Key) -> bool {
        self.seen.contains_key(key)
    }
}

impl World {
    fn demand(&mut self, promise: &'static str, holds: bool, what: impl FnOnce() -> String) {
        self.ledger.checked(promise);
        if !holds {
            self.broken(promise, what());
        }
    }

    // --- What a box writes down ---

    pub fn written(&mut self, which: usize, seq: Seq, batch: &Batch) {
        for (key, value) in &batch.changes {
            if let (Some(number), Some(value)) = (record::read_fate_key(key), value) {
                self.has_ended(number, value);
            }
            let Some((recipient, number)) = record::read_text_key(key) else { continue };
            let Some(value) = value else {
                if let Some(kept) = self.ledger.kept.get_mut(&(which, number)) {
                    kept.waits = false;
                }
                continue;
            };
            let Ok(text) = record::decode(recipient, number, value) else { continue };
            let what = self.what_of(&text);
            match self.ledger.kept.get_mut(&(which, number)) {
                Some(kept) if kept.what == what => kept.waits = true,
                _ => {
                    self.is_new(which, &text, &what);
                    let kept = Kept { what, seq, since_us: self.now_us, waits: true };
                    self.ledger.kept.insert((which, number), kept);
                }
            }
        }
    }

    /// What the centre itself has to say may find its phone away for longer than it lives, as every text.
    fn has_ended(&mut self, number: u64, fate: &[u8]) {
        let Some(Fate::Ended(ended)) = record::decode_fate(number, fate) else { return };
        let Some(imsi) = ended.text.recipient.phone().filter(|_| ended.outcome != TextOutcome::Delivered) else {
            return;
        };
        match (&ended.text.payload, &ended.text.sender) {
            (Payload::Report(report), _) => drop(self.refusals.insert((phone_of(imsi), u32::from(report.reference)))),
            (_, Sender::Centre) => drop(self.refusals.insert((phone_of(imsi), 1000))),
            _ => return,
        }
        self.meet("words or a report are lost");
    }

    fn what_of(&self, text: &Text) -> What {
        match (&text.payload, &text.sender, text.recipient.phone()) {
            (Payload::Text(data), Sender::Mail(_), Some(imsi)) => {
                let words = encamp::gsm::text::decode(data).unwrap_or_default();
                let phone = phone_of(imsi);
                match (token('m', &words), token('s', &words)) {
                    (Some(mail), _) => What::Mail { mail, phone },
                    (None, Some(text)) => What::Hop { text, phone },
                    (None, None) => What::Other,
                }
            }
            (Payload::Mail(outgoing), ..) => match &outgoing.mail.body {
                Body::Report(report) => What::Report {
                    of: outgoing.mail.in_reply_to.clone().unwrap_or_default(),
                    to: report.recipient.clone(),
                    action: report.action,
                },
                Body::Text(_) | Body::Sms { .. } => What::Other,
            },
            _ => What::Other,
        }
    }

    fn is_new(&mut self, which: usize, text: &Text, what: &What) {
        match what {
            What::Mail { mail, phone } => {
                let (mail, phone) = (*mail, *phone);
                let writer = self.ledger.mails[mail].writer.to_string();
                self.ledger.wrote_as.insert((phone, text.shown.clone(), writer.clone()));
                if self.plan.ask {
                    let yes = self.ledger.decided.get(&(phone, writer.clone()));
                    // Whoever was written to from the phone needs no yes.
                    let said_yes = self.ledger.said_yes.contains(&(phone, text.shown.clone())) && text.shown == CENTRE;
                    let is_known = yes == Some(&true)
                        || said_yes
                        || self
                            .ledger
                            .texts
                            .iter()
                            .any(|sms| sms.phone == phone && sms.ids.keys().any(|to| *to == writer));
                    self.demand(ASKED, is_known, || format!("phone {phone} gets m{mail} of {writer} unasked"));
                }
            }
            What::Report { of, to, .. } => {
                let mail = mail_of(of);
                let is_told = mail.is_none_or(|mail| self.ledger.mails[mail].is_told());
                let is_null = self.breaker == Some(crate::world::Breaker::NullForgotten);
                self.demand(NOBODY, (is_told && !is_null) && !of.starts_with("report."), || {
                    format!("box {which} tells of {of} to {to}")
                });
            }
            What::Hop { .. } | What::Other => {}
        }
    }

    /// Power was lost; the disk has got so far.
    pub fn lost_power(&mut self, which: usize, reached: Seq, since_us: u64) {
        let durable = self.boxes[which].durable();
        self.ledger.kept.retain(|(held, _), kept| *held != which || kept.seq <= reached);
        for ((held, number), kept) in &mut self.ledger.kept {
            if *held == which {
                kept.seq = 0;
                let fate = durable.get(&record::fate_key(*number)).and_then(|fate| record::decode_fate(*number, fate));
                kept.waits = matches!(fate, Some(Fate::Waits(_)));
            }
        }
        let is_gone = |heard: &Heard| heard.which == which && heard.at_us >= since_us;
        for seen in self.ledger.seen.values_mut() {
            seen.answered.take_if(|heard| is_gone(heard));
        }
        for (_, heard) in self.ledger.sent.values_mut() {
            heard.take_if(|heard| is_gone(heard));
        }
        self.ledger.open.retain(|(held, _), _| *held != which);
    }

    /// What it had not on the disk yet may be from then on.
    pub fn dirty_since(&self, which: usize) -> u64 {
        let full = self.boxes[which].full_since_us.unwrap_or(self.now_us);
        full.min(self.now_us).saturating_sub(WRITTEN_US)
    }

    pub fn told_event(&mut self, which: usize, event: &Event) {
        match event {
            Event::MailReportLost { text, .. } => {
                let kept = self.ledger.kept.get(&(which, *text));
                if let Some(Kept { what: What::Report { of, to, .. }, .. }) = kept
                    && let (Some(mail), Some(phone)) = (mail_of(of), phone_at(to))
                {
                    self.ledger.dsns_lost.insert((mail, phone));
                }
                self.meet("a notification is lost");
            }
            Event::MailNotTold { .. } | Event::TextNotTold { .. } | Event::CopyLeftOut { .. } => {
                self.ledger.not_told += 1;
            }
            Event::MailDuplicate { .. } => self.meet("a copy of a mail is known"),
            Event::BounceIgnored { .. } => self.meet("a notification is ignored"),
            Event::MailCameBack { .. } => self.meet("a mail comes back"),
            _ => {}
        }
    }

    // --- Promises to who brings mail ---

    pub fn promised(&mut self, which: usize, index: usize, replies: &[Reply]) {
        let Some(mail) = self.carried[index].about else { return };
        let to: Vec<usize> = self.carried[index].phones();
        let each = replies.len() == to.len() && self.ledger.mails[mail].each_answered;
        for (at, phone) in to.into_iter().enumerate() {
            if replies[if each { at } else { 0 }].code != 250 {
                continue;
            }
            let durable = self.boxes[which].durable();
            let mut texts = self
                .ledger
                .kept
                .iter()
                .filter(|((held, _), kept)| *held == which && kept.what == What::Mail { mail, phone })
                .peekable();
            let is_some = texts.peek().is_some();
            let all = texts.all(|((_, number), _)| durable.contains_key(&record::fate_key(*number)));
            // Where others have got it, one who is refused is told by a mail.
            let is_refused = !each && self.is_told_of(which, mail, phone);
            let others = self.ledger.mails[mail].to.len() > 1 && !each;
            self.demand(DURABLE, (is_some && all) || is_refused || (others && !is_some), || {
                format!("250 to m{mail} for phone {phone}")
            });
            if is_some {
                self.meet("a mail is taken");
                if self.ledger.mails[mail].promised.insert(phone) {
                    self.count_caps(mail, phone);
                }
            }
        }
    }

    fn is_told_of(&self, which: usize, mail: usize, phone: usize) -> bool {
        self.ledger.kept.iter().any(|((held, _), kept)| match &kept.what {
            What::Report { of, to, .. } => *held == which && mail_of(of) == Some(mail) && phone_at(to) == Some(phone),
            _ => false,
        })
    }

    fn count_caps(&mut self, mail: usize, phone: usize) {
        let now_us = self.now_us;
        let writer = self.ledger.mails[mail].writer.to_string();
        let is_whole_day = |at: &&u64| **at + 20 * HOUR > now_us;
        for (whose, most) in [(String::new(), 12), (writer, 6)] {
            let at = self.ledger.taken_at.entry((if whose.is_empty() { phone } else { PHONES + box_of(phone) }, whose));
            let at = at.or_default();
            at.push(now_us);
            // A day of theirs may begin at any time, so that a day of ours may see two of them.
            let count = at.iter().filter(is_whole_day).count();
            if self.plan.caps {
                self.demand(CAPS, count <= 2 * most, || format!("{count} mails for phone {phone} in a day"));
            }
        }
    }

    pub fn hop_promised(&mut self, which: usize, hop: (usize, u32, u64), replies: &[Reply]) {
        let Some(mail) = self.ledger.open.get(&(hop.0, hop.2)) else { return };
        let (Body::Sms { words, .. }, 250) = (&mail.body, replies[0].code) else { return };
        let (words, to) = (words.clone(), mail.to.clone());
        let Some((text, phone)) = token('s', &words).zip(phone_at(to.as_str())) else { return };
        let durable = self.boxes[which].durable();
        let what = What::Hop { text, phone };
        let is_there = self.ledger.kept.iter().any(|((held, number), kept)| {
            *held == which && kept.what == what && durable.contains_key(&record::fate_key(*number))
        });
        self.demand(DURABLE, is_there, || format!("250 to what box {} has of {words}", hop.0));
    }

    pub fn hop_taken(&mut self, (from, _, id): (usize, u32, u64)) -> MailTaken {
        self.meet("a box takes a mail of the other one");
        let mail = self.ledger.open.get(&(from, id));
        let will_tell = mail.is_some_and(|mail| mail.notify.success && mail.from.is_some());
        MailTaken { by: "the other box".into(), code: 250, said: "kept".into(), will_tell }
    }

    // --- What leaves ---

    pub fn leaving(&mut self, which: usize, id: u64, mail: &MailOut) {
        let message_id = mail.message_id.clone();
        let (tries, heard) = self.ledger.sent.entry(message_id.clone()).or_default();
        *tries += 1;
        let was_heard = heard.is_some();
        self.demand(COPIES, !was_heard, || format!("box {which} sends {message_id} again"));
        let (distinct, most) = (self.ledger.sent.len(), self.mails_max());
        self.demand(LOOPS, distinct <= most, || format!("{distinct} mails have left"));
        self.ledger.open.insert((which, id), mail.clone());
        if let Body::Report(_) = mail.body {
            let of = mail.in_reply_to.clone().unwrap_or_default();
            let holds = mail.from.is_none() && !of.starts_with("report.");
            return self.demand(NOBODY, holds, || format!("{message_id} tells of {of}"));
        }
        let Some(text) = token('s', mail.words()).filter(|_| mail.from.is_some()) else { return };
        let to = mail.to.to_string();
        let sms = &mut self.ledger.texts[text];
        let ids = sms.ids.entry(to.clone()).or_default();
        ids.insert(message_id);
        let (ids, recipients) = (ids.clone(), sms.ids.len());
        let (kind, phone, number) = (sms.kind, sms.phone, sms.to.clone());
        self.demand(MESSAGE_ID, ids.len() == 1, || format!("s{text} leaves for {to} as {ids:?}"));
        self.demand(MESSAGE_ID, recipients == 1, || format!("s{text} leaves for several"));
        if kind == Kind::Answer {
            // A number that nobody has written under leads to whom the phone itself has written, if to anybody; so does
            // one that was not in the pool for a while.
            let mut writers = self.ledger.wrote_as.iter().filter(|(held, under, _)| *held == phone && *under == number);
            let has_changed = self.met.contains_key("the pool changes");
            let is_nobodys =
                (writers.next().is_none() || has_changed) && phone_at(&to).is_none() && text_of(&to).is_some();
            let holds = is_nobodys || self.ledger.wrote_as.contains(&(phone, number.clone(), to.clone()));
            self.meet("an answer leaves");
            self.demand(THREADS, holds, || format!("s{text} of phone {phone} to {number} goes to {to}"));
        }
    }

    /// Each text makes one mail and perhaps a copy, each mail a notification for each recipient.
    fn mails_max(&self) -> usize {
        let recipients: usize = self.ledger.mails.iter().map(|mail| mail.to.len()).sum();
        2 * self.ledger.texts.len() + 2 * recipients + 10
    }

    pub fn handed_over(&mut self, which: usize, id: u64, result: &Result<MailTaken, MailFailure>) {
        let Some(mail) = self.ledger.open.remove(&(which, id)) else { return };
        if result.is_ok() || matches!(result, Err(MailFailure::Permanent { .. })) {
            let at_us = self.now_us;
            self.ledger.sent.entry(mail.message_id).or_default().1 = Some(Heard { which, at_us });
        }
    }

    /// Somebody outside has it now.
    pub fn taken(&mut self, mail: &MailOut) {
        *self.ledger.taken.entry(mail.message_id.clone()).or_default() += 1;
        if self.ledger.taken[&mail.message_id] > 1 {
            self.meet("a mail is taken twice");
        }
        let Body::Report(report) = &mail.body else { return };
        let of = mail.in_reply_to.as_deref().unwrap_or_default();
        let (Some(mail_in), Some(phone)) = (mail_of(of), phone_at(&report.recipient)) else { return };
        let told = self.ledger.dsns.entry((mail_in, phone)).or_default();
        told.insert(mail.message_id.clone(), report.action);
        let told = told.clone();
        self.meet(if report.action == Action::Failed { "a DSN of failure" } else { "a DSN of success" });
        self.demand(ONE_END, told.len() == 1, || format!("of m{mail_in} for phone {phone} is told {told:?}"));
        let notify = self.ledger.mails[mail_in].notify(phone);
        let (is_whole, is_answered) = self.how_far(mail_in, phone);
        let holds = match report.action {
            Action::Failed => notify.failure && !(is_whole && is_answered),
            Action::Delivered => notify.success && is_whole,
            _ => false,
        };
        let action = report.action;
        self.demand(TRUTH, holds, || {
            format!("{action:?} of m{mail_in} for phone {phone}: whole {is_whole}, {notify:?}")
        });
    }

    /// Whether the phone has shown all of it, and whether its answers have come home.
    fn how_far(&self, mail: usize, phone: usize) -> (bool, bool) {
        let first = self.ledger.seen.range((phone, 'm', mail, 0)..=(phone, 'm', mail, u8::MAX)).next();
        let Some((_, Seen { shown: Shown::Text { part, .. }, .. })) = first else { return (false, false) };
        let parts: Vec<_> = (1..=part.1).map(|at| self.ledger.seen.get(&(phone, 'm', mail, at))).collect();
        let is_whole = parts.iter().all(Option::is_some);
        (is_whole, parts.iter().flatten().all(|seen| seen.answered.is_some()))
    }

    // --- What a phone shows ---

    fn key_of(&self, phone: usize, shown: &Shown) -> Option<Key> {
        let Shown::Text { words, part, .. } = shown else { return None };
        let (kind, index) = token('m', words).map(|at| ('m', at)).or_else(|| token('s', words).map(|at| ('s', at)))?;
        Some((phone, kind, index, part.0))
    }

    pub fn shown(&mut self, phone: usize, shown: &Shown) {
        let life = self.boxes[box_of(phone)].life;
        let Some(key) = self.key_of(phone, shown) else { return self.shown_words(phone, shown) };
        if let Some(seen) = self.ledger.seen.get_mut(&key) {
            seen.count += 1;
            let (before, same) = (seen.answered.take().is_some(), scts_of(&seen.shown) == scts_of(shown));
            seen.life = life;
            self.meet("a phone shows a text twice");
            return self.demand(ONCE, !before && same, || {
                format!("phone {phone} shows {key:?} again, answered {before}, the same {same}")
            });
        }
        self.ledger.checked(ONCE);
        let seen = Seen { shown: shown.clone(), life, answered: None, count: 1 };
        self.ledger.seen.insert(key, seen);
        let (_, kind, index, part) = key;
        let Shown::Text { from, part: (_, parts, _), .. } = shown else { return };
        if kind == 's' {
            let sms = &self.ledger.texts[index];
            let (sender, to) = (sms.phone, sms.kind);
            let holds = *from == number(sender) && to == Kind::Phone(phone);
            self.meet(if box_of(phone) == box_of(sender) { "a text at home" } else { "a text from the other box" });
            return self.demand(TRUTH, holds, || format!("phone {phone} shows s{index} as of {from}"));
        }
        let holds = part == 1 || self.ledger.is_shown(&(phone, 'm', index, part - 1));
        self.demand(WHOLE, holds, || format!("phone {phone} shows part {part} of m{index} first"));
        if part < *parts {
            return;
        }
        let words: String = (1..=*parts)
            .filter_map(|at| match &self.ledger.seen.get(&(phone, 'm', index, at))?.shown {
                Shown::Text { words, .. } => Some(words.as_str()),
                Shown::Report { .. } => None,
            })
            .collect();
        let mail = &self.ledger.mails[index];
        let whole = format!("{}: {}", mail.writer, mail.words.trim());
        let holds = match words.split_once("... [") {
            Some((head, tail)) => whole.starts_with(head.trim_end()) && tail.ends_with(" more parts withheld]"),
            None => words == whole,
        };
        self.meet(if *parts > 1 { "a long mail is shown" } else { "a mail is shown" });
        self.demand(WHOLE, holds, || format!("phone {phone} shows of m{index}: {words}"));
    }

    /// What the centre says itself.
    fn shown_words(&mut self, phone: usize, shown: &Shown) {
        match shown {
            Shown::Report { reference, .. } => {
                let reports = self.ledger.reports.entry((phone, *reference)).or_default();
                reports.insert(shown.clone());
                let reports = reports.clone();
                let wanted = self
                    .ledger
                    .texts
                    .iter()
                    .any(|sms| sms.phone == phone && sms.report_wanted && sms.parts.contains_key(reference));
                self.meet("a report is shown");
                self.demand(REPORTS, wanted && reports.len() == 1, || format!("phone {phone} has {reports:?}"));
            }
            Shown::Text { words, .. } => {
                if !self.ledger.words.entry(phone).or_default().insert(shown.clone()) {
                    return;
                }
                if let Some((who, _)) = words.split_once(" wants to write to you. ") {
                    // A question that found no answer for days is asked again.
                    let before = self.ledger.asked.insert((phone, who.to_owned()), self.now_us);
                    let holds = before.is_none_or(|before| self.now_us >= before + 24 * HOUR);
                    return self.demand(ASKED, holds, || format!("phone {phone} is asked about {who} again"));
                }
                if words.starts_with("From now on you get") || words.starts_with("You get nothing") {
                    return;
                }
                self.meet("words of failure");
                match text_of(words) {
                    Some(text) => {
                        let sms = &mut self.ledger.texts[text];
                        sms.told += 1;
                        let (told, owner) = (sms.told, sms.phone);
                        let most = 1 + self.answers_to(text);
                        self.demand(TEXT_END, told <= most && owner == phone, || {
                            format!("phone {phone} is told of s{text} {told} times: {words}")
                        });
                    }
                    None => *self.ledger.told_others.entry(phone).or_default() += 1,
                }
            }
        }
    }

    /// The answer of its phone has come to the box.
    pub fn got_answer(&mut self, phone: usize, shown: &Shown) {
        let (which, at_us) = (box_of(phone), self.now_us);
        let Some(key) = self.key_of(phone, shown) else { return };
        let life = self.boxes[which].life;
        let is_up = self.boxes[which].node.is_some();
        if let Some(seen) = self.ledger.seen.get_mut(&key)
            && seen.life == life
            && is_up
        {
            seen.answered = Some(Heard { which, at_us });
        }
    }

    // --- The end ---

    /// In fair weather: nothing is older than the longest ladder.
    pub fn check_waiting(&mut self, fair_since_us: u64) {
        let now_us = self.now_us;
        let old = self
            .ledger
            .kept
            .iter()
            .find(|(_, kept)| kept.waits && now_us > kept.since_us.max(fair_since_us) + WAITS_MAX_US);
        let old = old.map(|(key, kept)| format!("{key:?} {kept:?}"));
        self.demand(DRAINED, old.is_none(), || format!("{old:?} waits still"));
    }

    pub fn check_end(&mut self) {
        for which in 0..BOXES {
            let durable = self.boxes[which].durable();
            let left =
                durable.keys().find(|key| key.starts_with(b"t") || key.starts_with(b"e") || key.starts_with(b"w"));
            let left = left.map(|key| String::from_utf8_lossy(key).into_owned());
            self.demand(DRAINED, left.is_none(), || format!("box {which} keeps {left:?}"));
            let under_way = self.boxes[which].node.as_ref().map(|node| node.under_way());
            self.demand(DRAINED, under_way == Some(0), || format!("box {which} has {under_way:?} under way"));
        }
        for mail in 0..self.ledger.mails.len() {
            for phone in self.ledger.mails[mail].promised.clone() {
                self.check_mail(mail, phone);
            }
        }
        for text in 0..self.ledger.texts.len() {
            self.check_text(text);
        }
        for phone in 0..PHONES {
            self.check_told(phone);
        }
    }

    fn check_mail(&mut self, mail: usize, phone: usize) {
        let which = box_of(phone);
        let durable = self.boxes[which].durable();
        let what = What::Mail { mail, phone };
        let numbers: Vec<u64> =
            self.ledger.kept.iter().filter(|(_, kept)| kept.what == what).map(|(key, _)| key.1).collect();
        let has_ended = |number: &u64| {
            let fate = durable.get(&record::fate_key(*number)).and_then(|fate| record::decode_fate(*number, fate));
            matches!(fate, Some(Fate::Ended(_)))
        };
        let all_end = !numbers.is_empty() && numbers.iter().all(has_ended);
        self.demand(ONE_END, all_end, || format!("m{mail} for phone {phone} is gone without an end: {numbers:?}"));
        let one = &self.ledger.mails[mail];
        let notify = one.notify(phone);
        let is_told = one.is_told();
        let (is_whole, is_answered) = self.how_far(mail, phone);
        let told: Vec<Action> =
            self.ledger.dsns.get(&(mail, phone)).map_or(Vec::new(), |told| told.values().copied().collect());
        let is_lost = self.ledger.dsns_lost.contains(&(mail, phone)) || self.ledger.not_told > 0;
        let (success, failure) = ([Action::Delivered].as_slice(), [Action::Failed].as_slice());
        let expected: Vec<&[Action]> = match (is_told, is_whole, is_answered) {
            (false, ..) => vec![&[]],
            (true, true, true) => vec![if notify.success { success } else { &[] }],
            // It was shown, and the box has not heard so: either may be told.
            (true, true, false) => {
                vec![if notify.success { success } else { &[] }, if notify.failure { failure } else { &[] }]
            }
            (true, false, _) => vec![if notify.failure { failure } else { &[] }],
        };
        let holds = expected.contains(&&told[..]) || (told.is_empty() && is_lost);
        self.demand(ONE_END, holds, || {
            format!("m{mail} for phone {phone}: whole {is_whole}, answered {is_answered}, {notify:?}, told {told:?}")
        });
    }

    /// Where a text is in the end: somebody has it for good, or nobody.
    fn has_arrived(&self, sms: &Sms, text: usize) -> bool {
        if let Kind::Phone(to) = sms.kind {
            return self.ledger.is_shown(&(to, 's', text, 1));
        }
        sms.ids
            .iter()
            .any(|(to, ids)| !is_bounced(&address(to)) && ids.iter().any(|id| self.ledger.taken.contains_key(id)))
    }

    /// How many answers of its phone went to the address that this text went to first.
    fn answers_to(&self, text: usize) -> u32 {
        let phone = self.ledger.texts[text].phone;
        let answers = self.ledger.texts.iter().filter(|sms| sms.kind == Kind::Answer && sms.phone == phone);
        // One that has never left may be for anybody.
        answers.filter(|sms| sms.ids.is_empty() || sms.ids.keys().any(|to| text_of(to) == Some(text))).count() as u32
    }

    fn check_text(&mut self, text: usize) {
        let sms = self.ledger.texts[text].clone();
        if !sms.is_sure() || matches!(sms.kind, Kind::Word) || self.ledger.not_told > 0 {
            return;
        }
        let has_arrived = self.has_arrived(&sms, text);
        let reports: Vec<usize> = sms
            .parts
            .keys()
            .map(|reference| self.ledger.reports.get(&(sms.phone, *reference)).map_or(0, BTreeSet::len))
            .collect();
        let refused = |what: u32| self.refusals.contains(&(sms.phone, what));
        let no_words = refused(1000);
        let no_report = sms.parts.keys().any(|reference| refused(u32::from(*reference)));
        let was_taken = sms.ids.values().flatten().any(|id| self.ledger.taken.contains_key(id));
        if sms.kind == Kind::New {
            // Answers to the same address are told in the same words.
            let (told, more) = (sms.told, self.answers_to(text));
            let none = told <= more;
            let all_reported = reports.iter().all(|count| *count == 1) || no_report;
            let holds = match (has_arrived, sms.report_wanted) {
                (true, false) => none,
                (true, true) => none && all_reported,
                (false, false) => (1..=1 + more).contains(&told) || no_words,
                // A bounce after its report is told in words.
                (false, true) => all_reported && (none || was_taken),
            };
            self.demand(TEXT_END, holds, || {
                format!("s{text} {sms:?}: arrived {has_arrived}, taken {was_taken}, reports {reports:?}, told {told}")
            });
        } else if has_arrived && sms.report_wanted {
            let holds = reports.iter().all(|count| *count == 1) || no_report;
            self.demand(REPORTS, holds, || format!("s{text} {sms:?} has {reports:?}"));
        }
    }

    /// Words of failure without a name, counted.
    fn check_told(&mut self, phone: usize) {
        if self.ledger.not_told > 0 || self.refusals.contains(&(phone, 1000)) {
            return;
        }
        let (mut least, mut most) = (0, 0);
        for (text, sms) in self.ledger.texts.iter().enumerate().filter(|(_, sms)| sms.phone == phone) {
            if sms.kind == Kind::New {
                continue;
            }
            if sms.kind == Kind::Word {
                most += 1;
                continue;
            }
            let has_arrived = self.has_arrived(sms, text);
            most += u32::from(!has_arrived);
            let is_named = sms.ids.is_empty() || sms.ids.keys().any(|to| text_of(to).is_some());
            least += u32::from(!has_arrived && sms.is_sure() && !sms.report_wanted && !is_named);
            // It was shown there, and its box has not heard so.
            if let (Kind::Phone(to), true) = (sms.kind, has_arrived) {
                most += u32::from(self.ledger.seen[&(to, 's', text, 1)].answered.is_none());
            }
        }
        let told = self.ledger.told_others.get(&phone).copied().unwrap_or_default();
        self.demand(TEXT_END, (least..=most).contains(&told), || {
            format!("phone {phone} is told of {told} texts, not {least} to {most}")
        });
    }
}

fn mail_of(message_id: &str) -> Option<usize> {
    message_id.strip_prefix('m')?.split('@').next()?.parse().ok()
}

/// Which text of a phone's some words are about: its address stands in them.
fn text_of(words: &str) -> Option<usize> {
    let local = words.split([' ', ':']).find_map(|word| word.split_once("@far.example"))?.0;
    local.get(1..)?.strip_prefix('t')?.parse().ok()
}

fn scts_of(shown: &Shown) -> [u8; 7] {
    match shown {
        Shown::Text { scts, .. } | Shown::Report { scts, .. } => *scts,
    }
}
