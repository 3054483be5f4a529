//! Keys that need sockets or clocks to show what they do: the real binary, with the key and without it, in one scenario.
//!
//! Both sides run in one gateway where they can, so that neither is judged by the clock: what the one still does while the other has
//! given up is the difference.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicUsize, Ordering};

use crate::harness::h2_upstream::H2Upstream;
use crate::harness::{Answer, Client, Gateway, Response, Step, Upstream, eventually, nobody};

/// A gateway with a listener `{port:with}` that has this key and one `{port:without}` that has the default, before one upstream.
fn with_and_without(key: &str, without: &str, upstream: &Upstream) -> Gateway {
    let config = format!(
        r#"
listeners:
  with: {{ address: "127.0.0.1:{{port:with}}", {key} }}
  without: {{ address: "127.0.0.1:{{port:without}}", {without} }}
upstreams: {{ u: {{ targets: ["{{u}}"], timeouts: {{ idle: 1h, response: 1h }} }} }}
routes: {{ r: {{ listeners: [with, without], match: {{ path: /** }}, auth: public, upstream: u }} }}
"#
    );
    Gateway::config(&config).var("u", upstream.address()).start()
}

/// Longer than any test.
const PATIENT: &str = "deadlines: { header: 1h, body: 1h, write: 1h, keep_alive: 1h }";

/// A second connection to this listener while a first is open: `None` where it is closed without an answer.
fn second(address: SocketAddr) -> Option<Response> {
    let mut first = Client::connect(address);
    assert_eq!(first.get("/", &[]).status, 200);
    let answer = Client::connect(address).try_request("GET", "/", &[], b"").ok();
    assert_eq!(first.get("/", &[]).status, 200, "the first stays");
    answer
}

#[test]
fn connections_beyond_max_and_per_address_are_closed() {
    for key in ["connections: { max: 1 }", "connections: { per_address: 1 }"] {
        let upstream = Upstream::start();
        let gateway = with_and_without(key, "", &upstream);
        assert_eq!(second(gateway.address_of("without")).map(|answer| answer.status), Some(200), "{key}");
        assert!(second(gateway.address_of("with")).is_none(), "{key}");
    }
}

#[test]
fn a_half_head_is_answered_after_the_header_deadline() {
    let upstream = Upstream::start();
    let gateway = with_and_without("deadlines: { header: 300ms }", PATIENT, &upstream);
    let mut patient = Client::connect(gateway.address_of("without"));
    patient.send("GET / HTTP/1.1\r\nHos");
    let mut hasty = Client::connect(gateway.address_of("with"));
    hasty.send("GET / HTTP/1.1\r\nHos");
    assert_eq!(hasty.read().status, 408);
    assert_eq!(patient.send("t: a\r\n\r\n").read().status, 200);
}

#[test]
fn an_idle_connection_is_closed_after_its_keep_alive_time() {
    let upstream = Upstream::start();
    let gateway = with_and_without("deadlines: { keep_alive: 300ms }", PATIENT, &upstream);
    let mut patient = Client::connect(gateway.address_of("without"));
    let mut hasty = Client::connect(gateway.address_of("with"));
    for client in [&mut patient, &mut hasty] {
        assert_eq!(client.get("/", &[]).status, 200);
    }
    hasty.expect_close();
    assert_eq!(patient.get("/", &[]).status, 200);
}

#[test]
fn a_body_that_stops_is_answered_after_the_body_deadline() {
    let upstream = Upstream::start();
    let gateway = with_and_without("deadlines: { body: 300ms }", PATIENT, &upstream);
    let mut patient = Client::connect(gateway.address_of("without"));
    let mut hasty = Client::connect(gateway.address_of("with"));
    for client in [&mut patient, &mut hasty] {
        client.send("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 10\r\n\r\nhalf.");
    }
    assert_eq!(hasty.read().status, 408);
    assert_eq!(patient.send("whole").read().status, 200);
}

#[test]
fn a_client_that_does_not_read_is_given_up_after_the_write_deadline() {
    // More than the buffers of two sockets take.
    let large = vec![b'x'; 32 << 20];
    let upstream = Upstream::answering(Answer::ok(large.clone()));
    let gateway = with_and_without("deadlines: { write: 300ms }", PATIENT, &upstream);
    let mut patient = Client::connect(gateway.address_of("without"));
    patient.send("GET /patient HTTP/1.1\r\nHost: a\r\n\r\n");
    let mut hasty = Client::connect(gateway.address_of("with"));
    hasty.send("GET /hasty HTTP/1.1\r\nHost: a\r\n\r\n");
    let line = gateway.log_line_where(|line| line["path"] == "/hasty");
    assert_ne!(line["code"], serde_json::Value::Null, "{line}");
    assert_eq!(patient.read().body.len(), large.len());
}

/// Bytes that have come to the gateway's end of a connection and that it has not read, from the kernel's table.
fn unread(gateway: SocketAddr, client: SocketAddr) -> Option<u64> {
    let hex = |address: SocketAddr| format!("0100007F:{:04X}", address.port());
    let table = std::fs::read_to_string("/proc/net/tcp").expect("it can be read");
    let row = table
        .lines()
        .map(|line| line.split_whitespace().collect::<Vec<_>>())
        .find(|words| words.get(1) == Some(&hex(gateway).as_str()) && words.get(2) == Some(&hex(client).as_str()))?;
    u64::from_str_radix(row.get(4)?.split_once(':')?.1, 16).ok()
}

#[test]
fn as_much_is_read_ahead_as_configured() {
    let gate = crate::harness::Gate::new();
    let held = gate.clone();
    let upstream = Upstream::script(move |_| [vec![Step::WaitFor(held.clone())], Answer::ok("late").steps()].concat());
    let gateway = with_and_without("heads: { ahead: 1MiB }", "", &upstream);
    // 60 KiB, which fit into the buffers of any socket, behind a request that waits.
    let more = format!("GET /{} HTTP/1.1\r\nHost: a\r\n\r\n", "x".repeat(3000)).repeat(20);
    let mut left = Vec::new();
    for name in ["with", "without"] {
        let address = gateway.address_of(name);
        let mut client = Client::connect(address);
        client.send(format!("GET /{name} HTTP/1.1\r\nHost: a\r\n\r\n"));
        eventually("the upstream has the first", || (upstream.open_connections() == left.len() + 1).then_some(()));
        client.send(&more);
        // What is taken at once is what may be taken; there is nothing to wait for on the other side.
        let now = || unread(address, client.local_address());
        let most = if name == "with" { 0 } else { more.len() as u64 };
        left.push(eventually("it has read ahead", || now().filter(|left| *left < most || most == 0 && *left == 0)));
    }
    gate.open();
    assert_eq!(left[0], 0);
    assert!(left[1] > 20_000, "{left:?}");
}

#[test]
fn a_listener_listens_where_it_is_told_to() {
    let gateway = Gateway::start(
        "listeners: { a: { address: \"127.0.0.2:{port}\" } }
routes: { a: { match: { path: / }, auth: public, respond: { status: 204 } } }",
    );
    let there = SocketAddr::from(([127, 0, 0, 2], gateway.address().port()));
    assert_eq!(Client::connect(there).get("/", &[]).status, 204);
    assert!(Client::try_connect(gateway.address()).is_err());
}

#[test]
fn each_listener_listens_where_it_is_told_to_and_so_does_admin() {
    let gateway = Gateway::start(
        "listeners: { a: { address: \"127.0.0.1:{port}\" }, b: { address: \"127.0.0.2:{port}\" } }
admin: { address: \"127.0.0.1:{admin}\" }
routes:
  a: { listeners: [a], match: { path: / }, auth: public, respond: { status: 200, body: a } }
  b: { listeners: [b], match: { path: / }, auth: public, respond: { status: 200, body: b } }",
    );
    assert_eq!(gateway.get("/", &[]).text(), "a");
    let b = SocketAddr::from(([127, 0, 0, 2], gateway.address().port()));
    assert_eq!(Client::connect(b).get("/", &[]).text(), "b");
    assert_eq!(Client::connect(gateway.admin()).get("/livez", &[]).status, 200);
    assert_eq!(gateway.get("/livez", &[]).status, 404);
}

/// An upstream that plays these checks one after the other, then is well, and how many checks it has seen.
fn checked(script: &'static [bool]) -> Upstream {
    let seen = AtomicUsize::new(0);
    Upstream::script(move |request| match request.target.as_str() {
        "/healthz" => {
            let well = script.get(seen.fetch_add(1, Ordering::Relaxed)).copied().unwrap_or(true);
            Answer::new(if well { 200 } else { 500 }).steps()
        }
        _ => Answer::ok("hello").steps(),
    })
}

fn health(keys: &str, upstream: &Upstream) -> Gateway {
    let config = format!(
        "listeners: {{ l: {{ address: \"127.0.0.1:{{port}}\" }} }}
upstreams: {{ u: {{ targets: [\"{{u}}\"], health: {{ path: /healthz, {keys} }} }} }}
routes: {{ r: {{ match: {{ path: /** }}, auth: public, upstream: u }} }}"
    );
    Gateway::config(&config).var("u", upstream.address()).start()
}

fn checks(upstream: &Upstream) -> usize {
    upstream.requests().iter().filter(|request| request.target == "/healthz").count()
}

#[test]
fn as_many_failed_checks_as_configured_take_a_target_out() {
    const TWO_FAIL: &[bool] = &[true, false, false];
    let (once, never) = (checked(TWO_FAIL), checked(TWO_FAIL));
    let gateway = health("every: 500ms, unhealthy_after: 2", &once);
    gateway.stderr_line("is out");
    let gateway = health("every: 500ms, unhealthy_after: 3", &never);
    eventually("two checks have failed and two were good", || (checks(&never) > 5).then_some(()));
    assert!(!gateway.stderr().contains("is out"), "{}", gateway.stderr());
}

#[test]
fn as_many_good_checks_as_configured_bring_a_target_back() {
    const ONE_GOOD: &[bool] = &[false, true, false, true, false, true, false, true, false, true, false, true, false, true, false];
    let (once, never) = (checked(ONE_GOOD), checked(ONE_GOOD));
    let gateway = health("every: 500ms, unhealthy_after: 1, healthy_after: 1", &once);
    gateway.stderr_line("is healthy again");
    let gateway = health("every: 500ms, unhealthy_after: 1, healthy_after: 2", &never);
    eventually("single checks were good", || (checks(&never) > 6).then_some(()));
    assert!(!gateway.stderr().contains("is healthy again"), "{}", gateway.stderr());
}

#[test]
fn a_target_is_checked_as_often_as_configured() {
    let (often, rarely) = (checked(&[]), checked(&[]));
    let _gateways = (health("every: 500ms", &often), health("every: 1h", &rarely));
    eventually("it is checked again and again", || (checks(&often) > 3).then_some(()));
    assert_eq!(checks(&rarely), 1);
}

#[test]
fn as_many_attempts_are_made_as_configured() {
    let nobody = nobody();
    let upstream = Upstream::start();
    let statuses = |attempts: &str| {
        let config = format!(
            "server: {{ threads: 1 }}
listeners: {{ l: {{ address: \"127.0.0.1:{{port}}\" }} }}
upstreams: {{ u: {{ targets: [\"{nobody}\", \"{{u}}\"]{attempts} }} }}
routes: {{ r: {{ match: {{ path: /** }}, auth: public, upstream: u }} }}"
        );
        let gateway = Gateway::config(&config).var("u", upstream.address()).start();
        let mut statuses: Vec<_> = (0..4).map(|_| gateway.get("/", &[]).status).collect();
        statuses.sort_unstable();
        statuses
    };
    assert_eq!(statuses(", retries: { attempts: 1 }"), [200, 200, 502, 502]);
    assert_eq!(statuses(""), [200, 200, 200, 200]);
}

#[test]
fn an_upstream_is_spoken_to_as_it_is_written() {
    let upstream = H2Upstream::start(&[]);
    let gateway = Gateway::config(
        "listeners: { l: { address: \"127.0.0.1:{port}\" } }
upstreams: { u: { targets: [\"{u}\"], protocol: h2 } }
routes: { r: { match: { path: /** }, auth: public, upstream: u } }",
    );
    assert_eq!(gateway.var("u", &upstream.address).start().get("/", &[]).status, 200);
}

#[test]
fn an_answer_has_as_long_to_begin_as_is_written() {
    let gate = crate::harness::Gate::new();
    let held = gate.clone();
    let upstream = Upstream::script(move |_| [vec![Step::WaitFor(held.clone())], Answer::ok("late").steps()].concat());
    let gateway = Gateway::config(
        "listeners: { l: { address: \"127.0.0.1:{port}\" } }
upstreams:
  hasty: { targets: [\"{u}\"], timeouts: { response: 300ms } }
  patient: { targets: [\"{u}\"], timeouts: { response: 4m } }
routes:
  hasty: { match: { path: /hasty }, auth: public, upstream: hasty }
  patient: { match: { path: /patient }, auth: public, upstream: patient }",
    );
    let gateway = gateway.var("u", upstream.address()).start();
    let mut patient = gateway.client();
    patient.send("GET /patient HTTP/1.1\r\nHost: a\r\n\r\n");
    assert_eq!(gateway.get("/hasty", &[]).status, 504);
    gate.open();
    assert_eq!(patient.read().status, 200);
}
