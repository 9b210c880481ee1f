//! What a dialled number means: a phone of ours, trunks in the order in which they are tried, or nobody; for calls and for texts.
//!
//! Knows: emergency numbers, subscribers, prefixes. Does not know: where a phone is, or whether a trunk answers. Pure.

use crate::config::{Settings, Subscriber};
use crate::site::Site;

/// Where a call is to go.
#[derive(Clone, Debug)]
pub enum Dialled<'a> {
    Phone(&'a Subscriber),
    /// Indices into `Settings::trunks`, the first one to be tried first; never empty.
    Trunks(Vec<usize>),
    Emergency(Vec<usize>),
    /// Not a number of ours, and no trunk takes it.
    Nobody,
    /// It would be a trunk's, but there is none for it.
    NoTrunk,
}

/// What a phone dialled. Emergency first: whatever else the number may be.
pub fn by_phone<'a>(site: &'a Site, user: &str) -> Dialled<'a> {
    let settings = &site.settings;
    if is_emergency(settings, user) {
        let mut trunks: Vec<usize> = settings.emergency.trunk.into_iter().collect();
        trunks.extend(trunks_for(settings, user).into_iter().filter(|trunk| Some(*trunk) != settings.emergency.trunk));
        return if trunks.is_empty() { Dialled::NoTrunk } else { Dialled::Emergency(trunks) };
    }
    if let Some(subscriber) = site.resolve(user) {
        return Dialled::Phone(subscriber);
    }
    // "Numbers that are nobody's go from a phone to the trunk (unless `[dialplan] local_prefixes` has them: 404)" (DESIGN section 9).
    if settings.dialplan.local_prefixes.iter().any(|prefix| user.starts_with(prefix.as_str())) {
        return Dialled::Nobody;
    }
    match trunks_for(settings, user) {
        trunks if trunks.is_empty() => Dialled::Nobody,
        trunks => Dialled::Trunks(trunks),
    }
}

/// What came from a trunk: a phone of ours, "and never from trunk to trunk" (DESIGN section 9).
pub fn by_trunk<'a>(site: &'a Site, user: &str) -> Dialled<'a> {
    site.resolve(user).map_or(Dialled::Nobody, Dialled::Phone)
}

pub fn is_emergency(settings: &Settings, user: &str) -> bool {
    let bare = user.strip_prefix('+').unwrap_or(user);
    bare.eq_ignore_ascii_case("sos")
        || bare.eq_ignore_ascii_case("emergency")
        || settings.emergency.numbers.iter().any(|number| number == bare)
}

/// Where a text goes whose number is nobody's here.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum TextWay {
    /// To the trunks of [`text_trunks`].
    Trunks,
    /// By the mail route of this place in the settings.
    Mail(usize),
}

/// The longest prefix decides between trunks that take texts and mail routes, the trunk where both are as long; of two routes the first. A route
/// that is no longer than a prefix of ours has nothing.
pub fn text_way(settings: &Settings, number: &str) -> Option<TextWay> {
    let local = settings.dialplan.local_prefixes.iter().filter(|prefix| number.starts_with(prefix.as_str()));
    let local = local.map(String::len).max();
    let routes = settings.mail.iter().flat_map(|mail| &mail.routes);
    let routes = routes.enumerate().filter_map(|(index, route)| Some((longest(&route.prefixes, number)?, index)));
    let route = routes.reduce(|best, next| if next.0 > best.0 { next } else { best });
    let route = route.filter(|(length, _)| local.is_none_or(|local| *length > local));
    let trunk =
        text_trunks(settings, number).first().and_then(|trunk| longest(&settings.trunks[*trunk].prefixes, number));
    match (trunk, route) {
        (None, None) => None,
        (Some(trunk), Some((route, index))) if route > trunk => Some(TextWay::Mail(index)),
        (Some(_), _) => Some(TextWay::Trunks),
        (None, Some((_, index))) => Some(TextWay::Mail(index)),
    }
}

/// How much of a number the longest fitting prefix is; no prefix at all fits every number.
fn longest(prefixes: &[String], number: &str) -> Option<usize> {
    let fitting = prefixes.iter().filter(|prefix| number.starts_with(prefix.as_str()));
    fitting.map(String::len).max().or(prefixes.is_empty().then_some(0))
}

/// The trunks that take a text to a number that is nobody's here, in the order in which they are tried.
pub fn text_trunks(settings: &Settings, number: &str) -> Vec<usize> {
    if settings.dialplan.local_prefixes.iter().any(|prefix| number.starts_with(prefix.as_str())) {
        return Vec::new();
    }
    trunks_for(settings, number).into_iter().filter(|trunk| settings.trunks[*trunk].texts).collect()
}

/// The longest prefix first, then in the order of the file; one without prefixes is the last resort of every number. Letter by letter,
/// the `+` included: `+1` must not take 112.
fn trunks_for(settings: &Settings, user: &str) -> Vec<usize> {
    let mut fitting: Vec<(usize, usize)> = settings
        .trunks
        .iter()
        .enumerate()
        .filter_map(|(index, trunk)| Some((longest(&trunk.prefixes, user)?, index)))
        .collect();
    fitting.sort_by_key(|(length, _)| std::cmp::Reverse(*length));
    fitting.into_iter().map(|(_, index)| index).collect()
}
