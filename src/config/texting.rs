//! What the files say of texts: `[messages]`, `[[short_code]]`, `[[texts]]`.
//!
//! Knows: which numbers the message centre has and who else claims them; what may stand in a template. Does not know: who is
//! told what, and when.
//! Limits: [`PARTS_MAX`] parts for a text of ours, [`NUMBERS_MAX`] numbers in a list.

use std::collections::BTreeSet;
use std::path::Path as FilePath;
use std::time::Duration;

use super::calling::read_records;
use super::read::{Once, read_duration, value};
use super::sims::{self, Roll, shown};
use super::text::{Place, Report, Spot};
use super::typed::View;
use super::units::{self, Flaw};
use super::words::{Templates, Word};
use super::{Calls, CodeAction, Emergency, Messages, RecordFile, ShortCode, Welcome, keys, short_codes_of_old};
use crate::gsm::header::Reference;
use crate::gsm::segment::{self, Cut};
use crate::gsm::text::septets;
use crate::ident::{Language, Msisdn};

const SECOND: Duration = Duration::from_secs(1);
const MINUTE: Duration = Duration::from_secs(60);
const DAY: Duration = Duration::from_secs(86_400);
/// The longest validity period there is, 63 weeks (TS 23.040 §9.2.3.12.1).
const LONGEST: Duration = Duration::from_secs(441 * 86_400);

/// A fixed text that needs more parts than this is a file that was pasted.
const PARTS_MAX: usize = 10;

/// Members of a group, senders of a short code.
const NUMBERS_MAX: usize = 1_000;

/// What the other parts of the files say that bears on texts.
pub(super) struct Around<'a> {
    pub data_dir: &'a FilePath,
    pub calls: &'a Calls,
    pub emergency: &'a Emergency,
    pub roll: &'a Roll,
}

// --- [messages] ---

pub(super) fn read_messages(root: &View<'_>, around: &Around<'_>, report: &mut Report<'_>) -> Messages {
    let mut messages = Messages::of(around.data_dir);
    let section = root.table("messages");
    read_service_centre(section.as_ref(), around, &mut messages.service_centre, report);
    if let Some(section) = &section {
        read_limits(section, &mut messages, report);
        read_times(section, &mut messages, report);
        if let Some(explain) = section.flag("explain") {
            messages.explain = explain.value;
        }
        if let Some(spot) = section.text("welcome") {
            match spot.value {
                "never" => messages.welcome = Welcome::Never,
                "first" => messages.welcome = Welcome::First,
                "network" => messages.welcome = Welcome::Network,
                other => report
                    .problem(spot.at, format!("`welcome` cannot be {}", shown(other)))
                    .hint("write \"never\", \"first\", or \"network\" for every change of network as well"),
            }
        }
        read_digits(section, &mut messages, report);
        read_records(section, &mut messages.records, report);
    }
    // Also where [messages] says nothing of it: [calls] may name the file that is ours by default.
    if is_same_file(&around.calls.records, &messages.records) || is_same_file(&messages.records, &around.calls.records)
    {
        let is_ours = section.as_ref().is_some_and(|section| section.has("record_file"));
        let at = if is_ours { section } else { root.table("calls") };
        report
            .problem(
                at.map_or(root.at, |section| section.place_of("record_file")),
                "calls and texts cannot be recorded in one file",
            )
            .hint("write another `record_file` in [calls] or in [messages]");
    }
    messages
}

fn read_service_centre(section: Option<&View<'_>>, around: &Around<'_>, into: &mut String, report: &mut Report<'_>) {
    let written = section.and_then(|section| section.text("service_centre"));
    if let Some(number) = written.and_then(|spot| value(spot, service_number, report)) {
        *into = number.to_string();
    }
    let owner = Msisdn::parse(into).ok().and_then(|number| around.roll.place_of_number(&number));
    match (owner, written) {
        (None, _) => {}
        (Some(owner), Some(spot)) => {
            let owner = report.name_of(owner);
            report
                .problem(spot.at, "a subscriber has the number of the `service_centre`")
                .hint(format!("it is given at {owner}: write another one here"));
        }
        // His number is as good as any other; it is the default that has to give way.
        (Some(owner), None) => report
            .problem(owner, format!("{into} is the number of the message centre, unless it is told another"))
            .hint("write service_centre = \"..\" in [messages], or another number here"),
    }
    if let (Some(spot), true) = (written, around.emergency.numbers.contains(into)) {
        report.problem(spot.at, format!("{into} is an emergency number")).hint("write a number that nobody dials");
    }
}

fn service_number(text: &str) -> Result<Msisdn, Flaw> {
    Msisdn::parse(text).map_err(|error| Flaw {
        what: format!("{} is no number: {error}", shown(text)),
        hint: "write one that nobody has: \"1000\"".into(),
    })
}

fn read_limits(section: &View<'_>, messages: &mut Messages, report: &mut Report<'_>) {
    let count = |name: &str, into: &mut usize| {
        if let Some(count) = section.count(name) {
            *into = count.value as usize;
        }
    };
    count("count_max", &mut messages.count_max);
    count("count_per_phone_max", &mut messages.count_per_phone_max);
    count("attempts_per_base_station_max", &mut messages.attempts_per_base_station_max);
    if !section.has("count_per_phone_max") {
        messages.count_per_phone_max = messages.count_per_phone_max.min(messages.count_max);
    }
    if messages.count_per_phone_max > messages.count_max {
        let (one, all) = (messages.count_per_phone_max, messages.count_max);
        report
            .problem(
                section.place_of("count_per_phone_max"),
                format!("`count_per_phone_max` ({one}) is above `count_max` ({all})"),
            )
            .hint("the default of count_per_phone_max is 1000, of count_max 100000");
    }
}

fn read_times(section: &View<'_>, messages: &mut Messages, report: &mut Report<'_>) {
    read_duration(section, "life_max", SECOND..=LONGEST, &mut messages.life_max, report);
    read_duration(section, "history_life", MINUTE..=LONGEST, &mut messages.history_life, report);
    if let Some(spot) = section.text("archive_life")
        && let Some(life) = value(spot, units::duration, report)
    {
        match life {
            Duration::ZERO => messages.archive_life = None,
            life if (DAY..=LONGEST).contains(&life) => messages.archive_life = Some(life),
            _ => report
                .problem(spot.at, format!("`archive_life` cannot be {:?}", spot.value))
                .hint("write something from 1 day to 441 days, or \"0 s\" to keep nothing"),
        }
    }
    if let Some(quarters) = section.text("time_zone").and_then(|spot| value(spot, time_zone, report)) {
        messages.time_zone_quarters = quarters;
    }
    if let Some(night) = section.text("night").and_then(|spot| value(spot, night, report)) {
        messages.night = Some(night);
    }
}

/// `+03:00`, in quarters of an hour.
fn time_zone(text: &str) -> Result<i8, Flaw> {
    let flaw = |what: &str| Flaw {
        what: format!("{} {what}", shown(text)),
        hint: "write how far ahead of UTC it is, from \"-12:00\" to \"+14:00\" in quarters of an hour: \"+03:00\""
            .into(),
    };
    let (sign, rest) = match (text.strip_prefix('+'), text.strip_prefix('-')) {
        (Some(rest), _) => (1, rest),
        (_, Some(rest)) => (-1, rest),
        (None, None) => return Err(flaw("is no time zone")),
    };
    let minutes = sign * clock(rest).ok_or_else(|| flaw("is no time zone"))? as i16;
    if minutes % 15 != 0 {
        return Err(flaw("is no whole quarter of an hour, which is all that a phone can be told"));
    }
    if !(-12 * 60..=14 * 60).contains(&minutes) {
        return Err(flaw("is nobody's time zone"));
    }
    Ok((minutes / 15) as i8)
}

/// `22:00-06:00`, in minutes of the day.
fn night(text: &str) -> Result<(u16, u16), Flaw> {
    let flaw = |what: &str| Flaw {
        what: format!("{} {what}", shown(text)),
        hint: "write when it begins and ends in local time: \"22:00-06:00\"; leave it out for none".into(),
    };
    let ends = text.split_once('-').and_then(|(from, to)| Some((clock(from.trim())?, clock(to.trim())?)));
    match ends {
        None => Err(flaw("is no stretch of the day")),
        Some((from, to)) if from == to => Err(flaw("begins when it ends")),
        Some(ends) => Ok(ends),
    }
}

pub(super) fn zone_shown(quarters: i8) -> String {
    let minutes = i32::from(quarters) * 15;
    let sign = if minutes < 0 { '-' } else { '+' };
    format!("{sign}{:02}:{:02}", minutes.abs() / 60, minutes.abs() % 60)
}

pub(super) fn night_shown((from, to): (u16, u16)) -> String {
    format!("{:02}:{:02}-{:02}:{:02}", from / 60, from % 60, to / 60, to % 60)
}

/// `HH:MM`, in minutes.
fn clock(text: &str) -> Option<u16> {
    let (hour, minute) = text.split_once(':')?;
    let two = |digits: &str, below: u16| {
        let is_two = digits.len() == 2 && digits.bytes().all(|byte| byte.is_ascii_digit());
        digits.parse::<u16>().ok().filter(|number| is_two && *number < below)
    };
    Some(two(hour, 24)? * 60 + two(minute, 60)?)
}

fn read_digits(section: &View<'_>, messages: &mut Messages, report: &mut Report<'_>) {
    let count = |name: &str, into: &mut usize| {
        if let Some(count) = section.count(name) {
            *into = count.value as usize;
        }
    };
    count("number_digits_min", &mut messages.number_digits_min);
    count("number_digits_max", &mut messages.number_digits_max);
    let (min, max) = (messages.number_digits_min, messages.number_digits_max);
    // Who names one end need not know of the other.
    match (section.has("number_digits_min"), section.has("number_digits_max")) {
        (_, false) => messages.number_digits_max = max.max(min),
        (false, true) => messages.number_digits_min = min.min(max),
        (true, true) if min > max => report
            .problem(
                section.place_of("number_digits_min"),
                format!("`number_digits_min` ({min}) is above `number_digits_max` ({max})"),
            )
            .hint("the default of number_digits_min is 7, of number_digits_max 10"),
        (true, true) => {}
    }
}

/// Whether `one` is written to the file that `other` is, or to one that it is turned into.
fn is_same_file(one: &RecordFile, other: &RecordFile) -> bool {
    let (one, other) = (one.path.to_string_lossy(), other.path.to_string_lossy());
    let number = one.strip_prefix(&*other).and_then(|rest| rest.strip_prefix('.'));
    one == other || number.is_some_and(|number| number.parse::<u32>().is_ok())
}

// --- [[short_code]] ---

/// What a short code may do, and the keys that only it has.
const DOES: [(&str, &[&str]); 7] = [
    ("answer", &["text", "texts"]),
    ("own_number", &[]),
    ("status", &[]),
    ("choose_number", &[]),
    ("hook", &["url", "timeout"]),
    ("group", &["members"]),
    ("broadcast", &[]),
];

/// How a number came to be a short code.
#[derive(Clone, Copy)]
enum Origin {
    At(Place),
    /// Nobody wrote this key of `[messages]`.
    Default(&'static str),
}

/// `number_code` and `status_code`, then each `[[short_code]]`.
pub(super) fn read_short_codes(
    root: &View<'_>,
    around: &Around<'_>,
    messages: &Messages,
    language: Language,
    report: &mut Report<'_>,
) -> Vec<ShortCode> {
    let section = root.table("messages");
    let mut codes = Codes { root, around, messages, taken: Vec::new() };
    let mut all = Vec::new();
    for (key, code) in ["number_code", "status_code"].into_iter().zip(short_codes_of_old()) {
        let (number, origin) = match section.as_ref().and_then(|section| section.text(key)) {
            None => (code.number, Origin::Default(key)),
            Some(spot) if spot.value.is_empty() => continue,
            Some(spot) => match value(spot, sims::parse_number, report) {
                Some(number) => (number, Origin::At(spot.at)),
                None => continue,
            },
        };
        codes.take(number, origin, report);
        all.push(ShortCode { number, ..code });
    }
    for view in root.tables("short_code") {
        let number = view.required_text("number", "300", report);
        let number = number.and_then(|spot| Some((value(spot, sims::parse_number, report)?, spot.at)));
        if let Some((number, at)) = number {
            codes.take(number, Origin::At(at), report);
        }
        let senders = read_numbers(&view, "senders", around.roll, report);
        let Some(does) = read_does(&view, report) else { continue };
        let action = read_action(&view, does, around.roll, language, report);
        if let (Some((number, _)), Some(does)) = (number, action) {
            let senders = match &does {
                CodeAction::Group { members } => Some(senders.unwrap_or_else(|| members.clone())),
                _ => senders,
            };
            all.push(ShortCode { number, does, senders });
        }
    }
    codes.note_prefixes(report);
    all
}

/// The numbers that are short codes so far.
struct Codes<'a> {
    root: &'a View<'a>,
    around: &'a Around<'a>,
    messages: &'a Messages,
    taken: Vec<(Msisdn, Origin)>,
}

impl Codes<'_> {
    /// Takes the number; reports who else has it. A default gives way, so it is told where the other one stands.
    fn take(&mut self, number: Msisdn, origin: Origin, report: &mut Report<'_>) {
        let by_default = |at: Place, key: &str, report: &mut Report<'_>| {
            report
                .problem(at, format!("{number} is the `{key}`, unless it is told another"))
                .hint(format!("write {key} = \"..\" in [messages] (\"\" switches it off), or another number here"));
        };
        let given = |at: Place, what: String, first: Place, report: &mut Report<'_>| {
            let first = report.name_of(first);
            report.problem(at, what).hint(format!("it is given at {first}: write another one here"));
        };
        let earlier = self.taken.iter().find(|(taken, _)| is_same(taken, &number)).map(|(_, origin)| *origin);
        match (origin, earlier) {
            (Origin::At(at), Some(Origin::At(first))) => {
                let first = report.name_of(first);
                report
                    .problem(at, format!("there is a short code {number} already"))
                    .hint(format!("the first is at {first}"));
            }
            (Origin::At(at), Some(Origin::Default(key))) | (Origin::Default(key), Some(Origin::At(at))) => {
                by_default(at, key, report);
            }
            (Origin::Default(_), Some(Origin::Default(_))) | (_, None) => {}
        }
        self.taken.push((number, origin));

        if self.messages.service_centre.trim_start_matches('+') == number.digits() {
            let centre = self.root.table("messages").and_then(|section| section.text("service_centre"));
            match (origin, centre.map(|spot| spot.at)) {
                (Origin::At(at), Some(centre)) => {
                    given(at, format!("{number} is the number of the message centre"), centre, report);
                }
                (Origin::At(at), None) => report
                    .problem(at, format!("{number} is the number of the message centre, unless it is told another"))
                    .hint("write service_centre = \"..\" in [messages], or another number here"),
                (Origin::Default(key), Some(centre)) => by_default(centre, key, report),
                (Origin::Default(_), None) => {}
            }
        }
        if self.around.emergency.numbers.iter().any(|emergency| emergency == number.digits()) {
            match origin {
                Origin::At(at) => {
                    report.problem(at, format!("{number} is an emergency number")).hint("write another one");
                }
                Origin::Default(key) => {
                    let written = self.root.table("emergency").and_then(|section| section.texts("numbers"));
                    let spot = written.into_iter().flatten().find(|spot| spot.value == number.digits());
                    by_default(spot.map_or(self.root.at, |spot| spot.at), key, report);
                }
            }
        }
        if let Some((_, owner)) = owned(&number, self.around.roll) {
            match origin {
                Origin::At(at) => given(at, format!("a subscriber has the number {number}"), owner, report),
                Origin::Default(key) => by_default(owner, key, report),
            }
        }
    }

    /// A trunk that takes texts, and a prefix of its that is a code.
    fn note_prefixes(&self, report: &mut Report<'_>) {
        for trunk in self.root.tables("trunk") {
            if !trunk.flag("texts").is_some_and(|texts| texts.value) {
                continue;
            }
            for spot in trunk.texts("prefixes").unwrap_or_default() {
                let digits = spot.value.trim_start_matches('+');
                if let Some((number, _)) = self.taken.iter().find(|(number, _)| number.digits() == digits) {
                    report
                        .note(spot.at, format!("texts to {number} do not go out here: it is a short code, which wins"))
                        .hint("give the short code another number if they are to go out");
                }
            }
        }
    }
}

/// With or without `+`: what is dialled and what was typed differ by it often.
fn is_same(one: &Msisdn, other: &Msisdn) -> bool {
    one.digits() == other.digits()
}

/// The number as its subscriber has it, with or without `+`, and where.
fn owned(number: &Msisdn, roll: &Roll) -> Option<(Msisdn, Place)> {
    let other = match number.is_international() {
        true => Msisdn::parse(number.digits()),
        false => Msisdn::parse(&format!("+{number}")),
    };
    let forms = [Some(*number), other.ok()];
    forms.into_iter().flatten().find_map(|form| Some((form, roll.place_of_number(&form)?)))
}

fn read_does(view: &View<'_>, report: &mut Report<'_>) -> Option<&'static str> {
    let spot = view.required_text("does", "answer", report)?;
    let Some((does, _)) = DOES.into_iter().find(|(does, _)| *does == spot.value) else {
        let all = DOES.map(|(does, _)| does);
        let hint = match keys::nearest(spot.value, all) {
            Some(near) => format!("did you mean \"{near}\"?"),
            None => format!("write one of {}", all.join(", ")),
        };
        report.problem(spot.at, format!("`does` cannot be {}", shown(spot.value))).hint(hint);
        return None;
    };
    for (other, keys) in DOES.iter().filter(|(other, _)| *other != does) {
        for key in keys.iter().filter(|key| view.has(key)) {
            report
                .problem(view.place_of(key), format!("a short code that does \"{does}\" has no `{key}`"))
                .hint(format!("remove it, or write does = \"{other}\""));
        }
    }
    Some(does)
}

fn read_action(
    view: &View<'_>,
    does: &str,
    roll: &Roll,
    language: Language,
    report: &mut Report<'_>,
) -> Option<CodeAction> {
    match does {
        "own_number" => Some(CodeAction::OwnNumber),
        "status" => Some(CodeAction::Status),
        "choose_number" => Some(CodeAction::ChooseNumber),
        "answer" => {
            if !view.has("texts") {
                view.require("text", "text = \"..\"", report);
            }
            let mut all: Vec<(Option<Language>, String)> = Vec::new();
            all.extend(view.text("text").and_then(|spot| Some((None, value_to_say(spot, report)?))));
            for (name, text) in view.by_language("texts") {
                let (name, text) = (value(name, sims::language, report), value_to_say(text, report));
                if let (Some(name), Some(text)) = (name, text) {
                    all.push((Some(name), text));
                }
            }
            if view.is_empty_table("texts") && !view.has("text") {
                report
                    .problem(view.place_of("texts"), "a short code that has nothing to answer")
                    .hint("write text = \"..\"");
            }
            // The first one is everybody's who has none of his own. The sort is stable.
            all.sort_by_key(|(of, _)| of.is_some_and(|of| of != language));
            (!all.is_empty()).then_some(CodeAction::Answer(all))
        }
        "hook" => {
            let mut timeout = SECOND * 5;
            read_duration(view, "timeout", SECOND / 10..=MINUTE, &mut timeout, report);
            let url = view.required_text("url", "http://127.0.0.1:8000/sms", report)?;
            Some(CodeAction::Hook {
                url: value(url, |text| self::url(text, "http://127.0.0.1:8000/sms"), report)?,
                timeout,
            })
        }
        "group" => {
            view.require("members", "members = [\"2001\", \"2002\"]", report);
            Some(CodeAction::Group { members: read_numbers(view, "members", roll, report)? })
        }
        // Whoever may text to everybody is named.
        "broadcast" => {
            view.require("senders", "senders = [\"2001\"]", report);
            Some(CodeAction::Broadcast)
        }
        _ => None,
    }
}

/// A list of subscribers by their numbers, each as he has it.
fn read_numbers(view: &View<'_>, key: &str, roll: &Roll, report: &mut Report<'_>) -> Option<Vec<Msisdn>> {
    let texts = view.texts(key)?;
    if view.is_empty_list(key) {
        report.problem(view.place_of(key), format!("`{key}` names nobody")).hint("write at least one number");
    }
    if texts.len() > NUMBERS_MAX {
        report
            .problem(view.place_of(key), format!("`{key}` has {} numbers", texts.len()))
            .hint(format!("{NUMBERS_MAX} are the most"));
    }
    let mut all: Vec<Msisdn> = Vec::new();
    let mut seen = BTreeSet::new();
    for spot in texts {
        let Some(number) = value(spot, sims::parse_number, report) else { continue };
        let owned = owned(&number, roll);
        if owned.is_none() {
            report
                .note(spot.at, format!("nobody has the number {number}"))
                .hint("give it to a subscriber, or take it out of the list");
        }
        // Twice in the list is once in it.
        let number = owned.map_or(number, |(number, _)| number);
        if seen.insert(number) {
            all.push(number);
        }
    }
    Some(all)
}

/// Nothing of it is repeated: it may hold a password.
pub(super) fn url(text: &str, example: &str) -> Result<String, Flaw> {
    let flaw = |what: &str| Err(Flaw { what: what.into(), hint: format!("write one such as \"{example}\"") });
    let Some(rest) = text.strip_prefix("http://").or_else(|| text.strip_prefix("https://")) else {
        return flaw("this URL does not begin with http:// or https://");
    };
    if text.len() > 1_000 || !text.bytes().all(|byte| byte.is_ascii_graphic()) || text.contains('#') {
        return flaw("this is no URL of at most 1000 characters without blanks and `#`");
    }
    let authority = rest.split(['/', '?']).next().unwrap_or_default();
    if authority.contains('@') {
        return flaw("a user or a password stands in this URL");
    }
    // The port is what follows the last colon that is not inside an address in brackets.
    let (host, port) = match authority.rsplit_once(':') {
        Some((host, port)) if !port.contains(']') => (host, Some(port)),
        _ => (authority, None),
    };
    let is_address = host.strip_prefix('[').and_then(|host| host.strip_suffix(']'));
    let is_host = match is_address {
        Some(address) => address.parse::<std::net::Ipv6Addr>().is_ok(),
        None => !host.is_empty() && host.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-._".contains(&byte)),
    };
    let is_port = |port: &str| port.parse::<u16>().is_ok_and(|port| port > 0);
    if !is_host || !port.is_none_or(is_port) {
        return flaw("this URL has no host, or no port where one should stand");
    }
    Ok(text.to_owned())
}

// --- [[texts]] ---

pub(super) fn read_templates(root: &View<'_>, roll: &Roll, report: &mut Report<'_>) -> Templates {
    let mut templates = Templates::default();
    let section = root.table("messages");
    let default = section.and_then(|section| section.text("language"));
    if let Some(language) = default.and_then(|spot| value(spot, sims::language, report)) {
        templates.default_language = language;
    }
    let mut once = Once::default();
    // English is there without being written.
    let mut known = BTreeSet::from([Language::default()]);
    for view in root.tables("texts") {
        let language = view.required_text("language", "sw", report);
        let language = language.and_then(|spot| Some(Spot::new(value(spot, sims::language, report)?, spot.at)));
        if let Some(Spot { value: language, at }) = language {
            let name = language.as_str();
            once.take(name.to_owned(), at, || format!("there is a [[texts]] in \"{name}\" already"), report);
            known.insert(language);
        }
        for word in Word::all() {
            let Some(spot) = view.text(word.key()) else { continue };
            let template = value(spot, |text| holes_of(text, word), report).and_then(|()| value_to_say(spot, report));
            if let (Some(language), Some(template)) = (language, template) {
                templates.written.insert((language.value, word), template);
            }
        }
    }
    if let Some(spot) = default
        && !known.contains(&templates.default_language)
    {
        note_missing(templates.default_language, spot.at, "in English", report);
    }
    for (language, at) in roll.languages().filter(|(language, _)| !known.contains(language)) {
        note_missing(language, at, "in the `language` of [messages]", report);
    }
    templates
}

fn note_missing(language: Language, at: Place, instead: &str, report: &mut Report<'_>) {
    let language = language.as_str();
    report
        .note(at, format!("there is no [[texts]] in \"{language}\", so all is said {instead}"))
        .hint(format!("write a [[texts]] with language = \"{language}\""));
}

/// Whether everything in braces is something that is known on this occasion.
fn holes_of(text: &str, word: Word) -> Result<(), Flaw> {
    let may_hold = word.may_hold().iter().map(|name| format!("{{{name}}}")).collect::<Vec<_>>();
    let mut rest = text;
    while let Some((_, behind)) = rest.split_once('{') {
        let Some((name, behind)) = behind.split_once('}') else {
            return Err(Flaw {
                what: "a brace is opened and not closed".into(),
                hint: format!("write {}", may_hold.join(", ")),
            });
        };
        if !word.may_hold().contains(&name) {
            let hint = match keys::nearest(name, word.may_hold().iter().copied()) {
                Some(near) => format!("did you mean {{{near}}}? Here may stand {}", may_hold.join(", ")),
                None => format!("here may stand {}", may_hold.join(", ")),
            };
            let shown: String = name.chars().take(40).flat_map(char::escape_debug).collect();
            return Err(Flaw { what: format!("`{}` has nothing for {{{shown}}}", word.key()), hint });
        }
        rest = behind;
    }
    Ok(())
}

/// A text that the centre is to say: not empty, not too long. One that is not in the GSM alphabet is noted.
fn value_to_say(spot: Spot<&str>, report: &mut Report<'_>) -> Option<String> {
    let text = spot.value;
    if text.trim().is_empty() {
        report.problem(spot.at, "this text is empty").hint("write what is to be said, or leave the key out");
        return None;
    }
    let mut lacking: Vec<char> = text.chars().filter(|char| septets(char.encode_utf8(&mut [0; 4])).is_none()).collect();
    let (one, part) = if lacking.is_empty() { (160, 153) } else { (70, 67) };
    let parts = segment::split(text, &Cut::new(Reference::Short(0))).map(|parts| parts.len());
    if parts.is_err() || parts.is_ok_and(|parts| parts > PARTS_MAX) {
        let count = parts.map_or_else(|_| "more than 255".into(), |parts| parts.to_string());
        report
            .problem(spot.at, format!("this text would go in {count} parts of {part} characters"))
            .hint(format!("{PARTS_MAX} are the most"));
        return None;
    }
    if !lacking.is_empty() {
        lacking.sort_unstable();
        lacking.dedup();
        let shown: Vec<String> = lacking.iter().take(5).map(|char| format!("{char:?}")).collect();
        let more = if lacking.len() > shown.len() { ", .." } else { "" };
        report.note(
            spot.at,
            format!(
                "this text goes as UCS-2, {one} characters in one message instead of 160: the GSM alphabet lacks {}{more}",
                shown.join(", ")
            ),
        );
    }
    Some(text.to_owned())
}
