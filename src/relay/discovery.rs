//! Keeps the addresses of host-name targets current.
//!
//! Decides how often a name is asked for and what a failure means (nothing: the last good answer stays). Does not decide whether
//! an address works: see `health.rs`.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use hickory_resolver::TokioResolver;
use hickory_resolver::config::LookupIpStrategy;
use tokio::time::sleep;

use super::address::Host;
use super::pool::Pool;
use super::target::Target;

/// The system's resolver configuration and hosts file. Cheap to clone.
#[derive(Clone)]
pub struct Resolver(Result<Arc<TokioResolver>, Arc<str>>);

/// An answer is used for at least and at most so long, whatever its TTL says.
const FLOOR: Duration = Duration::from_secs(1);
const CEILING: Duration = Duration::from_secs(60);

// === impl Resolver ===

impl Resolver {
    /// Reads `/etc/resolv.conf` and `/etc/hosts`. Where that fails, every look-up fails with the reason: literal targets work on.
    pub fn system() -> Resolver {
        let build = || {
            let mut builder = TokioResolver::builder_tokio()?;
            // v6 only where there is no v4: many networks publish v6 addresses that cannot be reached.
            builder.options_mut().ip_strategy = LookupIpStrategy::Ipv4thenIpv6;
            builder.build()
        };
        Resolver(build().map(Arc::new).map_err(|e| e.to_string().into()))
    }

    /// The addresses of a name and how long they hold.
    async fn ask(&self, name: &str) -> Result<(Vec<IpAddr>, Duration), String> {
        let resolver = self.0.as_ref().map_err(|why| why.to_string())?;
        let answer = resolver.lookup_ip(name).await.map_err(|e| e.to_string())?;
        let addresses: Vec<_> = answer.iter().collect();
        match addresses.is_empty() {
            true => Err("no addresses".to_owned()),
            false => Ok((addresses, hold(answer.valid_until().saturating_duration_since(Instant::now())))),
        }
    }
}

impl std::fmt::Debug for Resolver {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Resolver")
    }
}

fn hold(ttl: Duration) -> Duration {
    ttl.clamp(FLOOR, CEILING)
}

/// After so many failures in a row: soon at first, then less and less often.
fn back_off(failures: u32) -> Duration {
    hold(FLOOR.saturating_mul(1 << failures.saturating_sub(1).min(5)))
}

/// Asks again and again, for ever.
pub(super) async fn keep_resolved(target: Arc<Target>, name: Arc<str>, resolver: Resolver) {
    let mut failures = 0;
    loop {
        let pause = match resolver.ask(&name).await {
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
    for target in pools.iter().flat_map(|pool| pool.targets()) {
        if let Host::Name(name) = &target.address.host
            && target.endpoints().is_empty()
        {
            let (target, name, resolver) = (target.clone(), name.clone(), resolver.clone());
            questions.spawn(async move {
                if let Ok((addresses, _)) = resolver.ask(&name).await {
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
    use crate::relay::address::Spot;
    use crate::relay::health::watch;
    use crate::relay::pool::Pools;
    use crate::relay::upstream::Upstream;
    use crate::relay::upstream::tests::settings;

    fn pool(address: &str) -> Arc<Pool> {
        Pools::default().adopt(&Arc::new(Upstream::compile("orders", &settings(&[(address, 1)])).unwrap()))
    }

    #[test]
    fn an_answer_holds_between_a_second_and_a_minute() {
        assert_eq!(hold(Duration::ZERO), FLOOR);
        assert_eq!(hold(Duration::from_secs(30)), Duration::from_secs(30));
        assert_eq!(hold(Duration::from_secs(86_400)), CEILING);
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
        let broken = Resolver(Err("no configuration".into()));
        let task = tokio::spawn(keep_resolved(target.clone(), "orders.invalid".into(), broken));
        tokio::task::yield_now().await;
        assert!(target.is_usable());
        task.abort();
    }
}
