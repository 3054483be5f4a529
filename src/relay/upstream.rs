//! An upstream as it is configured: targets, balancing, health, timeouts, retries.

use std::num::NonZeroU16;

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Deserializer, de};

use crate::config::types::{At, Period};

/// A service behind the gateway.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct UpstreamSettings {
    /// Where it runs: `host:port`, or `{ address: host:port, weight: 2 }`. Names are resolved in the background, again and again.
    pub targets: At<Vec<At<TargetSettings>>>,
    /// How a target is chosen. Default `round_robin`.
    pub balance: Option<Balance>,
    /// How the gateway finds out which targets work. Without it, all are taken to work.
    pub health: Option<HealthSettings>,
    /// How long it may take.
    pub timeouts: Option<TimeoutsSettings>,
    /// Whether another attempt is made.
    pub retries: Option<RetriesSettings>,
}

/// One place where an upstream runs.
#[derive(Clone, Debug)]
pub struct TargetSettings {
    /// `host:port` or `address:port`.
    pub address: At<String>,
    /// Its share of the requests relative to the others. Default 1.
    pub weight: NonZeroU16,
}

/// How a target is chosen.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Balance {
    /// Smooth weighted round robin.
    RoundRobin,
    /// The less busy of two chosen at random, by weight.
    LeastRequests,
}

/// Active health checks.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct HealthSettings {
    /// A path to GET; 200 to 299 is healthy. Without it, a TCP connection is.
    pub path: Option<At<String>>,
    /// How often. Default 5s.
    pub every: Option<At<Period>>,
    /// How long one check may take. Default 1s.
    pub timeout: Option<At<Period>>,
    /// How many failures in a row take a target out. Default 2.
    pub unhealthy_after: Option<At<u16>>,
    /// How many successes in a row bring it back. Default 1.
    pub healthy_after: Option<At<u16>>,
}

/// How long an upstream may take. Never infinite.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct TimeoutsSettings {
    /// To accept a connection. Default 1s.
    pub connect: Option<At<Period>>,
    /// From the last byte of the request to the head of the response. Default 15s.
    pub response: Option<At<Period>>,
    /// Silence between bytes of a body or a tunnel. Default 60s.
    pub idle: Option<At<Period>>,
}

/// Whether another attempt is made: after a failed connect, and for idempotent methods after a reused connection died.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct RetriesSettings {
    /// How many attempts in all, the first included. 1 to 4; default 2.
    pub attempts: At<u8>,
}

// === impl TargetSettings ===

impl<'de> Deserialize<'de> for TargetSettings {
    fn deserialize<D: Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
        /// The long form.
        #[derive(Deserialize)]
        #[serde(deny_unknown_fields)]
        struct Long {
            address: At<String>,
            weight: Option<NonZeroU16>,
        }
        struct Either;
        impl<'de> de::Visitor<'de> for Either {
            type Value = TargetSettings;
            fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str("a target, such as `10.0.0.7:8080` or `{ address: 10.0.0.7:8080, weight: 2 }`")
            }
            fn visit_newtype_struct<D: Deserializer<'de>>(self, d: D) -> Result<TargetSettings, D::Error> {
                Ok(TargetSettings { address: At::deserialize(d)?, weight: NonZeroU16::MIN })
            }
            fn visit_map<A: de::MapAccess<'de>>(self, map: A) -> Result<TargetSettings, A::Error> {
                let Long { address, weight } = Long::deserialize(de::value::MapAccessDeserializer::new(map))?;
                Ok(TargetSettings { address, weight: weight.unwrap_or(NonZeroU16::MIN) })
            }
        }
        // The reader hands a scalar on as a newtype, so that its place is kept.
        d.deserialize_newtype_struct(SHORT_OR_LONG, Either)
    }
}

/// By this name the reader knows that a scalar stands for a struct's first field.
pub const SHORT_OR_LONG: &str = "$sluice::ShortOrLong";

impl JsonSchema for TargetSettings {
    fn inline_schema() -> bool {
        true
    }
    fn schema_name() -> std::borrow::Cow<'static, str> {
        "Target".into()
    }
    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({ "anyOf": [
            { "type": "string" },
            {
                "type": "object",
                "properties": {
                    "address": { "type": "string", "description": "`host:port` or `address:port`." },
                    "weight": { "type": "integer", "minimum": 1, "maximum": 65535, "description": "Its share of the requests relative to the others. Default 1." }
                },
                "required": ["address"],
                "additionalProperties": false
            }
        ] })
    }
}
