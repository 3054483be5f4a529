//! What prefers one target to another, seen from outside: cookies, priorities, zones, slow starts.

use serde_json::Value;

use super::harness::*;

/// Upstreams that say who they are.
fn named(names: &[&str]) -> Vec<Upstream> {
    names.iter().map(|name| Upstream::answering(Answer::ok(*name))).collect()
}

fn config(server: &str, upstream: &str) -> Config {
    Gateway::config(&format!(
        "
server: {{ threads: 1, settle: 0s{server} }}
listeners: {{ l: {{ address: \"127.0.0.1:{{port}}\" }} }}
upstreams: {{ u: {{ {upstream} }} }}
routes: {{ r: {{ match: {{ path: /** }}, auth: public, upstream: u }} }}
"
    ))
}

/// How many of so many requests each has answered.
fn shares(gateway: &Gateway, names: &[&str], requests: usize) -> Vec<usize> {
    let mut client = gateway.client();
    let mut ask = || {
        let answer = client.get("/", &[]);
        // As a target goes in the middle of a request, the client's connection ends with the answer that says so.
        if !answer.is_keep_alive() {
            client = gateway.client();
        }
        answer.text().to_owned()
    };
    let answers: Vec<String> = (0..requests).map(|_| ask()).collect();
    names.iter().map(|name| answers.iter().filter(|answer| answer == name).count()).collect()
}

fn explained(gateway: &Gateway, headers: &[&str]) -> Value {
    let file = gateway.file();
    let mut args = vec!["explain", file.to_str().expect("UTF-8"), "GET http://a/", "--json"];
    args.extend(headers.iter().flat_map(|header| ["-H", header]));
    serde_json::from_slice(&gateway.sluice(&args).stdout).expect("explain prints JSON")
}

#[test]
fn a_cookie_keeps_a_client_at_its_target_until_that_is_gone() {
    let names = ["a", "b", "c"];
    let mut all = named(&names);
    let targets: Vec<_> = all.iter().map(|upstream| format!("\"{}\"", upstream.address())).collect();
    let sticky = "sticky: { cookie: at, secret: 0123456789abcdef0123456789abcdef, max_age: 1h, same_site: strict, secure: true }";
    let text = format!("targets: [{}], {sticky}, retries: {{ attempts: 3 }}", targets.join(", "));
    let (gateway, other) = (config("", &text).start(), config("", &text).start());
    let stranger = config("", &text.replace("0123456789abcdef", "fedcba9876543210")).start();
    let first = gateway.get("/", &[]);
    let set = first.header("set-cookie").expect("a cookie is set").to_owned();
    let (pair, attributes) = set.split_once("; ").expect("it has attributes");
    assert_eq!(attributes, "Path=/; HttpOnly; SameSite=Strict; Max-Age=3600; Secure");
    let value = pair.strip_prefix("at=").expect("it has the name that is written");
    let home = first.text().to_owned();
    for _ in 0..8 {
        for one in [&gateway, &other] {
            assert_eq!(one.get("/", &[("cookie", pair)]).text(), home, "whichever gateway has the secret");
        }
    }
    let at = all[names.iter().position(|name| *name == home).unwrap()].address().to_string();
    let told = explained(&gateway, &[&format!("cookie: {pair}")]);
    assert_eq!((&told["balance"]["target"], &told["balance"]["sticky"]), (&Value::from(at.as_str()), &Value::from("kept")), "{told:#}");
    assert!(!set.contains(&at) && !format!("{told}").contains(value), "nobody is told what it means");
    assert_eq!(explained(&gateway, &[])["balance"]["sticky"], "no cookie yet");
    let told = explained(&stranger, &[&format!("cookie: {pair}")]);
    assert_ne!(told["balance"]["sticky"], "kept", "a gateway with another secret does not know what it means: {told:#}");

    let made_up = gateway.get("/", &[("cookie", "at=AAAAAAAAAAAAAAAAAAAAAA")]);
    assert!(made_up.status == 200 && made_up.header("set-cookie").is_some());

    drop(all.remove(names.iter().position(|name| *name == home).unwrap()));
    let moved = gateway.get("/", &[("cookie", pair)]);
    let new = moved.header("set-cookie").expect("it is set anew").split(';').next().unwrap().to_owned();
    assert!(moved.status == 200 && moved.text() != home && new != pair);
    assert!((0..6).all(|_| gateway.get("/", &[("cookie", &new)]).text() == moved.text()));
}

#[test]
fn a_lower_priority_gets_nothing_until_the_higher_is_gone() {
    let names = ["a", "b", "c"];
    let mut all = named(&names);
    let of = |index: usize, priority: u16| format!("{{ address: \"{}\", priority: {priority} }}", all[index].address());
    let health = "health: { every: 500ms, unhealthy_after: 1 }";
    let text = format!("targets: [{}, {}, {}], {health}, retries: {{ attempts: 3 }}", of(0, 5), of(1, 0), of(2, 0));
    let gateway = config("", &text).start();
    assert_eq!(shares(&gateway, &names, 100), [0, 50, 50]);
    let told = explained(&gateway, &[]);
    assert_eq!(told["balance"]["levels"][1]["targets"][0], all[0].address().to_string(), "{told:#}");
    all.truncate(1);
    eventually("the others are out", || (shares(&gateway, &names, 20)[0] == 20).then_some(()));
    let shown = gateway.status()["upstreams"]["u"].clone();
    let first = shown.as_array().unwrap().iter().find(|one| one["address"] == all[0].address().to_string()).unwrap().clone();
    assert_eq!((&first["priority"], &first["weight"]), (&Value::from(5), &Value::from(1.0)), "{shown:#}");
}

#[test]
fn targets_in_the_zone_of_the_gateway_are_preferred() {
    let names = ["a", "b", "c"];
    let all = named(&names);
    let of = |index: usize, zone: &str| format!("{{ address: \"{}\", zone: {zone} }}", all[index].address());
    let text = format!("targets: [{}, {}, {}]", of(0, "east"), of(1, "west"), of(2, "west"));
    let gateway = config(", zone: west", &text).start();
    assert_eq!(shares(&gateway, &names, 100), [0, 50, 50]);
    let told = explained(&gateway, &[]);
    assert_eq!((&told["balance"]["levels"][0]["near"], &told["balance"]["levels"][1]["near"]), (&true.into(), &false.into()), "{told:#}");
}

#[test]
fn a_new_target_gets_its_share_slowly() {
    let names = ["a", "b"];
    let all = named(&names);
    let list = |count: usize| all[..count].iter().map(|upstream| format!("- {}\n", upstream.address())).collect::<String>();
    let gateway = config("", "targets_from: { file: targets.yaml }, slow_start: 1h").file("targets.yaml", list(1)).start();
    assert_eq!(shares(&gateway, &names, 10), [10, 0]);
    std::fs::write(gateway.dir().join("new"), list(2)).unwrap();
    std::fs::rename(gateway.dir().join("new"), gateway.dir().join("targets.yaml")).unwrap();
    eventually("it is found", || (gateway.status_now()["found"]["u"]["targets"] == 2).then_some(()));
    let [_, new] = shares(&gateway, &names, 400)[..] else { panic!("two") };
    assert!((1..100).contains(&new), "about a tenth of its half, and not nothing: {new} of 400");
}
