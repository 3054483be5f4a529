//! An upstream's targets as one snapshot sees them, and the registry through which they outlive it.
//!
//! Decides what a reload keeps: targets are known by upstream name and address, so a changed weight, timeout or balance keeps
//! health and requests in flight. Does not decide which target a request gets: see `balance.rs`.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Weak};

use parking_lot::Mutex;
use pingora_core::upstreams::peer::HttpPeer;

use super::balance::Picker;
use super::group::{Group, GroupReport};
use super::peer;
use super::target::{Target, TargetReport};
use super::upstream::Upstream;
use crate::clock;

/// The targets of one upstream in one snapshot.
#[derive(Debug)]
pub struct Pool {
    pub upstream: Arc<Upstream>,
    pub(super) targets: Box<[Arc<Target>]>,
    pub(super) picker: Picker,
    /// Requests in flight at all targets of this upstream.
    pub(super) load: Arc<AtomicU32>,
    /// What every connection of this upstream has in common; copied for each attempt.
    pub(super) template: HttpPeer,
    /// What changes about the upstream as a whole.
    pub group: Arc<Group>,
    /// Tells snapshots apart.
    pub(super) id: u64,
    /// Whether what requests meet takes targets out.
    pub judges: bool,
    /// Whether it may refuse a request.
    pub admits: bool,
}

/// All targets that any snapshot or request still uses.
#[derive(Debug, Default)]
pub struct Pools {
    // Weak: a target lives as long as somebody uses it, so a snapshot that is refused leaves nothing behind.
    known: Mutex<HashMap<Identity, Weak<Target>>>,
    /// Of each upstream, what its targets count in together.
    loads: Mutex<HashMap<Arc<str>, Weak<AtomicU32>>>,
    groups: Mutex<HashMap<Arc<str>, Weak<Group>>>,
}

/// Upstream name and target address: by these a target is the same one after a reload.
type Identity = (Arc<str>, Arc<str>);

/// The next number of a pool; 0 is none.
static IDS: AtomicU64 = AtomicU64::new(1);

// === impl Pool ===

impl Pool {
    /// In the order of the file.
    pub fn targets(&self) -> &[Arc<Target>] {
        &self.targets
    }
}

// === impl Pools ===

impl Pools {
    /// The pool of an upstream: targets that are known already are shared, others start healthy.
    ///
    /// Changes nothing that the running snapshot can see; what a commit changes is done by [`super::health::watch`].
    pub fn adopt(&self, upstream: &Arc<Upstream>) -> Arc<Pool> {
        let load = self.load_of(&upstream.name);
        let mut known = self.known.lock();
        known.retain(|_, target| target.strong_count() > 0);
        let targets = upstream.targets.iter().map(|member| {
            let key = (upstream.name.clone(), member.address.text.clone());
            if let Some(target) = known.get(&key).and_then(Weak::upgrade) {
                return target;
            }
            let target = Arc::new(Target::new(upstream.name.clone(), member.address.clone(), load.clone()));
            known.insert(key, Arc::downgrade(&target));
            target
        });
        let targets: Box<[_]> = targets.collect();
        let weights: Vec<u16> = upstream.targets.iter().map(|member| member.weight.get()).collect();
        let names: Vec<&str> = upstream.targets.iter().map(|member| &*member.address.text).collect();
        let picker = Picker::new(upstream.balance, &names, &weights);
        Arc::new(Pool {
            upstream: upstream.clone(),
            targets,
            picker,
            load,
            template: peer::template(upstream),
            group: self.group_of(&upstream.name),
            id: IDS.fetch_add(1, Relaxed),
            judges: upstream.outlier_detection.is_some() || upstream.circuit_breaker.is_some(),
            admits: upstream.max_requests.is_some() || upstream.circuit_breaker.as_ref().is_some_and(|rules| rules.is_of_upstream()),
        })
    }

    fn group_of(&self, upstream: &Arc<str>) -> Arc<Group> {
        let mut groups = self.groups.lock();
        groups.retain(|_, group| group.strong_count() > 0);
        if let Some(group) = groups.get(upstream).and_then(Weak::upgrade) {
            return group;
        }
        let group = Arc::new(Group::default());
        groups.insert(upstream.clone(), Arc::downgrade(&group));
        group
    }

    fn load_of(&self, upstream: &Arc<str>) -> Arc<AtomicU32> {
        let mut loads = self.loads.lock();
        loads.retain(|_, load| load.strong_count() > 0);
        if let Some(load) = loads.get(upstream).and_then(Weak::upgrade) {
            return load;
        }
        let load = Arc::new(AtomicU32::new(0));
        loads.insert(upstream.clone(), Arc::downgrade(&load));
        load
    }

    /// What is known of every target, sorted; for `/status` and for handing over to a new process.
    pub fn report(&self) -> Vec<TargetReport> {
        let targets: Vec<_> = self.known.lock().values().filter_map(Weak::upgrade).collect();
        let mut reports: Vec<_> = targets.iter().map(|target| target.report()).collect();
        reports.sort_by(|a, b| (&a.upstream, &a.target).cmp(&(&b.upstream, &b.target)));
        reports
    }

    /// What is known of every upstream as a whole, sorted.
    pub fn report_groups(&self) -> Vec<GroupReport> {
        let groups: Vec<_> = self.groups.lock().iter().filter_map(|(name, group)| Some((name.clone(), group.upgrade()?))).collect();
        let now = clock::now();
        let mut reports: Vec<_> = groups.iter().map(|(name, group)| group.report(name, now)).collect();
        reports.sort_by(|a, b| a.upstream.cmp(&b.upstream));
        reports
    }

    pub fn restore_groups(&self, reports: &[GroupReport]) {
        let (groups, now) = (self.groups.lock(), clock::now());
        for report in reports {
            if let Some(group) = groups.get(report.upstream.as_str()).and_then(Weak::upgrade) {
                group.restore(report, now);
            }
        }
    }

    /// Takes over what another process knew of targets that were adopted here; the others are ignored.
    pub fn restore(&self, reports: &[TargetReport]) {
        let known = self.known.lock();
        for report in reports {
            let key = (report.upstream.as_str().into(), report.target.as_str().into());
            if let Some(target) = known.get(&key).and_then(Weak::upgrade) {
                target.restore(report);
            }
        }
    }
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use crate::relay::health::Thresholds;
    use crate::relay::upstream::Balance;
    use crate::relay::upstream::tests::settings;

    pub(crate) fn upstream(balance: Balance, targets: &[(&str, u16)]) -> Arc<Upstream> {
        let mut written = settings(targets);
        written.balance = Some(crate::relay::upstream::tests::at(balance));
        Arc::new(Upstream::compile("orders", &written).unwrap())
    }

    pub(crate) fn take_out(pool: &Pool, index: usize) {
        let target = &pool.targets()[index];
        let at_once = Thresholds { unhealthy_after: 1, healthy_after: 1 };
        for endpoint in target.endpoints() {
            target.observe(&endpoint, Err("refused".into()), at_once, 1);
        }
    }

    #[test]
    fn a_reload_keeps_the_health_of_targets_whose_weight_changed() {
        let pools = Pools::default();
        let before = pools.adopt(&upstream(Balance::RoundRobin, &[("10.0.0.1:80", 1), ("10.0.0.2:80", 1)]));
        take_out(&before, 0);
        let busy = before.targets()[1].take(&[]).unwrap();
        let after = pools.adopt(&upstream(Balance::LeastRequests, &[("10.0.0.2:80", 7), ("10.0.0.1:80", 3)]));
        assert!(Arc::ptr_eq(&before.targets()[0], &after.targets()[1]));
        assert!(!after.targets()[1].is_usable());
        assert_eq!(after.targets()[0].in_flight(), 1);
        drop(busy);
    }

    #[test]
    fn a_target_that_nobody_uses_is_forgotten() {
        let pools = Pools::default();
        let before = pools.adopt(&upstream(Balance::RoundRobin, &[("10.0.0.1:80", 1), ("10.0.0.2:80", 1)]));
        take_out(&before, 1);
        let after = pools.adopt(&upstream(Balance::RoundRobin, &[("10.0.0.1:80", 1)]));
        assert_eq!(pools.report().len(), 2, "requests of the old snapshot still use it");
        drop(before);
        assert_eq!(pools.report().len(), 1);
        let again = pools.adopt(&upstream(Balance::RoundRobin, &[("10.0.0.1:80", 1), ("10.0.0.2:80", 1)]));
        assert!(again.targets()[1].is_usable(), "it starts healthy");
        assert!(Arc::ptr_eq(&after.targets()[0], &again.targets()[0]));
    }

    #[test]
    fn a_new_process_takes_over_health() {
        let (old, new) = (Pools::default(), Pools::default());
        let pool = old.adopt(&upstream(Balance::RoundRobin, &[("10.0.0.1:80", 1), ("10.0.0.2:80", 1)]));
        take_out(&pool, 0);
        let pool = new.adopt(&upstream(Balance::RoundRobin, &[("10.0.0.1:80", 1), ("10.0.0.3:80", 1)]));
        new.restore(&old.report());
        assert!(!pool.targets()[0].is_usable());
        assert!(pool.targets()[1].is_usable());
    }
}
