//! Reads who is known by name: consumers with their keys and the claims by which tokens and certificates are recognised as theirs.
//!
//! Decides that no key and no claim is two consumers'. Which authenticators there are is decided in `authenticators.rs`.

use std::collections::HashMap;
use std::sync::Arc;

use super::api_key::{self, KeyHash};
use super::authenticators::{Authenticators, Sections};
use super::authn::{AuthenticatorSettings, ConsumerIdentitySettings, ConsumerKeySettings, ConsumerSettings};
use super::authz::{bad_scope, is_scope};
use super::claimed::{ClaimedPlanSettings, ClaimedTagSettings, check_tag};
use super::claims::ClaimPath;
use super::client_certificate;
use super::consumers::{self, ConsumersFromSettings, ListedConsumers, Owned};
use super::forward::bad_claim;
use super::jwt::TokenOf;
use super::principal::Consumer;
use crate::config::diagnostic::Diagnostic;
use crate::config::types::{At, Named};

/// Who is known, by key and by claim.
#[derive(Default)]
pub struct Known<'a> {
    pub consumers: Vec<Arc<Consumer>>,
    pub keys: Vec<(KeyHash, Owned)>,
    /// By the name of the authenticator.
    pub tokens_of: HashMap<&'a str, Vec<TokenOf>>,
}

// === impl AuthenticatorSettings ===

impl AuthenticatorSettings {
    /// Whether its callers have a subject, roles and claims.
    pub fn takes_tokens(&self) -> bool {
        self.jwt.is_some() || self.introspection.is_some()
    }

    /// The tags that it makes from claims.
    pub fn tags(&self) -> impl Iterator<Item = (&String, &At<ClaimedTagSettings>)> {
        let of_answers = self.introspection.iter().flat_map(|issuer| &issuer.tags);
        self.jwt.iter().flat_map(|jwt| &jwt.tags).chain(of_answers)
    }

    /// The plan that it takes from a claim.
    pub fn plan(&self) -> Option<&At<ClaimedPlanSettings>> {
        self.jwt.as_ref().and_then(|jwt| jwt.plan.as_ref()).or(self.introspection.as_ref().and_then(|issuer| issuer.plan.as_ref()))
    }
}

// === impl Known ===

impl<'a> Known<'a> {
    pub fn read(sections: &Sections<'a>, wrong: &mut Vec<Diagnostic>) -> Self {
        let Sections { authenticators, consumers, consumers_from, revocation: _, plans, book } = sections;
        let mut known = Known::default();
        let takes_keys = authenticators.iter().any(|(_, settings)| settings.api_key.is_some());
        if let Some(from) = consumers_from.filter(|_| !takes_keys) {
            wrong.push(Diagnostic::at(&from.place, "consumer-keys", "consumers of a file have keys, but no authenticator takes API keys"));
        }
        for (name, settings) in *consumers {
            let ConsumerSettings { keys, identities, plan: plan_name, scopes, tags } = settings;
            for (tag, value) in tags {
                check_tag(tag, &value.place, std::iter::once(value), wrong);
            }
            let mut tell = |code, message: String| wrong.push(Diagnostic::at(&name.place, code, message));
            let it = &name.value;
            if keys.is_empty() && identities.is_empty() && consumers_from.is_none() {
                tell("consumer-unreachable", format!("`{it}` has neither `keys` nor `identities`: nobody can be it"));
            } else if keys.is_empty() && consumers_from.is_none() && !has_certificates(identities, authenticators) && !scopes.is_empty() {
                tell("consumer-scopes", format!("`{it}` has `scopes` but neither `keys` nor certificates: tokens bring their own scopes"));
            }
            if !keys.is_empty() && !takes_keys {
                tell("consumer-keys", format!("`{it}` has `keys`, but no authenticator takes API keys"));
            }
            for scope in scopes.iter().filter(|scope| !is_scope(scope)) {
                tell("bad-scope", bad_scope(scope));
            }
            let plan = plan_name.as_ref().and_then(|plan_name| match plans.iter().position(|plan| **plan == *plan_name.value) {
                Some(index) => Some((plans[index].clone(), index)),
                None => {
                    wrong.push(Diagnostic::at(&plan_name.place, "unknown-name", format!("`{}` is not a plan", plan_name.value)));
                    None
                }
            });
            let tags = tags.iter().map(|(name, value)| book.tag(name, value)).collect();
            let consumer = Arc::new(Consumer { name: it.as_str().into(), plan, scopes: scopes.as_slice().into(), tags });
            known.add_keys(&consumer, keys, wrong);
            known.add_identities(&consumer, identities, authenticators, wrong);
            known.consumers.push(consumer);
        }
        known
    }

    /// The consumers of a file. What was read for an earlier snapshot is taken over, where it would be read alike.
    pub fn listed(
        &self,
        from: &At<ConsumersFromSettings>,
        sections: &Sections<'_>,
        earlier: Option<&Authenticators>,
        wrong: &mut Vec<Diagnostic>,
    ) -> Option<Arc<ListedConsumers>> {
        let ConsumersFromSettings { file, redis } = &from.value;
        let around = consumers::Around {
            plans: sections.plans.to_vec(),
            book: sections.book.clone(),
            consumers: self.consumers.clone(),
            keys: self.keys.iter().map(|(hash, _)| *hash).collect(),
        };
        let known = earlier.and_then(|earlier| earlier.listed());
        let file = match (file, redis) {
            (Some(file), None) => file,
            (None, Some(key)) => {
                let same = known.filter(|known| known.is_at_key(key) && known.around().is_like(&around));
                let new = || Arc::new(ListedConsumers::of_store(key, around, known.map(|known| &**known)));
                return Some(same.cloned().unwrap_or_else(new));
            }
            (Some(_), Some(_)) | (None, None) => {
                wrong.push(list_place(&from.place));
                return None;
            }
        };
        if let Some(known) = known
            && known.is_of(&file.place, file)
            && !known.has_changed()
            && known.shown().trouble.is_none()
            && known.around().is_like(&around)
        {
            return Some(known.clone());
        }
        ListedConsumers::open(&file.place, file, around).map(Arc::new).map_err(|why| wrong.push(bad_list(file, &why))).ok()
    }

    fn add_keys(&mut self, consumer: &Arc<Consumer>, keys: &[ConsumerKeySettings], wrong: &mut Vec<Diagnostic>) {
        for ConsumerKeySettings { sha256, expires } in keys {
            let mut tell = |code, message: &str, help: &str| wrong.push(Diagnostic::at(&sha256.place, code, message).help(help));
            match api_key::parse_hash(sha256) {
                None => tell("key-hash", "not a SHA-256: expected 64 hex digits", "`sluice key hash` prints it"),
                Some(hash) if hash == api_key::hash_key(b"") => {
                    tell("key-hash", "this is the SHA-256 of nothing: no key has it", "`sluice key hash` prints that of a key");
                }
                Some(hash) if self.keys.iter().any(|(other, _)| *other == hash) => {
                    tell(
                        "duplicate-key",
                        "this key is listed twice: it would belong to two consumers, or twice to one",
                        "remove one of them",
                    );
                }
                Some(hash) => {
                    let expires = expires.as_ref().map(|expires| expires.value.0);
                    self.keys.push((hash, Owned { consumer: consumer.clone(), expires }));
                }
            }
        }
    }

    fn add_identities(
        &mut self,
        consumer: &Arc<Consumer>,
        identities: &'a [ConsumerIdentitySettings],
        authenticators: &Named<AuthenticatorSettings>,
        wrong: &mut Vec<Diagnostic>,
    ) {
        for ConsumerIdentitySettings { authenticator, claim, is } in identities {
            let mut value = is.value.clone();
            match authenticators.iter().find(|(name, _)| name.value == authenticator.value) {
                None => {
                    let message = format!("`{}` is not an authenticator", authenticator.value);
                    wrong.push(Diagnostic::at(&authenticator.place, "unknown-name", message));
                }
                Some((_, settings)) if settings.client_certificate.is_some() => {
                    if !client_certificate::facts::FACTS.contains(&claim.as_str()) {
                        wrong.push(client_certificate::bad_fact(claim, &claim.place, &[]));
                        continue;
                    }
                    match client_certificate::facts::spelled(claim, is) {
                        Ok(spelled) => value = spelled,
                        Err(expected) => {
                            let message = format!("`{}` is the `{}` of no certificate: expected {expected}", is.value, claim.value);
                            wrong.push(Diagnostic::at(&is.place, "bad-value", message));
                        }
                    }
                }
                Some((_, settings)) if !settings.takes_tokens() => {
                    let message = format!("`{}` reads neither tokens nor certificates: its callers have no claims", authenticator.value);
                    wrong.push(
                        Diagnostic::at(&authenticator.place, "identity-without-tokens", message)
                            .help("name an authenticator of kind `jwt` or `client_certificate`"),
                    );
                }
                Some(_) => {}
            }
            let Some(path) = ClaimPath::parse(claim) else {
                wrong.push(bad_claim(claim));
                continue;
            };
            let list = self.tokens_of.entry(authenticator.value.as_str()).or_default();
            if list.iter().any(|other| other.claim == path && other.value == value) {
                wrong.push(taken_twice(is));
            } else {
                list.push(TokenOf { claim: path, value, consumer: consumer.clone() });
            }
        }
    }
}

/// Whether a certificate could be this consumer's.
fn has_certificates(identities: &[ConsumerIdentitySettings], authenticators: &Named<AuthenticatorSettings>) -> bool {
    identities.iter().any(|identity| {
        let found = authenticators.iter().find(|(name, _)| name.value == identity.authenticator.value);
        found.is_some_and(|(_, settings)| settings.client_certificate.is_some())
    })
}

pub fn list_place(place: &crate::config::diagnostic::Place) -> Diagnostic {
    Diagnostic::at(place, "list-place", "a list is in a file or in the store: expected `file` or `redis`")
}

pub fn bad_list(file: &At<String>, why: &str) -> Diagnostic {
    Diagnostic::at(&file.place, "list-file", format!("`{}` {why}", file.value))
        .help("relative paths start at the folder of the configuration file")
}

fn taken_twice(is: &At<String>) -> Diagnostic {
    Diagnostic::at(&is.place, "duplicate-identity", "who has this claim is a consumer already, and cannot be two")
}
