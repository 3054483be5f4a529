//! Decides who calls: the first of a route's authenticators whose credential is present decides. Does not verify: see `jwt/`, `api_key.rs` and
//! `client_certificate/`. Which of several that read tokens it is, is decided in `issuers.rs`.

use std::collections::BTreeMap;
use std::sync::Arc;

use http::header::{AUTHORIZATION, WWW_AUTHENTICATE};
use http::{HeaderName, HeaderValue};
use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Deserializer, de};

use super::api_key::{ApiKeySettings, Carrier};
use super::authenticators::{Authenticator, Authenticators, Method};
use super::client_certificate::{self, ClientCertificateSettings};
use super::credential::Found;
use super::introspection::IntrospectionSettings;
use super::issuers::{Issuers, apart_from, never_decides};
use super::jwt::JwtSettings;
use super::principal::Identity;
use super::revocation::Revocations;
use super::watched::{Newest, Watched};
use super::{Policy, Request, Stop};
use crate::config::diagnostic::Diagnostic;
use crate::config::types::{At, Moment, TEXT_OR_LIST};
use crate::ctx::{Asking, Facts};
use crate::reply::problem::{Kind, Problem};

pub static CREDENTIALS_MISSING: Kind = Kind {
    code: "credentials-missing",
    status: 401,
    error: "Unauthorized",
    about: "The route needs a credential and the request carries none that one of its authenticators takes. `WWW-Authenticate` says which it takes.",
};

pub static CREDENTIALS_AMBIGUOUS: Kind = Kind {
    code: "credentials-ambiguous",
    status: 400,
    error: "Bad request",
    about: "The request carries a credential more than once, such as two Authorization headers, so that gateway and upstream could take different ones.",
};

/// A way to find out who calls. Exactly one kind.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct AuthenticatorSettings {
    /// JSON Web Tokens.
    pub jwt: Option<JwtSettings>,
    /// Opaque tokens, about which their issuer is asked.
    pub introspection: Option<IntrospectionSettings>,
    /// API keys of consumers.
    pub api_key: Option<ApiKeySettings>,
    /// Certificates of clients.
    pub client_certificate: Option<ClientCertificateSettings>,
}

/// Somebody who calls: a partner, an application, a team.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ConsumerSettings {
    /// Its API keys.
    #[serde(default)]
    pub keys: Vec<ConsumerKeySettings>,
    /// Tokens and certificates that are this consumer too.
    #[serde(default)]
    pub identities: Vec<ConsumerIdentitySettings>,
    /// What it may do in total; a name in `plans`.
    pub plan: Option<At<String>>,
    /// What its keys and certificates may do; tokens bring their own scopes.
    #[serde(default)]
    pub scopes: Vec<String>,
    /// Words about it, such as `version: v2`: `allow`, limits and the choice of an upstream may ask for them, and the access log has them.
    #[serde(default)]
    pub tags: BTreeMap<String, At<String>>,
}

/// One API key.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ConsumerKeySettings {
    /// The SHA-256 of the key in hex, as `sluice key hash` prints it.
    pub sha256: At<String>,
    /// When it is no longer accepted, such as `2027-01-31` or `2027-01-31T12:00:00Z`. Default: never.
    pub expires: Option<At<Moment>>,
}

/// A claim by which a token or a certificate is recognised as a consumer's.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ConsumerIdentitySettings {
    /// A name in `authenticators`, of kind `jwt` or `client_certificate`.
    pub authenticator: At<String>,
    /// The claim: of a token a name or a JSON Pointer; of a certificate `uri` (SPIFFE), `dns`, `email`, `subject`, `common_name`, `issuer`,
    /// `serial` or `fingerprint`.
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

/// The compiled rule of a route.
#[derive(Debug)]
pub struct Auth {
    /// In order; `None` where the route is public.
    any_of: Option<Box<[Arc<Authenticator>]>>,
    /// Where several read tokens.
    issuers: Option<Box<Issuers>>,
    challenges: Vec<HeaderValue>,
    headers: Vec<HeaderName>,
    /// Whose callers' header goes on although it is among those.
    passing: Option<Box<[Arc<Authenticator>]>>,
    parameters: Vec<Box<str>>,
    revocations: Option<Arc<Revocations>>,
    newest: Newest,
}

/// RFC 6750 section 3: what to send where nothing was sent.
const BEARER: HeaderValue = HeaderValue::from_static("Bearer realm=\"gateway\"");

// === impl Auth ===

impl Auth {
    pub fn compile(settings: &At<AuthSettings>, authenticators: &Authenticators) -> Result<Self, Vec<Diagnostic>> {
        let names = match &settings.value {
            AuthSettings::Public => return Ok(Auth::public().cutting(authenticators)),
            AuthSettings::AnyOf(names) => names,
        };
        let mut wrong = Vec::new();
        let mut list: Vec<Arc<Authenticator>> = Vec::new();
        for name in names {
            let Some(found) = authenticators.find(name) else {
                let known: Vec<_> = authenticators.iter().map(|known| format!("`{}`", known.name)).collect();
                let help = if known.is_empty() { "there are none".to_owned() } else { format!("there are {}", known.join(", ")) };
                wrong.push(Diagnostic::at(&name.place, "unknown-name", format!("`{}` is not an authenticator", name.value)).help(help));
                continue;
            };
            match (list.iter().find_map(|earlier| never_decides(earlier, found)), apart_from(&list, found)) {
                (Some((message, help)), _) => wrong.push(Diagnostic::at(&name.place, "auth-never-decides", message).help(help)),
                (None, Some(other)) => {
                    let message =
                        format!("`{}` stands apart from `{}`: both read tokens, and are one step of the order", found.name, other.name);
                    wrong.push(Diagnostic::at(&name.place, "auth-apart", message).help("write them side by side"));
                }
                (None, None) => list.push(found.clone()),
            }
        }
        if !wrong.is_empty() {
            return Err(wrong);
        }
        let (revocations, newest) = (authenticators.revocations().cloned(), authenticators.newest().clone());
        Ok(Auth { revocations, newest, ..Auth::any_of(list).cutting(authenticators) })
    }

    /// Anybody may call.
    pub fn public() -> Self {
        Auth {
            any_of: None,
            issuers: None,
            challenges: Vec::new(),
            headers: Vec::new(),
            passing: None,
            parameters: Vec::new(),
            revocations: None,
            newest: Newest::default(),
        }
    }

    /// A key in a parameter stays out of every upstream's log, also where this route does not ask for it; only a route whose own
    /// authenticator passes it on does.
    fn cutting(mut self, all: &Authenticators) -> Self {
        let passes = |name: &str| {
            self.authenticators().iter().any(|one| match one.carrier() {
                Some(Carrier::Parameter(own)) => one.passes_credential() && *own == *name,
                Some(Carrier::Header(_)) | None => false,
            })
        };
        self.parameters = all.credential_parameters().iter().filter(|name| !passes(name)).cloned().collect();
        self
    }

    fn any_of(list: Vec<Arc<Authenticator>>) -> Self {
        let mut auth = Auth::public();
        for authenticator in &list {
            let challenge = match &authenticator.method {
                Method::Jwt(_) | Method::Introspection(_) => BEARER,
                Method::ApiKey(keys) => keys.challenge().clone(),
                Method::ClientCertificate(_) => client_certificate::CHALLENGE,
            };
            if !auth.challenges.contains(&challenge) {
                auth.challenges.push(challenge);
            }
            match authenticator.carrier() {
                _ if authenticator.passes_credential() => {}
                Some(Carrier::Header(name)) if auth.headers.contains(&name) => {}
                Some(Carrier::Header(name)) => auth.headers.push(name),
                Some(Carrier::Parameter(_)) => {} // see `cutting`
                None => {}
            }
        }
        let passes = |one: &&Arc<Authenticator>| one.passes_credential() && one.header().is_some_and(|name| auth.headers.contains(&name));
        let passing: Box<[_]> = list.iter().filter(passes).cloned().collect();
        auth.passing = (!passing.is_empty()).then_some(passing);
        auth.issuers = Issuers::of(&list).map(Box::new);
        auth.any_of = Some(list.into());
        auth
    }

    pub fn is_public(&self) -> bool {
        self.any_of.is_none()
    }

    /// Whether a token can open the route, so that callers can have a subject, roles and claims.
    pub fn takes_tokens(&self) -> bool {
        self.authenticators().iter().any(|one| matches!(one.method, Method::Jwt(_) | Method::Introspection(_)))
    }

    /// Whether a certificate can open the route, so that callers can have claims.
    pub fn takes_certificates(&self) -> bool {
        self.authenticators().iter().any(|one| matches!(one.method, Method::ClientCertificate(_)))
    }

    /// Whether a key can open the route, so that every such caller is a consumer with a key.
    pub fn takes_keys(&self) -> bool {
        self.authenticators().iter().any(|one| matches!(one.method, Method::ApiKey(_)))
    }

    /// Whether what opens the route can expire.
    pub fn can_expire(&self) -> bool {
        self.authenticators().iter().any(|one| match &one.method {
            Method::Jwt(_) | Method::Introspection(_) | Method::ClientCertificate(_) => true,
            Method::ApiKey(keys) => keys.can_expire(),
        })
    }

    /// When what this caller showed is no longer accepted, in milliseconds since 1970; none where that is never.
    pub fn end(&self, identity: &Identity) -> Option<u64> {
        let authenticator = self.authenticators().iter().find(|one| *one.name == *identity.authenticator)?;
        match &authenticator.method {
            Method::Jwt(jwt) => jwt.end(&identity.claims),
            Method::Introspection(issuer) => issuer.end(&identity.claims),
            Method::ApiKey(_) | Method::ClientCertificate(_) => identity.expires,
        }
    }

    /// What is no longer accepted, where there is a list of it.
    pub fn revocations(&self) -> Option<&Arc<Revocations>> {
        self.revocations.as_ref()
    }

    /// What tells that this caller is revoked, by this configuration or a later one.
    pub fn watch(&self, identity: Arc<Identity>) -> Watched {
        self.newest.watch(identity)
    }

    /// In order; none where the route is public.
    pub fn authenticators(&self) -> &[Arc<Authenticator>] {
        self.any_of.as_deref().unwrap_or_default()
    }

    /// Headers that carry a credential and do not go to the upstream, but for the one that is [`kept`](Auth::kept).
    pub fn removed_headers(&self) -> &[HeaderName] {
        &self.headers
    }

    /// The header with this caller's credential, where its authenticator passes it on and another one of the route does not.
    pub fn kept(&self, identity: &Identity) -> Option<HeaderName> {
        self.passing.as_ref()?.iter().find(|one| *one.name == *identity.authenticator)?.header()
    }

    /// Query parameters that carry a credential of any authenticator and do not go to the upstream: see [`credential::cut`].
    pub fn removed_parameters(&self) -> &[Box<str>] {
        &self.parameters
    }

    /// Finds out who calls. The first authenticator whose credential is present decides, also where it refuses.
    pub async fn decide(&self, request: &Request<'_>, facts: &mut Facts) -> Result<(), Stop> {
        let Some(list) = &self.any_of else { return Ok(()) };
        for authenticator in list {
            let authenticator = match &self.issuers {
                Some(issuers) => issuers.choose(authenticator, request, facts)?,
                None => authenticator,
            };
            match authenticator.find(request, facts).await.map_err(|stop| self.told_by(authenticator, stop))? {
                Found::One(identity) => {
                    // What is in a store is not known to who simulates.
                    let is_known = |list: &Revocations| matches!(facts.asking, Asking::Really) || !list.is_unread();
                    if let Some(revocations) = self.revocations.as_ref().filter(|list| facts.revocable && is_known(list)) {
                        let certificate = client_certificate::CHALLENGE;
                        let challenge = match &authenticator.method {
                            Method::ApiKey(keys) => Some(keys.challenge()),
                            Method::ClientCertificate(_) => Some(&certificate),
                            Method::Jwt(_) | Method::Introspection(_) => None,
                        };
                        revocations.judge(&identity, challenge).map_err(|stop| self.told_by(authenticator, stop))?;
                    }
                    facts.identity = Some(identity);
                    return Ok(());
                }
                Found::Missing => {}
                Found::Ambiguous => {
                    let what = match authenticator.carrier() {
                        Some(Carrier::Header(name)) => format!("header `{name}`"),
                        Some(Carrier::Parameter(name)) => format!("parameter `{name}`"),
                        None => "certificate".to_owned(),
                    };
                    let problem = Problem::new(&CREDENTIALS_AMBIGUOUS).detail("A credential was sent more than once.");
                    return Err(problem.reason(format!("more than one {what}")).into());
                }
            }
        }
        Err(self.missing(request))
    }

    /// Where one of several was chosen, the log says which one refuses.
    fn told_by(&self, authenticator: &Authenticator, stop: Stop) -> Stop {
        match stop {
            Stop::Refuse(mut problem) if self.issuers.is_some() && authenticator.reads_tokens() => {
                let reason = problem.reason.take().map(|reason| format!(": {reason}")).unwrap_or_default();
                problem.reason = Some(format!("by `{}`{reason}", authenticator.name));
                Stop::Refuse(problem)
            }
            Stop::Refuse(_) | Stop::Answer(_) => stop,
        }
    }

    fn missing(&self, request: &Request<'_>) -> Stop {
        let names = self.authenticators().iter().map(|one| format!("`{}`", one.name)).collect::<Vec<_>>().join(", ");
        // The commonest mistake: a token without its scheme, or another scheme.
        let hint = if self.takes_tokens() && request.head.headers.contains_key(AUTHORIZATION) {
            "; `Authorization` is there, but its scheme is not Bearer"
        } else {
            ""
        };
        let mut problem = Problem::new(&CREDENTIALS_MISSING)
            .detail("A credential is needed.")
            .reason(format!("none of the credentials of {names} is there{hint}"));
        for challenge in &self.challenges {
            problem = problem.header(WWW_AUTHENTICATE, challenge.clone());
        }
        problem.into()
    }
}

impl Policy for Auth {
    async fn judge(&self, request: &Request<'_>, facts: &mut Facts) -> Result<(), Stop> {
        self.decide(request, facts).await
    }
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

#[cfg(test)]
impl Auth {
    /// A route that takes tokens.
    pub(crate) fn tokens_for_tests() -> Self {
        let (authenticators, _) = tests::setup();
        Auth::any_of(vec![authenticators.find("idp").unwrap().clone()])
    }

    /// A route that takes API keys only.
    pub(crate) fn keys_for_tests() -> Self {
        let (authenticators, _) = tests::setup();
        Auth::any_of(vec![authenticators.find("partners").unwrap().clone()])
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::policy::api_key::hash_key;
    use crate::policy::authenticators::{Sections, TOKENS_MEMORY, compile};
    use crate::policy::fixtures::{NOW, at, at_text, codes, facts, head, judge, refusal};
    use crate::policy::jwt::JwtAlgorithm;
    use crate::policy::jwt::fixtures::{Signer, jwt_settings};

    const KEY: &str = "sk_acme";

    pub fn setup() -> (Authenticators, Signer) {
        let signer = Signer::new(JwtAlgorithm::ES256);
        let mut jwt = jwt_settings(&signer);
        jwt.forward = [("x-user-id".to_owned(), at_text("sub"))].into();
        let keys = |header: Option<&str>, query: Option<&str>, pass| AuthenticatorSettings {
            jwt: None,
            client_certificate: None,
            introspection: None,
            api_key: Some(ApiKeySettings {
                header: header.map(at_text),
                query: query.map(at_text),
                format: None,
                forward: [("x-client-id".to_owned(), at_text("consumer"))].into(),
                pass,
            }),
        };
        let authenticators = vec![
            (
                at_text("idp"),
                AuthenticatorSettings { jwt: Some(jwt.clone()), api_key: None, client_certificate: None, introspection: None },
            ),
            (at_text("other-idp"), AuthenticatorSettings { jwt: Some(jwt), api_key: None, client_certificate: None, introspection: None }),
            (at_text("partners"), keys(Some("x-api-key"), None, false)),
            (at_text("links"), keys(None, Some("api_key"), false)),
            (at_text("plain"), keys(Some("authorization"), None, true)),
        ];
        let acme = ConsumerSettings {
            keys: vec![ConsumerKeySettings { sha256: at(hex(&hash_key(KEY.as_bytes()))), expires: None }],
            identities: vec![ConsumerIdentitySettings { authenticator: at_text("idp"), claim: at_text("tenant"), is: at_text("acme") }],
            plan: Some(at_text("gold")),
            scopes: vec!["orders:read".to_owned()],
            tags: BTreeMap::new(),
        };
        let sections = Sections {
            authenticators: &authenticators,
            consumers: &vec![(at_text("acme"), acme)],
            consumers_from: None,
            revocation: None,
            plans: &["gold".into()],
            book: Arc::default(),
        };
        (compile(&sections, TOKENS_MEMORY, None).unwrap(), signer)
    }

    fn hex(bytes: &[u8]) -> String {
        bytes.iter().map(|byte| format!("{byte:02x}")).collect()
    }

    fn auth(authenticators: &Authenticators, names: &[&str]) -> Result<Auth, Vec<Diagnostic>> {
        Auth::compile(&at(AuthSettings::AnyOf(names.iter().map(|name| at_text(name)).collect())), authenticators)
    }

    fn call(auth: &Auth, line: &str, headers: &[(&str, &str)]) -> Result<Arc<Identity>, Box<Problem>> {
        let mut facts = facts();
        match judge(auth, &head(line, headers), &mut facts) {
            Ok(()) => Ok(facts.identity.expect("a route that is not public knows its caller")),
            refused => Err(Box::new(refusal(refused))),
        }
    }

    #[test]
    fn the_first_whose_credential_is_present_decides() {
        let (all, signer) = setup();
        let token =
            format!("Bearer {}", signer.token(&json!({ "iss": "https://idp.example", "aud": "orders", "exp": NOW + 60, "sub": "u1" })));
        let auth = auth(&all, &["idp", "partners"]).unwrap();
        let by = |headers: &[(&str, &str)]| call(&auth, "GET /", headers).map(|identity| identity.authenticator.to_string());
        assert_eq!(by(&[("authorization", &token)]).unwrap(), "idp");
        assert_eq!(by(&[("x-api-key", KEY)]).unwrap(), "partners");
        assert_eq!(by(&[("x-api-key", KEY), ("authorization", &token)]).unwrap(), "idp");
        assert_eq!(by(&[("x-api-key", KEY), ("authorization", "Bearer x")]).unwrap_err().kind.code, "token-malformed");
        assert_eq!(by(&[("x-api-key", KEY), ("authorization", "Basic eDp5")]).unwrap(), "partners");
    }

    #[test]
    fn a_request_without_a_credential_is_told_which_are_taken() {
        let (all, _) = setup();
        let auth = auth(&all, &["idp", "partners", "links"]).unwrap();
        let problem = call(&auth, "GET /", &[("authorization", "Basic eDp5")]).unwrap_err();
        assert_eq!((problem.kind.code, problem.kind.status, problem.kind.error), ("credentials-missing", 401, "Unauthorized"));
        assert_eq!(
            problem.reason.unwrap(),
            "none of the credentials of `idp`, `partners`, `links` is there; `Authorization` is there, but its scheme is not Bearer"
        );
        let challenges: Vec<_> = problem.headers.iter().map(|(_, value)| value.to_str().unwrap()).collect();
        assert_eq!(
            challenges,
            ["Bearer realm=\"gateway\"", "ApiKey in=\"header\", name=\"x-api-key\"", "ApiKey in=\"query\", name=\"api_key\""]
        );
        assert!(!call(&auth, "GET /", &[]).unwrap_err().reason.unwrap().contains("Authorization"));
    }

    #[test]
    fn a_credential_sent_twice_is_ambiguous() {
        let (all, signer) = setup();
        let token = format!("Bearer {}", signer.token(&json!({ "iss": "https://idp.example", "aud": "orders", "exp": NOW + 60 })));
        let idp = auth(&all, &["idp", "partners"]).unwrap();
        let problem = call(&idp, "GET /", &[("authorization", &token), ("authorization", &token)]).unwrap_err();
        assert_eq!((problem.kind.code, problem.kind.status), ("credentials-ambiguous", 400));
        assert_eq!(problem.reason.unwrap(), "more than one header `authorization`");
        assert_eq!(call(&idp, "GET /", &[("x-api-key", KEY), ("x-api-key", "y")]).unwrap_err().kind.code, "credentials-ambiguous");
        let links = auth(&all, &["links"]).unwrap();
        let problem = call(&links, "GET /?api_key=sk_acme&api%5Fkey=x", &[]).unwrap_err();
        assert_eq!(problem.reason.unwrap(), "more than one parameter `api_key`");
    }

    #[test]
    fn a_public_route_knows_nobody() {
        let mut facts = facts();
        let auth = Auth::compile(&at(AuthSettings::Public), &setup().0).unwrap();
        assert!(judge(&auth, &head("GET /", &[("authorization", "Bearer x"), ("authorization", "y")]), &mut facts).is_ok());
        assert!(facts.identity.is_none());
    }

    #[test]
    fn a_consumer_is_known_by_key_and_by_token() {
        let (all, signer) = setup();
        let by_key = call(&auth(&all, &["partners"]).unwrap(), "GET /", &[("x-api-key", KEY)]).unwrap();
        let claims = json!({ "iss": "https://idp.example", "aud": "orders", "exp": NOW + 60, "sub": "u1", "tenant": "acme" });
        let token = format!("Bearer {}", signer.token(&claims));
        let by_token = call(&auth(&all, &["idp"]).unwrap(), "GET /", &[("authorization", &token)]).unwrap();
        for identity in [&by_key, &by_token] {
            let consumer = identity.consumer.as_ref().unwrap();
            assert_eq!((&*consumer.name, consumer.plan.as_ref()), ("acme", Some(&("gold".into(), 0))));
        }
        assert_eq!(*by_key.scopes, ["orders:read"]);
        assert!(by_token.scopes.is_empty(), "a token brings its own scopes");
        let other =
            format!("Bearer {}", signer.token(&json!({ "iss": "https://idp.example", "aud": "orders", "exp": NOW + 60, "tenant": "acm" })));
        assert!(call(&auth(&all, &["idp"]).unwrap(), "GET /", &[("authorization", &other)]).unwrap().consumer.is_none());
    }

    #[test]
    fn assumed_claims_stand_for_a_token_and_an_assumed_consumer_for_its_key() {
        let (all, _) = setup();
        let auth = auth(&all, &["partners", "idp"]).unwrap();
        let mut facts = facts();
        facts.assumed = Some(Arc::new(json!({ "sub": "u1", "scope": "a b", "tenant": "acme" })));
        judge(&auth, &head("GET /", &[]), &mut facts).unwrap();
        let identity = facts.identity.take().unwrap();
        assert_eq!((identity.subject.as_deref(), identity.scopes.len(), identity.headers.len()), (Some("u1"), 2, 1));
        assert_eq!(*identity.consumer.as_ref().unwrap().name, *"acme");

        facts.assumed = Some(Arc::new(json!({ "sub": "u1", "exp": NOW - 3 })));
        let problem = refusal(judge(&auth, &head("GET /", &[]), &mut facts));
        assert_eq!((problem.kind.code, problem.reason.as_deref()), ("token-expired", Some("expired 3 s ago, leeway 0 s")));

        facts.assumed_consumer = Some("acme".into());
        judge(&auth, &head("GET /", &[]), &mut facts).unwrap();
        assert_eq!(&*facts.identity.take().unwrap().authenticator, "partners");
        facts.assumed_consumer = Some("nobody".into());
        assert_eq!(refusal(judge(&auth, &head("GET /", &[]), &mut facts)).kind.code, "key-unknown");
    }

    #[test]
    fn credentials_do_not_go_to_the_upstream_unless_passed() {
        let (all, _) = setup();
        let both = auth(&all, &["idp", "links"]).unwrap();
        assert_eq!(both.removed_headers(), [AUTHORIZATION]);
        assert_eq!(both.removed_parameters(), [Box::from("api_key")]);
        assert!(auth(&all, &["plain"]).unwrap().removed_headers().is_empty());
        // Went upstream where nobody asked for it.
        assert_eq!(auth(&all, &["idp"]).unwrap().removed_parameters(), [Box::from("api_key")]);
        let public = Auth::compile(&at(AuthSettings::Public), &all).unwrap();
        assert_eq!(public.removed_parameters(), [Box::from("api_key")]);
        assert_eq!(all.credential_parameters(), [Box::from("api_key")]);
        let names: Vec<_> = all.forwarded_headers().names().iter().map(HeaderName::as_str).collect();
        assert_eq!(names, ["x-user-id", "x-client-id"]);
    }

    #[test]
    fn authenticators_that_never_decide_are_mistakes() {
        let (all, _) = setup();
        assert_eq!(codes(auth(&all, &["idp", "other-idp"])), ["auth-never-decides"]);
        assert_eq!(codes(auth(&all, &["idp", "idp"])), ["auth-never-decides"]);
        assert_eq!(codes(auth(&all, &["partners", "partners"])), ["auth-never-decides"]);
        assert_eq!(codes(auth(&all, &["plain", "idp"])), ["auth-never-decides"]);
        assert!(auth(&all, &["idp", "plain"]).is_ok());
        assert_eq!(codes(auth(&all, &["nobody", "idp", "nothing"])), ["unknown-name", "unknown-name"]);
    }
}
