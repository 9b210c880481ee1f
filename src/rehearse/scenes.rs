//! Calls, texts and mail: who calls and writes to whom, and what each must see.
//!
//! Knows: what a village expects of its network, and what wire.md says that a base station does meanwhile. Does not know: how the box
//! does it. Each scene has the phones that play in it to itself; scenes of other phones run beside it. The scenes of mail are in
//! [`super::writing`].
//! Limits: [`SCENE_COUNT_MAX`] calls, as many texts and as many mails, [`RUNNING_COUNT_MAX`] scenes at once, and a time for every wait.

use std::collections::{HashMap, HashSet, VecDeque};
use std::net::SocketAddr;
use std::sync::atomic::{AtomicU8, AtomicU32, AtomicUsize, Ordering};
use std::sync::mpsc::{RecvTimeoutError, channel};
use std::time::{Duration, Instant};

use super::air::Manner;
use super::bts::Station;
use super::call::{Leg, State};
use super::phone::{Phone, Saw};
use super::report::{Act, SceneRow};
use super::rp::Written;
use super::rtp::{Ear, PACKET_COUNT, converse, media_of};
use super::text::Text;
use super::trunk::Exchange;
use super::writing::Carol;
use super::{Patience, Talk};
use crate::ident::Imsi;

/// No more calls than this, no more texts, and no more scenes of mail.
pub const SCENE_COUNT_MAX: usize = 48;
const RUNNING_COUNT_MAX: usize = 12;
/// OpenBTS sends its INVITE again after a second: by then it must have heard something.
const FIRST_ANSWER_WAIT: Duration = Duration::from_secs(1);
/// From dialling until it is answered or refused; a ring group has 15 s, and a second one comes after the first.
const SETUP_WAIT: Duration = Duration::from_secs(35);
/// What one side does is seen at the other by then.
const SOON: Duration = Duration::from_secs(4);
/// ACK comes two seconds late from the caller's base station.
const ACK_WAIT: Duration = Duration::from_secs(8);
/// From the 202, or from the REGISTER of a phone that was away, until the text is there.
pub(super) const ARRIVAL_WAIT: Duration = Duration::from_secs(6);
/// From a phone's refusal until somebody has deleted an old text.
const ROOM_AFTER: Duration = Duration::from_millis(500);
/// The validity period of a text to one who stays away for longer.
const VALID_FOR: Duration = Duration::from_secs(3);
/// How many parts the longest text has.
pub(super) const LONG_PARTS: u8 = 3;
/// Texts that may wait for one who is away: two of ours, and his welcome.
const ABSENT_TEXTS: usize = 3;
/// A scene that takes longer has lost its thread.
const SCENE_WAIT: Duration = Duration::from_secs(180);
/// As whom the PBX calls.
const PBX_NUMBER: &str = "5550199";
/// Of longer words the beginning is shown.
const SHOWN_MAX: usize = 60;
/// What every text and mail of a rehearsal has in it; what other texts a phone gets are somebody else's.
pub(super) const MARK: &str = "Rehearsal ";

/// A phone that plays.
pub(super) struct Actor {
    pub imsi: Imsi,
    pub number: String,
    pub phone: Phone,
    /// Its cell: where it is registered as far as the box knows.
    pub at: AtomicUsize,
    pub presence: Presence,
}

/// Whether it answers a paging.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Presence {
    Here,
    /// Registered, and silent: its battery is out.
    Silent,
    /// It has said that it switches off.
    Off,
}

/// Numbers are indices of actors.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Scene {
    /// A call that is answered; meanwhile a third one finds the line busy.
    Call {
        caller: usize,
        called: usize,
        third: Option<usize>,
        called_ends: bool,
    },
    Cancel {
        caller: usize,
        called: usize,
    },
    /// A text and a call to one who is not there, and comes back elsewhere.
    Absent {
        caller: usize,
        called: usize,
    },
    Out {
        caller: usize,
        number: usize,
        called_ends: bool,
    },
    In {
        called: usize,
        called_ends: bool,
    },
    Nobody {
        caller: usize,
    },
    Text {
        from: usize,
        to: usize,
    },
    TextToNobody {
        from: usize,
    },
    /// Its sender asks to be told when it is there.
    Reported {
        from: usize,
        to: usize,
    },
    /// It takes several messages.
    Long {
        from: usize,
        to: usize,
    },
    /// To a number of the message centre's own.
    Status {
        from: usize,
    },
    /// The phone has no room for it at first.
    Full {
        from: usize,
        to: usize,
    },
    /// A phone and Carol write to each other.
    Mails {
        phone: usize,
    },
    LongMail {
        to: usize,
    },
    /// Its writer asks to be told when it is there.
    ReportedMail {
        to: usize,
    },
    MailToNobody,
    /// The box is to pass it on to somebody who is none of its own.
    MailElsewhere,
}

impl Scene {
    fn cast(self) -> Vec<usize> {
        match self {
            Scene::Call { caller, called, third, .. } => {
                [Some(caller), Some(called), third].into_iter().flatten().collect()
            }
            Scene::Cancel { caller, called } | Scene::Absent { caller, called } => vec![caller, called],
            Scene::Out { caller, .. } | Scene::Nobody { caller } => vec![caller],
            Scene::In { called, .. } => vec![called],
            Scene::Text { from, to }
            | Scene::Reported { from, to }
            | Scene::Long { from, to }
            | Scene::Full { from, to } => vec![from, to],
            Scene::TextToNobody { from } | Scene::Status { from } => vec![from],
            Scene::Mails { phone: one } | Scene::LongMail { to: one } | Scene::ReportedMail { to: one } => vec![one],
            Scene::MailToNobody | Scene::MailElsewhere => Vec::new(),
        }
    }
}

/// What the scenes have in common.
pub(super) struct Company<'a> {
    pub stations: &'a [Station],
    /// Of each base station: its location area, where it has one.
    pub areas: &'a [Option<String>],
    pub talk: &'a Talk,
    /// Where a PBX sends its INVITE.
    pub calls: SocketAddr,
    pub domain: &'a str,
    pub actors: Vec<Actor>,
    pub pbx: Option<Exchange>,
    /// `None`: nobody writes mail.
    pub mail: Option<Carol<'a>>,
    pub patience: &'a Patience,
    /// Tells this rehearsal's texts from those of an earlier one.
    pub run: String,
    /// The next TP-MR; that two phones do not have the same at a time makes a mistaken report plain.
    pub references: AtomicU8,
    /// Texts that have been thought of.
    pub text_count: AtomicU32,
}

enum News {
    /// This scene does not need this phone any longer.
    Free(usize, usize),
    Done(usize, Vec<SceneRow>),
}

impl Company<'_> {
    /// Plays all scenes, those that take long first.
    pub fn play(&self, progress: &mut dyn FnMut(&str)) -> Vec<SceneRow> {
        let scenes = self.programme();
        let count = scenes.len();
        progress(&format!("calling and writing 0 of {count}"));
        let mut results: Vec<Vec<SceneRow>> = scenes.iter().map(|_| Vec::new()).collect();
        let mut waiting: VecDeque<(usize, Scene)> = scenes.iter().copied().enumerate().collect();
        let mut busy: HashSet<usize> = HashSet::new();
        let mut held: HashMap<usize, HashSet<usize>> = HashMap::new();
        let (tell, told) = channel();
        std::thread::scope(|scope| {
            let mut done = 0;
            loop {
                let mut place = 0;
                while place < waiting.len() && held.len() < RUNNING_COUNT_MAX {
                    let (number, scene) = waiting[place];
                    if scene.cast().iter().any(|actor| busy.contains(actor)) {
                        place += 1;
                        continue;
                    }
                    waiting.remove(place);
                    busy.extend(scene.cast());
                    held.insert(number, scene.cast().into_iter().collect());
                    let tell = tell.clone();
                    scope.spawn(move || {
                        let free = |actor: usize| {
                            // Nobody listens any longer: it took too long.
                            let _ = tell.send(News::Free(number, actor));
                        };
                        let rows = self.perform(scene, &free);
                        let _ = tell.send(News::Done(number, rows));
                    });
                }
                if held.is_empty() {
                    return;
                }
                match told.recv_timeout(SCENE_WAIT) {
                    Ok(News::Free(number, actor)) => {
                        if held.get_mut(&number).is_some_and(|actors| actors.remove(&actor)) {
                            busy.remove(&actor);
                        }
                    }
                    Ok(News::Done(number, rows)) => {
                        for actor in held.remove(&number).into_iter().flatten() {
                            busy.remove(&actor);
                        }
                        results[number] = rows;
                        done += 1;
                        progress(&format!("calling and writing {done} of {count}"));
                    }
                    Err(RecvTimeoutError::Timeout | RecvTimeoutError::Disconnected) => return,
                }
            }
        });
        results.into_iter().flatten().collect()
    }

    /// Who plays what: by the place of each phone, so that a rehearsal with as many phones is the same one each time.
    fn programme(&self) -> Vec<Scene> {
        let of = |presence: &[Presence]| -> Vec<usize> {
            (0..self.actors.len()).filter(|&actor| presence.contains(&self.actors[actor].presence)).collect()
        };
        let (here, absent) = (of(&[Presence::Here]), of(&[Presence::Silent, Presence::Off]));
        let Some(pick) = (!here.is_empty()).then_some(|number: usize| here[number % here.len()]) else {
            return Vec::new();
        };
        let cell = |actor: usize| self.actors[actor].at.load(Ordering::Relaxed);
        // The next phone after this one for which it is so, and which is none of these.
        let next = |after: usize, but: &[usize], is_so: &dyn Fn(usize) -> bool| {
            let from = here.iter().position(|&actor| actor == after).unwrap_or(0);
            (1..here.len()).map(|step| pick(from + step)).find(|actor| !but.contains(actor) && is_so(*actor))
        };
        let mut scenes = Vec::new();
        for (number, &called) in absent.iter().take(SCENE_COUNT_MAX / 4).enumerate() {
            scenes.push(Scene::Absent { caller: pick(number), called });
        }
        const KINDS: usize = 7;
        for number in 0..here.len().clamp(KINDS, SCENE_COUNT_MAX) {
            // Those of the absent come first and hold their callers for a moment: the others begin with other phones.
            let caller = pick(number + absent.len());
            let (kind, round) = (number % KINDS, number / KINDS);
            let ends = |first: bool| first ^ (round % 2 == 1);
            let same = next(caller, &[], &|other| cell(other) == cell(caller));
            let far = next(caller, &[], &|other| cell(other) != cell(caller));
            let any = next(caller, &[], &|_| true);
            scenes.extend(match kind {
                0 => same.map(|called| Scene::Call { caller, called, third: None, called_ends: ends(false) }),
                1 => far.map(|called| Scene::Call { caller, called, third: None, called_ends: ends(true) }),
                2 => any.map(|called| Scene::Cancel { caller, called }),
                3 if self.pbx.is_some() && self.talk.outside.is_some() => {
                    Some(Scene::Out { caller, number, called_ends: ends(false) })
                }
                4 if self.pbx.is_some() => Some(Scene::In { called: caller, called_ends: ends(true) }),
                5 => any.and_then(|called| {
                    let third = Some(next(called, &[caller], &|_| true)?);
                    Some(Scene::Call { caller, called, third, called_ends: ends(true) })
                }),
                6 if self.talk.nobody.is_some() => Some(Scene::Nobody { caller }),
                _ => None,
            });
        }
        const TEXT_KINDS: usize = 7;
        for number in 0..here.len().clamp(TEXT_KINDS, SCENE_COUNT_MAX) {
            let from = pick(2 * number + 1);
            let same = next(from, &[], &|other| cell(other) == cell(from));
            let far = next(from, &[], &|other| cell(other) != cell(from));
            let any = next(from, &[], &|_| true);
            scenes.extend(match number % TEXT_KINDS {
                0 => far.map(|to| Scene::Text { from, to }),
                1 => same.map(|to| Scene::Text { from, to }),
                2 => self.talk.nobody_text.is_some().then_some(Scene::TextToNobody { from }),
                3 => far.or(any).map(|to| Scene::Reported { from, to }),
                4 if self.talk.queue_max >= usize::from(LONG_PARTS) => any.map(|to| Scene::Long { from, to }),
                5 if self.talk.status.is_some() => Some(Scene::Status { from }),
                6 => any.map(|to| Scene::Full { from, to }),
                _ => None,
            });
        }
        let Some(Carol { post, .. }) = &self.mail else { return scenes };
        scenes.extend(self.talk.nobody_text.is_some().then_some(Scene::MailToNobody));
        scenes.push(Scene::MailElsewhere);
        const MAIL_KINDS: usize = 3;
        for number in 0..here.len().clamp(MAIL_KINDS, SCENE_COUNT_MAX) {
            let phone = pick(2 * number);
            scenes.extend(match number % MAIL_KINDS {
                0 => Some(Scene::Mails { phone }),
                1 if self.talk.queue_max.min(post.parts_max) >= usize::from(LONG_PARTS) => {
                    Some(Scene::LongMail { to: phone })
                }
                2 => Some(Scene::ReportedMail { to: phone }),
                _ => None,
            });
        }
        scenes
    }

    fn perform(&self, scene: Scene, free: &dyn Fn(usize)) -> Vec<SceneRow> {
        match scene {
            Scene::Call { caller, called, third, called_ends } => {
                let third = third.map(|third| &self.actors[third]);
                self.call(&self.actors[caller], &self.actors[called], third, called_ends)
            }
            Scene::Cancel { caller, called } => vec![self.cancel(&self.actors[caller], &self.actors[called])],
            Scene::Absent { caller, called } => {
                self.absent(&self.actors[caller], &self.actors[called], &|| free(caller))
            }
            Scene::Out { caller, number, called_ends } => vec![self.out(&self.actors[caller], number, called_ends)],
            Scene::In { called, called_ends } => vec![self.come_in(&self.actors[called], called_ends)],
            Scene::Nobody { caller } => vec![self.nobody(&self.actors[caller])],
            Scene::Text { from, to } => vec![self.text(&self.actors[from], &self.actors[to])],
            Scene::TextToNobody { from } => vec![self.text_to_nobody(&self.actors[from])],
            Scene::Reported { from, to } => vec![self.reported(&self.actors[from], &self.actors[to])],
            Scene::Long { from, to } => vec![self.long(&self.actors[from], &self.actors[to])],
            Scene::Status { from } => vec![self.status(&self.actors[from])],
            Scene::Full { from, to } => vec![self.full(&self.actors[from], &self.actors[to])],
            Scene::Mails { phone } => self.exchange(&self.actors[phone]),
            Scene::LongMail { to } => vec![self.long_mail(&self.actors[to])],
            Scene::ReportedMail { to } => vec![self.reported_mail(&self.actors[to])],
            Scene::MailToNobody => vec![self.mail_to_nobody()],
            Scene::MailElsewhere => vec![self.mail_elsewhere()],
        }
    }

    pub(super) fn station(&self, actor: &Actor) -> &Station {
        &self.stations[actor.at.load(Ordering::Relaxed) % self.stations.len()]
    }

    pub(super) fn row(
        &self,
        act: Act,
        from: Option<&Actor>,
        to: Option<&Actor>,
        scene: &str,
        expected: &str,
    ) -> SceneRow {
        let number = |actor: Option<&Actor>| actor.map(|actor| actor.number.clone()).unwrap_or_default();
        let cell = |actor: Option<&Actor>| actor.map(|actor| self.station(actor).name.clone()).unwrap_or_default();
        SceneRow {
            act,
            from: number(from),
            from_cell: cell(from),
            to: number(to),
            to_cell: cell(to),
            scene: scene.to_owned(),
            expected: expected.to_owned(),
            ..SceneRow::default()
        }
    }

    // --- Calls ---

    /// Dials, and gives the leg as soon as it is up or over, or rings where that is enough.
    fn dial(
        &self,
        row: &mut SceneRow,
        caller: &Actor,
        number: &str,
        wait: Duration,
        rings: bool,
    ) -> Option<(String, Leg)> {
        if let Some(why) = self.patience.is_out() {
            row.faults.push(why.to_owned());
            return None;
        }
        let station = self.station(caller);
        let call = match station.call(&caller.imsi, number) {
            Ok(call) => call,
            Err(error) => {
                row.faults.push(format!("the phone cannot dial: {error}"));
                return None;
            }
        };
        let is_so = |leg: &Leg| leg.state == State::Up || leg.state.is_over() || (rings && leg.state == State::Ringing);
        let leg = station.leg_when(&call, wait, is_so)?;
        self.patience.note(leg.heard_at.is_some());
        match leg.heard_at {
            None => row.faults.push(format!("no answer to the INVITE, which was sent {} times", leg.invite_count)),
            Some(at) if at - leg.began > FIRST_ANSWER_WAIT => {
                row.faults.push("no answer to the INVITE within a second: it was sent again".into());
            }
            Some(_) => {}
        }
        row.took = leg.rang_at.or(leg.up_at).or(leg.over_at).map(|at| at - leg.began);
        if let (Some(took), true) = (row.took, leg.rang_at.is_some()) {
            row.saw = format!("rang after {:.1} s", took.as_secs_f64());
        }
        if leg.ringing_count > 2 {
            row.faults.push(format!("180 and 183 came {} times", leg.ringing_count));
        }
        if !is_so(&leg) {
            row.faults.push(format!("after {} s neither answered nor refused", wait.as_secs()));
            station.cancel(&call);
            return None;
        }
        Some((call, leg))
    }

    fn call(&self, caller: &Actor, called: &Actor, third: Option<&Actor>, called_ends: bool) -> Vec<SceneRow> {
        let (home, there) = (self.station(caller), self.station(called));
        let place = if home.address() == there.address() { "the same cell" } else { "another cell" };
        let ender = if called_ends { "called one" } else { "caller" };
        let mut rows = vec![self.row(
            Act::Call,
            Some(caller),
            Some(called),
            &format!("{place}, the {ender} hangs up"),
            &format!("rings, both hear each other, the {ender} hangs up"),
        )];
        let row = &mut rows[0];
        there.camp(&called.imsi, Manner::Answers);
        let began = Instant::now();
        let Some((call, leg)) = self.dial(row, caller, &called.number, SETUP_WAIT, false) else { return rows };
        if leg.state != State::Up {
            row.saw = refusal(&leg);
            row.faults.push(format!("not answered: {}", refusal(&leg)));
            return rows;
        }
        let Some((incoming, other)) = there.incoming_when(&called.imsi, began, SOON, |leg| leg.state == State::Up)
        else {
            row.faults.push("answered, although the called phone never rang".into());
            home.hang_up(&call);
            return rows;
        };
        if leg.rang_at.is_none() {
            row.faults.push("the caller heard no ringing: no 180".into());
        }
        if other.shown != caller.number {
            row.faults.push(format!("the called phone shows {:?}, not {:?}", other.shown, caller.number));
        }
        compare_sdp(row, "caller", &leg.ours, &other.theirs);
        compare_sdp(row, "called", &other.ours, &leg.theirs);
        self.talk(row, &leg.ear, &leg.theirs, &other.ear, &other.theirs);
        let busy = third.map(|third| self.busy(third, called));
        let row = &mut rows[0];
        if !there
            .incoming_when(&called.imsi, began, ACK_WAIT, |leg| leg.is_acknowledged)
            .is_some_and(|(_, leg)| leg.is_acknowledged)
        {
            row.faults.push("the called side's 200 was never acknowledged".into());
        }
        // The caller's own ACK is on its way before he can hang up.
        home.leg_when(&call, ACK_WAIT, |leg| leg.is_acknowledged);
        let code = if called_ends { there.hang_up(&incoming) } else { home.hang_up(&call) };
        self.ended(row, code);
        let is_told = |leg: &Leg| leg.ended_by_them;
        let told = match called_ends {
            true => home.leg_when(&call, SOON, is_told),
            false => there.leg_when(&incoming, SOON, is_told),
        };
        if !told.is_some_and(|leg| leg.ended_by_them) {
            row.faults.push("the other side was not told that the call has ended".into());
        }
        row.saw += &format!("; the {ender} hung up");
        rows.extend(busy);
        rows
    }

    /// Calls one who talks.
    fn busy(&self, caller: &Actor, called: &Actor) -> SceneRow {
        let mut row = self.row(Act::Call, Some(caller), Some(called), "the line is busy", "busy: 486, cause 17");
        if let Some((call, leg)) = self.dial(&mut row, caller, &called.number, SETUP_WAIT, false) {
            row.saw = refusal(&leg);
            self.must_be_refused(&mut row, caller, &call, &leg, 486, &[17]);
        }
        row
    }

    fn must_be_refused(&self, row: &mut SceneRow, caller: &Actor, call: &str, leg: &Leg, code: u16, causes: &[u8]) {
        if leg.state == State::Up {
            row.faults.push("answered".into());
            self.station(caller).hang_up(call);
        } else if leg.code != code || !causes.contains(&leg.cause) {
            row.faults.push(format!("{}, not {code}, cause {}", refusal(leg), causes[0]));
        }
    }

    fn cancel(&self, caller: &Actor, called: &Actor) -> SceneRow {
        let mut row =
            self.row(Act::Call, Some(caller), Some(called), "given up while it rings", "rings, and stops ringing");
        let (home, there) = (self.station(caller), self.station(called));
        there.camp(&called.imsi, Manner::Rings);
        let began = Instant::now();
        if let Some((call, leg)) = self.dial(&mut row, caller, &called.number, SETUP_WAIT, true) {
            if leg.state == State::Ringing {
                // A moment, as a caller who loses patience.
                std::thread::sleep(Duration::from_millis(500));
                match home.cancel(&call) {
                    Some(200) => {}
                    code => row.faults.push(format!("the CANCEL was answered {}", code_words(code))),
                }
                let other = there.incoming_when(&called.imsi, began, SOON, |leg| leg.state.is_over());
                match other.map(|(_, leg)| leg.state) {
                    Some(State::Cancelled) => row.saw += "; given up, and the called phone stopped ringing",
                    None => row.faults.push("the called phone never rang".into()),
                    Some(_) => row.faults.push("the called phone goes on ringing".into()),
                }
                let leg = home.leg_when(&call, SOON, |leg| leg.code != 0);
                match leg.map_or(0, |leg| leg.code) {
                    487 => {}
                    0 => row.faults.push("its INVITE was not ended by a 487".into()),
                    code => row.faults.push(format!("its INVITE was ended by {code}, not 487")),
                }
            } else {
                row.saw = refusal(&leg);
                row.faults.push(format!("it did not ring: {}", refusal(&leg)));
                if leg.state == State::Up {
                    home.hang_up(&call);
                }
            }
        }
        there.camp(&called.imsi, Manner::Answers);
        row
    }

    fn nobody(&self, caller: &Actor) -> SceneRow {
        let number = self.talk.nobody.clone().unwrap_or_default();
        let mut row = self.row(Act::Call, Some(caller), None, "nobody's number", "refused: 404, cause 1");
        row.to.clone_from(&number);
        if let Some((call, leg)) = self.dial(&mut row, caller, &number, SETUP_WAIT, false) {
            row.saw = refusal(&leg);
            self.must_be_refused(&mut row, caller, &call, &leg, 404, &[1]);
        }
        row
    }

    fn out(&self, caller: &Actor, number: usize, called_ends: bool) -> SceneRow {
        let number = format!("{}{number:04}", self.talk.outside.as_deref().unwrap_or_default());
        let ender = if called_ends { "called one" } else { "caller" };
        let mut row = self.row(
            Act::Call,
            Some(caller),
            None,
            &format!("out to the trunk, the {ender} hangs up"),
            "the PBX answers, both hear each other",
        );
        (row.to, row.to_cell) = (number.clone(), "trunk".into());
        let (Some(pbx), home) = (&self.pbx, self.station(caller)) else { return row };
        let Some((call, leg)) = self.dial(&mut row, caller, &number, SETUP_WAIT, false) else { return row };
        let line = pbx.incoming_when(&number, Duration::from_millis(200), |_| true);
        if leg.state != State::Up {
            row.saw = refusal(&leg);
            let rang = if line.is_some() { "" } else { "; nothing came to the PBX" };
            row.faults.push(format!("not answered: {}{rang}", refusal(&leg)));
            return row;
        }
        let Some(line) = line else {
            row.faults.push("answered, although nothing came to the PBX".into());
            home.hang_up(&call);
            return row;
        };
        if !line.shown.contains(&caller.number) {
            row.faults.push(format!("the PBX is shown {:?} as the caller, not {}", line.shown, caller.number));
        }
        compare_sdp(&mut row, "caller", &leg.ours, &line.theirs);
        compare_sdp(&mut row, "PBX", &line.ours, &leg.theirs);
        self.talk(&mut row, &leg.ear, &leg.theirs, &line.ear, &line.theirs);
        if !pbx.call_when(&line.call_id, ACK_WAIT, |line| line.is_acknowledged).is_some_and(|line| line.is_acknowledged)
        {
            row.faults.push("the PBX's 200 was never acknowledged".into());
        }
        home.leg_when(&call, ACK_WAIT, |leg| leg.is_acknowledged);
        let (code, told) = match called_ends {
            true => {
                let code = pbx.hang_up(&line.call_id);
                (code, home.leg_when(&call, SOON, |leg| leg.ended_by_them).is_some_and(|leg| leg.ended_by_them))
            }
            false => {
                let code = home.hang_up(&call);
                let line = pbx.call_when(&line.call_id, SOON, |line| line.ended_by_them);
                (code, line.is_some_and(|line| line.ended_by_them))
            }
        };
        self.ended(&mut row, code);
        if !told {
            row.faults.push("the other side was not told that the call has ended".into());
        }
        row.saw += &format!("; the {} hung up", if called_ends { "PBX" } else { "caller" });
        row
    }

    /// A call from outside: the PBX follows the 302 to the base station.
    fn come_in(&self, called: &Actor, called_ends: bool) -> SceneRow {
        let ender = if called_ends { "called one" } else { "caller" };
        let mut row = self.row(
            Act::Call,
            None,
            Some(called),
            &format!("in from the trunk, the {ender} hangs up"),
            "302, then the phone rings, both hear each other",
        );
        (row.from, row.from_cell) = (PBX_NUMBER.into(), "trunk".into());
        let (Some(pbx), there) = (&self.pbx, self.station(called)) else { return row };
        if let Some(why) = self.patience.is_out() {
            row.faults.push(why.to_owned());
            return row;
        }
        let began = Instant::now();
        there.camp(&called.imsi, Manner::Answers);
        let line = match pbx.ring(self.calls, &format!("sip:{}@{}", called.number, self.domain), PBX_NUMBER) {
            Ok(line) => line,
            Err(told) => {
                row.saw = told.text();
                row.faults.push(format!("not answered: {}", told.text()));
                return row;
            }
        };
        let Some((incoming, leg)) = there.incoming_when(&called.imsi, began, SOON, |leg| leg.is_acknowledged) else {
            row.faults.push("answered, although the phone never rang".into());
            pbx.hang_up(&line.call_id);
            return row;
        };
        row.took = leg.rang_at.map(|at| at - began);
        row.saw = format!("302 to {}, rang", there.name);
        if leg.shown != PBX_NUMBER {
            row.faults.push(format!("the phone shows {:?}, not {PBX_NUMBER}", leg.shown));
        }
        compare_sdp(&mut row, "PBX", &line.ours, &leg.theirs);
        compare_sdp(&mut row, "called", &leg.ours, &line.theirs);
        self.talk(&mut row, &line.ear, &line.theirs, &leg.ear, &leg.theirs);
        let (code, told) = match called_ends {
            true => {
                let code = there.hang_up(&incoming);
                let line = pbx.call_when(&line.call_id, SOON, |line| line.ended_by_them);
                (code, line.is_some_and(|line| line.ended_by_them))
            }
            false => {
                let code = pbx.hang_up(&line.call_id);
                let leg = there.leg_when(&incoming, SOON, |leg| leg.ended_by_them);
                (code, leg.is_some_and(|leg| leg.ended_by_them))
            }
        };
        self.ended(&mut row, code);
        if !told {
            row.faults.push("the other side was not told that the call has ended".into());
        }
        row.saw += &format!("; the {ender} hung up");
        row
    }

    fn ended(&self, row: &mut SceneRow, code: Option<u16>) {
        self.patience.note(code.is_some());
        if code != Some(200) {
            row.faults.push(format!("the BYE was answered {}", code_words(code)));
        }
    }

    /// Both speak to where the other's SDP says, and must be heard.
    fn talk(&self, row: &mut SceneRow, one: &Ear, one_got: &[u8], other: &Ear, other_got: &[u8]) {
        let (Some(to_other), Some(to_one)) = (media_of(one_got), media_of(other_got)) else {
            return row.faults.push("an SDP without an address for RTP".into());
        };
        let (one_heard, other_heard) = converse(one, to_other, other, to_one);
        if one_heard >= PACKET_COUNT && other_heard >= PACKET_COUNT {
            row.saw += "; both heard each other";
        } else {
            row.saw += "; NOT heard";
            row.faults.push(format!(
                "of {PACKET_COUNT} packets of speech the caller heard {one_heard} and the called one {other_heard} from the other's port"
            ));
        }
    }

    // --- Texts ---

    /// A text that no other of this rehearsal is like, with characters of both halves of the alphabet.
    fn words(&self, from: &Actor, to: &Actor) -> String {
        let number = self.text_count.fetch_add(1, Ordering::Relaxed);
        format!("{MARK}{}-{number}: {} to {} @ Ñandu [é] 5€", self.run, from.number, to.number)
    }

    /// A text as most are, under a reference of its own.
    pub(super) fn written<'t>(&self, number: &'t str, text: &'t str) -> Written<'t> {
        let reference = self.references.fetch_add(LONG_PARTS, Ordering::Relaxed);
        Written { number, text, reference, report_wanted: false, valid_for: None }
    }

    /// Hands in, and says whether it was taken.
    pub(super) fn hand_in(&self, row: &mut SceneRow, from: &Actor, written: &Written<'_>) -> Option<u16> {
        if let Some(why) = self.patience.is_out() {
            row.faults.push(why.to_owned());
            return None;
        }
        let code = match self.station(from).text(&from.imsi, written) {
            Ok(code) => code,
            Err(error) => {
                row.faults.push(format!("the phone cannot send: {error}"));
                return None;
            }
        };
        self.patience.note(code.is_some());
        row.saw = match code {
            Some(200..=299) => "taken".into(),
            Some(code) => format!("refused with {code}"),
            None => "no answer: the phone shows \"not sent\"".into(),
        };
        if code.is_none() {
            row.faults.push("no answer to the MESSAGE".into());
        }
        code
    }

    pub(super) fn must_be_taken(row: &mut SceneRow, code: Option<u16>) -> bool {
        match code {
            Some(202) => return true,
            Some(code) => row.faults.push(format!("refused with {code}, not taken with 202")),
            None => {}
        }
        false
    }

    /// The text is on the phone, once, with the right number.
    fn must_arrive(&self, row: &mut SceneRow, from: &Actor, to: &Actor, text: &str) {
        let since = Instant::now();
        let found = self.station(to).inbox_when(&to.imsi, ARRIVAL_WAIT, |one| one.text == text);
        let Some(first) = found.first() else {
            let any = self.station(to).inbox().into_iter().filter(|one| one.imsi == to.imsi && one.at >= since);
            let others: Vec<String> = any.map(|one| format!("{:?} from {}", one.text, one.from)).collect();
            let torn = self.station(to).torn(&to.imsi);
            let mut instead: String = torn.iter().map(|(has, of)| format!("; {has} of {of} parts")).collect();
            if !others.is_empty() {
                instead += &format!("; in its place {}", others.join(", "));
            }
            row.saw += "; did not arrive";
            return row.faults.push(format!("not on the phone {} s later{instead}", ARRIVAL_WAIT.as_secs()));
        };
        row.took = Some(first.at.saturating_duration_since(since));
        row.saw += &match first.parts {
            1 => format!("; on the phone, from {}", first.from),
            parts => format!("; on the phone in {parts} parts, from {}", first.from),
        };
        if first.from != from.number {
            row.faults.push(format!("it is from {:?}, not from {:?}", first.from, from.number));
        }
    }

    fn text(&self, from: &Actor, to: &Actor) -> SceneRow {
        let place =
            if self.station(from).address() == self.station(to).address() { "the same cell" } else { "another cell" };
        let mut row = self.row(Act::Text, Some(from), Some(to), place, "taken with 202, and arrives once");
        let text = self.words(from, to);
        let code = self.hand_in(&mut row, from, &self.written(&to.number, &text));
        if Self::must_be_taken(&mut row, code) {
            self.must_arrive(&mut row, from, to, &text);
        }
        row
    }

    /// TP-SRR: the sender's phone gets a STATUS-REPORT, which has the reference of his text.
    fn reported(&self, from: &Actor, to: &Actor) -> SceneRow {
        let mut row = self.row(
            Act::Text,
            Some(from),
            Some(to),
            "a report is asked for",
            "taken with 202, arrives once, and its sender's phone is told so",
        );
        let text = self.words(from, to);
        let written = Written { report_wanted: true, ..self.written(&to.number, &text) };
        let since = Instant::now();
        let code = self.hand_in(&mut row, from, &written);
        if !Self::must_be_taken(&mut row, code) {
            return row;
        }
        self.must_arrive(&mut row, from, to, &text);
        let Some(found) = self.station(from).report_when(&from.imsi, ARRIVAL_WAIT, |one| one.at >= since) else {
            return fail(row, "no report came to the sender".into());
        };
        let report = found.report;
        if (report.reference, report.to.as_str()) != (written.reference, to.number.as_str()) {
            row.faults.push(format!(
                "the report is of text {} to {}, not of text {} to {}",
                report.reference, report.to, written.reference, to.number
            ));
        }
        match report.status {
            0 => row.saw += "; its sender has the report",
            status => row.faults.push(format!("the report says that it did not arrive: status {status:#04x}")),
        }
        row
    }

    fn long(&self, from: &Actor, to: &Actor) -> SceneRow {
        let scene = format!("{LONG_PARTS} parts long");
        let mut row =
            self.row(Act::Text, Some(from), Some(to), &scene, "each part taken with 202; arrives once, whole");
        let mut text = self.words(from, to);
        // 160 septets fit in one message, 306 in two, 459 in three.
        for line in 1..=17 {
            text += &format!("\n{line}. one after the other");
        }
        text.truncate(text.char_indices().nth(400).map_or(text.len(), |(at, _)| at));
        let code = self.hand_in(&mut row, from, &self.written(&to.number, &text));
        if Self::must_be_taken(&mut row, code) {
            self.must_arrive(&mut row, from, to, &text);
        }
        row
    }

    /// Whoever asks the message centre is answered.
    fn status(&self, from: &Actor) -> SceneRow {
        let number = self.talk.status.clone().unwrap_or_default();
        let mut row = self.row(
            Act::Text,
            Some(from),
            None,
            "the message centre's own number",
            "taken with 202, and answered in words",
        );
        row.to.clone_from(&number);
        let since = Instant::now();
        let text = format!("{MARK}{}: how are you?", self.run);
        let code = self.hand_in(&mut row, from, &self.written(&number, &text));
        if Self::must_be_taken(&mut row, code) && !self.is_told(&mut row, from, since, ARRIVAL_WAIT) {
            row.faults.push("no answer came to the sender".into());
        }
        row
    }

    /// OpenBTS shows a full memory as 400, like all else that a phone refuses; that there is room again the phone says itself.
    fn full(&self, from: &Actor, to: &Actor) -> SceneRow {
        let mut row = self.row(
            Act::Text,
            Some(from),
            Some(to),
            "no room on the phone",
            "taken with 202; arrives once when the phone says that it has room",
        );
        let there = self.station(to);
        let text = self.words(from, to);
        let refused_before = there.refusal_count(&to.imsi);
        there.fill_up(&to.imsi);
        let code = self.hand_in(&mut row, from, &self.written(&to.number, &text));
        let is_taken = Self::must_be_taken(&mut row, code);
        if is_taken {
            match there.refused_when(&to.imsi, ARRIVAL_WAIT, refused_before) {
                true => row.saw += "; refused by the phone",
                false => row.faults.push("the phone was not asked before it had room".into()),
            }
        }
        std::thread::sleep(ROOM_AFTER);
        let reference = self.references.fetch_add(LONG_PARTS, Ordering::Relaxed);
        match there.make_room(&to.imsi, reference) {
            Ok(Some(200..=299)) => {}
            Ok(code) => row.faults.push(format!("that there is room was answered {}", code_words(code))),
            Err(error) => row.faults.push(format!("the phone cannot send: {error}")),
        }
        if is_taken {
            self.must_arrive(&mut row, from, to, &text);
        }
        row
    }

    /// Whether the message centre has said something to this phone since then; what this rehearsal's phones and writers write has [`MARK`] in it.
    pub(super) fn is_told(&self, row: &mut SceneRow, phone: &Actor, since: Instant, wait: Duration) -> bool {
        let is_words = |one: &Text| one.at >= since && !one.text.contains(MARK) && one.text.contains(' ');
        let found = self.station(phone).inbox_when(&phone.imsi, wait, is_words);
        let Some(words) = found.first() else { return false };
        row.took = Some(words.at - since);
        let mut shown: String = words.text.chars().take(SHOWN_MAX).collect();
        if shown.len() < words.text.len() {
            shown += "..";
        }
        row.saw += &format!("; told by {}: {shown:?}", words.from);
        true
    }

    /// "404 and a text in words".
    fn text_to_nobody(&self, from: &Actor) -> SceneRow {
        let number = self.talk.nobody_text.clone().unwrap_or_default();
        let mut row = self.row(
            Act::Text,
            Some(from),
            None,
            "nobody's number",
            match self.talk.explains {
                true => "refused with 404, and a text in words to the sender",
                false => "refused with 404",
            },
        );
        row.to.clone_from(&number);
        let since = Instant::now();
        let text = format!("{MARK}{}: to nobody", self.run);
        match self.hand_in(&mut row, from, &self.written(&number, &text)) {
            Some(404) => {}
            Some(code @ 200..=299) => return fail(row, format!("taken with {code}, not refused with 404")),
            Some(code) => row.faults.push(format!("refused with {code}, not 404")),
            None => return row,
        }
        if self.talk.explains && !self.is_told(&mut row, from, since, ARRIVAL_WAIT) {
            row.faults.push("no text in words came to the sender".into());
        }
        row
    }

    // --- One who is not there ---

    fn absent(&self, caller: &Actor, called: &Actor, free_caller: &dyn Fn()) -> Vec<SceneRow> {
        let is_off = called.presence == Presence::Off;
        let what = if is_off { "switched off" } else { "battery out" };
        let mut text_row = self.row(
            Act::Text,
            Some(caller),
            Some(called),
            &format!("{what}, comes back"),
            "taken with 202; arrives once when the phone comes back",
        );
        let there = self.station(called);
        let asked_before = there.message_count(&called.imsi);
        // It is the first to wait; those behind it must not go with it.
        let mut brief = (is_off && self.talk.queue_max >= ABSENT_TEXTS).then(|| self.brief(caller, called));
        let text = self.words(caller, called);
        let code = self.hand_in(&mut text_row, caller, &self.written(&called.number, &text));
        let taken_at = Instant::now();
        let is_taken = Self::must_be_taken(&mut text_row, code);

        let mut call_row = self.row(Act::Call, Some(caller), Some(called), what, "paged nowhere: 480, cause 18");
        let began = Instant::now();
        if let Some((call, leg)) = self.dial(&mut call_row, caller, &called.number, SETUP_WAIT, false) {
            call_row.saw = refusal(&leg);
            // The base station's own 27 passes unchanged.
            self.must_be_refused(&mut call_row, caller, &call, &leg, 480, &[18, 27]);
            if !is_off {
                self.must_be_asked_everywhere(&mut call_row, called, began);
            }
        }
        if let Some(brief) = &mut brief {
            self.must_be_given_up(brief, caller);
        }
        free_caller();

        if is_taken {
            if !is_off {
                // Until the box takes it for absent; meanwhile it must not page for it again and again.
                while taken_at.elapsed() < self.talk.silence && self.patience.is_out().is_none() {
                    std::thread::sleep(Duration::from_millis(200));
                }
                let count = there.message_count(&called.imsi) - asked_before;
                if count > 2 {
                    text_row
                        .faults
                        .push(format!("its base station was asked {count} times in {} s", self.talk.silence.as_secs()));
                }
            }
            let next = (called.at.load(Ordering::Relaxed) + 1) % self.stations.len();
            let seen = self.stations[next].register(&called.phone);
            self.patience.note(seen.code.is_some());
            if seen.saw == Saw::Registered {
                called.at.store(next, Ordering::Relaxed);
                there.leave(&called.imsi);
                self.stations[next].camp(&called.imsi, Manner::Answers);
                text_row.saw += &format!("; back at {}", self.stations[next].name);
                self.must_arrive(&mut text_row, caller, called, &text);
                if let Some(brief) = &mut brief
                    && !self
                        .station(called)
                        .inbox_when(&called.imsi, Duration::ZERO, |one| one.text == brief.text)
                        .is_empty()
                {
                    brief.row.faults.push("it came all the same, after its time".into());
                }
            } else {
                text_row.faults.push(format!("it could not register again at {}", self.stations[next].name));
            }
        }
        [Some(call_row), brief.map(|brief| brief.row), Some(text_row)].into_iter().flatten().collect()
    }

    /// A text whose time ends before its phone comes back.
    fn brief(&self, caller: &Actor, called: &Actor) -> Brief {
        let mut row = self.row(
            Act::Text,
            Some(caller),
            Some(called),
            &format!("switched off, valid for {} s", VALID_FOR.as_secs()),
            match self.talk.explains {
                true => "taken with 202; never arrives, and its sender is told in words",
                false => "taken with 202; never arrives",
            },
        );
        let text = format!("{MARK}{}: {} to {} at once", self.run, caller.number, called.number);
        let since = Instant::now();
        let written = Written { valid_for: Some(VALID_FOR), ..self.written(&called.number, &text) };
        let code = self.hand_in(&mut row, caller, &written);
        let is_taken = Self::must_be_taken(&mut row, code);
        Brief { row, text, since, is_taken }
    }

    fn must_be_given_up(&self, brief: &mut Brief, caller: &Actor) {
        if !brief.is_taken {
            return;
        }
        let ends_at = brief.since + VALID_FOR;
        if self.talk.explains {
            let wait = ends_at.saturating_duration_since(Instant::now()) + ARRIVAL_WAIT;
            if !self.is_told(&mut brief.row, caller, brief.since, wait) {
                brief.row.faults.push("no text in words came to the sender when its time was over".into());
            }
        }
        std::thread::sleep(ends_at.saturating_duration_since(Instant::now()));
    }

    /// "the other base stations of the phone's location area … are tried (any base station pages any IMSI)".
    fn must_be_asked_everywhere(&self, row: &mut SceneRow, called: &Actor, began: Instant) {
        let home = called.at.load(Ordering::Relaxed);
        let mut asked = Vec::new();
        for (index, station) in self.stations.iter().enumerate() {
            let is_near = index == home || (self.areas[index].is_some() && self.areas[index] == self.areas[home]);
            match station.incoming(&called.imsi, began).is_empty() {
                false => asked.push(station.name.clone()),
                true if is_near => row.faults.push(format!("{} did not page for it", station.name)),
                true => {}
            }
        }
        if !asked.is_empty() {
            row.saw += &format!("; paged at {}", asked.join(" and "));
        }
    }

    /// What must be so when all is over: no call is left, no text and no mail arrived twice.
    pub fn leftovers(&self) -> Vec<String> {
        let mut left = Vec::new();
        let number = |imsi: &Imsi| {
            let actor = self.actors.iter().find(|actor| actor.imsi == *imsi);
            actor.map_or_else(|| imsi.to_string(), |actor| actor.number.clone())
        };
        let mut texts: HashMap<(Imsi, String), u32> = HashMap::new();
        for station in self.stations {
            left.extend(
                station
                    .open_legs()
                    .iter()
                    .map(|imsi| format!("{} still has a call of {} when all have hung up", station.name, number(imsi))),
            );
            for text in station.inbox() {
                if text.text.contains(&format!("{MARK}{}", self.run)) {
                    *texts.entry((text.imsi, text.text)).or_default() += 1;
                }
            }
        }
        let twice = texts.iter().filter(|(_, count)| **count > 1);
        left.extend(twice.map(|((imsi, text), count)| format!("{} got {text:?} {count} times", number(imsi))));
        if let Some(pbx) = &self.pbx {
            left.extend(pbx.open_lines().iter().map(|line| format!("the PBX still has its call to {line}")));
            left.extend(pbx.complaints().into_iter().map(|what| format!("the PBX got {what}")));
        }
        left.extend(self.mail_leftovers());
        left
    }
}

/// A text that is not to arrive.
struct Brief {
    row: SceneRow,
    text: String,
    since: Instant,
    is_taken: bool,
}

pub(super) fn fail(mut row: SceneRow, why: String) -> SceneRow {
    row.faults.push(why);
    row
}

fn compare_sdp(row: &mut SceneRow, whose: &str, sent: &[u8], arrived: &[u8]) {
    if sent != arrived {
        let why = if arrived.is_empty() { "did not arrive" } else { "did not arrive as it was sent" };
        row.faults.push(format!("the SDP of the {whose} {why}"));
    }
}

/// How a call that was not answered ended for the caller.
fn refusal(leg: &Leg) -> String {
    match leg.code {
        0 => "no answer".into(),
        code => {
            let words = match leg.cause {
                1 => "nobody's number",
                17 => "busy",
                18 | 20 | 27 => "not reachable",
                19 => "nobody answers",
                21 => "refused",
                34 | 41 | 42 => "no way through",
                _ => "failed",
            };
            format!("{words}: {code}, cause {}", leg.cause)
        }
    }
}

fn code_words(code: Option<u16>) -> String {
    code.map_or_else(|| "by nobody".into(), |code| code.to_string())
}
