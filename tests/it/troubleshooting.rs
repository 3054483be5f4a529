//! `docs/troubleshooting.md`: each case is reproduced, and each quoted line compared with the one that the gateway writes.
//!
//! A fence such as "```json 504" quotes part of an access-log line: its fields must be in a real one, with the same values but for figures.

use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

use serde_json::{Value, json};
use socket2::{Domain, Socket, Type};

use super::harness::{Answer, Ca, Config, Gateway, Step, TlsClient, Upstream, eventually, nobody};
use super::keys::{Signer, now};

const CONFIG: &str = r#"
listeners: { public: { address: "127.0.0.1:{port}" } }
limits: { each: { rate: 2/m, by: [client_ip] } }
upstreams:
  shop: { targets: ["{target}"], timeouts: { connect: 200ms, response: {response} }, {more} }
routes:
  shop: { match: { path: /shop }, auth: public, upstream: shop }
  limited: { match: { path: /limited }, auth: public, limits: [each], upstream: shop }
  shadowed: { match: { path: /shadowed }, auth: public, limits: [each], shadow: [limits], upstream: shop }
"#;

fn gateway(target: SocketAddr) -> Config {
    gateway_with(target, "protocol: http1")
}

fn gateway_with(target: SocketAddr, more: &str) -> Config {
    Gateway::config(CONFIG).var("target", target).var("more", more).var("response", "60s")
}

/// The lines that the page quotes for a case, in order.
fn quoted(case: &str) -> Vec<Value> {
    let page = include_str!("../../docs/troubleshooting.md");
    let fence = format!("```json {case}\n");
    let lines: Vec<_> = page.split(&fence).skip(1).map(|rest| rest.split("\n```").next().unwrap()).collect();
    lines.iter().map(|line| serde_json::from_str(line).unwrap_or_else(|error| panic!("{error}: {line}"))).collect()
}

/// Figures are of the run; everything else is as quoted.
fn masked(value: &Value) -> Value {
    match value {
        Value::String(text) => {
            let mut out = String::new();
            for character in text.chars() {
                match character.is_ascii_digit() {
                    true if out.ends_with('#') => {}
                    true => out.push('#'),
                    false => out.push(character),
                }
            }
            Value::String(out)
        }
        other => other.clone(),
    }
}

#[track_caller]
fn is_real(quoted: &Value, real: &Value) {
    for (name, value) in quoted.as_object().unwrap() {
        let found = real.get(name).unwrap_or_else(|| panic!("`{name}` is quoted and not in the line: {real}"));
        if name.ends_with("_us") {
            assert!(found.is_u64(), "{name}: {real}");
        } else {
            assert_eq!(masked(found), masked(value), "{name}: {real}");
        }
    }
}

// docs/troubleshooting.md, "502, 503 or 504: which of them"
#[test]
fn a_502_tells_refused_from_hung_up_and_a_503_tried_nobody() {
    let [refused, closed] = quoted("502").try_into().unwrap();
    let gateway_to_nobody = gateway(nobody()).start();
    assert_eq!(gateway_to_nobody.get("/shop", &[]).code(), "upstream-connect-failed");
    is_real(&refused, &gateway_to_nobody.log_lines(1)[0]);

    let upstream = Upstream::script(|_| vec![Step::Close]);
    let to_closing = gateway(upstream.address()).start();
    assert_eq!(to_closing.get("/shop", &[]).code(), "upstream-closed");
    is_real(&closed, &to_closing.log_lines(1)[0]);

    let [unhealthy] = quoted("503").try_into().unwrap();
    let upstream = Upstream::answering(Answer::new(500));
    let checked = gateway_with(upstream.address(), "health: { path: /healthz, every: 1s }").start();
    let healthy = format!("sluice_target_healthy{{upstream=\"shop\",target=\"{}\"}}", upstream.address());
    eventually("the target is out", || (checked.metrics_now().contains(&format!("{healthy} 0"))).then_some(()));
    assert_eq!(checked.get("/shop", &[]).code(), "no-healthy-target");
    let line = checked.log_lines(1).remove(0);
    is_real(&unhealthy, &line);
    assert!(line.get("target").is_none() && line.get("attempts").is_none(), "{line}");
    assert_eq!(checked.status()["upstreams"]["shop"][0]["healthy"], json!(false));
    assert!(checked.status()["upstreams"]["shop"][0]["since"].is_string());
}

// docs/troubleshooting.md, "504"
#[test]
fn a_504_says_which_timeout_it_was_and_whose_time_it_took() {
    let [response, connect] = quoted("504").try_into().unwrap();
    let upstream = Upstream::script(|_| vec![Step::Hang]);
    let config = CONFIG.replace("{response}", "100ms");
    let gateway_to_slow = Gateway::config(&config).var("target", upstream.address()).var("more", "protocol: http1").start();
    assert_eq!(gateway_to_slow.get("/shop", &[]).code(), "upstream-response-timeout");
    let line = gateway_to_slow.log_lines(1).remove(0);
    is_real(&response, &line);
    assert!(line["upstream_us"].as_u64().unwrap() >= 100_000, "{line}");
    for series in [
        "sluice_requests_total{route=\"shop\",status_class=\"5xx\",code=\"upstream-response-timeout\"}",
        "sluice_upstream_requests_total{upstream=\"shop\",result=\"response_timeout\"}",
    ] {
        eventually(series, || (gateway_to_slow.metric_now(series) == 1.0).then_some(()));
    }

    // A queue that is full: the kernel answers nobody any more.
    let full = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
    full.bind(&SocketAddr::from(([127, 0, 0, 1], 0)).into()).unwrap();
    full.listen(0).unwrap();
    let address = full.local_addr().unwrap().as_socket().unwrap();
    let mut queued = Vec::new();
    while let Ok(stream) = TcpStream::connect_timeout(&address, Duration::from_millis(300)) {
        queued.push(stream);
        assert!(queued.len() < 100, "a queue without end");
    }
    let gateway_to_full = gateway(address).start();
    assert_eq!(gateway_to_full.get("/shop", &[]).code(), "upstream-connect-timeout");
    is_real(&connect, &gateway_to_full.log_lines(1)[0]);
}

// docs/troubleshooting.md, "429"
#[test]
fn a_429_says_which_limit_and_what_it_counted_by() {
    let [limited, shadowed] = quoted("429").try_into().unwrap();
    let upstream = Upstream::start();
    let gateway = gateway(upstream.address()).start();
    let mut client = gateway.client();
    let statuses: Vec<_> = (0..3).map(|_| client.get("/limited", &[]).status).collect();
    assert_eq!(statuses, [200, 200, 429]);
    let refused = client.get("/limited", &[]);
    for header in ["retry-after", "x-ratelimit-limit", "x-ratelimit-remaining", "x-ratelimit-reset"] {
        assert!(refused.header(header).is_some(), "{header}");
    }
    assert_eq!((&refused.json()["limit"], &refused.json()["key"]), (&json!("each"), &json!("client_ip")));
    is_real(&limited, &gateway.log_line_where(|line| line["status"] == 429));
    eventually("the metric", || (gateway.metric_now("sluice_limited_total{limit=\"each\",key=\"client_ip\"}") == 2.0).then_some(()));
    assert_eq!(client.get("/shadowed", &[]).status, 200);
    is_real(&shadowed, &gateway.log_line_where(|line| line["route"] == "shadowed"));

    let explained = gateway.sluice(&["explain", "sluice.yaml", "GET http://host/limited", "--from", "203.0.113.7"]);
    let explained = String::from_utf8(explained.stdout).unwrap();
    let page = include_str!("../../docs/troubleshooting.md");
    let shown = page.lines().map(str::trim).find(|line| line.starts_with("limits     each by")).unwrap();
    assert!(explained.contains(shown), "{explained}");
}

// docs/troubleshooting.md, "Authentication fails in production"
#[test]
fn clocks_that_drift_show_in_the_reason_and_leeway_helps() {
    let [expired, early] = quoted("auth").try_into().unwrap();
    let (upstream, signer) = (Upstream::start(), Signer::generate("k1"));
    let config = r#"
listeners: { public: { address: "127.0.0.1:{port}" } }
authenticators:
  strict: { jwt: { issuer: idp, audiences: [shop], algorithms: [ES256], keys: { inline: '{jwks}' } } }
  lenient: { jwt: { issuer: idp, audiences: [shop], algorithms: [ES256], keys: { inline: '{jwks}' }, leeway: 30s } }
upstreams: { shop: { targets: ["{target}"] } }
routes:
  strict: { match: { path: /strict }, auth: [strict], upstream: shop }
  lenient: { match: { path: /lenient }, auth: [lenient], upstream: shop }
"#;
    let gateway = Gateway::config(config).var("jwks", signer.jwks()).var("target", upstream.address()).start();
    // What an issuer whose clock is behind, or before, makes of a token.
    let token = |not_before: u64, expires: u64| {
        let claims = json!({ "iss": "idp", "aud": "shop", "sub": "u1", "nbf": not_before, "exp": expires });
        format!("Bearer {}", signer.token(&claims))
    };
    let behind = token(now() - 600, now() - 3);
    let ahead = token(now() + 8, now() + 600);
    for (path, token, code, quoted) in [("/strict", &behind, "token-expired", &expired), ("/strict", &ahead, "token-not-yet-valid", &early)]
    {
        let refused = gateway.get(path, &[("authorization", token)]);
        assert_eq!((refused.status, refused.code().as_str(), &refused.json()["error"]), (401, code, &json!("Invalid token")));
        is_real(quoted, &gateway.log_line_where(|line| line["code"] == code));
        assert_eq!(gateway.get("/lenient", &[("authorization", token)]).status, 200, "30 s of leeway make up for it");
    }
    let explained = gateway.sluice(&["explain", "sluice.yaml", "GET http://host/strict", "-H", &format!("authorization: {behind}")]);
    let explained = String::from_utf8(explained.stdout).unwrap();
    assert!(explained.contains("token-expired: expired ") && !explained.contains(&behind[7..]), "{explained}");
}

// docs/troubleshooting.md, "A client with a certificate is not let in"
#[test]
fn a_certificate_that_is_nobodys_is_told_in_words_that_can_be_written_down() {
    let [quoted] = quoted("certificate").try_into().unwrap();
    let (ca, clients) = (Ca::new("Test"), Ca::new("Clients"));
    let main = ca.server(&["main.example"]);
    let own = clients.client("orders", 1, &[rcgen::SanType::URI("spiffe://example/orders".try_into().unwrap())]);
    let text = r#"
listeners:
  public:
    address: "127.0.0.1:{port}"
    tls: { certificates: { main: { chain: main.pem, key: main.key } }, client_certificates: { ca: clients.pem } }
authenticators: { mesh: { client_certificate: {} } }
consumers: { orders: { identities: [{ authenticator: mesh, claim: uri, is: "{uri}" }] } }
routes: { all: { match: { path: /** }, auth: [mesh], respond: { status: 204 } } }
"#;
    let start = |uri: &str| {
        let config = Gateway::config(text).var("uri", uri).file("main.pem", main.chain.clone()).file("main.key", main.key.clone());
        config.file("clients.pem", clients.pem.clone()).start()
    };
    let ask = |gateway: &Gateway| {
        let mut client = TlsClient::connect(gateway.address(), "main.example", &ca, Some(&own)).unwrap();
        client.get("main.example", "/").unwrap().0
    };
    let gateway = start("spiffe://example/other");
    assert_eq!(ask(&gateway), 401);
    let line = gateway.log_lines(1).remove(0);
    // All but the fingerprint, which is another's each time.
    let (known, written) = (line["reason"].as_str().unwrap().to_owned(), quoted["reason"].as_str().unwrap().to_owned());
    let short = |reason: &str| reason.split(", fingerprint `").next().unwrap().to_owned();
    assert_eq!(short(&known), short(&written));
    for name in ["status", "code", "client_subject"] {
        assert_eq!(line[name], quoted[name]);
    }
    let uri = known.split("uri `").nth(1).unwrap().split('`').next().unwrap();
    assert_eq!(ask(&start(uri)), 204, "as it was told");
}

// docs/troubleshooting.md, "A reload is refused"
#[test]
fn a_refused_reload_changes_nothing_and_says_so_everywhere() {
    let upstream = Upstream::start();
    let mut gateway = gateway(upstream.address()).start();
    let running = gateway.status()["config"]["hash"].clone();
    let checked = String::from_utf8(gateway.sluice(&["check", "sluice.yaml"]).stdout).unwrap();
    assert!(checked.contains(running.as_str().unwrap()), "{checked}");
    gateway.rewrite(&CONFIG.replace("auth: public", "auth: nobody"));
    let asked = gateway.sluice(&["reload", "sluice.yaml"]);
    let said = String::from_utf8(asked.stderr).unwrap();
    assert_eq!(asked.status.code(), Some(1));
    assert!(said.contains("error["), "{said}");
    let page = include_str!("../../docs/troubleshooting.md");
    let shown = page.lines().map(str::trim).find(|line| line.starts_with("ERROR server: reload refused")).unwrap();
    gateway.stderr_line(shown);
    assert_eq!(gateway.metric("sluice_reloads_total{result=\"refused\"}"), 1.0);
    let status = gateway.status();
    assert_eq!((&status["config"]["hash"], &status["last_reload"]["accepted"]), (&running, &json!(false)));
    assert!(status["last_reload"]["diagnostics"].as_str().unwrap().contains("error["));
    assert_eq!(gateway.get("/shop", &[]).status, 200, "the old one goes on");
}

// docs/troubleshooting.md, "client-gone"
#[test]
fn a_client_that_leaves_is_told_from_an_upstream_that_fails() {
    let [gone] = quoted("client-gone").try_into().unwrap();
    let upstream = Upstream::script(|_| vec![Step::Hang]);
    let config = CONFIG.replace("{response}", "15s");
    let gateway = Gateway::config(&config).var("target", upstream.address()).var("more", "protocol: http1").start();
    let mut client = gateway.client();
    client.send("GET /shop HTTP/1.1\r\nHost: test\r\n\r\n");
    let connected = "sluice_upstream_connections_total{upstream=\"shop\",connection=\"new\"}";
    eventually("the request at the upstream", || (gateway.metric_now(connected) == 1.0).then_some(()));
    drop(client);
    is_real(&gone, &gateway.log_lines(1)[0]);
}
