//! Field lines, their number and size; Connection, Upgrade and Expect.

use super::{Row, bad, no, run, to};

pub fn rows() -> Vec<Row> {
    let name = |rfc, line: &str| Row::with(rfc, line, bad(400, "field-name-invalid"));
    let value = |rfc, line: &[u8]| Row::with(rfc, line, bad(400, "field-value-invalid"));
    let ending = |rfc, line: &str| Row::with(rfc, line, bad(400, "line-ending-invalid"));
    let connection = |rfc, value: &str| Row::with(rfc, format!("Connection: {value}"), bad(400, "connection-header-invalid"));
    let upgrade = |rfc, text: &str| Row::new(rfc, text, bad(400, "upgrade-invalid"));
    let arrives = |rfc, sent: &str, forwarded: &str| Row::with(rfc, sent, to(format!("GET /x HTTP/1.1\r\nHost: a.example{forwarded}"), ""));
    let many = |count: usize| (0..count).map(|n| format!("x-{n}: 1")).collect::<Vec<_>>().join("\r\n");
    vec![
        // names
        name("9112 5.1", "a : b"),
        name("9112 5.1", "a\t: b"),
        name("9112 5.1", "abc"),
        name("9112 5.1", ": b"),
        name("9110 5.1", "a b: c"),
        name("9110 5.1", "a[0]: b"),
        name("9110 5.1", "a/b: c"),
        name("9110 5.1", "caf\u{e9}: c"),
        name("9110 5.1", "a\0: b"),
        name("9110 5.1", "\"a\": b"),
        // values
        value("9110 5.5", b"a: b\0c"),
        value("9110 5.5", b"a: \x1b[2J"),
        value("9110 5.5", b"a: \x7f"),
        value("9110 5.5", b"a: \x08"),
        ending("9112 2.2", "a: b\rc: d"),
        ending("9112 2.2", "a: b\nc: d"),
        ending("9112 2.2", "a: b\r"),
        ending("9112 2.2", "a\rb: c"),
        Row::with("9112 5.2", "a: b\r\n c", bad(400, "field-folded")),
        Row::with("9112 5.2", "a: b\r\n\tc", bad(400, "field-folded")),
        Row::new("9112 2.2", "GET /x HTTP/1.1\r\n Host: a.example\r\n\r\n", bad(400, "field-folded")),
        arrives("9110 5.5", "a:b", "\r\na: b"),
        arrives("9112 5", "a: \t b \t ", "\r\na: b"),
        arrives("9110 5.5", "a:", "\r\na: "),
        arrives("9110 5.1", "!#$%&'*+-.^_`|~9: x", "\r\n!#$%&'*+-.^_`|~9: x"),
        // size and number
        Row::with("6585 5", format!("a: {}", "x".repeat(1022)), bad(431, "field-too-long")).tight(),
        Row::with("6585 5", ["x: "; 3].map(|name| format!("{name}{}", "x".repeat(800))).join("\r\n"), bad(431, "head-too-large")).tight(),
        Row::with("6585 5", format!("a: {}", "x".repeat(300_000)), bad(431, "head-too-large")),
        Row::with("6585 5", many(20), bad(431, "fields-too-many")).tight(),
        Row::with("6585 5", many(100), bad(431, "fields-too-many")),
        arrives("6585 5", &many(99), &format!("\r\n{}", many(99))),
        arrives("9110 5.4", &format!("a: {}", "x".repeat(200_000)), &format!("\r\na: {}", "x".repeat(200_000))),
        arrives("9110 5.5", "a: caf\u{e9}", "\r\na: caf\u{e9}"),
        // Connection
        connection("9110 7.6.1", "close, Host"),
        connection("9110 7.6.1", "Authorization"),
        connection("9110 7.6.1", "keep-alive, X-User-Id"),
        connection("9110 7.6.1", "X-Forwarded-For"),
        connection("9110 7.6.1", "Content-Length"),
        connection("9110 7.6.1", "Transfer-Encoding"),
        connection("9110 7.6.1", "cookie"),
        connection("9110 7.6.1", "\"close\""),
        connection("9110 7.6.1", ":path"),
        connection("9110 7.6.1", "te, te, te, te, te, te, te, te, te"),
        Row::with("9110 7.6.1", ["Connection: te"; 9].join("\r\n"), bad(400, "connection-header-invalid")),
        arrives("9110 7.6.1", "Connection: keep-alive", ""),
        arrives("9110 7.6.1", "Connection: close", ""),
        arrives("9110 7.6.1", "Connection: keep-alive\r\nConnection: close", ""),
        arrives("9110 7.6.1", "Connection: TE\r\nTE: trailers", ""),
        arrives("9110 7.6.1", "Keep-Alive: timeout=600\r\nProxy-Connection: keep-alive", ""),
        arrives("9110 11.7.2", "Proxy-Authorization: Basic eDp5", ""),
        // Upgrade
        upgrade("6455 4.1", "GET /x HTTP/1.1\r\nHost: a.example\r\nUpgrade: websocket\r\n\r\n"),
        upgrade("6455 4.1", "POST /x HTTP/1.1\r\nHost: a.example\r\nUpgrade: websocket\r\nConnection: upgrade\r\n\r\n"),
        upgrade(
            "6455 4.1",
            "GET /x HTTP/1.1\r\nHost: a.example\r\nUpgrade: websocket\r\nConnection: upgrade\r\nContent-Length: 5\r\n\r\nhello",
        ),
        upgrade(
            "6455 4.1",
            "GET /x HTTP/1.1\r\nHost: a.example\r\nUpgrade: websocket\r\nConnection: upgrade\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        ),
        upgrade("9110 7.8", "GET /x HTTP/1.0\r\nHost: a.example\r\nUpgrade: websocket\r\nConnection: upgrade\r\n\r\n"),
        upgrade("9110 7.8", "GET /x HTTP/1.1\r\nHost: a.example\r\nUpgrade: websocket\r\nUpgrade: h2c\r\nConnection: upgrade\r\n\r\n"),
        arrives("9113 3.2", "Connection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AAMAAABkAAQAAP__", ""),
        arrives("9110 7.8", "Connection: Upgrade\r\nUpgrade: TLS/1.0", ""),
        arrives("9110 7.8", "Upgrade: h2c", ""),
        arrives("9110 7.8", "Connection: upgrade\r\nUpgrade: h2c, websocket", ""),
        arrives("9110 7.8", "Connection: upgrade\r\nUpgrade: websocket/13", ""),
        // An upgrade through a route that wants a credential
        Row::new(
            "6455 4.1",
            "GET /token HTTP/1.1\r\nHost: a.example\r\nUpgrade: websocket\r\nConnection: upgrade\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n",
            no(401, "credentials-missing"),
        ),
    ]
}

#[test]
fn a_field_with_two_readings_goes_nowhere() {
    run(rows());
}
