//! What is promised of a text, checked at the moment it is made: the ledger beside the world.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;

use encamp::event::Event;
use encamp::gsm::form::TextForm;
use encamp::gsm::report::Status;
use encamp::gsm::text;
use encamp::seam::{TextOutcome, TextRecord};
use encamp::sms::record::{self, Cause, Fate, Payload, Recipient, Sender, Text};
use encamp::store::{Batch, Seq};

use crate::boxes::*;
use crate::phone::last_octet;
use crate::wire::{Shown, Sip, is_ack, tokens};
use crate::world::{Ev, SECOND, World};

pub const DURABLE: &str = "a yes leaves when the text and its digests are on the disk";
pub const ACCEPTED_ONCE: &str = "a copy is no second text";
pub const ONE_END: &str = "every accepted text ends exactly once";
pub const OWED: &str = "an end is told to whom it is owed, once";
pub const ALL_END: &str = "in the end everything has ended";
pub const MARKED: &str = "a phone gets a text twice only after a lost answer, and that is announced";
pub const IDENTITY: &str = "a text looks the same each time, and like no other";
pub const ONE_AT_A_TIME: &str = "one MESSAGE at a time is open to a phone";
pub const PLACES_KEPT: &str = "a base station is given no more than it has places for";
pub const PATIENT: &str = "an attempt is given its time";
pub const ORDER: &str = "texts come in their order";
pub const TRUTH: &str = "what is told of a text is true";
pub const WAKES: &str = "a return wakes every centre that waits";
pub const LEAKS: &str = "nothing is left under way";
pub const RECORDS: &str = "one line of records for a text that has ended";
pub const EARLY: &str = "a text ends by its time, and not before";

/// How far a clock of a box may have been moved.
const JUMPS_S: u64 = 600;
/// After a start a clock goes on where no stamp was given before.
const FLOOR_S: u64 = 15;
/// A return has woken everybody by then.
const WOKEN_US: u64 = 60 * SECOND;

#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Violation {
    pub promise: &'static str,
    pub what: String,
    pub at_us: u64,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum To {
    #[default]
    Nobody,
    Code,
    Phone(usize),
}

/// One SUBMIT of a phone.
#[derive(Clone, Debug, Default)]
pub struct Part {
    pub from: usize,
    pub to: To,
    pub reference: u8,
    pub life_s: Option<u64>,
    pub single: bool,
    /// What the phone was told.
    pub knows: Option<bool>,
    /// Boxes that have said yes.
    pub yes_by: BTreeSet<usize>,
}

#[derive(Clone, PartialEq, Eq, Debug)]
enum About {
    Part(usize, u8),
    Report { reference: u8, by_command: bool, status: u8 },
    Words,
}

/// A text in a box.
#[derive(Clone, Debug)]
struct Kept {
    recipient: Recipient,
    about: About,
    /// Written with this batch; 0: by an earlier life.
    seq: Seq,
    accepted_us: u64,
    shown_as: String,
    timestamp_s: u64,
    sender: Option<usize>,
    reference: u8,
    report_wanted: bool,
    digests: Vec<Vec<u8>>,
    cause: Cause,
    end: Option<(Seq, TextOutcome)>,
    records: u32,
    /// Power was lost between its end and its line.
    record_lost: bool,
    attempts: usize,
    /// By which attempts its phone has it.
    shown: Vec<String>,
    first: Option<Shown>,
    /// In this life of its box a yes came in time.
    yes_heard: Option<u32>,
}

struct Open {
    call_id: String,
    numbers: Vec<u64>,
    station: SocketAddr,
    form: TextForm,
    started_us: u64,
    /// The last word of it that let it wait longer.
    heard_us: u64,
    copies: u32,
    is_answered: bool,
    is_read: bool,
}

struct Attempt {
    which: usize,
    numbers: Vec<u64>,
    started_us: u64,
    is_marked: bool,
    copies: u32,
}

#[derive(Default)]
pub struct Ledger {
    pub parts: BTreeMap<(usize, u8), Part>,
    pub submitted: BTreeMap<String, (usize, u8)>,
    kept: BTreeMap<(usize, u64), Kept>,
    open: BTreeMap<(usize, usize), Open>,
    attempts: BTreeMap<String, Attempt>,
    marks: BTreeMap<(usize, usize), u64>,
    not_told: BTreeSet<(usize, u64)>,
    /// Boxes whose clock was moved; the others believe one that is ahead by less than five minutes.
    pub jumped: BTreeSet<usize>,
    pub checked: BTreeMap<&'static str, u64>,
    pub ended: BTreeMap<&'static str, u64>,
}

impl Ledger {
    pub fn waiting(&self) -> usize {
        self.kept.values().filter(|kept| kept.end.is_none()).count()
    }

    pub fn some_waiting(&self, which: usize, phone: usize) -> Option<u64> {
        let to = Recipient::Phone(imsi(phone));
        let mut all = self.kept.iter().filter(|((at, _), kept)| *at == which && kept.recipient == to);
        all.find(|(_, kept)| kept.end.is_none()).map(|((_, number), _)| *number)
    }

    fn count(&mut self, promise: &'static str) {
        *self.checked.entry(promise).or_default() += 1;
    }

    /// The first text that waits there for this phone.
    fn head(&self, which: usize, phone: usize) -> Option<u64> {
        self.some_waiting(which, phone)
    }

    fn of_part(&self, which: usize, text: usize, part: u8) -> Option<u64> {
        let found = self.kept.range((which, 0)..(which + 1, 0));
        found.filter(|(_, kept)| kept.about == About::Part(text, part)).map(|((_, number), _)| *number).next_back()
    }
}

fn arrived(outcome: TextOutcome) -> bool {
    matches!(outcome, TextOutcome::Delivered | TextOutcome::Answered)
}

fn about(text: &Text) -> About {
    match &text.payload {
        Payload::Report(report) => {
            About::Report { reference: report.reference, by_command: report.by_command, status: report.status.0 }
        }
        Payload::Mail(_) => About::Words,
        Payload::Text(data) => match text.sender {
            Sender::Centre => About::Words,
            Sender::Phone(_) | Sender::Trunk(_) | Sender::Mail(_) => {
                let words = text::decode(data).unwrap_or_default();
                tokens(&words).first().map_or(About::Words, |(text, part)| About::Part(*text, *part))
            }
        },
    }
}

impl World {
    // --- What a box writes ---

    pub fn written(&mut self, which: usize, seq: Seq, batch: &Batch) {
        let mut digests = Vec::new();
        let (mut put, mut deleted, mut ended) = (Vec::new(), BTreeSet::new(), Vec::new());
        for (key, value) in &batch.changes {
            match (key.first(), value) {
                (Some(b'd'), Some(_)) => digests.push(key.clone()),
                (Some(b't'), Some(value)) => {
                    let Some((recipient, number)) = record::read_text_key(key) else { continue };
                    let Ok(text) = record::decode(recipient, number, value) else { continue };
                    put.push(text);
                }
                (Some(b't'), None) => drop(record::read_text_key(key).map(|(_, number)| deleted.insert(number))),
                (Some(b'i'), Some(value)) => {
                    let number = u64::from_be_bytes(key[1..9].try_into().expect("eight octets"));
                    if let Some(Fate::Ended(end)) = record::decode_fate(number, value) {
                        ended.push((number, end));
                    }
                }
                _ => {}
            }
        }
        let mut fresh = Vec::new();
        for text in put {
            match self.ledger.kept.get_mut(&(which, text.number)) {
                // An SMS-COMMAND may ask for a report, or want it no longer.
                Some(kept) => (kept.cause, kept.report_wanted) = (text.cause, text.report_wanted),
                None => {
                    fresh.push(text.clone());
                    self.accepted(which, seq, text, &digests);
                }
            }
        }
        let count = ended.len();
        for (number, end) in ended {
            if !deleted.contains(&number) {
                self.broken(ONE_END, format!("box {which}: text {number} ends and stays"));
            }
            self.ends(which, seq, number, end.outcome, &fresh, count);
        }
    }

    fn accepted(&mut self, which: usize, seq: Seq, text: Text, digests: &[Vec<u8>]) {
        let about = about(&text);
        if let About::Part(of, part) = about {
            self.ledger.count(ACCEPTED_ONCE);
            if self.ledger.of_part(which, of, part).is_some() {
                self.broken(ACCEPTED_ONCE, format!("box {which} takes #{of}.{part} twice"));
            }
            self.meet(if text.came_from.is_some() { "a text is accepted" } else { "a text from nowhere" });
        }
        let same = |kept: &Kept| {
            kept.recipient == text.recipient && kept.shown_as == text.shown && kept.timestamp_s == text.timestamp_s
        };
        self.ledger.count(IDENTITY);
        if matches!(text.recipient, Recipient::Phone(_))
            && let Some((_, other)) = self.ledger.kept.iter().find(|((at, _), kept)| *at == which && same(kept))
        {
            let what = format!("box {which}: text {} and {other:?} look alike", text.number);
            self.broken(IDENTITY, what);
        }
        let kept = Kept {
            recipient: text.recipient,
            about,
            seq,
            accepted_us: self.now_us,
            shown_as: text.shown,
            timestamp_s: text.timestamp_s,
            sender: text.sender.phone().map(phone_of),
            reference: text.reference,
            report_wanted: text.report_wanted,
            digests: digests.to_vec(),
            cause: text.cause,
            end: None,
            records: 0,
            record_lost: false,
            attempts: 0,
            shown: Vec::new(),
            first: None,
            yes_heard: None,
        };
        self.ledger.kept.insert((which, text.number), kept);
    }

    /// `fresh`: what was added by the same batch; `count` texts end by it.
    fn ends(&mut self, which: usize, seq: Seq, number: u64, outcome: TextOutcome, fresh: &[Text], count: usize) {
        self.ledger.count(ONE_END);
        let Some(kept) = self.ledger.kept.get_mut(&(which, number)) else {
            return self.broken(ONE_END, format!("box {which}: text {number} ends and was never accepted"));
        };
        if let Some((_, before)) = kept.end {
            let what = format!("box {which}: text {number} ends twice: {before:?}, then {outcome:?}");
            return self.broken(ONE_END, what);
        }
        kept.end = Some((seq, outcome));
        let kept = kept.clone();
        *self.ledger.ended.entry(outcome.word()).or_default() += 1;
        self.tell(|| format!("box {which}: text {number} {:?} is {outcome:?}", kept.about));
        if outcome == TextOutcome::Delivered {
            self.ledger.count(TRUTH);
            if kept.shown.is_empty() {
                self.broken(TRUTH, format!("box {which}: text {number} is delivered, and its phone has it not"));
            }
        }
        if outcome == TextOutcome::Expired {
            self.check_early(which, number, &kept);
        }
        let About::Part(text, part) = kept.about else { return };
        let (Some(sender), To::Phone(_) | To::Nobody) = (kept.sender, self.ledger.parts[&(text, part)].to) else {
            return;
        };
        self.ledger.count(OWED);
        let told = |to: &&Text| to.recipient == Recipient::Phone(imsi(sender)) && to.sender == Sender::Centre;
        let reports = fresh.iter().filter(told).filter(|text| {
            matches!(&text.payload, Payload::Report(report) if report.reference == kept.reference && !report.by_command)
        });
        let words = fresh.iter().filter(told).filter(|text| matches!(text.payload, Payload::Text(_)));
        let (reports, words) = (reports.count(), words.count());
        // Of what the operator drops only he is told who asked for a report.
        let failed = matches!(outcome, TextOutcome::Failed | TextOutcome::Expired);
        if outcome == TextOutcome::Deleted {
            let all = fresh.iter().filter(told).filter(|text| matches!(text.payload, Payload::Report(_))).count();
            self.meet("a phone deletes its text");
            if all > 1 || (kept.report_wanted && all == 0) || words > 0 {
                self.broken(
                    OWED,
                    format!("box {which}: text {number} is deleted, and {all} reports and {words} words say so"),
                );
            }
            return;
        }
        let owed = (usize::from(kept.report_wanted), usize::from(!kept.report_wanted && failed));
        // Parts of one text that end together are told of together.
        let words_right = if count > 1 { !fresh.is_empty() || owed.1 == 0 } else { words == owed.1 };
        if (reports != owed.0 || !words_right) && !self.ledger.not_told.contains(&(which, number)) {
            let what = format!(
                "box {which}: text {number} is {outcome:?}, its sender is owed {owed:?} reports and words, and gets {:?}",
                (reports, words)
            );
            self.broken(OWED, what);
        }
        if outcome == TextOutcome::Dropped {
            self.meet("the operator drops a text");
        }
        self.meet(match (outcome, kept.report_wanted) {
            (TextOutcome::Dropped, false) => "a text dropped without report",
            (TextOutcome::Delivered, true) => "a report of success",
            (TextOutcome::Delivered, false) => "a success without report",
            (_, true) => "a report of failure",
            (_, false) => "words of failure",
        });
    }

    fn check_early(&mut self, which: usize, number: u64, kept: &Kept) {
        let (mut life_s, mut single) = (LIFE_MAX.as_secs(), false);
        if let About::Part(text, part) = kept.about
            && let Some(part) = self.ledger.parts.get(&(text, part))
        {
            (life_s, single) = (part.life_s.unwrap_or(life_s).min(life_s), part.single);
        }
        self.meet(if single { "a single shot fails" } else { "a text expires" });
        if single || self.expired_by_hand {
            return;
        }
        self.ledger.count(EARLY);
        let slack_s = if !self.ledger.jumped.is_empty() { JUMPS_S } else { FLOOR_S };
        let lived_s = (self.now_us - kept.accepted_us) / SECOND;
        if lived_s + slack_s < life_s {
            self.broken(EARLY, format!("box {which}: text {number} expires after {lived_s} s of {life_s}"));
        }
    }

    // --- Power ---

    /// What is interesting of this moment.
    pub fn note_cut(&mut self, which: usize) {
        let synced = self.boxes[which].durable();
        let is_durable = |number: &u64| synced.contains_key(&record::fate_key(*number));
        let here = self.ledger.kept.range((which, 0)..(which + 1, 0));
        let mut met = BTreeSet::new();
        for ((_, number), kept) in here {
            if !is_durable(number) {
                met.insert("power cut before the sync of a text");
            } else if let About::Part(text, part) = kept.about
                && !self.ledger.parts[&(text, part)].yes_by.contains(&which)
            {
                met.insert("power cut between sync and yes");
            }
            if let Some((seq, _)) = kept.end
                && seq > 0
                && !matches!(
                    synced.get(&record::fate_key(*number)).and_then(|fate| record::decode_fate(*number, fate)),
                    Some(Fate::Ended(_))
                )
            {
                met.insert("power cut before the sync of an end");
            }
        }
        if self.ledger.open.keys().any(|(at, _)| *at == which) {
            met.insert("power cut while a MESSAGE is open");
        }
        met.into_iter().for_each(|what| self.meet(what));
    }

    /// The writes up to this one have survived.
    pub fn lost_power(&mut self, which: usize, kept_seq: Seq) {
        self.ledger.open.retain(|(at, _), _| *at != which);
        self.ledger.marks.retain(|(at, _), _| *at != which);
        let mut broken = None;
        let durable = self.boxes[which].durable();
        let parts = &self.ledger.parts;
        self.ledger.kept.retain(|(at, number), kept| {
            if *at != which {
                return true;
            }
            let yes = matches!(kept.about, About::Part(text, part) if parts[&(text, part)].yes_by.contains(&which));
            if kept.seq > kept_seq {
                if yes {
                    broken = Some((DURABLE, format!("box {which}: text {number} was said yes to, and is lost")));
                }
                return false;
            }
            kept.seq = 0;
            kept.yes_heard = None;
            match &mut kept.end {
                Some((seq, _)) if *seq > kept_seq => kept.end = None,
                Some((seq, _)) => {
                    *seq = 0;
                    kept.record_lost |= kept.records == 0;
                }
                None => {}
            }
            let key = if kept.end.is_some() { None } else { Some(record::text_key(kept.recipient, *number)) };
            match key.map(|key| durable.get(&key).and_then(|text| record::decode(kept.recipient, *number, text).ok())) {
                Some(None) => {
                    broken = Some((ONE_END, format!("box {which}: text {number} has vanished without an end")));
                }
                // What was noted of it last may be lost, too.
                Some(Some(text)) => (kept.cause, kept.report_wanted) = (text.cause, text.report_wanted),
                None => {}
            }
            true
        });
        if let Some((promise, what)) = broken {
            self.broken(promise, what);
        }
    }

    // --- What a box says ---

    pub fn told(&mut self, which: usize, event: &Event) {
        match event {
            Event::TextPossibleDuplicate { text, recipient } => {
                if let Some(imsi) = recipient.phone().filter(|_| !self.is_mute()) {
                    self.ledger.marks.insert((which, phone_of(imsi)), *text);
                }
                self.meet("an attempt is marked");
            }
            Event::TextDelivered { text, recipient, .. } | Event::TextEnded { text, recipient, .. } => {
                self.closes(which, *recipient, *text, false);
            }
            Event::PhoneAbsent { text, recipient, .. } => {
                self.meet("a phone is absent");
                self.closes(which, *recipient, *text, true);
            }
            Event::PhoneMemoryFull { text, recipient, .. } => {
                self.meet("a centre waits for memory");
                self.closes(which, *recipient, *text, true);
            }
            Event::TextAttemptFailed { text, recipient, .. } => self.closes(which, *recipient, *text, true),
            Event::TextNotTold { text, .. } => drop(self.ledger.not_told.insert((which, *text))),
            Event::TextDuplicate { .. } => self.meet("a copy is known"),
            Event::PhoneReturned { .. } => self.meet("a return is noticed"),
            Event::AlertReceived { .. } => self.meet("a return is told by another box"),
            _ => {}
        }
    }

    fn is_mute(&self) -> bool {
        self.breaker == Some(crate::world::Breaker::MarksUnsaid)
    }

    fn closes(&mut self, which: usize, recipient: Recipient, number: u64, failed: bool) {
        let Some(phone) = recipient.phone().map(phone_of) else { return };
        let Some(open) = self.ledger.open.get(&(which, phone)).filter(|open| open.numbers.contains(&number)) else {
            return;
        };
        let waited_us = self.now_us.saturating_sub(open.heard_us);
        let total_us = self.now_us - open.started_us;
        let early = !open.is_answered && failed && waited_us < 30 * SECOND - 1 && total_us < 60 * SECOND - 1;
        let call_id = open.call_id.clone();
        self.ledger.count(PATIENT);
        self.ledger.open.remove(&(which, phone));
        if early {
            self.broken(PATIENT, format!("box {which} gives {call_id} up after {total_us} us"));
        }
    }

    pub fn recorded(&mut self, which: usize, record: &TextRecord) {
        let Ok(number) = record.id.parse::<u64>() else {
            self.meet("a text is refused");
            return;
        };
        self.ledger.count(RECORDS);
        let Some(kept) = self.ledger.kept.get_mut(&(which, number)) else {
            return self.broken(RECORDS, format!("box {which}: a line for text {number}, which it never had"));
        };
        kept.records += 1;
        if kept.records > 1 {
            self.broken(RECORDS, format!("box {which}: a second line for text {number}"));
        } else if kept.end.map(|(_, outcome)| outcome) != Some(record.outcome) {
            let what = format!("box {which}: a line says {:?} of text {number}: {:?}", record.outcome, kept.end);
            self.broken(RECORDS, what);
        }
    }

    /// A datagram leaves a box.
    pub fn sent(&mut self, which: usize, to: SocketAddr, bytes: &[u8]) {
        if port_of(to).is_some() {
            return;
        }
        let Some(sip) = Sip::read(bytes) else { return };
        let call_id = sip.header("Call-ID").to_owned();
        if sip.code() > 0 {
            let is_yes = (200..300).contains(&sip.code()) && is_ack(&sip.body).unwrap_or(true);
            if let Some(part) = self.ledger.submitted.get(&call_id).copied()
                && is_yes
                && self.phones[self.ledger.parts[&part].from].form != TextForm::Ims
            {
                self.says_yes(which, part);
            }
            return;
        }
        let in_reply_to = sip.header("In-Reply-To");
        if !in_reply_to.is_empty() {
            if is_ack(&sip.body) == Some(true)
                && let Some(part) = self.ledger.submitted.get(in_reply_to).copied()
            {
                self.says_yes(which, part);
            }
            return;
        }
        self.opens(which, to, &sip, call_id);
    }

    fn says_yes(&mut self, which: usize, (text, part): (usize, u8)) {
        self.ledger.count(DURABLE);
        let Some(number) = self.ledger.of_part(which, text, part) else {
            return self.broken(DURABLE, format!("box {which} says yes to #{text}.{part} and has it not"));
        };
        let kept = &self.ledger.kept[&(which, number)];
        let durable = self.boxes[which].durable();
        let fresh = self.now_us - kept.accepted_us < 500 * SECOND;
        let is_durable = durable.contains_key(&record::fate_key(number))
            && (!fresh || kept.digests.iter().all(|digest| durable.contains_key(digest)))
            && (kept.end.is_some() || durable.contains_key(&record::text_key(kept.recipient, number)));
        if !is_durable || kept.digests.is_empty() {
            return self.broken(DURABLE, format!("box {which} says yes to #{text}.{part}, and the disk has it not"));
        }
        if let Some(part) = self.ledger.parts.get_mut(&(text, part)) {
            part.yes_by.insert(which);
        }
    }

    fn opens(&mut self, which: usize, station: SocketAddr, sip: &Sip, call_id: String) {
        let user = sip.start.trim_start_matches("MESSAGE sip:").split('@').next().unwrap_or_default().to_owned();
        let phone = (0..PHONES).find(|phone| user == format!("IMSI{}", imsi(*phone)) || user == number(*phone));
        let Some(phone) = phone else { return self.broken(IDENTITY, format!("a MESSAGE to {user}")) };
        self.ledger.count(ONE_AT_A_TIME);
        let now_us = self.now_us;
        if let Some(open) = self.ledger.open.get_mut(&(which, phone)) {
            let same = open.call_id == call_id;
            let early = now_us - open.started_us < 12 * SECOND;
            open.copies += 1;
            let (answered, copies) = (open.is_answered, open.copies);
            if !same {
                self.broken(ONE_AT_A_TIME, format!("box {which} sends phone {phone} {call_id} beside another one"));
            } else if answered || copies > 2 || early {
                self.broken(ONE_AT_A_TIME, format!("box {which} sends {call_id} again ({copies}), out of turn"));
            }
            if let Some(attempt) = self.ledger.attempts.get_mut(&call_id) {
                attempt.copies += 1;
            }
            self.meet("a second copy");
            return;
        }
        let Some(numbers) = self.numbers_of(which, phone, sip).filter(|numbers| !numbers.is_empty()) else {
            return self.broken(IDENTITY, format!("box {which} sends phone {phone} what it never took"));
        };
        let life = self.boxes[which].life;
        let form = self.phones[phone].form;
        let marked = self.ledger.marks.remove(&(which, phone));
        let is_marked = marked.is_some_and(|text| numbers.contains(&text));
        if numbers.len() > 1 {
            self.meet("a long text in one piece");
        }
        for number in &numbers {
            let Some(kept) = self.ledger.kept.get_mut(&(which, *number)) else { continue };
            kept.attempts += 1;
            let kept = kept.clone();
            if !self.boxes[which].durable().contains_key(&record::text_key(kept.recipient, *number)) {
                let what = match kept.end {
                    Some(_) => format!("box {which} sends text {number} after its end"),
                    None => format!("box {which} sends text {number} before it is on the disk"),
                };
                self.broken(ONE_END, what);
            } else if kept.end.is_some() || kept.yes_heard == Some(life) {
                self.broken(MARKED, format!("box {which} sends text {number} again after it heard a yes"));
            }
            self.check_report(which, *number, &kept);
        }
        let attempt = Attempt { which, numbers: numbers.clone(), started_us: now_us, is_marked, copies: 1 };
        self.ledger.attempts.insert(call_id.clone(), attempt);
        let open = Open {
            call_id,
            numbers,
            station,
            form,
            started_us: now_us,
            heard_us: now_us,
            copies: 1,
            is_answered: false,
            is_read: false,
        };
        self.ledger.open.insert((which, phone), open);
        self.ledger.count(PLACES_KEPT);
        let here = self.ledger.open.iter().filter(|((at, _), open)| *at == which && open.station.ip() == station.ip());
        let here = here.count();
        if here == PLACES {
            self.meet("a base station has no place left");
        }
        if here > PLACES {
            self.broken(PLACES_KEPT, format!("box {which} sends .{} {here} at a time", last_octet(station)));
        }
    }

    /// A report leaves when what it tells of is on the disk, and says what became of it.
    fn check_report(&mut self, which: usize, number: u64, kept: &Kept) {
        let About::Report { reference, by_command: false, status } = kept.about else { return };
        let Some(to) = kept.recipient.phone().map(phone_of) else { return };
        self.ledger.count(TRUTH);
        let here = self.ledger.kept.range((which, 0)..(which + 1, 0));
        let mut of = here.filter(|(_, of)| of.sender == Some(to) && of.reference == reference && of.report_wanted);
        let Some(((_, of), told)) = of.next() else {
            return self.broken(TRUTH, format!("box {which}: report {number} is about nothing"));
        };
        let fate = self.boxes[which].durable().get(&record::fate_key(*of));
        let ended = fate.and_then(|fate| record::decode_fate(*of, fate));
        let is_success = status == Status::RECEIVED.0;
        let what = match (ended, told.end) {
            (Some(Fate::Ended(end)), _) if arrived(end.outcome) == is_success => return,
            (None, Some((0, _))) => return,
            (fate, _) => format!("box {which}: report {number} says {status} of text {of}: {fate:?}"),
        };
        self.broken(TRUTH, what);
    }

    /// Which texts are in a MESSAGE.
    fn numbers_of(&self, which: usize, phone: usize, sip: &Sip) -> Option<Vec<u64>> {
        let to = Recipient::Phone(imsi(phone));
        let here = || {
            let all = self.ledger.kept.range((which, 0)..(which + 1, 0));
            all.filter(|(_, kept)| kept.recipient == to).map(|((_, number), kept)| (*number, kept))
        };
        let at = |scts: [u8; 7]| encamp::gsm::tpdu::Scts::from_octets(scts).unix_s();
        match Shown::of(sip)? {
            Shown::Text { from, scts, .. } => {
                let mut same = here().filter(|(_, kept)| kept.shown_as == from && Some(kept.timestamp_s) == at(scts));
                same.next().map(|(number, _)| vec![number])
            }
            Shown::Report { reference, status, .. } => {
                let mut same = here().filter(|(_, kept)| {
                    matches!(kept.about, About::Report { reference: held, status: said, .. }
                        if held == reference && said == status)
                });
                same.next_back().map(|(number, _)| vec![number])
            }
            Shown::Plain(words) => {
                let tokens = tokens(&words);
                if tokens.is_empty() {
                    return self.ledger.head(which, phone).map(|number| vec![number]);
                }
                Some(tokens.iter().filter_map(|(text, part)| self.ledger.of_part(which, *text, *part)).collect())
            }
        }
    }

    // --- What a box hears ---

    /// A datagram reaches a box that is up.
    pub fn heard(&mut self, which: usize, bytes: &[u8]) {
        let Some(sip) = Sip::read(bytes) else { return };
        let is_request = sip.code() == 0;
        let of = if is_request { sip.header("In-Reply-To") } else { sip.header("Call-ID") };
        if of.is_empty() || (is_request && !sip.start.starts_with("MESSAGE")) {
            return;
        }
        let now_us = self.now_us;
        let open = self.ledger.open.iter_mut().find(|((at, _), open)| *at == which && open.call_id == of);
        let Some((_, open)) = open else {
            if self.ledger.attempts.contains_key(of) && sip.code() >= 200 {
                self.meet("a late answer");
            }
            return;
        };
        let rpdu = is_ack(&sip.octets());
        match sip.code() {
            100..200 => open.heard_us = now_us,
            200..300 if open.form == TextForm::Ims && rpdu.is_none() => {
                // It says that it has read it; the rest comes within 45 s.
                if std::mem::replace(&mut open.is_read, true) {
                    return;
                }
                open.heard_us = now_us + 15 * SECOND;
                open.started_us = open.started_us.max(now_us);
            }
            code => {
                open.is_answered = true;
                if rpdu.unwrap_or(code < 300) {
                    let (numbers, life) = (open.numbers.clone(), self.boxes[which].life);
                    for number in numbers {
                        if let Some(kept) = self.ledger.kept.get_mut(&(which, number)) {
                            kept.yes_heard = Some(life);
                        }
                    }
                }
            }
        }
    }

    /// The net has lost a datagram.
    pub fn note_lost(&mut self, bytes: &[u8]) {
        let Some(sip) = Sip::read(bytes) else { return };
        let call_id = sip.header("Call-ID");
        let what = match (sip.code(), self.ledger.submitted.contains_key(call_id)) {
            (200..300, true) => "a yes to a phone is lost",
            (200..300, false) if self.ledger.attempts.contains_key(call_id) => "a yes of a phone is lost",
            (0, true) => "a text is lost on its way to the box",
            (0, false) if self.ledger.attempts.contains_key(call_id) => "a text is lost on its way to the phone",
            (0, false) if bytes.starts_with(b"NOTIFY") => "an alert is lost",
            _ => return,
        };
        self.meet(what);
    }

    // --- What a phone shows ---

    pub fn show(&mut self, phone: usize, sip: &Sip) {
        let call_id = sip.header("Call-ID").to_owned();
        let Some(shown) = Shown::of(sip) else { return };
        self.tell(|| format!("phone {phone} shows {shown:?} of {call_id}"));
        let Some(attempt) = self.ledger.attempts.get(&call_id) else { return };
        let (which, numbers, copies) = (attempt.which, attempt.numbers.clone(), attempt.copies);
        for number in numbers {
            let Some(kept) = self.ledger.kept.get(&(which, number)).cloned() else { continue };
            self.ledger.count(MARKED);
            let others: BTreeSet<&String> = kept.shown.iter().collect();
            for other in others {
                let (one, two) = (&self.ledger.attempts[other], &self.ledger.attempts[&call_id]);
                let second = if one.started_us > two.started_us { one } else { two };
                let what = match *other == call_id {
                    true if copies < 2 => format!("phone {phone} shows {call_id} twice, which was sent once"),
                    false if !second.is_marked => {
                        format!("phone {phone} shows text {number} of box {which} again, unannounced")
                    }
                    _ => continue,
                };
                self.broken(MARKED, what);
            }
            if !kept.shown.is_empty() {
                self.meet("a phone shows a text twice");
            }
            let is_plain = matches!(shown, Shown::Plain(_));
            if let Some(first) = kept.first.as_ref().filter(|_| !is_plain) {
                self.ledger.count(IDENTITY);
                let differs = match (first, &shown) {
                    (Shown::Text { from, scts, words }, Shown::Text { from: f, scts: s, words: w }) => {
                        (from, scts, words) != (f, s, w)
                    }
                    (first, shown) => first != shown,
                };
                if differs {
                    self.broken(IDENTITY, format!("phone {phone} shows text {number} as {first:?} and {shown:?}"));
                }
            }
            if kept.shown.is_empty() && kept.attempts == 1 && copies == 1 {
                self.check_order(which, number, &kept);
            }
            if let Shown::Report { reference, status, .. } = shown {
                self.check_shown_report(which, phone, reference, status);
            }
            if let Some(kept) = self.ledger.kept.get_mut(&(which, number)) {
                kept.shown.push(call_id.clone());
                kept.first.get_or_insert(shown.clone());
            }
        }
    }

    fn check_order(&mut self, which: usize, number: u64, kept: &Kept) {
        self.ledger.count(ORDER);
        let later = self.ledger.kept.range((which, number + 1)..(which + 1, 0));
        let mut later = later.filter(|(_, other)| other.recipient == kept.recipient && !other.shown.is_empty());
        // Parts of one text are shown together by some.
        let before = later.find(|(_, other)| match (&other.about, &kept.about) {
            (About::Part(one, _), About::Part(two, _)) => one != two,
            _ => true,
        });
        if let Some(((_, before), _)) = before {
            // A long text in one piece takes its later parts with it, past what stands between them.
            let is_plain =
                kept.recipient.phone().is_some_and(|imsi| self.phones[phone_of(imsi)].form == TextForm::Plain);
            if !is_plain {
                self.broken(ORDER, format!("box {which}: text {number} is shown after text {before}"));
            }
        }
    }

    fn check_shown_report(&mut self, which: usize, phone: usize, reference: u8, status: u8) {
        let here = self.ledger.kept.range((which, 0)..(which + 1, 0));
        let mut of = here.filter(|(_, of)| of.sender == Some(phone) && of.reference == reference && of.report_wanted);
        let Some(((_, number), of)) = of.next() else { return };
        let is_success = status == Status::RECEIVED.0;
        if is_success && of.shown.is_empty() && matches!(of.recipient, Recipient::Phone(_)) {
            return self.broken(TRUTH, format!("phone {phone} reads that text {number} arrived, and it did not"));
        }
        if is_success != of.end.is_some_and(|(_, outcome)| arrived(outcome)) {
            return self.broken(TRUTH, format!("phone {phone} reads {status} of text {number}: {:?}", of.end));
        }
        self.meet("a report is read");
    }

    // --- A return ---

    pub fn is_back(&mut self, phone: usize) {
        let to = Recipient::Phone(imsi(phone));
        let mut waiting: BTreeMap<usize, Vec<u64>> = BTreeMap::new();
        for ((which, number), kept) in &self.ledger.kept {
            let waits = matches!(kept.cause, Cause::Absent | Cause::MemoryFull);
            if kept.recipient == to && kept.end.is_none() && waits {
                waiting.entry(*which).or_default().push(*number);
            }
        }
        if self.quiet && !waiting.is_empty() {
            if waiting.keys().any(|which| *which != self.phones[phone].box_of()) {
                self.meet("a centre elsewhere waits for who returns");
            }
            let (at_us, waiting) = (self.now_us, waiting.into_iter().collect());
            self.later(WOKEN_US, Ev::CheckReturn { phone, at_us, waiting });
        }
    }

    pub fn check_return(&mut self, phone: usize, at_us: u64, waiting: &[(usize, Vec<u64>)]) {
        // A box that dies right after its answer tells nobody any more: then there is the slow ladder, and everything ends all the same.
        if self.died_us + SECOND > at_us {
            self.meet("a box dies after it has answered who returns");
            return;
        }
        for (which, numbers) in waiting {
            self.ledger.count(WAKES);
            let tried = self.ledger.attempts.values().any(|attempt| {
                attempt.which == *which
                    && attempt.started_us + 5 * SECOND >= at_us
                    && attempt.numbers.iter().any(|number| {
                        self.ledger
                            .kept
                            .get(&(*which, *number))
                            .is_some_and(|kept| kept.recipient == Recipient::Phone(imsi(phone)))
                    })
            });
            let waits = numbers
                .iter()
                .any(|number| self.ledger.kept.get(&(*which, *number)).is_some_and(|kept| kept.end.is_none()));
            let was_open = self.ledger.attempts.values().any(|attempt| {
                attempt.which == *which
                    && (at_us.saturating_sub(60 * SECOND)..at_us).contains(&attempt.started_us)
                    && attempt.numbers.iter().any(|number| numbers.contains(number))
            });
            // A return during an attempt is told from the binding that the attempt went to by its stamp: with clocks that are apart it
            // may not be, and the slow ladder has to do.
            if waits && !tried && was_open && !self.ledger.jumped.is_empty() {
                self.meet("a return during an attempt, with clocks apart");
                continue;
            }
            if waits && !tried {
                let what = format!("phone {phone} is back, and box {which} does not send it {numbers:?}");
                return self.broken(WAKES, what);
            }
        }
    }

    // --- The end ---

    pub fn check_end(&mut self) {
        self.ledger.count(ALL_END);
        let left: Vec<_> = self.ledger.kept.iter().filter(|(_, kept)| kept.end.is_none()).collect();
        if let Some(((which, number), kept)) = left.first() {
            let what = format!("{} texts wait for ever; box {which}: text {number} {kept:?}", left.len());
            return self.broken(ALL_END, what);
        }
        for which in 0..BOXES {
            self.ledger.count(LEAKS);
            let (under_way, held) = {
                let one = &self.boxes[which];
                (one.node.as_ref().map_or(0, encamp::node::Node::under_way), one.out.held_count())
            };
            if under_way + held > 0 {
                self.broken(LEAKS, format!("box {which}: {under_way} under way, {held} held back"));
            }
            let texts = self.boxes[which].durable().keys().filter(|key| key.starts_with(b"t")).count();
            if texts > 0 {
                self.broken(LEAKS, format!("box {which}: {texts} texts are still on the disk"));
            }
        }
        if let Some(((which, phone), open)) = self.ledger.open.iter().next() {
            let what = format!("box {which} waits for ever for phone {phone}, {}", open.call_id);
            return self.broken(LEAKS, what);
        }
        let lines = self.ledger.kept.iter().find(|(_, kept)| kept.records == 0 && !kept.record_lost);
        if let Some(((which, number), _)) = lines {
            return self.broken(RECORDS, format!("box {which}: no line for text {number}"));
        }
        let mut broken = None;
        for ((text, part), written) in &self.ledger.parts {
            let To::Phone(_) = written.to else { continue };
            for which in &written.yes_by {
                let ended =
                    self.ledger.of_part(*which, *text, *part).map(|number| &self.ledger.kept[&(*which, number)]);
                let outcome = ended.and_then(|kept| kept.end).map(|(_, outcome)| outcome);
                let lives = written.life_s.is_none() && !written.single;
                let is_right = match outcome {
                    Some(TextOutcome::Delivered | TextOutcome::Dropped | TextOutcome::Deleted) => true,
                    Some(TextOutcome::Expired) => !lives || self.expired_by_hand,
                    _ => false,
                };
                if !is_right {
                    broken = Some(format!("box {which} took #{text}.{part}: {outcome:?}"));
                }
            }
            if written.knows == Some(true) && written.yes_by.is_empty() {
                broken = Some(format!("#{text}.{part} was said yes to by nobody"));
            }
        }
        if let Some(what) = broken {
            self.broken(ALL_END, what);
        }
    }
}
