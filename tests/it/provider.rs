//! Key sets that are fetched from providers: a real one, and a stand-in that misbehaves on command.

use std::io::{Read, Write};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use serde_json::json;

use super::harness::oidc::{Oidc, kid};
use super::harness::*;
use super::keys::{Signer, now};

/// One route behind the provider's tokens, one that anybody may call.
fn config(keys: &str, more: &str) -> String {
    format!(
        "server: {{ threads: 1, settle: 0s, state: state }}
listeners: {{ l: {{ address: \"127.0.0.1:{{port}}\" }} }}
authenticators:
  idp:
    jwt: {{ issuer: \"{{issuer}}\", audiences: [orders], algorithms: [ES256], keys: {{ {keys} }} }}
{more}
routes:
  orders: {{ match: {{ path: /orders }}, auth: [idp], respond: {{ status: 204 }} }}
  open: {{ match: {{ path: /open }}, auth: public, respond: {{ status: 204 }} }}
"
    )
}

const ISSUER: &str = "https://idp.example";

fn token(signer: &Signer) -> String {
    signer.token(&json!({ "iss": ISSUER, "aud": "orders", "exp": now() + 600, "sub": "u1" }))
}

/// Status and code.
fn ask(gateway: &Gateway, token: &str) -> (u16, String) {
    let answer = gateway.get("/orders", &[("authorization", &format!("Bearer {token}"))]);
    let code = if answer.status == 204 { String::new() } else { answer.code() };
    (answer.status, code)
}

fn told(status: u16, code: &str) -> (u16, String) {
    (status, code.to_owned())
}

/// A provider that answers with what stands in it now.
#[derive(Clone)]
struct Standin(Arc<Mutex<Vec<Step>>>);

impl Standin {
    fn new(signers: &[&Signer]) -> Standin {
        let standin = Standin(Arc::default());
        standin.publish(signers);
        standin
    }

    fn publish(&self, signers: &[&Signer]) {
        self.say(Answer::ok(set(signers)).header("cache-control", "max-age=3600").steps());
    }

    fn say(&self, steps: Vec<Step>) {
        *self.0.lock().unwrap() = steps;
    }

    fn serve(&self) -> Upstream {
        let me = self.clone();
        Upstream::script(move |_| me.0.lock().unwrap().clone())
    }
}

fn set(signers: &[&Signer]) -> String {
    let keys: Vec<_> =
        signers.iter().map(|signer| serde_json::from_str::<serde_json::Value>(&signer.jwks()).unwrap()["keys"][0].clone()).collect();
    json!({ "keys": keys }).to_string()
}

fn behind(upstream: &Upstream, keys: &str) -> Config {
    Gateway::config(&config(&format!("url: \"http://{}/keys\"{keys}", upstream.address()), "")).var("issuer", ISSUER)
}

#[test]
fn a_certified_provider_is_discovered_its_keys_rotate_and_its_outage_is_survived() {
    let mut oidc = Oidc::start();
    let keys = "discovery: \"{issuer}/.well-known/openid-configuration\", ca: ca.pem";
    let config = Gateway::config(&config(keys, "")).var("issuer", oidc.issuer()).file("ca.pem", oidc.ca()).own_program();
    let gateway = config.clone().start();
    let first = oidc.token("urn:jwt");
    assert_eq!(ask(&gateway, &first), told(204, ""));
    assert_eq!(gateway.metric("sluice_key_set_keys{authenticator=\"idp\"}"), 1.0);

    // The first token of a new key waits for the provider, and no client is refused.
    oidc.order("rotate");
    let second = oidc.token("urn:jwt");
    assert_ne!(kid(&first), kid(&second));
    assert_eq!(ask(&gateway, &second), told(204, ""));
    assert_eq!(gateway.metric("sluice_key_set_unknown_keys_total{authenticator=\"idp\",result=\"asked\"}"), 1.0);
    assert_eq!(ask(&gateway, &first), told(204, ""));

    // An outage: nothing is lost, neither now, nor by an upgrade, nor by a restart.
    oidc.order("stop");
    assert_eq!(ask(&gateway, &first), told(204, ""));
    let kept = eventually("a stored set with both keys", || {
        let file = std::fs::read_dir(gateway.dir().join("state"))
            .ok()?
            .flatten()
            .find(|file| file.path().extension().is_some_and(|end| end == "json"))?;
        std::fs::read(file.path()).ok().filter(|bytes| String::from_utf8_lossy(bytes).contains(&kid(&second)))
    });
    // The next process is told, though nothing is stored any more.
    std::fs::remove_dir_all(gateway.dir().join("state")).unwrap();
    let upgraded = gateway.sluice(&["upgrade", "sluice.yaml"]);
    assert!(upgraded.status.success(), "{upgraded:?}");
    assert_eq!((ask(&gateway, &first), ask(&gateway, &second)), (told(204, ""), told(204, "")));
    drop(gateway);
    let name = format!("state/{}", kept_name(&kept));
    let restarted = config.file(&name, kept).start();
    assert_eq!((ask(&restarted, &first), ask(&restarted, &second)), (told(204, ""), told(204, "")));

    // Back again, with another key.
    oidc.order("start");
    oidc.order("rotate");
    assert_eq!(ask(&restarted, &oidc.token("urn:jwt")), told(204, ""));
}

/// The name under which a set is stored: from what it is of.
fn kept_name(kept: &[u8]) -> String {
    let kept: serde_json::Value = serde_json::from_slice(kept).unwrap();
    let digest = aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, kept["identity"].as_str().unwrap().as_bytes());
    let hex: String = digest.as_ref()[..8].iter().map(|byte| format!("{byte:02x}")).collect();
    format!("keys-{hex}.json")
}

#[test]
fn a_provider_whose_certificate_is_not_trusted_is_not_believed() {
    let oidc = Oidc::start();
    let keys = "discovery: \"{issuer}/.well-known/openid-configuration\", ca: ca.pem";
    let other = Oidc::start();
    let gateway = Gateway::config(&config(keys, "")).var("issuer", oidc.issuer()).file("ca.pem", other.ca()).start();
    assert_eq!(ask(&gateway, &oidc.token("urn:jwt")), told(503, "keys-unavailable"));
    gateway.stderr_line("invalid peer certificate");
}

#[test]
fn a_discovery_document_of_another_issuer_is_not_believed() {
    let signer = Signer::generate("a");
    let document = json!({ "issuer": "https://else.example", "jwks_uri": "http://127.0.0.1:1/" }).to_string();
    let provider = Upstream::answering(Answer::ok(document));
    let url = format!("discovery: \"http://{}/.well-known/openid-configuration\"", provider.address());
    let gateway = Gateway::config(&config(&url, "")).var("issuer", ISSUER).start();
    assert_eq!(ask(&gateway, &token(&signer)), told(503, "keys-unavailable"));
    gateway.stderr_line("is of issuer `https://else.example`, expected `https://idp.example`");
}

#[test]
fn a_provider_that_does_not_answer_delays_readiness_for_five_seconds_and_no_other_route() {
    let provider = Upstream::script(|_| vec![Step::Hang]);
    let begin = Instant::now();
    let config = behind(&provider, "");
    let waiting = std::thread::spawn(move || {
        let gateway = config.start();
        (gateway, begin.elapsed())
    });
    let (gateway, after) = waiting.join().unwrap();
    assert!(after >= Duration::from_secs(5), "ready after {after:?}");
    assert_eq!(gateway.get("/open", &[]).status, 204);
    assert_eq!(ask(&gateway, &token(&Signer::generate("a"))), told(503, "keys-unavailable"));
    let line = gateway.log_line_where(|line| line["code"] == "keys-unavailable");
    assert!(line["reason"].as_str().unwrap().starts_with("no key set has been fetched yet"), "{line}");
}

#[test]
fn requests_are_answered_while_the_provider_has_not_answered_yet() {
    let (signer, gate) = (Signer::generate("a"), Gate::new());
    let standin = Standin::new(&[]);
    standin.say([vec![Step::WaitFor(gate.clone())], Answer::ok(set(&[&signer])).steps()].concat());
    let provider = standin.serve();
    let config = behind(&provider, "");
    let starting = std::thread::spawn(move || config.start());
    // It is asked while the process is not ready yet; readiness follows the answer, before the five seconds are over.
    eventually("the question", || (provider.connections() == 1).then_some(()));
    gate.open();
    let gateway = starting.join().unwrap();
    assert_eq!(ask(&gateway, &token(&signer)), told(204, ""));
}

#[test]
fn invented_keys_do_not_turn_the_gateway_into_a_load_generator() {
    let signer = Signer::generate("a");
    let standin = Standin::new(&[&signer]);
    let provider = standin.serve();
    let gateway = behind(&provider, "").start();
    assert_eq!(provider.requests().len(), 1);
    let mut client = gateway.client();
    for n in 0..200 {
        let invented = token(&Signer::generate(&format!("invented-{n}")));
        assert_eq!(client.get("/orders", &[("authorization", &format!("Bearer {invented}"))]).code(), "token-key-unknown");
    }
    // One in ten seconds, and this takes less than twenty.
    assert!(provider.requests().len() <= 3, "{} requests", provider.requests().len());
    assert!(gateway.metric("sluice_key_set_unknown_keys_total{authenticator=\"idp\",result=\"held-back\"}") >= 197.0);
}

#[test]
fn many_tokens_of_one_new_key_cause_one_fetch_and_all_are_accepted() {
    let (old, new) = (Signer::generate("a"), Signer::generate("b"));
    let standin = Standin::new(&[&old]);
    let provider = standin.serve();
    let gateway = behind(&provider, "").start();
    let gate = Gate::new();
    standin.say([vec![Step::WaitFor(gate.clone())], Answer::ok(set(&[&old, &new])).steps()].concat());
    let (token, address) = (token(&new), gateway.address());
    let asking: Vec<_> = (0..8)
        .map(|_| {
            let authorization = format!("Bearer {token}");
            std::thread::spawn(move || get(address, "/orders", &[("authorization", &authorization)]).status)
        })
        .collect();
    eventually("the question", || (provider.connections() == 2).then_some(()));
    gate.open();
    for one in asking {
        assert_eq!(one.join().unwrap(), 204);
    }
    assert_eq!(provider.requests().len(), 2);
}

#[test]
fn a_provider_that_hangs_holds_a_new_key_for_a_second_and_no_old_one() {
    let (old, new) = (Signer::generate("a"), Signer::generate("b"));
    let standin = Standin::new(&[&old]);
    let provider = standin.serve();
    let gateway = behind(&provider, "").start();
    standin.say(vec![Step::Hang]);
    assert_eq!(ask(&gateway, &token(&new)), told(503, "keys-unavailable"));
    assert_eq!(ask(&gateway, &token(&old)), told(204, ""));
}

#[test]
fn what_a_provider_gets_wrong_is_told_and_changes_nothing() {
    let signer = Signer::generate("a");
    let big = format!("{{\"keys\":[{}]}}", " ".repeat(300 * 1024));
    let wrongs = [
        (Answer::new(500).steps(), "status 500"),
        (Answer::ok("<html>").steps(), "the key set is neither a JSON Web Key Set"),
        (Answer::ok(r#"{"keys":[]}"#).steps(), "has no key that could verify a token"),
        (Answer::ok(r#"{"keys":[{"kty":"oct","k":"c2VjcmV0"}]}"#).steps(), "is a shared secret"),
        (Answer::ok(big).steps(), "the answer is larger than 262144 bytes"),
        (Answer::new(302).header("location", "http://127.0.0.2:1/keys").steps(), "another server"),
        (Answer::new(302).header("location", "/keys").steps(), "redirects more than 3 times"),
        (vec![Step::Close], "connection closed"),
    ];
    let signer = &signer;
    std::thread::scope(|all| {
        for (wrong, why) in wrongs {
            all.spawn(move || {
                let standin = Standin::new(&[signer]);
                let provider = standin.serve();
                let gateway = behind(&provider, ", refresh: { soonest: 1s, latest: 1s }").start();
                standin.say(wrong);
                let line = gateway.stderr_line("the key set cannot be fetched, the last one stays in use");
                assert!(line.contains(why), "expected `{why}`: {line}");
                assert_eq!(ask(&gateway, &token(signer)), told(204, ""));
                standin.publish(&[signer]);
                gateway.stderr_line("the key set is fetched again");
            });
        }
    });
}

#[test]
fn a_redirect_within_the_same_server_is_followed() {
    let signer = Signer::generate("a");
    let keys = set(&[&signer]);
    let provider = Upstream::script(move |request| match request.target.as_str() {
        "/keys" => Answer::new(302).header("location", "/v2/keys").steps(),
        _ => Answer::ok(keys.clone()).steps(),
    });
    let gateway = behind(&provider, "").start();
    assert_eq!(ask(&gateway, &token(&signer)), told(204, ""));
}

#[test]
fn a_set_is_fetched_again_between_soonest_and_latest() {
    let (old, new) = (Signer::generate("a"), Signer::generate("b"));
    let standin = Standin::new(&[&old]);
    let provider = standin.serve();
    // It says that it holds an hour.
    let gateway = behind(&provider, ", refresh: { soonest: 1s, latest: 1s }").start();
    standin.publish(&[&new]);
    // The key that went takes its tokens with it, though they were accepted before.
    eventually("the end of the old key", || (ask(&gateway, &token(&old)) == told(401, "token-key-unknown")).then_some(()));
    assert_eq!(ask(&gateway, &token(&new)), told(204, ""));
    // Without the ceiling it is not: an hour is an hour.
    let (patient, asked) = (behind(&provider, "").start(), provider.requests().len());
    assert!(provider.requests().len() <= asked + 2);
    let next = patient.metric("sluice_key_set_next_fetch_timestamp_seconds{authenticator=\"idp\"}");
    assert!(next > now() as f64 + 2000.0, "{next}");
    // And with a floor it is asked later than it says.
    standin.say(Answer::ok(set(&[&new])).header("cache-control", "no-store").steps());
    let floor = behind(&provider, ", refresh: { soonest: 30m }").start();
    assert!(floor.metric("sluice_key_set_next_fetch_timestamp_seconds{authenticator=\"idp\"}") > now() as f64 + 1200.0);
}

#[test]
fn a_set_that_is_too_old_answers_503_with_a_code_of_its_own_until_the_provider_is_back() {
    let signer = Signer::generate("a");
    let standin = Standin::new(&[&signer]);
    let provider = standin.serve();
    let gateway = behind(&provider, ", refresh: { soonest: 1s, latest: 1s }, max_age: 2s").start();
    assert_eq!(ask(&gateway, &token(&signer)), told(204, ""));
    standin.say(vec![Step::Close]);
    eventually("an old set", || (ask(&gateway, &token(&signer)) == told(503, "keys-too-old")).then_some(()));
    assert_eq!(gateway.get("/open", &[]).status, 204);
    assert!(gateway.metric("sluice_refusals_total{policy=\"auth\",code=\"keys-too-old\"}") >= 1.0);
    standin.publish(&[&signer]);
    eventually("the provider", || (ask(&gateway, &token(&signer)) == told(204, "")).then_some(()));
}

#[test]
fn a_reload_keeps_the_set_and_fetches_a_new_one_before_it_takes_over() {
    let (one, two) = (Signer::generate("a"), Signer::generate("b"));
    let (first, second) = (Standin::new(&[&one]).serve(), Standin::new(&[&two]).serve());
    let text = |upstream: &Upstream, more: &str| config(&format!("url: \"http://{}/keys\"{more}", upstream.address()), "");
    let mut gateway = Gateway::config(&text(&first, "")).var("issuer", ISSUER).start();
    let reload = |gateway: &mut Gateway, text: &str| {
        gateway.rewrite(text);
        assert!(gateway.sluice(&["reload", "sluice.yaml"]).status.success(), "{}", gateway.stderr());
    };
    reload(&mut gateway, &text(&first, ", max_age: 24h"));
    assert_eq!(ask(&gateway, &token(&one)), told(204, ""));
    assert_eq!(first.requests().len(), 1, "it was fetched a moment ago");
    reload(&mut gateway, &text(&second, ""));
    assert_eq!(ask(&gateway, &token(&two)), told(204, ""));
    assert_eq!(ask(&gateway, &token(&one)), told(401, "token-key-unknown"));
}

#[test]
fn a_proxy_is_gone_through_where_one_is_written() {
    let signer = Signer::generate("a");
    let proxy = Standin::new(&[&signer]).serve();
    let keys = format!("url: \"http://idp.internal/keys?v=1\", plain_http: true, proxy: \"http://{}\"", proxy.address());
    let gateway = Gateway::config(&config(&keys, "")).var("issuer", ISSUER).start();
    assert_eq!(ask(&gateway, &token(&signer)), told(204, ""));
    let asked = proxy.last();
    assert_eq!((asked.target.as_str(), asked.header("host")), ("http://idp.internal/keys?v=1", Some("idp.internal")));
    // To an https server it is asked for a tunnel.
    let refusing = Upstream::answering(Answer::new(403));
    let keys = format!("url: https://idp.internal/keys, proxy: \"http://{}\"", refusing.address());
    let gateway = Gateway::config(&config(&keys, "")).var("issuer", ISSUER).start();
    gateway.stderr_line("refused CONNECT: `HTTP/1.1 403");
    assert_eq!(refusing.last().head.split(|byte| *byte == b'\r').next().unwrap(), b"CONNECT idp.internal:443 HTTP/1.1");
}

#[test]
fn a_place_for_keys_that_others_could_write_is_refused() {
    let provider = Standin::new(&[&Signer::generate("a")]).serve();
    let folder = tempfile::tempdir().unwrap();
    std::fs::set_permissions(folder.path(), std::os::unix::fs::PermissionsExt::from_mode(0o777)).unwrap();
    let text = config(&format!("url: \"http://{}/keys\"", provider.address()), "")
        .replace("state: state", &format!("state: \"{}\"", folder.path().display()));
    let failure = Gateway::config(&text).var("issuer", ISSUER).try_start().err().unwrap();
    assert!(failure.stderr.contains("can be written by others"), "{}", failure.stderr);
}

/// A proxy that opens tunnels wherever it is asked to; counts them.
fn tunnelling() -> (std::net::SocketAddr, Arc<Mutex<Vec<String>>>) {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let (address, asked) = (listener.local_addr().unwrap(), Arc::new(Mutex::new(Vec::new())));
    let seen = asked.clone();
    std::thread::spawn(move || {
        for client in listener.incoming() {
            let Ok(client) = client else { break };
            let seen = seen.clone();
            std::thread::spawn(move || tunnel(client, &seen));
        }
    });
    (address, asked)
}

fn tunnel(mut client: std::net::TcpStream, seen: &Mutex<Vec<String>>) -> Option<()> {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        let mut byte = [0];
        client.read_exact(&mut byte).ok()?;
        head.push(byte[0]);
    }
    let head = String::from_utf8(head).ok()?;
    let target = head.strip_prefix("CONNECT ")?.split(' ').next()?.to_owned();
    let mut server = std::net::TcpStream::connect(&target).ok()?;
    seen.lock().unwrap().push(target);
    client.write_all(b"HTTP/1.1 200 Connection established\r\nVia: 1.1 test\r\n\r\n").ok()?;
    let (mut from_client, mut to_server) = (client.try_clone().ok()?, server.try_clone().ok()?);
    std::thread::spawn(move || std::io::copy(&mut from_client, &mut to_server));
    std::io::copy(&mut server, &mut client).ok()?;
    Some(())
}

#[test]
fn a_provider_over_https_is_reached_through_a_tunnel_of_the_proxy_and_shown_in_the_status() {
    let oidc = Oidc::start();
    let (proxy, tunnels) = tunnelling();
    let keys = format!("discovery: \"{{issuer}}/.well-known/openid-configuration\", ca: ca.pem, proxy: \"http://{proxy}\"");
    let gateway = Gateway::config(&config(&keys, "")).var("issuer", oidc.issuer()).file("ca.pem", oidc.ca()).start();
    assert_eq!(ask(&gateway, &oidc.token("urn:jwt")), told(204, ""));
    let server = oidc.issuer().replace("https://", "");
    // The document, and the key set that it names.
    assert_eq!(*tunnels.lock().unwrap(), [server.clone(), server]);
    let status = gateway.status()["key_sets"]["idp"].clone();
    assert_eq!((&status["keys"], &status["last_result"], &status["failures"]), (&json!(1), &json!("ok"), &json!(0)), "{status}");
    assert!(status["age_s"].as_u64().is_some_and(|age| age < 600), "{status}");
    assert!(status["next_fetch"].as_str() > status["fetched"].as_str(), "{status}");
    let explained = gateway.sluice(&["explain", "sluice.yaml", "http://a/orders"]);
    let text = String::from_utf8_lossy(&explained.stdout);
    let line = format!("idp: found by {}/.well-known/openid-configuration every 1m to 1h; their age is not known here", oidc.issuer());
    assert!(text.contains(&line), "{text}");
}

#[test]
fn the_status_says_why_a_key_set_is_missing() {
    let provider = Upstream::answering(Answer::new(500));
    let gateway = behind(&provider, "").start();
    let status = gateway.status()["key_sets"]["idp"].clone();
    assert_eq!((&status["keys"], &status["fetched"], &status["age_s"]), (&json!(0), &json!(null), &json!(null)));
    assert!(status["last_result"].as_str().unwrap().ends_with("status 500"), "{status}");
    assert!(status["failures"].as_u64().unwrap() >= 1, "{status}");
}
