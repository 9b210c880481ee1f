//! A mail becomes texts.

use crate::mail::{MailIn, Reply};
use crate::register::locate::Finder;
use crate::seam::Output;
use crate::site::World;
use crate::sms::Centre;

impl Centre {
    /// A mail has come whole: its texts are stored, or whoever brought it is told why not.
    pub fn mail_in(&mut self, w: &mut World<'_, '_>, _finder: &mut Finder<'_>, id: u64, mail: MailIn) {
        if mail.from.is_none() && mail.letter.bounce.is_some() {
            return self.bounced(w, id, &mail);
        }
        let reply = Reply::new(451, (4, 3, 2), "no mail is taken in yet");
        w.ctx.out.send(Output::MailAnswer { id, replies: vec![reply] });
    }
}
