//! The one place where clocks are read; everything else is given a [`Now`]. Decides nothing.

use std::cell::RefCell;
use std::sync::OnceLock;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use bytes::BytesMut;
use pingora_core::protocols::http::date::get_cached_date;

use crate::ctx::Now;

static START: OnceLock<Instant> = OnceLock::new();

thread_local! {
    /// The second in which it was made, and the text.
    static DATE: RefCell<(u64, BytesMut)> = RefCell::new((u64::MAX, BytesMut::new()));
}

/// Nanoseconds since this process first asked.
pub fn mono() -> u64 {
    let since = START.get_or_init(Instant::now).elapsed();
    // 584 years fit.
    since.as_secs().wrapping_mul(1_000_000_000).wrapping_add(u64::from(since.subsec_nanos()))
}

fn unix() -> Duration {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default()
}

/// Both clocks.
pub fn now() -> Now {
    let unix = unix();
    Now { mono: mono(), unix_ms: unix.as_secs().wrapping_mul(1_000).wrapping_add(u64::from(unix.subsec_millis())) }
}

/// Appends the value of a `Date` field (RFC 9110 section 6.6.1): the same for a second.
pub fn append_date(out: &mut BytesMut) {
    let second = unix().as_secs();
    DATE.with_borrow_mut(|(made, text)| {
        if *made != second {
            *made = second;
            text.clear();
            text.extend_from_slice(get_cached_date().as_bytes());
        }
        out.extend_from_slice(text);
    });
}

/// The moment on the monotonic clock that a timer is set to.
pub fn mono_of(at: tokio::time::Instant) -> u64 {
    let start = *START.get_or_init(Instant::now);
    u64::try_from(at.into_std().saturating_duration_since(start).as_nanos()).unwrap_or(u64::MAX)
}

/// The instant of a moment on the monotonic clock, for timers.
pub fn instant(mono: u64) -> tokio::time::Instant {
    let start = *START.get_or_init(Instant::now);
    tokio::time::Instant::from_std(start + Duration::from_nanos(mono))
}
