//! What is counted for a listener, a limit. Only relaxed atomics: a request pays for a few additions.
//!
//! Decides which counter an event belongs to. Does not name the metrics (`family.rs`) and does not look anything up by name:
//! whoever counts holds the series since its configuration was loaded.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicI64, AtomicU64, Ordering::Relaxed};

use super::Named;
use super::family::Samples;
use super::route::ByKind;
pub use super::upstream::{Failure, UpstreamSeries};
use crate::clock;
use crate::policy::limits::crowd::Crowd;
use crate::reply::problem::Kind;

/// The connections and bytes of one listener.
#[derive(Debug, Default)]
pub struct ListenerSeries {
    name: Box<str>,
    pub bytes_in: AtomicU64,
    pub bytes_out: AtomicU64,
    pub requests_in_flight: AtomicI64,
    pub connections: AtomicI64,
    pub accepted: AtomicU64,
    dropped: [AtomicU64; Dropped::ALL.len()],
    handshakes: [AtomicU64; Handshake::ALL.len()],
    refused: ByKind,
}

/// Why a client's connection was closed without an answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Dropped {
    /// `connections.max` of the listener.
    Max,
    /// `connections.per_address` of the listener.
    PerAddress,
    /// `connections.rate_per_address` of the listener.
    RatePerAddress,
    /// `tls.handshakes_per_address` of the listener.
    HandshakesPerAddress,
    /// The head of a request did not come in time, and not a byte of it that could be answered.
    HeaderDeadline,
    /// The client left in the middle of a head.
    Cut,
    /// The process has no descriptor left for it.
    NoDescriptors,
    /// What stands before HTTP was not done in time.
    Handshake,
    /// The TLS handshake failed.
    Tls,
    /// A load balancer did not say who its client is, where it must.
    ProxyMissing,
    /// What should be a header of the PROXY protocol is none.
    ProxyInvalid,
    /// Somebody who may not speaks for another, or does not where only those who may are served.
    ProxyUntrusted,
}

/// How a TLS handshake with a client ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Handshake {
    Full,
    /// An earlier session was resumed.
    Resumed,
    /// Plain HTTP came instead.
    PlainHttp,
    /// The address has begun too many.
    TooFast,
    /// The client asks for a name that no certificate has.
    UnknownName,
    /// No version, cipher or protocol in common.
    Incompatible,
    /// The client's certificate is missing or not believed.
    ClientCertificate,
    /// The client broke it off with an alert: most often it does not believe our certificate.
    Alert,
    /// What came is no TLS, or not in order.
    Malformed,
    /// The client left.
    Cut,
}

/// What one limit or plan refused.
#[derive(Debug, Default)]
pub struct LimitSeries {
    name: Box<str>,
    by_key: [AtomicU64; KEYS.len()],
    /// Who was refused.
    pub crowd: Crowd,
    /// Places that are taken now.
    pub held: AtomicU64,
    /// Requests that wait now.
    pub waiting: AtomicU64,
    /// Requests that had to wait.
    pub delayed: AtomicU64,
    has_places: AtomicBool,
    has_waiting: AtomicBool,
    upstreams: Named<AtUpstream>,
}

/// What one limit on requests at once does at one upstream.
#[derive(Debug)]
pub struct AtUpstream {
    pub upstream: Box<str>,
    /// Places that are taken now.
    pub held: AtomicU64,
    /// Requests that found none.
    pub refused: AtomicU64,
}

/// What limits count by; the last is for any that is not among them.
const KEYS: [&str; 8] = ["consumer", "subject", "api_key", "tag", "client_ip", "header", "global", "other"];

// === impl ListenerSeries ===

impl ListenerSeries {
    pub(super) fn new(name: &str) -> Self {
        ListenerSeries { name: name.into(), ..ListenerSeries::default() }
    }

    pub fn dropped(&self, reason: Dropped) {
        self.dropped[reason as usize].fetch_add(1, Relaxed);
    }

    pub fn shaken(&self, how: Handshake) {
        self.handshakes[how as usize].fetch_add(1, Relaxed);
    }

    pub(super) fn handshakes(&self, samples: &mut Samples) {
        // Only where there is TLS.
        if self.handshakes.iter().all(|counter| counter.load(Relaxed) == 0) {
            return;
        }
        for (how, counter) in Handshake::ALL.iter().zip(&self.handshakes) {
            samples.put(&[&self.name, how.as_str()], counter.load(Relaxed) as f64);
        }
    }

    /// Counts a head that was refused before it was a request.
    pub fn refused(&self, kind: &Kind) {
        if let Some(at) = kind.position() {
            self.refused.add(at);
        }
    }

    pub(super) fn in_flight(&self, samples: &mut Samples) {
        samples.put(&[&self.name], self.requests_in_flight.load(Relaxed) as f64);
    }

    pub(super) fn bytes(&self, samples: &mut Samples) {
        samples.put(&[&self.name, "in"], self.bytes_in.load(Relaxed) as f64);
        samples.put(&[&self.name, "out"], self.bytes_out.load(Relaxed) as f64);
    }

    pub(super) fn open(&self, samples: &mut Samples) {
        samples.put(&[&self.name], self.connections.load(Relaxed) as f64);
    }

    pub(super) fn accepts(&self, samples: &mut Samples) {
        samples.put(&[&self.name], self.accepted.load(Relaxed) as f64);
    }

    pub(super) fn drops(&self, samples: &mut Samples) {
        for (reason, counter) in Dropped::ALL.iter().zip(&self.dropped) {
            samples.put(&[&self.name, reason.as_str()], counter.load(Relaxed) as f64);
        }
    }

    pub(super) fn head_refusals(&self, samples: &mut Samples) {
        for (kind, count) in self.refused.counted() {
            samples.put(&[&self.name, kind.code], count as f64);
        }
    }
}

// === impl Dropped ===

impl Dropped {
    pub const ALL: [Dropped; 12] = [
        Dropped::Max,
        Dropped::PerAddress,
        Dropped::RatePerAddress,
        Dropped::HandshakesPerAddress,
        Dropped::HeaderDeadline,
        Dropped::Cut,
        Dropped::NoDescriptors,
        Dropped::Handshake,
        Dropped::Tls,
        Dropped::ProxyMissing,
        Dropped::ProxyInvalid,
        Dropped::ProxyUntrusted,
    ];

    pub fn as_str(self) -> &'static str {
        match self {
            Dropped::Max => "max",
            Dropped::PerAddress => "per_address",
            Dropped::RatePerAddress => "rate_per_address",
            Dropped::HandshakesPerAddress => "handshakes_per_address",
            Dropped::HeaderDeadline => "header_deadline",
            Dropped::Cut => "cut",
            Dropped::NoDescriptors => "no_descriptors",
            Dropped::Handshake => "handshake_deadline",
            Dropped::Tls => "tls",
            Dropped::ProxyMissing => "proxy_missing",
            Dropped::ProxyInvalid => "proxy_invalid",
            Dropped::ProxyUntrusted => "proxy_untrusted",
        }
    }
}

// === impl Handshake ===

impl Handshake {
    pub const ALL: [Handshake; 10] = [
        Handshake::Full,
        Handshake::Resumed,
        Handshake::PlainHttp,
        Handshake::TooFast,
        Handshake::UnknownName,
        Handshake::Incompatible,
        Handshake::ClientCertificate,
        Handshake::Alert,
        Handshake::Malformed,
        Handshake::Cut,
    ];

    pub fn as_str(self) -> &'static str {
        match self {
            Handshake::Full => "full",
            Handshake::Resumed => "resumed",
            Handshake::PlainHttp => "plain_http",
            Handshake::TooFast => "too_fast",
            Handshake::UnknownName => "unknown_name",
            Handshake::Incompatible => "incompatible",
            Handshake::ClientCertificate => "client_certificate",
            Handshake::Alert => "alert",
            Handshake::Malformed => "malformed",
            Handshake::Cut => "cut",
        }
    }
}

// === impl LimitSeries ===

impl LimitSeries {
    pub fn new(name: &str) -> Self {
        LimitSeries { name: name.into(), ..LimitSeries::default() }
    }

    /// Counts a request that this limit refused; `key` as in `Charge::key_kind`.
    pub fn refused(&self, key: &str) {
        let at = KEYS.iter().position(|known| *known == key).unwrap_or(KEYS.len() - 1);
        self.by_key[at].fetch_add(1, Relaxed);
    }

    pub(super) fn callers(&self, samples: &mut Samples) {
        if let Some(callers) = self.crowd.callers(clock::mono()) {
            samples.put(&[&self.name], callers as f64);
        }
    }

    /// What is shown of it, even at 0.
    pub fn shows(&self, places: bool, waiting: bool) {
        self.has_places.store(places, Relaxed);
        self.has_waiting.store(waiting, Relaxed);
    }

    pub(super) fn holds(&self, samples: &mut Samples) {
        if self.has_places.load(Relaxed) {
            samples.put(&[&self.name], self.held.load(Relaxed) as f64);
        }
    }

    /// At one of the upstreams, where it counts at each of its own.
    pub fn at(&self, upstream: &str) -> Arc<AtUpstream> {
        let new = || AtUpstream { upstream: upstream.into(), held: AtomicU64::new(0), refused: AtomicU64::new(0) };
        self.upstreams.get(upstream, |_| true, new)
    }

    pub(super) fn holds_at(&self, samples: &mut Samples) {
        if self.has_places.load(Relaxed) {
            self.upstreams.each(|at| samples.put(&[&self.name, &at.upstream], at.held.load(Relaxed) as f64));
        }
    }

    pub(super) fn refusals_at(&self, samples: &mut Samples) {
        if self.has_places.load(Relaxed) {
            self.upstreams.each(|at| samples.put(&[&self.name, &at.upstream], at.refused.load(Relaxed) as f64));
        }
    }

    pub(super) fn waits(&self, samples: &mut Samples) {
        if self.has_waiting.load(Relaxed) {
            samples.put(&[&self.name], self.waiting.load(Relaxed) as f64);
        }
    }

    pub(super) fn delays(&self, samples: &mut Samples) {
        if self.has_waiting.load(Relaxed) {
            samples.put(&[&self.name], self.delayed.load(Relaxed) as f64);
        }
    }

    pub(super) fn refusals(&self, samples: &mut Samples) {
        for (key, counter) in KEYS.iter().zip(&self.by_key) {
            let count = counter.load(Relaxed);
            if count > 0 {
                samples.put(&[&self.name, key], count as f64);
            }
        }
    }
}
