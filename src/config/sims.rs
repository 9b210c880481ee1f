//! Subscribers as they are written: TOML tables, lines of a spreadsheet, and the mistakes that both have. Numbers that are
//! given apart from their subscriber: `[[number]]`.
//!
//! Knows: which IMSI and which number is taken, and where. Does not know: who is bound where.
//! Secrets: what is typed as a key is never repeated in a problem.
//! Read first: wire.md section 6.1 for the traps (a number twice, a Ki with blanks or 0x).

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use super::read::value;
use super::text::{Place, Report, Spot};
use super::typed::View;
use super::units::{self, Flaw};
use super::{Subscriber, SubscriberMail, keys, mailing_read};
use crate::gsm::auc::{Auth, Ki, Opc};
use crate::ident::{Imsi, Language, Msisdn};
use crate::mail::address::Address;

const ALGORITHMS: [&str; 6] = ["comp128v1", "comp128v2", "comp128v3", "milenage", "xor", "none"];

/// Everybody so far.
#[derive(Default)]
pub(super) struct Roll {
    all: Vec<(Subscriber, Place)>,
    imsi_at: HashMap<Imsi, Place>,
    number_at: HashMap<Msisdn, Place>,
    /// Each `[[number]]`: whose, and which.
    given_apart: Vec<(Spot<Imsi>, Vec<Spot<Msisdn>>)>,
    /// Where each name before the `@` of the mail domain was given.
    alias_at: HashMap<Box<str>, Place>,
    copies: Vec<(Address, Place)>,
    first_of_mail: Option<Place>,
    /// Where each language was asked for first.
    language_at: BTreeMap<Language, Place>,
    /// The name of each file, once for all its subscribers.
    files: HashMap<usize, Arc<str>>,
}

/// One SIM as typed, whatever kind of file it stands in.
pub(super) struct Typed<'t> {
    /// Where it begins: its line is the subscriber's.
    pub at: Place,
    pub imsi: Spot<&'t str>,
    pub msisdn: Vec<Spot<&'t str>>,
    pub name: Option<Spot<&'t str>>,
    pub barred: bool,
    pub language: Option<Spot<&'t str>>,
    pub mail: TypedMail<'t>,
    /// `None`: what there is of it has been reported.
    pub auth: Option<TypedAuth<'t>>,
}

#[derive(Default)]
pub(super) struct TypedMail<'t> {
    pub aliases: Vec<Spot<&'t str>>,
    pub copy: Option<Spot<&'t str>>,
    pub allow: Vec<Spot<&'t str>>,
    pub deny: Vec<Spot<&'t str>>,
}

pub(super) struct TypedAuth<'t> {
    pub algorithm: Spot<&'t str>,
    pub ki: Option<Spot<&'t str>>,
    pub op: Option<Spot<&'t str>>,
    pub opc: Option<Spot<&'t str>>,
}

impl Roll {
    /// Every `[[subscriber]]` and `[[number]]` of a file.
    pub fn read_tables(&mut self, root: &View<'_>, report: &mut Report<'_>) {
        for view in root.tables("subscriber") {
            let imsi = view.required_text("imsi", "001010000000001", report);
            view.require("auth", "auth = { algorithm = \"comp128v3\", ki = \"<32 hex digits>\" }", report);
            let auth = view.table("auth").and_then(|auth| {
                Some(TypedAuth {
                    algorithm: auth.required_text("algorithm", "comp128v3", report)?,
                    ki: auth.text("ki"),
                    op: auth.text("op"),
                    opc: auth.text("opc"),
                })
            });
            let Some(imsi) = imsi else { continue };
            let typed = Typed {
                at: view.at,
                imsi,
                msisdn: view.texts("msisdn").unwrap_or_default(),
                name: view.text("name"),
                barred: view.flag("barred").is_some_and(|barred| barred.value),
                language: view.text("language"),
                mail: TypedMail {
                    aliases: view.texts("mail_alias").unwrap_or_default(),
                    copy: view.text("mail_copy"),
                    allow: view.texts("mail_allow").unwrap_or_default(),
                    deny: view.texts("mail_deny").unwrap_or_default(),
                },
                auth,
            };
            self.take(typed, report);
        }
        for view in root.tables("number") {
            let imsi = view.required_text("imsi", "001010000000001", report);
            view.require("msisdn", "msisdn = [\"2001\"]", report);
            let parsed = |spot: Spot<&str>, report: &mut Report<'_>| {
                Some(Spot::new(value(spot, parse_number, report)?, spot.at))
            };
            let texts = view.texts("msisdn").unwrap_or_default();
            let msisdn = texts.into_iter().filter_map(|spot| parsed(spot, report)).collect();
            let imsi = imsi.and_then(|spot| Some(Spot::new(value(spot, parse_imsi, report)?, spot.at)));
            self.given_apart.extend(imsi.map(|imsi| (imsi, msisdn)));
        }
    }

    /// Gives each `[[number]]` to its subscriber, once all files have been read: he may stand in a later one. The numbers of a
    /// SIM that is gone are free again.
    pub fn give_out(&mut self, report: &mut Report<'_>) {
        let given_apart = std::mem::take(&mut self.given_apart);
        if given_apart.is_empty() {
            return;
        }
        let index_of: HashMap<Imsi, usize> =
            (self.all.iter().enumerate()).map(|(at, (one, _))| (one.imsi, at)).collect();
        for (imsi, msisdn) in given_apart {
            if !self.imsi_at.contains_key(&imsi.value) {
                report
                    .note(imsi.at, "no subscriber has this IMSI, so its numbers have no effect")
                    .hint("provision the SIM, or remove the [[number]]");
                continue;
            }
            // One that is not in the table has been refused for something else.
            let free: Vec<Msisdn> = msisdn.into_iter().filter_map(|spot| self.take_number(spot, report)).collect();
            if let Some((subscriber, _)) = index_of.get(&imsi.value).and_then(|at| self.all.get_mut(*at)) {
                subscriber.msisdn.extend(free);
                subscriber.msisdn.shrink_to_fit();
            }
        }
    }

    /// The number, unless somebody has it.
    fn take_number(&mut self, spot: Spot<Msisdn>, report: &mut Report<'_>) -> Option<Msisdn> {
        if let Some(first) = self.number_at.get(&spot.value) {
            let first = report.name_of(*first);
            report.problem(spot.at, "this number is given already").hint(format!("the first is at {first}"));
            return None;
        }
        self.number_at.insert(spot.value, spot.at);
        Some(spot.value)
    }

    /// Checks one SIM against itself and all before it.
    pub fn take(&mut self, typed: Typed<'_>, report: &mut Report<'_>) {
        let imsi = value(typed.imsi, parse_imsi, report);
        if let Some(imsi) = imsi {
            match self.imsi_at.get(&imsi) {
                Some(first) => {
                    let first = report.name_of(*first);
                    report
                        .problem(typed.imsi.at, "this IMSI is provisioned already")
                        .hint(format!("the first is at {first}"));
                }
                None => drop(self.imsi_at.insert(imsi, typed.imsi.at)),
            }
        }
        let mut msisdn = Vec::new();
        for spot in typed.msisdn {
            let Some(number) = value(spot, parse_number, report) else { continue };
            msisdn.extend(self.take_number(Spot::new(number, spot.at), report));
        }
        let language = typed.language.and_then(|spot| {
            let language = value(spot, language, report)?;
            self.language_at.entry(language).or_insert(spot.at);
            Some(language)
        });
        let name = typed.name.and_then(|spot| value(spot, units::title, report)).unwrap_or_default();
        let mail = self.take_mail(&typed.mail, report);
        let auth = typed.auth.and_then(|auth| parse_auth(&auth, report));
        if let (Some(imsi), Some(auth)) = (imsi, auth) {
            let file =
                self.files.entry(typed.at.file).or_insert_with(|| report.files[typed.at.file].name.into()).clone();
            let (name, line) = (name.into_boxed_str(), report.line_of(typed.at));
            msisdn.shrink_to_fit();
            self.all.push((
                Subscriber { imsi, msisdn, name, auth, barred: typed.barred, language, mail, file, line },
                typed.imsi.at,
            ));
        }
    }

    /// What he has of mail: nothing, for most.
    fn take_mail(&mut self, typed: &TypedMail<'_>, report: &mut Report<'_>) -> Option<Box<SubscriberMail>> {
        let lists = [&typed.aliases, &typed.allow, &typed.deny];
        let spots = lists.into_iter().flatten().chain(&typed.copy);
        self.first_of_mail = self.first_of_mail.into_iter().chain(spots.map(|spot| spot.at)).min();
        let mut mail = SubscriberMail::default();
        for spot in &typed.aliases {
            let Some(alias) = value(*spot, mailing_read::alias, report) else { continue };
            if let Some(first) = self.alias_at.get(&alias) {
                let first = report.name_of(*first);
                report
                    .problem(spot.at, format!("the name {} is given already", shown(&alias)))
                    .hint(format!("the first is at {first}; large and small letters are the same"));
                continue;
            }
            self.alias_at.insert(alias.clone(), spot.at);
            mail.aliases.push(alias);
        }
        if let Some(spot) = typed.copy {
            mail.copy_to = value(spot, mailing_read::address, report);
            self.copies.extend(mail.copy_to.clone().map(|address| (address, spot.at)));
        }
        for (typed, into) in [(&typed.allow, &mut mail.allow), (&typed.deny, &mut mail.deny)] {
            into.extend(typed.iter().filter_map(|spot| value(*spot, mailing_read::pattern, report)));
        }
        (mail != SubscriberMail::default()).then(|| Box::new(mail))
    }

    pub fn first_with_prefix(&self, digits: &str) -> Option<Place> {
        self.all.iter().find(|(subscriber, _)| subscriber.imsi.as_str().starts_with(digits)).map(|(_, at)| *at)
    }

    /// Where the number was given to somebody.
    pub fn place_of_number(&self, number: &Msisdn) -> Option<Place> {
        self.number_at.get(number).copied()
    }

    /// Each number and where it was given, in no order.
    pub fn numbers(&self) -> impl Iterator<Item = (Place, Msisdn)> {
        self.number_at.iter().map(|(number, at)| (*at, *number))
    }

    /// Each mailbox that gets copies of a subscriber's texts.
    pub fn copies(&self) -> impl Iterator<Item = (&Address, Place)> {
        self.copies.iter().map(|(address, at)| (address, *at))
    }

    /// Where a subscriber has something of mail first.
    pub fn first_of_mail(&self) -> Option<Place> {
        self.first_of_mail
    }

    /// Each language that a subscriber has, and where it stands first.
    pub fn languages(&self) -> impl Iterator<Item = (Language, Place)> {
        self.language_at.iter().map(|(language, at)| (*language, *at))
    }

    pub fn into_subscribers(self) -> impl Iterator<Item = Subscriber> {
        self.all.into_iter().map(|(subscriber, _)| subscriber)
    }
}

fn parse_imsi(text: &str) -> Result<Imsi, Flaw> {
    Imsi::parse(text).map_err(|error| {
        let hint = if text.contains("E+") || text.contains("e+") {
            "a spreadsheet has made a quantity of it: give the column the format text"
        } else if text.chars().any(char::is_whitespace) {
            "write it without blanks"
        } else if text.len() < 14 && text.bytes().all(|byte| byte.is_ascii_digit()) {
            "a spreadsheet drops leading zeros: give the column the format text"
        } else {
            "write it as the SIM's papers do: \"001010000000001\""
        };
        Flaw { what: format!("{} is no IMSI: {error}", shown(text)), hint: hint.into() }
    })
}

pub(super) fn language(text: &str) -> Result<Language, Flaw> {
    Language::parse(text).map_err(|_| Flaw {
        what: format!("{} is no language", shown(text)),
        hint: "write two or three small letters, as in ISO 639: \"sw\"".into(),
    })
}

pub(super) fn parse_number(text: &str) -> Result<Msisdn, Flaw> {
    Msisdn::parse(text).map_err(|error| {
        let plain: String = text.chars().filter(|char| !matches!(char, ' ' | '-' | '.' | '/' | '(' | ')')).collect();
        let hint = match Msisdn::parse(&plain) {
            Ok(number) if text.len() <= 30 => format!("write \"{number}\""),
            _ => "write it as it is dialled: \"2001\", or \"+15550001\" with its country code".into(),
        };
        Flaw { what: format!("{} is no number: {error}", shown(text)), hint }
    })
}

/// A typed text in quotes, cut where it is far too long.
pub(super) fn shown(text: &str) -> String {
    const SHOWN_MAX: usize = 40;
    match text.char_indices().nth(SHOWN_MAX) {
        Some((end, _)) => format!("{:?}…", &text[..end]),
        None => format!("{text:?}"),
    }
}

/// `{ algorithm, ki, op | opc }`, with everything that is wrong with it.
fn parse_auth(auth: &TypedAuth<'_>, report: &mut Report<'_>) -> Option<Auth> {
    let algorithm = auth.algorithm.value;
    if !ALGORITHMS.contains(&algorithm) {
        let hint = if algorithm == "comp128" {
            "write comp128v1, comp128v2 or comp128v3, as the SIM has it".to_owned()
        } else {
            match keys::nearest(algorithm, ALGORITHMS) {
                Some(near) => format!("did you mean \"{near}\"?"),
                None => format!("write one of {}", ALGORITHMS.join(", ")),
            }
        };
        report.problem(auth.algorithm.at, format!("unknown algorithm {}", shown(algorithm))).hint(hint);
    }
    if algorithm == "none" {
        for (name, spot) in [("ki", auth.ki), ("op", auth.op), ("opc", auth.opc)] {
            if let Some(spot) = spot {
                report
                    .problem(
                        spot.at,
                        format!("`{name}` with the algorithm \"none\": the SIM would be believed unasked"),
                    )
                    .hint("name the SIM's algorithm, or remove the key");
            }
        }
        let clean = auth.ki.is_none() && auth.op.is_none() && auth.opc.is_none();
        return clean.then_some(Auth::None);
    }
    if let (Some(_), Some(opc)) = (auth.op, auth.opc) {
        report
            .problem(opc.at, "`op` and `opc` together")
            .hint("write the one that the SIM's papers give; OPc is made of OP and Ki");
    }
    if auth.ki.is_none() && ALGORITHMS.contains(&algorithm) {
        report
            .problem(auth.algorithm.at, format!("\"{algorithm}\" needs a `ki`"))
            .hint("write ki = \"<32 hex digits>\"");
    }
    let ki = auth.ki.and_then(|spot| key(spot, Ki::parse, report));
    if algorithm != "milenage" {
        for (name, spot) in [("op", auth.op), ("opc", auth.opc)] {
            if let (Some(spot), true) = (spot, ALGORITHMS.contains(&algorithm)) {
                report
                    .problem(spot.at, format!("\"{algorithm}\" has no `{name}`"))
                    .hint(format!("write algorithm = \"milenage\", or remove `{name}`"));
            }
        }
        let ki = ki?;
        return match algorithm {
            "comp128v1" => Some(Auth::Comp128v1(ki)),
            "comp128v2" => Some(Auth::Comp128v2(ki)),
            "comp128v3" => Some(Auth::Comp128v3(ki)),
            "xor" => Some(Auth::Xor(ki)),
            _ => None,
        };
    }
    if auth.op.is_none() && auth.opc.is_none() {
        report
            .problem(auth.algorithm.at, "\"milenage\" needs an `opc` or an `op`")
            .hint("write opc = \"<32 hex digits>\"");
    }
    let opc = match (auth.opc, auth.op) {
        (Some(spot), _) => key(spot, Opc::parse, report),
        // Without a Ki there is nothing to derive from, and that has been reported.
        (None, Some(spot)) => ki.as_ref().and_then(|ki| key(spot, |text| Opc::derive(text, ki), report)),
        (None, None) => None,
    };
    Some(Auth::Milenage { ki: ki?, opc: opc? })
}

fn key<T, E: std::fmt::Display>(
    spot: Spot<&str>,
    parse: impl FnOnce(&str) -> Result<T, E>,
    report: &mut Report<'_>,
) -> Option<T> {
    if spot.value.starts_with("sealed:") {
        report
            .problem(spot.at, "sealed keys cannot be read yet")
            .hint("write the 32 hex digits, and keep the file mode 0600");
        return None;
    }
    match parse(spot.value) {
        Ok(key) => Some(key),
        Err(error) => {
            report.problem(spot.at, error.to_string()).hint("write the 32 hex digits without blanks, dashes or 0x");
            None
        }
    }
}
