//! Who is refused when not all can be served: at an upstream that is full or gets slower, and by a process that has too many requests or too little memory.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::Relaxed};
use std::time::Duration;

use parking_lot::{Condvar, Mutex};
use serde_json::{Value, json};

use super::harness::*;

/// Two keys, `test` and `other`, of consumers with a plan that goes first and one that does not.
const CALLERS: &str = "authenticators: { k: { api_key: { header: x-api-key } } }
consumers:
  first: { keys: [{ sha256: \"9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08\" }], plan: gold }
  second: { keys: [{ sha256: \"d9298a10d1b0735837dc4bd85dac641b0f3cef27a47e5d53a54f2f3f5b2fcffa\" }], plan: free }
plans: { gold: { rate: 1000000/s, priority: high }, free: { rate: 1000000/s, priority: low } }
";
const FIRST: (&str, &str) = ("x-api-key", "test");
const SECOND: (&str, &str) = ("x-api-key", "other");

/// Answers nothing before the gate is open.
fn waiting(gate: &Gate) -> Upstream {
    let gate = gate.clone();
    Upstream::script(move |_| [vec![Step::ReadBody, Step::WaitFor(gate.clone())], Answer::ok("late").steps()].concat())
}

/// So many clients that wait for an answer.
fn hold(gateway: &Gateway, upstream: &Upstream, path: &str, count: usize) -> Vec<Client> {
    let before = upstream.requests().len();
    let mut held: Vec<_> = (0..count).map(|_| gateway.client()).collect();
    for client in &mut held {
        client.send(format!("GET {path} HTTP/1.1\r\nHost: a\r\nX-Api-Key: test\r\n\r\n"));
    }
    upstream.wait_for_requests(before + count);
    held
}

fn routes(rest: &str) -> String {
    format!(
        "routes:
  r: {{ match: {{ path: /** }}, auth: public, upstream: u{rest} }}
  known: {{ match: {{ path: /known }}, auth: [k], upstream: u }}
  idle: {{ match: {{ path: /idle }}, auth: [k], upstream: u, priority: low }}
  plain: {{ match: {{ path: /plain }}, auth: public, upstream: u, priority: normal }}
  vital: {{ match: {{ path: /vital }}, auth: public, upstream: u, priority: high }}"
    )
}

#[test]
fn a_full_upstream_refuses_those_who_matter_least_first() {
    let gate = Gate::default();
    let upstream = waiting(&gate);
    let config = format!(
        "{CALLERS}listeners: {{ l: {{ address: \"127.0.0.1:{{port}}\" }} }}
upstreams: {{ u: {{ targets: [\"{{u}}\"], adaptive_concurrency: {{ min: 10, max: 10 }} }} }}\n{}",
        routes("")
    );
    let gateway = Gateway::config(&config).var("u", upstream.address()).start();
    let refused = |path: &str, headers: &[(&str, &str)], reason: &str| {
        let answer = gateway.get(path, headers);
        let told = (answer.status, answer.code(), answer.header("retry-after").map(str::to_owned));
        assert_eq!(told, (503, "upstream-saturated".to_owned(), Some("1".to_owned())), "{path}");
        let line = gateway.log_line_where(|line| line["request_id"] == answer.header("x-request-id").unwrap_or_default());
        assert_eq!(line["reason"], format!("{reason}, 10 in all"), "{line}");
        line["priority"].as_str().unwrap().to_owned()
    };
    let mut held = hold(&gateway, &upstream, "/vital", 6);
    assert_eq!(refused("/", &[], "6 of 6 requests at once at upstream u with priority lowest"), "lowest");
    held.extend(hold(&gateway, &upstream, "/idle", 1));
    assert_eq!(refused("/idle", &[FIRST], "7 of 7 requests at once at upstream u with priority low"), "low");
    assert_eq!(refused("/known", &[SECOND], "7 of 7 requests at once at upstream u with priority low"), "low");
    held.extend(hold(&gateway, &upstream, "/plain", 2));
    assert_eq!(refused("/plain", &[], "9 of 9 requests at once at upstream u with priority normal"), "normal");
    held.extend(hold(&gateway, &upstream, "/known", 1));
    assert_eq!(refused("/vital", &[], "10 of 10 requests at once at upstream u with priority high"), "high");
    // Ten are in flight, and nothing else is.
    in_flight(&gateway, 10);
    for (priority, count) in [("lowest", 1.0), ("low", 2.0), ("normal", 1.0), ("high", 1.0)] {
        assert_eq!(gateway.metric_now(&format!("sluice_shed_total{{full=\"upstream\",priority=\"{priority}\"}}")), count, "{priority}");
    }
    assert_eq!(gateway.metric_now("sluice_upstream_concurrency_limit{upstream=\"u\"}"), 10.0);
    assert_eq!(gateway.metric_now("sluice_upstream_concurrency_in_flight{upstream=\"u\"}"), 10.0);
    assert_eq!(gateway.metric_now("sluice_refusals_total{policy=\"relay\",code=\"upstream-saturated\"}"), 5.0);
    assert_eq!(gateway.status_now()["upstream_states"]["u"]["concurrency"], json!({ "limit": 10, "in_flight": 10, "base_ms": null }));
    let page = get(gateway.admin(), "/", &[]);
    assert!(page.text().contains("10 of 10 requests at once (adaptive_concurrency)"), "{}", page.text());
    gate.open();
    assert!(held.iter_mut().all(|client| client.read().status == 200));
    assert_eq!(gateway.get("/", &[]).status, 200);
    assert_eq!(gateway.metric("sluice_upstream_concurrency_in_flight{upstream=\"u\"}"), 0.0, "all places are given back");
}

/// What can do so many requests at once and lets the others wait, as a service with a pool of workers does.
fn service(places: usize, takes: Duration) -> Upstream {
    let free = Arc::new((Mutex::new(places), Condvar::new()));
    Upstream::script(move |_| {
        let (count, changed) = &*free;
        let mut left = count.lock();
        changed.wait_while(&mut left, |left| *left == 0);
        *left -= 1;
        drop(left);
        std::thread::sleep(takes);
        *count.lock() += 1;
        changed.notify_one();
        Answer::ok("done").steps()
    })
}

#[test]
fn an_overloaded_upstream_answers_those_who_go_first_all_the_way() {
    let upstream = service(4, Duration::from_millis(5));
    let config = format!(
        "{CALLERS}listeners: {{ l: {{ address: \"127.0.0.1:{{port}}\" }} }}
upstreams: {{ u: {{ targets: [\"{{u}}\"], adaptive_concurrency: {{ min: 10, max: 100 }} }} }}\n{}",
        routes("")
    );
    let gateway = Gateway::config(&config).var("u", upstream.address()).start();
    let (over, refused, served) = (AtomicBool::new(false), AtomicUsize::new(0), AtomicUsize::new(0));
    std::thread::scope(|scope| {
        // More than the upstream could ever have at once.
        for _ in 0..40 {
            scope.spawn(|| {
                let mut client = gateway.client();
                while !over.load(Relaxed) {
                    match client.get("/", &[]).status {
                        200 => served.fetch_add(1, Relaxed),
                        503 => refused.fetch_add(1, Relaxed),
                        status => panic!("{status}"),
                    };
                }
            });
        }
        let first: Vec<_> = (0..2)
            .map(|_| {
                scope.spawn(|| {
                    let mut client = gateway.client();
                    (0..150).map(|_| client.get("/known", &[FIRST]).status).filter(|status| *status != 200).collect::<Vec<_>>()
                })
            })
            .collect();
        for first in first {
            assert_eq!(first.join().unwrap(), [0u16; 0]);
        }
        // Until some of those who matter least have been refused, however the threads are scheduled.
        eventually("the others are refused", || (refused.load(Relaxed) > 0).then_some(()));
        over.store(true, Relaxed);
    });
    assert!(served.load(Relaxed) > 0, "they get what is left");
    assert_eq!(gateway.metric("sluice_shed_total{full=\"upstream\",priority=\"high\"}"), 0.0);
    assert_eq!(gateway.metric("sluice_shed_total{full=\"upstream\",priority=\"lowest\"}"), refused.load(Relaxed) as f64);
}

#[test]
fn an_upstream_that_gets_slower_is_given_less_and_a_reload_keeps_what_was_found() {
    let slow = Arc::new(AtomicBool::new(false));
    let is_slow = slow.clone();
    let upstream = Upstream::script(move |_| {
        let pause = if is_slow.load(Relaxed) { 500 } else { 2 };
        [vec![Step::Pause(Duration::from_millis(pause))], Answer::ok("done").steps()].concat()
    });
    let config = |rest: &str| {
        format!(
            "listeners: {{ l: {{ address: \"127.0.0.1:{{port}}\" }} }}
upstreams: {{ u: {{ targets: [\"{}\"], adaptive_concurrency: {{ min: 1, max: 900 }}{rest} }} }}
routes: {{ r: {{ match: {{ path: /** }}, auth: public, upstream: u, priority: high }} }}",
            upstream.address()
        )
    };
    let mut gateway = Gateway::start(&config(""));
    let limit = |gateway: &Gateway| gateway.metric("sluice_upstream_concurrency_limit{upstream=\"u\"}");
    let ask = |gateway: &Gateway| {
        std::thread::scope(|scope| {
            for _ in 0..40 {
                scope.spawn(|| {
                    let mut client = gateway.client();
                    (0..3).for_each(|_| drop(client.get("/", &[])));
                });
            }
        });
    };
    eventually("it is known how long an answer takes", || {
        ask(&gateway);
        gateway.status()["upstream_states"]["u"]["concurrency"]["base_ms"].as_f64()
    });
    // It begins at 30.
    slow.store(true, Relaxed);
    eventually("the limit falls", || {
        ask(&gateway);
        (limit(&gateway) <= 26.0).then_some(())
    });
    assert!(gateway.metric("sluice_shed_total{full=\"upstream\",priority=\"high\"}") > 0.0);
    gateway.reload(&config(", timeouts: { idle: 30s }"));
    gateway.stderr_line("reload: 1 routes");
    assert!(limit(&gateway) <= 26.0, "{}", limit(&gateway));
}

#[test]
fn what_an_upstream_cannot_take_goes_where_the_route_falls_back_to() {
    let gate = Gate::default();
    let upstream = waiting(&gate);
    let config = format!(
        "{CALLERS}listeners: {{ l: {{ address: \"127.0.0.1:{{port}}\" }} }}
upstreams: {{ u: {{ targets: [\"{{u}}\"], adaptive_concurrency: {{ max: 5 }}, max_requests: 2, queue: {{ length: 9, wait: 1m }} }} }}\n{}",
        routes(", fallback: { status: 200, body: later }")
    );
    let gateway = Gateway::config(&config).var("u", upstream.address()).start();
    let mut held = hold(&gateway, &upstream, "/vital", 2);
    let mut queued = gateway.client();
    queued.send("GET /vital HTTP/1.1\r\nHost: a\r\n\r\n");
    eventually("it waits", || (gateway.metric_now("sluice_upstream_waiting{upstream=\"u\"}") == 1.0).then_some(()));
    // Who waits counts, too.
    let answer = gateway.get("/", &[]);
    assert_eq!((answer.status, answer.text()), (200, "later"));
    let line = gateway.log_line_where(|line| line["fallback"] == "answer");
    assert_eq!(line["reason"], "u: upstream-saturated: 3 of 2 requests at once at upstream u with priority lowest, 4 in all");
    in_flight(&gateway, 3);
    assert_eq!(gateway.metric_now("sluice_fallbacks_total{route=\"r\",code=\"upstream-saturated\"}"), 1.0);
    gate.open();
    held.push(queued);
    assert!(held.iter_mut().all(|client| client.read().status == 200));
}

#[test]
fn explain_tells_who_goes_first_and_why() {
    let config = format!(
        "{CALLERS}listeners: {{ l: {{ address: \"127.0.0.1:{{port}}\" }} }}
upstreams: {{ u: {{ targets: [\"127.0.0.1:2\"], adaptive_concurrency: {{ max: 50 }} }} }}\n{}",
        routes("")
    );
    let gateway = Gateway::start(&config);
    let file = gateway.file();
    let explain = |request: &str, args: &[&str]| gateway.sluice(&[&["explain", file.to_str().unwrap(), request], args].concat()).stdout;
    let consumer = |name| format!("GET http://a/known|{name}");
    for (request, class, because, share) in [
        ("GET http://a/".to_owned(), "lowest", "nobody knows the caller", "60%"),
        (consumer("second"), "low", "plan free says so", "75%"),
        (consumer("first"), "high", "plan gold says so", "100%"),
        ("GET http://a/plain".to_owned(), "normal", "the route says so", "90%"),
    ] {
        let (request, consumer) = request.split_once('|').map_or((&*request, None), |(request, name)| (request, Some(name)));
        let consumer: Vec<&str> = consumer.into_iter().flat_map(|name| ["--consumer", name]).collect();
        let told: Value = serde_json::from_slice(&explain(request, &[&consumer[..], &["--json"]].concat())).unwrap();
        assert_eq!(told["priority"], json!({ "class": class, "because": because, "share": share }), "{request}");
        assert_eq!(told["guards"], json!(["4 to 50 requests at once, as many as it answers without a queue"]));
        let text = String::from_utf8(explain(request, &consumer)).unwrap();
        assert!(text.contains(&format!("priority   {class}, because {because}: may take {share} of what there is at once")), "{text}");
    }
}

/// An answer can be read before its request counts no more.
fn in_flight(gateway: &Gateway, count: usize) {
    eventually("so many are in flight", || (gateway.metric_now("sluice_requests_in_flight{listener=\"l\"}") == count as f64).then_some(()));
}

#[test]
fn the_process_takes_as_many_at_once_as_it_may() {
    let gate = Gate::default();
    let upstream = waiting(&gate);
    let config = format!(
        "{CALLERS}server: {{ overload: {{ in_flight: 10 }} }}
listeners: {{ l: {{ address: \"127.0.0.1:{{port}}\" }} }}
upstreams: {{ u: {{ targets: [\"{{u}}\"] }} }}\n{}
  fixed: {{ match: {{ path: /fixed }}, auth: public, respond: {{ status: 204 }} }}",
        routes(", fallback: { status: 200, body: later }")
    );
    let gateway = Gateway::config(&config).var("u", upstream.address()).start();
    let refused = |path: &str, headers: &[(&str, &str)], held: usize, reason: &str| {
        in_flight(&gateway, held);
        let answer = gateway.get(path, headers);
        let told = (answer.status, answer.code(), answer.header("retry-after").map(str::to_owned));
        assert_eq!(told, (503, "gateway-overloaded".to_owned(), Some("1".to_owned())), "{path}");
        let line = gateway.log_line_where(|line| line["request_id"] == answer.header("x-request-id").unwrap_or_default());
        assert_eq!((&line["reason"], &line["path"], &line["code"]), (&json!(reason), &json!(path), &json!("gateway-overloaded")), "{line}");
        in_flight(&gateway, held);
        line["priority"].as_str().unwrap_or("any").to_owned()
    };
    let mut held = hold(&gateway, &upstream, "/vital", 6);
    // The request itself counts, and no fallback takes load off the gateway.
    assert_eq!(refused("/", &[], 6, "7 of 6 requests at once with priority lowest"), "lowest");
    assert_eq!(gateway.get("/fixed", &[]).status, 204, "what no upstream is asked for has no class");
    in_flight(&gateway, 6);
    held.extend(hold(&gateway, &upstream, "/idle", 1));
    assert_eq!(refused("/known", &[SECOND], 7, "8 of 7 requests at once with priority low"), "low");
    held.extend(hold(&gateway, &upstream, "/known", 3));
    for path in ["/vital", "/fixed", "/nowhere"] {
        assert_eq!(refused(path, &[], 10, "11 of 10 requests at once"), "any", "{path}");
    }
    for path in ["/livez", "/readyz", "/status"] {
        assert_eq!(get(gateway.admin(), path, &[]).status, 200, "{path}");
    }
    for (priority, count) in [("lowest", 1.0), ("low", 1.0), ("normal", 0.0), ("any", 3.0)] {
        assert_eq!(gateway.metric_now(&format!("sluice_shed_total{{full=\"in_flight\",priority=\"{priority}\"}}")), count, "{priority}");
    }
    assert_eq!(gateway.metric_now("sluice_refusals_total{policy=\"overload\",code=\"gateway-overloaded\"}"), 5.0);
    gate.open();
    assert!(held.iter_mut().all(|client| client.read().status == 200));
    drop(held);
    eventually("it has room again", || (gateway.get("/vital", &[]).status == 200).then_some(()));
}

#[test]
fn with_its_memory_used_up_the_process_takes_fewer_requests_and_says_so() {
    let gate = Gate::default();
    let upstream = waiting(&gate);
    let config = |overload: &str| {
        format!(
            "server: {{ overload: {{ {overload} }} }}
listeners: {{ l: {{ address: \"127.0.0.1:{{port}}\" }} }}
upstreams: {{ u: {{ targets: [\"{}\"] }} }}
routes: {{ r: {{ match: {{ path: /** }}, auth: public, upstream: u }}, f: {{ match: {{ path: /fixed }}, auth: public, respond: {{ status: 204 }} }} }}",
            upstream.address()
        )
    };
    // Whatever it needs at rest, it is more than that.
    let mut gateway = Gateway::start(&config("memory: 32MiB"));
    let resident = gateway.metric("process_resident_memory_bytes");
    assert!(resident > f64::from(32 << 20), "{resident} bytes resident, which this test goes by");
    gateway.stderr_line("more than 32MiB: 1 requests at once are let in");
    assert_eq!(gateway.get("/fixed", &[]).status, 204, "one at a time");
    in_flight(&gateway, 0);
    let mut held = hold(&gateway, &upstream, "/", 1);
    let refused = gateway.get("/fixed", &[]);
    assert_eq!((refused.status, refused.code().as_str(), refused.header("retry-after")), (503, "gateway-overloaded", Some("1")));
    let line = gateway.log_line_where(|line| line["code"] == "gateway-overloaded");
    let reason = line["reason"].as_str().unwrap();
    assert!(reason.starts_with("2 of 1 requests at once, as ") && reason.ends_with(" bytes of memory are used"), "{line}");
    in_flight(&gateway, 1);
    assert_eq!(gateway.metric_now("sluice_shed_total{full=\"memory\",priority=\"any\"}"), 1.0);
    for path in ["/livez", "/readyz", "/status"] {
        assert_eq!(get(gateway.admin(), path, &[]).status, 200, "{path}");
    }
    gateway.reload(&config("memory: 100GiB"));
    gateway.stderr_line("the memory is within its bound again");
    assert_eq!(gateway.get("/fixed", &[]).status, 204, "a reload takes it back");
    gate.open();
    assert!(held.iter_mut().all(|client| client.read().status == 200));
}
