//! The octets of a mail behind DATA: where it ends, and what it was before dots were put before dots.
//!
//! Knows: lines. Does not know: what a mail says, or whose it is. Of what is refused nothing is kept.
//! Source: RFC 5321 §2.3.8, §4.1.1.4 and §4.5.2.

use memchr::memchr2;

use super::{SMALL_OCTETS_MAX, no_room, too_long};
use crate::config::Mail;
use crate::mail::Reply;

/// The octets after DATA.
pub(super) struct Data {
    at: At,
    /// All octets, those included that are not kept.
    pub(super) count: u64,
    /// Those of the mail itself, kept or not.
    own: u64,
    /// A CR or an LF stands alone somewhere.
    broken: bool,
    /// There was no room for it.
    unkept: bool,
}

#[derive(Clone, Copy)]
enum At {
    LineStart,
    /// A dot stands at its beginning, not yet kept.
    Dot,
    DotCr,
    Inside,
    /// A CR, not yet kept.
    Cr,
}

impl Data {
    pub(super) fn new() -> Data {
        Data { at: At::LineStart, count: 0, own: 0, broken: false, unkept: false }
    }

    /// Takes octets up to the end of the mail, which is `CR LF . CR LF` and nothing that resembles it; keeps them without the dots that
    /// were put before dots (RFC 5321 §4.5.2). `is_short`: only a small one is kept. Whether it has ended.
    pub(super) fn read(&mut self, input: &mut &[u8], size_max: u64, is_short: bool, octets: &mut Vec<u8>) -> bool {
        let mut rest = *input;
        let (begun, kept) = (rest.len(), octets.len());
        let mut ended = false;
        while let Some(&next) = rest.first() {
            match (self.at, next) {
                (At::LineStart, b'.') => self.at = At::Dot,
                (At::LineStart, _) => {
                    self.at = At::Inside;
                    continue;
                }
                (At::Dot, b'\r') => self.at = At::DotCr,
                (At::Dot, _) => {
                    self.at = At::Inside;
                    continue;
                }
                (At::DotCr, b'\n') => {
                    rest = &rest[1..];
                    ended = true;
                    break;
                }
                (At::DotCr, _) | (At::Cr, b'\r') => {
                    self.broken = true;
                    octets.push(b'\r');
                    self.at = if next == b'\r' { At::Cr } else { At::Inside };
                    if next != b'\r' {
                        continue;
                    }
                }
                (At::Cr, b'\n') => {
                    octets.extend_from_slice(b"\r\n");
                    self.at = At::LineStart;
                }
                (At::Cr, _) => {
                    self.broken = true;
                    octets.push(b'\r');
                    self.at = At::Inside;
                    continue;
                }
                (At::Inside, _) => {
                    let end = memchr2(b'\r', b'\n', rest).unwrap_or(rest.len());
                    octets.extend_from_slice(&rest[..end]);
                    rest = &rest[end..];
                    match rest.first() {
                        None => break,
                        Some(b'\r') => self.at = At::Cr,
                        Some(_) => {
                            self.broken = true;
                            octets.push(b'\n');
                        }
                    }
                }
            }
            rest = &rest[1..];
        }
        self.count += (begun - rest.len()) as u64;
        *input = rest;
        self.own += (octets.len() - kept) as u64;
        self.unkept |= is_short && octets.len() > SMALL_OCTETS_MAX;
        // Of what is refused nothing is kept.
        if self.broken || self.unkept || self.own > size_max {
            *octets = Vec::new();
        }
        ended
    }

    /// Why it is not taken, whatever it says.
    pub(super) fn refusal(&self, mail: &Mail) -> Option<Reply> {
        if self.own > mail.size_max {
            return Some(Reply::new(552, (5, 3, 4), too_long(mail)));
        }
        if self.unkept {
            return Some(no_room());
        }
        // Where its lines end two readers may see two mails; so neither is taken. Making it good would be to choose one of them.
        self.broken.then(|| Reply::new(550, (5, 6, 11), "a CR or an LF stands alone in it: lines end with CR LF"))
    }
}
