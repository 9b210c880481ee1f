//! What an address of mail is, and which list has it.
//!
//! Knows: `local@domain`, quoted and in UTF-8 (RFC 5321 §4.1.2, RFC 6531 §3.3). Does not know: whether anybody is there.

use std::fmt;

use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};

/// "The maximum total length of a reverse-path or forward-path is 256 octets (including the punctuation and element separators)"
/// (RFC 5321 §4.5.3.1.3): the angle brackets are two of them.
pub const ADDRESS_BYTES_MAX: usize = 254;
const LOCAL_BYTES_MAX: usize = 64;

/// `local@domain`: the domain in small letters, the local part as it was written.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Address {
    whole: Box<str>,
    /// Where the `@` stands.
    at: u8,
}

/// Whose queue or thread it is: the same for every way to write one address, which we take to be one whatever the case.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct MailKey(pub [u8; 16]);

impl Address {
    /// Errors: why it is none, in words for whoever wrote it.
    pub fn parse(text: &str) -> Result<Address, &'static str> {
        let (local, domain) = text.rsplit_once('@').ok_or("there is no @ in it")?;
        if text.len() > ADDRESS_BYTES_MAX || local.len() > LOCAL_BYTES_MAX {
            return Err("it is too long");
        }
        if !is_local(local) {
            return Err("what stands before the @ is no name");
        }
        if !is_domain(domain) {
            return Err("what stands behind the @ is no domain");
        }
        // The tag of a literal is written as the standard does: servers know no other.
        let domain = domain.to_ascii_lowercase().replacen("[ipv6:", "[IPv6:", 1);
        let whole = format!("{local}@{domain}").into_boxed_str();
        Ok(Address { whole, at: local.len() as u8 })
    }

    pub fn as_str(&self) -> &str {
        &self.whole
    }

    /// Without its quotes, where it needs none.
    pub fn local(&self) -> &str {
        &self.whole[..usize::from(self.at)]
    }

    pub fn domain(&self) -> &str {
        &self.whole[usize::from(self.at) + 1..]
    }

    pub fn key(&self) -> MailKey {
        let digest = Sha256::digest(self.whole.to_lowercase());
        let mut key = [0; 16];
        key.copy_from_slice(&digest[..16]);
        MailKey(key)
    }

    pub fn is_ascii(&self) -> bool {
        self.whole.is_ascii()
    }
}

/// What a log line shows of it: `c…@example.org`.
impl Address {
    pub fn short(&self) -> String {
        let first: String = self.local().chars().take(1).collect();
        format!("{first}…@{}", self.domain())
    }
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.whole)
    }
}

impl fmt::Debug for MailKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl TryFrom<String> for Address {
    type Error = &'static str;

    fn try_from(text: String) -> Result<Address, &'static str> {
        Address::parse(&text)
    }
}

impl From<Address> for String {
    fn from(address: Address) -> String {
        address.whole.into()
    }
}

/// Dot-atom or quoted string (RFC 5321 §4.1.2), UTF-8 allowed.
fn is_local(local: &str) -> bool {
    if let Some(inside) = local.strip_prefix('"').and_then(|rest| rest.strip_suffix('"')) {
        let mut escaped = false;
        let fits = inside.chars().all(|char| {
            let fits = !char.is_control() && (escaped || char != '"');
            escaped = !escaped && char == '\\';
            fits
        });
        return fits && !escaped && !inside.is_empty() && local.len() > 2;
    }
    let is_atom = |char: char| {
        char.is_ascii_alphanumeric()
            || "!#$%&'*+-/=?^_`{|}~".contains(char)
            || (!char.is_ascii() && !char.is_control() && !char.is_whitespace())
    };
    local.split('.').all(|atom| !atom.is_empty() && atom.chars().all(is_atom))
}

/// Labels, or an address literal in brackets.
fn is_domain(domain: &str) -> bool {
    if let Some(literal) = domain.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')) {
        let has_tag = literal.get(..5).is_some_and(|tag| tag.eq_ignore_ascii_case("IPv6:"));
        let literal = if has_tag { &literal[5..] } else { literal };
        return literal.parse::<std::net::IpAddr>().is_ok();
    }
    let is_label = |label: &str| {
        let fits =
            |char: char| char.is_ascii_alphanumeric() || char == '-' || (!char.is_ascii() && char.is_alphanumeric());
        !label.is_empty()
            && label.len() <= 63
            && !label.starts_with('-')
            && !label.ends_with('-')
            && label.chars().all(fits)
    };
    domain.split('.').all(is_label)
}

/// Addresses that a list names: `carol@example.org`, `@example.org` and all below it, or `*`.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Pattern {
    Everybody,
    Domain(Box<str>),
    One(Address),
}

impl Pattern {
    /// Errors: it is none of the three.
    pub fn parse(text: &str) -> Result<Pattern, &'static str> {
        match text.strip_prefix('@') {
            _ if text == "*" => Ok(Pattern::Everybody),
            Some(domain) if is_domain(domain) => Ok(Pattern::Domain(domain.to_ascii_lowercase().into())),
            Some(_) => Err("what stands behind the @ is no domain"),
            None => Address::parse(text).map(Pattern::One),
        }
    }

    pub fn has(&self, address: &Address) -> bool {
        match self {
            Pattern::Everybody => true,
            Pattern::One(one) => one.key() == address.key(),
            Pattern::Domain(domain) => {
                let rest = address.domain().strip_suffix(&**domain);
                rest.is_some_and(|rest| rest.is_empty() || rest.ends_with('.'))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_is_what_rfc_5321_has() {
        for text in [
            "carol@example.org",
            "+15550001@sms.gsm.example",
            "\"a b\"@example.org",
            "\"a@b\"@example.org",
            "jörg@bücher.example",
            "a@[192.0.2.1]",
            "a@[IPv6:2001:db8::1]",
            "o'neil/x=y@localhost",
        ] {
            assert_eq!(Address::parse(text).map(|address| address.to_string()).as_deref(), Ok(text));
        }
        for text in [
            "",
            "carol",
            "@example.org",
            "carol@",
            "a b@example.org",
            ".a@example.org",
            "a..b@example.org",
            "a@-b.example",
            "a@b..c",
            "\"@example.org",
            "\"a\"b\"@example.org",
            "\"a\\\"@example.org",
            "a\r\n@example.org",
            "a@example.org\n",
            "a@[300.1.1.1]",
            "<a@b.example>",
        ] {
            assert!(Address::parse(text).is_err(), "{text:?}");
        }
        assert!(Address::parse(&format!("{}@example.org", "a".repeat(65))).is_err());
        assert!(Address::parse(&format!("a@{}example.org", "a.".repeat(122))).is_err());
    }

    #[test]
    fn case_makes_no_other_address() {
        let key = |text: &str| Address::parse(text).unwrap().key();
        assert_eq!(key("Carol@Example.ORG"), key("carol@example.org"));
        assert_ne!(key("carol@example.org"), key("caro@example.org"));
        assert_eq!(Address::parse("Carol@Example.ORG").unwrap().as_str(), "Carol@example.org");
    }

    #[test]
    fn a_list_names_one_or_a_domain_or_everybody() {
        let has = |pattern: &str, text: &str| Pattern::parse(pattern).unwrap().has(&Address::parse(text).unwrap());
        assert!(has("*", "carol@example.org"));
        assert!(has("@example.org", "carol@example.org"));
        assert!(has("@Example.org", "carol@mail.example.org"));
        assert!(!has("@example.org", "carol@badexample.org"));
        assert!(has("CAROL@example.org", "carol@example.org"));
        assert!(!has("carol@example.org", "dave@example.org"));
        assert!(Pattern::parse("example.org").is_err());
        assert!(Pattern::parse("@").is_err());
    }
}
