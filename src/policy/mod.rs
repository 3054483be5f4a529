//! May this request pass? The one ordered list of policies.
//!
//! Order: ip filter, cors, limits before_auth, authn, authz, limits, validation. Users cannot change it.

pub mod api_key;
pub mod authenticators;
pub mod authn;
pub mod authz;
pub mod claims;
pub mod cors;
pub mod credential;
pub mod forward;
pub mod ip_filter;
pub mod jwt;
pub mod principal;
pub mod rate_limit;
pub mod token_memory;
pub mod validate;

#[cfg(test)]
pub(crate) mod fixtures;

use http::request::Parts;

use crate::ctx::Facts;
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

// === impl Stop ===

impl From<Problem> for Stop {
    fn from(problem: Problem) -> Self {
        Stop::Refuse(Box::new(problem))
    }
}
