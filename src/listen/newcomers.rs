//! Decides whether an address (v6 by /64) opens connections faster than it may.
//!
//! A table of fixed size: two rows of times, and an address has a place in each, by a seeded hash. It is let in where either of its
//! places has room, so a crowd that fills one place by chance does not shut out who happens to share it. Forgets nothing too early
//! and never grows. Does not count what is open: see `caps.rs`. Kept by the process only; a new one counts from nothing.

use std::hash::{BuildHasher, RandomState};
use std::net::IpAddr;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use super::caps::key;
use crate::config::types::Rate;

/// The addresses that have opened connections on one listener.
#[derive(Debug, Default)]
pub struct Newcomers {
    /// Made with the first connection.
    table: OnceLock<Table>,
}

/// For each place the moment (as of `Now::mono`) at which everything that was let in has been worked off.
#[derive(Debug)]
struct Table {
    seed: RandomState,
    rows: [Box<[AtomicU64]>; 2],
}

/// Places in a row; 64 KiB.
const PLACES: usize = 8 << 10;

// === impl Newcomers ===

impl Newcomers {
    /// Whether a connection that comes at `now` is within `rate`: so many at once, and then as they are worked off. Only who is let
    /// in is counted.
    pub fn admit(&self, address: IpAddr, rate: Rate, now: u64) -> bool {
        let per = u64::try_from(rate.per.as_nanos()).unwrap_or(u64::MAX);
        let cost = per / u64::from(rate.count.max(1));
        let table = self.table.get_or_init(Table::new);
        let hash = table.seed.hash_one(key(address));
        let at = [hash as usize % PLACES, (hash >> 32) as usize % PLACES];
        let [one, two] = [&table.rows[0][at[0]], &table.rows[1][at[1]]];
        // Counted from 1, so that an empty place is always in the past.
        let now = now.saturating_add(1);
        let due = one.load(Relaxed).min(two.load(Relaxed)).max(now).saturating_add(cost);
        if due - now > per {
            return false;
        }
        // Two threads at the same moment may count one connection for two; a crowd cannot make more of it than there are threads.
        one.fetch_max(due, Relaxed);
        two.fetch_max(due, Relaxed);
        true
    }
}

// === impl Table ===

impl Table {
    fn new() -> Self {
        let row = || (0..PLACES).map(|_| AtomicU64::new(0)).collect();
        Table { seed: RandomState::new(), rows: [row(), row()] }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: u64 = 1_000_000_000;

    fn ip(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    #[test]
    fn an_address_has_its_burst_and_then_its_rate() {
        let newcomers = Newcomers::default();
        let rate = Rate::parse("10/s").unwrap();
        let admitted = |from: &str, now, of: usize| (0..of).filter(|_| newcomers.admit(ip(from), rate, now)).count();
        assert_eq!(admitted("10.0.0.1", 0, 15), 10);
        assert_eq!(admitted("::ffff:10.0.0.1", SECOND / 10, 5), 1, "the same address in v6 clothes");
        assert_eq!(admitted("10.0.0.2", SECOND / 10, 15), 10, "another address");
        assert_eq!(admitted("10.0.0.1", SECOND / 2, 15), 4);
        assert_eq!(admitted("10.0.0.1", 5 * SECOND, 15), 10, "no more than the burst is saved up");
        assert_eq!(admitted("2001:db8::1", 0, 8) + admitted("2001:db8::2", 0, 8), 10, "one /64");
    }

    #[test]
    fn a_crowd_shuts_nobody_else_out() {
        let newcomers = Newcomers::default();
        let rate = Rate::parse("100/s").unwrap();
        // As many addresses as there are places, a fifth of the rate each.
        for n in 0..8192u32 {
            for _ in 0..20 {
                newcomers.admit(IpAddr::from((n | 0x0b00_0000).to_be_bytes()), rate, SECOND);
            }
        }
        let refused = (0..1000u32).filter(|n| !newcomers.admit(IpAddr::from((n | 0x0c00_0000).to_be_bytes()), rate, SECOND)).count();
        assert_eq!(refused, 0);
    }
}
