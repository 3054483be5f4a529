//! Targets that no configuration lists: a file, DNS, and stand-ins for Consul and Kubernetes, as the real binary finds them.

use std::net::Ipv4Addr;
use std::sync::{Arc, Condvar, Mutex};

use serde_json::{Value, json};

use super::harness::dns::{Dns, Record};
use super::harness::tls_front::TlsFront;
use super::harness::*;

const CONFIG: &str = "
server: { threads: 1, settle: 0s }
listeners: { l: { address: \"127.0.0.1:{port}\" } }
{top}
upstreams: { u: { targets_from: {from}, timeouts: { connect: 1s }, {more} retries: { attempts: 1 } } }
routes: { r: { match: { path: /** }, auth: public, upstream: u } }
";

fn config(from: &str, top: &str, more: &str) -> Config {
    Gateway::config(&CONFIG.replace("{from}", from).replace("{top}", top).replace("{more}", more))
}

/// Upstreams that say who they are.
fn named(names: &[&str]) -> Vec<Upstream> {
    names.iter().map(|name| Upstream::answering(Answer::ok(*name))).collect()
}

/// Who answers, each once, sorted; asked often enough for all to have their turn.
fn who(gateway: &Gateway) -> String {
    let mut names: Vec<String> =
        (0..12).map(|_| gateway.get("/", &[])).map(|a| if a.status == 200 { a.text().to_owned() } else { a.code() }).collect();
    names.sort();
    names.dedup();
    names.join(" ")
}

fn wait_for(gateway: &Gateway, expected: &str) {
    eventually(&format!("{expected} answer"), || (who(gateway) == expected).then_some(()));
}

/// As an operator should: the new file takes the old one's place.
fn replace(gateway: &Gateway, name: &str, text: &str) {
    std::fs::write(gateway.dir().join("new"), text).unwrap();
    std::fs::rename(gateway.dir().join("new"), gateway.dir().join(name)).unwrap();
}

fn list(upstreams: &[&Upstream]) -> String {
    upstreams.iter().map(|upstream| format!("- {}\n", upstream.address())).collect()
}

#[test]
fn targets_of_a_file_change_without_a_reload_and_a_bad_file_changes_nothing() {
    let all = named(&["a", "b", "c"]);
    let gateway = config("{ file: targets.yaml }", "", "")
        .file("targets.yaml", list(&[&all[0], &all[1]]))
        .file("others.yaml", list(&[&all[2]]))
        .start();
    assert_eq!(who(&gateway), "a b", "those of its own file alone");
    replace(&gateway, "targets.yaml", &list(&[&all[1], &all[2]]));
    wait_for(&gateway, "b c");
    let (came, went) = (all[2].address(), all[0].address());
    gateway.stderr_line(&format!("targets.yaml: 2 targets: 1 ({came}) new, 1 ({went}) gone"));

    replace(&gateway, "targets.yaml", &format!("- {went}\n- nonsense\n"));
    let told = gateway.stderr_line("the 2 targets that were found before stay");
    assert!(told.contains("line 2: not a target: the port is missing"), "{told}");
    assert_eq!(who(&gateway), "b c");
    let found = eventually("the failure is shown", || Some(gateway.status()["found"]["u"].clone()).filter(|found| found["failures"] != 0));
    assert_eq!((&found["targets"], &found["failures"]), (&json!(2), &json!(1)), "{found:#}");
    assert!(found["last_result"].as_str().unwrap().starts_with("line 2"), "{found:#}");
    assert!(found["from"].as_str().unwrap().ends_with("targets.yaml") && found["age_s"].is_u64(), "{found:#}");
    assert_eq!(gateway.metric("sluice_found_targets{upstream=\"u\"}"), 2.0);
    assert_eq!(gateway.metric("sluice_found_answers_total{upstream=\"u\",result=\"failed\"}"), 1.0);

    std::fs::remove_file(gateway.dir().join("targets.yaml")).unwrap();
    gateway.stderr_line("there is no such file");
    assert_eq!(who(&gateway), "b c");
    replace(&gateway, "targets.yaml", &list(&[&all[0]]));
    wait_for(&gateway, "a");
    eventually("it is told", || (gateway.status()["found"]["u"]["last_result"] == "ok").then_some(()));
}

#[test]
fn a_file_of_targets_that_cannot_be_used_is_a_mistake_at_the_start() {
    for (text, told) in [
        (Some("- 127.0.0.1:1\n- { address: 127.0.0.1:1 }\n"), "targets.yaml:2:14: error[duplicate-target]"),
        (Some("targets: [127.0.0.1:1]\n"), "error[wrong-type]"),
        (Some("[]\n"), "error[no-targets]"),
        (None, "there is no such file"),
    ] {
        let config = config("{ file: targets.yaml }", "", "");
        let config = if let Some(text) = text { config.file("targets.yaml", text) } else { config };
        let Err(failure) = config.try_start() else { panic!("{text:?} is used") };
        assert!(failure.code == Some(78) && failure.stderr.contains(told), "{text:?}: {}", failure.stderr);
    }
}

#[test]
fn what_a_removed_target_has_under_way_ends_and_its_connections_are_not_found_again() {
    let gate = Gate::new();
    let held = gate.clone();
    let slow = Upstream::script(move |request| match request.target.as_str() {
        "/slow" => [vec![Step::WaitFor(held.clone())], Answer::ok("slow").steps()].concat(),
        _ => Answer::ok("a").steps(),
    });
    let other = &named(&["b"])[0];
    let gateway = config("{ file: targets.yaml }", "", "").file("targets.yaml", list(&[&slow])).start();
    assert_eq!(who(&gateway), "a");
    let address = gateway.address();
    let asking = std::thread::spawn(move || get(address, "/slow", &[]));
    eventually("the slow request is under way", || (gateway.status_now()["upstreams"]["u"][0]["requests_in_flight"] == 1).then_some(()));
    replace(&gateway, "targets.yaml", &list(&[other]));
    wait_for(&gateway, "b");
    let before = slow.connections();
    replace(&gateway, "targets.yaml", &list(&[&slow]));
    wait_for(&gateway, "a");
    assert_eq!(slow.connections(), before + 1, "it has come back, and nobody knows as whose");
    gate.open();
    assert_eq!(asking.join().unwrap().text(), "slow");
}

#[test]
fn an_address_that_changes_owner_gets_no_request_of_another_service() {
    let text = "
server: { threads: 2, settle: 0s }
listeners: { l: { address: \"127.0.0.1:{port}\" } }
upstreams: { orders: { targets_from: { file: orders.yaml } }, billing: { targets_from: { file: billing.yaml } } }
routes:
  orders: { match: { path: /orders }, auth: public, upstream: orders }
  billing: { match: { path: /billing }, auth: public, upstream: billing }
";
    let all: Vec<_> = (0..2).map(|_| Upstream::start()).collect();
    let gateway = Gateway::config(text).file("orders.yaml", list(&[&all[0]])).file("billing.yaml", list(&[&all[1]])).start();
    let ask = |path: &str| (0..8).for_each(|_| assert_eq!(gateway.get(path, &[]).status, 200));
    ask("/orders");
    ask("/billing");
    let swap = |orders: usize, billing: usize| {
        replace(&gateway, "orders.yaml", &list(&[&all[orders]]));
        replace(&gateway, "billing.yaml", &list(&[&all[billing]]));
        let is_at = |upstream: &str, index: usize| {
            let shown = gateway.status()["upstreams"][upstream].clone();
            shown.as_array().is_some_and(|targets| targets.len() == 1 && targets[0]["address"] == all[index].address().to_string())
        };
        eventually("both have moved", || (is_at("orders", orders) && is_at("billing", billing)).then_some(()));
    };
    swap(1, 0);
    let before = all.iter().map(|upstream| upstream.requests().len()).collect::<Vec<_>>();
    ask("/orders");
    ask("/billing");
    for (upstream, (before, path)) in all.iter().zip(before.into_iter().zip(["/billing", "/orders"])) {
        let got = upstream.requests();
        assert!(got[before..].iter().all(|request| request.target == path), "{got:?}");
        // A connection says by its number which requests it has carried.
        for one in 0..upstream.connections() {
            let mut paths: Vec<_> = got.iter().filter(|request| request.connection == one).map(|request| &request.target).collect();
            paths.dedup();
            assert!(paths.len() <= 1, "connection {one} carried {paths:?}");
        }
    }
}

#[test]
fn srv_records_are_targets_as_long_as_their_time_to_live_and_an_outage_changes_nothing() {
    let dns = Dns::start();
    let all = named(&["a", "b", "c"]);
    let srv = |ttl, upstream: &Upstream, host: &str| Record::Srv(ttl, 10, 5, upstream.address().port(), host.to_owned());
    for host in ["one.internal", "two.internal"] {
        dns.set(host, &[Record::A(1, Ipv4Addr::LOCALHOST)]);
    }
    dns.set("_http._tcp.orders.internal", &[srv(1, &all[0], "one.internal"), srv(1, &all[1], "two.internal")]);
    dns.set("_http._tcp.others.internal", &[srv(1, &all[2], "one.internal")]);
    let top = format!("resolver: {{ servers: [\"{}\"] }}", dns.address());
    let gateway = config("{ srv: _http._tcp.orders.internal }", &top, "").start();
    assert_eq!(who(&gateway), "a b");
    dns.set("_http._tcp.orders.internal", &[srv(1, &all[2], "two.internal")]);
    wait_for(&gateway, "c");
    dns.silence(true);
    gateway.stderr_line("the 1 targets that were found before stay");
    assert_eq!(who(&gateway), "c");
    dns.silence(false);
    dns.set("_http._tcp.orders.internal", &[srv(1, &all[0], "one.internal")]);
    wait_for(&gateway, "a");
    gateway.stderr_line("srv _http._tcp.orders.internal answers again");
}

#[test]
fn an_answer_of_addresses_holds_as_its_time_to_live_says_within_floor_and_ceiling() {
    let dns = Dns::start();
    let first = Upstream::answering(Answer::ok("a"));
    let port = first.address().port();
    let second = Upstream::on(&format!("127.0.0.2:{port}"), |_| Answer::ok("b").steps());
    dns.set("orders.internal", &[Record::A(3600, Ipv4Addr::LOCALHOST), Record::A(3600, Ipv4Addr::new(127, 0, 0, 2))]);
    let text = |bounds: &str| {
        format!(
            "
server: {{ threads: 1, settle: 0s }}
listeners: {{ l: {{ address: \"127.0.0.1:{{port}}\" }} }}
resolver: {{ servers: [\"{}\"], {bounds} }}
upstreams: {{ u: {{ targets: [\"orders.internal:{port}\"] }}, v: {{ targets: [\"nobody.internal:{port}\"] }} }}
routes: {{ r: {{ match: {{ path: /** }}, auth: public, upstream: u }}, s: {{ match: {{ path: /v }}, auth: public, upstream: v }} }}
",
            dns.address()
        )
    };
    let gateway = Gateway::start(&text("ttl_ceiling: 1s"));
    assert_eq!(who(&gateway), "a b");
    // Within an hour, it would not be asked for again.
    dns.set("orders.internal", &[Record::A(0, Ipv4Addr::new(127, 0, 0, 2))]);
    wait_for(&gateway, "b");
    drop(gateway);
    drop(second);

    let before = (dns.asked("orders.internal"), dns.asked("nobody.internal"));
    let gateway = Gateway::start(&text("ttl_floor: 10m"));
    eventually("what failed is asked for again and again", || (dns.asked("nobody.internal") > before.1 + 6).then_some(()));
    let asked = dns.asked("orders.internal") - before.0;
    assert!(asked <= 2, "an answer of no time to live is used for ten minutes: asked {asked} times");
    drop(gateway);
}

/// The index, the instances, and whether there is a leader.
type Catalogue = (u64, Value, bool);

/// Consul as its documentation has it: an index that grows, questions that are held back until it does.
struct Consul {
    state: Arc<(Mutex<Catalogue>, Condvar)>,
    /// What was asked, those questions that are held back among it.
    asked: Arc<Mutex<Vec<String>>>,
    server: Upstream,
}

impl Consul {
    fn start() -> Consul {
        let state = Arc::new((Mutex::new((7, json!([]), true)), Condvar::new()));
        let shared = state.clone();
        let asked = Arc::<Mutex<Vec<String>>>::default();
        let seen = asked.clone();
        let server = Upstream::script(move |request| {
            seen.lock().unwrap().push(request.target.clone());
            let index: u64 = request.target.split("index=").nth(1).map_or(0, |rest| rest.split('&').next().unwrap().parse().unwrap());
            let (lock, changed) = &*shared;
            let held = lock.lock().unwrap();
            let (held, _) = changed.wait_timeout_while(held, PATIENCE, |(now, _, is_well)| *is_well && *now <= index).unwrap();
            let (now, instances, is_well) = &*held;
            if !is_well {
                return Answer::new(500).body("rpc error: No cluster leader").steps();
            }
            if request.header("x-consul-token") != Some("s3cret") {
                return Answer::new(403).body("ACL not found").steps();
            }
            Answer::ok(instances.to_string()).header("x-consul-index", &now.to_string()).steps()
        });
        Consul { state, asked, server }
    }

    fn asked(&self) -> Vec<String> {
        self.asked.lock().unwrap().clone()
    }

    fn set(&self, upstreams: &[&Upstream]) {
        let instance = |upstream: &&Upstream| json!({ "Node": { "Node": "n", "Address": "127.0.0.1" }, "Service": { "Service": "orders", "Address": "", "Port": upstream.address().port(), "Weights": { "Passing": 1, "Warning": 1 } } });
        let mut state = self.state.0.lock().unwrap();
        state.0 += 1;
        state.1 = upstreams.iter().map(instance).collect();
        self.state.1.notify_all();
    }

    fn break_down(&self, is_broken: bool) {
        self.state.0.lock().unwrap().2 = !is_broken;
        self.state.1.notify_all();
    }
}

#[test]
fn instances_in_consul_are_targets_and_an_outage_of_consul_changes_nothing() {
    let consul = Consul::start();
    let all = named(&["a", "b"]);
    consul.set(&[&all[0]]);
    let from = format!(
        "{{ consul: {{ service: orders, tag: blue, datacenter: dc2, address: \"http://{}\", token: \"${{file:token}}\" }} }}",
        consul.server.address()
    );
    let gateway = config(&from, "", "").file("token", "s3cret\n").start();
    assert_eq!(who(&gateway), "a");
    assert_eq!(consul.asked()[0], "/v1/health/service/orders?passing=1&tag=blue&dc=dc2");
    consul.set(&[&all[0], &all[1]]);
    wait_for(&gateway, "a b");
    assert!(consul.asked().iter().any(|target| target.contains("&index=8&wait=60s")), "{:?}", consul.asked());
    consul.break_down(true);
    gateway.stderr_line("answered 500; the 2 targets that were found before stay");
    assert_eq!(who(&gateway), "a b");
    eventually("the failure is shown", || (gateway.status()["found"]["u"]["failures"].as_u64()? > 0).then_some(()));
    consul.break_down(false);
    gateway.stderr_line("answers again");
    consul.set(&[]);
    wait_for(&gateway, "no-healthy-target");
    consul.set(&[&all[1]]);
    wait_for(&gateway, "b");
    assert!(!gateway.stderr().contains("s3cret"));
}

#[test]
fn an_operator_drains_targets_that_are_found_from_their_first_moment_on() {
    let consul = Consul::start();
    let all = named(&["a", "b", "c"]);
    consul.set(&[&all[0], &all[1]]);
    let from = |drain: &str| {
        let server = consul.server.address();
        format!("{{ consul: {{ service: orders, address: \"http://{server}\", token: s3cret }}{drain} }}")
    };
    let drain = format!(", drain: [\"{}\", \"{}\"]", all[0].address(), all[2].address());
    let mut gateway = config(&from(&drain), "", "").start();
    assert_eq!(who(&gateway), "b");
    let line = gateway.stderr_line("is out: drained: `targets_from.drain` in the configuration");
    assert!(line.contains(&all[0].address().to_string()), "{line}");
    let line = gateway.stderr_line("not among the targets that are found");
    assert!(line.contains(&format!("`drain` names {}, which", all[2].address())), "{line}");
    // One that comes later, and one that goes and comes again.
    consul.set(&[&all[1], &all[2]]);
    eventually("the third is found", || {
        gateway.status()["upstreams"]["u"].to_string().contains(&all[2].address().to_string()).then_some(())
    });
    assert_eq!(who(&gateway), "b");
    consul.set(&[&all[0], &all[1], &all[2]]);
    eventually("all are found", || (gateway.metric_now("sluice_found_targets{upstream=\"u\"}") == 3.0).then_some(()));
    assert_eq!(who(&gateway), "b");
    assert!(all[0].requests().is_empty() && all[2].requests().is_empty());
    let told = String::from_utf8(gateway.sluice(&["explain", "sluice.yaml", "http://h/"]).stdout).unwrap();
    assert!(told.contains(&format!("drained where it is found: {}, {}", all[0].address(), all[2].address())), "{told}");
    gateway.reload(&CONFIG.replace("{from}", &from("")).replace("{top}", "").replace("{more}", ""));
    wait_for(&gateway, "a b c");
}

#[test]
fn a_file_drains_its_targets_without_a_reload() {
    let all = named(&["a", "b", "c"]);
    let gateway = config("{ file: targets.yaml }", "", "").file("targets.yaml", list(&[&all[0], &all[1]])).start();
    assert_eq!(who(&gateway), "a b");
    let drained = |upstream: &Upstream| format!("- {{ address: \"{}\", drain: true }}\n", upstream.address());
    replace(&gateway, "targets.yaml", &(drained(&all[0]) + &list(&[&all[1]]) + &drained(&all[2])));
    wait_for(&gateway, "b");
    assert!(all[2].requests().is_empty(), "never, not even once");
    replace(&gateway, "targets.yaml", &list(&[&all[0], &all[1]]));
    wait_for(&gateway, "a b");
}

#[test]
fn found_targets_that_nobody_watches_are_told() {
    let said = |more: &str| {
        let gateway = config("{ file: targets.yaml }", "", more).file("targets.yaml", "- 127.0.0.1:1\n").start();
        let output = gateway.sluice(&["check", gateway.file().to_str().unwrap()]);
        assert!(output.status.success());
        String::from_utf8([output.stdout, output.stderr].concat()).unwrap()
    };
    let told = said("");
    assert!(
        told.contains("upstream `u` finds its targets in file ") && told.contains("and has neither `health` nor `outlier_detection`"),
        "{told}"
    );
    assert!(!said("health: {},").contains("neither `health`"));
}

#[test]
fn a_source_is_asked_for_everything_once_at_the_start() {
    let consul = Consul::start();
    let all = Arc::new(named(&["a"]));
    consul.set(&[&all[0]]);
    let from = format!("{{ consul: {{ service: orders, address: \"http://{}\", token: s3cret }} }}", consul.server.address());
    let gateway = config(&from, "", "").start();
    assert_eq!(who(&gateway), "a");
    let asked = eventually("the second question", || Some(consul.asked()).filter(|asked| asked.len() > 1));
    let told: Vec<_> = asked.iter().map(|target| target.contains("index=8")).collect();
    assert_eq!(told, [false, true], "{asked:?}");

    let targets = all.clone();
    let api = Upstream::script(move |request| match request.target.contains("watch=1") {
        false => slices(10, &[slice("s1", 8, &[(&targets[0], true)])]),
        true => vec![Step::ReadBody, begin(), Step::Hang],
    });
    let authority = Ca::new("Cluster");
    let front = TlsFront::start(&authority.server(&["localhost"]), api.address());
    let address = format!("https://localhost:{}", front.address().port());
    let from =
        format!("{{ kubernetes: {{ service: o, namespace: s, port: http, address: \"{address}\", token_file: token, ca: ca.pem }} }}");
    let gateway = config(&from, "", "").file("token", "t\n").file("ca.pem", authority.pem.clone()).start();
    assert_eq!(who(&gateway), "a");
    let asked = api.wait_for_requests(2);
    let told: Vec<_> = asked.iter().map(|request| request.target.contains("watch=1")).collect();
    assert_eq!(told, [false, true], "{asked:?}");
}

/// The head of an answer that goes on, and lines of it.
fn chunk(text: &str) -> Step {
    Step::Send(format!("{:x}\r\n{text}\r\n", text.len()).into_bytes())
}

fn begin() -> Step {
    Step::Send(b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nTransfer-Encoding: chunked\r\n\r\n".to_vec())
}

fn event(kind: &str, object: &Value) -> Step {
    chunk(&(json!({ "type": kind, "object": object }).to_string() + "\n"))
}

fn slice(name: &str, version: u64, endpoints: &[(&Upstream, bool)]) -> Value {
    // One slice has one port, so each of these has a slice of its own.
    let port = endpoints.first().map_or(1, |(upstream, _)| upstream.address().port());
    let all: Vec<_> = endpoints.iter().map(|(_, ready)| json!({ "addresses": ["127.0.0.1"], "conditions": { "ready": ready } })).collect();
    json!({
        "kind": "EndpointSlice", "metadata": { "name": name, "resourceVersion": version.to_string() }, "addressType": "IPv4",
        "endpoints": all, "ports": [{ "name": "http", "port": port, "protocol": "TCP" }, { "name": "admin", "port": 1, "protocol": "TCP" }],
    })
}

fn slices(version: u64, items: &[Value]) -> Vec<Step> {
    let list = json!({ "kind": "EndpointSliceList", "metadata": { "resourceVersion": version.to_string() }, "items": items });
    Answer::ok(list.to_string()).steps()
}

#[test]
fn endpoints_of_a_kubernetes_service_are_targets_through_watches_that_end_and_versions_that_are_forgotten() {
    let all = Arc::new(named(&["a", "b", "c"]));
    let (grown, shrunk, forgotten) = (Gate::new(), Gate::new(), Gate::new());
    let gates = (grown.clone(), shrunk.clone(), forgotten.clone());
    let targets = all.clone();
    let counts = Mutex::new(0);
    let api = Upstream::script(move |request| {
        let mut counts = counts.lock().unwrap();
        if !request.target.contains("watch=1") {
            // Before the version is forgotten, and after.
            return match *counts {
                0..2 => slices(10, &[slice("s1", 8, &[(&targets[0], true)])]),
                _ => slices(20, &[slice("s3", 20, &[(&targets[1], true)])]),
            };
        }
        *counts += 1;
        match *counts {
            1 => vec![
                begin(),
                event("BOOKMARK", &json!({ "kind": "EndpointSlice", "metadata": { "resourceVersion": "11" } })),
                Step::WaitFor(gates.0.clone()),
                event("ADDED", &slice("s2", 12, &[(&targets[2], true)])),
                event("MODIFIED", &slice("s4", 13, &[(&targets[1], false)])),
                Step::WaitFor(gates.1.clone()),
                event("DELETED", &slice("s1", 14, &[])),
                chunk(""),
                Step::Close,
            ],
            2 => vec![
                begin(),
                Step::WaitFor(gates.2.clone()),
                event("ERROR", &json!({ "kind": "Status", "code": 410, "message": "too old resource version" })),
                chunk(""),
                Step::Close,
            ],
            3 => Answer::new(500).steps(),
            _ => vec![begin(), Step::Hang],
        }
    });
    let authority = Ca::new("Cluster");
    let front = TlsFront::start(&authority.server(&["localhost"]), api.address());
    let from = format!(
        "{{ kubernetes: {{ service: orders, namespace: shop, port: http, address: \"https://localhost:{}\", token_file: token, ca: ca.pem }} }}",
        front.address().port()
    );
    let gateway = config(&from, "", "").file("token", "first\n").file("ca.pem", authority.pem.clone()).start();
    wait_for(&gateway, "a");
    std::fs::write(gateway.dir().join("token"), "second\n").unwrap();
    grown.open();
    wait_for(&gateway, "a c");
    shrunk.open();
    wait_for(&gateway, "c");
    forgotten.open();
    wait_for(&gateway, "b");
    gateway.stderr_line("answered 500; the 1 targets that were found before stay");
    assert_eq!(who(&gateway), "b");

    let asked = eventually("it watches again", || {
        Some(api.requests()).filter(|asked| asked.iter().filter(|one| one.target.contains("watch=1")).count() >= 3)
    });
    let path = "/apis/discovery.k8s.io/v1/namespaces/shop/endpointslices?labelSelector=kubernetes.io%2Fservice-name%3Dorders";
    assert!(asked.iter().all(|one| one.target.starts_with(path)), "{asked:?}");
    let watches: Vec<_> = asked.iter().filter(|one| one.target.contains("watch=1")).collect();
    let from_version = |version: &str| watches.iter().any(|one| one.target.ends_with(&format!("&resourceVersion={version}")));
    assert!(from_version("10") && from_version("14") && from_version("20"), "{watches:?}");
    assert_eq!(asked[0].header("authorization"), Some("Bearer first"));
    assert_eq!(watches[1].header("authorization"), Some("Bearer second"), "a token is renewed while the gateway runs");
    assert!(!gateway.stderr().contains("Bearer"));
}

#[test]
fn consul_over_tls_is_believed_only_with_a_certificate_of_the_right_authority() {
    let consul = Consul::start();
    let all = named(&["a"]);
    consul.set(&[&all[0]]);
    let authority = Ca::new("Consul");
    let front = TlsFront::start(&authority.server(&["localhost"]), consul.server.address());
    let from = format!(
        "{{ consul: {{ service: orders, address: \"https://localhost:{}\", token: s3cret, ca: ca.pem }} }}",
        front.address().port()
    );
    let gateway = config(&from, "", "").file("ca.pem", authority.pem.clone()).start();
    wait_for(&gateway, "a");
    drop(gateway);
    let gateway = config(&from, "", "").file("ca.pem", Ca::new("Somebody").pem.clone()).start();
    gateway.stderr_line("the 0 targets that were found before stay");
    assert_eq!(who(&gateway), "no-healthy-target");
}
