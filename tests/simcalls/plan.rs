//! What one seed sets up: boxes with their replicas, cells and location areas, phones, and how bad the weather is.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::Path;
use std::sync::Arc;

use encamp::config::words::Templates;
use encamp::config::{
    BaseStation, Calls, ClusterKey, Dialplan, Emergency, Front, Listener, Messages, Place, Registrar, Replica,
    Settings, Shard, Subscriber, Subscribers, Transport, Unlisted, ZoneSettings,
};
use encamp::gsm::auc::Auth;
use encamp::ident::{Imsi, Msisdn, Suffix};
use encamp::seam::Rng;

pub const FRONT_PORT: u16 = 5064;
const DOMAIN: &str = "gsm.test";
/// Midday in September 2026, ms since 1970.
pub const TODAY_MS: u64 = 1_790_000_000_000;
/// Nobody has this number.
pub const NOBODYS: &str = "2999";

/// What is broken on purpose, to see a check catch it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Breaker {
    /// Stores say *synced* and have made nothing durable: the 200 leaves too early.
    SyncIgnored,
    /// The records of calls are gone after a crash.
    RecordsLost,
    /// What the box sends of this method never leaves it.
    NeverSends(&'static str),
    /// A base station's copies of an INVITE look like another call's.
    CopiesDiffer,
    /// The session description loses a line on its way through the box.
    SdpChanged,
    /// The phrase and the Reason of a refusal are not those of the base station.
    PhraseLost,
    /// After its BYE a leg is told something more.
    TalksOn,
    /// A box never hears that a phone has its text.
    AnswersUnheard,
    /// The texts are gone after a crash.
    TextsLost,
}

pub struct Plan {
    pub nodes: Vec<Arc<Settings>>,
    pub phones: Vec<PhonePlan>,
    pub cells: Vec<CellPlan>,
    pub weather: Weather,
    /// A base station knows nothing any more of what was cancelled: a late copy of the INVITE pages anew.
    pub forgets_cancelled: bool,
    pub breaker: Option<Breaker>,
}

pub struct PhonePlan {
    pub imsi: Imsi,
    pub number: String,
}

pub struct CellPlan {
    pub address: SocketAddr,
    /// Which box it sends to.
    pub node: usize,
    pub area: Option<usize>,
}

/// How much goes wrong while it does.
pub struct Weather {
    pub busy_s: u64,
    /// Datagrams lost and doubled, of a thousand.
    pub lost: u64,
    pub doubled: u64,
    /// Datagrams that come late, of a thousand, by up to so much: others overtake them.
    pub late: u64,
    pub late_ms_max: u64,
    pub delay_us_max: u64,
    pub kills: u64,
    pub power_cuts: u64,
    pub disks_full: u64,
    pub cell_restarts: u64,
    pub sync_us_max: u64,
    /// Syncs that take long, of a thousand.
    pub slow_syncs: u64,
}

pub fn node_ip(node: usize) -> IpAddr {
    IpAddr::V4(Ipv4Addr::new(10, 0, node as u8, 1))
}

pub fn front(node: usize) -> SocketAddr {
    SocketAddr::new(node_ip(node), FRONT_PORT)
}

pub fn replica_port(index: usize) -> u16 {
    5070 + index as u16
}

pub fn draw(rng: &mut Rng, breaker: Option<Breaker>) -> Plan {
    let node_count = 1 + rng.below(2) as usize;
    let shard_count = 1 + rng.below(2) as usize;
    // Shard of each replica, and the box that it is on.
    let mut places: Vec<(usize, usize)> = Vec::new();
    for shard in 0..shard_count {
        for n in 0..1 + rng.below(2) as usize {
            places.push((shard, (shard + n) % node_count));
        }
    }
    let quorums: Vec<usize> = (0..shard_count)
        .map(|shard| 1 + rng.below(places.iter().filter(|(of, _)| *of == shard).count() as u64) as usize)
        .collect();
    let phones: Vec<PhonePlan> = (0..4 + rng.below(4))
        .map(|n| PhonePlan {
            imsi: Imsi::parse(&format!("0010100000{n:04}{}", rng.below(10))).expect("fifteen digits"),
            number: format!("21{n:02}"),
        })
        .collect();
    let subscribers = Arc::new(Subscribers::new(phones.iter().enumerate().map(|(line, phone)| Subscriber {
        imsi: phone.imsi,
        msisdn: vec![Msisdn::parse(&phone.number).expect("a number")],
        name: format!("phone {line}").into(),
        auth: Auth::None,
        barred: false,
        language: None,
        mail: None,
        file: "simulated".into(),
        line: line + 1,
    })));
    let cells: Vec<CellPlan> = (0..2 + rng.below(3) as usize)
        .map(|n| CellPlan {
            address: SocketAddr::new(IpAddr::V4(Ipv4Addr::new(10, 1, n as u8, 1)), 5062),
            node: rng.below(node_count as u64) as usize,
            area: (rng.below(3) > 0).then(|| rng.below(2) as usize),
        })
        .collect();
    let nodes = (0..node_count)
        .map(|node| Arc::new(settings(node, node_count, &places, &quorums, &cells, &subscribers)))
        .collect();
    Plan { nodes, phones, cells, weather: draw_weather(rng, breaker), forgets_cancelled: rng.below(2) == 0, breaker }
}

fn draw_weather(rng: &mut Rng, breaker: Option<Breaker>) -> Weather {
    let mut some = |often: u64, end: u64| if rng.below(often) == 0 { rng.below(end) } else { 0 };
    let weather = Weather {
        busy_s: 60 + some(1, 60),
        lost: some(2, 200),
        doubled: some(2, 200),
        late: some(2, 200),
        late_ms_max: 4_000,
        delay_us_max: 20_000,
        kills: some(2, 5),
        power_cuts: some(2, 5),
        disks_full: some(4, 3),
        cell_restarts: some(4, 3),
        sync_us_max: 30_000,
        slow_syncs: some(3, 200),
    };
    match (rng.below(4), breaker) {
        // Without crashes nobody sees what they lose.
        (_, Some(Breaker::RecordsLost | Breaker::TextsLost)) => Weather { kills: 3, ..weather },
        // Fair weather: everything is to be right.
        (0, _) => Weather {
            lost: 0,
            late: 0,
            kills: 0,
            power_cuts: 0,
            disks_full: 0,
            cell_restarts: 0,
            slow_syncs: 0,
            ..weather
        },
        // Only crashes.
        (1, _) => Weather { lost: 0, late: 0, kills: 2, power_cuts: 2, disks_full: 0, cell_restarts: 0, ..weather },
        _ => weather,
    }
}

fn settings(
    node: usize,
    node_count: usize,
    places: &[(usize, usize)],
    quorums: &[usize],
    cells: &[CellPlan],
    subscribers: &Arc<Subscribers>,
) -> Settings {
    let udp = |port: u16| Listener {
        transport: Transport::Udp,
        address: SocketAddr::new(node_ip(node), port),
        advertise: None,
    };
    let shard_count = quorums.len();
    let shards = quorums.iter().enumerate().map(|(n, quorum)| Shard {
        name: format!("s{n}"),
        suffixes: (0..10)
            .filter(|digit| digit % shard_count == n)
            .map(|digit: usize| Suffix::parse(&digit.to_string()).expect("a digit"))
            .collect(),
        replicas: (0..places.len()).filter(|index| places[*index].0 == n).collect(),
        write_quorum: *quorum,
    });
    let replicas = places.iter().enumerate().map(|(index, (shard, at))| Replica {
        name: format!("r{index}"),
        shard: *shard,
        place: if *at == node {
            let listen = if node_count == 1 { Vec::new() } else { vec![udp(replica_port(index))] };
            Place::Local { path: format!("/r{index}").into(), listen }
        } else {
            Place::Remote { address: SocketAddr::new(node_ip(*at), replica_port(index)) }
        },
    });
    let base_stations = cells.iter().enumerate().map(|(n, cell)| BaseStation {
        name: format!("cell{n}"),
        address: cell.address,
        location_area: cell.area.map(|area| format!("area{area}")),
        texts: None,
    });
    Settings {
        domain: DOMAIN.into(),
        data_dir: "/".into(),
        control: "/control".into(),
        cluster_key: Some(ClusterKey([7; 32])),
        front: Front {
            listen: vec![udp(FRONT_PORT)],
            base_stations: Vec::new(),
            peers: Vec::new(),
            unlisted: Unlisted::Silence,
        },
        base_stations: base_stations.collect(),
        trunks: Vec::new(),
        zone: ZoneSettings { apex: DOMAIN.into(), listen: Vec::new(), allow: Vec::new(), ttl_s: 60 },
        shards: shards.collect(),
        replicas: replicas.collect(),
        registrar: Registrar::default(),
        dialplan: Dialplan::default(),
        calls: Calls::of(Path::new("/")),
        messages: Messages::of(Path::new("/")),
        short_codes: Vec::new(),
        templates: Templates::default(),
        mail: None,
        emergency: Emergency::default(),
        disk_reserve_bytes: 0,
        rehearsal: None,
        subscribers: Arc::clone(subscribers),
    }
}
