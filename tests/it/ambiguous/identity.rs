//! What clients say of themselves: identity headers, forwarding headers and request ids, in every spelling.

use super::{Expect, Row, no, run};

const ID: &str = "x-request-id: {id}\r\ntraceparent: {trace}\r\n";

/// A request with these fields arrives with those, and nothing else but Host.
fn row(rfc: &'static str, sent: &str, forwarded: &str) -> Row {
    let added = format!("x-forwarded-for: 127.0.0.1\r\nx-forwarded-proto: http\r\nx-forwarded-host: a.example\r\n{ID}");
    Row::with(rfc, sent, exactly("/x", &format!("{forwarded}{added}")))
}

fn exactly(path: &str, fields: &str) -> Expect {
    Expect::ForwardedExactly(format!("GET {path} HTTP/1.1\r\nHost: a.example\r\n{fields}\r\n").into_bytes())
}

pub fn rows() -> Vec<Row> {
    let proto_and_host = "x-forwarded-proto: http\r\nx-forwarded-host: a.example\r\n";
    let mut rows: Vec<Row> = [
        "X-User-Id: admin",
        "x-user-id: admin",
        "X-USER-ID: admin",
        "X_User_Id: admin",
        "x_user-id: admin",
        "X-User_Id: admin",
        "X-User-Id: a\r\nX-User-Id: b\r\nx_user_id: c",
        "x-user-role: admin",
        "X_USER_ROLE: admin",
        "X-Client-Id: acme",
        "x_client_id: acme",
        "X-User-Id:",
        "X-User-Id: \u{e9}",
    ]
    .into_iter()
    .map(|sent| row("9110 16.4", sent, ""))
    .collect();
    rows.extend([
        row(
            "9110 16.4",
            "X-User-Ida: kept\r\nXX-User-Id: kept\r\nX-UserId: kept",
            "X-User-Ida: kept\r\nXX-User-Id: kept\r\nX-UserId: kept\r\n",
        ),
        // Forwarding headers of peers that nobody trusts
        row("7239 8.1", "X-Forwarded-For: 10.0.0.1", ""),
        row("7239 8.1", "X-Forwarded-For: 10.0.0.1\r\nX-Forwarded-For: 10.0.0.2", ""),
        row("7239 8.1", "X_Forwarded_For: 10.0.0.1", ""),
        Row::with(
            "7239 8.1",
            "X-Forwarded-Proto: https\r\nX-Forwarded-Host: evil.example",
            exactly("/x", &format!("{proto_and_host}x-forwarded-for: 127.0.0.1\r\n{ID}")),
        ),
        row("7239 8.1", "x_forwarded_proto: https\r\nX-Forwarded_Host: evil.example", ""),
        row("7239 8.1", "Forwarded: for=10.0.0.1;host=evil.example;proto=https", ""),
        row("7239 8.1", "X-Real-IP: 10.0.0.1\r\nx_real_ip: 10.0.0.1", ""),
        row("7239 8.1", "X-Forwarded-Port: 443\r\nX-Forwarded-Prefix: /admin\r\nX-Forwarded-Server: x\r\nX-Forwarded-Ssl: on", ""),
        Row::with(
            "9562 4",
            "X-Request-ID: mine",
            exactly("/x", &format!("x-request-id: {{id}}\r\nx-forwarded-for: 127.0.0.1\r\n{proto_and_host}traceparent: {{trace}}\r\n")),
        ),
        row("9562 4", "X_Request_ID: mine", ""),
        // The trusted proxy is believed, but only in the one spelling.
        Row::with(
            "7239 5.2",
            "X-Forwarded-For: 192.0.2.7",
            exactly("/x", &format!("x-forwarded-for: 192.0.2.7, 127.0.0.2\r\n{proto_and_host}{ID}")),
        )
        .trusted(),
        Row::with(
            "7239 5.2",
            "X-Forwarded-For: 192.0.2.7\r\nX-Forwarded-For: 192.0.2.8\r\nX_Forwarded_For: 10.0.0.1",
            exactly("/x", &format!("x-forwarded-for: 192.0.2.7, 192.0.2.8, 127.0.0.2\r\n{proto_and_host}{ID}")),
        )
        .trusted(),
        Row::with(
            "7239 5.4",
            "X-Forwarded-Proto: https\r\nX-Forwarded-Host: shop.example",
            exactly("/x", &format!("X-Forwarded-Proto: https\r\nX-Forwarded-Host: shop.example\r\nx-forwarded-for: 127.0.0.2\r\n{ID}")),
        )
        .trusted(),
        Row::with(
            "9562 4",
            "X-Request-ID: from-the-proxy",
            exactly(
                "/x",
                &format!("x-request-id: from-the-proxy\r\nx-forwarded-for: 127.0.0.2\r\n{proto_and_host}traceparent: {{trace}}\r\n"),
            ),
        )
        .trusted(),
        Row::with(
            "9110 16.4",
            "X-User-Id: admin\r\nX_User_Id: admin",
            exactly("/x", &format!("x-forwarded-for: 127.0.0.2\r\n{proto_and_host}{ID}")),
        )
        .trusted(),
        // An API key is what it says, in one header, once.
        Row::new("9110 11.6.2", "GET /key HTTP/1.1\r\nHost: a.example\r\n\r\n", no(401, "credentials-missing")),
        Row::new("9110 11.6.2", "GET /key HTTP/1.1\r\nHost: a.example\r\nX-API-Key: wrong\r\n\r\n", no(401, "key-unknown")),
        Row::new("9110 11.6.2", "GET /key HTTP/1.1\r\nHost: a.example\r\nX_API_Key: secret\r\n\r\n", no(401, "credentials-missing")),
        Row::new(
            "9110 5.3",
            "GET /key HTTP/1.1\r\nHost: a.example\r\nX-API-Key: secret\r\nX-API-Key: wrong\r\n\r\n",
            no(400, "credentials-ambiguous"),
        ),
        Row::new("9110 5.5", "GET /key HTTP/1.1\r\nHost: a.example\r\nX-API-Key: s\u{e9}cret\r\n\r\n", no(401, "key-malformed")),
        Row::new(
            "9110 16.4",
            "GET /key HTTP/1.1\r\nHost: a.example\r\nX-Client-Id: other\r\nX-API-Key: secret\r\nx_client_id: other\r\n\r\n",
            exactly("/key", &format!("x-forwarded-for: 127.0.0.1\r\n{proto_and_host}{ID}x-client-id: acme\r\n")),
        ),
    ]);
    rows
}

#[test]
fn what_a_client_says_of_itself_reaches_nobody() {
    run(rows());
}
