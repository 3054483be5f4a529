//! The one place where clocks are read; everything else is given a [`Now`]. Decides nothing.

use std::sync::OnceLock;
use std::time::{Instant, SystemTime, UNIX_EPOCH};

use crate::ctx::Now;

static START: OnceLock<Instant> = OnceLock::new();

/// Nanoseconds since this process first asked.
pub fn mono() -> u64 {
    let start = START.get_or_init(Instant::now);
    // 584 years fit.
    u64::try_from(start.elapsed().as_nanos()).unwrap_or(u64::MAX)
}

/// Both clocks.
pub fn now() -> Now {
    let unix_ms = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| u64::try_from(since.as_millis()).unwrap_or(u64::MAX));
    Now { mono: mono(), unix_ms }
}

/// The instant of a moment on the monotonic clock, for timers.
pub fn instant(mono: u64) -> tokio::time::Instant {
    let start = *START.get_or_init(Instant::now);
    tokio::time::Instant::from_std(start + std::time::Duration::from_nanos(mono))
}
