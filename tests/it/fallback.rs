//! What becomes of requests whose upstream cannot be reached, where the route has something else for them.

use super::harness::*;

fn config(upstream: &str, fallback: &str) -> Config {
    let text = format!(
        r#"
server: {{ threads: 1 }}
listeners: {{ public: {{ address: "127.0.0.1:{{port}}" }} }}
upstreams:
  shop: {{ targets: ["{{shop}}"], {upstream} }}
  spare: {{ targets: ["{{spare}}"] }}
routes:
  shop: {{ match: {{ path: /shop/** }}, auth: public, upstream: shop, fallback: {fallback} }}
  spare: {{ match: {{ path: /spare }}, auth: public, upstream: spare }}
"#
    );
    Gateway::config(&text)
}

const ANSWER: &str = r#"{ status: 203, headers: { content-type: application/json, x-stale: "yes" }, body: '{"items":[]}' }"#;

#[test]
fn an_answer_of_the_routes_own_stands_for_an_upstream_that_refuses_connections() {
    let gateway = config("", ANSWER).var("shop", nobody()).var("spare", nobody()).start();
    let answer = gateway.get("/shop/a", &[]);
    assert_eq!((answer.status, answer.text()), (203, r#"{"items":[]}"#));
    assert_eq!((answer.header("content-type"), answer.header("x-stale")), (Some("application/json"), Some("yes")));
    let line = gateway.log_line_where(|line| line["path"] == "/shop/a");
    assert_eq!((&line["status"], &line["fallback"]), (&203.into(), &"answer".into()), "{line}");
    assert_eq!((&line["upstream"], &line["code"]), (&"shop".into(), &serde_json::Value::Null), "{line}");
    let reason = line["reason"].as_str().unwrap();
    assert!(reason.starts_with("shop: upstream-connect-failed: ConnectRefused"), "{reason}");
    assert_eq!(gateway.metric(r#"sluice_fallbacks_total{route="shop",code="upstream-connect-failed"}"#), 1.0);
    assert_eq!(gateway.metric(r#"sluice_requests_total{route="shop",status_class="2xx",code=""}"#), 1.0);
    assert_eq!(gateway.metric(r#"sluice_refusals_total{policy="relay",code="upstream-connect-failed"}"#), 0.0);
    // The route beside it has none.
    assert_eq!(gateway.get("/spare", &[]).status, 502);
    let told = String::from_utf8(gateway.sluice(&["explain", "sluice.yaml", "http://h/shop/a"]).stdout).unwrap();
    assert!(told.contains("fallback   an answer of its own, 203, where no target of shop can be reached"), "{told}");
}

#[test]
fn another_upstream_gets_the_whole_request_when_the_first_cannot_be_reached() {
    let spare = Upstream::script(|request| {
        let text = format!("{} {}", request.method, request.target);
        [vec![Step::ReadBody], Answer::ok(text).steps()].concat()
    });
    let gateway = config("", "{ upstream: spare }").var("shop", nobody()).var("spare", spare.address()).start();
    let answer = request(gateway.address(), "POST", "/shop/a", &[], b"whole");
    assert_eq!((answer.status, answer.text()), (200, "POST /shop/a"));
    assert_eq!(spare.requests()[0].body, b"whole");
    let line = gateway.log_line_where(|line| line["path"] == "/shop/a");
    assert_eq!((&line["fallback"], &line["upstream"]), (&"spare".into(), &"spare".into()), "{line}");
    assert!(line["reason"].as_str().unwrap().starts_with("shop: upstream-connect-failed: "), "{line}");
    assert_eq!(gateway.metric(r#"sluice_fallbacks_total{route="shop",code="upstream-connect-failed"}"#), 1.0);
    let told = String::from_utf8(gateway.sluice(&["explain", "sluice.yaml", "http://h/shop/a"]).stdout).unwrap();
    assert!(told.contains("fallback   spare, where no target of shop can be reached"), "{told}");
}

#[test]
fn a_target_that_is_out_by_its_checks_is_no_reason_to_refuse_either() {
    let sick = Upstream::script(|request| match request.target.as_str() {
        "/healthz" => Answer::new(500).steps(),
        _ => Answer::ok("sick").steps(),
    });
    let spare = Upstream::answering(Answer::ok("spare"));
    let health = "health: { path: /healthz, every: 500ms, unhealthy_after: 1 }";
    let gateway = config(health, "{ upstream: spare }").var("shop", sick.address()).var("spare", spare.address()).start();
    gateway.stderr_line("is out");
    assert_eq!(gateway.get("/shop/a", &[]).text(), "spare");
    let line = gateway.log_line_where(|line| line["path"] == "/shop/a");
    assert_eq!(line["fallback"], "spare", "{line}");
    assert!(line["reason"].as_str().unwrap().starts_with("shop: no-healthy-target"), "{line}");
}

#[test]
fn where_both_fail_the_client_is_refused_and_the_log_names_both() {
    let gateway = config("", "{ upstream: spare }").var("shop", nobody()).var("spare", nobody()).start();
    let answer = gateway.get("/shop/a", &[]);
    assert_eq!((answer.status, &answer.json()["code"]), (502, &"upstream-connect-failed".into()));
    let line = gateway.log_line_where(|line| line["path"] == "/shop/a");
    let reason = line["reason"].as_str().unwrap();
    assert!(reason.contains("shop: upstream-connect-failed: ") && reason.contains("; then spare: "), "{reason}");
    assert_eq!(line["fallback"], "spare");
}

#[test]
fn what_a_target_has_begun_with_goes_nowhere_else() {
    let spare = Upstream::answering(Answer::ok("spare"));
    for (steps, code) in
        [(vec![Step::ReadBody, Step::Close], "upstream-closed"), (vec![Step::ReadBody, Step::Hang], "upstream-response-timeout")]
    {
        let shop = Upstream::script(move |_| steps.clone());
        for fallback in ["{ upstream: spare }", ANSWER] {
            let gateway =
                config("timeouts: { response: 300ms }", fallback).var("shop", shop.address()).var("spare", spare.address()).start();
            let answer = request(gateway.address(), "POST", "/shop/a", &[], b"once");
            assert_eq!(answer.json()["code"], code, "{fallback}");
        }
        assert_eq!(shop.requests().iter().filter(|request| request.method == "POST").count(), 2);
    }
    assert_eq!(spare.requests().len(), 0);
}

#[test]
fn an_open_circuit_and_an_upstream_that_is_full_are_reasons_too() {
    let sick = Upstream::answering(Answer::new(500));
    let spare = Upstream::answering(Answer::ok("spare"));
    let circuit = "circuit_breaker: { of: upstream, min_requests: 2, open_for: 1h }";
    let gateway = config(circuit, "{ upstream: spare }").var("shop", sick.address()).var("spare", spare.address()).start();
    let mut client = gateway.client();
    eventually("the circuit is open", || (client.get("/shop/a", &[]).status == 200).then_some(()));
    let line = gateway.log_line_where(|line| line["fallback"] == "spare");
    assert!(line["reason"].as_str().unwrap().starts_with("shop: circuit-open"), "{line}");

    let gate = Gate::new();
    let held = gate.clone();
    let busy = Upstream::script(move |_| [vec![Step::WaitFor(held.clone())], Answer::ok("shop").steps()].concat());
    let gateway = config("max_requests: 1", ANSWER).var("shop", busy.address()).var("spare", spare.address()).start();
    let mut first = gateway.client();
    first.send("GET /shop/first HTTP/1.1\r\nHost: a\r\n\r\n");
    eventually("it has the first", || (busy.open_connections() == 1).then_some(()));
    assert_eq!(gateway.get("/shop/a", &[]).status, 203);
    let fallen = r#"sluice_fallbacks_total{route="shop",code="upstream-overloaded"}"#;
    eventually("it is counted", || (gateway.metric_now(fallen) == 1.0).then_some(()));
    gate.open();
    assert_eq!(first.read().text(), "shop");
    assert_eq!(gateway.get("/shop/a", &[]).text(), "shop");
}
