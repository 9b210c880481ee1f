//! One box: its disks, its clock, its node, and how it dies.

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use encamp::config::mailing::{FirstContact, MailRoute, NumberRange};
use encamp::config::words::Templates;
use encamp::config::{
    Calls, ClusterKey, Dialplan, Emergency, Front, Listener, Mail, Messages, Place, Registrar, Replica, Settings,
    Shard, Subscriber, SubscriberMail, Subscribers, Transport, Unlisted, ZoneSettings,
};
use encamp::gsm::auc::Auth;
use encamp::ident::{Imsi, Msisdn, Network, Suffix};
use encamp::mail::address::Address;
use encamp::node::Node;
use encamp::seam::{Ctx, Input, Outbox, Rng};
use encamp::store::memory::MemoryStore;
use encamp::store::{Batch, Record, Seq, Store, StoreError, StoreId, Stores};
use encamp::time::{Instant, WallTime};

pub const BOXES: usize = 2;
/// Three at the first box, two at the other one.
pub const PHONES: usize = 5;
pub const TODAY_MS: u64 = 1_793_600_000_000;
pub const CENTRE: &str = "1000";
/// Texts live for so long.
pub const LIFE_MAX: Duration = Duration::from_secs(2 * 86_400);

/// What is different from one run to the next.
#[derive(Clone, Copy, Default, Debug)]
pub struct Plan {
    /// Whoever writes has a number of his own.
    pub pool: bool,
    pub ask: bool,
    pub caps: bool,
    /// A subscriber of the first box wants copies in his mailbox.
    pub copies: bool,
}

/// How a disk breaks its promise; only in the tests of the checks.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum Lie {
    #[default]
    None,
    /// It says *synced* and has made nothing durable.
    SyncIgnored,
    /// A power cut takes with it a text that was synced long ago.
    SyncedLost,
    /// It keeps no digest: what begins with `d` is gone.
    DigestsLost,
    /// A scan behind a cursor begins with the last key.
    LastFirst,
    /// Letters are forgotten: nobody knows whom to tell.
    LettersLost,
}

#[derive(Clone, Default)]
pub struct Disk {
    inner: MemoryStore,
    pub lie: Lie,
    claimed: Seq,
    /// Written since the last look.
    fresh: Vec<(Seq, Batch)>,
    pub sync_scheduled: bool,
}

impl Disk {
    pub fn sync(&mut self) -> Result<Seq, StoreError> {
        if self.lie == Lie::SyncIgnored {
            self.claimed = self.inner.written_seq();
            return Ok(self.claimed);
        }
        self.inner.sync()
    }

    /// Of what was not synced, a part may be on the disk all the same; how far the disk has got.
    pub fn power_cut(&mut self, more: Seq) -> Seq {
        let kept = match self.lie {
            Lie::SyncIgnored => 0,
            _ => self.inner.sync_to(self.inner.synced_seq() + more).unwrap_or(self.inner.synced_seq()),
        };
        if self.lie == Lie::SyncedLost {
            let is_text = |key: &&Vec<u8>| key.starts_with(b"t");
            if let Some(key) = self.inner.durable().keys().rfind(is_text).cloned() {
                let number: [u8; 8] = key[key.len() - 8..].try_into().expect("eight octets");
                let batch = Batch::default().delete(key).delete([b"i".as_slice(), &number].concat());
                let _ = self.inner.write(batch);
                let _ = self.inner.sync();
            }
        }
        self.inner.power_cut();
        self.claimed = 0;
        self.sync_scheduled = false;
        self.fresh.clear();
        kept
    }

    pub fn set_full(&mut self, full: bool) {
        self.inner.set_full(full);
    }

    pub fn needs_sync(&self) -> bool {
        self.written_seq() > self.synced_seq()
    }

    pub fn unsynced(&self) -> u64 {
        self.inner.written_seq() - self.inner.synced_seq()
    }

    pub fn take_fresh(&mut self) -> Vec<(Seq, Batch)> {
        std::mem::take(&mut self.fresh)
    }

    pub fn durable(&self) -> &BTreeMap<Vec<u8>, Vec<u8>> {
        self.inner.durable()
    }
}

impl Store for Disk {
    fn get(&self, key: &[u8]) -> Result<Option<Vec<u8>>, StoreError> {
        match (self.lie, key.first()) {
            (Lie::DigestsLost, Some(b'd')) | (Lie::LettersLost, Some(b'e')) => Ok(None),
            _ => self.inner.get(key),
        }
    }

    fn scan(&self, prefix: &[u8], cursor: Option<&[u8]>, limit: usize) -> Result<Vec<Record>, StoreError> {
        if self.lie == Lie::LastFirst && cursor.is_some() && limit == 1 {
            let page = self.inner.scan(prefix, cursor, usize::MAX)?;
            return Ok(page.into_iter().last().into_iter().collect());
        }
        self.inner.scan(prefix, cursor, limit)
    }

    fn write(&mut self, batch: Batch) -> Result<Seq, StoreError> {
        let seq = self.inner.write(batch.clone())?;
        self.fresh.push((seq, batch));
        Ok(seq)
    }

    fn written_seq(&self) -> Seq {
        self.inner.written_seq()
    }

    fn synced_seq(&self) -> Seq {
        if self.lie == Lie::SyncIgnored { self.claimed } else { self.inner.synced_seq() }
    }
}

#[derive(Clone, Default)]
pub struct Disks(pub BTreeMap<StoreId, Disk>);

impl Stores for Disks {
    fn store(&mut self, id: StoreId) -> Option<&mut dyn Store> {
        self.0.get_mut(&id).map(|disk| disk as &mut dyn Store)
    }
}

pub struct Site {
    /// `None`: it is down.
    pub node: Option<Node>,
    pub out: Outbox,
    pub disks: Disks,
    pub rng: Rng,
    pub settings: Arc<Settings>,
    /// How its clock goes wrong, milliseconds.
    pub shift_ms: i64,
    /// Counts its starts.
    pub life: u32,
    pub slow_until_us: u64,
    pub full_since_us: Option<u64>,
}

impl Site {
    pub fn new(which: usize, seed: u64, lie: Lie, plan: Plan) -> Site {
        let mut disks = Disks::default();
        for id in [StoreId::Node, StoreId::Messages, StoreId::Replica(0)] {
            disks.0.insert(id, Disk::default());
        }
        disks.0.get_mut(&StoreId::Messages).expect("just made").lie = lie;
        let mut bytes = [which as u8 + 1; 32];
        bytes[8..16].copy_from_slice(&seed.to_be_bytes());
        Site {
            node: None,
            out: Outbox::default(),
            disks,
            rng: Rng::from_seed(bytes),
            settings: Arc::new(settings(which, plan)),
            shift_ms: 0,
            life: 0,
            slow_until_us: 0,
            full_since_us: None,
        }
    }

    pub fn wall(&self, now_us: u64) -> WallTime {
        WallTime { ms: (TODAY_MS + now_us / 1_000).saturating_add_signed(self.shift_ms), trusted: true }
    }

    pub fn start(&mut self, now_us: u64) {
        self.life += 1;
        self.out = Outbox::default();
        let wall = self.wall(now_us);
        let ctx =
            &mut Ctx { now: Instant(now_us), wall, rng: &mut self.rng, stores: &mut self.disks, out: &mut self.out };
        self.node = Some(Node::start(ctx, Arc::clone(&self.settings)).expect("a node starts"));
    }

    /// `false`: it is down.
    pub fn handle(&mut self, now_us: u64, input: Input<'_>) -> bool {
        let wall = self.wall(now_us);
        let Some(node) = &mut self.node else { return false };
        let ctx =
            &mut Ctx { now: Instant(now_us), wall, rng: &mut self.rng, stores: &mut self.disks, out: &mut self.out };
        node.handle(ctx, input);
        true
    }

    pub fn next_timeout_us(&self) -> Option<u64> {
        self.node.as_ref()?.poll_timeout().map(|at| at.0)
    }

    pub fn messages(&mut self) -> &mut Disk {
        self.disks.0.get_mut(&StoreId::Messages).expect("it has one")
    }

    pub fn durable(&self) -> &BTreeMap<Vec<u8>, Vec<u8>> {
        self.disks.0[&StoreId::Messages].durable()
    }
}

pub fn imsi(phone: usize) -> Imsi {
    Imsi::parse(&format!("00101000000{phone:04}")).expect("fifteen digits")
}

pub fn phone_of(imsi: Imsi) -> usize {
    imsi.as_str()[11..].parse().expect("four digits")
}

pub fn box_of(phone: usize) -> usize {
    usize::from(phone >= 3)
}

pub fn number(phone: usize) -> String {
    if phone < 3 { format!("200{phone}") } else { format!("300{}", phone - 3) }
}

pub fn domain(which: usize) -> &'static str {
    ["sms.hill.test", "sms.dale.test"][which]
}

pub fn address_of(phone: usize) -> String {
    format!("{}@{}", number(phone), domain(box_of(phone)))
}

/// Whose address this is, if it is of one of our phones.
pub fn phone_at(address: &str) -> Option<usize> {
    (0..PHONES).find(|phone| address_of(*phone) == address)
}

pub fn address(text: &str) -> Address {
    Address::parse(text).expect("an address")
}

pub fn ip_of(which: usize) -> IpAddr {
    IpAddr::from([192, 0, 2, which as u8 + 1])
}

pub fn front(which: usize) -> SocketAddr {
    SocketAddr::new(ip_of(which), 5064)
}

/// The base station of a phone.
pub fn station(phone: usize) -> SocketAddr {
    SocketAddr::from(([192, 0, 2, 71 + phone as u8], 5062))
}

pub fn pool(first: &str, last: &str) -> Vec<NumberRange> {
    let parse = |number: &str| Msisdn::parse(number).expect("a number");
    vec![NumberRange { first: parse(first), last: parse(last) }]
}

fn mail(this: usize, plan: Plan) -> Mail {
    let other = 1 - this;
    let mut mail = Mail::of("gsm.test");
    mail.domain = domain(this).into();
    mail.boxes = vec![Network::parse(&ip_of(other).to_string()).expect("a network")];
    mail.routes = vec![route(this)];
    if plan.pool {
        mail.reply_pool = pool("7000", "7003");
    }
    if plan.ask {
        mail.first_contact = FirstContact::Ask;
    }
    if plan.caps {
        mail.per_sender_day_max = 6;
        mail.per_phone_day_max = 12;
    }
    mail
}

/// To the other box.
pub fn route(this: usize) -> MailRoute {
    let prefixes = vec![if this == 0 { "300".into() } else { "200".into() }];
    MailRoute { prefixes, to: format!("{{number}}@{}", domain(1 - this)), is_box: true }
}

fn settings(this: usize, plan: Plan) -> Settings {
    let udp = |address: SocketAddr| Listener { transport: Transport::Udp, address, advertise: None };
    let copies = || SubscriberMail { copy_to: Some(address("wcopy@far.example")), ..SubscriberMail::default() };
    let subscribers = (0..PHONES).filter(|phone| box_of(*phone) == this).map(|phone| Subscriber {
        imsi: imsi(phone),
        msisdn: vec![Msisdn::parse(&number(phone)).expect("a number")],
        name: "somebody".into(),
        auth: Auth::None,
        barred: false,
        language: None,
        mail: (plan.copies && phone == 2).then(|| Box::new(copies())),
        file: "desk".into(),
        line: 1,
    });
    let subscribers = Arc::new(Subscribers::new(subscribers));
    let replica = SocketAddr::new(ip_of(this), 5070);
    Settings {
        domain: "gsm.test".into(),
        data_dir: "/".into(),
        control: "/control".into(),
        cluster_key: Some(ClusterKey([7; 32])),
        front: Front {
            listen: vec![udp(front(this))],
            base_stations: vec![Network::parse("192.0.2.64/26").expect("a network")],
            peers: Vec::new(),
            unlisted: Unlisted::Silence,
        },
        base_stations: Vec::new(),
        trunks: Vec::new(),
        zone: ZoneSettings { apex: "gsm.test".into(), listen: Vec::new(), allow: Vec::new(), ttl_s: 60 },
        shards: vec![Shard {
            name: "all".into(),
            suffixes: (0..10).map(|digit| Suffix::parse(&digit.to_string()).expect("a digit")).collect(),
            replicas: vec![0],
            write_quorum: 1,
        }],
        replicas: vec![Replica {
            name: "r0".into(),
            shard: 0,
            place: Place::Local { path: "/r0".into(), listen: vec![udp(replica)] },
        }],
        registrar: Registrar::default(),
        dialplan: Dialplan::default(),
        calls: Calls::of(std::path::Path::new("/")),
        messages: Messages {
            service_centre: CENTRE.into(),
            life_max: LIFE_MAX,
            // What became of each text is asked in the end.
            history_life: Duration::from_secs(60 * 86_400),
            ..Messages::of(std::path::Path::new("/"))
        },
        short_codes: Vec::new(),
        templates: Templates::default(),
        mail: Some(Arc::new(mail(this, plan))),
        emergency: Emergency::default(),
        disk_reserve_bytes: 0,
        rehearsal: None,
        subscribers,
    }
}
