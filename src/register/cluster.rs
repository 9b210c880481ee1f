//! How nodes sign what they tell each other.
//!
//! A stamped request and its answer carry `Encamp: v=1;stamp=..;epoch=..;kid=1;..;mac=..`: HMAC-SHA256 with `cluster_key` over
//! the method, Request-URI, To, Call-ID, CSeq, status (0 in a request), the record, and everything in the header before
//! `;mac=`. A recorded one says nothing new when it is said again: merging is idempotent.

use hmac::{Hmac, KeyInit, Mac};
use sha2::Sha256;

use crate::config::ClusterKey;
use crate::sip::write::hex;
use crate::time::Stamp;

pub const HEADER: &str = "Encamp";
/// The outcome, base64 of [`super::merge::encode`]; Contact says the same to a registrar that is not ours.
pub const RECORD_HEADER: &str = "Encamp-Record";

/// What a signature covers beside the header's own text.
#[derive(Clone, Copy, Debug)]
pub struct Signed<'a> {
    pub method: &'a str,
    pub uri: &'a str,
    /// The URI of To, without its tag.
    pub to: &'a str,
    pub call_id: &'a str,
    pub cseq: u32,
    /// 0 in a request.
    pub status: u16,
    /// The value of `Encamp-Record`, empty without one.
    pub record: &'a str,
}

/// The value of the `Encamp` header. `fields` begins with `;` where there are any.
pub fn sign(key: &ClusterKey, what: &Signed<'_>, stamp: Stamp, epoch: u64, fields: &str) -> String {
    let text = format!("v=1;stamp={stamp};epoch={epoch};kid=1{fields}");
    let mac = hex(&mac(key, what, &text).finalize().into_bytes());
    format!("{text};mac={mac}")
}

/// What a verified header says.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Header<'a> {
    pub stamp: Stamp,
    pub epoch: u64,
    text: &'a str,
}

impl<'a> Header<'a> {
    /// A field beyond the fixed ones.
    pub fn field(&self, name: &str) -> Option<&'a str> {
        field(self.text, name)
    }
}

/// Verifies a header's value.
///
/// Errors: in words for the operator; nothing of the header is to be believed then.
pub fn verify<'a>(key: &ClusterKey, what: &Signed<'_>, value: &'a str) -> Result<Header<'a>, &'static str> {
    let (text, given) = value.rsplit_once(";mac=").ok_or("its Encamp header has no mac")?;
    if field(text, "v") != Some("1") {
        return Err("its Encamp header has a version that this release does not know");
    }
    let given = unhex(given).ok_or("its mac is not 64 hex digits")?;
    mac(key, what, text)
        .verify_slice(&given)
        .map_err(|_| "its mac is wrong: is cluster_key the same on both sides?")?;
    let stamp = field(text, "stamp").and_then(|stamp| stamp.parse().ok()).ok_or("its stamp cannot be read")?;
    let epoch = field(text, "epoch").and_then(|epoch| epoch.parse().ok()).ok_or("its epoch cannot be read")?;
    Ok(Header { stamp, epoch, text })
}

fn field<'a>(text: &'a str, name: &str) -> Option<&'a str> {
    text.split(';').find_map(|part| part.split_once('=').filter(|(key, _)| *key == name).map(|(_, value)| value))
}

fn mac(key: &ClusterKey, what: &Signed<'_>, text: &str) -> Hmac<Sha256> {
    let mut mac = <Hmac<Sha256> as KeyInit>::new_from_slice(&key.0).expect("HMAC takes a key of any length");
    let (cseq, status) = (what.cseq.to_string(), what.status.to_string());
    // A length before each part: no two different messages are the same bytes.
    for part in [what.method, what.uri, what.to, what.call_id, &cseq, &status, what.record, text] {
        mac.update(&(part.len() as u64).to_be_bytes());
        mac.update(part.as_bytes());
    }
    mac
}

fn unhex(text: &str) -> Option<[u8; 32]> {
    let mut bytes = [0; 32];
    if text.len() != 64 || !text.is_ascii() {
        return None;
    }
    for (at, byte) in bytes.iter_mut().enumerate() {
        *byte = u8::from_str_radix(&text[at * 2..at * 2 + 2], 16).ok()?;
    }
    Some(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    const WHAT: Signed<'_> =
        Signed { method: "REGISTER", uri: "sip:a", to: "sip:b", call_id: "c", cseq: 7, status: 0, record: "AQ==" };

    #[test]
    fn a_signature_covers_everything() {
        let key = ClusterKey([7; 32]);
        let stamp = Stamp { ms: 5, counter: 6, front: 7 };
        let value = sign(&key, &WHAT, stamp, 17, ";state=level");
        let header = verify(&key, &WHAT, &value).unwrap();
        assert_eq!((header.stamp, header.epoch, header.field("state")), (stamp, 17, Some("level")));
        assert!(verify(&ClusterKey([8; 32]), &WHAT, &value).is_err());
        for other in [
            Signed { method: "INVITE", ..WHAT },
            Signed { uri: "sip:x", ..WHAT },
            Signed { to: "sip:x", ..WHAT },
            Signed { call_id: "x", ..WHAT },
            Signed { cseq: 8, ..WHAT },
            Signed { status: 200, ..WHAT },
            Signed { record: "", ..WHAT },
        ] {
            assert!(verify(&key, &other, &value).is_err(), "{other:?}");
        }
        assert!(verify(&key, &WHAT, &value.replace("level", "lower")).is_err());
        assert!(verify(&key, &WHAT, "v=1").is_err() && verify(&key, &WHAT, ";mac=é").is_err());
    }
}
