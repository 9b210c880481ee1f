//! What base stations send is read, what we write they can read, and what neither should send is refused.

mod wire;

use std::net::{IpAddr, SocketAddr};

use encamp::sip::header::{HeaderName, NameAddr, Uri, Via, auth_params, cgi_3gpp, uri_equal};
use encamp::sip::parse::{Contacts, HEADERS_MAX, MESSAGE_BYTES_MAX, MalformedKind, Message, StartLine, parse};
use encamp::sip::write::{DATAGRAM_BYTES_MAX, ECHO_BYTES_MAX, Writer, echo_bytes, reply_target};

fn with<T>(text: &str, check: impl FnOnce(&Message<'_>) -> T) -> T {
    let bytes = wire::message(text);
    check(&parse(&bytes).unwrap_or_else(|malformed| panic!("{malformed}:\n{text}")))
}

/// The one contact of a message: URI and expires.
fn contact<'a>(message: &Message<'a>) -> NameAddr<'a> {
    match message.contacts() {
        Ok(Contacts::List(mut list)) if list.len() == 1 => list.next().expect("one"),
        other => panic!("{other:?}"),
    }
}

fn refusal(text: &str) -> (&'static str, Option<u16>) {
    let bytes = wire::message(text);
    match parse(&bytes) {
        Ok(message) => panic!("accepted: {message:?}"),
        Err(malformed) => (malformed.why, malformed.answer.map(|answer| answer.code)),
    }
}

#[test]
fn openbts_register() {
    with(wire::OPENBTS_REGISTER, |message| {
        assert_eq!(message.start, StartLine::Request { method: "REGISTER", uri: "sip:127.0.0.1" });
        let to = message.to().expect("To");
        assert_eq!((to.display, to.tag()), (None, None));
        let uri = to.uri().expect("URI");
        assert_eq!((uri.user, uri.host, uri.port), (Some("IMSI001010000000001"), "127.0.0.1", Some(5064)));
        assert_eq!(message.from().expect("From").tag(), Some("OBTSmedozorenxebtuzb"));
        let via = message.via().expect("Via");
        assert_eq!((via.transport, via.host, via.port), ("UDP", "127.0.0.1", Some(5062)));
        assert_eq!((via.branch, via.rport_asked), (Some("z9hG4bKOBTSnsjuyybeaexeivcf"), false));
        assert_eq!(message.call_id(), "9200ac34758d0f49");
        assert_eq!(message.cseq(), (131736, "REGISTER"));
        assert_eq!(contact(message).expires(), Some(Ok(5400)));
        assert_eq!(message.expires(), None);
        assert!(message.authorization().is_none());
        let cell = message.header_named("p-access-network-info").and_then(cgi_3gpp);
        assert_eq!(cell, Some("0010103e8000a"));
        assert_eq!(message.body, b"");
    });
}

#[test]
fn the_three_openbts_forms_of_authorization_and_that_of_yatebts() {
    let answer = |text: &str| {
        with(text, |message| {
            let auth = message.authorization().expect("Authorization");
            assert!(auth.is_digest());
            ["nonce", "uri", "response", "realm"].map(|name| auth.param(name).unwrap_or("-").to_owned())
        })
    };
    assert_eq!(
        answer(wire::OPENBTS_SECOND_LEG),
        ["4f3710c525946fc37dbdcc865b155779", "001010000000001", "666e2f7a", "-"]
    );
    assert_eq!(
        answer(wire::OPENBTS_4_REGISTER),
        ["7fa68566fa8af919c926247b1b2a04c7", "001010002220002", "a4b2f099", "-"]
    );
    assert_eq!(
        answer(wire::YATEBTS_REGISTER),
        ["q7BnCSV3TEuDJbRxQ+XyMg==", "226030182676743", "92a3d2b1", "192.0.2.5"]
    );
    let realm = "Digest realm=\"R\", username=\"IMSI001010000000001\", nonce=\"4f3710c525946fc37dbdcc865b155779\", \
                 uri=\"sip:R\", response=\"0123456789abcdef0123456789abcdef\", algorithm=MD5, qop=\"auth\" ";
    let auth = auth_params(realm).expect("Digest");
    assert_eq!(auth.param("QOP"), Some("auth"));
    assert_eq!(auth.param("uri"), Some("sip:R"));
    assert_eq!(auth.params().count(), 7);
}

#[test]
fn challenges_and_authentication_info() {
    with(wire::SIPAUTHSERVE_401, |message| {
        let challenge = message.header(HeaderName::WwwAuthenticate).and_then(auth_params).expect("a challenge");
        assert_eq!((challenge.scheme, challenge.param("nonce")), ("Digest", Some("4f3710c525946fc37dbdcc865b155779")));
    });
    let auth = |text| auth_params(text).map(|auth| (auth.scheme, auth.param("cnonce")));
    assert_eq!(auth("cnonce=4046A82E7079AC00"), Some(("", Some("4046A82E7079AC00"))));
    assert_eq!(auth("cnonce = \"4046\", nc=1"), Some(("", Some("4046"))));
    assert_eq!(auth("Digest"), Some(("Digest", None)));
    assert_eq!(auth("Digest nonce=\"a,cnonce=b\", cnonce=c"), Some(("Digest", Some("c"))));
    assert_eq!(auth("Digest nonce=\"a"), None);
    assert_eq!(auth(""), None);
    assert_eq!(auth(" , "), None);
}

#[test]
fn openbts_4_register_with_a_branch_that_is_none() {
    with(wire::OPENBTS_4_REGISTER, |message| {
        let via = message.via().expect("Via");
        assert_eq!(via.branch, None);
        assert_eq!(via.params.get("branch"), Some(None));
        assert_eq!(message.from().expect("From").display, Some("IMSI001010002220002"));
        assert_eq!(message.header_named("P-Access-Network-Info").and_then(cgi_3gpp), Some("0010103ef000a"));
    });
}

#[test]
fn openbts_invite_and_message() {
    with(wire::OPENBTS_INVITE, |message| {
        assert_eq!(message.body.len(), 135);
        let number = message.header(HeaderName::PAssociatedUri).map(NameAddr::parse).expect("there").expect("good");
        assert_eq!(number.uri().expect("tel").user, Some("2101"));
    });
    with(wire::OPENBTS_MESSAGE, |message| {
        assert_eq!(message.header(HeaderName::ContentType), Some("application/vnd.3gpp.sms"));
        assert_eq!(message.body, b"002a000381000012012a0481121000000ac8329bfd06cdcb6c33");
    });
    with(wire::SMQUEUE_MESSAGE, |message| {
        assert_eq!((message.body.len(), message.call_id()), (62, "9Q/XL"));
    });
}

#[test]
fn vias_that_a_base_station_folded_with_a_comma() {
    with(wire::OPENBTS_480, |message| {
        assert_eq!(message.start, StartLine::Response { code: 480, reason: "No_Paging_Response" });
        let vias: Vec<&str> = message.vias().collect();
        assert_eq!(
            vias,
            [
                "SIP/2.0/UDP 127.0.0.1:5063;branch=1;received=smqueue@Range.com",
                "SIP/2.0/UDP 127.0.0.1:5062;branch=z9hG4bKOBTSww",
            ]
        );
        let via = message.via().expect("Via");
        assert_eq!((via.text, via.branch), (vias[0], Some("1")));
        assert_eq!(message.header_named("reason"), Some("Q.850;cause=27 ;text=\"No_Paging_Response\""));
    });
}

#[test]
fn yatebts_register() {
    with(wire::YATEBTS_REGISTER, |message| {
        let contact = contact(message);
        assert_eq!(contact.expires(), Some(Ok(3600)));
        assert_eq!(contact.param("+sip.instance"), Some(Some("<urn:gsma:imei:35469503-356129-0>")));
        assert_eq!(contact.param("+g.3gpp.smsip"), Some(None));
        assert!(message.via().expect("Via").rport_asked);
        assert_eq!(message.header_named("P-Access-Network-Info").and_then(cgi_3gpp), Some("2260303e8000a"));
    });
}

#[test]
fn the_cell_in_every_spelling() {
    let table = [
        ("3GPP-GERAN; cgi-3gpp=0010103e8000a", Some("0010103e8000a")),
        ("3GPP-GERAN;CGI-3GPP=\"0010103e8000a\";x=1", Some("0010103e8000a")),
        ("3GPP-GERAN; cgi-3gpp = 0010103e8000a ; gstn-location=\"x\"", Some("0010103e8000a")),
        ("3GPP-UTRAN-FDD; utran-cell-id-3gpp=00101", None),
        ("3GPP-GERAN; cgi-3gpp=", None),
        ("", None),
    ];
    for (value, expected) in table {
        assert_eq!(cgi_3gpp(value), expected, "{value}");
    }
}

/// A REGISTER in which one line is another.
fn register_with(line: &str, instead: &str) -> String {
    assert!(wire::OPENBTS_REGISTER.contains(line), "{line}");
    wire::OPENBTS_REGISTER.replacen(line, instead, 1)
}

#[test]
fn what_base_stations_and_sloppy_peers_may_leave_out_or_add() {
    let accepted = [
        register_with("Max-Forwards: 70\n", ""),
        register_with("Content-Length: 0\n", ""),
        register_with("Content-Length: 0\n", "Content-Length : 0\n"),
        register_with("Call-ID:", "Call-ID \t:"),
        register_with("Call-ID:", "i:"),
        register_with("P-PHY-Info: OpenBTS;", "P-PHY-Info:\n  OpenBTS;\n\t"),
        register_with("To:", "\u{74}:"),
        register_with(";expires=5400", " ; expires = 5400"),
        format!("\n\n{}", wire::OPENBTS_REGISTER),
    ];
    for text in &accepted {
        with(text, |message| {
            assert_eq!(message.call_id(), "9200ac34758d0f49");
            assert_eq!(contact(message).expires(), Some(Ok(5400)));
        });
    }
    // Lines that end with LF alone.
    assert!(parse(wire::OPENBTS_REGISTER.as_bytes()).is_ok());
}

#[test]
fn what_is_refused_with_400() {
    let table = [
        (register_with("Call-ID: 9200ac34758d0f49\n", ""), "no Call-ID"),
        (register_with("Call-ID: 9200ac34758d0f49", "Call-ID: a b"), "a Call-ID that is empty or has blanks"),
        (register_with("CSeq: 131736 REGISTER", "CSeq: 131736 INVITE"), "a CSeq of another method"),
        (register_with("CSeq: 131736", "CSeq: 2147483648"), "a CSeq that is no number below 2^31"),
        (register_with("CSeq: 131736", "CSeq: +1"), "a CSeq that is no number below 2^31"),
        (register_with("Max-Forwards", "CSeq: 1 REGISTER\nMax-Forwards"), "a header twice that may stand once"),
        (register_with("Max-Forwards", "t: <sip:a@b>\nMax-Forwards"), "a header twice that may stand once"),
        (register_with("Max-Forwards", "no colon\nMax-Forwards"), "a line that is no header"),
        (register_with("Max-Forwards", ": no name\nMax-Forwards"), "a line that is no header"),
        (register_with("Max-Forwards", "P-X: a\rVia: b\nMax-Forwards"), "a CR without its LF"),
        (register_with("To:  <", "To:  <<"), "a character that no URI may have"),
        (register_with(">;tag=OBTS", ">;tag=;x=OBTS"), "an empty tag"),
        (register_with("Content-Length: 0", "Content-Length: 1"), "a Content-Length longer than the message"),
        (register_with("Content-Length: 0", "Content-Length: 4294967296"), "a Content-Length that is no number"),
        (register_with("Content-Length: 0\n\n", "Content-Length: 0\n"), "no empty line after the headers"),
        (register_with("sip:127.0.0.1 ", "sip:2001:db8::10 "), "a port that is not between 1 and 65535"),
        (register_with("sip:127.0.0.1 ", "sip:127.0.0.1:0 "), "a port that is not between 1 and 65535"),
        (register_with("REGISTER sip", "REGISTER\tsip"), "blanks in the start line"),
    ];
    for (text, why) in table {
        assert_eq!(refusal(&text), (why, Some(400)), "{text}");
    }
}

#[test]
fn what_gets_no_answer() {
    let table = [
        register_with("REGISTER sip:127.0.0.1 SIP/2.0", "GET / HTTP/1.1"),
        register_with("REGISTER sip:127.0.0.1 SIP/2.0", "SIP/2.0 99 Low"),
        register_with("REGISTER sip:127.0.0.1 SIP/2.0", "SIP/2.0 200OK"),
        register_with("REGISTER sip:127.0.0.1 SIP/2.0", "SIP/3.0 200 OK"),
        // An ACK is not answered, whatever is wrong with it.
        wire::OPENBTS_REGISTER.replace("REGISTER", "ACK").replace("Call-ID: 9200ac34758d0f49\n", ""),
        // Nor is what has no return address.
        register_with("Via: SIP/2.0/UDP 127.0.0.1:5062", "Via: SIP/2.0/UDP "),
        register_with("Via: SIP/2.0/UDP 127.0.0.1:5062;branch=z9hG4bKOBTSnsjuyybeaexeivcf\n", ""),
        register_with("CSeq: 131736 REGISTER\n", ""),
        // A response with anything wrong.
        wire::OPENBTS_480.replace("CSeq: 131736 INVITE", "CSeq: x INVITE"),
        "jaK".to_owned(),
        "\u{0}\u{0}".to_owned(),
    ];
    for text in table {
        let bytes = wire::message(&text);
        let malformed = parse(&bytes).expect_err(&text);
        assert_eq!((malformed.kind, malformed.answer.is_some()), (MalformedKind::NotSip, false), "{text}");
    }
    for keep_alive in ["", "\r\n", "\r\n\r\n"] {
        assert_eq!(parse(keep_alive.as_bytes()).expect_err("nothing").kind, MalformedKind::KeepAlive);
    }
}

#[test]
fn limits() {
    let many = |count: usize| register_with("Max-Forwards", &format!("{}Max-Forwards", "X: y\n".repeat(count)));
    let own = wire::OPENBTS_REGISTER.lines().filter(|line| line.contains(": ")).count();
    with(&many(HEADERS_MAX - own), |message| assert_eq!(message.headers().count(), HEADERS_MAX));
    assert_eq!(refusal(&many(HEADERS_MAX - own + 1)), ("too many headers", Some(400)));
    let mut long = wire::message(&register_with("Content-Length: 0\n", ""));
    long.resize(MESSAGE_BYTES_MAX, b'x');
    assert!(parse(&long).is_ok());
    long.push(b'x');
    assert_eq!(parse(&long).expect_err("too long").kind, MalformedKind::NotSip);
}

#[test]
fn a_value_that_is_not_utf8_harms_no_other() {
    let mut bytes = wire::message(&register_with("User-Agent: OpenBTS", "User-Agent: #"));
    let at = bytes.iter().position(|&b| b == b'#').expect("marked");
    bytes[at] = 0xe9;
    let message = parse(&bytes).expect("usable");
    assert_eq!(message.header(HeaderName::UserAgent), None);
    assert_eq!(message.headers_bytes().filter(|(name, _)| *name == "User-Agent").count(), 1);
    assert_eq!(message.content_length(), Some(Ok(0)));

    let mut bytes = wire::message(&register_with("Call-ID: 9", "Call-ID: #"));
    let at = bytes.iter().position(|&b| b == b'#').expect("marked");
    bytes[at] = 0xe9;
    let malformed = parse(&bytes).expect_err("no Call-ID that we could compare");
    let answer = malformed.answer.expect("answerable");
    let text = Writer::response_to(&answer.message, 400, answer.phrase, None, None).finish();
    assert!(text.windows(7).any(|text| text == b"\xe9200ac3"), "the Call-ID is echoed as it came");
}

#[test]
fn a_second_via_does_not_stand_in_for_an_unreadable_first() {
    let mut bytes = wire::message(&register_with("Via: S", "Via: #\nVia: S"));
    let at = bytes.iter().position(|&b| b == b'#').expect("marked");
    bytes[at] = 0xe9;
    assert_eq!(parse(&bytes).expect_err("no way back").kind, MalformedKind::NotSip);
}

#[test]
fn contacts_are_all_or_nothing() {
    let contacts = |value: &str| {
        with(&register_with("<sip:IMSI001010000000001@127.0.0.1:5062>;expires=5400", value), |message| {
            message.contacts().map(|contacts| match contacts {
                Contacts::None => "none".to_owned(),
                Contacts::Star => "*".to_owned(),
                Contacts::List(list) => list.map(|contact| contact.uri).collect::<Vec<_>>().join(" "),
            })
        })
    };
    let table = [
        ("*", Some("*")),
        ("<sip:a@b>, <sip:c@d>;q=0.1", Some("sip:a@b sip:c@d")),
        ("\"x, <sip:no@no>\" <sip:a@b>,sip:c@d;expires=1", Some("sip:a@b sip:c@d")),
        ("\"quo\\\"te, \\\\\" <sip:a@b>\nm: <sip:c,e@d>", Some("sip:a@b sip:c,e@d")),
        ("<sip:a@[2001:db8::1]:5060>", Some("sip:a@[2001:db8::1]:5060")),
        ("<tel:+15550001>", Some("tel:+15550001")),
        ("<sip:a@b>, *", None),
        ("*\nContact: *", None),
        ("<sip:a@b>,", None),
        ("<sip:a@b>, <sip:c@>", None),
        ("<sip:a@b>, sip:c@d?x=y", None),
        ("<sip:a@b>, \"open <sip:c@d>", None),
        ("<sip:a@b", None),
        ("<sip:a@b@c>", None),
        ("", None),
    ];
    for (value, expected) in table {
        assert_eq!(contacts(value).ok().as_deref(), expected, "{value}");
    }
    with(&register_with("Contact: <sip:IMSI001010000000001@127.0.0.1:5062>;expires=5400\n", ""), |message| {
        assert!(matches!(message.contacts(), Ok(Contacts::None)));
    });
}

#[test]
fn expires_in_header_and_parameter() {
    let table = [
        ("0", Some(0)),
        ("0060", Some(60)),
        ("4294967295", Some(u32::MAX)),
        ("4294967296", None),
        ("-1", None),
        ("+1", None),
        ("soon", None),
        ("", None),
    ];
    for (value, expected) in table {
        let text = register_with("Max-Forwards", &format!("Expires: {value}\nMax-Forwards"));
        let text = text.replace("expires=5400", &format!("expires={value}"));
        with(&text, |message| {
            assert_eq!(message.expires().expect("there").ok(), expected, "{value}");
            assert_eq!(contact(message).expires().expect("there").ok(), expected, "{value}");
        });
    }
}

#[test]
fn q_in_thousandths() {
    let q = |value: &str| NameAddr::parse(&format!("<sip:a@b>;q={value}")).expect("good").q().expect("there").ok();
    for (value, expected) in [("1", 1000), ("1.000", 1000), ("0", 0), ("0.", 0), ("0.5", 500), ("0.045", 45)] {
        assert_eq!(q(value), Some(expected), "{value}");
    }
    for value in ["", "2", "1.1", "0.1234", ".5", "-0", "0.x"] {
        assert_eq!(q(value), None, "{value}");
    }
}

#[test]
fn uris_in_their_parts() {
    let parts = |text| {
        Uri::parse(text).ok().map(|uri| (uri.user.unwrap_or("-"), uri.host, uri.port, uri.params.as_str(), uri.headers))
    };
    assert_eq!(parts("sip:127.0.0.1"), Some(("-", "127.0.0.1", None, "", None)));
    assert_eq!(parts("SIP:*100#@h:1;lr?a=b"), Some(("*100#", "h", Some(1), ";lr", Some("a=b"))));
    assert_eq!(parts("sips:u:p@[::1]:5061"), Some(("u", "::1", Some(5061), "", None)));
    assert_eq!(
        parts("sip:user;par=u%40example.net@example.com"),
        Some(("user;par=u%40example.net", "example.com", None, "", None))
    );
    assert_eq!(parts("tel:+1-555;phone-context=x"), Some(("+1-555", "", None, ";phone-context=x", None)));
    assert_eq!(parts("urn:service:sos"), Some(("-", "", None, "", None)));
    for bad in [
        "",
        "sip",
        "sip:",
        ":a@b",
        "1sip:a@b",
        "sip:a@",
        "sip:a@b:",
        "sip:a@b:70000",
        "sip:[::1",
        "sip:[x]",
        "tel:",
        "sip:a b@c",
        "sip:a@b;;x",
        "sip:a@é",
        "sip:a@b\u{7f}",
    ] {
        assert_eq!(parts(bad), None, "{bad}");
    }
}

#[test]
fn section_19_1_4_equal_uris() {
    let equal = [
        ("sip:alice@atlanta.com;transport=TCP", "sip:%61lice@atlanta.com;transport=TCP"),
        ("SIP:alice@AtLanTa.CoM;Transport=tcp", "sip:alice@atlanta.com;transport=TCP"),
        ("sip:carol@chicago.com", "sip:carol@chicago.com;newparam=5"),
        ("sip:carol@chicago.com;newparam=5", "sip:carol@chicago.com;security=on"),
        (
            "sip:biloxi.com;transport=tcp;method=REGISTER?to=sip:bob%40biloxi.com",
            "sip:biloxi.com;method=REGISTER;transport=tcp?to=sip:bob%40biloxi.com",
        ),
        (
            "sip:alice@atlanta.com?subject=project%20x&priority=urgent",
            "sip:alice@atlanta.com?priority=urgent&subject=project%20x",
        ),
        ("sip:a%3bb@h", "sip:a%3Bb@h"),
        ("sip:a@[2001:db8::1]", "sip:a@[2001:DB8:0::1]"),
        ("tel:+1-555-0001", "tel:+1(555)0001"),
        ("urn:x:y", "urn:x:y"),
    ];
    let different = [
        ("SIP:ALICE@AtLanTa.CoM;Transport=udp", "sip:alice@AtLanTa.CoM;Transport=UDP"),
        ("sip:bob@biloxi.com", "sip:bob@biloxi.com:5060"),
        ("sip:bob@biloxi.com", "sip:bob@biloxi.com;transport=udp"),
        ("sip:bob@biloxi.com", "sip:bob@biloxi.com:6000;transport=tcp"),
        ("sip:carol@chicago.com", "sip:carol@chicago.com?Subject=next%20meeting"),
        ("sip:bob@phone21.boxesbybob.com", "sip:bob@192.0.2.4"),
        ("sip:carol@chicago.com;security=on", "sip:carol@chicago.com;security=off"),
        ("sip:bob@biloxi.com", "sips:bob@biloxi.com"),
        ("sip:a;b@h", "sip:a%3Bb@h"),
        ("sip:a@h", "sip:h"),
        ("sip:a@h;maddr=192.0.2.1", "sip:a@h"),
        ("tel:+15550001", "tel:+15550002"),
        ("tel:+15550001;ext=1", "tel:+15550001"),
        ("urn:x:y", "URN:x:y"),
        ("nonsense", "Nonsense"),
    ];
    for (a, b) in equal {
        assert!(uri_equal(a, b) && uri_equal(b, a), "{a} {b}");
    }
    for (a, b) in different {
        assert!(!uri_equal(a, b) && !uri_equal(b, a), "{a} {b}");
    }
}

#[test]
fn the_answer_to_a_register_word_for_word() {
    let bytes = with(wire::OPENBTS_SECOND_LEG, |message| {
        let source: IpAddr = "127.0.0.1".parse().expect("address");
        Writer::response_to(message, 200, "OK", Some("e1"), Some((source, Some(5062))))
            .header("Contact", "<sip:IMSI001010000000001@127.0.0.1:5062>;expires=5400")
            .header_fmt("P-Associated-URI", format_args!("<tel:{}>", 2101))
            .header("Authentication-Info", "cnonce=4046A82E7079AC00")
            .finish()
    });
    let expected = "\
SIP/2.0 200 OK
Via: SIP/2.0/UDP 127.0.0.1:5062;branch=z9hG4bKOBTSqpbneyzdlhwxyvfi
From: <sip:IMSI001010000000001@127.0.0.1:5064>;tag=OBTSxovhqaeblwuixwqp
To: <sip:IMSI001010000000001@127.0.0.1:5064>;tag=e1
Call-ID: 9200ac34758d0f49
CSeq: 131737 REGISTER
Contact: <sip:IMSI001010000000001@127.0.0.1:5062>;expires=5400
P-Associated-URI: <tel:2101>
Authentication-Info: cnonce=4046A82E7079AC00
Content-Length: 0

";
    assert_eq!(String::from_utf8(bytes).expect("ASCII"), expected.replace('\n', "\r\n"));
}

/// The Via lines of an answer to a request with these, from this source.
fn answered_vias(vias: &str, source: &str) -> Vec<String> {
    let text = register_with("Via: SIP/2.0/UDP 127.0.0.1:5062;branch=z9hG4bKOBTSnsjuyybeaexeivcf", vias);
    let source: SocketAddr = source.parse().expect("address");
    let bytes = with(&text, |message| {
        Writer::response_to(message, 200, "OK", None, Some((source.ip(), Some(source.port())))).finish()
    });
    let text = String::from_utf8(bytes).expect("ASCII");
    text.lines().filter_map(|line| line.strip_prefix("Via: ")).map(str::to_owned).collect()
}

#[test]
fn section_18_2_1_received_and_rport() {
    let table = [
        ("192.0.2.1;branch=z9hG4bKa", "192.0.2.1:5060", "192.0.2.1;branch=z9hG4bKa"),
        ("192.0.2.1;branch=z9hG4bKa", "192.0.2.2:9", "192.0.2.1;branch=z9hG4bKa;received=192.0.2.2"),
        ("bts.example;branch", "192.0.2.2:9", "bts.example;branch;received=192.0.2.2"),
        ("192.0.2.1;rport;branch=x", "192.0.2.1:9", "192.0.2.1;branch=x;received=192.0.2.1;rport=9"),
        ("192.0.2.1;received=203.0.113.9;x", "192.0.2.2:9", "192.0.2.1;x;received=192.0.2.2"),
        ("[2001:db8::1]:5070 ; x = \"y;z\"", "[2001:db8::2]:9", "[2001:db8::1]:5070;x=\"y;z\";received=2001:db8::2"),
        ("192.0.2.1", "[::ffff:192.0.2.1]:9", "192.0.2.1"),
    ];
    for (via, source, expected) in table {
        let found = answered_vias(&format!("Via: SIP/2.0/UDP {via}"), source);
        assert_eq!(found, [format!("SIP/2.0/UDP {expected}")]);
    }
    let found = answered_vias("Via: SIP/2.0/UDP a;branch=1 ,\n SIP/2.0/UDP b\nv: SIP/2.0/TCP c", "192.0.2.1:5060");
    assert_eq!(found, ["SIP/2.0/UDP a;branch=1;received=192.0.2.1", "SIP/2.0/UDP b", "SIP/2.0/TCP c"]);
}

#[test]
fn section_18_2_2_where_the_answer_goes() {
    let table = [
        ("SIP/2.0/UDP 127.0.0.1:5062;branch", "127.0.0.1:40000", "127.0.0.1:5062"),
        ("SIP/2.0/UDP 198.51.100.1", "192.0.2.1:40000", "192.0.2.1:5060"),
        ("SIP/2.0/UDP 198.51.100.1:5070;rport", "192.0.2.1:40000", "192.0.2.1:40000"),
        ("SIP/2.0/UDP 198.51.100.1:5070;maddr=203.0.113.1", "192.0.2.1:40000", "192.0.2.1:5070"),
    ];
    for (via, source, target) in table {
        let via = Via::parse(via).expect("Via");
        let source = source.parse().expect("address");
        assert_eq!(reply_target(&via, source).to_string(), target);
    }
}

#[test]
fn the_tag_stands_last_in_to_and_is_not_doubled() {
    let to = |value: &str| {
        let text = register_with("To:  <sip:IMSI001010000000001@127.0.0.1:5064>", &format!("To: {value}"));
        let bytes = with(&text, |message| Writer::response_to(message, 200, "OK", Some("mine"), None).finish());
        let text = String::from_utf8(bytes).expect("ASCII");
        text.lines().find_map(|line| line.strip_prefix("To: ")).expect("To").to_owned()
    };
    assert_eq!(to("<sip:a@b>;x=y"), "<sip:a@b>;x=y;tag=mine");
    assert_eq!(to("<sip:a@b>;TAG=theirs;x"), "<sip:a@b>;TAG=theirs;x");
    assert_eq!(to("sip:a@b"), "sip:a@b;tag=mine");
    assert_eq!(to("\"a;tag=b\"\n <sip:a@b;tag=c>"), "\"a;tag=b\" <sip:a@b;tag=c>;tag=mine");
}

#[test]
fn no_value_can_start_a_line() {
    let bytes = Writer::request("MESSAGE", "sip:a@b\r\nEvil: 1")
        .header("Subject", "x\r\nEvil: 2\n\nEvil: 3")
        .header_fmt("Reason", format_args!("{}", "y\rEvil: 4"))
        .body("text/plain\r\n\r\n", b"Hello\r\n")
        .finish();
    let text = String::from_utf8(bytes).expect("ASCII");
    assert_eq!(
        text,
        "MESSAGE sip:a@bEvil: 1 SIP/2.0\r\nSubject: xEvil: 2Evil: 3\r\nReason: yEvil: 4\r\n\
         Content-Type: text/plain\r\nContent-Length: 7\r\n\r\nHello\r\n"
    );
}

#[test]
fn too_long_for_a_base_station() {
    let long = register_with("branch=z9hG4bKOBTS", &format!("branch=z9hG4bK{}", "x".repeat(1300)));
    with(&long, |message| {
        assert!(echo_bytes(message) > ECHO_BYTES_MAX);
        let mut writer = Writer::response_to(message, 200, "OK", None, None);
        assert_eq!(writer.header("Subject", &"x".repeat(100)).finish_within(DATAGRAM_BYTES_MAX), None);
    });
    with(wire::OPENBTS_REGISTER, |message| {
        assert!(echo_bytes(message) < 250);
        let bytes = Writer::response_to(message, 200, "OK", None, None).finish_within(DATAGRAM_BYTES_MAX);
        assert!(bytes.is_some());
    });
}
