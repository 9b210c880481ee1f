//! The air of one cell: which phones are there, who is paged, and what is due when.
//!
//! Knows: the phones that answer a paging here, and for how long an absent one is paged. Does not know: SIP.
//! Limits: the times below, shorter than in the field so that a rehearsal ends; what a box waits for does not depend on them.
//! Read first: wire.md 3.3, 4.2.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::time::{Duration, Instant};

use super::bts::{Shared, Station, lock};
use super::call::Leg;
use super::text::{Arriving, Reported, Split, Text};
use crate::ident::Imsi;

/// A phone answers its paging at one of these; 3.4 s in the field.
const PAGE_EVERY: Duration = Duration::from_millis(50);
/// "No answer to paging: after `GSM.Timer.T3113` 10 s"; here shorter.
pub const PAGING_TIME: Duration = Duration::from_secs(2);
/// From the answered paging until it rings, and until it is answered; 1.3 s and 0.2 s in the field.
pub(super) const RING_AFTER: Duration = Duration::from_millis(200);
pub(super) const ANSWER_AFTER: Duration = Duration::from_millis(400);
/// "about 2 s late (after the phone's CONNECT ACK)" (wire.md 3.2).
pub(super) const ACK_AFTER: Duration = Duration::from_secs(2);
/// An MT text takes 4 to 8 s in the field.
pub(super) const TRANSFER_TIME: Duration = Duration::from_millis(300);

/// What a phone does with a call.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Manner {
    Answers,
    /// For ever.
    Rings,
}

/// All that changes, under one lock.
#[derive(Default)]
pub(super) struct Air {
    /// Who answers a paging here.
    pub phones: HashMap<Imsi, Manner>,
    /// What the registrar said in P-Associated-URI: "stored in the BTS's TMSI_TABLE and repeated in every later MO INVITE" (wire.md 1.6).
    pub numbers: HashMap<Imsi, Vec<String>>,
    /// By Call-ID; those that are over stay.
    pub legs: HashMap<String, Leg>,
    /// MT texts that are paged for or on the air, by Call-ID.
    pub arriving: HashMap<String, Arriving>,
    pub inbox: Vec<Text>,
    /// Long texts, whole or not.
    pub split: HashMap<Split, BTreeMap<u8, String>>,
    pub reports: Vec<Reported>,
    pub message_counts: HashMap<Imsi, u32>,
    /// Phones that have no room for a text, and how many each of all has refused.
    pub full: HashSet<Imsi>,
    pub refusal_counts: HashMap<Imsi, u32>,
    timers: BTreeMap<(Instant, u64), Tick>,
    order: u64,
}

/// What is due.
#[derive(Clone, Debug)]
pub(super) enum Tick {
    /// Look again whether the phone answers; `turn` is void after a copy has started the paging anew.
    Page {
        call_id: String,
        turn: u32,
        until: Instant,
    },
    PageText {
        call_id: String,
        turn: u32,
        until: Instant,
    },
    Ring(String),
    Answer(String),
    /// The INVITE once more.
    Resend(String),
    Ack(String),
    /// The text is on the phone.
    Transferred(String),
}

impl Air {
    pub fn after(&mut self, wait: Duration, tick: Tick) {
        self.order += 1;
        self.timers.insert((Instant::now() + wait, self.order), tick);
    }

    pub fn page(&mut self, call_id: &str, turn: u32, is_text: bool) {
        let (call_id, until) = (call_id.to_owned(), Instant::now() + PAGING_TIME);
        let tick = match is_text {
            true => Tick::PageText { call_id, turn, until },
            false => Tick::Page { call_id, turn, until },
        };
        self.after(PAGE_EVERY, tick);
    }
}

impl Shared {
    /// Does what is due.
    pub(super) fn tick(&self) {
        let air = &mut *lock(&self.air);
        let mut is_changed = false;
        while let Some(entry) = air.timers.first_entry()
            && entry.key().0 <= Instant::now()
        {
            let tick = entry.remove();
            is_changed = true;
            match tick {
                Tick::Page { call_id, turn, until } => self.paged(air, call_id, turn, until),
                Tick::PageText { call_id, turn, until } => self.paged_for_text(air, call_id, turn, until),
                Tick::Ring(call_id) => self.rings(air, &call_id),
                Tick::Answer(call_id) => self.answers(air, &call_id),
                Tick::Resend(call_id) => self.resend(air, &call_id),
                Tick::Ack(call_id) => self.acknowledge(air, &call_id),
                Tick::Transferred(call_id) => self.transferred(air, &call_id),
            }
        }
        if is_changed {
            self.changed.notify_all();
        }
    }

    /// The paging goes on: at the next turn.
    pub(super) fn page_on(air: &mut Air, tick: Tick) {
        air.after(PAGE_EVERY, tick);
    }
}

impl Station {
    /// The phone answers a paging here from now on.
    pub fn camp(&self, imsi: &Imsi, manner: Manner) {
        lock(&self.shared.air).phones.insert(*imsi, manner);
    }

    /// It is elsewhere now, or its battery is out.
    pub fn leave(&self, imsi: &Imsi) {
        lock(&self.shared.air).phones.remove(imsi);
    }

    /// Waits until `what` finds something in the air.
    pub(super) fn watch<T>(&self, wait: Duration, mut what: impl FnMut(&Air) -> Option<T>) -> Option<T> {
        let until = Instant::now() + wait;
        let mut air = lock(&self.shared.air);
        loop {
            if let Some(found) = what(&air) {
                return Some(found);
            }
            let left = until.checked_duration_since(Instant::now())?;
            air = self.shared.changed.wait_timeout(air, left).map_or_else(|error| error.into_inner().0, |(air, _)| air);
        }
    }
}
