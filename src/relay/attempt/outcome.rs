//! Decides what becomes known of a target through one attempt at it: figures always, and a verdict where the upstream asks for one.
//!
//! The one place where an attempt is reported. Does not decide what follows for the request (`retry.rs`).

use crate::relay::circuit::Seen;
use crate::relay::targets::address::Spot;
use crate::relay::targets::endpoint::Endpoint;
use crate::relay::targets::pool::Pool;
use crate::relay::targets::target::{Chosen, Target};
use crate::reply::grpc::Status;
use crate::report::metrics::series::Failure;

/// How an attempt went, or a part of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// The head of an answer came after so many nanoseconds.
    Head { status: u16, took: u64 },
    /// The same of a call of gRPC: where it is told already, how it ended, as a status of HTTP's ([`Status::as_http`]).
    Call { status: Option<u16>, took: u64 },
    /// A call whose head had not told it has ended so.
    CallEnded { status: u16 },
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
            Outcome::Head { status, .. } | Outcome::CallEnded { status } => status >= 500,
            Outcome::Call { status, .. } => status.is_some_and(|status| status >= 500),
            Outcome::Failed { how, .. } => how != Failure::ClientGone,
            Outcome::Whole => false,
        }
    }

    /// The head of an answer to a call. `told`: the status of gRPC in it.
    pub fn of_call(status: u16, told: Option<Status>, took: u64) -> Self {
        match told {
            Some(told) => Outcome::Call { status: Some(told.as_http()), took },
            None if status == 200 => Outcome::Call { status: None, took },
            // Not a server of gRPC's, but something before it.
            None => Outcome::Head { status, took },
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

/// Reports that an answer came to its end, of an upstream that judges: nothing but a row of those that did not ends with it.
pub fn report_whole(pool: &Pool, chosen: &Chosen) {
    if let Some(rules) = &pool.upstream.outlier_detection {
        chosen.target().with_endpoint(chosen.addr(), |endpoint| _ = endpoint.conduct.note(rules, Outcome::Whole));
    }
}

fn judge(pool: &Pool, tried: Tried<'_>, outcome: Outcome, now: u64) {
    if matches!(outcome, Outcome::Failed { how: Failure::ClientGone, .. }) {
        return;
    }
    if pool.upstream.adaptive.is_some() {
        let own = pool.upstream.timeouts.response;
        let patience = pool.upstream.retries.attempt_timeout.map_or(own, |attempt| attempt.min(own));
        pool.group.limiter.note(outcome, patience, now);
    }
    tried.target.with_endpoint(tried.spot, |endpoint| judge_endpoint(pool, tried, endpoint, outcome, now));
}

fn judge_endpoint(pool: &Pool, tried: Tried<'_>, endpoint: &Endpoint, outcome: Outcome, now: u64) {
    if let Some(rules) = &pool.upstream.outlier_detection
        && let Some(why) = endpoint.conduct.note(rules, outcome)
    {
        pool.eject(rules, tried.target, endpoint, why, now);
    }
    let Some(rules) = &pool.upstream.circuit_breaker else { return };
    let seen = match outcome {
        Outcome::Whole => return,
        Outcome::CallEnded { .. } if !outcome.is_bad() => return,
        Outcome::CallEnded { .. } | Outcome::Failed { before_head: false, .. } => Seen::FAILED_LATE,
        Outcome::Failed { before_head: true, .. } => Seen { failed: true, slow: false, is_late: false },
        Outcome::Head { took, .. } | Outcome::Call { took, .. } => {
            let slow = rules.slow.is_some_and(|(after, _)| u128::from(took) > after.as_nanos());
            Seen { failed: outcome.is_bad(), slow, is_late: false }
        }
    };
    if rules.is_of_target()
        && let Some(turn) = endpoint.circuit().note(rules, seen, tried.probes_target, now)
    {
        pool.turn_target(rules, tried.target, endpoint, turn, now);
    }
    if rules.is_of_upstream()
        && let Some(turn) = pool.group.circuit.note(rules, seen, tried.probes_upstream, now)
    {
        pool.turn_upstream(rules, turn);
    }
}
