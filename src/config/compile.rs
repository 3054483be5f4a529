//! From a document that was checked to a snapshot that runs. Every chapter compiles its own part; here they are put together.
//!
//! Decides what belongs to which route, and that all mistakes are told at once. Opens no socket and starts nothing.

mod certificates;
mod route;

use std::collections::{BTreeSet, HashMap};
use std::path::Path;
use std::sync::Arc;

use http::HeaderName;

use self::route::Parts;
use super::check::tags::named as named_tags;
use super::diagnostic::{self, Diagnostic};
use super::document::{Document, RouteSettings, ServerSettings};
use super::effective::{Given, Resolver};
use super::files_read::FilesRead;
use super::load::Partial;
use super::plan::{Gateway, ListenerPlan, Server, UpstreamPlan};
use super::types::At;
use super::types::{Period, Size};
use crate::entry::client_ip::Clients;
use crate::entry::route::{RouteMatch, Table};
use crate::listen::Listener;
use crate::policy::authenticators::{self, Sections};
use crate::policy::limits::limit::{Limit, quota_name};
use crate::policy::overload::Overload;
use crate::policy::rate_limit::RateLimits;
use crate::policy::tag_book::TagBook;
use crate::relay::message::strip::StripSet;
use crate::relay::targets::resolver::LookUps;
use crate::relay::upstream::Upstream;
use crate::report::access_log::{AccessLog, LogFormat};
use crate::report::metrics::series::LimitSeries;
use crate::report::writer::To;
use crate::state::State;
use crate::store::Store;

/// The default of `server.pool`.
const POOL: usize = 1024;
/// The default of `server.limits_memory`.
const LIMITS_MEMORY: Size = Size::mib(64);
/// The default of `server.drain`.
const DRAIN: Period = Period::seconds(30);
/// The default of `server.settle`.
const SETTLE: Period = Period::seconds(1);

/// What `check/` tells first and in one place, under codes of its own. The parts refuse it all the same, because they may be compiled
/// without a document.
pub const TOLD_BEFORE: &[&str] = &[
    "allow-empty",
    "allow-never-met",
    "allow-without-auth",
    "api-key-carrier",
    "authenticator-kind",
    "bad-code",
    "bad-header-name",
    "bad-status",
    "clients-header-invalid",
    "clients-without-proxies",
    "consumer-keys",
    "consumer-name",
    "consumer-scopes",
    "consumer-unreachable",
    "contradicting-headers",
    "contradicting-rewrite",
    "cors-no-origins",
    "duplicate-header",
    "duplicate-identity",
    "duplicate-key",
    "host-repeated",
    "hosts-empty",
    "identity-without-tokens",
    "inert-key",
    "ip-filter-both",
    "ip-filter-empty",
    "jwt-keys",
    "limit-burst",
    "limit-key-before-auth",
    "limit-key-repeated",
    "limit-key-unreachable",
    "limit-without-key",
    "listener-limit-key",
    "listener-limit-per-route",
    "method-repeated",
    "methods-empty",
    "no-targets",
    "unknown-name",
];

/// Collects mistakes, and goes on with what there is.
#[derive(Default)]
pub struct Wrong(Vec<Diagnostic>);

impl Wrong {
    pub fn add(&mut self, mistake: Diagnostic) {
        self.0.push(mistake);
    }

    pub fn keep<T>(&mut self, result: Result<T, Vec<Diagnostic>>) -> Option<T> {
        result.map_err(|more| self.0.extend(more)).ok()
    }

    /// What was given, compiled.
    pub fn compile<S, T>(&mut self, given: Option<Given<'_, S>>, compile: impl FnOnce(&At<S>) -> Result<T, Vec<Diagnostic>>) -> Option<T> {
        given.and_then(|given| self.keep(compile(given.settings)))
    }
}

/// Reads, checks and compiles what is at `path`. From an `earlier` snapshot, remembered tokens are carried over; everything else
/// that outlives snapshots is in `state`.
///
/// # Errors
/// Every mistake, sorted by place.
pub fn load(path: &Path, env: super::interpolate::Env<'_>, state: &State, earlier: Option<&Gateway>) -> Result<Gateway, Vec<Diagnostic>> {
    load_noting(path, env, state, earlier, &FilesRead::default())
}

/// As [`load`]. Every file that is read is noted, also where the outcome is an error.
///
/// # Errors
/// Every mistake, sorted by place.
pub fn load_noting(
    path: &Path,
    env: super::interpolate::Env<'_>,
    state: &State,
    earlier: Option<&Gateway>,
    read: &FilesRead,
) -> Result<Gateway, Vec<Diagnostic>> {
    match super::load::load(path, env, read) {
        Ok(document) => judge(document, path, state, earlier),
        Err(partial) => Err(judge_partial(*partial, path, state)),
    }
}

/// As [`load`], of a text as if it were the file `name`.
///
/// # Errors
/// Every mistake, sorted by place.
pub fn load_text(name: &str, text: &str, env: super::interpolate::Env<'_>, state: &State) -> Result<Gateway, Vec<Diagnostic>> {
    match super::load::load_text(name, text, env) {
        Ok(document) => judge(document, Path::new(name), state, None),
        Err(partial) => Err(judge_partial(*partial, Path::new(name), state)),
    }
}

fn judge(document: Document, path: &Path, state: &State, earlier: Option<&Gateway>) -> Result<Gateway, Vec<Diagnostic>> {
    let mut mistakes = super::check::check(&document);
    let more = match compile(document, path, state, earlier) {
        Ok(gateway) if mistakes.is_empty() => return Ok(gateway),
        Ok(_) => return Err(mistakes),
        Err(more) => more,
    };
    // What only the compiling finds is told too, where it is about something else and does not just follow from something else.
    let (other, same) = apart(&mistakes, more);
    mistakes.extend(other);
    if mistakes.is_empty() {
        mistakes = same;
    }
    diagnostic::sort(&mut mistakes);
    Err(mistakes)
}

/// Every mistake of a document of which entries are missing: what only the compiling finds in the others is told at once, too.
fn judge_partial(mut partial: Partial, path: &Path, state: &State) -> Vec<Diagnostic> {
    let document = std::mem::take(&mut partial.document);
    // The matches of all routes, whose listeners may be among what is missing. Whether two tie depends on those.
    let mut more = Table::compile(&matches(&document, |_| true)).err().unwrap_or_default();
    more.retain(|mistake| mistake.code != "equal-rank-routes");
    more.extend(compile(document, path, state, None).err().into_iter().flatten());
    let (mut other, _) = apart(&partial.mistakes, more);
    diagnostic::sort(&mut other);
    other.dedup();
    partial.tell(other);
    partial.mistakes
}

/// Splits what compiling found into what is new and what was told already, in other words or at the same place.
fn apart(told: &[Diagnostic], found: Vec<Diagnostic>) -> (Vec<Diagnostic>, Vec<Diagnostic>) {
    let spot = |one: &Diagnostic| one.place.as_ref().map(|at| (at.source.path.clone(), at.line, at.column));
    let told: BTreeSet<_> = told.iter().map(spot).collect();
    found.into_iter().partition(|one| !told.contains(&spot(one)) && !TOLD_BEFORE.contains(&one.code))
}

fn compile(document: Document, path: &Path, state: &State, earlier: Option<&Gateway>) -> Result<Gateway, Vec<Diagnostic>> {
    let mut wrong = Wrong::default();
    let fingerprint = fingerprint(&document);
    let server = server(document.server.as_ref(), &mut wrong);
    let overload = document.server.as_ref().and_then(|server| server.overload.as_ref());
    let overload = overload.and_then(|settings| wrong.keep(Overload::compile(settings, state.pressure.clone())));
    let access_log = match &document.access_log {
        Some(settings) => wrong.keep(settings.compile()),
        None => None,
    };
    let access_log = access_log.unwrap_or(AccessLog { to: To::Stdout, format: LogFormat::default(), sample: None });
    let clients = wrong.keep(Clients::compile(document.clients.as_ref()));
    let series = |name: &str| state.metrics.limit(name);
    let plans: Vec<Arc<Limit>> = document
        .plans
        .iter()
        .filter_map(|(name, plan)| wrong.keep(Limit::compile_plan(name, plan)).map(|plan| Arc::new(plan.with_series(&series))))
        .collect();
    let limits: HashMap<&str, Arc<Limit>> = document
        .limits
        .iter()
        .filter_map(|(name, limit)| Some((name.as_str(), Arc::new(wrong.keep(Limit::compile(name, limit))?.with_series(&series)))))
        .collect();
    let plan_names: Vec<Arc<str>> = document.plans.iter().map(|(name, _)| name.as_str().into()).collect();
    let sections = Sections {
        authenticators: &document.authenticators,
        consumers: &document.consumers,
        consumers_from: document.consumers_from.as_ref(),
        revocation: document.revocation.as_ref(),
        plans: &plan_names,
        book: Arc::new(TagBook::new(named_tags(&document), &state.metrics)),
    };
    let known = authenticators::compile(&sections, server.tokens_memory, earlier.map(|earlier| &earlier.authenticators));
    let authenticators = wrong.keep(known).unwrap_or_default();
    let look_ups = wrong.keep(LookUps::compile(document.resolver.as_ref())).unwrap_or_default();
    let upstreams = upstreams(&document, state, &mut wrong);
    let listeners = listeners(&document, &limits, state, &mut wrong);
    certificates::check(&document, &listeners, &mut wrong);

    let resolver = Resolver::new(&document);
    let parts = Parts { authenticators: &authenticators, limits: &limits, upstreams: &upstreams, document: &document, state };
    let mut set_headers = Vec::new();
    let mut routes = Vec::with_capacity(document.routes.len());
    for (name, settings) in &document.routes {
        let effective = resolver.effective(settings);
        if let Some(given) = effective.given(|all| &all.request_headers) {
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
        overload,
        access_log,
        admin: document.admin.as_ref().map(|admin| admin.address.value),
        listeners,
        clients,
        has_quotas: plans.iter().chain(limits.values()).any(|limit| limit.is_long()),
        plans,
        strip,
        credential_parameters,
        authenticators,
        routes: routes.into_iter().flatten().collect(),
        unmatched: state.metrics.route("", None),
        metrics: state.metrics.clone(),
        limit_series: limit_series(&document, state),
        look_ups,
        upstreams: upstreams.into_values().collect(),
        sources: document.sources,
        tests: document.tests,
    })
}

/// What limits and plans refuse is counted by name.
fn limit_series(document: &Document, state: &State) -> HashMap<Box<str>, Arc<LimitSeries>> {
    let limits = document.limits.iter().map(|(name, _)| name.value.clone());
    let plans = document.plans.iter().map(|(name, _)| name.value.clone());
    let quotas =
        document.plans.iter().filter(|(_, plan)| plan.rate.is_some() && plan.quota.is_some()).map(|(name, _)| quota_name(&name.value));
    let all = limits.chain(plans).chain(quotas);
    all.map(|name| (Box::from(name.as_str()), state.metrics.limit(&name))).collect()
}

fn fingerprint(document: &Document) -> String {
    let mut context = aws_lc_rs::digest::Context::new(&aws_lc_rs::digest::SHA256);
    for source in &document.sources {
        context.update(source.text.as_bytes());
    }
    context.finish().as_ref()[..8].iter().map(|byte| format!("{byte:02x}")).collect()
}

fn server(settings: Option<&ServerSettings>, wrong: &mut Wrong) -> Server {
    let absent = ServerSettings::default();
    let ServerSettings { threads, pool, drain, settle, state, watch, limits_memory, limits_store, tokens_memory, zone: _, overload: _ } =
        settings.unwrap_or(&absent);
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    Server {
        threads: threads.as_ref().map_or(cores, |threads| usize::from(threads.value)),
        pool: pool.as_ref().map_or(POOL, |pool| pool.value as usize),
        drain: drain.as_ref().map_or(DRAIN, |drain| drain.value).0,
        settle: settle.as_ref().map_or(SETTLE, |settle| settle.value).0,
        state: state.as_ref().map(|folder| folder.place.source.path.parent().unwrap_or(Path::new("")).join(&folder.value)),
        watch: *watch,
        limits_store: limits_store.as_ref().and_then(|store| wrong.keep(Store::compile(store))),
        limits_memory: limits_memory.as_ref().map_or(LIMITS_MEMORY, |size| size.value).0,
        tokens_memory: tokens_memory.as_ref().map_or(authenticators::TOKENS_MEMORY, |size| size.value.0),
    }
}

fn upstreams<'d>(document: &'d Document, state: &State, wrong: &mut Wrong) -> HashMap<&'d str, Arc<UpstreamPlan>> {
    let mut all = HashMap::new();
    let zone: Option<Arc<str>> = document.server.as_ref().and_then(|server| server.zone.as_ref()).map(|zone| zone.value.as_str().into());
    for (name, settings) in &document.upstreams {
        if let Some(mut upstream) = wrong.keep(Upstream::compile(name, settings)) {
            upstream.zone = zone.clone();
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
        let compiled = wrong.keep(Listener::compile(settings, &state.tickets));
        let named: Vec<_> = settings.limits.iter().filter_map(|limit| limits.get(limit.as_str()).cloned()).collect();
        let here = |route: &RouteSettings| match &route.own.listeners {
            Some(names) => names.iter().any(|own| own.value == name.value),
            None => true,
        };
        let table = wrong.keep(Table::compile(&matches(document, here)));
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

fn matches(document: &Document, is_wanted: impl Fn(&RouteSettings) -> bool) -> Vec<RouteMatch<'_>> {
    let routes = document.routes.iter().enumerate().filter(|(_, (_, route))| is_wanted(route));
    routes.map(|(index, (name, route))| RouteMatch { index, name, place: route.place.clone(), settings: &route.own.matches }).collect()
}
