//! Begins a tunnel, and says where there can be none: what of the times of a request holds from then on. Decides nothing: see `policy/websocket.rs` and `relay/attempt/deadline.rs`.

use pingora_proxy::Session;

use super::time::idle;
use super::{Ctx, is_websocket};
use crate::clock;
use crate::relay::attempt::protocol::Protocol;

/// From here on both sides say what they like, until one of them, silence or the end of the token ends it.
pub(super) fn begin(ctx: &mut Ctx) {
    ctx.attempts.is_tunnel = true;
    let (Some((route, relay)), Some(conn)) = (ctx.relay(), &ctx.conn) else { return };
    let now = clock::now();
    conn.begin_tunnel(route.policies.tunnel_watch(&ctx.facts));
    conn.deadline.await_bytes(now.mono, idle(ctx, route, relay));
    conn.deadline.end_never();
    if let Some(end) = route.policies.tunnel_end(&ctx.facts) {
        conn.deadline.end_at(now.mono.saturating_add(end.saturating_sub(now.unix_ms).saturating_mul(1_000_000)));
    }
    route.series.tunnels().open();
}

/// Whether a WebSocket is asked for where HTTP/2 is spoken.
pub fn is_unfit(session: &Session, ctx: &Ctx) -> bool {
    is_websocket(session) && ctx.relay().is_some_and(|(_, relay)| relay.upstream.pool.upstream.protocol == Protocol::H2)
}
