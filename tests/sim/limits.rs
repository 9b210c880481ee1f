//! The limit of contacts acts when a REGISTER is decided; merge knows none.
//!
//! Several front ends decide REGISTERs of SIP phones for one AOR, each against what it knows; replicas get the outcomes in any order,
//! some twice. Afterwards all replicas are equal, and no front end that decides alone has left more than the limit. A merge that
//! cuts to the limit keeps whatever it saw first: it must be caught.

use encamp::config::Registrar;
use encamp::gsm::form::TextForm;
use encamp::register::decide::{Ask, AskedContact, Contacts, Facts, Outcome, decide_register};
use encamp::register::merge::{Record, merge};
use encamp::seam::Rng;
use encamp::time::Stamp;

pub type Merge = fn(Record, &Record, &Registrar) -> Record;

pub fn real_merge(left: Record, right: &Record, _: &Registrar) -> Record {
    merge(left, right)
}

/// What merge must not do: forget the oldest bindings beyond the limit.
pub fn merge_that_cuts(left: Record, right: &Record, limits: &Registrar) -> Record {
    let mut merged = merge(left, right);
    while merged.bindings().count() > limits.contacts_per_aor_max {
        let oldest = merged.bindings().min_by_key(|(_, stamp, _)| *stamp).map(|(contact, ..)| contact.to_owned());
        match oldest {
            Some(contact) => drop(merged.contacts.remove(&contact)),
            None => break,
        }
    }
    merged
}

pub fn run(seed: u64, merge: Merge) -> Result<(), String> {
    let mut bytes = [0; 32];
    bytes[..8].copy_from_slice(&seed.to_be_bytes());
    let mut rng = Rng::from_seed(bytes);
    let limits = Registrar { contacts_per_aor_max: 1 + rng.below(4) as usize, ..Registrar::default() };
    let front_count = 1 + rng.below(3) as u32;
    let mut fronts = vec![Record::default(); front_count as usize];
    let mut replicas = vec![Record::default(); 2 + rng.below(2) as usize];
    let mut outcomes: Vec<Record> = Vec::new();
    let steps = 3 + rng.below(20);
    for step in 1..=steps {
        let front = rng.below(u64::from(front_count)) as usize;
        let stamp = Stamp { ms: 1_000 + step, counter: 0, front: front as u32 };
        let line = rng.below(8);
        let contacts = match rng.below(10) {
            0 => Contacts::All,
            dice => {
                let expires_s = if dice == 1 { 0 } else { 600 };
                let uri = format!("sip:line{line}@10.1.0.1:5080");
                let texts = TextForm::Plain;
                Contacts::Some(vec![AskedContact { uri, expires_s: Some(expires_s), instance: None, texts }])
            }
        };
        let ask = Ask {
            contacts,
            call_id: format!("line{line}"),
            cseq: step as u32,
            source: "10.1.0.1:5080".parse().expect("an address"),
            cell: None,
            path: Vec::new(),
            base_station: false,
        };
        let old = fronts[front].clone();
        match decide_register(&ask, Facts { old: &old, now_ms: 1_000 + step, stamp, limits: &limits }) {
            Ok(Outcome::Write { delta, .. }) => {
                fronts[front] = merge(old, &delta, &limits);
                outcomes.push(delta);
            }
            Ok(Outcome::Told | Outcome::DetachIgnored) => {}
            Err(refusal) => return Err(format!("step {step} is refused: {refusal:?}")),
        }
        // Now and then a front end hears of what the others did.
        if rng.below(3) == 0 {
            for outcome in &outcomes {
                fronts[front] = merge(fronts[front].clone(), outcome, &limits);
            }
        }
    }
    for replica in &mut replicas {
        let mut left: Vec<&Record> = outcomes.iter().collect();
        while !left.is_empty() {
            let at = rng.below(left.len() as u64) as usize;
            *replica = merge(std::mem::take(replica), left[at], &limits);
            // Now and then a copy comes again later.
            if rng.below(4) > 0 {
                left.swap_remove(at);
            }
        }
    }
    if replicas.iter().any(|replica| *replica != replicas[0]) {
        return Err(format!("replicas differ after {} outcomes: {replicas:#?}", outcomes.len()));
    }
    let bound = replicas[0].bindings().count();
    if front_count == 1 && bound > limits.contacts_per_aor_max {
        return Err(format!("{bound} contacts are bound, not {}", limits.contacts_per_aor_max));
    }
    Ok(())
}
