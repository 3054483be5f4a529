//! TLS towards clients of OpenSSL by Python's `ssl`: versions, protocols, sessions, certificates, and a load balancer in between.

use serde_json::{Value, json};

use super::harness::haproxy::Haproxy;
use super::harness::*;

const TEXT: &str = r#"
server: { threads: 2, settle: 0s }
listeners:
  public:
    address: "127.0.0.1:{port}"
    {more}
    tls:
      certificates: { main: { chain: main.pem, key: main.key } }
      client_certificates: { ca: clients.pem, required: false }
authenticators: { mesh: { client_certificate: {} } }
consumers: { acme: { identities: [{ authenticator: mesh, claim: common_name, is: acme }] } }
routes:
  all: { match: { path: "/**" }, auth: public, respond: { status: 200, body: "hi" } }
  mesh: { match: { path: /mesh }, auth: [mesh], respond: { status: 200, body: "you" } }
"#;

struct Setup {
    gateway: Gateway,
}

fn setup(more: &str) -> Setup {
    let (ca, clients) = (Ca::new("Test"), Ca::new("Clients"));
    let (main, acme) = (ca.server(&["main.example"]), clients.client("acme", 1, &[]));
    let config = Gateway::config(TEXT).var("more", more).file("main.pem", main.chain).file("main.key", main.key);
    let config = config.file("ca.pem", ca.pem).file("clients.pem", clients.pem).file("acme.pem", acme.chain).file("acme.key", acme.key);
    Setup { gateway: config.start() }
}

impl Setup {
    /// What the client tells of these connections, and more of what it is told.
    fn ask(&self, connections: Value, more: Value) -> Vec<Value> {
        let file = |name: &str| self.gateway.dir().join(name).display().to_string();
        let mut told =
            json!({ "port": self.gateway.address().port(), "name": "main.example", "ca": file("ca.pem"), "connections": connections });
        for (key, value) in more.as_object().unwrap() {
            told[key] = match (key.as_str(), value.as_str()) {
                ("cert" | "key", Some(name)) => file(name).into(),
                _ => value.clone(),
            };
        }
        python("tls_client.py", &[&told.to_string()]).as_array().unwrap().clone()
    }
}

fn statuses(connection: &Value) -> Vec<u64> {
    connection["answers"].as_array().unwrap().iter().map(|answer| answer["status"].as_u64().unwrap()).collect()
}

#[test]
fn pythons_ssl_agrees_on_versions_resumes_sessions_and_is_known_by_its_certificate() {
    let setup = setup("");
    for (newest, version) in [("1.3", "TLSv1.3"), ("1.2", "TLSv1.2")] {
        let requests = json!([["main.example", "/mesh"], ["main.example", "/"], ["other.example", "/"]]);
        let own = json!({ "cert": "acme.pem", "key": "acme.key", "newest": newest });
        let told = setup.ask(json!([requests, requests]), own);
        for (connection, resumed) in told.iter().zip([false, true]) {
            assert_eq!((&connection["version"], &connection["resumed"]), (&version.into(), &resumed.into()), "{connection}");
            assert_eq!(statuses(connection), [200, 200, 421], "{connection}");
        }
        let told = setup.ask(json!([[["main.example", "/mesh"]]]), json!({ "newest": newest }));
        assert_eq!(statuses(&told[0]), [401]);
        assert!(told[0]["answers"][0]["body"].as_str().unwrap().contains("credentials-missing"));
    }
    let lines = setup.gateway.log_lines(14);
    assert_eq!(lines.iter().filter(|line| line["consumer"] == "acme").count(), 4, "{lines:#?}");
}

#[test]
fn a_listener_of_http1_agrees_on_it_and_takes_no_preface_of_http2() {
    let setup = setup("protocols: [http1]");
    let told = setup.ask(json!([[["main.example", "/"]]]), json!({ "alpn": ["h2", "http/1.1"] }));
    assert_eq!((&told[0]["alpn"], statuses(&told[0])), (&"http/1.1".into(), vec![200]));
    // One that speaks HTTP/2 only has nothing in common with it.
    let told = setup.ask(json!([[["main.example", "/"]]]), json!({ "alpn": ["h2"] }));
    assert!(told[0]["error"].as_str().unwrap().to_ascii_lowercase().contains("no application protocol"), "{told:?}");
    // One that says http/1.1, or nothing, and begins with the preface all the same.
    let ca = std::fs::read_to_string(setup.gateway.dir().join("ca.pem")).unwrap();
    let mut client = TlsClient::connect_believing(setup.gateway.address(), "main.example", &ca, None).unwrap();
    let answer = client.send_and_read_to_end(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0").unwrap();
    let text = String::from_utf8_lossy(&answer);
    assert!(text.starts_with("HTTP/1.1 ") && !text.starts_with("HTTP/1.1 200"), "{text}");
    let line = setup.gateway.log_line_where(|line| line["status"].as_u64() != Some(200));
    assert_ne!(line["code"], Value::Null, "{line}");
}

#[test]
fn a_load_balancer_names_its_client_before_our_own_handshake() {
    let setup = setup("proxy_protocol: { trusted: [127.0.0.1/32] }");
    let haproxy = Haproxy::start(setup.gateway.address(), &[("", "send-proxy"), ("", "send-proxy-v2")]);
    for (index, source) in [(0, "127.0.0.8"), (1, "127.0.0.9")] {
        let more = json!({ "port": haproxy.address(index).port(), "source": source, "cert": "acme.pem", "key": "acme.key" });
        let told = setup.ask(json!([[["main.example", "/mesh"]], [["main.example", "/mesh"]]]), more);
        for (connection, resumed) in told.iter().zip([false, true]) {
            assert_eq!((statuses(connection), &connection["resumed"]), (vec![200], &resumed.into()), "{connection}");
        }
        let line = setup.gateway.log_line_where(|line| line["client"] == source);
        assert_eq!((&line["consumer"], &line["tls_version"]), (&"acme".into(), &"1.3".into()), "{line}");
    }
    // Without the header there is no handshake.
    let told = setup.ask(json!([[["main.example", "/mesh"]]]), json!({}));
    assert!(told[0]["error"].is_string(), "{told:?}");
}
