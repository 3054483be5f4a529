//! The real Prometheus against the gateway's private listener: what it scrapes, what it answers to PromQL, and that nothing is declared in vain.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::process::{Child, Command, Stdio};
use std::time::{SystemTime, UNIX_EPOCH};

use rustix::process::{Pid, Resource, Rlimit, getrlimit, prlimit};
use serde_json::Value;

use super::harness::{Answer, Client, Gate, Gateway, HANDSHAKE, SWITCH, Step, Upstream, eventually, get, http2, nobody};
use super::keys::Signer;

/// A Prometheus that scrapes one gateway five times a second. Dropping it kills it.
struct Prometheus {
    child: Child,
    address: SocketAddr,
    _dir: tempfile::TempDir,
}

impl Prometheus {
    fn start(gateway: &Gateway) -> Prometheus {
        let dir = tempfile::tempdir().unwrap();
        let config = format!(
            "global: {{ scrape_interval: 200ms, scrape_timeout: 200ms }}\n\
             scrape_configs: [{{ job_name: sluice, static_configs: [{{ targets: [\"{}\"] }}] }}]\n",
            gateway.admin()
        );
        std::fs::write(dir.path().join("prometheus.yml"), config).unwrap();
        let mut child = None;
        let address = eventually("a Prometheus that is ready", || {
            let child = child.get_or_insert_with(|| {
                let free = nobody();
                let child = Command::new("prometheus")
                    .arg(format!("--config.file={}/prometheus.yml", dir.path().display()))
                    .arg(format!("--storage.tsdb.path={}/data", dir.path().display()))
                    .arg(format!("--web.listen-address={free}"))
                    .stdin(Stdio::null())
                    .stdout(Stdio::null())
                    .stderr(Stdio::null())
                    .spawn()
                    .expect("prometheus is installed: scripts/setup.sh test");
                Started { child, address: free }
            });
            let ready = Client::try_connect(child.address).ok()?.try_request("GET", "/-/ready", &[], b"").ok()?;
            (ready.status == 200).then_some(child.address)
        });
        let Started { child, .. } = child.take().expect("it was started");
        Prometheus { child, address, _dir: dir }
    }

    /// The samples of an instant query: labels without `job` and `instance` (Prometheus leaves out empty ones), and the value. At a moment, such
    /// as that of a scrape: a later one that fails takes all samples away.
    #[track_caller]
    fn query(&self, promql: &str, at: Option<f64>) -> BTreeMap<String, f64> {
        let escaped: String = promql.bytes().map(|byte| format!("%{byte:02X}")).collect();
        let at = at.map_or(String::new(), |at| format!("&time={at:.3}"));
        let answer = get(self.address, &format!("/api/v1/query?query={escaped}{at}"), &[]).json();
        assert_eq!(answer["status"], "success", "{promql}: {answer}");
        let samples = answer["data"]["result"].as_array().expect("an instant vector");
        samples.iter().map(|sample| (labels(&sample["metric"]), sample["value"][1].as_str().unwrap().parse().unwrap())).collect()
    }

    /// Waits for a scrape that began after now, and returns its time.
    #[track_caller]
    fn next_scrape(&self) -> f64 {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs_f64();
        eventually("a scrape", || self.query("timestamp(sluice_build_info)", None).values().copied().find(|at| *at > now))
    }
}

struct Started {
    child: Child,
    address: SocketAddr,
}

impl Drop for Prometheus {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn labels(metric: &Value) -> String {
    let hidden = ["job", "instance", "__name__"];
    let pairs = metric.as_object().unwrap().iter().filter(|(name, _)| !hidden.contains(&name.as_str()));
    pairs.map(|(name, value)| format!("{name}={}", value.as_str().unwrap())).collect::<Vec<_>>().join(" ")
}

/// One route for each way in which a request can end.
const ENDS: &str = r#"
listeners: { public: { address: "127.0.0.1:{port}" } }
authenticators:
  partners: { api_key: { header: x-api-key } }
consumers:
  reader: { keys: [{ sha256: "{reader}" }], scopes: [read] }
limits:
  tight: { rate: 2/h, by: [client_ip], stage: before_auth }
upstreams:
  good: { targets: ["{good}"] }
  dead: { targets: ["127.0.0.1:{port:dead}"] }
  slow: { targets: ["{slow}"], timeouts: { response: 100ms } }
routes:
  good: { match: { path: /good }, auth: public, upstream: good }
  closed: { match: { path: /closed }, auth: [partners], allow: { scopes: [write] }, upstream: good }
  tight: { match: { path: /tight }, auth: public, limits: [tight], upstream: good }
  dead: { match: { path: /dead }, auth: public, upstream: dead }
  slow: { match: { path: /slow }, auth: public, upstream: slow }
"#;

fn hash(key: &str) -> String {
    let digest = aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, key.as_bytes());
    digest.as_ref().iter().map(|byte| format!("{byte:02x}")).collect()
}

#[test]
fn prometheus_counts_each_answer_exactly_once_under_its_route_class_and_code() {
    let good = Upstream::start();
    let slow = Upstream::script(|_| vec![Step::Hang]);
    let key = "a-key-that-may-read-and-nothing-else";
    let gateway = Gateway::config(ENDS).var("good", good.address()).var("slow", slow.address()).var("reader", hash(key)).start();
    // path, header, expected status, how often: each another number, so that none can be taken for another.
    let ends: [(&str, Option<&str>, u16, u32, &str); 7] = [
        ("/good", None, 200, 7, "route=good status_class=2xx"),
        ("/closed", None, 401, 6, "code=credentials-missing route=closed status_class=4xx"),
        ("/closed", Some(key), 403, 5, "code=scope-missing route=closed status_class=4xx"),
        ("/nowhere", None, 404, 4, "code=route-not-found status_class=4xx"),
        ("/tight", None, 429, 8, "code=rate-limited route=tight status_class=4xx"),
        ("/dead", None, 502, 3, "code=upstream-connect-failed route=dead status_class=5xx"),
        ("/slow", None, 504, 2, "code=upstream-response-timeout route=slow status_class=5xx"),
    ];
    let ask = |path: &str, key: Option<&str>| {
        let headers: Vec<(&str, &str)> = key.map(|key| ("x-api-key", key)).into_iter().collect();
        gateway.get(path, &headers).status
    };
    // Two pass; after that, and after one of each, every series that is compared is there.
    assert_eq!([ask("/tight", None), ask("/tight", None)], [200, 200]);
    for (path, key, status, _, _) in ends {
        assert_eq!(ask(path, key), status, "{path}");
    }
    let total = || -> f64 {
        let text = gateway.metrics();
        text.lines()
            .filter(|line| line.starts_with("sluice_requests_total{"))
            .map(|line| line.rsplit_once(' ').unwrap().1.parse::<f64>().unwrap())
            .sum()
    };
    let settled = |count: f64| eventually("all requests are counted", || (total() >= count).then_some(()));
    settled(9.0);
    eventually("nine lines", || (gateway.metric("sluice_access_log_lines_total") == 9.0).then_some(()));

    let prometheus = Prometheus::start(&gateway);
    let before = prometheus.next_scrape();
    let mut sent = 0;
    for (path, key, status, times, _) in ends {
        for _ in 0..times {
            assert_eq!(ask(path, key), status, "{path}");
            sent += 1;
        }
    }
    settled(9.0 + f64::from(sent));
    // Lines are counted when they are written, a few milliseconds later.
    eventually("all lines", || (gateway.metric("sluice_access_log_lines_total") == 9.0 + f64::from(sent)).then_some(()));
    let after = prometheus.next_scrape();

    let increments = |metric: &str| -> BTreeMap<String, f64> {
        let all = prometheus.query(&format!("{metric} - {metric} @ {before:.3}"), Some(after));
        all.into_iter().filter(|(_, increment)| *increment != 0.0).collect()
    };
    let expected: BTreeMap<String, f64> = ends.iter().map(|(_, _, _, times, labels)| ((*labels).to_owned(), f64::from(*times))).collect();
    assert_eq!(increments("sluice_requests_total"), expected);
    let refused = [
        ("code=credentials-missing policy=auth", 6.0),
        ("code=rate-limited policy=limits", 8.0),
        ("code=route-not-found policy=route", 4.0),
        ("code=scope-missing policy=allow", 5.0),
        ("code=upstream-connect-failed policy=relay", 3.0),
        ("code=upstream-response-timeout policy=relay", 2.0),
    ];
    assert_eq!(increments("sluice_refusals_total"), refused.map(|(labels, n)| (labels.to_owned(), n)).into());
    assert_eq!(increments("sluice_limited_total"), [("key=client_ip limit=tight".to_owned(), 8.0)].into());
    assert_eq!(increments("sluice_access_log_lines_total"), [(String::new(), f64::from(sent))].into());
    assert_eq!(prometheus.query("sum(sluice_access_log_dropped_total)", Some(after)), [(String::new(), 0.0)].into());
    // A rate, as a dashboard asks for it, finds the series too.
    assert_eq!(prometheus.query("sum by (route) (rate(sluice_requests_total[1m])) > 0", Some(after)).len(), 6);
}

/// Everything that can be counted happens at least once.
const EVERYTHING: &str = r#"
server: { limits_memory: 1MiB }
listeners:
  public: { address: "127.0.0.1:{port}", connections: { max: 20, per_address: 10 }, deadlines: { header: 300ms } }
authenticators:
  idp: { jwt: { issuer: test, audiences: [test], algorithms: [ES256], keys: { url: "http://{good}/keys" } } }
limits:
  tight: { rate: 1/h, by: [client_ip] }
upstreams:
  good: { targets: ["{good}"] }
routes:
  good: { match: { path: /good/** }, auth: public, upstream: good }
  tokens: { match: { path: /tokens }, auth: [idp], upstream: good }
  shadowed: { match: { path: /shadowed }, auth: [idp], shadow: [auth], upstream: good }
  tight: { match: { path: /tight }, auth: public, limits: [tight], upstream: good }
"#;

/// The families that `/metrics` shows with a value that is not 0.
fn fed(text: &str) -> BTreeSet<String> {
    let value = |line: &str| line.rsplit_once(' ').and_then(|(_, value)| value.parse::<f64>().ok()).unwrap_or_default();
    let series = text.lines().filter(|line| !line.starts_with('#') && value(line) != 0.0);
    let name = |line: &str| line.split(['{', ' ']).next().unwrap_or_default().to_owned();
    series.map(name).map(|name| name.trim_end_matches("_bucket").trim_end_matches("_sum").trim_end_matches("_count").to_owned()).collect()
}

#[test]
fn no_metric_is_declared_and_never_fed_and_promtool_finds_nothing_to_mend() {
    let signer = Signer::generate("k1");
    let gate = Gate::new();
    let good = Upstream::script({
        let (gate, keys) = (gate.clone(), signer.jwks());
        move |request| match request.target.as_str() {
            "/keys" => Answer::ok(keys.clone()).steps(),
            "/good/socket" => vec![Step::Send(SWITCH.into()), Step::Send(b"bytes".into()), Step::WaitFor(gate.clone()), Step::Close],
            "/good/waits" => vec![Step::WaitFor(gate.clone()), Step::Send(Answer::ok("at last").bytes())],
            _ => Answer::ok("hello").steps(),
        }
    });
    let gateway = Gateway::config(EVERYTHING).var("good", good.address()).start();
    let mut seen = BTreeSet::new();

    // Answers of every kind, a token once verified and once remembered.
    let bearer =
        format!("Bearer {}", signer.token(&serde_json::json!({ "iss": "test", "aud": "test", "sub": "u1", "exp": 4_102_444_800_u64 })));
    let mut client = gateway.client();
    assert_eq!(client.post("/good/x", &[], b"some bytes").status, 200);
    for _ in 0..2 {
        assert_eq!(client.get("/tokens", &[("authorization", &bearer)]).status, 200);
    }
    let unknown = format!("Bearer {}", Signer::generate("k2").token(&serde_json::json!({ "iss": "test" })));
    assert_eq!(client.get("/tokens", &[("authorization", &unknown)]).code(), "token-key-unknown");
    assert_eq!(client.get("/shadowed", &[]).status, 200);
    assert_eq!(client.get("/tight", &[]).status, 200);
    assert_eq!(client.get("/tight", &[]).status, 429);

    // A head that is none, one that does not come, one that is cut.
    gateway.client().send("GET / HTTP/1.1\r\nbad header: 1\r\n\r\n").read_to_end();
    gateway.client().expect_close();
    drop({
        let mut cut = gateway.client();
        cut.send("GET / HT");
        cut
    });
    let dropped =
        |reason: &str| gateway.metric_now(&format!("sluice_connections_dropped_total{{listener=\"public\",reason=\"{reason}\"}}"));
    eventually("the cut head is counted", || (dropped("cut") == 1.0).then_some(()));
    eventually("the head that does not come is counted", || (dropped("header_deadline") >= 1.0).then_some(()));

    let mut http2 = http2::Http2::connect(gateway.address());
    http2.ask(1, &http2::fields("POST", "/nowhere", &[("content-type", "application/grpc")])).answer(1);
    drop(http2);
    let mut socket = gateway.client();
    socket.send(format!("GET /good/socket HTTP/1.1\r\n{HANDSHAKE}\r\n"));
    assert_eq!(socket.read().status, 101);
    assert_eq!(socket.read_exactly(5), b"bytes");

    // Requests that are on their way while somebody looks.
    let mut waiting: Vec<Client> = (0..2).map(|_| gateway.client()).collect();
    waiting.iter_mut().for_each(|client| {
        client.send("GET /good/waits HTTP/1.1\r\nHost: test\r\n\r\n");
    });
    eventually("three requests in flight", || (gateway.metric_now("sluice_requests_in_flight{listener=\"public\"}") == 3.0).then_some(()));
    // The first client's, the socket and two that wait.
    eventually("four connections", || (gateway.metric_now("sluice_connections{listener=\"public\"}") == 4.0).then_some(()));
    seen.extend(fed(&gateway.metrics_now()));
    gate.open();
    waiting.iter_mut().for_each(|client| assert_eq!(client.read().status, 200));
    socket.read_to_end();
    drop(waiting);
    eventually("none in flight", || (gateway.metric_now("sluice_requests_in_flight{listener=\"public\"}") == 0.0).then_some(()));
    eventually("one connection", || (gateway.metric_now("sluice_connections{listener=\"public\"}") == 1.0).then_some(()));

    // More connections than one address may have.
    let crowd: Vec<Client> = (0..10).map(|_| gateway.client()).collect();
    eventually("an address that is full", || (dropped("per_address") >= 1.0).then_some(()));
    drop(crowd);

    // A reload, and one that is refused.
    assert!(gateway.sluice(&["reload", "sluice.yaml"]).status.success());
    std::fs::write(gateway.file(), "listeners: {}").unwrap();
    assert!(!gateway.sluice(&["reload", "sluice.yaml"]).status.success());

    let text = gateway.metrics();
    seen.extend(fed(&text));
    let hard_to_reach = [
        "sluice_limiter_evicted_total",
        "sluice_limiter_overflowed_total",
        "sluice_access_log_dropped_total",
        "sluice_access_log_left_out_total",
        "sluice_access_log_errors_total",
    ];
    let silent: Vec<&str> = sluice::report::metrics::family::ALL
        .iter()
        .map(|family| family.name)
        // These have tests of their own, in `tls.rs`, `limits.rs`, `consumers.rs`, `introspection.rs`, `finding.rs`, `failing.rs`, `fallback.rs`, `fault.rs`,
        // `mirror.rs`, `retries.rs` and `shedding.rs`.
        .filter(|name| {
            ![
                "sluice_tls_",
                "sluice_limit_",
                "sluice_list_",
                "sluice_tagged_",
                "sluice_introspections_",
                "sluice_found_",
                "sluice_fallbacks_",
                "sluice_faults_",
                "sluice_mirrored_",
                "sluice_upstream_retries",
                "sluice_shed_",
                "sluice_upstream_concurrency_",
            ]
            .iter()
            .any(|begin| name.starts_with(begin))
        })
        .filter(|name| {
            let of_failing = ["out", "ejections_total", "circuit_opened_total"].map(|end| format!("sluice_target_{end}"));
            let of_upstreams = ["panic", "spared_total", "waiting", "connections_open", "connections_over_total"]
                .map(|end| format!("sluice_upstream_{end}"));
            !name.starts_with("sluice_circuit_") && !of_failing.iter().chain(&of_upstreams).any(|own| own == name)
        })
        .filter(|name| !seen.contains(*name) && !hard_to_reach.contains(name))
        .collect();
    assert_eq!(silent, Vec::<&str>::new(), "declared, and nobody has fed them");
    for name in hard_to_reach {
        assert!(text.contains(&format!("\n{name} 0\n")), "{name} is shown at 0; its own test makes it move");
    }
    promtool(&text);
}

/// `promtool check metrics` on a scrape.
#[track_caller]
fn promtool(text: &str) {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("metrics");
    std::fs::write(&file, text).unwrap();
    let scrape = std::fs::File::open(&file).unwrap();
    let checked =
        Command::new("promtool").args(["check", "metrics"]).stdin(scrape).output().expect("promtool is installed: scripts/setup.sh test");
    let said = String::from_utf8_lossy(&checked.stderr);
    assert!(checked.status.success() && said.is_empty(), "promtool: {said}");
}

#[test]
fn with_no_descriptor_left_connections_wait_are_counted_and_are_served_in_the_end() {
    let good = Upstream::start();
    let config = "listeners: { public: { address: \"127.0.0.1:{port}\" } }\nupstreams: { good: { targets: [\"{good}\"] } }\n\
                  routes: { all: { match: { path: /** }, auth: public, upstream: good } }\n";
    let gateway = Gateway::config(config).var("good", good.address()).start();
    let mut looking = Client::connect(gateway.admin());
    let mut dropped = || -> f64 {
        let text = looking.get("/metrics", &[]).text().to_owned();
        let series = "sluice_connections_dropped_total{listener=\"public\",reason=\"no_descriptors\"} ";
        text.lines().find_map(|line| line.strip_prefix(series)?.parse().ok()).unwrap()
    };
    assert_eq!(dropped(), 0.0);
    let pid = Pid::from_raw(i32::try_from(gateway.pid()).unwrap());
    let used = std::fs::read_dir(format!("/proc/{}/fd", gateway.pid())).unwrap().count() as u64;
    let maximum = getrlimit(Resource::Nofile).maximum;
    let before = prlimit(pid, Resource::Nofile, Rlimit { current: Some(used), maximum }).unwrap();
    let mut waiting = gateway.client();
    eventually("a connection that cannot be accepted", || (dropped() >= 1.0).then_some(()));
    prlimit(pid, Resource::Nofile, before).unwrap();
    assert_eq!(waiting.get("/", &[]).status, 200, "the listener lives on");
}

#[test]
fn a_listener_that_is_full_drops_connections_and_counts_them() {
    let config = "listeners: { public: { address: \"127.0.0.1:{port}\", connections: { max: 1 } } }\n\
                  routes: { all: { match: { path: /** }, auth: public, respond: { status: 204 } } }\n";
    let gateway = Gateway::start(config);
    let mut first = gateway.client();
    assert_eq!(first.get("/", &[]).status, 204);
    gateway.client().expect_close();
    assert_eq!(gateway.metric("sluice_connections_dropped_total{listener=\"public\",reason=\"max\"}"), 1.0);
    assert_eq!(gateway.metric("sluice_connections_accepted_total{listener=\"public\"}"), 2.0);
    assert_eq!(gateway.metric("sluice_connections{listener=\"public\"}"), 1.0);
    assert_eq!(first.get("/", &[]).status, 204, "who was there before stays");
}

#[test]
fn a_slow_reader_of_the_log_makes_lines_drop_which_are_counted() {
    let config = "access_log: { to: /dev/full }\nlisteners: { public: { address: \"127.0.0.1:{port}\" } }\n\
                  routes: { all: { match: { path: /** }, auth: public, respond: { status: 204 } } }\n";
    let gateway = Gateway::start(config);
    for _ in 0..3 {
        assert_eq!(gateway.get("/", &[]).status, 204);
    }
    eventually("a failed write is counted", || (gateway.metric_now("sluice_access_log_errors_total") >= 1.0).then_some(()));
    eventually("lines are lost and counted", || (gateway.metric_now("sluice_access_log_dropped_total") >= 1.0).then_some(()));
    assert_eq!(gateway.metric("sluice_access_log_lines_total"), 0.0);
    gateway.stderr_line("/dev/full");
}

#[test]
fn more_callers_than_the_memory_of_limits_holds_are_counted() {
    let config = "server: { limits_memory: 1MiB }\nlisteners: { public: { address: \"127.0.0.1:{port}\" } }\n\
                  limits: { slow: { rate: 1/h, by: [\"header:x-caller\", client_ip] }, fast: { rate: 100/ms, by: [\"header:x-caller\", client_ip] } }\n\
                  routes:\n  slow: { match: { path: /slow }, auth: public, limits: [slow], respond: { status: 204 } }\n\
                  \x20 fast: { match: { path: /fast }, auth: public, limits: [fast], respond: { status: 204 } }\n";
    let gateway = Gateway::start(config);
    let mut client = gateway.client();
    let mut callers = 0;
    let mut call_until = |path: &str, metric: &str| {
        while gateway.metric(metric) == 0.0 {
            assert!(callers < 200_000, "the memory of 1 MiB has no end");
            let requests: String =
                (0..400).map(|n| format!("GET {path} HTTP/1.1\r\nHost: test\r\nx-caller: {}\r\n\r\n", callers + n)).collect();
            client.send(requests);
            // The shared bucket of those for whom there is no room is soon empty.
            (0..400).for_each(|_| assert!(matches!(client.read().status, 204 | 429)));
            callers += 400;
        }
    };
    call_until("/fast", "sluice_limiter_evicted_total");
    call_until("/slow", "sluice_limiter_overflowed_total");
}

/// `UPDATE=1` writes the table anew.
#[test]
fn the_table_of_metrics_in_the_docs_is_the_one_in_the_source() {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/docs/observability.md");
    let page = std::fs::read_to_string(path).unwrap();
    let mut table = "<!-- metrics:start -->\n| metric | kind | labels | meaning |\n|---|---|---|---|\n".to_owned();
    for family in sluice::report::metrics::family::ALL {
        let labels: Vec<_> = family.labels.iter().map(|label| format!("`{label}`")).collect();
        let kind = format!("{:?}", family.kind).to_lowercase();
        table.push_str(&format!("| `{}` | {kind} | {} | {} |\n", family.name, labels.join(", "), family.help));
    }
    let (before, rest) = page.split_once("<!-- metrics:start -->").unwrap();
    let (_, after) = rest.split_once("<!-- metrics:end -->").unwrap();
    let fresh = format!("{before}{table}<!-- metrics:end -->{after}");
    if std::env::var_os("UPDATE").is_some() {
        std::fs::write(path, fresh).unwrap();
    } else {
        assert_eq!(page, fresh, "UPDATE=1 writes it anew");
    }
}
