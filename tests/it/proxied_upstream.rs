//! PROXY protocol to upstreams: nginx and HAProxy are told whose request it is, and no connection is told of one client and used for another.

use std::net::IpAddr;

use super::harness::haproxy::Haproxy;
use super::harness::*;

const CONFIG: &str = r#"
server: { threads: 1 }
listeners:
  public: { address: "127.0.0.1:{port}" }
  local: { address: "unix:{dir}/local.sock" }
clients: { trusted_proxies: [127.0.0.7] }
upstreams:
  one: { targets: ["{nginx}"], proxy_protocol: v1, health: { path: /ok, every: 500ms } }
  two: { targets: ["{nginx}"], proxy_protocol: v2, health: { path: /ok, every: 500ms } }
  h2: { targets: ["{nginx}"], proxy_protocol: v2, protocol: h2 }
  tls: { targets: ["{tls}"], proxy_protocol: v2, tls: { ca: ca.pem, server_name: app.internal } }
  behind: { targets: ["{haproxy}"], proxy_protocol: v2 }
  silent: { targets: ["{nginx}"] }
routes:
  one: { listeners: [public, local], match: { path: /one }, auth: public, upstream: one }
  two: { listeners: [public, local], match: { path: /two }, auth: public, upstream: two }
  h2: { listeners: [public], match: { path: /h2 }, auth: public, upstream: h2 }
  tls: { listeners: [public], match: { path: /tls }, auth: public, upstream: tls }
  behind: { listeners: [public], match: { path: /behind }, auth: public, upstream: behind }
  silent: { listeners: [public], match: { path: /silent }, auth: public, upstream: silent }
"#;

/// What nginx was told: `address port of-the-gateway`.
const TELL: &str = "http2 on; location / { return 200 \"$proxy_protocol_addr $proxy_protocol_port $proxy_protocol_server_addr\"; }";

struct Setup {
    gateway: Gateway,
    _peers: (Nginx, Nginx, Haproxy),
}

fn start() -> Setup {
    let ca = Ca::new("Test");
    let own = ca.server(&["app.internal"]);
    let dir = tempfile::tempdir().unwrap();
    let at = |name: &str| dir.path().join(name);
    std::fs::write(at("own.pem"), &own.chain).unwrap();
    std::fs::write(at("own.key"), &own.key).unwrap();
    let nginx = Nginx::listening("proxy_protocol", TELL);
    let certificate = format!("ssl_certificate {}; ssl_certificate_key {};", at("own.pem").display(), at("own.key").display());
    let tls = Nginx::listening("ssl proxy_protocol", &format!("{certificate} {}", TELL.replace("http2 on;", "")));
    // Takes one header off, and puts one of its own on that says the same.
    let haproxy = Haproxy::start(nginx.address(), &[("accept-proxy", "send-proxy")]);
    let config = Gateway::config(CONFIG).var("nginx", nginx.address()).var("tls", tls.address()).var("haproxy", haproxy.address(0));
    Setup { gateway: config.file("ca.pem", ca.pem.clone()).start(), _peers: (nginx, tls, haproxy) }
}

fn from(address: &str) -> IpAddr {
    address.parse().unwrap()
}

#[test]
fn upstreams_are_told_the_client_and_no_connection_serves_another() {
    let Setup { gateway, _peers } = start();
    let clients = ["127.0.0.8", "127.0.0.9"].map(|client| (client, Client::connect_from(from(client), gateway.address())));
    let mut clients = clients.map(|(name, client)| (name, client.local_address().port(), client));
    // Both keep their connections, and take turns.
    for path in ["/one", "/two", "/h2", "/tls", "/behind"] {
        for _ in 0..3 {
            for (name, port, client) in &mut clients {
                let answer = client.get(path, &[]);
                assert_eq!((answer.status, answer.text()), (200, &*format!("{name} {port} 127.0.0.1")), "{path}");
            }
        }
    }
    for upstream in ["one", "two", "h2", "tls", "behind"] {
        let connections =
            |which| gateway.metric(&format!(r#"sluice_upstream_connections_total{{upstream="{upstream}",connection="{which}"}}"#));
        assert_eq!((connections("new"), connections("reused")), (6.0, 0.0), "{upstream}");
    }
    // Who is not told closes the connection.
    assert_eq!(gateway.get("/silent", &[]).status, 502);
}

#[test]
fn the_address_is_that_which_the_log_has_behind_a_trusted_proxy_too() {
    let Setup { gateway, _peers } = start();
    // nginx shows nothing for port 0.
    let mut proxy = Client::connect_from(from("127.0.0.7"), gateway.address());
    assert_eq!(proxy.get("/two", &[("x-forwarded-for", "192.0.2.5")]).text(), "192.0.2.5  127.0.0.1");
    assert_eq!(proxy.get("/one", &[("x-forwarded-for", "2001:db8::5")]).text(), "2001:db8::5  ::ffff:127.0.0.1");
    let told = gateway.sluice(&["explain", "sluice.yaml", "GET http://h/two", "--from", "192.0.2.9", "--listener", "public"]);
    let told = String::from_utf8_lossy(&told.stdout).into_owned() + &String::from_utf8_lossy(&told.stderr);
    assert!(told.contains("PROXY protocol v2: client 192.0.2.9"), "{told}");
}

#[test]
fn checks_and_clients_without_an_address_are_nobody() {
    let Setup { gateway, _peers } = start();
    for upstream in ["one", "two"] {
        let series = format!(r#"sluice_upstream_requests_total{{upstream="{upstream}",result="2xx"}}"#);
        assert_eq!(gateway.metric(&series), 0.0, "checks are no requests");
        let status = gateway.status().to_string();
        assert!(!status.contains("\"healthy\":false"), "a check says that it is the gateway's own: {status}");
    }
    for (path, version) in [("one", 1), ("two", 2)] {
        let output = std::process::Command::new("curl")
            .args(["-sS", "-m", "20", "--unix-socket", "local.sock"])
            .arg(format!("http://h/{path}"))
            .current_dir(gateway.dir())
            .output()
            .expect("curl is installed: scripts/setup.sh test");
        // The address of the connection, which is one of a Unix socket or loopback; never another client's.
        let said = String::from_utf8_lossy(&output.stdout).into_owned();
        assert!(said.split(' ').next().is_some_and(|address| address.is_empty()), "version {version}: {said:?}");
    }
}
