//! What one limit said of one request. Decides nothing but which of several is the tightest.

use std::cmp::Reverse;
use std::sync::Arc;

use smallvec::SmallVec;

use super::label::Label;
use super::limit::Limit;
use super::pace::{Pace, Reading};
use super::window::Bounds;
use crate::policy::buckets::{Asking, Verdict};

/// What one limit said of one request.
#[derive(Clone, Debug)]
pub struct Charge {
    /// The name of the limit or plan.
    pub limit: Arc<Label>,
    /// Such as `consumer` or `client_ip`.
    pub key_kind: &'static str,
    /// The size of the bucket.
    pub size: u32,
    /// Whole seconds in which an empty bucket fills, rounded up; at least 1.
    pub window: u64,
    /// Whole tokens left.
    pub remaining: u32,
    /// Whole seconds until the bucket is full again, rounded up.
    pub reset: u64,
    /// Whole seconds until there is one more token, rounded up; 0 where the bucket is full.
    pub next: u64,
    /// Whole seconds until the next request passes, rounded up; 0 where this one did.
    pub retry_after: u64,
    /// Milliseconds that the request has to wait, rounded up.
    pub wait_ms: u64,
}

/// Charges of limits that have admitted, behind those of others: the tightest first, of equals the later last.
pub struct Told<'f> {
    charges: &'f mut SmallVec<[Charge; 4]>,
    others: usize,
    /// Of the last one.
    room: u64,
}

// === impl Told ===

impl<'f> Told<'f> {
    #[inline(always)]
    pub fn behind(charges: &'f mut SmallVec<[Charge; 4]>) -> Self {
        Told { others: charges.len(), charges, room: 0 }
    }

    #[inline(always)]
    pub fn put(&mut self, charge: Charge) {
        let room = charge.room();
        self.charges.push(charge);
        if room < self.room { self.settle() } else { self.room = room }
    }

    /// Brings the last one forward.
    #[inline(never)]
    fn settle(&mut self) {
        let charges = self.charges.get_mut(self.others..).unwrap_or_default();
        for place in (1..charges.len()).rev() {
            if charges[place - 1].room() <= charges[place].room() {
                break;
            }
            charges.swap(place - 1, place);
        }
    }

    /// They have not, after all.
    #[inline(never)]
    pub fn take_back(&mut self) {
        self.charges.truncate(self.others);
    }

    /// All have: those of others among them, where they belong.
    #[inline(always)]
    pub fn sort(self) {
        if self.others > 0 && !self.charges.is_sorted_by_key(Charge::tightness) {
            self.charges.sort_by_key(Charge::tightness);
        }
    }
}

// === impl Charge ===

impl Charge {
    /// Of a limit that has admitted the request at once.
    #[inline(always)]
    pub fn admitted(limit: &Limit, key_kind: &'static str, pace: &Pace, bounds: Bounds, reading: Reading) -> Charge {
        let Reading { remaining, reset, next } = reading;
        let window = if bounds.length == 0 { limit.label().window() } else { bounds.seconds() };
        Charge { limit: limit.label().clone(), key_kind, size: pace.size(), window, remaining, reset, next, retry_after: 0, wait_ms: 0 }
    }

    #[inline(always)]
    pub fn of(limit: &Limit, key_kind: &'static str, asking: &Asking<'_>, verdict: &Verdict, is_admitted: bool) -> Charge {
        let mut charge = Charge::admitted(limit, key_kind, asking.pace, asking.bounds, verdict.reading);
        if verdict.retry_after > 0 {
            (charge.next, charge.retry_after) = (verdict.retry_after, verdict.retry_after);
        }
        if is_admitted && verdict.wait > 0 {
            charge.wait_ms = verdict.wait.div_ceil(1_000_000);
        }
        charge
    }

    /// The tightest is the least: who refuses for the longest, then of whom the fewest are left, then who is full again last.
    #[inline]
    pub fn tightness(&self) -> (Reverse<u64>, u64) {
        (Reverse(self.retry_after), self.room())
    }

    /// The same of those that do not refuse.
    #[inline(always)]
    fn room(&self) -> u64 {
        u64::from(self.remaining) << 32 | u64::from(u32::MAX).saturating_sub(self.reset)
    }
}

#[cfg(test)]
mod tests {
    use super::super::pace::tests::{Dice, pace};
    use super::*;

    #[test]
    fn those_that_admit_stand_where_sorting_would_have_put_them() {
        let label = Arc::new(Label::new(&"x".into(), &pace("1/m", 1), &[]));
        let mut dice = Dice(7);
        for _ in 0..2_000 {
            let mut made = |count: u64| -> Vec<Charge> {
                let one = |size| {
                    let (limit, remaining, reset) = (label.clone(), dice.roll(3) as u32, dice.roll(3));
                    Charge { limit, key_kind: "global", size, window: 60, remaining, reset, next: 0, retry_after: 0, wait_ms: 0 }
                };
                (0..count as u32).map(one).collect()
            };
            let (mut others, own) = (made(3), made(6));
            others.sort_by_key(Charge::tightness);
            let sizes = |charges: &[Charge]| charges.iter().map(|charge| (charge.size, charge.remaining, charge.reset)).collect::<Vec<_>>();
            for before in [&[][..], &others] {
                let mut charges: SmallVec<[Charge; 4]> = before.iter().cloned().collect();
                let mut told = Told::behind(&mut charges);
                own.iter().cloned().for_each(|charge| told.put(charge));
                told.sort();
                let mut sorted = [before, &own].concat();
                sorted.sort_by_key(Charge::tightness);
                assert_eq!(sizes(&charges), sizes(&sorted));
                let mut told = Told::behind(&mut charges);
                own.iter().cloned().for_each(|charge| told.put(charge));
                told.take_back();
                assert_eq!(sizes(&charges), sizes(&sorted));
            }
        }
    }
}
