//! TCP connections, as the node sees them: who may hold one, where a message ends, when it is too old.
//!
//! Knows: the framer of each connection and its deadlines. Does not know: sockets; the shell reads and writes the bytes.
//! Limits (DESIGN section 9): the constants below.

use std::net::SocketAddr;
use std::time::Duration;

use super::{Came, Node};
use crate::event::{Drop, Event};
use crate::seam::{ConnId, Ctx, Local, Output, Port, ReplyTo, StreamEvent, Timer};
use crate::sip::parse::parse;
use crate::sip::stream::{Frame, Framer};
use crate::time::Instant;

/// TCP (DESIGN section 9): a started message, an idle connection, connections of a source, in all.
const STREAM_MESSAGE_S: u64 = 30;
const STREAM_IDLE_S: u64 = 120;
const STREAMS_PER_SOURCE_MAX: usize = 100;
const STREAMS_MAX: usize = 2000;
/// A stream connection.
pub(super) struct Stream {
    from: SocketAddr,
    to: Local,
    framer: Framer,
    listed: bool,
    heard_at: Instant,
    message_since: Option<Instant>,
}

impl Node {
    pub(super) fn stream(&mut self, ctx: &mut Ctx<'_>, conn: ConnId, what: StreamEvent<'_>) {
        match what {
            StreamEvent::Opened { from, to } => {
                let of_source = self.streams.values().filter(|stream| stream.from.ip() == from.ip()).count();
                if self.streams.len() >= STREAMS_MAX || of_source >= STREAMS_PER_SOURCE_MAX {
                    ctx.out.event(Event::ConnectionRefused { from, why: "too many connections" });
                    return ctx.out.send(Output::StreamClose { conn });
                }
                let listed = self.site.is_listed(from.ip()) || matches!(to.port, Port::Replica(..));
                if !listed {
                    ctx.out.event(Event::ConnectionRefused { from, why: "its address is in no list" });
                }
                let stream = Stream { from, to, framer: Framer::new(), listed, heard_at: ctx.now, message_since: None };
                self.streams.insert(conn, stream);
                self.timers.at(ctx.now + Duration::from_secs(STREAM_MESSAGE_S), Timer::Stream(conn));
            }
            StreamEvent::Closed => drop(self.streams.remove(&conn)),
            StreamEvent::Data(bytes) => self.stream_data(ctx, conn, bytes),
        }
    }

    fn stream_data(&mut self, ctx: &mut Ctx<'_>, conn: ConnId, bytes: &[u8]) {
        let Some(stream) = self.streams.get_mut(&conn) else { return };
        if !stream.listed {
            // Accepted, not answered, closed after 30 s (DESIGN section 9).
            return ctx.out.event(Event::DatagramDropped { from: stream.from, why: Drop::Unlisted });
        }
        stream.heard_at = ctx.now;
        stream.framer.push(bytes);
        loop {
            let Some(stream) = self.streams.get_mut(&conn) else { return };
            let (from, port) = (stream.from, stream.to.port);
            match stream.framer.next() {
                None => {
                    let within = stream.framer.is_within_message();
                    stream.message_since = if within { stream.message_since.or(Some(ctx.now)) } else { None };
                    return;
                }
                Some(Ok(Frame::Ping)) => ctx.out.send(Output::Stream { conn, bytes: b"\r\n".to_vec() }),
                Some(Ok(Frame::Message(bytes))) => {
                    stream.message_since = None;
                    let to = ReplyTo::Stream(conn);
                    match parse(&bytes) {
                        Err(malformed) => self.malformed(ctx, from, malformed, true, |_| to),
                        Ok(message) if message.is_request() => {
                            self.request(ctx, &Came { from, port, to, bytes: &bytes }, &message);
                        }
                        Ok(message) => self.response(ctx, from, &message),
                    }
                }
                Some(Err(_)) => {
                    ctx.out.event(Event::ConnectionRefused { from, why: "nobody knows where its next message begins" });
                    self.streams.remove(&conn);
                    return ctx.out.send(Output::StreamClose { conn });
                }
            }
        }
    }

    pub(super) fn stream_timeout(&mut self, ctx: &mut Ctx<'_>, conn: ConnId) {
        let Some(stream) = self.streams.get(&conn) else { return };
        let message_ends = stream.message_since.map(|since| since + Duration::from_secs(STREAM_MESSAGE_S));
        let idle_s = if stream.listed { STREAM_IDLE_S } else { STREAM_MESSAGE_S };
        let ends = message_ends.unwrap_or(stream.heard_at + Duration::from_secs(idle_s));
        if ctx.now < ends {
            return self.timers.at(ends.min(ctx.now + Duration::from_secs(STREAM_MESSAGE_S)), Timer::Stream(conn));
        }
        let why = if message_ends.is_some() { "a message that does not end" } else { "idle" };
        ctx.out.event(Event::ConnectionRefused { from: stream.from, why });
        self.streams.remove(&conn);
        ctx.out.send(Output::StreamClose { conn });
    }
}
