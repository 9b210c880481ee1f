//! Mail as others have it: a server that takes what the box hands over, and a client that writes to it.
//!
//! Knows: SMTP with both ends plain, and as much of MIME as it takes to show what a bridge of texts writes. Does not know: what a right bridge does,
//! and nothing of the box's own rooms of mail.
//! Shape:  a mail is kept as text whose lines end in `\n`, with its dots undone.
//! Limits: [`SESSION_COUNT_MAX`], [`LINE_BYTES_MAX`], [`MAIL_BYTES_MAX`], [`STEP_WAIT`] for each step of a session.
//! Read first: RFC 5321 §3.3, §4.5.2; RFC 5322 §2; RFC 3461 §4 and §5.

use std::io::{self, BufRead as _, BufReader, Read as _, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Condvar, Mutex};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

use super::bts::lock;

const SESSION_COUNT_MAX: usize = 64;
/// A line of a mail has at most 1000 octets with its CR LF (RFC 5321 §4.5.3.1.6), and perhaps a doubled dot.
const LINE_BYTES_MAX: usize = 1_001;
const MAIL_BYTES_MAX: usize = 1_000_000;
/// For one command or one answer.
const STEP_WAIT: Duration = Duration::from_secs(10);
const HELLO: &str = "mail.example.org";

/// A mail that has come.
#[derive(Clone, Debug)]
pub struct Mail {
    /// MAIL FROM; empty: `<>`.
    pub from: String,
    pub to: Vec<String>,
    /// What stood behind the two addresses: NOTIFY and the like.
    pub terms: String,
    pub text: String,
    pub at: Instant,
}

impl Mail {
    /// A header in one line; `None`: it has none of this name.
    pub fn header(&self, name: &str) -> Option<String> {
        let mut lines = self.head().lines().peekable();
        while let Some(line) = lines.next() {
            let Some((found, value)) = line.split_once(':') else { continue };
            if !found.eq_ignore_ascii_case(name) {
                continue;
            }
            let mut value = value.trim().to_owned();
            while let Some(more) = lines.next_if(|line| line.starts_with([' ', '\t'])) {
                value = value + " " + more.trim();
            }
            return Some(value);
        }
        None
    }

    fn head(&self) -> &str {
        self.text.split_once("\n\n").map_or(self.text.as_str(), |(head, _)| head)
    }

    /// What stands behind the header, as it came.
    pub fn raw_body(&self) -> &str {
        self.text.split_once("\n\n").map_or("", |(_, body)| body)
    }

    /// The words of a mail in one part, without blank ends.
    ///
    /// Errors: its encoding is not what it says.
    pub fn words(&self) -> Result<String, String> {
        let encoding = self.header("Content-Transfer-Encoding").unwrap_or_default().to_ascii_lowercase();
        let body = self.raw_body();
        let bytes = match encoding.as_str() {
            "" | "7bit" | "8bit" => body.as_bytes().to_vec(),
            "base64" => {
                let text: String = body.split_whitespace().collect();
                STANDARD.decode(text).map_err(|error| format!("its base64 cannot be read: {error}"))?
            }
            "quoted-printable" => unquoted(body)?,
            other => return Err(format!("nobody knows the encoding {other:?}")),
        };
        let words = String::from_utf8(bytes).map_err(|_| "its words are no UTF-8".to_owned())?;
        Ok(words.replace("\r\n", "\n").trim().to_owned())
    }

    /// The ids in a header, without their brackets.
    pub fn ids(&self, name: &str) -> Vec<String> {
        let value = self.header(name).unwrap_or_default();
        value.split_whitespace().map(|id| id.trim_matches(['<', '>']).to_owned()).collect()
    }
}

/// RFC 2045 §6.7.
fn unquoted(body: &str) -> Result<Vec<u8>, String> {
    let mut bytes = Vec::with_capacity(body.len());
    for line in body.split_inclusive('\n') {
        let (mut rest, end) = line.strip_suffix('\n').map_or((line, ""), |line| (line, "\n"));
        let is_soft = rest.ends_with('=');
        rest = rest.strip_suffix('=').unwrap_or(rest);
        while let Some((plain, behind)) = rest.split_once('=') {
            bytes.extend_from_slice(plain.as_bytes());
            let octet = behind.get(..2).and_then(|hex| u8::from_str_radix(hex, 16).ok());
            bytes.push(octet.ok_or_else(|| format!("its quoted-printable cannot be read at {behind:?}"))?);
            rest = &behind[2..];
        }
        bytes.extend_from_slice(rest.as_bytes());
        if !is_soft {
            bytes.extend_from_slice(end.as_bytes());
        }
    }
    Ok(bytes)
}

/// Code and words with which a recipient is refused.
pub type Refusal = (u16, String);
type Rule = dyn Fn(&str) -> Result<(), Refusal> + Send + Sync;

/// A server with threads of its own.
pub struct Server {
    shared: Arc<Shared>,
    own: SocketAddr,
    acceptor: Option<JoinHandle<()>>,
}

struct Shared {
    rule: Box<Rule>,
    mails: Mutex<Vec<Mail>>,
    came: Condvar,
    complaints: Mutex<Vec<String>>,
    closing: AtomicBool,
    session_count: AtomicUsize,
}

impl Server {
    /// `rule`: who is no recipient here.
    pub fn new(
        address: SocketAddr,
        rule: impl Fn(&str) -> Result<(), Refusal> + Send + Sync + 'static,
    ) -> io::Result<Server> {
        let listener = TcpListener::bind(address)?;
        let own = listener.local_addr()?;
        let shared = Arc::new(Shared {
            rule: Box::new(rule),
            mails: Mutex::default(),
            came: Condvar::new(),
            complaints: Mutex::default(),
            closing: AtomicBool::new(false),
            session_count: AtomicUsize::new(0),
        });
        let acceptor = {
            let shared = Arc::clone(&shared);
            std::thread::spawn(move || shared.accept(&listener))
        };
        Ok(Server { shared, own, acceptor: Some(acceptor) })
    }

    pub fn address(&self) -> SocketAddr {
        self.own
    }

    /// The first mail that is so, as soon as it is there.
    pub fn mail_when(&self, wait: Duration, is_so: impl Fn(&Mail) -> bool) -> Option<Mail> {
        let until = Instant::now() + wait;
        let mut mails = lock(&self.shared.mails);
        loop {
            if let Some(found) = mails.iter().find(|mail| is_so(mail)) {
                return Some(found.clone());
            }
            let left = until.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return None;
            }
            mails =
                self.shared.came.wait_timeout(mails, left).map_or_else(|poison| poison.into_inner().0, |held| held.0);
        }
    }

    /// Every mail that has come.
    pub fn mails(&self) -> Vec<Mail> {
        lock(&self.shared.mails).clone()
    }

    /// What was said that is no SMTP, or no mail.
    pub fn complaints(&self) -> Vec<String> {
        lock(&self.shared.complaints).clone()
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.shared.closing.store(true, Ordering::Relaxed);
        // Whom it wakes is not looked at any more.
        let _ = TcpStream::connect_timeout(&self.own, STEP_WAIT);
        if let Some(acceptor) = self.acceptor.take() {
            let _ = acceptor.join();
        }
    }
}

impl Shared {
    fn accept(self: &Arc<Shared>, listener: &TcpListener) {
        for stream in listener.incoming() {
            if self.closing.load(Ordering::Relaxed) {
                return;
            }
            let Ok(stream) = stream else { continue };
            if self.session_count.fetch_add(1, Ordering::Relaxed) >= SESSION_COUNT_MAX {
                self.session_count.fetch_sub(1, Ordering::Relaxed);
                continue;
            }
            let shared = Arc::clone(self);
            std::thread::spawn(move || {
                // A line that breaks is the other side's doing.
                let _ = shared.session(stream);
                shared.session_count.fetch_sub(1, Ordering::Relaxed);
            });
        }
    }

    fn complain(&self, what: String) {
        lock(&self.complaints).push(what);
    }

    fn session(&self, stream: TcpStream) -> io::Result<()> {
        stream.set_read_timeout(Some(STEP_WAIT))?;
        stream.set_nodelay(true)?;
        let mut lines = BufReader::new(stream.try_clone()?);
        let mut stream = stream;
        let mut say = |text: &str| stream.write_all(format!("{text}\r\n").as_bytes());
        say(&format!("220 {HELLO} ESMTP"))?;
        let (mut greeted, mut from, mut to, mut terms) = (false, None, Vec::new(), String::new());
        while let Some(line) = self.line(&mut lines)? {
            let (verb, rest) = line.split_once(' ').unwrap_or((line.as_str(), ""));
            match verb.to_ascii_uppercase().as_str() {
                "EHLO" => {
                    greeted = true;
                    say(&format!(
                        "250-{HELLO}\r\n250-SIZE {MAIL_BYTES_MAX}\r\n250-8BITMIME\r\n250-PIPELINING\r\n250 DSN"
                    ))?;
                }
                "MAIL" if greeted && from.is_none() => match path(rest, "FROM:") {
                    Some((address, more)) => {
                        (from, terms) = (Some(address), more);
                        say("250 2.1.0 go on")?;
                    }
                    None => say("501 5.5.4 MAIL FROM:<address>")?,
                },
                "RCPT" if from.is_some() => match path(rest, "TO:") {
                    Some((address, more)) => match (self.rule)(&address) {
                        Ok(()) => {
                            to.push(address);
                            terms = terms + " " + &more;
                            say("250 2.1.5 go on")?;
                        }
                        Err((code, why)) => say(&format!("{code} {why}"))?,
                    },
                    None => say("501 5.5.4 RCPT TO:<address>")?,
                },
                "DATA" if !to.is_empty() => {
                    say("354 go on")?;
                    let Some(text) = self.data(&mut lines)? else { return say("552 5.3.4 too long") };
                    let (from, to) = (from.take().unwrap_or_default(), std::mem::take(&mut to));
                    let mail = Mail { from, to, terms: std::mem::take(&mut terms), text, at: Instant::now() };
                    lock(&self.mails).push(mail);
                    self.came.notify_all();
                    say("250 2.0.0 kept")?;
                }
                "RSET" => {
                    (from, to, terms) = (None, Vec::new(), String::new());
                    say("250 2.0.0 forgotten")?;
                }
                "NOOP" => say("250 2.0.0 yes")?,
                "QUIT" => return say("221 2.0.0 good bye"),
                _ => {
                    self.complain(format!("{line:?} where nobody expects it"));
                    say("503 5.5.1 not now")?;
                }
            }
        }
        Ok(())
    }

    /// A line without its end; `None`: the other side has closed.
    fn line(&self, lines: &mut BufReader<TcpStream>) -> io::Result<Option<String>> {
        let mut line = Vec::new();
        lines.by_ref().take(MAIL_BYTES_MAX as u64).read_until(b'\n', &mut line)?;
        if line.is_empty() {
            return Ok(None);
        }
        if line.len() > LINE_BYTES_MAX {
            self.complain(format!("a line of {} octets", line.len()));
        }
        let Some(bare) = line.strip_suffix(b"\r\n") else {
            self.complain("a line that does not end in CR LF".into());
            return Ok(Some(String::from_utf8_lossy(line.trim_ascii_end()).into_owned()));
        };
        Ok(Some(String::from_utf8_lossy(bare).into_owned()))
    }

    /// Up to the line with a dot; `None`: it is too long, or never ends.
    fn data(&self, lines: &mut BufReader<TcpStream>) -> io::Result<Option<String>> {
        let mut text = String::new();
        while let Some(line) = self.line(lines)? {
            if line == "." {
                return Ok(Some(text));
            }
            text += line.strip_prefix('.').unwrap_or(&line);
            text.push('\n');
            if text.len() > MAIL_BYTES_MAX {
                break;
            }
        }
        Ok(None)
    }
}

/// The address in `FROM:<address> TERMS`, and the terms.
fn path(text: &str, head: &str) -> Option<(String, String)> {
    let rest = text.get(..head.len()).filter(|found| found.eq_ignore_ascii_case(head)).map(|_| &text[head.len()..])?;
    let (address, terms) = rest.strip_prefix('<')?.split_once('>')?;
    Some((address.to_owned(), terms.trim().to_owned()))
}

/// The last thing that was said to a mail that was handed in.
#[derive(Clone, Debug)]
pub struct Answer {
    pub code: u16,
    pub text: String,
    pub at: Instant,
}

/// Hands a mail in, as a plain client that offers nothing. `from` and `to` may have terms behind them: `<carol@example.org> RET=HDRS`.
///
/// Errors: nobody speaks SMTP there, or not in time.
pub fn hand_in(server: SocketAddr, from: &str, to: &str, text: &str) -> io::Result<Answer> {
    let mut stream = TcpStream::connect_timeout(&server, STEP_WAIT)?;
    stream.set_read_timeout(Some(STEP_WAIT))?;
    stream.set_nodelay(true)?;
    let mut lines = BufReader::new(stream.try_clone()?);
    let mut answer = read_answer(&mut lines)?;
    let stuffed: String = text.lines().fold(String::new(), |all, line| {
        let dot = if line.starts_with('.') { "." } else { "" };
        all + dot + line + "\r\n"
    });
    let steps = [
        (format!("EHLO {HELLO}\r\n"), 250),
        (format!("MAIL FROM:{from}\r\n"), 250),
        (format!("RCPT TO:{to}\r\n"), 250),
        ("DATA\r\n".to_owned(), 354),
        (stuffed + ".\r\n", 250),
    ];
    for (step, right) in steps {
        if answer.code >= 400 {
            break;
        }
        stream.write_all(step.as_bytes())?;
        answer = read_answer(&mut lines)?;
        if answer.code != right {
            break;
        }
    }
    // What is said to it changes nothing.
    let _ = stream.write_all(b"QUIT\r\n");
    Ok(answer)
}

fn read_answer(lines: &mut BufReader<TcpStream>) -> io::Result<Answer> {
    let mut text = String::new();
    loop {
        let mut line = String::new();
        lines.by_ref().take(LINE_BYTES_MAX as u64).read_line(&mut line)?;
        let code = line.get(..3).and_then(|code| code.parse::<u16>().ok());
        let Some(code) = code else {
            return Err(io::Error::new(io::ErrorKind::InvalidData, format!("{:?} is no answer of SMTP", line.trim())));
        };
        text += line.get(4..).unwrap_or_default().trim();
        if line.as_bytes().get(3) != Some(&b'-') {
            return Ok(Answer { code, text, at: Instant::now() });
        }
        text.push(' ');
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mail(text: &str) -> Mail {
        let text = text.to_owned();
        Mail { from: String::new(), to: Vec::new(), terms: String::new(), text, at: Instant::now() }
    }

    #[test]
    fn what_is_handed_in_is_what_has_come() {
        let server = Server::new("127.0.0.1:0".parse().unwrap(), |to| match to {
            "nobody@example.org" => Err((550, "5.1.1 nobody".into())),
            _ => Ok(()),
        })
        .unwrap();
        let text = "Subject: a\n b\nMessage-ID: <1@x>\n\n.one\n..two\nthree é\n";
        let from = "<a@example.org> RET=HDRS";
        let answer = hand_in(server.address(), from, "<b@example.org> NOTIFY=NEVER", text).unwrap();
        assert_eq!((answer.code, answer.text.as_str()), (250, "2.0.0 kept"));
        let mail = server.mail_when(STEP_WAIT, |mail| mail.from == "a@example.org").unwrap();
        assert_eq!(
            (mail.to.clone(), mail.terms.as_str(), mail.text.as_str()),
            (vec!["b@example.org".to_owned()], "RET=HDRS NOTIFY=NEVER", text)
        );
        assert_eq!((mail.header("subject").as_deref(), mail.ids("Message-ID")), (Some("a b"), vec!["1@x".to_owned()]));
        assert_eq!(hand_in(server.address(), "<>", "<nobody@example.org>", text).unwrap().code, 550);
        assert_eq!((server.mails().len(), server.complaints()), (1, Vec::<String>::new()));
        assert!(server.mail_when(Duration::ZERO, |mail| mail.from.is_empty()).is_none());
    }

    #[test]
    fn what_no_standard_has_is_complained_of() {
        let server = Server::new("127.0.0.1:0".parse().unwrap(), |_| Ok(())).unwrap();
        let mut stream = TcpStream::connect(server.address()).unwrap();
        stream.write_all(b"DATA\r\nNOOP\nQUIT\r\n").unwrap();
        let mut said = String::new();
        stream.read_to_string(&mut said).unwrap();
        assert!(said.contains("503 5.5.1") && said.ends_with("221 2.0.0 good bye\r\n"), "{said}");
        let complaints = server.complaints();
        assert!(complaints[0].contains("\"DATA\"") && complaints[1].contains("CR LF"), "{complaints:?}");
    }

    #[test]
    fn words_are_read_in_each_encoding() {
        let of = |encoding: &str, body: &str| mail(&format!("Content-Transfer-Encoding: {encoding}\n\n{body}")).words();
        assert_eq!(of("8bit", "5 €\n").unwrap(), "5 €");
        assert_eq!(of("base64", "NSDi\ngqwNCg==\n").unwrap(), "5 €");
        assert_eq!(of("quoted-printable", "5=20=E2=82=\n=AC\nand=3Dmore\n").unwrap(), "5 €\nand=more");
        assert!(of("quoted-printable", "=X").is_err() && of("rot13", "x").is_err() && of("base64", "?").is_err());
    }
}
