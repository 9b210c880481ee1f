//! Who owns which suffix, told in DNS.
//!
//! [`Map`] is the one truth of both sides: the front end finds a subscriber's shard in it, and [`answer`] tells the same to
//! whoever asks in DNS.

pub mod answer;

use std::collections::HashMap;
use std::sync::Arc;

use sha2::{Digest as _, Sha256};

use crate::config::{Settings, Subscribers};
use crate::ident::{Imsi, Suffix};

/// Which shard owns which suffix; the longest suffix wins (356 beside 56).
#[derive(Clone, Debug, Default)]
pub struct Map {
    owner: HashMap<Suffix, usize>,
    digits_max: usize,
}

impl Map {
    pub fn new(settings: &Settings) -> Map {
        let mut map = Map::default();
        for (index, shard) in settings.shards.iter().enumerate() {
            for suffix in &shard.suffixes {
                map.owner.insert(*suffix, index);
                map.digits_max = map.digits_max.max(suffix.as_str().len());
            }
        }
        map
    }

    /// The index of the shard in `Settings::shards`; `None` only for a map that the reader would have refused.
    pub fn shard_of(&self, imsi: &Imsi) -> Option<usize> {
        let text = imsi.as_str();
        (1..=self.digits_max.min(text.len())).rev().find_map(|len| {
            let suffix = Suffix::parse(&text[text.len() - len..]).ok()?;
            self.owner.get(&suffix).copied()
        })
    }

    /// How many digits an asker needs to send at most.
    pub fn digits_max(&self) -> usize {
        self.digits_max
    }

    /// The same for the same map, another for another: 16 bytes.
    pub fn fingerprint(&self) -> [u8; 16] {
        let mut all: Vec<String> = self.owner.iter().map(|(suffix, shard)| format!("{suffix}={shard};")).collect();
        all.sort();
        let mut fingerprint = [0; 16];
        fingerprint.copy_from_slice(&Sha256::digest(all.concat())[..16]);
        fingerprint
    }

    /// Each suffix with its shard, in no order.
    pub fn suffixes(&self) -> impl Iterator<Item = (&Suffix, usize)> {
        self.owner.iter().map(|(suffix, shard)| (suffix, *shard))
    }
}

/// How a replica stands, as the zone tells it: by the priority of its SRV record.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Health {
    /// Priority 10.
    Healthy,
    /// Catching up, behind, or not answering: priority 20.
    Worse,
}

/// One consistent state of everything that DNS answers; replaced as a whole.
///
/// Made by [`Zone::new`] when settings, subscribers or the map changed, by [`Zone::turn`] when only the replicas' health did.
#[derive(Clone, Debug)]
pub struct Zone {
    pub settings: Arc<Settings>,
    pub subscribers: Arc<Subscribers>,
    pub map: Arc<Map>,
    /// By index in `Settings::replicas`.
    pub health: Vec<Health>,
    /// SOA serial: max(stored + 1, time).
    pub serial: u32,
    /// The version of the map of suffixes to shards.
    pub epoch: u64,
    index: answer::Index,
}
