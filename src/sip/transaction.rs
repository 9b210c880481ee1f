//! A retransmission is answered again, not done again: the server side of RFC 3261 §17.2, in memory only.
//!
//! Knows: which request is a copy of which, and what was answered. Does not know: what requests mean. Limits: an answer is kept
//! [`LIFE`] (Timer J, 64*T1); at `transaction_count_max` the oldest answered ones are forgotten first, and where all are still
//! under way a new request is overload.

use std::collections::{BTreeMap, VecDeque};
use std::net::SocketAddr;
use std::time::Duration;

use sha2::{Digest as _, Sha256};

use super::parse::Message;
use crate::seam::TransactionKey;
use crate::time::Instant;

/// 64*T1: how long a copy may still come (RFC 3261 §17.2.2, Timer J over UDP).
pub const LIFE: Duration = Duration::from_secs(32);

/// The transactions of which we are the server.
#[derive(Default)]
pub struct Server {
    table: BTreeMap<TransactionKey, State>,
    order: VecDeque<(Instant, TransactionKey)>,
}

enum State {
    Trying,
    Completed(Vec<u8>),
}

/// What a request turned out to be.
#[derive(Debug, PartialEq, Eq)]
pub enum Seen<'a> {
    New,
    /// A copy of one that is under way: nothing said yet, so nothing to repeat.
    UnderWay,
    /// A copy of one that was answered with this.
    Answered(&'a [u8]),
    /// No room for another one.
    Overload,
}

impl Server {
    /// Takes note of a request.
    pub fn receive(&mut self, now: Instant, key: TransactionKey, count_max: usize) -> Seen<'_> {
        self.expire(now);
        // The borrow checker cannot see that the early return ends the borrow: look twice.
        if self.table.contains_key(&key) {
            return match &self.table[&key] {
                State::Trying => Seen::UnderWay,
                State::Completed(bytes) => Seen::Answered(bytes),
            };
        }
        if self.table.len() >= count_max && !self.forget_an_answered_one() {
            return Seen::Overload;
        }
        self.table.insert(key, State::Trying);
        self.order.push_back((now, key));
        Seen::New
    }

    /// Keeps the answer for copies.
    pub fn complete(&mut self, key: TransactionKey, answer: &[u8]) {
        if let Some(state) = self.table.get_mut(&key) {
            *state = State::Completed(answer.to_vec());
        }
    }

    /// Nothing will be answered: a copy is a new request.
    pub fn forget(&mut self, key: TransactionKey) {
        self.table.remove(&key);
    }

    pub fn expire(&mut self, now: Instant) {
        while let Some((since, key)) = self.order.front() {
            if now - *since < LIFE {
                return;
            }
            self.table.remove(key);
            self.order.pop_front();
        }
    }

    pub fn len(&self) -> usize {
        self.table.len()
    }

    pub fn is_empty(&self) -> bool {
        self.table.is_empty()
    }

    fn forget_an_answered_one(&mut self) -> bool {
        // Those under way are few and recent; what stands in front is answered, or forgotten already.
        for _ in 0..self.order.len().min(64) {
            let Some((since, key)) = self.order.pop_front() else { return false };
            match self.table.get(&key) {
                None => {}
                Some(State::Completed(_)) => {
                    self.table.remove(&key);
                    return true;
                }
                Some(State::Trying) => self.order.push_back((since, key)),
            }
        }
        false
    }
}

/// What makes a request itself.
///
/// With the magic cookie: source, branch, sent-by and method (RFC 3261 §17.2.3). Without it, as OpenBTS 4.0 sends its bare
/// `;branch`: source, Call-ID, CSeq, method, From tag, Request-URI and To (DESIGN section 9).
pub fn key(message: &Message<'_>, source: SocketAddr) -> TransactionKey {
    key_of_method(message, source, message.cseq().1)
}

/// As [`key`], as if the request had another method: a CANCEL has the branch of its INVITE.
pub fn key_of_method(message: &Message<'_>, source: SocketAddr, method: &str) -> TransactionKey {
    let mut digest = Sha256::new();
    let mut part = |text: &str| {
        digest.update((text.len() as u64).to_be_bytes());
        digest.update(text);
    };
    let (cseq, _) = message.cseq();
    part(&source.to_string());
    part(method);
    match message.via() {
        Ok(via) if via.branch.is_some_and(|branch| branch.starts_with("z9hG4bK")) => {
            part(via.branch.unwrap_or_default());
            part(via.host);
            part(&via.port.unwrap_or(5060).to_string());
        }
        _ => {
            part(message.call_id());
            part(&cseq.to_string());
            part(message.from().ok().and_then(|from| from.tag()).unwrap_or_default());
            part(message.uri().unwrap_or_default());
            part(message.to().map(|to| to.uri).unwrap_or_default());
        }
    }
    let mut key = TransactionKey::default();
    key.copy_from_slice(&digest.finalize()[..16]);
    key
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(seconds: u64) -> Instant {
        Instant(seconds * 1_000_000)
    }

    #[test]
    fn a_copy_is_absorbed_then_answered_again_then_forgotten() {
        let mut server = Server::default();
        let key = [1; 16];
        assert_eq!(server.receive(at(0), key, 10), Seen::New);
        assert_eq!(server.receive(at(1), key, 10), Seen::UnderWay);
        server.complete(key, b"200");
        assert_eq!(server.receive(at(2), key, 10), Seen::Answered(b"200"));
        assert_eq!(server.receive(at(32), key, 10), Seen::New);
    }

    #[test]
    fn a_full_table_forgets_answered_ones_and_refuses_when_all_are_under_way() {
        let mut server = Server::default();
        for n in 0..3 {
            assert_eq!(server.receive(at(0), [n; 16], 3), Seen::New);
        }
        assert_eq!(server.receive(at(0), [9; 16], 3), Seen::Overload);
        server.complete([1; 16], b"x");
        assert_eq!(server.receive(at(0), [9; 16], 3), Seen::New);
        assert_eq!(server.len(), 3);
        assert_eq!(server.receive(at(0), [0; 16], 3), Seen::UnderWay, "one under way is never forgotten");
    }
}
