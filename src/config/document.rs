//! What a user writes: the sections of the file, collected from the chapters that own them.
//!
//! Decides the names of the sections and of a route's keys. Does not decide what they mean.

use std::collections::BTreeMap;
use std::sync::Arc;

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Deserializer};

use super::check::standards::StandardsSettings;
use super::diagnostic::Source;
use super::types::{At, Named, Period, Size};
use crate::entry::canonical::Spelling;
use crate::entry::client_ip::ClientsSettings;
use crate::entry::route::MatchSettings;
use crate::listen::ListenerSettings;
use crate::policy::Shadow;
use crate::policy::authn::{AuthSettings, AuthenticatorSettings, ConsumerSettings};
use crate::policy::authz::AllowSettings;
use crate::policy::consumers::ConsumersFromSettings;
use crate::policy::cors::CorsSettings;
use crate::policy::fault::FaultSettings;
use crate::policy::https::HttpsSettings;
use crate::policy::ip_filter::IpFilterSettings;
use crate::policy::overload::OverloadSettings;
use crate::policy::priority::Priority;
use crate::policy::rate_limit::{LimitSettings, PlanSettings};
use crate::policy::revocation::RevocationSettings;
use crate::policy::validate::BodySettings;
use crate::policy::websocket::WebSocketSettings;
use crate::relay::attempt::timeouts::RouteTimeoutsSettings;
use crate::relay::choice::GoesTo;
use crate::relay::fallback::FallbackSettings;
use crate::relay::message::rewrite::{RequestHeadersSettings, RewriteSettings};
use crate::relay::mirror::MirrorSettings;
use crate::relay::targets::resolver::ResolverSettings;
use crate::relay::translate::grpc_web::GrpcSettings;
use crate::relay::upstream::UpstreamSettings;
use crate::reply::headers::ResponseHeadersSettings;
use crate::report::access_log::AccessLogSettings;
use crate::store::StoreSettings;

/// Everything that the files say, with places, before anything is checked across sections.
#[derive(Clone, Debug, Default)]
pub struct Document {
    pub server: Option<ServerSettings>,
    pub access_log: Option<AccessLogSettings>,
    pub listeners: Named<ListenerSettings>,
    pub admin: Option<AdminSettings>,
    pub clients: Option<ClientsSettings>,
    pub authenticators: Named<AuthenticatorSettings>,
    pub consumers: Named<ConsumerSettings>,
    pub consumers_from: Option<At<ConsumersFromSettings>>,
    pub revocation: Option<At<RevocationSettings>>,
    pub standards: Option<At<StandardsSettings>>,
    pub plans: Named<PlanSettings>,
    pub limits: Named<LimitSettings>,
    pub resolver: Option<ResolverSettings>,
    pub upstreams: Named<UpstreamSettings>,
    pub bundles: Named<PolicySettings>,
    pub defaults: Option<DefaultsSettings>,
    pub routes: Named<RouteSettings>,
    pub tests: Named<TestSettings>,
    /// The files, in the order in which they were read.
    pub sources: Vec<Arc<Source>>,
}

/// The process as a whole.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ServerSettings {
    /// Worker threads. Default: the cores this process may use.
    pub threads: Option<At<u16>>,
    /// How many connections to upstreams each worker keeps for later requests, those of all upstreams together; one more closes that which has rested
    /// longest. Cannot change in place. 1 to 100000; default 1024.
    pub pool: Option<At<u32>>,
    /// How long started requests may take after a stop. Default 30s.
    pub drain: Option<At<Period>>,
    /// Time between `/readyz` going false and the listeners closing. Default 1s.
    pub settle: Option<At<Period>>,
    /// A directory for what the next process takes over, though this one is gone: the key sets of providers, the counts of quotas, and consumers and revocations of the store, which are believed for a day. It is made where there is none;
    /// only this user may write to it. Default: nothing is kept.
    pub state: Option<At<String>>,
    /// Reload when the files change, those that the configuration names (`${file:}`, keys) included. SIGHUP always does.
    #[serde(default)]
    pub watch: bool,
    /// Over which limits with `shared: true` are counted together with other gateways.
    pub limits_store: Option<At<StoreSettings>>,
    /// Where this gateway is: targets in the same `zone` are preferred.
    pub zone: Option<At<String>>,
    /// Bounds of the process, beyond which requests are refused with 503. Default: none.
    pub overload: Option<At<OverloadSettings>>,
    /// Memory for the buckets of all limits together. Default 64MiB, which is about two million callers.
    pub limits_memory: Option<At<Size>>,
    /// Memory for remembered tokens. Default 16MiB.
    pub tokens_memory: Option<At<Size>>,
}

/// The private listener with `/livez`, `/readyz`, `/metrics` and `/status`.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct AdminSettings {
    /// Address and port; keep it private.
    pub address: At<std::net::SocketAddr>,
}

/// What a route may do with a request besides who may call it and where it goes. Written in a route, a bundle or the defaults;
/// what is nearer to the route replaces the whole key, never merges.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct PolicySettings {
    /// Which client addresses may call.
    pub ip_filter: Option<At<IpFilterSettings>>,
    /// Requests that come without TLS, on a listener that has none or, as a trusted proxy says, to that.
    pub https: Option<At<HttpsSettings>>,
    /// Cross-origin requests.
    pub cors: Option<At<CorsSettings>>,
    /// WebSockets.
    pub websocket: Option<At<WebSocketSettings>>,
    /// Scopes, roles and claims that a caller must have.
    pub allow: Option<At<AllowSettings>>,
    /// Names in `limits`.
    pub limits: Option<At<Vec<At<String>>>>,
    /// The request body.
    pub body: Option<At<BodySettings>>,
    /// Delays and refusals on purpose, to see what callers make of them.
    pub fault: Option<At<FaultSettings>>,
    /// What answers where the upstream cannot be reached.
    pub fallback: Option<At<FallbackSettings>>,
    /// A second upstream that gets a copy of requests, and whose answers nobody gets.
    pub mirror: Option<At<MirrorSettings>>,
    /// How long the upstream may take, where that differs from what the upstream itself says.
    pub timeouts: Option<At<RouteTimeoutsSettings>>,
    /// gRPC.
    pub grpc: Option<At<GrpcSettings>>,
    /// Path and host on the way to the upstream.
    pub rewrite: Option<At<RewriteSettings>>,
    /// Headers of the request on the way to the upstream.
    pub request_headers: Option<At<RequestHeadersSettings>>,
    /// Headers of the response on the way to the client.
    pub response_headers: Option<At<ResponseHeadersSettings>>,
    /// Spellings with two readings that are let through.
    pub accept: Option<At<Vec<At<Spelling>>>>,
    /// Policies that are judged, counted and logged as `would_refuse`, but not enforced.
    pub shadow: Option<At<Vec<At<Shadow>>>>,
}

/// What every route does unless it says otherwise: any policy, and bundles to use. Never `auth` nor `listeners`.
#[derive(Clone, Debug)]
pub struct DefaultsSettings {
    pub place: super::diagnostic::Place,
    /// Names in `bundles`.
    pub bundles: Vec<At<String>>,
    pub upstream: Option<At<GoesTo>>,
    pub policies: PolicySettings,
}

/// The keys that the defaults have besides policies.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct DefaultsOwnSettings {
    /// Names in `bundles` whose policies apply to every route without a `use` of its own.
    #[serde(rename = "use", default)]
    pub bundles: Vec<At<String>>,
    /// A name in `upstreams`, or a choice among several, for every route that says neither `upstream`, `respond` nor `redirect`.
    pub upstream: Option<At<GoesTo>>,
}

/// A route: which requests, who may call, what happens to them.
#[derive(Clone, Debug)]
pub struct RouteSettings {
    /// Where the route's name stands.
    pub place: super::diagnostic::Place,
    pub own: RouteOwnSettings,
    pub policies: PolicySettings,
}

/// The keys that only a route has.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct RouteOwnSettings {
    /// Names in `listeners`; needed where there is more than one.
    pub listeners: Option<At<Vec<At<String>>>>,
    /// Which requests the route takes.
    #[serde(rename = "match")]
    pub matches: At<MatchSettings>,
    /// Who may call: a list of names in `authenticators`, or `public`.
    pub auth: At<AuthSettings>,
    /// Names in `bundles` whose policies apply; replaces the list of the defaults.
    #[serde(rename = "use")]
    pub bundles: Option<At<Vec<At<String>>>>,
    /// A name in `upstreams`, or how it is chosen among several, after the policies: see docs/releasing.md. Exactly one of `upstream`, `respond` and `redirect`.
    pub upstream: Option<At<GoesTo>>,
    /// Whether its requests may be sent twice, whatever their method: what `retries` of the upstream go by. Default: as the method says, and
    /// where a request has an `Idempotency-Key`.
    pub idempotent: Option<At<bool>>,
    /// Who goes first where not all can be served: `high`, `normal`, `low` or `lowest`. Default: as the caller's plan says, else `normal`, and `lowest` for
    /// callers that nobody knows.
    pub priority: Option<At<Priority>>,
    /// A fixed answer.
    pub respond: Option<At<RespondSettings>>,
    /// A redirect.
    pub redirect: Option<At<RedirectSettings>>,
}

/// A fixed answer.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct RespondSettings {
    /// 200 to 599.
    pub status: At<u16>,
    /// For 4xx and 5xx: the `code` of the problem document. Default `fixed-answer`.
    pub code: Option<At<String>>,
    /// For 2xx: the body, as text.
    pub body: Option<At<String>>,
}

/// A redirect.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct RedirectSettings {
    /// The `Location`; `{name}` and `{rest}` stand for what the pattern matched.
    pub to: At<String>,
    /// 301, 302, 303, 307 or 308. Default 308.
    pub status: Option<At<u16>>,
}

/// A request and what must become of it; `sluice test` and every reload run it without a socket.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct TestSettings {
    /// The request.
    pub request: TestRequestSettings,
    /// What must become of it; at least one.
    pub expect: At<ExpectSettings>,
}

/// The request of a test.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct TestRequestSettings {
    /// Default GET.
    pub method: Option<At<String>>,
    /// Such as `https://api.example.com/orders/1?debug`.
    pub url: At<String>,
    /// Its headers.
    #[serde(default)]
    pub headers: BTreeMap<String, At<String>>,
    /// The listener it arrives on. Default: the first.
    pub listener: Option<At<String>>,
    /// The address it comes from. Default 192.0.2.1.
    pub from: Option<At<std::net::IpAddr>>,
    /// Stands for a verified token with these claims.
    pub claims: Option<At<BTreeMap<String, ClaimValue>>>,
    /// Stands for a certificate of the client's that was verified, by the names that `client_certificate` has for its facts, such as `uri`.
    pub certificate: Option<At<BTreeMap<String, ClaimValue>>>,
    /// Stands for a key of this consumer.
    pub consumer: Option<At<String>>,
    /// How many times the request is sent, one after the other; the last answer is judged. Default 1.
    pub times: Option<At<u32>>,
}

/// What must become of the request of a test.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ExpectSettings {
    /// The name of the route, or `none`.
    pub route: Option<At<String>>,
    /// Whether the request goes on to an upstream or to a fixed answer.
    pub allowed: Option<At<bool>>,
    /// The status of the gateway's own answer.
    pub status: Option<At<u16>>,
    /// The code of the gateway's own refusal.
    pub code: Option<At<String>>,
    /// The authenticator that says who calls, or `none`.
    pub authenticator: Option<At<String>>,
    /// The consumer that calls, or `none`.
    pub consumer: Option<At<String>>,
    /// The subject that calls, such as the `sub` of a token, or `none`.
    pub subject: Option<At<String>>,
    /// The plan of the caller, or `none`.
    pub plan: Option<At<String>>,
    /// Tags of the caller: a value, `present` or `absent`.
    #[serde(default)]
    pub tags: BTreeMap<String, At<String>>,
    /// The upstream that is chosen.
    pub upstream: Option<At<String>>,
    /// Path and query as they go to the upstream.
    pub upstream_path: Option<At<String>>,
    /// Headers as they go to the upstream: a value, `present` or `absent`.
    #[serde(default)]
    pub upstream_headers: BTreeMap<String, At<String>>,
    /// Headers of the gateway's own answer: a value, `present` or `absent`.
    #[serde(default)]
    pub headers: BTreeMap<String, At<String>>,
}

/// The value of a claim in a test: text, a number, a truth value, or a list or mapping of them.
#[derive(Clone, Debug, PartialEq)]
pub struct ClaimValue(pub serde_json::Value);

// === impl ClaimValue ===

impl<'de> Deserialize<'de> for ClaimValue {
    fn deserialize<D: Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
        serde_json::Value::deserialize(d).map(ClaimValue)
    }
}

impl JsonSchema for ClaimValue {
    fn inline_schema() -> bool {
        true
    }
    fn schema_name() -> std::borrow::Cow<'static, str> {
        "ClaimValue".into()
    }
    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!(true)
    }
}
