//! Do we believe that this is the SIM: challenges, and the answers to them.
//!
//! Knows: the challenges that this front end issued, in memory only. "One nonce, one subscriber, one use": a challenge belongs
//! to IMSI and source address (not port), lives `challenge_life`, one at a time; a wrong answer burns it. So a recorded
//! answer is worthless here and everywhere else. The expected SRES stands in the challenge: the second leg reads no key.
//! Source: wire.md 1.5, 1.9, 11; RFC 2617 §3.2.2 for the SIP.Realm form; RFC 3310 for the framing of YateBTS's nonce.

use std::collections::{BTreeMap, VecDeque};
use std::net::IpAddr;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use md5::{Digest as _, Md5};
use subtle::ConstantTimeEq as _;

use crate::gsm::auc::{Auth, Kc, Vector};
use crate::ident::Imsi;
use crate::seam::Rng;
use crate::sip::header::AuthParams;
use crate::sip::write::hex;
use crate::time::Instant;

/// How many answered challenges may stand in the order of issue before they are taken out.
const ORDER_SLACK: usize = 1024;

/// The challenges under way.
#[derive(Default)]
pub struct Challenges {
    live: BTreeMap<(Imsi, IpAddr), Challenge>,
    /// In order of issue: all live equally long.
    order: VecDeque<(Instant, Imsi, IpAddr)>,
}

struct Challenge {
    vector: Vector,
    issued_at: Instant,
}

/// What became of an Authorization.
#[derive(Debug)]
pub enum Verdict {
    /// The right SIM; Kc for ciphering.
    Right(Kc),
    Wrong,
    /// The nonce is not one of ours, was used, or is too old.
    NonceUnknown,
}

/// The table of challenges is full.
#[derive(Debug, PartialEq, Eq)]
pub struct TooMany;

impl Challenges {
    /// A fresh RAND for this subscriber at this address; it replaces one that was not answered.
    ///
    /// `None` for a SIM without a key. Errors: [`TooMany`] at `count_max`; nothing is issued then.
    pub fn issue(
        &mut self,
        rng: &mut Rng,
        now: Instant,
        imsi: Imsi,
        source: IpAddr,
        auth: &Auth,
        count_max: usize,
    ) -> Result<Option<[u8; 16]>, TooMany> {
        if self.live.len() >= count_max && !self.live.contains_key(&(imsi, source)) {
            return Err(TooMany);
        }
        let rand: [u8; 16] = rng.bytes();
        let Some(vector) = auth.vector(rand) else { return Ok(None) };
        self.live.insert((imsi, source), Challenge { vector, issued_at: now });
        self.order.push_back((now, imsi, source));
        if self.order.len() > 2 * self.live.len() + ORDER_SLACK {
            // Those answered since are still in the order: it is kept as short as what lives.
            let live = &self.live;
            self.order
                .retain(|(at, imsi, source)| live.get(&(*imsi, *source)).is_some_and(|held| held.issued_at == *at));
        }
        Ok(Some(rand))
    }

    /// Checks an answer, and uses the challenge up, whether right or wrong.
    ///
    /// A challenge of the same subscriber at another address is not touched: "A right answer from a wrong source does not burn
    /// the challenge of the rightful one" (DESIGN section 9).
    pub fn verify(
        &mut self,
        now: Instant,
        life: Duration,
        imsi: Imsi,
        source: IpAddr,
        params: &AuthParams<'_>,
    ) -> Verdict {
        let rand = params.param("nonce").and_then(rand_of);
        let Some(challenge) = self.live.get(&(imsi, source)) else { return Verdict::NonceUnknown };
        if rand != Some(challenge.vector.rand) || now - challenge.issued_at > life {
            return Verdict::NonceUnknown;
        }
        let Some(challenge) = self.live.remove(&(imsi, source)) else { return Verdict::NonceUnknown };
        if answers(&challenge.vector, params) { Verdict::Right(challenge.vector.kc) } else { Verdict::Wrong }
    }

    /// Forgets what is older than `life`.
    pub fn expire(&mut self, now: Instant, life: Duration) {
        while let Some((issued_at, imsi, source)) = self.order.front().copied() {
            if now - issued_at <= life {
                return;
            }
            self.order.pop_front();
            // A newer challenge of the same two stands in its place already.
            if self.live.get(&(imsi, source)).is_some_and(|challenge| challenge.issued_at <= issued_at) {
                self.live.remove(&(imsi, source));
            }
        }
    }

    pub fn len(&self) -> usize {
        self.live.len()
    }

    pub fn is_empty(&self) -> bool {
        self.live.is_empty()
    }
}

/// The nonce for an OpenBTS: 32 lower-case hex digits, which every release reads unquoted (wire.md 1.5).
pub fn nonce_hex(rand: &[u8; 16]) -> String {
    hex(rand)
}

/// The nonce for a YateBTS: base64 of RAND (wire.md 11).
pub fn nonce_base64(rand: &[u8; 16]) -> String {
    BASE64.encode(rand)
}

/// The RAND in a nonce: 32 hex digits, of which an OpenBTS with SIP.Realm reads up to a `.` and without `-`; or base64.
fn rand_of(nonce: &str) -> Option<[u8; 16]> {
    let head = nonce.split('.').next().unwrap_or_default();
    let digits: Vec<u8> = head.bytes().filter(|byte| *byte != b'-').collect();
    if digits.len() == 32 && digits.iter().all(u8::is_ascii_hexdigit) {
        let text = std::str::from_utf8(&digits).ok()?;
        let mut rand = [0; 16];
        for (at, byte) in rand.iter_mut().enumerate() {
            *byte = u8::from_str_radix(&text[at * 2..at * 2 + 2], 16).ok()?;
        }
        return Some(rand);
    }
    // Base64 of RAND, or of RAND and AUTN: RAND comes first.
    let bytes = BASE64.decode(nonce).ok()?;
    bytes.get(..16)?.try_into().ok()
}

fn answers(vector: &Vector, params: &AuthParams<'_>) -> bool {
    let Some(response) = params.param("response") else { return false };
    match (params.param("realm"), params.param("username"), params.param("uri")) {
        // OpenBTS with SIP.Realm: "MD5(MD5(username:realm:SRES text) : nonce : MD5(REGISTER:uri))", without qop although it
        // announces one (wire.md 1.9). Any realm is taken; the one in the answer is used.
        (Some(realm), Some(username), Some(uri)) if response.len() == 32 => {
            let nonce = params.param("nonce").unwrap_or_default();
            let secret = md5_hex(&[username, realm, &vector.sres.hex()]);
            let expected = md5_hex(&[&secret, nonce, &md5_hex(&["REGISTER", uri])]);
            bool::from(expected.as_bytes().ct_eq(response.to_ascii_lowercase().as_bytes()))
        }
        _ => vector.sres.verify(response.as_bytes()),
    }
}

fn md5_hex(parts: &[&str]) -> String {
    hex(&Md5::digest(parts.join(":")))
}
