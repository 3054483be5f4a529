//! Copies a request while it goes upstream, where its route has a mirror. Which, and what becomes of the copy, is decided in `relay/mirror`.

use bytes::Bytes;
use pingora_http::RequestHeader;
use pingora_proxy::Session;

use super::{Ctx, is_websocket};
use crate::relay::mirror::{Copy, Mirrored};

/// How far the copy of a request has come.
#[derive(Debug, Default)]
pub enum Copying {
    /// Nothing has been decided.
    #[default]
    Open,
    /// Its body is on its way.
    Begun(Box<Copy>),
    /// It has been sent, or there is none.
    Over,
}

/// The head is as the upstream gets it. A second attempt begins anew, unless the first was whole.
pub fn head(session: &mut Session, ctx: &mut Ctx, head: &RequestHeader) {
    let Some((route, relay)) = ctx.relay() else { return };
    let Some(mirror) = &route.mirror else { return };
    let begun = match &ctx.attempts.copying {
        Copying::Over => return,
        Copying::Open if !mirror.wants(&ctx.facts.request_id) => None,
        Copying::Open if is_websocket(session) || ctx.call.is_some() => {
            mirror.count(Mirrored::Unfit);
            None
        }
        Copying::Open | Copying::Begun(_) => mirror.begin(&relay.upstream.name, head),
    };
    ctx.attempts.copying = match begun {
        Some(copy) if session.is_body_empty() => {
            copy.send();
            Copying::Over
        }
        Some(copy) => Copying::Begun(Box::new(copy)),
        None => Copying::Over,
    };
}

/// A piece of the body.
pub fn part(ctx: &mut Ctx, body: &Option<Bytes>, end: bool) {
    let Copying::Begun(copy) = &mut ctx.attempts.copying else { return };
    let fits = body.as_ref().is_none_or(|piece| copy.add(piece));
    if !fits {
        ctx.attempts.copying = Copying::Over;
    } else if end && let Copying::Begun(copy) = std::mem::replace(&mut ctx.attempts.copying, Copying::Over) {
        copy.send();
    }
}
