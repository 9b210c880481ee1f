//! From the operator's text to [`super::Settings`], or to a list of what is wrong and where.
//!
//! Knows: what each section means and which of them contradict each other. Does not know: files, disks, interfaces; the
//! shell hands in the texts.
//! Read first: `config/encamp.toml`, the manual of every key; [`super::keys`], the table of them; then this file.

use std::collections::HashMap;
use std::net::{IpAddr, SocketAddr};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use toml::de::DeTable;

use super::text::{Place, Report, Spot};
use super::typed::{self, Entry, Item, View};
use super::units::{self, Flaw};
use super::{
    BaseStation, ClusterKey, Front, Listener, Registrar, Rehearsal, Settings, Subscribers, Transport, Unlisted,
    ZoneSettings, calling, csv, keys, mailing_read, map, sims, texting,
};
use crate::gsm::form::TextForm;
use crate::ident::Network;

/// The texts of a configuration, as the shell found them.
#[derive(Clone, Default)]
pub struct Sources {
    /// `encamp.toml`: its name as the operator knows it, and its text.
    pub main: Source,
    /// `subscribers.d/*.toml` and `*.csv` beside it in name order, then `<data_dir>/subscribers.d/90-local.toml`.
    pub subscribers: Vec<Source>,
    /// The text of the file that [`cluster_key_path`] names; `None` if it names none or it could not be read.
    pub cluster_key_file: Option<String>,
}

/// The cluster key is not shown.
impl std::fmt::Debug for Sources {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Sources")
            .field("main", &self.main)
            .field("subscribers", &self.subscribers)
            .finish_non_exhaustive()
    }
}

#[derive(Clone, Default)]
pub struct Source {
    pub name: String,
    pub text: String,
}

/// The text may hold a Ki, so it is not shown.
impl std::fmt::Debug for Source {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Source({}, {} bytes)", self.name, self.text.len())
    }
}

/// Something that the operator should know about his files.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problem {
    /// `file:line:column` (1 = first).
    pub place: String,
    pub what: String,
    /// What to write instead, or where the first of two stands.
    pub hint: Option<String>,
}

/// Reads everything; every mistake is told at once, not only the first.
///
/// Errors: each one a [`Problem`]; on any, nothing is to be started. The second part of a success are notes: keys that have
/// no effect yet, and settings that are hardly meant.
/// Tests:  tests/config.rs
pub fn read(sources: &Sources) -> Result<(Settings, Vec<Problem>), Vec<Problem>> {
    let mut report = Report::new(std::iter::once(&sources.main).chain(&sources.subscribers));
    let (table, is_toml) = typed::parse(&mut report, 0);
    typed::check(&mut report, 0, &table, &keys::ROOT);

    let mut roll = sims::Roll::default();
    let root = View::new(&table, &keys::ROOT, 0);
    roll.read_tables(&root, &mut report);
    for file in 1..report.files.len() {
        if has_extension(report.files[file].name, "csv") {
            csv::read(file, &mut roll, &mut report);
        } else {
            let (table, _) = typed::parse(&mut report, file);
            typed::check(&mut report, file, &table, &keys::SUBSCRIBER_FILE);
            roll.read_tables(&View::new(&table, &keys::SUBSCRIBER_FILE, file), &mut report);
        }
    }
    roll.give_out(&mut report);

    // What is missing or contradicts itself in a text that broke off would only distract from where it broke.
    let settings = if is_toml { settings(&root, sources, roll, &mut report) } else { None };
    match settings {
        Some(settings) if !report.has_problems() => Ok((settings, report.into_notes())),
        _ => Err(report.into_problems()),
    }
}

fn has_extension(name: &str, extension: &str) -> bool {
    name.rsplit_once('.').is_some_and(|(_, found)| found.eq_ignore_ascii_case(extension))
}

/// The file that holds the cluster key, if the configuration names one; relative to the working directory.
pub fn cluster_key_path(main: &str) -> Option<PathBuf> {
    let text = top_text(main, "cluster_key")?;
    text.strip_prefix("file:").filter(|path| !path.is_empty()).map(PathBuf::from)
}

/// Where the control socket is, as far as the text tells: a command must reach the running process also where the file has become
/// wrong since.
pub fn control_path(main: &str) -> Option<PathBuf> {
    let given = top_text(main, "control").filter(|path| !path.is_empty()).map(PathBuf::from);
    given.or_else(|| data_dir_path(main).map(|data_dir| data_dir.join("control.sock")))
}

/// `data_dir`, for the shell that looks for `subscribers.d/90-local.toml` in it before the whole is read.
pub fn data_dir_path(main: &str) -> Option<PathBuf> {
    top_text(main, "data_dir").filter(|path| !path.is_empty()).map(PathBuf::from)
}

fn top_text(main: &str, name: &str) -> Option<String> {
    let (table, _) = DeTable::parse_recoverable(main.strip_prefix('\u{feff}').unwrap_or(main));
    table.get_ref().get(name)?.get_ref().as_str().map(str::to_owned)
}

/// Passes a text through `parse`; what is wrong with it is reported where it stands.
pub(super) fn value<T>(
    spot: Spot<&str>,
    parse: impl FnOnce(&str) -> Result<T, Flaw>,
    report: &mut Report<'_>,
) -> Option<T> {
    match parse(spot.value) {
        Ok(value) => Some(value),
        Err(flaw) => {
            report.problem(spot.at, flaw.what).hint(flaw.hint);
            None
        }
    }
}

/// The whole of the main file, section by section.
fn settings(root: &View<'_>, sources: &Sources, roll: sims::Roll, report: &mut Report<'_>) -> Option<Settings> {
    let domain = root.required_text("domain", "gsm.example", report);
    let domain = domain.and_then(|spot| value(spot, units::host_name, report));
    let data_dir = root.required_text("data_dir", "/var/lib/encamp", report);
    let data_dir = data_dir.and_then(|spot| path(spot, report));
    let control = root.text("control").and_then(|spot| path(spot, report));
    let cluster_key = read_cluster_key(root, sources, report);

    let mut bound = Bound::default();
    let front = read_front(root, &mut bound, report);
    let base_stations = read_base_stations(root, report);
    let trunks = calling::read_trunks(root, &front, &base_stations, report);
    note_who_may_speak(root, &front, &base_stations, report);
    let zone = read_zone(root, domain.as_deref().unwrap_or_default(), &mut bound, report);
    let data_dir_known = data_dir.clone().unwrap_or_default();
    let around = map::Around {
        data_dir: data_dir_known,
        front_elsewhere: front_elsewhere(root, &front),
        // One that is written wrongly has been reported; it is not missing as well.
        has_cluster_key: root.has("cluster_key"),
    };
    let (shards, replicas) = map::read(root, &around, &mut bound, report);
    let registrar = read_registrar(root, report);
    let dialplan = calling::read_dialplan(root, report);
    let data_dir_or_none = data_dir.as_deref().unwrap_or(Path::new(""));
    let calls = calling::read_calls(root, data_dir_or_none, report);
    let emergency = calling::read_emergency(root, &front, &trunks, &roll, report);
    let around = texting::Around { data_dir: data_dir_or_none, calls: &calls, emergency: &emergency, roll: &roll };
    let messages = texting::read_messages(root, &around, report);
    let templates = texting::read_templates(root, &roll, report);
    let short_codes = texting::read_short_codes(root, &around, &messages, templates.default_language, report);
    let around = mailing_read::Around {
        domain: domain.as_deref().unwrap_or_default(),
        data_dir: data_dir_or_none,
        trunks: &trunks,
        dialplan: &dialplan,
        emergency: &emergency,
        messages: &messages,
        short_codes: &short_codes,
        roll: &roll,
    };
    let mail = mailing_read::read_mail(root, &around, &mut bound, report);
    calling::note_hidden_prefixes(root, &dialplan, report);
    let disk_reserve_bytes = read_disk_reserve(root, report);
    let rehearsal = read_rehearsal(root, &roll, report);

    let (domain, data_dir) = (domain?, data_dir?);
    Some(Settings {
        domain,
        control: control.unwrap_or_else(|| data_dir.join("control.sock")),
        data_dir,
        cluster_key,
        front,
        base_stations,
        trunks,
        zone,
        shards,
        replicas,
        registrar,
        dialplan,
        calls,
        messages,
        short_codes,
        templates,
        mail: mail.map(Arc::new),
        emergency,
        disk_reserve_bytes,
        rehearsal,
        subscribers: Arc::new(Subscribers::new(roll.into_subscribers())),
    })
}

pub(super) fn path(spot: Spot<&str>, report: &mut Report<'_>) -> Option<PathBuf> {
    if spot.value.is_empty() || spot.value.contains('\0') {
        report.problem(spot.at, "this is no path").hint("write one such as \"/var/lib/encamp\"");
        return None;
    }
    Some(PathBuf::from(spot.value))
}

fn read_cluster_key(root: &View<'_>, sources: &Sources, report: &mut Report<'_>) -> Option<ClusterKey> {
    const HINT: &str = "64 hex digits, the same on every box; `openssl rand -hex 32` makes some";
    let spot = root.text("cluster_key")?;
    let (text, whose) = match spot.value.strip_prefix("file:") {
        None => (spot.value, "`cluster_key`".to_owned()),
        Some(path) => match &sources.cluster_key_file {
            Some(text) => (text.trim(), path.to_owned()),
            None => {
                report.problem(spot.at, format!("{path:?} cannot be read")).hint(format!("the file must hold {HINT}"));
                return None;
            }
        },
    };
    let mut key = ClusterKey([0; 32]);
    let digits = text.as_bytes();
    let is_hex = digits.len() == 64 && digits.iter().all(u8::is_ascii_hexdigit);
    if !is_hex {
        let count = text.chars().count();
        report
            .problem(spot.at, format!("{whose} is not 64 hex digits, but {count} characters"))
            .hint(format!("write {HINT}"));
        return None;
    }
    for (byte, pair) in key.0.iter_mut().zip(digits.chunks_exact(2)) {
        let nibble = |digit: u8| char::from(digit).to_digit(16).unwrap_or(0) as u8;
        *byte = nibble(pair[0]) << 4 | nibble(pair[1]);
    }
    Some(key)
}

/// Every address that this process is to listen on, so that none is taken twice.
#[derive(Default)]
pub(super) struct Bound(Vec<(Listener, Origin)>);

#[derive(Clone, Copy)]
enum Origin {
    At(Place),
    /// The section that listens there unless told otherwise.
    Default(&'static str),
}

impl Bound {
    /// For what is no [`Listener`].
    pub fn take_tcp(&mut self, address: SocketAddr, at: Place, report: &mut Report<'_>) -> bool {
        let listener = Listener { transport: Transport::Tcp, address, advertise: None };
        self.take(&listener, Origin::At(at), report)
    }

    /// Takes the address, or reports who has it. An unspecified address takes the port of every address of its family.
    fn take(&mut self, new: &Listener, origin: Origin, report: &mut Report<'_>) -> bool {
        let clash = self.0.iter().find(|(old, _)| {
            let (old_ip, new_ip) = (old.address.ip(), new.address.ip());
            old.transport == new.transport
                && old.address.port() == new.address.port()
                && old_ip.is_ipv4() == new_ip.is_ipv4()
                && (old_ip == new_ip || old_ip.is_unspecified() || new_ip.is_unspecified())
        });
        let Some((old, other)) = clash else {
            self.0.push((new.clone(), origin));
            return true;
        };
        let what = |one: &Listener| format!("{} is listened on twice", one.address);
        match (origin, *other) {
            (Origin::At(at), Origin::At(first)) => {
                let first = report.name_of(first);
                report.problem(at, what(new)).hint(format!("the first is at {first}"));
            }
            (Origin::At(at), Origin::Default(section)) => by_default(at, what(new), section, report),
            (Origin::Default(section), Origin::At(at)) => by_default(at, what(old), section, report),
            // The defaults of two sections have different ports.
            (Origin::Default(_), Origin::Default(_)) => {}
        }
        false
    }
}

fn by_default(at: Place, what: String, section: &str, report: &mut Report<'_>) {
    report.problem(at, what).hint(format!("{section} listens there by default: write another port, or its `listen`"));
}

/// A list of listeners; `None` where the key is not there. Those that cannot be are reported and left out.
pub(super) fn listeners(
    view: &View<'_>,
    name: &str,
    bound: &mut Bound,
    report: &mut Report<'_>,
) -> Option<Vec<Listener>> {
    let mut all = Vec::new();
    for item in view.items(name)? {
        let (spot, table) = match item {
            Item::Text(spot) => (Some(spot), None),
            Item::Table(table) => (table.required_text("listen", "udp:0.0.0.0:5060", report), Some(table)),
        };
        let advertise = table.and_then(|table| table.text("advertise"));
        let Some(spot) = spot else { continue };
        let Some(mut listener) = value(spot, units::listener, report) else { continue };
        if let Some(advertise) = advertise {
            listener.advertise = value(advertise, |text| advertised(text, &listener), report);
        }
        if bound.take(&listener, Origin::At(spot.at), report) {
            all.push(listener);
        }
    }
    Some(all)
}

fn advertised(text: &str, listener: &Listener) -> Result<IpAddr, Flaw> {
    let hint = || "write the address at which others reach this listener, in digits: \"192.0.2.1\"".to_owned();
    match text.parse::<IpAddr>() {
        Ok(address) if address.is_unspecified() => {
            Err(Flaw { what: format!("nobody can be told the address {address}"), hint: hint() })
        }
        Ok(address) if address.is_ipv4() != listener.address.is_ipv4() => Err(Flaw {
            what: format!("{} cannot be reached at {address}: one is IPv4, one IPv6", listener.address),
            hint: hint(),
        }),
        Ok(address) => Ok(address),
        Err(_) => Err(Flaw { what: format!("{text:?} is no address in digits"), hint: hint() }),
    }
}

/// The listeners of an unchanged OpenBTS: calls 5060, messages 5063, registration 5064.
fn default_listeners(of: &[(Transport, u16)]) -> Vec<Listener> {
    let anywhere = IpAddr::from([0, 0, 0, 0]);
    of.iter()
        .map(|(transport, port)| Listener { transport: *transport, address: (anywhere, *port).into(), advertise: None })
        .collect()
}

/// The listeners of a section, or its defaults where it does not name any.
fn listeners_or(
    section: Option<&View<'_>>,
    title: &'static str,
    default: &[(Transport, u16)],
    bound: &mut Bound,
    report: &mut Report<'_>,
) -> Vec<Listener> {
    if let Some(section) = section
        && section.has("listen")
    {
        return listeners(section, "listen", bound, report).unwrap_or_default();
    }
    let mut all = default_listeners(default);
    all.retain(|listener| bound.take(listener, Origin::Default(title), report));
    all
}

pub(super) fn networks(view: Option<&View<'_>>, name: &str, report: &mut Report<'_>) -> Vec<Network> {
    let texts = view.and_then(|view| view.texts(name)).unwrap_or_default();
    let network = |spot: Spot<&str>| {
        let parse = |text: &str| {
            Network::parse(text).map_err(|error| Flaw {
                what: format!("{text:?} is no network: {error}"),
                hint: "trust is by address, so it stands here in digits and without a port".into(),
            })
        };
        value(spot, parse, report)
    };
    texts.into_iter().filter_map(network).collect()
}

fn read_front(root: &View<'_>, bound: &mut Bound, report: &mut Report<'_>) -> Front {
    use Transport::{Tcp, Udp};
    let section = root.table("front");
    let section = section.as_ref();
    let unlisted = section.and_then(|section| section.text("unlisted"));
    Front {
        listen: listeners_or(section, "[front]", &[(Udp, 5060), (Tcp, 5060), (Udp, 5063), (Udp, 5064)], bound, report),
        base_stations: networks(section, "base_stations", report),
        peers: networks(section, "peers", report),
        unlisted: match unlisted {
            None => Unlisted::Silence,
            Some(spot) => match spot.value {
                "silence" => Unlisted::Silence,
                "403" => Unlisted::Forbidden,
                other => {
                    report
                        .problem(spot.at, format!("`unlisted` cannot be {other:?}"))
                        .hint("write \"silence\" or \"403\"");
                    Unlisted::Silence
                }
            },
        },
    }
}

/// A front end elsewhere shows in `front.peers`, or in that there is none here.
fn front_elsewhere(root: &View<'_>, front: &Front) -> Option<Place> {
    let section = root.table("front")?;
    if !front.peers.is_empty() {
        Some(section.place_of("peers"))
    } else if section.is_empty_list("listen") {
        Some(section.place_of("listen"))
    } else {
        None
    }
}

/// Names that stand only once, with the place of the first.
#[derive(Default)]
pub(super) struct Once(HashMap<String, Place>);

impl Once {
    /// Reports a second one.
    pub fn take(&mut self, key: String, at: Place, what: impl FnOnce() -> String, report: &mut Report<'_>) {
        match self.0.get(&key) {
            Some(first) => {
                let first = report.name_of(*first);
                report.problem(at, what()).hint(format!("the first is at {first}"));
            }
            None => drop(self.0.insert(key, at)),
        }
    }
}

fn read_base_stations(root: &View<'_>, report: &mut Report<'_>) -> Vec<BaseStation> {
    let (mut names, mut addresses) = (Once::default(), Once::default());
    let mut all = Vec::new();
    for view in root.tables("base_station") {
        let name = view.required_text("name", "hill", report);
        let address = view.required_text("address", "192.0.2.11:5062", report);
        let location_area = view.text("location_area").and_then(|spot| value(spot, named, report));
        let texts = view.text("texts").and_then(|spot| value(spot, text_form, report));
        let name = name.and_then(|spot| Some(Spot::new(value(spot, named, report)?, spot.at)));
        let address =
            address.and_then(|spot| Some(Spot::new(value(spot, |text| units::peer(text, 5062), report)?, spot.at)));
        if let Some(Spot { value: name, at }) = &name {
            names.take(name.clone(), *at, || format!("there is a base station `{name}` already"), report);
        }
        if let Some(Spot { value: address, at }) = &address {
            // By address alone: that is how a base station is known.
            let ip = address.ip();
            addresses.take(ip.to_string(), *at, || format!("there is a base station at {ip} already"), report);
        }
        if let (Some(name), Some(address)) = (name, address) {
            all.push(BaseStation { name: name.value, address: address.value, location_area, texts });
        }
    }
    all
}

fn text_form(text: &str) -> Result<TextForm, Flaw> {
    let names = TextForm::ALL.map(TextForm::name);
    TextForm::ALL.into_iter().find(|form| form.name() == text).ok_or_else(|| Flaw {
        what: format!("`texts` cannot be {}", sims::shown(text)),
        hint: match keys::nearest(text, names) {
            Some(near) => format!("did you mean \"{near}\"?"),
            None => {
                format!("write one of {}, or leave it out: it is learned from the phones' REGISTERs", names.join(", "))
            }
        },
    })
}

/// A name for people that is not empty.
pub(super) fn named(text: &str) -> Result<String, Flaw> {
    match units::title(text)? {
        name if name.is_empty() => {
            Err(Flaw { what: "this name is empty".into(), hint: "write one, as in \"hill\"".into() })
        }
        name => Ok(name),
    }
}

/// A box that works and admits nobody looks broken; say it.
fn note_who_may_speak(root: &View<'_>, front: &Front, base_stations: &[BaseStation], report: &mut Report<'_>) {
    let listens = !front.listen.is_empty();
    if listens && front.base_stations.is_empty() && base_stations.is_empty() && !root.has("base_station") {
        let at = root.table("front").map_or(root.at, |front| front.place_of("base_stations"));
        report
            .note(at, "no base station is listed, so nobody may speak for phones yet")
            .hint("write base_stations = [\"192.0.2.0/28\"] in [front], or a [[base_station]]");
    }
}

fn read_zone(root: &View<'_>, domain: &str, bound: &mut Bound, report: &mut Report<'_>) -> ZoneSettings {
    let section = root.table("zone");
    let section = section.as_ref();
    let apex = section.and_then(|section| section.text("apex"));
    let ttl_s = section.and_then(|section| section.count("ttl_s"));
    ZoneSettings {
        apex: apex.and_then(|spot| value(spot, units::host_name, report)).unwrap_or_else(|| domain.to_owned()),
        listen: listeners_or(section, "[zone]", &[(Transport::Udp, 53), (Transport::Tcp, 53)], bound, report),
        allow: networks(section, "allow", report),
        ttl_s: ttl_s.map_or(60, |ttl_s| ttl_s.value as u32),
    }
}

fn read_registrar(root: &View<'_>, report: &mut Report<'_>) -> Registrar {
    const YEAR: Duration = Duration::from_secs(365 * 86_400);
    let mut registrar = Registrar::default();
    let Some(section) = root.table("registrar") else { return registrar };
    let seconds = |name: &str, into: &mut u32| {
        if let Some(count) = section.count(name) {
            *into = count.value as u32;
        }
    };
    seconds("expires_s_min", &mut registrar.expires_s_min);
    seconds("expires_s_max", &mut registrar.expires_s_max);
    seconds("expires_s_default", &mut registrar.expires_s_default);
    let count = |name: &str, into: &mut usize| {
        if let Some(count) = section.count(name) {
            *into = count.value as usize;
        }
    };
    count("challenge_count_max", &mut registrar.challenge_count_max);
    count("hint_count_max", &mut registrar.hint_count_max);
    count("contacts_per_aor_max", &mut registrar.contacts_per_aor_max);
    count("transaction_count_max", &mut registrar.transaction_count_max);
    let minute = Duration::from_secs(60);
    let ms = Duration::from_millis(1);
    read_duration(&section, "stale_life", minute..=YEAR * 10, &mut registrar.stale_life, report);
    read_duration(&section, "replica_absence_max", minute..=YEAR, &mut registrar.replica_absence_max, report);
    read_duration(&section, "write_deadline", 10 * ms..=minute, &mut registrar.write_deadline, report);
    read_duration(&section, "read_deadline", 10 * ms..=minute, &mut registrar.read_deadline, report);
    if let Some(flag) = section.flag("clock_trusted") {
        registrar.clock_trusted = flag.value;
    }
    registrar.unknown_cause_by_plmn = read_causes(&section, report);

    if !section.has("expires_s_default") && registrar.expires_s_min <= registrar.expires_s_max {
        // Who only narrows what is granted need not know of the default.
        registrar.expires_s_default =
            registrar.expires_s_default.clamp(registrar.expires_s_min, registrar.expires_s_max);
    }
    if registrar.expires_s_min > registrar.expires_s_max {
        let what = format!(
            "`expires_s_min` ({}) is above `expires_s_max` ({})",
            registrar.expires_s_min, registrar.expires_s_max
        );
        report
            .problem(section.place_of("expires_s_min"), what)
            .hint("the default of expires_s_min is 60, of expires_s_max 86400");
    } else if !(registrar.expires_s_min..=registrar.expires_s_max).contains(&registrar.expires_s_default) {
        let what = format!("`expires_s_default` ({}) is outside of what is granted", registrar.expires_s_default);
        let hint = format!("write {} to {}", registrar.expires_s_min, registrar.expires_s_max);
        report.problem(section.place_of("expires_s_default"), what).hint(hint);
    }
    if registrar.write_deadline >= Duration::from_secs(5) {
        report
            .note(
                section.place_of("write_deadline"),
                "an old base station stops listening after 5 s, before `write_deadline`",
            )
            .hint("2.5 s is the default");
    }
    registrar
}

pub(super) fn read_duration(
    section: &View<'_>,
    name: &str,
    allowed: std::ops::RangeInclusive<Duration>,
    into: &mut Duration,
    report: &mut Report<'_>,
) {
    let Some(spot) = section.text(name) else { return };
    let Some(duration) = value(spot, units::duration, report) else { return };
    if !allowed.contains(&duration) {
        report.problem(spot.at, format!("`{name}` cannot be {:?}", spot.value)).hint(format!(
            "write something from {} to {}",
            units::shown(*allowed.start()),
            units::shown(*allowed.end())
        ));
        return;
    }
    *into = duration;
}

/// Longest network first, so that the first match is the nearest.
fn read_causes(section: &View<'_>, report: &mut Report<'_>) -> Vec<(String, u8)> {
    let mut all = Vec::new();
    for (network, entry) in section.entries("unknown_cause") {
        let digits = network.value;
        if !matches!(digits.len(), 3 | 5 | 6) || !digits.bytes().all(|byte| byte.is_ascii_digit()) {
            report
                .problem(network.at, format!("{digits:?} is no network"))
                .hint("write its MCC and MNC as 26201 or 310410, or an MCC alone");
            continue;
        }
        let (cause, may_lock) = match entry {
            Entry::Count(cause) => (Some(cause), false),
            Entry::Table(view) => {
                view.require("cause", "{ cause = 11 }", report);
                (view.count("cause"), view.flag("lock_sim").is_some_and(|flag| flag.value))
            }
        };
        let Some(cause) = cause else { continue };
        // TS 24.008 §4.4.4.7: with #2, #3 and #6 the phone "shall consider the SIM as invalid until switch-off or the SIM
        // is removed".
        if matches!(cause.value, 2 | 3 | 6) && !may_lock {
            report
                .problem(
                    cause.at,
                    format!("cause {} locks the SIM of a stranger until he restarts his phone", cause.value),
                )
                .hint(format!("write 11 or 13, or {{ cause = {}, lock_sim = true }} if that is meant", cause.value));
            continue;
        }
        if let Ok(cause) = u8::try_from(cause.value) {
            all.push((digits.to_owned(), cause));
        }
    }
    all.sort_by(|(a, _), (b, _)| b.len().cmp(&a.len()).then_with(|| a.cmp(b)));
    all
}

fn read_disk_reserve(root: &View<'_>, report: &mut Report<'_>) -> u64 {
    const DEFAULT: u64 = 64_000_000;
    if let Some(count) = root.count("disk_reserve") {
        return count.value;
    }
    let spot = root.text("disk_reserve");
    spot.and_then(|spot| value(spot, units::size, report)).unwrap_or(DEFAULT)
}

fn read_rehearsal(root: &View<'_>, roll: &sims::Roll, report: &mut Report<'_>) -> Option<Rehearsal> {
    let section = root.table("rehearsal")?;
    let prefix = section.required_text("imsi_prefix", "00101999", report)?;
    let digits = prefix.value;
    let count = section.count("count").map_or(100, |count| count.value as u32);
    if !(5..=14).contains(&digits.len()) || !digits.bytes().all(|byte| byte.is_ascii_digit()) {
        report
            .problem(prefix.at, format!("{digits:?} is no beginning of an IMSI"))
            .hint("write 5 to 14 digits: \"00101999\"");
        return None;
    }
    let room = 10u64.pow(15 - digits.len() as u32);
    if u64::from(count) > room {
        report
            .problem(section.place_of("count"), format!("{count} IMSIs do not fit behind {digits:?}: there are {room}"))
            .hint("write a shorter `imsi_prefix` or a smaller `count`");
    }
    if let Some(at) = roll.first_with_prefix(digits) {
        report
            .note(at, format!("this IMSI begins with the `imsi_prefix` {digits} of [rehearsal]"))
            .hint("a simulated SIM may take its place");
    }
    Some(Rehearsal { imsi_prefix: digits.to_owned(), count })
}
