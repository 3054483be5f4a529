//! TLS to upstreams: whom they have to be, what is shown to them, whose connections are shared, what is told when it fails.

use crate::harness::h2_upstream::{H2Upstream, field};
use crate::harness::{Ca, Config, Gateway, Leaf, Nginx, eventually, free_port};

const CONFIG: &str = r#"
server: { threads: 1, watch: true }
listeners: { public: { address: "127.0.0.1:{port}" } }
upstreams:
  up: { targets: ["{up}"], protocol: {protocol}, tls: { ca: ca.pem{tls} }{more} }
routes:
  up: { match: { path: /** }, auth: public, upstream: up }
"#;

/// What the tests share: one folder with everything in it.
struct Setup {
    authority: Ca,
    dir: tempfile::TempDir,
}

impl Setup {
    fn new() -> Setup {
        Setup { authority: Ca::new("tests"), dir: tempfile::tempdir().unwrap() }
    }

    fn put(&self, name: &str, certified: &Leaf) -> (String, String) {
        let (chain, key) = (self.dir.path().join(format!("{name}.pem")), self.dir.path().join(format!("{name}.key")));
        std::fs::write(&chain, &certified.chain).unwrap();
        std::fs::write(&key, &certified.key).unwrap();
        (chain.display().to_string(), key.display().to_string())
    }

    fn nginx(&self, certified: &Leaf, more: &str) -> (Nginx, u16) {
        let (chain, key) = self.put("nginx", certified);
        let port = free_port();
        let server = format!(
            "listen 127.0.0.1:{port} ssl; http2 on; ssl_certificate {chain}; ssl_certificate_key {key}; {more} \
             location / {{ add_header x-connection $connection always; add_header x-name \"$ssl_server_name\" always; \
             add_header x-version $ssl_protocol always; add_header x-client \"$ssl_client_s_dn\" always; return 200 \"$server_protocol\"; }}"
        );
        (Nginx::start(&server), port)
    }

    fn h2(&self, certified: &Leaf, more: &[&str]) -> H2Upstream {
        let (chain, key) = self.put("h2", certified);
        H2Upstream::start(&[&["--certificate", &chain, "--key", &key], more].concat())
    }

    fn gateway(&self, up: &str, protocol: &str, tls: &str) -> Config {
        let config = Gateway::config(CONFIG).var("up", up).var("protocol", protocol).var("tls", tls).var("more", "");
        config.file("ca.pem", self.authority.pem.clone())
    }
}

#[test]
fn a_target_is_verified_and_its_connections_are_shared() {
    let setup = Setup::new();
    let (_nginx, port) = setup.nginx(&setup.authority.issue(&["localhost"]), "");
    for (protocol, spoken) in [("http1", "HTTP/1.1"), ("h2", "HTTP/2.0"), ("auto", "HTTP/2.0")] {
        let gateway = setup.gateway(&format!("localhost:{port}"), protocol, "").start();
        let first = eventually("the name is resolved", || Some(gateway.get("/a", &[])).filter(|answer| answer.status == 200));
        assert_eq!(
            (first.text(), first.header("x-name"), first.header("x-version")),
            (spoken, Some("localhost"), Some("TLSv1.3")),
            "{protocol}"
        );
        let connection = first.header("x-connection").unwrap().to_owned();
        for _ in 0..5 {
            assert_eq!(gateway.client().post("/b", &[], b"body").header("x-connection"), Some(connection.as_str()), "{protocol}");
        }
        let metric = |which: &str| gateway.metric(&format!(r#"sluice_upstream_connections_total{{upstream="up",connection="{which}"}}"#));
        assert_eq!((metric("new"), metric("reused")), (1.0, 5.0), "{protocol}");
    }
}

#[test]
fn a_large_body_passes_both_ways_over_tls() {
    let setup = Setup::new();
    let upstream = setup.h2(&setup.authority.issue(&["127.0.0.1"]), &[]);
    let gateway = setup.gateway(&upstream.address, "h2", "").start();
    let body: Vec<u8> = (0..2_000_000u32).map(|n| (n % 251) as u8).collect();
    let answer = gateway.client().post("/echo", &[], &body);
    assert!(answer.status == 200 && answer.body == body, "{} {}", answer.status, answer.body.len());
    let request = upstream.requests("/echo", 1).remove(0);
    assert_eq!(
        (field(&request, ":scheme"), field(&request, ":authority"), field(&request, "host").len()),
        (vec!["https"], vec!["test"], 0)
    );
    assert_eq!(upstream.events("connection")[0]["alpn"], "h2");
}

/// Each with what the log says; the client learns nothing of it.
#[test]
fn every_failure_of_a_handshake_has_its_reason() {
    let setup = Setup::new();
    let other = Ca::new("other");
    let good = || setup.authority.issue(&["127.0.0.1"]);
    let mut wrong = Vec::new();
    for (name, certified, nginx, protocol, tls, reason) in [
        ("unknown", other.issue(&["127.0.0.1"]), "", "http1", "", "signed by nobody in `ca`"),
        ("expired", setup.authority.issue_expired(&["127.0.0.1"]), "", "http1", "", "has expired"),
        ("name", setup.authority.issue(&["orders.example"]), "", "http1", "", "for other names"),
        ("asked", good(), "", "http1", ", server_name: orders.example", "for other names"),
        ("pinned", good(), "", "http1", ", san: ['spiffe://prod/orders']", "for other names"),
        ("pinned, unknown", other.issue(&["spiffe://prod/orders"]), "", "http1", ", san: ['spiffe://prod/orders']", "signed by nobody"),
        ("old", good(), "ssl_protocols TLSv1.2;", "http1", ", minimum: '1.3'", "no version"),
        ("protocol", good(), "", "h2-not", "", "does not speak the protocol"),
    ] {
        // nginx always offers both; Python's server can leave HTTP/2 out.
        let (up, _guards);
        let protocol = if protocol == "h2-not" {
            let upstream = setup.h2(&certified, &["--alpn", "http/1.1"]);
            (up, _guards) = (upstream.address.clone(), (None, Some(upstream)));
            "h2"
        } else {
            let (server, port) = setup.nginx(&certified, nginx);
            (up, _guards) = (format!("127.0.0.1:{port}"), (Some(server), None));
            protocol
        };
        let gateway = setup.gateway(&up, protocol, tls).start();
        let answer = gateway.client().post("/a", &[], b"body");
        if (answer.status, answer.code().as_str()) != (502, "upstream-tls-failed") {
            wrong.push(format!("{name}: {} {}", answer.status, answer.text()));
        }
        let line = gateway.log_line_where(|line| line["path"] == "/a");
        if !line["reason"].as_str().is_some_and(|found| found.contains(reason)) {
            wrong.push(format!("{name}: {line}"));
        }
        if answer.text().contains("certificate") || answer.text().contains(&up) {
            wrong.push(format!("{name}: the client learns too much: {}", answer.text()));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn a_target_that_does_not_shake_hands_is_a_timeout_and_one_without_tls_is_told() {
    let setup = Setup::new();
    let silent = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let config = |up: String| setup.gateway(&up, "http1", "").var("more", "");
    let gateway = Gateway::config(&CONFIG.replace("{more}", ", timeouts: { connect: 300ms }"))
        .var("up", silent.local_addr().unwrap())
        .var("protocol", "http1")
        .var("tls", "")
        .file("ca.pem", setup.authority.pem.clone())
        .start();
    let answer = gateway.get("/a", &[]);
    assert_eq!((answer.status, answer.code().as_str()), (504, "upstream-connect-timeout"));
    assert_eq!(gateway.log_line_where(|line| line["path"] == "/a")["reason"], "no TLS handshake within 300ms");
    let plain = Nginx::start("");
    let gateway = config(plain.address().to_string()).start();
    assert_eq!(gateway.get("/a", &[]).code(), "upstream-tls-failed");
    assert_eq!(gateway.log_line_where(|line| line["path"] == "/a")["reason"], "what the target sends is not TLS");
}

#[test]
fn names_may_be_asked_for_and_pinned() {
    let setup = Setup::new();
    let (_nginx, port) = setup.nginx(&setup.authority.issue(&["orders.example", "spiffe://prod/orders"]), "");
    for (tls, asked) in [
        (", server_name: orders.example", "orders.example"),
        (", server_name: sni.example, san: [orders.example]", "sni.example"),
        (", san: ['spiffe://prod/payments', 'spiffe://prod/orders']", ""),
    ] {
        let gateway = setup.gateway(&format!("127.0.0.1:{port}"), "http1", tls).start();
        let answer = gateway.get("/a", &[]);
        assert_eq!((answer.status, answer.header("x-name").unwrap_or_default()), (200, asked), "{tls}");
    }
}

#[test]
fn a_target_that_asks_for_a_certificate_gets_it() {
    let setup = Setup::new();
    std::fs::write(setup.dir.path().join("clients.pem"), &setup.authority.pem).unwrap();
    let verify = format!("ssl_client_certificate {}/clients.pem; ssl_verify_client on;", setup.dir.path().display());
    let (_nginx, port) = setup.nginx(&setup.authority.issue(&["127.0.0.1"]), &verify);
    let own = setup.authority.issue(&["gateway.example"]);
    let with = setup.gateway(&format!("127.0.0.1:{port}"), "http1", ", certificate: { chain: own.pem, key: own.key }");
    let other = setup.authority.issue(&["other.example"]);
    let with = with.file("again.pem", setup.authority.issue_again(&own, &["again.example"])).file("other.key", other.key);
    let with = with.file("own.pem", own.chain).file("own.key", own.key).start();
    let answer = with.get("/a", &[]);
    assert_eq!((answer.status, answer.header("x-client").unwrap_or_default().contains("gateway.example")), (200, true));
    let without = setup.gateway(&format!("127.0.0.1:{port}"), "http1", "").start();
    assert_eq!(without.get("/a", &[]).status, 400, "nginx's own answer");
}

#[test]
fn upstreams_with_different_identities_share_no_connection() {
    let setup = Setup::new();
    let upstream = setup.h2(&setup.authority.issue(&["127.0.0.1", "spiffe://prod/orders"]), &[]);
    let other = Ca::new("other");
    let config = r#"
server: { threads: 1 }
listeners: { public: { address: "127.0.0.1:{port}" } }
upstreams:
  a: { targets: ["{up}"], protocol: h2, tls: { ca: ca.pem } }
  b: { targets: ["{up}"], protocol: h2, tls: { ca: ca.pem, san: ['spiffe://prod/orders'] } }
  c: { targets: ["{up}"], protocol: h2, tls: { ca: other.pem } }
routes:
  a: { match: { path: /a }, auth: public, upstream: a }
  b: { match: { path: /b }, auth: public, upstream: b }
  c: { match: { path: /c }, auth: public, upstream: c }
"#;
    let gateway = Gateway::config(config)
        .var("up", &upstream.address)
        .file("ca.pem", setup.authority.pem.clone())
        .file("other.pem", other.pem)
        .start();
    for _ in 0..2 {
        assert_eq!(gateway.get("/a", &[]).header("x-connection"), Some("0"));
    }
    let b = gateway.get("/b", &[]).header("x-connection").unwrap().to_owned();
    assert_ne!(b, "0");
    assert_eq!(gateway.get("/c", &[]).code(), "upstream-tls-failed", "a connection of others would have let it in");
    assert_eq!(gateway.get("/a", &[]).header("x-connection"), Some("0"));
}

#[test]
fn a_reload_reads_the_files_again_and_leaves_old_connections_alone() {
    let setup = Setup::new();
    let upstream = setup.h2(&setup.authority.issue(&["127.0.0.1"]), &[]);
    let gateway = setup.gateway(&upstream.address, "h2", "").start();
    assert_eq!(gateway.get("/a", &[]).header("x-connection"), Some("0"));
    let ca = gateway.dir().join("ca.pem");
    // The file is watched. The pooled connection is of another identity.
    std::fs::write(&ca, Ca::new("other").pem).unwrap();
    eventually("the new authority is asked", || (gateway.get("/b", &[]).status == 502).then_some(()));
    std::fs::write(&ca, "nothing").unwrap();
    eventually("it is refused", || gateway.stderr().contains("holds no certificates").then_some(()));
    assert_eq!(gateway.get("/c", &[]).code(), "upstream-tls-failed", "what cannot be read changes nothing");
    std::fs::write(&ca, &setup.authority.pem).unwrap();
    eventually("the old authority is back", || (gateway.get("/d", &[]).status == 200).then_some(()));
}

#[test]
fn a_target_is_checked_over_tls_too() {
    let setup = Setup::new();
    let upstream = setup.h2(&setup.authority.issue(&["127.0.0.1"]), &[]);
    for (ca, is_well) in [(setup.authority.pem.clone(), true), (Ca::new("other").pem, false)] {
        let config = CONFIG.replace("{more}", ", health: { path: /healthz, every: 500ms, timeout: 500ms }");
        let gateway = Gateway::config(&config).var("up", &upstream.address).var("protocol", "h2").var("tls", "").file("ca.pem", ca).start();
        eventually("it is checked", || {
            let up = gateway.metric(&format!(r#"sluice_target_healthy{{upstream="up",target="{}"}}"#, upstream.address));
            ((up == 1.0) == is_well && (!is_well || !upstream.events("request").is_empty())).then_some(())
        });
        assert_eq!(gateway.get("/a", &[]).status, if is_well { 200 } else { 503 });
    }
}

#[test]
fn checks_over_tls_use_one_connection() {
    let setup = Setup::new();
    // Only a connection that is kept ever comes to its fourth request.
    let checked = "location = /healthz { if ($connection_requests = 4) { return 503; } return 200; }";
    let (_nginx, port) = setup.nginx(&setup.authority.issue(&["127.0.0.1"]), checked);
    for protocol in ["http1", "h2"] {
        let config = CONFIG.replace("{more}", ", health: { path: /healthz, every: 500ms, timeout: 500ms, unhealthy_after: 1 }");
        let target = format!("127.0.0.1:{port}");
        let gateway = Gateway::config(&config).var("up", target).var("protocol", protocol).var("tls", "");
        let gateway = gateway.file("ca.pem", setup.authority.pem.clone()).start();
        // On a busy machine one may take too long, and the next begins anew.
        assert!(gateway.stderr_line("503").contains("is out"), "{protocol}");
    }
}

#[test]
fn an_answer_over_tls_that_was_cut_is_not_taken_for_whole() {
    // Python's server, without HTTP/2: an answer whose end only the end of the connection tells, and TLS that ends without a word.
    let setup = Setup::new();
    let (chain, key) = setup.put("cut", &setup.authority.issue(&["127.0.0.1"]));
    for (how, is_whole) in [("well", true), ("cut", false)] {
        let server = crate::harness::PythonServer::start("tls_until_close.py", &[&chain, &key, how]);
        let gateway = setup.gateway(&server.address().to_string(), "http1", "").start();
        let answer = gateway.client().try_request("GET", "/a", &[], b"");
        assert_eq!(answer.as_ref().is_ok_and(|answer| answer.text() == "hello"), is_whole, "{how}: {answer:?}");
    }
}
