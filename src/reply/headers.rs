//! Decides the headers of an upstream's answer on its way to the client.

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::Deserialize;

use crate::config::types::At;

/// Headers of the response set, added and removed, and the security headers.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ResponseHeadersSettings {
    /// `strict`: HSTS on TLS, nosniff, no framing, no referrer, `default-src 'none'`, each unless the upstream set it.
    pub security: Option<Security>,
    /// Headers that get exactly this value.
    #[serde(default)]
    pub set: BTreeMap<String, At<String>>,
    /// Headers that are added beside those that are there.
    #[serde(default)]
    pub add: BTreeMap<String, At<String>>,
    /// Headers that are removed.
    #[serde(default)]
    pub remove: Vec<At<String>>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Security {
    Strict,
}
