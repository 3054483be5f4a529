//! The arithmetic of limits that count in windows: how many there were in this one, whether one more fits, when the next does.
//!
//! A fixed window admits its count and forgets it at its end. A sliding one adds the share of the window before that still lies within
//! its length of now, as though those requests had been spread evenly: one number for each window, and no list of moments.
//!
//! A slot keeps when its count ends, on the monotonic clock. The clock on the wall says when windows end, and may be set: a slot whose
//! end is within half a window of that of the request's is of the same window, and one that is later is never forgotten.
//!
//! Does not know where windows begin and end: see `period.rs`.

use super::pace::{Kind, Pace, Reading, Span};
use super::table::State;

/// The window of a request, in nanoseconds on the monotonic clock.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Bounds {
    pub end: u64,
    pub length: u64,
}

/// Requests in this window and in the one before.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counted {
    pub now: u32,
    pub before: u32,
}

const SECOND: u64 = 1_000_000_000;

/// Rounded up, in fewer steps than for all that a number could be.
#[inline(always)]
fn seconds(ns: u64) -> u64 {
    ns.saturating_add(SECOND - 1) / SECOND
}

// === impl Bounds ===

impl Bounds {
    /// Its length in whole seconds, rounded up; at least 1.
    #[inline]
    pub fn seconds(&self) -> u64 {
        seconds(self.length).max(1)
    }
}

// === impl Counted ===

impl Counted {
    /// What a slot says, whichever window it is of.
    #[inline]
    pub fn stored(state: &State, pace: &Pace) -> Counted {
        // Nothing is nothing in every measure.
        let before = if state.before == 0 { 0 } else { unpack(state.before, pace.size()) };
        Counted { now: state.full_again.frac, before }
    }

    /// What a slot says of a window. One that was counted in another way passes its share on.
    #[inline]
    pub fn read(state: &State, now: u64, pace: &Pace, bounds: Bounds) -> Counted {
        if state.full_again == Span::NONE {
            return Counted::default();
        }
        let counted =
            if state.pace == pace.id() { Counted::of_window(state, pace, bounds) } else { Counted::converted(state, now, pace, bounds) };
        counted.as_kept(pace)
    }

    /// Of one that was counted as this is, but for how many there may be.
    #[inline]
    fn of_window(state: &State, from: &Pace, bounds: Bounds) -> Counted {
        let stored = Counted::stored(state, from);
        let end = match from.kind() {
            Kind::Sliding => state.full_again.ns.saturating_sub(from.per()),
            Kind::Fixed | Kind::Bucket => state.full_again.ns,
        };
        let half = bounds.length / 2;
        match () {
            () if end.saturating_add(half) > bounds.end => stored,
            () if end.saturating_add(half).saturating_add(bounds.length) > bounds.end => Counted { now: 0, before: stored.now },
            () => Counted::default(),
        }
    }

    #[cold]
    fn converted(state: &State, now: u64, pace: &Pace, bounds: Bounds) -> Counted {
        let from = Pace::known(state.pace).unwrap_or(*pace);
        match from.kind() {
            Kind::Bucket => {
                let used = state.used_then(now);
                Counted::of_share(used.ns as f64 / from.full().ns as f64, pace)
            }
            Kind::Fixed | Kind::Sliding if from.per() != pace.per() => {
                let share = if state.is_at_rest(now) { 0.0 } else { Counted::stored(state, &from).share(&from) };
                Counted::of_share(share, pace)
            }
            Kind::Fixed | Kind::Sliding => Counted::of_window(state, &from, bounds),
        }
    }

    /// A fixed window does not look back.
    #[inline]
    fn as_kept(self, pace: &Pace) -> Counted {
        match pace.kind() {
            Kind::Sliding => self,
            Kind::Fixed | Kind::Bucket => Counted { before: 0, ..self },
        }
    }

    fn of_share(share: f64, pace: &Pace) -> Counted {
        Counted { now: (share.clamp(0.0, 1.0) * f64::from(pace.size())).ceil() as u32, before: 0 }
    }

    pub fn share(&self, pace: &Pace) -> f64 {
        (f64::from(self.now) + f64::from(self.before)) / f64::from(pace.size())
    }

    /// How long the window has to go. Never more than its length.
    #[inline]
    fn rest(now: u64, bounds: Bounds) -> u64 {
        bounds.end.saturating_sub(now).min(bounds.length)
    }

    /// In units of a request over the window's length; exact.
    fn weight(self, now: u64, bounds: Bounds) -> u128 {
        let length = u128::from(bounds.length);
        u128::from(self.now) * length + u128::from(self.before) * u128::from(Counted::rest(now, bounds))
    }

    /// After one more request; none where it does not fit.
    #[inline]
    pub fn charge(self, now: u64, pace: &Pace, bounds: Bounds) -> Option<Counted> {
        if self.before == 0 && bounds.length > 0 {
            // Nothing but whole requests: the weights over the length.
            return (self.now < pace.size()).then(|| Counted { now: self.now + 1, before: 0 });
        }
        let length = u128::from(bounds.length);
        let fits = self.weight(now, bounds) + length <= u128::from(pace.size()) * length;
        fits.then_some(Counted { now: self.now.saturating_add(1), ..self })
    }

    /// Whole seconds, rounded up and at least 1, until a request fits that does not fit now.
    pub fn retry_after(self, now: u64, pace: &Pace, bounds: Bounds) -> u64 {
        let rest = Counted::rest(now, bounds);
        // The share of `before` must have shrunk to `room`, when so much of its window is left.
        let left = |before: u32, room: u32| match before {
            0 => bounds.length,
            _ => (u128::from(room) * u128::from(bounds.length) / u128::from(before)).min(u128::from(bounds.length)) as u64,
        };
        let wait = match (pace.kind(), pace.size().checked_sub(self.now.saturating_add(1))) {
            (Kind::Fixed | Kind::Bucket, _) => rest,
            (Kind::Sliding, Some(room)) => rest.saturating_sub(left(self.before, room)),
            (Kind::Sliding, None) => rest + (bounds.length - left(self.now, pace.size().saturating_sub(1))),
        };
        wait.div_ceil(SECOND).max(1)
    }

    #[inline]
    pub fn reading(self, now: u64, pace: &Pace, bounds: Bounds) -> Reading {
        let remaining = if self.before == 0 && bounds.length > 0 {
            pace.size().saturating_sub(self.now)
        } else {
            let used = self.weight(now, bounds).div_ceil(u128::from(bounds.length.max(1)));
            u32::try_from(u128::from(pace.size()).saturating_sub(used)).unwrap_or(u32::MAX)
        };
        let rest = Counted::rest(now, bounds);
        let (reset, next) = match (pace.kind(), self.now, self.before) {
            (_, 0, 0) => (0, 0),
            (Kind::Fixed | Kind::Bucket, _, _) => (rest, rest),
            (Kind::Sliding, 0, before) => (rest, rest.min(bounds.length / u64::from(before))),
            (Kind::Sliding, _, 0) => (rest + bounds.length, rest),
            (Kind::Sliding, _, before) => (rest + bounds.length, rest.min(bounds.length / u64::from(before))),
        };
        let seconds = seconds(reset);
        Reading { remaining, reset: seconds, next: if next == reset { seconds } else { next.div_ceil(SECOND) } }
    }

    #[inline]
    pub fn state(self, pace: &Pace, bounds: Bounds) -> State {
        let end = match pace.kind() {
            Kind::Sliding => bounds.end.saturating_add(bounds.length),
            Kind::Fixed | Kind::Bucket => bounds.end,
        };
        let before = if self.before == 0 { 0 } else { pack(self.before, pace.size()) };
        State { full_again: Span { ns: end, frac: self.now }, pace: pace.id(), before }
    }
}

/// In two bytes: the number itself, or of large limits the share in 65,535ths, rounded up.
fn pack(before: u32, size: u32) -> u16 {
    match u16::try_from(size) {
        Ok(_) => u16::try_from(before).unwrap_or(u16::MAX),
        Err(_) => {
            let parts = (u64::from(before) * u64::from(u16::MAX)).div_ceil(u64::from(size));
            u16::try_from(parts).unwrap_or(u16::MAX)
        }
    }
}

fn unpack(before: u16, size: u32) -> u32 {
    match u16::try_from(size) {
        Ok(_) => u32::from(before),
        Err(_) => (u64::from(before) * u64::from(size) / u64::from(u16::MAX)) as u32,
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::super::pace::tests::Dice;
    use super::*;

    fn pace(kind: Kind, count: u32, seconds: u64) -> Pace {
        Pace::of_windows(kind, count, Duration::from_secs(seconds)).unwrap()
    }

    /// The window of a moment, where windows are multiples of `seconds`.
    fn bounds(now: u64, seconds: u64) -> Bounds {
        let length = seconds * SECOND;
        Bounds { end: (now / length + 1) * length, length }
    }

    /// One request; the seconds until it would fit where it does not.
    fn ask(state: &mut State, now: u64, pace: &Pace, seconds: u64) -> Result<u32, u64> {
        let bounds = bounds(now, seconds);
        let counted = Counted::read(state, now, pace, bounds);
        match counted.charge(now, pace, bounds) {
            Some(after) => {
                *state = after.state(pace, bounds);
                Ok(after.reading(now, pace, bounds).remaining)
            }
            None => Err(counted.retry_after(now, pace, bounds)),
        }
    }

    #[test]
    fn a_fixed_window_admits_its_count_and_forgets_it_at_its_end() {
        let (pace, mut state) = (pace(Kind::Fixed, 3, 60), State::default());
        let now = 90 * SECOND;
        assert_eq!((0..4).map(|_| ask(&mut state, now, &pace, 60)).collect::<Vec<_>>(), [Ok(2), Ok(1), Ok(0), Err(30)]);
        assert_eq!(ask(&mut state, 120 * SECOND - 1, &pace, 60), Err(1));
        assert_eq!(ask(&mut state, 120 * SECOND, &pace, 60), Ok(2));
        assert!(!state.is_at_rest(180 * SECOND - 1) && state.is_at_rest(180 * SECOND + 1));
    }

    #[test]
    fn a_sliding_window_counts_the_share_of_the_one_before() {
        let (pace, mut state) = (pace(Kind::Sliding, 10, 60), State::default());
        let all = |state: &mut State, now: u64| (0..20).filter(|_| ask(state, now, &pace, 60).is_ok()).count();
        assert_eq!(all(&mut state, 59 * SECOND), 10);
        // Right after the edge, where a fixed window would admit ten again, all ten still count.
        assert_eq!(all(&mut state, 60 * SECOND), 0);
        assert_eq!(ask(&mut state, 60 * SECOND, &pace, 60), Err(6), "a tenth of the window later the first has gone");
        assert_eq!(all(&mut state, 66 * SECOND), 1);
        assert_eq!(all(&mut state, 90 * SECOND), 4);
        assert_eq!(all(&mut state, 120 * SECOND), 5, "of the second window's five all count");
        assert_eq!(all(&mut state, 300 * SECOND), 10);
    }

    #[test]
    fn the_time_to_wait_is_never_too_short_nor_a_second_too_long() {
        let mut dice = Dice(9);
        for _ in 0..3_000 {
            let (count, seconds) = (1 + dice.roll(30) as u32, 2 + dice.roll(100));
            let kind = if dice.roll(2) == 0 { Kind::Fixed } else { Kind::Sliding };
            let (pace, mut state) = (pace(kind, count, seconds), State::default());
            let mut now = dice.roll(1_000 * SECOND);
            let wait = loop {
                match ask(&mut state, now, &pace, seconds) {
                    Ok(_) => now += dice.roll(seconds * SECOND / u64::from(count)),
                    Err(wait) => break wait,
                }
            };
            let would = |seconds_later: u64| ask(&mut state.clone(), now + seconds_later * SECOND, &pace, seconds).is_ok();
            assert!(would(wait), "{kind:?} {count}/{seconds}s at {now}: {wait}");
            assert!(wait == 1 || !would(wait - 1), "{kind:?} {count}/{seconds}s at {now}: {wait}");
        }
    }

    #[test]
    fn a_clock_that_is_set_neither_forgets_nor_counts_twice() {
        let (pace, mut state) = (pace(Kind::Fixed, 5, 3600), State::default());
        // Half the hour is over on the wall; the monotonic clock is where it is.
        let at = |rest: u64| Bounds { end: 10_000 * SECOND + rest * SECOND, length: 3600 * SECOND };
        let now = 10_000 * SECOND;
        state = Counted::read(&state, now, &pace, at(1800)).charge(now, &pace, at(1800)).unwrap().state(&pace, at(1800));
        assert_eq!(Counted::read(&state, now, &pace, at(1500)).now, 1, "five minutes forward");
        assert_eq!(Counted::read(&state, now, &pace, at(2100)).now, 1, "five minutes back");
        assert_eq!(Counted::read(&state, now, &pace, at(1800 + 3600)).now, 0, "an hour forward: the window is over");
        let early = Bounds { end: at(1800).end - 3600 * SECOND, ..at(0) };
        assert_eq!(Counted::read(&state, now, &pace, early).now, 1, "an hour back: what was counted stays");
    }

    #[test]
    fn a_raised_count_keeps_the_requests_and_another_way_of_counting_the_share() {
        let mut state = State::default();
        let (ten, twenty) = (pace(Kind::Fixed, 10, 60), pace(Kind::Fixed, 20, 60));
        (0..4).for_each(|_| _ = ask(&mut state, 0, &ten, 60));
        assert_eq!(Counted::read(&state, 0, &twenty, bounds(0, 60)).now, 4);
        assert_eq!(Counted::read(&state, 0, &pace(Kind::Sliding, 20, 60), bounds(0, 60)).now, 4);
        assert_eq!(Counted::read(&state, 0, &pace(Kind::Fixed, 100, 3600), bounds(0, 3600)).now, 40);
        let bucket = super::super::pace::tests::pace("10/m", 10);
        assert_eq!(bucket.read(state.used(0, &bucket)).remaining, 6);
        let state = State::at(0, bucket.share(0.3), &bucket);
        assert_eq!(Counted::read(&state, 0, &twenty, bounds(0, 60)).now, 6);
    }

    #[test]
    fn what_two_bytes_say_of_a_large_window_is_never_too_little_and_does_not_drift() {
        let mut dice = Dice(4);
        for _ in 0..10_000 {
            let size = 1 + dice.roll(u64::from(u32::MAX)) as u32;
            let before = dice.roll(u64::from(size) + 1) as u32;
            let kept = unpack(pack(before, size), size);
            assert!(kept >= before && u64::from(kept - before) <= u64::from(size) / 65_535 + 1, "{before} of {size}: {kept}");
            assert_eq!(unpack(pack(kept, size), size), kept);
        }
    }
}
