//! Whole-program figures: the real binary on loopback, and how much processor time and memory it takes for each thing it does.
//!
//! `make bench`, or `cargo bench --bench load -- [registrations] [bindings]`; `-- backlogs` for its last table alone, `-- mails` for
//! the lines of mail alone. Nothing is
//! asserted: a figure is printed with the machine it was taken on, and with the load average of the minute in which it was taken. CPU is
//! the server's own (utime + stime of its processes, all threads), divided by the operations; the wall rate depends on what else the
//! machine does. Half of the phones are at each of two base stations, which this program plays, as it plays those who write mail and the
//! relay that takes it; Kamailio, where it is unpacked, answers the same INVITEs from its usrloc.
#![allow(clippy::disallowed_methods, clippy::disallowed_types, reason = "a load generator has sockets and a clock")]

use std::collections::{HashMap, HashSet};
use std::fs;
use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::channel;
use std::time::{Duration, Instant};

use encamp::gsm::auc::{Auth, Ki};
use encamp::gsm::rpdu::{Rpdu, to_hex};
use encamp::gsm::text;
use encamp::gsm::tpdu::{Address, Submit};
use encamp::ident::Imsi;

#[path = "../tests/prepared/mod.rs"]
mod prepared;

const FRONT: &str = "127.0.0.1:15064";
const ZONE: &str = "127.0.0.1:15354";
/// Where the phones are that call and write, and where those are that are called and written to.
const STATION: &str = "127.0.0.17:15062";
const OTHER_STATION: &str = "127.0.0.18:15062";
/// Nobody answers there.
const SILENT_STATION: &str = "127.0.0.19:15062";
const TRUNK: &str = "127.0.0.33:15060";
const KAMAILIO: &str = "127.0.0.1:15066";
/// Where the box takes mail, and where it hands mail over.
const MAIL: &str = "127.0.0.1:15025";
const RELAY: &str = "127.0.0.1:15026";
const MAIL_DOMAIN: &str = "sms.gsm.example";
/// Connections that bring mail at a time.
const MAIL_LINES: usize = 16;
/// Mails, one after the other, of which each is followed to its MESSAGE.
const FOLLOWED: usize = 500;
const KI: &str = "00112233445566778899aabbccddeeff";
/// Requests, calls or texts under way at a time.
const WINDOW: usize = 64;
/// SIMs that answer a challenge; the others of the memory test have no key.
const KEYED: usize = 10_000;
/// Phones at the silent base station.
const SILENT: usize = 1_000;
/// Texts of a backlog that are taken before the line is written.
const TAKEN: usize = 100_000;
/// The phone of index n has this number and n more.
const NUMBER: usize = 100_000;
const AGENT: &str = "OpenBTS 5.0-master Build Date 2026-11-21T11:58:28";
/// Nobody takes longer to answer, however busy the disk is.
const PATIENCE: Duration = Duration::from_secs(10);

fn main() {
    if std::env::args().any(|argument| argument == "backlogs") {
        machine();
        return backlogs(&Client::new(OTHER_STATION, FRONT));
    }
    let only_mails = std::env::args().any(|argument| argument == "mails");
    let mut numbers = std::env::args().skip(1).filter_map(|argument| argument.parse::<usize>().ok());
    let registrations = numbers.next().unwrap_or(30_000).max(KEYED);
    let bindings = numbers.next().unwrap_or(100_000).max(2 * KEYED);
    let folder = tempfile::tempdir().expect("a temporary directory");
    let mail = format!(
        "[mail]\nlisten = [\"tcp:{MAIL}\"]\nrelay = \"smtp://{RELAY}\"\nshort_code = \"600\"\nreply_pool = [\"6000-6099\"]\n"
    );
    configure(folder.path(), bindings, KEYED, &mail);
    let encamp = start_encamp(folder.path());
    machine();
    println!("{:<54} {:>7} {:>12} {:>12} {:>6}", "", "count", "CPU us each", "wall per s", "load");

    let (station, other) = (Client::new(STATION, FRONT), Client::new(OTHER_STATION, FRONT));
    let silent = Client::new(SILENT_STATION, FRONT);
    if only_mails {
        register(&station, KEYED);
        register_open(&station, &other, bindings);
        register_at(&silent, SILENT_STATION, bindings - SILENT, SILENT);
        return mails(&encamp, &station, &other, bindings, registrations);
    }
    let resting_kb = encamp.resident_kb();
    encamp.measure("registration: challenge, SRES, 2 replicas, sync", registrations, || {
        register(&station, registrations)
    });
    encamp.measure("registration without a challenge", bindings - KEYED, || register_open(&station, &other, bindings));
    let full_kb = encamp.resident_kb();
    // Fourteen messages each, and more than one sync: a third of the count takes as long.
    let exchanges = registrations / 3;
    encamp.measure("call: INVITE, 100, 180, 200, ACK, BYE, on both legs", exchanges, || {
        with_answers(&other, "BYE", || (exchanges, calls(&station, bindings / 2, exchanges)))
    });
    encamp.measure("text: MESSAGE, 202 after sync, MESSAGE, 200", exchanges, || {
        with_answers(&other, "MESSAGE", || (exchanges, texts(&station, bindings / 2, bindings / 2 - SILENT, exchanges)))
    });
    // Those who are written to are at a base station that says nothing: of each only the first text is looked at again, and few of those.
    register_at(&silent, SILENT_STATION, bindings - SILENT, SILENT);
    encamp.measure("text: MESSAGE, 202 after sync; it waits", registrations, || {
        texts(&station, bindings - SILENT, SILENT, registrations)
    });
    mails(&encamp, &station, &other, bindings, registrations);
    let trunk = Client::new(TRUNK, FRONT);
    encamp.measure("INVITE -> 302", registrations, || invites(&trunk, registrations));
    println!("    {}", call_records(folder.path()));
    match start_kamailio(folder.path()) {
        Err(why) => println!("Kamailio's INVITE -> 302 is not measured: {why}"),
        Ok((kamailio, version)) => {
            let socket = other.socket.try_clone().expect("another descriptor");
            let phones = Client { to: KAMAILIO.parse().expect("an address"), socket };
            register_numbers(&phones, bindings);
            let trunk = Client { to: phones.to, ..trunk };
            let what = format!("INVITE -> 302: {version}, usrloc, 1 worker");
            kamailio.measure(&what, registrations, || invites(&trunk, registrations));
        }
    }
    let resolver = Client::new("127.0.0.1:0", ZONE);
    encamp.measure("DNS: NAPTR of an IMSI, by wildcard", registrations, || naptr(&resolver, registrations));
    println!(
        "\nresident memory: {} MB at rest, {} MB with {bindings} bindings on two replicas each",
        resting_kb / 1024,
        full_kb / 1024
    );
    println!("               ({bindings} provisioned subscribers included in both)");
    drop(encamp);
    backlogs(&other);
}

/// Mail in both directions. The phones of the last thousand are at a base station that says nothing.
fn mails(encamp: &Program, station: &Client, other: &Client, bindings: usize, count: usize) {
    let (far, few) = (bindings / 2, count / 3);
    let mail = |first: usize, phones: usize, n: usize| (n / phones, NUMBER + first + n % phones);
    encamp.measure("mail: 250 after sync; it waits", count, || {
        hand_in(MAIL, count, |n| mail(bindings - SILENT, SILENT, n))
    });
    encamp.measure("mail: 250 after sync, MESSAGE, 200", few, || {
        with_answers(other, "MESSAGE", || (few, hand_in(MAIL, few, |n| mail(far, far - SILENT, count + n))))
    });
    follow_mails(other, far, far - SILENT);
    let sink = Sink::new();
    encamp.measure("text to mail: MESSAGE, 202 after sync, 250 of a relay", few, || {
        let odd = texts_of(station, 500_000_000, few, |n| {
            ("600".into(), format!("carol{}@example.org Hello, are you there? We are waiting.", n % 1_000))
        });
        odd + sink.missing(few - odd)
    });
}

/// What a start finds waiting.
fn backlogs(other: &Client) {
    println!(
        "\na start with texts on the disk: when it serves, the first and the 100 000th are there, in s of wall and of CPU"
    );
    println!(
        "{:<30} {:>13} {:>13} {:>6} {:>14} {:>6} {:>6} {:>6} {:>6} {:>6}",
        "", "no texts", "serves", "first", "100 000th", "list", "MB", "MB", "MB", "load"
    );
    backlog(other, 100_000, 1);
    backlog(other, 10_000, 100);
}

/// A start with so many texts for each of so many phones, all of them bound at this base station, until it has been given [`TAKEN`].
fn backlog(station: &Client, phones: usize, each: usize) {
    let folder = tempfile::tempdir().expect("a temporary directory");
    configure(folder.path(), phones, 0, "[messages]\ncount_max = 10000000\nattempts_per_base_station_max = 64\n");
    let before = start_encamp(folder.path());
    register_at(station, OTHER_STATION, 0, phones);
    drop(before);
    // Once more: what it takes with all that, and no texts.
    let started = Instant::now();
    let empty = start_encamp(folder.path());
    let (empty_serves, empty_cpu, empty_kb) = (started.elapsed(), empty.cpu(), empty.resident_kb());
    drop(empty);
    let imsis: Vec<Imsi> = (0..phones).map(|n| Imsi::parse(&imsi(n)).expect("an IMSI")).collect();
    let words = |_, _| "Hello, are you there? It is half past nine, and we are waiting.".to_owned();
    prepared::fill(&folder.path().join("data/messages"), imsis[0], "100000", &imsis, each, words);
    station.drain();
    let started = Instant::now();
    let (first, all, (encamp, serves, serves_cpu, full_kb, list)) = std::thread::scope(|scope| {
        let taking = scope.spawn(|| take_texts(station, started, TAKEN));
        let encamp = start_encamp(folder.path());
        let (serves, serves_cpu, full_kb) = (started.elapsed(), encamp.cpu(), encamp.resident_kb());
        let list = Instant::now();
        let _ = ask(folder.path(), &["queue", "list"]);
        let list = list.elapsed();
        let (first, all) = taking.join().expect("the base station");
        (first, all, (encamp, serves, serves_cpu, full_kb, list))
    });
    let cpu = encamp.cpu();
    let then_kb = encamp.resident_kb();
    let pair = |wall: Duration, cpu: Duration| format!("{:.2}, {:.2}", wall.as_secs_f64(), cpu.as_secs_f64());
    println!(
        "{:<30} {:>13} {:>13} {:>6.2} {:>14} {:>6.2} {:>6} {:>6} {:>6} {:>6}",
        format!("{} for {phones} phones", phones * each),
        pair(empty_serves, empty_cpu),
        pair(serves, serves_cpu),
        first.as_secs_f64(),
        pair(all, cpu),
        list.as_secs_f64(),
        empty_kb / 1024,
        full_kb / 1024,
        then_kb / 1024,
        load_average()
    );
}

/// When the first text came, and when so many had come; each is answered at once.
fn take_texts(station: &Client, started: Instant, count: usize) -> (Duration, Duration) {
    let mut seen: HashSet<String> = HashSet::new();
    let (mut buffer, mut first) = ([0; 2000], None);
    station.socket.set_read_timeout(Some(Duration::from_secs(60))).expect("a timeout");
    while seen.len() < count {
        let request = String::from_utf8_lossy(station.receive(&mut buffer)).into_owned();
        if !request.starts_with("MESSAGE ") {
            continue;
        }
        first.get_or_insert(started.elapsed());
        answer(station, &request, "MESSAGE");
        seen.insert(header(&request, "Call-ID:").to_owned());
    }
    station.socket.set_read_timeout(Some(PATIENCE)).expect("a timeout");
    (first.unwrap_or_default(), started.elapsed())
}

fn machine() {
    let cpu = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let model = cpu
        .lines()
        .find_map(|line| line.strip_prefix("model name"))
        .unwrap_or(" : unknown")
        .trim_start_matches(['\t', ' ', ':']);
    let kernel = fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
    let rustc = Command::new("rustc")
        .arg("--version")
        .output()
        .map(|output| String::from_utf8_lossy(&output.stdout).trim().to_owned());
    let lock = include_str!("../Cargo.lock");
    let rocksdb = lock
        .split("name = \"librocksdb-sys\"\nversion = \"")
        .nth(1)
        .and_then(|rest| rest.split('"').next())
        .unwrap_or("unknown");
    let cores = std::thread::available_parallelism().map_or(0, usize::from);
    println!(
        "encamp {}, {} cores of {model}, Linux {}, load average {}",
        env!("CARGO_PKG_VERSION"),
        cores,
        kernel.trim(),
        load_average()
    );
    println!("built by {}, librocksdb-sys {rocksdb}", rustc.unwrap_or_else(|_| "an unknown rustc".into()));
}

/// Of the last minute; it counts this program too.
fn load_average() -> String {
    let load = fs::read_to_string("/proc/loadavg").unwrap_or_default();
    load.split(' ').next().unwrap_or_default().to_owned()
}

/// A server that runs until it is dropped.
struct Program {
    child: Child,
}

impl Program {
    /// Processor time so far, all threads of all its processes; in ticks of 10 ms, so runs must be long.
    fn cpu(&self) -> Duration {
        let processes = fs::read_dir("/proc").into_iter().flatten().flatten();
        let pids = processes.filter_map(|entry| entry.file_name().to_str()?.parse::<u32>().ok());
        let ticks = pids.filter_map(|pid| {
            let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
            // After the name and the state letter: the parent is the first number, utime the 11th, stime the 12th. One before them is
            // negative where there is no terminal.
            let fields: Vec<i64> = stat.rsplit(')').next()?.split(' ').filter_map(|field| field.parse().ok()).collect();
            let is_ours = pid == self.child.id() || fields.first() == Some(&i64::from(self.child.id()));
            is_ours.then(|| fields.get(10).zip(fields.get(11)).map_or(0, |(user, system)| user + system))
        });
        Duration::from_millis(10 * ticks.sum::<i64>().unsigned_abs())
    }

    fn resident_kb(&self) -> u64 {
        let status = fs::read_to_string(format!("/proc/{}/status", self.child.id())).unwrap_or_default();
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap_or_default();
        line.trim().trim_end_matches(" kB").parse().unwrap_or(0)
    }

    /// `work` tells how many did not go as they should have.
    fn measure(&self, what: &str, count: usize, work: impl FnOnce() -> usize) {
        let (cpu, wall) = (self.cpu(), Instant::now());
        let odd = work();
        let (cpu, wall) = (self.cpu() - cpu, wall.elapsed());
        let each_us = cpu.as_secs_f64() * 1e6 / count as f64;
        let per_s = count as f64 / wall.as_secs_f64();
        print!("{what:<54} {count:>7} {each_us:>12.1} {per_s:>12.0} {:>6}", load_average());
        println!("{}", if odd > 0 { format!("  {odd} of them went otherwise") } else { String::new() });
    }
}

impl Drop for Program {
    fn drop(&mut self) {
        // Kamailio's processes end with their parent if that is told to; it must not outlive this program either way.
        let pid = self.child.id().to_string();
        let _ = Command::new("kill").arg(&pid).status();
        for _ in 0..30 {
            if self.child.try_wait().is_ok_and(|status| status.is_some()) {
                return;
            }
            std::thread::sleep(Duration::from_millis(100));
        }
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// A configuration of its own, and its subscribers, so many of them with a key. `more`: other sections.
fn configure(folder: &Path, bindings: usize, keyed: usize, more: &str) {
    let text = format!(
        "domain = \"gsm.example\"\ndata_dir = \"{}\"\n[front]\nlisten = [\"udp:{FRONT}\"]\nbase_stations = [\"127.0.0.16/28\"]\n\
         {more}[[trunk]]\nname = \"pbx\"\naddress = \"{TRUNK}\"\n[zone]\nlisten = [\"udp:{ZONE}\"]\n\
         [[shard]]\nname = \"all\"\nsuffixes = [\"0-9\"]\nreplicas = [\"a\", \"b\"]\n",
        folder.join("data").display()
    );
    fs::write(folder.join("encamp.toml"), text).expect("the configuration");
    fs::create_dir_all(folder.join("subscribers.d")).expect("subscribers.d");
    let mut csv = String::from("imsi,msisdn,algorithm,ki\n");
    for n in 0..bindings {
        let (algorithm, ki) = if n < keyed { ("comp128v1", KI) } else { ("none", "") };
        csv += &format!("{},{},{algorithm},{ki}\n", imsi(n), NUMBER + n);
    }
    fs::write(folder.join("subscribers.d/load.csv"), csv).expect("the subscribers");
}

/// The real binary with the configuration in this folder, when it serves.
fn start_encamp(folder: &Path) -> Program {
    let config: PathBuf = folder.join("encamp.toml");
    let program = env!("CARGO_BIN_EXE_encamp");
    let log = fs::File::create(folder.join("log")).expect("a log");
    let mut run = Command::new(program);
    run.args(["run", "--config"]).arg(&config);
    let child = run.stdin(Stdio::null()).stdout(Stdio::null()).stderr(log).spawn().expect("encamp starts");
    let server = Program { child };
    let ready =
        Command::new(program).args(["status", "--wait", "30", "--config"]).arg(&config).stdout(Stdio::null()).status();
    assert!(
        ready.is_ok_and(|status| status.success()),
        "{}",
        fs::read_to_string(folder.join("log")).unwrap_or_default()
    );
    server
}

/// What a command of the box in this folder prints.
fn ask(folder: &Path, words: &[&str]) -> String {
    let mut command = Command::new(env!("CARGO_BIN_EXE_encamp"));
    let answer = command.args(words).arg("--config").arg(folder.join("encamp.toml")).output();
    answer.map_or(String::new(), |output| String::from_utf8_lossy(&output.stdout).into_owned())
}

/// Calls and redirects are recorded in a file; those that were lost have cost less than they should have.
fn call_records(folder: &Path) -> String {
    let answer = ask(folder, &["status", "--json"]);
    let count = |name: &str| {
        let behind =
            answer.split_once(&format!("\"call_records_{name}\":")).map_or("", |(_, behind)| behind).trim_start();
        behind
            .split(|char: char| !char.is_ascii_digit())
            .next()
            .filter(|digits| !digits.is_empty())
            .unwrap_or("?")
            .to_owned()
    };
    format!("(call records so far: {} written, {} lost)", count("written"), count("lost"))
}

/// Kamailio as a redirecting registrar that keeps its bindings in memory and nothing on a disk, and its version; or why it is not there.
fn start_kamailio(folder: &Path) -> Result<(Program, String), String> {
    let peers = std::env::var("ENCAMP_PEERS").unwrap_or(concat!(env!("CARGO_MANIFEST_DIR"), "/target/peers").into());
    let program = Path::new(&peers).join("bin/kamailio");
    let version = Command::new(&program).arg("-v").output();
    let version = version.map_err(|_| format!("there is no {}; `make peers` unpacks it there", program.display()))?;
    let version = String::from_utf8_lossy(&version.stdout).into_owned();
    let version = version.split(' ').skip_while(|word| *word != "kamailio").nth(1).unwrap_or("of an unknown version");
    let libraries = fs::read_dir(Path::new(&peers).join("usr/lib")).into_iter().flatten().flatten();
    let modules = libraries.map(|entry| entry.path().join("kamailio/modules")).find(|path| path.is_dir());
    let modules = modules.ok_or(format!("its modules are not below {peers}; `make peers` unpacks them there"))?;
    let modules = modules.display();
    // One worker, nothing logged, no check but that of Max-Forwards: all that it takes, and no more.
    let text = format!(
        "debug=0\nlog_stderror=yes\nfork=yes\nchildren=1\ndisable_tcp=yes\nauto_aliases=no\nlisten=udp:{KAMAILIO}\nmpath=\"{modules}/\"\n\
         loadmodule \"pv.so\"\nloadmodule \"sl.so\"\nloadmodule \"maxfwd.so\"\nloadmodule \"textops.so\"\nloadmodule \"siputils.so\"\n\
         loadmodule \"usrloc.so\"\nloadmodule \"registrar.so\"\nmodparam(\"usrloc\", \"db_mode\", 0)\nmodparam(\"usrloc\", \"hash_size\", 14)\n\
         modparam(\"registrar\", \"max_expires\", 86400)\n\
         request_route {{\n\
         if (!mf_process_maxfwd_header(\"10\")) {{ sl_send_reply(\"483\", \"Too Many Hops\"); exit; }}\n\
         if (is_method(\"REGISTER\")) {{ save(\"location\"); exit; }}\n\
         if (is_method(\"OPTIONS\")) {{ sl_send_reply(\"200\", \"OK\"); exit; }}\n\
         if (!is_method(\"INVITE\")) exit;\n\
         if (!lookup(\"location\")) {{ sl_send_reply(\"404\", \"Not Found\"); exit; }}\n\
         sl_send_reply(\"302\", \"Moved Temporarily\");\n}}\n"
    );
    let directory = folder.join("kamailio");
    fs::create_dir(&directory).expect("a directory");
    let config = directory.join("kamailio.cfg");
    fs::write(&config, text).expect("its configuration");
    let log = fs::File::create(directory.join("log")).expect("a log");
    let mut run = Command::new(&program);
    run.args(["-DD", "-E", "-m", "512", "-f"]).arg(&config).arg("-Y").arg(&directory).arg("-w").arg(&directory);
    let own_log = log.try_clone().expect("a log");
    let child = run.stdin(Stdio::null()).stdout(own_log).stderr(log).spawn();
    let mut kamailio = Program { child: child.map_err(|error| error.to_string())? };
    let asking = Client::new("127.0.0.1:0", KAMAILIO);
    asking.socket.set_read_timeout(Some(Duration::from_millis(100))).expect("a timeout");
    let own = asking.socket.local_addr().expect("its own address");
    for n in 0..100 {
        asking.send(
            format!(
                "OPTIONS sip:{KAMAILIO} SIP/2.0\r\nVia: SIP/2.0/UDP {own};branch=z9hG4bK{n}\r\nFrom: <sip:{own}>;tag={n}\r\n\
                 To: <sip:{KAMAILIO}>\r\nCall-ID: {n}\r\nCSeq: {n} OPTIONS\r\nMax-Forwards: 70\r\nContent-Length: 0\r\n\r\n"
            )
            .as_bytes(),
        );
        if asking.socket.recv(&mut [0; 2000]).is_ok() {
            return Ok((kamailio, format!("Kamailio {version}")));
        }
        if kamailio.child.try_wait().is_ok_and(|status| status.is_some()) {
            break;
        }
        std::thread::sleep(Duration::from_millis(100));
    }
    Err(format!("it does not listen:\n{}", fs::read_to_string(directory.join("log")).unwrap_or_default()))
}

/// A socket that keeps a window of requests under way.
struct Client {
    socket: UdpSocket,
    to: SocketAddr,
}

impl Client {
    fn new(own: &str, to: &str) -> Client {
        let socket = UdpSocket::bind(own).expect("an address of loopback");
        socket.set_read_timeout(Some(PATIENCE)).expect("a timeout");
        Client { socket, to: to.parse().expect("an address") }
    }

    fn send(&self, bytes: &[u8]) {
        self.socket.send_to(bytes, self.to).expect("loopback takes it");
    }

    /// Forgets copies of answers that came too late to be waited for.
    fn drain(&self) {
        self.socket.set_nonblocking(true).expect("a flag");
        while self.socket.recv(&mut [0; 2000]).is_ok() {}
        self.socket.set_nonblocking(false).expect("a flag");
    }

    fn receive<'a>(&self, buffer: &'a mut [u8]) -> &'a [u8] {
        let length = self.socket.recv(buffer).expect("an answer in time");
        &buffer[..length]
    }
}

fn imsi(n: usize) -> String {
    format!("00101{n:010}")
}

fn register_text(station: &str, n: usize, cseq: usize, authorization: &str) -> String {
    let imsi = imsi(n);
    format!(
        "REGISTER sip:127.0.0.1 SIP/2.0\r\nTo:  <sip:IMSI{imsi}@{FRONT}>\r\nFrom:  <sip:IMSI{imsi}@{FRONT}>;tag=OBTS{cseq:016}\r\n\
         Via: SIP/2.0/UDP {station};branch=z9hG4bKOBTS{cseq:016}\r\nCall-ID: 9200ac34758d0f49\r\nCSeq: {cseq} REGISTER\r\n\
         Contact: <sip:IMSI{imsi}@{station}>;expires=5400\r\n{authorization}Max-Forwards: 70\r\n\
         P-Preferred-Identity: <sip:IMSI{imsi}@127.0.0.1>\r\n\
         P-PHY-Info: OpenBTS; IMSI=no-MMUser TA=0 TE=0.000000 UpRSSI=-65.000000 TxPwr=33 DnRSSIdBm=-71 time=1795265024.340\r\n\
         P-Access-Network-Info: 3GPP-GERAN; cgi-3gpp=0010103e8000a\r\n\
         User-Agent: {AGENT}\r\nContent-Length: 0\r\n\r\n"
    )
}

fn header<'a>(answer: &'a str, name: &str) -> &'a str {
    answer.split("\r\n").find_map(|line| line.strip_prefix(name)).unwrap_or_default().trim()
}

/// The number and the method.
fn cseq(message: &str) -> (usize, &str) {
    let (number, method) = header(message, "CSeq:").split_once(' ').expect("a CSeq");
    (number.parse().expect("a number"), method)
}

/// Both requests, a window of phones at a time.
fn register(client: &Client, count: usize) -> usize {
    let auth = Auth::Comp128v1(Ki::parse(KI).expect("a Ki"));
    let mut buffer = [0; 2000];
    let mut cseq = 1;
    let mut under_way: HashMap<usize, usize> = HashMap::new();
    let (mut begun, mut done, mut odd) = (0, 0, 0);
    while done < count {
        while begun < count && under_way.len() < WINDOW {
            client.send(register_text(STATION, begun % KEYED, cseq, "").as_bytes());
            under_way.insert(cseq, begun % KEYED);
            (begun, cseq) = (begun + 1, cseq + 1);
        }
        let answer = String::from_utf8_lossy(client.receive(&mut buffer)).into_owned();
        let Some(n) = under_way.remove(&self::cseq(&answer).0) else { continue };
        if !answer.starts_with("SIP/2.0 401") {
            odd += usize::from(!answer.starts_with("SIP/2.0 200"));
            done += 1;
            continue;
        }
        let nonce = header(&answer, "WWW-Authenticate: Digest nonce=");
        let mut rand = [0; 16];
        for (at, byte) in rand.iter_mut().enumerate() {
            *byte = u8::from_str_radix(&nonce[at * 2..at * 2 + 2], 16).expect("a challenge");
        }
        let sres = auth.vector(rand).expect("a key").sres.hex();
        let imsi = imsi(n);
        let authorization = format!("Authorization: Digest nonce=\"{nonce}\", uri=\"{imsi}\", response=\"{sres}\"\r\n");
        client.send(register_text(STATION, n, cseq, &authorization).as_bytes());
        under_way.insert(cseq, n);
        cseq += 1;
    }
    odd
}

/// SIMs without a key, after those that have one; theirs are bound already. The second half of all is at the other base station.
fn register_open(here: &Client, there: &Client, bindings: usize) -> usize {
    let half = bindings / 2;
    let text = |station, n| register_text(station, n, 10_000_000 + n, "").into_bytes();
    windowed(here, half - KEYED, &["SIP/2.0 200"], |n| text(STATION, KEYED + n))
        + windowed(there, bindings - half, &["SIP/2.0 200"], |n| text(OTHER_STATION, half + n))
}

/// So many phones, this one and those behind it, come to this base station; they need no key, or are known.
fn register_at(client: &Client, station: &str, first: usize, count: usize) -> usize {
    windowed(client, count, &["SIP/2.0 200"], |n| {
        register_text(station, first + n, 20_000_000 + first + n, "").into_bytes()
    })
}

/// The same bindings as the box has them, by number, for a registrar that knows no subscribers.
fn register_numbers(client: &Client, bindings: usize) -> usize {
    windowed(client, bindings, &["SIP/2.0 200"], |n| {
        let (number, imsi) = (NUMBER + n, imsi(n));
        let station = if n < bindings / 2 { STATION } else { OTHER_STATION };
        format!(
            "REGISTER sip:127.0.0.1 SIP/2.0\r\nTo: <sip:{number}@127.0.0.1>\r\nFrom: <sip:{number}@127.0.0.1>;tag={n}\r\n\
             Via: SIP/2.0/UDP {OTHER_STATION};branch=z9hG4bK{n:016}\r\nCall-ID: {n}@127.0.0.18\r\nCSeq: 1 REGISTER\r\n\
             Contact: <sip:IMSI{imsi}@{station}>;expires=5400\r\nMax-Forwards: 70\r\nContent-Length: 0\r\n\r\n"
        )
        .into_bytes()
    })
}

/// Calls of a trunk; it sends no ACK, and neither server repeats its answer.
fn invites(client: &Client, count: usize) -> usize {
    let contact = format!("@{STATION}>");
    windowed(client, count, &["SIP/2.0 302", &contact], |n| {
        let number = NUMBER + n % KEYED;
        format!(
            "INVITE sip:{number}@{} SIP/2.0\r\nVia: SIP/2.0/UDP {TRUNK};branch=z9hG4bK{n:016}\r\n\
             From: <sip:pbx@127.0.0.33>;tag={n}\r\nTo: <sip:{number}@127.0.0.1>\r\nCall-ID: {n}@127.0.0.33\r\nCSeq: 1 INVITE\r\n\
             Contact: <sip:pbx@{TRUNK}>\r\nMax-Forwards: 70\r\nContent-Length: 0\r\n\r\n",
            client.to
        )
        .into_bytes()
    })
}

/// A request of an OpenBTS for its phone of index `n`, up to what is special to it. Its dialogs are told apart by `dialog`; it counts
/// one CSeq for all of them.
fn station_text(start: &str, to: &str, n: usize, dialog: usize, cseq: usize) -> String {
    let (imsi, method) = (imsi(n), start.split(' ').next().unwrap_or_default());
    format!(
        "{start} SIP/2.0\r\nTo:  {to}\r\nFrom:  <sip:IMSI{imsi}@{STATION}>;tag=OBTS{dialog:016}\r\n\
         Via: SIP/2.0/UDP {STATION};branch=z9hG4bKOBTS{cseq:016}\r\nCall-ID: {dialog:016x}\r\nCSeq: {cseq} {method}\r\n\
         Contact: <sip:IMSI{imsi}@{STATION}>;expires=3600\r\nMax-Forwards: 70\r\nUser-Agent: {AGENT}\r\n"
    )
}

fn sdp(rtp_port: u16) -> String {
    let body = format!(
        "v=0\r\no=IMSI001010000000001 0 0 IN IP4 127.0.0.1\r\ns=Talk Time\r\nt=0 0\r\nm=audio {rtp_port} RTP/AVP 3\r\n\
         c=IN IP4 127.0.0.1\r\na=rtpmap:3 GSM/8000\r\n"
    );
    format!("Content-Type: application/sdp\r\nContent-Length: {}\r\n\r\n{body}", body.len())
}

/// Phones of the first half call those of the second, who answer at once and are hung up on at once.
fn calls(client: &Client, phones: usize, count: usize) -> usize {
    let mut buffer = [0; 2000];
    // What each call waits for: an answer to its INVITE, to its BYE, nothing.
    let mut waits = vec!["INVITE"; count];
    let (mut begun, mut done, mut odd) = (0, 0, 0);
    let request = |method: &str, to: &str, n: usize, cseq: usize| {
        let number = NUMBER + phones + n % phones;
        station_text(&format!("{method} sip:{number}@{FRONT}"), to, n % phones, n, cseq)
    };
    while done < count {
        while begun < count && begun - done < WINDOW {
            let to = format!("<sip:{}@127.0.0.17>", NUMBER + phones + begun % phones);
            let invite = request("INVITE", &to, begun, 2 * begun)
                + "P-Access-Network-Info: 3GPP-GERAN; cgi-3gpp=0010103e8000a\r\n"
                + &sdp(16_494);
            client.send(invite.as_bytes());
            begun += 1;
        }
        let answer = String::from_utf8_lossy(client.receive(&mut buffer)).into_owned();
        let (number, method) = cseq(&answer);
        let n = number / 2;
        if answer.starts_with("SIP/2.0 1") || waits.get(n) != Some(&method) {
            continue;
        }
        let is_good = answer.starts_with("SIP/2.0 200");
        odd += usize::from(!is_good);
        let to = header(&answer, "To:");
        if method == "INVITE" {
            // With the number of its INVITE (wire.md 3.2).
            client.send((request("ACK", to, n, 2 * n) + "Content-Length: 0\r\n\r\n").as_bytes());
        }
        if method == "INVITE" && is_good {
            let reason = "Reason: Q.850;cause=16 ;text=\"Normal_Call_Clearing\"\r\nContent-Length: 0\r\n\r\n";
            client.send((request("BYE", to, n, 2 * n + 1) + reason).as_bytes());
            waits[n] = "BYE";
        } else {
            waits[n] = "";
            done += 1;
        }
    }
    odd
}

/// Phones of the first half write to `phones` others, those behind `first`: one text each, as long as there are enough of them.
fn texts(client: &Client, first: usize, phones: usize, count: usize) -> usize {
    texts_of(client, 1_000 * first, count, |n| {
        let number = NUMBER + first + n % phones;
        (number.to_string(), "Hello, are you there? It is half past nine, and we are waiting.".into())
    })
}

/// The same, to whichever number and in whichever words. `first`: the first CSeq.
fn texts_of(client: &Client, first: usize, count: usize, text: impl Fn(usize) -> (String, String)) -> usize {
    windowed(client, count, &["SIP/2.0 202"], |n| {
        let (number, words) = text(n);
        let submit = Submit {
            reference: n as u8,
            destination: Address::parse(&number).expect("a number"),
            protocol: 0,
            reject_duplicates: false,
            report_wanted: false,
            reply_path: false,
            validity: None,
            data: text::encode(&words).expect("a short text"),
        };
        let tpdu = submit.encode();
        let centre = Address::parse("0000").ok();
        let rpdu = Rpdu::DataFromPhone { reference: n as u8, originator: None, destination: centre, tpdu: &tpdu };
        let body = to_hex(&rpdu.encode().expect("a short one"));
        let start = format!("MESSAGE sip:smsc@{FRONT}");
        let cseq = first + n;
        let head = station_text(&start, "<sip:smsc@127.0.0.17>", n % KEYED, 1_000_000_000 + cseq, cseq);
        let kind = "Content-Type: application/vnd.3gpp.sms";
        format!("{head}{kind}\r\nContent-Length: {}\r\n\r\n{body}", body.len()).into_bytes()
    })
}

// --- Mail ---

/// One connection that brings mail; what may be sent without waiting goes in one piece (RFC 2920).
struct MailLine {
    stream: TcpStream,
    answers: BufReader<TcpStream>,
}

impl MailLine {
    fn new(server: &str) -> MailLine {
        let stream = TcpStream::connect(server).expect("a mail server");
        stream.set_read_timeout(Some(PATIENCE)).expect("a timeout");
        stream.set_nodelay(true).expect("a flag");
        let answers = BufReader::new(stream.try_clone().expect("another descriptor"));
        let mut line = MailLine { stream, answers };
        line.is_answered(220);
        line.say("EHLO client.example\r\n");
        line.is_answered(250);
        line
    }

    fn say(&mut self, text: &str) {
        self.stream.write_all(text.as_bytes()).expect("loopback takes it");
    }

    /// Whether the next answer has this code.
    fn is_answered(&mut self, code: u16) -> bool {
        loop {
            let mut line = String::new();
            self.answers.read_line(&mut line).expect("an answer in time");
            if line.as_bytes().get(3) != Some(&b'-') {
                return line.starts_with(&code.to_string());
            }
        }
    }

    /// The envelope, up to DATA.
    fn envelope((from, to): (usize, usize)) -> String {
        format!("MAIL FROM:<carol{from}@example.org>\r\nRCPT TO:<{to}@{MAIL_DOMAIN}>\r\nDATA\r\n")
    }

    fn is_let_in(&mut self) -> bool {
        let answers = [250, 250, 354].map(|code| self.is_answered(code));
        answers == [true; 3]
    }

    /// A small mail, and its end.
    fn mail(id: usize, (from, to): (usize, usize)) -> String {
        format!(
            "From: Carol <carol{from}@example.org>\r\nTo: <{to}@{MAIL_DOMAIN}>\r\nDate: Sun, 01 Nov 2026 12:00:00 +0000\r\n\
             Message-ID: <{id}.{from}.{to}@mail.example.org>\r\nSubject: Hello\r\n\r\n\
             Hello, are you there? It is half past nine, and we are waiting.\r\n.\r\n"
        )
    }
}

/// So many mails over [`MAIL_LINES`] connections, each with the number of its sender and that of its phone; the next envelope goes with the
/// end of each mail. How many were not taken.
fn hand_in(server: &str, count: usize, mail: impl Fn(usize) -> (usize, usize) + Sync) -> usize {
    std::thread::scope(|scope| {
        let mail = &mail;
        let lines = (0..MAIL_LINES).map(|first| {
            scope.spawn(move || {
                let mut line = MailLine::new(server);
                let mut own = (first..count).step_by(MAIL_LINES).peekable();
                let mut odd = 0;
                if let Some(n) = own.peek() {
                    line.say(&MailLine::envelope(mail(*n)));
                    odd += usize::from(!line.is_let_in());
                }
                while let Some(n) = own.next() {
                    let next = own.peek().map(|n| MailLine::envelope(mail(*n)));
                    line.say(&(MailLine::mail(n, mail(n)) + next.as_deref().unwrap_or("QUIT\r\n")));
                    odd += usize::from(!line.is_answered(250));
                    odd += usize::from(next.is_some() && !line.is_let_in());
                }
                odd
            })
        });
        let lines: Vec<_> = lines.collect();
        lines.into_iter().map(|line| line.join().expect("a connection")).sum()
    })
}

/// One mail after the other, nothing else under way: how long from the end of a mail until its 250 and until its MESSAGE. Both stand on the
/// same sync.
fn follow_mails(other: &Client, first: usize, phones: usize) {
    other.drain();
    let (kept, brought) = std::thread::scope(|scope| {
        let (tell, told) = channel();
        scope.spawn(move || {
            let mut buffer = [0; 2000];
            for _ in 0..FOLLOWED {
                let request = loop {
                    let request = String::from_utf8_lossy(other.receive(&mut buffer)).into_owned();
                    if request.starts_with("MESSAGE ") {
                        break request;
                    }
                };
                let at = Instant::now();
                answer(other, &request, "MESSAGE");
                tell.send(at).expect("somebody who counts");
            }
        });
        let mut line = MailLine::new(MAIL);
        let (mut kept, mut brought) = (Vec::new(), Vec::new());
        for n in 0..FOLLOWED {
            let who = (1_000_000 + n, NUMBER + first + n % phones);
            line.say(&MailLine::envelope(who));
            line.is_let_in();
            let said = Instant::now();
            line.say(&MailLine::mail(n, who));
            line.is_answered(250);
            kept.push(said.elapsed());
            brought.push(told.recv_timeout(PATIENCE).expect("a MESSAGE in time") - said);
        }
        (kept, brought)
    });
    let shown = |mut times: Vec<Duration>| {
        times.sort();
        let at = |percent: usize| times[times.len() * percent / 100].as_secs_f64() * 1e3;
        format!("{:.2} ms (1 of 100 over {:.1} ms)", at(50), at(99))
    };
    println!("    one at a time, from its end: 250 after {}, MESSAGE after {}", shown(kept), shown(brought));
}

/// A relay that takes every mail and keeps none.
struct Sink {
    taken: Arc<AtomicUsize>,
}

impl Sink {
    fn new() -> Sink {
        let listener = TcpListener::bind(RELAY).expect("an address of loopback");
        let taken = Arc::<AtomicUsize>::default();
        let count = Arc::clone(&taken);
        // Both end with this program.
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let count = Arc::clone(&count);
                std::thread::spawn(move || sink(stream, &count));
            }
        });
        Sink { taken }
    }

    /// Waits until so many mails have come, or no more do; how many are missing.
    fn missing(&self, count: usize) -> usize {
        let (mut had, mut since) = (0, Instant::now());
        loop {
            let has = self.taken.load(Ordering::Relaxed);
            if has >= count || since.elapsed() > PATIENCE {
                return count.saturating_sub(has);
            }
            if has != had {
                (had, since) = (has, Instant::now());
            }
            std::thread::sleep(Duration::from_millis(1));
        }
    }
}

fn sink(mut stream: TcpStream, count: &AtomicUsize) {
    let mut answer = "220 relay ESMTP\r\n";
    let (mut octets, mut had) = ([0; 16 * 1024], Vec::new());
    let mut is_mail = false;
    while stream.write_all(answer.as_bytes()).is_ok() {
        let end: &[u8] = if is_mail { b"\r\n.\r\n" } else { b"\r\n" };
        while !had.ends_with(end) {
            match stream.read(&mut octets) {
                Ok(length @ 1..) => had.extend_from_slice(&octets[..length]),
                _ => return,
            }
        }
        answer = match had.get(..4) {
            _ if is_mail => {
                count.fetch_add(1, Ordering::Relaxed);
                "250 2.0.0 kept\r\n"
            }
            Some(b"EHLO") => "250-relay\r\n250-8BITMIME\r\n250-PIPELINING\r\n250 DSN\r\n",
            Some(b"DATA") => "354 go on\r\n",
            _ => "250 2.0.0 go on\r\n",
        };
        is_mail = answer.starts_with("354");
        had.clear();
    }
}

/// The other base station while `work` is done: its phones take every call and every text. What has come to its end there with a request
/// of this method counts; what is missing went otherwise, too.
fn with_answers(client: &Client, last: &str, work: impl FnOnce() -> (usize, usize)) -> usize {
    const UNKNOWN: usize = usize::MAX;
    let expected = AtomicUsize::new(UNKNOWN);
    std::thread::scope(|scope| {
        let answering = scope.spawn(|| {
            let mut buffer = [0; 2000];
            let mut ended: HashSet<String> = HashSet::new();
            let mut silent = Instant::now();
            client.socket.set_read_timeout(Some(Duration::from_millis(100))).expect("a timeout");
            while ended.len() < expected.load(Ordering::Relaxed) {
                let Ok(length) = client.socket.recv(&mut buffer) else {
                    if expected.load(Ordering::Relaxed) != UNKNOWN && silent.elapsed() > PATIENCE {
                        break;
                    }
                    continue;
                };
                silent = Instant::now();
                let request = String::from_utf8_lossy(&buffer[..length]).into_owned();
                let (_, method) = cseq(&request);
                if method == last {
                    ended.insert(header(&request, "Call-ID:").to_owned());
                }
                answer(client, &request, method);
            }
            client.socket.set_read_timeout(Some(PATIENCE)).expect("a timeout");
            ended.len()
        });
        let (count, odd) = work();
        expected.store(count - odd, Ordering::Relaxed);
        let ended = answering.join().expect("the other base station");
        count - ended.min(count)
    })
}

/// What an OpenBTS answers, without anything between: its phone has been paged, rings and is picked up at once.
fn answer(client: &Client, request: &str, method: &str) {
    let answers: &[&str] = match method {
        "INVITE" => &["100 Trying", "180 Ringing", "200 OK"],
        "ACK" => &[],
        _ => &["200 OK"],
    };
    let vias = request.split("\r\n").filter(|line| line.starts_with("Via:"));
    let vias: String = vias.map(|line| format!("{line}\r\n")).collect();
    let [from, to, call_id] = ["From:", "To:", "Call-ID:"].map(|name| header(request, name));
    // The dialog's own tag is there from the beginning; in a request inside of it, it stands there already.
    let tag = if to.contains(";tag=") { String::new() } else { format!(";tag=OBTS{call_id}") };
    for status in answers {
        let contact = format!("Contact: <sip:{OTHER_STATION}>;expires=3600\r\n");
        let body = match *status {
            "200 OK" if method == "INVITE" => contact + &sdp(16_496),
            _ => contact + "Content-Length: 0\r\n\r\n",
        };
        let cseq = header(request, "CSeq:");
        let text = format!(
            "SIP/2.0 {status}\r\n{vias}From: {from}\r\nTo: {to}{tag}\r\nCall-ID: {call_id}\r\nCSeq: {cseq}\r\n\
             User-Agent: {AGENT}\r\n{body}"
        );
        client.send(text.as_bytes());
    }
}

fn naptr(client: &Client, count: usize) -> usize {
    windowed(client, count, &["gsm"], |n| {
        let mut packet = vec![(n >> 8) as u8, n as u8, 1, 0, 0, 1, 0, 0, 0, 0, 0, 0];
        let imsi = imsi(n % KEYED);
        let name = imsi
            .bytes()
            .map(|digit| vec![digit])
            .chain(["imsi", "gsm", "example"].map(|label| label.as_bytes().to_vec()));
        for label in name {
            packet.push(label.len() as u8);
            packet.extend(label);
        }
        packet.extend([0, 0, 35, 0, 1]);
        packet
    })
}

/// One request, one answer, a window at a time. How many answers do not have all of these in them.
fn windowed(client: &Client, count: usize, parts: &[&str], request: impl Fn(usize) -> Vec<u8>) -> usize {
    client.drain();
    let mut buffer = [0; 2000];
    let (mut begun, mut done, mut odd) = (0, 0, 0);
    while done < count {
        while begun < count && begun - done < WINDOW {
            client.send(&request(begun));
            begun += 1;
        }
        let answer = client.receive(&mut buffer);
        let has = |part: &&str| answer.windows(part.len()).any(|bytes| bytes == part.as_bytes());
        odd += usize::from(!parts.iter().all(has));
        done += 1;
    }
    odd
}
