//! Limits as a client meets them: quotas through restarts and upgrades, windows, and what is told of them.

use rustix::process::Signal;
use serde_json::json;

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
    let mut gateway = Gateway::start(&text);
    let first = gateway.get("/counted", &[("x-caller", "a")]);
    let policy = first.header("ratelimit-policy").unwrap().to_owned();
    assert!(policy.contains("\"monthly\";q=3;w=") && policy.contains("\"burst\";q=100;w=1"), "{policy}");
    assert_eq!(first.header("x-ratelimit-remaining"), Some("2"));
    assert_eq!(calls(&gateway, "b", 1), [204]);
    assert!(gateway.stop().success());

    // Another process, which has nothing but the folder.
    let mut gateway = Gateway::start(&text);
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
    eventually("the counts in their file", || kept().filter(|bytes| bytes.len() > 80));
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
