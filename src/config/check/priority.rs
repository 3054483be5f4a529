//! Decides whether the priority of a plan can ever be asked for: only where something can be full. Of a route, its own compiling knows.

use super::Index;
use crate::config::diagnostic::Diagnostic;

pub(super) fn check(index: &Index<'_>, errors: &mut Vec<Diagnostic>) {
    let document = index.document;
    let is_guarded = document.server.as_ref().is_some_and(|server| server.overload.is_some());
    let can_be_full = is_guarded || document.upstreams.iter().any(|(_, upstream)| upstream.adaptive_concurrency.is_some());
    if can_be_full || index.broken.anything() {
        return;
    }
    for priority in document.plans.iter().filter_map(|(_, plan)| plan.priority.as_ref()) {
        let message = "`priority` has no effect here: nothing is ever full";
        errors.push(
            Diagnostic::at(&priority.place, "inert", message)
                .help("`adaptive_concurrency` of an upstream or `overload` of `server` makes it so"),
        );
    }
}
