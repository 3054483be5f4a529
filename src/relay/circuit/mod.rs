//! Decides when a circuit opens, is probed and closes: of an upstream as a whole, and of each address of its targets.
//!
//! Closed, it counts failures and slow answers over a window. Open, it lets nothing through for a while. Half open, it lets a bounded
//! number of requests find out: when all of them went well it closes, when one did not it is open again. Does not decide what a failure is
//! (`outcome.rs`), nor answers (`admit.rs`). Pure: time is passed in.

pub mod settings;
mod window;

use std::sync::atomic::{AtomicU8, AtomicU32, AtomicU64, Ordering::Relaxed};

use parking_lot::Mutex;

use self::settings::CircuitBreaker;
use self::window::{Sum, Window};
use crate::config::types::Percent;
use crate::reply::problem::Kind;

pub static CIRCUIT_OPEN: Kind = Kind {
    code: "circuit-open",
    status: 503,
    error: "Service unavailable",
    about: "So many requests to the upstream failed or were slow that its `circuit_breaker` sends it none for a while. `Retry-After` says when it is tried again; `/status` says why.",
};

/// One circuit.
#[derive(Debug, Default)]
pub struct Circuit {
    phase: AtomicU8,
    window: Window,
    /// When an open one is probed, in nanoseconds of the monotonic clock.
    until: AtomicU64,
    /// Probes that are on their way, and those that went well.
    probing: AtomicU32,
    proved: AtomicU32,
    /// How many probes there may be at once.
    room: AtomicU32,
    /// Held while it turns, so that a turn is told once.
    turning: Mutex<()>,
    pub opened: AtomicU64,
}

/// Where a circuit stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Phase {
    Closed = 0,
    Open = 1,
    HalfOpen = 2,
}

/// What is counted of a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Seen {
    pub failed: bool,
    pub slow: bool,
    /// The head of its answer was counted before, as one that went well.
    pub is_late: bool,
}

/// A change, to be told once.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Turn {
    /// With the reason.
    Opened(String),
    Closed,
}

// === impl Seen ===

impl Seen {
    pub const WELL: Seen = Seen { failed: false, slow: false, is_late: false };
    /// Its answer had begun well and came to a bad end.
    pub const FAILED_LATE: Seen = Seen { failed: true, slow: false, is_late: true };
}

// === impl Phase ===

impl Phase {
    pub fn as_str(self) -> &'static str {
        match self {
            Phase::Closed => "closed",
            Phase::Open => "open",
            Phase::HalfOpen => "half_open",
        }
    }
}

// === impl Circuit ===

impl Circuit {
    #[inline]
    pub fn phase(&self) -> Phase {
        match self.phase.load(Relaxed) {
            0 => Phase::Closed,
            1 => Phase::Open,
            _ => Phase::HalfOpen,
        }
    }

    /// When an open one is probed; monotonic nanoseconds.
    pub fn until(&self) -> u64 {
        self.until.load(Relaxed)
    }

    /// Counts an attempt. `is_probe`: it was let through by [`Circuit::probe`].
    #[inline]
    pub fn note(&self, rules: &CircuitBreaker, seen: Seen, is_probe: bool, now: u64) -> Option<Turn> {
        if seen == Seen::WELL && self.phase() == Phase::Closed {
            self.window.note(rules.slice, seen, now);
            return None;
        }
        self.note_odd(rules, seen, is_probe, now)
    }

    /// The same of one that did not go well, or through a circuit that is not closed.
    #[inline(never)]
    fn note_odd(&self, rules: &CircuitBreaker, seen: Seen, is_probe: bool, now: u64) -> Option<Turn> {
        let Seen { failed, slow, is_late } = seen;
        match self.phase() {
            // Its head had closed the circuit a moment ago.
            Phase::Closed if is_late && is_probe && now.saturating_sub(self.until()) <= nanos(rules.window) => {
                self.open(rules, Phase::Closed, "a probe failed".to_owned(), now)
            }
            Phase::Closed => {
                self.window.note(rules.slice, seen, now);
                if !failed && !slow {
                    return None;
                }
                let why = too_much(rules, self.window.sum(rules.slice, now))?;
                self.open(rules, Phase::Closed, why, now)
            }
            Phase::HalfOpen if is_probe => {
                if failed || slow {
                    let why = if failed { "a probe failed" } else { "a probe was slow" };
                    return self.open(rules, Phase::HalfOpen, why.to_owned(), now);
                }
                if self.proved.fetch_add(1, Relaxed) + 1 < rules.probes {
                    return None;
                }
                let _turning = self.turning.lock();
                if self.phase() != Phase::HalfOpen {
                    return None;
                }
                self.window.clear();
                self.phase.store(Phase::Closed as u8, Relaxed);
                Some(Turn::Closed)
            }
            // It began before the circuit opened, and says nothing new.
            Phase::HalfOpen | Phase::Open => None,
        }
    }

    fn open(&self, rules: &CircuitBreaker, from: Phase, why: String, now: u64) -> Option<Turn> {
        let _turning = self.turning.lock();
        if self.phase() != from {
            return None;
        }
        self.opened.fetch_add(1, Relaxed);
        self.until.store(now.saturating_add(nanos(rules.open_for)), Relaxed);
        self.phase.store(Phase::Open as u8, Relaxed);
        Some(Turn::Opened(why))
    }

    /// As it was in another process: open, for so long.
    pub fn restore(&self, until: u64) {
        let _turning = self.turning.lock();
        self.until.store(until, Relaxed);
        self.phase.store(Phase::Open as u8, Relaxed);
    }

    /// From open to half open, where it is time. True: it has turned.
    pub fn relent(&self, probes: u32, now: u64) -> bool {
        if self.phase() != Phase::Open || now < self.until() {
            return false;
        }
        let _turning = self.turning.lock();
        if self.phase() != Phase::Open {
            return false;
        }
        self.proved.store(0, Relaxed);
        self.room.store(probes, Relaxed);
        self.phase.store(Phase::HalfOpen as u8, Relaxed);
        true
    }

    /// Closed, whatever it was: nothing is configured that would look after it.
    pub fn forget(&self) {
        let _turning = self.turning.lock();
        self.window.clear();
        self.phase.store(Phase::Closed as u8, Relaxed);
    }

    /// Whether a half-open one would let a request through.
    pub fn has_room(&self) -> bool {
        self.probing.load(Relaxed) < self.room.load(Relaxed)
    }

    /// Lets a request through a half-open circuit, which has to be given back by [`Circuit::probed`].
    pub fn probe(&self) -> bool {
        let room = self.room.load(Relaxed);
        self.probing.fetch_update(Relaxed, Relaxed, |now| (now < room).then_some(now + 1)).is_ok()
    }

    pub fn probed(&self) {
        self.probing.fetch_sub(1, Relaxed);
    }
}

/// Why a circuit opens.
fn too_much(rules: &CircuitBreaker, sum: Sum) -> Option<String> {
    let Sum { all, failed, slow } = sum;
    if all < rules.min_requests {
        return None;
    }
    // A late failure may be counted in another stretch than its request.
    let share = |part: u32| u64::from(part.min(all)) * 100 / u64::from(all);
    let is_over = |part: u32, most: Percent| u64::from(part) * 10_000 >= u64::from(most.0) * u64::from(all);
    if is_over(failed, rules.failures) {
        return Some(format!("{}% of {all} requests in {:?} failed", share(failed), rules.window));
    }
    let (after, most) = rules.slow?;
    is_over(slow, most).then(|| format!("{}% of {all} requests in {:?} took more than {after:?}", share(slow), rules.window))
}

pub(super) fn nanos(time: std::time::Duration) -> u64 {
    u64::try_from(time.as_nanos()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    const S: u64 = 1_000_000_000;
    const GOOD: Seen = Seen::WELL;
    const BAD: Seen = Seen { failed: true, ..GOOD };
    const SLOW: Seen = Seen { slow: true, ..GOOD };

    fn rules() -> CircuitBreaker {
        CircuitBreaker {
            of: settings::Scope::Both,
            window: Duration::from_secs(10),
            slice: window::slice(Duration::from_secs(10)),
            min_requests: 10,
            failures: Percent(5_000),
            slow: Some((Duration::from_secs(1), Percent(8_000))),
            open_for: Duration::from_secs(5),
            probes: 2,
        }
    }

    #[test]
    fn it_opens_when_the_share_of_failures_is_reached_and_not_before() {
        let (circuit, rules) = (Circuit::default(), rules());
        for n in 0..4 {
            assert_eq!(circuit.note(&rules, BAD, false, n), None, "too few requests to tell");
            assert_eq!(circuit.note(&rules, GOOD, false, n), None);
        }
        assert_eq!(circuit.note(&rules, GOOD, false, 9), None);
        assert_eq!(circuit.note(&rules, BAD, false, S), Some(Turn::Opened("50% of 10 requests in 10s failed".to_owned())));
        assert_eq!((circuit.phase(), circuit.until()), (Phase::Open, 6 * S));
        assert_eq!(circuit.note(&rules, BAD, false, S), None, "told once");
    }

    #[test]
    fn it_opens_when_too_many_are_slow() {
        let (circuit, rules) = (Circuit::default(), rules());
        (0..2).for_each(|_| assert_eq!(circuit.note(&rules, GOOD, false, 0), None));
        (0..7).for_each(|_| assert_eq!(circuit.note(&rules, SLOW, false, 0), None));
        assert_eq!(circuit.note(&rules, SLOW, false, 0), Some(Turn::Opened("80% of 10 requests in 10s took more than 1s".to_owned())));
    }

    #[test]
    fn what_was_long_ago_is_forgotten() {
        let (circuit, rules) = (Circuit::default(), rules());
        (0..9).for_each(|_| assert_eq!(circuit.note(&rules, BAD, false, 0), None));
        (0..9).for_each(|_| assert_eq!(circuit.note(&rules, BAD, false, 12 * S), None));
        assert!(circuit.note(&rules, BAD, false, 13 * S).is_some());
    }

    fn opened() -> Circuit {
        let circuit = Circuit::default();
        (0..10).for_each(|_| drop(circuit.note(&rules(), BAD, false, 0)));
        assert_eq!(circuit.phase(), Phase::Open);
        circuit
    }

    #[test]
    fn half_open_it_lets_a_few_through_and_closes_when_all_went_well() {
        let (circuit, rules) = (opened(), rules());
        assert!(!circuit.relent(2, 5 * S - 1));
        assert!(circuit.relent(2, 5 * S) && !circuit.relent(2, 5 * S));
        assert!(circuit.probe() && circuit.probe());
        assert!(!circuit.probe() && !circuit.has_room(), "no more at once than configured");
        assert_eq!(circuit.note(&rules, BAD, false, 5 * S), None, "of an attempt from before");
        assert_eq!(circuit.note(&rules, GOOD, true, 5 * S), None);
        circuit.probed();
        assert!(circuit.has_room());
        assert_eq!(circuit.note(&rules, GOOD, true, 5 * S), Some(Turn::Closed));
        assert_eq!(circuit.note(&rules, BAD, false, 5 * S), None, "counted anew");
        assert_eq!(circuit.phase(), Phase::Closed);
    }

    #[test]
    fn one_probe_that_fails_opens_it_again() {
        let (circuit, rules) = (opened(), rules());
        circuit.relent(2, 5 * S);
        assert_eq!(circuit.note(&rules, BAD, true, 6 * S), Some(Turn::Opened("a probe failed".to_owned())));
        assert_eq!((circuit.until(), circuit.opened.load(Relaxed)), (11 * S, 2));
    }

    #[test]
    fn what_ends_badly_after_a_good_beginning_is_one_request_that_failed() {
        let (circuit, rules) = (Circuit::default(), rules());
        for n in 0..9 {
            assert_eq!(circuit.note(&rules, GOOD, false, n), None);
            assert_eq!(circuit.note(&rules, Seen::FAILED_LATE, false, n), None, "nine requests are too few to tell");
        }
        assert_eq!(circuit.note(&rules, GOOD, false, 9), None);
        let opened = Turn::Opened("100% of 10 requests in 10s failed".to_owned());
        assert_eq!(circuit.note(&rules, Seen::FAILED_LATE, false, 9), Some(opened));
    }

    #[test]
    fn a_probe_that_ends_badly_opens_what_its_head_had_closed_unless_that_was_long_ago() {
        for (ends, opens) in [(6 * S, true), (60 * S, false)] {
            let (circuit, rules) = (opened(), rules());
            circuit.relent(2, 5 * S);
            circuit.note(&rules, GOOD, true, 5 * S);
            assert_eq!(circuit.note(&rules, GOOD, true, 5 * S), Some(Turn::Closed));
            let turn = circuit.note(&rules, Seen::FAILED_LATE, true, ends);
            assert_eq!(turn, opens.then(|| Turn::Opened("a probe failed".to_owned())));
        }
    }

    #[test]
    fn a_failure_that_is_later_than_its_window_is_no_share_of_nothing() {
        let (circuit, rules) = (Circuit::default(), rules());
        (0..10).for_each(|n| assert_eq!(circuit.note(&rules, GOOD, false, n), None));
        (0..20).for_each(|_| assert_eq!(circuit.note(&rules, Seen::FAILED_LATE, false, 60 * S), None, "they began long ago"));
    }
}
