//! May a subscriber have the number that he asks for?
//!
//! Knows: every number that the settings give to somebody or something. Does not know: what he is told. Pure.

use super::Settings;
use crate::ident::{Imsi, Msisdn};

/// Why he may not.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum WhyNot {
    /// It is another subscriber's.
    Taken,
    /// It is the message centre's, a short code, of mail, an emergency number, or belongs to the world behind a trunk or
    /// a mail route.
    Reserved,
    /// It has too few digits or too many, or a `+`.
    Digits,
    /// He has a number already.
    Held,
}

/// Whether this subscriber may have this number.
///
/// Shape:  whoever dials leaves out a `+` or adds one and is understood ([`crate::site::Site::resolve`]), so a number is looked
///         at in both forms: nobody gets `15550001` beside `+15550001`.
/// Errors: [`WhyNot`]; that he has a number already comes before what is wrong with this one.
/// Tests:  tests/config.rs
pub fn may_have(settings: &Settings, imsi: Imsi, number: Msisdn) -> Result<(), WhyNot> {
    if settings.subscribers.get(&imsi).is_some_and(|subscriber| !subscriber.msisdn.is_empty()) {
        return Err(WhyNot::Held);
    }
    let (digits, messages) = (number.digits(), &settings.messages);
    let wanted = messages.number_digits_min..=messages.number_digits_max;
    if number.is_international() || !wanted.contains(&digits.len()) {
        return Err(WhyNot::Digits);
    }
    let forms = [digits.to_owned(), format!("+{digits}")];
    let is_centre = messages.service_centre.trim_start_matches('+') == digits;
    let is_code = settings.short_codes.iter().any(|code| code.number.digits() == digits);
    let is_mail = settings
        .mail
        .as_ref()
        .is_some_and(|mail| mail.is_in_pool(&number) || mail.short_code.is_some_and(|code| code.digits() == digits));
    // 112 and 911 are always among them.
    let is_emergency = settings.emergency.numbers.iter().any(|emergency| emergency == digits);
    if is_centre || is_code || is_mail || is_emergency || forms.iter().any(|form| is_outside(settings, form)) {
        return Err(WhyNot::Reserved);
    }
    // What is dialled is held against the IMSIs first.
    let is_imsi = Imsi::parse(digits).is_ok_and(|imsi| settings.subscribers.get(&imsi).is_some());
    let is_given =
        |form: &String| Msisdn::parse(form).is_ok_and(|number| settings.subscribers.by_number(&number).is_some());
    if is_imsi || forms.iter().any(is_given) {
        return Err(WhyNot::Taken);
    }
    Ok(())
}

/// Whether this, as it is dialled, goes out by the prefix of a trunk or a mail route: then it is somebody's elsewhere. One that is in
/// `local_prefixes` goes out by no trunk, and by a route only where that has a longer prefix.
fn is_outside(settings: &Settings, dialled: &str) -> bool {
    let begins = |prefix: &String| dialled.starts_with(prefix.as_str());
    let local = settings.dialplan.local_prefixes.iter().filter(|prefix| begins(prefix)).map(String::len).max();
    let routes = settings.mail.iter().flat_map(|mail| &mail.routes);
    let mut routed = routes.flat_map(|route| &route.prefixes).filter(|prefix| begins(prefix)).map(String::len);
    routed.any(|routed| local.is_none_or(|local| routed > local))
        || (local.is_none() && settings.trunks.iter().any(|trunk| trunk.prefixes.iter().any(begins)))
}
