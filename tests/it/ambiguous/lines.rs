//! Request lines, methods, versions, hosts, and bytes that are no HTTP at all.

use super::{Row, bad, no, run, to};

pub fn lines() -> Vec<Row> {
    let line = |rfc, line: &str, expect| Row::new(rfc, format!("{line}\r\nHost: a.example\r\n\r\n"), expect);
    let invalid = |rfc, text: &str| line(rfc, text, bad(400, "request-line-invalid"));
    let version = |rfc, text: &str| line(rfc, text, bad(505, "version-unsupported"));
    let passes = |rfc, sent: &str| line(rfc, sent, to(format!("{sent}\r\nHost: a.example"), ""));
    vec![
        // white space
        invalid("9112 3", "GET  /x HTTP/1.1"),
        invalid("9112 3", "GET /x  HTTP/1.1"),
        invalid("9112 3", "GET /x HTTP/1.1 "),
        invalid("9112 3", " GET /x HTTP/1.1"),
        invalid("9112 3", "GET\t/x\tHTTP/1.1"),
        invalid("9112 3", "GET /x y HTTP/1.1"),
        invalid("9112 3", "GET /x\x0bHTTP/1.1 x"),
        version("9112 3", "GET /x"),
        // versions
        version("9112 2.3", "GET /x HTTP/1.2"),
        version("9112 2.3", "GET /x HTTP/0.9"),
        version("9112 2.3", "GET /x HTTP/2.0"),
        version("9112 2.3", "GET /x HTTP/3"),
        version("9112 2.3", "GET /x HTTP/9.9"),
        invalid("9112 2.3", "GET /x http/1.1"),
        invalid("9112 2.3", "GET /x HTTP/1.10"),
        invalid("9112 2.3", "GET /x HTTP/11"),
        invalid("9112 2.3", "GET /x HTTP/1,1"),
        invalid("9112 2.3", "GET /x HTTP/+1.1"),
        invalid("9112 2.3", "GET /x HTTPS/1.1"),
        invalid("9112 2.3", "GET /x HTTP/1.1\0"),
        invalid("9112 2.3", "GET /x ICY/1.1"),
        // methods
        invalid("9110 9.1", "G@T /x HTTP/1.1"),
        invalid("9110 9.1", "GET/x HTTP/1.1"),
        invalid("9110 9.1", "GÉT /x HTTP/1.1"),
        invalid("9110 9.1", "(GET) /x HTTP/1.1"),
        line("9112 3", &format!("{} /x HTTP/1.1", "A".repeat(33)), bad(501, "method-unsupported")),
        line("9112 3", &format!("{} /x HTTP/1.1", "A".repeat(100_000)), bad(501, "method-unsupported")),
        passes("9110 9.1", "get /x HTTP/1.1"),
        passes("9110 9.1", "M-SEARCH /x HTTP/1.1"),
        passes("9110 9.1", "PROPFIND /x HTTP/1.1"),
        line("9110 9.1", "get /get HTTP/1.1", no(405, "method-not-allowed")).tight(),
        line("9110 9.1", "DELETE /get HTTP/1.1", no(405, "method-not-allowed")).tight(),
        // targets
        line("9110 9.3.6", "CONNECT a.example:443 HTTP/1.1", bad(400, "target-refused")),
        line("9110 9.3.8", "TRACE /x HTTP/1.1", bad(501, "method-unsupported")),
        line("9110 9.3.6", "CONNECT /x HTTP/1.1", bad(400, "target-refused")),
        line("9112 3.2", "GET x HTTP/1.1", bad(400, "target-refused")),
        line("9112 3.2", "GET a.example:80 HTTP/1.1", bad(400, "target-refused")),
        line("9112 3.2", "GET ?x HTTP/1.1", bad(400, "target-refused")),
        line("9112 3.2.2", "GET ftp://a.example/ HTTP/1.1", bad(400, "target-refused")),
        line("9112 3.2.2", "GET http:/a.example/ HTTP/1.1", bad(400, "target-refused")),
        line("9112 3.2.2", "GET file:///etc/passwd HTTP/1.1", bad(400, "target-refused")),
        line("9112 3.2.4", "POST * HTTP/1.1", bad(400, "target-refused")),
        // line endings
        Row::new("9112 2.2", "GET /x HTTP/1.1\nHost: a.example\n\n", bad(400, "line-ending-invalid")),
        Row::new("9112 2.2", "GET /x HTTP/1.1\nHost: a.example\r\n\r\n", bad(400, "line-ending-invalid")),
        Row::new("9112 2.2", "GET /x\r HTTP/1.1\r\nHost: a.example\r\n\r\n", bad(400, "line-ending-invalid")),
        Row::new("9112 2.2", "GET /x HTTP/1.1\r\r\nHost: a.example\r\n\r\n", bad(400, "request-line-invalid")),
        Row::new("9112 2.2", "\r\nGET /x HTTP/1.1\r\nHost: a.example\r\n\r\n", to("GET /x HTTP/1.1\r\nHost: a.example", "")),
        Row::new("9112 2.2", "\r\n\r\nGET /x HTTP/1.1\r\nHost: a.example\r\n\r\n", bad(400, "request-line-invalid")),
        Row::new("9112 2.2", "\nGET /x HTTP/1.1\r\nHost: a.example\r\n\r\n", bad(400, "line-ending-invalid")),
        // HTTP/0.9 and what is no HTTP
        Row::new("1945 4.1", "GET /x\r\n", bad(505, "version-unsupported")),
        Row::new("1945 4.1", "GET /x\n", bad(400, "line-ending-invalid")),
        Row::new("9113 3.4", "PRI * HTTP/2.0\r\n\r\nSM\r\n\n\r\n", bad(505, "version-unsupported")),
        Row::new("8446 4.1.2", b"\x16\x03\x01\x00\xf4\x01\x00\x00\xf0\x03\x03abcdefgh\r\n\r\n", bad(400, "request-line-invalid")),
        Row::new("9112 3", b"\0\0\0\0", bad(400, "request-line-invalid")),
        Row::new("9112 3", b"\xff\xfe\xfd", bad(400, "request-line-invalid")),
        Row::new("9112 3", "{\"a\": 1}\r\n\r\n", bad(400, "request-line-invalid")),
        Row::new("9112 4", "HTTP/1.1 200 OK\r\n\r\n", bad(400, "request-line-invalid")),
        Row::new("4253 4.2", "SSH-2.0-OpenSSH_9.2\r\n", bad(400, "request-line-invalid")),
        Row::new("PROXY 2.1", "PROXY TCP4 1.2.3.4 5.6.7.8 1 2\r\nGET /x HTTP/1.1\r\n\r\n", bad(400, "request-line-invalid")),
        // sizes
        line("9110 15.5.15", &format!("GET /{} HTTP/1.1", "a".repeat(3000)), bad(414, "target-too-long")).tight(),
        line("9110 15.5.15", &format!("GET /{} HTTP/1.1", "a".repeat(65_000)), bad(414, "target-too-long")),
        passes("9110 4.1", &format!("GET /{} HTTP/1.1", "a".repeat(8_000))),
        passes("9110 4.1", &format!("GET /{}?{} HTTP/1.1", "a".repeat(30_000), "b".repeat(34_900))),
    ]
}

pub fn hosts() -> Vec<Row> {
    let host = |rfc, host: &str, expect| Row::new(rfc, format!("GET /x HTTP/1.1\r\nHost: {host}\r\n\r\n"), expect);
    let invalid = |rfc, text: &str| host(rfc, text, no(400, "host-invalid"));
    let passes = |rfc, sent: &str, forwarded: &str| host(rfc, sent, to(format!("GET /x HTTP/1.1\r\nHost: {forwarded}"), ""));
    let absolute = |rfc, target: &str, host: &str, expect| Row::new(rfc, format!("GET {target} HTTP/1.1\r\nHost: {host}\r\n\r\n"), expect);
    vec![
        Row::new("9112 3.2", "GET /x HTTP/1.1\r\n\r\n", bad(400, "host-missing")),
        Row::new("9112 3.2", "GET http://a.example/ HTTP/1.1\r\n\r\n", bad(400, "host-missing")),
        Row::new("9112 3.2", "GET /x HTTP/1.1\r\nHost: a.example\r\nHost: b.example\r\n\r\n", bad(400, "host-duplicate")),
        Row::new("9112 3.2", "GET /x HTTP/1.1\r\nHost: a.example\r\nhOsT: a.example\r\n\r\n", bad(400, "host-duplicate")),
        Row::new("9112 3.2", "GET /x HTTP/1.0\r\nHost: a.example\r\nHost: a.example\r\n\r\n", bad(400, "host-duplicate")),
        invalid("9110 7.2", ""),
        invalid("9110 7.2", "a b"),
        invalid("9110 7.2", "a,b"),
        invalid("9110 7.2", "a/b"),
        invalid("9110 7.2", "a?b"),
        invalid("9110 7.2", "a#b"),
        invalid("9110 7.2", "a\\b"),
        invalid("9110 7.2", "a..b"),
        invalid("9110 7.2", ".a"),
        invalid("9110 7.2", "a%2eb"),
        invalid("9110 7.2", "*.example"),
        invalid("9110 7.2", "caf\u{e9}.example"),
        invalid("1035 2.3.4", &"a".repeat(254)),
        invalid("3986 3.2.3", "a:0"),
        invalid("3986 3.2.3", "a:65536"),
        invalid("3986 3.2.3", "a:http"),
        invalid("3986 3.2.3", "a:+80"),
        invalid("3986 3.2.3", "a:80:80"),
        invalid("3986 3.2.2", "::1"),
        invalid("3986 3.2.2", "[::1"),
        invalid("3986 3.2.2", "[::1]x"),
        invalid("6874 2", "[fe80::1%25eth0]"),
        host("9110 4.2.4", "u@a.example", bad(400, "host-invalid")),
        host("9110 4.2.4", "u:p@a.example", bad(400, "host-invalid")),
        passes("9110 4.2.3", "A.Example", "a.example"),
        passes("9110 4.2.3", "a.example.", "a.example"),
        passes("3986 3.2.3", "a.example:8080", "a.example:8080"),
        passes("3986 3.2.3", "a.example:", "a.example"),
        passes("3986 3.2.2", "[2001:DB8::0:1]:81", "[2001:db8::1]:81"),
        passes("3986 3.2.2", "192.0.2.1", "192.0.2.1"),
        absolute("9112 3.2.2", "http://b.example/", "a.example", bad(400, "host-mismatch")),
        absolute("9112 3.2.2", "http://a.example:81/", "a.example", bad(400, "host-mismatch")),
        absolute("9110 4.2.4", "http://u@a.example/", "a.example", bad(400, "host-invalid")),
        absolute("9110 4.2.4", "http://a.example@b.example/", "b.example", bad(400, "host-invalid")),
        absolute("9110 4.2.1", "http:///x", "a.example", bad(400, "host-invalid")),
        absolute("9112 3.2.2", "http://a.example\\@b.example/", "b.example", bad(400, "host-invalid")),
        absolute("9112 3.2.2", "http://a.example:99999/", "a.example:99999", no(400, "host-invalid")),
        absolute("9112 3.2.2", "http://A.example/x", "A.example", to("GET /x HTTP/1.1\r\nHost: a.example", "")),
    ]
}

#[test]
fn a_first_line_with_two_readings_goes_nowhere() {
    run(lines());
}

#[test]
fn a_host_with_two_readings_goes_nowhere() {
    run(hosts());
}
