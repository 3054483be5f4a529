//! Decides whether an upstream has anything to choose from, and whether what it tells requests apart by can tell any apart.

use super::Index;
use crate::config::diagnostic::Diagnostic;
use crate::config::types::At;
use crate::entry::route::pattern::Pattern;
use crate::policy::authn::AuthSettings;
use crate::relay::balance::hash_by::HashBy;
use crate::relay::targets::members::TargetSettings;
use crate::relay::upstream::{Balance, UpstreamSettings};

pub(super) fn check(index: &Index<'_>, errors: &mut Vec<Diagnostic>) {
    let zone = index.document.server.as_ref().and_then(|server| server.zone.as_ref());
    let has_zone = zone.is_some();
    let tells_zones = |upstream: &UpstreamSettings| {
        let listed = upstream.targets.as_ref().is_some_and(|targets| targets.value.iter().any(|target| target.zone.is_some()));
        listed || upstream.targets_from.as_ref().is_some_and(|from| from.srv.is_none())
    };
    if let Some(zone) = zone.filter(|_| !index.broken.anything() && !index.document.upstreams.iter().any(|(_, one)| tells_zones(one))) {
        errors.push(
            Diagnostic::at(&zone.place, "inert", "`zone` has no effect here: no target has one")
                .help("say where targets are: `{ address: .., zone: .. }`"),
        );
    }
    for (name, upstream) in &index.document.upstreams {
        match (&upstream.targets, &upstream.targets_from) {
            (Some(_), Some(from)) => {
                let message = format!("`{}` lists its targets already: expected one of `targets` and `targets_from`", name.value);
                errors.push(Diagnostic::at(&from.place, "targets-from", message));
            }
            (None, None) => {
                let message = format!("`{}` has no targets: expected `targets` or `targets_from`", name.value);
                errors.push(Diagnostic::at(&name.place, "missing-key", message));
            }
            (Some(_), None) | (None, Some(_)) => {}
        }
        let listed = upstream.targets.as_ref().map_or(&[][..], |targets| targets.value.as_slice());
        if let (Some(balance), [_]) = (&upstream.balance, listed) {
            let message = format!("`{}` has one target, so there is nothing to choose", name.value);
            errors.push(Diagnostic::at(&balance.place, "inert", message).help("remove `balance`, or add a target"));
        }
        preferences(upstream, listed, has_zone, errors);
        if let [only] = listed
            && let Some(weight) = &only.value.weight
        {
            let message = format!("`{}` has one target, which gets every request whatever its weight", name.value);
            errors.push(Diagnostic::at(&weight.place, "inert", message).help("remove `weight`, or add a target"));
        }
        let hashes = upstream.balance.as_ref().filter(|balance| balance.value == Balance::Hash);
        match (hashes, &upstream.hash_by) {
            (None, None) => {}
            (Some(balance), None) => errors.push(
                Diagnostic::at(&balance.place, "missing-key", format!("`{}` has no `hash_by`, which `balance: hash` needs", name.value))
                    .help("say what requests are told apart by, such as `hash_by: [header:x-user-id, client_ip]`"),
            ),
            (None, Some(by)) => errors.push(
                Diagnostic::at(&by.place, "inert", "`hash_by` has no effect here: `balance` is not `hash`").help("add `balance: hash`"),
            ),
            (Some(_), Some(by)) => {
                if by.value.is_empty() {
                    let message = "an empty list: expected what requests are told apart by, such as `[header:x-user-id, client_ip]`";
                    errors.push(Diagnostic::at(&by.place, "empty-list", message));
                }
                for (position, one) in by.value.iter().enumerate() {
                    let before = &by.value[..position];
                    if before.iter().any(|earlier| earlier.value == one.value) {
                        errors.push(Diagnostic::at(&one.place, "listed-twice", format!("`{}` stands here twice", one.value)));
                    } else if before.iter().any(|earlier| earlier.value == HashBy::ClientIp) {
                        let message = format!("`{}` is never asked for: every request has the `client_ip` before it", one.value);
                        errors.push(Diagnostic::at(&one.place, "inert", message).help("put `client_ip` last"));
                    } else {
                        errors.extend(never_there(index, name, one));
                    }
                }
            }
        }
    }
}

/// What prefers one target to another where that cannot be.
fn preferences(upstream: &UpstreamSettings, listed: &[At<TargetSettings>], has_zone: bool, errors: &mut Vec<Diagnostic>) {
    if let [_] = listed {
        let alone = "there is one target, so there is nothing to choose";
        errors.extend(upstream.sticky.as_ref().map(|at| Diagnostic::at(&at.place, "inert", alone)));
        errors.extend(upstream.slow_start.as_ref().map(|at| Diagnostic::at(&at.place, "inert", alone)));
    }
    let priority = |target: &TargetSettings| target.priority.as_ref().map_or(0, |priority| priority.value);
    if listed.iter().all(|target| priority(target) == priority(&listed[0]))
        && let Some(at) = listed.iter().find_map(|target| target.priority.as_ref())
    {
        let message = "every target has this priority, so none is preferred";
        errors.push(Diagnostic::at(&at.place, "inert", message).help("leave it out where it is 0, and give the others a higher number"));
    }
    for zone in listed.iter().filter_map(|target| target.zone.as_ref()) {
        if zone.value.is_empty() {
            errors.push(Diagnostic::at(&zone.place, "no-value", "an empty name: expected that of a zone, such as `eu-west-1a`"));
        } else if !has_zone {
            let message = "`zone` has no effect here: nothing says where this gateway is";
            errors.push(Diagnostic::at(&zone.place, "inert", message).help("write `server: { zone: .. }`"));
        }
    }
}

/// A key that no route of this upstream can have.
fn never_there(index: &Index<'_>, upstream: &At<String>, by: &At<HashBy>) -> Option<Diagnostic> {
    if index.broken.anything() {
        return None;
    }
    let mut routes = index.document.routes.iter().zip(&index.effective).filter(|((_, route), effective)| {
        let answers = route.own.respond.is_some() || route.own.redirect.is_some();
        !answers && effective.goes_to(upstream)
    });
    match &by.value {
        HashBy::Path(name) => {
            let has_it = |path: &At<String>| Pattern::parse(path).is_ok_and(|pattern| pattern.captures().any(|known| known == &**name));
            if routes.any(|((_, route), _)| has_it(&route.own.matches.path)) {
                return None;
            }
            let message = format!("no route that uses `{}` has `{{{name}}}` in its path", upstream.value);
            Some(Diagnostic::at(&by.place, "inert", message).help(format!("name a segment, such as `/users/{{{name}}}/**`")))
        }
        HashBy::Consumer => {
            if routes.any(|((_, route), _)| !matches!(route.own.auth.value, AuthSettings::Public)) {
                return None;
            }
            let message = format!("every route that uses `{}` is public, so its callers are no consumers", upstream.value);
            Some(Diagnostic::at(&by.place, "inert", message))
        }
        HashBy::Header(_) | HashBy::Cookie(_) | HashBy::Query(_) | HashBy::ClientIp => None,
    }
}
