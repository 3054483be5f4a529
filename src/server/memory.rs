//! Looks at the memory of the process again and again, for whoever refuses requests by it. Never on a request's way.
//!
//! Decides nothing: see `policy/pressure.rs`.

use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;

use crate::config::plan::Gateway;
use crate::config::types::Size;
use crate::policy::pressure::{Pressure, Turn};

/// Short enough that a burst of bodies cannot go far beyond the bound meanwhile; a look takes some microseconds.
const EVERY: Duration = Duration::from_millis(250);

/// For as long as the process runs; where no configuration asks for it, nothing is read.
pub async fn watch(gateway: Arc<ArcSwap<Gateway>>, pressure: Arc<Pressure>) {
    let mut ticks = tokio::time::interval(EVERY);
    ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        ticks.tick().await;
        let gateway = gateway.load();
        let most = gateway.overload.as_ref().and_then(|overload| overload.memory);
        let resident = if most.is_some() { resident() } else { 0 };
        match pressure.look(resident, most, gateway.in_flight()) {
            Some(Turn::Over(count)) => {
                let most = Size(most.unwrap_or(0));
                log::warn!("overload: {resident} bytes of memory are used, more than {most}: {count} requests at once are let in");
            }
            Some(Turn::Room) => log::info!("overload: the memory is within its bound again"),
            None => {}
        }
    }
}

/// Bytes; nought where it cannot be read: nobody is refused by what is not known.
fn resident() -> u64 {
    let statm = std::fs::read_to_string("/proc/self/statm").unwrap_or_default();
    let pages: u64 = statm.split_ascii_whitespace().nth(1).and_then(|pages| pages.parse().ok()).unwrap_or_default();
    // Asked for here, not at the start: under valgrind, where instructions are counted, the question itself ends the process.
    pages.saturating_mul(rustix::param::page_size() as u64)
}
