//! A mail becomes texts: taken, known already, or refused.
//!
//! Knows: what makes a copy of a mail a copy, who is new to a phone, how much there is room for; that of one mail all texts, what makes its
//! copies known and whom it answers are in one batch, and that nothing is promised before it is on the disk. Does not know: SMTP, MIME, who
//! may write at all (`mail::admit` has let each recipient in); what is said of it later ([`super::told`]).
//!
//! A *no* for now (4xx) is for all of a mail that has one answer: nothing of it is kept, and it comes again. A *no* for ever to some of its
//! recipients is told by a mail of its own, and the others get it. Who is new to a phone, where that is to be asked, has to write again: the
//! mail is refused for now, or where others get it with a report that says so. Where so many are refused that such mails would be a flood, or
//! where there is no room for them, nobody gets it, and it comes again.
//!
//! Who writes is who stands in From: by him he is known, and that is what the phone reads. Reply-To is only where an answer goes.
//!
//! Duplicates: a mail is known for [`COPY_WINDOW`] by its recipient, its envelope sender, and its Message-ID with its subject and words
//! (without a Message-ID: its octets). Senders repeat a mail for days when they have not heard our yes; there are some that give all
//! mails one Message-ID.
//! Limits: `[mail] segments_max`, `per_sender_day_max`, `per_phone_day_max`, `received_max`; `[messages] count_max`,
//! `count_per_phone_max`; [`ASKED_PER_DAY_MAX`], [`HOPS_MAX`].

use std::sync::Arc;
use std::time::Duration;

use super::caps::Counted;
use super::contact::{Contact, Standing};
use super::depart::{HOPS_MAX, NotPassed, Passing, copy_of, when};
use super::words::{self, Words};
use crate::config::Mail;
use crate::config::mailing::FirstContact;
use crate::config::words::Word;
use crate::event::Event;
use crate::gsm::header::Reference;
use crate::gsm::text::OCTETS_MAX;
use crate::gsm::tpdu::{Address as Oa, UserData};
use crate::ident::{Imsi, Language, Msisdn};
use crate::mail::address::Address;
use crate::mail::admit;
use crate::mail::{Action, MailIn, Notify, Rcpt, RcptTo, Relayed, Reply};
use crate::register::locate::Finder;
use crate::route::dialplan::{TextWay, text_way};
use crate::seam::{After, Output, TextOutcome, TextRecord};
use crate::site::Site;
use crate::site::World;
use crate::sms::accept::digest;
use crate::sms::record::{self, FromMail, Letter, OldOf, Payload, Recipient, Seen, Sender, Text};
use crate::sms::{Centre, Full, Work, is_over};
use crate::store::{StoreError, StoreId};

/// A copy of a mail is known for so long: its sender is not to give up before four or five days (RFC 5321 §4.5.4.1).
pub(in crate::sms) const COPY_WINDOW: Duration = Duration::from_secs(5 * 86_400);
/// About so many new senders a phone is asked in a day.
const ASKED_PER_DAY_MAX: u32 = 10;
/// So long a phone's *yes* is about him; afterwards it is asked again.
const QUESTION_LIFE: Duration = Duration::from_secs(7 * 86_400);
/// Of the recipients of one mail so many are told of as refused, each by a mail; its sender may be somebody who has not written it.
const REFUSALS_TOLD_MAX: usize = 10;
/// Without a number of the pool for each an answer is about the last one: so long nobody else is asked about.
const ASKED_ALONE: Duration = Duration::from_secs(86_400);

/// What NOTIFY means where nobody has said it (RFC 3461 §4.1).
const NOTIFY_UNSAID: Notify = Notify { success: false, failure: true, delay: false };

/// Our *no* to a mail; it knows its answer.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum No {
    Closed,
    /// It goes round in circles.
    Passed,
    CameBack,
    /// From `<>`, and nothing that anybody waits for.
    Null,
    Gone,
    Barred,
    Unwanted,
    /// It was refused beside a yes, and its sender has been told so: it has had its end.
    Told,
    /// The phone is asked whether it wants it.
    Asked,
    AskedDay,
    SenderDay,
    PhoneDay,
    PhoneFull,
    CentreFull,
    /// Some get it, and too many would have to be told of who do not.
    ManyRefused,
    Store,
    /// No route and no trunk has this number.
    Nowhere,
    /// The text of another box.
    Unreadable,
    Late,
}

impl No {
    /// Code, status of RFC 3463, and why in words.
    pub(super) fn answer(self) -> (u16, (u8, u16, u16), &'static str) {
        match self {
            No::Closed => (451, (4, 3, 2), "no mail is taken in now"),
            No::Passed => (554, (5, 4, 6), "it has passed too many servers"),
            No::CameBack => (554, (5, 4, 6), "it has passed this box before"),
            No::Null => (550, (5, 7, 1), "from <>, and no report of a mail of ours"),
            No::Gone => (550, (5, 1, 1), "there is no such subscriber"),
            No::Barred => (550, (5, 2, 1), "the subscriber is barred"),
            No::Unwanted => (550, (5, 7, 1), "the subscriber wants no mail of this sender"),
            No::Told => (550, (5, 7, 1), "it was refused before, and its sender told so: write it anew"),
            No::Asked => {
                (451, (4, 7, 1), "the subscriber is asked whether he wants mail of this sender: send it again later")
            }
            No::AskedDay => (451, (4, 7, 1), "too many new senders write to this subscriber today"),
            No::SenderDay => (452, (4, 7, 1), "as many texts of this sender came today as may"),
            No::PhoneDay => (452, (4, 7, 1), "as many texts for this subscriber came today as may"),
            No::PhoneFull => (452, (4, 2, 2), "as many texts wait for that phone as may"),
            No::CentreFull => (452, (4, 3, 1), "as many texts wait as may"),
            No::ManyRefused => (452, (4, 5, 3), "too many of its recipients are refused: send it to fewer"),
            No::Store => (452, (4, 3, 1), "the disk takes nothing now"),
            No::Nowhere => (550, (5, 1, 1), "the number is nobody's, and nothing leads to it"),
            No::Unreadable => (554, (5, 6, 0), "the text of a phone that is in it cannot be read"),
            No::Late => (550, (5, 4, 7), "the time of the text is over"),
        }
    }

    fn reply(self) -> Reply {
        let (code, status, why) = self.answer();
        Reply::new(code, status, why)
    }

    fn is_for_now(self) -> bool {
        self.answer().0 < 500
    }
}

impl From<Full> for No {
    fn from(full: Full) -> No {
        match full {
            Full::Centre => No::CentreFull,
            Full::Recipient => No::PhoneFull,
            Full::Store => No::Store,
        }
    }
}

impl From<StoreError> for No {
    fn from(_: StoreError) -> No {
        No::Store
    }
}

/// What became of it for one recipient.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Taken {
    /// It is this text, or begins with it.
    Kept(u64),
    /// It was, the first time that it came.
    Known(u64),
    No(No),
}

impl Taken {
    fn reply(self) -> Reply {
        match self {
            Taken::Kept(number) | Taken::Known(number) => Reply::new(250, (2, 0, 0), format!("kept as text {number}")),
            Taken::No(no) => no.reply(),
        }
    }
}

impl Centre {
    /// A mail has come whole: its texts are stored, or whoever brought it is told why not.
    pub fn mail_in(&mut self, w: &mut World<'_, '_>, finder: &mut Finder<'_>, id: u64, mail: MailIn) {
        if self.open && w.site.settings.mail.is_some() && mail.from.is_none() && mail.letter.bounce.is_some() {
            self.bounced(w, id, &mail);
            return self.work_off(w, finder);
        }
        let (taken, after) = self.take_mail(w, &mail);
        for (rcpt, taken) in mail.recipients.iter().zip(&taken) {
            match taken {
                Taken::Kept(_) => {}
                Taken::Known(_) => w.event(Event::MailDuplicate { from: mail.peer.ip }),
                Taken::No(no) => tell_of_no(w, &mail, rcpt, *no),
            }
        }
        let replies = match mail.each_answered {
            true => taken.iter().map(|taken| taken.reply()).collect(),
            false => vec![one_for_all(&taken).reply()],
        };
        w.ctx.out.send_after(after, Output::MailAnswer { id, replies });
        self.work_off(w, finder);
    }

    /// What becomes of it for each of its recipients, and after what that may be told.
    fn take_mail(&mut self, w: &mut World<'_, '_>, mail: &MailIn) -> (Vec<Taken>, After) {
        let all = |no| (vec![Taken::No(no); mail.recipients.len()], After::nothing());
        let Some(settings) = w.site.settings.mail.clone().filter(|_| self.open) else { return all(No::Closed) };
        if let Some(no) = goes_round(&settings, mail) {
            return all(no);
        }
        let (mut work, mut asks) = (Work::default(), Work::default());
        let mut taken: Vec<Taken> = Vec::with_capacity(mail.recipients.len());
        for (at, rcpt) in mail.recipients.iter().enumerate() {
            // Named twice, it gets one.
            let same = mail.recipients[..at].iter().position(|other| other.to == rcpt.to);
            let one = match same {
                Some(same) => taken[same],
                None => self.take_for(w, &settings, (&mut work, &mut asks), mail, rcpt).unwrap_or_else(Taken::No),
            };
            taken.push(one);
        }
        let for_now = taken.iter().find_map(|taken| match taken {
            Taken::No(no) if no.is_for_now() && !matches!(no, No::Asked | No::AskedDay) => Some(*no),
            Taken::No(_) | Taken::Kept(_) | Taken::Known(_) => None,
        });
        if let (false, Some(no)) = (mail.each_answered, for_now) {
            work = Work::default();
            taken.iter_mut().for_each(|taken| *taken = Taken::No(no));
        }
        if !mail.each_answered && taken.iter().any(|taken| matches!(taken, Taken::Kept(_) | Taken::Known(_))) {
            let mut told = 0;
            for (at, (rcpt, taken)) in mail.recipients.iter().zip(&taken).enumerate() {
                let is_first = mail.recipients[..at].iter().all(|other| other.to != rcpt.to);
                if let (true, Taken::No(no)) = (is_first, taken) {
                    told += 1;
                    let is_told = match told > REFUSALS_TOLD_MAX {
                        true => Err(No::ManyRefused),
                        false => self.tell_refused(w, &mut work, mail, rcpt, *no),
                    };
                    if let Err(no) = is_told {
                        return all(no);
                    }
                }
            }
        }
        // Also where it has told so before: what a copy is told must be on the disk, too.
        let mut after = w.unsynced(StoreId::Messages).map_or(After::nothing(), |commit| After::nothing().and(commit));
        for work in [asks, work] {
            if work.batch.changes.is_empty() {
                continue;
            }
            match self.commit(w, work) {
                Ok(commit) => after = after.and(commit),
                Err(_) => return all(No::Store),
            }
        }
        (taken, after)
    }

    /// One recipient's share of it.
    fn take_for(
        &mut self,
        w: &mut World<'_, '_>,
        settings: &Arc<Mail>,
        (work, asks): (&mut Work, &mut Work),
        mail: &MailIn,
        rcpt: &Rcpt,
    ) -> Result<Taken, No> {
        let copy = copy_digest(mail, rcpt);
        match seen(w, &copy)? {
            Some(Seen { code: 250, number, .. }) => return Ok(Taken::Known(number)),
            Some(_) => return Err(No::Told),
            None => {}
        }
        let (changes, added) = (work.batch.changes.len(), work.added.len());
        // What is said of a phone's text is believed of whoever brought it.
        let relayed = mail.letter.relayed.as_ref().filter(|_| admit::is_box(&w.site.settings, &mail.peer));
        let number = match (rcpt.to, relayed) {
            (RcptTo::Phone(imsi), Some(sms)) => self.text_of_box(w, work, mail, rcpt, Recipient::Phone(imsi), sms),
            (RcptTo::Phone(imsi), None) => self.write_to_phone(w, settings, (&mut *work, asks), mail, rcpt, imsi),
            (RcptTo::Elsewhere(number), _) => self.goes_on(w, settings, work, mail, rcpt, number, relayed),
        };
        match number {
            Ok(number) => {
                remember(w, work, copy, 250, number);
                Ok(Taken::Kept(number))
            }
            Err(no) => {
                // Nothing of it is part of the work that is written for others.
                work.cut(changes, added);
                Err(no)
            }
        }
    }

    /// One of several recipients does not get a mail that others get: its sender is told once, by a mail.
    ///
    /// Errors: he cannot be told.
    fn tell_refused(
        &mut self,
        w: &mut World<'_, '_>,
        work: &mut Work,
        mail: &MailIn,
        rcpt: &Rcpt,
        no: No,
    ) -> Result<(), No> {
        let copy = copy_digest(mail, rcpt);
        if seen(w, &copy)?.is_some() {
            return Ok(());
        }
        let Some(letter) = letter_of(w, mail, rcpt, 1) else { return Ok(()) };
        let (_, (_, subject, detail), why) = no.answer();
        self.dsn(w, work, &letter, Action::Failed, (5, subject, detail), why).map_err(|full| match full {
            Full::Centre | Full::Recipient => No::CentreFull,
            Full::Store => No::Store,
        })?;
        let number = self.take_number(work);
        remember(w, work, copy, 550, number);
        Ok(())
    }

    /// The text, or its parts, that a phone gets of a mail; the number of the first one.
    fn write_to_phone(
        &mut self,
        w: &mut World<'_, '_>,
        settings: &Arc<Mail>,
        (work, asks): (&mut Work, &mut Work),
        mail: &MailIn,
        rcpt: &Rcpt,
        imsi: Imsi,
    ) -> Result<u64, No> {
        let site = w.site;
        let subscriber = site.subscribers.get(&imsi).ok_or(No::Gone)?;
        if subscriber.barred {
            return Err(No::Barred);
        }
        let writer = writer(mail).ok_or(No::Null)?.clone();
        let known = self.contact(w, work, imsi, writer.key())?;
        let is_answer = known.as_ref().is_some_and(|known| is_in_thread(known, mail));
        if mail.from.is_none() && !(mail.letter.automatic && is_answer) {
            return Err(No::Null);
        }
        let asks_first =
            settings.first_contact == FirstContact::Ask && !admit::is_allowed(&site.settings, &imsi, &writer);
        let mut contact = match known {
            Some(contact) if contact.standing == Standing::Unwanted => return Err(No::Unwanted),
            Some(contact) if contact.standing == Standing::Asked && asks_first && !is_stale(w, &contact) => {
                return Err(No::Asked);
            }
            Some(contact) if contact.standing == Standing::Asked && asks_first => {
                return Err(self.ask_first(w, settings, asks, imsi, writer));
            }
            None if asks_first => return Err(self.ask_first(w, settings, asks, imsi, writer)),
            Some(contact) => contact,
            None => Contact::new(writer.clone()),
        };
        follow(&mut contact, mail);
        let parts = self.parts_of(w, settings, mail, rcpt, &writer, subscriber.language);
        let sender = mail.from.as_ref().unwrap_or(&writer).key();
        self.count(w, work, Counted::Sender(sender), settings.per_sender_day_max)?;
        self.count(w, work, Counted::Phone(imsi), settings.per_phone_day_max)?;
        self.keep_contact(w, work, imsi, &mut contact, true)?;
        let text = |from, data| {
            Text::new(Recipient::Phone(imsi), from, shown(w.site, settings, &contact), Payload::Text(data))
        };
        let texts: Vec<_> = parts.into_iter().map(|data| text(from_mail(&writer), data)).collect();
        self.add_all(w, work, mail, rcpt, texts)
    }

    /// What a phone, or somebody behind a trunk, reads of it.
    fn parts_of(
        &self,
        w: &mut World<'_, '_>,
        settings: &Mail,
        mail: &MailIn,
        rcpt: &Rcpt,
        writer: &Address,
        language: Option<Language>,
    ) -> Vec<UserData> {
        let site = w.site;
        let words = Words::of(writer.as_str(), &mail.letter, settings.subject, files(site, mail, rcpt, language));
        let [reference] = w.ctx.rng.bytes();
        words.parts(settings.segments_max, Reference::Short(reference), |count| {
            site.settings.templates.say(language, Word::MAIL_CUT, &[("count", &count.to_string())])
        })
    }

    /// Makes all of these part of the work, the parts of one text or one text, with whom the mail is answered for; the number of the first one.
    fn add_all(
        &mut self,
        w: &mut World<'_, '_>,
        work: &mut Work,
        mail: &MailIn,
        rcpt: &Rcpt,
        texts: Vec<Text>,
    ) -> Result<u64, No> {
        let recipient = texts.first().ok_or(No::Store)?.recipient;
        self.room(w, work, recipient, texts.len())?;
        let letter = self.note_letter(w, work, mail, rcpt, texts.len());
        let mut first = None;
        for mut text in texts {
            if let Sender::Mail(from) = &mut text.sender {
                from.letter = letter;
            }
            let number = self.add(w, work, text)?;
            first.get_or_insert(number);
        }
        first.ok_or(No::Store)
    }

    /// The text of a phone at another box, as that box has it: its sender, its time, its octets, and what is left of its life.
    fn text_of_box(
        &mut self,
        w: &mut World<'_, '_>,
        work: &mut Work,
        mail: &MailIn,
        rcpt: &Rcpt,
        recipient: Recipient,
        sms: &Relayed,
    ) -> Result<u64, No> {
        if let Some(imsi) = recipient.phone() {
            let subscriber = w.site.subscribers.get(&imsi).ok_or(No::Gone)?;
            if subscriber.barred {
                return Err(No::Barred);
            }
        }
        if sms.hops > HOPS_MAX {
            return Err(No::Passed);
        }
        let data = &sms.data;
        let is_data = data.bytes.len() <= OCTETS_MAX && data.bytes.len() == data.coding.octets(data.length);
        if !is_data || data.header().is_err() || Oa::parse(&sms.from).is_err() {
            return Err(No::Unreadable);
        }
        let wall = w.wall();
        let accepted_ms = when(sms, wall.ms);
        // A clock that nobody has set knows of no time that has passed elsewhere.
        let passed_ms = if wall.trusted { wall.ms.saturating_sub(accepted_ms) } else { 0 };
        let life_ms = sms.life_ms.checked_sub(passed_ms).filter(|left| *left > 0).ok_or(No::Late)?;
        let from = FromMail { from: sms.from.clone(), letter: 0 };
        let text = Text {
            timestamp_s: accepted_ms / 1000,
            life_ms,
            single_shot: sms.single_shot,
            protocol: sms.protocol,
            reply_path: sms.reply_path,
            dialled: sms.to.clone(),
            ..Text::new(recipient, Sender::Mail(Box::new(from)), sms.from.clone(), Payload::Text(data.clone()))
        };
        let copies = copy_of(w.site, &text).into_iter().collect();
        let number = self.add_all(w, work, mail, rcpt, vec![text])?;
        self.add_copies(w, work, copies);
        Ok(number)
    }

    /// It is for a number that is not here: it goes on as a mail, or to a trunk as texts.
    #[allow(clippy::too_many_arguments, reason = "each is another thing")]
    fn goes_on(
        &mut self,
        w: &mut World<'_, '_>,
        settings: &Mail,
        work: &mut Work,
        mail: &MailIn,
        rcpt: &Rcpt,
        number: Msisdn,
        relayed: Option<&Relayed>,
    ) -> Result<u64, No> {
        let site = w.site;
        let writer = writer(mail).ok_or(No::Null)?.clone();
        if relayed.is_none() {
            let sender = mail.from.as_ref().unwrap_or(&writer).key();
            self.count(w, work, Counted::Sender(sender), settings.per_sender_day_max)?;
        }
        match (text_way(&site.settings, &number.to_string()), relayed) {
            (None, _) => Err(No::Nowhere),
            (Some(TextWay::Trunks), Some(sms)) => self.text_of_box(w, work, mail, rcpt, Recipient::Trunk(number), sms),
            (Some(TextWay::Trunks), None) => {
                let parts = self.parts_of(w, settings, mail, rcpt, &writer, None);
                let nobody = Contact::new(writer.clone());
                let text = |from, data| Text {
                    dialled: number.to_string(),
                    ..Text::new(Recipient::Trunk(number), from, shown(site, settings, &nobody), Payload::Text(data))
                };
                let texts: Vec<_> = parts.into_iter().map(|data| text(from_mail(&writer), data)).collect();
                self.add_all(w, work, mail, rcpt, texts)
            }
            (Some(TextWay::Mail(_)), _) => {
                let letter = &mail.letter;
                let words = [letter.text.clone(), files(site, mail, rcpt, None)];
                let words: Vec<&str> = words.iter().map(String::as_str).filter(|words| !words.is_empty()).collect();
                let passing = Passing {
                    number,
                    from: mail.from.clone(),
                    letter: self.note_letter(w, work, mail, rcpt, 1),
                    notify: rcpt.notify.unwrap_or(NOTIFY_UNSAID),
                    envid: mail.envid.clone(),
                    header_from: letter.from.clone(),
                    header_from_name: letter.from_name.clone(),
                    subject: letter.subject.clone(),
                    words: words.join("\n"),
                    message_id: letter.message_id.clone(),
                    traces: letter.traces.clone(),
                    automatic: letter.automatic,
                    relayed: relayed.cloned(),
                };
                self.forward_mail(w, work, passing).map_err(|not| match not {
                    NotPassed::Nowhere => No::Nowhere,
                    NotPassed::TooFar => No::Passed,
                    NotPassed::Full(full) => full.into(),
                })
            }
        }
    }

    /// Asks a phone once whether it wants mail of this sender, where it may be asked now.
    fn ask_first(
        &mut self,
        w: &mut World<'_, '_>,
        settings: &Mail,
        asks: &mut Work,
        imsi: Imsi,
        writer: Address,
    ) -> No {
        match self.try_ask(w, settings, asks, imsi, writer) {
            Ok(()) => No::Asked,
            Err(no) => no,
        }
    }

    fn try_ask(
        &mut self,
        w: &mut World<'_, '_>,
        settings: &Mail,
        asks: &mut Work,
        imsi: Imsi,
        writer: Address,
    ) -> Result<(), No> {
        let before = self.asked_contact(w, imsi)?;
        let mut contact = Contact::new(writer);
        let mut work = Work::default();
        self.keep_asked(w, &mut work, imsi, &mut contact)?;
        // Without a number of his own the answer is about whoever was asked about last: one question has been read before the next is asked.
        let waits = self.queues.contains_key(&Recipient::Phone(imsi));
        let is_other = |before: &Contact| before.address.key() != contact.address.key();
        let is_alone = before.filter(is_other).is_none_or(|before| !waits && is_over(w, before.at_ms, ASKED_ALONE));
        if contact.number.is_none() && !is_alone {
            return Err(No::Asked);
        }
        self.count(w, &mut work, Counted::Asked(imsi), ASKED_PER_DAY_MAX)?;
        self.count(w, &mut work, Counted::Phone(imsi), settings.per_phone_day_max)?;
        let shown = shown(w.site, settings, &contact);
        let values = [("from", contact.address.as_str()), ("code", &shown)];
        self.say_as(w, &mut work, imsi, &shown, Word::MAIL_ASK, &values)?;
        asks.absorb(work);
        Ok(())
    }

    /// What a phone says about somebody whom it was asked about, where it says yes or no: he is told so, and the phone, too.
    pub(in crate::sms) fn contact_decides(
        &mut self,
        w: &mut World<'_, '_>,
        work: &mut Work,
        imsi: Imsi,
        mut contact: Contact,
        words: &str,
    ) -> bool {
        let (Standing::Asked, Some(is_yes)) = (contact.standing, yes_or_no(words)) else { return false };
        if is_stale(w, &contact) {
            return false;
        }
        let Some(settings) = w.site.settings.mail.clone() else { return false };
        // Who is not wanted has no number any more.
        let shown = shown(w.site, &settings, &contact);
        contact.standing = if is_yes { Standing::Wanted } else { Standing::Unwanted };
        if let Err(error) = self.keep_contact(w, work, imsi, &mut contact, false) {
            crate::sms::end(w, &error);
            return true;
        }
        let word = if is_yes { Word::MAIL_WANTED } else { Word::MAIL_UNWANTED };
        // Without room for the words it is decided all the same.
        let _ = self.say_as(w, work, imsi, &shown, word, &[("from", contact.address.as_str())]);
        true
    }

    /// Words of the centre's own, shown as those of this number.
    fn say_as(
        &mut self,
        w: &mut World<'_, '_>,
        work: &mut Work,
        to: Imsi,
        shown: &str,
        word: Word,
        values: &[(&str, &str)],
    ) -> Result<(), Full> {
        let language = w.site.subscribers.get(&to).and_then(|subscriber| subscriber.language);
        let words = w.site.settings.templates.say(language, word, values);
        self.write_as(w, work, to, (shown, None), &words)
    }

    /// Keeps whom this mail is answered for, where somebody is to be told how it ends; its number, else 0.
    fn note_letter(&mut self, w: &mut World<'_, '_>, work: &mut Work, mail: &MailIn, rcpt: &Rcpt, parts: usize) -> u64 {
        let Some(letter) = letter_of(w, mail, rcpt, parts) else { return 0 };
        let number = self.take_number(work);
        self.keep_letter(w, work, number, &letter);
        number
    }
}

/// Whom it is answered for, of how many parts; nobody, where nobody is to be told.
fn letter_of(w: &World<'_, '_>, mail: &MailIn, rcpt: &Rcpt, parts: usize) -> Option<Letter> {
    let notify = rcpt.notify.unwrap_or(NOTIFY_UNSAID);
    if notify == Notify::default() || mail.letter.automatic {
        return None;
    }
    Some(Letter {
        from: mail.from.clone()?,
        to: rcpt.typed.clone(),
        orcpt: rcpt.orcpt.clone(),
        notify,
        envid: mail.envid.clone(),
        message_id: mail.letter.message_id.clone(),
        accepted_ms: w.wall().ms,
        headers: String::from_utf8_lossy(&mail.letter.headers).into_owned(),
        left: u32::try_from(parts).unwrap_or(u32::MAX),
        failed: None,
    })
}

/// Of several with one answer: who got it counts, and else who has to be asked.
fn one_for_all(taken: &[Taken]) -> Taken {
    let kept = taken.iter().find(|taken| matches!(taken, Taken::Kept(_) | Taken::Known(_)));
    let asked = || taken.iter().find(|taken| **taken == Taken::No(No::Asked));
    kept.or_else(asked).or(taken.first()).copied().unwrap_or(Taken::No(No::Gone))
}

/// Of a refusal: the log, and a line in the records of texts.
fn tell_of_no(w: &mut World<'_, '_>, mail: &MailIn, rcpt: &Rcpt, no: No) {
    let now_ms = w.wall().ms;
    let (code, _, why) = no.answer();
    w.event(Event::MailRefused { from: mail.peer.ip, code, why });
    let to_imsi = match rcpt.to {
        RcptTo::Phone(imsi) => Some(imsi),
        RcptTo::Elsewhere(_) => None,
    };
    let record = TextRecord {
        id: String::new(),
        accepted_ms: now_ms,
        ended_ms: now_ms,
        from: mail.from.as_ref().map_or_else(|| "<>".into(), ToString::to_string),
        to: rcpt.typed.to_string(),
        from_imsi: None,
        to_imsi,
        from_cell: mail.peer.ip.to_string(),
        to_cell: String::new(),
        kind: "mail",
        octets: mail.letter.text.len(),
        attempts: 0,
        outcome: TextOutcome::Refused,
        code,
        cause: 0,
        why: why.to_owned(),
    };
    w.ctx.out.send(Output::TextRecord(Box::new(record)));
}

fn goes_round(settings: &Mail, mail: &MailIn) -> Option<No> {
    let is_ours = |trace: &String| trace.eq_ignore_ascii_case(&settings.domain);
    if mail.letter.traces.iter().any(is_ours) {
        return Some(No::CameBack);
    }
    (mail.letter.received_count > settings.received_max).then_some(No::Passed)
}

/// Who writes.
fn writer(mail: &MailIn) -> Option<&Address> {
    mail.letter.from.as_ref().or(mail.from.as_ref())
}

/// The question about him is too old for an answer.
fn is_stale(w: &World<'_, '_>, contact: &Contact) -> bool {
    is_over(w, contact.at_ms, QUESTION_LIFE)
}

/// It answers something of this thread.
fn is_in_thread(contact: &Contact, mail: &MailIn) -> bool {
    mail.letter.references.iter().any(|reference| contact.references.contains(reference))
}

/// The thread goes on with this mail, or begins with it.
fn follow(contact: &mut Contact, mail: &MailIn) {
    let letter = &mail.letter;
    if !is_in_thread(contact, mail) {
        contact.references.clear();
        letter.references.iter().for_each(|reference| contact.wrote(reference));
    }
    if let Some(message_id) = &letter.message_id {
        contact.wrote(message_id);
    }
    contact.reply_to = letter.reply_to.clone().filter(|address| *address != contact.address);
    contact.subject = words::plain_subject(&letter.subject).to_owned();
}

/// As whose number a contact writes.
fn shown(site: &Site, settings: &Mail, contact: &Contact) -> String {
    let number = contact.number.or(settings.short_code);
    number.map_or_else(|| site.settings.messages.service_centre.clone(), |number| number.to_string())
}

/// What makes a copy of this mail known to this recipient.
fn copy_digest(mail: &MailIn, rcpt: &Rcpt) -> [u8; 16] {
    let from = mail.from.as_ref().map_or("", Address::as_str);
    let to = match rcpt.to {
        RcptTo::Phone(imsi) => format!("IMSI{imsi}"),
        RcptTo::Elsewhere(number) => number.to_string(),
    };
    let letter = &mail.letter;
    match &letter.message_id {
        Some(id) => digest(b"mail", &[from, &to, id, &letter.subject, &letter.text].map(str::as_bytes)),
        None => digest(b"octets", &[from.as_bytes(), to.as_bytes(), &letter.digest]),
    }
}

fn from_mail(writer: &Address) -> Sender {
    Sender::Mail(Box::new(FromMail { from: writer.to_string(), letter: 0 }))
}

/// What is said of its files; nothing where there are none.
fn files(site: &Site, mail: &MailIn, rcpt: &Rcpt, language: Option<Language>) -> String {
    let files = words::files(&mail.letter.attachments);
    let templates = &site.settings.templates;
    match &rcpt.link {
        _ if files.is_empty() => String::new(),
        None => templates.say(language, Word::MAIL_FILES, &[("files", &files)]),
        Some(url) => templates.say(language, Word::MAIL_LINK, &[("files", &files), ("url", url)]),
    }
}

/// What was answered to this mail, where it has come before.
fn seen(w: &mut World<'_, '_>, copy: &[u8; 16]) -> Result<Option<Seen>, No> {
    let bytes = w.store(StoreId::Messages)?.get(&record::seen_key(copy))?;
    let seen = bytes.and_then(|bytes| record::decode_seen(&bytes));
    Ok(seen.filter(|seen| !is_over(w, seen.at_ms, COPY_WINDOW)))
}

/// Notes what a copy is answered.
fn remember(w: &World<'_, '_>, work: &mut Work, copy: [u8; 16], code: u16, number: u64) {
    let now_ms = w.wall().ms;
    let key = record::seen_key(&copy);
    work.put(key.clone(), record::encode_seen(&Seen { at_ms: now_ms, code, number }));
    work.old(now_ms, COPY_WINDOW, number, OldOf::Mail, vec![key]);
}

/// What a phone says to a question, in a language of those who use it; nothing, where it says more or something else. What people also say to
/// one another, as *ok* or a letter, is no answer to us: by it a stranger would be let in.
fn yes_or_no(words: &str) -> Option<bool> {
    const YES: &[&str] = &[
        "yes",
        "ja",
        "oui",
        "si",
        "sí",
        "sì",
        "sim",
        "ndiyo",
        "ndio",
        "da",
        "tak",
        "ano",
        "igen",
        "evet",
        "kyllä",
        "yebo",
        "да",
        "так",
        "ναι",
        "نعم",
        "हाँ",
        "हां",
        "是",
        "はい",
    ];
    const NO: &[&str] = &[
        "no",
        "nein",
        "nee",
        "nej",
        "nei",
        "non",
        "não",
        "nao",
        "hapana",
        "nie",
        "ne",
        "nem",
        "hayır",
        "hayir",
        "ei",
        "нет",
        "ні",
        "όχι",
        "لا",
        "नहीं",
        "不",
        "いいえ",
        "stop",
    ];
    let word = words.trim_matches(|char: char| char.is_whitespace() || char.is_ascii_punctuation()).to_lowercase();
    match word.as_str() {
        word if YES.contains(&word) => Some(true),
        word if NO.contains(&word) => Some(false),
        _ => None,
    }
}
