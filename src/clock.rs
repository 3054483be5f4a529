//! The one place where clocks are read; everything else is given a [`Now`]. Decides nothing.

use std::cell::RefCell;
use std::sync::OnceLock;
use std::time::Instant;

use bytes::BytesMut;
use pingora_core::protocols::http::date::get_cached_date;
use rustix::time::{ClockId, clock_gettime};

use crate::ctx::Now;

/// When this process first asked, as the standard library keeps it and in nanoseconds.
static START: OnceLock<(Instant, u64)> = OnceLock::new();

thread_local! {
    /// The second in which it was made, and the text.
    static DATE: RefCell<(u64, BytesMut)> = RefCell::new((u64::MAX, BytesMut::new()));
}

/// What `Instant` reads, without the arithmetic of two-part times: it is asked for several times a request.
fn nanos(clock: ClockId) -> u64 {
    let time = clock_gettime(clock);
    // Both clocks are positive; 584 years fit.
    (time.tv_sec as u64).wrapping_mul(1_000_000_000).wrapping_add(time.tv_nsec as u64)
}

fn start() -> &'static (Instant, u64) {
    START.get_or_init(|| (Instant::now(), nanos(ClockId::Monotonic)))
}

/// Nanoseconds since this process first asked.
pub fn mono() -> u64 {
    let (_, start) = start();
    nanos(ClockId::Monotonic).saturating_sub(*start)
}

/// Both clocks.
pub fn now() -> Now {
    Now { mono: mono(), unix_ms: nanos(ClockId::Realtime) / 1_000_000 }
}

/// Appends the value of a `Date` field (RFC 9110 section 6.6.1): the same for a second.
pub fn append_date(out: &mut BytesMut) {
    let second = clock_gettime(ClockId::RealtimeCoarse).tv_sec as u64;
    DATE.with_borrow_mut(|(made, text)| {
        if *made != second {
            *made = second;
            text.clear();
            text.extend_from_slice(get_cached_date().as_bytes());
        }
        out.extend_from_slice(text);
    });
}

/// The instant of a moment on the monotonic clock, for timers.
pub fn instant(mono: u64) -> tokio::time::Instant {
    let (start, _) = start();
    tokio::time::Instant::from_std(*start + std::time::Duration::from_nanos(mono))
}
