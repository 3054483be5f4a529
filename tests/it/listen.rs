//! Connections of clients: how many, how long, and what is read of them after a refusal.

use crate::harness::{Client, Gateway, Upstream, eventually};

fn start(upstream: &Upstream, listener: &str) -> Gateway {
    Gateway::config(
        r#"
server: { threads: 1 }
listeners: { public: { address: "127.0.0.1:{port}", {listener} } }
limits: { few: { rate: 3/h, by: [client_ip] } }
upstreams: { up: { targets: ["{up}"] } }
routes: { a: { match: { path: /a/** }, auth: public, upstream: up, limits: [few] } }
"#,
    )
    .var("listener", listener)
    .var("up", upstream.address())
    .start()
}

fn dropped(gateway: &Gateway, reason: &str) -> f64 {
    let metrics = gateway.metrics();
    let line =
        metrics.lines().find(|line| line.starts_with("sluice_") && line.contains("dropped") && line.contains(&format!("\"{reason}\"")));
    line.and_then(|line| line.rsplit(' ').next()).and_then(|value| value.parse().ok()).unwrap_or_default()
}

#[test]
fn more_connections_than_allowed_are_closed_and_counted() {
    let upstream = Upstream::start();
    let gateway = start(&upstream, "connections: { max: 3 }");
    let mut clients: Vec<Client> = (0..3).map(|_| gateway.client()).collect();
    for client in &mut clients {
        assert_eq!(client.get("/nowhere", &[]).status, 404);
    }
    for _ in 0..5 {
        gateway.client().expect_close();
    }
    eventually("the count", || (dropped(&gateway, "max") >= 5.0).then_some(()));
    // Those that are in go on; and where one leaves, another may come.
    assert_eq!(clients[0].get("/nowhere", &[]).status, 404);
    drop(clients.pop());
    eventually("a free place", || gateway.client().try_request("GET", "/nowhere", &[], b"").ok());
    drop(clients);
    // Nothing of a place is lost, whatever the end of its connection.
    for n in 0..30 {
        let ended = eventually("a free place", || {
            let mut client = gateway.client();
            client.try_request("GET", "/nowhere", &[], b"").ok().map(|_| client)
        });
        match n % 3 {
            0 => ended.reset(),
            1 => drop(ended),
            _ => {
                let mut ended = ended;
                ended.send("\0\r\n\r\n");
                assert_eq!(ended.read().status, 400);
            }
        }
    }
}

#[test]
fn one_address_cannot_take_the_places_of_all() {
    let upstream = Upstream::start();
    let gateway = start(&upstream, "connections: { max: 10, per_address: 2 }");
    let from = |last: u8| Client::connect_from([127, 0, 0, last].into(), gateway.address());
    let mut held = Vec::new();
    for last in [1, 1, 3, 3] {
        let mut client = from(last);
        assert_eq!(client.get("/nowhere", &[]).status, 404);
        held.push(client);
    }
    from(1).expect_close();
    from(3).expect_close();
    assert_eq!(from(4).get("/nowhere", &[]).status, 404);
    drop(held);
    eventually("a free place", || from(1).try_request("GET", "/nowhere", &[], b"").ok());
}

#[test]
fn an_idle_connection_is_closed_in_its_time_and_without_a_line() {
    let upstream = Upstream::start();
    let gateway = start(&upstream, "deadlines: { keep_alive: 200ms }");
    let mut client = gateway.client();
    // What the client would like is not asked for.
    assert_eq!(client.get("/a/b", &[("keep-alive", "timeout=600")]).status, 200);
    client.expect_close();
    let mut refused = gateway.client();
    assert_eq!(refused.get("/nowhere", &[]).status, 404);
    refused.expect_close();
    assert_eq!(gateway.log_lines(2).len(), 2);
}

#[test]
fn limits_of_a_listener_count_what_matches_no_route() {
    let upstream = Upstream::start();
    let gateway = start(&upstream, "limits: [few]");
    let mut client = gateway.client();
    let statuses: Vec<u16> = ["/nowhere", "/a//b", "/elsewhere", "/nowhere"].map(|path| client.get(path, &[]).status).to_vec();
    assert_eq!(statuses, [404, 400, 404, 429]);
    let last = client.get("/a/b", &[]);
    assert_eq!((last.status, last.code().as_str(), last.header("retry-after").is_some()), (429, "rate-limited", true));
    assert!(upstream.requests().is_empty());
    assert_eq!(gateway.log_lines(5)[4]["limit"], "few");
}

#[test]
fn a_refused_body_is_read_away_where_it_is_small() {
    let upstream = Upstream::start();
    let gateway = start(&upstream, "connections: { max: 100 }");
    let mut client = gateway.client();
    // Small ones, whole or in pieces: the next request is found behind them.
    for size in [1, 1000, 64 << 10] {
        client.send(format!("POST /nowhere HTTP/1.1\r\nHost: a\r\nContent-Length: {size}\r\n\r\n"));
        for piece in vec![b'G'; size].chunks(10_000) {
            client.send(piece);
        }
        let answer = client.read();
        assert_eq!((answer.status, answer.is_keep_alive()), (404, true), "{size}");
    }
    assert_eq!(client.get("/a/b", &[]).status, 200);
    // One that never comes does not hold the connection.
    client.send("POST /nowhere HTTP/1.1\r\nHost: a\r\nContent-Length: 10\r\n\r\nhalf");
    assert_eq!(client.read().status, 404);
    client.expect_close();
    // Large ones, and those of unknown length, end it, and say so; the answer arrives although the client is still sending.
    for framing in ["Content-Length: 1000000", "Transfer-Encoding: chunked"] {
        let mut client = gateway.client();
        client.send(format!("POST /nowhere HTTP/1.1\r\nHost: a\r\n{framing}\r\n\r\n"));
        client.send(b"fa00\r\n").send(vec![b'x'; 64_000]).send(b"\r\n");
        let answer = client.read();
        assert_eq!((answer.status, answer.is_keep_alive()), (404, false), "{framing}");
    }
    assert_eq!(upstream.requests().len(), 1);
}
