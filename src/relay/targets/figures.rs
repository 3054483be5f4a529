//! What is counted of one target, for those who look at it: errors by kind, answers, how long they took lately.
//!
//! Decides nothing. A few relaxed additions an attempt.

use std::sync::atomic::{AtomicU32, AtomicU64, Ordering::Relaxed};
use std::time::Duration;

use crate::relay::attempt::outcome::Outcome;
use crate::report::metrics::series::Failure;

/// Of one target.
#[derive(Debug, Default)]
pub struct Figures {
    failed: [AtomicU64; Failure::ALL.len()],
    /// Answers of 500 and above.
    errors: AtomicU64,
    /// Calls of gRPC that failed as those.
    calls: AtomicU64,
    /// How often an address of it was ejected.
    ejections: AtomicU64,
    circuits_opened: AtomicU64,
    recent: [Slice; SLICES as usize],
}

/// Answers of some seconds by how long they took.
#[derive(Debug)]
struct Slice {
    /// Which stretch of time; 0 is none.
    stretch: AtomicU64,
    counts: [AtomicU32; BUCKETS],
}

/// How long answers took lately.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Recent {
    pub answers: u64,
    pub p50: Option<Duration>,
    pub p99: Option<Duration>,
}

/// Two to a doubling, from 1 µs: the last begins at half an hour.
const BUCKETS: usize = 64;
const SLICES: u64 = 4;
/// Nanoseconds, as a power of two: 8.6 s. Shown are the present and the three before it: 26 to 34 s.
const STRETCH: u32 = 33;

// === impl Figures ===

impl Figures {
    pub fn note(&self, outcome: Outcome, now: u64) {
        match outcome {
            Outcome::Head { status, took } => {
                if status >= 500 {
                    self.errors.fetch_add(1, Relaxed);
                }
                self.took(took, now);
            }
            Outcome::Call { took, .. } => {
                self.call(outcome);
                self.took(took, now);
            }
            Outcome::CallEnded { .. } => self.call(outcome),
            Outcome::Failed { how, .. } => {
                self.failed[how as usize].fetch_add(1, Relaxed);
            }
            Outcome::Whole => {}
        }
    }

    fn call(&self, outcome: Outcome) {
        if outcome.is_bad() {
            self.calls.fetch_add(1, Relaxed);
        }
    }

    fn took(&self, took: u64, now: u64) {
        let stretch = (now >> STRETCH) + 1;
        let slice = &self.recent[(stretch % SLICES) as usize];
        if slice.stretch.load(Relaxed) != stretch {
            slice.begin(stretch);
        }
        slice.counts[bucket(took)].fetch_add(1, Relaxed);
    }

    pub fn ejected(&self) {
        self.ejections.fetch_add(1, Relaxed);
    }

    pub fn circuit_opened(&self) {
        self.circuits_opened.fetch_add(1, Relaxed);
    }

    pub fn circuits_opened(&self) -> u64 {
        self.circuits_opened.load(Relaxed)
    }

    pub fn ejections(&self) -> u64 {
        self.ejections.load(Relaxed)
    }

    /// Failures by kind, answers of 500 and above, and calls of gRPC that ended so; those that happened only.
    pub fn errors(&self) -> Vec<(&'static str, u64)> {
        let failed = Failure::ALL.iter().zip(&self.failed).map(|(how, count)| (how.as_str(), count.load(Relaxed)));
        failed.chain([("5xx", self.errors.load(Relaxed)), ("grpc", self.calls.load(Relaxed))]).filter(|(_, count)| *count > 0).collect()
    }

    /// Of the last half minute.
    pub fn recent(&self, now: u64) -> Recent {
        let stretch = (now >> STRETCH) + 1;
        let mut counts = [0u64; BUCKETS];
        for slice in self.recent.iter().filter(|slice| slice.stretch.load(Relaxed) + SLICES > stretch) {
            counts.iter_mut().zip(&slice.counts).for_each(|(sum, count)| *sum += u64::from(count.load(Relaxed)));
        }
        let answers: u64 = counts.iter().sum();
        let at = |share: u64| {
            let wanted = (answers * share).div_ceil(100);
            let mut seen = 0;
            let found = counts.iter().position(|count| {
                seen += count;
                seen >= wanted
            });
            found.filter(|_| answers > 0).map(upper)
        };
        Recent { answers, p50: at(50), p99: at(99) }
    }
}

// === impl Slice ===

impl Default for Slice {
    fn default() -> Self {
        Slice { stretch: AtomicU64::new(0), counts: std::array::from_fn(|_| AtomicU32::new(0)) }
    }
}

impl Slice {
    #[cold]
    fn begin(&self, stretch: u64) {
        let known = self.stretch.load(Relaxed);
        if known != stretch && self.stretch.compare_exchange(known, stretch, Relaxed, Relaxed).is_ok() {
            self.counts.iter().for_each(|count| count.store(0, Relaxed));
        }
    }
}

/// Nanoseconds to a bucket: the power of two of the microseconds, and whether it is in its upper half.
fn bucket(took: u64) -> usize {
    let us = (took / 1_000).max(1);
    let power = us.ilog2();
    let upper = if power > 0 { (us >> (power - 1)) & 1 } else { 0 };
    (power as usize * 2 + upper as usize).min(BUCKETS - 1)
}

/// The longest time that falls into a bucket.
fn upper(bucket: usize) -> Duration {
    let power = 1u64 << (bucket / 2);
    Duration::from_micros(if bucket.is_multiple_of(2) { power + power / 2 } else { power * 2 })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_fall_into_buckets_that_are_half_as_wide_as_they_are_long() {
        for (us, least, most) in [(1, 1, 1), (2, 2, 3), (3, 3, 4), (700, 640, 768), (1_000, 768, 1_024), (1_500_000, 1_048_576, 1_572_864)]
        {
            let upper = upper(bucket(us * 1_000)).as_micros() as u64;
            assert!(upper >= us && upper <= us + us / 2 + 1, "{us}: {upper}");
            assert!((least..=most).contains(&upper) || us < 4, "{us}: {upper}");
        }
        assert_eq!(bucket(u64::MAX), BUCKETS - 1);
    }

    #[test]
    fn the_last_half_minute_is_shown() {
        let figures = Figures::default();
        const S: u64 = 1_000_000_000;
        assert_eq!(figures.recent(0), Recent::default());
        for n in 0..100 {
            figures.note(Outcome::Head { status: 200, took: if n < 98 { 10_000_000 } else { 2 * S } }, S);
        }
        figures.note(Outcome::Head { status: 503, took: 10_000_000 }, S);
        figures.note(Outcome::Failed { how: Failure::Connect, before_head: true }, S);
        let recent = figures.recent(20 * S);
        assert_eq!(recent.answers, 101);
        let (p50, p99) = (recent.p50.unwrap().as_millis(), recent.p99.unwrap().as_millis());
        assert!((10..=15).contains(&p50) && (2_000..=3_200).contains(&p99), "{p50} {p99}");
        assert_eq!(figures.recent(60 * S).answers, 0, "what is long ago is not shown");
        assert_eq!(figures.errors(), [("connect_failed", 1), ("5xx", 1)]);
    }
}
