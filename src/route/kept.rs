//! What of a call is on the disk, so that it survives us: after a restart BYE still finds the other leg.
//!
//! Keys of the node's own store: `call/` + id -> a version byte and JSON, which a human may have to read after an accident;
//! `invite/` + id -> the caller's INVITE as it came, until his ACK.
//! A call in the making is written without anybody waiting for it; an answered one before its 200 is relayed.

use serde::{Deserialize, Serialize};

use super::leg::KeptLeg;
use crate::store::{Batch, Store, StoreError};

const VERSION: u8 = 1;
const PREFIX: &[u8] = b"call/";
const INVITE_PREFIX: &[u8] = b"invite/";

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
    /// The caller's INVITE, which has a record of its own; empty once his ACK has come.
    #[serde(skip)]
    pub invite: Vec<u8>,
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
    batch.put(key(PREFIX, kept.id), value)
}

/// The INVITE is kept until the caller's ACK: a crash between the record and the 200 must not leave him with a phone that rings for ever.
pub fn put_invite(batch: Batch, id: u64, invite: &[u8]) -> Batch {
    batch.put(key(INVITE_PREFIX, id), invite)
}

pub fn delete_invite(batch: Batch, id: u64) -> Batch {
    batch.delete(key(INVITE_PREFIX, id))
}

pub fn delete(batch: Batch, id: u64) -> Batch {
    delete_invite(batch.delete(key(PREFIX, id)), id)
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
                Some((_, json)) => match serde_json::from_slice::<Kept>(json) {
                    Ok(mut kept) => {
                        kept.invite = store.get(&key(INVITE_PREFIX, kept.id))?.unwrap_or_default();
                        all.push(kept);
                    }
                    Err(_) => unreadable += 1,
                },
                None => unreadable += 1,
            }
        }
    }
}

fn key(prefix: &[u8], id: u64) -> Vec<u8> {
    let mut key = prefix.to_vec();
    key.extend_from_slice(format!("{id:012x}").as_bytes());
    key
}
