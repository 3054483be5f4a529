//! What is counted for a route: how its requests ended and how long they took. Only relaxed atomics.
//!
//! Decides which counter an outcome belongs to. Does not name the metrics: see `family.rs`.

use std::sync::OnceLock;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use super::family::Samples;
use super::histogram::Histogram;
use super::tunnels::Tunnels;
use crate::policy::fault::Met;
use crate::relay::mirror::Mirrored;
use crate::reply::grpc::Status;
use crate::reply::problem::{KINDS, Kind, position};

/// Upper bounds in microseconds of the whole time of a request.
static TOTAL_US: [u64; 15] =
    [250, 500, 1_000, 2_500, 5_000, 10_000, 25_000, 50_000, 100_000, 250_000, 500_000, 1_000_000, 2_500_000, 5_000_000, 10_000_000];
/// Upper bounds in microseconds of what the gateway adds.
static GATEWAY_US: [u64; 12] = [25, 50, 100, 250, 500, 1_000, 2_500, 5_000, 10_000, 25_000, 100_000, 1_000_000];

/// How a request ended.
#[derive(Clone, Copy, Debug)]
pub enum Outcome {
    /// With this status, from an upstream or by the gateway without a code (a preflight, a redirect).
    Status(u16),
    /// Refused by the gateway.
    Refused(&'static Kind),
    /// With the fixed answer that the route's configuration gives a code.
    Respond,
    /// Without an answer, for no reason that has a kind.
    Nothing,
}

/// The requests of one route. Takes room only once it had one.
#[derive(Debug)]
pub struct RouteSeries {
    name: Box<str>,
    /// Code and status of the route's fixed answer.
    pub(super) respond: Option<(Box<str>, u16)>,
    counts: OnceLock<Box<RouteCounts>>,
}

#[derive(Debug)]
struct RouteCounts {
    by_class: [AtomicU64; CLASSES.len()],
    respond: AtomicU64,
    total: Histogram<15>,
    gateway: Histogram<12>,
    refused: ByKind,
    would_refuse: ByKind,
    fell_back: ByKind,
    faults: [AtomicU64; Met::ALL.len()],
    mirrored: [AtomicU64; Mirrored::ALL.len()],
    tunnels: OnceLock<Box<Tunnels>>,
    calls: OnceLock<Box<[AtomicU64; Status::ALL]>>,
}

/// Index is the first digit of a status; 0 where there was no answer.
pub(super) const CLASSES: [&str; 6] = ["none", "1xx", "2xx", "3xx", "4xx", "5xx"];

/// One counter per kind of problem, made when the first one happens: most routes never see most of them.
#[derive(Debug, Default)]
pub(super) struct ByKind(OnceLock<Box<[AtomicU64]>>);

pub(super) fn class_of(status: u16) -> usize {
    match status / 100 {
        class @ 1..=5 => usize::from(class),
        _ => 0,
    }
}

// === impl ByKind ===

impl ByKind {
    pub(super) fn add(&self, at: usize) {
        let counters = self.0.get_or_init(|| KINDS.iter().map(|_| AtomicU64::new(0)).collect());
        counters[at].fetch_add(1, Relaxed);
    }

    /// The kinds that happened, with what raises them.
    pub(super) fn counted(&self) -> impl Iterator<Item = (&'static Kind, u64)> + '_ {
        let counters = self.0.get().into_iter().flatten();
        KINDS.iter().zip(counters).map(|((_, kind), counter)| (*kind, counter.load(Relaxed))).filter(|(_, count)| *count > 0)
    }

    /// How often the kind at this place of the table happened.
    pub(super) fn get(&self, at: usize) -> u64 {
        self.0.get().map_or(0, |counters| counters[at].load(Relaxed))
    }
}

// === impl RouteSeries ===

impl RouteSeries {
    pub(super) fn new(name: &str, respond: Option<(&str, u16)>) -> Self {
        RouteSeries { name: name.into(), respond: respond.map(|(code, status)| (code.into(), status)), counts: OnceLock::new() }
    }

    /// The WebSockets of the route; takes room only once it had one.
    pub fn tunnels(&self) -> &Tunnels {
        self.counts().tunnels.get_or_init(Box::default)
    }

    /// Counts a call of gRPC at its end.
    pub fn call_ended(&self, status: Status) {
        let counts = self.counts().calls.get_or_init(Box::default);
        if let Some(counter) = counts.get(usize::from(status.number())) {
            counter.fetch_add(1, Relaxed);
        }
    }

    pub(super) fn calls(&self, samples: &mut Samples) {
        let counts = self.counts.get().and_then(|counts| counts.calls.get());
        for (name, counter) in counts.into_iter().flat_map(|counts| Status::names().iter().zip(counts.iter())) {
            let count = counter.load(Relaxed);
            if count > 0 {
                samples.put(&[&self.name, name], count as f64);
            }
        }
    }

    /// Those that there were.
    pub(super) fn had_tunnels(&self) -> Option<(&str, &Tunnels)> {
        Some((&self.name, self.counts.get()?.tunnels.get()?))
    }

    /// Counts one request at its end. The times: none where nothing can be said, as for a tunnel.
    pub fn done(&self, outcome: Outcome, total_us: impl Into<Option<u64>>, gateway_us: Option<u64>) {
        let counts = self.counts();
        let by_status = |status| counts.by_class[class_of(status)].fetch_add(1, Relaxed);
        match outcome {
            Outcome::Status(status) => {
                by_status(status);
            }
            Outcome::Refused(kind) => match kind.position() {
                Some(at) => counts.refused.add(at),
                None => {
                    by_status(kind.status); // a kind that the table lacks still counts as an answer
                }
            },
            Outcome::Respond => {
                counts.respond.fetch_add(1, Relaxed);
            }
            Outcome::Nothing => {
                by_status(0);
            }
        }
        if let Some(us) = total_us.into() {
            counts.total.observe(us);
        }
        if let Some(us) = gateway_us {
            counts.gateway.observe(us);
        }
    }

    /// Counts a head that was refused before it was a request, and so took no time that could be told.
    pub fn refused_head(&self, kind: &Kind) {
        if let Some(at) = kind.position() {
            self.counts().refused.add(at);
        }
    }

    /// Counts that a shadowed policy would have refused with this code.
    pub fn would_refuse(&self, code: &str) {
        if let Some(at) = position(code) {
            self.counts().would_refuse.add(at);
        }
    }

    /// Counts that something else answered than the upstream, which could not be reached for this reason.
    pub fn fell_back(&self, kind: &Kind) {
        if let Some(at) = kind.position() {
            self.counts().fell_back.add(at);
        }
    }

    /// Counts a fault that was made on purpose.
    pub fn fault(&self, met: Met) {
        self.counts().faults[met as usize].fetch_add(1, Relaxed);
    }

    /// Counts what became of a copy.
    pub fn mirrored(&self, what: Mirrored) {
        self.counts().mirrored[what as usize].fetch_add(1, Relaxed);
    }

    pub(super) fn fallbacks(&self, samples: &mut Samples) {
        for (kind, count) in self.counts.get().iter().flat_map(|counts| counts.fell_back.counted()) {
            samples.put(&[&self.name, kind.code], count as f64);
        }
    }

    pub(super) fn faults(&self, samples: &mut Samples) {
        let counts = self.counts.get().into_iter().flat_map(|counts| Met::ALL.iter().zip(&counts.faults));
        for (met, count) in counts.map(|(met, counter)| (met, counter.load(Relaxed))).filter(|(_, count)| *count > 0) {
            samples.put(&[&self.name, met.as_str()], count as f64);
        }
    }

    pub(super) fn mirrors(&self, samples: &mut Samples) {
        let counts = self.counts.get().into_iter().flat_map(|counts| Mirrored::ALL.iter().zip(&counts.mirrored));
        for (what, count) in counts.map(|(what, counter)| (what, counter.load(Relaxed))).filter(|(_, count)| *count > 0) {
            samples.put(&[&self.name, what.as_str()], count as f64);
        }
    }

    fn counts(&self) -> &RouteCounts {
        self.counts.get_or_init(|| {
            Box::new(RouteCounts {
                by_class: Default::default(),
                respond: AtomicU64::new(0),
                total: Histogram::new(&TOTAL_US),
                gateway: Histogram::new(&GATEWAY_US),
                refused: ByKind::default(),
                would_refuse: ByKind::default(),
                fell_back: ByKind::default(),
                faults: Default::default(),
                mirrored: Default::default(),
                tunnels: OnceLock::new(),
                calls: OnceLock::new(),
            })
        })
    }

    pub(super) fn requests(&self, samples: &mut Samples) {
        let Some(counts) = self.counts.get() else { return };
        for (class, counter) in CLASSES.iter().zip(&counts.by_class) {
            let count = counter.load(Relaxed);
            if count > 0 {
                samples.put(&[&self.name, class, ""], count as f64);
            }
        }
        // The configured code may be one of the table's: then they share a series, since names may not repeat.
        let mut respond = self.respond.as_ref().map(|(code, status)| (&**code, class_of(*status), counts.respond.load(Relaxed)));
        for (kind, count) in counts.refused.counted() {
            let class = class_of(kind.status);
            let shared = respond.take_if(|(code, own_class, _)| *code == kind.code && *own_class == class).map_or(0, |(_, _, own)| own);
            samples.put(&[&self.name, CLASSES[class], kind.code], (count + shared) as f64);
        }
        if let Some((code, class, count)) = respond.filter(|(_, _, count)| *count > 0) {
            samples.put(&[&self.name, CLASSES[class], code], count as f64);
        }
    }

    pub(super) fn duration(&self, samples: &mut Samples) {
        if let Some(counts) = self.counts.get().filter(|counts| !counts.total.is_empty()) {
            samples.put_histogram(&[&self.name], &counts.total);
        }
    }

    pub(super) fn gateway_duration(&self, samples: &mut Samples) {
        if let Some(counts) = self.counts.get().filter(|counts| !counts.gateway.is_empty()) {
            samples.put_histogram(&[&self.name], &counts.gateway);
        }
    }

    pub(super) fn shadowed(&self, samples: &mut Samples) {
        for (kind, count) in self.counts.get().iter().flat_map(|counts| counts.would_refuse.counted()) {
            samples.put(&[&self.name, kind.code], count as f64);
        }
    }
}
