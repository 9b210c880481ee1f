//! How often each pair of state and event was met: what a REGISTER looked like from outside when something happened to it.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::net::SocketAddr;

use encamp::event::Event;
use encamp::ident::Imsi;

use crate::wire::Read;

/// A registration as it is seen from outside.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum State {
    /// Nothing is under way.
    Rest,
    Challenged,
    /// A replica elsewhere is asked for the newest record.
    Asking,
    /// Replicas are told; too few have said yes.
    Writing,
    /// Answered, and not all replicas have spoken.
    Answered,
}

pub const STATES: [State; 5] = [State::Rest, State::Challenged, State::Asking, State::Writing, State::Answered];

#[derive(Default)]
pub struct Coverage {
    state: BTreeMap<(usize, Imsi), State>,
    pub pairs: BTreeMap<(State, &'static str), u64>,
    pub events: BTreeMap<&'static str, u64>,
    pub answers: BTreeMap<(String, u16), u64>,
    seen: BTreeSet<(SocketAddr, String, u32)>,
    /// A REGISTER came, or the record that it needs.
    speaking: BTreeSet<(usize, Imsi)>,
}

impl Coverage {
    fn met(&mut self, state: State, event: &'static str) {
        *self.pairs.entry((state, event)).or_default() += 1;
    }

    /// Something that concerns every registration of a box.
    pub fn input_everywhere(&mut self, node: usize, event: &'static str) {
        let states: Vec<State> =
            self.state.iter().filter(|((at, _), _)| *at == node).map(|(_, state)| *state).collect();
        if states.is_empty() {
            self.met(State::Rest, event);
        }
        for state in states {
            self.met(state, event);
        }
        if matches!(event, "kill -9" | "power cut") {
            self.state.retain(|(at, _), _| *at != node);
        }
    }

    /// A datagram reaches a box.
    pub fn input(&mut self, node: usize, said: &Read, from: SocketAddr) {
        let Some(imsi) = said.imsi else { return self.met(State::Rest, "another message") };
        let state = self.state.get(&(node, imsi)).copied().unwrap_or(State::Rest);
        let copy = said.code == 0 && !said.stamped && !self.seen.insert((from, said.call_id.clone(), said.cseq));
        let event = match (said.code, said.method.as_str()) {
            (0, "REGISTER") if copy => "copy of a REGISTER",
            (0, "REGISTER") if said.stamped && said.has_record => "write of another node",
            (0, "REGISTER") if said.stamped => "query of another node",
            (0, "REGISTER") if said.has_authorization => "REGISTER with an answer",
            (0, "REGISTER") => "REGISTER",
            (0, "INVITE") if said.stamped => "lookup of another node",
            (0, "INVITE") => "INVITE of a trunk",
            (0, _) => "another request",
            (200, "REGISTER") if said.is_older => "yes, but older",
            (200, "REGISTER") if said.has_record => "a record told",
            (200, "REGISTER") => "yes, or an empty record",
            (302 | 480, "INVITE") => "a lookup told",
            (_, "REGISTER") => "no of a replica",
            _ => "another answer",
        };
        self.met(state, event);
        self.speaking.clear();
        if event.starts_with("REGISTER") || matches!(event, "a record told" | "yes, or an empty record") {
            self.speaking.insert((node, imsi));
        }
    }

    /// A datagram leaves a box.
    pub fn output(&mut self, node: usize, said: &Read) {
        if said.code > 0 {
            let whose = if said.stamped { "replica, " } else { "" };
            *self.answers.entry((format!("{whose}{}", said.method), said.code)).or_default() += 1;
        }
        let Some(imsi) = said.imsi.filter(|_| said.method == "REGISTER") else { return };
        let key = (node, imsi);
        match (said.code, said.stamped) {
            (0, true) if said.has_record && self.state.get(&key) == Some(&State::Answered) => {}
            (0, true) if said.has_record => drop(self.state.insert(key, State::Writing)),
            (0, true) => drop(self.state.insert(key, State::Asking)),
            (401, false) if said.has_challenge => drop(self.state.insert(key, State::Challenged)),
            (_, false) if said.code >= 300 => drop(self.state.remove(&key)),
            _ => {}
        }
    }

    /// A box wrote to a replica of its own: for a phone that speaks to this box, or else for another box.
    pub fn wrote(&mut self, node: usize, touched: &BTreeSet<Imsi>) {
        for imsi in touched {
            if self.speaking.remove(&(node, *imsi)) {
                self.state.insert((node, *imsi), State::Writing);
            }
        }
    }

    pub fn event(&mut self, node: usize, event: &Event) {
        *self.events.entry(event.name()).or_default() += 1;
        if let Event::Registered { imsi, .. } | Event::Detached { imsi } = event {
            self.state.insert((node, *imsi), State::Answered);
        }
    }

    pub fn at_rest(&mut self, node: usize) {
        self.state.retain(|(at, _), state| *at != node || *state == State::Challenged);
    }

    pub fn add(&mut self, other: Coverage) {
        for (pair, count) in other.pairs {
            *self.pairs.entry(pair).or_default() += count;
        }
        for (event, count) in other.events {
            *self.events.entry(event).or_default() += count;
        }
        for (answer, count) in other.answers {
            *self.answers.entry(answer).or_default() += count;
        }
    }
}

impl fmt::Display for Coverage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:<28}", "event \\ state")?;
        for state in STATES {
            write!(f, "{:>12}", format!("{state:?}"))?;
        }
        writeln!(f)?;
        let mut names: Vec<&str> = self.pairs.keys().map(|(_, event)| *event).collect();
        names.sort_unstable();
        names.dedup();
        for name in names {
            write!(f, "{name:<28}")?;
            for state in STATES {
                let count = self.pairs.iter().find(|((of, event), _)| *of == state && *event == name);
                write!(f, "{:>12}", count.map_or(0, |(_, count)| *count))?;
            }
            writeln!(f)?;
        }
        writeln!(f, "\nanswers")?;
        for ((method, code), count) in &self.answers {
            writeln!(f, "{:<28}{count:>12}", format!("{code} to {method}"))?;
        }
        writeln!(f, "\nevents told")?;
        for (name, count) in &self.events {
            writeln!(f, "{name:<28}{count:>12}")?;
        }
        Ok(())
    }
}
