//! What a mail says: every mail of tests/data/mail against what stands beside it, with line ends of both kinds.
//!
//! Those named after a section of a standard are written after its examples; the others are as programs write them: Gmail, Outlook, Apple
//! Mail, mutt, Thunderbird; postfix, exim, sendmail, qmail and Exchange where they return mail. What is expected of NAME.eml is NAME.txt:
//! the fields of its [`Letter`] that are not empty, then its words.

#![allow(clippy::disallowed_methods)] // a test that reads files

use std::fmt::Write as _;
use std::path::{Path, PathBuf};

use encamp::gsm::text;
use encamp::mail::receive::{
    DECORATION_BYTES_MAX, ENCRYPTED, FILES_MAX, PARTS_MAX, Received, TEXT_BYTES_MAX, read, relayed_header,
};
use encamp::mail::{HEADERS_KEPT_MAX, Letter, Proof, Relayed};

fn directory() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data/mail")
}

/// All that is there of it, a line for each field.
fn shown(received: &Received) -> String {
    let Letter {
        message_id,
        references,
        from,
        from_name,
        reply_to,
        subject,
        text,
        attachments,
        automatic,
        received_count,
        traces,
        results,
        bounce,
        relayed,
        headers: _,
        digest: _,
    } = &received.letter;
    let mut said = String::new();
    let mut line = |name: &str, value: String| {
        if !value.is_empty() {
            writeln!(said, "{name}: {value}").unwrap();
        }
    };
    line("message-id", message_id.clone().unwrap_or_default());
    line("references", references.join(" "));
    line("from", from.as_ref().map(ToString::to_string).unwrap_or_default());
    line("name", from_name.clone());
    line("reply-to", reply_to.as_ref().map(ToString::to_string).unwrap_or_default());
    line("subject", subject.clone());
    for (attachment, file) in attachments.iter().zip(&received.files) {
        assert_eq!((&attachment.name, attachment.octets), (&file.name, file.bytes.len() as u64));
        line("file", format!("{} | {} | {}", file.name, file.content_type, file.bytes.escape_ascii()));
    }
    assert_eq!(attachments.len(), received.files.len());
    line("automatic", if *automatic { "yes".into() } else { String::new() });
    line("received", if *received_count > 0 { received_count.to_string() } else { String::new() });
    line("traces", traces.join(" "));
    let proof = |proof: Option<Proof>| proof.map_or("-".into(), |proof| format!("{proof:?}").to_lowercase());
    for found in results {
        let (spf, dkim, dmarc) = (proof(found.spf), proof(found.dkim), proof(found.dmarc));
        line("results", format!("{} spf {spf} dkim {dkim} dmarc {dmarc}", found.by));
    }
    if let Some(bounce) = bounce {
        line("bounce", format!("envid {:?} of {:?}", bounce.envid, bounce.message_id));
        for of in &bounce.recipients {
            line("bounced", format!("{} {:?} {:?} {}", of.recipient, of.action, of.status, of.why));
        }
    }
    line("relayed", relayed.as_ref().map(|relayed| format!("{relayed:?}")).unwrap_or_default());
    writeln!(said, "\n{text}").unwrap();
    said
}

#[test]
fn every_mail_says_what_stands_beside_it() {
    let mut mails: Vec<PathBuf> = std::fs::read_dir(directory()).unwrap().map(|entry| entry.unwrap().path()).collect();
    mails.retain(|path| path.extension().is_some_and(|extension| extension == "eml"));
    mails.sort();
    assert!(mails.len() >= 80, "{} mails", mails.len());
    let mut wrong = Vec::new();
    for path in mails {
        let octets = std::fs::read(&path).unwrap();
        let expected = std::fs::read_to_string(path.with_extension("txt")).unwrap_or_default();
        let with_returns: Vec<u8> =
            String::from_utf8_lossy(&octets).replace('\r', "").replace('\n', "\r\n").into_bytes();
        let is_utf_8 = std::str::from_utf8(&octets).is_ok();
        for (ends, octets) in [("\\n", &octets), ("\\r\\n", if is_utf_8 { &with_returns } else { &octets })] {
            // The octets of a file differ where its line ends do.
            let said = shown(&read(octets)).replace("\\r\\n", "\\n");
            if said != expected.replace("\\r\\n", "\\n") {
                wrong.push(format!("{} with {ends}:\n{said}--- expected:\n{expected}", path.display()));
            }
        }
    }
    assert!(wrong.is_empty(), "{} are read otherwise\n{}", wrong.len(), wrong.join("\n"));
}

fn mail(fields: &str, words: &str) -> Vec<u8> {
    format!("From: carol@example.org\nMessage-ID: <1@example.org>\n{fields}\n{words}").into_bytes()
}

fn letter(fields: &str, words: &str) -> Letter {
    read(&mail(fields, words)).letter
}

#[test]
fn a_mail_that_comes_again_by_another_way_has_the_same_digest() {
    let digest = |fields: &str, words: &str| letter(fields, words).digest;
    let first = digest("Received: a\n\tb\nSubject: x\n", "words");
    assert_eq!(first, digest("Subject: x\n", "words"));
    assert_eq!(
        first,
        digest(
            "X-Encamp-Trace: a.example\nReturn-Path: <c@example.org>\nDelivered-To: x\nSubject: x\nreceived: again\n              and again\nAuthentication-Results: a; none\nDKIM-Signature: v=1;\n b=c\n",
            "words"
        )
    );
    assert_ne!(first, digest("Subject: x\n", "word"));
    assert_ne!(first, digest("Subject: y\n", "words"));
    assert_ne!(first, digest("Subject: x\n", "words\nReceived: a\n"));
}

#[test]
fn the_header_is_kept_as_it_is_up_to_a_line_end() {
    let short = read(b"Subject: =?utf-8?Q?x?=\r\nX: a\r\n b\r\n\r\nwords").letter;
    assert_eq!(short.headers, b"Subject: =?utf-8?Q?x?=\r\nX: a\r\n b\r\n");
    let long = letter(&"X-Field: 0123456789\n".repeat(1000), "words").headers;
    assert!(long.len() <= HEADERS_KEPT_MAX && long.len() > HEADERS_KEPT_MAX - 20, "{}", long.len());
    assert!(long.ends_with(b"0123456789\n"));
    assert_eq!(letter(&format!("X: {}\n", "y".repeat(10_000)), "").text, "");
}

#[test]
fn references_are_each_said_once_and_the_newest_are_kept() {
    let ids = |from: usize, to: usize| (from..to).map(|id| format!("<{id}@x>")).collect::<Vec<_>>().join("\n ");
    let named = letter(&format!("In-Reply-To: <2@x> <9@x>\nReferences: {}\n", ids(0, 4)), "").references;
    assert_eq!(named, ["0@x", "1@x", "2@x", "3@x", "9@x"]);
    let many = letter(&format!("References: {}\nIn-Reply-To: <99@x>\n", ids(0, 60)), "").references;
    assert_eq!(many.len(), 20);
    assert_eq!((many[0].as_str(), many[1].as_str(), many[19].as_str()), ("0@x", "42@x", "99@x"));
}

#[test]
fn mail_that_no_human_wrote_is_automatic() {
    for (fields, expected) in [
        ("", false),
        ("Auto-Submitted: no\n", false),
        ("Auto-Submitted: No (by hand)\n", false),
        ("Auto-Submitted: auto-generated\n", true),
        ("Auto-Submitted: auto-replied; owner=x\n", true),
        ("Precedence: BULK\n", true),
        ("Precedence: first-class\n", false),
        ("Precedence: junk\n", true),
        ("List-Unsubscribe: <mailto:x@example.org>\n", true),
        ("X-Auto-Response-Suppress: All\n", true),
        ("Return-Path: <>\n", true),
        ("Return-Path: <carol@example.org>\n", false),
    ] {
        assert_eq!(letter(fields, "words").automatic, expected, "{fields}");
    }
}

#[test]
fn a_picture_that_the_text_shows_is_named_where_it_is_large() {
    let picture = |octets: usize| {
        let fields = "Content-Type: multipart/related; boundary=b\n";
        let html = "--b\nContent-Type: text/html\n\n<img src=cid:p@x>\n";
        let png = format!("--b\nContent-Type: image/png\nContent-ID: <p@x>\n\n{}\n--b--\n", "x".repeat(octets));
        letter(fields, &format!("{html}{png}")).attachments.len()
    };
    assert_eq!(picture(DECORATION_BYTES_MAX - 1), 0);
    assert_eq!(picture(DECORATION_BYTES_MAX), 1);
}

#[test]
fn what_is_too_much_is_cut() {
    let long = letter("Content-Type: text/plain; charset=utf-8\n", &"äöü€ ".repeat(100_000)).text;
    assert!(long.len() <= TEXT_BYTES_MAX && long.len() > TEXT_BYTES_MAX - 4, "{}", long.len());
    let long = letter("Content-Type: text/html; charset=utf-8\n", &"<p>word</p>".repeat(100_000)).text;
    assert!(long.len() <= TEXT_BYTES_MAX && long.len() > TEXT_BYTES_MAX - 10, "{}", long.len());

    let fields = "Content-Type: multipart/mixed; boundary=b\n";
    let part = "--b\nContent-Disposition: attachment; filename=x\n\ny\n";
    let files = read(&mail(fields, &part.repeat(1000)));
    assert_eq!((files.files.len(), files.letter.attachments.len()), (FILES_MAX, FILES_MAX));
    let words = letter(fields, &"--b\n\nword\n".repeat(1000)).text;
    assert_eq!(words.lines().count(), PARTS_MAX);
    assert_eq!(letter(&format!("Subject: {}\n", "long ".repeat(10_000)), "").subject.len(), 999);
}

/// Each of these is a megabyte that costs somebody who reads it again for every part a minute or its stack.
#[test]
fn mails_that_are_meant_to_cost_do_not() {
    let size = 1_000_000;
    let fill = |piece: &str| piece.repeat(size / piece.len());
    let mixed = "Content-Type: multipart/mixed; boundary=b\n";
    let nested: String =
        (0..20_000).map(|depth| format!("Content-Type: multipart/mixed; boundary=b{depth}\n\n--b{depth}\n")).collect();
    let cases = [
        ("boundaries", mail(mixed, &fill("--b\n"))),
        ("almost boundaries", mail(mixed, &fill("--b--x\n"))),
        ("multiparts without an end", mail(mixed, &fill("--b\nContent-Type: multipart/mixed; boundary=never\n\n"))),
        ("multiparts in multiparts", nested.into_bytes()),
        ("mails in mails", fill("Content-Type: message/rfc822\n\n").into_bytes()),
        ("fields", mail(&fill("a:\n"), "")),
        ("folded", mail(&fill("a:\n b\n c\n"), "")),
        ("encoded words", mail(&format!("Subject: {}\n", fill("=?a?q?")), "")),
        ("quoted", mail("", &fill("> a\n"))),
        ("quotes", mail("", &fill(">"))),
        ("colons", mail("", &fill("On 2026 a@b wrote:\n"))),
        ("From:", mail("", &fill("From: a\n"))),
        ("empty lines", mail("", &fill("\n"))),
        ("flowed", mail("Content-Type: text/plain; format=flowed\n", &fill("a \n"))),
        ("tags", mail("Content-Type: text/html\n", &fill("<p>"))),
        ("<", mail("Content-Type: text/html\n", &fill("<"))),
        ("hidden", mail("Content-Type: text/html\n", &fill("<b style=display:none>"))),
        ("comments", mail("Content-Type: text/html\n", &fill("<!--"))),
        ("scripts", mail("Content-Type: text/html\n", &fill("<script></s"))),
        ("quotations", mail("Content-Type: text/html\n", &fill("<blockquote>a"))),
        ("lists", mail("Content-Type: text/html\n", &fill("<ul><li>"))),
        ("&", mail("Content-Type: text/html\n", &fill("&amp"))),
        ("attributes", mail("Content-Type: text/html\n", &format!("<a {}>", fill("x=\"y\" ")))),
        ("comments in a type", mail(&format!("Content-Type: {}\n", fill("(")), "")),
        ("parameters", mail(&format!("Content-Type: a/b{}\n", fill(";x*1*=y")), "")),
        ("statuses", mail("Content-Type: message/delivery-status\n", &fill("Final-Recipient: a\n\n"))),
        ("addresses", mail(&fill("Reply-To: a,b:\n"), "")),
    ];
    for (name, octets) in cases {
        let received = read(&octets);
        assert!(received.letter.text.len() <= TEXT_BYTES_MAX, "{name}");
        assert!(received.files.len() <= FILES_MAX, "{name}");
    }
}

#[test]
fn a_text_of_another_box_comes_as_it_left() {
    let relayed = Relayed {
        from: "+15550001".into(),
        to: "+15550002".into(),
        accepted_ms: 1_763_800_000_123,
        life_ms: 86_400_000,
        single_shot: true,
        protocol: 0x41,
        reply_path: true,
        hops: 9,
        data: text::encode(&"Grüße, 世界 ".repeat(5)).unwrap(),
    };
    let value = relayed_header(&relayed);
    assert!(value.lines().all(|line| line.len() <= 76 && line.is_ascii()), "{value}");
    assert!(value.lines().count() > 1 && value.lines().skip(1).all(|line| line.starts_with(' ')));
    let found = letter(&format!("X-Encamp-Sms: {value}\r\nSubject: x\n"), "words");
    assert_eq!(found.relayed, Some(relayed));
    assert_eq!((found.subject.as_str(), found.text.as_str()), ("x", "words"));
    for broken in ["", "x", "e30=", "bm90IGpzb24="] {
        assert_eq!(letter(&format!("X-Encamp-Sms: {broken}\n"), "words").relayed, None, "{broken}");
    }
}

#[test]
fn an_encrypted_mail_says_so() {
    let words = "-----BEGIN PGP MESSAGE-----\n\nabc\n-----END PGP MESSAGE-----\nand plain\n";
    assert_eq!(letter("", words).text, format!("{ENCRYPTED}\nand plain"));
}

/// Each line, alone at the end of a mail: whether a phone has put it there.
#[test]
fn what_phones_put_at_the_end_goes_and_what_humans_write_stays() {
    for (line, goes) in [
        ("Sent from my iPhone", true),
        ("Sent from my Galaxy", true),
        ("Get Outlook for Android<https://aka.ms/x>", true),
        ("Von meinem iPhone gesendet", true),
        ("Gesendet von Mail für Windows", true),
        ("Envoyé de mon iPhone", true),
        ("Enviado desde mi iPhone", true),
        ("Enviado do meu telemóvel", true),
        ("Verstuurd vanaf mijn iPhone", true),
        ("Inviato da iPhone", true),
        ("Imetumwa kutoka kwa simu yangu", true),
        ("Отправлено с iPhone", true),
        ("发自我的 iPhone", true),
        ("iPhoneから送信", true),
        ("Von meinem Bruder soll ich grüßen", false),
        ("Sent via the other box, thanks", false),
        ("It was sent from my iPhone", false),
        ("Sent from my house. Call me.", false),
        ("-- ", true),
        ("-", false),
    ] {
        let expected = if goes { "words".to_owned() } else { format!("words\n{line}") };
        assert_eq!(
            letter("Content-Type: text/plain; charset=utf-8\n", &format!("words\n{line}\n")).text,
            expected,
            "{line}"
        );
    }
}

/// Carol is shown as the sender of each.
#[test]
fn spf_counts_for_the_sender_who_is_shown() {
    for (said, expected) in [
        ("spf=pass smtp.mailfrom=carol@example.org", Proof::Pass),
        ("spf=pass smtp.mailfrom=example.org", Proof::Pass),
        ("spf=pass smtp.mailfrom=bounces@mail.example.org", Proof::Pass),
        ("spf=pass smtp.helo=mx.example.org", Proof::Pass),
        ("spf=pass", Proof::Pass),
        ("spf=pass smtp.mailfrom=evil@evil.example", Proof::Unknown),
        ("spf=pass smtp.mailfrom=example.org@evil.example", Proof::Unknown),
        ("spf=pass smtp.mailfrom=notexample.org", Proof::Unknown),
        ("spf=pass smtp.helo=evil.example", Proof::Unknown),
        ("spf=fail smtp.mailfrom=evil@evil.example", Proof::Fail),
    ] {
        let found = letter(&format!("Authentication-Results: mx.example; {said}\n"), "words").results;
        assert_eq!(found[0].spf, Some(expected), "{said}");
    }
}
