//! A new configuration in place: what it changes, what it keeps, and that a bad one changes nothing and is told everywhere.

use std::net::TcpListener;

use rustix::process::Signal;
use serde_json::json;

use super::harness::*;
use super::keys::{Signer, now};

/// A gateway with one limited route; the rest of a test's configuration is put behind it.
const BASE: &str = r#"
server: { threads: 1, settle: 0s }
listeners:
  public: { address: "127.0.0.1:{port}" }
limits:
  each: { rate: RATE, by: [global] }
routes:
  counted: { match: { path: /counted }, auth: public, limits: [each], respond: { status: 204 } }
"#;

fn base(rate: &str, more: &str) -> String {
    format!("{}{more}", BASE.replace("RATE", rate))
}

fn reload(gateway: &Gateway) -> (i32, String, String) {
    let output = gateway.sluice(&["reload", "sluice.yaml"]);
    let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
    (output.status.code().unwrap(), text(output.stdout), text(output.stderr))
}

#[track_caller]
fn accept(gateway: &mut Gateway, text: &str) {
    gateway.rewrite(text);
    let (code, said, wrong) = reload(gateway);
    assert_eq!((code, wrong.as_str()), (0, ""));
    assert!(said.contains("routes, configuration "), "{said}");
}

#[track_caller]
fn remaining(response: &Response) -> u32 {
    response.header("x-ratelimit-remaining").expect("a limited answer says what is left").parse().unwrap()
}

#[test]
fn a_reload_keeps_the_remaining_tokens_and_a_changed_rate_the_used_share() {
    let mut gateway = Gateway::start(&base("10/h", ""));
    let mut client = gateway.client();
    for left in [9, 8, 7, 6] {
        assert_eq!(remaining(&client.get("/counted", &[])), left);
    }
    gateway.signal(Signal::HUP);
    eventually("the reload", || (gateway.metric_now("sluice_reloads_total{result=\"accepted\"}") == 1.0).then_some(()));
    assert_eq!(remaining(&client.get("/counted", &[])), 5, "on the same connection");
    accept(&mut gateway, &base("20/h", ""));
    assert_eq!(remaining(&client.get("/counted", &[])), 9, "half of twenty, less this one");
    let connections = gateway.status()["listeners"]["public"]["connections"].as_u64();
    assert_eq!(connections, Some(1), "the connection has survived");
}

#[test]
fn routes_listeners_the_log_and_the_private_address_change_in_place() {
    let mut gateway = Gateway::start(&base("10/h", "admin: { address: \"127.0.0.1:{admin}\" }\n"));
    let mut client = gateway.client();
    assert_eq!(client.get("/new", &[]).status, 404);
    let before = gateway.address();
    let text = base("10/h", "  new: { match: { path: /new }, auth: public, respond: { status: 204 } }\n")
        .replace("{port}", "{port:moved}")
        .replace("limits:\n", "  second: { address: \"127.0.0.1:{port:second}\" }\nlimits:\n")
        .replace("auth: public", "listeners: [public, second], auth: public");
    accept(
        &mut gateway,
        &format!("{text}access_log: {{ to: \"{{dir}}/access.log\" }}\nadmin: {{ address: \"127.0.0.1:{{port:private}}\" }}\n"),
    );

    for listener in ["moved", "second"] {
        assert_eq!(get(gateway.address_of(listener), "/new", &[]).status, 204, "{listener}");
    }
    eventually("the end of the old address", || Client::try_connect(before).err());
    eventually("the end of the old private address", || Client::try_connect(gateway.admin()).err());
    let status = get(gateway.address_of("private"), "/status", &[]).json();
    assert_eq!(status["last_reload"]["accepted"], true);
    assert_eq!(status["listeners"]["second"]["address"], gateway.address_of("second").to_string());
    // A connection to the old address is answered once more, and told to go.
    let last = client.get("/new", &[]);
    assert_eq!((last.status, last.is_keep_alive()), (204, false));
    eventually("lines in the new log", || {
        let log = std::fs::read_to_string(gateway.dir().join("access.log")).ok()?;
        // What waited to be written when the log was changed may be here, too.
        (log.lines().filter(|line| line.contains("\"status\":204")).count() == 3).then_some(())
    });

    let text = base("10/h", "admin: { address: \"127.0.0.1:{port:private}\" }\n").replace("{port}", "{port:moved}");
    accept(&mut gateway, &text);
    eventually("the end of a listener that is gone", || Client::try_connect(gateway.address_of("second")).err());
    assert_eq!(get(gateway.address_of("moved"), "/new", &[]).status, 404);
}

#[test]
fn listeners_that_are_renamed_or_change_places_keep_their_sockets_and_connections() {
    let two = |one: &str, other: &str| {
        base("10/h", "  other: { match: { path: /other }, auth: public, listeners: [OTHER], respond: { status: 204 } }\n")
            .replace(
                "  public: { address: \"127.0.0.1:{port}\" }",
                "  ONE: { address: \"127.0.0.1:{port}\" }\n  OTHER: { address: \"127.0.0.1:{port:other}\" }",
            )
            .replace("auth: public, limits", "auth: public, listeners: [ONE], limits")
            .replace("ONE", one)
            .replace("OTHER", other)
    };
    let mut gateway = Gateway::start(&two("public", "private"));
    let mut client = gateway.client();
    assert_eq!(client.get("/counted", &[]).status, 204);
    accept(&mut gateway, &two("outside", "private"));
    let answer = client.get("/counted", &[]);
    assert_eq!((answer.status, answer.is_keep_alive()), (204, false), "the connection belongs to the new name, and is told to go");
    assert_eq!(gateway.get("/counted", &[]).status, 204);
    let mut open = gateway.client();
    assert_eq!(open.get("/counted", &[]).status, 204);
    accept(&mut gateway, &two("private", "outside"));
    // Was judged by the listener that has its name now, at the other address: an outsider passed for an insider.
    assert_eq!(open.get("/counted", &[]).status, 204, "a connection belongs to the address where it came in");
    assert_eq!(gateway.get("/counted", &[]).status, 204);
    assert_eq!(get(gateway.address_of("other"), "/other", &[]).status, 204);
}

#[test]
fn a_bad_file_changes_nothing_and_is_told_everywhere() {
    let mut gateway = Gateway::start(&base("10/h", ""));
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let taken_address = format!("  more: {{ address: \"{}\" }}\nlimits:", taken.local_addr().unwrap());
    let cases = [
        ("`statuz` is not a key here", base("10/h", "").replace("status", "statuz")),
        ("test `it is there`", base("10/h", "tests: { it is there: { request: { url: http://x/counted }, expect: { status: 200 } } }\n")),
        (
            "cannot listen on",
            base("10/h", "")
                .replace("limits:\n", &format!("{taken_address}\n"))
                .replace("auth: public", "auth: public, listeners: [public, more]"),
        ),
        ("`server.threads` cannot change in place", base("10/h", "").replace("threads: 1", "threads: 2")),
        ("access_log: ", base("10/h", "access_log: { to: /no/such/folder/access.log }\n")),
    ];
    let before = gateway.status()["config"].clone();
    for (count, (why, text)) in (1..).zip(&cases) {
        // The good part of each would be seen: other routes, other tokens.
        gateway.rewrite(&text.replace("/counted,", "/other,"));
        let (code, said, wrong) = reload(&gateway);
        assert_eq!((code, said.as_str()), (1, ""), "{why}");
        assert!(wrong.contains(why), "{why}: {wrong}");
        let status = gateway.status();
        assert_eq!(status["config"], before, "{why}");
        assert_eq!(status["last_reload"]["accepted"], false);
        let diagnostics = status["last_reload"]["diagnostics"].as_str().unwrap().to_owned();
        assert_eq!(diagnostics.trim_end(), wrong.trim_end(), "{why}");
        assert_eq!(gateway.metric("sluice_reloads_total{result=\"refused\"}"), f64::from(count));
        gateway.stderr_line("reload refused, nothing was changed");
        assert_eq!(remaining(&gateway.get("/counted", &[])), 10 - count, "{why}");
    }
    drop(taken);
    accept(&mut gateway, &cases[2].1);
    assert_eq!(gateway.metric("sluice_reloads_total{result=\"accepted\"}"), 1.0);
    assert_eq!(gateway.status()["last_reload"]["diagnostics"], "");
}

#[test]
fn a_start_whose_own_tests_fail_is_refused() {
    let text = base("10/h", "tests: { it is there: { request: { url: http://x/counted }, expect: { status: 200 } } }\n");
    let failure = Gateway::config(&text).try_start().err().unwrap();
    assert_eq!(failure.code, Some(78));
    assert!(failure.stderr.contains("test `it is there`"), "{}", failure.stderr);
}

#[test]
fn a_watched_file_is_read_again_when_it_changes_and_a_bad_one_is_told_once() {
    let watched = |rate: &str| base(rate, "").replace("settle: 0s", "settle: 0s, watch: true");
    let mut gateway = Gateway::start(&watched("10/h"));
    gateway.rewrite("not: [a");
    gateway.stderr_line("reload refused, nothing was changed");
    gateway.rewrite(&watched("7/h"));
    eventually("the reload", || (gateway.get("/counted", &[]).header("x-ratelimit-limit") == Some("7")).then_some(()));
    assert_eq!(gateway.metric("sluice_reloads_total{result=\"refused\"}"), 1.0);
}

#[test]
fn every_file_that_a_configuration_names_is_watched_also_one_that_was_missing() {
    let signers = ["one", "two"].map(Signer::generate);
    let token = |signer: &Signer| signer.token(&json!({ "iss": "https://idp.example", "aud": "a", "sub": "u1", "exp": now() + 3600 }));
    let text = base(
        "10/h",
        "  text: { match: { path: /text }, auth: public, response_headers: { set: { x-text: \"${file:texts/text}\" } }, respond: { status: 204 } }
  token: { match: { path: /token }, auth: [idp], respond: { status: 204 } }
authenticators:
  idp: { jwt: { issuer: https://idp.example, audiences: [a], algorithms: [ES256], keys: { file: jwks.json } } }\n",
    );
    let text = text.replace("settle: 0s", "settle: 0s, watch: true");
    let gateway = Gateway::config(&text).file("texts/text", "first").file("jwks.json", signers[0].jwks()).start();
    let put = |name: &str, content: &str| {
        let new = gateway.dir().join("new");
        std::fs::write(&new, content).unwrap();
        std::fs::rename(new, gateway.dir().join(name)).unwrap();
    };
    let said = || gateway.get("/text", &[]).header("x-text").unwrap_or_default().to_owned();
    let with = |signer: &Signer| gateway.get("/token", &[("authorization", &format!("Bearer {}", token(signer)))]).status;
    assert_eq!((said().as_str(), with(&signers[0]), with(&signers[1])), ("first", 204, 401));
    put("texts/text", "second");
    eventually("the new text", || (said() == "second").then_some(()));
    put("jwks.json", &signers[1].jwks());
    eventually("the new keys", || (with(&signers[1]) == 204).then_some(()));
    assert_eq!(with(&signers[0]), 401);
    std::fs::remove_file(gateway.dir().join("texts/text")).unwrap();
    gateway.stderr_line("the file `texts/text` cannot be read");
    // What was read in vain is followed too.
    put("texts/text", "third");
    eventually("the third text", || (said() == "third").then_some(()));
    let count = |result: &str| gateway.metric(&format!("sluice_reloads_total{{result=\"{result}\"}}"));
    // It is counted once all of it is in place.
    eventually("each change once", || ((count("accepted"), count("refused")) == (3.0, 1.0)).then_some(()));
}

#[test]
fn a_reload_keeps_what_is_known_of_targets() {
    let alive = Upstream::start();
    let dead = nobody();
    let text = base(
        "10/h",
        "  both: { match: { path: /both }, auth: public, upstream: both }\nupstreams:\n  both: { targets: [\"{dead}\", \"{alive}\"], health: { path: /, every: EVERY } }\n",
    );
    let start = text.replace("EVERY", "1s");
    let mut gateway = Gateway::config(&start).var("dead", dead).var("alive", alive.address()).start();
    let target = |gateway: &Gateway| {
        gateway.status()["upstreams"]["both"].as_array().unwrap().iter().find(|one| one["address"] == dead.to_string()).cloned().unwrap()
    };
    let before = eventually("the end of the dead target", || Some(target(&gateway)).filter(|target| target["healthy"] == false));
    accept(&mut gateway, &text.replace("EVERY", "1h"));
    assert_eq!(target(&gateway), before, "since the same moment");
    assert_eq!(gateway.get("/both", &[]).status, 200);
}

#[test]
fn reloads_at_once_are_carried_out_one_after_the_other() {
    let gateway = Gateway::start(&base("10/h", ""));
    std::thread::scope(|scope| {
        let all: Vec<_> = (0..4).map(|_| scope.spawn(|| reload(&gateway))).collect();
        for one in all {
            assert_eq!(one.join().unwrap().0, 0);
        }
    });
    assert_eq!(gateway.metric("sluice_reloads_total{result=\"accepted\"}"), 4.0);
}

#[test]
fn without_a_running_process_a_reload_says_so() {
    let mut gateway = Gateway::start(&base("10/h", ""));
    assert!(gateway.stop().success());
    let (code, _, wrong) = reload(&gateway);
    assert_eq!(code, 1);
    assert!(wrong.contains("no running sluice was found"), "{wrong}");
}

#[test]
fn reloads_leave_nothing_of_earlier_configurations_behind() {
    let shape = |turn: usize| {
        let route = format!("  r{turn}: {{ match: {{ path: /r }}, auth: public, limits: [l{turn}], upstream: u{turn} }}\n");
        let upstream = format!("upstreams: {{ u{turn}: {{ targets: [\"127.0.0.1:9\"], health: {{ path: /, every: 1h }} }} }}\n");
        let extra =
            format!("  x{turn}: {{ address: \"127.0.0.1:{{port:other}}\" }}\nlimits:\n  l{turn}: {{ rate: 1/s, by: [client_ip] }}\n");
        base("10/h", &format!("{route}{upstream}"))
            .replace("limits:\n", &extra)
            .replace("auth: public", &format!("listeners: [public, x{turn}], auth: public"))
    };
    let mut gateway = Gateway::start(&shape(0));
    let held = |gateway: &Gateway| {
        // The names of all series, each turn's own taken out, and what the process holds.
        let names = gateway.metrics().lines().filter(|line| !line.starts_with('#')).count();
        let entries = |what: &str| std::fs::read_dir(format!("/proc/{}/{what}", gateway.pid())).unwrap().count();
        (names, entries("fd"), entries("task"))
    };
    accept(&mut gateway, &shape(2));
    let before = eventually("the end of what the first reload has replaced", || Some(held(&gateway)));
    for turn in 3..=16 {
        accept(&mut gateway, &shape(turn));
        // Refused late, when everything else has been compiled.
        let failing = "tests: { no: { request: { url: http://x/counted, listener: public }, expect: { status: 200 } } }\n";
        gateway.rewrite(&format!("{}{failing}", shape(turn + 100)));
        let (code, _, wrong) = reload(&gateway);
        assert!(code == 1 && wrong.contains("test `no`"), "{wrong}");
    }
    eventually("no more series, descriptors and threads than at first", || {
        let now = held(&gateway);
        (now.0 <= before.0 && now.1 <= before.1 && now.2 <= before.2 + 1).then_some(())
    });
}
