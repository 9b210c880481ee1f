//! Who is provisioned: the table of subscribers, found by IMSI and by number.

use std::collections::BTreeMap;
use std::sync::Arc;

use crate::gsm::auc::Auth;
use crate::ident::{Imsi, Language, Msisdn};
use crate::mail::address::{Address, Pattern};

/// One SIM, as its file says.
#[derive(Clone, Debug)]
pub struct Subscriber {
    pub imsi: Imsi,
    /// The first one is shown to those he calls.
    pub msisdn: Vec<Msisdn>,
    pub name: Box<str>,
    pub auth: Auth,
    /// Barred by the operator: 403 with cause 13.
    pub barred: bool,
    /// In which the message centre speaks to it; `None`: `[messages] language`.
    pub language: Option<Language>,
    /// What he has beside his number@domain; `None`: nothing.
    pub mail: Option<Box<SubscriberMail>>,
    /// Where it stands: file and line (1 = first). One text for all of a file.
    pub file: Arc<str>,
    pub line: usize,
}

/// What a subscriber has written of mail.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct SubscriberMail {
    /// Names before the `@` of the mail domain, in small letters.
    pub aliases: Vec<Box<str>>,
    /// Where a copy of each text for him goes.
    pub copy_to: Option<Address>,
    /// Before the lists of `[mail]`.
    pub allow: Vec<Pattern>,
    pub deny: Vec<Pattern>,
}

/// All subscribers; immutable, shared by the node and DNS.
///
/// Shape: two sorted tables without slack, so that 100 000 SIMs fit a small box: about 180 bytes each.
#[derive(Clone, Debug, Default)]
pub struct Subscribers {
    /// By IMSI.
    all: Box<[Subscriber]>,
    /// By number; an index into `all`.
    numbers: Box<[(Msisdn, u32)]>,
    /// By alias; an index into `all`.
    aliases: BTreeMap<Box<str>, u32>,
}

impl Subscribers {
    /// Later ones with an IMSI or number that is taken are ignored: the reader has refused them before.
    pub fn new(all: impl IntoIterator<Item = Subscriber>) -> Subscribers {
        let mut all: Vec<Subscriber> = all.into_iter().collect();
        // Both sorts are stable: of two that are equal the first one stays.
        all.sort_by_key(|subscriber| subscriber.imsi);
        all.dedup_by_key(|subscriber| subscriber.imsi);
        let numbers = all
            .iter()
            .zip(0u32..)
            .flat_map(|(subscriber, at)| subscriber.msisdn.iter().map(move |number| (*number, at)));
        let mut numbers: Vec<(Msisdn, u32)> = numbers.collect();
        numbers.sort_by_key(|(number, _)| *number);
        numbers.dedup_by_key(|(number, _)| *number);
        let mut aliases = BTreeMap::new();
        for (subscriber, at) in all.iter().zip(0u32..) {
            for alias in subscriber.mail.iter().flat_map(|mail| &mail.aliases) {
                aliases.entry(alias.clone()).or_insert(at);
            }
        }
        Subscribers { all: all.into_boxed_slice(), numbers: numbers.into_boxed_slice(), aliases }
    }

    pub fn get(&self, imsi: &Imsi) -> Option<&Subscriber> {
        let at = self.all.binary_search_by_key(imsi, |subscriber| subscriber.imsi).ok()?;
        self.all.get(at)
    }

    pub fn by_number(&self, number: &Msisdn) -> Option<&Subscriber> {
        let at = self.numbers.binary_search_by_key(number, |(number, _)| *number).ok()?;
        self.all.get(self.numbers.get(at)?.1 as usize)
    }

    /// By what stands before the `@` of the mail domain; case makes no difference.
    pub fn by_alias(&self, alias: &str) -> Option<&Subscriber> {
        let at = self.aliases.get(alias.to_lowercase().as_str())?;
        self.all.get(*at as usize)
    }

    /// In order of IMSI.
    pub fn iter(&self) -> impl Iterator<Item = &Subscriber> {
        self.all.iter()
    }

    /// Every number with its subscriber's IMSI, in order of number.
    pub fn numbers(&self) -> impl Iterator<Item = (&Msisdn, &Imsi)> {
        self.numbers.iter().filter_map(|(number, at)| Some((number, &self.all.get(*at as usize)?.imsi)))
    }

    pub fn len(&self) -> usize {
        self.all.len()
    }

    pub fn is_empty(&self) -> bool {
        self.all.is_empty()
    }
}
