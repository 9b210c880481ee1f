//! Who is provisioned: the table of subscribers, found by IMSI and by number.

use std::collections::HashMap;
use std::sync::Arc;

use crate::gsm::auc::Auth;
use crate::ident::{Imsi, Msisdn};

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
    /// Where it stands: file and line (1 = first). One text for all of a file.
    pub file: Arc<str>,
    pub line: usize,
}

/// All subscribers; immutable, shared by the node and DNS.
#[derive(Clone, Debug, Default)]
pub struct Subscribers {
    by_imsi: HashMap<Imsi, Subscriber>,
    by_number: HashMap<Msisdn, Imsi>,
}

impl Subscribers {
    /// Later ones with an IMSI or number that is taken are ignored: the reader has refused them before.
    pub fn new(all: impl IntoIterator<Item = Subscriber>) -> Subscribers {
        let mut table = Subscribers::default();
        for subscriber in all {
            for number in &subscriber.msisdn {
                table.by_number.entry(*number).or_insert(subscriber.imsi);
            }
            table.by_imsi.entry(subscriber.imsi).or_insert(subscriber);
        }
        table.by_imsi.shrink_to_fit();
        table.by_number.shrink_to_fit();
        table
    }

    pub fn get(&self, imsi: &Imsi) -> Option<&Subscriber> {
        self.by_imsi.get(imsi)
    }

    pub fn by_number(&self, number: &Msisdn) -> Option<&Subscriber> {
        self.by_number.get(number).and_then(|imsi| self.by_imsi.get(imsi))
    }

    /// In no order.
    pub fn iter(&self) -> impl Iterator<Item = &Subscriber> {
        self.by_imsi.values()
    }

    /// Every number with its subscriber's IMSI, in no order.
    pub fn numbers(&self) -> impl Iterator<Item = (&Msisdn, &Imsi)> {
        self.by_number.iter()
    }

    pub fn len(&self) -> usize {
        self.by_imsi.len()
    }

    pub fn is_empty(&self) -> bool {
        self.by_imsi.is_empty()
    }
}
