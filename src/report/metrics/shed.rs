//! Counts requests that are refused because something is full, by what is full and by their priority.
//!
//! Decides nothing.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use super::family::Samples;
use crate::policy::priority::Priority;

/// What is full.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Full {
    Upstream,
    InFlight,
    Memory,
}

/// One of the process.
#[derive(Debug, Default)]
pub struct Shed([[AtomicU64; PRIORITIES]; Full::ALL.len()]);

/// The last is for all: where it did not matter.
const PRIORITIES: usize = Priority::ALL.len() + 1;

// === impl Full ===

impl Full {
    pub const ALL: [Full; 3] = [Full::Upstream, Full::InFlight, Full::Memory];

    pub fn as_str(self) -> &'static str {
        match self {
            Full::Upstream => "upstream",
            Full::InFlight => "in_flight",
            Full::Memory => "memory",
        }
    }
}

// === impl Shed ===

impl Shed {
    /// None: whatever its priority would have been.
    pub fn count(&self, full: Full, priority: Option<Priority>) {
        let at = priority.map_or(PRIORITIES - 1, |priority| priority as usize);
        self.0[full as usize][at].fetch_add(1, Relaxed);
    }

    /// All of them, at 0 too: the first must be an increase that an alert can see.
    pub(super) fn put(&self, samples: &mut Samples) {
        for (full, counters) in Full::ALL.iter().zip(&self.0) {
            let names = Priority::ALL.iter().map(|priority| priority.as_str()).chain(["any"]);
            for (name, counter) in names.zip(counters).filter(|(name, _)| *full != Full::Upstream || *name != "any") {
                samples.put(&[full.as_str(), name], counter.load(Relaxed) as f64);
            }
        }
    }
}
