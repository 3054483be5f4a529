//! Decides what becomes of a request whose upstream cannot be reached: it goes to another upstream, or the route answers by itself.
//!
//! Only of requests of which no target has seen a byte: what may have happened is not done again elsewhere, nor denied. Carried out by
//! `exchange/fallback.rs`.

use std::collections::BTreeMap;

use bytes::Bytes;
use http::{HeaderName, HeaderValue, header};
use schemars::JsonSchema;
use serde::Deserialize;

use super::adaptive::UPSTREAM_SATURATED;
use super::admit::UPSTREAM_OVERLOADED;
use super::balance::NO_HEALTHY_TARGET;
use super::circuit::CIRCUIT_OPEN;
use super::retry::{CONNECT_FAILED, CONNECT_TIMEOUT};
use crate::config::check::headers::changeable;
use crate::config::check::values::one_of;
use crate::config::diagnostic::Diagnostic;
use crate::config::types::At;
use crate::policy::Answer;
use crate::relay::attempt::connect::TLS_FAILED;
use crate::reply::problem::Kind;

/// What a route does where its upstream cannot be reached: no target works, none accepts a connection, its circuit is open, or it has as many requests as
/// it may have. Only where no target has seen anything of the request.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct FallbackSettings {
    /// A name in `upstreams` that gets the request instead. Either this or `status`.
    pub upstream: Option<At<String>>,
    /// The status of an answer of the route's own. 200 to 599. Calls of gRPC do not get it: they are refused as without a fallback.
    pub status: Option<At<u16>>,
    /// Headers of that answer. Default: `content-type: text/plain; charset=utf-8`, where there is a body.
    #[serde(default)]
    pub headers: BTreeMap<String, At<String>>,
    /// Its body, as text.
    pub body: Option<At<String>>,
}

/// As it runs.
#[derive(Debug)]
pub enum Fallback {
    /// Another of the route's upstreams, as [`Facts::chosen`](crate::ctx::Facts::chosen) counts them.
    Upstream(usize),
    Answer(Own),
}

/// An answer that is always the same.
#[derive(Debug)]
pub struct Own {
    pub status: u16,
    headers: Vec<(HeaderName, HeaderValue)>,
    body: Bytes,
}

/// Of its body, so much is shown.
const SHOWN: usize = 256;

/// Whether what went wrong leaves no doubt that no target has begun with the request.
pub fn is_untouched(kind: &Kind) -> bool {
    [&NO_HEALTHY_TARGET, &CIRCUIT_OPEN, &UPSTREAM_OVERLOADED, &UPSTREAM_SATURATED, &CONNECT_FAILED, &CONNECT_TIMEOUT, &TLS_FAILED]
        .iter()
        .any(|known| known.code == kind.code)
}

/// What is wrong with it by itself, wherever it is written.
pub fn check(settings: &At<FallbackSettings>, wrong: &mut Vec<Diagnostic>) {
    let FallbackSettings { upstream, status, headers, body } = &settings.value;
    let keys = [("upstream", upstream.as_ref().map(|at| &at.place)), ("status", status.as_ref().map(|at| &at.place))];
    one_of("`fallback`", &settings.place, &keys, false, wrong);
    if let (Some(_), None) = (upstream, status) {
        let inert = headers.iter().map(|(name, value)| (name.as_str(), &value.place)).chain(body.iter().map(|body| ("body", &body.place)));
        for (key, place) in inert {
            let message = format!("`{key}` has no effect: the other upstream answers");
            wrong.push(Diagnostic::at(place, "inert", message).help("it belongs to `status`"));
        }
    }
    if let Some(status) = status.as_ref().filter(|status| !(200..=599).contains(&status.value)) {
        let message = format!("`{}` is not the status of an answer: expected 200 to 599", status.value);
        wrong.push(Diagnostic::at(&status.place, "bad-status", message));
    }
    if let (Some(status), Some(body)) = (status, body)
        && matches!(status.value, 204 | 205 | 304)
    {
        let message = format!("`body` has no effect: an answer with status {} has none", status.value);
        wrong.push(Diagnostic::at(&body.place, "inert", message));
    }
    for (name, value) in headers {
        if changeable(name, &value.place, wrong).is_some() && HeaderValue::from_str(value).is_err() {
            let message = format!("the value of `{name}` cannot be sent");
            wrong.push(Diagnostic::at(&value.place, "bad-header-value", message).help("expected text without control characters"));
        }
    }
}

// === impl Fallback ===

impl Fallback {
    /// `at`: which of the route's upstreams the other one is. What is wrong has been told by [`check`].
    pub fn compile(settings: &FallbackSettings, at: impl FnOnce(&At<String>) -> Option<usize>) -> Option<Fallback> {
        let FallbackSettings { upstream, status, headers, body } = settings;
        if let Some(upstream) = upstream {
            return at(upstream).map(Fallback::Upstream);
        }
        let mut fields = Vec::with_capacity(headers.len() + 1);
        for (name, value) in headers {
            fields.push((HeaderName::from_bytes(name.as_bytes()).ok()?, HeaderValue::from_str(value).ok()?));
        }
        let body = body.as_ref().map(|body| Bytes::from(body.value.clone())).unwrap_or_default();
        if !body.is_empty() && !fields.iter().any(|(name, _)| *name == header::CONTENT_TYPE) {
            fields.push((header::CONTENT_TYPE, HeaderValue::from_static("text/plain; charset=utf-8")));
        }
        Some(Fallback::Answer(Own { status: status.as_ref()?.value, headers: fields, body }))
    }
}

impl Own {
    /// For `explain`.
    pub fn told(&self) -> serde_json::Value {
        let headers: Vec<_> =
            self.headers.iter().map(|(name, value)| [name.to_string(), String::from_utf8_lossy(value.as_bytes()).into()]).collect();
        let body: String = String::from_utf8_lossy(&self.body).chars().take(SHOWN).collect();
        serde_json::json!({ "status": self.status, "headers": headers, "body": body })
    }

    pub fn answer(&self) -> Answer {
        Answer { status: self.status, headers: self.headers.clone(), body: self.body.clone() }
    }
}
