//! Counts of quotas in the folder `server.state`, so that a restart does not give everybody a new month.
//!
//! Decides when they are written: every few seconds, on another thread, where they have changed, and at the end. A crash loses what
//! was counted since. They are this instance's own. What is in them: `policy/limits/handover.rs`.

use std::sync::Arc;
use std::time::Duration;

use tokio::task::JoinHandle;

use super::limits_store::{Settler, StoreFigures};
use crate::clock;
use crate::config::plan::Gateway;
use crate::keep::Store;
use crate::policy::buckets::Buckets;
use crate::policy::limits::handover::Whole;

const FILE: &str = "quotas";
const EVERY: Duration = Duration::from_secs(2);
/// The moment of writing, in milliseconds since 1970, stands before the counts.
const HEAD: usize = 8;

/// Who writes.
#[derive(Default)]
pub struct Quotas {
    /// Settles shared limits.
    settler: Option<Settler>,
    figures: Option<StoreFigures>,
    kept: Option<Kept>,
    writer: Option<JoinHandle<()>>,
}

#[derive(Clone)]
struct Kept {
    store: Arc<Store>,
    buckets: Arc<Buckets>,
}

// === impl Quotas ===

impl Quotas {
    /// Takes over what was written last, before the first request. What cannot be read starts anew, and is told.
    pub fn restore(store: Option<&Arc<Store>>, gateway: &Gateway) {
        let Some(bytes) = store.filter(|_| gateway.has_quotas).and_then(|store| store.read_bytes(FILE, most(gateway))) else { return };
        let Some((written, dump)) = bytes.split_first_chunk::<HEAD>() else {
            return log::warn!("server.state: {FILE} is not used: too short");
        };
        let now = clock::now();
        // A clock that was set back meanwhile gives nothing back.
        let passed = now.unix_ms.saturating_sub(u64::from_le_bytes(*written)).saturating_mul(1_000_000);
        match gateway.buckets.restore_after(dump, now.mono, passed) {
            Ok(moved) => log::info!("quotas go on: {} counts from {FILE}", moved.kept),
            Err(e) => log::warn!("server.state: {FILE} is not used, quotas start anew: {e}"),
        }
    }

    /// Starts to write; what was started for an earlier snapshot ends.
    pub fn look_after(&mut self, store: Option<&Arc<Store>>, gateway: &Gateway) {
        self.stop();
        let Some(store) = store.filter(|_| gateway.has_quotas) else { return };
        let kept = Kept { store: store.clone(), buckets: gateway.buckets.clone() };
        self.kept = Some(kept.clone());
        self.writer = Some(tokio::spawn(async move {
            let mut last = 0;
            loop {
                tokio::time::sleep(EVERY).await;
                let kept = kept.clone();
                last = tokio::task::spawn_blocking(move || kept.write(last)).await.unwrap_or(0);
            }
        }));
    }

    /// Settles shared limits from now on, with the store that the snapshot names.
    pub fn share(&mut self, gateway: &Gateway) {
        let wanted = gateway.server.limits_store.as_ref();
        if self.settler.as_ref().map(|settler| &settler.store) == wanted {
            return;
        }
        self.settler = None;
        let Some(store) = wanted else { return };
        let figures = self.figures.get_or_insert_with(|| StoreFigures::register(&gateway.metrics)).clone();
        match Settler::start(store, gateway.buckets.clone(), figures) {
            Ok(settler) => self.settler = Some(settler),
            Err(why) => log::error!("{why}"),
        }
    }

    /// Writes no more: another process does.
    pub fn stop(&mut self) {
        self.kept = None;
        if let Some(writer) = self.writer.take() {
            writer.abort();
        }
    }

    /// Writes what was counted to the last.
    pub fn end(&mut self) {
        let kept = self.kept.take();
        self.stop();
        self.settler = None;
        if let Some(kept) = kept {
            kept.write(0);
        }
    }
}

// === impl Kept ===

impl Kept {
    /// Unless it is what was written last. Returns what tells one content from another.
    fn write(&self, last: u64) -> u64 {
        let now = clock::now();
        let charged = self.buckets.windows_charged();
        if last != 0 && last == charged {
            return last;
        }
        let mut bytes = now.unix_ms.to_le_bytes().to_vec();
        bytes.extend_from_slice(&self.buckets.dump_of(Whole::Long, now.mono));
        match self.store.replace(FILE, &bytes) {
            Ok(()) => charged,
            Err(e) => {
                log::warn!("server.state: {FILE} cannot be written: {e}");
                0
            }
        }
    }
}

/// No more can have been written for a table of this size; one that was larger starts anew.
fn most(gateway: &Gateway) -> u64 {
    gateway.server.limits_memory.saturating_mul(2).saturating_add(1 << 20)
}
