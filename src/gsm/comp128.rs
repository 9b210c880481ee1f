//! COMP128, versions 1, 2 and 3: the A3/A8 that most SIMs of small GSM networks carry.
//!
//! Knows: Ki and RAND in, the SIM's twelve bytes out. Does not know: whose key it is, or what becomes of the answer.
//! Reads and writes nothing. Not meant to withstand an attacker on the same processor: which cells of the tables are
//! read depends on the key.
//!
//! No standard describes COMP128; TS 43.020 Annex C leaves A3 and A8 to the operator. The tables below are the
//! published ones (version 1: Briceno, Goldberg and Wagner, 1998; versions 2 and 3: Jos, 2013), and what they are
//! worth is decided by the tests: vectors in tests/gsm_vectors.rs, an independent implementation in
//! tests/oracle_auc.rs.

use zeroize::Zeroizing;

/// What a SIM of version 1 answers. Who can ask such a SIM some 150 000 times knows its Ki: for old SIMs only.
///
/// Shape:  SRES (4 bytes), then Kc (8 bytes, the last ten bits zero), as TS 51.011 §9.2.16 orders them.
/// Errors: none; every Ki and RAND has an answer.
/// Tests:  tests/gsm_vectors.rs, tests/oracle_auc.rs
pub fn v1(ki: &[u8; 16], rand: &[u8; 16]) -> Zeroizing<[u8; 12]> {
    let mut half = *rand;
    for _ in 0..7 {
        half = spread(compress(ki, &half)).to_be_bytes();
    }
    let last = compress(ki, &half);
    // Of the 128 bits the first 32 are SRES and the last 54 begin Kc; the ten bits missing to 64 are the zeros.
    answer((last >> 96) as u32, (last as u64) << 10)
}

/// What a SIM of version 2 answers: that of version 3, with the last ten bits of Kc set to zero.
///
/// Shape, errors, tests: as [`v1`].
pub fn v2(ki: &[u8; 16], rand: &[u8; 16]) -> Zeroizing<[u8; 12]> {
    let (sres, kc) = halves_v3(ki, rand);
    answer(sres, kc & !0x3FF)
}

/// What a SIM of version 3 answers.
///
/// Shape:  SRES (4 bytes), then Kc (8 bytes, all 64 bits in use).
/// Errors, tests: as [`v1`].
pub fn v3(ki: &[u8; 16], rand: &[u8; 16]) -> Zeroizing<[u8; 12]> {
    let (sres, kc) = halves_v3(ki, rand);
    answer(sres, kc)
}

fn answer(sres: u32, kc: u64) -> Zeroizing<[u8; 12]> {
    let mut out = Zeroizing::new([0; 12]);
    out[..4].copy_from_slice(&sres.to_be_bytes());
    out[4..].copy_from_slice(&kc.to_be_bytes());
    out
}

/// Version 1's butterfly: 32 cells, 5 levels, each with a table half as long and one bit narrower than the one before.
/// What is left are 32 nibbles, returned as one number, the first nibble on top.
fn compress(ki: &[u8; 16], half: &[u8; 16]) -> u128 {
    let mut cells = Zeroizing::new([0u8; 32]);
    cells[..16].copy_from_slice(ki);
    cells[16..].copy_from_slice(half);
    let levels: [&[u8]; 5] = [&LEVEL_0, &LEVEL_1, &LEVEL_2, &LEVEL_3, &LEVEL_4];
    for (level, table) in levels.into_iter().enumerate() {
        let span = 16 >> level;
        for block in cells.chunks_exact_mut(2 * span) {
            let (left, right) = block.split_at_mut(span);
            for (a, b) in left.iter_mut().zip(right) {
                let (x, y) = (usize::from(*a), usize::from(*b));
                *a = table[(x + 2 * y) % table.len()];
                *b = table[(2 * x + y) % table.len()];
            }
        }
    }
    cells.iter().fold(0, |bits, nibble| bits << 4 | u128::from(*nibble))
}

/// Version 1's permutation between two rounds: bit n of the result is bit 17 n of the input, counted from the top.
fn spread(bits: u128) -> u128 {
    (0..128).fold(0, |out, place| out << 1 | bits >> (127 - 17 * place % 128) & 1)
}

/// SRES and the full Kc of versions 2 and 3, which count bytes and bits from the far end: big-endian numbers here.
fn halves_v3(ki: &[u8; 16], rand: &[u8; 16]) -> (u32, u64) {
    let mut value = u128::from_be_bytes(*rand);
    let key = Zeroizing::new(u128::from_be_bytes(*ki) ^ value);
    for _ in 0..8 {
        value = shuffle(*key, value);
    }
    ((value >> 96) as u32, value as u64)
}

/// One round of versions 2 and 3: five levels that mix value and key through [`S`] and [`R`], then every 19th bit of
/// the 256 is taken until there are 128.
fn shuffle(key: u128, value: u128) -> u128 {
    let mut low = Zeroizing::new(value.to_le_bytes());
    let mut high = Zeroizing::new(key.to_le_bytes());
    for level in 0..5 {
        let run = 1 << level;
        let mut woven = Zeroizing::new([0u8; 32]);
        for place in 0..16 {
            let fresh = S[usize::from(R[usize::from(high[place])] ^ low[place])];
            let mixed = S[usize::from(R[usize::from(fresh)] ^ high[place])];
            // Runs of this length are taken from the two in turn.
            let to = 2 * (place - place % run) + place % run;
            woven[to] = fresh;
            woven[to + run] = mixed;
        }
        low.copy_from_slice(&woven[..16]);
        high.copy_from_slice(&woven[16..]);
    }
    let (low, high) = (u128::from_le_bytes(*low), u128::from_le_bytes(*high));
    (0..128).fold(0, |out, place| {
        let source = 19 * (place + 1) % 256;
        let bit = if source < 128 { low >> source } else { high >> (source - 128) };
        out | (bit & 1) << place
    })
}

// The tables are data, and easiest compared with other prints of them as one run of hex digits.

static LEVEL_0: [u8; 512] = unhex(
    "66b1baa2029c704b3719080cfbc1f6bc6dd597352a4fbf73e9f2a4dfd1946ca1fc25f42f40d306edb9a08b714c8a3b46431a0d9d\
     3fb3dd1ed624a645987ccf74f7c229544701310e5f23a915604ed7e1b6f31c5cc976044af880110b9284f530955a782757e66ae8\
     af137ebeca8d89b0fa1b6528dbe33a1433b262d88c1620793d67cb481d6e55d4b4cc96b70f42acc438c59e00642d990790dea3a7\
     3c87d2e7aea526f9e022dce5d9d0f144cebd7dffef36a8597b7a499175ea8f6381c8c05268aa88eb5d51cdadec5e69342ee4c605\
     39fe619b8e85c7abbb3241b57f6b93e2b8da83214d561f2c583eee12182b9a17509f866f0972035b1082530ac3f0fd77b166a2ba\
     9c024b7019370c08c1fbbcf6d56d35974f2a73bff2e9dfa494d1a16c25fc2ff4d340ed06a0b9718b8a4c463b1a439d0db33f1edd\
     24d645a67c9874cfc2f7542901470e31235f15a94e60e1d7f3b65c1c76c94a0480f80b11849230f55a952778e657e86a13afbe7e\
     8dcab0891bfa2865e3db143ab233d862168c7920673d48cb6e1dd455ccb4b796420fc4acc538009e2d640799de90a7a3873ce7d2\
     a5aef92622e0e5dcd0d944f1bdceff7d36ef59a87a7b9149ea75638fc88152c0aa68eb88515dadcd5eec3469e42e05c6fe399b61\
     858eabc732bbb5416b7fe293dab82183564d2c1f3e5812ee2b18179a9f506f8672095b0382100a53f0c377fd",
);
static LEVEL_1: [u8; 256] = unhex(
    "130b50722b01455e27127f756103552b1b7c46532f473f0a2f594f040e3b0b05236b67441556245b557e20326d5e7806354f1c2d\
     635f292258445d376e7d69145a504c60173c594079380e4a6508134e4c42682e6f32200327003a195c16123339417774166d0756\
     3b5d3e6e4e634d430c71576266055821263817084b2d0d4b5f3f1c317b7814702c1e0f626a02671d526b2a7c181e29106c647528\
     49280772527324700c6664545c3048610936374a717b111a353a0409457a15762a3c1b49767d220f417354403e514601186f7953\
     6851317f30691f0a065b57251036747e1f260d00486a4d3d1a432e1d60253d3465112c6c473442392133195a02777a23",
);
static LEVEL_2: [u8; 128] = unhex(
    "34322c061531293b27331920332f342b250428223d0c1c043a17080f0c160912370a212332012b03390d3e0e072a2c3b3e391b06\
     081f1a3629162d14270310383002151c242a3c212212000b180a113d1d0e2d1a372e0b11362e09181e3c20001426021e3a230110\
     382817300d13131b1f352f263f0f3105253519243f1d0507",
);
static LEVEL_3: [u8; 64] = unhex(
    "01051d0619011217111300091819061f1c14181e041b030d0f100e120403080914000c1a15081c021d020f070b160e0a11150c1e\
     1a1b101f0b070d170a051613",
);
static LEVEL_4: [u8; 32] = unhex("0f0c0a04010e0b0705000e0701020d080a03040906000302050608090b0d0f0c");

static S: [u8; 256] = unhex(
    "c5eb3c9762600364f8762a75acd3b5cb3d7e9c5795e03784ba3feeff55539821a0b8d2db9f0bb4c282d49305d75c1b2e71bb3419\
     b94fdd30461f650fc3c932de89e9e56a7ab7b2b190cfeab625fee3e736d18541ca45eddcbd927844157d261e029b35c4aeb033f6\
     a74c6e145279677038ad31d9fc0072e47b0c5da1fde8f0af4380169e59124d6dbe113e0499a33b918a074acd0aa2502d686f96d6\
     9a1cbfa9d558c1c6c8f527a47c544e01bcaa1756e28d2006837fc728871039475be1a8f2ce61a62c0e5aecefe6f4df6c667794fb\
     1dd80809f9d018695e22405f734886cc2bf7f3da2f3a496bf1b37442248f51fa8b130d8e8c81c063ab9d88294b23a51a",
);
static R: [u8; 256] = unhex(
    "aa2a5f8d6d1e47591a93e7cdefd47c81d84f0fb9990efba200f1acc52b0ac2eb0614482d8f68a177298826bd87195d12e0abfcc3\
     3f133aa5173785fed690dcb29c346ee161b78c273558dba710c63ede4c8baf5e338673164301f9d90305e88a1f3874a34680ea84\
     e5b8f40d2249e99ab383d7ec8edf1b39f66cd308fd5542f5c14ebe041107967f98d525ba02f32ea944653caed09eb045eebf5a53\
     a67d4d3b155c3197a8630932927175e441e6285236ede3661c246b182c7ecec93d72a4cfb51d5b40ddff309bc06fb4d2b6f7cb94\
     d162ad0b4b7bfa76202ff0ca4ab16450c421f8569d89788254cc7a51f2bcc895e2daa0bb6a2357696091c79f0c796770",
);

const fn unhex<const N: usize>(digits: &str) -> [u8; N] {
    const fn nibble(digit: u8) -> u8 {
        match digit {
            b'0'..=b'9' => digit - b'0',
            b'a'..=b'f' => digit - b'a' + 10,
            _ => panic!("a table has lower-case hex digits"),
        }
    }
    let digits = digits.as_bytes();
    assert!(digits.len() == 2 * N, "a table has two digits for each byte");
    let mut out = [0; N];
    let mut place = 0;
    while place < N {
        out[place] = nibble(digits[2 * place]) << 4 | nibble(digits[2 * place + 1]);
        place += 1;
    }
    out
}
