//! From a document that was checked to a snapshot that runs. Every chapter compiles its own part; here they are put together.
//!
//! Decides what belongs to which route, and that all mistakes are told at once. Opens no socket and starts nothing.

use std::collections::HashMap;
use std::path::Path;
use std::sync::Arc;

use http::{HeaderName, Method};

use super::diagnostic::{self, Diagnostic};
use super::document::{Document, RouteSettings, ServerSettings, Shadow};
use super::effective::{Effective, Resolver};
use super::plan::{Action, Gateway, ListenerPlan, Relay, Route, Server, Shown, UpstreamPlan};
use super::types::{At, Period, Size};
use crate::entry::client_ip::Clients;
use crate::entry::route::pattern::Pattern;
use crate::entry::route::{RouteMatch, Table};
use crate::listen::Listener;
use crate::policy::Policies;
use crate::policy::authenticators::{self, Authenticators};
use crate::policy::authn::{Auth, AuthSettings};
use crate::policy::authz::Allow;
use crate::policy::cors::Cors;
use crate::policy::ip_filter::IpFilter;
use crate::policy::limits::limit::Limit;
use crate::policy::rate_limit::{RateLimits, Stage};
use crate::policy::validate::BodyLimit;
use crate::relay::edits::HeaderEdits;
use crate::relay::head::HeadPlan;
use crate::relay::rewrite::Rewrite;
use crate::relay::strip::StripSet;
use crate::relay::upstream::Upstream;
use crate::reply::fixed::{Fixed, Redirect};
use crate::reply::headers::ResponseHeaders;
use crate::report::writer::To;
use crate::state::State;

/// The default of `server.limits_memory`.
const LIMITS_MEMORY: Size = Size::mib(64);
/// The default of `server.drain`.
const DRAIN: Period = Period::seconds(30);
/// The default of `server.settle`.
const SETTLE: Period = Period::seconds(1);

/// Collects mistakes, and goes on with what there is.
#[derive(Default)]
struct Wrong(Vec<Diagnostic>);

impl Wrong {
    fn keep<T>(&mut self, result: Result<T, Vec<Diagnostic>>) -> Option<T> {
        result.map_err(|more| self.0.extend(more)).ok()
    }
}

/// Reads, checks and compiles what is at `path`. From an `earlier` snapshot, remembered tokens are carried over; everything else
/// that outlives snapshots is in `state`.
///
/// # Errors
/// Every mistake, sorted by place.
pub fn load(path: &Path, env: super::interpolate::Env<'_>, state: &State, earlier: Option<&Gateway>) -> Result<Gateway, Vec<Diagnostic>> {
    let document = super::load::load(path, env)?;
    let mistakes = super::check::check(&document);
    if mistakes.is_empty() {
        return compile(document, path, state, earlier);
    }
    // What only the compiling finds is told too, where it is about something else.
    let mut all = mistakes;
    if let Err(more) = compile(document, path, state, earlier) {
        let known: Vec<_> = all.iter().map(|one| one.place.clone()).collect();
        all.extend(more.into_iter().filter(|one| !known.contains(&one.place)));
    }
    diagnostic::sort(&mut all);
    Err(all)
}

fn compile(document: Document, path: &Path, state: &State, earlier: Option<&Gateway>) -> Result<Gateway, Vec<Diagnostic>> {
    let mut wrong = Wrong::default();
    let fingerprint = fingerprint(&document);
    let server = server(document.server.as_ref());
    let access_log = match &document.access_log {
        Some(settings) => wrong.keep(settings.compile()).unwrap_or(To::Stdout),
        None => To::Stdout,
    };
    let clients = wrong.keep(Clients::compile(document.clients.as_ref()));
    let plans: Vec<Arc<Limit>> =
        document.plans.iter().filter_map(|(name, plan)| wrong.keep(Limit::compile_plan(name, plan)).map(Arc::new)).collect();
    let limits: HashMap<&str, Arc<Limit>> = document
        .limits
        .iter()
        .filter_map(|(name, limit)| Some((name.as_str(), Arc::new(wrong.keep(Limit::compile(name, limit))?))))
        .collect();
    let plan_of = |name: &str| document.plans.iter().position(|(plan, _)| plan.as_str() == name);
    let known = authenticators::compile(
        &document.authenticators,
        &document.consumers,
        &plan_of,
        server.tokens_memory,
        earlier.map(|earlier| &earlier.authenticators),
    );
    let authenticators = wrong.keep(known).unwrap_or_default();
    let upstreams = upstreams(&document, state, &mut wrong);
    let listeners = listeners(&document, &limits, state, &mut wrong);

    let resolver = Resolver::new(&document);
    let parts = Parts { authenticators: &authenticators, limits: &limits, upstreams: &upstreams, document: &document, state };
    let mut set_headers = Vec::new();
    let mut routes = Vec::with_capacity(document.routes.len());
    for (name, settings) in &document.routes {
        let effective = resolver.effective(settings);
        if let Some(given) = &effective.request_headers {
            set_headers.extend(given.settings.set.keys().filter_map(|name| HeaderName::from_bytes(name.as_bytes()).ok()));
        }
        routes.push(parts.route(name, settings, &effective, &mut wrong));
    }
    if !wrong.0.is_empty() {
        diagnostic::sort(&mut wrong.0);
        // A route on two listeners is in two tables.
        wrong.0.dedup();
        return Err(wrong.0);
    }
    let clients = clients.expect("a mistake in clients was told");
    let client_header = document.clients.as_ref().and_then(|clients| clients.header.as_ref());
    let client_header = client_header.and_then(|header| HeaderName::from_bytes(header.as_bytes()).ok());
    let strip = StripSet::new(authenticators.forwarded_headers().names(), client_header.as_ref(), &set_headers);
    let credential_parameters = authenticators.credential_parameters().iter().map(|name| name.to_string()).collect();
    Ok(Gateway {
        path: path.to_owned(),
        fingerprint,
        buckets: state.buckets(server.limits_memory),
        server,
        access_log,
        admin: document.admin.as_ref().map(|admin| admin.address.value),
        listeners,
        clients,
        plans,
        strip,
        credential_parameters,
        authenticators,
        routes: routes.into_iter().flatten().collect(),
        unmatched: state.metrics.route("", None),
        metrics: state.metrics.clone(),
        limit_series: document
            .limits
            .iter()
            .map(|(name, _)| name)
            .chain(document.plans.iter().map(|(name, _)| name))
            .map(|name| (Box::from(name.as_str()), state.metrics.limit(name)))
            .collect(),
        upstreams: upstreams.into_values().collect(),
        tests: document.tests,
    })
}

fn fingerprint(document: &Document) -> String {
    let mut context = aws_lc_rs::digest::Context::new(&aws_lc_rs::digest::SHA256);
    for source in &document.sources {
        context.update(source.text.as_bytes());
    }
    context.finish().as_ref()[..8].iter().map(|byte| format!("{byte:02x}")).collect()
}

fn server(settings: Option<&ServerSettings>) -> Server {
    let absent = ServerSettings::default();
    let ServerSettings { threads, drain, settle, watch, limits_memory, tokens_memory } = settings.unwrap_or(&absent);
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    Server {
        threads: threads.as_ref().map_or(cores, |threads| usize::from(threads.value)),
        drain: drain.as_ref().map_or(DRAIN, |drain| drain.value).0,
        settle: settle.as_ref().map_or(SETTLE, |settle| settle.value).0,
        watch: *watch,
        limits_memory: limits_memory.as_ref().map_or(LIMITS_MEMORY, |size| size.value).0,
        tokens_memory: tokens_memory.as_ref().map_or(authenticators::TOKENS_MEMORY, |size| size.value.0),
    }
}

fn upstreams<'d>(document: &'d Document, state: &State, wrong: &mut Wrong) -> HashMap<&'d str, Arc<UpstreamPlan>> {
    let mut all = HashMap::new();
    for (name, settings) in &document.upstreams {
        if let Some(upstream) = wrong.keep(Upstream::compile(name, settings)) {
            let pool = state.pools.adopt(&Arc::new(upstream));
            let plan = UpstreamPlan { name: name.as_str().into(), pool, series: state.metrics.upstream(name) };
            all.insert(name.as_str(), Arc::new(plan));
        }
    }
    all
}

fn listeners(document: &Document, limits: &HashMap<&str, Arc<Limit>>, state: &State, wrong: &mut Wrong) -> Vec<ListenerPlan> {
    let mut all = Vec::new();
    for (name, settings) in &document.listeners {
        let compiled = wrong.keep(Listener::compile(settings));
        let named: Vec<_> = settings.limits.iter().filter_map(|limit| limits.get(limit.as_str()).cloned()).collect();
        let here = |route: &RouteSettings| match &route.own.listeners {
            Some(names) => names.iter().any(|own| own.value == name.value),
            None => true,
        };
        let matches: Vec<RouteMatch<'_>> = document
            .routes
            .iter()
            .enumerate()
            .filter(|(_, (_, route))| here(route))
            .map(|(index, (name, route))| RouteMatch { index, name, place: route.place.clone(), settings: &route.own.matches })
            .collect();
        let table = wrong.keep(Table::compile(&matches));
        if let (Some(compiled), Some(table)) = (compiled, table) {
            all.push(ListenerPlan {
                name: name.as_str().into(),
                address: settings.address.value,
                settings: compiled,
                limits: RateLimits::for_listener(&named),
                table,
                series: state.metrics.listener(name),
            });
        }
    }
    all
}

/// What a route is made from.
struct Parts<'a> {
    authenticators: &'a Authenticators,
    limits: &'a HashMap<&'a str, Arc<Limit>>,
    upstreams: &'a HashMap<&'a str, Arc<UpstreamPlan>>,
    document: &'a Document,
    state: &'a State,
}

impl Parts<'_> {
    fn route(&self, name: &At<String>, settings: &RouteSettings, given: &Effective<'_>, wrong: &mut Wrong) -> Option<Route> {
        let own = &settings.own;
        let pattern = Pattern::parse(&own.matches.path).map_err(|_| ()).ok()?; // told by the table
        let names: Vec<&str> = pattern.names().collect();
        let auth = wrong.keep(Auth::compile(&own.auth, self.authenticators));
        let policies = self.policies(name, auth, given, own.matches.methods.as_ref(), wrong);
        let response = given.response_headers.as_ref().map(|given| ResponseHeaders::compile(given.settings));
        let response = response.map_or(Some(ResponseHeaders::default()), |compiled| wrong.keep(compiled));
        let action = match (&given.upstream, &own.respond, &own.redirect) {
            (_, Some(respond), _) => wrong.keep(Fixed::compile(respond)).map(Action::Respond),
            (_, None, Some(redirect)) => wrong.keep(Redirect::compile(redirect, &names)).map(Action::Redirect),
            (Some(upstream), None, None) => self.relay(upstream, policies.as_ref(), given, &own.matches.path, &names, wrong),
            (None, None, None) => None,
        };
        let (policies, response, action) = (policies?, response?, action?);
        let respond = match &action {
            Action::Respond(fixed) => fixed.code.as_deref().map(|code| (code, fixed.status)),
            Action::Upstream(_) | Action::Redirect(_) => None,
        };
        Some(Route {
            name: name.as_str().into(),
            accept: given.accept.as_ref().map(|given| given.settings.iter().map(|spelling| spelling.value).collect()).unwrap_or_default(),
            series: self.state.metrics.route(name, respond),
            shown: self.shown(settings, given, &action),
            pattern,
            policies,
            response,
            action,
        })
    }

    fn policies(
        &self,
        name: &str,
        auth: Option<Auth>,
        given: &Effective<'_>,
        methods: Option<&At<Vec<At<String>>>>,
        wrong: &mut Wrong,
    ) -> Option<Policies> {
        let methods: Option<Vec<Method>> =
            methods.map(|methods| methods.iter().filter_map(|method| Method::from_bytes(method.as_bytes()).ok()).collect());
        let ip_filter = given.ip_filter.as_ref().and_then(|given| wrong.keep(IpFilter::compile(given.settings)));
        let cors = given.cors.as_ref().and_then(|given| wrong.keep(Cors::compile(given.settings, methods.as_deref())));
        let body = given.body.as_ref().and_then(|given| wrong.keep(BodyLimit::compile(given.settings)));
        let auth = auth?;
        let allow = given.allow.as_ref().and_then(|given| wrong.keep(Allow::compile(given.settings, &auth)));
        let shadow: Vec<Shadow> =
            given.shadow.as_ref().map(|given| given.settings.iter().map(|shadow| shadow.value).collect()).unwrap_or_default();
        if let (Some(shadowed), Some(allow)) = (&given.shadow, &given.allow)
            && shadow.contains(&Shadow::Auth)
            && !shadow.contains(&Shadow::Allow)
        {
            let message = "`auth` is shadowed but `allow` is not: whoever comes without a credential would still be refused";
            let told = Diagnostic::at(&shadowed.settings.place, "shadow-without-allow", message);
            wrong.0.push(told.help(format!("add `allow`, which is written in line {}", allow.settings.place.line)));
        }
        let named = given.limits.as_ref().map(|given| given.settings.value.as_slice()).unwrap_or_default();
        let limits: Vec<_> = named.iter().filter_map(|limit| self.limits.get(limit.as_str()).cloned()).collect();
        Some(Policies {
            ip_filter,
            cors,
            limits_before_auth: RateLimits::for_route(name, &limits, Some(Stage::BeforeAuth)),
            auth,
            allow,
            limits: RateLimits::for_route(name, &limits, None),
            body,
            shadow,
        })
    }

    fn relay(
        &self,
        upstream: &At<String>,
        policies: Option<&Policies>,
        given: &Effective<'_>,
        pattern: &At<String>,
        names: &[&str],
        wrong: &mut Wrong,
    ) -> Option<Action> {
        let rewrite = match &given.rewrite {
            Some(given) => Some(wrong.keep(Rewrite::compile(given.settings, pattern, names))?),
            None => None,
        };
        let edits = match &given.request_headers {
            Some(given) => wrong.keep(HeaderEdits::of_requests(given.settings))?,
            None => HeaderEdits::default(),
        };
        let auth = &policies?.auth;
        let header = self.document.clients.as_ref().and_then(|clients| clients.header.as_ref());
        Some(Action::Upstream(Relay {
            upstream: self.upstreams.get(upstream.as_str())?.clone(),
            head: HeadPlan {
                rewrite,
                edits,
                credentials: auth.removed_headers().to_vec(),
                write_forwarded: header.is_some_and(|header| header.eq_ignore_ascii_case("forwarded")),
            },
            cut: auth.removed_parameters().iter().map(|name| name.to_string()).collect(),
        }))
    }

    fn shown(&self, settings: &RouteSettings, given: &Effective<'_>, action: &Action) -> Shown {
        let own = &settings.own;
        let list = |names: &Option<At<Vec<At<String>>>>| -> Vec<String> {
            names.as_ref().map(|names| names.iter().map(|name| name.value.clone()).collect()).unwrap_or_default()
        };
        let shadowed = given.shadow.as_ref().is_some_and(|given| given.settings.iter().any(|one| one.value == Shadow::Auth));
        let auth = match &own.auth.value {
            AuthSettings::Public => vec!["public".to_owned()],
            AuthSettings::AnyOf(names) => names.iter().map(|name| name.value.clone()).collect(),
        };
        let conditions = own.matches.headers.iter().map(|(name, value)| format!("{name}: {}", value.value));
        let conditions = conditions.chain(own.matches.query.iter().map(|(name, value)| format!("?{name}={}", value.value)));
        Shown {
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
            limits: given.limits.as_ref().map(|given| given.settings.iter().map(|name| name.value.clone()).collect()).unwrap_or_default(),
            target: match action {
                Action::Upstream(relay) => relay.upstream.name.to_string(),
                Action::Respond(fixed) => format!("respond {}", fixed.status),
                Action::Redirect(redirect) => format!("redirect {}", redirect.status),
            },
        }
    }
}
