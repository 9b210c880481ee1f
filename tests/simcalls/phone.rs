//! Phones: where they are, when they register, whom they call.

use std::collections::BTreeSet;

use crate::cell::{INVITE_AGAIN_MS, Side, Tick};
use crate::plan::NOBODYS;
use crate::register_wire as wire;
use crate::says::{self, Calling};
use crate::world::{Ev, MS, SECOND, World, proxy_of};

#[derive(Default)]
pub struct Phone {
    /// Where it camps; `None`: its radio is off.
    pub at: Option<usize>,
    /// The channel that it has.
    pub busy: Option<usize>,
    /// Where its last REGISTER was sent from, its number, and whether it was answered 200.
    pub registered: Option<Registered>,
    /// Every cell that it ever sent a REGISTER from.
    pub seen_at: Vec<usize>,
    /// Switched off, or out of reach, until then.
    pub off_until_us: u64,
    /// Boxes whose last text it has refused: what stands behind that waits for its pause.
    pub has_refused: BTreeSet<usize>,
    /// When a box last sent it a text.
    pub sent_to_us: u64,
    /// A detach was sent since its last REGISTER.
    pub detached: bool,
}

#[derive(Clone, Copy)]
pub struct Registered {
    pub cell: usize,
    pub cseq: u32,
    pub is_yes: bool,
    pub yes_us: u64,
}

impl World {
    pub fn phone_acts(&mut self, phone: usize) {
        if self.phones[phone].busy.is_some() || self.now_us < self.phones[phone].off_until_us {
            return;
        }
        let dice = self.rng.below(100);
        match self.phones[phone].at {
            None => {
                let cell = self.rng.below(self.cells.len() as u64) as usize;
                self.phones[phone].at = Some(cell);
                // Its first cell: now and then it is heard nowhere yet.
                if dice < 95 {
                    self.register(phone, 5400);
                }
            }
            Some(_) if dice < 12 => {
                let cell = self.rng.below(self.cells.len() as u64) as usize;
                self.meet("move");
                self.phones[phone].at = Some(cell);
                // It may call before it was heard there.
                if dice < 10 {
                    self.register(phone, 5400);
                }
            }
            Some(_) if dice < 18 => {
                // Switched off, or out of reach: then nobody is told.
                if dice < 15 {
                    self.register(phone, 0);
                }
                self.meet("radio off");
                self.phones[phone].at = None;
                // Often long enough to be missed.
                if self.one_in(2) {
                    self.phones[phone].off_until_us = self.now_us + self.between_ms(30_000, 60_000);
                }
            }
            Some(_) if dice < 45 => self.dials(phone),
            Some(_) if dice < 55 => self.register(phone, 5400),
            Some(_) => self.other_acts(phone, dice),
        }
    }

    /// REGISTER is never sent again by the base station; the phone tries again later.
    pub fn register(&mut self, phone: usize, expires_s: u32) {
        let Some(cell) = self.phones[phone].at else { return };
        self.cells[cell].cseq += 1;
        self.count += 1;
        let imsi = self.plan.phones[phone].imsi;
        let (address, proxy) = (self.plan.cells[cell].address, proxy_of(&self.plan, cell));
        let (call_id, cseq) = (self.cells[cell].register_call_id.clone(), self.cells[cell].cseq);
        let contact = format!("sip:IMSI{imsi}@{address}");
        let bytes = wire::register(&wire::Register {
            imsi,
            station: address,
            front: proxy,
            call_id: &call_id,
            cseq,
            branch: self.count,
            contact: &contact,
            expires_s,
            authorization: None,
            soft: false,
        });
        if expires_s > 0 {
            self.phones[phone].registered = Some(Registered { cell, cseq, is_yes: false, yes_us: 0 });
            self.phones[phone].seen_at.push(cell);
            self.phones[phone].detached = false;
            self.after(12 * SECOND, Ev::Registered { phone, cseq });
        } else {
            self.phones[phone].detached = true;
        }
        tell!(self, "phone {phone} registers at cell {cell}, expires {expires_s}");
        self.send(address, proxy, bytes);
    }

    /// "The channel is dropped; the phone tries again about 30 s later."
    pub fn register_due(&mut self, phone: usize, cseq: u32) {
        let is_waiting =
            self.phones[phone].registered.is_some_and(|registered| registered.cseq == cseq && !registered.is_yes);
        if is_waiting && self.phones[phone].busy.is_none() {
            let Some(cell) = self.phones[phone].at else { return };
            if self.phones[phone].registered.is_some_and(|registered| registered.cell == cell) {
                self.register(phone, 5400);
            }
        }
    }

    fn dials(&mut self, phone: usize) {
        let Some(cell) = self.phones[phone].at else { return };
        let dice = self.rng.below(100);
        let callee = self.rng.below(self.plan.phones.len() as u64) as usize;
        let dialled = match dice {
            0..4 => NOBODYS.to_owned(),
            4..8 => self.plan.phones[phone].number.clone(),
            8..12 => format!("IMSI{}", self.plan.phones[callee].imsi),
            _ => self.plan.phones[callee].number.clone(),
        };
        // Two that call each other at the same moment.
        if dice > 90 && callee != phone && self.phones[callee].busy.is_none() && self.phones[callee].at.is_some() {
            self.meet("two call each other");
            let number = self.plan.phones[phone].number.clone();
            let other_cell = self.phones[callee].at.unwrap_or(cell);
            self.invite(phone, cell, &dialled);
            return self.invite(callee, other_cell, &number);
        }
        self.invite(phone, cell, &dialled);
    }

    fn invite(&mut self, phone: usize, cell: usize, dialled: &str) {
        self.cells[cell].cseq += 1;
        self.count += 1;
        let imsi = self.plan.phones[phone].imsi;
        let (address, proxy) = (self.plan.cells[cell].address, proxy_of(&self.plan, cell));
        let port = 16_484 + 2 * self.rng.below(2_000) as u16;
        let calling = Calling {
            imsi,
            cell: address,
            proxy,
            dialled: dialled.to_owned(),
            call_id: format!("{:x}", self.rng.u64()),
            tag: format!("OBTS{}", self.letters()),
            branch: format!("z9hG4bKOBTS{}", self.letters()),
            cseq: self.cells[cell].cseq,
            sdp: says::sdp(imsi, address, port, self.count),
        };
        let leg = self.new_leg(Side::Caller, cell, Some(phone), calling, proxy);
        self.phones[phone].busy = Some(leg);
        self.call_begins(leg, dialled);
        tell!(self, "phone {phone} at cell {cell} dials {dialled}");
        let bytes = self.legs[leg].calling.invite();
        self.leg_sends(leg, bytes);
        for (n, ms) in INVITE_AGAIN_MS.iter().enumerate() {
            self.tick(leg, ms * MS, Tick::InviteAgain(n));
        }
        let patience = self.between_ms(1_000, 90_000);
        self.tick(leg, patience, Tick::GivesUp);
    }
}
