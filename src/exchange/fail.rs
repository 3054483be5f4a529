//! What becomes of an attempt that failed: another one, or an answer that says why. What is decided is decided in `relay/retry.rs`.

use http::header;
use pingora_core::{Error, ErrorType};
use pingora_proxy::{FailToProxy, Session};

use super::attempt::{another, idle, note_latency, report};
use super::{Ctx, answered, call, end_after_this, fallback, write};
use crate::clock;
use crate::relay::connect::OTHER_PROTOCOL;
use crate::relay::outcome::Outcome;
use crate::relay::protocol::Protocol;
use crate::relay::retry::{Attempt, CLIENT_GONE, IDLE_TIMEOUT, INTERNAL_ERROR, Phase, RESPONSE_TIMEOUT, kind_of};
use crate::relay::target::Chosen;
use crate::relay::tunnel::in_tunnel;
use crate::reply::problem::{Kind, Problem};
use crate::report::metrics::series::Failure;

/// A connection could not be made: another target, if there is one.
pub fn connect_failed(session: &Session, ctx: &mut Ctx, mut error: Box<Error>) -> Box<Error> {
    ctx.attempts.stop_clock();
    if is_other_protocol(ctx, &error) {
        // What the target speaks is known now; nothing was sent.
        ctx.attempts.number -= 1;
        error.set_retry(true);
        return error;
    }
    let attempt = attempt(ctx, false, true);
    let Some((_, relay)) = ctx.relay() else { return error };
    let how = match error.etype() {
        ErrorType::ConnectTimedout | ErrorType::TLSHandshakeTimedout => Failure::ConnectTimeout,
        _ => Failure::Connect,
    };
    relay.upstream.series.failed(how);
    let may = attempt.may_connect_elsewhere();
    if may && is_stale(ctx, &error) {
        // It was a connection from the pool that had no stream left to give: the target itself has refused nothing.
        ctx.attempts.is_fresh = true;
        error.set_retry(true);
        return error;
    }
    report(ctx, Outcome::Failed { how, before_head: true }, clock::mono());
    if let Some(chosen) = ctx.attempts.chosen.take() {
        log_failure(ctx, &chosen, &error);
        ctx.attempts.tried.push(chosen.addr());
    }
    note_failure(ctx);
    ctx.attempts.chosen = if may { another(ctx) } else { None };
    if ctx.attempts.chosen.is_none() && fallback::is_there(ctx) {
        let kind = kind_of(&error, Phase::Connect);
        let reason = Some(reason_of(ctx, kind, &error));
        fallback::elsewhere(session, ctx, kind, &reason);
    }
    let retry = ctx.attempts.chosen.is_some();
    error.set_retry(retry);
    error
}

/// A target that fails fast is no fast target: it counts as one that takes all the time it has.
fn note_failure(ctx: &Ctx) {
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
    let written = session.response_written().is_some();
    let attempt = Attempt {
        is_idempotent: session.req_header().method.is_idempotent(),
        body_replayable: !session.as_downstream_mut().retry_buffer_truncated(),
        ..attempt(ctx, written, false)
    };
    let kind = kind_in(ctx, &error);
    // A connection that died at rest, and one that takes no more, say nothing of the target.
    let is_excused = attempt.may_send_elsewhere(&error) || attempt.may_send_again(&error);
    if let Some(how) = failure_of(kind).filter(|_| !is_excused) {
        report(ctx, Outcome::Failed { how, before_head: !ctx.attempts.has_answer }, clock::mono());
    }
    let retry = if attempt.may_send_elsewhere(&error) {
        send_elsewhere(ctx)
    } else {
        ctx.attempts.is_fresh = attempt.may_send_again(&error);
        ctx.attempts.is_fresh
    };
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
    if ctx.attempts.is_h2
        && [RESPONSE_TIMEOUT.code, IDLE_TIMEOUT.code].contains(&kind.code)
        && let Some(target) = &ctx.attempts.target
    {
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

/// Chooses another target for a request that this one has not begun with, or the same one on a connection of its own.
fn send_elsewhere(ctx: &mut Ctx) -> bool {
    let Some(chosen) = &ctx.attempts.chosen else { return false };
    ctx.attempts.tried.push(chosen.addr());
    match another(ctx) {
        Some(other) => ctx.attempts.chosen = Some(other),
        None => {
            ctx.attempts.tried.pop();
            ctx.attempts.is_fresh = true;
        }
    }
    true
}

/// No further attempt: tells the client, if it can still be told.
pub async fn give_up(session: &mut Session, ctx: &mut Ctx, error: &Error) -> FailToProxy {
    if let Some(conn) = &ctx.conn {
        conn.deadline.clear();
    }
    ctx.attempts.stop_clock();
    let own = ctx.facts.refused.as_ref().map(|(kind, reason)| (*kind, reason.clone()));
    let fault = ctx.conn.as_ref().and_then(|conn| conn.fault());
    let (kind, reason) = own.unwrap_or_else(|| {
        let kind = fault.unwrap_or_else(|| kind_in(ctx, error));
        (kind, Some(reason_of(ctx, kind, error)))
    });
    let mut problem = Problem::new(kind);
    problem.reason = reason;
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

fn attempt(ctx: &Ctx, answer_started: bool, body_replayable: bool) -> Attempt {
    let limit = ctx.relay().map_or(1, |(_, relay)| relay.upstream.pool.upstream.retries.attempts);
    Attempt {
        number: ctx.attempts.number - ctx.attempts.before,
        limit,
        is_idempotent: false,
        reused: ctx.attempts.is_reused,
        answer_started,
        body_replayable,
    }
}

fn kind_in(ctx: &Ctx, error: &Error) -> &'static Kind {
    let kind = kind_of(error, phase(ctx));
    if ctx.attempts.is_tunnel { in_tunnel(kind) } else { kind }
}

/// None where the upstream has not failed.
fn failure_of(kind: &Kind) -> Option<Failure> {
    let failure = match kind.code {
        "websocket-idle" | "websocket-expired" | "drain-ended" | "grpc-deadline" | "grpc-web-malformed" => return None,
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
    match kind.code {
        "upstream-connect-timeout" if matches!(error.etype(), ErrorType::TLSHandshakeTimedout) => error.root_cause().to_string(),
        "upstream-tls-failed" => error.root_cause().to_string(),
        "upstream-connect-timeout" => format!("no connection within {:?}", timeouts.connect),
        "upstream-response-timeout" if matches!(error.etype(), ErrorType::WriteTimedout) => {
            format!("nothing of the request taken for {:?}", timeouts.idle)
        }
        "upstream-response-timeout" => format!("no response head within {:?}", timeouts.response),
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
