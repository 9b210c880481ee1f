//! The rehearsal: simulated base stations and their phones run against a box, which is judged by what they see.
//!
//! Knows: who is who in the play, and what each must see. Does not know: how the box works; it is spoken to by SIP, DNS and SMTP alone,
//! through parsers and writers that are not the box's own. Reads and writes sockets, nothing else.
//! Limits: [`CHANNEL_COUNT`] phones speak at once in a cell; a box that is silent is given up ([`Patience`]); nothing begins after
//! [`time_max`].
//!
//! | file | its question |
//! |---|---|
//! | [`bts`] | what does a base station send, and misread |
//! | [`call`], [`text`], [`air`] | what does it do with calls and texts, and when |
//! | [`heard`], `rp`, [`rtp`] | how does it read SIP, a short message, speech |
//! | [`phone`] | what is on a SIM, and what did its phone see |
//! | [`pbx`], [`trunk`] | what is a caller told; who answers outside |
//! | [`mail`] | how does a mail server take mail, and a mail program hand it in |
//! | `scenes`, `writing` | who calls, texts and writes mail to whom, and what must each see |
//! | [`finder`] | what does the zone tell |
//! | [`report`] | how is it shown |

// The rehearsal stands outside of the box: it has sockets, threads and a clock of its own.
#![allow(clippy::disallowed_methods, clippy::disallowed_types)]

pub mod air;
pub mod bts;
pub mod call;
pub mod finder;
pub mod heard;
pub mod mail;
pub mod pbx;
pub mod phone;
pub mod report;
mod rp;
pub mod rtp;
mod scenes;
pub mod text;
pub mod trunk;
mod writing;

use std::collections::{HashSet, VecDeque};
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU32, AtomicUsize, Ordering};
use std::sync::mpsc::channel;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use air::Manner;
use bts::{Cell, Dialect, Proxies, Station};
use finder::{Finder, Nothing};
use pbx::{Pbx, Told};
use phone::{Phone, Registration, Saw};
pub use phone::{SIM_COUNT_MAX, Sim, sims};
pub use report::{Act, Report, Row, SceneRow};
use scenes::{Actor, Company, Presence};
use trunk::Exchange;
use writing::Carol;
pub use writing::Post;

use crate::ident::{Imsi, Msisdn};

/// Phones that speak at once in one cell: the four channels of an SDCCH/4.
pub const CHANNEL_COUNT: usize = 4;
/// How long the box may take until a phone that switched itself off is off; nobody waits for the answer to a detach.
const DETACH_WAIT: Duration = Duration::from_secs(3);
/// So long without a text, and all that were to come have come; in a large cell that may never be so.
const SETTLE_TIME: Duration = Duration::from_secs(1);
const SETTLE_MAX: Duration = Duration::from_secs(10);
/// So many silences, one after the other, and the box is taken for dead; one is enough where it never said anything.
const SILENCE_COUNT_MAX: u32 = 4;

/// What to rehearse, with whom.
#[derive(Clone, Debug)]
pub struct Plan {
    /// How many of `sims` take part.
    pub phones: u32,
    /// Where base stations register: port 5064 of the box.
    pub front: SocketAddr,
    /// Where a PBX sends its INVITE: port 5060 of the box.
    pub calls: SocketAddr,
    /// `None`: nothing is looked up by DNS.
    pub zone: Option<SocketAddr>,
    pub apex: String,
    pub domain: String,
    /// Name and address to bind; each must be one that the box takes for a base station. Every second one speaks as OpenBTS 4.0.
    pub stations: Vec<(String, SocketAddr)>,
    /// The address to bind as a PBX; the box must have it as a trunk.
    pub trunk: SocketAddr,
    /// `None`: nobody calls, texts or writes.
    pub talk: Option<Talk>,
    /// As provisioned in the box. The last IMSIs of their network (MCC and MNC, then nines) play the strangers.
    pub sims: Vec<Sim>,
}

/// What calls, texts and mail need beside the phones.
#[derive(Clone, Debug)]
pub struct Talk {
    /// Where base stations send texts: port 5063 of the box.
    pub texts: SocketAddr,
    /// The location area of each base station, where it has one.
    pub areas: Vec<Option<String>>,
    /// Numbers with these first digits, and four more, go out to [`Plan::trunk`].
    pub outside: Option<String>,
    /// A number that is nobody's and goes to no trunk.
    pub nobody: Option<String>,
    /// A number that is nobody's and goes to no trunk that takes texts.
    pub nobody_text: Option<String>,
    /// After so much silence of a phone that was sent a text the box must take it for absent.
    pub silence: Duration,
    /// A number of the message centre's own that answers everybody.
    pub status: Option<String>,
    /// Whether a sender is told in words why his text went nowhere.
    pub explains: bool,
    /// How many texts may wait for one phone.
    pub queue_max: usize,
    /// Whether a phone that registers for the first time is sent a text.
    pub welcomes: bool,
    /// Why nobody writes mail, where nobody does.
    pub mail: Result<Post, String>,
}

/// Nothing new begins after this time.
pub fn time_max(phones: u32) -> Duration {
    Duration::from_secs(120) + Duration::from_millis(100) * phones
}

/// What a phone does in the play. By its place among the SIMs alone, however many play: a box that remembers an earlier rehearsal
/// must not have a forged card's SIM registered from then.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Role {
    Stays,
    Moves {
        /// The former cell sends a detach after the phone has registered in the new one (wire.md 8).
        late_detach: bool,
    },
    Detaches,
    /// Its card has another key.
    Forged,
    /// A thief sends its recorded answer again, there and in the next cell.
    Robbed,
    /// It registers again after its base station was restarted.
    Restarted,
    /// Nobody provisioned it.
    Stranger,
}

impl Role {
    fn of(place: usize, sim: &Sim, stations: usize) -> Role {
        let has_key = Phone::new(sim).has_key();
        match place % 10 {
            1 if stations > 1 => Role::Moves { late_detach: false },
            9 if stations > 1 => Role::Moves { late_detach: true },
            2 => Role::Detaches,
            4 | 7 if has_key => Role::Forged,
            6 if has_key => Role::Robbed,
            8 => Role::Restarted,
            _ => Role::Stays,
        }
    }
}

/// One phone in the play, and what became of it.
struct Part {
    sim: Sim,
    /// Among the SIMs.
    place: usize,
    role: Role,
    phone: Phone,
    home: usize,
    /// The cell it goes to, or where the thief sits.
    next: usize,
    /// Where it is registered as far as its phone knows; calls must find it there.
    at: Option<usize>,
    first: Option<Registration>,
    again: Option<Registration>,
    /// It was switched on and got an answer; without that there is nothing to look up.
    met_the_box: bool,
    row: Row,
}

/// Runs the whole play, and always ends.
///
/// Errors: none; whatever goes wrong stands in the report.
pub fn run(plan: &Plan, progress: &mut dyn FnMut(&str)) -> Report {
    let phones = plan.phones as usize;
    if phones == 0 || plan.stations.is_empty() {
        return Report::failed("nothing to rehearse: it takes a phone and a base station".into());
    }
    let Some(cast) = plan.sims.get(..phones) else {
        return Report::failed(format!("{phones} phones, but only {} SIMs are provisioned", plan.sims.len()));
    };
    let mut stations = Vec::new();
    for (index, (name, address)) in plan.stations.iter().enumerate() {
        let dialect = if index % 2 == 0 { Dialect::V5 } else { Dialect::V4 };
        // "Unique LAC per BTS is needed" (wire.md 8).
        let cell = Cell { mcc: "001", mnc: "01", lac: 1000 + index as u16, ci: 10 };
        let texts = plan.talk.as_ref().map_or(plan.calls, |talk| talk.texts);
        let proxies = Proxies { registration: plan.front, speech: plan.calls, texts };
        match Station::new(name, *address, proxies, dialect, cell) {
            Ok(station) => stations.push(station),
            Err(error) => return Report::failed(format!("the base station {name} cannot use {address}: {error}")),
        }
    }
    let stage = Stage { plan, stations: &stations, patience: Patience::new(time_max(plan.phones)) };
    let mut parts = stage.cast(cast);
    let mut report = Report { phones: plan.phones, stations: stations.len() as u32, ..Report::default() };

    stage.attach(&mut parts, &mut report, progress);
    if stage.patience.heard.load(Ordering::Relaxed) {
        if let Err(error) = stations[0].restart() {
            report.failures.push(format!("no dice for a new Call-ID: {error}"));
        }
        // One that moves while its welcome is on the air would be away for as long as the box waits.
        if plan.talk.as_ref().is_some_and(|talk| talk.welcomes) {
            stage.settle();
        }
        stage.move_on(&mut parts, progress);
        stage.look_up(&mut parts, &mut report, progress);
        // An OPTIONS only asks whether it is alive, and a text may be left from an earlier rehearsal; until here nobody calls.
        for station in &stations {
            let unasked: Vec<String> = station.requests();
            let unasked: Vec<&str> =
                unasked.iter().map(String::as_str).filter(|method| !["OPTIONS", "MESSAGE"].contains(method)).collect();
            if !unasked.is_empty() {
                report.failures.push(format!("{} was sent {}", station.name, unasked.join(", ")));
            }
        }
        if let Some(talk) = &plan.talk {
            stage.talk(talk, &parts, &mut report, progress);
        }
    } else {
        report.failures.push(format!("the box does not answer at {}", plan.front));
    }
    finish(parts, &stations, report)
}

/// What all acts of the play share.
struct Stage<'a> {
    plan: &'a Plan,
    stations: &'a [Station],
    patience: Patience,
}

/// When to give up a box that says nothing.
struct Patience {
    until: Instant,
    heard: AtomicBool,
    silent: AtomicU32,
}

impl Patience {
    fn new(time: Duration) -> Patience {
        Patience { until: Instant::now() + time, heard: AtomicBool::new(false), silent: AtomicU32::new(0) }
    }

    fn note(&self, answered: bool) {
        if answered {
            self.heard.store(true, Ordering::Relaxed);
            self.silent.store(0, Ordering::Relaxed);
        } else {
            self.silent.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// Why nothing more is tried.
    fn is_out(&self) -> Option<&'static str> {
        let allowed = if self.heard.load(Ordering::Relaxed) { SILENCE_COUNT_MAX } else { 1 };
        match () {
            () if self.silent.load(Ordering::Relaxed) >= allowed => Some("not tried: the box is silent"),
            () if Instant::now() >= self.until => Some("not tried: it took too long"),
            () => None,
        }
    }
}

impl Stage<'_> {
    /// Who plays what: the SIMs, and a stranger for every ten of them.
    fn cast(&self, sims: &[Sim]) -> Vec<Part> {
        let count = self.stations.len();
        let part = |place: usize, sim: &Sim, role: Role| {
            // The same role is played in every cell in turn.
            let home = if role == Role::Restarted { 0 } else { (place + place / 10) % count };
            let next = (home + 1) % count;
            let phone = match role {
                Role::Forged => Phone::forged(sim, &[0x66; 32]),
                _ => Phone::new(sim),
            };
            let names = |index: usize| &self.stations[index].name;
            let expected = match role {
                Role::Stays => format!("registered at {}", names(home)),
                Role::Moves { .. } => format!("registered at {}, then at {}", names(home), names(next)),
                Role::Detaches => format!("registered at {}, then off", names(home)),
                Role::Forged => "refused with cause 4: wrong key".into(),
                Role::Robbed => format!("registered at {}; the replayed answer refused", names(home)),
                Role::Restarted => format!("registered at {0}, and again after the restart of {0}", names(home)),
                Role::Stranger => "refused with cause 4: nobody provisioned it".into(),
            };
            let row = Row {
                imsi: Some(sim.imsi.to_string()),
                msisdn: sim.msisdn.map(|number| number.to_string()),
                station: names(home).clone(),
                expected,
                ..Row::default()
            };
            Part {
                sim: sim.clone(),
                place,
                role,
                phone,
                home,
                next,
                at: None,
                first: None,
                again: None,
                met_the_box: false,
                row,
            }
        };
        let mut parts: Vec<Part> =
            sims.iter().enumerate().map(|(place, sim)| part(place, sim, Role::of(place, sim, count))).collect();
        for number in 0..sims.len().div_ceil(10) {
            let plmn = sims[0].imsi.as_str().get(..5).unwrap_or("00101");
            let Ok(imsi) = Imsi::parse(&format!("{plmn}{:010}", 9_999_999_999u64 - number as u64)) else { continue };
            if self.plan.sims.iter().all(|sim| sim.imsi != imsi) {
                let stranger = Sim { imsi, auth: crate::gsm::auc::Auth::None, msisdn: None };
                parts.push(part(number, &stranger, Role::Stranger));
            }
        }
        parts
    }

    /// First act: all are switched on.
    fn attach(&self, parts: &mut [Part], report: &mut Report, progress: &mut dyn FnMut(&str)) {
        let started = Instant::now();
        let jobs = parts.iter_mut().map(|part| (part.home, part)).collect();
        self.in_cells("registering", jobs, progress, |station, part| {
            let seen = station.register(&part.phone);
            self.patience.note(seen.code.is_some());
            part.met_the_box = seen.code.is_some();
            part.row.registered = seen.saw.text();
            part.row.saw = format!("{} at {}", words(&seen.saw), station.name);
            part.row.took = seen.code.is_some().then_some(seen.took);
            let goes_in = !matches!(part.role, Role::Forged | Role::Stranger);
            judge(part, &seen, goes_in, "");
            if seen.saw == Saw::Registered {
                part.at = Some(part.home);
                station.camp(&part.phone.imsi, Manner::Answers);
            }
            part.first = Some(seen);
        });
        report.attached_in = started.elapsed();
        let is_in = |part: &&Part| part.first.as_ref().is_some_and(|seen| seen.saw == Saw::Registered);
        report.attached = parts.iter().filter(is_in).count() as u32;
    }

    /// Until no text has come for a while.
    fn settle(&self) {
        let until = Instant::now() + SETTLE_MAX;
        let (mut had, mut since) = (0, Instant::now());
        while since.elapsed() < SETTLE_TIME && Instant::now() < until {
            std::thread::sleep(Duration::from_millis(50));
            let has = self.stations.iter().map(|station| station.inbox().len()).sum();
            if has != had {
                (had, since) = (has, Instant::now());
            }
        }
    }

    /// Second act: the first base station has been restarted; some move, some are switched off, thieves try.
    fn move_on(&self, parts: &mut [Part], progress: &mut dyn FnMut(&str)) {
        let busy = |part: &&mut Part| !matches!(part.role, Role::Stays | Role::Forged | Role::Stranger);
        let jobs: Vec<(usize, &mut Part)> = parts
            .iter_mut()
            .filter(|part| part.at.is_some())
            .filter(busy)
            .map(|part| (if matches!(part.role, Role::Moves { .. }) { part.next } else { part.home }, part))
            .collect();
        self.in_cells("moving", jobs, progress, |station, part| match part.role {
            Role::Moves { late_detach } => {
                let seen = station.register(&part.phone);
                self.patience.note(seen.code.is_some());
                part.row.moved = format!("to {}: {}", station.name, seen.saw.text());
                part.row.saw += &format!("; {} at {}", words(&seen.saw), station.name);
                judge(part, &seen, true, " in the next cell");
                if seen.saw == Saw::Registered {
                    part.at = Some(part.next);
                    part.row.station.clone_from(&station.name);
                    self.stations[part.home].leave(&part.phone.imsi);
                    station.camp(&part.phone.imsi, Manner::Answers);
                    if late_detach {
                        self.stations[part.home].detach(&part.phone.imsi);
                        part.row.moved = format!("to {}, late detach", station.name);
                    }
                }
                part.again = Some(seen);
            }
            Role::Restarted => {
                let seen = station.register(&part.phone);
                self.patience.note(seen.code.is_some());
                part.row.moved = format!("after restart: {}", seen.saw.text());
                part.row.saw += &format!("; {} after the restart", words(&seen.saw));
                judge(part, &seen, true, " after the restart of its base station");
                part.again = Some(seen);
            }
            Role::Detaches => {
                station.detach(&part.phone.imsi);
                station.leave(&part.phone.imsi);
                part.row.moved = "switched off".into();
                part.row.saw += "; switched off";
                part.at = None;
            }
            Role::Robbed => self.rob(station, part),
            Role::Stays | Role::Forged | Role::Stranger => {}
        });
    }

    /// "One nonce, one subscriber, one use" (DESIGN section 3).
    fn rob(&self, station: &Station, part: &mut Part) {
        let Some(recorded) = part.first.as_ref().and_then(|seen| seen.authorization.clone()) else { return };
        let mut places = vec![station];
        if part.next != part.home {
            places.push(&self.stations[part.next]);
        }
        for place in places {
            let saw = place.replay(&part.phone.imsi, &recorded);
            self.patience.note(saw != Saw::NoAnswer);
            part.row.moved = format!("replay: {}", saw.text());
            part.row.saw += &format!("; a replayed answer: {} at {}", words(&saw), place.name);
            match saw {
                Saw::Refused { .. } => {}
                Saw::Registered => part.row.faults.push(format!("a replayed answer was taken at {}", place.name)),
                Saw::NoAnswer => part.row.faults.push(format!("a replayed answer was not answered at {}", place.name)),
                Saw::LetIn { why } => part.row.faults.push(format!("a replayed answer was let in: {why}")),
            }
        }
    }

    /// Third act: the world outside looks for each of them, by DNS and by calling.
    fn look_up(&self, parts: &mut Vec<Part>, report: &mut Report, progress: &mut dyn FnMut(&str)) {
        let finder = match self.plan.zone.map(|zone| Finder::new(zone, &self.plan.apex)).transpose() {
            Ok(finder) => finder,
            Err(error) => {
                report.failures.push(format!("no socket to ask the zone from: {error}"));
                None
            }
        };
        let mut pbx = match Pbx::new(self.plan.trunk) {
            Ok(pbx) => Some(pbx),
            Err(error) => {
                report.failures.push(format!("the PBX cannot use {}: {error}", self.plan.trunk));
                None
            }
        };
        parts.push(self.foreigner());
        // DNS and calls may be silent where registration is not: each has a patience of its own.
        let left = self.patience.until.saturating_duration_since(Instant::now());
        let (dns_patience, call_patience) = (Patience::new(left), Patience::new(left));
        let count = parts.len();
        for (done, part) in parts.iter_mut().enumerate() {
            progress(&format!("looking up {} of {count}", done + 1));
            let mut uri = None;
            let mut found = Vec::new();
            if let Some(finder) = &finder {
                match dns_patience.is_out() {
                    Some(why) => part.row.faults.push(format!("DNS {why}")),
                    None => (uri, found) = self.by_dns(finder, part, &dns_patience),
                }
            }
            let Some(pbx) = &mut pbx else { continue };
            if !part.met_the_box && part.row.imsi.is_some() {
                continue;
            }
            let imsi_uri = format!("sip:IMSI{}@{}", part.sim.imsi, self.plan.domain);
            let number_uri = part.sim.msisdn.map(|number| format!("sip:{number}@{}", self.plan.domain));
            let uri = uri.or(number_uri).unwrap_or_else(|| imsi_uri.clone());
            match call_patience.is_out() {
                Some(why) => part.row.faults.push(format!("calls {why}")),
                None => self.by_call(pbx, part, self.plan.calls, &uri, &call_patience),
            }
            // A front end elsewhere would send its INVITE where DNS says; from here that is tried where it can be reached.
            let near = |target: &&SocketAddr| target.ip().is_loopback() == pbx.address().ip().is_loopback();
            if let (Some(target), Some(_), None) = (found.iter().find(near).copied(), part.at, call_patience.is_out()) {
                self.by_call(pbx, part, target, &imsi_uri, &call_patience);
            }
        }
    }

    /// Fourth act: they call, text and write to each other, and the world outside.
    fn talk(&self, talk: &Talk, parts: &[Part], report: &mut Report, progress: &mut dyn FnMut(&str)) {
        let pbx = match Exchange::new(self.plan.trunk) {
            Ok(pbx) => Some(pbx),
            Err(error) => {
                report.failures.push(format!("the PBX cannot use {}: {error}", self.plan.trunk));
                None
            }
        };
        let mail = match talk.mail.as_ref().map(|post| (post, Carol::new(post))) {
            Ok((_, Ok(carol))) => Some(carol),
            Ok((post, Err(error))) => {
                report.failures.push(format!("Carol's mail server cannot use {}: {error}", post.relay));
                None
            }
            Err(why) => {
                report.notes.push(format!("No mail is written: {why}."));
                None
            }
        };
        let mut dice = [0; 4];
        if let Err(error) = getrandom::fill(&mut dice) {
            report.failures.push(format!("no dice: {error}"));
        }
        let mut actors = Vec::new();
        for part in parts {
            let Some(number) = part.sim.msisdn else { continue };
            let (at, presence) = match (part.role, part.at) {
                (Role::Forged | Role::Stranger, _) => continue,
                (Role::Detaches, _) if part.met_the_box => (part.home, Presence::Off),
                (Role::Stays, Some(at)) if part.place % 10 == 5 => (at, Presence::Silent),
                (_, Some(at)) => (at, Presence::Here),
                (_, None) => continue,
            };
            if presence == Presence::Silent {
                self.stations[at].leave(&part.phone.imsi);
            }
            actors.push(Actor {
                imsi: part.phone.imsi,
                number: number.to_string(),
                phone: part.phone.clone(),
                at: AtomicUsize::new(at),
                presence,
            });
        }
        let started = Instant::now();
        let company = Company {
            stations: self.stations,
            areas: &talk.areas,
            talk,
            calls: self.plan.calls,
            domain: &self.plan.domain,
            actors,
            pbx,
            mail,
            patience: &self.patience,
            run: format!("{:08x}", u32::from_be_bytes(dice)),
            references: AtomicU8::new(dice[0]),
            text_count: AtomicU32::new(0),
        };
        report.scenes = company.play(progress);
        report.failures.extend(company.leftovers());
        report.talked_in = started.elapsed();
    }

    /// A number that nobody has; no phone goes with it.
    fn foreigner(&self) -> Part {
        let taken = |number: &Msisdn| self.plan.sims.iter().any(|sim| sim.msisdn == Some(*number));
        let msisdn = (0..1000)
            .filter_map(|last| Msisdn::parse(&format!("+9990000000{last:03}")).ok())
            .find(|number| !taken(number));
        let auth = crate::gsm::auc::Auth::None;
        let sim = Sim { imsi: self.plan.sims[0].imsi, auth, msisdn };
        let row = Row {
            msisdn: msisdn.map(|number| number.to_string()),
            expected: "nobody's number: 404".into(),
            ..Row::default()
        };
        let phone = Phone::new(&sim);
        Part {
            sim,
            place: 0,
            role: Role::Stranger,
            phone,
            home: 0,
            next: 0,
            at: None,
            first: None,
            again: None,
            met_the_box: true,
            row,
        }
    }

    /// The URI behind the number, and where the zone sends a front end.
    fn by_dns(&self, finder: &Finder, part: &mut Part, patience: &Patience) -> (Option<String>, Vec<SocketAddr>) {
        let note = |nothing: Option<&Nothing>| patience.note(nothing != Some(&Nothing::NoAnswer));
        let (mut uri, mut found) = (None, Vec::new());
        if part.row.imsi.is_some() {
            let answer = finder.imsi(&part.sim.imsi);
            note(answer.as_ref().err());
            match answer {
                Ok(targets) => {
                    part.row.dns = targets.first().map(ToString::to_string).unwrap_or_default();
                    found = targets;
                }
                Err(nothing) => {
                    part.row.dns = nothing.text();
                    part.row.faults.push(format!("DNS finds no shard: {}", nothing.text()));
                }
            }
        }
        if let (Some(number), None) = (&part.sim.msisdn, patience.is_out()) {
            let answer = finder.number(number);
            note(answer.as_ref().err());
            let right = format!("sip:{number}@{}", self.plan.domain);
            match answer {
                Err(Nothing::NoSuchName) if part.role == Role::Stranger => part.row.dns = "nothing".into(),
                Ok(told) if part.role == Role::Stranger => {
                    part.row.dns.clone_from(&told);
                    part.row.faults.push(format!("ENUM has {told} for a number that is nobody's"));
                }
                Ok(told) if told == right => uri = Some(told),
                Ok(told) => part.row.faults.push(format!("ENUM has {told}, not {right}")),
                Err(nothing) => part.row.faults.push(format!("ENUM has no {number}: {}", nothing.text())),
            }
        }
        (uri, found)
    }

    /// Calls, and compares what the caller is told with where the phone is.
    fn by_call(&self, pbx: &mut Pbx, part: &mut Part, to: SocketAddr, uri: &str, patience: &Patience) {
        let station = part.at.map(|at| &self.stations[at]);
        let right = match (station, part.role) {
            (Some(station), _) => Told::Redirect { user: format!("IMSI{}", part.sim.imsi), to: station.address() },
            (None, Role::Stranger) => Told::Final { code: 404, cause: Some(1) },
            (None, _) => Told::Final { code: 480, cause: Some(20) },
        };
        let mut told = pbx.call(to, uri);
        if part.role == Role::Detaches {
            let until = Instant::now() + DETACH_WAIT;
            while matches!(told, Told::Redirect { .. }) && Instant::now() < until {
                std::thread::sleep(Duration::from_millis(100));
                told = pbx.call(to, uri);
            }
        }
        patience.note(told != Told::NoAnswer);
        part.row.redirect = told.text();
        part.row.redirect_name = match &told {
            Told::Redirect { to, .. } => self.stations.iter().find(|station| station.address() == *to),
            _ => None,
        }
        .map(|station| station.name.clone())
        .unwrap_or_default();
        if told != right {
            let why = match &told {
                Told::Unreadable(why) => why.clone(),
                Told::Redirect { user, to } => format!("302 to {user} at {to}"),
                other => other.text(),
            };
            part.row.faults.push(format!("a call to {uri} by {to} got {why}, not {}", right_words(&right)));
        }
    }

    /// Does something for each part in its cell, as many at once as a cell has channels.
    fn in_cells(
        &self,
        what: &str,
        jobs: Vec<(usize, &mut Part)>,
        progress: &mut dyn FnMut(&str),
        act: impl Fn(&Station, &mut Part) + Sync,
    ) {
        let count = jobs.len();
        progress(&format!("{what} 0 of {count}"));
        let mut queues: Vec<VecDeque<&mut Part>> = self.stations.iter().map(|_| VecDeque::new()).collect();
        for (station, part) in jobs {
            queues[station].push_back(part);
        }
        let queues: Vec<Mutex<VecDeque<&mut Part>>> = queues.into_iter().map(Mutex::new).collect();
        let (done, finished) = channel();
        std::thread::scope(|scope| {
            for (station, queue) in self.stations.iter().zip(&queues) {
                for _ in 0..CHANNEL_COUNT {
                    let (done, act) = (done.clone(), &act);
                    scope.spawn(move || {
                        let pop = || queue.lock().unwrap_or_else(PoisonError::into_inner).pop_front();
                        while let Some(part) = pop() {
                            match self.patience.is_out() {
                                Some(why) => part.row.faults.push(why.to_owned()),
                                None => act(station, part),
                            }
                            if done.send(()).is_err() {
                                return;
                            }
                        }
                    });
                }
            }
            // The workers have the rest; with the last of them the counting ends.
            drop(done);
            for number in 1..=count {
                if finished.recv().is_err() {
                    return;
                }
                progress(&format!("{what} {number} of {count}"));
            }
        });
    }
}

/// Compares how a location updating ended with how it must, and takes over what was wrong with its answers.
fn judge(part: &mut Part, seen: &Registration, goes_in: bool, when: &str) {
    let faults = &mut part.row.faults;
    match (&seen.saw, goes_in) {
        (Saw::LetIn { why }, _) => faults.push(format!("let in by FailMode{when}: {why}")),
        (Saw::Registered, true) => {}
        (Saw::Registered, false) if part.role == Role::Forged => faults.push("registered with a wrong key".into()),
        (Saw::Registered, false) => faults.push("registered although nobody provisioned it".into()),
        (Saw::NoAnswer, _) => faults.push(format!("no answer{when}")),
        (Saw::Refused { cause }, true) => {
            let code = seen.code.unwrap_or_default();
            faults.push(format!("refused{when} with {code}, cause {cause}"));
        }
        (Saw::Refused { cause: 4 }, false) => {
            if part.role == Role::Stranger && seen.code != Some(404) {
                faults.push(format!("refused with {}, not 404", seen.code.unwrap_or_default()));
            }
        }
        (Saw::Refused { cause }, false) => faults.push(format!("refused with cause {cause}, not 4")),
    }
    faults.extend(seen.flaws.iter().cloned());
    if seen.saw == Saw::Registered
        && goes_in
        && let Some(number) = part.sim.msisdn
        && !seen.numbers.contains(&number.to_string())
    {
        faults.push(format!("200 without its number {number} in P-Associated-URI"));
    }
}

fn words(saw: &Saw) -> String {
    match saw {
        Saw::Registered => "registered".into(),
        Saw::Refused { cause } => format!("refused with cause {cause}"),
        Saw::NoAnswer => "no answer".into(),
        Saw::LetIn { .. } => "let in by FailMode".into(),
    }
}

fn right_words(right: &Told) -> String {
    match right {
        Told::Redirect { user, to } => format!("302 to {user} at {to}"),
        other => other.text(),
    }
}

fn finish(parts: Vec<Part>, stations: &[Station], mut report: Report) -> Report {
    let mut nonces = HashSet::new();
    for part in &parts {
        for seen in [&part.first, &part.again].into_iter().flatten() {
            // "fresh RAND from a CSPRNG, one use" (wire.md 10, 3)
            if !seen.nonce.is_empty() && !nonces.insert(seen.nonce.clone()) {
                report.failures.push(format!("the same nonce twice, the second time for {}", part.sim.imsi));
            }
            if seen.saw == Saw::Registered {
                report.registrations.push(seen.took);
            }
        }
    }
    for station in stations {
        for (what, count) in station.complaints() {
            report.failures.push(format!("{} stumbled {count} times over {what}", station.name));
        }
    }
    let mut of_rows = Vec::new();
    for part in parts {
        let who = part.row.imsi.clone().or_else(|| part.row.msisdn.clone()).unwrap_or_default();
        of_rows.extend(part.row.faults.iter().map(|fault| format!("{who}: {fault}")));
        report.rows.push(part.row);
    }
    for row in &report.scenes {
        of_rows.extend(row.faults.iter().map(|fault| format!("{} to {}, {}: {fault}", row.from, row.to, row.scene)));
    }
    report.failures.splice(..0, of_rows);
    report
}
