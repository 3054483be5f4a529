//! What the private listener tells about the process: whether it is ready, what runs, how it is.
//!
//! Decides nothing: reads what others hold.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use arc_swap::ArcSwap;
use parking_lot::Mutex;

use super::upstream_figures;
use crate::admin::targets::TargetStatus;
use crate::admin::{ConfigStatus, Figures, KeySetStatus, LimitsStoreStatus, ListStatus, ListenerStatus, Moment, ReloadStatus, Status};
use crate::clock;
use crate::config::plan::Gateway;
use crate::listen::address::Address;
use crate::listen::running::RunningListener;
use crate::policy::authenticators::Method;
use crate::policy::introspection::Counts;
use crate::policy::jwt::MemoryUses;
use crate::policy::jwt::published::Published;
use crate::policy::list_file::{Follow, Origin};
use crate::report::metrics::family;
use crate::report::metrics::family::Samples;

use crate::state::State;

/// How the last reload ended.
#[derive(Clone)]
pub struct LastReload {
    pub at: u64,
    pub accepted: bool,
    pub text: String,
}

/// What is shown.
pub struct Shown {
    state: Arc<State>,
    gateway: Arc<ArcSwap<Gateway>>,
    started: u64,
    loaded: AtomicU64,
    accepted: AtomicU64,
    refused: AtomicU64,
    /// Why this process is not ready; none where it is.
    unready: Mutex<Option<&'static str>>,
    last: Mutex<Option<LastReload>>,
    listeners: Mutex<Vec<(Address, Arc<RunningListener>)>>,
}

// === impl Shown ===

impl Shown {
    pub fn new(state: Arc<State>, gateway: Arc<ArcSwap<Gateway>>) -> Self {
        let now = clock::now().unix_ms;
        Shown {
            state,
            gateway,
            started: now,
            loaded: AtomicU64::new(now),
            accepted: AtomicU64::new(0),
            refused: AtomicU64::new(0),
            unready: Mutex::new(Some("starting")),
            last: Mutex::new(None),
            listeners: Mutex::new(Vec::new()),
        }
    }

    pub fn set_ready(&self, unready: Option<&'static str>) {
        *self.unready.lock() = unready;
    }

    pub fn listeners(&self, listeners: Vec<(Address, Arc<RunningListener>)>) {
        *self.listeners.lock() = listeners;
    }

    pub fn reloaded(&self, last: LastReload) {
        if last.accepted {
            self.loaded.store(last.at, Relaxed);
            self.accepted.fetch_add(1, Relaxed);
        } else {
            self.refused.fetch_add(1, Relaxed);
        }
        *self.last.lock() = Some(last);
    }
}

/// Registers the figures that are read when somebody asks.
pub fn register(shown: &Arc<Shown>) {
    let metrics = &shown.state.metrics;
    let me = shown.clone();
    metrics.source(&family::RELOADS, move |samples| {
        samples.put(&["accepted"], me.accepted.load(Relaxed) as f64);
        samples.put(&["refused"], me.refused.load(Relaxed) as f64);
    });
    let me = shown.clone();
    metrics.source(&family::RELOAD_LAST_SUCCESS, move |samples| samples.put(&[], me.loaded.load(Relaxed) as f64 / 1_000.0));
    let me = shown.clone();
    metrics.source(&family::CONFIG_INFO, move |samples| samples.put(&[&me.gateway.load().fingerprint], 1.0));
    super::found::register(metrics, &shown.gateway);
    upstream_figures::register(&shown.state);
    let me = shown.clone();
    metrics.source(&family::TLS_EXPIRY, move |samples| {
        for listener in &me.gateway.load().listeners {
            for certificate in listener.settings.tls.iter().flat_map(|tls| tls.certificates()) {
                samples.put(&[&listener.name, &certificate.name], certificate.not_after as f64);
            }
        }
    });
    let me = shown.clone();
    metrics.source(&family::TLS_LISTS, move |samples| {
        for listener in &me.gateway.load().listeners {
            for certificate in listener.settings.tls.iter().flat_map(|tls| tls.certificates()) {
                if let Some(until) = certificate.clients().and_then(|clients| clients.lists_until) {
                    samples.put(&[&listener.name, &certificate.name], until as f64);
                }
            }
        }
    });
    let uses = |family, read: fn(&MemoryUses) -> &AtomicU64| {
        let me = shown.clone();
        metrics.source(family, move |samples| {
            for authenticator in me.gateway.load().authenticators.iter() {
                if let Method::Jwt(jwt) = &authenticator.method {
                    samples.put(&[&authenticator.name], read(jwt.uses()).load(Relaxed) as f64);
                }
            }
        });
    };
    uses(&family::TOKEN_MEMORY_HITS, |uses| &uses.hits);
    uses(&family::TOKEN_MEMORY_MISSES, |uses| &uses.misses);
    let published = |family, put: fn(&Published, &str, &mut Samples)| {
        let me = shown.clone();
        metrics.source(family, move |samples| {
            for (name, published) in me.gateway.load().authenticators.published() {
                put(published, name, samples);
            }
        });
    };
    published(&family::KEY_SET_KEYS, |published, name, samples| samples.put(&[name], published.shown().keys as f64));
    published(&family::KEY_SET_FETCHED, |published, name, samples| {
        if let Some(fetched) = published.shown().fetched {
            samples.put(&[name], fetched as f64 / 1_000.0);
        }
    });
    published(&family::KEY_SET_NEXT, |published, name, samples| samples.put(&[name], published.shown().next as f64 / 1_000.0));
    published(&family::KEY_SET_FETCHES, |published, name, samples| {
        samples.put(&[name, "ok"], published.counts.fetched.load(Relaxed) as f64);
        samples.put(&[name, "failed"], published.counts.failed.load(Relaxed) as f64);
    });
    published(&family::KEY_SET_UNKNOWN, |published, name, samples| {
        samples.put(&[name, "asked"], published.counts.wished.load(Relaxed) as f64);
        samples.put(&[name, "held-back"], published.counts.held_back.load(Relaxed) as f64);
    });
    let me = shown.clone();
    metrics.source(&family::INTROSPECTIONS, move |samples| {
        for authenticator in me.gateway.load().authenticators.iter() {
            if let Method::Introspection(issuer) = &authenticator.method {
                let Counts { remembered, active, inactive, failed, held_back } = issuer.counts();
                let all =
                    [("remembered", remembered), ("active", active), ("inactive", inactive), ("failed", failed), ("held-back", held_back)];
                for (result, counter) in all {
                    samples.put(&[&authenticator.name, result], counter.load(Relaxed) as f64);
                }
            }
        }
    });
    let lists = |family, put: fn(&dyn Follow, &str, &mut Samples)| {
        let me = shown.clone();
        metrics.source(family, move |samples| {
            for (name, list) in me.gateway.load().authenticators.lists() {
                put(&*list, name, samples);
            }
        });
    };
    lists(&family::LIST_ENTRIES, |list, name, samples| samples.put(&[name], list.shown().entries as f64));
    lists(&family::LIST_READ, |list, name, samples| samples.put(&[name], list.shown().read as f64 / 1_000.0));
    lists(&family::LIST_READS, |list, name, samples| {
        samples.put(&[name, "ok"], list.counts().read.load(Relaxed) as f64);
        samples.put(&[name, "failed"], list.counts().failed.load(Relaxed) as f64);
    });
    lists(&family::LIST_LAG, |list, name, samples| {
        if matches!(list.origin(), Origin::Key(_)) {
            samples.put(&[name], list.counts().lag.load(Relaxed) as f64 / 1e6);
        }
    });
    lists(&family::LIST_UNUSABLE, |list, name, samples| {
        if matches!(list.origin(), Origin::Key(_)) {
            samples.put(&[name], list.counts().unusable.load(Relaxed) as f64);
        }
    });
    let me = shown.clone();
    metrics.source(&family::LIMITER_BUCKETS, move |samples| samples.put(&[], me.gateway.load().buckets.figures().in_use as f64));
    let me = shown.clone();
    metrics.source(&family::LIMITER_EVICTED, move |samples| samples.put(&[], me.gateway.load().buckets.figures().evicted as f64));
    let me = shown.clone();
    metrics.source(&family::LIMITER_OVERFLOWED, move |samples| samples.put(&[], me.gateway.load().buckets.figures().overflowed as f64));
}

impl Figures for Shown {
    fn readiness(&self) -> Result<(), String> {
        match *self.unready.lock() {
            Some(why) => Err(why.to_owned()),
            None => Ok(()),
        }
    }

    fn metrics(&self) -> String {
        self.state.metrics.render()
    }

    fn status(&self) -> Status {
        let gateway = self.gateway.load();
        let mut shares = super::found::shares(&gateway);
        let mut upstreams: BTreeMap<String, Vec<TargetStatus>> = BTreeMap::new();
        for target in self.state.pools.report() {
            let share = shares.remove(&(target.upstream.clone(), target.target.clone()));
            upstreams.entry(target.upstream.clone()).or_default().push(TargetStatus { share, ..target.into() });
        }
        let unready = *self.unready.lock();
        Status {
            version: env!("CARGO_PKG_VERSION"),
            pid: std::process::id(),
            started: Moment(self.started),
            uptime_s: clock::now().unix_ms.saturating_sub(self.started) / 1_000,
            ready: unready.is_none(),
            reason: unready.map(str::to_owned),
            config: ConfigStatus {
                path: gateway.path.display().to_string(),
                hash: gateway.fingerprint.clone(),
                loaded: Moment(self.loaded.load(Relaxed)),
            },
            last_reload: self.last.lock().clone().map(|last| ReloadStatus {
                at: Moment(last.at),
                accepted: last.accepted,
                diagnostics: if last.accepted { String::new() } else { last.text },
            }),
            listeners: self
                .listeners
                .lock()
                .iter()
                .map(|(address, listener)| {
                    (
                        listener.name.to_string(),
                        ListenerStatus { address: address.to_string(), connections: u64::from(listener.connections()) },
                    )
                })
                .collect(),
            upstreams,
            found: super::found::status(&gateway),
            upstream_states: self.state.pools.report_groups().into_iter().map(|group| (group.upstream.clone(), group.into())).collect(),
            key_sets: gateway.authenticators.published().map(|(name, published)| (name.to_owned(), key_set(published))).collect(),
            lists: gateway.authenticators.lists().into_iter().map(|(name, list)| (name.to_owned(), list_status(&*list))).collect(),
            limits_store: limits_store(&gateway),
        }
    }
}

fn key_set(published: &Published) -> KeySetStatus {
    let shown = published.shown();
    KeySetStatus {
        from: published.source.origin.to_string(),
        keys: shown.keys,
        fetched: shown.fetched.map(Moment),
        age_s: shown.fetched.map(|fetched| clock::now().unix_ms.saturating_sub(fetched) / 1_000),
        next_fetch: Moment(shown.next),
        last_result: match (shown.trouble, shown.fetched) {
            (Some(why), _) => why,
            (None, Some(_)) => "ok".to_owned(),
            (None, None) => "not fetched yet".to_owned(),
        },
        failures: shown.failures,
    }
}

fn limits_store(gateway: &Gateway) -> Option<LimitsStoreStatus> {
    let (store, shared) = (gateway.server.limits_store.as_ref()?, &gateway.buckets.shared);
    let turn = shared.last_turn();
    Some(LimitsStoreStatus {
        address: store.to_string(),
        is_up: shared.is_up(),
        since: Some(turn.at).filter(|at| *at > 0).map(Moment),
        gateways: shared.gateways(),
        last_result: turn.trouble.clone().unwrap_or_else(|| if shared.is_up() { "ok".to_owned() } else { "not asked yet".to_owned() }),
    })
}

fn list_status(list: &dyn Follow) -> ListStatus {
    let shown = list.shown();
    ListStatus {
        from: list.origin().to_string(),
        entries: shown.entries,
        read: Some(shown.read).filter(|read| *read > 0).map(Moment),
        age_s: Some(shown.read).filter(|read| *read > 0).map(|read| clock::now().unix_ms.saturating_sub(read) / 1_000),
        last_result: shown.trouble.unwrap_or_else(|| if list.is_unread() { "not read yet".to_owned() } else { "ok".to_owned() }),
    }
}
