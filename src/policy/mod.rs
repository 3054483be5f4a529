//! May this request pass? The one ordered list of policies; users cannot change the order.
//!
//! Decides the order, and is the one list of what policies there are: their keys, their refusals, how they are compiled. Does not decide
//! any single question: each policy has a file. What a shadow means is in `ask.rs`.

pub mod api_key;
mod ask;
pub mod authenticators;
pub mod authn;
pub mod authz;
pub mod buckets;
pub mod claimed;
pub mod claims;
pub mod client_certificate;
pub mod consumers;
pub mod cors;
pub mod credential;
pub mod fault;
pub mod forward;
pub mod https;
pub mod introspection;
pub mod ip_filter;
pub mod issuers;
pub mod jwt;
pub mod key_table;
mod known;
pub mod limits;
pub mod list_file;
pub mod overload;
pub mod pressure;
pub mod principal;
pub mod priority;
pub mod rate_limit;
pub mod revocation;
pub mod tag_book;
pub mod token_memory;
pub mod validate;
pub mod watched;
pub mod websocket;

#[cfg(test)]
pub(crate) mod fixtures;

use std::sync::Arc;

use http::Method;
use http::request::Parts;
use schemars::JsonSchema;
use serde::Deserialize;

use self::authn::Auth;
use self::authz::Allow;
use self::buckets::Buckets;
use self::cors::Cors;
use self::fault::Fault;
use self::https::Https;
use self::ip_filter::IpFilter;
use self::limits::limit::Limit;
use self::rate_limit::{RateLimits, Stage};
use self::validate::BodyLimit;
use self::watched::Watched;
use self::websocket::{WebSocket, is_handshake};
use crate::config::check::same_twice;
use crate::config::compile::Wrong;
use crate::config::diagnostic::{Diagnostic, Place};
use crate::config::document::PolicySettings;
use crate::config::effective::{Effective, Giver};
use crate::config::types::At;
use crate::ctx::Facts;
use crate::relay::fallback;
use crate::relay::message::rewrite;
use crate::relay::mirror;
use crate::reply::problem::{Kind, Problem};

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
    pub https: Option<Https>,
    pub cors: Option<Cors>,
    pub websocket: Option<WebSocket>,
    pub limits_before_auth: RateLimits,
    pub auth: Auth,
    pub allow: Option<Allow>,
    pub limits: RateLimits,
    pub body: Option<BodyLimit>,
    pub fault: Option<Fault>,
    /// Judged but not enforced.
    pub shadow: Vec<Shadow>,
}

/// A policy that can be shadowed, by its key.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Shadow {
    IpFilter,
    Https,
    Cors,
    Websocket,
    Auth,
    Allow,
    Limits,
    Body,
}

/// What policies refuse with, beside the key of each.
pub static KINDS: &[(&str, &Kind)] = &[
    ("ip_filter", &ip_filter::ADDRESS_REFUSED),
    ("https", &https::HTTPS_REQUIRED),
    ("cors", &cors::CORS_REFUSED),
    ("websocket", &websocket::ORIGIN_REFUSED),
    ("auth", &authn::CREDENTIALS_AMBIGUOUS),
    ("auth", &authn::CREDENTIALS_MISSING),
    ("auth", &revocation::CREDENTIAL_REVOKED),
    ("auth", &revocation::REVOCATION_UNAVAILABLE),
    ("auth", &api_key::CONSUMERS_UNAVAILABLE),
    ("auth", &api_key::KEY_EXPIRED),
    ("auth", &api_key::KEY_MALFORMED),
    ("auth", &api_key::KEY_UNKNOWN),
    ("auth", &client_certificate::CERTIFICATE_EXPIRED),
    ("auth", &client_certificate::CERTIFICATE_UNKNOWN),
    ("auth", &client_certificate::CERTIFICATE_UNUSABLE),
    ("auth", &introspection::INTROSPECTION_UNAVAILABLE),
    ("auth", &jwt::published::KEYS_TOO_OLD),
    ("auth", &jwt::published::KEYS_UNAVAILABLE),
    ("auth", &jwt::kinds::ALGORITHM.kind),
    ("auth", &jwt::kinds::AUDIENCE.kind),
    ("auth", &jwt::kinds::CLAIMS.kind),
    ("auth", &jwt::kinds::EXPIRED.kind),
    ("auth", &jwt::kinds::INACTIVE.kind),
    ("auth", &jwt::kinds::ISSUER.kind),
    ("auth", &jwt::kinds::KEY_UNKNOWN.kind),
    ("auth", &jwt::kinds::LIFETIME.kind),
    ("auth", &jwt::kinds::MALFORMED.kind),
    ("auth", &jwt::kinds::NOT_YET_VALID.kind),
    ("auth", &jwt::kinds::SIGNATURE.kind),
    ("auth", &jwt::kinds::TOO_LARGE.kind),
    ("allow", &authz::CLAIM_MISMATCH),
    ("allow", &authz::ROLE_MISSING),
    ("allow", &authz::SCOPE_MISSING),
    ("allow", &authz::TAG_MISMATCH),
    ("limits", &rate_limit::KIND),
    ("limits", &limits::quota::QUOTA_EXCEEDED),
    ("limits", &limits::places::CONCURRENCY_LIMITED),
    ("body", &validate::BODY_TOO_LARGE),
    ("fault", &fault::FAULT_INJECTED),
];

/// What of other parts of a configuration the policies of a route are made from.
pub struct ForRoute<'a> {
    pub name: &'a str,
    pub methods: Option<&'a [Method]>,
    /// `None` where its mistakes have been told.
    pub auth: Option<Auth>,
    pub limits: &'a [Arc<Limit>],
    /// Where it goes, the default first.
    pub upstreams: &'a [Arc<str>],
    pub given: &'a Effective<'a>,
}

/// What a route must have for a key to have an effect.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Needs {
    Nothing,
    /// It has none on a route that answers by itself.
    Upstream,
}

/// A key of [`PolicySettings`] that is written.
pub struct Written<'a> {
    pub key: &'static str,
    pub place: &'a Place,
    pub needs: Needs,
    /// Those that can be seen in its settings alone.
    pub mistakes: Vec<Diagnostic>,
}

// === impl PolicySettings ===

impl PolicySettings {
    /// The keys that are written, and what is wrong with the settings of each by itself.
    pub fn written(&self) -> Vec<Written<'_>> {
        let PolicySettings {
            ip_filter,
            https,
            cors,
            websocket,
            allow,
            limits,
            body,
            fault,
            fallback,
            mirror,
            timeouts,
            grpc,
            rewrite,
            request_headers,
            response_headers,
            accept,
            shadow,
        } = self;
        use Needs::{Nothing, Upstream};
        let all = [
            written("ip_filter", Nothing, ip_filter, ip_filter::check),
            written("https", Nothing, https, https::check),
            written("cors", Nothing, cors, cors::check),
            written("websocket", Upstream, websocket, |_, _| {}),
            written("allow", Nothing, allow, authz::check),
            written("limits", Nothing, limits, |_, _| {}),
            written("body", Upstream, body, |_, _| {}),
            written("fault", Upstream, fault, fault::check),
            // What the relay and the reply do for a route is written with the policies, but asks nobody.
            written("fallback", Upstream, fallback, fallback::check),
            written("mirror", Upstream, mirror, mirror::check),
            written("timeouts", Upstream, timeouts, |_, _| {}),
            written("grpc", Upstream, grpc, |_, _| {}),
            written("rewrite", Upstream, rewrite, rewrite::check),
            written("request_headers", Upstream, request_headers, |_, _| {}),
            written("response_headers", Nothing, response_headers, |_, _| {}),
            written("accept", Nothing, accept, |list, errors| same_twice(list, errors)),
            written("shadow", Nothing, shadow, |list, errors| same_twice(list, errors)),
        ];
        all.into_iter().flatten().collect()
    }
}

fn written<'a, S>(
    key: &'static str,
    needs: Needs,
    settings: &'a Option<At<S>>,
    check: impl FnOnce(&At<S>, &mut Vec<Diagnostic>),
) -> Option<Written<'a>> {
    let settings = settings.as_ref()?;
    let mut mistakes = Vec::new();
    check(settings, &mut mistakes);
    Some(Written { key, place: &settings.place, needs, mistakes })
}

// === impl Policies ===

impl Policies {
    /// Compiles what a route has been given. `None` where a mistake was told that leaves nothing to go on with.
    pub fn compile(route: ForRoute<'_>, wrong: &mut Wrong) -> Option<Policies> {
        let ForRoute { name, methods, auth, limits, upstreams, given } = route;
        let ip_filter = wrong.compile(given.given(|all| &all.ip_filter), IpFilter::compile);
        let https = given.given(|all| &all.https).map(|https| Https::compile(https.settings, given.shadows(Shadow::Https)));
        let cors = wrong.compile(given.given(|all| &all.cors), |cors| Cors::compile(cors, methods));
        let body = wrong.compile(given.given(|all| &all.body), |body| BodyLimit::compile(body));
        let auth = auth?;
        let websocket = given.given(|all| &all.websocket).and_then(|given| {
            // What bundles and defaults say need not concern every route.
            wrong.keep(WebSocket::compile(given.settings, auth.can_expire() || given.by != Giver::Route))
        });
        let allow = wrong.compile(given.given(|all| &all.allow), |allow| Allow::compile(allow, &auth));
        Some(Policies {
            ip_filter,
            https,
            cors,
            websocket,
            limits_before_auth: RateLimits::for_route(name, upstreams, limits, Some(Stage::BeforeAuth)),
            auth,
            allow,
            limits: RateLimits::for_route(name, upstreams, limits, None),
            body,
            fault: given.given(|all| &all.fault).and_then(|fault| Fault::compile(fault.settings)),
            shadow: ask::shadows(given, wrong),
        })
    }

    /// Asks every policy in order, until one stops the request. `choose` says which upstream it goes to, once its caller is known.
    pub async fn judge(
        &self,
        request: &Request<'_>,
        facts: &mut Facts,
        counting: Counting<'_>,
        choose: impl FnOnce(&mut Facts),
    ) -> Result<(), Stop> {
        // Cheap, and independent of everything else.
        self.run(Shadow::IpFilter, &self.ip_filter, request, facts).await?;
        // Before whatever looks at the request: what is plain may have been changed on the way.
        self.run(Shadow::Https, &self.https, request, facts).await?;
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
        // Before the limits, which may count at each upstream of its own.
        choose(facts);
        // After authorisation: a 401 or 403 costs only what was counted before.
        self.count("limits", &self.limits, request, facts, counting)?;
        self.run(Shadow::Body, &self.body, request, facts).await?;
        // Last: what is refused anyway is refused as ever, and costs what it costs.
        self.inject(request, facts).await
    }

    /// When a tunnel of this caller's ends whatever happens, in milliseconds since 1970; none where it does not.
    pub fn tunnel_end(&self, facts: &Facts) -> Option<u64> {
        let identity = facts.identity.as_deref().filter(|_| self.websocket.as_ref().is_some_and(|websocket| websocket.close_at_expiry))?;
        self.auth.end(identity)
    }

    /// What ends a tunnel of this caller's when the caller is revoked; none where nobody was asked who they are.
    pub fn tunnel_watch(&self, facts: &Facts) -> Option<Watched> {
        let identity = facts.identity.as_ref().filter(|_| !self.shadows(Shadow::Auth))?;
        Some(self.auth.watch(identity.clone()))
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

// === impl Shadow ===

impl Shadow {
    /// As it is written.
    pub fn as_str(self) -> &'static str {
        match self {
            Shadow::IpFilter => "ip_filter",
            Shadow::Https => "https",
            Shadow::Cors => "cors",
            Shadow::Websocket => "websocket",
            Shadow::Auth => "auth",
            Shadow::Allow => "allow",
            Shadow::Limits => "limits",
            Shadow::Body => "body",
        }
    }
}
