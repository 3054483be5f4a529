//! Asks an upstream whether it takes one more request, and waits in its queue. Who leaves meanwhile leaves the queue.
//!
//! Decides nothing: see `relay/admit.rs`.

use pingora_core::{Error, ErrorType, Result};
use pingora_proxy::Session;

use super::Ctx;
use crate::clock;
use crate::relay::admit::{Admission, admit, overloaded, pass};
use crate::reply::problem::Problem;

/// What stands in the way: none, and the request may go on.
pub fn ask(ctx: &mut Ctx) -> Option<Admission> {
    let (_, relay) = ctx.relay()?;
    if !relay.upstream.pool.admits {
        return None;
    }
    ctx.attempts.rest = relay.upstream.pool.least_rest();
    let (_, relay) = ctx.relay()?;
    match admit(&relay.upstream.pool, clock::mono()) {
        Admission::In(pass) => {
            ctx.attempts.pass = Some(pass);
            None
        }
        later @ (Admission::Wait(..) | Admission::Refused(_)) => Some(later),
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
        Admission::Wait(waiting, most) => {
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
                Some(Ok(place)) => pass(&pool, Some(place), now),
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
