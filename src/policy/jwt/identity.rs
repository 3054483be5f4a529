//! Decides who bears a token: subject, scopes, roles, consumer, identity headers, all from its claims.
//!
//! Does not judge whether the token is genuine or in force.

use std::collections::BTreeMap;
use std::sync::Arc;

use serde_json::Value;

use super::kinds::CLAIMS;
use crate::config::diagnostic::Diagnostic;
use crate::config::types::At;
use crate::policy::Stop;
use crate::policy::claimed::{Claimed, ClaimedPlanSettings, ClaimedTagSettings};
use crate::policy::claims::{ClaimPath, has_text, words};
use crate::policy::forward::{Forward, bad_claim};
use crate::policy::principal::{Consumer, Credential, Identity};
use crate::policy::tag_book::TagBook;
use crate::report::access_log::caller::spelt;

/// Tokens, or certificates, that are a consumer's: those in which `claim` is `value`.
#[derive(Clone, Debug)]
pub struct TokenOf {
    pub claim: ClaimPath,
    pub value: String,
    pub consumer: Arc<Consumer>,
}

/// What of other parts of a configuration tells who bears a token.
#[derive(Clone, Debug, Default)]
pub struct Who<'a> {
    /// Which tokens are which consumer's, in order.
    pub tokens_of: Vec<TokenOf>,
    /// The names of all plans, in order.
    pub plans: &'a [Arc<str>],
    pub book: Arc<TagBook>,
}

/// How claims are read.
#[derive(Debug)]
pub struct Reading {
    authenticator: Arc<str>,
    /// The first that a token has.
    scopes: Vec<ClaimPath>,
    roles: ClaimPath,
    forward: Forward,
    /// The first that fits.
    tokens_of: Vec<TokenOf>,
    claimed: Claimed,
    book: Arc<TagBook>,
}

// === impl Who ===

impl Who<'_> {
    pub fn claimed(
        &self,
        plan: Option<&At<ClaimedPlanSettings>>,
        tags: &BTreeMap<String, At<ClaimedTagSettings>>,
    ) -> Result<Claimed, Vec<Diagnostic>> {
        Claimed::compile(plan, tags, self.plans, &self.book)
    }
}

// === impl Reading ===

impl Reading {
    pub fn compile(
        authenticator: &str,
        scope_claim: Option<&At<String>>,
        role_claim: Option<&At<String>>,
        forward: Forward,
        claimed: Claimed,
        who: Who<'_>,
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
                let Who { tokens_of, plans: _, book } = who;
                Ok(Reading { authenticator: authenticator.into(), scopes, roles, forward, tokens_of, claimed, book })
            }
            (Some(_) | None, _) => Err(wrong),
        }
    }

    pub fn forward(&self) -> &Forward {
        &self.forward
    }

    pub fn identity(&self, claims: Value) -> Result<Identity, Stop> {
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
        let (claimed_plan, claimed_tags) = self.claimed.read(&claims, &self.book);
        let (credential, authenticator, scopes) = (Credential::Token, self.authenticator.clone(), scopes.into());
        let mut identity = Identity {
            credential,
            authenticator,
            subject,
            consumer,
            scopes,
            roles,
            claims,
            headers,
            claimed_plan,
            claimed_tags,
            ..Identity::default()
        };
        identity.spelt = Some(spelt(&identity));
        Ok(identity)
    }

    /// Text that differs where identities would: consumers hold an index of their plan's limit, which a reload may move.
    pub fn print(&self) -> String {
        let Reading { authenticator, scopes, roles, forward, tokens_of, claimed, book: _ } = self;
        format!("{authenticator:?} {scopes:?} {roles:?} {forward:?} {tokens_of:?} {claimed:?}")
    }
}
