//! The known vectors: what a SIM answers, for every row of tests/data/auth.
//!
//! | file | rows from |
//! |---|---|
//! | comp128.csv, xor.csv | other implementations; no standard has any |
//! | ts55_205_sets.csv | the test sets of TS 55.205: Milenage for GSM |
//! | ts35_207_208_sets.csv | TS 35.207 and 35.208: Milenage; f1, f1*, f5 and f5* are not ours and not looked at |

use std::collections::HashMap;

use encamp::gsm::aka;
use encamp::gsm::auc::{Auth, Ki, Opc};

type Row = HashMap<String, String>;

/// A row's Ki and RAND answered with `auth` must give its SRES and Kc.
fn check(auth: &Auth, row: &Row, rand: &str, sres: &str, kc: &str) {
    let rand = bytes(&row[rand]);
    let vector = auth.vector(rand).unwrap();
    assert_eq!(vector.rand, rand);
    assert_eq!(vector.sres.hex(), row[sres].to_lowercase(), "SRES of {row:?}");
    assert_eq!(vector.kc.hex(), row[kc].to_uppercase(), "Kc of {row:?}");
    assert_eq!(vector.sres.bytes(), &bytes(&row[sres]));
    assert!(vector.sres.verify(row[sres].as_bytes()));
}

#[test]
fn comp128_answers_as_other_implementations_do() {
    let rows = rows(include_str!("data/auth/comp128.csv"));
    let mut seen = HashMap::new();
    for row in &rows {
        let ki = Ki::parse(&row["ki"]).unwrap();
        let auth = match &row["algo"][..] {
            "comp128v1" => Auth::Comp128v1(ki),
            "comp128v2" => Auth::Comp128v2(ki),
            "comp128v3" => Auth::Comp128v3(ki),
            other => panic!("{other}"),
        };
        assert_eq!(auth.algorithm(), row["algo"]);
        check(&auth, row, "rand", "sres", "kc");
        *seen.entry(auth.algorithm()).or_insert(0) += 1;
    }
    assert_eq!(seen, HashMap::from([("comp128v1", 66), ("comp128v2", 65), ("comp128v3", 65)]));
}

#[test]
fn xor_answers_as_other_implementations_do() {
    let rows = rows(include_str!("data/auth/xor.csv"));
    for row in &rows {
        let auth = Auth::Xor(Ki::parse(&row["ki"]).unwrap());
        assert_eq!(auth.algorithm(), row["algo"]);
        check(&auth, row, "rand", "sres", "kc");
    }
    assert_eq!(rows.len(), 40);
}

#[test]
fn milenage_answers_as_in_ts_55_205() {
    let rows = rows(include_str!("data/auth/ts55_205_sets.csv"));
    for row in &rows {
        let ki = Ki::parse(&row["ki"]).unwrap();
        let opc = Opc::parse(&row["opc"]).unwrap();
        assert_eq!(Opc::derive(&row["op"], &ki).unwrap(), opc, "OPc of {row:?}");
        let auth = Auth::Milenage { ki, opc };
        assert_eq!(auth.algorithm(), "milenage");
        check(&auth, row, "rand", "sres#1", "kc");

        let umts = aka::milenage(&bytes(&row["ki"]), &bytes(&row["opc"]), &bytes(&row["rand"]));
        assert_eq!(umts.res[..8], bytes::<8>(&row["res(f2)"]), "f2 of {row:?}");
        assert_eq!(umts.res[8..], [0; 8]);
        assert_eq!(umts.ck, bytes(&row["ck(f3)"]), "f3 of {row:?}");
        assert_eq!(umts.ik, bytes(&row["ik(f4)"]), "f4 of {row:?}");
    }
    assert_eq!(rows.len(), 19);
}

#[test]
fn milenage_computes_f2_f3_and_f4_of_ts_35_207_and_35_208() {
    let (mut opc_seen, mut f2, mut f3, mut f4) = (0, 0, 0, 0);
    for row in &rows(include_str!("data/auth/ts35_207_208_sets.csv")) {
        if row["OP"].is_empty() {
            continue; // a row about AUTN or AUTS, without a constant to compute anything from
        }
        let ki = Ki::parse(&row["K"]).unwrap();
        let expected = Opc::parse(&row["ExpectedOPc"]).unwrap();
        assert_eq!(Opc::derive(&row["OP"], &ki).unwrap(), expected, "OPc of {row:?}");
        opc_seen += 1;
        let umts = aka::milenage(&bytes(&row["K"]), &bytes(&row["ExpectedOPc"]), &bytes(&row["RAND"]));
        if !row["ExpectedRES"].is_empty() {
            assert_eq!(umts.res[..8], bytes::<8>(&row["ExpectedRES"]), "f2 of {row:?}");
            f2 += 1;
        }
        if !row["ExpectedCK"].is_empty() {
            assert_eq!(umts.ck, bytes(&row["ExpectedCK"]), "f3 of {row:?}");
            f3 += 1;
        }
        if !row["ExpectedIK"].is_empty() {
            assert_eq!(umts.ik, bytes(&row["ExpectedIK"]), "f4 of {row:?}");
            f4 += 1;
        }
    }
    assert_eq!((opc_seen, f2, f3, f4), (18, 6, 6, 6));
}

fn rows(file: &str) -> Vec<Row> {
    csv::Reader::from_reader(file.as_bytes()).deserialize().map(Result::unwrap).collect()
}

fn bytes<const N: usize>(hex: &str) -> [u8; N] {
    assert_eq!(hex.len(), 2 * N, "{hex}");
    std::array::from_fn(|place| u8::from_str_radix(&hex[2 * place..2 * place + 2], 16).unwrap())
}
