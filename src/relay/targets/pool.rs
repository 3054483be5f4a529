//! An upstream's targets as one snapshot sees them, and the registry through which they outlive it.
//!
//! Decides what a reload or an update keeps: targets are known by upstream name and address, so a changed weight, timeout or balance
//! keeps health and requests in flight. Does not decide which target a request gets: see `balance.rs`.

use std::collections::HashMap;
use std::ops::Deref;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Weak};

use arc_swap::{ArcSwap, Guard};
use parking_lot::Mutex;
use pingora_core::upstreams::peer::HttpPeer;
use smallvec::SmallVec;

use super::group::{Group, GroupReport};
use super::members::Member;
use super::target::{Target, TargetReport};
use crate::clock;
use crate::relay::attempt::peer;
use crate::relay::balance::Picker;
use crate::relay::balance::levels::{Level, Spread, rank};
use crate::relay::balance::sticky::Stuck;
use crate::relay::finding::Source;
use crate::relay::finding::found::Found;
use crate::relay::upstream::Upstream;

/// The targets of one upstream in one snapshot.
#[derive(Debug)]
pub struct Pool {
    pub upstream: Arc<Upstream>,
    set: Set,
    /// Requests in flight at all targets of this upstream.
    pub(in crate::relay) load: Arc<AtomicU32>,
    /// What every connection of this upstream has in common; copied for each attempt.
    pub(in crate::relay) template: HttpPeer,
    /// What changes about the upstream as a whole.
    pub group: Arc<Group>,
    /// Tells snapshots apart.
    pub(in crate::relay) id: u64,
    /// Whether what requests meet takes targets out, or tells how many there may be.
    pub judges: bool,
    /// Whether it may refuse a request.
    pub admits: bool,
    /// Names that are drained and not among the targets, as they were told last.
    pub(super) unfound: Mutex<Vec<Arc<str>>>,
    known: Arc<Known>,
}

/// Targets and how they take turns; exchanged as a whole.
#[derive(Debug)]
pub struct TargetSet {
    /// Those that are preferred first; else in the order in which they were listed.
    pub targets: Box<[Arc<Target>]>,
    /// What was said of each.
    pub members: Box<[Member]>,
    /// Those that are preferred first; one where there is no preference.
    pub levels: Box<[Level]>,
    /// Where who works has to be counted.
    pub spread: Option<Spread>,
    /// Where clients come back to the target that they had.
    pub(in crate::relay) stuck: Option<HashMap<Stuck, u32>>,
}

/// What a configuration lists never changes, which saves a load per request.
#[derive(Debug)]
enum Set {
    Listed(Box<TargetSet>),
    Found(Arc<Found>, ArcSwap<TargetSet>),
}

/// The targets at this moment. To be let go soon: until then what was removed stays in memory.
pub enum Present<'p> {
    Listed(&'p TargetSet),
    Found(Guard<Arc<TargetSet>>),
}

/// What an update has changed.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Change {
    pub added: Vec<Arc<str>>,
    pub removed: Vec<Arc<str>>,
    /// Of those that stay, how many have another weight or the like.
    pub changed: usize,
}

/// All targets that any snapshot or request still uses.
#[derive(Debug, Default)]
pub struct Pools(Arc<Known>);

#[derive(Debug, Default)]
struct Known {
    // Weak: a target lives as long as somebody uses it, so a snapshot that is refused leaves nothing behind.
    targets: Mutex<HashMap<Identity, Weak<Target>>>,
    /// Of each upstream, what its targets count in together.
    loads: Mutex<HashMap<Arc<str>, Weak<AtomicU32>>>,
    /// Of each upstream whose targets are found, what was found last.
    found: Mutex<HashMap<Arc<str>, Weak<Found>>>,
    groups: Mutex<HashMap<Arc<str>, Weak<Group>>>,
}

/// Upstream name and target address: by these a target is the same one after a reload or an update.
type Identity = (Arc<str>, Arc<str>);

/// No time at all, and yet something to be asked.
pub const AT_ONCE: u64 = 1;

/// The next number of a pool; 0 is none.
static IDS: AtomicU64 = AtomicU64::new(1);

// === impl Pool ===

impl Pool {
    /// The targets as they are now: for a listed set a branch, for one that is found a load; never a lock.
    pub fn present(&self) -> Present<'_> {
        match &self.set {
            Set::Listed(set) => Present::Listed(set),
            Set::Found(_, set) => Present::Found(set.load()),
        }
    }

    /// Where the targets are found, if they are not listed.
    pub fn found(&self) -> Option<&Arc<Found>> {
        match &self.set {
            Set::Listed(_) => None,
            Set::Found(found, _) => Some(found),
        }
    }

    /// Nanoseconds before an attempt, where it has to be asked whether it may connect.
    pub fn least_rest(&self) -> u64 {
        if self.upstream.max_connections.is_some() { AT_ONCE } else { 0 }
    }

    /// Whether a connection may serve more than one request.
    pub fn keeps_connections(&self) -> bool {
        self.upstream.proxy_protocol.is_none() && !self.upstream.reuse.idle.is_zero()
    }

    /// Copies of all, for whoever goes on for long.
    pub fn targets(&self) -> Vec<Arc<Target>> {
        self.present().targets.to_vec()
    }

    /// Puts other targets in place of those that were found before. Those that stay keep what is known of them; those that are gone get no
    /// more requests, what they have under way goes on, and no request finds their connections again. Requests wait for none of it.
    pub fn refill(&self, members: Vec<Member>) -> Change {
        let Set::Found(_, current) = &self.set else { return Change::default() };
        let new = Arc::new(self.known.set_of(&self.upstream, members, &self.load));
        new.levels.iter().for_each(|level| level.picker.begin_at(fastrand::usize(..)));
        self.drain_of(&new);
        let old = current.swap(new.clone());
        let by_name = |set: &TargetSet| -> HashMap<Arc<str>, usize> {
            set.members.iter().enumerate().map(|(index, member)| (member.address.text.clone(), index)).collect()
        };
        let (before, after) = (by_name(&old), by_name(&new));
        let mut change = Change::default();
        for (index, member) in new.members.iter().enumerate() {
            match before.get(&member.address.text) {
                None => change.added.push(member.address.text.clone()),
                Some(was) if old.members[*was] != new.members[index] => change.changed += 1,
                Some(_) => {}
            }
        }
        for (target, member) in old.targets.iter().zip(&old.members) {
            if !after.contains_key(&member.address.text) {
                target.abandon_connections();
                change.removed.push(member.address.text.clone());
            }
        }
        change
    }
}

// === impl TargetSet ===

impl TargetSet {
    /// Counts who works, and notes who has come back.
    pub(in crate::relay) fn count(&self, spread: &Spread, now: u64) {
        let health: SmallVec<[f64; 8]> = self.levels.iter().map(|level| self.health(level, now)).collect();
        spread.counted(&health);
    }

    /// The part of a level that works, by weight.
    fn health(&self, level: &Level, now: u64) -> f64 {
        let (mut all, mut able) = (0, 0);
        for index in level.range.clone() {
            let (weight, is_able) = (u64::from(self.members[index].weight.get()), self.targets[index].is_usable());
            self.targets[index].warmth.note(is_able, now);
            all += weight;
            able += if is_able { weight } else { 0 };
        }
        if all == 0 { 0.0 } else { able as f64 / all as f64 }
    }

    /// The target of a cookie.
    pub fn target_of(&self, stuck: Stuck) -> Option<&Arc<Target>> {
        self.targets.get(*self.stuck.as_ref()?.get(&stuck)? as usize)
    }
}

impl Deref for Present<'_> {
    type Target = TargetSet;
    fn deref(&self) -> &TargetSet {
        match self {
            Present::Listed(set) => set,
            Present::Found(set) => set,
        }
    }
}

// === impl Pools ===

impl Pools {
    /// The pool of an upstream: targets that are known already are shared, others start healthy.
    ///
    /// Changes nothing that the running snapshot can see; what a commit changes is done by [`crate::relay::health::watch`].
    pub fn adopt(&self, upstream: &Arc<Upstream>) -> Arc<Pool> {
        let load = self.0.load_of(&upstream.name);
        let set = match &upstream.source {
            None => Set::Listed(Box::new(self.0.set_of(upstream, upstream.targets.clone(), &load))),
            Some(source) => {
                let found = self.0.found_of(&upstream.name, source);
                // A file has been read just now; of everything else the last good answer is what there is.
                let members = match &upstream.targets[..] {
                    [] => found.list().map(|list| list.to_vec()).unwrap_or_default(),
                    read => read.to_vec(),
                };
                Set::Found(found, ArcSwap::from_pointee(self.0.set_of(upstream, members, &load)))
            }
        };
        Arc::new(Pool {
            upstream: upstream.clone(),
            set,
            load,
            template: peer::template(upstream),
            group: self.0.group_of(&upstream.name),
            id: IDS.fetch_add(1, Relaxed),
            judges: upstream.outlier_detection.is_some() || upstream.circuit_breaker.is_some() || upstream.adaptive.is_some(),
            admits: upstream.max_requests.is_some()
                || upstream.max_connections.is_some()
                || upstream.adaptive.is_some()
                || upstream.circuit_breaker.as_ref().is_some_and(|rules| rules.is_of_upstream()),
            unfound: Mutex::default(),
            known: self.0.clone(),
        })
    }

    /// What is known of every target, sorted; for `/status` and for handing over to a new process.
    pub fn report(&self) -> Vec<TargetReport> {
        let targets: Vec<_> = self.0.targets.lock().values().filter_map(Weak::upgrade).collect();
        let mut reports: Vec<_> = targets.iter().map(|target| target.report()).collect();
        reports.sort_by(|a, b| (&a.upstream, &a.target).cmp(&(&b.upstream, &b.target)));
        reports
    }

    /// What is known of every upstream as a whole, sorted.
    pub fn report_groups(&self) -> Vec<GroupReport> {
        let groups: Vec<_> = self.0.groups.lock().iter().filter_map(|(name, group)| Some((name.clone(), group.upgrade()?))).collect();
        let now = clock::now();
        let mut reports: Vec<_> = groups.iter().map(|(name, group)| group.report(name, now)).collect();
        reports.sort_by(|a, b| a.upstream.cmp(&b.upstream));
        reports
    }

    pub fn restore_groups(&self, reports: &[GroupReport]) {
        let (groups, now) = (self.0.groups.lock(), clock::now());
        for report in reports {
            if let Some(group) = groups.get(report.upstream.as_str()).and_then(Weak::upgrade) {
                group.restore(report, now);
            }
        }
    }

    /// Takes over what another process knew of targets that were adopted here; the others are ignored.
    pub fn restore(&self, reports: &[TargetReport]) {
        let known = self.0.targets.lock();
        for report in reports {
            let key = (report.upstream.as_str().into(), report.target.as_str().into());
            if let Some(target) = known.get(&key).and_then(Weak::upgrade) {
                target.restore(report);
            }
        }
    }
}

// === impl Known ===

impl Known {
    fn set_of(&self, upstream: &Upstream, mut members: Vec<Member>, load: &Arc<AtomicU32>) -> TargetSet {
        let zone = upstream.zone.as_deref();
        members.sort_by_key(|member| rank(member, zone));
        let targets = self.take_in(&upstream.name, &members, load);
        let mut levels = Vec::new();
        let mut begin = 0;
        // One there is always.
        let chunks: Vec<&[Member]> = members.chunk_by(|a, b| rank(a, zone) == rank(b, zone)).collect();
        for chunk in if chunks.is_empty() { vec![&[][..]] } else { chunks } {
            let weights: Vec<u16> = chunk.iter().map(|member| member.weight.get()).collect();
            let names: Vec<&str> = chunk.iter().map(|member| &*member.address.text).collect();
            let picker = Picker::new(upstream.balance, &names, &weights);
            let (priority, is_far) = chunk.first().map_or((0, false), |member| rank(member, zone));
            levels.push(Level { range: begin..begin + chunk.len(), picker, priority, is_near: zone.map(|_| !is_far) });
            begin += chunk.len();
        }
        let spread = (levels.len() > 1 || upstream.slow_start.is_some()).then(|| Spread::new(levels.len()));
        let stuck = upstream.sticky.as_ref().map(|sticky| {
            let id = |(index, member): (usize, &Member)| (sticky.of(&upstream.name, &member.address.text), index as u32);
            members.iter().enumerate().map(id).collect()
        });
        TargetSet { targets, levels: levels.into(), spread, stuck, members: members.into() }
    }

    /// The targets of these members. A request that begins or ends meanwhile does not wait: it knows its targets already.
    fn take_in(&self, upstream: &Arc<str>, members: &[Member], load: &Arc<AtomicU32>) -> Box<[Arc<Target>]> {
        let mut known = self.targets.lock();
        known.retain(|_, target| target.strong_count() > 0);
        // At the start all are as new as each other.
        let is_first = !known.keys().any(|(name, _)| name == upstream);
        let targets = members.iter().map(|member| {
            let key = (upstream.clone(), member.address.text.clone());
            if let Some(target) = known.get(&key).and_then(Weak::upgrade) {
                return target;
            }
            let target = Arc::new(Target::new(upstream.clone(), member.address.clone(), load.clone()));
            if !is_first {
                target.warmth.begin(clock::mono());
            }
            known.insert(key, Arc::downgrade(&target));
            target
        });
        targets.collect()
    }

    /// What was found for the upstream, by whichever snapshot; another source starts with nothing.
    fn found_of(&self, upstream: &Arc<str>, source: &Source) -> Arc<Found> {
        let mut all = self.found.lock();
        all.retain(|_, found| found.strong_count() > 0);
        if let Some(found) = all.get(upstream).and_then(Weak::upgrade).filter(|found| found.source == *source) {
            return found;
        }
        let found = Arc::new(Found::new(source.clone()));
        all.insert(upstream.clone(), Arc::downgrade(&found));
        found
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
}

#[cfg(test)]
impl Pools {
    /// While somebody else holds everything that an update locks.
    pub(in crate::relay) fn holding_all_locks<T>(&self, run: impl FnOnce() -> T) -> T {
        let Known { targets, loads, found, groups } = &*self.0;
        let _held = (targets.lock(), loads.lock(), found.lock(), groups.lock());
        run()
    }
}

#[cfg(test)]
pub(in crate::relay) mod tests {
    use super::*;
    use crate::relay::finding::TargetsFromSettings;
    use crate::relay::health::Thresholds;
    use crate::relay::targets::address::Address;
    use crate::relay::upstream::Balance;
    use crate::relay::upstream::tests::{at, settings};
    use std::num::NonZeroU16;
    use std::ops::Range;

    pub(crate) fn upstream(balance: Balance, targets: &[(&str, u16)]) -> Arc<Upstream> {
        let mut written = settings(targets);
        written.balance = Some(crate::relay::upstream::tests::at(balance));
        Arc::new(Upstream::compile("orders", &written).unwrap())
    }

    /// Targets that were found, so many.
    pub(crate) fn found(pools: &Pools, count: usize) -> Arc<Pool> {
        let mut written = settings(&[]);
        let srv = Some(at("_http._tcp.orders.internal".to_owned()));
        (written.targets, written.targets_from) =
            (None, Some(at(TargetsFromSettings { file: None, srv, consul: None, kubernetes: None, drain: None })));
        let pool = pools.adopt(&Arc::new(Upstream::compile("orders", &written).unwrap()));
        pool.refill(members(0..count));
        pool
    }

    fn members(range: Range<usize>) -> Vec<Member> {
        let member = |index: usize| {
            let address = Address::parse(&format!("10.1.{}.{}:80", index / 250, index % 250)).unwrap();
            Member { address, weight: NonZeroU16::MIN, drain: false, priority: 0, zone: None }
        };
        range.map(member).collect()
    }

    #[test]
    fn an_update_keeps_what_is_known_of_targets_that_stay_and_forgets_connections_of_those_that_go() {
        let pools = Pools::default();
        let pool = found(&pools, 3);
        let before = pool.targets();
        take_out(&pool, 1);
        let busy = before[0].take(&[]).unwrap();
        let key = busy.present_key();
        let change = pool.refill(members(1..4));
        assert_eq!((change.added.len(), change.removed.len(), change.changed), (1, 1, 0));
        assert_eq!((&*change.added[0], &*change.removed[0]), ("10.1.0.3:80", "10.1.0.0:80"));
        let after = pool.targets();
        assert!(Arc::ptr_eq(&before[1], &after[0]) && !after[0].is_usable());
        assert!(after.iter().all(|target| !Arc::ptr_eq(target, &before[0])));
        assert_eq!(before[0].in_flight(), 1, "what is under way goes on");
        pool.refill(members(0..1));
        let again = pool.targets()[0].take(&[]).unwrap();
        assert!(Arc::ptr_eq(again.target(), &before[0]) && again.present_key() != key);
    }

    #[test]
    fn another_snapshot_has_what_was_found_and_another_source_nothing() {
        let pools = Pools::default();
        let pool = found(&pools, 0);
        pool.found().unwrap().answered(&members(0..2));
        assert_eq!(pools.adopt(&pool.upstream).targets().len(), 2);
        let mut other = (*pool.upstream).clone();
        other.source = found(&Pools::default(), 0).upstream.source.clone();
        assert_eq!(pools.adopt(&Arc::new(other)).targets().len(), 2, "an equal source");
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
