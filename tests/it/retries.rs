//! What is sent again, and what never is: targets that refuse, break off, hang or answer 503, beside one that is well.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use serde_json::{Value, json};

use super::harness::h2_upstream::{H2Upstream, field};
use super::harness::http2::Http2;
use super::harness::*;

fn busy() -> Vec<Step> {
    [vec![Step::ReadBody], Answer::new(503).body("busy").steps()].concat()
}

fn well() -> Upstream {
    Upstream::script(|_| [vec![Step::ReadBody], Answer::ok("well").steps()].concat())
}

/// One target that fails like that, and one that is well; they take turns.
struct Pair {
    bad: Upstream,
    well: Upstream,
    gateway: Gateway,
}

/// `more` of the upstream, such as `retries: { on: [503] }`.
fn pair(fails: impl Fn(&Request) -> Vec<Step> + Send + Sync + 'static, more: &str) -> Pair {
    let (bad, well) = (Upstream::script(fails), well());
    let config = format!(
        "server: {{ threads: 1 }}
listeners: {{ l: {{ address: \"127.0.0.1:{{port}}\" }} }}
upstreams: {{ u: {{ targets: [\"{{bad}}\", \"{{well}}\"], {more} }} }}
routes:
  r: {{ match: {{ path: /** }}, auth: public, upstream: u }}
  twice: {{ match: {{ path: /twice/** }}, auth: public, upstream: u, idempotent: true }}
  once: {{ match: {{ path: /once/** }}, auth: public, upstream: u, idempotent: false }}"
    );
    let gateway = Gateway::config(&config).var("bad", bad.address()).var("well", well.address()).start();
    Pair { bad, well, gateway }
}

impl Pair {
    /// How many of four requests, two of them for the bad target first, end well.
    fn of_four(&self, method: &str, path: &str, headers: &[(&str, &str)], body: &[u8]) -> usize {
        let ask = || self.gateway.client().request(method, path, headers, body);
        (0..4).filter(|_| ask().status == 200).count()
    }

    fn metric(&self, name: &str, reason: &str) -> f64 {
        self.gateway.metric(&format!("sluice_upstream_{name}_total{{upstream=\"u\",reason=\"{reason}\"}}"))
    }
}

type Fails = (&'static str, fn() -> Vec<Step>);

const FAILS: [Fails; 3] =
    [("reset", || vec![Step::ReadBody, Step::Reset]), ("timeout", || vec![Step::ReadBody, Step::Hang]), ("503", busy)];

#[test]
fn each_condition_is_tried_again_after_where_it_is_written_and_nowhere_else() {
    for (word, steps) in FAILS {
        // Nobody else is in a hurry: on a busy machine a good answer may be late.
        let response = if word == "timeout" { "1s" } else { "60s" };
        let with = |on: &str| pair(move |_| steps(), &format!("timeouts: {{ response: {response} }}, retries: {{ on: [{on}] }}"));
        let pair = with(word);
        assert_eq!(pair.of_four("GET", "/", &[], b""), 4, "{word}");
        let reason = if word == "503" { "status" } else { word };
        assert_eq!(pair.metric("retries", reason), 2.0, "{word}");
        let others = FAILS.iter().map(|(other, _)| *other).filter(|other| *other != word).collect::<Vec<_>>().join(", ");
        assert_eq!(with(&format!("connect, {others}")).of_four("GET", "/", &[], b""), 2, "{word} without its word");
    }
}

#[test]
fn only_what_may_be_sent_twice_is_sent_again() {
    let pair = pair(|_| busy(), "retries: { on: [503] }");
    let key = [("idempotency-key", "a")];
    for (method, path, headers, count) in [
        ("GET", "/", &[][..], 4),
        ("PUT", "/", &[], 4),
        ("POST", "/", &[], 2),
        ("PATCH", "/", &[], 2),
        ("POST", "/", &key, 4),
        ("POST", "/twice/a", &[], 4),
        ("GET", "/once/a", &[], 2),
        ("POST", "/once/a", &key, 2),
    ] {
        let body: &[u8] = if method == "GET" { b"" } else { b"hello" };
        assert_eq!(pair.of_four(method, path, headers, body), count, "{method} {path} {headers:?}");
    }
    assert_eq!(pair.metric("retries_given_up", "not_idempotent"), 8.0);
    assert!(pair.well.requests().iter().filter(|request| request.method != "GET").all(|request| request.body == b"hello"));
    // The answer of the target goes to the client as it is.
    let refused = (0..2).map(|_| pair.gateway.client().post("/", &[], b"x")).find(|answer| answer.status == 503);
    assert_eq!(refused.map(|answer| (answer.text().to_owned(), answer.is_keep_alive())), Some(("busy".to_owned(), true)));
}

#[test]
fn the_log_names_each_attempt_and_why_there_was_no_other() {
    let pair = pair(|_| busy(), "retries: { on: [503] }");
    for method in ["GET", "GET", "POST", "POST"] {
        pair.gateway.client().request(method, "/", &[], b"");
    }
    let bad = format!("{} 503", pair.bad.address());
    let again = pair.gateway.log_line_where(|line| line["attempts"] == 2);
    assert_eq!((&again["failed"], &again["status"], again.get("no_retry")), (&json!([bad]), &json!(200), None));
    assert_eq!(again["target"], pair.well.address().to_string());
    let once = pair.gateway.log_line_where(|line| line["status"] == 503);
    assert_eq!((&once["failed"], &once["no_retry"], &once["attempts"]), (&json!([bad]), &json!("not_idempotent"), &json!(1)));
    let plain = pair.gateway.log_line_where(|line| line["attempts"] == 1 && line["status"] == 200);
    assert_eq!((plain.get("failed"), plain.get("no_retry")), (None, None));
}

/// Takes the second request on a connection and hangs up, as a target that is just being stopped.
fn dies_at_rest(request: &Request) -> Vec<Step> {
    let answer = if request.index > 0 { vec![Step::Close] } else { Answer::ok("bad").steps() };
    [vec![Step::ReadBody], answer].concat()
}

#[test]
fn a_request_whose_connection_died_at_rest_goes_to_another_target_unless_callers_are_kept_at_theirs() {
    let anywhere = pair(dies_at_rest, "retries: { attempts: 2 }");
    let answers: Vec<_> = (0..3).map(|_| anywhere.gateway.get("/a", &[]).text().to_owned()).collect();
    assert_eq!(answers, ["bad", "well", "well"]);
    assert_eq!((anywhere.bad.connections(), anywhere.bad.requests().len()), (1, 2));
    assert_eq!(anywhere.metric("retries", "stale"), 1.0);
    assert_eq!(anywhere.well.connections(), 2, "what rested at the other may have died, too");

    let kept = pair(dies_at_rest, "retries: { attempts: 2 }, balance: hash, hash_by: [\"header:x\"]");
    let key = (0..100)
        .map(|key: u32| key.to_string())
        .find(|key| kept.gateway.get("/a", &[("x", key)]).text() == "bad")
        .expect("some key is the bad target's");
    assert_eq!(kept.gateway.get("/a", &[("x", &key)]).text(), "bad");
    assert_eq!((kept.bad.connections(), kept.bad.requests().len()), (2, 3));
}

#[test]
fn a_body_is_sent_again_byte_for_byte_up_to_what_is_kept() {
    for (most, more) in [(65_536, ""), (1_000, ", body: 1000")] {
        let pair = pair(|_| busy(), &format!("retries: {{ on: [503]{more} }}"));
        let body: Vec<u8> = (0..=most).map(|n| n as u8).collect();
        assert_eq!(pair.of_four("PUT", "/", &[], &body[..most]), 4, "{most}");
        assert!(pair.well.requests().iter().all(|request| request.body == body[..most]));
        assert_eq!(pair.of_four("PUT", "/", &[], &body), 2, "{most} and one");
        assert_eq!(pair.metric("retries_given_up", "body"), 2.0);
    }
}

#[test]
fn an_upstream_that_wants_to_be_left_alone_is_for_as_long_as_is_written() {
    let says = |after: &'static str| {
        move |_: &Request| [vec![Step::ReadBody], Answer::new(503).header("Retry-After", after).body("busy").steps()].concat()
    };
    assert_eq!(pair(says("0"), "retries: { on: [503] }").of_four("GET", "/", &[], b""), 4);
    // A date that is over, and one that is far off.
    assert_eq!(pair(says("Sun, 06 Nov 1994 08:49:37 GMT"), "retries: { on: [503] }").of_four("GET", "/", &[], b""), 4);
    let far = pair(says("Fri, 01 Jan 2100 00:00:00 GMT"), "retries: { on: [503], retry_after: 60s }");
    assert_eq!((far.of_four("GET", "/", &[], b""), far.metric("retries_given_up", "retry_after")), (2, 2.0));
    let impatient = pair(says("1"), "retries: { on: [503], retry_after: 0s }");
    let answers: Vec<_> = (0..2).map(|_| impatient.gateway.get("/", &[])).collect();
    let told = answers.iter().find(|answer| answer.status == 503).expect("the answer of the target goes to the client");
    assert_eq!(told.header("retry-after"), Some("1"));
    assert_eq!(impatient.metric("retries_given_up", "retry_after"), 1.0);
    let patient = pair(says("1"), "retries: { on: [503], retry_after: 1s }");
    assert_eq!((patient.gateway.get("/", &[]).status, patient.gateway.get("/", &[]).status), (200, 200));
    let waited = patient.gateway.log_line_where(|line| line["attempts"] == 2);
    assert!(waited["total_us"].as_u64() >= Some(1_000_000) && waited["waited_us"].as_u64() >= Some(1_000_000), "{waited}");
    let time = |name: &str| waited[name].as_u64().unwrap();
    assert!(time("upstream_us") + time("waited_us") <= time("total_us"), "what was waited is no time of the upstream: {waited}");
    // What is waited counts in the time for all.
    let pressed = pair(says("30"), "timeouts: { total: 15s }, retries: { on: [503], retry_after: 30s }");
    let mut statuses = [pressed.gateway.get("/", &[]).status, pressed.gateway.get("/", &[]).status];
    statuses.sort_unstable();
    assert_eq!((statuses, pressed.metric("retries_given_up", "deadline")), ([200, 503], 1.0));
}

#[test]
fn who_leaves_while_it_waits_is_not_sent_again() {
    let says = |_: &Request| [vec![Step::ReadBody], Answer::new(503).header("Retry-After", "60").body("busy").steps()].concat();
    let pair = pair(says, "retries: { on: [503], retry_after: 60s }");
    let mut clients: Vec<_> = (0..2).map(|_| pair.gateway.client()).collect();
    for client in &mut clients {
        client.send("GET / HTTP/1.1\r\nHost: a\r\n\r\n");
    }
    // The one that is well has answered its own, so that only the other is given up.
    pair.gateway.log_line_where(|line| line["status"] == 200);
    let series = "sluice_upstream_retries_total{upstream=\"u\",reason=\"status\"}";
    eventually("the wait has begun", || (pair.gateway.metric_now(series) == 1.0).then_some(()));
    drop(clients);
    let line = pair.gateway.log_line_where(|line| line["code"] == "client-gone");
    assert_eq!((&line["attempts"], &line["failed"]), (&json!(1), &json!([format!("{} 503", pair.bad.address())])));
    assert_eq!(pair.well.requests().len(), 1);
}

#[test]
fn backoff_waits_before_what_was_sent_and_not_before_what_was_not() {
    // As random as it is, of eight waits of up to 10s one is longer than the time for all, but for one case in ten million.
    let more = "timeouts: { total: 1500ms }, retries: { on: [connect, 503], backoff: { base: 10s, max: 10s } }";
    let waits = pair(|_| busy(), more);
    for _ in 0..16 {
        waits.gateway.get("/", &[]);
    }
    assert!(waits.metric("retries_given_up", "deadline") >= 1.0);
    let nobody = nobody();
    let up = well();
    let config = format!(
        "server: {{ threads: 1 }}
listeners: {{ l: {{ address: \"127.0.0.1:{{port}}\" }} }}
upstreams: {{ u: {{ targets: [\"{nobody}\", \"{{u}}\"], {more} }} }}
routes: {{ r: {{ match: {{ path: /** }}, auth: public, upstream: u }} }}"
    );
    let gateway = Gateway::config(&config).var("u", up.address()).start();
    assert!((0..16).all(|_| gateway.client().post("/", &[], b"x").status == 200));
}

#[test]
fn an_attempt_may_take_as_long_as_is_written_and_all_together_too() {
    let quick = pair(|_| vec![Step::ReadBody, Step::Hang], "retries: { on: [timeout], attempt_timeout: 1s }");
    assert_eq!(quick.of_four("GET", "/", &[], b""), 4);
    assert_eq!(quick.metric("retries", "timeout"), 2.0);
    // The last attempt is no longer than the others, and its answer says what was too short.
    let last = pair(|_| vec![Step::ReadBody, Step::Hang], "retries: { on: [connect], attempt_timeout: 1s }");
    let codes: Vec<_> =
        (0..2).map(|_| last.gateway.get("/", &[])).filter(|answer| answer.status == 504).map(|answer| answer.code()).collect();
    assert_eq!(codes, ["upstream-response-timeout"]);
    let line = last.gateway.log_line_where(|line| line["status"] == 504);
    assert_eq!(line["reason"], "no response head within 1s");

    let hang = || Upstream::script(|_| vec![Step::ReadBody, Step::Hang]);
    let (a, b) = (hang(), hang());
    let config = "server: { threads: 1 }
listeners: { l: { address: \"127.0.0.1:{port}\" } }
upstreams: { u: { targets: [\"{a}\", \"{b}\"], timeouts: { response: 600ms, total: 1100ms }, retries: { on: [timeout] } } }
routes: { r: { match: { path: /** }, auth: public, upstream: u }, s: { match: { path: /long }, auth: public, upstream: u, timeouts: { total: 60s } } }";
    let gateway = Gateway::config(config).var("a", a.address()).var("b", b.address()).start();
    let answer = gateway.get("/", &[]);
    assert_eq!((answer.status, answer.code().as_str()), (504, "upstream-total-timeout"));
    let line = gateway.log_line_where(|line| line["code"] == "upstream-total-timeout");
    assert!(line["failed"][0].as_str().is_some_and(|failed| failed.ends_with(" timeout")), "{line}");
    // A route has its own word on it.
    assert_eq!(gateway.get("/long", &[]).code(), "upstream-response-timeout");
    let line = gateway.log_line_where(|line| line["path"] == "/long");
    assert_eq!((&line["attempts"], &line["no_retry"]), (&json!(2), &json!("attempts")));
}

#[test]
fn an_answer_that_is_not_over_in_time_is_cut() {
    let slow =
        Upstream::script(|_| vec![Step::ReadBody, Step::Send(b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nhalf".to_vec()), Step::Hang]);
    let config = "server: { threads: 1 }
listeners: { l: { address: \"127.0.0.1:{port}\" } }
upstreams: { u: { targets: [\"{u}\"], timeouts: { total: 1s } } }
routes: { r: { match: { path: /** }, auth: public, upstream: u } }";
    let gateway = Gateway::config(config).var("u", slow.address()).start();
    assert!(matches!(gateway.client().try_request("GET", "/", &[], b""), Err(ReadError::Cut(..))));
    assert_eq!(gateway.log_line_where(|line| line["code"] == "upstream-total-timeout")["status"], 200);
}

// === the budget ===

/// Three targets that are down until `is_up`.
fn three(budget: &str) -> (Vec<Upstream>, Arc<AtomicBool>, Gateway) {
    let is_up = Arc::new(AtomicBool::new(false));
    let target = || {
        let is_up = is_up.clone();
        Upstream::script(move |_| match is_up.load(Ordering::Relaxed) {
            true => Answer::ok("well").steps(),
            false => Answer::new(503).body("down").steps(),
        })
    };
    let targets: Vec<_> = (0..3).map(|_| target()).collect();
    let config = format!(
        "listeners: {{ l: {{ address: \"127.0.0.1:{{port}}\" }} }}
upstreams: {{ u: {{ targets: [\"{{a}}\", \"{{b}}\", \"{{c}}\"], retries: {{ attempts: 3, on: [503], budget: {budget} }} }} }}
routes: {{ r: {{ match: {{ path: /** }}, auth: public, upstream: u }} }}"
    );
    let [a, b, c] = [0, 1, 2].map(|n| targets[n].address());
    let gateway = Gateway::config(&config).var("a", a).var("b", b).var("c", c).start();
    (targets, is_up, gateway)
}

fn count(targets: &[Upstream]) -> usize {
    targets.iter().map(|target| target.requests().len()).sum()
}

#[test]
fn retries_add_no_more_than_their_share_to_an_outage_and_to_its_end() {
    const OFFERED: usize = 300;
    let (targets, is_up, gateway) = three("{ share: 20%, min_per_second: 0 }");
    let mut clients: Vec<_> = (0..4).map(|_| gateway.client()).collect();
    let mut offer = |count: usize| -> usize { (0..count).filter(|n| clients[n % 4].get("/", &[]).status == 200).count() };
    assert_eq!(offer(OFFERED), 0);
    let down = count(&targets);
    assert!(down <= OFFERED * 12 / 10, "{down} of {OFFERED} offered");
    assert!(down > OFFERED * 11 / 10, "there were retries: {down}");
    is_up.store(true, Ordering::Relaxed);
    assert_eq!(offer(OFFERED), OFFERED);
    let after = count(&targets) - down;
    assert!(after <= OFFERED * 12 / 10, "{after} of {OFFERED} offered");
    let refused = gateway.metric(r#"sluice_upstream_retries_given_up_total{upstream="u",reason="budget"}"#);
    assert!(refused >= (OFFERED * 8 / 10) as f64, "{refused}");
    assert_eq!(gateway.log_line_where(|line| line["no_retry"] == "budget")["status"], 503);
}

#[test]
fn without_a_budget_every_request_is_sent_as_often_as_is_allowed_and_check_says_so() {
    let (targets, _, gateway) = three("none");
    let mut client = gateway.client();
    assert!((0..50).all(|_| client.get("/", &[]).status == 503));
    assert_eq!(count(&targets), 150);
    let checked = gateway.sluice(&["check", "sluice.yaml"]);
    let said = String::from_utf8_lossy(&checked.stdout).into_owned() + &String::from_utf8_lossy(&checked.stderr);
    assert!(said.contains("upstream `u` has `retries` without a budget"), "{said}");
}

#[test]
fn a_few_requests_a_second_may_be_sent_again_whatever_their_share() {
    let (targets, _, gateway) = three("{ share: 0%, min_per_second: 1000000 }");
    let mut client = gateway.client();
    assert!((0..20).all(|_| client.get("/", &[]).status == 503));
    assert_eq!(count(&targets), 60);
}

#[test]
fn targets_that_come_back_get_each_request_once_though_all_were_tried_before() {
    let addresses = [nobody().to_string(), nobody().to_string()];
    let config = "server: { threads: 1 }
listeners: { l: { address: \"127.0.0.1:{port}\" } }
upstreams: { u: { targets: [\"{a}\", \"{b}\"], retries: { attempts: 4, on: [connect, reset, timeout, 502, 503] } } }
routes: { r: { match: { path: /** }, auth: public, upstream: u } }";
    let gateway = Gateway::config(config).var("a", &addresses[0]).var("b", &addresses[1]).start();
    assert!((0..50).all(|_| gateway.get("/", &[]).status == 502));
    let back: Vec<_> = addresses.iter().map(|address| Upstream::on(address, |_| Answer::ok("back").steps())).collect();
    assert!((0..50).all(|_| gateway.get("/", &[]).status == 200));
    assert_eq!(count(&back), 50);
}

// === HTTP/2 and gRPC ===

#[test]
fn answers_over_http_2_are_tried_again_after_too() {
    let (busy, up) = (H2Upstream::start(&["--busy"]), H2Upstream::start(&[]));
    let config = "server: { threads: 1 }
listeners: { l: { address: \"127.0.0.1:{port}\" } }
upstreams: { u: { targets: [\"{busy}\", \"{up}\"], protocol: h2, retries: { on: [503] } } }
routes: { r: { match: { path: /** }, auth: public, upstream: u } }";
    let gateway = Gateway::config(config).var("busy", &busy.address).var("up", &up.address).start();
    let mut http2 = Http2::connect(gateway.address());
    for stream in [1, 3, 5, 7] {
        assert_eq!(http2.get(stream, "/a").status, 200);
    }
    let mut http1 = gateway.client();
    assert!((0..4).all(|_| http1.request("PUT", "/b", &[], &[7; 60_000]).status == 200));
    // The server tells its part a moment after its answer.
    eventually("all are told", || ((busy.events("request").len(), up.events("request").len()) == (4, 8)).then_some(()));
    // The connection to the busy target is none the worse.
    assert_eq!(busy.events("connection").len(), 1);
    let bodies = up.requests("/b", 4);
    assert!(bodies.iter().all(|request| request["length"] == 60_000), "{bodies:?}");
}

fn grpc(busy: &PythonServer, up: &PythonServer, more: &str) -> Gateway {
    let config = format!(
        "server: {{ threads: 1 }}
listeners: {{ l: {{ address: \"127.0.0.1:{{port}}\" }} }}
upstreams: {{ u: {{ targets: [\"{{busy}}\", \"{{up}}\"], protocol: h2, {more} }} }}
routes: {{ r: {{ match: {{ path: /** }}, auth: public, upstream: u, idempotent: true }} }}"
    );
    Gateway::config(&config).var("busy", busy.address()).var("up", up.address()).start()
}

#[test]
fn calls_of_grpc_are_made_again_where_their_server_has_not_begun() {
    let (busy, up) = (PythonServer::start("grpc_server.py", &["busy"]), PythonServer::start("grpc_server.py", &[]));
    let call = |gateway: &Gateway| PythonClient::start("grpc_client.py", &["unary", &gateway.address().to_string(), "{}"]).said();
    let gateway = grpc(&busy, &up, "retries: { on: [grpc-unavailable] }");
    for _ in 0..2 {
        assert_eq!(call(&gateway)["answer"], "b'hello'");
    }
    let line = gateway.log_line_where(|line| line["attempts"] == 2);
    assert_eq!((&line["failed"], &line["grpc_status"]), (&json!([format!("{} grpc-unavailable", busy.address())]), &json!("OK")));
    let gateway = grpc(&busy, &up, "retries: { on: [503, grpc-internal] }");
    let codes: Vec<Value> = (0..2).map(|_| call(&gateway)["code"].clone()).collect();
    assert!(codes.contains(&json!("UNAVAILABLE")), "{codes:?}");
}

#[test]
fn targets_are_told_how_long_they_have() {
    let pair = pair(
        |_| vec![Step::ReadBody, Step::Hang],
        "timeouts: { response: 1s, total: 10s, header: x-request-timeout-ms }, retries: { on: [timeout] }",
    );
    for _ in 0..2 {
        assert_eq!(pair.gateway.get("/", &[("x-request-timeout-ms", "999999")]).status, 200);
    }
    let told = |upstream: &Upstream| {
        let all = upstream.requests();
        let field = |request: &Request| {
            request.headers.iter().filter(|(name, _)| name == "x-request-timeout-ms").map(|(_, value)| value.clone()).collect::<Vec<_>>()
        };
        all.iter().map(field).map(|values| values.join(",").parse::<u64>().expect("one number")).collect::<Vec<_>>()
    };
    assert!(told(&pair.bad).iter().all(|left| (1..=10_000).contains(left)), "{:?}", told(&pair.bad));
    // What the first attempt took is gone for the second.
    assert!(told(&pair.well).iter().any(|left| *left <= 9_000), "{:?}", told(&pair.well));

    let up = H2Upstream::start(&[]);
    let config = "server: { threads: 1 }
listeners: { l: { address: \"127.0.0.1:{port}\" } }
upstreams: { u: { targets: [\"{up}\"], protocol: h2 }, v: { targets: [\"{up}\"], protocol: h2, timeouts: { total: 2s } } }
routes: { r: { match: { path: /** }, auth: public, upstream: u }, s: { match: { path: /short }, auth: public, upstream: v } }";
    let gateway = Gateway::config(config).var("up", &up.address).start();
    let mut client = Http2::connect(gateway.address());
    let call = [("content-type", "application/grpc"), ("grpc-timeout", "9S")];
    for (stream, path) in [(1, "/long"), (3, "/short")] {
        client.ask(stream, &super::harness::http2::fields("POST", path, &call));
        client.answer(stream);
    }
    let left = |path: &str| {
        let told = field(&up.requests(path, 1)[0], "grpc-timeout").join(",");
        told.strip_suffix('u').and_then(|micros| micros.parse::<u64>().ok()).unwrap_or_else(|| panic!("{told}"))
    };
    assert!((5_000_000..9_000_000).contains(&left("/long")), "{}", left("/long"));
    assert!((1..2_000_000).contains(&left("/short")), "{}", left("/short"));
}

#[test]
fn explain_shows_what_becomes_of_a_request_that_fails() {
    let pair = pair(|_| busy(), "retries: { attempts: 3, on: [503, timeout], backoff: { base: 25ms }, attempt_timeout: 2s }");
    let told = |method: &str| {
        let told = pair.gateway.sluice(&["explain", "sluice.yaml", &format!("{method} http://a/")]);
        String::from_utf8_lossy(&told.stdout).into_owned()
    };
    let get = told("GET");
    assert!(get.contains("3 attempts in all, on timeout, 503"), "{get}");
    assert!(
        get.contains("attempt timeout 2s, backoff up to 25ms, doubled to at most 250ms, budget 20%, at least 10/s, body 64KiB"),
        "{get}"
    );
    assert!(told("POST").contains("this request may not be sent twice"), "{}", told("POST"));
}
