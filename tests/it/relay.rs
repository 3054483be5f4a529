//! What passes between a client and an upstream when nothing is wrong: connections, streams, tunnels, framing, shares.

use crate::harness::{Answer, Client, Gate, Gateway, HANDSHAKE, SWITCH, Step, Upstream, eventually};

const CONFIG: &str = r#"
server: { threads: 1 }
listeners: { public: { address: "127.0.0.1:{port}" } }
authenticators: { partners: { api_key: { header: x-api-key, forward: { x-client-id: consumer } } } }
consumers: { acme: { keys: [{ sha256: "2bb80d537b1da3e38bd30361aa855686bde0eacd7162fef6a25fe97bf527a25b" }] } } # `secret`
limits: { once: { rate: 1/h, by: [global] } }
upstreams: { up: { targets: ["{up}"] } }
defaults: { upstream: up }
routes:
  any: { match: { path: /a/** }, auth: public }
  key: { match: { path: /key/** }, auth: [partners] }
  once: { match: { path: /once }, auth: public, limits: [once] }
  api: { match: { path: /api/** }, auth: public, rewrite: { prefix: { from: /api, to: /v2 } } }
  renamed: { match: { path: /renamed/** }, auth: public, rewrite: { strip_prefix: /renamed, host: inner.example } }
  own: { match: { path: /own }, auth: public, rewrite: { host: upstream } }
"#;

fn start(upstream: &Upstream) -> Gateway {
    Gateway::config(CONFIG).var("up", upstream.address()).start()
}

fn send(bytes: impl AsRef<[u8]>) -> Step {
    Step::Send(bytes.as_ref().to_vec())
}

#[track_caller]
fn wait_for_bytes(upstream: &Upstream, bytes: &str) {
    eventually(bytes, || {
        let raw = upstream.raw();
        raw.iter().any(|raw| raw.windows(bytes.len()).any(|window| window == bytes.as_bytes())).then_some(())
    });
}

// === connections ===

#[test]
fn clients_share_the_connections_to_an_upstream() {
    let upstream = Upstream::start();
    let gateway = start(&upstream);
    for n in 0..10 {
        assert_eq!(gateway.get(&format!("/a/{n}"), &[]).status, 200);
    }
    let mut client = gateway.client();
    for n in 10..20 {
        assert_eq!(client.post(&format!("/a/{n}"), &[], b"body").status, 200);
    }
    assert_eq!((upstream.connections(), upstream.requests().len()), (1, 20));
    let metrics = gateway.metrics();
    let series = |what: &str| {
        metrics.lines().find(|line| line.starts_with("sluice_upstream_connections_total{") && line.contains(what)).map(str::to_owned)
    };
    assert!(series("reused").is_some_and(|line| line.ends_with(" 19")), "{:?}", series("reused"));
    assert!(series("new").is_some_and(|line| line.ends_with(" 1")), "{:?}", series("new"));
}

#[test]
fn refusals_keep_the_connection() {
    let upstream = Upstream::start();
    let gateway = start(&upstream);
    let mut client = gateway.client();
    assert_eq!(client.get("/once", &[]).status, 200);
    for _ in 0..3 {
        for (method, path, status, code) in [
            ("GET", "/once", 429, "rate-limited"),
            ("GET", "/nowhere", 404, "route-not-found"),
            ("GET", "/key/x", 401, "credentials-missing"),
            ("POST", "/key/x", 401, "credentials-missing"),
            ("GET", "/a//b", 400, "path-empty-segment"),
        ] {
            let body: &[u8] = if method == "POST" { &[b'x'; 5000] } else { b"" };
            let answer = client.request(method, path, &[], body);
            assert_eq!((answer.status, answer.code().as_str(), answer.is_keep_alive()), (status, code, true), "{method} {path}");
        }
        let head = client.request("HEAD", "/nowhere", &[], b"");
        assert_eq!((head.status, head.is_keep_alive()), (404, true));
    }
    assert_eq!(client.get("/a/b", &[]).text(), "hello from upstream");
    assert_eq!(upstream.requests().len(), 2);
}

#[test]
fn pipelined_requests_are_answered_in_their_order_and_judged_one_by_one() {
    let upstream = Upstream::script(|request| Answer::ok(request.target.clone()).steps());
    let gateway = start(&upstream);
    let mut client = gateway.client();
    let get = |path: &str| format!("GET {path} HTTP/1.1\r\nHost: a\r\n\r\n");
    let post = "POST /a/2 HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\nhello";
    let chunked = "POST /a/3 HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n";
    let all = [&get("/a/1"), post, chunked, &get("/nowhere"), &get("/key/x"), &get("/a//4"), &get("/a/5")].concat();
    client.send(all);
    for (status, text) in [(200, "/a/1"), (200, "/a/2"), (200, "/a/3"), (404, ""), (401, ""), (400, ""), (200, "/a/5")] {
        let answer = client.read();
        assert_eq!(answer.status, status);
        assert!(status != 200 || answer.text() == text, "{:?} is not the answer to {text}", answer.text());
    }
    // The first that is no request ends it: nobody knows where the next one begins.
    client.send([&get("/a/6"), "GET /a/7 HTTP/1.1\r\nHost: a\nX: y\r\n\r\n", &get("/a/8")].concat());
    assert_eq!((client.read().status, client.read().status), (200, 400));
    client.expect_close();
    let seen: Vec<String> = upstream.requests().into_iter().map(|request| request.target).collect();
    assert_eq!(seen, ["/a/1", "/a/2", "/a/3", "/a/5", "/a/6"]);
    assert_eq!(gateway.log_lines(9).len(), 9);
}

#[test]
fn a_client_may_send_many_requests_before_it_reads() {
    let upstream = Upstream::script(|request| Answer::ok(request.target.clone()).steps());
    let gateway = start(&upstream);
    let mut client = gateway.client();
    // Several times what the gateway reads ahead.
    let all: String = (0..1000).map(|n| format!("GET /a/{n} HTTP/1.1\r\nHost: a\r\nX: {}\r\n\r\n", "y".repeat(60))).collect();
    client.send(all);
    for n in 0..1000 {
        assert_eq!(client.read().text(), format!("/a/{n}"));
    }
}

#[test]
fn a_client_that_wants_to_close_is_told_that_it_will() {
    let upstream = Upstream::start();
    let gateway = start(&upstream);
    for path in ["/a/b", "/nowhere", "/key/x"] {
        for connection in ["close", "Close", "keep-alive, close"] {
            let mut client = gateway.client();
            let answer = client.get(path, &[("connection", connection)]);
            assert!(!answer.is_keep_alive(), "{path} with {connection}");
            client.expect_close();
        }
    }
}

// === framing ===

#[test]
fn answers_without_content_are_framed_as_such() {
    let upstream = Upstream::script(|request| match (request.method.as_str(), request.target.as_str()) {
        ("HEAD", "/a/chunked") => vec![Step::ReadBody, send("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")],
        ("HEAD", "/a/none") => vec![Step::ReadBody, send("HTTP/1.1 200 OK\r\n\r\n")],
        ("HEAD", _) => vec![Step::ReadBody, send("HTTP/1.1 200 OK\r\nContent-Length: 12345\r\nETag: \"x\"\r\n\r\n")],
        (_, "/a/204") => Answer::new(204).header("x-a", "b").steps(),
        (_, "/a/304") => vec![Step::ReadBody, send("HTTP/1.1 304 Not Modified\r\nETag: \"x\"\r\nContent-Length: 12345\r\n\r\n")],
        (_, "/a/empty") => Answer::ok("").steps(),
        (_, "/a/chunked-empty") => Answer::ok("").chunked().steps(),
        _ => Answer::ok("content").steps(),
    });
    let gateway = start(&upstream);
    let mut client = gateway.client();
    for _ in 0..2 {
        let head = client.request("HEAD", "/a/b", &[], b"");
        assert_eq!((head.status, head.header("content-length"), head.header("etag")), (200, Some("12345"), Some("\"x\"")));
        assert_eq!(client.request("HEAD", "/a/chunked", &[], b"").status, 200);
        assert_eq!(client.request("HEAD", "/a/none", &[], b"").status, 200);
        let no_content = client.get("/a/204", &[]);
        assert_eq!((no_content.status, no_content.header("x-a"), no_content.body.len()), (204, Some("b"), 0));
        let not_modified = client.get("/a/304", &[("if-none-match", "\"x\"")]);
        assert_eq!((not_modified.status, not_modified.header("etag")), (304, Some("\"x\"")));
        assert_eq!(client.get("/a/empty", &[]).body, b"");
        assert_eq!(client.get("/a/chunked-empty", &[]).body, b"");
        assert_eq!(client.get("/a/b", &[]).text(), "content");
    }
}

#[test]
fn a_client_of_1996_gets_what_it_understands() {
    let upstream = Upstream::script(|request| match request.target.as_str() {
        "/a/chunked" => Answer::ok("hello").chunked().steps(),
        "/a/of-its-age" => vec![Step::ReadBody, send("HTTP/1.0 200 OK\r\n\r\nhello"), Step::Close],
        "/a/broken" => {
            vec![Step::ReadBody, send("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n"), Step::Close]
        }
        _ => Answer::ok("hello").steps(),
    });
    let gateway = start(&upstream);
    for path in ["/a/length", "/a/chunked", "/a/of-its-age"] {
        let mut client = gateway.client();
        client.send(format!("GET {path} HTTP/1.0\r\nHost: a\r\n\r\n"));
        let answer = client.read();
        assert_eq!((answer.status, answer.text(), answer.is_chunked), (200, "hello", false), "{path}");
        assert_eq!(answer.header("transfer-encoding"), None);
        client.expect_close();
        let log = gateway.log_line_where(|line| line["path"] == path);
        assert_eq!(log["protocol"], "HTTP/1.0");
    }
    let mut client = gateway.client();
    client.send("GET /nowhere HTTP/1.0\r\n\r\n");
    assert_eq!(client.read().status, 404);
    client.expect_close();
    // With the end of the connection as the end of the body, only a reset tells that it is not the end.
    let mut client = gateway.client();
    client.send("GET /a/broken HTTP/1.0\r\nHost: a\r\n\r\n");
    let answer = client.try_read();
    assert!(answer.is_err(), "half an answer looks whole: {answer:?}");
}

#[test]
fn bodies_arrive_as_they_were_sent() {
    let upstream = Upstream::script(|request| {
        let size: usize = request.target.rsplit('/').next().and_then(|size| size.parse().ok()).unwrap_or_default();
        let body: Vec<u8> = (0..size).map(|n| (n % 251) as u8).collect();
        let answer = Answer::ok(body);
        if request.target.contains("chunked") { answer.chunked().steps() } else { answer.steps() }
    });
    let gateway = start(&upstream);
    let body = |size: usize| -> Vec<u8> { (0..size).map(|n| (n % 251) as u8).collect() };
    let mut client = gateway.client();
    for size in [0, 1, 4095, 4096, 4097, 65_535, 65_536, 65_537, 1 << 20] {
        for kind in ["plain", "chunked"] {
            let sent = body(size);
            let answer = if kind == "plain" {
                client.post(&format!("/a/{kind}/{size}"), &[], &sent)
            } else {
                let mut framed = Vec::new();
                for piece in sent.chunks(10_000) {
                    framed.extend_from_slice(format!("{:x}\r\n", piece.len()).as_bytes());
                    framed.extend_from_slice(piece);
                    framed.extend_from_slice(b"\r\n");
                }
                framed.extend_from_slice(b"0\r\n\r\n");
                client.post(&format!("/a/{kind}/{size}"), &[("transfer-encoding", "chunked")], &framed)
            };
            assert!(answer.body == body(size), "{kind} {size}: the answer differs");
            let last = upstream.last();
            assert!(last.body == sent && last.is_complete, "{kind} {size}: the request differs");
            let line = gateway.log_line_where(|line| line["path"] == format!("/a/{kind}/{size}"));
            assert_eq!((line["bytes_in"].as_u64(), line["bytes_out"].as_u64()), (Some(size as u64), Some(size as u64)), "{kind}");
        }
    }
}

// === streams ===

#[test]
fn an_answer_is_passed_on_as_it_comes() {
    for (head, pieces) in [
        ("Transfer-Encoding: chunked\r\n\r\n", ["5\r\nfirst\r\n", "6\r\nsecond\r\n0\r\n\r\n"]),
        ("Content-Length: 11\r\n\r\n", ["first", "second"]),
        ("\r\n", ["first", "second"]),
    ] {
        let (first, second) = (Gate::new(), Gate::new());
        let gates = (first.clone(), second.clone());
        let upstream = Upstream::script(move |_| {
            let head = send(format!("HTTP/1.1 200 OK\r\n{head}"));
            let (first, second) = (Step::WaitFor(gates.0.clone()), Step::WaitFor(gates.1.clone()));
            vec![Step::ReadBody, head, first, send(pieces[0]), second, send(pieces[1]), Step::Close]
        });
        let gateway = start(&upstream);
        let mut client = gateway.client();
        client.send("GET /a/b HTTP/1.1\r\nHost: a\r\n\r\n");
        // Each is read before the next is sent: nothing is held back.
        let mut until = |text: &str| {
            let mut seen = Vec::new();
            while !seen.ends_with(text.as_bytes()) {
                seen.extend(client.read_exactly(1));
            }
        };
        until("\r\n\r\n");
        first.open();
        until("first");
        second.open();
        until("second");
    }
}

#[test]
fn a_request_is_passed_on_as_it_comes() {
    for (framing, pieces) in
        [("Transfer-Encoding: chunked", ["5\r\nfirst\r\n", "6\r\nsecond\r\n0\r\n\r\n"]), ("Content-Length: 11", ["first", "second"])]
    {
        let upstream = Upstream::start();
        let gateway = start(&upstream);
        let mut client = gateway.client();
        client.send(format!("POST /a/b HTTP/1.1\r\nHost: a\r\n{framing}\r\n\r\n"));
        wait_for_bytes(&upstream, "POST /a/b");
        client.send(pieces[0]);
        wait_for_bytes(&upstream, "first");
        client.send(pieces[1]);
        assert_eq!(client.read().status, 200);
        assert_eq!(upstream.last().body, b"firstsecond");
    }
}

#[test]
fn an_answer_may_begin_before_the_request_has_ended() {
    let upstream = Upstream::script(|_| {
        let head = send("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nearly\r\n");
        vec![head, Step::ReadBody, send("4\r\nlate\r\n0\r\n\r\n")]
    });
    let gateway = start(&upstream);
    let mut client = gateway.client();
    client.send("POST /a/b HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n");
    let mut seen = Vec::new();
    while !seen.ends_with(b"early\r\n") {
        seen.extend(client.read_exactly(1));
    }
    client.send("5\r\nthere\r\n0\r\n\r\n");
    while !seen.ends_with(b"late\r\n0\r\n\r\n") {
        seen.extend(client.read_exactly(1));
    }
    assert_eq!(upstream.last().body, b"hellothere");
}

#[test]
fn a_client_that_waits_for_100_is_told_what_the_upstream_says() {
    let upstream = Upstream::script(|request| match request.target.as_str() {
        "/a/no" => vec![send("HTTP/1.1 417 No\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"), Step::Close],
        _ => vec![send("HTTP/1.1 100 Continue\r\n\r\n"), Step::ReadBody, send(Answer::ok("thanks").bytes())],
    });
    let gateway = start(&upstream);
    let mut client = gateway.client();
    let head = |path: &str| format!("POST {path} HTTP/1.1\r\nHost: a\r\nExpect: 100-continue\r\nContent-Length: 5\r\n\r\n");
    client.send(head("/a/yes"));
    let mut interim = Vec::new();
    while !interim.ends_with(b"\r\n\r\n") {
        interim.extend(client.read_exactly(1));
    }
    assert!(interim.starts_with(b"HTTP/1.1 100 "), "{:?}", String::from_utf8_lossy(&interim));
    client.send("hello");
    let mut rest = Vec::new();
    while !rest.ends_with(b"thanks") {
        rest.extend(client.read_exactly(1));
    }
    assert!(String::from_utf8_lossy(&rest).contains("HTTP/1.1 200 "), "{:?}", String::from_utf8_lossy(&rest));
    let mut client = gateway.client();
    client.send(head("/a/no"));
    assert_eq!(client.read().status, 417);
    // The gateway's own refusals come at once, and nobody waits for a body that will not be sent.
    let mut client = gateway.client();
    client.send(head("/nowhere"));
    let answer = client.read();
    assert_eq!((answer.status, answer.informational.len(), answer.is_keep_alive()), (404, 0, false));
}

// === tunnels ===

#[test]
fn a_websocket_passes_authentication_and_then_tunnels_both_ways() {
    let upstream = Upstream::script(|_| vec![send(SWITCH), send("from the upstream"), Step::Hang]);
    let gateway = start(&upstream);
    let mut client = gateway.client();
    client.send(format!("GET /key/ws HTTP/1.1\r\n{HANDSHAKE}\r\n"));
    let refused = client.read();
    assert_eq!((refused.status, refused.code().as_str()), (401, "credentials-missing"));
    assert_eq!(upstream.connections(), 0);
    // On the same connection: a refused handshake does not end it.
    client.send(format!("GET /key/ws HTTP/1.1\r\n{HANDSHAKE}X-API-Key: secret\r\nX-Client-Id: other\r\n\r\n"));
    let switched = client.read();
    assert_eq!((switched.status, switched.header("upgrade")), (101, Some("websocket")));
    assert_eq!(switched.header("sec-websocket-accept"), Some("s3pPLMBiTxaQ9kYGzzhZRbK+xOo="));
    client.send("from the client, \0\r\n\r\n");
    wait_for_bytes(&upstream, "from the client, \0\r\n\r\n");
    assert_eq!(client.read_exactly(17), b"from the upstream");
    assert!(gateway.log().iter().all(|line| line["status"] != 101), "the line comes at the end");
    drop(client);
    upstream.wait_for_all_closed();
    let line = gateway.log_line_where(|line| line["status"] == 101);
    assert_eq!((line["path"].as_str(), line["consumer"].as_str(), line["route"].as_str()), (Some("/key/ws"), Some("acme"), Some("key")));
    assert_eq!((line["bytes_in"].as_u64(), line["bytes_out"].as_u64()), (Some(22), Some(17)), "{line}");
    let head = String::from_utf8_lossy(&upstream.raw()[0]).to_ascii_lowercase();
    assert!(head.contains("x-client-id: acme\r\n") && !head.contains("secret") && !head.contains("other"), "{head}");
    assert!(head.contains("upgrade: websocket\r\n") && head.contains("sec-websocket-key: "), "{head}");
}

#[test]
fn a_tunnel_ends_when_either_side_ends_it() {
    let upstream = Upstream::script(|_| vec![send(SWITCH), send("bye"), Step::Close]);
    let gateway = start(&upstream);
    let mut client = gateway.client();
    client.send(format!("GET /a/ws HTTP/1.1\r\n{HANDSHAKE}\r\n"));
    assert_eq!(client.read().status, 101);
    assert_eq!(client.read_to_end(), b"bye");
    let line = gateway.log_line_where(|line| line["path"] == "/a/ws");
    assert_eq!((line["status"].as_u64(), line.get("code")), (Some(101), None), "{line}");
}

#[test]
fn what_follows_a_handshake_that_is_declined_is_no_tunnel() {
    let upstream = Upstream::script(|request| match request.target.as_str() {
        "/a/ws" => Answer::new(403).body("no").steps(),
        _ => Answer::ok("served").steps(),
    });
    let gateway = start(&upstream);
    for next in ["GET /nowhere HTTP/1.1\r\nHost: a\r\n\r\n", "GET /key/smuggled HTTP/1.1\r\nHost: a\r\n\r\n", "no HTTP at all\r\n\r\n"] {
        let mut client = gateway.client();
        // The client does not wait for the answer: to a careless proxy this is a tunnel already.
        client.send(format!("GET /a/ws HTTP/1.1\r\n{HANDSHAKE}\r\n{next}"));
        let declined = client.read();
        // Whichever is seen first: the upstream's answer, or bytes that may not come before it.
        assert!(declined.status == 403 || declined.code() == "body-malformed", "{declined:?}");
        client.finish_sending().read_to_end();
        assert_eq!(gateway.get("/a/good", &[]).text(), "served");
    }
    let raw = String::from_utf8_lossy(&upstream.raw().concat()).into_owned();
    assert!(!raw.contains("nowhere") && !raw.contains("smuggled") && !raw.contains("no HTTP"), "{raw}");
    assert!(upstream.requests().iter().all(|request| request.is_complete));
}

// === heads of answers ===

#[test]
fn answers_do_not_show_what_is_behind_the_gateway() {
    let upstream = Upstream::script(|request| {
        let own = request.header("host").unwrap_or_default().to_owned();
        let location = request.header("x-say").unwrap_or_default().replace("{own}", &own);
        Answer::new(302)
            .header("Location", &location)
            .header("Server", "Apache/2.4.1 (Unix)")
            .header("X-Powered-By", "PHP/5.6")
            .header("Connection", "keep-alive, x-hop")
            .header("Keep-Alive", "timeout=5")
            .header("X-Hop", "1")
            .header("X-Kept", "1")
            .steps()
    });
    let gateway = start(&upstream);
    let inner = upstream.address().to_string();
    let mut client = gateway.client();
    for (path, say, location) in [
        ("/a/b", "/a/c".to_owned(), "/a/c"),
        ("/a/b", format!("http://{inner}/a/c?d"), "http://test/a/c?d"),
        ("/a/b", "https://elsewhere.example/x".to_owned(), "https://elsewhere.example/x"),
        ("/a/b", "../x".to_owned(), "../x"),
        ("/api/users", "/v2/users/1".to_owned(), "/api/users/1"),
        ("/api/users", format!("http://{inner}/v2/users/1#top"), "http://test/api/users/1#top"),
        ("/api/users", "http://test/v2/users/1".to_owned(), "http://test/api/users/1"),
        ("/renamed/x", "http://inner.example/y".to_owned(), "http://test/renamed/y"),
        ("/renamed/x", "/y".to_owned(), "/renamed/y"),
        ("/own", "http://{own}/y".to_owned(), "http://test/y"),
    ] {
        let answer = client.get(path, &[("x-say", &say)]);
        assert_eq!((answer.status, answer.header("location")), (302, Some(location)), "{path}: {say}");
        for gone in ["server", "x-powered-by", "keep-alive", "x-hop"] {
            assert_eq!(answer.header(gone), None, "{gone}");
        }
        assert_eq!(answer.header("x-kept"), Some("1"));
        assert!(answer.is_keep_alive());
    }
}

// === shares ===

#[test]
fn targets_share_requests_by_their_weights() {
    let targets: Vec<Upstream> = (0..3).map(|_| Upstream::start()).collect();
    let gateway = Gateway::config(
        r#"
server: { threads: 1 }
listeners: { public: { address: "127.0.0.1:{port}" } }
upstreams:
  even: { targets: ["{a}", "{b}", "{c}"] }
  smooth: { targets: [{ address: "{a}", weight: 1 }, { address: "{b}", weight: 2 }, { address: "{c}", weight: 3 }] }
  drawn: { targets: [{ address: "{a}", weight: 1 }, { address: "{b}", weight: 9 }], balance: least_requests }
routes:
  even: { match: { path: /even }, auth: public, upstream: even }
  smooth: { match: { path: /smooth }, auth: public, upstream: smooth }
  drawn: { match: { path: /drawn }, auth: public, upstream: drawn }
"#,
    )
    .var("a", targets[0].address())
    .var("b", targets[1].address())
    .var("c", targets[2].address())
    .start();
    let count = |path: &str| -> Vec<usize> {
        targets.iter().map(|target| target.requests().iter().filter(|request| request.target == path).count()).collect()
    };
    let mut client = gateway.client();
    for _ in 0..60 {
        client.get("/even", &[]);
        client.get("/smooth", &[]);
    }
    assert_eq!((count("/even"), count("/smooth")), (vec![20, 20, 20], vec![10, 20, 30]));
    for _ in 0..300 {
        client.get("/drawn", &[]);
    }
    // 30 are expected; 8 and 60 are further away than chance goes in a million years of runs.
    let drawn = count("/drawn");
    assert!(drawn[0] + drawn[1] == 300 && (8..=60).contains(&drawn[0]), "{drawn:?}");
}

#[test]
fn the_less_busy_target_gets_the_next_request() {
    let gate = Gate::new();
    let held = gate.clone();
    let script = |held: Gate| {
        move |request: &crate::harness::Request| match request.target.as_str() {
            "/hold" => vec![Step::ReadBody, Step::WaitFor(held.clone()), send(Answer::ok("").bytes())],
            _ => Answer::ok("").steps(),
        }
    };
    let targets = [Upstream::script(script(held.clone())), Upstream::script(script(held))];
    let gateway = Gateway::config(
        r#"
listeners: { public: { address: "127.0.0.1:{port}" } }
upstreams: { two: { targets: ["{a}", "{b}"], balance: least_requests } }
routes: { any: { match: { path: /** }, auth: public, upstream: two } }
"#,
    )
    .var("a", targets[0].address())
    .var("b", targets[1].address())
    .start();
    let mut holding = gateway.client();
    holding.send("GET /hold HTTP/1.1\r\nHost: a\r\n\r\n");
    let busy = eventually("the held request", || targets.iter().position(|target| target.open_connections() == 1));
    let mut client = gateway.client();
    for _ in 0..20 {
        assert_eq!(client.get("/quick", &[]).status, 200);
    }
    assert_eq!(targets[1 - busy].requests().len(), 20, "all go past the busy one");
    gate.open();
    assert_eq!(holding.read().status, 200);
}

#[test]
fn a_client_can_be_of_any_size() {
    // Many at once, each with its own answer.
    let upstream = Upstream::script(|request| Answer::ok(request.target.clone()).steps());
    let gateway = start(&upstream);
    let mut clients: Vec<Client> = (0..50).map(|_| gateway.client()).collect();
    for round in 0..3 {
        for (n, client) in clients.iter_mut().enumerate() {
            client.send(format!("GET /a/{round}/{n} HTTP/1.1\r\nHost: a\r\n\r\n"));
        }
        for (n, client) in clients.iter_mut().enumerate() {
            assert_eq!(client.read().text(), format!("/a/{round}/{n}"));
        }
    }
    assert_eq!(gateway.log_lines(150).len(), 150);
}

// === what one route says must not be said on another ===

#[test]
fn what_one_route_sets_or_asks_for_clients_cannot_send_to_another() {
    let upstream = Upstream::start();
    let gateway = Gateway::config(
        r#"
listeners: { public: { address: "127.0.0.1:{port}" } }
authenticators: { links: { api_key: { query: key } }, own: { api_key: { query: token, pass: true } } }
consumers: { acme: { keys: [{ sha256: "2bb80d537b1da3e38bd30361aa855686bde0eacd7162fef6a25fe97bf527a25b" }] } } # `secret`
upstreams: { up: { targets: ["{up}"] } }
defaults: { upstream: up }
routes:
  inner: { match: { path: /inner }, auth: [links], request_headers: { set: { x-internal-auth: hush, accept: text/plain } } }
  passing: { match: { path: /passing }, auth: [own] }
  other: { match: { path: /other }, auth: public }
"#,
    )
    .var("up", upstream.address())
    .start();
    let forged = [("x-internal-auth", "forged"), ("X_Internal_Auth", "forged"), ("accept", "text/html"), ("accept_", "x")];
    let seen = |target: &str| {
        assert_eq!(gateway.get(target, &forged).status, 200, "{target}");
        let request = upstream.last();
        let of = |name: &str| request.header(name).map(str::to_owned);
        (request.target.clone(), of("x-internal-auth"), of("x_internal_auth"), of("accept"))
    };
    let says =
        |target: &str, secret: Option<&str>, accept: &str| (target.to_owned(), secret.map(str::to_owned), None, Some(accept.to_owned()));
    assert_eq!(seen("/inner?a=1&key=secret"), says("/inner?a=1", Some("hush"), "text/plain"));
    // Both went on: an upstream would have taken the header for the gateway's word, and has the key in its log.
    assert_eq!(seen("/other?a=1&key=secret&%6bey=2&token=secret"), says("/other?a=1", None, "text/html"));
    assert_eq!(seen("/passing?token=secret&key=secret"), says("/passing?token=secret", None, "text/html"));
    let told = gateway.sluice(&["explain", "sluice.yaml", "GET http://x/other?key=secret", "-H", "x-internal-auth: forged", "--json"]);
    let told: serde_json::Value = serde_json::from_slice(&told.stdout).unwrap();
    assert!(told["headers"]["removed"].as_array().unwrap().contains(&"x-internal-auth".into()), "{told}");
    assert!(!told.to_string().contains("secret"), "{told}");
}

#[test]
fn a_refusal_says_what_it_is_whatever_its_route_does_to_headers() {
    let gateway = Gateway::start(
        r#"
listeners: { public: { address: "127.0.0.1:{port}" } }
authenticators: { partners: { api_key: { header: x-api-key } } }
consumers: { acme: { keys: [{ sha256: "2bb80d537b1da3e38bd30361aa855686bde0eacd7162fef6a25fe97bf527a25b" }] } }
routes:
  removed: { match: { path: /removed }, auth: [partners], response_headers: { remove: [content-type] }, respond: { status: 200, body: hi } }
  set: { match: { path: /set }, auth: [partners], response_headers: { set: { content-type: text/html } }, respond: { status: 200, body: hi } }
  code: { match: { path: /code }, auth: public, response_headers: { remove: [content-type] }, respond: { status: 410, code: gone } }
"#,
    );
    for (path, status) in [("/removed", 401), ("/set", 401), ("/code", 410)] {
        let answer = gateway.get(path, &[]);
        assert_eq!((answer.status, answer.header("content-type")), (status, Some("application/problem+json")), "{path}");
    }
    // What the operator has written is the operator's.
    for (path, kind) in [("/removed", None), ("/set", Some("text/html"))] {
        assert_eq!(gateway.get(path, &[("x-api-key", "secret")]).header("content-type"), kind, "{path}");
    }
}
