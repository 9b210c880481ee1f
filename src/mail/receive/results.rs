//! What another server has found out about the sender: Authentication-Results.
//!
//! Knows: RFC 8601 §2.2, §2.7. Does not know: which server is to be believed.

use super::header::{PARAMETERS_MAX, unfolded};
use super::tokens::{Token, Tokens};
use crate::mail::address::Address;
use crate::mail::{Proof, Results};

/// Authentication-Results (RFC 8601 §2.2); `None`: it cannot be read, and nothing is believed of half of it.
///
/// `spf` is what was found of the envelope's sender, before what was found of EHLO. A pass is one of `spf` and of `dkim` where it is of the
/// domain of `from`, or one above or below it: that somebody else has sent or signed it says nothing of who wrote it.
pub fn read(value: &[u8], from: Option<&Address>) -> Option<Results> {
    let line = unfolded(value);
    let mut tokens = Tokens::of(&line);
    let Some(Token::Word(by)) = tokens.next() else { return None };
    let mut found = Results { by: by.into_owned(), ..Results::default() };
    let mut spf_is_of_envelope = false;
    // The version, if there is one.
    while !matches!(tokens.next()?, Token::Mark(';')) {}
    while let Some(Token::Word(method)) = tokens.next() {
        let method = method.to_ascii_lowercase();
        let mut next = tokens.next();
        if let Some(Token::Mark('/')) = next {
            let _version = tokens.next();
            next = tokens.next();
        }
        // `none` without a method: nothing was looked at.
        if let Some(Token::Mark('=')) = next {
            let Some(Token::Word(result)) = tokens.next() else { return None };
            let mut proof = match result.to_ascii_lowercase().as_str() {
                "pass" => Proof::Pass,
                "fail" | "hardfail" => Proof::Fail,
                _ => Proof::Unknown,
            };
            let properties = properties(&mut tokens);
            let has = |name: &str| properties.iter().find(|(has, _)| has == name).map(|(_, value)| value.as_str());
            match method.as_str() {
                "spf" => {
                    let envelope = has("smtp.mailfrom").or(has("smtp.mail"));
                    let is_of_envelope = envelope.is_some();
                    // What failed has failed, whoever is shown as its sender.
                    if let (Proof::Pass, Some(sent_by), Some(from)) = (proof, envelope.or(has("smtp.helo")), from)
                        && !is_related(sent_by, from.domain())
                    {
                        proof = Proof::Unknown;
                    }
                    if found.spf.is_none() || (is_of_envelope && !spf_is_of_envelope) {
                        found.spf = Some(proof);
                        spf_is_of_envelope = is_of_envelope;
                    }
                }
                "dkim" => {
                    let signed_by = has("header.d").or(has("header.i"));
                    let is_own = match (signed_by, from) {
                        (Some(domain), Some(from)) => is_related(domain, from.domain()),
                        _ => true,
                    };
                    if !is_own {
                        proof = Proof::Unknown;
                    }
                    found.dkim = Some(match (found.dkim, proof) {
                        (Some(Proof::Pass), _) | (_, Proof::Pass) => Proof::Pass,
                        (Some(Proof::Fail), _) | (_, Proof::Fail) => Proof::Fail,
                        _ => Proof::Unknown,
                    });
                }
                "dmarc" if found.dmarc.is_none() => found.dmarc = Some(proof),
                _ => (),
            }
        } else if !matches!(next, Some(Token::Mark(';'))) {
            while tokens.next().is_some_and(|token| !matches!(token, Token::Mark(';'))) {}
        }
    }
    (!tokens.is_broken).then_some(found)
}

/// `reason="…" header.d=example.org`, up to the semicolon and with it; names in small letters.
fn properties(tokens: &mut Tokens<'_>) -> Vec<(String, String)> {
    let mut properties: Vec<(String, String)> = Vec::new();
    let mut name: Option<String> = None;
    let mut is_value = false;
    for token in tokens.by_ref() {
        match token {
            Token::Mark(';') => break,
            Token::Mark('=') => is_value = true,
            Token::Mark(_) => (),
            Token::Word(word) if is_value => {
                if let Some(name) = name.take().filter(|_| properties.len() < PARAMETERS_MAX) {
                    properties.push((name, word.into_owned()));
                }
                is_value = false;
            }
            Token::Word(word) => name = Some(word.to_ascii_lowercase()),
        }
    }
    properties
}

fn is_related(proven: &str, domain: &str) -> bool {
    let proven = proven.rsplit('@').next().unwrap_or_default().trim_end_matches('.').to_ascii_lowercase();
    let is_below =
        |one: &str, other: &str| one.strip_suffix(other).is_some_and(|rest| rest.is_empty() || rest.ends_with('.'));
    // A signature of `org` is none of everybody's below it.
    proven.contains('.') && domain.contains('.') && (is_below(domain, &proven) || is_below(&proven, domain))
}
