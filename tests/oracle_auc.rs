//! A second opinion: `osmo-auc-gen` of libosmocore computes the same vectors for random keys.
//!
//! A missing peer fails the test. Its seed is fixed, so a difference shows up again.

use std::io::Write;
use std::process::Command;

use encamp::gsm::aka;
use encamp::gsm::auc::{Auth, Ki, Opc};
use rand_chacha::ChaCha8Rng;
use rand_core::{Rng, SeedableRng};

const ROUNDS: u64 = 48;

#[test]
fn osmo_auc_gen_computes_the_same_vectors() {
    let mut rng = ChaCha8Rng::seed_from_u64(0x05_11_20_26);
    let mut comparisons = 0;
    for round in 0..ROUNDS {
        // The first two are the ends of the range: all zeros, all ones.
        let mut draw = || match round {
            0 => [0; 16],
            1 => [0xFF; 16],
            _ => {
                let mut bytes = [0; 16];
                rng.fill_bytes(&mut bytes);
                bytes
            }
        };
        let (ki_bytes, rand, constant) = (draw(), draw(), draw());
        let (ki_hex, rand_hex, constant_hex) = (hex(&ki_bytes), hex(&rand), hex(&constant));
        let ki = Ki::parse(&ki_hex).unwrap();

        for (name, auth) in [
            ("COMP128v1", Auth::Comp128v1(ki.clone())),
            ("COMP128v2", Auth::Comp128v2(ki.clone())),
            ("COMP128v3", Auth::Comp128v3(ki.clone())),
            ("XOR", Auth::Xor(ki.clone())),
        ] {
            check(&auth, rand, &Peer::ask(&["-2", "-a", name, "-k", &ki_hex, "-r", &rand_hex]));
            comparisons += 1;
        }

        // The peer takes no OPc in 2G mode ("Only UMTS has OPC"). In 3G mode it prints the UMTS values and beside them
        // SRES and Kc, which are TS 55.205's with derivation function #1: RES, CK and IK are compared as well, so that
        // the two steps are each judged alone.
        let opc = Opc::parse(&constant_hex).unwrap();
        let peer = Peer::ask(&["-3", "-a", "MILENAGE", "-k", &ki_hex, "-o", &constant_hex, "-r", &rand_hex]);
        let umts = aka::milenage(&ki_bytes, &constant, &rand);
        assert_eq!(hex(&umts.res[..8]), peer.value("RES"), "{}", peer.asked);
        assert_eq!(hex(&umts.ck), peer.value("CK"), "{}", peer.asked);
        assert_eq!(hex(&umts.ik), peer.value("IK"), "{}", peer.asked);
        check(&Auth::Milenage { ki: ki.clone(), opc }, rand, &peer);
        comparisons += 1;

        let opc = Opc::derive(&constant_hex, &ki).unwrap();
        let peer = Peer::ask(&["-3", "-a", "MILENAGE", "-k", &ki_hex, "-O", &constant_hex, "-r", &rand_hex]);
        check(&Auth::Milenage { ki, opc }, rand, &peer);
        comparisons += 1;
    }
    // Written past the test harness, which would swallow it when all is well.
    writeln!(std::io::stdout(), "\npeer osmo-auc-gen: {comparisons} comparisons").unwrap();
}

fn check(auth: &Auth, rand: [u8; 16], peer: &Peer) {
    let vector = auth.vector(rand).unwrap();
    assert_eq!(hex(&rand), peer.value("RAND"), "{}", peer.asked);
    assert_eq!(vector.sres.hex(), peer.value("SRES"), "{}", peer.asked);
    assert_eq!(vector.kc.hex().to_lowercase(), peer.value("Kc"), "{}", peer.asked);
}

struct Peer {
    asked: String,
    said: String,
}

impl Peer {
    fn ask(arguments: &[&str]) -> Peer {
        let asked = format!("osmo-auc-gen {}", arguments.join(" "));
        let output = Command::new("osmo-auc-gen").args(arguments).output().unwrap_or_else(|error| {
            panic!("osmo-auc-gen does not start ({error}); it is in the Debian package libosmocore-utils")
        });
        let said = String::from_utf8_lossy(&output.stdout).into_owned();
        assert!(
            output.status.success(),
            "{asked}: {}\n{said}{}",
            output.status,
            String::from_utf8_lossy(&output.stderr)
        );
        Peer { asked, said }
    }

    /// What stands behind `name:`, in lower-case hex digits.
    fn value(&self, name: &str) -> &str {
        let value = self.said.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'));
        value.unwrap_or_else(|| panic!("{}: no {name} in\n{}", self.asked, self.said)).trim()
    }
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}
