//! Keeps the targets of an upstream as its source tells them, and looks after each: look-ups, health checks.
//!
//! Decides that a failure changes nothing, how soon it is asked again, and what the log says. Does not decide what an answer means: see
//! the sources.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use tokio::task::JoinSet;

use super::Source;
use super::found::{Found, Resume};
use crate::relay::health::look_after;
use crate::relay::targets::discovery::Resolver;
use crate::relay::targets::members::Member;
use crate::relay::targets::pool::{Change, Pool};

/// What follows a source on behalf of one pool; what it started ends when it is dropped.
pub struct Follower {
    pool: Arc<Pool>,
    pub(super) found: Arc<Found>,
    pub(super) resolver: Resolver,
    tasks: HashMap<Arc<str>, JoinSet<()>>,
}

/// The first pause after a failure, and the longest.
const SOONEST: Duration = Duration::from_secs(1);
const LATEST: Duration = Duration::from_secs(60);
/// So many targets are named in the log.
const NAMED: usize = 10;

/// Follows a pool's source for ever. The targets that are known already are looked after from the start.
pub async fn follow(pool: Arc<Pool>, found: Arc<Found>, resolver: Resolver) {
    let mut follower = Follower { pool, found: found.clone(), resolver, tasks: HashMap::new() };
    follower.look_after_all();
    match &found.source {
        Source::File(file) => file.keep(&mut follower).await,
        Source::Srv(srv) => srv.keep(&mut follower).await,
        Source::Consul(consul) => consul.keep(&mut follower).await,
        Source::Kubernetes(kubernetes) => kubernetes.keep(&mut follower).await,
    }
}

/// Asks once, where nothing was found yet: for the moment before a snapshot takes over.
pub async fn find_first(pool: &Arc<Pool>, found: &Arc<Found>, resolver: &Resolver) {
    if found.list().is_some() {
        return;
    }
    let answer = match &found.source {
        Source::File(_) => return,
        Source::Srv(srv) => srv.ask(resolver).await.map(|(members, _)| members),
        Source::Consul(consul) => consul.ask_once().await.map(|(members, index)| {
            found.resume_at(Resume::Consul(index));
            members
        }),
        Source::Kubernetes(kubernetes) => kubernetes.list().await.map(|slices| {
            let members = slices.members();
            found.resume_at(Resume::Kubernetes(slices));
            members
        }),
    };
    if let Ok(members) = answer {
        let members = tidy(members);
        found.answered(&members);
        pool.refill(members);
    }
}

/// After so many failures in a row, at least 1: longer each time, and never in step with other gateways.
pub(super) fn back_off(failures: u32, random: u64) -> Duration {
    let most = SOONEST.saturating_mul(1 << failures.saturating_sub(1).min(6)).min(LATEST);
    let fraction = (random >> 11) as f64 / (1u64 << 53) as f64;
    most.mul_f64(0.5 + fraction / 2.0)
}

/// In an order that does not depend on that of the answer, each target once.
pub(super) fn tidy(mut members: Vec<Member>) -> Vec<Member> {
    members.sort_by(|a, b| (a.priority, &a.address.text).cmp(&(b.priority, &b.address.text)));
    members.dedup_by(|a, b| a.address.text == b.address.text);
    members
}

// === impl Follower ===

impl Follower {
    /// The source has answered.
    pub(super) fn answered(&mut self, members: Vec<Member>) {
        if members.len() > super::MOST {
            self.failed(format!("{} targets are more than {}", members.len(), super::MOST));
            return;
        }
        let members = tidy(members);
        let before = self.found.asked();
        if before.failures > 0 {
            log::info!("upstream {}: {} answers again", self.pool.upstream.name, self.found.source);
        }
        let count = members.len();
        if self.found.answered(&members) || self.pool.present().members[..] != members[..] {
            let change = self.pool.refill(members);
            self.look_after_all();
            self.tell(count, &change);
        }
    }

    /// It has not, or not with what can be used. How long to wait.
    pub(super) fn failed(&mut self, why: String) -> Duration {
        if self.found.failed(&why) {
            let kept = self.pool.present().targets.len();
            log::warn!(
                "upstream {}: {}: {why}; the {kept} targets that were found before stay",
                self.pool.upstream.name,
                self.found.source
            );
        }
        back_off(self.found.asked().failures, fastrand::u64(..))
    }

    /// Starts what runs beside the requests for targets that are new, and ends it for those that are gone.
    fn look_after_all(&mut self) {
        let targets = self.pool.targets();
        let mut before = std::mem::take(&mut self.tasks);
        for target in &targets {
            let name = target.address.text.clone();
            let tasks = before.remove(&name).unwrap_or_else(|| {
                let mut tasks = JoinSet::new();
                look_after(&self.pool, target, &self.resolver, &mut tasks);
                tasks
            });
            self.tasks.insert(name, tasks);
        }
    }

    fn tell(&self, count: usize, change: &Change) {
        let some = |names: &[Arc<str>]| {
            let more = if names.len() > NAMED { ", .." } else { "" };
            format!("{} ({}{more})", names.len(), names.iter().take(NAMED).map(|name| &**name).collect::<Vec<_>>().join(", "))
        };
        let mut said = Vec::new();
        if !change.added.is_empty() {
            said.push(format!("{} new", some(&change.added)));
        }
        if !change.removed.is_empty() {
            said.push(format!("{} gone", some(&change.removed)));
        }
        if change.changed > 0 {
            said.push(format!("{} changed", change.changed));
        }
        if !said.is_empty() {
            log::info!("upstream {}: {}: {count} targets: {}", self.pool.upstream.name, self.found.source, said.join(", "));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_source_that_fails_is_asked_less_and_less_often_and_never_in_step() {
        assert_eq!([1, 2, 4, 7, 99].map(|failures| back_off(failures, u64::MAX).as_secs_f64().round()), [1.0, 2.0, 8.0, 60.0, 60.0]);
        assert_eq!(back_off(3, 0), Duration::from_secs(2));
    }
}
