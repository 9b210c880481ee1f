//! Duplication is real: at quorum 2 each of two directories, opened by itself with the crate, holds every acknowledged record.
//!
//! The real binary is run, told of phones as an OpenBTS tells it, and killed without a word at the end; then both stores are
//! opened read-only, without it. tests/blackbox/test_duplication.py looks at the same from outside.
#![cfg(feature = "box")]
#![allow(clippy::disallowed_methods, clippy::disallowed_types)] // a test of the whole program touches the world

use std::collections::BTreeMap;
use std::net::UdpSocket;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use encamp::register::merge::{Record, decode};

const PHONES: usize = 40;
/// A loopback address of this test alone: its ports cannot be anybody else's.
const BOX: &str = "127.0.0.97";
const STATION: &str = "127.0.0.98";

/// Killed when the test ends, however it ends.
struct Running(Child);

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[test]
fn at_quorum_two_both_directories_hold_every_acknowledged_record() {
    let directory = tempfile::tempdir().unwrap();
    let config = directory.path().join("encamp.toml");
    let data = directory.path().join("data");
    let (calls, registration, dns) = (free_port(), free_port(), free_port());
    std::fs::write(
        &config,
        format!(
            r#"
domain = "gsm.example"
data_dir = "{data}"

[front]
listen = ["udp:{BOX}:{calls}", "udp:{BOX}:{registration}"]
base_stations = ["{STATION}"]

[zone]
listen = ["udp:{BOX}:{dns}"]

[[shard]]
name = "all"
suffixes = ["00-99"]
replicas = ["a", "b"]
write_quorum = 2
"#,
            data = data.display()
        ),
    )
    .unwrap();
    let provisioned = directory.path().join("subscribers.d");
    std::fs::create_dir(&provisioned).unwrap();
    let imsis: Vec<String> = (0..PHONES).map(|n| format!("0010177700000{n:02}")).collect();
    let subscribers: String = imsis
        .iter()
        .map(|imsi| format!("[[subscriber]]\nimsi = \"{imsi}\"\nauth = {{ algorithm = \"none\" }}\n"))
        .collect();
    std::fs::write(provisioned.join("10-test.toml"), subscribers).unwrap();

    let binary = env!("CARGO_BIN_EXE_encamp");
    let log = std::fs::File::create(directory.path().join("log")).unwrap();
    let mut running = Running(
        Command::new(binary)
            .args(["run", "--config"])
            .arg(&config)
            .stdin(Stdio::null())
            .stdout(log.try_clone().unwrap())
            .stderr(log)
            .spawn()
            .unwrap(),
    );
    let ready = Command::new(binary).args(["status", "--wait", "10", "--config"]).arg(&config).output().unwrap();
    let log = || std::fs::read_to_string(directory.path().join("log")).unwrap();
    assert!(ready.status.success(), "it did not come up: {ready:?}\n{}", log());

    let station = UdpSocket::bind((STATION, 0)).unwrap();
    station.set_read_timeout(Some(Duration::from_secs(5))).unwrap();
    station.connect((BOX, registration)).unwrap();
    let mine = station.local_addr().unwrap();
    for (n, imsi) in imsis.iter().enumerate() {
        assert_eq!(register(&station, imsi, n * 2, 5400), 200, "{}", log());
        if n % 4 == 3 {
            assert_eq!(register(&station, imsi, n * 2 + 1, 0), 200, "detach\n{}", log());
        }
    }

    running.0.kill().unwrap();
    running.0.wait().unwrap();

    let [a, b] = ["a", "b"].map(|name| records(&data.join("replica").join(name)));
    assert_eq!(a, b, "two replicas at rest");
    for (n, imsi) in imsis.iter().enumerate() {
        let bound: Vec<String> = a[imsi].bindings().map(|(contact, ..)| contact.to_owned()).collect();
        match n % 4 {
            3 => assert!(bound.is_empty(), "{imsi} was detached: {bound:?}"),
            _ => assert_eq!(bound, [format!("sip:IMSI{imsi}@{mine}")]),
        }
    }
    assert_eq!(a.len(), PHONES);
}

/// Every record in a replica's directory, read without the program that wrote it.
fn records(directory: &Path) -> BTreeMap<String, Record> {
    let database = rocksdb::DB::open_for_read_only(&rocksdb::Options::default(), directory, false).unwrap();
    let prefix = b"b";
    database
        .prefix_iterator(prefix)
        .map(|pair| pair.unwrap())
        .take_while(|(key, _)| key.starts_with(prefix))
        .map(|(key, value)| (String::from_utf8(key[1..].to_vec()).unwrap(), decode(&value).unwrap()))
        .collect()
}

/// One REGISTER as an OpenBTS 5.0 writes it; the answer's code.
fn register(station: &UdpSocket, imsi: &str, cseq: usize, expires_s: u32) -> u16 {
    let (mine, to) = (station.local_addr().unwrap(), station.peer_addr().unwrap());
    let request = format!(
        "REGISTER sip:{host} SIP/2.0\r\n\
         To:  <sip:IMSI{imsi}@{to}>\r\n\
         From:  <sip:IMSI{imsi}@{to}>;tag=OBTS{imsi}{cseq}\r\n\
         Via: SIP/2.0/UDP {mine};branch=z9hG4bKOBTS{imsi}{cseq}\r\n\
         Call-ID: 9200ac34758d0f49\r\n\
         CSeq: {cseq} REGISTER\r\n\
         Contact: <sip:IMSI{imsi}@{mine}>;expires={expires_s}\r\n\
         Max-Forwards: 70\r\n\
         User-Agent: OpenBTS 5.0-master Build Date 2026-11-21T11:58:28\r\n\
         Content-Length: 0\r\n\r\n",
        host = to.ip()
    );
    station.send(request.as_bytes()).unwrap();
    let mut answer = [0; 1500];
    let size = station.recv(&mut answer).expect("no answer");
    let text = std::str::from_utf8(&answer[..size]).unwrap();
    assert!(text.contains(&format!("CSeq: {cseq} REGISTER")), "{text}");
    text[8..11].parse().unwrap()
}

/// Free for UDP on the box's address, as far as can be known.
fn free_port() -> u16 {
    UdpSocket::bind((BOX, 0)).unwrap().local_addr().unwrap().port()
}
