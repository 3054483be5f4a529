//! Decides when a circuit opens and how it is probed, as written. What it does is in `mod.rs`.

use std::time::Duration;

use schemars::JsonSchema;
use serde::Deserialize;

use super::window::slice;
use crate::config::diagnostic::Diagnostic;
use crate::config::types::{At, Percent, Period};
use crate::relay::upstream::{in_range, share as part, whole};

/// When an upstream, or a target, is left alone because it fails.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct CircuitBreakerSettings {
    /// What has a circuit: `upstream` (all its targets together), `target` (each address of a target), or `both`. Default `both`.
    pub of: Option<At<Scope>>,
    /// Over how long requests are counted. 1s to 10m; default 10s.
    pub window: Option<At<Period>>,
    /// With fewer in the window nothing opens. 1 to 1000000; default 20.
    pub min_requests: Option<At<u32>>,
    /// It opens when this share failed: no answer, one of 500 and above, or a call of gRPC that ended in the like. Default 50%.
    pub failures: Option<At<Percent>>,
    /// It opens, too, when too many answers were slow. Without it, slowness is no failure.
    pub slow: Option<SlowSettings>,
    /// How long it stays open before it is probed. 100ms to 1h; default 5s.
    pub open_for: Option<At<Period>>,
    /// Half open, so many requests at once are let through, and when so many went well it closes. 1 to 1000; default 3.
    pub probes: Option<At<u32>>,
}

/// What is slow, and how much of it is too much.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct SlowSettings {
    /// An answer whose head comes later than this is slow. 1ms to 1h.
    pub after: At<Period>,
    /// It opens when this share was slow. Default 80%.
    pub share: Option<At<Percent>>,
}

/// What has a circuit.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Scope {
    Upstream,
    Target,
    Both,
}

/// The compiled form.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CircuitBreaker {
    pub of: Scope,
    pub window: Duration,
    /// Nanoseconds of a part of it: see [`slice`].
    pub slice: u64,
    pub min_requests: u32,
    pub failures: Percent,
    pub slow: Option<(Duration, Percent)>,
    pub open_for: Duration,
    pub probes: u32,
}

// === impl CircuitBreaker ===

impl CircuitBreaker {
    pub(in crate::relay) fn compile(settings: &CircuitBreakerSettings, wrong: &mut Vec<Diagnostic>) -> Self {
        let CircuitBreakerSettings { of, window, min_requests, failures, slow, open_for, probes } = settings;
        let slow = slow.as_ref().map(|slow| {
            let SlowSettings { after, share } = slow;
            let limit = in_range(Some(after), after.value, Period(Duration::from_millis(1)), Period::seconds(3600), wrong);
            (limit, part(share.as_ref(), Percent(8_000), wrong))
        });
        let window = in_range(window.as_ref(), Period::seconds(10), Period::seconds(1), Period::seconds(600), wrong);
        CircuitBreaker {
            of: of.as_ref().map_or(Scope::Both, |of| of.value),
            window,
            slice: slice(window),
            min_requests: whole(min_requests.as_ref(), 20, 1..=1_000_000, wrong),
            failures: part(failures.as_ref(), Percent(5_000), wrong),
            slow,
            open_for: in_range(open_for.as_ref(), Period::seconds(5), Period(Duration::from_millis(100)), Period::seconds(3600), wrong),
            probes: whole(probes.as_ref(), 3, 1..=1_000, wrong),
        }
    }

    /// In one line, for `explain`.
    pub fn told(&self) -> String {
        let of = match self.of {
            Scope::Upstream => "of the upstream",
            Scope::Target => "of each address",
            Scope::Both => "of the upstream and of each address",
        };
        let slow = self.slow.map(|(after, share)| format!(" or {share} take more than {}", Period(after))).unwrap_or_default();
        format!(
            "circuit {of}: open for {} when {} of at least {} requests in {} fail{slow}; closed after {} good probes",
            Period(self.open_for),
            self.failures,
            self.min_requests,
            Period(self.window),
            self.probes
        )
    }

    pub fn is_of_upstream(&self) -> bool {
        matches!(self.of, Scope::Upstream | Scope::Both)
    }

    pub fn is_of_target(&self) -> bool {
        matches!(self.of, Scope::Target | Scope::Both)
    }
}
