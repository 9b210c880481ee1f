//! How many mails of one sender, and for one phone, have come in a day.
//!
//! | key | value |
//! |---|---|
//! | `us` sender | [`Seen`]: when the day began, and how many have come since |
//! | `up` IMSI | the same of a phone |
//! | `ua` IMSI | of those who were new to it, so that it was asked |
//!
//! Knows: that a day begins with the first mail of it, and lasts 24 hours; that what was counted is on the disk with what it was counted for,
//! so that a restart forgets none and a mail that was refused counts for nothing. Does not know: what the limits are for.

use std::time::Duration;

use crate::ident::Imsi;
use crate::mail::address::MailKey;
use crate::site::World;
use crate::sms::mail::contact::get_with;
use crate::sms::mail::{COPY_WINDOW, arrive::No};
use crate::sms::record::{self, OldOf, Seen};
use crate::sms::work::Work;
use crate::sms::{Centre, is_over};

const DAY: Duration = Duration::from_secs(86_400);

/// What is counted.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Counted {
    Sender(MailKey),
    Phone(Imsi),
    Asked(Imsi),
}

impl Counted {
    fn key(self) -> Vec<u8> {
        match self {
            Counted::Sender(key) => record::count_key(b's', &key.0),
            Counted::Phone(imsi) => record::count_key(b'p', imsi.as_str().as_bytes()),
            Counted::Asked(imsi) => record::count_key(b'a', imsi.as_str().as_bytes()),
        }
    }

    fn no(self) -> No {
        match self {
            Counted::Sender(_) => No::SenderDay,
            Counted::Phone(_) => No::PhoneDay,
            Counted::Asked(_) => No::AskedDay,
        }
    }
}

impl Centre {
    /// One more of these in this work.
    ///
    /// Shape:  `day_max` 0: there is no limit, and nothing is counted.
    /// Errors: as many have come in this day as may, and the work is as it was.
    pub(super) fn count(
        &mut self,
        w: &mut World<'_, '_>,
        work: &mut Work,
        counted: Counted,
        day_max: u32,
    ) -> Result<(), No> {
        if day_max == 0 {
            return Ok(());
        }
        let key = counted.key();
        let bytes = get_with(w, work, &key).map_err(|_| No::Store)?;
        let before = bytes.and_then(|bytes| record::decode_seen(&bytes)).filter(|seen| !is_over(w, seen.at_ms, DAY));
        let day = before.unwrap_or(Seen { at_ms: w.wall().ms, code: 0, number: 0 });
        if day.number >= u64::from(day_max) {
            return Err(counted.no());
        }
        if before.is_none() {
            let number = self.take_number(work);
            work.old(day.at_ms, COPY_WINDOW, number, OldOf::Mail, vec![key.clone()]);
        }
        work.put(key, record::encode_seen(&Seen { number: day.number + 1, ..day }));
        Ok(())
    }
}
