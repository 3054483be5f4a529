//! Clients that mean harm: each bound of a listener against the real binary, told in an answer, a line and a figure.

use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use crate::harness::{Answer, Client, Gateway, PATIENCE, Upstream, eventually};

fn start(upstream: &Upstream, listener: &str) -> Gateway {
    let config = r#"
server: { threads: 2 }
listeners: { public: { address: "127.0.0.1:{port}", {listener} } }
upstreams: { up: { targets: ["{up}"] } }
routes:
  own: { match: { path: /own }, auth: public, respond: { status: 200, body: ok } }
  up: { match: { path: /up/** }, auth: public, upstream: up }
"#;
    Gateway::config(config).var("listener", listener).var("up", upstream.address()).start()
}

fn dropped(gateway: &Gateway, reason: &str) -> f64 {
    gateway.metric_now(&format!("sluice_connections_dropped_total{{listener=\"public\",reason=\"{reason}\"}}"))
}

fn refused(gateway: &Gateway, policy: &str, code: &str) -> f64 {
    gateway.metric_now(&format!("sluice_refusals_total{{policy=\"{policy}\",code=\"{code}\"}}"))
}

#[test]
fn an_address_that_opens_connections_too_fast_is_closed_and_counted() {
    let upstream = Upstream::start();
    let gateway = start(&upstream, "connections: { rate_per_address: 3/h }");
    let from = |last: u8| Client::connect_from([127, 0, 0, last].into(), gateway.address());
    for _ in 0..3 {
        assert_eq!(from(1).get("/own", &[]).status, 200);
    }
    for _ in 0..2 {
        from(1).expect_close();
    }
    assert_eq!(from(3).get("/own", &[]).status, 200, "another address has its own");
    assert_eq!(dropped(&gateway, "rate_per_address"), 2.0);
}

#[test]
fn the_last_answer_of_a_connection_that_is_old_or_has_carried_enough_says_so() {
    let upstream = Upstream::start();
    let gateway = start(&upstream, "connections: { requests: 2 }");
    for path in ["/own", "/up/a"] {
        let mut client = gateway.client();
        assert!(client.get(path, &[]).is_keep_alive());
        assert!(!client.get(path, &[]).is_keep_alive());
        client.expect_close();
    }
    let gateway = start(&upstream, "connections: { age: 300ms }");
    for path in ["/own", "/up/a"] {
        // The first answer of a connection may come late, too.
        let mut client = eventually("a connection that is young", || {
            let mut client = gateway.client();
            client.get(path, &[]).is_keep_alive().then_some(client)
        });
        eventually("the last answer", || (!client.get(path, &[]).is_keep_alive()).then_some(()));
        client.expect_close();
    }
    // A tunnel may be older.
    let echo = Upstream::script(|_| {
        let head = "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\nhello";
        vec![
            crate::harness::Step::Send(head.into()),
            crate::harness::Step::Pause(Duration::from_millis(500)),
            crate::harness::Step::Send("bye".into()),
        ]
    });
    let gateway = start(&echo, "connections: { age: 200ms, requests: 1 }");
    let mut client = gateway.client();
    client.send("GET /up/ws HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n");
    let mut head = String::new();
    while !head.ends_with("\r\n\r\n") {
        head.push(char::from(client.read_exactly(1)[0]));
    }
    assert!(head.starts_with("HTTP/1.1 101 ") && head.to_lowercase().contains("\r\nconnection: upgrade\r\n"), "{head}");
    assert_eq!(client.read_exactly(8), b"hellobye");
}

#[test]
fn a_body_that_drips_is_answered_logged_and_counted() {
    let upstream = Upstream::start();
    let gateway = start(&upstream, "deadlines: { body: 600ms }, minimum_rates: { body: 1MiB }");
    for (path, body) in [("/up/length", "Content-Length: 1000000\r\n\r\n"), ("/up/chunks", "Transfer-Encoding: chunked\r\n\r\nf4240\r\n")] {
        let mut client = gateway.client();
        client.send(format!("POST {path} HTTP/1.1\r\nHost: a\r\n{body}"));
        let mut sent = 0;
        // Never silent for as long as the deadline, and faster than the default, so that only the rate can end it.
        let some = [b'x'; 1000];
        eventually("the end of it", || {
            client.send(some);
            sent += some.len();
            std::thread::sleep(Duration::from_millis(40));
            gateway.log().iter().any(|line| line["path"] == path).then_some(())
        });
        assert!(sent < 1_000_000);
        let answer = client.read();
        assert_eq!((answer.status, answer.code().as_str(), answer.is_keep_alive()), (408, "body-too-slow", false));
        let line = gateway.log_line_where(|line| line["path"] == path);
        assert_eq!((line["status"].as_u64(), line["code"].as_str()), (Some(408), Some("body-too-slow")), "{line}");
    }
    eventually("the count", || (refused(&gateway, "request_body", "body-too-slow") == 2.0).then_some(()));
    upstream.wait_for_all_closed();
    assert!(upstream.requests().iter().all(|request| !request.is_complete));
    // Whoever is quick enough has the time that it takes.
    assert_eq!(gateway.client().post("/up/whole", &[], &[b'x'; 100_000]).status, 200);
}

#[test]
fn a_client_that_takes_its_answer_too_slowly_is_cut_off_logged_and_counted() {
    let upstream = Upstream::answering(Answer::ok(vec![b'x'; 64 << 20]));
    let gateway = start(&upstream, "deadlines: { write: 600ms }, minimum_rates: { answer: 1GiB }");
    let mut client = gateway.client();
    client.send("GET /up/big HTTP/1.1\r\nHost: a\r\n\r\n");
    let mut read = 0;
    eventually("the end of it", || {
        // Steady, and so much at once that no write is stuck for as long as the deadline, but too slow.
        read += client.read_up_to(400_000).len();
        std::thread::sleep(Duration::from_millis(20));
        gateway.log().iter().any(|line| line["path"] == "/up/big").then_some(())
    });
    assert!(read < 64 << 20);
    let line = gateway.log_line_where(|line| line["path"] == "/up/big");
    assert_eq!((line["status"].as_u64(), line["code"].as_str()), (Some(200), Some("reader-too-slow")), "{line}");
    eventually("the count", || (refused(&gateway, "relay", "reader-too-slow") == 1.0).then_some(()));
    upstream.wait_for_all_closed();
}

#[test]
fn a_line_that_is_too_long_is_answered_logged_and_counted() {
    let upstream = Upstream::start();
    let gateway = start(&upstream, "heads: { line: 500B }");
    let long = "x".repeat(500);
    for (path, headers, status, code) in
        [(format!("/{long}"), vec![], 414, "target-too-long"), ("/own".to_owned(), vec![("cookie", long.as_str())], 431, "field-too-long")]
    {
        let answer = gateway.get(&path, &headers);
        assert_eq!((answer.status, answer.code().as_str()), (status, code));
        gateway.log_line_where(|line| line["code"] == code && line["status"] == status);
        eventually("the count", || (refused(&gateway, "head", code) == 1.0).then_some(()));
    }
}

#[test]
fn heads_that_do_not_end_cannot_take_more_memory_than_allowed() {
    let upstream = Upstream::start();
    let gateway = start(&upstream, "heads: { bytes: 256KiB, line: 200KiB, memory: 1MiB }");
    let begun = format!("GET /own HTTP/1.1\r\nHost: a\r\nx-a: {}", "y".repeat(150 << 10));
    let mut held: Vec<Client> = (0..10).map(|_| gateway.client()).collect();
    held.iter_mut().for_each(|client| {
        client.send(&begun);
    });
    eventually("one that is too many", || (refused(&gateway, "head", "heads-full") >= 1.0).then_some(()));
    gateway.log_line_where(|line| line["code"] == "heads-full" && line["status"] == 503);
    assert_eq!(gateway.get("/own", &[]).status, 200, "small heads need none of it");
    let served = held.iter_mut().map(|client| client.send("\r\n\r\n").read().status).filter(|status| *status == 200).count();
    assert!((5..=7).contains(&served), "{served} of 150 KiB fit a MiB");
}

#[test]
fn where_descriptors_run_out_new_connections_are_refused_and_old_ones_served() {
    let upstream = Upstream::start();
    let config = r#"
server: { threads: 2 }
listeners: { public: { address: "127.0.0.1:{port}" } }
upstreams: { up: { targets: ["{up}"] } }
routes: { up: { match: { path: /** }, auth: public, upstream: up } }
"#;
    let gateway = Gateway::config(config).var("up", upstream.address()).descriptors(160).start();
    gateway.stderr_line("may open 160 files");
    let mut held = Vec::new();
    let full = eventually("the last place", || {
        let mut client = gateway.client();
        match client.try_request("GET", "/a", &[], b"") {
            Ok(answer) => {
                assert_eq!(answer.status, 200);
                held.push(client);
                None
            }
            Err(_) => Some(held.len()),
        }
    });
    assert!((30..80).contains(&full), "{full} connections");
    for _ in 0..200 {
        gateway.client().expect_close();
    }
    assert!(dropped(&gateway, "no_descriptors") >= 201.0);
    // Who is in is served, each with a connection to the upstream of its own at the same time, and probes are answered.
    for client in &mut held {
        client.send("GET /b HTTP/1.1\r\nHost: a\r\n\r\n");
    }
    for client in &mut held {
        assert_eq!(client.read().status, 200);
        assert_eq!(crate::harness::get(gateway.admin(), "/livez", &[]).status, 200);
    }
    // The accept loops do not spin: refusing costs time only as often as somebody comes.
    let cpu = || {
        let stat = std::fs::read_to_string(format!("/proc/{}/stat", gateway.pid())).expect("the process runs");
        let fields: Vec<u64> = stat.rsplit(')').next().unwrap_or_default().split(' ').filter_map(|field| field.parse().ok()).collect();
        fields[10] + fields[11]
    };
    let (begin, before) = (Instant::now(), cpu());
    let _waiting: Vec<Client> = (0..20).map(|_| gateway.client()).collect();
    while begin.elapsed() < Duration::from_secs(1) {
        assert_eq!(crate::harness::get(gateway.admin(), "/livez", &[]).status, 200);
    }
    assert!(cpu() - before < 80, "{} ticks of a hundred", cpu() - before);
    held.clear();
    eventually("room again", || gateway.client().try_request("GET", "/c", &[], b"").ok());
}

/// `slowhttptest` against a gateway: begun anew whenever it has come to its end.
struct Attack {
    name: &'static str,
    args: Vec<String>,
    child: Child,
    /// Good requests that were answered while it was under way.
    served: usize,
}

impl Attack {
    fn begin(name: &'static str, url: &str, args: &[&str]) -> Attack {
        let mut args: Vec<String> = args.iter().map(|arg| (*arg).to_owned()).collect();
        args.extend(["-u", url, "-c", "150", "-r", "150", "-l", "8", "-p", "20"].map(str::to_owned));
        Attack { name, child: Attack::run(&args), args, served: 0 }
    }

    fn run(args: &[String]) -> Child {
        let mut command = Command::new("slowhttptest");
        command.args(args).stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::null());
        command.spawn().expect("slowhttptest is installed: scripts/setup.sh test")
    }

    /// Whether it is under way. One that has ended has not found the service away.
    fn goes_on(&mut self) -> bool {
        if self.child.try_wait().expect("it is ours").is_none() {
            return true;
        }
        let ended = std::mem::replace(&mut self.child, Attack::run(&self.args));
        let said = ended.wait_with_output().expect("it has ended");
        let said = String::from_utf8_lossy(&said.stdout);
        assert!(!said.contains("service available:   NO"), "{}: {said}", self.name);
        false
    }
}

impl Drop for Attack {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[test]
fn slowhttptest_in_its_four_modes_takes_nothing_from_a_good_client() {
    let upstream = Upstream::script(|request| match request.target.as_str() {
        "/up/big" => Answer::ok(vec![b'x'; 4 << 20]).steps(),
        _ => Answer::ok("hello").steps(),
    });
    let bounds = "connections: { max: 1000, per_address: 600 }, deadlines: { header: 2s, keep_alive: 2s, body: 2s, write: 2s }";
    let gateway = start(&upstream, bounds);
    let url = |path: &str| format!("http://{}{path}", gateway.address());
    let mut attacks = [
        Attack::begin("slowloris", &url("/own"), &["-H", "-i", "1"]),
        Attack::begin("slow body", &url("/up/post"), &["-B", "-i", "1", "-s", "8192"]),
        Attack::begin("slow read", &url("/up/big"), &["-X", "-w", "1", "-y", "2", "-n", "1", "-z", "1", "-k", "1"]),
        Attack::begin("ranges", &url("/up/big"), &["-R", "-a", "1", "-b", "3000", "-t", "HEAD"]),
    ];
    // How often that is in a second is the machine's affair: each attack goes on until so many were served beside it.
    let begin = Instant::now();
    let noticed = || {
        let cut = refused(&gateway, "head", "header-timeout") + dropped(&gateway, "cut");
        cut > 0.0 && refused(&gateway, "request_body", "body-too-slow") > 0.0
    };
    while attacks.iter().any(|attack| attack.served < 50) || !noticed() {
        let under_way = attacks.each_mut().map(|attack| attack.goes_on());
        for path in ["/own", "/up/good"] {
            let answer = Client::connect_from([127, 0, 0, 9].into(), gateway.address()).get(path, &[]);
            assert_eq!(answer.status, 200);
        }
        assert_eq!(crate::harness::get(gateway.admin(), "/livez", &[]).status, 200);
        for (attack, was) in attacks.iter_mut().zip(under_way) {
            attack.served += if was && attack.child.try_wait().expect("it is ours").is_none() { 2 } else { 0 };
        }
        assert!(begin.elapsed() < 3 * PATIENCE, "{:?}", attacks.each_ref().map(|attack| (attack.name, attack.served)));
    }
    // Each was noticed for what it was.
    drop(attacks);
    eventually("no connection of theirs is left", || (gateway.metric_now("sluice_connections{listener=\"public\"}") == 0.0).then_some(()));
}
