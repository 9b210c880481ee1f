//! How commands reach the running process: one line of JSON each way over a Unix socket that only its owner may use.
//!
//! A request is `{"command": "lookup", "argument": "2001"}`; the argument of the commands that begin with `queue` is [`Picked`], as JSON. An
//! answer is `{"exit": 0, "answer": ..}` or `{"exit": 2, "answer": {"error": .., "cause": .., "hint": ..}}`. Limits: a line of
//! [`LINE_BYTES_MAX`], [`CLIENTS_MAX`] at a time, 5 s for a request.

use std::io::{self, BufRead as _, BufReader, Write as _};
use std::os::unix::fs::PermissionsExt as _;
use std::os::unix::net::UnixStream as StdUnixStream;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use arc_swap::ArcSwap;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use tokio::io::{AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::Semaphore;

use super::files::{self, Fault};
use super::log::Counters;
use super::node::{Door, Told};
use super::print::{problems_json, rfc3339};
use crate::config::diff::{Change, diff};
use crate::config::{Calls, Messages, Settings};
use crate::ident::{Imsi, Msisdn};
use crate::mail::address::Address;
use crate::seam::{Command, CommandAnswer, QueueAsk, QueueFilter, QueuePick, Who};
use crate::zone::Zone;

const LINE_BYTES_MAX: u64 = 64 * 1024;
const CLIENTS_MAX: usize = 16;
const PATIENCE: Duration = Duration::from_secs(5);

#[derive(Serialize, Deserialize, Debug)]
pub struct Request {
    pub command: String,
    #[serde(default)]
    pub argument: String,
}

/// Which texts a command is about: one, or those of a phone; and for the list, which of them and how many.
#[derive(Serialize, Deserialize, Default, PartialEq, Eq, Debug)]
#[serde(default)]
pub struct Picked {
    pub id: Option<String>,
    pub phone: Option<String>,
    pub cause: Option<String>,
    pub limit: Option<usize>,
}

/// `exit` is the exit code of the command: 0 yes or done, 1 no, 2 could not.
#[derive(Serialize, Deserialize, Debug)]
pub struct Answer {
    pub exit: u8,
    pub answer: Value,
}

impl Answer {
    fn could_not(error: &str, cause: &str, hint: &str) -> Answer {
        Answer { exit: 2, answer: json!({ "error": error, "cause": cause, "hint": hint }) }
    }
}

// --- The side of the command ---

/// Asks the running process.
///
/// Errors: [`io::ErrorKind::NotFound`] and [`io::ErrorKind::ConnectionRefused`] where nothing runs.
pub fn ask(socket: &Path, request: &Request) -> io::Result<Answer> {
    let mut stream = StdUnixStream::connect(socket)?;
    stream.set_read_timeout(Some(PATIENCE * 2))?;
    let mut line = serde_json::to_string(request)?;
    line.push('\n');
    stream.write_all(line.as_bytes())?;
    let mut answer = String::new();
    BufReader::new(stream).read_line(&mut answer)?;
    Ok(serde_json::from_str(&answer)?)
}

// --- The side of the process ---

/// What the process tells of itself.
pub struct Desk {
    pub config: PathBuf,
    pub door: Door,
    pub settings: ArcSwap<Settings>,
    pub zone: Arc<ArcSwap<Zone>>,
    pub since_ms: u64,
    /// When the settings in force were read, and what was wrong with those that were refused since.
    pub loaded: Mutex<(u64, Option<String>)>,
    pub roles: Vec<&'static str>,
    /// Beside the node's: of the zone, of the records and of the hooks.
    pub more_counts: Box<dyn Fn() -> Vec<(&'static str, u64)> + Send + Sync>,
    /// Held from the reading of the files until the node is told: of two who apply, the later one has read later.
    pub applying: Mutex<()>,
}

/// Listens; a socket that a dead process left is replaced.
pub fn listen(path: &Path) -> io::Result<UnixListener> {
    if path.exists() {
        if StdUnixStream::connect(path).is_ok() {
            return Err(io::Error::new(io::ErrorKind::AddrInUse, "another encamp answers there"));
        }
        std::fs::remove_file(path)?;
    }
    if let Some(folder) = path.parent() {
        std::fs::create_dir_all(folder)?;
    }
    // Nobody else may connect, not even in the moment before the permissions are set.
    // SAFETY: the call takes no pointer.
    let mask = unsafe { libc::umask(0o177) };
    let listener = UnixListener::bind(path);
    // SAFETY: as above.
    unsafe { libc::umask(mask) };
    let listener = listener?;
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o600))?;
    Ok(listener)
}

pub async fn serve(listener: UnixListener, desk: Arc<Desk>) {
    let places = Arc::new(Semaphore::new(CLIENTS_MAX));
    loop {
        let Ok(place) = Arc::clone(&places).acquire_owned().await else { return };
        match listener.accept().await {
            Err(error) => {
                tracing::warn!("the control socket complains: {error}");
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
            Ok((stream, _)) => {
                let desk = Arc::clone(&desk);
                tokio::spawn(async move {
                    // Who asked and went away, or never finished asking, is owed nothing.
                    let _ = tokio::time::timeout(PATIENCE * 2, client(stream, &desk)).await;
                    drop(place);
                });
            }
        }
    }
}

async fn client(stream: UnixStream, desk: &Desk) -> io::Result<()> {
    let (reader, mut writer) = stream.into_split();
    let mut line = String::new();
    let mut reader = tokio::io::BufReader::new(reader.take(LINE_BYTES_MAX));
    tokio::time::timeout(PATIENCE, reader.read_line(&mut line)).await??;
    let answer = match serde_json::from_str::<Request>(&line) {
        Ok(request) => desk.answer(&request).await,
        Err(error) => {
            Answer::could_not("cannot read the request", &error.to_string(), "is the command of the same release?")
        }
    };
    let mut text = serde_json::to_string(&answer)?;
    text.push('\n');
    writer.write_all(text.as_bytes()).await
}

impl Desk {
    async fn answer(&self, request: &Request) -> Answer {
        match request.command.as_str() {
            "status" => self.status().await,
            "replica" => self.node(Command::Replicas).await,
            "lookup" => match who(&request.argument) {
                Some(who) => self.node(Command::Lookup(who)).await,
                None => Answer::could_not(
                    "cannot look up",
                    "this is neither an IMSI nor a number",
                    "encamp lookup 001010000000001",
                ),
            },
            "zone" => {
                let zone = self.zone.load();
                Answer { exit: 0, answer: json!({ "records": zone.dump(), "text": zone.dump_text() }) }
            }
            "calls" => self.node(Command::Calls).await,
            "call_end" => self.node(Command::CallEnd(request.argument.clone())).await,
            "apply" => self.apply(),
            queue if queue.starts_with("queue") => match asked_of_queue(queue, &request.argument) {
                Ok(asked) => self.node(Command::Queue(asked)).await,
                Err(answer) => answer,
            },
            other => Answer::could_not("unknown command", other, "is the command of the same release?"),
        }
    }

    async fn node(&self, command: Command) -> Answer {
        match self.door.command(command).await {
            Err(why) => Answer::could_not("no answer", why, "see the log"),
            Ok((answer, _)) => {
                let exit = match &answer {
                    CommandAnswer::Lookup(lookup) => u8::from(lookup.bindings.is_empty()),
                    CommandAnswer::Error(error)
                        if matches!(error.error.as_str(), "not provisioned" | "no such call" | "no such text") =>
                    {
                        1
                    }
                    CommandAnswer::Error(_) => 2,
                    // Nothing was there to be retried, dropped or ended.
                    CommandAnswer::Texts { texts: 0 } => 1,
                    CommandAnswer::Replicas(_)
                    | CommandAnswer::Status(_)
                    | CommandAnswer::Calls(_)
                    | CommandAnswer::Queue(_)
                    | CommandAnswer::Text(_)
                    | CommandAnswer::TextLife(_)
                    | CommandAnswer::Texts { .. }
                    | CommandAnswer::Done => 0,
                };
                Answer { exit, answer: with_times(&answer) }
            }
        }
    }

    async fn status(&self) -> Answer {
        let (status, counters) = match self.door.command(Command::Status).await {
            Ok((CommandAnswer::Status(status), counters)) => (Some(status), counters),
            _ => (None, Counters::default()),
        };
        let state = if status.is_some() { "running" } else { "not answering" };
        let roles: Vec<Value> = self.roles.iter().map(|name| json!({ "name": name, "state": state })).collect();
        let (loaded_at, error) = self.loaded.lock().map(|loaded| loaded.clone()).unwrap_or_default();
        let mut all = counters.0;
        all.extend((self.more_counts)());
        let answer = json!({
            "state": state,
            "since": rfc3339(self.since_ms),
            "version": env!("CARGO_PKG_VERSION"),
            "roles": roles,
            "configuration": { "loaded_at": rfc3339(loaded_at), "error": error },
            "node": status,
            "counters": all,
        });
        Answer { exit: u8::from(status.is_none()), answer }
    }

    /// Reads the files anew; a bad one leaves the old settings in force and shows in `status`.
    pub fn apply(&self) -> Answer {
        let _applying = self.applying.lock().unwrap_or_else(PoisonError::into_inner);
        match files::load_to_run(&self.config) {
            Err(fault) => {
                let (first, all) = match &fault {
                    Fault::Unreadable(path, error) => {
                        let text = format!("{}: {error}", path.display());
                        (text.clone(), json!([{ "error": text, "cause": "", "hint": "" }]))
                    }
                    Fault::Wrong(problems) => {
                        let first = problems.first().map(|problem| format!("{}: {}", problem.place, problem.what));
                        (first.unwrap_or_default(), problems_json(problems))
                    }
                };
                tracing::error!("the new configuration is refused, the old one stays in force: {first}");
                if let Ok(mut loaded) = self.loaded.lock() {
                    loaded.1 = Some(first);
                }
                Answer { exit: 1, answer: json!({ "applied": [], "needs_restart": [], "problems": all }) }
            }
            Ok((new, _)) => {
                let old = self.settings.load_full();
                let changes = diff(&old, &new);
                let settings = Arc::new(what_can_change(&old, new));
                if self.door.try_tell(Told::Settings(Arc::clone(&settings))).is_err() {
                    return Answer::could_not("not applied", "the node has too much to do", "try again");
                }
                self.settings.store(settings);
                if let Ok(mut loaded) = self.loaded.lock() {
                    *loaded = (now_ms(), None);
                }
                let told = |wanted: bool| -> Vec<&str> {
                    let of = |change: &&Change| change.needs_restart == wanted;
                    changes.iter().filter(of).map(|change| change.what.as_str()).collect()
                };
                for change in &changes {
                    let when = if change.needs_restart { "waits for a restart" } else { "applied" };
                    tracing::info!("{when}: {}", change.what);
                }
                let answer = json!({ "applied": told(false), "needs_restart": told(true), "problems": [] });
                Answer { exit: 0, answer }
            }
        }
    }
}

/// What is asked of the message centre, or what is wrong with it.
fn asked_of_queue(command: &str, argument: &str) -> Result<QueueAsk, Answer> {
    let could_not = |error: &str, cause: &str, hint: &str| Err(Answer::could_not(error, cause, hint));
    let picked = if argument.is_empty() { Ok(Picked::default()) } else { serde_json::from_str::<Picked>(argument) };
    let Picked { id, phone, cause, limit } = match picked {
        Ok(picked) => picked,
        Err(error) => {
            return could_not("cannot read the request", &error.to_string(), "is the command of the same release?");
        }
    };
    let phone = match phone.as_deref().map(|phone| (phone, who(phone))) {
        Some((phone, None)) => {
            let cause = format!("{phone:?} is neither an IMSI nor a number");
            return could_not("cannot look for its texts", &cause, "encamp queue --phone 2001");
        }
        Some((_, found)) => found,
        None => None,
    };
    if command == "queue" {
        return Ok(QueueAsk::List(QueueFilter { phone, cause, limit }));
    }
    let text = match id.as_deref().map(|id| (id, id.parse::<u64>())) {
        // One that is no number is the id of no text.
        Some((id, Err(_))) => {
            let no =
                Answer::could_not("no such text", &format!("{id:?} is no id of a text"), "encamp queue shows them");
            return Err(Answer { exit: 1, ..no });
        }
        Some((_, Ok(text))) => Some(text),
        None => None,
    };
    let pick = text.map(QueuePick::Text).or(phone.map(QueuePick::Phone));
    Ok(match (command, text, pick) {
        ("queue_show", Some(text), _) => QueueAsk::Show(text),
        ("queue_explain", Some(text), _) => QueueAsk::Explain(text),
        ("queue_retry", _, Some(pick)) => QueueAsk::Retry(pick),
        ("queue_drop", _, Some(pick)) => QueueAsk::Drop(pick),
        ("queue_expire", _, Some(pick)) => QueueAsk::Expire(pick),
        _ => return could_not("unknown command", command, "is the command of the same release?"),
    })
}

/// An answer of the node as JSON; its milliseconds since 1970 become RFC 3339.
fn with_times(answer: &CommandAnswer) -> Value {
    let mut value = serde_json::to_value(answer).unwrap_or_default();
    match answer {
        CommandAnswer::Lookup(_) => each(&mut value["bindings"], put_times),
        CommandAnswer::Calls(_) | CommandAnswer::Queue(_) => each(&mut value, put_times),
        CommandAnswer::Text(_) | CommandAnswer::TextLife(_) => {
            put_times(&mut value);
            each(&mut value["life"], put_times);
        }
        CommandAnswer::Replicas(_)
        | CommandAnswer::Status(_)
        | CommandAnswer::Texts { .. }
        | CommandAnswer::Done
        | CommandAnswer::Error(_) => {}
    }
    value
}

fn each(rows: &mut Value, put: fn(&mut Value)) {
    rows.as_array_mut().into_iter().flatten().for_each(put);
}

fn put_times(row: &mut Value) {
    for name in ["since", "next_attempt", "ends", "at"] {
        if let Some(time) = row.get_mut(name) {
            *time = time.as_u64().map(rfc3339).into();
        }
    }
}

/// The new settings, but with what only a restart changes as it is: sockets, stores, the map.
fn what_can_change(old: &Settings, mut new: Settings) -> Settings {
    new.domain.clone_from(&old.domain);
    if new.calls.records.path == Calls::of(&new.data_dir).records.path {
        // It follows `data_dir`, which waits for the restart.
        new.calls.records.path = Calls::of(&old.data_dir).records.path;
    }
    if new.messages.records.path == Messages::of(&new.data_dir).records.path {
        new.messages.records.path = Messages::of(&old.data_dir).records.path;
    }
    new.data_dir.clone_from(&old.data_dir);
    new.control.clone_from(&old.control);
    new.cluster_key.clone_from(&old.cluster_key);
    new.front.listen.clone_from(&old.front.listen);
    new.zone.apex.clone_from(&old.zone.apex);
    new.zone.listen.clone_from(&old.zone.listen);
    new.shards.clone_from(&old.shards);
    new.replicas.clone_from(&old.replicas);
    new
}

/// An address of mail, an IMSI, or else a number.
pub fn who(text: &str) -> Option<Who> {
    if text.contains('@') {
        return Address::parse(text).ok().map(|address| Who::Mail(address.key()));
    }
    match Imsi::parse(text) {
        Ok(imsi) => Some(Who::Imsi(imsi)),
        Err(_) => Msisdn::parse(text).ok().map(Who::Number),
    }
}

pub fn now_ms() -> u64 {
    std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).map_or(0, |since| since.as_millis() as u64)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::read::{Source, Sources, read};
    use crate::seam::{CallAnswer, LifeStep, TextAnswer, TextLife, TextShown};

    fn settings(text: &str) -> Settings {
        let main = Source { name: "encamp.toml".into(), text: format!("domain = \"gsm.example\"\n{text}") };
        read(&Sources { main, ..Sources::default() }).unwrap_or_else(|problems| panic!("{problems:?}")).0
    }

    #[test]
    fn the_records_stay_where_they_are_until_the_data_moves() {
        let (old, moved) = (settings("data_dir = \"/d\"\n"), settings("data_dir = \"/e\"\n"));
        let taken = what_can_change(&old, moved);
        assert_eq!((taken.data_dir.to_str(), taken.calls.records.path.to_str()), (Some("/d"), Some("/d/calls.csv")));
        assert_eq!(taken.messages.records.path.to_str(), Some("/d/texts.csv"));
        let named = settings("data_dir = \"/e\"\n[calls]\nrecord_file = \"/srv/calls.csv\"\n");
        assert_eq!(what_can_change(&old, named).calls.records.path.to_str(), Some("/srv/calls.csv"));
    }

    #[test]
    fn calls_and_texts_are_told_with_times_in_rfc_3339() {
        let call = CallAnswer {
            id: "a1".into(),
            state: "up",
            from: "+15550001".into(),
            to: "2002".into(),
            since: 1_795_262_400_000,
            duration_s: 12,
            cells: vec!["hill 001-01-1000-10".into(), "pbx".into()],
        };
        assert_eq!(
            with_times(&CommandAnswer::Calls(vec![call])),
            json!([{
                "id": "a1", "state": "up", "from": "+15550001", "to": "2002", "since": "2026-11-21T12:00:00Z",
                "duration_s": 12, "cells": ["hill 001-01-1000-10", "pbx"],
            }])
        );
        let text = |next_attempt| TextAnswer {
            id: "t1".into(),
            from: "2001".into(),
            to: "2002".into(),
            state: "absent",
            since: 1_795_262_400_250,
            next_attempt,
            cause: "absent".into(),
        };
        let told = with_times(&CommandAnswer::Queue(vec![text(None), text(Some(1_795_262_401_000))]));
        assert_eq!((&told[0]["since"], &told[0]["next_attempt"]), (&json!("2026-11-21T12:00:00.25Z"), &Value::Null));
        assert_eq!(told[1]["next_attempt"], json!("2026-11-21T12:00:01Z"));
    }

    #[test]
    fn a_text_is_shown_with_every_time_in_rfc_3339() {
        let text = TextAnswer {
            id: "7".into(),
            from: "2001".into(),
            to: "2002".into(),
            state: "absent",
            since: 1_795_262_400_000,
            next_attempt: None,
            cause: "absent".into(),
        };
        let life = vec![LifeStep { at: 1_795_262_400_000, what: "accepted".into() }];
        let shown = TextShown {
            text,
            kind: "text",
            words: Some("hi".into()),
            octets: "e834".into(),
            coding: "GSM".into(),
            attempts: 1,
            possible_duplicate: false,
            ends: 1_795_262_401_000,
            report_wanted: true,
            mail: None,
            life: life.clone(),
        };
        assert_eq!(
            with_times(&CommandAnswer::Text(Box::new(shown))),
            json!({
                "id": "7", "from": "2001", "to": "2002", "state": "absent", "since": "2026-11-21T12:00:00Z",
                "next_attempt": null, "cause": "absent", "kind": "text", "words": "hi", "octets": "e834", "coding": "GSM",
                "attempts": 1, "possible_duplicate": false, "ends": "2026-11-21T12:00:01Z", "report_wanted": true,
                "life": [{ "at": "2026-11-21T12:00:00Z", "what": "accepted" }],
            })
        );
        let (id, from, to) = ("7".into(), "2001".into(), "2002".into());
        let ended = TextLife { id, from, to, state: "delivered", life, words: None };
        let told = with_times(&CommandAnswer::TextLife(Box::new(ended)));
        assert_eq!((&told["life"][0]["at"], &told["words"]), (&json!("2026-11-21T12:00:00Z"), &Value::Null));
    }

    #[test]
    fn what_is_asked_of_the_queue_is_told_as_json() {
        let asked = |command: &str, picked: &Picked| {
            asked_of_queue(command, &json!(picked).to_string()).map(|asked| format!("{asked:?}")).map_err(|no| no.exit)
        };
        let one = |id: &str| Picked { id: Some(id.into()), ..Picked::default() };
        let phone = |phone: &str| Picked { phone: Some(phone.into()), ..Picked::default() };
        let shown = |ask: QueueAsk| Ok(format!("{ask:?}"));
        let who = who("2001").unwrap();
        assert!(matches!(
            asked_of_queue("queue", ""),
            Ok(QueueAsk::List(QueueFilter { phone: None, cause: None, limit: None }))
        ));
        let all = Picked { cause: Some("memory".into()), limit: Some(5), ..phone("2001") };
        let filter = QueueFilter { phone: Some(who), cause: Some("memory".into()), limit: Some(5) };
        assert_eq!(asked("queue", &all), shown(QueueAsk::List(filter)));
        assert_eq!(asked("queue_show", &one("7")), shown(QueueAsk::Show(7)));
        assert_eq!(asked("queue_explain", &one("7")), shown(QueueAsk::Explain(7)));
        assert_eq!(asked("queue_retry", &one("7")), shown(QueueAsk::Retry(QueuePick::Text(7))));
        assert_eq!(asked("queue_drop", &phone("2001")), shown(QueueAsk::Drop(QueuePick::Phone(who))));
        assert_eq!(asked("queue_expire", &phone("2001")), shown(QueueAsk::Expire(QueuePick::Phone(who))));
        // No such text; nothing that could be one, or too little to be about anything.
        assert_eq!(asked("queue_show", &one("none")), Err(1));
        assert_eq!(asked("queue_drop", &phone("Ana")), Err(2));
        assert_eq!(asked("queue_drop", &Picked::default()), Err(2));
        assert_eq!(asked("queue_show", &phone("2001")), Err(2));
        assert_eq!(asked("queue_other", &one("7")), Err(2));
        assert!(asked_of_queue("queue", "{").is_err());
    }
}
