//! A text becomes a mail.
//!
//! | what a phone texts | what leaves |
//! |---|---|
//! | an address and words, to the short code or to a number of the pool | a mail to each address |
//! | words, to a number of the pool, or where there is no pool to the short code | an answer to who has that number, or wrote last |
//! | anything, to a number that a `[[mail_route]]` has | one mail; to another box each TPDU as it is |
//! | anything, to a subscriber who wants copies | one mail to his mailbox, from nobody |
//!
//! Knows: that the parts of a text end in the batch that adds its mails, so that a crash finds the one or the other; that nobody is told of that
//! end, because the mail has the wishes for reports. Where several addresses are written to, the first one's mail has them, so that a phone gets one
//! report for each part that it sent. Does not know: what an address is ([`super::compose`]), how a mail leaves ([`super::leave`]), who is told what
//! became of it.
//! Who writes to an address wants the answer, whatever he said of it before.
//! Copies are made of what phones and trunks write to a subscriber. What came as a mail he can have in his mailbox without us, and what the centre
//! itself says is of no interest there. A copy that finds no room is left out, and counted; the text is taken.
//! Limits: [`RECIPIENTS_MAX`](super::compose::RECIPIENTS_MAX) addresses; `[mail] count_max` and `life_max`; [`HOPS_MAX`] boxes.

use crate::config::mailing::MailRoute;
use crate::config::words::Word;
use crate::event::Event;
use crate::gsm::report::Status;
use crate::ident::{Imsi, Msisdn};
use crate::mail::address::Address;
use crate::mail::{AutoSubmitted, Body, MailOut, Notify, Relayed};
use crate::route::dialplan::{TextWay, text_way};
use crate::seam::TextOutcome;
use crate::site::{Site, World};
use crate::sms::aging::life_max;
use crate::sms::code::{self, Question};
use crate::sms::ending::End;
use crate::sms::mail::compose::{Composed, MAIL_PROTOCOL, Written, compose, first_words};
use crate::sms::mail::contact::{Contact, Standing};
use crate::sms::record::{FromMail, Outgoing, Payload, Recipient, ReportWish, Sender, Text};
use crate::sms::whole::{self, Whole};
use crate::sms::{Centre, Full, Work, end, form, millis, shift_ms};

/// A text that so many boxes have passed on goes nowhere: they pass it round.
pub(in crate::sms) const HOPS_MAX: u32 = 10;
/// Not before this software was there: a clock that nobody has set says 1970, and such a mail looks like one of a forger.
pub(super) const DATE_MIN_S: u64 = 1_793_491_200;

/// What a number means for mail.
#[derive(Clone, Copy)]
pub(in crate::sms) enum Behind<'a> {
    /// The short code; `is_centre`: it is the service centre's own number, too, and tells who asks his own.
    ShortCode { is_centre: bool },
    /// Of the pool: somebody who writes to this phone has it.
    Pool,
    /// It is nobody's here.
    Route(&'a MailRoute),
}

/// What is behind this number; `None`: no mail.
pub(in crate::sms) fn behind(site: &Site, code: Msisdn) -> Option<Behind<'_>> {
    let settings = &site.settings;
    let mail = settings.mail.as_ref()?;
    if settings.short_codes.iter().any(|short| short.number.digits() == code.digits()) {
        return None;
    }
    let centre = Msisdn::parse(&settings.messages.service_centre).ok();
    let is_centre = centre.is_some_and(|centre| centre.digits() == code.digits());
    let is_short = mail.short_code.map_or(is_centre, |short| short.digits() == code.digits());
    match () {
        () if is_short => Some(Behind::ShortCode { is_centre }),
        () if is_centre => None,
        () if mail.is_in_pool(&code) => Some(Behind::Pool),
        () if site.resolve(&code.to_string()).is_some() => None,
        () => match text_way(settings, &code.to_string())? {
            TextWay::Mail(route) => mail.routes.get(route).map(Behind::Route),
            TextWay::Trunks => None,
        },
    }
}

/// A mail to be.
struct Draft {
    from: Option<Address>,
    to: Address,
    header_from: Address,
    header_from_name: String,
    subject: String,
    body: Body,
    in_reply_to: Option<String>,
    references: Vec<String>,
    auto_submitted: AutoSubmitted,
    /// The domains of the boxes that had it before.
    traces: Vec<String>,
    /// Who hears what becomes of it.
    reports: Vec<ReportWish>,
    letter: u64,
    sender: Sender,
    /// With whom the sender talks, as it is known before this mail.
    contact: Option<Contact>,
    /// Of a mail that passes: what its writer asked of us, and how long it may live yet, milliseconds.
    passes: Option<(Notify, Option<String>, Option<u64>)>,
}

/// A mail for a number that is not here.
pub(in crate::sms) struct Passing {
    pub(in crate::sms) number: Msisdn,
    /// MAIL FROM, and who hears what becomes of it ([`FromMail::letter`]).
    pub(in crate::sms) from: Option<Address>,
    pub(in crate::sms) letter: u64,
    pub(in crate::sms) notify: Notify,
    pub(in crate::sms) envid: Option<String>,
    /// The first address of its From, and the name before it.
    pub(in crate::sms) header_from: Option<Address>,
    pub(in crate::sms) header_from_name: String,
    pub(in crate::sms) subject: String,
    pub(in crate::sms) words: String,
    pub(in crate::sms) message_id: Option<String>,
    pub(in crate::sms) traces: Vec<String>,
    /// Nobody may answer it.
    pub(in crate::sms) automatic: bool,
    /// As another box of ours has it.
    pub(in crate::sms) relayed: Option<Relayed>,
}

/// Why it does not go on.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(in crate::sms) enum NotPassed {
    /// No route has this number.
    Nowhere,
    /// It has been passed on by as many boxes as may.
    TooFar,
    Full(Full),
}

impl Draft {
    /// From this phone, as whoever has its number.
    fn of_phone(site: &Site, imsi: Imsi, to: Address, subject: String, body: Body) -> Option<Draft> {
        let from = address_of_phone(site, imsi)?;
        Some(Draft {
            from: Some(from.clone()),
            to,
            header_from: from,
            header_from_name: code::name(site, imsi).to_owned(),
            subject,
            body,
            in_reply_to: None,
            references: Vec::new(),
            auto_submitted: AutoSubmitted::No,
            traces: Vec::new(),
            reports: Vec::new(),
            letter: 0,
            sender: Sender::Phone(imsi),
            contact: None,
            passes: None,
        })
    }
}

impl Centre {
    // --- What a phone has texted to a number that is for mail ---

    /// Makes mails of it, or tells its sender why not; `false`: it is no business of mail's.
    pub(in crate::sms) fn becomes_mail(
        &mut self,
        w: &mut World<'_, '_>,
        question: &Question,
        behind: Behind<'_>,
    ) -> bool {
        let texts: Vec<&Text> = question.texts.iter().collect();
        let marked = texts.iter().any(|text| text.protocol == MAIL_PROTOCOL);
        let is_centre = matches!(behind, Behind::ShortCode { is_centre: true });
        let words = match whole::words(w, &texts) {
            Ok(words) => words,
            Err(_) if is_centre && !marked => return false,
            Err(why) => {
                self.not_a_mail(w, question, why);
                return true;
            }
        };
        if let Behind::Route(route) = behind {
            self.write_to_route(w, question, route, words);
            return true;
        }
        match compose(&words, marked) {
            Written::Mail(composed) => self.write_to(w, question, composed),
            // Who answers may begin as he likes.
            Written::Wrong { what, why } if marked || !matches!(behind, Behind::Pool) => {
                self.not_a_mail(w, question, &format!("{what}: {why}"));
            }
            Written::Wrong { .. } | Written::Words => return self.answer_mail(w, question, behind, words),
        }
        true
    }

    fn write_to(&mut self, w: &mut World<'_, '_>, question: &Question, composed: Composed) {
        let Composed { to, subject, words } = composed;
        if subject.is_empty() && words.is_empty() {
            return self.say_how(w, question);
        }
        // It would come back to us as a mail, and be told from a loop by nothing.
        let domain = w.site.settings.mail.as_ref().map_or("", |mail| &mail.domain);
        if let Some(here) = to.iter().find(|address| address.domain() == domain) {
            let why = format!("{here} is here: text to the number");
            return self.not_a_mail(w, question, &why);
        }
        let subject = if subject.is_empty() { first_words(&words) } else { subject };
        let mut drafts = Vec::new();
        for address in to {
            let known = match self.contact(w, &Work::default(), question.sender, address.key()) {
                Ok(known) => known,
                Err(error) => return end(w, &error),
            };
            // A new thread: what was said in another one is not answered.
            let contact = match known {
                Some(known) => Contact { references: Vec::new(), ..known },
                None => Contact::new(address.clone()),
            };
            let contact = Contact { standing: Standing::Wanted, subject: subject.clone(), ..contact };
            let draft = Draft::of_phone(w.site, question.sender, address, subject.clone(), Body::Text(words.clone()));
            drafts.extend(draft.map(|draft| Draft { contact: Some(contact), ..draft }));
        }
        self.leave_as_mail(w, question, drafts);
    }

    /// `false`: there is nobody to answer, and the number has another meaning.
    fn answer_mail(&mut self, w: &mut World<'_, '_>, question: &Question, behind: Behind<'_>, words: String) -> bool {
        let contact = match behind {
            Behind::Pool => self.contact_at(w, question.sender, question.code),
            Behind::ShortCode { .. } => self.last_contact(w, question.sender),
            Behind::Route(_) => Ok(None),
        };
        let contact = match contact {
            Ok(contact) => contact,
            Err(error) => {
                end(w, &error);
                return true;
            }
        };
        let asked = match behind {
            Behind::ShortCode { .. } => self.asked_contact(w, question.sender).ok().flatten(),
            _ => contact.clone(),
        };
        if let Some(asked) = asked {
            let texts: Vec<&Text> = question.texts.iter().collect();
            let mut work = Work::default();
            work.will_end(&texts);
            if self.contact_decides(w, &mut work, question.sender, asked, &words) {
                let end = End::new(TextOutcome::Answered, Status::RECEIVED, "it says who may write");
                self.conclude(w, &texts, &end, work, true);
                return true;
            }
        }
        // What is written to somebody about whom the phone was asked, or who is not wanted, is not meant for him.
        let contact = contact.filter(|contact| matches!(contact.standing, Standing::Open | Standing::Wanted));
        let Some(contact) = contact else {
            match behind {
                Behind::ShortCode { is_centre: true } => return false,
                Behind::ShortCode { .. } | Behind::Route(_) => self.say_how(w, question),
                Behind::Pool => {
                    let end =
                        End::new(TextOutcome::Failed, Status::NOT_OBTAINABLE, "nobody has written from there of late");
                    let code = question.code.to_string();
                    self.tell(w, question, end, Word::MAIL_UNKNOWN, &[("code", &code)]);
                }
            }
            return true;
        };
        let about = if contact.subject.is_empty() { first_words(&words) } else { contact.subject.clone() };
        let to = contact.reply_to.as_ref().unwrap_or(&contact.address).clone();
        let subject = format!("Re: {about}");
        let draft = Draft::of_phone(w.site, question.sender, to, subject, Body::Text(words));
        let draft = draft.map(|draft| Draft {
            in_reply_to: contact.references.last().cloned(),
            references: contact.references.clone(),
            contact: Some(contact),
            ..draft
        });
        self.leave_as_mail(w, question, draft.into_iter().collect());
        true
    }

    fn write_to_route(&mut self, w: &mut World<'_, '_>, question: &Question, route: &MailRoute, words: String) {
        let Some(to) = route_address(route, question.code) else {
            return self.not_a_mail(w, question, "its route leads nowhere");
        };
        let subject = first_words(&words);
        let draft = Draft::of_phone(w.site, question.sender, to, subject, Body::Text(words));
        self.leave_as_mail(w, question, draft.into_iter().collect());
    }

    /// A text to a number that is at another box: as the phone sent it, whatever is in it, and each part by itself.
    pub(in crate::sms) fn forward_to_box(&mut self, w: &mut World<'_, '_>, question: Question, route: &MailRoute) {
        let (Some(text), Some(to)) = (question.texts.first(), route_address(route, question.code)) else {
            return self.not_a_mail(w, &question, "its route leads nowhere");
        };
        let Some(data) = text.data() else { return self.gone(w, &question) };
        let sms = Relayed {
            from: text.shown.clone(),
            to: text.dialled.clone(),
            accepted_ms: text.accepted_ms.saturating_add(shift_ms(w, text.accepted_ms)),
            life_ms: text.life_ms.min(millis(life_max(w, text.recipient))),
            single_shot: text.single_shot,
            protocol: text.protocol,
            reply_path: text.reply_path,
            hops: 1,
            data: data.clone(),
        };
        let words = form::words(&[text]).unwrap_or_default();
        let subject = first_words(&words);
        let draft = Draft::of_phone(w.site, question.sender, to, subject, Body::Sms { words, sms });
        self.leave_as_mail(w, &question, draft.into_iter().collect());
    }

    // --- The batch ---

    /// Ends what was texted, and adds these mails: all of them, or none, and the sender is told why.
    fn leave_as_mail(&mut self, w: &mut World<'_, '_>, question: &Question, mut drafts: Vec<Draft>) {
        let texts: Vec<&Text> = question.texts.iter().collect();
        if drafts.is_empty() {
            return self.not_a_mail(w, question, "it has no address here");
        }
        if let Some(first) = drafts.first_mut() {
            let wishes = texts.iter().filter(|text| text.report_wanted);
            let wish = |text: &&Text| ReportWish {
                reference: text.reference,
                dialled: text.dialled.clone(),
                accepted_s: text.timestamp_s,
            };
            first.reports = wishes.map(wish).collect();
        }
        let mut work = Work::default();
        work.will_end(&texts);
        let mut numbers = Vec::new();
        for draft in drafts {
            let to = draft.to.clone();
            match self.add_mail(w, &mut work, &texts, draft) {
                Ok(number) => numbers.push(number.to_string()),
                Err(full) => return self.no_room(w, question, &to, full),
            }
        }
        let end = as_mail(&numbers).goes_on();
        self.conclude(w, &texts, &end, work, true);
    }

    /// One mail, as a part of this work: with its number, and what its sender's phone knows of whom it is for. It lives as long as a mail may, and
    /// where its sender has said how long his text may, no longer.
    fn add_mail(&mut self, w: &mut World<'_, '_>, work: &mut Work, texts: &[&Text], draft: Draft) -> Result<u64, Full> {
        let Some(mail) = w.site.settings.mail.as_ref() else { return Err(Full::Centre) };
        let domain = mail.domain.clone();
        let recipient = Recipient::Mail(draft.to.key());
        let longest = life_max(w, recipient);
        let whole_life_ms = millis(w.site.settings.messages.life_max);
        let limited = texts.iter().filter(|text| text.life_ms < whole_life_ms);
        let left = limited.map(|text| self.left(w, text)).min();
        // Of the next text, which is this one.
        let number = self.next_number;
        let message_id = format!("{number}.{:016x}@{domain}", w.ctx.rng.u64());
        let asks = !draft.reports.is_empty();
        let failure = draft.from.is_some();
        let ours = (Notify { success: asks, failure, delay: false }, failure.then(|| message_id.clone()), None);
        let (notify, envid, passing_ms) = draft.passes.unwrap_or(ours);
        let longest_ms = millis(longest).min(passing_ms.unwrap_or(u64::MAX));
        let mut traces = draft.traces;
        traces.push(domain);
        let mail = MailOut {
            notify,
            envid,
            from: draft.from,
            to: draft.to.clone(),
            header_from: draft.header_from,
            header_from_name: draft.header_from_name,
            subject: draft.subject,
            body: draft.body,
            message_id: message_id.clone(),
            in_reply_to: draft.in_reply_to,
            references: draft.references,
            date_s: date_s(w),
            auto_submitted: draft.auto_submitted,
            traces,
        };
        let first = texts.first();
        let shown = match (first, &draft.sender) {
            (Some(text), _) => text.shown.clone(),
            (None, Sender::Mail(mail)) => mail.from.clone(),
            (None, _) => String::new(),
        };
        let phone = draft.sender.phone();
        let outgoing = Box::new(Outgoing { mail, reports: draft.reports, letter: draft.letter });
        let text = Text {
            came_from: first.and_then(|text| text.came_from),
            life_ms: left.map_or(longest_ms, |left| millis(left).min(longest_ms)).max(1),
            report_wanted: asks,
            reference: first.map_or(0, |text| text.reference),
            dialled: draft.to.to_string(),
            ..Text::new(recipient, draft.sender, shown, Payload::Mail(outgoing))
        };
        let given = self.add(w, work, text)?;
        debug_assert_eq!(given, number, "the Message-ID bears the number of its text");
        if let (Some(mut contact), Some(imsi)) = (draft.contact, phone) {
            contact.wrote(&message_id);
            self.keep_contact(w, work, imsi, &mut contact, false).map_err(|_| Full::Store)?;
        }
        Ok(given)
    }

    // --- Mail that passes through us ---

    /// A mail for a number that is not here goes on, as a part of this work: by the route that has the number, and what another box has
    /// told of it with it. The number of the text that it is.
    pub(in crate::sms) fn forward_mail(
        &mut self,
        w: &mut World<'_, '_>,
        work: &mut Work,
        passing: Passing,
    ) -> Result<u64, NotPassed> {
        let (site, number) = (w.site, passing.number);
        let Some(Behind::Route(route)) = behind(site, number) else { return Err(NotPassed::Nowhere) };
        let to = route_address(route, number).ok_or(NotPassed::Nowhere)?;
        let hops = passing.relayed.as_ref().map_or(0, |sms| sms.hops);
        if hops >= HOPS_MAX {
            return Err(NotPassed::TooFar);
        }
        let now_ms = w.wall().ms;
        let left = |sms: &Relayed| when(sms, now_ms).saturating_add(sms.life_ms).saturating_sub(now_ms);
        let left_ms = passing.relayed.as_ref().map(left);
        let body = match passing.relayed {
            Some(sms) if route.is_box => {
                let sms = Relayed { hops: hops + 1, accepted_ms: when(&sms, now_ms), ..sms };
                Body::Sms { words: passing.words, sms }
            }
            _ => Body::Text(passing.words),
        };
        let from = passing.from.as_ref().map_or_else(|| "<>".to_owned(), ToString::to_string);
        let unknown = || address_of_number(site, "postmaster");
        let header_from = passing.header_from.or_else(|| passing.from.clone()).or_else(unknown);
        let draft = Draft {
            from: passing.from,
            to,
            header_from: header_from.ok_or(NotPassed::Nowhere)?,
            header_from_name: passing.header_from_name,
            subject: passing.subject,
            body,
            in_reply_to: None,
            references: passing.message_id.into_iter().collect(),
            auto_submitted: if passing.automatic { AutoSubmitted::Generated } else { AutoSubmitted::No },
            traces: passing.traces,
            reports: Vec::new(),
            letter: passing.letter,
            sender: Sender::Mail(Box::new(FromMail { from, letter: passing.letter })),
            contact: None,
            passes: Some((passing.notify, passing.envid, left_ms)),
        };
        self.add_mail(w, work, &[], draft).map_err(NotPassed::Full)
    }

    // --- What becomes of a text that makes no mail ---

    fn no_room(&mut self, w: &mut World<'_, '_>, question: &Question, to: &Address, full: Full) {
        let end = End::new(TextOutcome::Failed, Status::NOT_OBTAINABLE, "as many mails wait as may");
        match full {
            Full::Recipient => self.tell(w, question, end, Word::TOO_MANY_FOR_ONE, &[("number", to.as_str())]),
            Full::Centre | Full::Store => {
                let (why, code) = (end.why.clone(), question.code.to_string());
                self.tell(w, question, end, Word::NOT_A_TEXT, &[("number", &code), ("why", &why)]);
            }
        }
    }

    fn not_a_mail(&mut self, w: &mut World<'_, '_>, question: &Question, why: &str) {
        let end = End::new(TextOutcome::Failed, Status::INCOMPATIBLE_DESTINATION, why);
        let code = question.code.to_string();
        self.tell(w, question, end, Word::NOT_A_TEXT, &[("number", &code), ("why", why)]);
    }

    fn say_how(&mut self, w: &mut World<'_, '_>, question: &Question) {
        let end = End::new(TextOutcome::Failed, Status::NOT_OBTAINABLE, "it names no address, and answers nobody");
        let code = question.code.to_string();
        self.tell(w, question, end, Word::MAIL_HOW, &[("code", &code)]);
    }

    /// The sender is told, and his text ends, which leaves room for the words.
    fn tell(&mut self, w: &mut World<'_, '_>, question: &Question, end: End, word: Word, values: &[(&str, &str)]) {
        let texts: Vec<&Text> = question.texts.iter().collect();
        let mut work = Work::default();
        work.will_end(&texts);
        self.say_back(w, &mut work, question, word, values);
        self.conclude(w, &texts, &end.told(), work, true);
    }

    // --- Copies ---

    /// Puts copies of one text into the queue of a mailbox; where there is no room there are none.
    pub(in crate::sms) fn add_copies(&mut self, w: &mut World<'_, '_>, work: &mut Work, copies: Vec<Text>) {
        let Some(first) = copies.first() else { return };
        let (recipient, count) = (first.recipient, copies.len());
        let is_room = self.room(w, work, recipient, count).is_ok();
        let is_added = is_room && copies.into_iter().all(|copy| self.add(w, work, copy).is_ok());
        if let (false, Recipient::Copy(imsi)) = (is_added, recipient) {
            w.event(Event::CopyLeftOut { imsi });
        }
    }

    /// The head of the copies for this subscriber's mailbox has its turn.
    pub(in crate::sms) fn copy_to_mail(&mut self, w: &mut World<'_, '_>, imsi: Imsi, text: Text) {
        let texts = match self.whole(w, text) {
            Ok(Whole::Ready(texts)) => texts,
            Ok(Whole::Missing { wait }) => return self.wait_for_parts(w, Recipient::Copy(imsi), wait),
            Err(error) => return end(w, &error),
        };
        let texts: Vec<&Text> = texts.iter().collect();
        let (draft, why) = match copy(w, imsi, &texts) {
            Ok(draft) => (Some(draft), ""),
            Err(why) => (None, why),
        };
        let mut work = Work::default();
        work.will_end(&texts);
        let added = draft.map(|draft| self.add_mail(w, &mut work, &texts, draft));
        let over = match added {
            Some(Ok(number)) => as_mail(&[number.to_string()]),
            Some(Err(_)) => {
                work = Work::default();
                w.event(Event::CopyLeftOut { imsi });
                End::new(TextOutcome::Failed, Status::NOT_OBTAINABLE, "as many mails wait as may")
            }
            None => End::new(TextOutcome::Failed, Status::NOT_OBTAINABLE, why),
        };
        self.conclude(w, &texts, &over, work, true);
    }
}

fn as_mail(numbers: &[String]) -> End {
    let mails = if numbers.len() == 1 { "mail" } else { "mails" };
    End::new(TextOutcome::Answered, Status::FORWARDED, format!("it leaves as {mails} {}", numbers.join(", ")))
}

/// What a subscriber who wants copies gets of this text.
pub(in crate::sms) fn copy_of(site: &Site, text: &Text) -> Option<Text> {
    let imsi = text.recipient.phone()?;
    site.settings.mail.as_ref()?;
    site.subscribers.get(&imsi)?.mail.as_ref()?.copy_to.as_ref()?;
    let (dialled, life_ms) = (String::new(), 0);
    let (single_shot, report_wanted) = (false, false);
    Some(Text { recipient: Recipient::Copy(imsi), dialled, life_ms, single_shot, report_wanted, ..text.clone() })
}

/// Errors: there is none; why.
fn copy(w: &World<'_, '_>, imsi: Imsi, texts: &[&Text]) -> Result<Draft, &'static str> {
    let site = w.site;
    let subscriber = site.subscribers.get(&imsi).and_then(|subscriber| subscriber.mail.as_ref());
    let to = subscriber.and_then(|mail| mail.copy_to.clone()).ok_or("he wants no copies any more")?;
    let first = texts.first().ok_or("there is no text")?;
    let words = whole::words(w, texts)?;
    let (header_from, header_from_name) = match &first.sender {
        Sender::Phone(sender) => (address_of_phone(site, *sender), code::name(site, *sender).to_owned()),
        _ => (address_of_number(site, &first.shown), String::new()),
    };
    Ok(Draft {
        from: None,
        to,
        header_from: header_from.ok_or("its sender has no address")?,
        header_from_name,
        subject: first_words(&words),
        body: Body::Text(words),
        in_reply_to: None,
        references: Vec::new(),
        auto_submitted: AutoSubmitted::Generated,
        traces: Vec::new(),
        reports: Vec::new(),
        letter: 0,
        sender: Sender::Centre,
        contact: None,
        passes: None,
    })
}

fn address_of_phone(site: &Site, imsi: Imsi) -> Option<Address> {
    let who = code::number(site, imsi).unwrap_or_else(|| format!("imsi{imsi}"));
    address_of_number(site, &who)
}

fn address_of_number(site: &Site, who: &str) -> Option<Address> {
    Address::parse(&site.settings.mail.as_ref()?.address_of(who)).ok()
}

fn route_address(route: &MailRoute, number: Msisdn) -> Option<Address> {
    Address::parse(&route.to.replace("{number}", &number.to_string())).ok()
}

/// When another box took it; now, where its clock was not set then.
pub(super) fn when(sms: &Relayed, now_ms: u64) -> u64 {
    let is_set = |ms: u64| ms >= DATE_MIN_S * 1000;
    if is_set(now_ms) && !is_set(sms.accepted_ms) { now_ms } else { sms.accepted_ms }
}

/// Date of a mail that is written now.
///
/// Units: seconds since 1970.
pub(in crate::sms) fn date_s(w: &World<'_, '_>) -> u64 {
    let wall = w.wall();
    let now_s = wall.ms / 1000;
    if wall.trusted { now_s } else { now_s.max(DATE_MIN_S) }
}
