//! The operator's files, read from disk and completed with what only this box knows: its addresses, its rehearsal's secret.
//!
//! "Files are the truth of what is provisioned" (DESIGN section 6). Writing is done aside, synced and renamed.

use std::collections::BTreeSet;
use std::fs::{self, File};
use std::io::{self, Write as _};
use std::net::{IpAddr, Ipv4Addr, UdpSocket};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::config::read::{Problem, Source, Sources, cluster_key_path, data_dir_path, read};
use crate::config::{Listener, Place, Settings, Subscriber, Subscribers};
use crate::rehearse;

pub const DEFAULT_CONFIG: &str = "/etc/encamp/encamp.toml";
const LOCAL_FILE: &str = "90-local.toml";
const SECRET_FILE: &str = "rehearsal.key";

/// Why there are no settings.
#[derive(Debug)]
pub enum Fault {
    /// A file cannot be read: which, and why.
    Unreadable(PathBuf, io::Error),
    Wrong(Vec<Problem>),
}

/// The configuration's texts as they are on disk.
pub fn sources(config: &Path) -> Result<Sources, Fault> {
    let main = source(config)?;
    let mut files: Vec<PathBuf> = match fs::read_dir(config.parent().unwrap_or(Path::new("")).join("subscribers.d")) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Vec::new(),
        Err(error) => return Err(Fault::Unreadable(config.with_file_name("subscribers.d"), error)),
        Ok(entries) => entries.filter_map(|entry| entry.ok().map(|entry| entry.path())).collect(),
    };
    files.retain(|path| path.extension().is_some_and(|extension| extension == "toml" || extension == "csv"));
    files.sort();
    if let Some(local) = local_file(&main.text).filter(|path| path.exists()) {
        files.push(local);
    }
    let subscribers = files.iter().map(|path| source(path)).collect::<Result<_, _>>()?;
    let cluster_key_file = match cluster_key_path(&main.text) {
        None => None,
        Some(path) => Some(fs::read_to_string(&path).map_err(|error| Fault::Unreadable(path, error))?),
    };
    Ok(Sources { main, subscribers, cluster_key_file })
}

/// Where commands that add or change subscribers write: `<data_dir>/subscribers.d/90-local.toml`, read last.
pub fn local_file(main: &str) -> Option<PathBuf> {
    data_dir_path(main).map(|data_dir| data_dir.join("subscribers.d").join(LOCAL_FILE))
}

fn source(path: &Path) -> Result<Source, Fault> {
    let text = fs::read_to_string(path).map_err(|error| Fault::Unreadable(path.to_owned(), error))?;
    Ok(Source { name: path.display().to_string(), text })
}

/// Reads, checks and completes a configuration; the second part are notes for the operator. Writes nothing.
pub fn load(config: &Path) -> Result<(Settings, Vec<Problem>), Fault> {
    complete(&sources(config)?)
}

/// As [`load`], for the process that runs with it: the rehearsal's secret is made where it is asked for and there is none yet.
pub fn load_to_run(config: &Path) -> Result<(Settings, Vec<Problem>), Fault> {
    let (settings, notes) = load(config)?;
    if settings.rehearsal.is_none() {
        return Ok((settings, notes));
    }
    make_secret(&settings.data_dir).map_err(|error| Fault::Unreadable(settings.data_dir.join(SECRET_FILE), error))?;
    load(config)
}

/// As [`load`], of texts that may not be on disk yet.
pub fn complete(sources: &Sources) -> Result<(Settings, Vec<Problem>), Fault> {
    let (mut settings, mut notes) = read(sources).map_err(Fault::Wrong)?;
    let addresses = own_addresses();
    let default = default_route_address();
    let mut unclear = BTreeSet::new();
    for listener in listeners(&mut settings) {
        if listener.address.ip().is_unspecified() && listener.advertise.is_none() {
            listener.advertise = default.or(addresses.first().copied());
            unclear.insert(listener.address);
        }
    }
    if addresses.len() > 1 && !unclear.is_empty() {
        let found: Vec<String> = addresses.iter().map(ToString::to_string).collect();
        let all: Vec<String> = unclear.iter().map(ToString::to_string).collect();
        notes.push(Problem {
            place: format!("{}:1:1", sources.main.name),
            what: format!(
                "{} listens on every address of this box, which has several: {}",
                all.join(", "),
                found.join(", ")
            ),
            hint: Some(format!(
                "base stations and zone records are told {}; write `advertise` where that is the wrong one",
                default.or(addresses.first().copied()).map_or_else(|| "none".into(), |address| address.to_string())
            )),
        });
    }
    if settings.rehearsal.is_some()
        && let Ok(Some(secret)) = read_secret(&settings.data_dir)
    {
        add_rehearsal(&mut settings, &secret);
    }
    Ok((settings, notes))
}

fn listeners(settings: &mut Settings) -> impl Iterator<Item = &mut Listener> {
    let replicas = settings.replicas.iter_mut().flat_map(|replica| match &mut replica.place {
        Place::Local { listen, .. } => listen.iter_mut(),
        Place::Remote { .. } => [].iter_mut(),
    });
    settings.front.listen.iter_mut().chain(settings.zone.listen.iter_mut()).chain(replicas)
}

/// The address that packets to elsewhere leave from; nothing is sent to learn it.
fn default_route_address() -> Option<IpAddr> {
    let socket = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0)).ok()?;
    socket.connect((Ipv4Addr::new(192, 0, 2, 1), 9)).ok()?;
    let address = socket.local_addr().ok()?.ip();
    (!address.is_unspecified()).then_some(address)
}

/// Addresses of this box, loopback and link-local ones left out.
fn own_addresses() -> Vec<IpAddr> {
    let mut found = BTreeSet::new();
    // SAFETY: the list is the system's until freed; each entry is read while it lives, and its address only as an IPv4 one where its
    // family says so.
    unsafe {
        let mut list: *mut libc::ifaddrs = std::ptr::null_mut();
        if libc::getifaddrs(&mut list) != 0 {
            return Vec::new();
        }
        let mut entry = list;
        while let Some(interface) = entry.as_ref() {
            if let Some(address) = interface.ifa_addr.as_ref()
                && i32::from(address.sa_family) == libc::AF_INET
            {
                let address = &*interface.ifa_addr.cast::<libc::sockaddr_in>();
                let address = Ipv4Addr::from(address.sin_addr.s_addr.to_ne_bytes());
                if !address.is_loopback() && !address.is_link_local() {
                    found.insert(IpAddr::V4(address));
                }
            }
            entry = interface.ifa_next;
        }
        libc::freeifaddrs(list);
    }
    found.into_iter().collect()
}

/// Writes a file so that after a power cut either the old or the new one is there: aside, synced, renamed, the folder synced.
pub fn write_durably(path: &Path, text: &str) -> io::Result<()> {
    use std::os::unix::fs::OpenOptionsExt as _;
    let folder = path.parent().unwrap_or(Path::new("."));
    fs::create_dir_all(folder)?;
    let aside = path.with_extension("new");
    // It holds keys: nobody else reads it.
    let mut file = fs::OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&aside)?;
    file.write_all(text.as_bytes())?;
    file.sync_all()?;
    fs::rename(&aside, path)?;
    File::open(folder)?.sync_all()
}

// --- The rehearsal's SIMs ---

fn read_secret(data_dir: &Path) -> io::Result<Option<[u8; 32]>> {
    match fs::read(data_dir.join(SECRET_FILE)) {
        Ok(bytes) => Ok(bytes.try_into().ok()),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}

/// The secret that the rehearsal's Ki are drawn from, made where there is none: nobody who does not read this box's `data_dir` can
/// register as one of its SIMs.
pub fn make_secret(data_dir: &Path) -> io::Result<[u8; 32]> {
    use std::os::unix::fs::OpenOptionsExt as _;
    if let Some(secret) = read_secret(data_dir)? {
        return Ok(secret);
    }
    let mut secret = [0; 32];
    getrandom::fill(&mut secret).map_err(io::Error::other)?;
    fs::create_dir_all(data_dir)?;
    let mut file =
        fs::OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(data_dir.join(SECRET_FILE))?;
    file.write_all(&secret)?;
    file.sync_all()?;
    Ok(secret)
}

/// The SIMs of `[rehearsal]`, beside those that the files provision.
fn add_rehearsal(settings: &mut Settings, secret: &[u8; 32]) {
    let Some(rehearsal) = &settings.rehearsal else { return };
    let file: Arc<str> = "[rehearsal]".into();
    let sims = rehearse::sims(&rehearsal.imsi_prefix, rehearsal.count, secret).into_iter().map(|sim| Subscriber {
        imsi: sim.imsi,
        msisdn: sim.msisdn.into_iter().collect(),
        name: "rehearsal".into(),
        auth: sim.auth,
        barred: false,
        language: None,
        file: Arc::clone(&file),
        line: 0,
    });
    let all = settings.subscribers.iter().cloned().chain(sims);
    settings.subscribers = Arc::new(Subscribers::new(all));
}
