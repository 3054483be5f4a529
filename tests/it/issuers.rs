//! Several identity providers on one route: two certified ones, and stand-ins that count who asks them.

use std::sync::Arc;

use serde_json::{Value, json};

use super::harness::oidc::{Oidc, kid};
use super::harness::*;
use super::keys::{Signer, now};

/// Status and code, or who was believed.
fn ask(gateway: &Gateway, path: &str, token: &str) -> String {
    let answer = gateway.get(path, &[("authorization", &format!("Bearer {token}"))]);
    if answer.status == 200 { answer.header("x-by").unwrap_or("nobody").to_owned() } else { format!("{} {}", answer.status, answer.code()) }
}

fn unknown_keys(gateway: &Gateway, authenticator: &str) -> f64 {
    gateway.metric(&format!("sluice_key_set_unknown_keys_total{{authenticator=\"{authenticator}\",result=\"asked\"}}"))
}

#[test]
fn two_certified_providers_are_believed_on_one_route_each_by_its_own_keys() {
    let (mut old, mut new) = (Oidc::start(), Oidc::start());
    // What the upstream was told comes back.
    let upstream = Upstream::script(|request| {
        let by = request.header("x-issuer").unwrap_or("nobody").to_owned();
        Answer::ok("").header("x-by", &by).steps()
    });
    let text = r#"
server: { threads: 1, settle: 0s }
listeners: { l: { address: "127.0.0.1:{port}" } }
admin: { address: "127.0.0.1:{admin}" }
authenticators:
  old:
    jwt: { issuer: "{old}", audiences: [orders], algorithms: [ES256], keys: { discovery: "{old}/.well-known/openid-configuration", ca: old.pem }, forward: { x-issuer: iss }, plan: { claim: tier, default: legacy } }
  new:
    jwt: { issuer: "{new}", audiences: [orders], algorithms: [ES256], keys: { discovery: "{new}/.well-known/openid-configuration", ca: new.pem }, forward: { x-issuer: iss }, plan: { claim: tier, default: free } }
  opaque: { introspection: { url: "{old}/token/introspection", client_id: gateway, client_secret: gateway-secret, issuer: "{old}", audiences: [orders], ca: old.pem, forward: { x-issuer: iss } } }
plans: { legacy: { rate: 1000/s }, free: { rate: 1000/s } }
consumers: { acme: { identities: [{ authenticator: old, claim: client_id, is: app }, { authenticator: new, claim: client_id, is: app }] } }
upstreams: { u: { targets: ["{up}"] } }
routes:
  orders: { match: { path: /orders }, auth: [old, new, opaque], allow: { scopes: ["orders:read"] }, upstream: u }
  moved: { match: { path: /moved }, auth: [new], upstream: u }
"#;
    let config = Gateway::config(text).var("old", old.issuer()).var("new", new.issuer()).var("up", upstream.address());
    let mut gateway = config.file("old.pem", old.ca()).file("new.pem", new.ca()).start();
    let (by_old, by_new, by_opaque) = (old.token("urn:jwt"), new.token("urn:jwt"), old.token("urn:opaque"));
    for _ in 0..2 {
        assert_eq!(ask(&gateway, "/orders", &by_old), old.issuer());
        assert_eq!(ask(&gateway, "/orders", &by_new), new.issuer());
        assert_eq!(ask(&gateway, "/orders", &by_opaque), old.issuer());
    }
    let line = |by: &str| gateway.log_line_where(|line| line["authenticator"] == by);
    assert_eq!((&line("old")["plan"], &line("old")["consumer"]), (&json!("legacy"), &json!("acme")));
    assert_eq!((&line("new")["plan"], &line("new")["consumer"]), (&json!("free"), &json!("acme")));
    assert_eq!((line("opaque").get("plan"), line("opaque").get("consumer")), (None, None));
    for (by, verified) in [("old", 1.0), ("new", 1.0)] {
        let of = |what: &str| gateway.metric(&format!("sluice_token_memory_{what}_total{{authenticator=\"{by}\"}}"));
        assert_eq!((of("misses"), of("hits")), (verified, 1.0), "{by}");
    }
    assert_eq!(gateway.metric("sluice_introspections_total{authenticator=\"opaque\",result=\"active\"}"), 1.0);

    // A rotation at one of them asks that one, and nobody else.
    new.order("rotate");
    let rotated = new.token("urn:jwt");
    assert_ne!(kid(&rotated), kid(&by_new));
    assert_eq!(ask(&gateway, "/orders", &rotated), new.issuer());
    assert_eq!((unknown_keys(&gateway, "old"), unknown_keys(&gateway, "new")), (0.0, 1.0));

    // So does an outage concern its own tokens alone.
    old.order("stop");
    assert_eq!(ask(&gateway, "/orders", &new.token("urn:jwt")), new.issuer());
    assert_eq!(ask(&gateway, "/orders", "unknown-opaque"), "503 introspection-unavailable");

    // The end of a migration: what is remembered of the new one stays, and the other two are believed no more.
    let misses = |gateway: &Gateway| gateway.metric("sluice_token_memory_misses_total{authenticator=\"new\"}");
    let before = misses(&gateway);
    reload(
        &mut gateway,
        &text.replace("auth: [old, new, opaque]", "auth: [new]").replace("/moved }, auth: [new]", "/moved }, auth: [old, opaque]"),
    );
    assert_eq!((ask(&gateway, "/orders", &rotated), misses(&gateway)), (new.issuer(), before));
    assert_eq!(ask(&gateway, "/orders", &by_opaque), "401 token-malformed");
    assert_eq!((ask(&gateway, "/moved", &by_old), ask(&gateway, "/moved", &by_opaque)), (old.issuer(), old.issuer()));
}

fn reload(gateway: &mut Gateway, text: &str) {
    gateway.rewrite(text);
    let said = gateway.sluice(&["reload", "sluice.yaml"]);
    assert!(said.status.success(), "{said:?}");
}

/// A provider that publishes the key of one signer, whatever it is asked.
fn provider(signer: &Signer) -> Upstream {
    let set: Arc<str> = signer.jwks().into();
    Upstream::script(move |_| Answer::ok(set.to_string()).header("cache-control", "max-age=3600").steps())
}

#[test]
fn an_invented_issuer_makes_no_provider_be_asked_and_an_invented_key_only_its_own() {
    let (a, b) = (Signer::generate("a"), Signer::generate("b"));
    let (one, two) = (provider(&a), provider(&b));
    let text = format!(
        r#"
server: {{ threads: 1, settle: 0s }}
listeners: {{ l: {{ address: "127.0.0.1:{{port}}" }} }}
admin: {{ address: "127.0.0.1:{{admin}}" }}
authenticators:
  one: {{ jwt: {{ issuer: "https://one.example", audiences: [orders], algorithms: [ES256], keys: {{ url: "http://{}/keys" }} }} }}
  two: {{ jwt: {{ issuer: "https://two.example", audiences: [orders], algorithms: [ES256], keys: {{ url: "http://{}/keys" }} }} }}
routes:
  orders: {{ match: {{ path: /orders }}, auth: [one, two], respond: {{ status: 200 }} }}
  shadowed: {{ match: {{ path: /shadowed }}, auth: [one, two], shadow: [auth], respond: {{ status: 200 }} }}
"#,
        one.address(),
        two.address()
    );
    let gateway = Gateway::start(&text);
    let token = |signer: &Signer, issuer: &str| signer.token(&json!({ "iss": issuer, "aud": "orders", "exp": now() + 600, "sub": "u1" }));
    assert_eq!((one.requests().len(), two.requests().len()), (1, 1));
    for n in 0..20 {
        let invented = Signer::generate(&format!("invented-{n}"));
        assert_eq!(ask(&gateway, "/orders", &token(&invented, &format!("https://evil-{n}.example"))), "401 token-issuer");
        assert_eq!(ask(&gateway, "/orders", &invented.token(&json!({ "aud": "orders", "exp": now() + 600 }))), "401 token-claims");
    }
    assert_eq!((one.requests().len(), two.requests().len()), (1, 1));
    let line = gateway.log_line_where(|line| line["code"] == "token-issuer");
    assert_eq!(line["reason"], "`iss` is `https://evil-0.example`, accepted are `https://one.example`, `https://two.example`");
    assert_eq!(line.get("authenticator"), None);

    // Who claims to be of the second makes the second be asked, once.
    for n in 0..20 {
        assert_eq!(
            ask(&gateway, "/orders", &token(&Signer::generate(&format!("unknown-{n}")), "https://two.example")),
            "401 token-key-unknown"
        );
    }
    assert_eq!(one.requests().len(), 1);
    assert!((2..=3).contains(&two.requests().len()), "{} requests", two.requests().len());
    let line = gateway.log_line_where(|line| line["code"] == "token-key-unknown");
    assert!(line["reason"].as_str().unwrap().starts_with("by `two`: no key has `kid` `unknown-"), "{line}");

    // The key of one opens nothing in the name of the other.
    assert_eq!(ask(&gateway, "/orders", &token(&a, "https://one.example")), "nobody");
    assert_eq!(ask(&gateway, "/orders", &token(&b, "https://one.example")), "401 token-key-unknown");

    // The shadow says what would have been.
    assert_eq!(ask(&gateway, "/shadowed", &token(&a, "https://evil.example")), "nobody");
    let line = gateway.log_line_where(|line| line["route"] == "shadowed");
    assert_eq!((&line["status"], &line["would_refuse"]), (&json!(200), &json!(["token-issuer"])));

    // Who asks what would be is told who decides.
    let explain = |args: &[&str]| {
        let output = gateway.sluice(&[&["explain", "sluice.yaml", "http://h/orders", "--json"], args].concat());
        serde_json::from_slice::<Value>(&output.stdout).unwrap_or_else(|_| panic!("{output:?}"))
    };
    let told = explain(&["--claims", r#"{"iss":"https://two.example","sub":"u1"}"#]);
    assert_eq!((&told["authenticator"], &told["allowed"]), (&json!("two"), &json!(true)), "{told}");
    let told = explain(&["-H", &format!("authorization: Bearer {}", token(&a, "https://evil.example"))]);
    let reason = "`iss` is `https://evil.example`, accepted are `https://one.example`, `https://two.example`";
    assert_eq!((&told["code"], &told["reason"]), (&json!("token-issuer"), &json!(reason)), "{told}");
}
