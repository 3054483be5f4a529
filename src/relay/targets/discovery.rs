//! Keeps the addresses of host-name targets current.
//!
//! Decides how often a name is asked for and what a failure means (nothing: the last good answer stays). Does not decide whether
//! an address works: see `health.rs`.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::sleep;

use super::address::Host;
use super::pool::Pool;
pub use super::resolver::{Resolver, Service};
use super::target::Target;
use crate::relay::finding::follow::find_first;

/// The first pause after a failure, and the longest.
const SOONEST: Duration = Duration::from_secs(1);
const LATEST: Duration = Duration::from_secs(32);

/// After so many failures in a row: soon at first, then less and less often.
fn back_off(failures: u32) -> Duration {
    SOONEST.saturating_mul(1 << failures.saturating_sub(1).min(5)).min(LATEST)
}

/// Asks again and again, for ever.
pub(in crate::relay) async fn keep_resolved(target: Arc<Target>, name: Arc<str>, resolver: Resolver) {
    let mut failures = 0;
    loop {
        let pause = match resolver.addresses(&name).await {
            Ok((addresses, hold)) => {
                if failures > 0 {
                    log::info!("upstream {}: {name} is resolved again", target.upstream);
                }
                failures = 0;
                target.replace_addresses(&addresses);
                hold
            }
            Err(why) => {
                if failures == 0 {
                    let kept = target.endpoints().len();
                    log::warn!("upstream {}: {name} cannot be resolved, {kept} earlier addresses stay: {why}", target.upstream);
                }
                failures += 1;
                back_off(failures)
            }
        };
        sleep(pause).await;
    }
}

/// Asks once for every name that has no address yet, all at the same time. For the moment before a snapshot takes over, under a
/// time limit of the caller's; failures are left to the background.
pub async fn resolve_first(pools: &[Arc<Pool>], resolver: &Resolver) {
    let mut questions = tokio::task::JoinSet::new();
    for pool in pools {
        if let Some(found) = pool.found() {
            let (pool, found, resolver) = (pool.clone(), found.clone(), resolver.clone());
            questions.spawn(async move {
                find_first(&pool, &found, &resolver).await;
            });
        }
    }
    while questions.join_next().await.is_some() {}
    for target in pools.iter().flat_map(|pool| pool.targets()) {
        if let Host::Name(name) = &target.address.host
            && target.endpoints().is_empty()
        {
            let (target, name, resolver) = (target.clone(), name.clone(), resolver.clone());
            questions.spawn(async move {
                if let Ok((addresses, _)) = resolver.addresses(&name).await {
                    target.replace_addresses(&addresses);
                }
            });
        }
    }
    while questions.join_next().await.is_some() {}
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::relay::health::watch;
    use crate::relay::targets::address::Spot;
    use crate::relay::targets::pool::Pools;
    use crate::relay::upstream::Upstream;
    use crate::relay::upstream::tests::settings;

    fn pool(address: &str) -> Arc<Pool> {
        Pools::default().adopt(&Arc::new(Upstream::compile("orders", &settings(&[(address, 1)])).unwrap()))
    }

    #[test]
    fn after_failures_it_is_asked_less_and_less_often() {
        let pauses: Vec<_> = [1, 2, 3, 7, 1_000].map(|n| back_off(n).as_secs()).into();
        assert_eq!(pauses, [1, 2, 4, 32, 32]);
    }

    #[tokio::test]
    async fn localhost_is_resolved_before_and_after_a_snapshot_takes_over() {
        let (first, watched) = (pool("localhost:8080"), pool("localhost:8080"));
        let resolver = Resolver::system();
        resolve_first(std::slice::from_ref(&first), &resolver).await;
        assert_eq!(first.targets()[0].endpoints()[0].addr, Spot::Ip("127.0.0.1:8080".parse().unwrap()));
        let _watch = watch(&watched, &resolver);
        while !watched.targets()[0].is_usable() {
            tokio::task::yield_now().await;
        }
    }

    #[tokio::test]
    async fn a_failure_keeps_the_last_good_answer() {
        let pool = pool("orders.invalid:8080");
        let target = &pool.targets()[0];
        target.replace_addresses(&["10.0.0.1".parse().unwrap()]);
        let broken = Resolver::broken();
        let task = tokio::spawn(keep_resolved(target.clone(), "orders.invalid".into(), broken));
        tokio::task::yield_now().await;
        assert!(target.is_usable());
        task.abort();
    }
}
