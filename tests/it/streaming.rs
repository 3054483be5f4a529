//! What streams: events, long downloads and uploads, `Expect: 100-continue`, answers without a body, clients of HTTP/1.0.
//!
//! Between clients and servers that others wrote: curl, nginx, Python's own server. Where a fault is needed, a scripted one.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use super::harness::*;

const TEXT: &str = r#"
server: { threads: 2 }
listeners: { public: { address: "127.0.0.1:{port}", deadlines: { body: 60s, write: 60s } } }
authenticators: { partners: { api_key: { header: x-api-key } } }
consumers: { acme: { keys: [{ sha256: "9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08" }] } }
upstreams:
  python: { targets: ["{python}"], timeouts: { idle: 10m } }
  hasty: { targets: ["{python}"], timeouts: { idle: 300ms } }
  old: { targets: ["{old}"] }
  nginx: { targets: ["{nginx}"] }
routes:
  python: { match: { path: /python/** }, auth: public, upstream: python, rewrite: { strip_prefix: /python } }
  hasty: { match: { path: /hasty/** }, auth: public, upstream: hasty, rewrite: { strip_prefix: /hasty } }
  patient: { match: { path: /patient/** }, auth: public, upstream: hasty, rewrite: { strip_prefix: /patient }, timeouts: { idle: 10m } }
  impatient: { match: { path: /impatient/** }, auth: public, upstream: old, rewrite: { strip_prefix: /impatient }, timeouts: { response: 300ms } }
  old: { match: { path: /old/** }, auth: public, upstream: old, rewrite: { strip_prefix: /old } }
  nginx: { match: { path: /nginx/** }, auth: public, upstream: nginx, rewrite: { strip_prefix: /nginx } }
  small: { match: { path: /small/** }, auth: public, upstream: python, rewrite: { strip_prefix: /small }, body: { limit: 1KiB } }
  closed: { match: { path: /closed/** }, auth: [partners], upstream: python }
"#;

struct Setup {
    gateway: Gateway,
    python: PythonServer,
    old: PythonServer,
    nginx: Nginx,
}

fn start() -> Setup {
    let python = PythonServer::start("http_server.py", &["HTTP/1.1"]);
    let old = PythonServer::start("http_server.py", &["HTTP/1.0"]);
    let on = "client_max_body_size 0; proxy_http_version 1.1; proxy_request_buffering off;";
    let on = format!("location /upload {{ {on} proxy_pass http://{}; }} location /empty {{ return 204; }}", python.address());
    let nginx = Nginx::start(&on);
    let config = Gateway::config(TEXT).var("python", python.address()).var("old", old.address()).var("nginx", nginx.address());
    Setup { gateway: config.start(), python, old, nginx }
}

impl Setup {
    fn url(&self, path: &str) -> String {
        format!("http://{}{path}", self.gateway.address())
    }

    /// What curl writes and says, and `-w` on the last line of what it writes.
    fn curl(&self, path: &str, args: &[&str]) -> (String, String) {
        let output = curl(&self.url(path), args).output().expect("curl is installed: scripts/setup.sh test");
        (String::from_utf8_lossy(&output.stdout).into_owned(), String::from_utf8_lossy(&output.stderr).into_owned())
    }

    fn memory(&self) -> f64 {
        self.gateway.metric_now("process_resident_memory_bytes")
    }
}

fn curl(url: &str, args: &[&str]) -> Command {
    let mut command = Command::new("curl");
    command.args(["--noproxy", "*", "-sS", "-m", "20"]).args(args).arg(url);
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    command
}

/// Lets the server go on; it may speak a version that the harness does not.
#[track_caller]
fn release(server: &PythonServer, what: &str) {
    let mut client = Client::connect(server.address());
    client.send(format!("POST {what} HTTP/1.1\r\nHost: x\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"));
    let answer = client.read_to_end();
    assert!(answer[8..].starts_with(b" 200 "), "{}", String::from_utf8_lossy(&answer));
}

/// 251 is prime: what is lost, doubled or out of place does not go unnoticed.
fn pattern(size: usize) -> Vec<u8> {
    (0..size).map(|at| u8::try_from(at % 251).unwrap_or_default()).collect()
}

// === without delay ===

#[test]
fn each_event_reaches_the_client_before_the_next_is_sent() {
    let setup = start();
    for (server, path) in [
        (&setup.python, "/python/events?chunked"),
        (&setup.python, "/python/events?length"),
        (&setup.python, "/python/events?close"),
        (&setup.old, "/old/events?close"),
    ] {
        for version in ["--http1.1", "--http1.0"] {
            let mut child = curl(&setup.url(path), &["-N", version]).spawn().expect("curl is installed: scripts/setup.sh test");
            let mut lines = BufReader::new(child.stdout.take().expect("stdout is piped")).lines();
            for number in 0..5 {
                // Nothing more comes before it is asked for, so what is held back would be waited for in vain.
                let what = if number == 4 { "/release?last" } else { "/release" };
                release(server, what);
                let mut event = String::new();
                while !event.ends_with("\n\n") {
                    event += &format!("{}\n", lines.next().expect("an event").expect("text"));
                }
                assert_eq!(event.trim(), format!("data: {number}"), "{path} {version}");
            }
            let output = child.wait_with_output().expect("curl ends");
            assert!(output.status.success(), "{path} {version}: {}", String::from_utf8_lossy(&output.stderr));
        }
    }
}

#[test]
fn a_route_may_be_more_patient_than_its_upstream_and_less() {
    let setup = start();
    let open = |path: &str| {
        let mut client = setup.gateway.client();
        client.send(format!("GET {path} HTTP/1.1\r\nHost: x\r\n\r\n"));
        let mut head = Vec::new();
        while !head.ends_with(b"\r\n\r\n") {
            head.extend(client.read_exactly(1));
        }
        client
    };
    let mut patient = open("/patient/events?chunked");
    let mut hasty = open("/hasty/events?chunked");
    // It is cut first, though it came later.
    hasty.read_to_end();
    let line = setup.gateway.log_line_where(|line| line["route"] == "hasty");
    assert_eq!((&line["code"], &line["reason"]), (&json!("upstream-idle-timeout"), &json!("silence for 300ms")));
    // One for the one that was cut, who may take it or leave it.
    for _ in 0..2 {
        release(&setup.python, "/release?last");
    }
    assert_eq!(patient.read_exactly(3), b"A\r\n");
    let held = post(setup.gateway.address(), "/impatient/hold", &[], b"x");
    assert_eq!((held.status, held.code().as_str()), (504, "upstream-response-timeout"));
}

// === without buffering ===

const LONG: usize = 96 << 20;
/// What may be under way: the buffers of four sockets, where a kernel lets two grow to 32 MiB and two to 4.
const UNDER_WAY: usize = 80 << 20;
/// More than the gateway ever needs for one exchange.
const ROOM: f64 = 16.0 * 1024.0 * 1024.0;

#[test]
fn a_client_that_reads_slowly_holds_its_upstream_back() {
    let setup = start();
    let progress = || get(setup.python.address(), "/progress", &[]).json();
    let before = setup.memory();
    let mut client = TcpStream::connect(setup.gateway.address()).unwrap();
    write!(client, "GET /python/download?{LONG} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n").unwrap();
    let stuck: Value = eventually("an upstream that cannot go on", || {
        Some(progress()).filter(|now| now["blocked_ms"].as_u64().unwrap() > 500 && now["written"].as_u64().unwrap() > 0)
    });
    let written = usize::try_from(stuck["written"].as_u64().unwrap()).unwrap();
    assert!(written < UNDER_WAY, "{written} bytes are gone, and nobody has read any");
    let grown = setup.memory() - before;
    assert!(grown < ROOM, "the gateway has taken {grown} bytes");
    client.set_read_timeout(Some(PATIENCE)).unwrap();
    let mut answer = Vec::new();
    client.read_to_end(&mut answer).unwrap();
    let end = answer.windows(4).position(|four| four == b"\r\n\r\n").unwrap() + 4;
    assert!(answer[end..] == pattern(LONG), "{} bytes came", answer.len() - end);
    assert!(setup.memory() - before < ROOM);
}

#[test]
fn an_upstream_that_reads_slowly_holds_its_client_back() {
    let setup = start();
    let before = setup.memory();
    let length = format!("Content-Length: {LONG}");
    for framing in [&length[..], "Transfer-Encoding: chunked"] {
        let mut client = TcpStream::connect(setup.gateway.address()).unwrap();
        client.set_read_timeout(Some(PATIENCE)).unwrap();
        let mut writer = client.try_clone().unwrap();
        let written = Arc::new(AtomicUsize::new(0));
        let count = written.clone();
        let is_chunked = framing.starts_with('T');
        let head = format!("POST /python/hold HTTP/1.1\r\nHost: x\r\nConnection: close\r\n{framing}\r\n\r\n");
        let writing = std::thread::spawn(move || {
            writer.write_all(head.as_bytes()).unwrap();
            for piece in pattern(LONG).chunks(1 << 16) {
                if is_chunked {
                    write!(writer, "{:x}\r\n", piece.len()).unwrap();
                }
                writer.write_all(piece).unwrap();
                if is_chunked {
                    writer.write_all(b"\r\n").unwrap();
                }
                count.fetch_add(piece.len(), SeqCst);
            }
            if is_chunked {
                writer.write_all(b"0\r\n\r\n").unwrap();
            }
        });
        let mut last = (0, Instant::now());
        eventually("a client that cannot go on", || {
            let now = written.load(SeqCst);
            if now != last.0 {
                last = (now, Instant::now());
            }
            (now > 0 && last.1.elapsed() > Duration::from_millis(500)).then_some(())
        });
        assert!(last.0 < UNDER_WAY, "{} bytes are gone, and nobody has read any", last.0);
        let grown = setup.memory() - before;
        assert!(grown < ROOM, "the gateway has taken {grown} bytes");
        release(&setup.python, "/release");
        writing.join().unwrap();
        let mut answer = String::new();
        client.read_to_string(&mut answer).unwrap();
        assert!(answer.ends_with(&format!("{{\"read\": {LONG}}}")), "{framing}: {answer}");
    }
}

#[test]
fn files_pass_both_ways_between_curl_and_nginx() {
    let setup = start();
    let dir = tempfile::tempdir().unwrap();
    let (up, down) = (dir.path().join("up"), dir.path().join("down"));
    let (content, url) = (pattern(8 << 20), "/nginx/file");
    std::fs::write(&up, &content).unwrap();
    let (up, down) = (up.to_str().unwrap(), down.to_str().unwrap());
    let all = format!("{{\"read\": {}}}", content.len());
    assert_eq!(setup.curl("/nginx/upload", &["-T", up]).0, all);
    // From a pipe, of which nobody knows the length.
    let mut child = curl(&setup.url("/nginx/upload"), &["-T", "-"]).spawn().unwrap();
    child.stdin.take().unwrap().write_all(&content).unwrap();
    let output = child.wait_with_output().unwrap();
    assert_eq!(String::from_utf8_lossy(&output.stdout), all);
    setup.nginx.put("file", &content);
    for version in ["--http1.1", "--http1.0"] {
        let (said, _) = setup.curl(url, &[version, "-o", down, "-w", "%{http_code} %{size_download}"]);
        assert_eq!(said, format!("200 {}", content.len()));
        assert!(std::fs::read(down).unwrap() == content, "{version}");
    }
    let (said, _) = setup.curl(url, &["-r", "1000-1009", "-o", down, "-w", "%{http_code} %{size_download}"]);
    assert_eq!(said, "206 10");
    assert_eq!(std::fs::read(down).unwrap(), content[1000..1010]);
}

// === Expect: 100-continue ===

#[test]
fn a_client_that_waits_for_100_sends_its_body_only_where_it_is_wanted() {
    let setup = start();
    let dir = tempfile::tempdir().unwrap();
    let up = dir.path().join("up");
    std::fs::write(&up, pattern(100_000)).unwrap();
    let up = up.to_str().unwrap();
    // Longer than the test may take: who is not told to go on does not go on.
    let args = ["-v", "-H", "Expect: 100-continue", "--expect100-timeout", "30", "-T", up, "-w", "\n%{http_code} %{size_upload}"];
    for (path, said, is_told) in [
        ("/python/upload", "200 100000", true),
        ("/nginx/upload", "200 100000", true),
        ("/python/no", "417 0", false),
        ("/closed/upload", "401 0", false),
        ("/small/upload", "413 0", false),
        ("/nowhere", "404 0", false),
    ] {
        let args = if path == "/python/no" { [&args[..], &["--path-as-is"]].concat() } else { args.to_vec() };
        let (out, err) = setup.curl(path, &args);
        assert_eq!(out.lines().last(), Some(said), "{path}: {err}");
        let told = err.matches("< HTTP/1.1 100").count();
        assert_eq!(told, usize::from(is_told), "{path}: {err}");
    }
}

// === answers without a body ===

#[test]
fn answers_that_have_no_body_have_none_and_the_connection_goes_on() {
    let setup = start();
    setup.nginx.put("page", b"0123456789");
    let mut client = setup.gateway.client();
    let mut head = |path: &str, headers: &[(&str, &str)], method: &str| client.request(method, path, headers, b"");
    let got = head("/nginx/page", &[], "HEAD");
    assert_eq!((got.status, got.header("content-length"), got.body.len()), (200, Some("10"), 0));
    let etag = got.header("etag").unwrap().to_owned();
    let got = head("/nginx/page", &[("if-none-match", &etag)], "GET");
    assert_eq!((got.status, got.header("etag"), got.body.len()), (304, Some(etag.as_str()), 0));
    let got = head("/nginx/empty", &[], "GET");
    assert_eq!((got.status, got.header("content-length"), got.header("transfer-encoding")), (204, None, None));
    let got = head("/python/x", &[], "HEAD");
    assert_eq!((got.status, got.body.len()), (200, 0), "the length of a chunked answer is not known");
    let got = head("/nginx/page", &[], "GET");
    assert_eq!((got.status, got.text(), got.is_keep_alive()), (200, "0123456789", true));
    let lines = setup.gateway.log_lines(5);
    assert!(lines.iter().take(4).all(|line| line["bytes_out"] == 0), "{lines:?}");
}

#[test]
fn what_an_upstream_sends_where_no_body_may_be_does_not_reach_the_client() {
    let wrong = |status: &str| Step::Send(format!("HTTP/1.1 {status}\r\nContent-Length: 5\r\n\r\nwrong").into_bytes());
    let upstream = Upstream::script(move |request| match request.target.as_str() {
        "/204" => vec![wrong("204 No Content"), Step::Close],
        "/304" => vec![wrong("304 Not Modified"), Step::Close],
        "/205" => Answer::new(205).body("").steps(),
        _ if request.method == "HEAD" => vec![wrong("200 OK"), Step::Close],
        _ => Answer::ok("right").steps(),
    });
    let gateway = Gateway::config(
        "listeners: { l: { address: \"127.0.0.1:{port}\" } }
upstreams: { u: { targets: [\"{u}\"] } }
routes: { r: { match: { path: /** }, auth: public, upstream: u } }",
    );
    let gateway = gateway.var("u", upstream.address()).start();
    for (method, path, status, length) in
        [("GET", "/204", 204, None), ("GET", "/304", 304, Some("5")), ("HEAD", "/", 200, Some("5")), ("GET", "/205", 205, Some("0"))]
    {
        let mut client = gateway.client();
        let got = client.request(method, path, &[], b"");
        assert_eq!((got.status, got.header("content-length"), got.body.len()), (status, length, 0), "{method} {path}");
        assert_eq!(client.get("/", &[]).text(), "right", "{method} {path}");
    }
}

#[test]
fn trailers_of_http_1_are_dropped_both_ways() {
    let upstream = Upstream::script(|_| {
        let answer = "HTTP/1.1 200 OK\r\nTrailer: X-Sum\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\nX-Sum: 1\r\n\r\n";
        vec![Step::ReadBody, Step::Send(answer.into())]
    });
    let gateway = Gateway::config(
        "listeners: { l: { address: \"127.0.0.1:{port}\" } }
upstreams: { u: { targets: [\"{u}\"] } }
routes: { r: { match: { path: /** }, auth: public, upstream: u } }",
    );
    let gateway = gateway.var("u", upstream.address()).start();
    let mut client = gateway.client();
    for _ in 0..2 {
        client.send("POST / HTTP/1.1\r\nHost: x\r\nTrailer: X-Sum\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nhi\r\n0\r\nX-Sum: 2\r\n\r\n");
        let got = client.read();
        assert_eq!((got.text(), got.trailers.len(), got.header("trailer")), ("hello", 0, None));
    }
    for request in upstream.requests() {
        assert_eq!((request.body.as_slice(), request.header("trailer")), (&b"hi"[..], None));
        assert!(!String::from_utf8_lossy(&request.raw_body).contains("Sum"));
    }
}

// === HTTP/1.0 ===

#[test]
fn clients_of_http_1_0_get_bodies_that_they_understand() {
    let setup = start();
    setup.nginx.put("page", b"0123456789");
    let ask = |request: &str| {
        let mut client = setup.gateway.client();
        client.send(request);
        // Names of fields have no case.
        String::from_utf8_lossy(&client.read_to_end()).to_ascii_lowercase()
    };
    let got = ask("GET /nginx/page HTTP/1.0\r\n\r\n");
    assert!(got.starts_with("http/1.1 200 ") && got.contains("content-length: 10\r\n") && got.ends_with("\r\n\r\n0123456789"), "{got}");
    for _ in 0..5 {
        release(&setup.python, "/release");
    }
    let got = ask("GET /python/events?chunked HTTP/1.0\r\nHost: x\r\nConnection: keep-alive\r\n\r\n");
    assert!(!got.contains("transfer-encoding") && got.contains("connection: close\r\n"), "{got}");
    assert!(got.ends_with("\r\n\r\ndata: 0\n\n\ndata: 1\n\n\ndata: 2\n\n\ndata: 3\n\n\ndata: 4\n\n\n"), "{got}");
    // The gateway's own answers too.
    let got = ask("GET /nowhere HTTP/1.0\r\n\r\n");
    assert!(got.starts_with("http/1.1 404 ") && got.contains("content-length: "), "{got}");
    let got = ask("HEAD /nginx/page HTTP/1.0\r\n\r\n");
    assert!(got.contains("content-length: 10\r\n") && got.ends_with("\r\n\r\n"), "{got}");
    let line = setup.gateway.log_line_where(|line| line["path"] == "/nginx/page");
    assert_eq!(line["protocol"], "HTTP/1.0");
}

#[test]
fn a_client_that_closes_its_half_counts_as_gone() {
    let gate = Gate::new();
    let held = gate.clone();
    let upstream = Upstream::script(move |_| [vec![Step::WaitFor(held.clone())], Answer::ok("late").steps()].concat());
    let gateway = Gateway::config(
        "listeners: { l: { address: \"127.0.0.1:{port}\" } }
upstreams: { u: { targets: [\"{u}\"] } }
routes: { r: { match: { path: /** }, auth: public, upstream: u } }",
    );
    let gateway = gateway.var("u", upstream.address()).start();
    let mut client = gateway.client();
    client.send("GET /half HTTP/1.1\r\nHost: a\r\n\r\n");
    eventually("the upstream is asked", || (upstream.open_connections() == 1).then_some(()));
    client.finish_sending();
    let line = gateway.log_line_where(|line| line["path"] == "/half");
    assert_eq!((line["status"].as_u64(), line["code"].as_str()), (Some(499), Some("client-gone")));
    client.expect_close();
    gate.open();
}
