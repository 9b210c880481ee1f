//! Phones, and the base stations between them and their boxes.

use std::collections::VecDeque;

use encamp::gsm::tpdu::{Address, Submit};
use encamp::seam::{Input, Local, Port};

use crate::boxes::*;
use crate::checks::{Kind, Sms};
use crate::wire::*;
use crate::world::{Breaker, Ev, MS, SECOND, World};

/// Pauses between the copies of a request that nobody answers.
const PAUSES_S: [u64; 5] = [1, 2, 4, 8, 16];
/// TP-MR names each of them once.
const PARTS_MAX: u8 = 240;

#[derive(Default)]
pub struct Phone {
    pub on: bool,
    cseq: u32,
    reference: u8,
    outgoing: VecDeque<(usize, Submit)>,
    sending: Option<Sending>,
}

struct Sending {
    text: usize,
    submit: Submit,
    call_id: String,
    copy: usize,
    again: u8,
}

impl World {
    pub fn register(&mut self, phone: usize) {
        self.phones[phone].on = true;
        self.phones[phone].cseq += 1;
        let bytes = register(phone, self.phones[phone].cseq);
        self.deliver_to_box(phone, bytes);
    }

    fn deliver_to_box(&mut self, phone: usize, bytes: Vec<u8>) {
        if self.bad(25) {
            return;
        }
        let late_us = MS + self.rng.below(20 * MS);
        self.later(late_us, Ev::ToBox { phone, bytes });
    }

    pub fn at_box(&mut self, phone: usize, bytes: &[u8]) {
        let to = Local { port: Port::Front(0), address: None };
        self.feed(box_of(phone), Input::Datagram { from: station(phone), to, bytes });
    }

    // --- Writing ---

    /// A text of one or more parts, each a SUBMIT of its own.
    pub fn write(&mut self, phone: usize, to: &str, kind: Kind, words: &[String], report_wanted: bool) {
        let parts = words.len() as u8;
        if self.phones[phone].reference.saturating_add(parts) > PARTS_MAX {
            return;
        }
        let text = self.ledger.texts.len();
        self.tell(|| format!("phone {phone} texts s{text} to {to}, report {report_wanted}: {words:?}"));
        let mut sms = Sms { phone, kind, to: to.to_owned(), ..Sms::default() };
        for (at, words) in words.iter().enumerate() {
            self.phones[phone].reference += 1;
            let reference = self.phones[phone].reference;
            sms.parts.insert(reference, None);
            sms.report_wanted = report_wanted;
            let submit = Submit {
                reference,
                destination: Address::parse(to).expect("a number"),
                protocol: 0,
                reject_duplicates: false,
                report_wanted,
                reply_path: false,
                validity: None,
                data: part_data(words, text as u8, at as u8 + 1, parts),
            };
            self.phones[phone].outgoing.push_back((text, submit));
        }
        self.ledger.texts.push(sms);
        self.send_next(phone);
    }

    pub fn send_next(&mut self, phone: usize) {
        let one = &mut self.phones[phone];
        if one.sending.is_some() || !one.on {
            return;
        }
        let Some((text, submit)) = one.outgoing.pop_front() else { return };
        one.sending = Some(Sending { text, submit, call_id: String::new(), copy: 0, again: 0 });
        self.submit(phone);
    }

    fn submit(&mut self, phone: usize) {
        self.next_id += 1;
        let call_id = format!("mo{}", self.next_id);
        let Some(sending) = &mut self.phones[phone].sending else { return };
        sending.call_id = call_id.clone();
        sending.copy = 0;
        sending.submit.reject_duplicates = sending.again > 0;
        let bytes = message(phone, &call_id, &sending.submit);
        self.deliver_to_box(phone, bytes.clone());
        self.later(PAUSES_S[0] * SECOND, Ev::Again { phone, call_id });
    }

    /// Nobody has answered: the base station says it again, or the phone does, or it gives up.
    pub fn again(&mut self, phone: usize, call_id: &str) {
        let Some(sending) = &mut self.phones[phone].sending else { return };
        if sending.call_id != call_id {
            return;
        }
        sending.copy += 1;
        if let Some(pause_s) = PAUSES_S.get(sending.copy) {
            let bytes = message(phone, call_id, &sending.submit);
            self.deliver_to_box(phone, bytes);
            return self.later(pause_s * SECOND, Ev::Again { phone, call_id: call_id.to_owned() });
        }
        sending.again += 1;
        if sending.again > 2 {
            self.phones[phone].sending = None;
            return self.send_next(phone);
        }
        self.meet("a phone repeats its text");
        self.submit(phone);
    }

    // --- What comes ---

    pub fn at_phone(&mut self, phone: usize, bytes: &[u8]) {
        let Some(sip) = Sip::read(bytes) else { return };
        if sip.code() > 0 {
            return self.response(phone, &sip);
        }
        if !sip.start.starts_with("MESSAGE ") {
            return;
        }
        if !self.phones[phone].on {
            if !self.one_in(4) {
                self.deliver_to_box(phone, sip.answer(480));
            }
            return;
        }
        if self.bad(12) {
            let code = if self.one_in(2) { 480 } else { 503 };
            return self.deliver_to_box(phone, sip.answer(code));
        }
        if self.bad(60) && !self.is_story {
            self.meet("a phone refuses a text");
            self.tell(|| format!("phone {phone} refuses {:?}", Shown::of(&sip)));
            return self.deliver_to_box(phone, sip.answer(400));
        }
        let Some(shown) = Shown::of(&sip) else { return };
        let swallowed = self.breaker == Some(Breaker::YesWithoutPhone) && self.one_in(4);
        if !swallowed {
            self.tell(|| format!("phone {phone} shows {shown:?}"));
            self.shown(phone, &shown);
        }
        if self.breaker == Some(Breaker::ShownTwice) && self.one_in(6) {
            self.got_answer(phone, &shown);
            self.shown(phone, &shown);
        }
        self.decides(phone, &shown);
        if self.bad(15) {
            self.meet("a yes of a phone is lost");
            return;
        }
        let answer = sip.answer(200);
        let late_us = 500 * MS + self.rng.below(2 * SECOND);
        self.later(late_us, Ev::Took { phone, shown: Box::new(shown), bytes: answer });
    }

    /// Says yes or no to whom it is asked about.
    fn decides(&mut self, phone: usize, shown: &Shown) {
        let Shown::Text { from, words, .. } = shown else { return };
        let Some((who, _)) = words.split_once(" wants to write to you. ") else { return };
        if self.ledger.decided.contains_key(&(phone, who.to_owned())) {
            return;
        }
        self.meet("a phone is asked");
        let yes = !who.as_bytes()[1].is_multiple_of(3);
        self.ledger.decided.insert((phone, who.to_owned()), yes);
        if yes {
            self.ledger.said_yes.insert((phone, from.clone()));
            self.ledger.wrote_as.insert((phone, from.clone(), who.to_owned()));
        }
        let word = if yes { "yes" } else { "no" };
        self.write(phone, from, Kind::Word, &[word.to_owned()], false);
    }

    fn response(&mut self, phone: usize, sip: &Sip) {
        let (code, call_id) = (sip.code(), sip.header("Call-ID"));
        if code < 200 {
            return;
        }
        let one = &mut self.phones[phone];
        let Some(sending) = one.sending.take_if(|sending| sending.call_id == call_id) else { return };
        let yes = (200..300).contains(&code);
        let (text, reference) = (sending.text, sending.submit.reference);
        self.tell(|| format!("phone {phone} knows of s{text}, its {reference}: {code}"));
        self.ledger.texts[text].parts.insert(reference, Some(yes));
        self.send_next(phone);
    }
}
