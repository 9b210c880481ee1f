//! Every queue has a bound, and an answer at it (promise 7).

mod desk;

use std::net::SocketAddr;
use std::sync::Arc;

use encamp::config::{Place, Trunk, TrunkMode};
use encamp::node::Node;
use encamp::seam::{Ctx, Input, Local, Outbox, Output, Port, Rng};
use encamp::store::StoreId;
use encamp::store::memory::{MemoryStore, MemoryStores};
use encamp::time::{Instant, WallTime};

/// The disk never says that anything is synced, and callers go on asking for a phone that is away: each *no* waits for the disk, up
/// to a number; after that the answer is 503, at once.
#[test]
fn a_disk_that_hangs_holds_back_a_bounded_number_of_answers() {
    let mut settings = desk::settings();
    settings.registrar.transaction_count_max = 10;
    settings.shards[0].write_quorum = settings.shards[0].replicas.len();
    let address = "192.0.2.33:5060".parse().expect("an address");
    settings.trunks.push(Trunk {
        name: "pbx".into(),
        address,
        mode: TrunkMode::Redirect,
        texts: false,
        prefixes: Vec::new(),
        username: None,
        password: None,
    });
    let mut stores = MemoryStores::default();
    for id in [StoreId::Node, StoreId::Replica(0), StoreId::Replica(1)] {
        stores.stores.insert(id, MemoryStore::new());
    }
    let (mut rng, mut out) = (Rng::from_seed([1; 32]), Outbox::default());
    let wall = WallTime { ms: desk::TODAY_MS, trusted: true };
    let mut ctx = Ctx { now: Instant(0), wall, rng: &mut rng, stores: &mut stores, out: &mut out };
    // Founding writes to every store, and nobody syncs: from here on each *no* has something to wait for.
    let mut node = Node::start(&mut ctx, Arc::new(settings)).expect("a node starts");
    let mut refused = 0;
    for call in 0..200 {
        let invite = format!(
            "INVITE sip:IMSI{}@192.0.2.1 SIP/2.0\r\nVia: SIP/2.0/UDP 192.0.2.33:5060;branch=z9hG4bK{call}\r\nFrom: <sip:pbx@192.0.2.33>;tag={call}\r\n\
             To: <sip:a@192.0.2.1>\r\nCall-ID: {call}\r\nCSeq: 1 INVITE\r\nMax-Forwards: 70\r\nContent-Length: 0\r\n\r\n",
            desk::imsi(1)
        );
        let to = Local { port: Port::Front(0), address: None };
        node.handle(&mut ctx, Input::Datagram { from: address, to, bytes: invite.as_bytes() });
        while let Some(output) = ctx.out.pop() {
            if let Output::Datagram { bytes, .. } = output {
                assert!(bytes.starts_with(b"SIP/2.0 503"), "{}", String::from_utf8_lossy(&bytes));
                refused += 1;
            }
        }
    }
    assert!((1..=40).contains(&ctx.out.held_count()), "{} answers are held", ctx.out.held_count());
    assert!(refused >= 160, "{refused} of 200 were told at once");
}

/// Replicas elsewhere that cannot be asked (no key to sign with) are no reason to wait: the caller and the phone are told at once.
#[test]
fn who_cannot_ask_says_so_at_once() {
    let mut settings = desk::settings();
    settings.cluster_key = None;
    for replica in &mut settings.replicas {
        replica.place = Place::Remote { address: "192.0.2.99:5070".parse().expect("an address") };
    }
    let trunk: SocketAddr = "192.0.2.33:5060".parse().expect("an address");
    settings.trunks.push(Trunk {
        name: "pbx".into(),
        address: trunk,
        mode: TrunkMode::Redirect,
        texts: false,
        prefixes: Vec::new(),
        username: None,
        password: None,
    });
    let mut stores = MemoryStores::default();
    stores.stores.insert(StoreId::Node, MemoryStore::new());
    let (mut rng, mut out) = (Rng::from_seed([1; 32]), Outbox::default());
    let wall = WallTime { ms: desk::TODAY_MS, trusted: true };
    let mut ctx = Ctx { now: Instant(0), wall, rng: &mut rng, stores: &mut stores, out: &mut out };
    let mut node = Node::start(&mut ctx, Arc::new(settings)).expect("a node starts");
    let imsi = desk::imsi(1);
    let station: SocketAddr = "192.0.2.11:5062".parse().expect("an address");
    for (from, method, code) in [(trunk, "INVITE", "503"), (station, "REGISTER", "504")] {
        let text = format!(
            "{method} sip:IMSI{imsi}@192.0.2.1 SIP/2.0\r\nVia: SIP/2.0/UDP {from};branch=z9hG4bK{method}\r\nFrom: <sip:IMSI{imsi}@a>;tag=1\r\n\
             To: <sip:IMSI{imsi}@a>\r\nCall-ID: 1\r\nCSeq: 1 {method}\r\nContact: <sip:IMSI{imsi}@{from}>;expires=60\r\nMax-Forwards: 70\r\n\
             User-Agent: OpenBTS 5.0\r\nContent-Length: 0\r\n\r\n"
        );
        while ctx.out.pop().is_some() {}
        node.handle(
            &mut ctx,
            Input::Datagram { from, to: Local { port: Port::Front(0), address: None }, bytes: text.as_bytes() },
        );
        let mut answers = Vec::new();
        while let Some(output) = ctx.out.pop() {
            if let Output::Datagram { bytes, .. } = output {
                answers.push(String::from_utf8_lossy(&bytes).into_owned());
            }
        }
        assert!(matches!(&answers[..], [one] if one.starts_with(&format!("SIP/2.0 {code}"))), "{method}: {answers:?}");
    }
    assert_eq!(node.under_way(), 0);
}
