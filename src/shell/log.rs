//! What is told of events: log lines, and a counter for each kind.
//!
//! Under systemd the lines go to the journal with their fields and levels, else to stderr. No key, RAND or SRES is in an event, and
//! of an IMSI or number the last four digits only.
//!
//! To stderr the node's thread writes the lines of one turn of its loop together ([`gather`]), before it sleeps; those of other threads,
//! warnings and alarms go out at once. To the journal each goes by itself.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::io::{self, Write as _};

use tracing::Metadata;
use tracing_subscriber::fmt::MakeWriter;
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
            let lines = fmt::layer().with_writer(Stderr).with_target(false).with_ansi(false);
            tracing_subscriber::registry().with(filter).with(lines).init();
        }
    }
}

/// Lines gathered up to here are written although the turn goes on.
const GATHERED_BYTES_MAX: usize = 64 << 10;

thread_local! {
    /// Of a thread that gathers: what it has not written yet.
    static GATHERED: RefCell<Option<Vec<u8>>> = const { RefCell::new(None) };
}

/// From now on the lines of this thread wait for [`Gathering::write`].
pub fn gather() -> Gathering {
    GATHERED.set(Some(Vec::with_capacity(GATHERED_BYTES_MAX)));
    Gathering
}

/// While it lives, lines of its thread are gathered; with it the last ones are written.
pub struct Gathering;

impl Gathering {
    /// Writes what has been gathered.
    pub fn write(&self) {
        GATHERED.with_borrow_mut(|gathered| gathered.as_mut().map(write_out));
    }
}

impl Drop for Gathering {
    fn drop(&mut self) {
        self.write();
        GATHERED.set(None);
    }
}

fn write_out(lines: &mut Vec<u8>) {
    if !lines.is_empty() {
        // Where stderr takes nothing there is nobody to tell.
        let _ = io::stderr().write_all(lines);
        lines.clear();
    }
}

/// Where lines go.
struct Stderr;

/// One line of a level.
struct Line {
    is_urgent: bool,
}

impl MakeWriter<'_> for Stderr {
    type Writer = Line;

    fn make_writer(&self) -> Line {
        Line { is_urgent: true }
    }

    fn make_writer_for(&self, meta: &Metadata<'_>) -> Line {
        Line { is_urgent: *meta.level() <= tracing::Level::WARN }
    }
}

impl io::Write for Line {
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        GATHERED.with_borrow_mut(|gathered| {
            let Some(lines) = gathered else { return io::stderr().write_all(line) };
            lines.extend_from_slice(line);
            if self.is_urgent || lines.len() >= GATHERED_BYTES_MAX {
                write_out(lines);
            }
            Ok(())
        })?;
        Ok(line.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
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
