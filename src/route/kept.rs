//! What of a call is on the disk, so that it survives us: after a restart BYE still finds the other leg.
//!
//! Keys of the node's own store: `call/` + id -> a version byte and JSON, which a human may have to read after an accident.
//! A call in the making is written without anybody waiting for it; an answered one before its 200 is relayed.

use serde::{Deserialize, Serialize};

use super::leg::KeptLeg;
use crate::store::{Batch, Store, StoreError};

const VERSION: u8 = 1;
const PREFIX: &[u8] = b"call/";

#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub enum KeptState {
    /// The called base stations have an INVITE of ours.
    Setup,
    Up,
    /// One side has hung up, and the other was not yet heard to know it.
    Ending,
}

/// A call, as it stands on the disk.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Kept {
    pub id: u64,
    pub state: KeptState,
    pub started_ms: u64,
    pub answered_ms: Option<u64>,
    pub from: String,
    pub to: String,
    /// Whom the call goes to, where that is a phone of ours.
    pub to_imsi: Option<String>,
    pub caller: KeptLeg,
    /// The caller's INVITE, while it is not answered.
    pub invite: Option<String>,
    pub callee: Option<KeptLeg>,
    pub branches: Vec<KeptBranch>,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct KeptBranch {
    pub leg: KeptLeg,
    /// The branch parameter and the Request-URI of the INVITE, which its CANCEL must have too.
    pub branch: String,
    pub uri: String,
}

pub fn put(batch: Batch, kept: &Kept) -> Batch {
    let mut value = vec![VERSION];
    // There is nothing in it that JSON has no form for.
    value.extend_from_slice(&serde_json::to_vec(kept).unwrap_or_default());
    batch.put(key(kept.id), value)
}

pub fn delete(batch: Batch, id: u64) -> Batch {
    batch.delete(key(id))
}

/// Every call that an earlier run left behind, and how many records could not be read.
pub fn load(store: &dyn Store) -> Result<(Vec<Kept>, usize), StoreError> {
    let (mut all, mut unreadable) = (Vec::new(), 0);
    let mut cursor: Option<Vec<u8>> = None;
    loop {
        let page = store.scan(PREFIX, cursor.as_deref(), 1000)?;
        let Some((last, _)) = page.last() else { return Ok((all, unreadable)) };
        cursor = Some(last.clone());
        for (_, value) in page {
            match value.split_first().filter(|(version, _)| **version == VERSION) {
                Some((_, json)) => match serde_json::from_slice(json) {
                    Ok(kept) => all.push(kept),
                    Err(_) => unreadable += 1,
                },
                None => unreadable += 1,
            }
        }
    }
}

fn key(id: u64) -> Vec<u8> {
    let mut key = PREFIX.to_vec();
    key.extend_from_slice(format!("{id:012x}").as_bytes());
    key
}
