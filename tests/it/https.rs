//! Plain requests where `https` is wanted: of routes, on listeners that others share with them, and behind a proxy that ends TLS.

use std::process::Command;

use crate::harness::{Ca, Gateway, Upstream};

const TEXT: &str = r#"
listeners:
  plain: { address: "127.0.0.1:{port}" }
  secure: { address: "127.0.0.1:{port:secure}", tls: { certificates: { main: { chain: main.pem, key: main.key } } } }
upstreams: { up: { targets: ["{up}"] } }
routes:
  page: { listeners: [plain, secure], match: { path: /page/** }, auth: public, https: { plain: redirect, port: {port:secure} }, response_headers: { security: strict }, upstream: up }
  api: { listeners: [plain, secure], match: { path: /api/** }, auth: public, https: { plain: refuse }, upstream: up }
  soon: { listeners: [plain, secure], match: { path: /soon }, auth: public, https: { plain: redirect }, shadow: [https], upstream: up }
  open: { listeners: [plain, secure], match: { path: /open }, auth: public, upstream: up }
tests:
  a page is sent on: { request: { url: "http://main.example/page/a?b=c", listener: plain }, expect: { status: 308 } }
  an API is not: { request: { url: http://main.example/api/a, listener: plain }, expect: { status: 403, code: https-required } }
  both are there: { request: { url: https://main.example/api/a, listener: secure }, expect: { allowed: true } }
"#;

#[test]
fn a_route_sends_plain_requests_on_or_refuses_them_and_others_do_not() {
    let (ca, upstream) = (Ca::new("Test"), Upstream::start());
    let main = ca.server(&["main.example"]);
    let gateway = Gateway::config(TEXT)
        .var("up", upstream.address())
        .file("main.pem", main.chain)
        .file("main.key", main.key)
        .file("ca.pem", ca.pem.clone())
        .start();
    let (plain, secure) = (gateway.address().port(), gateway.address_of("secure").port());
    let curl = |more: &[&str]| {
        let output = Command::new("curl")
            .args(["-s", "--max-time", "20", "--cacert", "ca.pem", "-o", "/dev/null", "-D", "-"])
            .args(["-w", "%{response_code} %{num_redirects} %{url_effective}"])
            .args(["--resolve", &format!("main.example:{plain}:127.0.0.1"), "--resolve", &format!("main.example:{secure}:127.0.0.1")])
            .args(more)
            .current_dir(gateway.dir())
            .output()
            .expect("curl can be run");
        String::from_utf8(output.stdout).unwrap().to_ascii_lowercase()
    };
    // A client that follows ends at the same URL, with its method and body.
    let told = curl(&["-L", "--data", "x=y", &format!("http://main.example:{plain}/page/a%20b?c=d&e")]);
    assert!(told.ends_with(&format!("200 1 https://main.example:{secure}/page/a%20b?c=d&e")), "{told}");
    let (first, second) = told.split_once("\r\n\r\n").unwrap();
    assert!(first.starts_with("http/1.1 308") && !first.contains("strict-transport-security"), "HSTS on plain means nothing: {first}");
    assert!(second.contains("strict-transport-security: max-age="), "{second}");
    let sent = upstream.requests().pop().unwrap();
    assert_eq!((sent.method.as_str(), sent.target.as_str(), sent.body.as_slice()), ("POST", "/page/a%20b?c=d&e", &b"x=y"[..]));

    let told = curl(&[&format!("http://main.example:{plain}/api/a")]);
    assert!(told.starts_with("http/1.1 403"), "{told}");
    assert_eq!(upstream.requests().len(), 1, "nothing of it went on");
    assert_eq!(gateway.metric(r#"sluice_refusals_total{policy="https",code="https-required"}"#), 1.0);
    assert!(curl(&[&format!("https://main.example:{secure}/api/a")]).starts_with("http/2 200"));
    assert!(curl(&[&format!("http://main.example:{plain}/open")]).starts_with("http/1.1 200"));
    // What would be, without being.
    assert!(curl(&[&format!("http://main.example:{plain}/soon")]).starts_with("http/1.1 200"));
    let line = gateway.log_line_where(|line| line["path"] == "/soon");
    assert_eq!(line["would_refuse"], serde_json::json!(["https-required"]));
}
