//! Counts what happens and tells it in Prometheus' text format.
//!
//! Decides who keeps which counters and for how long: a series lives as long as some configuration snapshot holds it, so that a
//! reload keeps the counts, and a route that is gone, or belongs to a refused reload, leaves nothing behind. Names are in
//! `family.rs`, counters in `route.rs` and `series.rs`.

pub mod family;
mod histogram;
pub mod process;
pub mod route;
pub mod series;
pub mod shed;
pub mod tags;
pub mod tunnels;
pub mod upstream;

use std::collections::BTreeMap;
use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Weak};

use parking_lot::{Mutex, RwLock};

use self::family::{Family, Samples};
use self::process::Process;
use self::route::{ByKind, RouteSeries};
use self::series::{LimitSeries, ListenerSeries};
use self::shed::Shed;
use self::tags::TagSeries;
use self::tunnels::Tunnels;
use self::upstream::UpstreamSeries;
use super::writer::Counts;
use crate::reply::problem::{KINDS, Kind};

/// All metrics of the process. One, shared; what counts on the way of a request is held by the snapshot instead.
#[derive(Default)]
pub struct Metrics {
    routes: Named<RouteSeries>,
    listeners: Named<ListenerSeries>,
    upstreams: Named<UpstreamSeries>,
    limits: Named<LimitSeries>,
    tags: Named<TagSeries>,
    refusals: ByKind,
    pub shed: Shed,
    sources: RwLock<Vec<Source>>,
}

/// Series by name, for as long as somebody holds them.
#[derive(Debug)]
struct Named<T>(Mutex<BTreeMap<Box<str>, Weak<T>>>);

/// Figures that another chapter keeps.
struct Source {
    family: &'static Family,
    read: Box<dyn Fn(&mut Samples) + Send + Sync>,
}

/// How the families that are counted here are read.
type Read = fn(&Metrics, &mut Samples);

static OWN: &[(&Family, Read)] = &[
    (&family::REQUESTS, |metrics, samples| metrics.routes.each(|route| route.requests(samples))),
    (&family::DURATION, |metrics, samples| metrics.routes.each(|route| route.duration(samples))),
    (&family::GATEWAY_DURATION, |metrics, samples| metrics.routes.each(|route| route.gateway_duration(samples))),
    (&family::WOULD_REFUSE, |metrics, samples| metrics.routes.each(|route| route.shadowed(samples))),
    (&family::FALLBACKS, |metrics, samples| metrics.routes.each(|route| route.fallbacks(samples))),
    (&family::FAULTS, |metrics, samples| metrics.routes.each(|route| route.faults(samples))),
    (&family::MIRRORED, |metrics, samples| metrics.routes.each(|route| route.mirrors(samples))),
    (&family::TAGGED, |metrics, samples| metrics.tags.each(|tag| tag.put(samples))),
    (&family::GRPC_CALLS, |metrics, samples| metrics.routes.each(|route| route.calls(samples))),
    (&family::WEBSOCKETS, |metrics, samples| metrics.tunnels(|route, tunnels| tunnels.opens(route, samples))),
    (&family::WEBSOCKETS_OPENED, |metrics, samples| metrics.tunnels(|route, tunnels| tunnels.openings(route, samples))),
    (&family::WEBSOCKETS_CLOSED, |metrics, samples| metrics.tunnels(|route, tunnels| tunnels.closes(route, samples))),
    (&family::WEBSOCKET_BYTES, |metrics, samples| metrics.tunnels(|route, tunnels| tunnels.bytes(route, samples))),
    (&family::WEBSOCKET_DURATION, |metrics, samples| metrics.tunnels(|route, tunnels| tunnels.durations(route, samples))),
    (&family::REFUSALS, |metrics, samples| metrics.refusals(samples)),
    (&family::LIMITED, |metrics, samples| metrics.limits.each(|limit| limit.refusals(samples))),
    (&family::LIMITED_CALLERS, |metrics, samples| metrics.limits.each(|limit| limit.callers(samples))),
    (&family::LIMIT_HELD, |metrics, samples| metrics.limits.each(|limit| limit.holds(samples))),
    (&family::LIMIT_UPSTREAM_HELD, |metrics, samples| metrics.limits.each(|limit| limit.holds_at(samples))),
    (&family::LIMIT_UPSTREAM_REFUSED, |metrics, samples| metrics.limits.each(|limit| limit.refusals_at(samples))),
    (&family::LIMIT_WAITING, |metrics, samples| metrics.limits.each(|limit| limit.waits(samples))),
    (&family::LIMIT_DELAYED, |metrics, samples| metrics.limits.each(|limit| limit.delays(samples))),
    (&family::IN_FLIGHT, |metrics, samples| metrics.listeners.each(|listener| listener.in_flight(samples))),
    (&family::BYTES, |metrics, samples| metrics.listeners.each(|listener| listener.bytes(samples))),
    (&family::HEAD_REFUSALS, |metrics, samples| metrics.listeners.each(|listener| listener.head_refusals(samples))),
    (&family::CONNECTIONS, |metrics, samples| metrics.listeners.each(|listener| listener.open(samples))),
    (&family::ACCEPTED, |metrics, samples| metrics.listeners.each(|listener| listener.accepts(samples))),
    (&family::CONNECTION_DROPS, |metrics, samples| metrics.listeners.each(|listener| listener.drops(samples))),
    (&family::TLS_HANDSHAKES, |metrics, samples| metrics.listeners.each(|listener| listener.handshakes(samples))),
    (&family::UPSTREAM_REQUESTS, |metrics, samples| metrics.upstreams.each(|upstream| upstream.results(samples))),
    (&family::UPSTREAM_BYTES, |metrics, samples| metrics.upstreams.each(|upstream| upstream.bytes(samples))),
    (&family::UPSTREAM_CONNECTIONS, |metrics, samples| metrics.upstreams.each(|upstream| upstream.connections(samples))),
    (&family::RETRIES, |metrics, samples| metrics.upstreams.each(|upstream| upstream.retries(samples))),
    (&family::RETRIES_GIVEN_UP, |metrics, samples| metrics.upstreams.each(|upstream| upstream.without_retry(samples))),
    (&family::SHED, |metrics, samples| metrics.shed.put(samples)),
    (&family::BUILD_INFO, |_, samples| samples.put(&[env!("CARGO_PKG_VERSION")], 1.0)),
];

// === impl Metrics ===

impl Metrics {
    pub fn new() -> Self {
        Metrics::default()
    }

    /// The series of a route; the one that is there already where its fixed answer (code and status) is the same. The name is
    /// empty for requests that took no route.
    pub fn route(&self, name: &str, respond: Option<(&str, u16)>) -> Arc<RouteSeries> {
        let is_same = |series: &RouteSeries| series.respond.as_ref().map(|(code, status)| (&**code, *status)) == respond;
        self.routes.get(name, is_same, || RouteSeries::new(name, respond))
    }

    pub fn listener(&self, name: &str) -> Arc<ListenerSeries> {
        self.listeners.get(name, |_| true, || ListenerSeries::new(name))
    }

    pub fn upstream(&self, name: &str) -> Arc<UpstreamSeries> {
        self.upstreams.get(name, |_| true, || UpstreamSeries::new(name))
    }

    pub fn limit(&self, name: &str) -> Arc<LimitSeries> {
        self.limits.get(name, |_| true, || LimitSeries::new(name))
    }

    /// Names of tags have no `=`.
    pub fn tag(&self, name: &str, value: &str) -> Arc<TagSeries> {
        self.tags.get(&format!("{name}={value}"), |_| true, || TagSeries::new(name, value))
    }

    /// Counts a refusal, once per refused request.
    pub fn refused(&self, kind: &Kind) {
        if let Some(at) = kind.position() {
            self.refusals.add(at);
        }
    }

    /// Asks `read` for the samples of `family` at every scrape from now on. A family may have several sources, as long as no two
    /// give the same labels. Called once per figure and process, not per reload: `read` finds the current snapshot itself.
    pub fn source(&self, family: &'static Family, read: impl Fn(&mut Samples) + Send + Sync + 'static) {
        self.sources.write().push(Source { family, read: Box::new(read) });
    }

    /// A counter, or a gauge of whole numbers, that its owner changes; the labels never change.
    pub fn number(&self, family: &'static Family, labels: &[&str]) -> Arc<AtomicU64> {
        let number = Arc::new(AtomicU64::new(0));
        let (shown, labels) = (number.clone(), labels.iter().map(|label| (*label).to_owned()).collect::<Vec<_>>());
        self.source(family, move |samples| {
            let labels: Vec<_> = labels.iter().map(String::as_str).collect();
            samples.put(&labels, shown.load(Relaxed) as f64);
        });
        number
    }

    /// Shows what became of the access-log lines.
    pub fn access_log(&self, counts: Arc<Counts>) {
        let show = |family, read: fn(&Counts) -> &AtomicU64| {
            let counts = counts.clone();
            self.source(family, move |samples| samples.put(&[], read(&counts).load(Relaxed) as f64));
        };
        show(&family::LOG_LINES, |counts| &counts.lines);
        show(&family::LOG_DROPPED, |counts| &counts.dropped);
        show(&family::LOG_LEFT_OUT, |counts| &counts.left_out);
        show(&family::LOG_BYTES, |counts| &counts.bytes);
        show(&family::LOG_ERRORS, |counts| &counts.errors);
    }

    /// All metrics in Prometheus' text format. One family is built, written and dropped after the other: with many routes the
    /// model takes several times the room of its text.
    pub fn render(&self) -> String {
        let process = Process::read();
        let mut text = String::with_capacity(16 * 1024);
        for family in family::ALL {
            let mut samples = Samples::of(family);
            self.own(family, &mut samples);
            process.put(family, &mut samples);
            for source in self.sources.read().iter().filter(|source| source.family.name == family.name) {
                (source.read)(&mut samples);
            }
            if let Err(error) = samples.encode(&mut text) {
                log::error!("metric `{}` cannot be shown: {error}", family.name);
            }
        }
        text
    }

    /// All of them, at 0 too: the first refusal must be an increase that an alert can see. Not those of the private listener, which
    /// are no requests, nor the fixed answers of routes, which are no refusals.
    fn refusals(&self, samples: &mut Samples) {
        for (at, (policy, kind)) in KINDS.iter().enumerate().filter(|(_, (policy, _))| !matches!(*policy, "admin" | "respond")) {
            samples.put(&[policy, kind.code], self.refusals.get(at) as f64);
        }
    }

    fn tunnels(&self, mut show: impl FnMut(&str, &Tunnels)) {
        self.routes.each(|route| {
            if let Some((name, tunnels)) = route.had_tunnels() {
                show(name, tunnels);
            }
        });
    }

    /// What is counted here.
    fn own(&self, family: &'static Family, samples: &mut Samples) {
        for (_, read) in OWN.iter().filter(|(own, _)| own.name == family.name) {
            read(self, samples);
        }
    }
}

impl fmt::Debug for Metrics {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Metrics").field("routes", &self.routes.0.lock().len()).finish_non_exhaustive()
    }
}

// === impl Named ===

impl<T> Default for Named<T> {
    fn default() -> Self {
        Named(Mutex::new(BTreeMap::new()))
    }
}

impl<T> Named<T> {
    /// The living series of this name if it fits, else a new one in its place.
    fn get(&self, name: &str, fits: impl Fn(&T) -> bool, make: impl FnOnce() -> T) -> Arc<T> {
        let mut series = self.0.lock();
        if let Some(found) = series.get(name).and_then(Weak::upgrade).filter(|found| fits(found)) {
            return found;
        }
        let made = Arc::new(make());
        series.insert(name.into(), Arc::downgrade(&made));
        made
    }

    /// Every living series, by name. Forgets those that are gone.
    fn each(&self, mut show: impl FnMut(&T)) {
        let mut living = Vec::new();
        self.0.lock().retain(|_, series| series.upgrade().map(|found| living.push(found)).is_some());
        living.iter().for_each(|series| show(series));
    }
}

#[cfg(test)]
mod tests;
