//! Decides whether there is anything to keep where a directory is named for it.

use super::Index;
use crate::config::diagnostic::Diagnostic;
use crate::policy::jwt::JwtSettings;

pub(super) fn check(index: &Index<'_>, errors: &mut Vec<Diagnostic>) {
    let Some(state) = index.document.server.as_ref().and_then(|server| server.state.as_ref()) else { return };
    let fetches = |jwt: &JwtSettings| jwt.keys.url.is_some() || jwt.keys.discovery.is_some();
    let is_used = index.document.authenticators.iter().any(|(_, one)| one.jwt.as_ref().is_some_and(fetches));
    if !is_used && !index.broken.anything() {
        errors.push(
            Diagnostic::at(&state.place, "inert", "`state` has no effect: nothing is kept there")
                .help("it is for key sets that are fetched: `keys: { url: ... }` or `{ discovery: ... }`"),
        );
    }
}
