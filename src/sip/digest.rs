//! How we answer a digest challenge of somebody else's server: a trunk's 401 or 407 to a call or a text.
//!
//! Source: RFC 7616 §3.4 (RFC 2617's MD5 forms included). Only `qop=auth` or none, MD5 or SHA-256: what trunks ask for.
//! Tests: below, against RFC 2617 §3.5 and what curl sends.

use md5::Md5;
use sha2::{Digest as _, Sha256};

use super::header::{AuthParams, HeaderName, auth_params};
use super::parse::Message;
use super::write::hex;

/// What is answered with.
pub struct Credentials<'a> {
    pub username: &'a str,
    pub password: &'a str,
}

/// What a 401 or 407 is answered with in the same request once more: the name of a header, and its value.
///
/// `None`: the answer is neither, or none of its challenges is one that we can answer.
pub fn answer_to(
    message: &Message<'_>,
    credentials: &Credentials<'_>,
    method: &str,
    uri: &str,
    cnonce: &str,
) -> Option<(&'static str, String)> {
    let (asks, answers) = match message.code()? {
        401 => (HeaderName::WwwAuthenticate, "Authorization"),
        407 => (HeaderName::ProxyAuthenticate, "Proxy-Authorization"),
        _ => return None,
    };
    // Several challenges may be offered: the first one that we can answer.
    let mut challenges = message.headers_of(asks);
    let value = challenges.find_map(|value| answer(&auth_params(value)?, credentials, method, uri, cnonce))?;
    Some((answers, value))
}

/// The value of Authorization (or Proxy-Authorization) for a request.
///
/// `None`: it is no digest challenge, or one of an algorithm or a quality of protection that we do not have.
pub fn answer(
    challenge: &AuthParams<'_>,
    credentials: &Credentials<'_>,
    method: &str,
    uri: &str,
    cnonce: &str,
) -> Option<String> {
    if !challenge.is_digest() {
        return None;
    }
    let (realm, nonce) = (challenge.param("realm").unwrap_or_default(), challenge.param("nonce")?);
    let algorithm = challenge.param("algorithm");
    let hash: fn(&str) -> String = match algorithm {
        None => md5_hex,
        Some(name) if name.eq_ignore_ascii_case("MD5") => md5_hex,
        Some(name) if name.eq_ignore_ascii_case("SHA-256") => sha256_hex,
        Some(_) => return None,
    };
    let qop = match challenge.param("qop") {
        None => None,
        Some(offered) => Some(offered.split(',').map(str::trim).find(|qop| qop.eq_ignore_ascii_case("auth"))?),
    };
    let Credentials { username, password } = credentials;
    let a1 = hash(&format!("{username}:{realm}:{password}"));
    let a2 = hash(&format!("{method}:{uri}"));
    // Each challenge is answered once, so the nonce count is always the first.
    let response = match qop {
        None => hash(&format!("{a1}:{nonce}:{a2}")),
        Some(_) => hash(&format!("{a1}:{nonce}:00000001:{cnonce}:auth:{a2}")),
    };
    let mut value = format!(
        "Digest username=\"{username}\", realm=\"{realm}\", nonce=\"{nonce}\", uri=\"{uri}\", response=\"{response}\""
    );
    if let Some(algorithm) = algorithm {
        value.push_str(&format!(", algorithm={algorithm}"));
    }
    if qop.is_some() {
        value.push_str(&format!(", qop=auth, nc=00000001, cnonce=\"{cnonce}\""));
    }
    if let Some(opaque) = challenge.param("opaque") {
        value.push_str(&format!(", opaque=\"{opaque}\""));
    }
    Some(value)
}

fn md5_hex(text: &str) -> String {
    hex(&Md5::digest(text))
}

fn sha256_hex(text: &str) -> String {
    hex(&Sha256::digest(text))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn response(challenge: &str, username: &str, password: &str, uri: &str, cnonce: &str) -> Option<String> {
        let credentials = Credentials { username, password };
        let value = answer(&auth_params(challenge)?, &credentials, "GET", uri, cnonce)?;
        let (_, rest) = value.split_once("response=\"")?;
        rest.split_once('"').map(|(response, _)| response.to_owned())
    }

    #[test]
    fn known_answers() {
        // RFC 2617 §3.5
        let challenge = "Digest realm=\"testrealm@host.com\", qop=\"auth,auth-int\", \
             nonce=\"dcd98b7102dd2f0e8b11d0f600bfb0c093\", opaque=\"5ccc069c403ebaf9f0171e9517f40e41\"";
        let given = response(challenge, "Mufasa", "Circle Of Life", "/dir/index.html", "0a4f113b");
        assert_eq!(given.as_deref(), Some("6629fae49393a05397450978507c4ef1"));
        // What curl sends (its test case 2061)
        let challenge = "Digest realm=\"testrealm\", nonce=\"1053604145\", algorithm=\"SHA-256\"";
        let given = response(challenge, "testuser", "testpass", "/2061", "unused");
        assert_eq!(given.as_deref(), Some("9dc55255f1a2537b838311674b621d45346b862a81631bb20e4ce356ef25062d"));
    }

    #[test]
    fn what_we_cannot_answer_is_not_answered() {
        for challenge in [
            "Basic realm=\"x\"",
            "Digest realm=\"x\"",
            "Digest nonce=\"n\", algorithm=SHA-512-256",
            "Digest nonce=\"n\", qop=\"auth-int\"",
        ] {
            assert_eq!(response(challenge, "u", "p", "/", "c"), None, "{challenge}");
        }
    }
}
