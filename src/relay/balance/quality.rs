//! How well targets are chosen, in simulated time: shares, preferences, slow starts, and how long requests wait where targets differ.

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::sync::Arc;

use super::*;
use crate::config::types::{Period, Secret};
use crate::relay::balance::sticky::StickySettings;
use crate::relay::targets::pool::Pools;
use crate::relay::targets::pool::tests::take_out;
use crate::relay::upstream::Upstream;
use crate::relay::upstream::UpstreamSettings;
use crate::relay::upstream::tests::{at, settings};

const SECOND: u64 = 1_000_000_000;
const ALL: [Balance; 4] = [Balance::RoundRobin, Balance::LeastRequests, Balance::PeakEwma, Balance::Random];

/// xorshift64*: the same sequence in every run.
fn seeded(mut state: u64) -> impl FnMut() -> u64 {
    move || {
        state ^= state >> 12;
        state ^= state << 25;
        state ^= state >> 27;
        state.wrapping_mul(0x2545_f491_4f6c_dd1d)
    }
}

/// Targets of these weights, priorities and zones.
fn pool(balance: Balance, targets: &[(u16, u16, &str)], zone: Option<&str>, more: impl FnOnce(&mut UpstreamSettings)) -> Arc<Pool> {
    let names: Vec<String> = (0..targets.len()).map(|index| format!("10.0.{}.{}:80", index / 250, index % 250)).collect();
    let listed: Vec<(&str, u16)> = names.iter().zip(targets).map(|(name, (weight, ..))| (name.as_str(), *weight)).collect();
    let mut written = settings(&listed);
    written.balance = Some(at(balance));
    for (target, (_, priority, zone)) in written.targets.as_mut().unwrap().value.iter_mut().zip(targets) {
        target.value.priority = Some(at(*priority));
        target.value.zone = (!zone.is_empty()).then(|| at((*zone).to_owned()));
    }
    more(&mut written);
    let mut upstream = Upstream::compile("orders", &written).unwrap();
    upstream.zone = zone.map(Into::into);
    Pools::default().adopt(&Arc::new(upstream))
}

/// How many of so many requests, at this moment, each target of the file gets.
fn counts(pool: &Pool, requests: usize, now: u64) -> Vec<usize> {
    let mut random = seeded(now + 3);
    let mut counts = vec![0; pool.targets().len()];
    let targets = pool.targets();
    for _ in 0..requests {
        let chosen = choose(pool, Wanted { now, ..Wanted::default() }, &mut random).unwrap();
        counts[targets.iter().position(|target| Arc::ptr_eq(target, chosen.target())).unwrap()] += 1;
    }
    counts
}

#[test]
fn every_algorithm_gives_idle_targets_their_shares() {
    let weights = [1u16, 2, 3, 5, 8, 13];
    let targets: Vec<_> = weights.iter().map(|weight| (*weight, 0, "")).collect();
    let total: u16 = weights.iter().sum();
    let requests = 32_000;
    for balance in ALL {
        let counts = counts(&pool(balance, &targets, None, |_| {}), requests, SECOND);
        for (count, weight) in counts.iter().zip(weights) {
            let due = requests as f64 * f64::from(weight) / f64::from(total);
            // Chance is allowed five standard deviations, a table none.
            let error = if balance == Balance::RoundRobin { 0.0 } else { 5.0 * due.sqrt() };
            assert!((*count as f64 - due).abs() <= error, "{balance:?}: {counts:?}, {weight} should have {due}");
        }
    }
}

/// The time that 99 of 100 requests take at most, in milliseconds, where requests come by chance and each target works at one after the
/// other: for so many milliseconds on average.
fn p99(balance: Balance, work_ms: &[f64], load: f64) -> f64 {
    let targets: Vec<_> = work_ms.iter().map(|_| (1, 0, "")).collect();
    let pool = pool(balance, &targets, None, |_| {});
    let listed = pool.targets();
    let mut random = seeded(42);
    let chance = |random: u64| ((random >> 11) as f64 + 1.0) / (1u64 << 53) as f64;
    let capacity: f64 = work_ms.iter().map(|ms| 1.0 / ms).sum();
    let mut free_at = vec![0.0_f64; work_ms.len()];
    // What is under way: when it ends, and who is held until then.
    let mut ends: BinaryHeap<Reverse<(u64, usize)>> = BinaryHeap::new();
    let mut held: Vec<Option<(Chosen, f64)>> = Vec::new();
    let (mut now, mut took) = (1.0_f64, Vec::new());
    for _ in 0..30_000 {
        now += -chance(random()).ln() / (capacity * load);
        while let Some(Reverse((end, index))) = ends.peek().copied().filter(|Reverse((end, _))| *end as f64 / 1e6 <= now) {
            ends.pop();
            if let Some((chosen, began)) = held[index].take() {
                let ms = end as f64 / 1e6 - began;
                chosen.target().latency.observe((ms * 1e6) as u64, end);
                took.push(ms);
            }
        }
        let chosen = choose(&pool, Wanted { now: (now * 1e6) as u64, ..Wanted::default() }, &mut random).unwrap();
        let target = listed.iter().position(|target| Arc::ptr_eq(target, chosen.target())).unwrap();
        let begins = free_at[target].max(now);
        free_at[target] = begins - chance(random()).ln() * work_ms[target];
        ends.push(Reverse(((free_at[target] * 1e6) as u64, held.len())));
        held.push(Some((chosen, now)));
    }
    took.sort_by(f64::total_cmp);
    took[took.len() * 99 / 100]
}

#[test]
fn where_targets_differ_in_speed_whoever_looks_at_them_keeps_the_slowest_percent_short() {
    // Eight of ten are alike, one is five times and one ten times as slow; six tenths of what all can do is asked of them.
    let work = [10.0, 10.0, 10.0, 10.0, 10.0, 10.0, 10.0, 10.0, 50.0, 100.0];
    let of = |balance| p99(balance, &work, 0.6);
    let (turns, chance, busy, faster) = (of(Balance::RoundRobin), of(Balance::Random), of(Balance::LeastRequests), of(Balance::PeakEwma));
    let told = format!("p99 in ms: round_robin {turns:.0}, random {chance:.0}, least_requests {busy:.0}, peak_ewma {faster:.0}");
    assert!(busy * 10.0 < turns && busy * 10.0 < chance, "{told}");
    assert!(faster < busy, "{told}");
}

#[test]
fn the_first_priority_gets_everything_until_too_few_of_it_work() {
    for balance in ALL {
        let pool = pool(balance, &[(1, 0, ""), (1, 0, ""), (1, 0, ""), (1, 0, ""), (1, 7, ""), (1, 7, "")], None, |_| {});
        assert_eq!(counts(&pool, 1000, SECOND)[4..], [0, 0], "{balance:?}");
        take_out(&pool, 0);
        assert_eq!(counts(&pool, 1000, 2 * SECOND)[4..], [0, 0], "{balance:?}: three of four carry everything");
        take_out(&pool, 1);
        let half = counts(&pool, 10_000, 3 * SECOND);
        assert!((half[4] + half[5]).abs_diff(3000) < 250 && half[0] + half[1] == 0, "{balance:?}: {half:?}");
        (2..4).for_each(|index| take_out(&pool, index));
        let rest = counts(&pool, 1000, 4 * SECOND);
        assert_eq!(rest[4] + rest[5], 1000, "{balance:?}: {rest:?}");
    }
}

#[test]
fn what_all_levels_cannot_carry_goes_to_whoever_is_left() {
    let pool = pool(Balance::RoundRobin, &[(1, 0, ""), (1, 1, "")], None, |_| {});
    // Nobody has counted since: the level that is drawn has nobody, and the other takes it.
    assert_eq!(counts(&pool, 10, SECOND), [10, 0]);
    take_out(&pool, 0);
    assert_eq!(counts(&pool, 10, SECOND + 1), [0, 10]);
    take_out(&pool, 1);
    assert!(choose(&pool, Wanted { now: 2 * SECOND, ..Wanted::default() }, seeded(1)).is_none());
}

#[test]
fn targets_of_the_own_zone_are_preferred_within_their_priority() {
    let targets = [(1, 0, "b"), (1, 0, "a"), (1, 0, "a"), (1, 1, "a"), (1, 0, "")];
    let near = pool(Balance::RoundRobin, &targets, Some("a"), |_| {});
    let shown: Vec<_> = near.present().levels.iter().map(|level| (level.priority, level.is_near, level.range.len())).collect();
    assert_eq!(shown, [(0, Some(true), 2), (0, Some(false), 2), (1, Some(true), 1)]);
    // Those of the zone stand first.
    assert_eq!(counts(&near, 1000, SECOND), [500, 500, 0, 0, 0]);
    take_out(&near, 0);
    let spilt = counts(&near, 10_000, 2 * SECOND);
    assert!(spilt[1].abs_diff(7000) < 250 && spilt[4] == 0, "{spilt:?}");
    let anywhere = pool(Balance::RoundRobin, &targets[..3], Some("c"), |_| {});
    assert_eq!(counts(&anywhere, 900, SECOND), [300, 300, 300]);
    let nowhere = pool(Balance::RoundRobin, &targets[..3], None, |_| {});
    assert_eq!(counts(&nowhere, 900, SECOND), [300, 300, 300]);
}

#[test]
fn a_target_that_comes_back_gets_its_share_little_by_little() {
    for balance in ALL {
        let slowly = |written: &mut UpstreamSettings| written.slow_start = Some(at(Period::seconds(100)));
        let pool = pool(balance, &[(1, 0, ""), (1, 0, ""), (1, 0, ""), (1, 0, "")], None, slowly);
        let all = counts(&pool, 4000, SECOND);
        assert!(all.iter().all(|count| count.abs_diff(1000) < 150), "{balance:?}: at the start all are as new: {all:?}");
        take_out(&pool, 2);
        assert_eq!(counts(&pool, 100, 2 * SECOND)[2], 0);
        pool.targets()[2].trust();
        let mut before = 0;
        for (second, least, most) in [(3, 40, 220), (53, 380, 780), (99, 820, 1150), (200, 850, 1150)] {
            let now = counts(&pool, 4000, second * SECOND)[2];
            assert!((least..=most).contains(&now) && now + 60 > before, "{balance:?} after {second}s: {now}");
            before = now;
        }
    }
}

#[test]
fn the_keys_of_a_target_that_comes_back_slowly_come_one_after_the_other() {
    let slowly = |written: &mut UpstreamSettings| written.slow_start = Some(at(Period::seconds(100)));
    let pool = pool(Balance::Hash, &[(1, 0, ""); 5], None, slowly);
    let of = |key: u64, now: u64| {
        let wanted = Wanted { key: Some(maglev::hash(&[&key.to_le_bytes()])), now: now * SECOND, ..Wanted::default() };
        let chosen = choose(&pool, wanted, || panic!("a key leaves nothing to chance")).unwrap();
        pool.targets().iter().position(|target| Arc::ptr_eq(target, chosen.target())).unwrap()
    };
    let own: Vec<u64> = (0..2000).filter(|key| of(*key, 1) == 2).collect();
    take_out(&pool, 2);
    assert!(own.iter().all(|key| of(*key, 2) != 2));
    pool.targets()[2].trust();
    let back = |now: u64| own.iter().filter(|key| of(**key, now) == 2).copied().collect::<Vec<_>>();
    let (few, half) = (back(3), back(53));
    assert!(
        few.len() * 4 < own.len() && half.len().abs_diff(own.len() * 55 / 100) < own.len() / 6,
        "{} {} {}",
        few.len(),
        half.len(),
        own.len()
    );
    assert!(few.iter().all(|key| half.contains(key)), "what has come back stays");
    assert_eq!(back(200), own);
}

#[test]
fn a_client_comes_back_to_the_target_of_its_cookie_while_that_works() {
    let cookie = || StickySettings {
        cookie: at("at".to_owned()),
        secret: at(Secret::new("0123456789abcdef0123456789abcdef")),
        max_age: None,
        same_site: None,
        secure: None,
    };
    for balance in ALL {
        let pool = pool(balance, &[(1, 0, ""), (1, 0, ""), (1, 3, "")], None, |written| written.sticky = Some(at(cookie())));
        let sticky = pool.upstream.sticky.clone().unwrap();
        let mut random = seeded(5);
        for index in 0..3 {
            let target = &pool.targets()[index];
            let wanted = Wanted { stuck: Some(sticky.of("orders", &target.address.text)), now: SECOND, ..Wanted::default() };
            assert!((0..20).all(|_| Arc::ptr_eq(choose(&pool, wanted, &mut random).unwrap().target(), target)), "{balance:?} {index}");
            let tried = target.endpoints()[0].addr;
            assert!(!Arc::ptr_eq(choose(&pool, Wanted { tried: &[tried], ..wanted }, &mut random).unwrap().target(), target));
        }
        let forged = Wanted { stuck: Some(7), now: SECOND, ..Wanted::default() };
        assert!(choose(&pool, forged, &mut random).is_some());
        take_out(&pool, 0);
        let gone = Wanted { stuck: Some(sticky.of("orders", &pool.targets()[0].address.text)), now: SECOND, ..Wanted::default() };
        assert!(!Arc::ptr_eq(choose(&pool, gone, &mut random).unwrap().target(), &pool.targets()[0]));
    }
}

#[test]
fn choosing_waits_for_no_update_of_a_thousand_targets() {
    let pools = Pools::default();
    let pool = crate::relay::targets::pool::tests::found(&pools, 1000);
    // Everything that an update locks, held by somebody else: a request that waited for any of it would never end.
    let chosen = pools.holding_all_locks(|| {
        let mut random = seeded(3);
        (0..100).map(|_| choose(&pool, Wanted { now: SECOND, ..Wanted::default() }, &mut random).unwrap()).count()
    });
    assert_eq!(chosen, 100);
}
