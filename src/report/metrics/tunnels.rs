//! What is counted for the WebSockets of a route. Only relaxed atomics.
//!
//! Decides which counter an event belongs to. A tunnel's time is in a histogram of its own: one that lasts an hour is no slow request.

use std::sync::atomic::{AtomicI64, AtomicU64, Ordering::Relaxed};

use super::family::Samples;
use super::histogram::Histogram;
use crate::relay::attempt::tunnel::ClosedBy;

/// Upper bounds in microseconds: a second, ten, a minute, five, half an hour, an hour, six, a day.
static DURATION_US: [u64; 8] =
    [1_000_000, 10_000_000, 60_000_000, 300_000_000, 1_800_000_000, 3_600_000_000, 21_600_000_000, 86_400_000_000];

/// The tunnels of one route.
#[derive(Debug)]
pub struct Tunnels {
    open: AtomicI64,
    opened: AtomicU64,
    /// From the client.
    pub bytes_in: AtomicU64,
    /// To the client.
    pub bytes_out: AtomicU64,
    closed: [AtomicU64; ClosedBy::ALL.len()],
    duration: Histogram<8>,
}

// === impl Tunnels ===

impl Default for Tunnels {
    fn default() -> Self {
        Tunnels {
            open: AtomicI64::new(0),
            opened: AtomicU64::new(0),
            bytes_in: AtomicU64::new(0),
            bytes_out: AtomicU64::new(0),
            closed: Default::default(),
            duration: Histogram::new(&DURATION_US),
        }
    }
}

impl Tunnels {
    pub fn open(&self) {
        self.open.fetch_add(1, Relaxed);
        self.opened.fetch_add(1, Relaxed);
    }

    /// Counts the end of one that was opened.
    pub fn close(&self, by: ClosedBy, us: u64) {
        self.open.fetch_sub(1, Relaxed);
        self.closed[by as usize].fetch_add(1, Relaxed);
        self.duration.observe(us);
    }

    pub(super) fn opens(&self, route: &str, samples: &mut Samples) {
        samples.put(&[route], self.open.load(Relaxed) as f64);
    }

    pub(super) fn openings(&self, route: &str, samples: &mut Samples) {
        samples.put(&[route], self.opened.load(Relaxed) as f64);
    }

    pub(super) fn closes(&self, route: &str, samples: &mut Samples) {
        for (by, counter) in ClosedBy::ALL.iter().zip(&self.closed) {
            samples.put(&[route, by.as_str()], counter.load(Relaxed) as f64);
        }
    }

    pub(super) fn bytes(&self, route: &str, samples: &mut Samples) {
        samples.put(&[route, "in"], self.bytes_in.load(Relaxed) as f64);
        samples.put(&[route, "out"], self.bytes_out.load(Relaxed) as f64);
    }

    pub(super) fn durations(&self, route: &str, samples: &mut Samples) {
        samples.put_histogram(&[route], &self.duration);
    }
}
