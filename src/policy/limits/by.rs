//! What a limit counts by, and where it has buckets of its own: as it is written.
//!
//! Whose bucket a request is counted in is decided in `key.rs`, at which upstream in `used.rs`.

use std::borrow::Cow;

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Deserializer, de};

use crate::policy::principal::is_tag_name;

/// What a limit counts by: `consumer`, `subject`, `api_key`, `tag:NAME`, `client_ip` (v6 by /64), `header:NAME` or `global`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum By {
    Consumer,
    Subject,
    ApiKey,
    Tag(Box<str>),
    ClientIp,
    Header(http::HeaderName),
    Global,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Per {
    Route,
    Upstream,
}

// === impl Per ===

impl Per {
    /// As it is written.
    pub fn as_str(self) -> &'static str {
        match self {
            Per::Route => "route",
            Per::Upstream => "upstream",
        }
    }
}

// === impl By ===

impl By {
    /// The kind of key, as logs, problems and metrics call it.
    pub fn kind(&self) -> &'static str {
        match self {
            By::Consumer => "consumer",
            By::Subject => "subject",
            By::ApiKey => "api_key",
            By::Tag(_) => "tag",
            By::ClientIp => "client_ip",
            By::Header(_) => "header",
            By::Global => "global",
        }
    }

    /// As it is written in a configuration.
    pub fn written(&self) -> Cow<'static, str> {
        match self {
            By::Header(name) => Cow::Owned(format!("header:{name}")),
            By::Tag(name) => Cow::Owned(format!("tag:{name}")),
            By::Consumer | By::Subject | By::ApiKey | By::ClientIp | By::Global => Cow::Borrowed(self.kind()),
        }
    }

    /// Whether it is known only once somebody was authenticated.
    pub fn needs_identity(&self) -> bool {
        match self {
            By::Consumer | By::Subject | By::ApiKey | By::Tag(_) => true,
            By::ClientIp | By::Header(_) | By::Global => false,
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
            other if other.strip_prefix("tag:").is_some_and(is_tag_name) => By::Tag(other["tag:".len()..].into()),
            other => match other.strip_prefix("header:").map(|name| http::HeaderName::from_bytes(name.as_bytes())) {
                Some(Ok(name)) => By::Header(name),
                _ => {
                    return Err(de::Error::custom(format_args!(
                        "`{text}` is not a key of limits: expected `consumer`, `subject`, `api_key`, `tag:NAME`, `client_ip`, `header:NAME` or `global`"
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
        json_schema!({ "type": "string", "pattern": "^(consumer|subject|api_key|client_ip|global|tag:.+|header:.+)$" })
    }
}
