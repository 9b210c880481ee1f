//! Any mail of ours is read back as it was meant, by a reader that is not ours; and nothing that somebody wrote becomes a line of it.

#![cfg(feature = "box")]

use encamp::gsm::text::Coding;
use encamp::gsm::tpdu::UserData;
use encamp::mail::address::Address;
use encamp::mail::{Action, AutoSubmitted, Body, MailOut, Notify, Relayed, Report};
use encamp::shell::dress::{dress, lines, to_xtext};
use mail_parser::{HeaderValue, MessageParser, MimeHeaders};
use proptest::prelude::*;

fn mail(subject: &str, name: &str, body: Body) -> MailOut {
    MailOut {
        from: None,
        to: Address::parse("carol@example.org").unwrap(),
        header_from: Address::parse("+15550001@sms.gsm.example").unwrap(),
        header_from_name: name.into(),
        subject: subject.into(),
        body,
        message_id: "17.0123456789abcdef@sms.gsm.example".into(),
        in_reply_to: Some("last@example.org".into()),
        references: vec!["first@example.org".into(), "last@example.org".into()],
        date_s: 1_800_000_000,
        auto_submitted: AutoSubmitted::Replied,
        notify: Notify::default(),
        envid: None,
        traces: vec!["sms.hill.example".into(), "sms.gsm.example".into()],
    }
}

/// What a header can say of it: control characters are blanks there.
fn blanked(text: &str) -> String {
    text.replace("\r\n", " ").chars().map(|char| if char.is_control() { ' ' } else { char }).collect()
}

/// Shape:  ASCII, CRLF at the end of each line and nowhere else, no line above 998 octets (RFC 5322 §2.1.1).
fn check_form(octets: &[u8]) {
    let text = std::str::from_utf8(octets).unwrap();
    assert!(text.is_ascii() && text.ends_with("\r\n"));
    for line in text.split("\r\n") {
        assert!(line.len() <= 998 && !line.contains(['\r', '\n', '\0']), "{line:?}");
    }
}

fn names(octets: &[u8]) -> Vec<String> {
    let message = MessageParser::new().parse(octets).unwrap();
    message.headers().iter().map(|header| header.name().to_ascii_lowercase()).collect()
}

const USUAL: [&str; 13] = [
    "x-encamp-trace",
    "x-encamp-trace",
    "from",
    "to",
    "date",
    "message-id",
    "in-reply-to",
    "references",
    "subject",
    "auto-submitted",
    "mime-version",
    "content-type",
    "content-transfer-encoding",
];

/// Letters of several scripts, blanks, and everything that means something in a header.
fn wild() -> impl Strategy<Value = String> {
    prop_oneof![
        "[ -~]{0,200}",
        "(\\PC|[ \r\n\t=?_<>\",@:;.-]){0,120}",
        proptest::collection::vec(any::<char>(), 0..80).prop_map(String::from_iter),
        "(word |=\\?utf-8\\?B\\?|\r\nX-Evil: 1|\r\n\r\n|\r\n\\.\r\n|ü|  ){0,30}",
        "[a-z]{0,1200}",
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 1_000, failure_persistence: None, ..ProptestConfig::default() })]
    #[test]
    fn any_mail_is_read_back_as_it_was_meant(subject in wild(), name in wild(), words in wild()) {
        let out = mail(&subject, &name, Body::Text(words.clone()));
        let dressed = dress(&out);
        check_form(&dressed.octets);
        let message = MessageParser::new().parse(&dressed.octets).unwrap();
        prop_assert_eq!(names(&dressed.octets), USUAL);
        prop_assert_eq!(message.subject().unwrap_or_default(), blanked(&subject));
        let from = message.from().unwrap().first().unwrap();
        prop_assert_eq!(from.address(), Some("+15550001@sms.gsm.example"));
        prop_assert_eq!(from.name().unwrap_or_default(), blanked(&name).trim().to_owned());
        prop_assert_eq!(message.to().unwrap().first().unwrap().address(), Some("carol@example.org"));
        prop_assert_eq!(message.message_id(), Some("17.0123456789abcdef@sms.gsm.example"));
        prop_assert_eq!(message.in_reply_to().as_text(), Some("last@example.org"));
        prop_assert_eq!(message.references().as_text_list().unwrap(), ["first@example.org", "last@example.org"]);
        prop_assert_eq!(message.date().unwrap().to_timestamp(), 1_800_000_000);
        let text = message.body_text(0).unwrap().replace("\r\n", "\n");
        prop_assert_eq!(lines(&text), lines(&words));
    }

    #[test]
    fn nothing_of_a_report_or_of_another_box_becomes_a_line_of_ours(text in wild(), bytes in any::<[u8; 20]>()) {
        let report = Report {
            words: text.clone(),
            reporting: text.clone(),
            envid: Some(text.clone()),
            arrived_s: 0,
            orcpt: Some(format!("rfc822;{text}")),
            recipient: text.clone(),
            action: Action::Failed,
            status: (5, 1, 1),
            why: text.clone(),
            headers: text.clone(),
        };
        let dressed = dress(&mail("s", "", Body::Report(report)));
        check_form(&dressed.octets);
        let message = MessageParser::new().parse(&dressed.octets).unwrap();
        prop_assert_eq!(message.parts.len(), 4);
        let sms = sms(&text, &bytes);
        let dressed = dress(&mail("s", "", Body::Sms { words: text, sms: sms.clone() }));
        check_form(&dressed.octets);
        prop_assert_eq!(relayed(&dressed.octets), sms);
    }

    #[test]
    fn ids_that_are_none_are_left_out(id in wild()) {
        let mut out = mail("s", "", Body::Text("w".into()));
        (out.message_id, out.in_reply_to, out.references) = (id.clone(), Some(id.clone()), vec![id]);
        let dressed = dress(&out);
        check_form(&dressed.octets);
        prop_assert!(names(&dressed.octets).iter().all(|name| USUAL.contains(&name.as_str())));
    }
}

fn sms(from: &str, bytes: &[u8]) -> Relayed {
    Relayed {
        from: from.into(),
        to: "+15550002".into(),
        accepted_ms: 1_800_000_000_123,
        life_ms: 60_000,
        single_shot: false,
        protocol: 0,
        reply_path: false,
        hops: 9,
        data: UserData { coding: Coding(0x11), has_header: false, length: 20, bytes: bytes.to_vec() },
    }
}

fn relayed(octets: &[u8]) -> Relayed {
    use base64::Engine as _;
    let message = MessageParser::new().parse(octets).unwrap();
    let Some(HeaderValue::Text(text)) = message.header("X-Encamp-Sms") else { panic!("no header") };
    let text: String = text.chars().filter(|char| !char.is_whitespace()).collect();
    serde_json::from_slice(&base64::engine::general_purpose::STANDARD.decode(text).unwrap()).unwrap()
}

#[test]
fn a_text_for_another_box_is_readable_for_humans_too() {
    let mut out = mail("s", "", Body::Sms { words: "Hi".into(), sms: sms("+15550001", &[0; 20]) });
    out.notify.success = true;
    let text = String::from_utf8(dress(&out).octets).unwrap();
    for line in [
        "X-Encamp-Originator: +15550001\r\n",
        "X-Encamp-Time: Fri, 15 Jan 2027 08:00:00 +0000\r\n",
        "X-Encamp-Class: 1\r\n",
        "X-Encamp-Report: yes\r\n",
    ] {
        assert!(text.contains(line), "{text}");
    }
    assert!(text.starts_with("X-Encamp-Trace: sms.hill.example\r\nX-Encamp-Trace: sms.gsm.example\r\n"), "{text}");
}

#[test]
fn a_report_is_what_rfc_3464_has() {
    let report = Report {
        words: "It could not be delivered.".into(),
        reporting: "sms.gsm.example".into(),
        envid: Some(to_xtext("a+b c")),
        arrived_s: 1_800_000_000,
        orcpt: Some("rfc822;bob+2B1@example.net".into()),
        recipient: "+15550002@sms.gsm.example".into(),
        action: Action::Failed,
        status: (5, 1, 1),
        why: "nobody's number".into(),
        headers: "From: carol@example.org\r\nSubject: Gr=?x\r\n".into(),
    };
    let octets = dress(&mail("Undelivered", "Mail", Body::Report(report))).octets;
    let message = MessageParser::new().parse(&octets).unwrap();
    let kind = message.content_type().unwrap();
    assert_eq!((kind.ctype(), kind.subtype()), ("multipart", Some("report")));
    assert_eq!(kind.attribute("report-type"), Some("delivery-status"));
    let text = String::from_utf8(octets.clone()).unwrap();
    let expected = "Content-Type: message/delivery-status\r\nContent-Transfer-Encoding: 7bit\r\n\r\n\
        Reporting-MTA: dns; sms.gsm.example\r\n\
        Original-Envelope-Id: a+b c\r\n\
        Arrival-Date: Fri, 15 Jan 2027 08:00:00 +0000\r\n\r\n\
        Original-Recipient: rfc822; bob+1@example.net\r\n\
        Final-Recipient: rfc822; +15550002@sms.gsm.example\r\n\
        Action: failed\r\nStatus: 5.1.1\r\nDiagnostic-Code: x-encamp; nobody's number\r\n";
    assert!(text.contains(expected), "{text}");
    let last = "Content-Type: text/rfc822-headers\r\nContent-Transfer-Encoding: 7bit\r\n\r\n\
        From: carol@example.org\r\nSubject: Gr=?x\r\n";
    assert!(text.contains(last), "{text}");
}

/// Whoever reads these parts without undoing an encoding reads what they say.
#[test]
fn what_programs_read_of_a_report_is_never_encoded() {
    let id = format!("<{}@mail.example.org>", "a".repeat(80));
    let why = "a reason of many words ".repeat(20);
    let report = Report {
        words: "Grüße".into(),
        reporting: "sms.gsm.example".into(),
        envid: None,
        arrived_s: 1_800_000_000,
        orcpt: None,
        recipient: "+15550002@sms.gsm.example".into(),
        action: Action::Failed,
        status: (5, 1, 1),
        why: why.clone(),
        headers: format!("Message-ID: {id}\r\nSubject: Grüße\r\nX-Long: {}\r\n", "b c=3D  ".repeat(40)),
    };
    let octets = dress(&mail("Undelivered", "Mail", Body::Report(report))).octets;
    check_form(&octets);
    let text = String::from_utf8(octets).unwrap();
    let (_, from_status_on) = text.split_once("Content-Type: message/delivery-status\r\n").unwrap();
    let (status, headers) = from_status_on.split_once("Content-Type: text/rfc822-headers\r\n").unwrap();
    for part in [status, headers] {
        assert!(part.starts_with("Content-Transfer-Encoding: 7bit\r\n\r\n"), "{part}");
        // A line is long only where no blank lets it be folded.
        assert!(part.lines().all(|line| line.len() <= 76 || !line.trim().contains(' ')), "{part}");
    }
    let unfolded = |part: &str| part.replace("\r\n ", " ");
    assert!(unfolded(status).contains(&format!("Diagnostic-Code: x-encamp; {}\r\n", why.trim())), "{status}");
    let headers = unfolded(headers);
    assert!(headers.contains(&format!("Message-ID: {id}\r\nSubject: Gr??e\r\n")), "{headers}");
    assert!(headers.contains(&format!("X-Long: {}", "b c=3D  ".repeat(40))), "{headers}");
}

#[test]
fn the_same_mail_is_the_same_octets() {
    let out = mail("Grüße", "Ana", Body::Text("ü".into()));
    assert_eq!(dress(&out).octets, dress(&out).octets);
}
