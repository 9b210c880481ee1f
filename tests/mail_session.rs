//! Sessions of SMTP and LMTP as tables: what the client says, what it is told, and which mails come of it.
//!
//! Each dialogue is fed whole and octet by octet, and has to go the same way both times.

use std::fmt::Write as _;
use std::net::IpAddr;

use encamp::config::Settings;
use encamp::config::read::{Source, Sources, read};
use encamp::mail::address::Address;
use encamp::mail::session::{
    COMMANDS_MAX, Counts, ERRORS_MAX, LINE_OCTETS_MAX, LOGINS_MAX, Protocol, REFUSED_MAX, SMALL_OCTETS_MAX, Session,
    Step, Taken,
};
use encamp::mail::{Letter, MailIn, Notify, Peer, Proof, RcptTo, Reply, Results, admit};

const BASE: &str = r#"
domain = "gsm.example"
data_dir = "/d"
[dialplan]
local_prefixes = ["+1555"]
[messages]
service_centre = "1000"
[mail]
short_code = "1001"
reply_pool = ["+15559000-+15559099"]
fronts = ["192.0.2.10"]
trusted = ["192.0.2.25"]
boxes = ["198.51.100.7"]
size_max = "10 kB"
recipients_max = 3
REST
[[mail_user]]
name = "clinic"
password = "open sesame"
[[mail_route]]
prefixes = ["+1556", "+155588"]
to = "{number}@sms.hill.example"
box = true
[[subscriber]]
imsi = "001010000000001"
msisdn = ["+15550001", "2001"]
auth = { algorithm = "none" }
mail_alias = ["ana", "postmaster"]
mail_allow = ["carol@spam.example"]
mail_deny = ["@example.net"]
[[subscriber]]
imsi = "001010000000002"
msisdn = ["+15550002"]
auth = { algorithm = "none" }
barred = true
[[subscriber]]
imsi = "001010000000003"
auth = { algorithm = "none" }
mail_alias = ["jörg"]
"#;

/// `rest` stands in `[mail]`.
fn settings(rest: &str) -> Settings {
    let main = Source { name: "encamp.toml".into(), text: BASE.replace("REST", rest) };
    read(&Sources { main, ..Sources::default() }).unwrap_or_else(|problems| panic!("{problems:#?}")).0
}

const OUTSIDE: &str = "203.0.113.9";
const FRONT: &str = "192.0.2.10";
const TRUSTED: &str = "192.0.2.25";

/// One end of a session, and what came of it.
struct Desk<'a> {
    settings: &'a Settings,
    session: Session,
    said: String,
    mails: Vec<Taken>,
    /// What is said of each mail.
    replies: Vec<Reply>,
    is_closed: bool,
    counts: Counts,
    paused: bool,
}

impl<'a> Desk<'a> {
    fn new(settings: &'a Settings, protocol: Protocol, ip: &str) -> Desk<'a> {
        let session = Session::new(protocol, ip.parse().unwrap(), true, false);
        Desk {
            settings,
            session,
            said: String::new(),
            mails: Vec::new(),
            replies: vec![Reply::new(250, (2, 6, 0), "kept")],
            is_closed: false,
            counts: Counts::default(),
            paused: false,
        }
    }

    fn feed(&mut self, octets: &[u8]) {
        let mut input = octets;
        while !self.is_closed {
            let step = self.session.feed(self.settings, &mut input);
            self.said.push_str(std::str::from_utf8(self.session.out()).expect("answers are ASCII"));
            self.session.written();
            let counts = self.session.take_counts();
            self.counts.accepted += counts.accepted;
            self.counts.deferred += counts.deferred;
            self.counts.logins += counts.logins;
            self.counts.logins_wrong += counts.logins_wrong;
            self.counts.refused.iter_mut().zip(counts.refused).for_each(|(all, more)| *all += more);
            self.paused |= self.session.take_pause().is_some();
            match step {
                Step::More => {
                    assert!(input.is_empty(), "{} octets are left", input.len());
                    return;
                }
                Step::Mail(taken) => {
                    self.mails.push(*taken);
                    self.session.answered(&self.replies);
                }
                Step::StartTls => {
                    self.said.push_str("(TLS)\r\n");
                    self.session.secured();
                    return;
                }
                Step::Close { .. } => {
                    self.said.push_str("(end)\r\n");
                    self.is_closed = true;
                }
            }
        }
    }
}

/// Whole and octet by octet; `\n` in what is said stands for CR LF on the wire.
fn talk<'a>(settings: &'a Settings, protocol: Protocol, ip: &str, said: &str) -> Desk<'a> {
    let wire = said.replace('\n', "\r\n");
    raw(settings, protocol, ip, wire.as_bytes())
}

fn raw<'a>(settings: &'a Settings, protocol: Protocol, ip: &str, wire: &[u8]) -> Desk<'a> {
    let mut whole = Desk::new(settings, protocol, ip);
    whole.feed(wire);
    if !whole.said.contains("(TLS)") {
        let mut cut = Desk::new(settings, protocol, ip);
        wire.chunks(1).for_each(|octet| cut.feed(octet));
        assert_eq!(cut.said, whole.said, "cut into octets");
        assert_eq!(cut.mails, whole.mails);
    }
    whole
}

#[track_caller]
fn check(settings: &Settings, protocol: Protocol, ip: &str, said: &str, expected: &str) {
    let told = talk(settings, protocol, ip, said).said;
    assert_eq!(told, expected.replace('\n', "\r\n"), "to {said:?}");
}

/// Each line is `command -> first words of the last line of its answer`.
#[track_caller]
fn dialogue(settings: &Settings, protocol: Protocol, ip: &str, lines: &str) {
    let mut desk = Desk::new(settings, protocol, ip);
    for line in lines.lines().map(str::trim).filter(|line| !line.is_empty()) {
        let (said, expected) = line.split_once(" -> ").unwrap_or_else(|| panic!("{line}"));
        desk.said.clear();
        desk.feed(format!("{said}\r\n").as_bytes());
        let last = desk.said.trim_end().trim_end_matches("(end)").trim_end().lines().last().unwrap_or_default();
        assert!(last.starts_with(expected), "{said}: {last:?} is not {expected:?}\nof\n{lines}");
    }
}

const HELLO: &str = "250-sms.gsm.example\n250-PIPELINING\n250-SIZE 10000\n250-8BITMIME\n250-SMTPUTF8\n250-DSN\n250-CHUNKING\n\
                     250-STARTTLS\n250 ENHANCEDSTATUSCODES\n";

#[test]
fn a_mail_is_taken_with_its_envelope() {
    let settings = settings("");
    let said = "EHLO mx.example.org\nMAIL FROM:<Carol@Example.org> SIZE=100 BODY=8BITMIME RET=HDRS ENVID=QQ+2B1 AUTH=<>\n\
                RCPT TO:<+15550001@sms.gsm.example> NOTIFY=SUCCESS,DELAY ORCPT=rfc822;Ana+2Bx@example.org\n\
                RCPT TO:<2001@SMS.gsm.example> NOTIFY=NEVER\nDATA\nSubject: x\n\n..dot\n.\nQUIT\n";
    let desk = talk(&settings, Protocol::Smtp, OUTSIDE, said);
    let expected = format!(
        "{HELLO}250 2.1.0 go on\n250 2.1.5 go on\n250 2.1.5 go on\n354 go on, up to a line with a dot\n250 2.6.0 kept\n221 2.0.0 good bye\n(end)\n"
    );
    assert_eq!(desk.said, expected.replace('\n', "\r\n"));
    let [mail] = &desk.mails[..] else { panic!("{} mails", desk.mails.len()) };
    assert_eq!(mail.octets, b"Subject: x\r\n\r\n.dot\r\n");
    assert_eq!(mail.from.as_ref().map(Address::as_str), Some("Carol@example.org"));
    assert_eq!(mail.envid.as_deref(), Some("QQ+2B1"), "as it was written");
    assert!(!mail.each_answered);
    let ip: IpAddr = OUTSIDE.parse().unwrap();
    assert_eq!(mail.peer, Peer { ip, hello: "mx.example.org".into(), user: None, is_encrypted: false });
    let [rcpt] = &mail.recipients[..] else { panic!("the same phone is one recipient") };
    let imsi = settings.subscribers.by_alias("ana").unwrap().imsi;
    assert_eq!(rcpt.to, RcptTo::Phone(imsi));
    assert_eq!(rcpt.typed.as_str(), "+15550001@sms.gsm.example");
    assert_eq!(rcpt.notify, Some(Notify { success: true, failure: false, delay: true }));
    assert_eq!(rcpt.orcpt.as_deref(), Some("rfc822;Ana+2Bx@example.org"));
    assert_eq!(desk.counts, Counts { accepted: 1, ..Counts::default() });
}

#[test]
fn every_command_has_its_answer() {
    let settings = settings("");
    dialogue(
        &settings,
        Protocol::Smtp,
        OUTSIDE,
        "NOOP -> 250 2.0.0
         noop whatever -> 250 2.0.0
         MAIL FROM:<a@b.example> -> 503 5.5.1
         LHLO me -> 500 5.5.1
         EHLO -> 501 5.5.4
         HELO me -> 250 sms.gsm.example
         MAIL FROM:<a@b.example> -> 250 2.1.0
         RSET -> 250 2.0.0
         ehlo me -> 250 ENHANCEDSTATUSCODES
         VRFY 2001 -> 252 2.5.0
         HELP -> 214 2.0.0
         EXPN all -> 502 5.5.1
         ETRN x -> 502 5.5.1
         RCPT TO:<2001@sms.gsm.example> -> 503 5.5.1
         QUIT -> 221 2.0.0",
    );
    dialogue(
        &settings,
        Protocol::Smtp,
        OUTSIDE,
        "EHLO me -> 250 E
         DATA -> 503 5.5.1
         MAIL FROM:<a@b.example> -> 250
         MAIL FROM:<a@b.example> -> 503 5.5.1
         DATA -> 503 5.5.1 there is no recipient
         RCPT TO:<nobody@sms.gsm.example> -> 550 5.1.1
         DATA now -> 501 5.5.4
         RCPT TO:<2001@sms.gsm.example> -> 250 2.1.5
         AUTH PLAIN -> 538 5.7.11
         EHLO me -> 250 E
         RCPT TO:<2001@sms.gsm.example> -> 503 5.5.1
         BOGUS -> 500 5.5.1
         MAIL -> 501 5.5.4",
    );
    dialogue(
        &settings,
        Protocol::Lmtp,
        OUTSIDE,
        "EHLO me -> 500 5.5.1 this is LMTP
         HELO me -> 500 5.5.1
         LHLO me -> 250 E
         MAIL FROM:<> -> 250
         DATA -> 503 5.5.1
         QUIT -> 221",
    );
    check(&settings, Protocol::Smtp, OUTSIDE, "EHLO x\n", HELLO);
}

#[test]
fn parameters_are_those_that_are_offered() {
    let settings = settings("");
    dialogue(
        &settings,
        Protocol::Smtp,
        OUTSIDE,
        "EHLO me -> 250 E
         MAIL FROM:<a@b.example> SIZE=10001 -> 552 5.3.4
         MAIL FROM:<a@b.example> SIZE=99999999999999999999999 -> 552 5.3.4
         MAIL FROM:<a@b.example> BODY=BINARYMIME -> 555 5.5.4 BODY=BINARYMIME
         MAIL FROM:<a@b.example> FOO=BAR -> 555 5.5.4
         MAIL FROM:<jörg@b.example> -> 553 5.6.7
         MAIL FROM:<a@b.example> ENVID=a=b -> 501 5.5.4
         MAIL FROM:<jörg@b.example> SMTPUTF8 -> 250
         RCPT TO:<jörg@sms.gsm.example> -> 250 2.1.5
         RSET -> 250
         MAIL FROM: <a@b.example> -> 250
         RCPT TO:<jörg@sms.gsm.example> -> 553 5.6.7
         RCPT TO:<2001@sms.gsm.example> NOTIFY=NEVER,SUCCESS -> 501 5.5.4",
    );
    dialogue(
        &settings,
        Protocol::Smtp,
        OUTSIDE,
        "EHLO me -> 250 E
         MAIL FROM:a@b.example -> 501 5.5.4
         MAIL FROM:<a b@c.example> -> 501 5.1.7
         MAIL FROM:<a@b.example>x -> 501 5.5.4
         MAIL FROM:<@x.example:a@b.example> -> 501 5.1.7
         MAIL FROM:<\"a>b\"@c.example> -> 250
         RCPT TO:<> -> 501 5.1.3
         RCPT TO:<2001@sms.gsm.example> RRVS=2014-04-03T23:01:00Z -> 501 5.5.4
         RCPT TO:<2001@sms.gsm.example> ORCPT=rfc822;a+zz@b -> 501 5.5.4
         RCPT TO:<2001@sms.gsm.example> ORCPT=utf-8;jörg@b.example -> 501 5.5.4
         RCPT TO:<PostMaster> -> 250 2.1.5
         RCPT TO:<imsi001010000000003@sms.gsm.example> -> 250 2.1.5
         QUIT -> 221",
    );
}

#[test]
fn recipients_are_counted() {
    let settings = settings("");
    let rcpt = "RCPT TO:<ana@sms.gsm.example>\n";
    let said = format!("EHLO x\nMAIL FROM:<>\n{}", rcpt.repeat(4));
    let ok = "250 2.1.5 go on\n".repeat(3);
    let expected = format!("{HELLO}250 2.1.0 go on\n{ok}452 4.5.3 one mail has at most 3 recipients\n");
    check(&settings, Protocol::Smtp, OUTSIDE, &said, &expected);
}

#[test]
fn in_lmtp_each_recipient_has_an_answer_of_its_own() {
    let settings = settings("");
    let mail = "LHLO x\nMAIL FROM:<>\nRCPT TO:<2001@sms.gsm.example>\nRCPT TO:<nobody@sms.gsm.example>\n\
                RCPT TO:<imsi001010000000003@sms.gsm.example>\nRCPT TO:<ana@sms.gsm.example>\n";
    let head = format!(
        "{HELLO}250 2.1.0 go on\n250 2.1.5 go on\n550 5.1.1 no subscriber has this name\n250 2.1.5 go on\n250 2.1.5 go on\n"
    );
    for (body, before) in
        [("DATA\nhi\n.\nNOOP\n", "354 go on, up to a line with a dot\n"), ("BDAT 4 LAST\nhi\nNOOP\n", "")]
    {
        let mut desk = Desk::new(&settings, Protocol::Lmtp, OUTSIDE);
        desk.replies = vec![Reply::new(250, (2, 6, 0), "one"), Reply::new(452, (4, 2, 2), "two")];
        desk.feed(format!("{mail}{body}").replace('\n', "\r\n").as_bytes());
        let expected = format!("{head}{before}250 2.6.0 one\n452 4.2.2 two\n250 2.6.0 one\n250 2.0.0 yes\n");
        assert_eq!(desk.said, expected.replace('\n', "\r\n"), "the first phone was named twice");
        assert_eq!(desk.mails[0].recipients.len(), 2);
        assert!(desk.mails[0].each_answered);
        assert_eq!((desk.counts.accepted, desk.counts.deferred), (1, 1));
    }
    // What is refused unread is refused to each as well.
    let desk = talk(&settings, Protocol::Lmtp, OUTSIDE, &format!("{mail}DATA\n{}\n.\n", "x".repeat(10_000)));
    assert_eq!(desk.said.matches("552 5.3.4").count(), 3);
    assert!(desk.mails.is_empty());
}

const BEGIN: &str = "EHLO x\r\nMAIL FROM:<a@b.example>\r\nRCPT TO:<2001@sms.gsm.example>\r\nDATA\r\n";

/// Each of these ends a mail for some server and not for others. Here nothing but CR LF . CR LF does, and what has a CR or an LF alone is
/// refused as a whole: so nobody who has checked the outer mail has let an inner one pass.
#[test]
fn no_mail_is_smuggled_in_another() {
    let settings = settings("");
    let inner = "MAIL FROM:<evil@b.example>\r\nRCPT TO:<2001@sms.gsm.example>\r\nDATA\r\ninner\r\n";
    for end in [
        "\n.\n",
        "\n.\r\n",
        "\r\n.\n",
        "\r.\r",
        "\r.\r\n",
        "\r\n.\r",
        "\r\n.\r\r\n",
        "\r\r\n.\r\r\n",
        "\n\n.\r\n",
        "\r\n\0.\r\n",
        "\r\n.\0\r\n",
        "\r\n..\r\n",
        "\r\n .\r\n",
    ] {
        let wire = format!("{BEGIN}outer{end}{inner}.\r\nNOOP\r\n");
        let desk = raw(&settings, Protocol::Smtp, OUTSIDE, wire.as_bytes());
        let count = desk.said.matches("250 2.1.0").count();
        assert_eq!(count, 1, "{end:?} began a second mail: {}", desk.said);
        let broken = end.replace("\r\n", "").contains(['\r', '\n']);
        assert_eq!(desk.said.contains("550 5.6.11"), broken, "{end:?}: {}", desk.said);
        assert_eq!(desk.mails.len(), usize::from(!broken), "{end:?}");
        assert!(desk.said.ends_with("250 2.0.0 yes\r\n"), "{end:?}: {}", desk.said);
    }
}

#[test]
fn the_octets_of_a_mail_arrive_as_they_were_meant() {
    let settings = settings("");
    for (wire, octets) in [
        (".\r\n", ""),
        ("\r\n.\r\n", "\r\n"),
        ("..\r\n.\r\n", ".\r\n"),
        (".x\r\n.\r\n", "x\r\n"),
        ("...\r\n.\r\n", "..\r\n"),
        ("a\r\n.. b\r\n.\r\n", "a\r\n. b\r\n"),
        ("a.\r\n.\r\n", "a.\r\n"),
        ("a\0b\r\n.\r\n", "a\0b\r\n"),
        ("h\u{e9}\r\n.\r\n", "h\u{e9}\r\n"),
    ] {
        let desk = raw(&settings, Protocol::Smtp, OUTSIDE, format!("{BEGIN}{wire}").as_bytes());
        let [mail] = &desk.mails[..] else { panic!("{wire:?}: {}", desk.said) };
        assert_eq!(mail.octets, octets.as_bytes(), "{wire:?}");
    }
}

#[test]
fn a_mail_may_have_its_size_and_not_an_octet_more() {
    let settings = settings("");
    for (count, expected) in [(9_998, "250 2.6.0"), (9_999, "552 5.3.4"), (39_990, "552 5.3.4")] {
        let wire = format!("{BEGIN}{}\r\n.\r\nNOOP\r\n", "x".repeat(count));
        let desk = raw(&settings, Protocol::Smtp, OUTSIDE, wire.as_bytes());
        assert!(desk.said.contains(expected), "{count}: {}", desk.said);
        assert!(desk.said.ends_with("250 2.0.0 yes\r\n"), "{count}: {}", desk.said);
    }
    // Too long and broken: whatever comes first in time, its length is what is said.
    let wire = format!("{BEGIN}a\nb{}\r\n.\r\nNOOP\r\n", "x".repeat(20_000));
    assert!(raw(&settings, Protocol::Smtp, OUTSIDE, wire.as_bytes()).said.contains("552 5.3.4"));
    // Who goes on much longer is not listened to.
    for (count, end) in [(50_000, ""), (50_000, "\r\n.\r\nNOOP\r\n"), (39_996, "\r\n.\r\nNOOP\r\n")] {
        let wire = format!("{BEGIN}{}{end}", "x".repeat(count));
        let desk = raw(&settings, Protocol::Smtp, OUTSIDE, wire.as_bytes());
        assert!(desk.is_closed && desk.said.contains("552 5.3.4"), "{count}: {}", desk.said);
    }
}

#[test]
fn chunks_are_counted() {
    let settings = settings("");
    let begin = "EHLO x\nMAIL FROM:<a@b.example>\nRCPT TO:<2001@sms.gsm.example>\n";
    let head = format!("{HELLO}250 2.1.0 go on\n250 2.1.5 go on\n");
    let desk =
        talk(&settings, Protocol::Smtp, OUTSIDE, &format!("{begin}BDAT 3\na\nBDAT 6\n.\nb\nBDAT 0 LAST\nNOOP\n"));
    let expected = format!("{head}250 2.0.0 3 octets\n250 2.0.0 6 octets\n250 2.6.0 kept\n250 2.0.0 yes\n");
    assert_eq!(desk.said, expected.replace('\n', "\r\n"));
    assert_eq!(desk.mails[0].octets, b"a\r\n.\r\nb\r\n");
    // Inside a chunk nothing has a meaning.
    let desk = talk(&settings, Protocol::Smtp, OUTSIDE, &format!("{begin}BDAT 11 LAST\n\n.\nQUIT\nNOOP\n"));
    assert!(desk.said.ends_with("250 2.6.0 kept\r\n250 2.0.0 yes\r\n"), "{}", desk.said);
    assert_eq!(desk.mails[0].octets, b"\r\n.\r\nQUIT\r\n");
    for (said, expected) in [
        (
            "BDAT 3\na\nDATA\nRSET\nNOOP\n",
            "250 2.0.0 3 octets\n503 5.5.1 it has begun with BDAT and goes on so\n250 2.0.0 nothing has been said\n250 2.0.0 yes\n",
        ),
        ("BDAT 3\na\nRCPT TO:<ana@sms.gsm.example>\n", "250 2.0.0 3 octets\n503 5.5.1 MAIL comes first\n"),
        (
            "RSET\nBDAT 5 LAST\nQUIT\nNOOP\n",
            "250 2.0.0 nothing has been said\n503 5.5.1 MAIL comes first\n221 2.0.0 good bye\n(end)\n",
        ),
        ("BDAT x\n", "501 5.5.4 write BDAT octets [LAST]\n(end)\n"),
        ("BDAT 3 LAST LAST\n", "501 5.5.4 write BDAT octets [LAST]\n(end)\n"),
        ("BDAT 18446744073709551619\n", "501 5.5.4 write BDAT octets [LAST]\n(end)\n"),
        ("BDAT 99999999 LAST\n", "552 5.3.4 a mail has at most 10000 octets here\n(end)\n"),
    ] {
        let said =
            if said.contains("LAST\nQUIT") { said.replace("LAST\nQUIT", "LAST\n12345QUIT") } else { said.into() };
        check(&settings, Protocol::Smtp, OUTSIDE, &format!("{begin}{said}"), &format!("{head}{expected}"));
    }
    let said = format!("{begin}BDAT 10001\n{}BDAT 1 LAST\nxNOOP\n", "x".repeat(10_001));
    let expected =
        format!("{head}552 5.3.4 a mail has at most 10000 octets here\n503 5.5.1 MAIL comes first\n250 2.0.0 yes\n");
    check(&settings, Protocol::Smtp, OUTSIDE, &said, &expected);
}

#[test]
fn nothing_said_before_tls_is_known_after_it() {
    let settings = settings("");
    let mut desk = Desk::new(&settings, Protocol::Smtp, OUTSIDE);
    desk.feed(b"EHLO evil\r\nMAIL FROM:<a@b.example>\r\nRCPT TO:<2001@sms.gsm.example>\r\n");
    desk.said.clear();
    // What somebody between the two has put behind STARTTLS is not heard.
    desk.feed(b"STARTTLS\r\nRSET\r\nNOOP\r\nNOO");
    assert_eq!(desk.said, "220 2.0.0 begin\r\n(TLS)\r\n");
    desk.said.clear();
    desk.feed(b"P\r\n");
    assert!(desk.said.starts_with("500"), "the beginning of a line went with the rest: {}", desk.said);
    desk.said.clear();
    desk.feed(b"DATA\r\nMAIL FROM:<a@b.example>\r\n");
    assert_eq!(desk.said.matches("503 5.5.1").count(), 2, "neither the mail nor the greeting is known: {}", desk.said);
    desk.said.clear();
    desk.feed(b"EHLO me\r\nSTARTTLS\r\n");
    assert!(!desk.said.contains("STARTTLS\r\n250") && desk.said.contains("503 5.5.1"), "{}", desk.said);
    assert!(desk.said.contains("250-AUTH PLAIN LOGIN\r\n"), "{}", desk.said);
    assert!(desk.session.peer().is_encrypted);

    dialogue(&settings, Protocol::Smtp, OUTSIDE, "EHLO me -> 250 E\n STARTTLS now -> 501 5.5.4");
    let mut session = Session::new(Protocol::Smtp, OUTSIDE.parse().unwrap(), false, false);
    let step = session.feed(&settings, &mut &b"EHLO me\r\nSTARTTLS\r\n"[..]);
    let said = String::from_utf8_lossy(session.out());
    assert!(step == Step::More && said.contains("502 5.5.1") && !said.contains("250-STARTTLS"), "{said}");
}

/// base64 of `\0clinic\0open sesame` and its like.
fn plain(behalf: &str, name: &str, password: &str) -> String {
    encode(&format!("{behalf}\0{name}\0{password}"))
}

fn encode(text: &str) -> String {
    base64::Engine::encode(&base64::engine::general_purpose::STANDARD, text)
}

#[test]
fn a_user_logs_in_where_nobody_listens() {
    let settings = settings("");
    let right = plain("", "clinic", "open sesame");
    let login = |said: &str| {
        let mut desk = Desk::new(&settings, Protocol::Smtp, "127.0.0.1");
        desk.feed(b"EHLO x\r\n");
        assert!(desk.said.contains("250-AUTH PLAIN LOGIN\r\n"));
        desk.said.clear();
        desk.feed(said.replace('\n', "\r\n").as_bytes());
        let user = desk.session.peer().user.clone();
        assert_eq!(user.is_some(), desk.said.contains("235 2.7.0"));
        (desk.said, user)
    };
    for said in [
        format!("AUTH PLAIN {right}\n"),
        format!("auth plain\n{right}\n"),
        format!("AUTH PLAIN {}\n", plain("clinic", "clinic", "open sesame")),
        format!("AUTH LOGIN\n{}\n{}\n", encode("clinic"), encode("open sesame")),
        format!("AUTH LOGIN {}\n{}\n", encode("clinic"), encode("open sesame")),
    ] {
        let (told, user) = login(&said);
        assert_eq!(user.as_deref(), Some("clinic"), "{said}: {told}");
    }
    assert_eq!(login("AUTH LOGIN\n").0, "334 VXNlcm5hbWU6\r\n");
    assert_eq!(login("AUTH PLAIN\n").0, "334 \r\n");
    for (said, expected) in [
        ("AUTH PLAIN\n*\nNOOP\n".to_owned(), "334 \r\n501 5.7.0 no login, then\r\n250"),
        ("AUTH LOGIN\n*\nNOOP\n".to_owned(), "334 VXNlcm5hbWU6\r\n501 5.7.0 no login, then\r\n250"),
        ("AUTH PLAIN =\n".to_owned(), "535 5.7.8"),
        ("AUTH PLAIN !!!\n".to_owned(), "501 5.5.2"),
        ("AUTH CRAM-MD5\n".to_owned(), "504 5.5.4"),
        (format!("AUTH PLAIN {}\n", plain("ana", "clinic", "open sesame")), "535 5.7.8"),
        (format!("AUTH PLAIN {}\n", plain("", "clinic", "")), "535 5.7.8"),
        (format!("AUTH PLAIN {}\n", plain("", "clini", "copen sesame")), "535 5.7.8"),
        (format!("AUTH PLAIN {}\n", encode("clinic")), "535 5.7.8"),
        (
            format!("AUTH LOGIN\n{}\n{}\n", encode("clinic"), encode("sesame")),
            "334 VXNlcm5hbWU6\r\n334 UGFzc3dvcmQ6\r\n535",
        ),
        (format!("AUTH PLAIN {right}\nAUTH PLAIN {right}\n"), "235 2.7.0 welcome\r\n503 5.5.1"),
        (format!("MAIL FROM:<>\nAUTH PLAIN {right}\n"), "250 2.1.0 go on\r\n503 5.5.1"),
    ] {
        let (told, _) = login(&said);
        assert!(told.starts_with(expected), "{said}: {told}");
    }
    let wrong = format!("EHLO x\nAUTH PLAIN {}\n", plain("", "clinic", "wrong")).repeat(LOGINS_MAX as usize);
    let desk = talk(&settings, Protocol::Smtp, "::1", &wrong);
    assert!(desk.said.ends_with("421 4.7.0 too many wrong passwords\r\n(end)\r\n") && desk.paused, "{}", desk.said);
    // In plain, over the network: it is neither offered nor taken.
    let desk = talk(&settings, Protocol::Smtp, OUTSIDE, &format!("EHLO x\nAUTH PLAIN {right}\n"));
    assert!(desk.said.ends_with("538 5.7.11 no password without TLS: say STARTTLS\r\n"), "{}", desk.said);
    assert!(!desk.said.contains("AUTH"));
}

#[test]
fn who_makes_errors_waits_and_then_has_to_go() {
    let settings = settings("");
    let desk = talk(&settings, Protocol::Smtp, OUTSIDE, &"BOGUS\n".repeat(20));
    let errors = "500 5.5.1 there is no such command\n".repeat(ERRORS_MAX as usize - 1);
    assert_eq!(desk.said, format!("{errors}421 4.7.0 too many errors\n(end)\n").replace('\n', "\r\n"));
    assert!(desk.paused);
    let desk = talk(&settings, Protocol::Smtp, OUTSIDE, &"NOOP\n".repeat(COMMANDS_MAX as usize + 1));
    assert!(desk.said.ends_with("421 4.7.0 too many commands without a mail\r\n(end)\r\n") && !desk.paused);
    let desk = talk(&settings, Protocol::Smtp, OUTSIDE, "GET / HTTP/1.1\nHost: x\n");
    assert_eq!(desk.said, "554 5.5.1 this is no web server\r\n(end)\r\n");
    let guesses = "MAIL FROM:<>\nRCPT TO:<x@sms.gsm.example>\nRSET\n".repeat(REFUSED_MAX as usize);
    let desk = talk(&settings, Protocol::Smtp, OUTSIDE, &format!("EHLO x\n{guesses}"));
    assert!(desk.said.ends_with("421 4.7.0 too many addresses that are not here\r\n(end)\r\n"));
    // Who gathers his commands has sent the rest of a refused mail before he hears of it.
    let rest = "RCPT TO:<2001@sms.gsm.example>\n".repeat(20);
    let said = format!("EHLO x\nMAIL FROM:<> SIZE=20000\n{rest}DATA\nBDAT 0 LAST\nRSET\nQUIT\n");
    let desk = talk(&settings, Protocol::Smtp, OUTSIDE, &said);
    assert_eq!(desk.said.matches("503 5.5.1").count(), 22);
    assert!(desk.said.ends_with("221 2.0.0 good bye\r\n(end)\r\n") && !desk.paused, "{}", desk.said);
    // A relay that has much to bring is not sent away.
    let mail = "MAIL FROM:<>\r\nRCPT TO:<2001@sms.gsm.example>\r\nDATA\r\nx\r\n.\r\n".repeat(COMMANDS_MAX as usize);
    let desk = raw(&settings, Protocol::Smtp, OUTSIDE, format!("EHLO x\r\n{mail}").as_bytes());
    assert_eq!(desk.mails.len(), COMMANDS_MAX as usize);
}

#[test]
fn a_line_is_one_only_with_cr_lf_and_not_too_long() {
    let settings = settings("");
    for (wire, expected) in [
        (b"NOOP\n".to_vec(), "500 5.5.2 a line"),
        (b"NOOP\r\r\n".to_vec(), "500 5.5.2 a line"),
        (b"NO\rOP\r\n".to_vec(), "500 5.5.2 a line"),
        (b"NOOP \0\r\n".to_vec(), "500 5.5.2 a line"),
        (b"NOOP \xff\r\n".to_vec(), "500 5.5.2 that is no UTF-8"),
        (b"\r\n".to_vec(), "500 5.5.1"),
        ([b"NOOP ", &b"x".repeat(LINE_OCTETS_MAX - 5)[..], b"\r\n"].concat(), "250 2.0.0"),
        ([b"NOOP ", &b"x".repeat(LINE_OCTETS_MAX - 4)[..], b"\r\n"].concat(), "500 5.5.2 no line"),
        (
            [b"NOOP ", &b"x".repeat(100_000)[..], b"\r\nNOOP\r\n"].concat(),
            "500 5.5.2 no line has more than 2048 octets\r\n250",
        ),
    ] {
        let said = raw(&settings, Protocol::Smtp, OUTSIDE, &wire).said;
        assert!(said.starts_with(expected), "{:?}: {said}", String::from_utf8_lossy(&wire[..wire.len().min(20)]));
    }
}

#[test]
fn a_full_box_and_one_without_mail_say_so() {
    let settings = settings("");
    let mut desk = Desk::new(&settings, Protocol::Smtp, OUTSIDE);
    desk.session.set_full(true);
    desk.feed(b"EHLO x\r\nMAIL FROM:<>\r\n");
    assert!(desk.said.ends_with("452 4.3.1 the disk is full: come again\r\n"), "{}", desk.said);
    let mut without = settings.clone();
    without.mail = None;
    let mut desk = Desk::new(&without, Protocol::Smtp, OUTSIDE);
    desk.feed(b"EHLO x\r\n");
    assert_eq!(desk.said, "421 4.3.2 mail is no longer taken here\r\n(end)\r\n");
}

#[test]
fn a_reply_is_one_line_of_ascii_whatever_it_says() {
    let settings = settings("");
    let mut desk = Desk::new(&settings, Protocol::Smtp, OUTSIDE);
    desk.replies = vec![Reply::new(550, (5, 7, 1), format!("n\u{f6}\r\n250 yes{}", "x".repeat(1000)))];
    desk.feed(format!("{BEGIN}x\r\n.\r\n").as_bytes());
    let last = desk.said.trim_end_matches("\r\n").rsplit("\r\n").next().unwrap();
    assert!(last.starts_with("550 5.7.1 n???250 yesxxx") && last.len() < 510, "{last}");
}

// --- Who may write to whom ---

fn peer(ip: &str, user: Option<&str>) -> Peer {
    Peer { ip: ip.parse().unwrap(), hello: String::new(), user: user.map(str::to_owned), is_encrypted: true }
}

fn address(text: &str) -> Address {
    Address::parse(text).unwrap_or_else(|why| panic!("{text}: {why}"))
}

/// The code and status of a refusal, or whom it is for.
fn admitted(settings: &Settings, peer: &Peer, from: &str, to: &str) -> String {
    let from = (!from.is_empty()).then(|| address(from));
    match admit::recipient(settings, peer, from.as_ref(), &address(to)) {
        Ok(RcptTo::Phone(imsi)) => imsi.as_str()[13..].to_owned(),
        Ok(RcptTo::Elsewhere(number)) => number.to_string(),
        Err(Reply { code, status: (class, subject, detail), text }) => {
            assert!(text.is_ascii() && !text.is_empty() && !text.contains(['\r', '\n']), "{text:?}");
            format!("{code} {class}.{subject}.{detail}")
        }
    }
}

#[test]
fn an_address_is_a_number_an_imsi_or_a_name() {
    let settings = settings("");
    let outside = peer(OUTSIDE, None);
    for (local, expected) in [
        ("+15550001", "01"),
        ("15550001", "01"),
        ("2001", "01"),
        ("+2001", "01"),
        ("Ana", "01"),
        ("POSTMASTER", "01"),
        ("imsi001010000000003", "03"),
        ("IMSI001010000000003", "03"),
        ("jörg", "03"),
        ("+15550002", "550 5.2.1"),
        ("imsi001010000000002", "550 5.2.1"),
        ("001010000000003", "550 5.1.1"),
        ("imsi001010000000009", "550 5.1.1"),
        ("+15550009", "550 5.1.1"),
        ("nobody", "550 5.1.1"),
        ("+15550001+tag", "550 5.1.1"),
        ("ana+tag", "550 5.1.1"),
        ("1000", "550 5.1.1"),
        ("1001", "550 5.1.1"),
        ("101", "550 5.1.1"),
        ("+15559042", "550 5.1.1"),
        ("15559042", "550 5.1.1"),
        ("112", "550 5.1.1"),
        ("sos", "550 5.1.1"),
    ] {
        let to = format!("{local}@sms.gsm.example");
        assert_eq!(admitted(&settings, &outside, "a@b.example", &to), expected, "{local}");
    }
}

/// The tricks by which relays have been opened, as anybody, as a listed server and as a user: nobody's mail goes to another domain.
#[test]
fn nobodys_mail_is_relayed() {
    let settings = settings("");
    let tricks = [
        "victim@example.org",
        "victim%example.org@sms.gsm.example",
        "victim%example.org@[192.0.2.1]",
        "example.org!victim@sms.gsm.example",
        "example.org!victim",
        "\"victim@example.org\"@sms.gsm.example",
        "\"victim%example.org\"@sms.gsm.example",
        "\"+15550001\"@sms.gsm.example",
        "@sms.gsm.example:victim@example.org",
        "@sms.gsm.example,@gsm.example:victim@example.org",
        "@example.org:+15550001@sms.gsm.example",
        "victim@example.org@sms.gsm.example",
        "victim",
        "victim@localhost",
        "victim@[127.0.0.1]",
        "+15550001@[203.0.113.1]",
        "+15550001@[IPv6:2001:db8::1]",
        "+15550001@gsm.example",
        "+15550001@x.sms.gsm.example",
        "+15550001@sms.gsm.example.example.org",
        "+15550001@xsms.gsm.example",
        "\"victim\\@example.org\"@sms.gsm.example",
        "victim@example.org%sms.gsm.example",
        "sms.gsm.example!victim@example.org",
        "victim%example.org%x@sms.gsm.example",
        "/C=us/A=x/S=victim/@sms.gsm.example",
        "victim:x@sms.gsm.example",
        "\"\"@sms.gsm.example",
        "+1666 0001@sms.gsm.example",
        "postmaster@example.org",
    ];
    for (ip, login) in [(OUTSIDE, false), (TRUSTED, false), ("198.51.100.7", false), ("127.0.0.1", true)] {
        for from in ["spam@example.org", "+15550001@sms.gsm.example", ""] {
            for trick in tricks {
                let login =
                    if login { format!("AUTH PLAIN {}\n", plain("", "clinic", "open sesame")) } else { String::new() };
                let said = format!("EHLO x\n{login}MAIL FROM:<{from}>\nRCPT TO:<{trick}>\nDATA\n");
                let desk = talk(&settings, Protocol::Smtp, ip, &said);
                assert!(!desk.said.contains("250 2.1.5"), "{ip} {trick}: {}", desk.said);
                assert!(!desk.said.contains("354"), "{ip} {trick}: {}", desk.said);
                let refused = desk.said.contains("\n550 5.7.1")
                    || desk.said.contains("\n550 5.1.1")
                    || desk.said.contains("\n501 5.");
                assert!(refused || desk.said.contains("503"), "{ip} {trick}: {}", desk.said);
            }
        }
    }
}

#[test]
fn a_number_elsewhere_is_for_those_whom_the_operator_knows() {
    let settings = settings("");
    let to = |local: &str| format!("{local}@sms.gsm.example");
    let who = [
        peer(TRUSTED, None),
        peer("198.51.100.7", None),
        peer(OUTSIDE, Some("clinic")),
        peer("::ffff:192.0.2.25", None),
    ];
    for peer in &who {
        assert_eq!(admitted(&settings, peer, "a@b.example", &to("+15561234")), "+15561234");
        assert_eq!(admitted(&settings, peer, "a@b.example", &to("15561234")), "+15561234", "as the route has it");
        assert_eq!(admitted(&settings, peer, "", &to("+15561234")), "+15561234");
        assert_eq!(admitted(&settings, peer, "a@b.example", &to("+15558812")), "+15558812", "the longer prefix wins");
        assert_eq!(admitted(&settings, peer, "a@b.example", &to("+15551234")), "550 5.1.1", "ours, and nobody's");
        assert_eq!(admitted(&settings, peer, "a@b.example", &to("+1777")), "550 5.1.1");
    }
    assert_eq!(admitted(&settings, &peer(OUTSIDE, None), "a@b.example", &to("+15561234")), "550 5.7.1");
}

#[test]
fn a_subscribers_lists_come_before_those_of_all() {
    let settings = settings("allow = [\"boss@spam.example\", \"friend@other.example\"]\ndeny = [\"@spam.example\"]");
    let listed = self::settings("senders = \"listed\"\nallow = [\"friend@other.example\"]");
    let outside = peer(OUTSIDE, None);
    let (ana, joerg) = ("ana@sms.gsm.example", "imsi001010000000003@sms.gsm.example");
    for (settings, peer, from, to, expected) in [
        (&settings, &outside, "x@spam.example", ana, "550 5.7.1"),
        (&settings, &outside, "x@mail.spam.example", ana, "550 5.7.1"),
        (&settings, &outside, "boss@spam.example", ana, "01"),
        (&settings, &outside, "CAROL@spam.example", ana, "01"),
        (&settings, &outside, "carol@spam.example", joerg, "550 5.7.1"),
        (&settings, &outside, "x@example.net", ana, "550 5.7.1"),
        (&settings, &outside, "x@example.net", joerg, "03"),
        (&settings, &outside, "x@b.example", ana, "01"),
        // Who has logged in is still nobody that ana wants to hear of.
        (&settings, &self::peer(OUTSIDE, Some("clinic")), "x@example.net", ana, "550 5.7.1"),
        (&settings, &self::peer(OUTSIDE, Some("clinic")), "x@spam.example", joerg, "550 5.7.1"),
        (&settings, &outside, "", ana, "01"),
        (&listed, &outside, "x@b.example", joerg, "550 5.7.1"),
        (&listed, &outside, "friend@other.example", joerg, "03"),
        (&listed, &outside, "carol@spam.example", ana, "01"),
        (&listed, &self::peer(TRUSTED, None), "x@b.example", joerg, "03"),
        (&listed, &self::peer("198.51.100.7", None), "x@b.example", joerg, "03"),
        (&listed, &self::peer(OUTSIDE, Some("clinic")), "x@b.example", joerg, "03"),
        (&listed, &outside, "", joerg, "03"),
    ] {
        assert_eq!(admitted(settings, peer, from, to), expected, "{from} to {to} by {peer:?}");
    }
    let imsi = settings.subscribers.by_alias("ana").unwrap().imsi;
    let allowed = |from: &str| admit::is_allowed(&settings, &imsi, &address(from));
    assert!(allowed("carol@spam.example") && allowed("friend@other.example") && !allowed("x@b.example"));
}

#[test]
fn nobody_outside_writes_as_one_of_our_phones() {
    let settings = settings("");
    let ours = address("+15550001@sms.gsm.example");
    assert!(admit::sender(&settings, &peer(OUTSIDE, None), Some(&ours)).is_err());
    for peer in [peer(TRUSTED, None), peer("198.51.100.7", None), peer(OUTSIDE, Some("clinic"))] {
        assert_eq!(admit::sender(&settings, &peer, Some(&ours)), Ok(()));
    }
    assert_eq!(admit::sender(&settings, &peer(OUTSIDE, None), None), Ok(()));
    assert_eq!(admit::sender(&settings, &peer(OUTSIDE, None), Some(&address("a@b.example"))), Ok(()));
}

#[test]
fn a_server_in_front_gives_those_who_write_through_it_no_right() {
    let settings = settings("senders = \"listed\"");
    let front = peer(FRONT, None);
    let to = |text: &str| admit::recipient(&settings, &front, Some(&address("a@b.example")), &address(text));
    assert_eq!(to("+15560001@sms.gsm.example").map_err(|no| no.status), Err((5, 7, 1)), "a number elsewhere");
    assert_eq!(to("2001@sms.gsm.example").map_err(|no| no.status), Err((5, 7, 1)), "nobody has listed him");
    assert!(admit::sender(&settings, &front, Some(&address("+15550001@sms.gsm.example"))).is_err(), "a forged phone");
    assert!(!admit::is_trusted(&settings, &front) && !admit::is_box(&settings, &front));
    let mail = settings.mail.as_deref().unwrap();
    let listed = [FRONT, TRUSTED, "198.51.100.7", "::ffff:192.0.2.10", OUTSIDE];
    let listed = listed.map(|ip| admit::is_listed(mail, ip.parse().unwrap()));
    assert_eq!(listed, [true, true, true, true, false], "its sessions are not counted by its address");
}

fn mail_in(peer: Peer, from: Option<&str>, letter: Letter) -> MailIn {
    let from = from.map(address);
    MailIn { from, peer, recipients: Vec::new(), envid: None, each_answered: false, letter }
}

#[test]
fn what_a_server_that_we_believe_has_found_decides() {
    use Proof::{Fail, Pass, Unknown};
    let by = |unproven: &str| settings(&format!("results_from = [\"mx.example\"]\nunproven = \"{unproven}\""));
    let results = |by: &str, spf, dkim, dmarc| Letter {
        results: vec![Results { by: by.into(), spf, dkim, dmarc }],
        ..Letter::default()
    };
    let mx = "MX.example";
    let cases: [(Letter, [&str; 3]); 15] = [
        (results(mx, Some(Pass), None, None), ["", "", ""]),
        (results(mx, Some(Fail), None, None), ["", "5.7.23", "5.7.23"]),
        (results(mx, None, Some(Fail), None), ["", "5.7.20", "5.7.20"]),
        (results(mx, Some(Fail), Some(Fail), None), ["", "5.7.20", "5.7.20"]),
        // A list has written a line below it.
        (results(mx, Some(Pass), Some(Fail), None), ["", "", ""]),
        (results(mx, Some(Unknown), Some(Fail), None), ["", "", "5.7.26"]),
        (results(mx, Some(Fail), Some(Pass), Some(Pass)), ["", "", ""]),
        (results(mx, Some(Pass), Some(Pass), Some(Fail)), ["", "5.7.1", "5.7.1"]),
        (results(mx, Some(Unknown), None, None), ["", "", "5.7.26"]),
        (results(mx, Some(Unknown), Some(Pass), None), ["", "", ""]),
        (Letter::default(), ["", "", "5.7.26"]),
        // Whoever wrote these lines, it was not our server.
        (results("evil.example", Some(Pass), Some(Pass), Some(Pass)), ["", "", "5.7.26"]),
        (results("evil.example", Some(Fail), None, None), ["", "", "5.7.26"]),
        (
            Letter {
                results: vec![
                    Results { by: mx.into(), spf: Some(Unknown), ..Results::default() },
                    Results { by: mx.into(), dkim: Some(Pass), ..Results::default() },
                ],
                ..Letter::default()
            },
            ["", "", ""],
        ),
        // The lower one is the sender's own, in our server's name.
        (
            Letter {
                results: vec![
                    Results { by: mx.into(), dmarc: Some(Fail), ..Results::default() },
                    Results { by: mx.into(), spf: Some(Pass), dkim: Some(Pass), dmarc: Some(Pass) },
                ],
                ..Letter::default()
            },
            ["", "5.7.1", "5.7.1"],
        ),
    ];
    for (letter, expected) in cases {
        for (unproven, expected) in ["accept", "refuse_failed", "refuse"].into_iter().zip(expected) {
            let settings = by(unproven);
            let told = |peer, from| {
                let answer = admit::proven(&settings, &mail_in(peer, from, letter.clone()));
                let mut told = String::new();
                if let Err(Reply { code, status: (class, subject, detail), .. }) = answer {
                    assert_eq!(code, 550);
                    write!(told, "{class}.{subject}.{detail}").unwrap();
                }
                told
            };
            let from = Some("a@b.example");
            assert_eq!(told(peer(FRONT, None), from), expected, "{unproven}: {letter:?}");
            // From somewhere else the line is nobody's word.
            let forged = if unproven == "refuse" { "5.7.26" } else { "" };
            assert_eq!(told(peer(OUTSIDE, None), from), forged, "{unproven}: {letter:?}");
            // They bring mail of ours, which nobody has looked at.
            for peer in [peer(OUTSIDE, Some("clinic")), peer("198.51.100.7", None), peer(TRUSTED, None)] {
                assert_eq!(told(peer, from), "", "{unproven}: {letter:?}");
            }
            assert_eq!(told(peer(FRONT, None), None), "", "a bounce");
        }
    }
}

#[test]
fn a_mail_that_goes_round_is_stopped() {
    let settings = settings("received_max = 3");
    let told =
        |letter: Letter| admit::no_loop(&settings, &mail_in(peer(TRUSTED, None), None, letter)).map_err(|no| no.status);
    assert_eq!(told(Letter { received_count: 3, ..Letter::default() }), Ok(()));
    assert_eq!(told(Letter { received_count: 4, ..Letter::default() }), Err((5, 4, 6)));
    assert_eq!(told(Letter { traces: vec!["sms.hill.example".into()], ..Letter::default() }), Ok(()));
    let traces = vec!["sms.hill.example".into(), "SMS.gsm.example".into()];
    assert_eq!(told(Letter { traces, ..Letter::default() }), Err((5, 4, 6)));
}

#[test]
fn orcpt_in_letters_of_any_script_is_kept_as_ascii() {
    let settings = settings("");
    let taken = |orcpt: &str| {
        let said =
            format!("EHLO x\nMAIL FROM:<> SMTPUTF8\nRCPT TO:<2001@sms.gsm.example> ORCPT={orcpt}\nDATA\nx\n.\nQUIT\n");
        let desk = talk(&settings, Protocol::Smtp, OUTSIDE, &said);
        desk.mails.first().map(|mail| mail.recipients[0].orcpt.clone().unwrap())
    };
    assert_eq!(taken("utf-8;jörg€@b.example").as_deref(), Some("utf-8;j\\x{F6}rg\\x{20AC}@b.example"));
    assert_eq!(taken("UTF-8;j\\x{F6}rg@b.example").as_deref(), Some("UTF-8;j\\x{F6}rg@b.example"));
    assert_eq!(taken("rfc822;jörg@b.example"), None, "that is no xtext");
}

#[test]
fn where_too_much_mail_comes_in_a_small_one_is_taken_and_a_large_one_comes_again() {
    let settings = settings("").mail.map(|mail| mail.size_max);
    assert_eq!(settings, Some(10_000));
    let settings = {
        let text = BASE.replace("REST", "").replace("size_max = \"10 kB\"", "size_max = \"1 MB\"");
        let main = Source { name: "encamp.toml".into(), text };
        read(&Sources { main, ..Sources::default() }).unwrap_or_else(|problems| panic!("{problems:#?}")).0
    };
    let envelope = "MAIL FROM:<a@b.example>\r\nRCPT TO:<2001@sms.gsm.example>\r\n";
    let line = format!("{}\r\n", "x".repeat(98));
    let large = line.repeat(SMALL_OCTETS_MAX / 100 + 2);
    let small = line.repeat(SMALL_OCTETS_MAX / 100 - 2);
    let desk = |is_short: bool| {
        let mut desk = Desk::new(&settings, Protocol::Smtp, OUTSIDE);
        desk.session.set_short(is_short);
        desk.feed(b"EHLO x\r\n");
        desk.said.clear();
        desk
    };
    for (is_short, words, is_taken) in [(true, &small, true), (true, &large, false), (false, &large, true)] {
        let chunk = words.len() / 2;
        let by_data = format!("{envelope}DATA\r\n{words}.\r\n");
        let by_chunks =
            format!("{envelope}BDAT {chunk}\r\n{}BDAT {} LAST\r\n{}", &words[..chunk], chunk, &words[chunk..]);
        for said in [by_data, by_chunks] {
            let mut desk = desk(is_short);
            desk.feed(&said.as_bytes()[..said.len() - 1]);
            assert!(desk.session.held() <= 2 * words.len() as u64);
            assert!(is_taken || desk.session.held() < SMALL_OCTETS_MAX as u64, "what is refused is not held");
            desk.feed(&said.as_bytes()[said.len() - 1..]);
            assert_eq!((desk.mails.len(), desk.session.has_mail()), (usize::from(is_taken), is_taken), "{}", desk.said);
            assert_eq!(
                desk.said.ends_with("452 4.3.1 too much mail comes in at this moment: come again\r\n"),
                !is_taken
            );
            desk.feed(b"NOOP\r\n");
            assert!(desk.said.ends_with("250 2.0.0 yes\r\n"), "{}", desk.said);
        }
    }
    let mut desk = desk(true);
    desk.feed(b"MAIL FROM:<> SIZE=900000\r\n");
    assert!(desk.said.starts_with("452 4.3.1"), "{}", desk.said);
    desk.session.set_short(false);
    desk.feed(b"MAIL FROM:<> SIZE=900000\r\n");
    assert!(desk.said.ends_with("250 2.1.0 go on\r\n"), "{}", desk.said);
    assert_eq!(desk.session.held(), 0, "what is only announced takes no room");
}

#[test]
fn from_where_too_many_wrong_passwords_came_nobody_logs_in() {
    let settings = settings("");
    let mut desk = Desk::new(&settings, Protocol::Smtp, "127.0.0.1");
    desk.session.set_barred(true);
    let right = plain("", "clinic", "open sesame");
    desk.feed(format!("EHLO x\r\nAUTH PLAIN {right}\r\n").as_bytes());
    assert!(desk.said.contains("\r\n454 4.7.0 too many wrong passwords"), "{}", desk.said);
    assert_eq!(desk.counts.logins, 0);
    desk.session.set_barred(false);
    desk.feed(format!("AUTH PLAIN {}\r\nAUTH PLAIN {right}\r\n", plain("", "clinic", "wrong")).as_bytes());
    assert!(desk.said.ends_with("535 5.7.8 name or password is wrong\r\n235 2.7.0 welcome\r\n"), "{}", desk.said);
    assert_eq!((desk.counts.logins, desk.counts.logins_wrong), (1, 1));
}
