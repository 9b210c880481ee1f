//! What a whole node makes of the 49 messages of RFC 4475 that a listed base station sends: one answer, or one counted drop, each.
//!
//! `tests/rfc4475.rs` says how each is read; this table says what is answered.
#![allow(clippy::disallowed_methods, reason = "reads the messages from tests/data")]

mod desk;

use desk::Desk;
use encamp::event::Event;
use encamp::seam::Port;

const TABLE: [(&str, &str); 49] = [
    ("badaspec", "400"),
    ("badbranch", "200"),
    ("baddate", "100 403"),
    ("baddn", "400"),
    ("badinv01", "400"),
    ("badvers", "505"),
    ("bcast", "drop_response_unknown"),
    ("bext01", "420"),
    ("bigcode", "drop_malformed"),
    ("clerr", "400"),
    ("cparam01", "404"),
    ("cparam02", "404"),
    ("dblreq", "404"),
    ("esc01", "100 403"),
    ("esc02", "405"),
    ("escnull", "404"),
    ("escruri", "400"),
    ("insuf", "400"),
    ("intmeth", "405"),
    ("inv2543", "100 403"),
    ("invut", "100 403"),
    ("longreq", "drop_answer_too_long"),
    ("ltgtruri", "400"),
    ("lwsdisp", "200"),
    ("lwsruri", "400"),
    ("lwsstart", "400"),
    ("mcl01", "400"),
    ("mismatch01", "400"),
    ("mismatch02", "400"),
    ("mpart01", "403"),
    ("multi01", "400"),
    ("ncl", "400"),
    ("noreason", "drop_response_unknown"),
    ("novelsc", "416"),
    ("quotbal", "400"),
    ("regaut01", "404"),
    ("regbadct", "404"),
    ("regescrt", "404"),
    ("scalar02", "400"),
    ("scalarlg", "drop_malformed"),
    ("sdp01", "100 403"),
    ("semiuri", "200"),
    ("transports", "200"),
    ("trws", "400"),
    ("unkscm", "416"),
    ("unksm2", "404"),
    ("unreason", "drop_response_unknown"),
    ("wsinv", "481"),
    ("zeromf", "200"),
];

#[test]
fn every_torture_message_gets_one_answer_or_one_counted_drop() {
    let mut wrong = Vec::new();
    for (name, expected) in TABLE {
        let path = format!("{}/tests/data/rfc4475/{name}.dat", env!("CARGO_MANIFEST_DIR"));
        let bytes = std::fs::read(path).expect("the message");
        // A box of its own for each: none is a copy of another.
        let mut desk = Desk::today();
        desk.events.clear();
        let sent = desk.send_bytes("192.0.2.11:5062", Port::Front(0), &bytes);
        let codes: Vec<&str> = sent.iter().filter_map(|text| text.split(' ').nth(1)).collect();
        let drops: Vec<&str> = desk
            .events
            .iter()
            .filter(|event| matches!(event, Event::DatagramDropped { .. }))
            .map(Event::name)
            .collect();
        let got = match (&codes[..], &drops[..]) {
            ([code], []) => (*code).to_owned(),
            (["100", code], []) => format!("100 {code}"),
            ([], [drop]) => (*drop).to_owned(),
            other => format!("{other:?}"),
        };
        if got != expected {
            wrong.push(format!("(\"{name}\", \"{got}\"),"));
        }
        assert!(sent.iter().all(|text| text.len() < 1500), "{name}: an answer that a base station cannot read whole");
        assert!(desk.events.iter().any(|event| !event.name().is_empty()), "{name}: nothing was counted");
    }
    assert!(wrong.is_empty(), "other than in the table:\n{}", wrong.join("\n"));
}
