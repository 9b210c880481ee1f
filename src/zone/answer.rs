//! What the zone says to a question, and the whole zone as a list of records.
//!
//! Knows: the names of DESIGN section 6 and what DNS makes of them. Does not know: packets (that is `shell/dns`), how a map
//! comes about, whether a replica is well (it is told, in [`Health`]).
//! Reads: one [`Zone`], which never changes. Writes: nothing.
//! Limits: no name below `imsi`, `e164` or `num` is stored with its records; those are computed from the map and the sorted
//! numbers, so 100 000 numbers cost 17 bytes each. Everything else is a few names a replica and stands in a table.
//! Read first: RFC 1034 §4.3.2, RFC 4592 §2 and §3.3, RFC 2308 §3.
//!
//! The rule that everything here serves: [`Zone::answer`] says exactly what a secondary would say that had loaded
//! [`Zone::dump`]. `tests/zone_answer.rs` compares it with a literal reading of the RFCs, `tests/zone_nsd.rs` with nsd.

use std::collections::{HashMap, HashSet};
use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::sync::Arc;

use serde::ser::{Serialize, SerializeStruct, Serializer};

use super::{Health, Map, Zone};
use crate::config::mailing::MailProtocol;
use crate::config::{Listener, Place, Settings, Shard, Subscribers, Transport};
use crate::ident::{Msisdn, Suffix};

/// The type of a record, by its number in the registry.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Debug)]
pub struct RType(pub u16);

impl RType {
    pub const A: RType = RType(1);
    pub const NS: RType = RType(2);
    pub const SOA: RType = RType(6);
    pub const MX: RType = RType(15);
    pub const TXT: RType = RType(16);
    pub const AAAA: RType = RType(28);
    pub const SRV: RType = RType(33);
    pub const NAPTR: RType = RType(35);
    pub const IXFR: RType = RType(251);
    pub const AXFR: RType = RType(252);
    pub const ANY: RType = RType(255);
}

impl fmt::Display for RType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match *self {
            RType::A => "A",
            RType::NS => "NS",
            RType::SOA => "SOA",
            RType::MX => "MX",
            RType::TXT => "TXT",
            RType::AAAA => "AAAA",
            RType::SRV => "SRV",
            RType::NAPTR => "NAPTR",
            RType::IXFR => "IXFR",
            RType::AXFR => "AXFR",
            RType::ANY => "ANY",
            // "TYPE followed immediately by its decimal number" (RFC 3597 §5)
            RType(other) => return write!(f, "TYPE{other}"),
        })
    }
}

/// The class of a question, by its number; we know one.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Class(pub u16);

impl Class {
    pub const IN: Class = Class(1);
}

/// One question.
#[derive(Clone, Copy, Debug)]
pub struct Question<'a> {
    /// Lower case, labels joined by dots, no dot at the end. A dot stands between labels only: whoever makes this text from
    /// a packet writes every octet that is no letter, digit, `-`, `_` or `*` as `\DDD`, a dot inside a label as `\046`.
    pub name: &'a str,
    pub rtype: RType,
    pub class: Class,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Rcode {
    NoError,
    NxDomain,
    Refused,
}

/// What is said to one question; each section in the order of [`Zone::dump`].
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Reply {
    pub rcode: Rcode,
    /// The AA bit: everything but a refusal.
    pub authoritative: bool,
    pub answers: Vec<Rr>,
    /// The SOA where there is no answer; else empty.
    pub authority: Vec<Rr>,
    /// Addresses of the targets in `answers`.
    pub additional: Vec<Rr>,
}

/// A name as in [`Question`]; the root is the empty text. Shared, because the same few stand in most answers.
pub type Name = Arc<str>;

/// One record.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub struct Rr {
    pub name: Name,
    pub ttl: u32,
    pub data: Data,
}

#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub enum Data {
    A(Ipv4Addr),
    Aaaa(Ipv6Addr),
    Ns(Name),
    Soa {
        mname: Name,
        rname: Name,
        serial: u32,
        refresh_s: u32,
        retry_s: u32,
        expire_s: u32,
        minimum_s: u32,
    },
    Naptr {
        order: u16,
        preference: u16,
        flags: &'static str,
        service: &'static str,
        regexp: Arc<str>,
        replacement: Name,
    },
    Srv {
        priority: u16,
        weight: u16,
        port: u16,
        target: Name,
    },
    Txt(Vec<String>),
    Mx {
        preference: u16,
        exchange: Name,
    },
}

impl Data {
    pub fn rtype(&self) -> RType {
        match self {
            Data::A(_) => RType::A,
            Data::Aaaa(_) => RType::AAAA,
            Data::Ns(_) => RType::NS,
            Data::Soa { .. } => RType::SOA,
            Data::Naptr { .. } => RType::NAPTR,
            Data::Srv { .. } => RType::SRV,
            Data::Txt(_) => RType::TXT,
            Data::Mx { .. } => RType::MX,
        }
    }

    /// The name whose addresses the asker will want next.
    fn target(&self) -> Option<&Name> {
        match self {
            Data::Ns(target) | Data::Srv { target, .. } | Data::Mx { exchange: target, .. } => Some(target),
            Data::A(_) | Data::Aaaa(_) | Data::Soa { .. } | Data::Naptr { .. } | Data::Txt(_) => None,
        }
    }
}

/// As in a master file (RFC 1035 §5.1), names with the dot at their end.
impl fmt::Display for Data {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Data::A(address) => write!(f, "{address}"),
            Data::Aaaa(address) => write!(f, "{address}"),
            Data::Ns(target) => write!(f, "{target}."),
            Data::Soa { mname, rname, serial, refresh_s, retry_s, expire_s, minimum_s } => {
                write!(f, "{mname}. {rname}. {serial} {refresh_s} {retry_s} {expire_s} {minimum_s}")
            }
            Data::Naptr { order, preference, flags, service, regexp, replacement } => write!(
                f,
                "{order} {preference} {} {} {} {replacement}.",
                Quoted(flags),
                Quoted(service),
                Quoted(regexp)
            ),
            Data::Srv { priority, weight, port, target } => write!(f, "{priority} {weight} {port} {target}."),
            Data::Txt(texts) => {
                for (index, text) in texts.iter().enumerate() {
                    write!(f, "{}{}", if index == 0 { "" } else { " " }, Quoted(text))?;
                }
                Ok(())
            }
            Data::Mx { preference, exchange } => write!(f, "{preference} {exchange}."),
        }
    }
}

struct Quoted<'a>(&'a str);

impl fmt::Display for Quoted<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("\"")?;
        for byte in self.0.bytes() {
            match byte {
                b'"' | b'\\' => write!(f, "\\{}", char::from(byte))?,
                b' '..=b'~' => write!(f, "{}", char::from(byte))?,
                other => write!(f, "\\{other:03}")?,
            }
        }
        f.write_str("\"")
    }
}

/// One line of a master file.
impl fmt::Display for Rr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}. {} IN {} {}", self.name, self.ttl, self.data.rtype(), self.data)
    }
}

/// `{name, ttl, type, data}`, names with the dot at their end, as `dig` prints them.
impl Serialize for Rr {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut rr = serializer.serialize_struct("Rr", 4)?;
        rr.serialize_field("name", &format_args!("{}.", self.name))?;
        rr.serialize_field("ttl", &self.ttl)?;
        rr.serialize_field("type", &format_args!("{}", self.data.rtype()))?;
        rr.serialize_field("data", &format_args!("{}", self.data))?;
        rr.end()
    }
}

impl Zone {
    /// Builds the tables that answers are looked up in: one sort of all numbers.
    pub fn new(
        settings: Arc<Settings>,
        subscribers: Arc<Subscribers>,
        map: Arc<Map>,
        health: Vec<Health>,
        serial: u32,
        epoch: u64,
    ) -> Zone {
        let names = Names::new(&settings);
        let index = Index {
            fixed: fixed_names(&settings, &names, &map, &health, serial, epoch),
            shard_naptr: settings.shards.iter().map(|shard| shard_naptr(&settings, &names, shard)).collect(),
            suffixes: Arc::new(SuffixNames::new(&map)),
            numbers: Arc::new(NumberNames::new(&subscribers)),
            names,
        };
        Zone { settings, subscribers, map, health, serial, epoch, index }
    }

    /// The same zone after replicas fell ill or recovered; does not touch the numbers.
    pub fn turn(&self, health: Vec<Health>, serial: u32) -> Zone {
        let mut next = self.clone();
        next.index.fixed = fixed_names(&self.settings, &self.index.names, &self.map, &health, serial, self.epoch);
        next.health = health;
        next.serial = serial;
        next
    }

    /// Answers whoever asks from `source`; names at or below `imsi`, `e164` and `num` only where `zone.allow` has him.
    ///
    /// Tests: tests/zone_answer.rs `allow_*`.
    pub fn answer_to(&self, source: IpAddr, question: &Question<'_>) -> Reply {
        let allow = &self.settings.zone.allow;
        let may_ask = allow.is_empty() || allow.iter().any(|network| network.contains(source));
        match self.branch(question.name) {
            Some(Branch::Imsi(_) | Branch::Number(..)) if !may_ask => Reply::refused(),
            branch => self.answer_in(branch, question),
        }
    }

    /// Answers, whoever asks.
    ///
    /// Source: RFC 1034 §4.3.2 step 3, RFC 4592 §3.3.1, RFC 2308 §2 and §3.
    /// Tests:  tests/zone_answer.rs, tests/zone_nsd.rs.
    pub fn answer(&self, question: &Question<'_>) -> Reply {
        self.answer_in(self.branch(question.name), question)
    }

    fn answer_in(&self, branch: Option<Branch<'_>>, question: &Question<'_>) -> Reply {
        // A transfer is for those who have a key (TSIG), and there is none yet.
        if question.class != Class::IN || matches!(question.rtype, RType::AXFR | RType::IXFR) {
            return Reply::refused();
        }
        match branch {
            None => Reply::refused(),
            Some(Branch::Fixed | Branch::Imsi("")) => match self.index.fixed.get(question.name) {
                Some(node) => self.found(question, &node.records, &node.additional),
                None => self.nothing(Rcode::NxDomain),
            },
            Some(Branch::Imsi(labels)) => match self.index.suffixes.find(labels) {
                Standing::Here(shard) | Standing::ByWildcard(shard) => {
                    self.found_at(question, &self.index.shard_naptr[shard])
                }
                Standing::Empty => self.nothing(Rcode::NoError),
                Standing::Nowhere => self.nothing(Rcode::NxDomain),
            },
            Some(Branch::Number(kind, labels)) => match self.index.numbers.find(kind, labels) {
                Standing::Here(number) | Standing::ByWildcard(number) => {
                    self.found_at(question, &[self.number_naptr(number)])
                }
                Standing::Empty => self.nothing(Rcode::NoError),
                Standing::Nowhere => self.nothing(Rcode::NxDomain),
            },
        }
    }

    /// Every record: the apex first, then the fixed names, suffixes and numbers, each sorted.
    pub fn dump(&self) -> Vec<Rr> {
        let mut fixed: Vec<(&Name, &Node)> = self.index.fixed.iter().collect();
        // By labels from the right, so that the apex comes first and what belongs together stands together.
        fixed.sort_by_cached_key(|(name, _)| name.rsplit('.').map(str::to_owned).collect::<Vec<_>>());
        let mut all: Vec<Rr> = fixed.into_iter().flat_map(|(_, node)| node.records.iter().cloned()).collect();

        let mut suffixes: Vec<(&Suffix, &usize)> = self.index.suffixes.published.iter().collect();
        suffixes.sort();
        for (suffix, shard) in suffixes {
            let exact = format!("{}.{}", labels_in_order(suffix.as_str()), self.index.names.imsi);
            for name in [exact.clone(), format!("*.{exact}")] {
                all.extend(self.records_at(&Name::from(name), &self.index.shard_naptr[*shard]));
            }
        }
        for number in &self.index.numbers.sorted {
            let parent = if number.is_international() { &self.index.names.e164 } else { &self.index.names.num };
            let reversed: String = number.digits().chars().rev().collect();
            let name = Name::from(format!("{}.{parent}", labels_in_order(&reversed)));
            all.extend(self.records_at(&name, &[self.number_naptr(number)]));
        }
        all
    }

    /// The zone as a master file that any secondary loads.
    pub fn dump_text(&self) -> String {
        use fmt::Write;
        let mut text = String::new();
        for rr in self.dump() {
            // Writing to a String cannot fail.
            let _ = writeln!(text, "{rr}");
        }
        text
    }

    /// Which part of the zone a name is in; `None` outside the apex.
    fn branch<'q>(&self, name: &'q str) -> Option<Branch<'q>> {
        let Some(relative) = below(name, &self.index.names.apex) else {
            return (name == &*self.index.names.apex).then_some(Branch::Fixed);
        };
        let (labels, last) = relative.rsplit_once('.').unwrap_or(("", relative));
        Some(match last {
            "imsi" => Branch::Imsi(labels),
            "e164" => Branch::Number(NumberKind::International, labels),
            "num" => Branch::Number(NumberKind::Short, labels),
            _ => Branch::Fixed,
        })
    }

    /// Answers from the records of one existing name.
    fn found(&self, question: &Question<'_>, records: &[Rr], additional: &[Rr]) -> Reply {
        let rtype = match (question.rtype, records.first()) {
            // "A DNS responder […] selects one or a subset of available RRsets at the QNAME" (RFC 8482 §4.1)
            (RType::ANY, Some(first)) => first.data.rtype(),
            (asked, _) => asked,
        };
        let answers: Vec<Rr> = records.iter().filter(|rr| rr.data.rtype() == rtype).cloned().collect();
        if answers.is_empty() {
            return self.nothing(Rcode::NoError);
        }
        let additional =
            if matches!(rtype, RType::SRV | RType::NS | RType::MX) { additional.to_vec() } else { Vec::new() };
        Reply { rcode: Rcode::NoError, authoritative: true, answers, authority: Vec::new(), additional }
    }

    /// The same for a name whose records are computed; the owner is the name that was asked, as RFC 4592 §2.2.1 wants it
    /// of a wildcard.
    fn found_at(&self, question: &Question<'_>, data: &[Data]) -> Reply {
        if !matches!(question.rtype, RType::NAPTR | RType::ANY) {
            return self.nothing(Rcode::NoError);
        }
        let answers = self.records_at(&Name::from(question.name), data).collect();
        Reply { rcode: Rcode::NoError, authoritative: true, answers, authority: Vec::new(), additional: Vec::new() }
    }

    fn records_at(&self, name: &Name, data: &[Data]) -> impl Iterator<Item = Rr> {
        data.iter().map(|data| Rr { name: name.clone(), ttl: self.settings.zone.ttl_s, data: data.clone() })
    }

    /// No such type (NODATA) or no such name.
    fn nothing(&self, rcode: Rcode) -> Reply {
        let apex = self.index.fixed.get(&self.index.names.apex).map_or(&[][..], |node| &node.records);
        let soa = apex.iter().find_map(|rr| match rr.data {
            // "The TTL of this record is set from the minimum of the MINIMUM field of the SOA record and the TTL of the SOA
            // itself" (RFC 2308 §3)
            Data::Soa { minimum_s, .. } => Some(Rr { ttl: rr.ttl.min(minimum_s), ..rr.clone() }),
            _ => None,
        });
        let authority = soa.into_iter().collect();
        Reply { rcode, authoritative: true, answers: Vec::new(), authority, additional: Vec::new() }
    }

    /// `10 100 "u" "E2U+sip" "!^.*$!sip:<number>@<domain>!" .`: who dials learns no IMSI.
    fn number_naptr(&self, number: &Msisdn) -> Data {
        Data::Naptr {
            order: 10,
            preference: 100,
            flags: "u",
            service: "E2U+sip",
            regexp: format!("!^.*$!sip:{number}@{}!", self.settings.domain).into(),
            replacement: self.index.names.root.clone(),
        }
    }
}

impl Reply {
    pub fn refused() -> Reply {
        let none = Vec::new;
        Reply { rcode: Rcode::Refused, authoritative: false, answers: none(), authority: none(), additional: none() }
    }
}

/// The part of the zone a name is in, and its labels there, the outermost last.
enum Branch<'q> {
    /// Names that stand in a table.
    Fixed,
    /// At (no labels) or below `imsi`.
    Imsi(&'q str),
    /// At or below `e164` or `num`.
    Number(NumberKind, &'q str),
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum NumberKind {
    International,
    Short,
}

/// What [`Zone`] looks answers up in.
#[derive(Clone, Debug)]
pub(super) struct Index {
    /// Every name outside `e164` and `num` that is not a suffix's, with its records; without any, it is an empty
    /// non-terminal.
    fixed: HashMap<Name, Node>,
    /// By index in `Settings::shards`: what each suffix of the shard has; never empty.
    shard_naptr: Vec<Vec<Data>>,
    suffixes: Arc<SuffixNames>,
    numbers: Arc<NumberNames>,
    names: Names,
}

#[derive(Clone, Debug, Default)]
struct Node {
    records: Vec<Rr>,
    /// The addresses of the targets in `records`.
    additional: Vec<Rr>,
}

/// Names that many records are made of.
#[derive(Clone, Debug)]
struct Names {
    root: Name,
    apex: Name,
    front: Name,
    imsi: Name,
    e164: Name,
    num: Name,
}

impl Names {
    fn new(settings: &Settings) -> Names {
        let apex = settings.zone.apex.to_ascii_lowercase();
        let under = |label: &str| Name::from(format!("{label}.{apex}"));
        Names {
            root: Name::from(""),
            front: under("front"),
            imsi: under("imsi"),
            e164: under("e164"),
            num: under("num"),
            apex: Name::from(apex),
        }
    }

    fn under(&self, labels: &str) -> Name {
        Name::from(format!("{labels}.{}", self.apex))
    }
}

/// The names below `imsi`.
#[derive(Debug)]
struct SuffixNames {
    /// Published exactly and as `*.`: the suffixes of the map and the names between one and its owning ancestor.
    published: HashMap<Suffix, usize>,
    /// Empty non-terminals: names above a published one that are not published themselves.
    empty: HashSet<Suffix>,
}

/// Where a name stands in the zone, in the words of RFC 4592.
enum Standing<T> {
    /// It exists and has records.
    Here(T),
    /// It does not exist, but its closest encloser has a `*`.
    ByWildcard(T),
    /// It exists and has none.
    Empty,
    Nowhere,
}

impl SuffixNames {
    fn new(map: &Map) -> SuffixNames {
        let owned: HashMap<Suffix, usize> = map.suffixes().map(|(suffix, shard)| (*suffix, shard)).collect();
        let mut names = SuffixNames { published: owned.clone(), empty: HashSet::new() };
        for suffix in owned.keys() {
            let text = suffix.as_str();
            // Its tails from the longest to the shortest: 2356 has 356, 56, 6.
            let tails: Vec<Suffix> = (1..text.len()).filter_map(|at| Suffix::parse(&text[at..]).ok()).collect();
            let ancestor = tails.iter().position(|tail| owned.contains_key(tail));
            for (index, tail) in tails.iter().enumerate() {
                match ancestor.map(|at| (at, owned[&tails[at]])) {
                    // An empty non-terminal exists (RFC 4592 §2.2.2), so it would be the closest encloser of its other
                    // children, and the `*` of the ancestor would not reach them. So every name between is published.
                    Some((at, shard)) if index < at => {
                        names.published.insert(*tail, shard);
                    }
                    Some(_) => (),
                    None => {
                        names.empty.insert(*tail);
                    }
                }
            }
        }
        names.empty.retain(|tail| !names.published.contains_key(tail));
        names
    }

    /// Goes down from `imsi`, one label a step, as RFC 1034 §4.3.2 step 3 says.
    fn find(&self, labels: &str) -> Standing<usize> {
        let mut digits = [0; Suffix::DIGITS_MAX];
        let mut start = digits.len();
        // The shard of the name we stand at, if it is published; `imsi` is not.
        let mut here = None;
        let mut steps = labels.rsplit('.');
        while let Some(label) = steps.next() {
            match (label.as_bytes(), here) {
                // The `*` of a published name is itself a name, with the same records, and nothing below it.
                (b"*", Some(shard)) => {
                    return if steps.next().is_none() { Standing::Here(shard) } else { Standing::Nowhere };
                }
                ([digit @ b'0'..=b'9'], _) if start > 0 => {
                    start -= 1;
                    digits[start] = *digit;
                    let suffix = std::str::from_utf8(&digits[start..]).ok().and_then(|text| Suffix::parse(text).ok());
                    match suffix {
                        Some(suffix) if self.published.contains_key(&suffix) => here = Some(self.published[&suffix]),
                        Some(suffix) if self.empty.contains(&suffix) => here = None,
                        _ => return here.map_or(Standing::Nowhere, Standing::ByWildcard),
                    }
                }
                _ => return here.map_or(Standing::Nowhere, Standing::ByWildcard),
            }
        }
        here.map_or(Standing::Empty, Standing::Here)
    }
}

/// The numbers below `e164` and `num`.
#[derive(Debug)]
struct NumberNames {
    /// By kind, then digits, so that the numbers which begin with the same digits stand side by side.
    sorted: Vec<Msisdn>,
}

impl NumberNames {
    fn new(subscribers: &Subscribers) -> NumberNames {
        let mut sorted: Vec<Msisdn> = subscribers.numbers().map(|(number, _)| *number).collect();
        sorted.sort_unstable_by(|a, b| key(a).cmp(&key(b)));
        NumberNames { sorted }
    }

    fn find(&self, kind: NumberKind, labels: &str) -> Standing<&Msisdn> {
        let mut digits = [0; 15];
        let mut len = 0;
        for label in labels.rsplit('.').filter(|_| !labels.is_empty()) {
            match label.as_bytes() {
                [digit @ b'0'..=b'9'] if len < digits.len() => digits[len] = *digit,
                _ => return Standing::Nowhere,
            }
            len += 1;
        }
        let digits = std::str::from_utf8(&digits[..len]).unwrap_or_default();
        let wanted = (kind == NumberKind::International, digits);
        // The wanted number, or else the first of those that begin with it, stands where the smaller ones end.
        let first = self.sorted.get(self.sorted.partition_point(|number| key(number) < wanted));
        match first.filter(|number| number.is_international() == wanted.0) {
            Some(number) if number.digits() == digits => Standing::Here(number),
            Some(number) if number.digits().starts_with(digits) => Standing::Empty,
            _ => Standing::Nowhere,
        }
    }
}

fn key(number: &Msisdn) -> (bool, &str) {
    (number.is_international(), number.digits())
}

/// The table of names that are not computed, with every name above one of them.
fn fixed_names(
    settings: &Settings,
    names: &Names,
    map: &Map,
    health: &[Health],
    serial: u32,
    epoch: u64,
) -> HashMap<Name, Node> {
    let mut table = Table { nodes: HashMap::new(), ttl_s: settings.zone.ttl_s };
    let ns = names.under("ns");
    table.add(
        &names.apex,
        Data::Soa {
            mname: ns.clone(),
            rname: names.under("hostmaster"),
            serial,
            // A secondary looks every TTL whether the map changed, and when we are gone serves the last one for a week.
            refresh_s: settings.zone.ttl_s,
            retry_s: settings.zone.ttl_s.div_ceil(2),
            expire_s: 7 * 86_400,
            minimum_s: settings.zone.ttl_s,
        },
    );
    table.add(&names.apex, Data::Ns(ns.clone()));
    table.addresses(&ns, &settings.zone.listen);
    table.addresses(&names.front, &settings.front.listen);
    mail_names(&mut table, settings, names);

    for naptr in naptr_of(&names.apex, &front_transports(&settings.front.listen)) {
        table.add(&names.apex, naptr);
    }
    for (transport, port) in front_ports(&settings.front.listen) {
        table.add(&service_name(transport, &names.apex), srv(Health::Healthy, port, &names.front));
    }

    table.add(&names.imsi, Data::Txt(vec![format!("digits={} epoch={epoch}", map.digits_max())]));

    for replica in &settings.replicas {
        let name = replica_name(names, &replica.name);
        match &replica.place {
            Place::Local { listen, .. } => table.addresses(&name, listen),
            Place::Remote { address } => table.address(&name, address.ip()),
        }
    }
    for shard in &settings.shards {
        let name = shard_name(names, &shard.name);
        let text = format!("replicas={} quorum={} epoch={epoch}", shard.replicas.len(), shard.write_quorum);
        table.add(&name, Data::Txt(vec![text]));
        let mut listening = false;
        for (index, replica) in shard.replicas.iter().filter_map(|at| Some((*at, settings.replicas.get(*at)?))) {
            let health = health.get(index).copied().unwrap_or(Health::Worse);
            for (transport, port) in replica_ports(&replica.place) {
                listening = true;
                table.add(&service_name(transport, &name), srv(health, port, &replica_name(names, &replica.name)));
            }
        }
        if listening {
            continue;
        }
        for (transport, port) in front_ports(&settings.front.listen) {
            table.add(&service_name(transport, &name), srv(Health::Healthy, port, &names.front));
        }
        if settings.front.listen.is_empty() {
            // "A Target of "." means that the service is decidedly not available at this domain" (RFC 2782). The suffixes
            // keep their names, so that a split is not answered by the `*` of the shard that it was split from.
            table.add(&service_name(Transport::Udp, &name), srv(Health::Healthy, 0, &names.root));
        }
    }
    table.finish(&names.apex)
}

/// The mail domain, where it is ours to tell of: its MX is the box, where that takes mail from strangers.
fn mail_names(table: &mut Table, settings: &Settings, names: &Names) {
    let host = names.under("mail");
    let listen = settings.mail.as_ref().map_or(&[][..], |mail| &mail.listen);
    let open: Vec<IpAddr> = listen
        .iter()
        .filter(|listener| listener.protocol == MailProtocol::Smtp)
        .map(|listener| listener.address.ip())
        .filter(|ip| !ip.is_loopback())
        .collect();
    // "Any address" is that of the front.
    match open.iter().all(IpAddr::is_unspecified) {
        true => table.addresses(&host, &settings.front.listen),
        false => open.iter().for_each(|ip| table.address(&host, *ip)),
    }
    let Some(mail) = settings.mail.as_ref().filter(|_| !open.is_empty()) else { return };
    let below = mail.domain.strip_suffix(&*names.apex).is_some_and(|rest| rest.is_empty() || rest.ends_with('.'));
    if below {
        table.add(&Name::from(&*mail.domain), Data::Mx { preference: 10, exchange: host });
    }
}

struct Table {
    nodes: HashMap<Name, Node>,
    ttl_s: u32,
}

impl Table {
    /// A record that is there already is not added again: two listeners of a replica may differ in what no record tells.
    fn add(&mut self, name: &Name, data: Data) {
        let ttl = self.ttl_s;
        let node = self.nodes.entry(name.clone()).or_default();
        if !node.records.iter().any(|rr| rr.data == data) {
            node.records.push(Rr { name: name.clone(), ttl, data });
        }
    }

    fn addresses(&mut self, name: &Name, listen: &[Listener]) {
        for listener in listen {
            self.address(name, listener.advertised().ip());
        }
    }

    /// "Any address" is no address that anybody could be sent to.
    fn address(&mut self, name: &Name, address: IpAddr) {
        match address.to_canonical() {
            address if address.is_unspecified() => (),
            IpAddr::V4(v4) => self.add(name, Data::A(v4)),
            IpAddr::V6(v6) => self.add(name, Data::Aaaa(v6)),
        }
    }

    /// Adds the empty non-terminals, and to each name the addresses of its targets.
    fn finish(mut self, apex: &str) -> HashMap<Name, Node> {
        let mut above: Vec<Name> = Vec::new();
        for name in self.nodes.keys() {
            let mut name = &**name;
            while let Some((_, parent)) = name.split_once('.').filter(|_| name != apex) {
                above.push(Name::from(parent));
                name = parent;
            }
        }
        for name in above {
            self.nodes.entry(name).or_default();
        }
        let additional: Vec<(Name, Vec<Rr>)> =
            self.nodes.iter().map(|(name, node)| (name.clone(), self.additional(node))).collect();
        for (name, additional) in additional {
            if let Some(node) = self.nodes.get_mut(&name) {
                node.additional = additional;
            }
        }
        self.nodes
    }

    fn additional(&self, node: &Node) -> Vec<Rr> {
        let mut all: Vec<Rr> = Vec::new();
        for target in node.records.iter().filter_map(|rr| rr.data.target()) {
            for rr in self.nodes.get(target).into_iter().flat_map(|node| &node.records) {
                if matches!(rr.data, Data::A(_) | Data::Aaaa(_)) && !all.contains(rr) {
                    all.push(rr.clone());
                }
            }
        }
        all
    }
}

/// What every suffix of a shard has: a NAPTR for each transport on which somebody answers for the shard.
fn shard_naptr(settings: &Settings, names: &Names, shard: &Shard) -> Vec<Data> {
    let replicas = shard.replicas.iter().filter_map(|at| settings.replicas.get(*at));
    let mut transports: Vec<Transport> =
        replicas.flat_map(|replica| replica_ports(&replica.place)).map(|(transport, _)| transport).collect();
    if transports.is_empty() {
        transports = front_transports(&settings.front.listen);
    }
    if transports.is_empty() {
        transports = vec![Transport::Udp];
    }
    naptr_of(&shard_name(names, &shard.name), &transports)
}

fn naptr_of(owner: &Name, transports: &[Transport]) -> Vec<Data> {
    // One order, because an asker that cannot speak the first transport may go on to the next (RFC 3263 §4.1); preferring
    // UDP, which every base station speaks.
    [(Transport::Udp, "SIP+D2U", 10), (Transport::Tcp, "SIP+D2T", 20)]
        .into_iter()
        .filter(|(transport, ..)| transports.contains(transport))
        .map(|(transport, service, preference)| Data::Naptr {
            order: 10,
            preference,
            flags: "s",
            service,
            regexp: Arc::from(""),
            replacement: service_name(transport, owner),
        })
        .collect()
}

fn srv(health: Health, port: u16, target: &Name) -> Data {
    let priority = match health {
        Health::Healthy => 10,
        Health::Worse => 20,
    };
    Data::Srv { priority, weight: 10, port, target: target.clone() }
}

/// Each transport and port at which others reach the replica.
fn replica_ports(place: &Place) -> Vec<(Transport, u16)> {
    match place {
        Place::Local { listen, .. } => {
            listen.iter().map(|listener| (listener.transport, listener.advertised().port())).collect()
        }
        Place::Remote { address } => vec![(Transport::Udp, address.port())],
    }
}

/// The first port of each transport: the others are for base stations (5063 and 5064 of OpenBTS).
fn front_ports(listen: &[Listener]) -> Vec<(Transport, u16)> {
    [Transport::Udp, Transport::Tcp]
        .into_iter()
        .filter_map(|transport| listen.iter().find(|listener| listener.transport == transport))
        .map(|listener| (listener.transport, listener.advertised().port()))
        .collect()
}

fn front_transports(listen: &[Listener]) -> Vec<Transport> {
    front_ports(listen).into_iter().map(|(transport, _)| transport).collect()
}

fn service_name(transport: Transport, owner: &Name) -> Name {
    let label = match transport {
        Transport::Udp => "_udp",
        Transport::Tcp => "_tcp",
    };
    Name::from(format!("_sip.{label}.{owner}"))
}

fn shard_name(names: &Names, shard: &str) -> Name {
    names.under(&format!("{}.shard", shard.to_ascii_lowercase()))
}

fn replica_name(names: &Names, replica: &str) -> Name {
    names.under(&format!("{}.replica", replica.to_ascii_lowercase()))
}

/// `56` as `5.6`.
fn labels_in_order(digits: &str) -> String {
    let mut text = String::with_capacity(2 * digits.len());
    for digit in digits.chars() {
        if !text.is_empty() {
            text.push('.');
        }
        text.push(digit);
    }
    text
}

/// What stands before `.apex`; `None` where the name is not below it.
fn below<'q>(name: &'q str, apex: &str) -> Option<&'q str> {
    name.strip_suffix(apex)?.strip_suffix('.')
}
