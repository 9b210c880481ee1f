//! Messages out of a TCP stream.
//!
//! Knows: where a message ends (RFC 3261 §18.3) and what a keep-alive is (RFC 5626 §3.5.1). Does not know: what it says;
//! `parse` reads each frame. Keeps what has arrived of one message, at most [`MESSAGE_BYTES_MAX`] bytes of it, and
//! looks at each byte once however slowly they drip in.

use std::fmt;

use super::header::{HeaderName, decimal};
use super::parse::{Lines, MESSAGE_BYTES_MAX, split_header};

/// Cuts the bytes of one connection into messages: push what arrived, then take frames until there is none.
///
/// After an error there are no more frames: nobody knows where the next message begins, so the connection is closed.
#[derive(Debug, Default)]
pub struct Framer {
    bytes: Vec<u8>,
    /// Where the message under way begins; what lies before it has been handed out.
    start: usize,
    /// Where its line under way begins, and up to where the end of that line has been looked for.
    line: usize,
    scanned: usize,
    /// How long it is, once its headers are complete.
    message_bytes: Option<usize>,
    failed: bool,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Frame {
    Message(Vec<u8>),
    /// CRLF CRLF between messages: the caller answers CRLF.
    Ping,
}

/// What the line ends before a message are.
enum KeepAlive {
    /// None are left.
    None,
    Ping,
    /// The half of a ping, or a pong: the next bytes will tell.
    Undecided,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FramingError {
    /// Longer than [`MESSAGE_BYTES_MAX`], or said to be.
    TooLong,
    /// Not a number, or two different ones.
    ContentLength,
}

impl fmt::Display for FramingError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            FramingError::TooLong => "a message longer than 65535 bytes",
            FramingError::ContentLength => "a Content-Length that cannot be read",
        })
    }
}

impl std::error::Error for FramingError {}

impl Framer {
    pub fn new() -> Framer {
        Framer::default()
    }

    pub fn push(&mut self, bytes: &[u8]) {
        if self.failed {
            return;
        }
        self.bytes.drain(..self.start);
        self.line -= self.start;
        self.scanned -= self.start;
        self.start = 0;
        self.bytes.extend_from_slice(bytes);
    }

    /// A message has begun and is not complete: the caller's deadline for it runs.
    pub fn is_within_message(&self) -> bool {
        self.bytes[self.start..].iter().any(|b| !matches!(b, b'\r' | b'\n'))
    }

    /// Takes line ends off the front.
    fn keep_alive(&mut self) -> KeepAlive {
        loop {
            match &self.bytes[self.start..] {
                [b'\r', b'\n', b'\r', b'\n', ..] => {
                    self.skip(4);
                    return KeepAlive::Ping;
                }
                [b'\r'] | [b'\r', b'\n'] | [b'\r', b'\n', b'\r'] => return KeepAlive::Undecided,
                [b'\r' | b'\n', ..] => self.skip(1),
                _ => return KeepAlive::None,
            }
        }
    }

    fn skip(&mut self, count: usize) {
        self.start += count;
        (self.line, self.scanned) = (self.start, self.start);
    }

    /// Length of the message at the front as soon as its headers are complete.
    fn measure(&mut self) -> Result<Option<usize>, FramingError> {
        if self.message_bytes.is_some() {
            return Ok(self.message_bytes);
        }
        while let Some(length) = memchr::memchr(b'\n', &self.bytes[self.scanned..]) {
            let end = self.scanned + length;
            let is_empty = matches!(&self.bytes[self.line..end], b"" | b"\r");
            (self.line, self.scanned) = (end + 1, end + 1);
            if is_empty {
                let head = self.scanned - self.start;
                let message_bytes = head.saturating_add(content_length(&self.bytes[self.start..self.scanned])?);
                if message_bytes > MESSAGE_BYTES_MAX {
                    return Err(FramingError::TooLong);
                }
                self.message_bytes = Some(message_bytes);
                return Ok(self.message_bytes);
            }
        }
        self.scanned = self.bytes.len();
        if self.bytes.len() - self.start > MESSAGE_BYTES_MAX { Err(FramingError::TooLong) } else { Ok(None) }
    }
}

/// Of a stream: "the Content-Length header field value … MUST be used to locate the end of each SIP message in the
/// stream" (RFC 3261 §18.3). None means none.
fn content_length(head: &[u8]) -> Result<usize, FramingError> {
    let mut lines = Lines { bytes: head, at: 0, ended: false };
    lines.next_raw();
    let mut found = None;
    for (name, value) in lines.filter_map(split_header) {
        if HeaderName::of(name) == Some(HeaderName::ContentLength) {
            let length = std::str::from_utf8(value).ok().and_then(decimal).ok_or(FramingError::ContentLength)?;
            if found.is_some_and(|found| found != length) {
                return Err(FramingError::ContentLength);
            }
            found = Some(length);
        }
    }
    Ok(found.unwrap_or(0) as usize)
}

impl Iterator for Framer {
    type Item = Result<Frame, FramingError>;

    fn next(&mut self) -> Option<Result<Frame, FramingError>> {
        if self.failed {
            return None;
        }
        if self.message_bytes.is_none() {
            match self.keep_alive() {
                KeepAlive::Ping => return Some(Ok(Frame::Ping)),
                KeepAlive::Undecided => return None,
                KeepAlive::None => (),
            }
        }
        match self.measure() {
            Ok(Some(length)) if self.bytes.len() - self.start >= length => {
                let message = self.bytes[self.start..self.start + length].to_vec();
                self.skip(length);
                self.message_bytes = None;
                Some(Ok(Frame::Message(message)))
            }
            Ok(_) => None,
            Err(error) => {
                self.failed = true;
                self.bytes = Vec::new();
                (self.start, self.line, self.scanned) = (0, 0, 0);
                Some(Err(error))
            }
        }
    }
}
