//! How targets are chosen, seen from both sides of the real binary: by key, by latency, by chance.

use std::collections::BTreeMap;
use std::time::Duration;

use serde_json::Value;

use crate::harness::{Answer, Gateway, Step, Upstream};

fn start(upstreams: &[Upstream], keys: &str) -> Gateway {
    let targets: Vec<_> = upstreams.iter().map(|upstream| format!("\"{}\"", upstream.address())).collect();
    let config = format!(
        r#"
server: {{ threads: 1 }}
listeners: {{ l: {{ address: "127.0.0.1:{{port}}" }} }}
upstreams: {{ u: {{ targets: [{}], {keys} }} }}
routes: {{ r: {{ match: {{ path: "/users/{{user}}/**" }}, auth: public, upstream: u }} }}
"#,
        targets.join(", ")
    );
    Gateway::start(&config)
}

fn three() -> Vec<Upstream> {
    (0..3).map(|_| Upstream::start()).collect()
}

/// How many requests each has had.
fn shares(upstreams: &[Upstream]) -> Vec<usize> {
    upstreams.iter().map(|upstream| upstream.requests().len()).collect()
}

#[test]
fn requests_with_the_same_key_go_to_the_same_target_and_explain_names_it() {
    let upstreams = three();
    let gateway = start(&upstreams, "balance: hash, hash_by: [header:x-user, cookie:sid, query:id, \"path:user\", client_ip]");
    let mut owners = BTreeMap::new();
    let mut users = 0;
    // Which keys are whose is chance, by the ports. A hundred of them miss a target once in 10^17.
    while owners.len() < 12 && users < 100 {
        let (user, cookie) = (format!("u{users}"), format!("a=b; sid=u{users}"));
        users += 1;
        let asked = [
            ("header:x-user", Some(("x-user", user.as_str())), "/users/x/a".to_owned()),
            ("cookie:sid", Some(("cookie", cookie.as_str())), "/users/x/a".to_owned()),
            ("query:id", None::<(&str, &str)>, format!("/users/x/a?%69d={user}")),
            ("path:user", None, format!("/users/{user}/{user}")),
        ];
        for (by, header, path) in asked {
            let before = shares(&upstreams);
            for _ in 0..3 {
                assert_eq!(gateway.get(&path, header.as_slice()).status, 200);
            }
            let got: Vec<_> = shares(&upstreams).iter().zip(&before).map(|(now, before)| now - before).collect();
            let owner = got.iter().position(|count| *count == 3);
            let owner = owner.unwrap_or_else(|| panic!("{by} {user}: spread over {got:?}"));
            *owners.entry((by, owner)).or_insert(0) += 1;

            let url = format!("GET http://a{path}");
            let file = gateway.file();
            let mut args = vec!["explain", file.to_str().expect("UTF-8"), &url, "--json"];
            let field = header.map(|(name, value)| format!("{name}: {value}"));
            args.extend(field.iter().flat_map(|field| ["-H", field]));
            let told: Value = serde_json::from_slice(&gateway.sluice(&args).stdout).expect("explain prints JSON");
            assert_eq!(told["balance"]["by"], by, "{told:#}");
            assert_eq!(told["balance"]["target"], upstreams[owner].address().to_string(), "{told:#}");
        }
    }
    assert_eq!(owners.len(), 12, "each kind of key reaches all three: {owners:?}");
}

#[test]
fn a_target_that_is_gone_moves_only_its_own_keys() {
    let mut upstreams = three();
    // One for the connection that rests, one for the target, one for another.
    let gateway = start(&upstreams, "balance: hash, hash_by: [header:x-user], retries: { attempts: 3 }");
    let owner = |upstreams: &[Upstream], user: usize| {
        let before = shares(upstreams);
        assert_eq!(gateway.get("/users/a/b", &[("x-user", &user.to_string())]).status, 200);
        shares(upstreams).iter().zip(&before).position(|(now, before)| now > before)
    };
    let before: Vec<_> = (0..30).map(|user| owner(&upstreams, user)).collect();
    drop(upstreams.pop());
    for (user, was) in before.iter().enumerate() {
        let is = owner(&upstreams, user);
        assert!(is.is_some() && (is == *was || *was == Some(2)), "user {user} moved from {was:?} to {is:?}");
    }
}

#[test]
fn requests_without_a_key_and_random_ones_reach_every_target() {
    for keys in ["balance: hash, hash_by: [header:x-user]", "balance: random"] {
        let upstreams = three();
        let gateway = start(&upstreams, keys);
        let mut client = gateway.client();
        (0..120).for_each(|_| assert_eq!(client.get("/users/a/b", &[]).status, 200));
        assert!(shares(&upstreams).iter().all(|share| *share > 10), "{keys}: {:?}", shares(&upstreams));
    }
}

#[test]
fn a_target_that_answers_late_or_fails_fast_gets_little() {
    let late = || Upstream::script(|_| [vec![Step::Pause(Duration::from_millis(300))], Answer::ok("late").steps()].concat());
    let failing = || Upstream::script(|_| vec![Step::Close]);
    // Of two, both are always drawn, so that nothing is left to chance.
    for (name, worse, better, requests) in [
        ("late", late(), Upstream::start(), 40),
        ("failing", failing(), Upstream::start(), 40),
        ("failing, not late", failing(), late(), 12),
    ] {
        let upstreams = [worse, better];
        let gateway = start(&upstreams, "balance: peak_ewma");
        for _ in 0..requests {
            gateway.get("/users/a/b", &[]);
        }
        let [worse, better] = shares(&upstreams)[..] else { panic!("two") };
        assert!(worse > 0 && worse * 4 < better, "{name}: {worse} and {better}");
    }
}
