//! What the files say of calls: trunks, the dial plan, `[calls]`, `[emergency]`.
//!
//! Knows: which numbers contradict each other. Does not know: how a call is routed by them.
//! Secrets: a trunk's password is never repeated in a problem.

use std::path::Path as FilePath;
use std::time::Duration;

use super::read::{Once, named, path, read_duration, value};
use super::sims::{Roll, shown};
use super::text::{Place, Report, Spot};
use super::typed::View;
use super::units::{self, Flaw};
use super::{BaseStation, Calls, Dialplan, Emergency, Front, Password, RecordFile, Trunk, TrunkMode, keys};
use crate::ident::Msisdn;

const SECOND: Duration = Duration::from_secs(1);
const MINUTE: Duration = Duration::from_secs(60);
const DAY: Duration = Duration::from_secs(86_400);

/// Paging takes a base station this long: who is given less never rings.
const PAGING: Duration = Duration::from_secs(10);

/// Of a login at somebody else's: one that is longer is a file that was pasted.
const LOGIN_CHARS_MAX: usize = 128;

pub(super) fn read_trunks(
    root: &View<'_>,
    front: &Front,
    base_stations: &[BaseStation],
    report: &mut Report<'_>,
) -> Vec<Trunk> {
    let (mut names, mut addresses) = (Once::default(), Once::default());
    let mut all = Vec::new();
    for view in root.tables("trunk") {
        let name = view.required_text("name", "pbx", report);
        let address = view.required_text("address", "192.0.2.20:5060", report);
        let name = name.and_then(|spot| Some(Spot::new(value(spot, named, report)?, spot.at)));
        let address =
            address.and_then(|spot| Some(Spot::new(value(spot, |text| units::peer(text, 5060), report)?, spot.at)));
        if let Some(Spot { value: name, at }) = &name {
            names.take(name.clone(), *at, || format!("there is a trunk `{name}` already"), report);
        }
        if let Some(Spot { value: address, at }) = &address {
            let ip = address.ip();
            addresses.take(ip.to_string(), *at, || format!("there is a trunk at {ip} already"), report);
            if let Some(station) = base_stations.iter().find(|station| station.address.ip() == ip) {
                report
                    .problem(*at, format!("{ip} is the base station `{}`", station.name))
                    .hint("who speaks is known by the address alone, so a trunk needs one of its own");
            } else if front.base_stations.iter().any(|network| network.contains(ip)) {
                report
                    .note(*at, format!("{ip} is inside `base_stations`, so this trunk may also speak for phones"))
                    .hint("a trunk is better kept out of those networks");
            }
        }
        let mode = match view.text("mode") {
            None => TrunkMode::Redirect,
            Some(spot) => match spot.value {
                "redirect" => TrunkMode::Redirect,
                "recurse" => TrunkMode::Recurse,
                other => {
                    report
                        .problem(spot.at, format!("`mode` cannot be {other:?}"))
                        .hint("write \"redirect\", or \"recurse\" for a peer that cannot follow a 302");
                    TrunkMode::Redirect
                }
            },
        };
        let texts = view.flag("texts").is_some_and(|texts| texts.value);
        let prefixes = prefixes(&view, "prefixes", report);
        let (username, password) = read_login(&view, report);
        if let (Some(name), Some(address)) = (name, address) {
            all.push(Trunk { name: name.value, address: address.value, mode, texts, prefixes, username, password });
        }
    }
    all
}

/// `username` and `password`: both or neither.
fn read_login(view: &View<'_>, report: &mut Report<'_>) -> (Option<String>, Option<Password>) {
    for (given, missing) in [("username", "password"), ("password", "username")] {
        if view.has(given) && !view.has(missing) {
            report
                .problem(view.place_of(given), format!("a `{given}` without a `{missing}`"))
                .hint("write both, or neither where the trunk asks for no login");
        }
    }
    let username = view.text("username").and_then(|spot| value(spot, username, report));
    let password = view.text("password").and_then(|spot| value(spot, password, report));
    (username, password)
}

/// It stands in quotes in an answer, and before a colon in what is hashed (RFC 2617 §3.2.2.2).
pub(super) fn username(text: &str) -> Result<String, Flaw> {
    let wrong = |char: char| char.is_control() || matches!(char, '"' | '\\' | ':');
    match text.is_empty() || text.chars().count() > LOGIN_CHARS_MAX || text.chars().any(wrong) {
        true => Err(Flaw {
            what: "this is no name to log in with".into(),
            hint: format!("write 1 to {LOGIN_CHARS_MAX} characters without quotes, backslashes and colons"),
        }),
        false => Ok(text.to_owned()),
    }
}

pub(super) fn password(text: &str) -> Result<Password, Flaw> {
    for prefix in ["file:", "sealed:"] {
        if text.starts_with(prefix) {
            return Err(Flaw {
                what: format!("a `password` cannot be read from \"{prefix}..\" yet"),
                hint: "write the password itself, and keep the file mode 0640".into(),
            });
        }
    }
    match text.is_empty() || text.chars().count() > LOGIN_CHARS_MAX || text.chars().any(char::is_control) {
        true => Err(Flaw {
            what: "this is no password".into(),
            hint: format!("write 1 to {LOGIN_CHARS_MAX} characters, none of them a control character"),
        }),
        false => Ok(Password(text.to_owned())),
    }
}

/// The beginnings of numbers.
fn prefixes(view: &View<'_>, name: &str, report: &mut Report<'_>) -> Vec<String> {
    let texts = view.texts(name).unwrap_or_default();
    texts.into_iter().filter_map(|spot| value(spot, prefix, report)).collect()
}

pub(super) fn prefix(text: &str) -> Result<String, Flaw> {
    let digits = text.strip_prefix('+').unwrap_or(text);
    if digits.is_empty() || digits.len() > 15 || !digits.bytes().all(|byte| byte.is_ascii_digit()) {
        return Err(Flaw {
            what: format!("{} is no prefix of a number", shown(text)),
            hint: "write 1 to 15 digits, with a leading + where the numbers are international".into(),
        });
    }
    Ok(text.to_owned())
}

pub(super) fn read_dialplan(root: &View<'_>, report: &mut Report<'_>) -> Dialplan {
    let section = root.table("dialplan");
    Dialplan { local_prefixes: section.map(|view| prefixes(&view, "local_prefixes", report)).unwrap_or_default() }
}

/// A trunk's prefix inside a local one is never asked: what begins so is ours or nobody's.
pub(super) fn note_hidden_prefixes(root: &View<'_>, dialplan: &Dialplan, report: &mut Report<'_>) {
    for trunk in root.tables("trunk") {
        for spot in trunk.texts("prefixes").unwrap_or_default() {
            let local = dialplan.local_prefixes.iter().find(|local| spot.value.starts_with(local.as_str()));
            if let Some(local) = local {
                report
                    .note(spot.at, format!("no call goes out by this prefix: {local:?} is in `local_prefixes`"))
                    .hint("numbers that begin so are ours, and 404 where nobody has them");
            }
        }
    }
}

pub(super) fn read_calls(root: &View<'_>, data_dir: &FilePath, report: &mut Report<'_>) -> Calls {
    let mut calls = Calls::of(data_dir);
    let Some(section) = root.table("calls") else { return calls };
    read_duration(&section, "ring_group", SECOND..=MINUTE * 5, &mut calls.ring_group, report);
    read_duration(&section, "setup_max", SECOND..=MINUTE * 10, &mut calls.setup_max, report);
    read_duration(&section, "duration_max", SECOND..=DAY * 30, &mut calls.duration_max, report);
    read_duration(&section, "probe_interval", SECOND..=DAY, &mut calls.probe_interval, report);
    if let Some(count) = section.count("count_max") {
        calls.count_max = count.value as usize;
    }
    read_records(&section, &mut calls.records, report);

    if !section.has("ring_group") {
        // Who only shortens the whole need not know of its part.
        calls.ring_group = calls.ring_group.min(calls.setup_max);
    }
    if calls.ring_group > calls.setup_max {
        let (group, whole) = (units::shown(calls.ring_group), units::shown(calls.setup_max));
        report
            .problem(section.place_of("ring_group"), format!("`ring_group` ({group}) is above `setup_max` ({whole})"))
            .hint("the default of ring_group is 15 s, of setup_max 60 s");
    } else if calls.ring_group < PAGING {
        let at = section.place_of(if section.has("ring_group") { "ring_group" } else { "setup_max" });
        report
            .note(at, "paging a phone takes up to 10 s, and it is given less to ring")
            .hint("the default of ring_group is 15 s");
    }
    calls
}

pub(super) fn read_records(section: &View<'_>, into: &mut RecordFile, report: &mut Report<'_>) {
    if let Some(file) = section.text("record_file").and_then(|spot| path(spot, report)) {
        into.path = file;
    }
    if let Some(count) = section.count("record_file_count") {
        into.count = count.value as u32;
    }
    read_record_file_max(section, &mut into.bytes_max, report);
}

fn read_record_file_max(section: &View<'_>, into: &mut u64, report: &mut Report<'_>) {
    const LEAST: u64 = 1_000;
    const MOST: u64 = 1_000_000_000_000;
    let given = section.count("record_file_max").map(|spot| Spot::new(spot.value, spot.at)).or_else(|| {
        let spot = section.text("record_file_max")?;
        Some(Spot::new(value(spot, units::size, report)?, spot.at))
    });
    match given {
        None => {}
        Some(spot) if (LEAST..=MOST).contains(&spot.value) => *into = spot.value,
        Some(spot) => report
            .problem(spot.at, format!("`record_file_max` cannot be {} bytes", spot.value))
            .hint("write something from 1 kB to 1000 GB"),
    }
}

pub(super) fn read_emergency(
    root: &View<'_>,
    front: &Front,
    trunks: &[Trunk],
    roll: &Roll,
    report: &mut Report<'_>,
) -> Emergency {
    let mut emergency = Emergency::default();
    let section = root.table("emergency");
    let written = section.and_then(|section| section.texts("numbers")).unwrap_or_default();
    // Those that nobody wrote are told at the subscriber who has one.
    for number in emergency.numbers.iter().filter(|number| !written.iter().any(|spot| spot.value == **number)) {
        if let Some(owner) = owner(number, roll) {
            report
                .note(owner, format!("{number} is an emergency number: nobody reaches this phone by it"))
                .hint("give the phone another number");
        }
    }
    for spot in written {
        let Some(number) = value(spot, emergency_number, report) else { continue };
        if let Some(owner) = owner(&number, roll) {
            let owner = report.name_of(owner);
            report
                .note(
                    spot.at,
                    format!("a subscriber has the emergency number {number}: nobody reaches his phone by it"),
                )
                .hint(format!("it is given at {owner}"));
        }
        if !emergency.numbers.contains(&number) {
            emergency.numbers.push(number);
        }
    }
    let trunk = section.and_then(|section| section.text("trunk"));
    if let Some(spot) = trunk {
        emergency.trunk = trunks.iter().position(|trunk| trunk.name == spot.value.trim());
        if emergency.trunk.is_none() {
            unknown_trunk(root, spot, report);
        }
    }
    if trunk.is_none() {
        note_no_way_out(root, front, trunks, &emergency, report);
    }
    emergency
}

/// Digits alone: a phone dials them as they are.
fn emergency_number(text: &str) -> Result<String, Flaw> {
    let flaw = |hint: &str| Flaw { what: format!("{} is no emergency number", shown(text)), hint: hint.into() };
    if text.eq_ignore_ascii_case("sos") {
        return Err(flaw("`sos` is one without being written"));
    }
    match (2..=15).contains(&text.len()) && text.bytes().all(|byte| byte.is_ascii_digit()) {
        true => Ok(text.to_owned()),
        false => Err(flaw("write 2 to 15 digits, as they are dialled: \"110\"")),
    }
}

fn owner(number: &str, roll: &Roll) -> Option<Place> {
    Msisdn::parse(number).ok().and_then(|number| roll.place_of_number(&number))
}

fn unknown_trunk(root: &View<'_>, spot: Spot<&str>, report: &mut Report<'_>) {
    let written: Vec<&str> =
        root.tables("trunk").iter().filter_map(|trunk| Some(trunk.text("name")?.value.trim())).collect();
    if written.contains(&spot.value.trim()) {
        // It is there, and what is wrong with it has been reported.
        return;
    }
    let hint = match keys::nearest(spot.value, written.iter().copied()) {
        Some(near) => format!("did you mean \"{near}\"?"),
        None if written.is_empty() => "write a [[trunk]] with this name".into(),
        None => format!("write one of {}", written.join(", ")),
    };
    report.problem(spot.at, format!("there is no trunk {}", shown(spot.value))).hint(hint);
}

/// Phones that may camp and cannot call for help: that must be known.
fn note_no_way_out(root: &View<'_>, front: &Front, trunks: &[Trunk], emergency: &Emergency, report: &mut Report<'_>) {
    let has_phones = !front.base_stations.is_empty() || root.has("base_station");
    let is_taken = |number: &&String| {
        trunks.iter().any(|trunk| {
            trunk.prefixes.is_empty() || trunk.prefixes.iter().any(|prefix| number.starts_with(prefix.as_str()))
        })
    };
    let stuck: Vec<&str> = emergency.numbers.iter().filter(|number| !is_taken(number)).map(String::as_str).collect();
    // A [[trunk]] that was refused has been reported.
    if stuck.is_empty() || !has_phones || (trunks.is_empty() && root.has("trunk")) {
        return;
    }
    let at = if root.has("emergency") { root.place_of("emergency") } else { root.place_of("trunk") };
    report
        .note(at, format!("no trunk takes emergency calls: {} would be refused", stuck.join(", ")))
        .hint("write trunk = \"..\" in [emergency], with the name of a [[trunk]]");
}
