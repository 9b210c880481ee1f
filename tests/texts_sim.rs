//! Texts through bad days: two boxes that lose power, disks that are slow, datagrams that are lost, doubled and late, phones that move
//! and are switched off. Each promise is checked at the moment that it leaves.
//!
//! `ENCAMP_SIM_SEED=4711` runs one seed and tells every step, `ENCAMP_SIM_SEEDS=1000` runs more of them.
#![allow(clippy::disallowed_methods, reason = "the seed to replay comes from the environment")]

mod desk;

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;

use desk::texts::*;
use desk::{Desk, Sent, imsi};
use encamp::event::Event;
use encamp::gsm::text;
use encamp::seam::{Command, CommandAnswer, Input, Local, QueueAsk, QueueFilter, Rng};
use encamp::sms::record;
use encamp::store::StoreId;

const TICK_MS: u64 = 250;
const PHONES: u64 = 4;
/// A day of trouble, then the faults end and everybody comes back.
const BUSY_MS: u64 = 400_000;
const QUIET_MS: u64 = 400_000;

/// A datagram under way, or something that a base station does later.
enum Ev {
    Deliver {
        from: SocketAddr,
        to: SocketAddr,
        bytes: Vec<u8>,
    },
    /// A phone has taken a MESSAGE, and its base station answers.
    Taken {
        phone: u64,
        mt: Box<Mt>,
    },
    /// A MESSAGE of a phone, sent again while nobody answers it.
    Submit {
        call_id: String,
        copy: usize,
    },
    /// A REGISTER of a phone, sent again while nobody answers it.
    Register {
        phone: u64,
        cseq: u32,
        copy: usize,
    },
}

#[derive(Clone)]
struct Phone {
    on: bool,
    station: &'static str,
    wrote_ms: u64,
    /// What it has been shown: sender and time, and how often.
    shown: BTreeMap<(String, [u8; 7]), Vec<String>>,
}

struct Written {
    from: u64,
    to: u64,
    words: String,
    request: String,
    box_of: usize,
    answer: Option<u16>,
}

/// What a box has sent to a phone and not had answered: one at a time.
struct Open {
    call_id: String,
    since_ms: u64,
    copies: usize,
    final_answer: bool,
}

struct World {
    seed: u64,
    rng: Rng,
    now_ms: u64,
    boxes: [Desk; 2],
    slow_until: [u64; 2],
    queue: BTreeMap<(u64, u64), Ev>,
    count: u64,
    phones: Vec<Phone>,
    cseq: u32,
    written: BTreeMap<String, Written>,
    registering: BTreeSet<(u64, u32)>,
    /// MESSAGEs that a base station has not answered yet, by Call-ID.
    paging: BTreeSet<String>,
    open: BTreeMap<(usize, String), Open>,
    /// Second copies, by words: each may be shown once more.
    copies: BTreeMap<String, usize>,
    cut: bool,
    fair: bool,
    trace: bool,
    marked: usize,
    cuts: usize,
}

fn station_of(box_of: usize) -> &'static str {
    if box_of == 0 { HILL } else { DALE }
}

fn box_at(station: &str) -> usize {
    usize::from(station == DALE)
}

impl World {
    fn new(seed: u64, trace: bool) -> World {
        let mut bytes = [5; 32];
        bytes[..8].copy_from_slice(&seed.to_be_bytes());
        let phone = Phone { on: true, station: HILL, wrote_ms: 0, shown: BTreeMap::new() };
        World {
            seed,
            rng: Rng::from_seed(bytes),
            now_ms: 0,
            boxes: [open_box(0), open_box(1)],
            slow_until: [0; 2],
            queue: BTreeMap::new(),
            count: 0,
            phones: vec![phone; PHONES as usize],
            cseq: 0,
            written: BTreeMap::new(),
            registering: BTreeSet::new(),
            paging: BTreeSet::new(),
            open: BTreeMap::new(),
            copies: BTreeMap::new(),
            cut: false,
            fair: false,
            trace,
            marked: 0,
            cuts: 0,
        }
    }

    fn tell(&self, what: impl FnOnce() -> String) {
        if self.trace {
            println!("{:>8.2} {}", self.now_ms as f64 / 1000.0, what());
        }
    }

    fn one_in(&mut self, n: u64) -> bool {
        self.rng.below(n) == 0
    }

    fn later(&mut self, ms: u64, ev: Ev) {
        self.count += 1;
        self.queue.insert((self.now_ms + ms, self.count), ev);
    }

    /// Over the wire: lost, doubled, late.
    fn wire(&mut self, from: SocketAddr, to: SocketAddr, bytes: &[u8]) {
        let copies = match (self.fair, self.rng.below(20)) {
            (false, 0) => 0,
            // Not a MESSAGE to a base station: a copy that comes after its answer is a second SMS, and none of our doing.
            (false, 1) if !bytes.starts_with(b"MESSAGE sip:IMSI") => 2,
            _ => 1,
        };
        for _ in 0..copies {
            let late_ms = if !self.fair && self.one_in(20) { self.rng.below(4_000) } else { 0 };
            self.later(late_ms, Ev::Deliver { from, to, bytes: bytes.to_vec() });
        }
    }

    fn run(&mut self) {
        for phone in 0..PHONES {
            let station = station_of(self.rng.below(2) as usize);
            self.phones[phone as usize].station = station;
            self.register(phone);
        }
        while self.now_ms < BUSY_MS {
            self.trouble();
            self.step();
        }
        self.fair = true;
        self.cut = false;
        self.slow_until = [0; 2];
        self.tell(|| "the faults end".into());
        for phone in 0..PHONES {
            self.phones[phone as usize].on = true;
        }
        for round in 0..4 {
            for phone in 0..PHONES {
                self.register(phone);
            }
            let until = BUSY_MS + QUIET_MS * (round + 1) / 4;
            while self.now_ms < until {
                self.step();
            }
        }
        self.check_rest();
    }

    /// What goes wrong in this quarter of a second.
    fn trouble(&mut self) {
        let phone = self.rng.below(PHONES);
        match self.rng.below(120) {
            0..6 => self.write(phone),
            6..8 => {
                self.phones[phone as usize].on = true;
                self.phones[phone as usize].station = station_of(self.rng.below(2) as usize);
                self.register(phone);
            }
            8 => {
                self.phones[phone as usize].on = false;
                self.tell(|| format!("phone {phone} is off"));
            }
            9 => self.cut = !self.cut,
            10 => {
                let which = self.rng.below(2) as usize;
                self.slow_until[which] = self.now_ms + self.rng.below(4_000);
            }
            11 if self.one_in(2) => {
                let which = self.rng.below(2) as usize;
                self.tell(|| format!("box {which} loses power"));
                self.cuts += 1;
                self.boxes[which].slow = false;
                self.collect();
                self.boxes[which].restart();
                self.open.retain(|(owner, _), _| *owner != which);
            }
            _ => {}
        }
    }

    fn step(&mut self) {
        self.now_ms += TICK_MS;
        for which in 0..2 {
            self.boxes[which].slow = self.now_ms < self.slow_until[which];
            self.boxes[which].wait_ms(TICK_MS);
        }
        self.collect();
        while let Some(entry) = self.queue.first_entry() {
            if entry.key().0 > self.now_ms {
                break;
            }
            let ev = entry.remove();
            self.happen(ev);
            self.collect();
        }
    }

    fn happen(&mut self, ev: Ev) {
        match ev {
            Ev::Deliver { from, to, bytes } => match to.ip().to_string().as_str() {
                "192.0.2.1" | "192.0.2.2" => {
                    let which = usize::from(to.ip().to_string() == "192.0.2.2");
                    let between = from.ip().to_string().len() == "192.0.2.1".len();
                    if between && self.cut {
                        return;
                    }
                    self.note_answer(which, &bytes);
                    let to = Local { port: port_of(to), address: None };
                    self.boxes[which].handle(Input::Datagram { from, to, bytes: &bytes });
                }
                _ => self.at_station(from, to, bytes),
            },
            Ev::Taken { phone, mt } => {
                let words = mt.words();
                self.tell(|| format!("phone {phone} is shown {words:?}"));
                self.paging.remove(mt.header("Call-ID"));
                self.phones[phone as usize].shown.entry(mt.identity()).or_default().push(words);
                self.answer(&mt, "200 OK");
            }
            Ev::Submit { call_id, copy } => {
                let Some(written) = self.written.get(&call_id) else { return };
                if written.answer.is_some() {
                    return;
                }
                let (request, box_of) = (written.request.clone(), written.box_of);
                let (from, to) = (station_of(box_of).parse().unwrap(), source_of(box_of, FRONT));
                self.wire(from, to, request.as_bytes());
                if let Some(pause) = [1_000, 2_000, 4_000, 8_000, 16_000].get(copy) {
                    self.later(*pause, Ev::Submit { call_id, copy: copy + 1 });
                }
            }
            Ev::Register { phone, cseq, copy } => {
                if !self.registering.contains(&(phone, cseq)) {
                    return;
                }
                let station = self.phones[phone as usize].station;
                let imsi = imsi(phone);
                let box_of = box_at(station);
                let text = format!(
                    "REGISTER sip:192.0.2.1 SIP/2.0\r\nTo: <sip:IMSI{imsi}@192.0.2.1:5064>\r\nFrom: <sip:IMSI{imsi}@192.0.2.1:5064>;tag=OBTS{cseq}\r\n\
                     Via: SIP/2.0/UDP {station};branch=z9hG4bKr{cseq}\r\nCall-ID: bts{station}\r\nCSeq: {cseq} REGISTER\r\n\
                     Contact: <sip:IMSI{imsi}@{station}>;expires=3600\r\nMax-Forwards: 70\r\nUser-Agent: OpenBTS 5.0\r\nContent-Length: 0\r\n\r\n"
                );
                self.wire(station.parse().unwrap(), source_of(box_of, FRONT), text.as_bytes());
                if copy < 4 {
                    self.later(1_000 << copy, Ev::Register { phone, cseq, copy: copy + 1 });
                } else if self.phones[phone as usize].on {
                    self.registering.remove(&(phone, cseq));
                    self.register(phone);
                }
            }
        }
    }

    fn register(&mut self, phone: u64) {
        self.cseq += 1;
        let cseq = self.cseq;
        self.registering.retain(|(other, _)| *other != phone);
        self.registering.insert((phone, cseq));
        self.tell(|| format!("phone {phone} registers at {}", self.phones[phone as usize].station));
        self.later(0, Ev::Register { phone, cseq, copy: 0 });
    }

    fn write(&mut self, from: u64) {
        // Nobody writes two texts in ten seconds. Two centres do not know of each other's timestamps: a phone that moved between them
        // faster than that could have two texts of one second.
        let too_soon = self.phones[from as usize].wrote_ms + 10_000 > self.now_ms;
        if !self.phones[from as usize].on || too_soon {
            return;
        }
        self.phones[from as usize].wrote_ms = self.now_ms;
        let nr = self.written.len() + 1;
        let to = self.rng.below(PHONES);
        let station = self.phones[from as usize].station;
        let (words, call_id) = (format!("text {nr} to {to}"), format!("mo{nr}"));
        let submit = submit(&format!("200{to}"), &words, nr as u8);
        let request = sms(from, station, &call_id, &submit);
        let box_of = box_at(station);
        self.tell(|| format!("phone {from} writes {words:?}"));
        self.written.insert(call_id.clone(), Written { from, to, words, request, box_of, answer: None });
        self.later(0, Ev::Submit { call_id, copy: 0 });
    }

    /// A base station gets something.
    fn at_station(&mut self, from: SocketAddr, station: SocketAddr, bytes: Vec<u8>) {
        let text = String::from_utf8_lossy(&bytes).into_owned();
        let header = |name: &str| {
            let line = text.lines().find(|line| line.to_ascii_lowercase().starts_with(&format!("{name}:")));
            line.and_then(|line| line.split_once(':')).map(|(_, value)| value.trim().to_owned()).unwrap_or_default()
        };
        if let Some(rest) = text.strip_prefix("SIP/2.0 ") {
            let code: u16 = rest[..3].parse().unwrap();
            let cseq = header("cseq");
            if cseq.ends_with("MESSAGE") {
                let call_id = header("call-id");
                if let Some(written) = self.written.get_mut(&call_id)
                    && written.answer.is_none()
                {
                    written.answer = Some(code);
                }
            } else if let Some(cseq) = cseq.strip_suffix(" REGISTER") {
                let cseq: u32 = cseq.parse().unwrap();
                if code == 200 {
                    self.registering.retain(|(_, other)| *other != cseq);
                }
            }
            return;
        }
        let sent = Sent { from: FRONT, to: station, bytes };
        let Some(mt) = Mt::read(&sent) else { return };
        let phone = (0..PHONES).find(|phone| text.starts_with(&format!("MESSAGE sip:IMSI{}@", imsi(*phone)))).unwrap();
        let here = &self.phones[phone as usize];
        let _ = from;
        if !here.on || here.station != station.to_string() {
            if self.one_in(4) {
                self.answer(&mt, "480 No_Paging_Response");
            }
            return;
        }
        // "…a duplicate gets 100 Trying" (wire.md 4.2) while the first one is under way.
        if self.paging.contains(mt.header("Call-ID")) {
            return self.answer(&mt, "100 Trying");
        }
        if !self.fair && self.one_in(12) {
            return self.answer(&mt, "400 Bad Request");
        }
        self.paging.insert(mt.header("Call-ID").to_owned());
        let takes_ms = 3_000 + self.rng.below(5_000);
        self.later(takes_ms, Ev::Taken { phone, mt: Box::new(mt) });
    }

    fn answer(&mut self, mt: &Mt, status: &str) {
        let owner = usize::from(mt.header("Via").contains("192.0.2.2"));
        let status = status.to_owned();
        self.wire(mt.station, source_of(owner, FRONT), mt.answer(&status).as_bytes());
    }

    /// A final answer reaches the box that sent the MESSAGE.
    fn note_answer(&mut self, which: usize, bytes: &[u8]) {
        let text = String::from_utf8_lossy(bytes);
        if !text.starts_with("SIP/2.0 ") || text.starts_with("SIP/2.0 1") || !text.contains("z9hG4bK-m") {
            return;
        }
        for open in self.open.iter_mut().filter(|((owner, _), _)| *owner == which).map(|(_, open)| open) {
            open.final_answer |= text.contains(&format!("Call-ID: {}", open.call_id));
        }
    }

    /// What the boxes have sent, each promise checked.
    fn collect(&mut self) {
        for which in 0..2 {
            for sent in self.boxes[which].take_sent() {
                self.check_sent(which, &sent);
                self.wire(source_of(which, sent.from), sent.to, &sent.bytes);
            }
            let events = std::mem::take(&mut self.boxes[which].events);
            for event in events {
                self.tell(|| format!("box {which}: {event}"));
                self.marked += usize::from(matches!(event, Event::TextPossibleDuplicate { .. }));
                if let Event::TextPossibleDuplicate { text, .. } = event {
                    // Which words: the store knows.
                    if let Some(words) = self.words_of(which, text) {
                        *self.copies.entry(words).or_default() += 1;
                    }
                }
            }
        }
    }

    /// The words of a text that a box still holds.
    fn words_of(&self, which: usize, number: u64) -> Option<String> {
        self.durable(which).find(|text| text.number == number).map(|text| text::decode(text.data().unwrap()).unwrap())
    }

    fn durable(&self, which: usize) -> impl Iterator<Item = record::Text> {
        let image = self.boxes[which].stores.stores[&StoreId::Messages].durable();
        image.iter().filter_map(|(key, value)| {
            let (imsi, number) = record::read_text_key(key)?;
            record::decode(imsi, number, value).ok()
        })
    }

    fn check_sent(&mut self, which: usize, sent: &Sent) {
        let seed = self.seed;
        let text = sent.text();
        if text.starts_with("SIP/2.0 202") {
            let call_id = text.lines().find_map(|line| line.strip_prefix("Call-ID: ")).unwrap();
            let written = &self.written[call_id];
            let kept = self.durable(which).any(|text| text::decode(text.data().unwrap()).unwrap() == written.words);
            let was_shown = self.times_shown(written) > 0;
            assert!(kept || was_shown, "seed {seed}: 202 to {:?} and it is not on the disk", written.words);
            return;
        }
        let Some(mt) = Mt::read(sent) else { return };
        let call_id = mt.header("Call-ID").to_owned();
        let phone = mt.header("To").to_owned();
        let phone = phone.split_once('@').unwrap().0.to_owned();
        let words = mt.words();
        let kept = self.durable(which).any(|text| text::decode(text.data().unwrap()).unwrap() == words);
        assert!(kept, "seed {seed}: {words:?} is sent and not on the disk");
        let now_ms = self.now_ms;
        let open = self.open.entry((which, phone)).or_insert(Open {
            call_id: call_id.clone(),
            since_ms: now_ms,
            copies: 0,
            final_answer: false,
        });
        if open.call_id == call_id {
            assert!(!open.final_answer, "seed {seed}: {words:?} again after a final answer");
            open.copies += 1;
            assert!(open.copies <= 2, "seed {seed}: a third copy of {words:?}");
            if open.copies == 2 {
                assert!(now_ms - open.since_ms >= 12_000, "seed {seed}: the second copy came early");
                *self.copies.entry(words).or_default() += 1;
            }
        } else {
            let over = open.final_answer || now_ms - open.since_ms >= 30_000;
            assert!(over, "seed {seed}: two MESSAGEs at once to {}", mt.header("To"));
            *open = Open { call_id, since_ms: now_ms, copies: 1, final_answer: false };
        }
    }

    fn times_shown(&self, written: &Written) -> usize {
        let shown = self.phones[written.to as usize].shown.values();
        shown.flatten().filter(|words| **words == written.words).count()
    }

    fn check_rest(&mut self) {
        let seed = self.seed;
        for (which, desk) in self.boxes.iter_mut().enumerate() {
            let CommandAnswer::Queue(left) = desk.command(Command::Queue(QueueAsk::List(QueueFilter::default())))
            else {
                panic!()
            };
            assert!(left.is_empty(), "seed {seed}: box {which} keeps {left:?} although all are there");
            assert!(desk.is_at_rest(), "seed {seed}: something is under way in box {which}");
        }
        for written in self.written.values() {
            let shown = self.times_shown(written);
            if written.answer == Some(202) {
                assert!(shown > 0, "seed {seed}: {:?} of {} was acknowledged and is lost", written.words, written.from);
            }
            let allowed = 1 + self.copies.get(&written.words).copied().unwrap_or(0);
            assert!(
                shown <= allowed,
                "seed {seed}: {:?} was shown {shown} times, {allowed} at most are explained",
                written.words
            );
        }
        for phone in &self.phones {
            for ((from, at), words) in &phone.shown {
                let mut different = words.clone();
                different.sort();
                different.dedup();
                assert_eq!(different.len(), 1, "seed {seed}: one identity {from} {at:?} for two texts");
            }
        }
    }
}

#[test]
fn every_text_that_was_acknowledged_arrives() {
    let number = |name: &str| std::env::var(name).ok().and_then(|text| text.parse::<u64>().ok());
    if let Some(seed) = number("ENCAMP_SIM_SEED") {
        return World::new(seed, true).run();
    }
    let (mut accepted, mut marked, mut cuts) = (0, 0, 0);
    for seed in 0..number("ENCAMP_SIM_SEEDS").unwrap_or(60) {
        let mut world = World::new(seed, false);
        world.run();
        accepted += world.written.values().filter(|written| written.answer == Some(202)).count();
        marked += world.marked;
        cuts += world.cuts;
    }
    println!("{accepted} texts, {marked} marked attempts, {cuts} power cuts");
    assert!(accepted > 500 && marked > 20 && cuts > 20, "the days are not bad enough: {accepted} {marked} {cuts}");
}
