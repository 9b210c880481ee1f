//! The command line: what an operator types, and what he is told.
//!
//! "Options before or after the subcommand; a bare noun is its first verb" (DESIGN section 9). Exit code: 0 yes or done, 1 no, 2 could not.
//! Commands reach the running process over the control socket; those that can work on the files alone do so without one.

use std::io::{self, BufRead as _};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use clap::{Args, Parser, Subcommand};
use serde_json::{Value, json};

use super::control::{Answer, Picked, Request, ask, now_ms};
use super::files::{self, Changed, DEFAULT_CONFIG, Fault, NotChanged};
use super::print::{cell, plain, problems_json, problems_text, table};
use super::{init, mail_test, run, trial};
use crate::config::edit::{SubscriberFields, add_subscriber, remove_subscriber};
use crate::config::read::{Problem, control_path};
use crate::config::{Settings, Subscriber};
use crate::ident::Imsi;
use crate::sms::operate::LIST_MAX;

/// The registrar box beside GSM base stations.
#[derive(Parser)]
#[command(name = "encamp", version, about, disable_help_subcommand = true)]
struct Line {
    /// The configuration file.
    #[arg(long, global = true, value_name = "FILE")]
    config: Option<PathBuf>,
    /// JSON for programs instead of tables for people.
    #[arg(long, global = true)]
    json: bool,
    #[command(subcommand)]
    command: What,
}

#[derive(Subcommand)]
enum What {
    /// Start every role that the configuration names.
    Run,
    /// Say what is wrong with the configuration, and where; writes nothing.
    Check,
    /// Let the running process take in the files as they are now.
    Apply,
    /// Found the replicas of this box: once, before a new site starts.
    Init,
    /// How the running process is.
    Status {
        /// Wait up to so many seconds until every role answers.
        #[arg(long, value_name = "SECONDS")]
        wait: Option<u64>,
    },
    /// Who is provisioned.
    Subscriber {
        #[command(subcommand)]
        verb: Option<SubscriberVerb>,
    },
    /// Where a phone is: by IMSI or number.
    Lookup { who: String },
    /// How the replicas stand.
    Replica {
        #[command(subcommand)]
        verb: Option<ReplicaVerb>,
    },
    /// The calls under way.
    Calls {
        #[command(subcommand)]
        verb: Option<CallsVerb>,
    },
    /// The texts that wait for their phones.
    Queue {
        #[command(flatten)]
        listed: Listed,
        #[command(subcommand)]
        verb: Option<QueueVerb>,
    },
    /// Mail.
    Mail {
        #[command(subcommand)]
        verb: MailVerb,
    },
    /// The DNS zone.
    Zone {
        #[command(subcommand)]
        verb: Option<ZoneVerb>,
    },
    /// Simulated base stations and phones try the box; without --config a private one.
    Rehearse {
        #[arg(long, default_value_t = 20)]
        phones: u32,
    },
}

#[derive(Subcommand)]
enum SubscriberVerb {
    List,
    Show {
        who: String,
    },
    /// Provision a SIM in 90-local.toml and apply it.
    Add(Add),
    /// Take a SIM out of 90-local.toml and apply it.
    Remove {
        imsi: String,
    },
}

#[derive(Args)]
struct Add {
    imsi: String,
    #[arg(long, num_args = 1.., value_name = "NUMBER")]
    msisdn: Vec<String>,
    #[arg(long, value_name = "NAME")]
    algorithm: String,
    /// 32 hex digits, or - to read them from standard input.
    #[arg(long, value_name = "HEX")]
    ki: Option<String>,
    #[arg(long, value_name = "HEX", conflicts_with = "opc")]
    op: Option<String>,
    #[arg(long, value_name = "HEX")]
    opc: Option<String>,
    #[arg(long, value_name = "TEXT")]
    name: Option<String>,
}

#[derive(Subcommand)]
enum ReplicaVerb {
    Status,
}

#[derive(Subcommand)]
enum CallsVerb {
    List,
    /// End one: both sides get what they expect of a call that is over.
    End {
        /// As `encamp calls` shows it.
        id: String,
    },
}

#[derive(Subcommand)]
enum QueueVerb {
    List(Listed),
    /// All that is known of one that waits, its words too.
    Show {
        id: String,
    },
    /// What became of one, step by step, also after its end.
    Explain {
        id: String,
    },
    /// Try them again now.
    Retry(Texts),
    /// Remove them; a sender who asked for a report gets one.
    Drop(Texts),
    /// End them as if their time were over.
    Expire(Texts),
}

/// Which of those that wait.
#[derive(Args, Default, PartialEq, Eq, Debug)]
struct Listed {
    /// Those for this phone or address of mail, and those from it.
    #[arg(value_name = "NUMBER, IMSI or ADDRESS", conflicts_with = "phone")]
    who: Option<String>,
    /// The same.
    #[arg(long, value_name = "NUMBER, IMSI or ADDRESS")]
    phone: Option<String>,
    /// Those whose cause has this word: absent, memory, 400.
    #[arg(long, value_name = "WORD")]
    cause: Option<String>,
    /// At most so many.
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    limit: Option<u32>,
}

/// One text, or all of a phone or an address.
#[derive(Args)]
#[group(required = true, multiple = false)]
struct Texts {
    /// As `encamp queue` shows it; or an address of mail, for all that wait for it.
    id: Option<String>,
    /// All that wait for this phone or address.
    #[arg(long, value_name = "NUMBER, IMSI or ADDRESS")]
    phone: Option<String>,
}

#[derive(Subcommand)]
enum MailVerb {
    /// Send one mail and tell each step; needs no running box.
    Test {
        /// Whom it is for.
        to: String,
        /// As whose; else postmaster of the mail domain.
        #[arg(long, value_name = "ADDRESS")]
        from: Option<String>,
    },
}

#[derive(Subcommand)]
enum ZoneVerb {
    Dump,
}

/// An error in the three parts that every command tells (DESIGN section 9), and the exit code.
pub struct Failure {
    pub exit: u8,
    pub error: String,
    pub cause: String,
    pub hint: String,
}

impl Failure {
    pub fn new(exit: u8, error: impl Into<String>, cause: impl Into<String>, hint: impl Into<String>) -> Failure {
        Failure { exit, error: error.into(), cause: cause.into(), hint: hint.into() }
    }

    fn of_value(exit: u8, value: &Value) -> Failure {
        let part = |name: &str| value[name].as_str().unwrap_or_default().to_owned();
        Failure { exit, error: part("error"), cause: part("cause"), hint: part("hint") }
    }
}

/// Reads the command line and does what it says; the exit code.
pub fn main() -> u8 {
    let line = match Line::try_parse() {
        Ok(line) => line,
        Err(error) => {
            // Help and version are no errors: clap prints them to stdout.
            let code = if error.use_stderr() { 2 } else { 0 };
            let _ = error.print();
            return code;
        }
    };
    let config = line.config.clone().unwrap_or_else(|| PathBuf::from(DEFAULT_CONFIG));
    let done = match line.command {
        What::Run => return run::run(&config),
        What::Check => return check(&config, line.json),
        What::Apply => apply(&config, line.json),
        What::Init => init::init(&config).map(|told| say(line.json, &json!(told), &(told.join("\n") + "\n"))),
        What::Status { wait } => status(&config, line.json, wait),
        What::Lookup { who } => lookup(&config, line.json, &who),
        What::Replica { verb: None | Some(ReplicaVerb::Status) } => replica(&config, line.json),
        What::Calls { verb } => match verb.unwrap_or(CallsVerb::List) {
            CallsVerb::List => calls(&config, line.json),
            CallsVerb::End { id } => call_end(&config, line.json, &id),
        },
        What::Queue { listed, verb } => queue_verb(listed, verb).and_then(|verb| match verb {
            QueueVerb::List(listed) => queue(&config, line.json, listed),
            QueueVerb::Show { id } => queue_show(&config, line.json, id),
            QueueVerb::Explain { id } => queue_explain(&config, line.json, id),
            QueueVerb::Retry(texts) => queue_change(&config, line.json, "queue_retry", texts),
            QueueVerb::Drop(texts) => queue_change(&config, line.json, "queue_drop", texts),
            QueueVerb::Expire(texts) => queue_change(&config, line.json, "queue_expire", texts),
        }),
        What::Mail { verb: MailVerb::Test { to, from } } => mail_test::test(&config, line.json, &to, from.as_deref()),
        What::Zone { verb: None | Some(ZoneVerb::Dump) } => zone(&config, line.json),
        What::Subscriber { verb } => match verb.unwrap_or(SubscriberVerb::List) {
            SubscriberVerb::List => list(&config, line.json, None),
            SubscriberVerb::Show { who } => list(&config, line.json, Some(&who)),
            SubscriberVerb::Add(add) => subscriber_add(&config, line.json, add),
            SubscriberVerb::Remove { imsi } => subscriber_remove(&config, line.json, &imsi),
        },
        What::Rehearse { phones } => trial::rehearse(line.config.as_deref(), phones, line.json),
    };
    match done {
        Ok(code) => code,
        Err(failure) => {
            let Failure { exit, error, cause, hint } = failure;
            if line.json {
                eprintln!("{}", json!({ "error": error, "cause": cause, "hint": hint }));
            } else {
                eprintln!("encamp: {error}{}", if cause.is_empty() { String::new() } else { format!(": {cause}") });
                if !hint.is_empty() {
                    eprintln!("    {hint}");
                }
            }
            exit
        }
    }
}

/// Prints one of two forms; the exit code of success.
pub fn say(as_json: bool, value: &Value, text: &str) -> u8 {
    use std::io::Write as _;
    let out = if as_json { format!("{value}\n") } else { text.to_owned() };
    // A reader that went away (`| head`) has what it wanted.
    let _ = io::stdout().write_all(out.as_bytes());
    0
}

/// The settings, or the reason in the operator's words.
pub fn load(config: &Path) -> Result<Settings, Failure> {
    files::load(config).map(|(settings, _)| settings).map_err(|fault| failure(&fault))
}

fn failure(fault: &Fault) -> Failure {
    match fault {
        Fault::Unreadable(path, error) => Failure::new(
            2,
            format!("cannot read {}", path.display()),
            error.to_string(),
            "name another file with --config",
        ),
        Fault::Wrong(problems) => {
            let first = problems.first();
            let error = first.map(|problem| format!("{}: {}", problem.place, problem.what)).unwrap_or_default();
            let more = if problems.len() > 1 { format!("and {} more", problems.len() - 1) } else { String::new() };
            Failure::new(2, error, more, "encamp check shows all of them")
        }
    }
}

fn check(config: &Path, as_json: bool) -> u8 {
    let (problems, code) = match files::load(config) {
        Ok((_, notes)) => (notes, 0),
        Err(Fault::Wrong(problems)) => (problems, 1),
        Err(fault @ Fault::Unreadable(..)) => {
            let failure = failure(&fault);
            eprintln!("encamp: {}: {}", failure.error, failure.cause);
            return 2;
        }
    };
    let good = if code == 0 { format!("{} is good\n", config.display()) } else { String::new() };
    say(as_json, &problems_json(&problems), &(problems_text(&problems) + &good));
    code
}

/// Asks the running process; where none runs, says so with exit code 1.
pub fn ask_running(control: &Path, command: &str, argument: &str) -> Result<Answer, Failure> {
    let request = Request { command: command.into(), argument: argument.into() };
    ask(control, &request).map_err(|error| {
        let hint = "start it with encamp run, or name its configuration with --config";
        match error.kind() {
            io::ErrorKind::NotFound | io::ErrorKind::ConnectionRefused => {
                Failure::new(1, "no encamp is running here", format!("nobody answers at {}", control.display()), hint)
            }
            io::ErrorKind::PermissionDenied => {
                Failure::new(2, "not allowed", format!("{} belongs to another user", control.display()), "use sudo")
            }
            _ => Failure::new(2, "no answer", error.to_string(), hint),
        }
    })
}

/// The control socket of the process that runs with this file, whether or not the file is right by now.
fn control(config: &Path) -> Result<PathBuf, Failure> {
    let text =
        std::fs::read_to_string(config).map_err(|error| failure(&Fault::Unreadable(config.to_owned(), error)))?;
    control_path(&text).ok_or_else(|| Failure::new(2, "no data_dir", "the configuration names none", "encamp check"))
}

fn answered(answer: Answer) -> Result<Answer, Failure> {
    if answer.answer["error"].is_string() { Err(Failure::of_value(answer.exit, &answer.answer)) } else { Ok(answer) }
}

fn apply(config: &Path, as_json: bool) -> Result<u8, Failure> {
    let settings = match files::load(config) {
        Ok((settings, _)) => settings,
        Err(Fault::Wrong(problems)) => {
            say(
                as_json,
                &json!({ "applied": [], "needs_restart": [], "problems": problems_json(&problems) }),
                &problems_text(&problems),
            );
            return Ok(1);
        }
        Err(fault) => return Err(failure(&fault)),
    };
    let answer = answered(ask_running(&settings.control, "apply", "")?)?;
    let lines = |name: &str, head: &str| -> String {
        let all = answer.answer[name].as_array().into_iter().flatten();
        all.map(|line| format!("{head}: {}\n", cell(line))).collect()
    };
    let text = lines("applied", "applied") + &lines("needs_restart", "waits for a restart");
    let text = if text.is_empty() { "nothing has changed\n".to_owned() } else { text };
    say(as_json, &answer.answer, &text);
    Ok(answer.exit)
}

fn status(config: &Path, as_json: bool, wait: Option<u64>) -> Result<u8, Failure> {
    let control = control(config)?;
    let until = Instant::now() + Duration::from_secs(wait.unwrap_or(0));
    let answer = loop {
        match ask_running(&control, "status", "") {
            Ok(answer) if answer.exit == 0 || Instant::now() >= until => break answer,
            Err(failure) if Instant::now() >= until => return Err(failure),
            _ => std::thread::sleep(Duration::from_millis(50)),
        }
    };
    let value = &answer.answer;
    let mut text =
        format!("{} since {}, version {}\n", cell(&value["state"]), cell(&value["since"]), cell(&value["version"]));
    for role in value["roles"].as_array().into_iter().flatten() {
        text += &format!("  {:<10} {}\n", cell(&role["name"]), cell(&role["state"]));
    }
    text += &format!("configuration read {}\n", cell(&value["configuration"]["loaded_at"]));
    if let Some(error) = value["configuration"]["error"].as_str() {
        text += &format!("  REFUSED since, the old one is in force: {error}\n");
    }
    if let Some(waiting) = value["node"]["texts_waiting"].as_u64() {
        text += &format!("texts that wait: {waiting}\n");
    }
    for alarm in value["node"]["alarms"].as_array().into_iter().flatten() {
        text += &format!("ALARM: {}\n", cell(alarm));
    }
    let counters: Vec<Vec<String>> = value["counters"]
        .as_object()
        .map(|all| all.iter().map(|(name, count)| vec![name.clone(), cell(count)]).collect())
        .unwrap_or_default();
    say(as_json, value, &(text + &table(&["counter", "since the start"], &counters)));
    Ok(answer.exit)
}

fn lookup(config: &Path, as_json: bool, who: &str) -> Result<u8, Failure> {
    let answer = answered(ask_running(&control(config)?, "lookup", who)?)?;
    let value = &answer.answer;
    let mut text = format!("IMSI {}  {}  {}\n", cell(&value["imsi"]), cell(&value["msisdn"]), cell(&value["name"]));
    let rows: Vec<Vec<String>> = value["bindings"]
        .as_array()
        .into_iter()
        .flatten()
        .map(|binding| {
            let columns = ["contact", "base_station", "location_area", "cell", "expires_s", "stale", "since"];
            columns.iter().map(|name| cell(&binding[*name])).collect()
        })
        .collect();
    if rows.is_empty() {
        text += "not registered\n";
    } else {
        text += &table(&["contact", "base station", "location area", "cell", "expires in s", "stale", "since"], &rows);
    }
    say(as_json, value, &text);
    Ok(answer.exit)
}

fn replica(config: &Path, as_json: bool) -> Result<u8, Failure> {
    let answer = answered(ask_running(&control(config)?, "replica", "")?)?;
    let rows: Vec<Vec<String>> = answer
        .answer
        .as_array()
        .into_iter()
        .flatten()
        .map(|replica| {
            ["name", "shard", "state", "bindings", "lag_s", "hints"].iter().map(|name| cell(&replica[*name])).collect()
        })
        .collect();
    say(as_json, &answer.answer, &table(&["replica", "shard", "state", "bindings", "lag in s", "hints"], &rows));
    Ok(answer.exit)
}

fn calls(config: &Path, as_json: bool) -> Result<u8, Failure> {
    let answer = answered(ask_running(&control(config)?, "calls", "")?)?;
    let head = ["id", "state", "from", "to", "since", "lasts s", "cells"];
    say(as_json, &answer.answer, &table(&head, &call_rows(&answer.answer)));
    Ok(answer.exit)
}

fn call_rows(calls: &Value) -> Vec<Vec<String>> {
    let row = |call: &Value| {
        // A cell's name holds blanks, so the two ends need more between them.
        let ends: Vec<String> = call["cells"].as_array().into_iter().flatten().map(cell).collect();
        let columns = ["id", "state", "from", "to", "since", "duration_s"].map(|name| cell(&call[name]));
        columns.into_iter().chain([ends.join(" -> ")]).collect()
    };
    calls.as_array().into_iter().flatten().map(row).collect()
}

fn call_end(config: &Path, as_json: bool, id: &str) -> Result<u8, Failure> {
    let answer = answered(ask_running(&control(config)?, "call_end", id)?)?;
    say(as_json, &json!({ "ended": id }), &format!("{id} is ended\n"));
    Ok(answer.exit)
}

// --- Texts ---

/// What is asked of the queue. What stands before a verb would be the list's, and clap cannot tell it from `--json`, which may stand
/// there: nobody's `--phone 2001 drop 7` may be taken for something that he did not mean.
fn queue_verb(listed: Listed, verb: Option<QueueVerb>) -> Result<QueueVerb, Failure> {
    match verb {
        None => Ok(QueueVerb::List(listed)),
        Some(verb) if listed == Listed::default() => Ok(verb),
        Some(_) => Err(Failure::new(
            2,
            "cannot tell what is meant",
            "--phone, --cause and --limit stand behind the verb",
            "encamp queue drop --phone 2001",
        )),
    }
}

fn ask_queue(config: &Path, command: &str, picked: &Picked) -> Result<Answer, Failure> {
    answered(ask_running(&control(config)?, command, &json!(picked).to_string())?)
}

fn queue(config: &Path, as_json: bool, listed: Listed) -> Result<u8, Failure> {
    let Listed { who, phone, cause, limit } = listed;
    let phone = phone.or(who);
    let limit = limit.and_then(|limit| usize::try_from(limit).ok());
    // One more than is shown tells whether there are more.
    let asked = limit.filter(|limit| *limit < LIST_MAX).map(|limit| limit + 1);
    let mut answer = ask_queue(config, "queue", &Picked { phone, cause, limit: asked, ..Picked::default() })?;
    let note = cut(&mut answer.answer, asked);
    let head = ["id", "from", "to", "state", "since", "next attempt", "cause"];
    say(as_json, &answer.answer, &table(&head, &queue_rows(&answer.answer)));
    if let Some(note) = note {
        eprintln!("encamp: {note}");
    }
    Ok(answer.exit)
}

/// Takes away what was asked for only to know that it is there; says so.
fn cut(texts: &mut Value, asked: Option<usize>) -> Option<String> {
    let texts = texts.as_array_mut()?;
    match asked {
        Some(asked) if texts.len() >= asked => texts.truncate(asked - 1),
        None if texts.len() >= LIST_MAX => {
            return Some(format!("only the first {} are shown: there may be more", texts.len()));
        }
        _ => return None,
    }
    Some(format!("only the first {} are shown: there are more", texts.len()))
}

fn queue_rows(texts: &Value) -> Vec<Vec<String>> {
    let columns = ["id", "from", "to", "state", "since", "next_attempt", "cause"];
    let row = |text: &Value| columns.iter().map(|name| cell(&text[*name])).collect();
    texts.as_array().into_iter().flatten().map(row).collect()
}

fn queue_show(config: &Path, as_json: bool, id: String) -> Result<u8, Failure> {
    let answer = ask_queue(config, "queue_show", &Picked { id: Some(id), ..Picked::default() })?;
    say(as_json, &answer.answer, &text_shown(&answer.answer));
    Ok(answer.exit)
}

fn queue_explain(config: &Path, as_json: bool, id: String) -> Result<u8, Failure> {
    let answer = ask_queue(config, "queue_explain", &Picked { id: Some(id), ..Picked::default() })?;
    say(as_json, &answer.answer, &life_shown(&answer.answer));
    Ok(answer.exit)
}

/// A text that waits, for people.
fn text_shown(text: &Value) -> String {
    let mut told = head_of(text);
    let told_as = [
        ("since", "accepted"),
        ("ends", "ends"),
        ("next_attempt", "next attempt"),
        ("attempts", "attempts"),
        ("cause", "cause"),
        ("kind", "kind"),
        ("coding", "coding"),
        ("octets", "octets"),
    ];
    for (name, shown) in told_as {
        told += &format!("  {shown:<13} {}\n", cell(&text[name]));
    }
    told += &mail_of(text);
    let flags =
        [("report_wanted", "its sender wants a report"), ("possible_duplicate", "the phone may have it already")];
    for (_, shown) in flags.into_iter().filter(|(name, _)| text[*name] == json!(true)) {
        told += &format!("  {shown}\n");
    }
    told + &words_of(text) + &steps_of(text)
}

/// What a mail has beside its words.
fn mail_of(text: &Value) -> String {
    let mail = &text["mail"];
    if mail.is_null() {
        return String::new();
    }
    let told_as = [
        ("envelope_from", "mail from"),
        ("header_from", "from"),
        ("subject", "subject"),
        ("message_id", "message id"),
        ("in_reply_to", "in reply to"),
    ];
    told_as.iter().map(|(name, shown)| format!("  {shown:<13} {}\n", cell(&mail[*name]))).collect()
}

/// The life of a text, for people.
fn life_shown(life: &Value) -> String {
    head_of(life) + &words_of(life) + &steps_of(life)
}

fn head_of(text: &Value) -> String {
    let [id, from, to, state] = ["id", "from", "to", "state"].map(|name| cell(&text[name]));
    format!("text {id} from {from} to {to}: {state}\n")
}

/// Each line of it behind a mark, so that it cannot be taken for ours.
fn words_of(text: &Value) -> String {
    let words = text["words"].as_str().unwrap_or_default();
    words.lines().map(|line| format!("  | {}\n", plain(line))).collect()
}

fn steps_of(text: &Value) -> String {
    let step = |step: &Value| vec![cell(&step["at"]), cell(&step["what"])];
    let steps: Vec<_> = text["life"].as_array().into_iter().flatten().map(step).collect();
    if steps.is_empty() { String::new() } else { format!("\n{}", table(&["when", "what"], &steps)) }
}

fn queue_change(config: &Path, as_json: bool, command: &str, texts: Texts) -> Result<u8, Failure> {
    let Texts { id, phone } = texts;
    // No id of a text has an @.
    let (phone, id) = match id {
        Some(address) if address.contains('@') => (Some(address), None),
        id => (phone, id),
    };
    let answer = ask_queue(config, command, &Picked { id, phone, ..Picked::default() })?;
    say(as_json, &answer.answer, &changed(command, answer.answer["texts"].as_u64().unwrap_or_default()));
    Ok(answer.exit)
}

fn changed(command: &str, texts: u64) -> String {
    let done = match command {
        "queue_retry" => "tried again now",
        "queue_drop" => "dropped",
        _ => "ended",
    };
    match texts {
        0 => "no text waits there\n".to_owned(),
        1 => format!("1 text is {done}\n"),
        many => format!("{many} texts are {done}\n"),
    }
}

/// The zone as the running process answers it; without one, as the files make it, every replica healthy.
fn zone(config: &Path, as_json: bool) -> Result<u8, Failure> {
    let (records, text) = match ask_running(&control(config)?, "zone", "") {
        Ok(answer) => (answer.answer["records"].clone(), answer.answer["text"].as_str().unwrap_or_default().to_owned()),
        Err(failure) if failure.exit == 1 => {
            let zone = run::first_zone(&std::sync::Arc::new(load(config)?));
            (json!(zone.dump()), zone.dump_text())
        }
        Err(failure) => return Err(failure),
    };
    Ok(say(as_json, &records, &text))
}

// --- Subscribers ---

fn list(config: &Path, as_json: bool, who: Option<&str>) -> Result<u8, Failure> {
    let settings = load(config)?;
    let wanted = |subscriber: &&Subscriber| match who {
        None => true,
        Some(who) => {
            Imsi::parse(who).is_ok_and(|imsi| imsi == subscriber.imsi)
                || subscriber.msisdn.iter().any(|number| number.to_string() == who)
        }
    };
    let mut found: Vec<&Subscriber> = settings.subscribers.iter().filter(wanted).collect();
    found.sort_by_key(|subscriber| subscriber.imsi);
    if let (Some(who), true) = (who, found.is_empty()) {
        return Err(Failure::new(1, "not provisioned", format!("no subscriber has the IMSI or number {who}"), ""));
    }
    let value = |subscriber: &Subscriber| {
        json!({
            "imsi": subscriber.imsi.to_string(),
            "msisdn": subscriber.msisdn.iter().map(ToString::to_string).collect::<Vec<_>>(),
            "name": &*subscriber.name,
            "algorithm": subscriber.auth.algorithm(),
            "barred": subscriber.barred,
            "file": &*subscriber.file,
            "line": subscriber.line,
        })
    };
    let values: Vec<Value> = found.into_iter().map(value).collect();
    let rows: Vec<Vec<String>> = values
        .iter()
        .map(|value| {
            let place = format!("{}:{}", cell(&value["file"]), cell(&value["line"]));
            let barred = if value["barred"] == json!(true) { "barred" } else { "" };
            let columns = ["imsi", "msisdn", "name", "algorithm"].map(|name| cell(&value[name]));
            columns.into_iter().chain([barred.to_owned(), place]).collect()
        })
        .collect();
    let text = table(&["IMSI", "numbers", "name", "algorithm", "", "stands in"], &rows);
    let all = if who.is_some() && values.len() == 1 { values[0].clone() } else { json!(values) };
    Ok(say(as_json, &all, &text))
}

fn subscriber_add(config: &Path, as_json: bool, add: Add) -> Result<u8, Failure> {
    let ki = match add.ki.as_deref() {
        Some("-") => {
            let mut text = String::new();
            io::stdin()
                .lock()
                .read_line(&mut text)
                .map_err(|error| Failure::new(2, "cannot read Ki", error.to_string(), ""))?;
            Some(text.trim().to_owned())
        }
        _ => add.ki.clone(),
    };
    let fields = SubscriberFields {
        imsi: add.imsi.clone(),
        msisdn: add.msisdn.iter().flat_map(|all| all.split_whitespace()).map(str::to_owned).collect(),
        algorithm: add.algorithm,
        ki,
        op: add.op,
        opc: add.opc,
        name: add.name,
    };
    change_local(config, as_json, |text| add_subscriber(text, &fields).map(Some), "added")
}

fn subscriber_remove(config: &Path, as_json: bool, imsi: &str) -> Result<u8, Failure> {
    let settings = load(config)?;
    let found = Imsi::parse(imsi).ok().and_then(|imsi| settings.subscribers.get(&imsi));
    let Some(found) = found else {
        return Err(Failure::new(1, "not provisioned", format!("no subscriber has the IMSI {imsi}"), ""));
    };
    let elsewhere = Failure::new(
        1,
        "not removed",
        format!("it stands in {}:{}, which this command does not change", found.file, found.line),
        "take it out there, then encamp apply",
    );
    let sources = files::sources(config).map_err(|fault| failure(&fault))?;
    let local = files::local_file(&sources.main.text).map(|path| path.display().to_string());
    if local.as_deref() != Some(&*found.file) {
        return Err(elsewhere);
    }
    change_local(config, as_json, |text| remove_subscriber(text, imsi), "removed")
}

/// Changes 90-local.toml, and applies it.
fn change_local(
    config: &Path,
    as_json: bool,
    change: impl FnOnce(&str) -> Result<Option<String>, Problem>,
    done: &str,
) -> Result<u8, Failure> {
    let refused = |problems: Vec<Problem>| Failure { exit: 1, ..failure(&Fault::Wrong(problems)) };
    let changed = files::change_local(config, |_, old| match change(old) {
        Ok(None) => Err(Failure::new(1, "not there", "90-local.toml does not name it", "")),
        new => new.map_err(|problem| refused(vec![problem])),
    });
    let Changed { path, settings } = changed.map_err(|error| match error {
        NotChanged::Refused(failure) => failure,
        NotChanged::Wrong(Fault::Wrong(problems)) => refused(problems),
        NotChanged::Wrong(fault) => failure(&fault),
        NotChanged::NoDataDir => Failure::new(2, "no data_dir", "the configuration names none", "encamp check"),
        NotChanged::Unwritable(path, error) => {
            Failure::new(2, format!("cannot write {}", path.display()), error.to_string(), "")
        }
    })?;
    let name = path.display().to_string();
    let applied = match ask_running(&settings.control, "apply", "") {
        Ok(answer) => answer.exit == 0,
        Err(failure) if failure.exit == 1 => false,
        Err(failure) => return Err(failure),
    };
    let how = if applied { "and applied" } else { "no encamp is running: it is read at the next start" };
    Ok(say(
        as_json,
        &json!({ "file": name, "applied": applied, "at": now_ms() }),
        &format!("{done} in {name}, {how}\n"),
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parsed(arguments: &[&str]) -> Line {
        Line::try_parse_from([&["encamp"], arguments].concat()).unwrap_or_else(|error| panic!("{error}"))
    }

    #[test]
    fn a_bare_noun_is_its_first_verb() {
        assert!(matches!(parsed(&["calls"]).command, What::Calls { verb: None }));
        assert!(matches!(parsed(&["calls", "list", "--json"]), Line { json: true, command: What::Calls { .. }, .. }));
        assert!(
            matches!(parsed(&["calls", "end", "a1"]).command, What::Calls { verb: Some(CallsVerb::End { id }) } if id == "a1")
        );
        assert!(matches!(parsed(&["--json", "queue"]).command, What::Queue { verb: None, .. }));
        assert!(matches!(parsed(&["queue", "list"]).command, What::Queue { verb: Some(QueueVerb::List(_)), .. }));
        assert!(Line::try_parse_from(["encamp", "calls", "end"]).is_err());
    }

    #[test]
    fn the_queue_is_asked_by_phone_by_cause_and_for_so_many() {
        for arguments in [&["queue"][..], &["queue", "list"]] {
            let more = ["--phone", "2001", "--cause", "absent", "--limit", "5", "--json", "--config", "x"];
            let Line { json: true, config: Some(_), command: What::Queue { listed, verb }, .. } =
                parsed(&[arguments, &more].concat())
            else {
                panic!("{arguments:?} is something else")
            };
            let Ok(QueueVerb::List(listed)) = queue_verb(listed, verb) else { panic!("{arguments:?} is no list") };
            let told = (listed.phone.as_deref(), listed.cause.as_deref(), listed.limit);
            assert_eq!(told, (Some("2001"), Some("absent"), Some(5)));
        }
        assert!(Line::try_parse_from(["encamp", "queue", "--limit", "0"]).is_err());
        let What::Queue { listed, verb } = parsed(&["queue", "--phone", "2001", "drop", "7"]).command else { panic!() };
        assert_eq!(queue_verb(listed, verb).err().map(|failure| failure.exit), Some(2));
    }

    #[test]
    fn a_text_or_a_phone_is_retried_dropped_or_ended_and_never_neither_or_both() {
        for (verb, id, phone) in [("retry", Some("7"), None), ("drop", None, Some("2001")), ("expire", Some("7"), None)]
        {
            let pick = id.map(|id| vec![id]).unwrap_or_else(|| vec!["--phone", phone.unwrap()]);
            let What::Queue { listed, verb: found } = parsed(&[&["queue", "--json", verb], &pick[..]].concat()).command
            else {
                panic!("{verb} is something else")
            };
            let texts = match (verb, queue_verb(listed, found)) {
                ("retry", Ok(QueueVerb::Retry(texts))) => texts,
                ("drop", Ok(QueueVerb::Drop(texts))) => texts,
                ("expire", Ok(QueueVerb::Expire(texts))) => texts,
                _ => panic!("{verb} is something else"),
            };
            assert_eq!((texts.id.as_deref(), texts.phone.as_deref()), (id, phone));
            assert!(Line::try_parse_from(["encamp", "queue", verb]).is_err(), "{verb} of nothing");
            assert!(Line::try_parse_from(["encamp", "queue", verb, "7", "--phone", "2001"]).is_err(), "{verb} of both");
        }
        assert!(matches!(
            parsed(&["queue", "explain", "7", "--json"]).command,
            What::Queue { verb: Some(QueueVerb::Explain { id }), .. } if id == "7"
        ));
        assert!(Line::try_parse_from(["encamp", "queue", "show"]).is_err());
        assert_eq!(changed("queue_drop", 1), "1 text is dropped\n");
        assert_eq!(changed("queue_expire", 12), "12 texts are ended\n");
        assert_eq!(changed("queue_retry", 0), "no text waits there\n");
    }

    #[test]
    fn a_list_that_was_cut_says_so() {
        let texts = |count| json!(vec![json!({ "id": "1" }); count]);
        let shown = |count, asked| {
            let mut texts = texts(count);
            let note = cut(&mut texts, asked);
            (queue_rows(&texts).len(), note.is_some())
        };
        // Three are wanted, so four are asked for.
        assert_eq!(shown(2, Some(4)), (2, false));
        assert_eq!(shown(3, Some(4)), (3, false));
        assert_eq!(shown(4, Some(4)), (3, true));
        assert_eq!(shown(LIST_MAX - 1, None), (LIST_MAX - 1, false));
        assert_eq!(shown(LIST_MAX, None), (LIST_MAX, true));
    }

    #[test]
    fn words_of_strangers_cannot_speak_to_a_terminal() {
        let text = json!({
            "id": "7", "from": "+15550001", "to": "2002", "state": "absent", "since": "2026-11-21T12:00:00Z",
            "ends": "2026-11-28T12:00:00Z", "next_attempt": null, "attempts": 2, "cause": "absent", "kind": "text",
            "coding": "UCS-2", "octets": "0041", "report_wanted": true, "possible_duplicate": false,
            "words": "wipe\u{1b}[2J\ntext 8 from 2003 to 2001: absent\u{9b}",
            "life": [{ "at": "2026-11-21T12:00:00Z", "what": "accepted" }],
        });
        let shown = text_shown(&text);
        assert_eq!(
            shown,
            "text 7 from +15550001 to 2002: absent\n  accepted      2026-11-21T12:00:00Z\n  ends          2026-11-28T12:00:00Z\n  \
             next attempt  -\n  attempts      2\n  cause         absent\n  kind          text\n  coding        UCS-2\n  \
             octets        0041\n  its sender wants a report\n  | wipe?[2J\n  | text 8 from 2003 to 2001: absent?\n\n\
             when                  what\n--------------------  --------\n2026-11-21T12:00:00Z  accepted\n"
        );
        assert_eq!(
            life_shown(
                &json!({ "id": "7", "from": "a", "to": "b\r", "state": "delivered", "words": null, "life": [] })
            ),
            "text 7 from a to b?: delivered\n"
        );
    }

    #[test]
    fn both_ends_of_a_call_are_told_apart() {
        let calls = json!([{
            "id": "a1", "state": "up", "from": "+15550001", "to": "2002", "since": "2026-11-21T12:00:00Z", "duration_s": 12,
            "cells": ["hill 001-01-1000-10", "pbx"],
        }]);
        let row = ["a1", "up", "+15550001", "2002", "2026-11-21T12:00:00Z", "12", "hill 001-01-1000-10 -> pbx"];
        assert_eq!(call_rows(&calls), [row]);
        assert!(call_rows(&json!([])).is_empty());
    }
}
