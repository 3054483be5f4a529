//! What the limits of one stage ask of a request together: all are charged, or none and the request is refused.
//!
//! Decides nothing of its own: see `buckets.rs` for who is admitted. Which limits there are is gathered in `rate_limit.rs`.

use std::cmp::Reverse;

use smallvec::SmallVec;

use super::charge::Charge;
use super::key::Hashes;
use super::limit::Limit;
use super::pace::Pace;
use super::refusal::refusal;
use super::sharing;
use super::throttle::Waiting;
use super::used::Used;
use crate::ctx::Facts;
use crate::policy::Stop;
use crate::policy::buckets::{Asked, Asking, Buckets};

/// What the limits of a stage ask of a request.
#[derive(Default)]
pub struct Asks<'a> {
    asked: SmallVec<[Asked<'a, Of<'a>>; 8]>,
    /// With where each stands among those.
    waiting: SmallVec<[(usize, Waiting); 1]>,
}

/// What is asked: for which limit, by what it counts.
pub struct Of<'a> {
    pub limit: &'a Limit,
    pub used: Option<&'a Used>,
    pub key_kind: &'static str,
}

// === impl Asks ===

impl<'a> Asks<'a> {
    /// `pace`: the limit's own, or the part of this gateway, for which nobody waits.
    #[inline(always)]
    pub fn ask<'f>(&mut self, limit: &'a Limit, used: Option<&'a Used>, pace: &'a Pace, may_wait: bool, hashes: &mut Hashes<'f>)
    where
        'a: 'f,
    {
        let identity = sharing::identity_of(limit, used, hashes.seen.chosen);
        let (key_kind, key) = hashes.bucket(limit.by(), identity);
        let mut patience = 0;
        if let Some(throttle) = limit.throttle().filter(|_| may_wait)
            && let Some(place) = throttle.queue(limit.series(), key, pace)
        {
            patience = throttle.wait;
            self.waiting.push((self.asked.len(), place));
        }
        let asking = Asking { identity, key, pace, bounds: limit.bounds(hashes.seen.now), patience };
        self.asked.push(Asked::new(asking, Of { limit, used, key_kind }));
    }

    /// Charges all of them. Either way `facts.charges` says where each stands, tightest first; where others stood there, behind them.
    #[inline(always)]
    pub fn charge(&mut self, facts: &mut Facts, buckets: &Buckets) -> Result<(), Stop> {
        let Asks { asked, waiting } = self;
        if asked.is_empty() {
            return Ok(());
        }
        let told = facts.charges.len();
        let charges = &mut facts.charges;
        let mut waits: SmallVec<[u64; 8]> = SmallVec::new();
        let is_waiting = !waiting.is_empty();
        let is_admitted = buckets.admit(facts.now.mono, asked, |one, verdict| {
            Charge::of(one.of.limit, one.of.key_kind, &one.asking, &verdict, true).put(charges, told);
            if is_waiting {
                waits.push(verdict.wait);
            }
        });
        if is_admitted {
            if is_waiting {
                delay(facts, std::mem::take(waiting), &waits);
            }
            return Ok(());
        }
        facts.charges.truncate(told);
        self.judge(facts, buckets)
    }

    /// What was not admitted at once.
    #[inline(never)]
    fn judge(&mut self, facts: &mut Facts, buckets: &Buckets) -> Result<(), Stop> {
        let Asks { asked, waiting } = self;
        let askings: SmallVec<[_; 8]> = asked.iter().map(|one| one.asking).collect();
        let outcome = buckets.judge(facts.now.mono, &askings);
        for (one, verdict) in asked.iter().zip(&outcome.verdicts) {
            facts.charges.push(Charge::of(one.of.limit, one.of.key_kind, &one.asking, verdict, outcome.is_admitted));
        }
        facts.charges.sort_by_key(Charge::tightness);
        if outcome.is_admitted {
            let waits: SmallVec<[u64; 8]> = outcome.verdicts.iter().map(|verdict| verdict.wait).collect();
            delay(facts, std::mem::take(waiting), &waits);
            return Ok(());
        }
        for (one, verdict) in asked.iter().zip(&outcome.verdicts) {
            if verdict.retry_after > 0 {
                one.of.limit.note_refused(one.asking.key, facts);
            }
        }
        let refusing = asked.iter().zip(&outcome.verdicts).min_by_key(|(_, told)| (Reverse(told.retry_after), Reverse(told.reading.reset)));
        let (one, verdict) = refusing.expect("what was refused was asked");
        let at = one.of.used.and_then(|used| used.at(facts.chosen)).map(|at| &**at);
        Err(refusal(one.of.limit, at, one.of.key_kind, verdict.retry_after, verdict.is_overflow).into())
    }
}

/// The request has to wait as long as the longest of the limits says; `waits` has them all.
fn delay(facts: &mut Facts, waiting: SmallVec<[(usize, Waiting); 1]>, waits: &[u64]) {
    for (index, place) in waiting {
        let wait = waits.get(index).copied().unwrap_or_default();
        if wait > 0 {
            place.note();
            facts.delay = facts.delay.max(wait);
            facts.waiting.push(place);
        }
    }
}
