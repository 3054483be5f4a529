//! Decides what a target is as it is written and as a member of its upstream: an address and its share.
//!
//! Does not decide which one a request gets (`balance.rs`) nor keeps what changes while it runs (`target.rs`).

use std::num::NonZeroU16;
use std::sync::Arc;

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Deserializer, de};

use super::address::Address;
use crate::config::diagnostic::Diagnostic;
use crate::config::types::At;

/// One place where an upstream runs.
#[derive(Clone, Debug)]
pub struct TargetSettings {
    /// `host:port`, `address:port` or `unix:/path`.
    pub address: At<String>,
    /// Its share of the requests relative to the others. Default 1.
    pub weight: Option<At<NonZeroU16>>,
    /// Whether it gets no new requests.
    pub drain: bool,
    /// Those with the lowest number go first. Default 0.
    pub priority: Option<At<u16>>,
    /// Where it is. Default: nobody knows.
    pub zone: Option<At<String>>,
}

/// One target of an upstream and its share.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Member {
    pub address: Address,
    pub weight: NonZeroU16,
    /// Whether the operator has taken it out.
    pub drain: bool,
    /// Those with the lowest number go first.
    pub priority: u16,
    /// Where it is.
    pub zone: Option<Arc<str>>,
}

// === impl Member ===

/// The targets that were written, without duplicates. All mistakes at once.
pub(in crate::relay) fn compile_targets(settings: &At<Vec<At<TargetSettings>>>, wrong: &mut Vec<Diagnostic>) -> Vec<Member> {
    if settings.value.is_empty() {
        wrong.push(Diagnostic::at(&settings.place, "no-targets", "no target: expected at least one, such as `10.0.0.7:8080`"));
    }
    let mut members: Vec<Member> = Vec::with_capacity(settings.value.len());
    let mut seen = std::collections::HashSet::with_capacity(settings.value.len());
    for target in &settings.value {
        let TargetSettings { address, weight, drain, priority, zone } = &target.value;
        // The text may have been interpolated, so what was found is not shown; the caret shows where.
        match Address::parse(&address.value) {
            Err(why) => wrong.push(
                Diagnostic::at(&address.place, "bad-target", format!("not a target: {why}"))
                    .help("expected `host:port`, `address:port`, `[v6 address]:port` or `unix:/path`, such as `orders.internal:8080`"),
            ),
            Ok(parsed) if !seen.insert(parsed.text.clone()) => {
                let message = "this target is listed twice: expected each once";
                wrong.push(Diagnostic::at(&address.place, "duplicate-target", message).help("give it a `weight` for a larger share"));
            }
            Ok(parsed) => members.push(Member {
                address: parsed,
                weight: weight.as_ref().map_or(NonZeroU16::MIN, |weight| weight.value),
                drain: *drain,
                priority: priority.as_ref().map_or(0, |priority| priority.value),
                zone: zone.as_ref().map(|zone| zone.value.as_str().into()),
            }),
        }
    }
    members
}

// === impl TargetSettings ===

impl<'de> Deserialize<'de> for TargetSettings {
    fn deserialize<D: Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
        /// The long form.
        #[derive(Deserialize)]
        #[serde(deny_unknown_fields)]
        struct Long {
            address: At<String>,
            weight: Option<At<NonZeroU16>>,
            #[serde(default)]
            drain: bool,
            priority: Option<At<u16>>,
            zone: Option<At<String>>,
        }
        struct Either;
        impl<'de> de::Visitor<'de> for Either {
            type Value = TargetSettings;
            fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str("a target, such as `10.0.0.7:8080` or `{ address: 10.0.0.7:8080, weight: 2 }`")
            }
            fn visit_newtype_struct<D: Deserializer<'de>>(self, d: D) -> Result<TargetSettings, D::Error> {
                Ok(TargetSettings { address: At::deserialize(d)?, weight: None, drain: false, priority: None, zone: None })
            }
            fn visit_map<A: de::MapAccess<'de>>(self, map: A) -> Result<TargetSettings, A::Error> {
                let Long { address, weight, drain, priority, zone } = Long::deserialize(de::value::MapAccessDeserializer::new(map))?;
                Ok(TargetSettings { address, weight, drain, priority, zone })
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
                    "address": { "type": "string", "description": "`host:port`, `address:port` or `unix:/path`." },
                    "weight": { "type": "integer", "minimum": 1, "maximum": 65535, "description": "Its share of the requests relative to the others. Default 1." },
                    "drain": { "type": "boolean", "description": "Whether it is taken out: it gets no new requests, and ends those that it has. Default false." },
                    "priority": { "type": "integer", "minimum": 0, "maximum": 65535, "description": "Targets with the lowest number get everything as long as five of seven work, and less the fewer do; the others get the rest. Default 0." },
                    "zone": { "type": "string", "description": "Where it is. Targets in `server.zone` are preferred to others of the same priority." }
                },
                "required": ["address"],
                "additionalProperties": false
            }
        ] })
    }
}
