//! Whatever says who calls and how much has a shadow and is explained: each is enforced, then shadowed, then asked of `explain`.

use serde_json::{Value, json};

use super::harness::redis::Redis;
use super::harness::*;
use super::store_lists::token;

/// One sort of refusal. Its route takes it for real, its route with `-shadow` does not.
struct Row {
    name: &'static str,
    /// Policies of the route.
    policies: &'static str,
    shadow: &'static str,
    /// The claims of the token that is brought, in JSON; none where there is no token.
    claims: &'static str,
    /// How many pass before one is refused; where it is shared, at least so many.
    pass: usize,
    status: u16,
    code: &'static str,
    /// What `explain` says, where that differs: it asks nobody.
    explained: Option<&'static str>,
    /// In what it tells, as JSON.
    told: &'static str,
}

const PUBLIC: &str = "auth: public, limits";

const ROWS: &[Row] = &[
    limit("quota", "quota-exceeded", r#""limit":"quota""#),
    limit("fixed", "rate-limited", r#""limit":"fixed""#),
    limit("sliding", "rate-limited", r#""limit":"sliding""#),
    limit("throttle", "rate-limited", r#""limit":"throttle""#),
    Row { pass: 1, ..limit("shared", "rate-limited", r#""shared":"shared: a gateway admits its part of what is left"#) },
    token_row(
        "acme",
        "auth: [idp], limits: [acme]",
        "limits",
        r#"{"sub":"a","client":"acme-app"}"#,
        1,
        429,
        "rate-limited",
        r#""consumer":"acme""#,
    ),
    token_row("plan", "auth: [idp]", "limits", r#"{"sub":"{route}","tier":"pro"}"#, 1, 429, "quota-exceeded", r#""plan":"pro""#),
    token_row(
        "agents",
        "auth: [idp], limits: [agents]",
        "limits",
        r#"{"sub":"c","kind":"agent"}"#,
        1,
        429,
        "rate-limited",
        r#""kind":"agent""#,
    ),
    token_row(
        "tags",
        "auth: [idp], allow: { tags: { kind: [agent] } }",
        "allow",
        r#"{"sub":"d"}"#,
        0,
        403,
        "tag-mismatch",
        r#""kind":"human""#,
    ),
    token_row("revoked", "auth: [idp]", "auth", r#"{"sub":"eve"}"#, 0, 401, "credential-revoked", r#","entries":1}"#),
    Row {
        explained: Some("introspection-unavailable"),
        ..token_row("opaque", "auth: [opaque]", "auth", r#"{"sub":"f"}"#, 0, 401, "token-inactive", r#""issuer":"asked about at http://"#)
    },
];

/// A limit by a header, of one in a time that no test lasts.
const fn limit(name: &'static str, code: &'static str, told: &'static str) -> Row {
    Row { name, policies: PUBLIC, shadow: "limits", claims: "", pass: 1, status: 429, code, explained: None, told }
}

#[expect(clippy::too_many_arguments, reason = "a row of a table")]
const fn token_row(
    name: &'static str,
    policies: &'static str,
    shadow: &'static str,
    claims: &'static str,
    pass: usize,
    status: u16,
    code: &'static str,
    told: &'static str,
) -> Row {
    Row { name, policies, shadow, claims, pass, status, code, explained: None, told }
}

fn configuration(store: &Redis, issuer: &Upstream) -> Config {
    let route = |name: &str, policies: &str, shadow: &str| {
        format!("  {name}: {{ match: {{ path: /{name} }}, {policies}{shadow}, respond: {{ status: 204 }} }}\n")
    };
    let routes: String = ROWS
        .iter()
        .flat_map(|row| {
            let policies = if row.policies == PUBLIC { format!("{PUBLIC}: [{}]", row.name) } else { row.policies.to_owned() };
            [route(row.name, &policies, ""), route(&format!("{}-shadow", row.name), &policies, &format!(", shadow: [{}]", row.shadow))]
        })
        .collect();
    Gateway::config(&format!(
        r#"
server: {{ threads: 1, settle: 0s, limits_store: {{ redis: "{store}" }} }}
listeners: {{ public: {{ address: "127.0.0.1:{{port}}" }} }}
admin: {{ address: "127.0.0.1:{{admin}}" }}
authenticators:
  idp:
    jwt:
      issuer: i
      audiences: [a]
      algorithms: [HS256]
      keys: {{ secret: 0123456789abcdef0123456789abcdef }}
      plan: {{ claim: tier, default: free }}
      tags: {{ kind: {{ claim: kind, values: [agent], default: human }} }}
  opaque: {{ introspection: {{ url: "http://{issuer}/introspect", client_id: g, client_secret: s }} }}
consumers: {{ acme: {{ identities: [{{ authenticator: idp, claim: client, is: acme-app }}], plan: free }} }}
revocation: {{ file: revoked.jsonl }}
plans: {{ free: {{ rate: 1000/s }}, pro: {{ quota: 1/month }} }}
limits:
  quota: {{ quota: 1/month, by: ["header:x-caller", client_ip], per: route }}
  fixed: {{ rate: 1/24h, window: fixed, by: ["header:x-caller", client_ip], per: route }}
  sliding: {{ rate: 1/24h, window: sliding, by: ["header:x-caller", client_ip], per: route }}
  throttle: {{ rate: 1/24h, throttle: {{ wait: 1s }}, by: ["header:x-caller", client_ip], per: route }}
  shared: {{ rate: 1/24h, shared: true, by: ["header:x-caller", client_ip], per: route }}
  acme: {{ rate: 1/24h, by: [consumer, subject], per: route }}
  agents: {{ rate: 1/24h, by: [subject], for: {{ kind: agent }}, per: route }}
  slow: {{ rate: 1/50s, burst: 1, throttle: {{ wait: 60s }}, by: ["header:x-caller", client_ip], per: route }}
routes:
{routes}  slow: {{ match: {{ path: /slow }}, auth: public, limits: [slow], respond: {{ status: 204 }} }}
  slow-shadow: {{ match: {{ path: /slow-shadow }}, auth: public, limits: [slow], shadow: [limits], respond: {{ status: 204 }} }}
"#,
        store = store.address(),
        issuer = issuer.address(),
    ))
    .file("revoked.jsonl", r#"{"sub": "eve", "before": "2099-01-01T00:00:00Z"}"#)
}

/// What a row's requests bring.
fn headers(row: &Row, route: &str) -> Vec<(String, String)> {
    let caller = ("x-caller".to_owned(), route.to_owned());
    if row.claims.is_empty() {
        return vec![caller];
    }
    let claims: Value = serde_json::from_str(&row.claims.replace("{route}", route)).expect("the table has JSON");
    vec![caller, ("authorization".to_owned(), format!("Bearer {}", token(claims)))]
}

/// Explains requests one after the other, as a file of lines.
fn explain(gateway: &Gateway, asked: &[Value]) -> Vec<Value> {
    let lines: String = asked.iter().map(|line| format!("{line}\n")).collect();
    std::fs::write(gateway.dir().join("asked.jsonl"), lines).expect("the file can be written");
    let output = gateway.sluice(&["explain", "sluice.yaml", "--json", "--requests", "asked.jsonl"]);
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).expect("JSON is UTF-8").lines().map(|line| serde_json::from_str(line).expect("it is JSON")).collect()
}

#[test]
fn who_calls_and_how_much_is_enforced_shadowed_and_explained_alike() {
    let store = Redis::start(&[]);
    let issuer = Upstream::script(|_| [vec![Step::ReadBody], Answer::ok(r#"{"active":false}"#).steps()].concat());
    let gateway = configuration(&store, &issuer).start();
    super::store::waits_for(&gateway, "sluice_limit_store_up", 1.0);
    for row in ROWS {
        let ask = |route: &str| {
            let headers = headers(row, route);
            let headers: Vec<_> = headers.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect();
            let answer = gateway.get(&format!("/{route}"), &headers);
            if answer.status == 204 { (204, String::new()) } else { (answer.status, answer.code()) }
        };
        // Enforced.
        let mut passed = 0;
        let refused = eventually(&format!("{} refuses", row.name), || {
            let said = ask(row.name);
            passed += usize::from(said.0 == 204);
            (said.0 != 204).then_some(said)
        });
        assert_eq!(refused, (row.status, row.code.to_owned()), "{}", row.name);
        assert!(passed == row.pass || (row.name == "shared" && passed >= row.pass), "{}: {passed} passed", row.name);
        // Shadowed: told, and nobody notices.
        let route = format!("{}-shadow", row.name);
        let would = format!("sluice_would_refuse_total{{route=\"{route}\",code=\"{}\"}}", row.code);
        eventually(&format!("{route} would refuse"), || {
            assert_eq!(ask(&route), (204, String::new()), "{route}");
            gateway.metrics().contains(&would).then_some(())
        });
        let line = gateway.log_line_where(|line| line["route"] == route.as_str() && line["would_refuse"] == json!([row.code]));
        assert_eq!(line["status"], 204, "{line}");
        // Explained, both, each as the last of so many.
        let explained = row.explained.unwrap_or(row.code);
        for route in [row.name, &route] {
            let headers: Value = headers(row, route).into_iter().collect::<std::collections::BTreeMap<_, _>>().into_iter().collect();
            let asked = json!({ "url": format!("http://h/{route}"), "headers": headers });
            let told = explain(&gateway, &vec![asked; row.pass + 1]).pop().expect("each is told");
            match route == row.name {
                true => assert_eq!(told["code"], explained, "{told}"),
                false => assert_eq!((&told["would_refuse"], &told["allowed"]), (&json!([explained]), &json!(true)), "{told}"),
            }
            assert!(told.to_string().contains(row.told) || told["limits"].to_string().contains(row.told), "{}: {told}", row.told);
        }
    }
    // A delay is one only where it is not shadowed: nobody waits fifty seconds here.
    for _ in 0..3 {
        assert_eq!(gateway.get("/slow-shadow", &[("x-caller", "a")]).status, 204);
    }
    let twice = |route: &str| vec![json!({ "url": format!("http://h/{route}"), "headers": { "x-caller": "a" } }); 2];
    let told = explain(&gateway, &twice("slow")).pop().expect("both are told");
    let wait = told["limits"][0]["wait_ms"].as_u64().expect("it says how long");
    assert!(told["allowed"] == true && (1..=50_000).contains(&wait), "{told}");
    let told = explain(&gateway, &twice("slow-shadow")).pop().expect("both are told");
    assert_eq!((&told["allowed"], &told["would_refuse"]), (&json!(true), &json!([])), "{told}");
}

#[test]
fn places_are_enforced_shadowed_and_explained_alike() {
    let gate = Gate::new();
    let held = gate.clone();
    let upstream = Upstream::script(move |_| [vec![Step::WaitFor(held.clone())], Answer::ok("done").steps()].concat());
    let gateway = Gateway::config(
        r#"
server: { threads: 1, settle: 0s }
listeners: { public: { address: "127.0.0.1:{port}" } }
admin: { address: "127.0.0.1:{admin}" }
limits: { places: { concurrent: 1, by: [client_ip], per: route } }
upstreams: { u: { targets: ["{up}"] } }
routes:
  real: { match: { path: /real }, auth: public, limits: [places], upstream: u }
  shadowed: { match: { path: /shadowed }, auth: public, limits: [places], shadow: [limits], upstream: u }
"#,
    )
    .var("up", upstream.address())
    .start();
    let send = |path: &str| {
        let mut client = gateway.client();
        client.send(format!("GET {path} HTTP/1.1\r\nHost: h\r\n\r\n"));
        client
    };
    let mut first = send("/real");
    eventually("it is there", || (upstream.connections() == 1).then_some(()));
    let refused = gateway.get("/real", &[]);
    assert_eq!((refused.status, refused.code().as_str()), (429, "concurrency-limited"));
    let (mut one, mut two) = (send("/shadowed"), send("/shadowed"));
    eventually("both are there", || (upstream.connections() == 3).then_some(()));
    gate.open();
    assert_eq!([first.read().status, one.read().status, two.read().status], [200, 200, 200]);
    assert_eq!(gateway.metric("sluice_would_refuse_total{route=\"shadowed\",code=\"concurrency-limited\"}"), 1.0);
    gateway.log_line_where(|line| line["route"] == "shadowed" && line["would_refuse"] == json!(["concurrency-limited"]));
    for route in ["real", "shadowed"] {
        let told = explain(&gateway, &[json!({ "url": format!("http://h/{route}") })]).pop().expect("it is told");
        assert_eq!((&told["limits"][0]["limit"], &told["limits"][0]["remaining"]), (&json!("places"), &json!(0)), "{told}");
    }
}

#[test]
fn standards_hold_for_what_is_explained_and_a_shadow_is_no_way_around_them() {
    let text = "standards: { auth_required: [ /api/** ] }\nlisteners: { l: { address: \"127.0.0.1:{port}\" } }\n\
                authenticators: { keys: { api_key: { header: x-api-key } } }\nconsumers: { c: { keys: [{ sha256: \"9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08\" }] } }\n\
                routes: { r: { match: { path: /api/a }, auth: [keys], respond: { status: 204 } } }\n";
    let mut gateway = Gateway::start(text);
    let shadowed = text.replace("auth: [keys],", "auth: [keys], shadow: [auth],");
    gateway.rewrite(&shadowed);
    for order in [&["check", "sluice.yaml"][..], &["explain", "sluice.yaml", "http://h/api/a"], &["reload", "sluice.yaml"]] {
        let output = gateway.sluice(order);
        let said = String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned();
        assert!(!output.status.success() && said.contains("`r` shadows `auth`, and may take paths of `/api/**`"), "{order:?}: {said}");
    }
    assert_eq!(gateway.get("/api/a", &[]).code(), "credentials-missing", "what runs goes on");
}
