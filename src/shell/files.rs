//! The operator's files, read from disk and completed with what only this box knows: its addresses, its rehearsal's secret.
//!
//! "Files are the truth of what is provisioned" (DESIGN section 6). Writing is done aside, synced and renamed.

use std::collections::BTreeSet;
use std::fs::{self, File, TryLockError};
use std::io::{self, Write as _};
use std::net::{IpAddr, Ipv4Addr, UdpSocket};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

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

// --- 90-local.toml ---

/// Who changes 90-local.toml waits so long for another who does.
const TURN_WITHIN: Duration = Duration::from_secs(5);

/// 90-local.toml as it is now, and what all files mean with it.
pub struct Changed {
    pub path: PathBuf,
    pub settings: Settings,
}

/// Why 90-local.toml is as it was.
#[derive(Debug)]
pub enum NotChanged<E> {
    /// The files cannot be read, or would be wrong with the change.
    Wrong(Fault),
    NoDataDir,
    /// Who wanted the change says no.
    Refused(E),
    Unwritable(PathBuf, io::Error),
}

/// Changes 90-local.toml: one at a time on this machine, and the new text is read and checked with all the rest before anything is
/// written. `change` is told all files as they are at this moment, and the text of this one; `None`: it stays as it is.
pub fn change_local<E>(
    config: &Path,
    change: impl FnOnce(&Sources, &str) -> Result<Option<String>, E>,
) -> Result<Changed, NotChanged<E>> {
    let main = source(config).map_err(NotChanged::Wrong)?;
    let path = local_file(&main.text).ok_or(NotChanged::NoDataDir)?;
    let _turn = match path.parent().map(take_turn) {
        Some(Err(error)) => return Err(NotChanged::Unwritable(path, error)),
        turn => turn,
    };
    let mut sources = sources(config).map_err(NotChanged::Wrong)?;
    let name = path.display().to_string();
    let at = sources.subscribers.iter().position(|source| source.name == name);
    let old = at.map(|at| sources.subscribers[at].text.clone()).unwrap_or_default();
    let new = change(&sources, &old).map_err(NotChanged::Refused)?;
    if let Some(new) = &new {
        let source = Source { name, text: new.clone() };
        match at {
            Some(at) => sources.subscribers[at] = source,
            None => sources.subscribers.push(source),
        }
    }
    let (settings, _) = complete(&sources).map_err(NotChanged::Wrong)?;
    match new.map(|new| write_durably(&path, &new)) {
        Some(Err(error)) => Err(NotChanged::Unwritable(path, error)),
        _ => Ok(Changed { path, settings }),
    }
}

/// Commands and the running process change the file, each after it has read it: what another wrote meanwhile would be lost. The turn
/// ends with what is returned, also where the process is killed.
fn take_turn(folder: &Path) -> io::Result<File> {
    make_folder(folder)?;
    let (turn, until) = (File::open(folder)?, Instant::now() + TURN_WITHIN);
    loop {
        match turn.try_lock() {
            Ok(()) => return Ok(turn),
            Err(TryLockError::Error(error)) => return Err(error),
            Err(TryLockError::WouldBlock) if Instant::now() >= until => {
                return Err(io::Error::new(io::ErrorKind::ResourceBusy, "another command is changing it"));
            }
            Err(TryLockError::WouldBlock) => std::thread::sleep(Duration::from_millis(10)),
        }
    }
}

/// Writes a file so that after a power cut either the old or the new one is there: aside, synced, renamed, the folder synced.
pub fn write_durably(path: &Path, text: &str) -> io::Result<()> {
    use std::os::unix::fs::OpenOptionsExt as _;
    let folder = path.parent().unwrap_or(Path::new("."));
    make_folder(folder)?;
    let aside = path.with_extension("new");
    // One that a power cut left is not written into: root would follow it wherever it leads.
    match fs::remove_file(&aside) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    // It holds keys: nobody else reads it.
    let mut file = fs::OpenOptions::new().write(true).create_new(true).mode(0o600).open(&aside)?;
    give_to_owner_of(folder, &aside)?;
    file.write_all(text.as_bytes())?;
    file.sync_all()?;
    fs::rename(&aside, path)?;
    File::open(folder)?.sync_all()
}

fn make_folder(folder: &Path) -> io::Result<()> {
    if folder.as_os_str().is_empty() || folder.exists() {
        return Ok(());
    }
    let parent = folder.parent().unwrap_or(Path::new("."));
    make_folder(parent)?;
    match fs::create_dir(folder) {
        // By somebody else, a moment ago.
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(()),
        made => made.and_then(|()| give_to_owner_of(parent, folder)),
    }
}

/// What root makes in `data_dir` belongs to the user whose directory it is: a command run with sudo must not leave a file there that the
/// running process cannot read, or a directory where it cannot write.
fn give_to_owner_of(folder: &Path, made: &Path) -> io::Result<()> {
    use std::os::unix::fs::MetadataExt as _;
    // SAFETY: the call takes nothing and changes nothing.
    if unsafe { libc::geteuid() } != 0 {
        return Ok(());
    }
    let folder = if folder.as_os_str().is_empty() { Path::new(".") } else { folder };
    let owner = fs::metadata(folder)?;
    std::os::unix::fs::lchown(made, Some(owner.uid()), Some(owner.gid()))
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
        mail: None,
        file: Arc::clone(&file),
        line: 0,
    });
    let all = settings.subscribers.iter().cloned().chain(sims);
    settings.subscribers = Arc::new(Subscribers::new(all));
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};

    use super::*;

    /// Run by root, as with sudo, this is about another user's directory; else about our own.
    #[test]
    fn what_is_written_belongs_to_the_user_whose_directory_it_is() {
        let folder = tempfile::tempdir().unwrap();
        let _ = std::os::unix::fs::chown(folder.path(), Some(12_345), Some(12_346));
        let owner = fs::metadata(folder.path()).unwrap();
        let path = folder.path().join("subscribers.d/90-local.toml");
        for text in ["one", "two"] {
            write_durably(&path, text).unwrap();
            for made in [path.as_path(), path.parent().unwrap()] {
                let made = fs::metadata(made).unwrap();
                assert_eq!((made.uid(), made.gid()), (owner.uid(), owner.gid()));
            }
            assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
            assert_eq!(fs::read_to_string(&path).unwrap(), text);
        }
    }

    #[test]
    fn what_stands_aside_is_replaced_and_not_written_through() {
        let folder = tempfile::tempdir().unwrap();
        let (path, other) = (folder.path().join("90-local.toml"), folder.path().join("other"));
        fs::write(&other, "his").unwrap();
        std::os::unix::fs::symlink(&other, path.with_extension("new")).unwrap();
        write_durably(&path, "ours").unwrap();
        assert_eq!(
            (fs::read_to_string(&path).unwrap(), fs::read_to_string(&other).unwrap()),
            ("ours".into(), "his".into())
        );
    }
}
