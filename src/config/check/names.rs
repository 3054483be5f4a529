//! Decides which references lead nowhere, and which definitions nothing uses.

use super::{Index, each_once, singular};
use crate::config::diagnostic::Diagnostic;
use crate::config::document::{DefaultsSettings, PolicySettings};
use crate::config::types::{At, Named};
use crate::policy::authn::AuthSettings;
use crate::relay::choice::GoesTo;

pub(super) fn check(index: &Index<'_>, errors: &mut Vec<Diagnostic>) {
    let document = index.document;
    for (_, listener) in &document.listeners {
        refer_all(index, "limits", &listener.limits, errors);
    }
    for (_, consumer) in &document.consumers {
        if let Some(plan) = &consumer.plan {
            index.refer("plans", plan, errors);
        }
    }
    for (_, settings) in &document.authenticators {
        if let Some(plan) = settings.plan() {
            index.refer("plans", &plan.value.default, errors);
        }
    }
    for (_, bundle) in &document.bundles {
        policies(index, bundle, errors);
    }
    if let Some(DefaultsSettings { place: _, bundles, upstream, policies: defaults }) = &document.defaults {
        refer_all(index, "bundles", bundles, errors);
        if let Some(upstream) = upstream {
            for name in GoesTo::upstreams(upstream) {
                index.refer("upstreams", &name, errors);
            }
        }
        policies(index, defaults, errors);
    }
    for (_, route) in &document.routes {
        if let Some(listeners) = &route.own.listeners {
            refer_all(index, "listeners", listeners, errors);
        }
        match &route.own.auth.value {
            AuthSettings::Public => {}
            AuthSettings::AnyOf(names) => refer_all(index, "authenticators", names, errors),
        }
        if let Some(bundles) = &route.own.bundles {
            refer_all(index, "bundles", bundles, errors);
        }
        if let Some(upstream) = &route.own.upstream {
            for name in GoesTo::upstreams(upstream) {
                index.refer("upstreams", &name, errors);
            }
        }
        policies(index, &route.policies, errors);
    }
}

fn policies(index: &Index<'_>, policies: &PolicySettings, errors: &mut Vec<Diagnostic>) {
    if let Some(limits) = &policies.limits {
        refer_all(index, "limits", limits, errors);
    }
    let fallback = policies.fallback.as_ref().and_then(|fallback| fallback.upstream.as_ref());
    for upstream in fallback.into_iter().chain(policies.mirror.as_ref().map(|mirror| &mirror.upstream)) {
        index.refer("upstreams", upstream, errors);
    }
}

fn refer_all(index: &Index<'_>, section: &'static str, names: &[At<String>], errors: &mut Vec<Diagnostic>) {
    each_once(names, errors);
    for name in names {
        index.refer(section, name, errors);
    }
}

/// Tells definitions without a use. Not plans: one that nobody has yet is no mistake.
pub(super) fn check_unused(index: &Index<'_>, errors: &mut Vec<Diagnostic>) {
    // What could not be read might have used anything.
    if index.broken.anything() {
        return;
    }
    let document = index.document;
    unused(index, "authenticators", &document.authenticators, errors);
    unused(index, "limits", &document.limits, errors);
    unused(index, "upstreams", &document.upstreams, errors);
    unused(index, "bundles", &document.bundles, errors);
    if document.listeners.len() > 1 {
        for (name, listener) in &document.listeners {
            // One that redirects needs no route.
            if listener.redirect_https.is_none() && !index.is_used("listeners", name) {
                errors.push(
                    Diagnostic::at(&name.place, "unused", format!("no route is on the listener `{}`", name.value))
                        .help("name it in the `listeners` of a route, or remove it"),
                );
            }
        }
    }
    for (section, empty) in [("listeners", document.listeners.is_empty()), ("routes", document.routes.is_empty())] {
        if empty {
            errors.push(Diagnostic::nowhere("missing-section", format!("there are no `{section}`: the gateway would answer nothing")));
        }
    }
}

fn unused<T>(index: &Index<'_>, section: &'static str, entries: &Named<T>, errors: &mut Vec<Diagnostic>) {
    for (name, _) in entries {
        if !index.is_used(section, name) {
            errors.push(
                Diagnostic::at(&name.place, "unused", format!("the {} `{}` is defined but nothing uses it", singular(section), name.value))
                    .help("use it, or remove it"),
            );
        }
    }
}
