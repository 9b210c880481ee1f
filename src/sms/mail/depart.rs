//! A text becomes a mail.

use crate::gsm::report::Status;
use crate::ident::Imsi;
use crate::seam::TextOutcome;
use crate::site::World;
use crate::sms::ending::End;
use crate::sms::record::Text;
use crate::sms::{Centre, Work};

impl Centre {
    /// The head of the copies for this subscriber's mailbox has its turn.
    pub(in crate::sms) fn copy_to_mail(&mut self, w: &mut World<'_, '_>, _imsi: Imsi, text: Text) {
        let end = End::new(TextOutcome::Failed, Status::NOT_OBTAINABLE, "no copies are made yet");
        self.conclude(w, &[&text], &end, Work::default(), false);
    }
}
