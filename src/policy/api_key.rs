//! Decides whether an API key is known. Keys are held as SHA-256 and compared in constant time.

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::Deserialize;

use crate::config::types::At;

/// Keys of consumers, in a header or a query parameter.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ApiKeySettings {
    /// The request header that carries the key. Exactly one of `header` and `query`.
    pub header: Option<At<String>>,
    /// The query parameter that carries the key. It is cut out before logging, and before forwarding unless `pass`.
    pub query: Option<At<String>>,
    /// What a key looks like; anything else is refused before it is looked up.
    pub format: Option<KeyFormatSettings>,
    /// Headers set for the upstream from `consumer`. They are removed from what clients send, on every route.
    #[serde(default)]
    pub forward: BTreeMap<String, At<String>>,
    /// Whether the key itself goes to the upstream too. Default false.
    #[serde(default)]
    pub pass: bool,
}

/// What a key looks like.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct KeyFormatSettings {
    /// What it begins with.
    pub prefix: Option<String>,
    /// How many characters it has, the prefix included.
    pub length: Option<At<u16>>,
}
