//! The simulation of calls: base stations as they are, phones as they behave, and a box that may lose power in any of their moments.
//!
//! `ENCAMP_SIM_SEEDS=3000` runs more seeds, `ENCAMP_SIM_SEED=n` replays one with its trace. Read first: `world.rs`, `cell.rs`, then
//! `checks.rs`.

/// A line of the trace, where somebody reads it.
macro_rules! tell {
    ($world:expr, $($text:tt)*) => {
        if let Some(trace) = &mut $world.trace {
            trace.push(format!("{:>10.4} {}", $world.now_us as f64 / 1e6, format_args!($($text)*)));
        }
    };
}

mod cell;
mod checks;
#[path = "../sim/disk.rs"]
#[allow(dead_code, reason = "the other simulation uses all of it")]
mod disk;
mod phone;
mod plan;
#[path = "../sim/wire.rs"]
#[allow(dead_code, reason = "the other simulation uses all of it")]
mod register_wire;
mod says;
mod texts;
mod world;

use std::collections::BTreeMap;

use checks::Violation;
use plan::Breaker;
use world::World;

const SEEDS: u64 = 300;
const BREAKER_SEEDS: u64 = 100;
/// What the run is there to meet; it is no proof of anything that it has not met.
const MET: [&str; 31] = [
    "glare",
    "late ACK",
    "BYE before ACK",
    "CANCEL",
    "INVITE again",
    "BYE of the called side",
    "paging fallback",
    "no paging response",
    "rejected",
    "nobody picks up",
    "busy at the caller",
    "404 at the caller",
    "403 at the caller",
    "480 at the caller",
    "487 at the caller",
    "crash in setup",
    "crash when up",
    "calls resumed",
    "503 after a restart",
    "duplicate",
    "two call each other",
    "call still up",
    "480 No_Paging_Response at the caller",
    "200 on a full disk",
    "copy of a text's MESSAGE",
    "copy of a text at a cell",
    "phone repeats a text",
    "text to an absent phone",
    "absent-return",
    "text shown twice",
    "RP-ERROR",
];
const TRACE_LINES: usize = 150;

#[allow(clippy::disallowed_methods, reason = "a test is told its seeds by its environment")]
fn number_of(variable: &str) -> Option<u64> {
    std::env::var(variable).ok().and_then(|text| text.parse().ok())
}

/// Runs one seed again and tells how it came to this.
fn explain(seed: u64, violation: &Violation) -> String {
    let mut world = World::new(seed, None, true);
    let _ = world.run();
    let trace = world.trace.take().unwrap_or_default();
    let tail = trace[trace.len().saturating_sub(TRACE_LINES)..].join("\n");
    format!(
        "{tail}\nseed {seed}: {}: {}\nreplay: ENCAMP_SIM_SEED={seed} cargo test --release --no-default-features --test simcalls",
        violation.promise, violation.what
    )
}

#[test]
fn every_promise_to_those_who_call_holds_whatever_the_weather() {
    if let Some(seed) = number_of("ENCAMP_SIM_SEED") {
        let mut world = World::new(seed, None, true);
        let violation = world.run();
        println!("{}", world.trace.take().unwrap_or_default().join("\n"));
        assert_eq!(violation, None, "seed {seed}");
        return;
    }
    let (mut met, mut checked) = (BTreeMap::<&str, u64>::new(), BTreeMap::<&str, u64>::new());
    let first = number_of("ENCAMP_SIM_FIRST").unwrap_or(0);
    let keep_going = number_of("ENCAMP_SIM_ALL").is_some();
    let mut broken: BTreeMap<&str, Vec<u64>> = BTreeMap::new();
    for seed in first..first + number_of("ENCAMP_SIM_SEEDS").unwrap_or(SEEDS) {
        let mut world = World::new(seed, None, false);
        if let Some(violation) = world.run() {
            if keep_going {
                println!("seed {seed}: {}: {}", violation.promise, violation.what);
                broken.entry(violation.promise).or_default().push(seed);
                continue;
            }
            panic!("{}", explain(seed, &violation));
        }
        world.met.into_iter().for_each(|(what, count)| *met.entry(what).or_default() += count);
        world.checked.into_iter().for_each(|(what, count)| *checked.entry(what).or_default() += count);
    }
    for (what, count) in &met {
        println!("met {count:>8} times: {what}");
    }
    for (promise, count) in &checked {
        println!("checked {count:>8} times: {promise}");
    }
    assert!(broken.is_empty(), "{broken:?}");
    if number_of("ENCAMP_SIM_SEEDS").is_none() {
        let missing: Vec<_> = MET.iter().filter(|what| !met.contains_key(*what)).collect();
        assert!(missing.is_empty(), "the run no longer meets {missing:?}");
    }
}

#[test]
fn equal_seeds_give_equal_runs() {
    for seed in 0..5 {
        let [mut one, mut other] = [World::new(seed, None, false), World::new(seed, None, false)];
        assert_eq!(one.run(), other.run());
        assert_eq!(one.digest, other.digest, "seed {seed}");
    }
}

/// The breaker is caught, by the check that is there for it.
fn is_caught(breaker: Breaker, promise: &str) {
    let mut others = 0;
    for seed in 0..BREAKER_SEEDS {
        match World::new(seed, Some(breaker), false).run() {
            Some(violation) if violation.promise == promise => {
                println!("{breaker:?}: caught by seed {seed}, after {others} others: {}", violation.what);
                return;
            }
            Some(_) => others += 1,
            None => {}
        }
    }
    panic!("{breaker:?} is not caught by {promise:?} within {BREAKER_SEEDS} seeds; {others} were stopped by another");
}

#[test]
fn a_200_before_the_record_is_caught() {
    is_caught(Breaker::SyncIgnored, checks::DURABLE);
}

#[test]
fn lost_records_are_caught() {
    is_caught(Breaker::RecordsLost, checks::BYE_REACHES);
}

#[test]
fn a_forgotten_cancel_is_caught() {
    is_caught(Breaker::NeverSends("CANCEL"), checks::RING_ENDS);
}

#[test]
fn a_forgotten_bye_is_caught() {
    is_caught(Breaker::NeverSends("BYE"), checks::BYE_REACHES);
}

#[test]
fn a_second_call_of_one_invite_is_caught() {
    is_caught(Breaker::CopiesDiffer, checks::ONE_CALL);
}

#[test]
fn a_changed_session_description_is_caught() {
    is_caught(Breaker::SdpChanged, checks::SDP);
}

#[test]
fn a_lost_phrase_is_caught() {
    is_caught(Breaker::PhraseLost, checks::CAUSE);
}

#[test]
fn lost_texts_are_caught() {
    is_caught(Breaker::TextsLost, texts::ARRIVES);
}

#[test]
fn a_text_that_comes_twice_is_caught() {
    is_caught(Breaker::AnswersUnheard, texts::ONCE);
}

#[test]
fn a_phone_that_is_back_and_gets_nothing_is_caught() {
    is_caught(Breaker::NeverSends("MESSAGE"), texts::BACK);
}

#[test]
fn a_202_before_the_text_is_caught() {
    is_caught(Breaker::SyncIgnored, texts::KEPT);
}

#[test]
fn words_after_the_bye_are_caught() {
    is_caught(Breaker::TalksOn, checks::AFTER_BYE);
}
