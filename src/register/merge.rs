//! What a replica keeps of one AOR, and the one rule by which two such records become one.
//!
//! Knows: contacts, marks, stamps, tombstones. Does not know: limits, requests, time. "merge knows no limit" (DESIGN promise 3):
//! limits act when a REGISTER is decided, so that replicas which saw writes in different order hold the same record.
//! Tests: tests/merge.rs (commutative, associative, idempotent; equal at rest).

use std::collections::BTreeMap;
use std::net::SocketAddr;

use crate::gsm::form::TextForm;
use crate::ident::CellId;
use crate::time::Stamp;

/// One Contact of an AOR, as it is kept.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug)]
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
    /// How short messages go to it, as far as its REGISTER told.
    pub texts: TextForm,
}

/// What is known of one contact: the newest stamp, and a binding or the memory that it was removed.
///
/// In order of stamp: what [`merge`] goes by.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub struct Entry {
    pub stamp: Stamp,
    /// `None` is a tombstone.
    pub binding: Option<Binding>,
}

/// "Tell me when this phone is back": what somebody who waits for an absent phone leaves beside its bindings.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub struct Mark {
    pub stamp: Stamp,
    /// Taken at the beginning of the attempt that failed: a binding that is newer means that the phone is back. `None` is a tombstone.
    pub since: Option<Stamp>,
}

/// All that a replica knows of one AOR; also the outcome of one REGISTER, which is a record with that write alone.
///
/// Shape: contacts by their URI as received, byte for byte. A contact is dead if its stamp < `clear_stamp`, so one write can
/// clear and bind with the same stamp. Marks by their owner, who is told at that address; each writes its own alone, and
/// `clear_stamp` is not about them.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Record {
    pub clear_stamp: Stamp,
    pub contacts: BTreeMap<String, Entry>,
    pub marks: BTreeMap<SocketAddr, Mark>,
}

impl Record {
    /// The largest stamp of its bindings: what a REGISTER is older or newer than. Marks do not count.
    pub fn stamp(&self) -> Stamp {
        self.contacts.values().map(|entry| entry.stamp).max().unwrap_or_default().max(self.clear_stamp)
    }

    /// The largest stamp in it, marks and all: what a clock is to be raised above.
    pub fn latest(&self) -> Stamp {
        self.marks.values().map(|mark| mark.stamp).max().unwrap_or_default().max(self.stamp())
    }

    /// It says nothing about bindings.
    pub fn is_of_marks(&self) -> bool {
        self.contacts.is_empty() && self.clear_stamp == Stamp::ZERO
    }

    /// Whom the return of the phone is to be told: the owners of marks that are older than its newest binding.
    pub fn returned_for(&self) -> impl Iterator<Item = SocketAddr> {
        let newest = self.newest().map(|(_, stamp, _)| stamp);
        let is_back = move |mark: &Mark| mark.since.is_some_and(|since| newest.is_some_and(|newest| newest > since));
        self.marks.iter().filter(move |(_, mark)| is_back(mark)).map(|(owner, _)| *owner)
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

/// Merges contact by contact and mark by mark, the larger stamp winning; `clear_stamp` takes the larger; the contacts that it kills are
/// dropped.
///
/// Commutative, associative and idempotent: replicas that saw the same writes in any order, any number of times, are equal.
/// A stamp names one write of one front end, so that two different entries do not share one; if they ever should (a node that was
/// restored from a copy of its disk), the larger of them is taken everywhere, whatever it says.
pub fn merge(mut left: Record, right: &Record) -> Record {
    left.clear_stamp = left.clear_stamp.max(right.clear_stamp);
    for (contact, theirs) in &right.contacts {
        match left.contacts.get_mut(contact) {
            Some(ours) if *ours >= *theirs => {}
            Some(ours) => *ours = theirs.clone(),
            None => {
                left.contacts.insert(contact.clone(), theirs.clone());
            }
        }
    }
    for (owner, theirs) in &right.marks {
        let ours = left.marks.entry(*owner).or_insert(*theirs);
        *ours = (*ours).max(*theirs);
    }
    let clear_stamp = left.clear_stamp;
    left.contacts.retain(|_, entry| entry.stamp >= clear_stamp);
    left
}

/// Version bytes of [`encode`]. What an earlier release can read is written as that release wrote it: a record without marks as the first
/// one did; one with marks has them at its end; one of which a binding is not of the first form of texts says the form with each.
const VERSION: u8 = 1;
const VERSION_MARKS: u8 = 2;
const VERSION_TEXTS: u8 = 3;

/// The bytes of a record, as they stand in the store, in hints and in a stamped REGISTER.
pub fn encode(record: &Record) -> Vec<u8> {
    let mut out = Vec::with_capacity(160);
    let version = match record.bindings().all(|(_, _, binding)| binding.texts == TextForm::OpenBts) {
        false => VERSION_TEXTS,
        true if record.marks.is_empty() => VERSION,
        true => VERSION_MARKS,
    };
    out.push(version);
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
        if version == VERSION_TEXTS {
            out.push(texts_byte(binding.texts));
        }
    }
    if version == VERSION {
        return out;
    }
    put_count(&mut out, record.marks.len());
    for (owner, mark) in &record.marks {
        put_text(&mut out, &owner.to_string());
        out.extend_from_slice(&mark.stamp.to_bytes());
        match mark.since {
            None => out.push(0),
            Some(since) => {
                out.push(1);
                out.extend_from_slice(&since.to_bytes());
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
    let version = input.byte()?;
    if !matches!(version, VERSION | VERSION_MARKS | VERSION_TEXTS) {
        return Err(NotARecord);
    }
    let mut record = Record { clear_stamp: Stamp::from_bytes(input.array()?), ..Record::default() };
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
                texts: if version == VERSION_TEXTS { input.texts()? } else { TextForm::OpenBts },
            }),
        };
        record.contacts.insert(contact, Entry { stamp, binding });
    }
    for _ in 0..if version == VERSION { 0 } else { input.count()? } {
        let owner = input.text()?.parse().map_err(|_| NotARecord)?;
        let stamp = Stamp::from_bytes(input.array()?);
        let since = match input.byte()? {
            0 => None,
            _ => Some(Stamp::from_bytes(input.array()?)),
        };
        record.marks.insert(owner, Mark { stamp, since });
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

fn texts_byte(form: TextForm) -> u8 {
    match form {
        TextForm::OpenBts => 0,
        TextForm::Yate => 1,
        TextForm::Ims => 2,
        TextForm::Plain => 3,
    }
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

    fn texts(&mut self) -> Result<TextForm, NotARecord> {
        let byte = self.byte()?;
        TextForm::ALL.into_iter().find(|form| texts_byte(*form) == byte).ok_or(NotARecord)
    }

    fn cell(&mut self) -> Result<Option<CellId>, NotARecord> {
        let mnc_digits = self.byte()?;
        if mnc_digits == 0 {
            return Ok(None);
        }
        Ok(Some(CellId { mnc_digits, mcc: self.u16()?, mnc: self.u16()?, lac: self.u16()?, ci: self.u16()? }))
    }
}
