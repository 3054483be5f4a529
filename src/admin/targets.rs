//! What `/status` tells of upstreams and their targets: what is in, what is out and why, how requests fared there.
//!
//! Decides how it is written. Does not know more than the reports of `relay` say.

use std::collections::BTreeMap;

use serde::Serialize;

use super::Moment;
use crate::policy::priority::Priority;
use crate::relay::adaptive::Concurrency;
use crate::relay::targets::endpoint::EndpointReport;
use crate::relay::targets::group::GroupReport;
use crate::relay::targets::standing::Out;
use crate::relay::targets::target::TargetReport;

/// An upstream as a whole.
#[derive(Debug, Serialize)]
pub struct UpstreamStatus {
    /// `closed`, `open` or `half_open`.
    pub circuit: String,
    /// Why it is not closed.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub reason: String,
    /// When the circuit turned last.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub since: Option<Moment>,
    /// When an open one is probed.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub until: Option<Moment>,
    /// So many addresses are out that all are used.
    pub panic: bool,
    /// Requests in its queue.
    pub waiting: usize,
    /// Connections that are open, where there may be so many only.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub connections: Option<u32>,
    /// Where it is found out how many it can take.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub concurrency: Option<ConcurrencyStatus>,
}

/// How many requests an upstream gets at once.
#[derive(Debug, Serialize)]
pub struct ConcurrencyStatus {
    pub limit: u32,
    pub in_flight: u32,
    /// How long an answer takes without a queue; none where that is not known yet.
    pub base_ms: Option<f64>,
}

#[derive(Debug, Serialize)]
pub struct TargetStatus {
    pub address: String,
    /// Whether it is given requests.
    pub healthy: bool,
    /// When it became so; none where it has been so since the start.
    pub since: Option<Moment>,
    pub requests_in_flight: u64,
    /// That were sent here, since the start.
    pub requests: u64,
    /// Attempts that failed and answers of 500 and above, by kind, since the start.
    pub errors: BTreeMap<&'static str, u64>,
    /// To the head of an answer, in the last half minute.
    pub latency: LatencyStatus,
    /// What it is chosen by; none where no configuration has it any more.
    #[serde(flatten)]
    pub share: Option<ShareStatus>,
    /// Where it has several addresses, or something speaks against its one.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub addresses: Vec<AddressStatus>,
}

/// What a target is chosen by.
#[derive(Debug, Serialize)]
pub struct ShareStatus {
    /// At this moment: less than was written while it starts slowly.
    pub weight: f64,
    pub priority: u16,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub zone: Option<String>,
}

#[derive(Debug, Default, Serialize)]
pub struct LatencyStatus {
    pub answers: u64,
    pub p50_ms: Option<f64>,
    pub p99_ms: Option<f64>,
}

#[derive(Debug, Serialize)]
pub struct AddressStatus {
    pub address: String,
    /// `in`, `out`, or `probed`: a few requests find out whether it works again.
    pub state: &'static str,
    pub since: Option<Moment>,
    /// Every cause for which it is out, or would be if not too many were.
    pub causes: Vec<CauseStatus>,
    /// Why the last check failed.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub last_check: String,
}

#[derive(Debug, Serialize)]
pub struct CauseStatus {
    /// `check`, `ejected`, `circuit` or `drained`.
    pub cause: &'static str,
    pub since: Moment,
    pub reason: String,
    /// When it comes back by itself.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub until: Option<Moment>,
}

fn moment(unix_ms: u64) -> Option<Moment> {
    (unix_ms > 0).then_some(Moment(unix_ms))
}

// === impl UpstreamStatus ===

impl From<GroupReport> for UpstreamStatus {
    fn from(report: GroupReport) -> Self {
        let GroupReport {
            upstream: _,
            circuit,
            reason,
            since_unix_ms,
            until_unix_ms,
            opened: _,
            panic,
            spared: _,
            waiting,
            connections,
            over: _,
            concurrency,
        } = report;
        UpstreamStatus {
            circuit,
            reason,
            since: moment(since_unix_ms),
            until: moment(until_unix_ms),
            panic,
            waiting,
            connections,
            concurrency: concurrency.map(ConcurrencyStatus::from),
        }
    }
}

impl UpstreamStatus {
    /// Where it has so many requests that some are refused.
    pub fn full(&self) -> Option<&ConcurrencyStatus> {
        self.concurrency.as_ref().filter(|now| now.in_flight >= Priority::Lowest.share_of(now.limit) && now.in_flight > 1)
    }
}

// === impl ConcurrencyStatus ===

impl From<Concurrency> for ConcurrencyStatus {
    fn from(Concurrency { limit, in_flight, base }: Concurrency) -> Self {
        ConcurrencyStatus { limit, in_flight, base_ms: base.map(|base| base.as_micros() as f64 / 1_000.0) }
    }
}

// === impl TargetStatus ===

impl From<TargetReport> for TargetStatus {
    fn from(report: TargetReport) -> Self {
        let healthy = report.is_healthy();
        let since = report.endpoints.iter().map(|endpoint| endpoint.since_unix_ms).max().and_then(moment);
        let ms = |time: std::time::Duration| time.as_micros() as f64 / 1_000.0;
        let shown = report.endpoints.len() > 1 || report.endpoints.iter().any(|e| !e.outs.is_empty() || e.probed || !e.reason.is_empty());
        TargetStatus {
            address: report.target,
            healthy,
            since,
            requests_in_flight: u64::from(report.in_flight),
            requests: report.chosen,
            errors: report.errors.into_iter().collect(),
            latency: LatencyStatus { answers: report.recent.answers, p50_ms: report.recent.p50.map(ms), p99_ms: report.recent.p99.map(ms) },
            share: None,
            addresses: if shown { report.endpoints.into_iter().map(AddressStatus::from).collect() } else { Vec::new() },
        }
    }
}

// === impl AddressStatus ===

impl From<EndpointReport> for AddressStatus {
    fn from(report: EndpointReport) -> Self {
        let EndpointReport { address, healthy, since_unix_ms, reason, outs, probed } = report;
        let state = match (healthy, probed) {
            (false, _) => "out",
            (true, true) => "probed",
            (true, false) => "in",
        };
        AddressStatus {
            address,
            state,
            since: moment(since_unix_ms),
            causes: outs.into_iter().map(CauseStatus::from).collect(),
            last_check: reason,
        }
    }
}

// === impl CauseStatus ===

impl From<Out> for CauseStatus {
    fn from(out: Out) -> Self {
        let Out { cause, since_unix_ms, reason, until_unix_ms } = out;
        CauseStatus { cause: cause.as_str(), since: Moment(since_unix_ms), reason, until: until_unix_ms.map(Moment) }
    }
}
