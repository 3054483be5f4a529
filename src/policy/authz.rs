//! Decides whether a caller who is known may do this: scopes, roles, claims. Does not find out who calls: see `authn.rs`.

use std::collections::BTreeMap;

use http::HeaderValue;
use http::header::WWW_AUTHENTICATE;
use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Deserializer, de};

use super::authn::Auth;
use super::claims::{ClaimPath, has_text};
use super::forward::bad_claim;
use super::principal::{Credential, Identity};
use super::{Policy, Request, Stop};
use crate::config::check::not_empty;
use crate::config::diagnostic::Diagnostic;
use crate::config::types::{At, TEXT_OR_LIST};
use crate::ctx::Facts;
use crate::reply::problem::{Kind, Problem};

pub static SCOPE_MISSING: Kind = Kind {
    code: "scope-missing",
    status: 403,
    error: "Forbidden",
    about: "The caller is known but lacks a scope that the route's `allow.scopes` demands; all of them must be held.",
};

pub static ROLE_MISSING: Kind = Kind {
    code: "role-missing",
    status: 403,
    error: "Forbidden",
    about: "The caller is known but has none of the roles that the route's `allow.roles` lists.",
};

pub static CLAIM_MISMATCH: Kind = Kind {
    code: "claim-mismatch",
    status: 403,
    error: "Forbidden",
    about: "The caller's token or certificate lacks a claim that the route's `allow.claims` demands, or the claim has another value.",
};

pub static TAG_MISMATCH: Kind = Kind {
    code: "tag-mismatch",
    status: 403,
    error: "Forbidden",
    about: "The caller lacks a tag that the route's `allow.tags` demands, or the tag has another value.",
};

/// What a caller must have. All that are written must hold.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct AllowSettings {
    /// Scopes, all of them.
    pub scopes: Option<At<Vec<String>>>,
    /// Roles, any of them.
    pub roles: Option<At<Vec<String>>>,
    /// Claims and the values of which each must have one; a claim is a name or a JSON Pointer. Certificates have those of
    /// `client_certificate`.
    pub claims: Option<At<BTreeMap<String, OneOrMany>>>,
    /// Tags and the values of which each must have one; of consumers, or of tokens by their claims.
    pub tags: Option<At<BTreeMap<String, OneOrMany>>>,
}

/// One value or a list of them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OneOrMany(pub Vec<String>);

// === impl OneOrMany ===

impl<'de> Deserialize<'de> for OneOrMany {
    fn deserialize<D: Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
        struct Either;
        impl<'de> de::Visitor<'de> for Either {
            type Value = OneOrMany;
            fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str("a value or a list of values")
            }
            fn visit_str<E: de::Error>(self, text: &str) -> Result<OneOrMany, E> {
                Ok(OneOrMany(vec![text.to_owned()]))
            }
            fn visit_bool<E: de::Error>(self, truth: bool) -> Result<OneOrMany, E> {
                Ok(OneOrMany(vec![truth.to_string()]))
            }
            fn visit_u64<E: de::Error>(self, number: u64) -> Result<OneOrMany, E> {
                Ok(OneOrMany(vec![number.to_string()]))
            }
            fn visit_i64<E: de::Error>(self, number: i64) -> Result<OneOrMany, E> {
                Ok(OneOrMany(vec![number.to_string()]))
            }
            fn visit_seq<A: de::SeqAccess<'de>>(self, mut list: A) -> Result<OneOrMany, A::Error> {
                let mut values = Vec::new();
                while let Some(value) = list.next_element()? {
                    values.push(value);
                }
                if values.is_empty() { Err(de::Error::invalid_length(0, &self)) } else { Ok(OneOrMany(values)) }
            }
        }
        d.deserialize_newtype_struct(TEXT_OR_LIST, Either)
    }
}

impl JsonSchema for OneOrMany {
    fn inline_schema() -> bool {
        true
    }
    fn schema_name() -> std::borrow::Cow<'static, str> {
        "OneOrMany".into()
    }
    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({ "anyOf": [{ "type": "string" }, { "type": "array", "items": { "type": "string" }, "minItems": 1 }] })
    }
}

/// The compiled demands of a route.
#[derive(Debug)]
pub struct Allow {
    scopes: Vec<String>,
    roles: Vec<String>,
    claims: Vec<(ClaimPath, Vec<String>)>,
    tags: Vec<(String, Vec<String>)>,
    /// `Bearer error="insufficient_scope", scope="..."`.
    challenge: HeaderValue,
}

/// What is wrong with it by itself, wherever it is written.
pub fn check(allow: &At<AllowSettings>, errors: &mut Vec<Diagnostic>) {
    let AllowSettings { scopes, roles, claims, tags } = &allow.value;
    if scopes.is_none() && roles.is_none() && claims.is_none() && tags.is_none() {
        let message = "this asks for nothing: expected at least one of `scopes`, `roles`, `claims` and `tags`";
        errors.push(Diagnostic::at(&allow.place, "inert", message));
    }
    for (list, what) in [(scopes, "scopes"), (roles, "roles")] {
        if let Some(list) = list {
            not_empty(list, &list.place, what, errors);
        }
    }
    if let Some(claims) = claims.as_ref().filter(|claims| claims.is_empty()) {
        errors.push(Diagnostic::at(&claims.place, "inert", "this asks for nothing: expected claims and their values"));
    }
    if let Some(tags) = tags.as_ref().filter(|tags| tags.is_empty()) {
        errors.push(Diagnostic::at(&tags.place, "inert", "this asks for nothing: expected tags and their values"));
    }
}

// === impl Allow ===

impl Allow {
    /// `auth` is who may call the same route: demands that none of them can meet are mistakes.
    pub fn compile(settings: &At<AllowSettings>, auth: &Auth) -> Result<Self, Vec<Diagnostic>> {
        let AllowSettings { scopes, roles, claims, tags } = &settings.value;
        let mut wrong = Vec::new();
        if scopes.is_none() && roles.is_none() && claims.is_none() && tags.is_none() {
            let message = "`allow` demands nothing: expected `scopes`, `roles`, `claims` or `tags`";
            wrong.push(Diagnostic::at(&settings.place, "allow-empty", message));
        } else if auth.is_public() {
            wrong.push(
                Diagnostic::at(&settings.place, "allow-without-auth", "nobody can meet `allow`: the route is public")
                    .help("name authenticators in `auth`, or remove `allow`"),
            );
        } else if !auth.takes_tokens() {
            let claims = claims.as_ref().filter(|_| !auth.takes_certificates());
            for (what, place) in [("roles", roles.as_ref().map(|at| &at.place)), ("claims", claims.map(|at| &at.place))] {
                if let Some(place) = place {
                    let message = format!("nobody can meet `{what}`: the route takes no tokens, and nothing else has any");
                    wrong
                        .push(Diagnostic::at(place, "allow-never-met", message).help("demand `scopes`: a consumer's keys have its scopes"));
                }
            }
        }
        for (what, list) in [("scopes", scopes), ("roles", roles)] {
            let Some(list) = list else { continue };
            if list.is_empty() {
                wrong.push(Diagnostic::at(&list.place, "allow-empty", format!("`{what}` is empty: expected at least one")));
            }
        }
        for scope in scopes.iter().flat_map(|list| &list.value) {
            if !is_scope(scope) {
                let place = &scopes.as_ref().map_or(&settings.place, |list| &list.place).clone();
                wrong.push(Diagnostic::at(place, "bad-scope", bad_scope(scope)));
            }
        }
        let mut compiled = Vec::new();
        if let Some(claims) = claims {
            if claims.is_empty() {
                wrong.push(Diagnostic::at(&claims.place, "allow-empty", "`claims` is empty: expected at least one"));
            }
            for (claim, values) in &claims.value {
                match ClaimPath::parse(claim) {
                    Some(path) => compiled.push((path, values.0.clone())),
                    None => wrong.push(bad_claim(&At { value: claim.clone(), place: claims.place.clone() })),
                }
            }
        }
        if !wrong.is_empty() {
            return Err(wrong);
        }
        let list = |written: &Option<At<Vec<String>>>| written.as_ref().map(|list| list.value.clone()).unwrap_or_default();
        let scopes = list(scopes);
        let challenge = match scopes.as_slice() {
            [] => "Bearer error=\"insufficient_scope\"".to_owned(),
            scopes => format!("Bearer error=\"insufficient_scope\", scope=\"{}\"", scopes.join(" ")),
        };
        let challenge = HeaderValue::from_str(&challenge).expect("scopes are visible ASCII without quotes");
        let tags = tags.iter().flat_map(|tags| &tags.value).map(|(name, values)| (name.clone(), values.0.clone())).collect();
        Ok(Allow { scopes, roles: list(roles), claims: compiled, tags, challenge })
    }

    /// Scopes that a caller must have, all of them.
    pub fn scopes(&self) -> &[String] {
        &self.scopes
    }

    /// Judges who calls. A caller who is not known (possible only where `auth` is shadowed) has nothing.
    pub fn decide(&self, identity: Option<&Identity>) -> Result<(), Stop> {
        let held = identity.map_or(&[][..], |identity| &identity.scopes[..]);
        if let Some(missing) = self.scopes.iter().find(|scope| !held.contains(scope)) {
            let problem = Problem::new(&SCOPE_MISSING)
                .detail(format!("The scope `{missing}` is needed."))
                .reason(format!("scope `{missing}` is missing from {}", shown(held)))
                .member("scope", missing);
            // RFC 6750 section 3.1 speaks of tokens only.
            let is_token = identity.is_some_and(|identity| identity.credential == Credential::Token);
            return Err(if is_token { problem.header(WWW_AUTHENTICATE, self.challenge.clone()) } else { problem }.into());
        }
        let held = identity.map_or(&[][..], |identity| &identity.roles);
        if !self.roles.is_empty() && !self.roles.iter().any(|role| held.contains(role)) {
            let reason = format!("none of the roles {} is among {}", shown(&self.roles), shown(held));
            return Err(Problem::new(&ROLE_MISSING).reason(reason).into());
        }
        for (claim, values) in &self.claims {
            let value = identity.and_then(|identity| claim.find(&identity.claims));
            if !value.is_some_and(|value| values.iter().any(|text| has_text(value, text))) {
                let found = if value.is_some() { "is another" } else { "is missing" };
                let reason = format!("claim `{}` {found}, expected {}", claim.as_str(), shown(values));
                return Err(Problem::new(&CLAIM_MISMATCH).reason(reason).into());
            }
        }
        for (name, values) in &self.tags {
            let tag = identity.and_then(|identity| identity.tag(name));
            if !tag.is_some_and(|tag| values.iter().any(|value| **value == *tag.value)) {
                let found = tag.map_or("is missing".to_owned(), |tag| format!("is `{}`", tag.value));
                let reason = format!("tag `{name}` {found}, expected {}", shown(values));
                return Err(Problem::new(&TAG_MISMATCH).reason(reason).into());
            }
        }
        Ok(())
    }
}

impl Policy for Allow {
    async fn judge(&self, _: &Request<'_>, facts: &mut Facts) -> Result<(), Stop> {
        self.decide(facts.identity.as_deref())
    }
}

/// A list for the log: what tokens bring is bounded and escaped.
fn shown(words: &[String]) -> String {
    if words.is_empty() {
        return "none".to_owned();
    }
    let mut text = String::new();
    for (index, word) in words.iter().take(10).enumerate() {
        text.push_str(if index == 0 { "`" } else { ", `" });
        text.extend(word.chars().take(60).flat_map(char::escape_debug));
        text.push('`');
    }
    if words.len() > 10 {
        text.push_str(", ...");
    }
    text
}

/// RFC 6749 section 3.3: visible ASCII without quote and backslash.
pub fn is_scope(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(|b| b.is_ascii_graphic() && b != b'"' && b != b'\\')
}

/// The message for what is not a scope.
pub fn bad_scope(text: &str) -> String {
    format!("`{text}` is not a scope: expected visible ASCII without spaces, quotes and backslashes, such as `orders:read`")
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;
    use crate::policy::fixtures::{at, codes, place, refusal};
    use crate::policy::principal::KeyId;

    fn texts(words: &[&str]) -> Vec<String> {
        words.iter().map(|word| (*word).to_owned()).collect()
    }

    fn settings(scopes: &[&str], roles: &[&str], claims: &[(&str, &[&str])]) -> At<AllowSettings> {
        let list = |words: &[&str]| (!words.is_empty()).then(|| at(texts(words)));
        let claims = claims.iter().map(|(name, values)| ((*name).to_owned(), OneOrMany(texts(values)))).collect::<BTreeMap<_, _>>();
        at(AllowSettings { scopes: list(scopes), roles: list(roles), claims: (!claims.is_empty()).then(|| at(claims)), tags: None })
    }

    fn allow(scopes: &[&str], roles: &[&str], claims: &[(&str, &[&str])]) -> Allow {
        Allow::compile(&settings(scopes, roles, claims), &Auth::tokens_for_tests()).unwrap()
    }

    fn caller(scopes: &[&str], roles: &[&str], claims: Value) -> Identity {
        Identity {
            credential: Credential::Token,
            authenticator: "idp".into(),
            subject: Some("u1".into()),
            scopes: texts(scopes).into(),
            roles: texts(roles),
            claims,
            ..Identity::default()
        }
    }

    #[test]
    fn all_scopes_must_be_held() {
        let allow = allow(&["orders:read", "orders:create"], &[], &[]);
        assert!(allow.decide(Some(&caller(&["orders:create", "x", "orders:read"], &[], json!({})))).is_ok());
        let problem = refusal(allow.decide(Some(&caller(&["orders:read", "orders:creates"], &[], json!({})))));
        assert_eq!((problem.kind.code, problem.kind.status, problem.kind.error), ("scope-missing", 403, "Forbidden"));
        assert_eq!(problem.reason.unwrap(), "scope `orders:create` is missing from `orders:read`, `orders:creates`");
        assert_eq!(problem.headers[0].1, r#"Bearer error="insufficient_scope", scope="orders:read orders:create""#);
    }

    #[test]
    fn keys_are_not_told_about_bearer_tokens() {
        let key = Identity { credential: Credential::ApiKey, key_id: Some(KeyId::of(&[0; 32])), ..caller(&[], &[], Value::Null) };
        let problem = refusal(allow(&["a"], &[], &[]).decide(Some(&key)));
        assert_eq!(problem.kind.code, "scope-missing");
        assert!(problem.headers.is_empty());
    }

    #[test]
    fn any_role_will_do() {
        let allow = allow(&[], &["admin", "clerk"], &[]);
        assert!(allow.decide(Some(&caller(&[], &["clerk"], json!({})))).is_ok());
        let problem = refusal(allow.decide(Some(&caller(&[], &["Admin"], json!({})))));
        assert_eq!(problem.kind.code, "role-missing");
        assert_eq!(problem.reason.unwrap(), "none of the roles `admin`, `clerk` is among `Admin`");
    }

    #[test]
    fn every_claim_must_have_one_of_its_values() {
        let allow = allow(&[], &[], &[("tenant", &["acme", "beta"]), ("/realm/level", &["3"])]);
        for claims in [json!({ "tenant": "beta", "realm": { "level": 3 } }), json!({ "tenant": ["x", "acme"], "realm": { "level": "3" } })]
        {
            assert!(allow.decide(Some(&caller(&[], &[], claims))).is_ok());
        }
        for (claims, reason) in [
            (json!({ "tenant": "acme" }), "claim `/realm/level` is missing, expected `3`"),
            (json!({ "tenant": "gamma", "realm": { "level": 3 } }), "claim `tenant` is another, expected `acme`, `beta`"),
            (json!({ "tenant": "acme", "realm": { "level": 30 } }), "claim `/realm/level` is another, expected `3`"),
        ] {
            let problem = refusal(allow.decide(Some(&caller(&[], &[], claims))));
            assert_eq!((problem.kind.code, problem.kind.status), ("claim-mismatch", 403));
            assert_eq!(problem.reason.unwrap(), reason);
        }
    }

    #[test]
    fn a_caller_who_is_not_known_has_nothing() {
        assert_eq!(refusal(allow(&["a"], &[], &[]).decide(None)).kind.code, "scope-missing");
        assert_eq!(refusal(allow(&[], &["a"], &[]).decide(None)).kind.code, "role-missing");
        assert_eq!(refusal(allow(&[], &[], &[("a", &["b"])]).decide(None)).kind.code, "claim-mismatch");
    }

    #[test]
    fn demands_that_say_nothing_or_that_nobody_meets_are_mistakes() {
        let tokens = Auth::tokens_for_tests();
        assert_eq!(codes(Allow::compile(&settings(&[], &[], &[]), &tokens)), ["allow-empty"]);
        let empty = AllowSettings { scopes: Some(at(vec![])), roles: Some(at(vec![])), claims: Some(at(BTreeMap::new())), tags: None };
        assert_eq!(codes(Allow::compile(&At { value: empty, place: place() }, &tokens)), ["allow-empty", "allow-empty", "allow-empty"]);
        assert_eq!(
            codes(Allow::compile(&settings(&["a b", "c\""], &[], &[("/~", &["x"])]), &tokens)),
            ["bad-scope", "bad-scope", "bad-claim"]
        );
        assert_eq!(codes(Allow::compile(&settings(&["a"], &[], &[]), &Auth::public())), ["allow-without-auth"]);
        let keys = Auth::keys_for_tests();
        assert_eq!(codes(Allow::compile(&settings(&["a"], &["b"], &[("c", &["d"])]), &keys)), ["allow-never-met", "allow-never-met"]);
    }
}
