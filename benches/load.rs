//! Whole-program figures: the real binary on loopback, and how much processor time and memory it takes for each thing it does.
//!
//! `make bench`, or `cargo bench --bench load -- [registrations] [bindings]`. Nothing is asserted: a figure is printed with the machine it
//! was taken on. CPU is the server's own (utime + stime of its process, all threads), divided by the operations; the wall rate depends on
//! what else the machine does.
#![allow(clippy::disallowed_methods, clippy::disallowed_types, reason = "a load generator has sockets and a clock")]

use std::collections::HashMap;
use std::fs;
use std::net::{SocketAddr, UdpSocket};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use encamp::gsm::auc::{Auth, Ki};

const FRONT: &str = "127.0.0.1:15064";
const ZONE: &str = "127.0.0.1:15354";
const STATION: &str = "127.0.0.17:15062";
const TRUNK: &str = "127.0.0.33:15060";
const KI: &str = "00112233445566778899aabbccddeeff";
/// Requests under way at a time.
const WINDOW: usize = 64;
/// SIMs that answer a challenge; the others of the memory test have no key.
const KEYED: usize = 10_000;

fn main() {
    let mut numbers = std::env::args().skip(1).filter_map(|argument| argument.parse::<usize>().ok());
    let registrations = numbers.next().unwrap_or(30_000);
    let bindings = numbers.next().unwrap_or(100_000).max(KEYED);
    let folder = tempfile::tempdir().expect("a temporary directory");
    let server = Server::start(folder.path(), bindings);
    machine();
    println!("{:<44} {:>9} {:>12} {:>12}", "", "count", "CPU us each", "wall per s");

    let station = Client::new(STATION, FRONT);
    let resting_kb = server.resident_kb();
    server.measure("registration: challenge, SRES, 2 replicas, sync", registrations, || {
        register(&station, registrations)
    });
    server.measure("registration without a challenge", bindings - KEYED, || register_open(&station, bindings));
    let full_kb = server.resident_kb();
    let trunk = Client::new(TRUNK, FRONT);
    server.measure("INVITE -> 302", registrations, || invite(&trunk, registrations));
    let resolver = Client::new("127.0.0.1:0", ZONE);
    server.measure("DNS: NAPTR of an IMSI, by wildcard", registrations, || naptr(&resolver, registrations));
    println!(
        "\nresident memory: {} MB at rest, {} MB with {bindings} bindings on two replicas each",
        resting_kb / 1024,
        full_kb / 1024
    );
    println!("               ({bindings} provisioned subscribers included in both)");
}

fn machine() {
    let cpu = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let model = cpu
        .lines()
        .find_map(|line| line.strip_prefix("model name"))
        .unwrap_or(" : unknown")
        .trim_start_matches(['\t', ' ', ':']);
    let kernel = fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
    let load = fs::read_to_string("/proc/loadavg").unwrap_or_default();
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
        load.trim()
    );
    println!("built by {}, librocksdb-sys {rocksdb}", rustc.unwrap_or_else(|_| "an unknown rustc".into()));
}

/// The real binary with a configuration of its own.
struct Server {
    child: Child,
}

impl Server {
    fn start(folder: &Path, bindings: usize) -> Server {
        let config: PathBuf = folder.join("encamp.toml");
        let text = format!(
            "domain = \"gsm.example\"\ndata_dir = \"{}\"\n[front]\nlisten = [\"udp:{FRONT}\"]\nbase_stations = [\"127.0.0.16/28\"]\n\
             [[trunk]]\nname = \"pbx\"\naddress = \"{TRUNK}\"\n[zone]\nlisten = [\"udp:{ZONE}\"]\n\
             [[shard]]\nname = \"all\"\nsuffixes = [\"0-9\"]\nreplicas = [\"a\", \"b\"]\n",
            folder.join("data").display()
        );
        fs::write(&config, text).expect("the configuration");
        fs::create_dir_all(folder.join("subscribers.d")).expect("subscribers.d");
        let mut csv = String::from("imsi,msisdn,algorithm,ki\n");
        for n in 0..bindings {
            let (algorithm, ki) = if n < KEYED { ("comp128v1", KI) } else { ("none", "") };
            csv += &format!("{},{},{algorithm},{ki}\n", imsi(n), 100_000 + n);
        }
        fs::write(folder.join("subscribers.d/load.csv"), csv).expect("the subscribers");
        let program = env!("CARGO_BIN_EXE_encamp");
        let log = fs::File::create(folder.join("log")).expect("a log");
        let mut run = Command::new(program);
        run.args(["run", "--config"]).arg(&config);
        let child = run.stdin(Stdio::null()).stdout(Stdio::null()).stderr(log).spawn().expect("encamp starts");
        let server = Server { child };
        let ready = Command::new(program)
            .args(["status", "--wait", "30", "--config"])
            .arg(&config)
            .stdout(Stdio::null())
            .status();
        assert!(
            ready.is_ok_and(|status| status.success()),
            "{}",
            fs::read_to_string(folder.join("log")).unwrap_or_default()
        );
        server
    }

    /// Processor time of the server so far, all threads; in ticks of 10 ms, so runs must be long.
    fn cpu(&self) -> Duration {
        let stat = fs::read_to_string(format!("/proc/{}/stat", self.child.id())).unwrap_or_default();
        let fields: Vec<u64> =
            stat.rsplit(')').next().unwrap_or_default().split(' ').filter_map(|field| field.parse().ok()).collect();
        // After the name and the state letter: utime is the 11th number, stime the 12th.
        Duration::from_millis(10 * (fields[10] + fields[11]))
    }

    fn resident_kb(&self) -> u64 {
        let status = fs::read_to_string(format!("/proc/{}/status", self.child.id())).unwrap_or_default();
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap_or_default();
        line.trim().trim_end_matches(" kB").parse().unwrap_or(0)
    }

    fn measure(&self, what: &str, count: usize, work: impl FnOnce()) {
        let (cpu, wall) = (self.cpu(), Instant::now());
        work();
        let (cpu, wall) = (self.cpu() - cpu, wall.elapsed());
        let each_us = cpu.as_secs_f64() * 1e6 / count as f64;
        println!("{what:<44} {count:>9} {each_us:>12.1} {:>12.0}", count as f64 / wall.as_secs_f64());
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// A socket that keeps a window of requests under way.
struct Client {
    socket: UdpSocket,
    to: SocketAddr,
}

impl Client {
    fn new(own: &str, to: &str) -> Client {
        let socket = UdpSocket::bind(own).expect("an address of loopback");
        socket.set_read_timeout(Some(Duration::from_secs(2))).expect("a timeout");
        Client { socket, to: to.parse().expect("an address") }
    }

    fn send(&self, bytes: &[u8]) {
        self.socket.send_to(bytes, self.to).expect("loopback takes it");
    }

    fn receive<'a>(&self, buffer: &'a mut [u8]) -> &'a [u8] {
        let length = self.socket.recv(buffer).expect("an answer within 2 s");
        &buffer[..length]
    }
}

fn imsi(n: usize) -> String {
    format!("00101{n:010}")
}

fn register_text(n: usize, cseq: usize, authorization: &str) -> String {
    let imsi = imsi(n);
    format!(
        "REGISTER sip:127.0.0.1 SIP/2.0\r\nTo:  <sip:IMSI{imsi}@{FRONT}>\r\nFrom:  <sip:IMSI{imsi}@{FRONT}>;tag=OBTS{cseq:016}\r\n\
         Via: SIP/2.0/UDP {STATION};branch=z9hG4bKOBTS{cseq:016}\r\nCall-ID: 9200ac34758d0f49\r\nCSeq: {cseq} REGISTER\r\n\
         Contact: <sip:IMSI{imsi}@{STATION}>;expires=5400\r\n{authorization}Max-Forwards: 70\r\n\
         P-Preferred-Identity: <sip:IMSI{imsi}@127.0.0.1>\r\n\
         P-PHY-Info: OpenBTS; IMSI=no-MMUser TA=0 TE=0.000000 UpRSSI=-65.000000 TxPwr=33 DnRSSIdBm=-71 time=1795265024.340\r\n\
         P-Access-Network-Info: 3GPP-GERAN; cgi-3gpp=0010103e8000a\r\n\
         User-Agent: OpenBTS 5.0-master Build Date 2026-11-21T11:58:28\r\nContent-Length: 0\r\n\r\n"
    )
}

fn header<'a>(answer: &'a str, name: &str) -> &'a str {
    answer.split("\r\n").find_map(|line| line.strip_prefix(name)).unwrap_or_default().trim()
}

/// Both legs, a window of phones at a time.
fn register(client: &Client, count: usize) {
    let auth = Auth::Comp128v1(Ki::parse(KI).expect("a Ki"));
    let mut buffer = [0; 2000];
    let mut cseq = 1;
    let mut under_way: HashMap<usize, usize> = HashMap::new();
    let (mut begun, mut done) = (0, 0);
    while done < count {
        while begun < count && under_way.len() < WINDOW {
            client.send(register_text(begun % KEYED, cseq, "").as_bytes());
            under_way.insert(cseq, begun % KEYED);
            (begun, cseq) = (begun + 1, cseq + 1);
        }
        let answer = String::from_utf8_lossy(client.receive(&mut buffer)).into_owned();
        let asked: usize =
            header(&answer, "CSeq:").split(' ').next().and_then(|text| text.parse().ok()).expect("a CSeq");
        let Some(n) = under_way.remove(&asked) else { continue };
        if answer.starts_with("SIP/2.0 200") {
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
        client.send(register_text(n, cseq, &authorization).as_bytes());
        under_way.insert(cseq, n);
        cseq += 1;
    }
}

/// SIMs without a key, after those that have one; theirs are bound already.
fn register_open(client: &Client, bindings: usize) {
    windowed(client, bindings - KEYED, |n| register_text(KEYED + n, 10_000_000 + n, "").into_bytes());
}

fn invite(client: &Client, count: usize) {
    windowed(client, count, |n| {
        let number = 100_000 + n % KEYED;
        format!(
            "INVITE sip:{number}@127.0.0.1:15064 SIP/2.0\r\nVia: SIP/2.0/UDP {TRUNK};branch=z9hG4bK{n:016}\r\n\
             From: <sip:pbx@127.0.0.33>;tag={n}\r\nTo: <sip:{number}@127.0.0.1>\r\nCall-ID: {n}@127.0.0.33\r\nCSeq: 1 INVITE\r\n\
             Contact: <sip:pbx@{TRUNK}>\r\nMax-Forwards: 70\r\nContent-Length: 0\r\n\r\n"
        )
        .into_bytes()
    });
}

fn naptr(client: &Client, count: usize) {
    windowed(client, count, |n| {
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
    });
}

/// One request, one answer, a window at a time.
fn windowed(client: &Client, count: usize, request: impl Fn(usize) -> Vec<u8>) {
    let mut buffer = [0; 2000];
    let (mut begun, mut done) = (0, 0);
    while done < count {
        while begun < count && begun - done < WINDOW {
            client.send(&request(begun));
            begun += 1;
        }
        client.receive(&mut buffer);
        done += 1;
    }
}
