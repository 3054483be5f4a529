//! One route, put together from what every chapter compiles of it.
//!
//! Decides what belongs to a route. Does not decide which of the policies apply: see `effective.rs`.

use std::collections::HashMap;
use std::sync::Arc;

use http::Method;

use super::Wrong;
use crate::config::diagnostic::{Diagnostic, INTERPOLATED};
use crate::config::document::{Document, RouteOwnSettings, RouteSettings};
use crate::config::effective::{Effective, Given, Giver};
use crate::config::plan::{Action, Others, Relay, Route, Shown, UpstreamPlan};
use crate::config::types::At;
use crate::entry::route::pattern::Pattern;
use crate::policy::authenticators::Authenticators;
use crate::policy::authn::{Auth, AuthSettings};
use crate::policy::limits::limit::Limit;
use crate::policy::{ForRoute, Policies, Shadow};
use crate::relay::attempt::timeouts::RouteTimeouts;
use crate::relay::balance::hash_by::HashKeys;
use crate::relay::choice::{GoesTo, Ways};
use crate::relay::fallback::Fallback;
use crate::relay::message::edits::HeaderEdits;
use crate::relay::message::head::{HeadPlan, Told};
use crate::relay::message::rewrite::Rewrite;
use crate::relay::mirror::Mirror;
use crate::relay::translate::grpc_web;
use crate::reply::fixed::{Fixed, Redirect};
use crate::reply::headers::ResponseHeaders;
use crate::report::metrics::route::RouteSeries;
use crate::state::State;

/// What a route is made from.
pub(super) struct Parts<'a> {
    pub(super) authenticators: &'a Authenticators,
    pub(super) limits: &'a HashMap<&'a str, Arc<Limit>>,
    pub(super) upstreams: &'a HashMap<&'a str, Arc<UpstreamPlan>>,
    pub(super) document: &'a Document,
    pub(super) state: &'a State,
}

impl Parts<'_> {
    pub(super) fn route(&self, name: &At<String>, settings: &RouteSettings, given: &Effective<'_>, wrong: &mut Wrong) -> Option<Route> {
        let own = &settings.own;
        let pattern = Pattern::parse(&own.matches.path).map_err(|_| ()).ok()?; // told by the table
        let names: Vec<&str> = pattern.captures().collect();
        let policies = self.policies(name, own, given, wrong);
        let response = given.given(|all| &all.response_headers).map(|given| ResponseHeaders::compile(given.settings));
        let response = response.map_or(Some(ResponseHeaders::default()), |compiled| wrong.keep(compiled));
        let (mut others, mut fallback) = (None, None);
        let action = match (&given.upstream, &own.respond, &own.redirect) {
            (_, Some(respond), _) => wrong.keep(Fixed::compile(respond)).map(Action::Respond),
            (_, None, Some(redirect)) => wrong.keep(Redirect::compile(redirect, &names)).map(Action::Redirect),
            (Some(upstream), None, None) => {
                let mut ways = wrong.keep(Ways::compile(upstream, &names))?;
                fallback = self.fallback(given, &mut ways.upstreams, wrong);
                let mut relays =
                    ways.upstreams.into_iter().map(|name| self.relay(&name, policies.as_ref(), given, &own.matches.path, &names, wrong));
                let first = relays.next().flatten();
                let rest: Option<Vec<_>> = relays.collect();
                if let Some(relays) = rest.filter(|relays| !relays.is_empty()) {
                    others = Some(Box::new(Others { choice: ways.choice, relays }));
                }
                first.map(|relay| Action::Upstream(Box::new(relay)))
            }
            (None, None, None) => None,
        };
        let (policies, response, action) = (policies?, response?, action?);
        let relays = match &action {
            Action::Upstream(relay) => std::slice::from_ref(&**relay),
            Action::Respond(_) | Action::Redirect(_) => &[],
        };
        let mut relays = relays.iter().chain(others.iter().flat_map(|others| &others.relays));
        if let Some(idempotent) = &own.idempotent
            && relays.all(|relay| relay.upstream.pool.upstream.retries.attempts == 1)
        {
            let message = "`idempotent` has no effect here: nothing of this route is ever sent again";
            wrong.add(Diagnostic::at(&idempotent.place, "inert", message).help("remove it, or `attempts: 1` of the upstream's `retries`"));
        }
        if let Some(priority) = &own.priority
            && !self.can_be_full(&action, others.as_deref())
        {
            let message = "`priority` has no effect here: nothing of this route is ever full";
            wrong.add(
                Diagnostic::at(&priority.place, "inert", message)
                    .help("`adaptive_concurrency` of its upstream or `overload` of `server` makes it so"),
            );
        }
        let respond = match &action {
            Action::Respond(fixed) => fixed.code.as_deref().map(|code| (code, fixed.status)),
            Action::Upstream(_) | Action::Redirect(_) => None,
        };
        let series = self.state.metrics.route(name, respond);
        let mirror = match &action {
            Action::Upstream(_) => self.mirror(given, &series, wrong),
            Action::Respond(_) | Action::Redirect(_) => None,
        };
        Some(Route {
            name: name.as_str().into(),
            accept: given
                .given(|all| &all.accept)
                .map(|given| given.settings.iter().map(|spelling| spelling.value).collect())
                .unwrap_or_default(),
            series,
            fallback,
            mirror,
            shown: self.shown(settings, given, &action, others.as_deref()),
            others,
            priority: own.priority.as_ref().map(|priority| priority.value),
            idempotent: own.idempotent.as_ref().map(|idempotent| idempotent.value),
            pattern,
            policies,
            response,
            action,
        })
    }

    /// Whether some request of the route may be refused because others are there.
    fn can_be_full(&self, action: &Action, others: Option<&Others>) -> bool {
        let Action::Upstream(first) = action else { return false };
        let others = others.iter().flat_map(|others| &others.relays);
        std::iter::once(&**first).chain(others).any(|relay| relay.upstream.pool.upstream.adaptive.is_some()) || self.is_guarded()
    }

    fn is_guarded(&self) -> bool {
        self.document.server.as_ref().is_some_and(|server| server.overload.is_some())
    }

    fn policies(&self, name: &str, own: &RouteOwnSettings, given: &Effective<'_>, wrong: &mut Wrong) -> Option<Policies> {
        let written = own.matches.methods.as_ref();
        let methods: Option<Vec<Method>> =
            written.map(|methods| methods.iter().filter_map(|method| Method::from_bytes(method.as_bytes()).ok()).collect());
        let auth = wrong.keep(Auth::compile(&own.auth, self.authenticators));
        let named = given.given(|all| &all.limits).map(|given| given.settings.value.as_slice()).unwrap_or_default();
        let limits: Vec<_> = named.iter().filter_map(|limit| self.limits.get(limit.as_str()).cloned()).collect();
        let upstreams = given.upstream.map(GoesTo::distinct).unwrap_or_default();
        let upstreams: Vec<Arc<str>> = upstreams.iter().map(|name| name.as_str().into()).collect();
        Policies::compile(ForRoute { name, methods: methods.as_deref(), auth, limits: &limits, upstreams: &upstreams, given }, wrong)
    }

    fn relay(
        &self,
        upstream: &At<String>,
        policies: Option<&Policies>,
        given: &Effective<'_>,
        pattern: &At<String>,
        names: &[&str],
        wrong: &mut Wrong,
    ) -> Option<Relay> {
        let rewrite = match given.given(|all| &all.rewrite) {
            Some(given) => Some(wrong.keep(Rewrite::compile(given.settings, pattern, names))?),
            None => None,
        };
        let edits = match given.given(|all| &all.request_headers) {
            Some(given) => wrong.keep(HeaderEdits::of_requests(given.settings))?,
            None => HeaderEdits::default(),
        };
        let own_timeouts = match given.given(|all| &all.timeouts) {
            Some(given) => wrong.keep(RouteTimeouts::compile(given.settings))?,
            None => RouteTimeouts::default(),
        };
        let auth = &policies?.auth;
        let upstream = self.upstreams.get(upstream.as_str())?.clone();
        let grpc_web = match given.given(|all| &all.grpc) {
            Some(given) => wrong.keep(grpc_web::compile(given.settings, upstream.pool.upstream.protocol))?,
            None => false,
        };
        let header = self.document.clients.as_ref().and_then(|clients| clients.header.as_ref());
        Some(Relay {
            timeouts: own_timeouts.over(upstream.pool.upstream.timeouts),
            has_own_timeouts: given.given(|all| &all.timeouts).is_some(),
            grpc_web,
            asks: upstream.pool.admits || self.is_guarded(),
            hash: HashKeys::compile(&upstream.pool.upstream.hash_by, names),
            upstream,
            head: HeadPlan {
                rewrite,
                edits,
                credentials: auth.removed_headers().to_vec(),
                told_by: match header.map(|header| header.to_ascii_lowercase()).as_deref() {
                    None | Some("x-forwarded-for") => Told::XForwarded,
                    Some("forwarded") => Told::Forwarded,
                    Some(_) => Told::Another,
                },
            },
            cut: auth.removed_parameters().iter().map(|name| name.to_string()).collect(),
        })
    }

    /// The other upstream is among those of the route then.
    fn fallback(&self, given: &Effective<'_>, upstreams: &mut Vec<At<String>>, wrong: &mut Wrong) -> Option<Box<Fallback>> {
        let Given { settings, by } = given.given(|all| &all.fallback)?;
        let at = |name: &At<String>| match upstreams.iter().position(|known| known.value == name.value) {
            Some(0) if upstreams.len() == 1 => {
                if by == Giver::Route {
                    let message = format!("the route goes to `{}` anyway: there is nothing to fall back to", name.value);
                    wrong.add(Diagnostic::at(&name.place, "inert", message).help("name another upstream, or answer with a `status`"));
                }
                None
            }
            Some(at) => Some(at),
            None => {
                upstreams.push(name.clone());
                Some(upstreams.len() - 1)
            }
        };
        Fallback::compile(settings, at).map(Box::new)
    }

    fn mirror(&self, given: &Effective<'_>, series: &Arc<RouteSeries>, wrong: &mut Wrong) -> Option<Arc<Mirror>> {
        let Given { settings, by } = given.given(|all| &all.mirror)?;
        let goes_there = given.upstream.is_some_and(|all| GoesTo::upstreams(all).iter().any(|name| name.value == settings.upstream.value));
        if goes_there {
            if by == Giver::Route {
                let message = format!("the route goes to `{}` itself, which would get requests twice", settings.upstream.value);
                wrong.add(Diagnostic::at(&settings.upstream.place, "mirror", message).help("define another upstream for copies"));
            }
            return None;
        }
        let upstream = self.upstreams.get(settings.upstream.as_str())?.clone();
        wrong.keep(Mirror::compile(settings, upstream, series.clone(), self.state.mirrors.clone())).map(Arc::new)
    }

    fn shown(&self, settings: &RouteSettings, given: &Effective<'_>, action: &Action, others: Option<&Others>) -> Shown {
        let own = &settings.own;
        let list = |names: &Option<At<Vec<At<String>>>>| -> Vec<String> {
            names.as_ref().map(|names| names.iter().map(|name| name.value.clone()).collect()).unwrap_or_default()
        };
        let shadowed = given.shadows(Shadow::Auth);
        let auth = match &own.auth.value {
            AuthSettings::Public => vec!["public".to_owned()],
            AuthSettings::AnyOf(names) => names.iter().map(|name| name.value.clone()).collect(),
        };
        let shown = |value: &At<String>| if value.place.is_interpolated() { INTERPOLATED.to_owned() } else { value.value.clone() };
        let conditions = own.matches.headers.iter().map(|(name, value)| format!("{name}: {}", shown(value)));
        let conditions = conditions.chain(own.matches.query.iter().map(|(name, value)| format!("?{name}={}", shown(value))));
        Shown {
            place: format!("{}:{}", settings.place.source.path.display(), settings.place.line),
            listeners: match &own.listeners {
                Some(_) => list(&own.listeners),
                None => self.document.listeners.iter().map(|(name, _)| name.value.clone()).collect(),
            },
            hosts: list(&own.matches.hosts),
            path: own.matches.path.value.clone(),
            methods: list(&own.matches.methods),
            conditions: conditions.collect(),
            is_public: matches!(own.auth.value, AuthSettings::Public) || shadowed,
            auth: if shadowed { auth.iter().map(|name| format!("{name} (shadow)")).collect() } else { auth },
            limits: given
                .given(|all| &all.limits)
                .map(|given| given.settings.iter().map(|name| name.value.clone()).collect())
                .unwrap_or_default(),
            target: match action {
                Action::Upstream(relay) => {
                    let mut all = relay.upstream.name.to_string();
                    let choice = others.and_then(|others| others.choice.as_ref());
                    for other in
                        others.filter(|_| choice.is_some()).iter().flat_map(|others| &others.relays).map(|relay| &*relay.upstream.name)
                    {
                        all.push_str(if all.split(" or ").any(|known| known == other) { "" } else { " or " });
                        all.push_str(if all.ends_with(" or ") { other } else { "" });
                    }
                    all + &choice.map(|choice| format!(" by {}", choice.told())).unwrap_or_default()
                }
                Action::Respond(fixed) => format!("respond {}", fixed.status),
                Action::Redirect(redirect) => format!("redirect {}", redirect.status),
            },
        }
    }
}
