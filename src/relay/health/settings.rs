//! Decides how an upstream's targets are checked: what one check does, how often, how many it takes.
//!
//! Does not run checks (`probe.rs`, `mod.rs`).

use std::sync::Arc;
use std::time::Duration;

use http::uri::PathAndQuery;
use schemars::JsonSchema;
use serde::Deserialize;

use super::expect::{Expect, ExpectSettings};
use super::tracker::Thresholds;
use crate::config::diagnostic::Diagnostic;
use crate::config::types::{At, Period};
use crate::relay::upstream::in_range;

/// Active health checks.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct HealthSettings {
    /// A path to GET; 200 to 299 is healthy. Without it, a TCP connection is.
    pub path: Option<At<String>>,
    /// What a healthy answer to `path` is like, where that is more than a status of 200 to 299.
    pub expect: Option<At<ExpectSettings>>,
    /// Asks the standard health service of gRPC (`grpc.health.v1`) for this service, over HTTP/2; `""` is the server as a whole.
    pub grpc: Option<At<String>>,
    /// Another port than that of requests. 1 to 65535.
    pub port: Option<At<u16>>,
    /// How often. Default 5s.
    pub every: Option<At<Period>>,
    /// How often while checks have taken an address of the target out. 100ms to 1h; default as `every`.
    pub every_when_out: Option<At<Period>>,
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
    pub port: Option<u16>,
    pub every: Duration,
    pub every_when_out: Duration,
    pub timeout: Duration,
    pub unhealthy_after: u16,
    pub healthy_after: u16,
}

/// What one check does.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Check {
    /// A TCP connection is accepted.
    Connect,
    /// A GET of this path is answered as expected.
    Get(Arc<str>, Expect),
    /// This service says that it serves.
    Grpc(Arc<str>),
}

// === impl Health ===

impl Health {
    /// `has_sockets`: some target is a Unix socket.
    pub(in crate::relay) fn compile(settings: &HealthSettings, has_sockets: bool, wrong: &mut Vec<Diagnostic>) -> Health {
        let HealthSettings { path, expect, grpc, port, every, every_when_out, timeout, unhealthy_after, healthy_after } = settings;
        if let (Some(_), Some(grpc)) = (path, grpc) {
            wrong.push(Diagnostic::at(&grpc.place, "choose-one", "`path` and `grpc` exclude each other: expected one of them"));
        }
        if let Some(expect) = expect.as_ref().filter(|_| path.is_none()) {
            let message = "`expect` has no effect: there is no answer to judge without `path`";
            wrong.push(Diagnostic::at(&expect.place, "inert", message));
        }
        if let Some(port) = port {
            if port.value == 0 {
                wrong.push(Diagnostic::at(&port.place, "out-of-range", "`0` is out of range: expected 1 to 65535"));
            }
            if has_sockets {
                wrong.push(
                    Diagnostic::at(&port.place, "inert", "`port` has no effect on a Unix socket").help("give it an upstream of its own"),
                );
            }
        }
        let expect = expect.as_ref().map(|expect| Expect::compile(expect, wrong)).unwrap_or_default();
        let check = match (path, grpc) {
            (None, None) => Check::Connect,
            (None, Some(service)) => {
                if service.len() > 127 || !service.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'_' | b'-' | b'/')) {
                    let message = "not the name of a service: expected letters, digits, `.`, `_`, `-` and `/`, such as `orders.v1.Orders`";
                    wrong.push(Diagnostic::at(&service.place, "bad-value", message));
                }
                Check::Grpc(service.value.as_str().into())
            }
            (Some(path), _) => {
                let is_path = path.starts_with('/') && path.bytes().all(|b| b.is_ascii_graphic()) && !path.contains('#');
                if !is_path || path.value.parse::<PathAndQuery>().is_err() {
                    let message = "not a path: expected `/` and visible ASCII characters, such as `/healthz`";
                    wrong.push(Diagnostic::at(&path.place, "bad-path", message));
                }
                Check::Get(path.value.as_str().into(), expect)
            }
        };
        let mut period = |period: &Option<At<Period>>, default, least, most| in_range(period.as_ref(), default, least, most, wrong);
        let every = period(every, Period::seconds(5), Period(Duration::from_millis(100)), Period::seconds(3600));
        let every_when_out = period(every_when_out, Period(every), Period(Duration::from_millis(100)), Period::seconds(3600));
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
        Health {
            check,
            port: port.as_ref().map(|port| port.value),
            every,
            every_when_out,
            timeout: limit,
            unhealthy_after: times(unhealthy_after, 2),
            healthy_after: times(healthy_after, 1),
        }
    }

    pub(super) fn thresholds(&self) -> Thresholds {
        Thresholds { unhealthy_after: self.unhealthy_after, healthy_after: self.healthy_after }
    }
}
