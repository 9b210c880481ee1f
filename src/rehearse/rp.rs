//! The short message of a phone, bit by bit: SUBMIT in RP-DATA upwards, DELIVER in RP-DATA downwards.
//!
//! Knows: one text that fits one message, in the GSM alphabet. Does not know: long ones, reports, other alphabets. On purpose nothing of
//! the message centre's own bits.
//! Read first: TS 23.040 §9.2, TS 24.011 §7.3, TS 23.038 §6.2.1; wire.md 4.

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

/// What a phone shows of a text that it got.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Deliver {
    pub from: String,
    pub text: String,
    /// The service centre's time, fourteen digits as they came.
    pub stamp: String,
}

/// Lower-case hex of the RP-DATA in which a phone hands in a text; characters that the alphabet lacks become `?`.
///
/// Source: wire.md 4.1, the SMSC "0000" of the SIM.
pub fn submit(number: &str, text: &str, reference: u8) -> String {
    let septets = septets_of(text);
    let (digits, kind) = match number.strip_prefix('+') {
        Some(digits) => (digits, 0x91),
        None => (number, 0x81),
    };
    let mut tpdu = vec![0x01, reference, digits.len() as u8, kind];
    tpdu.extend(semi_octets(digits));
    tpdu.extend([0, 0, septets.len() as u8]);
    tpdu.extend(pack(&septets));
    let mut data = vec![0x00, reference, 0, 3, 0x81, 0x00, 0x00, tpdu.len() as u8];
    data.extend(tpdu);
    data.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// What stands in the hex RP-DATA of an MT MESSAGE.
///
/// Errors: why a phone would refuse it.
pub fn deliver(body: &[u8]) -> Result<Deliver, &'static str> {
    const SHORT: &str = "it ends too early";
    let octets = unhex(body.trim_ascii()).ok_or("it is no hex text")?;
    let mut rest = octets.as_slice();
    let mut take = |count: usize| -> Result<&[u8], &'static str> {
        let (head, tail) = rest.split_at_checked(count).ok_or(SHORT)?;
        rest = tail;
        Ok(head)
    };
    // RP-DATA from the network: 1.
    if take(2)?[0] & 7 != 1 {
        return Err("it is no RP-DATA from the network");
    }
    for _address in ["of the service centre", "of the phone: empty"] {
        let len = usize::from(take(1)?[0]);
        take(len)?;
    }
    let len = usize::from(take(1)?[0]);
    let tpdu = take(len)?.to_vec();
    if !rest.is_empty() {
        return Err("there is more than its length says");
    }
    let mut rest = tpdu.as_slice();
    let mut take = |count: usize| -> Result<&[u8], &'static str> {
        let (head, tail) = rest.split_at_checked(count).ok_or(SHORT)?;
        rest = tail;
        Ok(head)
    };
    let first = take(1)?[0];
    if first & 3 != 0 {
        return Err("it is no DELIVER");
    }
    if first & 0x40 != 0 {
        return Err("it has a user data header, which none of ours needs");
    }
    let [count, kind] = [take(1)?[0], take(1)?[0]];
    let octets = take(usize::from(count).div_ceil(2))?;
    let from = match kind & 0x70 {
        0x50 => text_of(&unpack(octets, usize::from(count) * 4 / 7)),
        0x10 => format!("+{}", digits(octets)),
        _ => digits(octets),
    };
    let coding = take(2)?[1];
    if coding != 0 {
        return Err("it is not in the GSM alphabet");
    }
    let stamp = digits(take(7)?);
    let count = usize::from(take(1)?[0]);
    let data = take((count * 7).div_ceil(8))?;
    let text = text_of(&unpack(data, count));
    if !rest.is_empty() {
        return Err("there is more user data than its length says");
    }
    Ok(Deliver { from, text, stamp })
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

    /// wire.md 4.1, seen live.
    #[test]
    fn a_submit_is_byte_for_byte_what_was_seen_live() {
        assert_eq!(submit("2101", "Hello self", 0x2A), "002a000381000012012a0481121000000ac8329bfd06cdcb6c33");
        assert!(submit("+9997000003", "x", 1).starts_with("000100038100000d01010a9199790000300000"));
    }

    /// wire.md 4.2, seen live.
    #[test]
    fn a_deliver_is_read_as_the_phone_showed_it() {
        let body = b"01A203A1000000170404A1121000006211122100010009C8329BFD0609DF62";
        let right = Deliver { from: "2101".into(), text: "Hello Bob".into(), stamp: "26112112001000".into() };
        assert_eq!(deliver(body), Ok(right));
        assert_eq!(deliver(&body[..60]), Err("it ends too early"));
        assert_eq!(deliver(b"00A2"), Err("it is no RP-DATA from the network"));
        assert_eq!(deliver(b"zz"), Err("it is no hex text"));
        assert!(deliver(&[body.as_slice(), b"00"].concat()).is_err());
    }

    #[test]
    fn every_character_comes_back() {
        let all: String = BASIC.chars().filter(|char| *char != '\x1b').chain(EXTENSION.map(|(_, char)| char)).collect();
        let septets = septets_of(&all);
        assert_eq!(text_of(&unpack(&pack(&septets), septets.len())), all);
        assert_eq!(digits(&semi_octets("70001")), "70001");
    }
}
