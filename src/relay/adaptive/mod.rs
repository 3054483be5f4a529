//! Adaptive concurrency: how many requests an upstream gets at once, found out from how long it takes, and who is refused first where it is nearly full.
//!
//! Decides whether a request is let through. Does not decide how the limit moves (`gradient.rs`), nor who goes first (`policy/priority.rs`).

pub mod gradient;

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering::Relaxed};
use std::time::Duration;

use parking_lot::Mutex;
use schemars::JsonSchema;
use serde::Deserialize;

use self::gradient::{Gradient, Window};
use super::circuit::nanos;
use super::upstream::whole;
use crate::config::diagnostic::Diagnostic;
use crate::config::types::At;
use crate::policy::priority::Priority;
use crate::relay::attempt::outcome::Outcome;
use crate::relay::targets::group::Group;
use crate::reply::problem::Kind;
use crate::report::metrics::series::Failure;

/// How many requests an upstream gets at once, found out from how long it takes for them. `{}` is enough.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct AdaptiveSettings {
    /// Never fewer than that. 1 to 100000; default 4.
    pub min: Option<At<u32>>,
    /// Never more than that. 1 to 100000; default 1000.
    pub max: Option<At<u32>>,
}

/// The compiled form.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Adaptive {
    pub min: u32,
    pub max: u32,
}

/// What has been found out about one upstream, and how many requests it has.
#[derive(Debug)]
pub struct Limiter {
    limit: AtomicU32,
    /// What those who do not go first have their share of: less where the queue is drained for a moment.
    others: AtomicU32,
    taken: AtomicU32,
    seen: Mutex<Seen>,
}

/// What has been seen since the last window ended.
#[derive(Debug, Default)]
struct Seen {
    /// None: nobody has asked for it.
    gradient: Option<(Adaptive, Gradient)>,
    since: u64,
    sum: f64,
    count: u32,
    in_flight: u32,
}

/// One of those that an upstream has at once; given back when dropped.
#[derive(Debug)]
pub struct Held(Arc<Group>);

/// Why there is no place.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Full {
    pub taken: u32,
    /// How many there may be of this priority and those above it.
    pub most: u32,
    /// Of all.
    pub limit: u32,
}

/// What `/status` shows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Concurrency {
    pub limit: u32,
    pub in_flight: u32,
    /// How long an answer takes without a queue, where that is known.
    pub base: Option<Duration>,
}

pub static UPSTREAM_SATURATED: Kind = Kind {
    code: "upstream-saturated",
    status: 503,
    error: "Service unavailable",
    about: "The upstream has as many requests as its `adaptive_concurrency` has found that it can take; those of low priority are refused first. Come back after `Retry-After`.",
};

const MOST: u32 = 100_000;
/// A window is at least so long, has at least so many answers, and is twice as long as one takes.
const WINDOW_NANOS: f64 = 100_000_000.0;
const WINDOW_ANSWERS: u32 = 10;

// === impl Adaptive ===

impl Adaptive {
    pub(super) fn compile(settings: &AdaptiveSettings, wrong: &mut Vec<Diagnostic>) -> Adaptive {
        let AdaptiveSettings { min, max } = settings;
        let found = Adaptive { min: whole(min.as_ref(), 4, 1..=MOST, wrong), max: whole(max.as_ref(), 1_000, 1..=MOST, wrong) };
        let in_range = [found.min, found.max].iter().all(|bound| (1..=MOST).contains(bound));
        if let Some(bound) = max.as_ref().or(min.as_ref()).filter(|_| in_range && found.min > found.max) {
            let message = format!("`min` is {} and `max` {}: expected `min` to be less", found.min, found.max);
            wrong.push(Diagnostic::at(&bound.place, "out-of-range", message));
        }
        found
    }

    /// For `explain`.
    pub fn told(self) -> String {
        let Adaptive { min, max } = self;
        match min == max {
            true => format!("{max} requests at once"),
            false => format!("{min} to {max} requests at once, as many as it answers without a queue"),
        }
    }
}

// === impl Limiter ===

impl Default for Limiter {
    fn default() -> Self {
        Limiter { limit: AtomicU32::new(u32::MAX), others: AtomicU32::new(u32::MAX), taken: AtomicU32::new(0), seen: Mutex::default() }
    }
}

impl Limiter {
    /// These bounds hold from now on; what has been found out is kept, as far as it is within them.
    pub(super) fn begin(&self, bounds: Option<Adaptive>) {
        let mut seen = self.seen.lock();
        let Some(bounds) = bounds else {
            *seen = Seen::default();
            self.limit.store(u32::MAX, Relaxed);
            self.others.store(u32::MAX, Relaxed);
            return;
        };
        let Adaptive { min, max } = bounds;
        let gradient = match seen.gradient.take() {
            Some((before, gradient)) if before == bounds => gradient,
            Some((_, gradient)) => gradient.within(min, max),
            None => Gradient::new(min, max),
        };
        self.set(&gradient);
        seen.gradient = Some((bounds, gradient));
    }

    fn set(&self, gradient: &Gradient) {
        self.limit.store(gradient.limit(), Relaxed);
        self.others.store(gradient.limit_of_others(), Relaxed);
    }

    /// Lets one more in, where there are not as many as its priority may have.
    pub fn take(group: &Arc<Group>, priority: Priority) -> Result<Held, Full> {
        let limiter = &group.limiter;
        let limit = limiter.limit.load(Relaxed);
        let most = if priority == Priority::High { limit } else { priority.share_of(limiter.others.load(Relaxed)) };
        match limiter.taken.fetch_update(Relaxed, Relaxed, |taken| (taken < most).then_some(taken + 1)) {
            Ok(_) => Ok(Held(group.clone())),
            Err(taken) => Err(Full { taken, most, limit }),
        }
    }

    /// Learns from an attempt. Only answers that were meant tell how long the work takes: one of 500 and above is quick because there was
    /// none. One that did not come in time (`patience`) took at least that long. What could not be connected is the affair of checks and circuits.
    pub(super) fn note(&self, outcome: Outcome, patience: Duration, now: u64) {
        let took = match outcome {
            Outcome::Head { status, took } if status < 500 => took,
            Outcome::Failed { how: Failure::ResponseTimeout, before_head: true } => nanos(patience),
            Outcome::Call { status, took } if status.is_none_or(|status| status < 500) => took,
            Outcome::Head { .. } | Outcome::Call { .. } | Outcome::CallEnded { .. } | Outcome::Failed { .. } | Outcome::Whole => return,
        };
        self.observe(took, now);
    }

    fn observe(&self, took: u64, now: u64) {
        let in_flight = self.taken.load(Relaxed);
        let mut seen = self.seen.lock();
        let Seen { gradient: Some((_, gradient)), since, sum, count, in_flight: most } = &mut *seen else { return };
        *sum += took as f64;
        *count += 1;
        *most = in_flight.max(*most);
        let length = WINDOW_NANOS.max(2.0 * gradient.base());
        if *count < WINDOW_ANSWERS || (now.saturating_sub(*since) as f64) < length {
            return;
        }
        gradient.observe(Window { took: *sum / f64::from(*count), in_flight: *most, left: in_flight });
        self.set(gradient);
        (*since, *sum, *count, *most) = (now, 0.0, 0, 0);
    }

    /// None: nobody has asked for it.
    pub(super) fn report(&self) -> Option<Concurrency> {
        let base = self.seen.lock().gradient.as_ref().map(|(_, gradient)| gradient.base())?;
        let base = (base > 0.0).then(|| Duration::from_nanos(base as u64));
        Some(Concurrency { limit: self.limit.load(Relaxed), in_flight: self.taken.load(Relaxed), base })
    }
}

// === impl Held ===

impl Drop for Held {
    fn drop(&mut self) {
        self.0.limiter.taken.fetch_sub(1, Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::relay::upstream::tests::at;

    const SECOND: u64 = 1_000_000_000;
    const MS: u64 = 1_000_000;

    fn group(min: u32, max: u32) -> Arc<Group> {
        let group = Arc::new(Group::default());
        group.limiter.begin(Some(Adaptive { min, max }));
        group
    }

    fn limit(group: &Group) -> u32 {
        group.limiter.report().unwrap().limit
    }

    /// So many places that nobody gives back meanwhile.
    fn hold(group: &Arc<Group>, count: usize) -> Vec<Held> {
        (0..count).map(|_| Limiter::take(group, Priority::High).unwrap()).collect()
    }

    fn answers(group: &Group, outcome: Outcome, now: u64) {
        (0..WINDOW_ANSWERS).for_each(|_| group.limiter.note(outcome, Duration::from_secs(5), now));
    }

    #[test]
    fn low_priorities_are_refused_first_and_places_come_back() {
        let group = group(100, 100);
        let mut held = Vec::new();
        for (priority, most) in [(Priority::Lowest, 60), (Priority::Low, 75), (Priority::Normal, 90), (Priority::High, 100)] {
            held.extend(std::iter::from_fn(|| Limiter::take(&group, priority).ok()));
            assert_eq!(held.len(), most as usize);
            assert_eq!(Limiter::take(&group, priority).unwrap_err(), Full { taken: most, most, limit: 100 });
        }
        held.truncate(59);
        assert!(Limiter::take(&group, Priority::Lowest).is_ok());
        drop(held);
        assert_eq!(group.limiter.report().unwrap().in_flight, 0);
    }

    #[test]
    fn however_small_the_limit_is_one_goes_through() {
        let group = group(1, 1);
        let one = Limiter::take(&group, Priority::Lowest).unwrap();
        assert!(Limiter::take(&group, Priority::High).is_err());
        drop(one);
        assert!(Limiter::take(&group, Priority::Low).is_ok());
    }

    #[test]
    fn answers_that_get_slow_lower_the_limit_once_a_window_is_over() {
        let group = group(1, 2_500);
        let before = limit(&group);
        let _held = hold(&group, before as usize);
        let head = |took| Outcome::Head { status: 200, took };
        for n in 0..9 {
            group.limiter.note(head(MS), Duration::ZERO, SECOND + n);
        }
        assert_eq!(group.limiter.report().unwrap().base, None, "nine answers are no window");
        answers(&group, head(MS), SECOND);
        assert!(limit(&group) >= before && group.limiter.report().unwrap().base == Some(Duration::from_millis(1)));
        (2..20).for_each(|second| answers(&group, head(100 * MS), second * SECOND));
        assert!(limit(&group) < before / 2, "{} after {before}", limit(&group));
    }

    #[test]
    fn what_did_not_come_in_time_was_slow_and_an_error_says_nothing() {
        let slow = Outcome::Failed { how: Failure::ResponseTimeout, before_head: true };
        let refused = Outcome::Failed { how: Failure::Connect, before_head: true };
        let error = Outcome::Head { status: 503, took: 10 };
        for (outcome, falls) in [(slow, true), (refused, false), (error, false)] {
            let group = group(1, 2_500);
            let before = limit(&group);
            let _held = hold(&group, before as usize);
            (1..4).for_each(|second| answers(&group, Outcome::Head { status: 200, took: MS }, second * SECOND));
            let base = group.limiter.report().unwrap().base;
            (4..20).for_each(|second| answers(&group, outcome, second * SECOND));
            assert_eq!(limit(&group) < before, falls, "{outcome:?}: {} after {before}", limit(&group));
            assert_eq!(group.limiter.report().unwrap().base, base, "{outcome:?}");
        }
    }

    #[test]
    fn a_reload_keeps_what_was_found_out_within_its_bounds() {
        let group = group(1, 10_000);
        let _held = hold(&group, 90);
        (1..20).for_each(|second| answers(&group, Outcome::Head { status: 200, took: MS }, second * SECOND));
        let found = limit(&group);
        assert!(found > 105, "{found}");
        for (bounds, expected) in [((1, 10_000), found), ((1, 50), 50), ((200, 300), 200)] {
            group.limiter.begin(Some(Adaptive { min: bounds.0, max: bounds.1 }));
            assert_eq!(limit(&group), expected, "{bounds:?}");
        }
        assert_eq!(group.limiter.report().unwrap().in_flight, 90);
        group.limiter.begin(None);
        assert_eq!(group.limiter.report(), None);
        assert!(Limiter::take(&group, Priority::Lowest).is_ok());
    }

    #[test]
    fn bounds_that_contradict_each_other_are_refused() {
        let codes = |min: Option<u32>, max: Option<u32>| {
            let mut wrong = Vec::new();
            Adaptive::compile(&AdaptiveSettings { min: min.map(at), max: max.map(at) }, &mut wrong);
            wrong.iter().map(|one| one.code).collect::<Vec<_>>()
        };
        for (min, max) in [(Some(0), Some(10)), (Some(10), Some(9)), (Some(1), Some(MOST + 1)), (Some(1_001), None), (None, Some(3))] {
            assert_eq!(codes(min, max), ["out-of-range"], "{min:?} {max:?}");
        }
        assert!(codes(Some(5), Some(5)).is_empty() && codes(None, None).is_empty());
    }
}
