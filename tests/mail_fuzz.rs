//! What reads a mail, against the mails of tests/data/mail, fresh mutations of them and mails that are made of pieces of MIME, for six
//! seconds each: nothing panics, and what is said is bounded and clean. What a box writes for another one is read as it was written.
//!
//! A mail that was found to break something goes to tests/data/mail. `ENCAMP_FUZZ_S=60` tries for longer, `ENCAMP_FUZZ_SEED=4711` another
//! series; without it the series is always the same, though a slower machine sees less of it.

#![allow(clippy::disallowed_types, clippy::disallowed_methods)] // a test that looks at the clock and reads files

use std::path::Path;
use std::time::{Duration, Instant};

use encamp::gsm::text::Coding;
use encamp::gsm::tpdu::UserData;
use encamp::mail::receive::{FILES_MAX, TEXT_BYTES_MAX, read, relayed_header};
use encamp::mail::{HEADERS_KEPT_MAX, Relayed};
use rand_chacha::ChaCha8Rng;
use rand_core::{Rng, SeedableRng};

/// At least so many of the inputs have to say something, in a thousand: what is all refused would prove little.
const READ_PER_MILLE_MIN: u64 = 20;
const INPUT_BYTES_MAX: usize = 16 * 1024;

/// What mails are made of.
const PIECES: &[&str] = &[
    "\n",
    "\r\n",
    "\n\n",
    " ",
    "\t",
    ">",
    "> ",
    "-- \n",
    "--",
    "--b\n",
    "--b--\n",
    "--bb\n",
    "\n--b\n\n",
    "=",
    "=\n",
    "=3D",
    "=E4",
    "=?",
    "?=",
    "=?utf-8?B?w6Q=?=",
    "=?utf-8?Q?=C3?= =?utf-8?Q?=A4?=",
    "<",
    ">",
    "<a@b>",
    "\"",
    "(",
    ")",
    "\\",
    ";",
    ":",
    ",",
    "/",
    "*0*=",
    "'",
    "From: ",
    "From: a <a@example.org>\n",
    "From: MAILER-DAEMON@x\n",
    "Subject: ",
    "Message-ID: <x@y>\n",
    "References: <a@b> <c@d>\n",
    "Content-Type: ",
    "Content-Type: multipart/mixed; boundary=b\n",
    "Content-Type: multipart/alternative; boundary=bb\n",
    "Content-Type: multipart/report; report-type=delivery-status; boundary=b\n",
    "Content-Type: text/plain; charset=",
    "Content-Type: text/html\n",
    "Content-Type: message/rfc822\n",
    "Content-Type: message/delivery-status\n",
    "format=flowed; delsp=yes",
    "Content-Transfer-Encoding: base64\n",
    "Content-Transfer-Encoding: quoted-printable\n",
    "Content-Disposition: attachment; ",
    "filename*1*=%C3%A4; filename*0*=utf-8''%",
    "filename=x",
    "iso-2022-jp\n",
    "utf-7\n",
    "utf-16\n",
    "gb18030\n",
    "x-none\n",
    "\u{1b}$B",
    "+AOQ-",
    "Authentication-Results: x; ",
    "dkim=pass ",
    "spf=fail ",
    "header.d=",
    "reason=\"",
    "Final-Recipient: rfc822;a@b\n",
    "Action: failed\n",
    "Status: 5.1.1\n",
    "On 1 Jan 2026 a@b wrote:\n",
    "Am 1.1.2026 schrieb",
    "Sent from my ",
    "-----Original Message-----\n",
    "Sent: x\nTo: y\n",
    "<p>",
    "</p>",
    "<br>",
    "<blockquote>",
    "</blockquote>",
    "<a href=\"http://x/\">",
    "</a>",
    "<li>",
    "<ul>",
    "<ol>",
    "<pre>",
    "</pre>",
    "<div style='display:none'>",
    "</div>",
    "<script>",
    "</script>",
    "<!--",
    "-->",
    "&nbsp;",
    "&#",
    "&#x1F600;",
    "&amp",
    "<img alt='x' src='cid:a'>",
    "X-Encamp-Sms: ",
    "e30=",
    "-----BEGIN PGP SIGNED MESSAGE-----\n",
    "-----BEGIN PGP SIGNATURE-----\n",
    "ä",
    "世界",
    "\u{200B}",
    "\u{A0}",
    "words",
    "one two three ",
];

struct Fuzz {
    corpus: Vec<Vec<u8>>,
    rng: ChaCha8Rng,
}

impl Fuzz {
    fn new() -> Fuzz {
        let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data/mail");
        let mut paths: Vec<_> = std::fs::read_dir(directory).unwrap().map(|entry| entry.unwrap().path()).collect();
        paths.retain(|path| path.extension().is_some_and(|extension| extension == "eml"));
        paths.sort();
        let corpus: Vec<Vec<u8>> = paths.iter().map(|path| std::fs::read(path).unwrap()).collect();
        assert!(corpus.len() >= 80, "{} mails", corpus.len());
        Fuzz { corpus, rng: ChaCha8Rng::seed_from_u64(from_environment("ENCAMP_FUZZ_SEED", 0x06)) }
    }

    fn below(&mut self, limit: usize) -> usize {
        self.rng.next_u32() as usize % limit.max(1)
    }

    fn piece(&mut self) -> &'static [u8] {
        PIECES[self.below(PIECES.len())].as_bytes()
    }

    /// One of the corpus with up to eight changes.
    fn mutated(&mut self) -> Vec<u8> {
        let place = self.below(self.corpus.len());
        let mut octets = self.corpus[place].clone();
        for _ in 0..self.below(9) {
            let at = self.below(octets.len() + 1);
            let octet = self.rng.next_u32() as u8;
            match self.below(8) {
                0 if at < octets.len() => octets[at] ^= 1 << (octet % 8),
                1 if at < octets.len() => {
                    octets[at] = [0x00, 0x0A, 0x0D, 0x20, 0x7F, 0x80, 0xFF][usize::from(octet) % 7]
                }
                2 if at < octets.len() => _ = octets.remove(at),
                3 if octet < 32 => octets.truncate(at),
                4 => {
                    // A part of it again, somewhere else.
                    let from = self.below(octets.len() + 1);
                    let to = (from + self.below(300)).min(octets.len());
                    let again = octets[from..to].to_vec();
                    octets.splice(at..at, again);
                }
                5 => {
                    // The end of another one behind the beginning of this.
                    let other = self.below(self.corpus.len());
                    let from = self.below(self.corpus[other].len() + 1);
                    octets.truncate(at);
                    octets.extend(&self.corpus[other][from..]);
                }
                _ => {
                    let piece = self.piece();
                    octets.splice(at..at, piece.iter().copied());
                }
            }
        }
        octets.truncate(INPUT_BYTES_MAX);
        octets
    }

    fn made(&mut self) -> Vec<u8> {
        (0..self.below(60)).flat_map(|_| self.piece()).copied().collect()
    }

    /// `check` says whether its input said something.
    fn run(mut self, make: impl Fn(&mut Fuzz) -> Vec<u8>, check: impl Fn(&[u8]) -> bool) {
        for input in &self.corpus {
            check(input);
        }
        let until = Instant::now() + Duration::from_secs(from_environment("ENCAMP_FUZZ_S", 6));
        let (mut tried, mut read) = (0_u64, 0_u64);
        while Instant::now() < until {
            for _ in 0..64 {
                let input = make(&mut self);
                let outcome = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| check(&input)));
                let Ok(was_read) = outcome else { panic!("breaks after {tried}: \"{}\"", input.escape_ascii()) };
                tried += 1;
                read += u64::from(was_read);
            }
        }
        println!("{tried} inputs, {read} of them read");
        assert!(1000 * read >= READ_PER_MILLE_MIN * tried, "only {read} of {tried} were read");
    }
}

fn from_environment(name: &str, otherwise: u64) -> u64 {
    std::env::var(name).map_or(otherwise, |value| value.parse().expect(name))
}

fn is_bounded(octets: &[u8]) -> bool {
    let received = read(octets);
    let letter = &received.letter;
    assert!(letter.text.len() <= TEXT_BYTES_MAX);
    // Words are not made of nothing: what grows is a link, a charset of one octet for each letter, a mark of a list.
    assert!(letter.text.len() <= 8 * octets.len() + 100, "{} of {}", letter.text.len(), octets.len());
    assert!(!letter.text.contains(|char: char| char.is_control() && char != '\n'), "{:?}", letter.text);
    assert!(!letter.text.contains("\n\n\n") && !letter.text.starts_with('\n') && !letter.text.ends_with('\n'));
    assert!(letter.text.lines().all(|line| line.trim_end() == line), "{:?}", letter.text);
    let lines =
        [&letter.subject, &letter.from_name].into_iter().chain(letter.attachments.iter().map(|file| &file.name));
    for line in lines.chain(letter.bounce.iter().flat_map(|bounce| bounce.recipients.iter().map(|of| &of.why))) {
        assert!(line.len() <= 1000 && !line.contains(char::is_control) && line.trim() == line, "{line:?}");
    }
    assert!(letter.references.len() <= 20 && letter.traces.len() <= 100 && letter.results.len() <= 20);
    assert!(letter.headers.len() <= HEADERS_KEPT_MAX);
    assert!(letter.attachments.len() <= FILES_MAX && letter.attachments.len() == received.files.len());
    for file in &received.files {
        assert!(
            !file.name.is_empty() && !file.name.starts_with("../") && !file.content_type.contains(char::is_whitespace)
        );
    }
    // No octet is in two files.
    assert!(received.files.iter().map(|file| file.bytes.len()).sum::<usize>() <= octets.len());
    let _ = format!("{received:?}");
    !letter.text.is_empty()
}

#[test]
fn mails() {
    Fuzz::new().run(Fuzz::mutated, is_bounded);
}

#[test]
fn mails_made_of_pieces() {
    Fuzz::new().run(Fuzz::made, is_bounded);
}

#[test]
fn a_mail_that_came_once_more_has_the_same_digest() {
    Fuzz::new().run(Fuzz::mutated, |octets| {
        let again = [b"Received: from somewhere\r\n\tby us\r\n".as_slice(), octets].concat();
        let (first, second) = (read(octets).letter, read(&again).letter);
        // Empty lines before the header end ours, which stands before them.
        if octets.first().is_none_or(|octet| octet.is_ascii_whitespace()) {
            return false;
        }
        assert_eq!(first.digest, second.digest);
        assert_eq!((first.received_count + 1, &first.text), (second.received_count, &second.text));
        true
    });
}

#[test]
fn what_one_box_writes_another_reads() {
    Fuzz::new().run(Fuzz::mutated, |octets| {
        let number = |from: usize| u64::from(octets.get(from).copied().unwrap_or_default());
        let text = String::from_utf8_lossy(octets);
        let relayed = Relayed {
            from: text.chars().take(20).collect(),
            to: text.chars().skip(20).take(20).collect(),
            accepted_ms: number(0) << 56 | number(1),
            life_ms: number(2) << 40,
            single_shot: number(3) % 2 == 1,
            protocol: number(4) as u8,
            reply_path: number(5) % 2 == 1,
            hops: number(6) as u32,
            data: UserData {
                coding: Coding(number(7) as u8),
                has_header: number(8) % 2 == 1,
                length: number(9) as u8,
                bytes: octets.iter().copied().take(140).collect(),
            },
        };
        let value = relayed_header(&relayed);
        assert!(value.split("\r\n").all(|line| line.len() < 78 && line.is_ascii()), "{value}");
        let mail = format!("X-Encamp-Sms: {value}\r\n\r\nwords\r\n");
        assert_eq!(read(mail.as_bytes()).letter.relayed, Some(relayed));
        true
    });
}
