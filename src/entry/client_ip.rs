//! Decides the client's address. Does not judge it: see `policy/ip_filter.rs`.

use schemars::JsonSchema;
use serde::Deserialize;

use crate::config::types::At;
use crate::policy::ip_filter::Network;

/// Who may say who the client is, and how.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ClientsSettings {
    /// Networks of the proxies that are believed.
    pub trusted_proxies: At<Vec<At<Network>>>,
    /// `x-forwarded-for`, `forwarded`, or a header with one address such as `cf-connecting-ip`. Default `x-forwarded-for`.
    pub header: Option<At<String>>,
}
