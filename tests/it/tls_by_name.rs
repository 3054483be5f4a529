//! Certificates of clients by the name that they ask for: whatever a client does, a host is reached only as its own certificate says.

use std::process::Command;

use super::harness::*;

const TEXT: &str = r#"
server: { threads: 2, settle: 0s }
listeners:
  public:
    address: "127.0.0.1:{port}"
    tls:
      certificates:
        a: { chain: a.pem, key: a.key, client_certificates: { ca: one.pem, crl: one.crl } }
        b: { chain: b.pem, key: b.key }
        c: { chain: c.pem, key: c.key, client_certificates: { ca: two.pem, required: false } }
routes:
  a: { match: { hosts: [a.example], path: "/**" }, auth: public, respond: { status: 200, body: "a" } }
  b: { match: { hosts: [b.example], path: "/**" }, auth: public, respond: { status: 200, body: "b" } }
  c: { match: { hosts: [c.example], path: "/**" }, auth: public, respond: { status: 200, body: "c" } }
"#;

/// Who signs servers, who signs clients of a, who signs those of c; and the gateway with `own.pem` of each kind in its folder.
fn setup() -> (Gateway, Ca, Ca, Ca) {
    let (ca, one, two) = (Ca::new("Test"), Ca::new("One"), Ca::new("Two"));
    let mut config = Gateway::config(TEXT).file("ca.pem", ca.pem.clone());
    for name in ["a", "b", "c"] {
        let leaf = ca.server(&[&format!("{name}.example")]);
        config = config.file(&format!("{name}.pem"), leaf.chain).file(&format!("{name}.key"), leaf.key);
    }
    for (name, leaf) in [("of-one", one.client("x", 1, &[])), ("of-two", two.client("x", 1, &[]))] {
        config = config.file(&format!("{name}.pem"), leaf.chain).file(&format!("{name}.key"), leaf.key);
    }
    let config = config.file("one.pem", one.pem.clone()).file("two.pem", two.pem.clone()).file("one.crl", one.revoke(&[7]));
    (config.start(), ca, one, two)
}

#[test]
fn each_certificate_has_clients_of_its_own_and_no_way_leads_past_them() {
    let (gateway, ca, one, two) = setup();
    let (of_one, of_two, revoked) = (one.client("x", 1, &[]), two.client("x", 1, &[]), one.client("x", 7, &[]));
    let ask = |name: &str, own: Option<&Leaf>, host: &str| {
        let mut client = TlsClient::connect(gateway.address(), &format!("{name}.example"), &ca, own).ok()?;
        client.get(&format!("{host}.example"), "/").ok().map(|(status, _)| status)
    };
    for (name, own, host, expected) in [
        ("a", Some(&of_one), "a", Some(200)),
        ("a", None, "a", None),
        ("a", Some(&of_two), "a", None),
        ("a", Some(&revoked), "a", None),
        ("a", None, "b", None),
        ("b", None, "b", Some(200)),
        ("b", None, "a", Some(421)),
        ("b", None, "c", Some(421)),
        // It asks for none, so whatever there is is not shown.
        ("b", Some(&of_one), "a", Some(421)),
        ("c", None, "c", Some(200)),
        ("c", Some(&of_two), "c", Some(200)),
        ("c", Some(&of_one), "c", None),
        ("c", Some(&of_two), "a", Some(421)),
        ("a", Some(&of_one), "c", Some(421)),
        ("a", Some(&of_one), "b", Some(421)),
    ] {
        assert_eq!(ask(name, own, host), expected, "connected to {name}, asked for {host}");
    }
    // An address is no name, and no certificate is for those who ask for none.
    let port = gateway.address().port();
    let bare = Command::new("curl").args(["-s", "-k", "-H", "Host: a.example", &format!("https://127.0.0.1:{port}/")]).output().unwrap();
    assert!(!bare.status.success(), "{bare:?}");
    assert_eq!(ask("unknown", Some(&of_one), "a"), None);
    Client::connect(gateway.address()).send([22, 3, 1, 0, 5, 9, 9, 9, 9, 9]).expect_close();
    let count = |result: &str| gateway.metric(&format!(r#"sluice_tls_handshakes_total{{listener="public",result="{result}"}}"#));
    eventually("the counts", || {
        let counts = ["unknown_name", "malformed", "client_certificate"].map(count);
        (counts == [2.0, 1.0, 5.0]).then_some(())
    });
    // The same over HTTP/2.
    let over = |name: &str, host: &str| {
        let output = Command::new("curl")
            .args(["-s", "--http2", "--max-time", "20", "--cacert", "ca.pem", "-o", "/dev/null", "-w", "%{http_version} %{http_code}"])
            .args(["--resolve", &format!("{name}.example:{port}:127.0.0.1"), "-H", &format!("Host: {host}.example")])
            .arg(format!("https://{name}.example:{port}/"))
            .current_dir(gateway.dir())
            .output()
            .unwrap();
        String::from_utf8(output.stdout).unwrap()
    };
    assert_eq!([over("b", "b"), over("b", "a"), over("c", "a")], ["2 200", "2 421", "2 421"]);
}

/// What openssl says of a connection for a name, with a request for it.
fn s_client(gateway: &Gateway, name: &str, more: &[&str]) -> String {
    openssl::s_client(gateway, &format!("{name}.example"), "/", &[&["-trace"], more].concat())
}

#[test]
fn a_ticket_of_one_name_is_worth_nothing_for_another() {
    let (gateway, ..) = setup();
    for version in ["-tls1_3", "-tls1_2"] {
        let own = |name: &str| match name {
            "a" => vec!["-cert", "of-one.pem", "-key", "of-one.key"],
            "c" => vec!["-cert", "of-two.pem", "-key", "of-two.key"],
            _ => Vec::new(),
        };
        for name in ["a", "b", "c"] {
            let first = s_client(&gateway, name, &[&[version, "-sess_out", name][..], &own(name)].concat());
            assert!(first.contains("New, TLS") && first.contains("HTTP/1.1 200"), "{first}");
        }
        for (ticket, name) in [("a", "a"), ("b", "b"), ("c", "c"), ("a", "b"), ("a", "c"), ("b", "a"), ("b", "c"), ("c", "a"), ("c", "b")] {
            // Without a certificate at hand: only the session could stand for it.
            let told = s_client(&gateway, name, &[version, "-sess_in", ticket]);
            let hello = told.split("Received Record").next().unwrap();
            let is_offered = hello.contains("extension_type=psk(41)") || hello.contains("ticket (len=");
            assert!(is_offered, "the client has offered nothing: {told}");
            let (reused, answered) = (told.contains("Reused, TLS"), told.contains("HTTP/1.1 200"));
            // To a nobody gets without one.
            let expected = if ticket == name { (true, true) } else { (false, name != "a") };
            assert_eq!((reused, answered), expected, "{version}: the ticket of {ticket} for {name}: {told}");
        }
    }
}
