//! Decides who calls: the first of a route's authenticators whose credential is present decides. Does not verify: see `jwt.rs` and `api_key.rs`.

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Deserializer, de};

use super::api_key::ApiKeySettings;
use super::jwt::JwtSettings;
use crate::config::types::{At, TEXT_OR_LIST};

/// A way to find out who calls. Exactly one kind.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct AuthenticatorSettings {
    /// JSON Web Tokens.
    pub jwt: Option<JwtSettings>,
    /// API keys of consumers.
    pub api_key: Option<ApiKeySettings>,
}

/// Somebody who calls: a partner, an application, a team.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ConsumerSettings {
    /// Its API keys.
    #[serde(default)]
    pub keys: Vec<ConsumerKeySettings>,
    /// Tokens that are this consumer too.
    #[serde(default)]
    pub identities: Vec<ConsumerIdentitySettings>,
    /// What it may do in total; a name in `plans`.
    pub plan: Option<At<String>>,
    /// What its keys may do; tokens bring their own scopes.
    #[serde(default)]
    pub scopes: Vec<String>,
}

/// One API key.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ConsumerKeySettings {
    /// The SHA-256 of the key in hex, as `sluice key hash` prints it.
    pub sha256: At<String>,
}

/// A claim by which a token is recognised as a consumer's.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ConsumerIdentitySettings {
    /// A name in `authenticators`, of kind `jwt`.
    pub authenticator: At<String>,
    /// The claim: a name or a JSON Pointer.
    pub claim: At<String>,
    /// The value that the claim must have.
    pub is: At<String>,
}

/// Who may call a route: `public`, or a list of authenticators.
#[derive(Clone, Debug)]
pub enum AuthSettings {
    Public,
    AnyOf(Vec<At<String>>),
}

// === impl AuthSettings ===

impl<'de> Deserialize<'de> for AuthSettings {
    fn deserialize<D: Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
        struct Either;
        impl<'de> de::Visitor<'de> for Either {
            type Value = AuthSettings;
            fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str("`public` or a list of authenticators, such as `[idp]`")
            }
            fn visit_str<E: de::Error>(self, text: &str) -> Result<AuthSettings, E> {
                if text == "public" { Ok(AuthSettings::Public) } else { Err(E::invalid_value(de::Unexpected::Str(text), &self)) }
            }
            fn visit_seq<A: de::SeqAccess<'de>>(self, mut list: A) -> Result<AuthSettings, A::Error> {
                let mut names = Vec::new();
                while let Some(name) = list.next_element()? {
                    names.push(name);
                }
                if names.is_empty() { Err(de::Error::invalid_length(0, &self)) } else { Ok(AuthSettings::AnyOf(names)) }
            }
        }
        d.deserialize_newtype_struct(TEXT_OR_LIST, Either)
    }
}

impl JsonSchema for AuthSettings {
    fn inline_schema() -> bool {
        true
    }
    fn schema_name() -> std::borrow::Cow<'static, str> {
        "Auth".into()
    }
    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({ "anyOf": [{ "const": "public" }, { "type": "array", "items": { "type": "string" }, "minItems": 1 }] })
    }
}
