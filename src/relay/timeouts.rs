//! How long an upstream may take, and on one route: what the route says, else what the upstream says.
//!
//! Decides the values. Does not keep them: see `deadline.rs`. Connecting is the upstream's alone: its connections are shared by routes.

use std::time::Duration;

use schemars::JsonSchema;
use serde::Deserialize;

use super::upstream::in_range;
use crate::config::diagnostic::Diagnostic;
use crate::config::types::{At, Period};

/// How long an upstream may take. Never infinite.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct TimeoutsSettings {
    /// To accept a connection. Default 1s.
    pub connect: Option<At<Period>>,
    /// From the last byte of the request to the head of the response. Default 15s.
    pub response: Option<At<Period>>,
    /// Silence between bytes of a body or a tunnel. Default 60s.
    pub idle: Option<At<Period>>,
}

/// What a route says instead of its upstream's `timeouts`; what is left out stays the upstream's.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct RouteTimeoutsSettings {
    /// Last byte of the request to the response head. Default: the upstream's.
    pub response: Option<At<Period>>,
    /// Silence between bytes of a body, such as between server-sent events, or of a tunnel. Default: the upstream's.
    pub idle: Option<At<Period>>,
}

/// How long an upstream may take. None is ever infinite.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Timeouts {
    pub connect: Duration,
    pub response: Duration,
    pub idle: Duration,
}

/// The compiled form of what a route says.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct RouteTimeouts {
    pub response: Option<Duration>,
    pub idle: Option<Duration>,
}

const LEAST: Duration = Duration::from_millis(1);
const MOST_RESPONSE: Duration = Duration::from_secs(3600);
const MOST_IDLE: Duration = Duration::from_secs(24 * 3600);

// === impl Timeouts ===

impl Timeouts {
    pub fn compile(settings: Option<&TimeoutsSettings>, wrong: &mut Vec<Diagnostic>) -> Timeouts {
        let (mut connect, mut response, mut idle) = (None, None, None);
        if let Some(settings) = settings {
            let TimeoutsSettings { connect: c, response: r, idle: i } = settings;
            (connect, response, idle) = (c.as_ref(), r.as_ref(), i.as_ref());
        }
        let least = Period(Duration::from_millis(1));
        Timeouts {
            connect: in_range(connect, Period::seconds(1), least, Period::seconds(300), wrong),
            response: in_range(response, Period::seconds(15), least, Period::seconds(3600), wrong),
            idle: in_range(idle, Period::seconds(60), least, Period::seconds(24 * 3600), wrong),
        }
    }
}

impl Default for Timeouts {
    fn default() -> Self {
        Timeouts::compile(None, &mut Vec::new())
    }
}

// === impl RouteTimeouts ===

impl RouteTimeouts {
    pub fn compile(settings: &At<RouteTimeoutsSettings>) -> Result<Self, Vec<Diagnostic>> {
        let RouteTimeoutsSettings { response, idle } = &settings.value;
        let mut wrong = Vec::new();
        if response.is_none() && idle.is_none() {
            wrong.push(Diagnostic::at(&settings.place, "inert", "this changes nothing: expected `response` or `idle`"));
        }
        for (period, most) in [(response, MOST_RESPONSE), (idle, MOST_IDLE)] {
            if let Some(period) = period.as_ref().filter(|period| period.0 < LEAST || period.0 > most) {
                let message = format!("`{}` is out of range: expected {} to {}", period.value, Period(LEAST), Period(most));
                wrong.push(Diagnostic::at(&period.place, "out-of-range", message));
            }
        }
        let of = |period: &Option<At<Period>>| period.as_ref().map(|period| period.0);
        if wrong.is_empty() { Ok(RouteTimeouts { response: of(response), idle: of(idle) }) } else { Err(wrong) }
    }

    /// The values that hold on the route.
    pub fn over(&self, upstream: Timeouts) -> Timeouts {
        let Timeouts { connect, response, idle } = upstream;
        Timeouts { connect, response: self.response.unwrap_or(response), idle: self.idle.unwrap_or(idle) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::relay::upstream::tests::at;

    fn compile(response: Option<u64>, idle: Option<u64>) -> Result<RouteTimeouts, Vec<&'static str>> {
        let period = |seconds: Option<u64>| seconds.map(|seconds| at(Period::seconds(seconds)));
        let settings = at(RouteTimeoutsSettings { response: period(response), idle: period(idle) });
        RouteTimeouts::compile(&settings).map_err(|wrong| wrong.iter().map(|one| one.code).collect())
    }

    #[test]
    fn what_a_route_leaves_out_is_the_upstreams() {
        let upstream = Timeouts::default();
        assert_eq!(RouteTimeouts::default().over(upstream), upstream);
        let longer = compile(None, Some(3600)).unwrap().over(upstream);
        assert_eq!((longer.connect, longer.response, longer.idle.as_secs()), (upstream.connect, upstream.response, 3600));
        assert_eq!(compile(Some(1), None).unwrap().over(upstream).response.as_secs(), 1);
    }

    #[test]
    fn what_says_nothing_or_never_ends_is_a_mistake() {
        assert_eq!(compile(None, None), Err(vec!["inert"]));
        assert_eq!(compile(Some(0), Some(24 * 3600 + 1)), Err(vec!["out-of-range", "out-of-range"]));
        assert_eq!(compile(Some(3601), Some(0)), Err(vec!["out-of-range", "out-of-range"]));
    }
}
