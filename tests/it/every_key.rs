//! No inert configuration: every key of the schema does something.
//!
//! For each there is a scenario that answers differently with and without it, through the simulator, or, where that has no socket to
//! show it on, a named test that fails when the key is left out. A key without either fails here, and so does an entry whose key is gone.

mod behaviour;
mod keys;
mod left_out;
mod policies;
mod proof;

use std::collections::BTreeSet;
use std::path::Path;

use serde_json::{Map, Value, json};
use sluice::config::compile;
use sluice::config::plan::Gateway;
use sluice::config::reference;
use sluice::config::render::render;
use sluice::ctx::Now;
use sluice::policy::authenticators::Method;
use sluice::simulate::{Asked, Said, Verdict, run_tests, simulate, tell};
use sluice::state::State;

use super::harness::left_out as key_left_out;
use super::harness::{Answer, Ca, Gateway as Running, Step, Upstream, eventually};
use crate::keys::{Signer, hs256};

use self::policies::POLICIES;
use self::proof::Proof;

/// A fixed moment: everything happens in it.
const NOW: Now = Now { mono: 1_000_000_000, unix_ms: 1_800_000_000_000 };

/// The keys of the schema that have no keys below them, as `routes.*.match.path`.
fn leaves() -> BTreeSet<String> {
    fn resolve<'a>(schema: &'a Value, definitions: &'a Value) -> &'a Value {
        schema["$ref"].as_str().and_then(|path| definitions.get(path.strip_prefix("#/$defs/")?)).unwrap_or(schema)
    }
    /// Whether there were keys.
    fn walk(schema: &Value, definitions: &Value, path: &str, found: &mut BTreeSet<String>) -> bool {
        let schema = resolve(schema, definitions);
        let mut any = false;
        for (key, below) in schema["properties"].as_object().into_iter().flatten() {
            any = true;
            let path = if path.is_empty() { key.clone() } else { format!("{path}.{key}") };
            if !walk(below, definitions, &path, found) {
                found.insert(path);
            }
        }
        if schema["additionalProperties"].is_object() {
            any |= walk(&schema["additionalProperties"], definitions, &format!("{path}.*"), found);
        }
        if schema["items"].is_object() {
            any |= walk(&schema["items"], definitions, &format!("{path}[]"), found);
        }
        for inner in ["anyOf", "oneOf", "allOf"].iter().filter_map(|of| schema[*of].as_array()).flatten() {
            any |= walk(inner, definitions, path, found);
        }
        any
    }
    let schema = reference::schema();
    let mut found = BTreeSet::new();
    walk(&schema, &schema["$defs"], "", &mut found);
    found
}

/// One side of a text in which `[[a||b]]` is `a` with the key and `b` without it.
fn side(text: &str, with: bool) -> String {
    let mut out = String::new();
    let mut rest = text;
    while let Some((before, after)) = rest.split_once("[[") {
        let (both, after) = after.split_once("]]").expect("`[[` has its `]]`");
        let (a, b) = both.split_once("||").expect("both sides are written");
        out.push_str(before);
        out.push_str(if with { a } else { b });
        rest = after;
    }
    out + rest
}

/// The configuration, with a listener and an upstream `u` where it has none.
fn load(text: &str) -> Result<Gateway, String> {
    let mut text = text.to_owned();
    if !text.lines().any(|line| line.starts_with("server:")) {
        text.push_str("\nserver: { limits_memory: 1MiB }\n");
    }
    if !text.lines().any(|line| line.starts_with("listeners:")) {
        text.push_str("\nlisteners: { l: { address: 127.0.0.1:1 } }\n");
    }
    if text.contains("upstream: u") && !text.lines().any(|line| line.starts_with("upstreams:")) {
        text.push_str("\nupstreams: { u: { targets: [127.0.0.1:2] } }\n");
    }
    let folder = tempfile::tempdir().expect("a folder can be made");
    std::fs::copy(Path::new(env!("CARGO_MANIFEST_DIR")).join("conf/keys/jwks.json"), folder.path().join("jwks.json")).expect("it is there");
    if text.contains("main.pem") {
        let (ours, clients) = (Ca::new("Test"), Ca::new("Clients"));
        let main = ours.server(&["h"]);
        for (name, text) in [("main.pem", &main.chain), ("main.key", &main.key), ("clients.pem", &clients.pem)] {
            std::fs::write(folder.path().join(name), text).expect("a file can be written");
        }
    }
    let (text, _) = key_left_out::from(text.replace("{other}", OTHER_KEYS));
    let file = folder.path().join("sluice.yaml");
    std::fs::write(&file, &text).expect("a file can be written");
    compile::load(&file, &|_| None, &State::default(), None).map_err(|mistakes| format!("{}\n{text}", render(&mistakes, false)))
}

/// A key that signed nothing here (RFC 7517 appendix A.1).
const OTHER_KEYS: &str = r#"{"keys":[{"kty":"EC","crv":"P-256","kid":"example-ec","x":"MKBCTNIcKUSDii11ySs3526iDZ8AiTo7Tu6KPAqv7D4","y":"4Etl6SRW2YiLUrN5vfvVHuhp7x8PxltmWWlbbM4IFyM"}]}"#;
const SECRET: &str = "0123456789abcdef0123456789abcdef";

/// Puts in the tokens and keys that scenarios name.
fn fill(text: &str) -> String {
    let seconds = NOW.unix_ms / 1000;
    let claims = |exp: u64| {
        let realm = json!({ "s": "deep", "r": ["deep"] });
        json!({ "iss": "i", "aud": "a", "sub": "ada", "scope": "x", "realm": realm, "iat": seconds - 10, "exp": exp })
    };
    let mut text = text.to_owned();
    for (name, value) in [
        ("{good}", hs256(SECRET, &claims(seconds + 3600))),
        ("{late}", hs256(SECRET, &claims(seconds - 5))),
        ("{long}", hs256(&SECRET.repeat(2), &claims(seconds + 3600))),
        ("{es}", Signer::example().token(&claims(seconds + 3600))),
        ("{te}", format!("te{}", "x".repeat(38))),
        ("{1500}", "x".repeat(1500)),
    ] {
        text = text.replace(name, &value);
    }
    text
}

/// A request in short: `GET http://h/p | name: value | from=1.2.3.4 | listener=l | consumer=c | claims={..} | certificate={..}`, or a whole head.
fn asked(short: &str) -> Asked {
    let short = &fill(short);
    if short.contains("\r\n") {
        return Asked::of(Said::Head { scheme: sluice::ctx::Scheme::Http, bytes: short.as_bytes().to_vec() });
    }
    let mut parts = short.split(" | ");
    let (method, url) = parts.next().and_then(|first| first.split_once(' ')).expect("a method and a URL");
    let (mut headers, mut line) = (Vec::new(), Map::new());
    for part in parts {
        match part.split_once('=').filter(|(name, _)| ["from", "listener", "consumer", "claims", "certificate"].contains(name)) {
            Some((name @ ("claims" | "certificate"), claims)) => {
                line.insert(name.to_owned(), serde_json::from_str(claims).expect("claims are JSON"));
            }
            Some((name, value)) => drop(line.insert(name.to_owned(), value.into())),
            None => headers.push(part.split_once(": ").expect("a header has a name and a value")),
        }
    }
    line.insert("method".to_owned(), method.into());
    line.insert("url".to_owned(), url.into());
    line.insert("headers".to_owned(), json!(headers));
    Asked::from_json(&Value::Object(line).to_string()).expect("it describes a request")
}

/// All that a client, an upstream or the access log could see of these requests, one after the other; or what its own tests say.
fn observe(text: &str, ask: &[&str]) -> Result<String, String> {
    let gateway = load(text)?;
    if ask.is_empty() {
        assert!(!gateway.tests.is_empty(), "there is nothing to ask and no test");
        return Ok(format!("{:#?}", run_tests(&gateway)));
    }
    let mut all = String::new();
    for short in ask {
        let outcome = simulate(&gateway, &gateway.buckets, &asked(short), NOW, false).expect("it describes a request");
        let mut told = tell(&gateway, &outcome);
        for explained in ["request", "lost", "policies", "reason", "allowed"] {
            told.as_object_mut().expect("an object").remove(explained);
        }
        // They differ from run to run.
        let anew = |pair: &Value| matches!(pair[0].as_str(), Some("x-request-id" | "traceparent"));
        for place in ["/answer_headers", "/headers/added", "/answer/added"] {
            if let Some(Value::Array(headers)) = told.pointer_mut(place) {
                headers.retain(|pair| !anew(pair));
            }
        }
        if let Verdict::Answered { body, .. } = &outcome.verdict {
            let body = String::from_utf8_lossy(body).replace(outcome.facts.request_id.as_str(), "");
            told["body"] = body.into();
        }
        all.push_str(&format!("{told:#}\n"));
    }
    Ok(all)
}

/// Compares the two sides, and each with itself: what differs by chance proves nothing.
fn differs(key: &str, text: &str, ask: &[&str]) -> Result<(), String> {
    let (with, without) = (side(text, true), side(text, false));
    assert_ne!(with, without, "{key}: both sides are the same text");
    let told = |text: &str| observe(text, ask).map_err(|why| format!("{key}: {why}"));
    let seen = told(&with)?;
    if seen != told(&with)? {
        return Err(format!("{key}: the same configuration answers differently"));
    }
    if seen == told(&without)? {
        return Err(format!("{key} makes no difference in\n{with}\n{seen}"));
    }
    Ok(())
}

/// The names of all tests below a folder.
fn tests_in(folder: &Path, found: &mut BTreeSet<String>) {
    for entry in std::fs::read_dir(folder).expect("a folder can be read") {
        let path = entry.expect("an entry can be read").path();
        if path.is_dir() {
            tests_in(&path, found);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            let text = std::fs::read_to_string(&path).expect("a source is text");
            let mut is_test = false;
            for line in text.lines().map(str::trim) {
                if line.starts_with("#[test]") || line.starts_with("#[tokio::test") {
                    is_test = true;
                } else if is_test && let Some((_, name)) = line.split_once("fn ") {
                    found.insert(name.split('(').next().unwrap_or_default().to_owned());
                    is_test = false;
                }
            }
        }
    }
}

#[test]
fn every_key_has_a_proof_and_every_proof_a_key() {
    let leaves = leaves();
    assert!(leaves.len() > 150, "{leaves:?}");
    let homes = ["routes.*", "bundles.*", "defaults"];
    let policies = POLICIES.iter().flat_map(|policy| homes.map(|home| format!("{home}.{}", policy.key)));
    let proved: Vec<String> = keys::rows().map(|(key, _)| (*key).to_owned()).chain(policies).collect();
    let unique: BTreeSet<String> = proved.iter().cloned().collect();
    assert_eq!(proved.len(), unique.len(), "a key has two entries");
    let missing: Vec<_> = leaves.difference(&unique).collect();
    let gone: Vec<_> = unique.difference(&leaves).collect();
    assert!(missing.is_empty(), "keys without a proof that they do something: {missing:#?}");
    assert!(gone.is_empty(), "proofs of keys that are no more: {gone:#?}");
}

#[test]
fn every_key_makes_a_difference() {
    let mut tests = BTreeSet::new();
    tests_in(&Path::new(env!("CARGO_MANIFEST_DIR")).join("tests"), &mut tests);
    let judged = keys::rows().map(|(key, proof)| match proof {
        Proof::Differs(text, ask) => differs(key, text, ask),
        Proof::Test(name) | Proof::TestInstead(name, _) | Proof::TestRefused(name, ..) => {
            tests.contains(*name).then_some(()).ok_or_else(|| format!("{key}: there is no test `{name}` below tests/"))
        }
    });
    let inert: Vec<String> = judged.filter_map(Result::err).collect();
    assert!(inert.is_empty(), "{}", inert.join("\n\n"));
}

#[test]
fn every_policy_makes_a_difference_in_a_route_in_a_bundle_and_in_the_defaults() {
    let mut inert = Vec::new();
    for policy in POLICIES {
        let (top, route, frag) = (policy.top, policy.route, policy.policy);
        let key = policy.key;
        let filler = if key.starts_with("response_headers") {
            "request_headers: { add: { x-filler: a } }"
        } else {
            "response_headers: { add: { x-filler: a } }"
        };
        let in_route = format!("{top}\nroutes: {{ r: {{ {route}, {frag} }} }}");
        // A bundle that says nothing is a mistake.
        let in_bundle = format!("{top}\nbundles: {{ b: {{ {filler}, {frag} }} }}\nroutes: {{ r: {{ {route}, use: [b] }} }}");
        let in_defaults = format!("{top}\ndefaults: {{ {filler}, {frag} }}\nroutes: {{ r: {{ {route} }} }}");
        for (home, text) in [("routes.*", in_route), ("bundles.*", in_bundle), ("defaults", in_defaults)] {
            inert.extend(differs(&format!("{home}.{key}"), &text, policy.ask).err());
        }
    }
    assert!(inert.is_empty(), "{}", inert.join("\n\n"));
}

#[test]
fn as_many_workers_run_as_are_configured() {
    let gateway = Running::start(
        "server: { threads: 3 }
listeners: { l: { address: \"127.0.0.1:{port}\" } }
routes: { r: { match: { path: / }, auth: public, respond: { status: 200 } } }",
    );
    let tasks = std::fs::read_dir(format!("/proc/{}/task", gateway.pid())).expect("the process runs");
    let names = tasks.filter_map(|task| std::fs::read_to_string(task.ok()?.path().join("comm")).ok());
    assert_eq!(names.filter(|name| name.starts_with("worker-")).count(), 3);
}

#[test]
fn the_memory_of_tokens_is_as_large_as_configured() {
    let gateway = load(
        "server: { tokens_memory: 2MiB }
authenticators: { j: { jwt: { issuer: i, audiences: [a], algorithms: [ES256], keys: { file: jwks.json } } } }
routes: { r: { match: { path: / }, auth: [j], upstream: u } }",
    );
    let gateway = gateway.expect("it is sound");
    let memories = gateway.authenticators.iter().filter_map(|one| match &one.method {
        Method::Jwt(jwt) => Some(jwt.memory().capacity()),
        Method::Introspection(_) | Method::ApiKey(_) | Method::ClientCertificate(_) => None,
    });
    assert_eq!(memories.collect::<Vec<_>>(), [2 << 20]);
}

#[test]
fn a_check_may_take_as_long_as_its_timeout() {
    // Longer than the default of a second.
    let late = std::time::Duration::from_millis(1300);
    let upstream = Upstream::script(move |request| match request.target.as_str() {
        "/healthz" => [vec![Step::Pause(late)], Answer::ok("well").steps()].concat(),
        _ => Answer::ok("hello").steps(),
    });
    let gateway = Running::config(
        "listeners: { l: { address: \"127.0.0.1:{port}\" } }
upstreams: { u: { targets: [\"{u}\"], health: { path: /healthz, every: 2s, timeout: 2s, unhealthy_after: 1 } } }
routes: { r: { match: { path: /** }, auth: public, upstream: u } }",
    );
    let gateway = gateway.var("u", upstream.address()).start();
    // The second check begins after the first has ended.
    upstream.wait_for_requests(2);
    assert_eq!(gateway.get("/", &[]).status, 200);
}

#[test]
fn a_watched_file_takes_effect_by_itself() {
    let config = |status: u16| {
        format!(
            "server: {{ watch: true }}
listeners: {{ l: {{ address: \"127.0.0.1:{{port}}\" }} }}
routes: {{ r: {{ match: {{ path: / }}, auth: public, respond: {{ status: {status} }} }} }}"
        )
    };
    let mut gateway = Running::start(&config(200));
    assert_eq!(gateway.get("/", &[]).status, 200);
    gateway.rewrite(&config(201));
    eventually("the new answer", || (gateway.get("/", &[]).status == 201).then_some(()));
}

#[test]
fn while_it_settles_it_takes_new_connections_and_says_that_it_is_not_ready() {
    let gateway = Running::start(
        "server: { settle: 1h }
listeners: { l: { address: \"127.0.0.1:{port}\" } }
routes: { r: { match: { path: / }, auth: public, respond: { status: 200 } } }",
    );
    gateway.signal(rustix::process::Signal::TERM);
    eventually("the end of readiness", || (!gateway.is_ready()).then_some(()));
    // Longer than the default of a second.
    let until = std::time::Instant::now() + std::time::Duration::from_millis(1300);
    while std::time::Instant::now() < until {
        assert_eq!(gateway.get("/", &[]).status, 200);
        std::thread::sleep(std::time::Duration::from_millis(50));
    }
}
