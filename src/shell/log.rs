//! What is told of events: log lines, and a counter for each kind.
//!
//! Under systemd the lines go to the journal with their fields and levels, else to stderr. No key, RAND or SRES is in an event, and
//! of an IMSI or number the last four digits only.

use std::collections::BTreeMap;

use tracing_subscriber::layer::SubscriberExt as _;
use tracing_subscriber::util::SubscriberInitExt as _;
use tracing_subscriber::{EnvFilter, fmt};

use crate::event::{Event, Level};

/// Starts logging; `RUST_LOG` chooses more or less than info.
pub fn start() {
    let filter = EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new("info"));
    let under_systemd = std::env::var_os("JOURNAL_STREAM").is_some();
    match tracing_journald::layer() {
        Ok(journal) if under_systemd => tracing_subscriber::registry().with(filter).with(journal).init(),
        _ => {
            let lines = fmt::layer().with_writer(std::io::stderr).with_target(false).with_ansi(false);
            tracing_subscriber::registry().with(filter).with(lines).init();
        }
    }
}

/// How often each kind of event was told since the start.
#[derive(Default, Clone)]
pub struct Counters(pub BTreeMap<&'static str, u64>);

impl Counters {
    pub fn tell(&mut self, event: &Event) {
        let name = event.name();
        *self.0.entry(name).or_default() += 1;
        match event.level() {
            Level::Debug => tracing::debug!(event = name, "{event}"),
            Level::Info => tracing::info!(event = name, "{event}"),
            Level::Warn => tracing::warn!(event = name, "{event}"),
            Level::Alarm => tracing::error!(event = name, alarm = true, "ALARM: {event}"),
        }
    }
}
