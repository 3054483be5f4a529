//! Asks one policy: what its verdict means where it is shadowed, and what `explain` is told of it.
//!
//! Does not decide the order: see `mod.rs`.

use super::rate_limit::RateLimits;
use super::{Counting, Policies, Policy, Request, Shadow, Stop};
use crate::config::compile::Wrong;
use crate::config::diagnostic::Diagnostic;
use crate::config::effective::Effective;
use crate::ctx::{Facts, Step};

impl Policies {
    pub fn shadows(&self, policy: Shadow) -> bool {
        self.shadow.contains(&policy)
    }

    pub(super) async fn run<P: Policy>(
        &self,
        name: Shadow,
        policy: &Option<P>,
        request: &Request<'_>,
        facts: &mut Facts,
    ) -> Result<(), Stop> {
        match policy {
            Some(policy) => {
                let verdict = policy.judge(request, facts).await;
                self.enforce(name, name.as_str(), verdict, facts)
            }
            None => Ok(()),
        }
    }

    pub(super) fn count(
        &self,
        name: &'static str,
        limits: &RateLimits,
        request: &Request<'_>,
        facts: &mut Facts,
        counting: Counting<'_>,
    ) -> Result<(), Stop> {
        let before = facts.charges.len();
        let verdict = limits.judge(request, facts, counting.buckets, counting.plans);
        if facts.charges.len() == before && !limits.has_places() {
            // Nothing is counted here: there is no verdict to tell.
            return verdict;
        }
        if self.shadows(Shadow::Limits) {
            // It would have had to wait.
            facts.delay = 0;
            facts.waiting.clear();
        }
        self.enforce(Shadow::Limits, name, verdict, facts)
    }

    /// Not a policy that a shadow would make harmless: what it does is what it is for.
    pub(super) async fn inject(&self, request: &Request<'_>, facts: &mut Facts) -> Result<(), Stop> {
        let Some(fault) = &self.fault else { return Ok(()) };
        let verdict = fault.judge(request, facts).await;
        if let Some(trail) = &mut facts.trail {
            let mut step = Step::of("fault", &verdict, false);
            if verdict.is_ok() {
                step.note = fault.told(request);
            }
            trail.push(step);
        }
        verdict
    }

    /// What is worth telling of a policy that let the request pass.
    fn note(&self, policy: Shadow, facts: &Facts) -> String {
        if policy == Shadow::Websocket {
            return self.websocket.as_ref().map(ToString::to_string).unwrap_or_default();
        }
        match &facts.identity {
            None if policy == Shadow::Auth => "public".to_owned(),
            Some(identity) if policy == Shadow::Auth => format!("by {}", identity.authenticator),
            None | Some(_) => String::new(),
        }
    }

    /// A shadowed policy is heard and logged, and the request passes.
    fn enforce(&self, policy: Shadow, name: &'static str, verdict: Result<(), Stop>, facts: &mut Facts) -> Result<(), Stop> {
        let shadowed = verdict.is_err() && self.shadows(policy);
        if facts.trail.is_some() {
            let mut step = Step::of(name, &verdict, shadowed);
            if verdict.is_ok() {
                step.note = self.note(policy, facts);
            }
            facts.trail.get_or_insert_default().push(step);
        }
        match verdict {
            Err(Stop::Refuse(problem)) if shadowed => {
                facts.would_refuse.push(problem.kind.code);
                Ok(())
            }
            Err(Stop::Answer(_)) if shadowed => Ok(()),
            verdict => verdict,
        }
    }
}

/// Which policies of a route are shadowed.
pub(super) fn shadows(given: &Effective<'_>, wrong: &mut Wrong) -> Vec<Shadow> {
    let Some(written) = given.given(|all| &all.shadow) else { return Vec::new() };
    if let Some(allow) = given.given(|all| &all.allow)
        && given.shadows(Shadow::Auth)
        && !given.shadows(Shadow::Allow)
    {
        let message = "`auth` is shadowed but `allow` is not: whoever comes without a credential would still be refused";
        let told = Diagnostic::at(&written.settings.place, "shadow-without-allow", message);
        wrong.add(told.help(format!("add `allow`, which is written in line {}", allow.settings.place.line)));
    }
    written.settings.iter().map(|entry| entry.value).collect()
}
