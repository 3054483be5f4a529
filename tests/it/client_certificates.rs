//! Callers who are known by their certificates: over both versions of HTTP, resumed or not, and by no other way.

use std::process::{Command, Output};

use rcgen::SanType;
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;
use sluice::listen::tls::clients::describe;

use super::harness::*;

const TEXT: &str = r#"
server: { threads: 2, settle: 0s }
listeners:
  public:
    address: "127.0.0.1:{port}"
    tls:
      certificates: { main: { chain: main.pem, key: main.key } }
      client_certificates: { ca: clients.pem, crl: clients.crl, required: false }
authenticators:
  mesh:
    client_certificate:
      forward: { x-consumer: consumer, x-client-uri: uri, x-client-dns: dns, x-client-subject: subject, x-client-cert: fingerprint, x-client-serial: serial, client-cert: certificate, client-cert-chain: certificate_chain, x-client-pem: certificate_pem }
  keys: { api_key: { header: x-api-key } }
consumers:
  acme:
    identities: [{ authenticator: mesh, claim: uri, is: "spiffe://example/acme" }, { authenticator: mesh, claim: email, is: ops@acme.example }]
    scopes: [read]
    plan: gold
    tags: { version: v2 }
  beta:
    keys: [{ sha256: "9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08" }]
    identities: [{ authenticator: mesh, claim: fingerprint, is: "{beta}" }]
plans: { gold: { rate: 1000/h } }
limits:
  each: { rate: 3/h, by: [consumer, client_ip] }
upstreams: { up: { targets: ["{up}"] } }
routes:
  mesh: { match: { path: /mesh/** }, auth: [mesh, keys], upstream: up }
  read: { match: { path: /read }, auth: [mesh], allow: { scopes: [read] }, upstream: up }
  orders: { match: { path: /orders }, auth: [mesh], allow: { claims: { dns: [orders.example] } }, upstream: up }
  few: { match: { path: /few }, auth: [mesh], limits: [each], upstream: up }
  socket: { match: { path: /socket }, auth: [mesh], websocket: { close_at_expiry: true }, upstream: up }
  open: { match: { path: /open }, auth: public, upstream: up }
tests:
  acme is let in:
    request: { url: https://main.example/read, certificate: { uri: "spiffe://example/acme", dns: [a.example] } }
    expect: { allowed: true, upstream_headers: { x-consumer: acme, x-client-dns: a.example } }
  its mail is enough: { request: { url: https://main.example/read, certificate: { email: ops@acme.example } }, expect: { allowed: true } }
  others are not: { request: { url: https://main.example/read, certificate: { uri: "spiffe://example/acme/" } }, expect: { status: 401, code: certificate-unknown } }
  nobody is not: { request: { url: https://main.example/read }, expect: { status: 401, code: credentials-missing } }
  it must be the right one: { request: { url: https://main.example/orders, certificate: { uri: "spiffe://example/acme" } }, expect: { status: 403, code: claim-mismatch } }
  a time comes when it is over: { request: { url: https://main.example/mesh/a, certificate: { uri: "spiffe://example/acme", not_after: 1500000000 } }, expect: { status: 401, code: certificate-expired } }
"#;

struct Setup {
    gateway: Gateway,
    upstream: Upstream,
    ca: Ca,
}

fn uri(text: &str) -> SanType {
    SanType::URI(text.try_into().unwrap())
}

fn dns(text: &str) -> SanType {
    SanType::DnsName(text.try_into().unwrap())
}

fn setup() -> Setup {
    setup_with("")
}

/// With more sections.
fn setup_with(more: &str) -> Setup {
    let (ca, clients, others) = (Ca::new("Test"), Ca::new("Clients"), Ca::new("Others"));
    let main = ca.server(&["main.example"]);
    let acme = clients.client("acme", 0x0a1b, &[uri("spiffe://example/acme"), dns("orders.example")]);
    let beta = clients.client("beta", 2, &[]);
    let gone = clients.client("gone", 3, &[uri("spiffe://example/acme")]);
    let nobody = clients.client("acme", 4, &[uri("spiffe://example/nobody"), dns("spiffe://example/acme")]);
    let between = clients.below("Between", std::time::Duration::from_secs(24 * 3600));
    let chained = between.client("chained", 5, &[uri("spiffe://example/acme")]);
    let chained = Leaf { chain: chained.chain + &between.pem, key: chained.key };
    let foreign = others.client("acme", 1, &[uri("spiffe://example/acme")]);
    let fingerprint = fingerprint(&beta);
    let upstream = Upstream::start();
    let mut config = Gateway::config(&format!("{TEXT}{more}"))
        .var("up", upstream.address())
        .var("beta", fingerprint)
        .file("main.pem", main.chain)
        .file("main.key", main.key)
        .file("ca.pem", ca.pem.clone())
        .file("clients.pem", clients.pem.clone())
        .file("clients.pem.revoked", "")
        .file("clients.crl", clients.revoke(&[3]) + &between.revoke(&[]));
    for (name, leaf) in [("acme", acme), ("beta", beta), ("gone", gone), ("nobody", nobody), ("foreign", foreign), ("chained", chained)] {
        config = config.file(&format!("{name}.pem"), leaf.chain).file(&format!("{name}.key"), leaf.key);
    }
    Setup { gateway: config.start(), upstream, ca }
}

/// As openssl prints it, with colons.
fn fingerprint(leaf: &Leaf) -> String {
    let digest = aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, &leaf.der());
    digest.as_ref().iter().map(|byte| format!("{byte:02X}")).collect::<Vec<_>>().join(":")
}

impl Setup {
    fn curl(&self, path: &str, who: Option<&str>, more: &[&str]) -> Output {
        let port = self.gateway.address().port();
        let mut command = Command::new("curl");
        command.args(["-s", "-i", "--max-time", "20", "--cacert", "ca.pem", "--resolve", &format!("main.example:{port}:127.0.0.1")]);
        if let Some(who) = who {
            command.args(["--cert", &format!("{who}.pem"), "--key", &format!("{who}.key")]);
        }
        let url = format!("https://main.example:{port}{path}");
        command.args(more).arg(url).current_dir(self.gateway.dir()).output().expect("curl can be run")
    }

    /// Status and body; 0 where there was no answer.
    fn ask(&self, path: &str, who: Option<&str>, more: &[&str]) -> (u16, String) {
        let text = String::from_utf8(self.curl(path, who, more).stdout).unwrap();
        let status = text.split(' ').nth(1).map_or(0, |status| status.parse().unwrap());
        (status, text)
    }

    fn s_client(&self, path: &str, more: &[&str]) -> String {
        openssl::s_client(&self.gateway, "main.example", path, more)
    }
}

#[test]
fn a_certificate_is_a_consumers_over_both_versions_of_http_and_its_facts_reach_the_upstream() {
    let setup = setup();
    let lie = ["-H", "x-consumer: root", "-H", "X_Client_Uri: spiffe://example/root", "-H", "x-client-serial: 1"];
    for version in ["--http1.1", "--http2"] {
        let (status, text) = setup.ask("/mesh/a", Some("acme"), &[&[version][..], &lie].concat());
        assert_eq!(status, 200, "{text}");
        let sent = setup.upstream.requests().pop().unwrap();
        for (name, value) in [
            ("x-consumer", "acme"),
            ("x-client-uri", "spiffe://example/acme"),
            ("x-client-dns", "orders.example"),
            ("x-client-subject", "O=Example,CN=acme"),
            ("x-client-serial", "a1b"),
        ] {
            assert_eq!(sent.all(name), [value], "{version} {name}");
        }
        assert_eq!(sent.header("x-client-cert").map(str::len), Some(64));
        assert!(sent.header("x_client_uri").is_none(), "{sent:?}");
        // A route that asks nobody believes nobody.
        assert_eq!(setup.ask("/open", Some("acme"), &[&[version][..], &lie].concat()).0, 200);
        let sent = setup.upstream.requests().pop().unwrap();
        assert!(["x-consumer", "x_client_uri", "x-client-serial"].iter().all(|name| sent.header(name).is_none()), "{sent:?}");
    }
    let line = setup.gateway.log_line_where(|line| line["path"] == "/mesh/a" && line["protocol"] == "HTTP/2.0");
    assert_eq!((&line["consumer"], &line["subject"]), (&"acme".into(), &"spiffe://example/acme".into()));
    assert_eq!(setup.ask("/mesh/a", Some("beta"), &[]).0, 200, "by its fingerprint");
    assert_eq!(setup.upstream.requests().pop().unwrap().header("x-consumer"), Some("beta"));
}

#[test]
fn who_shows_no_certificate_another_or_one_that_does_not_hold_is_not_let_in() {
    let setup = setup();
    let (status, text) = setup.ask("/mesh/a", None, &[]);
    assert!(status == 401 && text.contains("credentials-missing") && text.contains("ClientCertificate realm="), "{text}");
    // The next way to authenticate is asked where there is no certificate ...
    assert_eq!(setup.ask("/mesh/a", None, &["-H", "x-api-key: test"]).0, 200);
    // ... but not where there is one that is nobody's.
    for more in [&[][..], &["-H", "x-api-key: test"]] {
        let (status, text) = setup.ask("/mesh/a", Some("nobody"), more);
        assert!(status == 401 && text.contains("certificate-unknown"), "{text}");
        assert!(!text.contains("spiffe"), "a client is told nothing but that: {text}");
    }
    let line = setup.gateway.log_line_where(|line| line["code"] == "certificate-unknown");
    let reason = line["reason"].as_str().unwrap();
    assert!(
        reason.starts_with("no consumer has this identity of `mesh`: subject `O=Example,CN=acme`, uri `spiffe://example/nobody`"),
        "{reason}"
    );
    assert!(line["consumer"].is_null(), "{line}");
    for bad in ["foreign", "gone"] {
        let refused = setup.curl("/mesh/a", Some(bad), &[]);
        assert!(!refused.status.success() && refused.stdout.is_empty(), "{bad}: {refused:?}");
    }
    assert_eq!(setup.gateway.metric(r#"sluice_refusals_total{policy="auth",code="certificate-unknown"}"#), 2.0);
}

#[test]
fn scopes_claims_and_limits_go_by_the_certificate() {
    let setup = setup();
    assert_eq!(setup.ask("/read", Some("acme"), &[]).0, 200);
    let (status, text) = setup.ask("/read", Some("beta"), &[]);
    assert!(status == 403 && text.contains("scope-missing") && !text.contains("Bearer"), "{text}");
    assert_eq!(setup.ask("/orders", Some("acme"), &[]).0, 200);
    assert_eq!(setup.ask("/orders", Some("beta"), &[]).0, 403);
    let asked = |who: &str| (0..4).map(|_| setup.ask("/few", Some(who), &[]).0).collect::<Vec<_>>();
    assert_eq!(asked("acme"), [200, 200, 200, 429]);
    assert_eq!(asked("beta"), [200, 200, 200, 429], "another consumer, the same address");
}

#[test]
fn a_resumed_session_is_still_the_same_caller() {
    let setup = setup();
    let own = ["-cert", "acme.pem", "-key", "acme.key"];
    for version in ["-tls1_2", "-tls1_3"] {
        let first = setup.s_client("/read", &[&[version, "-sess_out", "session"][..], &own].concat());
        assert!(first.contains("New, TLS") && first.contains("HTTP/1.1 200"), "{first}");
        let again = setup.s_client("/read", &[version, "-sess_in", "session"]);
        assert!(again.contains("Reused, TLS") && again.contains("HTTP/1.1 200"), "{again}");
        assert_eq!(setup.upstream.requests().pop().unwrap().header("x-consumer"), Some("acme"));
    }
}

#[test]
fn a_reload_of_consumers_changes_who_an_open_connection_is() {
    let mut setup = setup();
    let leaf = Leaf {
        chain: std::fs::read_to_string(setup.gateway.dir().join("acme.pem")).unwrap(),
        key: std::fs::read_to_string(setup.gateway.dir().join("acme.key")).unwrap(),
    };
    let mut client = TlsClient::connect(setup.gateway.address(), "main.example", &setup.ca, Some(&leaf)).unwrap();
    assert_eq!(client.get("main.example", "/read").unwrap().0, 200);
    let (without_tests, _) = TEXT.split_once("tests:").unwrap();
    setup.gateway.reload(&without_tests.replace("is: \"spiffe://example/acme\"", "is: \"spiffe://example/other\""));
    let mut answered = |status: u16| {
        eventually(&format!("{status}"), || (client.get("main.example", "/read").unwrap().0 == status).then_some(()));
    };
    answered(401);
    setup.gateway.reload(TEXT);
    answered(200);
}

#[test]
fn a_consumer_that_is_revoked_is_refused_on_its_open_connection_and_one_that_is_not_has_its_tags() {
    let setup = setup_with("revocation: { file: clients.pem.revoked }\n");
    let leaf = |name: &str| {
        let read = |kind: &str| std::fs::read_to_string(setup.gateway.dir().join(format!("{name}.{kind}"))).unwrap();
        Leaf { chain: read("pem"), key: read("key") }
    };
    let connect = |name: &str| TlsClient::connect(setup.gateway.address(), "main.example", &setup.ca, Some(&leaf(name))).unwrap();
    let (mut acme, mut beta) = (connect("acme"), connect("beta"));
    assert_eq!((acme.get("main.example", "/mesh/a").unwrap().0, beta.get("main.example", "/mesh/a").unwrap().0), (200, 200));
    std::fs::write(setup.gateway.dir().join("clients.pem.revoked"), "{\"consumer\": \"beta\", \"reason\": \"left\"}\n").unwrap();
    let (status, text) =
        eventually("the revocation", || Some(beta.get("main.example", "/mesh/a").unwrap()).filter(|(status, _)| *status != 200));
    assert!(status == 401 && text.contains("credential-revoked") && text.contains("clientcertificate realm="), "{text}");
    assert_eq!(acme.get("main.example", "/mesh/a").unwrap().0, 200);
    let line = setup.gateway.log_line_where(|line| line["code"] == "credential-revoked");
    assert_eq!(line["reason"], "consumer `beta` is revoked: left");
    let line = setup.gateway.log_line_where(|line| line["consumer"] == "acme");
    assert_eq!((&line["plan"], &line["tags"]["version"]), (&"gold".into(), &"v2".into()), "{line}");
}

#[test]
fn explain_verifies_a_certificate_as_the_listener_does() {
    let setup = setup();
    let explain = |url: &str, certificate: &str| {
        let upgrade = ["-H", "connection: upgrade", "-H", "upgrade: websocket"];
        let more = if url.ends_with("/socket") { &upgrade[..] } else { &[] };
        let output = setup.gateway.sluice(&[&["explain", "sluice.yaml", url, "--certificate", certificate], more].concat());
        String::from_utf8([output.stdout, output.stderr].concat()).unwrap()
    };
    let told = explain("https://main.example/read", "acme.pem");
    assert!(told.contains("consumer   acme") && told.contains("x-client-serial: a1b"), "{told}");
    let told = explain("https://main.example/read", "beta.pem");
    assert!(told.contains("403 scope-missing"), "{told}");
    for bad in ["foreign.pem", "gone.pem"] {
        let told = explain("https://main.example/read", bad);
        assert!(told.contains("`public` does not believe the certificate, the TLS handshake fails"), "{told}");
    }
    let told = explain("https://main.example/read", r#"{"uri": "spiffe://example/acme"}"#);
    assert!(told.contains("consumer   acme"), "{told}");
    let told = explain("https://main.example/socket", r#"{"uri": "spiffe://example/acme", "not_after": 4102444800}"#);
    assert!(told.contains("closed at 2100-01-01T00:00:00.000Z when the credential expires"), "{told}");
    for (bad, why) in [("none.pem", "none.pem:"), ("acme.key", "holds no certificate"), (r#"{"uris": []}"#, "unknown field `uris`")] {
        let told = explain("https://main.example/read", bad);
        assert!(told.contains(why), "{told}");
    }
}

#[test]
fn a_subject_is_written_as_openssl_writes_it() {
    let folder = tempfile::tempdir().unwrap();
    let openssl = |args: &[&str]| {
        let output = Command::new("openssl").args(args).current_dir(folder.path()).output().expect("openssl can be run");
        assert!(output.status.success(), "{args:?}: {output:?}");
        String::from_utf8(output.stdout).unwrap()
    };
    openssl(&["genpkey", "-algorithm", "EC", "-pkeyopt", "ec_paramgen_curve:P-256", "-out", "key.pem"]);
    let kinds = "C CN DC L ST street O OU UID serialNumber SN GN title emailAddress pseudonym dnQualifier businessCategory organizationIdentifier postalCode initials generationQualifier name";
    let each = kinds.split(' ').map(|kind| format!("/{kind}=DE"));
    let odd = ["/O=a, b;c<d>e=f\"g\\\\h", "/CN= a ", "/CN=#1", "/CN=a#b/OU=\u{e9}\u{4e2d}", "/DC=example/DC=org/CN=x", "/O=Ex+OU=b/CN=x"];
    for subject in each.chain(odd.iter().map(|subject| (*subject).to_owned())) {
        openssl(&["req", "-x509", "-utf8", "-key", "key.pem", "-days", "2", "-subj", &subject, "-out", "own.pem"]);
        let told = openssl(&["x509", "-in", "own.pem", "-noout", "-subject", "-nameopt", "RFC2253,utf8,-esc_msb"]);
        let leaf = Leaf { chain: std::fs::read_to_string(folder.path().join("own.pem")).unwrap(), key: String::new() };
        let names = sluice::listen::tls::names::Names::of(&leaf.der()).unwrap();
        assert_eq!(format!("subject={}\n", names.subject), told, "{subject}");
    }
}

#[test]
fn the_certificate_itself_reaches_the_upstream_and_nobody_elses() {
    let setup = setup();
    let pem = std::fs::read_to_string(setup.gateway.dir().join("acme.pem")).unwrap().replace("\r\n", "\n");
    let base64: String = pem.lines().filter(|line| !line.starts_with('-')).collect();
    let lie = [
        "-H",
        "Client-Cert: :ZXZpbA==:",
        "-H",
        "Client_Cert: :ZXZpbA==:",
        "-H",
        "X-Client-Pem: evil",
        "-H",
        "Client-Cert-Chain: :ZXZpbA==:",
        "-H",
        "Client_Cert_Chain: :ZXZpbA==:",
    ];
    assert_eq!(setup.ask("/mesh/a", Some("acme"), &lie).0, 200);
    let sent = setup.upstream.last();
    assert_eq!(sent.all("client-cert"), [format!(":{base64}:")]);
    assert!(sent.all("client-cert-chain").is_empty() && sent.all("client_cert_chain").is_empty(), "{sent:?}");
    let escaped = sent.header("x-client-pem").unwrap().to_owned();
    let plain = [("%20", " "), ("%0A", "\n"), ("%2B", "+"), ("%2F", "/"), ("%3D", "=")];
    assert_eq!(plain.iter().fold(escaped, |text, (from, to)| text.replace(from, to)), pem);
    assert!(sent.header("client_cert").is_none());
    // What was shown behind it, where something was.
    assert_eq!(setup.ask("/mesh/a", Some("chained"), &lie).0, 200);
    let sent = setup.upstream.last();
    let shown = std::fs::read_to_string(setup.gateway.dir().join("chained.pem")).unwrap();
    let [own, behind] = &CertificateDer::pem_slice_iter(shown.as_bytes()).map(Result::unwrap).collect::<Vec<_>>()[..] else {
        panic!("{shown}")
    };
    let sequence = |one: &CertificateDer<'_>| format!(":{}:", base64::Engine::encode(&base64::prelude::BASE64_STANDARD, one));
    assert_eq!((sent.all("client-cert"), sent.all("client-cert-chain")), (vec![&*sequence(own)], vec![&*sequence(behind)]));
    // Where nobody is asked, nobody is believed.
    assert_eq!(setup.ask("/open", Some("acme"), &lie).0, 200);
    let sent = setup.upstream.last();
    assert!(
        ["client-cert", "client_cert", "client-cert-chain", "client_cert_chain", "x-client-pem"]
            .iter()
            .all(|name| sent.header(name).is_none()),
        "{sent:?}"
    );
}

#[test]
fn a_tunnel_ends_with_the_first_certificate_of_its_chain_that_does() {
    let (ca, clients) = (Ca::new("Test"), Ca::new("Clients"));
    let main = ca.server(&["main.example"]);
    let upgraded = Answer::new(101).header("connection", "Upgrade").header("upgrade", "websocket").header("sec-websocket-accept", "any");
    let upstream = Upstream::script(move |_| [upgraded.clone().steps(), vec![Step::Hang]].concat());
    let text = r#"
server: { threads: 1, settle: 0s }
listeners: { l: { address: "127.0.0.1:{port}", tls: { certificates: { main: { chain: main.pem, key: main.key } }, client_certificates: { ca: clients.pem } } } }
authenticators: { mesh: { client_certificate: { any_certificate: true } } }
upstreams: { up: { targets: ["{up}"] } }
routes: { socket: { match: { path: /socket }, auth: [mesh], websocket: { close_at_expiry: true }, upstream: up } }
"#;
    let config = Gateway::config(text).var("up", upstream.address()).file("clients.pem", clients.pem.clone());
    let gateway = config.file("main.pem", main.chain).file("main.key", main.key).start();
    // The client's own certificate is good for long.
    let between = clients.below("Between", std::time::Duration::from_secs(5));
    let leaf = between.client("x", 1, &[]);
    let leaf = Leaf { chain: leaf.chain + &between.pem, key: leaf.key };
    let mut client = TlsClient::connect(gateway.address(), "main.example", &ca, Some(&leaf)).unwrap();
    let handshake = "GET /socket HTTP/1.1\r\nHost: main.example\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n";
    let read = client.send_and_read_to_end(handshake.as_bytes()).unwrap();
    let read = String::from_utf8_lossy(&read).into_owned();
    assert!(read.starts_with("HTTP/1.1 101 ") && read.ends_with("expired"), "{read:?}");
    let line = gateway.log_line_where(|line| line["route"] == "socket");
    assert_eq!(
        (&line["code"], &line["closed_by"], &line["authenticator"]),
        (&"websocket-expired".into(), &"gateway".into(), &"mesh".into())
    );
}

#[test]
fn a_chain_is_over_when_the_first_of_it_expires_that_was_in_force() {
    let root = Ca::new("Root");
    let leaf = root.client("x", 1, &[]);
    let chain = |issuers: &[&Ca]| -> Vec<_> {
        let pem = issuers.iter().fold(leaf.chain.clone(), |chain, issuer| chain + &issuer.pem);
        rustls::pki_types::pem::PemObject::pem_slice_iter(pem.as_bytes()).collect::<Result<_, _>>().unwrap()
    };
    let (ends, ended) = (Ca::until("Ends", 2031), Ca::until("Ended", 2020));
    let alone = describe(&chain(&[])).unwrap();
    assert_eq!(alone.holds_until, alone.not_after);
    let together = describe(&chain(&[&ends, &ended])).unwrap();
    assert_eq!((together.not_after, together.holds_until), (alone.not_after, 1_924_992_000));
}
