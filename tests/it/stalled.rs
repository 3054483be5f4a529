//! Uploads to upstreams that take nothing: they end by the clock, the client and the log are told, and nobody else notices.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::process::Command;
use std::thread;

use serde_json::json;

use super::harness::h2_upstream::H2Upstream;
use super::harness::http2::{CANCEL, Http2, fields};
use super::harness::*;

const CONFIG: &str = r#"
server: { threads: 1 }
listeners: { public: { address: "127.0.0.1:{port}", deadlines: { body: 10m } } }
upstreams:
  one: { targets: ["{one}"], timeouts: { response: 10m, idle: 400ms } }
  two: { targets: ["{two}"], protocol: h2, timeouts: { response: 10m, idle: 400ms } }
routes:
  one: { match: { path: /one/** }, auth: public, upstream: one }
  two: { match: { path: /two/** }, auth: public, rewrite: { strip_prefix: /two }, upstream: two, cors: { origins: ["https://a.example"], methods: [POST] } }
"#;

/// More than two sockets, two TLS layers and all windows on the way have room for.
const BODY: usize = 48 << 20;

struct Setup {
    gateway: Gateway,
    two: H2Upstream,
}

/// An upstream that reads heads, and of what follows nothing but where the path asks for it.
fn stalls() -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    thread::spawn(move || {
        let mut held = Vec::new();
        while let Ok((mut stream, _)) = listener.accept() {
            let (mut head, mut byte) = (Vec::new(), [0]);
            while !head.ends_with(b"\r\n\r\n") && stream.read_exact(&mut byte).is_ok() {
                head.push(byte[0]);
            }
            let head = String::from_utf8_lossy(&head).into_owned();
            let answer = match head.split(' ').nth(1) {
                Some("/one/begins") => "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nbegun\r\n",
                Some("/one/socket") => {
                    "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Accept: x\r\n\r\n"
                }
                Some("/one/reads") => {
                    let _ = std::io::copy(&mut (&mut stream).take(BODY as u64), &mut std::io::sink());
                    "HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nread"
                }
                _ => "",
            };
            let _ = stream.write_all(answer.as_bytes());
            held.push(stream);
        }
    });
    address
}

fn start() -> Setup {
    let two = H2Upstream::start(&[]);
    let gateway = Gateway::config(CONFIG).var("one", stalls()).var("two", &two.address).file("big", vec![b'x'; BODY]).start();
    Setup { gateway, two }
}

/// A client that others wrote uploads the file: curl, or where HTTP/2 is to be spoken nghttp, since curl 7.88 throws an answer away
/// that a reset without an error follows (RFC 9113 section 8.1). What it says: head and body of the answer.
fn upload(gateway: &Gateway, is_h2: bool, path: &str, fields: &[&str]) -> String {
    let mut command = Command::new(if is_h2 { "nghttp" } else { "curl" });
    match is_h2 {
        true => command.args(["-v", "--no-dep", "-t", "60", "-d", "big"]),
        false => command.args(["--noproxy", "*", "-sS", "-m", "60", "-i", "-H", "expect:", "--data-binary", "@big"]),
    };
    let fields = fields.iter().flat_map(|field| ["-H", field]);
    let output = command.args(fields).arg(format!("http://{}{path}", gateway.address())).current_dir(gateway.dir()).output();
    let output = output.expect("curl and nghttp are installed: scripts/setup.sh test");
    String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr)
}

#[test]
fn an_upload_that_nobody_takes_ends_with_a_504() {
    let Setup { gateway, two } = start();
    for (path, is_h2, protocol) in [
        ("/one/hang", false, "HTTP/1.1"),
        ("/one/hang2", true, "HTTP/2.0"),
        ("/two/no-window", false, "HTTP/1.1"),
        ("/two/no-window2", true, "HTTP/2.0"),
    ] {
        let said = upload(&gateway, is_h2, path, &["origin: https://a.example", "user-agent: a client", "content-type: a/b"]);
        assert!(said.contains(" 504") && said.contains("\"code\":\"upstream-response-timeout\""), "{path}: {said}");
        let line = gateway.log_line_where(|line| line["path"] == path);
        let told = ["status", "code", "method", "protocol", "user_agent"].map(|key| line[key].clone());
        let expected = [json!(504), json!("upstream-response-timeout"), json!("POST"), json!(protocol), json!("a client")];
        assert_eq!(told, expected, "{line}");
        assert_eq!(line["reason"], "nothing of the request taken for 400ms", "{line}");
        assert!(said.contains(line["request_id"].as_str().unwrap()), "{said}");
        assert!(line["bytes_in"].as_u64() > Some(60_000) && line["bytes_out"].as_u64() > Some(100), "{line}");
        if path.starts_with("/two") {
            assert!(said.contains("access-control-allow-origin: https://a.example"), "what the route says of answers: {said}");
        }
    }
    eventually("both streams given up at the upstream", || (two.events("reset").len() == 2).then_some(()));
    assert!(two.events("reset").iter().all(|reset| reset["code"] == CANCEL), "{:?}", two.events("reset"));
    for upstream in ["one", "two"] {
        let series = format!("sluice_upstream_requests_total{{upstream=\"{upstream}\",result=\"response_timeout\"}}");
        assert_eq!(gateway.metric(&series), 2.0, "{}", gateway.metrics());
    }
    assert_eq!(gateway.metric("sluice_requests_in_flight{listener=\"public\"}"), 0.0);
    assert_eq!(upload(&gateway, false, "/one/reads", &[]).lines().last(), Some("read"), "one that is taken passes");
}

#[test]
fn a_call_that_nobody_takes_ends_with_a_status() {
    let Setup { gateway, two: _two } = start();
    let said = upload(&gateway, true, "/two/no-window/Call", &["content-type: application/grpc"]);
    assert!(said.contains(":status: 200") && said.contains("grpc-status: 4"), "{said}");
    assert!(said.contains("x-problem-code: upstream-response-timeout"), "{said}");
    let line = gateway.log_line_where(|line| line["path"] == "/two/no-window/Call");
    assert_eq!((&line["grpc_status"], &line["code"]), (&json!("DEADLINE_EXCEEDED"), &json!("upstream-response-timeout")));
}

#[test]
fn an_answer_that_has_begun_is_cut_where_the_rest_of_the_request_is_not_taken() {
    let Setup { gateway, two: _two } = start();
    let said = upload(&gateway, false, "/one/begins", &[]);
    assert!(said.contains("200 OK") && said.contains("begun") && said.contains("curl: ("), "{said}");
    let line = gateway.log_line_where(|line| line["path"] == "/one/begins");
    assert_eq!((&line["status"], &line["code"]), (&json!(200), &json!("upstream-idle-timeout")), "{line}");
}

#[test]
fn a_tunnel_whose_upstream_takes_nothing_ends_as_one_that_is_silent() {
    let Setup { gateway, two: _two } = start();
    let mut stream = TcpStream::connect(gateway.address()).unwrap();
    let head = "GET /one/socket HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
                Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n";
    stream.write_all(head.as_bytes()).unwrap();
    stream.read_exact(&mut [0; 12]).unwrap();
    // To the end of the connection, which comes while there is more to write than anybody has room for.
    let piece = [0; 64 << 10];
    let sent = (0..BODY / piece.len()).take_while(|_| stream.write_all(&piece).is_ok()).count();
    assert!(sent < BODY / piece.len(), "it took all");
    let line = gateway.log_line_where(|line| line["path"] == "/one/socket");
    assert_eq!((&line["status"], &line["code"], &line["closed_by"]), (&json!(101), &json!("websocket-idle"), &json!("gateway")), "{line}");
}

#[test]
fn a_client_that_goes_when_it_has_its_answer_is_not_said_to_have_gone_before() {
    let Setup { gateway, two } = start();
    let mut client = Http2::connect(gateway.address());
    // The upstream answers the head alone; the client never ends its body.
    client.begin(1, &fields("POST", "/two/at-once", &[]));
    assert_eq!(client.answer(1).status, 413);
    client.reset(1, CANCEL);
    let line = gateway.log_line_where(|line| line["path"] == "/two/at-once");
    assert_eq!((&line["status"], line.get("code")), (&json!(413), None), "{line}");
    assert_eq!(gateway.metric("sluice_upstream_requests_total{upstream=\"two\",result=\"client_gone\"}"), 0.0);
    // One that goes before is.
    client.begin(3, &fields("POST", "/two/no-window", &[]));
    eventually("the request at the upstream", || (two.events("head").len() == 2).then_some(()));
    client.reset(3, CANCEL);
    assert_eq!(gateway.log_line_where(|line| line["path"] == "/two/no-window")["code"], "client-gone");
}
