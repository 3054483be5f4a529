//! Priorities and zones: targets in levels, of which the first that are well get everything, and the others what is too much for those.
//!
//! Decides how much each level gets, by the share of its targets that work, as Envoy does: a level can carry 1.4 times that share of all
//! requests, so the first gives nothing away as long as 72 % of it work. Does not decide which target of a level gets a request, nor what works.

use std::ops::Range;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering::Relaxed};

use smallvec::SmallVec;

use super::Picker;
use crate::relay::targets::members::Member;

/// Targets that are as good as each other: a range of those of the upstream.
#[derive(Debug)]
pub struct Level {
    pub range: Range<usize>,
    pub(in crate::relay) picker: Picker,
    pub priority: u16,
    /// Whether it is in the gateway's own zone; none where zones play no part.
    pub is_near: Option<bool>,
}

/// How requests are spread over levels: kept, because counting who works takes longer than choosing.
#[derive(Debug)]
pub struct Spread {
    /// Of each level what it and those before it get, in parts of 2^32.
    up_to: Box<[AtomicU32]>,
    /// When somebody counts again.
    next: AtomicU64,
}

/// A level can carry so much more than its part.
const OVERPROVISIONED: f64 = 1.4;
/// How often is counted who works, in nanoseconds.
pub const EVERY: u64 = 100_000_000;

/// Where a member belongs: lower goes first.
pub fn rank(member: &Member, zone: Option<&str>) -> (u16, bool) {
    (member.priority, zone.is_some() && member.zone.as_deref() != zone)
}

/// What each level gets of all requests, by the share of its targets that work.
pub fn shares(health: &[f64]) -> SmallVec<[f64; 8]> {
    let carries: SmallVec<[f64; 8]> = health.iter().map(|health| (health * OVERPROVISIONED).min(1.0)).collect();
    let all: f64 = carries.iter().sum();
    // Where all together can carry less than everything, each gets more than it should, in the same proportion.
    let scale = if all > 0.0 && all < 1.0 { 1.0 / all } else { 1.0 };
    let mut left: f64 = 1.0;
    let give = |carries: &f64| {
        let share = (carries * scale).min(left);
        left -= share;
        share
    };
    carries.iter().map(give).collect()
}

// === impl Spread ===

impl Spread {
    pub fn new(levels: usize) -> Spread {
        Spread { up_to: (0..levels).map(|_| AtomicU32::new(u32::MAX)).collect(), next: AtomicU64::new(0) }
    }

    /// Whether it is time to count again; of many that ask, one is told so.
    pub fn is_due(&self, now: u64) -> bool {
        let next = self.next.load(Relaxed);
        now >= next && self.next.compare_exchange(next, now + EVERY, Relaxed, Relaxed).is_ok()
    }

    /// Takes over how much of each level works.
    pub fn counted(&self, health: &[f64]) {
        let mut sum = 0.0;
        for (share, up_to) in shares(health).iter().zip(&self.up_to) {
            sum += share;
            up_to.store((sum * f64::from(u32::MAX)).min(f64::from(u32::MAX)) as u32, Relaxed);
        }
    }

    /// The level of a request.
    pub fn draw(&self, random: u64) -> usize {
        let random = (random >> 32) as u32;
        self.up_to.iter().position(|up_to| random < up_to.load(Relaxed)).unwrap_or(0)
    }

    /// What each gets now, in percent, for people.
    pub fn shown(&self) -> Vec<u32> {
        let mut before = 0;
        let part = |up_to: &AtomicU32| {
            let up_to = up_to.load(Relaxed);
            let part = up_to.saturating_sub(before);
            before = before.max(up_to);
            (f64::from(part) / f64::from(u32::MAX) * 100.0).round() as u32
        };
        self.up_to.iter().map(part).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn percent(health: &[f64]) -> Vec<i64> {
        shares(health).iter().map(|share| (share * 100.0).round() as i64).collect()
    }

    #[test]
    fn the_first_level_gets_all_until_less_than_five_sevenths_of_it_work() {
        assert_eq!(percent(&[1.0, 1.0]), [100, 0]);
        assert_eq!(percent(&[0.72, 1.0]), [100, 0]);
        assert_eq!(percent(&[0.5, 1.0]), [70, 30]);
        assert_eq!(percent(&[0.25, 0.25, 1.0]), [35, 35, 30]);
        assert_eq!(percent(&[0.0, 1.0]), [0, 100]);
        assert_eq!(percent(&[0.25, 0.25]), [50, 50], "together they carry 70 %, and get all");
        assert_eq!(percent(&[0.0, 0.0]), [0, 0]);
    }

    #[test]
    fn draws_follow_the_shares_and_counting_is_one_askers_work() {
        let spread = Spread::new(3);
        assert!(spread.is_due(5) && !spread.is_due(6) && spread.is_due(5 + EVERY));
        assert_eq!(spread.draw(u64::MAX / 2), 0, "before the first count");
        spread.counted(&[0.5, 0.0, 1.0]);
        assert_eq!(spread.shown(), [70, 0, 30]);
        let drawn = (0..1000u64).map(|n| spread.draw(n * (u64::MAX / 1000))).fold([0; 3], |mut sums, level| {
            sums[level] += 1;
            sums
        });
        assert!(drawn[0] >= 699 && drawn[0] <= 701 && drawn[1] == 0, "{drawn:?}");
    }
}
