//! The calls, texts and mails of a rehearsal against boxes that are wrong on purpose: each must fail it for its own reason, and a right one
//! must pass.
//!
//! The fake box is as small as it can be: one thread, one socket and a mail server, every SIM let in without a challenge. It calls, texts
//! and writes as the real one does, but for the one thing that the case names.

#![cfg(feature = "box")]
#![allow(clippy::disallowed_methods, clippy::disallowed_types)] // the fake box is outside of the core: sockets, threads, a clock

use std::collections::{HashMap, HashSet};
use std::net::{SocketAddr, TcpListener, UdpSocket};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU8, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use encamp::config::mailing::NumberRange;
use encamp::gsm::auc::Auth;
use encamp::gsm::header::Reference;
use encamp::gsm::segment::{Cut, split};
use encamp::gsm::text::{gsm_text, unpack};
use encamp::ident::Msisdn;
use encamp::rehearse::heard::{Heard, cause_of, uri_in, user_of};
use encamp::rehearse::mail::{Mail, Server, hand_in};
use encamp::rehearse::{Plan, Post, Report, Sim, Talk, run, sims};

/// The one thing that is wrong with a box, and the words by which the rehearsal tells it.
const WRONG: [(Wrong, &str); 46] = [
    (Wrong::Deaf, "no answer to the INVITE"),
    (Wrong::OtherSdp, "the SDP of the caller did not arrive as it was sent"),
    (Wrong::OtherPort, "packets of speech the caller heard"),
    (Wrong::ShowsTheImsi, "the called phone shows \"IMSI00101999"),
    (Wrong::NoRinging, "the caller heard no ringing"),
    (Wrong::RingsOften, "180 and 183 came 3 times"),
    (Wrong::NoAck, "the called side's 200 was never acknowledged"),
    (Wrong::KeepsBye, "the other side was not told that the call has ended"),
    (Wrong::RefusesBye, "the BYE was answered 481"),
    (Wrong::KeepsCancel, "the called phone goes on ringing"),
    (Wrong::RefusesCancel, "the CANCEL was answered 481"),
    (Wrong::No487, "its INVITE was not ended by a 487"),
    (Wrong::BusyIsAbsent, "not 486, cause 17"),
    (Wrong::OneStation, "did not page for it"),
    (Wrong::NobodyIsBusy, "not 404, cause 1"),
    (Wrong::NoTrunk, "nothing came to the PBX"),
    (Wrong::NoRedirect, "in from the trunk"),
    (Wrong::LosesTexts, "not on the phone 6 s later"),
    (Wrong::TextsTwice, "that the phone has already: it is shown twice"),
    (Wrong::OtherSender, "it is from \"1234\", not from \"70"),
    (Wrong::ForgetsTheAbsent, "comes back: not on the phone 6 s later"),
    (Wrong::KnocksForEver, "its base station was asked"),
    (Wrong::TakesAllTexts, "taken with 202, not refused with 404"),
    (Wrong::NoReport, "no report came to the sender"),
    (Wrong::ReportsAnother, "the report is of text "),
    (Wrong::ReportsFailure, "the report says that it did not arrive: status 0x41"),
    (Wrong::LosesAPart, "3 parts long: not on the phone 6 s later; 2 of 3 parts"),
    (Wrong::KeepsSilent, "no answer came to the sender"),
    (Wrong::ForgetsTheFull, "no room on the phone: not on the phone 6 s later"),
    (Wrong::RefusesRoom, "that there is room was answered 400"),
    (Wrong::EndsInSilence, "no text in words came to the sender when its time was over"),
    (Wrong::KnowsNoTime, "it came all the same, after its time"),
    (Wrong::LosesMails, "an address and words: no mail with its words 12 s later"),
    (Wrong::MailsTwice, "@ Ñandu [é] 5€\" 2 times"),
    (Wrong::MailFromTheImsi, "its envelope is from \"IMSI00101999"),
    (Wrong::NoMessageId, "it has no Message-ID"),
    (Wrong::AnswersNothing, "an answer without an address: its In-Reply-To is []"),
    (Wrong::TearsTheThread, "the thread is torn"),
    (Wrong::LosesAnswers, "her answer, signed and quoting: not on the phone 6 s later"),
    (Wrong::KeepsQuotation, "her answer, signed and quoting: not on the phone 6 s later; in its place"),
    (Wrong::OtherWriter, "which is no number of those who write mail"),
    (Wrong::CutsMail, "a long mail: not on the phone 6 s later"),
    (Wrong::NoMailReport, "a report is asked for: no report came 12 s later"),
    (Wrong::ReportsAllMail, "Carol got a report that she did not ask for"),
    (Wrong::TakesAllMail, "nobody's number: 2999@sms.gsm.example was answered 250"),
    (Wrong::RelaysAll, "dave@elsewhere.example was answered 250"),
];

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Wrong {
    Nothing,
    Deaf,
    OtherSdp,
    OtherPort,
    ShowsTheImsi,
    NoRinging,
    RingsOften,
    NoAck,
    KeepsBye,
    RefusesBye,
    KeepsCancel,
    RefusesCancel,
    No487,
    BusyIsAbsent,
    OneStation,
    NobodyIsBusy,
    NoTrunk,
    NoRedirect,
    LosesTexts,
    TextsTwice,
    OtherSender,
    ForgetsTheAbsent,
    KnocksForEver,
    TakesAllTexts,
    NoReport,
    ReportsAnother,
    ReportsFailure,
    LosesAPart,
    KeepsSilent,
    ForgetsTheFull,
    RefusesRoom,
    EndsInSilence,
    KnowsNoTime,
    LosesMails,
    MailsTwice,
    MailFromTheImsi,
    NoMessageId,
    AnswersNothing,
    TearsTheThread,
    LosesAnswers,
    KeepsQuotation,
    OtherWriter,
    CutsMail,
    NoMailReport,
    ReportsAllMail,
    TakesAllMail,
    RelaysAll,
}

/// A number of the fake's own.
const STATUS_CODE: &str = "411";
/// What an address is texted to, and as whom everybody writes.
const MAIL_CODE: &str = "600";
const WRITER: &str = "6000";
const CAROL: &str = "carol@example.org";
const DOMAIN: &str = "sms.gsm.example";
/// The length and the septets of "no no".
const WORDS: &str = "056e37a8ed06";

/// A box on an ephemeral port; gone when dropped.
struct Fake {
    own: SocketAddr,
    /// Where it takes mail.
    post: SocketAddr,
    closing: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Fake {
    fn new(wrong: Wrong, sims: &[Sim], trunk: SocketAddr, relay: SocketAddr) -> Fake {
        let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
        socket.set_read_timeout(Some(Duration::from_millis(5))).unwrap();
        let own = socket.local_addr().unwrap();
        let closing = Arc::new(AtomicBool::new(false));
        let number = |sim: &Sim| sim.msisdn.map(|number| number.to_string()).unwrap();
        let known: HashSet<String> = sims.iter().map(|sim| format!("{}@{DOMAIN}", number(sim))).collect();
        let rule = move |to: &str| match wrong {
            Wrong::TakesAllMail if to == format!("2999@{DOMAIN}") => Ok(()),
            Wrong::RelaysAll if !to.ends_with(DOMAIN) => Ok(()),
            _ if known.contains(to) => Ok(()),
            _ => Err((550, "5.1.1 nobody".to_owned())),
        };
        let letters = Server::new("127.0.0.1:0".parse().unwrap(), rule).unwrap();
        let post = letters.address();
        let mut box_ = Box {
            wrong,
            relay,
            letters,
            letter_count: 0,
            threads: HashMap::new(),
            numbers: sims.iter().map(|sim| (number(sim), sim.imsi.to_string())).collect(),
            own,
            trunk,
            socket,
            bindings: HashMap::new(),
            stations: HashSet::new(),
            calls: Vec::new(),
            texts: Vec::new(),
            count: 0,
        };
        let thread = {
            let closing = Arc::clone(&closing);
            std::thread::spawn(move || {
                let mut buffer = [0; 4096];
                while !closing.load(Ordering::Relaxed) {
                    box_.end_texts();
                    box_.read_letters();
                    let Ok((len, from)) = box_.socket.recv_from(&mut buffer) else { continue };
                    let heard = Heard::parse(&buffer[..len]).unwrap();
                    if heard.method().is_empty() { box_.answered(&heard) } else { box_.asked(&heard, from) }
                }
            })
        };
        Fake { own, post, closing, thread: Some(thread) }
    }
}

impl Drop for Fake {
    fn drop(&mut self) {
        self.closing.store(true, Ordering::Relaxed);
        self.thread.take().unwrap().join().unwrap();
    }
}

struct Box {
    wrong: Wrong,
    relay: SocketAddr,
    letters: Server,
    /// Those that have been read.
    letter_count: usize,
    /// The ids of what a phone and Carol wrote to each other, by IMSI.
    threads: HashMap<String, Vec<String>>,
    /// Number to IMSI.
    numbers: HashMap<String, String>,
    own: SocketAddr,
    trunk: SocketAddr,
    socket: UdpSocket,
    bindings: HashMap<String, SocketAddr>,
    stations: HashSet<SocketAddr>,
    calls: Vec<Call>,
    texts: Vec<Waiting>,
    count: u32,
}

struct Call {
    /// The caller's INVITE.
    invite: Heard,
    from: SocketAddr,
    user: String,
    /// The called side: its Call-ID, where it was sent, and To as it answered.
    other: String,
    to: SocketAddr,
    other_to: String,
    tried: HashSet<SocketAddr>,
    is_over: bool,
}

/// A text, from its acceptance until it is on its phone.
struct Waiting {
    imsi: String,
    body: String,
    call_id: String,
    /// Under way, or refused; a phone gets one at a time.
    is_sent: bool,
    ends_at: Option<Instant>,
    /// Whom it is from, and what he is to be told when it is there.
    sender: String,
    report: Option<String>,
    /// The mail that says so.
    letter: Option<String>,
}

impl Waiting {
    /// One of the fake's own.
    fn new(imsi: &str, body: String, call_id: String) -> Waiting {
        let (imsi, sender) = (imsi.to_owned(), String::new());
        Waiting { imsi, body, call_id, is_sent: false, ends_at: None, sender, report: None, letter: None }
    }
}

impl Box {
    fn send(&self, text: &str, body: &[u8], to: SocketAddr) {
        let mut datagram = text.replace('\n', "\r\n").into_bytes();
        datagram.extend_from_slice(body);
        self.socket.send_to(&datagram, to).unwrap();
    }

    fn answer(&self, request: &Heard, status: &str, more: &str, body: &[u8], to: SocketAddr) {
        let header = |name: &str| request.get(name).unwrap_or_default().to_owned();
        let tag = if header("To").contains(";tag=") || status.starts_with("100") { "" } else { ";tag=box" };
        let text = format!(
            "SIP/2.0 {status}\nVia: {}\nFrom: {}\nTo: {}{tag}\nCall-ID: {}\nCSeq: {}\n{more}Content-Length: {}\n\n",
            request.vias(),
            header("From"),
            header("To"),
            header("Call-ID"),
            header("CSeq"),
            body.len()
        );
        self.send(&text, body, to);
    }

    fn asked(&mut self, request: &Heard, from: SocketAddr) {
        match request.method() {
            "REGISTER" => self.register(request, from),
            "INVITE" if from == self.trunk => self.redirect(request, from),
            "INVITE" => self.invite(request, from),
            "BYE" => self.bye(request, from),
            "CANCEL" => self.cancel(request, from),
            "MESSAGE" => self.message(request, from),
            _ => {}
        }
    }

    fn register(&mut self, request: &Heard, from: SocketAddr) {
        let imsi = user_of(uri_in(request.get("To").unwrap())).strip_prefix("IMSI").unwrap().to_owned();
        let Some((number, _)) = self.numbers.iter().find(|(_, known)| **known == imsi) else {
            return self.answer(request, "404 Not Found", "P-GSM-Reject-Cause: 4\n", b"", from);
        };
        let contact = request.get("Contact").unwrap();
        self.stations.insert(from);
        if contact.ends_with("expires=0") {
            if self.bindings.get(&imsi) == Some(&from) {
                self.bindings.remove(&imsi);
            }
            return self.answer(request, "200 OK", "", b"", from);
        }
        self.bindings.insert(imsi.clone(), from);
        self.answer(request, "200 OK", &format!("Contact: {contact}\nP-Associated-URI: <tel:{number}>\n"), b"", from);
        if self.wrong == Wrong::ForgetsTheAbsent {
            self.texts.retain(|text| text.imsi != imsi);
        }
        self.start_again(&imsi);
    }

    fn redirect(&mut self, request: &Heard, from: SocketAddr) {
        let user = user_of(request.uri()).to_owned();
        let imsi = user.strip_prefix("IMSI").map(str::to_owned).or_else(|| self.numbers.get(&user).cloned());
        let imsi = imsi.filter(|imsi| self.numbers.values().any(|known| known == imsi));
        match (imsi.clone(), imsi.and_then(|imsi| self.bindings.get(&imsi))) {
            (None, _) => self.answer(request, "404 Not Found", "Reason: Q.850;cause=1\n", b"", from),
            (Some(_), None) => self.answer(request, "480 Away", "Reason: Q.850;cause=20\n", b"", from),
            (Some(_), Some(_)) if self.wrong == Wrong::NoRedirect && request.get("From").unwrap().contains("555") => {
                self.answer(request, "503 Later", "Reason: Q.850;cause=42\n", b"", from);
            }
            (Some(imsi), Some(to)) => {
                self.answer(request, "302 Moved Temporarily", &format!("Contact: <sip:IMSI{imsi}@{to}>\n"), b"", from);
            }
        }
    }

    fn invite(&mut self, invite: &Heard, from: SocketAddr) {
        if self.wrong == Wrong::Deaf || self.calls.iter().any(|call| call.invite.call_id() == invite.call_id()) {
            return;
        }
        self.answer(invite, "100 Trying", "", b"", from);
        let dialled = user_of(invite.uri()).to_owned();
        let (user, to) = match self.numbers.get(&dialled) {
            Some(imsi) => match self.bindings.get(imsi) {
                Some(to) => (format!("IMSI{imsi}"), *to),
                None => return self.answer(invite, "480 Away", "Reason: Q.850;cause=18\n", b"", from),
            },
            None if dialled.starts_with("+99955501") && self.wrong != Wrong::NoTrunk => (dialled, self.trunk),
            None if self.wrong == Wrong::NobodyIsBusy => return self.answer(invite, "486 User_Busy", "", b"", from),
            None => return self.answer(invite, "404 Not Found", "Reason: Q.850;cause=1\n", b"", from),
        };
        self.calls.push(Call {
            invite: invite.clone(),
            from,
            user,
            other: String::new(),
            to,
            other_to: String::new(),
            tried: HashSet::new(),
            is_over: false,
        });
        self.page(self.calls.len() - 1, to);
    }

    fn page(&mut self, index: usize, to: SocketAddr) {
        self.count += 1;
        let call = &mut self.calls[index];
        call.other = format!("b{}", self.count);
        call.tried.insert(to);
        call.to = to;
        call.other_to = format!("<sip:{}@{to}>", call.user);
        let text = self.in_dialog(
            index,
            "INVITE",
            1,
            &format!("Content-Type: application/sdp\nContact: <sip:b@{}>\n", self.own),
        );
        let sdp = self.sdp(&self.calls[index].invite.body);
        self.send(&text.replace("Content-Length: 0", &format!("Content-Length: {}", sdp.len())), &sdp, to);
    }

    fn sdp(&self, sdp: &[u8]) -> Vec<u8> {
        match self.wrong {
            Wrong::OtherSdp => [sdp, b"a=ptime:20\r\n"].concat(),
            Wrong::OtherPort => String::from_utf8_lossy(sdp).replace("m=audio 1", "m=audio 2").into_bytes(),
            _ => sdp.to_vec(),
        }
    }

    /// A request to the called side.
    fn in_dialog(&self, index: usize, method: &str, cseq: u32, more: &str) -> String {
        let call = &self.calls[index];
        let imsi = user_of(uri_in(call.invite.get("From").unwrap())).to_owned();
        let number = self.numbers.iter().find(|(_, known)| imsi.ends_with(known.as_str())).unwrap().0.clone();
        let shown = if self.wrong == Wrong::ShowsTheImsi { imsi } else { number };
        format!(
            "{method} sip:{}@{} SIP/2.0\nVia: SIP/2.0/UDP {};branch=z9hG4bK{}\nFrom: \"{shown}\" <sip:{shown}@{}>;tag=b\n\
             To: {}\nCall-ID: {}\nCSeq: {cseq} {method}\nMax-Forwards: 70\n{more}Content-Length: 0\n\n",
            call.user, call.to, self.own, call.other, self.own, call.other_to, call.other
        )
    }

    fn answered(&mut self, answer: &Heard) {
        let method = answer.cseq().unwrap().1.to_owned();
        if method == "MESSAGE" {
            let found = self.texts.iter().position(|text| text.call_id == answer.call_id());
            let Some(found) = found else { return };
            if answer.code() == 200 {
                let text = self.texts.remove(found);
                if self.wrong == Wrong::TextsTwice {
                    self.send_text(&text, self.bindings[&text.imsi]);
                }
                if let Some(report) = text.report.filter(|_| self.wrong != Wrong::NoReport) {
                    self.queue(Waiting::new(&text.sender, report, format!("r-{}", text.call_id)));
                }
                if let Some(letter) = text.letter {
                    hand_in(self.relay, "<>", &format!("<{CAROL}>"), &letter).unwrap();
                }
                self.send_next(&text.imsi);
            } else if self.wrong == Wrong::ForgetsTheFull && answer.code() == 400 {
                self.texts.remove(found);
            }
            return;
        }
        let Some(index) = self.calls.iter().position(|call| call.other == answer.call_id()) else { return };
        if method != "INVITE" || answer.code() == 100 {
            return;
        }
        self.calls[index].other_to = answer.get("To").unwrap().to_owned();
        let contact = format!("Contact: <sip:a@{}>\n", self.own);
        let (invite, from, to) = (self.calls[index].invite.clone(), self.calls[index].from, self.calls[index].to);
        match answer.code() {
            180 if self.wrong == Wrong::NoRinging => {}
            180 => {
                for _ in 0..if self.wrong == Wrong::RingsOften { 3 } else { 1 } {
                    self.answer(&invite, "180 Ringing", &contact, b"", from);
                }
            }
            200 => {
                if self.wrong != Wrong::NoAck {
                    self.send(&self.in_dialog(index, "ACK", 1, ""), b"", to);
                }
                let sdp = self.sdp(&answer.body);
                self.answer(&invite, "200 OK", &format!("{contact}Content-Type: application/sdp\n"), &sdp, from);
            }
            code => {
                self.send(&self.in_dialog(index, "ACK", 1, ""), b"", to);
                let next = self.stations.iter().find(|station| !self.calls[index].tried.contains(station)).copied();
                match next.filter(|_| code == 480 && self.wrong != Wrong::OneStation) {
                    Some(next) => self.page(index, next),
                    None if self.calls[index].is_over => {}
                    None => {
                        let absent = (480, "No_Paging_Response", 27);
                        let (code, phrase, cause) = match (self.wrong, code) {
                            (Wrong::BusyIsAbsent, 486) => absent,
                            _ => (code, answer.phrase(), cause_of(answer).unwrap()),
                        };
                        let reason = format!("Reason: Q.850;cause={cause} ;text=\"{phrase}\"\n");
                        self.answer(&invite, &format!("{code} {phrase}"), &reason, b"", from);
                    }
                }
            }
        }
    }

    fn bye(&mut self, bye: &Heard, from: SocketAddr) {
        if self.wrong == Wrong::RefusesBye {
            return self.answer(bye, "481 No Such Call", "", b"", from);
        }
        self.answer(bye, "200 OK", "", b"", from);
        let id = bye.call_id();
        let Some(index) = self.calls.iter().position(|call| call.other == id || call.invite.call_id() == id) else {
            return;
        };
        if self.wrong == Wrong::KeepsBye || std::mem::replace(&mut self.calls[index].is_over, true) {
            return;
        }
        let call = &self.calls[index];
        if call.other != id {
            return self.send(&self.in_dialog(index, "BYE", 2, ""), b"", call.to);
        }
        let header = |name: &str| call.invite.get(name).unwrap().to_owned();
        let text = format!(
            "BYE {} SIP/2.0\nVia: SIP/2.0/UDP {};branch=z9hG4bKbye{}\nFrom: {};tag=box\nTo: {}\nCall-ID: {}\nCSeq: 1 BYE\nContent-Length: 0\n\n",
            uri_in(&header("Contact")),
            self.own,
            call.other,
            header("To"),
            header("From"),
            header("Call-ID")
        );
        self.send(&text, b"", call.from);
    }

    fn cancel(&mut self, cancel: &Heard, from: SocketAddr) {
        if self.wrong == Wrong::RefusesCancel {
            return self.answer(cancel, "481 No Such Call", "", b"", from);
        }
        self.answer(cancel, "200 OK", "", b"", from);
        let Some(index) = self.calls.iter().position(|call| call.invite.call_id() == cancel.call_id()) else { return };
        if std::mem::replace(&mut self.calls[index].is_over, true) {
            return;
        }
        let call = &self.calls[index];
        if self.wrong != Wrong::No487 {
            self.answer(&call.invite, "487 Request Terminated", "", b"", from);
        }
        if self.wrong != Wrong::KeepsCancel {
            self.send(&self.in_dialog(index, "CANCEL", 1, ""), b"", call.to);
        }
    }

    fn message(&mut self, message: &Heard, from: SocketAddr) {
        let known = |call_id: &str| self.texts.iter().any(|text| text.call_id.ends_with(call_id));
        if known(message.call_id()) {
            return;
        }
        let sender = user_of(uri_in(message.get("From").unwrap())).strip_prefix("IMSI").unwrap().to_owned();
        let number = self.numbers.iter().find(|(_, known)| **known == sender).unwrap().0.clone();
        let hex = String::from_utf8(message.body.clone()).unwrap();
        // RP-SMMA.
        if hex.starts_with("06") {
            if self.wrong == Wrong::RefusesRoom {
                return self.answer(message, "400 Bad Request", "", b"", from);
            }
            self.answer(message, "202 Accepted", "", b"", from);
            return self.start_again(&sender);
        }
        // After the RP-DATA's head of 8 octets: first octet, reference, destination, protocol, coding, validity period, user data.
        let tpdu = &hex[16..];
        let octet = |at: usize| u8::from_str_radix(&tpdu[at..at + 2], 16).unwrap();
        let (first, reference, digits) = (octet(0), octet(2), usize::from(octet(4)));
        let end = 8 + 2 * digits.div_ceil(2);
        let destination = &tpdu[4..end];
        let plus = if &tpdu[6..8] == "91" { "+" } else { "" };
        let to = format!("{plus}{}", swapped(&tpdu[8..end]).trim_end_matches('f'));
        // The enhanced format: 2, seconds, and five octets more.
        let valid_for = (first & 0x18 == 0x08).then(|| Duration::from_secs(octet(end + 6).into()));
        let data = &tpdu[end + 4 + if valid_for.is_some() { 14 } else { 0 }..];
        self.count += 1;
        let call_id = format!("t{}-{}", self.count, message.call_id());
        if to == STATUS_CODE {
            self.answer(message, "202 Accepted", "", b"", from);
            if self.wrong != Wrong::KeepsSilent {
                self.queue(Waiting::new(&sender, deliver(STATUS_CODE, WORDS, false), call_id));
            }
            return;
        }
        if to == MAIL_CODE || to == WRITER {
            self.answer(message, "202 Accepted", "", b"", from);
            return self.write_letter(&sender, &number, &to, data);
        }
        let Some(imsi) = self.numbers.get(&to).cloned() else {
            if self.wrong == Wrong::TakesAllTexts {
                return self.answer(message, "202 Accepted", "", b"", from);
            }
            self.answer(message, "404 Not Found", "", b"", from);
            return self.queue(Waiting::new(&sender, deliver("1000", WORDS, false), call_id));
        };
        self.answer(message, "202 Accepted", "", b"", from);
        let has_header = first & 0x40 != 0;
        // The length of user data, that of its header, 0, 3, the reference, the count, which part.
        let is_second_part = has_header && &data[12..14] == "02";
        if self.wrong == Wrong::LosesTexts || (self.wrong == Wrong::LosesAPart && is_second_part) {
            return;
        }
        let number = if self.wrong == Wrong::OtherSender { "1234" } else { &number };
        let reported = if self.wrong == Wrong::ReportsAnother { reference.wrapping_add(1) } else { reference };
        let status = if self.wrong == Wrong::ReportsFailure { 0x41 } else { 0 };
        let text = Waiting {
            ends_at: valid_for.map(|valid_for| Instant::now() + valid_for),
            report: (first & 0x20 != 0).then(|| report(reported, destination, status)),
            sender,
            ..Waiting::new(&imsi, deliver(number, data, has_header), call_id)
        };
        if let (Some(there), Wrong::KnocksForEver) = (self.bindings.get(&imsi), self.wrong) {
            for _ in 0..3 {
                self.send_text(&text, *there);
            }
        }
        self.queue(text);
    }

    /// A text becomes a mail to Carol. `data`: its length and its septets.
    fn write_letter(&mut self, imsi: &str, number: &str, to: &str, data: &str) {
        let octets: Vec<u8> =
            (0..data.len() / 2).map(|at| u8::from_str_radix(&data[2 * at..2 * at + 2], 16).unwrap()).collect();
        let said = gsm_text(unpack(&octets[1..], 0, octets[0].into()));
        let from = if self.wrong == Wrong::MailFromTheImsi { format!("IMSI{imsi}") } else { number.to_owned() };
        let id = format!("{}@{DOMAIN}", self.count);
        let mut head = format!("From: <{from}@{DOMAIN}>\nTo: <{CAROL}>\nDate: Sun, 01 Nov 2026 12:00:00 +0000\n");
        if self.wrong != Wrong::NoMessageId {
            head += &format!("Message-ID: <{id}>\n");
        }
        let thread = self.threads.entry(imsi.to_owned()).or_default();
        let words = match said.split_once(' ').filter(|_| to == MAIL_CODE) {
            Some((_, words)) => {
                thread.clear();
                head += "Subject: words\n";
                words
            }
            None => {
                let all: String = thread.iter().map(|id| format!("<{id}> ")).collect();
                let last = thread.last().cloned().unwrap_or_default();
                if self.wrong != Wrong::AnswersNothing {
                    head += &format!("In-Reply-To: <{last}>\n");
                }
                let all = if self.wrong == Wrong::TearsTheThread { String::new() } else { all };
                head += &format!("References: {all}\nSubject: Re: words\n");
                &said
            }
        };
        thread.push(id);
        let copies = match self.wrong {
            Wrong::LosesMails => 0,
            Wrong::MailsTwice => 2,
            _ => 1,
        };
        for _ in 0..copies {
            let (from, to) = (format!("<{from}@{DOMAIN}>"), format!("<{CAROL}>"));
            hand_in(self.relay, &from, &to, &format!("{head}\n{words}\n")).unwrap();
        }
    }

    /// Mails that have come become texts.
    fn read_letters(&mut self) {
        for mail in self.letters.mails().split_off(self.letter_count) {
            self.letter_count += 1;
            self.read_letter(&mail);
        }
    }

    fn read_letter(&mut self, mail: &Mail) {
        let number = mail.to[0].split_once('@').unwrap().0.to_owned();
        let Some(imsi) = self.numbers.get(&number).cloned() else { return };
        let id = mail.ids("Message-ID").pop().unwrap();
        self.threads.entry(imsi.clone()).or_default().push(id.clone());
        let (words, is_answer) = match mail.raw_body().split_once("\n\n> ") {
            Some((words, _)) => (words, true),
            None => (mail.raw_body().trim_end(), false),
        };
        let words = if self.wrong == Wrong::KeepsQuotation { mail.raw_body().trim_end() } else { words };
        let mut text = format!("{CAROL}: {words}");
        match self.wrong {
            Wrong::LosesAnswers if is_answer => return,
            Wrong::CutsMail => text = text.chars().take(100).collect(),
            _ => {}
        }
        let writer = if self.wrong == Wrong::OtherWriter { "1234" } else { WRITER };
        let is_asked = mail.terms.contains("NOTIFY=SUCCESS") && self.wrong != Wrong::NoMailReport;
        let is_told = is_asked || self.wrong == Wrong::ReportsAllMail;
        let envid = mail.terms.split(' ').find_map(|term| term.strip_prefix("ENVID="));
        let envid = envid.map(|envid| format!("Original-Envelope-Id: {envid}\n")).unwrap_or_default();
        let letter = format!(
            "Subject: told\nContent-Type: multipart/report; report-type=delivery-status; boundary=b\n\n--b\n{envid}\n\
             Final-Recipient: rfc822; {}\nAction: delivered\n\nMessage-ID: <{id}>\n--b--\n",
            mail.to[0]
        );
        self.count += 1;
        let parts = split(&text, &Cut::new(Reference::Short(self.count as u8))).unwrap();
        let last = parts.len() - 1;
        for (at, part) in parts.iter().enumerate() {
            let data: String = [part.length].iter().chain(&part.bytes).map(|octet| format!("{octet:02x}")).collect();
            let call_id = format!("m{}-{at}", self.count);
            let text = Waiting::new(&imsi, deliver(writer, &data, part.has_header), call_id);
            self.queue(Waiting { letter: (is_told && at == last).then(|| letter.clone()), ..text });
        }
    }

    fn queue(&mut self, text: Waiting) {
        let imsi = text.imsi.clone();
        self.texts.push(text);
        self.send_next(&imsi);
    }

    /// The first text for this phone, where it is bound and has none under way.
    fn send_next(&mut self, imsi: &str) {
        let Some(there) = self.bindings.get(imsi).copied() else { return };
        let Some(first) = self.texts.iter().position(|text| text.imsi == imsi) else { return };
        if !std::mem::replace(&mut self.texts[first].is_sent, true) {
            self.send_text(&self.texts[first], there);
        }
    }

    /// It is back, or has room.
    fn start_again(&mut self, imsi: &str) {
        for text in self.texts.iter_mut().filter(|text| text.imsi == imsi) {
            text.is_sent = false;
        }
        self.send_next(imsi);
    }

    /// Texts whose phone did not come back in their time.
    fn end_texts(&mut self) {
        let now = Instant::now();
        while let Some(over) = self.texts.iter().position(|text| text.ends_at.is_some_and(|ends_at| ends_at <= now)) {
            let text = &mut self.texts[over];
            text.ends_at = None;
            let words = Waiting::new(&text.sender, deliver("1000", WORDS, false), format!("e-{}", text.call_id));
            if self.wrong != Wrong::KnowsNoTime {
                self.texts.remove(over);
            }
            if self.wrong != Wrong::EndsInSilence {
                self.queue(words);
            }
        }
    }

    fn send_text(&self, text: &Waiting, to: SocketAddr) {
        let message = format!(
            "MESSAGE sip:IMSI{}@{to} SIP/2.0\nVia: SIP/2.0/UDP {};branch=z9hG4bK{id}\nFrom: <sip:1000@{}>;tag=m\nTo: <sip:IMSI{}@{to}>\n\
             Call-ID: {id}\nCSeq: 1 MESSAGE\nContent-Type: application/vnd.3gpp.sms\nContent-Length: {}\n\n",
            text.imsi,
            self.own,
            self.own,
            text.imsi,
            text.body.len(),
            id = text.call_id,
        );
        self.send(&message, text.body.as_bytes(), to);
    }
}

fn swapped(digits: &str) -> String {
    digits.as_bytes().chunks(2).flat_map(|two| [two[1], two[0]]).map(char::from).collect()
}

/// Hex RP-DATA with a DELIVER from this number; `data` is the length and the septets, behind a header or not.
fn deliver(number: &str, data: &str, has_header: bool) -> String {
    let digits = number.trim_start_matches('+');
    let even = if digits.len() % 2 == 1 { format!("{digits}f") } else { digits.to_owned() };
    let kind = if number.starts_with('+') { "91" } else { "81" };
    let first = if has_header { "44" } else { "04" };
    rp_data(&format!("{first}{:02x}{kind}{}000062111221000100{data}", digits.len(), swapped(&even)))
}

/// The same with a STATUS-REPORT of the text to this TP-DA.
fn report(reference: u8, destination: &str, status: u8) -> String {
    rp_data(&format!("06{reference:02x}{destination}6211122100010062111221000100{status:02x}"))
}

/// RP-DATA from the network, reference 1, the service centre "0000", no destination.
fn rp_data(tpdu: &str) -> String {
    format!("010103a1000000{:02x}{tpdu}", tpdu.len() / 2)
}

fn rehearse(wrong: Wrong, phones: u32) -> Report {
    rehearse_with(wrong, phones, |_| ())
}

fn rehearse_with(wrong: Wrong, phones: u32, change: impl FnOnce(&mut Talk)) -> Report {
    let mut sims = sims("00101999", 40, &[7; 32]);
    for sim in &mut sims {
        sim.auth = Auth::None;
    }
    // The box must know the ports of the trunk and of Carol's server before the rehearsal binds them. At an address of their own nobody
    // else takes them meanwhile.
    static REHEARSALS: AtomicU8 = AtomicU8::new(1);
    let own = SocketAddr::from(([127, 0, 41, REHEARSALS.fetch_add(1, Ordering::Relaxed)], 0));
    let trunk = UdpSocket::bind(own).unwrap().local_addr().unwrap();
    let relay = TcpListener::bind(own).unwrap().local_addr().unwrap();
    let fake = Fake::new(wrong, &sims, trunk, relay);
    let writer = Msisdn::parse(WRITER).unwrap();
    let post = Post {
        server: fake.post,
        relay,
        domain: DOMAIN.into(),
        code: MAIL_CODE.into(),
        pool: vec![NumberRange { first: writer, last: writer }],
        parts_max: 6,
    };
    let any = "127.0.0.1:0".parse().unwrap();
    let mut plan = Plan {
        phones,
        front: fake.own,
        calls: fake.own,
        zone: None,
        apex: "gsm.example".into(),
        domain: "gsm.example".into(),
        stations: vec![("hill".into(), any), ("dale".into(), any)],
        trunk,
        talk: Some(Talk {
            texts: fake.own,
            areas: vec![Some("valley".into()), Some("valley".into())],
            outside: Some("+99955501".into()),
            nobody: Some("2999".into()),
            nobody_text: Some("2999".into()),
            silence: Duration::from_secs(4),
            status: Some(STATUS_CODE.into()),
            explains: true,
            queue_max: 1_000,
            welcomes: false,
            mail: Ok(post),
        }),
        sims,
    };
    if let Some(talk) = &mut plan.talk {
        change(talk);
    }
    run(&plan, &mut |_| ())
}

/// Without mail the rest is played, and why is told.
#[test]
fn where_there_is_no_mail_that_is_said() {
    let report = rehearse_with(Wrong::Nothing, 2, |talk| talk.mail = Err("it has no [mail]".into()));
    assert!(report.ok() && report.table().contains("No mail is written: it has no [mail].\n"), "{}", report.table());
    assert_eq!(report.to_json()["mails"].as_array().unwrap().len(), 0);
    // Somebody has the address of her server: that is no fault of the box, and yet nothing of mail is known.
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let relay = taken.local_addr().unwrap();
    let report = rehearse_with(Wrong::Nothing, 2, |talk| talk.mail.as_mut().unwrap().relay = relay);
    let is_told = report.failures.iter().any(|why| why.contains("Carol's mail server cannot use"));
    assert!(is_told, "{}", report.table());
}

#[test]
fn a_right_box_lets_them_call_text_and_write() {
    let report = rehearse(Wrong::Nothing, 20);
    println!("{}", report.table());
    assert!(report.ok(), "{}", report.table());
    let json = report.to_json();
    for scene in [
        "the same cell, the caller",
        "the same cell, the called",
        "another cell, the caller",
        "another cell, the called",
        "given up",
        "the line is busy",
        "switched off",
        "battery out",
        "out to the trunk",
        "in from the trunk",
        "nobody's number",
    ] {
        let found =
            json["calls"].as_array().unwrap().iter().any(|row| row["scene"].as_str().unwrap().starts_with(scene));
        assert!(found, "no call of the kind {scene:?}:\n{}", report.table());
    }
    for scene in [
        "the same cell",
        "another cell",
        "switched off, comes back",
        "switched off, valid for 3 s",
        "battery out",
        "nobody's number",
        "a report is asked for",
        "3 parts long",
        "the message centre's own number",
        "no room on the phone",
    ] {
        let found =
            json["texts"].as_array().unwrap().iter().any(|row| row["scene"].as_str().unwrap().starts_with(scene));
        assert!(found, "no text of the kind {scene:?}:\n{}", report.table());
    }
    for scene in [
        "an address and words",
        "her answer, signed and quoting",
        "an answer without an address",
        "a long mail",
        "a report is asked for",
        "nobody's number",
        "to be passed on elsewhere",
    ] {
        let found = json["mails"].as_array().unwrap().iter().any(|row| row["scene"] == scene);
        assert!(found, "no mail of the kind {scene:?}:\n{}", report.table());
    }
    let failed = ["calls", "texts", "mails"].map(|what| json["summary"][format!("{what}_failed")].clone());
    assert_eq!(failed, [0, 0, 0]);
    assert_eq!(json["summary"]["notes"].as_array().unwrap().len(), 0);
}

/// With few phones there are as many scenes as they can play.
#[test]
fn few_phones_can_call_text_and_write() {
    for phones in [1, 2, 6] {
        let report = rehearse(Wrong::Nothing, phones);
        assert!(report.ok() && !report.scenes.is_empty(), "{phones} phones:\n{}", report.table());
    }
}

/// All at once: most of the time they wait.
#[test]
fn each_wrong_box_fails_for_its_own_reason() {
    let checks: Vec<_> = WRONG
        .iter()
        .map(|(wrong, because)| {
            let check = move || {
                let report = rehearse(*wrong, 12);
                let found = report.failures.iter().any(|failure| failure.contains(because));
                (!found).then(|| format!("{wrong:?} did not fail because of {because:?}:\n{}", report.table()))
            };
            (wrong, std::thread::spawn(check))
        })
        .collect();
    let passed: Vec<String> = checks.into_iter().filter_map(|(_, check)| check.join().unwrap()).collect();
    assert!(passed.is_empty(), "{}", passed.join("\n"));
}
