//! What is known of upstreams through reloads and upgrades: ejections, open circuits, what was drained, targets that no configuration lists.

use std::net::SocketAddr;

use serde_json::Value;

use super::harness::*;

const TEXT: &str = r#"
server: { threads: 1, settle: 0s }
listeners: { public: { address: "127.0.0.1:{port}" } }
upstreams:
  ejected: { targets: ["{good}", "{gone}"], outlier_detection: { connection_failures: 1, eject_for: 1h } }
  broken: { targets: ["{bad}"], retries: { attempts: 1 }, circuit_breaker: { of: upstream, min_requests: 2, open_for: 1h } }
  half: { targets: ["{good}", "{bad}"], retries: { attempts: 1 }, circuit_breaker: { of: target, min_requests: 2, open_for: 1h } }
  found: { targets_from: { consul: { service: orders, address: "http://{consul}" }, drain: ["{gone}"] } }
routes:
  ejected: { match: { path: /ejected }, auth: public, upstream: ejected }
  broken: { match: { path: /broken }, auth: public, upstream: broken }
  half: { match: { path: /half }, auth: public, upstream: half }
  found: { match: { path: /found }, auth: public, upstream: found }
"#;

/// A moment, in milliseconds; what is handed over is what was left of it, and loses less than one.
fn moment(told: &Value) -> Option<u64> {
    sluice::report::civil::parse_rfc3339(told.as_str()?)
}

/// The cause for which an address is out, and until when.
fn out(status: &Value, upstream: &str, address: SocketAddr) -> (String, Option<u64>) {
    let targets = status["upstreams"][upstream].as_array().expect("it has targets");
    let target = targets.iter().find(|target| target["address"] == address.to_string()).expect("it is among them");
    let cause = &target["addresses"][0]["causes"][0];
    (cause["cause"].as_str().unwrap_or_default().to_owned(), moment(&cause["until"]))
}

#[test]
fn what_is_known_of_upstreams_survives_reloads_and_upgrades() {
    let (good, bad) = (Upstream::answering(Answer::ok("good")), Upstream::answering(Answer::new(500)));
    let gone = nobody();
    let instance = |port: u16| format!(r#"{{"Node":{{"Address":"127.0.0.1"}},"Service":{{"Port":{port}}}}}"#);
    let catalogue = format!("[{},{}]", instance(good.address().port()), instance(gone.port()));
    // Answers the first question and no other, so that nobody learns anew what was found.
    let is_first = std::sync::atomic::AtomicBool::new(true);
    let consul = Upstream::script(move |_| match is_first.swap(false, std::sync::atomic::Ordering::Relaxed) {
        true => Answer::ok(catalogue.clone()).header("x-consul-index", "7").steps(),
        false => Answer::new(500).steps(),
    });
    let config = Gateway::config(TEXT).var("good", good.address()).var("bad", bad.address()).var("gone", gone);
    let mut gateway = config.var("consul", consul.address()).own_program().start();
    for path in ["/ejected", "/ejected", "/broken", "/broken", "/half", "/half", "/half", "/half"] {
        gateway.get(path, &[]);
    }
    let before = gateway.status();
    let known = |status: &Value| {
        let state = &status["upstream_states"]["broken"];
        let circuit = (state["circuit"].as_str().unwrap_or_default().to_owned(), moment(&state["until"]));
        [out(status, "ejected", gone), out(status, "half", bad.address()), out(status, "found", gone), circuit]
    };
    let first = known(&before);
    let causes: Vec<_> = first.iter().map(|(cause, until)| (cause.as_str(), until.is_some())).collect();
    assert_eq!(causes, [("ejected", true), ("circuit", true), ("drained", false), ("open", true)], "{before:#}");
    let asked_bad = bad.requests().len();
    let is_kept = |gateway: &Gateway, what: &str| {
        let status = gateway.status();
        for ((cause, until), (was, was_until)) in known(&status).iter().zip(&first) {
            let moved = until.unwrap_or_default().abs_diff(was_until.unwrap_or_default());
            assert!(cause == was && moved <= 20, "{what}: {moved} ms: {status:#}");
        }
        for _ in 0..4 {
            assert_eq!(gateway.get("/ejected", &[]).text(), "good", "{what}");
            assert_eq!(gateway.get("/half", &[]).text(), "good", "{what}");
            assert_eq!(gateway.get("/found", &[]).text(), "good", "{what}");
            assert_eq!(gateway.get("/broken", &[]).code(), "circuit-open", "{what}");
        }
        assert_eq!(bad.requests().len(), asked_bad, "{what}: nothing reaches what has failed");
    };
    is_kept(&gateway, "before");
    let order = |gateway: &Gateway, what: &str| {
        let output = gateway.sluice(&[what, "sluice.yaml"]);
        assert!(output.status.success(), "{what}: {}", String::from_utf8_lossy(&output.stderr));
    };
    order(&gateway, "reload");
    is_kept(&gateway, "a reload");
    order(&gateway, "upgrade");
    assert_ne!(gateway.serving_pid(), gateway.pid());
    is_kept(&gateway, "an upgrade");
    assert!(gateway.wait_for_first_process().success());
    order(&gateway, "reload");
    is_kept(&gateway, "a reload after it");
}
