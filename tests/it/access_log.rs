//! The access log of the real binary: one line a request, its fields, what is never in it, and the file that it goes to.

use std::collections::BTreeSet;
use std::os::unix::fs::PermissionsExt;

use rustix::process::Signal;
use serde_json::{Value, json};

use super::harness::{Answer, Ca, Client, Config, Gate, Gateway, HANDSHAKE, Request, SWITCH, Step, TlsClient, Upstream, eventually, http2};
use super::keys::Signer;

const CONFIG: &str = r#"
listeners: { public: { address: "127.0.0.1:{port}" } }
clients: { trusted_proxies: [127.0.0.0/8], header: x-forwarded-for }
authenticators:
  idp: { jwt: { issuer: test, audiences: [test], algorithms: [ES256], keys: { inline: '{jwks}' } } }
  partners: { api_key: { query: api_key } }
consumers:
  acme: { keys: [{ sha256: "e2a8dd67d3fbf4e6b92dabfaab2ce4a3c09c7efb5d3ea1ba2f1cd1d0a2bb5bd3" }], identities: [{ authenticator: idp, claim: tenant, is: acme }], plan: gold, tags: { version: v2 } }
plans: { gold: { rate: 1000/s } }
limits:
  once: { rate: 1/h, by: [client_ip], stage: before_auth }
upstreams:
  orders: { targets: ["{upstream}"] }
  gone: { targets: ["127.0.0.1:1"] }
routes:
  gone: { match: { path: /gone }, auth: public, upstream: gone }
  orders: { match: { path: /api/orders/** }, auth: [idp, partners], rewrite: { strip_prefix: /api }, upstream: orders }
  plain: { match: { path: /plain/** }, auth: public, upstream: orders }
  shadowed: { match: { path: /shadowed }, auth: [idp], shadow: [auth, limits], limits: [once], upstream: orders }
  once: { match: { path: /once }, auth: public, limits: [once], respond: { status: 410, code: gone-for-good } }
"#;

fn gateway(upstream: &Upstream, signer: &Signer) -> Config {
    Gateway::config(CONFIG).var("upstream", upstream.address()).var("jwks", signer.jwks())
}

fn fields(line: &Value) -> BTreeSet<&str> {
    line.as_object().unwrap().keys().map(String::as_str).collect()
}

#[test]
fn a_line_has_exactly_the_fields_that_are_documented_and_they_are_true() {
    let (upstream, signer) = (Upstream::start(), Signer::generate("k1"));
    let gateway = gateway(&upstream, &signer).start();
    let token = signer.token(&json!({ "iss": "test", "aud": "test", "exp": 4_102_444_800_u64, "sub": "u1", "tenant": "acme" }));
    let headers = [
        ("host", "api.example.com"),
        ("authorization", &format!("Bearer {token}")),
        ("x-forwarded-for", "203.0.113.7"),
        ("x-request-id", "from-the-proxy-before"),
        ("traceparent", "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"),
        ("user-agent", "tester/1.0 \"quoted\""),
    ];
    let answer = super::harness::request(gateway.address(), "POST", "/api/orders/%7e1?b=2&a=1", &headers, b"0123456789");
    assert_eq!(answer.status, 200);
    let line = gateway.log_lines(1).remove(0);
    let documented = [
        "time",
        "request_id",
        "trace_id",
        "listener",
        "protocol",
        "client",
        "host",
        "method",
        "path",
        "query",
        "upstream_path",
        "upstream_query",
        "route",
        "authenticator",
        "consumer",
        "plan",
        "subject",
        "tags",
        "status",
        "upstream",
        "target",
        "attempts",
        "bytes_in",
        "bytes_out",
        "total_us",
        "upstream_us",
        "gateway_us",
        "user_agent",
    ];
    assert_eq!(fields(&line), BTreeSet::from(documented), "{line}");
    let expected = json!({
        "request_id": "from-the-proxy-before", "trace_id": "4bf92f3577b34da6a3ce929d0e0e4736", "listener": "public",
        "protocol": "HTTP/1.1", "client": "203.0.113.7", "host": "api.example.com", "method": "POST", "path": "/api/orders/~1",
        "query": "b=2&a=1", "upstream_path": "/orders/~1", "upstream_query": "b=2&a=1", "route": "orders", "authenticator": "idp", "consumer": "acme",
        "plan": "gold", "subject": "u1", "tags": { "version": "v2" }, "status": 200, "upstream": "orders", "target": upstream.address().to_string(), "attempts": 1, "bytes_in": 10,
        "bytes_out": answer.body.len(), "user_agent": "tester/1.0 \"quoted\"",
    });
    for (name, value) in expected.as_object().unwrap() {
        assert_eq!(line[name], *value, "{name}: {line}");
    }
    let us = |name: &str| line[name].as_u64().unwrap();
    assert_eq!(us("total_us"), us("upstream_us") + us("gateway_us"));
    let bytes = |series: &str| gateway.metric(&format!("sluice_{series}"));
    eventually("bytes are counted", || (bytes("bytes_total{listener=\"public\",direction=\"in\"}") == 10.0).then_some(()));
    let body = answer.body.len() as f64;
    assert_eq!(bytes("bytes_total{listener=\"public\",direction=\"out\"}"), body);
    assert_eq!(bytes("upstream_bytes_total{upstream=\"orders\",direction=\"out\"}"), 10.0);
    assert_eq!(bytes("upstream_bytes_total{upstream=\"orders\",direction=\"in\"}"), body);
    let time = line["time"].as_str().unwrap();
    assert!(time.len() == "2026-11-21T23:12:59.042Z".len() && time.ends_with('Z'), "{time}");
}

#[test]
fn refusals_and_fixed_answers_say_why_and_what_would_have_been_refused() {
    let (upstream, signer) = (Upstream::start(), Signer::generate("k1"));
    let gateway = gateway(&upstream, &signer).start();
    let mut client = gateway.client();
    let expired = super::keys::now() - 3600;
    let token = signer.token(&json!({ "iss": "test", "aud": "test", "exp": expired, "sub": "u1" }));
    assert_eq!(client.get("/api/orders/1", &[("authorization", &format!("Bearer {token}"))]).status, 401);
    assert_eq!(client.get("/once", &[]).status, 410);
    assert_eq!(client.get("/once", &[]).status, 429);
    assert_eq!(client.get("/shadowed", &[]).status, 200);
    client.send("GET / HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n").read_to_end();
    let lines = gateway.log_lines(5);
    assert_eq!(lines.len(), 5, "one line a request");
    assert_eq!((&lines[0]["code"], &lines[0]["status"], &lines[0]["route"]), (&json!("token-expired"), &json!(401), &json!("orders")));
    let reason = lines[0]["reason"].as_str().unwrap();
    assert!(reason.starts_with("expired 360") && reason.contains("s ago, leeway 0 s"), "{reason}");
    assert_eq!((&lines[1]["code"], &lines[1]["status"]), (&json!("gone-for-good"), &json!(410)));
    assert_eq!((&lines[2]["code"], &lines[2]["limit"], &lines[2]["key"]), (&json!("rate-limited"), &json!("once"), &json!("client_ip")));
    assert_eq!(lines[3]["would_refuse"], json!(["rate-limited", "credentials-missing"]));
    assert_eq!((&lines[4]["code"], &lines[4]["status"]), (&json!("host-duplicate"), &json!(400)));
    // As many requests as lines, heads that were refused included.
    let counted = |text: String| -> f64 {
        text.lines().filter_map(|line| line.strip_prefix("sluice_requests_total{")?.rsplit(' ').next()?.parse::<f64>().ok()).sum()
    };
    eventually("five requests are counted", || (counted(gateway.metrics_now()) == 5.0).then_some(()));
    // Shadowed refusals have refused nothing.
    assert_eq!(gateway.metric("sluice_limited_total{limit=\"once\",key=\"client_ip\"}"), 1.0);
    assert_eq!(gateway.metric("sluice_would_refuse_total{route=\"shadowed\",code=\"rate-limited\"}"), 1.0);
}

#[test]
fn every_field_is_documented_and_every_documented_field_is_written() {
    let script = |request: &Request| match request.target.as_str() {
        "/plain/socket" => vec![Step::Send(SWITCH.into()), Step::Close],
        _ => Answer::ok("hello").steps(),
    };
    let (upstream, signer) = (Upstream::script(script), Signer::generate("k1"));
    let gateway = gateway(&upstream, &signer).start();
    let token = signer.token(&json!({ "iss": "test", "aud": "test", "exp": 4_102_444_800_u64, "sub": "u1", "tenant": "acme" }));
    let call = [&[("content-type", "application/grpc")][..]].concat();
    let mut http2 = http2::Http2::connect(gateway.address());
    http2.ask(1, &http2::fields("POST", "/once/never", &call)).answer(1);
    gateway.client().send(format!("GET /plain/socket HTTP/1.1\r\n{HANDSHAKE}\r\n")).read_to_end();
    let mut client = gateway.client();
    client.get("/api/orders/1?a=1", &[("authorization", &format!("Bearer {token}")), ("user-agent", "tester")]);
    client.get("/once", &[]);
    client.get("/once", &[]);
    client.get("/shadowed", &[]);
    client.get("/gone", &[]);
    let lines = gateway.log_lines(7);
    let ca = Ca::new("Test");
    let (leaf, own) = (ca.server(&["main.example"]), ca.client("someone", 1, &[]));
    let encrypted = Gateway::config(
        r#"
listeners:
  public:
    address: "127.0.0.1:{port}"
    tls: { certificates: { main: { chain: main.pem, key: main.key } }, client_certificates: { ca: ca.pem } }
limits: { slow: { rate: 1/s, burst: 1, throttle: { wait: 5s }, by: [global] } }
routes:
  all: { match: { path: "/**" }, auth: public, limits: [slow], respond: { status: 204 } }
  fallen: { match: { path: /fallen }, auth: public, upstream: nobody, fallback: { status: 200 }, fault: { delay: { for: 1ms, share: 100% } } }
upstreams: { nobody: { targets: ["127.0.0.1:1"], adaptive_concurrency: {} } }
"#,
    );
    let encrypted = encrypted.file("main.pem", leaf.chain).file("main.key", leaf.key).file("ca.pem", ca.pem.clone()).start();
    let mut client = TlsClient::connect(encrypted.address(), "main.example", &ca, Some(&own)).unwrap();
    (0..2).for_each(|_| _ = client.get("main.example", "/").unwrap());
    client.get("main.example", "/fallen").unwrap();
    let some = format!("{}access_log: {{ sample: 50% }}\n", CONFIG);
    let sampled = Gateway::config(&some).var("upstream", upstream.address()).var("jwks", signer.jwks()).start();
    let of_sample = eventually("one falls into the sample", || {
        sampled.get("/plain/one", &[]);
        sampled.log().into_iter().next()
    });
    let lines = [lines, encrypted.log_lines(3), vec![of_sample]].concat();
    let written: BTreeSet<&str> = lines.iter().flat_map(|line| fields(line)).collect();
    let page = include_str!("../../docs/observability.md").split("## ").find(|part| part.starts_with("Access log\n")).unwrap();
    let documented: BTreeSet<&str> = page.lines().filter_map(|line| line.strip_prefix("| `")?.split('`').next()).collect();
    assert_eq!(written, documented);
}

#[test]
fn no_credential_is_ever_in_the_log() {
    let (upstream, signer) = (Upstream::start(), Signer::generate("k1"));
    let gateway = gateway(&upstream, &signer).start();
    let mut client = gateway.client();
    let secret = "s3cr3t-value-of-a-key";
    for target in [
        format!("/api/orders/1?api_key={secret}"),
        format!("/api/orders/1?a=1&api_key={secret}&b=2"),
        format!("/api/orders/1?a=1&%61pi%5Fkey={secret}"),
        format!("/api/orders/1?API_KEY={secret}"),
        format!("/plain/x?api_key={secret}&a=1"),
        format!("/nowhere?api_key={secret}"),
        format!("/api/orders/%zz?api_key={secret}"),
    ] {
        client.get(&target, &[]);
    }
    client.get("/plain/x", &[("authorization", &format!("Bearer {secret}")), ("cookie", secret), ("x-api-key", secret)]);
    gateway.client().send(format!("GET http://user:{secret}@test/plain/x?api_key={secret} HTTP/1.1\r\nHost: test\r\n\r\n")).read_to_end();
    gateway.client().send(format!("GET /plain/x?api_key={secret} HTTP/1.1\r\nHost: test\r\nbad field: {secret}\r\n\r\n")).read_to_end();
    let lines = gateway.log_lines(10);
    assert_eq!(lines.len(), 10);
    for line in &lines {
        assert!(!line.to_string().contains(secret), "{line}");
    }
    assert_eq!(lines[1]["query"], "a=1&b=2", "the rest is there");
    assert!(!gateway.stderr().contains(secret));
    assert!(!gateway.metrics().contains(secret));
}

#[test]
fn a_client_that_left_is_client_gone() {
    let gate = Gate::new();
    let upstream = Upstream::script({
        let gate = gate.clone();
        move |_| vec![Step::WaitFor(gate.clone()), Step::Hang]
    });
    let gateway = gateway(&upstream, &Signer::generate("k1")).start();
    let mut client = gateway.client();
    client.send("GET /plain/slow HTTP/1.1\r\nHost: test\r\n\r\n");
    let at_upstream = "sluice_upstream_connections_total{upstream=\"orders\",connection=\"new\"}";
    eventually("the request at the upstream", || (gateway.metric_now(at_upstream) == 1.0).then_some(()));
    drop(client);
    let line = gateway.log_line_where(|line| line["path"] == "/plain/slow");
    assert_eq!((&line["code"], &line["status"]), (&json!("client-gone"), &json!(499)), "{line}");
    assert_eq!((&line["route"], &line["target"]), (&json!("plain"), &json!(upstream.address().to_string())));
    eventually("it is counted", || {
        (gateway.metric("sluice_upstream_requests_total{upstream=\"orders\",result=\"client_gone\"}") == 1.0).then_some(())
    });
    gate.open();
}

#[test]
fn logrotate_moves_the_file_and_a_signal_begins_a_new_one() {
    let (upstream, signer) = (Upstream::start(), Signer::generate("k1"));
    let mut text = CONFIG.to_owned();
    text.push_str("access_log: { to: access.log }\n");
    let gateway = Gateway::config(&text).var("upstream", upstream.address()).var("jwks", signer.jwks()).start();
    let file = gateway.dir().join("access.log");
    let moved = gateway.dir().join("access.log.1");
    let lines = |path: &std::path::Path| std::fs::read_to_string(path).map_or(0, |text| text.lines().count());
    let mut client = gateway.client();
    for _ in 0..3 {
        client.get("/plain/x", &[]);
    }
    eventually("three lines", || (lines(&file) == 3).then_some(()));
    assert_eq!(std::fs::metadata(&file).unwrap().permissions().mode() & 0o7777, 0o640, "not for everybody to read");
    std::fs::rename(&file, &moved).unwrap();
    client.get("/plain/x", &[]);
    eventually("the old file goes on until the signal", || (lines(&moved) == 4).then_some(()));
    gateway.signal(Signal::USR1);
    gateway.stderr_line("the access log is opened anew");
    client.get("/plain/x", &[]);
    client.get("/plain/x", &[]);
    eventually("the new file", || (lines(&file) == 2).then_some(()));
    assert_eq!(lines(&moved), 4);
    eventually("lines are counted when they are written", || (gateway.metric_now("sluice_access_log_lines_total") == 6.0).then_some(()));
    assert!(gateway.log().is_empty(), "nothing goes to standard output then");
}

#[test]
fn the_process_log_is_one_line_an_event_and_json_on_request() {
    let (upstream, signer) = (Upstream::start(), Signer::generate("k1"));
    let mut gateway = gateway(&upstream, &signer).arg("--log-format=json").start();
    gateway.get("/plain/x", &[]);
    gateway.reload("listeners: {}\n");
    let refused = gateway.stderr_line("refused");
    let event: Value = serde_json::from_str(&refused).expect("one JSON object");
    assert_eq!(fields(&event), BTreeSet::from(["time", "level", "target", "message"]));
    assert_eq!(event["level"], "error");
    assert!(event["message"].as_str().unwrap().starts_with("reload refused, nothing was changed:\n"));
    let said = gateway.stderr();
    assert!(said.lines().all(|line| serde_json::from_str::<Value>(line).is_ok()), "{said}");
    assert!(!said.contains("/plain/x"), "requests are in the access log only");
    assert_eq!(Client::connect(gateway.address()).get("/plain/x", &[]).status, 200);
}

#[test]
fn of_what_goes_well_a_sample_has_lines_and_all_else_always() {
    let (upstream, signer) = (Upstream::start(), Signer::generate("k1"));
    let text = format!("{CONFIG}access_log: {{ sample: 0% }}\n");
    let mut gateway = Gateway::config(&text).var("upstream", upstream.address()).var("jwks", signer.jwks()).start();
    for _ in 0..50 {
        assert_eq!(gateway.get("/plain/good", &[]).status, 200);
    }
    assert_eq!(gateway.get("/api/orders/1", &[]).status, 401);
    assert_eq!(gateway.get("/nowhere", &[]).status, 404);
    // Two workers may write theirs in either order, and the good ones have been written or left out before.
    let statuses: BTreeSet<_> = gateway.log_lines(2).iter().filter_map(|line| line["status"].as_u64()).collect();
    assert_eq!(statuses, BTreeSet::from([401, 404]));
    assert_eq!((gateway.metric("sluice_access_log_left_out_total"), gateway.log().len()), (50.0, 2));
    assert_eq!(gateway.metric("sluice_access_log_dropped_total"), 0.0, "left out is not lost");
    assert_eq!(gateway.metric("sluice_requests_total{route=\"plain\",status_class=\"2xx\",code=\"\"}"), 50.0, "metrics count all");

    gateway.reload(&text.replace("0%", "99.99%"));
    let line = eventually("one falls into it", || {
        assert_eq!(gateway.get("/plain/one", &[]).status, 200);
        gateway.log().into_iter().find(|line| line["path"] == "/plain/one")
    });
    assert_eq!(line["sample"], 0.9999);
    // Whoever asks what a limit would have done must not count these.
    std::fs::write(gateway.dir().join("some.log"), format!("{line}\n")).unwrap();
    let told = gateway.sluice(&["limits", "simulate", "--log", "some.log", "--limit", "10/m", "--by", "client_ip"]);
    assert_eq!(told.status.code(), Some(1));
    assert!(String::from_utf8_lossy(&told.stderr).contains("`access_log.sample` left out"), "{told:?}");
}

#[test]
fn the_combined_format_is_what_readers_of_other_logs_expect_and_a_reload_changes_it() {
    let (upstream, signer) = (Upstream::start(), Signer::generate("k1"));
    let text = format!("{CONFIG}access_log: {{ to: access.log, format: combined }}\n");
    let mut gateway = Gateway::config(&text).var("upstream", upstream.address()).var("jwks", signer.jwks()).start();
    let headers = [("referer", "https://example.com/a?b=c"), ("user-agent", "tester/1.0 \"quoted\"")];
    let answer = gateway.get("/plain/%7ea?b=1&api_key=s3cret", &headers);
    assert_eq!(answer.status, 200);
    let file = gateway.dir().join("access.log");
    let lines = |count| {
        eventually("lines are written", || {
            let lines: Vec<_> = std::fs::read_to_string(&file).unwrap_or_default().lines().map(str::to_owned).collect();
            (lines.len() >= count).then_some(lines)
        })
    };
    // Two workers may write theirs in either order.
    lines(1);
    assert_eq!(gateway.get("/api/orders/1", &[]).status, 401);
    let written = lines(2);
    // Without the time, which is between the brackets.
    let around: Vec<_> = written.iter().map(|line| (line.split_once('[').unwrap().0, line.split_once(']').unwrap().1)).collect();
    let asked = "\"GET /plain/~a?b=1 HTTP/1.1\"";
    let expected = format!(" {asked} 200 {} \"https://example.com/a?b=c\" \"tester/1.0 \\x22quoted\\x22\"", answer.body.len());
    assert_eq!(around[0], ("127.0.0.1 - - ", expected.as_str()));
    assert!(around[1].1.starts_with(" \"GET /api/orders/1 HTTP/1.1\" 401 "), "{written:?}");

    gateway.reload(&text.replace("combined", "json"));
    eventually("lines are JSON", || {
        assert_eq!(gateway.get("/plain/b", &[]).status, 200);
        let line: Value = serde_json::from_str(lines(3).last()?).ok()?;
        (line["path"] == "/plain/b" && line["status"] == 200).then_some(())
    });
}
