//! Decides whether an upstream takes one more request: its circuit is closed, and it has not as many as it may have. Else says why not.
//!
//! Does not choose a target (`balance.rs`), keep the queue (`gate.rs`), nor find out how many it can take (`adaptive`).

use std::sync::Arc;
use std::time::Duration;

use http::{HeaderValue, header};
use schemars::JsonSchema;
use serde::Deserialize;

use super::adaptive::{Full, Held, Limiter, UPSTREAM_SATURATED};
use super::balance::NO_HEALTHY_TARGET;
use super::circuit::{CIRCUIT_OPEN, Phase};
use super::gate::{Entry, Gate, Place, Waiting};
use super::upstream::{in_range, whole};
use crate::config::diagnostic::Diagnostic;
use crate::config::types::{At, Period};
use crate::policy::priority::Priority;
use crate::relay::targets::group::Group;
use crate::relay::targets::pool::Pool;
use crate::relay::targets::standing::Cause;
use crate::reply::problem::{Kind, Problem};

pub static UPSTREAM_OVERLOADED: Kind = Kind {
    code: "upstream-overloaded",
    status: 503,
    error: "Service unavailable",
    about: "The upstream has as many requests as its `max_requests` allows, or connections as `max_connections` does, and the queue was full or the wait in it too long.",
};

/// Where requests wait that are more than `max_requests`, or for which there is no connection.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct QueueSettings {
    /// How many may wait; more are refused at once. 1 to 100000.
    pub length: At<u32>,
    /// How long one may wait. 1ms to 5m; default 1s.
    pub wait: Option<At<Period>>,
}

/// The compiled form.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Queue {
    pub length: usize,
    pub wait: Duration,
}

/// Let in; given back when dropped.
#[derive(Debug)]
pub struct Pass {
    /// Where the upstream takes so many requests only.
    _place: Option<Place>,
    /// Where it is found out how many it can take.
    _held: Option<Held>,
    /// Through its half-open circuit.
    probes: Option<Arc<Group>>,
}

/// What is said to a request.
#[derive(Debug)]
pub enum Admission {
    In(Pass),
    /// Its turn comes later, or not within this time. What it holds it holds meanwhile.
    Wait(Waiting, Duration, Option<Held>),
    Refused(Box<Problem>),
}

/// For what is over soon, and nobody knows when.
pub const SOON: u64 = 1;

// === impl Queue ===

impl Queue {
    pub(super) fn compile(settings: Option<&At<QueueSettings>>, is_capped: bool, wrong: &mut Vec<Diagnostic>) -> Option<Queue> {
        let At { value: QueueSettings { length, wait }, place } = settings?;
        if !is_capped {
            let message = "`queue` has no effect: nothing waits without `max_requests` or `max_connections`";
            wrong.push(Diagnostic::at(place, "inert", message));
        }
        Some(Queue {
            length: whole(Some(length), 0, 1..=100_000, wrong) as usize,
            wait: in_range(wait.as_ref(), Period::seconds(1), Period(Duration::from_millis(1)), Period::seconds(300), wrong),
        })
    }
}

// === impl Pass ===

impl Pass {
    pub fn is_probe(&self) -> bool {
        self.probes.is_some()
    }
}

impl Drop for Pass {
    fn drop(&mut self) {
        if let Some(group) = &self.probes {
            group.circuit.probed();
        }
    }
}

/// Asks for one request. `now` is monotonic, and asked only where it refuses.
pub fn admit(pool: &Pool, priority: Priority, now: impl FnOnce() -> u64) -> Admission {
    let circuit = &pool.group.circuit;
    if circuit.phase() == Phase::Open {
        // Waiting for it would be in vain.
        return Admission::Refused(Box::new(open(circuit.until(), now())));
    }
    let held = match pool.upstream.adaptive.is_some().then(|| Limiter::take(&pool.group, priority)).transpose() {
        Ok(held) => held,
        Err(full) => return Admission::Refused(Box::new(saturated(pool, full, priority))),
    };
    if pool.upstream.max_requests.is_none() {
        return pass(pool, None, held, now);
    }
    let queue = pool.upstream.queue;
    match Gate::enter(&pool.group, queue.map_or(0, |queue| queue.length)) {
        Entry::In(place) => pass(pool, Some(place), held, now),
        Entry::Wait(waiting) => Admission::Wait(waiting, queue.map_or(Duration::ZERO, |queue| queue.wait), held),
        Entry::Full => Admission::Refused(Box::new(overloaded(pool, "the queue is full"))),
    }
}

/// Its turn has come; the circuit may have opened meanwhile.
pub fn pass(pool: &Pool, place: Option<Place>, held: Option<Held>, now: impl FnOnce() -> u64) -> Admission {
    let circuit = &pool.group.circuit;
    let probes = match circuit.phase() {
        Phase::Closed => None,
        Phase::HalfOpen if circuit.probe() => Some(pool.group.clone()),
        Phase::HalfOpen => return Admission::Refused(Box::new(open(0, now()))),
        Phase::Open => return Admission::Refused(Box::new(open(circuit.until(), now()))),
    };
    Admission::In(Pass { _place: place, _held: held, probes })
}

/// It has waited as long as it may.
pub fn overloaded(pool: &Pool, why: &str) -> Problem {
    let most = pool.upstream.max_requests.unwrap_or_default();
    retry_after(Problem::new(&UPSTREAM_OVERLOADED).reason(format!("{most} requests at once, and {why}")), SOON)
}

/// Why an attempt may not connect.
pub fn without_room(most: u32, why: &str) -> String {
    format!("{most} connections are open, and {why}")
}

/// It can take no more, as far as is known.
fn saturated(pool: &Pool, full: Full, priority: Priority) -> Problem {
    let Full { taken, most, limit } = full;
    let reason = format!(
        "{taken} of {most} requests at once at upstream {} with priority {}, {limit} in all",
        pool.upstream.name,
        priority.as_str()
    );
    retry_after(Problem::new(&UPSTREAM_SATURATED).reason(reason), SOON)
}

fn open(until: u64, now: u64) -> Problem {
    let left = until.saturating_sub(now).div_ceil(1_000_000_000).max(SOON);
    let reason = if until > now { format!("probed in {left} s") } else { "half open: probes are on their way".to_owned() };
    retry_after(Problem::new(&CIRCUIT_OPEN).reason(reason), left)
}

/// Says when it is worth another try.
pub fn retry_after(mut problem: Problem, seconds: u64) -> Problem {
    problem.headers.push((header::RETRY_AFTER, HeaderValue::from(seconds)));
    problem
}

/// Why no target was found: circuits alone, or what else speaks against the addresses.
pub fn no_target(pool: &Pool, now: u64) -> Problem {
    let (mut until, mut counts, mut all, mut probed) = (None::<u64>, [0u32; Cause::ALL.len()], 0u32, false);
    for endpoint in pool.targets().iter().flat_map(|target| target.endpoints()) {
        all += 1;
        let by_circuit = endpoint.standing.is_out_by(Cause::Circuit);
        if by_circuit {
            let its = endpoint.circuit().until();
            until = Some(until.map_or(its, |until| until.min(its)));
        }
        probed |= endpoint.standing.is_probed();
        for cause in Cause::ALL.into_iter().filter(|cause| endpoint.standing.is_out_by(*cause)) {
            counts[cause as usize] += 1;
        }
    }
    if until.is_some() || probed {
        return open(if probed { now } else { until.unwrap_or(now) }, now);
    }
    let told = Cause::ALL.iter().zip(counts).filter(|(_, count)| *count > 0);
    let told: Vec<_> = told.map(|(cause, count)| format!("{count} {}", cause.told())).collect();
    let problem = Problem::new(&NO_HEALTHY_TARGET);
    match told.is_empty() {
        true => problem,
        false => problem.reason(format!("no usable address among {all}: {}", told.join(", "))),
    }
}
