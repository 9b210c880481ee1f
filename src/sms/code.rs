//! The numbers that the centre itself answers.

use super::ending::End;
use super::record::{Recipient, Text};
use super::whole::{self, Whole};
use super::{Centre, Work, end};
use crate::config::words::{NOTHING, Word};
use crate::gsm::report::Status;
use crate::ident::{Imsi, Msisdn};
use crate::register::locate::Finder;
use crate::seam::TextOutcome;
use crate::site::World;

impl Centre {
    /// The head of what this subscriber wrote to this number of ours has its turn.
    pub(super) fn answer_code(
        &mut self,
        w: &mut World<'_, '_>,
        _finder: &mut Finder<'_>,
        code: Msisdn,
        sender: Imsi,
        text: Text,
    ) {
        let recipient = Recipient::Code(code, sender);
        let parts = match self.whole(w, text) {
            Ok(Whole::Ready(parts)) => parts,
            Ok(Whole::Missing { wait }) => return self.wait_for_parts(w, recipient, wait),
            Err(error) => return end(w, &error),
        };
        let _words = whole::words(w, &parts);
        let mut work = Work::default();
        let number = super::number_of(w.site, Recipient::Phone(sender));
        let _ = self.say(w, &mut work, sender, Word::OWN_NUMBER, &[("number", &number), ("name", NOTHING)]);
        let all: Vec<&Text> = parts.iter().collect();
        let end = End::new(TextOutcome::Answered, Status::RECEIVED, "");
        self.conclude(w, &all, &end, work, true);
    }
}
