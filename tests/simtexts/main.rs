//! Texts through bad days: boxes that lose power at every step, disks that are slow, full or fail, datagrams that are lost, doubled, late
//! and out of order, clocks that are wrong, phones of four forms that move, are switched off and run out of memory. Each promise
//! is checked at the moment that it is made.
//!
//! `ENCAMP_SIM_SEEDS=3000` runs more seeds, `ENCAMP_SIM_SEED=n` replays one with its trace. Read first: `world.rs`, then `checks.rs`.

mod boxes;
mod checks;
mod phone;
mod wire;
mod world;

use std::collections::BTreeMap;

use checks::Violation;
use world::{Breaker, Story, World};

const SEEDS: u64 = 200;
const BREAKER_SEEDS: u64 = 60;
const TRACE_LINES: usize = 200;
/// Situations that the run is there to meet; it is no proof of anything that it has not met.
const MET: &[&str] = &[
    "power cut before the sync of a text",
    "power cut between sync and yes",
    "power cut before the sync of an end",
    "power cut while a MESSAGE is open",
    "kill -9",
    "a store fails",
    "a full disk",
    "a clock that jumps",
    "a clock that wakes up",
    "a yes to a phone is lost",
    "a yes of a phone is lost",
    "a text is lost on its way to the box",
    "a text is lost on its way to the phone",
    "an alert is lost",
    "a copy is known",
    "a phone repeats its text",
    "a second copy",
    "a late answer",
    "an attempt is marked",
    "a phone shows a text twice",
    "a phone is absent",
    "a phone detaches",
    "a phone's memory is full",
    "a centre waits for memory",
    "SMMA",
    "a return is noticed",
    "a return is told by another box",
    "a centre elsewhere waits for who returns",
    "a text expires",
    "a single shot fails",
    "a report of success",
    "a report of failure",
    "a report is read",
    "words of failure",
    "the operator drops a text",
    "a text is refused",
    "a long text in one piece",
    "a base station has no place left",
];

#[allow(clippy::disallowed_methods, reason = "a test is told its seeds by its environment")]
fn number_of(variable: &str) -> Option<u64> {
    std::env::var(variable).ok().and_then(|text| text.parse().ok())
}

/// Runs one seed again and tells how it came to this.
fn explain(seed: u64, violation: &Violation) -> String {
    let mut world = World::new(seed, None, true);
    let _ = world.run();
    let trace = Vec::from(world.trace.take().unwrap_or_default());
    let trace = trace[trace.len().saturating_sub(TRACE_LINES)..].join("\n");
    format!(
        "{trace}\nseed {seed}, {:.3} s: {}: {}\nreplay: ENCAMP_SIM_SEED={seed} cargo test --release --no-default-features --test simtexts",
        violation.at_us as f64 / 1e6,
        violation.promise,
        violation.what
    )
}

#[test]
fn every_promise_holds_whatever_the_weather() {
    if let Some(seed) = number_of("ENCAMP_SIM_SEED") {
        let mut world = World::new(seed, None, true);
        let violation = world.run();
        println!("{}", Vec::from(world.trace.take().unwrap_or_default()).join("\n"));
        assert_eq!(violation, None, "seed {seed}");
        return;
    }
    let mut met: BTreeMap<&'static str, u64> = BTreeMap::new();
    let mut checked: BTreeMap<&'static str, u64> = BTreeMap::new();
    let mut ended: BTreeMap<&'static str, u64> = BTreeMap::new();
    let first = number_of("ENCAMP_SIM_FIRST").unwrap_or(0);
    let mut failures: BTreeMap<&'static str, Vec<u64>> = BTreeMap::new();
    let keep_on = number_of("ENCAMP_SIM_ALL").is_some();
    for seed in first..first + number_of("ENCAMP_SIM_SEEDS").unwrap_or(SEEDS) {
        let mut world = World::new(seed, None, false);
        if let Some(violation) = world.run() {
            if !keep_on {
                panic!("{}", explain(seed, &violation));
            }
            println!("seed {seed}: {}: {}", violation.promise, violation.what);
            failures.entry(violation.promise).or_default().push(seed);
        }
        for (all, one) in
            [(&mut met, world.met), (&mut checked, world.ledger.checked), (&mut ended, world.ledger.ended)]
        {
            one.into_iter().for_each(|(what, count)| *all.entry(what).or_default() += count);
        }
    }
    for (what, count) in met.iter().chain(&ended) {
        println!("{count:>9} {what}");
    }
    for (promise, count) in &checked {
        println!("checked {count:>8} times: {promise}");
    }
    assert!(failures.is_empty(), "{failures:?}");
    if number_of("ENCAMP_SIM_SEEDS").is_none() {
        let missing: Vec<_> = MET.iter().filter(|what| !met.contains_key(*what)).collect();
        assert!(missing.is_empty(), "the run no longer meets {missing:?}");
    }
}

/// Every step of a text's life: an input of a box, a sync, something that leaves it.
#[test]
fn power_may_be_lost_at_every_step() {
    let story = Story { from: 0, to: 1, parts: 1, report: true, absent: false, full: false };
    let stories = [
        // Its centre is box 0, its phone comes from there to box 2.
        story,
        Story { from: 4, to: 2, absent: true, report: false, ..story },
        // From a YateBTS to an IMS phone whose memory is full, and back with a report.
        Story { from: 4, to: 5, full: true, ..story },
        // From an IMS phone; its centre is box 1.
        Story { from: 5, to: 3, ..story },
        // A long one to a SIP phone.
        Story { from: 0, to: 6, parts: 2, ..story },
    ];
    let mut cuts = 0;
    for (n, story) in stories.into_iter().enumerate() {
        for which in 0..boxes::BOXES {
            let (steps, violation) = World::new(n as u64, None, false).run_one(story, which, None);
            assert_eq!(violation, None, "{story:?}");
            for step in 1..=steps {
                let mut world = World::new(n as u64, None, false);
                let (_, violation) = world.run_one(story, which, Some(step));
                if let Some(violation) = violation {
                    let mut world = World::new(n as u64, None, true);
                    let _ = world.run_one(story, which, Some(step));
                    let trace = Vec::from(world.trace.take().unwrap_or_default()).join("\n");
                    panic!("{trace}\n{story:?}, box {which} cut at step {step}: {violation:?}");
                }
                cuts += 1;
            }
        }
    }
    println!("{cuts} power cuts");
    assert!(cuts > 500, "the stories are no longer told: {cuts}");
}

#[test]
fn nobody_falls_over_what_a_phone_says() {
    for seed in 0..30 {
        let mut world = World::new(seed, None, false);
        world.fuzz = true;
        assert_eq!(world.run(), None);
        assert!(world.ledger.waiting() < 1_000);
    }
}

#[test]
fn equal_seeds_give_equal_runs() {
    for seed in 0..4 {
        let [mut one, mut other] = [World::new(seed, None, false), World::new(seed, None, false)];
        assert_eq!(one.run(), other.run());
        assert_eq!(one.digest, other.digest, "seed {seed}");
    }
}

/// The breaker is caught, by the check that is there for it.
fn is_caught(breaker: Breaker, promise: &str) {
    let mut others = Vec::new();
    for seed in 0..BREAKER_SEEDS {
        match World::new(seed, Some(breaker), false).run() {
            Some(violation) if violation.promise == promise => {
                println!("{breaker:?}: caught by seed {seed}, after {}: {}", others.len(), violation.what);
                return;
            }
            Some(violation) => others.push((seed, violation.promise, violation.what)),
            None => {}
        }
    }
    panic!("{breaker:?} is not caught by {promise:?} within {BREAKER_SEEDS} seeds; {others:?}");
}

#[test]
fn a_store_that_ignores_sync_is_caught() {
    is_caught(Breaker::SyncIgnored, checks::DURABLE);
}

#[test]
fn a_store_that_loses_what_it_synced_is_caught() {
    is_caught(Breaker::SyncedLost, checks::ONE_END);
}

#[test]
fn a_store_that_forgets_digests_is_caught() {
    is_caught(Breaker::DigestsLost, checks::ACCEPTED_ONCE);
}

#[test]
fn texts_out_of_order_are_caught() {
    is_caught(Breaker::LastFirst, checks::ORDER);
}

#[test]
fn a_net_that_doubles_texts_is_caught() {
    is_caught(Breaker::NetDoubles, checks::MARKED);
}

#[test]
fn a_text_with_a_new_timestamp_is_caught() {
    is_caught(Breaker::NewTimestamp, checks::IDENTITY);
}

#[test]
fn a_duplicate_that_nobody_announced_is_caught() {
    is_caught(Breaker::MarksUnsaid, checks::MARKED);
}

#[test]
fn a_report_that_lies_is_caught() {
    is_caught(Breaker::ReportLies, checks::TRUTH);
}

#[test]
fn a_base_station_that_lies_is_caught() {
    is_caught(Breaker::YesWithoutPhone, checks::TRUTH);
}

#[test]
fn two_messages_at_once_are_caught() {
    is_caught(Breaker::TwoAtOnce, checks::ONE_AT_A_TIME);
}

#[test]
fn too_many_at_one_base_station_are_caught() {
    is_caught(Breaker::MorePlaces, checks::PLACES_KEPT);
}

#[test]
fn alerts_that_are_lost_are_caught() {
    is_caught(Breaker::AlertsLost, checks::WAKES);
}

#[test]
fn a_box_that_hears_no_deadline_is_caught() {
    is_caught(Breaker::TimersStop, checks::ALL_END);
}

#[test]
fn a_line_that_is_written_twice_is_caught() {
    is_caught(Breaker::RecordsTwice, checks::RECORDS);
}
