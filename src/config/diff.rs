//! What changed between two configurations, in the operator's words, and which of it waits for a restart.
//!
//! Sockets, stores and the map of suffixes are made once, when the process starts; everything else is looked up anew for
//! each request, so it can change under a running node. A change of the map needs its bindings moved as well, which is
//! why it is never taken in silently.

use std::collections::BTreeMap;
use std::fmt::{Debug, Display};
use std::path::PathBuf;

use super::mailing::{Mail, MailRoute};
use super::words::Word;
use super::{
    Calls, Listener, Messages, Place, Replica, Settings, Shard, Subscriber, Transport, Welcome, mailing_read, map,
    texting, units,
};
use crate::ident::{Language, Msisdn};

/// So many subscribers are named one by one; of more, only their number is told.
const SUBSCRIBERS_NAMED_MAX: usize = 20;

/// One thing that is different.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Change {
    pub what: String,
    /// `false`: `apply` and SIGHUP take it in at once.
    pub needs_restart: bool,
}

/// Everything that is different in `new`; nothing secret is shown, and of an IMSI the last four digits only.
pub fn diff(old: &Settings, new: &Settings) -> Vec<Change> {
    let mut changes = Changes::default();
    changes.value("domain", &old.domain, &new.domain, true);
    changes.value("data_dir", old.data_dir.display(), new.data_dir.display(), true);
    changes.value("control", old.control.display(), new.control.display(), true);
    if old.cluster_key != new.cluster_key {
        changes.push("`cluster_key` changed".into(), true);
    }
    changes.value("disk_reserve", old.disk_reserve_bytes, new.disk_reserve_bytes, false);

    changes.value("front.listen", listed(&old.front.listen), listed(&new.front.listen), true);
    changes.value("front.base_stations", joined(&old.front.base_stations), joined(&new.front.base_stations), false);
    changes.value("front.peers", joined(&old.front.peers), joined(&new.front.peers), false);
    changes.debug("front.unlisted", &old.front.unlisted, &new.front.unlisted);
    changes.named("base station", &old.base_stations, &new.base_stations, |station| station.name.clone(), false);
    changes.named("trunk", &old.trunks, &new.trunks, |trunk| trunk.name.clone(), false);

    changes.value("zone.apex", &old.zone.apex, &new.zone.apex, true);
    changes.value("zone.listen", listed(&old.zone.listen), listed(&new.zone.listen), true);
    changes.value("zone.allow", joined(&old.zone.allow), joined(&new.zone.allow), false);
    changes.value("zone.ttl_s", old.zone.ttl_s, new.zone.ttl_s, false);

    changes.shards(old, new);
    changes.replicas(old, new);
    changes.registrar(old, new);
    changes.value(
        "dialplan.local_prefixes",
        joined(&old.dialplan.local_prefixes),
        joined(&new.dialplan.local_prefixes),
        false,
    );
    changes.calls(old, new);
    changes.messages(old, new);
    changes.named("short code", &old.short_codes, &new.short_codes, |code| code.number.to_string(), false);
    changes.templates(old, new);
    changes.mail(old, new);
    changes.value("emergency.numbers", joined(&old.emergency.numbers), joined(&new.emergency.numbers), false);
    changes.value("emergency.trunk", emergency_trunk(old), emergency_trunk(new), false);
    changes.debug("rehearsal", &old.rehearsal, &new.rehearsal);
    changes.subscribers(old, new);
    changes.0
}

#[derive(Default)]
struct Changes(Vec<Change>);

impl Changes {
    fn push(&mut self, what: String, needs_restart: bool) {
        self.0.push(Change { what, needs_restart });
    }

    fn value(&mut self, key: &str, old: impl Display, new: impl Display, needs_restart: bool) {
        let (old, new) = (old.to_string(), new.to_string());
        if old != new {
            self.push(format!("`{key}`: {} -> {}", or_none(&old), or_none(&new)), needs_restart);
        }
    }

    /// For what has no better words than its own.
    fn debug<T: PartialEq + Debug>(&mut self, key: &str, old: &T, new: &T) {
        if old != new {
            self.push(format!("`{key}` changed"), false);
        }
    }

    fn named<T: PartialEq>(
        &mut self,
        kind: &str,
        old: &[T],
        new: &[T],
        name: impl Fn(&T) -> String,
        needs_restart: bool,
    ) {
        let of = |all: &[T], wanted: String| all.iter().position(|one| name(one) == wanted);
        for one in new {
            match of(old, name(one)) {
                None => self.push(format!("{kind} `{}` added", name(one)), needs_restart),
                Some(index) if old[index] != *one => {
                    self.push(format!("{kind} `{}` changed", name(one)), needs_restart);
                }
                Some(_) => {}
            }
        }
        for one in old.iter().filter(|one| of(new, name(one)).is_none()) {
            self.push(format!("{kind} `{}` removed", name(one)), needs_restart);
        }
    }

    /// By name: the order of the tables means nothing.
    fn shards(&mut self, old: &Settings, new: &Settings) {
        let by_name = |all: &Settings| -> BTreeMap<String, (String, String, usize)> {
            let told = |shard: &Shard| {
                let names = shard.replicas.iter().map(|index| all.replicas[*index].name.as_str()).collect::<Vec<_>>();
                (map::compact(&shard.suffixes), names.join(", "), shard.write_quorum)
            };
            all.shards.iter().map(|shard| (shard.name.clone(), told(shard))).collect()
        };
        let (old, new) = (by_name(old), by_name(new));
        for (name, (suffixes, replicas, quorum)) in &new {
            match old.get(name) {
                None => self.push(format!("shard `{name}` added"), true),
                Some((old_suffixes, old_replicas, old_quorum)) => {
                    self.value(&format!("shard {name}: suffixes"), old_suffixes, suffixes, true);
                    self.value(&format!("shard {name}: replicas"), old_replicas, replicas, true);
                    self.value(&format!("shard {name}: write_quorum"), old_quorum, quorum, true);
                }
            }
        }
        for name in old.keys().filter(|name| !new.contains_key(*name)) {
            self.push(format!("shard `{name}` removed"), true);
        }
    }

    fn replicas(&mut self, old: &Settings, new: &Settings) {
        let by_name = |all: &Settings| -> BTreeMap<String, String> {
            all.replicas.iter().map(|replica| (replica.name.clone(), told(replica))).collect()
        };
        let (old, new) = (by_name(old), by_name(new));
        for (name, place) in &new {
            match old.get(name) {
                None => self.push(format!("replica `{name}` added, {place}"), true),
                Some(old_place) => self.value(&format!("replica {name}"), old_place, place, true),
            }
        }
        for name in old.keys().filter(|name| !new.contains_key(*name)) {
            self.push(format!("replica `{name}` removed"), true);
        }
    }

    fn registrar(&mut self, old: &Settings, new: &Settings) {
        let (old, new) = (&old.registrar, &new.registrar);
        macro_rules! each {
            ($($field:ident),*) => {$(
                self.value(
                    concat!("registrar.", stringify!($field)),
                    format!("{:?}", old.$field),
                    format!("{:?}", new.$field),
                    false,
                );
            )*};
        }
        each!(expires_s_min, expires_s_max, expires_s_default, stale_life, replica_absence_max);
        each!(write_deadline, read_deadline, challenge_life, challenge_count_max, hint_count_max);
        each!(contacts_per_aor_max, transaction_count_max, clock_trusted);
        self.debug("registrar.unknown_cause", &old.unknown_cause_by_plmn, &new.unknown_cause_by_plmn);
    }

    fn calls(&mut self, old: &Settings, new: &Settings) {
        // One that only follows `data_dir` is told, and waits, with that.
        let by_default = |all: &Settings| all.calls.records.path == Calls::of(&all.data_dir).records.path;
        if !by_default(old) || !by_default(new) {
            let (old, new) = (old.calls.records.path.display(), new.calls.records.path.display());
            self.value("calls.record_file", old, new, false);
        }
        let (old, new) = (&old.calls, &new.calls);
        let mut time = |key: &str, old, new| self.value(key, units::shown(old), units::shown(new), false);
        time("calls.ring_group", old.ring_group, new.ring_group);
        time("calls.setup_max", old.setup_max, new.setup_max);
        time("calls.duration_max", old.duration_max, new.duration_max);
        time("calls.probe_interval", old.probe_interval, new.probe_interval);
        self.value("calls.count_max", old.count_max, new.count_max, false);
        self.value("calls.record_file_max", old.records.bytes_max, new.records.bytes_max, false);
        self.value("calls.record_file_count", old.records.count, new.records.count, false);
    }

    fn messages(&mut self, old: &Settings, new: &Settings) {
        // As with those of calls.
        let by_default = |all: &Settings| all.messages.records.path == Messages::of(&all.data_dir).records.path;
        if !by_default(old) || !by_default(new) {
            let (old, new) = (old.messages.records.path.display(), new.messages.records.path.display());
            self.value("messages.record_file", old, new, false);
        }
        let language = |all: &Settings| all.templates.default_language;
        self.value("messages.language", language(old).as_str(), language(new).as_str(), false);
        let (old, new) = (&old.messages, &new.messages);
        self.value("messages.service_centre", &old.service_centre, &new.service_centre, false);
        let mut time = |key: &str, old, new| self.value(key, units::shown(old), units::shown(new), false);
        time("messages.life_max", old.life_max, new.life_max);
        time("messages.history_life", old.history_life, new.history_life);
        let or_none = |life: Option<_>| life.map(units::shown).unwrap_or_default();
        self.value("messages.archive_life", or_none(old.archive_life), or_none(new.archive_life), false);
        macro_rules! each {
            ($($field:ident),*) => {$(
                self.value(concat!("messages.", stringify!($field)), old.$field, new.$field, false);
            )*};
        }
        each!(count_max, count_per_phone_max, attempts_per_base_station_max, explain);
        each!(number_digits_min, number_digits_max);
        let zone = texting::zone_shown;
        self.value("messages.time_zone", zone(old.time_zone_quarters), zone(new.time_zone_quarters), false);
        let night = |night: Option<_>| night.map(texting::night_shown).unwrap_or_default();
        self.value("messages.night", night(old.night), night(new.night), false);
        let welcome = |welcome| match welcome {
            Welcome::Never => "never",
            Welcome::First => "first",
            Welcome::Network => "network",
        };
        self.value("messages.welcome", welcome(old.welcome), welcome(new.welcome), false);
        self.value("messages.record_file_max", old.records.bytes_max, new.records.bytes_max, false);
        self.value("messages.record_file_count", old.records.count, new.records.count, false);
    }

    fn templates(&mut self, old: &Settings, new: &Settings) {
        let by_language = |all: &Settings| {
            let mut found: BTreeMap<Language, BTreeMap<Word, String>> = BTreeMap::new();
            for ((language, word), template) in &all.templates.written {
                found.entry(*language).or_default().insert(*word, template.clone());
            }
            found.into_iter().collect::<Vec<_>>()
        };
        let name = |(language, _): &(Language, _)| language.as_str().to_owned();
        self.named("texts", &by_language(old), &by_language(new), name, false);
    }

    fn mail(&mut self, old: &Settings, new: &Settings) {
        let (old, new) = match (old.mail.as_deref(), new.mail.as_deref()) {
            (None, None) => return,
            (None, Some(_)) => return self.push("[mail] added".into(), true),
            (Some(_), None) => return self.push("[mail] removed".into(), true),
            (Some(old), Some(new)) => (old, new),
        };
        self.value("mail.domain", &old.domain, &new.domain, false);
        let listen = |mail: &Mail| mail.listen.iter().map(mailing_read::listener_shown).collect::<Vec<_>>().join(", ");
        self.value("mail.listen", listen(old), listen(new), true);
        let file = |path: &Option<PathBuf>| path.as_ref().map(|path| path.display().to_string()).unwrap_or_default();
        self.value("mail.certificate", file(&old.certificate), file(&new.certificate), false);
        self.value("mail.certificate_key", file(&old.certificate_key), file(&new.certificate_key), false);
        let relay = |mail: &Mail| mail.relay.as_ref().map(mailing_read::relay_shown).unwrap_or_default();
        if relay(old) != relay(new) {
            self.value("mail.relay", relay(old), relay(new), false);
        } else if old.relay != new.relay {
            self.push("the login or the authority of `mail.relay` changed".into(), false);
        }
        let number = |number: Option<Msisdn>| number.map(|number| number.to_string()).unwrap_or_default();
        self.value("mail.short_code", number(old.short_code), number(new.short_code), false);
        let pool = |mail: &Mail| mail.reply_pool.iter().map(mailing_read::range_shown).collect::<Vec<_>>().join(", ");
        self.value("mail.reply_pool", pool(old), pool(new), false);
        self.value("mail.fronts", joined(&old.fronts), joined(&new.fronts), false);
        self.value("mail.trusted", joined(&old.trusted), joined(&new.trusted), false);
        self.value("mail.boxes", joined(&old.boxes), joined(&new.boxes), false);
        self.named("mail user", &old.users, &new.users, |user| user.name.clone(), false);
        self.debug("mail.senders", &old.senders, &new.senders);
        self.debug("mail.allow", &old.allow, &new.allow);
        self.debug("mail.deny", &old.deny, &new.deny);
        self.value("mail.results_from", joined(&old.results_from), joined(&new.results_from), false);
        self.debug("mail.unproven", &old.unproven, &new.unproven);
        self.debug("mail.first_contact", &old.first_contact, &new.first_contact);
        self.debug("mail.subject", &old.subject, &new.subject);
        macro_rules! each {
            ($($field:ident),*) => {$(
                self.value(concat!("mail.", stringify!($field)), old.$field, new.$field, false);
            )*};
        }
        each!(per_sender_day_max, per_phone_day_max, segments_max, size_max, recipients_max, received_max);
        each!(sessions_max, sessions_per_address_max, count_max);
        let mut time = |key: &str, old, new| self.value(key, units::shown(old), units::shown(new), false);
        time("mail.command_timeout", old.command_timeout, new.command_timeout);
        time("mail.session_max", old.session_max, new.session_max);
        time("mail.life_max", old.life_max, new.life_max);
        time("mail.thread_life", old.thread_life, new.thread_life);
        // Their order counts for nothing: the longest prefix does.
        let name = |route: &MailRoute| match route.prefixes.as_slice() {
            [] => "every number".to_owned(),
            prefixes => joined(prefixes),
        };
        self.named("mail route", &old.routes, &new.routes, name, false);
        let (old, new) = match (&old.pictures, &new.pictures) {
            (None, None) => return,
            (None, Some(_)) => return self.push("[pictures] added".into(), true),
            (Some(_), None) => return self.push("[pictures] removed".into(), true),
            (Some(old), Some(new)) => (old, new),
        };
        self.value("pictures.listen", old.listen, new.listen, true);
        self.value("pictures.url", &old.url, &new.url, false);
        self.value("pictures.size_max", old.size_max, new.size_max, false);
        self.value("pictures.bytes_max", old.bytes_max, new.bytes_max, false);
        self.value("pictures.life", units::shown(old.life), units::shown(new.life), false);
        self.value("pictures.open_life", units::shown(old.open_life), units::shown(new.open_life), false);
    }

    fn subscribers(&mut self, old: &Settings, new: &Settings) {
        let (mut added, mut changed, mut removed) = (Vec::new(), Vec::new(), Vec::new());
        for subscriber in new.subscribers.iter() {
            match old.subscribers.get(&subscriber.imsi) {
                None => added.push(subscriber),
                Some(before) if !is_same(before, subscriber) => changed.push(subscriber),
                Some(_) => {}
            }
        }
        removed.extend(old.subscribers.iter().filter(|subscriber| new.subscribers.get(&subscriber.imsi).is_none()));
        for (all, verb) in [(&mut added, "added"), (&mut changed, "changed"), (&mut removed, "removed")] {
            if all.len() > SUBSCRIBERS_NAMED_MAX {
                self.push(format!("{} subscribers {verb}", all.len()), false);
                continue;
            }
            all.sort_by(|a, b| (&a.file, a.line, a.imsi).cmp(&(&b.file, b.line, b.imsi)));
            for Subscriber { imsi, file, line, .. } in all.iter() {
                self.push(format!("subscriber {} ({file}:{line}) {verb}", imsi.short()), false);
            }
        }
    }
}

/// By name: the order of the tables means nothing.
fn emergency_trunk(all: &Settings) -> &str {
    all.emergency.trunk.map_or("", |index| all.trunks[index].name.as_str())
}

/// Where it stands is no property of a subscriber.
fn is_same(old: &Subscriber, new: &Subscriber) -> bool {
    let told = |one: &Subscriber| (one.barred, one.language);
    (&old.msisdn, &old.name, &old.auth, &old.mail, told(old))
        == (&new.msisdn, &new.name, &new.auth, &new.mail, told(new))
}

fn told(replica: &Replica) -> String {
    match &replica.place {
        Place::Local { path, listen } if listen.is_empty() => path.display().to_string(),
        Place::Local { path, listen } => format!("{}, listening on {}", path.display(), listed(listen)),
        Place::Remote { address } => format!("elsewhere at {address}"),
    }
}

fn listed(listeners: &[Listener]) -> String {
    let told = |listener: &Listener| {
        let transport = match listener.transport {
            Transport::Udp => "udp",
            Transport::Tcp => "tcp",
        };
        match listener.advertise {
            None => format!("{transport}:{}", listener.address),
            Some(advertise) => format!("{transport}:{} as {advertise}", listener.address),
        }
    };
    listeners.iter().map(told).collect::<Vec<_>>().join(", ")
}

fn joined<T: Display>(all: &[T]) -> String {
    all.iter().map(T::to_string).collect::<Vec<_>>().join(", ")
}

fn or_none(text: &str) -> &str {
    if text.is_empty() { "none" } else { text }
}
