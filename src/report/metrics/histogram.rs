//! Counts durations. Decides nothing: the bounds are given.
//!
//! Our own and not the crate's, so that a request pays for two additions close together in memory, and ten thousand routes do not
//! each keep names, descriptions and two sets of buckets.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

/// Counts durations up to each of `N` bounds.
#[derive(Debug)]
pub(super) struct Histogram<const N: usize> {
    bounds_us: &'static [u64; N],
    within: [AtomicU64; N],
    beyond: AtomicU64,
    sum_us: AtomicU64,
}

// === impl Histogram ===

impl<const N: usize> Histogram<N> {
    pub(super) fn new(bounds_us: &'static [u64; N]) -> Self {
        Histogram { bounds_us, within: [const { AtomicU64::new(0) }; N], beyond: AtomicU64::new(0), sum_us: AtomicU64::new(0) }
    }

    pub(super) fn observe(&self, us: u64) {
        let at = self.bounds_us.partition_point(|bound| *bound < us);
        self.within.get(at).unwrap_or(&self.beyond).fetch_add(1, Relaxed);
        self.sum_us.fetch_add(us, Relaxed);
    }

    /// Upper bound in microseconds and how many were within it but not within the one before.
    pub(super) fn buckets(&self) -> impl Iterator<Item = (u64, u64)> + '_ {
        self.bounds_us.iter().zip(&self.within).map(|(bound, within)| (*bound, within.load(Relaxed)))
    }

    pub(super) fn beyond(&self) -> u64 {
        self.beyond.load(Relaxed)
    }

    pub(super) fn sum_us(&self) -> u64 {
        self.sum_us.load(Relaxed)
    }

    pub(super) fn is_empty(&self) -> bool {
        self.beyond() == 0 && self.buckets().all(|(_, within)| within == 0)
    }
}
