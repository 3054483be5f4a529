//! New versions are let in: by shares, by what a request says, by a reload; and nobody notices but those who should.

use std::collections::BTreeMap;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::SeqCst};
use std::thread;

use super::harness::*;

fn named(name: &'static str) -> Upstream {
    Upstream::answering(Answer::ok(name))
}

fn two(choice: &str) -> String {
    format!(
        r#"
server: {{ threads: 2, settle: 0s }}
listeners: {{ public: {{ address: "127.0.0.1:{{port}}" }} }}
upstreams:
  blue: {{ targets: ["{{blue}}"] }}
  green: {{ targets: ["{{green}}"] }}
routes:
  shop: {{ match: {{ path: /shop/** }}, auth: public, upstream: {choice} }}
  other: {{ match: {{ path: /blue }}, auth: public, upstream: blue }}
  another: {{ match: {{ path: /green }}, auth: public, upstream: green }}
"#
    )
}

#[test]
fn a_caller_is_always_on_the_same_side_whichever_gateway_it_comes_to() {
    let (blue, green) = (named("blue"), named("green"));
    let config = two("{ split: { blue: 60, green: 40 }, by: [header:x-user, cookie:user, client_ip] }");
    let start = || Gateway::config(&config).var("blue", blue.address()).var("green", green.address()).start();
    let (one, other) = (start(), start());
    let mut sides = BTreeMap::new();
    for user in 0..60 {
        let user = format!("user-{user}");
        let headers = [("x-user", user.as_str())];
        let side = one.get("/shop/a", &headers).text().to_owned();
        assert_eq!(one.get("/shop/b", &headers).text(), side);
        assert_eq!(other.get("/shop/a", &headers).text(), side, "{user} on another gateway");
        let told = one.sluice(&["explain", "sluice.yaml", "--json", "--header", &format!("x-user: {user}"), "http://h/shop/a"]);
        let told: serde_json::Value = serde_json::from_slice(&told.stdout).unwrap();
        assert_eq!(told["upstream"], side, "{told}");
        assert!(told["upstream_because"].as_str().unwrap().starts_with("split by header:x-user: always, as "), "{told}");
        *sides.entry(side).or_insert(0) += 1;
    }
    assert!(sides["blue"] > 25 && sides["green"] > 12, "{sides:?}");
    let line = one.log_line_where(|line| line["path"] == "/shop/a");
    assert!(sides.contains_key(line["upstream"].as_str().unwrap()), "{line}");
    // A cookie tells callers apart where the header is missing; one address is one caller.
    let by_cookie: Vec<_> = (0..30).map(|user| one.get("/shop/a", &[("cookie", &format!("a=b; user={user}"))]).text().to_owned()).collect();
    assert!(by_cookie.contains(&"blue".to_owned()) && by_cookie.contains(&"green".to_owned()), "{by_cookie:?}");
    let by_address: Vec<_> = (0..10).map(|_| one.get("/shop/a", &[]).text().to_owned()).collect();
    assert!(by_address.iter().all(|side| *side == by_address[0]), "{by_address:?}");
}

#[test]
fn without_a_key_each_request_is_drawn_by_itself() {
    let (blue, green) = (named("blue"), named("green"));
    let config = two("{ split: { blue: 1, green: 1 } }");
    let gateway = Gateway::config(&config).var("blue", blue.address()).var("green", green.address()).start();
    let mut client = gateway.client();
    let drawn: Vec<_> = (0..200).map(|_| client.get("/shop/a", &[]).text().to_owned()).collect();
    let greens = drawn.iter().filter(|side| *side == "green").count();
    // Off by more than seven standard deviations, once in 10^12.
    assert!((50..=150).contains(&greens), "{greens} of 200");
    let metric = |upstream: &str| gateway.metric(&format!("sluice_upstream_requests_total{{upstream=\"{upstream}\",result=\"2xx\"}}"));
    assert_eq!(metric("green") + metric("blue"), 200.0, "{}", gateway.metrics());
    let told = gateway.sluice(&["explain", "sluice.yaml", "http://h/shop/a"]);
    let told = String::from_utf8(told.stdout).unwrap();
    assert!(told.contains(", by split by chance: blue has 1 of 2, green has 1 of 2"), "{told}");
}

#[test]
fn a_test_of_what_is_left_to_chance_is_refused_and_one_with_a_key_is_not() {
    let config = |headers: &str| {
        two("{ when: [{ header: x-canary, is: always, upstream: green }], split: { blue: 1, green: 1 }, by: header:x-user }")
            + &format!(
                "tests: {{ t: {{ request: {{ url: http://h/shop/a, headers: {{ {headers} }} }}, expect: {{ upstream: green }} }} }}\n"
            )
    };
    let (blue, green) = (named("blue"), named("green"));
    let start = |headers| Gateway::config(&config(headers)).var("blue", blue.address()).var("green", green.address()).try_start();
    let failure = start("").err().expect("chance decides nothing");
    assert!(failure.stderr.contains("upstream: expected `green`, but the split leaves it to chance"), "{}", failure.stderr);
    let gateway = start("x-canary: always").unwrap_or_else(|failure| panic!("{failure:?}"));
    assert_eq!(gateway.get("/shop/a", &[("x-canary", "always")]).text(), "green");
    // What stands there twice has to fit twice.
    let told = gateway.sluice(&["explain", "sluice.yaml", "-H", "x-canary: always", "-H", "x-canary: never", "http://h/shop/a"]);
    assert!(String::from_utf8(told.stdout).unwrap().contains("split by chance"));
}

#[test]
fn a_change_from_blue_to_green_fails_no_request_of_many() {
    let (blue, green) = (named("blue"), named("green"));
    let mut gateway = Gateway::config(&two("blue")).var("blue", blue.address()).var("green", green.address()).start();
    let address = gateway.address();
    let (is_over, greens) = (AtomicBool::new(false), AtomicUsize::new(0));
    let errors = Mutex::new(Vec::new());
    thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| {
                let mut client = Client::connect(address);
                while !is_over.load(SeqCst) {
                    match client.try_request("GET", "/shop/a", &[], b"") {
                        Ok(answer) if answer.status == 200 => _ = greens.fetch_add(usize::from(answer.text() == "green"), SeqCst),
                        other => {
                            errors.lock().unwrap().push(format!("{other:?}"));
                            return;
                        }
                    }
                }
            });
        }
        let steps = ["{ split: { blue: 95, green: 5 } }", "{ split: { blue: 50, green: 50 }, by: client_ip }", "green", "blue", "green"];
        for (at, choice) in steps.into_iter().enumerate() {
            gateway.reload(&two(choice));
            let count = (at + 1) as f64;
            eventually("the reload", || (gateway.metric_now("sluice_reloads_total{result=\"accepted\"}") == count).then_some(()));
            let before = blue.requests().len() + green.requests().len();
            eventually("traffic after it", || (blue.requests().len() + green.requests().len() > before + 20).then_some(()));
        }
        is_over.store(true, SeqCst);
    });
    assert_eq!(errors.into_inner().unwrap(), [] as [String; 0]);
    assert!(greens.load(SeqCst) > 20);
    let last = gateway.get("/shop/a", &[]);
    assert_eq!(last.text(), "green");
}
