//! What one seed sets up: boxes, shards, replicas, base stations, phones, and how bad the weather is.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use encamp::config::words::Templates;
use encamp::config::{
    Calls, ClusterKey, Dialplan, Emergency, Front, Listener, Messages, Place, Registrar, Replica, Settings, Shard,
    Subscriber, Subscribers, Transport, Trunk, TrunkMode, Unlisted, ZoneSettings,
};
use encamp::gsm::auc::{Auth, Ki};
use encamp::ident::{Imsi, Msisdn, Network, Suffix};
use encamp::seam::Rng;

use crate::disk::Lie;

pub const FRONT_PORT: u16 = 5064;
pub const DOMAIN: &str = "gsm.test";
/// Midday in September 2026, ms since 1970.
pub const TODAY_MS: u64 = 1_790_000_000_000;

/// What is broken on purpose, to see a check catch it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Breaker {
    /// Stores say *synced* and have made nothing durable.
    SyncIgnored,
    /// One front end believes a *no* of a single replica: its settings name another quorum than the site has.
    NoFromOne,
    /// One replica of each shard reads what stood there before.
    StaleRead,
    /// Each start of a node throws the same dice.
    ReplayedNonce,
}

pub struct Plan {
    pub nodes: Vec<NodePlan>,
    pub shards: Vec<ShardTruth>,
    pub phones: Vec<PhonePlan>,
    pub stations: Vec<StationPlan>,
    pub trunk: SocketAddr,
    pub weather: Weather,
    pub breaker: Option<Breaker>,
    /// The largest difference between two boxes' clocks.
    pub skew_ms: u64,
}

pub struct NodePlan {
    pub settings: Arc<Settings>,
    pub clock_offset_ms: i64,
    /// By index of `Settings::replicas`.
    pub lies: Vec<Lie>,
    /// Its clock starts in 1970, and is put right after so many milliseconds.
    pub wakes_in_1970_until_ms: Option<u64>,
}

/// What is true of a shard, whatever a node's settings say.
pub struct ShardTruth {
    /// Box and index of the replica.
    pub members: Vec<(usize, u16)>,
    pub write_quorum: usize,
}

impl ShardTruth {
    /// All replicas are on this box, which levels them at each start.
    pub fn is_on(&self, node: usize) -> bool {
        self.members.iter().all(|(at, _)| *at == node)
    }
}

pub struct PhonePlan {
    pub imsi: Imsi,
    pub auth: Auth,
    pub number: Msisdn,
    pub shard: usize,
    /// A SIP phone: it adds contacts, asks for expiries, and has no cell.
    pub soft: bool,
}

pub struct StationPlan {
    pub address: SocketAddr,
    pub node: usize,
}

/// How much goes wrong while it does.
pub struct Weather {
    pub busy_s: u64,
    /// Datagrams lost and doubled, of a thousand.
    pub lost: u64,
    pub doubled: u64,
    /// Datagrams that come late, of a thousand, by up to so much.
    pub late: u64,
    pub late_ms_max: u64,
    pub delay_us_max: u64,
    pub partitions: u64,
    pub kills: u64,
    pub power_cuts: u64,
    pub disk_faults: u64,
    pub sync_us_max: u64,
    /// Syncs that take long, of a thousand.
    pub slow_syncs: u64,
}

impl Weather {
    pub fn loses_nothing(&self) -> bool {
        self.lost + self.partitions + self.kills + self.power_cuts + self.disk_faults == 0
    }
}

pub fn node_ip(node: usize) -> IpAddr {
    IpAddr::V4(Ipv4Addr::new(10, 0, node as u8, 1))
}

fn replica_port(index: usize) -> u16 {
    5070 + index as u16
}

pub fn draw(rng: &mut Rng, breaker: Option<Breaker>) -> Plan {
    let one_box = rng.below(3) == 0 && breaker != Some(Breaker::NoFromOne);
    let node_count = if one_box { 1 } else { 2 + rng.below(2) as usize };
    let mut shards = Vec::new();
    let mut places: Vec<(usize, usize)> = Vec::new();
    for shard in 0..1 + rng.below(2) as usize {
        let mut count = 1 + rng.below(3) as usize;
        if breaker == Some(Breaker::NoFromOne) {
            count = count.max(2);
        }
        let mut write_quorum = 1 + rng.below(count as u64) as usize;
        if breaker == Some(Breaker::NoFromOne) {
            write_quorum = write_quorum.min(count - 1);
        }
        let first = rng.below(node_count as u64) as usize;
        let scattered = rng.below(4) == 0;
        let mut members = Vec::new();
        for n in 0..count {
            let node = if scattered { rng.below(node_count as u64) as usize } else { (first + n) % node_count };
            members.push((node, places.len() as u16));
            places.push((node, shard));
        }
        shards.push(ShardTruth { members, write_quorum });
    }
    let phones: Vec<PhonePlan> = (0..4 + rng.below(5)).map(|n| draw_phone(rng, n, shards.len())).collect();
    let subscribers = Arc::new(Subscribers::new(phones.iter().enumerate().map(|(line, phone)| Subscriber {
        imsi: phone.imsi,
        msisdn: vec![phone.number],
        name: format!("phone {line}").into(),
        auth: phone.auth.clone(),
        barred: false,
        language: None,
        mail: None,
        file: "simulated".into(),
        line: line + 1,
    })));
    let skewed = rng.below(2) == 0;
    let trunk: SocketAddr = "10.2.0.1:5060".parse().expect("an address");
    let odd_node = (node_count > 1).then(|| rng.below(node_count as u64) as usize);
    let mut nodes = Vec::new();
    for node in 0..node_count {
        let believes_one = breaker == Some(Breaker::NoFromOne) && Some(node) == odd_node;
        let wakes_in_1970 = one_box && breaker.is_none() && rng.below(6) == 0;
        nodes.push(NodePlan {
            settings: Arc::new(settings(node, one_box, &shards, &places, believes_one, trunk, &subscribers)),
            clock_offset_ms: if skewed { rng.below(4_000) as i64 - 2_000 } else { 0 },
            lies: lies(&shards, places.len(), breaker),
            wakes_in_1970_until_ms: wakes_in_1970.then(|| 5_000 + rng.below(60_000)),
        });
    }
    let stations = (0..2 + rng.below(3) as usize)
        .map(|n| StationPlan {
            address: SocketAddr::new(IpAddr::V4(Ipv4Addr::new(10, 1, n as u8, 1)), 5062),
            node: rng.below(node_count as u64) as usize,
        })
        .collect();
    Plan {
        nodes,
        shards,
        phones,
        stations,
        trunk,
        weather: draw_weather(rng),
        breaker,
        skew_ms: if skewed { 4_000 } else { 0 },
    }
}

fn draw_phone(rng: &mut Rng, n: u64, shard_count: usize) -> PhonePlan {
    let last_digit = rng.below(10);
    let imsi = Imsi::parse(&format!("0010100000{n:04}{last_digit}")).expect("fifteen digits");
    let ki: String = rng.bytes::<16>().iter().map(|byte| format!("{byte:02x}")).collect();
    let ki = Ki::parse(&ki).expect("32 hex digits");
    PhonePlan {
        imsi,
        auth: match rng.below(4) {
            0 => Auth::None,
            1 => Auth::Comp128v1(ki),
            2 => Auth::Comp128v3(ki),
            _ => Auth::Xor(ki),
        },
        number: Msisdn::parse(&format!("+1555{n:04}")).expect("a number"),
        shard: if shard_count == 1 || last_digit < 5 { 0 } else { 1 },
        soft: rng.below(5) == 0,
    }
}

fn draw_weather(rng: &mut Rng) -> Weather {
    let mut some = |often: u64, end: u64| if rng.below(often) == 0 { rng.below(end) } else { 0 };
    let mut weather = Weather {
        busy_s: 60,
        lost: some(2, 250),
        doubled: some(2, 300),
        late: some(2, 200),
        late_ms_max: 20_000,
        delay_us_max: 20_000,
        partitions: some(3, 4),
        kills: some(2, 4),
        power_cuts: some(2, 4),
        disk_faults: some(2, 5),
        sync_us_max: 30_000,
        slow_syncs: some(3, 200),
    };
    weather.busy_s = 40 + some(1, 60);
    if some(5, 2) == 1 {
        // Fair weather: nothing is lost, so everything is to be answered, and well.
        weather = Weather { lost: 0, partitions: 0, kills: 0, power_cuts: 0, disk_faults: 0, ..weather };
    }
    weather
}

fn lies(shards: &[ShardTruth], count: usize, breaker: Option<Breaker>) -> Vec<Lie> {
    let mut lies = vec![Lie::None; count];
    match breaker {
        Some(Breaker::SyncIgnored) => lies.fill(Lie::SyncIgnored),
        Some(Breaker::StaleRead) => {
            for (_, index) in shards.iter().filter_map(|shard| shard.members.last()) {
                lies[usize::from(*index)] = Lie::ReadsStale;
            }
        }
        Some(Breaker::NoFromOne | Breaker::ReplayedNonce) | None => {}
    }
    lies
}

fn settings(
    node: usize,
    is_alone: bool,
    truth: &[ShardTruth],
    places: &[(usize, usize)],
    believes_one: bool,
    trunk: SocketAddr,
    subscribers: &Arc<Subscribers>,
) -> Settings {
    let udp = |port: u16, node: usize| Listener {
        transport: Transport::Udp,
        address: SocketAddr::new(node_ip(node), port),
        advertise: None,
    };
    let shards = truth.iter().enumerate().map(|(n, shard)| Shard {
        name: format!("s{n}"),
        suffixes: (0..10)
            .filter(|digit| truth.len() == 1 || (*digit < 5) == (n == 0))
            .map(|digit: usize| Suffix::parse(&digit.to_string()).expect("a digit"))
            .collect(),
        replicas: shard.members.iter().map(|(_, index)| usize::from(*index)).collect(),
        // With this quorum R-W+1 is one.
        write_quorum: if believes_one { shard.members.len() } else { shard.write_quorum },
    });
    let replicas = places.iter().enumerate().map(|(index, (at, shard))| Replica {
        name: format!("r{index}"),
        shard: *shard,
        place: if *at == node {
            let listen = if is_alone { Vec::new() } else { vec![udp(replica_port(index), node)] };
            Place::Local { path: format!("/r{index}").into(), listen }
        } else {
            Place::Remote { address: SocketAddr::new(node_ip(*at), replica_port(index)) }
        },
    });
    let network = |text| Network::parse(text).expect("a network");
    Settings {
        domain: DOMAIN.into(),
        data_dir: "/".into(),
        control: "/control".into(),
        cluster_key: Some(ClusterKey([7; 32])),
        front: Front {
            listen: vec![udp(FRONT_PORT, node)],
            base_stations: vec![network("10.1.0.0/16")],
            peers: vec![network("10.0.0.0/16")],
            unlisted: Unlisted::Silence,
        },
        base_stations: Vec::new(),
        trunks: vec![Trunk {
            name: "pbx".into(),
            address: trunk,
            mode: TrunkMode::Redirect,
            texts: false,
            prefixes: Vec::new(),
            username: None,
            password: None,
        }],
        zone: ZoneSettings { apex: DOMAIN.into(), listen: Vec::new(), allow: Vec::new(), ttl_s: 60 },
        shards: shards.collect(),
        replicas: replicas.collect(),
        registrar: Registrar {
            contacts_per_aor_max: 3,
            challenge_life: Duration::from_secs(30),
            ..Registrar::default()
        },
        dialplan: Dialplan::default(),
        calls: Calls::of(std::path::Path::new("/")),
        messages: Messages::of(std::path::Path::new("/")),
        short_codes: Vec::new(),
        templates: Templates::default(),
        mail: None,
        emergency: Emergency::default(),
        disk_reserve_bytes: 0,
        rehearsal: None,
        subscribers: Arc::clone(subscribers),
    }
}
