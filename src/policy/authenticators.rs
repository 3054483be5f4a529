//! Compiles all authenticators and consumers together: keys and tokens lead from the one to the other.
//!
//! Decides which names and keys go together. Does not decide what a route asks for: see `authn.rs`.

use std::sync::Arc;

use http::HeaderName;
use http::header::AUTHORIZATION;

use super::api_key::{ApiKey, Carrier};
use super::authn::{AuthenticatorSettings, ConsumerSettings};
use super::client_certificate::ByCertificate;
use super::consumers::{ConsumersFromSettings, ListedConsumers};
use super::credential::{self, Found};
use super::forward::{Forward, IdentityHeaders};
use super::introspection::Introspection;
use super::jwt::published::Published;
use super::jwt::{Jwt, Who};
use super::known::{Known, bad_list, list_place};
use super::list_file::Follow;
use super::principal::{Consumer, Identity};
use super::revocation::{self, RevocationSettings, Revocations};
use super::tag_book::TagBook;
use super::watched::Newest;
use super::{Request, Stop};
use crate::config::diagnostic::Diagnostic;
use crate::config::types::{At, Named};
use crate::ctx::{Asking, Facts};

/// All ways to find out who calls, and all who are known by name.
#[derive(Debug, Default)]
pub struct Authenticators {
    list: Vec<Arc<Authenticator>>,
    consumers: Vec<Arc<Consumer>>,
    identity_headers: IdentityHeaders,
    credential_parameters: Vec<Box<str>>,
    listed: Option<Arc<ListedConsumers>>,
    revocations: Option<Arc<Revocations>>,
    newest: Newest,
}

/// The sections that say who may be known, and what they refer to.
pub struct Sections<'a> {
    pub authenticators: &'a Named<AuthenticatorSettings>,
    pub consumers: &'a Named<ConsumerSettings>,
    pub consumers_from: Option<&'a At<ConsumersFromSettings>>,
    pub revocation: Option<&'a At<RevocationSettings>>,
    /// The names of all plans, in order.
    pub plans: &'a [Arc<str>],
    pub book: Arc<TagBook>,
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
    Introspection(Box<Introspection>),
    ApiKey(Box<ApiKey>),
    ClientCertificate(Box<ByCertificate>),
}

/// Memory for remembered tokens where the configuration says nothing, in bytes.
pub const TOKENS_MEMORY: u64 = 16 << 20;

/// Compiles the sections about who calls.
///
/// `tokens_memory` is shared by all token authenticators, in bytes. From an `earlier` snapshot they take over the tokens they remember,
/// where nothing has changed that those depend on, and what was read of files that have not changed.
pub fn compile(sections: &Sections<'_>, tokens_memory: u64, earlier: Option<&Authenticators>) -> Result<Authenticators, Vec<Diagnostic>> {
    let Sections { authenticators, consumers: _, consumers_from, revocation, plans, book } = sections;
    let mut wrong = Vec::new();
    let known = Known::read(sections, &mut wrong);
    let listed = consumers_from.and_then(|from| known.listed(from, sections, earlier, &mut wrong));
    let revocations = revocation.and_then(|revocation| {
        let names = authenticators.iter().map(|(name, _)| name.value.clone()).collect();
        let around = revocation::Around(names);
        let known = earlier.and_then(|earlier| earlier.revocations());
        match (&revocation.value.file, &revocation.value.redis) {
            (Some(file), None) => {
                let opened = Revocations::open(&file.place, file, around);
                opened.map(Arc::new).map_err(|why| wrong.push(bad_list(file, &why))).ok()
            }
            (None, Some(key)) => {
                let same = known.filter(|known| known.is_at_key(key) && known.around().0 == around.0);
                Some(same.cloned().unwrap_or_else(|| Arc::new(Revocations::of_store(key, around, known.map(|known| &**known)))))
            }
            (Some(_), Some(_)) | (None, None) => {
                wrong.push(list_place(&revocation.place));
                None
            }
        }
    });
    let token_authenticators =
        authenticators.iter().filter(|(_, settings)| settings.jwt.is_some() || settings.introspection.is_some()).count() as u64;
    let share = tokens_memory / token_authenticators.max(1);
    let newest = earlier.map(|earlier| earlier.newest.clone()).unwrap_or_default();
    let mut all = Authenticators { consumers: known.consumers, listed, revocations, newest, ..Authenticators::default() };
    let mut tokens_of = known.tokens_of;
    for (name, settings) in *authenticators {
        let AuthenticatorSettings { jwt, introspection, api_key, client_certificate } = settings;
        let own_tokens = tokens_of.remove(name.value.as_str()).unwrap_or_default();
        let who = |tokens_of| Who { tokens_of, plans, book: book.clone() };
        let compiled = match (jwt, introspection, api_key, client_certificate) {
            (Some(jwt), None, None, None) => Jwt::compile(name, jwt, who(own_tokens), share).map(|mut jwt| {
                if let Some(earlier) = earlier.and_then(|earlier| earlier.find_jwt(name)) {
                    jwt.inherit(earlier);
                }
                Method::Jwt(Box::new(jwt))
            }),
            (None, Some(issuer), None, None) => Introspection::compile(name, issuer, who(own_tokens), share).map(|mut issuer| {
                let earlier = earlier.and_then(|earlier| earlier.find(name)).map(|earlier| &earlier.method);
                if let Some(Method::Introspection(earlier)) = earlier {
                    issuer.inherit(earlier);
                }
                Method::Introspection(Box::new(issuer))
            }),
            (None, None, Some(keys), None) => {
                ApiKey::compile(name, keys, &known.keys, all.listed.as_ref()).map(|keys| Method::ApiKey(Box::new(keys)))
            }
            (None, None, None, Some(by)) => ByCertificate::compile(name, by, own_tokens).map(|by| Method::ClientCertificate(Box::new(by))),
            (Some(_) | None, Some(_) | None, Some(_) | None, Some(_) | None) => {
                let message = format!(
                    "`{}` is of no kind or of two: expected exactly one of `jwt`, `introspection`, `api_key` and `client_certificate`",
                    name.value
                );
                Err(vec![Diagnostic::at(&name.place, "authenticator-kind", message)])
            }
        };
        match compiled {
            Ok(method) => all.add(Authenticator { name: name.value.clone(), method }),
            Err(more) => wrong.extend(more),
        }
    }
    for (name, _) in *authenticators {
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

    /// The consumers of a file.
    pub fn listed(&self) -> Option<&Arc<ListedConsumers>> {
        self.listed.as_ref()
    }

    pub fn revocations(&self) -> Option<&Arc<Revocations>> {
        self.revocations.as_ref()
    }

    /// Where what outlives requests hears of revocations.
    pub fn newest(&self) -> &Newest {
        &self.newest
    }

    /// This is the configuration that runs, or its list of revocations was read again.
    pub fn tell_revocations(&self) {
        self.newest.put(self.revocations.clone());
    }

    /// The files that are read again while the gateway runs, by the names that metrics and the status have for them.
    pub fn lists(&self) -> Vec<(&'static str, Arc<dyn Follow>)> {
        let consumers = self.listed.iter().map(|list| ("consumers", list.clone() as Arc<dyn Follow>));
        consumers.chain(self.revocations.iter().map(|list| ("revocation", list.clone() as Arc<dyn Follow>))).collect()
    }

    /// The key sets that are fetched from providers, each with the name of its authenticator.
    pub fn published(&self) -> impl Iterator<Item = (&str, &Arc<Published>)> {
        self.list.iter().filter_map(|one| Some((one.name.as_str(), one.published()?)))
    }

    fn find_jwt(&self, name: &str) -> Option<&Jwt> {
        self.find(name)?.jwt()
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
            Method::Introspection(issuer) => issuer.forward().names().for_each(|name| self.identity_headers.add(name)),
            Method::ClientCertificate(by) => by.forward().names().chain(by.reserved()).for_each(|name| self.identity_headers.add(name)),
        }
        self.list.push(Arc::new(authenticator));
    }
}

// === impl Authenticator ===

impl Authenticator {
    /// Who calls by its credential, where the request carries one.
    pub async fn find(&self, request: &Request<'_>, facts: &Facts) -> Result<Found<Arc<Identity>>, Stop> {
        let headers = &request.head.headers;
        match &self.method {
            Method::Jwt(jwt) => match &facts.assumed {
                Some(claims) => jwt.assume(claims, facts.now.unix_ms).map(Found::One),
                None => match credential::bearer(headers) {
                    Found::One(token) => match facts.asking {
                        Asking::Really => jwt.identify_asking(token, facts.now).await.map(Found::One),
                        Asking::Nobody => jwt.identify(token, facts.now.unix_ms).map(Found::One),
                    },
                    Found::Missing => Ok(Found::Missing),
                    Found::Ambiguous => Ok(Found::Ambiguous),
                },
            },
            Method::Introspection(issuer) => match &facts.assumed {
                Some(claims) => issuer.assume(claims, facts.now.unix_ms).map(Found::One),
                None => match credential::bearer(headers) {
                    Found::One(token) => match facts.asking {
                        Asking::Really => issuer.identify(token, facts.now).await.map(Found::One),
                        Asking::Nobody => issuer.identify_offline(token, facts.now.unix_ms).map(Found::One),
                    },
                    Found::Missing => Ok(Found::Missing),
                    Found::Ambiguous => Ok(Found::Ambiguous),
                },
            },
            Method::ApiKey(keys) => match &facts.assumed_consumer {
                Some(consumer) => keys.assume(consumer, facts.now.unix_ms).map(Found::One),
                None => keys.identify(headers, request.head.uri.query(), facts.now.unix_ms),
            },
            Method::ClientCertificate(by) => by.identify(facts.tls.as_deref(), facts.now.unix_ms),
        }
    }

    /// What verifies tokens by keys of their issuer.
    pub fn jwt(&self) -> Option<&Jwt> {
        match &self.method {
            Method::Jwt(jwt) => Some(jwt),
            Method::Introspection(_) | Method::ApiKey(_) | Method::ClientCertificate(_) => None,
        }
    }

    /// Whether it reads `Authorization: Bearer`.
    pub fn reads_tokens(&self) -> bool {
        match &self.method {
            Method::Jwt(_) | Method::Introspection(_) => true,
            Method::ApiKey(_) | Method::ClientCertificate(_) => false,
        }
    }

    /// The key set that it fetches from a provider.
    pub fn published(&self) -> Option<&Arc<Published>> {
        self.jwt()?.published()
    }

    /// The header that carries the credential, or the parameter; none where it was shown when the connection began.
    pub fn carrier(&self) -> Option<Carrier> {
        match &self.method {
            Method::Jwt(_) | Method::Introspection(_) => Some(Carrier::Header(AUTHORIZATION)),
            Method::ApiKey(keys) => Some(keys.carrier().clone()),
            Method::ClientCertificate(_) => None,
        }
    }

    /// The header that carries the credential.
    pub fn header(&self) -> Option<HeaderName> {
        match self.carrier()? {
            Carrier::Header(name) => Some(name),
            Carrier::Parameter(_) => None,
        }
    }

    /// Whether the credential goes to the upstream too.
    pub fn passes_credential(&self) -> bool {
        match &self.method {
            Method::Jwt(jwt) => jwt.passes_credential(),
            Method::ApiKey(keys) => keys.passes_credential(),
            Method::Introspection(issuer) => issuer.passes_credential(),
            Method::ClientCertificate(_) => false,
        }
    }

    /// The identity headers that it sets and where each comes from, for `explain` and `routes`.
    pub fn forwards(&self) -> Vec<(HeaderName, String)> {
        let of_claims = |forward: &Forward| forward.entries().map(|(name, from)| (name.clone(), from.to_owned())).collect();
        match &self.method {
            Method::Jwt(jwt) => of_claims(jwt.forward()),
            Method::Introspection(issuer) => of_claims(issuer.forward()),
            Method::ClientCertificate(by) => of_claims(by.forward()),
            Method::ApiKey(keys) => keys.headers().iter().map(|name| (name.clone(), "consumer".to_owned())).collect(),
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::policy::api_key::{ApiKeySettings, hash_key};
    use crate::policy::authn::{ConsumerIdentitySettings, ConsumerKeySettings};
    use crate::policy::client_certificate::ClientCertificateSettings;
    use crate::policy::fixtures::{NOW, at_text, codes};
    use crate::policy::jwt::JwtAlgorithm;
    use crate::policy::jwt::fixtures::{Signer, jwt_settings};

    fn keys(header: &str, forward: &str) -> AuthenticatorSettings {
        let forward = [(forward.to_owned(), at_text("consumer"))].into();
        let keys = ApiKeySettings { header: Some(at_text(header)), query: None, format: None, forward, pass: false };
        AuthenticatorSettings { jwt: None, api_key: Some(keys), client_certificate: None, introspection: None }
    }

    fn tokens(signer: &Signer) -> AuthenticatorSettings {
        AuthenticatorSettings { jwt: Some(jwt_settings(signer)), api_key: None, client_certificate: None, introspection: None }
    }

    fn consumer(keys: &[&str], identities: &[(&str, &str, &str)]) -> ConsumerSettings {
        let identity = |(authenticator, claim, is): &(&str, &str, &str)| ConsumerIdentitySettings {
            authenticator: at_text(authenticator),
            claim: at_text(claim),
            is: at_text(is),
        };
        ConsumerSettings {
            keys: keys.iter().map(|hash| ConsumerKeySettings { sha256: at_text(hash), expires: None }).collect(),
            identities: identities.iter().map(identity).collect(),
            plan: None,
            scopes: Vec::new(),
            tags: Default::default(),
        }
    }

    fn hash(key: &str) -> String {
        hash_key(key.as_bytes()).iter().map(|byte| format!("{byte:02x}")).collect()
    }

    fn sections<'a>(authenticators: &'a Named<AuthenticatorSettings>, consumers: &'a Named<ConsumerSettings>) -> Sections<'a> {
        Sections { authenticators, consumers, consumers_from: None, revocation: None, plans: &[], book: Default::default() }
    }

    fn compiled(
        authenticators: &[(&str, AuthenticatorSettings)],
        consumers: &[(&str, ConsumerSettings)],
    ) -> Result<Authenticators, Vec<Diagnostic>> {
        let authenticators = authenticators.iter().map(|(name, settings)| (at_text(name), settings.clone())).collect();
        let consumers = consumers.iter().map(|(name, settings)| (at_text(name), settings.clone())).collect();
        compile(&sections(&authenticators, &consumers), TOKENS_MEMORY, None)
    }

    #[test]
    fn an_authenticator_is_of_exactly_one_kind() {
        let signer = Signer::new(JwtAlgorithm::HS256);
        let both = AuthenticatorSettings { api_key: keys("x-api-key", "x-client").api_key, ..tokens(&signer) };
        let none = AuthenticatorSettings { jwt: None, api_key: None, client_certificate: None, introspection: None };
        assert_eq!(codes(compiled(&[("a", both), ("b", none)], &[])), ["authenticator-kind", "authenticator-kind"]);
    }

    #[test]
    fn a_header_cannot_carry_keys_and_identities() {
        let authenticators = [("a", keys("x-api-key", "x-client")), ("b", keys("X_Client", "x-other"))];
        assert_eq!(codes(compiled(&authenticators, &[])), ["reserved-header"]);
    }

    #[test]
    fn who_forwards_certificates_is_the_only_one_to_say_what_stands_behind_them() {
        let reserved = |from: &str| {
            let forward = [("x-cert".to_owned(), at_text(from))].into();
            let by = ClientCertificateSettings { any_certificate: true, forward };
            let mesh = AuthenticatorSettings { jwt: None, api_key: None, client_certificate: Some(by), introspection: None };
            let all = compiled(&[("mesh", mesh)], &[]).unwrap();
            all.forwarded_headers().names().iter().map(ToString::to_string).collect::<Vec<_>>()
        };
        assert_eq!(reserved("certificate"), ["x-cert", "client-cert", "client-cert-chain"]);
        assert_eq!(reserved("certificate_pem"), ["x-cert"]);
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
            compile(&sections(&authenticators, &Vec::new()), TOKENS_MEMORY, earlier).unwrap()
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
