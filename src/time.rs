//! What time is it, and which of two writes is newer.
//!
//! Knows: a clock that never goes back within this node, a wall clock that may lie, and the hybrid logical stamp that orders
//! writes between nodes. Does not know: where the time comes from; the shell hands it in.
//! Source: Kulkarni et al., "Logical Physical Clocks" (hybrid logical clocks); DESIGN promise 9.

use std::fmt;
use std::ops::{Add, Sub};
use std::time::Duration;

/// Microseconds on this node's monotonic clock.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Default)]
pub struct Instant(pub u64);

impl Add<Duration> for Instant {
    type Output = Instant;
    fn add(self, more: Duration) -> Instant {
        Instant(self.0.saturating_add(u64::try_from(more.as_micros()).unwrap_or(u64::MAX)))
    }
}

impl Sub for Instant {
    type Output = Duration;
    fn sub(self, earlier: Instant) -> Duration {
        Duration::from_micros(self.0.saturating_sub(earlier.0))
    }
}

/// Milliseconds since 1970 as the system's clock says, and whether that clock is to be believed.
///
/// `trusted`: the kernel says it is synchronised, or the operator said so.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct WallTime {
    pub ms: u64,
    pub trusted: bool,
}

/// The hybrid logical time a front end gives a write; the larger stamp wins on every replica.
///
/// Ordered by milliseconds, then counter, then front end: no two writes share a stamp.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Default)]
pub struct Stamp {
    pub ms: u64,
    pub counter: u32,
    pub front: u32,
}

impl Stamp {
    pub const ZERO: Stamp = Stamp { ms: 0, counter: 0, front: 0 };
    pub const LEN: usize = 16;

    pub fn to_bytes(self) -> [u8; 16] {
        let mut bytes = [0; 16];
        bytes[..8].copy_from_slice(&self.ms.to_be_bytes());
        bytes[8..12].copy_from_slice(&self.counter.to_be_bytes());
        bytes[12..].copy_from_slice(&self.front.to_be_bytes());
        bytes
    }

    pub fn from_bytes(bytes: [u8; 16]) -> Stamp {
        let part = |at: usize| u32::from_be_bytes([bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]]);
        Stamp { ms: u64::from(part(0)) << 32 | u64::from(part(4)), counter: part(8), front: part(12) }
    }
}

/// `ms-counter-front`, hexadecimal, as it stands in the `Encamp` header.
impl fmt::Display for Stamp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:x}-{:x}-{:x}", self.ms, self.counter, self.front)
    }
}

impl std::str::FromStr for Stamp {
    type Err = ();
    fn from_str(text: &str) -> Result<Stamp, ()> {
        let mut parts = text.split('-');
        let mut next = || parts.next().ok_or(());
        let stamp = Stamp {
            ms: u64::from_str_radix(next()?, 16).map_err(drop)?,
            counter: u32::from_str_radix(next()?, 16).map_err(drop)?,
            front: u32::from_str_radix(next()?, 16).map_err(drop)?,
        };
        if parts.next().is_some() { Err(()) } else { Ok(stamp) }
    }
}

/// Gives this front end's stamps, never twice the same and never one below a stamp that it has seen.
///
/// The floor is kept on disk in steps of [`StampClock::RESERVE_MS`]: a stamp at or above `reserved_ms` may only leave
/// after a new reservation is synced, so that a restart, whatever the system's clock says by then, goes on above it.
#[derive(Clone, Debug)]
pub struct StampClock {
    last: Stamp,
    reserved_ms: u64,
    /// The reservation before the last one.
    kept_ms: u64,
    /// The number of the last reservation's write in the node's own store.
    reserved_by: Option<u64>,
}

impl StampClock {
    pub const RESERVE_MS: u64 = 10_000;
    /// The same above a stamp that is ahead of the clock, so that neither a start, which goes on above the floor, nor a neighbour who
    /// is ahead drives the floor on faster than time passes.
    pub const RESERVE_AHEAD_MS: u64 = 100;
    /// A stamp further ahead than this of a trusted clock is refused, with an alarm (promise 9).
    pub const AHEAD_MS_MAX: u64 = 300_000;

    /// `floor_ms`: the reservation found on disk, 0 where there is none.
    pub fn new(front: u32, floor_ms: u64) -> StampClock {
        StampClock {
            last: Stamp { ms: floor_ms, counter: 0, front },
            reserved_ms: floor_ms,
            kept_ms: floor_ms,
            reserved_by: None,
        }
    }

    pub fn front(&self) -> u32 {
        self.last.front
    }

    /// The time by which bindings are judged: the system's, but never below the floor.
    pub fn wall_ms(&self, wall: WallTime) -> u64 {
        wall.ms.max(self.last.ms)
    }

    /// The next stamp, and the new reservation that must be synced before the stamp may leave, where one is due.
    ///
    /// `wall`: [`Clock::base`], not raised by any stamp.
    pub fn next(&mut self, wall: WallTime) -> (Stamp, Option<u64>) {
        if wall.ms > self.last.ms {
            self.last.ms = wall.ms;
            self.last.counter = 0;
        } else if self.last.counter == u32::MAX {
            self.last.ms += 1;
            self.last.counter = 0;
        } else {
            self.last.counter += 1;
        }
        let due = self.last.ms >= self.reserved_ms;
        (self.last, due.then(|| self.reserve(wall)))
    }

    /// A reservation made while there is still half of the last one left, so that no write has to wait for it.
    pub fn reserve_early(&mut self, wall: WallTime) -> Option<u64> {
        (self.wall_ms(wall) + Self::RESERVE_MS / 2 >= self.reserved_ms && wall.ms >= self.last.ms)
            .then(|| self.reserve(wall))
    }

    fn reserve(&mut self, wall: WallTime) -> u64 {
        self.kept_ms = self.reserved_ms;
        self.reserved_ms = (wall.ms + Self::RESERVE_MS).max(self.last.ms + Self::RESERVE_AHEAD_MS);
        self.reserved_ms
    }

    /// The last reservation is written, under this number of the node's own store.
    pub fn reserved(&mut self, seq: u64) {
        self.reserved_by = Some(seq);
    }

    /// The last reservation could not be written: the next stamp that needs it asks again.
    pub fn not_reserved(&mut self) {
        self.reserved_ms = self.kept_ms;
    }

    /// The write of the node's own store that a stamp has to wait for, if it is not synced yet.
    pub fn waits_for(&self, stamp: Stamp) -> Option<u64> {
        self.reserved_by.filter(|_| stamp.ms >= self.kept_ms)
    }

    /// Raises the clock above a stamp seen elsewhere. `wall`: the system's clock; one that stamps have raised would let the next
    /// one be further ahead, and so on.
    ///
    /// Errors: `Err(())` where it is more than [`Self::AHEAD_MS_MAX`] ahead of a trusted clock; the clock stays as it was.
    #[allow(clippy::result_unit_err)]
    pub fn observe(&mut self, seen: Stamp, wall: WallTime) -> Result<(), ()> {
        if wall.trusted && seen.ms > wall.ms.saturating_add(Self::AHEAD_MS_MAX) {
            return Err(());
        }
        if (seen.ms, seen.counter) > (self.last.ms, self.last.counter) {
            self.last.ms = seen.ms;
            self.last.counter = seen.counter;
        }
        Ok(())
    }
}

/// A stretch of time that this node lived through with a clock that was wrong, and by how much.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Era {
    pub from_ms: u64,
    pub to_ms: u64,
    pub shift_ms: u64,
}

/// The node's clock: the system's, raised to the floor, with the jumps it made remembered.
///
/// A box without a clock battery starts in 1970. Then time goes on from the floor (the last reservation before it was switched
/// off) by the monotonic clock; when the system's clock is put right, the bindings written meanwhile are not suddenly
/// months old: their [`Era`] says by how much they are to be shifted.
#[derive(Clone, Debug)]
pub struct Clock {
    pub stamps: StampClock,
    started_at: Instant,
    floor_ms: u64,
    last: Option<(Instant, WallTime)>,
    /// Since when the clock has not been trusted; `None` while it is.
    untrusted_since_ms: Option<u64>,
    eras: Vec<Era>,
    /// What is known of a wrong clock is in the node's own store.
    pub is_kept: bool,
}

impl Clock {
    /// How many jumps are remembered; with more the oldest is forgotten.
    pub const ERAS_MAX: usize = 8;
    /// A smaller jump is left alone: no binding lives as short as to notice.
    pub const JUMP_MS_MIN: u64 = 60_000;

    /// `untrusted_since_ms`: the last run's clock was not trusted to its end, and since when (as [`Clock::untrusted_since_ms`] told).
    pub fn new(
        front: u32,
        floor_ms: u64,
        eras: Vec<Era>,
        untrusted_since_ms: Option<u64>,
        started_at: Instant,
    ) -> Clock {
        let stamps = StampClock::new(front, floor_ms);
        Clock { stamps, started_at, floor_ms, last: None, untrusted_since_ms, eras, is_kept: true }
    }

    /// The time that counts: the system's, never below the floor plus this node's age, nor below a stamp it has seen.
    pub fn wall(&self, now: Instant, system: WallTime) -> WallTime {
        WallTime { ms: self.stamps.wall_ms(self.base(now, system)), trusted: system.trusted }
    }

    /// The time that this node's own clock tells. One that is trusted is taken as it is: the floor may lie ahead of it, by what the
    /// last run had reserved and not lived. Without one, time goes on from the floor.
    pub fn base(&self, now: Instant, system: WallTime) -> WallTime {
        if system.trusted {
            return system;
        }
        let age_ms = u64::try_from((now - self.started_at).as_millis()).unwrap_or(u64::MAX);
        WallTime { ms: system.ms.max(self.floor_ms.saturating_add(age_ms)), trusted: false }
    }

    /// Raises the clock above a stamp seen elsewhere; a clock that nobody has set goes on from there.
    ///
    /// Errors: as [`StampClock::observe`].
    #[allow(clippy::result_unit_err)]
    pub fn observe(&mut self, now: Instant, seen: Stamp, system: WallTime) -> Result<(), ()> {
        self.stamps.observe(seen, system)?;
        if !system.trusted && seen.ms > self.base(now, system).ms {
            self.floor_ms = seen.ms;
            self.started_at = now;
        }
        Ok(())
    }

    /// Notices a jump; the era that it ends, which is to be kept on disk by [`Clock::eras`].
    ///
    /// A clock may be put right while this program does not run: then the last run's era ends at the floor that it had reserved.
    pub fn notice(&mut self, now: Instant, system: WallTime) -> Option<Era> {
        let wall = self.wall(now, system);
        let expected_ms = match self.last.replace((now, wall)) {
            None => self.floor_ms,
            Some((then, before)) => {
                before.ms.saturating_add(u64::try_from((now - then).as_millis()).unwrap_or(u64::MAX))
            }
        };
        // A trusted clock that leaps was right before, too: the machine slept, or was switched off.
        let Some(from_ms) = self.untrusted_since_ms else {
            self.untrusted_since_ms = (!wall.trusted).then_some(wall.ms);
            return None;
        };
        if wall.trusted {
            self.untrusted_since_ms = None;
        }
        if wall.ms <= expected_ms.saturating_add(Self::JUMP_MS_MIN) {
            return None;
        }
        let era = Era { from_ms, to_ms: expected_ms, shift_ms: wall.ms - expected_ms };
        self.untrusted_since_ms = (!wall.trusted).then_some(wall.ms);
        self.eras.push(era);
        if self.eras.len() > Self::ERAS_MAX {
            self.eras.remove(0);
        }
        Some(era)
    }

    /// Since when the clock has not been trusted, to be kept on disk; `None` while it is.
    pub fn untrusted_since_ms(&self) -> Option<u64> {
        self.untrusted_since_ms
    }

    /// By how much the times in a write of this stamp are too small.
    pub fn shift_ms(&self, stamp: Stamp) -> u64 {
        self.eras.iter().find(|era| (era.from_ms..=era.to_ms).contains(&stamp.ms)).map_or(0, |era| era.shift_ms)
    }

    pub fn eras(&self) -> &[Era] {
        &self.eras
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stamps_grow_although_the_clock_goes_back() {
        let mut clock = StampClock::new(7, 0);
        let at = |ms| WallTime { ms, trusted: false };
        let (first, reserve) = clock.next(at(1_000_000));
        assert_eq!(reserve, Some(1_010_000));
        let (second, reserve) = clock.next(at(5));
        assert!(second > first && reserve.is_none());
        let (third, _) = StampClock::new(7, 1_010_000).next(at(5));
        assert!(third > second, "after a restart in 1970 the stamps go on above the floor");
    }

    #[test]
    fn a_stamp_far_ahead_of_a_trusted_clock_is_refused() {
        let mut clock = StampClock::new(7, 0);
        let seen = Stamp { ms: 400_000, counter: 3, front: 9 };
        assert!(clock.observe(seen, WallTime { ms: 1, trusted: true }).is_err());
        assert!(clock.observe(seen, WallTime { ms: 1, trusted: false }).is_ok());
        assert!(clock.next(WallTime { ms: 1, trusted: false }).0 > seen);
    }

    #[test]
    fn a_stamp_reads_back() {
        let stamp = Stamp { ms: 0x1_2345_6789, counter: 5, front: u32::MAX };
        assert_eq!(stamp.to_string().parse(), Ok(stamp));
        assert_eq!(Stamp::from_bytes(stamp.to_bytes()), stamp);
        assert!("1-2".parse::<Stamp>().is_err() && "1-2-3-4".parse::<Stamp>().is_err());
    }

    #[test]
    fn a_binding_made_in_1970_survives_the_jump_to_today() {
        let mut clock = Clock::new(7, 1_000_000, Vec::new(), None, Instant(0));
        let second = |n: u64| Instant(n * 1_000_000);
        assert!(clock.notice(second(0), WallTime { ms: 5_000, trusted: false }).is_none());
        let wall = clock.wall(second(60), WallTime { ms: 65_000, trusted: false });
        assert_eq!(wall.ms, 1_060_000, "time goes on from the floor");
        let (stamp, _) = clock.stamps.next(wall);
        assert!(clock.notice(second(60), WallTime { ms: 65_000, trusted: false }).is_none());
        let today = 1_795_265_024_340;
        let era = clock.notice(second(61), WallTime { ms: today, trusted: true }).unwrap();
        assert_eq!(era.shift_ms, today - 1_061_000);
        assert_eq!(clock.shift_ms(stamp), era.shift_ms);
        assert_eq!(
            clock.shift_ms(Stamp { ms: 999_999, ..stamp }),
            0,
            "what was written before this start is as old as it is"
        );
        let mut woken = Clock::new(7, 1_062_000, Vec::new(), Some(1_000_000), Instant(0));
        let era = woken.notice(Instant(0), WallTime { ms: today, trusted: true }).unwrap();
        assert_eq!((era.from_ms, era.to_ms), (1_000_000, 1_062_000), "it was put right while nothing ran");
        let slept = WallTime { ms: today + 3_600_000, trusted: true };
        assert!(clock.notice(second(62), slept).is_none(), "a trusted clock that leaps means that the machine slept");
    }
}
