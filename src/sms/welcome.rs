//! What a phone is told that comes: the first time, or to another network.
//!
//! Knows: who was welcomed of late. Does not know: what makes a phone new here ([`crate::register::front::Arrival`]).
//! A welcome is no promise: without room for it, or where the store refuses, it is left out and counted.
//! Limit: [`WELCOMED_MAX`]; of more the oldest are forgotten.

use std::collections::{BTreeSet, VecDeque};
use std::time::Duration;

use super::code::{code_of, name, number};
use super::{Centre, Work};
use crate::config::words::{NOTHING, Word};
use crate::config::{CodeAction, Welcome};
use crate::event::Event;
use crate::ident::{Imsi, Plmn};
use crate::register::front::Arrival;
use crate::register::locate::Finder;
use crate::site::World;
use crate::time::Instant;

/// One phone is welcomed to one network no oftener: where two of them overlap it goes to and fro.
const WELCOME_PAUSE: Duration = Duration::from_secs(600);
const WELCOMED_MAX: usize = 10_000;

/// Who has been welcomed of late, and to which network (`None`: here, the first time), oldest first.
#[derive(Default)]
pub(super) struct Welcomed {
    line: VecDeque<(Instant, (Imsi, Option<Plmn>))>,
    who: BTreeSet<(Imsi, Option<Plmn>)>,
}

impl Welcomed {
    /// Whether it has not been of late; it has from now on.
    fn note(&mut self, now: Instant, welcome: (Imsi, Option<Plmn>)) -> bool {
        while let Some((at, oldest)) = self.line.front().copied()
            && (now >= at + WELCOME_PAUSE || self.line.len() >= WELCOMED_MAX)
        {
            self.line.pop_front();
            self.who.remove(&oldest);
        }
        let is_new = self.who.insert(welcome);
        if is_new {
            self.line.push_back((now, welcome));
        }
        is_new
    }
}

impl Centre {
    /// A phone has registered here, and was told so.
    pub fn arrived(&mut self, w: &mut World<'_, '_>, finder: &mut Finder<'_>, imsi: Imsi, arrival: Arrival) {
        let site = w.site;
        let Arrival { first, network, moved_network } = arrival;
        let network = network.filter(|_| moved_network && !first);
        let is_wanted = match site.settings.messages.welcome {
            Welcome::Never => false,
            Welcome::First => first,
            Welcome::Network => first || network.is_some(),
        };
        if !is_wanted
            || !self.open
            || site.subscribers.get(&imsi).is_none()
            || !self.welcomed.note(w.ctx.now, (imsi, network))
        {
            return;
        }
        let held = number(site, imsi);
        let code = code_of(site, &CodeAction::ChooseNumber);
        let network = network.map(|network| network.to_string());
        let word = match (&network, &held, &code) {
            (Some(_), ..) => Word::WELCOME_NETWORK,
            (None, None, Some(_)) => Word::WELCOME_WITHOUT_NUMBER,
            (None, ..) => Word::WELCOME,
        };
        let or_nothing = |value: &Option<String>| value.clone().unwrap_or_else(|| NOTHING.into());
        let values = [
            ("number", or_nothing(&held)),
            ("name", name(site, imsi).to_owned()),
            ("imsi", imsi.to_string()),
            ("code", or_nothing(&code)),
            ("network", or_nothing(&network)),
        ];
        let values = values.each_ref().map(|(name, value)| (*name, value.as_str()));
        let mut work = Work::default();
        // Who is asked for a number answers this text.
        let said = match code.filter(|_| word == Word::WELCOME_WITHOUT_NUMBER) {
            Some(code) => {
                let language = site.subscribers.get(&imsi).and_then(|subscriber| subscriber.language);
                let words = site.settings.templates.say(language, word, &values);
                self.write_as(w, &mut work, imsi, (&code, None), &words)
            }
            None => self.say(w, &mut work, imsi, word, &values),
        };
        if said.is_err() || self.commit(w, work).is_err() {
            w.event(Event::WelcomeNotSent { imsi });
        }
        self.work_off(w, finder);
    }
}
