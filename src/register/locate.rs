//! Where a phone is: replicas are asked one after the other until one knows, or enough agree that it is nowhere.
//!
//! Knows: the searches under way, and how many replicas must agree on a *no*. Does not know: how replicas are reached
//! ([`Replicas`]), or what the answer is for ([`Seeker`]). The answer comes as [`Inner::Located`], a *no* once what it was read from
//! is on the disk.
//! Limits: a search asks each replica once, for `read_deadline` each.

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};

use super::asking::Asker;
use super::front::Front;
use super::merge::{Record, merge};
use super::replicas::Replicas;
use crate::gsm::form::TextForm;
use crate::ident::Imsi;
use crate::seam::{After, Inner};
use crate::site::{Site, World};
use crate::store::StoreId;

/// Who wants to know, to be given back with the answer.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Seeker {
    /// A trunk's INVITE that is to be redirected.
    Redirect(u64),
    /// A call: whether its caller is where it came from.
    Caller(u64),
    /// A call: where the phone is that it goes to.
    Callee(u64),
    /// A text: whether its sender is where it came from.
    Sender(u64),
    /// A text: where the phone is that it goes to.
    Recipient(Imsi),
}

/// What is looked for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Want {
    /// Where a call goes, by the word of one replica.
    Contact,
    /// All that is known: every replica is asked, and what they say is merged.
    Newest,
    /// A binding at this base station, or at another of its location area.
    BoundAt(IpAddr),
}

#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Located {
    Found {
        /// The contact written last, stale or not: "routing to a stale binding is the better choice" (wire.md 1.4).
        contact: String,
        /// All that is known of the phone, where it was read here or all of it was asked for.
        record: Option<Box<Record>>,
        /// How short messages go there: as its base station is configured, else as the phone's REGISTER told.
        form: TextForm,
        /// Where that REGISTER came from: its base station.
        station: SocketAddr,
    },
    /// Enough caught-up replicas agree that it is not.
    Away,
    /// Too few could say.
    TooFew,
}

/// The searches under way.
#[derive(Default)]
pub struct Locator {
    under_way: BTreeMap<u64, Search>,
    count: u64,
}

struct Search {
    imsi: Imsi,
    seeker: Seeker,
    want: Want,
    /// Replicas not yet asked, the next one last, and the one that is asked now.
    left: Vec<usize>,
    asked: Option<usize>,
    /// How many caught-up replicas have said no, and how many must.
    no: usize,
    no_needed: usize,
    /// What the noes were read from and is not yet synced.
    after: After,
    /// What was found so far, where everybody is asked.
    newest: Record,
}

/// A search, and those who can be asked.
pub struct Finder<'a> {
    pub front: &'a Front,
    pub replicas: &'a mut Replicas,
    pub locator: &'a mut Locator,
}

impl Finder<'_> {
    /// Begins a search; `first` is the replica to read first. The answer comes as [`Inner::Located`].
    pub fn seek(&mut self, w: &mut World<'_, '_>, imsi: Imsi, seeker: Seeker, want: Want, first: Option<usize>) {
        let Some(shard) = w.site.map.shard_of(&imsi) else {
            let located = Located::TooFew;
            return w.ctx.out.after(After::nothing(), Inner::Located { seeker, located });
        };
        let shard = &w.site.settings.shards[shard];
        let mut left = self.replicas.in_order(&shard.replicas, imsi);
        // Neither one that is behind, nor one elsewhere that still owes us the yes for a write of this phone (promise 2).
        left.retain(|index| !(self.replicas.is_remote(*index) && self.front.is_owed(imsi, *index)));
        // The sort is stable.
        left.sort_by_key(|index| first == Some(*index));
        self.locator.count += 1;
        let id = self.locator.count;
        let search = Search {
            imsi,
            seeker,
            want,
            left,
            asked: None,
            no: 0,
            // "480 or *not bound here* needs R-W+1 caught-up replicas that agree; with fewer it is 503" (promise 2).
            no_needed: shard.replicas.len() + 1 - shard.write_quorum,
            after: After::nothing(),
            newest: Record::default(),
        };
        self.locator.under_way.insert(id, search);
        self.locator.ask_next(w, self.replicas, id);
    }
}

impl Locator {
    pub fn under_way(&self) -> usize {
        self.under_way.len()
    }

    /// Reads one replica after the other; local ones at once, those elsewhere over the wire.
    fn ask_next(&mut self, w: &mut World<'_, '_>, replicas: &mut Replicas, id: u64) {
        loop {
            let Some(search) = self.under_way.get_mut(&id) else { return };
            if search.no >= search.no_needed && search.want != Want::Newest {
                return self.finish(w, id, Located::Away);
            }
            let Some(index) = search.left.pop() else {
                let everything = (search.want == Want::Newest).then(|| std::mem::take(&mut search.newest));
                let located = match everything.and_then(|record| found_in(w.site, record)) {
                    Some(found) => found,
                    None if search.no >= search.no_needed => Located::Away,
                    None => Located::TooFew,
                };
                return self.finish(w, id, located);
            };
            search.asked = Some(index);
            if replicas.is_remote(index) {
                let asked = match search.want {
                    Want::Contact => replicas.lookup(w, index, search.imsi, id),
                    Want::Newest | Want::BoundAt(_) => replicas.query(w, index, search.imsi, Asker::Locate(id)),
                };
                if asked {
                    return;
                }
                continue;
            }
            let Ok(Some(record)) = replicas.read_one(w, index, search.imsi) else { continue };
            if self.read(w, replicas, id, record) {
                return;
            }
        }
    }

    /// Takes what a replica has; `true` when the search is over.
    fn read(&mut self, w: &mut World<'_, '_>, replicas: &Replicas, id: u64, record: Record) -> bool {
        let Some(search) = self.under_way.get_mut(&id) else { return true };
        let found = match search.want {
            Want::Contact | Want::Newest => record.newest().is_some(),
            Want::BoundAt(address) => is_bound_near(w.site, &record, address),
        };
        if found
            && search.want != Want::Newest
            && let Some(located) = found_in(w.site, record.clone())
        {
            self.finish(w, id, located);
            return true;
        }
        if let Some(index) = search.asked
            && !found
            && replicas.is_believed(index, search.imsi)
        {
            search.no += 1;
            if !replicas.is_remote(index)
                && let Some(commit) = w.unsynced(StoreId::Replica(index as u16))
            {
                search.after = search.after.and(commit);
            }
        }
        search.newest = merge(std::mem::take(&mut search.newest), &record);
        false
    }

    /// A replica elsewhere has the phone there.
    pub fn found(&mut self, w: &mut World<'_, '_>, id: u64, contact: String, texts: TextForm, station: SocketAddr) {
        let located = found_at(w.site, contact, None, texts, station);
        self.finish(w, id, located);
    }

    /// A caught-up replica elsewhere has it not.
    pub fn absent(&mut self, w: &mut World<'_, '_>, replicas: &mut Replicas, id: u64) {
        if let Some(search) = self.under_way.get_mut(&id) {
            search.no += 1;
            self.ask_next(w, replicas, id);
        }
    }

    /// A replica elsewhere could not say.
    pub fn no_answer(&mut self, w: &mut World<'_, '_>, replicas: &mut Replicas, id: u64) {
        self.ask_next(w, replicas, id);
    }

    /// A replica elsewhere told its record, or nothing.
    pub fn told_record(&mut self, w: &mut World<'_, '_>, replicas: &mut Replicas, id: u64, record: Option<Record>) {
        if record.is_none_or(|record| !self.read(w, replicas, id, record)) {
            self.ask_next(w, replicas, id);
        }
    }

    /// Nobody waits for this any more.
    pub fn give_up(&mut self, seeker: Seeker) {
        self.under_way.retain(|_, search| search.seeker != seeker);
    }

    fn finish(&mut self, w: &mut World<'_, '_>, id: u64, located: Located) {
        let Some(Search { seeker, after, .. }) = self.under_way.remove(&id) else { return };
        // Where a phone is promises nothing and waits for no disk (promise 1); that it is nowhere does.
        let after = if located == Located::Away { after } else { After::nothing() };
        w.ctx.out.after(after, Inner::Located { seeker, located });
    }
}

/// What a record says of where a phone is; `None` where nothing is bound.
fn found_in(site: &Site, record: Record) -> Option<Located> {
    let (contact, _, binding) = record.newest()?;
    let (contact, texts, station) = (contact.to_owned(), binding.texts, binding.source);
    Some(found_at(site, contact, Some(Box::new(record)), texts, station))
}

/// The one place where a configured form of texts goes before the one that was learned.
fn found_at(
    site: &Site,
    contact: String,
    record: Option<Box<Record>>,
    learned: TextForm,
    station: SocketAddr,
) -> Located {
    let form = site.texts_at(station, learned);
    Located::Found { contact, record, form, station }
}

/// Whether one of the bindings is at this base station, or at another of its location area; stale counts.
pub fn is_bound_near(site: &Site, record: &Record, address: IpAddr) -> bool {
    let here = site.area_of(address);
    record.bindings().any(|(_, _, binding)| {
        let there = binding.source.ip();
        there == address || here.is_some() && site.area_of(there) == here
    })
}
