//! Requests over HTTP/2 that another parser could read differently: what is answered, what is logged, and that nothing reaches the upstream.
//!
//! Every row cites the section of RFC 9113 where the rule is written, or another RFC.

use crate::harness::http2::{self as h2, Http2, block};
use crate::harness::{Gateway, Upstream, eventually};

const CONFIG: &str = r#"
server: { threads: 1 }
listeners: { public: { address: "127.0.0.1:{port}" } }
upstreams: { up: { targets: ["{up}"] } }
routes: { any: { match: { path: /** }, auth: public, upstream: up } }
"#;

type Fields = Vec<(&'static str, &'static str)>;

struct Row {
    rule: &'static str,
    fields: Fields,
    expect: Expect,
}

enum Expect {
    /// A problem document in the stream.
    Refused(u16, &'static str),
    /// The stream is reset by the frame layer.
    Reset,
    /// The connection is ended by the frame layer: bytes that no name or value may have.
    Ended,
    /// Forwarded with this request line and these fields, among others.
    Forwarded(&'static str, Fields),
}

use Expect::{Ended, Forwarded, Refused, Reset};

const M: (&str, &str) = (":method", "GET");
const S: (&str, &str) = (":scheme", "http");
const A: (&str, &str) = (":authority", "a.example");
const P: (&str, &str) = (":path", "/x");

/// A sound head, with more fields behind it.
fn with(rule: &'static str, more: &[(&'static str, &'static str)], expect: Expect) -> Row {
    Row { rule, fields: [&[M, S, A, P], more].concat(), expect }
}

fn path(rule: &'static str, path: &'static str, expect: Expect) -> Row {
    Row { rule, fields: vec![M, S, A, (":path", path)], expect }
}

fn row(rule: &'static str, fields: &[(&'static str, &'static str)], expect: Expect) -> Row {
    Row { rule, fields: fields.to_vec(), expect }
}

fn rows() -> Vec<Row> {
    vec![
        // names and values
        with("8.2.1", &[("X-Upper", "1")], Ended),
        with("8.2.1", &[("x upper", "1")], Ended),
        with("8.2.1", &[("x:colon", "1")], Ended),
        with("8.2.1", &[("", "1")], Ended),
        with("8.2.1", &[("x\r\ny", "1")], Ended),
        with("8.2.1", &[("x\0", "1")], Ended),
        with("8.2.1", &[("x-a", "1\r\nx-injected: 2")], Ended),
        with("8.2.1", &[("x-a", "1\n")], Ended),
        with("8.2.1", &[("x-a", "1\0")], Ended),
        with("8.2.1", &[("x-a", " 1")], Refused(400, "field-value-invalid")),
        with("8.2.1", &[("x-a", "1\t")], Refused(400, "field-value-invalid")),
        with("8.2.1", &[("x-a", "a\tb")], Forwarded("GET /x", vec![("x-a", "a\tb")])),
        // fields of connections
        with("8.2.2", &[("connection", "close")], Reset),
        with("8.2.2", &[("connection", "x-user")], Reset),
        with("8.2.2", &[("proxy-connection", "keep-alive")], Reset),
        with("8.2.2", &[("keep-alive", "timeout=5")], Reset),
        with("8.2.2", &[("transfer-encoding", "chunked")], Reset),
        with("8.2.2", &[("upgrade", "websocket")], Reset),
        with("8.2.2", &[("upgrade", "h2c")], Reset),
        with("8.2.2", &[("te", "gzip")], Reset),
        with("8.2.2", &[("te", "trailers, deflate")], Reset),
        with("8.2.2", &[("te", "trailers")], Forwarded("GET /x", vec![])),
        with("9110 7.6.1", &[("transfer_encoding", "chunked")], Refused(400, "framing-ambiguous")),
        // cookies
        with("8.2.3", &[("cookie", "a=1"), ("cookie", "b=2")], Forwarded("GET /x", vec![("cookie", "a=1; b=2")])),
        // pseudo-header fields
        row("8.3", &[M, S, A, P, (":unknown", "1")], Ended),
        row("8.3", &[M, S, A, P, (":status", "200")], Reset),
        row("8.3", &[M, S, A, ("x-a", "1"), P], Reset),
        row("8.3", &[M, M, S, A, P], Reset),
        row("8.3", &[M, S, S, A, P], Reset),
        row("8.3", &[M, S, A, A, P], Reset),
        row("8.3", &[M, S, A, P, P], Reset),
        row("8.3.1", &[S, A, P], Reset),
        row("8.3.1", &[M, A, P], Reset),
        row("8.3.1", &[M, S, A], Reset),
        row("8.3.1", &[(":method", ""), S, A, P], Ended),
        row("8.3.1", &[(":method", "GE T"), S, A, P], Ended),
        row("8.3.1", &[(":method", "GET\r\n"), S, A, P], Ended),
        row("8.3.1", &[M, (":scheme", ""), A, P], Refused(400, "target-refused")),
        row("8.3.1", &[M, (":scheme", "http\r\n"), A, P], Reset),
        row("8.3.1", &[M, (":scheme", "ftp"), A, P], Refused(400, "target-refused")),
        row("8.3.1", &[M, (":scheme", "https"), A, P], Forwarded("GET /x", vec![("x-forwarded-proto", "http")])),
        // :path
        path("8.3.1", "", Reset),
        path("8.3.1", "x", Reset),
        path("8.3.1", "http://a.example/x", Reset),
        path("8.3.1", "*", Refused(400, "target-refused")),
        path("8.3.1", "/x y", Reset),
        path("8.3.1", "/x\r\nx-injected: 1", Reset),
        path("8.3.1", "/x\0", Reset),
        path("8.3.1", "/x HTTP/1.1\r\nHost: b.example\r\n\r\nGET /y", Reset),
        path("3986 3.3", "/x\"y", Refused(400, "request-line-invalid")),
        path("3986 3.3", "/x<y>", Reset),
        path("3986 3.3", "/\u{e9}", Refused(400, "request-line-invalid")),
        path("3986 3.3", "/a\\b", Refused(400, "path-backslash")),
        path("3986 5.2.4", "/a/../b", Refused(400, "path-dot-segment")),
        path("3986 5.2.4", "/a/%2e%2E/b", Refused(400, "path-dot-segment")),
        path("3986 2.2", "/a%2fb", Refused(400, "path-encoded-slash")),
        path("3986 2.2", "/a//b", Refused(400, "path-empty-segment")),
        path("3986 2.2", "/a;b", Refused(400, "path-semicolon")),
        path("3986 2.1", "/a%00", Refused(400, "path-control")),
        path("3986 2.1", "/a%zz", Refused(400, "path-escape-invalid")),
        // The frame layer cuts a fragment off, so nobody sees it.
        path("3986 3.5", "/x#y", Forwarded("GET /x", vec![])),
        path("3986 6.2.2.2", "/%61", Forwarded("GET /a", vec![])),
        path("3986 3.4", "/x?a=%20&b", Forwarded("GET /x?a=%20&b", vec![])),
        row("9112 3.2.4", &[(":method", "OPTIONS"), S, A, (":path", "*")], Refused(404, "route-not-found")),
        // :authority and Host
        row("8.3.1", &[M, S, P], Refused(400, "host-missing")),
        row("8.3.1", &[M, S, P, ("host", "a.example")], Forwarded("GET /x", vec![("host", "a.example")])),
        with("8.3.1", &[("host", "a.example")], Forwarded("GET /x", vec![("host", "a.example")])),
        with("8.3.1", &[("host", "A.Example")], Forwarded("GET /x", vec![("host", "a.example")])),
        with("8.3.1", &[("host", "b.example")], Refused(400, "host-mismatch")),
        with("8.3.1", &[("host", "a.example:81")], Refused(400, "host-mismatch")),
        with("8.3.1", &[("host", "")], Refused(400, "host-invalid")),
        with("9112 3.2", &[("host", "a.example"), ("host", "a.example")], Refused(400, "host-duplicate")),
        row("8.3.1", &[M, S, (":authority", "user@a.example"), P], Refused(400, "host-invalid")),
        row("8.3.1", &[M, S, (":authority", "a.example/b"), P], Reset),
        row("8.3.1", &[M, S, (":authority", "a.example\r\n"), P], Reset),
        row("8.3.1", &[M, S, (":authority", "a b"), P], Reset),
        row("8.3.1", &[M, S, (":authority", "a.example:99999"), P], Refused(400, "host-invalid")),
        row("8.3.1", &[M, S, (":authority", "A.Example."), P], Forwarded("GET /x", vec![("host", "a.example")])),
        // CONNECT
        row("8.5", &[(":method", "CONNECT"), ("te", "trailers"), (":authority", "a.example:443")], Reset),
        row("8.5", &[(":method", "CONNECT"), (":authority", "a.example:443")], Refused(400, "target-refused")),
        row("8.5", &[(":method", "CONNECT"), S, A, P], Reset),
        row("8441 4", &[(":method", "CONNECT"), (":protocol", "websocket"), S, A, P], Reset),
        row("8441 4", &[M, (":protocol", "websocket"), S, A, P], Reset),
        // content-length
        with("8.1.1", &[("content-length", "5")], Reset),
        with("8.1.1", &[("content-length", "-1")], Reset),
        with("8.1.1", &[("content-length", "+0")], Reset),
        with("8.1.1", &[("content-length", "0"), ("content-length", "0")], Refused(400, "content-length-invalid")),
        with("8.1.1", &[("content-length", "0, 0")], Reset),
        with("8.1.1", &[("content-length", "0x0")], Reset),
        with("8.1.1", &[("content-length", "")], Refused(400, "content-length-invalid")),
        with("8.1.1", &[("content-length", "0")], Forwarded("GET /x", vec![])),
        with("9112 6.1", &[("content_length", "5")], Refused(400, "framing-ambiguous")),
        // identity
        with("9110 7.6.3", &[("x-forwarded-for", "1.2.3.4")], Forwarded("GET /x", vec![("x-forwarded-for", "127.0.0.1")])),
    ]
}

#[test]
fn a_stream_with_two_readings_goes_nowhere() {
    let upstream = Upstream::start();
    let gateway = Gateway::config(CONFIG).var("up", upstream.address()).start();
    let mut wrong = Vec::new();
    let (mut lines, mut forwarded) = (0, 0);
    for Row { rule, fields, expect } in rows() {
        let mut client = Http2::connect(gateway.address());
        client.ask(1, &fields);
        let answer = client.answer(1);
        let came = (answer.status, answer.code(), answer.reset, client.goaways.len());
        let log = eventually("a line", || {
            let log = gateway.log();
            (log.len() > lines).then_some(log)
        });
        lines = log.len();
        let line = log.last().unwrap();
        let seen = upstream.requests();
        let new = seen.get(forwarded..).unwrap_or_default();
        let mut check = |holds: bool, what: &str| {
            if !holds {
                wrong.push(format!("{rule} {fields:?}: {what}: {came:?}, {line}, {new:?}"));
            }
        };
        check(line["protocol"] == "HTTP/2.0", "the protocol in the log");
        match expect {
            Refused(status, code) => {
                check((answer.status, answer.code().as_str(), answer.reset) == (status, code, None), "the answer");
                check(line["status"] == status && line["code"] == code, "the log");
                check(new.is_empty(), "forwarded");
            }
            Reset => {
                check((answer.status, answer.reset) == (0, Some(h2::PROTOCOL_ERROR)), "the answer");
                check(line["code"] == "stream-malformed" && line["status"] == 400, "the log");
                check(new.is_empty(), "forwarded");
            }
            Ended => {
                check(answer.status == 0 && client.goaways.last().map(|(reason, _)| *reason) == Some(h2::PROTOCOL_ERROR), "the answer");
                check(line["code"] == "http2-invalid" && line["status"] == 400, "the log");
                check(new.is_empty(), "forwarded");
                continue;
            }
            Forwarded(first, fields) => {
                check(answer.status == 200 && line["status"] == 200, "the answer");
                check(new.len() == 1, "not forwarded");
                for request in new {
                    check(format!("{} {}", request.method, request.target) == first, "the request line");
                    for (name, value) in fields.clone() {
                        check(request.all(name) == [value], name);
                    }
                    check(request.all("te").is_empty() && request.all("host").len() == 1, "te, host");
                }
            }
        }
        forwarded = seen.len();
        // The fault of a stream is not its connection's.
        client.ask(3, &[M, S, A, (":path", "/good")]);
        let is_good = client.answer(3).status == 200;
        check(is_good, "the next stream");
        if is_good {
            lines += 1;
            forwarded += 1;
            eventually("the line of the good request", || (gateway.log().len() == lines).then_some(()));
        }
    }
    assert!(wrong.is_empty(), "{} rows:\n{}", wrong.len(), wrong.join("\n"));
}

#[test]
fn a_body_that_breaks_its_promise_never_arrives_complete() {
    let upstream = Upstream::script(|_| vec![crate::harness::Step::ReadBody, crate::harness::Step::Hang]);
    let gateway = Gateway::config(CONFIG).var("up", upstream.address()).start();
    for (n, (length, pieces)) in
        [("5", vec![("12345678", true)]), ("5", vec![("123", true)]), ("5", vec![("123", false), ("456", true)]), ("0", vec![("x", true)])]
            .into_iter()
            .enumerate()
    {
        let mut client = Http2::connect(gateway.address());
        let target = format!("/{n}");
        let fields = [(":method", "POST"), S, A, (":path", target.as_str()), ("content-length", length)];
        client.send(h2::HEADERS, h2::END_HEADERS, 1, block(&fields));
        for (piece, is_last) in pieces {
            client.send(h2::DATA, if is_last { h2::END_STREAM } else { 0 }, 1, piece);
        }
        assert_eq!(client.answer(1).reset, Some(h2::PROTOCOL_ERROR), "{n}");
        let line = gateway.log_line_where(|line| line["path"] == target.as_str());
        assert!(["body-malformed", "client-gone"].contains(&line["code"].as_str().unwrap()), "{line}");
    }
    assert!(upstream.requests().iter().all(|request| !request.is_complete || request.target == "/3"), "{:?}", upstream.requests());
}
