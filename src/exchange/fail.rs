//! What becomes of an attempt that failed: another one, or an answer that says why. What a failure is called is decided in `relay/retry.rs`.

use std::time::Duration;

use http::header;
use pingora_core::{Error, ErrorType};
use pingora_proxy::{FailToProxy, Session};

use super::attempt::{note_latency, report};
use super::time::idle;
use super::{Ctx, again, answered, call, end_after_this, fallback, write};
use crate::clock;
use crate::relay::admit::{SOON, UPSTREAM_OVERLOADED, retry_after};
use crate::relay::attempt::connect::OTHER_PROTOCOL;
use crate::relay::attempt::deadline::Overdue;
use crate::relay::attempt::outcome::Outcome;
use crate::relay::attempt::protocol::Protocol;
use crate::relay::attempt::timeouts::TOTAL_TIMEOUT;
use crate::relay::attempt::tunnel::in_tunnel;
use crate::relay::retries::verdict::Cause;
use crate::relay::retry::{CLIENT_GONE, IDLE_TIMEOUT, INTERNAL_ERROR, Phase, RESPONSE_TIMEOUT, kind_of};
use crate::relay::targets::target::Chosen;
use crate::reply::problem::{Kind, Problem};
use crate::report::metrics::upstream::Failure;

/// A connection could not be made: another target, if there is one.
pub fn connect_failed(session: &Session, ctx: &mut Ctx, mut error: Box<Error>) -> Box<Error> {
    ctx.attempts.stop_clock();
    if is_other_protocol(ctx, &error) {
        // What the target speaks is known now; nothing was sent.
        ctx.attempts.number -= 1;
        error.set_retry(true);
        return error;
    }
    let Some((_, relay)) = ctx.relay() else { return error };
    let how = match error.etype() {
        ErrorType::ConnectTimedout | ErrorType::TLSHandshakeTimedout => Failure::ConnectTimeout,
        _ => Failure::Connect,
    };
    relay.upstream.series.failed(how);
    if is_stale(ctx, &error) && ctx.attempts.number - ctx.attempts.before < relay.upstream.pool.upstream.retries.attempts {
        // It was a connection from the pool that had no stream left to give: the target itself has refused nothing.
        ctx.attempts.is_fresh = true;
        error.set_retry(true);
        return error;
    }
    report(ctx, Outcome::Failed { how, before_head: true }, clock::mono());
    if let Some(chosen) = &ctx.attempts.chosen {
        log_failure(ctx, chosen, &error);
    }
    note_failure(ctx);
    let mut may = again::connect(ctx);
    if !may && fallback::is_there(ctx) {
        let kind = kind_of(&error, Phase::Connect);
        let reason = Some(reason_of(ctx, kind, &error));
        may = fallback::elsewhere(session, ctx, kind, &reason);
    }
    error.set_retry(may);
    error
}

/// A target that fails fast is no fast target: it counts as one that takes all the time it has.
pub(super) fn note_failure(ctx: &Ctx) {
    if let Some((_, relay)) = ctx.relay() {
        note_latency(ctx, relay.timeouts.response, clock::mono());
    }
}

/// Whether the target has chosen the other of two protocols. Once a request: one that keeps changing its mind is not followed.
fn is_other_protocol(ctx: &mut Ctx, error: &Error) -> bool {
    let is_other = *error.etype() == OTHER_PROTOCOL
        && ctx.relay().is_some_and(|(_, relay)| relay.upstream.pool.upstream.protocol == Protocol::Auto)
        && !ctx.attempts.wants_http1;
    is_other && !std::mem::replace(&mut ctx.attempts.has_learnt, true)
}

/// Whether no stream could be had of a connection that was there already. A new one fails in other words, or when it is used.
fn is_stale(ctx: &Ctx, error: &Error) -> bool {
    ctx.attempts.is_h2 && matches!(error.etype(), ErrorType::H2Error)
}

/// The attempt broke after the connection was made: again, where nothing can have happened twice.
pub fn failed(session: &mut Session, ctx: &mut Ctx, mut error: Box<Error>) -> Box<Error> {
    ctx.attempts.stop_clock();
    if let Some(conn) = &ctx.conn {
        conn.deadline.taken();
    }
    if std::mem::take(&mut ctx.attempts.is_decided) {
        // By the head of its answer: see `again.rs`.
        error.set_retry(true);
        return error;
    }
    let kind = kind_in(ctx, &error);
    // The target that it was, not the one that is next.
    let abandoned = is_silent(ctx, kind).then(|| ctx.attempts.target.clone()).flatten();
    let cause = Cause::of(&error, kind, ctx.attempts.is_reused);
    // A connection that died at rest, and one that takes no more, say nothing of the target where the request is sent again.
    let is_excusable = cause.is_some_and(Cause::may_stay);
    let outcome = failure_of(kind).map(|how| Outcome::Failed { how, before_head: !ctx.attempts.has_answer });
    if let Some(outcome) = outcome.filter(|_| !is_excusable) {
        report(ctx, outcome, clock::mono());
    }
    let retry = cause.is_some_and(|cause| again::broken(session, ctx, cause));
    if let Some(outcome) = outcome.filter(|_| is_excusable && !retry) {
        report(ctx, outcome, clock::mono());
    }
    error.set_retry(retry);
    if let Some((_, relay)) = ctx.relay()
        && let Some(failure) = failure_of(kind)
        && !(failure == Failure::ClientGone && ctx.is_answered())
    {
        relay.upstream.series.failed(failure);
        if failure != Failure::ClientGone {
            note_failure(ctx);
        }
    }
    if let Some(target) = abandoned {
        target.abandon_connections();
    }
    if let Some(chosen) = &ctx.attempts.chosen
        && kind.status != CLIENT_GONE.status
        && !retry
    {
        log_failure(ctx, chosen, &error);
    }
    error
}

/// Whether it may be the connection that is silent, and not this stream of it. An attempt that was cut short says nothing of that.
fn is_silent(ctx: &Ctx, kind: &Kind) -> bool {
    let is_short = ctx.relay().is_some_and(|(_, relay)| relay.upstream.pool.upstream.retries.attempt_timeout.is_some());
    ctx.attempts.is_h2 && (kind.code == IDLE_TIMEOUT.code || kind.code == RESPONSE_TIMEOUT.code && !is_short)
}

/// No further attempt: tells the client, if it can still be told.
pub async fn give_up(session: &mut Session, ctx: &mut Ctx, error: &Error) -> FailToProxy {
    ctx.attempts.stop_clock();
    let own = ctx.facts.refused.take();
    let fault = ctx.conn.as_ref().and_then(|conn| conn.fault());
    let (kind, reason) = own.unwrap_or_else(|| {
        let kind = fault.unwrap_or_else(|| kind_in(ctx, error));
        (kind, Some(reason_of(ctx, kind, error)))
    });
    if let Some(conn) = &ctx.conn {
        // What is over in time was asked above.
        conn.deadline.clear();
    }
    let mut problem = Problem::new(kind);
    problem.reason = reason;
    if kind.code == UPSTREAM_OVERLOADED.code {
        problem = retry_after(problem, SOON);
    }
    if answered(session).is_none()
        && let Some(answer) = fallback::answer(ctx, &problem)
    {
        // As after a refusal: Pingora ends the connection after an attempt has failed.
        end_after_this(session, ctx);
        let written = write::answer(session, ctx, &answer).await;
        return FailToProxy { error_code: if written.is_ok() { answer.status } else { 0 }, can_reuse_downstream: false };
    }
    ctx.facts.refused = Some((kind, problem.reason.clone()));
    let gone = FailToProxy { error_code: 0, can_reuse_downstream: false };
    if let (Some(conn), Some(head)) = (&ctx.conn, session.response_written())
        && session.req_header().version == http::Version::HTTP_10
        && !head.headers.contains_key(header::CONTENT_LENGTH)
    {
        conn.break_off();
    }
    if kind.status == CLIENT_GONE.status {
        if ctx.is_answered() {
            // It left, or reset its stream, when there was nothing more to read: only its own body is not complete.
            ctx.facts.refused = None;
        }
        end_after_this(session, ctx);
        return gone;
    }
    if answered(session).is_some() {
        call::break_off(session, ctx, &problem).await;
        end_after_this(session, ctx);
        return gone;
    }
    if ctx.attempts.number > 0 {
        // Pingora ends the connection after an attempt has failed; the client is told so.
        end_after_this(session, ctx);
    }
    if kind.code == INTERNAL_ERROR.code {
        log::error!("{}: {error}", ctx.facts.request_id.as_str());
    }
    match write::refuse(session, ctx, &problem).await {
        Ok(()) => FailToProxy { error_code: kind.status, can_reuse_downstream: ctx.attempts.number == 0 },
        Err(_) => gone,
    }
}

fn phase(ctx: &Ctx) -> Phase {
    match (ctx.attempts.has_answer, ctx.attempts.chosen.is_some()) {
        (true, _) => Phase::Body,
        (false, true) => Phase::Head,
        (false, false) => Phase::Connect,
    }
}

fn kind_in(ctx: &Ctx, error: &Error) -> &'static Kind {
    let kind = kind_of(error, phase(ctx));
    if kind.status == TOTAL_TIMEOUT.status && ctx.conn.as_ref().is_some_and(|conn| conn.deadline.over() == Some(Overdue::Total)) {
        return &TOTAL_TIMEOUT;
    }
    if ctx.attempts.is_tunnel { in_tunnel(kind) } else { kind }
}

/// None where the upstream has not failed.
fn failure_of(kind: &Kind) -> Option<Failure> {
    let failure = match kind.code {
        "websocket-idle" | "websocket-expired" | "drain-ended" | "grpc-deadline" | "grpc-web-malformed" | "upstream-total-timeout" => {
            return None;
        }
        "upstream-connect-failed" | "upstream-tls-failed" => Failure::Connect,
        "upstream-connect-timeout" => Failure::ConnectTimeout,
        "upstream-response-timeout" => Failure::ResponseTimeout,
        "upstream-idle-timeout" => Failure::IdleTimeout,
        "client-gone" => Failure::ClientGone,
        _ => Failure::Broken,
    };
    Some(failure)
}

/// What went wrong, with figures, for the log only.
fn reason_of(ctx: &Ctx, kind: &Kind, error: &Error) -> String {
    let Some((route, relay)) = ctx.relay() else { return error.etype().as_str().to_owned() };
    let timeouts = relay.timeouts;
    let attempt_time = |time: Duration| relay.upstream.pool.upstream.retries.attempt_timeout.map_or(time, |limit| limit.min(time));
    match kind.code {
        "upstream-connect-timeout" if matches!(error.etype(), ErrorType::TLSHandshakeTimedout) => error.root_cause().to_string(),
        "upstream-tls-failed" => error.root_cause().to_string(),
        "upstream-connect-timeout" => format!("no connection within {:?}", attempt_time(timeouts.connect)),
        "upstream-total-timeout" => {
            format!("no whole answer within {:?}, with {} attempts", timeouts.total.unwrap_or_default(), ctx.attempts.number)
        }
        "upstream-response-timeout" if matches!(error.etype(), ErrorType::WriteTimedout) => {
            format!("nothing of the request taken for {:?}", timeouts.idle)
        }
        "upstream-response-timeout" => format!("no response head within {:?}", attempt_time(timeouts.response)),
        "upstream-idle-timeout" | "websocket-idle" => format!("silence for {:?}", idle(ctx, route, relay)),
        _ => match &error.cause {
            Some(_) => format!("{}: {}", error.etype().as_str(), error.root_cause()),
            None => error.etype().as_str().to_owned(),
        },
    }
}

fn log_failure(ctx: &Ctx, chosen: &Chosen, error: &Error) {
    let target = chosen.target();
    log::debug!("{}: {}/{}: {error}", ctx.facts.request_id.as_str(), target.upstream, target.address);
}
