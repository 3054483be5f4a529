//! Decides which target a request gets: in turn, the less busy or the faster of two drawn by weight, any, or the one that has its key.
//!
//! Skips targets that are unhealthy or were tried already. Does not decide what is healthy (`health/`) nor whether there is
//! another attempt (`retry.rs`). Allocates nothing, and takes as long among a thousand targets as among two.

mod draw;
pub mod hash_by;
pub mod latency;
pub mod levels;
pub(crate) mod maglev;
pub mod sticky;
mod turns;
pub mod warmth;

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};

use self::draw::Draw;
use self::levels::Level;
use self::maglev::Maglev;
use self::sticky::Stuck;
use self::turns::Turns;
use self::warmth::Warming;
use super::upstream::Balance;
use crate::relay::targets::address::Spot;
use crate::relay::targets::pool::Pool;
use crate::relay::targets::target::{Chosen, Target};
use crate::reply::problem::Kind;

/// Every target is out.
pub static NO_HEALTHY_TARGET: Kind = Kind {
    code: "no-healthy-target",
    status: 503,
    error: "Service unavailable",
    about: "Every address of the upstream's targets is out: its health checks fail, it is ejected or drained; or its name could not be resolved yet. See `/status`.",
};

/// How targets take turns; what changes in it is as short-lived as the set of targets.
#[derive(Debug)]
pub enum Picker {
    /// Round robin over equal weights: one counter.
    Even { cursor: AtomicUsize },
    /// Round robin over unequal weights: one counter over a table.
    Weighted { cursor: AtomicUsize, turns: Turns, draw: Draw },
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
    /// The target that the client had, as its cookie says.
    pub stuck: Option<Stuck>,
    /// Nanoseconds on the monotonic clock.
    pub now: u64,
}

/// Whom a request may go to, of those that are as good as each other.
#[derive(Clone, Copy)]
struct Candidates<'a> {
    targets: &'a [Arc<Target>],
    tried: &'a [Spot],
    now: u64,
    /// Where targets begin slowly.
    warming: Option<Warming>,
}

/// Of what it would have if all were shared by weight, a target that has a key may have this much in flight, in percent. Mirrokni and
/// others, "Consistent Hashing with Bounded Loads", 2018.
const MOST: u64 = 125;
/// So many it may have all the same: where little goes on, a key stays where it is.
const FEW: u64 = 4;
/// So many turns are passed over before one is drawn: it happens where nearly all are out.
const PASSED_OVER: usize = 64;

/// Chooses a target for one attempt. `random` yields 64 random bits a call. None: no healthy target is left ([`NO_HEALTHY_TARGET`] if
/// nothing was tried).
pub fn choose(pool: &Pool, wanted: Wanted<'_>, mut random: impl FnMut() -> u64) -> Option<Chosen> {
    let set = pool.present();
    let Wanted { tried, key, stuck, now } = wanted;
    if let (Some(stuck), Some(known)) = (stuck, &set.stuck)
        && let Some(chosen) = known.get(&stuck).and_then(|index| set.targets[*index as usize].take(tried))
    {
        return Some(chosen);
    }
    let first = match &set.spread {
        None => 0,
        Some(spread) => {
            if spread.is_due(now) {
                set.count(spread, now);
            }
            // A key has its level as it has its target.
            if set.levels.len() == 1 { 0 } else { spread.draw(key.map_or_else(&mut random, |key| mixed(key, usize::MAX))) }
        }
    };
    let warming = pool.upstream.slow_start.map(|window| Warming { now, window });
    let mut find = |level: &Level| {
        let targets = &set.targets[level.range.clone()];
        let candidates = Candidates { targets, tried, now, warming };
        let picked = pick(pool, &level.picker, candidates, key, &mut random)?;
        // Its health may have changed since it was picked; then any other will do.
        targets[picked].take(tried).or_else(|| targets.iter().find_map(|target| target.take(tried)))
    };
    let others = || set.levels.iter().enumerate().filter(|(index, _)| *index != first);
    find(&set.levels[first]).or_else(|| others().find_map(|(_, level)| find(level)))
}

/// One of a level, by its index in it.
fn pick(pool: &Pool, picker: &Picker, all: Candidates<'_>, key: Option<u64>, random: impl FnMut() -> u64) -> Option<usize> {
    let targets = all.targets;
    match picker {
        _ if targets.len() <= 1 => targets.first().map(|_| 0),
        Picker::Even { cursor } => pick_even(cursor, all, random),
        Picker::Weighted { cursor, turns, draw } => pick_turn(cursor, turns, draw, all, random),
        Picker::LessBusy { weights, draw } => {
            // Load per weight, without a division.
            let load = |mine: usize, other: usize| u64::from(targets[mine].in_flight()) * u64::from(weights[other]);
            pick_better(draw, all, load, random)
        }
        Picker::Faster { weights, draw } => {
            let now = all.now;
            let cost = |mine: usize, other: usize| targets[mine].latency.cost(targets[mine].in_flight(), now) * f64::from(weights[other]);
            pick_better(draw, all, cost, random)
        }
        Picker::Any { draw } => pick_any(draw, all, None, random),
        Picker::Keyed { weights, total, draw, table } => match key {
            Some(key) => pick_keyed(table, key, all, |index| {
                // What all have in flight, and this request.
                let in_flight = u64::from(pool.load.load(Relaxed)) + 1;
                let share = (in_flight * u64::from(weights[index]) * MOST).div_ceil(total * 100).max(FEW);
                u64::from(targets[index].in_flight()) >= share
            }),
            None => pick_any(draw, all, None, random),
        },
    }
}

/// The target that has a key while all work and it is not overloaded; for `explain`.
pub fn owner(pool: &Pool, key: u64) -> Option<Arc<Target>> {
    let set = pool.present();
    let targets = &set.targets[set.levels[0].range.clone()];
    match &set.levels[0].picker {
        _ if targets.len() <= 1 => targets.first().cloned(),
        Picker::Keyed { table, .. } => targets.get(table.index(key, 0)).cloned(),
        Picker::Even { .. } | Picker::Weighted { .. } | Picker::LessBusy { .. } | Picker::Faster { .. } | Picker::Any { .. } => None,
    }
}

/// A counter that also steps over what is out, so that the neighbour of a dead target gets no double share.
fn pick_even(cursor: &AtomicUsize, all: Candidates<'_>, mut random: impl FnMut() -> u64) -> Option<usize> {
    let count = all.targets.len();
    let from = |start: usize| (0..count).map(move |n| start.wrapping_add(n) % count).find(|index| all.can(*index));
    if !all.tried.is_empty() {
        // Another attempt takes nobody's turn: it would lead the next request to the target that has just failed.
        return from(cursor.load(Relaxed));
    }
    for _ in 0..count {
        let index = cursor.fetch_add(1, Relaxed) % count;
        if all.takes(index, &mut random) {
            return Some(index);
        }
    }
    // Other threads may have moved the counter over the only one that is left, or all begin slowly.
    from(cursor.fetch_add(1, Relaxed))
}

/// The same over a table in which the heavy stand more often.
fn pick_turn(cursor: &AtomicUsize, turns: &Turns, draw: &Draw, all: Candidates<'_>, mut random: impl FnMut() -> u64) -> Option<usize> {
    let found = match all.tried {
        [] => (0..PASSED_OVER).map(|_| turns.at(cursor.fetch_add(1, Relaxed))).find(|index| all.takes(*index, &mut random)),
        _ => {
            let start = cursor.load(Relaxed);
            (0..PASSED_OVER).map(|n| turns.at(start.wrapping_add(n))).find(|index| all.can(*index))
        }
    };
    found.or_else(|| pick_any(draw, all, None, random))
}

/// The better of two that were drawn. `cost` of an index, multiplied by the weight of the other; equal costs go to the first draw, so that
/// idle targets share by weight.
fn pick_better<C: PartialOrd>(
    draw: &Draw,
    all: Candidates<'_>,
    cost: impl Fn(usize, usize) -> C,
    mut random: impl FnMut() -> u64,
) -> Option<usize> {
    let first = pick_any(draw, all, None, &mut random)?;
    let Some(second) = pick_any(draw, all, Some(first), &mut random) else { return Some(first) };
    Some(if cost(second, first) < cost(first, second) { second } else { first })
}

/// Drawing again keeps the shares of those that are left; the scan is for the case that nearly all are out.
fn pick_any(draw: &Draw, all: Candidates<'_>, not: Option<usize>, mut random: impl FnMut() -> u64) -> Option<usize> {
    let count = all.targets.len();
    for _ in 0..16 {
        let index = draw.index(random());
        if Some(index) != not && all.takes(index, &mut random) {
            return Some(index);
        }
    }
    let start = random() as usize % count;
    (0..count).map(|n| (start + n) % count).find(|index| Some(*index) != not && all.can(*index))
}

/// The owner of a key, or who stands in for it: always the same, as long as they work and are not full. Where all that were asked are
/// full, the first of them that works. Of one that begins slowly, the keys come one after the other.
fn pick_keyed(table: &Maglev, key: u64, all: Candidates<'_>, is_full: impl Fn(usize) -> bool) -> Option<usize> {
    let count = all.targets.len();
    let mut full = None;
    for index in (0..16).map(|n| table.index(key, n)) {
        if !all.can(index) {
            continue;
        }
        if all.takes(index, || mixed(key, index)) && !is_full(index) {
            return Some(index);
        }
        full.get_or_insert(index);
    }
    let start = table.index(key, 0);
    full.or_else(|| (0..count).map(|n| (start + n) % count).find(|index| all.can(*index)))
}

/// A number that a key always has beside this one.
fn mixed(key: u64, with: usize) -> u64 {
    let mixed = (key ^ (with as u64).wrapping_mul(0x9e37_79b9_7f4a_7c15)).wrapping_mul(0xff51_afd7_ed55_8ccd);
    (mixed ^ mixed >> 33).wrapping_mul(0xc4ce_b9fe_1a85_ec53)
}

// === impl Candidates ===

impl Candidates<'_> {
    #[inline]
    fn can(&self, index: usize) -> bool {
        self.targets[index].can_take(self.tried)
    }

    /// Whether it can, and may have this one of those that would be its.
    #[inline]
    fn takes(&self, index: usize, chance: impl FnOnce() -> u64) -> bool {
        self.can(index) && self.warming.is_none_or(|warming| self.targets[index].warmth.takes(warming, chance()))
    }
}

// === impl Picker ===

impl Picker {
    /// For targets with these names and weights.
    pub fn new(balance: Balance, names: &[&str], weights: &[u16]) -> Picker {
        let draw = || Draw::new(weights);
        let cursor = AtomicUsize::new(0);
        match balance {
            _ if weights.len() <= 1 => Picker::Even { cursor },
            Balance::RoundRobin if weights.iter().all(|w| *w == weights[0]) => Picker::Even { cursor },
            Balance::RoundRobin => Picker::Weighted { cursor, turns: Turns::new(weights), draw: draw() },
            Balance::LeastRequests => Picker::LessBusy { weights: weights.into(), draw: draw() },
            Balance::PeakEwma => Picker::Faster { weights: weights.into(), draw: draw() },
            Balance::Random => Picker::Any { draw: draw() },
            Balance::Hash => {
                let total = weights.iter().map(|weight| u64::from(*weight)).sum();
                Picker::Keyed { weights: weights.into(), total, draw: draw(), table: Maglev::new(names, weights) }
            }
        }
    }

    /// Begins anywhere: where sets come one after the other, the first of each would have more than its share.
    pub fn begin_at(&self, turn: usize) {
        match self {
            Picker::Even { cursor } | Picker::Weighted { cursor, .. } => cursor.store(turn, Relaxed),
            Picker::LessBusy { .. } | Picker::Faster { .. } | Picker::Any { .. } | Picker::Keyed { .. } => {}
        }
    }
}

#[cfg(test)]
mod quality;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::relay::targets::pool::Pools;
    use crate::relay::targets::pool::tests::{take_out, upstream};

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
