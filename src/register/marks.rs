//! Marks on their way to the replicas: "tell me when this phone is back" (DESIGN section 4).
//!
//! Knows: the marks that are being written, and who has not said yes yet. Does not know: why anybody waits for a phone, or how a
//! replica is reached ([`Replicas`]). A mark promises nothing, so it needs no quorum: who misses it gets a hint, and whoever waits has a
//! slow ladder beside it.
//! Limits: a write ends by `write_deadline`; as many are under way as attempts have just failed; `hint_count_max` wait for a stamp.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;

use super::asking::Write;
use super::merge::{Mark, Record};
use super::replicas::Replicas;
use crate::ident::Imsi;
use crate::seam::{After, Inner, Timer};
use crate::site::World;
use crate::time::Stamp;

/// The marks that are being written.
#[derive(Default)]
pub struct Marks {
    under_way: BTreeMap<u64, Writing>,
    count: u64,
    /// No stamp could be given for these: the node's own store was full. They are tried again each second.
    unstamped: BTreeMap<Imsi, Option<Stamp>>,
}

struct Writing {
    imsi: Imsi,
    delta: Record,
    /// Those who have said nothing yet.
    open: BTreeSet<usize>,
}

impl Marks {
    pub fn under_way(&self) -> usize {
        self.under_way.len()
    }

    /// Tells every replica of the phone's shard that we wait for it since then, or no longer. Where nobody could tell us, nothing is
    /// written; where no stamp can be given now, it is tried again.
    pub fn write(&mut self, w: &mut World<'_, '_>, replicas: &mut Replicas, imsi: Imsi, since: Option<Stamp>) {
        let (Some(shard), Some((_, own))) = (w.site.map.shard_of(&imsi), w.site.own_port()) else { return };
        self.unstamped.remove(&imsi);
        let Ok((stamp, reserved)) = w.stamp() else {
            // The refusal was told by the node's own store. Beyond the limit the slow ladder has to do.
            if self.unstamped.len() < w.site.settings.registrar.hint_count_max {
                self.unstamped.insert(imsi, since);
            }
            return;
        };
        let delta = Record { marks: BTreeMap::from([(own, Mark { stamp, since })]), ..Record::default() };
        let members = &w.site.settings.shards[shard].replicas;
        self.count += 1;
        let id = self.count;
        let after = reserved.map_or(After::nothing(), |commit| After::nothing().and(commit));
        self.under_way.insert(id, Writing { imsi, delta: delta.clone(), open: members.iter().copied().collect() });
        w.timers.at(w.ctx.now + w.site.settings.registrar.write_deadline, Timer::Mark(id));
        for index in members {
            replicas.write(w, *index, imsi, &delta, Write::Mark(id), after);
        }
    }

    /// Once a second: what could not be stamped is tried again, until the first one cannot.
    pub fn housekeeping(&mut self, w: &mut World<'_, '_>, replicas: &mut Replicas) {
        for _ in 0..self.unstamped.len() {
            let Some((imsi, since)) = self.unstamped.pop_first() else { return };
            self.write(w, replicas, imsi, since);
            if self.unstamped.contains_key(&imsi) {
                return;
            }
        }
    }

    /// A replica has it; `alert` names who waits for a phone that is back already.
    pub fn written(&mut self, w: &mut World<'_, '_>, id: u64, replica: usize, alert: Vec<SocketAddr>) {
        let Some(writing) = self.under_way.get_mut(&id) else { return };
        writing.open.remove(&replica);
        if !alert.is_empty() {
            let imsi = writing.imsi;
            w.ctx.out.after(After::nothing(), Inner::Returned { imsi, owners: alert, registered: false });
        }
        if writing.open.is_empty() {
            self.under_way.remove(&id);
        }
    }

    /// A replica has it not: it is told again later.
    pub fn not_written(
        &mut self,
        w: &mut World<'_, '_>,
        replicas: &mut Replicas,
        id: u64,
        replica: usize,
        why: &'static str,
    ) {
        let Some(writing) = self.under_way.get_mut(&id) else { return };
        if writing.open.remove(&replica) {
            // Where the hint cannot be kept either, which was told, the slow ladder has to do.
            let _ = replicas.missed(w, replica, writing.imsi, &writing.delta, why);
        }
        if writing.open.is_empty() {
            self.under_way.remove(&id);
        }
    }

    /// Too late: those who have said nothing missed it.
    pub fn deadline(&mut self, w: &mut World<'_, '_>, replicas: &mut Replicas, id: u64) {
        let open: Vec<usize> =
            self.under_way.get(&id).map_or(Vec::new(), |writing| writing.open.iter().copied().collect());
        for index in open {
            self.not_written(w, replicas, id, index, "it has not synced a mark in time");
        }
        w.ctx.out.withdraw(Write::Mark(id));
    }
}
