//! The heart: inputs in, outputs out.
//!
//! Knows: which role an input is for, and in which order what came of it happens. Does not know: time, dice, disk and sockets; they
//! are handed in with [`Ctx`]. One node, one thread, no lock, no await.
//! Read first: [`crate::seam`], then [`Node::handle`].

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use crate::config::{Settings, TrunkMode};
use crate::event::{Drop, Event};
use crate::ident::Imsi;
use crate::register::asking::{Asker, Write};
use crate::register::front::Front;
use crate::register::locate::{Finder, Located, Locator, Seeker};
use crate::register::marks::Marks;
use crate::register::replicas::{self, Replicas, Told};
use crate::register::serve;
use crate::route::calls::{self, Calls};
use crate::route::redirect::Redirect;
use crate::seam::{ConnId, Ctx, Inner, Input, Local, Output, Port, ReplyTo, Timer, Timers, TransactionKey};
use crate::sip::header::{HeaderName, Uri, Via};
use crate::sip::parse::{Malformed, MalformedKind, Message, parse};
use crate::sip::transaction::{self, Seen, Server};
use crate::sip::write::{DATAGRAM_BYTES_MAX, ECHO_BYTES_MAX, Writer, echo_bytes, reply_target};
use crate::site::{ERAS_KEY, FLOOR_KEY, Request, Site, UNTRUSTED_KEY, World};
use crate::sms::Centre;
use crate::store::{Batch, Store, StoreError, StoreId};
use crate::time::{Clock, Era, Instant};
use crate::zone::{Health, Map, Zone};

/// The hands of a role, made of this node's parts and of what the shell handed in.
macro_rules! world {
    ($node:ident, $ctx:ident) => {
        &mut World { ctx: &mut *$ctx, site: &$node.site, clock: &mut $node.clock, timers: &mut $node.timers }
    };
}

/// Those who can be asked where a phone is.
macro_rules! finder {
    ($node:ident) => {
        &mut Finder { front: &$node.front, replicas: &mut $node.replicas, locator: &mut $node.locator }
    };
}

mod commands;
mod streams;
mod texts;

/// The methods that we answer otherwise than by 405.
const ALLOW: &str = "REGISTER, INVITE, ACK, CANCEL, BYE, OPTIONS, INFO, UPDATE, MESSAGE";
/// How much may wait for the disk, for each transaction that may be under way: a REGISTER holds a yes per replica and its own.
const HELD_PER_TRANSACTION_MAX: usize = 4;
/// Records looked at for purging, per replica and second.
const PURGE_PER_SECOND: usize = 500;

/// Keys of the node's own store, beside [`FLOOR_KEY`] and the hints.
const FRONT_KEY: &[u8] = b"f";
const SERIAL_KEY: &[u8] = b"z";
/// Present from the first start until the founding marks are on disk.
const FOUNDING_KEY: &[u8] = b"n";
const EPOCH_KEY: &[u8] = b"e";

/// One node: every role of one process.
pub struct Node {
    site: Site,
    clock: Clock,
    timers: Timers,
    server: Server,
    replicas: Replicas,
    front: Front,
    locator: Locator,
    redirect: Redirect,
    marks: Marks,
    centre: Centre,
    calls: Calls,
    streams: BTreeMap<ConnId, streams::Stream>,
    commands: BTreeMap<u64, commands::LookupCommand>,
    purge_at: Vec<Option<Imsi>>,
    zone: Arc<Zone>,
    /// The replicas have their marks, and not all of them on disk.
    founding: bool,
}

/// A message with where it came from and where its answer goes.
struct Came<'a> {
    from: SocketAddr,
    port: Port,
    to: ReplyTo,
    bytes: &'a [u8],
}

impl<'a> Came<'a> {
    fn request(&self, key: TransactionKey, message: &'a Message<'a>) -> Request<'a> {
        Request { from: self.from, to: self.to, key, bytes: self.bytes, message }
    }
}

impl Node {
    /// Opens the stores that `ctx` holds and starts every role of the settings.
    ///
    /// Errors: the node's own store cannot be read or written; nothing runs without it.
    pub fn start(ctx: &mut Ctx<'_>, settings: Arc<Settings>) -> Result<Node, StoreError> {
        let secret = ctx.rng.bytes();
        let fresh_front = u32::from_be_bytes(ctx.rng.bytes());
        let map = Arc::new(Map::new(&settings));
        let store = ctx.stores.store(StoreId::Node).ok_or(StoreError::Closed)?;
        let kept_front = get_array::<4>(store, FRONT_KEY)?.map(u32::from_be_bytes);
        let front_id = kept_front.unwrap_or(fresh_front);
        let mut founding = store.get(FOUNDING_KEY)?.is_some();
        if kept_front.is_none() {
            founding = replicas::is_new(ctx, &settings);
            let batch = Batch::default().put(FRONT_KEY, front_id.to_be_bytes());
            let batch = if founding { batch.put(FOUNDING_KEY, [1u8]) } else { batch };
            ctx.stores.store(StoreId::Node).ok_or(StoreError::Closed)?.write(batch)?;
        }
        let store = ctx.stores.store(StoreId::Node).ok_or(StoreError::Closed)?;
        let floor_ms = get_array::<8>(store, FLOOR_KEY)?.map_or(0, u64::from_be_bytes);
        let eras = decode_eras(&store.get(ERAS_KEY)?.unwrap_or_default());
        let epoch = next_epoch(store, &map)?;
        let subscribers = Arc::clone(&settings.subscribers);
        let site = Site { settings: Arc::clone(&settings), subscribers, map, epoch, secret };
        let untrusted_since_ms = get_array::<8>(store, UNTRUSTED_KEY)?.map(u64::from_be_bytes);
        let mut clock = Clock::new(front_id, floor_ms, eras, untrusted_since_ms, ctx.now);
        let mut timers = Timers::default();
        timers.at(ctx.now + Duration::from_secs(1), Timer::Housekeeping);
        let mut replicas = Replicas::new(&settings);
        let w = &mut World { ctx: &mut *ctx, site: &site, clock: &mut clock, timers: &mut timers };
        notice_clock(w);
        // The first reservation is made before the first phone asks. On a full disk lookups and calls go on (promise 8): the next
        // stamp tries again.
        if let Err(error) = w.stamp()
            && error != StoreError::Full
        {
            return Err(error);
        }
        replicas.start(w, founding)?;
        let centre = Centre::start(w)?;
        let calls = Calls::start(w)?;
        let zone = make_zone(w, &replicas)?;
        ctx.out.send(Output::Zone(Arc::clone(&zone)));
        let purge_at = vec![None; replicas.count()];
        let mut node = Node {
            site,
            clock,
            timers,
            server: Server::default(),
            replicas,
            front: Front::default(),
            locator: Locator::default(),
            redirect: Redirect::default(),
            marks: Marks::default(),
            centre,
            calls,
            streams: BTreeMap::new(),
            commands: BTreeMap::new(),
            purge_at,
            zone,
            founding,
        };
        node.settle(ctx);
        Ok(node)
    }

    /// When [`Input::Timeout`] is due.
    pub fn poll_timeout(&self) -> Option<Instant> {
        self.timers.next()
    }

    /// Takes one input; what it leads to stands in `ctx.out` afterwards.
    pub fn handle(&mut self, ctx: &mut Ctx<'_>, input: Input<'_>) {
        notice_clock(world!(self, ctx));
        match input {
            Input::Datagram { from, to, bytes } => self.datagram(ctx, from, to, bytes),
            Input::Stream { conn, what } => self.stream(ctx, conn, what),
            Input::Timeout => {
                while let Some(timer) = self.timers.pop(ctx.now) {
                    self.timeout(ctx, timer);
                }
            }
            Input::Synced(commit) => ctx.out.synced(commit),
            Input::StoreFailed(store, why) => self.store_failed(ctx, store, why),
            Input::Settings(settings) => self.settings(ctx, settings),
            Input::Command { id, command } => self.command(ctx, id, command),
            Input::HttpDone { id, result } => self.hook_answered(ctx, id, result),
            Input::NumberGiven { id, result } => self.number_given(ctx, id, result),
            Input::Mail { id, mail } => self.mail(ctx, id, *mail),
            Input::MailSent { id, result } => self.mail_sent(ctx, id, result),
        }
        self.settle(ctx);
    }

    /// Lets happen what is ready to, until nothing is; then tells the zone where a replica's health changed.
    fn settle(&mut self, ctx: &mut Ctx<'_>) {
        while let Some(inner) = ctx.out.next_ready() {
            match inner {
                Inner::Output(output) => ctx.out.leave(output),
                Inner::Answer { key, to, bytes } => {
                    if let Some(key) = key {
                        self.server.complete(key, &bytes);
                    }
                    ctx.out.leave(deliver(to, bytes));
                }
                Inner::Written { write, replica, older_than, alert } => {
                    self.written(ctx, write, replica, older_than, alert);
                }
                Inner::NotWritten { write, replica } => self.refused_by_store(ctx, write, replica),
                Inner::Promised { register } => self.front.promised(world!(self, ctx), register),
                Inner::Located { seeker, located } => self.located(ctx, seeker, located),
                Inner::Returned { imsi, owners, registered } => self.phone_returned(ctx, imsi, owners, registered),
                Inner::Arrived { imsi, arrival } => {
                    self.centre.arrived(world!(self, ctx), finder!(self), imsi, arrival);
                }
                Inner::Mark { imsi, since } => {
                    self.marks.write(world!(self, ctx), &mut self.replicas, imsi, since);
                }
                Inner::TextsKept { texts } => self.centre.kept(world!(self, ctx), finder!(self), &texts),
                Inner::TextRemoved { recipient, text } => {
                    self.centre.removed(world!(self, ctx), finder!(self), recipient, text);
                }
                Inner::CallKept { call } => self.calls.kept(world!(self, ctx), call),
                Inner::Found => self.replicas.found(world!(self, ctx)),
                Inner::HintsWritten { replica, told } => {
                    self.replicas.hints_written(world!(self, ctx), replica, &told);
                }
            }
        }
        if !self.replicas.health().eq(self.zone.health.iter().copied()) {
            self.turn_zone(ctx, self.replicas.health().collect());
            while let Some(Inner::Output(output)) = ctx.out.next_ready() {
                ctx.out.leave(output);
            }
        }
    }

    // --- From the wire ---

    fn datagram(&mut self, ctx: &mut Ctx<'_>, from: SocketAddr, to: Local, bytes: &[u8]) {
        match parse(bytes) {
            Err(malformed) => {
                let listed = self.site.is_listed(from.ip()) || matches!(to.port, Port::Replica(..));
                self.malformed(ctx, from, malformed, listed, |via| reply_to(to, via, from));
            }
            Ok(message) if !message.is_request() => self.response(ctx, from, &message),
            Ok(message) => {
                let Ok(via) = message.via() else {
                    return ctx.out.event(Event::DatagramDropped { from, why: Drop::Malformed("no Via") });
                };
                if via.host.parse() != Ok(from.ip()) {
                    ctx.out.event(Event::SentByDiffers { from });
                }
                let reply = reply_to(to, &via, from);
                self.request(ctx, &Came { from, port: to.port, to: reply, bytes }, &message);
            }
        }
    }

    /// What is not SIP is dropped, what is nearly SIP is told so; from strangers both are silence. Each is counted.
    fn malformed(
        &mut self,
        ctx: &mut Ctx<'_>,
        from: SocketAddr,
        malformed: Malformed<'_>,
        listed: bool,
        reply: impl FnOnce(&Via<'_>) -> ReplyTo,
    ) {
        let why = match malformed.kind {
            MalformedKind::KeepAlive => Drop::KeepAlive,
            _ if !listed => Drop::Unlisted,
            MalformedKind::NotSip | MalformedKind::Answerable => Drop::Malformed(malformed.why),
        };
        let answerable = malformed.answer.filter(|_| listed);
        let Some((answer, to)) = answerable.and_then(|answer| {
            let to = reply(&answer.message.via().ok()?);
            Some((answer, to))
        }) else {
            return ctx.out.event(Event::DatagramDropped { from, why });
        };
        let source = (from.ip(), Some(from.port()));
        let mut writer = Writer::response_to(
            &answer.message,
            answer.code,
            answer.phrase,
            Some(&self.site.stateless_tag(&answer.message)),
            Some(source),
        );
        match writer.finish_within(DATAGRAM_BYTES_MAX) {
            None => ctx.out.event(Event::DatagramDropped { from, why: Drop::AnswerTooLong }),
            Some(bytes) => {
                ctx.out.event(Event::MalformedAnswered { from, code: answer.code, why: malformed.why });
                ctx.out.send(deliver(to, bytes));
            }
        }
    }

    fn request(&mut self, ctx: &mut Ctx<'_>, came: &Came<'_>, message: &Message<'_>) {
        let address = came.from.ip();
        let method = message.method().unwrap_or_default();
        if method == "NOTIFY" && serve::is_stamped(message) {
            return self.alerted(ctx, came, message);
        }
        let stamped = matches!(came.port, Port::Replica(..)) && serve::is_stamped(message);
        if !stamped && !self.site.is_listed(address) {
            return self.unlisted(ctx, came, message);
        }
        if method == "ACK" {
            if self.calls.ack(world!(self, ctx), message) {
                return;
            }
            return ctx.out.event(Event::DatagramDropped { from: came.from, why: Drop::Ack });
        }
        if echo_bytes(message) > ECHO_BYTES_MAX {
            return self.refuse(ctx, came, message, 400, "Bad Request", "its Vias, tags and Call-ID are too long");
        }
        // A disk that hangs holds back what waits for it: a *no* to a trunk, an answer to another node. They are bounded, too.
        if self.holds_too_much(ctx) {
            return self.refuse(ctx, came, message, 503, "Service Unavailable", "the disk does not answer");
        }
        if let (Port::Replica(replica, _), true) = (came.port, stamped) {
            return self.stamped(ctx, came, message, usize::from(replica));
        }
        let trunk = self.trunk_of(came.from, message);
        let is_trunk = trunk.is_some();
        // "A replica's own port takes INVITE from trunks, replicas' addresses and peers, and is silent to all others, base stations
        // included; an unsigned REGISTER there, from whomever, binds nothing" (DESIGN section 9).
        if matches!(came.port, Port::Replica(..)) && !is_trunk && !self.site.is_peer(address) {
            return ctx.out.event(Event::DatagramDropped { from: came.from, why: Drop::Unlisted });
        }
        // "…it SHOULD reject the request with a 416 (Unsupported URI Scheme) response" (RFC 3261 §8.2.2.1).
        let scheme = message.uri().and_then(|uri| Uri::parse(uri).ok()).map(|uri| uri.scheme).unwrap_or_default();
        if !["sip", "sips", "tel"].iter().any(|known| scheme.eq_ignore_ascii_case(known)) {
            return self.refuse(
                ctx,
                came,
                message,
                416,
                "Unsupported URI Scheme",
                "a Request-URI that is not sip, sips or tel",
            );
        }
        // "If a UAS does not understand an option-tag listed in a Require header field, it MUST respond by generating a response with
        // status code 420 (Bad Extension)." (RFC 3261 §8.2.2.3). We support none; a caller's are for the phone that he is sent to.
        if matches!(method, "REGISTER" | "OPTIONS") && message.header(HeaderName::Require).is_some() {
            return self.refuse(
                ctx,
                came,
                message,
                420,
                "Bad Extension",
                "it requires an extension that is not supported",
            );
        }
        match (method, came.port) {
            ("REGISTER", Port::Front(_)) if self.site.settings.is_base_station(address) => {
                self.register(ctx, came, message)
            }
            ("REGISTER", Port::Replica(..)) => {
                self.refuse(ctx, came, message, 403, "Forbidden", "an unsigned REGISTER at a replica's port")
            }
            ("REGISTER", Port::Front(_)) => {
                self.refuse(
                    ctx,
                    came,
                    message,
                    403,
                    "Forbidden",
                    "a REGISTER from an address that is no base station's",
                );
            }
            ("INVITE" | "BYE" | "INFO" | "UPDATE", _) if has_to_tag(message) => self.inside(ctx, came, message),
            ("CANCEL", _) => self.cancel(ctx, came, message),
            ("INVITE", port) => match trunk {
                Some(index) if self.site.settings.trunks[index].mode == TrunkMode::Recurse => {
                    self.call(ctx, came, message, calls::From::Trunk(index));
                }
                Some(_) => self.route(ctx, came, message, port),
                None if self.site.is_peer(address) && !self.site.settings.is_base_station(address) => {
                    self.route(ctx, came, message, port);
                }
                None => self.call(ctx, came, message, calls::From::Station),
            },
            ("MESSAGE", _) if trunk.is_some() => self.trunk_text(ctx, came, message, trunk.unwrap_or_default()),
            ("MESSAGE", _) => self.text(ctx, came, message),
            ("BYE" | "INFO" | "UPDATE", _) => {
                self.refuse(ctx, came, message, 481, "Call/Transaction Does Not Exist", "no such call");
            }
            ("OPTIONS", _) => self.options(ctx, came, message),
            _ => self.refuse(ctx, came, message, 405, "Method Not Allowed", "the method is not served"),
        }
    }

    fn holds_too_much(&self, ctx: &Ctx<'_>) -> bool {
        ctx.out.held_count() >= HELD_PER_TRANSACTION_MAX * self.site.settings.registrar.transaction_count_max
    }

    /// A trunk by its address. Where trunk and base station share one (everything on one box), the source port tells them apart, or
    /// else who speaks: a base station's caller is an IMSI.
    fn trunk_of(&self, from: SocketAddr, message: &Message<'_>) -> Option<usize> {
        let settings = &self.site.settings;
        if let Some(index) = settings.trunks.iter().position(|trunk| trunk.address == from) {
            return Some(index);
        }
        let caller_is_imsi = message.from().is_ok_and(|from| from.uri.starts_with("sip:IMSI"));
        let index = settings.trunks.iter().position(|trunk| trunk.address.ip() == from.ip())?;
        (!(settings.is_base_station(from.ip()) && caller_is_imsi)).then_some(index)
    }

    fn unlisted(&mut self, ctx: &mut Ctx<'_>, came: &Came<'_>, message: &Message<'_>) {
        let forbidden = self.site.settings.front.unlisted == crate::config::Unlisted::Forbidden;
        if forbidden && message.method() != Some("ACK") && matches!(came.port, Port::Front(_)) {
            return self.refuse(ctx, came, message, 403, "Forbidden", "its address is in no list");
        }
        ctx.out.event(Event::DatagramDropped { from: came.from, why: Drop::Unlisted });
    }

    fn register(&mut self, ctx: &mut Ctx<'_>, came: &Came<'_>, message: &Message<'_>) {
        let Some(request) = self.first_copy(ctx, came, message) else { return };
        self.front.register(world!(self, ctx), &mut self.replicas, &request);
    }

    fn stamped(&mut self, ctx: &mut Ctx<'_>, came: &Came<'_>, message: &Message<'_>, replica: usize) {
        let Some(Request { from, to, key, .. }) = self.first_copy(ctx, came, message) else { return };
        let request = serve::Request { replica, from, to, key: Some(key), message };
        serve::serve(world!(self, ctx), &mut self.replicas, &request);
    }

    /// A request that is new; a copy is absorbed, or answered again.
    fn first_copy<'a>(&mut self, ctx: &mut Ctx<'_>, came: &Came<'a>, message: &'a Message<'a>) -> Option<Request<'a>> {
        let key = transaction::key(message, came.from);
        match self.server.receive(ctx.now, key, self.site.settings.registrar.transaction_count_max) {
            Seen::New => return Some(came.request(key, message)),
            Seen::UnderWay => ctx.out.event(Event::Retransmission { from: came.from }),
            Seen::Answered(bytes) => {
                let bytes = bytes.to_vec();
                ctx.out.event(Event::Retransmission { from: came.from });
                ctx.out.send(deliver(came.to, bytes));
            }
            Seen::Overload => {
                self.refuse(ctx, came, message, 503, "Service Unavailable", "too many transactions are under way");
            }
        }
        None
    }

    /// An INVITE that is redirected.
    fn route(&mut self, ctx: &mut Ctx<'_>, came: &Came<'_>, message: &Message<'_>, port: Port) {
        let first = match port {
            Port::Front(_) => None,
            Port::Replica(index, _) => Some(usize::from(index)),
        };
        let request = came.request(transaction::key(message, came.from), message);
        self.redirect.invite(world!(self, ctx), finder!(self), &request, first);
    }

    /// An INVITE that we carry ourselves.
    fn call(&mut self, ctx: &mut Ctx<'_>, came: &Came<'_>, message: &Message<'_>, by: calls::From) {
        let request = came.request(transaction::key(message, came.from), message);
        self.calls.invite(world!(self, ctx), finder!(self), by, &request);
    }

    /// A CANCEL is of a call of ours, or of a lookup that a trunk no longer waits for.
    fn cancel(&mut self, ctx: &mut Ctx<'_>, came: &Came<'_>, message: &Message<'_>) {
        let Some(request) = self.first_copy(ctx, came, message) else { return };
        if self.calls.cancel(world!(self, ctx), &request) {
            return;
        }
        // A CANCEL has its INVITE's branch, so the INVITE's key differs by the method alone.
        let invite = transaction::key_of_method(message, came.from, "INVITE");
        self.redirect.cancel(world!(self, ctx), &request, invite);
    }

    /// A request inside a dialog.
    fn inside(&mut self, ctx: &mut Ctx<'_>, came: &Came<'_>, message: &Message<'_>) {
        let Some(request) = self.first_copy(ctx, came, message) else { return };
        if !self.calls.inside(world!(self, ctx), finder!(self), &request) {
            calls::no_such_dialog(world!(self, ctx), &request);
        }
    }

    /// Where a phone is, told to whoever asked.
    fn located(&mut self, ctx: &mut Ctx<'_>, seeker: Seeker, located: Located) {
        match seeker {
            Seeker::Redirect(id) => self.redirect.located(world!(self, ctx), id, located),
            Seeker::Sender(id) => self.centre.sender_located(world!(self, ctx), finder!(self), id, located),
            Seeker::Recipient(imsi) => {
                self.centre.recipient_located(world!(self, ctx), finder!(self), imsi, located);
            }
            Seeker::Caller(_) | Seeker::Callee(_) => {
                self.calls.located(world!(self, ctx), finder!(self), seeker, located);
            }
        }
    }

    fn options(&mut self, ctx: &mut Ctx<'_>, came: &Came<'_>, message: &Message<'_>) {
        let source = (came.from.ip(), Some(came.from.port()));
        let mut writer = Writer::response_to(message, 200, "OK", Some(&self.site.stateless_tag(message)), Some(source));
        let bytes = writer.header("Allow", ALLOW).header("Accept", "application/sdp").finish();
        ctx.out.send(deliver(came.to, bytes));
    }

    /// A stateless *no*: a copy of the request gets the same again.
    fn refuse(
        &mut self,
        ctx: &mut Ctx<'_>,
        came: &Came<'_>,
        message: &Message<'_>,
        code: u16,
        phrase: &'static str,
        why: &'static str,
    ) {
        let source = (came.from.ip(), Some(came.from.port()));
        let mut writer =
            Writer::response_to(message, code, phrase, Some(&self.site.stateless_tag(message)), Some(source));
        match code {
            405 => drop(writer.header("Allow", ALLOW)),
            420 => drop(writer.header("Unsupported", message.header(HeaderName::Require).unwrap_or_default())),
            503 => drop(writer.header("Reason", "Q.850;cause=42")),
            _ => {}
        }
        match writer.finish_within(DATAGRAM_BYTES_MAX) {
            None => ctx.out.event(Event::DatagramDropped { from: came.from, why: Drop::AnswerTooLong }),
            Some(bytes) => {
                ctx.out.event(Event::RequestRefused { from: came.from, method: known_method(message), code, why });
                ctx.out.send(deliver(came.to, bytes));
            }
        }
    }

    fn response(&mut self, ctx: &mut Ctx<'_>, from: SocketAddr, message: &Message<'_>) {
        if self.text_response(ctx, from, message) {
            return;
        }
        if message.via().ok().and_then(|via| via.branch).is_some_and(|branch| branch.starts_with(calls::BRANCH)) {
            return self.calls.response(world!(self, ctx), finder!(self), from, message);
        }
        let told = self.replicas.response(world!(self, ctx), from, message);
        self.told(ctx, told);
    }

    fn told(&mut self, ctx: &mut Ctx<'_>, told: Told) {
        let (front, locator, replicas) = (&mut self.front, &mut self.locator, &mut self.replicas);
        match told {
            Told::Nothing => {}
            Told::Written { write, replica, older_than, alert, is_new } => {
                if let (Write::Register(id), true) = (write, is_new) {
                    front.knew_nothing(replicas, id, replica);
                }
                self.written(ctx, write, replica, older_than, alert);
            }
            Told::NotWritten { write, replica, why } => self.not_written(ctx, write, replica, why),
            Told::Record { asker: Asker::Register(id), record } => {
                front.told_record(world!(self, ctx), replicas, id, record);
            }
            Told::Record { asker: Asker::Command(id), record } => self.lookup_told(ctx, id, record),
            Told::Record { asker: Asker::Locate(id), record } => {
                locator.told_record(world!(self, ctx), replicas, id, record)
            }
            Told::Found { lookup, contact, texts, station } => {
                locator.found(world!(self, ctx), lookup, contact, texts, station);
            }
            Told::Absent { lookup } => locator.absent(world!(self, ctx), replicas, lookup),
            Told::NoAnswer { lookup } => locator.no_answer(world!(self, ctx), replicas, lookup),
        }
    }

    // --- Time and disk ---

    fn timeout(&mut self, ctx: &mut Ctx<'_>, timer: Timer) {
        match timer {
            Timer::Asked(id) => {
                let told = self.replicas.asked_timeout(world!(self, ctx), id);
                self.told(ctx, told);
            }
            Timer::Register(id) => self.front.deadline(world!(self, ctx), &mut self.replicas, id),
            Timer::Replica(index) => self.replicas.retry(world!(self, ctx), index),
            Timer::Stream(conn) => self.stream_timeout(ctx, conn),
            Timer::Mark(id) => self.marks.deadline(world!(self, ctx), &mut self.replicas, id),
            Timer::Text(recipient) => self.centre.timeout(world!(self, ctx), finder!(self), recipient),
            Timer::TextNote(id) => self.centre.note_timeout(world!(self, ctx), id),
            Timer::Operator(id) => self.centre.job_turn(world!(self, ctx), finder!(self), id),
            Timer::Call(id) => self.calls.timeout(world!(self, ctx), finder!(self), id),
            Timer::Housekeeping => self.housekeeping(ctx),
        }
    }

    /// Once a second: forget, purge (only by a trusted clock), reserve the next stretch of stamps before somebody waits for it.
    fn housekeeping(&mut self, ctx: &mut Ctx<'_>) {
        self.timers.at(ctx.now + Duration::from_secs(1), Timer::Housekeeping);
        self.server.expire(ctx.now);
        let w = world!(self, ctx);
        self.front.housekeeping(w);
        self.calls.housekeeping(w);
        self.redirect.housekeeping(w.ctx.now);
        if w.wall().trusted {
            for index in 0..self.replicas.count() {
                self.purge_at[index] = self.replicas.purge(w, index, self.purge_at[index], PURGE_PER_SECOND);
            }
        }
        self.centre.housekeeping(world!(self, ctx), finder!(self));
        let w = world!(self, ctx);
        w.reserve_early();
        self.marks.housekeeping(w, &mut self.replicas);
        self.replicas.keep_hints(w);
        if self.founding && w.unsynced(StoreId::Node).is_none() {
            self.replicas.found(w);
            if self.replicas.is_founded(w) {
                self.founding = w.node_write(Batch::default().delete(FOUNDING_KEY)).is_err();
            }
        }
    }

    /// A failed sync is fatal to its store: out of the write and the read set; for the node's own store the process ends.
    fn store_failed(&mut self, ctx: &mut Ctx<'_>, store: StoreId, why: String) {
        let untrue = ctx.out.failed(store);
        // "…where the node's own store or the messages' fails, the process ends" (promise 1).
        match store {
            StoreId::Node => return ctx.out.send(Output::End(format!("the node's own store failed: {why}"))),
            StoreId::Messages => return ctx.out.send(Output::End(format!("the messages' store failed: {why}"))),
            StoreId::Replica(_) => {}
        }
        self.replicas.closed(world!(self, ctx), store, why);
        for inner in untrue {
            match inner {
                Inner::Written { write, replica, .. } => self.not_written(ctx, write, replica, "its disk failed"),
                Inner::Promised { register } => self.front.not_promised(world!(self, ctx), register),
                Inner::Output(Output::Answer { id, .. }) => self.answer_failed(ctx, id),
                // Another node is not answered and takes it for missed; a trunk asks again: a copy is a new request to us.
                Inner::Answer { key, .. } => {
                    if let Some(key) = key {
                        self.server.forget(key);
                    }
                    ctx.out.event(Event::AnswerWithdrawn);
                }
                Inner::Output(_) => ctx.out.event(Event::AnswerWithdrawn),
                // That the phone is nowhere was read from a disk which has failed.
                Inner::Located { seeker, .. } => self.located(ctx, seeker, Located::TooFew),
                // Wait for nothing, or for a store whose failure ends the process.
                Inner::NotWritten { .. }
                | Inner::Arrived { .. }
                | Inner::CallKept { .. }
                | Inner::Mark { .. }
                | Inner::TextsKept { .. }
                | Inner::TextRemoved { .. } => {}
                // A write that came late: whoever waits finds the phone by its slow ladder.
                Inner::Returned { .. } => {}
                // The hints stay; the replica is closed until the next start.
                Inner::HintsWritten { .. } | Inner::Found => {}
            }
        }
    }

    // --- From the operator ---

    fn settings(&mut self, ctx: &mut Ctx<'_>, settings: Arc<Settings>) {
        self.site.subscribers = Arc::clone(&settings.subscribers);
        self.replicas.settings_changed(&settings);
        let before = std::mem::replace(&mut self.site.settings, settings);
        if before.mail != self.site.settings.mail {
            self.centre.relay_changed(world!(self, ctx), finder!(self));
        }
        self.renew_zone(ctx);
    }

    fn renew_zone(&mut self, ctx: &mut Ctx<'_>) {
        let zone = make_zone(world!(self, ctx), &self.replicas);
        self.publish(ctx, zone);
    }

    /// A replica fell ill or recovered: the numbers stay as they are.
    fn turn_zone(&mut self, ctx: &mut Ctx<'_>, health: Vec<Health>) {
        let zone = next_serial(world!(self, ctx)).map(|serial| Arc::new(self.zone.turn(health, serial)));
        self.publish(ctx, zone);
    }

    fn publish(&mut self, ctx: &mut Ctx<'_>, zone: Result<Arc<Zone>, StoreError>) {
        match zone {
            Ok(zone) => {
                self.zone = Arc::clone(&zone);
                ctx.out.send(Output::Zone(zone));
            }
            Err(error) => ctx.out.event(Event::NodeStoreRefused { why: error.to_string() }),
        }
    }

    /// What is remembered for late copies: nothing, when nobody has spoken for a while.
    pub fn remembered(&self) -> usize {
        self.server.len() + self.calls.remembered()
    }

    /// How much is under way: all 0 when a node is at rest.
    pub fn under_way(&self) -> usize {
        self.front.under_way()
            + self.redirect.under_way()
            + self.calls.under_way()
            + self.locator.under_way()
            + self.commands.len()
            + self.marks.under_way()
            + self.centre.under_way()
    }
}

/// Notices a clock that was put right, and keeps on disk what it did not know until then.
fn notice_clock(w: &mut World<'_, '_>) {
    let before = w.clock.untrusted_since_ms();
    let era = w.clock.notice(w.ctx.now, w.ctx.wall);
    if let Some(era) = era {
        w.event(Event::ClockJumped { shift_s: era.shift_ms / 1000 });
    }
    if era.is_some() || before != w.clock.untrusted_since_ms() {
        w.keep_clock();
    }
}

/// It belongs to a dialog.
fn has_to_tag(message: &Message<'_>) -> bool {
    message.to().is_ok_and(|to| to.tag().is_some())
}

/// "…to the source address and the port of the top Via's sent-by" (DESIGN section 6; RFC 3261 §18.2.2), from where it came to.
fn reply_to(local: Local, via: &Via<'_>, source: SocketAddr) -> ReplyTo {
    ReplyTo::Datagram { from: local, to: reply_target(via, source) }
}

fn deliver(to: ReplyTo, bytes: Vec<u8>) -> Output {
    match to {
        ReplyTo::Datagram { from, to } => Output::Datagram { from, to, bytes },
        ReplyTo::Stream(conn) => Output::Stream { conn, bytes },
    }
}

/// The method for a log line: one of the known names, never the sender's bytes.
fn known_method(message: &Message<'_>) -> &'static str {
    const KNOWN: [&str; 12] = [
        "REGISTER",
        "INVITE",
        "CANCEL",
        "BYE",
        "OPTIONS",
        "MESSAGE",
        "INFO",
        "SUBSCRIBE",
        "NOTIFY",
        "PUBLISH",
        "UPDATE",
        "REFER",
    ];
    KNOWN.into_iter().find(|known| message.method() == Some(known)).unwrap_or("another method")
}

/// What DNS answers from now on.
fn make_zone(w: &mut World<'_, '_>, replicas: &Replicas) -> Result<Arc<Zone>, StoreError> {
    let serial = next_serial(w)?;
    let Site { settings, subscribers, map, epoch, .. } = w.site;
    let (settings, subscribers, map) = (Arc::clone(settings), Arc::clone(subscribers), Arc::clone(map));
    Ok(Arc::new(Zone::new(settings, subscribers, map, replicas.health().collect(), serial, *epoch)))
}

/// A serial larger than every one before, across restarts: max(stored + 1, time).
fn next_serial(w: &mut World<'_, '_>) -> Result<u32, StoreError> {
    let now_s = u32::try_from(w.wall().ms / 1000).unwrap_or(u32::MAX);
    let stored = get_array::<4>(w.store(StoreId::Node)?, SERIAL_KEY)?.map_or(0, u32::from_be_bytes);
    let serial = now_s.max(stored.wrapping_add(1));
    match w.node_write(Batch::default().put(SERIAL_KEY, serial.to_be_bytes())) {
        // A full disk does not silence DNS; by the clock the next serial is larger all the same.
        Ok(_) | Err(StoreError::Full) => Ok(serial),
        Err(error) => Err(error),
    }
}

/// The version of the map: one more than the last, where the map is another one than the last.
fn next_epoch(store: &mut dyn Store, map: &Map) -> Result<u64, StoreError> {
    let fingerprint = map.fingerprint();
    let stored = store.get(EPOCH_KEY)?.unwrap_or_default();
    if let Some((epoch, known)) = stored.split_at_checked(8)
        && let Ok(epoch) = <[u8; 8]>::try_from(epoch)
    {
        let epoch = u64::from_be_bytes(epoch);
        if known == fingerprint {
            return Ok(epoch);
        }
        return put_epoch(store, epoch + 1, &fingerprint);
    }
    put_epoch(store, 1, &fingerprint)
}

fn put_epoch(store: &mut dyn Store, epoch: u64, fingerprint: &[u8]) -> Result<u64, StoreError> {
    let mut value = epoch.to_be_bytes().to_vec();
    value.extend_from_slice(fingerprint);
    store.write(Batch::default().put(EPOCH_KEY, value))?;
    Ok(epoch)
}

fn get_array<const N: usize>(store: &dyn Store, key: &[u8]) -> Result<Option<[u8; N]>, StoreError> {
    let wrong =
        |_| StoreError::Broken(format!("the node's record {:?} has a wrong length", String::from_utf8_lossy(key)));
    store.get(key)?.map(|bytes| <[u8; N]>::try_from(bytes).map_err(wrong)).transpose()
}

fn decode_eras(bytes: &[u8]) -> Vec<Era> {
    let number = |chunk: &[u8], at: usize| chunk[at..at + 8].iter().fold(0u64, |sum, byte| sum << 8 | u64::from(*byte));
    let era = |chunk: &[u8]| Era { from_ms: number(chunk, 0), to_ms: number(chunk, 8), shift_ms: number(chunk, 16) };
    bytes.chunks_exact(24).map(era).collect()
}
