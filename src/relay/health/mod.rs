//! Decides when an address of a target is taken out and brought back, and runs the checks that tell.
//!
//! Does not decide which target a request gets: see `balance.rs`. Requests themselves are not judged here.

mod expect;
mod grpc;
mod probe;
pub mod settings;
mod tracker;

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use tokio::task::JoinSet;
use tokio::time::{Instant, sleep, sleep_until, timeout};

use self::probe::{Kept, probe};
use self::settings::Health;
pub use self::tracker::{Thresholds, Tracker, Turn};
use super::finding::follow::follow;
use super::upstream::Upstream;
use crate::clock;
use crate::relay::targets::address::Host;
use crate::relay::targets::discovery::{self, Resolver};
use crate::relay::targets::endpoint::Endpoint;
use crate::relay::targets::pool::Pool;
use crate::relay::targets::standing::Cause;
use crate::relay::targets::target::Target;

/// The checks and look-ups of one upstream; they end when this is dropped.
#[derive(Debug)]
pub struct Watch {
    _tasks: JoinSet<()>,
}

/// How often circuits and the like are looked at where nothing says when.
const LONGEST: Duration = Duration::from_secs(10);

// === impl Watch ===

/// Starts what runs beside the requests of an upstream: checks at once and then `every` so often, look-ups of names.
///
/// To be called when a snapshot takes over, on the runtime that shall run the tasks; keep the result as long as the snapshot is the
/// current one, not as long as its last request.
pub fn watch(pool: &Arc<Pool>, resolver: &Resolver) -> Watch {
    let mut tasks = JoinSet::new();
    pool.begin();
    pool.drain_as_written();
    if pool.judges || pool.upstream.panic_threshold.is_some() {
        tasks.spawn(keep_tidy(pool.clone()));
    }
    match pool.found() {
        Some(found) => drop(tasks.spawn(follow(pool.clone(), found.clone(), resolver.clone()))),
        None => pool.targets().iter().for_each(|target| look_after(pool, target, resolver, &mut tasks)),
    }
    Watch { _tasks: tasks }
}

/// Starts what runs beside the requests of one target.
pub(super) fn look_after(pool: &Arc<Pool>, target: &Arc<Target>, resolver: &Resolver, tasks: &mut JoinSet<()>) {
    if let Host::Name(name) = &target.address.host {
        tasks.spawn(discovery::keep_resolved(target.clone(), name.clone(), resolver.clone()));
    }
    if let Some(health) = &pool.upstream.health {
        tasks.spawn(keep_checked(pool.clone(), target.clone(), health.clone()));
    }
}

/// Brings back what is out for a time only, and compares targets with each other.
async fn keep_tidy(pool: Arc<Pool>) {
    let compares = pool.upstream.outlier_detection.as_ref().filter(|rules| rules.success_rate.is_some() || rules.latency.is_some());
    let every = pool.upstream.outlier_detection.as_ref().map_or(LONGEST, |rules| rules.every);
    let mut comparison = Instant::now() + every;
    loop {
        let woken = pool.group.woken.notified();
        tokio::pin!(woken);
        // From here on no turn is missed.
        woken.as_mut().enable();
        let next = pool.tidy(clock::now()).map_or(comparison, |next| clock::instant(next).min(comparison));
        tokio::select! {
            () = sleep_until(next) => {}
            () = woken => {}
        }
        if Instant::now() >= comparison {
            comparison = Instant::now() + every;
            match compares {
                Some(rules) => pool.compare(rules, clock::mono()),
                None => pool.forgive(),
            }
        }
    }
}

async fn keep_checked(pool: Arc<Pool>, target: Arc<Target>, health: Health) {
    let mut kept = HashMap::new();
    loop {
        let renewed = target.renewed.notified();
        tokio::pin!(renewed);
        // From here on no news is missed, also while checks run.
        renewed.as_mut().enable();
        check_all(&pool, &target, &health, &mut kept).await;
        tokio::select! {
            () = sleep(jittered(if is_out(&target) { health.every_when_out } else { health.every }, fastrand::u64(..))) => {}
            () = renewed => {}
        }
    }
}

/// Whether checks have taken out any address of it.
fn is_out(target: &Target) -> bool {
    target.endpoints().iter().any(|endpoint| endpoint.standing.is_out_by(Cause::Check))
}

/// `kept`: the connections that checks have left, by the number of the address: one that went and came back may be somebody else's.
async fn check_all(pool: &Arc<Pool>, target: &Arc<Target>, health: &Health, kept: &mut HashMap<u64, Kept>) {
    let mut checks = JoinSet::new();
    let mut before = std::mem::take(kept);
    for endpoint in target.endpoints() {
        let (pool, target, health, mut line) = (pool.clone(), target.clone(), health.clone(), before.remove(&endpoint.era));
        checks.spawn(async move { (check_one(&pool.upstream, &target, &endpoint, &health, &mut line).await, endpoint.era, line) });
    }
    let mut turned = false;
    while let Some(one) = checks.join_next().await {
        let Ok((has_turned, era, line)) = one else { continue };
        turned |= has_turned;
        kept.extend(line.map(|line| (era, line)));
    }
    if turned {
        pool.settled();
    }
}

/// Whether the address has turned.
async fn check_one(upstream: &Upstream, target: &Target, endpoint: &Endpoint, health: &Health, kept: &mut Option<Kept>) -> bool {
    let checked = timeout(health.timeout, probe(upstream, target, endpoint.addr, health, kept)).await;
    let verdict = checked.unwrap_or_else(|_| Err(format!("timed out after {:?}", health.timeout)));
    let reason = verdict.as_ref().err().cloned();
    let unix_ms = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |age| age.as_millis() as u64);
    let turn = target.observe(endpoint, verdict, health.thresholds(), unix_ms);
    let (upstream, addr) = (&target.upstream, target.shown(endpoint.addr));
    match &turn {
        None => {}
        Some(Turn::Up) => log::info!("upstream {upstream}: target {} ({addr}) is healthy again", target.address),
        Some(Turn::Down) => {
            log::warn!("upstream {upstream}: target {} ({addr}) is out: {}", target.address, reason.unwrap_or_default())
        }
    }
    turn.is_some()
}

/// Within a tenth around `every`, so that many gateways do not check in step.
fn jittered(every: Duration, random: u64) -> Duration {
    let fraction = (random >> 11) as f64 / (1u64 << 53) as f64;
    every.mul_f64(0.9 + fraction * 0.2)
}

#[cfg(test)]
mod tests {
    use super::probe::tests::serve;
    use super::settings::HealthSettings;
    use super::*;
    use crate::config::types::Period;
    use crate::relay::targets::pool::Pools;
    use crate::relay::upstream::tests::{at, settings};

    #[test]
    fn checks_are_a_tenth_around_their_period() {
        let every = Duration::from_secs(10);
        assert_eq!(jittered(every, 0), Duration::from_secs(9));
        assert!(jittered(every, u64::MAX) <= Duration::from_secs(11));
        assert!(jittered(every, u64::MAX / 2).abs_diff(every) < Duration::from_millis(1));
    }

    #[tokio::test]
    async fn checks_take_a_target_out_bring_it_back_and_end_with_the_watch() {
        let (bad, good) = (Some("HTTP/1.1 500 No\r\n\r\n"), Some("HTTP/1.1 200 OK\r\n\r\n"));
        let (addr, _tasks) = serve(vec![bad, good]).await;
        let mut written = settings(&[(&addr.to_string(), 1)]);
        written.health = Some(HealthSettings {
            path: Some(at("/healthz".to_owned())),
            every: Some(at(Period(Duration::from_millis(100)))),
            ..HealthSettings::default()
        });
        let pool = Pools::default().adopt(&Arc::new(Upstream::compile("orders", &written).unwrap()));
        let target = pool.targets()[0].clone();
        let watch = watch(&pool, &Resolver::system());
        while target.turns() != (1, 1) {
            tokio::task::yield_now().await;
        }
        assert!(target.is_usable());
        drop(watch);
        drop(pool);
        while Arc::strong_count(&target) > 1 {
            tokio::task::yield_now().await;
        }
    }

    #[tokio::test]
    async fn an_upstream_without_checks_trusts_its_targets() {
        let pool = Pools::default().adopt(&Arc::new(Upstream::compile("orders", &settings(&[("127.0.0.1:9", 1)])).unwrap()));
        crate::relay::targets::pool::tests::take_out(&pool, 0);
        let _watch = watch(&pool, &Resolver::system());
        assert!(pool.targets()[0].is_usable());
    }
}
