//! Messages as we write them: to base stations, to phones, to other nodes.
//!
//! Knows: what an answer must echo (RFC 3261 §8.2.6) and what a base station can read: long header names only, the tag
//! last in To, every datagram below [`DATAGRAM_BYTES_MAX`]. Does not know: what to answer. Writes into one growing
//! buffer. No value, wherever it comes from, can start a new line: CR and LF are left out.
//!
//! Read first: RFC 3261 §8.2.6, §18.2.1, §18.2.2; RFC 3581 §4.

use std::fmt::{self, Write as _};
use std::net::{IpAddr, SocketAddr};

use super::header::{HeaderName, Via, values};
use super::parse::Message;

/// The longest datagram we send to a base station: an Ethernet frame without the IPv4 and UDP headers.
///
/// OpenBTS reads into 1500 bytes and loses the rest; 28 bytes less also spares every peer a fragment.
pub const DATAGRAM_BYTES_MAX: usize = 1500 - 28;

/// [`echo_bytes`] above which an answer cannot be kept within [`DATAGRAM_BYTES_MAX`].
pub const ECHO_BYTES_MAX: usize = 1200;

/// One message in the making: start line, headers in the order of the calls, Content-Length and body last.
#[derive(Debug)]
pub struct Writer {
    bytes: Vec<u8>,
    body: Vec<u8>,
}

impl Writer {
    /// A response with what RFC 3261 §8.2.6.2 echoes and nothing else: all Vias, From, To, Call-ID, CSeq.
    ///
    /// Shape:  each Via on its own line. `to_tag` is appended to To, last, where the request's To has no tag.
    ///         `received` is the source of the request: the top Via gets `;received=` where its sent-by is another host
    ///         or rport was asked for, and the port as the value of `;rport` where that was asked for.
    /// Source: RFC 3261 §8.2.6, §18.2.1; RFC 3581 §4.
    pub fn response_to(
        request: &Message<'_>,
        code: u16,
        phrase: &str,
        to_tag: Option<&str>,
        received: Option<(IpAddr, Option<u16>)>,
    ) -> Writer {
        let mut writer = Writer { bytes: Vec::with_capacity(1024), body: Vec::new() };
        writer.text("SIP/2.0 ");
        writer.number(u32::from(code));
        writer.text(" ");
        writer.text(phrase);
        writer.end_line();
        writer.vias(request, received);
        writer.echo(request, HeaderName::From);
        writer.to(request, to_tag);
        writer.echo(request, HeaderName::CallId);
        writer.echo(request, HeaderName::CSeq);
        writer
    }

    pub fn request(method: &str, uri: &str) -> Writer {
        let mut writer = Writer { bytes: Vec::with_capacity(1024), body: Vec::new() };
        writer.text(method);
        writer.text(" ");
        writer.text(uri);
        writer.text(" SIP/2.0");
        writer.end_line();
        writer
    }

    /// Long names only: of the compact ones OpenBTS knows `t f m i v` and no other.
    pub fn header(&mut self, name: &str, value: &str) -> &mut Writer {
        self.name(name);
        self.text(value);
        self.end_line();
        self
    }

    /// `writer.header_fmt("Contact", format_args!("<{uri}>;expires={expires_s}"))`
    pub fn header_fmt(&mut self, name: &str, value: fmt::Arguments<'_>) -> &mut Writer {
        self.name(name);
        // Writing to memory fails only where a Display does; then the value is as short as that left it.
        let _ = self.write_fmt(value);
        self.end_line();
        self
    }

    /// Writes Content-Type here, the body at the end.
    pub fn body(&mut self, content_type: &str, body: &[u8]) -> &mut Writer {
        self.header("Content-Type", content_type);
        self.body.clear();
        self.body.extend_from_slice(body);
        self
    }

    /// The message; the writer is empty afterwards.
    pub fn finish(&mut self) -> Vec<u8> {
        let body = std::mem::take(&mut self.body);
        self.name("Content-Length");
        self.number(u32::try_from(body.len()).unwrap_or(u32::MAX));
        self.end_line();
        self.end_line();
        self.bytes.extend_from_slice(&body);
        std::mem::take(&mut self.bytes)
    }

    /// As [`Writer::finish`]; `None` if it came out longer than `limit` bytes.
    pub fn finish_within(&mut self, limit: usize) -> Option<Vec<u8>> {
        let bytes = self.finish();
        if bytes.len() <= limit { Some(bytes) } else { None }
    }

    fn vias(&mut self, request: &Message<'_>, received: Option<(IpAddr, Option<u16>)>) {
        let mut top = request.via().ok();
        for header in request.headers_bytes_of(HeaderName::Via) {
            let Ok(text) = std::str::from_utf8(header) else {
                self.name(HeaderName::Via.as_str());
                self.clean(header);
                self.end_line();
                continue;
            };
            for value in values(text) {
                self.name(HeaderName::Via.as_str());
                match top.take() {
                    Some(via) => self.top_via(&via, received),
                    None => self.text(value),
                }
                self.end_line();
            }
        }
    }

    fn top_via(&mut self, via: &Via<'_>, received: Option<(IpAddr, Option<u16>)>) {
        let Some((source, port)) = received else { return self.text(via.text) };
        let source = source.to_canonical();
        // "If the host portion of the "sent-by" parameter contains a domain name, or if it contains an IP address that
        // differs from the packet source address, the server MUST add a "received" parameter" (RFC 3261 §18.2.1).
        let differs = via.host.parse::<IpAddr>().ok().map(|host| host.to_canonical()) != Some(source);
        let add_received = differs || via.rport_asked;
        if !add_received {
            return self.text(via.text);
        }
        let params_bytes = via.params.as_str().len();
        self.text(via.text[..via.text.len() - params_bytes].trim_end());
        for (name, value) in via.params.iter_raw() {
            let is_rport = via.rport_asked && name.eq_ignore_ascii_case("rport");
            // One that the sender wrote himself says nothing about where the request came from.
            if name.eq_ignore_ascii_case("received") || is_rport && port.is_some() {
                continue;
            }
            self.text(";");
            self.text(name);
            if let Some(value) = value {
                self.text("=");
                self.text(value);
            }
        }
        let _ = write!(self, ";received={source}");
        if let (true, Some(port)) = (via.rport_asked, port) {
            self.text(";rport=");
            self.number(u32::from(port));
        }
    }

    fn to(&mut self, request: &Message<'_>, to_tag: Option<&str>) {
        let Some(value) = request.header_bytes(HeaderName::To) else { return };
        let has_tag = match request.to() {
            Ok(to) => to.param("tag").is_some(),
            // Unreadable: rather none than two.
            Err(_) => value.windows(4).any(|text| text.eq_ignore_ascii_case(b"tag=")),
        };
        self.name("To");
        self.clean(value);
        if let (false, Some(tag)) = (has_tag, to_tag) {
            self.text(";tag=");
            self.text(tag);
        }
        self.end_line();
    }

    fn echo(&mut self, request: &Message<'_>, name: HeaderName) {
        if let Some(value) = request.header_bytes(name) {
            self.name(name.as_str());
            self.clean(value);
            self.end_line();
        }
    }

    fn name(&mut self, name: &str) {
        self.text(name);
        self.bytes.extend_from_slice(b": ");
    }

    fn text(&mut self, text: &str) {
        self.clean(text.as_bytes());
    }

    /// Everything but CR and LF. Of a fold its blanks remain, so that a folded value comes out on one line.
    fn clean(&mut self, bytes: &[u8]) {
        for part in bytes.split(|b| matches!(b, b'\r' | b'\n')) {
            self.bytes.extend_from_slice(part);
        }
    }

    fn number(&mut self, number: u32) {
        let mut digits = [0; 10];
        let mut at = digits.len();
        let mut rest = number;
        loop {
            at -= 1;
            digits[at] = b'0' + (rest % 10) as u8; // below ten
            rest /= 10;
            if rest == 0 {
                break;
            }
        }
        self.bytes.extend_from_slice(&digits[at..]);
    }

    fn end_line(&mut self) {
        self.bytes.extend_from_slice(b"\r\n");
    }
}

/// Lower case, as nonces, tags and digests are written.
pub fn hex(bytes: &[u8]) -> String {
    let digits = bytes.iter().flat_map(|byte| [byte >> 4, byte & 15]);
    digits.map(|digit| char::from(b"0123456789abcdef"[usize::from(digit)])).collect()
}

impl fmt::Write for Writer {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        self.text(text);
        Ok(())
    }
}

/// Bytes that the request itself forces into every answer: its Vias, From, To and Call-ID.
///
/// Above [`ECHO_BYTES_MAX`] the caller answers 400 without a body, and drops (and counts) what is too long even then.
pub fn echo_bytes(request: &Message<'_>) -> usize {
    let vias: usize =
        request.headers_of(HeaderName::Via).flat_map(values).map(|via| via.len() + "Via: \r\n".len()).sum();
    let others = [HeaderName::From, HeaderName::To, HeaderName::CallId];
    vias + others.iter().filter_map(|&name| request.header_bytes(name)).map(<[u8]>::len).sum::<usize>()
}

/// Where an answer over UDP goes: the source address and the port of the top Via's sent-by, 5060 if it names none
/// (RFC 3261 §18.2.2); the source port where rport was asked for (RFC 3581 §4).
///
/// `maddr` is ignored: it would let a stranger aim our answers at a third party.
pub fn reply_target(via: &Via<'_>, source: SocketAddr) -> SocketAddr {
    let mut target = source;
    if !via.rport_asked {
        target.set_port(via.port.unwrap_or(5060));
    }
    target
}
