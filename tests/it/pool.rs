//! Connections to upstreams that rest between requests: how long, how old, how many.

use super::harness::h2_upstream::H2Upstream;
use super::harness::*;

const CONFIG: &str = r#"
server: { threads: 1{server} }
listeners: { public: { address: "127.0.0.1:{port}" } }
upstreams: { up: { targets: ["{up}"]{more} } }
routes: { up: { match: { path: /** }, auth: public, upstream: up } }
"#;

fn start(upstream: &Upstream, server: &str, more: &str) -> Gateway {
    Gateway::config(&CONFIG.replace("{server}", server).replace("{more}", more)).var("up", upstream.address()).start()
}

#[test]
fn a_connection_that_rests_for_too_long_is_closed() {
    let upstream = Upstream::start();
    let gateway = start(&upstream, "", ", pool: { idle: 200ms }");
    assert_eq!(gateway.get("/a", &[]).status, 200);
    // Far sooner than the default of 55 s.
    upstream.wait_for_all_closed();
}

#[test]
fn where_none_may_rest_each_request_has_its_own() {
    let upstream = Upstream::start();
    let gateway = start(&upstream, "", ", pool: { idle: 0s }");
    let mut client = gateway.client();
    for count in 1..=5 {
        assert_eq!(client.get("/a", &[]).status, 200);
        assert_eq!(upstream.connections(), count);
    }
    upstream.wait_for_all_closed();
}

#[test]
fn a_connection_that_is_old_gets_no_further_request() {
    let upstream = Upstream::start();
    let gateway = start(&upstream, "", ", pool: { age: 1s }");
    let mut client = gateway.client();
    let mut asked = 0;
    eventually("a second and a third connection", || {
        assert_eq!(client.get("/a", &[]).status, 200);
        asked += 1;
        (upstream.connections() == 3).then_some(())
    });
    assert!(asked > 3, "each carried more than one request");
    let young = start(&upstream, "", "");
    let mut client = young.client();
    assert!((0..5).all(|_| client.get("/a", &[]).status == 200));
    assert_eq!(upstream.connections(), 4);
}

#[test]
fn no_more_connections_rest_than_the_server_keeps() {
    let gate = Gate::default();
    let held = gate.clone();
    let upstream = Upstream::script(move |_| [vec![Step::WaitFor(held.clone())], Answer::ok("x").steps()].concat());
    let gateway = start(&upstream, ", pool: 2", "");
    let mut clients: Vec<Client> = (0..5).map(|_| gateway.client()).collect();
    for client in &mut clients {
        client.send("GET /a HTTP/1.1\r\nHost: a\r\n\r\n");
    }
    eventually("five connections at once", || (upstream.open_connections() == 5).then_some(()));
    gate.open();
    assert!(clients.iter_mut().all(|client| client.read().status == 200));
    eventually("those that are too many to be closed", || (upstream.open_connections() == 2).then_some(()));
    let refused = {
        let mut gateway = gateway;
        gateway.rewrite(&CONFIG.replace("{server}", ", pool: 3").replace("{more}", ""));
        let output = gateway.sluice(&["reload", "sluice.yaml"]);
        String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned()
    };
    assert!(refused.contains("`server.pool` cannot change in place"), "{refused}");
}

#[test]
fn as_much_of_an_answer_is_under_way_over_http_2_as_configured() {
    for (more, bytes) in [(", protocol: h2", 5 << 20), (", protocol: h2, http2: { window: 128KiB }", 128 << 10)] {
        let upstream = H2Upstream::start(&[]);
        let gateway = Gateway::config(&CONFIG.replace("{server}", "").replace("{more}", more)).var("up", &upstream.address).start();
        assert_eq!(gateway.get("/big/1000000", &[]).body.len(), 1_000_000);
        let window = eventually("it is told", || upstream.events("window").into_iter().next());
        assert_eq!(window["bytes"], bytes, "{more}");
    }
}
