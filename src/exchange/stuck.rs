//! An exchange that was given up because its upstream took nothing more of the request: what its client and the log are told.
//!
//! Decides nothing: when that is, see `listen/stall.rs`. The session is gone by then, so what the log needs of it is kept before.

use http::header::USER_AGENT;
use http::{HeaderValue, Method, Version};
use pingora_proxy::Session;

use super::attempt::report;
use super::time::idle;
use super::{Ctx, write};
use crate::clock;
use crate::relay::attempt::outcome::Outcome;
use crate::relay::attempt::tunnel::in_tunnel;
use crate::relay::retry::{IDLE_TIMEOUT, RESPONSE_TIMEOUT};
use crate::reply::problem::{Kind, Problem};
use crate::report::metrics::upstream::Failure;

/// What the log says of a head.
#[derive(Clone, Debug)]
pub struct Spoken {
    pub method: Method,
    pub version: Version,
    /// Of a request that has a body only.
    pub agent: Option<HeaderValue>,
}

/// A piece of a body is on its way to an upstream.
pub(super) fn note_asked(session: &Session, ctx: &mut Ctx) {
    if let Some(spoken) = &mut ctx.spoken
        && spoken.agent.is_none()
    {
        spoken.agent = session.req_header().headers.get(USER_AGENT).cloned();
    }
}

/// The exchange was given up: leaves an answer, if there has been none. The status that the client gets, or has got, and bytes of the body.
pub(super) fn end(ctx: &mut Ctx) -> (Option<u16>, u64) {
    ctx.attempts.stop_clock();
    let kind: &Kind = match (ctx.attempts.is_tunnel, ctx.attempts.has_answer) {
        (true, _) => in_tunnel(&IDLE_TIMEOUT),
        (false, true) => &IDLE_TIMEOUT,
        (false, false) => &RESPONSE_TIMEOUT,
    };
    let mut problem = Problem::new(kind);
    if let Some((route, relay)) = ctx.relay() {
        problem.reason = Some(format!("nothing of the request taken for {:?}", idle(ctx, route, relay)));
        let failure = if ctx.attempts.has_answer { Failure::IdleTimeout } else { Failure::ResponseTimeout };
        if !ctx.attempts.is_tunnel {
            relay.upstream.series.failed(failure);
            report(ctx, Outcome::Failed { how: failure, before_head: !ctx.attempts.has_answer }, clock::mono());
        }
    }
    if ctx.attempts.is_h2
        && let Some(target) = &ctx.attempts.target
    {
        // It may be the connection that takes nothing, and not this stream of it.
        target.abandon_connections();
    }
    if ctx.attempts.has_answer {
        ctx.facts.refused = Some((kind, problem.reason.clone()));
        return (ctx.attempts.status, ctx.attempts.received);
    }
    let Some(words) = write::last_words(ctx, &problem) else { return (None, 0) };
    let told = (Some(words.0.status.as_u16()), words.1.len() as u64);
    if let Some(conn) = &ctx.conn {
        conn.leave_words(words);
    }
    told
}
