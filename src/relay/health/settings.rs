//! Decides how an upstream's targets are checked: what one check does, how often, how many it takes.
//!
//! Does not run checks (`probe.rs`, `mod.rs`).

use std::sync::Arc;
use std::time::Duration;

use http::uri::PathAndQuery;
use schemars::JsonSchema;
use serde::Deserialize;

use super::tracker::Thresholds;
use crate::config::diagnostic::Diagnostic;
use crate::config::types::{At, Period};
use crate::relay::upstream::in_range;

/// Active health checks.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct HealthSettings {
    /// A path to GET; 200 to 299 is healthy. Without it, a TCP connection is.
    pub path: Option<At<String>>,
    /// How often. Default 5s.
    pub every: Option<At<Period>>,
    /// How long one check may take. Default 1s.
    pub timeout: Option<At<Period>>,
    /// How many failures in a row take a target out. Default 2.
    pub unhealthy_after: Option<At<u16>>,
    /// How many successes in a row bring it back. Default 1.
    pub healthy_after: Option<At<u16>>,
}

/// How a target is found to work.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Health {
    pub check: Check,
    pub every: Duration,
    pub timeout: Duration,
    pub unhealthy_after: u16,
    pub healthy_after: u16,
}

/// What one check does.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Check {
    /// A TCP connection is accepted.
    Connect,
    /// A GET of this path is answered with 200 to 299.
    Get(Arc<str>),
}

// === impl Health ===

impl Health {
    pub(in crate::relay) fn compile(settings: &HealthSettings, wrong: &mut Vec<Diagnostic>) -> Health {
        let HealthSettings { path, every, timeout, unhealthy_after, healthy_after } = settings;
        let check = match path {
            None => Check::Connect,
            Some(path) => {
                let is_path = path.starts_with('/') && path.bytes().all(|b| b.is_ascii_graphic()) && !path.contains('#');
                if !is_path || path.value.parse::<PathAndQuery>().is_err() {
                    let message = "not a path: expected `/` and visible ASCII characters, such as `/healthz`";
                    wrong.push(Diagnostic::at(&path.place, "bad-path", message));
                }
                Check::Get(path.value.as_str().into())
            }
        };
        let mut period = |period: &Option<At<Period>>, default, least, most| in_range(period.as_ref(), default, least, most, wrong);
        let every = period(every, Period::seconds(5), Period(Duration::from_millis(100)), Period::seconds(3600));
        let limit = period(timeout, Period(Duration::from_secs(1).min(every)), Period(Duration::from_millis(10)), Period::seconds(60));
        if let Some(timeout) = timeout.as_ref().filter(|_| limit > every) {
            let message = format!("`{}` is longer than `every`: expected at most {}", timeout.value, Period(every));
            wrong.push(Diagnostic::at(&timeout.place, "out-of-range", message));
        }
        let mut times = |times: &Option<At<u16>>, default| match times {
            None => default,
            Some(times) => {
                if !(1..=100).contains(&times.value) {
                    let message = format!("`{}` is not a number of checks: expected 1 to 100", times.value);
                    wrong.push(Diagnostic::at(&times.place, "out-of-range", message));
                }
                times.value
            }
        };
        Health { check, every, timeout: limit, unhealthy_after: times(unhealthy_after, 2), healthy_after: times(healthy_after, 1) }
    }

    pub(super) fn thresholds(&self) -> Thresholds {
        Thresholds { unhealthy_after: self.unhealthy_after, healthy_after: self.healthy_after }
    }
}
