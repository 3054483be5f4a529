//! Decides whether there is anything to keep where a directory is named for it.

use std::time::Duration;

use super::Index;
use crate::config::diagnostic::Diagnostic;
use crate::policy::jwt::JwtSettings;
use crate::policy::rate_limit::LimitSettings;

/// From which on the count of a window is kept.
const LONG: Duration = Duration::from_secs(3600);

pub(super) fn check(index: &Index<'_>, errors: &mut Vec<Diagnostic>) {
    let Some(state) = index.document.server.as_ref().and_then(|server| server.state.as_ref()) else { return };
    let fetches = |jwt: &JwtSettings| jwt.keys.url.is_some() || jwt.keys.discovery.is_some();
    let is_used = index.document.authenticators.iter().any(|(_, one)| one.jwt.as_ref().is_some_and(fetches));
    let document = index.document;
    let has_quotas = document.plans.iter().any(|(_, plan)| plan.quota.is_some()) || document.limits.iter().any(|(_, limit)| keeps(limit));
    let is_listed = document.revocation.as_ref().is_some_and(|list| list.redis.is_some())
        || document.consumers_from.as_ref().is_some_and(|list| list.redis.is_some());
    if !is_used && !has_quotas && !is_listed && !index.broken.anything() {
        errors.push(Diagnostic::at(&state.place, "inert", "`state` has no effect: nothing is kept there").help(
            "it is for key sets that are fetched: `keys: { url: ... }` or `{ discovery: ... }`, for quotas, and for lists in `redis`",
        ));
    }
}

/// Windows of an hour or more are.
fn keeps(limit: &LimitSettings) -> bool {
    limit.quota.is_some() || (limit.window.is_some() && limit.rate.as_ref().is_some_and(|rate| rate.value.per >= LONG))
}
