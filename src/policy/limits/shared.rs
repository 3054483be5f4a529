//! Limits that several gateways share over a store, without asking it on the way of a request.
//!
//! A gateway knows of each caller how many requests were left when it last settled, and what has come back since. Until it settles again it
//! admits its part of that: so all together admit what there is, rounded up by one each. What it admitted is settled in the background,
//! whether it fits or not: what was too much is missing later. Who is new is taken to have all, and who was not settled for a while what was
//! left then, so that there can be up to one part too many.
//!
//! Where the store does not answer there is no verdict here: the limit goes on with a bucket of its own, of its part of the rate. Nothing in
//! this file waits or knows the store: who settles is `server/limits_store.rs`.

use std::collections::HashMap;
use std::hash::BuildHasherDefault;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering::Relaxed};

use parking_lot::Mutex;

use super::pace::{Kind, Pace, Reading};
use super::places::Hashed;
use super::window::Bounds;
use crate::policy::buckets::{Asking, Verdict};

const SHARDS: usize = 16;
/// So many callers are known at once; others are counted by this gateway alone.
const MOST: usize = 1 << 20;
const SECOND: f64 = 1e9;

/// What is known of the callers of shared limits. One for the process; outlives snapshots.
#[derive(Debug)]
pub struct Shared {
    is_up: AtomicBool,
    gateways: AtomicU32,
    seed: [AtomicU64; 2],
    shards: [Mutex<Accounts>; SHARDS],
    /// The paces of this gateway's part, by that of all and how many parts there are.
    parts: Mutex<HashMap<(u16, u32), Pace>>,
}

#[derive(Debug, Default)]
struct Accounts {
    known: HashMap<u128, Account, BuildHasherDefault<Hashed>>,
    /// Those with something to settle.
    dirty: Vec<u128>,
}

#[derive(Debug)]
struct Account {
    pace: Pace,
    /// Of windows.
    bounds: Bounds,
    /// Requests left in all, at a moment. Less than none where too many were admitted.
    left: f64,
    at: u64,
    /// Admitted and not settled, and being settled.
    owed: u32,
    sent: u32,
    is_dirty: bool,
}

/// What one caller has to settle.
#[derive(Clone, Copy, Debug)]
pub struct Due {
    pub key: u128,
    pub pace: Pace,
    pub bounds: Bounds,
    pub owed: u32,
}

impl Default for Shared {
    fn default() -> Self {
        Shared {
            is_up: AtomicBool::new(false),
            gateways: AtomicU32::new(1),
            seed: Default::default(),
            shards: Default::default(),
            parts: Mutex::default(),
        }
    }
}

// === impl Shared ===

impl Shared {
    /// Whether the store answers. Where it does not, what is known of callers is forgotten, and settled with nobody.
    pub fn set_up(&self, is_up: bool) {
        if !is_up {
            self.is_up.store(false, Relaxed);
            self.shards.iter().for_each(|shard| *shard.lock() = Accounts::default());
        }
        self.is_up.store(is_up, Relaxed);
    }

    pub fn is_up(&self) -> bool {
        self.is_up.load(Relaxed)
    }

    /// How many gateways share the limits, as was last known.
    pub fn set_gateways(&self, gateways: u32) {
        self.gateways.store(gateways.max(1), Relaxed);
    }

    /// Under which callers are hashed, by all gateways.
    pub fn seed(&self) -> [u64; 2] {
        [self.seed[0].load(Relaxed), self.seed[1].load(Relaxed)]
    }

    /// While the store is not up.
    pub fn set_seed(&self, seed: [u64; 2]) {
        self.seed.iter().zip(seed).for_each(|(half, value)| half.store(value, Relaxed));
    }

    pub fn gateways(&self) -> u32 {
        self.gateways.load(Relaxed)
    }

    fn shard(&self, key: u128) -> &Mutex<Accounts> {
        &self.shards[(key >> 96) as usize % SHARDS]
    }

    /// Judges one request and takes what it needs. None where this gateway is to count alone.
    pub fn take(&self, now: u64, asking: &Asking<'_>) -> Option<Verdict> {
        if !self.is_up() {
            return None;
        }
        let gateways = f64::from(self.gateways.load(Relaxed));
        let mut shard = self.shard(asking.key).lock();
        let Accounts { known, dirty } = &mut *shard;
        if known.len() >= MOST / SHARDS && !known.contains_key(&asking.key) {
            known.retain(|_, account| !account.is_at_rest(now));
            if known.len() >= MOST / SHARDS {
                return None;
            }
        }
        let account = known.entry(asking.key).or_insert_with(|| Account::new(asking, now));
        account.turn(asking, now);
        let part = (account.left(now) / gateways).ceil();
        let fits = part - f64::from(account.owed) - f64::from(account.sent) >= 1.0;
        if fits {
            account.owed += 1;
            if !std::mem::replace(&mut account.is_dirty, true) {
                dirty.push(asking.key);
            }
        }
        Some(account.verdict(fits, now))
    }

    /// Gives back what [`take`](Shared::take) took: another limit has refused.
    pub fn give_back(&self, key: u128) {
        if let Some(account) = self.shard(key).lock().known.get_mut(&key) {
            account.owed = account.owed.saturating_sub(1);
        }
    }

    /// What is to be settled now. It counts as owed until [`settled`](Shared::settled).
    pub fn due(&self) -> Vec<Due> {
        let mut all = Vec::new();
        for shard in &self.shards {
            let Accounts { known, dirty } = &mut *shard.lock();
            for key in dirty.drain(..) {
                let Some(account) = known.get_mut(&key) else { continue };
                account.is_dirty = false;
                account.sent += std::mem::take(&mut account.owed);
                all.push(Due { key, pace: account.pace, bounds: account.bounds, owed: account.sent });
            }
        }
        all
    }

    /// The store has said how many are left.
    pub fn settled(&self, due: &Due, left: f64, now: u64) {
        if let Some(account) = self.shard(due.key).lock().known.get_mut(&due.key)
            && account.pace == due.pace
            && account.bounds.end == due.bounds.end
        {
            account.sent = account.sent.saturating_sub(due.owed);
            (account.left, account.at) = (left, now);
        }
    }

    /// This gateway's part of a limit, while it counts alone.
    pub fn part(&self, pace: &Pace) -> Pace {
        let gateways = self.gateways.load(Relaxed);
        if gateways == 1 {
            return *pace;
        }
        *self.parts.lock().entry((pace.id(), gateways)).or_insert_with(|| pace.part(gateways).unwrap_or(*pace))
    }
}

// === impl Account ===

impl Account {
    fn new(asking: &Asking<'_>, now: u64) -> Account {
        let left = f64::from(asking.pace.size());
        Account { pace: *asking.pace, bounds: asking.bounds, left, at: now, owed: 0, sent: 0, is_dirty: false }
    }

    /// A limit that was changed, or another window, begins anew: the store knows better a moment later.
    fn turn(&mut self, asking: &Asking<'_>, now: u64) {
        let is_other = self.bounds.end.abs_diff(asking.bounds.end) > asking.bounds.length / 2;
        if self.pace != *asking.pace || is_other {
            *self = Account { is_dirty: self.is_dirty, ..Account::new(asking, now) };
        }
    }

    /// Tokens that come back in a nanosecond; none to a window.
    fn rate(&self) -> f64 {
        match self.pace.kind() {
            Kind::Bucket => f64::from(self.pace.count()) / self.pace.per() as f64,
            Kind::Fixed | Kind::Sliding => 0.0,
        }
    }

    fn left(&self, now: u64) -> f64 {
        (self.left + now.saturating_sub(self.at) as f64 * self.rate()).min(f64::from(self.pace.size()))
    }

    fn is_at_rest(&self, now: u64) -> bool {
        let is_over = match self.pace.kind() {
            Kind::Bucket => self.left(now) >= f64::from(self.pace.size()),
            Kind::Fixed | Kind::Sliding => self.bounds.end <= now,
        };
        is_over && self.owed == 0 && self.sent == 0
    }

    fn verdict(&self, fits: bool, now: u64) -> Verdict {
        let left = self.left(now) - f64::from(self.owed) - f64::from(self.sent);
        let used = (f64::from(self.pace.size()) - left).max(0.0);
        let seconds = |tokens: f64| (tokens / self.rate() / SECOND).ceil() as u64;
        let rest = self.bounds.end.saturating_sub(now).div_ceil(SECOND as u64);
        let (reset, next, wait) = match self.pace.kind() {
            Kind::Bucket => (seconds(used), if used > 0.0 { seconds(1.0) } else { 0 }, seconds((1.0 - left).max(0.0)).max(1)),
            Kind::Fixed | Kind::Sliding => (rest, rest, if left >= 1.0 { 1 } else { rest.max(1) }),
        };
        let reading = Reading { remaining: left.max(0.0) as u32, reset, next };
        Verdict { reading, retry_after: if fits { 0 } else { wait }, wait: 0, is_overflow: false }
    }
}

#[cfg(test)]
mod tests {
    use super::super::pace::tests::pace;
    use super::*;

    const MS: u64 = 1_000_000;

    /// What the store does: a bucket for all.
    struct Store {
        tat: f64,
    }

    impl Store {
        fn settle(&mut self, gateway: &Shared, now: u64) {
            for due in gateway.due() {
                let step = due.pace.per() as f64 / f64::from(due.pace.count());
                self.tat = self.tat.max(now as f64) + f64::from(due.owed) * step;
                let full = step * f64::from(due.pace.size());
                gateway.settled(&due, (full - (self.tat - now as f64)) / step, now);
            }
        }
    }

    fn gateways(count: u32) -> Vec<Shared> {
        let all: Vec<_> = (0..count).map(|_| Shared::default()).collect();
        all.iter().for_each(|one| (one.set_up(true), one.set_gateways(count)).0);
        all
    }

    #[test]
    fn three_gateways_admit_together_what_one_would_and_never_much_more_at_any_moment() {
        // However the requests are spread: evenly, nearly all at one gateway, or changing.
        for spread in [[1, 1, 1], [30, 1, 1], [0, 1, 0]] {
            let (pace, all, mut store) = (pace("1000/s", 1000), gateways(3), Store { tat: 0.0 });
            let mut admitted = 0u64;
            for ms in 0..10_000u64 {
                for (at, gateway) in all.iter().enumerate() {
                    for _ in 0..spread[(at + (ms / 3_000) as usize) % 3] {
                        let asking = Asking { identity: 1, key: 7, pace: &pace, bounds: Bounds::default(), patience: 0 };
                        admitted += u64::from(gateway.take(ms * MS, &asking).unwrap().retry_after == 0);
                    }
                    // Each settles every 20 ms, at another moment than the others.
                    if ms % 20 == 7 * at as u64 {
                        store.settle(gateway, ms * MS);
                    }
                }
                let exact = 1_000 + ms;
                assert!(admitted <= exact + 1_000 / 20, "{spread:?} at {ms} ms: {admitted} of {exact}");
            }
            // As many as asked, or as there were.
            let asked = 10_000 * spread.iter().sum::<u64>();
            let expected = asked.min(11_000) as f64;
            assert!((admitted as f64 / expected - 1.0).abs() < 0.02, "{spread:?}: {admitted} of {expected}");
        }
    }

    #[test]
    fn where_the_store_is_gone_each_counts_its_part_alone() {
        let gateway = &gateways(4)[0];
        gateway.set_up(false);
        let pace = pace("100/m", 100);
        assert!(gateway.take(0, &Asking { identity: 1, key: 7, pace: &pace, bounds: Bounds::default(), patience: 0 }).is_none());
        let part = gateway.part(&pace);
        assert_eq!((part.size(), part.window()), (25, 60));
        let window = Pace::of_windows(Kind::Fixed, 10, std::time::Duration::from_secs(3600)).unwrap();
        assert_eq!(gateway.part(&window).size(), 2);
    }

    #[test]
    fn nothing_on_the_way_of_a_request_waits_for_the_store() {
        for (name, text) in [("shared.rs", include_str!("shared.rs")), ("rate_limit.rs", include_str!("../rate_limit.rs"))] {
            let code = text.split("#[cfg(test)]").next().unwrap();
            for word in ["async ", ".await", "redis", "block_on", "recv("] {
                assert!(!code.lines().any(|line| !line.trim_start().starts_with("//") && line.contains(word)), "{name}: {word}");
            }
        }
    }
}
