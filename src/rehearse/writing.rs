//! Scenes of mail: who writes to whom, and what each must see.
//!
//! Knows: what Carol, who has a mail program, and a phone expect of each other, and what the box may never do for a stranger. Does not know: how the box
//! does it. A scene has its phone to itself; Carol plays in all of them at once, and knows mails apart by their words.
//! Limits: those of [`super::scenes`]; [`HANDED_OVER_WAIT`].

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use super::mail::{Answer, Mail, Server, hand_in};
use super::report::{Act, SceneRow};
use super::scenes::{ARRIVAL_WAIT, Actor, Company, LONG_PARTS, MARK, fail};
use super::text::Text;
use crate::config::mailing::NumberRange;
use crate::ident::Msisdn;

/// From the 202 until the mail is at its server. A box that found no server before tries again after a while only.
const HANDED_OVER_WAIT: Duration = Duration::from_secs(12);
const CAROL: &str = "carol@example.org";
/// Somebody for whom the box is no relay, and the same in disguise.
const STRANGER: &str = "dave@elsewhere.example";
/// Where the other end of a mail is, in the column of cells.
const MAIL: &str = "mail";

/// What mail needs beside the phones.
#[derive(Clone, Debug)]
pub struct Post {
    /// Where the box takes mail in, by SMTP.
    pub server: SocketAddr,
    /// Where it hands mail over: the address to bind for Carol's server.
    pub relay: SocketAddr,
    /// The box's mail domain.
    pub domain: String,
    /// The number to which an address and words are texted.
    pub code: String,
    /// As whose texts mails come; empty: as those of `code`.
    pub pool: Vec<NumberRange>,
    /// How many parts a mail may become.
    pub parts_max: usize,
}

/// Carol and her server.
pub(super) struct Carol<'a> {
    pub post: &'a Post,
    server: Server,
}

impl Carol<'_> {
    /// Errors: the address of her server is taken.
    pub fn new(post: &Post) -> std::io::Result<Carol<'_>> {
        Ok(Carol { post, server: Server::new(post.relay, |_| Ok(()))? })
    }

    /// Whether somebody who writes mail has this number.
    fn is_writer(&self, number: &str) -> bool {
        let has = |number: &Msisdn| self.post.pool.iter().any(|range| range.has(number));
        match self.post.pool.is_empty() {
            true => number == self.post.code,
            false => Msisdn::parse(number).is_ok_and(|number| has(&number)),
        }
    }
}

/// A mail of Carol's, before it is text.
struct Draft<'a> {
    id: String,
    subject: &'a str,
    /// Of the mail that it answers, and its words.
    answers: Option<(&'a str, &'a str)>,
    words: &'a str,
}

impl Draft<'_> {
    fn text(&self, to: &str) -> String {
        let Draft { id, subject, words, .. } = self;
        let mut text = format!(
            "From: Carol <{CAROL}>\nTo: <{to}>\nDate: Sun, 01 Nov 2026 12:00:00 +0000\nMessage-ID: <{id}>\nSubject: {subject}\n\
             MIME-Version: 1.0\nContent-Type: text/plain; charset=utf-8\nContent-Transfer-Encoding: 8bit\n"
        );
        if let Some((id, _)) = self.answers {
            text += &format!("In-Reply-To: <{id}>\nReferences: <{id}>\n");
        }
        text += &format!("\n{words}\n");
        if let Some((_, quoted)) = self.answers {
            text += &format!("\n> {quoted}\n\n-- \nCarol\n");
        }
        text
    }
}

impl Company<'_> {
    /// An address and words; her answer; an answer to that without an address.
    pub(super) fn exchange(&self, phone: &Actor) -> Vec<SceneRow> {
        let Some(carol) = &self.mail else { return Vec::new() };
        let mut first =
            self.mail_row(Some(phone), true, "an address and words", "taken with 202; a mail from the phone's number");
        let words = self.mail_words(&phone.number, "Carol");
        let text = format!("{CAROL} {words}");
        let Some(mail) = self.must_become_mail(&mut first, carol, phone, &carol.post.code, &text, &words) else {
            return vec![first];
        };
        let id = mail.ids("Message-ID").pop().unwrap_or_default();
        if !id.ends_with(&format!("@{}", carol.post.domain)) {
            first.faults.push(format!("its Message-ID is {id:?}, not one of {}", carol.post.domain));
        }
        if let Some(other) = mail.header("In-Reply-To") {
            first.faults.push(format!("a mail that answers nothing has In-Reply-To: {other}"));
        }

        let mut second =
            self.mail_row(Some(phone), false, "her answer, signed and quoting", "250; her words alone on the phone");
        let answer = self.mail_words("Carol", &phone.number);
        let subject = format!("Re: {}", mail.header("Subject").unwrap_or_default());
        let draft =
            Draft { id: self.mail_id("answer"), subject: &subject, answers: Some((&id, &words)), words: &answer };
        let shown = self
            .must_be_kept(&mut second, carol, phone, ("", ""), &draft)
            .and_then(|kept| self.must_be_shown(&mut second, carol, phone, &answer, kept.at));
        let Some(shown) = shown else { return vec![first, second] };
        if shown.text != format!("{CAROL}: {answer}") {
            second.faults.push(format!("the phone shows {:?}, not her address and her words", shown.text));
        }

        let scene = "an answer without an address";
        let mut third = self.mail_row(Some(phone), true, scene, "taken with 202; a mail that answers hers");
        let words = self.mail_words(&phone.number, "Carol again");
        if let Some(mail) = self.must_become_mail(&mut third, carol, phone, &shown.from, &words, &words) {
            if mail.ids("In-Reply-To") != [draft.id.clone()] {
                third.faults.push(format!(
                    "its In-Reply-To is {:?}, not her mail {}",
                    mail.ids("In-Reply-To"),
                    draft.id
                ));
            }
            let references = mail.ids("References");
            if !references.contains(&id) || !references.contains(&draft.id) {
                third.faults.push(format!("its References are {references:?}: the thread is torn"));
            }
            if !mail.header("Subject").is_some_and(|subject| subject.starts_with("Re: ")) {
                third.faults.push(format!("its Subject is {:?}, not that of an answer", mail.header("Subject")));
            }
            third.saw += ", in the same thread";
        }
        vec![first, second, third]
    }

    pub(super) fn long_mail(&self, to: &Actor) -> SceneRow {
        let mut row = self.mail_row(Some(to), false, "a long mail", "250; in parts on the phone, whole");
        let Some(carol) = &self.mail else { return row };
        let mut words = self.mail_words("Carol", &to.number);
        // As a long text of a phone: three parts, with the address and the subject before it.
        for line in 1..=14 {
            words += &format!("\n{line}. one after the other");
        }
        let draft = Draft { id: self.mail_id("long"), subject: "A list", answers: None, words: &words };
        let Some(kept) = self.must_be_kept(&mut row, carol, to, ("", ""), &draft) else { return row };
        if let Some(shown) = self.must_be_shown(&mut row, carol, to, &words, kept.at)
            && shown.parts != LONG_PARTS
        {
            row.faults.push(format!("in {} parts, not in {LONG_PARTS}", shown.parts));
        }
        row
    }

    /// NOTIFY=SUCCESS: whoever wrote is told when it is on the phone.
    pub(super) fn reported_mail(&self, to: &Actor) -> SceneRow {
        let mut row =
            self.mail_row(Some(to), false, "a report is asked for", "250; on the phone, and its writer has the report");
        let Some(carol) = &self.mail else { return row };
        let words = self.mail_words("Carol", &to.number);
        let draft = Draft { id: self.mail_id("reported"), subject: "Told", answers: None, words: &words };
        let address = format!("{}@{}", to.number, carol.post.domain);
        let (envid, orcpt) = (&draft.id, address.replace('+', "+2B"));
        let terms = (format!(" RET=HDRS ENVID={envid}"), format!(" NOTIFY=SUCCESS,FAILURE ORCPT=rfc822;{orcpt}"));
        let Some(kept) = self.must_be_kept(&mut row, carol, to, (&terms.0, &terms.1), &draft) else { return row };
        self.must_be_shown(&mut row, carol, to, &words, kept.at);
        let is_report = |mail: &Mail| mail.from.is_empty() && mail.text.contains(draft.id.as_str());
        let Some(report) = carol.server.mail_when(HANDED_OVER_WAIT, is_report) else {
            return fail(row, format!("no report came {} s later", HANDED_OVER_WAIT.as_secs()));
        };
        row.saw += "; its writer has the report";
        let kind = report.header("Content-Type").unwrap_or_default();
        if !(kind.starts_with("multipart/report") && kind.contains("delivery-status")) {
            row.faults.push(format!("the report is {kind:?}, not a report of delivery"));
        }
        let fields = [
            ("Action: delivered".to_owned(), "that it was delivered"),
            (format!("Original-Envelope-Id: {envid}"), "the ENVID of its mail"),
            (format!("Final-Recipient: rfc822; {address}"), "the recipient of its mail"),
        ];
        let lines: Vec<&str> = report.raw_body().lines().map(str::trim).collect();
        for (field, what) in fields {
            if !lines.iter().any(|line| line.eq_ignore_ascii_case(&field)) {
                row.faults.push(format!("the report does not say {what}"));
            }
        }
        row
    }

    pub(super) fn mail_to_nobody(&self) -> SceneRow {
        let mut row = self.mail_row(None, false, "nobody's number", "refused with 550");
        let Some(carol) = &self.mail else { return row };
        row.to = self.talk.nobody_text.clone().unwrap_or_default();
        let to = format!("{}@{}", row.to, carol.post.domain);
        self.must_be_refused_mail(&mut row, carol, &to);
        row
    }

    /// It passes on nobody's mail to strangers, however the address is written.
    pub(super) fn mail_elsewhere(&self) -> SceneRow {
        let mut row = self.mail_row(None, false, "to be passed on elsewhere", "refused with 550, in disguise too");
        let Some(carol) = &self.mail else { return row };
        row.to = STRANGER.into();
        let domain = &carol.post.domain;
        let tricks = [
            STRANGER.to_owned(),
            format!("{}@{domain}", STRANGER.replace('@', "%")),
            format!("@{domain}:{STRANGER}"),
            format!("\"{STRANGER}\"@{domain}"),
        ];
        for to in tricks {
            self.must_be_refused_mail(&mut row, carol, &to);
        }
        row
    }

    fn mail_row(&self, phone: Option<&Actor>, from_phone: bool, scene: &str, expected: &str) -> SceneRow {
        let (from, to) = if from_phone { (phone, None) } else { (None, phone) };
        let mut row = self.row(Act::Mail, from, to, scene, expected);
        match from_phone {
            true => (row.to, row.to_cell) = (CAROL.into(), MAIL.into()),
            false => (row.from, row.from_cell) = (CAROL.into(), MAIL.into()),
        }
        row
    }

    /// Words that no other of this rehearsal are like.
    fn mail_words(&self, from: &str, to: &str) -> String {
        let number = self.text_count.fetch_add(1, Ordering::Relaxed);
        format!("{MARK}{}-{number}: {from} to {to} @ Ñandu [é] 5€", self.run)
    }

    fn mail_id(&self, what: &str) -> String {
        let number = self.text_count.fetch_add(1, Ordering::Relaxed);
        format!("{what}-{}-{number}@mail.example.org", self.run)
    }

    /// A text of a phone is at Carol's server, as a mail from the phone's number with these words.
    fn must_become_mail(
        &self,
        row: &mut SceneRow,
        carol: &Carol<'_>,
        phone: &Actor,
        number: &str,
        text: &str,
        words: &str,
    ) -> Option<Mail> {
        let code = self.hand_in(row, phone, &self.written(number, text));
        if !Self::must_be_taken(row, code) {
            return None;
        }
        let since = Instant::now();
        let is_it = |mail: &Mail| mail.words().is_ok_and(|found| found == words);
        let Some(mail) = carol.server.mail_when(HANDED_OVER_WAIT, is_it) else {
            let told = self.is_told(row, phone, since, Duration::ZERO);
            let told = if told { "; its sender was told why" } else { "" };
            row.faults.push(format!("no mail with its words {} s later{told}", HANDED_OVER_WAIT.as_secs()));
            return None;
        };
        row.took = Some(mail.at.saturating_duration_since(since));
        let own = format!("{}@{}", phone.number, carol.post.domain);
        row.saw += &format!("; a mail from {own}");
        if mail.from != own {
            row.faults.push(format!("its envelope is from {:?}, not from {own}", mail.from));
        }
        if mail.to != [CAROL] {
            row.faults.push(format!("it is for {:?}, not for {CAROL}", mail.to));
        }
        let from = mail.header("From").unwrap_or_default();
        if from != own && !from.ends_with(&format!("<{own}>")) {
            row.faults.push(format!("it says From: {from}, not {own}"));
        }
        for name in ["Date", "Message-ID"] {
            if mail.header(name).is_none() {
                row.faults.push(format!("it has no {name}"));
            }
        }
        Some(mail)
    }

    /// Carol's mail to a phone is answered 250. `terms`: what stands behind her address and behind the phone's.
    fn must_be_kept(
        &self,
        row: &mut SceneRow,
        carol: &Carol<'_>,
        to: &Actor,
        terms: (&str, &str),
        draft: &Draft<'_>,
    ) -> Option<Answer> {
        let address = format!("{}@{}", to.number, carol.post.domain);
        let text = draft.text(&address);
        let (from, to) = (format!("<{CAROL}> BODY=8BITMIME{}", terms.0), format!("<{address}>{}", terms.1));
        let answer = self.written_to_box(row, carol, &from, &to, &text)?;
        row.saw = format!("answered {}", answer.code);
        if answer.code == 250 {
            return Some(answer);
        }
        row.faults.push(format!("refused with {} {}, not taken with 250", answer.code, answer.text));
        None
    }

    /// Her words are on the phone, once, as a text of somebody who writes mail.
    fn must_be_shown(
        &self,
        row: &mut SceneRow,
        carol: &Carol<'_>,
        to: &Actor,
        words: &str,
        since: Instant,
    ) -> Option<Text> {
        let is_hers = |one: &Text| one.text.starts_with(CAROL) && one.text.ends_with(words);
        let found = self.station(to).inbox_when(&to.imsi, ARRIVAL_WAIT, is_hers);
        let Some(shown) = found.into_iter().next() else {
            let came = self.station(to).inbox().into_iter().filter(|one| one.imsi == to.imsi && one.at >= since);
            let came: Vec<String> = came.map(|one| format!("{:?} from {}", one.text, one.from)).collect();
            let torn = self.station(to).torn(&to.imsi);
            let mut instead: String = torn.iter().map(|(has, of)| format!("; {has} of {of} parts")).collect();
            if !came.is_empty() {
                instead += &format!("; in its place {}", came.join(", "));
            }
            row.faults.push(format!("not on the phone {} s later{instead}", ARRIVAL_WAIT.as_secs()));
            return None;
        };
        row.took = Some(shown.at.saturating_duration_since(since));
        row.saw += &match shown.parts {
            1 => format!("; on the phone, from {}", shown.from),
            parts => format!("; on the phone in {parts} parts, from {}", shown.from),
        };
        if !carol.is_writer(&shown.from) {
            row.faults.push(format!("it is from {:?}, which is no number of those who write mail", shown.from));
        }
        Some(shown)
    }

    fn must_be_refused_mail(&self, row: &mut SceneRow, carol: &Carol<'_>, to: &str) {
        let id = self.mail_id("refused");
        let text = Draft { id, subject: "Hello", answers: None, words: "for nobody" }.text(to);
        let Some(answer) = self.written_to_box(row, carol, &format!("<{CAROL}>"), &format!("<{to}>"), &text) else {
            return;
        };
        if row.saw.is_empty() {
            row.saw = format!("answered {} {}", answer.code, answer.text);
        }
        // 501: it is no address at all.
        if answer.code != 550 && answer.code != 501 {
            row.faults.push(format!("{to} was answered {} {}, not 550", answer.code, answer.text));
        }
    }

    fn written_to_box(
        &self,
        row: &mut SceneRow,
        carol: &Carol<'_>,
        from: &str,
        to: &str,
        text: &str,
    ) -> Option<Answer> {
        if let Some(why) = self.patience.is_out() {
            row.faults.push(why.to_owned());
            return None;
        }
        match hand_in(carol.post.server, from, to, text) {
            Ok(answer) => {
                self.patience.note(true);
                Some(answer)
            }
            Err(error) => {
                row.faults.push(format!("no SMTP at {}: {error}", carol.post.server));
                None
            }
        }
    }

    /// What must be so of mail when all is over: nothing came twice, and nothing that nobody asked for.
    pub(super) fn mail_leftovers(&self) -> Vec<String> {
        let Some(carol) = &self.mail else { return Vec::new() };
        let mut left: Vec<String> =
            carol.server.complaints().into_iter().map(|what| format!("Carol's server was told {what}")).collect();
        let mut counts: HashMap<String, u32> = HashMap::new();
        for mail in carol.server.mails() {
            // What is left of another rehearsal is nothing of this one.
            let words = mail.words().unwrap_or_default();
            if mail.from.is_empty() && mail.text.contains(&self.run) {
                if !mail.text.contains("Original-Envelope-Id: reported-") {
                    left.push(format!("Carol got a report that she did not ask for: {:?}", mail.header("Subject")));
                }
                let about = mail.raw_body().lines().find_map(|line| line.strip_prefix("Original-Envelope-Id:"));
                *counts.entry(format!("the report about {}", about.unwrap_or_default().trim())).or_default() += 1;
            } else if words.contains(&self.run) {
                *counts.entry(format!("{words:?}")).or_default() += 1;
            }
        }
        let twice = counts.into_iter().filter(|(_, count)| *count > 1);
        left.extend(twice.map(|(what, count)| format!("Carol got {what} {count} times")));
        left
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_quotes_and_is_signed() {
        let draft = Draft { id: "1@x".into(), subject: "Re: Tea", answers: Some(("0@y", "Tea?")), words: "Yes" };
        let text = draft.text("7001@sms.gsm.example");
        assert!(text.contains("\nIn-Reply-To: <0@y>\nReferences: <0@y>\n"), "{text}");
        assert!(text.ends_with("\n\nYes\n\n> Tea?\n\n-- \nCarol\n"), "{text}");
        let draft = Draft { answers: None, ..draft };
        assert!(draft.text("x@y").ends_with("8bit\n\nYes\n"));
    }
}
