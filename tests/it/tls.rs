//! TLS towards clients: which certificate, which version, what is resumed, whose certificates are believed.

use std::process::Command;

use super::harness::*;

const TEXT: &str = r#"
server: { threads: 2, settle: 0s, watch: {watch} }
listeners:
  public:
    address: "127.0.0.1:{port}"
    deadlines: { handshake: {patience} }
    tls:
      certificates:
        main: { chain: main.pem, key: main.key{ocsp} }
        kept: { chain: other.pem, key: other.key }
      {more}
routes:
  all: { match: { path: "/**" }, auth: public, response_headers: { security: strict }, respond: { status: 200, body: "hi" } }
"#;

fn config(ca: &Ca, more: &str) -> Config {
    config_with(ca, more, "none", "")
}

/// `key` is what stands instead of a default: the first value of a name counts.
fn config_with(ca: &Ca, more: &str, key: &str, value: &str) -> Config {
    let (main, other) = (ca.server(&["main.example", "*.main.example"]), ca.server(&["other.example"]));
    Gateway::config(TEXT)
        .var(key, value)
        .var("more", more)
        .var("ocsp", "")
        .var("watch", "false")
        .var("patience", "10s")
        .file("again.pem", ca.issue_again(&main, &["again.example"]))
        .file("again.key", main.key.clone())
        .file("main.pem", main.chain)
        .file("main.key", main.key)
        .file("other.pem", other.chain)
        .file("other.key", other.key)
        .file("ca.pem", ca.pem.clone())
}

/// curl's answer: status and body, or its exit code.
fn curl(gateway: &Gateway, host: &str, more: &[&str]) -> Result<(u16, String), i32> {
    let port = gateway.address().port();
    let output = Command::new("curl")
        .args(["-s", "--max-time", "20", "--cacert", "ca.pem", "-w", "\n%{http_code}", "--resolve", &format!("{host}:{port}:127.0.0.1")])
        .args(more)
        .arg(format!("https://{host}:{port}/"))
        .current_dir(gateway.dir())
        .output()
        .expect("curl can be run");
    if !output.status.success() {
        return Err(output.status.code().unwrap_or(-1));
    }
    let text = String::from_utf8(output.stdout).unwrap();
    let (body, status) = text.rsplit_once('\n').unwrap();
    Ok((status.parse().unwrap(), body.to_owned()))
}

/// What `openssl s_client` says of one connection.
fn s_client(gateway: &Gateway, more: &[&str]) -> String {
    openssl::s_client(gateway, "main.example", "/", more)
}

#[test]
fn each_name_gets_its_certificate_and_an_unknown_one_none() {
    let ca = Ca::new("Test");
    let gateway = config(&ca, "").start();
    for host in ["main.example", "a.main.example", "other.example"] {
        assert_eq!(curl(&gateway, host, &[]), Ok((200, "hi".to_owned())), "{host}");
    }
    for host in ["a.b.main.example", "unknown.example"] {
        assert_eq!(curl(&gateway, host, &["-k"]), Err(35), "{host}");
    }
    let count = |result: &str| gateway.metric(&format!(r#"sluice_tls_handshakes_total{{listener="public",result="{result}"}}"#));
    eventually("the counts", || (count("unknown_name") == 2.0 && count("full") == 3.0).then_some(()));
    let line = gateway.log_line_where(|line| line["host"] == "a.main.example");
    assert_eq!((line["tls_version"].as_str(), line["server_name"].as_str()), (Some("1.3"), Some("a.main.example")));
    assert!(line["tls_cipher"].as_str().unwrap().starts_with("TLS_AES_"), "{line}");
}

#[test]
fn an_unknown_name_gets_the_default_certificate_where_there_is_one() {
    let ca = Ca::new("Test");
    let gateway = config(&ca, "default: kept").start();
    assert_eq!(curl(&gateway, "unknown.example", &["-k"]).map(|(status, _)| status), Ok(200));
    assert_eq!(curl(&gateway, "unknown.example", &[]), Err(60), "it does not name the host");
}

#[test]
fn a_host_that_the_connection_does_not_stand_for_is_misdirected() {
    let ca = Ca::new("Test");
    let gateway = config(&ca, "").start();
    let mut client = TlsClient::connect(gateway.address(), "main.example", &ca, None).unwrap();
    let (status, text) = client.get("a.main.example", "/").unwrap();
    assert_eq!(status, 200, "the same certificate");
    assert!(text.contains("strict-transport-security: max-age="), "{text}");
    for host in ["other.example", "unknown.example", "127.0.0.1"] {
        let (status, text) = client.get(host, "/").unwrap();
        assert!(status == 421 && text.contains(r#""code":"misdirected""#), "{host}: {text}");
    }
    let line = gateway.log_line_where(|line| line["host"] == "other.example");
    assert_eq!((&line["code"], &line["reason"]), (&"misdirected".into(), &"connected to main.example".into()));
}

#[test]
fn plain_http_on_a_tls_listener_is_told_so_and_silence_is_closed() {
    let ca = Ca::new("Test");
    let gateway = config_with(&ca, "", "patience", "1s").start();
    let answer = gateway.get("/", &[]);
    assert_eq!((answer.status, answer.code()), (400, "tls-expected".to_owned()));
    let mut silent = Client::connect(gateway.address());
    silent.expect_close();
    let dropped = || gateway.metric(r#"sluice_connections_dropped_total{listener="public",reason="handshake_deadline"}"#);
    eventually("the count", || (dropped() == 1.0).then_some(()));
    let mut noise = Client::connect(gateway.address());
    noise.send([22, 3, 1, 0, 5, 9, 9, 9, 9, 9]).expect_close();
    eventually("the failure is counted", || {
        (gateway.metric(r#"sluice_tls_handshakes_total{listener="public",result="malformed"}"#) == 1.0).then_some(())
    });
    assert_eq!(gateway.metric(r#"sluice_tls_handshakes_total{listener="public",result="plain_http"}"#), 1.0);
}

#[test]
fn an_address_that_begins_handshakes_too_fast_is_closed_and_counted() {
    let ca = Ca::new("Test");
    let gateway = config(&ca, "handshakes_per_address: 3/h").start();
    // Who only looks whether somebody listens, or speaks plain, costs none.
    for _ in 0..5 {
        drop(Client::connect(gateway.address()));
        assert_eq!(gateway.get("/", &[]).code(), "tls-expected");
    }
    let from = |address: &str| curl(&gateway, "main.example", &["--interface", address]).map(|(status, _)| status);
    assert_eq!([from("127.0.0.1"), from("127.0.0.1"), from("127.0.0.1")], [Ok(200); 3]);
    // A reset, in the middle of what curl takes for the handshake.
    assert_eq!([from("127.0.0.1"), from("127.0.0.1")], [Err(35); 2]);
    assert_eq!(from("127.0.0.3"), Ok(200), "another address has its own");
    let dropped = || gateway.metric(r#"sluice_connections_dropped_total{listener="public",reason="handshakes_per_address"}"#);
    eventually("the count", || (dropped() == 2.0).then_some(()));
    assert_eq!(gateway.metric(r#"sluice_tls_handshakes_total{listener="public",result="too_fast"}"#), 2.0);
}

#[test]
fn what_is_older_than_the_minimum_is_refused() {
    let ca = Ca::new("Test");
    let gateway = config(&ca, r#"minimum: "1.3""#).start();
    assert!(s_client(&gateway, &["-tls1_2"]).contains("alert protocol version"));
    assert!(s_client(&gateway, &["-tls1_3"]).contains("Verify return code: 0 (ok)"));
    let both = config(&ca, "").start();
    assert!(s_client(&both, &["-tls1_2"]).contains("Verify return code: 0 (ok)"));
    assert!(!s_client(&both, &["-tls1_1", "-cipher", "ALL:@SECLEVEL=0"]).contains("HTTP/1.1 200"));
}

#[test]
fn the_ocsp_answer_of_the_file_is_stapled() {
    let ca = Ca::new("Test");
    let folder = tempfile::tempdir().unwrap();
    let leaf = ca.server(&["main.example"]);
    for (name, text) in [("ca.pem", &ca.pem), ("ca.key", &ca.key), ("leaf.pem", &leaf.chain), ("index.txt", &String::new())] {
        std::fs::write(folder.path().join(name), text).unwrap();
    }
    let made = Command::new("openssl")
        .args(
            "ocsp -index index.txt -rsigner ca.pem -rkey ca.key -CA ca.pem -issuer ca.pem -cert leaf.pem -respout out -ndays 1".split(' '),
        )
        .current_dir(folder.path())
        .output()
        .unwrap();
    assert!(made.status.success(), "{made:?}");
    let answer = std::fs::read(folder.path().join("out")).unwrap();
    let gateway = config_with(&ca, "", "ocsp", ", ocsp: main.ocsp").file("main.ocsp", answer).start();
    assert!(s_client(&gateway, &["-status"]).contains("OCSP Response Status: successful"));
}

#[test]
fn a_replaced_certificate_is_shown_to_new_connections_and_a_broken_pair_to_nobody() {
    let ca = Ca::new("Test");
    let gateway = config_with(&ca, "", "watch", "true").start();
    let put = |name: &str, text: &str| {
        // As tools do it: another file takes the place.
        std::fs::write(gateway.dir().join("new"), text).unwrap();
        std::fs::rename(gateway.dir().join("new"), gateway.dir().join(name)).unwrap();
    };
    let mut old = TlsClient::connect(gateway.address(), "main.example", &ca, None).unwrap();
    let fresh = || TlsClient::connect(gateway.address(), "main.example", &ca, None).unwrap().shown();
    let (before, next) = (old.shown(), ca.server(&["main.example"]));
    put("main.key", &next.key);
    gateway.stderr_line("does not belong to the first certificate");
    assert_eq!(fresh(), before, "a broken pair changes nothing");
    put("main.pem", &next.chain);
    eventually("the new certificate", || (fresh() == next.der()).then_some(()));
    assert_eq!(old.get("main.example", "/").unwrap().0, 200, "an open connection lives on");
}

#[test]
fn sessions_are_resumed_by_every_worker_and_after_a_reload_and_an_upgrade() {
    let ca = Ca::new("Test");
    for version in ["-tls1_3", "-tls1_2"] {
        let gateway = config(&ca, "").own_program().start();
        let is_resumed = || s_client(&gateway, &[version, "-sess_in", "session"]).contains("Reused, TLS");
        assert!(s_client(&gateway, &[version, "-sess_out", "session"]).contains("New, TLS"));
        // Whichever worker it comes to; two of them share the socket.
        assert_eq!((0..8).filter(|_| is_resumed()).count(), 8, "{version}");
        let reload = gateway.sluice(&["reload", "sluice.yaml"]);
        assert!(reload.status.success(), "{reload:?}");
        assert!(is_resumed(), "{version} after a reload");
        let upgrade = gateway.sluice(&["upgrade", "sluice.yaml"]);
        assert!(upgrade.status.success(), "{upgrade:?}");
        assert!(is_resumed(), "{version} after an upgrade");
        assert!(gateway.metric(r#"sluice_tls_handshakes_total{listener="public",result="resumed"}"#) >= 1.0);
    }
}

#[test]
fn a_required_certificate_must_be_there_signed_in_time_and_not_revoked() {
    let (ca, ours, others) = (Ca::new("Test"), Ca::new("Clients"), Ca::new("Others"));
    let (good, revoked, foreign) = (ours.client("good", 1, &[]), ours.client("revoked", 2, &[]), others.client("good", 1, &[]));
    let more = "client_certificates: { ca: clients.pem, crl: clients.crl }";
    let gateway = config(&ca, more).file("clients.pem", ours.pem.clone()).file("clients.crl", ours.revoke(&[2])).start();
    let ask = |own: Option<&Leaf>| {
        let mut client = TlsClient::connect(gateway.address(), "main.example", &ca, own)?;
        client.get("main.example", "/").map(|(status, _)| status)
    };
    assert_eq!(ask(Some(&good)).unwrap(), 200);
    for bad in [None, Some(&revoked), Some(&foreign)] {
        assert!(ask(bad).is_err());
    }
    eventually("the refusals are counted", || {
        (gateway.metric(r#"sluice_tls_handshakes_total{listener="public",result="client_certificate"}"#) == 3.0).then_some(())
    });
    assert_eq!(gateway.log_line_where(|line| line["status"] == 200)["client_subject"], "O=Example,CN=good");
}

#[test]
fn where_a_certificate_may_be_absent_one_that_does_not_hold_is_refused_all_the_same() {
    let (ca, ours, others) = (Ca::new("Test"), Ca::new("Clients"), Ca::new("Others"));
    let gateway = config(&ca, "client_certificates: { ca: clients.pem, required: false }").file("clients.pem", ours.pem.clone()).start();
    let ask = |own: Option<&Leaf>| {
        let mut client = TlsClient::connect(gateway.address(), "main.example", &ca, own)?;
        client.get("main.example", "/").map(|(status, _)| status)
    };
    assert_eq!(ask(None).unwrap(), 200);
    assert_eq!(ask(Some(&ours.client("good", 1, &[]))).unwrap(), 200);
    assert!(ask(Some(&others.client("good", 1, &[]))).is_err());
}

#[test]
fn a_connection_of_before_a_change_of_the_ca_is_judged_anew_and_its_session_not_resumed() {
    let (ca, ours, next) = (Ca::new("Test"), Ca::new("Clients"), Ca::new("Next"));
    let gateway = config(&ca, "client_certificates: { ca: clients.pem }").file("clients.pem", ours.pem.clone()).start();
    let leaf = ours.client("good", 1, &[]);
    std::fs::write(gateway.dir().join("own.pem"), &leaf.chain).unwrap();
    std::fs::write(gateway.dir().join("own.key"), &leaf.key).unwrap();
    let own = ["-cert", "own.pem", "-key", "own.key"];
    assert!(s_client(&gateway, &[&own[..], &["-sess_out", "session"]].concat()).contains("HTTP/1.1 200"));
    assert!(s_client(&gateway, &[&own[..], &["-sess_in", "session"]].concat()).contains("Reused, TLS"));
    let connect = || TlsClient::connect(gateway.address(), "main.example", &ca, Some(&leaf)).unwrap();
    let (mut one, mut two) = (connect(), connect());
    assert_eq!(one.get("main.example", "/").unwrap().0, 200);
    let reload = |pem: String| {
        std::fs::write(gateway.dir().join("clients.pem"), pem).unwrap();
        let reload = gateway.sluice(&["reload", "sluice.yaml"]);
        assert!(reload.status.success(), "{reload:?}");
    };
    reload(format!("{}{}", ours.pem, next.pem));
    assert_eq!(one.get("main.example", "/").unwrap().0, 200, "still believed");
    reload(next.pem.clone());
    for client in [&mut one, &mut two] {
        let (status, text) = client.get("main.example", "/").unwrap();
        assert!(status == 421 && text.contains("certificate-outdated") && text.contains("connection: close"), "{text}");
    }
    let again = s_client(&gateway, &[&own[..], &["-sess_in", "session"]].concat());
    assert!(!again.contains("Reused, TLS") && !again.contains("HTTP/1.1 200"), "{again}");
}

#[test]
fn check_warns_of_a_certificate_that_expires_soon_and_the_metric_says_when() {
    let ca = Ca::new("Test");
    let old = ca.server_until(&["old.example"], 2020);
    let gateway = config(&ca, "").file("other.pem", old.chain).file("other.key", old.key).start();
    let check = gateway.sluice(&["check", "sluice.yaml"]);
    assert!(check.status.success());
    assert_eq!(
        String::from_utf8(check.stderr).unwrap(),
        "warning: certificate `kept` of listener `public` has expired: clients refuse it\n"
    );
    let expiry = gateway.metric(r#"sluice_tls_certificate_expiry_timestamp_seconds{listener="public",certificate="kept"}"#);
    assert_eq!(expiry, 1_577_836_800.0);
    gateway.stderr_line("certificate `kept` of listener `public` has expired");
    // What clients need beside it counts as well.
    let issuer = Ca::until("Issuer", 2021);
    let leaf = ca.server(&["new.example"]);
    let gateway = config(&ca, "").file("other.pem", leaf.chain + &issuer.pem).file("other.key", leaf.key).start();
    gateway.stderr_line("an issuer in the chain of certificate `kept` of listener `public` has expired");
    let expiry = gateway.metric(r#"sluice_tls_certificate_expiry_timestamp_seconds{listener="public",certificate="kept"}"#);
    assert_eq!(expiry, 1_609_459_200.0);
}

#[test]
fn a_revocation_list_past_its_date_still_counts_and_is_warned_of() {
    let (ca, ours) = (Ca::new("Test"), Ca::new("Clients"));
    let config = config(&ca, "client_certificates: { ca: clients.pem, crl: clients.crl }").file("clients.pem", ours.pem.clone());
    let gateway = config.file("clients.crl", ours.revoke_until(&[2], 2025)).start();
    let ask =
        |serial| TlsClient::connect(gateway.address(), "main.example", &ca, Some(&ours.client("x", serial, &[])))?.get("main.example", "/");
    assert_eq!(ask(1).unwrap().0, 200);
    assert!(ask(2).is_err());
    let said = String::from_utf8(gateway.sluice(&["check", "sluice.yaml"]).stderr).unwrap();
    let warning =
        "warning: a revocation list of certificate `main` of listener `public` is past its date: who was revoked since is still believed";
    assert!(said.contains(warning), "{said}");
    let until = gateway.metric(r#"sluice_tls_revocation_list_expiry_timestamp_seconds{listener="public",certificate="main"}"#);
    assert_eq!(until, 1_735_689_600.0);
}

#[test]
fn explain_knows_which_names_a_listener_has_certificates_for_and_that_it_speaks_tls_only() {
    let ca = Ca::new("Test");
    let gateway = config(&ca, "").start();
    let explain = |url: &str| {
        let output = gateway.sluice(&["explain", "sluice.yaml", url]);
        String::from_utf8([output.stdout, output.stderr].concat()).unwrap()
    };
    assert!(explain("https://a.main.example/x").contains("200"), "{}", explain("https://a.main.example/x"));
    assert!(explain("http://main.example/x").contains("tls-expected"), "{}", explain("http://main.example/x"));
    assert!(
        explain("https://unknown.example/x").contains("has no certificate for `unknown.example`"),
        "{}",
        explain("https://unknown.example/x")
    );
}

#[test]
fn keys_are_exchanged_post_quantum_where_the_client_asks_for_it() {
    let ca = Ca::new("Test");
    let gateway = config(&ca, "").start();
    let client = TlsClient::connect(gateway.address(), "main.example", &ca, None).unwrap();
    assert_eq!(client.group(), rustls::NamedGroup::X25519MLKEM768);
}

/// Versions, ciphers, key exchange, the certificate and the known weaknesses; not the simulation of clients, which takes a minute more.
#[test]
fn testssl_finds_nothing_above_low_in_what_a_listener_does_by_default() {
    let ca = Ca::new("Test");
    let gateway = config(&ca, "default: main").start();
    let url = format!("https://main.example:{}/", gateway.address().port());
    let output = Command::new("testssl")
        .args("-p -s -f -P -S -U --quiet --color 0 --warnings off --ip 127.0.0.1 --add-ca ca.pem --jsonfile found.json".split(' '))
        .arg(&url)
        .current_dir(gateway.dir())
        .output()
        .expect("testssl can be run: scripts/setup.sh test");
    let text = std::fs::read_to_string(gateway.dir().join("found.json")).unwrap_or_else(|_| panic!("{output:?}"));
    let found: Vec<serde_json::Value> = serde_json::from_str(&text).unwrap();
    assert!(found.iter().any(|one| one["id"] == "TLS1_3" && one["severity"] == "OK"), "{text}");
    assert!(found.len() > 60, "it looked at {} things only", found.len());
    // Whether sessions are resumed is no weakness, and not testssl.sh's to say: `s_client` at the end of its input leaves before the tickets of
    // TLS 1.3 have come, now and then, and testssl.sh takes the empty file for a connection that failed. Other tests here resume.
    let is_race = |one: &serde_json::Value| {
        one["id"].as_str().is_some_and(|id| id.starts_with("sessionresumption_"))
            && one["finding"] == "check failed because of connect problem"
    };
    let is_good = |one: &serde_json::Value| ["OK", "INFO", "LOW"].contains(&one["severity"].as_str().unwrap_or_default());
    let bad: Vec<_> = found.iter().filter(|one| !is_good(one) && !is_race(one)).collect();
    assert!(bad.is_empty(), "{bad:#?}");
}
