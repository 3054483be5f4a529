//! What outlives a configuration snapshot: counters, health, open files. Carried over by a reload, and most of it by an upgrade.
//!
//! Decides nothing. A fresh one, with nothing open, serves `check`, `explain` and `test`.

use std::sync::Arc;

use parking_lot::Mutex;

use crate::clock;
use crate::listen::tls::tickets::TicketKeys;
use crate::policy::buckets::Buckets;
use crate::policy::pressure::Pressure;
use crate::relay::mirror::Mirrors;
use crate::relay::targets::pool::Pools;
use crate::report::metrics::Metrics;

/// Shared by all snapshots and all threads of a process.
#[derive(Default)]
pub struct State {
    pub pools: Pools,
    pub metrics: Arc<Metrics>,
    /// Of the memory of the process, where that is bounded.
    pub pressure: Arc<Pressure>,
    /// Copies of requests that wait.
    pub mirrors: Arc<Mirrors>,
    /// With which clients resume TLS sessions, on whatever listener.
    pub tickets: Arc<TicketKeys>,
    buckets: Mutex<Option<(u64, Arc<Buckets>)>>,
}

// === impl State ===

impl State {
    /// The buckets of all limits, in so much memory. Another size than before takes effect with [`State::settle`], when the
    /// snapshot that asks for it is accepted.
    pub fn buckets(&self, bytes: u64) -> Arc<Buckets> {
        self.buckets.lock().get_or_insert_with(|| (bytes, Arc::new(Buckets::new(bytes)))).1.clone()
    }

    /// What the limits have counted, for the process that takes over.
    pub fn dump_buckets(&self) -> Vec<u8> {
        let buckets = self.buckets.lock().as_ref().map(|(_, buckets)| buckets.clone());
        buckets.map(|buckets| buckets.dump(clock::mono())).unwrap_or_default()
    }

    /// Gives the buckets the size that an accepted snapshot asks for. They keep what they count.
    pub fn settle(&self, bytes: u64) {
        if let Some((size, buckets)) = &mut *self.buckets.lock()
            && *size != bytes
        {
            buckets.resize(bytes, clock::mono());
            *size = bytes;
        }
    }
}
