//! Decides what browsers are told about cross-origin requests, and answers preflights. Does not choose the route of a preflight.

use schemars::JsonSchema;
use serde::Deserialize;

use crate::config::types::{At, Period};

/// Cross-origin resource sharing (the Fetch standard, section 3.2).
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct CorsSettings {
    /// Origins that may read answers, such as `https://shop.example`, or `"*"` for any (not with `credentials`).
    pub origins: Vec<At<String>>,
    /// Methods that a preflight allows. Default: the methods of the route, else GET, HEAD and POST.
    pub methods: Option<Vec<At<String>>>,
    /// Request headers that a preflight allows. Default: none beyond the safelisted ones.
    #[serde(default)]
    pub headers: Vec<At<String>>,
    /// Response headers that scripts may read.
    #[serde(default)]
    pub expose: Vec<At<String>>,
    /// Whether cookies and credentials may be sent.
    #[serde(default)]
    pub credentials: bool,
    /// How long a browser may remember a preflight.
    pub max_age: Option<Period>,
}
