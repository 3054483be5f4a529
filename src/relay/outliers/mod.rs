//! Decides which addresses are ejected for what requests met there, how long, and how many may be out at once.
//!
//! Two ways: so many failures in a row, found at once; and worse than the others, found when they are compared. Does not decide what a
//! failure is (`outcome.rs`). Bringing back is `keep.rs`, which asks here.

pub mod settings;

use std::sync::atomic::{AtomicU32, AtomicU64, Ordering::Relaxed};
use std::time::Duration;

use self::settings::{OutlierDetection, Slowness, SuccessRate};
use crate::relay::attempt::outcome::Outcome;

/// What is counted for one address.
#[derive(Debug, Default)]
pub struct Conduct {
    /// In a row, as things are now.
    no_answers: AtomicU32,
    gateway_errors: AtomicU32,
    server_errors: AtomicU32,
    /// Since the last comparison.
    all: AtomicU32,
    bad: AtomicU32,
    answers: AtomicU32,
    micros: AtomicU64,
    /// How often it was ejected lately: each time is longer.
    pub ejections: AtomicU32,
    /// When an ejection ends, in nanoseconds of the monotonic clock.
    until: AtomicU64,
}

/// What one address did between two comparisons.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Stretch {
    pub all: u32,
    pub bad: u32,
    pub answers: u32,
    pub micros: u64,
}

/// With fewer, nobody knows who is the odd one.
const COMPARED: usize = 3;

// === impl Conduct ===

impl Conduct {
    /// Counts an attempt. The reason to eject, where there is one.
    #[inline]
    pub fn note(&self, rules: &OutlierDetection, outcome: Outcome) -> Option<String> {
        match outcome {
            Outcome::Head { status, took } if status < 500 => {
                self.begun(took);
                clear(&self.gateway_errors);
                clear(&self.server_errors);
                None
            }
            Outcome::Whole => {
                clear(&self.no_answers);
                None
            }
            Outcome::Head { .. } | Outcome::Call { .. } | Outcome::CallEnded { .. } | Outcome::Failed { .. } => {
                self.note_odd(rules, outcome)
            }
        }
    }

    /// The same of what is no answer that went well.
    #[inline(never)]
    fn note_odd(&self, rules: &OutlierDetection, outcome: Outcome) -> Option<String> {
        let (no_answer, status) = match outcome {
            Outcome::Head { status, took } | Outcome::Call { status: Some(status), took } => {
                self.begun(took);
                (false, status)
            }
            Outcome::Call { status: None, took } => {
                // A call is as its end is.
                self.begun(took);
                return None;
            }
            Outcome::CallEnded { status } => (false, status),
            Outcome::Failed { before_head, .. } => {
                if before_head {
                    self.all.fetch_add(1, Relaxed);
                }
                (true, 0)
            }
            Outcome::Whole => return None,
        };
        if outcome.is_bad() {
            self.bad.fetch_add(1, Relaxed);
        }
        let in_a_row = |counter: &AtomicU32, is_bad: bool| match is_bad {
            true => counter.fetch_add(1, Relaxed) + 1,
            false => {
                clear(counter);
                0
            }
        };
        // That an answer begins says nothing of its end: a streak of those that broke ends with one that did not.
        let no_answers = if no_answer { in_a_row(&self.no_answers, true) } else { 0 };
        let gateway_errors = in_a_row(&self.gateway_errors, no_answer || matches!(status, 502..=504));
        let server_errors = in_a_row(&self.server_errors, no_answer || status >= 500);
        let reached = |count: u32, limit: u32| limit > 0 && count >= limit;
        if reached(no_answers, rules.connection_failures) {
            return Some(format!("{no_answers} attempts in a row without an answer"));
        }
        if reached(gateway_errors, rules.gateway_errors) {
            return Some(format!("{gateway_errors} gateway errors in a row"));
        }
        reached(server_errors, rules.server_errors).then(|| format!("{server_errors} server errors in a row"))
    }

    #[inline]
    fn begun(&self, took: u64) {
        self.all.fetch_add(1, Relaxed);
        self.answers.fetch_add(1, Relaxed);
        self.micros.fetch_add(took / 1_000, Relaxed);
    }

    /// Begins to count in a row anew: it has been ejected, or was spared.
    pub fn restart(&self) {
        [&self.no_answers, &self.gateway_errors, &self.server_errors].into_iter().for_each(|counter| counter.store(0, Relaxed));
    }

    pub fn eject_until(&self, until: u64) {
        self.until.store(until, Relaxed);
    }

    pub fn ejected_until(&self) -> u64 {
        self.until.load(Relaxed)
    }

    /// One good stretch makes up for one ejection.
    pub fn forgive(&self) {
        let _ = self.ejections.fetch_update(Relaxed, Relaxed, |count| count.checked_sub(1));
    }

    /// What happened since the last comparison.
    pub fn take(&self) -> Stretch {
        Stretch {
            all: self.all.swap(0, Relaxed),
            bad: self.bad.swap(0, Relaxed),
            answers: self.answers.swap(0, Relaxed),
            micros: self.micros.swap(0, Relaxed),
        }
    }
}

/// Without a write where there is nothing to change: other threads read it, too.
#[inline]
fn clear(counter: &AtomicU32) {
    if counter.load(Relaxed) != 0 {
        counter.store(0, Relaxed);
    }
}

/// How long the next ejection lasts; `before` is how many there were lately.
pub fn length(rules: &OutlierDetection, before: u32) -> Duration {
    rules.eject_for.saturating_mul(before.saturating_add(1)).min(rules.eject_at_most)
}

/// Whether one more may be ejected, of `all` addresses, `ejected` of which are, and `sound` of which, this one included, still take requests.
pub fn may_eject(rules: &OutlierDetection, all: usize, ejected: usize, sound: usize) -> bool {
    if rules.max_ejected.0 == 10_000 {
        return true;
    }
    sound > 1 && (ejected + 1) * 10_000 <= usize::from(rules.max_ejected.0) * all
}

/// Who is worse than the others: its place in `stretches` and the reason.
pub fn odd_ones(rules: &OutlierDetection, stretches: &[Stretch]) -> Vec<(usize, String)> {
    let mut odd = Vec::new();
    if let Some(rule) = rules.success_rate {
        odd.extend(failing(rule, stretches));
    }
    if let Some(rule) = rules.latency {
        odd.extend(slow(rule, stretches));
    }
    odd.sort_by_key(|(at, _)| *at);
    odd.dedup_by_key(|(at, _)| *at);
    odd
}

fn failing(rule: SuccessRate, stretches: &[Stretch]) -> Vec<(usize, String)> {
    // In hundredths of a percent.
    let rate = |s: &Stretch| u64::from(s.all.saturating_sub(s.bad)) * 10_000 / u64::from(s.all.max(1));
    let compared = compared(stretches, |s| (s.all >= rule.min_requests).then(|| rate(s)));
    let Some(median) = median(&compared) else { return Vec::new() };
    let is_odd = |rate: u64| rate + u64::from(rule.points) * 100 < median;
    let told = |(at, rate): (usize, u64)| {
        (at, format!("{}% of {} requests went well, {}% at the others", rate / 100, stretches[at].all, median / 100))
    };
    compared.into_iter().filter(|(_, rate)| is_odd(*rate)).map(told).collect()
}

fn slow(rule: Slowness, stretches: &[Stretch]) -> Vec<(usize, String)> {
    let mean = |s: &Stretch| s.micros / u64::from(s.answers.max(1));
    let compared = compared(stretches, |s| (s.answers >= rule.min_requests).then(|| mean(s)));
    let Some(median) = median(&compared) else { return Vec::new() };
    let above = u64::try_from(rule.above.as_micros()).unwrap_or(u64::MAX);
    let is_odd = |mean: u64| mean > above && mean > median.saturating_mul(u64::from(rule.times));
    let told = |(at, mean): (usize, u64)| {
        (at, format!("answers take {:?} on average, {:?} at the others", Duration::from_micros(mean), Duration::from_micros(median)))
    };
    compared.into_iter().filter(|(_, mean)| is_odd(*mean)).map(told).collect()
}

fn compared(stretches: &[Stretch], figure: impl Fn(&Stretch) -> Option<u64>) -> Vec<(usize, u64)> {
    stretches.iter().enumerate().filter_map(|(at, stretch)| Some((at, figure(stretch)?))).collect()
}

fn median(compared: &[(usize, u64)]) -> Option<u64> {
    if compared.len() < COMPARED {
        return None;
    }
    let mut figures: Vec<u64> = compared.iter().map(|(_, figure)| *figure).collect();
    figures.sort_unstable();
    Some(figures[figures.len() / 2])
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::types::Percent;
    use crate::report::metrics::series::Failure;

    fn rules() -> OutlierDetection {
        OutlierDetection {
            connection_failures: 3,
            gateway_errors: 4,
            server_errors: 5,
            success_rate: Some(SuccessRate { points: 20, min_requests: 10 }),
            latency: Some(Slowness { times: 3, above: Duration::from_millis(50), min_requests: 10 }),
            every: Duration::from_secs(10),
            eject_for: Duration::from_secs(30),
            eject_at_most: Duration::from_secs(100),
            max_ejected: Percent(5_000),
        }
    }

    /// `+` a whole 200, `5` a 500, `3` a 503, `-` no answer, `h` a 200 that breaks; calls of gRPC: `o` OK, `u` UNAVAILABLE, `U` in the head.
    /// Where it says to eject: how many of each came before.
    fn run(outcomes: &str) -> Option<(usize, String)> {
        let (conduct, rules) = (Conduct::default(), rules());
        let head = |status| Outcome::Head { status, took: 1_000_000 };
        for (at, c) in outcomes.chars().enumerate() {
            let all: &[Outcome] = match c {
                '+' => &[head(200), Outcome::Whole],
                '5' => &[head(500), Outcome::Whole],
                '3' => &[head(503), Outcome::Whole],
                'o' => &[Outcome::Call { status: None, took: 1 }, Outcome::CallEnded { status: 200 }, Outcome::Whole],
                'u' => &[Outcome::Call { status: None, took: 1 }, Outcome::CallEnded { status: 503 }, Outcome::Whole],
                'U' => &[Outcome::Call { status: Some(503), took: 1 }, Outcome::Whole],
                'h' => &[head(200), Outcome::Failed { how: Failure::Broken, before_head: false }],
                _ => &[Outcome::Failed { how: Failure::Connect, before_head: true }],
            };
            for outcome in all {
                if let Some(why) = conduct.note(&rules, *outcome) {
                    return Some((at + 1, why));
                }
            }
        }
        None
    }

    #[test]
    fn so_many_in_a_row_and_not_one_less() {
        let told = |at, why: &str| Some((at, why.to_owned()));
        assert_eq!(run("--+--+--+"), None);
        assert_eq!(run("--+---"), told(6, "3 attempts in a row without an answer"));
        assert_eq!(run("hhh"), told(3, "3 attempts in a row without an answer"));
        assert_eq!(run("333+333+"), None);
        assert_eq!(run("3-33"), told(4, "4 gateway errors in a row"));
        assert_eq!(run("5555+5555+"), None);
        assert_eq!(run("53535"), told(5, "5 server errors in a row"));
        assert_eq!(run("++++++++"), None);
        assert_eq!(run("uUuouUuo"), None);
        assert_eq!(run("uU3u"), told(4, "4 gateway errors in a row"), "the head of a call is no answer yet");
    }

    #[test]
    fn a_count_of_nought_takes_nothing_out() {
        let rules = OutlierDetection { connection_failures: 0, gateway_errors: 0, server_errors: 0, ..rules() };
        let conduct = Conduct::default();
        assert!((0..100).all(|_| conduct.note(&rules, Outcome::Failed { how: Failure::Broken, before_head: true }).is_none()));
    }

    #[test]
    fn each_ejection_is_longer_up_to_the_longest() {
        assert_eq!((0..5).map(|before| length(&rules(), before).as_secs()).collect::<Vec<_>>(), [30, 60, 90, 100, 100]);
    }

    #[test]
    fn at_most_the_share_is_ejected_and_never_the_last_one() {
        let rules = rules();
        // (all, ejected, sound)
        for (all, ejected, sound, may) in [
            (1, 0, 1, false),
            (2, 0, 2, true),
            (2, 1, 1, false),
            (3, 0, 3, true),
            (3, 1, 2, false),
            (4, 1, 3, true),
            (4, 2, 2, false),
            (3, 0, 1, false),
        ] {
            assert_eq!(may_eject(&rules, all, ejected, sound), may, "{all} {ejected} {sound}");
        }
        assert!(
            may_eject(&OutlierDetection { max_ejected: Percent(10_000), ..rules }, 1, 0, 1),
            "where it is configured, the last one too"
        );
    }

    fn stretch(all: u32, bad: u32, ms: u64) -> Stretch {
        Stretch { all, bad, answers: all, micros: u64::from(all) * ms * 1_000 }
    }

    #[test]
    fn who_fails_or_is_slow_beside_the_others_is_found() {
        let good = stretch(100, 1, 20);
        let why = |stretches: &[Stretch]| odd_ones(&rules(), stretches);
        assert_eq!(why(&[good, good, good]), []);
        assert_eq!(why(&[good, stretch(100, 40, 20), good]), [(1, "60% of 100 requests went well, 99% at the others".to_owned())]);
        assert_eq!(why(&[good, good, stretch(100, 0, 400)]), [(2, "answers take 400ms on average, 20ms at the others".to_owned())]);
        assert_eq!(why(&[good, stretch(100, 40, 20)]), [], "of two, nobody knows who is odd");
        assert_eq!(why(&[good, good, stretch(9, 9, 900)]), [], "too few requests to tell");
        assert_eq!(why(&[stretch(100, 60, 20); 3]), [], "all fail: that is no outlier");
        let fast = stretch(100, 0, 1);
        assert_eq!(why(&[fast, fast, stretch(100, 0, 30)]), [], "slower, and fast enough");
    }
}
