//! `encamp rehearse`: simulated base stations and phones try a box, the running one or a private one.
//!
//! With `--config` it uses the running box, whose `[rehearsal]` provisions the SIMs; without, it starts a box of its own in a temporary
//! directory on free ports of loopback, and ends it afterwards.

use std::io::{IsTerminal as _, Write as _};
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpListener, UdpSocket};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use super::commands::{Failure, ask_running, load, say};
use super::files;
use crate::config::mailing::{FirstContact, MailProtocol, RelayTls, Senders, Unproven};
use crate::config::{CodeAction, Settings, Transport, Trunk, TrunkMode, Welcome};
use crate::gsm::form::TextForm;
use crate::ident::Msisdn;
use crate::rehearse::{Plan, Post, Talk, run, sims};

/// "30 s of silence means absent", and a moment.
const TEXT_SILENCE: Duration = Duration::from_secs(33);
/// Two stations are enough to move between.
const STATIONS: usize = 2;

pub fn rehearse(config: Option<&Path>, phones: u32, as_json: bool) -> Result<u8, Failure> {
    match config {
        Some(config) => with_running(config, phones, as_json),
        None => {
            let private = Private::start(phones)?;
            with_running(&private.config, phones, as_json)
        }
    }
}

fn with_running(config: &Path, phones: u32, as_json: bool) -> Result<u8, Failure> {
    let settings = load(config)?;
    ask_running(&settings.control, "status", "")?;
    let plan = plan(&settings, phones)?;
    let live = std::io::stderr().is_terminal() && !as_json;
    let mut progress = |what: &str| {
        if live {
            let _ = write!(std::io::stderr(), "\r\x1b[K{what}");
        }
    };
    let report = run(&plan, &mut progress);
    progress("");
    say(as_json, &report.to_json(), &report.table());
    Ok(u8::from(!report.failures.is_empty()))
}

/// What the rehearsal needs of the box's configuration.
fn plan(settings: &Settings, phones: u32) -> Result<Plan, Failure> {
    let lacks = |what: &str, hint: &str| {
        Failure::new(2, "cannot rehearse with this configuration", what.to_owned(), hint.to_owned())
    };
    let rehearsal = settings.rehearsal.as_ref().ok_or_else(|| {
        lacks("it has no [rehearsal], which provisions the SIMs", "[rehearsal] imsi_prefix = \"00101999\", count = 100")
    })?;
    if phones > rehearsal.count {
        return Err(lacks(&format!("it provisions {} SIMs, not {phones}", rehearsal.count), "[rehearsal] count"));
    }
    let secret = files::make_secret(&settings.data_dir).map_err(|error| {
        lacks(&format!("its secret cannot be read: {error}"), "run it as the user that encamp runs as")
    })?;
    let udp = |port: u16| {
        let listeners = settings.front.listen.iter().filter(|listener| listener.transport == Transport::Udp);
        listeners
            .clone()
            .find(|listener| listener.address.port() == port)
            .or(listeners.clone().next())
            .map(|found| reachable(found.address))
    };
    let calls = udp(5060).ok_or_else(|| lacks("the front end listens on no UDP port", "[front] listen"))?;
    let front = udp(5064).unwrap_or(calls);
    let zone = settings.zone.listen.iter().find(|listener| listener.transport == Transport::Udp);
    // One that follows a 302: the rehearsal's PBX does.
    let follows = |trunk: &&Trunk| trunk.mode == TrunkMode::Redirect && can_bind(trunk.address);
    let trunk = settings.trunks.iter().find(follows).ok_or_else(|| {
        lacks("no trunk that is redirected has an address of this machine", "[[trunk]] address = \"127.0.0.33:5060\"")
    })?;
    let stations = stations(settings).ok_or_else(|| {
        lacks("no two base stations have addresses of this machine", "[front] base_stations = [\"127.0.0.16/28\"]")
    })?;
    let area = |address: &SocketAddr| {
        let table = settings.base_stations.iter().find(|station| station.address == *address);
        table.and_then(|station| station.location_area.clone())
    };
    let talk = Talk {
        texts: udp(5063).unwrap_or(calls),
        areas: stations.iter().map(|(_, address)| area(address)).collect(),
        outside: outside(settings, trunk),
        nobody: nobody(settings),
        nobody_text: nobody(settings).or_else(|| {
            let outside = outside(settings, trunk).filter(|_| settings.trunks.iter().all(|trunk| !trunk.texts));
            outside.map(|outside| format!("{outside}9999"))
        }),
        silence: TEXT_SILENCE,
        status: status_code(settings),
        explains: settings.messages.explain,
        queue_max: settings.messages.count_per_phone_max,
        welcomes: settings.messages.welcome != Welcome::Never,
        mail: post(settings).map_err(str::to_owned),
    };
    Ok(Plan {
        phones,
        front,
        calls,
        zone: zone.map(|listener| reachable(listener.address)),
        apex: settings.zone.apex.clone(),
        domain: settings.domain.clone(),
        stations,
        trunk: trunk.address,
        talk: Some(talk),
        sims: sims(&rehearsal.imsi_prefix, phones, &secret),
    })
}

/// First digits of numbers that go out to this trunk; `None`: no number does, because other trunks or we have them all.
fn outside(settings: &Settings, trunk: &Trunk) -> Option<String> {
    let own = trunk.prefixes.iter().map(|prefix| format!("{prefix}55501"));
    let any = ["+99955501", "55501", "88001"].map(str::to_owned);
    own.chain(any).find(|number| {
        let is_ours = settings.dialplan.local_prefixes.iter().any(|prefix| number.starts_with(prefix.as_str()));
        let best = |trunk: &Trunk| {
            let fitting = trunk.prefixes.iter().filter(|prefix| number.starts_with(prefix.as_str()));
            fitting.map(|prefix| prefix.len()).max().or(trunk.prefixes.is_empty().then_some(0))
        };
        let others = settings.trunks.iter().filter(|other| other.name != trunk.name).filter_map(best).max();
        // Of two that fit equally well it is not for us to say which is taken.
        !is_ours && best(trunk) > others
    })
}

/// What it takes to write mail to this box and to get mail of it.
///
/// Errors: why a stranger with a mail server on this machine cannot.
fn post(settings: &Settings) -> Result<Post, &'static str> {
    let mail = settings.mail.as_ref().ok_or("it has no [mail]")?;
    let relay = mail.relay.as_ref().ok_or("its mail goes straight to the servers of each domain, not to a `relay`")?;
    const ELSEWHERE: &str = "its `relay` is not on this machine";
    let host: IpAddr = match relay.host.as_str() {
        "localhost" => Ipv4Addr::LOCALHOST.into(),
        host => host.parse().map_err(|_| ELSEWHERE)?,
    };
    let relay_at = SocketAddr::new(host, relay.port);
    match () {
        () if !relay_at.ip().is_loopback() => return Err(ELSEWHERE),
        () if !matches!(relay.tls, RelayTls::IfOffered | RelayTls::Never) || relay.username.is_some() => {
            return Err("its `relay` has to speak TLS or asks for a login");
        }
        () if mail.senders != Senders::Everyone => return Err("only listed senders write to it"),
        () if mail.first_contact != FirstContact::Accept => return Err("phones are asked about each new sender"),
        () if mail.unproven == Unproven::Refuse => return Err("it refuses senders for whom nobody vouches"),
        () if TcpListener::bind(relay_at).is_err() => return Err("the address of its `relay` is taken"),
        () => {}
    }
    let listener = mail.listen.iter().find(|listener| listener.protocol == MailProtocol::Smtp);
    let listener = listener.ok_or("it listens for no mail on \"tcp:..\"")?;
    let code = mail.short_code.or_else(|| Msisdn::parse(&settings.messages.service_centre).ok());
    Ok(Post {
        server: reachable(listener.address),
        relay: relay_at,
        domain: mail.domain.clone(),
        code: code.ok_or("it has no number for mail: write `short_code` in [mail]")?.to_string(),
        pool: mail.reply_pool.clone(),
        parts_max: mail.segments_max,
    })
}

/// The number that tells the state of the network to whoever texts to it.
fn status_code(settings: &Settings) -> Option<String> {
    let codes = settings.short_codes.iter().filter(|code| code.senders.is_none());
    codes.filter(|code| code.does == CodeAction::Status).map(|code| code.number.to_string()).next()
}

/// A number that is nobody's and never goes out: one with a local prefix.
fn nobody(settings: &Settings) -> Option<String> {
    let numbers = settings.dialplan.local_prefixes.iter().flat_map(|prefix| {
        let width = 4usize.saturating_sub(prefix.trim_start_matches('+').len()).max(2);
        [9, 8, 7].map(|digit: u32| format!("{prefix}{}", digit.to_string().repeat(width)))
    });
    let is_free =
        |number: &Msisdn| settings.subscribers.by_number(number).is_none() && settings.code(number.digits()).is_none();
    numbers.filter_map(|number| Msisdn::parse(&number).ok()).find(is_free).map(|number| number.to_string())
}

/// Addresses of `[[base_station]]` tables that can be bound here, else free ones inside `base_stations`; none whose phones are written
/// to otherwise than those of an OpenBTS.
fn stations(settings: &Settings) -> Option<Vec<(String, SocketAddr)>> {
    let named = settings.base_stations.iter().map(|station| (station.name.clone(), station.address));
    let loopback = (1..=254).map(|last| SocketAddr::from(([127, 0, 0, last], 5062)));
    let free = loopback
        .filter(|address| settings.is_base_station(address.ip()))
        .map(|address| (address.ip().to_string(), address));
    let is_open_bts = |address: &SocketAddr| {
        let table = settings.base_station_at(address.ip());
        table.and_then(|station| station.texts).is_none_or(|form| form == TextForm::OpenBts)
    };
    let usable = named.chain(free).filter(|(_, address)| is_open_bts(address) && can_bind(*address));
    let usable: Vec<_> = usable.take(STATIONS).collect();
    (usable.len() == STATIONS).then_some(usable)
}

fn can_bind(address: SocketAddr) -> bool {
    UdpSocket::bind(address).is_ok()
}

fn reachable(address: SocketAddr) -> SocketAddr {
    match address.ip() {
        ip if ip.is_unspecified() => SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), address.port()),
        _ => address,
    }
}

/// A box of our own, in a directory that goes with it.
struct Private {
    config: PathBuf,
    folder: PathBuf,
    child: Child,
}

impl Private {
    fn start(phones: u32) -> Result<Private, Failure> {
        let fail = |what: &str, error: std::io::Error| Failure::new(2, format!("cannot {what}"), error.to_string(), "");
        let mut name = [0; 8];
        getrandom::fill(&mut name).map_err(|error| fail("draw a name", std::io::Error::other(error)))?;
        let folder = std::env::temp_dir().join(format!("encamp-rehearsal-{:016x}", u64::from_ne_bytes(name)));
        std::fs::create_dir_all(&folder).map_err(|error| fail("make a temporary directory", error))?;
        let config = folder.join("encamp.toml");
        let text = private_config(&folder, phones).map_err(|error| fail("find free ports on loopback", error))?;
        std::fs::write(&config, text).map_err(|error| fail("write its configuration", error))?;
        let log = std::fs::File::create(folder.join("log")).map_err(|error| fail("write its log", error))?;
        let program = std::env::current_exe().map_err(|error| fail("find this program", error))?;
        let child = Command::new(program)
            .args(["run", "--config"])
            .arg(&config)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(log)
            .spawn()
            .map_err(|error| fail("start a box", error))?;
        let mut private = Private { config, folder, child };
        private.wait()?;
        Ok(private)
    }

    fn wait(&mut self) -> Result<(), Failure> {
        let settings = load(&self.config)?;
        for _ in 0..200 {
            if ask_running(&settings.control, "status", "").is_ok_and(|answer| answer.exit == 0) {
                return Ok(());
            }
            if matches!(self.child.try_wait(), Ok(Some(_))) {
                break;
            }
            std::thread::sleep(Duration::from_millis(50));
        }
        let log = std::fs::read_to_string(self.folder.join("log")).unwrap_or_default();
        Err(Failure::new(2, "the private box did not start", log, ""))
    }
}

impl Drop for Private {
    fn drop(&mut self) {
        // It is ours and holds nothing worth keeping.
        let _ = self.child.kill();
        let _ = self.child.wait();
        let _ = std::fs::remove_dir_all(&self.folder);
    }
}

fn private_config(folder: &Path, phones: u32) -> std::io::Result<String> {
    let free = |address: [u8; 4]| -> std::io::Result<u16> {
        Ok(UdpSocket::bind(SocketAddr::from((address, 0)))?.local_addr()?.port())
    };
    let (front, zone, trunk) = (free([127, 0, 0, 1])?, free([127, 0, 0, 1])?, free([127, 0, 0, 33])?);
    let (hill, dale) = (free([127, 0, 0, 17])?, free([127, 0, 0, 18])?);
    // Both at once: two ports.
    let (mail, relay) = (TcpListener::bind("127.0.0.1:0")?, TcpListener::bind("127.0.0.1:0")?);
    let (mail, relay) = (mail.local_addr()?.port(), relay.local_addr()?.port());
    Ok(format!(
        "domain = \"gsm.example\"\ndata_dir = \"{}\"\n\
         [front]\nlisten = [\"udp:127.0.0.1:{front}\"]\nbase_stations = [\"127.0.0.16/28\"]\n\
         [[base_station]]\nname = \"hill\"\naddress = \"127.0.0.17:{hill}\"\nlocation_area = \"valley\"\n\
         [[base_station]]\nname = \"dale\"\naddress = \"127.0.0.18:{dale}\"\nlocation_area = \"valley\"\n\
         [dialplan]\nlocal_prefixes = [\"2\"]\n\
         [[trunk]]\nname = \"pbx\"\naddress = \"127.0.0.33:{trunk}\"\n\
         [zone]\nlisten = [\"udp:127.0.0.1:{zone}\", \"tcp:127.0.0.1:{zone}\"]\n\
         [[shard]]\nname = \"low\"\nsuffixes = [\"00-49\"]\nreplicas = [\"a\", \"b\"]\n\
         [[shard]]\nname = \"high\"\nsuffixes = [\"50-99\"]\nreplicas = [\"c\", \"d\"]\n\
         [mail]\nlisten = [\"tcp:127.0.0.1:{mail}\"]\nrelay = \"smtp://127.0.0.1:{relay}\"\nshort_code = \"600\"\n\
         reply_pool = [\"6000-6009\"]\n\
         [rehearsal]\nimsi_prefix = \"00101999\"\ncount = {}\n",
        folder.join("data").display(),
        phones.max(1)
    ))
}
