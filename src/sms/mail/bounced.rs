//! What somebody else tells of a mail of a phone's: it has arrived, was handed on, or comes back.
//!
//! Knows: that what is told is believed only of a mail that this phone has sent and that we have handed over, by its Message-ID, of which
//! half is dice; that a phone hears of each mail once. Does not know: how a notification is written ([`crate::mail`]).
//! Whatever tells of nothing that we know is taken and forgotten: it comes from `<>`, and whoever would be told of a refusal is nobody.
//! Source: RFC 3464 §2; RFC 3461 §6; RFC 5321 §6.1.

use std::net::IpAddr;

use super::contact::get_with;
use super::status;
use crate::config::words::Word;
use crate::event::Event;
use crate::gsm::report::Status;
use crate::ident::Imsi;
use crate::mail::address::Address;
use crate::mail::{Action, Bounce, BounceOf, MailIn, RcptTo, Reply};
use crate::seam::{After, Output, TextOutcome};
use crate::site::World;
use crate::sms::ending::local_time;
use crate::sms::record::{self, Awaited, Ended, Fate, OldOf};
use crate::sms::{Centre, Work, shift_ms};
use crate::store::{StoreError, StoreId};

/// What is told of cannot be looked at yet.
enum Later {
    /// The mail is not handed over, as far as we know: whoever took it was quicker than his answer.
    Waits,
    Store(StoreError),
}

impl From<StoreError> for Later {
    fn from(error: StoreError) -> Later {
        Later::Store(error)
    }
}

/// A mail that somebody tells of.
struct Known {
    number: u64,
    /// While it is remembered how it ended.
    ended: Option<Box<Ended>>,
    /// While its reports wait for what is told.
    awaited: Option<Awaited>,
}

impl Centre {
    /// A mail from `<>` that tells of another one ([`crate::mail::Letter::bounce`]): answered in any case, and never refused for good.
    pub(in crate::sms) fn bounced(&mut self, w: &mut World<'_, '_>, id: u64, mail: &MailIn) {
        let mut work = Work::default();
        let mut later = None;
        if let Some(bounce) = &mail.letter.bounce {
            for rcpt in &mail.recipients {
                let taken = match rcpt.to {
                    RcptTo::Phone(imsi) => self.take_bounce(w, &mut work, imsi, bounce, mail.peer.ip),
                    RcptTo::Elsewhere(_) => {
                        w.event(ignored(mail.peer.ip, "it is for nobody here"));
                        Ok(())
                    }
                };
                later = later.or(taken.err());
            }
        }
        // Nothing is written where one of several cannot be looked at yet: all of it comes again.
        let written = match later {
            Some(Later::Waits) => Err("the mail that it is about is under way still, try again"),
            Some(Later::Store(error)) => {
                w.event(Event::MessagesStoreRefused { why: error.to_string() });
                Err("what it is about cannot be read, try again")
            }
            None if work.batch.changes.is_empty() => Ok(()),
            None => self.commit(w, work).map(drop).map_err(|_| "it cannot be written to the disk, try again"),
        };
        let reply = match written {
            Ok(()) => Reply::new(250, (2, 0, 0), "noted"),
            Err(why) => Reply::new(451, (4, 3, 0), why),
        };
        let count = if mail.each_answered { mail.recipients.len() } else { 1 };
        // A copy of what is being written is a promise, too.
        let after = w.unsynced(StoreId::Messages).map_or_else(After::nothing, |commit| After::nothing().and(commit));
        w.ctx.out.send_after(after, Output::MailAnswer { id, replies: vec![reply; count] });
    }

    fn take_bounce(
        &mut self,
        w: &mut World<'_, '_>,
        work: &mut Work,
        imsi: Imsi,
        bounce: &Bounce,
        from: IpAddr,
    ) -> Result<(), Later> {
        let ids = [&bounce.envid, &bounce.message_id];
        let mut known = None;
        for id in ids.into_iter().flatten() {
            known = match known {
                None => self.mail_of(w, work, imsi, id)?,
                known => known,
            };
        }
        let Some(known) = known else {
            w.event(ignored(from, "it is about no mail of this phone's"));
            return Ok(());
        };
        let to = match (&known.awaited, &known.ended) {
            (Some(awaited), _) => Some(awaited.to.clone()),
            (None, Some(ended)) => ended.text.mail().map(|outgoing| outgoing.mail.to.clone()),
            (None, None) => None,
        };
        let told = to.and_then(|to| Some((of_recipient(bounce, &to)?, to)));
        let Some((told, to)) = told else {
            w.event(ignored(from, "it tells of somebody else"));
            return Ok(());
        };
        if told.action == Action::Delayed {
            w.event(ignored(from, "it is tried again"));
            return Ok(());
        }
        self.tell_bounce(w, work, imsi, known, &to, &told, from);
        Ok(())
    }

    /// The mail of this Message-ID, if it is one of this phone's that was handed over.
    fn mail_of(&self, w: &mut World<'_, '_>, work: &Work, imsi: Imsi, id: &str) -> Result<Option<Known>, Later> {
        let id = id.trim_matches(['<', '>', ' ']);
        let is_ours = |domain: &str| {
            let mail = w.site.settings.mail.as_ref();
            mail.is_some_and(|mail| mail.domain.eq_ignore_ascii_case(domain))
        };
        // ENVID is what stands before the domain.
        let (local, domain) = id.rsplit_once('@').map_or((id, None), |(local, domain)| (local, Some(domain)));
        if !domain.is_none_or(is_ours) {
            return Ok(None);
        }
        let number = local.split_once('.').and_then(|(number, _)| number.parse::<u64>().ok());
        let Some(number) = number else { return Ok(None) };
        let is_its_own = |held: &str| held.rsplit_once('@').is_some_and(|(held, _)| held == local);
        let awaited = get_with(w, work, &record::awaited_key(number))?;
        let awaited = awaited.and_then(|bytes| record::decode_awaited(&bytes));
        let awaited = awaited.filter(|awaited| awaited.sender == imsi && is_its_own(&awaited.message_id));
        let fate = get_with(w, work, &record::fate_key(number))?;
        let is_meant = |text: &record::Text| {
            text.sender.phone() == Some(imsi)
                && text.mail().is_some_and(|outgoing| is_its_own(&outgoing.mail.message_id))
        };
        let ended = match fate.and_then(|bytes| record::decode_fate(number, &bytes)) {
            Some(Fate::Ended(ended)) => Some(ended).filter(|ended| is_meant(&ended.text)),
            Some(Fate::Waits(recipient)) => {
                let bytes = w.store(StoreId::Messages)?.get(&record::text_key(recipient, number))?;
                let text = bytes.and_then(|bytes| record::decode(recipient, number, &bytes).ok());
                if text.is_some_and(|text| is_meant(&text)) {
                    return Err(Later::Waits);
                }
                None
            }
            None => None,
        };
        Ok((awaited.is_some() || ended.is_some()).then_some(Known { number, ended, awaited }))
    }

    /// The phone is told, once, and what is kept of the mail says so.
    #[allow(clippy::too_many_arguments, reason = "who tells whom what of which mail")]
    fn tell_bounce(
        &mut self,
        w: &mut World<'_, '_>,
        work: &mut Work,
        imsi: Imsi,
        known: Known,
        to: &Address,
        told: &BounceOf,
        from: IpAddr,
    ) {
        let Known { number, ended, awaited } = known;
        let has_failed = told.action == Action::Failed;
        let handed_over = ended.as_ref().is_none_or(|ended| ended.outcome == TextOutcome::Delivered);
        if !handed_over {
            // Its end was told when it came, or another copy of this was here.
            return w.event(ignored(from, "that is told already"));
        }
        let said = told.status.or_else(|| status::in_words(&told.why));
        let status = match told.action {
            Action::Delivered => Status::RECEIVED,
            Action::Failed => said.map_or(Status::REMOTE_PROCEDURE_ERROR, status::to_phone),
            Action::Relayed | Action::Expanded | Action::Delayed => Status::FORWARDED,
        };
        let why = status::words(said, &told.why);
        let heard = match &awaited {
            Some(awaited) => {
                let key = record::awaited_key(number);
                work.delete(record::old_key(awaited.until_ms, number, OldOf::News));
                work.delete(key);
                self.report(w, work, imsi, &awaited.reports, status)
            }
            None if !has_failed => return w.event(ignored(from, "nobody asked for it")),
            None if !w.site.settings.messages.explain => Ok(()),
            None => {
                let accepted_ms = ended.as_ref().map_or(0, |ended| ended.text.accepted_ms);
                let time = local_time(w, accepted_ms.saturating_add(shift_ms(w, accepted_ms)));
                let values = [("time", time.as_str()), ("to", to.as_str()), ("why", &why)];
                self.say(w, work, imsi, Word::MAIL_BOUNCED, &values)
            }
        };
        if heard.is_err() {
            w.event(Event::TextNotTold { text: number, sender: imsi });
        }
        if let Some(mut ended) = ended {
            // By this a second copy is known.
            if has_failed {
                ended.outcome = TextOutcome::Failed;
                ended.why = format!("it was handed over, and came back: {why}");
            }
            ended.status = status;
            work.put(record::fate_key(number), record::encode_fate(&Fate::Ended(ended)));
        }
        if has_failed {
            w.event(Event::MailCameBack { text: number, sender: imsi, why: super::in_log(&why) });
        }
    }
}

fn ignored(from: IpAddr, why: &'static str) -> Event {
    Event::BounceIgnored { from, why }
}

/// What is told of the one to whom the mail went; where he forwards, the name may be another one.
///
/// A mail that says only in words that another one did not arrive names nobody.
fn of_recipient(bounce: &Bounce, to: &Address) -> Option<BounceOf> {
    if bounce.recipients.is_empty() {
        let (recipient, why) = (to.to_string(), String::new());
        return Some(BounceOf { recipient, action: Action::Failed, status: None, why });
    }
    let is_he = |told: &&BounceOf| told.recipient.eq_ignore_ascii_case(to.as_str());
    let failed = |told: &&BounceOf| told.action == Action::Failed;
    let all = || bounce.recipients.iter();
    all().find(is_he).or_else(|| all().find(failed)).or_else(|| all().next()).cloned()
}
