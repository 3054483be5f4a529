//! How long an attempt, and a request in all, may take. Decides nothing: `relay/attempt/timeouts.rs` and `retries` say the times, `relay/attempt/deadline.rs` keeps them.

use std::time::Duration;

use pingora_core::Result;
use pingora_http::RequestHeader;

use super::Ctx;
use crate::clock;
use crate::config::plan::{Relay, Route};
use crate::listen::conn::ConnInfo;
use crate::relay::translate::grpc_timeout;

/// As long as that, and no longer than the attempt and the whole request may take.
pub(super) fn bounded_by(time: Duration, attempt: Option<Duration>, conn: Option<&ConnInfo>, now: u64) -> Duration {
    let left = conn.and_then(|conn| conn.deadline.end()).map(|(end, _)| Duration::from_nanos(end.saturating_sub(now)));
    let time = attempt.map_or(time, |attempt| attempt.min(time));
    left.map_or(time, |left| left.min(time)).max(Duration::from_millis(1))
}

/// The request is with the upstream: so long it may take to the head of its answer.
pub(super) fn patience(ctx: &Ctx, relay: &Relay, now: u64) -> Duration {
    let response = relay.timeouts.response;
    let Some(limit) = relay.upstream.pool.upstream.retries.attempt_timeout else { return response };
    // While its client sent, it was the client that took its time.
    let spent = if ctx.attempts.number > 1 || ctx.attempts.sent == 0 { now.saturating_sub(ctx.attempts.began) } else { 0 };
    limit.saturating_sub(Duration::from_nanos(spent)).min(response)
}

/// Begins to count the time that the request may take in all.
pub(super) fn limit(ctx: &Ctx) {
    if let (Some((_, relay)), Some(conn)) = (ctx.relay(), &ctx.conn)
        && let Some(total) = relay.timeouts.total
    {
        conn.deadline.end_all_at(ctx.facts.now.mono.saturating_add(u64::try_from(total.as_nanos()).unwrap_or(u64::MAX)));
    }
}

/// Tells the target how long it has.
pub(super) fn tell_time(ctx: &Ctx, relay: &Relay, head: &mut RequestHeader) -> Result<()> {
    let Some((end, _)) = ctx.conn.as_ref().and_then(|conn| conn.deadline.end()) else { return Ok(()) };
    let left = end.saturating_sub(clock::mono());
    if let Some(name) = &relay.upstream.pool.upstream.told_in {
        head.insert_header(name, left / 1_000_000)?;
    }
    if ctx.call.is_some() {
        head.insert_header(grpc_timeout::GRPC_TIMEOUT, grpc_timeout::write(Duration::from_nanos(left)))?;
    }
    Ok(())
}

/// The silence that is allowed.
pub(super) fn idle(ctx: &Ctx, route: &Route, relay: &Relay) -> Duration {
    match &route.policies.websocket {
        Some(websocket) if ctx.attempts.is_tunnel => websocket.idle.unwrap_or(relay.timeouts.idle),
        Some(_) | None => relay.timeouts.idle,
    }
}
