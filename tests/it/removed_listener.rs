//! A listener that goes with a reload: what its clients are in the middle of may go on until the end of the drain, and no longer.

use serde_json::{Value, json};

use super::harness::http2::{Http2, NO_ERROR, get_fields};
use super::harness::*;

fn text(listeners: &str) -> String {
    format!(
        r#"
server: {{ threads: 1, drain: 1s }}
listeners:
  public: {{ address: "127.0.0.1:{{port}}" }}
{listeners}
upstreams: {{ up: {{ targets: ["{{up}}"], timeouts: {{ response: 10m, idle: 10m }} }} }}
routes: {{ all: {{ listeners: [{}], match: {{ path: /** }}, auth: public, upstream: up }} }}
"#,
        if listeners.is_empty() { "public" } else { "public, other" }
    )
}

#[test]
fn all_that_its_clients_are_in_the_middle_of_ends_with_the_drain() {
    let event = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n9\r\ndata: 1\n\n\r\n";
    let upstream = Upstream::script(move |request| match request.target.as_str() {
        path if path.starts_with("/events") => vec![Step::Send(event.to_vec()), Step::Hang],
        path if path.starts_with("/hang") => vec![Step::Hang],
        _ => Answer::ok("x").steps(),
    });
    let mut gateway = Gateway::config(&text("  other: { address: \"127.0.0.1:{port:other}\" }")).var("up", upstream.address()).start();
    let other = gateway.address_of("other");
    let [mut events, mut hang] = ["/events", "/hang"].map(|path| {
        let mut client = Client::connect(other);
        client.send(format!("GET {path} HTTP/1.1\r\nHost: a\r\nUser-Agent: one\r\n\r\n"));
        client
    });
    let mut head = Vec::new();
    while !head.ends_with(b"data: 1\n\n\r\n") {
        head.extend(events.read_exactly(1));
    }
    let mut h2 = Http2::connect(other);
    h2.ask(1, &get_fields("/events2", &[])).ask(3, &get_fields("/hang2", &[]));
    while h2.peek(1).is_none_or(|answer| answer.text().is_empty()) {
        h2.step().expect("an event");
    }
    eventually("all four at the upstream", || (upstream.open_connections() == 4).then_some(()));
    gateway.reload(&text(""));
    assert_eq!(events.read_to_end(), b"", "no last chunk: it is not taken for whole");
    hang.expect_close();
    h2.until_closed();
    assert!(!h2.goaways.is_empty() && h2.goaways.iter().all(|(reason, _)| *reason == NO_ERROR), "{:?}", h2.goaways);
    upstream.wait_for_all_closed();
    for (path, status, protocol) in [
        ("/events", json!(200), "HTTP/1.1"),
        ("/hang", Value::Null, "HTTP/1.1"),
        ("/events2", json!(200), "HTTP/2.0"),
        ("/hang2", Value::Null, "HTTP/2.0"),
    ] {
        let line = gateway.log_line_where(|line| line["path"] == path);
        let told = ["status", "code", "method", "protocol", "listener"].map(|key| line[key].clone());
        assert_eq!(told, [status, json!("drain-ended"), json!("GET"), json!(protocol), json!("other")], "{line}");
        assert!(line["total_us"].as_u64() >= Some(1_000_000), "it lived for as long as it might: {line}");
    }
    assert_eq!(gateway.get("/x", &[]).status, 200);
}
