//! What an answer to a text means, and how long to wait after it. Pure.
//!
//! Knows: what base stations, IMS phones, SIP phones and trunks make of a phone's answer; the causes of TS 24.011 and TS 23.040 and what a
//! centre does about each. Does not know: queues.
//! Source: TS 23.040 §9.2.3.15 (TP-Status), §9.2.3.22 (TP-Failure-Cause), §10.3 (memory); TS 24.011 §8.2.5.4 (RP-Cause); wire.md 4.2, 11.
//! Tests:  here, as tables.

use std::time::Duration;

use super::record::Cause;
use crate::gsm::form::TextForm;
use crate::gsm::report::{Failure, Status};
use crate::gsm::rpdu;
use crate::seam::Rng;

/// What was said to a text.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Said {
    /// The answer's code; 0: there was none.
    pub code: u16,
    pub rpdu: Option<SaidByPhone>,
}

/// The phone's own RPDU, where it came through.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum SaidByPhone {
    Ack,
    Error { cause: rpdu::Cause, failure: Option<Failure> },
}

/// What became of an attempt.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Verdict {
    Delivered,
    /// It waits for the phone's return, and is tried again seldom.
    Absent(&'static str),
    /// It waits until the phone says that it has room.
    MemoryFull,
    /// Tried again after a pause that grows.
    Temporary(&'static str),
    /// Never tried again.
    Permanent {
        why: &'static str,
        status: Status,
    },
}

/// What a final answer says.
pub fn verdict(form: TextForm, said: Said) -> Verdict {
    match said.rpdu {
        Some(SaidByPhone::Ack) => return Verdict::Delivered,
        Some(SaidByPhone::Error { cause, failure }) => return of_phone(cause, failure),
        None => {}
    }
    match said.code {
        200..300 => Verdict::Delivered,
        0 | 408 | 410 | 480 | 604 => Verdict::Absent("its base station cannot reach it"),
        // "400 = RP-ERROR of unknown cause -> retry later, do not bounce at once" (wire.md 10).
        400 if form == TextForm::OpenBts => Verdict::Temporary("the phone did not take it"),
        // Somebody will put the login right.
        401 | 407 if is_last(form) => Verdict::Temporary("it takes texts with a login only, and not with ours"),
        486 | 491 | 600 => Verdict::Temporary("the phone is busy"),
        // A base station that knows no phone of this name is asked again, after the phone has been looked for again; what a SIP phone
        // or a trunk says of itself is believed.
        404 if !is_last(form) => Verdict::Absent("its base station does not know it"),
        404 | 484 => Verdict::Permanent { why: "nobody has this number there", status: Status::NOT_OBTAINABLE },
        405 | 415 | 488 | 501 | 606 if is_last(form) => {
            Verdict::Permanent { why: "it takes no such texts", status: Status::INCOMPATIBLE_DESTINATION }
        }
        413 | 513 if is_last(form) => {
            Verdict::Permanent { why: "it is too long for it", status: Status::INCOMPATIBLE_DESTINATION }
        }
        403 | 603 if is_last(form) => Verdict::Permanent { why: "it was refused", status: Status::CONNECTION_REJECTED },
        _ => Verdict::Temporary("its base station refuses it"),
    }
}

/// Whoever answers is the end itself, and no base station on behalf of a phone.
fn is_last(form: TextForm) -> bool {
    form == TextForm::Plain
}

fn of_phone(cause: rpdu::Cause, failure: Option<Failure>) -> Verdict {
    use rpdu::Cause as C;
    if failure.is_some_and(Failure::is_memory_full) {
        return Verdict::MemoryFull;
    }
    match failure {
        // It will say the same tomorrow.
        Some(
            Failure::TYPE_0_NOT_SUPPORTED
            | Failure::CANNOT_REPLACE
            | Failure::CODING_NOT_SUPPORTED
            | Failure::TPDU_NOT_SUPPORTED
            | Failure::DOWNLOAD_ERROR,
        ) => {
            return Verdict::Permanent {
                why: "the phone does not take such texts",
                status: Status::INCOMPATIBLE_DESTINATION,
            };
        }
        Some(Failure::TOOLKIT_BUSY | Failure::ERROR_IN_PHONE) => {
            return Verdict::Temporary("the phone did not take it");
        }
        _ => {}
    }
    match cause {
        C::MEMORY_EXCEEDED => Verdict::MemoryFull,
        // The causes of a network, which YateBTS and gateways put into an RP-ERROR of their own.
        C::DESTINATION_OUT_OF_ORDER => Verdict::Absent("it is out of order"),
        C::UNASSIGNED_NUMBER | C::UNKNOWN_SUBSCRIBER | C::UNIDENTIFIED_SUBSCRIBER => {
            Verdict::Permanent { why: "nobody has this number there", status: Status::NOT_OBTAINABLE }
        }
        C::OPERATOR_BARRING | C::CALL_BARRED | C::TRANSFER_REJECTED | C::NOT_SUBSCRIBED => {
            Verdict::Permanent { why: "it was refused", status: Status::CONNECTION_REJECTED }
        }
        C::INVALID_MESSAGE | C::INVALID_MANDATORY_INFORMATION | C::UNKNOWN_MESSAGE_TYPE | C::UNKNOWN_ELEMENT => {
            Verdict::Permanent { why: "the phone does not read it", status: Status::REMOTE_PROCEDURE_ERROR }
        }
        _ => Verdict::Temporary("the phone did not take it"),
    }
}

/// What a report says while it is still tried (TS 23.040 §9.2.3.15: "Temporary error, SC still trying to transfer SM").
pub fn still_trying(cause: Cause) -> Status {
    match cause {
        Cause::New => Status::CONGESTION,
        Cause::Absent => Status::NO_RESPONSE,
        Cause::MemoryFull => Status::ERROR_IN_SME,
        Cause::Refused { code: 486 | 600, .. } => Status::BUSY,
        Cause::Refused { .. } => Status::SERVICE_REJECTED,
    }
}

/// Pauses after a failed attempt: the first one, and the longest; each is twice the one before, and jittered.
const ABSENT_PAUSE: (Duration, Duration) = (Duration::from_secs(600), Duration::from_secs(6 * 3600));
const MEMORY_PAUSE: (Duration, Duration) = (Duration::from_secs(1800), Duration::from_secs(6 * 3600));
const TEMPORARY_PAUSE: (Duration, Duration) = (Duration::from_secs(30), Duration::from_secs(3600));
/// Somebody waits for what a program answers, and asking it costs no channel.
const PROGRAM_PAUSE: (Duration, Duration) = (Duration::from_secs(4), Duration::from_secs(3600));
const MAIL_PAUSE: (Duration, Duration) = (Duration::from_secs(30), Duration::from_secs(2 * 3600));
const RELAY_PAUSE: (Duration, Duration) = (Duration::from_secs(30), Duration::from_secs(30 * 60));

/// How long after the attempt that failed, the `failures`-th in a row counted from 0.
pub fn pause(cause: Cause, failures: u32, rng: &mut Rng) -> Duration {
    let ladder = match cause {
        Cause::Absent => ABSENT_PAUSE,
        Cause::MemoryFull => MEMORY_PAUSE,
        Cause::New | Cause::Refused { .. } => TEMPORARY_PAUSE,
    };
    step(ladder, failures, rng)
}

/// The same for a program that did not answer.
pub fn program_pause(failures: u32, rng: &mut Rng) -> Duration {
    step(PROGRAM_PAUSE, failures, rng)
}

/// The same for a mail that was not taken: a list that lets nobody in at the first time wants minutes, a full mailbox hours.
pub fn mail_pause(failures: u32, rng: &mut Rng) -> Duration {
    step(MAIL_PAUSE, failures, rng)
}

/// And where nobody could be reached.
pub fn relay_pause(failures: u32, rng: &mut Rng) -> Duration {
    step(RELAY_PAUSE, failures, rng)
}

fn step((first, longest): (Duration, Duration), failures: u32, rng: &mut Rng) -> Duration {
    let doubled = first.saturating_mul(1 << failures.min(16)).min(longest);
    let millis = u64::try_from(doubled.as_millis()).unwrap_or(u64::MAX);
    Duration::from_millis(millis * 3 / 4 + rng.below(millis / 2 + 1))
}

/// How much longer it takes from then until the night is over; nothing, where it is day.
///
/// Shape:  `night` in minutes of the local day, from and to; it may go over midnight.
/// Units:  `at_ms` milliseconds since 1970; `zone_quarters` quarters of an hour.
pub fn until_day(at_ms: u64, zone_quarters: i8, night: Option<(u16, u16)>) -> Duration {
    const DAY: i64 = 24 * 60;
    let Some((from, to)) = night else { return Duration::ZERO };
    let local = i64::try_from(at_ms / 60_000).unwrap_or_default() + i64::from(zone_quarters) * 15;
    let into_night = (local - i64::from(from)).rem_euclid(DAY);
    let length = (i64::from(to) - i64::from(from)).rem_euclid(DAY);
    if into_night >= length {
        return Duration::ZERO;
    }
    Duration::from_secs(u64::try_from(length - into_night).unwrap_or_default() * 60 - at_ms % 60_000 / 1000)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug, PartialEq)]
    enum Kind {
        Delivered,
        Absent,
        Memory,
        Temporary,
        Permanent(u8),
    }

    fn kind(verdict: Verdict) -> Kind {
        match verdict {
            Verdict::Delivered => Kind::Delivered,
            Verdict::Absent(_) => Kind::Absent,
            Verdict::MemoryFull => Kind::Memory,
            Verdict::Temporary(_) => Kind::Temporary,
            Verdict::Permanent { status, .. } => Kind::Permanent(status.0),
        }
    }

    #[test]
    fn each_code_means_one_thing_to_each_form() {
        use Kind::{Absent, Delivered, Permanent, Temporary};
        let of = |form, code| kind(verdict(form, Said { code, rpdu: None }));
        for (code, station, end) in [
            (0, Absent, Absent),
            (200, Delivered, Delivered),
            (202, Delivered, Delivered),
            (403, Temporary, Permanent(0x42)),
            (404, Absent, Permanent(0x43)),
            (405, Temporary, Permanent(0x41)),
            (408, Absent, Absent),
            (415, Temporary, Permanent(0x41)),
            (480, Absent, Absent),
            (486, Temporary, Temporary),
            (488, Temporary, Permanent(0x41)),
            (500, Temporary, Temporary),
            (503, Temporary, Temporary),
            (513, Temporary, Permanent(0x41)),
            (603, Temporary, Permanent(0x42)),
        ] {
            assert_eq!((of(TextForm::OpenBts, code), of(TextForm::Plain, code)), (station, end), "{code}");
        }
        assert_eq!(of(TextForm::OpenBts, 400), Temporary);
    }

    #[test]
    fn each_cause_of_an_rp_error_means_one_thing() {
        use Kind::{Absent, Memory, Permanent, Temporary};
        let of = |cause, failure: Option<u8>| {
            let rpdu = SaidByPhone::Error { cause: rpdu::Cause(cause), failure: failure.map(Failure) };
            // Whatever the code: a switch may put an RP-ERROR into a 200.
            kind(verdict(TextForm::Yate, Said { code: 200, rpdu: Some(rpdu) }))
        };
        for (cause, meant) in [
            (1, Permanent(0x43)),
            (8, Permanent(0x42)),
            (10, Permanent(0x42)),
            (21, Permanent(0x42)),
            (22, Memory),
            (27, Absent),
            (28, Permanent(0x43)),
            (30, Permanent(0x43)),
            (38, Temporary),
            (41, Temporary),
            (42, Temporary),
            (47, Temporary),
            (50, Permanent(0x42)),
            (95, Permanent(0x40)),
            (96, Permanent(0x40)),
            (97, Permanent(0x40)),
            (98, Temporary),
            (99, Permanent(0x40)),
            (111, Temporary),
            (127, Temporary),
        ] {
            assert_eq!(of(cause, None), meant, "{cause}");
        }
        for (failure, meant) in [
            (0x81, Permanent(0x41)),
            (0x82, Permanent(0x41)),
            (0x90, Permanent(0x41)),
            (0xB0, Permanent(0x41)),
            (0xD0, Memory),
            (0xD2, Temporary),
            (0xD3, Memory),
            (0xD4, Temporary),
            (0xD5, Permanent(0x41)),
            (0xFF, Temporary),
        ] {
            assert_eq!(of(111, Some(failure)), meant, "{failure:#x}");
        }
        let ack = Said { code: 200, rpdu: Some(SaidByPhone::Ack) };
        assert_eq!(verdict(TextForm::Ims, ack), Verdict::Delivered);
    }

    #[test]
    fn what_is_still_tried_is_reported_as_still_tried() {
        let refused = |code| Cause::Refused { code, cause: 0 };
        for cause in [Cause::New, Cause::Absent, Cause::MemoryFull, refused(486), refused(400), refused(0)] {
            assert_eq!(still_trying(cause).outcome(), crate::gsm::report::Outcome::Trying);
        }
    }

    #[test]
    fn a_pause_grows_to_its_longest_and_is_never_the_same_twice_in_a_row() {
        let mut rng = Rng::from_seed([7; 32]);
        for (cause, first_s, longest_s) in [
            (Cause::Absent, 600, 21_600),
            (Cause::MemoryFull, 1_800, 21_600),
            (Cause::Refused { code: 400, cause: 0 }, 30, 3_600),
        ] {
            for failures in 0..40 {
                let around = (first_s << failures.min(20)).min(longest_s) as f64;
                let pause = pause(cause, failures, &mut rng).as_secs_f64();
                assert!((around * 0.75..=around * 1.25).contains(&pause), "{cause:?} {failures} {pause}");
            }
            assert_ne!(pause(cause, 3, &mut rng), pause(cause, 3, &mut rng));
        }
    }

    #[test]
    fn a_night_may_go_over_midnight_and_is_the_local_one() {
        const HOUR_MS: u64 = 3_600_000;
        let over_midnight = Some((22 * 60, 6 * 60));
        let left = |hour: u64, zone| until_day(hour * HOUR_MS, zone, over_midnight).as_secs();
        assert_eq!([21, 22, 0, 5, 6, 12].map(|hour| left(hour, 0) / 3600), [0, 8, 6, 1, 0, 0]);
        // Three hours east it is later.
        assert_eq!([19, 20, 2, 3].map(|hour| left(hour, 12) / 3600), [8, 7, 1, 0]);
        assert_eq!(left(0, -4) / 3600, 7);
        let short = Some((60, 120));
        assert_eq!(until_day(HOUR_MS + 90_000, 0, short), Duration::from_secs(3600 - 90));
        assert_eq!(until_day(2 * HOUR_MS, 0, short), Duration::ZERO);
        assert_eq!(until_day(HOUR_MS, 0, None), Duration::ZERO);
    }
}
