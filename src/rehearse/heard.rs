//! A SIP message as an OpenBTS reads it.
//!
//! Knows: the few headers that a base station looks at, and how it misreads some. Does not know: what they mean. On purpose nothing of
//! our own parser. Read first: wire.md section 2.

use std::net::SocketAddr;

/// One message.
#[derive(Clone, Debug)]
pub struct Heard {
    pub start: String,
    pub headers: Vec<(String, String)>,
    /// "Content-Length is ignored: the body is the rest of the datagram."
    pub body: Vec<u8>,
}

impl Heard {
    /// Lines that begin with a blank belong to the one before. `None`: no SIP.
    pub fn parse(datagram: &[u8]) -> Option<Heard> {
        let (head, body) = match datagram.windows(4).position(|four| four == b"\r\n\r\n") {
            Some(at) => (&datagram[..at], &datagram[at + 4..]),
            None => (datagram, &[][..]),
        };
        let text = String::from_utf8_lossy(head);
        let mut lines = text.trim_start().split("\r\n");
        let start = lines.next()?.to_owned();
        if !start.contains("SIP/2.0") {
            return None;
        }
        let mut headers: Vec<(String, String)> = Vec::new();
        for line in lines {
            match headers.last_mut() {
                Some((_, value)) if line.starts_with([' ', '\t']) => {
                    value.push(' ');
                    value.push_str(line.trim());
                }
                _ => {
                    let (name, value) = line.split_once(':')?;
                    headers.push((name.trim().to_owned(), value.trim().to_owned()));
                }
            }
        }
        Some(Heard { start, headers, body: body.to_vec() })
    }

    /// The first header of this long name; OpenBTS also knows `t f m i v`, and no other compact name.
    pub fn get(&self, name: &str) -> Option<&str> {
        self.all(name).next()
    }

    pub fn all(&self, name: &str) -> impl Iterator<Item = &str> {
        let short = compact(name);
        self.headers.iter().filter_map(move |(key, value)| {
            let hit = key.eq_ignore_ascii_case(name) || short.is_some_and(|short| key.eq_ignore_ascii_case(short));
            hit.then_some(value.as_str())
        })
    }

    /// Of an answer; 0: it is none.
    pub fn code(&self) -> u16 {
        let status = self.start.strip_prefix("SIP/2.0 ").unwrap_or_default();
        status
            .split(' ')
            .next()
            .and_then(|code| code.parse().ok())
            .filter(|code| (100..700).contains(code))
            .unwrap_or(0)
    }

    pub fn phrase(&self) -> &str {
        self.start.splitn(3, ' ').nth(2).unwrap_or_default()
    }

    /// Of a request; empty for an answer.
    pub fn method(&self) -> &str {
        if self.start.starts_with("SIP/") { "" } else { self.start.split(' ').next().unwrap_or_default() }
    }

    pub fn uri(&self) -> &str {
        self.start.split(' ').nth(1).unwrap_or_default()
    }

    pub fn call_id(&self) -> &str {
        self.get("Call-ID").unwrap_or_default()
    }

    pub fn cseq(&self) -> Option<(u32, &str)> {
        let (number, method) = self.get("CSeq")?.split_once(' ')?;
        Some((number.parse().ok()?, method.trim()))
    }

    /// "Several Vias come back folded into one comma-separated Via header."
    pub fn vias(&self) -> String {
        self.all("Via").collect::<Vec<_>>().join(",")
    }

    /// The sent-by of the top Via: "port default 5060 …, no IPv6, no names".
    pub fn sent_by(&self) -> Option<SocketAddr> {
        let vias = self.vias();
        address(vias.split([';', ',']).next()?.split_ascii_whitespace().nth(1)?)
    }
}

fn compact(name: &str) -> Option<&'static str> {
    ["To", "From", "Contact", "Call-ID", "Via"]
        .iter()
        .zip(["t", "f", "m", "i", "v"])
        .find_map(|(long, short)| long.eq_ignore_ascii_case(name).then_some(short))
}

/// `192.0.2.1:5060`, the port 5060 where there is none.
pub fn address(text: &str) -> Option<SocketAddr> {
    text.parse().ok().or_else(|| format!("{text}:5060").parse().ok())
}

/// What stands between `<` and `>`, else everything up to the first parameter.
pub fn uri_in(value: &str) -> &str {
    match value.split_once('<') {
        Some((_, rest)) => rest.split('>').next().unwrap_or_default(),
        None => value.split(';').next().unwrap_or_default().trim(),
    }
}

/// The user of a sip: URI, the number of a tel: URI.
pub fn user_of(uri: &str) -> &str {
    let rest = uri.split_once(':').map_or("", |(_, rest)| rest).split(';').next().unwrap_or_default();
    match rest.split_once('@') {
        Some((user, _)) => user,
        None if uri.starts_with("tel:") => rest,
        None => "",
    }
}

/// Host and port of a sip: URI; `None` where it is no numeric address.
pub fn host_of(uri: &str) -> Option<SocketAddr> {
    let rest = uri.split_once(':').map_or(uri, |(_, rest)| rest);
    let rest = rest.rsplit_once('@').map_or(rest, |(_, host)| host);
    address(rest.split([';', '?', '>']).next()?)
}

/// The display name before the URI.
pub fn display_of(value: &str) -> &str {
    value.split_once('<').map_or("", |(name, _)| name).trim().trim_matches('"')
}

/// Everything after `;tag=`: "Parameters after `;tag=` in From/To are taken into the tag."
pub fn tag_of(value: &str) -> &str {
    value.split_once(";tag=").map_or("", |(_, tag)| tag)
}

/// Of `Reason: Q.850;cause=16 ;text=".."`.
pub fn cause_of(message: &Heard) -> Option<u8> {
    message.all("Reason").find_map(|value| {
        let (_, rest) = value.trim().strip_prefix("Q.850")?.split_once("cause=")?;
        rest.split(|char: char| !char.is_ascii_digit()).next()?.parse().ok()
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_parts_of_a_message_are_found() {
        let text = "INVITE sip:IMSI001010000000001@127.0.0.17:5062 SIP/2.0\r\nv: SIP/2.0/UDP 127.0.0.1;branch=z9hG4bKa\r\n\
                    Via: SIP/2.0/UDP 192.0.2.1:5061;branch=b\r\nFrom: \"2101\" <sip:2101@127.0.0.1>;tag=1\r\nt: <sip:x@y>\r\n\
                    Contact: <sip:a@127.0.0.1:5060;transport=udp>\r\nCall-ID: c\r\nCSeq: 7 INVITE\r\n\
                    Reason: Q.850;cause=27 ;text=\"No_Paging_Response\"\r\n\r\nv=0\r\n";
        let heard = Heard::parse(text.as_bytes()).unwrap();
        assert_eq!((heard.method(), user_of(heard.uri())), ("INVITE", "IMSI001010000000001"));
        assert_eq!(host_of(heard.uri()), "127.0.0.17:5062".parse().ok());
        assert_eq!(heard.sent_by(), "127.0.0.1:5060".parse().ok());
        assert_eq!(heard.vias(), "SIP/2.0/UDP 127.0.0.1;branch=z9hG4bKa,SIP/2.0/UDP 192.0.2.1:5061;branch=b");
        assert_eq!((heard.cseq(), heard.call_id(), heard.get("To")), (Some((7, "INVITE")), "c", Some("<sip:x@y>")));
        let from = heard.get("From").unwrap();
        assert_eq!((display_of(from), user_of(uri_in(from)), tag_of(from)), ("2101", "2101", "1"));
        assert_eq!(host_of(uri_in(heard.get("Contact").unwrap())), "127.0.0.1:5060".parse().ok());
        assert_eq!((cause_of(&heard), heard.body.as_slice()), (Some(27), b"v=0\r\n".as_slice()));
        assert_eq!((user_of("tel:+15550001"), user_of("sip:127.0.0.1")), ("+15550001", ""));
        let answer = Heard::parse(b"SIP/2.0 480 No_Paging_Response\r\nCSeq: 1 INVITE").unwrap();
        assert_eq!((answer.code(), answer.phrase(), answer.method()), (480, "No_Paging_Response", ""));
        assert!(Heard::parse(b"GET / HTTP/1.1\r\n\r\n").is_none());
    }
}
