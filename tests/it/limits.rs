//! Limits as a client meets them: quotas through restarts and upgrades, windows, and what is told of them.

use rustix::process::Signal;
use serde_json::json;
use sluice::policy::api_key::hash_key;

use super::harness::http2::{Http2, get_fields};
use super::harness::*;

/// One route with a quota of the month, and a state folder that outlives the process.
fn monthly(state: &std::path::Path) -> String {
    format!(
        r#"
server: {{ threads: 1, settle: 0s, state: "{}" }}
listeners: {{ public: {{ address: "127.0.0.1:{{port}}" }} }}
limits:
  monthly: {{ quota: 3/month, time_zone: Europe/Berlin, by: ["header:x-caller", client_ip] }}
  burst: {{ rate: 100/s, by: [global] }}
routes:
  counted: {{ match: {{ path: /counted }}, auth: public, limits: [monthly, burst], respond: {{ status: 204 }} }}
"#,
        state.display()
    )
}

fn calls(gateway: &Gateway, caller: &str, count: usize) -> Vec<u16> {
    let mut client = gateway.client();
    (0..count).map(|_| client.get("/counted", &[("x-caller", caller)]).status).collect()
}

#[test]
fn a_quota_goes_on_after_a_restart_and_an_upgrade_and_is_a_refusal_of_its_own() {
    let folder = tempfile::tempdir().unwrap();
    let text = monthly(&folder.path().join("state"));
    let mut gateway = Gateway::config(&text).own_program().start();
    let first = gateway.get("/counted", &[("x-caller", "a")]);
    let policy = first.header("ratelimit-policy").unwrap().to_owned();
    assert!(policy.contains("\"monthly\";q=3;w=") && policy.contains("\"burst\";q=100;w=1"), "{policy}");
    assert_eq!(first.header("x-ratelimit-remaining"), Some("2"));
    assert_eq!(calls(&gateway, "b", 1), [204]);
    assert!(gateway.stop().success());

    // Another process, which has nothing but the folder.
    let mut gateway = Gateway::config(&text).own_program().start();
    assert_eq!(calls(&gateway, "a", 1), [204]);
    gateway.signal(Signal::USR2);
    gateway.wait_for_first_process();
    let mut client = gateway.client();
    assert_eq!(client.get("/counted", &[("x-caller", "a")]).status, 204);
    let refused = client.get("/counted", &[("x-caller", "a")]);
    assert_eq!((refused.status, refused.code().as_str()), (429, "quota-exceeded"));
    let wait: u64 = refused.header("retry-after").unwrap().parse().unwrap();
    assert!((1..=31 * 86_400 + 3600).contains(&wait), "{wait}");
    assert_eq!(refused.json()["limit"], "monthly");
    let line = gateway.log_line_where(|line| line["status"] == 429);
    assert_eq!((&line["code"], &line["limit"], &line["key"]), (&json!("quota-exceeded"), &json!("monthly"), &json!("header")));
    // Whoever was there before the restart is still known; who is new is not counted against.
    assert_eq!((calls(&gateway, "b", 3), calls(&gateway, "c", 4)), (vec![204, 204, 429], vec![204, 204, 204, 429]));
}

#[test]
fn a_process_that_is_killed_has_kept_what_it_counted_some_seconds_before() {
    let folder = tempfile::tempdir().unwrap();
    let state = folder.path().join("state");
    let text = monthly(&state);
    let mut gateway = Gateway::start(&text);
    assert_eq!(calls(&gateway, "a", 2), [204, 204]);
    let kept = || std::fs::read(state.join("quotas")).ok();
    let first = eventually("the counts in their file", || kept().filter(|bytes| bytes.len() > 80));
    // It may have been written between the two; once another caller is in it, both are.
    assert_eq!(calls(&gateway, "b", 1), [204]);
    eventually("another caller in it", || kept().filter(|bytes| bytes.len() > first.len()));
    gateway.signal(Signal::KILL);
    gateway.wait_for_exit();
    // A file that somebody has damaged is told, and is not believed.
    let good = kept().unwrap();
    let gateway = Gateway::start(&text);
    assert_eq!(calls(&gateway, "a", 2), [204, 429]);
    drop(gateway);
    let mut bad = good;
    bad[40] ^= 1;
    std::fs::write(state.join("quotas"), bad).unwrap();
    let gateway = Gateway::start(&text);
    gateway.stderr_line("quotas start anew");
    assert_eq!(calls(&gateway, "a", 1), [204]);
}

/// A route with a limit, before an upstream that answers `/held` when the gate is open, and the rest at once.
fn before(limit: &str) -> (Gateway, Gate) {
    let gate = Gate::new();
    let held = gate.clone();
    let upstream = Upstream::script(move |request| {
        let mut steps = vec![Step::ReadBody];
        if request.target.starts_with("/held") {
            steps.push(Step::WaitFor(held.clone()));
        }
        steps.extend(Answer::ok("done").steps());
        steps
    });
    let text = format!(
        "server: {{ threads: 2, settle: 0s }}\nlisteners: {{ public: {{ address: \"127.0.0.1:{{port}}\", protocols: [http1, http2] }} }}\n\
         admin: {{ address: \"127.0.0.1:{{admin}}\" }}\nlimits: {{ one: {{ {limit} }} }}\nupstreams: {{ u: {{ targets: [\"{}\"] }} }}\n\
         routes: {{ r: {{ match: {{ path: /** }}, auth: public, limits: [one], upstream: u }} }}\n",
        upstream.address()
    );
    let gateway = Gateway::start(&text);
    // It lives as long as the test.
    std::mem::forget(upstream);
    (gateway, gate)
}

fn waits_for(gateway: &Gateway, series: &str, count: f64) {
    eventually(series, || (gateway.metric_now(series) == count).then_some(()));
}

const HELD: &str = "sluice_limit_held{limit=\"one\"}";
const WAITING: &str = "sluice_limit_waiting{limit=\"one\"}";

#[test]
fn places_are_taken_by_requests_at_once_and_come_back_whatever_ends_them() {
    let (gateway, gate) = before("concurrent: 2, by: [client_ip]");
    let ask = |path: &str| {
        let mut client = gateway.client();
        client.send(format!("GET {path} HTTP/1.1\r\nhost: h\r\n\r\n"));
        client
    };
    let (mut one, two) = (ask("/held/1"), ask("/held/2"));
    waits_for(&gateway, HELD, 2.0);
    let refused = gateway.get("/third", &[]);
    assert_eq!((refused.status, refused.code().as_str(), refused.header("retry-after")), (429, "concurrency-limited", Some("1")));
    assert_eq!((&refused.json()["limit"], &refused.json()["key"]), (&json!("one"), &json!("client_ip")));
    let line = gateway.log_line_where(|line| line["status"] == 429);
    assert_eq!((&line["code"], &line["limit"], &line["key"]), (&json!("concurrency-limited"), &json!("one"), &json!("client_ip")));
    waits_for(&gateway, "sluice_limited_total{limit=\"one\",key=\"client_ip\"}", 1.0);
    // Its client leaves.
    two.reset();
    waits_for(&gateway, HELD, 1.0);
    assert_eq!(gateway.get("/third", &[]).status, 200);
    // A stream of HTTP/2 is reset, and one whose whole connection goes.
    for whole in [false, true] {
        let mut client = Http2::connect(gateway.address());
        client.ask(1, &get_fields("/held/h2", &[]));
        waits_for(&gateway, HELD, 2.0);
        if !whole {
            client.reset(1, 8);
            waits_for(&gateway, HELD, 1.0);
        }
        drop(client);
        waits_for(&gateway, HELD, 1.0);
    }
    gate.open();
    assert_eq!(one.read().status, 200);
    // A client that has its answer has its place again: one after the other on many connections, with one place in use at a time.
    waits_for(&gateway, HELD, 0.0);
    let mut clients: Vec<_> = (0..20).map(|_| gateway.client()).collect();
    assert!((0..10).all(|_| clients.iter_mut().all(|client| client.get("/quick", &[]).status == 200)));
    assert_eq!(gateway.metric("sluice_limited_total{limit=\"one\",key=\"client_ip\"}"), 1.0);
}

#[test]
fn an_upstream_has_so_many_requests_at_once_whichever_way_and_caller_they_are_of() {
    let gate = Gate::new();
    let held = gate.clone();
    let upstream = Upstream::script(move |request| {
        let wait = request.target.starts_with("/held").then(|| Step::WaitFor(held.clone()));
        [Step::ReadBody].into_iter().chain(wait).chain(Answer::ok("done").steps()).collect()
    });
    let text = r#"
server: { threads: 2, settle: 0s }
listeners: { public: { address: "127.0.0.1:{port}" } }
admin: { address: "127.0.0.1:{admin}" }
authenticators: { keys: { api_key: { header: x-api-key } } }
consumers:
  acme: { keys: [{ sha256: "{acme}" }], tags: { version: v1 } }
  beta: { keys: [{ sha256: "{beta}" }], tags: { version: v2 } }
limits:
  slots: { concurrent: 2, by: [global], per: upstream }
  tokens: { rate: 100/h, by: [global], per: upstream }
upstreams: { old: { targets: ["{up}"] }, new: { targets: ["{up}"] } }
defaults: { limits: [slots, tokens] }
routes:
  by-key: { match: { path: /** }, auth: [keys], upstream: { by: consumer.tags.version, v2: new, default: old } }
  open: { match: { path: /held/open/** }, auth: public, upstream: old }
  own: { match: { path: /own }, auth: public, respond: { status: 204 } }
"#;
    let hash = |key: &str| hash_key(key.as_bytes()).iter().map(|byte| format!("{byte:02x}")).collect::<String>();
    let gateway = Gateway::config(text).var("up", upstream.address()).var("acme", hash("a")).var("beta", hash("b")).start();
    let ask = |path: &str, key: &str| {
        let mut client = gateway.client();
        client.send(format!("GET {path} HTTP/1.1\r\nhost: h\r\nx-api-key: {key}\r\n\r\n"));
        client
    };
    let held_at = |upstream: &str| format!("sluice_limit_upstream_held{{limit=\"slots\",upstream=\"{upstream}\"}}");
    // One by its key, one by a public route: both at the same upstream.
    let (mut one, mut two) = (ask("/held/1", "a"), ask("/held/open/2", ""));
    waits_for(&gateway, &held_at("old"), 2.0);
    for (path, key) in [("/quick", "a"), ("/held/open/3", "")] {
        let refused = gateway.get(path, &[("x-api-key", key)]);
        assert_eq!((refused.status, refused.code().as_str()), (429, "concurrency-limited"));
        assert!(!refused.text().contains("old"), "clients are not told of upstreams: {}", refused.text());
    }
    let line = gateway.log_line_where(|line| line["status"] == 429);
    assert_eq!(line["reason"], "limit `slots` of 2 at once by global: all of them are on their way to `old`");
    waits_for(&gateway, "sluice_limit_upstream_refused_total{limit=\"slots\",upstream=\"old\"}", 2.0);
    // The other upstream has places and tokens of its own, and what answers by itself needs none.
    let other = gateway.get("/quick", &[("x-api-key", "b")]);
    assert_eq!((other.status, other.header("x-ratelimit-remaining")), (200, Some("99")), "a refusal costs no token");
    assert_eq!(gateway.get("/own", &[]).status, 204);
    let mut three = ask("/held/3", "b");
    waits_for(&gateway, &held_at("new"), 1.0);
    gate.open();
    assert!([&mut one, &mut two, &mut three].iter_mut().all(|client| client.read().status == 200));
    for upstream in ["old", "new"] {
        waits_for(&gateway, &held_at(upstream), 0.0);
    }
    let file = gateway.file();
    let told = gateway.sluice(&["explain", file.to_str().unwrap(), "http://h/x", "--consumer", "beta"]).stdout;
    let told = String::from_utf8(told).unwrap();
    assert!(told.contains("slots by global at upstream new: 1 of 2 left (2 at once)"), "{told}");
    assert!(told.contains("tokens by global at upstream new: 99 of 100 left"), "{told}");
}

#[test]
fn a_limit_that_delays_refuses_nobody_who_can_wait_and_says_how_long_it_was() {
    let (gateway, _) = before("rate: 20/s, burst: 1, throttle: { wait: 5s }, by: [global]");
    let mut clients: Vec<_> = (0..6).map(|_| gateway.client()).collect();
    clients.iter_mut().for_each(|client| _ = client.send("GET /quick HTTP/1.1\r\nhost: h\r\n\r\n"));
    assert!(clients.iter_mut().all(|client| client.read().status == 200));
    // The first found a token; a busy machine may give one to another.
    let delayed = gateway.metric("sluice_limit_delayed_total{limit=\"one\"}");
    assert!((1.0..=5.0).contains(&delayed), "{delayed}");
    let lines = gateway.log_lines(6);
    let waited: Vec<u64> = lines.iter().filter_map(|line| line["waited_us"].as_u64()).collect();
    assert_eq!(waited.len() as f64, delayed, "{lines:?}");
    assert!(lines.iter().all(|line| line["total_us"].as_u64().unwrap() >= line["waited_us"].as_u64().unwrap_or(0)));
    waits_for(&gateway, WAITING, 0.0);
}

#[test]
fn who_would_wait_too_long_or_be_one_too_many_is_refused_and_who_leaves_gives_his_place_back() {
    // The second of those that wait would have its turn after two minutes, or after one.
    would_wait_too_long_or_be_one_too_many("rate: 1/m, burst: 1, throttle: { wait: 60s }, by: [client_ip]");
    would_wait_too_long_or_be_one_too_many("rate: 2/m, burst: 1, throttle: { wait: 60s, waiting: 1 }, by: [client_ip]");
}

fn would_wait_too_long_or_be_one_too_many(limit: &str) {
    let (gateway, _) = before(limit);
    assert_eq!(gateway.get("/quick", &[]).status, 200);
    // Once over HTTP/1 and once over HTTP/2: the second could not wait unless the first had given its token and its place back.
    for is_h2 in [false, true, false] {
        let mut one = gateway.client();
        let mut two = Http2::connect(gateway.address());
        match is_h2 {
            false => _ = one.send("GET /quick HTTP/1.1\r\nhost: h\r\n\r\n"),
            true => _ = two.ask(1, &get_fields("/quick", &[])),
        }
        waits_for(&gateway, WAITING, 1.0);
        let refused = gateway.get("/quick", &[]);
        assert_eq!((refused.status, refused.code().as_str()), (429, "rate-limited"));
        assert!(refused.header("retry-after").unwrap().parse::<u64>().unwrap() <= 120);
        match is_h2 {
            false => one.reset(),
            true => _ = two.reset(1, 8),
        }
        waits_for(&gateway, WAITING, 0.0);
    }
    let line = gateway.log_line_where(|line| line["status"] == 499);
    assert_eq!(line["code"], "client-gone");
}

#[test]
fn one_abuser_at_twenty_times_its_limit_costs_fifty_good_clients_nothing() {
    const GOOD: usize = 50;
    // An hour, so that what comes back meanwhile is nearly nothing on however slow a machine.
    let text = r#"
server: { threads: 2, settle: 0s }
listeners: { public: { address: "127.0.0.1:{port}" } }
admin: { address: "127.0.0.1:{admin}" }
limits:
  each: { rate: 100/h, by: ["header:x-caller", client_ip] }
  places: { concurrent: 20, by: ["header:x-caller", client_ip] }
routes:
  r: { match: { path: /** }, auth: public, limits: [each, places], respond: { status: 204 } }
"#;
    let gateway = Gateway::start(text);
    let statuses = |caller: &str, count: usize| {
        let mut client = gateway.client();
        (0..count).map(|_| client.get("/", &[("x-caller", caller)]).status).collect::<Vec<_>>()
    };
    let some = |thread: usize| (0..GOOD / 5).flat_map(|n| statuses(&format!("good-{thread}-{n}"), 20)).collect::<Vec<_>>();
    let (some, statuses) = (&some, &statuses);
    let (abuser, good) = std::thread::scope(|scope| {
        let abuser: Vec<_> = (0..8).map(|_| scope.spawn(move || statuses("abuser", 250))).collect();
        // Each of them within its limit, in five threads, all at the same time.
        let good: Vec<_> = (0..5).map(|thread| scope.spawn(move || some(thread))).collect();
        let good: Vec<_> = good.into_iter().flat_map(|thread| thread.join().unwrap()).collect();
        (abuser.into_iter().flat_map(|thread| thread.join().unwrap()).collect::<Vec<_>>(), good)
    });
    assert_eq!((good.len(), good.iter().filter(|status| **status != 204).count()), (GOOD * 20, 0), "no good client is refused");
    let admitted = abuser.iter().filter(|status| **status == 204).count();
    assert!((100..=110).contains(&admitted), "{admitted} of 2000, one of a hundred an hour");
    // The metrics tell abuse: many refusals, one caller.
    let refused = gateway.metric("sluice_limited_total{limit=\"each\",key=\"header\"}");
    assert_eq!((refused as usize, gateway.metric("sluice_limited_callers{limit=\"each\"}")), (2_000 - admitted, 1.0));
}

#[test]
fn metrics_tell_one_abuser_from_many_callers_whom_a_limit_does_not_fit() {
    const MANY: usize = 60;
    let text = r#"
server: { threads: 2, settle: 0s }
listeners: { public: { address: "127.0.0.1:{port}" } }
admin: { address: "127.0.0.1:{admin}" }
limits:
  tight: { rate: 10/h, by: ["header:x-caller", client_ip] }
  abused: { rate: 10/h, by: ["header:x-caller", client_ip] }
  smooth: { rate: 5/s, burst: 1, throttle: { wait: 30s }, by: ["header:x-caller", client_ip] }
routes:
  tight: { match: { path: /tight }, auth: public, limits: [tight], respond: { status: 204 } }
  abused: { match: { path: /abused }, auth: public, limits: [abused], respond: { status: 204 } }
  smooth: { match: { path: /smooth }, auth: public, limits: [smooth], respond: { status: 204 } }
"#;
    let gateway = Gateway::start(text);
    let mut client = gateway.client();
    let mut refused =
        |path: &str, caller: &str, count: usize| (0..count).filter(|_| client.get(path, &[("x-caller", caller)]).status == 429).count();
    // Each a little above its limit; and one who asks for as much as all of them are refused.
    let tight: usize = (0..MANY).map(|n| refused("/tight", &format!("good-{n}"), 12)).sum();
    let abused: usize = (0..5).map(|n| refused("/abused", &format!("good-{n}"), 10)).sum::<usize>() + refused("/abused", "mallory", 130);
    assert_eq!((tight, abused), (2 * MANY, 2 * MANY), "the same number of refusals");
    let of = |name: &str, limit: &str| gateway.metric(&format!("{name}{{limit=\"{limit}\"}}"));
    assert_eq!(gateway.metric("sluice_limited_total{limit=\"tight\",key=\"header\"}"), 2.0 * MANY as f64);
    assert_eq!(gateway.metric("sluice_limited_total{limit=\"abused\",key=\"header\"}"), 2.0 * MANY as f64);
    // About so many: it counts classes of callers.
    let (many, one) = (of("sluice_limited_callers", "tight"), of("sluice_limited_callers", "abused"));
    assert!((MANY as f64 * 0.9..=MANY as f64 * 1.1).contains(&many) && one == 1.0, "{many} and {one}");
    // Who is only delayed is counted as that, and as nobody who was refused.
    assert_eq!(refused("/smooth", "eager", 5), 0);
    assert!(of("sluice_limit_delayed_total", "smooth") >= 1.0);
    let metrics = gateway.metrics();
    assert!(!metrics.contains("sluice_limited_callers{limit=\"smooth\"}"), "{metrics}");
}

#[test]
fn the_log_of_a_gateway_is_what_a_new_limit_is_tried_on() {
    let text = "server: { settle: 0s }\nlisteners: { public: { address: \"127.0.0.1:{port}\" } }\n\
                routes: { r: { match: { path: /r }, auth: public, respond: { status: 204 } } }\naccess_log: { to: \"{dir}/access.log\" }\n";
    let mut gateway = Gateway::start(text);
    let mut client = gateway.client();
    (0..12).for_each(|_| assert_eq!(client.get("/r", &[]).status, 204));
    assert_eq!(client.get("/nowhere", &[]).status, 404);
    drop(client);
    assert!(gateway.stop().success());
    let simulate = |more: &[&str]| {
        let output = gateway.sluice(&[&["limits", "simulate", "--log", "access.log", "--by", "consumer,client_ip"], more].concat());
        (output.status.code(), String::from_utf8(output.stdout).unwrap(), String::from_utf8(output.stderr).unwrap())
    };
    let (code, told, _) = simulate(&["--limit", "5/day", "--json"]);
    let told: serde_json::Value = serde_json::from_str(&told).unwrap();
    assert_eq!((code, &told["requests"], &told["refused"], &told["unseen"]), (Some(0), &json!(12), &json!(7), &json!(1)));
    assert_eq!((&told["top"][0]["caller"], &told["top"][0]["max"], &told["proposed"]), (&json!("127.0.0.1"), &json!(12), &json!("12/day")));
    let (code, told, _) = simulate(&["--limit", "5/h"]);
    assert!(code == Some(0) && told.contains("5/h would have refused 7 of them (58.3 %), of 1 callers"), "{told}");
    assert!(told.contains("proposed: 12/h"), "{told}");
    let (code, _, wrong) = simulate(&["--limit", "5/week"]);
    assert!(code == Some(2) && wrong.contains("expected a rate such as `100/m`"), "{wrong}");

    std::fs::write(gateway.dir().join("access.log"), "127.0.0.1 - - [10/Oct/2000:20:55:36 +0000] \"GET / HTTP/1.1\" 200 0 \"-\" \"-\"\n")
        .unwrap();
    let (code, told, wrong) = simulate(&["--limit", "5/h"]);
    assert!(code == Some(1) && told.is_empty() && wrong.contains("none of 1 lines"), "who read nothing has no figures: {told}{wrong}");
}

/// A store with a user and a password, on a port that stays the same.
struct Redis {
    child: std::process::Child,
    port: u16,
}

impl Redis {
    fn start(port: Option<u16>) -> Redis {
        let port = port.unwrap_or_else(free_port);
        let child = std::process::Command::new("redis-server")
            .args(["--port", &port.to_string(), "--bind", "127.0.0.1", "--save", "", "--appendonly", "no"])
            .args(["--user", "gateway", "on", ">s3cret", "~one:*", "+@all", "--user", "default", "off"])
            .stdout(std::process::Stdio::null())
            .spawn()
            .expect("`scripts/setup.sh test` installs redis-server");
        Redis { child, port }
    }
}

impl Drop for Redis {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[test]
fn gateways_with_one_store_admit_one_limit_together_and_go_on_without_it() {
    let mut redis = Redis::start(None);
    let port = redis.port;
    let start = || {
        Gateway::start(&format!(
            "server: {{ threads: 1, settle: 0s, limits_store: {{ redis: \"127.0.0.1:{port}\", username: gateway, password: s3cret, prefix: one }} }}\n\
             listeners: {{ public: {{ address: \"127.0.0.1:{{port}}\" }} }}\nadmin: {{ address: \"127.0.0.1:{{admin}}\" }}\n\
             limits: {{ hourly: {{ rate: 60/h, by: [\"header:x-caller\", client_ip], shared: true }}, daily: {{ quota: 30/day, by: [\"header:x-caller\", client_ip], shared: true }}, kept: {{ rate: 1/h, by: [client_ip], shared: true }} }}\n\
             routes: {{ r: {{ match: {{ path: /r }}, auth: public, limits: [hourly], respond: {{ status: 204 }} }}, q: {{ match: {{ path: /q }}, auth: public, limits: [daily], respond: {{ status: 204 }} }}, k: {{ match: {{ path: /k }}, auth: public, limits: [kept], respond: {{ status: 204 }} }} }}\n"
        ))
    };
    let gateways = [start(), start(), start()];
    for gateway in &gateways {
        waits_for(gateway, "sluice_limit_gateways", 3.0);
        waits_for(gateway, "sluice_limit_store_up", 1.0);
        gateway.stderr_line("limits are shared over the store");
    }
    for (path, all) in [("/r", 60), ("/q", 30)] {
        let mut admitted = 0;
        let mut round = || {
            for gateway in &gateways {
                let answer = gateway.get(path, &[("x-caller", "a")]);
                assert!(matches!(answer.status, 204 | 429), "{}", answer.status);
                admitted += usize::from(answer.status == 204);
            }
            admitted
        };
        eventually("as many as there are", || (round() >= all).then_some(()));
        // Each gateway hears of the last ones of the others a moment later, and may be one part ahead.
        let most = (0..20).map(|_| round()).last().unwrap();
        assert!((all..=all + all / 3).contains(&most), "{path}: {most} of {all}");
    }
    // The store is gone: each goes on with its third, and nobody notices but by that.
    redis.child.kill().unwrap();
    redis.child.wait().unwrap();
    for gateway in &gateways {
        waits_for(gateway, "sluice_limit_store_up", 0.0);
        gateway.stderr_line("is gone");
        let mut client = gateway.client();
        let statuses: Vec<u16> = (0..25).map(|_| client.get("/r", &[("x-caller", "b")]).status).collect();
        assert_eq!(statuses.iter().filter(|status| **status == 204).count(), 20, "{statuses:?}");
        assert!(gateway.metric("sluice_limit_store_failures_total") >= 1.0);
    }
    // It is back, and empty.
    let _redis = Redis::start(Some(port));
    for gateway in &gateways {
        waits_for(gateway, "sluice_limit_store_up", 1.0);
    }
    assert_eq!(gateways[0].get("/r", &[("x-caller", "c")]).status, 204);
}

#[test]
fn an_upstream_has_no_say_in_where_limits_stand_and_the_operator_has_the_last() {
    let theirs = Answer::ok("hello").header("X-RateLimit-Limit", "7").header("RateLimit", "theirs").header("RateLimit-Policy", "theirs");
    let upstream = Upstream::answering(theirs);
    let text = r#"
server: { threads: 1 }
listeners: { public: { address: "127.0.0.1:{port}" } }
limits: { few: { rate: 100/h, by: [global] } }
upstreams: { app: { targets: ["{upstream}"] } }
defaults: { limits: [few], upstream: app }
routes:
  told: { match: { path: /told }, auth: public }
  edited: { match: { path: /edited }, auth: public, response_headers: { set: { ratelimit: mine }, remove: [x-ratelimit-reset] } }
"#;
    let gateway = Gateway::config(text).var("upstream", upstream.address()).start();
    let told = gateway.get("/told", &[]);
    let all = |name: &str| {
        told.headers.iter().filter(|(known, _)| known.eq_ignore_ascii_case(name)).map(|(_, value)| &**value).collect::<Vec<_>>()
    };
    assert_eq!((all("x-ratelimit-limit"), all("x-ratelimit-remaining")), (vec!["100"], vec!["99"]));
    assert_eq!((all("ratelimit-policy"), all("ratelimit")), (vec!["\"few\";q=100;w=3600"], vec!["\"few\";r=99;t=36"]));
    assert_eq!(all("x-ratelimit-reset"), ["36"]);
    let edited = gateway.get("/edited", &[]);
    assert_eq!((edited.header("ratelimit"), edited.header("x-ratelimit-reset")), (Some("mine"), None));
    assert_eq!(edited.header("x-ratelimit-remaining"), Some("98"));
    let over_http2 = Http2::connect(gateway.address()).get(1, "/told");
    assert_eq!(over_http2.field("ratelimit-policy"), Some("\"few\";q=100;w=3600"));
}
