//! Which servers take the mail of a domain.
//!
//! Knows: MX and addresses (RFC 5321 §5.1), the domain that takes none (RFC 7505), and which addresses are our own. Does not know: SMTP.
//! Limits: [`SERVERS_MAX`] servers of a domain, [`ADDRESSES_MAX`] addresses of each.

use std::net::{IpAddr, SocketAddr, UdpSocket};
use std::path::Path;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, SystemTime};

use hickory_proto::rr::{RData, RecordType};
use hickory_resolver::TokioResolver;
use hickory_resolver::config::{LookupIpStrategy, NameServerConfig, ResolverConfig, ResolverOpts};
use hickory_resolver::net::NetError;
use hickory_resolver::net::runtime::TokioRuntimeProvider;
use hickory_resolver::system_conf::parse_resolv_conf;
use tokio::time::{Instant, timeout_at};

use super::Journal;
use crate::mail::MailFailure;
use crate::shell::dress::ascii_domain;

const SERVERS_MAX: usize = 8;
const ADDRESSES_MAX: usize = 4;
/// Where servers of mail listen for each other.
const SMTP: u16 = 25;
/// The system's name servers, and how long what it says is believed without looking at more than its time.
const RESOLV_CONF: &str = "/etc/resolv.conf";
const READ_FOR: Duration = Duration::from_secs(60);

/// Who is asked, and what is otherwise than on a real box; the default is a real one.
#[derive(Clone, Copy, Default, Debug)]
pub struct Ways {
    /// Instead of those that the system has.
    pub nameserver: Option<SocketAddr>,
    /// Instead of /etc/resolv.conf; and the port of those that it names, instead of 53.
    pub resolv_conf: Option<&'static Path>,
    pub nameserver_port: Option<u16>,
    /// Instead of 25.
    pub port: Option<u16>,
    /// Names and addresses may lead to loopback.
    pub loopback: bool,
}

pub(super) struct Names {
    asked: Mutex<Option<Asked>>,
    ways: Ways,
    /// Where we listen for mail ourselves.
    own: Vec<SocketAddr>,
}

/// The name servers that are asked.
struct Asked {
    resolver: TokioResolver,
    /// When the file that names them was written, and when it was read.
    written: Option<SystemTime>,
    read: Instant,
}

/// One server of a domain.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct Server {
    pub host: String,
    pub address: SocketAddr,
}

impl Names {
    pub fn new(ways: Ways, own: Vec<SocketAddr>) -> Names {
        Names { asked: Mutex::new(None), ways, own }
    }

    /// The servers of the domain, in the order in which they are to be tried; never empty.
    pub async fn servers(&self, domain: &str, until: Instant, journal: &Journal) -> Result<Vec<Server>, MailFailure> {
        if let Some(literal) = domain.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')) {
            return self.server_at(literal);
        }
        let domain = ascii_domain(domain);
        let (hosts, by_mx) = match self.mail_exchangers(&domain, until).await? {
            Some(hosts) => (hosts, true),
            None => (vec![(0, domain.clone())], false),
        };
        journal.tell("dns", || {
            let all: Vec<String> = hosts.iter().map(|(preference, host)| format!("{preference} {host}")).collect();
            if by_mx {
                format!("MX of {domain}: {}", all.join(", "))
            } else {
                format!("{domain} has no MX: its own address counts")
            }
        });
        let (mut servers, mut why, mut best_own) = (Vec::new(), None, None);
        for (preference, host) in hosts.into_iter().take(SERVERS_MAX) {
            // A server that is ourselves ends the list: those behind it would bring the mail back (RFC 5321 §5.1).
            if best_own.is_some_and(|own| preference >= own) {
                break;
            }
            let addresses = match self.addresses(&host, until).await {
                Ok(addresses) => addresses,
                Err(failure) => {
                    journal.tell("dns", || super::told(&failure));
                    // One whose name is nobody's is a fault of theirs; one that nobody could look up may be there later.
                    if why.is_none() || matches!(failure, MailFailure::Unreachable(_)) {
                        why = Some(failure);
                    }
                    continue;
                }
            };
            journal.tell("dns", || {
                let all: Vec<String> = addresses.iter().map(IpAddr::to_string).collect();
                format!("{host} is {}", all.join(", "))
            });
            for ip in addresses {
                let address = self.at(ip);
                if self.is_own(address) {
                    best_own = Some(preference);
                } else if self.is_reachable(address.ip()) {
                    servers.push((preference, Server { host: host.clone(), address }));
                } else if why.is_none() {
                    why = Some(never(format!("5.4.4 {host} is {ip}, which leads nowhere")));
                }
            }
        }
        if let Some(own) = best_own {
            servers.retain(|(preference, _)| *preference < own);
            if servers.is_empty() {
                return Err(never(format!("5.4.6 the mail of {domain} leads back to this box")));
            }
        }
        if servers.is_empty() {
            return Err(why.unwrap_or_else(|| never(format!("5.4.4 {domain} has no server of mail"))));
        }
        Ok(servers.into_iter().map(|(_, server)| server).collect())
    }

    /// An address that was written out. Any phone can write one: it leads nowhere where a name could not lead, either.
    fn server_at(&self, literal: &str) -> Result<Vec<Server>, MailFailure> {
        let bare = literal.get(.."IPv6:".len()).filter(|tag| tag.eq_ignore_ascii_case("IPv6:"));
        let bare = bare.map_or(literal, |tag| &literal[tag.len()..]);
        let ip: IpAddr = bare.parse().map_err(|_| never(format!("5.1.2 {literal} is no address")))?;
        let address = self.at(ip);
        if self.is_own(address) {
            return Err(never(format!("5.4.6 {ip} is this box")));
        }
        if !self.is_reachable(address.ip()) {
            return Err(never(format!("5.4.4 {ip} leads nowhere")));
        }
        Ok(vec![Server { host: address.ip().to_string(), address }])
    }

    /// By preference, those with the same in an order of chance; `None`: the domain has none.
    async fn mail_exchangers(&self, domain: &str, until: Instant) -> Result<Option<Vec<(u16, String)>>, MailFailure> {
        let resolver = self.resolver()?;
        let looking = resolver.lookup(format!("{domain}."), RecordType::MX);
        let found = match timeout_at(until, looking).await {
            Ok(Ok(found)) => found,
            Ok(Err(error)) if error.is_nx_domain() => return Err(unknown(domain)),
            Ok(Err(error)) if error.is_no_records_found() => return Ok(None),
            Ok(Err(error)) => return Err(unanswered(domain, &error.to_string())),
            Err(_) => return Err(unanswered(domain, "no answer in time")),
        };
        let mut hosts: Vec<(u16, u64, String)> = Vec::new();
        let mut takes_none = false;
        for record in found.answers() {
            let RData::MX(mx) = &record.data else { continue };
            if mx.exchange.is_root() {
                takes_none = true;
                continue;
            }
            let host = mx.exchange.to_ascii().trim_end_matches('.').to_ascii_lowercase();
            hosts.push((mx.preference, getrandom::u64().unwrap_or_default(), host));
        }
        if hosts.is_empty() && takes_none {
            return Err(never(format!("5.1.10 {domain} takes no mail, as its name server says")));
        }
        hosts.sort();
        let hosts: Vec<(u16, String)> = hosts.into_iter().map(|(preference, _, host)| (preference, host)).collect();
        Ok((!hosts.is_empty()).then_some(hosts))
    }

    async fn addresses(&self, host: &str, until: Instant) -> Result<Vec<IpAddr>, MailFailure> {
        let resolver = self.resolver()?;
        let looking = resolver.lookup_ip(format!("{host}."));
        match timeout_at(until, looking).await {
            Ok(Ok(found)) => Ok(found.iter().take(ADDRESSES_MAX).collect()),
            Ok(Err(error)) if error.is_no_records_found() => Err(unknown(host)),
            Ok(Err(error)) => Err(unanswered(host, &error.to_string())),
            Err(_) => Err(unanswered(host, "no answer in time")),
        }
    }

    /// A box may start before its link has given it name servers, and may get others with another link: so they are read
    /// anew, and a file that cannot be read is no answer for ever.
    fn resolver(&self) -> Result<TokioResolver, MailFailure> {
        let path = self.ways.resolv_conf.unwrap_or(Path::new(RESOLV_CONF));
        let written = std::fs::metadata(path).and_then(|metadata| metadata.modified()).ok();
        let mut asked = self.asked.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(asked) = &*asked
            && (self.ways.nameserver.is_some() || asked.written == written && asked.read.elapsed() < READ_FOR)
        {
            return Ok(asked.resolver.clone());
        }
        match resolver(self.ways, path) {
            Ok(resolver) => {
                *asked = Some(Asked { resolver: resolver.clone(), written, read: Instant::now() });
                Ok(resolver)
            }
            Err(error) => Err(MailFailure::Unreachable(format!("no name server can be asked: {error}"))),
        }
    }

    /// One of IPv4 that is written as one of IPv6 (RFC 4291 §2.5.5.2) is what it is.
    fn at(&self, ip: IpAddr) -> SocketAddr {
        SocketAddr::new(ip.to_canonical(), self.ways.port.unwrap_or(SMTP))
    }

    /// Nobody has a server of mail for others at such an address; and what listens on this machine or its cable may trust
    /// whoever comes from here.
    fn is_reachable(&self, ip: IpAddr) -> bool {
        let is_near = match ip {
            IpAddr::V4(ip) => ip.is_link_local() || ip.is_broadcast(),
            IpAddr::V6(ip) => ip.is_unicast_link_local(),
        };
        !ip.is_unspecified() && !ip.is_multicast() && !is_near && (self.ways.loopback || !ip.is_loopback())
    }

    /// Whether we listen there ourselves. An address that a socket can be bound to is one of this machine.
    fn is_own(&self, address: SocketAddr) -> bool {
        self.own.iter().any(|own| {
            let here = || UdpSocket::bind((address.ip(), 0)).is_ok();
            own.port() == address.port()
                && (own.ip().to_canonical() == address.ip() || own.ip().is_unspecified() && here())
        })
    }
}

fn resolver(ways: Ways, resolv_conf: &Path) -> Result<TokioResolver, NetError> {
    let (mut config, mut options) = match ways.nameserver {
        None => parse_resolv_conf(std::fs::read(resolv_conf)?)?,
        Some(server) => {
            let server = NameServerConfig::udp_and_tcp(server.ip());
            (ResolverConfig::from_name_servers(vec![server]), ResolverOpts::default())
        }
    };
    if let Some(port) = ways.nameserver.map(|server| server.port()).or(ways.nameserver_port) {
        for connection in config.name_servers.iter_mut().flat_map(|server| &mut server.connections) {
            connection.port = port;
        }
    }
    options.ip_strategy = LookupIpStrategy::Ipv4AndIpv6;
    TokioResolver::builder_with_config(config, TokioRuntimeProvider::default()).with_options(options).build()
}

fn never(why: String) -> MailFailure {
    MailFailure::Permanent { code: 0, why }
}

fn unknown(name: &str) -> MailFailure {
    never(format!("5.1.2 there is no {name}, as its name server says"))
}

fn unanswered(name: &str, why: &str) -> MailFailure {
    MailFailure::Unreachable(format!("no name server says where {name} is: {why}"))
}
