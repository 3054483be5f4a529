//! What health checks ask and expect, and how often. Real targets, some of which say other things than they do.

use std::io::{Read, Write};
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::Relaxed};
use std::time::Duration;

use crate::harness::h2_upstream::H2Upstream;
use crate::harness::{Answer, Gateway, PythonServer, Upstream, eventually};

fn start(target: impl std::fmt::Display, keys: &str) -> Gateway {
    Gateway::start(&format!(
        r#"
server: {{ threads: 1 }}
listeners: {{ l: {{ address: "127.0.0.1:{{port}}" }} }}
admin: {{ address: "127.0.0.1:{{admin}}" }}
upstreams: {{ u: {{ targets: ["{target}"], {keys} }} }}
routes: {{ r: {{ match: {{ path: /** }}, auth: public, upstream: u }} }}
"#
    ))
}

/// Quickly, but not so quickly that a busy machine makes them fail: a check may take no longer than until the next.
const OFTEN: &str = "every: 300ms";
/// Where a single check that takes too long would be one too many.
const SELDOM: &str = "every: 500ms";

/// Why the target is out by its checks.
fn reason(gateway: &Gateway) -> String {
    eventually("the target is out", || {
        let status = gateway.status();
        let cause = &status["upstreams"]["u"][0]["addresses"][0]["causes"][0];
        (cause["cause"] == "check").then(|| cause["reason"].as_str().unwrap_or_default().to_owned())
    })
}

/// That a check has been made, and the target is in.
fn is_in(gateway: &Gateway, checked: &Upstream) {
    checked.wait_for_requests(2);
    assert_eq!(gateway.status()["upstreams"]["u"][0]["healthy"], true, "{}", gateway.stderr());
}

#[test]
fn a_check_expects_a_status_fields_and_a_piece_of_the_body() {
    let upstream = Upstream::script(|_| Answer::new(418).header("x-ready", "yes").body("{\"status\":\"UP\",\"disk\":\"full\"}").steps());
    let keys = |expect: &str| format!("health: {{ path: /healthz, {OFTEN}, expect: {{ {expect} }} }}");
    let all = "status: [200, 418], headers: { x-ready: \"yes\" }, body: '\"status\":\"UP\"'";
    let good = start(upstream.address(), &keys(all));
    is_in(&good, &upstream);
    for (expect, why) in [
        ("status: [200, 204]", "answered 418"),
        ("status: [418], headers: { x-ready: \"no\" }", "answered 418 without the expected value of `x-ready`"),
        ("status: [418], body: DOWN", "answered 418 without the expected body"),
    ] {
        assert_eq!(reason(&start(upstream.address(), &keys(expect))), why, "{expect}");
    }
}

#[test]
fn checks_use_one_connection_and_a_target_that_has_closed_it_has_not_failed() {
    let upstream = Upstream::start();
    let keys = &format!("health: {{ path: /healthz, {SELDOM}, unhealthy_after: 1 }}");
    let gateway = start(upstream.address(), keys);
    upstream.wait_for_requests(4);
    assert_eq!(upstream.connections(), 1);
    upstream.close_connections();
    upstream.wait_for_requests(upstream.requests().len() + 3);
    assert_eq!(upstream.connections(), 2);
    assert!(!gateway.stderr().contains("is out"), "{}", gateway.stderr());
    // Where connections are not kept, those of checks are not.
    let other = Upstream::start();
    let _gateway = start(other.address(), &format!("pool: {{ idle: 0s }}, {keys}"));
    other.wait_for_requests(3);
    assert!(other.connections() >= 3);
}

#[test]
fn a_check_that_meets_a_connection_just_being_closed_asks_once_more() {
    // Answers one request of each connection, and closes it at the next.
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let (answered, closed) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
    let counts = (answered.clone(), closed.clone());
    std::thread::spawn(move || {
        for mut stream in listener.incoming().map_while(Result::ok) {
            let mut request = [0; 1024];
            if stream.read(&mut request).is_ok_and(|read| read > 0) {
                let _ = stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n");
                counts.0.fetch_add(1, Relaxed);
            }
            if stream.read(&mut request).is_ok_and(|read| read > 0) {
                counts.1.fetch_add(1, Relaxed);
            }
        }
    });
    let gateway = start(address, &format!("health: {{ path: /healthz, {SELDOM}, unhealthy_after: 1 }}"));
    eventually("three were closed", || (closed.load(Relaxed) >= 3).then_some(()));
    assert!(answered.load(Relaxed) >= 3);
    assert!(!gateway.stderr().contains("is out"), "{}", gateway.stderr());
}

#[test]
fn checks_over_http_2_use_one_connection_too() {
    let upstream = H2Upstream::start(&[]);
    let gateway = start(&upstream.address, &format!("protocol: h2, health: {{ path: /echo, {SELDOM}, unhealthy_after: 1 }}"));
    upstream.requests("/echo", 4);
    assert_eq!(upstream.events("connection").len(), 1);
    assert!(!gateway.stderr().contains("is out"), "{}", gateway.stderr());
}

#[test]
fn a_check_finds_a_piece_of_a_body_that_comes_in_chunks() {
    let upstream = Upstream::script(|_| {
        let body = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nall i\r\n6\r\ns well\r\n0\r\n\r\n".to_vec();
        vec![crate::harness::Step::ReadBody, crate::harness::Step::Send(body)]
    });
    let gateway = start(upstream.address(), &format!("health: {{ path: /healthz, {OFTEN}, expect: {{ body: all is well }} }}"));
    is_in(&gateway, &upstream);
}

#[test]
fn checks_may_have_a_port_of_their_own() {
    let (service, checked) = (Upstream::start(), Upstream::answering(Answer::new(503)));
    let gateway = start(service.address(), &format!("health: {{ path: /healthz, {OFTEN}, port: {} }}", checked.address().port()));
    assert_eq!(reason(&gateway), "answered 503");
    assert_eq!(service.connections(), 0);
}

#[test]
fn a_server_of_grpc_is_asked_for_its_health() {
    let server = PythonServer::start("grpc_server.py", &[]);
    let address: SocketAddr = server.address();
    let unknown = start(address, &format!("protocol: h2, health: {{ grpc: no.such.Service, {OFTEN} }}"));
    assert_eq!(reason(&unknown), "the server does not know the service");
    // It speaks HTTP/2 whatever requests do.
    let whole = start(address, &format!("health: {{ grpc: \"\", {OFTEN}, healthy_after: 1 }}"));
    eventually("checks", || (whole.stderr().contains("is out") || whole.status_now()["uptime_s"].as_u64() >= Some(1)).then_some(()));
    assert_eq!(whole.status()["upstreams"]["u"][0]["healthy"], true, "{}", whole.stderr());
    let plain = Upstream::start();
    let none = start(plain.address(), "health: { grpc: \"\", every: 100ms, timeout: 100ms }");
    assert_ne!(reason(&none), "");
}

#[test]
fn a_target_that_is_out_is_checked_as_often_as_configured() {
    let is_well = Arc::new(AtomicBool::new(false));
    let mine = is_well.clone();
    let upstream = Upstream::script(move |_| Answer::new(if mine.load(Relaxed) { 200 } else { 500 }).steps());
    let gateway = start(upstream.address(), "health: { path: /healthz, every: 1h, every_when_out: 100ms, timeout: 1s }");
    assert_eq!(reason(&gateway), "answered 500");
    upstream.wait_for_requests(5);
    is_well.store(true, Relaxed);
    let began = std::time::Instant::now();
    gateway.stderr_line("is healthy again");
    assert!(began.elapsed() < Duration::from_secs(3600));
    assert_eq!(gateway.get("/", &[]).status, 200);
}

#[test]
fn several_targets_that_nobody_watches_are_told() {
    let gateway = Gateway::start(
        r#"
listeners: { l: { address: "127.0.0.1:{port}" } }
upstreams:
  watched: { targets: ["127.0.0.1:1", "127.0.0.1:2"], health: {} }
  judged: { targets: ["127.0.0.1:1", "127.0.0.1:2"], outlier_detection: {} }
  broken: { targets: ["127.0.0.1:1", "127.0.0.1:2"], circuit_breaker: { of: target } }
  alone: { targets: ["127.0.0.1:1"] }
  nobodys: { targets: ["127.0.0.1:1", "127.0.0.1:2", "127.0.0.1:3"], circuit_breaker: { of: upstream } }
routes:
  watched: { match: { path: /watched }, auth: public, upstream: watched }
  judged: { match: { path: /judged }, auth: public, upstream: judged }
  broken: { match: { path: /broken }, auth: public, upstream: broken }
  alone: { match: { path: /alone }, auth: public, upstream: alone }
  nobodys: { match: { path: /nobodys }, auth: public, upstream: nobodys }
"#,
    );
    let output = gateway.sluice(&["check", gateway.file().to_str().unwrap()]);
    assert!(output.status.success());
    let said = String::from_utf8([output.stdout, output.stderr].concat()).unwrap();
    let doubts: Vec<_> = said.lines().filter(|line| line.contains("neither `health` nor")).collect();
    assert_eq!(doubts.len(), 1, "{said}");
    assert!(doubts[0].contains("upstream `nobodys` has 3 targets"), "{said}");
}
