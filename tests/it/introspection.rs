//! Opaque tokens, about which their issuer is asked: a certified provider, and a stand-in that misbehaves on command.

use std::sync::{Arc, Mutex};

use serde_json::{Value, json};

use super::harness::oidc::Oidc;
use super::harness::*;
use super::keys::now;

fn config(url: &str, more: &str) -> Config {
    config_as("gateway", "gateway-secret", url, more)
}

fn config_as(client: &str, secret: &str, url: &str, more: &str) -> Config {
    let text = format!(
        "server: {{ threads: 1, settle: 0s }}
listeners: {{ l: {{ address: \"127.0.0.1:{{port}}\" }} }}
authenticators:
  idp: {{ introspection: {{ url: \"{url}\", client_id: {client}, client_secret: {secret}, forward: {{ x-user: sub }}{more} }} }}
routes:
  orders: {{ match: {{ path: /orders }}, auth: [idp], allow: {{ scopes: [\"orders:read\"] }}, respond: {{ status: 204 }} }}
  open: {{ match: {{ path: /open }}, auth: public, respond: {{ status: 204 }} }}
"
    );
    Gateway::config(&text)
}

/// The code, or `passed`.
fn ask(gateway: &Gateway, token: &str) -> String {
    let answer = gateway.get("/orders", &[("authorization", &format!("Bearer {token}"))]);
    if answer.status == 204 { "passed".to_owned() } else { format!("{} {}", answer.status, answer.code()) }
}

fn count(gateway: &Gateway, result: &str) -> f64 {
    gateway.metric(&format!("sluice_introspections_total{{authenticator=\"idp\",result=\"{result}\"}}"))
}

/// An issuer that answers with what stands in it now.
#[derive(Clone)]
struct Standin(Arc<Mutex<Vec<Step>>>);

impl Standin {
    fn new(answer: &Value) -> Standin {
        let standin = Standin(Arc::default());
        standin.answer(answer);
        standin
    }

    fn answer(&self, answer: &Value) {
        self.say(Answer::ok(answer.to_string()).steps());
    }

    fn say(&self, steps: Vec<Step>) {
        *self.0.lock().unwrap() = steps;
    }

    fn serve(&self) -> Upstream {
        let me = self.clone();
        Upstream::script(move |_| me.0.lock().unwrap().clone())
    }
}

fn active() -> Value {
    json!({ "active": true, "scope": "orders:read", "sub": "u1", "exp": now() + 600 })
}

fn behind(issuer: &Upstream, more: &str) -> Gateway {
    config(&format!("http://{}/introspect", issuer.address()), more).start()
}

#[test]
fn a_certified_provider_is_asked_about_opaque_tokens_and_what_it_revokes_is_refused() {
    let mut oidc = Oidc::start();
    let url = format!("{}/token/introspection", oidc.issuer());
    let more = ", audiences: [orders], remember: 1s, ca: ca.pem";
    let gateway = config(&url, more).file("ca.pem", oidc.ca()).start();
    let token = oidc.token("urn:opaque");
    assert!(!token.contains('.'), "it is opaque");
    assert_eq!((ask(&gateway, &token), ask(&gateway, &token)), ("passed".into(), "passed".into()));
    assert_eq!((count(&gateway, "active"), ask(&gateway, "made-up")), (1.0, "401 token-inactive".into()));
    oidc.post("/token/revocation", "app:app-secret", &format!("token={token}"));
    eventually("the revocation", || (ask(&gateway, &token) == "401 token-inactive").then_some(()));
    // An outage: nobody is let in whom it did not confirm a moment ago.
    let other = oidc.token("urn:opaque");
    oidc.order("stop");
    assert_eq!(ask(&gateway, &other), "503 introspection-unavailable");
    assert_eq!(gateway.get("/open", &[]).status, 204);
    oidc.order("start");
    // What the provider holds in memory is gone, but it answers.
    assert_eq!(ask(&gateway, &oidc.token("urn:opaque")), "passed");
    gateway.stderr_line("the issuer answers again");

    let wrong = config_as("gateway", "another-secret", &url, more).file("ca.pem", oidc.ca()).start();
    assert_eq!(ask(&wrong, &oidc.token("urn:opaque")), "503 introspection-unavailable");
    wrong.stderr_line("the issuer does not accept `client_id` and `client_secret`");
    let explained = gateway.sluice(&["explain", "sluice.yaml", "http://a/orders", "--claims", r#"{"sub":"u1","scope":"orders:read"}"#]);
    let text = String::from_utf8_lossy(&explained.stdout);
    assert!(text.contains(&format!("idp: tokens are asked about at {url}, believed for 1s")) && text.contains("passed"), "{text}");
}

#[test]
fn the_question_carries_the_token_and_the_client_in_the_forms_of_the_standards() {
    let issuer = Standin::new(&active()).serve();
    let gateway = behind(&issuer, "");
    assert_eq!(ask(&gateway, "a~b+/="), "passed");
    let asked = issuer.last();
    assert_eq!((asked.method.as_str(), asked.target.as_str()), ("POST", "/introspect"));
    assert_eq!(asked.header("authorization"), Some("Basic Z2F0ZXdheTpnYXRld2F5LXNlY3JldA=="));
    assert_eq!(asked.header("content-type"), Some("application/x-www-form-urlencoded"));
    assert_eq!(String::from_utf8_lossy(&asked.body), "token=a%7Eb%2B%2F%3D&token_type_hint=access_token");
    assert_eq!(ask(&gateway, "a b"), "401 token-malformed");
    assert_eq!(issuer.requests().len(), 1);
}

#[test]
fn many_who_bring_one_token_are_one_question() {
    let gate = Gate::new();
    let standin = Standin::new(&json!({}));
    standin.say([vec![Step::WaitFor(gate.clone())], Answer::ok(active().to_string()).steps()].concat());
    let issuer = standin.serve();
    let gateway = behind(&issuer, ", deadline: 10s");
    let address = gateway.address();
    let asking: Vec<_> =
        (0..8).map(|_| std::thread::spawn(move || get(address, "/orders", &[("authorization", "Bearer one")]).status)).collect();
    eventually("the question", || (issuer.connections() == 1).then_some(()));
    // Who has asked first may leave.
    gate.open();
    for one in asking {
        assert_eq!(one.join().unwrap(), 204);
    }
    assert_eq!(issuer.requests().len(), 1);
}

#[test]
fn an_issuer_that_does_not_answer_is_a_503_and_not_remembered() {
    let standin = Standin::new(&active());
    let issuer = standin.serve();
    let (hasty, patient) = (behind(&issuer, ", deadline: 200ms"), behind(&issuer, ", deadline: 10s"));
    for (wrong, why) in [
        (vec![Step::Hang], "no answer within 200ms"),
        (vec![Step::Close], "connection closed"),
        (Answer::new(500).steps(), "status 500"),
        (Answer::ok("<html>").steps(), "the answer is not JSON"),
        (Answer::ok("{}").steps(), "does not say whether the token is active"),
        (Answer::ok(r#"{"active":"true"}"#).steps(), "does not say whether the token is active"),
        (Answer::ok(r#"{"active":false,"active":true}"#).steps(), "names a member twice"),
        (Answer::ok(" ".repeat(70_000)).steps(), "larger than 65536 bytes"),
        (Answer::new(302).header("location", "http://127.0.0.2:1/").steps(), "status 302"),
    ] {
        // Only who waits for an answer that does not come is in a hurry: the others come late on a busy machine.
        let gateway = if why.contains("200ms") { &hasty } else { &patient };
        standin.say(wrong);
        let refused = gateway.get("/orders", &[("authorization", "Bearer t1")]);
        assert_eq!((refused.status, refused.code().as_str()), (503, "introspection-unavailable"), "{why}");
        assert!(refused.header("retry-after").is_some());
        gateway.log_line_where(|line| line["reason"].as_str().is_some_and(|reason| reason.contains(why)));
    }
    standin.answer(&active());
    assert_eq!(ask(&patient, "t1"), "passed");
    assert_eq!((count(&hasty, "failed"), count(&patient, "failed")), (1.0, 8.0));
}

#[test]
fn what_the_answer_says_is_judged() {
    let standin = Standin::new(&active());
    let issuer = standin.serve();
    let gateway = behind(&issuer, ", issuer: i, audiences: [orders, reports]");
    let mut number = 0;
    let mut told = |answer: Value| {
        number += 1;
        let mut all = active();
        all.as_object_mut().unwrap().extend(answer.as_object().unwrap().clone());
        standin.answer(&all);
        ask(&gateway, &format!("t{number}"))
    };
    assert_eq!(told(json!({ "aud": "orders" })), "passed");
    assert_eq!(told(json!({ "aud": ["x", "reports"], "iss": "i" })), "passed");
    assert_eq!(told(json!({})), "401 token-audience");
    assert_eq!(told(json!({ "aud": "x" })), "401 token-audience");
    assert_eq!(told(json!({ "aud": "orders", "iss": "j" })), "401 token-issuer");
    assert_eq!(told(json!({ "aud": "orders", "exp": now() - 1 })), "401 token-expired");
    assert_eq!(told(json!({ "aud": "orders", "nbf": now() + 60 })), "401 token-not-yet-valid");
    assert_eq!(told(json!({ "aud": "orders", "sub": 7 })), "401 token-claims");
    assert_eq!(told(json!({ "aud": "orders", "scope": "other" })), "403 scope-missing");
    assert_eq!(told(json!({ "aud": "orders", "active": false })), "401 token-inactive");
}

#[test]
fn an_answer_is_believed_as_long_as_is_written_and_not_longer_than_the_token() {
    let standin = Standin::new(&active());
    let issuer = standin.serve();
    let gateway = behind(&issuer, ", remember: 1s, remember_inactive: 1s");
    assert_eq!(ask(&gateway, "t1"), "passed");
    standin.answer(&json!({ "active": false }));
    assert_eq!(ask(&gateway, "t2"), "401 token-inactive");
    eventually("the end of belief", || (ask(&gateway, "t1") == "401 token-inactive").then_some(()));
    standin.answer(&active());
    eventually("the end of disbelief", || (ask(&gateway, "t2") == "passed").then_some(()));
    // Believed for a minute, where nothing else is written, but not after its end.
    let patient = behind(&issuer, "");
    standin.answer(&json!({ "active": true, "scope": "orders:read", "exp": now() + 4 }));
    assert_eq!(ask(&patient, "t3"), "passed");
    let asked = issuer.requests().len();
    eventually("the end of the token", || (ask(&patient, "t3") == "401 token-expired").then_some(()));
    assert_eq!(issuer.requests().len(), asked, "it was believed");
}

#[test]
fn an_issuer_elsewhere_is_asked_in_plain_text_only_where_that_is_written() {
    let refused = config("http://idp.example/introspect", "").try_start().err().unwrap();
    assert!(refused.stderr.contains("error[ask-plain]"), "{}", refused.stderr);
    let allowed = config("http://192.0.2.1/introspect", ", plain_http: true, deadline: 100ms").start();
    assert_eq!(ask(&allowed, "t"), "503 introspection-unavailable");
}

#[test]
fn questions_on_their_way_are_bounded() {
    let standin = Standin::new(&active());
    standin.say(vec![Step::Hang]);
    let issuer = standin.serve();
    let gateway = behind(&issuer, ", deadline: 10s");
    let mut clients: Vec<_> = (0..64).map(|_| gateway.client()).collect();
    for (n, client) in clients.iter_mut().enumerate() {
        client.send(format!("GET /orders HTTP/1.1\r\nHost: a\r\nAuthorization: Bearer t{n}\r\n\r\n"));
    }
    eventually("64 questions", || (issuer.connections() == 64).then_some(()));
    assert_eq!(ask(&gateway, "one-more"), "503 introspection-unavailable");
    let held_back = "sluice_introspections_total{authenticator=\"idp\",result=\"held-back\"}";
    eventually("it is counted", || (gateway.metric_now(held_back) == 1.0).then_some(()));
    assert_eq!(gateway.get("/open", &[]).status, 204);
}

#[test]
fn questions_go_over_connections_that_are_kept_and_one_that_is_over_costs_nobody_anything() {
    // What this is on the second and later questions of a connection.
    let then = Arc::new(Mutex::new(None::<Vec<Step>>));
    let says = then.clone();
    let issuer = Upstream::script(move |request| {
        let other = says.lock().unwrap().clone().filter(|_| request.index > 0);
        other.unwrap_or_else(|| Answer::ok(active().to_string()).steps())
    });
    let gateway = behind(&issuer, "");
    let passes = |token: &str| assert_eq!(ask(&gateway, token), "passed", "{token}");
    ["a1", "a2", "a3", "a4", "a5"].into_iter().for_each(passes);
    assert_eq!((issuer.requests().len(), issuer.connections()), (5, 1));
    // Closed in between, and closed at the moment of the question.
    issuer.close_connections();
    issuer.wait_for_all_closed();
    ["b1", "b2"].into_iter().for_each(passes);
    assert_eq!(issuer.connections(), 2);
    *then.lock().unwrap() = Some(vec![Step::ReadBody, Step::Close]);
    passes("c1");
    assert_eq!(issuer.connections(), 3);
    // An issuer that says that it will close.
    *then.lock().unwrap() = Some(Answer::ok(active().to_string()).header("connection", "close").steps());
    ["d1", "d2"].into_iter().for_each(passes);
    assert_eq!((issuer.requests().len(), issuer.connections()), (11, 4));
}

#[test]
fn an_answer_that_comes_late_is_nobody_elses() {
    let gate = Gate::new();
    let held = gate.clone();
    let issuer = Upstream::script(move |request| {
        let good = Answer::ok(active().to_string()).steps();
        match (request.connection, request.index) {
            (0, 0) => good,
            (0, _) => [vec![Step::ReadBody, Step::WaitFor(held.clone())], good].concat(),
            (_, _) => Answer::ok(r#"{"active":false}"#).steps(),
        }
    });
    let gateway = behind(&issuer, ", deadline: 2s");
    assert_eq!((ask(&gateway, "t1"), ask(&gateway, "t2")), ("passed".into(), "503 introspection-unavailable".into()));
    gate.open();
    assert_eq!(ask(&gateway, "t3"), "401 token-inactive");
    assert_eq!(ask(&gateway, "t2"), "401 token-inactive");
}

#[test]
fn connections_that_are_kept_are_few() {
    let gate = Gate::new();
    let held = gate.clone();
    let issuer =
        Upstream::script(move |_| [vec![Step::ReadBody, Step::WaitFor(held.clone())], Answer::ok(active().to_string()).steps()].concat());
    let gateway = behind(&issuer, ", deadline: 10s");
    let mut clients: Vec<_> = (0..24).map(|_| gateway.client()).collect();
    for (n, client) in clients.iter_mut().enumerate() {
        client.send(format!("GET /orders HTTP/1.1\r\nHost: a\r\nAuthorization: Bearer t{n}\r\n\r\n"));
    }
    eventually("24 questions", || (issuer.open_connections() == 24).then_some(()));
    gate.open();
    for client in &mut clients {
        assert_eq!(client.read().status, 204);
    }
    eventually("16 connections", || (issuer.open_connections() == 16).then_some(()));
}

#[test]
fn an_issuer_behind_a_proxy_is_asked_through_it() {
    let proxy = Standin::new(&active()).serve();
    let through = |proxy: &Upstream| format!(", plain_http: true, proxy: \"http://{}\"", proxy.address());
    let gateway = config("http://idp.internal/introspect?v=1", &through(&proxy)).start();
    assert_eq!((ask(&gateway, "t1"), ask(&gateway, "t2")), ("passed".into(), "passed".into()));
    let asked = proxy.last();
    assert_eq!((asked.target.as_str(), asked.header("host")), ("http://idp.internal/introspect?v=1", Some("idp.internal")));
    assert_eq!((proxy.requests().len(), proxy.connections()), (2, 1));
    let explained = gateway.sluice(&["explain", "sluice.yaml", "http://a/orders", "--claims", r#"{"sub":"u1","scope":"orders:read"}"#]);
    let text = String::from_utf8_lossy(&explained.stdout);
    assert!(text.contains(&format!("introspect through the proxy {}, believed for 1m", proxy.address())), "{text}");
    // To an https server it is asked for a tunnel, and told nothing else.
    let refusing = Upstream::answering(Answer::new(403));
    let gateway = config("https://idp.internal/introspect", &through(&refusing).replace("plain_http: true, ", "")).start();
    assert_eq!(ask(&gateway, "t1"), "503 introspection-unavailable");
    gateway.stderr_line("refused CONNECT: `HTTP/1.1 403");
    assert!(refusing.last().head.starts_with(b"CONNECT idp.internal:443 HTTP/1.1\r\nHost: idp.internal:443\r\n\r\n"));
}
