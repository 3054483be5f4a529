//! Decides which target a request gets: smooth weighted round robin, or the less busy of two drawn by weight.
//!
//! Skips targets that are unhealthy or were tried already. Does not decide what is healthy (`health.rs`) nor whether there is
//! another attempt (`retry.rs`).

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};

use parking_lot::Mutex;

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
    about: "Every target of the upstream fails its health checks, or its name could not be resolved yet. See `/status`.",
};

/// How targets take turns; what changes in it is as short-lived as the snapshot.
#[derive(Debug)]
pub enum Picker {
    /// Round robin over equal weights: one counter.
    Even { cursor: AtomicUsize },
    /// Round robin over unequal weights: one step per target under a lock held for that long.
    Smooth { weights: Box<[u16]>, current: Mutex<Box<[i64]>> },
    /// Two draws, whatever the number of targets.
    TwoChoices { weights: Box<[u16]>, draw: Draw },
}

/// Draws an index by weight in constant time (alias method: every index is one column, filled up by at most one other index).
#[derive(Debug)]
pub struct Draw {
    /// (the share of its own column in units of 2^-32, the index that owns the rest).
    columns: Box<[(u64, u32)]>,
}

/// Chooses a target for one attempt. `tried` holds the addresses at which this request has failed already; `random` yields
/// 64 random bits a call. None: no healthy target is left ([`NO_HEALTHY_TARGET`] if nothing was tried).
pub fn choose(pool: &Pool, tried: &[Spot], random: impl FnMut() -> u64) -> Option<Chosen> {
    let targets = &*pool.targets;
    let picked = match &pool.picker {
        _ if targets.len() == 1 => Some(0),
        Picker::Even { cursor } => pick_even(cursor, targets, tried),
        Picker::Smooth { weights, current } => pick_smooth(weights, &mut current.lock(), targets, tried),
        Picker::TwoChoices { weights, draw } => pick_less_busy(draw, weights, targets, tried, random),
    };
    // Its health may have changed since it was picked; then any other will do.
    targets[picked?].take(tried).or_else(|| targets.iter().find_map(|target| target.take(tried)))
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

fn pick_less_busy(draw: &Draw, weights: &[u16], targets: &[Arc<Target>], tried: &[Spot], mut random: impl FnMut() -> u64) -> Option<usize> {
    let count = targets.len();
    // Drawing again keeps the shares of those that are left; the scan is for the case that nearly all are out.
    let mut able = |not: Option<usize>| {
        let drawn = (0..16).map(|_| draw.index(random())).find(|i| Some(*i) != not && targets[*i].can_take(tried));
        drawn.or_else(|| {
            let start = random() as usize % count;
            (0..count).map(|i| (start + i) % count).find(|i| Some(*i) != not && targets[*i].can_take(tried))
        })
    };
    let first = able(None)?;
    let Some(second) = able(Some(first)) else { return Some(first) };
    // Load per weight, without a division. Equal loads go to the first draw, so that idle targets share by weight.
    let load = |mine: usize, other: usize| u64::from(targets[mine].in_flight()) * u64::from(weights[other]);
    Some(if load(second, first) < load(first, second) { second } else { first })
}

// === impl Picker ===

impl Picker {
    /// For targets with these weights, at least one.
    pub fn new(balance: Balance, weights: &[u16]) -> Picker {
        match balance {
            Balance::RoundRobin if weights.iter().all(|w| *w == weights[0]) => Picker::Even { cursor: AtomicUsize::new(0) },
            Balance::RoundRobin => {
                let current = Mutex::new(vec![0; weights.len()].into_boxed_slice());
                Picker::Smooth { weights: weights.into(), current }
            }
            Balance::LeastRequests => Picker::TwoChoices { weights: weights.into(), draw: Draw::new(weights) },
        }
    }
}

// === impl Draw ===

impl Draw {
    /// Vose's construction in integers.
    pub fn new(weights: &[u16]) -> Draw {
        let count = weights.len() as u64;
        let total: u64 = weights.iter().map(|w| u64::from(*w)).sum();
        // What each index has, in units in which a column holds `total`.
        let mut left: Vec<u64> = weights.iter().map(|w| u64::from(*w) * count).collect();
        let mut columns: Vec<(u64, u32)> = (0..weights.len()).map(|i| (1 << 32, i as u32)).collect();
        let (mut poor, mut rich): (Vec<usize>, Vec<usize>) = (0..weights.len()).partition(|i| left[*i] < total);
        while let (Some(small), Some(large)) = (poor.pop(), rich.pop()) {
            columns[small] = ((left[small] << 32) / total, large as u32);
            left[large] -= total - left[small];
            if left[large] < total { poor.push(large) } else { rich.push(large) }
        }
        Draw { columns: columns.into() }
    }

    /// The upper half of the bits picks a column, the lower half a side of it.
    fn index(&self, random: u64) -> usize {
        let column = (((random >> 32) * self.columns.len() as u64) >> 32) as usize;
        let (share, other) = self.columns[column];
        if random & 0xffff_ffff < share { column } else { other as usize }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::relay::pool::Pools;
    use crate::relay::pool::tests::{take_out, upstream};

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
        (0..n).map(|_| index(pool, &choose(pool, &[], &mut random).unwrap())).collect()
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
        for balance in [Balance::RoundRobin, Balance::LeastRequests] {
            for weights in [&[1, 1, 1][..], &[1, 5, 9], &[4]] {
                let pool = pool(balance, weights);
                let (mut tried, mut random) = (Vec::new(), seeded(3));
                for _ in weights {
                    let chosen = choose(&pool, &tried, &mut random).unwrap();
                    assert!(!tried.contains(&chosen.addr()));
                    tried.push(chosen.addr());
                }
                assert!(choose(&pool, &tried, &mut random).is_none());
            }
        }
    }

    #[test]
    fn another_attempt_takes_nobodys_turn() {
        for weights in [&[1, 1][..], &[2, 1]] {
            let pool = pool(Balance::RoundRobin, weights);
            let mut firsts = Vec::new();
            for _ in 0..6 {
                let first = choose(&pool, &[], || 0).unwrap();
                firsts.push(index(&pool, &first));
                assert!(choose(&pool, &[first.addr()], || 0).is_some());
            }
            assert_eq!(counts(&firsts, 2), if weights[0] == 1 { [3, 3] } else { [4, 2] }, "{firsts:?}");
        }
    }

    #[test]
    fn with_every_target_out_nothing_is_chosen() {
        for balance in [Balance::RoundRobin, Balance::LeastRequests] {
            for weights in [&[1][..], &[1, 1], &[1, 2]] {
                let pool = pool(balance, weights);
                (0..weights.len()).for_each(|i| take_out(&pool, i));
                assert!(choose(&pool, &[], seeded(1)).is_none());
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
        let mut held: Vec<Chosen> = (0..300).map(|_| choose(&pool, &[], &mut random).unwrap()).collect();
        let in_flight = |i: usize| pool.targets()[i].in_flight();
        assert!(in_flight(0).abs_diff(100) <= 1 && in_flight(1).abs_diff(200) <= 1, "{} {}", in_flight(0), in_flight(1));
        held.retain(|chosen| index(&pool, chosen) == 1);
        assert!((0..100).all(|_| index(&pool, &choose(&pool, &[], &mut random).unwrap()) == 0));
    }

    #[test]
    fn a_thousand_targets_stay_close_together_under_load() {
        let pool = pool(Balance::LeastRequests, &[1; 1000]);
        let mut random = seeded(5);
        let held: Vec<Chosen> = (0..10_000).map(|_| choose(&pool, &[], &mut random).unwrap()).collect();
        let most = pool.targets().iter().map(|t| t.in_flight()).max().unwrap();
        assert!(most <= 14, "the busiest has {most} of {}", held.len());
    }

    #[test]
    fn draws_follow_the_weights() {
        let weights = [1u16, 65535, 300, 300, 7];
        let draw = Draw::new(&weights);
        // A full sweep of all columns and sides in small steps is as good as chance.
        let steps = 1u64 << 22;
        let mut counts = [0u64; 5];
        (0..steps).for_each(|i| counts[draw.index(i.wrapping_mul(0x9e37_79b9_7f4a_7c15))] += 1);
        let total: u64 = weights.iter().map(|w| u64::from(*w)).sum();
        for (count, weight) in counts.iter().zip(weights) {
            let expected = steps * u64::from(weight) / total;
            assert!(count.abs_diff(expected) < 400, "{counts:?}");
        }
    }
}
