//! Decides which policies a route has in the end: its own, else those of the bundles it uses, else those of the defaults, else those of
//! the bundles that the defaults use. What is nearer replaces the whole key, never merges.
//!
//! Does not judge the result: see `check/`.

use std::collections::HashMap;

use super::document::{DefaultsSettings, Document, PolicySettings, RouteSettings};
use super::types::At;
use crate::policy::Shadow;
use crate::relay::choice::GoesTo;

/// Where a policy was written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Giver<'a> {
    Route,
    /// A bundle that the route uses itself.
    Bundle(&'a str),
    Defaults,
    /// A bundle that the defaults use.
    DefaultsBundle(&'a str),
}

/// A policy of a route and who gave it.
#[derive(Debug)]
pub struct Given<'a, T> {
    pub settings: &'a At<T>,
    pub by: Giver<'a>,
}

/// The policies of a route, wherever they were written, and its upstream.
#[derive(Debug)]
pub struct Effective<'a> {
    /// Who may have given a policy, the nearest first.
    givers: Vec<(Giver<'a>, &'a PolicySettings)>,
    /// The route's own, or that of the defaults where it has no other way to answer.
    pub upstream: Option<&'a At<GoesTo>>,
}

/// Finds bundles by name; made once for a document.
pub struct Resolver<'a> {
    bundles: HashMap<&'a str, (&'a str, &'a PolicySettings)>,
    defaults: Option<&'a DefaultsSettings>,
}

// === impl Resolver ===

impl<'a> Resolver<'a> {
    pub fn new(document: &'a Document) -> Self {
        let bundles = document.bundles.iter().map(|(name, policies)| (name.as_str(), (name.as_str(), policies))).collect();
        Resolver { bundles, defaults: document.defaults.as_ref() }
    }

    pub fn bundle(&self, name: &str) -> Option<&'a PolicySettings> {
        self.bundles.get(name).map(|(_, policies)| *policies)
    }

    /// The bundles that apply to a route, in the order in which they are named. Unknown names are left out.
    pub fn bundles_of(&self, route: &'a RouteSettings) -> Vec<(&'a str, &'a PolicySettings)> {
        let names = match (&route.own.bundles, self.defaults) {
            (Some(own), _) => own.value.as_slice(),
            (None, Some(defaults)) => defaults.bundles.as_slice(),
            (None, None) => &[],
        };
        names.iter().filter_map(|name| self.bundles.get(name.as_str()).copied()).collect()
    }

    pub fn effective(&self, route: &'a RouteSettings) -> Effective<'a> {
        let is_own = route.own.bundles.is_some();
        let giver = |name| if is_own { Giver::Bundle(name) } else { Giver::DefaultsBundle(name) };
        let bundles = || self.bundles_of(route).into_iter().map(|(name, policies)| (giver(name), policies));
        let mut givers = vec![(Giver::Route, &route.policies)];
        givers.extend(is_own.then(bundles).into_iter().flatten());
        givers.extend(self.defaults.map(|defaults| (Giver::Defaults, &defaults.policies)));
        givers.extend((!is_own).then(bundles).into_iter().flatten());
        let answers_itself = route.own.respond.is_some() || route.own.redirect.is_some();
        let upstream = match &route.own.upstream {
            Some(own) => Some(own),
            None if answers_itself => None,
            None => self.defaults.and_then(|defaults| defaults.upstream.as_ref()),
        };
        Effective { givers, upstream }
    }
}

// === impl Effective ===

impl<'a> Effective<'a> {
    /// The nearest settings under a key, as in `given(|all| &all.cors)`.
    pub fn given<T>(&self, key: impl Fn(&'a PolicySettings) -> &'a Option<At<T>>) -> Option<Given<'a, T>> {
        self.givers.iter().find_map(|(by, policies)| Some(Given { settings: key(policies).as_ref()?, by: *by }))
    }

    /// Whether anybody gave something under a key.
    pub fn has(&self, key: &str) -> bool {
        self.givers.iter().any(|(_, policies)| policies.written().iter().any(|written| written.key == key))
    }

    /// Whether its requests may come to this upstream: chosen, fallen back to, or as copies.
    pub fn goes_to(&self, upstream: &str) -> bool {
        let chosen = self.upstream.is_some_and(|used| GoesTo::upstreams(used).iter().any(|used| used.value == upstream));
        let fallback = self.given(|all| &all.fallback).and_then(|fallback| fallback.settings.upstream.as_ref());
        let mirror = self.given(|all| &all.mirror).map(|mirror| &mirror.settings.upstream);
        chosen || fallback.into_iter().chain(mirror).any(|used| used.value == upstream)
    }

    pub fn shadows(&self, policy: Shadow) -> bool {
        self.given(|all| &all.shadow).is_some_and(|shadow| shadow.settings.iter().any(|entry| entry.value == policy))
    }
}

#[cfg(test)]
mod tests {
    use super::super::load::load_text;
    use super::*;

    #[test]
    fn the_nearer_policy_replaces_the_whole_of_the_further() {
        let text = "
bundles:
  a: { limits: [a], body: { limit: 1 } }
  b: { limits: [b], cors: { origins: [x] }, body: { limit: 2 } }
defaults: { use: [b], limits: [d], upstream: u }
routes:
  own: { match: { path: / }, auth: public, limits: [own] }
  bundle: { match: { path: / }, auth: public, use: [a] }
  default: { match: { path: / }, auth: public }
  none: { match: { path: / }, auth: public, use: [], respond: { status: 204 } }
"
        .replace("  none:", "  nothing:");
        let document = load_text("a.yaml", &text, &|_| None).unwrap();
        let resolver = Resolver::new(&document);
        let told: Vec<String> = document
            .routes
            .iter()
            .map(|(_, route)| {
                let effective = resolver.effective(route);
                let limits = effective.given(|all| &all.limits).map(|given| (given.settings.value[0].value.as_str(), given.by));
                let body = effective.given(|all| &all.body).map(|given| given.settings.limit.0);
                format!("{limits:?} {body:?} {} {}", effective.has("cors"), effective.upstream.is_some())
            })
            .collect();
        assert_eq!(
            told,
            [
                "Some((\"own\", Route)) Some(2) true true",
                "Some((\"a\", Bundle(\"a\"))) Some(1) false true",
                "Some((\"d\", Defaults)) Some(2) true true",
                "Some((\"d\", Defaults)) None false false",
            ]
        );
    }
}
