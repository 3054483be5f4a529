//! What upstreams do wrong, and clients that leave: what the client gets, what the log says, that nobody else is hurt.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use serde_json::Value;

use crate::harness::{Answer, Gate, Gateway, ReadError, Request, Step, Upstream, eventually, nobody};

const CONFIG: &str = r#"
server: { threads: 1 }
listeners: { public: { address: "127.0.0.1:{port}", deadlines: { body: {patience}, write: {patience} } } }
upstreams:
  up: { targets: ["{up}"] }
  hasty: { targets: ["{up}"], timeouts: { response: 800ms } }
  chatty: { targets: ["{up}"], timeouts: { idle: 1s } }
routes:
  up: { match: { path: /** }, auth: public, upstream: up }
  hasty: { match: { path: /hasty/** }, auth: public, upstream: hasty }
  chatty: { match: { path: /chatty/** }, auth: public, upstream: chatty }
  small: { match: { path: /small/** }, auth: public, upstream: up, body: { limit: 1KiB } }
"#;

fn start(upstream: &Upstream) -> Gateway {
    Gateway::config(CONFIG).var("patience", "60s").var("up", upstream.address()).start()
}

/// Likewise, with a gateway that does not wait long for clients.
fn start_impatient(upstream: &Upstream) -> Gateway {
    Gateway::config(CONFIG).var("patience", "300ms").var("up", upstream.address()).start()
}

/// What the client sees.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Sees {
    /// A problem document with this status and code.
    Problem(u16, &'static str),
    /// A sound answer with this status and body.
    Whole(u16, &'static str),
    /// The beginning of an answer, never its end; the code is only in the log, with status 200.
    Broken(&'static str),
}

use Sees::{Broken, Problem, Whole};

fn send(bytes: impl AsRef<[u8]>) -> Step {
    Step::Send(bytes.as_ref().to_vec())
}

const CLOSED: &str = "upstream-closed";
const PROTOCOL: &str = "upstream-protocol-error";

/// Path, what the upstream does, what the client sees.
fn cases() -> Vec<(&'static str, Vec<Step>, Sees)> {
    let says = |bytes: &str| vec![Step::ReadBody, send(bytes), Step::Close];
    let head = "HTTP/1.1 200 OK\r\n";
    let many: String = (0..300).map(|n| format!("x-{n}: y\r\n")).collect();
    let large = format!("{head}x: {}\r\n\r\n", "y".repeat(2 << 20));
    let drip = |first: &str, drops: usize, every: u64| {
        let drops = (0..drops).flat_map(|_| [Step::Pause(Duration::from_millis(every)), send("x")]);
        [Step::ReadBody, send(first)].into_iter().chain(drops).collect::<Vec<_>>()
    };
    vec![
        // before the head
        ("/reset", vec![Step::ReadBody, Step::Reset], Problem(502, CLOSED)),
        ("/close", vec![Step::ReadBody, Step::Close], Problem(502, CLOSED)),
        ("/half-head", says("HTTP/1.1 200 OK\r\nConte"), Problem(502, CLOSED)),
        ("/garbage", says("SSH-2.0-OpenSSH_9.2\r\n\r\n"), Problem(502, PROTOCOL)),
        ("/binary", says("\x16\x03\x01\x02\r\n\r\n"), Problem(502, PROTOCOL)),
        ("/http-0.9", says("<html>hello</html>\r\n\r\n"), Problem(502, PROTOCOL)),
        ("/bad-status", says("HTTP/1.1 abc OK\r\n\r\n"), Problem(502, PROTOCOL)),
        ("/bad-version", says("HTTP/7.1 200 OK\r\n\r\n"), Problem(502, PROTOCOL)),
        ("/bad-name", says("HTTP/1.1 200 OK\r\na(b: c\r\nContent-Length: 0\r\n\r\n"), Problem(502, PROTOCOL)),
        ("/nul", says("HTTP/1.1 200 OK\r\na: b\0c\r\nContent-Length: 0\r\n\r\n"), Problem(502, PROTOCOL)),
        ("/many-headers", says(&format!("{head}{many}\r\n")), Problem(502, PROTOCOL)),
        ("/large-head", says(&large), Problem(502, PROTOCOL)),
        ("/two-lengths", says(&format!("{head}Content-Length: 2\r\nContent-Length: 5\r\n\r\nhello")), Problem(502, PROTOCOL)),
        ("/bad-length", says(&format!("{head}Content-Length: -2\r\n\r\nhello")), Problem(502, PROTOCOL)),
        (
            "/unasked-101",
            says("HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: upgrade\r\n\r\n"),
            Problem(502, PROTOCOL),
        ),
        ("/hasty/hang", vec![Step::ReadBody, Step::Hang], Problem(504, "upstream-response-timeout")),
        ("/hasty/drip", drip("HTTP/1.1 200 OK\r\nx: ", 400, 50), Problem(504, "upstream-response-timeout")),
        (
            "/hasty/100",
            vec![Step::ReadBody, send("HTTP/1.1 103 Early Hints\r\n\r\n"), Step::Hang],
            Problem(504, "upstream-response-timeout"),
        ),
        // in the body
        ("/body-reset", vec![Step::ReadBody, send(format!("{head}Content-Length: 10\r\n\r\nhalf")), Step::Reset], Broken(CLOSED)),
        ("/body-close", says(&format!("{head}Content-Length: 10\r\n\r\nhalf")), Broken(CLOSED)),
        ("/chunk-close", says(&format!("{head}Transfer-Encoding: chunked\r\n\r\n4\r\nhalf\r\n")), Broken(CLOSED)),
        ("/chunk-cut", says(&format!("{head}Transfer-Encoding: chunked\r\n\r\n8\r\nhalf")), Broken(CLOSED)),
        ("/chunk-bad", says(&format!("{head}Transfer-Encoding: chunked\r\n\r\n4\r\nhalf\r\nzz\r\n")), Broken(PROTOCOL)),
        ("/chunk-huge", says(&format!("{head}Transfer-Encoding: chunked\r\n\r\n4\r\nhalf\r\nfffffffffffffffff\r\n")), Broken(PROTOCOL)),
        (
            "/chatty/hang",
            vec![Step::ReadBody, send(format!("{head}Content-Length: 10\r\n\r\nhalf")), Step::Hang],
            Broken("upstream-idle-timeout"),
        ),
        ("/chatty/drip", drip(&format!("{head}Content-Length: 12\r\n\r\n"), 12, 100), Whole(200, "xxxxxxxxxxxx")),
        // odd, but sound
        ("/until-close", says("HTTP/1.1 200 OK\r\n\r\nhello"), Whole(200, "hello")),
        ("/http-1.0", says("HTTP/1.0 200 OK\r\n\r\nhello"), Whole(200, "hello")),
        ("/no-reason", says("HTTP/1.1 200 \r\nContent-Length: 5\r\n\r\nhello"), Whole(200, "hello")),
        (
            "/length-and-chunks",
            says(&format!("{head}Content-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n")),
            Whole(200, "hello"),
        ),
        (
            "/early",
            vec![send("HTTP/1.1 413 Too Large\r\nContent-Length: 2\r\nConnection: close\r\n\r\nno"), Step::ReadBody, Step::Close],
            Whole(413, "no"),
        ),
        (
            "/early-hints",
            says("HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello"),
            Whole(200, "hello"),
        ),
        ("/more-than-told", says(&format!("{head}Content-Length: 5\r\n\r\nhello, and more")), Whole(200, "hello")),
        ("/204-with-body", says("HTTP/1.1 204 No Content\r\n\r\nhello"), Whole(204, "")),
        ("/304", says("HTTP/1.1 304 Not Modified\r\nContent-Length: 5\r\n\r\n"), Whole(304, "")),
    ]
}

#[test]
fn every_fault_of_an_upstream_has_its_answer_and_its_line() {
    let upstream = Upstream::script(|request| {
        let case = cases().into_iter().find(|(path, _, _)| *path == request.target);
        case.map_or_else(|| Answer::ok("good").steps(), |(_, steps, _)| steps)
    });
    let gateway = start(&upstream);
    let mut wrong = Vec::new();
    for (path, _, sees) in cases() {
        for method in ["GET", "POST"] {
            let body: &[u8] = if method == "POST" { b"hello" } else { b"" };
            let mut client = gateway.client();
            let got = client.try_request(method, path, &[], body);
            let (seen, id) = match &got {
                Ok(answer) if answer.header("content-type") == Some("application/problem+json") => {
                    (format!("{} {}", answer.status, answer.code()), answer.header("x-request-id"))
                }
                Ok(answer) => (format!("{} {:?}", answer.status, answer.text()), answer.header("x-request-id")),
                Err(ReadError::Cut(..)) => ("cut".to_owned(), None),
                Err(other) => (other.to_string(), None),
            };
            let line = gateway.log_line_where(|line| match id {
                Some(id) => line["request_id"] == id,
                None => line["path"] == path && line["method"] == method,
            });
            let (expected, status, code) = match sees {
                Problem(status, code) => (format!("{status} {code}"), status, code),
                Whole(status, body) => (format!("{status} {body:?}"), status, ""),
                Broken(code) => ("cut".to_owned(), 200, code),
            };
            if seen != expected {
                wrong.push(format!("{method} {path}: {expected} was expected; got {seen}"));
            }
            let logged = (line["status"].as_u64(), line["code"].as_str().unwrap_or_default());
            if logged != (Some(u64::from(status)), code) {
                wrong.push(format!("{method} {path}: the line should say {status} {code:?}: {line}"));
            }
            let name = path[1..].split_once('/').map_or("up", |(upstream, _)| upstream);
            let where_to = (line["upstream"].as_str(), line["target"].as_str());
            // On a connection from the pool it looks like one that had died there.
            let most = if method == "GET" && sees == Problem(502, CLOSED) { 2 } else { 1 };
            let attempts = line["attempts"].as_u64().unwrap_or_default();
            if where_to != (Some(name), Some(upstream.address().to_string().as_str())) || !(1..=most).contains(&attempts) {
                wrong.push(format!("{method} {path}: upstream, target or attempts are wrong: {line}"));
            }
            let text = format!("{got:?}");
            if text.contains(&upstream.address().to_string()) {
                wrong.push(format!("{method} {path}: the client learns the target: {text}"));
            }
            // Whatever it was: it does not stick to a connection that others use.
            let good = gateway.get("/good", &[]);
            if (good.status, good.text()) != (200, "good") {
                wrong.push(format!("{method} {path}: the next request got {} {:?}", good.status, good.text()));
            }
        }
    }
    assert!(!gateway.stderr().contains("panicked"), "{}", gateway.stderr());
    assert!(wrong.is_empty(), "{} differences:\n{}", wrong.len(), wrong.join("\n"));
}

#[test]
fn an_answer_that_nobody_asked_for_is_given_to_nobody() {
    let poison = "HTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\npoison";
    let gate = Gate::default();
    let held = gate.clone();
    let upstream = Upstream::script(move |request| match request.target.as_str() {
        // In one piece: what comes when the next request is under way is its answer, for all that anybody can tell.
        "/first" => vec![send([&Answer::ok("/first").bytes(), poison.as_bytes()].concat())],
        "/later" => [Answer::ok("/later").steps(), vec![Step::WaitFor(held.clone()), send(poison)]].concat(),
        other => Answer::ok(other).steps(),
    });
    let gateway = start(&upstream);
    let others = || (0..3).map(|n| format!("/{n}")).all(|path| gateway.get(&path, &[]).text() == path);
    for _ in 0..5 {
        assert_eq!(gateway.get("/first", &[]).text(), "/first");
        assert!(others());
    }
    assert_eq!(gateway.get("/later", &[]).text(), "/later");
    gate.open();
    upstream.wait_for_all_closed();
    assert!(others());
}

#[test]
fn content_where_none_may_be_is_given_to_nobody() {
    let upstream = Upstream::script(|request| match (request.method.as_str(), request.target.as_str()) {
        ("HEAD", _) => vec![Step::ReadBody, send("HTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\npoison")],
        (_, "/304") => vec![Step::ReadBody, send("HTTP/1.1 304 Not Modified\r\nContent-Length: 6\r\n\r\npoison")],
        (_, "/204") => vec![Step::ReadBody, send("HTTP/1.1 204 No Content\r\nContent-Length: 6\r\n\r\npoison")],
        _ => Answer::ok(request.target.clone()).steps(),
    });
    let gateway = start(&upstream);
    for (method, path, status) in [("HEAD", "/head", 200), ("GET", "/304", 304), ("GET", "/204", 204)] {
        for _ in 0..3 {
            let mut client = gateway.client();
            let answer = client.request(method, path, &[], b"");
            assert_eq!((answer.status, answer.body.len()), (status, 0), "{method} {path}");
            if answer.is_keep_alive() {
                assert_eq!(client.get("/same", &[]).text(), "/same", "after {method} {path}");
            }
            assert_eq!(gateway.get("/other", &[]).text(), "/other", "after {method} {path}");
        }
    }
}

#[test]
fn an_answer_that_comes_before_the_body_harms_no_connection() {
    let upstream = Upstream::script(|request| match request.target.as_str() {
        "/early" => vec![send("HTTP/1.1 413 Too Large\r\nContent-Length: 2\r\n\r\nno"), Step::ReadBody],
        _ => Answer::ok(request.target.clone()).steps(),
    });
    let gateway = start(&upstream);
    for framing in ["Content-Length: 10", "Transfer-Encoding: chunked"] {
        let (half, rest) = if framing.starts_with('C') { ("half,", " rest") } else { ("5\r\nhalf,\r\n", "5\r\n rest\r\n0\r\n\r\n") };
        let mut client = gateway.client();
        client.send(format!("POST /early HTTP/1.1\r\nHost: a\r\n{framing}\r\n\r\n{half}"));
        let answer = client.read();
        assert_eq!((answer.status, answer.text()), (413, "no"));
        client.send(rest).send("GET /next HTTP/1.1\r\nHost: a\r\n\r\n");
        if answer.is_keep_alive() {
            assert_eq!(client.read().text(), "/next", "{framing}: the connection was said to stay open");
        } else {
            client.expect_close();
        }
        for n in 0..3 {
            assert_eq!(gateway.get(&format!("/{n}"), &[]).text(), format!("/{n}"));
        }
    }
}

#[test]
fn an_answer_with_two_readings_has_one_for_the_client() {
    let chunks = "5\r\nhello\r\n0\r\n\r\n";
    let odd: Vec<String> = [
        "Content-Length: 5, 5\r\n\r\nhello",
        "Content-Length: 5\r\nContent-Length: 5\r\n\r\nhello",
        "Content-Length: +5\r\n\r\nhello",
        "Content-Length: 0x5\r\n\r\nhello",
        "Content-Length: 5 5\r\n\r\nhello",
        "Content-Length:\r\n\r\nhello",
        "Content-Length : 5\r\n\r\nhello",
        "Content-Length: 99999999999999999999\r\n\r\nhello",
        "Content-Length: 5\n\nhello",
        "A: b\r\n c\r\nContent-Length: 5\r\n\r\nhello",
        "A: b\rc\r\nContent-Length: 5\r\n\r\nhello",
        ": b\r\nContent-Length: 5\r\n\r\nhello",
        "A\r\nContent-Length: 5\r\n\r\nhello",
        "Content-Length: 5\r\nConnection: content-length\r\n\r\nhello",
        "Transfer-Encoding: identity\r\nContent-Length: 5\r\n\r\nhello",
        "Transfer-Encoding: xchunked\r\nContent-Length: 5\r\n\r\nhello",
    ]
    .iter()
    .map(|rest| format!("HTTP/1.1 200 OK\r\n{rest}"))
    .chain(
        [
            "Transfer-Encoding: chunked, chunked",
            "Transfer-Encoding: gzip, chunked",
            "Transfer-Encoding: Chunked",
            "Transfer-Encoding : chunked",
        ]
        .iter()
        .map(|line| format!("HTTP/1.1 200 OK\r\n{line}\r\n\r\n{chunks}")),
    )
    .chain(
        ["Content-Length: 5", "Content-Length: 3"]
            .iter()
            .map(|line| format!("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n{line}\r\n\r\n{chunks}")),
    )
    .chain([format!("HTTP/1.0 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n{chunks}")])
    .collect();
    let answers = odd.clone();
    let upstream = Upstream::script(move |request| match request.target[1..].parse::<usize>() {
        Ok(number) => vec![Step::ReadBody, send(&answers[number]), Step::Close],
        Err(_) => Answer::ok("good").steps(),
    });
    let gateway = start(&upstream);
    let mut wrong = Vec::new();
    for (number, text) in odd.iter().enumerate() {
        let mut client = gateway.client();
        match client.try_request("GET", &format!("/{number}"), &[], b"") {
            Ok(answer) if answer.status == 502 && answer.code() == PROTOCOL => {}
            // Two layers of coding, of which the gateway takes off one.
            Ok(answer) if answer.status == 200 && answer.text() == "hello" => {}
            // Broken off, which the client sees.
            Err(ReadError::Cut(..) | ReadError::Closed) => {}
            other => wrong.push(format!("{text:?}: {other:?}")),
        }
        assert_eq!(gateway.get("/good", &[]).text(), "good", "after {text:?}");
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn a_slow_client_is_not_taken_for_a_slow_upstream() {
    let upstream = Upstream::start();
    let gateway = start(&upstream);
    let mut client = gateway.client();
    client.send("POST /hasty/upload HTTP/1.1\r\nHost: a\r\nContent-Length: 10\r\n\r\n");
    // Longer in all than the upstream may take to answer.
    for _ in 0..10 {
        std::thread::sleep(Duration::from_millis(100));
        client.send("x");
    }
    assert_eq!(client.read().status, 200);
}

#[test]
fn the_time_of_an_upstream_is_not_the_gateways() {
    let upstream = Upstream::script(|request| {
        let answer = match request.target.as_str() {
            "/204" => Answer::new(204),
            "/304" => Answer::new(304),
            _ => Answer::ok(if request.method == "HEAD" { "" } else { "hello" }),
        };
        vec![Step::ReadBody, Step::Pause(Duration::from_millis(100)), Step::Send(answer.bytes())]
    });
    let gateway = start(&upstream);
    for (method, path) in [("GET", "/200"), ("POST", "/post"), ("HEAD", "/head"), ("GET", "/204"), ("GET", "/304")] {
        gateway.client().request(method, path, &[], b"");
        let line = line_of(&gateway, path);
        let time = |name: &str| line[name].as_u64().unwrap_or_default();
        assert!(time("upstream_us") >= 100_000 && time("upstream_us") + time("gateway_us") == time("total_us"), "{line}");
    }
}

// === connections ===

/// A listener that takes no more connections: the queue of those that nobody accepts is full.
fn full() -> (socket2::Socket, Vec<socket2::Socket>, SocketAddr) {
    let socket = || socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None).expect("sockets can be made");
    let listener = socket();
    listener.bind(&SocketAddr::from(([127, 0, 0, 1], 0)).into()).expect("there is a free port");
    listener.listen(0).expect("it listens");
    let address = listener.local_addr().ok().and_then(|address| address.as_socket()).expect("it has an address");
    let waiting = (0..4)
        .map(|_| {
            let one = socket();
            one.set_nonblocking(true).expect("it can be non-blocking");
            let _ = one.connect(&address.into());
            one
        })
        .collect();
    (listener, waiting, address)
}

fn line_of(gateway: &Gateway, path: &str) -> Value {
    gateway.log_line_where(|line| line["path"] == path)
}

#[test]
fn a_target_has_as_long_to_accept_as_is_written() {
    let (_listener, _waiting, full) = full();
    let gateway = Gateway::config(
        r#"
listeners: { public: { address: "127.0.0.1:{port}" } }
upstreams:
  patient: { targets: ["{full}"], timeouts: { connect: 5m } }
  usual: { targets: ["{full}"] }
routes:
  patient: { match: { path: /patient }, auth: public, upstream: patient }
  usual: { match: { path: /usual/** }, auth: public, upstream: usual }
"#,
    );
    let gateway = gateway.var("full", full).start();
    let mut patient = gateway.client();
    patient.send("GET /patient HTTP/1.1\r\nHost: a\r\n\r\n");
    // Whoever waits no longer than these would have been answered long before the second.
    for path in ["/usual/1", "/usual/2"] {
        assert_eq!(gateway.get(path, &[]).status, 504);
    }
    line_of(&gateway, "/usual/2");
    assert!(gateway.log().iter().all(|line| line["path"] != "/patient"), "{:?}", gateway.log());
}

#[test]
fn what_cannot_be_reached_is_told_from_what_is_slow_to_accept() {
    let alive = Upstream::start();
    let (_listener, _waiting, full) = full();
    let dead = nobody();
    let gateway = Gateway::config(
        r#"
listeners: { public: { address: "127.0.0.1:{port}" } }
upstreams:
  dead: { targets: ["{dead}"] }
  full: { targets: ["{full}"], timeouts: { connect: 200ms } }
  half: { targets: ["{dead}", "{alive}"] }
  slow: { targets: ["{full}", "{alive}"], timeouts: { connect: 200ms } }
  once: { targets: ["{dead}", "{alive}"], retries: { attempts: 1 } }
routes:
  dead: { match: { path: /dead }, auth: public, upstream: dead }
  full: { match: { path: /full }, auth: public, upstream: full }
  half: { match: { path: /half/** }, auth: public, upstream: half }
  slow: { match: { path: /slow/** }, auth: public, upstream: slow }
  once: { match: { path: /once/** }, auth: public, upstream: once }
"#,
    )
    .var("dead", dead)
    .var("full", full)
    .var("alive", alive.address())
    .start();
    for (path, status, code, target) in [("/dead", 502, "upstream-connect-failed", dead), ("/full", 504, "upstream-connect-timeout", full)]
    {
        let answer = gateway.get(path, &[]);
        assert_eq!((answer.status, answer.code().as_str()), (status, code));
        let line = line_of(&gateway, path);
        let seen = (line["status"].as_u64(), line["code"].as_str(), line["target"].as_str(), line["attempts"].as_u64());
        assert_eq!(seen, (Some(status.into()), Some(code), Some(target.to_string().as_str()), Some(1)), "{line}");
        assert!(!String::from_utf8_lossy(&answer.body).contains("127.0.0.1"), "the client learns the target");
    }
    // Another target takes what the first could not, whatever the method: nothing had been sent.
    for (name, first) in [("half", dead), ("slow", full)] {
        let mut attempts = Vec::new();
        for n in 0..4 {
            let path = format!("/{name}/{n}");
            let answer = crate::harness::post(gateway.address(), &path, &[], b"body");
            assert_eq!(answer.status, 200);
            let line = line_of(&gateway, &path);
            assert_eq!(line["target"], alive.address().to_string(), "{line}");
            attempts.push(line["attempts"].as_u64().unwrap_or_default());
        }
        attempts.sort_unstable();
        assert_eq!(attempts, [1, 1, 2, 2], "{name}: every other request meets {first} first");
    }
    let statuses: Vec<u16> = (0..4).map(|n| gateway.get(&format!("/once/{n}"), &[]).status).collect();
    assert_eq!(statuses.iter().filter(|status| **status == 502).count(), 2, "one attempt is one attempt: {statuses:?}");
    assert!(alive.requests().iter().all(|request| request.is_complete));
}

#[test]
fn a_pooled_connection_that_died_costs_an_idempotent_request_nothing() {
    // It takes the second request on a connection, and hangs up instead of answering.
    let dies = |request: &Request| request.index > 0;
    let upstream = Upstream::script(move |request| match request.target.as_str() {
        "/always" => vec![Step::ReadBody, Step::Close],
        _ if dies(request) => vec![Step::ReadBody, Step::Close],
        _ => Answer::ok("answered").steps(),
    });
    let gateway = start(&upstream);
    let large = vec![b'x'; 100 << 10];
    for (method, path, body, status, attempts) in [
        ("GET", "/get", &b""[..], 200, 2),
        ("HEAD", "/head", b"", 200, 2),
        ("PUT", "/put", b"body", 200, 2),
        ("DELETE", "/delete", b"", 200, 2),
        ("OPTIONS", "/options", b"", 200, 2),
        ("POST", "/post", b"body", 502, 1),
        ("PATCH", "/patch", b"body", 502, 1),
        ("PUT", "/large-put", &large, 502, 1),
        ("GET", "/always", b"", 502, 2),
    ] {
        // One connection in the pool, used once.
        upstream.close_connections();
        upstream.wait_for_all_closed();
        assert_eq!(gateway.get("/prepare", &[]).status, 200);
        let before = upstream.requests().len();
        let mut client = gateway.client();
        let framing = ("content-length", body.len().to_string());
        let head = format!("{method} {path} HTTP/1.1\r\nHost: test\r\n{}: {}\r\n\r\n", framing.0, framing.1);
        client.send(head).send(body);
        let answer = client.read_answer_to(method).unwrap_or_else(|error| panic!("{method} {path}: {error}"));
        assert_eq!(answer.status, status, "{method} {path}");
        let line = line_of(&gateway, path);
        assert_eq!(line["attempts"], attempts, "{line}");
        assert_eq!(line["code"].as_str(), (status == 502).then_some("upstream-closed"), "{line}");
        let fresh = upstream.requests().split_off(before);
        assert_eq!(fresh.len(), attempts, "{method} {path}: {fresh:?}");
        assert!(fresh.iter().all(|request| request.body == body || path == "/large-put"), "{method} {path}: a body is not whole");
    }
}

#[test]
fn a_target_that_fails_its_checks_gets_nothing_until_it_is_well() {
    let is_well = Arc::new(AtomicBool::new(true));
    let sick = is_well.clone();
    let upstream = Upstream::script(move |request| match request.target.as_str() {
        "/healthz" if !sick.load(Ordering::SeqCst) => Answer::new(500).steps(),
        _ => Answer::ok("one").steps(),
    });
    let other = Upstream::answering(Answer::ok("two"));
    let gateway = Gateway::config(
        r#"
listeners: { public: { address: "127.0.0.1:{port}" } }
upstreams:
  alone: { targets: ["{one}"], health: { path: /healthz, every: 200ms } }
  both: { targets: ["{one}", "{two}"], health: { path: /healthz, every: 200ms } }
routes:
  alone: { match: { path: /alone }, auth: public, upstream: alone }
  both: { match: { path: /both }, auth: public, upstream: both }
"#,
    )
    .var("one", upstream.address())
    .var("two", other.address())
    .start();
    eventually("200", || (gateway.get("/alone", &[]).status == 200).then_some(()));
    is_well.store(false, Ordering::SeqCst);
    let refused = eventually("503", || Some(gateway.get("/alone", &[])).filter(|answer| answer.status == 503));
    assert_eq!(refused.code(), "no-healthy-target");
    let id = refused.header("x-request-id").map(str::to_owned);
    let line = gateway.log_line_where(|line| line["request_id"].as_str() == id.as_deref());
    assert_eq!((line["status"].as_u64(), line["code"].as_str()), (Some(503), Some("no-healthy-target")), "{line}");
    assert_eq!((line.get("target"), line.get("attempts")), (None, None), "nothing was tried: {line}");
    eventually("that only the healthy one is left", || {
        let answers: Vec<String> = (0..6).map(|_| gateway.get("/both", &[]).text().to_owned()).collect();
        answers.iter().all(|answer| answer == "two").then_some(())
    });
    is_well.store(true, Ordering::SeqCst);
    eventually("200 again", || (gateway.get("/alone", &[]).status == 200).then_some(()));
    eventually("both again", || {
        let answers: Vec<String> = (0..6).map(|_| gateway.get("/both", &[]).text().to_owned()).collect();
        (answers.iter().filter(|answer| *answer == "one").count() == 3).then_some(())
    });
}

// === clients ===

#[test]
fn a_client_that_leaves_takes_its_upstream_request_with_it() {
    let upstream = Upstream::script(|request| match request.target.as_str() {
        "/endless" => {
            let head = "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n";
            vec![Step::ReadBody, send(head), Step::Hang]
        }
        "/upload" => vec![Step::ReadBody],
        _ => vec![Step::ReadBody, Step::Hang],
    });
    let gateway = start(&upstream);
    for (number, reset) in [true, false].into_iter().enumerate() {
        for (path, request, status) in [
            ("/hang", "GET /hang HTTP/1.1\r\nHost: a\r\n\r\n", 499),
            ("/endless", "GET /endless HTTP/1.1\r\nHost: a\r\n\r\n", 200),
            ("/upload", "POST /upload HTTP/1.1\r\nHost: a\r\nContent-Length: 100\r\n\r\nhalf", 499),
            ("/chunks", "POST /chunks HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n4\r\nhalf\r\n", 499),
        ] {
            let mut client = gateway.client();
            client.send(request);
            eventually("the request at the upstream", || (upstream.open_connections() == 1).then_some(()));
            if path == "/endless" {
                client.read_exactly(60);
            } else {
                // Its beginning has arrived; then the client goes.
                let end = request.rsplit("\r\n").find(|part| !part.is_empty()).unwrap_or_default();
                eventually("the bytes at the upstream", || {
                    upstream.raw().last().filter(|raw| raw.windows(end.len()).any(|w| w == end.as_bytes()) || path == "/hang").map(|_| ())
                });
            }
            if reset {
                client.reset()
            } else {
                drop(client)
            }
            upstream.wait_for_all_closed();
            let lines = eventually("the line", || {
                let lines: Vec<Value> = gateway.log().into_iter().filter(|line| line["path"] == path).collect();
                (lines.len() > number).then_some(lines)
            });
            let line = &lines[number];
            assert_eq!((line["status"].as_u64(), line["code"].as_str()), (Some(status), Some("client-gone")), "{line}");
            assert_eq!(line["upstream"], "up", "{line}");
        }
    }
    let incomplete = upstream.requests().iter().filter(|request| !request.is_complete).count();
    assert_eq!(incomplete, 4, "no half upload was completed");
}

#[test]
fn a_client_that_stops_reading_is_given_up() {
    let body = vec![b'x'; 8 << 20];
    let upstream = Upstream::answering(Answer::ok(body));
    let gateway = start_impatient(&upstream);
    let mut client = gateway.client();
    client.send("GET /big HTTP/1.1\r\nHost: a\r\n\r\n");
    let line = line_of(&gateway, "/big");
    assert_eq!((line["status"].as_u64(), line["code"].as_str()), (Some(200), Some("reader-too-slow")), "{line}");
    upstream.wait_for_all_closed();
}

#[test]
fn a_client_that_stops_sending_is_told_so() {
    let upstream = Upstream::start();
    let gateway = start_impatient(&upstream);
    let mut client = gateway.client();
    client.send("POST /stalled HTTP/1.1\r\nHost: a\r\nContent-Length: 10\r\n\r\nhalf");
    let answer = client.read();
    assert_eq!((answer.status, answer.code().as_str()), (408, "body-timeout"));
    client.expect_close();
    upstream.wait_for_all_closed();
    assert!(!upstream.last().is_complete);
    let line = line_of(&gateway, "/stalled");
    assert_eq!((line["status"].as_u64(), line["code"].as_str(), line["bytes_in"].as_u64()), (Some(408), Some("body-timeout"), Some(4)));
}

#[test]
fn a_body_over_the_limit_is_refused_however_it_is_framed() {
    let upstream = Upstream::start();
    let gateway = start(&upstream);
    // Declared: nothing is sent on, and what is small enough is read away.
    let mut client = gateway.client();
    for _ in 0..2 {
        let answer = client.post("/small/declared", &[], &[b'x'; 1025]);
        assert_eq!((answer.status, answer.code().as_str(), answer.is_keep_alive()), (413, "body-too-large", true));
    }
    assert_eq!(client.post("/small/exact", &[], &[b'x'; 1024]).status, 200);
    let answer = client.post("/small/large", &[], &vec![b'x'; 100 << 10]);
    assert_eq!((answer.status, answer.is_keep_alive()), (413, false));
    client.expect_close();
    assert_eq!(upstream.requests().len(), 1);
    // In chunks: it shows only on the way, and the upstream never gets the end.
    let mut client = gateway.client();
    client.send("POST /small/chunks HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n");
    client.send(b"200\r\n").send([b'x'; 512]).send(b"\r\n201\r\n").send([b'x'; 513]).send(b"\r\n0\r\n\r\n");
    let answer = client.read();
    assert_eq!((answer.status, answer.code().as_str(), answer.is_keep_alive()), (413, "body-too-large", false));
    client.expect_close();
    assert!(!upstream.wait_for_requests(2)[1].is_complete);
    let line = line_of(&gateway, "/small/chunks");
    assert_eq!((line["status"].as_u64(), line["code"].as_str(), line["attempts"].as_u64()), (Some(413), Some("body-too-large"), Some(1)));
    let mut client = gateway.client();
    client.send("POST /small/fits HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n");
    client.send(b"400\r\n").send([b'x'; 1024]).send(b"\r\n0\r\n\r\n");
    assert_eq!(client.read().status, 200);
}
