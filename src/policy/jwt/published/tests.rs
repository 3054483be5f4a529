//! A set against time, trouble and change; without a provider.

use serde_json::json;

use super::*;
use crate::policy::fixtures::{NOW, at, at_text, codes, refusal};
use crate::policy::jwt::fixtures::{Signer, jwks, rsa_jwk};
use crate::policy::jwt::{Jwt, JwtAlgorithm, JwtKeysSettings, JwtSettings};

const MINUTE: Duration = Duration::from_secs(60);

fn settings(keys: JwtKeysSettings) -> JwtSettings {
    JwtSettings { keys: at(keys), ..crate::policy::jwt::fixtures::jwt_settings(&Signer::new(JwtAlgorithm::ES256)) }
}

fn url() -> JwtKeysSettings {
    JwtKeysSettings { url: Some(at_text("https://idp.example/keys")), ..JwtKeysSettings::default() }
}

fn compile(settings: &JwtSettings) -> Result<Jwt, Vec<crate::config::diagnostic::Diagnostic>> {
    Jwt::compile(&at_text("idp"), settings, Default::default(), 1 << 20)
}

fn token(signer: &Signer, kid: &str) -> String {
    let claims = json!({ "iss": "https://idp.example", "aud": "orders", "exp": NOW + 86_400 * 365, "sub": "u1" });
    signer.token_with(&format!(r#"{{"alg":"ES256","kid":"{kid}"}}"#), &claims.to_string())
}

fn verdict(jwt: &Jwt, token: &str, seconds: u64) -> &'static str {
    match jwt.identify(token.as_bytes(), (NOW + seconds) * 1000) {
        Ok(_) => "accepted",
        Err(stop) => refusal(Err(stop)).kind.code,
    }
}

fn take(jwt: &Jwt, keys: &[serde_json::Value], seconds: u64) -> Result<(), String> {
    jwt.published().unwrap().take(&jwks(keys), (NOW + seconds) * 1000, MINUTE)
}

#[test]
fn a_set_that_was_never_fetched_refuses_with_a_code_of_its_own() {
    let jwt = compile(&settings(url())).unwrap();
    let problem = refusal(jwt.identify(token(&Signer::new(JwtAlgorithm::ES256), "a").as_bytes(), NOW * 1000).map(drop));
    assert_eq!((problem.kind.code, problem.kind.status), ("keys-unavailable", 503));
    assert!(problem.headers.iter().any(|(name, _)| name == RETRY_AFTER));
}

#[test]
fn a_key_that_goes_takes_the_tokens_with_it_that_were_remembered() {
    let (old, new) = (Signer::new(JwtAlgorithm::ES256), Signer::new(JwtAlgorithm::ES256));
    let jwt = compile(&settings(url())).unwrap();
    let remembered = token(&old, "a");
    take(&jwt, &[old.jwk("a")], 0).unwrap();
    assert_eq!(verdict(&jwt, &remembered, 1), "accepted");
    // A key that comes changes nothing for what is remembered.
    take(&jwt, &[old.jwk("a"), new.jwk("b")], 2).unwrap();
    assert_eq!((verdict(&jwt, &remembered, 3), jwt.memory().signatures()), ("accepted", 1));
    take(&jwt, &[new.jwk("b")], 4).unwrap();
    assert_eq!(verdict(&jwt, &remembered, 5), "token-key-unknown");
    assert_eq!(verdict(&jwt, &token(&new, "b"), 5), "accepted");
    // The same name, another key.
    take(&jwt, &[old.jwk("b")], 6).unwrap();
    assert_eq!(verdict(&jwt, &token(&new, "b"), 7), "token-signature");
}

#[test]
fn what_is_of_no_use_changes_nothing() {
    let signer = Signer::new(JwtAlgorithm::ES256);
    let jwt = compile(&settings(url())).unwrap();
    take(&jwt, &[signer.jwk("a")], 0).unwrap();
    let oct = json!({ "kty": "oct", "k": "c2VjcmV0", "kid": "a" });
    for keys in [vec![], vec![oct.clone()], vec![rsa_jwk()], vec![signer.jwk("a"), signer.jwk("a")]] {
        assert!(take(&jwt, &keys, 1).is_err(), "{keys:?}");
    }
    let published = jwt.published().unwrap();
    for text in ["", "{}", "<html>", "null", &Signer::new(JwtAlgorithm::ES256).pem()] {
        assert!(published.take(text, NOW * 1000, MINUTE).is_err(), "{text}");
    }
    assert_eq!(verdict(&jwt, &token(&signer, "a"), 2), "accepted");
}

#[test]
fn unsound_keys_and_keys_for_something_else_are_passed_over_and_the_others_serve() {
    let signer = Signer::new(JwtAlgorithm::ES256);
    let with = |name: &str, value: serde_json::Value| {
        let mut key = Signer::new(JwtAlgorithm::ES256).jwk(name);
        key[name] = value;
        key
    };
    let weak = json!({ "kty": "RSA", "kid": "weak", "n": "AQAB".repeat(40), "e": "AQAB" });
    let odd = [
        json!({ "kty": "oct", "k": "c2VjcmV0", "kid": "oct" }),
        weak,
        with("use", json!("enc")),
        with("key_ops", json!(["sign"])),
        with("alg", json!("RS256")),
        with("alg", json!("ECDH-ES")),
        with("d", json!("AA")),
    ];
    let mut all = odd.to_vec();
    all.push(signer.jwk("good"));
    let jwt = compile(&settings(url())).unwrap();
    take(&jwt, &all, 0).unwrap();
    assert_eq!(jwt.published().unwrap().shown().keys, 1);
    assert_eq!(verdict(&jwt, &token(&signer, "good"), 1), "accepted");
    assert_eq!(verdict(&jwt, &token(&signer, "oct"), 1), "token-key-unknown");
}

#[test]
fn a_set_grows_old_only_where_a_maximum_age_is_written() {
    let signer = Signer::new(JwtAlgorithm::ES256);
    let (forever, two_hours) =
        (compile(&settings(url())).unwrap(), JwtKeysSettings { max_age: Some(at(crate::config::types::Period::seconds(7200))), ..url() });
    let two_hours = compile(&settings(two_hours)).unwrap();
    for jwt in [&forever, &two_hours] {
        take(jwt, &[signer.jwk("a")], 0).unwrap();
        assert_eq!(verdict(jwt, &token(&signer, "a"), 7200), "accepted");
    }
    assert_eq!(verdict(&forever, &token(&signer, "a"), 86_400 * 300), "accepted");
    // Also where the token is remembered.
    assert_eq!(verdict(&two_hours, &token(&signer, "a"), 7201), "keys-too-old");
    take(&two_hours, &[signer.jwk("a")], 7202).unwrap();
    assert_eq!(verdict(&two_hours, &token(&signer, "a"), 7203), "accepted");
}

#[test]
fn a_reload_keeps_the_set_and_a_changed_time_too() {
    let signer = Signer::new(JwtAlgorithm::ES256);
    let first = compile(&settings(url())).unwrap();
    take(&first, &[signer.jwk("a")], 0).unwrap();
    let reload = |keys: JwtKeysSettings| {
        let mut jwt = compile(&settings(keys)).unwrap();
        jwt.inherit(&first);
        (verdict(&jwt, &token(&signer, "a"), 1), Arc::ptr_eq(jwt.published().unwrap(), first.published().unwrap()))
    };
    assert_eq!(reload(url()), ("accepted", true));
    let older = JwtKeysSettings { max_age: Some(at(crate::config::types::Period::seconds(86_400))), ..url() };
    assert_eq!(reload(older), ("accepted", false));
    let other = JwtKeysSettings { url: Some(at_text("https://other.example/keys")), ..JwtKeysSettings::default() };
    assert_eq!(reload(other), ("keys-unavailable", false), "the keys of another provider are not its");
}

#[test]
fn what_was_kept_is_taken_over_unless_it_is_of_another_provider_or_older_or_from_the_future() {
    let signer = Signer::new(JwtAlgorithm::ES256);
    let earlier = compile(&settings(url())).unwrap();
    take(&earlier, &[signer.jwk("a")], 10).unwrap();
    let kept = || -> Kept {
        let text = serde_json::to_string(&earlier.published().unwrap().kept().unwrap()).unwrap();
        serde_json::from_str(&text).unwrap()
    };
    let restored = |kept: &Kept, at: u64| {
        let jwt = compile(&settings(url())).unwrap();
        jwt.published().unwrap().restore(kept, (NOW + at) * 1000);
        verdict(&jwt, &token(&signer, "a"), at)
    };
    assert_eq!(restored(&kept(), 20), "accepted");
    assert_eq!(restored(&kept(), 5), "keys-unavailable");
    assert_eq!(restored(&Kept { identity: "https://other.example/keys".to_owned(), ..kept() }, 20), "keys-unavailable");
    assert_eq!(restored(&Kept { keys: "{}".to_owned(), ..kept() }, 20), "keys-unavailable");
    let newer = compile(&settings(url())).unwrap();
    take(&newer, &[Signer::new(JwtAlgorithm::ES256).jwk("b")], 15).unwrap();
    newer.published().unwrap().restore(&kept(), (NOW + 20) * 1000);
    assert_eq!(verdict(&newer, &token(&signer, "a"), 20), "token-key-unknown");
}

#[tokio::test]
async fn where_nobody_fetches_nobody_waits() {
    let jwt = compile(&settings(url())).unwrap();
    assert_eq!(jwt.published().unwrap().wish_for("a", 1).await, Wished::HeldBack);
}

#[tokio::test]
async fn who_looked_for_a_key_just_before_it_came_looks_again() {
    let jwt = compile(&settings(url())).unwrap();
    let published = jwt.published().unwrap();
    published.is_kept.store(true, Relaxed);
    let jwk = |kid| Signer::new(JwtAlgorithm::ES256).jwk(kid);
    take(&jwt, &[jwk("a")], 0).unwrap();
    // Another has asked for it, and the answer has come.
    published.wishes.lock().ask_for("b");
    take(&jwt, &[jwk("a"), jwk("b")], 1).unwrap();
    assert_eq!(published.wish_for("b", 1_000_000_000).await, Wished::Answered);
    assert_eq!(published.wish_for("c", 1_000_000_000).await, Wished::HeldBack, "a pause after the last");
}

#[test]
fn urls_times_and_certificates_that_make_no_sense_are_mistakes() {
    use crate::config::types::Period;
    let seconds = |seconds| Some(at(Period::seconds(seconds)));
    let told = |keys: JwtKeysSettings| codes(compile(&settings(keys)));
    let of = |url: &str| JwtKeysSettings { url: Some(at_text(url)), ..JwtKeysSettings::default() };
    let discovery = |url: &str| JwtKeysSettings { discovery: Some(at_text(url)), ..JwtKeysSettings::default() };
    assert!(compile(&settings(of("http://127.0.0.1:8080/keys"))).is_ok());
    assert!(compile(&settings(discovery("https://a/.well-known/openid-configuration"))).is_ok());
    assert_eq!(told(of("http://idp.example/keys")), ["ask-plain"]);
    assert!(compile(&settings(JwtKeysSettings { plain_http: Some(at(true)), ..of("http://idp.example/keys") })).is_ok());
    assert_eq!(told(JwtKeysSettings { plain_http: Some(at(true)), ..url() }), ["inert"]);
    assert_eq!(told(of("idp.example/keys")), ["ask-url"]);
    assert_eq!(told(discovery("https://idp.example")), ["ask-url"]);
    assert_eq!(told(JwtKeysSettings { proxy: Some(at_text("https://p:1")), ..url() }), ["ask-url"]);
    assert_eq!(told(JwtKeysSettings { max_age: seconds(3600), ..url() }), ["out-of-range"]);
    let refresh = |soonest, latest| JwtKeysSettings { refresh: Some(at(RefreshSettings { soonest, latest })), ..url() };
    assert_eq!(told(refresh(seconds(0), None)), ["out-of-range"]);
    assert_eq!(told(refresh(seconds(60), seconds(30))), ["out-of-range"]);
    assert!(compile(&settings(refresh(None, seconds(30)))).is_ok());
    let mut secret = settings(url());
    secret.algorithms = at(vec![at(JwtAlgorithm::HS256)]);
    assert_eq!(codes(compile(&secret)), ["jwt-algorithm-mixed"]);
}

#[test]
fn the_next_fetch_is_somewhat_earlier_by_chance_and_never_later() {
    let jwt = compile(&settings(url())).unwrap();
    let signer = Signer::new(JwtAlgorithm::ES256);
    let mut all = std::collections::BTreeSet::new();
    for _ in 0..64 {
        take(&jwt, &[signer.jwk("a")], 0).unwrap();
        let after = jwt.published().unwrap().shown().next - NOW * 1000;
        assert!((48_000..=60_000).contains(&after), "{after} ms");
        all.insert(after);
    }
    assert!(all.len() > 8, "many gateways would ask at the same moment: {all:?}");
}
