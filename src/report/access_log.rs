//! Decides what an access-log line holds and how it reaches its file off the request's way.

use schemars::JsonSchema;
use serde::Deserialize;

use crate::config::types::At;

/// One JSON line a request.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct AccessLogSettings {
    /// `stdout` (default), or a file, reopened on SIGUSR1.
    pub to: Option<At<String>>,
    /// `json`, the only one.
    pub format: Option<LogFormat>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum LogFormat {
    Json,
}
