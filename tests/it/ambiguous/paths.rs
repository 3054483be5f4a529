//! Paths and queries with two readings, and the spellings that a route may opt in to.

use super::{Row, bad, no, run, target, to};

pub fn rows() -> Vec<Row> {
    let refused = |rfc, target: &str, code| Row::get(rfc, target, no(400, code));
    let line = |rfc, target: &[u8]| Row::get(rfc, target, bad(400, "request-line-invalid"));
    let passes = |rfc, sent: &str, forwarded: &str| Row::get(rfc, sent, target(forwarded));
    vec![
        // escapes
        refused("3986 2.1", "/a%", "path-escape-invalid"),
        refused("3986 2.1", "/a%2", "path-escape-invalid"),
        refused("3986 2.1", "/a%zz", "path-escape-invalid"),
        refused("3986 2.1", "/%u002f", "path-escape-invalid"),
        refused("3629 3", "/%c0%af", "path-escape-invalid"),
        refused("3629 3", "/%c0%ae%c0%ae/x", "path-escape-invalid"),
        refused("3629 3", "/%e0%80%af", "path-escape-invalid"),
        refused("3629 3", "/%ed%a0%80", "path-escape-invalid"),
        refused("3629 3", "/%ff", "path-escape-invalid"),
        refused("3986 2.1", "/a%00b", "path-control"),
        refused("3986 2.1", "/a%0d%0aX-Evil:%201", "path-control"),
        refused("3986 2.1", "/a%09", "path-control"),
        refused("3986 2.1", "/a%7f", "path-control"),
        passes("3986 6.2.2.2", "/%61%7e%2D%5F%2e%39x", "/a~-_.9x"),
        passes("3986 6.2.2.1", "/a%3ab%2c", "/a%3Ab%2C"),
        passes("3986 2.4", "/%252e%252e/%2561", "/%252e%252e/%2561"),
        passes("3986 2.1", "/caf%c3%a9", "/caf%C3%A9"),
        passes("3986 2.2", "/a!$&'()*+,=:@b", "/a!$&'()*+,=:@b"),
        passes("3986 3.3", "/a{b}|c^[d]", "/a%7Bb%7D%7Cc%5E%5Bd%5D"),
        // dots
        refused("3986 5.2.4", "/..", "path-dot-segment"),
        refused("3986 5.2.4", "/a/../x", "path-dot-segment"),
        refused("3986 5.2.4", "/a/./x", "path-dot-segment"),
        refused("3986 5.2.4", "/a/%2e%2e/x", "path-dot-segment"),
        refused("3986 5.2.4", "/a/.%2E/x", "path-dot-segment"),
        refused("3986 5.2.4", "/a/%2e", "path-dot-segment"),
        refused("3986 3.3", "/a/..;x=1/b", "path-dot-segment"),
        refused("3986 5.2.4", "/slash/..%2fx", "path-dot-segment"),
        refused("3986 5.2.4", "/semicolon/..;/x", "path-dot-segment"),
        refused("3986 5.2.4", "/backslash/..%5cx", "path-dot-segment"),
        passes("3986 5.2.4", "/.../..a/b..", "/.../..a/b.."),
        // slashes of every kind
        refused("3986 2.2", "/a%2fb", "path-encoded-slash"),
        refused("3986 2.2", "/a%2Fb", "path-encoded-slash"),
        refused("3986 3.3", "/a//b", "path-empty-segment"),
        refused("3986 3.3", "//a.example/b", "path-empty-segment"),
        refused("3986 3.3", "/a/b//", "path-empty-segment"),
        refused("3986 2.2", "/a\\b", "path-backslash"),
        refused("3986 2.2", "/\\a.example/b", "path-backslash"),
        refused("3986 2.2", "/a%5cb", "path-backslash"),
        refused("3986 3.3", "/a;b=1", "path-semicolon"),
        refused("3986 3.3", "/a;", "path-semicolon"),
        refused("3986 2.2", "/get%2f", "path-encoded-slash").tight(),
        Row::new("3986 2.2", "POST /get//x HTTP/1.1\r\nHost: a.example\r\nContent-Length: 0\r\n\r\n", no(400, "path-empty-segment"))
            .tight(),
        // opted in to, by name
        passes("3986 2.2", "/slash/a%2fb", "/slash/a%2Fb"),
        passes("3986 3.3", "/double//a//", "/double//a//"),
        passes("3986 3.3", "/semicolon/a;b=1", "/semicolon/a;b=1"),
        passes("3986 2.2", "/backslash/a%5cb", "/backslash/a%5Cb"),
        refused("3986 2.2", "/slash/a%5cb", "path-backslash"),
        refused("3986 3.3", "/slash//a%2fb", "path-empty-segment"),
        refused("3986 2.2", "/double//a%2fb", "path-encoded-slash"),
        refused("3986 2.2", "/backslash/a\\b", "path-backslash"),
        refused("3986 3.3", "/semicolon/a%2f;b", "path-encoded-slash"),
        // raw bytes that no target has
        line("9112 3.2", b"/a\0b"),
        line("9112 3.2", b"/a\x01b"),
        line("9112 3.2", b"/a\tb"),
        line("9112 3.2", b"/a\x7f"),
        line("9112 3.2", b"/caf\xc3\xa9"),
        line("9112 3.2", b"/\xc0\xaf"),
        line("9112 3.2.1", b"/a#b"),
        line("9112 3.2.1", b"/#"),
        line("9112 3.2", b"/a\"b"),
        line("9112 3.2", b"/<script>"),
        line("9112 3.2", b"/a?b=\xff"),
        line("9112 3.2", b"/a?b=\0"),
        line("9112 3.2", b"/a?b#c"),
        // the query is kept byte for byte
        passes("3986 3.4", "/a?b=%2f..//;\\%00%zz{}|^[]&b", "/a?b=%2f..//;\\%00%zz{}|^[]&b"),
        passes("3986 3.4", "/a?", "/a?"),
        passes("3986 3.4", "/a??b=c?d", "/a??b=c?d"),
        // HEAD is framed like GET: the refusal has no body
        Row::new("9110 9.3.2", "HEAD /a//b HTTP/1.1\r\nHost: a.example\r\n\r\n", no(400, "path-empty-segment")),
        // what a rule for `/token` protects cannot be reached by another spelling
        Row::get("9110 11.6.2", "/%74oken", no(401, "credentials-missing")),
        Row::get("9110 11.6.2", "/token?x", no(401, "credentials-missing")),
        passes("9110 4.2.3", "/Token", "/Token"),
        passes("9110 4.2.3", "/token/", "/token/"),
        Row::new("9110 9.3.7", "OPTIONS * HTTP/1.1\r\nHost: a.example\r\n\r\n", no(404, "route-not-found")).tight(),
        Row::new("9112 3.2.4", "GET * HTTP/1.1\r\nHost: a.example\r\n\r\n", bad(400, "target-refused")),
        Row::new("9112 3.2.2", "GET http://a.example HTTP/1.1\r\nHost: a.example\r\n\r\n", to("GET / HTTP/1.1\r\nHost: a.example", "")),
        Row::new(
            "9112 3.2.2",
            "GET HTTP://a.example/%61?q HTTP/1.1\r\nHost: a.example\r\n\r\n",
            to("GET /a?q HTTP/1.1\r\nHost: a.example", ""),
        ),
        Row::new("9112 3.2.2", "GET http://a.example/a//b HTTP/1.1\r\nHost: a.example\r\n\r\n", no(400, "path-empty-segment")),
        Row::new("9112 3.2.2", "GET http://a.example/../x HTTP/1.1\r\nHost: a.example\r\n\r\n", no(400, "path-dot-segment")),
    ]
}

#[test]
fn a_path_with_two_readings_goes_nowhere() {
    run(rows());
}
