//! Files that came with a mail, on a page that opens once.
//!
//! | path | |
//! |---|---|
//! | `/p/<32 hex>` | the page: what came, with a link to each |
//! | `/p/<32 hex>/<n>` | the file itself |
//!
//! Knows: a page for each recipient, its files, and how long it may be seen: until it is opened for the longest `life`, and `open_life` from
//! then on. Does not know: mail, phones. There is no list of pages, and nobody guesses 128 bits.
//! On the disk: `<data_dir>/pictures/<32 hex>/` with `page.json` and a file for each; several recipients share the octets by hard links. All
//! of it is synced before the mail is answered for; a page whose mail was refused after all is removed, and else grows too old.
//! The name of a page comes of the mail, its recipient, and a secret (`key`): a copy of a mail that is kept already finds its page, and takes
//! no room.
//! Limits: `[pictures] size_max`, `bytes_max`; [`CONNECTIONS_MAX`], [`CONNECTION_MAX`], [`IDLE_MAX`], [`FILES_MAX`].

use std::collections::BTreeMap;
use std::fs;
use std::io::{self, Write as _};
use std::net::SocketAddr;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll};
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use axum::extract::{Path as UrlPath, State};
use axum::http::{HeaderValue, Method, Response, StatusCode, header};
use axum::routing::get;
use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::Sleep;

use crate::config::mailing;
use crate::mail::File;

/// More wait until one of them ends.
const CONNECTIONS_MAX: usize = 64;
/// However slowly somebody reads; and so long without an octet either way.
const CONNECTION_MAX: Duration = Duration::from_secs(10 * 60);
const IDLE_MAX: Duration = Duration::from_secs(30);
/// Those that are too old are looked for this often.
const PURGE_PAUSE: Duration = Duration::from_secs(600);
/// Files of one mail that are kept.
const FILES_MAX: usize = 50;
const PAGE: &str = "page.json";
/// What makes names that nobody guesses.
const KEY: &str = "key";
const KEY_BYTES: usize = 32;

/// What became of pages; told by `status`.
#[derive(Default)]
pub struct Tally {
    kept: AtomicU64,
    opened: AtomicU64,
    gone: AtomicU64,
    full: AtomicU64,
}

impl Tally {
    pub fn counts(&self) -> [(&'static str, u64); 4] {
        let of = |count: &AtomicU64| count.load(Ordering::Relaxed);
        [
            ("picture_pages_kept", of(&self.kept)),
            ("picture_pages_opened", of(&self.opened)),
            ("picture_pages_gone", of(&self.gone)),
            ("picture_store_full", of(&self.full)),
        ]
    }
}

/// All pages.
pub struct Pictures {
    settings: Mutex<mailing::Pictures>,
    /// By name.
    pages: Mutex<BTreeMap<String, Room>>,
    key: [u8; KEY_BYTES],
    /// It has been told that there is no room, and there has been none since.
    is_full: AtomicBool,
    /// A page is opened by one at a time.
    opening: Mutex<()>,
    pub tally: Tally,
}

/// What a page takes.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
struct Room {
    /// Those that pages share are counted for each of them, so that the bound holds whichever goes first.
    octets: u64,
    /// Its mail has not been answered.
    is_open: bool,
}

/// A page: its name, and where a phone finds it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Page {
    name: String,
    pub url: String,
    /// No earlier copy of its mail has made it.
    is_new: bool,
}

/// Why no page was made.
#[derive(Debug)]
pub enum NotKept {
    /// As much is kept as may be.
    Full,
    DiskFull,
    /// The same mail is being kept at this moment.
    Twice,
    Failed(io::Error),
}

/// `page.json`.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
struct Kept {
    /// Milliseconds since 1970.
    made_ms: u64,
    opened_ms: Option<u64>,
    files: Vec<KeptFile>,
}

#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
struct KeptFile {
    name: String,
    content_type: String,
    octets: u64,
}

impl Pictures {
    /// Takes up what an earlier run has left.
    ///
    /// Errors: the folder cannot be made or read.
    pub fn open(settings: &mailing::Pictures) -> io::Result<Pictures> {
        fs::create_dir_all(&settings.path)?;
        let mut pages = BTreeMap::new();
        for entry in fs::read_dir(&settings.path)? {
            let entry = entry?;
            let Some(name) = entry.file_name().to_str().filter(|name| is_name(name)).map(str::to_owned) else {
                continue;
            };
            let octets = match read_page(&entry.path()) {
                Ok(page) => page.files.iter().map(|file| file.octets).sum(),
                // The power went while it was made: its mail was not answered for.
                Err(error) if error.kind() == io::ErrorKind::NotFound => {
                    fs::remove_dir_all(entry.path())?;
                    continue;
                }
                // It may be readable another time.
                Err(error) => {
                    tracing::warn!("a page of pictures cannot be read: {}: {error}", entry.path().display());
                    octets_in(&entry.path())
                }
            };
            pages.insert(name, Room { octets, is_open: false });
        }
        Ok(Pictures {
            settings: Mutex::new(settings.clone()),
            pages: Mutex::new(pages),
            key: key(&settings.path)?,
            is_full: AtomicBool::new(false),
            opening: Mutex::default(),
            tally: Tally::default(),
        })
    }

    /// New settings; where it listens it stays, and where the pages are.
    pub fn follow(&self, settings: &mailing::Pictures) {
        let mut followed = lock(&self.settings);
        let path = std::mem::take(&mut followed.path);
        *followed = mailing::Pictures { path, ..settings.clone() };
    }

    /// Whether a file of this size is kept at all.
    pub fn takes(&self, file: &File) -> bool {
        file.bytes.len() as u64 <= lock(&self.settings).size_max
    }

    /// A page with these files for each recipient, on the disk; `whose` tells one recipient of one mail from all others. Then
    /// [`Pictures::settle`]. Blocks.
    ///
    /// Errors: [`NotKept`]; there is nothing new then.
    pub fn keep(&self, files: &[File], whose: &[Vec<u8>], now_ms: u64) -> Result<Vec<Page>, NotKept> {
        let settings = lock(&self.settings).clone();
        let files: Vec<&File> = files.iter().take(FILES_MAX).collect();
        let octets: u64 = files.iter().map(|file| file.bytes.len() as u64).sum();
        let mut pages: Vec<Page> = Vec::new();
        for whose in whose {
            let digest = Sha256::new().chain_update(self.key).chain_update(whose).finalize();
            let name: String = digest[..16].iter().map(|byte| format!("{byte:02x}")).collect();
            let url = format!("{}/p/{name}", settings.url.trim_end_matches('/'));
            // One that nobody may see any more is none.
            let is_over = read_page(&settings.path.join(&name)).is_ok_and(|page| !self.is_seen(&page, now_ms));
            if is_over {
                self.remove(&name);
            }
            pages.push(Page { name, url, is_new: true });
        }
        {
            let mut kept = lock(&self.pages);
            for page in &mut pages {
                match kept.get(&page.name) {
                    Some(Room { is_open: true, .. }) => return Err(NotKept::Twice),
                    room => page.is_new = room.is_none(),
                }
            }
            let more = octets.saturating_mul(pages.iter().filter(|page| page.is_new).count() as u64);
            let all: u64 = kept.values().map(|room| room.octets).sum();
            if all.saturating_add(more) > settings.bytes_max {
                self.tally.full.fetch_add(1, Ordering::Relaxed);
                let most = settings.bytes_max;
                // What would not fit into an empty store is no reason to call somebody.
                if more <= most && !self.is_full.swap(true, Ordering::Relaxed) {
                    tracing::error!(alarm = true, "ALARM: as many files of mails are kept as may be: {most} bytes");
                }
                return Err(NotKept::Full);
            }
            // Before it is written: two that come together cannot both take the last room.
            for page in &pages {
                let room = kept.entry(page.name.clone()).or_insert(Room { octets, is_open: true });
                room.is_open = true;
            }
        }
        let new: Vec<&Page> = pages.iter().filter(|page| page.is_new).collect();
        match write(&settings.path, &new, &files, now_ms) {
            Ok(()) => {
                self.is_full.store(false, Ordering::Relaxed);
                self.tally.kept.fetch_add(new.len() as u64, Ordering::Relaxed);
                Ok(pages)
            }
            Err(error) => {
                let none: Vec<(Page, bool)> = pages.into_iter().map(|page| (page, false)).collect();
                self.settle(&none);
                match error.kind() {
                    io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => Err(NotKept::DiskFull),
                    _ => Err(NotKept::Failed(error)),
                }
            }
        }
    }

    /// Their mail is answered. Those that are not kept are removed, but for those of an earlier copy of the mail.
    pub fn settle(&self, pages: &[(Page, bool)]) {
        for (page, is_kept) in pages {
            if *is_kept || !page.is_new {
                lock(&self.pages).entry(page.name.clone()).and_modify(|room| room.is_open = false);
            } else {
                self.remove(&page.name);
            }
        }
    }

    fn remove(&self, name: &str) {
        let path = lock(&self.settings).path.join(name);
        if let Err(error) = fs::remove_dir_all(path)
            && error.kind() != io::ErrorKind::NotFound
        {
            tracing::warn!("a page of pictures cannot be removed: {error}");
        }
        lock(&self.pages).remove(name);
    }

    /// Removes those that nobody may see any more.
    pub fn purge(&self, now_ms: u64) {
        let path = lock(&self.settings).path.clone();
        let names: Vec<String> = lock(&self.pages).keys().cloned().collect();
        for name in names {
            // One that is being made has no page yet; half a page of a run that died is gone since the start.
            if read_page(&path.join(&name)).is_ok_and(|page| !self.is_seen(&page, now_ms)) {
                self.remove(&name);
            }
        }
    }

    /// Whether it may be seen. A clock that was wrong when the page was made makes it live longer, and no shorter.
    fn is_seen(&self, page: &Kept, now_ms: u64) -> bool {
        let settings = lock(&self.settings);
        let within = |since_ms: u64, life: Duration| u128::from(now_ms.saturating_sub(since_ms)) < life.as_millis();
        match page.opened_ms {
            Some(opened_ms) => within(opened_ms, settings.open_life),
            None => within(page.made_ms, settings.life),
        }
    }

    /// What is on a page that may be seen. `open`: from now on it has been opened. `at`: a file that it has to have.
    fn look(&self, name: &str, at: Option<usize>, open: bool, now_ms: u64) -> Result<(PathBuf, Kept), StatusCode> {
        if !is_name(name) || !lock(&self.pages).contains_key(name) {
            return Err(StatusCode::NOT_FOUND);
        }
        let folder = lock(&self.settings).path.join(name);
        // Two that open it at once would write over each other.
        let _turn = open.then(|| lock(&self.opening));
        let mut page = read_page(&folder).map_err(|_| StatusCode::NOT_FOUND)?;
        if !self.is_seen(&page, now_ms) {
            self.tally.gone.fetch_add(1, Ordering::Relaxed);
            return Err(StatusCode::GONE);
        }
        if at.is_some_and(|at| at >= page.files.len()) {
            return Err(StatusCode::NOT_FOUND);
        }
        if open && page.opened_ms.is_none() {
            page.opened_ms = Some(now_ms);
            write_page(&folder, &page).map_err(|error| {
                tracing::warn!("a page of pictures cannot be opened: {error}");
                StatusCode::SERVICE_UNAVAILABLE
            })?;
            self.tally.opened.fetch_add(1, Ordering::Relaxed);
        }
        Ok((folder, page))
    }
}

fn write(path: &Path, pages: &[&Page], files: &[&File], now_ms: u64) -> io::Result<()> {
    let kept_file = |file: &&File| KeptFile {
        name: file.name.clone(),
        content_type: file.content_type.clone(),
        octets: file.bytes.len() as u64,
    };
    let kept = Kept { made_ms: now_ms, opened_ms: None, files: files.iter().map(kept_file).collect() };
    let mut first: Option<PathBuf> = None;
    for page in pages {
        let folder = path.join(&page.name);
        match fs::create_dir(&folder) {
            // What could not be removed at its time.
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
                fs::remove_dir_all(&folder)?;
                fs::create_dir(&folder)?;
            }
            made => made?,
        }
        for (at, file) in files.iter().enumerate() {
            let to = folder.join(at.to_string());
            match &first {
                Some(first) => fs::hard_link(first.join(at.to_string()), to)?,
                None => write_synced(&to, &file.bytes)?,
            }
        }
        // Last: a folder without it is half a page.
        write_page(&folder, &kept)?;
        first.get_or_insert(folder);
    }
    fs::File::open(path)?.sync_all()
}

fn is_name(name: &str) -> bool {
    name.len() == 32 && name.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'))
}

fn read_page(folder: &Path) -> io::Result<Kept> {
    Ok(serde_json::from_slice(&fs::read(folder.join(PAGE))?)?)
}

/// The secret of names, made by the first run.
fn key(path: &Path) -> io::Result<[u8; KEY_BYTES]> {
    let (kept, new) = (path.join(KEY), path.join("key.new"));
    match fs::read(&kept).map(<[u8; KEY_BYTES]>::try_from) {
        Ok(Ok(key)) => return Ok(key),
        // One of another length is none: the names of before are there all the same.
        Ok(Err(_)) => (),
        Err(error) if error.kind() == io::ErrorKind::NotFound => (),
        Err(error) => return Err(error),
    }
    let mut key = [0; KEY_BYTES];
    getrandom::fill(&mut key).map_err(io::Error::other)?;
    write_synced(&new, &key)?;
    fs::set_permissions(&new, fs::Permissions::from_mode(0o600))?;
    fs::rename(new, kept)?;
    fs::File::open(path)?.sync_all()?;
    Ok(key)
}

/// What the files of a folder take.
fn octets_in(folder: &Path) -> u64 {
    let files = fs::read_dir(folder).into_iter().flatten().flatten();
    files.filter_map(|file| Some(file.metadata().ok()?.len())).sum()
}

/// The old one or the new one, whenever the power goes.
fn write_page(folder: &Path, page: &Kept) -> io::Result<()> {
    let new = folder.join("page.new");
    write_synced(&new, &serde_json::to_vec(page)?)?;
    fs::rename(new, folder.join(PAGE))?;
    fs::File::open(folder)?.sync_all()
}

fn write_synced(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let mut file = fs::File::create(path)?;
    file.write_all(bytes)?;
    file.sync_all()
}

fn lock<T>(of: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    of.lock().unwrap_or_else(PoisonError::into_inner)
}

// --- The pages ---

/// Serves them until the runtime ends; looks for old ones now and then.
pub async fn serve(listener: TcpListener, pictures: Arc<Pictures>, now_ms: fn() -> u64) {
    let purged = Arc::clone(&pictures);
    tokio::spawn(async move {
        loop {
            let pictures = Arc::clone(&purged);
            // One that breaks off is followed by the next.
            let _ = tokio::task::spawn_blocking(move || pictures.purge(now_ms())).await;
            tokio::time::sleep(PURGE_PAUSE).await;
        }
    });
    let routes = Router::new()
        .route("/p/{page}", get(show_page))
        .route("/p/{page}/{file}", get(show_file))
        .fallback(|| async { said(StatusCode::NOT_FOUND) })
        .with_state(Served { pictures, now_ms });
    let listener = Bounded { listener, places: Arc::new(Semaphore::new(CONNECTIONS_MAX)) };
    if let Err(error) = axum::serve(listener, routes).await {
        tracing::error!("the pages of pictures are not served any more: {error}");
    }
}

#[derive(Clone)]
struct Served {
    pictures: Arc<Pictures>,
    now_ms: fn() -> u64,
}

async fn show_page(method: Method, State(served): State<Served>, UrlPath(name): UrlPath<String>) -> Response<Body> {
    // A phone that looks before it asks has not seen it.
    let open = method == Method::GET;
    let looked = tokio::task::spawn_blocking(move || {
        let Served { pictures, now_ms } = served;
        pictures.look(&name, None, open, now_ms()).map(|(_, page)| html(&name, &page))
    });
    match looked.await {
        Ok(Ok(page)) => dressed(StatusCode::OK, "text/html; charset=utf-8", None, page.into()),
        Ok(Err(status)) => said(status),
        Err(_) => said(StatusCode::INTERNAL_SERVER_ERROR),
    }
}

/// Who has the address of a file has seen the page, or does without.
async fn show_file(
    method: Method,
    State(served): State<Served>,
    UrlPath((name, file)): UrlPath<(String, String)>,
) -> Response<Body> {
    let open = method == Method::GET;
    let looked = tokio::task::spawn_blocking(move || {
        let Served { pictures, now_ms } = served;
        let at = file.parse::<usize>().map_err(|_| StatusCode::NOT_FOUND)?;
        let (folder, page) = pictures.look(&name, Some(at), open, now_ms())?;
        let kept = page.files.get(at).ok_or(StatusCode::NOT_FOUND)?.clone();
        let bytes = fs::read(folder.join(at.to_string())).map_err(|_| StatusCode::NOT_FOUND)?;
        Ok((kept, bytes))
    });
    match looked.await {
        Ok(Ok((kept, bytes))) => {
            // What a browser would run is only ever saved.
            let shown = match kept.content_type.as_str() {
                known @ ("image/jpeg" | "image/png" | "image/gif" | "image/webp" | "audio/amr" | "video/3gpp") => {
                    Some(known)
                }
                _ => None,
            };
            let kind = shown.unwrap_or("application/octet-stream");
            let how = if shown.is_some() { "inline" } else { "attachment" };
            let name: String = kept.name.chars().map(|char| if is_plain(char) { char } else { '_' }).collect();
            dressed(StatusCode::OK, kind, Some(format!("{how}; filename=\"{name}\"")), bytes.into())
        }
        Ok(Err(status)) => said(status),
        Err(_) => said(StatusCode::INTERNAL_SERVER_ERROR),
    }
}

/// In a header it needs no quoting.
fn is_plain(char: char) -> bool {
    char.is_ascii_alphanumeric() || " -_.+()".contains(char)
}

fn said(status: StatusCode) -> Response<Body> {
    let words = match status {
        StatusCode::NOT_FOUND => "There is no such page.",
        StatusCode::GONE => "This page was there for a while, and is gone.",
        _ => "This page cannot be shown at this moment. Try again.",
    };
    dressed(status, "text/plain; charset=utf-8", None, words.into())
}

fn dressed(status: StatusCode, kind: &str, disposition: Option<String>, body: Body) -> Response<Body> {
    let mut response = Response::new(body);
    *response.status_mut() = status;
    let headers = response.headers_mut();
    let fixed = [
        (header::CACHE_CONTROL, "no-store"),
        (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
        (header::REFERRER_POLICY, "no-referrer"),
        (header::CONTENT_SECURITY_POLICY, "default-src 'none'; img-src 'self'; sandbox"),
    ];
    for (name, value) in fixed {
        headers.insert(name, HeaderValue::from_static(value));
    }
    headers.insert("x-robots-tag", HeaderValue::from_static("noindex, nofollow"));
    for (name, value) in [(header::CONTENT_TYPE, Some(kind)), (header::CONTENT_DISPOSITION, disposition.as_deref())] {
        if let Some(value) = value.and_then(|value| HeaderValue::from_str(value).ok()) {
            headers.insert(name, value);
        }
    }
    response
}

/// Small enough for a phone of 2005: no script, no style sheet.
fn html(name: &str, page: &Kept) -> String {
    let mut body = String::new();
    for (at, file) in page.files.iter().enumerate() {
        let (shown, octets) = (escaped(&file.name), size(file.octets));
        body.push_str(&format!("<p><a href=\"/p/{name}/{at}\">{shown}</a> ({octets})</p>\n"));
    }
    format!(
        "<!DOCTYPE html>\n<html><head><meta charset=\"utf-8\"><meta name=\"viewport\" content=\"width=device-width\">\
         <title>Files</title></head>\n<body>\n{body}</body></html>\n"
    )
}

fn escaped(text: &str) -> String {
    let mut out = String::new();
    for char in text.chars() {
        match char {
            '&' => out.push_str("&amp;"),
            '<' => out.push_str("&lt;"),
            '>' => out.push_str("&gt;"),
            '"' => out.push_str("&quot;"),
            '\'' => out.push_str("&#39;"),
            char if char.is_control() => {}
            char => out.push(char),
        }
    }
    out
}

fn size(octets: u64) -> String {
    match octets {
        0..1_000 => format!("{octets} B"),
        1_000..1_000_000 => format!("{} kB", octets / 1_000),
        _ => format!("{}.{} MB", octets / 1_000_000, octets / 100_000 % 10),
    }
}

// --- Connections ---

/// So many at a time, and none for ever.
struct Bounded {
    listener: TcpListener,
    places: Arc<Semaphore>,
}

struct Connection {
    stream: TcpStream,
    end: Pin<Box<Sleep>>,
    idle: Pin<Box<Sleep>>,
    _place: Option<OwnedSemaphorePermit>,
}

impl axum::serve::Listener for Bounded {
    type Io = Connection;
    type Addr = SocketAddr;

    async fn accept(&mut self) -> (Connection, SocketAddr) {
        let place = Arc::clone(&self.places).acquire_owned().await.ok();
        let (stream, from) = axum::serve::Listener::accept(&mut self.listener).await;
        let end = Box::pin(tokio::time::sleep(CONNECTION_MAX));
        let idle = Box::pin(tokio::time::sleep(IDLE_MAX));
        (Connection { stream, end, idle, _place: place }, from)
    }

    fn local_addr(&self) -> io::Result<SocketAddr> {
        self.listener.local_addr()
    }
}

impl Connection {
    fn is_over(&mut self, context: &mut Context<'_>) -> io::Result<()> {
        match (self.end.as_mut().poll(context), self.idle.as_mut().poll(context)) {
            (Poll::Pending, Poll::Pending) => Ok(()),
            (Poll::Ready(()), _) | (_, Poll::Ready(())) => Err(io::ErrorKind::TimedOut.into()),
        }
    }

    /// Octets have gone one way or the other.
    fn goes_on(&mut self) {
        self.idle.as_mut().reset(tokio::time::Instant::now() + IDLE_MAX);
    }
}

impl AsyncRead for Connection {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        self.is_over(context)?;
        let read = Pin::new(&mut self.stream).poll_read(context, buffer);
        if read.is_ready() {
            self.goes_on();
        }
        read
    }
}

impl AsyncWrite for Connection {
    fn poll_write(mut self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        self.is_over(context)?;
        let written = Pin::new(&mut self.stream).poll_write(context, bytes);
        if written.is_ready() {
            self.goes_on();
        }
        written
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(context)
    }
}

#[cfg(test)]
mod tests {
    use std::io::Read as _;
    use std::net::TcpStream as StdStream;

    use super::*;

    fn settings(path: &Path) -> mailing::Pictures {
        let base = mailing::Pictures::of(path, "127.0.0.1:0".parse().unwrap(), "http://box.example:8090/".into());
        mailing::Pictures { bytes_max: 1_000, size_max: 600, ..base }
    }

    fn file(name: &str, content_type: &str, bytes: &[u8]) -> File {
        File { name: name.into(), content_type: content_type.into(), bytes: bytes.to_vec() }
    }

    /// Recipients of a mail.
    fn of(mail: &str, count: usize) -> Vec<Vec<u8>> {
        (0..count).map(|at| format!("{mail} {at}").into_bytes()).collect()
    }

    fn settle(pictures: &Pictures, pages: &[Page], is_kept: bool) {
        pictures.settle(&pages.iter().map(|page| (page.clone(), is_kept)).collect::<Vec<_>>());
    }

    fn octets(pictures: &Pictures) -> u64 {
        lock(&pictures.pages).values().map(|room| room.octets).sum()
    }

    fn folders(settings: &mailing::Pictures) -> usize {
        let entries = fs::read_dir(&settings.path).unwrap();
        entries.filter(|entry| is_name(entry.as_ref().unwrap().file_name().to_str().unwrap())).count()
    }

    #[test]
    fn each_recipient_has_a_page_and_the_bound_holds_for_all_of_them() {
        let folder = tempfile::tempdir().unwrap();
        let pictures = Pictures::open(&settings(folder.path())).unwrap();
        let pages = pictures.keep(&[file("a.jpg", "image/jpeg", &[7; 300])], &of("a", 3), 1).unwrap();
        assert_eq!(pages.len(), 3);
        assert!(pages.iter().all(|page| page.url.starts_with("http://box.example:8090/p/") && is_name(&page.name)));
        assert_eq!(octets(&pictures), 900);
        assert!(matches!(pictures.keep(&[file("b", "image/png", &[7; 101])], &of("b", 1), 1), Err(NotKept::Full)));
        assert!(pictures.is_full.load(Ordering::Relaxed));
        settle(&pictures, &pages, false);
        assert_eq!(octets(&pictures), 0, "a page of a mail that was refused is gone");
        assert!(
            pictures.keep(&[file("b", "image/png", &[7; 501])], &of("b", 1), 1).is_ok(),
            "their room is free again"
        );
        assert!(!pictures.is_full.load(Ordering::Relaxed));
        let never = pictures.keep(&[file("c", "image/png", &[7; 600])], &of("c", 2), 1);
        assert!(matches!(never, Err(NotKept::Full)));
        assert!(!pictures.is_full.load(Ordering::Relaxed), "what fits into no store says nothing of this one");
        assert!(!pictures.takes(&file("c", "image/png", &[7; 601])));
    }

    #[test]
    fn a_copy_of_a_mail_finds_its_pages_and_takes_no_room() {
        let folder = tempfile::tempdir().unwrap();
        let settings = settings(folder.path());
        let files = [file("a.jpg", "image/jpeg", &[7; 300])];
        let pictures = Pictures::open(&settings).unwrap();
        let first = pictures.keep(&files, &of("a", 2), 1).unwrap();
        assert!(matches!(pictures.keep(&files, &of("a", 2), 1), Err(NotKept::Twice)), "the first is not answered yet");
        settle(&pictures, &first, true);
        // After a restart, too.
        let pictures = Pictures::open(&settings).unwrap();
        let copy = pictures.keep(&files, &of("a", 2), 2).unwrap();
        let urls = |pages: &[Page]| pages.iter().map(|page| page.url.clone()).collect::<Vec<_>>();
        assert_eq!((urls(&copy), octets(&pictures)), (urls(&first), 600));
        assert!(matches!(pictures.keep(&files, &of("a", 2), 2), Err(NotKept::Twice)));
        settle(&pictures, &copy, false);
        assert_eq!(folders(&settings), 2, "a copy that is refused leaves the pages of the first");
        // Nobody sees them any more: the mail is a new one.
        let late_ms = settings.life.as_millis() as u64 + 10;
        let late = pictures.keep(&files, &of("a", 2), late_ms).unwrap();
        assert!(late.iter().all(|page| pictures.look(&page.name, None, false, late_ms).is_ok()));
        let other = Pictures::open(&mailing::Pictures { path: folder.path().join("other"), ..settings }).unwrap();
        assert_ne!(urls(&other.keep(&files, &of("a", 2), 1).unwrap()), urls(&first), "another box has other names");
    }

    #[test]
    fn a_page_opens_once_and_lives_no_longer_than_it_may() {
        let folder = tempfile::tempdir().unwrap();
        let settings = settings(folder.path());
        let pictures = Pictures::open(&settings).unwrap();
        let life_ms = settings.life.as_millis() as u64;
        let open_ms = settings.open_life.as_millis() as u64;
        let pages = pictures.keep(&[file("a.jpg", "image/jpeg", b"x")], &of("a", 3), 0).unwrap();
        let look = |page: &Page, open, now_ms| pictures.look(&page.name, None, open, now_ms).map(drop).err();
        assert_eq!(look(&pages[0], false, life_ms - 1), None, "who only looks does not open it");
        assert_eq!(look(&pages[0], true, life_ms - 1), None);
        assert_eq!(look(&pages[0], true, life_ms - 1 + open_ms - 1), None, "opened late it is there for a while");
        assert_eq!(look(&pages[0], true, life_ms - 1 + open_ms), Some(StatusCode::GONE));
        assert_eq!(look(&pages[1], true, life_ms), Some(StatusCode::GONE), "never opened it is gone, too");
        pictures.purge(life_ms - 1 + open_ms);
        assert!(lock(&pictures.pages).is_empty());
        assert_eq!(folders(&settings), 0);
        assert_eq!(look(&pages[0], true, 5), Some(StatusCode::NOT_FOUND));
    }

    #[test]
    fn the_next_run_knows_the_pages_of_the_last_and_half_a_page_is_none() {
        let folder = tempfile::tempdir().unwrap();
        let settings = settings(folder.path());
        let pages = Pictures::open(&settings).unwrap().keep(&[file("a", "image/png", b"xyz")], &of("a", 1), 0).unwrap();
        let half = settings.path.join("0".repeat(32));
        fs::create_dir(&half).unwrap();
        fs::write(half.join("0"), b"x").unwrap();
        let unread = settings.path.join("1".repeat(32));
        fs::create_dir(&unread).unwrap();
        fs::write(unread.join(PAGE), b"of a later version").unwrap();
        let pictures = Pictures::open(&settings).unwrap();
        assert!(!half.exists());
        assert!(unread.exists(), "what cannot be read now is somebody's all the same");
        assert_eq!(lock(&pictures.pages).get(&pages[0].name), Some(&Room { octets: 3, is_open: false }));
        assert_eq!(octets(&pictures), 3 + 18);
        let (_, page) = pictures.look(&pages[0].name, None, true, 1).unwrap();
        assert_eq!(page.files[0].octets, 3);
        let again = Pictures::open(&settings).unwrap();
        assert_eq!(again.look(&pages[0].name, None, true, 1).unwrap().1.opened_ms, Some(1), "it stays opened");
    }

    #[test]
    fn two_who_open_a_page_at_once_both_see_it() {
        let folder = tempfile::tempdir().unwrap();
        let settings = settings(folder.path());
        let pictures = Pictures::open(&settings).unwrap();
        let pages = pictures.keep(&[file("a", "image/png", b"x")], &of("a", 50), 0).unwrap();
        std::thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| {
                    for page in &pages {
                        assert!(pictures.look(&page.name, None, true, 1).is_ok());
                    }
                });
            }
        });
        assert_eq!(pictures.tally.opened.load(Ordering::Relaxed), 50);
    }

    fn asked(address: SocketAddr, request: &str) -> String {
        let mut stream = StdStream::connect(address).unwrap();
        stream.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
        write!(stream, "{request} HTTP/1.1\r\nHost: box\r\nConnection: close\r\n\r\n").unwrap();
        let mut answer = Vec::new();
        stream.read_to_end(&mut answer).unwrap();
        String::from_utf8_lossy(&answer).into_owned()
    }

    #[test]
    fn a_browser_sees_the_page_and_its_files_and_no_list_of_pages() {
        static NOW_MS: AtomicU64 = AtomicU64::new(1_000_000);
        let folder = tempfile::tempdir().unwrap();
        let pictures = Arc::new(Pictures::open(&settings(folder.path())).unwrap());
        let files = [
            file("<b>cat & dog.jpg", "image/jpeg", b"JPEG"),
            file("evil\r\n.html", "text/html", b"<script>alert(1)</script>"),
        ];
        let page = pictures.keep(&files, &of("a", 1), NOW_MS.load(Ordering::Relaxed)).unwrap().remove(0);
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
        let listener = runtime.block_on(TcpListener::bind("127.0.0.1:0")).unwrap();
        let address = listener.local_addr().unwrap();
        runtime.spawn(serve(listener, Arc::clone(&pictures), || NOW_MS.load(Ordering::Relaxed)));
        let name = &page.name;
        let head = asked(address, &format!("HEAD /p/{name}"));
        assert!(head.starts_with("HTTP/1.1 200") && pictures.tally.opened.load(Ordering::Relaxed) == 0);
        let second = pictures.keep(&files, &of("b", 1), NOW_MS.load(Ordering::Relaxed)).unwrap().remove(0).name;
        let opened = || pictures.tally.opened.load(Ordering::Relaxed);
        assert!(asked(address, &format!("HEAD /p/{second}/0")).starts_with("HTTP/1.1 200") && opened() == 0);
        assert!(asked(address, &format!("GET /p/{second}/2")).starts_with("HTTP/1.1 404") && opened() == 0);
        assert!(asked(address, &format!("GET /p/{second}/0")).ends_with("JPEG"));
        assert_eq!(opened(), 1, "a file opens its page");
        let shown = asked(address, &format!("GET /p/{name}"));
        assert!(shown.contains("&lt;b&gt;cat &amp; dog.jpg</a> (4 B)"), "{shown}");
        assert!(shown.contains("no-store") && shown.contains("nosniff"));
        let picture = asked(address, &format!("GET /p/{name}/0"));
        assert!(picture.contains("content-type: image/jpeg") && picture.ends_with("JPEG"), "{picture}");
        let evil = asked(address, &format!("GET /p/{name}/1"));
        assert!(evil.contains("content-type: application/octet-stream"), "{evil}");
        assert!(evil.contains("attachment; filename=\"evil__.html\""), "{evil}");
        for none in ["/", "/p", "/p/", "/p/../page.json", &format!("/p/{name}/2"), &format!("/p/{name}/page.json")] {
            assert!(asked(address, &format!("GET {none}")).starts_with("HTTP/1.1 404"), "{none}");
        }
        assert!(asked(address, &format!("POST /p/{name}")).starts_with("HTTP/1.1 405"));
        NOW_MS.fetch_add(1_000_000_000, Ordering::Relaxed);
        assert!(asked(address, &format!("GET /p/{name}")).starts_with("HTTP/1.1 410"));
        assert!(asked(address, &format!("GET /p/{second}/0")).starts_with("HTTP/1.1 410"));
        runtime.shutdown_background();
    }
}
