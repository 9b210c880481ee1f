//! All 49 messages of RFC 4475, byte for byte, and what becomes of each: this table is the record.
//!
//! A verdict is the one the RFC's text asks for, or one of those it allows; the third column says why. Where it lets an
//! element be strict or liberal we are strict, except with what base stations are known to send.

use encamp::sip::header::HeaderName;
use encamp::sip::parse::{Contacts, MalformedKind, Message, StartLine, parse};
use encamp::sip::write::Writer;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Verdict {
    /// A message; what it asks for is for others to judge.
    Ok,
    /// A message whose contacts cannot be read: the registrar answers 400.
    BadContacts,
    /// Refused with this code.
    Answer(u16),
    /// No answer, but counted.
    Drop,
}

use Verdict::{Answer, BadContacts, Drop, Ok as Good};

const TABLE: [(&str, Verdict, &str); 49] = [
    // 3.1.1 Valid messages
    ("wsinv", Good, "3.1.1.1: blanks and folds wherever the grammar has them"),
    ("intmeth", Good, "3.1.1.2: every character that may stand somewhere stands there; the method is a token"),
    ("esc01", Good, "3.1.1.3: escapes in URIs; an escaped @ separates nothing"),
    ("escnull", Good, "3.1.1.4: escaped NULs in URIs are characters"),
    ("esc02", Good, "3.1.1.5: % is a token character: RE%47IST%45R is not REGISTER, C%6Fntact not Contact"),
    ("lwsdisp", Good, "3.1.1.6: no blank between display name and <"),
    ("longreq", Good, "3.1.1.7: long values, 34 Vias in every spelling"),
    ("dblreq", Good, "3.1.1.8: what follows the body in the datagram is ignored"),
    ("semiuri", Good, "3.1.1.9: a semicolon in the user part begins no parameter"),
    ("transports", Good, "3.1.1.10: Vias of unknown transports"),
    ("mpart01", Good, "3.1.1.11: a binary body is not our business"),
    ("unreason", Good, "3.1.1.12: a phrase in UTF-8"),
    ("noreason", Good, "3.1.1.13: an empty phrase"),
    // 3.1.2 Invalid messages
    ("badinv01", Answer(400), "3.1.2.1: empty parameters and values in Via and Contact"),
    ("clerr", Answer(400), "3.1.2.2: over UDP a Content-Length longer than the datagram is an error"),
    ("ncl", Answer(400), "3.1.2.3: a negative Content-Length"),
    ("scalar02", Answer(400), "3.1.2.4: the CSeq number does not fit; Max-Forwards and expiries alone would pass"),
    ("scalarlg", Drop, "3.1.2.5: a response with such a CSeq is discarded"),
    ("quotbal", Answer(400), "3.1.2.6: a quote never closed; we infer none"),
    ("ltgtruri", Answer(400), "3.1.2.7: the Request-URI in angle brackets"),
    ("lwsruri", Answer(400), "3.1.2.8: blanks inside the Request-URI"),
    ("lwsstart", Answer(400), "3.1.2.9: two blanks in the start line may be refused, and no base station writes them"),
    ("trws", Answer(400), "3.1.2.10: so may blanks at its end"),
    ("escruri", Answer(400), "3.1.2.11: headers in a Request-URI may be refused and must not be honoured"),
    ("baddate", Good, "3.1.2.12: who does not use Date may ignore that it is wrong"),
    ("regbadct", BadContacts, "3.1.2.13: a ? outside angle brackets; to guess where the URI ends is unsafe"),
    ("badaspec", Answer(400), "3.1.2.14: blanks between < and > may be refused"),
    ("baddn", Answer(400), "3.1.2.15: a display name that needs quotes, for it has a comma, and no empty line"),
    ("badvers", Answer(505), "3.1.2.16: SIP/7.0"),
    ("mismatch01", Answer(400), "3.1.2.17: CSeq names another method"),
    ("mismatch02", Answer(400), "3.1.2.18: the same with an unknown method; 400 and 501 are both right"),
    ("bigcode", Drop, "3.1.2.19: no status code is larger than 699"),
    // 3.2 Transaction layer semantics
    ("badbranch", Good, "3.2.1: a branch that is only the cookie is none, and RFC 2543's rules identify the request"),
    // 3.3 Application-layer semantics
    ("insuf", Answer(400), "3.3.1: no Call-ID, From, To; Via and CSeq are there, so it can be told"),
    ("unkscm", Good, "3.3.2: a scheme nobody knows is for the role to refuse, with 416"),
    ("novelsc", Good, "3.3.3: so is one that is known but not for this"),
    ("unksm2", Good, "3.3.4: schemes of any kind in To, From and Contact are read"),
    ("bext01", Good, "3.3.5: Require is for the role, with 420"),
    ("invut", Good, "3.3.6: so is a Content-Type, with 415"),
    ("regaut01", Good, "3.3.7: so is a scheme of Authorization"),
    ("multi01", Answer(400), "3.3.8: two of each header that may stand once"),
    ("mcl01", Answer(400), "3.3.9: two Content-Lengths that differ"),
    ("bcast", Good, "3.3.10: a response with a broadcast address in the second Via; whose it is others know"),
    ("zeromf", Good, "3.3.11: Max-Forwards 0 stops forwarding, not reading"),
    ("cparam01", Good, "3.3.12: a Contact parameter, not a URI parameter"),
    ("cparam02", Good, "3.3.13: a URI parameter, not a Contact parameter"),
    ("regescrt", Good, "3.3.14: headers in a contact's URI are kept with it"),
    ("sdp01", Good, "3.3.15: Accept is for the role, with 406"),
    // 3.4 Backward compatibility
    ("inv2543", Good, "3.4.1: no tag, no branch, no Content-Length, no Max-Forwards: RFC 2543 knew none"),
];

fn bytes(name: &str) -> Vec<u8> {
    let path = format!("{}/tests/data/rfc4475/{name}.dat", env!("CARGO_MANIFEST_DIR"));
    #[allow(clippy::disallowed_methods, reason = "a test reads its data")]
    std::fs::read(&path).unwrap_or_else(|error| panic!("{path}: {error}"))
}

fn verdict(bytes: &[u8]) -> Verdict {
    match parse(bytes) {
        Ok(message) if message.contacts().is_err() => BadContacts,
        Ok(_) => Good,
        Err(malformed) => match (malformed.kind, malformed.answer) {
            (MalformedKind::Answerable, Some(answer)) => Answer(answer.code),
            (MalformedKind::NotSip, None) => Drop,
            (kind, _) => panic!("{kind:?}, but its answer says otherwise"),
        },
    }
}

fn with_message<T>(name: &str, check: impl FnOnce(&Message<'_>) -> T) -> T {
    let bytes = bytes(name);
    check(&parse(&bytes).unwrap_or_else(|malformed| panic!("{name}: {malformed}")))
}

#[test]
fn every_message_gets_its_verdict() {
    let wrong: Vec<String> = TABLE
        .iter()
        .filter_map(|&(name, expected, why)| {
            let found = verdict(&bytes(name));
            (found != expected).then(|| format!("{name}: {found:?} rather than {expected:?} ({why})"))
        })
        .collect();
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn the_table_has_every_file_once() {
    let path = format!("{}/tests/data/rfc4475", env!("CARGO_MANIFEST_DIR"));
    let mut files: Vec<String> = std::fs::read_dir(path)
        .expect("the data is there")
        .map(|entry| entry.expect("readable").file_name().into_string().expect("UTF-8"))
        .collect();
    files.sort();
    let mut listed: Vec<String> = TABLE.iter().map(|(name, ..)| format!("{name}.dat")).collect();
    listed.sort();
    assert_eq!(files, listed);
}

/// Whatever is answerable can be answered, and the answer is a message that we read ourselves; the one exception is a
/// request without the headers that an answer must have.
#[test]
fn every_refusal_can_be_written() {
    for (name, expected, _) in TABLE {
        let Answer(code) = expected else { continue };
        let bytes = bytes(name);
        let answer = parse(&bytes).expect_err(name).answer.expect(name);
        let via = answer.message.via().expect(name);
        assert!(!via.host.is_empty());
        let text = Writer::response_to(&answer.message, code, answer.phrase, Some("t"), None).finish();
        let text = String::from_utf8(text).expect("ASCII");
        assert!(text.starts_with(&format!("SIP/2.0 {code} {}\r\nVia: SIP/", answer.phrase)), "{name}: {text}");
        assert_eq!(text.matches("\r\nTo: ").count(), usize::from(name != "insuf"), "{name}: {text}");
    }
}

#[test]
fn section_3_1_1_1_folded_values_are_whole() {
    with_message("wsinv", |message| {
        assert_eq!(message.cseq(), (9, "INVITE"));
        assert_eq!(message.max_forwards(), Some(Ok(68)));
        assert_eq!(message.to().expect("To").tag(), Some("1918181833n"));
        let from = message.from().expect("From");
        assert_eq!(from.display, Some(r#"J Rosenberg \\\""#));
        assert_eq!((from.uri, from.tag()), ("sip:jdrosen@example.com", Some("98asjd8")));
        let via = message.via().expect("Via");
        assert_eq!((via.transport, via.host, via.branch), ("UDP", "192.0.2.2", Some("390skdjuw")));
        assert_eq!(message.vias().count(), 3);
        assert_eq!(message.header(HeaderName::Subject), Some(""));
        let Ok(Contacts::List(mut contacts)) = message.contacts() else { panic!("contacts") };
        let contact = contacts.next().expect("one");
        assert_eq!(contact.display, Some(r#"Quoted string \"\""#));
        assert_eq!(contact.param("newparam"), Some(Some("newvalue")));
        assert_eq!(contact.param("secondparam"), Some(None));
        assert_eq!(contact.q(), Some(Ok(330)));
        assert_eq!(message.body.len(), 150);
    });
}

#[test]
fn section_3_1_1_2_unusual_characters_are_themselves() {
    with_message("intmeth", |message| {
        assert_eq!(message.method(), Some("!interesting-Method0123456789_*+`.%indeed'~"));
        let to = message.to().expect("To");
        assert_eq!(to.display, Some("BEL:\\\u{7} NUL:\\\0 DEL:\\\u{7f}"));
        let user = to.uri().expect("URI").user;
        assert_eq!(user, Some("1_unusual.URI~(to-be!sure)&isn't+it$/crazy?,/;;*"));
        let from = message.from().expect("From");
        assert_eq!(from.param("fromParam''~+*_!.-%"), Some(Some("работающий")));
        assert_eq!(from.tag(), Some("_token~1'+`*%!-."));
        assert_eq!(message.header_named("EXTENSIONheader-!.%*+_`'~"), Some("\u{feff}大停電"));
    });
}

#[test]
fn section_3_1_1_3_escapes_are_left_alone() {
    with_message("esc01", |message| {
        let uri = encamp::sip::header::Uri::parse(message.uri().expect("a request")).expect("URI");
        assert_eq!((uri.user, uri.host), (Some("sips%3Auser%40example.com"), "example.net"));
    });
}

#[test]
fn section_3_1_1_5_an_escaped_header_name_is_another_header() {
    with_message("esc02", |message| {
        assert_eq!(message.method(), Some("RE%47IST%45R"));
        let Ok(Contacts::List(contacts)) = message.contacts() else { panic!("contacts") };
        let uris: Vec<&str> = contacts.map(|contact| contact.uri).collect();
        assert_eq!(uris, ["sip:alias1@host1.example.com", "sip:alias3@host3.example.com"]);
    });
}

#[test]
fn section_3_1_1_7_all_34_vias_are_found() {
    with_message("longreq", |message| {
        assert_eq!(message.vias().count(), 34);
        assert_eq!(message.via().expect("Via").host, "sip33.example.com");
        assert_eq!(message.vias().last().map(|via| via.starts_with("SIP/2.0/TCP host.example.com;")), Some(true));
    });
}

#[test]
fn section_3_1_1_8_the_second_request_is_not_the_body() {
    with_message("dblreq", |message| {
        assert_eq!(message.call_id(), "dblreq.0ha0isndaksdj99sdfafnl3lk233412");
        assert_eq!(message.body, b"");
    });
}

#[test]
fn section_3_1_1_12_and_13_phrases() {
    with_message("unreason", |message| match message.start {
        StartLine::Response { code, reason } => {
            assert_eq!((code, reason.starts_with("= 2**3 * 5**2 но")), (200, true));
        }
        StartLine::Request { .. } => panic!("a response"),
    });
    with_message("noreason", |message| {
        assert_eq!(message.start, StartLine::Response { code: 100, reason: "" });
    });
}

#[test]
fn section_3_2_1_a_cookie_alone_is_no_branch() {
    with_message("badbranch", |message| assert_eq!(message.via().expect("Via").branch, None));
}

#[test]
fn section_3_3_12_to_14_whose_parameter_it_is() {
    let first = |name: &str| {
        with_message(name, |message| {
            let Ok(Contacts::List(mut contacts)) = message.contacts() else { panic!("{name}: contacts") };
            let contact = contacts.next().expect("one");
            let uri = contact.uri().expect("URI");
            (contact.param("unknownparam").is_some(), uri.params.get("unknownparam").is_some(), uri.headers.is_some())
        })
    };
    assert_eq!(first("cparam01"), (true, false, false));
    assert_eq!(first("cparam02"), (false, true, false));
    assert_eq!(first("regescrt"), (false, false, true));
}
