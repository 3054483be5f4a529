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

    /// Puts it where it belongs among those from `told` on, none of which has refused: the tightest first, of equals the later last.
    #[inline(always)]
    pub fn put(self, charges: &mut SmallVec<[Charge; 4]>, told: usize) {
        charges.push(self);
        let charges = charges.get_mut(told..).unwrap_or_default();
        for place in (1..charges.len()).rev() {
            if charges[place - 1].room() <= charges[place].room() {
                break;
            }
            charges.swap(place - 1, place);
        }
    }

    /// Puts the tightest first, where it is not there already.
    #[inline]
    pub fn sort(charges: &mut [Charge]) {
        if !charges.is_sorted_by_key(Charge::tightness) {
            charges.sort_by_key(Charge::tightness);
        }
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
