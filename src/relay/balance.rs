//! Decides which target a request gets: in turn, the less busy or the faster of two drawn by weight, any, or the one that has its key.
//!
//! Skips targets that are unhealthy or were tried already. Does not decide what is healthy (`health/`) nor whether there is
//! another attempt (`retry.rs`). Allocates nothing, and takes as long among a thousand targets as among two, but for round robin over
//! unequal weights.

mod draw;
pub mod hash_by;
pub mod latency;
pub(in crate::relay) mod maglev;

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};

use parking_lot::Mutex;

use self::draw::Draw;
use self::maglev::Maglev;
use super::address::Spot;
use super::pool::Pool;
use super::target::{Chosen, Target};
use super::upstream::Balance;
use crate::reply::problem::Kind;

/// Every target is out.
pub static NO_HEALTHY_TARGET: Kind = Kind {
    code: "no-healthy-target",
    status: 503,
    error: "Service unavailable",
    about: "Every address of the upstream's targets is out: its health checks fail, it is ejected or drained; or its name could not be resolved yet. See `/status`.",
};

/// How targets take turns; what changes in it is as short-lived as the snapshot.
#[derive(Debug)]
pub enum Picker {
    /// Round robin over equal weights: one counter.
    Even { cursor: AtomicUsize },
    /// Round robin over unequal weights: one step per target under a lock held for that long.
    Smooth { weights: Box<[u16]>, current: Mutex<Box<[i64]>> },
    /// Two draws, whatever the number of targets; the one with fewer requests for its weight.
    LessBusy { weights: Box<[u16]>, draw: Draw },
    /// Two draws; the one that is likely to answer sooner.
    Faster { weights: Box<[u16]>, draw: Draw },
    /// One draw.
    Any { draw: Draw },
    /// Where the request's key leads.
    Keyed { weights: Box<[u16]>, total: u64, draw: Draw, table: Maglev },
}

/// What a request's target is chosen by.
#[derive(Clone, Copy, Debug, Default)]
pub struct Wanted<'a> {
    /// Addresses at which this request has failed already.
    pub tried: &'a [Spot],
    /// What tells it apart from others, where the upstream goes by that.
    pub key: Option<u64>,
    /// Nanoseconds on the monotonic clock.
    pub now: u64,
}

/// Of what it would have if all were shared by weight, a target that has a key may have this much in flight, in percent. Mirrokni and
/// others, "Consistent Hashing with Bounded Loads", 2018.
const MOST: u64 = 125;
/// So many it may have all the same: where little goes on, a key stays where it is.
const FEW: u64 = 4;

/// Chooses a target for one attempt. `random` yields 64 random bits a call. None: no healthy target is left ([`NO_HEALTHY_TARGET`] if
/// nothing was tried).
pub fn choose(pool: &Pool, wanted: Wanted<'_>, random: impl FnMut() -> u64) -> Option<Chosen> {
    let set = pool.present();
    let targets = &*set.targets;
    let Wanted { tried, key, now } = wanted;
    let picked = match &set.picker {
        _ if targets.len() <= 1 => targets.first().map(|_| 0),
        Picker::Even { cursor } => pick_even(cursor, targets, tried),
        Picker::Smooth { weights, current } => pick_smooth(weights, &mut current.lock(), targets, tried),
        Picker::LessBusy { weights, draw } => {
            // Load per weight, without a division.
            let load = |mine: usize, other: usize| u64::from(targets[mine].in_flight()) * u64::from(weights[other]);
            pick_better(draw, targets, tried, load, random)
        }
        Picker::Faster { weights, draw } => {
            let cost = |mine: usize, other: usize| targets[mine].latency.cost(targets[mine].in_flight(), now) * f64::from(weights[other]);
            pick_better(draw, targets, tried, cost, random)
        }
        Picker::Any { draw } => pick_any(draw, targets, tried, None, random),
        Picker::Keyed { weights, total, draw, table } => match key {
            Some(key) => pick_keyed(table, key, targets, tried, |index| {
                // What all have in flight, and this request.
                let all = u64::from(pool.load.load(Relaxed)) + 1;
                let share = (all * u64::from(weights[index]) * MOST).div_ceil(total * 100).max(FEW);
                u64::from(targets[index].in_flight()) >= share
            }),
            None => pick_any(draw, targets, tried, None, random),
        },
    };
    // Its health may have changed since it was picked; then any other will do.
    targets[picked?].take(tried).or_else(|| targets.iter().find_map(|target| target.take(tried)))
}

/// The target that has a key while it works and is not overloaded; for `explain`.
pub fn owner(pool: &Pool, key: u64) -> Option<Arc<Target>> {
    let set = pool.present();
    match &set.picker {
        _ if set.targets.len() <= 1 => set.targets.first().cloned(),
        Picker::Keyed { table, .. } => set.targets.get(table.index(key, 0)).cloned(),
        Picker::Even { .. } | Picker::Smooth { .. } | Picker::LessBusy { .. } | Picker::Faster { .. } | Picker::Any { .. } => None,
    }
}

/// A counter that also steps over what is out, so that the neighbour of a dead target gets no double share.
fn pick_even(cursor: &AtomicUsize, targets: &[Arc<Target>], tried: &[Spot]) -> Option<usize> {
    if !tried.is_empty() {
        // Another attempt takes nobody's turn: it would lead the next request to the target that has just failed.
        let start = cursor.load(Relaxed);
        return (0..targets.len()).map(|n| start.wrapping_add(n) % targets.len()).find(|index| targets[*index].can_take(tried));
    }
    for _ in 0..targets.len() {
        let index = cursor.fetch_add(1, Relaxed) % targets.len();
        if targets[index].can_take(tried) {
            return Some(index);
        }
    }
    // Other threads may have moved the counter over the only one that is left.
    targets.iter().position(|target| target.can_take(tried))
}

/// Everyone gains its weight, the richest goes and pays what all gained: exact shares, spread evenly (as nginx does).
fn pick_smooth(weights: &[u16], current: &mut [i64], targets: &[Arc<Target>], tried: &[Spot]) -> Option<usize> {
    let (mut total, mut best) = (0, None::<usize>);
    for (index, target) in targets.iter().enumerate() {
        if !target.can_take(tried) {
            continue;
        }
        let weight = i64::from(weights[index]);
        total += weight;
        current[index] += weight;
        if best.is_none_or(|best| current[index] > current[best]) {
            best = Some(index);
        }
    }
    current[best?] -= total;
    best
}

/// The better of two that were drawn. `cost` of an index, multiplied by the weight of the other; equal costs go to the first draw, so that
/// idle targets share by weight.
fn pick_better<C: PartialOrd>(
    draw: &Draw,
    targets: &[Arc<Target>],
    tried: &[Spot],
    cost: impl Fn(usize, usize) -> C,
    mut random: impl FnMut() -> u64,
) -> Option<usize> {
    let first = pick_any(draw, targets, tried, None, &mut random)?;
    let Some(second) = pick_any(draw, targets, tried, Some(first), &mut random) else { return Some(first) };
    Some(if cost(second, first) < cost(first, second) { second } else { first })
}

/// Drawing again keeps the shares of those that are left; the scan is for the case that nearly all are out.
fn pick_any(draw: &Draw, targets: &[Arc<Target>], tried: &[Spot], not: Option<usize>, mut random: impl FnMut() -> u64) -> Option<usize> {
    let count = targets.len();
    let is_able = |index: &usize| Some(*index) != not && targets[*index].can_take(tried);
    (0..16).map(|_| draw.index(random())).find(is_able).or_else(|| {
        let start = random() as usize % count;
        (0..count).map(|n| (start + n) % count).find(is_able)
    })
}

/// The owner of a key, or who stands in for it: always the same, as long as they work and are not full. Where all that were asked are
/// full, the first of them that works.
fn pick_keyed(table: &Maglev, key: u64, targets: &[Arc<Target>], tried: &[Spot], is_full: impl Fn(usize) -> bool) -> Option<usize> {
    let mut full = None;
    for index in (0..16).map(|n| table.index(key, n)) {
        if !targets[index].can_take(tried) {
            continue;
        }
        if !is_full(index) {
            return Some(index);
        }
        full.get_or_insert(index);
    }
    let start = table.index(key, 0);
    full.or_else(|| (0..targets.len()).map(|n| (start + n) % targets.len()).find(|index| targets[*index].can_take(tried)))
}

// === impl Picker ===

impl Picker {
    /// For targets with these names and weights.
    pub fn new(balance: Balance, names: &[&str], weights: &[u16]) -> Picker {
        let draw = || Draw::new(weights);
        match balance {
            _ if weights.len() <= 1 => Picker::Even { cursor: AtomicUsize::new(0) },
            Balance::RoundRobin if weights.iter().all(|w| *w == weights[0]) => Picker::Even { cursor: AtomicUsize::new(0) },
            Balance::RoundRobin => {
                let current = Mutex::new(vec![0; weights.len()].into_boxed_slice());
                Picker::Smooth { weights: weights.into(), current }
            }
            Balance::LeastRequests => Picker::LessBusy { weights: weights.into(), draw: draw() },
            Balance::PeakEwma => Picker::Faster { weights: weights.into(), draw: draw() },
            Balance::Random => Picker::Any { draw: draw() },
            Balance::Hash => {
                let total = weights.iter().map(|weight| u64::from(*weight)).sum();
                Picker::Keyed { weights: weights.into(), total, draw: draw(), table: Maglev::new(names, weights) }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::relay::pool::Pools;
    use crate::relay::pool::tests::{take_out, upstream};

    const ALL: [Balance; 5] = [Balance::RoundRobin, Balance::LeastRequests, Balance::PeakEwma, Balance::Random, Balance::Hash];

    /// xorshift64*: the same sequence in every run.
    fn seeded(mut state: u64) -> impl FnMut() -> u64 {
        move || {
            state ^= state >> 12;
            state ^= state << 25;
            state ^= state >> 27;
            state.wrapping_mul(0x2545_f491_4f6c_dd1d)
        }
    }

    fn pool(balance: Balance, weights: &[u16]) -> Arc<Pool> {
        let addresses: Vec<String> = (0..weights.len()).map(|i| format!("10.0.{}.{}:80", i / 250, i % 250)).collect();
        let targets: Vec<(&str, u16)> = addresses.iter().map(String::as_str).zip(weights.iter().copied()).collect();
        Pools::default().adopt(&upstream(balance, &targets))
    }

    /// Indices of `n` choices in a row, each done before the next.
    fn sequence(pool: &Pool, n: usize) -> Vec<usize> {
        let mut random = seeded(7);
        (0..n).map(|_| index(pool, &choose(pool, Wanted::default(), &mut random).unwrap())).collect()
    }

    fn index(pool: &Pool, chosen: &Chosen) -> usize {
        pool.targets().iter().position(|t| Arc::ptr_eq(t, chosen.target())).unwrap()
    }

    fn counts(sequence: &[usize], targets: usize) -> Vec<usize> {
        (0..targets).map(|i| sequence.iter().filter(|s| **s == i).count()).collect()
    }

    #[test]
    fn round_robin_gives_exact_shares_spread_evenly() {
        let pool = pool(Balance::RoundRobin, &[5, 1, 1]);
        assert_eq!(sequence(&pool, 7), [0, 0, 1, 0, 2, 0, 0]);
        assert_eq!(counts(&sequence(&pool, 700), 3), [500, 100, 100]);
        let pool = self::pool(Balance::RoundRobin, &[65535, 1]);
        assert_eq!(counts(&sequence(&pool, 65536), 2), [65535, 1]);
    }

    #[test]
    fn equal_weights_take_turns() {
        let pool = pool(Balance::RoundRobin, &[3, 3, 3]);
        assert_eq!(sequence(&pool, 6), [0, 1, 2, 0, 1, 2]);
    }

    #[test]
    fn what_an_unhealthy_target_would_get_is_shared_by_all_others() {
        let pool = pool(Balance::RoundRobin, &[1, 1, 1, 1]);
        take_out(&pool, 1);
        assert_eq!(counts(&sequence(&pool, 300), 4), [100, 0, 100, 100]);
        let pool = self::pool(Balance::RoundRobin, &[1, 2, 3]);
        take_out(&pool, 1);
        assert_eq!(counts(&sequence(&pool, 400), 3), [100, 0, 300]);
        let pool = self::pool(Balance::LeastRequests, &[1, 1, 1, 1]);
        take_out(&pool, 1);
        assert_eq!(counts(&sequence(&pool, 300), 4)[1], 0);
    }

    #[test]
    fn a_target_that_was_tried_is_not_tried_again() {
        for balance in ALL {
            for weights in [&[1, 1, 1][..], &[1, 5, 9], &[4]] {
                let pool = pool(balance, weights);
                let (mut tried, mut random) = (Vec::new(), seeded(3));
                for _ in weights {
                    let chosen = choose(&pool, Wanted { tried: &tried, ..Wanted::default() }, &mut random).unwrap();
                    assert!(!tried.contains(&chosen.addr()));
                    tried.push(chosen.addr());
                }
                assert!(choose(&pool, Wanted { tried: &tried, ..Wanted::default() }, &mut random).is_none());
            }
        }
    }

    #[test]
    fn another_attempt_takes_nobodys_turn() {
        for weights in [&[1, 1][..], &[2, 1]] {
            let pool = pool(Balance::RoundRobin, weights);
            let mut firsts = Vec::new();
            for _ in 0..6 {
                let first = choose(&pool, Wanted::default(), || 0).unwrap();
                firsts.push(index(&pool, &first));
                assert!(choose(&pool, Wanted { tried: &[first.addr()], ..Wanted::default() }, || 0).is_some());
            }
            assert_eq!(counts(&firsts, 2), if weights[0] == 1 { [3, 3] } else { [4, 2] }, "{firsts:?}");
        }
    }

    #[test]
    fn with_every_target_out_nothing_is_chosen() {
        for balance in ALL {
            for weights in [&[1][..], &[1, 1], &[1, 2]] {
                let pool = pool(balance, weights);
                (0..weights.len()).for_each(|i| take_out(&pool, i));
                assert!(choose(&pool, Wanted::default(), seeded(1)).is_none());
            }
        }
    }

    #[test]
    fn idle_targets_share_by_weight_under_least_requests() {
        let pool = pool(Balance::LeastRequests, &[1, 2, 7]);
        let counts = counts(&sequence(&pool, 100_000), 3);
        for (count, share) in counts.iter().zip([10_000, 20_000, 70_000]) {
            assert!(count.abs_diff(share) < 600, "{counts:?}");
        }
    }

    #[test]
    fn of_two_the_less_busy_for_its_weight_is_chosen() {
        let pool = pool(Balance::LeastRequests, &[1, 2]);
        let mut random = seeded(11);
        let mut held: Vec<Chosen> = (0..300).map(|_| choose(&pool, Wanted::default(), &mut random).unwrap()).collect();
        let in_flight = |i: usize| pool.targets()[i].in_flight();
        assert!(in_flight(0).abs_diff(100) <= 1 && in_flight(1).abs_diff(200) <= 1, "{} {}", in_flight(0), in_flight(1));
        held.retain(|chosen| index(&pool, chosen) == 1);
        assert!((0..100).all(|_| index(&pool, &choose(&pool, Wanted::default(), &mut random).unwrap()) == 0));
    }

    #[test]
    fn a_thousand_targets_stay_close_together_under_load() {
        let pool = pool(Balance::LeastRequests, &[1; 1000]);
        let mut random = seeded(5);
        let held: Vec<Chosen> = (0..10_000).map(|_| choose(&pool, Wanted::default(), &mut random).unwrap()).collect();
        let most = pool.targets().iter().map(|t| t.in_flight()).max().unwrap();
        assert!(most <= 14, "the busiest has {most} of {}", held.len());
    }

    fn by_key(pool: &Pool, key: u64) -> Option<Chosen> {
        choose(pool, Wanted { key: Some(key), ..Wanted::default() }, || panic!("a key leaves nothing to chance"))
    }

    #[test]
    fn a_key_has_one_target_and_while_that_is_out_always_the_same_other() {
        let pool = pool(Balance::Hash, &[1; 10]);
        let keys: Vec<u64> = (0..200u64).map(|n| maglev::hash(&[&n.to_le_bytes()])).collect();
        let of = |key: &u64| index(&pool, &by_key(&pool, *key).unwrap());
        let before: Vec<_> = keys.iter().map(of).collect();
        assert!((0..10).all(|target| before.contains(&target)));
        take_out(&pool, 3);
        let during: Vec<_> = keys.iter().map(of).collect();
        assert_eq!(during, keys.iter().map(of).collect::<Vec<_>>());
        for (was, is) in before.iter().zip(&during) {
            assert!(*is != 3 && (was == is || *was == 3), "only the keys of what is out move");
        }
    }

    #[test]
    fn a_key_that_everybody_asks_for_does_not_overload_its_target() {
        let pool = pool(Balance::Hash, &[1, 1, 2, 1]);
        let held: Vec<Chosen> = (0..500).map(|_| by_key(&pool, 42).unwrap()).collect();
        let in_flight: Vec<_> = pool.targets().iter().map(|target| target.in_flight()).collect();
        assert_eq!(in_flight.iter().sum::<u32>(), 500);
        // A quarter above its share, rounded up.
        assert!(in_flight[0] <= 126 && in_flight[1] <= 126 && in_flight[2] <= 251 && in_flight[3] <= 126, "{in_flight:?}");
        drop(held);
        assert_eq!(pool.load.load(Relaxed), 0);
        let owner = index(&pool, &by_key(&pool, 42).unwrap());
        let few: Vec<_> = (0..4).map(|_| by_key(&pool, 42).unwrap()).collect();
        assert!(few.iter().all(|chosen| index(&pool, chosen) == owner), "a few stay together");
    }

    #[test]
    fn a_request_without_a_key_goes_anywhere_by_weight() {
        let pool = pool(Balance::Hash, &[1, 9]);
        let counts = counts(&sequence(&pool, 10_000), 2);
        assert!(counts[0].abs_diff(1000) < 120, "{counts:?}");
    }

    #[test]
    fn the_target_that_answers_sooner_gets_more() {
        const MS: u64 = 1_000_000;
        let pool = pool(Balance::PeakEwma, &[1, 1, 1]);
        for (index, took) in [(0, 5), (1, 50), (2, 5)] {
            pool.targets()[index].latency.observe(took * MS, MS);
        }
        let mut random = seeded(9);
        let wanted = Wanted { now: MS, ..Wanted::default() };
        let alone: Vec<_> = (0..3000).map(|_| index(&pool, &choose(&pool, wanted, &mut random).unwrap())).collect();
        assert_eq!(counts(&alone, 3)[1], 0, "it loses against either of the others");
        let held: Vec<_> = (0..60).map(|_| choose(&pool, wanted, &mut random).unwrap()).collect();
        let busy = pool.targets()[1].in_flight();
        assert!((1..=8).contains(&busy), "it gets some once the others are busy: {busy} of {}", held.len());
    }

    #[test]
    fn random_shares_by_weight() {
        let counts = counts(&sequence(&pool(Balance::Random, &[1, 3]), 40_000), 2);
        assert!(counts[0].abs_diff(10_000) < 400, "{counts:?}");
    }
}
