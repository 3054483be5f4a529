//! What is doubtful about a configuration that is right: it is accepted, and somebody should look.
//!
//! Decides how long before its end a certificate is worth a warning, that a revocation list is once it is over, and that several targets are
//! of which nobody finds out who works.

use super::plan::Gateway;
use crate::relay::upstream::Upstream;

/// Days before a certificate expires from which on it is told.
const DAYS: i64 = 30;

/// One sentence each.
pub fn warnings(gateway: &Gateway, unix_ms: u64) -> Vec<String> {
    let mut all = unwatched(gateway);
    for listener in &gateway.listeners {
        for certificate in listener.settings.tls.iter().flat_map(|tls| tls.certificates()) {
            let who = format!("certificate `{}` of listener `{}`", certificate.name, listener.name);
            match certificate.days_left(unix_ms) {
                days if days < 0 => all.push(format!("{who} has expired: clients refuse it")),
                0 => all.push(format!("{who} expires in less than a day")),
                1 => all.push(format!("{who} expires in a day")),
                days if days <= DAYS => all.push(format!("{who} expires in {days} days")),
                _ => {}
            }
            let until = certificate.clients().and_then(|clients| clients.lists_until);
            if until.is_some_and(|until| until < i64::try_from(unix_ms / 1_000).unwrap_or(i64::MAX)) {
                all.push(format!("a revocation list of {who} is past its date: who was revoked since is still believed"));
            }
        }
    }
    all
}

/// Upstreams with several targets, one of which may be gone without anybody noticing.
fn unwatched(gateway: &Gateway) -> Vec<String> {
    let is_unwatched = |upstream: &Upstream| {
        let by_circuit = upstream.circuit_breaker.as_ref().is_some_and(|rules| rules.is_of_target());
        upstream.targets.len() > 1 && upstream.health.is_none() && upstream.outlier_detection.is_none() && !by_circuit
    };
    let all = gateway.upstreams.iter().map(|plan| &*plan.pool.upstream).filter(|upstream| is_unwatched(upstream));
    let told = |upstream: &Upstream| {
        let (name, count) = (&upstream.name, upstream.targets.len());
        format!(
            "upstream `{name}` has {count} targets and neither `health` nor `outlier_detection`: one that is gone keeps its share of the requests"
        )
    };
    all.map(told).collect()
}
