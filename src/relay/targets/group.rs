//! What changes about an upstream as a whole while it runs: its circuit, who waits for it, whether so many addresses are out that all are
//! used. Known by the upstream's name, and outlives snapshots.
//!
//! Decides nothing: rules are the snapshot's, turns are in `turns.rs`.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};

use parking_lot::Mutex;
use serde::{Deserialize, Serialize};
use tokio::sync::Notify;

use crate::ctx::Now;
use crate::relay::adaptive::{Concurrency, Limiter};
use crate::relay::circuit::{Circuit, Phase};
use crate::relay::gate::Gate;
use crate::relay::room::Room;

/// Of one upstream.
#[derive(Debug, Default)]
pub struct Group {
    pub circuit: Circuit,
    pub gate: Gate,
    pub room: Room,
    /// How many requests it can take, where that is found out.
    pub limiter: Limiter,
    /// Held while addresses turn, so that no more are ejected than may be.
    pub(in crate::relay) changing: Mutex<()>,
    /// Wakes who brings back what has a time.
    pub(in crate::relay) woken: Notify,
    panic: AtomicBool,
    /// The snapshot that judges: what requests of another one meet turns nothing.
    judge: AtomicU64,
    spared: AtomicU64,
    spared_told: AtomicU64,
    /// Why its circuit opened, and when it turned last.
    last: Mutex<(String, u64)>,
}

/// What `/status` shows and what an upgrade hands to the new process.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct GroupReport {
    pub upstream: String,
    /// `closed`, `open` or `half_open`.
    pub circuit: String,
    pub reason: String,
    /// Milliseconds since 1970; 0 where it never turned.
    pub since_unix_ms: u64,
    /// When an open one is probed.
    pub until_unix_ms: u64,
    #[serde(skip)]
    pub opened: u64,
    #[serde(skip)]
    pub panic: bool,
    #[serde(skip)]
    pub spared: u64,
    #[serde(skip)]
    pub waiting: usize,
    /// Connections that are open, where there may be so many only, and those that were opened above that.
    #[serde(skip)]
    pub connections: Option<u32>,
    #[serde(skip)]
    pub over: u64,
    /// How many requests it gets at once, where that is found out.
    #[serde(skip)]
    pub concurrency: Option<Concurrency>,
}

// === impl Group ===

impl Group {
    pub(in crate::relay) fn now_judged_by(&self, pool: u64) {
        self.judge.store(pool, Relaxed);
    }

    pub(in crate::relay) fn is_judged_by(&self, pool: u64) -> bool {
        self.judge.load(Relaxed) == pool
    }

    pub fn is_panic(&self) -> bool {
        self.panic.load(Relaxed)
    }

    pub(in crate::relay) fn set_panic(&self, panic: bool) -> bool {
        self.panic.swap(panic, Relaxed)
    }

    /// Counts one that is not ejected because too many are. True: it is time to tell.
    pub(in crate::relay) fn spares(&self, now: u64, every: u64) -> bool {
        let is_first = self.spared.fetch_add(1, Relaxed) == 0;
        let told = self.spared_told.load(Relaxed);
        let is_due = is_first || now.saturating_sub(told) >= every;
        is_due && self.spared_told.compare_exchange(told, now, Relaxed, Relaxed).is_ok()
    }

    pub(in crate::relay) fn told(&self, why: String, unix_ms: u64) {
        *self.last.lock() = (why, unix_ms);
    }

    pub fn report(&self, upstream: &str, now: Now) -> GroupReport {
        let (reason, since_unix_ms) = self.last.lock().clone();
        let phase = self.circuit.phase();
        let left = self.circuit.until().saturating_sub(now.mono) / 1_000_000;
        GroupReport {
            upstream: upstream.to_owned(),
            circuit: phase.as_str().to_owned(),
            reason: if phase == Phase::Closed { String::new() } else { reason },
            since_unix_ms,
            until_unix_ms: if phase == Phase::Open { now.unix_ms.saturating_add(left) } else { 0 },
            opened: self.circuit.opened.load(Relaxed),
            panic: self.is_panic(),
            spared: self.spared.load(Relaxed),
            waiting: self.gate.waiting() + self.room.waiting() as usize,
            connections: self.room.open(),
            over: self.room.over(),
            concurrency: self.limiter.report(),
        }
    }

    /// As another process knew it. One that was half open there is probed here at once.
    pub fn restore(&self, known: &GroupReport, now: Now) {
        if known.circuit == Phase::Closed.as_str() {
            return;
        }
        let left = known.until_unix_ms.saturating_sub(now.unix_ms);
        self.circuit.restore(now.mono.saturating_add(left.saturating_mul(1_000_000)));
        self.told(known.reason.clone(), known.since_unix_ms);
    }
}
