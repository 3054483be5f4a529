//! Who calls: what an authenticator found out.
//!
//! Decides nothing. Authenticators make an [`Identity`] once per credential and share it between requests.

use std::sync::Arc;

use http::{HeaderName, HeaderValue};

/// A party that the operator knows by name, with keys, a plan and scopes.
#[derive(Debug)]
pub struct Consumer {
    pub name: String,
    /// The name of its plan and the index of that plan's limit in the snapshot's limits.
    pub plan: Option<(String, usize)>,
    /// What its keys may do.
    pub scopes: Vec<String>,
}

/// What a caller has shown.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Credential {
    Token,
    ApiKey,
    /// In the handshake of its connection.
    Certificate,
}

/// An accepted credential: a verified token, a known API key, a certificate.
#[derive(Debug)]
pub struct Identity {
    pub credential: Credential,
    /// Name of the authenticator that accepted it.
    pub authenticator: Arc<str>,
    /// The token's `sub`, or whom the certificate names; none for API keys.
    pub subject: Option<String>,
    /// Index into the snapshot's consumers' list is not kept: the consumer itself is shared.
    pub consumer: Option<Arc<Consumer>>,
    /// Public id of the API key (the first 16 hex digits of its SHA-256); none for others.
    pub key_id: Option<String>,
    pub scopes: Vec<String>,
    pub roles: Vec<String>,
    /// All claims of the token, or facts of the certificate; `Null` for API keys.
    pub claims: serde_json::Value,
    /// Identity headers for the upstream, made once.
    pub headers: Vec<(HeaderName, HeaderValue)>,
}
