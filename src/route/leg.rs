//! One dialog of a call that passes through us: its identity, and the requests that it is spoken to with.
//!
//! Knows: Call-ID, tags, CSeq, where the other side is, and when a request that nobody answers is sent again. Does not know: what the
//! call is about. Every leg is its own: OpenBTS matches by Call-ID and CSeq only, so two phones in one cell would cross.
//! Source: RFC 3261 §12 (dialogs), §17.1 (client transactions); wire.md 3.

use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::ident::Imsi;
use crate::seam::{Local, Output, Port, ReplyTo};
use crate::sip::header::{HeaderName, NameAddr, Uri, values};
use crate::sip::parse::Message;
use crate::sip::write::Writer;
use crate::site::{Site, World};
use crate::time::Instant;

/// T1 of RFC 3261, an estimate of the round trip: what nobody answers is sent again after it, then twice as late each time.
pub const T1: Duration = Duration::from_millis(500);
/// T2: the longest pause between two copies of a request that is no INVITE, and of an answer that waits for its ACK.
pub const T2: Duration = Duration::from_secs(4);
/// 64*T1: then nobody will answer any more.
pub const PATIENCE: Duration = Duration::from_secs(32);

/// Who is at the other end of a leg.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub enum Party {
    /// A phone, at a base station.
    Phone { imsi: Option<String>, cell: Option<String> },
    /// A trunk, by its name: its place in the settings may change while the call lasts.
    Trunk { name: String },
}

impl Party {
    pub fn is_phone(&self) -> bool {
        matches!(self, Party::Phone { .. })
    }

    pub fn imsi(&self) -> Option<Imsi> {
        match self {
            Party::Phone { imsi, .. } => imsi.as_deref().and_then(|imsi| Imsi::parse(imsi).ok()),
            Party::Trunk { .. } => None,
        }
    }
}

/// How the other end is reached.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Way {
    Datagram {
        from: Local,
        to: SocketAddr,
    },
    /// The connection that the INVITE came on.
    Stream {
        conn: crate::seam::ConnId,
        peer: SocketAddr,
    },
}

impl Way {
    pub fn of(reply: ReplyTo, peer: SocketAddr) -> Way {
        match reply {
            ReplyTo::Datagram { from, to } => Way::Datagram { from, to },
            ReplyTo::Stream(conn) => Way::Stream { conn, peer },
        }
    }

    /// From our first port for datagrams.
    pub fn to(site: &Site, to: SocketAddr) -> Option<Way> {
        site.own_port().map(|(from, _)| Way::Datagram { from, to })
    }

    pub fn peer(&self) -> SocketAddr {
        match self {
            Way::Datagram { to, .. } => *to,
            Way::Stream { peer, .. } => *peer,
        }
    }

    pub fn send(&self, w: &mut World<'_, '_>, bytes: Vec<u8>) {
        w.ctx.out.send(match *self {
            Way::Datagram { from, to } => Output::Datagram { from, to, bytes },
            Way::Stream { conn, .. } => Output::Stream { conn, bytes },
        });
    }

    fn transport(&self) -> &'static str {
        match self {
            Way::Datagram { .. } => "UDP",
            Way::Stream { .. } => "TCP",
        }
    }
}

/// One dialog, as we see it.
#[derive(Clone, Debug)]
pub struct Leg {
    pub party: Party,
    pub way: Way,
    pub call_id: String,
    /// Our side's name-addr, as it stands in From of our requests, without its tag; and the tag.
    pub local: String,
    pub local_tag: String,
    /// The other side's, and its tag once it is known.
    pub remote: String,
    pub remote_tag: Option<String>,
    /// The other side's Contact: the Request-URI of what we send inside the dialog.
    pub target: String,
    pub route: Vec<String>,
    /// The last CSeq number that we used, and the last of theirs.
    pub cseq: u32,
    pub remote_cseq: u32,
    /// The session description that the other side last heard from us: what a refresh is answered with.
    pub told: Option<(String, Vec<u8>)>,
    /// By when the far side must have refreshed the session (RFC 4028), and the interval.
    pub refresh: Option<(Instant, Duration)>,
}

impl Leg {
    /// The leg of whoever sent us this INVITE.
    pub fn called_by(site: &Site, message: &Message<'_>, way: Way, party: Party, local_tag: String) -> Option<Leg> {
        let (from, to) = (message.from().ok()?, message.to().ok()?);
        let target = first_contact(message).unwrap_or_else(|| from.uri.to_owned());
        // "The route set MUST be set to the list of URIs in the Record-Route header field from the request, taken in order"
        // (RFC 3261 §12.1.1).
        let route = message.headers_of(HeaderName::RecordRoute).flat_map(values).map(str::to_owned).collect();
        let mut leg = Leg {
            party,
            way,
            call_id: message.call_id().to_owned(),
            local: format!("<{}>", to.uri),
            local_tag,
            remote: format!("<{}>", from.uri),
            remote_tag: from.tag().map(str::to_owned),
            target,
            route,
            cseq: 0,
            remote_cseq: message.cseq().0,
            told: None,
            refresh: None,
        };
        leg.aim(site);
        Some(leg)
    }

    /// Where a trunk wants to be spoken to: at its first Route, else at its Contact. One that names an address which nobody listed
    /// (its own, behind a NAT) is spoken to where it speaks from.
    fn aim(&mut self, site: &Site) {
        let (Way::Datagram { to, .. }, Party::Trunk { .. }) = (&mut self.way, &self.party) else { return };
        let route = self.route.first().and_then(|route| NameAddr::parse(route).ok()).map(|route| route.uri);
        if let Some(address) = address_of(route.unwrap_or(&self.target)).filter(|address| site.is_listed(address.ip()))
        {
            *to = address;
        }
    }

    /// Takes what an answer to our INVITE says of the other side.
    pub fn learn(&mut self, site: &Site, message: &Message<'_>, from: SocketAddr) {
        if let Some(tag) = message.to().ok().and_then(|to| to.tag()) {
            self.remote_tag = Some(tag.to_owned());
        }
        if let Some(target) = first_contact(message) {
            self.target = target;
        }
        // "…in reverse order" (RFC 3261 §12.1.2).
        self.route = message.headers_of(HeaderName::RecordRoute).flat_map(values).map(str::to_owned).collect();
        self.route.reverse();
        // A base station has one socket for everything, whatever its Contact says (wire.md 0).
        if let Way::Datagram { to, .. } = &mut self.way {
            *to = from;
        }
        self.aim(site);
        self.learn_cell(message);
    }

    /// The serving cell, from P-Access-Network-Info.
    pub fn learn_cell(&mut self, message: &Message<'_>) {
        let cell = message.header_named("P-Access-Network-Info").and_then(crate::sip::header::cgi_3gpp);
        if let (Party::Phone { cell: known, .. }, Some(cell)) =
            (&mut self.party, cell.and_then(crate::ident::CellId::parse_cgi))
        {
            *known = Some(cell.to_string());
        }
    }

    /// A request inside this dialog with everything but its body and what is special to it; ends with the caller's `finish`.
    ///
    /// `cseq` is the number, already counted.
    pub fn request(&self, site: &Site, method: &str, cseq: u32, branch: &str) -> Writer {
        let own = own_address(site);
        let mut writer = Writer::request(method, &self.target);
        writer
            .header_fmt("Via", format_args!("SIP/2.0/{} {own};branch={branch}", self.way.transport()))
            .header_fmt("From", format_args!("{};tag={}", self.local, self.local_tag));
        match &self.remote_tag {
            Some(tag) => writer.header_fmt("To", format_args!("{};tag={tag}", self.remote)),
            None => writer.header("To", &self.remote),
        };
        writer
            .header("Call-ID", &self.call_id)
            .header_fmt("CSeq", format_args!("{cseq} {method}"))
            .header("Max-Forwards", "70");
        for route in &self.route {
            writer.header("Route", route);
        }
        writer
    }

    /// `<sip:user@us>`: where the other side sends what belongs to this dialog.
    pub fn contact(&self, site: &Site, user: &str) -> String {
        let own = own_address(site);
        match self.way {
            Way::Datagram { .. } => format!("<sip:{user}@{own}>"),
            Way::Stream { .. } => format!("<sip:{user}@{own};transport=tcp>"),
        }
    }

    /// Whether a request belongs to this dialog: by Call-ID and tags, never by its Request-URI, which has lost our Contact's user
    /// (wire.md 3.2).
    pub fn is_of(&self, message: &Message<'_>) -> bool {
        let theirs = message.from().ok().and_then(|from| from.tag());
        let ours = message.to().ok().and_then(|to| to.tag());
        message.call_id() == self.call_id
            && match &self.remote_tag {
                Some(tag) => theirs == Some(tag),
                None => ours == Some(&self.local_tag),
            }
    }
}

/// Our numeric address, as others are told.
pub fn own_address(site: &Site) -> SocketAddr {
    site.own_port().map_or(SocketAddr::from(([0, 0, 0, 0], 5060)), |(_, own)| own)
}

fn first_contact(message: &Message<'_>) -> Option<String> {
    let value = message.headers_of(HeaderName::Contact).flat_map(values).next()?;
    NameAddr::parse(value).ok().map(|contact| contact.uri.to_owned())
}

/// The address in a URI, where it stands there in digits.
pub fn address_of(uri: &str) -> Option<SocketAddr> {
    Uri::parse(uri).ok()?.address()
}

/// When something is sent again, and given up.
#[derive(Clone, Copy, Debug)]
pub struct Resend {
    pub at: Instant,
    pub pause: Duration,
    pub pause_max: Duration,
    pub until: Instant,
}

impl Resend {
    /// Timer A: never capped (RFC 3261 §17.1.1.2).
    pub fn invite(now: Instant, patience: Duration) -> Resend {
        Resend { at: now + T1, pause: T1, pause_max: PATIENCE, until: now + patience }
    }

    /// Again and again after the same pause.
    pub fn every(now: Instant, pause: Duration, until: Instant) -> Resend {
        Resend { at: now + pause, pause, pause_max: pause, until }
    }

    /// Timers E and G: doubled up to T2.
    pub fn other(now: Instant, patience: Duration) -> Resend {
        Resend { at: now + T1, pause: T1, pause_max: T2, until: now + patience }
    }

    /// The next thing that is due.
    pub fn due(&self) -> Instant {
        self.at.min(self.until)
    }

    pub fn is_over(&self, now: Instant) -> bool {
        now >= self.until
    }

    /// Whether it is to be sent again now; the next time is set.
    pub fn is_due(&mut self, now: Instant) -> bool {
        if now < self.at {
            return false;
        }
        self.pause = (self.pause * 2).min(self.pause_max);
        self.at = now + self.pause;
        true
    }
}

/// What of a way survives a restart: a connection does not, so a trunk on one is spoken to by datagrams afterwards.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct KeptWay {
    /// `f0`, `r1.0`: the port, by its place in the settings.
    port: Option<String>,
    address: Option<IpAddr>,
    to: SocketAddr,
}

impl KeptWay {
    pub fn of(way: &Way) -> KeptWay {
        match way {
            Way::Datagram { from, to } => {
                let port = match from.port {
                    Port::Front(n) => format!("f{n}"),
                    Port::Replica(n, m) => format!("r{n}.{m}"),
                };
                KeptWay { port: Some(port), address: from.address, to: *to }
            }
            Way::Stream { peer, .. } => KeptWay { port: None, address: None, to: *peer },
        }
    }

    pub fn way(&self, site: &Site) -> Option<Way> {
        let port = self.port.as_deref().and_then(|text| match text.split_at_checked(1)? {
            ("f", n) => {
                let n: u16 = n.parse().ok()?;
                site.settings.front.listen.get(usize::from(n)).map(|_| Port::Front(n))
            }
            ("r", rest) => {
                let (n, m) = rest.split_once('.')?;
                Some(Port::Replica(n.parse().ok()?, m.parse().ok()?))
            }
            _ => None,
        });
        match port {
            Some(port) => Some(Way::Datagram { from: Local { port, address: self.address }, to: self.to }),
            None => Way::to(site, self.to),
        }
    }
}

/// A leg as it stands on the disk.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct KeptLeg {
    pub party: Party,
    way: KeptWay,
    call_id: String,
    local: String,
    local_tag: String,
    remote: String,
    remote_tag: Option<String>,
    target: String,
    route: Vec<String>,
    cseq: u32,
    remote_cseq: u32,
    /// A session description is UTF-8 (RFC 4566 §5).
    told: Option<(String, String)>,
    refresh_s: Option<u64>,
}

impl KeptLeg {
    pub fn of(leg: &Leg) -> KeptLeg {
        KeptLeg {
            party: leg.party.clone(),
            way: KeptWay::of(&leg.way),
            call_id: leg.call_id.clone(),
            local: leg.local.clone(),
            local_tag: leg.local_tag.clone(),
            remote: leg.remote.clone(),
            remote_tag: leg.remote_tag.clone(),
            target: leg.target.clone(),
            route: leg.route.clone(),
            cseq: leg.cseq,
            remote_cseq: leg.remote_cseq,
            told: leg.told.as_ref().map(|(kind, body)| (kind.clone(), String::from_utf8_lossy(body).into_owned())),
            refresh_s: leg.refresh.map(|(_, interval)| interval.as_secs()),
        }
    }

    /// The leg after a restart; `None` where nothing can be sent from here any more.
    ///
    /// What was sent inside the dialog since the record was written is not known, so our next CSeq is far above: a peer takes any
    /// higher number ("…strictly increasing", RFC 3261 §12.2.1.1).
    pub fn leg(&self, site: &Site, now: Instant) -> Option<Leg> {
        Some(Leg {
            party: self.party.clone(),
            way: self.way.way(site)?,
            call_id: self.call_id.clone(),
            local: self.local.clone(),
            local_tag: self.local_tag.clone(),
            remote: self.remote.clone(),
            remote_tag: self.remote_tag.clone(),
            target: self.target.clone(),
            route: self.route.clone(),
            cseq: self.cseq + 1000,
            remote_cseq: self.remote_cseq,
            told: self.told.clone().map(|(kind, body)| (kind, body.into_bytes())),
            refresh: self.refresh_s.map(Duration::from_secs).map(|interval| (now + interval, interval)),
        })
    }
}
