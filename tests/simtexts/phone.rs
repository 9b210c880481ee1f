//! Phones of four forms, and the base stations between them and the boxes.

use std::collections::VecDeque;
use std::net::SocketAddr;

use encamp::gsm::form::TextForm;
use encamp::gsm::report::{Command, CommandKind};
use encamp::gsm::rpdu::Rpdu;
use encamp::gsm::tpdu::{Address, Submit, Validity};

use crate::boxes::*;
use crate::checks::{Part, To};
use crate::wire::*;
use crate::world::{Breaker, Ev, SECOND, World};

/// Pauses between the copies of a request that nobody answers.
const PAUSES_S: [u64; 5] = [1, 2, 4, 8, 16];
/// Texts that one phone writes: TP-MR names each of them once.
const PARTS_MAX: usize = 200;

pub struct Phone {
    pub form: TextForm,
    pub place: usize,
    pub on: bool,
    pub full: bool,
    /// It has refused a text for want of memory, and says when it has some.
    refused: bool,
    cseq: u32,
    registering: Option<u32>,
    reference: u8,
    written: usize,
    outgoing: VecDeque<Outgoing>,
    sending: Option<Sending>,
}

struct Outgoing {
    text: usize,
    part: u8,
    submit: Submit,
}

struct Sending {
    outgoing: Outgoing,
    call_id: String,
    place: usize,
    again: u8,
}

pub enum Later {
    /// A request is said again.
    Copy {
        key: String,
        copy: usize,
    },
    /// The phone has taken a MESSAGE, or would have.
    Taken {
        phone: usize,
        at: SocketAddr,
        sip: Box<Sip>,
    },
    Answer {
        at: SocketAddr,
        sip: Box<Sip>,
        code: u16,
    },
    /// An IMS phone has waited for the word of its text.
    NoteMissing {
        phone: usize,
        call_id: String,
    },
    Next {
        phone: usize,
    },
}

impl Phone {
    pub fn all() -> Vec<Phone> {
        let forms = [TextForm::OpenBts; 4].into_iter().chain([TextForm::Yate, TextForm::Ims, TextForm::Plain]);
        let phone = |form| Phone {
            form,
            place: 0,
            on: false,
            full: false,
            refused: false,
            cseq: 0,
            registering: None,
            reference: 0,
            written: 0,
            outgoing: VecDeque::new(),
            sending: None,
        };
        forms.map(phone).collect()
    }

    /// Where it may be: an address, and the box that it speaks to there.
    pub fn places(&self) -> &'static [(u8, usize)] {
        match self.form {
            TextForm::OpenBts => &[(71, 0), (72, 1), (73, 2)],
            TextForm::Yate => &[(81, 0), (82, 1)],
            TextForm::Ims => &[(91, 1), (92, 2)],
            TextForm::Plain => &[(101, 2), (102, 0)],
        }
    }

    pub fn at(&self) -> SocketAddr {
        SocketAddr::from(([192, 0, 2, self.places()[self.place].0], 5062))
    }

    pub fn box_of(&self) -> usize {
        self.places()[self.place].1
    }
}

impl World {
    // --- Registering ---

    pub fn register(&mut self, phone: usize) {
        let one = &mut self.phones[phone];
        one.cseq += 1;
        let (cseq, at, which, form) = (one.cseq, one.at(), one.box_of(), one.form);
        one.registering = Some(cseq);
        self.tell(|| format!("phone {phone} registers at {at} (box {which})"));
        self.ask(format!("r{phone}"), at, which, register(form, phone, at, cseq, 3600));
    }

    /// A request that is said until it is answered.
    fn ask(&mut self, key: String, at: SocketAddr, which: usize, bytes: Vec<u8>) {
        let to = source_of(which, FRONT);
        self.pending.insert(key.clone(), (at, to, bytes.clone()));
        self.wire(at, to, bytes);
        self.later(PAUSES_S[0] * SECOND, Ev::Phone(Later::Copy { key, copy: 1 }));
    }

    pub fn moves(&mut self, phone: usize) {
        self.aborts(phone);
        let places = self.phones[phone].places().len() as u64;
        self.phones[phone].place = self.rng.below(places) as usize;
        self.phones[phone].on = true;
        self.register(phone);
    }

    pub fn comes_back(&mut self, phone: usize) {
        if self.phones[phone].on {
            return;
        }
        self.phones[phone].on = true;
        self.register(phone);
    }

    pub fn detaches(&mut self, phone: usize) {
        if self.phones[phone].form != TextForm::OpenBts || !self.phones[phone].on {
            return;
        }
        self.aborts(phone);
        self.tell(|| format!("phone {phone} detaches"));
        self.meet("a phone detaches");
        let one = &mut self.phones[phone];
        one.on = false;
        one.cseq += 1;
        one.registering = None;
        let (at, which) = (one.at(), one.box_of());
        let bytes = register(one.form, phone, at, one.cseq, 0);
        self.pending.remove(&format!("r{phone}"));
        self.wire(at, source_of(which, FRONT), bytes);
    }

    /// What it was sending is over: its channel is gone.
    pub fn aborts(&mut self, phone: usize) {
        if let Some(sending) = self.phones[phone].sending.take() {
            self.pending.remove(&sending.call_id);
            self.later(2 * SECOND, Ev::Phone(Later::Next { phone }));
        }
    }

    pub fn set_memory(&mut self, phone: usize, room: bool) {
        let one = &mut self.phones[phone];
        if one.form == TextForm::Plain || one.full != room {
            return;
        }
        one.full = !room;
        self.tell(|| format!("phone {phone} has {} memory", if room { "" } else { "no" }));
        let one = &mut self.phones[phone];
        if !room || !std::mem::take(&mut one.refused) || !one.on {
            return;
        }
        let (form, at, which) = (one.form, one.at(), one.box_of());
        self.next_id += 1;
        let call_id = format!("sm{}", self.next_id);
        let bytes = match form {
            TextForm::Yate => message(form, phone, at, &call_id, &call_id, "SMMA", None, "", None),
            TextForm::Ims => message(form, phone, at, &call_id, &call_id, "smsc", Some(&rp_smma(7)), "", None),
            // OpenBTS passes none on.
            TextForm::OpenBts | TextForm::Plain => return,
        };
        self.meet("SMMA");
        self.ask(call_id, at, which, bytes);
    }

    // --- Writing ---

    pub fn write(&mut self, phone: usize) {
        let one = &self.phones[phone];
        if !one.on || one.outgoing.len() > 3 || one.written > PARTS_MAX {
            return;
        }
        let is_plain = self.phones[phone].form == TextForm::Plain;
        let to = match self.rng.below(20) {
            0 => To::Nobody,
            1 => To::Code,
            _ => To::Phone(self.rng.below(PHONES as u64) as usize),
        };
        let parts = if !is_plain && self.one_in(6) { 2 + self.rng.below(2) as u8 } else { 1 };
        let report_wanted = !is_plain && self.one_in(2);
        let (validity, life_s, single) = match self.rng.below(10) {
            _ if is_plain => (None, None, false),
            0 => (Some(Validity::Relative(0)), Some(300), false),
            1 => {
                let seconds = 20 + self.rng.below(200) as u8;
                (Some(Validity::Enhanced([0b010, seconds, 0, 0, 0, 0, 0])), Some(u64::from(seconds)), false)
            }
            2 => (Some(Validity::Enhanced([0b0100_0000, 0, 0, 0, 0, 0, 0])), None, true),
            _ => (None, None, false),
        };
        self.compose(phone, to, parts, report_wanted, (validity, life_s, single));
    }

    /// A text of so many parts, each a SUBMIT of its own.
    pub fn compose(
        &mut self,
        phone: usize,
        to: To,
        parts: u8,
        report_wanted: bool,
        (validity, life_s, single): (Option<Validity>, Option<u64>, bool),
    ) {
        self.next_text += 1;
        let text = self.next_text;
        let dialled = match to {
            To::Nobody => "7999".to_owned(),
            To::Code => CODE.to_owned(),
            To::Phone(to) => number(to),
        };
        self.tell(|| format!("phone {phone} writes #{text} to {dialled}, {parts} parts, report {report_wanted}"));
        for part in 1..=parts {
            let one = &mut self.phones[phone];
            one.reference = one.reference.wrapping_add(1);
            one.written += 1;
            let reference = one.reference;
            let submit = Submit {
                reference,
                destination: Address::parse(&dialled).expect("a number"),
                protocol: 0,
                reject_duplicates: false,
                report_wanted,
                reply_path: false,
                validity,
                data: part_data(text, part, parts),
            };
            one.outgoing.push_back(Outgoing { text, part, submit });
            let written = Part { from: phone, to, reference, life_s, single, ..Part::default() };
            self.ledger.parts.insert((text, part), written);
        }
        self.send_next(phone);
    }

    /// An SMS-COMMAND about a text that this phone has written.
    pub fn commands(&mut self, phone: usize) {
        let one = &self.phones[phone];
        if !one.on || one.form == TextForm::Plain || one.written > PARTS_MAX {
            return;
        }
        let mine: Vec<(usize, u8, To)> = self
            .ledger
            .parts
            .iter()
            .rev()
            .filter(|(_, part)| part.from == phone)
            .take(6)
            .map(|((text, _), part)| (*text, part.reference, part.to))
            .collect();
        if mine.is_empty() {
            return;
        }
        let (text, about, to) = mine[self.rng.below(mine.len() as u64) as usize];
        let kinds = [CommandKind::ENQUIRE, CommandKind::DELETE, CommandKind::CANCEL_REPORT, CommandKind::ENABLE_REPORT];
        let kind = kinds[self.rng.below(4) as usize];
        let To::Phone(to) = to else { return };
        let report_wanted = kind == CommandKind::ENQUIRE || self.one_in(2);
        let one = &mut self.phones[phone];
        one.reference = one.reference.wrapping_add(1);
        one.written += 1;
        let (reference, form, at, which) = (one.reference, one.form, one.at(), one.box_of());
        let command = Command {
            reference,
            report_wanted,
            protocol: 0,
            kind,
            message: about,
            destination: Address::parse(&number(to)).expect("a number"),
            has_header: false,
            data: Vec::new(),
        };
        self.tell(|| format!("phone {phone} commands {kind:?} of #{text}, its {about}, as {reference}"));
        let destination = Address::parse("0000").ok();
        let tpdu = command.encode();
        let rpdu = Rpdu::DataFromPhone { reference, originator: None, destination, tpdu: &tpdu };
        let rpdu = rpdu.encode().expect("short");
        self.next_id += 1;
        let call_id = format!("cm{}", self.next_id);
        let bytes = message(form, phone, at, &call_id, &call_id, "smsc", Some(&rpdu), "", None);
        self.meet("a phone commands");
        self.ask(call_id, at, which, bytes);
    }

    fn send_next(&mut self, phone: usize) {
        let one = &mut self.phones[phone];
        if one.sending.is_some() || !one.on {
            return;
        }
        let Some(outgoing) = one.outgoing.pop_front() else { return };
        let place = one.place;
        one.sending = Some(Sending { outgoing, call_id: String::new(), place, again: 0 });
        self.submit(phone);
    }

    fn submit(&mut self, phone: usize) {
        self.next_id += 1;
        let call_id = format!("mo{}", self.next_id);
        let one = &mut self.phones[phone];
        let (form, at, which) = (one.form, one.at(), one.box_of());
        let Some(sending) = &mut one.sending else { return };
        sending.call_id = call_id.clone();
        let Outgoing { text, part, submit } = &sending.outgoing;
        let mut submit = submit.clone();
        submit.reject_duplicates = sending.again > 0;
        let again = sending.again;
        let rp_reference = submit.reference.wrapping_add(again);
        let bytes = match form {
            TextForm::Plain => {
                let words = format!("#{text}.{part}# on my way");
                let user = submit.destination.number();
                message(form, phone, at, &call_id, &call_id, &user, None, &words, None)
            }
            _ => {
                let rpdu = rp_submit(&submit, rp_reference);
                message(form, phone, at, &call_id, &call_id, "smsc", Some(&rpdu), "", None)
            }
        };
        let part = (*text, *part);
        self.ledger.submitted.insert(call_id.clone(), part);
        if again > 0 {
            self.meet("a phone repeats its text");
        }
        self.ask(call_id, at, which, bytes);
    }

    /// The phone is told what became of its text.
    fn submitted(&mut self, phone: usize, call_id: &str, yes: bool) {
        let one = &mut self.phones[phone];
        if one.sending.as_ref().is_none_or(|sending| sending.call_id != call_id) {
            return;
        }
        let Some(sending) = one.sending.take() else { return };
        self.pending.remove(call_id);
        let key = (sending.outgoing.text, sending.outgoing.part);
        if let Some(part) = self.ledger.parts.get_mut(&key) {
            part.knows = Some(yes);
        }
        self.tell(|| format!("phone {phone} knows of #{}.{}: {yes}", key.0, key.1));
        self.later(500_000, Ev::Phone(Later::Next { phone }));
    }

    /// Nobody has answered: the phone says it once more, or gives up.
    fn unanswered(&mut self, phone: usize, call_id: &str) {
        let one = &mut self.phones[phone];
        let Some(sending) = one.sending.as_mut().filter(|sending| sending.call_id == call_id) else { return };
        sending.again += 1;
        if sending.again > 2 || one.form == TextForm::Plain || sending.place != one.place || !one.on {
            one.sending = None;
            self.pending.remove(call_id);
            return self.later(SECOND, Ev::Phone(Later::Next { phone }));
        }
        self.submit(phone);
    }

    // --- Later ---

    pub fn phone_later(&mut self, later: Later) {
        match later {
            Later::Copy { key, copy } => {
                let Some((at, to, bytes)) = self.pending.get(&key).cloned() else { return };
                let pause_s = PAUSES_S.get(copy);
                if copy < PAUSES_S.len() + 1 {
                    self.wire(at, to, bytes);
                }
                match pause_s {
                    Some(pause_s) => self.later(pause_s * SECOND, Ev::Phone(Later::Copy { key, copy: copy + 1 })),
                    None => self.given_up(&key),
                }
            }
            Later::Taken { phone, at, sip } => self.taken(phone, at, &sip),
            Later::Answer { at, sip, code } => self.answer(at, &sip, code, None),
            Later::NoteMissing { phone, call_id } => self.unanswered(phone, &call_id),
            Later::Next { phone } => self.send_next(phone),
        }
    }

    fn given_up(&mut self, key: &str) {
        self.pending.remove(key);
        if let Some(phone) = key.strip_prefix('r').and_then(|phone| phone.parse::<usize>().ok()) {
            if self.phones[phone].on {
                self.register(phone);
            }
        } else if key.starts_with("mo")
            && let Some(phone) = (0..PHONES)
                .find(|phone| self.phones[*phone].sending.as_ref().is_some_and(|sending| sending.call_id == key))
        {
            self.unanswered(phone, key);
        }
    }

    // --- What comes to a phone ---

    pub fn at_phone(&mut self, from: SocketAddr, at: SocketAddr, bytes: &[u8]) {
        let Some(sip) = Sip::read(bytes) else { return };
        if sip.code() > 0 {
            return self.response(at, &sip);
        }
        if !sip.start.starts_with("MESSAGE ") {
            return;
        }
        let user = sip.start.trim_start_matches("MESSAGE sip:").split('@').next().unwrap_or_default().to_owned();
        let phone = (0..PHONES).find(|phone| user == format!("IMSI{}", imsi(*phone)) || user == number(*phone));
        let Some(phone) = phone else { return };
        let here = self.phones[phone].on && self.phones[phone].at() == at;
        let call_id = sip.header("Call-ID").to_owned();
        if !sip.header("In-Reply-To").is_empty() {
            if here {
                self.wire(at, from, sip.answer(200, None));
                let (mo, yes) = (sip.header("In-Reply-To").to_owned(), is_ack(&sip.octets()) == Some(true));
                self.submitted(phone, &mo, yes);
            }
            return;
        }
        let key = (at, call_id);
        if let Some(said) = self.answered.get(&key).cloned() {
            return self.wire(at, from, said);
        }
        if self.paging.contains(&key) {
            return self.answer(at, &sip, 100, None);
        }
        match self.phones[phone].form {
            TextForm::OpenBts | TextForm::Yate => {
                if !here {
                    match self.rng.below(4) {
                        0 => {}
                        _ => {
                            let takes_us = 10 * SECOND + self.rng.below(4 * SECOND);
                            self.paging.insert(key);
                            self.later(takes_us, Ev::Phone(Later::Answer { at, sip: Box::new(sip), code: 480 }));
                        }
                    }
                    return;
                }
                if self.bad(12) {
                    let code = if self.phones[phone].form == TextForm::Yate { 503 } else { 400 };
                    return self.answer(at, &sip, code, None);
                }
                self.paging.insert(key);
                let takes_us = 3 * SECOND + self.rng.below(5 * SECOND);
                self.later(takes_us, Ev::Phone(Later::Taken { phone, at, sip: Box::new(sip) }));
            }
            TextForm::Ims if here => {
                self.answer(at, &sip, 200, None);
                self.paging.insert(key);
                let takes_us = self.rng.below(2 * SECOND);
                self.later(takes_us, Ev::Phone(Later::Taken { phone, at, sip: Box::new(sip) }));
            }
            TextForm::Plain if here => {
                if self.bad(12) {
                    return self.answer(at, &sip, 486, None);
                }
                self.show(phone, &sip);
                self.answer(at, &sip, 200, None);
            }
            // Nobody is there.
            TextForm::Ims | TextForm::Plain => {}
        }
    }

    /// A base station answers a MESSAGE; whoever has a transaction layer says it again to a copy.
    fn answer(&mut self, at: SocketAddr, sip: &Sip, code: u16, rpdu: Option<&[u8]>) {
        let key = (at, sip.header("Call-ID").to_owned());
        let bytes = sip.answer(code, rpdu);
        if code >= 200 {
            self.paging.remove(&key);
            let is_openbts = (71..=73).contains(&last_octet(at));
            if !is_openbts {
                self.answered.insert(key, bytes.clone());
            }
        }
        let via = sip.header("Via").trim_start_matches("SIP/2.0/UDP ").split(';').next().unwrap_or_default();
        if let Ok(to) = via.parse() {
            self.wire(at, to, bytes);
        }
    }

    fn taken(&mut self, phone: usize, at: SocketAddr, sip: &Sip) {
        let one = &self.phones[phone];
        let here = one.on && one.at() == at;
        let (form, full) = (one.form, one.full);
        let octets = sip.octets();
        let reference = rp_reference(&octets);
        if !here {
            self.paging.remove(&(at, sip.header("Call-ID").to_owned()));
            if form != TextForm::Ims && self.one_in(2) {
                self.answer(at, sip, 480, None);
            }
            return;
        }
        if full {
            self.phones[phone].refused = true;
            self.meet("a phone's memory is full");
            self.tell(|| format!("phone {phone} has no room"));
        } else if self.breaker != Some(Breaker::YesWithoutPhone) || !self.one_in(4) {
            self.show(phone, sip);
        }
        let said = if full { rp_full(reference) } else { rp_ack(reference) };
        match form {
            TextForm::OpenBts => self.answer(at, sip, if full { 400 } else { 200 }, None),
            TextForm::Yate => self.answer(at, sip, 200, Some(&said)),
            TextForm::Ims => {
                self.next_id += 1;
                let call_id = format!("rp{}", self.next_id);
                let mt = sip.header("Call-ID").to_owned();
                let bytes = message(form, phone, at, &call_id, &call_id, "smsc", Some(&said), "", Some(&mt));
                let via = sip.header("Via").trim_start_matches("SIP/2.0/UDP ").split(';').next().unwrap_or_default();
                if let Some((which, _)) = via.parse().ok().and_then(port_of) {
                    self.ask(call_id, at, which, bytes);
                }
            }
            TextForm::Plain => {}
        }
    }

    fn response(&mut self, at: SocketAddr, sip: &Sip) {
        let (code, call_id) = (sip.code(), sip.header("Call-ID").to_owned());
        if code < 200 {
            return;
        }
        if sip.header("CSeq").ends_with("REGISTER") {
            let cseq: u32 = sip.header("CSeq").split(' ').next().and_then(|cseq| cseq.parse().ok()).unwrap_or(0);
            let phone = (0..PHONES).find(|phone| call_id == format!("reg{phone}at{at}"));
            let Some(phone) = phone.filter(|phone| self.phones[*phone].registering == Some(cseq)) else { return };
            if code == 200 {
                self.phones[phone].registering = None;
                self.pending.remove(&format!("r{phone}"));
                self.tell(|| format!("phone {phone} is registered"));
                self.is_back(phone);
                self.send_next(phone);
            }
            return;
        }
        if !call_id.starts_with("mo") {
            self.pending.remove(&call_id);
            return;
        }
        let phone = (0..PHONES)
            .find(|phone| self.phones[*phone].sending.as_ref().is_some_and(|sending| sending.call_id == call_id));
        let Some(phone) = phone.filter(|phone| self.phones[*phone].at() == at) else { return };
        match (self.phones[phone].form, code) {
            (TextForm::Ims, 200..300) => {
                if self.pending.remove(&call_id).is_some() {
                    self.later(40 * SECOND, Ev::Phone(Later::NoteMissing { phone, call_id }));
                }
            }
            (_, 200..300) => {
                let yes = is_ack(&sip.body).unwrap_or(true);
                self.submitted(phone, &call_id, yes);
            }
            _ => self.submitted(phone, &call_id, false),
        }
    }
}

pub fn last_octet(at: SocketAddr) -> u8 {
    match at.ip() {
        std::net::IpAddr::V4(ip) => ip.octets()[3],
        std::net::IpAddr::V6(_) => 0,
    }
}
