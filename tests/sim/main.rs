//! The simulation: many boxes, one seed, and every promise checked at the moment it is made.
//!
//! `ENCAMP_SIM_SEEDS=3000` runs more seeds, `ENCAMP_SIM_SEED=n` replays one with its trace. Read first: `world.rs`, then `checks.rs`.

mod checks;
mod coverage;
mod disk;
mod limits;
mod plan;
mod wire;
mod world;

use std::collections::BTreeMap;

use checks::Violation;
use coverage::{Coverage, State};
use plan::Breaker;
use world::World;

const SEEDS: u64 = 300;
const BREAKER_SEEDS: u64 = 200;
/// Pairs of state and event that the run is there to meet; it is no proof of anything that it has not met.
const MET: [(State, &str); 20] = [
    (State::Rest, "lookup of another node"),
    (State::Rest, "write of another node"),
    (State::Challenged, "REGISTER with an answer"),
    (State::Challenged, "copy of a REGISTER"),
    (State::Challenged, "kill -9"),
    (State::Asking, "a record told"),
    (State::Asking, "timeout"),
    (State::Asking, "REGISTER"),
    (State::Writing, "copy of a REGISTER"),
    (State::Writing, "REGISTER with an answer"),
    (State::Writing, "yes, but older"),
    (State::Writing, "no of a replica"),
    (State::Writing, "synced"),
    (State::Writing, "sync failed"),
    (State::Writing, "timeout"),
    (State::Writing, "kill -9"),
    (State::Writing, "power cut"),
    (State::Answered, "REGISTER"),
    (State::Answered, "timeout"),
    (State::Answered, "power cut"),
];
const TRACE_LINES: usize = 120;

#[allow(clippy::disallowed_methods, reason = "a test is told its seeds by its environment")]
fn number_of(variable: &str) -> Option<u64> {
    std::env::var(variable).ok().and_then(|text| text.parse().ok())
}

/// Runs one seed again and tells how it came to this.
fn explain(seed: u64, breaker: Option<Breaker>, violation: &Violation, lines: usize) -> String {
    let mut world = World::new(seed, breaker, true);
    let _ = world.run();
    let trace = world.trace.take().unwrap_or_default();
    let tail = trace[trace.len().saturating_sub(lines)..].join("\n");
    format!(
        "{tail}\nseed {seed}: {}: {}\nreplay: ENCAMP_SIM_SEED={seed} cargo test --release --no-default-features --test sim",
        violation.promise, violation.what
    )
}

#[test]
fn every_promise_holds_whatever_the_weather() {
    if let Some(seed) = number_of("ENCAMP_SIM_SEED") {
        let mut world = World::new(seed, None, true);
        let violation = world.run();
        println!("{}", world.trace.take().unwrap_or_default().join("\n"));
        assert_eq!(violation, None, "seed {seed}");
        return;
    }
    let mut coverage = Coverage::default();
    let mut checked: BTreeMap<&'static str, u64> = BTreeMap::new();
    let first = number_of("ENCAMP_SIM_FIRST").unwrap_or(0);
    for seed in first..first + number_of("ENCAMP_SIM_SEEDS").unwrap_or(SEEDS) {
        let mut world = World::new(seed, None, false);
        if let Some(violation) = world.run() {
            panic!("{}", explain(seed, None, &violation, TRACE_LINES));
        }
        coverage.add(world.coverage);
        for (promise, count) in world.checks.checked {
            *checked.entry(promise).or_default() += count;
        }
    }
    println!("{coverage}");
    if number_of("ENCAMP_SIM_SEEDS").is_none() {
        let missing: Vec<_> = MET.iter().filter(|pair| !coverage.pairs.contains_key(pair)).collect();
        assert!(missing.is_empty(), "the run no longer meets {missing:?}");
    }
    for (promise, count) in &checked {
        println!("checked {count:>8} times: {promise}");
    }
}

#[test]
fn equal_seeds_give_equal_runs() {
    for seed in 0..10 {
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
                println!(
                    "{breaker:?}: caught by seed {seed}, after {others} seeds that another check stopped: {}",
                    violation.what
                );
                return;
            }
            Some(_) => others += 1,
            None => {}
        }
    }
    panic!(
        "{breaker:?} is not caught by {promise:?} within {BREAKER_SEEDS} seeds; {others} were stopped by another check"
    );
}

#[test]
fn a_store_that_ignores_sync_is_caught() {
    is_caught(Breaker::SyncIgnored, checks::W_COPIES);
}

#[test]
fn a_no_from_one_is_caught() {
    is_caught(Breaker::NoFromOne, checks::NO_FROM_TOO_FEW);
}

#[test]
fn a_stale_read_is_caught() {
    is_caught(Breaker::StaleRead, checks::NOT_FROM_BEHIND);
}

#[test]
fn a_replayed_nonce_is_caught() {
    is_caught(Breaker::ReplayedNonce, checks::ONE_NONCE);
}

#[test]
fn merge_knows_no_limit() {
    for seed in 0..2_000 {
        if let Err(what) = limits::run(seed, limits::real_merge) {
            panic!("seed {seed}: {what}");
        }
    }
}

#[test]
fn a_limit_inside_merge_is_caught() {
    let caught =
        (0..BREAKER_SEEDS).find_map(|seed| limits::run(seed, limits::merge_that_cuts).err().map(|what| (seed, what)));
    let (seed, _) = caught.expect("a merge that cuts to the limit is not caught");
    println!("a limit inside merge: caught by seed {seed}");
}
