//! The map of suffixes to shards and their replicas: is every IMSI somebody's, and only one's?
//!
//! Knows: digits, names and quorums. Does not know: whether a disk or a peer is there.
//! Read first: DESIGN section 6, Zone; section 9, Suffixes.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::path::{Path, PathBuf};

use super::read::{Bound, listeners, value};
use super::text::{Place, Report, Spot};
use super::typed::View;
use super::{Place as Whereabouts, REPLICAS_PER_SHARD_MAX, Replica, Shard, units};
use crate::ident::Suffix;

/// A range is written out; a longer one is almost surely a slip, and shards are not that many.
const SUFFIXES_PER_RANGE_MAX: u64 = 10_000;
/// `StoreId::Replica` counts in sixteen bits.
const REPLICA_COUNT_MAX: usize = 65_535;
/// So many ranges without an owner are named; the rest is counted.
const UNOWNED_SHOWN_MAX: usize = 12;

/// What the other parts of the file say that bears on the map.
pub(super) struct Around {
    pub data_dir: PathBuf,
    /// `Some`: a front end is elsewhere, and this says where the file tells so.
    pub front_elsewhere: Option<Place>,
    pub has_cluster_key: bool,
}

struct ReplicaTable {
    at: Place,
    place: Whereabouts,
    listens: bool,
    address_at: Option<Place>,
}

/// Reads `[[shard]]` and `[[replica]]`.
///
/// Shape: replicas come in the order in which the shards name them; without any `[[shard]]` there is one, `all`, with
/// the suffixes 0 to 9 and the replica `a`.
pub(super) fn read(
    root: &View<'_>,
    around: &Around,
    bound: &mut Bound,
    report: &mut Report<'_>,
) -> (Vec<Shard>, Vec<Replica>) {
    let tables = read_replica_tables(root, around, bound, report);
    let mut map = Map { around, tables, shards: Vec::new(), replicas: Vec::new(), named_at: HashMap::new() };
    let views = root.tables("shard");
    if !views.is_empty() {
        map.read_shards(&views, report);
    } else if root.has("shard") && !root.is_empty_list("shard") {
        // Of the wrong shape, which has been reported; nothing can be said of a map that is not there.
        return (Vec::new(), Vec::new());
    } else {
        map.shards.push(Shard {
            name: "all".into(),
            suffixes: ('0'..='9').filter_map(|digit| Suffix::parse(digit.encode_utf8(&mut [0; 4])).ok()).collect(),
            replicas: Vec::new(),
            write_quorum: 1,
        });
        map.take_replica(0, Spot::new("a", around.front_elsewhere.unwrap_or(root.at)), report);
    }
    map.check_replicas(report);
    (map.shards, map.replicas)
}

fn read_replica_tables(
    root: &View<'_>,
    around: &Around,
    bound: &mut Bound,
    report: &mut Report<'_>,
) -> BTreeMap<String, ReplicaTable> {
    let mut tables: BTreeMap<String, ReplicaTable> = BTreeMap::new();
    for view in root.tables("replica") {
        let address = view.text("address");
        let listen = listeners(&view, "listen", bound, report);
        let listens = listen.as_ref().is_some_and(|listen| !listen.is_empty());
        if address.is_some() {
            for key in ["path", "listen"].into_iter().filter(|key| view.has(key)) {
                report
                    .problem(
                        view.place_of(key),
                        format!("a replica with an `address` is elsewhere and has no `{key}` here"),
                    )
                    .hint("write `address` for a replica elsewhere, `path` and `listen` for one of this process");
            }
        }
        let Some(spot) = view.required_text("name", "a", report) else { continue };
        let Some(name) = value(spot, units::label, report) else { continue };
        let place = match address {
            Some(address) => match value(address, |text| units::peer(text, 5070), report) {
                Some(address) => Whereabouts::Remote { address },
                None => continue,
            },
            None => {
                let path = view.text("path").map(|path| path.value).filter(|path| !path.is_empty());
                if view.has("path") && path.is_none() {
                    report.problem(view.place_of("path"), "`path` is empty").hint("leave it out for the default");
                }
                let path = path.map_or_else(|| default_path(&around.data_dir, &name), PathBuf::from);
                Whereabouts::Local { path, listen: listen.unwrap_or_default() }
            }
        };
        if let Some(first) = tables.get(&name) {
            let first = report.name_of(first.at);
            report
                .problem(spot.at, format!("there is a replica `{name}` already"))
                .hint(format!("the first is at {first}"));
            continue;
        }
        let address_at = address.map(|address| address.at);
        tables.insert(name, ReplicaTable { at: spot.at, place, listens, address_at });
    }
    check_places(&tables, report);
    tables
}

/// Two replicas on one directory or behind one address would be one.
fn check_places(tables: &BTreeMap<String, ReplicaTable>, report: &mut Report<'_>) {
    let mut in_order: Vec<&ReplicaTable> = tables.values().collect();
    in_order.sort_by_key(|table| table.at);
    let mut seen: HashMap<String, Place> = HashMap::new();
    for table in in_order {
        let (key, what) = match &table.place {
            Whereabouts::Local { path, .. } => {
                (format!("path {}", path.display()), format!("another replica has the path {} already", path.display()))
            }
            Whereabouts::Remote { address } => {
                (format!("address {address}"), format!("another replica has the address {address} already"))
            }
        };
        if let Some(first) = seen.get(&key) {
            let first = report.name_of(*first);
            report.problem(table.address_at.unwrap_or(table.at), what).hint(format!("the first is at {first}"));
        }
        seen.entry(key).or_insert(table.at);
    }
}

fn default_path(data_dir: &Path, name: &str) -> PathBuf {
    data_dir.join("replica").join(name)
}

struct Map<'a> {
    around: &'a Around,
    tables: BTreeMap<String, ReplicaTable>,
    shards: Vec<Shard>,
    replicas: Vec<Replica>,
    /// Where a shard names each replica.
    named_at: HashMap<String, Place>,
}

impl Map<'_> {
    fn read_shards(&mut self, views: &[View<'_>], report: &mut Report<'_>) {
        let mut names: HashMap<String, Place> = HashMap::new();
        let mut owners: HashMap<Suffix, Place> = HashMap::new();
        let mut is_complete = true;
        for view in views {
            let shard = self.shards.len();
            let name = view.required_text("name", "low", report);
            let name = name.and_then(|spot| Some(Spot::new(value(spot, units::label, report)?, spot.at)));
            if let Some(name) = &name {
                if let Some(first) = names.get(&name.value) {
                    let first = report.name_of(*first);
                    report
                        .problem(name.at, format!("there is a shard `{}` already", name.value))
                        .hint(format!("the first is at {first}"));
                }
                names.entry(name.value.clone()).or_insert(name.at);
            }
            view.require("suffixes", "suffixes = [\"00-49\"]", report);
            view.require("replicas", "replicas = [\"a\"]", report);
            let mut suffixes = Vec::new();
            for spot in view.texts("suffixes").unwrap_or_default() {
                match written_out(spot.value) {
                    Ok(found) => own(found, spot.at, &mut owners, &mut suffixes, report),
                    Err(flaw) => {
                        is_complete = false;
                        report.problem(spot.at, flaw.what).hint(flaw.hint);
                    }
                }
            }
            is_complete &= view.texts("suffixes").is_some();
            self.shards.push(Shard {
                name: name.map(|name| name.value).unwrap_or_default(),
                suffixes,
                replicas: Vec::new(),
                write_quorum: 1,
            });
            for spot in view.texts("replicas").unwrap_or_default() {
                if let Some(name) = value(spot, units::label, report) {
                    self.take_replica(shard, Spot::new(&name, spot.at), report);
                }
            }
            self.settle_quorum(shard, view, report);
        }
        // A suffix that could not be read would be called unowned as well.
        if is_complete {
            let unowned = unowned(owners.keys().copied());
            if !unowned.is_empty() {
                let first = views.first().map_or(Place { file: 0, offset: 0 }, |view| view.place_of("suffixes"));
                report
                    .problem(first, format!("no shard owns the suffixes {}", compact(&unowned)))
                    .hint("each IMSI must end in the suffix of some shard");
            }
        }
    }

    fn settle_quorum(&mut self, shard: usize, view: &View<'_>, report: &mut Report<'_>) {
        let count = self.shards[shard].replicas.len();
        if count == 0 && view.texts("replicas").is_some_and(|names| names.is_empty()) {
            report
                .problem(view.place_of("replicas"), "a shard without replicas keeps nothing")
                .hint("name at least one");
        }
        if count > REPLICAS_PER_SHARD_MAX {
            report
                .problem(view.place_of("replicas"), format!("a shard of {count} replicas"))
                .hint(format!("{REPLICAS_PER_SHARD_MAX} are the most; split the shard by longer suffixes instead"));
        }
        self.shards[shard].write_quorum = if count <= 2 { 1 } else { count / 2 + 1 };
        if let Some(quorum) = view.count("write_quorum") {
            if quorum.value > count as u64 && count > 0 {
                report
                    .problem(
                        quorum.at,
                        format!("`write_quorum` is {}, but the shard has {}", quorum.value, replicas(count)),
                    )
                    .hint(format!("write 1 to {count}"));
            } else {
                self.shards[shard].write_quorum = quorum.value as usize;
            }
        }
    }

    /// Makes a named replica one of this shard's.
    fn take_replica(&mut self, shard: usize, name: Spot<&str>, report: &mut Report<'_>) {
        if let Some(first) = self.named_at.get(name.value) {
            let first = report.name_of(*first);
            let same = self.replicas.iter().any(|replica| replica.shard == shard && replica.name == name.value);
            let what = match same {
                true => format!("the shard names the replica `{}` twice", name.value),
                false => format!("the replica `{}` belongs to another shard already", name.value),
            };
            report.problem(name.at, what).hint(format!("the first is at {first}"));
            return;
        }
        if self.replicas.len() == REPLICA_COUNT_MAX {
            report.problem(name.at, format!("this is more than {REPLICA_COUNT_MAX} replicas")).hint("use fewer");
        }
        self.named_at.insert(name.value.to_owned(), name.at);
        let place = match self.tables.get(name.value) {
            Some(table) => table.place.clone(),
            None => Whereabouts::Local { path: default_path(&self.around.data_dir, name.value), listen: Vec::new() },
        };
        self.shards[shard].replicas.push(self.replicas.len());
        self.replicas.push(Replica { name: name.value.to_owned(), shard, place });
    }

    fn check_replicas(&self, report: &mut Report<'_>) {
        for (name, table) in self.tables.iter().filter(|(name, _)| !self.named_at.contains_key(*name)) {
            report
                .problem(table.at, format!("no shard has the replica `{name}`"))
                .hint("name it in the `replicas` of a [[shard]], or remove the table");
        }
        let first_address = self.tables.values().filter_map(|table| table.address_at).min();
        if let Some(at) = first_address
            && !self.around.has_cluster_key
        {
            report.problem(at, "a replica elsewhere needs a `cluster_key`: nodes sign what they tell each other").hint(
                "write cluster_key = \"file:/etc/encamp/cluster.key\" at the top, with 64 hex digits in that file",
            );
        }
        for (index, shard) in self.shards.iter().enumerate() {
            let own = || self.replicas.iter().filter(move |replica| replica.shard == index);
            let elsewhere = own().find(|replica| !replica.is_local());
            let why = match (elsewhere, self.around.front_elsewhere) {
                (Some(remote), _) => format!("the replica `{}` of its shard is elsewhere", remote.name),
                (None, Some(at)) => format!("a front end is elsewhere ({})", report.name_of(at)),
                (None, None) => continue,
            };
            for replica in own().filter(|replica| replica.is_local()) {
                let table = self.tables.get(&replica.name);
                if table.is_some_and(|table| table.listens) {
                    continue;
                }
                let at = table.map(|table| table.at).or_else(|| self.named_at.get(&replica.name).copied());
                let Some(at) = at else { continue };
                report
                    .problem(
                        at,
                        format!("the replica `{}` of the shard `{}` must listen: {why}", replica.name, shard.name),
                    )
                    .hint(format!(
                        "write [[replica]] name = \"{}\" with listen = [\"udp:0.0.0.0:5070\"]",
                        replica.name
                    ));
            }
        }
    }
}

fn replicas(count: usize) -> String {
    if count == 1 { "1 replica".into() } else { format!("{count} replicas") }
}

fn own(
    found: Vec<Suffix>,
    at: Place,
    owners: &mut HashMap<Suffix, Place>,
    suffixes: &mut Vec<Suffix>,
    report: &mut Report<'_>,
) {
    // One range over another is one mistake, however many digits they share.
    let taken: Vec<Suffix> = found.iter().copied().filter(|suffix| owners.contains_key(suffix)).collect();
    if let Some(first) = taken.first().and_then(|suffix| owners.get(suffix)) {
        let first = report.name_of(*first);
        let what = match taken.len() {
            1 => format!("the suffix {} has an owner already", compact(&taken)),
            _ => format!("the suffixes {} have an owner already", compact(&taken)),
        };
        report.problem(at, what).hint(format!("the first is at {first}"));
    }
    for suffix in found {
        if owners.insert(suffix, *owners.get(&suffix).unwrap_or(&at)).is_none() {
            suffixes.push(suffix);
        }
    }
}

/// `56`, or `00-49` with every suffix from the first to the last.
fn written_out(text: &str) -> Result<Vec<Suffix>, units::Flaw> {
    const HINT: &str = "write digits as in \"56\", or a range with the same number of digits on both sides: \"00-49\"";
    let flaw = |what: String| units::Flaw { what, hint: HINT.into() };
    let Some((from, to)) = text.split_once('-') else {
        return match Suffix::parse(text) {
            Ok(suffix) => Ok(vec![suffix]),
            Err(error) => Err(flaw(format!("{text:?} is no suffix: {error}"))),
        };
    };
    let width = from.len();
    for side in [from, to] {
        if let Err(error) = Suffix::parse(side) {
            return Err(flaw(format!("{text:?} is no range: {error}")));
        }
    }
    if to.len() != width {
        return Err(flaw(format!("{text:?} has {width} and {} digits", to.len())));
    }
    let (Ok(first), Ok(last)) = (from.parse::<u64>(), to.parse::<u64>()) else {
        return Err(flaw(format!("{text:?} is no range")));
    };
    if first > last {
        return Err(flaw(format!("{text:?} runs backwards")));
    }
    if last - first >= SUFFIXES_PER_RANGE_MAX {
        return Err(flaw(format!(
            "{text:?} is more than {SUFFIXES_PER_RANGE_MAX} suffixes; shorter ones say the same"
        )));
    }
    (first..=last)
        .map(|suffix| Suffix::parse(&format!("{suffix:0width$}")).map_err(|error| flaw(error.to_string())))
        .collect()
}

/// The shortest suffixes that nobody owns.
///
/// A suffix is covered if it is owned, or if all ten that are one digit longer are covered.
fn unowned(owned: impl Iterator<Item = Suffix>) -> Vec<Suffix> {
    let owned: HashSet<String> = owned.map(|suffix| suffix.as_str().to_owned()).collect();
    let mut ancestors: HashSet<&str> = HashSet::new();
    for suffix in &owned {
        for start in 1..suffix.len() {
            ancestors.insert(&suffix[start..]);
        }
    }
    let mut missing = Vec::new();
    let mut open: Vec<String> = (0..10).map(|digit| digit.to_string()).collect();
    while let Some(suffix) = open.pop() {
        if owned.contains(&suffix) {
            continue;
        }
        if ancestors.contains(suffix.as_str()) {
            open.extend((0..10).map(|digit| format!("{digit}{suffix}")));
        } else if let Ok(suffix) = Suffix::parse(&suffix) {
            missing.push(suffix);
        }
    }
    missing
}

/// `50-74, 99`
pub(super) fn compact(suffixes: &[Suffix]) -> String {
    let mut sorted: Vec<(usize, u64)> =
        suffixes.iter().map(|suffix| (suffix.as_str().len(), suffix.as_str().parse().unwrap_or(0))).collect();
    sorted.sort_unstable();
    let mut ranges: Vec<(usize, u64, u64)> = Vec::new();
    for (width, number) in sorted {
        match ranges.last_mut() {
            Some((last_width, _, last)) if *last_width == width && *last + 1 == number => *last = number,
            _ => ranges.push((width, number, number)),
        }
    }
    let more = ranges.len().saturating_sub(UNOWNED_SHOWN_MAX);
    let mut shown: Vec<String> = ranges
        .iter()
        .take(UNOWNED_SHOWN_MAX)
        .map(|(width, first, last)| match first == last {
            true => format!("{first:0width$}"),
            false => format!("{first:0width$}-{last:0width$}"),
        })
        .collect();
    if more > 0 {
        shown.push(format!("and {more} more"));
    }
    shown.join(", ")
}
