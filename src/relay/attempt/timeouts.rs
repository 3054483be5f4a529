//! How long an upstream may take, and on one route: what the route says, else what the upstream says.
//!
//! Decides the values. Does not keep them: see `deadline.rs`. Connecting is the upstream's alone: its connections are shared by routes.

use std::time::Duration;

use http::HeaderName;
use schemars::JsonSchema;
use serde::Deserialize;

use crate::config::diagnostic::Diagnostic;
use crate::config::types::{At, Period};
use crate::relay::message::edits::compile_name;
use crate::relay::upstream::in_range;
use crate::reply::problem::Kind;

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
    /// From the head of the request to the end of the answer, all attempts and the waits between them included. Not for tunnels. 1ms to 24h; default: the
    /// other times bound each attempt.
    pub total: Option<At<Period>>,
    /// The header in which targets are told the milliseconds that are left of `total`, such as `x-request-timeout-ms`; what clients say in it is
    /// replaced. `grpc-timeout` is always brought up to date.
    pub header: Option<At<String>>,
}

/// What a route says instead of its upstream's `timeouts`; what is left out stays the upstream's.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct RouteTimeoutsSettings {
    /// Last byte of the request to the response head. Default: the upstream's.
    pub response: Option<At<Period>>,
    /// Silence between bytes of a body, such as between server-sent events, or of a tunnel. Default: the upstream's.
    pub idle: Option<At<Period>>,
    /// From the head of the request to the end of the answer, all attempts and the waits between them included. Default: the upstream's.
    pub total: Option<At<Period>>,
}

/// How long an upstream may take. No attempt may take for ever.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Timeouts {
    pub connect: Duration,
    pub response: Duration,
    pub idle: Duration,
    /// All attempts together.
    pub total: Option<Duration>,
}

/// The compiled form of what a route says.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct RouteTimeouts {
    pub response: Option<Duration>,
    pub idle: Option<Duration>,
    pub total: Option<Duration>,
}

pub static TOTAL_TIMEOUT: Kind = Kind {
    code: "upstream-total-timeout",
    status: 504,
    error: "Gateway timeout",
    about: "The answer was not complete within `timeouts.total`, all attempts and the waits between them included. The log names each attempt and why it failed.",
};

const LEAST: Duration = Duration::from_millis(1);
const MOST_RESPONSE: Duration = Duration::from_secs(3600);
const MOST_IDLE: Duration = Duration::from_secs(24 * 3600);

// === impl Timeouts ===

impl Timeouts {
    pub fn compile(settings: Option<&TimeoutsSettings>, wrong: &mut Vec<Diagnostic>) -> Timeouts {
        let (mut connect, mut response, mut idle, mut total) = (None, None, None, None);
        if let Some(settings) = settings {
            let TimeoutsSettings { connect: c, response: r, idle: i, total: t, header: _ } = settings;
            (connect, response, idle, total) = (c.as_ref(), r.as_ref(), i.as_ref(), t.as_ref());
        }
        let least = Period(LEAST);
        Timeouts {
            connect: in_range(connect, Period::seconds(1), least, Period::seconds(300), wrong),
            response: in_range(response, Period::seconds(15), least, Period::seconds(3600), wrong),
            idle: in_range(idle, Period::seconds(60), least, Period::seconds(24 * 3600), wrong),
            total: total.map(|total| in_range(Some(total), total.value, least, Period::seconds(24 * 3600), wrong)),
        }
    }
}

/// The header in which targets are told how long they have.
pub fn told_in(settings: Option<&TimeoutsSettings>, wrong: &mut Vec<Diagnostic>) -> Option<HeaderName> {
    let TimeoutsSettings { connect: _, response: _, idle: _, total, header } = settings?;
    let written = header.as_ref()?;
    if total.is_none() {
        let message = "`header` has no effect here: without `total` there is no time to tell";
        wrong.push(Diagnostic::at(&written.place, "inert", message).help("add `total`"));
    }
    compile_name(&written.value, written, wrong)
}

impl Default for Timeouts {
    fn default() -> Self {
        Timeouts::compile(None, &mut Vec::new())
    }
}

// === impl RouteTimeouts ===

impl RouteTimeouts {
    pub fn compile(settings: &At<RouteTimeoutsSettings>) -> Result<Self, Vec<Diagnostic>> {
        let RouteTimeoutsSettings { response, idle, total } = &settings.value;
        let mut wrong = Vec::new();
        if response.is_none() && idle.is_none() && total.is_none() {
            wrong.push(Diagnostic::at(&settings.place, "inert", "this changes nothing: expected `response`, `idle` or `total`"));
        }
        for (period, most) in [(response, MOST_RESPONSE), (idle, MOST_IDLE), (total, MOST_IDLE)] {
            if let Some(period) = period.as_ref().filter(|period| period.0 < LEAST || period.0 > most) {
                let message = format!("`{}` is out of range: expected {} to {}", period.value, Period(LEAST), Period(most));
                wrong.push(Diagnostic::at(&period.place, "out-of-range", message));
            }
        }
        let of = |period: &Option<At<Period>>| period.as_ref().map(|period| period.0);
        if wrong.is_empty() { Ok(RouteTimeouts { response: of(response), idle: of(idle), total: of(total) }) } else { Err(wrong) }
    }

    /// The values that hold on the route.
    pub fn over(&self, upstream: Timeouts) -> Timeouts {
        let Timeouts { connect, response, idle, total } = upstream;
        let RouteTimeouts { response: own_response, idle: own_idle, total: own_total } = *self;
        Timeouts { connect, response: own_response.unwrap_or(response), idle: own_idle.unwrap_or(idle), total: own_total.or(total) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::relay::upstream::tests::at;

    fn compile(response: Option<u64>, idle: Option<u64>) -> Result<RouteTimeouts, Vec<&'static str>> {
        let period = |seconds: Option<u64>| seconds.map(|seconds| at(Period::seconds(seconds)));
        let settings = at(RouteTimeoutsSettings { response: period(response), idle: period(idle), total: None });
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
