//! Decides which outcomes of requests take an address out, for how long, and how many may be out, as written.

use std::time::Duration;

use schemars::JsonSchema;
use serde::Deserialize;

use crate::config::diagnostic::Diagnostic;
use crate::config::types::{At, Percent, Period};
use crate::relay::upstream::{in_range, share, whole};

/// Takes addresses out at which requests fare badly, without asking them.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct OutlierDetectionSettings {
    /// So many attempts in a row without an answer: no connection, a timeout, a reset, what is no HTTP. 0: never; to 1000; default 5.
    pub connection_failures: Option<At<u32>>,
    /// So many attempts in a row without an answer or with 502, 503 or 504. 0: never; to 1000; default 5.
    pub gateway_errors: Option<At<u32>>,
    /// So many attempts in a row without an answer or with 500 and above. 0: never; to 1000; default 0, since a 500 is often the request's fault.
    pub server_errors: Option<At<u32>>,
    /// Takes out who fails more than the others.
    pub success_rate: Option<SuccessRateSettings>,
    /// Takes out who is slower than the others.
    pub latency: Option<SlownessSettings>,
    /// How often they are compared with each other. 1s to 10m; default 10s.
    pub every: Option<At<Period>>,
    /// How long one is out the first time; the second time twice as long, and so on. 100ms to 1h; default 30s.
    pub eject_for: Option<At<Period>>,
    /// The longest that one is out. To 24h; default 5m.
    pub eject_at_most: Option<At<Period>>,
    /// How much of the upstream may be ejected at once. Below 100%, the last address that works is never ejected. Default 50%.
    pub max_ejected: Option<At<Percent>>,
}

/// Compared are the addresses with enough requests, at least three, with their median.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct SuccessRateSettings {
    /// Its share of requests that went well is lower than the median by more than so many percentage points. 1 to 99; default 20.
    pub points: Option<At<u32>>,
    /// Who had fewer requests since the last time is not compared. 1 to 1000000; default 50.
    pub min_requests: Option<At<u32>>,
}

/// Compared are the addresses with enough requests, at least three, with their median.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct SlownessSettings {
    /// Its mean time to the head of an answer is more than so many times the median. 2 to 1000; default 3.
    pub times: Option<At<u32>>,
    /// Who is faster than this is not slow, however fast the others are. 1ms to 1h; default 50ms.
    pub above: Option<At<Period>>,
    /// Who had fewer requests since the last time is not compared. 1 to 1000000; default 50.
    pub min_requests: Option<At<u32>>,
}

/// The compiled form. A count of 0 is never reached.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OutlierDetection {
    pub connection_failures: u32,
    pub gateway_errors: u32,
    pub server_errors: u32,
    pub success_rate: Option<SuccessRate>,
    pub latency: Option<Slowness>,
    pub every: Duration,
    pub eject_for: Duration,
    pub eject_at_most: Duration,
    pub max_ejected: Percent,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SuccessRate {
    pub points: u32,
    pub min_requests: u32,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Slowness {
    pub times: u32,
    pub above: Duration,
    pub min_requests: u32,
}

// === impl OutlierDetection ===

impl OutlierDetection {
    pub(in crate::relay) fn compile(settings: &At<OutlierDetectionSettings>, wrong: &mut Vec<Diagnostic>) -> Self {
        let OutlierDetectionSettings {
            connection_failures,
            gateway_errors,
            server_errors,
            success_rate,
            latency,
            every,
            eject_for,
            eject_at_most,
            max_ejected,
        } = &settings.value;
        let times = |value: &Option<At<u32>>, default, wrong: &mut Vec<Diagnostic>| whole(value.as_ref(), default, 0..=1_000, wrong);
        let enough = |value: &Option<At<u32>>, wrong: &mut Vec<Diagnostic>| whole(value.as_ref(), 50, 1..=1_000_000, wrong);
        let success_rate = success_rate.as_ref().map(|SuccessRateSettings { points, min_requests }| SuccessRate {
            points: whole(points.as_ref(), 20, 1..=99, wrong),
            min_requests: enough(min_requests, wrong),
        });
        let latency = latency.as_ref().map(|SlownessSettings { times, above, min_requests }| Slowness {
            times: whole(times.as_ref(), 3, 2..=1_000, wrong),
            above: in_range(
                above.as_ref(),
                Period(Duration::from_millis(50)),
                Period(Duration::from_millis(1)),
                Period::seconds(3600),
                wrong,
            ),
            min_requests: enough(min_requests, wrong),
        });
        if let Some(every) = every.as_ref().filter(|_| success_rate.is_none() && latency.is_none()) {
            let message = "`every` has no effect: nothing is compared without `success_rate` or `latency`";
            wrong.push(Diagnostic::at(&every.place, "inert", message));
        }
        let least = Period(Duration::from_millis(100));
        let eject_for = in_range(eject_for.as_ref(), Period::seconds(30), least, Period::seconds(3600), wrong);
        let longest = Period(Duration::from_secs(300).max(eject_for));
        let compiled = OutlierDetection {
            connection_failures: times(connection_failures, 5, wrong),
            gateway_errors: times(gateway_errors, 5, wrong),
            server_errors: times(server_errors, 0, wrong),
            success_rate,
            latency,
            every: in_range(every.as_ref(), Period::seconds(10), Period::seconds(1), Period::seconds(600), wrong),
            eject_for,
            eject_at_most: in_range(eject_at_most.as_ref(), longest, Period(eject_for), Period::seconds(24 * 3600), wrong),
            max_ejected: share(max_ejected.as_ref(), Percent(5_000), wrong),
        };
        let counts = [compiled.connection_failures, compiled.gateway_errors, compiled.server_errors];
        if counts == [0; 3] && compiled.success_rate.is_none() && compiled.latency.is_none() {
            let message = "this takes nothing out: every count is 0, and nothing is compared";
            wrong.push(Diagnostic::at(&settings.place, "inert", message).help("remove it, or leave a count out for its default"));
        }
        compiled
    }

    /// In one line, for `explain`.
    pub fn told(&self) -> String {
        let counts = [
            (self.connection_failures, "attempts without an answer"),
            (self.gateway_errors, "gateway errors"),
            (self.server_errors, "server errors"),
        ];
        let in_a_row = counts.iter().filter(|(count, _)| *count > 0).map(|(count, what)| format!("{count} {what} in a row"));
        let rate = self.success_rate.map(|rate| format!("a success rate {} points below the others'", rate.points));
        let slow = self.latency.map(|slow| format!("answers that take {} times as long as the others'", slow.times));
        let all: Vec<_> = in_a_row.chain(rate).chain(slow).collect();
        format!(
            "an address is ejected for {} to {} after {}; at most {} at once",
            Period(self.eject_for),
            Period(self.eject_at_most),
            all.join(", "),
            self.max_ejected
        )
    }
}
