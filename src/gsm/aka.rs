//! Milenage and the XOR of test SIMs, and how a GSM answer is made of a UMTS one.
//!
//! Knows: keys and RAND in, RES, CK and IK out, and from those the SIM's twelve bytes. Does not know: AUTN and sequence
//! numbers, because a base station of OpenBTS asks for neither. Reads and writes nothing.
//!
//! The crate `milenage` has the AES and the constants; it does not wipe what it held, so its struct lives for one call
//! and everything kept is in the zeroized types here. Copies on the stack of that call stay until they are
//! overwritten.
//! Read first: TS 35.206 §4.1 (the functions), TS 33.102 §6.8.1.2 (the conversions), TS 55.205 §4 (Milenage for GSM).

use milenage::Milenage;
use zeroize::{Zeroize, ZeroizeOnDrop, Zeroizing};

/// What a USIM computes of a RAND, as far as GSM needs it. Deliberately without `Debug`.
///
/// Shape:  `res` is XRES* of TS 33.102: "XRES* = XRES || 0...0 if XRES is shorter than 16 octets". Milenage's has 8.
#[derive(Zeroize, ZeroizeOnDrop)]
pub struct Umts {
    pub res: [u8; 16],
    pub ck: [u8; 16],
    pub ik: [u8; 16],
}

impl Umts {
    /// The GSM answer, by the conversion functions c2 and c3.
    ///
    /// Shape:  SRES (4 bytes), then Kc (8 bytes), as TS 51.011 §9.2.16 orders them.
    /// Errors: none.
    /// Source: TS 33.102 §6.8.1.2.
    pub fn gsm(&self) -> Zeroizing<[u8; 12]> {
        let mut out = Zeroizing::new([0; 12]);
        let (sres, kc) = out.split_at_mut(4);
        // c2: the four words of XRES*, XORed. With Milenage's 8 bytes of RES the last two are zero, and what remains is
        // "Recommended SRES Derivation Function #1" of TS 55.205 §4: RES[0]..RES[31] XOR RES[32]..RES[63].
        fold(sres, &self.res);
        // c3: "Kc = CK1 xor CK2 xor IK1 xor IK2"; TS 55.205 §4 has the same.
        fold(kc, &self.ck);
        fold(kc, &self.ik);
        out
    }
}

/// f2, f3 and f4 of Milenage.
///
/// Shape:  RES is the first 8 bytes of `res`, the others are zero.
/// Errors: none.
/// Source: TS 35.206 §4.1.
/// Tests:  tests/gsm_vectors.rs (TS 35.207, 35.208 and 55.205), tests/oracle_auc.rs
pub fn milenage(ki: &[u8; 16], opc: &[u8; 16], rand: &[u8; 16]) -> Umts {
    let (res, ck, ik, _) = Milenage::new_with_opc(*ki, *opc).f2345(rand);
    let mut out = Umts { res: [0; 16], ck, ik };
    out.res[..8].copy_from_slice(&res);
    out
}

/// OPc, which takes OP's place once the key is known: OP encrypted with Ki, XOR OP.
///
/// Errors: none.
/// Source: TS 35.206 §4.1.
pub fn opc(ki: &[u8; 16], op: &[u8; 16]) -> Zeroizing<[u8; 16]> {
    Zeroizing::new(*Milenage::new_with_op(*ki, *op).opc())
}

/// The XOR of test USIMs. It hides nothing: whoever sees RAND and RES knows Ki.
///
/// A test SIM of TS 51.010-1 Annex 4 also XORs, but takes SRES and Kc as pieces of the result instead of folding it.
/// Only this one is offered; osmo-auc-gen's XOR is the same.
///
/// Shape:  RES has 16 bytes; CK and IK are the same bytes, rotated left by one and by two.
/// Errors: none.
/// Source: TS 34.108 §8.1.2.1.
/// Tests:  tests/gsm_vectors.rs, tests/oracle_auc.rs
pub fn xor(ki: &[u8; 16], rand: &[u8; 16]) -> Umts {
    let mut out = Umts { res: *ki, ck: [0; 16], ik: [0; 16] };
    fold(&mut out.res, rand);
    out.ck = out.res;
    out.ck.rotate_left(1);
    out.ik = out.res;
    out.ik.rotate_left(2);
    out
}

/// XORs `data` into `out`, piece by piece of its width.
fn fold(out: &mut [u8], data: &[u8]) {
    for piece in data.chunks_exact(out.len()) {
        for (a, b) in out.iter_mut().zip(piece) {
            *a ^= b;
        }
    }
}
