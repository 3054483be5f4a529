//! The shared limits of one request: taken from what this gateway may admit until it settles again, all or none.
//!
//! Decides nothing of its own: see `shared.rs`. What this gateway has to count alone is handed back.

use smallvec::SmallVec;

use super::key::Key;
use super::pace::Pace;
use super::refusal::refusal;
use super::used::Used;
use crate::ctx::Facts;
use crate::policy::buckets::{Asking, Buckets};
use crate::policy::rate_limit::Charge;
use crate::policy::{Request, Stop};

/// What was taken, and what is to be counted alone.
#[derive(Debug, Default)]
pub struct Taken {
    keys: SmallVec<[u128; 2]>,
    /// Indices of limits, with the part of this gateway.
    pub alone: SmallVec<[(usize, Pace); 2]>,
}

impl Taken {
    /// Another limit has refused.
    pub fn give_back(&self, buckets: &Buckets) {
        self.keys.iter().for_each(|key| buckets.shared.give_back(*key));
    }
}

pub fn take(limits: &[Used], request: &Request<'_>, facts: &mut Facts, buckets: &Buckets) -> Result<Taken, Stop> {
    let mut taken = Taken::default();
    for (index, used) in limits.iter().enumerate() {
        if !used.admits(facts.identity.as_deref()) {
            continue;
        }
        let (limit, identity) = (&used.limit, used.identity(facts.chosen));
        let key = Key::choose(limit.by(), request, facts);
        let (key_kind, bucket) = (key.kind(), key.shared(&buckets.shared, identity));
        let bounds = limit.bounds(facts.now);
        let asking = Asking { identity, key: bucket, pace: limit.pace(), bounds, patience: 0 };
        let Some(verdict) = buckets.shared.take(facts.now.mono, &asking) else {
            taken.alone.push((index, buckets.shared.part(limit.pace())));
            continue;
        };
        facts.charges.push(Charge {
            limit: limit.name().clone(),
            key_kind,
            size: limit.pace().size(),
            window: if bounds.length == 0 { limit.pace().window() } else { bounds.seconds() },
            remaining: verdict.reading.remaining,
            reset: verdict.reading.reset,
            next: if verdict.retry_after > 0 { verdict.retry_after } else { verdict.reading.next },
            retry_after: verdict.retry_after,
            wait_ms: 0,
        });
        if verdict.retry_after > 0 {
            // Who refuses stands first.
            facts.charges.rotate_right(1);
            limit.note_refused(bucket, facts);
            taken.give_back(buckets);
            return Err(refusal(limit, used.at(facts.chosen).map(|at| &**at), key_kind, verdict.retry_after, false).into());
        }
        taken.keys.push(bucket);
    }
    Ok(taken)
}
