//! The seam between the thinking part and the world: what a node is told, what it asks for, and how a promise waits for the disk.
//!
//! Knows: inputs, outputs, the outbox with its held promises, deadlines. Does not know: what any of it means.
//! Read first: DESIGN section 4, "Write now, sync later, speak after sync".

use std::collections::{BTreeMap, VecDeque};
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use rand_core::{Rng as _, SeedableRng};
use serde::Serialize;

use crate::config::Settings;
use crate::event::Event;
use crate::ident::{Imsi, Msisdn};
use crate::mail::address::MailKey;
use crate::mail::{MailFailure, MailIn, MailOut, MailTaken, Reply};
use crate::register::asking::Write;
use crate::register::front::Arrival;
use crate::register::locate::{Located, Seeker};
use crate::register::merge::Record;
use crate::sms::record::Recipient;
use crate::store::{CommitId, Seq, StoreId, Stores};
use crate::time::{Instant, Stamp, WallTime};
use crate::zone::Zone;

/// One of our ports, by its place in the settings.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum Port {
    /// `front.listen[n]`
    Front(u16),
    /// `replica[n].listen[m]`
    Replica(u16, u16),
}

/// The port that something came to, and the address of ours that it was sent to: the answer leaves from there.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Local {
    pub port: Port,
    pub address: Option<IpAddr>,
}

/// A stream connection, numbered by the shell, never twice.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct ConnId(pub u64);

#[derive(Clone, Copy, Debug)]
pub enum StreamEvent<'a> {
    Opened { from: SocketAddr, to: Local },
    Data(&'a [u8]),
    Closed,
}

/// What a node is told.
#[derive(Debug)]
pub enum Input<'a> {
    Datagram {
        from: SocketAddr,
        to: Local,
        bytes: &'a [u8],
    },
    Stream {
        conn: ConnId,
        what: StreamEvent<'a>,
    },
    /// The instant of `poll_timeout` has come.
    Timeout,
    /// Everything up to this write of its store survives a power cut.
    Synced(CommitId),
    /// A sync failed: the store is closed.
    StoreFailed(StoreId, String),
    Settings(Arc<Settings>),
    Command {
        id: u64,
        command: Command,
    },
    /// What became of an [`Output::HttpPost`].
    HttpDone {
        id: u64,
        result: Result<HttpAnswer, HttpFailure>,
    },
    /// What became of an [`Output::GiveNumber`]; where it was given, the new settings came before.
    NumberGiven {
        id: u64,
        result: Result<(), NotGiven>,
    },
    /// A mail has come whole; answered by [`Output::MailAnswer`].
    Mail {
        id: u64,
        mail: Box<MailIn>,
    },
    /// What became of an [`Output::SendMail`].
    MailSent {
        id: u64,
        result: Result<MailTaken, MailFailure>,
    },
}

/// The answer to a POST: its status and its body; of one that is too long the first [`HTTP_ANSWER_BYTES_MAX`] and one byte more.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct HttpAnswer {
    pub status: u16,
    /// Without its parameters, in small letters.
    pub content_type: String,
    pub body: Vec<u8>,
}

/// A longer body is none that is understood: nothing that a phone can show is as long.
pub const HTTP_ANSWER_BYTES_MAX: usize = 16 * 1024;

/// No answer to a POST: why, in words for the operator.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct HttpFailure(pub String);

#[derive(Clone, PartialEq, Eq, Debug)]
pub enum NotGiven {
    /// Somebody has it, or it has another meaning here.
    Taken,
    /// The file could not be written; why.
    Failed(String),
}

/// What an operator asks of a running node.
#[derive(Clone, Debug)]
pub enum Command {
    Lookup(Who),
    Replicas,
    Status,
    /// The calls under way.
    Calls,
    /// Ends one: its id as [`CallAnswer`] shows it.
    CallEnd(String),
    Queue(QueueAsk),
}

/// What an operator asks of the message centre.
#[derive(Clone, Debug)]
pub enum QueueAsk {
    /// The texts that wait, by recipient and in their order.
    List(QueueFilter),
    /// Everything that is known of one that waits, its words too.
    Show(u64),
    /// The life of one, also after its end.
    Explain(u64),
    /// Tried again now.
    Retry(QueuePick),
    /// Removed, as by the centre; whoever asked for a report gets one.
    Drop(QueuePick),
    /// Ended as if their time were over.
    Expire(QueuePick),
}

#[derive(Clone, Copy, Debug)]
pub enum QueuePick {
    Text(u64),
    /// All that wait for this phone, or this address.
    Phone(Who),
}

#[derive(Clone, Debug, Default)]
pub struct QueueFilter {
    /// Those for this phone or address, and those from it.
    pub phone: Option<Who>,
    /// Those whose `cause` begins with this word, or holds it: `absent`, `memory`, `400`.
    pub cause: Option<String>,
    /// At most so many; `None`: as many as the centre shows at once.
    pub limit: Option<usize>,
}

#[derive(Clone, Copy, Debug)]
pub enum Who {
    Imsi(Imsi),
    Number(Msisdn),
    /// An address of mail: of the queues only.
    Mail(MailKey),
}

/// What a node wants done.
#[derive(Debug)]
pub enum Output {
    Datagram {
        from: Local,
        to: SocketAddr,
        bytes: Vec<u8>,
    },
    Stream {
        conn: ConnId,
        bytes: Vec<u8>,
    },
    StreamClose {
        conn: ConnId,
    },
    /// What DNS answers from now on.
    Zone(Arc<Zone>),
    Answer {
        id: u64,
        answer: CommandAnswer,
    },
    Event(Event),
    /// A call has ended, or was refused: a line of the call records.
    CallRecord(Box<CallRecord>),
    /// A text has come to its end, or was refused: a line of the text records.
    TextRecord(Box<TextRecord>),
    /// JSON for a program of the operator's; answered by [`Input::HttpDone`], also where `timeout` is over.
    HttpPost {
        id: u64,
        url: String,
        body: Vec<u8>,
        timeout: Duration,
    },
    /// A subscriber chose this number for himself: it is to be written to the operator's files and taken in. Answered by
    /// [`Input::NumberGiven`].
    GiveNumber {
        id: u64,
        imsi: Imsi,
        number: Msisdn,
    },
    /// What whoever brought a mail is told: one reply, or one for each recipient where each is answered. A yes: all of it is on the disk.
    MailAnswer {
        id: u64,
        replies: Vec<Reply>,
    },
    /// A mail for the relay, or for the servers of its domain; answered by [`Input::MailSent`], also where `timeout` is over.
    SendMail {
        id: u64,
        mail: Box<MailOut>,
        timeout: Duration,
    },
    /// The node cannot go on: its own store failed. The process ends, with these words.
    End(String),
}

/// Answers to [`Command`]; the fields are DESIGN section 9's JSON.
#[derive(Clone, Debug, Serialize)]
#[serde(untagged)]
pub enum CommandAnswer {
    Lookup(LookupAnswer),
    Replicas(Vec<ReplicaAnswer>),
    Status(StatusAnswer),
    Calls(Vec<CallAnswer>),
    Queue(Vec<TextAnswer>),
    Text(Box<TextShown>),
    TextLife(Box<TextLife>),
    /// How many texts were retried, dropped or ended.
    Texts {
        texts: u64,
    },
    Done,
    Error(ErrorAnswer),
}

/// A call under way.
#[derive(Clone, Debug, Serialize)]
pub struct CallAnswer {
    pub id: String,
    /// `locating`, `ringing`, `up`, `ending`.
    pub state: &'static str,
    /// Number, else `IMSI..`, of the one who called, and of the one called.
    pub from: String,
    pub to: String,
    /// Milliseconds since 1970 here; the shell writes RFC 3339.
    pub since: u64,
    pub duration_s: u64,
    /// Base station or trunk of the caller and of the called one: the name where it has one, else the address; with the cell where
    /// it is known, `hill 001-01-1000-10`.
    pub cells: Vec<String>,
}

/// A text that waits.
#[derive(Clone, Debug, Serialize)]
pub struct TextAnswer {
    pub id: String,
    pub from: String,
    pub to: String,
    /// `sending`, `waiting`, `absent`.
    pub state: &'static str,
    /// Milliseconds since 1970 here; the shell writes RFC 3339.
    pub since: u64,
    pub next_attempt: Option<u64>,
    pub cause: String,
}

/// A text that waits, whole.
#[derive(Clone, Debug, Serialize)]
pub struct TextShown {
    #[serde(flatten)]
    pub text: TextAnswer,
    /// `text`, `report`, `mail`.
    pub kind: &'static str,
    /// What a mail has beside its words.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub mail: Option<MailShown>,
    /// Its words, where it has any.
    pub words: Option<String>,
    /// The user data in hex digits, its header included.
    pub octets: String,
    /// `GSM`, `UCS-2`, `8 bit`; with `, part 2 of 3` and `, to port 5505` where it is one or has one.
    pub coding: String,
    pub attempts: u32,
    pub possible_duplicate: bool,
    /// Milliseconds since 1970 here; the shell writes RFC 3339.
    pub ends: u64,
    pub report_wanted: bool,
    pub life: Vec<LifeStep>,
}

/// A mail that waits to leave.
#[derive(Clone, Debug, Serialize)]
pub struct MailShown {
    /// MAIL FROM; `<>`: nobody is told what becomes of it.
    pub envelope_from: String,
    /// From, with the name.
    pub header_from: String,
    pub subject: String,
    pub message_id: String,
    pub in_reply_to: Option<String>,
}

/// What became of a text.
#[derive(Clone, Debug, Serialize)]
pub struct TextLife {
    pub id: String,
    pub from: String,
    pub to: String,
    /// `sending`, `waiting`, `absent`, or its end: `delivered`, `answered`, `failed`, `expired`, `dropped`, `deleted`, `replaced`.
    pub state: &'static str,
    pub life: Vec<LifeStep>,
    /// Its words, where they are kept.
    pub words: Option<String>,
}

#[derive(Clone, Debug, Serialize)]
pub struct LifeStep {
    /// Milliseconds since 1970 here; the shell writes RFC 3339.
    pub at: u64,
    pub what: String,
}

/// What is kept of a text that has come to its end: one line of the records.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct TextRecord {
    /// Empty: it was refused, and never had one.
    pub id: String,
    /// Milliseconds since 1970.
    pub accepted_ms: u64,
    pub ended_ms: u64,
    /// Number, else `IMSI..`, of the sender; what was dialled; the IMSI of each end that is a phone of ours.
    pub from: String,
    pub to: String,
    pub from_imsi: Option<Imsi>,
    pub to_imsi: Option<Imsi>,
    /// Base station or trunk that it came from, and that took it: the name where it has one, else the address.
    pub from_cell: String,
    pub to_cell: String,
    /// `text`, `report`, `command`, `mail`.
    pub kind: &'static str,
    /// Of its user data, or of the words of a mail.
    pub octets: usize,
    pub attempts: u32,
    pub outcome: TextOutcome,
    /// The last answer's SIP code, and the cause of the RP-ERROR where one was told; 0: none.
    pub code: u16,
    pub cause: u8,
    pub why: String,
}

#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum TextOutcome {
    Delivered,
    /// It was for the centre itself, which did what it says.
    Answered,
    /// Never accepted.
    Refused,
    /// The phone, or its base station, will not have it.
    Failed,
    Expired,
    /// By the operator.
    Dropped,
    /// By its sender's SMS-COMMAND.
    Deleted,
    /// A later one of the same sender took its place (TS 23.040 §9.2.3.9).
    Replaced,
}

impl TextOutcome {
    pub fn word(self) -> &'static str {
        match self {
            TextOutcome::Delivered => "delivered",
            TextOutcome::Answered => "answered",
            TextOutcome::Refused => "refused",
            TextOutcome::Failed => "failed",
            TextOutcome::Expired => "expired",
            TextOutcome::Dropped => "dropped",
            TextOutcome::Deleted => "deleted",
            TextOutcome::Replaced => "replaced",
        }
    }
}

/// What is kept of a call that has ended: one line of the records.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct CallRecord {
    pub id: String,
    /// Milliseconds since 1970: the INVITE, the answer where there was one, the end.
    pub started_ms: u64,
    pub answered_ms: Option<u64>,
    pub ended_ms: u64,
    /// Number, else `IMSI..`, of the caller; what he dialled; the IMSI of each end that is a phone of ours.
    pub from: String,
    pub to: String,
    pub from_imsi: Option<Imsi>,
    pub to_imsi: Option<Imsi>,
    /// As in [`CallAnswer`].
    pub from_cell: String,
    pub to_cell: String,
    pub outcome: CallOutcome,
    /// The last answer's code; 0 where there was none.
    pub code: u16,
    /// Of Q.850; 0 where it is not known.
    pub cause: u8,
    /// `caller`, `called`, `us`; why, in words.
    pub ended_by: &'static str,
    pub why: String,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum CallOutcome {
    Answered,
    /// The caller gave up.
    Cancelled,
    Refused,
    /// Answered 302: what became of it is not known here.
    Redirected,
}

#[derive(Clone, Debug, Serialize)]
pub struct ErrorAnswer {
    pub error: String,
    pub cause: String,
    pub hint: String,
}

#[derive(Clone, Debug, Serialize)]
pub struct LookupAnswer {
    pub imsi: String,
    pub msisdn: Vec<String>,
    pub name: String,
    pub bindings: Vec<BindingAnswer>,
}

#[derive(Clone, Debug, Serialize)]
pub struct BindingAnswer {
    pub contact: String,
    pub base_station: Option<String>,
    pub location_area: Option<String>,
    pub cell: Option<String>,
    /// Negative when stale.
    pub expires_s: i64,
    pub stale: bool,
    /// Milliseconds since 1970 here; the shell writes RFC 3339.
    pub since: u64,
}

#[derive(Clone, Debug, Serialize)]
pub struct ReplicaAnswer {
    pub name: String,
    pub shard: String,
    /// `level`, `catching up`, `behind`, `closed`, `not answering`.
    pub state: String,
    /// Known of local replicas only.
    pub bindings: Option<u64>,
    /// Age of the oldest write that it still misses.
    pub lag_s: u64,
    /// How many writes are kept for it.
    pub hints: u64,
}

#[derive(Clone, Debug, Serialize)]
pub struct StatusAnswer {
    pub registrations_under_way: u64,
    pub challenges: u64,
    pub epoch: u64,
    pub zone_serial: u32,
    pub clock_trusted: bool,
    /// Texts that the message centre has accepted and not delivered yet.
    pub texts_waiting: u64,
    pub alarms: Vec<String>,
}

/// What `handle` works with: time, dice, disk and the way out, all handed in.
pub struct Ctx<'a> {
    pub now: Instant,
    pub wall: WallTime,
    pub rng: &'a mut Rng,
    pub stores: &'a mut dyn Stores,
    pub out: &'a mut Outbox,
}

/// The node's dice: a CSPRNG that the shell seeds from the system, a simulation from its seed.
pub struct Rng(rand_chacha::ChaCha12Rng);

impl Rng {
    pub fn from_seed(seed: [u8; 32]) -> Rng {
        Rng(rand_chacha::ChaCha12Rng::from_seed(seed))
    }

    pub fn bytes<const N: usize>(&mut self) -> [u8; N] {
        let mut bytes = [0; N];
        self.0.fill_bytes(&mut bytes);
        bytes
    }

    pub fn u64(&mut self) -> u64 {
        self.0.next_u64()
    }

    /// Evenly below `end`, which is not 0.
    pub fn below(&mut self, end: u64) -> u64 {
        // The bias of the remainder is below 2^-32 for every `end` that we use.
        self.0.next_u64() % end
    }
}

/// The writes that a promise waits for: at most one (the latest) per store, up to eight stores.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct After {
    commits: [Option<CommitId>; 8],
}

impl After {
    pub fn nothing() -> After {
        After::default()
    }

    /// Waits for this one too.
    ///
    /// There is no ninth store: no role waits for more than the replicas of one shard and the node's own, and a shard of more than
    /// [`crate::config::REPLICAS_PER_SHARD_MAX`] is refused where the configuration is read.
    #[must_use]
    pub fn and(mut self, commit: CommitId) -> After {
        for slot in &mut self.commits {
            match slot {
                Some(held) if held.store == commit.store => {
                    held.seq = held.seq.max(commit.seq);
                    return self;
                }
                Some(_) => {}
                None => {
                    *slot = Some(commit);
                    return self;
                }
            }
        }
        debug_assert!(false, "a promise waits for more than eight stores");
        self
    }

    pub fn commits(&self) -> impl Iterator<Item = CommitId> + '_ {
        self.commits.iter().filter_map(|slot| *slot)
    }

    fn waits_for(&self, store: StoreId) -> bool {
        self.commits().any(|commit| commit.store == store)
    }
}

/// The name of a server transaction: a digest of what makes a request itself and not another.
pub type TransactionKey = [u8; 16];

/// Something that happens inside the node, now or once the disk has it.
#[derive(Debug)]
pub enum Inner {
    /// Leaves the node.
    Output(Output),
    /// The final answer to a request: leaves the node, and is kept for copies of the request.
    Answer { key: Option<TransactionKey>, to: ReplyTo, bytes: Vec<u8> },
    /// A local replica has this write on disk.
    Written { write: Write, replica: usize, older_than: Option<Stamp>, alert: Vec<SocketAddr> },
    /// A local replica will not have it: its store refused or failed.
    NotWritten { write: Write, replica: usize },
    /// The node's own store remembers that the replicas of a new site are to be given their marks.
    Found,
    /// A local replica has these hints on disk.
    HintsWritten { replica: usize, told: Vec<(Imsi, Record)> },
    /// Everything that the yes to a REGISTER waits for is on the disk.
    Promised { register: u64 },
    /// Where a phone is, for whoever asked.
    Located { seeker: Seeker, located: Located },
    /// The record of an answered call is on the disk.
    CallKept { call: u64 },
    /// A phone is back, its binding on the disk: those who wait for it are told. `registered`: its REGISTER was answered here.
    Returned { imsi: Imsi, owners: Vec<SocketAddr>, registered: bool },
    /// A phone was told that it is registered here; once per REGISTER, after that.
    Arrived { imsi: Imsi, arrival: Arrival },
    /// The replicas of a phone are to be told that our message centre waits for it since then, or no longer.
    Mark { imsi: Imsi, since: Option<Stamp> },
    /// These texts are on the disk, and may be sent.
    TextsKept { texts: Vec<(Recipient, u64)> },
    /// One that came to its end is gone from the disk, and the next one may be sent.
    TextRemoved { recipient: Recipient, text: u64 },
}

/// Where an answer goes.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum ReplyTo {
    Datagram { from: Local, to: SocketAddr },
    Stream(ConnId),
}

/// What a node has said and what it holds back until the disk has it.
///
/// Limit: what is held is bounded by the transactions under way (`transaction_count_max`), each of which holds a few.
#[derive(Default)]
pub struct Outbox {
    ready: VecDeque<Inner>,
    held: Vec<(After, Inner)>,
    synced: BTreeMap<StoreId, Seq>,
    outputs: VecDeque<Output>,
}

impl Outbox {
    /// Happens as soon as every commit of `after` is synced; at once if that is so already.
    pub fn after(&mut self, after: After, what: Inner) {
        if after.commits().all(|commit| is_synced(&self.synced, commit)) {
            self.ready.push_back(what);
        } else {
            self.held.push((after, what));
        }
    }

    pub fn send_after(&mut self, after: After, output: Output) {
        self.after(after, Inner::Output(output));
    }

    pub fn send(&mut self, output: Output) {
        self.ready.push_back(Inner::Output(output));
    }

    pub fn event(&mut self, event: Event) {
        self.outputs.push_back(Output::Event(event));
    }

    /// Everything up to this commit is on the disk: what waited for nothing else is ready.
    pub fn synced(&mut self, commit: CommitId) {
        let seq = self.synced.entry(commit.store).or_default();
        *seq = commit.seq.max(*seq);
        let synced = &self.synced;
        for (_, what) in self.held.extract_if(.., |(after, _)| after.commits().all(|commit| is_synced(synced, commit)))
        {
            self.ready.push_back(what);
        }
    }

    /// What waited for this store will never be true: it is given back, to be answered otherwise.
    pub fn failed(&mut self, store: StoreId) -> Vec<Inner> {
        self.held.extract_if(.., |(after, _)| after.waits_for(store)).map(|(_, what)| what).collect()
    }

    /// Nobody waits for this write any more: a disk that does not answer must not pile up what it would say.
    pub fn withdraw(&mut self, write: Write) {
        self.held.retain(|(_, what)| !matches!(what, Inner::Written { write: held, .. } if *held == write));
    }

    pub fn held_count(&self) -> usize {
        self.held.len()
    }

    /// The next thing that is ready to happen, for the node.
    pub(crate) fn next_ready(&mut self) -> Option<Inner> {
        self.ready.pop_front()
    }

    pub(crate) fn leave(&mut self, output: Output) {
        self.outputs.push_back(output);
    }

    /// The next thing that the world is asked for, for the shell.
    pub fn pop(&mut self) -> Option<Output> {
        self.outputs.pop_front()
    }
}

/// Number 0 is before every write of this run: what a store held when it was opened is on the disk.
fn is_synced(synced: &BTreeMap<StoreId, Seq>, commit: CommitId) -> bool {
    synced.get(&commit.store).copied().unwrap_or_default() >= commit.seq
}

/// Deadlines of the node, in order.
#[derive(Default)]
pub struct Timers {
    queue: BTreeMap<(Instant, u64), Timer>,
    count: u64,
}

/// What a deadline is about.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Timer {
    /// A request to a remote replica: send it again, or give up.
    Asked(u64),
    /// A REGISTER: too few replicas in time.
    Register(u64),
    /// A replica that is behind or silent: try again.
    Replica(usize),
    /// A stream connection without traffic.
    Stream(ConnId),
    /// A call: its next deadline.
    Call(u64),
    /// A mark that is written: too slow a replica misses it.
    Mark(u64),
    /// A queue of texts: the next attempt, or the end of one.
    Text(Recipient),
    /// What an IMS phone is told of its text: once more.
    TextNote(u64),
    /// A command of the operator's that looks at many texts: its next turn.
    Operator(u64),
    /// Purge, forget, reserve: once a second.
    Housekeeping,
}

impl Timers {
    pub fn at(&mut self, when: Instant, what: Timer) {
        self.count += 1;
        self.queue.insert((when, self.count), what);
    }

    pub fn next(&self) -> Option<Instant> {
        self.queue.keys().next().map(|(when, _)| *when)
    }

    /// The next deadline that has passed.
    pub fn pop(&mut self, now: Instant) -> Option<Timer> {
        let entry = self.queue.first_entry()?;
        if entry.key().0 > now { None } else { Some(entry.remove()) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn commit(store: StoreId, seq: Seq) -> CommitId {
        CommitId { store, seq }
    }

    #[test]
    fn a_promise_leaves_when_all_its_stores_have_synced() {
        let (node, replica) = (StoreId::Node, StoreId::Replica(0));
        let mut out = Outbox::default();
        let after = After::nothing().and(commit(replica, 3)).and(commit(node, 1)).and(commit(replica, 2));
        out.after(after, Inner::NotWritten { write: Write::Mark(1), replica: 0 });
        out.synced(commit(replica, 2));
        out.synced(commit(node, 1));
        assert!(out.next_ready().is_none(), "the larger number of a store counts");
        out.synced(commit(replica, 4));
        assert!(out.next_ready().is_some());
        out.after(after, Inner::NotWritten { write: Write::Mark(2), replica: 0 });
        assert!(out.next_ready().is_some(), "what is synced already does not wait");
        out.after(
            After::nothing().and(commit(StoreId::Replica(3), 0)),
            Inner::NotWritten { write: Write::Mark(3), replica: 3 },
        );
        assert!(out.next_ready().is_some(), "nor what was there when the store was opened");
    }

    #[test]
    fn a_failed_store_gives_back_what_waited_for_it() {
        let mut out = Outbox::default();
        out.after(
            After::nothing().and(commit(StoreId::Node, 1)),
            Inner::NotWritten { write: Write::Mark(1), replica: 0 },
        );
        out.after(
            After::nothing().and(commit(StoreId::Replica(1), 1)),
            Inner::NotWritten { write: Write::Mark(2), replica: 1 },
        );
        assert_eq!(out.failed(StoreId::Replica(1)).len(), 1);
        assert_eq!(out.held_count(), 1);
    }
}
