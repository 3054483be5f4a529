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
  hasty: { targets: ["{echo}"], protocol: h2, timeouts: { idle: 300ms, response: 300ms } }
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
  calls: { listeners: [public], match: { path: /** }, auth: public, upstream: echo }
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
    _echo: PythonServer,
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
    Setup { gateway: config.start(), _echo: echo, page }
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
    assert_eq!(setup.gateway.metric("sluice_grpc_calls_total{route=\"web\",status=\"OK\"}"), 9.0);
    assert_eq!(setup.gateway.metric("sluice_grpc_calls_total{route=\"web\",status=\"DATA_LOSS\"}"), 3.0);
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
