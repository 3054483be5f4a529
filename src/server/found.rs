//! What is shown of sources of targets: metrics, and the entry of `/status`.
//!
//! Decides nothing.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;

use arc_swap::ArcSwap;

use crate::admin::targets::ShareStatus;
use crate::admin::{FoundStatus, Moment};
use crate::clock;
use crate::config::plan::{Gateway, UpstreamPlan};
use crate::relay::balance::warmth::Warming;
use crate::relay::finding::found::{Found, Kept};
use crate::report::metrics::family::Samples;
use crate::report::metrics::{Metrics, family};

fn all(gateway: &Gateway) -> impl Iterator<Item = (&UpstreamPlan, &Arc<Found>)> {
    gateway.upstreams.iter().filter_map(|upstream| Some((&**upstream, upstream.pool.found()?)))
}

/// Registers the figures that are read when somebody asks.
pub fn register(metrics: &Metrics, gateway: &Arc<ArcSwap<Gateway>>) {
    let each = |family, put: fn(&UpstreamPlan, &Found, &mut Samples)| {
        let gateway = gateway.clone();
        metrics.source(family, move |samples| all(&gateway.load()).for_each(|(upstream, found)| put(upstream, found, samples)));
    };
    each(&family::FOUND_TARGETS, |upstream, _, samples| {
        samples.put(&[&upstream.name], upstream.pool.present().targets.len() as f64);
    });
    each(&family::FOUND_ANSWERED, |upstream, found, samples| {
        if let Some(answered) = found.asked().answered {
            samples.put(&[&upstream.name], answered as f64 / 1_000.0);
        }
    });
    each(&family::FOUND_ANSWERS, |upstream, found, samples| {
        samples.put(&[&upstream.name, "ok"], found.counts.good.load(Relaxed) as f64);
        samples.put(&[&upstream.name, "failed"], found.counts.failed.load(Relaxed) as f64);
    });
}

/// What was found, for the process that takes over.
pub fn kept(gateway: &Gateway) -> Vec<Kept> {
    all(gateway).filter_map(|(upstream, found)| Kept::of(&upstream.name, found)).collect()
}

/// Takes over what the process before this one had found, where the source has not answered this one yet.
pub fn restore(gateway: &Gateway, kept: &[Kept]) {
    for (upstream, found) in all(gateway).filter(|(_, found)| found.list().is_none()) {
        let from = found.source.to_string();
        if let Some(kept) = kept.iter().find(|kept| *kept.upstream == *upstream.name && kept.from == from) {
            let members = kept.members();
            found.take_over(&members);
            upstream.pool.refill(members);
        }
    }
}

/// What each target is chosen by at this moment, by upstream and address.
pub fn shares(gateway: &Gateway) -> HashMap<(String, String), ShareStatus> {
    let now = clock::mono();
    let mut all = HashMap::new();
    for upstream in &gateway.upstreams {
        let (set, window) = (upstream.pool.present(), upstream.pool.upstream.slow_start);
        for (target, member) in set.targets.iter().zip(&set.members) {
            let part = window.map_or(1.0, |window| target.warmth.share(Warming { now, window }));
            let weight = (f64::from(member.weight.get()) * part * 100.0).round() / 100.0;
            let zone = member.zone.as_deref().map(str::to_owned);
            let key = (upstream.name.to_string(), target.address.to_string());
            all.insert(key, ShareStatus { weight, priority: member.priority, zone });
        }
    }
    all
}

/// For `/status`, by upstream.
pub fn status(gateway: &Gateway) -> BTreeMap<String, FoundStatus> {
    let one = |(upstream, found): (&UpstreamPlan, &Arc<Found>)| {
        let asked = found.asked();
        let status = FoundStatus {
            from: found.source.to_string(),
            targets: upstream.pool.present().targets.len(),
            answered: asked.answered.map(Moment),
            age_s: asked.answered.map(|answered| clock::now().unix_ms.saturating_sub(answered) / 1_000),
            changed: asked.changed.map(Moment),
            last_result: match (asked.trouble, asked.answered) {
                (Some(why), _) => why,
                (None, Some(_)) => "ok".to_owned(),
                (None, None) => "not answered yet".to_owned(),
            },
            failures: asked.failures,
        };
        (upstream.name.to_string(), status)
    };
    all(gateway).map(one).collect()
}
