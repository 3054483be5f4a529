//! Decides whether a JSON Web Token is genuine and in force (RFC 7519, RFC 8725). Does not decide what its bearer may do: see `authz.rs`.

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::Deserialize;

use crate::config::types::{At, Period, Secret};

/// Tokens in `Authorization: Bearer`, verified with keys that the gateway holds.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct JwtSettings {
    /// The value that `iss` must have.
    pub issuer: At<String>,
    /// Values of which `aud` must contain one.
    pub audiences: At<Vec<String>>,
    /// Signature algorithms that are accepted; never taken from the token.
    pub algorithms: At<Vec<At<JwtAlgorithm>>>,
    /// Where the verification keys are.
    pub keys: At<JwtKeysSettings>,
    /// How far the clocks of issuer and gateway may be apart. Default 0s.
    pub leeway: Option<Period>,
    /// Tokens that live longer than this (`exp` minus `iat`) are refused; `iat` is then required.
    pub max_lifetime: Option<Period>,
    /// The claim with the scopes: a name, or a JSON Pointer such as `/realm/scopes`. Default `scope`, else `scp`.
    pub scope_claim: Option<At<String>>,
    /// The claim with the roles, likewise. Default `roles`.
    pub role_claim: Option<At<String>>,
    /// Headers set for the upstream, each from a claim. They are removed from what clients send, on every route.
    #[serde(default)]
    pub forward: BTreeMap<String, At<String>>,
    /// Whether the token itself goes to the upstream too. Default false.
    #[serde(default)]
    pub pass: bool,
}

/// Exactly one of the three.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct JwtKeysSettings {
    /// A file with a JSON Web Key Set or a PEM public key.
    pub file: Option<At<String>>,
    /// A JSON Web Key Set written here.
    pub inline: Option<At<String>>,
    /// The shared secret of HS256, HS384 or HS512; at least 32 bytes.
    pub secret: Option<At<Secret>>,
}

/// A signature algorithm (RFC 7518 section 3.1, RFC 8037).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Deserialize, JsonSchema)]
pub enum JwtAlgorithm {
    HS256,
    HS384,
    HS512,
    RS256,
    RS384,
    RS512,
    PS256,
    PS384,
    PS512,
    ES256,
    ES384,
    EdDSA,
}
