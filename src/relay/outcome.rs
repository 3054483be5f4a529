//! Decides what becomes known of a target through one attempt at it: figures always, and a verdict where the upstream asks for one.
//!
//! The one place where an attempt is reported. Does not decide what follows for the request (`retry.rs`).

use super::address::Spot;
use super::pool::Pool;
use super::target::{Chosen, Target};
use crate::report::metrics::series::Failure;

/// How an attempt went, or a part of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// The head of an answer came after so many nanoseconds.
    Head { status: u16, took: u64 },
    /// There was no answer, or it broke off in its body.
    Failed { how: Failure, before_head: bool },
    /// The answer came to its end.
    Whole,
}

/// Where an attempt went, and whether it was let through to find out.
#[derive(Clone, Copy, Debug)]
pub struct Tried<'a> {
    pub target: &'a Target,
    pub spot: Spot,
    /// Through a half-open circuit of this address.
    pub probes_target: bool,
    /// Through that of the upstream.
    pub probes_upstream: bool,
}

// === impl Outcome ===

impl Outcome {
    /// Whether it speaks against the target. A client that left says nothing about it.
    pub fn is_bad(self) -> bool {
        match self {
            Outcome::Head { status, .. } => status >= 500,
            Outcome::Failed { how, .. } => how != Failure::ClientGone,
            Outcome::Whole => false,
        }
    }
}

// === impl Tried ===

impl<'a> Tried<'a> {
    pub fn of(chosen: &'a Chosen, probes_upstream: bool) -> Self {
        Tried { target: chosen.target(), spot: chosen.addr(), probes_target: chosen.is_probe(), probes_upstream }
    }
}

/// Reports an attempt. One branch where the upstream judges nobody by it.
pub fn report(pool: &Pool, tried: Tried<'_>, outcome: Outcome, now: u64) {
    tried.target.figures.note(outcome, now);
    if pool.judges {
        judge(pool, tried, outcome, now);
    }
}

#[cold]
fn judge(pool: &Pool, tried: Tried<'_>, outcome: Outcome, now: u64) {
    if matches!(outcome, Outcome::Failed { how: Failure::ClientGone, .. }) {
        return;
    }
    if pool.upstream.adaptive.is_some() {
        let own = pool.upstream.timeouts.response;
        let patience = pool.upstream.retries.attempt_timeout.map_or(own, |attempt| attempt.min(own));
        pool.group.limiter.note(outcome, patience, now);
    }
    let Some(endpoint) = tried.target.endpoint(tried.spot) else { return };
    if let Some(rules) = &pool.upstream.outlier_detection
        && let Some(why) = endpoint.conduct.note(rules, outcome)
    {
        pool.eject(rules, tried.target, &endpoint, why, now);
    }
    let Some(rules) = &pool.upstream.circuit_breaker else { return };
    let (failed, slow) = match outcome {
        Outcome::Whole => return,
        Outcome::Failed { .. } => (true, false),
        Outcome::Head { took, .. } => (outcome.is_bad(), rules.slow.is_some_and(|(after, _)| u128::from(took) > after.as_nanos())),
    };
    if rules.is_of_target()
        && let Some(turn) = endpoint.circuit().note(rules, failed, slow, tried.probes_target, now)
    {
        pool.turn_target(rules, tried.target, &endpoint, turn, now);
    }
    if rules.is_of_upstream()
        && let Some(turn) = pool.group.circuit.note(rules, failed, slow, tried.probes_upstream, now)
    {
        pool.turn_upstream(rules, turn);
    }
}
