//! What is doubtful about a configuration that is right: it is accepted, and somebody should look.
//!
//! Decides how long before its end a certificate is worth a warning.

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
        }
    }
    all
}
