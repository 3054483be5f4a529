//! Decides whether a client keeps up with the minimum rates, and how long is left to one that does not.
//!
//! Only time spent waiting for the client counts, so a slow upstream is not held against it, and a client that is quick is never
//! measured at all: the clock is read where a read or write has to wait, and where such a wait ends. A client may fall behind by
//! the deadline (`body`, `write`) in all; what it sends or takes beyond that makes good, at the minimum rate. So a byte now and then,
//! which keeps a plain deadline from ever passing, gains next to nothing. Does not end anything: see `stream.rs`.

use std::time::Duration;

use schemars::JsonSchema;
use serde::Deserialize;
use tokio::time::Instant;

use crate::config::types::{At, Size};
use crate::reply::problem::Kind;

pub static BODY_TOO_SLOW: Kind = Kind {
    code: "body-too-slow",
    status: 408,
    error: "Request timeout",
    about: "The client sent its request body more slowly than `minimum_rates.body`, and fell behind by `deadlines.body`. A very slow network, or a client that holds requests open on purpose.",
};

pub static READER_TOO_SLOW: Kind = Kind {
    code: "reader-too-slow",
    status: 499,
    error: "Client closed request",
    about: "The client took none of its answer for `deadlines.write`, or took it more slowly than `minimum_rates.answer` and fell behind by that much: its connection was closed. Only in the log: the client has got a part of its answer, and reads no other.",
};

/// How fast clients must be, in bytes a second.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct MinimumRatesSettings {
    /// Bytes a second of a request body, while it is waited for; who falls behind by `deadlines.body` gets 408. Not for tunnels. 0: none. Default 256B.
    pub body: Option<At<Size>>,
    /// Bytes a second of an answer, while it cannot be written because the client does not read; who falls behind by `deadlines.write` is cut off. 0: none. Default 256B.
    pub answer: Option<At<Size>>,
}

/// How fast clients must be, in bytes a second; 0 means that they need not.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MinimumRates {
    pub body: u64,
    pub answer: u64,
}

/// What one side of a request or answer must keep to.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Demand {
    /// How long one wait may take, and all waits beyond what the rate allows.
    pub patience: Duration,
    /// Bytes a second; 0: only the patience counts.
    pub rate: u64,
}

/// How far behind a client is.
#[derive(Clone, Copy, Debug, Default)]
pub struct Pace {
    behind: Duration,
    /// Since when it has been waited for.
    since: Option<Instant>,
}

// === impl MinimumRates ===

impl Default for MinimumRates {
    fn default() -> Self {
        MinimumRates { body: 256, answer: 256 }
    }
}

impl MinimumRates {
    pub(super) fn compile(settings: Option<&MinimumRatesSettings>) -> Self {
        let default = MinimumRates::default();
        let Some(MinimumRatesSettings { body, answer }) = settings else { return default };
        let or = |written: &Option<At<Size>>, default: u64| written.as_ref().map_or(default, |written| written.0);
        MinimumRates { body: or(body, default.body), answer: or(answer, default.answer) }
    }
}

// === impl Demand ===

impl Demand {
    /// As slow as it likes, such as in a call whose client waits for the other side. Not infinite, so that it can be added to a time.
    pub const NONE: Demand = Demand { patience: Duration::from_secs(10 * 365 * 24 * 3600), rate: 0 };
}

// === impl Pace ===

impl Pace {
    /// There is nothing to read, or no room to write: until when the client may take its time.
    pub fn wait(&mut self, demand: Demand) -> Instant {
        *self.since.get_or_insert_with(Instant::now) + demand.patience.saturating_sub(self.behind)
    }

    /// Whether it has fallen behind at all, so that it has less time than its patience.
    pub fn is_behind(&self) -> bool {
        !self.behind.is_zero()
    }

    /// So many bytes have come, or gone.
    pub fn progress(&mut self, bytes: usize, demand: Demand) {
        if self.since.is_none() && self.behind.is_zero() {
            return;
        }
        let waited = self.since.take().map_or(Duration::ZERO, |since| since.elapsed());
        if demand.rate == 0 || waited >= demand.patience.saturating_sub(self.behind) {
            // Nobody looked when its time was over: then it was not the client that was waited for.
            self.behind = Duration::ZERO;
            return;
        }
        let earned = Duration::from_nanos((bytes as u64).saturating_mul(1_000_000_000) / demand.rate);
        self.behind = (self.behind + waited).saturating_sub(earned);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::time::advance;

    const DEMAND: Demand = Demand { patience: Duration::from_secs(60), rate: 100 };

    fn left(pace: &mut Pace) -> u64 {
        (pace.wait(DEMAND) - Instant::now()).as_secs()
    }

    #[tokio::test(start_paused = true)]
    async fn a_byte_now_and_then_gains_nothing_and_the_rate_makes_good() {
        let mut pace = Pace::default();
        assert_eq!((left(&mut pace), pace.is_behind()), (60, false));
        advance(Duration::from_secs(50)).await;
        pace.progress(1, DEMAND);
        assert_eq!((left(&mut pace), pace.is_behind()), (10, true));
        advance(Duration::from_secs(5)).await;
        assert_eq!(left(&mut pace), 5);
        pace.progress(1000, DEMAND);
        assert_eq!(left(&mut pace), 15, "1000 bytes are 10 seconds");
        // What comes without a wait counts as well, but nothing is saved up beyond the patience.
        pace.progress(1_000_000, DEMAND);
        assert_eq!((left(&mut pace), pace.is_behind()), (60, false));
    }

    #[tokio::test(start_paused = true)]
    async fn time_in_which_nobody_waited_is_nobodys() {
        let mut pace = Pace::default();
        pace.wait(DEMAND);
        advance(Duration::from_secs(1)).await;
        pace.progress(1, DEMAND);
        advance(Duration::from_secs(1000)).await;
        pace.progress(1, DEMAND);
        assert_eq!(left(&mut pace), 59);
        // A wait that nobody looked at in time: the gateway did something else.
        advance(Duration::from_secs(100)).await;
        pace.progress(1, DEMAND);
        assert_eq!(left(&mut pace), 60);
    }

    #[tokio::test(start_paused = true)]
    async fn without_a_rate_each_wait_has_its_patience() {
        let demand = Demand { rate: 0, ..DEMAND };
        let mut pace = Pace::default();
        for _ in 0..9 {
            assert_eq!((pace.wait(demand) - Instant::now()).as_secs(), 60);
            advance(Duration::from_secs(59)).await;
            pace.progress(1, demand);
        }
    }
}
