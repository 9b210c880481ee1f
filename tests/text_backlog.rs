//! A start with a hundred thousand texts on the disk: each phone that is registered gets all of its own, in order and each once; those
//! of the others wait.
//!
//! The messages' store is written with the crate, the real binary is started on it, and this test is the base station. The processor
//! time that it takes, and its memory, are what `make bench` looks at.
#![cfg(feature = "box")]
#![allow(clippy::disallowed_methods, clippy::disallowed_types)] // a test of the whole program touches the world

use std::collections::{BTreeMap, HashSet};
use std::net::UdpSocket;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use encamp::gsm::rpdu::{Rpdu, from_hex};
use encamp::gsm::text;
use encamp::gsm::tpdu::Deliver;
use encamp::ident::Imsi;

mod prepared;

const PHONES: usize = 2_000;
/// The others are never seen.
const REGISTERED: usize = 1_000;
const EACH: usize = 50;
/// Loopback addresses of this test alone.
const BOX: &str = "127.0.0.113";
const STATION: &str = "127.0.0.114";
const PORT: u16 = 5062;
const AGENT: &str = "OpenBTS 5.0-master Build Date 2026-11-21T11:58:28";
/// Nothing is silent for so long, however busy the machine is: an attempt whose answer is lost takes 30 s and a pause.
const PATIENCE: Duration = Duration::from_secs(90);

/// Killed when the test ends, however it ends.
struct Running(Child);

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[test]
fn a_hundred_thousand_texts_on_the_disk_are_taken_up_again_and_none_is_lost() {
    let directory = tempfile::tempdir().unwrap();
    let config = directory.path().join("encamp.toml");
    let data = directory.path().join("data");
    let station = UdpSocket::bind((STATION, 0)).unwrap();
    station.set_read_timeout(Some(PATIENCE)).unwrap();
    std::fs::write(
        &config,
        format!(
            "domain = \"gsm.example\"\ndata_dir = \"{}\"\n[front]\nlisten = [\"udp:{BOX}:{PORT}\"]\nbase_stations = [\"{STATION}\"]\n\
             [zone]\nlisten = [\"udp:{BOX}:5354\"]\n[messages]\ncount_max = 200000\n\
             [[shard]]\nname = \"all\"\nsuffixes = [\"0-9\"]\nreplicas = [\"a\", \"b\"]\n",
            data.display()
        ),
    )
    .unwrap();
    let subscribers = directory.path().join("subscribers.d");
    std::fs::create_dir(&subscribers).unwrap();
    let lines: Vec<String> = (0..PHONES).map(|n| format!("{},{},none,\n", imsi(n), 7_000_000 + n)).collect();
    std::fs::write(subscribers.join("all.csv"), format!("imsi,msisdn,algorithm,ki\n{}", lines.concat())).unwrap();

    let before = start(&config);
    register(&station);
    drop(before);
    let phones: Vec<Imsi> = (0..PHONES).map(imsi).collect();
    prepared::fill(&data.join("messages"), imsi(0), "7000000", &phones, EACH, words);

    let _running = start(&config);
    let got = take_texts(&station);
    for phone in 0..REGISTERED {
        let expected: Vec<String> = (0..EACH).map(|round| words(phone, round)).collect();
        assert_eq!(got[&imsi(phone)], expected, "phone {phone}");
    }
    assert_eq!(got.len(), REGISTERED);
    // The box has read the last answers when it says so.
    let since = Instant::now();
    while texts_waiting(&config) != (PHONES - REGISTERED) * EACH {
        assert!(since.elapsed() < PATIENCE, "{} texts wait after all", texts_waiting(&config));
        std::thread::sleep(Duration::from_millis(100));
    }
}

fn imsi(n: usize) -> Imsi {
    Imsi::parse(&format!("00101{n:010}")).unwrap()
}

fn words(phone: usize, round: usize) -> String {
    format!("{phone}: number {round}")
}

fn start(config: &Path) -> Running {
    let binary = env!("CARGO_BIN_EXE_encamp");
    let mut run = Command::new(binary);
    run.args(["run", "--config"]).arg(config).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    let running = Running(run.spawn().unwrap());
    let ready = Command::new(binary).args(["status", "--wait", "60", "--config"]).arg(config).output().unwrap();
    assert!(ready.status.success(), "{}", String::from_utf8_lossy(&ready.stderr));
    running
}

fn texts_waiting(config: &Path) -> usize {
    let status = Command::new(env!("CARGO_BIN_EXE_encamp")).args(["status", "--json", "--config"]).arg(config).output();
    let answer: serde_json::Value = serde_json::from_slice(&status.unwrap().stdout).unwrap();
    usize::try_from(answer["node"]["texts_waiting"].as_u64().unwrap()).unwrap()
}

/// One after the other, as OpenBTS sends it.
fn register(station: &UdpSocket) {
    let own = station.local_addr().unwrap();
    let mut buffer = [0; 4_000];
    for n in 0..REGISTERED {
        let imsi = imsi(n);
        let request = format!(
            "REGISTER sip:{BOX} SIP/2.0\r\nTo: <sip:IMSI{imsi}@{BOX}>\r\nFrom: <sip:IMSI{imsi}@{BOX}>;tag=OBTS{n:016}\r\n\
             Via: SIP/2.0/UDP {own};branch=z9hG4bKOBTS{n:016}\r\nCall-ID: 9200ac34758d0f49\r\nCSeq: {n} REGISTER\r\n\
             Contact: <sip:IMSI{imsi}@{own}>;expires=5400\r\nMax-Forwards: 70\r\nUser-Agent: {AGENT}\r\nContent-Length: 0\r\n\r\n"
        );
        station.send_to(request.as_bytes(), (BOX, PORT)).unwrap();
        loop {
            let length = station.recv(&mut buffer).expect("an answer in time");
            let answer = String::from_utf8_lossy(&buffer[..length]).into_owned();
            if header(&answer, "CSeq:") == format!("{n} REGISTER") && !answer.starts_with("SIP/2.0 1") {
                assert!(answer.starts_with("SIP/2.0 200"), "{answer}");
                break;
            }
        }
    }
}

/// What each phone got, in that order, until all that is for registered ones is there. Each is answered as OpenBTS does when its phone
/// has it; a copy of one request is the same text.
fn take_texts(station: &UdpSocket) -> BTreeMap<Imsi, Vec<String>> {
    let mut got: BTreeMap<Imsi, Vec<String>> = BTreeMap::new();
    let mut seen: HashSet<String> = HashSet::new();
    let mut buffer = [0; 4_000];
    while got.values().map(Vec::len).sum::<usize>() < REGISTERED * EACH {
        let (length, from) = station.recv_from(&mut buffer).expect("the next text in time");
        let request = String::from_utf8_lossy(&buffer[..length]).into_owned();
        let Some(uri) = request.strip_prefix("MESSAGE sip:IMSI") else { continue };
        let via = header(&request, "Via:");
        let [from_header, to, call_id, cseq] = ["From:", "To:", "Call-ID:", "CSeq:"].map(|name| header(&request, name));
        let answer = format!(
            "SIP/2.0 200 OK\r\nVia: {via}\r\nFrom: {from_header}\r\nTo: {to};tag=OBTS\r\nCall-ID: {call_id}\r\nCSeq: {cseq}\r\n\
             User-Agent: {AGENT}\r\nContent-Length: 0\r\n\r\n"
        );
        station.send_to(answer.as_bytes(), from).unwrap();
        if seen.insert(call_id.to_owned()) {
            let imsi = Imsi::parse(uri.split('@').next().unwrap()).unwrap();
            let body = from_hex(request.split_once("\r\n\r\n").unwrap().1.as_bytes()).unwrap();
            let Ok((Rpdu::DataToPhone { tpdu, .. }, _)) = Rpdu::decode(&body) else { panic!("{request}") };
            let (deliver, _) = Deliver::decode(tpdu).unwrap();
            got.entry(imsi).or_default().push(text::decode(&deliver.data).unwrap());
        }
    }
    got
}

fn header<'a>(message: &'a str, name: &str) -> &'a str {
    message.split("\r\n").find_map(|line| line.strip_prefix(name)).unwrap_or_default().trim()
}
