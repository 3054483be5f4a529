//! Another attempt: which target is next, what the budget says, and how long the request rests before. Whether there is to be one is decided in
//! `relay/retries/verdict.rs`.

use std::time::Duration;

use pingora_core::{Error, ErrorType, Result};
use pingora_http::ResponseHeader;
use pingora_proxy::Session;

use super::Ctx;
use super::attempt::{another, report};
use super::fail::note_failure;
use super::room;
use crate::clock;
use crate::relay::attempt::outcome::Outcome;
use crate::relay::retries::condition::LEAST_STATUS;
use crate::relay::retries::verdict::{Attempt, Cause, Failed, GivenUp, is_idempotent, judge, pushback};
use crate::relay::targets::pool::AT_ONCE;
use crate::reply::grpc::Status;

/// No connection could be made. True: another target is next.
pub(super) fn connect(ctx: &mut Ctx) -> bool {
    let attempt = Attempt { is_idempotent: false, answer_started: false, is_kept: true, pushback: None, ..known(ctx) };
    let may = settle(ctx, Cause::Connect, &attempt, None);
    if !may {
        // How far it came is told by that, where the failure is named.
        ctx.attempts.chosen = None;
    }
    may
}

/// The attempt broke after the connection was made. True: there is another.
pub(super) fn broken(session: &mut Session, ctx: &mut Ctx, cause: Cause) -> bool {
    let attempt = of_session(session, ctx);
    settle(ctx, cause, &attempt, None)
}

/// The head of the upstream's answer as it came, where it may be one to try again after.
///
/// # Errors
/// The one that makes Pingora begin another attempt: nothing of this answer goes to the client.
pub(super) fn answered(session: &mut Session, ctx: &mut Ctx, head: &ResponseHeader) -> Result<()> {
    let status = head.status.as_u16();
    if status < LEAST_STATUS && ctx.call.is_none() {
        return Ok(());
    }
    // In the head of an answer, it is the end of a call that has no other.
    let cause = match ctx.call.as_ref().and_then(|_| Status::told(&head.headers)) {
        Some(grpc) => Cause::Grpc(grpc),
        None => Cause::Status(status),
    };
    let Some((_, relay)) = ctx.relay() else { return Ok(()) };
    if status < 200 || !relay.upstream.pool.upstream.retries.on.has(cause) {
        return Ok(());
    }
    let attempt = Attempt { pushback: pushback(&head.headers, clock::now().unix_ms), ..of_session(session, ctx) };
    let target = ctx.attempts.target.clone();
    if !settle(ctx, cause, &attempt, Some(status)) {
        return Ok(());
    }
    if let Some((_, relay)) = ctx.relay() {
        relay.upstream.series.answered(status);
    }
    // It is the one that failed whose time this was.
    let next = std::mem::replace(&mut ctx.attempts.target, target);
    note_failure(ctx);
    ctx.attempts.target = next;
    ctx.attempts.is_decided = true;
    let mut error = Error::explain(ErrorType::HTTPStatus(status), "an answer to try again after").into_up();
    error.set_retry(true);
    Err(error)
}

fn known(ctx: &Ctx) -> Attempt {
    let end = ctx.conn.as_ref().and_then(|conn| conn.deadline.end());
    let left = end.map(|(end, _)| Duration::from_nanos(end.saturating_sub(clock::mono())));
    // Those at an upstream that it has fallen back from are not this one's.
    let number = ctx.attempts.number - ctx.attempts.before;
    Attempt { number, is_idempotent: false, answer_started: false, is_kept: false, pushback: None, left, random: fastrand::u64(..) }
}

fn of_session(session: &mut Session, ctx: &Ctx) -> Attempt {
    let relay = ctx.relay().map(|(_, relay)| relay);
    let most = relay.map_or(0, |relay| relay.upstream.pool.upstream.retries.body);
    let is_kept = !session.as_downstream_mut().retry_buffer_truncated() && session.body_bytes_read() <= most;
    let head = session.req_header();
    let is_idempotent = is_idempotent(ctx.route().and_then(|route| route.idempotent), &head.method, &head.headers);
    Attempt { is_idempotent, is_kept, answer_started: session.response_written().is_some(), ..known(ctx) }
}

/// Remembers why the attempt failed, and gets ready for another one, or remembers why there is none.
fn settle(ctx: &mut Ctx, cause: Cause, attempt: &Attempt, answered: Option<u16>) -> bool {
    if let Some(target) = ctx.attempts.target.clone() {
        ctx.attempts.failed.push(Failed { target, cause });
    }
    let verdict = match ctx.relay() {
        Some((_, relay)) => judge(&relay.upstream.pool.upstream.retries, cause, attempt),
        None => Err(None),
    };
    let verdict = verdict.and_then(|wait| prepare(ctx, cause, answered).map(|()| wait).map_err(Some));
    let Some((_, relay)) = ctx.relay() else { return false };
    match verdict {
        Ok(wait) => {
            relay.upstream.series.again(cause);
            if let Some(conn) = &ctx.conn {
                conn.deadline.await_nothing();
            }
            ctx.attempts.rest = u64::try_from(wait.as_nanos()).unwrap_or(u64::MAX).max(relay.upstream.pool.least_rest());
            true
        }
        Err(Some(why)) => {
            relay.upstream.series.given_up(why);
            ctx.attempts.no_retry = Some(why);
            false
        }
        Err(None) => {
            if ctx.attempts.number < 2 {
                // Its code says it all.
                ctx.attempts.failed.clear();
            }
            false
        }
    }
}

/// Chooses the next target, or a connection of its own to the same one (`is_fresh`), and asks the budget. `answered`: the status, where the attempt had an answer.
fn prepare(ctx: &mut Ctx, cause: Cause, answered: Option<u16>) -> Result<(), GivenUp> {
    // A connection that died at rest says nothing of its target: where callers are kept at theirs, it is the next one, too. Elsewhere another is as
    // good, and better than one that is just going away.
    let stays = cause == Cause::Stale && ctx.relay().is_some_and(|(_, relay)| relay.upstream.pool.upstream.keeps_callers());
    let next = if stays {
        None
    } else {
        let tried = ctx.attempts.chosen.as_ref().map(|chosen| chosen.addr());
        ctx.attempts.tried.extend(tried);
        another(ctx)
    };
    if next.is_none() && !cause.may_stay() {
        return Err(GivenUp::NoTarget);
    }
    if cause.may_have_begun()
        && let Some((_, relay)) = ctx.relay()
        && let Some(budget) = &relay.upstream.pool.upstream.retries.budget
        && !budget.take(clock::mono(), relay.upstream.series.requests())
    {
        return Err(GivenUp::Budget);
    }
    match next {
        Some(next) => {
            if let Some(status) = answered {
                let now = clock::mono();
                let took = now.saturating_sub(ctx.attempts.began);
                let outcome =
                    if let Cause::Grpc(told) = cause { Outcome::of_call(status, Some(told), took) } else { Outcome::Head { status, took } };
                report(ctx, outcome, now);
            }
            ctx.attempts.chosen = Some(next);
        }
        None => {
            if !stays {
                ctx.attempts.tried.pop();
            }
            ctx.attempts.is_fresh = true;
        }
    }
    // One that rests there may have died with this one.
    ctx.attempts.is_fresh |= cause == Cause::Stale;
    Ok(())
}

/// Whether the next attempt is not to be made at once.
pub fn has_to_rest(ctx: &Ctx) -> bool {
    ctx.attempts.rest > 0
}

/// Waits as long as was decided before another attempt, and until it may connect.
///
/// # Errors
/// The client has gone, or the time that the request may take is over; or the upstream has no room.
pub async fn rest(session: &mut Session, ctx: &mut Ctx) -> Result<()> {
    let (began, rest) = (clock::mono(), std::mem::take(&mut ctx.attempts.rest));
    if rest > AT_ONCE {
        let alarm = tokio::time::sleep_until(clock::instant(began.saturating_add(rest)));
        let end = until(session, alarm).await;
        // No time of the gateway's own, nor of an upstream.
        ctx.facts.delay = ctx.facts.delay.saturating_add(clock::mono().saturating_sub(began));
        end?;
    }
    room::take(session, ctx).await
}

/// Until the alarm rings, or the client is heard.
async fn until(session: &mut Session, alarm: tokio::time::Sleep) -> Result<()> {
    if !session.is_body_done() {
        // What is read would be missing from its body.
        alarm.await;
        return Ok(());
    }
    tokio::select! {
        () = alarm => Ok(()),
        // Of a request that is whole, nothing else can be heard.
        heard = session.read_body_or_idle(true) => match heard {
            Ok(_) => Err(Error::explain(ErrorType::ConnectionClosed, "while it waited for another attempt").into_down()),
            Err(error) => Err(error.into_down()),
        },
    }
}
