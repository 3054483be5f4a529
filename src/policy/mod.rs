//! May this request pass? The one ordered list of policies; users cannot change the order.
//!
//! Decides the order and what a shadow means. Does not decide any single question: each policy has a file.

pub mod api_key;
pub mod authenticators;
pub mod authn;
pub mod authz;
pub mod buckets;
pub mod claims;
pub mod cors;
pub mod credential;
pub mod forward;
pub mod ip_filter;
pub mod jwt;
pub mod limits;
pub mod principal;
pub mod rate_limit;
pub mod token_memory;
pub mod validate;
pub mod websocket;

#[cfg(test)]
pub(crate) mod fixtures;

use std::sync::Arc;

use http::request::Parts;

use self::authn::Auth;
use self::authz::Allow;
use self::buckets::Buckets;
use self::cors::Cors;
use self::ip_filter::IpFilter;
use self::limits::limit::Limit;
use self::rate_limit::RateLimits;
use self::validate::BodyLimit;
use self::websocket::{WebSocket, is_handshake};
use crate::config::document::Shadow;
use crate::ctx::{Facts, Step};
use crate::reply::problem::Problem;

/// Why a request goes no further.
#[derive(Debug)]
pub enum Stop {
    /// Refused, with a stable code.
    Refuse(Box<Problem>),
    /// Answered by the policy itself, such as a preflight.
    Answer(Box<Answer>),
}

/// An answer of the gateway's own that is not a refusal.
#[derive(Debug)]
pub struct Answer {
    pub status: u16,
    pub headers: Vec<(http::HeaderName, http::HeaderValue)>,
    pub body: bytes::Bytes,
}

/// What policies may see of a request: the head as it came and what is known. They cannot write to the client.
pub struct Request<'a> {
    pub head: &'a Parts,
}

/// A policy that was compiled for a route.
pub trait Policy {
    /// `Ok` lets the request pass on to the next policy.
    #[expect(async_fn_in_trait, reason = "static dispatch inside this crate only")]
    async fn judge(&self, request: &Request<'_>, facts: &mut Facts) -> Result<(), Stop>;
}

/// What limits count in and what consumers may do in total: shared by all routes of a snapshot.
#[derive(Clone, Copy)]
pub struct Counting<'a> {
    pub buckets: &'a Buckets,
    pub plans: &'a [Arc<Limit>],
}

/// The policies of one route, a slot each, in the order in which they are asked.
pub struct Policies {
    pub ip_filter: Option<IpFilter>,
    pub cors: Option<Cors>,
    pub websocket: Option<WebSocket>,
    pub limits_before_auth: RateLimits,
    pub auth: Auth,
    pub allow: Option<Allow>,
    pub limits: RateLimits,
    pub body: Option<BodyLimit>,
    /// Judged but not enforced.
    pub shadow: Vec<Shadow>,
}

// === impl Policies ===

impl Policies {
    /// Asks every policy in order, until one stops the request.
    pub async fn judge(&self, request: &Request<'_>, facts: &mut Facts, counting: Counting<'_>) -> Result<(), Stop> {
        // Cheap, and independent of everything else.
        self.run(Shadow::IpFilter, &self.ip_filter, request, facts).await?;
        // Before authentication: a preflight carries no credentials, and refusals need the headers too.
        self.run(Shadow::Cors, &self.cors, request, facts).await?;
        // Before authentication: a browser sends the credentials of its user with a handshake from any page.
        if self.websocket.is_some() && is_handshake(request.head) {
            self.run(Shadow::Websocket, &self.websocket, request, facts).await?;
        }
        // Before authentication: it protects the work of authentication.
        self.count("limits before_auth", &self.limits_before_auth, request, facts, counting)?;
        self.run(Shadow::Auth, &Some(&self.auth), request, facts).await?;
        self.run(Shadow::Allow, &self.allow, request, facts).await?;
        // After authorisation: a 401 or 403 costs only what was counted before.
        self.count("limits", &self.limits, request, facts, counting)?;
        self.run(Shadow::Body, &self.body, request, facts).await
    }

    /// When a tunnel of this caller's ends whatever happens, in milliseconds since 1970; none where it does not.
    pub fn tunnel_end(&self, facts: &Facts) -> Option<u64> {
        let identity = facts.identity.as_deref().filter(|_| self.websocket.as_ref().is_some_and(|websocket| websocket.close_at_expiry))?;
        self.auth.end(identity)
    }

    pub fn shadows(&self, policy: Shadow) -> bool {
        self.shadow.contains(&policy)
    }

    async fn run<P: Policy>(&self, name: Shadow, policy: &Option<P>, request: &Request<'_>, facts: &mut Facts) -> Result<(), Stop> {
        match policy {
            Some(policy) => {
                let verdict = policy.judge(request, facts).await;
                self.enforce(name, name.as_str(), verdict, facts)
            }
            None => Ok(()),
        }
    }

    fn count(
        &self,
        name: &'static str,
        limits: &RateLimits,
        request: &Request<'_>,
        facts: &mut Facts,
        counting: Counting<'_>,
    ) -> Result<(), Stop> {
        let before = facts.charges.len();
        let verdict = limits.judge(request, facts, counting.buckets, counting.plans);
        if facts.charges.len() == before {
            // Nothing is counted here: there is no verdict to tell.
            return verdict;
        }
        self.enforce(Shadow::Limits, name, verdict, facts)
    }

    /// What is worth telling of a policy that let the request pass.
    fn note(&self, policy: Shadow, facts: &Facts) -> String {
        match (policy, &facts.identity) {
            (Shadow::Auth, None) => "public".to_owned(),
            (Shadow::Auth, Some(identity)) => format!("by {}", identity.authenticator),
            (Shadow::Websocket, _) => self.websocket.as_ref().map(ToString::to_string).unwrap_or_default(),
            (Shadow::IpFilter | Shadow::Cors | Shadow::Allow | Shadow::Limits | Shadow::Body, _) => String::new(),
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

impl<P: Policy> Policy for &P {
    async fn judge(&self, request: &Request<'_>, facts: &mut Facts) -> Result<(), Stop> {
        (**self).judge(request, facts).await
    }
}

// === impl Stop ===

impl From<Problem> for Stop {
    fn from(problem: Problem) -> Self {
        Stop::Refuse(Box::new(problem))
    }
}
