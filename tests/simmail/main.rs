//! Mail through bad days: boxes that lose power at every step, full disks, clocks that jump, phones that are away, a relay that
//! is out of reach for a week, servers that hear no answer and come again, a line between two boxes that is cut. Each promise is
//! checked at the moment that it is made, and in the end nothing is left.
//!
//! `ENCAMP_SIM_SEEDS=3000` runs more seeds, `ENCAMP_SIM_SEED=n` replays one with its trace, `ENCAMP_SIM_ALL=1` goes on after a failure.
//! Read first: `world.rs`, then `post.rs` and `checks.rs`.

mod boxes;
mod checks;
mod phone;
mod post;
mod wire;
mod world;

use std::collections::BTreeMap;

use checks::Violation;
use world::{Breaker, Story, World};

const SEEDS: u64 = 24;
const BREAKER_SEEDS: u64 = 40;
const TRACE_LINES: usize = 200;
/// Situations that the run is there to meet; it is no proof of anything that it has not met.
const MET: &[&str] = &[
    "a power cut",
    "a full disk",
    "a clock that jumps",
    "the relay is out of reach",
    "the relay's yes is lost",
    "a mail is taken twice",
    "a yes to a mail is lost",
    "a yes of a phone is lost",
    "a copy of a mail is known",
    "a mail is taken",
    "a mail is shown",
    "a long mail is shown",
    "a mail is refused for now",
    "a phone is asked",
    "a phone refuses a text",
    "a phone repeats its text",
    "a phone shows a text twice",
    "a DSN of failure",
    "a DSN of success",
    "a notification comes",
    "a notification is ignored",
    "a mail comes back",
    "a report is shown",
    "words of failure",
    "an answer leaves",
    "somebody answers a phone",
    "a text from the other box",
    "a text at home",
    "a box takes a mail of the other one",
    "a box cannot reach the other one",
    "a yes between two boxes is lost",
    "the pool changes",
    "the relay changes",
    "a route goes or comes",
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
        "{trace}\nseed {seed}, {:.3} s: {}: {}\nreplay: ENCAMP_SIM_SEED={seed} cargo test --release --no-default-features --test simmail",
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
    let mut cuts = 0;
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
        cuts += world.cuts;
        for (all, one) in [(&mut met, world.met), (&mut checked, world.ledger.checked)] {
            one.into_iter().for_each(|(what, count)| *all.entry(what).or_default() += count);
        }
    }
    for (what, count) in &met {
        println!("{count:>9} {what}");
    }
    for (promise, count) in &checked {
        println!("checked {count:>8} times: {promise}");
    }
    println!("{cuts} power cuts");
    assert!(failures.is_empty(), "{failures:?}");
    if number_of("ENCAMP_SIM_SEEDS").is_none() {
        let missing: Vec<_> = MET.iter().filter(|what| !met.contains_key(*what)).collect();
        assert!(missing.is_empty(), "the run no longer meets {missing:?}");
    }
}

/// Every step of a mail's life: an input of a box, a sync, something that leaves it.
#[test]
fn power_may_be_lost_at_every_step() {
    let mut cuts = 0;
    for story in [Story::MailIn, Story::TextOut, Story::MailWithSuccess, Story::Bounce, Story::BoxToBox] {
        for which in 0..boxes::BOXES {
            if which == 1 && story != Story::BoxToBox {
                continue;
            }
            let world = || {
                let mut world = World::new(0, None, false);
                world.plan = boxes::Plan::default();
                (0..boxes::BOXES).for_each(|which| {
                    world.boxes[which] = boxes::Site::new(which, 0, boxes::Lie::None, boxes::Plan::default());
                });
                world
            };
            let (steps, violation) = world().run_story(story, which, None);
            assert_eq!(violation, None, "{story:?}");
            for step in 1..=steps {
                let (_, violation) = world().run_story(story, which, Some(step));
                if let Some(violation) = violation {
                    let mut world = world();
                    world.trace = Some(Default::default());
                    let _ = world.run_story(story, which, Some(step));
                    let trace = Vec::from(world.trace.take().unwrap_or_default()).join("\n");
                    panic!("{trace}\n{story:?}, box {which} cut at step {step}: {violation:?}");
                }
                cuts += 1;
            }
            println!("{story:?}, box {which}: {steps} steps");
        }
    }
    println!("{cuts} power cuts");
    assert!(cuts > 200, "the stories are no longer told: {cuts}");
}

#[test]
fn equal_seeds_give_equal_runs() {
    for seed in 0..3 {
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
    is_caught(Breaker::DigestsLost, checks::ONCE);
}

#[test]
fn parts_out_of_order_are_caught() {
    is_caught(Breaker::LastFirst, checks::WHOLE);
}

#[test]
fn writers_who_are_told_nothing_are_caught() {
    is_caught(Breaker::LettersLost, checks::DRAINED);
}

#[test]
fn a_text_that_is_shown_twice_is_caught() {
    is_caught(Breaker::ShownTwice, checks::ONCE);
}

#[test]
fn a_base_station_that_lies_is_caught() {
    is_caught(Breaker::YesWithoutPhone, checks::TRUTH);
}

#[test]
fn another_message_id_in_each_attempt_is_caught() {
    is_caught(Breaker::NewMessageId, checks::MESSAGE_ID);
}

#[test]
fn an_answer_to_a_stranger_is_caught() {
    is_caught(Breaker::WrongThread, checks::THREADS);
}

#[test]
fn a_relay_that_forgets_is_caught() {
    is_caught(Breaker::RelayForgets, checks::TEXT_END);
}

#[test]
fn a_notification_that_lies_is_caught() {
    is_caught(Breaker::ReportLies, checks::TRUTH);
}

#[test]
fn what_tells_of_what_tells_is_caught() {
    is_caught(Breaker::ReportOfReport, checks::NOBODY);
}

#[test]
fn a_notification_to_nobody_is_caught() {
    is_caught(Breaker::NullForgotten, checks::NOBODY);
}

#[test]
fn a_box_that_hears_no_deadline_is_caught() {
    is_caught(Breaker::TimersStop, checks::DRAINED);
}

#[test]
fn a_mail_that_was_taken_and_leaves_again_is_caught() {
    is_caught(Breaker::YesUnheard, checks::COPIES);
}

#[test]
fn mail_of_somebody_nobody_was_asked_about_is_caught() {
    is_caught(Breaker::AskForgotten, checks::ASKED);
}
