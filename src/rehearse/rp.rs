//! The short message of a phone, bit by bit: SUBMIT and SMMA upwards, DELIVER and STATUS-REPORT downwards, each in its RPDU.
//!
//! Knows: texts of one part or of several in the GSM alphabet; UCS-2 downwards, which the box's own words may be in. Does not know: other
//! alphabets. On purpose nothing of the message centre's own bits.
//! Read first: TS 23.040 §9.2, TS 24.011 §7.3, TS 23.038 §6.2.1; wire.md 4.

use std::time::Duration;

const BASIC: &str = "@£$¥èéùìòÇ\nØø\rÅåΔ_ΦΓΛΩΠΨΣΘΞ\x1bÆæßÉ !\"#¤%&'()*+,-./0123456789:;<=>?\
                     ¡ABCDEFGHIJKLMNOPQRSTUVWXYZÄÖÑÜ§¿abcdefghijklmnopqrstuvwxyzäöñüà";
const ESCAPE: u8 = 0x1B;
const EXTENSION: [(u8, char); 10] = [
    (0x0A, '\x0C'),
    (0x14, '^'),
    (0x28, '{'),
    (0x29, '}'),
    (0x2F, '\\'),
    (0x3C, '['),
    (0x3D, '~'),
    (0x3E, ']'),
    (0x40, '|'),
    (0x65, '€'),
];

/// Septets in one message, and in a part of several beside its header of [`PART_HEADER_OCTETS`].
const SEPTETS_MAX: usize = 160;
const PART_SEPTETS_MAX: usize = 153;
const PART_HEADER_OCTETS: usize = 6;

/// A text as a phone hands it in.
#[derive(Clone, Copy, Debug)]
pub struct Written<'a> {
    pub number: &'a str,
    pub text: &'a str,
    /// TP-MR, and RP-MR; the parts of a long text count on from it.
    pub reference: u8,
    /// TP-SRR: its sender wants to know what becomes of it.
    pub report_wanted: bool,
    /// Its validity period, up to 255 s.
    pub valid_for: Option<Duration>,
}

/// What the network brings to a phone.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Brought {
    Text(Deliver),
    Report(Report),
}

/// What a phone shows of a text that it got.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Deliver {
    pub from: String,
    pub text: String,
    /// The service centre's time, fourteen digits as they came.
    pub stamp: String,
    pub part: Option<Part>,
}

/// Which part of a long text it is: a phone puts together what came from one number with one reference (TS 23.040 §9.2.3.24.1).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Part {
    pub reference: u16,
    pub count: u8,
    /// From 1.
    pub number: u8,
}

/// What became of a text that the phone has sent.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Report {
    /// TP-MR of that text.
    pub reference: u8,
    /// Whom it was for.
    pub to: String,
    /// TP-ST; 0: it has arrived.
    pub status: u8,
}

/// Lower-case hex of each RP-DATA in which a phone hands in a text, one for each part; characters that the alphabet lacks become `?`.
///
/// Source: wire.md 4.1, the SMSC "0000" of the SIM.
pub fn submits(written: &Written<'_>) -> Vec<String> {
    let septets = septets_of(written.text);
    let parts = cut(&septets);
    let count = parts.len();
    let hex = |(place, part): (usize, &[u8])| {
        let reference = written.reference.wrapping_add(place as u8);
        let header = (count > 1).then(|| [5, 0, 3, written.reference, count as u8, place as u8 + 1]);
        let tpdu = submit(written, reference, header, part);
        // RP-DATA, no originator, the service centre.
        let mut data = vec![0x00, reference, 0, 3, 0x81, 0x00, 0x00, tpdu.len() as u8];
        data.extend(tpdu);
        hex(&data)
    };
    parts.into_iter().enumerate().map(hex).collect()
}

/// RP-SMMA: there is room again for texts (TS 24.011 §7.3.2).
pub fn has_room(reference: u8) -> String {
    hex(&[0x06, reference])
}

fn submit(written: &Written<'_>, reference: u8, header: Option<[u8; PART_HEADER_OCTETS]>, septets: &[u8]) -> Vec<u8> {
    let (digits, kind) = match written.number.strip_prefix('+') {
        Some(digits) => (digits, 0x91),
        None => (written.number, 0x81),
    };
    // SUBMIT; a validity period in the enhanced format; TP-SRR; a header in the user data.
    let first = 0x01
        | if written.valid_for.is_some() { 0x08 } else { 0 }
        | if written.report_wanted { 0x20 } else { 0 }
        | if header.is_some() { 0x40 } else { 0 };
    let mut tpdu = vec![first, reference, digits.len() as u8, kind];
    tpdu.extend(semi_octets(digits));
    tpdu.extend([0, 0]);
    if let Some(valid_for) = written.valid_for {
        // 2: the next octet counts seconds; the rest is filled up (TS 23.040 §9.2.3.12.3).
        tpdu.extend([2, valid_for.as_secs().clamp(1, 255) as u8, 0, 0, 0, 0, 0]);
    }
    let ahead = header.map_or(0, |header| septets_before(header.len()));
    tpdu.push((ahead + septets.len()) as u8);
    let mut data = pack(&[vec![0; ahead].as_slice(), septets].concat());
    if let Some(header) = header {
        data[..header.len()].copy_from_slice(&header);
    }
    tpdu.extend(data);
    tpdu
}

/// One message, or as many parts as it takes; none ends between an escape and what it escapes.
fn cut(septets: &[u8]) -> Vec<&[u8]> {
    if septets.len() <= SEPTETS_MAX {
        return vec![septets];
    }
    let (mut parts, mut rest) = (Vec::new(), septets);
    while !rest.is_empty() {
        let mut len = rest.len().min(PART_SEPTETS_MAX);
        len -= usize::from(len < rest.len() && rest[len - 1] == ESCAPE);
        let (part, behind) = rest.split_at(len);
        parts.push(part);
        rest = behind;
    }
    parts
}

/// So many septets a header of so many octets takes; the text begins with the next one.
fn septets_before(octets: usize) -> usize {
    (octets * 8).div_ceil(7)
}

/// What stands in the hex RP-DATA of an MT MESSAGE.
///
/// Errors: why a phone would refuse it.
pub fn brought(body: &[u8]) -> Result<Brought, &'static str> {
    let octets = unhex(body.trim_ascii()).ok_or("it is no hex text")?;
    let mut rest = Rest(&octets);
    // RP-DATA from the network: 1.
    if rest.take(2)?[0] & 7 != 1 {
        return Err("it is no RP-DATA from the network");
    }
    for _address in ["of the service centre", "of the phone: empty"] {
        let len = usize::from(rest.octet()?);
        rest.take(len)?;
    }
    let len = usize::from(rest.octet()?);
    let tpdu = rest.take(len)?;
    if !rest.0.is_empty() {
        return Err("there is more than its length says");
    }
    let mut rest = Rest(tpdu);
    let first = rest.octet()?;
    match first & 3 {
        0 => deliver(rest, first & 0x40 != 0).map(Brought::Text),
        2 => report(rest).map(Brought::Report),
        _ => Err("it is neither a DELIVER nor a STATUS-REPORT"),
    }
}

fn deliver(mut rest: Rest<'_>, has_header: bool) -> Result<Deliver, &'static str> {
    let from = rest.address()?;
    let coding = rest.take(2)?[1];
    let stamp = digits(rest.take(7)?);
    let count = usize::from(rest.octet()?);
    let is_wide = match coding {
        0x00 => false,
        0x08 => true,
        _ => return Err("it is neither in the GSM alphabet nor in UCS-2"),
    };
    let data = rest.take(if is_wide { count } else { (count * 7).div_ceil(8) })?;
    if !rest.0.is_empty() {
        return Err("there is more user data than its length says");
    }
    let header_len = match has_header {
        true => 1 + usize::from(*data.first().ok_or(SHORT)?),
        false => 0,
    };
    let header = data.get(..header_len).ok_or(SHORT)?;
    let text = if is_wide {
        let units: Vec<u16> = data[header_len..]
            .chunks(2)
            .map(|two| u16::from(two[0]) << 8 | two.get(1).map_or(0, |low| u16::from(*low)))
            .collect();
        String::from_utf16_lossy(&units)
    } else {
        text_of(unpack(data, count).get(septets_before(header_len)..).ok_or(SHORT)?)
    };
    Ok(Deliver { from, text, stamp, part: part_in(header.get(1..).unwrap_or_default())? })
}

/// What its header says of a long text, with a reference of one octet or of two; all else in a header is passed over.
fn part_in(header: &[u8]) -> Result<Option<Part>, &'static str> {
    let mut rest = Rest(header);
    let mut part = None;
    while !rest.0.is_empty() {
        let (kind, len) = (rest.octet()?, rest.octet()?);
        let (reference, count, number) = match (kind, rest.take(usize::from(len))?) {
            (0, [reference, count, number]) => (u16::from(*reference), *count, *number),
            (8, [high, low, count, number]) => (u16::from(*high) << 8 | u16::from(*low), *count, *number),
            _ => continue,
        };
        if number == 0 || number > count {
            return Err("it is a part that its long text does not have");
        }
        part = Some(Part { reference, count, number });
    }
    Ok(part)
}

/// TS 23.040 §9.2.2.3; what may follow the status says nothing of it.
fn report(mut rest: Rest<'_>) -> Result<Report, &'static str> {
    let reference = rest.octet()?;
    let to = rest.address()?;
    rest.take(14)?;
    Ok(Report { reference, to, status: rest.octet()? })
}

const SHORT: &str = "it ends too early";

/// Octets that have not been read yet.
struct Rest<'a>(&'a [u8]);

impl<'a> Rest<'a> {
    fn take(&mut self, count: usize) -> Result<&'a [u8], &'static str> {
        let (head, tail) = self.0.split_at_checked(count).ok_or(SHORT)?;
        self.0 = tail;
        Ok(head)
    }

    fn octet(&mut self) -> Result<u8, &'static str> {
        Ok(self.take(1)?[0])
    }

    /// TP-OA or TP-RA, as the phone shows it.
    fn address(&mut self) -> Result<String, &'static str> {
        let [count, kind] = [self.octet()?, self.octet()?];
        let octets = self.take(usize::from(count).div_ceil(2))?;
        Ok(match kind & 0x70 {
            0x50 => text_of(&unpack(octets, usize::from(count) * 4 / 7)),
            0x10 => format!("+{}", digits(octets)),
            _ => digits(octets),
        })
    }
}

fn septets_of(text: &str) -> Vec<u8> {
    let mut septets = Vec::new();
    for char in text.chars() {
        let basic = BASIC.chars().position(|known| known == char && known != '\x1b');
        match (basic, EXTENSION.iter().find(|(_, known)| *known == char)) {
            (Some(code), _) => septets.push(code as u8),
            (None, Some((code, _))) => septets.extend([ESCAPE, *code]),
            (None, None) => septets.push(b'?'),
        }
    }
    septets
}

fn text_of(septets: &[u8]) -> String {
    let basic: Vec<char> = BASIC.chars().collect();
    let (mut text, mut is_escaped) = (String::new(), false);
    for &code in septets {
        if code == ESCAPE && !is_escaped {
            is_escaped = true;
            continue;
        }
        let extended = EXTENSION.iter().find(|(known, _)| is_escaped && *known == code).map(|(_, char)| *char);
        text.push(extended.or_else(|| basic.get(usize::from(code)).copied()).unwrap_or('?'));
        is_escaped = false;
    }
    text
}

fn pack(septets: &[u8]) -> Vec<u8> {
    let mut octets = vec![0; (septets.len() * 7).div_ceil(8)];
    for (place, &code) in septets.iter().enumerate() {
        for bit in 0..7 {
            let at = place * 7 + bit;
            octets[at / 8] |= (code >> bit & 1) << (at % 8);
        }
    }
    octets
}

fn unpack(octets: &[u8], count: usize) -> Vec<u8> {
    let bit = |at: usize| octets.get(at / 8).map_or(0, |octet| octet >> (at % 8) & 1);
    (0..count).map(|place| (0..7).fold(0, |code, number| code | bit(place * 7 + number) << number)).collect()
}

/// "The first digit stands in the lower half" (TS 23.040 §9.1.2.3), an odd one is filled up with F.
fn semi_octets(number: &str) -> Vec<u8> {
    let code = |digit: u8| digit.wrapping_sub(b'0') & 15;
    number.as_bytes().chunks(2).map(|two| code(two[0]) | two.get(1).map_or(15, |second| code(*second)) << 4).collect()
}

fn digits(octets: &[u8]) -> String {
    let halves = octets.iter().flat_map(|octet| [octet & 15, octet >> 4]);
    halves.filter_map(|half| b"0123456789*#abc".get(usize::from(half)).map(|digit| char::from(*digit))).collect()
}

fn hex(octets: &[u8]) -> String {
    octets.iter().map(|octet| format!("{octet:02x}")).collect()
}

fn unhex(text: &[u8]) -> Option<Vec<u8>> {
    if !text.len().is_multiple_of(2) {
        return None;
    }
    let digit = |char: u8| char::from(char).to_digit(16).map(|digit| digit as u8);
    text.chunks(2).map(|two| Some(digit(two[0])? << 4 | digit(two[1])?)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn written<'a>(number: &'a str, text: &'a str, reference: u8) -> Written<'a> {
        Written { number, text, reference, report_wanted: false, valid_for: None }
    }

    /// wire.md 4.1, seen live.
    #[test]
    fn a_submit_is_byte_for_byte_what_was_seen_live() {
        let seen = "002a000381000012012a0481121000000ac8329bfd06cdcb6c33";
        assert_eq!(submits(&written("2101", "Hello self", 0x2A)), [seen]);
        assert!(submits(&written("+9997000003", "x", 1))[0].starts_with("000100038100000d01010a9199790000300000"));
    }

    /// Read by the box's own decoder: each is the judge of the other.
    #[test]
    fn what_a_submit_asks_for_is_read_by_the_box() {
        use crate::gsm::rpdu::Rpdu;
        use crate::gsm::tpdu::Submit;
        let text = "Ñandu [é] 5€ ".repeat(25);
        let asking =
            Written { report_wanted: true, valid_for: Some(Duration::from_secs(3)), ..written("2101", &text, 255) };
        let mut parts = Vec::new();
        for (place, one) in submits(&asking).iter().enumerate() {
            let octets = unhex(one.as_bytes()).unwrap();
            let (Rpdu::DataFromPhone { tpdu, .. }, 0) = Rpdu::decode(&octets).unwrap() else { panic!("{octets:x?}") };
            let (submit, behind) = Submit::decode(tpdu).unwrap();
            assert_eq!((submit.reference, submit.report_wanted, behind), (255u8.wrapping_add(place as u8), true, 0));
            assert_eq!(submit.validity.unwrap().ends_at_s(1_000), Some(1_003));
            parts.push(submit.data);
        }
        assert_eq!(parts.len(), 3);
        assert_eq!(crate::gsm::segment::whole_text(&parts.iter().collect::<Vec<_>>()).unwrap(), text);
        assert!(matches!(Rpdu::decode(&unhex(has_room(7).as_bytes()).unwrap()), Ok((Rpdu::Smma { reference: 7 }, 0))));
    }

    /// wire.md 4.2, seen live.
    #[test]
    fn a_deliver_is_read_as_the_phone_showed_it() {
        let body = b"01A203A1000000170404A1121000006211122100010009C8329BFD0609DF62";
        let right =
            Deliver { from: "2101".into(), text: "Hello Bob".into(), stamp: "26112112001000".into(), part: None };
        assert_eq!(brought(body), Ok(Brought::Text(right)));
        assert_eq!(brought(&body[..60]), Err("it ends too early"));
        assert_eq!(brought(b"00A2"), Err("it is no RP-DATA from the network"));
        assert_eq!(brought(b"zz"), Err("it is no hex text"));
        assert!(brought(&[body.as_slice(), b"00"].concat()).is_err());
    }

    #[test]
    fn a_part_says_which_it_is_and_a_report_what_became_of_which() {
        // DELIVER from 2101: a header of six octets, a bit that fills it up, "Hi".
        let part = |header: &str| format!("01a203a1000000174404a1121000006211122100010009{header}9069");
        let right = Part { reference: 0x2A, count: 3, number: 2 };
        let Ok(Brought::Text(text)) = brought(part("0500032a0302").as_bytes()) else { panic!("it is no text") };
        assert_eq!((text.text.as_str(), text.part), ("Hi", Some(right)));
        assert!(brought(part("0500032a0304").as_bytes()).is_err());
        let report = b"01a203a100000015060704a11210621112210001006211122100010046";
        let right = Report { reference: 7, to: "2101".into(), status: 0x46 };
        assert_eq!(brought(report), Ok(Brought::Report(right)));
    }

    #[test]
    fn every_character_comes_back() {
        let all: String = BASIC.chars().filter(|char| *char != '\x1b').chain(EXTENSION.map(|(_, char)| char)).collect();
        let septets = septets_of(&all);
        assert_eq!(text_of(&unpack(&pack(&septets), septets.len())), all);
        assert_eq!(digits(&semi_octets("70001")), "70001");
    }
}
