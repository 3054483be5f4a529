//! Decides whether a caller has called too often: limits and plans over the buckets of `buckets.rs`. Does not know routes.

use std::sync::Arc;

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Deserializer, de};

use crate::config::types::{At, Rate};

/// A limit that routes, listeners and defaults use by its name. One bucket a key over all of them, unless `per: route`.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct LimitSettings {
    /// So many requests in so much time, such as `100/m` or `5/5m`.
    pub rate: At<Rate>,
    /// The size of the bucket: how many requests may come at once. Default: the count of the rate.
    pub burst: Option<At<u32>>,
    /// What is counted by; the first of the list that the request has.
    pub by: At<Vec<At<By>>>,
    /// `route`: every route that names the limit has buckets of its own.
    pub per: Option<Per>,
    /// `before_auth`: judged before authentication; only by client address, header or global.
    pub stage: Option<Stage>,
}

/// What a consumer may do in total, over all routes.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct PlanSettings {
    /// So many requests in so much time.
    pub rate: At<Rate>,
    /// The size of the bucket. Default: the count of the rate.
    pub burst: Option<At<u32>>,
}

/// What a limit counts by: `consumer`, `subject`, `api_key`, `client_ip` (v6 by /64), `header:NAME` or `global`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum By {
    Consumer,
    Subject,
    ApiKey,
    ClientIp,
    Header(http::HeaderName),
    Global,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Per {
    Route,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Stage {
    BeforeAuth,
}

/// What one limit said of one request.
#[derive(Clone, Debug)]
pub struct Charge {
    /// The name of the limit or plan.
    pub limit: Arc<str>,
    /// Such as `consumer` or `client_ip`.
    pub key_kind: &'static str,
    /// The size of the bucket.
    pub size: u32,
    /// Whole tokens left.
    pub remaining: u32,
    /// Whole seconds until the bucket is full again, rounded up.
    pub reset: u64,
    /// Whole seconds until the next request passes, rounded up; 0 where this one did.
    pub retry_after: u64,
}

// === impl By ===

impl By {
    /// The kind of key, as logs, problems and metrics call it.
    pub fn kind(&self) -> &'static str {
        match self {
            By::Consumer => "consumer",
            By::Subject => "subject",
            By::ApiKey => "api_key",
            By::ClientIp => "client_ip",
            By::Header(_) => "header",
            By::Global => "global",
        }
    }
}

impl<'de> Deserialize<'de> for By {
    fn deserialize<D: Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
        let text = String::deserialize(d)?;
        Ok(match text.as_str() {
            "consumer" => By::Consumer,
            "subject" => By::Subject,
            "api_key" => By::ApiKey,
            "client_ip" => By::ClientIp,
            "global" => By::Global,
            other => match other.strip_prefix("header:").map(|name| http::HeaderName::from_bytes(name.as_bytes())) {
                Some(Ok(name)) => By::Header(name),
                _ => {
                    return Err(de::Error::custom(format_args!(
                        "`{text}` is not a key of limits: expected `consumer`, `subject`, `api_key`, `client_ip`, `header:NAME` or `global`"
                    )));
                }
            },
        })
    }
}

impl JsonSchema for By {
    fn inline_schema() -> bool {
        true
    }
    fn schema_name() -> std::borrow::Cow<'static, str> {
        "By".into()
    }
    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({ "type": "string", "pattern": "^(consumer|subject|api_key|client_ip|global|header:.+)$" })
    }
}
