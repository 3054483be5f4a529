//! gRPC between clients and servers that others wrote: Python's `grpcio` both sides, and in a browser the `grpc-web` package.

use std::process::{Command, Stdio};

use serde_json::{Value, json};

use super::harness::*;

const TEXT: &str = r#"
server: { threads: 2 }
listeners:
  public: { address: "127.0.0.1:{port}", deadlines: { body: 400ms } }
  page: { address: "127.0.0.1:{port:page}" }
authenticators: { partners: { api_key: { header: x-api-key } } }
consumers: { acme: { keys: [{ sha256: "9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08" }], scopes: [few] } }
limits:
  once: { rate: 1/h, by: [global] }
  once-web: { rate: 1/h, by: [global] }
upstreams:
  echo: { targets: ["{echo}"], protocol: h2, timeouts: { idle: 10m, response: 10m } }
  hasty: { targets: ["{echo}"], protocol: h2, timeouts: { idle: 300ms, response: 2s } }
  dead: { targets: ["127.0.0.1:1"], protocol: h2 }
  resets: { targets: ["{resets}"], protocol: h2 }
  page: { targets: ["{page}"] }
bundles:
  web:
    grpc: { web: true }
    cors:
      origins: ["http://127.0.0.1:{port:page}"]
      methods: [POST]
      headers: [content-type, x-grpc-web, x-user-agent, grpc-timeout]
      expose: [grpc-status, grpc-message]
routes:
  calls: { listeners: [public], match: { path: /**, headers: { x-case: absent } }, auth: public, upstream: echo }
  keys: { listeners: [public], match: { path: /**, headers: { x-case: keys } }, auth: [partners], upstream: echo }
  scopes: { listeners: [public], match: { path: /**, headers: { x-case: scopes } }, auth: [partners], allow: { scopes: [many] }, upstream: echo }
  limited: { listeners: [public], match: { path: /**, headers: { x-case: limited } }, auth: public, limits: [once], upstream: echo }
  small: { listeners: [public], match: { path: /**, headers: { x-case: small } }, auth: public, body: { limit: 4 }, upstream: echo }
  hasty: { listeners: [public], match: { path: /**, headers: { x-case: hasty } }, auth: public, upstream: hasty }
  dead: { listeners: [public], match: { path: /**, headers: { x-case: dead } }, auth: public, upstream: dead }
  resets: { listeners: [public], match: { path: /**, headers: { x-case: resets } }, auth: public, upstream: resets }
  gone: { listeners: [public], match: { path: /**, headers: { x-case: gone } }, auth: public, respond: { status: 410, code: moved-away } }
  methods: { listeners: [public], match: { path: /**, headers: { x-case: methods }, methods: [GET] }, auth: public, upstream: echo }
  web: { listeners: [public], match: { path: /web/** }, auth: public, use: [web], rewrite: { strip_prefix: /web }, upstream: echo }
  closed: { listeners: [public], match: { path: /closed/** }, auth: [partners], use: [web], rewrite: { strip_prefix: /closed }, upstream: echo }
  limited-web: { listeners: [public], match: { path: /limited/** }, auth: public, use: [web], limits: [once-web], rewrite: { strip_prefix: /limited }, upstream: echo }
  off: { listeners: [public], match: { path: /off/** }, auth: public, rewrite: { strip_prefix: /off }, upstream: echo, cors: { origins: ["http://127.0.0.1:{port:page}"], methods: [POST], headers: [content-type, x-grpc-web, x-user-agent] } }
  page: { listeners: [page], match: { path: /** }, auth: public, upstream: page }
"#;

struct Setup {
    gateway: Gateway,
    echo: PythonServer,
    page: Upstream,
}

/// `page`: what the page of the browser runs.
fn start(page: &str) -> Setup {
    let echo = PythonServer::start("grpc_server.py", &[]);
    let script = page.to_owned();
    let page = Upstream::script(move |request| match request.target.split('?').next().unwrap_or_default() {
        "/page" => {
            Answer::ok("<!doctype html><title>calls</title><script src=/page.js></script>").header("content-type", "text/html").steps()
        }
        "/page.js" => Answer::ok(script.clone()).header("content-type", "text/javascript").steps(),
        "/report" => [vec![Step::ReadBody], Answer::ok("thanks").steps()].concat(),
        _ => Answer::new(404).body("").steps(),
    });
    let config = Gateway::config(TEXT).var("echo", echo.address()).var("page", page.address()).var("resets", resets().address());
    Setup { gateway: config.start(), echo, page }
}

/// Says that it speaks HTTP/2, answers the first call with a head and a message, and then resets the connection.
fn resets() -> &'static Upstream {
    static RESETS: std::sync::OnceLock<Upstream> = std::sync::OnceLock::new();
    RESETS.get_or_init(Upstream::start)
}

// === gRPC-Web over HTTP/1.1 ===

fn frame(payload: &[u8]) -> Vec<u8> {
    [&[0][..], &u32::try_from(payload.len()).unwrap().to_be_bytes(), payload].concat()
}

/// The payloads of messages, and the text of the frame of trailers.
fn frames(mut body: &[u8]) -> (Vec<Vec<u8>>, String) {
    let (mut messages, mut trailers) = (Vec::new(), String::new());
    while let [kind, a, b, c, d, rest @ ..] = body {
        let (payload, rest) = rest.split_at(u32::from_be_bytes([*a, *b, *c, *d]) as usize);
        match kind {
            0 => messages.push(payload.to_vec()),
            0x80 => trailers = String::from_utf8(payload.to_vec()).unwrap(),
            other => panic!("a frame of kind {other}"),
        }
        body = rest;
    }
    (messages, trailers)
}

fn base64(bytes: &[u8]) -> Vec<u8> {
    use ::base64::Engine;
    ::base64::engine::general_purpose::STANDARD.encode(bytes).into_bytes()
}

fn unbase64(text: &[u8]) -> Vec<u8> {
    use ::base64::Engine;
    text.chunks(4).flat_map(|group| ::base64::engine::general_purpose::STANDARD.decode(group).unwrap()).collect()
}

#[test]
fn calls_of_browsers_are_translated_in_binary_and_in_text() {
    let setup = start("");
    let mut client = setup.gateway.client();
    let big = vec![7; 100_000];
    for (kind, is_text) in [("application/grpc-web+proto", false), ("application/grpc-web-text", true), ("application/grpc-web", false)] {
        let mut call = |name: &str, payload: &[u8]| {
            let body = if is_text { base64(&frame(payload)) } else { frame(payload) };
            let headers = [("content-type", kind), ("x-grpc-web", "1"), ("accept", kind), ("origin", "https://x.example")];
            let answer = client.post(&format!("/web/echo.Echo/{name}"), &headers, &body);
            // The codec is the upstream's to say.
            assert_eq!((answer.status, answer.header("content-type")), (200, kind.split('+').next()), "{name}");
            assert!(answer.is_keep_alive());
            frames(&if is_text { unbase64(&answer.body) } else { answer.body })
        };
        let (messages, trailers) = call("Unary", b"hello");
        assert_eq!(messages, [b"hello"]);
        assert!(trailers.contains("grpc-status: 0\r\n") && trailers.contains("x-trailer: from the server\r\n"), "{trailers}");
        assert_eq!(call("ServerStream", &big).0, [&big[..], &big, &big]);
        let (messages, trailers) = call("FailLate", b"x");
        assert_eq!(messages.len(), 2);
        assert!(trailers.contains("grpc-status: 15\r\n") && trailers.contains("grpc-message: lost\r\n"), "{trailers}");
        let sent = String::from_utf8(call("Metadata", b"").0.remove(0)).unwrap();
        assert!(!sent.contains("x-grpc-web") && !sent.contains("grpc-web"), "{sent}");
    }
    // Counted once the answer is out, so the client may be faster.
    for (status, count) in [("OK", 9.0), ("DATA_LOSS", 3.0)] {
        let series = format!("sluice_grpc_calls_total{{route=\"web\",status=\"{status}\"}}");
        eventually("the count of calls", || (setup.gateway.metric_now(&series) == count).then_some(()));
    }
    let line = setup.gateway.log_line_where(|line| line["grpc_status"] == "DATA_LOSS");
    assert_eq!((&line["status"], line.get("code")), (&json!(200), None));
}

#[test]
fn refusals_of_calls_of_browsers_are_the_last_frame_of_an_answer() {
    let setup = start("");
    let mut client = setup.gateway.client();
    let kind = [("content-type", "application/grpc-web+proto")];
    let refused = client.post("/closed/echo.Echo/Unary", &kind, &frame(b"x"));
    assert_eq!((refused.status, refused.header("x-problem-code")), (200, Some("credentials-missing")));
    assert_eq!(frames(&refused.body).1, "grpc-status: 16\r\ngrpc-message: A credential is needed.\r\n");
    let bad = client.post("/web/echo.Echo/Unary", &[("content-type", "application/grpc-web-text")], b"no base64!!!");
    assert!(frames(&unbase64(&bad.body)).1.contains("grpc-status: 13\r\n"), "{bad:?}");
    let line = setup.gateway.log_line_where(|line| line["code"] == "grpc-web-malformed");
    assert_eq!(line["grpc_status"], "INTERNAL");
    // A route that does not translate has nothing to do with any of it.
    let mut client = setup.gateway.client();
    let kind = [("content-type", "application/grpc-web+proto"), ("x-case", "keys")];
    assert_eq!(client.post("/echo.Echo/Unary", &kind, &frame(b"x")).code(), "credentials-missing");
}

#[test]
fn calls_of_browsers_are_translated_over_http_2_too() {
    let setup = start("");
    let dir = tempfile::tempdir().unwrap();
    for (kind, is_text) in [("application/grpc-web+proto", false), ("application/grpc-web-text+proto", true)] {
        let (sent, got) = (dir.path().join("sent"), dir.path().join("got"));
        let body = frame(b"hello");
        std::fs::write(&sent, if is_text { base64(&body) } else { body }).unwrap();
        let output = Command::new("curl")
            .args(["--noproxy", "*", "-sS", "-m", "20", "--http2-prior-knowledge", "-w", "%{http_version} %{http_code} %{content_type}"])
            .args(["-H", &format!("content-type: {kind}"), "--data-binary", &format!("@{}", sent.display()), "-o"])
            .arg(&got)
            .arg(format!("http://{}/web/echo.Echo/Unary", setup.gateway.address()))
            .output()
            .expect("curl is installed: scripts/setup.sh test");
        let said = String::from_utf8_lossy(&output.stdout).into_owned();
        assert_eq!(said, format!("2 200 {}", kind.split('+').next().unwrap()), "{}", String::from_utf8_lossy(&output.stderr));
        let got = std::fs::read(&got).unwrap();
        let (messages, trailers) = frames(&if is_text { unbase64(&got) } else { got });
        assert_eq!(messages, [b"hello"]);
        assert!(trailers.contains("grpc-status: 0\r\n"), "{trailers}");
    }
}

#[test]
fn explain_says_how_a_refusal_is_told_to_a_caller_of_grpc() {
    let setup = start("");
    let asked = ["explain", "sluice.yaml", "POST http://h/closed/a.B/C", "-H", "content-type: application/grpc-web"];
    let output = setup.gateway.sluice(&asked);
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(said.contains("401 credentials-missing, told as 200 and grpc-status UNAUTHENTICATED"), "{said}");
    let asked = ["explain", "sluice.yaml", "POST http://h/web/a.B/C", "-H", "content-type: application/grpc-web-text+proto"];
    let output = setup.gateway.sluice(&asked);
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(said.contains("content-type: application/grpc+proto") && said.contains("te: trailers"), "{said}");
}

#[test]
fn a_page_in_a_browser_calls_across_origins() {
    let root = std::path::Path::new(env!("CARGO_MANIFEST_DIR"));
    let modules = root.join("target/tools/npm/node_modules");
    let bundled = Command::new(modules.join(".bin/esbuild"))
        .arg(root.join("tests/it/peers/grpc_web_page.js"))
        .args(["--bundle", "--log-level=error"])
        .env("NODE_PATH", &modules)
        .output()
        .expect("esbuild is installed: scripts/setup.sh test");
    assert!(bundled.status.success(), "{}", String::from_utf8_lossy(&bundled.stderr));
    let setup = start(&String::from_utf8(bundled.stdout).unwrap());
    let profile = tempfile::tempdir().unwrap();
    let (page, api) = (setup.gateway.address_of("page"), setup.gateway.address());
    let mut browser = Command::new("chromium")
        .args(["--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking"])
        .args(["--disable-component-update", "--disable-sync", "--disable-dev-shm-usage", "--remote-debugging-port=0"])
        .arg(format!("--user-data-dir={}", profile.path().display()))
        .arg(format!("http://{page}/page?api=http://{api}"))
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .expect("chromium is installed: scripts/setup.sh test");
    let report = eventually("the page's report", || {
        setup.page.requests().into_iter().find(|request| request.target == "/report" && request.is_complete)
    });
    let _ = browser.kill();
    let _ = browser.wait();
    let told: Value = serde_json::from_slice(&report.body).unwrap();
    assert!(told.get("broken").is_none(), "{told:#}");
    let not_found = json!({ "code": 5, "message": "no such thing: 100 % sure, ä" });
    for format in ["binary", "text"] {
        let told = &told[format];
        assert_eq!((&told["unary"], &told["large"]), (&json!("hällo"), &json!(true)), "{told:#}");
        assert_eq!((&told["fail"], &told["refused"]["code"], &told["late"]["code"]), (&not_found, &json!(16), &json!(4)), "{told:#}");
        assert_eq!(told["refused"]["message"], "A credential is needed.");
    }
    assert_eq!(told["stream"], json!({ "messages": ["piece", "piece", "piece"], "status": 0, "error": null }), "{told:#}");
    assert_eq!(told["failLate"]["messages"], json!(["x", "x"]));
    assert_eq!(told["failLate"]["error"], json!({ "code": 15, "message": "lost" }));
    assert_eq!((&told["limited"], &told["off"]), (&json!([0, 8]), &told["off"]));
    assert_ne!(told["off"], "answered", "{told:#}");
}

// === gRPC over HTTP/2 ===

impl Setup {
    fn begin(&self, what: &str, metadata: &Value) -> PythonClient {
        PythonClient::start("grpc_client.py", &[what, &self.gateway.address().to_string(), &metadata.to_string()])
    }

    #[track_caller]
    fn ask(&self, what: &str, metadata: &Value) -> Value {
        self.begin(what, metadata).said()
    }

    #[track_caller]
    fn line(&self, is_it: impl Fn(&Value) -> bool) -> Value {
        self.gateway.log_line_where(is_it)
    }
}

#[test]
fn all_four_kinds_of_calls_pass_with_their_trailers() {
    let setup = start("");
    let told = setup.ask("kinds", &json!({}));
    let expected = json!({
        "unary": "hello", "trailers": ["from the server", [0, 255]], "server_stream": ["a", "a", "a"], "client_stream": "6", "bidi": true,
        "health": 1, "watch": 1,
    });
    assert_eq!(told, expected);
    let line = setup.line(|line| line["path"] == "/echo.Echo/Bidi");
    assert_eq!((&line["grpc_status"], &line["status"], &line["protocol"]), (&json!("OK"), &json!(200), &json!("HTTP/2.0")));
    assert!(line.get("code").is_none(), "{line}");
    let calls = |status: &str| setup.gateway.metric_now(&format!("sluice_grpc_calls_total{{route=\"calls\",status=\"{status}\"}}"));
    eventually("every call is counted", || (calls("OK") == 5.0 && calls("CANCELLED") == 1.0).then_some(()));
}

#[test]
fn messages_of_four_mebibytes_and_compressed_ones_pass() {
    let setup = start("");
    let told = setup.ask("large", &json!({}));
    let expected = json!({
        "unary": true, "server_stream": [true, true, true], "client_stream": (12 << 20).to_string(), "bidi": [true, true, true, true],
        "compressed": true, "deflated": true,
    });
    assert_eq!(told, expected);
}

#[test]
fn what_the_server_says_of_a_failure_reaches_the_caller_and_the_log() {
    let setup = start("");
    let told = setup.ask("failures", &json!({}));
    assert_eq!((&told["fail"]["code"], &told["fail"]["details"]), (&json!("NOT_FOUND"), &json!("no such thing: 100 % sure, ä")));
    assert_eq!((&told["late"]["pieces"], &told["late"]["error"]["code"]), (&json!(["x", "x"]), &json!("DATA_LOSS")));
    assert_eq!(told["unknown"]["code"], "UNIMPLEMENTED");
    for (path, status) in [("Fail", "NOT_FOUND"), ("FailLate", "DATA_LOSS"), ("NoSuchMethod", "UNIMPLEMENTED")] {
        let line = setup.line(|line| line["path"] == format!("/echo.Echo/{path}"));
        assert_eq!((&line["grpc_status"], &line["status"], line.get("code")), (&json!(status), &json!(200), None), "{line}");
        assert_eq!(setup.gateway.metric(&format!("sluice_grpc_calls_total{{route=\"calls\",status=\"{status}\"}}")), 1.0);
    }
}

#[test]
fn a_caller_that_cancels_cancels_at_the_server() {
    let setup = start("");
    assert_eq!(setup.ask("cancel", &json!({})), json!({ "first": "begun", "cancelled": 1, "code": "CANCELLED" }));
    let line = setup.line(|line| line["path"] == "/echo.Echo/Wait");
    assert_eq!((&line["code"], &line["grpc_status"]), (&json!("client-gone"), &json!("CANCELLED")));
}

#[test]
fn a_deadline_goes_on_to_the_server_and_is_kept() {
    let setup = start("");
    let told = setup.ask("deadline", &json!({}));
    let left = told["left"].as_f64().unwrap();
    assert!(left > 1.0 && left <= 7.0, "{told}");
    assert_eq!((&told["none"], &told["own"]), (&json!("none"), &json!("DEADLINE_EXCEEDED")));
    // The gateway's own clock, since the caller says how long it waits but does not look at its own. The server keeps the same time, and
    // now and then is the first.
    for (what, path) in [("hang", "WaitUnary"), ("hang_late", "Wait")] {
        eventually("a call that the gateway ends", || {
            let told = setup.ask(what, &json!({ "grpc-timeout": "500m" }));
            let error = if what == "hang" { &told } else { &told["error"] };
            assert_eq!(error["code"], "DEADLINE_EXCEEDED", "{told}");
            (error["fields"]["x-problem-code"] == "grpc-deadline").then_some(())
        });
        let line = setup.line(|line| line["path"] == format!("/echo.Echo/{path}") && line["code"] == "grpc-deadline");
        assert_eq!(line["grpc_status"], "DEADLINE_EXCEEDED");
    }
    // However busy both sides are; on a machine that is busy itself, messages may take longer to begin.
    eventually("a stream that is cut", || {
        let told = setup.ask("stream", &json!({ "grpc-timeout": "700m" }));
        assert_eq!(told["error"]["code"], "DEADLINE_EXCEEDED", "{told}");
        (told["count"].as_u64()? > 1).then_some(())
    });
    // The server keeps the same time, and either may be first; that the gateway's end holds is `relay::attempt::deadline`'s to show.
    assert_eq!(setup.line(|line| line["path"] == "/echo.Echo/Bidi")["grpc_status"], "DEADLINE_EXCEEDED");
}

#[test]
fn the_gateways_own_refusals_are_ones_that_a_caller_of_grpc_reads() {
    let setup = start("");
    let key = "test";
    for (case, metadata, status, code) in [
        ("keys", json!({}), "UNAUTHENTICATED", "credentials-missing"),
        ("keys", json!({ "x-api-key": "wrong" }), "UNAUTHENTICATED", "key-unknown"),
        ("scopes", json!({ "x-api-key": key }), "PERMISSION_DENIED", "scope-missing"),
        ("small", json!({}), "RESOURCE_EXHAUSTED", "body-too-large"),
        ("dead", json!({}), "UNAVAILABLE", "upstream-connect-failed"),
        ("resets", json!({}), "UNAVAILABLE", ""),
        ("gone", json!({}), "UNKNOWN", "moved-away"),
        ("methods", json!({}), "UNIMPLEMENTED", "method-not-allowed"),
        ("nowhere", json!({}), "UNIMPLEMENTED", "route-not-found"),
    ] {
        let mut metadata = metadata;
        metadata["x-case"] = json!(case);
        let told = setup.ask("unary", &metadata);
        assert_eq!(told["code"], status, "{case}: {told}");
        let said = told["fields"]["x-problem-code"].as_str().unwrap_or_default();
        assert!(said == code || code.is_empty(), "{case}: {told}");
        let line = setup.line(|line| line["code"] == said && line["status"] == 200);
        assert_eq!(line["grpc_status"], status, "{line}");
        assert!(told["fields"]["x-request-id"].is_string(), "{told}");
    }
    let told = setup.ask("unary", &json!({ "x-case": "limited" }));
    assert_eq!(told["answer"], "b'hello'");
    let told = setup.ask("unary", &json!({ "x-case": "limited" }));
    assert_eq!((&told["code"], &told["fields"]["x-problem-code"]), (&json!("RESOURCE_EXHAUSTED"), &json!("rate-limited")));
    assert!(told["fields"]["retry-after"].is_string() && told["fields"]["x-ratelimit-remaining"] == "0", "{told}");
    assert!(told["details"].as_str().unwrap().contains("once"), "{told}");
    assert_eq!(setup.gateway.metric("sluice_requests_total{route=\"limited\",status_class=\"4xx\",code=\"rate-limited\"}"), 1.0);
}

#[test]
fn silence_ends_a_call_with_a_status_before_and_after_its_first_message() {
    let setup = start("");
    for (what, code) in [("hang", "upstream-response-timeout"), ("hang_late", "upstream-idle-timeout")] {
        let told = setup.ask(what, &json!({ "x-case": "hasty" }));
        let error = if what == "hang" { &told } else { &told["error"] };
        assert_eq!((&error["code"], &error["fields"]["x-problem-code"]), (&json!("DEADLINE_EXCEEDED"), &json!(code)), "{told}");
    }
    // A caller that is silent for longer than a body may be is not, in a call.
    let stream = setup.begin("stream", &json!({}));
    let bytes = || setup.gateway.metric_now("sluice_requests_in_flight{listener=\"public\"}");
    eventually("the stream", || (bytes() == 1.0).then_some(()));
    assert_eq!(stream.said_after_input()["error"], Value::Null);
}

#[test]
fn a_call_whose_server_dies_in_the_middle_ends_with_a_status() {
    let Setup { gateway, echo, page: _page } = start("");
    let client = PythonClient::start("grpc_client.py", &["hang_late", &gateway.address().to_string(), "{}"]);
    let bytes = || gateway.metric_now("sluice_upstream_requests_total{upstream=\"echo\",result=\"2xx\"}");
    eventually("the first message", || (bytes() == 1.0).then_some(()));
    drop(echo);
    let told = client.said();
    assert_eq!(told["error"]["code"], "UNAVAILABLE", "{told}");
    let line = gateway.log_line_where(|line| line["path"] == "/echo.Echo/Wait");
    assert_eq!((&line["code"], &line["grpc_status"]), (&told["error"]["fields"]["x-problem-code"], &json!("UNAVAILABLE")));
}
