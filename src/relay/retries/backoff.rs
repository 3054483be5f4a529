//! Decides how long is waited before another attempt: exponential, with full jitter. Waits for nothing itself.
//!
//! Pure: the attempt and 64 random bits in, a time out. Full jitter spreads what failed together over the whole time; see "Exponential Backoff And
//! Jitter", Amazon, 2015.

use std::time::Duration;

use schemars::JsonSchema;
use serde::Deserialize;

use super::super::upstream::in_range;
use crate::config::diagnostic::Diagnostic;
use crate::config::types::{At, Period};

/// How long is waited before another attempt.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct BackoffSettings {
    /// The most that is waited before the second attempt; twice that before the third, and so on. 1ms to 10s.
    pub base: At<Period>,
    /// No more is waited before any. Default: ten times `base`, at most 60s.
    pub max: Option<At<Period>>,
}

/// The compiled form.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Backoff {
    base: Duration,
    max: Duration,
}

const LEAST: Period = Period(Duration::from_millis(1));
const MOST: Period = Period::seconds(60);

// === impl Backoff ===

impl Backoff {
    pub fn compile(settings: &At<BackoffSettings>, wrong: &mut Vec<Diagnostic>) -> Backoff {
        let BackoffSettings { base, max } = &settings.value;
        let least = in_range(Some(base), base.value, LEAST, Period::seconds(10), wrong);
        let default = Period((least * 10).min(MOST.0));
        let most = in_range(max.as_ref(), default, LEAST, MOST, wrong);
        if let Some(max) = max.as_ref().filter(|max| max.value < base.value) {
            let message = format!("`{}` is less than `base`: expected at least {}", max.value, base.value);
            wrong.push(Diagnostic::at(&max.place, "out-of-range", message));
        }
        Backoff { base: least, max: most }
    }

    /// How long to wait after the attempt with this number, from 1.
    pub fn wait(&self, number: u8, random: u64) -> Duration {
        let ceiling = self.base.saturating_mul(1 << u32::from(number.saturating_sub(1)).min(16)).min(self.max);
        let nanos = u64::try_from(ceiling.as_nanos()).unwrap_or(u64::MAX);
        Duration::from_nanos(((u128::from(random) * (u128::from(nanos) + 1)) >> 64) as u64)
    }
}

impl std::fmt::Display for Backoff {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "up to {}, doubled to at most {}", Period(self.base), Period(self.max))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::relay::upstream::tests::at;

    const MS: Duration = Duration::from_millis(1);

    fn compile(base: u64, max: Option<u64>) -> (Backoff, Vec<&'static str>) {
        let period = |ms| at(Period(MS * ms as u32));
        let mut wrong = Vec::new();
        let backoff = Backoff::compile(&at(BackoffSettings { base: period(base), max: max.map(period) }), &mut wrong);
        (backoff, wrong.iter().map(|one| one.code).collect())
    }

    #[test]
    fn each_attempt_may_wait_twice_as_long_up_to_the_most() {
        let (backoff, wrong) = compile(25, None);
        assert!(wrong.is_empty());
        let longest = |number| backoff.wait(number, u64::MAX).as_millis();
        assert_eq!([1, 2, 3, 4, 5, 6, 200, 0].map(longest), [25, 50, 100, 200, 250, 250, 250, 25]);
        assert_eq!(backoff.wait(3, 0), Duration::ZERO);
    }

    #[test]
    fn every_time_up_to_the_longest_is_as_likely() {
        let (backoff, _) = compile(100, None);
        let mut tenths = [0; 10];
        let mut random = fastrand::Rng::with_seed(7);
        for _ in 0..10_000 {
            tenths[(backoff.wait(1, random.u64(..)).as_nanos() / 10_000_001) as usize] += 1;
        }
        assert!(tenths.iter().all(|count| (850..1_150).contains(count)), "{tenths:?}");
    }

    #[test]
    fn what_shrinks_or_never_ends_is_refused() {
        assert_eq!(compile(25, Some(10)).1, ["out-of-range"]);
        assert_eq!(compile(0, None).1, ["out-of-range"]);
        assert_eq!(compile(10, Some(60_001)).1, ["out-of-range"]);
        assert!(compile(10, Some(10)).1.is_empty());
    }
}
