//! Carries out what a route does where its upstream cannot be reached. What that is, and when, is decided in `relay/fallback.rs`.

use std::sync::Arc;

use pingora_core::Result;
use pingora_proxy::Session;

use super::{Ctx, attempt, call, tunnel, write};
use crate::clock;
use crate::policy::Answer;
use crate::policy::priority::Priority;
use crate::relay::admit::{Admission, admit};
use crate::relay::fallback::{Fallback, is_untouched};
use crate::reply::problem::{Kind, Problem};

/// What a request has fallen back from and to.
#[derive(Debug)]
pub struct Fell {
    /// The upstream that could not be reached.
    from: Arc<str>,
    /// Why, as the client would have been told.
    kind: &'static Kind,
    reason: Option<String>,
    /// The other upstream; none where the route has answered by itself.
    to: Option<Arc<str>>,
}

// === impl Fell ===

impl Fell {
    /// What has taken over, for the log.
    pub fn to(&self) -> &str {
        self.to.as_deref().unwrap_or("answer")
    }

    /// Why, for the log: what the client was not told. `after`: why the other upstream failed too, if it did.
    pub fn reason(&self, after: Option<&str>) -> String {
        let Fell { from, kind, reason, to: _ } = self;
        let why = reason.as_ref().map(|reason| format!(": {reason}")).unwrap_or_default();
        let after = after.map(|after| format!("; then {}: {after}", self.to())).unwrap_or_default();
        format!("{from}: {}{why}{after}", kind.code)
    }
}

/// There is no target to begin with. False: another upstream has the request now. True: it has been answered.
pub async fn or_refuse(session: &mut Session, ctx: &mut Ctx, problem: &Problem) -> Result<bool> {
    if elsewhere(session, ctx, problem.kind, &problem.reason) {
        call::start(session, ctx);
        return Ok(false);
    }
    match answer(ctx, problem) {
        Some(answer) => write::answer(session, ctx, &answer).await?,
        None => write::refuse(session, ctx, problem).await?,
    }
    Ok(true)
}

/// Whether the route has anything else for a request that ends so.
pub fn is_there(ctx: &Ctx) -> bool {
    ctx.attempts.fell.is_none() && ctx.route().is_some_and(|route| route.fallback.is_some())
}

/// Chooses a target of the other upstream, where the route has one and it is not what has failed.
pub fn elsewhere(session: &Session, ctx: &mut Ctx, kind: &'static Kind, reason: &Option<String>) -> bool {
    if !is_there(ctx) || !is_untouched(kind) {
        return false;
    }
    let Some((route, relay)) = ctx.relay() else { return false };
    let Some(Fallback::Upstream(at)) = route.fallback.as_deref() else { return false };
    let at = *at;
    let Some(other) = route.relay(at).filter(|_| at != ctx.facts.chosen) else { return false };
    let (from, to) = (relay.upstream.name.clone(), other.upstream.name.clone());
    let series = route.series.clone();
    let pool = other.upstream.pool.clone();
    let priority = Priority::of(route.priority, &ctx.facts, &ctx.gateway.plans);
    let pass = match pool.admits.then(|| admit(&pool, priority, clock::mono)) {
        None => None,
        Some(Admission::In(pass)) => Some(pass),
        // What is a way out for the one must not crowd the other.
        Some(Admission::Wait(..) | Admission::Refused(_)) => return false,
    };
    let chosen = std::mem::replace(&mut ctx.facts.chosen, at);
    let tried = std::mem::take(&mut ctx.attempts.tried);
    if tunnel::is_unfit(session, ctx) || !attempt::choose(session, ctx) {
        ctx.facts.chosen = chosen;
        ctx.attempts.tried = tried;
        return false;
    }
    ctx.attempts.pass = pass;
    ctx.attempts.rest = pool.least_rest();
    ctx.attempts.before = ctx.attempts.number;
    ctx.attempts.is_fresh = false;
    series.fell_back(kind);
    ctx.attempts.fell = Some(Box::new(Fell { from, kind, reason: reason.clone(), to: Some(to) }));
    true
}

/// The answer that the route has for a request that would be refused so. Not for calls of gRPC, which could not read it.
pub fn answer(ctx: &mut Ctx, problem: &Problem) -> Option<Answer> {
    if !is_there(ctx) || !is_untouched(problem.kind) || ctx.call.is_some() {
        return None;
    }
    let (route, relay) = ctx.relay()?;
    let Some(Fallback::Answer(own)) = route.fallback.as_deref() else { return None };
    let (answer, from) = (own.answer(), relay.upstream.name.clone());
    route.series.fell_back(problem.kind);
    ctx.attempts.fell = Some(Box::new(Fell { from, kind: problem.kind, reason: problem.reason.clone(), to: None }));
    Some(answer)
}
