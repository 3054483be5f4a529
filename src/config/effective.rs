//! Decides which policies a route has in the end: its own, else those of the bundles it uses, else those of the defaults, else those of
//! the bundles that the defaults use. What is nearer replaces the whole key, never merges.
//!
//! Does not judge the result: see `check/`.

use std::collections::HashMap;

use super::document::{DefaultsSettings, Document, PolicySettings, RouteSettings, Shadow};
use super::types::At;
use crate::entry::canonical::Spelling;
use crate::policy::authz::AllowSettings;
use crate::policy::cors::CorsSettings;
use crate::policy::ip_filter::IpFilterSettings;
use crate::policy::validate::BodySettings;
use crate::policy::websocket::WebSocketSettings;
use crate::relay::rewrite::{RequestHeadersSettings, RewriteSettings};
use crate::relay::timeouts::RouteTimeoutsSettings;
use crate::relay::translate::grpc_web::GrpcSettings;
use crate::reply::headers::ResponseHeadersSettings;

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

/// All policies of a route, and its upstream.
#[derive(Debug)]
pub struct Effective<'a> {
    pub ip_filter: Option<Given<'a, IpFilterSettings>>,
    pub cors: Option<Given<'a, CorsSettings>>,
    pub websocket: Option<Given<'a, WebSocketSettings>>,
    pub allow: Option<Given<'a, AllowSettings>>,
    pub limits: Option<Given<'a, Vec<At<String>>>>,
    pub body: Option<Given<'a, BodySettings>>,
    pub timeouts: Option<Given<'a, RouteTimeoutsSettings>>,
    pub grpc: Option<Given<'a, GrpcSettings>>,
    pub rewrite: Option<Given<'a, RewriteSettings>>,
    pub request_headers: Option<Given<'a, RequestHeadersSettings>>,
    pub response_headers: Option<Given<'a, ResponseHeadersSettings>>,
    pub accept: Option<Given<'a, Vec<At<Spelling>>>>,
    pub shadow: Option<Given<'a, Vec<At<Shadow>>>>,
    /// The route's own, or that of the defaults where it has no other way to answer.
    pub upstream: Option<&'a At<String>>,
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
        let own_bundles = route.own.bundles.is_some();
        let bundles = self.bundles_of(route);
        let defaults = self.defaults.map(|defaults| &defaults.policies);
        macro_rules! nearest {
            ($key:ident) => {{
                let bundled = bundles.iter().find_map(|(name, policies)| Some((*name, policies.$key.as_ref()?)));
                let own = route.policies.$key.as_ref().map(|settings| Given { settings, by: Giver::Route });
                let bundle = bundled.filter(|_| own_bundles).map(|(name, settings)| Given { settings, by: Giver::Bundle(name) });
                let default = defaults.and_then(|d| d.$key.as_ref()).map(|settings| Given { settings, by: Giver::Defaults });
                let last = bundled.filter(|_| !own_bundles).map(|(name, settings)| Given { settings, by: Giver::DefaultsBundle(name) });
                own.or(bundle).or(default).or(last)
            }};
        }
        let answers_itself = route.own.respond.is_some() || route.own.redirect.is_some();
        Effective {
            ip_filter: nearest!(ip_filter),
            cors: nearest!(cors),
            websocket: nearest!(websocket),
            allow: nearest!(allow),
            limits: nearest!(limits),
            body: nearest!(body),
            timeouts: nearest!(timeouts),
            grpc: nearest!(grpc),
            rewrite: nearest!(rewrite),
            request_headers: nearest!(request_headers),
            response_headers: nearest!(response_headers),
            accept: nearest!(accept),
            shadow: nearest!(shadow),
            upstream: match &route.own.upstream {
                Some(own) => Some(own),
                None if answers_itself => None,
                None => self.defaults.and_then(|defaults| defaults.upstream.as_ref()),
            },
        }
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
                let limits = effective.limits.map(|given| (given.settings.value[0].value.as_str(), given.by));
                let body = effective.body.map(|given| given.settings.limit.0);
                format!("{limits:?} {body:?} {} {}", effective.cors.is_some(), effective.upstream.is_some())
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
