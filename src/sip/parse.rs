//! One SIP message, read from the bytes of one datagram (or of one frame of a stream) without copying them.
//!
//! Knows: start line, header lines, the five headers every message must have, Content-Length. Does not know: methods,
//! transactions, who sent it. Reads bytes; allocates the table of headers and nothing else; never panics; linear time.
//!
//! What RFC 3261 and RFC 4475 call malformed is refused, and where the request can be told so, [`Malformed::answer`]
//! says how. What base stations send is taken: two blanks after `To:`, `;branch` without a value, blanks before the
//! colon, Vias folded into one header with commas, no Max-Forwards, no Content-Length, lines that end with LF alone.
//!
//! Header values that are not UTF-8 do no harm to the others: [`Message::header`], [`Message::header_named`],
//! [`Message::headers`] and [`Message::headers_of`] pass over them, [`Message::headers_bytes`] has them. Via, From, To,
//! Call-ID and CSeq must be UTF-8.
//!
//! Limits: [`MESSAGE_BYTES_MAX`], [`HEADERS_MAX`]. Read first: RFC 3261 §7, §8.1.1, §18.3.

use std::fmt;

use memchr::{memchr, memchr_iter};

use super::header::{
    AuthParams, HeaderError, HeaderName, NameAddr, Uri, Values, Via, auth_params, decimal, delta_seconds, is_blank,
    is_token, trim, values,
};

/// The longest message we read: what a UDP datagram can carry.
pub const MESSAGE_BYTES_MAX: usize = 65_535;

/// Header lines (folded ones counted once) that one message may have; with more the answer is 400.
pub const HEADERS_MAX: usize = 256;

/// A message with all that RFC 3261 §8.1.1 demands, but for Max-Forwards.
///
/// In [`Answerable::message`], and only there, it may have less; each method says what it gives then.
#[derive(Clone, Debug)]
pub struct Message<'a> {
    pub start: StartLine<'a>,
    pub body: &'a [u8],
    headers: Vec<Header<'a>>,
    // Read once by `parse`, for who asks later; `None` only where they cannot be read.
    via: Option<Via<'a>>,
    from: Option<NameAddr<'a>>,
    to: Option<NameAddr<'a>>,
    call_id: &'a str,
    cseq: (u32, &'a str),
    /// Some part of it was unreadable: `via()` then makes do with where to send the answer.
    faulty: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StartLine<'a> {
    Request { method: &'a str, uri: &'a str },
    Response { code: u16, reason: &'a str },
}

#[derive(Clone)]
struct Header<'a> {
    known: Option<HeaderName>,
    name: &'a str,
    value: &'a [u8],
    /// `None` where the value is not UTF-8.
    text: Option<&'a str>,
}

impl fmt::Debug for Header<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {:?}", self.name, String::from_utf8_lossy(self.value))
    }
}

/// Why there is no message, and what the caller should do about it.
#[derive(Clone, Debug)]
pub struct Malformed<'a> {
    pub why: &'static str,
    pub kind: MalformedKind,
    /// Set if and only if the kind is `Answerable`.
    pub answer: Option<Answerable<'a>>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MalformedKind {
    /// Nothing but line ends: a keep-alive, dropped without a word.
    KeepAlive,
    /// Not SIP, or SIP that gets no answer: a response, an ACK, a request of which too little is readable.
    NotSip,
    /// A request that is refused.
    Answerable,
}

/// A malformed request whose sender can be told: it has a Via that names a host, and a CSeq.
///
/// Those two are what RFC 3261 §17.1.3 matches a response by; of From, To and Call-ID the answer echoes what is there.
#[derive(Clone, Debug)]
pub struct Answerable<'a> {
    pub code: u16,
    pub phrase: &'static str,
    pub message: Message<'a>,
}

impl fmt::Display for Malformed<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.why)
    }
}

impl std::error::Error for Malformed<'_> {}

/// Reads one datagram or one frame.
///
/// Shape:  line ends before the start line are skipped. A Content-Length shorter than what follows cuts the body; a
///         longer one is refused; none means the rest.
/// Errors: [`Malformed`]; the first fault found is the one told.
/// Source: RFC 3261 §7, §18.3; RFC 4475 throughout.
/// Tests:  tests/rfc4475.rs, tests/sip_messages.rs
#[allow(clippy::result_large_err, reason = "boxing it would be a second allocation, and it is consumed at once")]
pub fn parse(bytes: &[u8]) -> Result<Message<'_>, Malformed<'_>> {
    if bytes.len() > MESSAGE_BYTES_MAX {
        return Err(not_sip("longer than 65535 bytes"));
    }
    let line_ends = bytes.iter().take_while(|b| matches!(b, b'\r' | b'\n')).count();
    let bytes = &bytes[line_ends..];
    if bytes.is_empty() {
        return Err(Malformed { why: "a keep-alive", kind: MalformedKind::KeepAlive, answer: None });
    }
    let mut fault = FirstFault(None);
    let mut lines = Lines { bytes, at: 0, ended: false };
    let start = match lines.next_raw() {
        Some(line) => start_line(line, &mut fault)?,
        None => return Err(not_sip("no start line")),
    };
    let headers = headers(&mut lines, &mut fault);
    if !lines.ended {
        fault.set("no empty line after the headers");
    }
    let mut message = Message {
        start,
        body: &bytes[lines.at..],
        headers,
        via: None,
        from: None,
        to: None,
        call_id: "",
        cseq: (0, ""),
        faulty: false,
    };
    message.read_mandatory(&mut fault);
    match message.body_bytes() {
        Ok(length) => message.body = &message.body[..length],
        Err(why) => fault.set(why),
    }
    match fault.0 {
        None => Ok(message),
        Some(fault) => Err(message.malformed(fault)),
    }
}

fn not_sip(why: &'static str) -> Malformed<'static> {
    Malformed { why, kind: MalformedKind::NotSip, answer: None }
}

/// What is wrong, and the answer it would get.
#[derive(Clone, Copy)]
struct Fault {
    why: &'static str,
    code: u16,
    phrase: &'static str,
}

/// Reading goes on after a fault, so that the answer has something to echo; the first one is remembered.
struct FirstFault(Option<Fault>);

impl FirstFault {
    fn set(&mut self, why: &'static str) {
        self.set_with(why, 400, "Bad Request");
    }

    fn set_with(&mut self, why: &'static str, code: u16, phrase: &'static str) {
        self.0.get_or_insert(Fault { why, code, phrase });
    }

    fn take<T>(&mut self, result: Result<T, HeaderError>) -> Option<T> {
        result.map_err(|error| self.set(error.0)).ok()
    }
}

#[allow(clippy::result_large_err, reason = "as parse")]
fn start_line<'a>(line: &'a [u8], fault: &mut FirstFault) -> Result<StartLine<'a>, Malformed<'a>> {
    if line.get(..4).is_some_and(|head| head.eq_ignore_ascii_case(b"SIP/")) {
        return status_line(line);
    }
    let text = std::str::from_utf8(line).map_err(|_| not_sip("a start line that is not UTF-8"))?;
    // Read with any spacing first, so that a badly spaced request can be told so.
    let loose = trim(text);
    let (method, rest) = loose.split_once(is_blank).ok_or(not_sip("no SIP start line"))?;
    let (uri, version) = rest.rsplit_once(is_blank).ok_or(not_sip("no SIP start line"))?;
    let uri = trim(uri);
    if !is_token(method) || !version.get(..4).is_some_and(|head| head.eq_ignore_ascii_case("SIP/")) {
        return Err(not_sip("no SIP start line"));
    }
    if !version.eq_ignore_ascii_case("SIP/2.0") {
        fault.set_with("another version of SIP", 505, "Version Not Supported");
    }
    // "Request-Line = Method SP Request-URI SP SIP-Version CRLF", and SP is one space.
    if !text.split(' ').eq([method, uri, version]) || uri.contains(is_blank) {
        fault.set("blanks in the start line");
    }
    if let Some(parsed) = fault.take(Uri::parse(uri)) {
        // Headers are "not allowed" in a Request-URI (RFC 3261 §19.1.1, table 1); to honour them would let a caller
        // write headers of our onward request.
        if parsed.headers.is_some() {
            fault.set("headers in the Request-URI");
        }
    }
    Ok(StartLine::Request { method, uri })
}

/// `SIP/2.0 200 OK`; the phrase may be empty, and one in another encoding is read as empty.
#[allow(clippy::result_large_err, reason = "as parse")]
fn status_line(line: &[u8]) -> Result<StartLine<'_>, Malformed<'_>> {
    const WRONG: Malformed<'static> = Malformed { why: "a bad status line", kind: MalformedKind::NotSip, answer: None };
    let (version, rest) = line.split_at(line.len().min(8));
    let (digits, rest) = rest.split_at(rest.len().min(3));
    let code = std::str::from_utf8(digits).ok().and_then(decimal).and_then(|code| u16::try_from(code).ok());
    match code {
        Some(code @ 100..=699) if version.eq_ignore_ascii_case(b"SIP/2.0 ") => match rest.split_first() {
            None => Ok(StartLine::Response { code, reason: "" }),
            Some((b' ', reason)) => {
                Ok(StartLine::Response { code, reason: trim(std::str::from_utf8(reason).unwrap_or("")) })
            }
            Some(_) => Err(WRONG),
        },
        _ => Err(WRONG),
    }
}

/// The table of headers. A line that is none is a fault and left out.
fn headers<'a>(lines: &mut Lines<'a>, fault: &mut FirstFault) -> Vec<Header<'a>> {
    // One allocation of the right size: there are no more headers than lines. (Those of the body are counted too.)
    let lines_count = memchr_iter(b'\n', &lines.bytes[lines.at..]).take(HEADERS_MAX).count();
    let mut headers = Vec::with_capacity(HEADERS_MAX.min(lines_count + 1));
    for line in lines {
        if memchr_iter(b'\r', line).any(|at| line.get(at + 1) != Some(&b'\n')) {
            // A peer that takes it for a line end would see other headers than we do.
            fault.set("a CR without its LF");
        }
        let Some((name, value)) = split_header(line) else {
            fault.set("a line that is no header");
            continue;
        };
        if headers.len() == HEADERS_MAX {
            fault.set("too many headers");
            continue;
        }
        let text = std::str::from_utf8(value).ok();
        headers.push(Header { known: HeaderName::of(name), name, value, text });
    }
    headers
}

/// Name and value, both trimmed; `None` where there is no colon or the name is none.
pub(super) fn split_header(line: &[u8]) -> Option<(&str, &[u8])> {
    let colon = memchr(b':', line)?;
    let name = line[..colon].trim_ascii_end();
    let name = std::str::from_utf8(name).ok().filter(|name| is_token(name))?;
    let mut value = &line[colon + 1..];
    while let Some((b' ' | b'\t' | b'\r' | b'\n', rest)) = value.split_first() {
        value = rest;
    }
    while let Some((b' ' | b'\t' | b'\r' | b'\n', rest)) = value.split_last() {
        value = rest;
    }
    Some((name, value))
}

/// Lines up to and with the empty one, each with its continuation lines, without its last line end.
pub(super) struct Lines<'a> {
    pub bytes: &'a [u8],
    /// Where the next line begins; behind the empty line, the body.
    pub at: usize,
    /// The empty line was seen.
    pub ended: bool,
}

impl<'a> Lines<'a> {
    pub(super) fn next_raw(&mut self) -> Option<&'a [u8]> {
        if self.at == self.bytes.len() {
            return None;
        }
        let start = self.at;
        let end = self.skip_line();
        Some(&self.bytes[start..end])
    }

    /// Moves behind the next line end; returns where the line ended.
    fn skip_line(&mut self) -> usize {
        match memchr(b'\n', &self.bytes[self.at..]) {
            Some(length) => {
                let end = self.at + length;
                let has_cr = length > 0 && self.bytes[end - 1] == b'\r';
                self.at = end + 1;
                if has_cr { end - 1 } else { end }
            }
            None => {
                self.at = self.bytes.len();
                self.at
            }
        }
    }
}

impl<'a> Iterator for Lines<'a> {
    type Item = &'a [u8];

    fn next(&mut self) -> Option<&'a [u8]> {
        if self.ended {
            return None;
        }
        let start = self.at;
        let first = self.next_raw()?;
        if first.is_empty() {
            self.ended = true;
            return None;
        }
        let mut end = start + first.len();
        while matches!(self.bytes.get(self.at), Some(b' ' | b'\t')) {
            end = self.skip_line();
        }
        Some(&self.bytes[start..end])
    }
}

impl<'a> Message<'a> {
    pub fn is_request(&self) -> bool {
        matches!(self.start, StartLine::Request { .. })
    }

    /// Of a request.
    pub fn method(&self) -> Option<&'a str> {
        match self.start {
            StartLine::Request { method, .. } => Some(method),
            StartLine::Response { .. } => None,
        }
    }

    /// The Request-URI as written.
    pub fn uri(&self) -> Option<&'a str> {
        match self.start {
            StartLine::Request { uri, .. } => Some(uri),
            StartLine::Response { .. } => None,
        }
    }

    /// Of a response: 100 to 699.
    pub fn code(&self) -> Option<u16> {
        match self.start {
            StartLine::Request { .. } => None,
            StartLine::Response { code, .. } => Some(code),
        }
    }

    /// The first header of that name.
    pub fn header(&self, name: HeaderName) -> Option<&'a str> {
        self.headers_of(name).next()
    }

    /// The first header of that name in any case; long or compact where there are two forms.
    pub fn header_named(&self, name: &str) -> Option<&'a str> {
        self.headers_named(name).next()
    }

    /// All headers of that name in any case.
    pub fn headers_named(&self, name: &str) -> impl Iterator<Item = &'a str> {
        let known = HeaderName::of(name);
        let is_it = move |header: &&Header<'a>| match known {
            Some(_) => header.known == known,
            None => header.known.is_none() && header.name.eq_ignore_ascii_case(name),
        };
        self.headers.iter().filter(is_it).filter_map(|header| header.text)
    }

    /// Name as written and value, trimmed, in the order of the message.
    pub fn headers(&self) -> impl Iterator<Item = (&'a str, &'a str)> {
        self.headers.iter().filter_map(|header| Some((header.name, header.text?)))
    }

    /// As [`Message::headers`], with those that are not UTF-8.
    pub fn headers_bytes(&self) -> impl Iterator<Item = (&'a str, &'a [u8])> {
        self.headers.iter().map(|header| (header.name, header.value))
    }

    /// The headers of that name, each as one value even where it is a list.
    pub fn headers_of(&self, name: HeaderName) -> impl Iterator<Item = &'a str> {
        self.headers.iter().filter(move |header| header.known == Some(name)).filter_map(|header| header.text)
    }

    /// The bytes of the headers of that name, UTF-8 or not: what an answer echoes.
    pub(super) fn headers_bytes_of(&self, name: HeaderName) -> impl Iterator<Item = &'a [u8]> {
        self.headers.iter().filter(move |header| header.known == Some(name)).map(|header| header.value)
    }

    pub(super) fn header_bytes(&self, name: HeaderName) -> Option<&'a [u8]> {
        self.headers_bytes_of(name).next()
    }

    /// The topmost Via. In [`Answerable::message`] its parameters may be missing.
    pub fn via(&self) -> Result<Via<'a>, HeaderError> {
        if let Some(via) = self.via {
            return Ok(via);
        }
        // The first that is there, not the first that is readable: that one would be another hop's.
        let header = self.header_bytes(HeaderName::Via).ok_or(HeaderError("no Via"))?;
        let header = std::str::from_utf8(header).map_err(|_| HeaderError("a Via that is not UTF-8"))?;
        let value = Values { rest: Some(header) }.next().unwrap_or_default();
        match Via::parse(value) {
            Err(_) if self.faulty => Via::parse_for_answer(value),
            via => via,
        }
    }

    /// Every Via value from the top, lists taken apart. Only the first has been read, by [`Message::via`].
    pub fn vias(&self) -> impl Iterator<Item = &'a str> {
        self.headers_of(HeaderName::Via).flat_map(values)
    }

    pub fn from(&self) -> Result<NameAddr<'a>, HeaderError> {
        match self.from {
            Some(from) => Ok(from),
            None => NameAddr::parse(self.header(HeaderName::From).ok_or(HeaderError("no From"))?),
        }
    }

    pub fn to(&self) -> Result<NameAddr<'a>, HeaderError> {
        match self.to {
            Some(to) => Ok(to),
            None => NameAddr::parse(self.header(HeaderName::To).ok_or(HeaderError("no To"))?),
        }
    }

    /// In [`Answerable::message`] it may be empty.
    pub fn call_id(&self) -> &'a str {
        self.call_id
    }

    /// Number and method; in a request the method is that of the start line. In [`Answerable::message`] both may be
    /// empty.
    pub fn cseq(&self) -> (u32, &'a str) {
        self.cseq
    }

    /// All contacts, or an error if one of them cannot be read, or if `*` stands beside another.
    pub fn contacts(&self) -> Result<Contacts<'_, 'a>, HeaderError> {
        if self.headers.iter().any(|h| h.known == Some(HeaderName::Contact) && h.text.is_none()) {
            return Err(HeaderError("a Contact that is not UTF-8"));
        }
        let mut count = 0;
        let mut star = false;
        for value in self.contact_values() {
            count += 1;
            if value == "*" {
                star = true;
            } else {
                NameAddr::parse(value)?;
            }
        }
        match (star, count) {
            (false, 0) => Ok(Contacts::None),
            (true, 1) => Ok(Contacts::Star),
            (true, _) => Err(HeaderError("* beside another Contact")),
            (false, _) => Ok(Contacts::List(ContactList { headers: self.headers.iter(), values: None, left: count })),
        }
    }

    fn contact_values(&self) -> impl Iterator<Item = &'a str> {
        self.headers_of(HeaderName::Contact).flat_map(|text| Values { rest: Some(text) })
    }

    /// The Expires header; see [`delta_seconds`] for what an error means.
    pub fn expires(&self) -> Option<Result<u32, HeaderError>> {
        self.header(HeaderName::Expires).map(delta_seconds)
    }

    /// 0 to 255; one that is not may be taken as absent (RFC 4475 §3.1.2.4).
    pub fn max_forwards(&self) -> Option<Result<u32, HeaderError>> {
        self.header(HeaderName::MaxForwards).map(|text| {
            decimal(text).filter(|&hops| hops <= 255).ok_or(HeaderError("a Max-Forwards that is not between 0 and 255"))
        })
    }

    pub fn content_length(&self) -> Option<Result<u32, HeaderError>> {
        self.header(HeaderName::ContentLength)
            .map(|text| decimal(text).ok_or(HeaderError("a Content-Length that is no number")))
    }

    /// The first Authorization. A phone of several realms sends several: `headers_of` and [`auth_params`].
    pub fn authorization(&self) -> Option<AuthParams<'a>> {
        self.header(HeaderName::Authorization).and_then(auth_params)
    }

    /// Reads what every message must have, and sees that it has it once.
    fn read_mandatory(&mut self, fault: &mut FirstFault) {
        const ONCE: [HeaderName; 7] = [
            HeaderName::From,
            HeaderName::To,
            HeaderName::CallId,
            HeaderName::CSeq,
            HeaderName::ContentLength,
            HeaderName::MaxForwards,
            HeaderName::Expires,
        ];
        let mut seen = [false; ONCE.len()];
        for header in &self.headers {
            if header.known == Some(HeaderName::Via) && header.text.is_none() {
                fault.set("a Via that is not UTF-8");
            }
            if let Some(at) = ONCE.iter().position(|&name| header.known == Some(name)) {
                if seen[at] {
                    fault.set("a header twice that may stand once");
                }
                seen[at] = true;
            }
        }
        self.via = fault.take(self.via());
        self.from = fault.take(self.from());
        self.to = fault.take(self.to());
        for addr in [self.from, self.to].into_iter().flatten() {
            // "…;tag=" with nothing behind it would get a second tag in our answer.
            if matches!(addr.param("tag"), Some(None | Some(""))) {
                fault.set("an empty tag");
            }
        }
        match self.header(HeaderName::CallId) {
            Some(call_id) if !call_id.is_empty() && !call_id.contains(is_blank) => self.call_id = call_id,
            Some(_) => fault.set("a Call-ID that is empty or has blanks"),
            None => fault.set("no Call-ID"),
        }
        if let Some(cseq) = fault.take(self.header(HeaderName::CSeq).ok_or(HeaderError("no CSeq")).and_then(parse_cseq))
        {
            self.cseq = cseq;
            // "For non-REGISTER requests … The method MUST match that of the request" (RFC 3261 §8.1.1.5).
            if self.method().is_some_and(|method| method != cseq.1) {
                fault.set("a CSeq of another method");
            }
        }
    }

    /// How much of the rest is the body.
    fn body_bytes(&self) -> Result<usize, &'static str> {
        if self.header_bytes(HeaderName::ContentLength).is_none() {
            return Ok(self.body.len());
        }
        let length = match self.content_length() {
            Some(Ok(length)) => length as usize,
            _ => return Err("a Content-Length that is no number"),
        };
        // "…if the transport packet ends before the end of the message body, this is considered an error. If the
        // message is a response, it MUST be discarded. If the message is a request, the element SHOULD generate a 400"
        // (RFC 3261 §18.3).
        if length > self.body.len() { Err("a Content-Length longer than the message") } else { Ok(length) }
    }

    fn malformed(mut self, fault: Fault) -> Malformed<'a> {
        self.faulty = true;
        // Nothing answers a response, and nothing but a wrong answer to its INVITE answers an ACK.
        let answerable = self.method().is_some_and(|method| method != "ACK")
            && self.via().is_ok()
            && self.header_bytes(HeaderName::CSeq).is_some();
        if !answerable {
            return not_sip(fault.why);
        }
        let answer = Answerable { code: fault.code, phrase: fault.phrase, message: self };
        Malformed { why: fault.why, kind: MalformedKind::Answerable, answer: Some(answer) }
    }
}

/// `9 REGISTER`. "The sequence number value MUST be expressible as a 32-bit unsigned integer and MUST be less than
/// 2**31" (RFC 3261 §8.1.1.5).
fn parse_cseq(text: &str) -> Result<(u32, &str), HeaderError> {
    let (number, method) = text.split_once(is_blank).ok_or(HeaderError("a CSeq without a method"))?;
    let number = decimal(number).filter(|&n| n < 1 << 31).ok_or(HeaderError("a CSeq that is no number below 2^31"))?;
    let method = trim(method);
    if is_token(method) { Ok((number, method)) } else { Err(HeaderError("a CSeq without a method")) }
}

/// What a REGISTER asks for.
#[derive(Clone, Debug)]
pub enum Contacts<'m, 'a> {
    /// No Contact at all: tell me the bindings.
    None,
    /// `*`, alone: all of them.
    Star,
    /// Each of them readable.
    List(ContactList<'m, 'a>),
}

/// The contacts of a message in their order: an iterator that can be cloned to go through them again.
#[derive(Clone, Debug)]
pub struct ContactList<'m, 'a> {
    headers: std::slice::Iter<'m, Header<'a>>,
    values: Option<Values<'a>>,
    left: usize,
}

impl<'a> Iterator for ContactList<'_, 'a> {
    type Item = NameAddr<'a>;

    fn next(&mut self) -> Option<NameAddr<'a>> {
        loop {
            if let Some(value) = self.values.as_mut().and_then(Values::next) {
                self.left = self.left.saturating_sub(1);
                // `contacts()` has read every one of them before it made this list.
                return NameAddr::parse(value).ok();
            }
            let header = self.headers.find(|header| header.known == Some(HeaderName::Contact))?;
            self.values = Some(Values { rest: header.text });
        }
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        (self.left, Some(self.left))
    }
}

impl ExactSizeIterator for ContactList<'_, '_> {}
