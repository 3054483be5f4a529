//! The page of the private listener, as a browser shows it.

use std::process::Command;

use crate::harness::{Answer, Gateway, Upstream, eventually, get};

const CONFIG: &str = r#"
server: { threads: 1 }
listeners: { public: { address: "127.0.0.1:{port}" } }
admin: { address: "127.0.0.1:{admin}" }
upstreams:
  orders: { targets: ["{good}", "{bad}"], outlier_detection: { gateway_errors: 2, eject_for: 10m } }
  billing: { targets: ["{bad}"], health: { path: /healthz, every: 1s } }
  search: { targets: ["{good}"], circuit_breaker: { of: upstream, min_requests: 1, failures: 1%, open_for: 1h } }
routes:
  orders: { match: { path: /orders }, auth: public, upstream: orders }
  billing: { match: { path: /billing }, auth: public, upstream: billing }
  search: { match: { path: /search }, auth: public, upstream: search }
"#;

/// What Chromium makes of a page: its document, and what it complained about.
fn browse(gateway: &Gateway, more: &[&str]) -> (String, String) {
    let profile = tempfile::tempdir().unwrap();
    let output = Command::new("chromium")
        .args(["--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking"])
        .args(["--disable-component-update", "--disable-sync", "--disable-dev-shm-usage", "--enable-logging=stderr", "--dump-dom"])
        .args(more)
        .arg(format!("--user-data-dir={}", profile.path().display()))
        .arg(format!("http://{}/", gateway.admin()))
        .output()
        .expect("chromium is installed: scripts/setup.sh test");
    let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
    (text(output.stdout), text(output.stderr))
}

#[test]
fn a_browser_shows_what_is_out_first_and_loads_nothing_else() {
    let (good, bad) = (
        Upstream::script(|request| Answer::new(if request.target == "/search" { 500 } else { 200 }).steps()),
        Upstream::answering(Answer::new(503)),
    );
    let gateway = Gateway::config(CONFIG).var("good", good.address()).var("bad", bad.address()).start();
    (0..8).for_each(|_| drop(gateway.get("/orders", &[])));
    gateway.get("/search", &[]);
    eventually("the checks", || gateway.stderr().contains("upstream billing").then_some(()));
    // A picture for whoever wants to look at it.
    let picture = std::env::var_os("SLUICE_TESTS_PICTURE").map(|path| format!("--screenshot={}", path.to_string_lossy()));
    let more: Vec<_> = picture.iter().map(String::as_str).chain(["--window-size=1180,1100", "--force-color-profile=srgb"]).collect();
    let (page, complaints) = browse(&gateway, &more);
    assert!(!complaints.contains("Content Security Policy") && !complaints.contains("Refused to"), "{complaints}");
    assert!(page.contains("<h1 class=\"bad\">2 of 4 targets OUT, 1 circuit OPEN</h1>"), "{page}");
    let places = ["What is out", "CIRCUIT OPEN", "check fails: answered 503", "<h2>Targets", "<h2>Listeners"]
        .map(|text| page.find(text).unwrap_or_else(|| panic!("`{text}` is missing: {page}")));
    assert!(places.is_sorted(), "{places:?}");
    assert!(page.contains("ejected: 2 gateway errors in a row"), "{page}");
    assert!(!page.contains("<script"), "{page}");
    // JSON stays JSON, whoever asks.
    let json = get(gateway.admin(), "/status", &[("accept", "text/html")]);
    assert_eq!(json.header("content-type"), Some("application/json"));
    let html = get(gateway.admin(), "/", &[]);
    assert!(html.header("content-security-policy").is_some_and(|policy| policy.starts_with("default-src 'none'; style-src 'sha256-")));
}
