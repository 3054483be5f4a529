//! What changes about one target while it runs: its addresses, their standing, requests in flight, counts.
//!
//! Decides when a target can be used. Does not decide which one a request gets (`balance.rs`), nor runs checks
//! (`health/`) or asks for addresses (`discovery.rs`); both report here. A target is known by its upstream's name and its
//! address as written, and outlives snapshots: see `pool.rs`.

use std::hash::{DefaultHasher, Hash, Hasher};
use std::net::SocketAddr;
use std::os::unix::net::SocketAddr as SocketPath;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU32, AtomicU64, AtomicUsize, Ordering::Relaxed};

use arc_swap::ArcSwap;
use http::HeaderValue;
use parking_lot::Mutex;
use serde::{Deserialize, Serialize};
use tokio::sync::Notify;

use super::address::{Address, Host, Spot};
use super::endpoint::{Endpoint, EndpointReport};
use super::figures::{Figures, Recent};
use super::standing::{Cause, May, Out};
use crate::clock;
use crate::relay::attempt::connect::Learnt;
use crate::relay::balance::latency::Latency;
use crate::relay::balance::warmth::Warmth;

/// One place where an upstream runs, as it is now.
#[derive(Debug)]
pub struct Target {
    pub upstream: Arc<str>,
    pub address: Address,
    /// Connections are reused only between requests with the same key, so that an address that changes owner never gets another
    /// service's requests.
    pub group_key: u64,
    /// For routes with `host: upstream`.
    pub host_header: HeaderValue,
    /// Where the target chooses the protocol.
    pub learnt: Learnt,
    /// Where it is a Unix socket.
    pub socket: Option<SocketPath>,
    endpoints: Endpoints,
    /// Whether any endpoint takes requests; kept beside them so that choosing reads one word.
    pub(in crate::relay) usable: AtomicU8,
    /// By the operator: addresses that are found later are out, too.
    pub(in crate::relay) drained: AtomicBool,
    in_flight: AtomicU32,
    /// The same of all targets of the upstream.
    load: Arc<AtomicU32>,
    /// Told only where the upstream goes by it.
    pub latency: Latency,
    /// Asked only where targets begin slowly.
    pub warmth: Warmth,
    pub figures: Figures,
    next: AtomicUsize,
    chosen: AtomicU64,
    pub(in crate::relay) turns_down: AtomicU64,
    pub(in crate::relay) turns_up: AtomicU64,
    /// Part of the key of connections; see [`Target::abandon_connections`].
    generation: AtomicU64,
    /// Held while addresses or verdicts change, so that `usable` never lags behind them.
    pub(in crate::relay) changing: Mutex<()>,
    /// Wakes the checks when there are new addresses.
    pub(in crate::relay) renewed: Notify,
}

/// A literal address never changes, which saves a load per request.
#[derive(Debug)]
enum Endpoints {
    Fixed([Arc<Endpoint>; 1]),
    Resolved(ArcSwap<Vec<Arc<Endpoint>>>),
}

/// What `/status` shows and what an upgrade hands to the new process.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct TargetReport {
    pub upstream: String,
    pub target: String,
    pub in_flight: u32,
    /// Requests that were sent here.
    pub chosen: u64,
    /// Taken out by the operator.
    #[serde(default)]
    pub drained: bool,
    /// How attempts failed; shown, not handed over.
    #[serde(skip)]
    pub errors: Vec<(&'static str, u64)>,
    #[serde(skip)]
    pub recent: Recent,
    #[serde(skip)]
    pub ejections: u64,
    #[serde(skip)]
    pub circuits_opened: u64,
    pub endpoints: Vec<EndpointReport>,
}

/// A target that was chosen for one attempt; counts as in flight until dropped.
#[derive(Debug)]
pub struct Chosen {
    target: Arc<Target>,
    addr: Spot,
    era: u64,
    /// The address whose half-open circuit has let it through.
    probes: Option<Arc<Endpoint>>,
}

/// Some address takes requests, none does, or one may: its circuit is half open.
pub(in crate::relay) const UNUSABLE: u8 = 0;
pub(in crate::relay) const USABLE: u8 = 1;
pub(in crate::relay) const ASK: u8 = 2;

// === impl TargetReport ===

impl TargetReport {
    /// Whether it is given requests: some address of it is healthy.
    pub fn is_healthy(&self) -> bool {
        self.endpoints.iter().any(|endpoint| endpoint.healthy)
    }
}

// === impl Target ===

impl Target {
    pub fn new(upstream: Arc<str>, address: Address, load: Arc<AtomicU32>) -> Target {
        // SipHash with fixed keys: the same in every process, so that an upgrade or a reload changes nothing.
        let mut hasher = DefaultHasher::new();
        (&*upstream, &*address.text).hash(&mut hasher);
        let group_key = hasher.finish();
        let socket = address.socket();
        let endpoints = match address.host {
            Host::Ip(ip) => Endpoints::Fixed([Arc::new(Endpoint::new(Spot::Ip(SocketAddr::new(ip, address.port))))]),
            Host::Name(_) | Host::Path(_) => match &socket {
                Some((spot, _)) => Endpoints::Fixed([Arc::new(Endpoint::new(*spot))]),
                None => Endpoints::Resolved(ArcSwap::from_pointee(Vec::new())),
            },
        };
        let usable = AtomicU8::new(if matches!(endpoints, Endpoints::Fixed(_)) { USABLE } else { UNUSABLE });
        Target {
            upstream,
            host_header: address.host_header(),
            learnt: Learnt::default(),
            socket: socket.map(|(_, path)| path),
            address,
            group_key,
            endpoints,
            usable,
            drained: AtomicBool::new(false),
            in_flight: AtomicU32::new(0),
            load,
            latency: Latency::default(),
            warmth: Warmth::default(),
            figures: Figures::default(),
            next: AtomicUsize::new(0),
            chosen: AtomicU64::new(0),
            turns_down: AtomicU64::new(0),
            turns_up: AtomicU64::new(0),
            generation: AtomicU64::new(0),
            changing: Mutex::new(()),
            renewed: Notify::new(),
        }
    }

    /// Whether any of its addresses takes requests.
    #[inline]
    pub fn is_usable(&self) -> bool {
        match self.usable.load(Relaxed) {
            USABLE => true,
            UNUSABLE => false,
            _ => self.has_other(&[]),
        }
    }

    /// Looks at each address.
    #[inline(never)]
    fn has_other(&self, tried: &[Spot]) -> bool {
        self.with_endpoints(|endpoints| endpoints.iter().any(|e| e.is_healthy() && !tried.contains(&e.addr)))
    }

    /// Requests that were sent and are not done.
    #[inline]
    pub fn in_flight(&self) -> u32 {
        self.in_flight.load(Relaxed)
    }

    /// An address of it in words.
    pub fn shown(&self, spot: Spot) -> String {
        match spot {
            Spot::Ip(addr) => addr.to_string(),
            Spot::Socket(_) => self.address.to_string(),
        }
    }

    /// Has later requests open connections of their own: because one that many share has fallen silent, or because the target is listed no
    /// more. Requests that are on it stay.
    pub fn abandon_connections(&self) {
        self.generation.fetch_add(1, Relaxed);
    }

    /// How often addresses of it went out and came back.
    pub fn turns(&self) -> (u64, u64) {
        (self.turns_down.load(Relaxed), self.turns_up.load(Relaxed))
    }

    /// Addresses as they are now; empty until a name was resolved.
    pub fn endpoints(&self) -> Vec<Arc<Endpoint>> {
        self.with_endpoints(|endpoints| endpoints.to_vec())
    }

    pub(in crate::relay) fn with_endpoints<R>(&self, look: impl FnOnce(&[Arc<Endpoint>]) -> R) -> R {
        match &self.endpoints {
            Endpoints::Fixed(one) => look(one),
            Endpoints::Resolved(many) => look(&many.load()),
        }
    }

    /// Whether a request that has failed at the addresses in `tried` can be sent here.
    #[inline]
    pub(in crate::relay) fn can_take(&self, tried: &[Spot]) -> bool {
        if tried.is_empty() { self.is_usable() } else { self.has_other(tried) }
    }

    /// Takes the next address that takes requests and is not in `tried`, and counts the request as in flight.
    pub(in crate::relay) fn take(self: &Arc<Self>, tried: &[Spot]) -> Option<Chosen> {
        let take = |e: &Arc<Endpoint>| match e.standing.may() {
            _ if tried.contains(&e.addr) => None,
            May::Take => Some((e.addr, e.era, None)),
            May::Probe => e.circuit().probe().then(|| (e.addr, e.era, Some(e.clone()))),
            May::Nothing => None,
        };
        let (addr, era, probes) = self.with_endpoints(|endpoints| match endpoints {
            [] => None,
            [only] => take(only),
            many => {
                let start = self.next.fetch_add(1, Relaxed);
                (0..many.len()).find_map(|i| take(&many[start.wrapping_add(i) % many.len()]))
            }
        })?;
        self.in_flight.fetch_add(1, Relaxed);
        self.load.fetch_add(1, Relaxed);
        self.chosen.fetch_add(1, Relaxed);
        Some(Chosen { target: self.clone(), addr, era, probes })
    }

    /// Looks at its address at this place, if it still is one of its.
    #[inline]
    pub(in crate::relay) fn with_endpoint(&self, spot: Spot, look: impl FnOnce(&Endpoint)) {
        match &self.endpoints {
            // It never had another.
            Endpoints::Fixed([only]) => look(only),
            Endpoints::Resolved(many) => {
                if let Some(found) = many.load().iter().find(|e| e.addr == spot) {
                    look(found);
                }
            }
        }
    }

    /// Puts newly resolved addresses in place. What is known of those that stay is kept; new ones start healthy. A literal address
    /// stays as it is. Returns whether anything changed.
    pub fn replace_addresses(&self, addresses: &[std::net::IpAddr]) -> bool {
        let Endpoints::Resolved(current) = &self.endpoints else { return false };
        let _changing = self.changing.lock();
        let old = current.load();
        let mut wanted: Vec<Spot> = addresses.iter().map(|ip| Spot::Ip(SocketAddr::new(*ip, self.address.port))).collect();
        // Name servers shuffle their answers: sorted, the same set is no change.
        wanted.sort_unstable();
        wanted.dedup();
        if wanted.iter().eq(old.iter().map(|e| &e.addr)) {
            return false;
        }
        let keep = |addr: &Spot| old.iter().find(|e| e.addr == *addr).cloned();
        let unix_ms = clock::now().unix_ms;
        let drained = old.iter().find_map(|e| e.standing.outs().into_iter().find(|out| out.cause == Cause::Drained));
        let make = |addr: &Spot| {
            let endpoint = Endpoint::new(*addr);
            if self.is_drained() {
                let new = || Out { cause: Cause::Drained, since_unix_ms: unix_ms, reason: "as its target".to_owned(), until_unix_ms: None };
                endpoint.standing.out(drained.clone().unwrap_or_else(new));
            }
            Arc::new(endpoint)
        };
        let new: Vec<_> = wanted.iter().map(|addr| keep(addr).unwrap_or_else(|| make(addr))).collect();
        current.store(Arc::new(new));
        self.refresh();
        self.renewed.notify_waiters();
        true
    }

    pub fn report(&self) -> TargetReport {
        TargetReport {
            upstream: self.upstream.to_string(),
            target: self.address.to_string(),
            in_flight: self.in_flight(),
            chosen: self.chosen.load(Relaxed),
            drained: self.is_drained(),
            errors: self.figures.errors(),
            recent: self.figures.recent(clock::mono()),
            ejections: self.figures.ejections(),
            circuits_opened: self.figures.circuits_opened(),
            endpoints: self.with_endpoints(|endpoints| endpoints.iter().map(|e| e.report(self.shown(e.addr))).collect()),
        }
    }

    /// Takes over what another process knew of this target: resolved addresses and their health. Requests in flight stay there.
    pub fn restore(&self, known: &TargetReport) {
        let addresses: Vec<_> = known.endpoints.iter().filter_map(|e| e.address.parse::<SocketAddr>().ok()).map(|addr| addr.ip()).collect();
        if !addresses.is_empty() {
            self.replace_addresses(&addresses);
        }
        let now = clock::now();
        self.drained.store(known.drained, Relaxed);
        let _changing = self.changing.lock();
        self.with_endpoints(|endpoints| {
            for endpoint in endpoints {
                if let Some(known) = known.endpoints.iter().find(|k| k.address == self.shown(endpoint.addr)) {
                    endpoint.restore(known, now);
                }
            }
        });
        self.refresh();
    }
}

// === impl Chosen ===

impl Chosen {
    pub fn target(&self) -> &Arc<Target> {
        &self.target
    }

    /// Where to connect to.
    pub fn addr(&self) -> Spot {
        self.addr
    }

    /// What connections to it are known by at present.
    pub(in crate::relay) fn present_key(&self) -> u64 {
        self.target.group_key ^ self.target.generation.load(Relaxed) ^ self.era
    }

    /// Whether it finds out if the target works again.
    pub fn is_probe(&self) -> bool {
        self.probes.is_some()
    }
}

impl Drop for Chosen {
    fn drop(&mut self) {
        self.target.in_flight.fetch_sub(1, Relaxed);
        self.target.load.fetch_sub(1, Relaxed);
        if let Some(endpoint) = &self.probes {
            endpoint.circuit().probed();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::relay::health::{Thresholds, Turn};

    const AT_ONCE: Thresholds = Thresholds { unhealthy_after: 1, healthy_after: 1 };

    fn target(address: &str) -> Arc<Target> {
        Arc::new(Target::new("orders".into(), Address::parse(address).unwrap(), Arc::default()))
    }

    fn ips(texts: &[&str]) -> Vec<std::net::IpAddr> {
        texts.iter().map(|text| text.parse().unwrap()).collect()
    }

    #[test]
    fn a_literal_address_is_usable_from_the_start_and_a_name_once_resolved() {
        assert!(target("127.0.0.1:80").is_usable());
        let named = target("orders.internal:80");
        assert!(!named.is_usable());
        assert!(named.take(&[]).is_none());
        assert!(named.replace_addresses(&ips(&["10.0.0.1"])));
        assert_eq!(named.take(&[]).unwrap().addr(), Spot::Ip("10.0.0.1:80".parse().unwrap()));
    }

    #[test]
    fn new_answers_of_the_name_server_keep_the_health_of_addresses_that_stay() {
        let target = target("orders.internal:80");
        target.replace_addresses(&ips(&["10.0.0.1", "10.0.0.2"]));
        let first = target.endpoints()[0].clone();
        assert_eq!(target.observe(&first, Err("refused".into()), AT_ONCE, 7), Some(Turn::Down));
        assert!(!target.replace_addresses(&ips(&["10.0.0.2", "10.0.0.1"])), "another order is no change");
        assert!(target.replace_addresses(&ips(&["10.0.0.1", "10.0.0.3"])));
        let healthy: Vec<_> = target.endpoints().iter().map(|e| (target.shown(e.addr), e.is_healthy())).collect();
        assert_eq!(healthy, [("10.0.0.1:80".to_owned(), false), ("10.0.0.3:80".to_owned(), true)]);
        assert!(target.replace_addresses(&ips(&["10.0.0.1"])));
        assert!(!target.is_usable(), "the only address left is unhealthy");
    }

    #[test]
    fn a_choice_is_in_flight_until_it_is_dropped() {
        let target = target("127.0.0.1:80");
        let (one, two) = (target.take(&[]).unwrap(), target.take(&[]).unwrap());
        assert_eq!(target.in_flight(), 2);
        drop(one);
        assert_eq!(target.in_flight(), 1);
        drop(two);
        assert_eq!(target.in_flight(), 0);
        assert_eq!(target.report().chosen, 2);
    }

    #[test]
    fn addresses_of_a_name_take_turns_and_tried_ones_are_skipped() {
        let target = target("orders.internal:80");
        target.replace_addresses(&ips(&["10.0.0.1", "10.0.0.2"]));
        let turns: Vec<_> = (0..4).map(|_| target.take(&[]).unwrap().addr()).collect();
        assert_eq!((turns[0], turns[1]), (turns[2], turns[3]));
        assert_ne!(turns[0], turns[1]);
        let tried = [turns[0]];
        assert!((0..4).all(|_| target.take(&tried).unwrap().addr() == turns[1]));
        assert!(!target.can_take(&turns));
        assert!(target.take(&turns).is_none());
    }

    #[test]
    fn another_process_takes_over_what_is_known() {
        let old = target("orders.internal:80");
        old.replace_addresses(&ips(&["10.0.0.1", "10.0.0.2"]));
        old.observe(&old.endpoints()[1].clone(), Err("timed out".into()), AT_ONCE, 1_234);
        let text = serde_json::to_string(&old.report()).unwrap();
        let new = target("orders.internal:80");
        new.restore(&serde_json::from_str(&text).unwrap());
        assert_eq!(new.report().endpoints, old.report().endpoints);
        assert!(!new.endpoints()[1].is_healthy());
        assert_eq!(new.observe(&new.endpoints()[1].clone(), Ok(()), AT_ONCE, 2_000), Some(Turn::Up));
    }

    #[test]
    fn the_same_address_in_two_upstreams_has_two_connection_pools() {
        let address = || Address::parse("10.0.0.1:80").unwrap();
        let (orders, billing) =
            (Target::new("orders".into(), address(), Arc::default()), Target::new("billing".into(), address(), Arc::default()));
        assert_ne!(orders.group_key, billing.group_key);
        assert_eq!(orders.group_key, Target::new("orders".into(), address(), Arc::default()).group_key);
    }

    #[test]
    fn a_target_without_checks_is_trusted_again() {
        let target = target("127.0.0.1:80");
        target.observe(&target.endpoints()[0].clone(), Err("refused".into()), AT_ONCE, 7);
        assert!(!target.is_usable());
        target.trust();
        assert!(target.is_usable());
    }
}
