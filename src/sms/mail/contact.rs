//! With whom a phone exchanges mail.
//!
//! | key | value |
//! |---|---|
//! | `c` IMSI `/` address | a [`Contact`] |
//! | `p` IMSI `/` number | as whose number that contact writes: its address ([`MailKey`]) |
//! | `q` IMSI | who wrote last, about whom the phone was asked last, and which number of the pool was given last |
//!
//! Knows: that an answer needs no address, for as long as `[mail] thread_life`; that each who writes to one phone has a number of the pool of
//! his own; that where all are taken somebody gives his up who is only asked about, else who was silent for longest, and for [`KEPT_SILENT`] at
//! least: what a phone answers must not reach a stranger who has written to it from many addresses. Does not know: what is written.
//! Limits: a phone has as many numbers for others as the pool, of which [`LOOKED_AT_MAX`] are looked at for a new one; [`REFERENCES_MAX`]
//! Message-IDs of a thread.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::ident::{Imsi, Msisdn};
use crate::mail::address::{Address, MailKey};
use crate::site::World;
use crate::sms::record::{self, OldOf};
use crate::sms::work::Work;
use crate::sms::{Centre, is_over, shift_ms};
use crate::store::{Batch, StoreError, StoreId};

/// Message-IDs of a thread that are written into References: the first one, and the last ones.
const REFERENCES_MAX: usize = 10;
/// Of a larger pool no more are looked at for one.
const LOOKED_AT_MAX: u64 = 20;
/// Nobody loses his number sooner after he has written, or was written to.
const KEPT_SILENT: Duration = Duration::from_secs(86_400);

/// Somebody who exchanges mail with a phone.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub(in crate::sms) struct Contact {
    pub(in crate::sms) address: Address,
    /// Where an answer is to go, if not there: it is what he has written last of it, and nothing that he is known by.
    #[serde(default)]
    pub(in crate::sms) reply_to: Option<Address>,
    pub(in crate::sms) standing: Standing,
    /// As whose number his mail comes, where there is a pool.
    pub(in crate::sms) number: Option<Msisdn>,
    /// Message-IDs of the thread, oldest first; the last one is what an answer answers.
    pub(in crate::sms) references: Vec<String>,
    /// Without `Re:`.
    pub(in crate::sms) subject: String,
    /// The last time that anything went to or fro, milliseconds since 1970.
    pub(in crate::sms) at_ms: u64,
}

/// Whether the phone wants his mail.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub(in crate::sms) enum Standing {
    /// It was never asked.
    Open,
    Asked,
    Wanted,
    Unwanted,
}

/// What is known of a phone's mail as a whole.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
struct Last {
    /// Whose mail came last as from the short code, because there is no pool, or no number of it was free.
    from: Option<[u8; 16]>,
    /// About whom the phone was asked last.
    #[serde(default)]
    asked: Option<[u8; 16]>,
    /// The place in the pool behind the one that was given last.
    next: u64,
}

impl Contact {
    pub(in crate::sms) fn new(address: Address) -> Contact {
        let (number, references, subject) = (None, Vec::new(), String::new());
        Contact { address, reply_to: None, standing: Standing::Open, number, references, subject, at_ms: 0 }
    }

    /// One more mail of this thread, from there or from here.
    pub(in crate::sms) fn wrote(&mut self, message_id: &str) {
        if message_id.is_empty() || self.references.iter().any(|known| known == message_id) {
            return;
        }
        self.references.push(message_id.to_owned());
        if self.references.len() > REFERENCES_MAX {
            self.references.remove(1);
        }
    }
}

fn contact_key(imsi: Imsi, key: MailKey) -> Vec<u8> {
    [b"c", imsi.as_str().as_bytes(), b"/", &key.0].concat()
}

fn number_key(imsi: Imsi, number: Msisdn) -> Vec<u8> {
    format!("p{imsi}/{}", number.digits()).into_bytes()
}

fn last_key(imsi: Imsi) -> Vec<u8> {
    format!("q{imsi}").into_bytes()
}

/// What this work will have written there, else what is on the disk.
pub(super) fn get_with(w: &mut World<'_, '_>, work: &Work, key: &[u8]) -> Result<Option<Vec<u8>>, StoreError> {
    match work.get(key) {
        Some(value) => Ok(value.clone()),
        None => w.store(StoreId::Messages)?.get(key),
    }
}

fn read<T: for<'de> Deserialize<'de>>(bytes: Option<Vec<u8>>) -> Option<T> {
    record::decode_json(&bytes?)
}

fn written<T: Serialize>(value: &T) -> Vec<u8> {
    record::encode_json(value)
}

impl Centre {
    /// What is known of this address and this phone; nothing, where it is too long ago.
    ///
    /// Errors: the store cannot be read.
    pub(in crate::sms) fn contact(
        &self,
        w: &mut World<'_, '_>,
        work: &Work,
        imsi: Imsi,
        key: MailKey,
    ) -> Result<Option<Contact>, StoreError> {
        let contact: Option<Contact> = read(get_with(w, work, &contact_key(imsi, key))?);
        Ok(contact.filter(|contact| is_remembered(w, contact)))
    }

    /// Who writes to this phone as this number.
    ///
    /// Errors: the store cannot be read.
    pub(in crate::sms) fn contact_at(
        &self,
        w: &mut World<'_, '_>,
        imsi: Imsi,
        number: Msisdn,
    ) -> Result<Option<Contact>, StoreError> {
        let bytes = get_with(w, &Work::default(), &number_key(imsi, number))?;
        let Some(key) = bytes.and_then(|bytes| bytes.try_into().ok()).map(MailKey) else { return Ok(None) };
        let contact = self.contact(w, &Work::default(), imsi, key)?;
        Ok(contact.filter(|contact| contact.number.is_some_and(|held| held.digits() == number.digits())))
    }

    /// Who wrote to this phone last.
    ///
    /// Errors: the store cannot be read.
    pub(in crate::sms) fn last_contact(
        &self,
        w: &mut World<'_, '_>,
        imsi: Imsi,
    ) -> Result<Option<Contact>, StoreError> {
        let last: Option<Last> = read(get_with(w, &Work::default(), &last_key(imsi))?);
        match last.and_then(|last| last.from) {
            Some(key) => self.contact(w, &Work::default(), imsi, MailKey(key)),
            None => Ok(None),
        }
    }

    /// About whom this phone was asked last, where it has not answered yet.
    ///
    /// Errors: the store cannot be read.
    pub(in crate::sms) fn asked_contact(
        &self,
        w: &mut World<'_, '_>,
        imsi: Imsi,
    ) -> Result<Option<Contact>, StoreError> {
        let last: Option<Last> = read(get_with(w, &Work::default(), &last_key(imsi))?);
        let Some(key) = last.and_then(|last| last.asked) else { return Ok(None) };
        let contact = self.contact(w, &Work::default(), imsi, MailKey(key))?;
        Ok(contact.filter(|contact| contact.standing == Standing::Asked))
    }

    /// Keeps what is known of a contact, as of now, as a part of this work. Where there is a pool, he has a number afterwards if one is free; to
    /// whom the phone has only written takes none of somebody else's, or an answer to who had it before would be for him.
    ///
    /// Shape:  `has_written`: it is he who wrote, so an answer without an address is for him.
    /// Errors: the store cannot be read.
    pub(in crate::sms) fn keep_contact(
        &mut self,
        w: &mut World<'_, '_>,
        work: &mut Work,
        imsi: Imsi,
        contact: &mut Contact,
        has_written: bool,
    ) -> Result<(), StoreError> {
        if !self.holds_number(w, work, imsi, contact)? {
            contact.number = None;
        }
        // Nothing that comes from there will be shown.
        if contact.standing == Standing::Unwanted
            && let Some(number) = contact.number.take()
        {
            work.delete(number_key(imsi, number));
        }
        self.keep(w, work, imsi, contact, has_written)
    }

    /// Keeps that the phone is asked about somebody. He gets a number of the pool only where one is free: who is not known yet takes none
    /// from those who are.
    ///
    /// Errors: the store cannot be read.
    pub(super) fn keep_asked(
        &mut self,
        w: &mut World<'_, '_>,
        work: &mut Work,
        imsi: Imsi,
        contact: &mut Contact,
    ) -> Result<(), StoreError> {
        contact.standing = Standing::Asked;
        self.keep(w, work, imsi, contact, false)
    }

    fn keep(
        &mut self,
        w: &mut World<'_, '_>,
        work: &mut Work,
        imsi: Imsi,
        contact: &mut Contact,
        has_written: bool,
    ) -> Result<(), StoreError> {
        let is_asked = contact.standing == Standing::Asked;
        let key = contact.address.key();
        let kept = contact_key(imsi, key);
        let before: Option<Contact> = read(get_with(w, work, &kept)?);
        contact.at_ms = w.wall().ms;
        let last_key = last_key(imsi);
        let mut last: Last = read(get_with(w, work, &last_key)?).unwrap_or_default();
        let mut fresh = Vec::new();
        if contact.number.is_none()
            && contact.standing != Standing::Unwanted
            && let Some((number, is_free)) = self.free_number(w, work, imsi, &mut last)?
            && (is_free || has_written)
        {
            contact.number = Some(number);
            work.put(number_key(imsi, number), key.0.to_vec());
            fresh.push(number_key(imsi, number));
        }
        // Who has a number is answered there.
        if has_written && contact.number.is_none() {
            last.from = Some(key.0);
        }
        if is_asked && contact.number.is_none() {
            last.asked = Some(key.0);
        }
        work.put(last_key.clone(), written(&last));
        work.put(kept.clone(), written(contact));
        // One that is known already stands in a list, which is looked at again while he is remembered.
        if before.is_none() || !fresh.is_empty() {
            fresh.extend([kept, last_key]);
            let (life, number) = (thread_life(w), self.take_number(work));
            work.old(contact.at_ms, life, number, OldOf::Contact, fresh);
        }
        Ok(())
    }

    /// A number of the pool that nobody has who writes to this phone (`true`); else that of a contact that may lose it.
    fn free_number(
        &self,
        w: &mut World<'_, '_>,
        work: &Work,
        imsi: Imsi,
        last: &mut Last,
    ) -> Result<Option<(Msisdn, bool)>, StoreError> {
        let pool = w.site.settings.mail.as_ref().map_or(&[][..], |mail| &mail.reply_pool).to_vec();
        let count: u64 = pool.iter().map(|range| range.count()).sum();
        let mut oldest: Option<((bool, u64), Msisdn)> = None;
        for step in 0..count.min(LOOKED_AT_MAX) {
            let mut at = (last.next + step) % count;
            let number = pool.iter().find_map(|range| match range.nth(at) {
                Some(number) => Some(number),
                None => {
                    at -= range.count();
                    None
                }
            });
            let Some(number) = number else { continue };
            let bytes = get_with(w, work, &number_key(imsi, number))?;
            let holder = match bytes.and_then(|bytes| bytes.try_into().ok()).map(MailKey) {
                Some(key) => self.contact(w, work, imsi, key)?,
                None => None,
            };
            // Also where he has another one by now: texts of his that show this one may still be on the phone.
            match holder {
                None => {
                    last.next = (last.next + step + 1) % count;
                    return Ok(Some((number, true)));
                }
                Some(holder) => {
                    let is_known = matches!(holder.standing, Standing::Open | Standing::Wanted);
                    let rank = (is_known, holder.at_ms);
                    if (!is_known || is_over(w, holder.at_ms, KEPT_SILENT))
                        && oldest.is_none_or(|(least, _)| rank < least)
                    {
                        oldest = Some((rank, number));
                    }
                }
            }
        }
        if count > 0 {
            last.next = (last.next + count.min(LOOKED_AT_MAX)) % count;
        }
        // Whoever had it has another one when he writes again: his contact says so, because the number leads to somebody else.
        Ok(oldest.map(|(_, number)| (number, false)))
    }

    /// Whether the number that this contact was given still leads to him.
    pub(in crate::sms) fn holds_number(
        &self,
        w: &mut World<'_, '_>,
        work: &Work,
        imsi: Imsi,
        contact: &Contact,
    ) -> Result<bool, StoreError> {
        let Some(number) = contact.number else { return Ok(false) };
        if !w.site.settings.mail.as_ref().is_some_and(|mail| mail.is_in_pool(&number)) {
            return Ok(false);
        }
        Ok(get_with(w, work, &number_key(imsi, number))?.is_some_and(|bytes| bytes == contact.address.key().0))
    }
}

fn thread_life(w: &World<'_, '_>) -> Duration {
    w.site.settings.mail.as_ref().map_or(Duration::ZERO, |mail| mail.thread_life)
}

/// What somebody has decided is remembered for as long as what was written.
fn is_remembered(w: &World<'_, '_>, contact: &Contact) -> bool {
    !is_over(w, contact.at_ms, thread_life(w))
}

/// What of a contact is to go whose time is over: where he has written since, his list is looked at again when he may be forgotten.
///
/// Errors: the store cannot be read.
pub(in crate::sms) fn contact_too_old(
    w: &mut World<'_, '_>,
    batch: Batch,
    old: &[u8],
    keys: &[Vec<u8>],
    list: Vec<u8>,
) -> Result<Batch, StoreError> {
    let mut batch = batch.delete(old.to_vec());
    let Some(kept) = keys.iter().find(|key| key.starts_with(b"c")) else { return Ok(batch) };
    let contact: Option<Contact> = read(w.store(StoreId::Messages)?.get(kept)?);
    if let Some(contact) = &contact
        && is_remembered(w, contact)
    {
        // One with the number that he has now stands for him; those with the numbers that he had before go.
        if let (Some(number), true) = (contact.number, keys.iter().any(|key| key.starts_with(b"p")))
            && !keys
                .iter()
                .any(|key| key.starts_with(b"p") && key.ends_with(format!("/{}", number.digits()).as_bytes()))
        {
            return Ok(batch);
        }
        let at_ms = contact.at_ms.saturating_add(shift_ms(w, contact.at_ms));
        let again_ms = at_ms.saturating_add(crate::sms::millis(thread_life(w))).saturating_add(1);
        return Ok(batch.put(record::old_key_at(old, again_ms), list));
    }
    let Some(key) = kept.get(kept.len().saturating_sub(16)..).map(<[u8]>::to_vec) else { return Ok(batch) };
    for listed in keys {
        let bytes = w.store(StoreId::Messages)?.get(listed)?;
        let is_his = match listed.first() {
            Some(b'c') => true,
            // Somebody else may have it by now.
            Some(b'p') => bytes.is_some_and(|bytes| bytes == key),
            _ => read::<Last>(bytes).is_some_and(|last| last.from.is_some_and(|from| from.as_slice() == key)),
        };
        if is_his {
            batch = batch.delete(listed.clone());
        }
    }
    Ok(batch)
}
