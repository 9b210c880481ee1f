//! The rehearsal against boxes that are wrong on purpose: each must fail it, and a right one must pass.
//!
//! The fake box is as small as it can be: one thread, a table in memory, a zone of one shard. It answers as the real one does, but
//! for the one thing that the test names.

#![cfg(feature = "box")]
#![allow(clippy::disallowed_methods, clippy::disallowed_types)] // the fake box is outside of the core: sockets, threads, a clock

use std::collections::HashMap;
use std::net::{SocketAddr, UdpSocket};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use encamp::gsm::auc::{Auth, Vector};
use encamp::rehearse::{Plan, Report, Sim, run, sims};
use encamp::sip::header::Uri;
use encamp::sip::parse::{Message, parse};
use hickory_proto::op::{Message as Dns, OpCode, ResponseCode};
use hickory_proto::rr::rdata::{A, NAPTR, SRV};
use hickory_proto::rr::{Name, RData, Record, RecordType};

/// The one thing that is wrong with a box.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Wrong {
    Nothing,
    // What it answers to a base station.
    SecondChallenge,
    BrokenNonce,
    QuotedNonce,
    SameNonce,
    TagNotLast,
    CompactName,
    LongAnswer,
    Code202,
    NoContact,
    OtherKc,
    NoNumber,
    CauseThatLocks,
    Silent,
    DiesHalfway,
    // Whom it lets in.
    NoChallenge,
    AnySres,
    Replay,
    Strangers,
    OneCallIdOnePhone,
    OnePhoneOneCallId,
    // What it remembers.
    StoresNothing,
    IgnoresDetach,
    AnyDetach,
    IgnoresMoves,
    // What it tells others.
    OtherStation,
    OtherUser,
    NoReason,
    ForeignNumber,
    CallsUnanswered,
    NoNaptr,
    NoTarget,
    OtherEnum,
    EnumForNobody,
    ZoneUnanswered,
}

const APEX: &str = "gsm.example";

/// A registrar, a redirect server and a zone on three ephemeral ports; gone when dropped.
struct Fake {
    front: SocketAddr,
    calls: SocketAddr,
    zone: SocketAddr,
    closing: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Fake {
    fn new(wrong: Wrong, sims: &[Sim]) -> Fake {
        let socket = || {
            let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
            socket.set_nonblocking(true).unwrap();
            let address = socket.local_addr().unwrap();
            (socket, address)
        };
        let ((front_socket, front), (calls_socket, calls), (zone_socket, zone)) = (socket(), socket(), socket());
        let closing = Arc::new(AtomicBool::new(false));
        let sims = sims.iter().map(|sim| (sim.imsi.to_string(), sim.clone())).collect();
        let mut state = Box {
            wrong,
            sims,
            challenges: HashMap::new(),
            bindings: HashMap::new(),
            call_ids: HashMap::new(),
            calls,
            heard: 0,
        };
        let thread = {
            let closing = Arc::clone(&closing);
            std::thread::spawn(move || {
                let mut buffer = [0; 4096];
                while !closing.load(Ordering::Relaxed) {
                    let mut idle = true;
                    for (socket, port) in [(&front_socket, 0), (&calls_socket, 1), (&zone_socket, 2)] {
                        let Ok((len, from)) = socket.recv_from(&mut buffer) else { continue };
                        idle = false;
                        let answer = match port {
                            0 => state.register(&parse(&buffer[..len]).unwrap(), from).map(String::into_bytes),
                            1 => state.invite(&parse(&buffer[..len]).unwrap()).map(String::into_bytes),
                            _ => state.question(&buffer[..len]),
                        };
                        if let Some(answer) = answer {
                            socket.send_to(&answer, from).unwrap();
                        }
                    }
                    if idle {
                        std::thread::sleep(Duration::from_micros(200));
                    }
                }
            })
        };
        Fake { front, calls, zone, closing, thread: Some(thread) }
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
    sims: HashMap<String, Sim>,
    challenges: HashMap<String, Vector>,
    /// IMSI to contact.
    bindings: HashMap<String, String>,
    call_ids: HashMap<String, String>,
    calls: SocketAddr,
    heard: u32,
}

impl Box {
    fn register(&mut self, request: &Message<'_>, from: SocketAddr) -> Option<String> {
        self.heard += 1;
        match self.wrong {
            Wrong::Silent => return None,
            Wrong::DiesHalfway if self.heard > 12 => return None,
            _ => {}
        }
        let to = request.to().unwrap();
        let user = to.uri().unwrap().user.unwrap().strip_prefix("IMSI").unwrap().to_owned();
        let contact = request.headers_named("Contact").next().unwrap().to_owned();
        let (uri, expires) = contact.split_once(";expires=").unwrap();
        let Some(sim) = self.sims.get(&user).cloned() else {
            return match self.wrong {
                Wrong::Strangers => Some(self.yes(request, &contact, None, None)),
                Wrong::CauseThatLocks => Some(self.no(request, "404 Not Found", "P-GSM-Reject-Cause: 2\r\n")),
                _ => Some(self.no(request, "404 Not Found", "P-GSM-Reject-Cause: 4\r\n")),
            };
        };
        if expires == "0" {
            let is_right = self.wrong == Wrong::AnyDetach || self.bindings.get(&user).is_some_and(|kept| kept == uri);
            if is_right && self.wrong != Wrong::IgnoresDetach {
                self.bindings.remove(&user);
            }
            return Some(self.no(request, "200 OK", ""));
        }
        let key = format!("{user} {}", from);
        let mut kc = None;
        if sim.auth != Auth::None && self.wrong != Wrong::NoChallenge {
            let Some(answer) = request.authorization() else {
                return Some(self.challenge(request, key, &sim));
            };
            let spent = self.no(request, "503 Service Unavailable", "P-GSM-Reject-Cause: 17\r\n");
            let nonce = answer.param("nonce").unwrap();
            let live = match self.wrong {
                Wrong::Replay => sim.auth.vector(u128::from_str_radix(nonce, 16).unwrap().to_be_bytes()),
                _ => self.challenges.remove(&key).filter(|vector| hex(&vector.rand) == nonce),
            };
            let Some(vector) = live else { return Some(spent) };
            let right = vector.sres.verify(answer.param("response").unwrap().as_bytes());
            if !right && self.wrong == Wrong::SecondChallenge {
                return Some(self.challenge(request, key, &sim));
            }
            if !right && self.wrong != Wrong::AnySres {
                return Some(self.no(request, "401 Unauthorized", "P-GSM-Reject-Cause: 4\r\n"));
            }
            kc = Some(vector.kc.hex());
        }
        let (call_id, place) = (request.call_id().to_owned(), format!("{user} {from}"));
        let is_known = match self.wrong {
            // RFC 3261 §10.3 as if a Call-ID were a phone's, not a base station's.
            Wrong::OneCallIdOnePhone => *self.call_ids.entry(call_id).or_insert(place.clone()) == place,
            // As if a base station were never restarted.
            Wrong::OnePhoneOneCallId => *self.call_ids.entry(place).or_insert(call_id.clone()) == call_id,
            _ => true,
        };
        if !is_known {
            return Some(self.no(request, "400 Bad Request", ""));
        }
        let keeps = match self.wrong {
            Wrong::StoresNothing => false,
            Wrong::IgnoresMoves => !self.bindings.contains_key(&user),
            _ => true,
        };
        if keeps {
            self.bindings.insert(user, uri.to_owned());
        }
        Some(self.yes(request, &contact, sim.msisdn.map(|number| number.to_string()), kc))
    }

    fn challenge(&mut self, request: &Message<'_>, key: String, sim: &Sim) -> String {
        let mut rand = [0x5A; 16];
        if self.wrong != Wrong::SameNonce {
            getrandom::fill(&mut rand).unwrap();
        }
        self.challenges.insert(key, sim.auth.vector(rand).unwrap());
        let nonce = hex(&rand);
        let value = match self.wrong {
            Wrong::BrokenNonce => format!("Digest nonce={}", &nonce[1..]),
            Wrong::QuotedNonce => format!("Digest realm=\"gsm.example\", nonce=\"{nonce}\""),
            _ => format!("Digest nonce={nonce}"),
        };
        self.no(request, "401 Unauthorized", &format!("WWW-Authenticate: {value}\r\n"))
    }

    fn yes(&self, request: &Message<'_>, contact: &str, number: Option<String>, kc: Option<String>) -> String {
        let mut more = String::new();
        if self.wrong != Wrong::NoContact {
            more += &format!("Contact: {contact}\r\n");
        }
        if let Some(number) = number.filter(|_| self.wrong != Wrong::NoNumber) {
            more += &format!("P-Associated-URI: <tel:{number}>\r\n");
        }
        if let Some(kc) = kc {
            let kc = if self.wrong == Wrong::OtherKc { "0123456789ABCDEF".to_owned() } else { kc };
            more += &format!("Authentication-Info: cnonce={kc}\r\n");
        }
        if self.wrong == Wrong::LongAnswer {
            more += &format!("P-Echo: {}\r\n", "x".repeat(1500));
        }
        self.no(request, if self.wrong == Wrong::Code202 { "202 Accepted" } else { "200 OK" }, &more)
    }

    /// An answer with what is echoed, and `more`.
    fn no(&self, request: &Message<'_>, status: &str, more: &str) -> String {
        let header = |name: &str| request.headers_named(name).next().unwrap().to_owned();
        let (tag, length) = match self.wrong {
            Wrong::TagNotLast => ("2;x=y", "Content-Length"),
            Wrong::CompactName => ("2", "l"),
            _ => ("2", "Content-Length"),
        };
        format!(
            "SIP/2.0 {status}\r\nVia: {}\r\nFrom: {}\r\nTo: {};tag={tag}\r\nCall-ID: {}\r\nCSeq: {}\r\n{more}{length}: 0\r\n\r\n",
            header("Via"),
            header("From"),
            header("To"),
            header("Call-ID"),
            header("CSeq")
        )
    }

    fn invite(&mut self, request: &Message<'_>) -> Option<String> {
        if request.method() != Some("INVITE") || self.wrong == Wrong::CallsUnanswered {
            return None;
        }
        let user = Uri::parse(request.uri().unwrap()).unwrap().user.unwrap().to_owned();
        let sim = self.sims.values().find(|sim| {
            user == format!("IMSI{}", sim.imsi) || sim.msisdn.is_some_and(|number| number.to_string() == user)
        });
        let reason = |cause: u8| match self.wrong {
            Wrong::NoReason => String::new(),
            _ => format!("Reason: Q.850;cause={cause}\r\n"),
        };
        let Some(sim) = sim else {
            return Some(match self.wrong {
                Wrong::ForeignNumber => self.no(request, "302 Moved Temporarily", "Contact: <sip:x@192.0.2.1>\r\n"),
                _ => self.no(request, "404 Not Found", &reason(1)),
            });
        };
        let Some(contact) = self.bindings.get(&sim.imsi.to_string()) else {
            return Some(self.no(request, "480 Temporarily Unavailable", &reason(20)));
        };
        let contact = match self.wrong {
            Wrong::OtherStation => format!("<sip:IMSI{}@127.0.0.99:5062>", sim.imsi),
            Wrong::OtherUser => contact.replace("IMSI00101999", "IMSI00102999"),
            _ => contact.clone(),
        };
        Some(self.no(request, "302 Moved Temporarily", &format!("Contact: {contact}\r\n")))
    }

    fn question(&self, bytes: &[u8]) -> Option<Vec<u8>> {
        let question = Dns::from_vec(bytes).unwrap();
        let query = &question.queries[0];
        let text = query.name().to_ascii().to_lowercase();
        let name = |text: &str| Name::from_ascii(text).unwrap();
        let naptr = |flags: &str, service: &str, regexp: &str, to: Name| {
            let bytes = |text: &str| text.as_bytes().to_vec().into_boxed_slice();
            RData::NAPTR(NAPTR::new(10, 100, bytes(flags), bytes(service), bytes(regexp), to))
        };
        let srv = format!("_sip._udp.all.shard.{APEX}.");
        let target = format!("front.{APEX}.");
        let data = if self.wrong == Wrong::ZoneUnanswered {
            return None;
        } else if text.ends_with(&format!(".imsi.{APEX}.")) {
            (self.wrong != Wrong::NoNaptr).then(|| naptr("s", "SIP+D2U", "", name(&srv)))
        } else if text == srv {
            Some(RData::SRV(SRV::new(10, 10, self.calls.port(), name(&target))))
        } else if text == target && query.query_type() == RecordType::A {
            (self.wrong != Wrong::NoTarget).then(|| RData::A(A::new(127, 0, 0, 1)))
        } else {
            let number = self.sims.values().filter_map(|sim| sim.msisdn).find(|number| {
                let tree = if number.is_international() { "e164" } else { "num" };
                let digits: Vec<String> = number.digits().chars().rev().map(String::from).collect();
                text == format!("{}.{tree}.{APEX}.", digits.join("."))
            });
            let uri = match (number, self.wrong) {
                (Some(number), Wrong::OtherEnum) => Some(format!("sip:{}@{APEX}", number.digits().len())),
                (Some(number), _) => Some(format!("sip:{number}@{APEX}")),
                (None, Wrong::EnumForNobody) => Some(format!("sip:nobody@{APEX}")),
                (None, _) => None,
            };
            uri.map(|uri| naptr("u", "E2U+sip", &format!("!^.*$!{uri}!"), Name::root()))
        };
        let mut answer = Dns::response(question.metadata.id, OpCode::Query);
        answer.metadata.authoritative = true;
        answer.add_query(query.clone());
        match data {
            Some(data) => {
                answer.add_answer(Record::from_rdata(query.name().clone(), 60, data));
            }
            None => answer.metadata.response_code = ResponseCode::NXDomain,
        }
        Some(answer.to_vec().unwrap())
    }
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn rehearse(wrong: Wrong, phones: u32) -> Report {
    let sims = sims("00101999", 40, &[7; 32]);
    let fake = Fake::new(wrong, &sims);
    let any = "127.0.0.1:0".parse().unwrap();
    let plan = Plan {
        phones,
        front: fake.front,
        calls: fake.calls,
        zone: Some(fake.zone),
        apex: APEX.into(),
        domain: APEX.into(),
        stations: vec![("hill".into(), any), ("dale".into(), any)],
        trunk: any,
        talk: None,
        sims,
    };
    let mut told = 0;
    let report = run(&plan, &mut |_| told += 1);
    assert!(told > 0, "no progress was shown");
    report
}

/// The rehearsal fails for the reason that is expected, and says so in the table and in JSON.
fn must_fail(wrong: Wrong, because: &str) {
    let report = rehearse(wrong, 10);
    assert!(!report.ok(), "{wrong:?} passed:\n{}", report.table());
    let found = report.failures.iter().any(|failure| failure.contains(because));
    assert!(found, "{wrong:?} did not fail because of {because:?}:\n{}", report.table());
    assert!(report.table().contains("FAILED") && report.to_json()["summary"]["ok"] == false);
}

#[test]
fn a_right_box_passes() {
    let report = rehearse(Wrong::Nothing, 40);
    println!("{}", report.table());
    assert!(report.ok(), "{}", report.table());
    // 40 phones, 4 strangers, a foreign number.
    assert_eq!(report.rows.len(), 45);
    assert!(report.registrations.len() > 40 && report.median_ms() > 0.0 && report.registrations_per_s() > 0.0);
    let json = report.to_json();
    assert_eq!(json["summary"]["rows_failed"], 0);
    assert_eq!(json["rows"][0]["imsi"], "001019990000000");
    assert_eq!(json["rows"][0]["saw"], "registered at hill");
    assert_eq!(json["rows"][44]["msisdn"], "+9990000000000");
}

#[test]
fn one_phone_alone_can_rehearse() {
    let report = rehearse(Wrong::Nothing, 1);
    assert!(report.ok(), "{}", report.table());
}

#[test]
fn what_cannot_begin_is_a_failure() {
    let plan = Plan {
        phones: 2,
        front: "127.0.0.1:9".parse().unwrap(),
        calls: "127.0.0.1:9".parse().unwrap(),
        zone: None,
        apex: APEX.into(),
        domain: APEX.into(),
        stations: vec![("hill".into(), "127.0.0.1:0".parse().unwrap())],
        trunk: "127.0.0.1:0".parse().unwrap(),
        talk: None,
        sims: sims("00101999", 1, &[7; 32]),
    };
    assert!(run(&plan, &mut |_| ()).failures[0].contains("only 1 SIMs are provisioned"));
    let taken = UdpSocket::bind("127.0.0.1:0").unwrap();
    let plan = Plan { phones: 1, stations: vec![("hill".into(), taken.local_addr().unwrap())], ..plan };
    assert!(run(&plan, &mut |_| ()).failures[0].contains("the base station hill cannot use 127.0.0.1:"));
}

#[test]
fn a_second_challenge_lets_every_sim_in() {
    must_fail(Wrong::SecondChallenge, "let in by FailMode: a second 401 with a nonce");
}

#[test]
fn a_broken_nonce_lets_every_sim_in() {
    must_fail(Wrong::BrokenNonce, "let in by FailMode: a 401 whose nonce is not 32 hex digits");
}

#[test]
fn a_quoted_nonce_cannot_be_read_by_the_older_ones() {
    must_fail(Wrong::QuotedNonce, "let in by FailMode: a 401 whose nonce is not 32 hex digits");
}

#[test]
fn a_nonce_is_not_given_twice() {
    must_fail(Wrong::SameNonce, "the same nonce twice");
}

#[test]
fn the_tag_stands_last() {
    must_fail(Wrong::TagNotLast, "a parameter after the tag in To");
}

#[test]
fn compact_names_are_not_understood() {
    must_fail(Wrong::CompactName, "the compact header name \"l\"");
}

#[test]
fn an_answer_is_shorter_than_1500_bytes() {
    must_fail(Wrong::LongAnswer, "a datagram of 1500 bytes or more");
}

#[test]
fn only_200_is_a_yes() {
    must_fail(Wrong::Code202, "202 where only 200 lets a phone in");
}

#[test]
fn a_200_has_the_contact() {
    must_fail(Wrong::NoContact, "200 without the Contact that was registered");
}

#[test]
fn a_200_has_the_kc_of_the_sim() {
    must_fail(Wrong::OtherKc, "200 with another Kc than the SIM's");
}

#[test]
fn a_200_has_the_number() {
    must_fail(Wrong::NoNumber, "in P-Associated-URI");
}

#[test]
fn a_stranger_is_refused_with_a_cause_that_does_not_lock_his_sim() {
    must_fail(Wrong::CauseThatLocks, "refused with cause 2, not 4");
}

#[test]
fn a_silent_box_is_given_up_after_one_leg() {
    let started = std::time::Instant::now();
    must_fail(Wrong::Silent, "the box does not answer");
    assert!(started.elapsed() < Duration::from_secs(20));
}

#[test]
fn a_box_that_dies_halfway_is_given_up() {
    let started = std::time::Instant::now();
    must_fail(Wrong::DiesHalfway, "no answer");
    assert!(started.elapsed() < Duration::from_secs(60));
}

#[test]
fn a_sim_with_a_key_is_challenged() {
    must_fail(Wrong::NoChallenge, "200 without a challenge");
}

#[test]
fn a_wrong_key_stays_out() {
    must_fail(Wrong::AnySres, "registered with a wrong key");
}

#[test]
fn a_recorded_answer_is_worthless() {
    must_fail(Wrong::Replay, "a replayed answer was taken at");
}

#[test]
fn a_stranger_stays_out() {
    must_fail(Wrong::Strangers, "registered although nobody provisioned it");
}

#[test]
fn one_call_id_for_all_phones_is_no_reason_to_refuse() {
    must_fail(Wrong::OneCallIdOnePhone, "refused with 400, cause 17");
}

#[test]
fn a_new_call_id_after_a_restart_is_no_reason_to_refuse() {
    must_fail(Wrong::OnePhoneOneCallId, "refused after the restart of its base station with 400, cause 17");
}

#[test]
fn a_200_without_a_binding_is_found_out() {
    must_fail(Wrong::StoresNothing, "got 480, cause 20, not 302");
}

#[test]
fn a_detach_is_honoured() {
    must_fail(Wrong::IgnoresDetach, "not 480, cause 20");
}

#[test]
fn a_late_detach_of_the_former_cell_is_not_honoured() {
    must_fail(Wrong::AnyDetach, "got 480, cause 20, not 302");
}

#[test]
fn a_move_is_followed() {
    must_fail(Wrong::IgnoresMoves, "got 302 to IMSI001019990000001");
}

#[test]
fn a_call_goes_to_the_station_where_the_phone_is() {
    must_fail(Wrong::OtherStation, "at 127.0.0.99:5062, not 302 to IMSI001019990000000");
}

#[test]
fn a_call_goes_to_the_right_phone() {
    must_fail(Wrong::OtherUser, "got 302 to IMSI001029990000000");
}

#[test]
fn a_no_to_a_caller_has_its_cause() {
    must_fail(Wrong::NoReason, "got 480, no cause, not 480, cause 20");
    must_fail(Wrong::NoReason, "got 404, no cause, not 404, cause 1");
}

#[test]
fn a_foreign_number_is_not_routed() {
    must_fail(Wrong::ForeignNumber, "not 404, cause 1");
}

#[test]
fn calls_that_nobody_answers_are_given_up() {
    must_fail(Wrong::CallsUnanswered, "calls not tried: the box is silent");
}

#[test]
fn a_phone_is_found_by_dns() {
    must_fail(Wrong::NoNaptr, "DNS finds no shard: nothing");
    must_fail(Wrong::NoTarget, "DNS finds no shard: no target with an A record");
}

#[test]
fn a_number_is_found_by_enum() {
    must_fail(Wrong::OtherEnum, "ENUM has sip:4@gsm.example, not sip:7000@gsm.example");
    must_fail(Wrong::EnumForNobody, "ENUM has sip:nobody@gsm.example for a number that is nobody's");
}

#[test]
fn a_zone_that_does_not_answer_is_given_up() {
    must_fail(Wrong::ZoneUnanswered, "DNS not tried: the box is silent");
}

/// The whole program: `encamp rehearse` starts a private box, and every phone sees what it should.
#[test]
fn the_real_box_passes_its_rehearsal() {
    let output = std::process::Command::new(env!("CARGO_BIN_EXE_encamp"))
        .args(["rehearse", "--phones", "60", "--json"])
        .output();
    let output = output.expect("encamp runs");
    let said = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success(), "{said}\n{}", String::from_utf8_lossy(&output.stderr));
    let report: serde_json::Value = serde_json::from_str(&said).expect("JSON");
    let rows = report["rows"].as_array().expect("rows");
    assert!(rows.len() >= 60 && rows.iter().all(|row| row["ok"] == serde_json::json!(true)), "{said}");
    for acts in ["calls", "texts", "mails"] {
        let acts = report[acts].as_array().expect("scenes");
        assert!(acts.len() >= 20 && acts.iter().all(|row| row["ok"] == serde_json::json!(true)), "{said}");
    }
}
