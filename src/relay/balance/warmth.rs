//! Slow start: a target that is new or has come back gets little at first, and more and more until it has its share.
//!
//! Decides how much of its share a target may have at a moment. Does not decide whether it works.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::time::Duration;

/// Since when a target takes requests, on the monotonic clock.
#[derive(Debug)]
pub struct Warmth {
    /// 0: from the beginning.
    since: AtomicU64,
    was_able: AtomicBool,
}

/// How warm is asked: at this moment, where it takes so long.
#[derive(Clone, Copy, Debug)]
pub struct Warming {
    pub now: u64,
    pub window: Duration,
}

/// A cold target gets this much of its share: enough to fill its caches, and to be found out.
const LEAST: f64 = 0.1;

// === impl Warmth ===

impl Default for Warmth {
    fn default() -> Self {
        Warmth { since: AtomicU64::new(0), was_able: AtomicBool::new(true) }
    }
}

impl Warmth {
    /// It is new.
    pub fn begin(&self, now: u64) {
        self.since.store(now.max(1), Relaxed);
    }

    /// Told now and then whether the target works: when it has come back, it begins anew.
    pub fn note(&self, is_able: bool, now: u64) {
        if self.was_able.swap(is_able, Relaxed) != is_able && is_able {
            self.begin(now);
        }
    }

    /// The part of its share that it may have.
    pub fn share(&self, warming: Warming) -> f64 {
        let since = self.since.load(Relaxed);
        if since == 0 {
            return 1.0;
        }
        let passed = warming.now.saturating_sub(since) as f64 / warming.window.as_nanos() as f64;
        if passed >= 1.0 {
            return 1.0;
        }
        LEAST + (1.0 - LEAST) * passed
    }

    /// Whether it takes a request of those that it would have: `chance` is any number, all equally likely.
    pub fn takes(&self, warming: Warming, chance: u64) -> bool {
        let share = self.share(warming);
        share >= 1.0 || ((chance >> 11) as f64 / (1u64 << 53) as f64) < share
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: u64 = 1_000_000_000;

    #[test]
    fn what_has_come_back_gets_more_and_more_until_it_has_its_share() {
        let warmth = Warmth::default();
        let at = |second: u64| Warming { now: second * SECOND, window: Duration::from_secs(30) };
        assert_eq!(warmth.share(at(5)), 1.0);
        warmth.note(false, 10 * SECOND);
        warmth.note(true, 20 * SECOND);
        warmth.note(true, 25 * SECOND);
        let shares = [20, 35, 49, 50, 500].map(|second| (warmth.share(at(second)) * 100.0).round());
        assert_eq!(shares, [10.0, 55.0, 97.0, 100.0, 100.0]);
        let taken = (0..1000u64).filter(|n| warmth.takes(at(35), n.wrapping_mul(u64::MAX / 1000))).count();
        assert!(taken.abs_diff(550) < 5, "{taken}");
    }
}
