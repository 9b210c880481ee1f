//! Who may write to whom by mail.
//!
//! Knows: the settings, who speaks, and what he wrote. Does not know: what was written before (caps per day, first contact, copies: that is
//! the message centre's). Pure. Mail for other domains is refused whoever brings it: this box relays nobody's mail.
//! Each refusal says its reason, for the operator and for the sender: his server shows it to him.
//! Source: RFC 5321 §3.6 and §4.1.2, RFC 3463 §3, RFC 7372 (its codes), RFC 8601 §5 (whose results are believed).

use std::net::IpAddr;

use super::address::{Address, Pattern};
use super::{MailIn, Peer, Proof, RcptTo, Reply};
use crate::config::mailing::{Senders, Unproven};
use crate::config::{Mail, Settings, Subscriber};
use crate::ident::{Imsi, Msisdn};
use crate::route::dialplan;

/// Why somebody is asked for no more than his address.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Trust {
    /// Anybody.
    None,
    /// A server that brings mail of the operator's own people.
    Server,
    /// Another box of the operator's.
    Box,
    /// Who has logged in.
    User,
}

fn trust(mail: &Mail, peer: &Peer) -> Trust {
    let ip = peer.ip.to_canonical();
    if peer.user.is_some() {
        Trust::User
    } else if mail.boxes.iter().any(|network| network.contains(ip)) {
        Trust::Box
    } else if mail.trusted.iter().any(|network| network.contains(ip)) {
        Trust::Server
    } else {
        Trust::None
    }
}

fn no_mail() -> Reply {
    Reply::new(421, (4, 3, 2), "mail is no longer taken here")
}

/// Whether a server speaks through which everybody writes: its findings are believed, and it has no other right.
fn is_front(mail: &Mail, peer: &Peer) -> bool {
    let ip = peer.ip.to_canonical();
    mail.fronts.iter().any(|network| network.contains(ip))
}

/// Whether it is somebody whom the operator has listed.
pub fn is_listed(mail: &Mail, ip: IpAddr) -> bool {
    let ip = ip.to_canonical();
    let listed = mail.fronts.iter().chain(&mail.trusted).chain(&mail.boxes);
    listed.into_iter().any(|network| network.contains(ip))
}

/// Whether a trusted server, another box, or somebody who has logged in speaks.
pub fn is_trusted(settings: &Settings, peer: &Peer) -> bool {
    settings.mail.as_deref().is_some_and(|mail| trust(mail, peer) != Trust::None)
}

/// Whether another box of the operator's speaks: what it says of a phone's text is believed.
pub fn is_box(settings: &Settings, peer: &Peer) -> bool {
    let ip = peer.ip.to_canonical();
    settings.mail.as_deref().is_some_and(|mail| mail.boxes.iter().any(|network| network.contains(ip)))
}

/// May he send at all? What lists say of him is asked for each recipient: a subscriber's own come first.
pub fn sender(settings: &Settings, peer: &Peer, from: Option<&Address>) -> Result<(), Reply> {
    let Some(mail) = settings.mail.as_deref() else { return Err(no_mail()) };
    match from {
        // Nobody outside writes as one of our phones: its answer would go to a phone that never wrote.
        Some(from) if from.domain() == mail.domain && trust(mail, peer) == Trust::None => {
            Err(Reply::new(550, (5, 7, 1), format!("{} is this box: it does not write from outside", mail.domain)))
        }
        _ => Ok(()),
    }
}

/// Whom this address is, if he may be written to by this sender.
pub fn recipient(settings: &Settings, peer: &Peer, from: Option<&Address>, typed: &Address) -> Result<RcptTo, Reply> {
    let Some(mail) = settings.mail.as_deref() else { return Err(no_mail()) };
    let refused = |status, text: &str| Err(Reply::new(550, status, text));
    if typed.domain() != mail.domain {
        let text = format!("no mail is relayed here: {} is the only domain", mail.domain);
        return Err(Reply::new(550, (5, 7, 1), text));
    }
    let local = typed.local();
    // Each of them is a way to write another address into this one: `a%b`, `b!a`, `"a@b"`.
    if local.contains(['%', '!', '@', '"', '\\', ':', '/']) {
        return refused((5, 7, 1), "no mail is relayed here: that is an address within an address");
    }
    let number = Msisdn::parse(local).ok();
    if let Some(number) = &number {
        // To be read in a quiet hour is not what somebody wants who writes there.
        if dialplan::is_emergency(settings, number.digits()) {
            return refused((5, 1, 1), "no mail goes to an emergency number: call it");
        }
        let is_code = |code: &Msisdn| code.digits() == number.digits();
        if settings.code(number.digits()).is_some() || mail.short_code.as_ref().is_some_and(is_code) {
            return refused((5, 1, 1), "that number is the message centre's own");
        }
        if mail.is_in_pool(number) {
            return refused((5, 1, 1), "that number stands for somebody who writes mail, and is no phone");
        }
    }
    if let Some(subscriber) = subscriber(settings, local, number.as_ref()) {
        if subscriber.barred {
            return refused((5, 2, 1), "this subscriber is barred");
        }
        return admitted(mail, peer, from, Some(subscriber)).map(|()| RcptTo::Phone(subscriber.imsi));
    }
    if let Some(number) = &number
        && let Some(number) = elsewhere(settings, number)
    {
        if trust(mail, peer) == Trust::None {
            return refused(
                (5, 7, 1),
                "that number is not here, and only who is listed or has logged in writes further",
            );
        }
        return admitted(mail, peer, from, None).map(|()| RcptTo::Elsewhere(number));
    }
    match number {
        Some(_) => refused((5, 1, 1), "no subscriber has this number"),
        None => refused((5, 1, 1), "no subscriber has this name"),
    }
}

/// A number, an IMSI or a name.
fn subscriber<'a>(settings: &'a Settings, local: &str, number: Option<&Msisdn>) -> Option<&'a Subscriber> {
    let subscribers = &settings.subscribers;
    if let Some(number) = number {
        let found = subscribers.by_number(number).or_else(|| subscribers.by_number(&other(number)?));
        if found.is_some() {
            return found;
        }
    }
    // The word has to stand there: fifteen digits are a number first.
    let imsi = local.get(..4).is_some_and(|head| head.eq_ignore_ascii_case("imsi"));
    let imsi = if imsi { Imsi::parse(local).ok() } else { None };
    imsi.and_then(|imsi| subscribers.get(&imsi)).or_else(|| subscribers.by_alias(local))
}

/// The same number with `+`, or without it: what is dialled and what was typed differ by it often.
fn other(number: &Msisdn) -> Option<Msisdn> {
    let other = if number.is_international() { number.digits().to_owned() } else { format!("+{}", number.digits()) };
    Msisdn::parse(&other).ok()
}

/// In the form in which a trunk or a route takes it.
fn elsewhere(settings: &Settings, number: &Msisdn) -> Option<Msisdn> {
    let forms = [Some(*number), other(number)];
    forms.into_iter().flatten().find(|number| {
        let number = number.to_string();
        dialplan::text_way(settings, &number).is_some()
    })
}

/// What the lists say of this sender. Nothing is asked of `<>`: who sent something hears what became of it.
fn admitted(mail: &Mail, peer: &Peer, from: Option<&Address>, to: Option<&Subscriber>) -> Result<(), Reply> {
    let Some(from) = from else { return Ok(()) };
    let own = to.and_then(|subscriber| subscriber.mail.as_deref());
    match own.and_then(|own| listed(&own.allow, &own.deny, from)) {
        Some(true) => return Ok(()),
        Some(false) => return Err(Reply::new(550, (5, 7, 1), "this subscriber wants no mail of this sender")),
        None => (),
    }
    match listed(&mail.allow, &mail.deny, from) {
        Some(true) => Ok(()),
        Some(false) => Err(Reply::new(550, (5, 7, 1), "no mail of this sender is wanted here")),
        None if mail.senders == Senders::Listed && trust(mail, peer) == Trust::None => {
            Err(Reply::new(550, (5, 7, 1), "only listed senders write here"))
        }
        None => Ok(()),
    }
}

/// Whether `allow` or `deny` has this sender. Of two patterns the closer one counts, the address before the domain before everybody; where
/// both are as close, `deny`.
fn listed(allow: &[Pattern], deny: &[Pattern], from: &Address) -> Option<bool> {
    let closest = |patterns: &[Pattern]| {
        let found = patterns.iter().filter(|pattern| pattern.has(from)).map(|pattern| match pattern {
            Pattern::Everybody => 0,
            Pattern::Domain(domain) => domain.len(),
            Pattern::One(_) => usize::MAX,
        });
        found.max()
    };
    match (closest(allow), closest(deny)) {
        (None, None) => None,
        (allowed, denied) => Some(allowed > denied),
    }
}

/// Whether an allow list has him: the subscriber's first, as everywhere.
pub fn is_allowed(settings: &Settings, to: &Imsi, from: &Address) -> bool {
    let Some(mail) = settings.mail.as_deref() else { return false };
    let own = settings.subscribers.get(to).and_then(|subscriber| subscriber.mail.as_deref());
    let own = own.and_then(|own| listed(&own.allow, &own.deny, from));
    own.or_else(|| listed(&mail.allow, &mail.deny, from)) == Some(true)
}

/// Whether SPF, DKIM or DMARC speak against its sender, as far as somebody says so whom we believe: a server named in `results_from`, in
/// a mail that one of `fronts` brings. Anybody can write such a line.
pub fn proven(settings: &Settings, mail_in: &MailIn) -> Result<(), Reply> {
    let Some(mail) = settings.mail.as_deref() else { return Err(no_mail()) };
    let trust = trust(mail, &mail_in.peer);
    let is_front = is_front(mail, &mail_in.peer);
    // A bounce has no sender to prove; who is trusted has proven who he is, but for a server through which others write as well.
    let is_known = matches!(trust, Trust::User | Trust::Box) || (trust == Trust::Server && !is_front);
    if mail_in.from.is_none() || is_known || mail.unproven == Unproven::Accept {
        return Ok(());
    }
    let believed = mail_in
        .letter
        .results
        .iter()
        .filter(|results| is_front && mail.results_from.iter().any(|name| name.eq_ignore_ascii_case(&results.by)));
    let (mut spf, mut dkim, mut dmarc) = (None, None, None);
    for results in believed {
        // Several lines of one server: each tells what one of its parts has found. Of two that tell the same the upper one is the
        // server's: below it is what the mail had brought along, in that server's name, where it was not taken out (RFC 8601 §5).
        for (of_all, of_one) in [(&mut spf, results.spf), (&mut dkim, results.dkim), (&mut dmarc, results.dmarc)] {
            *of_all = of_all.or(of_one);
        }
    }
    let refused = |status, text| Err(Reply::new(550, status, text));
    match (dmarc, dkim, spf) {
        // It needs one of the other two to pass, and for the address that people see.
        (Some(Proof::Pass), ..) => Ok(()),
        (Some(Proof::Fail), ..) => refused((5, 7, 1), "its sender's domain says that it is not from there (DMARC)"),
        // A list that writes a line below a mail breaks its signature, and such a one counts as none (RFC 6376 §6.3). Here it does where
        // SPF speaks for nobody either.
        (_, Some(Proof::Fail), None | Some(Proof::Fail)) => refused((5, 7, 20), "its signature is wrong (DKIM)"),
        (.., Some(Proof::Fail)) => refused((5, 7, 23), "its sender's domain does not send from there (SPF)"),
        (_, Some(Proof::Pass), _) | (.., Some(Proof::Pass)) => Ok(()),
        _ if mail.unproven == Unproven::Refuse => {
            refused((5, 7, 26), "nothing proves its sender: none of SPF, DKIM and DMARC passed")
        }
        _ => Ok(()),
    }
}

/// Whether it goes round: too many servers have passed it on, or this one has seen it.
pub fn no_loop(settings: &Settings, mail_in: &MailIn) -> Result<(), Reply> {
    let Some(mail) = settings.mail.as_deref() else { return Err(no_mail()) };
    let letter = &mail_in.letter;
    if letter.received_count > mail.received_max {
        let text = format!("it goes round: {} servers have passed it on", letter.received_count);
        return Err(Reply::new(554, (5, 4, 6), text));
    }
    if letter.traces.iter().any(|domain| domain.eq_ignore_ascii_case(&mail.domain)) {
        return Err(Reply::new(554, (5, 4, 6), "it goes round: it has been here before"));
    }
    Ok(())
}
