//! Limits that several gateways share over a store, without asking it on the way of a request.
//!
//! A gateway knows of each caller how many requests were left when it last settled, and what has come back since. Until it settles again it
//! admits its part of that: so all together admit what there is, rounded up by one each. What it admitted is settled in the background,
//! whether it fits or not: what was too much is missing later. Who is new is taken to have all, and who was not settled for a while what was
//! left then, so that there can be up to one part too many.
//!
//! Where the store does not answer, the gateway goes on with its part of what it knows to be left, and takes it that the others do the same:
//! each request costs as many tokens as there are gateways. What windows counted meanwhile is settled when the store is back. Nothing in this
//! file waits or knows the store: who settles is `server/limits_store.rs`.

use std::collections::HashMap;
use std::hash::BuildHasherDefault;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, AtomicU32, AtomicU64, Ordering::Relaxed};

use arc_swap::ArcSwap;
use parking_lot::Mutex;

use super::account::Account;
use super::pace::{Pace, Reading};
use super::places::Hashed;
use super::window::Bounds;
use crate::ctx::Now;
use crate::policy::buckets::{Asking, Verdict};

/// Milliseconds between two settlements.
pub const SETTLED_EVERY: u64 = 20;
const SHARDS: usize = 16;
/// Of windows that have ended, so many are settled late; while the store is gone there may be more.
const MOST_LATE: usize = 4096;
const SECOND: u64 = 1_000_000_000;
/// So many callers are known at once; others are counted by this gateway alone.
const MOST: usize = 1 << 20;
/// Clocks that differ by less are taken to be the same, so that windows do not jump about.
const SAME_MS: u64 = 20;

/// What is known of the callers of shared limits. One for the process; outlives snapshots.
#[derive(Debug)]
pub struct Shared {
    /// How often the store has come and gone: odd while it answers.
    turns: AtomicU32,
    gateways: AtomicU32,
    /// What the store's clock is ahead of ours, in milliseconds: windows are the store's.
    ahead: AtomicI64,
    seed: [AtomicU64; 2],
    shards: [Mutex<Accounts>; SHARDS],
    /// The paces of this gateway's part, by that of all and how many parts there are.
    parts: Mutex<HashMap<(u16, u32), Pace>>,
    last: ArcSwap<Turn>,
}

/// When the store has come or gone last, in milliseconds since 1970, and why it is not there.
#[derive(Clone, Debug, Default)]
pub struct Turn {
    pub at: u64,
    pub trouble: Option<String>,
}

#[derive(Debug, Default)]
struct Accounts {
    known: HashMap<u128, Account, BuildHasherDefault<Hashed>>,
    /// Those with something to settle.
    dirty: Vec<u128>,
    /// What was counted in windows that have ended since.
    late: Vec<Due>,
    /// When those at rest were looked for last.
    swept: u64,
}

/// What one caller has to settle. Less than nothing where something was given back.
#[derive(Clone, Copy, Debug)]
pub struct Due {
    pub key: u128,
    pub pace: Pace,
    pub bounds: Bounds,
    pub owed: i64,
}

/// What the store says of one caller.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Said {
    /// Tokens left.
    Bucket(f64),
    /// Requests in this window and, of sliding ones, in the one before.
    Window(f64, f64),
}

impl Default for Shared {
    fn default() -> Self {
        Shared {
            turns: AtomicU32::new(0),
            gateways: AtomicU32::new(1),
            ahead: AtomicI64::new(0),
            seed: Default::default(),
            shards: Default::default(),
            parts: Mutex::default(),
            last: ArcSwap::default(),
        }
    }
}

/// How exact a shared limit of this size is, for people.
pub fn exactness(size: u32) -> String {
    format!(
        "shared: a gateway admits its part of what is left, settled every {SETTLED_EVERY} ms; at a moment at most {size} / gateways and one a gateway too many"
    )
}

// === impl Shared ===

impl Shared {
    /// Whether the store answers.
    pub fn set_up(&self, is_up: bool) {
        let _ = self.turns.fetch_update(Relaxed, Relaxed, |turns| (is_turned_up(turns) != is_up).then_some(turns.wrapping_add(1)));
    }

    /// For those who look at it.
    pub fn note(&self, at: u64, trouble: Option<String>) {
        self.last.store(Arc::new(Turn { at, trouble }));
    }

    pub fn last_turn(&self) -> Arc<Turn> {
        self.last.load_full()
    }

    pub fn is_up(&self) -> bool {
        is_turned_up(self.turns.load(Relaxed))
    }

    /// How many gateways share the limits, as was last known.
    pub fn set_gateways(&self, gateways: u32) {
        self.gateways.store(gateways.max(1), Relaxed);
    }

    pub fn gateways(&self) -> u32 {
        self.gateways.load(Relaxed)
    }

    /// Under which callers are hashed, by all gateways.
    pub fn seed(&self) -> [u64; 2] {
        [self.seed[0].load(Relaxed), self.seed[1].load(Relaxed)]
    }

    /// While the store is not up. Under another seed nobody is known.
    pub fn set_seed(&self, seed: [u64; 2]) {
        if self.seed() != seed {
            self.shards.iter().for_each(|shard| *shard.lock() = Accounts::default());
        }
        self.seed.iter().zip(seed).for_each(|(half, value)| half.store(value, Relaxed));
    }

    /// What the store's clock says, at a moment on ours.
    pub fn set_clock(&self, store_ms: u64, our_ms: u64) {
        let ahead = (store_ms as i64).saturating_sub(our_ms as i64);
        if ahead.abs_diff(self.ahead.load(Relaxed)) > SAME_MS {
            self.ahead.store(ahead, Relaxed);
        }
    }

    /// A moment with the store's time of day, which is the same at all gateways.
    pub fn now(&self, now: Now) -> Now {
        Now { unix_ms: now.unix_ms.saturating_add_signed(self.ahead.load(Relaxed)), ..now }
    }

    fn shard(&self, key: u128) -> &Mutex<Accounts> {
        &self.shards[(key >> 96) as usize % SHARDS]
    }

    /// Takes what nearly all requests need: of a caller who is known, while the store answers, from this gateway's part. None: nothing was
    /// taken, and it is for [`take`](Shared::take) to judge.
    #[inline]
    pub fn take_at_once(&self, now: u64, key: u128, pace: &Pace, bounds: Bounds) -> Option<Reading> {
        let (turns, gateways) = (self.turns.load(Relaxed), f64::from(self.gateways.load(Relaxed)));
        let mut shard = self.shard(key).lock();
        let Accounts { known, dirty, late: _, swept: _ } = &mut *shard;
        let account = known.get_mut(&key)?;
        let reading = account.take_at_once(turns, pace, bounds, gateways, now)?;
        if !account.is_dirty {
            account.is_dirty = true;
            dirty.push(key);
        }
        Some(reading)
    }

    /// Judges one request and takes what it needs. None where there are too many callers to know this one.
    pub fn take(&self, now: u64, asking: &Asking<'_>) -> Option<Verdict> {
        let (turns, gateways) = (self.turns.load(Relaxed), f64::from(self.gateways.load(Relaxed)));
        let mut shard = self.shard(asking.key).lock();
        let Accounts { known, dirty, late, swept } = &mut *shard;
        if known.len() >= MOST / SHARDS && !known.contains_key(&asking.key) {
            // Once a second: it takes as long as a look at all.
            if now.saturating_sub(*swept) >= SECOND {
                *swept = now;
                known.retain(|_, account| !account.is_at_rest(now));
                dirty.retain(|key| known.contains_key(key));
            }
            if known.len() >= MOST / SHARDS {
                return None;
            }
        }
        let account = known.entry(asking.key).or_insert_with(|| Account::new(asking, now, turns));
        account.follow(turns, gateways, now);
        if let Some(due) = account.turn(asking, now).filter(|_| late.len() < MOST_LATE) {
            late.push(due);
        }
        let verdict = account.take(asking.patience, gateways, now);
        if verdict.retry_after == 0 && !std::mem::replace(&mut account.is_dirty, true) {
            dirty.push(asking.key);
        }
        Some(verdict)
    }

    /// Gives back what [`take`](Shared::take) took: another limit has refused, or who waited has left.
    pub fn give_back(&self, key: u128) {
        let (turns, gateways) = (self.turns.load(Relaxed), f64::from(self.gateways.load(Relaxed)));
        let Accounts { known, dirty, late: _, swept: _ } = &mut *self.shard(key).lock();
        if let Some(account) = known.get_mut(&key)
            && account.give_back(is_turned_up(turns), gateways)
            && !std::mem::replace(&mut account.is_dirty, true)
        {
            dirty.push(key);
        }
    }

    /// What is to be settled now, while the store is up. It counts as owed until [`settled`](Shared::settled).
    pub fn due(&self, now: u64) -> Vec<Due> {
        let (turns, gateways) = (self.turns.load(Relaxed), f64::from(self.gateways.load(Relaxed)));
        let mut all = Vec::new();
        for shard in &self.shards {
            let Accounts { known, dirty, late, swept: _ } = &mut *shard.lock();
            all.append(late);
            for key in dirty.drain(..) {
                let Some(account) = known.get_mut(&key) else { continue };
                account.follow(turns, gateways, now);
                all.push(Due { key, pace: account.pace, bounds: account.bounds, owed: account.send() });
            }
        }
        all
    }

    /// The store has answered.
    pub fn settled(&self, due: &Due, said: Said, now: u64) {
        if let Some(account) = self.shard(due.key).lock().known.get_mut(&due.key)
            && account.pace == due.pace
            && account.bounds.end == due.bounds.end
        {
            account.settled(due.owed, said, now);
        }
    }

    /// This gateway's part of a limit, of a caller whom it counts alone.
    pub fn part(&self, pace: &Pace) -> Pace {
        let gateways = self.gateways.load(Relaxed);
        if gateways == 1 {
            return *pace;
        }
        *self.parts.lock().entry((pace.id(), gateways)).or_insert_with(|| pace.part(gateways).unwrap_or(*pace))
    }
}

#[inline]
pub(super) fn is_turned_up(turns: u32) -> bool {
    turns % 2 == 1
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::super::pace::Kind;
    use super::super::pace::tests::pace;
    use super::*;

    const MS: u64 = 1_000_000;

    /// What the store does: a bucket or windows for all.
    #[derive(Default)]
    struct Store {
        tat: f64,
        windows: HashMap<u64, i64>,
    }

    impl Store {
        fn settle(&mut self, gateway: &Shared, now: u64) {
            for due in gateway.due(now) {
                let said = match due.pace.kind() {
                    Kind::Bucket => {
                        let step = due.pace.per() as f64 / f64::from(due.pace.count());
                        self.tat = self.tat.max(now as f64) + due.owed as f64 * step;
                        let full = step * f64::from(due.pace.size());
                        Said::Bucket((full - (self.tat - now as f64)) / step)
                    }
                    Kind::Fixed | Kind::Sliding => {
                        let window = due.bounds.end / due.bounds.length;
                        *self.windows.entry(window).or_default() += due.owed;
                        let of = |window| self.windows.get(&window).copied().unwrap_or_default() as f64;
                        Said::Window(of(window), if due.pace.kind() == Kind::Sliding { of(window - 1) } else { 0.0 })
                    }
                };
                gateway.settled(&due, said, now);
            }
        }
    }

    fn gateways(count: u32) -> Vec<Shared> {
        let all: Vec<_> = (0..count).map(|_| Shared::default()).collect();
        all.iter().for_each(|one| (one.set_up(true), one.set_gateways(count)).0);
        all
    }

    fn asking(pace: &Pace, now: u64, patience: u64) -> Asking<'_> {
        let length = pace.per();
        let bounds = match pace.kind() {
            Kind::Bucket => Bounds::default(),
            Kind::Fixed | Kind::Sliding => Bounds { end: (now / length + 1) * length, length },
        };
        Asking { identity: 1, key: 7, pace, bounds, patience }
    }

    fn takes(gateway: &Shared, pace: &Pace, now: u64) -> bool {
        gateway.take(now, &asking(pace, now, 0)).unwrap().retry_after == 0
    }

    fn all_of(gateway: &Shared, pace: &Pace, now: u64) -> usize {
        (0..10_000).take_while(|_| takes(gateway, pace, now)).count()
    }

    #[test]
    fn three_gateways_admit_together_what_one_would_and_never_much_more_at_any_moment() {
        // However the requests are spread: evenly, nearly all at one gateway, or changing.
        for spread in [[1, 1, 1], [30, 1, 1], [0, 1, 0]] {
            let (pace, all, mut store) = (pace("1000/s", 1000), gateways(3), Store::default());
            let mut admitted = 0u64;
            for ms in 0..10_000u64 {
                for (at, gateway) in all.iter().enumerate() {
                    for _ in 0..spread[(at + (ms / 3_000) as usize) % 3] {
                        admitted += u64::from(takes(gateway, &pace, ms * MS));
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
    fn windows_of_a_second_hold_for_all_gateways_together() {
        // What comes within a settlement or two may be too many: here that is 60 in 20 ms.
        for (kind, most_in_any_second) in [(Kind::Fixed, 2 * 330), (Kind::Sliding, 360)] {
            let pace = Pace::of_windows(kind, 300, Duration::from_secs(1)).unwrap();
            let (all, mut store) = (gateways(3), Store::default());
            let mut admitted = [0u64; 10_000];
            for ms in 0..10_000u64 {
                for (at, gateway) in all.iter().enumerate() {
                    admitted[ms as usize] += u64::from(takes(gateway, &pace, ms * MS));
                    if ms % 20 == 7 * at as u64 {
                        store.settle(gateway, ms * MS);
                    }
                }
            }
            let total: u64 = admitted.iter().sum();
            assert!((2_900..3_300).contains(&total), "{kind:?}: {total}");
            for window in admitted.chunks(1_000) {
                let within: u64 = window.iter().sum();
                assert!(kind == Kind::Sliding || (300..=330).contains(&within), "{kind:?}: {within} in a window");
            }
            let worst = admitted.windows(1_000).map(|second| second.iter().sum::<u64>()).max().unwrap();
            assert!(worst <= most_in_any_second, "{kind:?}: {worst} in some second");
        }
    }

    #[test]
    fn where_the_store_is_gone_each_goes_on_with_its_part_of_what_it_knew_to_be_left() {
        let all = gateways(4);
        let (rate, mut store) = (pace("100/m", 100), Store::default());
        // One gateway knows that 20 are left, and the others nothing yet.
        for round in 0..200 {
            takes(&all[0], &rate, 0);
            if round % 3 == 0 && store.tat < 80.0 * 0.6e9 {
                store.settle(&all[0], 0);
            }
        }
        let knows = 100 - (store.tat / 0.6e9).round() as usize;
        all.iter().for_each(|gateway| gateway.set_up(false));
        assert_eq!(all[1].gateways(), 4);
        assert_eq!(all_of(&all[1], &rate, 0), 25, "a part of all");
        assert!(all_of(&all[0], &rate, 0) <= knows.div_ceil(4), "a part of what was left: {knows}");
        // A quarter of the rate comes back to each.
        assert_eq!(all_of(&all[1], &rate, 24_000 * MS), 10);
    }

    #[test]
    fn what_a_quota_counted_while_the_store_was_gone_is_settled_when_it_is_back() {
        let (gateway, mut store) = (&gateways(2)[0], Store::default());
        let quota = Pace::of_windows(Kind::Fixed, 100, Duration::from_secs(3600)).unwrap();
        assert!((0..10).all(|_| takes(gateway, &quota, 0)));
        store.settle(gateway, 0);
        gateway.set_up(false);
        assert_eq!(all_of(gateway, &quota, MS), 45, "half of the 90 that were left");
        gateway.set_up(true);
        store.settle(gateway, 2 * MS);
        assert_eq!(store.windows.values().sum::<i64>(), 55);
        assert_eq!(all_of(gateway, &quota, 2 * MS), 23, "half of the 45");
    }

    #[test]
    fn what_could_not_be_settled_before_the_store_was_gone_is_settled_once() {
        let (gateway, mut store) = (&gateways(1)[0], Store::default());
        let quota = Pace::of_windows(Kind::Fixed, 100, Duration::from_secs(3600)).unwrap();
        assert!((0..10).all(|_| takes(gateway, &quota, 0)));
        // On its way when the store goes: it may have been counted.
        assert_eq!(gateway.due(0)[0].owed, 10);
        assert!((0..5).all(|_| takes(gateway, &quota, 0)));
        gateway.set_up(false);
        gateway.set_up(true);
        store.settle(gateway, 0);
        assert_eq!(store.windows.values().sum::<i64>(), 5);
    }

    #[test]
    fn who_may_wait_waits_for_a_token_of_all_gateways() {
        let (rate, all, mut store) = (pace("10/s", 1), gateways(2), Store::default());
        let second = 1_000 * MS;
        let wait = |gateway: &Shared, now| gateway.take(now, &asking(&rate, now, second)).map(|said| (said.retry_after, said.wait / MS));
        assert_eq!(wait(&all[0], 0), Some((0, 0)));
        store.settle(&all[0], 0);
        // The bucket is empty: the next two tokens come after 100 and 200 ms.
        assert_eq!(wait(&all[0], 0), Some((0, 100)));
        store.settle(&all[0], 0);
        assert_eq!(wait(&all[0], 0), Some((0, 200)));
        all[0].give_back(7);
        store.settle(&all[0], 0);
        assert_eq!(wait(&all[0], 0), Some((0, 200)), "who left has given his back");
        (0..20).for_each(|_| _ = (wait(&all[0], 0), store.settle(&all[0], 0)));
        assert!(matches!(wait(&all[0], 0), Some((1.., 0))), "too long");
    }

    #[test]
    fn windows_are_those_of_the_stores_clock() {
        let shared = Shared::default();
        let ours = Now { mono: 5, unix_ms: 1_000_000 };
        shared.set_clock(1_000_015, 1_000_000);
        assert_eq!(shared.now(ours), ours, "as good as the same");
        shared.set_clock(997_500, 1_000_000);
        assert_eq!(shared.now(ours), Now { mono: 5, unix_ms: 997_500 });
        shared.set_clock(997_510, 1_000_000);
        assert_eq!(shared.now(ours).unix_ms, 997_500);
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
