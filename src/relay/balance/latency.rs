//! How long a target takes to answer, as `peak_ewma` sees it: at once where it becomes slower, slowly where it becomes faster.
//!
//! Does not decide who is chosen. One word, changed without a lock: of two answers at the same moment one may be lost.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

/// What was seen lately loses its weight by a factor of e in so many milliseconds.
const DECAY_MS: f64 = 10_000.0;
/// What a target costs that has requests and never answered one: more than any that has.
const UNKNOWN_US: f64 = 1e9;

/// A moving average of microseconds (lower half) and when it was last told (upper half, in milliseconds of the monotonic clock).
#[derive(Debug, Default)]
pub struct Latency(AtomicU64);

// === impl Latency ===

impl Latency {
    /// Notes that an answer began after `took`, both in nanoseconds.
    #[inline]
    pub fn observe(&self, took: u64, now: u64) {
        let (us, now) = ((took / 1000).clamp(1, u64::from(u32::MAX)) as f64, now / 1_000_000);
        let (known, age) = self.read(now);
        let new = match us >= known {
            true => us,
            false => {
                let share = decay(age);
                known * share + us * (1.0 - share)
            }
        };
        self.0.store(now << 32 | new as u64, Relaxed);
    }

    /// What one more request would wait for beside those that are in flight, relative to other targets.
    #[inline]
    pub fn cost(&self, in_flight: u32, now: u64) -> f64 {
        let (known, age) = self.read(now / 1_000_000);
        let known = match (known > 0.0, in_flight) {
            (true, _) => known * decay(age),
            // Nobody knows: one request finds out.
            (false, 0) => 0.0,
            (false, _) => UNKNOWN_US,
        };
        known * (f64::from(in_flight) + 1.0)
    }

    /// The average in microseconds as last told, 0 for none, and the milliseconds since. `now`: milliseconds.
    #[inline]
    fn read(&self, now: u64) -> (f64, f64) {
        let word = self.0.load(Relaxed);
        let age = (now as u32).wrapping_sub((word >> 32) as u32);
        (f64::from(word as u32), f64::from(age))
    }
}

/// What is left of the weight of what was seen so many milliseconds ago.
#[inline]
fn decay(age: f64) -> f64 {
    let x = age / DECAY_MS;
    // Of a target that answers at least once a second, which is cheaper than `exp` and off by less than 5 in a million.
    if x < 0.1 { 1.0 - x * (1.0 - x * (0.5 - x / 6.0)) } else { (-x).exp() }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: u64 = 1_000_000;

    #[test]
    fn a_slow_answer_counts_at_once_and_fast_ones_slowly() {
        let latency = Latency::default();
        latency.observe(10 * MS, 0);
        assert_eq!(latency.cost(0, 0), 10_000.0);
        latency.observe(500 * MS, 0);
        assert_eq!(latency.cost(0, 0), 500_000.0);
        latency.observe(MS, 100 * MS);
        assert!((490_000.0..500_000.0).contains(&latency.cost(0, 100 * MS)), "{}", latency.cost(0, 100 * MS));
        (2..1000).for_each(|n| latency.observe(MS, n * 100 * MS));
        assert!(latency.cost(0, 1000 * 100 * MS) < 1_100.0);
    }

    #[test]
    fn what_is_left_is_that_of_the_exponential() {
        for age in (0..30_000).map(f64::from) {
            assert!((decay(age) - (-age / DECAY_MS).exp()).abs() < 5e-6, "{age}: {}", decay(age));
        }
    }

    #[test]
    fn what_was_slow_long_ago_is_tried_again() {
        let latency = Latency::default();
        latency.observe(1000 * MS, 0);
        assert!(latency.cost(0, 60_000 * MS) < 3_000.0);
    }

    #[test]
    fn one_request_finds_out_about_a_target_that_nobody_knows() {
        let latency = Latency::default();
        assert_eq!(latency.cost(0, MS), 0.0);
        let slow = Latency::default();
        slow.observe(60_000 * MS, 0);
        assert!(latency.cost(1, MS) > slow.cost(1, MS));
    }

    #[test]
    fn requests_in_flight_cost() {
        let latency = Latency::default();
        latency.observe(10 * MS, 0);
        assert_eq!(latency.cost(3, 0), 4.0 * latency.cost(0, 0));
    }
}
