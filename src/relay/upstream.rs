//! Decides what an upstream is: its targets, how one is chosen, how health is checked, how long things may take.
//!
//! Does not decide which target a request gets (`balance.rs`) nor keeps what changes while it runs (`pool.rs`).

use std::ops::RangeInclusive;
use std::sync::Arc;
use std::time::Duration;

use http::HeaderName;
use schemars::JsonSchema;
use serde::Deserialize;

use super::adaptive::{Adaptive, AdaptiveSettings};
use super::admit::{Queue, QueueSettings};
use super::balance::hash_by::HashBy;
use super::balance::sticky::{Sticky, StickySettings};
use super::circuit::settings::{CircuitBreaker, CircuitBreakerSettings};
use super::finding::{Source, TargetsFromSettings};
use super::health::settings::{Health, HealthSettings};
use super::outliers::settings::{OutlierDetection, OutlierDetectionSettings};
use super::retries::{Retries, RetriesSettings};
use crate::config::diagnostic::Diagnostic;
use crate::config::types::{At, Percent, Period};
use crate::relay::attempt::protocol::{Http2, Protocol, UpstreamHttp2Settings};
use crate::relay::attempt::proxied::ProxyVersion;
use crate::relay::attempt::reuse::{PoolSettings, Reuse};
use crate::relay::attempt::timeouts::{Timeouts, TimeoutsSettings, told_in};
use crate::relay::attempt::tls::{UpstreamTls, UpstreamTlsSettings};
use crate::relay::targets::drain;
use crate::relay::targets::members::{Member, TargetSettings, compile_targets};

/// A service behind the gateway.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct UpstreamSettings {
    /// Where it runs: `host:port` or `unix:/path`, or `{ address: host:port, weight: 2 }`. Names are resolved in the background, again and again.
    /// Either these or `targets_from`.
    pub targets: Option<At<Vec<At<TargetSettings>>>>,
    /// Where its targets are found, again and again.
    pub targets_from: Option<At<TargetsFromSettings>>,
    /// What is spoken to the targets. Default `http1`.
    pub protocol: Option<At<Protocol>>,
    /// How HTTP/2 connections are used, where HTTP/2 is spoken.
    pub http2: Option<At<UpstreamHttp2Settings>>,
    /// TLS towards the targets, and whom they have to be. Without it, plain connections.
    pub tls: Option<At<UpstreamTlsSettings>>,
    /// Tells targets the client's address before anything else, by the PROXY protocol: `v1` or `v2`. Each request then has a connection of its own.
    pub proxy_protocol: Option<At<ProxyVersion>>,
    /// How connections are kept for later requests.
    pub pool: Option<At<PoolSettings>>,
    /// How a target is chosen. Default `round_robin`.
    pub balance: Option<At<Balance>>,
    /// With `balance: hash`: what requests are told apart by, the first of the list that a request has: `header:NAME`, `cookie:NAME`,
    /// `query:NAME`, `path:NAME` (a name in the route's path), `consumer` or `client_ip` (v6 by /64). A request that has none goes to any target.
    pub hash_by: Option<At<Vec<At<HashBy>>>>,
    /// Keeps each client at the target that it had first, by a cookie.
    pub sticky: Option<At<StickySettings>>,
    /// How long a target that is new or has come back takes to get its whole share: a tenth of it at first. Default: it has it at once.
    pub slow_start: Option<At<Period>>,
    /// How the gateway finds out which targets work. Without it, all are taken to work.
    pub health: Option<HealthSettings>,
    /// Takes addresses out at which requests fare badly, and brings them back after a while.
    pub outlier_detection: Option<At<OutlierDetectionSettings>>,
    /// Sends nothing for a while to an upstream, or to a target, at which too much fails.
    pub circuit_breaker: Option<CircuitBreakerSettings>,
    /// Where fewer than this share of the addresses is sound by checks and by `outlier_detection`, all are used: the fault is then more
    /// likely with who judges, and the few that are left would not bear everything. Default: never.
    pub panic_threshold: Option<At<Percent>>,
    /// How many requests it takes at once, of all its targets together; a connection of HTTP/1 carries one. 1 to 1000000; default: any number.
    pub max_requests: Option<At<u32>>,
    /// How many connections to its targets are open at once, over all workers, those at rest included; over HTTP/1. A request that would need one
    /// more waits in `queue`. A worker that has none to the chosen address opens one all the same. 1 to 1000000; default: any number.
    pub max_connections: Option<At<u32>>,
    /// Where requests wait that are more than `max_requests`, or for which `max_connections` leaves no connection. Without it, they are refused.
    pub queue: Option<At<QueueSettings>>,
    /// How many requests it gets at once, found out from how long it takes for them: fewer when answers get slower. Default: any number.
    pub adaptive_concurrency: Option<AdaptiveSettings>,
    /// How long it may take.
    pub timeouts: Option<TimeoutsSettings>,
    /// Whether another attempt is made.
    pub retries: Option<At<RetriesSettings>>,
}

/// How a target is chosen.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Balance {
    /// Smooth weighted round robin.
    RoundRobin,
    /// The less busy of two chosen at random, by weight.
    LeastRequests,
    /// Of two chosen at random by weight, the one that is likely to answer sooner: how long it took lately, the slowest answers
    /// counting most, times the requests that it has.
    PeakEwma,
    /// Any, by weight.
    Random,
    /// Requests with the same key (`hash_by`) go to the same target, on every gateway. Where targets come and go, few keys move. A target
    /// that has more than four requests and a quarter more than its share gives the next to another.
    Hash,
}

/// An upstream as it runs: immutable, compiled at load.
#[derive(Clone, Debug)]
pub struct Upstream {
    pub name: Arc<str>,
    /// In the order of the file, without duplicates. At least one where there is no source.
    pub targets: Vec<Member>,
    /// Where others are found.
    pub source: Option<Source>,
    /// Which of those that are found the operator has taken out.
    pub drained: Box<[Arc<str>]>,
    pub protocol: Protocol,
    pub http2: Http2,
    pub tls: Option<UpstreamTls>,
    /// Whether targets are told the client's address.
    pub proxy_protocol: Option<ProxyVersion>,
    pub reuse: Reuse,
    pub balance: Balance,
    /// What `Balance::Hash` goes by; else empty.
    pub hash_by: Box<[HashBy]>,
    pub sticky: Option<Sticky>,
    pub slow_start: Option<Duration>,
    /// Where this gateway is.
    pub zone: Option<Arc<str>>,
    /// None: every target is taken to work.
    pub health: Option<Health>,
    pub outlier_detection: Option<OutlierDetection>,
    pub circuit_breaker: Option<CircuitBreaker>,
    pub panic_threshold: Option<Percent>,
    pub max_requests: Option<u32>,
    pub max_connections: Option<u32>,
    pub queue: Option<Queue>,
    pub adaptive: Option<Adaptive>,
    pub timeouts: Timeouts,
    /// The header in which targets are told how long they have.
    pub told_in: Option<HeaderName>,
    pub retries: Retries,
}

// === impl Upstream ===

impl Upstream {
    /// Compiles what the user wrote. All mistakes at once.
    pub fn compile(name: &str, settings: &UpstreamSettings) -> Result<Upstream, Vec<Diagnostic>> {
        let UpstreamSettings {
            targets,
            targets_from,
            protocol,
            http2,
            tls,
            proxy_protocol,
            pool,
            balance,
            hash_by,
            sticky,
            slow_start,
            health,
            outlier_detection,
            circuit_breaker,
            panic_threshold,
            max_requests,
            max_connections,
            queue,
            adaptive_concurrency,
            timeouts,
            retries,
        } = settings;
        let mut wrong = Vec::new();
        let (protocol, http2) = Protocol::compile(protocol.as_ref(), http2.as_ref(), tls.is_some(), &mut wrong);
        let tls = tls.as_ref().and_then(|tls| UpstreamTls::compile(tls, protocol).map_err(|found| wrong.extend(found)).ok());
        let has_name = tls.as_ref().is_none_or(UpstreamTls::has_name);
        let (members, source) = match (targets, targets_from) {
            (Some(targets), _) => {
                let members = compile_targets(targets, &mut wrong);
                nameless(targets, &members, has_name, &mut wrong);
                (members, None)
            }
            (None, Some(from)) => match Source::compile(from, has_name, &mut wrong) {
                Some((source, members)) => (members, Some(source)),
                None => (Vec::new(), None),
            },
            (None, None) => (Vec::new(), None),
        };
        let drained = targets_from.as_ref().map(|from| drain::compile(from, &mut wrong)).unwrap_or_default();
        let proxy_protocol = proxy_protocol.as_ref().map(|version| version.value);
        let reuse = Reuse::compile(pool.as_ref(), proxy_protocol.is_some(), &mut wrong);
        let has_sockets = members.iter().any(|member| member.address.socket().is_some());
        let health = health.as_ref().map(|settings| Health::compile(settings, has_sockets, &mut wrong));
        let told_in = told_in(timeouts.as_ref(), &mut wrong);
        let outliers = outlier_detection.as_ref().map(|settings| OutlierDetection::compile(settings, &mut wrong));
        let circuit_breaker = circuit_breaker.as_ref().map(|settings| CircuitBreaker::compile(settings, &mut wrong));
        if let Some(panic) = panic_threshold.as_ref().filter(|_| health.is_none() && outliers.is_none()) {
            let message = "`panic_threshold` has no effect: nothing is taken out without `health` or `outlier_detection`";
            wrong.push(Diagnostic::at(&panic.place, "inert", message));
        }
        let panic_threshold = panic_threshold.as_ref().map(|panic| share(Some(panic), panic.value, &mut wrong));
        let max_requests = max_requests.as_ref().map(|most| whole(Some(most), 0, 1..=1_000_000, &mut wrong));
        if let Some(most) = max_connections.as_ref().filter(|_| protocol != Protocol::Http1) {
            let message = "`max_connections` is for HTTP/1 only: over HTTP/2 one connection carries many requests";
            wrong.push(Diagnostic::at(&most.place, "inert", message).help("bound the requests with `max_requests`"));
        }
        let max_connections = max_connections.as_ref().map(|most| whole(Some(most), 0, 1..=1_000_000, &mut wrong));
        let queue = Queue::compile(queue.as_ref(), max_requests.is_some() || max_connections.is_some(), &mut wrong);
        let adaptive = adaptive_concurrency.as_ref().map(|settings| Adaptive::compile(settings, &mut wrong));
        let timeouts = Timeouts::compile(timeouts.as_ref(), &mut wrong);
        let retries = Retries::compile(retries.as_ref(), protocol, &mut wrong);
        let sticky = sticky.as_ref().map(|sticky| Sticky::compile(sticky, &mut wrong));
        let slow_start = slow_start.as_ref();
        let slow_start = slow_start.map(|at| in_range(Some(at), at.value, Period::seconds(1), Period::seconds(3600), &mut wrong));
        if !wrong.is_empty() {
            return Err(wrong);
        }
        let balance = balance.as_ref().map_or(Balance::RoundRobin, |balance| balance.value);
        let hash_by = hash_by.iter().flat_map(|by| &by.value).map(|by| by.value.clone()).collect();
        Ok(Upstream {
            name: name.into(),
            targets: members,
            source,
            drained,
            protocol,
            http2,
            tls,
            proxy_protocol,
            reuse,
            balance,
            hash_by,
            sticky,
            slow_start,
            zone: None,
            health,
            outlier_detection: outliers,
            circuit_breaker,
            panic_threshold,
            max_requests,
            max_connections,
            queue,
            adaptive,
            timeouts,
            told_in,
            retries,
        })
    }
}

impl Upstream {
    /// Whether requests of one caller belong to one target.
    pub fn keeps_callers(&self) -> bool {
        self.balance == Balance::Hash || self.sticky.is_some()
    }
}

/// What keeps requests from targets that fail and from one that has enough, a line each; for `explain`.
pub fn guards(upstream: &Upstream) -> Vec<String> {
    let outliers = upstream.outlier_detection.as_ref().map(OutlierDetection::told);
    let circuit = upstream.circuit_breaker.as_ref().map(CircuitBreaker::told);
    let panic = upstream.panic_threshold.map(|least| format!("all addresses are used when less than {least} are sound"));
    let wait = upstream.queue.map(|Queue { length, wait }| format!("; {length} more wait up to {}", Period(wait))).unwrap_or_default();
    let most = upstream.max_requests.map(|most| format!("{most} requests at once{wait}"));
    let connections = upstream.max_connections.map(|most| format!("{most} connections at once{wait}"));
    let drained = (!upstream.drained.is_empty()).then(|| format!("drained where it is found: {}", upstream.drained.join(", ")));
    let adaptive = upstream.adaptive.map(Adaptive::told);
    [outliers, circuit, panic, most, connections, adaptive, drained].into_iter().flatten().collect()
}

/// With TLS a target has to be somebody, and a Unix socket names nobody.
fn nameless(targets: &At<Vec<At<TargetSettings>>>, members: &[Member], has_name: bool, wrong: &mut Vec<Diagnostic>) {
    if !has_name && members.iter().any(|member| member.address.socket().is_some()) {
        let message = "a Unix socket has no name that a certificate could be for: expected `tls.server_name`";
        wrong.push(Diagnostic::at(&targets.place, "upstream-tls", message));
    }
}

/// A whole number, or a mistake.
pub(in crate::relay) fn whole(value: Option<&At<u32>>, default: u32, range: RangeInclusive<u32>, wrong: &mut Vec<Diagnostic>) -> u32 {
    let Some(value) = value else { return default };
    if !range.contains(&value.value) {
        let message = format!("`{}` is out of range: expected {} to {}", value.value, range.start(), range.end());
        wrong.push(Diagnostic::at(&value.place, "out-of-range", message));
    }
    value.value
}

/// A share above nought, or a mistake.
pub(in crate::relay) fn share(value: Option<&At<Percent>>, default: Percent, wrong: &mut Vec<Diagnostic>) -> Percent {
    let Some(value) = value else { return default };
    if value.value.0 == 0 {
        wrong.push(Diagnostic::at(&value.place, "out-of-range", "`0%` is out of range: expected more, up to 100%"));
    }
    value.value
}

pub(in crate::relay) fn in_range(
    period: Option<&At<Period>>,
    default: Period,
    least: Period,
    most: Period,
    wrong: &mut Vec<Diagnostic>,
) -> Duration {
    let Some(period) = period else { return default.0 };
    if period.value < least || period.value > most {
        let message = format!("`{}` is out of range: expected {least} to {most}", period.value);
        wrong.push(Diagnostic::at(&period.place, "out-of-range", message));
    }
    period.value.0
}

#[cfg(test)]
pub(crate) mod tests {
    use std::num::NonZeroU16;

    use super::*;
    use crate::config::diagnostic::{Place, Source};
    use crate::relay::health::settings::Check;

    /// A value written at the start of some file.
    pub(crate) fn at<T>(value: T) -> At<T> {
        let source = Arc::new(Source::new("test.yaml", ""));
        At { value, place: Place { source, line: 1, column: 1, width: 1 } }
    }

    pub(crate) fn settings(targets: &[(&str, u16)]) -> UpstreamSettings {
        let target = |(address, weight): &(&str, u16)| {
            let weight = NonZeroU16::new(*weight).map(at);
            at(TargetSettings { address: at((*address).to_owned()), weight, drain: false, priority: None, zone: None })
        };
        let targets = at(targets.iter().map(target).collect());
        UpstreamSettings {
            targets: Some(targets),
            targets_from: None,
            protocol: None,
            http2: None,
            tls: None,
            proxy_protocol: None,
            pool: None,
            balance: None,
            hash_by: None,
            sticky: None,
            slow_start: None,
            health: None,
            outlier_detection: None,
            circuit_breaker: None,
            panic_threshold: None,
            max_requests: None,
            max_connections: None,
            queue: None,
            adaptive_concurrency: None,
            timeouts: None,
            retries: None,
        }
    }

    fn codes(result: Result<Upstream, Vec<Diagnostic>>) -> Vec<&'static str> {
        result.unwrap_err().iter().map(|d| d.code).collect()
    }

    #[test]
    fn what_is_not_written_has_the_documented_defaults() {
        let upstream = Upstream::compile("orders", &settings(&[("127.0.0.1:80", 1)])).unwrap();
        assert_eq!(upstream.balance, Balance::RoundRobin);
        assert_eq!(upstream.retries.attempts, 2);
        assert_eq!(upstream.health, None);
        let Timeouts { connect, response, idle, total } = upstream.timeouts;
        assert_eq!(total, None);
        assert_eq!((connect.as_secs(), response.as_secs(), idle.as_secs()), (1, 15, 60));

        let mut written = settings(&[("127.0.0.1:80", 1)]);
        written.health = Some(HealthSettings::default());
        let health = Upstream::compile("orders", &written).unwrap().health.unwrap();
        assert_eq!(health.check, Check::Connect);
        assert_eq!((health.every.as_secs(), health.timeout.as_secs()), (5, 1));
        assert_eq!((health.unhealthy_after, health.healthy_after), (2, 1));
    }

    #[test]
    fn all_mistakes_are_told_at_once() {
        let mut written = settings(&[("a:80", 1), ("A:80", 1), ("b", 1)]);
        written.retries = Some(at(RetriesSettings { attempts: Some(at(5)), ..Default::default() }));
        written.timeouts =
            Some(TimeoutsSettings { connect: Some(at(Period::seconds(0))), response: None, idle: None, total: None, header: None });
        written.health = Some(HealthSettings {
            path: Some(at("healthz".to_owned())),
            every: Some(at(Period::seconds(1))),
            timeout: Some(at(Period::seconds(2))),
            unhealthy_after: Some(at(0)),
            ..HealthSettings::default()
        });
        let expected = ["duplicate-target", "bad-target", "bad-path", "out-of-range", "out-of-range", "out-of-range", "out-of-range"];
        assert_eq!(codes(Upstream::compile("orders", &written)), expected);
    }

    #[test]
    fn an_upstream_without_targets_is_refused() {
        assert_eq!(codes(Upstream::compile("orders", &settings(&[]))), ["no-targets"]);
    }

    #[test]
    fn a_mistake_in_an_address_does_not_show_the_address() {
        let wrong = Upstream::compile("orders", &settings(&[("hush-hush", 1)])).unwrap_err();
        assert!(!format!("{} {:?}", wrong[0].message, wrong[0].help).contains("hush"));
    }
}
