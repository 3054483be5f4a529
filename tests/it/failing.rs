//! Upstreams that fail: who is taken out and comes back, what clients and targets see meanwhile. Real sockets on both sides.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU16, Ordering::Relaxed};
use std::time::Duration;

use serde_json::Value;

use crate::harness::{Answer, Gate, Gateway, Response, Step, Upstream, eventually, nobody};

/// A gateway before these targets, with one worker, so that requests one after the other take turns.
fn config(targets: &[SocketAddr], keys: &str) -> String {
    let targets: Vec<_> = targets.iter().map(|target| format!("\"{target}\"")).collect();
    format!(
        r#"
server: {{ threads: 1 }}
listeners: {{ l: {{ address: "127.0.0.1:{{port}}" }} }}
admin: {{ address: "127.0.0.1:{{admin}}" }}
upstreams: {{ u: {{ targets: [{}], {keys} }} }}
routes: {{ r: {{ match: {{ path: /** }}, auth: public, upstream: u }} }}
"#,
        targets.join(", ")
    )
}

fn start(targets: &[SocketAddr], keys: &str) -> Gateway {
    Gateway::start(&config(targets, keys))
}

/// Answers with a status that the test changes while it runs.
#[derive(Clone)]
struct Mood(Arc<AtomicU16>);

impl Mood {
    fn start(status: u16) -> (Mood, Upstream) {
        let mood = Mood(Arc::new(AtomicU16::new(status)));
        let mine = mood.clone();
        (mood, Upstream::script(move |_| Answer::new(mine.0.load(Relaxed)).steps()))
    }

    fn set(&self, status: u16) {
        self.0.store(status, Relaxed);
    }
}

fn statuses(gateway: &Gateway, count: usize) -> Vec<u16> {
    (0..count).map(|_| gateway.get("/", &[]).status).collect()
}

fn count(statuses: &[u16], wanted: u16) -> usize {
    statuses.iter().filter(|status| **status == wanted).count()
}

/// The causes for which the first address of a target is out.
fn causes(gateway: &Gateway, target: usize) -> Vec<String> {
    let status = gateway.status();
    let causes = status["upstreams"]["u"][target]["addresses"][0]["causes"].as_array().cloned().unwrap_or_default();
    causes.iter().map(|cause| cause["cause"].as_str().unwrap_or_default().to_owned()).collect()
}

/// The place of a target in `/status`, which sorts them.
fn place(gateway: &Gateway, address: SocketAddr) -> usize {
    let status = gateway.status();
    let all = status["upstreams"]["u"].as_array().expect("an upstream has targets").clone();
    all.iter().position(|target| target["address"] == address.to_string()).expect("the target is shown")
}

#[test]
fn a_target_that_nobody_listens_at_is_ejected_after_as_many_failures_as_configured() {
    let (good, gone) = ([Upstream::start(), Upstream::start()], nobody());
    let keys = "retries: { attempts: 1 }, outlier_detection: { connection_failures: 3, gateway_errors: 0, eject_for: 1h }";
    let gateway = start(&[good[0].address(), gone, good[1].address()], keys);
    let seen = statuses(&gateway, 60);
    assert_eq!((count(&seen, 502), count(&seen, 200)), (3, 57), "the clients saw {seen:?}");
    let shares: Vec<_> = good.iter().map(|upstream| upstream.requests().len()).collect();
    assert!(shares.iter().all(|share| (28..=29).contains(share)), "the others share what it would get: {shares:?}");
    let line = gateway.stderr_line("ejected for 3600s");
    assert!(line.contains(&format!("target {gone} ({gone}) is out: ejected for 3600s: 3 attempts in a row without an answer")), "{line}");
    let status = gateway.status();
    let target = &status["upstreams"]["u"][place(&gateway, gone)];
    assert_eq!((&target["healthy"], &target["errors"]["connect_failed"]), (&false.into(), &3.into()), "{target:#}");
    let cause = &target["addresses"][0]["causes"][0];
    assert_eq!((&cause["cause"], target["addresses"][0]["state"].as_str()), (&"ejected".into(), Some("out")), "{target:#}");
    assert!(cause["until"].as_str() > cause["since"].as_str(), "{cause}");
    let series = |name: &str, more: &str| gateway.metric(&format!("{name}{{upstream=\"u\",target=\"{gone}\"{more}}}"));
    assert_eq!(series("sluice_target_out", ",cause=\"ejected\""), 1.0);
    assert_eq!((series("sluice_target_ejections_total", ""), series("sluice_target_healthy", "")), (1.0, 0.0));
}

#[test]
fn an_answer_that_comes_to_its_end_ends_a_row_of_those_that_broke() {
    let start_one = || {
        Upstream::script(|request| match request.target.as_str() {
            "/cut" => vec![Step::Send(b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nab".to_vec()), Step::Close],
            _ => Answer::new(200).steps(),
        })
    };
    let upstreams = [start_one(), start_one()];
    let gateway = start(&upstreams.each_ref().map(Upstream::address), "outlier_detection: { connection_failures: 2, eject_for: 1h }");
    let causes = || [causes(&gateway, 0), causes(&gateway, 1)].concat();
    // The targets take turns. On one connection, what was learnt from an answer is known before the next request.
    for whole in [2, 2, 2, 2, 2, 2, 0, 0, 0] {
        let mut client = gateway.client();
        for _ in 0..whole {
            assert_eq!(client.get("/", &[]).status, 200);
        }
        client.try_request("GET", "/cut", &[], b"").expect_err("it breaks off");
        if whole > 0 {
            assert!(causes().is_empty(), "{:?}", causes());
        }
    }
    gateway.stderr_line("2 attempts in a row without an answer");
    eventually("one is out", || (causes() == ["ejected"]).then_some(()));
}

#[test]
fn a_target_that_answers_502_to_504_or_500_is_ejected_as_configured() {
    for (status, keys, most) in [(503, "gateway_errors: 2", 2), (500, "server_errors: 4, gateway_errors: 0", 4)] {
        let (bad, good) = (Upstream::answering(Answer::new(status)), Upstream::start());
        let gateway = start(&[bad.address(), good.address()], &format!("outlier_detection: {{ {keys}, eject_for: 1h }}"));
        let seen = statuses(&gateway, 30);
        assert_eq!((count(&seen, status), bad.requests().len()), (most, most), "{keys}: {seen:?}");
        assert_eq!(count(&seen, 200), 30 - most);
    }
}

#[test]
fn each_ejection_is_longer_than_the_one_before_up_to_the_longest() {
    let (good, gone) = (Upstream::start(), nobody());
    let keys = "outlier_detection: { connection_failures: 1, eject_for: 200ms, eject_at_most: 300ms }";
    let gateway = start(&[good.address(), gone], keys);
    let said = |text: &str| {
        eventually(text, || {
            // A second attempt goes to the target that works.
            assert_eq!(gateway.get("/", &[]).status, 200);
            gateway.stderr().contains(text).then_some(())
        });
    };
    said("ejected for 200ms");
    said("is back: its ejection is over");
    said("ejected for 300ms");
}

#[test]
fn no_more_is_ejected_than_configured_and_never_the_last_one() {
    let targets = [nobody(), nobody(), nobody(), nobody()];
    let keys = |more: &str| format!("outlier_detection: {{ connection_failures: 1, eject_for: 1h{more} }}, retries: {{ attempts: 1 }}");
    let gateway = start(&targets, &keys(""));
    let seen = statuses(&gateway, 40);
    assert_eq!(count(&seen, 502), 40, "{seen:?}");
    let out = |gateway: &Gateway| (0..4).filter(|target| !causes(gateway, *target).is_empty()).count();
    assert_eq!(out(&gateway), 2, "half of four");
    gateway.stderr_line("is not ejected, 2 of 4 are");
    assert!(gateway.metric("sluice_upstream_spared_total{upstream=\"u\"}") > 0.0);

    let gateway = start(&targets, &keys(", max_ejected: 100%"));
    let last = eventually("all are out", || Some(gateway.get("/", &[])).filter(|answer| answer.status == 503));
    assert_eq!(last.code(), "no-healthy-target");
    assert_eq!(out(&gateway), 4);
    let line = gateway.log_line_where(|line| line["status"] == 503);
    assert_eq!(line["reason"], "no usable address among 4: 4 ejected");

    let gateway = start(&targets[..1], &keys(""));
    assert_eq!(count(&statuses(&gateway, 10), 502), 10, "the only one is never ejected");
}

#[test]
fn a_target_that_fails_more_than_the_others_is_found_by_comparison() {
    let good = [Upstream::start(), Upstream::start()];
    let odd = Upstream::script(|request| match request.index.max(request.connection) % 10 {
        0 => Answer::new(500).steps(),
        _ => Answer::ok("fine").steps(),
    });
    let keys = "outlier_detection: { success_rate: { points: 5, min_requests: 10 }, every: 1s, eject_for: 1h }";
    let gateway = start(&[good[0].address(), odd.address(), good[1].address()], keys);
    let mut client = gateway.client();
    // They are compared every second, wherever that falls: until there have been enough in one, and never as many as would be without the key.
    let mut seen = Vec::new();
    let line = eventually("it is found out", || {
        seen.push(client.get("/", &[]).status);
        gateway.stderr().lines().find(|line| line.contains("requests went well")).map(str::to_owned)
    });
    assert!((1..=4 + seen.len() / 20).contains(&count(&seen, 500)), "{seen:?}");
    assert!(line.contains(&format!("target {} ", odd.address())) && line.contains(" requests went well, 100% at the others"), "{line}");
    let before = odd.requests().len();
    assert_eq!(count(&statuses(&gateway, 20), 200), 20);
    assert_eq!(odd.requests().len(), before, "it gets nothing more");
}

#[test]
fn a_target_that_is_slower_than_the_others_is_found_by_comparison() {
    let good = [Upstream::start(), Upstream::start()];
    // Less than would be slow without the key.
    let slow = Upstream::script(|_| [vec![Step::Pause(Duration::from_millis(30))], Answer::ok("late").steps()].concat());
    let keys = "outlier_detection: { latency: { times: 2, above: 15ms, min_requests: 5 }, every: 1s, eject_for: 1h }";
    let gateway = start(&[good[0].address(), slow.address(), good[1].address()], keys);
    let mut client = gateway.client();
    let line = eventually("it is ejected", || {
        (0..60).for_each(|_| assert_eq!(client.get("/", &[]).status, 200));
        gateway.stderr().lines().find(|line| line.contains("answers take")).map(str::to_owned)
    });
    assert!(line.contains(&format!("target {} ", slow.address())), "{line}");
    let status = gateway.status();
    let target = &status["upstreams"]["u"][place(&gateway, slow.address())];
    assert!(target["latency"]["p50_ms"].as_f64() > Some(25.0), "{target:#}");
}

#[test]
fn where_too_many_are_out_all_are_used() {
    let poor =
        || Upstream::script(|request| if request.target == "/healthz" { Answer::new(500).steps() } else { Answer::ok("fine").steps() });
    let targets = [poor(), poor()];
    let addresses: Vec<_> = targets.iter().map(Upstream::address).collect();
    let gateway = start(&addresses, "health: { path: /healthz, every: 1h }, panic_threshold: 60%");
    gateway.stderr_line("addresses are sound, less than 60%: all are used");
    eventually("both are out", || (gateway.stderr().matches("is out: answered 500").count() == 2).then_some(()));
    assert_eq!(count(&statuses(&gateway, 10), 200), 10);
    assert_eq!(gateway.metric("sluice_upstream_panic{upstream=\"u\"}"), 1.0);
    assert_eq!(gateway.status()["upstream_states"]["u"]["panic"], true);
    assert_eq!(causes(&gateway, 0), ["check"], "what is known of them is shown all the same");
    let both = targets.iter().map(|target| target.requests().iter().filter(|request| request.target == "/").count());
    assert_eq!(both.collect::<Vec<_>>(), [5, 5]);
}

fn circuit(answer: &Response) -> (u16, &str) {
    (answer.status, answer.header("retry-after").unwrap_or_default())
}

#[test]
fn a_circuit_opens_answers_at_once_probes_and_closes() {
    let (mood, upstream) = Mood::start(500);
    let keys = "circuit_breaker: { of: upstream, window: 20s, min_requests: 4, failures: 75%, open_for: 300ms, probes: 1 }";
    let gateway = start(&[upstream.address()], keys);
    mood.set(200);
    assert_eq!(statuses(&gateway, 1), [200]);
    mood.set(500);
    assert_eq!(statuses(&gateway, 3), [500; 3]);
    gateway.stderr_line("upstream u: circuit open for 300ms: 75% of 4 requests in 20s failed");
    // Whoever finds it half open, on a machine that is slow, opens it again.
    let mut reached = upstream.requests().len();
    let refused = eventually("it is open", || {
        let answer = gateway.get("/", &[]);
        reached += usize::from(answer.status == 500);
        (answer.status != 500).then_some(answer)
    });
    assert_eq!((circuit(&refused), refused.code().as_str()), ((503, "1"), "circuit-open"));
    assert_eq!(upstream.requests().len(), reached, "nothing reaches it");
    let state = gateway.status()["upstream_states"]["u"].clone();
    assert!(
        state["circuit"] == "open" && state["reason"].as_str().is_some_and(|reason| reason.starts_with("75%"))
            || state["circuit"] == "half_open",
        "{state}"
    );
    gateway.stderr_line("upstream u: circuit half open, 1 probes");
    // The first request finds out that it still fails.
    eventually("a probe", || Some(gateway.get("/", &[]).status).filter(|status| *status == 500));
    gateway.stderr_line("upstream u: circuit open for 300ms: a probe failed");
    mood.set(200);
    eventually("a probe that goes well", || Some(gateway.get("/", &[]).status).filter(|status| *status == 200));
    gateway.stderr_line("upstream u: circuit closed");
    assert_eq!(statuses(&gateway, 10), [200; 10]);
    assert!(!gateway.stderr().contains("upstream u: target"), "no circuit of a target was asked for: {}", gateway.stderr());
    assert!(gateway.metric("sluice_circuit_opened_total{upstream=\"u\"}") >= 2.0);
    assert_eq!(gateway.metric("sluice_circuit_open{upstream=\"u\"}"), 0.0);
    assert!(gateway.metric("sluice_refusals_total{policy=\"relay\",code=\"circuit-open\"}") >= 1.0);
}

#[test]
fn the_circuit_of_a_target_leaves_the_others_alone() {
    let (bad, good) = (Upstream::script(|_| vec![Step::Reset]), Upstream::start());
    let keys = "retries: { attempts: 1 }, circuit_breaker: { of: target, min_requests: 2, open_for: 1h }";
    let gateway = start(&[bad.address(), good.address()], keys);
    let seen = statuses(&gateway, 40);
    assert_eq!((count(&seen, 502), count(&seen, 200)), (2, 38), "{seen:?}");
    assert_eq!(causes(&gateway, place(&gateway, bad.address())), ["circuit"]);
    gateway.stderr_line(&format!("target {} ({}) is out: circuit open for 3600s: 100% of 2 requests", bad.address(), bad.address()));
    assert!(!gateway.stderr().contains("upstream u: circuit"), "{}", gateway.stderr());
    assert_eq!(gateway.metric(&format!("sluice_target_circuit_opened_total{{upstream=\"u\",target=\"{}\"}}", bad.address())), 1.0);

    // Where it is the only one, the answer is that of an open circuit.
    let gateway = start(&[bad.address()], keys);
    statuses(&gateway, 2);
    let refused = gateway.get("/", &[]);
    assert_eq!((circuit(&refused).0, refused.code().as_str()), (503, "circuit-open"));
    assert_eq!(refused.header("retry-after"), Some("3600"));
}

#[test]
fn answers_that_are_slow_open_a_circuit_too() {
    let upstream = Upstream::script(|request| match request.target.as_str() {
        "/slow" => [vec![Step::Pause(Duration::from_millis(60))], Answer::ok("late").steps()].concat(),
        _ => Answer::ok("fine").steps(),
    });
    let keys = "circuit_breaker: { of: upstream, min_requests: 4, slow: { after: 40ms, share: 25% }, open_for: 1h }";
    let gateway = start(&[upstream.address()], keys);
    assert_eq!(statuses(&gateway, 3), [200; 3]);
    assert_eq!(gateway.get("/slow", &[]).status, 200);
    assert_eq!(gateway.get("/", &[]).code(), "circuit-open");
    gateway.stderr_line("took more than 40ms");
    assert_eq!(gateway.metric("sluice_circuit_open{upstream=\"u\"}"), 1.0);
}

#[test]
fn half_open_so_many_requests_as_configured_find_out_and_no_more() {
    let gate = Gate::default();
    let (held, mood) = (gate.clone(), Arc::new(AtomicU16::new(500)));
    let mine = mood.clone();
    let upstream = Upstream::script(move |_| match mine.load(Relaxed) {
        500 => Answer::new(500).steps(),
        _ => [vec![Step::WaitFor(held.clone())], Answer::ok("fine").steps()].concat(),
    });
    let keys = "circuit_breaker: { of: upstream, min_requests: 1, open_for: 100ms, probes: 2 }";
    let gateway = start(&[upstream.address()], keys);
    assert_eq!(statuses(&gateway, 1), [500]);
    mood.store(200, Relaxed);
    gateway.stderr_line("circuit half open, 2 probes");
    let before = upstream.connections();
    std::thread::scope(|scope| {
        let all: Vec<_> = (0..8).map(|_| scope.spawn(|| gateway.get("/", &[]).status)).collect();
        // The refusals come while both probes are held.
        let refused = || gateway.log().iter().filter(|line| line["code"] == "circuit-open").count();
        eventually("six refusals", || Some(refused()).filter(|count| *count == 6));
        assert!(upstream.connections() - before <= 2, "two probes reached it");
        gate.open();
        let seen: Vec<_> = all.into_iter().map(|one| one.join().unwrap()).collect();
        assert_eq!((count(&seen, 200), count(&seen, 503)), (2, 6), "{seen:?}");
    });
    gateway.stderr_line("circuit closed");
    assert_eq!(statuses(&gateway, 5), [200; 5]);
}

#[test]
fn an_upstream_has_as_many_requests_as_configured_the_others_wait_their_turn_or_are_refused() {
    let gate = Gate::default();
    let held = gate.clone();
    let upstream = Upstream::script(move |_| [vec![Step::WaitFor(held.clone())], Answer::ok("fine").steps()].concat());
    let gateway = start(&[upstream.address()], "max_requests: 1, queue: { length: 1, wait: 1m }");
    std::thread::scope(|scope| {
        let first = scope.spawn(|| gateway.get("/first", &[]).status);
        eventually("the first is there", || (upstream.connections() == 1).then_some(()));
        let second = scope.spawn(|| gateway.get("/second", &[]).status);
        eventually("the second waits", || (gateway.metric_now("sluice_upstream_waiting{upstream=\"u\"}") == 1.0).then_some(()));
        assert_eq!(gateway.status_now()["upstream_states"]["u"]["waiting"], 1);
        let third = gateway.get("/third", &[]);
        assert_eq!((third.code().as_str(), circuit(&third)), ("upstream-overloaded", (503, "1")));
        assert_eq!(upstream.connections(), 1, "the target never had two at once");
        gate.open();
        assert_eq!((first.join().unwrap(), second.join().unwrap()), (200, 200));
    });
    let line = gateway.log_line_where(|line| line["path"] == "/second");
    assert!(line["waited_us"].as_u64() > Some(0), "{line}");
    let line = gateway.log_line_where(|line| line["path"] == "/third");
    assert_eq!(line["reason"], "1 requests at once, and the queue is full");
}

#[test]
fn an_upstream_has_as_many_connections_as_configured_the_others_wait_for_one_or_are_refused() {
    let gate = Gate::default();
    let held = gate.clone();
    let upstream = Upstream::script(move |_| [vec![Step::WaitFor(held.clone())], Answer::ok("fine").steps()].concat());
    let gateway = start(&[upstream.address()], "max_connections: 1, queue: { length: 1, wait: 1m }");
    let figure = |name: &str| gateway.metric_now(&format!("sluice_upstream_{name}{{upstream=\"u\"}}"));
    std::thread::scope(|scope| {
        let first = scope.spawn(|| gateway.get("/first", &[]).status);
        eventually("the first is there", || (upstream.connections() == 1).then_some(()));
        let second = scope.spawn(|| gateway.get("/second", &[]).status);
        eventually("the second waits", || (figure("waiting") == 1.0).then_some(()));
        let third = gateway.get("/third", &[]);
        assert_eq!((third.code().as_str(), circuit(&third)), ("upstream-overloaded", (503, "1")));
        gate.open();
        assert_eq!((first.join().unwrap(), second.join().unwrap()), (200, 200));
    });
    assert_eq!(statuses(&gateway, 5), [200; 5]);
    assert_eq!(upstream.connections(), 1, "all went over the same one");
    gateway.metrics();
    assert_eq!((figure("connections_open"), figure("connections_over_total"), figure("waiting")), (1.0, 0.0, 0.0));
    assert_eq!(gateway.status()["upstream_states"]["u"]["connections"], 1);
    let line = gateway.log_line_where(|line| line["path"] == "/second");
    assert!(line["waited_us"].as_u64() > Some(0), "{line}");
    let line = gateway.log_line_where(|line| line["path"] == "/third");
    assert_eq!(line["reason"], "1 connections are open, and the queue is full");
}

#[test]
fn a_connection_above_the_number_is_opened_only_where_there_is_none_and_who_waits_too_long_is_refused() {
    let gate = Gate::default();
    let make = || {
        let held = gate.clone();
        Upstream::script(move |request| match request.target.as_str() {
            "/held" => [vec![Step::WaitFor(held.clone())], Answer::ok("late").steps()].concat(),
            _ => Answer::ok("fine").steps(),
        })
    };
    let both = [make(), make()];
    let keys = "retries: { attempts: 1 }, max_connections: 1, queue: { length: 9, wait: 150ms }";
    let gateway = start(&[both[0].address(), both[1].address()], keys);
    let open = || both.each_ref().map(Upstream::connections);
    std::thread::scope(|scope| {
        let held: Vec<_> = (0..2)
            .map(|n| {
                let one = scope.spawn(|| gateway.get("/held", &[]).status);
                eventually("it is there", || (open().iter().sum::<usize>() == n + 1).then_some(()));
                one
            })
            .collect();
        assert_eq!(open(), [1, 1], "the second address had none");
        for _ in 0..2 {
            let late = gateway.get("/late", &[]);
            assert_eq!((late.code().as_str(), circuit(&late)), ("upstream-overloaded", (503, "1")));
        }
        assert_eq!(gateway.log_line_where(|line| line["path"] == "/late")["reason"], "1 connections are open, and waited 150ms");
        gate.open();
        assert_eq!(held.into_iter().map(|one| one.join().unwrap()).collect::<Vec<_>>(), [200, 200]);
    });
    assert_eq!(statuses(&gateway, 6), [200; 6]);
    assert_eq!(open(), [1, 1]);
    assert_eq!(gateway.metric("sluice_upstream_connections_over_total{upstream=\"u\"}"), 1.0);
}

#[test]
fn connections_that_are_not_kept_are_waited_for_and_a_fallback_takes_what_finds_none() {
    let gate = Gate::default();
    let held = gate.clone();
    let upstream = Upstream::script(move |_| [vec![Step::WaitFor(held.clone())], Answer::ok("fine").steps()].concat());
    let spare = Upstream::answering(Answer::ok("spare"));
    let text = config(&[upstream.address()], "max_connections: 1, pool: { idle: 0s }, queue: { length: 1, wait: 1m }")
        .replace("upstreams: {", &format!("upstreams: {{ spare: {{ targets: [\"{}\"] }},", spare.address()))
        .replace("upstream: u }", "upstream: u, fallback: { upstream: spare } }");
    let gateway = Gateway::start(&text);
    std::thread::scope(|scope| {
        let first = scope.spawn(|| gateway.get("/", &[]).text().to_owned());
        eventually("the first is there", || (upstream.connections() == 1).then_some(()));
        let second = scope.spawn(|| gateway.get("/", &[]).text().to_owned());
        eventually("the second waits", || (gateway.metric_now("sluice_upstream_waiting{upstream=\"u\"}") == 1.0).then_some(()));
        assert_eq!(gateway.get("/third", &[]).text(), "spare");
        assert_eq!(upstream.connections(), 1);
        gate.open();
        assert_eq!((first.join().unwrap().as_str(), second.join().unwrap().as_str()), ("fine", "fine"));
    });
    assert_eq!(upstream.connections(), 2);
    let open = || gateway.metric("sluice_upstream_connections_open{upstream=\"u\"}");
    eventually("none is open", || (open() == 0.0).then_some(()));
    let line = gateway.log_line_where(|line| line["path"] == "/third");
    assert_eq!(line["reason"], "u: upstream-overloaded: 1 connections are open, and the queue is full", "{line}");
}

#[test]
fn who_waits_too_long_for_an_upstream_is_refused_and_who_leaves_makes_room() {
    let gate = Gate::default();
    let held = gate.clone();
    let upstream = Upstream::script(move |_| [vec![Step::WaitFor(held.clone())], Answer::ok("fine").steps()].concat());
    let gateway = start(&[upstream.address()], "max_requests: 1, queue: { length: 9, wait: 150ms }");
    let waiting = || gateway.metric_now("sluice_upstream_waiting{upstream=\"u\"}");
    std::thread::scope(|scope| {
        let first = scope.spawn(|| gateway.get("/first", &[]).status);
        eventually("the first is there", || (upstream.connections() == 1).then_some(()));
        let late = gateway.get("/late", &[]);
        assert_eq!((late.status, late.code().as_str()), (503, "upstream-overloaded"));
        assert_eq!(gateway.log_line_where(|line| line["path"] == "/late")["reason"], "1 requests at once, and waited 150ms");
        eventually("nobody waits", || (waiting() == 0.0).then_some(()));
        gate.open();
        assert_eq!(first.join().unwrap(), 200);
    });
    assert_eq!(statuses(&gateway, 3), [200; 3]);
}

#[test]
fn a_client_that_leaves_the_queue_gives_its_place_up() {
    let gate = Gate::default();
    let held = gate.clone();
    let upstream = Upstream::script(move |_| [vec![Step::WaitFor(held.clone())], Answer::ok("fine").steps()].concat());
    let gateway = start(&[upstream.address()], "max_requests: 1, queue: { length: 1, wait: 1m }");
    let waiting = || gateway.metric_now("sluice_upstream_waiting{upstream=\"u\"}");
    std::thread::scope(|scope| {
        let first = scope.spawn(|| gateway.get("/first", &[]).status);
        eventually("the first is there", || (upstream.connections() == 1).then_some(()));
        let mut leaving = gateway.client();
        leaving.send(b"GET /gone HTTP/1.1\r\nHost: a\r\n\r\n");
        eventually("it waits", || (waiting() == 1.0).then_some(()));
        drop(leaving);
        eventually("it is gone", || (waiting() == 0.0).then_some(()));
        assert_eq!(gateway.log_line_where(|line| line["path"] == "/gone")["code"], "client-gone");
        gate.open();
        assert_eq!(first.join().unwrap(), 200);
    });
    assert!(upstream.requests().iter().all(|request| request.target != "/gone"));
}

#[test]
fn what_hangs_waits_or_is_full_at_one_upstream_holds_up_no_other() {
    let gate = Gate::default();
    let held = gate.clone();
    let stuck = Upstream::script(move |_| [vec![Step::WaitFor(held.clone())], Answer::ok("late").steps()].concat());
    let well = Upstream::answering(Answer::ok("fine"));
    let text = config(&[well.address()], "max_requests: 50, max_connections: 50, queue: { length: 10 }")
        .replace("upstreams: {", &format!("upstreams: {{ stuck: {{ targets: [\"{}\"], max_requests: 20, max_connections: 10, queue: {{ length: 20, wait: 5m }}, timeouts: {{ response: 5m }} }},", stuck.address()))
        .replace("routes: {", "routes: { s: { match: { path: /stuck }, auth: public, upstream: stuck },");
    // One worker: whatever it waited for, everybody would wait for.
    let gateway = Gateway::start(&text);
    let mut clients: Vec<_> = (0..45).map(|_| gateway.client()).collect();
    for client in &mut clients {
        client.send("GET /stuck HTTP/1.1\r\nHost: a\r\n\r\n");
    }
    // Ten have a connection, ten wait for one, twenty to be let in, five are refused.
    eventually("all of them wait somewhere", || {
        let refused = gateway.metric_now("sluice_refusals_total{policy=\"relay\",code=\"upstream-overloaded\"}");
        (refused == 5.0 && stuck.connections() == 10 && gateway.metric_now("sluice_upstream_waiting{upstream=\"stuck\"}") == 30.0)
            .then_some(())
    });
    assert_eq!(statuses(&gateway, 100), [200; 100]);
    assert_eq!(well.connections(), 1);
    gate.open();
    let answers: Vec<_> = clients.iter_mut().map(|client| client.read().status).collect();
    assert_eq!((count(&answers, 200), count(&answers, 503)), (40, 5));
    assert_eq!(stuck.connections(), 10);
}

#[test]
fn a_reload_keeps_who_is_out_and_what_is_configured_no_more_brings_back() {
    let (gone, good) = (nobody(), Upstream::start());
    let addresses = [gone, good.address()];
    let keys = "retries: { attempts: 1 }, outlier_detection: { connection_failures: 1, eject_for: 1h }";
    let mut gateway = start(&addresses, keys);
    assert_eq!(count(&statuses(&gateway, 10), 502), 1);
    gateway.reload(&config(&addresses, &format!("{keys}, timeouts: {{ idle: 30s }}")));
    gateway.stderr_line("reload: 1 routes");
    assert_eq!(count(&statuses(&gateway, 10), 200), 10, "it is out as before");
    gateway.reload(&config(&addresses, "retries: { attempts: 1 }"));
    eventually("nobody would bring it back, so it is back", || causes(&gateway, place(&gateway, gone)).is_empty().then_some(()));
    assert_eq!(count(&statuses(&gateway, 10), 502), 5);
}

#[test]
fn explain_tells_what_guards_an_upstream() {
    let gateway = start(
        &[nobody(), nobody()],
        "outlier_detection: {}, circuit_breaker: { slow: { after: 2s } }, panic_threshold: 40%, max_requests: 50, queue: { length: 10 }",
    );
    let file = gateway.file();
    let args = ["explain", file.to_str().unwrap(), "GET http://a/"];
    let told: Value = serde_json::from_slice(&gateway.sluice(&[&args[..], &["--json"]].concat()).stdout).unwrap();
    let expected = [
        "an address is ejected for 30s to 5m after 5 attempts without an answer in a row, 5 gateway errors in a row; at most 50% at once",
        "circuit of the upstream and of each address: open for 5s when 50% of at least 20 requests in 10s fail or 80% take more than 2s; closed after 3 good probes",
        "all addresses are used when less than 40% are sound",
        "50 requests at once; 10 more wait up to 1s",
    ];
    assert_eq!(told["guards"], serde_json::json!(expected));
    let text = String::from_utf8(gateway.sluice(&args).stdout).unwrap();
    assert!(text.contains("guards     an address is ejected"), "{text}");
}
