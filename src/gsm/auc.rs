//! The authentication centre: a subscriber's key and algorithm, and the vector they make of a RAND.
//!
//! Knows: Ki, OPc, and which formula a SIM has. Does not know: whose SIM it is, where RAND came from, or which dialect
//! carries the answer. Reads and writes nothing; the dice are thrown by the caller.
//!
//! Secrets stay in: no key, SRES or Kc has a `Display`, their `Debug` shows an ellipsis, and each is wiped when
//! dropped. [`Sres::hex`], [`Sres::bytes`] and [`Kc::hex`] are the doors out, for the wire; a key has none.
//! Read first: TS 43.020 §3.2 (authentication), Annex C (A3 and A8).

use std::fmt;

use subtle::ConstantTimeEq;
use zeroize::{Zeroize, ZeroizeOnDrop, Zeroizing};

use super::{aka, comp128};

/// How a SIM answers, with the key it shares with us.
///
/// `==` is for noticing that a configuration changed; it is not constant in time.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Auth {
    Comp128v1(Ki),
    Comp128v2(Ki),
    Comp128v3(Ki),
    /// GSM-Milenage with SRES derivation function #1 (TS 55.205 §4).
    Milenage {
        ki: Ki,
        opc: Opc,
    },
    /// TS 34.108 §8.1.2.1 with c2 and c3.
    Xor(Ki),
    /// No key is known: the SIM is believed.
    None,
}

impl Auth {
    /// The name of the algorithm as the configuration spells it.
    pub fn algorithm(&self) -> &'static str {
        match self {
            Auth::Comp128v1(_) => "comp128v1",
            Auth::Comp128v2(_) => "comp128v2",
            Auth::Comp128v3(_) => "comp128v3",
            Auth::Milenage { .. } => "milenage",
            Auth::Xor(_) => "xor",
            Auth::None => "none",
        }
    }

    /// The vector of one challenge.
    ///
    /// Shape:  `rand` comes back as it was given; `None` where there is nothing to compute, for [`Auth::None`].
    /// Errors: none; every key and RAND has a vector.
    /// Source: see [`comp128`] and [`aka`].
    /// Tests:  tests/gsm_vectors.rs, tests/oracle_auc.rs
    pub fn vector(&self, rand: [u8; 16]) -> Option<Vector> {
        let answer = match self {
            Auth::Comp128v1(ki) => comp128::v1(&ki.0, &rand),
            Auth::Comp128v2(ki) => comp128::v2(&ki.0, &rand),
            Auth::Comp128v3(ki) => comp128::v3(&ki.0, &rand),
            Auth::Milenage { ki, opc } => aka::milenage(&ki.0, &opc.0, &rand).gsm(),
            Auth::Xor(ki) => aka::xor(&ki.0, &rand).gsm(),
            Auth::None => return None,
        };
        let mut vector = Vector { rand, sres: Sres([0; 4]), kc: Kc([0; 8]) };
        vector.sres.0.copy_from_slice(&answer[..4]);
        vector.kc.0.copy_from_slice(&answer[4..]);
        Some(vector)
    }
}

/// A challenge and what the right SIM makes of it: the triplet of GSM.
#[derive(Clone, Debug)]
pub struct Vector {
    pub rand: [u8; 16],
    pub sres: Sres,
    pub kc: Kc,
}

/// The answer that proves the SIM: 4 bytes.
#[derive(Clone, Zeroize, ZeroizeOnDrop)]
pub struct Sres([u8; 4]);

impl Sres {
    /// Whether the text a base station sent is this SRES; takes the same time wherever the two differ.
    ///
    /// sipauthserve compares the two as numbers, and base stations were written against it: case and leading zeros do
    /// not matter.
    ///
    /// Shape:  1 to 8 hex digits. A prefix, blanks, a sign or more digits are no SRES, whatever their value.
    pub fn verify(&self, response: &[u8]) -> bool {
        if !(1..=8).contains(&response.len()) {
            return false;
        }
        let mut number = 0;
        for digit in response {
            match nibble(*digit) {
                Some(nibble) => number = number << 4 | u32::from(nibble),
                None => return false,
            }
        }
        number.to_be_bytes().ct_eq(&self.0).into()
    }

    /// 8 lower-case hex digits: the text that is the password where the base station answers with an MD5 digest.
    pub fn hex(&self) -> String {
        format!("{:08x}", u32::from_be_bytes(self.0))
    }

    pub fn bytes(&self) -> &[u8; 4] {
        &self.0
    }
}

/// The ciphering key that the SIM computed along with its SRES: 8 bytes.
#[derive(Clone, Zeroize, ZeroizeOnDrop)]
pub struct Kc([u8; 8]);

impl Kc {
    /// 16 upper-case hex digits, as sipauthserve writes them: `Authentication-Info: cnonce=<Kc>`.
    pub fn hex(&self) -> String {
        format!("{:016X}", u64::from_be_bytes(self.0))
    }
}

/// The key a SIM and its operator share: 128 bits. Called K in UMTS.
#[derive(Clone, PartialEq, Eq, Zeroize, ZeroizeOnDrop)]
pub struct Ki([u8; 16]);

impl Ki {
    /// Shape:  32 hex digits of either case, and nothing else.
    /// Errors: [`KeyError`], which says what is in the way and never what was typed.
    pub fn parse(hex: &str) -> Result<Ki, KeyError> {
        let mut ki = Ki([0; 16]);
        match read_hex(hex, &mut ki.0) {
            Ok(()) => Ok(ki),
            Err(flaw) => Err(KeyError { what: "a Ki", flaw }),
        }
    }
}

/// Milenage's operator constant, already encrypted with the Ki it belongs to: 128 bits (TS 35.206 §4.1).
#[derive(Clone, PartialEq, Eq, Zeroize, ZeroizeOnDrop)]
pub struct Opc([u8; 16]);

impl Opc {
    /// Shape and errors as [`Ki::parse`].
    pub fn parse(hex: &str) -> Result<Opc, KeyError> {
        let mut opc = Opc([0; 16]);
        match read_hex(hex, &mut opc.0) {
            Ok(()) => Ok(opc),
            Err(flaw) => Err(KeyError { what: "an OPc", flaw }),
        }
    }

    /// The OPc of one SIM, from the OP that all SIMs of its operator share. OP itself is not kept.
    ///
    /// Shape and errors as [`Ki::parse`].
    /// Source: TS 35.206 §4.1.
    pub fn derive(op_hex: &str, ki: &Ki) -> Result<Opc, KeyError> {
        let mut op = Zeroizing::new([0; 16]);
        read_hex(op_hex, &mut op).map_err(|flaw| KeyError { what: "an OP", flaw })?;
        Ok(Opc(*aka::opc(&ki.0, &op)))
    }
}

macro_rules! redacted {
    ($($secret:ident),*) => {$(
        impl fmt::Debug for $secret {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(concat!(stringify!($secret), "(…)"))
            }
        }
    )*};
}
redacted!(Ki, Opc, Sres, Kc);

/// Why a text is no key. Says what is wrong and where, for the operator, and shows nothing of the text: it may be a key
/// with one slip in it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KeyError {
    what: &'static str,
    flaw: Flaw,
}

/// Positions are counted in characters from 1, as an editor does.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Flaw {
    Prefix,
    Blank { position: usize },
    NotHex { position: usize },
    Length { found: usize },
}

impl fmt::Display for KeyError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let what = self.what;
        match self.flaw {
            Flaw::Prefix => write!(f, "{what} has 32 hex digits and no prefix; this one begins with 0x"),
            Flaw::Blank { position } => {
                write!(f, "{what} has 32 hex digits and no blanks; this one has a blank at character {position}")
            }
            Flaw::NotHex { position } => {
                write!(f, "{what} has 32 hex digits; character {position} of this one is not one")
            }
            Flaw::Length { found: 0 } => write!(f, "{what} has 32 hex digits; this one is empty"),
            Flaw::Length { found } => write!(f, "{what} has 32 hex digits; this one has {found}"),
        }
    }
}

impl std::error::Error for KeyError {}

/// Reads 32 hex digits in place, so that no copy of a key is left behind. On a flaw `out` may be half written.
fn read_hex(text: &str, out: &mut [u8; 16]) -> Result<(), Flaw> {
    // The two traps come first: a key pasted with them has also a wrong length or a wrong character, and to be told
    // only that would send the operator off counting digits.
    if text.trim_start().get(..2).is_some_and(|head| head.eq_ignore_ascii_case("0x")) {
        return Err(Flaw::Prefix);
    }
    if let Some(before) = text.chars().position(char::is_whitespace) {
        return Err(Flaw::Blank { position: before + 1 });
    }
    if let Some(before) = text.chars().position(|char| !char.is_ascii_hexdigit()) {
        return Err(Flaw::NotHex { position: before + 1 });
    }
    if text.len() != 2 * out.len() {
        return Err(Flaw::Length { found: text.len() });
    }
    for (byte, digits) in out.iter_mut().zip(text.as_bytes().chunks_exact(2)) {
        *byte = digits.iter().filter_map(|digit| nibble(*digit)).fold(0, |high, low| high << 4 | low);
    }
    Ok(())
}

fn nibble(digit: u8) -> Option<u8> {
    match digit {
        b'0'..=b'9' => Some(digit - b'0'),
        b'a'..=b'f' => Some(digit - b'a' + 10),
        b'A'..=b'F' => Some(digit - b'A' + 10),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const KI: &str = "00112233445566778899aabbccddeeff";

    #[test]
    fn a_key_has_32_hex_digits_of_either_case() {
        let ki = Ki::parse(KI).unwrap();
        assert_eq!(ki.0, [0, 17, 34, 51, 68, 85, 102, 119, 136, 153, 170, 187, 204, 221, 238, 255]);
        assert_eq!(Ki::parse(&KI.to_uppercase()).unwrap(), ki);
        assert_eq!(Opc::parse(KI).unwrap().0, ki.0);
    }

    #[test]
    fn a_wrong_key_is_told_what_is_wrong() {
        let told = |text: &str| Ki::parse(text).unwrap_err().to_string();
        assert_eq!(told(&KI[..30]), "a Ki has 32 hex digits; this one has 30");
        assert_eq!(told(&format!("{KI}0")), "a Ki has 32 hex digits; this one has 33");
        assert_eq!(told(""), "a Ki has 32 hex digits; this one is empty");
        for prefixed in ["0x00112233445566778899aabbccddeeff", "0X00", " 0x00", "0x"] {
            assert_eq!(told(prefixed), "a Ki has 32 hex digits and no prefix; this one begins with 0x");
        }
        let blank = |at| format!("a Ki has 32 hex digits and no blanks; this one has a blank at character {at}");
        assert_eq!(told("00 11 22 33 44 55 66 77 88 99 aa bb cc dd ee ff"), blank(3));
        assert_eq!(told(&format!("{KI}\n")), blank(33));
        assert_eq!(told(&format!("\u{a0}{KI}")), blank(1));
        assert_eq!(told(&KI.replace('5', "o")), "a Ki has 32 hex digits; character 11 of this one is not one");
        assert_eq!(told("éé"), "a Ki has 32 hex digits; character 1 of this one is not one");

        let ki = Ki::parse(KI).unwrap();
        assert_eq!(Opc::parse("00").unwrap_err().to_string(), "an OPc has 32 hex digits; this one has 2");
        assert_eq!(Opc::derive("00", &ki).unwrap_err().to_string(), "an OP has 32 hex digits; this one has 2");
    }

    #[test]
    fn an_sres_is_compared_as_a_number() {
        let check = |own: [u8; 4], response: &str, expected: bool| {
            assert_eq!(Sres(own).verify(response.as_bytes()), expected, "{own:?} {response:?}");
        };
        let own = [0x00, 0x0A, 0x28, 0x8E];
        for same in ["000a288e", "000A288E", "000A288e", "00a288e", "a288e"] {
            check(own, same, true);
        }
        for other in ["000a288f", "100a288e", "a288e0", "a288", ""] {
            check(own, other, false);
        }
        for no_number in ["0000a288e", "0xa288e", "+a288e", "-a288e", " a288e", "a288e ", "a288e\0", "a288g", "é288e"]
        {
            check(own, no_number, false);
        }
        check([0; 4], "0", true);
        check([0; 4], "", false);
        check([0xFF; 4], "ffffffff", true);
        check([0xFF; 4], "fffffffff", false);
    }

    #[test]
    fn sres_is_written_in_lower_case_and_kc_in_upper() {
        assert_eq!(Sres([0x00, 0x0A, 0x28, 0x8E]).hex(), "000a288e");
        assert_eq!(Sres([0x00, 0x0A, 0x28, 0x8E]).bytes(), &[0x00, 0x0A, 0x28, 0x8E]);
        assert_eq!(Kc([0x03, 0x97, 0xA9, 0x2E, 0xF9, 0x68, 0x30, 0x00]).hex(), "0397A92EF9683000");
    }

    #[test]
    fn without_a_key_there_is_no_vector() {
        assert!(Auth::None.vector([0; 16]).is_none());
        assert_eq!(Auth::None.algorithm(), "none");
    }

    #[test]
    fn every_secret_is_wiped_when_dropped() {
        fn wiped<T: ZeroizeOnDrop>() {}
        wiped::<Ki>();
        wiped::<Opc>();
        wiped::<Sres>();
        wiped::<Kc>();
        wiped::<aka::Umts>();
    }

    proptest! {
        /// Whatever the key, what `Debug` shows is the same text: so nothing of the key can be in it.
        #[test]
        fn a_secret_cannot_be_printed(ki: [u8; 16], opc: [u8; 16], rand: [u8; 16]) {
            let (ki, opc) = (Ki(ki), Opc(opc));
            prop_assert_eq!(format!("{ki:?} {ki:#?} {opc:?} {opc:#?}"), "Ki(…) Ki(…) Opc(…) Opc(…)");
            let vector_shown = format!("Vector {{ rand: {rand:?}, sres: Sres(…), kc: Kc(…) }}");
            for (auth, shown) in [
                (Auth::Comp128v1(ki.clone()), "Comp128v1(Ki(…))"),
                (Auth::Comp128v2(ki.clone()), "Comp128v2(Ki(…))"),
                (Auth::Comp128v3(ki.clone()), "Comp128v3(Ki(…))"),
                (Auth::Milenage { ki: ki.clone(), opc }, "Milenage { ki: Ki(…), opc: Opc(…) }"),
                (Auth::Xor(ki), "Xor(Ki(…))"),
            ] {
                prop_assert_eq!(format!("{auth:?}"), shown);
                prop_assert_eq!(format!("{:?}", auth.vector(rand).unwrap()), &vector_shown[..]);
            }
        }

        /// A refused key is not repeated in the refusal, neither in words nor in `Debug`.
        #[test]
        fn a_refused_key_is_not_repeated(key in "[0-9a-f]{20,31}[0-9a-fg ]?") {
            if let Err(error) = Ki::parse(&key) {
                let told = format!("{error} {error:?} {error:#?}");
                for piece in key.as_bytes().windows(4) {
                    prop_assert!(!told.contains(std::str::from_utf8(piece).unwrap()), "{}", told);
                }
            }
        }

        #[test]
        fn only_its_own_number_verifies(own: u32, other: u32) {
            let sres = Sres(own.to_be_bytes());
            let shortest = format!("{own:x}");
            prop_assert!(sres.verify(shortest.as_bytes()) && sres.verify(sres.hex().as_bytes()));
            prop_assert_eq!(sres.verify(format!("{other:08X}").as_bytes()), own == other);
        }
    }
}
