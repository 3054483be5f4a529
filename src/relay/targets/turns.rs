//! Carries out what takes an address of a target out and brings it back, and tells it: one log line a turn.
//!
//! Decides nothing of one address by itself: checks (`health/`), conduct (`outliers/`), circuits (`circuit/`) and the operator do. Decides
//! over all of an upstream how many may be ejected, and when so many are out that all are used.

use std::sync::atomic::Ordering::Relaxed;

use super::endpoint::{Checked, Endpoint};
use super::pool::Pool;
use super::standing::{Cause, May, Out};
use super::target::{ASK, Target, UNUSABLE, USABLE};
use crate::clock;
use crate::config::types::Percent;
use crate::ctx::Now;
use crate::relay::circuit::settings::CircuitBreaker;
use crate::relay::circuit::{self, Phase};
use crate::relay::health::{Thresholds, Turn};
use crate::relay::outliers::settings::OutlierDetection;
use crate::relay::outliers::{length, may_eject, odd_ones};

/// That nothing more may be ejected is told so often at most, in nanoseconds.
const SPARED_EVERY: u64 = 10_000_000_000;

// === impl Target ===

impl Target {
    /// Records one check of one address; the turn that it made, if any.
    pub fn observe(&self, endpoint: &Endpoint, verdict: Result<(), String>, thresholds: Thresholds, unix_ms: u64) -> Option<Turn> {
        let reason = verdict.err();
        let turn = {
            let mut checked = endpoint.checked.lock();
            let turn = checked.tracker.observe(reason.is_none(), thresholds);
            checked.reason = reason.clone().unwrap_or_default();
            turn
        };
        match turn {
            Some(Turn::Down) => {
                let reason = reason.unwrap_or_default();
                self.take_out(endpoint, Out { cause: Cause::Check, since_unix_ms: unix_ms, reason, until_unix_ms: None });
            }
            Some(Turn::Up) => {
                self.bring_back(endpoint, Cause::Check, unix_ms);
            }
            None => {
                if let Some(reason) = reason {
                    endpoint.standing.say(Cause::Check, reason);
                }
            }
        }
        turn
    }

    /// Takes an address out. False: it was out for this cause already.
    pub(in crate::relay) fn take_out(&self, endpoint: &Endpoint, out: Out) -> bool {
        let _changing = self.changing.lock();
        let (was, unix_ms) = (endpoint.standing.may(), out.since_unix_ms);
        if !endpoint.standing.out(out) {
            return false;
        }
        self.turned(endpoint, was, unix_ms);
        true
    }

    /// A cause is gone; what was told of it.
    pub(in crate::relay) fn bring_back(&self, endpoint: &Endpoint, cause: Cause, unix_ms: u64) -> Option<Out> {
        let _changing = self.changing.lock();
        let was = endpoint.standing.may();
        let out = endpoint.standing.back(cause);
        self.turned(endpoint, was, unix_ms);
        out
    }

    fn turned(&self, endpoint: &Endpoint, was: May, unix_ms: u64) {
        match (was == May::Nothing, endpoint.standing.may() == May::Nothing) {
            (false, true) => self.turns_down.fetch_add(1, Relaxed),
            (true, false) => self.turns_up.fetch_add(1, Relaxed),
            (true, true) | (false, false) => return self.refresh(),
        };
        endpoint.checked.lock().since = unix_ms;
        self.refresh();
    }

    /// The operator takes it out or brings it back: it gets no new request, whatever the state of the others; those that it has end as they
    /// would. False: it was so already.
    pub fn drain(&self, drained: bool, reason: &str, unix_ms: u64) -> bool {
        if self.drained.swap(drained, Relaxed) == drained {
            return false;
        }
        for endpoint in self.endpoints() {
            match drained {
                true => {
                    let reason = reason.to_owned();
                    self.take_out(&endpoint, Out { cause: Cause::Drained, since_unix_ms: unix_ms, reason, until_unix_ms: None });
                }
                false => drop(self.bring_back(&endpoint, Cause::Drained, unix_ms)),
            }
        }
        match drained {
            true => log::warn!("upstream {}: target {} is out: drained: {reason}", self.upstream, self.address),
            false => log::info!("upstream {}: target {} is back: no longer drained", self.upstream, self.address),
        }
        true
    }

    pub fn is_drained(&self) -> bool {
        self.drained.load(Relaxed)
    }

    /// Takes every address to work again, as far as checks go: where an upstream has none (any more), nobody would bring it back.
    pub fn trust(&self) {
        for endpoint in self.endpoints() {
            *endpoint.checked.lock() = Checked::default();
            self.bring_back(&endpoint, Cause::Check, 0);
        }
    }

    /// Whether too many addresses of the upstream are out to hear what speaks against any.
    pub(in crate::relay) fn set_panic(&self, panic: bool) {
        let _changing = self.changing.lock();
        self.with_endpoints(|endpoints| endpoints.iter().for_each(|e| e.standing.set_panic(panic)));
        self.refresh();
    }

    /// The circuit of an address is half open, or no longer.
    pub(in crate::relay) fn set_probed(&self, endpoint: &Endpoint, probed: bool) {
        let _changing = self.changing.lock();
        endpoint.standing.set_probed(probed);
        self.refresh();
    }

    pub(in crate::relay) fn refresh(&self) {
        let usable = self.with_endpoints(|endpoints| {
            let may = |wanted: May| endpoints.iter().any(|e| e.standing.may() == wanted);
            match (may(May::Take), may(May::Probe)) {
                (true, _) => USABLE,
                (false, true) => ASK,
                (false, false) => UNUSABLE,
            }
        });
        self.usable.store(usable, Relaxed);
    }
}

// === impl Pool ===

impl Pool {
    /// This snapshot's rules hold from now on; what is configured no more has no hold on any address.
    pub(in crate::relay) fn begin(&self) {
        let _changing = self.group.changing.lock();
        self.group.now_judged_by(self.id);
        let upstream = &self.upstream;
        let unix_ms = clock::now().unix_ms;
        self.group.gate.set_most(upstream.max_requests.unwrap_or(u32::MAX));
        self.group.room.set_most(upstream.max_connections.unwrap_or(0));
        self.group.limiter.begin(upstream.adaptive);
        let of_target = upstream.circuit_breaker.as_ref().is_some_and(CircuitBreaker::is_of_target);
        for target in self.targets() {
            if upstream.health.is_none() {
                target.trust();
            }
            for endpoint in target.endpoints() {
                if upstream.outlier_detection.is_none() {
                    target.bring_back(&endpoint, Cause::Ejected, unix_ms);
                }
                if !of_target {
                    endpoint.known_circuit().into_iter().for_each(circuit::Circuit::forget);
                    target.set_probed(&endpoint, false);
                    target.bring_back(&endpoint, Cause::Circuit, unix_ms);
                }
            }
        }
        if !upstream.circuit_breaker.as_ref().is_some_and(CircuitBreaker::is_of_upstream) {
            self.group.circuit.forget();
        }
        self.settle();
    }

    /// Takes out an address at which requests fare badly, if so many may be out.
    pub(in crate::relay) fn eject(&self, rules: &OutlierDetection, target: &Target, endpoint: &Endpoint, why: String, now: u64) {
        let _changing = self.group.changing.lock();
        if !self.group.is_judged_by(self.id) || endpoint.standing.is_out_by(Cause::Ejected) {
            return;
        }
        endpoint.conduct.restart();
        let (mut all, mut ejected, mut clear) = (0, 0, 0);
        self.each_endpoint(|_, endpoint| {
            all += 1;
            ejected += usize::from(endpoint.standing.is_out_by(Cause::Ejected));
            clear += usize::from(endpoint.standing.is_clear());
        });
        let (upstream, address, addr) = (&self.upstream.name, &target.address, target.shown(endpoint.addr));
        if !may_eject(rules, all, ejected, clear) {
            if self.group.spares(now, SPARED_EVERY) {
                log::warn!("upstream {upstream}: target {address} ({addr}) is not ejected, {ejected} of {all} are: {why}");
            }
            return;
        }
        let lasts = length(rules, endpoint.conduct.ejections.fetch_add(1, Relaxed));
        let unix_ms = clock::now().unix_ms;
        let until = unix_ms.saturating_add(u64::try_from(lasts.as_millis()).unwrap_or(u64::MAX));
        endpoint.conduct.eject_until(now.saturating_add(circuit::nanos(lasts)));
        log::warn!("upstream {upstream}: target {address} ({addr}) is out: ejected for {lasts:?}: {why}");
        target.take_out(endpoint, Out { cause: Cause::Ejected, since_unix_ms: unix_ms, reason: why, until_unix_ms: Some(until) });
        target.figures.ejected();
        self.settle();
        self.group.woken.notify_one();
    }

    /// The circuit of one address turns.
    pub(in crate::relay) fn turn_target(
        &self,
        rules: &CircuitBreaker,
        target: &Target,
        endpoint: &Endpoint,
        turn: circuit::Turn,
        now: u64,
    ) {
        let _changing = self.group.changing.lock();
        if !self.group.is_judged_by(self.id) {
            return endpoint.circuit().forget();
        }
        let (upstream, address, addr) = (&self.upstream.name, &target.address, target.shown(endpoint.addr));
        match turn {
            circuit::Turn::Opened(why) => {
                let unix_ms = clock::now().unix_ms;
                let until = unix_ms.saturating_add(endpoint.circuit().until().saturating_sub(now) / 1_000_000);
                log::warn!("upstream {upstream}: target {address} ({addr}) is out: circuit open for {:?}: {why}", rules.open_for);
                target.set_probed(endpoint, false);
                target.figures.circuit_opened();
                target.take_out(endpoint, Out { cause: Cause::Circuit, since_unix_ms: unix_ms, reason: why, until_unix_ms: Some(until) });
                self.group.woken.notify_one();
            }
            circuit::Turn::Closed => {
                log::info!("upstream {upstream}: target {address} ({addr}) is back: circuit closed");
                target.set_probed(endpoint, false);
            }
        }
    }

    /// The circuit of the upstream turns.
    pub(in crate::relay) fn turn_upstream(&self, rules: &CircuitBreaker, turn: circuit::Turn) {
        let _changing = self.group.changing.lock();
        if !self.group.is_judged_by(self.id) {
            return self.group.circuit.forget();
        }
        let upstream = &self.upstream.name;
        match &turn {
            circuit::Turn::Opened(why) => log::warn!("upstream {upstream}: circuit open for {:?}: {why}", rules.open_for),
            circuit::Turn::Closed => log::info!("upstream {upstream}: circuit closed"),
        }
        let why = match turn {
            circuit::Turn::Opened(why) => why,
            circuit::Turn::Closed => String::new(),
        };
        self.group.told(why, clock::now().unix_ms);
        self.group.woken.notify_one();
    }

    /// What checks have turned is done: whether there are enough to go by it.
    pub(in crate::relay) fn settled(&self) {
        let _changing = self.group.changing.lock();
        if self.group.is_judged_by(self.id) {
            self.settle();
        }
    }

    /// Where fewer than so many percent are sound, all are used. With `changing` held.
    fn settle(&self) {
        let least = self.upstream.panic_threshold.unwrap_or(Percent(0));
        if least.0 == 0 && !self.group.is_panic() {
            return;
        }
        let (mut all, mut sound) = (0u64, 0u64);
        self.each_endpoint(|_, endpoint| {
            all += 1;
            sound += u64::from(endpoint.standing.is_sound());
        });
        let panic = sound * 10_000 < u64::from(least.0) * all;
        for target in self.targets() {
            // Addresses that were found meanwhile, too.
            target.set_panic(panic);
        }
        if self.group.set_panic(panic) != panic {
            let upstream = &self.upstream.name;
            match panic {
                true => log::warn!("upstream {upstream}: {sound} of {all} addresses are sound, less than {least}: all are used"),
                false => log::info!("upstream {upstream}: {sound} of {all} addresses are sound: what checks and requests say counts again"),
            }
        }
    }

    /// Brings back whose time is over, and turns circuits half open. When there is something to do again, in monotonic nanoseconds.
    pub(in crate::relay) fn tidy(&self, now: Now) -> Option<u64> {
        let _changing = self.group.changing.lock();
        let mut next = None::<u64>;
        let mut later = |at: u64| next = Some(next.map_or(at, |next| next.min(at)));
        let upstream = &self.upstream;
        let probes = upstream.circuit_breaker.as_ref().map_or(0, |rules| rules.probes);
        self.each_endpoint(|target, endpoint| {
            let addr = || target.shown(endpoint.addr);
            if endpoint.standing.is_out_by(Cause::Ejected) {
                match endpoint.conduct.ejected_until() {
                    until if until > now.mono => later(until),
                    _ => {
                        endpoint.conduct.restart();
                        target.bring_back(endpoint, Cause::Ejected, now.unix_ms);
                        log::info!("upstream {}: target {} ({}) is back: its ejection is over", upstream.name, target.address, addr());
                    }
                }
            }
            let Some(circuit) = endpoint.known_circuit() else { return };
            if circuit.relent(probes, now.mono) {
                target.set_probed(endpoint, true);
                target.bring_back(endpoint, Cause::Circuit, now.unix_ms);
                log::info!("upstream {}: target {} ({}): circuit half open, {probes} probes", upstream.name, target.address, addr());
            } else if circuit.phase() == Phase::Open {
                later(circuit.until());
            }
        });
        let circuit = &self.group.circuit;
        if circuit.relent(probes, now.mono) {
            log::info!("upstream {}: circuit half open, {probes} probes", upstream.name);
        } else if circuit.phase() == Phase::Open {
            later(circuit.until());
        }
        self.settle();
        next
    }

    /// Compares all addresses with each other, and ejects those that are worse. One good stretch makes up for one ejection.
    pub(in crate::relay) fn compare(&self, rules: &OutlierDetection, now: u64) {
        let mut endpoints = Vec::new();
        for target in self.targets() {
            endpoints.extend(target.endpoints().into_iter().map(|endpoint| (target.clone(), endpoint)));
        }
        let stretches: Vec<_> = endpoints.iter().map(|(_, endpoint)| endpoint.conduct.take()).collect();
        for (_, endpoint) in endpoints.iter().filter(|(_, endpoint)| !endpoint.standing.is_out_by(Cause::Ejected)) {
            endpoint.conduct.forgive();
        }
        for (at, why) in odd_ones(rules, &stretches) {
            let (target, endpoint) = &endpoints[at];
            self.eject(rules, target, endpoint, why, now);
        }
    }

    /// Where nothing is compared, a stretch without an ejection is a good one.
    pub(in crate::relay) fn forgive(&self) {
        self.each_endpoint(|_, endpoint| {
            if !endpoint.standing.is_out_by(Cause::Ejected) {
                endpoint.conduct.forgive();
            }
        });
    }

    fn each_endpoint(&self, mut look: impl FnMut(&Target, &Endpoint)) {
        for target in self.targets() {
            target.endpoints().iter().for_each(|endpoint| look(&target, endpoint));
        }
    }
}
