//! Waits for the token of a limit that delays. Who leaves meanwhile gives it back, and its place.
//!
//! Decides nothing: how long and who is decided in `policy/limits/throttle.rs`.

use pingora_core::{Error, ErrorType, Result};
use pingora_proxy::Session;

use super::Ctx;
use crate::clock;

/// Returns when the request may go on.
///
/// # Errors
/// The client has gone.
pub async fn wait(session: &mut Session, ctx: &mut Ctx) -> Result<()> {
    let until = ctx.facts.now.mono.saturating_add(ctx.facts.delay);
    let alarm = tokio::time::sleep_until(clock::instant(until));
    let gone = match session.is_body_done() {
        true => tokio::select! {
            () = alarm => false,
            // Of a request that is whole, nothing else can be heard.
            _ = session.read_body_or_idle(true) => true,
        },
        // What is read would be missing from its body: that it left shows when it is sent on.
        false => {
            alarm.await;
            false
        }
    };
    let waiting = std::mem::take(&mut ctx.facts.waiting);
    if !gone {
        return Ok(());
    }
    let now = clock::mono();
    ctx.facts.delay = now.saturating_sub(ctx.facts.now.mono);
    waiting.into_iter().for_each(|one| one.leave(&ctx.gateway.buckets, now));
    Err(Error::explain(ErrorType::ConnectionClosed, "while it waited for a limit").into_down())
}
