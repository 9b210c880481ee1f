//! `encamp mail test`: one mail by the way that every mail goes, each step told in plain words.
//!
//! Knows: the files, as `check` reads them, and [`super::relay`]. Needs no running box, and asks none.

use std::io::{self, Write as _};
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use super::commands::{Failure, load, say};
use super::control::now_ms;
use super::relay::{Journal, Mailer, Ways, told};
use crate::config::mailing::{Mail, Relay, RelayTls};
use crate::mail::address::Address;
use crate::mail::{AutoSubmitted, Body, MailFailure, MailOut, MailTaken, Notify};

/// Nobody waits longer than this before a screen.
const PATIENCE: Duration = Duration::from_secs(120);

/// One step as it is told.
#[derive(Clone, Debug)]
struct Step {
    name: &'static str,
    at: Duration,
    what: String,
}

impl Step {
    fn line(&self) -> String {
        format!("{:>7.3} s  {:<10}  {}\n", self.at.as_secs_f64(), self.name, self.what)
    }

    fn value(&self) -> Value {
        let ms = u64::try_from(self.at.as_millis()).unwrap_or(u64::MAX);
        json!({ "step": self.name, "ms": ms, "told": self.what })
    }
}

/// The exit code: 0 somebody took it, 1 it was refused, 2 nobody could be asked.
pub fn test(config: &Path, as_json: bool, to: &str, from: Option<&str>) -> Result<u8, Failure> {
    let settings = load(config)?;
    let wrong =
        |what: &str, why: &str| Failure::new(2, format!("{what} is no address of mail"), why, "carol@example.org");
    let to = Address::parse(to).map_err(|why| wrong(to, why))?;
    let Some(mail) = settings.mail else {
        return Err(Failure::new(2, "no mail leaves this box", "the configuration has no [mail]", "encamp check"));
    };
    let from = from.map_or_else(|| mail.address_of("postmaster"), str::to_owned);
    let from = Address::parse(&from).map_err(|why| wrong(&from, why))?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let runtime = runtime.map_err(|error| Failure::new(2, "cannot start", error.to_string(), ""))?;
    let letter = letter(&mail, from, to);
    let (code, steps) = runtime.block_on(tested(&mail, Ways::default(), &letter, !as_json));
    if as_json {
        say(true, &steps, "");
    }
    // A name server that is silent still holds a thread.
    runtime.shutdown_background();
    Ok(code)
}

/// The exit code and the steps, which are shown while they happen where `is_shown`.
pub async fn tested(mail: &Mail, ways: Ways, letter: &MailOut, is_shown: bool) -> (u8, Value) {
    let start = Instant::now();
    let steps = Arc::new(Mutex::new(Vec::new()));
    let told_to = Arc::clone(&steps);
    let hear = move |name, what| {
        let step = Step { name, at: start.elapsed(), what };
        if is_shown {
            let mut out = io::stdout().lock();
            let _ = out.write_all(step.line().as_bytes()).and_then(|()| out.flush());
        }
        told_to.lock().unwrap_or_else(PoisonError::into_inner).push(step);
    };
    let mailer = Mailer::new(Some(mail), ways, Journal::of(hear.clone()));
    let from = letter.from.as_ref().map(Address::to_string).unwrap_or_default();
    hear("begin", format!("a mail from {from} to {}, as {}", letter.to, mail.domain));
    let result = mailer.send(letter, PATIENCE).await;
    let (code, what, hint) = meaning(mail, &result);
    hear("end", what);
    if let Some(hint) = hint {
        hear("hint", hint);
    }
    let steps = steps.lock().unwrap_or_else(PoisonError::into_inner);
    (code, steps.iter().map(Step::value).collect())
}

/// The exit code, what it came to, and what may help.
fn meaning(mail: &Mail, result: &Result<MailTaken, MailFailure>) -> (u8, String, Option<String>) {
    match result {
        Ok(MailTaken { by, code, said, will_tell }) => {
            let tells = if *will_tell { ", and will tell what becomes of it" } else { "" };
            (0, format!("{by} has taken it ({code} {said}){tells}"), None)
        }
        Err(failure) => {
            let code = match failure {
                MailFailure::Temporary { .. } | MailFailure::Permanent { .. } => 1,
                MailFailure::Unreachable(_) | MailFailure::Lost(_) => 2,
            };
            (code, told(failure), hint(mail.relay.as_ref(), failure))
        }
    }
}

/// For the failures that everybody meets once.
fn hint(relay: Option<&Relay>, failure: &MailFailure) -> Option<String> {
    let (MailFailure::Unreachable(why)
    | MailFailure::Temporary { why, .. }
    | MailFailure::Permanent { why, .. }
    | MailFailure::Lost(why)) = failure;
    let has = |words: &[&str]| words.iter().any(|word| why.contains(word));
    // 5.1: it is the recipient that they do not want (RFC 3463 §3.2).
    let refuses_us = matches!(failure, MailFailure::Permanent { code: 550..=554, why } if !why.starts_with("5.1."));
    let hint = if has(&["this system has no certificates"]) {
        "install ca-certificates, or name the relay's authority in `[mail] relay_authority`"
    } else if has(&["UnknownIssuer", "CaUsedAsEndEntity"]) {
        "its certificate is of an authority that this system does not know: name it in `[mail] relay_authority`"
    } else if has(&["NotValidForName", "Expired", "NotValidYet"]) {
        "the certificate is for another name or another time: compare the relay's name and this box's clock"
    } else if has(&["InvalidContentType", "InvalidMessage"]) {
        "it does not begin with TLS there: smtps:// is for port 465, smtp:// for 587 and 25"
    } else if has(&["the login is refused", "neither AUTH PLAIN nor AUTH LOGIN", "no password goes"]) {
        "compare the relay's name and password, and whether it wants TLS before it lets anybody log in"
    } else if has(&["wants a login or TLS"]) {
        "it wants a login, or TLS: smtp:// on 587 or smtps:// on 465, `relay_username` and `relay_password`"
    } else if has(&["no connection in time", "nobody listens there"]) && relay.is_none() {
        "many networks let nothing out to port 25: name a relay in `[mail] relay`"
    } else if has(&["no connection in time", "nobody listens there"]) {
        "is the port the right one (587, 465, 25), and does a firewall let it through?"
    } else if has(&["no name server", "nobody knows where"]) {
        "is the name right? If this box finds no name at all, look at /etc/resolv.conf, and at the link"
    } else if has(&["offers no STARTTLS"]) && relay.is_some_and(|relay| relay.tls == RelayTls::Required) {
        "on another port it may: 587 for STARTTLS, smtps:// for 465"
    } else if relay.is_none() && (refuses_us || has(&["it greets with 5"])) {
        "servers refuse strangers: an address without a name (PTR), or one of a list, does better through a relay"
    } else if matches!(failure, MailFailure::Temporary { code: 400.., .. }) {
        "it may take it later: the mails of phones are tried again by themselves, this one is not"
    } else {
        return None;
    };
    Some(hint.to_owned())
}

/// The mail that is sent.
pub fn letter(mail: &Mail, from: Address, to: Address) -> MailOut {
    let now = now_ms();
    let random = getrandom::u64().unwrap_or(now);
    MailOut {
        from: Some(from.clone()),
        to,
        header_from: from,
        header_from_name: "Encamp".into(),
        subject: "A mail to try the way".into(),
        body: Body::Text(format!(
            "This mail was sent by hand (encamp mail test) from the box that has the mail of {}.\n\
             That you read it means that its mail arrives.\n",
            mail.domain
        )),
        message_id: format!("test.{random:016x}@{}", mail.domain),
        in_reply_to: None,
        references: Vec::new(),
        date_s: now / 1_000,
        auto_submitted: AutoSubmitted::Generated,
        notify: Notify { success: false, failure: true, delay: false },
        envid: None,
        traces: vec![mail.domain.clone()],
    }
}
