//! The harness's own tests: a harness that misses something makes every test that stands on it worthless.

use sluice::echo::{Answers, Echo};

use super::*;

#[test]
fn a_request_is_recorded_byte_for_byte() {
    let upstream = Upstream::answering(Answer::new(201).header("X-A", "1").body("made"));
    let mut client = Client::connect(upstream.address());
    let response = client.post("/a?b", &[("X-Odd", " v"), ("x-odd", "w")], b"body");
    assert_eq!((response.status, response.text(), response.header("x-a")), (201, "made", Some("1")));
    let request = upstream.last();
    let head = "POST /a?b HTTP/1.1\r\nHost: test\r\nX-Odd:  v\r\nx-odd: w\r\nContent-Length: 4\r\n\r\n";
    assert_eq!(String::from_utf8(request.head.clone()).unwrap(), head);
    assert_eq!((request.method.as_str(), request.target.as_str(), request.body.as_slice()), ("POST", "/a?b", b"body".as_slice()));
    assert_eq!(request.all("X-ODD"), ["v", "w"]);
    assert_eq!(upstream.raw(), [format!("{head}body").into_bytes()]);
}

#[test]
fn connections_and_requests_on_them_are_counted() {
    let upstream = Upstream::start();
    let mut one = Client::connect(upstream.address());
    one.get("/1", &[]);
    one.get("/2", &[]);
    get(upstream.address(), "/3", &[]);
    let seen: Vec<_> = upstream.requests().iter().map(|r| (r.connection, r.index, r.target.clone())).collect();
    assert_eq!(seen, [(0, 0, "/1".into()), (0, 1, "/2".into()), (1, 0, "/3".into())]);
    drop(one);
    upstream.wait_for_all_closed();
    assert_eq!((upstream.connections(), upstream.open_connections()), (2, 0));
}

#[test]
fn chunked_bodies_pass_both_ways() {
    let body = "3\r\nabc\r\n1;x\r\nd\r\n0\r\nT: 1\r\n\r\n";
    let upstream = Upstream::answering(Answer::ok(vec![b'x'; 2500]).chunked());
    let response = post(upstream.address(), "/", &[("Transfer-Encoding", "chunked")], body.as_bytes());
    assert!(response.is_chunked);
    assert_eq!(response.body, vec![b'x'; 2500]);
    assert_eq!((upstream.last().body, upstream.last().raw_body), (b"abcd".to_vec(), body.as_bytes().to_vec()));
}

#[test]
fn a_script_can_reset_close_early_hang_and_talk_garbage() {
    let upstream = Upstream::script(|request| match request.target.as_str() {
        "/reset" => vec![Step::ReadBody, Step::Reset],
        "/close" => vec![Step::Close],
        "/half" => vec![Step::Send(b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nhalf".to_vec()), Step::Close],
        "/garbage" => vec![Step::Send(b"SSH-2.0-OpenSSH_9\r\n\r\n".to_vec())],
        _ => vec![Step::ReadBody, Step::Hang],
    });
    let ask = |target| Client::connect(upstream.address()).try_request("POST", target, &[], b"xy").unwrap_err();
    assert!(matches!(ask("/reset"), ReadError::Cut(_, std::io::ErrorKind::ConnectionReset)), "{}", ask("/reset"));
    assert!(matches!(ask("/half"), ReadError::Cut(seen, _) if seen == b"half"));
    assert!(matches!(ask("/garbage"), ReadError::Malformed(_)));
    assert!(matches!(ask("/close"), ReadError::Closed | ReadError::Cut(..)));
    let mut hanging = Client::connect(upstream.address());
    hanging.send("GET /hang HTTP/1.1\r\n\r\n");
    upstream.wait_for_requests(5);
    drop(upstream);
    hanging.expect_close();
}

#[test]
fn what_was_dropped_is_gone_and_its_port_is_nobody_elses() {
    let refused =
        |address: std::net::SocketAddr| Client::try_connect(address).is_err_and(|e| e.kind() == std::io::ErrorKind::ConnectionRefused);
    assert!((0..100).all(|_| refused(nobody())));
    for _ in 0..100 {
        let upstream = Upstream::start();
        let mut client = Client::connect(upstream.address());
        assert_eq!(client.get("/", &[]).status, 200);
        // One that the upstream has not taken yet goes with it.
        let mut late = Client::connect(upstream.address());
        let address = upstream.address();
        drop(upstream);
        assert!(refused(address));
        client.expect_close();
        late.send("GET / HTTP/1.1\r\nHost: h\r\n\r\n").expect_close();
        // The system gives it to nobody, and whoever names it may have it.
        assert!((0..10).all(|_| std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap() != address));
        drop(Upstream::on(&address.to_string(), |_| Answer::ok("again").steps()));
        assert!(refused(address));
    }
    let front = tls_front::TlsFront::start(&Ca::new("Test").server(&["localhost"]), nobody());
    let address = front.address();
    assert!(!refused(address));
    drop(front);
    assert!(refused(address));
}

#[test]
fn questions_to_the_name_server_are_counted_up_to_the_moment() {
    let dns = dns::Dns::start();
    let socket = std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
    for count in 1..200 {
        let question = b"\0\x01\x01\0\0\x01\0\0\0\0\0\0\x01a\0\0\x01\0\x01";
        socket.send_to(question, dns.address()).unwrap();
        assert_eq!(dns.asked("a"), count);
    }
}

#[test]
fn a_gate_holds_an_answer_until_the_test_opens_it() {
    let gate = Gate::new();
    let held = gate.clone();
    let upstream = Upstream::script(move |_| vec![Step::ReadBody, Step::WaitFor(held.clone()), Step::Send(Answer::ok("late").bytes())]);
    let mut client = Client::connect(upstream.address());
    client.send("GET / HTTP/1.1\r\nHost: h\r\n\r\n");
    upstream.wait_for_requests(1);
    gate.open();
    assert_eq!(client.read().text(), "late");
}

#[test]
fn an_incomplete_request_is_recorded_as_such() {
    let upstream = Upstream::start();
    let mut client = Client::connect(upstream.address());
    client.send("POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 10\r\n\r\nhalf");
    client.finish_sending();
    client.expect_close();
    let request = upstream.last();
    assert_eq!((request.is_complete, request.body), (false, b"half".to_vec()));
}

#[test]
fn the_client_refuses_answers_that_are_not_exactly_http() {
    for answer in [
        "HTTP/1.0 200 OK\r\nContent-Length: 0\r\n\r\n",
        "HTTP/1.1 200\r\nContent-Length: 0\r\n\r\n",
        "HTTP/1.1 20 OK\r\nContent-Length: 0\r\n\r\n",
        "HTTP/1.1 200 OK\r\nContent-Length : 0\r\n\r\n",
        "HTTP/1.1 200 OK\r\nContent-Length: +0\r\n\r\n",
        "HTTP/1.1 200 OK\r\nContent-Length: 0\r\nContent-Length: 0\r\n\r\n",
        "HTTP/1.1 200 OK\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n",
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n+1\r\na\r\n0\r\n\r\n",
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n1\r\nab\r\n0\r\n\r\n",
        "HTTP/1.1 204 No Content\r\nContent-Length: 0\r\n\r\n",
        "HTTP/1.1 200 OK\r\nno colon\r\n\r\n",
    ] {
        let upstream = Upstream::script(move |_| vec![Step::Send(answer.as_bytes().to_vec()), Step::Close]);
        let outcome = Client::connect(upstream.address()).try_request("GET", "/", &[], b"");
        assert!(matches!(outcome, Err(ReadError::Malformed(_))), "{answer:?} was read as {outcome:?}");
    }
}

#[test]
fn the_client_reads_what_ends_with_the_connection_and_what_has_no_body() {
    let upstream = Upstream::script(|request| match request.target.as_str() {
        "/close" => vec![Step::Send(b"HTTP/1.1 200 OK\r\n\r\nto the end".to_vec()), Step::Close],
        "/continue" => vec![Step::Send(b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 204 No Content\r\n\r\n".to_vec())],
        _ => vec![Step::Send(b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\n".to_vec())],
    });
    let response = get(upstream.address(), "/close", &[]);
    assert_eq!((response.text(), response.is_until_close, response.is_keep_alive()), ("to the end", true, false));
    let mut client = Client::connect(upstream.address());
    assert_eq!(client.request("HEAD", "/", &[], b"").body, b"");
    let response = client.get("/continue", &[]);
    assert_eq!((response.status, response.informational), (204, vec![100]));
}

#[test]
fn the_echo_and_the_client_understand_each_other() {
    let echo = Echo::start("127.0.0.1:0", Answers::parse("/fixed: { status: 418, json: { short: and stout } }").unwrap()).unwrap();
    let mut client = Client::connect(echo.address());
    let seen = client.post("/p?q", &[("X-Up", "1")], b"hello").json();
    assert_eq!(seen["headers"], serde_json::json!([["Host", "test"], ["X-Up", "1"], ["Content-Length", "5"]]));
    let response = client.get("/fixed", &[]);
    assert_eq!((response.status, response.text()), (418, r#"{"short":"and stout"}"#));
    assert_eq!(echo.requests().len(), 2);
}

#[test]
fn the_echo_runs_from_the_command_line_and_stops_on_a_signal() {
    use std::io::{BufRead, BufReader};
    let mut child = std::process::Command::new(env!("CARGO_BIN_EXE_sluice"))
        .args(["echo", "--address", "127.0.0.1:0", "--name", "orders"])
        .stderr(std::process::Stdio::piped())
        .spawn()
        .unwrap();
    let mut line = String::new();
    BufReader::new(child.stderr.take().unwrap()).read_line(&mut line).unwrap();
    let address = line.split_whitespace().find_map(|word| word.trim_end_matches(':').parse().ok()).unwrap_or_else(|| panic!("{line:?}"));
    let mut idle = Client::connect(address);
    assert_eq!(idle.get("/", &[]).json()["name"], "orders");
    let pid = rustix::process::Pid::from_child(&child);
    rustix::process::kill_process(pid, rustix::process::Signal::INT).unwrap();
    idle.expect_close();
    assert_eq!(child.wait().unwrap().code(), Some(0));
}

#[test]
fn a_gateway_gets_free_ports_and_its_lines_are_collected() {
    let upstream = Upstream::start();
    let gateway = Gateway::config(
        "listeners: { public: { address: \"127.0.0.1:{port}\" } }\n\
         upstreams: { up: { targets: [\"{upstream}\"] } }\n\
         routes: { all: { match: { path: /** }, auth: public, upstream: up } }\n",
    )
    .var("upstream", upstream.address())
    .start();
    assert_eq!(gateway.get("/through?x=1", &[]).text(), "hello from upstream");
    assert_eq!(upstream.last().target, "/through?x=1");
    assert_eq!(gateway.log_line_where(|line| line["path"] == "/through")["status"], 200);
}

#[test]
fn a_gateway_that_does_not_start_tells_why() {
    let failure = Gateway::config("routes: 5\n").try_start().err().expect("it must not start");
    assert_eq!(failure.code, Some(78), "{failure:?}");
    assert!(failure.stderr.contains("sluice.yaml:1:9"), "{}", failure.stderr);
}

#[test]
fn h11_reads_requests_and_refuses_what_is_none() {
    let sound =
        b"POST /a HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\nGET /b HTTP/1.1\r\nHost: a\r\n\r\n";
    let cut = b"POST /a HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\nhe";
    let folded = b"GET /a HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\nContent-Length: 6\r\n\r\n";
    let read = h11::parse(&[sound.to_vec(), cut.to_vec(), folded.to_vec(), Vec::new()]);
    let requests: Vec<_> = read[0].0.iter().map(|r| (r.target.as_str(), r.content(), r.complete)).collect();
    assert_eq!(requests, [("/a", b"hello".to_vec(), true), ("/b", Vec::new(), true)]);
    assert_eq!(read[0].1, None);
    assert!(!read[1].0[0].complete && read[1].1.is_some(), "{:?}", read[1]);
    assert!(read[2].0.is_empty() && read[2].1.is_some(), "{:?}", read[2]);
    assert_eq!(read[3], (Vec::new(), None));
}
