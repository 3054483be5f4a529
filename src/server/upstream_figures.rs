//! What metrics tell of upstreams and their targets: who is out and why, circuits, queues.
//!
//! Decides nothing: reads what `relay` holds, when somebody asks.

use std::sync::Arc;

use crate::relay::adaptive::Concurrency;
use crate::relay::circuit::Phase;
use crate::relay::targets::group::GroupReport;
use crate::relay::targets::standing::Cause;
use crate::relay::targets::target::TargetReport;
use crate::report::metrics::family;
use crate::report::metrics::family::Family;
use crate::state::State;

/// Registers the figures that are read when somebody asks.
pub fn register(state: &Arc<State>) {
    let of_targets = |family: &'static Family, read: fn(&TargetReport) -> f64| {
        let me = state.clone();
        state.metrics.source(family, move |samples| {
            for target in me.pools.report() {
                samples.put(&[&target.upstream, &target.target], read(&target));
            }
        });
    };
    of_targets(&family::TARGET_HEALTHY, |target| if target.is_healthy() { 1.0 } else { 0.0 });
    of_targets(&family::TARGET_EJECTIONS, |target| target.ejections as f64);
    of_targets(&family::TARGET_CIRCUITS_OPENED, |target| target.circuits_opened as f64);
    let me = state.clone();
    state.metrics.source(&family::TARGET_OUT, move |samples| {
        for target in me.pools.report() {
            for cause in Cause::ALL {
                let is_so =
                    |endpoint: &&crate::relay::targets::endpoint::EndpointReport| endpoint.outs.iter().any(|out| out.cause == cause);
                let count = target.endpoints.iter().filter(is_so).count();
                if count > 0 {
                    samples.put(&[&target.upstream, &target.target, cause.as_str()], count as f64);
                }
            }
        }
    });
    let of_upstreams = |family: &'static Family, read: fn(&GroupReport) -> f64| {
        let me = state.clone();
        state.metrics.source(family, move |samples| {
            for upstream in me.pools.report_groups() {
                samples.put(&[&upstream.upstream], read(&upstream));
            }
        });
    };
    of_upstreams(&family::CIRCUIT_OPEN, |upstream| match &*upstream.circuit {
        circuit if circuit == Phase::Open.as_str() => 1.0,
        circuit if circuit == Phase::HalfOpen.as_str() => 0.5,
        _ => 0.0,
    });
    of_upstreams(&family::CIRCUIT_OPENED, |upstream| upstream.opened as f64);
    of_upstreams(&family::UPSTREAM_PANIC, |upstream| if upstream.panic { 1.0 } else { 0.0 });
    of_upstreams(&family::UPSTREAM_SPARED, |upstream| upstream.spared as f64);
    of_upstreams(&family::UPSTREAM_WAITING, |upstream| upstream.waiting as f64);
    let of_capped = |family: &'static Family, read: fn(&GroupReport, u32) -> f64| {
        let me = state.clone();
        state.metrics.source(family, move |samples| {
            for upstream in me.pools.report_groups() {
                if let Some(open) = upstream.connections {
                    samples.put(&[&upstream.upstream], read(&upstream, open));
                }
            }
        });
    };
    of_capped(&family::UPSTREAM_CONNECTIONS_OPEN, |_, open| f64::from(open));
    of_capped(&family::UPSTREAM_CONNECTIONS_OVER, |upstream, _| upstream.over as f64);
    let of_limited = |family: &'static Family, read: fn(Concurrency) -> u32| {
        let me = state.clone();
        state.metrics.source(family, move |samples| {
            for upstream in me.pools.report_groups() {
                if let Some(concurrency) = upstream.concurrency {
                    samples.put(&[&upstream.upstream], f64::from(read(concurrency)));
                }
            }
        });
    };
    of_limited(&family::CONCURRENCY_LIMIT, |concurrency| concurrency.limit);
    of_limited(&family::CONCURRENCY, |concurrency| concurrency.in_flight);
}
