//! An operator takes a target out: it ends what it has and gets nothing new.

use super::harness::*;

fn config(first: &str, more: &str) -> String {
    format!(
        r#"
server: {{ threads: 1, settle: 0s }}
listeners: {{ public: {{ address: "127.0.0.1:{{port}}" }} }}
upstreams: {{ shop: {{ targets: [{{ address: "{{one}}"{first} }}, "{{other}}"]{more} }} }}
routes: {{ shop: {{ match: {{ path: /** }}, auth: public, upstream: shop }} }}
"#
    )
}

fn reload(gateway: &mut Gateway, text: &str) {
    let before = gateway.metric_now("sluice_reloads_total{result=\"accepted\"}");
    gateway.reload(text);
    eventually("the reload", || (gateway.metric_now("sluice_reloads_total{result=\"accepted\"}") > before).then_some(()));
}

#[test]
fn a_drained_target_ends_what_it_has_and_gets_nothing_new() {
    let gate = Gate::new();
    let held = gate.clone();
    let one = Upstream::script(move |request| match request.target.as_str() {
        "/held" => [vec![Step::WaitFor(held.clone())], Answer::ok("one").steps()].concat(),
        _ => Answer::ok("one").steps(),
    });
    let other = Upstream::answering(Answer::ok("other"));
    let mut gateway = Gateway::config(&config("", "")).var("one", one.address()).var("other", other.address()).start();
    // Round robin: one of the two is for the first target.
    let mut waiting = [gateway.client(), gateway.client()];
    for client in &mut waiting {
        client.send("GET /held HTTP/1.1\r\nHost: a\r\n\r\n");
    }
    eventually("it has one of them", || (one.open_connections() == 1).then_some(()));
    reload(&mut gateway, &config(", drain: true", ""));
    assert!((0..10).all(|_| gateway.get("/", &[]).text() == "other"));
    let target = || {
        let status = gateway.status_now();
        let targets = status["upstreams"]["shop"].as_array().expect("the upstream has targets").clone();
        targets.into_iter().find(|target| target["address"] == one.address().to_string()).expect("it is among them")
    };
    assert_eq!((&target()["healthy"], &target()["requests_in_flight"]), (&false.into(), &1.into()), "{}", target());
    assert!(target().to_string().contains("drained"), "{}", target());
    let series = format!("sluice_target_healthy{{upstream=\"shop\",target=\"{}\"}}", one.address());
    assert_eq!(gateway.metric_now(&series), 0.0);
    gate.open();
    let mut answers: Vec<_> =
        waiting.iter_mut().map(|client| client.read()).map(|answer| (answer.status, answer.text().to_owned())).collect();
    answers.sort();
    assert_eq!(answers, [(200, "one".to_owned()), (200, "other".to_owned())]);
    let told = gateway.stderr_line("is out: drained");
    assert!(told.contains(&one.address().to_string()), "{told}");
    reload(&mut gateway, &config("", ""));
    let back: Vec<_> = (0..10).map(|_| gateway.get("/", &[]).text().to_owned()).collect();
    assert!(back.contains(&"one".to_owned()), "{back:?}");
}

#[test]
fn the_keys_of_a_drained_target_go_elsewhere_and_come_back() {
    let (one, other) = (Upstream::answering(Answer::ok("one")), Upstream::answering(Answer::ok("other")));
    let hash = ", balance: hash, hash_by: [header:x-user]";
    let mut gateway = Gateway::config(&config("", hash)).var("one", one.address()).var("other", other.address()).start();
    let owners = |gateway: &Gateway| {
        let owner = |user: u32| gateway.get("/", &[("x-user", &format!("user-{user}"))]).text().to_owned();
        (0..30).map(owner).collect::<Vec<_>>()
    };
    let before = owners(&gateway);
    assert!(before.iter().any(|owner| owner == "one") && before.iter().any(|owner| owner == "other"), "{before:?}");
    reload(&mut gateway, &config(", drain: true", hash));
    assert!(owners(&gateway).iter().all(|owner| owner == "other"));
    // As it starts, too.
    let drained = Gateway::config(&config(", drain: true", hash)).var("one", one.address()).var("other", other.address()).start();
    assert!(owners(&drained).iter().all(|owner| owner == "other"));
    reload(&mut gateway, &config("", hash));
    assert_eq!(owners(&gateway), before);
}
