//! What the operator's files mean.
//!
//! [`Settings`] is the meaning: checked, complete, with every default filled in. How it is read from text, and what is
//! said of a mistake, stands in [`read`] and [`subscribers`]. Nothing here touches a file: the shell hands in texts.

mod calling;
pub mod choose;
mod csv;
pub mod diff;
#[cfg(feature = "box")]
pub mod edit;
pub mod keys;
pub mod mailing;
mod mailing_read;
mod map;
pub mod read;
mod sims;
pub mod subscribers;
mod text;
mod texting;
mod typed;
mod units;
pub mod words;

use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use crate::gsm::form::TextForm;
use crate::ident::{Language, Msisdn, Network, Suffix};
pub use mailing::Mail;
pub use subscribers::{Subscriber, SubscriberMail, Subscribers};
use words::Templates;

/// Everything that a node does, it does by these.
#[derive(Clone, Debug)]
pub struct Settings {
    pub domain: String,
    pub data_dir: PathBuf,
    /// The control socket; default `<data_dir>/control.sock`.
    pub control: PathBuf,
    pub cluster_key: Option<ClusterKey>,
    pub front: Front,
    pub base_stations: Vec<BaseStation>,
    pub trunks: Vec<Trunk>,
    pub zone: ZoneSettings,
    pub shards: Vec<Shard>,
    /// Local and remote ones; `Shard::replicas` and `StoreId::Replica` are indices into this.
    pub replicas: Vec<Replica>,
    pub registrar: Registrar,
    pub dialplan: Dialplan,
    pub calls: Calls,
    pub messages: Messages,
    /// The numbers that the message centre itself answers: `number_code` and `status_code`, then each `[[short_code]]`.
    pub short_codes: Vec<ShortCode>,
    pub templates: Templates,
    /// `None`: there is no `[mail]`, and no mail.
    pub mail: Option<Arc<Mail>>,
    pub emergency: Emergency,
    /// Less than this many bytes left on the disk: writes are refused (`disk_reserve`, default 64 MB).
    pub disk_reserve_bytes: u64,
    pub rehearsal: Option<Rehearsal>,
    pub subscribers: Arc<Subscribers>,
}

/// The shared secret of the nodes of one site: 32 bytes, never printed.
#[derive(Clone, PartialEq, Eq, zeroize::ZeroizeOnDrop)]
pub struct ClusterKey(pub [u8; 32]);

impl std::fmt::Debug for ClusterKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("ClusterKey(…)")
    }
}

#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Transport {
    Udp,
    Tcp,
}

/// Where we listen, `udp:0.0.0.0:5060`, and the address that others are told, where that differs.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Listener {
    pub transport: Transport,
    pub address: SocketAddr,
    /// What stands in Via and in zone records; default: `address`, or where that is unspecified the address of the
    /// default route, which the shell fills in before the node is started.
    pub advertise: Option<IpAddr>,
}

impl Listener {
    /// The address and port that others are told.
    pub fn advertised(&self) -> SocketAddr {
        SocketAddr::new(self.advertise.unwrap_or(self.address.ip()), self.address.port())
    }
}

#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Front {
    pub listen: Vec<Listener>,
    /// Who may speak for phones: the networks of `front.base_stations`.
    pub base_stations: Vec<Network>,
    /// Other front ends and foreign proxies that may send INVITE to a replica's port.
    pub peers: Vec<Network>,
    pub unlisted: Unlisted,
}

/// What an address that nobody listed gets.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Unlisted {
    Silence,
    Forbidden,
}

#[derive(Clone, PartialEq, Eq, Debug)]
pub struct BaseStation {
    pub name: String,
    pub address: SocketAddr,
    pub location_area: Option<String>,
    /// How short messages go to its phones; `None`: as learned from their REGISTERs.
    pub texts: Option<TextForm>,
}

#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Trunk {
    pub name: String,
    pub address: SocketAddr,
    pub mode: TrunkMode,
    pub texts: bool,
    /// The numbers that go out here begin with one of these; none: every number, after the trunks that have a prefix for it.
    pub prefixes: Vec<String>,
    /// What its 401 and 407 are answered with.
    pub username: Option<String>,
    pub password: Option<Password>,
}

/// A password of ours at somebody else's: never printed.
#[derive(Clone, PartialEq, Eq, zeroize::ZeroizeOnDrop)]
pub struct Password(pub String);

impl std::fmt::Debug for Password {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Password(…)")
    }
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum TrunkMode {
    Redirect,
    Recurse,
}

#[derive(Clone, PartialEq, Eq, Debug)]
pub struct ZoneSettings {
    /// Lower case, no dot at the end.
    pub apex: String,
    pub listen: Vec<Listener>,
    /// Who may ask below `imsi`, `e164` and `num`; empty: everybody.
    pub allow: Vec<Network>,
    pub ttl_s: u32,
}

/// A promise waits for at most eight stores ([`crate::seam::After`]): those of one shard, and the node's own.
pub const REPLICAS_PER_SHARD_MAX: usize = 7;

#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Shard {
    pub name: String,
    /// Each suffix that the shard owns, ranges already written out.
    pub suffixes: Vec<Suffix>,
    /// Indices into `Settings::replicas`.
    pub replicas: Vec<usize>,
    pub write_quorum: usize,
}

#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Replica {
    pub name: String,
    /// Index into `Settings::shards`.
    pub shard: usize,
    pub place: Place,
}

#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Place {
    /// A replica of this process; `listen` is where other boxes reach it, if anywhere.
    Local { path: PathBuf, listen: Vec<Listener> },
    /// A replica elsewhere, reached by UDP.
    Remote { address: SocketAddr },
}

impl Replica {
    pub fn is_local(&self) -> bool {
        matches!(self.place, Place::Local { .. })
    }
}

/// How bindings live and how long anybody waits; each default is the manual's (config/encamp.toml).
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Registrar {
    pub expires_s_min: u32,
    pub expires_s_max: u32,
    pub expires_s_default: u32,
    /// A binding past its expiry stays routable this long (default 30 days).
    pub stale_life: Duration,
    /// How long a replica may be away; tombstones live `stale_life` plus this (default 7 days).
    pub replica_absence_max: Duration,
    pub write_deadline: Duration,
    pub read_deadline: Duration,
    pub challenge_life: Duration,
    pub challenge_count_max: usize,
    /// Writes that are kept for a replica that is behind; with more it must be repaired.
    pub hint_count_max: usize,
    pub contacts_per_aor_max: usize,
    pub transaction_count_max: usize,
    /// The reject cause for an IMSI that nobody provisioned: first the longest matching PLMN, else cause 4.
    pub unknown_cause_by_plmn: Vec<(String, u8)>,
    /// The operator vouches for this clock although the kernel does not call it synchronised.
    pub clock_trusted: bool,
}

impl Default for Registrar {
    fn default() -> Registrar {
        const DAY: Duration = Duration::from_secs(86_400);
        Registrar {
            expires_s_min: 60,
            expires_s_max: 86_400,
            expires_s_default: 3_600,
            stale_life: DAY * 30,
            replica_absence_max: DAY * 7,
            write_deadline: Duration::from_millis(2_500),
            read_deadline: Duration::from_millis(400),
            challenge_life: Duration::from_secs(30),
            challenge_count_max: 50_000,
            hint_count_max: 10_000,
            contacts_per_aor_max: 10,
            transaction_count_max: 10_000,
            unknown_cause_by_plmn: Vec::new(),
            clock_trusted: false,
        }
    }
}

#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Dialplan {
    /// Numbers with these prefixes are ours: unknown ones are 404 and never go to a trunk.
    pub local_prefixes: Vec<String>,
}

/// How long a call may take at each step, and where its record goes (`[calls]`).
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Calls {
    /// Base stations that page a phone together have this long until it rings (paging takes 10 s).
    pub ring_group: Duration,
    /// From the INVITE to the answer.
    pub setup_max: Duration,
    /// From the answer to the end.
    pub duration_max: Duration,
    /// The base stations of an established call are asked this often whether they live.
    pub probe_interval: Duration,
    pub count_max: usize,
    /// One line per call; default `<data_dir>/calls.csv`.
    pub records: RecordFile,
}

impl Calls {
    /// Every default, for this `data_dir`.
    pub fn of(data_dir: &std::path::Path) -> Calls {
        Calls {
            ring_group: Duration::from_secs(15),
            setup_max: Duration::from_secs(60),
            duration_max: Duration::from_secs(4 * 3600),
            probe_interval: Duration::from_secs(600),
            count_max: 1_000,
            records: RecordFile::of(data_dir.join("calls.csv")),
        }
    }
}

/// The message centre (`[messages]`); each default is the manual's (config/encamp.toml).
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Messages {
    /// The number that stands for the centre itself, and as whose its own texts are shown.
    pub service_centre: String,
    /// A text that could not be delivered for so long is given up; a shorter validity period of its own counts first.
    pub life_max: Duration,
    /// Texts that wait: in all, and for one phone. Beyond it new ones are refused with 503.
    pub count_max: usize,
    pub count_per_phone_max: usize,
    /// Texts that one base station is given at a time: each holds a radio channel.
    pub attempts_per_base_station_max: usize,
    /// Local time is so many quarters of an hour ahead of UTC (TS 23.040 §9.2.3.11); for timestamps and the night.
    pub time_zone_quarters: i8,
    /// Absent phones are not paged between these minutes of the local day: from, to; it may go over midnight.
    pub night: Option<(u16, u16)>,
    pub welcome: Welcome,
    /// Whether a sender is told in words why a text was not sent, or could not be delivered where he asked for no report.
    pub explain: bool,
    /// How long `encamp queue explain` knows a text after its end.
    pub history_life: Duration,
    /// How long the words of a text are kept after its end; `None`: they are removed with it.
    pub archive_life: Option<Duration>,
    /// How many digits a number may have that a subscriber chooses himself.
    pub number_digits_min: usize,
    pub number_digits_max: usize,
    /// One line per text; default `<data_dir>/texts.csv`.
    pub records: RecordFile,
}

/// A file of records that is turned: above `bytes_max` it becomes `.1`, the former `.1` becomes `.2`, up to `count`.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct RecordFile {
    pub path: PathBuf,
    pub bytes_max: u64,
    pub count: u32,
}

/// When a phone that registers is sent a text.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum Welcome {
    #[default]
    Never,
    /// The first time that it registers at all.
    First,
    /// That, and whenever it comes to another network (PLMN) than it was in before.
    Network,
}

/// A number that the message centre itself answers.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct ShortCode {
    pub number: Msisdn,
    pub does: CodeAction,
    /// Who may text to it; `None`: every subscriber.
    pub senders: Option<Vec<Msisdn>>,
}

#[derive(Clone, PartialEq, Eq, Debug)]
pub enum CodeAction {
    /// A subscriber without a number chooses one.
    ChooseNumber,
    /// The state of the network, and what is known of the sender.
    Status,
    /// The sender's own number.
    OwnNumber,
    /// A fixed answer: by language, the first one for all others.
    Answer(Vec<(Option<Language>, String)>),
    /// The text goes to a program as JSON; what that answers goes back to the sender.
    Hook { url: String, timeout: Duration },
    /// The text goes to every member but the sender. `senders` defaults to the members.
    Group { members: Vec<Msisdn> },
    /// The text goes to every phone at a location area or base station that the text names first, after a confirmation.
    Broadcast,
}

impl Messages {
    /// Every default, for this `data_dir`.
    pub fn of(data_dir: &std::path::Path) -> Messages {
        Messages {
            service_centre: "1000".into(),
            life_max: Duration::from_secs(7 * 86_400),
            count_max: 100_000,
            count_per_phone_max: 1_000,
            attempts_per_base_station_max: 8,
            time_zone_quarters: 0,
            night: None,
            welcome: Welcome::Never,
            explain: true,
            history_life: Duration::from_secs(7 * 86_400),
            archive_life: None,
            number_digits_min: 7,
            number_digits_max: 10,
            records: RecordFile::of(data_dir.join("texts.csv")),
        }
    }
}

impl RecordFile {
    pub fn of(path: PathBuf) -> RecordFile {
        RecordFile { path, bytes_max: 16_000_000, count: 8 }
    }
}

/// The short codes that are there unless they are switched off: those of the pair that this box replaces.
pub fn short_codes_of_old() -> Vec<ShortCode> {
    let code = |number: &str, does| Msisdn::parse(number).ok().map(|number| ShortCode { number, does, senders: None });
    [code("101", CodeAction::ChooseNumber), code("411", CodeAction::Status)].into_iter().flatten().collect()
}

/// Emergency calls (`[emergency]`).
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Emergency {
    /// 112 and 911 are always among them; `sos`, which is no number, is meant without being written.
    pub numbers: Vec<String>,
    /// Index into `Settings::trunks`: tried first. Then, or where it is `None`, the trunks by prefix, as for any other number.
    pub trunk: Option<usize>,
}

impl Default for Emergency {
    fn default() -> Emergency {
        Emergency { numbers: ["112", "911"].map(str::to_owned).to_vec(), trunk: None }
    }
}

#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Rehearsal {
    pub imsi_prefix: String,
    pub count: u32,
}

impl Settings {
    /// The base station table that names this address; by address alone, without the port (DESIGN section 9, Trust).
    pub fn base_station_at(&self, address: IpAddr) -> Option<&BaseStation> {
        self.base_stations.iter().find(|station| station.address.ip() == address)
    }

    /// Whether this address may speak for phones.
    pub fn is_base_station(&self, address: IpAddr) -> bool {
        self.front.base_stations.iter().any(|network| network.contains(address))
            || self.base_station_at(address).is_some()
    }

    /// The number of the message centre's own that this is, with or without `+`.
    pub fn code(&self, dialled: &str) -> Option<Msisdn> {
        let dialled = dialled.trim_start_matches('+');
        let codes = self.short_codes.iter().map(|code| code.number);
        let centre = Msisdn::parse(&self.messages.service_centre).ok();
        let mail = self.mail.as_ref().and_then(|mail| mail.short_code);
        let own = codes.chain(centre).chain(mail).find(|number| number.digits() == dialled);
        own.or_else(|| self.mail.as_ref()?.in_pool(dialled))
    }

    /// Whether a base station has this name, or stands in the location area of this name.
    pub fn is_at(&self, address: IpAddr, place: &str) -> bool {
        self.base_station_at(address)
            .is_some_and(|station| station.name == place || station.location_area.as_deref() == Some(place))
    }

    pub fn trunk_at(&self, address: IpAddr) -> Option<&Trunk> {
        self.trunks.iter().find(|trunk| trunk.address.ip() == address)
    }
}
