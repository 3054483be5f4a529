//! Upstreams behind Unix sockets: nginx and Python's h2 listen there.

use std::path::Path;

use serde_json::json;

use super::harness::h2_upstream::{H2Upstream, field};
use super::harness::*;

const CONFIG: &str = r#"
server: { threads: 1 }
listeners: { public: { address: "127.0.0.1:{port}" } }
upstreams:
  both: { targets: ["unix:{dir}/a.sock", "unix:{dir}/b.sock"], retries: { attempts: 2 } }
  a: { targets: ["unix:{dir}/a.sock"] }
  checked: { targets: ["unix:{dir}/a.sock", "unix:{dir}/b.sock"], health: { path: /ok, every: 300ms }, retries: { attempts: 1 } }
  h2: { targets: ["unix:{dir}/h2.sock"], protocol: h2, health: {} }
routes:
  both: { match: { path: /both/** }, auth: public, upstream: both }
  a: { match: { path: /a/** }, auth: public, upstream: a }
  own: { match: { path: /own/** }, auth: public, upstream: a, rewrite: { host: upstream } }
  checked: { match: { path: /checked/** }, auth: public, upstream: checked }
  h2: { match: { path: /h2/** }, auth: public, upstream: h2 }
"#;

/// An nginx that answers with its name and what it is asked, on a Unix socket.
fn nginx(dir: &Path, name: &str) -> Nginx {
    let path = dir.join(format!("{name}.sock"));
    let _ = std::fs::remove_file(&path);
    Nginx::start(&format!("listen unix:{}; location / {{ return 200 \"{name} $http_host $uri\"; }}", path.display()))
}

/// The gateway, and the folder where its targets are.
fn start(config: &str, dir: &Path) -> Gateway {
    Gateway::config(&config.replace("{dir}", &dir.display().to_string())).start()
}

#[test]
fn requests_go_to_unix_sockets_and_come_back_over_connections_of_their_own() {
    let dir = tempfile::tempdir().unwrap();
    let _peers = [nginx(dir.path(), "a"), nginx(dir.path(), "b")];
    let gateway = start(CONFIG, dir.path());
    let mut client = gateway.client();
    let answers: Vec<_> = (0..10).map(|_| client.get("/both/x", &[("host", "shop.example")]).text().to_owned()).collect();
    assert!(answers.chunks(2).all(|pair| pair == ["a shop.example /both/x", "b shop.example /both/x"]), "{answers:?}");
    let connections = |which| gateway.metric(&format!(r#"sluice_upstream_connections_total{{upstream="both",connection="{which}"}}"#));
    assert_eq!((connections("new"), connections("reused")), (2.0, 8.0), "each socket has its own");
    assert_eq!(client.get("/own/x", &[("host", "shop.example")]).text(), "a localhost /own/x");
    let line = gateway.log_line_where(|line| line["path"] == "/own/x");
    assert_eq!((&line["target"], &line["status"]), (&json!(format!("unix:{}/a.sock", dir.path().display())), &json!(200)));
    let told = gateway.sluice(&["explain", "sluice.yaml", "GET http://shop.example/own/x"]);
    let told = String::from_utf8_lossy(&told.stdout).into_owned();
    assert!(told.contains("host: localhost"), "{told}");
}

#[test]
fn a_socket_that_nobody_listens_on_costs_a_request_nothing_and_is_found_by_checks() {
    let dir = tempfile::tempdir().unwrap();
    let (a, _b) = (nginx(dir.path(), "a"), nginx(dir.path(), "b"));
    let gateway = start(CONFIG, dir.path());
    let text = |path: &str| gateway.get(path, &[]).text().to_owned();
    drop(a);
    assert!((0..4).all(|_| text("/both/x").starts_with("b ")), "a second attempt goes to the other");
    let refused = gateway.get("/a/x", &[]);
    assert_eq!((refused.status, refused.code()), (502, "upstream-connect-failed".to_owned()));
    let reason = gateway.log_line_where(|line| line["code"] == "upstream-connect-failed")["reason"].to_string();
    assert!(reason.contains("refused"), "{reason}");

    let address = format!("unix:{}/a.sock", dir.path().display());
    let is_healthy = || {
        let status = gateway.status();
        let upstreams = status["upstreams"].to_string();
        assert!(upstreams.contains(&address), "{status:#}");
        gateway.metric(&format!(r#"sluice_target_healthy{{upstream="checked",target="{address}"}}"#)) == 1.0
    };
    eventually("the check that finds it", || (!is_healthy()).then_some(()));
    assert!((0..4).all(|_| text("/checked/x").starts_with("b ")));
    let _a = nginx(dir.path(), "a");
    eventually("the check that finds it well", || is_healthy().then_some(()));
    assert!((0..2).any(|_| text("/checked/x").starts_with("a ")));
}

#[test]
fn http_2_and_tls_are_spoken_over_unix_sockets() {
    let dir = tempfile::tempdir().unwrap();
    let ca = Ca::new("Test");
    let own = ca.server(&["app.internal"]);
    for (name, text) in [("ca.pem", &ca.pem), ("own.pem", &own.chain), ("own.key", &own.key)] {
        std::fs::write(dir.path().join(name), text).unwrap();
    }
    let at = |name: &str| dir.path().join(name).display().to_string();
    let plain = H2Upstream::start(&["--unix", &at("h2.sock")]);
    let tls = H2Upstream::start(&["--unix", &at("tls.sock"), "--certificate", &at("own.pem"), "--key", &at("own.key")]);
    let more = "  tls: { targets: [\"unix:{dir}/tls.sock\"], protocol: auto, tls: { ca: \"{dir}/ca.pem\", server_name: app.internal }, health: { path: /ok, every: 100ms } }\nroutes:\n  tls: { match: { path: /tls/** }, auth: public, upstream: tls }";
    let gateway = start(&CONFIG.replace("routes:", more), dir.path());
    assert_eq!(gateway.get("/h2/x", &[("host", "shop.example")]).text(), "/h2/x");
    assert_eq!(field(&plain.requests("/h2/x", 1)[0], ":authority"), ["shop.example"]);
    assert_eq!(gateway.get("/tls/x", &[("host", "shop.example")]).text(), "/tls/x");
    let request = tls.requests("/tls/x", 1).remove(0);
    assert_eq!((field(&request, ":authority"), field(&request, ":scheme")), (vec!["shop.example"], vec!["https"]));
    assert_eq!(field(&tls.requests("/ok", 1)[0], ":authority"), ["localhost"], "the check");
}
