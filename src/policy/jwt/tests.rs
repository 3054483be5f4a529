//! Whole tokens against the whole authenticator, with real signatures (RFC 8725 section 2 lists the attacks).

use serde_json::{Value, json};

use super::fixtures::{SECRET, Signer, jwks, jwt_settings};
use super::*;
use crate::config::types::Secret;
use crate::policy::fixtures::{NOW, at, at_text, codes, refusal};
use crate::policy::principal::Consumer;

const MEMORY: u64 = 1 << 20;

fn compile(settings: &JwtSettings) -> Result<Jwt, Vec<Diagnostic>> {
    Jwt::compile(&at_text("idp"), settings, Default::default(), MEMORY)
}

fn claims() -> Value {
    json!({ "iss": "https://idp.example", "aud": "orders", "exp": NOW + 600, "sub": "u1" })
}

fn with(name: &str, value: impl Into<Value>) -> Value {
    let mut claims = claims();
    claims[name] = value.into();
    claims
}

fn without(name: &str) -> Value {
    let mut claims = claims();
    claims.as_object_mut().unwrap().remove(name).unwrap();
    claims
}

/// `code: reason` of the refusal, or `accepted`.
fn verdict(jwt: &Jwt, token: &str) -> String {
    match jwt.identify(token.as_bytes(), NOW * 1000) {
        Ok(_) => "accepted".to_owned(),
        Err(stop) => {
            let problem = refusal(Err(stop));
            assert_eq!((problem.kind.status, problem.kind.error), (401, "Invalid token"));
            assert!(token.len() < 20 || !format!("{problem:?}").contains(token), "shows the token");
            format!("{}: {}", problem.kind.code, problem.reason.unwrap())
        }
    }
}

#[test]
fn tokens_of_every_algorithm_are_verified_and_changed_ones_refused() {
    for algorithm in JwtAlgorithm::ALL {
        let signer = Signer::new(algorithm);
        let jwt = compile(&jwt_settings(&signer)).unwrap();
        let token = signer.token(&claims());
        assert_eq!(verdict(&jwt, &token), "accepted", "{algorithm:?}");

        let (signed, signature) = token.rsplit_once('.').unwrap();
        let other = signer.token(&with("sub", "admin"));
        let (other_signed, other_signature) = other.rsplit_once('.').unwrap();
        for changed in [
            format!("{other_signed}.{signature}"),
            format!("{signed}.{other_signature}"),
            format!("{signed}."),
            format!("{signed}.AAAA"),
            format!("{signed}.{}", &signature[..signature.len() - 4]),
            format!("{signed}.{signature}AAAA"),
            format!("{signed}.{}", signature.chars().map(|_| 'A').collect::<String>()),
        ] {
            let told = verdict(&jwt, &changed);
            assert!(told.starts_with("token-signature: ") || told.starts_with("token-malformed: signature"), "{algorithm:?}: {told}");
        }
    }
}

#[test]
fn the_same_algorithm_with_another_key_is_refused() {
    for algorithm in [JwtAlgorithm::ES256, JwtAlgorithm::ES384, JwtAlgorithm::EdDSA] {
        let jwt = compile(&jwt_settings(&Signer::new(algorithm))).unwrap();
        let told = verdict(&jwt, &Signer::new(algorithm).token(&claims()));
        assert_eq!(told, "token-signature: the signature is not that of key `k1`", "{algorithm:?}");
    }
}

#[test]
fn a_public_key_is_no_secret() {
    let rsa = Signer::new(JwtAlgorithm::RS256);
    let jwt = compile(&jwt_settings(&rsa)).unwrap();
    for secret in [rsa.pem(), rsa.pem().trim().to_owned(), jwks(&[rsa.jwk("k1")]), rsa.jwk("k1").to_string()] {
        let forged = Signer::with_secret(JwtAlgorithm::HS256, secret.as_bytes());
        assert_eq!(verdict(&jwt, &forged.token(&claims())), "token-algorithm: `alg` is `HS256`, accepted are RS256");
        let named = forged.token_with(r#"{"alg":"HS256","kid":"k1"}"#, &claims().to_string());
        assert_eq!(verdict(&jwt, &named), "token-algorithm: `alg` is `HS256`, accepted are RS256");
        // The signature is one of HMAC, whatever the header says.
        let lied = forged.token_with(r#"{"alg":"RS256","kid":"k1"}"#, &claims().to_string());
        assert!(verdict(&jwt, &lied).starts_with("token-signature"));
    }
}

#[test]
fn a_key_serves_only_algorithms_of_its_type() {
    let (rsa, ec) = (Signer::new(JwtAlgorithm::RS256), Signer::new(JwtAlgorithm::ES256));
    let mut settings = jwt_settings(&rsa);
    settings.algorithms = at(vec![at(JwtAlgorithm::RS256), at(JwtAlgorithm::ES256)]);
    settings.keys = at(JwtKeysSettings {
        file: None,
        inline: Some(at(jwks(&[rsa.jwk("r"), ec.jwk("e")]))),
        secret: None,
        ..JwtKeysSettings::default()
    });
    let jwt = compile(&settings).unwrap();
    let header = |alg: &str, kid: &str| format!(r#"{{"alg":"{alg}","kid":"{kid}"}}"#);
    let payload = claims().to_string();
    assert_eq!(verdict(&jwt, &rsa.token_with(&header("RS256", "r"), &payload)), "accepted");
    assert_eq!(verdict(&jwt, &ec.token_with(&header("ES256", "e"), &payload)), "accepted");
    assert_eq!(verdict(&jwt, &rsa.token_with(&header("RS256", "e"), &payload)), "token-algorithm: key `e` does not serve RS256");
    assert_eq!(
        verdict(&jwt, &rsa.token_with(&header("PS256", "r"), &payload)),
        "token-algorithm: `alg` is `PS256`, accepted are RS256, ES256"
    );
    assert_eq!(verdict(&jwt, &rsa.token_with(&header("RS256", "x"), &payload)), "token-key-unknown: no key has `kid` `x`; there are 2");
    assert_eq!(verdict(&jwt, &ec.token_with(&header("RS256", "r"), &payload)), "token-signature: the signature is not that of key `r`");
}

#[test]
fn unsigned_tokens_and_tokens_with_their_own_keys_are_refused() {
    let signer = Signer::new(JwtAlgorithm::ES256);
    let jwt = compile(&jwt_settings(&signer)).unwrap();
    let payload = claims().to_string();
    for alg in ["none", "None", "NONE", "nOnE", "", "HS256", "ES384", "ES256K"] {
        let token = signer.token_with(&format!(r#"{{"alg":"{alg}"}}"#), &payload);
        let bare = format!("{}.", token.rsplit_once('.').unwrap().0);
        for token in [token, bare] {
            assert_eq!(verdict(&jwt, &token), format!("token-algorithm: `alg` is `{alg}`, accepted are ES256"));
        }
    }
    let attacker = Signer::new(JwtAlgorithm::ES256);
    for (name, value) in [
        ("jwk", attacker.jwk("k1")),
        ("jku", json!("https://evil.example/keys")),
        ("x5u", json!("https://evil.example/chain")),
        ("x5c", json!(["MII"])),
        ("crit", json!(["exp"])),
    ] {
        let header = json!({ "alg": "ES256", "kid": "k1", name: value }).to_string();
        for signer in [&attacker, &signer] {
            let told = verdict(&jwt, &signer.token_with(&header, &payload));
            assert_eq!(told, format!("token-malformed: header has `{name}`, which is never followed"));
        }
    }
}

#[test]
fn claims_are_judged_with_their_figures() {
    let signer = Signer::new(JwtAlgorithm::HS256);
    let jwt = compile(&jwt_settings(&signer)).unwrap();
    for (claims, expected) in [
        (claims(), "accepted"),
        (with("exp", NOW - 3), "token-expired: expired 3 s ago, leeway 0 s"),
        (with("exp", NOW), "token-expired: expired 0 s ago, leeway 0 s"),
        (with("exp", 0.5), "token-expired: expired 1735689599 s ago, leeway 0 s"),
        (with("nbf", NOW + 12), "token-not-yet-valid: not valid for another 12 s, leeway 0 s: clock skew?"),
        (with("iat", NOW + 12), "token-not-yet-valid: issued 12 s from now, leeway 0 s: clock skew?"),
        (with("exp", "soon"), "token-claims: `exp` is not a number"),
        (with("exp", 1e30), "token-claims: `exp` is not a date between 1970 and 9999"),
        (with("nbf", "now"), "token-claims: `nbf` is not a number"),
        (with("iat", json!(null)), "token-claims: `iat` is not a number"),
        (without("exp"), "token-claims: has no `exp`"),
        (with("iss", "https://evil.example"), "token-issuer: expected issuer `https://idp.example`"),
        (with("iss", "https://idp.example/"), "token-issuer: expected issuer `https://idp.example`"),
        (with("iss", json!(["https://idp.example"])), "token-claims: `iss` is not text"),
        (without("iss"), "token-claims: has no `iss`"),
        (with("aud", "billing"), "token-audience: expected audience `orders`"),
        (with("aud", json!([])), "token-audience: expected audience `orders`"),
        (with("aud", json!(["billing", "orders"])), "accepted"),
        (with("aud", json!(["orders", 1])), "token-claims: `aud` is neither text nor a list of texts"),
        (with("aud", json!({ "orders": 1 })), "token-claims: `aud` is neither text nor a list of texts"),
        (without("aud"), "token-claims: has no `aud`"),
        (with("sub", 7), "token-claims: `sub` is not text"),
        (with("sub", ""), "token-claims: `sub` is empty"),
        (without("sub"), "accepted"),
        (with("scope", 7), "token-claims: claim `scope` is neither text nor a list of texts"),
        (with("roles", json!([["a"]])), "token-claims: claim `roles` is neither text nor a list of texts"),
    ] {
        assert_eq!(verdict(&jwt, &signer.token(&claims)), expected, "{claims}");
    }
    let two = format!(r#"{{"sub":"admin",{}"#, &claims().to_string()[1..]);
    assert_eq!(verdict(&jwt, &signer.token_with(r#"{"alg":"HS256"}"#, &two)), "token-malformed: payload names a member twice");
    assert_eq!(verdict(&jwt, &signer.token_with(r#"{"alg":"HS256"}"#, "[]")), "token-malformed: payload is not a JSON object");
    assert_eq!(verdict(&jwt, &signer.token_with(r#"{"alg":"HS256"}"#, "eyJ")), "token-malformed: payload is not JSON");
}

#[test]
fn claims_are_not_read_before_the_signature_is_right() {
    let jwt = compile(&jwt_settings(&Signer::new(JwtAlgorithm::HS256))).unwrap();
    let forged = Signer::with_secret(JwtAlgorithm::HS256, b"another");
    for claims in [with("exp", NOW - 3), with("iss", "x"), json!({})] {
        assert_eq!(verdict(&jwt, &forged.token(&claims)), "token-signature: the signature is not that of the key");
    }
}

#[test]
fn leeway_and_lifetime_come_from_the_configuration() {
    let signer = Signer::new(JwtAlgorithm::HS256);
    let mut settings = jwt_settings(&signer);
    settings.leeway = Some(Period::seconds(30));
    settings.max_lifetime = Some(Period::seconds(3600));
    let jwt = compile(&settings).unwrap();
    let times = |iat: u64, exp: u64| signer.token(&json!({ "iss": "https://idp.example", "aud": "orders", "exp": exp, "iat": iat }));
    assert_eq!(verdict(&jwt, &times(NOW - 60, NOW - 29)), "accepted");
    assert_eq!(verdict(&jwt, &times(NOW - 60, NOW - 30)), "token-expired: expired 30 s ago, leeway 30 s");
    assert_eq!(verdict(&jwt, &times(NOW + 30, NOW + 60)), "accepted");
    assert_eq!(verdict(&jwt, &times(NOW, NOW + 7200)), "token-lifetime: lives 7200 s, at most 3600 s");
    assert_eq!(verdict(&jwt, &signer.token(&claims())), "token-claims: has no `iat`, which `max_lifetime` needs");
}

#[test]
fn garbage_is_refused_with_a_code() {
    let jwt = compile(&jwt_settings(&Signer::new(JwtAlgorithm::HS256))).unwrap();
    assert_eq!(verdict(&jwt, ""), "token-malformed: is empty");
    assert_eq!(verdict(&jwt, "x"), "token-malformed: has 1 segments, expected 3");
    assert_eq!(verdict(&jwt, "..."), "token-malformed: has 4 segments, expected 3");
    assert_eq!(verdict(&jwt, "a.b.c d"), "token-malformed: header is not base64url without padding");
    assert_eq!(verdict(&jwt, "\u{fc}.b.c"), "token-malformed: is not ASCII");
    assert_eq!(verdict(&jwt, &"a".repeat(100 * 1024)), "token-too-large: 102400 bytes, at most 16384");
    assert_eq!(verdict(&jwt, &".".repeat(16 * 1024)), "token-malformed: has 6 segments, expected 3");
}

#[test]
fn every_refusal_has_the_challenge_of_rfc_6750() {
    let jwt = compile(&jwt_settings(&Signer::new(JwtAlgorithm::HS256))).unwrap();
    let problem = refusal(jwt.identify(b"x", 0).map(drop));
    assert_eq!(problem.headers.len(), 1);
    assert_eq!(problem.headers[0].0, http::header::WWW_AUTHENTICATE);
    assert_eq!(problem.headers[0].1, "Bearer error=\"invalid_token\", error_description=\"The token is malformed.\"");
    assert_eq!(problem.detail.unwrap(), "The token is malformed.");
    let mut codes: Vec<_> = kinds::KINDS.iter().map(|kind| kind.code).collect();
    codes.sort_unstable();
    codes.dedup();
    assert_eq!(codes.len(), kinds::KINDS.len());
}

#[test]
fn scopes_roles_and_headers_come_from_claims() {
    let signer = Signer::new(JwtAlgorithm::HS256);
    let identity =
        |settings: &JwtSettings, claims: &Value| compile(settings).unwrap().identify(signer.token(claims).as_bytes(), NOW * 1000);
    let plain = jwt_settings(&signer);
    assert_eq!(*identity(&plain, &with("scope", "a b")).unwrap().scopes, ["a", "b"]);
    assert_eq!(*identity(&plain, &with("scp", json!(["a", "b"]))).unwrap().scopes, ["a", "b"]);
    assert_eq!(identity(&plain, &with("roles", json!(["admin"]))).unwrap().roles, ["admin"]);
    let mut both = with("scope", "a");
    both["scp"] = "b".into();
    assert_eq!(*identity(&plain, &both).unwrap().scopes, ["a"]);

    let mut settings = jwt_settings(&signer);
    settings.scope_claim = Some(at_text("/realm/scopes"));
    settings.role_claim = Some(at_text("https://example.com/groups"));
    settings.forward = [("x-user-id".to_owned(), at_text("sub")), ("x-user-role".to_owned(), at_text("/realm/scopes"))].into();
    let mut nested = with("realm", json!({ "scopes": ["x", "y"] }));
    nested["https://example.com/groups"] = "g1 g2".into();
    nested["scope"] = "ignored".into();
    let found = identity(&settings, &nested).unwrap();
    assert_eq!((&found.scopes[..], found.roles.as_slice()), (&["x".to_owned(), "y".into()][..], &["g1".to_owned(), "g2".into()][..]));
    let headers: Vec<_> = found.headers.iter().map(|(name, value)| format!("{name}: {}", value.to_str().unwrap())).collect();
    assert_eq!(headers, ["x-user-id: u1", "x-user-role: x,y"]);

    let problem = refusal(identity(&settings, &with("sub", "u1\r\nx-admin: 1")).map(drop));
    assert_eq!(problem.kind.code, "token-claims");
    assert_eq!(problem.reason.unwrap(), "claim `sub` has control or invisible characters, and cannot become `x-user-id`");
}

// === memory ===

fn signatures_for(jwt: &Jwt, token: &str, now: u64) -> (bool, u64) {
    let before = jwt.memory().signatures();
    (jwt.identify(token.as_bytes(), now * 1000).is_ok(), jwt.memory().signatures() - before)
}

#[test]
fn a_remembered_token_costs_no_signature() {
    let signer = Signer::new(JwtAlgorithm::ES256);
    let jwt = compile(&jwt_settings(&signer)).unwrap();
    let token = signer.token(&claims());
    let first = jwt.identify(token.as_bytes(), NOW * 1000).unwrap();
    for _ in 0..3 {
        let again = jwt.identify(token.as_bytes(), NOW * 1000).unwrap();
        assert!(Arc::ptr_eq(&first, &again), "made once, then shared");
    }
    assert_eq!(jwt.memory().signatures(), 1);
    assert_eq!(uses(&jwt), (3, 1));
}

fn uses(jwt: &Jwt) -> (u64, u64) {
    let count = |counter: &std::sync::atomic::AtomicU64| counter.load(std::sync::atomic::Ordering::Relaxed);
    (count(&jwt.uses().hits), count(&jwt.uses().misses))
}

#[test]
fn what_the_memory_knew_is_counted_on_over_a_change_of_keys() {
    let (old, new) = (Signer::new(JwtAlgorithm::ES256), Signer::new(JwtAlgorithm::ES256));
    let first = compile(&jwt_settings(&old)).unwrap();
    first.identify(old.token(&claims()).as_bytes(), NOW * 1000).unwrap();
    let mut second = compile(&jwt_settings(&new)).unwrap();
    second.inherit(&first);
    second.identify(new.token(&claims()).as_bytes(), NOW * 1000).unwrap();
    assert_eq!((second.memory().signatures(), uses(&second)), (1, (0, 2)));
}

#[test]
fn a_token_that_was_refused_is_not_remembered() {
    let signer = Signer::new(JwtAlgorithm::ES256);
    let jwt = compile(&jwt_settings(&signer)).unwrap();
    for token in [signer.token(&with("aud", "x")), Signer::new(JwtAlgorithm::ES256).token(&claims())] {
        assert_eq!(signatures_for(&jwt, &token, NOW), (false, 1));
        assert_eq!(signatures_for(&jwt, &token, NOW), (false, 1));
    }
    assert_eq!(jwt.memory().held().0, 0);
}

#[test]
fn a_remembered_token_expires_all_the_same() {
    let signer = Signer::new(JwtAlgorithm::ES256);
    let jwt = compile(&jwt_settings(&signer)).unwrap();
    let mut claims = with("exp", NOW + 60);
    claims["nbf"] = (NOW - 10).into();
    let token = signer.token(&claims);
    assert_eq!(signatures_for(&jwt, &token, NOW), (true, 1));
    assert_eq!(signatures_for(&jwt, &token, NOW + 59), (true, 0));
    assert_eq!(signatures_for(&jwt, &token, NOW + 60), (false, 0));
    assert_eq!(refusal(jwt.identify(token.as_bytes(), (NOW + 63) * 1000).map(drop)).reason.unwrap(), "expired 3 s ago, leeway 0 s");
    assert_eq!(signatures_for(&jwt, &token, NOW - 11), (false, 0), "the clock was set back");
    assert_eq!(signatures_for(&jwt, &token, NOW - 5), (true, 1), "the clock was set back, but not behind `nbf`");
}

#[test]
fn a_signature_is_checked_again_after_five_minutes() {
    let signer = Signer::new(JwtAlgorithm::ES256);
    let jwt = compile(&jwt_settings(&signer)).unwrap();
    let token = signer.token(&with("exp", NOW + 86_400));
    for (after, signatures) in [(0, 1), (299, 0), (300, 1), (599, 0), (600, 1)] {
        assert_eq!(signatures_for(&jwt, &token, NOW + after), (true, signatures), "after {after} s");
    }
}

#[test]
fn a_reload_keeps_remembered_tokens_only_where_nothing_changed() {
    let signer = Signer::new(JwtAlgorithm::ES256);
    let token = signer.token(&claims());
    let acme = |plan: usize| TokenOf {
        claim: crate::policy::claims::ClaimPath::parse("tenant").unwrap(),
        value: "acme".into(),
        consumer: Arc::new(Consumer { name: "acme".into(), plan: Some(("gold".into(), plan)), ..Consumer::default() }),
    };
    let compile = |settings: &JwtSettings, tokens_of: Vec<TokenOf>, memory| {
        Jwt::compile(&at_text("idp"), settings, Who { tokens_of, ..Who::default() }, memory).unwrap()
    };
    let old = compile(&jwt_settings(&signer), vec![acme(1)], MEMORY);
    assert_eq!(signatures_for(&old, &token, NOW), (true, 1));
    let signatures_after = |mut new: Jwt| {
        new.inherit(&old);
        signatures_for(&new, &token, NOW).1
    };
    assert_eq!(signatures_after(compile(&jwt_settings(&signer), vec![acme(1)], MEMORY)), 0);

    let changed = |change: fn(&mut JwtSettings)| {
        let mut settings = jwt_settings(&signer);
        change(&mut settings);
        compile(&settings, vec![acme(1)], MEMORY)
    };
    assert_eq!(signatures_after(compile(&jwt_settings(&signer), vec![acme(2)], MEMORY)), 1, "the plan's limit moved");
    assert_eq!(signatures_after(compile(&jwt_settings(&signer), vec![], MEMORY)), 1);
    assert_eq!(signatures_after(compile(&jwt_settings(&signer), vec![acme(1)], MEMORY * 2)), 1);
    assert_eq!(signatures_after(changed(|s| s.audiences.value.push("x".into()))), 1);
    assert_eq!(signatures_after(changed(|s| s.leeway = Some(Period::seconds(1)))), 1);
    assert_eq!(signatures_after(changed(|s| s.max_lifetime = Some(Period::seconds(1)))), 1);
    assert_eq!(signatures_after(changed(|s| s.scope_claim = Some(at_text("scp")))), 1);
    assert_eq!(signatures_after(changed(|s| s.role_claim = Some(at_text("groups")))), 1);
    assert_eq!(signatures_after(changed(|s| drop(s.forward.insert("x-user-id".into(), at_text("sub"))))), 1);
    let other = compile(&jwt_settings(&Signer::new(JwtAlgorithm::ES256)), vec![acme(1)], MEMORY);
    assert_ne!(other.fingerprint(), old.fingerprint());
}

#[test]
fn a_secret_that_changed_forgets_tokens() {
    let signer = Signer::new(JwtAlgorithm::HS256);
    let old = compile(&jwt_settings(&signer)).unwrap();
    let mut settings = jwt_settings(&signer);
    settings.keys.value.secret = Some(at(Secret::new(SECRET.replace('0', "1"))));
    let mut new = compile(&settings).unwrap();
    let token = signer.token(&claims());
    assert_eq!(signatures_for(&old, &token, NOW), (true, 1));
    new.inherit(&old);
    assert_eq!(signatures_for(&new, &token, NOW), (false, 1));
}

// === settings ===

#[test]
fn every_mistake_in_the_settings_is_told() {
    let signer = Signer::new(JwtAlgorithm::HS256);
    let mut settings = jwt_settings(&signer);
    settings.issuer = at_text("");
    settings.audiences = at(vec![String::new()]);
    settings.algorithms = at(vec![at(JwtAlgorithm::HS256), at(JwtAlgorithm::HS256)]);
    settings.leeway = Some(Period::seconds(601));
    settings.max_lifetime = Some(Period::seconds(0));
    settings.keys = at(JwtKeysSettings { file: None, inline: None, secret: Some(at(Secret::new("short"))), ..JwtKeysSettings::default() });
    settings.forward = [("host".to_owned(), at_text("sub"))].into();
    assert_eq!(
        codes(compile(&settings)),
        ["jwt-empty", "jwt-empty", "jwt-duplicate", "jwt-leeway", "jwt-lifetime", "jwt-secret-short", "reserved-header"]
    );
    let mut settings = jwt_settings(&signer);
    settings.algorithms = at(vec![]);
    settings.scope_claim = Some(at_text("/~"));
    settings.role_claim = Some(at_text(""));
    assert_eq!(codes(compile(&settings)), ["jwt-empty", "bad-claim", "bad-claim"]);
    settings.algorithms = at(vec![at(JwtAlgorithm::HS256)]);
    settings.leeway = Some(Period::seconds(600));
    settings.scope_claim = None;
    settings.role_claim = None;
    assert!(compile(&settings).is_ok());
}

#[test]
fn nothing_printed_for_debugging_holds_a_key() {
    let jwt = compile(&jwt_settings(&Signer::new(JwtAlgorithm::HS256))).unwrap();
    assert!(!format!("{jwt:?}").contains(SECRET));
}
