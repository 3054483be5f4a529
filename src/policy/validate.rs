//! Decides whether a request's body may be this large. Does not read it: the relay counts what passes.

use schemars::JsonSchema;
use serde::Deserialize;

use crate::config::types::{At, Size};

/// What a request's body may be.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct BodySettings {
    /// How large it may be; more gets 413.
    pub limit: At<Size>,
}
