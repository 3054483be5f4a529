//! Decides which route a request takes. Never sees the caller, only the request.

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::Deserialize;

use crate::config::types::At;

/// Which requests a route takes. All that are written must hold.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct MatchSettings {
    /// Hosts: `api.example.com`, or `*.example.com` for one or more labels below it. Default: any. A port in Host is ignored.
    pub hosts: Option<At<Vec<At<String>>>>,
    /// The path: literal segments, `{name}` for one segment, a final `/**` for the rest (named `{rest}`).
    pub path: At<String>,
    /// Methods; GET includes HEAD. Default: any.
    pub methods: Option<At<Vec<At<String>>>>,
    /// Headers: a value, `present` or `absent`.
    #[serde(default)]
    pub headers: BTreeMap<String, At<String>>,
    /// Query parameters: a value, `present` or `absent`.
    #[serde(default)]
    pub query: BTreeMap<String, At<String>>,
}
