//! Consumers whose keys stand in a file, plans and tags by claims, and credentials that are revoked: over sockets, without reloads.

use serde_json::{Value, json};
use sluice::policy::api_key::hash_key;

use super::harness::*;
use super::keys::{hs256, now};

const SECRET: &str = "0123456789abcdef0123456789abcdef";
const OTHER: &str = "fedcba9876543210fedcba9876543210";

const CONFIG: &str = "server: { threads: 1, settle: 0s }
listeners: { l: { address: \"127.0.0.1:{port}\" } }
authenticators:
  keys: { api_key: { header: x-api-key, forward: { x-client: consumer } } }
  idp:
    jwt:
      issuer: i
      audiences: [a]
      algorithms: [HS256]
      keys: { secret: 0123456789abcdef0123456789abcdef }
      plan: { claim: tier, default: free }
      tags: { kind: { claim: kind, values: [agent], default: human } }
consumers: { fixed: { keys: [{ sha256: \"{fixed}\" }], tags: { version: v2 } } }
plans: { free: { rate: 2/h }, pro: { rate: 4/h } }
limits: { agents: { rate: 1/h, by: [subject, client_ip], for: { kind: agent } } }
upstreams: { one: { targets: [\"{one}\"] }, two: { targets: [\"{two}\"] } }
{more}
routes:
  partners: { match: { path: /p }, auth: [keys], upstream: { by: consumer.tags.version, v1: one, v2: two, default: one } }
  users: { match: { path: /u }, auth: [idp], limits: [agents], respond: { status: 204 } }
";

fn hex(key: &str) -> String {
    hash_key(key.as_bytes()).iter().map(|byte| format!("{byte:02x}")).collect()
}

fn line(consumer: &str, key: &str, more: &str) -> String {
    format!("{{\"consumer\":\"{consumer}\",\"keys\":[{{\"sha256\":\"{}\"}}]{more}}}\n", hex(key))
}

struct Upstreams(Upstream, Upstream);

impl Upstreams {
    fn start() -> Upstreams {
        Upstreams(Upstream::answering(Answer::ok("one")), Upstream::answering(Answer::ok("two")))
    }

    fn config(&self, more: &str) -> Config {
        let text = CONFIG.replace("{more}", more).replace("{fixed}", &hex("fixed"));
        Gateway::config(&text).var("one", self.0.address()).var("two", self.1.address())
    }
}

/// The body or the code.
fn partner(gateway: &Gateway, key: &str) -> String {
    let answer = gateway.get("/p", &[("x-api-key", key)]);
    if answer.status == 200 { answer.text().to_owned() } else { answer.code() }
}

fn token(claims: &Value) -> String {
    let mut all = json!({ "iss": "i", "aud": "a", "exp": now() + 600 });
    all.as_object_mut().unwrap().extend(claims.as_object().unwrap().clone());
    format!("Bearer {}", hs256(SECRET, &all))
}

fn user(gateway: &Gateway, token: &str) -> String {
    let answer = gateway.get("/u", &[("authorization", token)]);
    if answer.status == 204 { "passed".to_owned() } else { answer.code() }
}

/// As an operator should: the new file takes the old one's place.
fn replace(gateway: &Gateway, name: &str, text: &str) {
    let (new, old) = (gateway.dir().join("new"), gateway.dir().join(name));
    std::fs::write(&new, text).unwrap();
    std::fs::rename(new, old).unwrap();
}

#[test]
fn keys_of_a_file_are_rotated_without_a_reload_and_a_bad_file_changes_nothing() {
    let upstreams = Upstreams::start();
    let (acme, beta) = (line("acme", "a1", r#","plan":"pro","tags":{"version":"v2"}"#), line("beta", "b1", ""));
    let config = upstreams.config("consumers_from: { file: consumers.jsonl }").file("consumers.jsonl", acme.clone() + &beta);
    let mut gateway = config.start();
    assert_eq!((partner(&gateway, "a1"), partner(&gateway, "b1"), partner(&gateway, "fixed")), ("two".into(), "one".into(), "two".into()));
    assert_eq!(upstreams.1.requests()[0].header("x-client"), Some("acme"));
    let entry = gateway.log_line_where(|line| line["consumer"] == "acme");
    assert_eq!((&entry["plan"], &entry["tags"]), (&json!("pro"), &json!({ "version": "v2" })));

    let both = format!(
        "{{\"consumer\":\"acme\",\"keys\":[{{\"sha256\":\"{}\"}},{{\"sha256\":\"{}\",\"expires\":\"2020-01-01\"}}]}}\n",
        hex("a2"),
        hex("a1")
    );
    replace(&gateway, "consumers.jsonl", &(both + &line("fixed", "fixed2", "")));
    eventually("the new keys", || (partner(&gateway, "a2") == "one").then_some(()));
    assert_eq!((partner(&gateway, "a1"), partner(&gateway, "b1")), ("key-expired".into(), "key-unknown".into()));
    // The configuration says what its own consumer has.
    assert_eq!((partner(&gateway, "fixed"), partner(&gateway, "fixed2")), ("two".into(), "two".into()));
    assert_eq!(gateway.metric("sluice_list_entries{list=\"consumers\"}"), 3.0);
    assert_eq!(gateway.metric("sluice_tagged_requests_total{tag=\"version\",value=\"v2\",result=\"passed\"}"), 4.0);

    for (bad, why) in [("{", "line 1: not a JSON object"), (&line("x", "fixed", ""), "is in the configuration already")] {
        let failed = gateway.metric("sluice_list_reads_total{list=\"consumers\",result=\"failed\"}");
        replace(&gateway, "consumers.jsonl", bad);
        eventually("the failure", || {
            (gateway.metric("sluice_list_reads_total{list=\"consumers\",result=\"failed\"}") > failed).then_some(())
        });
        eventually(why, || gateway.status()["lists"]["consumers"]["last_result"].as_str()?.contains(why).then_some(()));
        assert_eq!(partner(&gateway, "a2"), "one");
    }
    // A reload with it is refused, and one with a good file takes it.
    assert!(!gateway.sluice(&["reload", "sluice.yaml"]).status.success());
    replace(&gateway, "consumers.jsonl", &line("acme", "a3", ""));
    assert!(gateway.sluice(&["reload", "sluice.yaml"]).status.success(), "{}", gateway.stderr());
    assert_eq!((partner(&gateway, "a3"), partner(&gateway, "a2")), ("one".into(), "key-unknown".into()));
    assert!(gateway.is_running());
}

#[test]
fn a_start_without_the_file_is_refused() {
    let failure = Upstreams::start().config("revocation: { file: revoked.jsonl }").try_start().err().unwrap();
    assert!(failure.stderr.contains("error[list-file]: `revoked.jsonl` cannot be read: there is no such file"), "{}", failure.stderr);
}

#[test]
fn a_revocation_does_not_keep_a_gateway_from_starting_whose_tests_are_of_somebody_revoked() {
    let text = r#"
listeners: { l: { address: "127.0.0.1:{port}" } }
authenticators: { idp: { jwt: { issuer: i, audiences: [a], algorithms: [HS256], keys: { secret: 0123456789abcdef0123456789abcdef } } } }
revocation: { file: revoked.jsonl }
routes: { r: { match: { path: /a }, auth: [idp], respond: { status: 204 } } }
tests:
  somebody may: { request: { url: http://h/a, claims: { sub: ada } }, expect: { status: 204 } }
  who is revoked may not: { request: { url: http://h/a, claims: { sub: ada } }, expect: { status: 401, code: credential-revoked } }
"#;
    let revoked = "{\"sub\":\"ada\",\"before\":\"2099-01-01T00:00:00Z\"}\n";
    // Was refused: a restart after somebody was revoked by hand would have been an outage.
    let gateway = Gateway::config(text).file("revoked.jsonl", revoked).start();
    let file = gateway.file();
    let told = gateway.sluice(&["explain", file.to_str().unwrap(), "http://h/a", "--claims", "{\"sub\":\"ada\"}"]).stdout;
    assert!(String::from_utf8(told).unwrap().contains("credential-revoked"), "explain asks the list as it is");
}

#[test]
fn a_revocation_holds_for_the_next_request_also_of_a_remembered_token() {
    let upstreams = Upstreams::start();
    let config = upstreams.config("revocation: { file: revoked.jsonl }").file("revoked.jsonl", "");
    let gateway = config.start();
    let ada = token(&json!({ "sub": "ada", "jti": "t1", "tier": "pro" }));
    let bob = token(&json!({ "sub": "bob", "iat": now() - 10, "tier": "pro" }));
    assert_eq!((user(&gateway, &ada), user(&gateway, &bob), partner(&gateway, "fixed")), ("passed".into(), "passed".into(), "two".into()));
    let hits = gateway.metric("sluice_token_memory_hits_total{authenticator=\"idp\"}");
    replace(&gateway, "revoked.jsonl", "{\"jti\":\"t1\",\"reason\":\"stolen\"}\n{\"consumer\":\"fixed\"}\n");
    eventually("the revocation", || (partner(&gateway, "fixed") == "credential-revoked").then_some(()));
    // Verified a moment ago, and not verified again.
    let refused = gateway.get("/u", &[("authorization", &ada)]);
    assert_eq!((refused.status, refused.code().as_str()), (401, "credential-revoked"));
    assert!(refused.header("www-authenticate").unwrap().starts_with("Bearer error=\"invalid_token\""));
    assert_eq!(user(&gateway, &bob), "passed");
    assert_eq!(gateway.metric("sluice_token_memory_hits_total{authenticator=\"idp\"}"), hits + 2.0, "both tokens are remembered");
    let line = gateway.log_line_where(|line| line["code"] == "credential-revoked" && line["route"] == "users");
    assert_eq!(line["reason"], "the token's `jti` is revoked: stolen");
    assert!(gateway.metric("sluice_refusals_total{policy=\"auth\",code=\"credential-revoked\"}") >= 2.0);

    // The same, by simulation.
    let explained = gateway.sluice(&["explain", "sluice.yaml", "http://a/u", "--claims", r#"{"sub":"ada","jti":"t1"}"#]);
    let text = String::from_utf8_lossy(&explained.stdout);
    assert!(
        text.contains("revoked.jsonl, as it is now: 2 entries")
            && text.contains("credential-revoked: the token's `jti` is revoked: stolen"),
        "{text}"
    );

    // A file that is gone or wrong takes nothing back.
    for bad in ["nonsense", "{\"sub\":\"bob\"}"] {
        let failed = gateway.metric("sluice_list_reads_total{list=\"revocation\",result=\"failed\"}");
        replace(&gateway, "revoked.jsonl", bad);
        eventually("the failure", || {
            (gateway.metric("sluice_list_reads_total{list=\"revocation\",result=\"failed\"}") > failed).then_some(())
        });
        assert_eq!(partner(&gateway, "fixed"), "credential-revoked");
    }
    replace(&gateway, "revoked.jsonl", "{\"sub\":\"bob\",\"before\":\"2999-01-01\"}\n");
    eventually("the other entries", || (user(&gateway, &bob) == "credential-revoked").then_some(()));
    assert_eq!(partner(&gateway, "fixed"), "two");
}

#[test]
fn the_user_of_a_token_has_the_plan_and_the_tags_of_its_claims() {
    let upstreams = Upstreams::start();
    let gateway = upstreams.config("").start();
    let told = |subject: &str, tier: &str, times: usize| -> Vec<String> {
        (0..times).map(|_| user(&gateway, &token(&json!({ "sub": subject, "tier": tier })))).collect()
    };
    assert_eq!(told("ada", "pro", 5), ["passed", "passed", "passed", "passed", "rate-limited"]);
    // What no plan is called is the default, and every user counts alone.
    assert_eq!(told("bob", "root", 3), ["passed", "passed", "rate-limited"]);
    assert_eq!(told("eve", "free", 1), ["passed"]);
    let agent = token(&json!({ "sub": "robot", "tier": "pro", "kind": "agent" }));
    assert_eq!((user(&gateway, &agent), user(&gateway, &agent)), ("passed".into(), "rate-limited".into()));
    let line = gateway.log_line_where(|line| line["subject"] == "robot" && line["status"] == 429);
    assert_eq!((&line["limit"], &line["tags"], &line["plan"]), (&json!("agents"), &json!({ "kind": "agent" }), &json!("pro")));
    let refused = |kind: &str| gateway.metric(&format!("sluice_tagged_requests_total{{tag=\"kind\",value=\"{kind}\",result=\"refused\"}}"));
    assert_eq!((refused("agent"), refused("human")), (1.0, 2.0));
}

#[test]
fn tokens_of_two_providers_and_a_key_are_one_consumer_with_one_plan() {
    let text = format!(
        "server: {{ threads: 1, settle: 0s }}
listeners: {{ l: {{ address: \"127.0.0.1:{{port}}\" }} }}
authenticators:
  keys: {{ api_key: {{ header: x-api-key }} }}
  first: {{ jwt: {{ issuer: one, audiences: [a], algorithms: [HS256], keys: {{ secret: {SECRET} }} }} }}
  second: {{ jwt: {{ issuer: two, audiences: [a], algorithms: [HS256], keys: {{ secret: {OTHER} }} }} }}
consumers:
  acme:
    keys: [{{ sha256: \"{}\" }}]
    identities: [{{ authenticator: first, claim: client_id, is: acme-app }}, {{ authenticator: second, claim: tenant, is: t-7 }}]
    plan: small
plans: {{ small: {{ rate: 3/h }} }}
routes:
  one: {{ match: {{ path: /one }}, auth: [keys, first], respond: {{ status: 204 }} }}
  two: {{ match: {{ path: /two }}, auth: [second], respond: {{ status: 204 }} }}
",
        hex("acme-key")
    );
    let gateway = Gateway::start(&text);
    let asks = |path: &str, field: &str, credential: &str| {
        let answer = gateway.get(path, &[(field, credential)]);
        if answer.status == 204 { "passed".to_owned() } else { answer.code() }
    };
    let with = |path: &str, secret: &str, issuer: &str, claim: &str, is: &str| {
        let token = hs256(secret, &json!({ "iss": issuer, "aud": "a", "exp": now() + 600, "sub": "s", claim: is }));
        asks(path, "authorization", &format!("Bearer {token}"))
    };
    assert_eq!(with("/one", SECRET, "one", "client_id", "acme-app"), "passed");
    assert_eq!(with("/two", OTHER, "two", "tenant", "t-7"), "passed");
    assert_eq!(asks("/one", "x-api-key", "acme-key"), "passed");
    // All three have used the one plan up; whom a provider does not call so has none.
    assert_eq!(with("/two", OTHER, "two", "tenant", "t-7"), "rate-limited");
    assert_eq!(with("/one", SECRET, "one", "client_id", "acme-app"), "rate-limited");
    assert_eq!(with("/two", OTHER, "two", "client_id", "acme-app"), "passed", "what the other provider would say is nothing here");
    let consumers = gateway.log_lines(6).iter().map(|line| line["consumer"].as_str().unwrap_or("nobody").to_owned()).collect::<Vec<_>>();
    assert_eq!(consumers, ["acme", "acme", "acme", "acme", "acme", "nobody"]);
}
