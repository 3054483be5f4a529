//! Decides the request head that goes to the upstream: path, host, headers added and removed.

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::Deserialize;

use crate::config::types::At;

/// How path and host change on the way to the upstream. At most one of `strip_prefix`, `prefix` and `path`.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct RewriteSettings {
    /// A prefix that is cut off; an empty path becomes `/`.
    pub strip_prefix: Option<At<String>>,
    /// A prefix that is replaced by another.
    pub prefix: Option<PrefixSettings>,
    /// A new path; `{name}` and `{rest}` stand for what the pattern matched.
    pub path: Option<At<String>>,
    /// `preserve` (default), `upstream` (the target's host), or a name.
    pub host: Option<At<String>>,
}

/// A prefix that is replaced by another.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct PrefixSettings {
    /// The prefix that is cut off, such as `/api`.
    pub from: At<String>,
    /// What is put in its place, such as `/v2`.
    pub to: At<String>,
}

/// Headers set, added and removed.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct RequestHeadersSettings {
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
