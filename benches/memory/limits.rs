//! Ten million callers, each counted once, in a table of the default 64 MiB: what the process takes, and whether the bound holds.
//!
//! `cargo run --release --example limiter-memory [KEYS] [RATE]`. Exits with 1 where the table outgrew its bound or the process grew by more.

use std::process::ExitCode;
use std::time::Instant;

use sluice::config::types::Rate;
use sluice::policy::buckets::{Asking, Buckets, identity};
use sluice::policy::limits::pace::Pace;

// The allocator of the gateway, by being linked.
use mimalloc as _;

const BOUND: u64 = 64 << 20;
/// What the process may take beside the table.
const BESIDE: u64 = 8 << 20;

fn main() -> ExitCode {
    // As the gateway does: a huge page for each place that is touched would make all of the table resident at once.
    let _ = rustix::thread::disable_transparent_huge_pages(true);
    let mut args = std::env::args().skip(1);
    let keys: u64 = args.next().and_then(|count| count.parse().ok()).unwrap_or(10_000_000);
    let written = args.next().unwrap_or_else(|| "100/m".to_owned());
    let rate = Rate::parse(&written).expect("a rate");
    let pace = Pace::new(rate, rate.count).expect("a pace");
    let limit = identity("limit", "browse", None);
    let before = resident();
    let buckets = Buckets::new(BOUND);
    println!("{} KiB resident; with an empty table {} KiB", before >> 10, resident() >> 10);
    let start = Instant::now();
    for caller in 0..keys {
        // All in the same second: the worst case, in which no bucket comes to rest.
        let asking = Asking {
            identity: limit,
            key: buckets.key(limit, 3, &[&caller.to_le_bytes()]),
            pace: &pace,
            bounds: Default::default(),
            patience: 0,
        };
        buckets.charge(caller, &[asking]);
    }
    let took = start.elapsed();
    let (figures, after) = (buckets.figures(), resident());
    println!(
        "{keys} callers at {written}: table of {} KiB, {} of {} slots in use, {} evicted, {} requests in the overflow bucket; \
         {} KiB resident, {:.0} ns a charge",
        figures.bytes >> 10,
        figures.in_use,
        figures.capacity,
        figures.evicted,
        figures.overflowed,
        after >> 10,
        took.as_nanos() as f64 / keys as f64,
    );
    let within = figures.bytes <= BOUND && after <= before + BOUND + BESIDE;
    if within { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

/// Bytes of memory that the process has.
fn resident() -> u64 {
    let statm = std::fs::read_to_string("/proc/self/statm").expect("procfs");
    let pages: u64 = statm.split_whitespace().nth(1).and_then(|pages| pages.parse().ok()).expect("a number of pages");
    pages * rustix::param::page_size() as u64
}
