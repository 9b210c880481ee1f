//! `[mail]`, `[pictures]`, `[[mail_user]]` and `[[mail_route]]`, from the operator's text to [`Mail`].
//!
//! Knows: which numbers, names and listeners of mail contradict each other or somebody else's. Does not know: what is done with
//! a mail; files (whether a certificate is one, the shell finds out).
//! Secrets: a password is never repeated in a problem.
//! Limits: [`POOL_MAX`] numbers to answer to.

use std::net::IpAddr;
use std::ops::RangeInclusive;
use std::path::Path as FilePath;
use std::time::Duration;

use super::calling;
use super::mailing::{
    FirstContact, Mail, MailListener, MailProtocol, MailRoute, MailUser, NumberRange, Pictures, Relay, RelayTls,
    Senders, SubjectRule, Unproven,
};
use super::read::{Bound, Once, networks, path, read_duration, value};
use super::sims::{self, Roll, shown};
use super::text::{Place, Report, Spot};
use super::texting::url;
use super::typed::View;
use super::units::{self, Flaw};
use super::{Dialplan, Emergency, Messages, ShortCode, Trunk, keys};
use crate::ident::{Msisdn, Network};
use crate::mail::address::{Address, Pattern};

const SECOND: Duration = Duration::from_secs(1);
const MINUTE: Duration = Duration::from_secs(60);
const DAY: Duration = Duration::from_secs(86_400);

/// Each has at most one contact per phone; a pool that is larger than this is a slip in a range.
const POOL_MAX: u64 = 100_000;

/// What stands for the number in the `to` of a route.
const NUMBER: &str = "{number}";

/// What the other parts of the files say that bears on mail.
pub(super) struct Around<'a> {
    /// Of the box; empty where it was not understood.
    pub domain: &'a str,
    pub data_dir: &'a FilePath,
    pub trunks: &'a [Trunk],
    pub dialplan: &'a Dialplan,
    pub emergency: &'a Emergency,
    pub messages: &'a Messages,
    pub short_codes: &'a [ShortCode],
    pub roll: &'a Roll,
}

pub(super) fn read_mail(
    root: &View<'_>,
    around: &Around<'_>,
    bound: &mut Bound,
    report: &mut Report<'_>,
) -> Option<Mail> {
    let Some(section) = root.table("mail") else {
        // One of the wrong shape has been reported, and is there.
        if !root.has("mail") {
            without_mail(root, around.roll, report);
        }
        return None;
    };
    let mut mail = Mail::of(around.domain);
    if let Some(domain) = section.text("domain").and_then(|spot| value(spot, units::host_name, report)) {
        mail.domain = domain;
    }
    read_certificate(&section, &mut mail, report);
    read_listeners(&section, bound, &mut mail, report);
    mail.relay = read_relay(&section, report);
    read_numbers(root, &section, around, &mut mail, report);
    mail.users = read_users(root, report);
    read_policy(&section, &mut mail, report);
    read_limits(&section, &mut mail, report);
    mail.routes = read_routes(root, around, &mail, report);
    mail.pictures = read_pictures(root, around, bound, report);
    for (address, at) in around.roll.copies().filter(|(address, _)| address.domain() == mail.domain) {
        report
            .problem(at, format!("{} is an address of this box: the copy would come back as a text", address.domain()))
            .hint("write the address of a mailbox elsewhere");
    }
    Some(mail)
}

/// What means nothing where there is no mail.
fn without_mail(root: &View<'_>, roll: &Roll, report: &mut Report<'_>) {
    const HINT: &str = "write [mail] as well, if only its title";
    let tables = ["mail_user", "mail_route"].into_iter().flat_map(|name| {
        let first = root.tables(name).first().map(|view| view.at);
        Some((format!("[[{name}]]"), first?))
    });
    let pictures = root.table("pictures").map(|view| ("[pictures]".to_owned(), view.at));
    for (title, at) in tables.chain(pictures) {
        report.problem(at, format!("{title} without [mail]")).hint(HINT);
    }
    if let Some(at) = roll.first_of_mail() {
        report.note(at, "what a subscriber has of mail has no effect without [mail]").hint(HINT);
    }
}

// --- Who is listened to, and where it goes ---

fn read_certificate(section: &View<'_>, mail: &mut Mail, report: &mut Report<'_>) {
    for (given, missing) in [("certificate", "certificate_key"), ("certificate_key", "certificate")] {
        if section.has(given) && !section.has(missing) {
            report
                .problem(section.place_of(given), format!("a `{given}` without a `{missing}`"))
                .hint("write both, each the path of a PEM file, or neither to do without TLS");
        }
    }
    mail.certificate = section.text("certificate").and_then(|spot| path(spot, report));
    mail.certificate_key = section.text("certificate_key").and_then(|spot| path(spot, report));
}

fn read_listeners(section: &View<'_>, bound: &mut Bound, mail: &mut Mail, report: &mut Report<'_>) {
    for spot in section.texts("listen").unwrap_or_default() {
        let Some(listener) = value(spot, listener, report) else { continue };
        if listener.protocol == MailProtocol::SmtpInTls && !section.has("certificate") {
            report
                .problem(spot.at, "there is no certificate to speak TLS with")
                .hint("write `certificate` and `certificate_key`, or listen on tcp");
        }
        if bound.take_tcp(listener.address, spot.at, report) {
            mail.listen.push(listener);
        }
    }
}

const PROTOCOLS: [(&str, MailProtocol, u16); 3] =
    [("tcp", MailProtocol::Smtp, 25), ("tls", MailProtocol::SmtpInTls, 465), ("lmtp", MailProtocol::Lmtp, 24)];

/// `tcp:0.0.0.0:25`, `tls:[::]:465`, `lmtp:127.0.0.1:24`.
fn listener(text: &str) -> Result<MailListener, Flaw> {
    let known = text.split_once(':').and_then(|(name, address)| {
        let (_, protocol, port) = PROTOCOLS.into_iter().find(|(known, ..)| *known == name)?;
        Some((name, protocol, port, address))
    });
    let Some((name, protocol, port, address)) = known else {
        return Err(Flaw {
            what: format!("{} does not say tcp, tls or lmtp", shown(text)),
            hint: "write \"tcp:0.0.0.0:25\", \"tls:0.0.0.0:465\" or \"lmtp:127.0.0.1:24\"".into(),
        });
    };
    let address = units::address_to_listen_on(address, &format!("{name}:"), port)?;
    Ok(MailListener { protocol, address })
}

pub(super) fn listener_shown(listener: &MailListener) -> String {
    let name = PROTOCOLS.into_iter().find(|(_, protocol, _)| *protocol == listener.protocol);
    format!("{}:{}", name.map_or("", |(name, ..)| name), listener.address)
}

fn read_relay(section: &View<'_>, report: &mut Report<'_>) -> Option<Relay> {
    let Some(spot) = section.text("relay") else {
        let keys = ["relay_tls", "relay_username", "relay_password", "relay_authority"];
        for key in keys.into_iter().filter(|key| section.has(key) && !section.has("relay")) {
            report
                .problem(section.place_of(key), format!("a `{key}` without a `relay`"))
                .hint("write relay = \"smtp://mail.example\", or remove it: mail goes straight to the MX");
        }
        return None;
    };
    for (given, missing) in [("relay_username", "relay_password"), ("relay_password", "relay_username")] {
        if section.has(given) && !section.has(missing) {
            report
                .problem(section.place_of(given), format!("a `{given}` without a `{missing}`"))
                .hint("write both, or neither where the relay asks for no login");
        }
    }
    let has_login = section.has("relay_username");
    let username = section.text("relay_username").and_then(|spot| value(spot, calling::username, report));
    let password = section.text("relay_password").and_then(|spot| value(spot, calling::password, report));
    let authority = section.text("relay_authority").and_then(|spot| path(spot, report));
    let wanted = pick(
        section,
        "relay_tls",
        &[("required", RelayTls::Required), ("offered", RelayTls::IfOffered), ("never", RelayTls::Never)],
        report,
    );
    let (from_start, host, port) = value(spot, relay, report)?;
    let tls_at = section.place_of("relay_tls");
    let tls = match (from_start, wanted) {
        (true, None | Some(RelayTls::FromStart | RelayTls::Required)) => RelayTls::FromStart,
        (true, Some(RelayTls::IfOffered | RelayTls::Never)) => {
            report
                .problem(tls_at, "smtps:// is TLS from the first octet on")
                .hint("remove `relay_tls`, or write smtp:// in `relay`");
            RelayTls::FromStart
        }
        (false, Some(wanted)) => wanted,
        (false, None) if has_login => RelayTls::Required,
        (false, None) => RelayTls::IfOffered,
    };
    // What is not encrypted, and what is encrypted to nobody knows whom, may be read by anybody on the way.
    if has_login && matches!(tls, RelayTls::IfOffered | RelayTls::Never) && !is_loopback(&host) {
        report
            .problem(tls_at, "the password could be read on its way to the relay")
            .hint("write relay_tls = \"required\"; without it passwords go to this machine only");
    }
    if authority.is_some() && matches!(tls, RelayTls::IfOffered | RelayTls::Never) {
        report
            .note(section.place_of("relay_authority"), "the relay's certificate is not looked at")
            .hint("write relay_tls = \"required\"");
    }
    let port = port.unwrap_or(match (from_start, has_login) {
        (true, _) => 465,
        (false, true) => 587,
        (false, false) => 25,
    });
    Some(Relay { host, port, tls, username, password, authority })
}

/// `smtp://mail.example:587`: whether it is TLS from the start, the host without brackets, the port where one is written.
fn relay(text: &str) -> Result<(bool, String, Option<u16>), Flaw> {
    let flaw = |what: String| Flaw {
        what,
        hint: "write \"smtp://mail.example\", \"smtp://mail.example:587\" or \"smtps://mail.example\"".into(),
    };
    // Nothing of it is repeated: it may hold a password.
    if text.contains('@') {
        return Err(Flaw {
            what: "a user or a password stands in this URL".into(),
            hint: "write them as `relay_username` and `relay_password`".into(),
        });
    }
    let (from_start, rest) = match (text.strip_prefix("smtp://"), text.strip_prefix("smtps://")) {
        (Some(rest), _) => (false, rest),
        (None, Some(rest)) => (true, rest),
        (None, None) => return Err(flaw(format!("{} does not begin with smtp:// or smtps://", shown(text)))),
    };
    let rest = rest.strip_suffix('/').unwrap_or(rest);
    let (host, port) = match rest.rsplit_once(':') {
        Some((host, port)) if !port.contains(']') => (host, Some(port)),
        _ => (rest, None),
    };
    let port = match port.map(str::parse::<u16>) {
        None => None,
        Some(Ok(port)) if port > 0 => Some(port),
        Some(_) => return Err(flaw(format!("{} has no port where one should stand", shown(text)))),
    };
    let in_brackets = host.strip_prefix('[').and_then(|rest| rest.strip_suffix(']'));
    let is_address = match in_brackets {
        Some(inside) => inside.parse::<std::net::Ipv6Addr>().is_ok(),
        None => host.parse::<std::net::Ipv4Addr>().is_ok(),
    };
    if is_address {
        return Ok((from_start, in_brackets.unwrap_or(host).to_owned(), port));
    }
    match units::host_name(host) {
        Ok(host) => Ok((from_start, host, port)),
        Err(_) => Err(flaw(format!("{} names no host", shown(text)))),
    }
}

/// Without the login.
pub(super) fn relay_shown(relay: &Relay) -> String {
    let Relay { host, port, tls, .. } = relay;
    let (scheme, tls) = match tls {
        RelayTls::FromStart => ("smtps", ""),
        RelayTls::Required => ("smtp", ", TLS required"),
        RelayTls::IfOffered => ("smtp", ", TLS where offered"),
        RelayTls::Never => ("smtp", ", never TLS"),
    };
    let host = if host.contains(':') { format!("[{host}]") } else { host.clone() };
    format!("{scheme}://{host}:{port}{tls}")
}

fn is_loopback(host: &str) -> bool {
    host == "localhost" || host.parse::<IpAddr>().is_ok_and(|address| address.is_loopback())
}

// --- Numbers ---

fn read_numbers(root: &View<'_>, section: &View<'_>, around: &Around<'_>, mail: &mut Mail, report: &mut Report<'_>) {
    let code = section.text("short_code");
    if let Some((spot, number)) = code.and_then(|spot| Some((spot, value(spot, sims::parse_number, report)?))) {
        let is_this = |other: &Msisdn| other.digits() == number.digits();
        let is_centre = around.messages.service_centre.trim_start_matches('+') == number.digits();
        // The centre's own number is what it is by default.
        if !is_centre {
            claim(root, around, spot.at, is_this, report);
        }
        mail.short_code = Some(number);
    }
    let mut count = 0;
    for spot in section.texts("reply_pool").unwrap_or_default() {
        let Some(range) = value(spot, number_range, report) else { continue };
        count += range.count();
        let ends = |one: &NumberRange| (one.first.digits().to_owned(), one.last.digits().to_owned());
        let (first, last) = ends(&range);
        let is_twice = mail.reply_pool.iter().map(ends).any(|(other_first, other_last)| {
            other_first.len() == first.len() && other_first <= last && first <= other_last
        });
        if is_twice {
            report.problem(spot.at, "a number of this stands in the pool already").hint("write each number once");
        }
        if let (Some(code), Some(number)) = (code, mail.short_code.filter(|number| range.has(number))) {
            let code = report.name_of(code.at);
            report
                .problem(spot.at, format!("{number} is the `short_code` of mail"))
                .hint(format!("it is given at {code}: write numbers without it"));
        }
        claim(root, around, spot.at, |number| range.has(number), report);
        mail.reply_pool.push(range);
    }
    if count > POOL_MAX {
        report
            .problem(section.place_of("reply_pool"), format!("`reply_pool` has {count} numbers"))
            .hint(format!("{POOL_MAX} are the most"));
    }
}

/// Reports who else has a number that mail is to have.
fn claim(root: &View<'_>, around: &Around<'_>, at: Place, has: impl Fn(&Msisdn) -> bool, report: &mut Report<'_>) {
    let mut others: Vec<(String, Option<Place>)> = Vec::new();
    if let Some(centre) = Msisdn::parse(&around.messages.service_centre).ok().filter(&has) {
        let place = root.table("messages").and_then(|section| Some(section.text("service_centre")?.at));
        others.push((format!("{centre} is the number of the message centre"), place));
    }
    for code in around.short_codes.iter().filter(|code| has(&code.number)) {
        let number = code.number;
        others.push((format!("{number} is a short code"), place_of_code(root, &number)));
    }
    for number in around.emergency.numbers.iter().filter_map(|number| Msisdn::parse(number).ok()).filter(&has) {
        others.push((format!("{number} is an emergency number"), None));
    }
    // Of a thousand subscribers in a range the first is enough.
    if let Some((place, number)) = around.roll.numbers().filter(|(_, number)| has(number)).min() {
        others.push((format!("a subscriber has the number {number}"), Some(place)));
    }
    for (what, place) in others {
        let hint = match place {
            Some(place) => format!("it is given at {}: write another one here", report.name_of(place)),
            None => "write another one here".to_owned(),
        };
        report.problem(at, what).hint(hint);
    }
}

/// Where a short code was written; `None` for one that is there by default.
fn place_of_code(root: &View<'_>, number: &Msisdn) -> Option<Place> {
    let tables = root.tables("short_code").into_iter().filter_map(|view| view.text("number")).collect::<Vec<_>>();
    let keys = root.table("messages").into_iter();
    let keys = keys.flat_map(|section| ["number_code", "status_code"].map(|key| section.text(key))).flatten();
    let is_it = |spot: &Spot<&str>| spot.value.trim_start_matches('+') == number.digits();
    keys.chain(tables).find(is_it).map(|spot| spot.at)
}

/// `+15559000-+15559099`, or one number.
fn number_range(text: &str) -> Result<NumberRange, Flaw> {
    let flaw = |what: &str| Flaw {
        what: format!("{} {what}", shown(text)),
        hint: "write the first and the last number, as long as each other: \"+15559000-+15559099\"".into(),
    };
    let Some((first, last)) = text.split_once('-') else {
        let number = sims::parse_number(text)?;
        return Ok(NumberRange { first: number, last: number });
    };
    let number = |text: &str| Msisdn::parse(text.trim()).map_err(|_| flaw("is no range of numbers"));
    let (first, last) = (number(first)?, number(last)?);
    if first.is_international() != last.is_international() {
        return Err(flaw("has a + on one side only"));
    }
    if first.digits().len() != last.digits().len() {
        return Err(flaw("ends with a number of another length"));
    }
    if first > last {
        return Err(flaw("ends before it begins"));
    }
    Ok(NumberRange { first, last })
}

pub(super) fn range_shown(range: &NumberRange) -> String {
    match range.first == range.last {
        true => range.first.to_string(),
        false => format!("{}-{}", range.first, range.last),
    }
}

fn read_routes(root: &View<'_>, around: &Around<'_>, mail: &Mail, report: &mut Report<'_>) -> Vec<MailRoute> {
    let mut once = Once::default();
    let mut all = Vec::new();
    for view in root.tables("mail_route") {
        let is_box = view.flag("box").is_some_and(|flag| flag.value);
        let to = view.required_text("to", "{number}@sms.hill.example", report);
        let to = to.and_then(|spot| value(spot, |text| route_to(text, is_box, &mail.domain), report));
        let mut prefixes = Vec::new();
        for spot in view.texts("prefixes").unwrap_or_default() {
            let Some(prefix) = value(spot, calling::prefix, report) else { continue };
            let what = || format!("there is a [[mail_route]] for {prefix} already");
            once.take(prefix.clone(), spot.at, what, report);
            note_unused_prefix(around, mail, &Spot::new(prefix.as_str(), spot.at), report);
            prefixes.push(prefix);
        }
        if prefixes.is_empty() && !view.has("prefixes") {
            once.take(String::new(), view.at, || "there is a [[mail_route]] for every number already".into(), report);
            let trunk = around.trunks.iter().find(|trunk| trunk.texts && trunk.prefixes.is_empty());
            if let Some(trunk) = trunk {
                report
                    .note(view.at, format!("no text goes this way: the trunk `{}` takes every number too", trunk.name))
                    .hint("of a trunk and a [[mail_route]] for the same numbers the trunk has them");
            }
        } else if view.is_empty_list("prefixes") {
            report
                .problem(view.place_of("prefixes"), "this route has no numbers")
                .hint("write at least one prefix, or leave the key out for every number");
        }
        all.extend(to.map(|to| MailRoute { prefixes, to, is_box }));
    }
    all
}

fn route_to(text: &str, is_box: bool, own: &str) -> Result<String, Flaw> {
    const HINT: &str = "write where such a text goes: \"{number}@sms.hill.example\"";
    let flaw = |what: String| Err(Flaw { what, hint: HINT.into() });
    // The longest that there is, so that no other one makes the address too long.
    let filled = text.replace(NUMBER, "+123456789012345");
    if filled.contains(['{', '}']) {
        return flaw(format!("nothing but {NUMBER} is filled in, and {} has more in braces", shown(text)));
    }
    let address = match Address::parse(&filled) {
        Ok(address) => address,
        Err(error) => return flaw(format!("{} is no address of mail: {error}", shown(text))),
    };
    if address.domain() == own {
        return Err(Flaw {
            what: format!("{own} is the mail domain of this box: the text would come back"),
            hint: "write the address of another box, or of a mailbox".into(),
        });
    }
    if is_box && !text.contains(NUMBER) {
        return flaw(format!("without {NUMBER} another box does not know whom a text is for"));
    }
    Ok(text.to_owned())
}

/// A prefix that is the whole of a number which is somebody's here, or that a trunk or `local_prefixes` has as well.
fn note_unused_prefix(around: &Around<'_>, mail: &Mail, prefix: &Spot<&str>, report: &mut Report<'_>) {
    let trunk = around.trunks.iter().find(|trunk| trunk.texts && trunk.prefixes.iter().any(|one| one == prefix.value));
    if let Some(trunk) = trunk {
        report
            .note(prefix.at, format!("no text goes this way: the trunk `{}` has the prefix too", trunk.name))
            .hint("of a trunk and a [[mail_route]] for the same numbers the trunk has them");
    }
    if around.dialplan.local_prefixes.iter().any(|local| local == prefix.value) {
        report
            .note(prefix.at, format!("no text goes this way: {:?} is in `local_prefixes`", prefix.value))
            .hint("write a longer prefix for what of it is elsewhere");
    }
    let Ok(number) = Msisdn::parse(prefix.value) else { return };
    let is_it = |other: &Msisdn| other.digits() == number.digits();
    let centre = around.messages.service_centre.trim_start_matches('+') == number.digits();
    let whose = if centre || mail.short_code.as_ref().is_some_and(is_it) {
        "the message centre's"
    } else if around.short_codes.iter().any(|code| is_it(&code.number)) {
        "a short code"
    } else if mail.is_in_pool(&number) {
        "in the `reply_pool`"
    } else if around.roll.numbers().any(|(_, other)| is_it(&other)) {
        "a subscriber's"
    } else {
        return;
    };
    report
        .note(prefix.at, format!("texts to {number} do not go this way: it is {whose}, which wins"))
        .hint("a prefix is the beginning of numbers that are elsewhere");
}

// --- Who may, and how much ---

fn read_users(root: &View<'_>, report: &mut Report<'_>) -> Vec<MailUser> {
    let mut names = Once::default();
    let mut all = Vec::new();
    for view in root.tables("mail_user") {
        let name = view.required_text("name", "clinic", report);
        let password = view.required_text("password", "secret", report);
        let name = name.and_then(|spot| Some(Spot::new(value(spot, calling::username, report)?, spot.at)));
        let password = password.and_then(|spot| value(spot, calling::password, report));
        if let Some(Spot { value: name, at }) = &name {
            names.take(name.clone(), *at, || format!("there is a [[mail_user]] {} already", shown(name)), report);
        }
        if let (Some(name), Some(password)) = (name, password) {
            all.push(MailUser { name: name.value, password });
        }
    }
    all
}

fn read_policy(section: &View<'_>, mail: &mut Mail, report: &mut Report<'_>) {
    mail.fronts = networks(Some(section), "fronts", report);
    mail.trusted = networks(Some(section), "trusted", report);
    mail.boxes = networks(Some(section), "boxes", report);
    let is_everywhere = |network: &Network| network.to_string().ends_with("/0");
    for (key, all) in [("fronts", &mail.fronts), ("trusted", &mail.trusted), ("boxes", &mail.boxes)] {
        if all.iter().any(is_everywhere) {
            report
                .note(section.place_of(key), format!("everybody is in `{key}`"))
                .hint("name the networks of those whom you know");
        }
    }
    // A right that goes with the address goes to all whose mail comes from there.
    for (key, all) in [("trusted", &mail.trusted), ("boxes", &mail.boxes)] {
        if let Some(front) = mail.fronts.iter().find(|front| all.iter().any(|one| one == *front)) {
            report
                .note(
                    section.place_of(key),
                    format!("{front} is in `fronts`, too: who writes through it has the rights of `{key}`"),
                )
                .hint("a server that brings mail of everybody stands in `fronts` alone");
        }
    }
    let senders = [("everyone", Senders::Everyone), ("listed", Senders::Listed)];
    mail.senders = pick(section, "senders", &senders, report).unwrap_or(mail.senders);
    mail.allow = patterns(section, "allow", report);
    mail.deny = patterns(section, "deny", report);
    let names = section.texts("results_from").unwrap_or_default();
    mail.results_from = names.into_iter().filter_map(|spot| value(spot, server_name, report)).collect();
    let unproven =
        [("accept", Unproven::Accept), ("refuse_failed", Unproven::RefuseFailed), ("refuse", Unproven::Refuse)];
    mail.unproven = pick(section, "unproven", &unproven, report).unwrap_or(mail.unproven);
    let first_contact = [("accept", FirstContact::Accept), ("ask", FirstContact::Ask)];
    mail.first_contact = pick(section, "first_contact", &first_contact, report).unwrap_or(mail.first_contact);
    let subject = [("never", SubjectRule::Never), ("new", SubjectRule::New), ("always", SubjectRule::Always)];
    mail.subject = pick(section, "subject", &subject, report).unwrap_or(mail.subject);

    let nobody = mail.users.is_empty() && mail.trusted.is_empty() && mail.boxes.is_empty() && mail.allow.is_empty();
    if mail.senders == Senders::Listed && nobody {
        report
            .note(section.place_of("senders"), "nobody is listed, so only subscribers' own lists let anybody write")
            .hint("write `allow`, `trusted` or `boxes`, or a [[mail_user]]");
    }
    if !mail.results_from.is_empty() && mail.fronts.is_empty() {
        report
            .note(section.place_of("results_from"), "nobody is in `fronts`, so nobody's findings are believed")
            .hint("write the address of the server that brings the mail in `fronts`");
    } else if mail.unproven == Unproven::Refuse && !section.has("results_from") {
        report
            .note(section.place_of("unproven"), "no server's findings are believed, so every mail is unproven")
            .hint("write `results_from` with the name of the server that checks SPF, DKIM and DMARC");
    }
}

fn patterns(section: &View<'_>, key: &str, report: &mut Report<'_>) -> Vec<Pattern> {
    let texts = section.texts(key).unwrap_or_default();
    texts.into_iter().filter_map(|spot| value(spot, pattern, report)).collect()
}

pub(super) fn pattern(text: &str) -> Result<Pattern, Flaw> {
    Pattern::parse(text).map_err(|error| Flaw {
        what: format!("{} is no address of mail: {error}", shown(text)),
        hint: "write \"carol@example.org\", \"@example.org\" for all of a domain, or \"*\" for everybody".into(),
    })
}

pub(super) fn address(text: &str) -> Result<Address, Flaw> {
    Address::parse(text).map_err(|error| Flaw {
        what: format!("{} is no address of mail: {error}", shown(text)),
        hint: "write one such as \"ana@example.org\"".into(),
    })
}

/// A name before the `@` of the mail domain, in small letters. What looks like a number or an IMSI would hide who has it.
pub(super) fn alias(text: &str) -> Result<Box<str>, Flaw> {
    let small = text.to_lowercase();
    let flaw = |what: &str, hint: &str| Err(Flaw { what: format!("{} {what}", shown(text)), hint: hint.into() });
    if text.contains('@') {
        return flaw("is a whole address", "write what stands before the @ only: \"ana\"");
    }
    let digits = small.strip_prefix("imsi").or(small.strip_prefix('+')).unwrap_or(&small);
    if !digits.is_empty() && digits.bytes().all(|byte| byte.is_ascii_digit()) {
        return flaw("looks like a number or an IMSI", "those are addresses already: write a name with letters");
    }
    let fits = |char: char| char.is_alphanumeric() || matches!(char, '.' | '-' | '_');
    if !small.chars().all(fits) || Address::parse(&format!("{small}@sms.example")).is_err() {
        return flaw("is no name for an address", "write letters, digits and . - _ between them, at most 64: \"ana\"");
    }
    Ok(small.into())
}

/// The authserv-id of a server, as it stands in Authentication-Results (RFC 8601 §2.5), in small letters.
fn server_name(text: &str) -> Result<String, Flaw> {
    let fits = |byte: u8| byte.is_ascii_graphic() && !matches!(byte, b';' | b'"');
    match text.is_empty() || text.len() > 255 || !text.bytes().all(fits) {
        true => Err(Flaw {
            what: format!("{} is no name of a server", shown(text)),
            hint: "write it as it stands in its Authentication-Results: \"mx.example.org\"".into(),
        }),
        false => Ok(text.to_ascii_lowercase()),
    }
}

/// One of a few words.
fn pick<T: Copy>(section: &View<'_>, key: &str, words: &[(&str, T)], report: &mut Report<'_>) -> Option<T> {
    let spot = section.text(key)?;
    if let Some((_, meant)) = words.iter().find(|(word, _)| *word == spot.value) {
        return Some(*meant);
    }
    let hint = match keys::nearest(spot.value, words.iter().map(|(word, _)| *word)) {
        Some(near) => format!("did you mean \"{near}\"?"),
        None => format!("write one of {}", words.iter().map(|(word, _)| *word).collect::<Vec<_>>().join(", ")),
    };
    report.problem(spot.at, format!("`{key}` cannot be {}", shown(spot.value))).hint(hint);
    None
}

fn read_limits(section: &View<'_>, mail: &mut Mail, report: &mut Report<'_>) {
    let caps =
        [("per_sender_day_max", &mut mail.per_sender_day_max), ("per_phone_day_max", &mut mail.per_phone_day_max)];
    for (key, into) in caps {
        if let Some(count) = section.count(key) {
            *into = count.value as u32;
        }
    }
    let counts = [
        ("segments_max", &mut mail.segments_max),
        ("recipients_max", &mut mail.recipients_max),
        ("received_max", &mut mail.received_max),
        ("sessions_max", &mut mail.sessions_max),
        ("sessions_per_address_max", &mut mail.sessions_per_address_max),
        ("count_max", &mut mail.count_max),
    ];
    for (key, into) in counts {
        if let Some(count) = section.count(key) {
            *into = count.value as usize;
        }
    }
    read_size(section, "size_max", 10_000..=100_000_000, &mut mail.size_max, report);
    read_duration(section, "command_timeout", SECOND..=MINUTE * 60, &mut mail.command_timeout, report);
    read_duration(section, "session_max", SECOND..=DAY, &mut mail.session_max, report);
    read_duration(section, "life_max", SECOND..=DAY * 60, &mut mail.life_max, report);
    read_duration(section, "thread_life", MINUTE..=DAY * 365, &mut mail.thread_life, report);

    // Who only shortens the whole need not know of its part.
    if !section.has("sessions_per_address_max") {
        mail.sessions_per_address_max = mail.sessions_per_address_max.min(mail.sessions_max);
    }
    if !section.has("command_timeout") {
        mail.command_timeout = mail.command_timeout.min(mail.session_max);
    }
    if mail.sessions_per_address_max > mail.sessions_max {
        let (one, all) = (mail.sessions_per_address_max, mail.sessions_max);
        report
            .problem(
                section.place_of("sessions_per_address_max"),
                format!("`sessions_per_address_max` ({one}) is above `sessions_max` ({all})"),
            )
            .hint("the default of sessions_per_address_max is 20, of sessions_max 200");
    }
    if mail.command_timeout > mail.session_max {
        let (one, all) = (units::shown(mail.command_timeout), units::shown(mail.session_max));
        report
            .problem(
                section.place_of("command_timeout"),
                format!("`command_timeout` ({one}) is above `session_max` ({all})"),
            )
            .hint("the default of command_timeout is 5 min, of session_max 30 min");
    }
}

fn read_size(section: &View<'_>, key: &str, allowed: RangeInclusive<u64>, into: &mut u64, report: &mut Report<'_>) {
    let given = section.count(key).or_else(|| {
        let spot = section.text(key)?;
        Some(Spot::new(value(spot, units::size, report)?, spot.at))
    });
    match given {
        None => {}
        Some(spot) if allowed.contains(&spot.value) => *into = spot.value,
        Some(spot) => report.problem(spot.at, format!("`{key}` cannot be {} bytes", spot.value)).hint(format!(
            "write something from {} kB to {} MB",
            allowed.start() / 1_000,
            allowed.end() / 1_000_000
        )),
    }
}

// --- [pictures] ---

fn read_pictures(root: &View<'_>, around: &Around<'_>, bound: &mut Bound, report: &mut Report<'_>) -> Option<Pictures> {
    let section = root.table("pictures")?;
    let listen = section.required_text("listen", "0.0.0.0:8090", report);
    let base = section.required_text("url", "http://192.0.2.1:8090", report);
    let listen = listen.and_then(|spot| {
        let address = value(spot, |text| units::address_to_listen_on(text, "", 8_090), report)?;
        bound.take_tcp(address, spot.at, report).then_some(address)
    });
    let base = base.and_then(|spot| value(spot, page, report));
    let mut pictures = Pictures::of(
        around.data_dir,
        listen.unwrap_or_else(|| ([0, 0, 0, 0], 0).into()),
        base.clone().unwrap_or_default(),
    );
    read_size(&section, "size_max", 1_000..=100_000_000, &mut pictures.size_max, report);
    read_size(&section, "bytes_max", 1_000_000..=1_000_000_000_000, &mut pictures.bytes_max, report);
    read_duration(&section, "life", MINUTE..=DAY * 365, &mut pictures.life, report);
    read_duration(&section, "open_life", SECOND..=DAY * 365, &mut pictures.open_life, report);
    if !section.has("size_max") {
        pictures.size_max = pictures.size_max.min(pictures.bytes_max);
    }
    if pictures.size_max > pictures.bytes_max {
        let (one, all) = (pictures.size_max, pictures.bytes_max);
        report
            .problem(section.place_of("size_max"), format!("`size_max` ({one}) is above `bytes_max` ({all})"))
            .hint("the default of size_max is 5 MB, of bytes_max 256 MB");
    }
    (listen.is_some() && base.is_some()).then_some(pictures)
}

/// What stands before the name of a page: no path of its own, and no `/` at its end.
fn page(text: &str) -> Result<String, Flaw> {
    const EXAMPLE: &str = "http://192.0.2.1:8090";
    let text = url(text.strip_suffix('/').unwrap_or(text), EXAMPLE)?;
    match text.split_once("://").is_some_and(|(_, rest)| !rest.contains(['/', '?'])) {
        true => Ok(text),
        false => Err(Flaw {
            what: "a path stands in this URL".into(),
            hint: format!("the box makes the paths itself: write one such as \"{EXAMPLE}\""),
        }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_relay_is_a_host_and_perhaps_a_port() {
        let read = |text: &str| relay(text).map_err(|flaw| flaw.what);
        assert_eq!(read("smtp://Mail.example:587"), Ok((false, "mail.example".into(), Some(587))));
        assert_eq!(read("smtps://mail.example/"), Ok((true, "mail.example".into(), None)));
        assert_eq!(read("smtp://[::1]:2525"), Ok((false, "::1".into(), Some(2_525))));
        assert_eq!(read("smtp://[::1]"), Ok((false, "::1".into(), None)));
        assert_eq!(read("smtp://127.0.0.1"), Ok((false, "127.0.0.1".into(), None)));
        for wrong in [
            "mail.example",
            "smtp://",
            "smtp://a b",
            "smtp://a:0",
            "smtp://a:",
            "smtp://a/b",
            "smtp://[a]",
            "smtp://::1",
        ] {
            assert!(read(wrong).is_err(), "{wrong}");
        }
        let told = read("smtp://me:hunter2@mail.example").unwrap_err();
        assert!(!told.contains("hunter2"), "{told}");
    }

    #[test]
    fn an_alias_is_a_name_that_nobody_takes_for_a_number() {
        for (text, meant) in
            [("Ana", "ana"), ("ana.b-c_d", "ana.b-c_d"), ("Jörg", "jörg"), ("imsi", "imsi"), ("a1", "a1")]
        {
            assert_eq!(alias(text).map_err(|flaw| flaw.what).as_deref(), Ok(meant));
        }
        for text in
            ["2001", "+2001", "IMSI001010000000001", "imsi1", "", ".ana", "a b", "a%b", "a!b", "a@b.example", "ana+x"]
        {
            assert!(alias(text).is_err(), "{text:?}");
        }
        assert!(alias(&"a".repeat(65)).is_err());
    }

    #[test]
    fn a_route_fills_in_the_number_and_nothing_else() {
        let to = |text: &str, is_box| route_to(text, is_box, "sms.gsm.example").map_err(|flaw| flaw.what);
        assert!(to("{number}@sms.hill.example", true).is_ok());
        assert!(to("desk@example.org", false).is_ok() && to("desk@example.org", true).is_err());
        for wrong in ["{number}", "{nummer}@a.example", "a@{number}.example", "{number}@sms.GSM.example", "}@a.example"]
        {
            assert!(to(wrong, false).is_err(), "{wrong}");
        }
        assert!(to(&format!("{}{{number}}@a.example", "a".repeat(49)), false).is_err(), "too long with any number");
        assert!(to(&format!("{}{{number}}@a.example", "a".repeat(48)), false).is_ok());
    }
}
