//! Decides whether a route is whole and whether all that is written for it can take effect.

use std::collections::{HashMap, HashSet};

use super::Index;
use crate::config::diagnostic::{Diagnostic, Place};
use crate::config::document::{Document, PolicySettings, RouteOwnSettings, RouteSettings};
use crate::config::effective::{Effective, Giver};
use crate::config::types::At;
use crate::entry::route::pattern::Pattern;
use crate::policy::authn::{AuthSettings, AuthenticatorSettings};
use crate::policy::client_certificate::bad_fact;
use crate::policy::client_certificate::facts::FACTS;
use crate::policy::{Needs, Shadow, Written};

pub(super) fn check(index: &Index<'_>, errors: &mut Vec<Diagnostic>) {
    let document = index.document;
    let many = document.listeners.len() + index.broken.count("listeners") > 1;
    let mut shadowed = Shadowed::default();
    for ((name, route), effective) in document.routes.iter().zip(&index.effective) {
        let RouteSettings { place, own, policies } = route;
        if own.listeners.is_none() && many && !index.broken.files {
            let all: Vec<String> = document.listeners.iter().take(4).map(|(name, _)| format!("`{}`", name.value)).collect();
            errors.push(
                Diagnostic::at(place, "listeners-needed", format!("`{}` must say on which listeners it is: there are several", name.value))
                    .help(format!("add `listeners: [...]` with any of {}", all.join(", "))),
            );
        }
        one_way_to_answer(index, name, route, effective, errors);
        if let Some(respond) = own.respond.as_ref().map(|r| &r.place).or(own.redirect.as_ref().map(|r| &r.place)) {
            inert_without_upstream(policies, respond, own, errors);
        }
        if let Some(accept) = &policies.accept
            && Pattern::parse(&own.matches.path).is_ok_and(|pattern| pattern.captures().next().is_none())
        {
            let message = format!("`accept` has no effect here: `{}` matches one spelling only", own.matches.path.value);
            errors.push(Diagnostic::at(&accept.place, "inert", message).help("a `{name}` or a final `/**` takes what clients write"));
        }
        authorisation(index, name, route, effective, errors);
        duplicate_policies(index, route, errors);
        shadowed.note(document, route, effective);
    }
    duplicate_defaults(index, errors);
    shadowed.tell(errors);
}

fn one_way_to_answer(index: &Index<'_>, name: &str, route: &RouteSettings, effective: &Effective<'_>, errors: &mut Vec<Diagnostic>) {
    let RouteOwnSettings { upstream, respond, redirect, listeners: _, matches: _, auth: _, bundles: _, idempotent: _, priority: _ } =
        &route.own;
    let written: Vec<(&str, &Place)> = [
        ("upstream", upstream.as_ref().map(|at| &at.place)),
        ("respond", respond.as_ref().map(|at| &at.place)),
        ("redirect", redirect.as_ref().map(|at| &at.place)),
    ]
    .into_iter()
    .filter_map(|(key, place)| Some((key, place?)))
    .collect();
    if let [(first, _), (second, place), ..] = written.as_slice() {
        errors.push(Diagnostic::at(
            place,
            "choose-one",
            format!("`{name}` has `{first}` and `{second}`: expected exactly one of `upstream`, `respond` and `redirect`"),
        ));
    } else if written.is_empty() && effective.upstream.is_none() && !index.broken.has("defaults", "") {
        errors.push(
            Diagnostic::at(
                &route.place,
                "choose-one",
                format!("`{name}` does not say what answers: expected exactly one of `upstream`, `respond` and `redirect`"),
            )
            .help("`upstream` may also stand in `defaults`"),
        );
    }
}

/// A route that answers by itself sends nothing on, so there is nothing to rewrite, and no body is read.
fn inert_without_upstream(policies: &PolicySettings, answer: &Place, own: &RouteOwnSettings, errors: &mut Vec<Diagnostic>) {
    let word = if own.respond.is_some() { "respond" } else { "redirect" };
    for Written { key, place, .. } in policies.written().iter().filter(|written| written.needs == Needs::Upstream) {
        errors.push(
            Diagnostic::at(place, "inert", format!("`{key}` has no effect here: the route answers by itself, nothing goes to an upstream"))
                .help(format!("remove `{key}`, or the `{word}` on line {}", answer.line)),
        );
    }
}

fn authorisation(index: &Index<'_>, name: &str, route: &RouteSettings, effective: &Effective<'_>, errors: &mut Vec<Diagnostic>) {
    let Some(allow) = effective.given(|all| &all.allow) else { return };
    let from = match allow.by {
        Giver::Route => String::new(),
        Giver::Bundle(bundle) | Giver::DefaultsBundle(bundle) => format!(" of the bundle `{bundle}`"),
        Giver::Defaults => " of the defaults".to_owned(),
    };
    match &route.own.auth.value {
        AuthSettings::Public => {
            let place = if allow.by == Giver::Route { &allow.settings.place } else { &route.own.auth.place };
            errors.push(
                Diagnostic::at(
                    place,
                    "inert",
                    format!("`{name}` is public, so its callers are unknown and the `allow`{from} cannot be judged"),
                )
                .help("name authenticators in `auth`, or do not use this `allow` here"),
            );
        }
        AuthSettings::AnyOf(names) => {
            let all = |of: fn(&AuthenticatorSettings) -> bool| {
                names.iter().all(|name| index.authenticators.get(name.as_str()).is_some_and(|one| of(one)))
            };
            let (roles, claims) = (allow.settings.roles.is_some(), allow.settings.claims.is_some());
            let told = if roles && all(|one| !one.takes_tokens()) {
                Some(if all(|one| one.api_key.is_some()) { "API keys have no roles" } else { "API keys and certificates have no roles" })
            } else if claims && all(|one| one.api_key.is_some() && !one.takes_tokens()) {
                Some("API keys have no claims")
            } else {
                None
            };
            if let Some(told) = told {
                let message = format!("{told}, and `{name}` takes nothing else: nobody could call it");
                errors.push(Diagnostic::at(&allow.settings.place, "never-allowed", message).help("use `scopes`, which consumers have too"));
            }
            if let Some(claims) = &allow.settings.claims
                && all(|one| one.client_certificate.is_some())
            {
                let of = |claim: &str| claim.split('/').find(|step| !step.is_empty()).unwrap_or_default().to_owned();
                let unknown = claims.keys().filter(|claim| !FACTS.contains(&of(claim).as_str()));
                errors.extend(unknown.map(|claim| bad_fact(claim, &claims.place, &[])));
            }
        }
    }
}

fn duplicate_policies(index: &Index<'_>, route: &RouteSettings, errors: &mut Vec<Diagnostic>) {
    if let Some(bundles) = &route.own.bundles {
        duplicates(&bundles.value, index, errors);
    }
}

fn duplicate_defaults(index: &Index<'_>, errors: &mut Vec<Diagnostic>) {
    if let Some(defaults) = &index.document.defaults {
        duplicates(&defaults.bundles, index, errors);
    }
}

/// Two bundles of one list must not have the same policy: which one would win would depend on their order.
fn duplicates(names: &[crate::config::types::At<String>], index: &Index<'_>, errors: &mut Vec<Diagnostic>) {
    if names.len() < 2 {
        return;
    }
    let mut givers: HashMap<&str, &str> = HashMap::new();
    for name in names {
        let Some(bundle) = index.resolver.bundle(name) else { continue };
        for Written { key, .. } in bundle.written() {
            match givers.get(key) {
                Some(first) if *first != name.as_str() => errors.push(
                    Diagnostic::at(
                        &name.place,
                        "duplicate-policy",
                        format!("the bundles `{first}` and `{}` both have `{key}`", name.value),
                    )
                    .help("use one of them, or write the policy in the route itself and take it out of one bundle"),
                ),
                Some(_) => {}
                None => {
                    givers.insert(key, name.as_str());
                }
            }
        }
    }
}

/// Entries of `shadow` lists: which have a policy to judge in some route, and which in none so far.
#[derive(Default)]
struct Shadowed<'a> {
    effective: HashSet<(u32, u32, *const u8)>,
    inert: Vec<(&'a Place, &'static str)>,
}

// === impl Shadowed ===

impl<'a> Shadowed<'a> {
    fn note(&mut self, document: &Document, route: &RouteSettings, effective: &Effective<'a>) {
        let Some(shadow) = effective.given(|all| &all.shadow) else { return };
        for entry in &shadow.settings.value {
            let word = entry.value.as_str();
            let there = if entry.value == Shadow::Auth {
                matches!(route.own.auth.value, AuthSettings::AnyOf(_))
            } else if entry.value == Shadow::Limits {
                effective.given(|all| &all.limits).is_some_and(|limits| !limits.settings.is_empty())
                    || may_have_plan(document, &route.own.auth)
            } else {
                effective.has(word)
            };
            if there {
                self.effective.insert(key(&entry.place));
            } else {
                self.inert.push((&entry.place, word));
            }
        }
    }

    /// A list in a bundle or the defaults is for many routes: it is enough that one of them has the policy.
    fn tell(self, errors: &mut Vec<Diagnostic>) {
        let mut told = HashSet::new();
        for (place, word) in self.inert {
            if !self.effective.contains(&key(place)) && told.insert(key(place)) {
                let message = if word == "auth" {
                    "`auth` has nothing to shadow: the route is public".to_owned()
                } else if word == "limits" {
                    "`limits` has nothing to shadow: the route has no `limits`, and its callers have no plan".to_owned()
                } else {
                    format!("`{word}` has nothing to shadow: the route has no `{word}`")
                };
                errors.push(Diagnostic::at(place, "inert", message));
            }
        }
    }
}

fn key(place: &Place) -> (u32, u32, *const u8) {
    (place.line, place.column, std::sync::Arc::as_ptr(&place.source).cast())
}

/// Whether somebody whom the route lets in may be counted by a plan.
fn may_have_plan(document: &Document, auth: &AuthSettings) -> bool {
    let AuthSettings::AnyOf(names) = auth else { return false };
    let by_claim = |name: &At<String>| {
        let one = document.authenticators.iter().find(|(own, _)| own.value == name.value).map(|(_, one)| one);
        one.is_some_and(|one| {
            one.jwt.as_ref().is_some_and(|jwt| jwt.plan.is_some()) || one.introspection.as_ref().is_some_and(|issuer| issuer.plan.is_some())
        })
    };
    let has_some = document.consumers.iter().any(|(_, consumer)| consumer.plan.is_some()) || document.consumers_from.is_some();
    (has_some && !document.plans.is_empty()) || names.iter().any(by_claim)
}
