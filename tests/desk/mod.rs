//! A node on a desk: one box, one shard of two replicas, disks that sync at once, a clock that the test sets.

#![allow(dead_code, reason = "each test crate uses some of it")]

pub mod forms;
pub mod mail;
pub mod texts;

use std::net::SocketAddr;
use std::sync::Arc;

use encamp::config::words::Templates;
use encamp::config::{
    BaseStation, Calls, ClusterKey, Dialplan, Emergency, Front, Listener, Messages, Place, Registrar, Replica,
    Settings, Shard, Subscriber, Subscribers, Transport, Unlisted, ZoneSettings,
};
use encamp::event::Event;
use encamp::gsm::auc::Auth;
use encamp::ident::{Imsi, Msisdn, Network, Suffix};
use encamp::mail::{MailOut, Reply};
use encamp::node::Node;
use encamp::seam::{
    BindingAnswer, CallRecord, Command, CommandAnswer, ConnId, Ctx, Input, Local, Outbox, Output, Port, Rng,
    StreamEvent, TextRecord, Who,
};
use encamp::store::memory::{MemoryStore, MemoryStores};
use encamp::store::{CommitId, StoreId};
use encamp::time::{Instant, WallTime};

pub const TODAY_MS: u64 = 1_790_000_000_000;
pub const KEY: ClusterKey = ClusterKey([7; 32]);

pub struct Desk {
    node: Node,
    out: Outbox,
    pub stores: MemoryStores,
    rng: Rng,
    settings: Arc<Settings>,
    pub now_us: u64,
    pub wall: WallTime,
    pub events: Vec<Event>,
    pub records: Vec<CallRecord>,
    pub text_records: Vec<TextRecord>,
    /// What programs are asked, and what numbers are to be given.
    pub posts: Vec<Post>,
    pub given: Vec<(u64, Imsi, Msisdn)>,
    /// Mail that is to leave, and what whoever brought some was told.
    pub mails: Vec<(u64, MailOut)>,
    pub mail_answers: Vec<(u64, Vec<Reply>)>,
    sent: Vec<Sent>,
    /// The disks sync nothing until this is false again.
    pub slow: bool,
    /// They sync so many times more.
    pub syncs_left: Option<u64>,
    answers: Vec<CommandAnswer>,
    count: u64,
}

/// What a program of the operator's is asked.
#[derive(Clone, Debug)]
pub struct Post {
    pub id: u64,
    pub url: String,
    pub body: String,
    pub timeout: std::time::Duration,
}

/// A datagram that a node has sent.
#[derive(Clone, Debug)]
pub struct Sent {
    pub from: Port,
    pub to: SocketAddr,
    pub bytes: Vec<u8>,
}

impl Sent {
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.bytes).into_owned()
    }
}

pub fn imsi(phone: u64) -> Imsi {
    Imsi::parse(&format!("00101000000{phone:04}")).expect("fifteen digits")
}

impl Desk {
    pub fn today() -> Desk {
        Desk::at(WallTime { ms: TODAY_MS, trusted: true })
    }

    pub fn at(wall: WallTime) -> Desk {
        let mut stores = MemoryStores::default();
        for id in [StoreId::Node, StoreId::Messages, StoreId::Replica(0), StoreId::Replica(1)] {
            stores.stores.insert(id, MemoryStore::new());
        }
        Desk::of(wall, settings(), stores)
    }

    /// Any box, with any disks.
    pub fn of(wall: WallTime, settings: Settings, mut stores: MemoryStores) -> Desk {
        let settings = Arc::new(settings);
        let mut rng = Rng::from_seed([3; 32]);
        let mut out = Outbox::default();
        let ctx = &mut Ctx { now: Instant(0), wall, rng: &mut rng, stores: &mut stores, out: &mut out };
        let node = Node::start(ctx, Arc::clone(&settings)).expect("a node starts on empty disks");
        let mut desk = Desk {
            node,
            out,
            stores,
            rng,
            settings,
            now_us: 0,
            wall,
            events: Vec::new(),
            records: Vec::new(),
            text_records: Vec::new(),
            posts: Vec::new(),
            given: Vec::new(),
            mails: Vec::new(),
            mail_answers: Vec::new(),
            sent: Vec::new(),
            slow: false,
            syncs_left: None,
            answers: Vec::new(),
            count: 0,
        };
        desk.settle();
        desk
    }

    /// The process ends and starts again; the disks have synced everything.
    pub fn restart(&mut self) {
        self.stores.stores.values_mut().for_each(MemoryStore::power_cut);
        self.out = Outbox::default();
        let ctx = &mut Ctx {
            now: Instant(self.now_us),
            wall: self.wall,
            rng: &mut self.rng,
            stores: &mut self.stores,
            out: &mut self.out,
        };
        self.node = Node::start(ctx, Arc::clone(&self.settings)).expect("a node starts again");
        self.settle();
    }

    /// The operator has changed his files.
    pub fn set(&mut self, change: impl FnOnce(&mut Settings)) {
        let mut settings = (*self.settings).clone();
        change(&mut settings);
        self.settings = Arc::new(settings);
        self.handle(Input::Settings(Arc::clone(&self.settings)));
    }

    /// Time passes, on both clocks.
    pub fn wait_s(&mut self, seconds: u64) {
        for _ in 0..seconds {
            self.wait_ms(1_000);
        }
    }

    pub fn wait_ms(&mut self, millis: u64) {
        self.now_us += millis * 1_000;
        self.wall.ms += millis;
        self.handle(Input::Timeout);
    }

    pub fn handle(&mut self, input: Input<'_>) {
        let ctx = &mut Ctx {
            now: Instant(self.now_us),
            wall: self.wall,
            rng: &mut self.rng,
            stores: &mut self.stores,
            out: &mut self.out,
        };
        self.node.handle(ctx, input);
        self.settle();
    }

    fn settle(&mut self) {
        loop {
            while let Some(output) = self.out.pop() {
                match output {
                    Output::Datagram { from, to, bytes } => self.sent.push(Sent { from: from.port, to, bytes }),
                    Output::Event(event) => self.events.push(event),
                    Output::CallRecord(record) => self.records.push(*record),
                    Output::TextRecord(record) => self.text_records.push(*record),
                    Output::HttpPost { id, url, body, timeout } => {
                        let body = String::from_utf8(body).expect("JSON is UTF-8");
                        self.posts.push(Post { id, url, body, timeout });
                    }
                    Output::GiveNumber { id, imsi, number } => self.given.push((id, imsi, number)),
                    Output::SendMail { id, mail, .. } => self.mails.push((id, *mail)),
                    Output::MailAnswer { id, replies } => self.mail_answers.push((id, replies)),
                    Output::Answer { answer, .. } => self.answers.push(answer),
                    _ => {}
                }
            }
            if self.slow || self.syncs_left == Some(0) {
                return;
            }
            let Some((store, seq)) = self.sync_one() else { return };
            self.syncs_left = self.syncs_left.map(|left| left - 1);
            let ctx = &mut Ctx {
                now: Instant(self.now_us),
                wall: self.wall,
                rng: &mut self.rng,
                stores: &mut self.stores,
                out: &mut self.out,
            };
            self.node.handle(ctx, Input::Synced(CommitId { store, seq }));
        }
    }

    fn sync_one(&mut self) -> Option<(StoreId, u64)> {
        use encamp::store::Store as _;
        let (id, store) = self.stores.stores.iter_mut().find(|(_, store)| store.written_seq() > store.synced_seq())?;
        Some((*id, store.sync().expect("this disk works")))
    }

    /// Sends a datagram to a port; the bytes of all that is sent at once.
    pub fn send(&mut self, from: &str, port: Port, text: &str) -> Vec<String> {
        self.send_bytes(from, port, text.as_bytes())
    }

    pub fn send_bytes(&mut self, from: &str, port: Port, bytes: &[u8]) -> Vec<String> {
        self.sent.clear();
        let from: SocketAddr = from.parse().expect("an address");
        self.handle(Input::Datagram { from, to: Local { port, address: None }, bytes });
        self.sent.iter().map(Sent::text).collect()
    }

    /// The same over a connection of its own, to the front end; what goes back over it is not kept.
    pub fn stream(&mut self, from: &str, bytes: &[u8]) {
        self.sent.clear();
        self.count += 1;
        let (conn, from) = (ConnId(self.count), from.parse().expect("an address"));
        let to = Local { port: Port::Front(0), address: None };
        self.handle(Input::Stream { conn, what: StreamEvent::Opened { from, to } });
        self.handle(Input::Stream { conn, what: StreamEvent::Data(bytes) });
    }

    /// Everything that was sent since it was taken last, or since [`Desk::send`].
    pub fn take_sent(&mut self) -> Vec<Sent> {
        std::mem::take(&mut self.sent)
    }

    /// Nothing is under way.
    pub fn is_at_rest(&self) -> bool {
        self.node.under_way() == 0
    }

    pub fn command(&mut self, command: Command) -> CommandAnswer {
        self.try_command(command).expect("an answer")
    }

    /// The answer, where it comes at once.
    pub fn try_command(&mut self, command: Command) -> Option<CommandAnswer> {
        self.answers.clear();
        self.handle(Input::Command { id: 1, command });
        self.take_answer()
    }

    pub fn take_answer(&mut self) -> Option<CommandAnswer> {
        self.answers.pop()
    }

    /// A base station's REGISTER of an open SIM; the code of the answer.
    pub fn cell(&mut self, phone: u64, call_id: &str, cseq: u32, expires_s: u32) -> u16 {
        self.cell_at("192.0.2.11:5062", phone, call_id, cseq, expires_s)
    }

    /// As [`Desk::cell`], from any base station.
    pub fn cell_at(&mut self, station: &str, phone: u64, call_id: &str, cseq: u32, expires_s: u32) -> u16 {
        self.count += 1;
        let (imsi, count) = (imsi(phone), self.count);
        let text = format!(
            "REGISTER sip:192.0.2.1 SIP/2.0\r\nTo:  <sip:IMSI{imsi}@192.0.2.1:5064>\r\nFrom:  <sip:IMSI{imsi}@192.0.2.1:5064>;tag=OBTS{count}\r\n\
             Via: SIP/2.0/UDP {station};branch=z9hG4bKOBTS{count}\r\nCall-ID: {call_id}\r\nCSeq: {cseq} REGISTER\r\n\
             Contact: <sip:IMSI{imsi}@{station}>;expires={expires_s}\r\nMax-Forwards: 70\r\n\
             User-Agent: OpenBTS 5.0-master Build Date 2026-11-21T11:58:28\r\nContent-Length: 0\r\n\r\n"
        );
        self.code_of(station, &text)
    }

    /// A SIP phone's REGISTER; the code of the answer.
    pub fn soft(&mut self, phone: u64, contact: &str, expires: &str) -> u16 {
        self.count += 1;
        let (imsi, count) = (imsi(phone), self.count);
        let text = format!(
            "REGISTER sip:192.0.2.1 SIP/2.0\r\nVia: SIP/2.0/UDP 192.0.2.11:5080;branch=z9hG4bK{count}\r\nMax-Forwards: 70\r\n\
             From: <sip:IMSI{imsi}@gsm.test>;tag=t{count}\r\nTo: <sip:IMSI{imsi}@gsm.test>\r\nCall-ID: soft{phone}\r\n\
             CSeq: {count} REGISTER\r\nContact: {contact}\r\nExpires: {expires}\r\nContent-Length: 0\r\n\r\n"
        );
        self.code_of("192.0.2.11:5080", &text)
    }

    fn code_of(&mut self, from: &str, text: &str) -> u16 {
        let sent = self.send(from, Port::Front(0), text);
        let Some(answer) = sent.iter().find(|text| text.starts_with("SIP/2.0 ")) else { return 0 };
        answer.split(' ').nth(1).and_then(|code| code.parse().ok()).expect("a status line")
    }

    pub fn bound(&mut self, phone: u64) -> Vec<BindingAnswer> {
        self.answers.clear();
        self.handle(Input::Command { id: 1, command: Command::Lookup(Who::Imsi(imsi(phone))) });
        match self.answers.pop() {
            Some(CommandAnswer::Lookup(lookup)) => lookup.bindings,
            other => panic!("{other:?}"),
        }
    }
}

pub fn settings() -> Settings {
    let udp = |address: &str| Listener {
        transport: Transport::Udp,
        address: address.parse().expect("an address"),
        advertise: None,
    };
    let subscribers = (0..4).map(|phone| Subscriber {
        imsi: imsi(phone),
        msisdn: vec![Msisdn::parse(&format!("200{phone}")).expect("a number")],
        name: "somebody".into(),
        auth: Auth::None,
        barred: false,
        language: None,
        mail: None,
        file: "desk".into(),
        line: 1,
    });
    let subscribers = Arc::new(Subscribers::new(subscribers));
    // The third one, 192.0.2.13, stands in no area.
    let station = |name: &str, address: &str| BaseStation {
        name: name.into(),
        address: address.parse().expect("an address"),
        location_area: Some("valley".into()),
        texts: None,
    };
    let replica = |n: usize| Replica {
        name: format!("r{n}"),
        shard: 0,
        place: Place::Local { path: format!("/r{n}").into(), listen: vec![udp(&format!("192.0.2.1:{}", 5070 + n))] },
    };
    Settings {
        domain: "gsm.test".into(),
        data_dir: "/".into(),
        control: "/control".into(),
        cluster_key: Some(KEY),
        front: Front {
            listen: vec![udp("192.0.2.1:5064")],
            base_stations: ["192.0.2.11", "192.0.2.12", "192.0.2.13"]
                .map(|station| Network::parse(station).expect("a network"))
                .to_vec(),
            peers: Vec::new(),
            unlisted: Unlisted::Silence,
        },
        base_stations: vec![station("hill", "192.0.2.11:5062"), station("dale", "192.0.2.12:5062")],
        trunks: Vec::new(),
        zone: ZoneSettings { apex: "gsm.test".into(), listen: Vec::new(), allow: Vec::new(), ttl_s: 60 },
        shards: vec![Shard {
            name: "all".into(),
            suffixes: (0..10).map(|digit| Suffix::parse(&digit.to_string()).expect("a digit")).collect(),
            replicas: vec![0, 1],
            write_quorum: 2,
        }],
        replicas: vec![replica(0), replica(1)],
        registrar: Registrar::default(),
        dialplan: Dialplan::default(),
        calls: Calls::of(std::path::Path::new("/")),
        messages: Messages::of(std::path::Path::new("/")),
        short_codes: Vec::new(),
        templates: Templates::default(),
        mail: None,
        emergency: Emergency::default(),
        disk_reserve_bytes: 0,
        rehearsal: None,
        subscribers,
    }
}
