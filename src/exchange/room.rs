//! Waits until an attempt may connect, where its upstream has so many connections at most. Who leaves meanwhile leaves the queue.
//!
//! Decides nothing: see `relay/room.rs`.

use std::time::Duration;

use pingora_core::{Error, ErrorType, Result};
use pingora_proxy::Session;

use super::{Ctx, fallback};
use crate::clock;
use crate::relay::admit::{UPSTREAM_OVERLOADED, without_room};
use crate::relay::attempt::peer::connection_key;
use crate::relay::room::{Entry, Local, Queued, Slot, enter};

/// How it went.
enum Turn {
    In(Slot),
    Refused(String),
    Gone,
}

/// Before each attempt at an upstream that may be full.
///
/// # Errors
/// It is, or the client has gone.
pub(super) async fn take(session: &mut Session, ctx: &mut Ctx) -> Result<()> {
    loop {
        // The connection of the attempt before has been put away.
        ctx.attempts.slot = None;
        let Some((_, relay)) = ctx.relay() else { return Ok(()) };
        let pool = relay.upstream.pool.clone();
        let (Some(most), Some(chosen)) = (pool.upstream.max_connections, &ctx.attempts.chosen) else { return Ok(()) };
        let local = Local::of(connection_key(&pool, chosen, clock::mono()));
        let queue = pool.upstream.queue;
        let turn = match enter(&pool.group, &local, pool.keeps_connections(), queue.map_or(0, |queue| queue.length)) {
            Entry::In(slot) => Turn::In(slot),
            Entry::Full => Turn::Refused(without_room(most, "the queue is full")),
            Entry::Wait(queued) => {
                let wait = queue.map_or(Duration::ZERO, |queue| queue.wait);
                let began = clock::mono();
                let turn = until_free(session, queued, wait).await;
                ctx.facts.delay = ctx.facts.delay.saturating_add(clock::mono().saturating_sub(began));
                turn.unwrap_or_else(|| Turn::Refused(without_room(most, &format!("waited {wait:?}"))))
            }
        };
        match turn {
            Turn::In(slot) => {
                ctx.attempts.slot = Some(slot);
                return Ok(());
            }
            Turn::Gone => return Err(Error::explain(ErrorType::ConnectionClosed, "while it waited for a connection").into_down()),
            Turn::Refused(why) => {
                let reason = Some(why);
                if ctx.attempts.number == ctx.attempts.before && fallback::elsewhere(session, ctx, &UPSTREAM_OVERLOADED, &reason) {
                    // The other upstream may be full as well.
                    continue;
                }
                ctx.attempts.chosen = None;
                ctx.facts.refused = Some((&UPSTREAM_OVERLOADED, reason));
                return Err(Error::explain(ErrorType::HTTPStatus(UPSTREAM_OVERLOADED.status), UPSTREAM_OVERLOADED.code));
            }
        }
    }
}

/// None: it has waited as long as it may.
async fn until_free(session: &mut Session, mut queued: Queued, wait: Duration) -> Option<Turn> {
    let turn = tokio::time::timeout(wait, queued.turn());
    let turn = match session.is_body_done() {
        true => tokio::select! {
            turn = turn => turn.ok(),
            // Of a request that is whole, nothing else can be heard.
            _ = session.read_body_or_idle(true) => return Some(Turn::Gone),
        },
        // What is read would be missing from its body: that it left shows when it is sent on.
        false => turn.await.ok(),
    };
    turn.map(Turn::In)
}
