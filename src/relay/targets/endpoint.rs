//! One address of a target: what is known of it, and whether it may take requests.
//!
//! Decides nothing of its own: what speaks against it is in `standing.rs`, who finds out is elsewhere.

use std::sync::OnceLock;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use parking_lot::Mutex;
use serde::{Deserialize, Serialize};

use super::address::Spot;
use super::standing::{Cause, May, Out, Standing};
use crate::relay::circuit::Circuit;
use crate::relay::health::Tracker;
use crate::relay::outliers::Conduct;

/// One address of a target.
#[derive(Debug)]
pub struct Endpoint {
    pub addr: Spot,
    /// Another number for each: an address that went and came back may have been somebody else's meanwhile, so its connections are not
    /// found again.
    pub(in crate::relay) era: u64,
    pub(in crate::relay) standing: Standing,
    /// Of requests that were sent here, where they are judged by.
    pub(in crate::relay) conduct: Conduct,
    /// Made where there is a circuit.
    circuit: OnceLock<Box<Circuit>>,
    pub(in crate::relay) checked: Mutex<Checked>,
}

/// What checks have found.
#[derive(Debug, Default)]
pub(in crate::relay) struct Checked {
    pub tracker: Tracker,
    /// Milliseconds since 1970 when it last went out or came back, for whatever cause; 0 where it never did.
    pub since: u64,
    /// Why the last check failed; empty where it did not.
    pub reason: String,
}

/// What `/status` shows and what an upgrade hands to the new process.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct EndpointReport {
    /// An address and a port, or `unix:/path`.
    pub address: String,
    pub healthy: bool,
    /// Milliseconds since 1970; 0 where it never turned.
    pub since_unix_ms: u64,
    /// Why the last check failed.
    pub reason: String,
    /// Every cause for which it is out.
    #[serde(default)]
    pub outs: Vec<Out>,
    /// Its circuit is half open: it takes a few requests to find out.
    #[serde(default)]
    pub probed: bool,
}

static ERAS: AtomicU64 = AtomicU64::new(1);
/// Has numbers in a row differ in all bits.
const SPREAD: u64 = 0x9e37_79b9_7f4a_7c15;

// === impl Endpoint ===

impl Endpoint {
    pub(in crate::relay) fn new(addr: Spot) -> Endpoint {
        let era = ERAS.fetch_add(1, Relaxed).wrapping_mul(SPREAD);
        Endpoint {
            addr,
            era,
            standing: Standing::default(),
            conduct: Conduct::default(),
            circuit: OnceLock::new(),
            checked: Mutex::default(),
        }
    }

    /// Whether it may take a request now.
    pub fn is_healthy(&self) -> bool {
        match self.standing.may() {
            May::Take => true,
            May::Probe => self.circuit().has_room(),
            May::Nothing => false,
        }
    }

    pub(in crate::relay) fn circuit(&self) -> &Circuit {
        self.circuit.get_or_init(Box::default)
    }

    /// Its circuit, if it ever had one.
    pub(in crate::relay) fn known_circuit(&self) -> Option<&Circuit> {
        self.circuit.get().map(|circuit| &**circuit)
    }

    pub(in crate::relay) fn report(&self, shown: String) -> EndpointReport {
        let checked = self.checked.lock();
        EndpointReport {
            address: shown,
            healthy: self.standing.may() != May::Nothing,
            since_unix_ms: checked.since,
            reason: checked.reason.clone(),
            outs: self.standing.outs(),
            probed: self.standing.is_probed(),
        }
    }

    /// Takes over what another process knew. What ends by itself ends as it would have there.
    pub(in crate::relay) fn restore(&self, known: &EndpointReport, now: crate::ctx::Now) {
        let mut outs = known.outs.clone();
        if !known.healthy && outs.is_empty() {
            // From a process that knew of checks only.
            let reason = known.reason.clone();
            outs.push(Out { cause: Cause::Check, since_unix_ms: known.since_unix_ms, reason, until_unix_ms: None });
        }
        let is_out = outs.iter().any(|out| out.cause == Cause::Check);
        *self.checked.lock() = Checked { tracker: Tracker::known(!is_out), since: known.since_unix_ms, reason: known.reason.clone() };
        for out in outs {
            let left = out.until_unix_ms.unwrap_or_default().saturating_sub(now.unix_ms);
            let until = now.mono.saturating_add(left.saturating_mul(1_000_000));
            match out.cause {
                Cause::Ejected => self.conduct.eject_until(until),
                Cause::Circuit => self.circuit().restore(until),
                Cause::Check | Cause::Drained => {}
            }
            self.standing.out(out);
        }
    }
}
