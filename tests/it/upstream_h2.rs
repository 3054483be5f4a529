//! HTTP/2 to upstreams, by prior knowledge: streams and connections, what is sent again, what is told to whom when it fails.

use serde_json::Value;

use crate::harness::h2_upstream::{H2Upstream, field};
use crate::harness::http2::{Http2, get_fields};
use crate::harness::{Client, Gateway, ReadError, eventually};

const CONFIG: &str = r#"
server: { threads: 1 }
listeners: { public: { address: "127.0.0.1:{port}" } }
authenticators: { partners: { api_key: { header: x-api-key, forward: { x-client-id: consumer } } } }
consumers: { acme: { keys: [{ sha256: "2bb80d537b1da3e38bd30361aa855686bde0eacd7162fef6a25fe97bf527a25b" }] } } # `secret`
upstreams:
  up: { targets: ["{up}"], protocol: h2{more} }
  once: { targets: ["{up}"], protocol: h2, retries: { attempts: 1 } }
  hasty: { targets: ["{up}"], protocol: h2, timeouts: { response: 1s, idle: 300ms } }
  brief: { targets: ["{up}"], protocol: h2, timeouts: { response: 60s, idle: 300ms } }
  single: { targets: ["{up}"], protocol: h2, http2: { streams: 1 } }
routes:
  up: { match: { path: /** }, auth: public, upstream: up }
  key: { match: { path: /key/** }, auth: [partners], upstream: up }
  once: { match: { path: /once/** }, auth: public, upstream: once, rewrite: { strip_prefix: /once } }
  hasty: { match: { path: /hasty/** }, auth: public, upstream: hasty, rewrite: { strip_prefix: /hasty } }
  brief: { match: { path: /brief/** }, auth: public, upstream: brief, rewrite: { strip_prefix: /brief } }
  single: { match: { path: /single/** }, auth: public, upstream: single, rewrite: { strip_prefix: /single } }
  small: { match: { path: /small/** }, auth: public, upstream: up, body: { limit: 1KiB } }
  own: { match: { path: /own }, auth: public, upstream: up, rewrite: { host: upstream } }
"#;

fn start(upstream: &H2Upstream) -> Gateway {
    Gateway::config(CONFIG).var("up", &upstream.address).var("more", "").start()
}

fn connections(gateway: &Gateway, which: &str) -> f64 {
    gateway.metric_now(&format!(r#"sluice_upstream_connections_total{{upstream="up",connection="{which}"}}"#))
}

// === requests and answers ===

#[test]
fn a_request_goes_upstream_as_one_of_http_2_with_the_gateways_own_head() {
    let upstream = H2Upstream::start(&[]);
    let gateway = start(&upstream);
    let mut client = gateway.client();
    client.send("POST /key/a?b=c HTTP/1.1\r\nHost: shop.example\r\nX-API-Key: secret\r\nX-Client-Id: evil\r\nConnection: close\r\nKeep-Alive: 5\r\nTE: trailers\r\nTransfer-Encoding: chunked\r\nCookie: a=1; b=2\r\n\r\n5\r\nhello\r\n0\r\n\r\n");
    let answer = client.read();
    assert_eq!((answer.status, answer.text()), (200, "/key/a?b=c"));
    let request = upstream.requests("/key/a?b=c", 1).remove(0);
    for (name, value) in [
        (":method", "POST"),
        (":scheme", "http"),
        (":authority", "shop.example"),
        ("x-client-id", "acme"),
        ("x-forwarded-for", "127.0.0.1"),
        ("x-forwarded-host", "shop.example"),
        ("cookie", "a=1; b=2"),
    ] {
        assert_eq!(field(&request, name), [value], "{name}: {request}");
    }
    for gone in ["host", "connection", "te", "transfer-encoding", "x-api-key", "upgrade", "keep-alive"] {
        assert!(field(&request, gone).is_empty(), "{gone}: {request}");
    }
    assert_eq!(request["body"], "68656c6c6f");
    let line = gateway.log_line_where(|line| line["path"] == "/key/a");
    assert_eq!((line["bytes_in"].as_u64(), line["bytes_out"].as_u64()), (Some(5), Some(10)), "{line}");
    assert_eq!(
        (line["upstream"].as_str(), line["target"].as_str(), line["attempts"].as_u64()),
        (Some("up"), Some(upstream.address.as_str()), Some(1))
    );

    gateway.get("/own", &[]);
    assert_eq!(field(&upstream.requests("/own", 1)[0], ":authority"), [upstream.address.as_str()]);
}

#[test]
fn answers_of_every_framing_reach_clients_of_http_1() {
    let upstream = H2Upstream::start(&[]);
    let gateway = start(&upstream);
    let mut client = gateway.client();
    for (method, path, status, body) in [
        ("GET", "/plain", 200, "/plain"),
        ("GET", "/no-length", 200, "hello, world"),
        ("GET", "/trailers", 200, "hello"),
        ("GET", "/empty", 204, ""),
        ("HEAD", "/empty", 204, ""),
        ("POST", "/echo", 200, "body"),
        ("POST", "/at-once", 413, "no"),
        ("GET", "/hints/3", 200, "/hints/3"),
        ("GET", "/goaway-then-answer", 200, "/goaway-then-answer"),
    ] {
        let answer = client.request(method, path, &[], if method == "POST" { b"body" } else { b"" });
        assert_eq!((answer.status, answer.text()), (status, body), "{method} {path}");
        let line = gateway.log_line_where(|line| line["path"] == path && line["method"] == method);
        assert_eq!(line["status"], status, "{line}");
        assert_eq!(line["code"], Value::Null, "{line}");
    }
    let trailers = gateway.get("/trailers", &[]);
    assert_eq!((trailers.header("x-sum"), trailers.header("transfer-encoding")), (None, Some("chunked")));
}

#[test]
fn trailers_reach_clients_of_http_2_and_te_reaches_the_upstream() {
    let upstream = H2Upstream::start(&[]);
    let config = CONFIG.replace(r#""127.0.0.1:{port}" }"#, r#""127.0.0.1:{port}", protocols: [http1, http2] }"#);
    let gateway = Gateway::config(&config).var("up", &upstream.address).var("more", "").start();
    let mut client = Http2::connect(gateway.address());
    client.ask(1, &get_fields("/trailers", &[("te", "trailers")]));
    let answer = client.answer(1);
    assert_eq!((answer.status, answer.text()), (200, "hello"));
    assert_eq!(answer.trailers, [("x-sum".to_owned(), "5".to_owned()), ("grpc-status".to_owned(), "0".to_owned())]);
    let request = upstream.requests("/trailers", 1).remove(0);
    assert_eq!((field(&request, "te"), field(&request, ":authority")), (vec!["trailers"], vec!["a.example"]));
    client.ask(3, &get_fields("/hasty/hang", &[]));
    assert_eq!(client.answer(3).code(), "upstream-response-timeout");
    client.ask(5, &get_fields("/brief/half-hang", &[]));
    assert_eq!(gateway.log_line_where(|line| line["path"] == "/brief/half-hang")["code"], "upstream-idle-timeout");
}

#[test]
fn a_client_of_http_1_0_gets_no_chunks() {
    let upstream = H2Upstream::start(&[]);
    let gateway = start(&upstream);
    for (path, body) in [("/no-length", "hello, world"), ("/plain", "/plain")] {
        let mut client = gateway.client();
        client.send(format!("GET {path} HTTP/1.0\r\n\r\n"));
        let all = String::from_utf8(client.read_to_end()).unwrap();
        assert!(all.starts_with("HTTP/1.1 200 ") && all.ends_with(&format!("\r\n\r\n{body}")), "{all}");
        assert!(!all.to_lowercase().contains("transfer-encoding"), "{all}");
    }
}

#[test]
fn bodies_of_many_windows_pass_both_ways() {
    let upstream = H2Upstream::start(&[]);
    let gateway = start(&upstream);
    let body: Vec<u8> = (0..3_000_000u32).map(|n| (n % 251) as u8).collect();
    let answer = gateway.client().post("/echo", &[], &body);
    assert_eq!(answer.status, 200);
    assert!(answer.body == body, "{} bytes came back", answer.body.len());
    assert_eq!(gateway.client().post("/small/a", &[], &[0; 2000]).code(), "body-too-large");
}

#[test]
fn a_websocket_is_refused_where_http_2_is_spoken() {
    let upstream = H2Upstream::start(&[]);
    let gateway = start(&upstream);
    let upgrade = [
        ("connection", "upgrade"),
        ("upgrade", "websocket"),
        ("sec-websocket-version", "13"),
        ("sec-websocket-key", "dGhlIHNhbXBsZSBub25jZQ=="),
    ];
    let answer = gateway.get("/ws", &upgrade);
    assert_eq!((answer.status, answer.code().as_str()), (501, "upgrade-unsupported"));
    assert!(upstream.events("request").is_empty());
    assert_eq!(gateway.log_line_where(|line| line["path"] == "/ws")["code"], "upgrade-unsupported");
}

#[test]
fn an_upstream_does_not_send_faster_than_the_client_reads() {
    let upstream = H2Upstream::start(&[]);
    let gateway = start(&upstream);
    let mut client = gateway.client();
    client.send("GET /big/100000000 HTTP/1.1\r\nHost: a\r\n\r\n");
    client.read_exactly(1000);
    // Another request on the same connection is served meanwhile: one slow client holds up nobody.
    assert_eq!(gateway.get("/other", &[]).text(), "/other");
    assert!(upstream.events("sent").is_empty(), "100 MB are nowhere but in the upstream");
    let status = std::fs::read_to_string(format!("/proc/{}/status", gateway.pid())).unwrap();
    let resident =
        status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap().trim().trim_end_matches(" kB").parse::<u64>().unwrap();
    assert!(resident < 100_000, "{resident} kB");
    client.reset();
    eventually("the stream is reset", || upstream.events("reset").first().cloned());
    assert_eq!(upstream.events("connection").len(), 1);
    assert_eq!(gateway.log_line_where(|line| line["path"] == "/big/100000000")["code"], "client-gone");
}

// === connections ===

#[test]
fn requests_share_a_connection_as_streams() {
    let upstream = H2Upstream::start(&[]);
    let gateway = start(&upstream);
    assert_eq!(gateway.get("/first", &[]).status, 200);
    let mut waiting: Vec<Client> = (0..20)
        .map(|n| {
            let mut client = gateway.client();
            client.send(format!("GET /hang/{n} HTTP/1.1\r\nHost: a\r\n\r\n"));
            upstream.requests(&format!("/hang/{n}"), 1);
            client
        })
        .collect();
    assert_eq!(gateway.get("/last", &[]).status, 200);
    assert_eq!(upstream.events("connection").len(), 1);
    assert_eq!((connections(&gateway, "new"), connections(&gateway, "reused")), (1.0, 21.0));
    waiting.drain(..).for_each(Client::reset);
    eventually("all streams are reset", || (upstream.events("reset").len() == 20).then_some(()));
}

#[test]
fn a_connection_carries_as_many_streams_as_configured_and_as_the_target_allows() {
    let upstream = H2Upstream::start(&["--streams", "2"]);
    let gateway = start(&upstream);
    let hang = |prefix: &str, n: usize| {
        let mut client = gateway.client();
        client.send(format!("GET {prefix}/hang/{n} HTTP/1.1\r\nHost: a\r\n\r\n"));
        upstream.requests(&format!("/hang/{n}"), 1);
        client
    };
    assert_eq!(gateway.get("/first", &[]).status, 200);
    let _two: Vec<_> = (0..2).map(|n| hang("", n)).collect();
    assert_eq!(upstream.events("connection").len(), 1);
    let _third = hang("", 2);
    assert_eq!(upstream.events("connection").len(), 2);
    assert_eq!(gateway.get("/single/a", &[]).status, 200);
    eventually("upstreams share no connections", || (upstream.events("connection").len() == 3).then_some(()));
    let _more: Vec<_> = (3..6).map(|n| hang("/single", n)).collect();
    assert_eq!(upstream.events("connection").len(), 5, "one stream a connection");
}

#[test]
fn a_connection_that_does_not_answer_pings_is_given_up() {
    let upstream = H2Upstream::start(&[]);
    let gateway = Gateway::config(CONFIG).var("up", &upstream.address).var("more", ", http2: { ping: 1s }").start();
    let deaf = gateway.get("/deaf", &[]);
    assert_eq!((deaf.status, deaf.code().as_str()), (502, "upstream-closed"));
    assert_eq!(gateway.get("/after", &[]).status, 200);
}

#[test]
fn after_a_timeout_later_requests_get_another_connection() {
    let upstream = H2Upstream::start(&[]);
    let gateway = start(&upstream);
    let deaf = gateway.get("/hasty/deaf", &[]);
    assert_eq!((deaf.status, deaf.code().as_str()), (504, "upstream-response-timeout"));
    let after = gateway.get("/hasty/after", &[]);
    assert_eq!((after.status, after.header("x-connection")), (200, Some("1")));
    assert_eq!(gateway.get("/hasty/again", &[]).header("x-connection"), Some("1"));
}

// === what is sent again ===

#[test]
fn what_the_target_has_not_begun_with_is_sent_again_whatever_the_method() {
    let upstream = H2Upstream::start(&[]);
    let gateway = start(&upstream);
    for path in ["/refuse-once/a", "/goaway-once/0/a", "/goaway-once/11/a"] {
        for method in ["POST", "GET"] {
            let path = format!("{path}/{method}");
            let answer = gateway.client().request(method, &path, &[], if method == "POST" { b"pay" } else { b"" });
            assert_eq!((answer.status, answer.text()), (200, path.as_str()), "{method} {path}");
            let requests = upstream.requests(&path, 2);
            assert_eq!(requests[0]["body"], requests[1]["body"], "{path}");
            assert_eq!(gateway.log_line_where(|line| line["path"] == path.as_str())["attempts"], 2);
        }
    }
}

#[test]
fn what_the_target_may_have_begun_with_is_not_sent_again() {
    let upstream = H2Upstream::start(&[]);
    let gateway = start(&upstream);
    for path in ["/goaway-after/0/a", "/goaway-after/2/a", "/reset-once/a", "/close-once/a"] {
        let answer = gateway.client().post(path, &[], b"pay");
        assert_eq!((answer.status, answer.code().as_str()), (502, "upstream-closed"), "{path}");
        assert_eq!(upstream.requests(path, 1).len(), 1, "{path}");
        assert_eq!(gateway.log_line_where(|line| line["path"] == path)["attempts"], 1);
        assert_eq!(gateway.get("/next", &[]).status, 200);
    }
}

#[test]
fn nothing_is_sent_again_beyond_the_attempts() {
    let upstream = H2Upstream::start(&[]);
    let gateway = start(&upstream);
    for (path, upstream_path, count) in
        [("/refuse", "/refuse", 2), ("/once/refuse/b", "/refuse/b", 1), ("/once/goaway-once/0/b", "/goaway-once/0/b", 1)]
    {
        let answer = gateway.client().post(path, &[], b"pay");
        assert_eq!((answer.status, answer.code().as_str()), (502, "upstream-closed"), "{path}");
        assert_eq!(upstream.requests(upstream_path, count).len(), count, "{path}");
    }
    // What was not kept cannot be sent again.
    let answer = gateway.client().post("/refuse-once/large", &[], &vec![7; 100_000]);
    assert_eq!((answer.status, answer.code().as_str()), (502, "upstream-closed"));
    assert_eq!(upstream.requests("/refuse-once/large", 1).len(), 1);
}

#[test]
fn a_refused_request_goes_to_another_target_first() {
    let (one, two) = (H2Upstream::start(&[]), H2Upstream::start(&[]));
    let config = CONFIG.replace(r#"["{up}"], protocol: h2{more}"#, r#"["{up}", "{two}"], protocol: h2"#);
    let gateway = Gateway::config(&config).var("up", &one.address).var("two", &two.address).start();
    for n in 0..4 {
        assert_eq!(gateway.client().post(&format!("/refuse/{n}"), &[], b"pay").code(), "upstream-closed");
        assert_eq!((one.requests(&format!("/refuse/{n}"), 1).len(), two.requests(&format!("/refuse/{n}"), 1).len()), (1, 1));
    }
}

#[test]
fn an_idle_connection_that_died_is_noticed_or_replaced() {
    let upstream = H2Upstream::start(&[]);
    let gateway = start(&upstream);
    for n in 0..5 {
        // Answered, and then the connection is gone.
        assert_eq!(gateway.client().post(&format!("/goaway-then-answer/{n}"), &[], b"").status, 200);
        assert_eq!(gateway.client().post(&format!("/plain/{n}"), &[], b"pay").status, 200);
    }
}

// === faults ===

#[test]
fn every_fault_of_an_http_2_upstream_has_its_answer_and_its_line() {
    let upstream = H2Upstream::start(&[]);
    let gateway = start(&upstream);
    let (closed, protocol) = ("upstream-closed", "upstream-protocol-error");
    let mut wrong = Vec::new();
    for (path, status, code) in [
        ("/reset", 502, closed),
        ("/close", 502, closed),
        ("/refuse", 502, closed),
        ("/hasty/hang", 504, "upstream-response-timeout"),
        ("/hasty/deaf", 504, "upstream-response-timeout"),
        ("/two-lengths", 502, protocol),
        ("/many-headers", 502, protocol),
        ("/large-header", 502, protocol),
        ("/connection-header", 502, protocol),
        ("/upper-case", 502, protocol),
        ("/no-status", 502, protocol),
        ("/bad-status", 502, protocol),
        ("/garbage", 502, protocol),
        ("/frame-too-large", 502, protocol),
        ("/other-stream", 502, protocol),
        ("/half-reset", 200, closed),
        ("/half-close", 200, closed),
        ("/half-end", 200, protocol),
        ("/brief/half-hang", 200, "upstream-idle-timeout"),
        ("/more-than-the-window", 200, protocol),
    ] {
        for method in ["GET", "POST"] {
            let got = gateway.client().try_request(method, path, &[], if method == "POST" { b"body" } else { b"" });
            let seen = match &got {
                Ok(answer) if answer.status >= 400 => (answer.status, answer.code()),
                Ok(answer) => (answer.status, format!("whole, {} bytes", answer.body.len())),
                Err(ReadError::Cut(..)) => (200, code.to_owned()),
                Err(other) => (0, other.to_string()),
            };
            if seen != (status, code.to_owned()) {
                wrong.push(format!("{method} {path}: {status} {code} was expected; got {seen:?}"));
                continue;
            }
            let line = gateway.log_line_where(|line| line["path"] == path && line["method"] == method);
            if (line["status"].as_u64(), line["code"].as_str()) != (Some(u64::from(status)), Some(code)) {
                wrong.push(format!("{method} {path}: the line is wrong: {line}"));
            }
            if format!("{got:?}").contains(&upstream.address) {
                wrong.push(format!("{method} {path}: the client learns the target: {got:?}"));
            }
            let good = gateway.client().post("/good", &[], b"");
            if (good.status, good.text()) != (200, "/good") {
                wrong.push(format!("{method} {path}: the next request got {} {}", good.status, good.text()));
            }
        }
    }
    assert!(!gateway.stderr().contains("panicked"), "{}", gateway.stderr());
    assert!(wrong.is_empty(), "{} differences:\n{}", wrong.len(), wrong.join("\n"));
}

#[test]
fn an_upstream_of_http_1_where_http_2_is_spoken_is_a_protocol_error() {
    let http1 = crate::harness::Upstream::start();
    let gateway = Gateway::config(CONFIG).var("up", http1.address()).var("more", "").start();
    let answer = gateway.get("/a", &[]);
    assert_eq!(answer.status, 502);
    assert!(["upstream-protocol-error", "upstream-closed"].contains(&answer.code().as_str()), "{}", answer.code());
}

#[test]
fn floods_of_frames_end_their_connection_and_take_no_memory() {
    let upstream = H2Upstream::start(&[]);
    let gateway = start(&upstream);
    let mut wrong = Vec::new();
    for path in [
        "/hasty/hints-for-ever",
        "/hasty/continuation-for-ever",
        "/hasty/empty-continuations",
        "/hasty/resets-for-ever",
        "/hasty/settings-for-ever",
        "/hasty/pings-for-ever",
        "/hasty/empty-data-for-ever",
    ] {
        let answer = gateway.client().try_request("GET", path, &[], b"");
        let line = gateway.log_line_where(|line| line["path"] == path);
        if line["code"] == Value::Null {
            wrong.push(format!("{path}: {answer:?} {line}"));
        }
        let status = std::fs::read_to_string(format!("/proc/{}/status", gateway.pid())).unwrap();
        let resident =
            status.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap().trim().trim_end_matches(" kB").parse::<u64>().unwrap();
        println!("{path}: {} {resident} kB", line["code"]);
        if resident > 150_000 {
            wrong.push(format!("{path}: {resident} kB"));
        }
        if gateway.get("/good", &[]).status != 200 {
            wrong.push(format!("{path}: the next request is not served"));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}
