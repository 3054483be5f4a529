//! A configuration that runs: one immutable snapshot, held by each request from its first line to its last.
//!
//! Decides nothing: made by `compile.rs`, read by every chapter.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

use super::diagnostic::Source;
use super::document::TestSettings;
use super::types::Named;
use crate::entry::canonical::SpellingSet;
use crate::entry::client_ip::Clients;
use crate::entry::route::Table;
use crate::entry::route::pattern::Pattern;
use crate::listen::Listener;
use crate::listen::address::Address;
use crate::listen::running::RunningListener;
use crate::policy::Policies;
use crate::policy::authenticators::Authenticators;
use crate::policy::buckets::Buckets;
use crate::policy::limits::limit::Limit;
use crate::policy::overload::Overload;
use crate::policy::priority::Priority;
use crate::policy::rate_limit::RateLimits;
use crate::relay::attempt::timeouts::Timeouts;
use crate::relay::balance::hash_by::HashKeys;
use crate::relay::choice::Choice;
use crate::relay::fallback::Fallback;
use crate::relay::message::head::HeadPlan;
use crate::relay::message::strip::StripSet;
use crate::relay::mirror::Mirror;
use crate::relay::targets::pool::Pool;
use crate::relay::targets::resolver::LookUps;
use crate::reply::fixed::{Fixed, Redirect};
use crate::reply::headers::ResponseHeaders;
use crate::report::access_log::AccessLog;
use crate::report::metrics::Metrics;
use crate::report::metrics::route::RouteSeries;
use crate::report::metrics::series::{LimitSeries, ListenerSeries};
use crate::report::metrics::upstream::UpstreamSeries;
use crate::store::Store;

/// One configuration, compiled.
pub struct Gateway {
    pub path: PathBuf,
    /// The first 16 hex digits of the SHA-256 of what was read.
    pub fingerprint: String,
    pub server: Server,
    pub access_log: AccessLog,
    pub admin: Option<SocketAddr>,
    pub listeners: Vec<ListenerPlan>,
    pub clients: Clients,
    pub authenticators: Authenticators,
    /// The limits of `plans`, by their index.
    pub plans: Vec<Arc<Limit>>,
    pub buckets: Arc<Buckets>,
    /// Bounds of the process.
    pub overload: Option<Overload>,
    /// What clients may not say, on any route.
    pub strip: StripSet,
    /// Names of the query parameters that carry credentials.
    pub credential_parameters: Vec<String>,
    pub routes: Vec<Route>,
    /// Figures of requests that match no route.
    pub unmatched: Arc<RouteSeries>,
    /// Figures of the process, for what is counted over all routes.
    pub metrics: Arc<Metrics>,
    /// Whether something counts for so long that it is kept through a restart.
    pub has_quotas: bool,
    /// What limits and plans refused, by name; looked up only when one refuses.
    pub limit_series: HashMap<Box<str>, Arc<LimitSeries>>,
    /// How names of targets are looked up.
    pub look_ups: LookUps,
    pub upstreams: Vec<Arc<UpstreamPlan>>,
    /// The files: they know what no message may show.
    pub sources: Vec<Arc<Source>>,
    pub tests: Named<TestSettings>,
}

/// The process as a whole, with its defaults.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Server {
    pub threads: usize,
    /// Connections to upstreams at rest, of each worker.
    pub pool: usize,
    pub drain: Duration,
    pub settle: Duration,
    pub watch: bool,
    pub state: Option<PathBuf>,
    pub limits_memory: u64,
    /// Over which limits are shared.
    pub limits_store: Option<Store>,
    pub tokens_memory: u64,
}

/// A listener in one snapshot.
pub struct ListenerPlan {
    pub name: Arc<str>,
    pub address: Address,
    pub settings: Listener,
    /// Judged before routing.
    pub limits: RateLimits,
    pub table: Table,
    pub series: Arc<ListenerSeries>,
}

/// An upstream in one snapshot.
#[derive(Debug)]
pub struct UpstreamPlan {
    pub name: Arc<str>,
    pub pool: Arc<Pool>,
    pub series: Arc<UpstreamSeries>,
}

/// A route in one snapshot.
pub struct Route {
    pub name: Arc<str>,
    pub pattern: Pattern,
    pub accept: SpellingSet,
    pub policies: Policies,
    pub response: ResponseHeaders,
    /// Whether its requests may be sent twice, where it says so.
    pub idempotent: Option<bool>,
    /// Who goes first, where it says so.
    pub priority: Option<Priority>,
    pub action: Action,
    /// More ways than the one in `action`, and what chooses among them.
    pub others: Option<Box<Others>>,
    /// What answers where no target can be reached.
    pub fallback: Option<Box<Fallback>>,
    pub mirror: Option<Arc<Mirror>>,
    pub series: Arc<RouteSeries>,
    /// What `sluice routes` shows.
    pub shown: Shown,
}

/// What happens to a request that passed.
pub enum Action {
    Upstream(Box<Relay>),
    Respond(Fixed),
    Redirect(Redirect),
}

/// The ways to other upstreams than the default.
pub struct Others {
    /// None: there is nothing to choose, only to fall back to.
    pub choice: Option<Choice>,
    /// In the order in which the choice counts them, from 1.
    pub relays: Vec<Relay>,
}

/// The way to an upstream.
pub struct Relay {
    pub upstream: Arc<UpstreamPlan>,
    /// Whether a request may be refused because others are there.
    pub asks: bool,
    pub head: HeadPlan,
    /// What the route says, else the upstream.
    pub timeouts: Timeouts,
    /// Whether the route says any of it.
    pub has_own_timeouts: bool,
    /// Whether gRPC-Web is translated.
    pub grpc_web: bool,
    /// What its requests are told apart by, where the upstream goes by that.
    pub hash: HashKeys,
    /// Query parameters that are cut before the request goes on.
    pub cut: Vec<String>,
}

/// A route as a person reads it.
#[derive(Clone, Debug)]
pub struct Shown {
    /// File and line.
    pub place: String,
    pub listeners: Vec<String>,
    pub hosts: Vec<String>,
    pub path: String,
    pub methods: Vec<String>,
    pub conditions: Vec<String>,
    pub auth: Vec<String>,
    pub is_public: bool,
    pub limits: Vec<String>,
    pub target: String,
}

// === impl Route ===

impl Route {
    /// Names of the upstreams that it may choose among, and of what it falls back to, as they are counted.
    pub fn upstreams(&self) -> Vec<&str> {
        let others = self.others.iter().flat_map(|others| &others.relays);
        self.relay(0).into_iter().chain(others).map(|relay| &*relay.upstream.name).collect()
    }

    /// The way to the upstream that was chosen (see [`Facts::chosen`](crate::ctx::Facts::chosen)), where it has one.
    #[inline]
    pub fn relay(&self, chosen: usize) -> Option<&Relay> {
        match &self.action {
            Action::Upstream(relay) if chosen == 0 => Some(relay),
            Action::Upstream(_) => self.others.as_ref()?.relays.get(chosen - 1),
            Action::Respond(_) | Action::Redirect(_) => None,
        }
    }
}

// === impl Gateway ===

impl Gateway {
    /// Requests that have begun on any listener and not ended.
    pub fn in_flight(&self) -> u64 {
        let all: i64 = self.listeners.iter().map(|listener| listener.series.requests_in_flight.load(Relaxed)).sum();
        u64::try_from(all).unwrap_or(0)
    }

    /// The listener of a connection: the one at the address where it came in, whatever a reload has named it; or else, where a reload
    /// has moved it to another address, the one with its name. A name alone would let what came in from outside pass for internal,
    /// where two listeners exchange their names.
    pub fn listener_of(&self, running: &RunningListener) -> Option<(usize, &ListenerPlan)> {
        let by_name = self.listener(running.slot(), &running.name);
        by_name.filter(|(_, listener)| listener.address == running.address).or_else(|| {
            let by_address = self.listeners.iter().enumerate().find(|(_, listener)| listener.address == running.address);
            by_address.or(by_name)
        })
    }

    /// The listener with this name, which was at `slot` when the connection was accepted.
    pub fn listener(&self, slot: usize, name: &str) -> Option<(usize, &ListenerPlan)> {
        match self.listeners.get(slot) {
            Some(listener) if *listener.name == *name => Some((slot, listener)),
            _ => self.listeners.iter().enumerate().find(|(_, listener)| *listener.name == *name),
        }
    }
}
