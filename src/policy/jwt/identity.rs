//! Decides who bears a token: subject, scopes, roles, consumer, identity headers, all from its claims.
//!
//! Does not judge whether the token is genuine or in force.

use std::sync::Arc;

use serde_json::Value;

use super::kinds::CLAIMS;
use crate::config::diagnostic::Diagnostic;
use crate::config::types::At;
use crate::policy::Stop;
use crate::policy::claims::{ClaimPath, has_text, words};
use crate::policy::forward::{Forward, bad_claim};
use crate::policy::principal::{Consumer, Credential, Identity};

/// Tokens, or certificates, that are a consumer's: those in which `claim` is `value`.
#[derive(Clone, Debug)]
pub struct TokenOf {
    pub claim: ClaimPath,
    pub value: String,
    pub consumer: Arc<Consumer>,
}

/// How claims are read.
#[derive(Debug)]
pub(super) struct Reading {
    authenticator: Arc<str>,
    /// The first that a token has.
    scopes: Vec<ClaimPath>,
    roles: ClaimPath,
    forward: Forward,
    /// The first that fits.
    tokens_of: Vec<TokenOf>,
}

// === impl Reading ===

impl Reading {
    pub(super) fn compile(
        authenticator: &str,
        scope_claim: Option<&At<String>>,
        role_claim: Option<&At<String>>,
        forward: Forward,
        tokens_of: Vec<TokenOf>,
    ) -> Result<Self, Vec<Diagnostic>> {
        let mut wrong = Vec::new();
        let mut path = |written: Option<&At<String>>, default: &str| {
            let parsed = ClaimPath::parse(written.map_or(default, |claim| &claim.value));
            if let (None, Some(claim)) = (&parsed, written) {
                wrong.push(bad_claim(claim));
            }
            parsed
        };
        let scope = path(scope_claim, "scope");
        let role = path(role_claim, "roles");
        let scp = if scope_claim.is_none() { ClaimPath::parse("scp") } else { None };
        match (scope, role) {
            (Some(scope), Some(roles)) => {
                let scopes = std::iter::once(scope).chain(scp).collect();
                Ok(Reading { authenticator: authenticator.into(), scopes, roles, forward, tokens_of })
            }
            (Some(_) | None, _) => Err(wrong),
        }
    }

    pub(super) fn forward(&self) -> &Forward {
        &self.forward
    }

    pub(super) fn identity(&self, claims: Value) -> Result<Identity, Stop> {
        let subject = match claims.get("sub") {
            None => None,
            // Everybody without a name would share one name's limits.
            Some(Value::String(subject)) if subject.is_empty() => return Err(CLAIMS.because("`sub` is empty")),
            Some(Value::String(subject)) => Some(subject.clone()),
            Some(_) => return Err(CLAIMS.because("`sub` is not text")),
        };
        let list = |path: &ClaimPath, value: &Value| {
            words(value).map_err(|_| CLAIMS.because(format!("claim `{}` is neither text nor a list of texts", path.as_str())))
        };
        let scopes = self.scopes.iter().find_map(|path| path.find(&claims).map(|value| list(path, value))).unwrap_or(Ok(Vec::new()))?;
        let roles = self.roles.find(&claims).map_or(Ok(Vec::new()), |value| list(&self.roles, value))?;
        let headers = self.forward.headers(&claims).map_err(|why| CLAIMS.because(why))?;
        let is_of = |of: &&TokenOf| of.claim.find(&claims).is_some_and(|value| has_text(value, &of.value));
        let consumer = self.tokens_of.iter().find(is_of).map(|of| of.consumer.clone());
        let (credential, authenticator) = (Credential::Token, self.authenticator.clone());
        Ok(Identity { credential, authenticator, subject, consumer, key_id: None, scopes, roles, claims, headers })
    }

    /// Text that differs where identities would: consumers hold an index of their plan's limit, which a reload may move.
    pub(super) fn print(&self) -> String {
        let Reading { authenticator, scopes, roles, forward, tokens_of } = self;
        format!("{authenticator:?} {scopes:?} {roles:?} {forward:?} {tokens_of:?}")
    }
}
