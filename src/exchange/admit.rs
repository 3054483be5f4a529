//! Asks the process and an upstream whether they take one more request, and waits in its queue. Who leaves meanwhile leaves the queue.
//!
//! Decides nothing: see `policy/overload.rs` and `relay/admit.rs`.

use pingora_core::{Error, ErrorType, Result};
use pingora_proxy::Session;

use super::Ctx;
use crate::clock;
use crate::entry;
use crate::policy::priority::Priority;
use crate::relay::adaptive::UPSTREAM_SATURATED;
use crate::relay::admit::{Admission, admit, overloaded, pass};
use crate::reply::problem::Problem;
use crate::report::metrics::shed::Full;

/// Whether the process can take it at all, before anything of it is looked at.
pub fn at_once(session: &Session, ctx: &mut Ctx) -> Option<Problem> {
    let gateway = ctx.gateway.clone();
    let excess = gateway.overload.as_ref()?.admit_any(gateway.in_flight()).err()?;
    gateway.metrics.shed.count(excess.full, None);
    let head = session.req_header();
    entry::note_unread(&gateway.clients, head, head.raw_path(), &mut ctx.facts);
    Some(excess.problem(None))
}

/// What stands in the way: none, and the request may go on.
pub fn ask(ctx: &mut Ctx) -> Option<Admission> {
    let (route, relay) = ctx.relay()?;
    if !relay.asks {
        return None;
    }
    let (pool, overload) = (&relay.upstream.pool, ctx.gateway.overload.as_ref());
    let is_asked = pool.upstream.adaptive.is_some() || overload.is_some();
    let priority = is_asked.then(|| Priority::of(route.priority, &ctx.facts, &ctx.gateway.plans));
    if let (Some(overload), Some(class)) = (overload, priority)
        && let Err(excess) = overload.admit(ctx.gateway.in_flight(), class)
    {
        ctx.gateway.metrics.shed.count(excess.full, priority);
        ctx.attempts.priority = priority;
        return Some(Admission::Refused(Box::new(excess.problem(priority))));
    }
    if !pool.admits {
        ctx.attempts.priority = priority;
        return None;
    }
    let admission = admit(pool, priority.unwrap_or(Priority::High), clock::mono);
    let rest = pool.least_rest();
    ctx.attempts.priority = priority;
    ctx.attempts.rest = rest;
    match admission {
        Admission::In(pass) => {
            ctx.attempts.pass = Some(pass);
            None
        }
        later @ Admission::Wait(..) => Some(later),
        Admission::Refused(problem) => {
            if problem.kind == &UPSTREAM_SATURATED {
                ctx.gateway.metrics.shed.count(Full::Upstream, priority);
            }
            Some(Admission::Refused(problem))
        }
    }
}

/// Waits for its turn. None: the request may go on.
///
/// # Errors
/// The client has gone.
pub async fn wait(session: &mut Session, ctx: &mut Ctx, admission: Admission) -> Result<Option<Box<Problem>>> {
    let Some((_, relay)) = ctx.relay() else { return Ok(None) };
    let pool = relay.upstream.pool.clone();
    let began = clock::mono();
    let admission = match admission {
        Admission::Wait(waiting, most, held) => {
            let turn = tokio::time::timeout(most, waiting);
            let turn = match session.is_body_done() {
                true => tokio::select! {
                    turn = turn => Some(turn),
                    // Of a request that is whole, nothing else can be heard.
                    _ = session.read_body_or_idle(true) => None,
                },
                // What is read would be missing from its body: that it left shows when it is sent on.
                false => Some(turn.await),
            };
            let now = clock::mono();
            ctx.facts.delay = ctx.facts.delay.saturating_add(now.saturating_sub(began));
            match turn {
                Some(Ok(place)) => pass(&pool, Some(place), held, || now),
                Some(Err(_)) => Admission::Refused(Box::new(overloaded(&pool, &format!("waited {most:?}")))),
                None => return Err(Error::explain(ErrorType::ConnectionClosed, "while it waited for an upstream").into_down()),
            }
        }
        at_once @ (Admission::In(_) | Admission::Refused(_)) => at_once,
    };
    match admission {
        Admission::In(pass) => {
            ctx.attempts.pass = Some(pass);
            Ok(None)
        }
        Admission::Refused(problem) => Ok(Some(problem)),
        // Nobody waits twice.
        Admission::Wait(..) => Ok(Some(Box::new(overloaded(&pool, "waited")))),
    }
}
