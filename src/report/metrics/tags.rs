//! What is counted for a tag of callers: their requests. Only relaxed atomics.
//!
//! Decides that values which no configuration names are counted together, so that callers cannot make series.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use super::family::Samples;

/// The requests of callers with one value of one tag.
#[derive(Debug, Default)]
pub struct TagSeries {
    name: Box<str>,
    value: Box<str>,
    passed: AtomicU64,
    refused: AtomicU64,
}

/// The label of values that no configuration names.
pub const OTHER: &str = "other";

// === impl TagSeries ===

impl TagSeries {
    pub(super) fn new(name: &str, value: &str) -> Self {
        TagSeries { name: name.into(), value: value.into(), ..TagSeries::default() }
    }

    /// Counts a request, and whether the gateway refused it.
    pub fn done(&self, refused: bool) {
        let counter = if refused { &self.refused } else { &self.passed };
        counter.fetch_add(1, Relaxed);
    }

    pub(super) fn put(&self, samples: &mut Samples) {
        samples.put(&[&self.name, &self.value, "passed"], self.passed.load(Relaxed) as f64);
        samples.put(&[&self.name, &self.value, "refused"], self.refused.load(Relaxed) as f64);
    }
}
