//! Base stations, phones and the trunk: what they do on their own, and what they make of answers.

use std::net::SocketAddr;

use encamp::seam::{Command, CommandAnswer, Input, Who};

use super::{Ev, Kind, Leg, SECOND, World};
use crate::checks::Violation;
use crate::disk::Disks;
use crate::plan::{FRONT_PORT, node_ip};
use crate::wire::{self, Read};

impl World {
    pub(super) fn phone_acts(&mut self, phone: usize) {
        let dice = self.rng.below(100);
        match self.phones[phone].at {
            Some(_) if dice < 12 => self.speak(phone, Kind::Detach),
            Some(_) if dice < 16 && self.plan.phones[phone].soft => self.speak(phone, Kind::Star),
            Some(_) if dice < 55 => self.speak(phone, Kind::Bind),
            _ => {
                let places = if self.plan.phones[phone].soft { 5 } else { self.stations.len() as u64 };
                self.phones[phone].at = Some(self.rng.below(places) as usize);
                self.speak(phone, Kind::Bind);
            }
        }
    }

    /// The phone registers where it is, or leaves.
    pub(super) fn speak(&mut self, phone: usize, kind: Kind) {
        let Some(at) = self.phones[phone].at else { return };
        let plan = &self.plan.phones[phone];
        let imsi = plan.imsi;
        let mut leg = if plan.soft {
            let from: SocketAddr = SocketAddr::new(std::net::Ipv4Addr::new(10, 1, 100 + phone as u8, 1).into(), 5080);
            self.phones[phone].cseq += 1;
            Leg {
                phone,
                kind,
                from,
                node: self.rng.below(self.boxes.len() as u64) as usize,
                call_id: format!("soft{phone}line{at}"),
                cseq: self.phones[phone].cseq,
                contact: format!("sip:IMSI{imsi}@{from};line={at}"),
                expires_s: 600,
                nonce: None,
                wrong: false,
                replayed: false,
            }
        } else {
            let station = &mut self.stations[at];
            station.cseq += 1;
            Leg {
                phone,
                kind,
                from: station.address,
                node: station.node,
                call_id: station.call_id.clone(),
                cseq: station.cseq,
                contact: format!("sip:IMSI{imsi}@{}", station.address),
                expires_s: 5400,
                nonce: None,
                wrong: false,
                replayed: false,
            }
        };
        if kind != Kind::Bind {
            leg.expires_s = 0;
            self.phones[phone].at = None;
        } else {
            self.phones[phone].last_contact.clone_from(&leg.contact);
            self.phones[phone].last_code = 0;
        }
        self.send_leg(&leg);
    }

    pub(super) fn send_leg(&mut self, leg: &Leg) {
        let phone = &self.plan.phones[leg.phone];
        let authorization = leg.nonce.as_ref().map(|nonce| {
            let mut rand = [0u8; 16];
            for (at, byte) in rand.iter_mut().enumerate() {
                *byte =
                    nonce.get(at * 2..at * 2 + 2).and_then(|hex| u8::from_str_radix(hex, 16).ok()).unwrap_or_default();
            }
            let sres = phone.auth.vector(rand).map(|vector| vector.sres.hex()).unwrap_or_default();
            let sres = if leg.wrong { "00000000".to_owned() } else { sres };
            format!("Digest nonce=\"{nonce}\", uri=\"{}\", response=\"{sres}\"", phone.imsi)
        });
        let front = SocketAddr::new(node_ip(leg.node), FRONT_PORT);
        self.branch_count += 1;
        let bytes = wire::register(&wire::Register {
            imsi: phone.imsi,
            station: leg.from,
            front,
            call_id: &leg.call_id,
            cseq: leg.cseq,
            branch: self.branch_count,
            contact: if leg.kind == Kind::Star { "*" } else { &leg.contact },
            expires_s: leg.expires_s,
            authorization,
            soft: phone.soft,
        });
        tell!(self, "phone {} says {:?} cseq {} at {}", leg.phone, leg.kind, leg.cseq, leg.from);
        self.checks.sent(leg, phone);
        self.send(leg.from, front, bytes);
    }

    pub(super) fn phone_hears(&mut self, to: SocketAddr, said: &Read) {
        let Some(leg) = self.checks.leg(to, said) else { return };
        let leg = leg.clone();
        if leg.kind == Kind::Bind && leg.contact == self.phones[leg.phone].last_contact && !leg.replayed {
            self.phones[leg.phone].last_code = said.code;
        }
        let Some(nonce) = said.nonce.clone().filter(|_| said.code == 401 && !leg.replayed && leg.nonce.is_none())
        else {
            return;
        };
        if leg.kind == Kind::Detach {
            return;
        }
        let next_cseq = |world: &mut World| {
            if world.plan.phones[leg.phone].soft {
                world.phones[leg.phone].cseq += 1;
                return Some(world.phones[leg.phone].cseq);
            }
            let station = world.stations.iter_mut().find(|station| station.address == leg.from)?;
            station.cseq += 1;
            Some(station.cseq)
        };
        let Some(cseq) = next_cseq(self) else { return };
        let wrong = !self.fair && self.rng.below(20) == 0;
        let second = Leg { cseq, nonce: Some(nonce), wrong, ..leg.clone() };
        let air_us = SECOND / 2 + self.rng.below(SECOND / 3);
        if !self.fair && self.rng.below(10) == 0 {
            // Somebody has listened, and says the same again.
            if let Some(cseq) = next_cseq(self) {
                let replay = Leg { cseq, replayed: true, wrong: false, ..second.clone() };
                let when = self.now_us + air_us + self.rng.below(40 * SECOND);
                self.at(when, Ev::SecondLeg(replay));
            }
        }
        self.at(self.now_us + air_us, Ev::SecondLeg(second));
    }

    // --- Trunk and operator ---

    pub(super) fn call(&mut self, node: usize, phone: usize) {
        self.invite_count += 1;
        let call_id = format!("call{}", self.invite_count);
        let front = SocketAddr::new(node_ip(node), FRONT_PORT);
        let number = self.plan.phones[phone].number.to_string();
        self.checks.calls(&call_id, phone, node);
        let bytes = wire::invite(&number, self.plan.trunk, front, &call_id);
        self.send(self.plan.trunk, front, bytes);
    }

    pub(super) fn trunk_answered(&mut self, node: usize, said: &Read) -> Result<(), Violation> {
        let phone = self.checks.called(&said.call_id);
        if let Some(phone) = phone {
            self.routed.insert((node, phone), (said.code, said.contact.clone()));
        }
        let boxes: Vec<&Disks> = self.boxes.iter().map(|one| &one.disks).collect();
        self.checks.call_answered(&self.plan, &boxes, node, said, self.now_us)
    }

    pub(super) fn look(&mut self, node: usize, phone: usize) {
        self.invite_count += 1;
        let id = self.invite_count;
        if self.boxes[node].node.is_some() {
            self.checks.looks(id, phone, node, self.now_us);
            let command = Command::Lookup(Who::Imsi(self.plan.phones[phone].imsi));
            self.handle(node, Input::Command { id, command });
        }
    }

    pub(super) fn command_answered(&mut self, id: u64, answer: &CommandAnswer) {
        if let CommandAnswer::Replicas(replicas) = answer {
            self.hints_told = replicas.iter().map(|replica| replica.hints).sum();
        }
        if let CommandAnswer::Lookup(lookup) = answer {
            let contacts: Vec<String> = lookup.bindings.iter().map(|binding| binding.contact.clone()).collect();
            let sane = lookup.bindings.iter().all(|binding| (-120..=5430).contains(&binding.expires_s));
            if !sane {
                self.broken("time may lie", format!("lookup shows {:?}", lookup.bindings));
            }
            tell!(self, "  lookup {id}: {contacts:?}");
            let result = self.checks.looked_up(&self.plan, id, &contacts);
            self.check(result);
            self.looked_up.insert(id, contacts);
        }
    }
}
