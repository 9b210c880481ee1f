//! One box of the site: its disks, its clock, its node, and how it dies.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use encamp::config::words::Templates;
use encamp::config::{
    Calls, ClusterKey, CodeAction, Dialplan, Emergency, Front, Listener, Messages, Place, Registrar, Replica, Settings,
    Shard, ShortCode, Subscriber, Subscribers, Transport, Unlisted, ZoneSettings,
};
use encamp::gsm::auc::Auth;
use encamp::ident::{Imsi, Msisdn, Network, Suffix};
use encamp::node::Node;
use encamp::register::replicas;
use encamp::seam::{Ctx, Input, Outbox, Port, Rng};
use encamp::store::memory::MemoryStore;
use encamp::store::{Batch, Record, Seq, Store, StoreError, StoreId, Stores};
use encamp::time::{Instant, WallTime};

pub const BOXES: usize = 3;
pub const TODAY_MS: u64 = 1_790_000_000_000;
/// Texts that a base station is given at a time.
pub const PLACES: usize = 2;
pub const CENTRE: &str = "1000";
pub const CODE: &str = "411";
/// Numbers 2000, 2001 ..: one for each phone.
pub const PHONES: usize = 7;
pub const LIFE_MAX: Duration = Duration::from_secs(6 * 3600);
pub const FRONT: Port = Port::Front(0);

/// How a disk breaks its promise; only in the tests of the checks.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum Lie {
    #[default]
    None,
    /// It says *synced* and has made nothing durable.
    SyncIgnored,
    /// A power cut takes with it some of what was synced long ago.
    SyncedLost,
    /// It keeps no digest: what begins with `d` is gone.
    DigestsLost,
    /// A scan behind a cursor begins with the last key.
    LastFirst,
}

#[derive(Clone, Default)]
pub struct Disk {
    inner: MemoryStore,
    lie: Lie,
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
            let texts: Vec<Vec<u8>> =
                self.inner.durable().keys().filter(|key| key.starts_with(b"t")).cloned().collect();
            if let Some(key) = texts.last() {
                let batch = Batch::default().delete(key.clone());
                let number: [u8; 8] = key[key.len() - 8..].try_into().expect("eight octets");
                let _ = self.inner.write(batch.delete([b"i".as_slice(), &number].concat()));
                let _ = self.inner.sync();
            }
        }
        self.inner.power_cut();
        self.claimed = 0;
        self.sync_scheduled = false;
        kept
    }

    pub fn fail_next_sync(&mut self) {
        self.inner.fail_next_sync();
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
        if self.lie == Lie::DigestsLost && key.starts_with(b"d") {
            return Ok(None);
        }
        self.inner.get(key)
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
    pub trusted: bool,
    /// Counts its starts.
    pub life: u32,
    pub slow_until_us: u64,
    pub full_until_us: u64,
}

impl Site {
    pub fn new(which: usize, seed: u64, lie: Lie, places: usize, trusted: bool) -> Site {
        let settings = settings(which, places);
        let mut disks = Disks::default();
        for id in [StoreId::Node, StoreId::Messages, StoreId::Replica(which as u16)] {
            disks.0.insert(id, Disk::default());
        }
        let replica = disks.0.get_mut(&StoreId::Replica(which as u16)).expect("just made");
        replicas::found(replica, &settings, 0, TODAY_MS, true).expect("an empty disk");
        let _ = replica.sync();
        replica.power_cut(0);
        disks.0.get_mut(&StoreId::Messages).expect("just made").lie = lie;
        let mut bytes = [which as u8 + 1; 32];
        bytes[8..16].copy_from_slice(&seed.to_be_bytes());
        Site {
            node: None,
            out: Outbox::default(),
            disks,
            rng: Rng::from_seed(bytes),
            settings: Arc::new(settings),
            shift_ms: if trusted { 0 } else { -(TODAY_MS as i64) + 5_000 },
            trusted,
            life: 0,
            slow_until_us: 0,
            full_until_us: 0,
        }
    }

    pub fn wall(&self, now_us: u64) -> WallTime {
        let ms = (TODAY_MS + now_us / 1_000).saturating_add_signed(self.shift_ms);
        WallTime { ms, trusted: self.trusted }
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

pub fn number(phone: usize) -> String {
    format!("200{phone}")
}

/// The port of a box that an address names, and which box.
pub fn port_of(address: SocketAddr) -> Option<(usize, Port)> {
    let which = (0..BOXES).find(|which| address.ip() == box_ip(*which))?;
    Some((which, if address.port() == 5064 { FRONT } else { Port::Replica(address.port() - 5070, 0) }))
}

/// The address that a port of a box speaks from.
pub fn source_of(which: usize, port: Port) -> SocketAddr {
    let number = match port {
        Port::Front(_) => 5064,
        Port::Replica(n, _) => 5070 + n,
    };
    SocketAddr::new(box_ip(which), number)
}

fn box_ip(which: usize) -> std::net::IpAddr {
    std::net::IpAddr::from([192, 0, 2, which as u8 + 1])
}

fn settings(this: usize, places: usize) -> Settings {
    let udp = |address: SocketAddr| Listener { transport: Transport::Udp, address, advertise: None };
    let subscribers = (0..PHONES).map(|phone| Subscriber {
        imsi: imsi(phone),
        msisdn: vec![Msisdn::parse(&number(phone)).expect("a number")],
        name: "somebody".into(),
        auth: Auth::None,
        barred: false,
        language: None,
        mail: None,
        file: "desk".into(),
        line: 1,
    });
    let subscribers = Arc::new(Subscribers::new(subscribers));
    let replica = |n: usize| {
        let address = source_of(n, Port::Replica(n as u16, 0));
        let place = match n == this {
            true => Place::Local { path: format!("/r{n}").into(), listen: vec![udp(address)] },
            false => Place::Remote { address },
        };
        Replica { name: format!("r{n}"), shard: 0, place }
    };
    Settings {
        domain: "gsm.test".into(),
        data_dir: "/".into(),
        control: "/control".into(),
        cluster_key: Some(ClusterKey([7; 32])),
        front: Front {
            listen: vec![udp(source_of(this, FRONT))],
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
            replicas: (0..BOXES).collect(),
            write_quorum: 2,
        }],
        replicas: (0..BOXES).map(replica).collect(),
        registrar: Registrar::default(),
        dialplan: Dialplan::default(),
        calls: Calls::of(std::path::Path::new("/")),
        messages: Messages {
            service_centre: CENTRE.into(),
            life_max: LIFE_MAX,
            attempts_per_base_station_max: places,
            ..Messages::of(std::path::Path::new("/"))
        },
        short_codes: vec![ShortCode {
            number: Msisdn::parse(CODE).expect("a number"),
            does: CodeAction::OwnNumber,
            senders: None,
        }],
        templates: Templates::default(),
        mail: None,
        emergency: Emergency::default(),
        disk_reserve_bytes: 0,
        rehearsal: None,
        subscribers,
    }
}
