//! Compiles all authenticators and consumers together: keys and tokens lead from the one to the other.
//!
//! Decides which names and keys go together. Does not decide what a route asks for: see `authn.rs`.

use std::collections::HashMap;
use std::sync::Arc;

use http::HeaderName;
use http::header::AUTHORIZATION;

use super::api_key::{self, ApiKey, Carrier, KeyHash};
use super::authn::{AuthenticatorSettings, ConsumerIdentitySettings, ConsumerKeySettings, ConsumerSettings};
use super::authz::{bad_scope, is_scope};
use super::claims::ClaimPath;
use super::client_certificate::{self, ByCertificate};
use super::forward::{Forward, IdentityHeaders, bad_claim};
use super::jwt::published::Published;
use super::jwt::{Jwt, TokenOf};
use super::principal::Consumer;
use crate::config::diagnostic::Diagnostic;
use crate::config::types::{At, Named};

/// All ways to find out who calls, and all who are known by name.
#[derive(Debug, Default)]
pub struct Authenticators {
    list: Vec<Arc<Authenticator>>,
    consumers: Vec<Arc<Consumer>>,
    identity_headers: IdentityHeaders,
    credential_parameters: Vec<Box<str>>,
}

/// One authenticator, shared by the routes that name it.
#[derive(Debug)]
pub struct Authenticator {
    pub name: String,
    pub method: Method,
}

/// How it finds out who calls.
#[derive(Debug)]
pub enum Method {
    Jwt(Box<Jwt>),
    ApiKey(ApiKey),
    ClientCertificate(Box<ByCertificate>),
}

/// Memory for remembered tokens where the configuration says nothing, in bytes.
pub const TOKENS_MEMORY: u64 = 16 << 20;

/// Compiles the sections `authenticators` and `consumers`.
///
/// `plan` finds the limit of a plan by its name. `tokens_memory` is shared by all token authenticators, in bytes. From an
/// `earlier` snapshot they take over the tokens they remember, where nothing has changed that those depend on.
pub fn compile(
    authenticators: &Named<AuthenticatorSettings>,
    consumers: &Named<ConsumerSettings>,
    plan: &dyn Fn(&str) -> Option<usize>,
    tokens_memory: u64,
    earlier: Option<&Authenticators>,
) -> Result<Authenticators, Vec<Diagnostic>> {
    let mut wrong = Vec::new();
    let known = Known::read(consumers, authenticators, plan, &mut wrong);
    let token_authenticators = authenticators.iter().filter(|(_, settings)| settings.jwt.is_some()).count() as u64;
    let share = tokens_memory / token_authenticators.max(1);
    let mut all = Authenticators { consumers: known.consumers, ..Authenticators::default() };
    let mut tokens_of = known.tokens_of;
    for (name, settings) in authenticators {
        let AuthenticatorSettings { jwt, api_key, client_certificate } = settings;
        let of = tokens_of.remove(name.value.as_str()).unwrap_or_default();
        let compiled = match (jwt, api_key, client_certificate) {
            (Some(jwt), None, None) => Jwt::compile(name, jwt, of, share).map(|mut jwt| {
                if let Some(earlier) = earlier.and_then(|earlier| earlier.find_jwt(name)) {
                    jwt.inherit(earlier);
                }
                Method::Jwt(Box::new(jwt))
            }),
            (None, Some(keys), None) => ApiKey::compile(name, keys, &known.keys).map(Method::ApiKey),
            (None, None, Some(by)) => ByCertificate::compile(name, by, of).map(|by| Method::ClientCertificate(Box::new(by))),
            (Some(_), Some(_), _) | (Some(_), _, Some(_)) | (_, Some(_), Some(_)) | (None, None, None) => {
                let message =
                    format!("`{}` is of no kind or of two: expected exactly one of `jwt`, `api_key` and `client_certificate`", name.value);
                Err(vec![Diagnostic::at(&name.place, "authenticator-kind", message)])
            }
        };
        match compiled {
            Ok(method) => all.add(Authenticator { name: name.value.clone(), method }),
            Err(more) => wrong.extend(more),
        }
    }
    for (name, _) in authenticators {
        if let Some(Method::ApiKey(keys)) = all.find(name).map(|authenticator| &authenticator.method)
            && let Carrier::Header(header) = keys.carrier()
            && all.identity_headers.matches(header)
        {
            let message =
                format!("`{}` takes keys from `{header}`, which is also an identity header that clients may not send", name.value);
            wrong.push(Diagnostic::at(&name.place, "reserved-header", message).help("take another name in `forward`"));
        }
    }
    if wrong.is_empty() { Ok(all) } else { Err(wrong) }
}

// === impl Authenticators ===

impl Authenticators {
    pub fn find(&self, name: &str) -> Option<&Arc<Authenticator>> {
        self.list.iter().find(|authenticator| authenticator.name == name)
    }

    /// In the order in which they were written.
    pub fn iter(&self) -> impl Iterator<Item = &Arc<Authenticator>> {
        self.list.iter()
    }

    /// In the order in which they were written.
    pub fn consumers(&self) -> &[Arc<Consumer>] {
        &self.consumers
    }

    /// Every header named in any `forward`: removed from what clients send, on every route, public ones too.
    pub fn forwarded_headers(&self) -> &IdentityHeaders {
        &self.identity_headers
    }

    /// Query parameters that carry credentials on any route: cut out of what is logged, on every route.
    pub fn credential_parameters(&self) -> &[Box<str>] {
        &self.credential_parameters
    }

    /// The key sets that are fetched from providers, each with the name of its authenticator.
    pub fn published(&self) -> impl Iterator<Item = (&str, &Arc<Published>)> {
        self.list.iter().filter_map(|one| match &one.method {
            Method::Jwt(jwt) => Some((one.name.as_str(), jwt.published()?)),
            Method::ApiKey(_) | Method::ClientCertificate(_) => None,
        })
    }

    fn find_jwt(&self, name: &str) -> Option<&Jwt> {
        match &self.find(name)?.method {
            Method::Jwt(jwt) => Some(jwt),
            Method::ApiKey(_) | Method::ClientCertificate(_) => None,
        }
    }

    fn add(&mut self, authenticator: Authenticator) {
        match &authenticator.method {
            Method::Jwt(jwt) => jwt.forward().names().for_each(|name| self.identity_headers.add(name)),
            Method::ApiKey(keys) => {
                keys.headers().iter().for_each(|name| self.identity_headers.add(name));
                if let Carrier::Parameter(name) = keys.carrier()
                    && !self.credential_parameters.contains(name)
                {
                    self.credential_parameters.push(name.clone());
                }
            }
            Method::ClientCertificate(by) => by.forward().names().for_each(|name| self.identity_headers.add(name)),
        }
        self.list.push(Arc::new(authenticator));
    }
}

// === impl Authenticator ===

impl Authenticator {
    /// The header that carries the credential, or the parameter; none where it was shown when the connection began.
    pub fn carrier(&self) -> Option<Carrier> {
        match &self.method {
            Method::Jwt(_) => Some(Carrier::Header(AUTHORIZATION)),
            Method::ApiKey(keys) => Some(keys.carrier().clone()),
            Method::ClientCertificate(_) => None,
        }
    }

    /// Whether the credential goes to the upstream too.
    pub fn passes_credential(&self) -> bool {
        match &self.method {
            Method::Jwt(jwt) => jwt.passes_credential(),
            Method::ApiKey(keys) => keys.passes_credential(),
            Method::ClientCertificate(_) => false,
        }
    }

    /// The identity headers that it sets and where each comes from, for `explain` and `routes`.
    pub fn forwards(&self) -> Vec<(HeaderName, String)> {
        let of_claims = |forward: &Forward| forward.entries().map(|(name, from)| (name.clone(), from.to_owned())).collect();
        match &self.method {
            Method::Jwt(jwt) => of_claims(jwt.forward()),
            Method::ClientCertificate(by) => of_claims(by.forward()),
            Method::ApiKey(keys) => keys.headers().iter().map(|name| (name.clone(), "consumer".to_owned())).collect(),
        }
    }
}

/// Who is known, by key and by claim.
#[derive(Default)]
struct Known<'a> {
    consumers: Vec<Arc<Consumer>>,
    keys: Vec<(KeyHash, Arc<Consumer>)>,
    /// By the name of the authenticator.
    tokens_of: HashMap<&'a str, Vec<TokenOf>>,
}

// === impl Known ===

impl<'a> Known<'a> {
    fn read(
        consumers: &'a Named<ConsumerSettings>,
        authenticators: &Named<AuthenticatorSettings>,
        plan: &dyn Fn(&str) -> Option<usize>,
        wrong: &mut Vec<Diagnostic>,
    ) -> Self {
        let mut known = Known::default();
        let takes_keys = authenticators.iter().any(|(_, settings)| settings.api_key.is_some());
        for (name, settings) in consumers {
            let ConsumerSettings { keys, identities, plan: plan_name, scopes } = settings;
            let mut tell = |code, message: String| wrong.push(Diagnostic::at(&name.place, code, message));
            let it = &name.value;
            if keys.is_empty() && identities.is_empty() {
                tell("consumer-unreachable", format!("`{it}` has neither `keys` nor `identities`: nobody can be it"));
            } else if keys.is_empty() && !has_certificates(identities, authenticators) && !scopes.is_empty() {
                tell("consumer-scopes", format!("`{it}` has `scopes` but neither `keys` nor certificates: tokens bring their own scopes"));
            }
            if !keys.is_empty() && !takes_keys {
                tell("consumer-keys", format!("`{it}` has `keys`, but no authenticator takes API keys"));
            }
            for scope in scopes.iter().filter(|scope| !is_scope(scope)) {
                tell("bad-scope", bad_scope(scope));
            }
            let plan = plan_name.as_ref().and_then(|plan_name| match plan(plan_name) {
                Some(index) => Some((plan_name.value.clone(), index)),
                None => {
                    wrong.push(Diagnostic::at(&plan_name.place, "unknown-name", format!("`{}` is not a plan", plan_name.value)));
                    None
                }
            });
            let consumer = Arc::new(Consumer { name: it.clone(), plan, scopes: scopes.clone() });
            known.add_keys(&consumer, keys, wrong);
            known.add_identities(&consumer, identities, authenticators, wrong);
            known.consumers.push(consumer);
        }
        known
    }

    fn add_keys(&mut self, consumer: &Arc<Consumer>, keys: &[ConsumerKeySettings], wrong: &mut Vec<Diagnostic>) {
        for ConsumerKeySettings { sha256 } in keys {
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
                Some(hash) => self.keys.push((hash, consumer.clone())),
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
                Some((_, settings)) if settings.jwt.is_none() => {
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

fn taken_twice(is: &At<String>) -> Diagnostic {
    Diagnostic::at(&is.place, "duplicate-identity", "who has this claim is a consumer already, and cannot be two")
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::policy::api_key::{ApiKeySettings, hash_key};
    use crate::policy::fixtures::{NOW, at_text, codes};
    use crate::policy::jwt::JwtAlgorithm;
    use crate::policy::jwt::fixtures::{Signer, jwt_settings};

    fn keys(header: &str, forward: &str) -> AuthenticatorSettings {
        let forward = [(forward.to_owned(), at_text("consumer"))].into();
        let keys = ApiKeySettings { header: Some(at_text(header)), query: None, format: None, forward, pass: false };
        AuthenticatorSettings { jwt: None, api_key: Some(keys), client_certificate: None }
    }

    fn tokens(signer: &Signer) -> AuthenticatorSettings {
        AuthenticatorSettings { jwt: Some(jwt_settings(signer)), api_key: None, client_certificate: None }
    }

    fn consumer(keys: &[&str], identities: &[(&str, &str, &str)]) -> ConsumerSettings {
        let identity = |(authenticator, claim, is): &(&str, &str, &str)| ConsumerIdentitySettings {
            authenticator: at_text(authenticator),
            claim: at_text(claim),
            is: at_text(is),
        };
        ConsumerSettings {
            keys: keys.iter().map(|hash| ConsumerKeySettings { sha256: at_text(hash) }).collect(),
            identities: identities.iter().map(identity).collect(),
            plan: None,
            scopes: Vec::new(),
        }
    }

    fn hash(key: &str) -> String {
        hash_key(key.as_bytes()).iter().map(|byte| format!("{byte:02x}")).collect()
    }

    fn compiled(
        authenticators: &[(&str, AuthenticatorSettings)],
        consumers: &[(&str, ConsumerSettings)],
    ) -> Result<Authenticators, Vec<Diagnostic>> {
        let authenticators = authenticators.iter().map(|(name, settings)| (at_text(name), settings.clone())).collect();
        let consumers = consumers.iter().map(|(name, settings)| (at_text(name), settings.clone())).collect();
        compile(&authenticators, &consumers, &|_| None, TOKENS_MEMORY, None)
    }

    #[test]
    fn an_authenticator_is_of_exactly_one_kind() {
        let signer = Signer::new(JwtAlgorithm::HS256);
        let both = AuthenticatorSettings { api_key: keys("x-api-key", "x-client").api_key, ..tokens(&signer) };
        let none = AuthenticatorSettings { jwt: None, api_key: None, client_certificate: None };
        assert_eq!(codes(compiled(&[("a", both), ("b", none)], &[])), ["authenticator-kind", "authenticator-kind"]);
    }

    #[test]
    fn a_header_cannot_carry_keys_and_identities() {
        let authenticators = [("a", keys("x-api-key", "x-client")), ("b", keys("X_Client", "x-other"))];
        assert_eq!(codes(compiled(&authenticators, &[])), ["reserved-header"]);
    }

    #[test]
    fn consumers_that_nobody_can_be_are_mistakes() {
        let signer = Signer::new(JwtAlgorithm::HS256);
        let scoped = |settings: ConsumerSettings, scope: &str| ConsumerSettings { scopes: vec![scope.to_owned()], ..settings };
        let told = |consumers: &[(&str, ConsumerSettings)]| {
            codes(compiled(&[("idp", tokens(&signer)), ("keys", keys("x-api-key", "x-client"))], consumers))
        };
        assert_eq!(told(&[("a", consumer(&[], &[]))]), ["consumer-unreachable"]);
        assert_eq!(told(&[("a", scoped(consumer(&[], &[("idp", "t", "a")]), "s"))]), ["consumer-scopes"]);
        assert_eq!(told(&[("a", scoped(consumer(&[&hash("k")], &[]), "a b"))]), ["bad-scope"]);
        assert_eq!(told(&[("a", consumer(&["abc", &hash("")], &[]))]), ["key-hash", "key-hash"]);
        assert_eq!(told(&[("a", consumer(&[&hash("k")], &[])), ("b", consumer(&[&hash("k")], &[]))]), ["duplicate-key"]);
        assert_eq!(
            told(&[("a", consumer(&[], &[("nobody", "t", "a"), ("keys", "t", "a"), ("idp", "/~", "a")]))]),
            ["unknown-name", "identity-without-tokens", "bad-claim"]
        );
        let twice = [("a", consumer(&[], &[("idp", "t", "x")])), ("b", consumer(&[], &[("idp", "t", "x")]))];
        assert_eq!(told(&twice), ["duplicate-identity"]);
        let planned = ConsumerSettings { plan: Some(at_text("gold")), ..consumer(&[&hash("k")], &[]) };
        assert_eq!(told(&[("a", planned)]), ["unknown-name"]);
        assert_eq!(codes(compiled(&[("idp", tokens(&signer))], &[("a", consumer(&[&hash("k")], &[]))])), ["consumer-keys"]);
    }

    #[test]
    fn a_reload_hands_on_the_tokens_of_authenticators_that_did_not_change() {
        let signer = Signer::new(JwtAlgorithm::ES256);
        let token = signer.token(&json!({ "iss": "https://idp.example", "aud": "orders", "exp": NOW + 60 }));
        let signatures = |all: &Authenticators| {
            let jwt = all.find_jwt("idp").unwrap();
            jwt.identify(token.as_bytes(), NOW * 1000).unwrap();
            jwt.memory().signatures()
        };
        let load = |names: &[&str], earlier: Option<&Authenticators>| {
            let authenticators = names.iter().map(|name| (at_text(name), tokens(&signer))).collect();
            compile(&authenticators, &Vec::new(), &|_| None, TOKENS_MEMORY, earlier).unwrap()
        };
        let first = load(&["idp"], None);
        assert_eq!(signatures(&first), 1);
        let second = load(&["idp"], Some(&first));
        assert_eq!(signatures(&second), 1, "carried over");
        assert_eq!(signatures(&load(&["idp"], None)), 1, "a memory of its own");
        // Two share the memory, so that each has another bound than before.
        let third = load(&["idp", "other"], Some(&second));
        assert_eq!(third.find_jwt("idp").unwrap().memory().capacity(), TOKENS_MEMORY / 2);
        assert_eq!(third.find_jwt("idp").unwrap().memory().signatures(), 0);
    }
}
