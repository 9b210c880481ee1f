//! Sessions of SMTP and LMTP out of pieces and mutations of them, for six seconds: nothing panics, what is answered is bounded and well
//! formed, and the octets mean the same however they are cut.
//!
//! `ENCAMP_FUZZ_S=60` tries for longer, `ENCAMP_FUZZ_SEED=4711` another series; without it the series is always the same, though a
//! slower machine sees less of it. A session that broke something goes to [`BROKE`].

#![allow(clippy::disallowed_types, clippy::disallowed_methods)] // a test that looks at the clock

use std::time::{Duration, Instant};

use encamp::config::Settings;
use encamp::config::read::{Source, Sources, read};
use encamp::mail::Reply;
use encamp::mail::session::{Protocol, Session, Step, Taken};
use rand_chacha::ChaCha8Rng;
use rand_core::{Rng, SeedableRng};

/// Lines and octets, of which sessions are put together.
const PIECES: &[&str] = &[
    "EHLO x\r\n",
    "LHLO x\r\n",
    "HELO x\r\n",
    "MAIL FROM:<a@b.example>\r\n",
    "MAIL FROM:<> SIZE=10 BODY=8BITMIME ENVID=a+2Bb RET=FULL\r\n",
    "MAIL FROM:<j\u{f6}rg@b.example> SMTPUTF8\r\n",
    "RCPT TO:<2001@sms.gsm.example>\r\n",
    "RCPT TO:<ana@sms.gsm.example> NOTIFY=SUCCESS,FAILURE ORCPT=rfc822;a+40b\r\n",
    "RCPT TO:<\"a>b\"@sms.gsm.example>\r\n",
    "DATA\r\n",
    "BDAT 7\r\n",
    "BDAT 3 LAST\r\n",
    "BDAT 0 LAST\r\n",
    "RSET\r\n",
    "NOOP\r\n",
    "VRFY x\r\n",
    "AUTH PLAIN AGNsaW5pYwBvcGVuIHNlc2FtZQ==\r\n",
    "AUTH LOGIN\r\n",
    "Y2xpbmlj\r\n",
    "*\r\n",
    "Subject: x\r\n\r\nwords\r\n",
    "..\r\n",
    ".\r\n",
    "\r\n.\r\n",
    "\n.\r\n",
    "\r.\r",
    "\r",
    "\n",
    ".",
    "\0",
    "1234567",
    "QUIT\r\n",
];

/// Sessions that were found to break something.
const BROKE: &[&[u8]] = &[];

fn settings() -> Settings {
    let text = "domain = \"gsm.example\"\ndata_dir = \"/d\"\n[mail]\nsize_max = \"10 kB\"\nrecipients_max = 5\n[[mail_user]]\n\
                name = \"clinic\"\npassword = \"open sesame\"\n[[subscriber]]\nimsi = \"001010000000001\"\nmsisdn = [\"2001\"]\n\
                auth = { algorithm = \"none\" }\nmail_alias = [\"ana\"]\n";
    let main = Source { name: "encamp.toml".into(), text: text.into() };
    read(&Sources { main, ..Sources::default() }).unwrap_or_else(|problems| panic!("{problems:#?}")).0
}

/// What was said, and which mails came of it.
fn talk(settings: &Settings, protocol: Protocol, pieces: &[&[u8]]) -> (Vec<u8>, Vec<Taken>) {
    let mut session = Session::new(protocol, [127, 0, 0, 1].into(), false, false);
    let (mut said, mut mails) = (Vec::new(), Vec::new());
    for piece in pieces {
        let mut input = *piece;
        loop {
            let step = session.feed(settings, &mut input);
            said.extend_from_slice(session.out());
            session.written();
            match step {
                Step::More => break assert!(input.is_empty(), "octets are left"),
                Step::Mail(taken) => {
                    let replies = [Reply::new(250, (2, 6, 0), "kept"), Reply::new(452, (4, 2, 2), "full")];
                    session.answered(&replies[..taken.recipients.len().min(2)]);
                    mails.push(*taken);
                }
                Step::StartTls => panic!("it was not offered"),
                Step::Close { .. } => return (said, mails),
            }
        }
    }
    (said, mails)
}

/// Whole, cut into octets, and cut at `cuts`.
fn check(settings: &Settings, wire: &[u8], cuts: &[usize]) -> usize {
    for protocol in [Protocol::Smtp, Protocol::Lmtp] {
        let (said, mails) = talk(settings, protocol, &[wire]);
        assert!(said.is_ascii() && (said.is_empty() || said.ends_with(b"\r\n")));
        for line in String::from_utf8_lossy(&said).split_terminator("\r\n") {
            let code = line.get(..3).and_then(|code| code.parse::<u16>().ok());
            assert!(code.is_some_and(|code| (200..600).contains(&code)) && line.len() <= 510, "{line:?}");
            assert!(!line.contains(['\r', '\n']), "{line:?}");
        }
        // EHLO has the longest answer, and a mail's is for five recipients at most.
        assert!(
            said.len() <= 300 * (wire.iter().filter(|octet| **octet == b'\n').count() + 1),
            "{} octets",
            said.len()
        );
        for mail in &mails {
            assert!(mail.octets.len() <= 10_000 && !mail.recipients.is_empty() && mail.recipients.len() <= 5);
        }
        let octets: Vec<&[u8]> = wire.chunks(1).collect();
        assert!(talk(settings, protocol, &octets) == (said.clone(), mails.clone()), "cut into octets");
        let mut pieces = Vec::new();
        let mut rest = wire;
        for cut in cuts {
            let (piece, behind) = rest.split_at((*cut).min(rest.len()));
            pieces.push(piece);
            rest = behind;
        }
        pieces.push(rest);
        assert!(talk(settings, protocol, &pieces) == (said, mails.clone()), "cut at {cuts:?}");
        if protocol == Protocol::Smtp && !mails.is_empty() {
            return mails.len();
        }
    }
    0
}

fn from_environment(name: &str, otherwise: u64) -> u64 {
    std::env::var(name).map_or(otherwise, |value| value.parse().expect(name))
}

#[test]
fn a_session_stands_whatever_comes_and_however_it_is_cut() {
    let settings = settings();
    for wire in BROKE {
        check(&settings, wire, &[1]);
    }
    let mut rng = ChaCha8Rng::seed_from_u64(from_environment("ENCAMP_FUZZ_SEED", 0x06));
    let mut below = move |limit: usize| rng.next_u32() as usize % limit.max(1);
    let until = Instant::now() + Duration::from_secs(from_environment("ENCAMP_FUZZ_S", 6));
    let (mut tried, mut mails) = (0_u64, 0_usize);
    while Instant::now() < until {
        let mut wire = Vec::new();
        // Half of them begin as a mail does, or few would come to its end.
        if below(2) == 0 {
            for piece in [0, 3, 6, [9, 11][below(2)]] {
                wire.extend_from_slice(PIECES[piece].as_bytes());
            }
        }
        for _ in 0..below(20) {
            wire.extend_from_slice(PIECES[below(PIECES.len())].as_bytes());
        }
        for _ in 0..below(4) {
            let at = below(wire.len() + 1);
            match below(4) {
                0 if at < wire.len() => wire[at] ^= 1 << below(8),
                1 => wire.insert(at, below(256) as u8),
                2 if at < wire.len() => _ = wire.remove(at),
                _ => wire.truncate(at.max(20)),
            }
        }
        let cuts: Vec<usize> = (0..below(8)).map(|_| below(40)).collect();
        let outcome = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| check(&settings, &wire, &cuts)));
        let Ok(found) = outcome else { panic!("breaks after {tried}: {:?}", String::from_utf8_lossy(&wire)) };
        tried += 1;
        mails += found;
    }
    println!("{tried} sessions, {mails} mails");
    assert!(mails as u64 * 20 >= tried, "only {mails} mails in {tried} sessions");
}
