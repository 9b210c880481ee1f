//! What a replica keeps of one AOR, and the one rule by which two such records become one.
//!
//! Knows: contacts, stamps, tombstones. Does not know: limits, requests, time. "merge knows no limit" (DESIGN promise 3):
//! limits act when a REGISTER is decided, so that replicas which saw writes in different order hold the same record.
//! Tests: tests/merge.rs (commutative, associative, idempotent; equal at rest).

use std::collections::BTreeMap;
use std::net::SocketAddr;

use crate::ident::CellId;
use crate::time::Stamp;

/// One Contact of an AOR, as it is kept.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Binding {
    /// Milliseconds since 1970 on the deciding front end's clock.
    pub expires_at_ms: u64,
    /// When the phone came to this contact first, ms since 1970.
    pub since_ms: u64,
    pub call_id: String,
    pub cseq: u32,
    /// The address that the REGISTER came from: the base station.
    pub source: SocketAddr,
    pub cell: Option<CellId>,
    pub path: Vec<String>,
    pub instance: Option<String>,
    /// The contact that the phone had before it moved here: it may be paged there too.
    pub previous: Option<String>,
}

/// What is known of one contact: the newest stamp, and a binding or the memory that it was removed.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Entry {
    pub stamp: Stamp,
    /// `None` is a tombstone.
    pub binding: Option<Binding>,
}

/// All that a replica knows of one AOR; also the outcome of one REGISTER, which is a record with that write alone.
///
/// Shape: contacts by their URI as received, byte for byte. A contact is dead if its stamp < `clear_stamp`, so one write can
/// clear and bind with the same stamp.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Record {
    pub clear_stamp: Stamp,
    pub contacts: BTreeMap<String, Entry>,
}

impl Record {
    /// The largest stamp in it.
    pub fn stamp(&self) -> Stamp {
        self.contacts.values().map(|entry| entry.stamp).max().unwrap_or_default().max(self.clear_stamp)
    }

    /// The live bindings, in order of contact.
    pub fn bindings(&self) -> impl Iterator<Item = (&str, Stamp, &Binding)> {
        self.contacts
            .iter()
            .filter_map(|(contact, entry)| Some((contact.as_str(), entry.stamp, entry.binding.as_ref()?)))
    }

    /// The binding written last: where a call goes.
    pub fn newest(&self) -> Option<(&str, Stamp, &Binding)> {
        self.bindings().max_by_key(|(_, stamp, _)| *stamp)
    }
}

/// Merges contact by contact, the larger stamp winning; `clear_stamp` takes the larger; what it kills is dropped.
///
/// Commutative, associative and idempotent: replicas that saw the same writes in any order, any number of times, are equal.
/// Two different entries never share a stamp (a stamp names one write of one front end).
pub fn merge(mut left: Record, right: &Record) -> Record {
    left.clear_stamp = left.clear_stamp.max(right.clear_stamp);
    for (contact, theirs) in &right.contacts {
        match left.contacts.get_mut(contact) {
            Some(ours) if ours.stamp >= theirs.stamp => {}
            Some(ours) => *ours = theirs.clone(),
            None => {
                left.contacts.insert(contact.clone(), theirs.clone());
            }
        }
    }
    let clear_stamp = left.clear_stamp;
    left.contacts.retain(|_, entry| entry.stamp >= clear_stamp);
    left
}

/// Version byte of [`encode`]; a release reads its own and the one before.
const VERSION: u8 = 1;

/// The bytes of a record, as they stand in the store, in hints and in a stamped REGISTER.
pub fn encode(record: &Record) -> Vec<u8> {
    let mut out = Vec::with_capacity(160);
    out.push(VERSION);
    out.extend_from_slice(&record.clear_stamp.to_bytes());
    put_count(&mut out, record.contacts.len());
    for (contact, entry) in &record.contacts {
        put_text(&mut out, contact);
        out.extend_from_slice(&entry.stamp.to_bytes());
        let Some(binding) = &entry.binding else {
            out.push(0);
            continue;
        };
        out.push(1);
        out.extend_from_slice(&binding.expires_at_ms.to_be_bytes());
        out.extend_from_slice(&binding.since_ms.to_be_bytes());
        put_text(&mut out, &binding.call_id);
        out.extend_from_slice(&binding.cseq.to_be_bytes());
        put_text(&mut out, &binding.source.to_string());
        match binding.cell {
            None => out.push(0),
            Some(cell) => {
                out.push(cell.mnc_digits);
                for part in [cell.mcc, cell.mnc, cell.lac, cell.ci] {
                    out.extend_from_slice(&part.to_be_bytes());
                }
            }
        }
        put_count(&mut out, binding.path.len());
        binding.path.iter().for_each(|path| put_text(&mut out, path));
        for optional in [&binding.instance, &binding.previous] {
            match optional {
                None => out.push(0),
                Some(text) => {
                    out.push(1);
                    put_text(&mut out, text);
                }
            }
        }
    }
    out
}

/// Why stored bytes are not a record: a newer release wrote them, or they are damaged.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct NotARecord;

/// Reads what [`encode`] wrote; never panics, whatever the bytes.
pub fn decode(bytes: &[u8]) -> Result<Record, NotARecord> {
    let mut input = Reader(bytes);
    if input.byte()? != VERSION {
        return Err(NotARecord);
    }
    let mut record = Record { clear_stamp: Stamp::from_bytes(input.array()?), contacts: BTreeMap::new() };
    for _ in 0..input.count()? {
        let contact = input.text()?;
        let stamp = Stamp::from_bytes(input.array()?);
        let binding = match input.byte()? {
            0 => None,
            _ => Some(Binding {
                expires_at_ms: u64::from_be_bytes(input.array()?),
                since_ms: u64::from_be_bytes(input.array()?),
                call_id: input.text()?,
                cseq: u32::from_be_bytes(input.array()?),
                source: input.text()?.parse().map_err(|_| NotARecord)?,
                cell: input.cell()?,
                path: (0..input.count()?).map(|_| input.text()).collect::<Result<_, _>>()?,
                instance: input.optional_text()?,
                previous: input.optional_text()?,
            }),
        };
        record.contacts.insert(contact, Entry { stamp, binding });
    }
    if input.0.is_empty() { Ok(record) } else { Err(NotARecord) }
}

fn put_count(out: &mut Vec<u8>, count: usize) {
    out.extend_from_slice(&u16::try_from(count).unwrap_or(u16::MAX).to_be_bytes());
}

/// Texts come from one datagram, so their length fits; a longer one would be cut, never mix up what follows.
fn put_text(out: &mut Vec<u8>, text: &str) {
    let mut len = text.len().min(usize::from(u16::MAX));
    while !text.is_char_boundary(len) {
        len -= 1;
    }
    put_count(out, len);
    out.extend_from_slice(&text.as_bytes()[..len]);
}

struct Reader<'a>(&'a [u8]);

impl Reader<'_> {
    fn take(&mut self, count: usize) -> Result<&[u8], NotARecord> {
        let (head, rest) = self.0.split_at_checked(count).ok_or(NotARecord)?;
        self.0 = rest;
        Ok(head)
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N], NotARecord> {
        self.take(N)?.try_into().map_err(|_| NotARecord)
    }

    fn byte(&mut self) -> Result<u8, NotARecord> {
        Ok(self.array::<1>()?[0])
    }

    fn u16(&mut self) -> Result<u16, NotARecord> {
        Ok(u16::from_be_bytes(self.array()?))
    }

    fn count(&mut self) -> Result<usize, NotARecord> {
        self.u16().map(usize::from)
    }

    fn text(&mut self) -> Result<String, NotARecord> {
        let len = self.count()?;
        String::from_utf8(self.take(len)?.to_vec()).map_err(|_| NotARecord)
    }

    fn optional_text(&mut self) -> Result<Option<String>, NotARecord> {
        Ok(match self.byte()? {
            0 => None,
            _ => Some(self.text()?),
        })
    }

    fn cell(&mut self) -> Result<Option<CellId>, NotARecord> {
        let mnc_digits = self.byte()?;
        if mnc_digits == 0 {
            return Ok(None);
        }
        Ok(Some(CellId { mnc_digits, mcc: self.u16()?, mnc: self.u16()?, lac: self.u16()?, ci: self.u16()? }))
    }
}
