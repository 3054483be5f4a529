//! What passes between a client of HTTP/2 and an upstream of HTTP/1.1 when nothing is wrong, and what the log says of it.

use std::io::Write;
use std::process::{Command, Stdio};

use crate::harness::http2::{self as h2, Http2, fields, get_fields};
use crate::harness::{Answer, Gate, Gateway, Step, Upstream, eventually};

const CONFIG: &str = r#"
server: { threads: 1, drain: 20s }
listeners:
  public: { address: "127.0.0.1:{port}" }
  old: { address: "127.0.0.1:{port:old}", protocols: [http1] }
  new: { address: "127.0.0.1:{port:new}", protocols: [http2] }
  narrow: { address: "127.0.0.1:{port:narrow}", http2: { streams: 2, window: 64KiB } }
authenticators: { partners: { api_key: { header: x-api-key, forward: { x-client-id: consumer } } } }
consumers: { acme: { keys: [{ sha256: "2bb80d537b1da3e38bd30361aa855686bde0eacd7162fef6a25fe97bf527a25b" }] } } # `secret`
limits: { once: { rate: 1/h, by: [global] } }
upstreams: { up: { targets: ["{up}"], timeouts: { response: 60s, idle: 60s } }, gone: { targets: ["127.0.0.1:1"] } }
defaults: { upstream: up }
routes:
  any: { listeners: [public, old, new, narrow], match: { path: /a/** }, auth: public }
  key: { listeners: [public], match: { path: /key/** }, auth: [partners] }
  once: { listeners: [public], match: { path: /once }, auth: public, limits: [once] }
  small: { listeners: [public], match: { path: /small }, auth: public, body: { limit: 10 } }
  gone: { listeners: [public], match: { path: /gone }, auth: public, upstream: gone }
  fixed: { listeners: [public], match: { path: /fixed }, auth: public, respond: { status: 204 } }
"#;

fn start(upstream: &Upstream) -> Gateway {
    Gateway::config(CONFIG).var("up", upstream.address()).start()
}

fn log_of(gateway: &Gateway, path: &str) -> serde_json::Value {
    gateway.log_line_where(|line| line["path"] == path)
}

#[test]
fn a_stream_is_a_request_like_any_other() {
    let upstream = Upstream::answering(Answer::ok("hello").header("x-own", "1").header("keep-alive", "timeout=5"));
    let gateway = start(&upstream);
    let mut client = Http2::connect(gateway.address());
    client.begin(1, &fields("POST", "/a/b?c=d", &[("cookie", "a=1"), ("x-user", "u"), ("cookie", "b=2"), ("te", "trailers")]));
    client.send(h2::DATA, 0, 1, "some").send(h2::DATA, h2::END_STREAM, 1, "thing");
    let answer = client.answer(1);
    assert_eq!((answer.status, answer.text(), answer.reset), (200, "hello", None));
    assert_eq!((answer.field("x-own"), answer.field("keep-alive"), answer.field("connection")), (Some("1"), None, None));

    let seen = upstream.last();
    assert_eq!((seen.method.as_str(), seen.target.as_str(), seen.body.as_slice()), ("POST", "/a/b?c=d", &b"something"[..]));
    assert_eq!((seen.header("host"), seen.header("cookie"), seen.header("te")), (Some("a.example"), Some("a=1; b=2"), None));
    let head = String::from_utf8(seen.head.clone()).unwrap();
    assert!(head.starts_with("POST /a/b?c=d HTTP/1.1\r\n") && !head.contains(":authority"), "{head}");

    let line = log_of(&gateway, "/a/b");
    assert_eq!((&line["protocol"], &line["host"], &line["query"]), (&"HTTP/2.0".into(), &"a.example".into(), &"c=d".into()));
    assert_eq!((&line["status"], &line["bytes_in"], &line["bytes_out"]), (&200.into(), &9.into(), &5.into()));
    assert_eq!(gateway.log().len(), 1);
}

#[test]
fn many_streams_share_a_connection_and_none_waits_for_another() {
    let gate = Gate::default();
    let held = gate.clone();
    let upstream = Upstream::script(move |request| match request.target.as_str() {
        "/a/held" => [vec![Step::WaitFor(held.clone())], Answer::ok("late").steps()].concat(),
        target => Answer::ok(target).steps(),
    });
    let gateway = start(&upstream);
    let mut client = Http2::connect(gateway.address());
    client.ask(1, &get_fields("/a/held", &[]));
    for n in 0..50 {
        client.ask(3 + 2 * n, &get_fields(&format!("/a/{n}"), &[]));
    }
    for n in (0..50).rev() {
        assert_eq!(client.answer(3 + 2 * n).text(), format!("/a/{n}"));
    }
    assert!(client.peek(1).is_none());
    gate.open();
    assert_eq!(client.answer(1).text(), "late");
}

#[test]
fn refusals_come_in_their_stream_and_the_connection_goes_on() {
    let upstream = Upstream::start();
    let gateway = start(&upstream);
    let mut client = Http2::connect(gateway.address());
    assert_eq!(client.get(1, "/once").status, 200);
    let mut stream = 1;
    for (method, path, more, status, code) in [
        ("GET", "/once", &[][..], 429, "rate-limited"),
        ("GET", "/nowhere", &[], 404, "route-not-found"),
        ("GET", "/key/x", &[], 401, "credentials-missing"),
        ("GET", "/a/%2fb", &[], 400, "path-encoded-slash"),
        ("GET", "/a/b", &[("host", "b.example")], 400, "host-mismatch"),
        ("GET", "/gone", &[], 502, "upstream-connect-failed"),
    ] {
        stream += 2;
        client.ask(stream, &fields(method, path, more));
        let answer = client.answer(stream);
        assert_eq!((answer.status, answer.code().as_str(), answer.reset), (status, code, None), "{method} {path}");
        assert_eq!(answer.field("content-type"), Some("application/problem+json"));
    }
    let logged: Vec<_> = gateway.log_lines(7).into_iter().skip(1).map(|line| line["code"].as_str().unwrap().to_owned()).collect();
    assert_eq!(
        logged,
        ["rate-limited", "route-not-found", "credentials-missing", "path-encoded-slash", "host-mismatch", "upstream-connect-failed"]
    );
    client.ask(101, &get_fields("/key/x", &[("x-api-key", "secret")]));
    assert_eq!(client.answer(101).status, 200);
    assert_eq!(upstream.last().header("x-client-id"), Some("acme"));
}

#[test]
fn answers_without_a_body_end_with_their_head() {
    let upstream = Upstream::script(|request| match request.target.as_str() {
        "/a/204" => Answer::new(204).steps(),
        "/a/304" => vec![Step::Send(b"HTTP/1.1 304 Not Modified\r\nContent-Length: 5\r\nETag: \"x\"\r\n\r\n".to_vec())],
        _ => vec![Step::Send(b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\n".to_vec())],
    });
    let gateway = start(&upstream);
    let mut client = Http2::connect(gateway.address());
    for (stream, method, path, status, length) in [
        (1, "HEAD", "/a/b", 200, Some("5")),
        (3, "GET", "/a/204", 204, None),
        (5, "GET", "/a/304", 304, Some("5")),
        (7, "GET", "/fixed", 204, None),
        (9, "HEAD", "/nowhere", 404, Some("x")),
    ] {
        client.ask(stream, &fields(method, path, &[]));
        let answer = client.answer(stream);
        assert_eq!((answer.status, answer.is_bare, answer.reset, answer.body.len()), (status, true, None, 0), "{method} {path}");
        assert_eq!(answer.field("content-length").is_some(), length.is_some(), "{method} {path}");
        if length == Some("5") {
            assert_eq!(answer.field("content-length"), length);
        }
    }
}

#[test]
fn informational_answers_pass() {
    let upstream = Upstream::script(|_| {
        let early = b"HTTP/1.1 103 Early Hints\r\nLink: </a.css>; rel=preload\r\n\r\n".to_vec();
        [vec![Step::Send(early)], Answer::ok("x").steps()].concat()
    });
    let gateway = start(&upstream);
    let mut client = Http2::connect(gateway.address());
    let answer = client.get(1, "/a/b");
    assert_eq!((answer.informational.as_slice(), answer.status, answer.text()), (&[103][..], 200, "x"));
}

#[test]
fn large_bodies_pass_in_both_directions_within_small_windows() {
    let large: Vec<u8> = (0..2_000_000u32).map(|n| (n % 251) as u8).collect();
    let expected = large.clone();
    let upstream = Upstream::script(move |_| [vec![Step::ReadBody], Answer::ok(large.clone()).steps()].concat());
    let gateway = start(&upstream);
    let mut client = Http2::connect(gateway.address_of("narrow"));
    client.ask(1, &get_fields("/a/b", &[]));
    let answer = client.answer(1);
    assert!(answer.body == expected && answer.reset.is_none(), "{} bytes, {:?}", answer.body.len(), answer.reset);
    // The client of others keeps to the windows that it is given.
    let mut curl = Command::new("curl")
        .args([
            "-s",
            "--max-time",
            "20",
            "--http2-prior-knowledge",
            "--data-binary",
            "@-",
            "-o",
            "/dev/null",
            "-w",
            "%{http_version} %{http_code} %{size_upload}",
        ])
        .arg(format!("http://{}/a/up", gateway.address_of("narrow")))
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    curl.stdin.take().unwrap().write_all(&expected).unwrap();
    let told = String::from_utf8(curl.wait_with_output().unwrap().stdout).unwrap();
    assert_eq!(told, "2 200 2000000");
    assert!(upstream.requests().iter().any(|request| request.target == "/a/up" && request.body == expected));
    let line = log_of(&gateway, "/a/up");
    assert_eq!((&line["bytes_in"], &line["bytes_out"]), (&2_000_000.into(), &2_000_000.into()));
}

#[test]
fn a_body_that_is_too_large_is_refused_and_the_rest_of_it_called_off() {
    let upstream = Upstream::script(|_| [vec![Step::ReadBody], Answer::ok("x").steps()].concat());
    let gateway = start(&upstream);
    let mut client = Http2::connect(gateway.address());
    client.begin(1, &fields("POST", "/small", &[])).send(h2::DATA, 0, 1, [b'x'; 100]);
    let answer = client.answer(1);
    assert_eq!((answer.status, answer.code().as_str()), (413, "body-too-large"));
    // RFC 9113 section 8.1: what else comes of the body is not wanted, which is no error.
    let reset = eventually("the end of the stream", || client.settle().peek(1).and_then(|rest| rest.reset));
    assert_eq!(reset, h2::NO_ERROR);
    assert_eq!(client.get(3, "/a/b").status, 200);
    assert_eq!(log_of(&gateway, "/small")["code"], "body-too-large");
}

#[test]
fn an_upstream_that_is_late_or_breaks_off_is_told_apart() {
    let send = |text: &str| Step::Send(text.as_bytes().to_vec());
    let upstream = Upstream::script(move |request| match request.target.as_str() {
        "/a/silent" => vec![Step::Hang],
        "/a/stalls" => vec![send("HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nhalf"), Step::Hang],
        "/a/breaks" => vec![send("HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nhalf"), Step::Close],
        "/a/closes" => vec![Step::Close],
        _ => Answer::ok("fine").steps(),
    });
    let gateway = Gateway::config(&CONFIG.replace("60s", "1s")).var("up", upstream.address()).start();
    let mut client = Http2::connect(gateway.address());
    for (stream, path) in [(1, "/a/silent"), (3, "/a/stalls"), (5, "/a/breaks"), (7, "/a/closes")] {
        client.ask(stream, &get_fields(path, &[]));
    }
    let silent = client.answer(1);
    assert_eq!((silent.status, silent.code().as_str(), silent.reset), (504, "upstream-response-timeout", None));
    for (stream, text) in [(3, "half"), (5, "")] {
        let cut = client.answer(stream);
        // A reset overtakes what stands before it in the queue.
        assert_eq!((cut.status, cut.is_ended), (200, false));
        assert!(cut.text().starts_with(text), "{cut:?}");
        assert!(cut.reset.is_some_and(|reason| reason != h2::NO_ERROR), "{cut:?}");
    }
    let closed = client.answer(7);
    assert_eq!((closed.status, closed.code().as_str()), (502, "upstream-closed"));
    assert_eq!(client.get(9, "/a/fine").text(), "fine");
    for (path, status, code) in [
        ("/a/silent", 504, "upstream-response-timeout"),
        ("/a/stalls", 200, "upstream-idle-timeout"),
        ("/a/breaks", 200, "upstream-closed"),
        ("/a/closes", 502, "upstream-closed"),
    ] {
        let line = log_of(&gateway, path);
        assert_eq!((&line["status"], &line["code"]), (&status.into(), &code.into()), "{path}");
    }
    assert_eq!(gateway.log_lines(5).len(), 5);
}

#[test]
fn a_stream_that_its_client_resets_ends_at_the_upstream_too_and_is_logged() {
    let upstream = Upstream::script(|_| vec![Step::Hang]);
    let gateway = start(&upstream);
    let mut client = Http2::connect(gateway.address());
    client.ask(1, &get_fields("/a/b", &[]));
    eventually("the request at the upstream", || (upstream.open_connections() == 1).then_some(()));
    client.reset(1, h2::CANCEL);
    upstream.wait_for_all_closed();
    let line = log_of(&gateway, "/a/b");
    assert_eq!((&line["status"], &line["code"], &line["protocol"]), (&499.into(), &"client-gone".into(), &"HTTP/2.0".into()));

    client.ask(3, &get_fields("/a/c", &[]));
    eventually("the request at the upstream", || (upstream.open_connections() == 1).then_some(()));
    drop(client);
    upstream.wait_for_all_closed();
    assert_eq!(log_of(&gateway, "/a/c")["code"], "client-gone");
    assert_eq!(gateway.log().len(), 2);
}

#[test]
fn a_listener_speaks_what_it_is_told_to() {
    let upstream = Upstream::start();
    let gateway = start(&upstream);
    // Short requests do not wait for the length of a preface.
    for (listener, status) in [("", 200), ("old", 200), ("new", 505)] {
        let address = if listener.is_empty() { gateway.address() } else { gateway.address_of(listener) };
        let mut client = crate::harness::Client::connect(address);
        client.send("GET /a HTTP/1.0\r\n\r\n");
        assert_eq!(client.read().status, status, "{listener}");
        let mut client = crate::harness::Client::connect(address);
        for byte in "PUT /a HTTP/1.0\r\n\r\n".as_bytes() {
            client.send([*byte]);
        }
        assert_eq!(client.read().status, status, "{listener}");
    }
    assert_eq!(Http2::connect(gateway.address_of("new")).get(1, "/a/b").status, 200);
    let mut client = crate::harness::Client::connect(gateway.address_of("old"));
    client.send(h2::PREFACE);
    let answer = client.read();
    assert_eq!((answer.status, answer.code().as_str()), (505, "version-unsupported"));
}

#[test]
fn no_more_streams_are_open_than_allowed() {
    let gate = Gate::default();
    let held = gate.clone();
    let upstream = Upstream::script(move |_| [vec![Step::WaitFor(held.clone())], Answer::ok("x").steps()].concat());
    let gateway = start(&upstream);
    let mut client = Http2::connect(gateway.address_of("narrow"));
    client.settle();
    assert_eq!((client.settings[&3], client.settings[&4]), (2, 64 << 10));
    for stream in [1, 3, 5] {
        client.ask(stream, &get_fields("/a/b", &[]));
    }
    assert_eq!(client.answer(5).reset, Some(h2::REFUSED_STREAM));
    gate.open();
    assert_eq!((client.answer(1).status, client.answer(3).status), (200, 200));
    assert_eq!(client.get(7, "/a/b").status, 200);
}

#[test]
fn a_stop_finishes_streams_and_says_goodbye() {
    let gate = Gate::default();
    let held = gate.clone();
    let upstream = Upstream::script(move |_| [vec![Step::WaitFor(held.clone())], Answer::ok("late").steps()].concat());
    let mut gateway = start(&upstream);
    let mut client = Http2::connect(gateway.address());
    let mut idle = Http2::connect(gateway.address());
    idle.settle();
    client.ask(1, &get_fields("/a/b", &[]));
    eventually("the request at the upstream", || (upstream.open_connections() == 1).then_some(()));
    gateway.signal(rustix::process::Signal::TERM);
    while client.goaways.is_empty() {
        client.step().expect("a GOAWAY");
    }
    gate.open();
    assert_eq!(client.answer(1).text(), "late");
    client.until_closed();
    idle.until_closed();
    assert!(client.goaways.iter().chain(&idle.goaways).all(|(reason, _)| *reason == h2::NO_ERROR));
    assert!(gateway.wait_for_exit().success());
}
