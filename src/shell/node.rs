//! The node's own thread: sockets, disk and clock in, datagrams and promises out.
//!
//! It owns the node, the stores and the UDP sockets; nothing else touches them, so nothing is locked. Everybody else speaks to it
//! through [`Door`], one bounded queue and a wake-up. Limits: [`QUEUE_MAX`] things told, [`BATCHES_PER_TURN`] read of one
//! socket before the others have their turn. What is sent and logged is gathered meanwhile: datagrams leave [`BATCH`] at a time and before
//! it sleeps, lines before it sleeps.

use std::collections::{BTreeMap, HashMap};
use std::io;
use std::net::SocketAddr;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::sync::Arc;
use std::sync::mpsc::{Receiver, SyncSender, TrySendError, sync_channel};
use std::time::{Duration, Instant as SystemInstant, SystemTime, UNIX_EPOCH};

use arc_swap::ArcSwap;
use tokio::sync::{mpsc, oneshot};

use super::errands::Errands;
use super::log::{self, Counters, Gathering};
use super::records::Records;
use super::sockets::{BATCH, Inbox, Outgoing, Udp};
use crate::config::{Place, Settings, Transport};
use crate::mail::{MailFailure, MailIn, MailTaken, Reply};
use crate::node::Node;
use crate::seam::{
    CallRecord, Command, CommandAnswer, ConnId, Ctx, HttpAnswer, HttpFailure, Input, Local, NotGiven, Outbox, Output,
    Port, Rng, StreamEvent, TextRecord,
};
use crate::store::rocks::{RocksStore, Shared, SyncReport};
use crate::store::{Store, StoreId, Stores};
use crate::time::{Instant, WallTime};
use crate::zone::Zone;

pub const QUEUE_MAX: usize = 4096;
const BATCHES_PER_TURN: usize = 2;
/// A task that finds the queue full tries again after this.
const QUEUE_PAUSE: Duration = Duration::from_millis(10);
/// Whether the kernel calls its clock synchronised is asked this often.
const CLOCK_CHECK_S: u64 = 5;

/// What others tell the node.
pub enum Told {
    Sync(SyncReport),
    Opened { conn: ConnId, from: SocketAddr, to: Local, writer: mpsc::Sender<Vec<u8>> },
    Data { conn: ConnId, bytes: Vec<u8> },
    Closed { conn: ConnId },
    Settings(Arc<Settings>),
    Command { command: Command, answer: oneshot::Sender<(CommandAnswer, Counters)> },
    HttpDone { id: u64, result: Result<HttpAnswer, HttpFailure> },
    NumberGiven { id: u64, result: Result<(), NotGiven> },
    Mail { mail: Box<MailIn>, answer: oneshot::Sender<Vec<Reply>> },
    MailSent { id: u64, result: Result<MailTaken, MailFailure> },
    Stop,
}

/// How others speak to the node.
#[derive(Clone)]
pub struct Door {
    queue: SyncSender<Told>,
    bell: Arc<OwnedFd>,
}

impl Door {
    /// Waits where the queue is full; for threads of their own (the syncers).
    pub fn tell(&self, told: Told) {
        if self.queue.send(told).is_ok() {
            self.ring();
        }
    }

    /// Gives it back where the queue is full; for tasks, which must not wait.
    pub fn try_tell(&self, told: Told) -> Result<(), Told> {
        match self.queue.try_send(told) {
            Ok(()) => {
                self.ring();
                Ok(())
            }
            Err(TrySendError::Full(told) | TrySendError::Disconnected(told)) => Err(told),
        }
    }

    /// Waits where the queue is full, but holds no thread meanwhile; for tasks whose words must not be lost.
    pub async fn tell_patiently(&self, told: Told) {
        let mut left = Some(told);
        while let Some(told) = left.take() {
            match self.queue.try_send(told) {
                Ok(()) => self.ring(),
                Err(TrySendError::Full(told)) => {
                    left = Some(told);
                    tokio::time::sleep(QUEUE_PAUSE).await;
                }
                // The node has ended.
                Err(TrySendError::Disconnected(_)) => {}
            }
        }
    }

    /// Waits for the answer to a command.
    ///
    /// Errors: in words; the node has too much to do, or has stopped.
    pub async fn command(&self, command: Command) -> Result<(CommandAnswer, Counters), &'static str> {
        let (answer, reply) = oneshot::channel();
        self.try_tell(Told::Command { command, answer }).map_err(|_| "the node has too much to do")?;
        reply.await.map_err(|_| "the node has stopped")
    }

    /// Waits until a mail is on the disk, or refused: one reply, or one for each recipient where each is answered. `None`: the node has
    /// stopped over it, and nobody knows whether it is on the disk.
    ///
    /// Errors: in words; the node has too much to do, or has stopped before.
    pub async fn mail(&self, mail: Box<MailIn>) -> Result<Option<Vec<Reply>>, &'static str> {
        let (answer, reply) = oneshot::channel();
        self.try_tell(Told::Mail { mail, answer }).map_err(|_| "the node has too much to do")?;
        Ok(reply.await.ok())
    }

    fn ring(&self) {
        let one = 1u64.to_ne_bytes();
        // SAFETY: eight bytes of a live buffer to an eventfd that we own; a full counter is as good as a rung bell.
        unsafe { libc::write(self.bell.as_raw_fd(), one.as_ptr().cast(), one.len()) };
    }
}

/// The other side of the door.
pub struct Ear {
    queue: Receiver<Told>,
    bell: Arc<OwnedFd>,
}

#[cfg(test)]
impl Ear {
    /// What is told next, within ten seconds.
    pub fn next(&self) -> Option<Told> {
        self.queue.recv_timeout(Duration::from_secs(10)).ok()
    }
}

pub fn door() -> io::Result<(Door, Ear)> {
    let (sender, receiver) = sync_channel(QUEUE_MAX);
    // SAFETY: a fresh file descriptor, owned from here on.
    let bell = unsafe {
        let fd = libc::eventfd(0, libc::EFD_NONBLOCK | libc::EFD_CLOEXEC);
        if fd < 0 {
            return Err(io::Error::last_os_error());
        }
        Arc::new(OwnedFd::from_raw_fd(fd))
    };
    Ok((Door { queue: sender, bell: Arc::clone(&bell) }, Ear { queue: receiver, bell }))
}

/// The stores of this process.
pub struct OpenStores(BTreeMap<StoreId, RocksStore>);

impl Stores for OpenStores {
    fn store(&mut self, id: StoreId) -> Option<&mut dyn Store> {
        self.0.get_mut(&id).map(|store| store as &mut dyn Store)
    }
}

impl OpenStores {
    /// Opens the node's own store, the messages' and every local replica's; a replica's that cannot be opened is left out, with the
    /// reason.
    ///
    /// Errors: the node's own store or the messages' cannot be opened: nothing runs without them.
    pub fn open(
        settings: &Settings,
        tell: impl Fn(SyncReport) + Send + Sync + Clone + 'static,
    ) -> Result<(OpenStores, Vec<String>), String> {
        let shared = Shared::new().map_err(|error| error.to_string())?;
        let open = |path: &std::path::Path, id| {
            RocksStore::open(path, id, &shared, settings.disk_reserve_bytes, Box::new(tell.clone()))
                .map_err(|error| error.to_string())
        };
        let own = [(StoreId::Node, "node"), (StoreId::Messages, "messages")];
        let mut stores = own
            .into_iter()
            .map(|(id, name)| Ok((id, open(&settings.data_dir.join(name), id)?)))
            .collect::<Result<BTreeMap<_, _>, String>>()?;
        let mut faults = Vec::new();
        for (index, replica) in settings.replicas.iter().enumerate() {
            if let Place::Local { path, .. } = &replica.place {
                let id = StoreId::Replica(index as u16);
                match open(path, id) {
                    Ok(store) => drop(stores.insert(id, store)),
                    Err(why) => faults.push(format!("replica {}: {why}", replica.name)),
                }
            }
        }
        Ok((OpenStores(stores), faults))
    }
}

/// Every UDP socket of the node.
pub fn bind(settings: &Settings) -> Result<Vec<(Port, Udp)>, String> {
    let mut sockets = Vec::new();
    let mut bind = |port, listener: &crate::config::Listener| -> Result<(), String> {
        if listener.transport == Transport::Udp {
            let socket = Udp::bind(listener.address)
                .map_err(|error| format!("cannot listen on udp:{}: {error}", listener.address))?;
            sockets.push((port, socket));
        }
        Ok(())
    };
    for (n, listener) in settings.front.listen.iter().enumerate() {
        bind(Port::Front(n as u16), listener)?;
    }
    for (n, replica) in settings.replicas.iter().enumerate() {
        if let Place::Local { listen, .. } = &replica.place {
            for (m, listener) in listen.iter().enumerate() {
                bind(Port::Replica(n as u16, m as u16), listener)?;
            }
        }
    }
    Ok(sockets)
}

/// The thread.
pub struct Thread {
    pub ear: Ear,
    pub sockets: Vec<(Port, Udp)>,
    pub stores: OpenStores,
    pub zone: Arc<ArcSwap<Zone>>,
    pub call_records: Records<CallRecord>,
    pub text_records: Records<TextRecord>,
    pub errands: Errands,
    pub seed: [u8; 32],
    pub clock_trusted: bool,
}

/// Why the thread ended.
#[derive(Debug, PartialEq, Eq)]
pub enum End {
    Stopped,
    Failed(String),
}

struct Running {
    node: Node,
    stores: OpenStores,
    rng: Rng,
    out: Outbox,
    clock: SystemClock,
    sockets: Vec<(Port, Udp)>,
    by_port: HashMap<Port, usize>,
    /// What leaves next, all through this socket.
    outgoing: (usize, Vec<Outgoing>),
    lines: Gathering,
    writers: HashMap<ConnId, mpsc::Sender<Vec<u8>>>,
    commands: HashMap<u64, oneshot::Sender<(CommandAnswer, Counters)>>,
    command_count: u64,
    mails: HashMap<u64, oneshot::Sender<Vec<Reply>>>,
    mail_count: u64,
    counters: Counters,
    zone: Arc<ArcSwap<Zone>>,
    /// Dropped with the rest at the end: then the last records are written.
    call_records: Records<CallRecord>,
    text_records: Records<TextRecord>,
    errands: Errands,
    end: Option<End>,
}

impl Thread {
    /// Runs until it is told to stop, or its own store fails. `ready` is called once the node has started.
    pub fn run(self, settings: Arc<Settings>, ready: impl FnOnce()) -> End {
        let Thread { ear, sockets, mut stores, zone, call_records, text_records, errands, seed, clock_trusted } = self;
        let lines = log::gather();
        let mut rng = Rng::from_seed(seed);
        let mut out = Outbox::default();
        let mut clock = SystemClock::new(clock_trusted);
        let (now, wall) = clock.read();
        let ctx = &mut Ctx { now, wall, rng: &mut rng, stores: &mut stores, out: &mut out };
        let node = match Node::start(ctx, settings) {
            Ok(node) => node,
            Err(error) => return End::Failed(format!("the node's own store: {error}")),
        };
        let by_port = sockets.iter().enumerate().map(|(n, (port, _))| (*port, n)).collect();
        let mut running = Running {
            node,
            stores,
            rng,
            out,
            clock,
            sockets,
            by_port,
            outgoing: (0, Vec::with_capacity(BATCH)),
            lines,
            writers: HashMap::new(),
            commands: HashMap::new(),
            command_count: 0,
            mails: HashMap::new(),
            mail_count: 0,
            counters: Counters::default(),
            zone,
            call_records,
            text_records,
            errands,
            end: None,
        };
        running.deliver();
        running.send();
        ready();
        running.turn_until_end(&ear)
    }
}

impl Running {
    fn turn_until_end(&mut self, ear: &Ear) -> End {
        let mut inbox = Inbox::new();
        // The bell, then the sockets in their order.
        let fds = [ear.bell.as_raw_fd()].into_iter().chain(self.sockets.iter().map(|(_, socket)| socket.fd()));
        let mut fds: Vec<_> = fds.map(|fd| libc::pollfd { fd, events: libc::POLLIN, revents: 0 }).collect();
        let watchdog = sd_notify::watchdog_enabled();
        let mut petted_at = SystemInstant::now();
        loop {
            if let Some(end) = self.end.take() {
                return end;
            }
            self.lines.write();
            self.wait(&mut fds);
            if let Some(period) = watchdog
                && petted_at.elapsed() > period / 3
            {
                petted_at = SystemInstant::now();
                // A systemd that cannot be told will restart us, which is what the watchdog is for.
                let _ = sd_notify::notify(&[sd_notify::NotifyState::Watchdog]);
            }
            for _ in 0..QUEUE_MAX {
                match ear.queue.try_recv() {
                    Ok(told) => self.told(told),
                    Err(_) => break,
                }
            }
            self.send();
            for (index, _) in fds[1..].iter().enumerate().filter(|(_, socket)| socket.revents != 0) {
                self.read_socket(index, &mut inbox);
            }
            let (now, _) = self.clock.read();
            if self.node.poll_timeout().is_some_and(|at| at <= now) {
                self.input(Input::Timeout);
                self.send();
            }
        }
    }

    /// Sleeps until a datagram, the bell, or the next deadline.
    fn wait(&mut self, fds: &mut [libc::pollfd]) {
        let (now, _) = self.clock.read();
        let pause = self.node.poll_timeout().map_or(1000, |at| (at - now).as_micros().div_ceil(1000).min(1000) as i32);
        // SAFETY: the array lives for the call and its length is told; the counter read of the eventfd fits the buffer.
        unsafe {
            let ready = libc::poll(fds.as_mut_ptr(), fds.len() as libc::nfds_t, pause);
            if ready < 0 {
                // Interrupted: what is ready still is at the next turn.
                fds.iter_mut().for_each(|fd| fd.revents = 0);
            }
            if fds[0].revents != 0 {
                let mut count = [0u8; 8];
                libc::read(fds[0].fd, count.as_mut_ptr().cast(), count.len());
            }
        }
    }

    fn read_socket(&mut self, index: usize, inbox: &mut Inbox) {
        for _ in 0..BATCHES_PER_TURN {
            let (port, socket) = &self.sockets[index];
            let port = *port;
            if let Err(error) = socket.receive(inbox) {
                // An ICMP error of an earlier answer: whom it was for is gone, and the next read goes on.
                *self.counters.0.entry("receive_failed").or_default() += 1;
                tracing::debug!("a socket complains: {error}");
                return;
            }
            for (bytes, from, address) in inbox.datagrams() {
                self.input(Input::Datagram { from, to: Local { port, address }, bytes });
            }
            self.send();
            if !inbox.is_full() {
                return;
            }
        }
    }

    /// Sends what was gathered.
    fn send(&mut self) {
        let (index, outgoing) = &mut self.outgoing;
        if outgoing.is_empty() {
            return;
        }
        self.sockets[*index].1.send(outgoing, |Outgoing { to, .. }, error| {
            *self.counters.0.entry("send_failed").or_default() += 1;
            tracing::debug!("cannot send to {to}: {error}");
        });
        outgoing.clear();
    }

    fn told(&mut self, told: Told) {
        match told {
            Told::Sync(SyncReport::Synced(commit)) => self.input(Input::Synced(commit)),
            Told::Sync(SyncReport::Failed(store, why)) => self.input(Input::StoreFailed(store, why)),
            Told::Opened { conn, from, to, writer } => {
                self.writers.insert(conn, writer);
                self.input(Input::Stream { conn, what: StreamEvent::Opened { from, to } });
            }
            Told::Data { conn, bytes } => self.input(Input::Stream { conn, what: StreamEvent::Data(&bytes) }),
            Told::Closed { conn } => {
                self.writers.remove(&conn);
                self.input(Input::Stream { conn, what: StreamEvent::Closed });
            }
            Told::Settings(settings) => {
                for store in self.stores.0.values() {
                    store.set_disk_reserve(settings.disk_reserve_bytes);
                }
                self.call_records.follow(&settings.calls.records);
                self.text_records.follow(&settings.messages.records);
                self.errands.follow(&settings);
                self.input(Input::Settings(settings));
            }
            Told::Command { command, answer } => {
                self.command_count += 1;
                self.commands.insert(self.command_count, answer);
                self.input(Input::Command { id: self.command_count, command });
            }
            Told::HttpDone { id, result } => self.input(Input::HttpDone { id, result }),
            Told::NumberGiven { id, result } => self.input(Input::NumberGiven { id, result }),
            Told::Mail { mail, answer } => {
                self.mail_count += 1;
                self.mails.insert(self.mail_count, answer);
                self.input(Input::Mail { id: self.mail_count, mail });
            }
            Told::MailSent { id, result } => self.input(Input::MailSent { id, result }),
            Told::Stop => self.end = Some(End::Stopped),
        }
    }

    fn input(&mut self, input: Input<'_>) {
        let (now, wall) = self.clock.read();
        let ctx = &mut Ctx { now, wall, rng: &mut self.rng, stores: &mut self.stores, out: &mut self.out };
        self.node.handle(ctx, input);
        self.deliver();
    }

    fn deliver(&mut self) {
        while let Some(output) = self.out.pop() {
            match output {
                Output::Datagram { from, to, bytes } => {
                    let Some(index) = self.by_port.get(&from.port).copied() else { continue };
                    if self.outgoing.0 != index || self.outgoing.1.len() == BATCH {
                        self.send();
                        self.outgoing.0 = index;
                    }
                    self.outgoing.1.push(Outgoing { bytes, to, from: from.address });
                }
                Output::Stream { conn, bytes } => {
                    // A peer that does not read is closed: its queue is the bound.
                    let gone = self.writers.get(&conn).is_some_and(|writer| writer.try_send(bytes).is_err());
                    if gone {
                        self.writers.remove(&conn);
                    }
                }
                Output::StreamClose { conn } => drop(self.writers.remove(&conn)),
                Output::Zone(zone) => self.zone.store(zone),
                Output::Answer { id, answer } => {
                    if let Some(reply) = self.commands.remove(&id) {
                        // Who asked may have gone away meanwhile.
                        let _ = reply.send((answer, self.counters.clone()));
                    }
                }
                Output::Event(event) => self.counters.tell(&event),
                Output::CallRecord(record) => self.call_records.keep(&record),
                Output::TextRecord(record) => self.text_records.keep(&record),
                Output::HttpPost { id, url, body, timeout } => self.errands.post(id, url, body, timeout),
                Output::GiveNumber { id, imsi, number } => self.errands.give(id, imsi, number),
                Output::MailAnswer { id, replies } => {
                    if let Some(answer) = self.mails.remove(&id) {
                        // Who brought it may have gone away meanwhile.
                        let _ = answer.send(replies);
                    }
                }
                Output::SendMail { id, mail, timeout } => self.errands.send_mail(id, mail, timeout),
                Output::End(why) => self.end = Some(End::Failed(why)),
            }
        }
    }
}

/// The system's clocks.
struct SystemClock {
    start: SystemInstant,
    vouched: bool,
    synchronised: bool,
    checked_at: Option<SystemInstant>,
}

impl SystemClock {
    fn new(vouched: bool) -> SystemClock {
        SystemClock { start: SystemInstant::now(), vouched, synchronised: false, checked_at: None }
    }

    fn read(&mut self) -> (Instant, WallTime) {
        let now = SystemInstant::now();
        if self.checked_at.is_none_or(|at| now.duration_since(at).as_secs() >= CLOCK_CHECK_S) {
            self.checked_at = Some(now);
            self.synchronised = is_synchronised();
        }
        let ms = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_millis() as u64);
        let elapsed_us = now.duration_since(self.start).as_micros() as u64;
        (Instant(elapsed_us), WallTime { ms, trusted: self.vouched || self.synchronised })
    }
}

/// "TIME_ERROR: the system clock is not synchronized" (adjtimex(2)).
fn is_synchronised() -> bool {
    // SAFETY: all zeroes is a value of the structure and asks for nothing to be changed.
    unsafe {
        let mut state: libc::timex = std::mem::zeroed();
        !matches!(libc::adjtimex(&mut state), libc::TIME_ERROR | -1)
    }
}
