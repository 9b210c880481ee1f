//! `encamp init`: founds the replicas of this box, by the operator's word.
//!
//! Writes the founding mark into every local replica that is empty and has none, and touches no file of his. Where a shard has replicas
//! elsewhere, the running nodes compare before any *no* is believed (DESIGN promise 2).

use std::path::Path;

use super::commands::{Failure, load};
use super::control::now_ms;
use crate::config::Place;
use crate::register::replica::{Mark, Replica};
use crate::register::replicas::mark_name;
use crate::store::rocks::{RocksStore, Shared};
use crate::store::{StoreError, StoreId};

/// Founds; what was done, a line for each replica.
pub fn init(config: &Path) -> Result<Vec<String>, Failure> {
    let settings = load(config)?;
    let could_not = |name: &str, error: StoreError| {
        let hint = "is encamp running? end it first: init works on the stores themselves";
        Failure::new(2, format!("cannot found replica {name}"), error.to_string(), hint)
    };
    let shared = Shared::new().map_err(|error| could_not("", error))?;
    let mut told = Vec::new();
    for (index, replica) in settings.replicas.iter().enumerate() {
        let Place::Local { path, .. } = &replica.place else { continue };
        let name = &replica.name;
        let id = StoreId::Replica(index as u16);
        let mut store = RocksStore::open(path, id, &shared, settings.disk_reserve_bytes, Box::new(|_| {}))
            .map_err(|error| could_not(name, error))?;
        let mut opened = Replica::open(&store, id).map_err(|error| could_not(name, error))?;
        told.push(match &opened.mark {
            Some(mark) => format!("replica {name}: was founded before, as {}", mark.name),
            None if opened.bindings > 0 => {
                format!(
                    "replica {name}: holds {} bindings already and is not founded anew: it is refilled by its siblings",
                    opened.bindings
                )
            }
            None => {
                let mark = Mark { name: mark_name(&settings, replica.shard), founded_ms: now_ms(), level: false };
                opened.set_mark(&mut store, mark.clone()).map_err(|error| could_not(name, error))?;
                format!("replica {name}: founded as {}", mark.name)
            }
        });
    }
    Ok(told)
}
