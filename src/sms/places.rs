//! Who takes texts from several queues, and how many at a time.
//!
//! Knows: that a base station has few channels, and a program few hands; who waits for a place has it in his turn. Does not know: what is done with
//! it. Limits: `[messages] attempts_per_base_station_max`; [`code::HOOKS_PER_CODE_MAX`]; [`RelayKey::places`].

use std::collections::VecDeque;
use std::net::IpAddr;

use super::mail::RelayKey;
use super::record::Recipient;
use super::{Centre, State, code};
use crate::ident::Msisdn;
use crate::site::World;

/// Who takes texts from several queues, and not any number of them at a time.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(super) enum Taker {
    /// A base station: "one at a time" is each phone's right, and each holds a channel of the cell's few.
    Station(IpAddr),
    /// The program behind a number of the centre's own.
    Hook(Msisdn),
    /// The relay, or the servers of a domain of mail.
    Relay(RelayKey),
}

#[derive(Default)]
pub(super) struct Places {
    /// Places that are taken, and how many there are.
    pub(super) taken: usize,
    pub(super) places: usize,
    /// Who waits for one, oldest first; who has left this state meanwhile is passed over.
    pub(super) line: VecDeque<Recipient>,
}

impl Centre {
    /// A place with this taker for the recipient; `false`: it stands in its line from now on.
    pub(super) fn take_place(&mut self, w: &World<'_, '_>, recipient: Recipient, taker: Taker) -> bool {
        let Some(queue) = self.queues.get(&recipient) else { return false };
        if queue.place == Some(taker) {
            return true;
        }
        self.leave_place(recipient);
        let places = match taker {
            Taker::Station(_) => w.site.settings.messages.attempts_per_base_station_max,
            Taker::Hook(_) => code::HOOKS_PER_CODE_MAX,
            Taker::Relay(key) => key.places(),
        };
        let at = self.takers.entry(taker).or_default();
        at.places = places;
        let is_free = at.taken < places;
        if is_free {
            at.taken += 1;
        } else {
            at.line.push_back(recipient);
        }
        if let Some(queue) = self.queues.get_mut(&recipient) {
            match is_free {
                true => queue.place = Some(taker),
                false => queue.state = State::Parked,
            }
        }
        is_free
    }

    /// Its place goes to whoever waits for one there.
    pub(super) fn leave_place(&mut self, recipient: Recipient) {
        let Some(taker) = self.queues.get_mut(&recipient).and_then(|queue| queue.place.take()) else { return };
        let Some(at) = self.takers.get_mut(&taker) else { return };
        at.taken -= 1;
        // One place for one; none where there are fewer now, and several where there are more.
        while at.taken < at.places
            && let Some(next) = at.line.pop_front()
        {
            let Some(queue) = self.queues.get_mut(&next) else { continue };
            if matches!(queue.state, State::Parked) {
                at.taken += 1;
                queue.place = Some(taker);
                queue.state = State::InLine;
                self.line.push_back(next);
            }
        }
        if at.taken == 0 && at.line.is_empty() {
            self.takers.remove(&taker);
        }
    }
}
