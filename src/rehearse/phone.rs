//! A SIM, and what its phone saw of the network.
//!
//! Knows: the key on the card, and what a phone does with the end of a location updating. Does not know: SIP, or whether what
//! it saw was right; the scenario judges that.
//! Read first: TS 24.008 §4.4.4, §10.5.3.6 (reject causes).

use std::time::Duration;

use hmac::{Hmac, KeyInit, Mac};
use sha2::Sha256;
use zeroize::Zeroizing;

use crate::gsm::auc::{Auth, Ki, Opc, Vector};
use crate::ident::{Imsi, Msisdn};

/// A subscriber of the rehearsal, as the box and the phone both know him.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Sim {
    pub imsi: Imsi,
    pub auth: Auth,
    pub msisdn: Option<Msisdn>,
}

/// How many SIMs one secret is asked for at most.
pub const SIM_COUNT_MAX: u32 = 100_000;

/// The SIMs of a rehearsal: the same for the same secret, so that the running box and the rehearsal agree on every Ki.
///
/// Shape:  IMSI = `prefix` and a number from 0, 15 digits together; fewer than `count` where the digits run out, none where
///         `prefix` is no beginning of an IMSI. Ki is the first half of HMAC-SHA256(secret, IMSI), OPc the second. The
///         algorithms take turns. Numbers are short, 7000 and up, but every fourth is international: +9997000003.
/// Source: +999 is a country code that nobody has (ITU-T E.164, list of assigned codes: "reserved for future global service").
pub fn sims(prefix: &str, count: u32, secret: &[u8; 32]) -> Vec<Sim> {
    let Some(width) = 15usize.checked_sub(prefix.len()).filter(|width| *width > 0) else { return Vec::new() };
    let room = 10u64.checked_pow(width as u32).unwrap_or(u64::MAX);
    (0..count.min(SIM_COUNT_MAX))
        .take_while(|number| u64::from(*number) < room)
        .filter_map(|number| {
            let imsi = Imsi::parse(&format!("{prefix}{number:0width$}")).ok()?;
            let msisdn = match number % 4 {
                3 => format!("+999{}", 7_000_000 + number),
                _ => (7000 + number).to_string(),
            };
            Some(Sim { imsi, auth: auth_of(&imsi, number, secret)?, msisdn: Msisdn::parse(&msisdn).ok() })
        })
        .collect()
}

fn auth_of(imsi: &Imsi, number: u32, secret: &[u8; 32]) -> Option<Auth> {
    let mut mac = <Hmac<Sha256> as KeyInit>::new_from_slice(secret).ok()?;
    mac.update(imsi.as_str().as_bytes());
    let both = Zeroizing::new(<[u8; 32]>::from(mac.finalize().into_bytes()));
    let ki = Ki::parse(&hex(&both[..16])).ok()?;
    Some(match number % 6 {
        0 => Auth::Comp128v1(ki),
        1 => Auth::Comp128v2(ki),
        2 => Auth::Comp128v3(ki),
        3 => Auth::Milenage { ki, opc: Opc::parse(&hex(&both[16..])).ok()? },
        4 => Auth::Xor(ki),
        _ => Auth::None,
    })
}

fn hex(bytes: &[u8]) -> Zeroizing<String> {
    let mut text = Zeroizing::new(String::with_capacity(2 * bytes.len()));
    for byte in bytes {
        for nibble in [byte >> 4, byte & 15] {
            text.push(char::from_digit(u32::from(nibble), 16).unwrap_or('0'));
        }
    }
    text
}

/// A phone with a SIM in it.
#[derive(Clone, Debug)]
pub struct Phone {
    pub imsi: Imsi,
    /// The key on the card; not what the box has for this IMSI where the card is a forgery.
    card: Auth,
}

impl Phone {
    pub fn new(sim: &Sim) -> Phone {
        Phone { imsi: sim.imsi, card: sim.auth.clone() }
    }

    /// A card that answers to this IMSI with the key of another SIM, by the algorithm that belongs to this one.
    pub fn forged(sim: &Sim, other: &[u8; 32]) -> Phone {
        let number = match sim.auth {
            Auth::Comp128v1(_) | Auth::None => 0,
            Auth::Comp128v2(_) => 1,
            Auth::Comp128v3(_) => 2,
            Auth::Milenage { .. } => 3,
            Auth::Xor(_) => 4,
        };
        Phone { imsi: sim.imsi, card: auth_of(&sim.imsi, number, other).unwrap_or(Auth::None) }
    }

    /// What the card computes. A card without a key answers zeros when it is challenged all the same.
    pub fn vector(&self, rand: [u8; 16]) -> Option<Vector> {
        self.card.vector(rand)
    }

    pub fn has_key(&self) -> bool {
        self.card != Auth::None
    }
}

/// How a location updating ended for the phone.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Saw {
    /// LOCATION UPDATING ACCEPT, after the box said 200.
    Registered,
    /// LOCATION UPDATING REJECT with this cause.
    Refused { cause: u8 },
    /// The channel was released without a word.
    NoAnswer,
    /// LOCATION UPDATING ACCEPT although the box did not say 200: it erred, and FailMode ACCEPT opened the door.
    LetIn { why: &'static str },
}

impl Saw {
    /// In words, for the table.
    pub fn text(&self) -> String {
        match self {
            Saw::Registered => "yes".into(),
            Saw::Refused { cause } => format!("no, cause {cause}"),
            Saw::NoAnswer => "no answer".into(),
            Saw::LetIn { .. } => "LET IN".into(),
        }
    }
}

/// The cause an OpenBTS tells the phone after an answer that is no 200 (wire.md 1.7, seen live).
pub fn reject_cause(code: u16, header: Option<&str>) -> u8 {
    if let Some(cause) = header.and_then(|text| text.trim().parse().ok()) {
        return cause;
    }
    match code {
        401 | 404 | 603 => 4,
        403 => 12,
        424 => 13,
        504 => 22,
        604 => 2,
        // "400, 480, 500, 503 and any other (3xx, 423, 2xx<>200)"
        _ => 17,
    }
}

/// One location updating, as the phone and its base station saw it.
#[derive(Clone, Debug)]
pub struct Registration {
    pub saw: Saw,
    /// Of the last answer.
    pub code: Option<u16>,
    /// The RAND of the challenge, as it was sent; empty where there was none.
    pub nonce: String,
    /// The Authorization that was sent, for a thief who recorded it.
    pub authorization: Option<String>,
    /// What P-Associated-URI said.
    pub numbers: Vec<String>,
    /// What was wrong with the answers of this updating, beside how it ended.
    pub flaws: Vec<String>,
    /// Both legs together.
    pub took: Duration,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_same_secret_gives_the_same_sims() {
        let ours = sims("00101999", 20, &[7; 32]);
        assert_eq!(ours, sims("00101999", 20, &[7; 32]));
        assert_eq!(ours.len(), 20);
        assert_eq!(ours[19].imsi.as_str(), "001019990000019");
        for (one, other) in ours.iter().zip(sims("00101999", 20, &[8; 32])) {
            assert_eq!((one.imsi, one.msisdn), (other.imsi, other.msisdn));
            assert!(one.auth == Auth::None || one.auth != other.auth);
        }
        let algorithms: Vec<_> = ours[..6].iter().map(|sim| sim.auth.algorithm()).collect();
        assert_eq!(algorithms, ["comp128v1", "comp128v2", "comp128v3", "milenage", "xor", "none"]);
    }

    #[test]
    fn no_two_sims_share_a_number_or_a_key() {
        let ours = sims("00101999", 3_000, &[7; 32]);
        let numbers: std::collections::BTreeSet<_> = ours.iter().filter_map(|sim| sim.msisdn).collect();
        assert_eq!(numbers.len(), 3_000);
        assert!(ours.iter().all(|sim| sim.auth == Auth::None || sim.auth != ours[0].auth || sim.imsi == ours[0].imsi));
    }

    #[test]
    fn the_digits_of_an_imsi_are_the_limit() {
        assert_eq!(sims("00101999000000", 100, &[0; 32]).len(), 10);
        assert!(sims("001019990000000", 100, &[0; 32]).is_empty());
        assert!(sims("0010x999", 100, &[0; 32]).is_empty());
    }

    #[test]
    fn a_forged_card_answers_with_another_key() {
        for sim in sims("00101999", 5, &[7; 32]) {
            let (right, wrong) = (Phone::new(&sim), Phone::forged(&sim, &[9; 32]));
            let rand = [0x5A; 16];
            assert_ne!(right.vector(rand).unwrap().sres.hex(), wrong.vector(rand).unwrap().sres.hex());
        }
    }
}
