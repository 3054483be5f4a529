//! What is counted for an upstream: attempts, how they ended, what was sent again. Only relaxed atomics: a request pays for a few additions.
//!
//! Decides which counter an event belongs to. Does not name the metrics (`family.rs`).

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use super::family::Samples;
use super::route::{CLASSES, class_of};
use crate::relay::retries::verdict::{Cause, GivenUp};

/// The attempts at one upstream.
#[derive(Debug, Default)]
pub struct UpstreamSeries {
    name: Box<str>,
    pub bytes_in: AtomicU64,
    pub bytes_out: AtomicU64,
    pub connections_new: AtomicU64,
    pub connections_reused: AtomicU64,
    answered: [AtomicU64; CLASSES.len()],
    failed: [AtomicU64; Failure::ALL.len()],
    again: [AtomicU64; Cause::NAMES.len()],
    given_up: [AtomicU64; GivenUp::ALL.len()],
}

/// How an attempt at an upstream failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Failure {
    /// Refused, unreachable, or the TLS handshake failed.
    Connect,
    ConnectTimeout,
    ResponseTimeout,
    /// Silence in the middle of a body or tunnel.
    IdleTimeout,
    /// Closed early, reset, or answered what is no HTTP.
    Broken,
    /// The client left before the upstream had answered.
    ClientGone,
}

// === impl UpstreamSeries ===

impl UpstreamSeries {
    pub(super) fn new(name: &str) -> Self {
        UpstreamSeries { name: name.into(), ..UpstreamSeries::default() }
    }

    /// Counts an attempt that was answered with this status.
    pub fn answered(&self, status: u16) {
        self.answered[class_of(status)].fetch_add(1, Relaxed);
    }

    /// Counts an attempt that failed.
    pub fn failed(&self, how: Failure) {
        self.failed[how as usize].fetch_add(1, Relaxed);
    }

    pub(super) fn bytes(&self, samples: &mut Samples) {
        samples.put(&[&self.name, "in"], self.bytes_in.load(Relaxed) as f64);
        samples.put(&[&self.name, "out"], self.bytes_out.load(Relaxed) as f64);
    }

    pub(super) fn connections(&self, samples: &mut Samples) {
        samples.put(&[&self.name, "new"], self.connections_new.load(Relaxed) as f64);
        samples.put(&[&self.name, "reused"], self.connections_reused.load(Relaxed) as f64);
    }

    /// Counts a request that is sent again.
    pub fn again(&self, cause: Cause) {
        self.again[cause.index()].fetch_add(1, Relaxed);
    }

    /// Counts one that was to be sent again, and is not.
    pub fn given_up(&self, why: GivenUp) {
        self.given_up[why as usize].fetch_add(1, Relaxed);
    }

    /// Requests of which a target has got something, those that were sent again left out.
    pub fn requests(&self) -> u64 {
        let sum = |counters: &[AtomicU64]| counters.iter().map(|counter| counter.load(Relaxed)).sum::<u64>();
        // After a failed connect there was none to count.
        let again = sum(&self.again) - self.again[Cause::Connect.index()].load(Relaxed);
        (self.connections_new.load(Relaxed) + self.connections_reused.load(Relaxed)).saturating_sub(again)
    }

    pub(super) fn retries(&self, samples: &mut Samples) {
        for (name, counter) in Cause::NAMES.iter().zip(&self.again) {
            samples.put(&[&self.name, name], counter.load(Relaxed) as f64);
        }
    }

    pub(super) fn without_retry(&self, samples: &mut Samples) {
        for (why, counter) in GivenUp::ALL.iter().zip(&self.given_up) {
            samples.put(&[&self.name, why.as_str()], counter.load(Relaxed) as f64);
        }
    }

    pub(super) fn results(&self, samples: &mut Samples) {
        for (class, counter) in CLASSES.iter().zip(&self.answered).skip(1) {
            samples.put(&[&self.name, class], counter.load(Relaxed) as f64);
        }
        for (how, counter) in Failure::ALL.iter().zip(&self.failed) {
            samples.put(&[&self.name, how.as_str()], counter.load(Relaxed) as f64);
        }
    }
}

// === impl Failure ===

impl Failure {
    pub const ALL: [Failure; 6] =
        [Failure::Connect, Failure::ConnectTimeout, Failure::ResponseTimeout, Failure::IdleTimeout, Failure::Broken, Failure::ClientGone];

    pub fn as_str(self) -> &'static str {
        match self {
            Failure::Connect => "connect_failed",
            Failure::ConnectTimeout => "connect_timeout",
            Failure::ResponseTimeout => "response_timeout",
            Failure::IdleTimeout => "idle_timeout",
            Failure::Broken => "broken",
            Failure::ClientGone => "client_gone",
        }
    }
}
