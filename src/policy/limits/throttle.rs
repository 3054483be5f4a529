//! A limit that delays: who comes too early waits for a token instead of being refused, for a bounded time and in bounded number.
//!
//! The token is taken at once, for the moment at which it will be there: who came first goes first, and nobody has to be woken up for it.
//! Decides who may wait. Does not wait: see `exchange/wait.rs`.

use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;

use schemars::JsonSchema;
use serde::Deserialize;

use super::pace::Pace;
use crate::config::types::{At, Period};
use crate::policy::buckets::Buckets;
use crate::report::metrics::series::LimitSeries;

/// Delays requests that come too early, instead of refusing them.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ThrottleSettings {
    /// How long a request may be delayed; who would have to wait longer is refused. From 1ms to 60s.
    pub wait: At<Period>,
    /// How many requests may wait at once, of all callers of the limit; more are refused. Default 1000, at most 100000.
    pub waiting: Option<At<u32>>,
}

/// The compiled form.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Throttle {
    /// Nanoseconds.
    pub wait: u64,
    pub waiting: u32,
}

/// A request among those that wait, until it is dropped.
#[derive(Debug)]
pub struct Waiting {
    series: Arc<LimitSeries>,
    key: u128,
    pace: Pace,
    is_shared: bool,
}

pub const WAITING: u32 = 1000;

// === impl Throttle ===

impl Throttle {
    pub fn new(settings: &ThrottleSettings) -> Throttle {
        let ThrottleSettings { wait, waiting } = settings;
        Throttle {
            wait: u64::try_from(wait.value.0.as_nanos()).unwrap_or(u64::MAX),
            waiting: waiting.as_ref().map_or(WAITING, |waiting| waiting.value),
        }
    }

    /// A place among those that wait; none where there are enough of them.
    pub fn queue(&self, series: &Arc<LimitSeries>, key: u128, pace: &Pace) -> Option<Waiting> {
        self.place(Waiting { series: series.clone(), key, pace: *pace, is_shared: false })
    }

    /// The same for a token of all gateways.
    pub fn queue_shared(&self, series: &Arc<LimitSeries>, key: u128, pace: &Pace) -> Option<Waiting> {
        self.place(Waiting { series: series.clone(), key, pace: *pace, is_shared: true })
    }

    fn place(&self, place: Waiting) -> Option<Waiting> {
        let series = &place.series;
        // Dropped where it is one too many.
        (series.waiting.fetch_add(1, Relaxed) < u64::from(self.waiting)).then_some(place)
    }
}

// === impl Waiting ===

impl Waiting {
    /// It is to wait.
    pub fn note(&self) {
        self.series.delayed.fetch_add(1, Relaxed);
    }

    /// It left while it waited: its token is somebody else's.
    pub fn leave(self, buckets: &Buckets, now: u64) {
        match self.is_shared {
            true => buckets.shared.give_back(self.key),
            false => buckets.refund(now, self.key, &self.pace),
        }
    }
}

impl Drop for Waiting {
    fn drop(&mut self) {
        self.series.waiting.fetch_sub(1, Relaxed);
    }
}
