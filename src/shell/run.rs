//! `encamp run`: every role of the configuration, until SIGTERM.
//!
//! In this order: read and check the files, take the stores (a second process on the same `data_dir` ends here, the first undisturbed), bind
//! every port, start the node, answer DNS and the control socket, say READY. SIGHUP reads the files anew.

use std::path::Path;
use std::sync::atomic::AtomicU64;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use arc_swap::ArcSwap;
use tokio::net::TcpListener;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::oneshot;

use super::control::{self, Desk, now_ms};
use super::errands::{self, Errands};
use super::files::{self, Fault};
use super::hooks::Hooks;
use super::node::{self, End, OpenStores, Thread, Told, door};
use super::pictures::{self, Pictures};
use super::print::problems_text;
use super::relay::{Journal, Mailer, Ways};
use super::{dns, log, records, smtp, streams};
use crate::config::{Settings, mailing};
use crate::zone::{Map, Zone};

/// How long a clean end may take before it is given up.
const END_WITHIN: Duration = Duration::from_secs(2);
/// How long the last records may take after that.
const RECORDS_WITHIN: Duration = Duration::from_secs(1);

/// Runs until it is told to end.
///
/// Returns the exit code: 0 after SIGTERM or SIGINT, 2 where it could not start or its own store failed.
pub fn run(config: &Path) -> u8 {
    tune_memory();
    let settings = match files::load_to_run(config) {
        Ok((settings, notes)) => {
            eprint!("{}", problems_text(&notes));
            Arc::new(settings)
        }
        Err(Fault::Unreadable(path, error)) => return fail(&format!("{}: {error}", path.display())),
        Err(Fault::Wrong(problems)) => {
            eprint!("{}", problems_text(&problems));
            return fail("nothing was started");
        }
    };
    log::start();
    give_back_memory();
    let runtime = match tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => return fail(&format!("cannot start the runtime: {error}")),
    };
    let code = match runtime.block_on(serve(config, settings)) {
        Ok(()) => 0,
        Err(why) => fail(&why),
    };
    runtime.shutdown_timeout(Duration::from_millis(200));
    code
}

/// A small box has better use for memory than to keep it for later.
fn tune_memory() {
    // SAFETY: neither call takes a pointer. One arena is enough: one thread allocates nearly everything. Large blocks (tables of
    // subscribers, RocksDB's memtables) are the system's own and go back to it when freed: by default glibc raises the limit for
    // that with every such block, and keeps them in a heap full of holes.
    unsafe {
        libc::mallopt(libc::M_ARENA_MAX, 1);
        libc::mallopt(libc::M_MMAP_THRESHOLD, 64 * 1024);
    }
}

/// Reading the files took many times what is kept of them.
fn give_back_memory() {
    // SAFETY: the call takes no pointer.
    unsafe { libc::malloc_trim(0) };
}

fn fail(why: &str) -> u8 {
    eprintln!("encamp: {why}");
    2
}

async fn serve(config: &Path, settings: Arc<Settings>) -> Result<(), String> {
    let (door, ear) = door().map_err(|error| error.to_string())?;
    let syncers = door.clone();
    let (stores, faults) = OpenStores::open(&settings, move |report| syncers.tell(Told::Sync(report)))?;
    for fault in &faults {
        tracing::error!(alarm = true, "ALARM: {fault}");
    }
    let sockets = node::bind(&settings)?;
    let listeners = streams::bind(&settings).await?;
    let names = dns::bind(&settings.zone.listen).map_err(|error| match error.hint() {
        Some(hint) => format!("{error}: {hint}"),
        None => error.to_string(),
    })?;
    let mail_listeners = smtp::bind(&settings).await?;
    let pages = match settings.mail.as_ref().and_then(|mail| mail.pictures.as_ref()) {
        Some(pictures) => Some(open_pictures(pictures).await?),
        None => None,
    };
    let control = control::listen(&settings.control)
        .map_err(|error| format!("cannot listen on {}: {error}", settings.control.display()))?;

    let zone = Arc::new(ArcSwap::from_pointee(first_zone(&settings)));
    let mut seed = [0; 32];
    getrandom::fill(&mut seed).map_err(|error| format!("the system gives no random numbers: {error}"))?;
    let clock_trusted = settings.registrar.clock_trusted;
    let unstarted = |error| format!("cannot start the thread of the records: {error}");
    let (call_records, calls_writer) = records::start(&settings.calls.records).map_err(unstarted)?;
    let (text_records, texts_writer) = records::start(&settings.messages.records).map_err(unstarted)?;
    let hooks = Arc::<Hooks>::default();
    let mailer = Mailer::new(settings.mail.as_deref(), Ways::default(), Journal::default());
    let (errands, wishes) = Errands::new(door.clone(), Arc::clone(&hooks), Arc::clone(&mailer));
    let for_thread = Arc::clone(&zone);
    let thread =
        Thread { ear, sockets, stores, zone: for_thread, call_records, text_records, errands, seed, clock_trusted };
    let (ready, is_ready) = oneshot::channel();
    let (ended, mut has_ended) = oneshot::channel();
    let for_node = Arc::clone(&settings);
    let node = std::thread::Builder::new().name("node".into()).spawn(move || {
        let end = thread.run(for_node, || {
            let _ = ready.send(());
        });
        // The main task may have given up waiting.
        let _ = ended.send(end);
    });
    let node = node.map_err(|error| format!("cannot start the node's thread: {error}"))?;
    if is_ready.await.is_err() {
        return match has_ended.await {
            Ok(End::Failed(why)) => Err(why),
            _ => Err("the node did not start".into()),
        };
    }

    let dns = Arc::new(names.serve(Arc::clone(&zone)));
    let count = Arc::new(AtomicU64::new(0));
    for (port, listener) in listeners {
        tokio::spawn(streams::serve(port, listener, door.clone(), Arc::clone(&count)));
    }
    let counts = Arc::clone(&dns);
    let tallies = [&calls_writer, &texts_writer].map(|writer| Arc::clone(&writer.tally));
    let mail_tally = Arc::<smtp::Tally>::default();
    let mails = (!mail_listeners.is_empty()).then(|| Arc::clone(&mail_tally));
    let pictures = pages.as_ref().map(|(_, pictures)| Arc::clone(pictures));
    let shown = pictures.clone();
    let more_counts = move || {
        let records = tallies.iter().flat_map(|tally| tally.counts());
        let mails = mails.iter().flat_map(|tally| tally.counts());
        let pictures = shown.iter().flat_map(|pictures| pictures.tally.counts());
        counts
            .counts()
            .all()
            .into_iter()
            .chain(records)
            .chain(hooks.tally.counts())
            .chain(mails)
            .chain(pictures)
            .chain(mailer.tally.counts())
            .collect()
    };
    let desk = Arc::new(Desk {
        config: config.to_owned(),
        door: door.clone(),
        settings: ArcSwap::new(Arc::clone(&settings)),
        zone,
        since_ms: now_ms(),
        loaded: Mutex::new((now_ms(), None)),
        roles: roles(&settings),
        more_counts: Box::new(more_counts),
        applying: Mutex::new(()),
    });
    tokio::spawn(control::serve(control, Arc::clone(&desk)));
    if let Some((listener, pictures)) = pages {
        tokio::spawn(pictures::serve(listener, pictures, now_ms));
    }
    if !mail_listeners.is_empty() {
        let followed = Arc::clone(&desk);
        let reception = smtp::Reception::new(door.clone(), mail_tally, pictures, move || followed.settings.load_full());
        for (protocol, listener) in mail_listeners {
            tokio::spawn(Arc::clone(&reception).serve(protocol, listener));
        }
    }
    tokio::spawn(errands::give_numbers(wishes, Arc::clone(&desk)));
    let mut signals = Signals::new().map_err(|error| error.to_string())?;
    // Without systemd there is nobody to tell.
    let _ = sd_notify::notify(&[sd_notify::NotifyState::Ready]);
    tracing::info!(roles = ?desk.roles, subscribers = settings.subscribers.len(), "encamp {} is ready", env!("CARGO_PKG_VERSION"));

    let end = loop {
        tokio::select! {
            end = &mut has_ended => break end.unwrap_or(End::Failed("the node's thread ended".into())),
            _ = signals.hangup.recv() => { desk.apply(); }
            _ = signals.terminate.recv() => break stop(&door, has_ended).await,
            _ = signals.interrupt.recv() => break stop(&door, has_ended).await,
        }
    };
    let _ = std::fs::remove_file(&settings.control);
    // The node has ended, or hangs: it hands over no more.
    let until = Instant::now() + RECORDS_WITHIN;
    for writer in [calls_writer, texts_writer] {
        let tally = Arc::clone(&writer.tally);
        if !writer.wait(until.saturating_duration_since(Instant::now())) {
            tracing::error!("the last {} could not be written in time", tally.name());
        }
    }
    match end {
        End::Stopped => {
            // Joined only where it ended in time; a thread that hangs is left behind.
            drop(node.join());
            tracing::info!("ended");
            Ok(())
        }
        End::Failed(why) => Err(why),
    }
}

/// Tells the node to stop: it syncs what is written and closes its stores.
async fn stop(door: &node::Door, has_ended: oneshot::Receiver<End>) -> End {
    let _ = sd_notify::notify(&[sd_notify::NotifyState::Stopping]);
    if door.try_tell(Told::Stop).is_err() {
        return End::Failed("the node has too much to do to end cleanly".into());
    }
    match tokio::time::timeout(END_WITHIN, has_ended).await {
        Ok(Ok(end)) => end,
        _ => End::Failed("the node did not end in time; what was acknowledged is on the disk".into()),
    }
}

/// The pages of pictures, and where they are served.
async fn open_pictures(settings: &mailing::Pictures) -> Result<(TcpListener, Arc<Pictures>), String> {
    let listen = settings.listen;
    let listener = TcpListener::bind(listen)
        .await
        .map_err(|error| format!("cannot listen on tcp:{listen} for pictures: {error}"))?;
    let pictures = Pictures::open(settings).map_err(|error| format!("{}: {error}", settings.path.display()))?;
    Ok((listener, Arc::new(pictures)))
}

fn roles(settings: &Settings) -> Vec<&'static str> {
    let mut roles = Vec::new();
    if !settings.front.listen.is_empty() {
        roles.push("front");
    }
    if settings.replicas.iter().any(|replica| replica.is_local()) {
        roles.push("replica");
    }
    if !settings.zone.listen.is_empty() {
        roles.push("zone");
    }
    if settings.mail.as_ref().is_some_and(|mail| !mail.listen.is_empty()) {
        roles.push("mail");
    }
    roles
}

/// What stands in the zone until the node, a moment later, puts its own there.
pub fn first_zone(settings: &Arc<Settings>) -> Zone {
    let health = vec![crate::zone::Health::Healthy; settings.replicas.len()];
    let serial = u32::try_from(now_ms() / 1000).unwrap_or(u32::MAX);
    let map = Arc::new(Map::new(settings));
    Zone::new(Arc::clone(settings), Arc::clone(&settings.subscribers), map, health, serial, 1)
}

struct Signals {
    hangup: tokio::signal::unix::Signal,
    terminate: tokio::signal::unix::Signal,
    interrupt: tokio::signal::unix::Signal,
}

impl Signals {
    fn new() -> std::io::Result<Signals> {
        Ok(Signals {
            hangup: signal(SignalKind::hangup())?,
            terminate: signal(SignalKind::terminate())?,
            interrupt: signal(SignalKind::interrupt())?,
        })
    }
}
