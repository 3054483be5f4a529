//! What the limits of one stage ask of a request together: all are charged, or none and the request is refused. Of nearly all requests it
//! need not be gathered: see `at_once.rs`.
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
use crate::policy::buckets::{Asking, Buckets};

/// What the limits of a stage ask of a request.
#[derive(Default)]
pub struct Asks<'a> {
    askings: SmallVec<[Asking<'a>; 8]>,
    of: SmallVec<[Of<'a>; 8]>,
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
            self.waiting.push((self.askings.len(), place));
        }
        self.askings.push(Asking { identity, key, pace, bounds: limit.bounds(hashes.seen.now), patience });
        self.of.push(Of { limit, used, key_kind });
    }

    /// Charges all of them. Either way `facts.charges` says where each stands, tightest first.
    pub fn charge(self, facts: &mut Facts, buckets: &Buckets) -> Result<(), Stop> {
        let Asks { askings, of, waiting } = self;
        if askings.is_empty() {
            return Ok(());
        }
        let outcome = buckets.judge(facts.now.mono, &askings);
        let each = || of.iter().zip(&askings).zip(&outcome.verdicts).map(|((of, asking), verdict)| (of, asking, verdict));
        for (of, asking, verdict) in each() {
            facts.charges.push(Charge::of(of.limit, of.key_kind, asking, verdict, outcome.is_admitted));
        }
        facts.charges.sort_by_key(Charge::tightness);
        if outcome.is_admitted {
            let waits: SmallVec<[u64; 8]> = outcome.verdicts.iter().map(|verdict| verdict.wait).collect();
            delay(facts, waiting, &waits);
            return Ok(());
        }
        for (of, asking, _) in each().filter(|(_, _, verdict)| verdict.retry_after > 0) {
            of.limit.note_refused(asking.key, facts);
        }
        let refusing = each().min_by_key(|(_, _, told)| (Reverse(told.retry_after), Reverse(told.reading.reset)));
        let (of, _, verdict) = refusing.expect("what was refused was asked");
        let at = of.used.and_then(|used| used.at(facts.chosen)).map(|at| &**at);
        Err(refusal(of.limit, at, of.key_kind, verdict.retry_after, verdict.is_overflow).into())
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
