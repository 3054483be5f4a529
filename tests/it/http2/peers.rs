//! Clients of HTTP/2 that others wrote, and changes of the gateway while streams are open.

use std::process::Command;

use crate::harness::http2::{self as h2, Http2, get_fields};
use crate::harness::{Answer, Gate, Gateway, Step, Upstream, eventually};

const CONFIG: &str = r#"
server: { threads: 2, drain: 20s }
listeners: { public: { address: "127.0.0.1:{port}" } }
upstreams: { up: { targets: ["{up}"] } }
routes: { any: { match: { path: /a/** }, auth: public, upstream: up } }
"#;

fn run(program: &str, args: &[&str]) -> String {
    let output =
        Command::new(program).args(args).output().unwrap_or_else(|error| panic!("{program}: {error}; `scripts/setup.sh test` installs it"));
    String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr)
}

#[test]
fn h2load_gets_an_answer_to_each_of_its_requests() {
    let upstream = Upstream::answering(Answer::ok("x".repeat(2000)));
    let gateway = Gateway::config(CONFIG).var("up", upstream.address()).start();
    let url = format!("http://{}/a/b", gateway.address());
    let said = run("h2load", &["-n", "3000", "-c", "6", "-m", "100", "-t", "1", &url]);
    assert!(said.contains("3000 succeeded, 0 failed, 0 errored, 0 timeout") && said.contains("status codes: 3000 2xx"), "{said}");
    let logged = gateway.log_lines(3000);
    assert!(logged.iter().all(|line| line["protocol"] == "HTTP/2.0" && line["status"] == 200 && line["bytes_out"] == 2000));
}

#[test]
fn curl_speaks_http2_and_http1_to_the_same_listener() {
    let upstream = Upstream::answering(Answer::ok("hello"));
    let gateway = Gateway::config(CONFIG).var("up", upstream.address()).start();
    let url = format!("http://{}/a/b", gateway.address());
    let show = ["-s", "--max-time", "20", "-w", " %{http_version} %{http_code} %{num_connects}"];
    assert_eq!(run("curl", &[&show[..], &["--http2-prior-knowledge", &url]].concat()), "hello 2 200 1");
    assert_eq!(run("curl", &[&show[..], &["--http1.1", &url]].concat()), "hello 1.1 200 1");
    // `Upgrade: h2c` is obsolete (RFC 9113 section 3.1): answered in HTTP/1.1, and never forwarded.
    assert_eq!(run("curl", &[&show[..], &["--http2", &url]].concat()), "hello 1.1 200 1");
    assert!(upstream.requests().iter().all(|request| request.header("upgrade").is_none() && request.header("http2-settings").is_none()));
}

#[test]
fn a_reload_leaves_streams_and_connections_alone() {
    let gate = Gate::default();
    let held = gate.clone();
    let upstream = Upstream::script(move |request| match request.target.as_str() {
        "/a/held" => [vec![Step::WaitFor(held.clone())], Answer::ok("late").steps()].concat(),
        _ => Answer::ok("x").steps(),
    });
    let mut gateway = Gateway::config(CONFIG).var("up", upstream.address()).start();
    let mut client = Http2::connect(gateway.address());
    client.ask(1, &get_fields("/a/held", &[]));
    eventually("the request at the upstream", || (upstream.open_connections() == 1).then_some(()));
    gateway.reload(&CONFIG.replace("/a/**", "\"/{x}/**\""));
    let mut stream = 1;
    eventually("the new routes on the old connection", || {
        stream += 2;
        (client.get(stream, "/b/c").status == 200).then_some(())
    });
    gate.open();
    assert_eq!(client.answer(1).text(), "late");
    assert!(client.goaways.is_empty());
}

#[test]
fn an_upgrade_lets_streams_end_and_sends_their_client_to_the_new_process() {
    let gate = Gate::default();
    let held = gate.clone();
    let upstream = Upstream::script(move |request| match request.target.as_str() {
        "/a/held" => [vec![Step::WaitFor(held.clone())], Answer::ok("late").steps()].concat(),
        _ => Answer::ok("x").steps(),
    });
    let gateway = Gateway::config(CONFIG).var("up", upstream.address()).start();
    let old = gateway.serving_pid();
    let mut client = Http2::connect(gateway.address());
    client.ask(1, &get_fields("/a/held", &[]));
    eventually("the request at the upstream", || (upstream.open_connections() == 1).then_some(()));
    gateway.signal(rustix::process::Signal::USR2);
    while client.goaways.is_empty() {
        client.step().expect("a GOAWAY");
    }
    eventually("the new process", || (gateway.serving_pid() != old).then_some(()));
    assert_eq!(Http2::connect(gateway.address()).get(1, "/a/b").status, 200);
    gate.open();
    assert_eq!(client.answer(1).text(), "late");
    client.until_closed();
    assert!(client.goaways.iter().all(|(reason, _)| *reason == h2::NO_ERROR));
}
