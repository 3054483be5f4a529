//! Clients of HTTP/2 that others wrote, and changes of the gateway while streams are open.

use std::process::Command;

use crate::harness::http2::{self as h2, Http2, get_fields};
use crate::harness::{Answer, Ca, Gate, Gateway, PythonClient, PythonServer, Step, Upstream, eventually};

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
    let gateway = Gateway::config(CONFIG).var("up", upstream.address()).own_program().start();
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

#[test]
fn curl_and_h2load_speak_http2_over_tls() {
    let upstream = Upstream::answering(Answer::ok("x".repeat(2000)));
    let leaf = Ca::new("Test").server(&["shop.example"]);
    let with_tls = CONFIG.replace("{port}\" }", "{port}\", tls: { certificates: { shop: { chain: shop.pem, key: shop.key } } } }");
    let config = Gateway::config(&with_tls).var("up", upstream.address());
    let gateway = config.file("shop.pem", leaf.chain).file("shop.key", leaf.key).start();
    let port = gateway.address().port();
    let (url, resolve) = (format!("https://shop.example:{port}/a/b"), format!("shop.example:{port}:127.0.0.1"));
    let show = [
        "-sk",
        "--resolve",
        &resolve,
        "--max-time",
        "20",
        "-o",
        "/dev/null",
        "-w",
        "%{http_version} %{http_code} %{size_download} %{num_connects}",
    ];
    assert_eq!(
        run("curl", &[&show[..], &["--http2", &url, "--next"], &show[..], &["--http1.1", &url]].concat()),
        "2 200 2000 11.1 200 2000 1"
    );
    let said = run("h2load", &["--connect-to", &format!("127.0.0.1:{port}"), "-n", "2000", "-c", "4", "-m", "50", "-t", "1", &url]);
    assert!(said.contains("2000 succeeded, 0 failed, 0 errored, 0 timeout") && said.contains("Application protocol: h2"), "{said}");
    let logged = gateway.log_lines(2002);
    let over_h2 =
        logged.iter().filter(|line| line["protocol"] == "HTTP/2.0" && line["tls_version"] == "1.3" && line["status"] == 200).count();
    assert_eq!(over_h2, 2001);
}

/// Requests on one connection, and how they fare: those up to the one that the last GOAWAY names are answered, the others never begun with.
fn until_told_to_go(gateway: &Gateway, upstream: &Upstream) -> usize {
    let mut client = Http2::connect(gateway.address());
    let mut sent = 0;
    while client.goaways.is_empty() && !client.is_over() {
        assert_eq!(client.get(2 * sent + 1, "/a/b").status, 200);
        sent += 1;
    }
    // What crosses the GOAWAY on its way.
    client.ask(2 * sent + 1, &get_fields("/a/crossing", &[])).until_closed();
    let (reason, last) = *client.goaways.last().unwrap();
    assert_eq!(reason, h2::NO_ERROR);
    let is_answered = client.peek(2 * sent + 1).is_some_and(|answer| answer.status == 200);
    assert_eq!(is_answered, last > 2 * sent, "{:?}", client.goaways);
    let is_begun = upstream.requests().iter().any(|request| request.target == "/a/crossing");
    assert_eq!(is_begun, is_answered);
    sent as usize
}

#[test]
fn a_connection_of_http2_that_is_old_or_has_carried_enough_is_told_to_go_and_loses_no_request() {
    let upstream = Upstream::answering(Answer::ok("x"));
    let with = |bounds: &str| CONFIG.replace("{port}\" }", &format!("{{port}}\", connections: {{ {bounds} }} }}"));
    let gateway = Gateway::config(&with("requests: 5")).var("up", upstream.address()).start();
    assert_eq!(until_told_to_go(&gateway, &upstream), 5);
    let upstream = Upstream::answering(Answer::ok("x"));
    let gateway = Gateway::config(&with("age: 1s")).var("up", upstream.address()).start();
    assert!(until_told_to_go(&gateway, &upstream) > 1);

    // An answer that takes longer than the connection may live is given all the same.
    let gate = Gate::default();
    let held = gate.clone();
    let upstream = Upstream::script(move |_| [vec![Step::WaitFor(held.clone())], Answer::ok("late").steps()].concat());
    let gateway = Gateway::config(&with("age: 300ms")).var("up", upstream.address()).start();
    let mut client = Http2::connect(gateway.address());
    client.ask(1, &get_fields("/a/held", &[]));
    while client.goaways.is_empty() {
        client.step().expect("a GOAWAY");
    }
    gate.open();
    assert_eq!(client.answer(1).text(), "late");
    client.until_closed();
}

#[test]
fn a_client_that_others_wrote_loses_no_call_where_connections_are_short() {
    let calls = PythonServer::start("grpc_server.py", &[]);
    let config = CONFIG.replace("{port}\" }", "{port}\", connections: { requests: 7, age: 1s } }").replace("/a/**", "/**");
    let gateway = Gateway::config(&config.replace("[\"{up}\"]", "[\"{up}\"], protocol: h2")).var("up", calls.address()).start();
    let client = PythonClient::start("grpc_client.py", &["unaries", &gateway.address().to_string(), "{}"]);
    gateway.log_lines(100);
    let told = client.said_after_input();
    assert_eq!((told["errors"].as_array().map(Vec::len), told["count"].as_u64() >= Some(100)), (Some(0), true), "{told}");
}
