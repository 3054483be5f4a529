//! The shared limits of one request: taken from what this gateway may admit until it settles again, all or none.
//!
//! Decides nothing of its own: see `shared.rs`. What this gateway has to count alone is handed back.

use smallvec::SmallVec;

use super::charge::{Charge, Told};
use super::key::{Hashes, Seen};
use super::limit::Limit;
use super::pace::Pace;
use super::refusal::refusal;
use super::throttle::Waiting;
use super::used::Used;
use crate::ctx::Facts;
use crate::policy::buckets::{Asking, Buckets};
use crate::policy::{Request, Stop};

/// What was taken, and what is to be counted alone.
#[derive(Debug, Default)]
pub struct Taken<'a> {
    keys: SmallVec<[u128; 4]>,
    waiting: SmallVec<[(u64, Waiting); 1]>,
    /// With the part of this gateway.
    pub alone: SmallVec<[(&'a Limit, Option<&'a Used>, Pace); 2]>,
}

impl Taken<'_> {
    /// Another limit has refused.
    pub fn give_back(&self, buckets: &Buckets) {
        self.keys.iter().for_each(|key| buckets.shared.give_back(*key));
    }

    /// All others have admitted: who has to wait does.
    #[inline]
    pub fn keep(&mut self, facts: &mut Facts) {
        if !self.waiting.is_empty() {
            self.delay(facts);
        }
    }

    fn delay(&mut self, facts: &mut Facts) {
        for (wait, place) in self.waiting.drain(..) {
            place.note();
            facts.delay = facts.delay.max(wait);
            facts.waiting.push(place);
        }
    }
}

/// What names the buckets of a limit: where it is used, or of a plan everywhere alike.
#[inline]
pub fn identity_of(limit: &Limit, used: Option<&Used>, chosen: usize) -> u128 {
    used.map_or_else(|| limit.identity(None), |used| used.identity(chosen))
}

/// `plan` is the caller's, where that is shared. What each said stands behind what was said before, tightest first; who refuses stands first.
pub fn take<'a>(
    limits: &'a [Used],
    plan: Option<&'a Limit>,
    request: &Request<'_>,
    facts: &mut Facts,
    buckets: &Buckets,
    taken: &mut Taken<'a>,
) -> Result<(), Stop> {
    let now = buckets.shared.now(facts.now);
    let seen = Seen { identity: facts.identity.as_deref(), client: facts.client, chosen: facts.chosen, now };
    let mut hashes = Hashes::new(buckets.shared.seed(), request, seen);
    let mut told = Told::behind(&mut facts.charges);
    let (mut own, mut plan) = (limits.iter(), plan);
    loop {
        let (limit, used) = match (own.next(), plan) {
            (Some(used), _) if !used.admits(seen.identity) => continue,
            (Some(used), _) => (&*used.limit, Some(used)),
            (None, Some(next)) => {
                plan = next.beside().map(|quota| &**quota);
                (next, None)
            }
            (None, None) => break,
        };
        let identity = identity_of(limit, used, seen.chosen);
        let (key_kind, bucket) = hashes.bucket(limit.by(), identity);
        let (pace, bounds) = (limit.pace(), limit.bounds(now));
        // Whoever could wait need not.
        if let Some(reading) = buckets.shared.take_at_once(now.mono, bucket, pace, bounds) {
            told.put(Charge::admitted(limit, key_kind, pace, bounds, reading));
            taken.keys.push(bucket);
            continue;
        }
        let place = limit.throttle().and_then(|throttle| Some((throttle.wait, throttle.queue_shared(limit.series(), bucket, pace)?)));
        let patience = place.as_ref().map_or(0, |(wait, _)| *wait);
        let asking = Asking { identity, key: bucket, pace, bounds, patience };
        let Some(verdict) = buckets.shared.take(now.mono, &asking) else {
            taken.alone.push((limit, used, buckets.shared.part(pace)));
            continue;
        };
        let charge = Charge::of(limit, key_kind, &asking, &verdict, true);
        if verdict.retry_after > 0 {
            facts.charges.insert(0, charge);
            limit.note_refused(bucket, facts);
            taken.give_back(buckets);
            let at = used.and_then(|used| used.at(seen.chosen)).map(|at| &**at);
            return Err(refusal(limit, at, key_kind, verdict.retry_after, false).into());
        }
        told.put(charge);
        if let Some((_, place)) = place.filter(|_| verdict.wait > 0) {
            taken.waiting.push((verdict.wait, place));
        }
        taken.keys.push(bucket);
    }
    told.sort();
    Ok(())
}
