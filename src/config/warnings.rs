//! What is doubtful about a configuration that is right: it is accepted, and somebody should look.
//!
//! Decides how long before its end a certificate is worth a warning, that a revocation list is once it is over, that several targets are of
//! which nobody finds out who works, that a route is whose demands no consumer meets, an upstream that is drained, a fault that any
//! request may meet, and retries without a budget, which multiply an outage.

mod versions;

use super::plan::{Gateway, Route};
use crate::relay::upstream::Upstream;

/// Days before a certificate expires from which on it is told.
const DAYS: i64 = 30;

/// One sentence each.
pub fn warnings(gateway: &Gateway, unix_ms: u64) -> Vec<String> {
    let mut all = unwatched(gateway);
    for listener in &gateway.listeners {
        for certificate in listener.settings.tls.iter().flat_map(|tls| tls.certificates()) {
            let who = format!("certificate `{}` of listener `{}`", certificate.name, listener.name);
            let what = if certificate.issuers_first { format!("an issuer in the chain of {who}") } else { who.clone() };
            match certificate.days_left(unix_ms) {
                days if days < 0 => all.push(format!("{what} has expired: clients refuse it")),
                0 => all.push(format!("{what} expires in less than a day")),
                1 => all.push(format!("{what} expires in a day")),
                days if days <= DAYS => all.push(format!("{what} expires in {days} days")),
                _ => {}
            }
            let until = certificate.clients().and_then(|clients| clients.lists_until);
            if until.is_some_and(|until| until < i64::try_from(unix_ms / 1_000).unwrap_or(i64::MAX)) {
                all.push(format!("a revocation list of {who} is past its date: who was revoked since is still believed"));
            }
        }
    }
    for upstream in gateway.upstreams.iter().filter(|upstream| upstream.pool.upstream.retries.is_unbounded) {
        all.push(format!(
            "upstream `{}` has `retries` without a budget: in an outage every request is sent up to {} times",
            upstream.name, upstream.pool.upstream.retries.attempts
        ));
    }
    let drained = |upstream: &Upstream| !upstream.targets.is_empty() && upstream.targets.iter().all(|target| target.drain);
    for upstream in gateway.upstreams.iter().filter(|upstream| drained(&upstream.pool.upstream)) {
        all.push(format!("every target of upstream `{}` is drained: it answers nothing", upstream.name));
    }
    for route in &gateway.routes {
        all.extend(never_allowed(gateway, route));
        if let Some(fault) = route.policies.fault.as_ref().filter(|fault| fault.is_for_everybody()) {
            all.push(format!("`fault` of route `{}` is for every request: {fault}", route.name));
        }
    }
    all.extend(versions::warnings(gateway));
    all
}

/// Upstreams with several targets, one of which may be gone without anybody noticing.
fn unwatched(gateway: &Gateway) -> Vec<String> {
    let is_unwatched = |upstream: &Upstream| {
        let by_circuit = upstream.circuit_breaker.as_ref().is_some_and(|rules| rules.is_of_target());
        let are_several = upstream.targets.len() > 1 || upstream.source.is_some();
        are_several && upstream.health.is_none() && upstream.outlier_detection.is_none() && !by_circuit
    };
    let all = gateway.upstreams.iter().map(|plan| &*plan.pool.upstream).filter(|upstream| is_unwatched(upstream));
    let told = |upstream: &Upstream| {
        let name = &upstream.name;
        let what = match &upstream.source {
            Some(source) => format!("finds its targets in {source} and has"),
            None => format!("has {} targets and", upstream.targets.len()),
        };
        format!("upstream `{name}` {what} neither `health` nor `outlier_detection`: one that is gone keeps its share of the requests")
    };
    all.map(told).collect()
}

/// A route that takes keys only, and demands a scope that no consumer has. No mistake: the consumer may come with the next reload.
fn never_allowed(gateway: &Gateway, route: &Route) -> Option<String> {
    let (auth, allow) = (&route.policies.auth, route.policies.allow.as_ref()?);
    // Who else may come is not known: tokens bring scopes of their own, and a file of consumers may change at any time.
    if auth.takes_tokens() || auth.takes_certificates() || !auth.takes_keys() || gateway.authenticators.listed().is_some() {
        return None;
    }
    let has = |scope: &String| gateway.authenticators.consumers().iter().any(|consumer| consumer.scopes.contains(scope));
    let missing = allow.scopes().iter().find(|scope| !has(scope))?;
    Some(format!("route `{}` lets nobody in: it takes keys only, and no consumer has the scope `{missing}` that it demands", route.name))
}
