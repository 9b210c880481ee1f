//! Texts to numbers behind a trunk, as `text/plain` MESSAGEs.
//!
//! Knows: the trunks that take texts (`texts = true`), in the order of the dial plan; one that fails or refuses leaves its turn to the
//! next, and what the last one of a round says is believed. Does not know:
//! how an attempt goes ([`super::deliver`]).

use super::Centre;
use super::form::Target;
use super::record::{Recipient, Text};
use super::verdict::{Said, Verdict};
use crate::gsm::form::TextForm;
use crate::ident::Msisdn;
use crate::route::dialplan::text_trunks;
use crate::site::{Site, World};
use crate::time::Stamp;

/// How many trunks take a text to this number.
pub(super) fn count(site: &Site, number: Msisdn) -> u32 {
    u32::try_from(text_trunks(&site.settings, &number.to_string()).len()).unwrap_or(u32::MAX)
}

/// Whether another trunk is tried before there is a pause.
pub(super) fn has_next(site: &Site, number: Msisdn, failures: u32) -> bool {
    let count = count(site, number);
    count > 1 && !(failures + 1).is_multiple_of(count)
}

impl Centre {
    pub(super) fn send_to_trunk(&mut self, w: &mut World<'_, '_>, number: Msisdn, text: Text, since: Stamp) {
        let recipient = Recipient::Trunk(number);
        let trunks = text_trunks(&w.site.settings, &number.to_string());
        let failures = self.queues.get(&recipient).map_or(0, |queue| queue.failures as usize);
        let Some(trunk) = trunks.get(failures % trunks.len().max(1)) else {
            let none = Verdict::Temporary("no trunk takes texts to it any more");
            return self.failed(w, vec![text], since, None, none, Said::default());
        };
        let to = w.site.settings.trunks[*trunk].address;
        self.send(w, recipient, text, since, Target { form: TextForm::Plain, to, uri: format!("sip:{number}@{to}") });
    }
}
