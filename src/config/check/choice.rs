//! Decides whether what chooses among upstreams can choose: on which route, and by what.

use super::Index;
use crate::config::diagnostic::{Diagnostic, Place};
use crate::config::document::RouteSettings;
use crate::config::types::At;
use crate::entry::route::pattern::Pattern;
use crate::policy::Shadow;
use crate::policy::authn::{AuthSettings, AuthenticatorSettings};
use crate::relay::balance::hash_by::HashBy;
use crate::relay::choice::{AmongSettings, GoesTo, Rest};

pub(super) fn check(index: &Index<'_>, errors: &mut Vec<Diagnostic>) {
    let document = index.document;
    let written = document.routes.iter().map(|(_, route)| &route.own.upstream);
    for upstream in written.chain(document.defaults.iter().map(|defaults| &defaults.upstream)).flatten() {
        if let Some(among) = upstream.value.among() {
            errors.extend(among.plan(&upstream.place).err().into_iter().flatten());
            names_of_the_gateway(index, among, errors);
        }
    }
    for ((name, route), effective) in document.routes.iter().zip(&index.effective) {
        let Some(upstream) = effective.upstream else { continue };
        let Some(among) = upstream.value.among() else { continue };
        let place = if route.own.upstream.is_some() { None } else { Some(&route.place) };
        let is_nobody_known = matches!(route.own.auth.value, AuthSettings::Public) || effective.shadows(Shadow::Auth);
        let on = On { name, route, place, is_nobody_known };
        on.check(upstream, among, errors);
    }
}

/// A route whose upstream is chosen.
struct On<'a> {
    name: &'a str,
    route: &'a RouteSettings,
    /// Of the route, where the choice is not its own.
    place: Option<&'a Place>,
    is_nobody_known: bool,
}

impl On<'_> {
    fn check(&self, upstream: &At<GoesTo>, among: &AmongSettings, errors: &mut Vec<Diagnostic>) {
        // Whatever does not go together has been told.
        let Ok(plan) = among.plan(&upstream.place) else {
            if self.is_nobody_known && !among.tags().is_empty() {
                self.by_default(upstream, errors);
            }
            return;
        };
        if self.is_nobody_known {
            if let Rest::ByTag { .. } = plan.rest {
                self.by_default(upstream, errors);
            }
            for tag in plan.when.iter().filter_map(|rule| rule.tag.as_ref()) {
                let message = format!("nobody is known by `{}`, so nobody has the tag `{}`", self.name, tag.value);
                errors.push(Diagnostic::at(self.place.unwrap_or(&tag.place), "inert", message).help("name authenticators in `auth`"));
            }
        }
        if let (Rest::Split { by, shares: _ }, None) = (&plan.rest, self.place) {
            by.iter().for_each(|key| self.key(key, errors));
        }
    }

    fn by_default(&self, upstream: &At<GoesTo>, errors: &mut Vec<Diagnostic>) {
        let message = format!("nobody is known by `{}`, so every request would go to the `default` of `upstream`", self.name);
        let place = self.place.unwrap_or(&upstream.place);
        errors.push(Diagnostic::at(place, "inert", message).help("name authenticators in `auth`, or one upstream"));
    }

    /// What no request of this route has.
    fn key(&self, key: &At<HashBy>, errors: &mut Vec<Diagnostic>) {
        match &key.value {
            HashBy::Consumer if self.is_nobody_known => {
                let message = format!("nobody is known by `{}`, so its callers are no consumers", self.name);
                errors.push(Diagnostic::at(&key.place, "inert", message).help("name authenticators in `auth`"));
            }
            HashBy::Path(name) => {
                let path = &self.route.own.matches.path;
                if Pattern::parse(path).is_ok_and(|pattern| !pattern.captures().any(|known| known == &**name)) {
                    let message = format!("there is no `{{{name}}}` in the path of `{}`", self.name);
                    errors
                        .push(Diagnostic::at(&key.place, "inert", message).help(format!("name a segment, such as `/users/{{{name}}}/**`")));
                }
            }
            HashBy::Consumer | HashBy::Header(_) | HashBy::Cookie(_) | HashBy::Query(_) | HashBy::ClientIp => {}
        }
    }
}

/// What the gateway says of callers is taken from what clients send: who goes by it would go by what anybody claims.
fn names_of_the_gateway(index: &Index<'_>, among: &AmongSettings, errors: &mut Vec<Diagnostic>) {
    for name in among.headers() {
        let told = index.document.authenticators.iter().find(|(_, one)| forwards(one).any(|own| own.eq_ignore_ascii_case(&name.value)));
        if let Some((authenticator, _)) = told {
            let message = format!(
                "`{}` is what `{}` says of callers to upstreams; from a client, anybody could say it",
                name.value, authenticator.value
            );
            errors.push(Diagnostic::at(&name.place, "reserved-header", message).help("ask for a `tag` of the caller"));
        }
    }
}

/// Headers in which upstreams are told who calls.
fn forwards(one: &AuthenticatorSettings) -> impl Iterator<Item = &String> {
    let jwt = one.jwt.as_ref().map(|jwt| &jwt.forward);
    let introspection = one.introspection.as_ref().map(|issuer| &issuer.forward);
    let api_key = one.api_key.as_ref().map(|keys| &keys.forward);
    let certificate = one.client_certificate.as_ref().map(|certificates| &certificates.forward);
    [jwt, introspection, api_key, certificate].into_iter().flatten().flat_map(|forward| forward.keys())
}
