//! Counts over a sliding window: ten slices, the oldest of which is emptied when its turn comes again.
//!
//! Decides nothing. Relaxed atomics: at the edge of a slice a count may go astray, which no share of many notices.

use std::sync::atomic::{AtomicU32, AtomicU64, Ordering::Relaxed};
use std::time::Duration;

use super::Seen;

const SLICES: u64 = 10;

#[derive(Debug, Default)]
pub(super) struct Window([Slice; SLICES as usize]);

#[derive(Debug, Default)]
struct Slice {
    /// Which stretch of time it counts; 0 is none.
    stretch: AtomicU64,
    all: AtomicU32,
    failed: AtomicU32,
    slow: AtomicU32,
}

/// What a window holds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Sum {
    pub all: u32,
    pub failed: u32,
    pub slow: u32,
}

/// The nanoseconds of one slice of a window, never none.
pub(super) fn slice(window: Duration) -> u64 {
    (u64::try_from(window.as_nanos()).unwrap_or(u64::MAX) / SLICES).max(1)
}

/// Counted from 1.
#[inline]
fn stretch(slice: u64, now: u64) -> u64 {
    now / slice.max(1) + 1
}

// === impl Window ===

impl Window {
    /// `length`: of a [`slice`].
    #[inline]
    pub fn note(&self, length: u64, seen: Seen, now: u64) {
        let Seen { failed, slow, is_late } = seen;
        let stretch = stretch(length, now);
        let slice = &self.0[(stretch % SLICES) as usize];
        let known = slice.stretch.load(Relaxed);
        if known != stretch {
            slice.begin(known, stretch);
        }
        if !is_late {
            slice.all.fetch_add(1, Relaxed);
        }
        if failed {
            slice.failed.fetch_add(1, Relaxed);
        }
        if slow {
            slice.slow.fetch_add(1, Relaxed);
        }
    }

    pub fn sum(&self, length: u64, now: u64) -> Sum {
        let stretch = stretch(length, now);
        let recent =
            self.0.iter().filter(|slice| (stretch.saturating_sub(SLICES - 1).max(1)..=stretch).contains(&slice.stretch.load(Relaxed)));
        recent.fold(Sum::default(), |sum, slice| Sum {
            all: sum.all + slice.all.load(Relaxed),
            failed: sum.failed + slice.failed.load(Relaxed),
            slow: sum.slow + slice.slow.load(Relaxed),
        })
    }

    pub fn clear(&self) {
        self.0.iter().for_each(|slice| slice.stretch.store(0, Relaxed));
    }
}

// === impl Slice ===

impl Slice {
    #[cold]
    fn begin(&self, known: u64, stretch: u64) {
        if self.stretch.compare_exchange(known, stretch, Relaxed, Relaxed).is_ok() {
            [&self.all, &self.failed, &self.slow].into_iter().for_each(|count| count.store(0, Relaxed));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_holds_the_last_ten_slices() {
        let (window, ten) = (Window::default(), slice(Duration::from_secs(10)));
        const S: u64 = 1_000_000_000;
        (0..25).for_each(|second| window.note(ten, Seen { failed: second % 2 == 0, slow: second == 24, is_late: false }, second * S));
        assert_eq!(window.sum(ten, 24 * S), Sum { all: 10, failed: 5, slow: 1 });
        assert_eq!(window.sum(ten, 29 * S), Sum { all: 5, failed: 3, slow: 1 });
        assert_eq!(window.sum(ten, 40 * S), Sum::default());
        window.clear();
        assert_eq!(window.sum(ten, 24 * S), Sum::default());
    }
}
