//! What every role needs to know of the place it works in: the settings, the map, who we are to others.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use hmac::{Hmac, KeyInit, Mac};
use sha2::Sha256;

use crate::config::mailing::Relay;
use crate::config::{Settings, Subscriber, Subscribers, Transport};
use crate::event::Event;
use crate::gsm::form::TextForm;
use crate::ident::{Imsi, Msisdn};
use crate::seam::{Ctx, Local, Port, ReplyTo, Timers, TransactionKey};
use crate::sip::parse::Message;
use crate::sip::write::{Writer, hex};
use crate::store::{Batch, CommitId, Store, StoreError, StoreId};
use crate::time::{Clock, Era, Stamp, WallTime};
use crate::zone::Map;

/// Shared by all roles of a node; replaced in part when the settings change.
pub struct Site {
    pub settings: Arc<Settings>,
    pub subscribers: Arc<Subscribers>,
    pub map: Arc<Map>,
    /// The version of the map of suffixes to shards.
    pub epoch: u64,
    /// Made anew at each start: keys the tags of stateless answers and the names of our own requests.
    pub secret: [u8; 16],
}

/// A request as it came in, with what is needed to answer it, now or later.
#[derive(Clone, Copy)]
pub struct Request<'a> {
    pub from: SocketAddr,
    pub to: ReplyTo,
    pub key: TransactionKey,
    pub bytes: &'a [u8],
    pub message: &'a Message<'a>,
}

impl Request<'_> {
    /// An answer without headers of its own yet.
    pub fn response(&self, to_tag: &str, code: u16, phrase: &str) -> Writer {
        let source = (self.from.ip(), Some(self.from.port()));
        Writer::response_to(self.message, code, phrase, Some(to_tag), Some(source))
    }

    /// One whose tag is the same for every copy of the request.
    pub fn stateless_response(&self, site: &Site, code: u16, phrase: &str) -> Writer {
        self.response(&site.stateless_tag(self.message), code, phrase)
    }
}

/// The hands and the senses of a role while it works: time, dice, disk, the way out, deadlines.
pub struct World<'a, 'c> {
    pub ctx: &'a mut Ctx<'c>,
    pub site: &'a Site,
    pub clock: &'a mut Clock,
    pub timers: &'a mut Timers,
}

impl Site {
    /// The subscriber whom a Request-URI's user names: an IMSI, or a number as it was dialled.
    ///
    /// A number is tried as it stands, then with or without its `+`: what is dialled and what was typed differ by it often.
    pub fn resolve(&self, user: &str) -> Option<&Subscriber> {
        if let Ok(imsi) = Imsi::parse(user)
            && let Some(subscriber) = self.subscribers.get(&imsi)
        {
            return Some(subscriber);
        }
        // Visual separators do not count (RFC 3966 §4).
        let digits: String = user.chars().filter(|c| !matches!(c, '-' | '.' | '(' | ')')).collect();
        let other = digits.strip_prefix('+').map_or_else(|| format!("+{digits}"), str::to_owned);
        [digits.as_str(), &other]
            .into_iter()
            .filter_map(|text| Msisdn::parse(text).ok())
            .find_map(|number| self.subscribers.by_number(&number))
    }

    /// The relay that all mail goes to; `None`: the servers of each domain.
    pub fn relay(&self) -> Option<&Relay> {
        self.settings.mail.as_ref()?.relay.as_ref()
    }

    /// The port that our own requests leave from, and the address that others are told: the first UDP listener of the front,
    /// else of a local replica.
    pub fn own_port(&self) -> Option<(Local, SocketAddr)> {
        let front =
            self.settings.front.listen.iter().enumerate().map(|(n, listener)| (Port::Front(n as u16), listener));
        let replicas = self.settings.replicas.iter().enumerate().flat_map(|(n, replica)| {
            let listen: &[_] = match &replica.place {
                crate::config::Place::Local { listen, .. } => listen,
                crate::config::Place::Remote { .. } => &[],
            };
            listen.iter().enumerate().map(move |(m, listener)| (Port::Replica(n as u16, m as u16), listener))
        });
        front
            .chain(replicas)
            .find(|(_, listener)| listener.transport == Transport::Udp)
            .map(|(port, listener)| (Local { port, address: None }, listener.advertised()))
    }

    /// The To tag of an answer that no transaction keeps: a keyed hash of Call-ID, From tag and branch.
    ///
    /// "To header tags MUST be generated for responses in a stateless manner - in a manner that will generate the same tag for the
    /// same request consistently" (RFC 3261 §8.2.7).
    pub fn stateless_tag(&self, message: &Message<'_>) -> String {
        let from_tag = message.from().ok().and_then(|from| from.tag()).unwrap_or_default();
        let branch = message.via().ok().and_then(|via| via.branch).unwrap_or_default();
        let mut mac = <Hmac<Sha256> as KeyInit>::new_from_slice(&self.secret).expect("HMAC takes a key of any length");
        for part in [message.call_id(), from_tag, branch] {
            mac.update(&(part.len() as u64).to_be_bytes());
            mac.update(part.as_bytes());
        }
        hex(&mac.finalize().into_bytes()[..8])
    }

    /// What a base station or a trunk is called: as its table says, else its address.
    pub fn station_name(&self, address: SocketAddr) -> String {
        let station = self.settings.base_station_at(address.ip()).map(|station| &station.name);
        // An address may be both.
        let trunk = || self.settings.trunk_at(address.ip()).filter(|_| !self.settings.is_base_station(address.ip()));
        station.or_else(|| trunk().map(|trunk| &trunk.name)).map_or_else(|| address.to_string(), String::clone)
    }

    /// The location area of a base station, where its table says one.
    pub fn area_of(&self, address: IpAddr) -> Option<&str> {
        self.settings.base_station_at(address)?.location_area.as_deref()
    }

    /// How short messages go to a base station: as its table says, else as a REGISTER that came from there told.
    pub fn texts_at(&self, station: SocketAddr, learned: TextForm) -> TextForm {
        self.settings.base_station_at(station.ip()).and_then(|station| station.texts).unwrap_or(learned)
    }

    /// Whom nobody listed is not answered.
    pub fn is_listed(&self, address: IpAddr) -> bool {
        self.settings.is_base_station(address) || self.settings.trunk_at(address).is_some() || self.is_peer(address)
    }

    /// Another front end, a replica's box, or a foreign proxy of `front.peers`.
    pub fn is_peer(&self, address: IpAddr) -> bool {
        self.settings.front.peers.iter().any(|network| network.contains(address))
            || self.settings.replicas.iter().any(|replica| match &replica.place {
                crate::config::Place::Remote { address: remote } => remote.ip() == address,
                crate::config::Place::Local { .. } => false,
            })
    }
}

impl World<'_, '_> {
    pub fn event(&mut self, event: Event) {
        self.ctx.out.event(event);
    }

    pub fn wall(&self) -> WallTime {
        self.clock.wall(self.ctx.now, self.ctx.wall)
    }

    /// The next stamp, and the commit that must be synced before it may leave, where it needs a reservation that is not on disk yet.
    ///
    /// Errors: the node's own store refuses; no stamp may be given then.
    pub fn stamp(&mut self) -> Result<(Stamp, Option<CommitId>), StoreError> {
        let base = self.clock.base(self.ctx.now, self.ctx.wall);
        let (stamp, reserve) = self.clock.stamps.next(base);
        if let Some(floor_ms) = reserve {
            self.reserve(floor_ms)?;
        }
        let waits_for = self.clock.stamps.waits_for(stamp).map(|seq| CommitId { store: StoreId::Node, seq });
        Ok((stamp, waits_for))
    }

    /// Makes the next reservation before somebody has to wait for it.
    pub fn reserve_early(&mut self) {
        let base = self.clock.base(self.ctx.now, self.ctx.wall);
        // One that is not on the disk yet is none to build on.
        if self.unsynced(StoreId::Node).is_none()
            && let Some(floor_ms) = self.clock.stamps.reserve_early(base)
        {
            // Where it fails, the event has told so, and the next stamp tries again.
            let _ = self.reserve(floor_ms);
        }
    }

    fn reserve(&mut self, floor_ms: u64) -> Result<(), StoreError> {
        let mut batch = Batch::default().put(FLOOR_KEY, floor_ms.to_be_bytes());
        if !self.clock.is_kept {
            // A floor of today without the word that the clock had been wrong would make old bindings of new ones.
            batch.changes.extend(clock_batch(self.clock).changes);
        }
        match self.node_write(batch) {
            Ok(commit) => {
                self.clock.is_kept = true;
                self.clock.stamps.reserved(commit.seq);
                Ok(())
            }
            Err(error) => {
                self.clock.stamps.not_reserved();
                Err(error)
            }
        }
    }

    /// Keeps on disk what is known of a clock that was wrong; where the store refuses, the next reservation takes it along.
    pub fn keep_clock(&mut self) {
        let batch = clock_batch(self.clock);
        self.clock.is_kept = self.node_write(batch).is_ok();
    }

    /// Takes note of a stamp seen elsewhere, which must not be too far ahead of this clock.
    #[allow(clippy::result_unit_err, reason = "there is one reason")]
    pub fn observe(&mut self, seen: Stamp) -> Result<(), ()> {
        self.clock.observe(self.ctx.now, seen, self.ctx.wall)
    }

    pub fn node_write(&mut self, batch: Batch) -> Result<CommitId, StoreError> {
        let result = match self.ctx.stores.store(StoreId::Node) {
            None => Err(StoreError::Closed),
            Some(store) => store.write(batch).map(|seq| CommitId { store: StoreId::Node, seq }),
        };
        if let Err(error) = &result {
            self.event(Event::NodeStoreRefused { why: error.to_string() });
        }
        result
    }

    pub fn store(&mut self, id: StoreId) -> Result<&mut dyn Store, StoreError> {
        self.ctx.stores.store(id).ok_or(StoreError::Closed)
    }

    /// What was read from this store and is not yet synced: a *no* or a list read from it waits for that.
    pub fn unsynced(&mut self, id: StoreId) -> Option<CommitId> {
        let store = self.ctx.stores.store(id)?;
        (store.written_seq() > store.synced_seq()).then(|| CommitId { store: id, seq: store.written_seq() })
    }
}

/// The clock's floor in the node's own store: milliseconds, big endian.
pub const FLOOR_KEY: &[u8] = b"c";
/// The stretches of time that were lived by a wrong clock.
pub const ERAS_KEY: &[u8] = b"j";
/// Since when the clock has not been trusted; absent while it is.
pub const UNTRUSTED_KEY: &[u8] = b"u";

fn clock_batch(clock: &Clock) -> Batch {
    let batch = Batch::default().put(ERAS_KEY, encode_eras(clock.eras()));
    match clock.untrusted_since_ms() {
        Some(since_ms) => batch.put(UNTRUSTED_KEY, since_ms.to_be_bytes()),
        None => batch.delete(UNTRUSTED_KEY),
    }
}

fn encode_eras(eras: &[Era]) -> Vec<u8> {
    let numbers = eras.iter().flat_map(|era| [era.from_ms, era.to_ms, era.shift_ms]);
    numbers.flat_map(u64::to_be_bytes).collect()
}
