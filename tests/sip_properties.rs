//! What holds for any bytes at all: nothing panics, and what is written can be read again.

mod wire;

use encamp::sip::header::{HeaderName, NameAddr, Uri, Via, auth_params, cgi_3gpp, uri_equal};
use encamp::sip::parse::{Contacts, Message, parse};
use encamp::sip::stream::Framer;
use encamp::sip::write::{Writer, echo_bytes, reply_target};
use proptest::prelude::*;

/// The messages of base stations and of RFC 4475.
fn corpus() -> Vec<Vec<u8>> {
    let folder = format!("{}/tests/data/rfc4475", env!("CARGO_MANIFEST_DIR"));
    let mut paths: Vec<_> =
        std::fs::read_dir(folder).expect("the data is there").map(|entry| entry.expect("readable").path()).collect();
    paths.sort();
    #[allow(clippy::disallowed_methods, reason = "a test reads its data")]
    let torture = paths.iter().map(|path| std::fs::read(path).expect("readable"));
    wire::ALL.iter().map(|text| wire::message(text)).chain(torture).collect()
}

/// Calls everything there is on a message.
fn read_all(message: &Message<'_>, source: &str) {
    let _ = (message.from(), message.to(), message.cseq(), message.call_id(), message.expires(), message.code());
    let _ = (message.max_forwards(), message.content_length(), message.method(), message.uri());
    let _ = message.header_named("P-Access-Network-Info").and_then(cgi_3gpp);
    let _ = message.vias().map(Via::parse).count();
    if let Some(auth) = message.authorization() {
        let _ = auth.params().count();
    }
    if let Ok(Contacts::List(list)) = message.contacts() {
        let length = list.len();
        assert_eq!(list.clone().count(), length, "contacts() promised that each is readable");
        for contact in list {
            let _ = (contact.q(), contact.expires(), contact.tag());
            contact.uri().expect("NameAddr::parse has read it");
            assert!(uri_equal(contact.uri, contact.uri));
        }
    }
    let source = source.parse().expect("address");
    if let Ok(via) = message.via() {
        let _ = reply_target(&via, source);
    }
    let _ = echo_bytes(message);
    let bytes = Writer::response_to(message, 400, "Bad Request", Some("t"), Some((source.ip(), None))).finish();
    assert!(bytes.ends_with(b"\r\nContent-Length: 0\r\n\r\n"));
    let ends = bytes.windows(4).filter(|bytes| bytes == b"\r\n\r\n").count();
    assert_eq!(ends, 1, "an echo made a line of its own");
}

/// Reads any bytes as a datagram and as a stream.
fn read(bytes: &[u8]) {
    match parse(bytes) {
        Ok(message) => {
            read_all(&message, "192.0.2.1:5060");
            message.from().expect("parse has read it");
            message.to().expect("parse has read it");
            message.via().expect("parse has read it");
            // The answer to a good request is a good response.
            if message.is_request() {
                let answer = Writer::response_to(&message, 200, "OK", Some("t"), None).finish();
                let answer = parse(&answer).expect("an answer of ours");
                assert_eq!((answer.call_id(), answer.cseq()), (message.call_id(), message.cseq()));
                assert_eq!(answer.vias().count(), message.vias().count());
            }
        }
        Err(malformed) => {
            if let Some(answer) = malformed.answer {
                assert!(answer.message.via().is_ok() && answer.message.method() != Some("ACK"));
                read_all(&answer.message, "[2001:db8::1]:5060");
            }
        }
    }
    let mut framer = Framer::new();
    framer.push(bytes);
    let _ = framer.count();
}

#[test]
fn every_prefix_of_every_message_is_read_or_refused() {
    for message in corpus() {
        for end in 0..message.len() {
            read(&message[..end]);
        }
    }
}

#[derive(Clone, Debug)]
enum Mutation {
    Set(prop::sample::Index, u8),
    Insert(prop::sample::Index, &'static str),
    Remove(prop::sample::Index, usize),
    Double(prop::sample::Index, usize),
}

/// What means something to the parser, more often than chance would have it.
const MORSELS: [&str; 24] = [
    "\r\n",
    "\n",
    "\r",
    " ",
    "\r\n ",
    ":",
    ";",
    ",",
    "<",
    ">",
    "\"",
    "\\",
    "=",
    "@",
    "?",
    "%",
    "[",
    "]",
    "/",
    "*",
    "é",
    "\0",
    "\r\nVia: SIP/2.0/UDP x",
    "\r\nTo: <sip:a@b>;tag=c",
];

fn mutation() -> impl Strategy<Value = Mutation> {
    let at = any::<prop::sample::Index>;
    prop_oneof![
        (at(), any::<u8>()).prop_map(|(at, byte)| Mutation::Set(at, byte)),
        (at(), prop::sample::select(&MORSELS[..])).prop_map(|(at, text)| Mutation::Insert(at, text)),
        (at(), 1..40_usize).prop_map(|(at, length)| Mutation::Remove(at, length)),
        (at(), 1..200_usize).prop_map(|(at, length)| Mutation::Double(at, length)),
    ]
}

fn mutate(bytes: &mut Vec<u8>, mutation: &Mutation) {
    if bytes.is_empty() {
        return;
    }
    match mutation {
        Mutation::Set(at, byte) => {
            let at = at.index(bytes.len());
            bytes[at] = *byte;
        }
        Mutation::Insert(at, text) => {
            let at = at.index(bytes.len());
            bytes.splice(at..at, text.bytes());
        }
        Mutation::Remove(at, length) => {
            let at = at.index(bytes.len());
            bytes.drain(at..bytes.len().min(at + length));
        }
        Mutation::Double(at, length) => {
            let at = at.index(bytes.len());
            let piece = bytes[at..bytes.len().min(at + length)].to_vec();
            bytes.splice(at..at, piece);
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(20_000))]

    #[test]
    fn mutated_messages_are_read_or_refused(
        which in any::<prop::sample::Index>(),
        mutations in prop::collection::vec(mutation(), 1..6),
    ) {
        // Read once per process: the files do not change.
        static CORPUS: std::sync::OnceLock<Vec<Vec<u8>>> = std::sync::OnceLock::new();
        let corpus = CORPUS.get_or_init(corpus);
        let mut bytes = corpus[which.index(corpus.len())].clone();
        for mutation in &mutations {
            mutate(&mut bytes, mutation);
        }
        read(&bytes);
    }

    #[test]
    fn arbitrary_bytes_are_read_or_refused(bytes in prop::collection::vec(any::<u8>(), 0..300)) {
        read(&bytes);
    }

    #[test]
    fn arbitrary_values_are_read_or_refused(text in "[ -~\r\n\té]{0,60}") {
        if let Ok(uri) = Uri::parse(&text) {
            prop_assert!(uri_equal(&text, &text));
            let _ = uri.params.iter().count();
        }
        let _ = Via::parse(&text);
        let _ = NameAddr::parse(&text);
        let _ = cgi_3gpp(&text);
        let _ = auth_params(&text).map(|auth| auth.params().count());
    }

    /// Commutes, and with itself is always equal.
    #[test]
    fn uri_equality_is_symmetric(a in "sip:([a%@]{0,3}@)?h(:5060)?(;(lr|transport=(tcp|UDP)|%6c)){0,2}", b in "sip:([aA%61]{0,3}@)?H(;(lr|x=1|LR)){0,2}") {
        prop_assert_eq!(uri_equal(&a, &b), uri_equal(&b, &a));
        prop_assert!(uri_equal(&a, &a));
    }

    #[test]
    fn what_is_written_is_read(
        method in "[A-Z]{3,9}",
        user in "[a-z0-9*#]{1,15}",
        branch in "[a-zA-Z0-9.]{1,30}",
        display in prop::option::of("[ !#-\\[\\]-~é]{0,20}"),
        tag in "[a-z0-9]{1,20}",
        cseq in 0..(1_u32 << 31),
        expires in any::<u32>(),
        value in "[!-~]([ -~\r\n]{0,40}[!-~])?",
        body in prop::collection::vec(any::<u8>(), 0..200),
    ) {
        let uri = format!("sip:{user}@127.0.0.1:5062");
        let mut writer = Writer::request(&method, &uri);
        writer.header_fmt("Via", format_args!("SIP/2.0/UDP 192.0.2.1:5070;branch=z9hG4bK{branch};rport"));
        match &display {
            Some(display) => writer.header_fmt("From", format_args!("\"{display}\" <{uri}>;tag={tag}")),
            None => writer.header_fmt("From", format_args!("<{uri}>;tag={tag}")),
        };
        let bytes = writer
            .header_fmt("To", format_args!("<{uri}>"))
            .header("Call-ID", &tag)
            .header_fmt("CSeq", format_args!("{cseq} {method}"))
            .header_fmt("Contact", format_args!("<{uri}>;expires={expires}, <{uri}>"))
            .header("X-Anything", &value)
            .body("application/octet-stream", &body)
            .finish();
        let message = parse(&bytes).expect("of our own making");
        prop_assert_eq!((message.method(), message.uri()), (Some(method.as_str()), Some(uri.as_str())));
        let via = message.via().expect("Via");
        prop_assert_eq!(via.branch.and_then(|found| found.strip_prefix("z9hG4bK")), Some(branch.as_str()));
        prop_assert!(via.rport_asked);
        let from = message.from().expect("From");
        prop_assert_eq!((from.display, from.uri, from.tag()), (display.as_deref(), uri.as_str(), Some(tag.as_str())));
        prop_assert_eq!(message.cseq(), (cseq, method.as_str()));
        let on_one_line = value.replace(['\r', '\n'], "");
        prop_assert_eq!(message.header_named("x-anything"), Some(on_one_line.as_str()));
        prop_assert_eq!(message.header(HeaderName::ContentType), Some("application/octet-stream"));
        prop_assert_eq!(message.body, &body[..]);
        match message.contacts() {
            Ok(Contacts::List(mut list)) => {
                prop_assert_eq!(list.len(), 2);
                prop_assert_eq!(list.next().and_then(|contact| contact.expires()), Some(Ok(expires)));
            }
            other => prop_assert!(false, "{:?}", other),
        }
        let source = "198.51.100.7:40000".parse().expect("address");
        prop_assert_eq!(reply_target(&via, source), source);
    }
}
