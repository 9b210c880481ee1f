//! What the message centre keeps on the disk.
//!
//! | key | value |
//! |---|---|
//! | `t` IMSI `/` number | a [`Text`] that waits for this phone; numbers grow, so a phone's texts stand in the order of their acceptance |
//! | `n` | the number of the next text |
//! | `d` digest | [`Seen`]: what was answered to the request or the SUBMIT of this digest |
//! | `l` IMSI | the last timestamp that this phone was given |
//! | `x` time number | the keys of the last two kinds that are too old at that time |
//!
//! Each value begins with a version byte; a release reads its own and the one before. Knows no queue and no time.

use crate::gsm::text::Coding;
use crate::gsm::tpdu::{UserData, Validity};
use crate::ident::Imsi;
use crate::store::StoreError;

const VERSION: u8 = 1;

pub const NEXT_KEY: &[u8] = b"n";
pub const TEXT_PREFIX: &[u8] = b"t";
pub const OLD_PREFIX: &[u8] = b"x";

/// How the last attempt ended.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum Cause {
    /// There was none yet.
    #[default]
    New,
    Absent,
    /// The phone's base station refused it; 0: it could not be sent at all.
    Refused(u16),
}

/// A text, from its acceptance to its end. `Debug` shows nothing of what is written in it ([`UserData`] does not).
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Text {
    /// Its number: never given twice, and growing.
    pub number: u64,
    pub recipient: Imsi,
    /// `None`: the centre itself has written it.
    pub sender: Option<Imsi>,
    /// Whom the phone shows as its sender: TP-OA, the same in every attempt.
    pub shown: String,
    /// TP-SCTS, seconds since 1970, the same in every attempt: with `shown` it is this text and no other to the phone.
    pub timestamp_s: u64,
    /// Milliseconds since 1970.
    pub accepted_ms: u64,
    pub protocol: u8,
    pub reply_path: bool,
    pub data: UserData,
    /// What a later report is about: its wish, TP-MR, and what was dialled.
    pub report_wanted: bool,
    pub reference: u8,
    pub dialled: String,
    pub validity: Option<Validity>,
    pub attempts: u32,
    /// The phone may have it already: an answer was lost.
    pub possible_duplicate: bool,
    pub cause: Cause,
}

/// What a copy of a request, or of a SUBMIT, is answered.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Seen {
    /// Milliseconds since 1970.
    pub at_ms: u64,
    pub code: u16,
    /// The text that it became: the sender's, or the one that told him why not.
    pub number: u64,
}

pub fn text_key(recipient: Imsi, number: u64) -> Vec<u8> {
    let mut key = queue_prefix(recipient);
    key.extend_from_slice(&number.to_be_bytes());
    key
}

/// All texts of one phone begin with this.
pub fn queue_prefix(recipient: Imsi) -> Vec<u8> {
    [TEXT_PREFIX, recipient.as_str().as_bytes(), b"/"].concat()
}

/// Phone and number of a text by its key alone.
pub fn read_text_key(key: &[u8]) -> Option<(Imsi, u64)> {
    let (rest, number) = key.strip_prefix(TEXT_PREFIX)?.split_last_chunk::<8>()?;
    let imsi = std::str::from_utf8(rest.strip_suffix(b"/")?).ok()?;
    Some((Imsi::parse(imsi).ok()?, u64::from_be_bytes(*number)))
}

pub fn seen_key(digest: &[u8; 16]) -> Vec<u8> {
    [b"d".as_slice(), digest].concat()
}

pub fn last_key(recipient: Imsi) -> Vec<u8> {
    [b"l", recipient.as_str().as_bytes()].concat()
}

pub fn old_key(at_ms: u64, number: u64) -> Vec<u8> {
    [OLD_PREFIX, &at_ms.to_be_bytes(), &number.to_be_bytes()].concat()
}

/// When the keys that it lists are too old.
pub fn read_old_key(key: &[u8]) -> Option<u64> {
    key.strip_prefix(OLD_PREFIX)?.first_chunk::<8>().map(|bytes| u64::from_be_bytes(*bytes))
}

pub fn encode(text: &Text) -> Vec<u8> {
    let mut out = vec![VERSION, text.flags()];
    out.extend_from_slice(&text.attempts.to_be_bytes());
    let cause = match text.cause {
        Cause::New => [0, 0, 0],
        Cause::Absent => [1, 0, 0],
        Cause::Refused(code) => [2, code.to_be_bytes()[0], code.to_be_bytes()[1]],
    };
    out.extend_from_slice(&cause);
    out.extend_from_slice(&text.accepted_ms.to_be_bytes());
    out.extend_from_slice(&text.timestamp_s.to_be_bytes());
    put(&mut out, text.sender.as_ref().map_or("", Imsi::as_str).as_bytes());
    put(&mut out, text.shown.as_bytes());
    put(&mut out, text.dialled.as_bytes());
    out.extend_from_slice(&[text.reference, text.protocol, text.data.coding.0, text.data.length]);
    put(&mut out, &text.data.bytes);
    match text.validity {
        None => out.push(0),
        Some(Validity::Relative(value)) => out.extend_from_slice(&[1, value]),
        Some(Validity::Absolute(time)) => {
            out.push(2);
            out.extend_from_slice(&time.octets());
        }
        Some(Validity::Enhanced(octets)) => {
            out.push(3);
            out.extend_from_slice(&octets);
        }
    }
    out
}

/// Reads what [`encode`] wrote under the key of this phone and number; never panics, whatever the bytes.
pub fn decode(recipient: Imsi, number: u64, bytes: &[u8]) -> Result<Text, StoreError> {
    let wrong = || StoreError::Broken(format!("text {number} cannot be read by this release"));
    read(recipient, number, bytes).ok_or_else(wrong)
}

fn read(recipient: Imsi, number: u64, bytes: &[u8]) -> Option<Text> {
    use crate::gsm::tpdu::Scts;
    let mut input = Reader(bytes);
    let [version, flags] = input.array()?;
    if version != VERSION {
        return None;
    }
    let attempts = u32::from_be_bytes(input.array()?);
    let cause = match input.array::<3>()? {
        [0, ..] => Cause::New,
        [1, ..] => Cause::Absent,
        [2, high, low] => Cause::Refused(u16::from_be_bytes([high, low])),
        _ => return None,
    };
    let (accepted_ms, timestamp_s) = (u64::from_be_bytes(input.array()?), u64::from_be_bytes(input.array()?));
    let sender = match input.text()?.as_str() {
        "" => None,
        digits => Some(Imsi::parse(digits).ok()?),
    };
    let (shown, dialled) = (input.text()?, input.text()?);
    let [reference, protocol, coding, length] = input.array()?;
    let data =
        UserData { coding: Coding(coding), has_header: flags & HEADER != 0, length, bytes: input.counted()?.to_vec() };
    let validity = match input.array::<1>()? {
        [0] => None,
        [1] => Some(Validity::Relative(input.array::<1>()?[0])),
        [2] => Some(Validity::Absolute(Scts::from_octets(input.array()?))),
        [3] => Some(Validity::Enhanced(input.array()?)),
        _ => return None,
    };
    input.0.is_empty().then_some(Text {
        number,
        recipient,
        sender,
        shown,
        timestamp_s,
        accepted_ms,
        protocol,
        reply_path: flags & REPLY_PATH != 0,
        data,
        report_wanted: flags & REPORT != 0,
        reference,
        dialled,
        validity,
        attempts,
        possible_duplicate: flags & POSSIBLE_DUPLICATE != 0,
        cause,
    })
}

pub fn encode_seen(seen: &Seen) -> Vec<u8> {
    let mut out = vec![VERSION];
    out.extend_from_slice(&seen.at_ms.to_be_bytes());
    out.extend_from_slice(&seen.code.to_be_bytes());
    out.extend_from_slice(&seen.number.to_be_bytes());
    out
}

pub fn decode_seen(bytes: &[u8]) -> Option<Seen> {
    let mut input = Reader(bytes);
    let [VERSION] = input.array()? else { return None };
    Some(Seen {
        at_ms: u64::from_be_bytes(input.array()?),
        code: u16::from_be_bytes(input.array()?),
        number: u64::from_be_bytes(input.array()?),
    })
}

/// When, in milliseconds, a phone was given which timestamp, in seconds.
pub fn encode_last(at_ms: u64, timestamp_s: u64) -> Vec<u8> {
    [[VERSION].as_slice(), &at_ms.to_be_bytes(), &timestamp_s.to_be_bytes()].concat()
}

pub fn decode_last(bytes: &[u8]) -> Option<(u64, u64)> {
    let mut input = Reader(bytes);
    let [VERSION] = input.array()? else { return None };
    Some((u64::from_be_bytes(input.array()?), u64::from_be_bytes(input.array()?)))
}

pub fn encode_old(keys: &[Vec<u8>]) -> Vec<u8> {
    let mut out = vec![VERSION];
    keys.iter().for_each(|key| put(&mut out, key));
    out
}

pub fn decode_old(bytes: &[u8]) -> Vec<Vec<u8>> {
    let mut input = Reader(bytes);
    let mut keys = Vec::new();
    if input.array() == Some([VERSION]) {
        while let Some(key) = input.counted() {
            keys.push(key.to_vec());
        }
    }
    keys
}

const HEADER: u8 = 1;
const REPLY_PATH: u8 = 2;
const REPORT: u8 = 4;
const POSSIBLE_DUPLICATE: u8 = 8;

impl Text {
    fn flags(&self) -> u8 {
        let flag = |set: bool, bit: u8| if set { bit } else { 0 };
        flag(self.data.has_header, HEADER)
            | flag(self.reply_path, REPLY_PATH)
            | flag(self.report_wanted, REPORT)
            | flag(self.possible_duplicate, POSSIBLE_DUPLICATE)
    }
}

/// Nothing that is kept is longer than one TPDU or one number.
fn put(out: &mut Vec<u8>, bytes: &[u8]) {
    let bytes = &bytes[..bytes.len().min(usize::from(u8::MAX))];
    out.push(bytes.len() as u8);
    out.extend_from_slice(bytes);
}

struct Reader<'a>(&'a [u8]);

impl<'a> Reader<'a> {
    fn take(&mut self, count: usize) -> Option<&'a [u8]> {
        let (head, rest) = self.0.split_at_checked(count)?;
        self.0 = rest;
        Some(head)
    }

    fn array<const N: usize>(&mut self) -> Option<[u8; N]> {
        self.take(N)?.try_into().ok()
    }

    fn counted(&mut self) -> Option<&'a [u8]> {
        let [count] = self.array()?;
        self.take(usize::from(count))
    }

    fn text(&mut self) -> Option<String> {
        String::from_utf8(self.counted()?.to_vec()).ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::gsm::tpdu::Scts;

    fn imsi(text: &str) -> Imsi {
        Imsi::parse(text).unwrap()
    }

    fn a_text() -> Text {
        Text {
            number: 7,
            recipient: imsi("001010000000002"),
            sender: Some(imsi("00101000000001")),
            shown: "+15550001".into(),
            timestamp_s: 1_795_265_024,
            accepted_ms: 1_795_265_024_340,
            protocol: 0x41,
            reply_path: true,
            data: UserData { coding: Coding(4), has_header: true, length: 3, bytes: vec![2, 0, 0] },
            report_wanted: true,
            reference: 42,
            dialled: "2002".into(),
            validity: None,
            attempts: 3,
            possible_duplicate: true,
            cause: Cause::Refused(400),
        }
    }

    #[test]
    fn a_text_reads_back_and_a_cut_one_does_not() {
        let validities = [
            None,
            Some(Validity::Relative(9)),
            Some(Validity::Absolute(Scts::from_unix(5_000_000))),
            Some(Validity::Enhanced([1; 7])),
        ];
        for validity in validities {
            for (cause, sender) in [(Cause::New, None), (Cause::Absent, a_text().sender), (a_text().cause, None)] {
                let text = Text { validity, cause, sender, ..a_text() };
                let bytes = encode(&text);
                assert_eq!(decode(text.recipient, text.number, &bytes), Ok(text.clone()));
                for len in 0..bytes.len() {
                    assert!(decode(text.recipient, text.number, &bytes[..len]).is_err());
                }
            }
        }
    }

    #[test]
    fn keys_stand_in_the_order_of_acceptance_and_read_back() {
        let (one, other) = (imsi("00101000000001"), imsi("001010000000012"));
        assert!(text_key(one, 255) < text_key(one, 256));
        assert!(!text_key(other, 1).starts_with(&queue_prefix(one)), "one IMSI may be the beginning of another");
        assert_eq!(read_text_key(&text_key(other, 256)), Some((other, 256)));
        assert_eq!(read_text_key(b"t1/12345678"), None);
        let seen = Seen { at_ms: 5, code: 202, number: 9 };
        assert_eq!(decode_seen(&encode_seen(&seen)), Some(seen));
        assert_eq!(decode_last(&encode_last(3, 4)), Some((3, 4)));
        let keys = vec![seen_key(&[7; 16]), last_key(one)];
        assert_eq!(decode_old(&encode_old(&keys)), keys);
        assert_eq!(read_old_key(&old_key(77, 1)), Some(77));
    }
}
