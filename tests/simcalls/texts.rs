//! Texts: what phones write, what their base stations make of a MESSAGE, and what is promised of both.
//!
//! A MESSAGE to a phone is answered when the phone has it, and never where the phone is absent; a copy is 100 while it is on its way
//! and a second text afterwards. Whether a phone has a text twice is seen here, at the phone.

use encamp::gsm::rpdu::{Rpdu, from_hex, to_hex};
use encamp::gsm::text;
use encamp::gsm::tpdu::{Address, Deliver, Submit};
use encamp::ident::Imsi;
use encamp::sip::parse::Message;
use encamp::sms::record;
use encamp::store::{Store, StoreId};

use crate::plan::{Breaker, NOBODYS};
use crate::says;
use crate::world::{Ev, MS, SECOND, World, proxy_of};

pub const KEPT: &str = "a 202 leaves when the text is on the disk";
pub const ARRIVES: &str = "every text that was taken arrives";
pub const ONCE: &str = "no text arrives twice, but where an answer was lost or a box fell";
pub const MARKED: &str = "what arrives twice has the same sender and time";
pub const ONE_AT_A_TIME: &str = "one text at a time for a phone, and two copies of it at most";
pub const NONE_AFTER: &str = "no copy of a text after its final answer";
pub const ORDER: &str = "texts arrive in their order where nothing is lost";
pub const BACK: &str = "who is back gets what has waited";

/// A text of the centre's own.
const CENTRE: &str = "1000";
const PAGING_US: u64 = 10 * SECOND;
const AGAIN_MS: [u64; 5] = [1_000, 3_000, 7_000, 15_000, 31_000];
/// An attempt is given up after so long without a word.
const SILENCE_US: u64 = 30 * SECOND;
/// A phone that is back is sent to within this, where nothing is lost.
const BACK_US: u64 = 12 * SECOND;

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum TextTick {
    Again {
        text: usize,
        call: u64,
        n: usize,
    },
    /// The phone says it again, as a new MESSAGE.
    Repeated(usize),
    Taken(usize),
    PagingOver(usize),
    Back {
        phone: usize,
        since_us: u64,
    },
}

/// What a phone has written.
pub struct Written {
    from: usize,
    to: Option<usize>,
    words: String,
    reference: u8,
    is_plain: bool,
    node: usize,
    /// Its last MESSAGE: Call-ID, number, bytes, and which of its repeats it is.
    call_id: String,
    cseq: u32,
    bytes: Vec<u8>,
    call: u64,
    answered: bool,
    /// A 202 left the box, the how manyeth of all.
    taken: Option<u64>,
    taken_us: u64,
    /// An answer was lost, or a box fell in between: it may come twice.
    excused: bool,
    final_heard: bool,
    /// TP-OA and TP-SCTS of each time that it was shown.
    shown: Vec<(String, [u8; 7])>,
}

/// A MESSAGE at a base station.
pub struct Incoming {
    cell: usize,
    phone: Option<usize>,
    call_id: String,
    bytes: Vec<u8>,
    paging_until_us: u64,
    in_transfer: bool,
    done: bool,
}

/// An attempt of a box, by its Call-ID.
pub struct Trying {
    node: usize,
    phone: Option<usize>,
    text: Option<usize>,
    copies: u32,
    last_us: u64,
    is_over: bool,
}

impl Trying {
    fn is_open(&self, now_us: u64) -> bool {
        !self.is_over && now_us < self.last_us + SILENCE_US - 10 * MS
    }
}

impl World {
    // --- Who writes ---

    pub fn other_acts(&mut self, phone: usize, dice: u64) {
        let Some(_) = self.phones[phone].at else { return };
        if dice < 60 {
            return;
        }
        let to = self.rng.below(self.plan.phones.len() as u64) as usize;
        let (to, number) = match self.rng.below(15) {
            0 => (None, NOBODYS.to_owned()),
            _ => (Some(to), self.plan.phones[to].number.clone()),
        };
        let is_plain = self.one_in(5);
        let text = self.texts.len();
        self.count += 1;
        let words = format!("text {text} to {number}");
        let cell = self.phones[phone].at.unwrap_or_default();
        self.texts.push(Written {
            from: phone,
            to,
            words,
            reference: self.count as u8,
            is_plain,
            node: self.plan.cells[cell].node,
            call_id: String::new(),
            cseq: 0,
            bytes: Vec::new(),
            call: 0,
            answered: false,
            taken: None,
            taken_us: 0,
            excused: false,
            final_heard: false,
            shown: Vec::new(),
        });
        self.writes(text, &number, false);
    }

    /// A MESSAGE as wire.md 4.1 has it: hex RP-DATA to `smsc`, or the words to the number.
    fn writes(&mut self, text: usize, number: &str, again: bool) {
        let phone = self.texts[text].from;
        let Some(cell) = self.phones[phone].at else { return };
        self.cells[cell].cseq += 1;
        let imsi = self.plan.phones[phone].imsi;
        let (address, proxy) = (self.plan.cells[cell].address, proxy_of(&self.plan, cell));
        let (call_id, cseq) = (format!("{:x}", self.rng.u64()), self.cells[cell].cseq);
        let dice = self.rng.u64();
        let one = &mut self.texts[text];
        let (user, kind, body) = if one.is_plain {
            (number, "text/plain", one.words.clone())
        } else {
            ("smsc", "application/vnd.3gpp.sms", rp_data(number, &one.words, one.reference, again))
        };
        one.bytes = format!(
            "MESSAGE sip:{user}@{proxy} SIP/2.0\r\n\
             To:  <sip:{user}@{host}>\r\n\
             From:  <sip:IMSI{imsi}@{address}>;tag=OBTS{dice:x}\r\n\
             Via: SIP/2.0/UDP {address};branch=z9hG4bKOBTS{dice:x}\r\n\
             Call-ID: {call_id}\r\n\
             CSeq: {cseq} MESSAGE\r\n\
             Contact: <sip:IMSI{imsi}@{address}>;expires=3600\r\n\
             Max-Forwards: 70\r\n\
             P-Preferred-Identity: <sip:IMSI{imsi}@{host}>\r\n\
             User-Agent: OpenBTS 5.0-master Build Date 2026-11-21T11:58:28\r\n\
             Content-Type: {kind}\r\nContent-Length: {}\r\n\r\n{body}",
            body.len(),
            host = address.ip(),
        )
        .into_bytes();
        (one.call_id, one.cseq, one.answered) = (call_id.clone(), cseq, false);
        one.call += 1;
        let (bytes, call) = (one.bytes.clone(), one.call);
        self.text_of.insert(call_id, text);
        tell!(self, "phone {phone} at cell {cell} writes text {text} to {number}");
        self.send(address, proxy, bytes);
        for (n, ms) in AGAIN_MS.iter().enumerate() {
            self.after(ms * MS, Ev::Text(TextTick::Again { text, call, n }));
        }
    }

    pub fn text_tick(&mut self, tick: TextTick) {
        match tick {
            TextTick::Again { text, call, n } => {
                let one = &self.texts[text];
                if one.answered || one.call != call {
                    return;
                }
                let bytes = one.bytes.clone();
                self.meet("copy of a text's MESSAGE");
                let Some(cell) = self.cell_of_via(&bytes) else { return };
                self.send(self.plan.cells[cell].address, proxy_of(&self.plan, cell), bytes);
                if n + 1 == AGAIN_MS.len() {
                    self.text_fails(text);
                }
            }
            TextTick::Repeated(text) => {
                let phone = self.texts[text].from;
                let here = self.phones[phone].at.map(|cell| self.plan.cells[cell].node);
                // Another centre knows nothing of it.
                if here == Some(self.texts[text].node) && self.phones[phone].busy.is_none() && !self.calm {
                    let number =
                        self.texts[text].to.map_or(NOBODYS.to_owned(), |to| self.plan.phones[to].number.clone());
                    self.meet("phone repeats a text");
                    self.writes(text, &number, true);
                }
            }
            TextTick::Taken(at) => self.text_taken(at),
            TextTick::PagingOver(at) => {
                let one = &self.incoming[at];
                if !one.done && !one.in_transfer && self.now_us >= one.paging_until_us {
                    // "The dialog is just dropped": no answer, ever.
                    self.forget_incoming(at);
                    self.meet("text to an absent phone");
                }
            }
            TextTick::Back { phone, since_us } => self.check_back(phone, since_us),
        }
    }

    fn cell_of_via(&self, bytes: &[u8]) -> Option<usize> {
        let message = encamp::sip::parse::parse(bytes).ok()?;
        self.cell_at(says::sent_by(&message)?)
    }

    /// RP-ERROR 127 at the phone; now and then it tries once more by itself.
    fn text_fails(&mut self, text: usize) {
        if self.texts[text].call < 2 && !self.texts[text].is_plain && self.one_in(2) {
            let pause = self.between_ms(500, 5_000);
            self.after(pause, Ev::Text(TextTick::Repeated(text)));
        }
    }

    pub fn text_answered(&mut self, _cell: usize, message: &Message<'_>) {
        let Some(text) = self.text_of.get(message.call_id()).copied() else { return };
        let code = message.code().unwrap_or_default();
        let one = &mut self.texts[text];
        if code < 200 || one.answered || one.cseq != message.cseq().0 || one.call_id != message.call_id() {
            return;
        }
        one.answered = true;
        match code {
            200..300 => {}
            404 => self.meet("404 to a text"),
            403 => self.meet("403 to a text"),
            _ => self.text_fails(text),
        }
    }

    // --- At the called base station ---

    pub fn text_comes(&mut self, cell: usize, message: &Message<'_>, bytes: &[u8]) {
        let key = (cell, message.call_id().to_owned());
        let from = says::sent_by(message).unwrap_or(self.plan.cells[cell].address);
        if let Some(at) = self.incoming_of.get(&key).copied() {
            self.meet("copy of a text at a cell");
            self.simple_answer(cell, from, message, 100, "Trying");
            let until_us = self.now_us + PAGING_US;
            self.incoming[at].paging_until_us = until_us;
            return self.at(until_us, Ev::Text(TextTick::PagingOver(at)));
        }
        let user = message.uri().and_then(|uri| uri.strip_prefix("sip:")?.split_once('@')).map(|(user, _)| user);
        let Some(imsi) = user.and_then(|user| Imsi::parse(user).ok()) else {
            return self.broken(crate::checks::BEARABLE, "a MESSAGE for no IMSI".into());
        };
        let phone = self.plan.phones.iter().position(|phone| phone.imsi == imsi);
        let at = self.incoming.len();
        let paging_until_us = self.now_us + PAGING_US;
        self.incoming.push(Incoming {
            cell,
            phone,
            call_id: message.call_id().to_owned(),
            bytes: bytes.to_vec(),
            paging_until_us,
            in_transfer: false,
            done: false,
        });
        self.incoming_of.insert(key, at);
        self.at(paging_until_us, Ev::Text(TextTick::PagingOver(at)));
        if phone.is_some_and(|phone| self.phones[phone].at == Some(cell)) {
            self.incoming[at].in_transfer = true;
            let transfer = self.between_ms(1_000, 8_000);
            self.after(transfer, Ev::Text(TextTick::Taken(at)));
        }
    }

    fn forget_incoming(&mut self, at: usize) {
        let one = &mut self.incoming[at];
        one.done = true;
        let key = (one.cell, one.call_id.clone());
        self.incoming_of.remove(&key);
    }

    /// The phone has it, or refuses it, or has gone meanwhile.
    fn text_taken(&mut self, at: usize) {
        if self.incoming[at].done {
            return;
        }
        self.forget_incoming(at);
        let (cell, bytes) = (self.incoming[at].cell, self.incoming[at].bytes.clone());
        let phone = self.incoming[at].phone.filter(|phone| self.phones[*phone].at == Some(cell));
        let (Some(phone), Ok(message)) = (phone, encamp::sip::parse::parse(&bytes)) else { return };
        let from = says::sent_by(&message).unwrap_or(self.plan.cells[cell].address);
        let trying = self.tried.get(message.call_id());
        let (text, node) = (trying.and_then(|trying| trying.text), trying.map(|trying| trying.node));
        if !self.fair && self.one_in(15) {
            self.phones[phone].has_refused.extend(node);
            self.meet("RP-ERROR");
            return self.simple_answer(cell, from, &message, 400, "Bad Request");
        }
        let Some((originator, timestamp, words)) = read_deliver(&message) else {
            return self.broken(crate::checks::BEARABLE, "a MESSAGE that no phone can read".into());
        };
        tell!(self, "phone {phone} is shown {words:?}");
        if let Some(node) = node {
            self.phones[phone].has_refused.remove(&node);
        }
        self.shown(phone, text, originator, timestamp, &words);
        // "The 200 has no To tag."
        self.simple_answer(cell, from, &message, 200, "OK");
    }

    fn shown(&mut self, phone: usize, text: Option<usize>, originator: String, timestamp: [u8; 7], words: &str) {
        let Some(text) = text else {
            if originator != CENTRE {
                self.broken(ARRIVES, format!("phone {phone} is shown {words:?}, which nobody wrote"));
            }
            return self.meet("words of the centre");
        };
        let one = &self.texts[text];
        if one.to != Some(phone) || one.words != words || originator != self.plan.phones[one.from].number {
            return self.broken(ARRIVES, format!("phone {phone} is shown {words:?} of {originator}"));
        }
        self.count_check(ONCE);
        let one = &mut self.texts[text];
        one.shown.push((originator, timestamp));
        if one.shown.len() > 1 {
            let (excused, same) = (one.excused, one.shown.iter().all(|shown| *shown == one.shown[0]));
            let copies = one.shown.len();
            if !excused {
                return self.broken(ONCE, format!("phone {phone} is shown text {text} {copies} times"));
            }
            self.meet("text shown twice");
            self.count_check(MARKED);
            if !same {
                let what = format!("phone {phone} cannot know text {text}: {:?}", self.texts[text].shown);
                self.broken(MARKED, what);
            }
            return;
        }
        if !self.is_fair_weather() {
            return;
        }
        self.count_check(ORDER);
        let (mine, node) = (self.texts[text].taken, self.texts[text].node);
        let later = self.texts.iter().position(|other| {
            other.to == Some(phone)
                && other.node == node
                && other.taken.is_some_and(|taken| mine.is_some_and(|mine| taken < mine))
                && other.shown.is_empty()
        });
        if let Some(later) = later {
            self.broken(ORDER, format!("phone {phone} is shown text {text} before text {later}"));
        }
    }

    fn is_fair_weather(&self) -> bool {
        let weather = &self.plan.weather;
        weather.lost + weather.late + weather.kills + weather.power_cuts + weather.disks_full + weather.cell_restarts
            == 0
    }

    // --- What a box says ---

    pub fn text_leaves(&mut self, node: usize, cell: usize, message: &Message<'_>) {
        let id = message.call_id().to_owned();
        if let Some(code) = message.code() {
            if let (202, Some(text)) = (code, self.text_of.get(&id).copied()) {
                self.text_promised(node, text);
            }
            return;
        }
        let user = message.uri().and_then(|uri| uri.strip_prefix("sip:")?.split_once('@')).map(|(user, _)| user);
        let imsi = user.and_then(|user| Imsi::parse(user).ok());
        let phone = imsi.and_then(|imsi| self.plan.phones.iter().position(|phone| phone.imsi == imsi));
        let now_us = self.now_us;
        self.count_check(ONE_AT_A_TIME);
        if let Some(trying) = self.tried.get_mut(&id) {
            trying.copies += 1;
            let (over, copies) = (trying.is_over, trying.copies);
            if over {
                return self.broken(NONE_AFTER, format!("cell {cell} hears a copy after its final answer"));
            }
            if copies > 2 {
                self.broken(ONE_AT_A_TIME, format!("cell {cell} hears {copies} copies"));
            }
            return;
        }
        let others = self.tried.values().filter(|trying| trying.node == node && trying.phone == phone);
        if others.clone().any(|trying| trying.is_open(now_us)) {
            return self.broken(ONE_AT_A_TIME, format!("box {node} sends phone {phone:?} a second text"));
        }
        let words = read_deliver(message).map(|(_, _, words)| words).unwrap_or_default();
        let text = self.texts.iter().position(|text| text.words == words);
        self.tried.insert(id, Trying { node, phone, text, copies: 1, last_us: now_us, is_over: false });
        if let Some(phone) = phone {
            self.phones[phone].sent_to_us = now_us;
        }
    }

    fn text_promised(&mut self, node: usize, text: usize) {
        self.count_check(KEPT);
        if self.texts[text].taken.is_some() {
            return;
        }
        self.count += 1;
        self.texts[text].taken = Some(self.count);
        self.texts[text].taken_us = self.now_us;
        if !self.texts[text].shown.is_empty() || self.texts[text].final_heard {
            return;
        }
        let words = self.texts[text].words.clone();
        if !self.kept_texts(node, true).contains(&words) {
            self.broken(KEPT, format!("the 202 for text {text} leaves, and a power cut would forget it"));
        }
    }

    /// The words of every text on a box's disk: after a power cut at this moment, or as it is.
    fn kept_texts(&self, node: usize, after_power_cut: bool) -> Vec<String> {
        let mut disk = self.boxes[node].disks.0[&StoreId::Messages].clone();
        if after_power_cut {
            disk.power_cut();
        }
        let all = disk.scan(record::TEXT_PREFIX, None, usize::MAX).unwrap_or_default();
        all.into_iter()
            .filter_map(|(key, value)| {
                let (imsi, number) = record::read_text_key(&key)?;
                text::decode(record::decode(imsi, number, &value).ok()?.data()?).ok()
            })
            .collect()
    }

    /// A base station's answer to a MESSAGE reaches its box.
    pub fn text_answer_heard(&mut self, message: &Message<'_>) {
        let code = message.code().unwrap_or_default();
        let now_us = self.now_us;
        let Some(trying) = self.tried.get_mut(message.call_id()) else { return };
        if code < 200 {
            trying.last_us = now_us;
            return;
        }
        trying.is_over = true;
        if let (Some(text), 200..300) = (trying.text, code) {
            self.texts[text].final_heard = true;
        }
    }

    /// A datagram of an attempt is lost or late: what is shown may be shown again.
    pub fn text_weather(&mut self, call_id: &str) {
        if let Some(text) = self.tried.get(call_id).and_then(|trying| trying.text) {
            self.texts[text].excused = true;
        }
    }

    pub fn texts_crash(&mut self, node: usize, power_cut: bool) {
        let kept = self.kept_texts(node, false);
        self.tried.values_mut().filter(|trying| trying.node == node).for_each(|trying| trying.is_over = true);
        self.tried.retain(|_, trying| trying.node != node || trying.text.is_some());
        for text in self.texts.iter_mut().filter(|text| text.node == node) {
            text.excused |= !text.final_heard || (power_cut && kept.contains(&text.words));
        }
        if self.plan.breaker == Some(Breaker::TextsLost)
            && let Some(disk) = self.boxes[node].disks.0.get_mut(&StoreId::Messages)
        {
            for (key, _) in disk.scan(record::TEXT_PREFIX, None, usize::MAX).unwrap_or_default() {
                let _ = disk.write(encamp::store::Batch::default().delete(key));
            }
            let _ = disk.sync();
        }
    }

    pub fn texts_cell_restarts(&mut self, cell: usize) {
        for at in 0..self.incoming.len() {
            if self.incoming[at].cell == cell && !self.incoming[at].done {
                self.forget_incoming(at);
            }
        }
    }

    // --- Who is back ---

    /// A REGISTER of this phone was answered 200.
    pub fn phone_is_back(&mut self, phone: usize) {
        let now_us = self.now_us;
        let waits = self.waits_since(phone, now_us - SECOND);
        let is_tried = self.tried.values().any(|trying| trying.phone == Some(phone) && trying.is_open(now_us));
        let is_slow = self.plan.weather.slow_syncs > 0;
        if waits && !is_tried && self.is_fair_weather() && !is_slow {
            self.after(BACK_US, Ev::Text(TextTick::Back { phone, since_us: now_us }));
        }
    }

    /// A text that was taken before, and stands behind none that the phone has refused: that one has its own pause.
    fn waits_since(&self, phone: usize, before_us: u64) -> bool {
        let mut waiting = self.texts.iter().filter(|text| text.to == Some(phone) && text.shown.is_empty());
        let has_refused = &self.phones[phone].has_refused;
        waiting.any(|text| text.taken.is_some() && text.taken_us < before_us && !has_refused.contains(&text.node))
    }

    fn check_back(&mut self, phone: usize, since_us: u64) {
        let one = &self.phones[phone];
        // It moved on, or was switched off again.
        if one.registered.is_none_or(|registered| registered.yes_us != since_us || one.at != Some(registered.cell)) {
            return;
        }
        self.count_check(BACK);
        self.meet("absent-return");
        let waits = self.waits_since(phone, since_us - SECOND);
        if waits && self.phones[phone].sent_to_us < since_us {
            self.broken(BACK, format!("phone {phone} is back, and nobody sends it anything"));
        }
    }

    pub fn check_texts(&mut self) {
        for text in 0..self.texts.len() {
            let one = &self.texts[text];
            if one.taken.is_some() && one.to.is_some() && one.shown.is_empty() {
                let what = format!("text {text} of phone {} to phone {:?} never arrives", one.from, one.to);
                return self.broken(ARRIVES, what);
            }
            self.count_check(ARRIVES);
        }
        for node in 0..self.boxes.len() {
            let kept = self.kept_texts(node, false);
            if !kept.is_empty() {
                return self.broken(crate::checks::EMPTY, format!("box {node} still keeps {kept:?}"));
            }
        }
    }
}

fn rp_data(number: &str, words: &str, reference: u8, again: bool) -> String {
    let submit = Submit {
        reference,
        destination: Address::parse(number).expect("a number"),
        protocol: 0,
        reject_duplicates: again,
        report_wanted: false,
        reply_path: false,
        validity: None,
        data: text::encode(words).expect("a short text"),
    };
    let tpdu = submit.encode();
    let destination = Address::parse("0000").ok();
    // RP-MR counts on, TP-MR does not.
    let reference = reference.wrapping_add(u8::from(again));
    let rpdu = Rpdu::DataFromPhone { reference, originator: None, destination, tpdu: &tpdu };
    to_hex(&rpdu.encode().expect("a short TPDU"))
}

/// TP-OA, TP-SCTS and the words of a MESSAGE to a phone.
fn read_deliver(message: &Message<'_>) -> Option<(String, [u8; 7], String)> {
    let octets = from_hex(message.body).ok()?;
    let (Rpdu::DataToPhone { tpdu, .. }, _) = Rpdu::decode(&octets).ok()? else { return None };
    let (deliver, _) = Deliver::decode(tpdu).ok()?;
    Some((deliver.originator.number(), deliver.timestamp.octets(), text::decode(&deliver.data).ok()?))
}
