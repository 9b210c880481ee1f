//! When the weather is fair again: nothing is left under way, replicas are equal, every phone registers and is found.

use encamp::node::Node;
use encamp::seam::{Command, Input};
use encamp::store::StoreId;

use super::{Ev, Kind, QUIET_US_MAX, QUIET_US_MIN, SECOND, World};
use crate::disk::Disks;

impl World {
    pub(super) fn heal(&mut self) {
        tell!(self, "the faults are over");
        self.fair = true;
        self.cut_links.clear();
        self.queue.retain(|_, ev| !matches!(ev, Ev::Crash { .. } | Ev::CutLink { .. } | Ev::DiskFault { .. }));
        for node in 0..self.boxes.len() {
            let stores: Vec<StoreId> = self.boxes[node].disks.0.keys().copied().collect();
            for store in stores {
                self.disk_mend(node, store);
            }
            if self.boxes[node].disks.0.values().any(|disk| disk.failed) {
                self.crash(node, false);
            }
            self.start(node);
        }
    }

    /// Waits until nobody has anything to tell any more.
    pub(super) fn drain(&mut self) {
        let quiet_from = self.now_us;
        self.run_until(quiet_from + QUIET_US_MIN);
        while self.violation.is_none() && !self.is_level() {
            if self.now_us > quiet_from + QUIET_US_MAX {
                let hints: Vec<u64> = (0..self.boxes.len()).map(|node| self.hints(node)).collect();
                let what = format!("hints left after {} s without faults: {hints:?}", QUIET_US_MAX / SECOND);
                self.broken("hints drain", what);
            }
            self.run_until(self.now_us + 5 * SECOND);
        }
    }

    /// How many writes a box keeps for replicas that missed them, as it says itself.
    pub(super) fn hints(&mut self, node: usize) -> u64 {
        self.hints_told = 1;
        self.handle(node, Input::Command { id: 0, command: Command::Replicas });
        self.hints_told
    }

    pub(super) fn is_level(&mut self) -> bool {
        (0..self.boxes.len()).map(|node| self.hints(node)).sum::<u64>() == 0
    }

    pub(super) fn check_rest(&mut self, when: &str) {
        for node in 0..self.boxes.len() {
            let under_way = self.boxes[node].node.as_ref().map_or(1, Node::under_way);
            let held = self.boxes[node].out.held_count();
            if under_way + held > 0 {
                self.broken(
                    "nothing is under way at rest",
                    format!("{when}, box {node}: {under_way} under way, {held} held"),
                );
            }
        }
        let boxes: Vec<&Disks> = self.boxes.iter().map(|one| &one.disks).collect();
        let result = self.checks.equal_at_rest(&self.plan, &boxes, when);
        self.check(result);
        let boxes: Vec<&Disks> = self.boxes.iter().map(|one| &one.disks).collect();
        let result = self.checks.acknowledged_is_kept(&self.plan, &boxes, when);
        self.check(result);
    }

    pub(super) fn register_all(&mut self) {
        for phone in 0..self.phones.len() {
            let places = if self.plan.phones[phone].soft { 5 } else { self.stations.len() as u64 };
            self.phones[phone].at = Some(self.rng.below(places) as usize);
            self.speak(phone, Kind::Bind);
            self.run_until(self.now_us + SECOND / 50);
        }
        self.run_until(self.now_us + 12 * SECOND);
        for phone in 0..self.phones.len() {
            let code = self.phones[phone].last_code;
            if code != 200 {
                self.broken("every phone can register in fair weather", format!("phone {phone} was told {code}"));
            }
        }
        for phone in &self.plan.phones {
            // A base station's REGISTER clears what was before it; a SIP phone's adds.
            if !phone.soft {
                self.checks.mended(phone.imsi);
            }
        }
    }

    pub(super) fn find_all(&mut self) {
        self.call_all();
        self.check_calls("once all are registered", |_| false);
        self.look_all();
    }

    pub(super) fn detach_some(&mut self) {
        for phone in (0..self.phones.len()).step_by(2) {
            let kind = if self.plan.phones[phone].soft { Kind::Star } else { Kind::Detach };
            self.speak(phone, kind);
            self.checks.mended(self.plan.phones[phone].imsi);
        }
        self.run_until(self.now_us + 12 * SECOND);
        self.check_rest("at the end");
        self.call_all();
        self.check_calls("once every second one is detached", |phone| phone % 2 == 0);
    }

    pub(super) fn call_all(&mut self) {
        self.routed.clear();
        for node in 0..self.boxes.len() {
            for phone in 0..self.phones.len() {
                self.call(node, phone);
                self.run_until(self.now_us + SECOND / 100);
            }
        }
        self.run_until(self.now_us + 3 * SECOND);
    }

    pub(super) fn check_calls(&mut self, when: &str, is_away: impl Fn(usize) -> bool) {
        for node in 0..self.boxes.len() {
            for phone in 0..self.phones.len() {
                let expected = match is_away(phone) {
                    true => (480, None),
                    false => (302, Some(self.phones[phone].last_contact.clone())),
                };
                let found = self.routed.get(&(node, phone)).cloned().unwrap_or_default();
                if found != expected {
                    let what =
                        format!("{when}, a call to phone {phone} through box {node}: {found:?}, not {expected:?}");
                    self.broken("a call finds the phone in fair weather", what);
                }
            }
        }
    }

    pub(super) fn look_all(&mut self) {
        for node in 0..self.boxes.len() {
            for phone in 0..self.phones.len() {
                self.look(node, phone);
                let id = self.invite_count;
                self.run_until(self.now_us + SECOND / 2);
                let found =
                    self.looked_up.get(&id).is_some_and(|found| found.contains(&self.phones[phone].last_contact));
                if !found {
                    let what = format!("box {node} does not find phone {phone} at {}", self.phones[phone].last_contact);
                    self.broken("lookup finds the phone in fair weather", what);
                }
            }
        }
    }
}
