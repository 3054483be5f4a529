//! Looks at the memory of the process again and again, for whoever refuses requests by it. Never on a request's way.
//!
//! Decides nothing: see `policy/overload.rs`.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Duration;

use arc_swap::ArcSwap;

use crate::config::plan::Gateway;

/// Short enough that a burst of bodies cannot go far beyond the bound meanwhile; a look takes some microseconds.
const EVERY: Duration = Duration::from_millis(250);

/// For as long as the process runs; where no configuration asks for it, nothing is read.
pub async fn watch(gateway: Arc<ArcSwap<Gateway>>, resident: Arc<AtomicU64>) {
    let page = rustix::param::page_size() as u64;
    let mut ticks = tokio::time::interval(EVERY);
    ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        ticks.tick().await;
        if gateway.load().overload.as_ref().is_none_or(|overload| overload.memory.is_none()) {
            continue;
        }
        let statm = std::fs::read_to_string("/proc/self/statm").unwrap_or_default();
        match statm.split_ascii_whitespace().nth(1).and_then(|pages| pages.parse::<u64>().ok()) {
            Some(pages) => resident.store(pages.saturating_mul(page), Relaxed),
            // Nobody is refused by what is not known.
            None => resident.store(0, Relaxed),
        }
    }
}
