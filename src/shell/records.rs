//! The records: one line of CSV for each call, and one for each text, that has ended; two files, and nothing shared between them.
//!
//! The node adds a line to those that wait and goes on; for each file a thread of its own writes them. So neither a disk that hangs nor one
//! that is full ever holds up a call or a text, nor one file the other: what cannot be written waits, is tried again, and is counted where
//! it is lost.
//! The first line after a pause is written at once, and what comes within [`GATHER`] after it together: so a busy node has to wake this
//! thread fifty times a second and not for each record, which cost as much as the redirect that was recorded.
//! Limits: [`WAITING_BYTES_MAX`] of lines wait; the file is turned at `record_file_max`, and `record_file_count` former ones are kept.
//! Not promised: lines are handed to the system and not synced. A process that is killed may lose what came within the last [`GATHER`], a
//! power cut the last half minute.
//! Source: RFC 4180 (quoting); lines end in LF alone, as `tail`, `awk` and spreadsheets all read it.

use std::fmt::Write as _;
use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{self, Read as _, Seek as _, SeekFrom, Write as _};
use std::marker::PhantomData;
use std::os::unix::fs::{DirBuilderExt as _, MetadataExt as _, OpenOptionsExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use arc_swap::ArcSwap;

use super::print::rfc3339_ms;
use crate::config::RecordFile;
use crate::ident::Imsi;
use crate::seam::{CallOutcome, CallRecord, TextRecord};

/// Lines that wait for the disk, some thousands of them; with more, new ones are lost and counted. As many may be being written.
const WAITING_BYTES_MAX: usize = 1 << 20;
/// After a write, what comes is left to gather for as long.
const GATHER: Duration = Duration::from_millis(20);
/// Lines that are written at once: a pipe takes so many whole or not at all (PIPE_BUF, pipe(7)).
const WRITE_BYTES_MAX: u64 = 4_096;
/// A disk that refused is tried again after this, then after twice as long each time.
const PAUSE_MIN: Duration = Duration::from_secs(1);
const PAUSE_MAX: Duration = Duration::from_secs(30);
/// How soon a pause notices that the process ends.
const PAUSE_STEP: Duration = Duration::from_millis(50);
const FILE_MODE: u32 = 0o640;

/// What a file of records is about.
#[derive(Clone, Copy, Debug)]
pub struct Kind {
    /// `call records`, as the log says it.
    name: &'static str,
    /// The columns, in the order of [`Line::put`]; README.md says what stands in them.
    pub head: &'static str,
    /// The counters of what was written, what was lost, and how often the disk refused.
    counters: [&'static str; 3],
}

pub const CALLS: Kind = Kind {
    name: "call records",
    head: "id,started,answered,ended,duration_s,from,to,from_imsi,to_imsi,from_cell,to_cell,outcome,code,cause,ended_by,why\n",
    counters: ["call_records_written", "call_records_lost", "call_record_faults"],
};

pub const TEXTS: Kind = Kind {
    name: "text records",
    head: "id,accepted,ended,life_s,from,to,from_imsi,to_imsi,from_cell,to_cell,kind,octets,attempts,outcome,code,cause,why\n",
    counters: ["text_records_written", "text_records_lost", "text_record_faults"],
};

/// Something that is kept as a line.
pub trait Line {
    const KIND: Kind;

    /// Adds it, its end included.
    fn put(&self, lines: &mut String);
}

/// `calls.csv.1` is the youngest of the former ones.
fn former(target: &RecordFile, number: u32) -> PathBuf {
    let mut name = target.path.clone().into_os_string();
    name.push(format!(".{number}"));
    name.into()
}

/// What became of the records; told by `status`.
pub struct Tally {
    kind: Kind,
    written: AtomicU64,
    lost: AtomicU64,
    faults: AtomicU64,
}

impl Tally {
    fn of(kind: Kind) -> Tally {
        Tally { kind, written: AtomicU64::default(), lost: AtomicU64::default(), faults: AtomicU64::default() }
    }

    pub fn name(&self) -> &'static str {
        self.kind.name
    }

    pub fn counts(&self) -> [(&'static str, u64); 3] {
        let [written, lost, faults] = self.kind.counters;
        let of = |count: &AtomicU64| count.load(Ordering::Relaxed);
        [(written, of(&self.written)), (lost, of(&self.lost)), (faults, of(&self.faults))]
    }
}

/// The side of the node: never waits.
pub struct Records<L> {
    desk: Arc<Desk>,
    target: Arc<ArcSwap<RecordFile>>,
    tally: Arc<Tally>,
    /// Told once, not for each record.
    is_losing: bool,
    lines: PhantomData<fn(&L)>,
}

/// What the node and the writer share.
#[derive(Default)]
struct Desk {
    waiting: Mutex<Waiting>,
    bell: Condvar,
    is_ending: AtomicBool,
}

#[derive(Default)]
struct Waiting {
    lines: String,
    /// The bell costs a system call, so it is rung for a sleeper only.
    is_asleep: bool,
}

impl Desk {
    /// Nobody panics half way through a change, so a poisoned lock is as good as any.
    fn waiting(&self) -> MutexGuard<'_, Waiting> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn is_ending(&self) -> bool {
        self.is_ending.load(Ordering::Acquire)
    }

    /// Takes what waits in place of `lines`, which are none; waits until there is something. `false` at the end.
    fn take(&self, lines: &mut String) -> bool {
        let mut waiting = self.waiting();
        while waiting.lines.is_empty() {
            if self.is_ending() {
                return false;
            }
            waiting.is_asleep = true;
            waiting = self.bell.wait(waiting).unwrap_or_else(PoisonError::into_inner);
            waiting.is_asleep = false;
        }
        std::mem::swap(&mut waiting.lines, lines);
        true
    }
}

impl<L: Line> Records<L> {
    pub fn keep(&mut self, record: &L) {
        let mut waiting = self.desk.waiting();
        if waiting.lines.len() < WAITING_BYTES_MAX {
            record.put(&mut waiting.lines);
            if waiting.is_asleep {
                self.desk.bell.notify_one();
            }
            self.is_losing = false;
            return;
        }
        drop(waiting);
        self.tally.lost.fetch_add(1, Ordering::Relaxed);
        if !std::mem::replace(&mut self.is_losing, true) {
            tracing::error!(
                alarm = true,
                "ALARM: {} are lost: a megabyte of them waits for the disk already",
                L::KIND.name
            );
        }
    }

    /// New settings are in force from the next line on.
    pub fn follow(&self, target: &RecordFile) {
        self.target.store(Arc::new(target.clone()));
    }
}

impl<L> Drop for Records<L> {
    /// The writer still writes what waits, but waits for no disk any more.
    fn drop(&mut self) {
        self.desk.is_ending.store(true, Ordering::Release);
        // Under the lock the writer either sleeps already, and hears it, or will see that this is the end.
        let _waiting = self.desk.waiting();
        self.desk.bell.notify_one();
    }
}

/// The thread that writes.
pub struct Writer {
    thread: JoinHandle<()>,
    pub tally: Arc<Tally>,
}

impl Writer {
    /// Waits until everything is written, but no longer than `patience`; `false` where it had to be left behind. The [`Records`] must
    /// have been dropped before.
    pub fn wait(self, patience: Duration) -> bool {
        let until = Instant::now() + patience;
        while !self.thread.is_finished() {
            if Instant::now() >= until {
                return false;
            }
            std::thread::sleep(Duration::from_millis(5));
        }
        self.thread.join().is_ok()
    }
}

/// Starts the thread; nothing is opened before the first record.
pub fn start<L: Line>(target: &RecordFile) -> io::Result<(Records<L>, Writer)> {
    let target = Arc::new(ArcSwap::from_pointee(target.clone()));
    let (tally, desk) = (Arc::new(Tally::of(L::KIND)), Arc::<Desk>::default());
    let mut writing = Writing {
        kind: L::KIND,
        desk: Arc::clone(&desk),
        target: Arc::clone(&target),
        tally: Arc::clone(&tally),
        open: None,
        is_refused: false,
        is_unturned: false,
    };
    let thread = std::thread::Builder::new().name(L::KIND.name.into()).spawn(move || writing.until_end())?;
    let records = Records { desk, target, tally: Arc::clone(&tally), is_losing: false, lines: PhantomData };
    Ok((records, Writer { thread, tally }))
}

struct Writing {
    kind: Kind,
    desk: Arc<Desk>,
    target: Arc<ArcSwap<RecordFile>>,
    tally: Arc<Tally>,
    open: Option<(Arc<RecordFile>, Log)>,
    /// The last try failed; told once, as is its end.
    is_refused: bool,
    /// The file cannot be turned; told once.
    is_unturned: bool,
}

impl Writing {
    fn until_end(&mut self) {
        let mut lines = String::new();
        while self.desk.take(&mut lines) {
            self.keep(&lines);
            lines.clear();
            if !self.desk.is_ending() {
                std::thread::sleep(GATHER);
            }
        }
    }

    /// Writes these lines, as often as it takes; once only where the process ends.
    fn keep(&mut self, mut lines: &str) {
        let count = |lines: &str| lines.matches('\n').count() as u64;
        let mut pause = PAUSE_MIN;
        while !lines.is_empty() {
            let ending = self.desk.is_ending();
            match self.write(lines) {
                Ok(bytes) => {
                    let (written, left) = lines.split_at(bytes);
                    (lines, pause) = (left, PAUSE_MIN);
                    self.tally.written.fetch_add(count(written), Ordering::Relaxed);
                    if std::mem::take(&mut self.is_refused) {
                        tracing::info!("{} are written again", self.kind.name);
                    }
                    continue;
                }
                Err(error) => {
                    self.open = None;
                    self.tally.faults.fetch_add(1, Ordering::Relaxed);
                    if !std::mem::replace(&mut self.is_refused, true) {
                        let path = &self.target.load().path;
                        tracing::error!(
                            alarm = true,
                            "ALARM: {} cannot be written to {}: {error}",
                            self.kind.name,
                            path.display()
                        );
                    }
                }
            }
            if ending {
                self.tally.lost.fetch_add(count(lines), Ordering::Relaxed);
                return;
            }
            self.pause(pause);
            pause = (pause * 2).min(PAUSE_MAX);
        }
    }

    /// Ends early where the process does, or where the settings name another file.
    fn pause(&self, pause: Duration) {
        let (until, target) = (Instant::now() + pause, self.target.load_full());
        while Instant::now() < until && !self.desk.is_ending() && Arc::ptr_eq(&target, &self.target.load()) {
            std::thread::sleep(PAUSE_STEP);
        }
    }

    /// Writes the first of these lines, as many as the file has room for and one write takes; says how many bytes those are.
    fn write(&mut self, lines: &str) -> io::Result<usize> {
        let target = self.target.load_full();
        let same = |(of, _): &(Arc<RecordFile>, Log)| **of == *target;
        let mut log = match self.open.take().filter(same) {
            // Removed, moved or turned by somebody else: a new one is begun.
            Some((_, log)) if log.is_still_at(&target.path) => log,
            _ => Log::open(&target.path, self.kind.head)?,
        };
        if fitting(lines, log.room(&target)).is_empty() && log.has_lines() {
            match turn(&target) {
                Ok(()) => (log, self.is_unturned) = (Log::open(&target.path, self.kind.head)?, false),
                Err(error) => {
                    self.tally.faults.fetch_add(1, Ordering::Relaxed);
                    if !std::mem::replace(&mut self.is_unturned, true) {
                        let path = target.path.display();
                        tracing::error!(alarm = true, "ALARM: {path} cannot be turned and grows on: {error}");
                    }
                }
            }
        }
        let now = match fitting(lines, log.room(&target).min(WRITE_BYTES_MAX)) {
            // Too large a file is better than a lost record.
            "" => lines.split_inclusive('\n').next().unwrap_or(lines),
            fitting => fitting,
        };
        log.append(now)?;
        self.open = Some((target, log));
        Ok(now.len())
    }
}

/// The open file.
struct Log {
    file: File,
    bytes: u64,
    head: &'static str,
}

impl Log {
    /// Opens it to append, or begins it with the head. A last line that a power cut left unfinished is ended, so that it stays alone.
    fn open(path: &Path, head: &'static str) -> io::Result<Log> {
        if let Some(folder) = path.parent().filter(|folder| !folder.as_os_str().is_empty() && !folder.exists()) {
            DirBuilder::new().recursive(true).mode(0o750).create(folder)?;
        }
        let options = || {
            let mut options = OpenOptions::new();
            // A pipe that nobody reads must not hold the thread.
            options.read(true).append(true).mode(FILE_MODE).custom_flags(libc::O_NONBLOCK);
            options
        };
        let mut file = match options().open(path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                let file = options().create_new(true).open(path)?;
                // Also under the unit's umask, which would take it from the group: who reads the records need not be who runs the box.
                file.set_permissions(fs::Permissions::from_mode(FILE_MODE))?;
                file
            }
            opened => opened?,
        };
        let bytes = file.metadata()?.len();
        let mut last = [b'\n'];
        if bytes > 0 {
            file.seek(SeekFrom::End(-1))?;
            file.read_exact(&mut last)?;
        }
        let mut log = Log { file, bytes, head };
        if bytes == 0 {
            log.append(head)?;
        } else if last != *b"\n" {
            log.append("\n")?;
        }
        Ok(log)
    }

    fn has_lines(&self) -> bool {
        self.bytes > self.head.len() as u64
    }

    fn room(&self, target: &RecordFile) -> u64 {
        target.bytes_max.saturating_sub(self.bytes)
    }

    fn is_still_at(&self, path: &Path) -> bool {
        match (self.file.metadata(), fs::metadata(path)) {
            (Ok(ours), Ok(there)) => (ours.dev(), ours.ino()) == (there.dev(), there.ino()),
            _ => false,
        }
    }

    /// One write(2); what of the lines was written before the disk was full is taken back.
    fn append(&mut self, lines: &str) -> io::Result<()> {
        let written = self.file.write(lines.as_bytes());
        if let Ok(count) = written
            && count == lines.len()
        {
            self.bytes += count as u64;
            return Ok(());
        }
        if written.is_ok() {
            // Where even that is refused, the next opening ends the line.
            let _ = self.file.set_len(self.bytes);
        }
        Err(written.err().unwrap_or_else(|| io::Error::from(io::ErrorKind::StorageFull)))
    }
}

/// The first lines that are no longer than `room` bytes together.
fn fitting(lines: &str, room: u64) -> &str {
    let room = usize::try_from(room).map_or(lines.len(), |room| room.min(lines.len()));
    let end = lines.as_bytes()[..room].iter().rposition(|byte| *byte == b'\n').map_or(0, |at| at + 1);
    &lines[..end]
}

/// `calls.csv` becomes `.1`, `.1` becomes `.2`; what would be above `count` is removed.
///
/// A gap (a power cut in the middle of an earlier turn) takes what is before it, so nothing is removed that need not be.
fn turn(target: &RecordFile) -> io::Result<()> {
    let exists = |number: u32| fs::symlink_metadata(former(target, number)).is_ok();
    let free = (1..=target.count).find(|number| !exists(*number));
    let last = free.unwrap_or(target.count);
    for number in (1..last).rev() {
        fs::rename(former(target, number), former(target, number + 1))?;
    }
    fs::rename(&target.path, former(target, 1))?;
    // Of a time when more were kept.
    for number in target.count + 1.. {
        if fs::remove_file(former(target, number)).is_err() {
            break;
        }
    }
    Ok(())
}

/// Numbers begin with `+`, and stay as they are: a spreadsheet must be told that these columns are text.
impl Line for CallRecord {
    const KIND: Kind = CALLS;

    fn put(&self, lines: &mut String) {
        let answered = self.answered_ms;
        let outcome = match self.outcome {
            CallOutcome::Answered => "answered",
            CallOutcome::Cancelled => "cancelled",
            CallOutcome::Refused => "refused",
            CallOutcome::Redirected => "redirected",
        };
        put_fields(
            lines,
            [
                &self.id,
                &rfc3339_ms(self.started_ms),
                &answered.map(rfc3339_ms).unwrap_or_default(),
                &rfc3339_ms(self.ended_ms),
                &seconds(answered.unwrap_or(self.ended_ms), self.ended_ms),
                &self.from,
                &self.to,
                imsi(&self.from_imsi),
                imsi(&self.to_imsi),
                &self.from_cell,
                &self.to_cell,
                outcome,
                &self.code.to_string(),
                &self.cause.to_string(),
                self.ended_by,
                &self.why,
            ],
        );
    }
}

impl Line for TextRecord {
    const KIND: Kind = TEXTS;

    fn put(&self, lines: &mut String) {
        put_fields(
            lines,
            [
                &self.id,
                &rfc3339_ms(self.accepted_ms),
                &rfc3339_ms(self.ended_ms),
                &seconds(self.accepted_ms, self.ended_ms),
                &self.from,
                &self.to,
                imsi(&self.from_imsi),
                imsi(&self.to_imsi),
                &self.from_cell,
                &self.to_cell,
                self.kind,
                &self.octets.to_string(),
                &self.attempts.to_string(),
                self.outcome.word(),
                &self.code.to_string(),
                &self.cause.to_string(),
                &self.why,
            ],
        );
    }
}

fn imsi(imsi: &Option<Imsi>) -> &str {
    imsi.as_ref().map(Imsi::as_str).unwrap_or_default()
}

/// Whole seconds, rounded down; 0 where a clock jumped back.
fn seconds(from_ms: u64, to_ms: u64) -> String {
    (to_ms.saturating_sub(from_ms) / 1_000).to_string()
}

fn put_fields<const N: usize>(lines: &mut String, fields: [&str; N]) {
    for (n, field) in fields.into_iter().enumerate() {
        if n > 0 {
            lines.push(',');
        }
        put_field(lines, field);
    }
    lines.push('\n');
}

/// "Fields containing line breaks (CRLF), double quotes, and commas should be enclosed in double-quotes" (RFC 4180 §2.6); "a
/// double-quote appearing inside a field must be escaped by preceding it with another double quote" (§2.7).
///
/// A control character, which only somebody who plays with us sends, becomes `?`: a record is one line.
fn put_field(lines: &mut String, field: &str) {
    let is_plain = |byte: u8| !byte.is_ascii_control() && byte.is_ascii() && byte != b',' && byte != b'"';
    // Most are.
    if field.bytes().all(is_plain) && !field.starts_with(' ') && !field.ends_with(' ') {
        return lines.push_str(field);
    }
    let shown: String = field.chars().map(|char| if char.is_control() { '?' } else { char }).collect();
    let needs_quotes = shown.contains([',', '"']) || shown.starts_with(' ') || shown.ends_with(' ');
    if needs_quotes {
        let _ = write!(lines, "\"{}\"", shown.replace('"', "\"\""));
    } else {
        lines.push_str(&shown);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::seam::TextOutcome;

    fn record(id: &str) -> CallRecord {
        CallRecord {
            id: id.into(),
            started_ms: 1_795_262_400_000,
            answered_ms: Some(1_795_262_405_250),
            ended_ms: 1_795_262_475_249,
            from: "+15550001".into(),
            to: "2002".into(),
            from_imsi: Imsi::parse("001010000000001").ok(),
            to_imsi: None,
            from_cell: "hill 001-01-1000-10".into(),
            to_cell: "pbx".into(),
            outcome: CallOutcome::Answered,
            code: 200,
            cause: 16,
            ended_by: "caller",
            why: String::new(),
        }
    }

    fn text(id: &str) -> TextRecord {
        TextRecord {
            id: id.into(),
            accepted_ms: 1_795_262_400_000,
            ended_ms: 1_795_266_001_999,
            from: "+15550001".into(),
            to: "2002".into(),
            from_imsi: Imsi::parse("001010000000001").ok(),
            to_imsi: Imsi::parse("001010000000002").ok(),
            from_cell: "hill".into(),
            to_cell: "dale".into(),
            kind: "text",
            octets: 21,
            attempts: 3,
            outcome: TextOutcome::Delivered,
            code: 200,
            cause: 0,
            why: String::new(),
        }
    }

    fn line(record: &impl Line) -> String {
        let mut line = String::new();
        record.put(&mut line);
        line
    }

    fn target(folder: &Path, bytes_max: u64, count: u32) -> RecordFile {
        RecordFile { path: folder.join("calls.csv"), bytes_max, count }
    }

    fn write_all(calls: &RecordFile, ids: impl IntoIterator<Item = String>) -> Arc<Tally> {
        let (mut records, writer) = start(calls).unwrap();
        for id in ids {
            records.keep(&record(&id));
        }
        let tally = Arc::clone(&writer.tally);
        drop(records);
        assert!(writer.wait(Duration::from_secs(5)));
        tally
    }

    fn count(tally: &Tally, name: &str) -> u64 {
        tally.counts().into_iter().find(|(found, _)| *found == name).unwrap().1
    }

    /// The ids of a file, after its head.
    fn ids(path: &Path) -> Vec<String> {
        let text = fs::read_to_string(path).unwrap();
        let lines = text.strip_prefix(CALLS.head).unwrap_or_else(|| panic!("no head in {}: {text}", path.display()));
        lines.lines().map(|line| line.split(',').next().unwrap().to_owned()).collect()
    }

    #[test]
    fn a_record_is_one_line_with_as_many_fields_as_the_head() {
        assert_eq!(
            line(&record("a1")),
            "a1,2026-11-21T12:00:00.000Z,2026-11-21T12:00:05.250Z,2026-11-21T12:01:15.249Z,69,+15550001,2002,001010000000001,,\
             hill 001-01-1000-10,pbx,answered,200,16,caller,\n"
        );
        let refused = CallRecord {
            answered_ms: None,
            outcome: CallOutcome::Refused,
            code: 404,
            cause: 1,
            ended_by: "us",
            why: "nobody has \"0800, free\"\r\nFAKE".into(),
            to: "=1+1".into(),
            ..record("b,2")
        };
        let line = line(&refused);
        assert_eq!(
            line,
            "\"b,2\",2026-11-21T12:00:00.000Z,,2026-11-21T12:01:15.249Z,0,+15550001,=1+1,001010000000001,,\
             hill 001-01-1000-10,pbx,refused,404,1,us,\"nobody has \"\"0800, free\"\"??FAKE\"\n"
        );
        // An independent reader finds the same columns.
        let text = format!("{}{line}", CALLS.head);
        let mut reader = csv::Reader::from_reader(text.as_bytes());
        let read = reader.records().next().unwrap().unwrap();
        assert_eq!((read.len(), reader.headers().unwrap().len()), (16, 16));
        assert_eq!((&read[0], &read[15]), ("b,2", "nobody has \"0800, free\"??FAKE"));
    }

    #[test]
    fn a_text_is_one_line_too_and_a_refused_one_has_no_id() {
        assert_eq!(
            line(&text("t1")),
            "t1,2026-11-21T12:00:00.000Z,2026-11-21T13:00:01.999Z,3601,+15550001,2002,001010000000001,001010000000002,\
             hill,dale,text,21,3,delivered,200,0,\n"
        );
        let refused = TextRecord {
            to: "@SUM(1,2)".into(),
            to_imsi: None,
            to_cell: String::new(),
            attempts: 0,
            outcome: TextOutcome::Refused,
            code: 404,
            why: "nobody has \"0800\"\u{1b}[2J".into(),
            ended_ms: 1_795_262_400_000,
            ..text("")
        };
        let written = line(&refused);
        assert_eq!(
            written,
            ",2026-11-21T12:00:00.000Z,2026-11-21T12:00:00.000Z,0,+15550001,\"@SUM(1,2)\",001010000000001,,\
             hill,,text,21,0,refused,404,0,\"nobody has \"\"0800\"\"?[2J\"\n"
        );
        let file = format!("{}{written}", TEXTS.head);
        let mut reader = csv::Reader::from_reader(file.as_bytes());
        let read = reader.records().next().unwrap().unwrap();
        assert_eq!((read.len(), reader.headers().unwrap().len()), (17, 17));
        assert_eq!((&read[5], &read[16]), ("@SUM(1,2)", "nobody has \"0800\"?[2J"));
    }

    #[test]
    fn a_disk_that_takes_no_calls_keeps_no_text_waiting() {
        let folder = tempfile::tempdir().unwrap();
        let texts = RecordFile::of(folder.path().join("texts.csv"));
        let (mut call_records, calls_writer) = start(&RecordFile::of("/dev/full".into())).unwrap();
        let (mut text_records, texts_writer) = start(&texts).unwrap();
        call_records.keep(&record("a"));
        wait_for(|| count(&calls_writer.tally, "call_record_faults") > 0);
        text_records.keep(&text("t1"));
        wait_for(|| count(&texts_writer.tally, "text_records_written") == 1);
        assert_eq!(fs::read_to_string(&texts.path).unwrap(), format!("{}{}", TEXTS.head, line(&text("t1"))));
        assert_eq!(count(&texts_writer.tally, "text_record_faults"), 0);
        drop((call_records, text_records));
        assert!(calls_writer.wait(Duration::from_secs(5)) && texts_writer.wait(Duration::from_secs(5)));
    }

    #[test]
    fn a_clock_that_jumped_back_makes_no_negative_duration() {
        let back = CallRecord { ended_ms: 1_000, ..record("a") };
        assert!(line(&back).contains(",1970-01-01T00:00:01.000Z,0,"));
    }

    #[test]
    fn a_new_file_begins_with_the_head_and_is_the_groups_to_read() {
        let folder = tempfile::tempdir().unwrap();
        let calls = target(&folder.path().join("not/yet"), 1_000_000, 8);
        let tally = write_all(&calls, ["a".into(), "b".into()]);
        assert_eq!(ids(&calls.path), ["a", "b"]);
        assert_eq!(fs::metadata(&calls.path).unwrap().mode() & 0o777, 0o640);
        assert_eq!((count(&tally, "call_records_written"), count(&tally, "call_records_lost")), (2, 0));
        // A later run appends, and writes no second head.
        write_all(&calls, ["c".into()]);
        assert_eq!(ids(&calls.path), ["a", "b", "c"]);
    }

    #[test]
    fn a_line_that_a_power_cut_tore_stays_alone() {
        let folder = tempfile::tempdir().unwrap();
        let calls = target(folder.path(), 1_000_000, 8);
        fs::write(&calls.path, format!("{}torn,2026", CALLS.head)).unwrap();
        write_all(&calls, ["b".into()]);
        assert_eq!(ids(&calls.path), ["torn", "b"]);
    }

    #[test]
    fn above_its_size_the_file_is_turned_and_the_oldest_goes() {
        let folder = tempfile::tempdir().unwrap();
        // Three lines fit beside the head.
        let bytes_max = (CALLS.head.len() + 3 * line(&record("00")).len()) as u64;
        let calls = target(folder.path(), bytes_max, 3);
        write_all(&calls, (0..20).map(|id| format!("{id:02}")));
        let former = |number| former(&calls, number);
        assert_eq!(ids(&calls.path), ["18", "19"]);
        assert_eq!(ids(&former(1)), ["15", "16", "17"]);
        assert_eq!(ids(&former(2)), ["12", "13", "14"]);
        assert_eq!(ids(&former(3)), ["09", "10", "11"]);
        assert!(!former(4).exists() && fs::metadata(&calls.path).unwrap().len() <= bytes_max);
        // Who keeps fewer from now on has no more; who finds a gap loses nothing.
        let fewer = RecordFile { count: 2, ..calls.clone() };
        fs::remove_file(former(1)).unwrap();
        write_all(&fewer, ["20".into(), "21".into()]);
        assert_eq!(
            (ids(&fewer.path), ids(&former(1))),
            (vec!["21".into()], vec!["18".into(), "19".into(), "20".into()])
        );
        assert_eq!(ids(&former(2)), ["12", "13", "14"]);
        assert!(!former(3).exists());
    }

    #[test]
    fn a_line_larger_than_the_file_may_be_is_written_all_the_same() {
        let folder = tempfile::tempdir().unwrap();
        let calls = target(folder.path(), 10, 2);
        write_all(&calls, ["a".into(), "b".into()]);
        assert_eq!((ids(&calls.path), ids(&former(&calls, 1))), (vec!["b".into()], vec!["a".into()]));
    }

    #[test]
    fn a_directory_that_vanished_comes_back_with_the_next_record() {
        let folder = tempfile::tempdir().unwrap();
        let calls = target(&folder.path().join("records"), 1_000_000, 8);
        let (mut records, writer) = start(&calls).unwrap();
        records.keep(&record("a"));
        wait_for(|| count(&writer.tally, "call_records_written") == 1);
        fs::remove_dir_all(folder.path().join("records")).unwrap();
        records.keep(&record("b"));
        drop(records);
        let tally = Arc::clone(&writer.tally);
        assert!(writer.wait(Duration::from_secs(5)));
        assert_eq!((ids(&calls.path), count(&tally, "call_records_lost")), (vec!["b".into()], 0));
    }

    /// /dev/full is a disk without room: "writes fail with ENOSPC" (full(4)).
    #[test]
    fn a_full_disk_neither_panics_nor_waits_and_is_counted_and_new_settings_are_followed() {
        let folder = tempfile::tempdir().unwrap();
        let full = RecordFile::of("/dev/full".into());
        let (mut records, writer) = start(&full).unwrap();
        let started = Instant::now();
        // As many wait, and no more than as many are being tried.
        let room = WAITING_BYTES_MAX.div_ceil(line(&record("000000")).len());
        let too_many = 2 * room + 10;
        for id in 0..too_many {
            records.keep(&record(&format!("{id:06}")));
        }
        assert!(started.elapsed() < Duration::from_millis(500), "the node is not held up");
        wait_for(|| count(&writer.tally, "call_record_faults") > 0);
        let lost = count(&writer.tally, "call_records_lost");
        assert!((10..10 + room as u64).contains(&lost), "{lost} of {too_many}");
        // The operator names a disk with room: what waited is written there.
        let calls = target(folder.path(), 10_000_000, 8);
        records.follow(&calls);
        drop(records);
        let tally = Arc::clone(&writer.tally);
        assert!(writer.wait(Duration::from_secs(5)));
        let written = count(&tally, "call_records_written");
        assert_eq!(written + count(&tally, "call_records_lost"), too_many as u64);
        assert!(written >= room as u64 && ids(&calls.path).len() as u64 == written);
    }

    #[test]
    fn lines_that_came_together_are_cut_where_the_file_is_full() {
        assert_eq!(fitting("a,b\nc,d\n", 100), "a,b\nc,d\n");
        assert_eq!(fitting("a,b\nc,d\n", 8), "a,b\nc,d\n");
        assert_eq!(fitting("a,b\nc,d\n", 7), "a,b\n");
        assert_eq!(fitting("a,b\nc,d\n", 3), "");
    }

    #[test]
    fn an_end_waits_for_no_disk() {
        let full = RecordFile::of("/dev/full".into());
        let (mut records, writer) = start(&full).unwrap();
        records.keep(&record("a"));
        records.keep(&record("b"));
        // It pauses before it tries again.
        wait_for(|| count(&writer.tally, "call_record_faults") > 0);
        let (started, tally) = (Instant::now(), Arc::clone(&writer.tally));
        drop(records);
        assert!(writer.wait(Duration::from_millis(500)), "after {:?}", started.elapsed());
        assert_eq!((count(&tally, "call_records_written"), count(&tally, "call_records_lost")), (0, 2));
    }

    fn wait_for(what: impl Fn() -> bool) {
        let until = Instant::now() + Duration::from_secs(5);
        while !what() {
            assert!(Instant::now() < until, "it never happened");
            std::thread::sleep(Duration::from_millis(5));
        }
    }
}
