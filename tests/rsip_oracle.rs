#![cfg(feature = "box")]
//! rsip and our parser read the same thing in the same well-formed message.
//!
//! rsip cannot judge what is malformed (it refuses much that is valid), so only what it accepts is compared, and the
//! generator stays where it accepts nearly everything: a message it refuses counts against a limit, lest the test
//! compare nothing.

use std::convert::TryFrom;
use std::io::Write as _;

use encamp::sip::parse::{Contacts, parse};
use proptest::prelude::*;
use proptest::test_runner::{Config, TestRunner};
use rsip::headers::ToTypedHeader;
use rsip::prelude::{HeadersExt, UntypedHeader};

#[derive(Clone, Debug)]
struct Sample {
    method: &'static str,
    uri: String,
    via: String,
    from: String,
    to: String,
    call_id: String,
    cseq: u32,
    contacts: Vec<String>,
    others: Vec<&'static str>,
    body: String,
}

impl Sample {
    fn text(&self) -> String {
        let mut lines = vec![
            format!("{} {} SIP/2.0", self.method, self.uri),
            format!("Via: {}", self.via),
            format!("From: {}", self.from),
            format!("To: {}", self.to),
            format!("Call-ID: {}", self.call_id),
            format!("CSeq: {} {}", self.cseq, self.method),
        ];
        lines.extend(self.contacts.iter().map(|contact| format!("Contact: {contact}")));
        lines.extend(self.others.iter().map(|&other| other.to_owned()));
        lines.push(format!("Content-Length: {}", self.body.len()));
        format!("{}\r\n\r\n{}", lines.join("\r\n"), self.body)
    }
}

fn host() -> impl Strategy<Value = String> {
    prop_oneof![
        any::<std::net::Ipv4Addr>().prop_map(|address| address.to_string()),
        "[a-z][a-z0-9]{0,8}(\\.[a-z][a-z0-9]{0,8}){0,2}",
    ]
}

fn port() -> impl Strategy<Value = String> {
    prop_oneof![Just(String::new()), (1..=u16::MAX).prop_map(|port| format!(":{port}"))]
}

fn uri() -> impl Strategy<Value = String> {
    let user = prop::option::of("(IMSI)?[0-9]{3,15}|[a-z][a-z0-9]{0,9}");
    // In capitals, because rsip writes a transport so however it was read.
    let params = prop::sample::select(&["", ";lr", ";transport=UDP", ";user=phone;x=y"][..]);
    ("sips?", user, host(), port(), params).prop_map(|(scheme, user, host, port, params)| {
        let user = user.map(|user| format!("{user}@")).unwrap_or_default();
        format!("{scheme}:{user}{host}{port}{params}")
    })
}

/// rsip takes no header parameters behind a bare URI that has URI parameters, nor do we: hence always `<` and `>`.
fn name_addr() -> impl Strategy<Value = String> {
    let display = prop::sample::select(&["", "Bob ", "IMSI001010000000001 ", "\"Bob B.\" "][..]);
    (display, uri()).prop_map(|(display, uri)| format!("{display}<{uri}>"))
}

fn tag() -> impl Strategy<Value = String> {
    prop_oneof![Just(String::new()), "[a-zA-Z0-9]{1,20}".prop_map(|tag| format!(";tag={tag}"))]
}

const METHODS: [&str; 8] = ["REGISTER", "INVITE", "MESSAGE", "BYE", "OPTIONS", "CANCEL", "ACK", "INFO"];

const OTHERS: [&str; 5] =
    ["Max-Forwards: 70", "Expires: 3600", "User-Agent: Box 1.0", "Supported: path", "X-Own: a;b=c, d"];

fn sample() -> impl Strategy<Value = Sample> {
    let via = ("UDP|TCP|TLS", host(), port(), "[a-zA-Z0-9.]{1,20}", prop::sample::select(&["", ";rport", ";x=y"][..]))
        .prop_map(|(transport, host, port, branch, more)| {
            format!("SIP/2.0/{transport} {host}{port};branch=z9hG4bK{branch}{more}")
        });
    let contact = (name_addr(), prop::option::of(any::<u32>())).prop_map(|(addr, expires)| match expires {
        Some(expires) => format!("{addr};expires={expires}"),
        None => addr,
    });
    let people = ((name_addr(), tag()), (name_addr(), tag()));
    (
        prop::sample::select(&METHODS[..]),
        uri(),
        via,
        people.prop_map(|((from, from_tag), (to, to_tag))| (from + &from_tag, to + &to_tag)),
        "[a-zA-Z0-9]{1,20}(@[a-z0-9.]{1,10})?",
        0..(1_u32 << 31),
        prop::collection::vec(contact, 0..3),
        prop::sample::subsequence(&OTHERS[..], 0..=OTHERS.len()),
        "[a-z \r\n:]{0,40}",
    )
        .prop_map(|(method, uri, via, (from, to), call_id, cseq, contacts, others, body)| Sample {
            method,
            uri,
            via,
            from,
            to,
            call_id,
            cseq,
            contacts,
            others,
            body,
        })
}

/// Both say the same, or rsip says nothing.
fn compare(text: &str) -> Result<bool, TestCaseError> {
    let ours = match parse(text.as_bytes()) {
        Ok(message) => message,
        Err(malformed) => return Err(TestCaseError::fail(format!("we refuse it: {malformed}"))),
    };
    let Ok(theirs) = rsip::Request::try_from(text.as_bytes()) else { return Ok(false) };
    prop_assert_eq!(ours.method().map(str::to_owned), Some(theirs.method.to_string()));
    prop_assert_eq!(ours.uri().map(str::to_owned), Some(theirs.uri.to_string()));
    prop_assert_eq!(ours.body, &theirs.body[..]);

    let (Ok(via), Ok(from), Ok(to), Ok(cseq)) = (
        theirs.via_header().and_then(|header| header.clone().typed()),
        theirs.from_header().and_then(|header| header.clone().typed()),
        theirs.to_header().and_then(|header| header.clone().typed()),
        theirs.cseq_header().and_then(|header| header.clone().typed()),
    ) else {
        return Ok(false);
    };
    let our_via = ours.via().map_err(|error| TestCaseError::fail(error.0))?;
    prop_assert_eq!(our_via.branch.map(str::to_owned), via.branch().map(|branch| branch.to_string()));
    prop_assert_eq!(our_via.transport.to_owned(), via.transport.to_string());
    prop_assert_eq!(our_via.host.to_owned(), via.uri.host_with_port.host.to_string());
    prop_assert_eq!(our_via.port, via.uri.host_with_port.port.as_ref().map(|port| *port.value()));

    let (our_from, our_to) = (ours.from(), ours.to());
    let our_from = our_from.map_err(|error| TestCaseError::fail(error.0))?;
    let our_to = our_to.map_err(|error| TestCaseError::fail(error.0))?;
    prop_assert_eq!(our_from.uri.to_owned(), from.uri.to_string());
    prop_assert_eq!(our_from.tag().map(str::to_owned), from.tag().map(|tag| tag.to_string()));
    prop_assert_eq!(our_to.uri.to_owned(), to.uri.to_string());
    prop_assert_eq!(our_to.tag().map(str::to_owned), to.tag().map(|tag| tag.to_string()));
    let user = our_to.uri().map_err(|error| TestCaseError::fail(error.0))?.user;
    prop_assert_eq!(user, to.uri.user());

    prop_assert_eq!((ours.cseq().0, ours.cseq().1.to_owned()), (cseq.seq, cseq.method.to_string()));
    prop_assert_eq!(Some(ours.call_id()), theirs.call_id_header().ok().map(UntypedHeader::value));

    let our_contacts: Vec<_> = match ours.contacts() {
        Ok(Contacts::List(list)) => list.map(|contact| (contact.uri.to_owned(), contact.expires())).collect(),
        Ok(Contacts::None) => Vec::new(),
        other => return Err(TestCaseError::fail(format!("{other:?}"))),
    };
    let mut their_contacts = Vec::new();
    for header in theirs.contact_headers() {
        let Ok(contact) = header.clone().typed() else { return Ok(false) };
        let expires = contact.expires().map(|expires| expires.seconds().map_err(|_| ()));
        their_contacts.push((contact.uri.to_string(), expires));
    }
    prop_assert_eq!(our_contacts.len(), their_contacts.len());
    for ((our_uri, our_expires), (their_uri, their_expires)) in our_contacts.iter().zip(&their_contacts) {
        prop_assert_eq!(our_uri, their_uri);
        prop_assert_eq!(our_expires.map(|expires| expires.map_err(|_| ())), *their_expires);
    }
    Ok(true)
}

#[test]
fn rsip_reads_the_same() {
    const CASES: u32 = 5_000;
    let compared = std::cell::Cell::new(0);
    TestRunner::new(Config { cases: CASES, failure_persistence: None, ..Config::default() })
        .run(&sample(), |sample| {
            let text = sample.text();
            let agreed = compare(&text).map_err(|error| TestCaseError::fail(format!("{error}\n{text}")))?;
            compared.set(compared.get() + u32::from(agreed));
            Ok(())
        })
        .unwrap_or_else(|error| panic!("{error}"));
    assert!(compared.get() > CASES * 9 / 10, "rsip read only {} of {CASES}", compared.get());
    // Written past the test harness, which would swallow it when all is well.
    writeln!(std::io::stdout(), "\npeer rsip: {} messages", compared.get()).unwrap();
}
