//! What is doubtful about a configuration that is right: it is accepted, and somebody should look.
//!
//! Decides how long before its end a certificate is worth a warning, that a revocation list is once it is over, and
//! that retries without a budget multiply an outage.

use super::plan::Gateway;

/// Days before a certificate expires from which on it is told.
const DAYS: i64 = 30;

/// One sentence each.
pub fn warnings(gateway: &Gateway, unix_ms: u64) -> Vec<String> {
    let mut all = Vec::new();
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
    for upstream in gateway.upstreams.iter().filter(|upstream| upstream.pool.upstream.retries.is_unbounded) {
        all.push(format!(
            "upstream `{}` has `retries` without a budget: in an outage every request is sent up to {} times",
            upstream.name, upstream.pool.upstream.retries.attempts
        ));
    }
    all
}
