//! What the files say of mail: `[mail]`, `[[mail_user]]`, `[[mail_route]]`.
//!
//! Knows: every key and default. Does not know: what is done with a mail.

use std::net::SocketAddr;
use std::path::{Path as FilePath, PathBuf};
use std::time::Duration;

use super::Password;
use crate::ident::{Msisdn, Network};
use crate::mail::address::Pattern;

/// The mail bridge; each default is the manual's (config/encamp.toml).
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Mail {
    /// A number's address is number@this. Lower case.
    pub domain: String,
    pub listen: Vec<MailListener>,
    /// STARTTLS is offered where both are written.
    pub certificate: Option<PathBuf>,
    pub certificate_key: Option<PathBuf>,
    /// `None`: straight to the MX of each domain.
    pub relay: Option<Relay>,
    /// What `user@host words` is texted to; `None`: the service centre's number.
    pub short_code: Option<Msisdn>,
    /// As whose text a mail comes, so that it can be answered: a number for each who writes to one phone.
    pub reply_pool: Vec<NumberRange>,
    /// Servers through which mail of everybody comes: their word on SPF and the like counts, and they have no other right.
    pub fronts: Vec<Network>,
    /// Servers that bring mail of ours only: they may write to numbers elsewhere, and as our phones.
    pub trusted: Vec<Network>,
    /// Other boxes: what they say of a phone's text is believed.
    pub boxes: Vec<Network>,
    pub users: Vec<MailUser>,
    pub senders: Senders,
    /// A sender in `deny` is refused, one in `allow` needs no list and no confirmation.
    pub allow: Vec<Pattern>,
    pub deny: Vec<Pattern>,
    /// Whose Authentication-Results are believed in a mail that one of `fronts` brings, by the name that stands in them (authserv-id).
    pub results_from: Vec<String>,
    pub unproven: Unproven,
    pub first_contact: FirstContact,
    /// Texts of one sender, and to one phone, in a day; 0: no limit.
    pub per_sender_day_max: u32,
    pub per_phone_day_max: u32,
    pub subject: SubjectRule,
    /// Parts that a mail becomes at most; the rest is withheld, and that is said.
    pub segments_max: usize,
    pub size_max: u64,
    pub recipients_max: usize,
    pub received_max: usize,
    pub sessions_max: usize,
    pub sessions_per_address_max: usize,
    /// For a command, or for some octets of a mail; and for all of a session.
    pub command_timeout: Duration,
    pub session_max: Duration,
    /// Mail that leaves is tried for so long, and so much of it may wait.
    pub life_max: Duration,
    pub count_max: usize,
    /// How long it is remembered who wrote to whom.
    pub thread_life: Duration,
    /// Where texts go whose numbers are nobody's here, in their order.
    pub routes: Vec<MailRoute>,
    pub pictures: Option<Pictures>,
}

#[derive(Clone, PartialEq, Eq, Debug)]
pub struct MailListener {
    pub protocol: MailProtocol,
    pub address: SocketAddr,
}

/// `tcp:`, `tls:` (from the first octet on, RFC 8314), `lmtp:`.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum MailProtocol {
    Smtp,
    SmtpInTls,
    Lmtp,
}

#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Relay {
    pub host: String,
    pub port: u16,
    pub tls: RelayTls,
    pub username: Option<String>,
    pub password: Option<Password>,
    /// Certificates (PEM) that are believed beside the system's.
    pub authority: Option<PathBuf>,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum RelayTls {
    /// From the first octet on (`smtps://`); its certificate is checked.
    FromStart,
    /// STARTTLS or nothing; its certificate is checked.
    Required,
    /// STARTTLS where it is offered, whatever the certificate: better than plain. No password goes over it.
    IfOffered,
    Never,
}

/// From the first to the last, both included; as long as each other.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct NumberRange {
    pub first: Msisdn,
    pub last: Msisdn,
}

/// Who may log in.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct MailUser {
    pub name: String,
    pub password: Password,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Senders {
    Everyone,
    /// Who has logged in, comes from a trusted network or another box, or stands in a list.
    Listed,
}

/// A sender for whom no server that we believe has found SPF, DKIM or DMARC to pass.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Unproven {
    Accept,
    /// Refused where one of them failed.
    RefuseFailed,
    /// Refused unless one of them passed.
    Refuse,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum FirstContact {
    Accept,
    /// The phone is asked by a text whether it wants mail of this sender; the mail has to come again.
    Ask,
}

/// When the subject of a mail stands before its words.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum SubjectRule {
    Never,
    /// Not in an answer.
    New,
    Always,
}

#[derive(Clone, PartialEq, Eq, Debug)]
pub struct MailRoute {
    /// None: every number.
    pub prefixes: Vec<String>,
    /// With `{number}` in it: `{number}@sms.hill.example`.
    pub to: String,
    /// Another box of ours is there: it gets the text as the phone sent it.
    pub is_box: bool,
}

/// Files that came with a mail, on a page that opens once.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Pictures {
    pub listen: SocketAddr,
    /// As phones reach it: `http://192.0.2.1:8090`.
    pub url: String,
    pub path: PathBuf,
    /// Of one file, and of all that are kept.
    pub size_max: u64,
    pub bytes_max: u64,
    /// Until it is opened, and from then on.
    pub life: Duration,
    pub open_life: Duration,
}

const SECOND: Duration = Duration::from_secs(1);
const MINUTE: Duration = Duration::from_secs(60);
const DAY: Duration = Duration::from_secs(86_400);

impl Mail {
    /// Every default, for the domain of the box.
    pub fn of(domain: &str) -> Mail {
        Mail {
            domain: format!("sms.{domain}"),
            listen: Vec::new(),
            certificate: None,
            certificate_key: None,
            relay: None,
            short_code: None,
            reply_pool: Vec::new(),
            fronts: Vec::new(),
            trusted: Vec::new(),
            boxes: Vec::new(),
            users: Vec::new(),
            senders: Senders::Everyone,
            allow: Vec::new(),
            deny: Vec::new(),
            results_from: Vec::new(),
            unproven: Unproven::RefuseFailed,
            first_contact: FirstContact::Accept,
            per_sender_day_max: 0,
            per_phone_day_max: 0,
            subject: SubjectRule::New,
            segments_max: 6,
            size_max: 1_000_000,
            recipients_max: 100,
            received_max: 50,
            sessions_max: 200,
            sessions_per_address_max: 20,
            command_timeout: MINUTE * 5,
            session_max: MINUTE * 30,
            life_max: DAY * 5,
            count_max: 10_000,
            thread_life: DAY * 30,
            routes: Vec::new(),
            pictures: None,
        }
    }

    /// Whether the number is one of the pool.
    pub fn is_in_pool(&self, number: &Msisdn) -> bool {
        self.reply_pool.iter().any(|range| range.has(number))
    }

    /// The number of the pool that has these digits.
    pub fn in_pool(&self, digits: &str) -> Option<Msisdn> {
        let number = Msisdn::parse(digits).ok()?;
        let range = self.reply_pool.iter().find(|range| range.has(&number))?;
        let plus = if range.first.is_international() { "+" } else { "" };
        Msisdn::parse(&format!("{plus}{}", number.digits())).ok()
    }

    /// The address of whoever has this number, or is known by these digits of an IMSI.
    pub fn address_of(&self, who: &str) -> String {
        format!("{who}@{}", self.domain)
    }
}

impl NumberRange {
    pub fn has(&self, number: &Msisdn) -> bool {
        let digits = number.digits();
        digits.len() == self.first.digits().len() && (self.first.digits()..=self.last.digits()).contains(&digits)
    }

    pub fn count(&self) -> u64 {
        let value = |number: &Msisdn| number.digits().parse::<u64>().unwrap_or_default();
        value(&self.last).saturating_sub(value(&self.first)) + 1
    }

    /// The one at this place, from 0 on.
    pub fn nth(&self, at: u64) -> Option<Msisdn> {
        if at >= self.count() {
            return None;
        }
        let digits = self.first.digits();
        let value = digits.parse::<u64>().ok()? + at;
        let plus = if self.first.to_string().starts_with('+') { "+" } else { "" };
        Msisdn::parse(&format!("{plus}{value:0width$}", width = digits.len())).ok()
    }
}

impl Pictures {
    pub fn of(data_dir: &FilePath, listen: SocketAddr, url: String) -> Pictures {
        Pictures {
            listen,
            url,
            path: data_dir.join("pictures"),
            size_max: 5_000_000,
            bytes_max: 256_000_000,
            life: DAY * 7,
            open_life: SECOND * 900,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_range_of_numbers_counts_from_the_first_to_the_last() {
        let number = |text: &str| Msisdn::parse(text).unwrap();
        let range = NumberRange { first: number("+15559000"), last: number("+15559099") };
        assert_eq!(range.count(), 100);
        assert_eq!(range.nth(0), Some(number("+15559000")));
        assert_eq!(range.nth(99), Some(number("+15559099")));
        assert_eq!(range.nth(100), None);
        assert!(range.has(&number("15559042")), "with or without its +");
        assert!(!range.has(&number("+15559100")) && !range.has(&number("+155590420")));
        let zeros = NumberRange { first: number("0098"), last: number("0101") };
        assert_eq!(zeros.nth(2), Some(number("0100")));
    }
}
