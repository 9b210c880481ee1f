//! A REGISTER, from the base station to every replica and back: many writes, one answer.
//!
//! Knows: the registrations under way and how many replicas have each. The way of one: admit (challenge or verify), gather the
//! newest record, decide once, tell every replica of the shard, answer at the W-th yes, and note who missed it.
//! Does not know: where replicas are, or how they are reached ([`Replicas`]).
//! Limits: registrations under way are transactions (`transaction_count_max`); each ends by `write_deadline`.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;

use super::access::{Challenges, TooMany, Verdict, nonce_base64, nonce_hex};
use super::asking::{Asker, Write};
use super::decide::{Ask, AskedContact, Contacts, Facts, Kind, Outcome, Refusal, decide_register};
use super::merge::{Record, merge};
use super::replicas::Replicas;
use crate::event::Event;
use crate::gsm::auc::{Auth, Kc};
use crate::gsm::form::TextForm;
use crate::ident::{CellId, Imsi, Msisdn, Plmn};
use crate::seam::{After, Inner, ReplyTo, Timer, TransactionKey};
use crate::sip::header::{HeaderName, Uri, cgi_3gpp};
use crate::sip::parse::{self, Message, parse};
use crate::sip::write::{DATAGRAM_BYTES_MAX, Writer, echo_bytes};
use crate::site::{Request, World};
use crate::store::StoreId;
use crate::time::{Instant, Stamp};

/// Who speaks, as far as answers differ.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Dialect {
    OpenBts,
    /// Known by `auth-gsm` in Supported; reads 403 as illegal MS and 410 as unknown in HLR.
    Yate,
    SipPhone,
}

/// Why a replica of ours does not have a write.
pub const STORE_REFUSED: &str = "its store refused";

/// Our *no* to a REGISTER; it knows its answer in each dialect (DESIGN section 6).
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum No {
    /// With the reject cause for this PLMN.
    UnknownSubscriber {
        cause: u8,
    },
    /// A TMSI of a YateBTS: "TMSI unknown, ask for IMSI" (wire.md 11).
    TmsiUnknown,
    WrongAnswer,
    NonceUnknown,
    Barred,
    TooFewReplicas,
    Overload,
    BadRequest(&'static str),
    Decided(Refusal),
}

struct Answer {
    code: u16,
    phrase: &'static str,
    cause: Option<u8>,
}

impl No {
    fn answer(&self, dialect: Dialect) -> Answer {
        let (openbts, yate, phone) = match self {
            No::UnknownSubscriber { cause } => ((404, Some(*cause)), 488, 404),
            No::TmsiUnknown => ((404, Some(4)), 481, 404),
            // 401 without a challenge, as the old pair does: with one, OpenBTS's FailMode would let the phone in.
            No::WrongAnswer => ((401, Some(4)), 488, 403),
            No::NonceUnknown => ((503, Some(17)), 500, 503),
            No::Barred => ((403, Some(13)), 488, 403),
            No::TooFewReplicas => ((504, Some(22)), 500, 504),
            No::Overload => ((503, Some(22)), 500, 503),
            No::BadRequest(_) => ((400, Some(17)), 500, 400),
            No::Decided(Refusal::IntervalTooBrief { .. }) => ((423, None), 423, 423),
            No::Decided(Refusal::OutOfOrder) => ((400, Some(17)), 500, 400),
            No::Decided(Refusal::TooManyContacts) => ((403, Some(17)), 500, 403),
        };
        let (code, cause) = match dialect {
            Dialect::OpenBts => openbts,
            Dialect::Yate => (yate, None),
            Dialect::SipPhone => (phone, None),
        };
        Answer { code, phrase: phrase(code), cause }
    }

    fn why(&self) -> &'static str {
        match self {
            No::UnknownSubscriber { .. } => "nobody provisioned this IMSI",
            No::TmsiUnknown => "a TMSI, where an IMSI is needed",
            No::WrongAnswer => "the SIM's answer is wrong: its Ki or its algorithm differs from the one configured",
            No::NonceUnknown => "the challenge it answers is not one of ours, was used, or is too old",
            No::Barred => "the subscriber is barred",
            No::TooFewReplicas => "fewer replicas than the write quorum had it in time",
            No::Overload => "overload, or the disk is full",
            No::BadRequest(why) => why,
            No::Decided(Refusal::IntervalTooBrief { .. }) => "it asks for an expiry below the minimum",
            No::Decided(Refusal::OutOfOrder) => "it is older than the binding: same Call-ID, smaller CSeq",
            No::Decided(Refusal::TooManyContacts) => "it names more contacts at once than may be bound",
        }
    }
}

fn phrase(code: u16) -> &'static str {
    match code {
        400 => "Bad Request",
        401 => "Unauthorized",
        403 => "Forbidden",
        404 => "Not Found",
        423 => "Interval Too Brief",
        481 => "Call/Transaction Does Not Exist",
        488 => "Not Acceptable Here",
        500 => "Server Internal Error",
        503 => "Service Unavailable",
        504 => "Server Time-out",
        _ => "Refused",
    }
}

/// What is new about a phone that has registered: whether it is to be welcomed.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Arrival {
    /// It was never here before: so many replicas that may be believed had neither a binding of it nor the memory of one that no promise
    /// to it can have been made. Where that is not certain, this is no first time.
    pub first: bool,
    /// The network of its cell, where the base station names that.
    pub network: Option<Plmn>,
    /// That is another one than of the binding that it had.
    pub moved_network: bool,
}

/// The front end's registrar.
#[derive(Default)]
pub struct Front {
    challenges: Challenges,
    under_way: BTreeMap<u64, Registration>,
    by_imsi: BTreeMap<Imsi, Vec<u64>>,
    count: u64,
}

/// One REGISTER under way.
struct Registration {
    bytes: Vec<u8>,
    from: SocketAddr,
    to: ReplyTo,
    key: TransactionKey,
    dialect: Dialect,
    imsi: Imsi,
    kc: Option<Kc>,
    ask: Ask,
    started_at: Instant,
    state: State,
}

enum State {
    /// No replica is here: one elsewhere is asked for the newest record. Those not asked yet, nearest last.
    Asking {
        left: Vec<usize>,
    },
    /// Nothing is written; what is told waits until it is on the disk it was read from.
    Telling(Record),
    Writing(Box<Writing>),
}

/// How far the phone's answer is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Said {
    Nothing,
    /// Enough replicas have it; the yes waits for the node's own store.
    Promised,
    Yes,
    No,
}

struct Writing {
    delta: Record,
    /// What is bound once the delta is merged: what the phone is told.
    bound: Record,
    kind: Kind,
    /// By replica: `None` while it has said nothing.
    said: BTreeMap<usize, Option<bool>>,
    quorum: usize,
    answer: Said,
    /// A store of ours would not take it: the disk is full, or it would have had to wait.
    refused: bool,
    restamped: bool,
    deadline: Instant,
    /// Commits of the node's own store that the yes waits for: a new reservation of the clock, hints.
    after: After,
    /// Who waits for this phone, by the word of a replica; told once, when the phone has been told (DESIGN section 4).
    alert: BTreeSet<SocketAddr>,
    /// What the centre is to be told, until it is; `first` as far as the record says that this was decided against.
    arrival: Option<Arrival>,
    /// Replicas that may be believed, and had nothing of this phone before.
    knew_nothing: BTreeSet<usize>,
}

impl Front {
    pub fn under_way(&self) -> usize {
        self.under_way.len()
    }

    pub fn challenge_count(&self) -> usize {
        self.challenges.len()
    }

    /// Forgets what is too old.
    pub fn housekeeping(&mut self, w: &World<'_, '_>) {
        self.challenges.expire(w.ctx.now, w.site.settings.registrar.challenge_life);
    }

    /// Whether this replica still owes us a yes for a write of this AOR that the phone was already told: then it is not read from.
    pub fn is_owed(&self, imsi: Imsi, replica: usize) -> bool {
        let writes = self.by_imsi.get(&imsi).into_iter().flatten();
        writes.filter_map(|id| self.under_way.get(id)).any(|registration| match &registration.state {
            State::Writing(writing) => writing.answer == Said::Yes && writing.said.get(&replica) == Some(&None),
            State::Asking { .. } | State::Telling(_) => false,
        })
    }

    /// A REGISTER from a base station (or from a SIP phone at its address).
    pub fn register(&mut self, w: &mut World<'_, '_>, replicas: &mut Replicas, request: &Request<'_>) {
        let dialect = dialect(request.message);
        let (imsi, subject) = match subject(w, request.message) {
            Ok(found) => found,
            Err((imsi, no)) => return refuse(w, request, dialect, imsi, &no),
        };
        let ask = match read_ask(request, dialect) {
            Ok(ask) if !leaves_room(request.message, &ask) => {
                return refuse(
                    w,
                    request,
                    dialect,
                    Some(imsi),
                    &No::BadRequest("its headers leave no room for an answer"),
                );
            }
            Ok(ask) => ask,
            Err(why) => return refuse(w, request, dialect, Some(imsi), &No::BadRequest(why)),
        };
        let kc = match self.admit(w, request, imsi, &subject, &ask) {
            Admission::Yes(kc) => kc,
            Admission::No(no) => return refuse(w, request, dialect, Some(imsi), &no),
            Admission::Challenge(rand) => return challenge(w, request, dialect, imsi, &rand),
        };
        let Some(shard) = w.site.map.shard_of(&imsi) else {
            return refuse(w, request, dialect, Some(imsi), &No::TooFewReplicas);
        };
        self.count += 1;
        let id = self.count;
        let registration = Registration {
            bytes: request.bytes.to_vec(),
            from: request.from,
            to: request.to,
            key: request.key,
            dialect,
            imsi,
            kc,
            ask,
            started_at: w.ctx.now,
            state: State::Asking { left: Vec::new() },
        };
        self.under_way.insert(id, registration);
        self.by_imsi.entry(imsi).or_default().push(id);
        match replicas.read_local(w, shard, imsi) {
            Ok(Some(old)) => self.decide(w, replicas, id, old),
            Ok(None) => {
                let left = replicas.in_order(&w.site.settings.shards[shard].replicas, imsi);
                self.ask_next(w, replicas, id, left);
            }
            Err(_) => self.finish_no(w, id, &No::Overload),
        }
    }

    /// Asks the next replica elsewhere for the newest record; with nobody left the phone is told to come back.
    fn ask_next(&mut self, w: &mut World<'_, '_>, replicas: &mut Replicas, id: u64, mut left: Vec<usize>) {
        let Some(registration) = self.under_way.get_mut(&id) else { return };
        while let Some(index) = left.pop() {
            if replicas.query(w, index, registration.imsi, Asker::Register(id)) {
                registration.state = State::Asking { left };
                return;
            }
        }
        self.finish_no(w, id, &No::TooFewReplicas);
    }

    /// A replica elsewhere told its record, or nothing.
    pub fn told_record(&mut self, w: &mut World<'_, '_>, replicas: &mut Replicas, id: u64, record: Option<Record>) {
        let Some(registration) = self.under_way.get_mut(&id) else { return };
        let State::Asking { left } = &mut registration.state else { return };
        let left = std::mem::take(left);
        match record {
            Some(record) => self.decide(w, replicas, id, record),
            None => self.ask_next(w, replicas, id, left),
        }
    }

    /// Decides, against what the replica has and what we ourselves have written since, and tells every replica of the shard.
    fn decide(&mut self, w: &mut World<'_, '_>, replicas: &mut Replicas, id: u64, old: Record) {
        let Some(registration) = self.under_way.get(&id) else { return };
        let imsi = registration.imsi;
        let Some(shard) = w.site.map.shard_of(&imsi) else { return };
        let old = self.with_own_writes(imsi, old);
        let wall = w.wall();
        // Marks too: the phone's return is newer than the attempt which missed it, whoever's clock goes ahead.
        if w.observe(old.latest()).is_err() {
            w.event(Event::StampAhead { from: registration.from });
        }
        let (stamp, reserved) = match w.stamp() {
            Ok(stamp) => stamp,
            Err(_) => return self.finish_no(w, id, &No::Overload),
        };
        let facts = Facts { old: &old, now_ms: wall.ms, stamp, limits: &w.site.settings.registrar };
        match decide_register(&registration.ask, facts) {
            Err(refusal) => self.finish_no(w, id, &No::Decided(refusal)),
            Ok(outcome @ (Outcome::Told | Outcome::DetachIgnored)) => {
                if outcome == Outcome::DetachIgnored {
                    w.event(Event::DetachIgnored { imsi });
                }
                // What is told was read from stores that may not have synced it yet.
                let mut after = After::nothing();
                // A closed one syncs no more, and nothing was read from it.
                let members = &w.site.settings.shards[shard].replicas;
                for index in members.iter().filter(|index| replicas.open_local(**index).is_some()) {
                    let hint = replicas.has_missed(*index, imsi).then_some(StoreId::Node);
                    for store in [Some(StoreId::Replica(*index as u16)), hint].into_iter().flatten() {
                        if let Some(commit) = w.unsynced(store) {
                            after = after.and(commit);
                        }
                    }
                }
                let deadline = w.ctx.now + w.site.settings.registrar.write_deadline;
                if let Some(registration) = self.under_way.get_mut(&id) {
                    registration.state = State::Telling(old);
                }
                w.timers.at(deadline, Timer::Register(id));
                w.ctx.out.after(after, Inner::Promised { register: id });
            }
            Ok(Outcome::Write { delta, kind }) => {
                let after = reserved.map_or(After::nothing(), |commit| After::nothing().and(commit));
                let members = &w.site.settings.shards[shard].replicas;
                let deadline = w.ctx.now + w.site.settings.registrar.write_deadline;
                let here = members.iter().filter(|index| !replicas.is_remote(**index));
                let knew_nothing =
                    here.copied().filter(|index| old.is_of_marks() && replicas.is_believed(*index, imsi)).collect();
                let writing = Writing {
                    arrival: matches!(kind, Kind::Bound { .. }).then(|| arrival(&registration.ask, &old)),
                    knew_nothing,
                    delta: delta.clone(),
                    bound: merge(old, &delta),
                    kind,
                    said: members.iter().map(|index| (*index, None)).collect(),
                    quorum: w.site.settings.shards[shard].write_quorum,
                    answer: Said::Nothing,
                    refused: false,
                    restamped: false,
                    deadline,
                    after,
                    alert: BTreeSet::new(),
                };
                if let Some(registration) = self.under_way.get_mut(&id) {
                    registration.state = State::Writing(Box::new(writing));
                }
                w.timers.at(deadline, Timer::Register(id));
                for index in members {
                    replicas.write(w, *index, imsi, &delta, Write::Register(id), after);
                }
            }
        }
    }

    /// Our own writes under way are newer than what a replica elsewhere may have told.
    fn with_own_writes(&self, imsi: Imsi, old: Record) -> Record {
        let writes = self.by_imsi.get(&imsi).into_iter().flatten().filter_map(|id| self.under_way.get(id));
        writes.fold(old, |old, registration| match &registration.state {
            State::Writing(writing) => merge(old, &writing.delta),
            State::Asking { .. } | State::Telling(_) => old,
        })
    }

    /// A replica has a write on its disk.
    pub fn written(
        &mut self,
        w: &mut World<'_, '_>,
        replicas: &mut Replicas,
        id: u64,
        replica: usize,
        older_than: Option<Stamp>,
        alert: Vec<SocketAddr>,
    ) {
        let Some(registration) = self.under_way.get_mut(&id) else { return };
        let State::Writing(writing) = &mut registration.state else { return };
        let mut alert = alert;
        alert.retain(|owner| writing.alert.insert(*owner));
        if writing.answer == Said::Yes && !alert.is_empty() {
            let imsi = registration.imsi;
            w.ctx.out.after(After::nothing(), Inner::Returned { imsi, owners: alert, registered: false });
        }
        if let Some(newer) = older_than
            && !writing.restamped
            && writing.answer == Said::Nothing
            // A later write of our own is newer by right: the phone has moved on.
            && newer.front != w.clock.stamps.front()
        {
            return self.restamp(w, replicas, id, newer);
        }
        if let Some(said) = writing.said.get_mut(&replica) {
            *said = Some(true);
        }
        self.count_votes(w, id);
    }

    /// A replica knew a newer write, by a front end whose clock is ahead: "a write answered *older* is stamped anew once" (promise 9).
    fn restamp(&mut self, w: &mut World<'_, '_>, replicas: &mut Replicas, id: u64, newer: Stamp) {
        if w.observe(newer).is_err() {
            w.event(Event::StampAhead { from: self.under_way[&id].from });
        }
        let Ok((stamp, reserved)) = w.stamp() else { return self.tell_no(w, id, &No::Overload) };
        // Under a new number: a yes to the older stamp, which may still be on its way, is none to this one.
        let Some(mut registration) = self.forget(id) else { return };
        self.count += 1;
        let id = self.count;
        let State::Writing(writing) = &mut registration.state else { return };
        writing.restamped = true;
        // Some replica knew it.
        writing.arrival.iter_mut().for_each(|arrival| arrival.first = false);
        if let Some(commit) = reserved {
            writing.after = writing.after.and(commit);
        }
        if writing.delta.clear_stamp != Stamp::ZERO {
            writing.delta.clear_stamp = stamp;
        }
        for entry in writing.delta.contacts.values_mut() {
            entry.stamp = stamp;
        }
        for said in writing.said.values_mut() {
            *said = None;
        }
        let (imsi, delta, after) = (registration.imsi, writing.delta.clone(), writing.after);
        let members: Vec<usize> = writing.said.keys().copied().collect();
        w.timers.at(writing.deadline, Timer::Register(id));
        self.under_way.insert(id, registration);
        self.by_imsi.entry(imsi).or_default().push(id);
        w.event(Event::WriteRestamped { imsi });
        for index in members {
            replicas.write(w, index, imsi, &delta, Write::Register(id), after);
        }
    }

    /// A replica elsewhere, which has a write now, had nothing of this phone before.
    pub fn knew_nothing(&mut self, replicas: &Replicas, id: u64, replica: usize) {
        if let Some(registration) = self.under_way.get_mut(&id)
            && let State::Writing(writing) = &mut registration.state
            && replicas.is_believed(replica, registration.imsi)
        {
            writing.knew_nothing.insert(replica);
        }
    }

    /// Tells of a phone that has been told yes, as soon as it is clear whether this is its first time: as long as that hangs on replicas
    /// which have not spoken yet, it is waited for them.
    fn arrive(&mut self, w: &mut World<'_, '_>, id: u64) {
        let Some(registration) = self.under_way.get_mut(&id) else { return };
        let imsi = registration.imsi;
        let State::Writing(writing) = &mut registration.state else { return };
        let (Said::Yes, Some(mut arrival)) = (writing.answer, writing.arrival) else { return };
        // As many as must agree on any *no* (promise 2).
        let needed = writing.said.len() + 1 - writing.quorum;
        let silent = |(index, said): &(&usize, &Option<bool>)| said.is_none() && !writing.knew_nothing.contains(*index);
        let silent = writing.said.iter().filter(silent).count();
        let sure = writing.knew_nothing.len();
        if arrival.first && sure < needed && sure + silent >= needed {
            return;
        }
        writing.arrival = None;
        arrival.first &= sure >= needed;
        if arrival.first {
            w.event(Event::FirstSeen { imsi });
        }
        if let (true, Some(network)) = (arrival.moved_network, arrival.network) {
            w.event(Event::NetworkChanged { imsi, network });
        }
        w.ctx.out.after(After::nothing(), Inner::Arrived { imsi, arrival });
    }

    /// A replica does not have a write: it is noted as behind before anything is promised without it.
    pub fn not_written(
        &mut self,
        w: &mut World<'_, '_>,
        replicas: &mut Replicas,
        id: u64,
        replica: usize,
        why: &'static str,
    ) {
        let Some(registration) = self.under_way.get_mut(&id) else { return };
        let State::Writing(writing) = &mut registration.state else { return };
        let Some(said) = writing.said.get_mut(&replica) else { return };
        if said.is_some() {
            return;
        }
        *said = Some(false);
        writing.refused |= why == STORE_REFUSED;
        match replicas.missed(w, replica, registration.imsi, &writing.delta, why) {
            Ok(commit) => writing.after = writing.after.and(commit),
            // After a crash nobody would know that it is behind: nothing is promised without it.
            Err(_) => self.tell_no(w, id, &No::Overload),
        }
        self.count_votes(w, id);
    }

    /// The W-th yes answers the phone; when all have spoken, nothing is under way any more.
    ///
    /// A phone that is told no is forgotten no sooner: who has not spoken may have missed the write, and is noted as behind then.
    fn count_votes(&mut self, w: &mut World<'_, '_>, id: u64) {
        let Some(registration) = self.under_way.get_mut(&id) else { return };
        let State::Writing(writing) = &mut registration.state else { return };
        let yes = writing.said.values().filter(|said| **said == Some(true)).count();
        let open = writing.said.values().filter(|said| said.is_none()).count();
        let (quorum, answer) = (writing.quorum, writing.answer);
        if answer == Said::Nothing && yes >= quorum {
            writing.answer = Said::Promised;
            w.ctx.out.after(writing.after, Inner::Promised { register: id });
        } else if answer == Said::Nothing && yes + open < quorum {
            // Disks that are full, rather than replicas that are silent: 503, and the phone tries again (DESIGN section 6).
            let no = if writing.refused { No::Overload } else { No::TooFewReplicas };
            self.tell_no(w, id, &no);
        }
        self.arrive(w, id);
        self.forget_if_done(id);
    }

    /// Everything that the yes was waiting for is on the disk.
    pub fn promised(&mut self, w: &mut World<'_, '_>, id: u64) {
        let Some(registration) = self.under_way.get_mut(&id) else { return };
        match &mut registration.state {
            State::Asking { .. } => {}
            State::Telling(record) => {
                let record = std::mem::take(record);
                if let Some(registration) = self.forget(id) {
                    send_yes(w, &registration, &record);
                }
            }
            State::Writing(writing) => {
                if writing.answer != Said::Promised {
                    return;
                }
                writing.answer = Said::Yes;
                let (kind, bound) = (writing.kind, std::mem::take(&mut writing.bound));
                let elapsed_us = u64::try_from((w.ctx.now - registration.started_at).as_micros()).unwrap_or(u64::MAX);
                let (imsi, from) = (registration.imsi, registration.from);
                w.event(match kind {
                    Kind::Bound { moved } => Event::Registered { imsi, from, moved, elapsed_us },
                    Kind::Removed => Event::Detached { imsi },
                });
                // The phone first, then those who have waited for it.
                let owners = writing.alert.iter().copied().collect();
                send_yes(w, registration, &bound);
                if matches!(kind, Kind::Bound { .. }) {
                    w.ctx.out.after(After::nothing(), Inner::Returned { imsi, owners, registered: true });
                }
                self.arrive(w, id);
                self.forget_if_done(id);
            }
        }
    }

    /// The disk that the yes was waiting for has failed.
    pub fn not_promised(&mut self, w: &mut World<'_, '_>, id: u64) {
        self.tell_no(w, id, &No::Overload);
        self.forget_if_done(id);
    }

    /// `write_deadline` has passed: those who have said nothing missed it, and a phone that is still waiting is told 504.
    pub fn deadline(&mut self, w: &mut World<'_, '_>, replicas: &mut Replicas, id: u64) {
        let Some(registration) = self.under_way.get(&id) else { return };
        if let State::Writing(writing) = &registration.state {
            let silent: Vec<usize> =
                writing.said.iter().filter(|(_, said)| said.is_none()).map(|(index, _)| *index).collect();
            for index in silent {
                self.not_written(w, replicas, id, index, "it has not synced it in time");
            }
        }
        self.tell_no(w, id, &No::TooFewReplicas);
        self.forget(id);
        w.ctx.out.withdraw(Write::Register(id));
    }

    /// Challenge, or verify, or believe.
    fn admit(
        &mut self,
        w: &mut World<'_, '_>,
        request: &Request<'_>,
        imsi: Imsi,
        subject: &Subject,
        ask: &Ask,
    ) -> Admission {
        // "IMSI DETACH sends the same REGISTER with expires=0, never with Authorization" (wire.md 1.3): it is believed from a base
        // station, for the contact that it names; decide_register ignores it for any other.
        let detaches =
            matches!(&ask.contacts, Contacts::Some(all) if all.iter().all(|asked| asked.expires_s == Some(0)));
        if matches!(subject.auth, Auth::None) || (detaches && ask.base_station) {
            return Admission::Yes(None);
        }
        let settings = &w.site.settings.registrar;
        let source = request.from.ip();
        if let Some(params) = request.message.authorization() {
            return match self.challenges.verify(w.ctx.now, settings.challenge_life, imsi, source, &params) {
                Verdict::Right(kc) => Admission::Yes(Some(kc)),
                Verdict::Wrong => Admission::No(No::WrongAnswer),
                Verdict::NonceUnknown => Admission::No(No::NonceUnknown),
            };
        }
        if request.message.header(HeaderName::Authorization).is_some() {
            return Admission::No(No::BadRequest("its Authorization cannot be read"));
        }
        let count_max = settings.challenge_count_max;
        match self.challenges.issue(w.ctx.rng, w.ctx.now, imsi, source, &subject.auth, count_max) {
            Ok(Some(rand)) => Admission::Challenge(rand),
            Ok(None) => Admission::Yes(None),
            Err(TooMany) => Admission::No(No::Overload),
        }
    }

    fn finish_no(&mut self, w: &mut World<'_, '_>, id: u64, no: &No) {
        let Some(registration) = self.forget(id) else { return };
        let Ok(message) = parse(&registration.bytes) else { return };
        let Registration { from, to, key, dialect, imsi, .. } = registration;
        let request = Request { from, to, key, bytes: &registration.bytes, message: &message };
        refuse(w, &request, dialect, Some(imsi), no);
    }

    /// A phone that waits is told no; the write goes on where one is under way, so that all replicas end up alike.
    fn tell_no(&mut self, w: &mut World<'_, '_>, id: u64, no: &No) {
        let Some(registration) = self.under_way.get_mut(&id) else { return };
        match &mut registration.state {
            State::Asking { .. } | State::Telling(_) => return self.finish_no(w, id, no),
            State::Writing(writing) if matches!(writing.answer, Said::Yes | Said::No) => return,
            State::Writing(writing) => writing.answer = Said::No,
        }
        let Ok(message) = parse(&registration.bytes) else { return };
        let Registration { from, to, key, dialect, imsi, .. } = *registration;
        let request = Request { from, to, key, bytes: &registration.bytes, message: &message };
        refuse(w, &request, dialect, Some(imsi), no);
    }

    /// Nothing is under way any more once the phone is answered and every replica has spoken.
    fn forget_if_done(&mut self, id: u64) {
        if let Some(Registration { state: State::Writing(writing), .. }) = self.under_way.get(&id)
            && matches!(writing.answer, Said::Yes | Said::No)
            && writing.said.values().all(Option::is_some)
        {
            self.forget(id);
        }
    }

    fn forget(&mut self, id: u64) -> Option<Registration> {
        let registration = self.under_way.remove(&id)?;
        if let Some(ids) = self.by_imsi.get_mut(&registration.imsi) {
            ids.retain(|other| *other != id);
            if ids.is_empty() {
                self.by_imsi.remove(&registration.imsi);
            }
        }
        Some(registration)
    }
}

/// What is new about a phone, by the record that its REGISTER is decided against.
fn arrival(ask: &Ask, old: &Record) -> Arrival {
    let network = ask.cell.map(|cell| cell.plmn());
    let former = old.newest().and_then(|(_, _, binding)| binding.cell).map(|cell| cell.plmn());
    let moved_network = network.is_some() && former.is_some() && network != former;
    Arrival { first: old.is_of_marks(), network, moved_network }
}

enum Admission {
    Yes(Option<Kc>),
    No(No),
    Challenge([u8; 16]),
}

/// What the subscriber table says of the one who registers.
struct Subject {
    auth: Auth,
}

/// The dialect, known by what each sends and no other does. Only what is allowed beside an IMSI's one binding, and the
/// form of a refusal, depends on it: in no dialect does a second challenge follow an Authorization.
fn dialect(message: &Message<'_>) -> Dialect {
    let supports = |what: &str| message.headers_of(HeaderName::Supported).any(|value| value.contains(what));
    if supports("auth-gsm") {
        return Dialect::Yate;
    }
    let user_agent = message.header(HeaderName::UserAgent).unwrap_or_default();
    let is_base_station = user_agent.starts_with("OpenBTS")
        || message.header_named("P-PHY-Info").is_some()
        || message.header_named("P-Access-Network-Info").is_some();
    if is_base_station { Dialect::OpenBts } else { Dialect::SipPhone }
}

/// Whom the REGISTER is about: the user of To, an IMSI that somebody provisioned.
fn subject(w: &World<'_, '_>, message: &Message<'_>) -> Result<(Imsi, Subject), (Option<Imsi>, No)> {
    let to = message.to().map(|to| to.uri).unwrap_or_default();
    let user = Uri::parse(to).ok().and_then(|uri| uri.user).unwrap_or_default();
    let imsi = match Imsi::parse(user) {
        Ok(imsi) => imsi,
        Err(_) if user.starts_with("TMSI") => return Err((None, No::TmsiUnknown)),
        Err(_) => return Err((None, No::UnknownSubscriber { cause: 4 })),
    };
    let Some(subscriber) = w.site.subscribers.get(&imsi) else {
        let by_plmn = &w.site.settings.registrar.unknown_cause_by_plmn;
        let matching = by_plmn.iter().filter(|(plmn, _)| imsi.as_str().starts_with(plmn.as_str()));
        let cause = matching.max_by_key(|(plmn, _)| plmn.len()).map_or(4, |(_, cause)| *cause);
        return Err((Some(imsi), No::UnknownSubscriber { cause }));
    };
    if subscriber.barred {
        return Err((Some(imsi), No::Barred));
    }
    Ok((imsi, Subject { auth: subscriber.auth.clone() }))
}

/// What is asked for, read from the headers.
fn read_ask(request: &Request<'_>, dialect: Dialect) -> Result<Ask, &'static str> {
    let message = request.message;
    let header_expires = match message.expires() {
        None => None,
        // A malformed value counts as if there were none (RFC 3261 §20.19 and §20.10 take 3600 then, our default).
        Some(Err(_)) => None,
        Some(Ok(expires_s)) => Some(expires_s),
    };
    let contacts = match message.contacts().map_err(|_| "a Contact cannot be read")? {
        parse::Contacts::None => Contacts::None,
        parse::Contacts::Star if header_expires == Some(0) => Contacts::All,
        parse::Contacts::Star => return Err("Contact: * needs Expires: 0"),
        parse::Contacts::List(list) => {
            let read = |contact: crate::sip::header::NameAddr<'_>| {
                let expires_s = match contact.expires() {
                    None => header_expires,
                    Some(expires_s) => expires_s.ok(),
                };
                let instance = contact.param("+sip.instance").flatten().map(|text| text.trim_matches('"').to_owned());
                // A phone that takes short messages as RPDUs says so with this feature tag (TS 24.341).
                let texts = match dialect {
                    Dialect::OpenBts => TextForm::OpenBts,
                    Dialect::Yate => TextForm::Yate,
                    Dialect::SipPhone if contact.param("+g.3gpp.smsip").is_some() => TextForm::Ims,
                    Dialect::SipPhone => TextForm::Plain,
                };
                AskedContact { uri: contact.uri.to_owned(), expires_s, instance, texts }
            };
            Contacts::Some(list.map(read).collect())
        }
    };
    let network = message.header_named("P-Access-Network-Info").and_then(cgi_3gpp);
    Ok(Ask {
        contacts,
        call_id: message.call_id().to_owned(),
        cseq: message.cseq().0,
        source: request.from,
        cell: network.and_then(CellId::parse_cgi),
        path: message.headers_named("Path").map(str::to_owned).collect(),
        base_station: dialect != Dialect::SipPhone,
    })
}

/// Whether the 200 will fit into a datagram: what it echoes, the contact it grants, and what we add.
fn leaves_room(message: &Message<'_>, ask: &Ask) -> bool {
    let contacts = match &ask.contacts {
        Contacts::Some(all) => all.iter().map(|asked| asked.uri.len() + 40).sum(),
        Contacts::None | Contacts::All => 0,
    };
    !ask.base_station || echo_bytes(message) + contacts + OWN_BYTES_MAX <= DATAGRAM_BYTES_MAX
}

/// Status line, header names, our tag, P-Associated-URI, Authentication-Info, Content-Length.
const OWN_BYTES_MAX: usize = 400;

/// The 401 with a RAND. `WWW-Authenticate: Digest nonce=<32 lower-case hex>`, unquoted, is right for every OpenBTS (wire.md 1.5);
/// a YateBTS wants base64 and its algorithm's name.
fn challenge(w: &mut World<'_, '_>, request: &Request<'_>, dialect: Dialect, imsi: Imsi, rand: &[u8; 16]) {
    let mut writer = response(w, request, 401, "Unauthorized");
    match dialect {
        Dialect::Yate => {
            let (realm, nonce) = (&w.site.settings.domain, nonce_base64(rand));
            let value = format_args!("Digest realm=\"{realm}\", nonce=\"{nonce}\", algorithm=AKAv1-MD5");
            writer.header_fmt("WWW-Authenticate", value);
        }
        Dialect::OpenBts | Dialect::SipPhone => {
            writer.header_fmt("WWW-Authenticate", format_args!("Digest nonce={}", nonce_hex(rand)));
        }
    }
    w.event(Event::Challenged { imsi });
    send(w, request.key, request.to, writer);
}

fn refuse(w: &mut World<'_, '_>, request: &Request<'_>, dialect: Dialect, imsi: Option<Imsi>, no: &No) {
    let Answer { code, phrase, cause } = no.answer(dialect);
    let mut writer = response(w, request, code, phrase);
    if let Some(cause) = cause {
        writer.header_fmt("P-GSM-Reject-Cause", format_args!("{cause}"));
    }
    if let No::Decided(Refusal::IntervalTooBrief { expires_s_min }) = no {
        writer.header_fmt("Min-Expires", format_args!("{expires_s_min}"));
    }
    if code == 503 && dialect == Dialect::SipPhone {
        writer.header("Retry-After", "5");
    }
    w.event(Event::RegisterRefused { imsi, from: request.from, code, why: no.why() });
    send(w, request.key, request.to, writer);
}

/// The 200: Contact with its expiry, the numbers, and Kc where ciphering is wanted.
fn send_yes(w: &mut World<'_, '_>, registration: &Registration, record: &Record) {
    let Ok(message) = parse(&registration.bytes) else { return };
    let Registration { from, to, key, dialect, imsi, .. } = registration;
    let request = Request { from: *from, to: *to, key: *key, bytes: &registration.bytes, message: &message };
    let mut writer = response(w, &request, 200, "OK");
    let now_ms = w.wall().ms;
    let mut expires_s_most = 0;
    for (contact, stamp, binding) in record.bindings() {
        let expires_at_ms = binding.expires_at_ms.saturating_add(w.clock.shift_ms(stamp));
        let left_s = expires_at_ms.saturating_sub(now_ms).div_ceil(1000);
        expires_s_most = left_s.max(expires_s_most);
        writer.header_fmt("Contact", format_args!("<{contact}>;expires={left_s}"));
    }
    let subscriber = w.site.subscribers.get(imsi);
    let numbers: &[Msisdn] = subscriber.map_or(&[], |subscriber| &subscriber.msisdn);
    if *dialect == Dialect::Yate {
        writer.header_fmt("Expires", format_args!("{expires_s_most}"));
        if let Some(number) = numbers.first() {
            writer.header_fmt("P-Associated-URI", format_args!("<tel:{number}>;imsi=\"{imsi}\""));
        }
    } else {
        numbers.iter().take(1).for_each(|number| {
            writer.header_fmt("P-Associated-URI", format_args!("<tel:{number}>"));
        });
    }
    if let Some(kc) = &registration.kc {
        writer.header_fmt("Authentication-Info", format_args!("cnonce={}", kc.hex()));
    }
    send(w, *key, *to, writer);
}

fn response(w: &mut World<'_, '_>, request: &Request<'_>, code: u16, phrase: &str) -> Writer {
    request.response(&format!("{:016x}", w.ctx.rng.u64()), code, phrase)
}

/// Every answer to a base station is below 1500 bytes: what leaves no room for one was refused (`leaves_room`, and the node).
fn send(w: &mut World<'_, '_>, key: TransactionKey, to: ReplyTo, mut writer: Writer) {
    let bytes = writer.finish();
    w.ctx.out.after(After::nothing(), Inner::Answer { key: Some(key), to, bytes });
}
