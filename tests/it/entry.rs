//! Who the client is, what its request is called, and which route takes it: as the log and the upstream see it.

use crate::harness::{Client, Gateway, Response, Upstream};

const TRUSTED: [u8; 4] = [127, 0, 0, 2];
const STRANGER: [u8; 4] = [127, 0, 0, 1];

fn ask(gateway: &Gateway, from: [u8; 4], lines: &str) -> Response {
    let mut client = Client::connect_from(from.into(), gateway.address());
    client.send(format!("GET /x HTTP/1.1\r\nHost: a\r\n{lines}\r\n")).read()
}

fn with_header(upstream: &Upstream, header: &str) -> Gateway {
    Gateway::config(
        r#"
server: { threads: 1 }
clients: { trusted_proxies: [127.0.0.2, 10.0.0.0/8, "2001:db8::/32"], header: {header} }
listeners: { public: { address: "127.0.0.1:{port}" } }
limits: { each: { rate: 2/h, by: [client_ip] } }
upstreams: { up: { targets: ["{up}"] } }
defaults: { upstream: up }
routes:
  any: { match: { path: /** }, auth: public }
  inside: { match: { path: /inside }, auth: public, ip_filter: { allow: [192.0.2.0/24] } }
  limited: { match: { path: /limited }, auth: public, limits: [each] }
"#,
    )
    .var("header", header)
    .var("up", upstream.address())
    .start()
}

/// Sends each head and compares the client that the log names.
#[track_caller]
fn compare_clients(gateway: &Gateway, rows: &[([u8; 4], &str, &str)]) {
    for (from, lines, client) in rows {
        let answer = ask(gateway, *from, lines);
        assert_eq!(answer.status, 200, "{lines:?}");
        let id = answer.header("x-request-id").map(str::to_owned);
        let line = gateway.log_line_where(|line| line["request_id"].as_str() == id.as_deref());
        assert_eq!(line["client"], *client, "{lines:?} from {from:?}");
    }
}

#[test]
fn the_client_is_whom_the_last_trusted_proxy_names() {
    let upstream = Upstream::start();
    let gateway = with_header(&upstream, "x-forwarded-for");
    compare_clients(
        &gateway,
        &[
            (STRANGER, "", "127.0.0.1"),
            (STRANGER, "X-Forwarded-For: 192.0.2.1\r\n", "127.0.0.1"),
            (TRUSTED, "", "127.0.0.2"),
            (TRUSTED, "X-Forwarded-For: 192.0.2.1\r\n", "192.0.2.1"),
            (TRUSTED, "X-Forwarded-For: 198.51.100.9, 192.0.2.1\r\n", "192.0.2.1"),
            (TRUSTED, "X-Forwarded-For: 192.0.2.1, 10.1.2.3\r\n", "192.0.2.1"),
            (TRUSTED, "X-Forwarded-For: 198.51.100.9, 192.0.2.1, 10.1.2.3, 10.4.5.6\r\n", "192.0.2.1"),
            (TRUSTED, "X-Forwarded-For: 198.51.100.9\r\nX-Forwarded-For: 192.0.2.1\r\n", "192.0.2.1"),
            (TRUSTED, "X-Forwarded-For: 192.0.2.1\r\nX-Forwarded-For: 10.1.2.3\r\n", "192.0.2.1"),
            (TRUSTED, "X-Forwarded-For: 10.1.2.3\r\n", "10.1.2.3"),
            (TRUSTED, "X-Forwarded-For: 192.0.2.1, unknown\r\n", "127.0.0.2"),
            (TRUSTED, "X-Forwarded-For: unknown, 192.0.2.1\r\n", "192.0.2.1"),
            (TRUSTED, "X-Forwarded-For: 192.0.2.1:4711\r\n", "192.0.2.1"),
            (TRUSTED, "X-Forwarded-For: [2001:db9::7]:4711, 2001:db8::1\r\n", "2001:db9::7"),
            (TRUSTED, "X-Forwarded-For: ::ffff:192.0.2.1\r\n", "192.0.2.1"),
            (TRUSTED, "X-Forwarded-For: ,, 192.0.2.1 ,\r\n", "192.0.2.1"),
            (TRUSTED, "Forwarded: for=192.0.2.1\r\n", "127.0.0.2"),
            (TRUSTED, "X_Forwarded_For: 192.0.2.1\r\n", "127.0.0.2"),
        ],
    );
}

#[test]
fn the_header_with_the_client_is_the_one_that_is_configured() {
    let upstream = Upstream::start();
    let gateway = with_header(&upstream, "forwarded");
    compare_clients(
        &gateway,
        &[
            (STRANGER, "Forwarded: for=192.0.2.1\r\n", "127.0.0.1"),
            (TRUSTED, "Forwarded: for=192.0.2.1;proto=https\r\n", "192.0.2.1"),
            (TRUSTED, "Forwarded: for=198.51.100.9, for=192.0.2.1, for=10.0.0.1\r\n", "192.0.2.1"),
            (TRUSTED, "Forwarded: FOR=\"[2001:db9::7]:4711\"\r\n", "2001:db9::7"),
            (TRUSTED, "Forwarded: for=192.0.2.1, for=_hidden\r\n", "127.0.0.2"),
            (TRUSTED, "Forwarded: for=\"192.0.2.1, for=x\r\n", "127.0.0.2"),
            (TRUSTED, "X-Forwarded-For: 192.0.2.1\r\n", "127.0.0.2"),
        ],
    );
    let gateway = with_header(&upstream, "cf-connecting-ip");
    compare_clients(
        &gateway,
        &[
            (STRANGER, "CF-Connecting-IP: 192.0.2.1\r\n", "127.0.0.1"),
            (TRUSTED, "CF-Connecting-IP: 192.0.2.1\r\n", "192.0.2.1"),
            (TRUSTED, "CF-Connecting-IP: 192.0.2.1, 192.0.2.2\r\n", "127.0.0.2"),
            (TRUSTED, "CF-Connecting-IP: 192.0.2.1\r\nCF-Connecting-IP: 192.0.2.2\r\n", "127.0.0.2"),
            (TRUSTED, "X-Forwarded-For: 192.0.2.1\r\n", "127.0.0.2"),
        ],
    );
    // A stranger's is not passed on either: the upstream may believe it.
    ask(&gateway, STRANGER, "CF-Connecting-IP: 192.0.2.1\r\n");
    assert_eq!(upstream.last().header("cf-connecting-ip"), None);
    ask(&gateway, TRUSTED, "CF-Connecting-IP: 192.0.2.1\r\n");
    assert_eq!(upstream.last().header("cf-connecting-ip"), Some("192.0.2.1"));
}

#[test]
fn filters_and_limits_go_by_the_client_and_not_by_the_proxy() {
    let upstream = Upstream::start();
    let gateway = with_header(&upstream, "x-forwarded-for");
    let status = |from: [u8; 4], path: &str, client: &str| {
        let mut connection = Client::connect_from(from.into(), gateway.address());
        connection.send(format!("GET {path} HTTP/1.1\r\nHost: a\r\nX-Forwarded-For: {client}\r\n\r\n")).read().status
    };
    assert_eq!(status(TRUSTED, "/inside", "192.0.2.1"), 200);
    assert_eq!(status(TRUSTED, "/inside", "198.51.100.9"), 403);
    assert_eq!(status(TRUSTED, "/inside", "192.0.2.1, 198.51.100.9"), 403);
    assert_eq!(status(STRANGER, "/inside", "192.0.2.1"), 403);
    for client in ["192.0.2.1", "192.0.2.2"] {
        let statuses: Vec<u16> = (0..3).map(|_| status(TRUSTED, "/limited", client)).collect();
        assert_eq!(statuses, [200, 200, 429], "{client}");
    }
    // Who is not believed cannot get a bucket of its own with each request.
    let statuses: Vec<u16> = (0..3).map(|n| status(STRANGER, "/limited", &format!("192.0.2.{}", 10 + n))).collect();
    assert_eq!(statuses, [200, 200, 429]);
}

#[test]
fn a_request_has_one_id_everywhere() {
    let upstream = Upstream::start();
    let gateway = with_header(&upstream, "x-forwarded-for");
    let long = "x".repeat(129);
    let just = "x".repeat(128);
    for (from, sent, accepted) in [
        (TRUSTED, Some("abc-123_.~:/+="), true),
        (TRUSTED, Some(just.as_str()), true),
        (TRUSTED, Some(long.as_str()), false),
        (TRUSTED, Some("a b"), false),
        (TRUSTED, Some("a\"b"), false),
        (TRUSTED, Some("{}"), false),
        (TRUSTED, Some(""), false),
        (TRUSTED, Some("one\r\nX-Request-ID: two"), false),
        (TRUSTED, None, false),
        (STRANGER, Some("abc"), false),
        (STRANGER, None, false),
    ] {
        let lines = sent.map_or(String::new(), |sent| format!("X-Request-ID: {sent}\r\n"));
        let answer = ask(&gateway, from, &lines);
        let id = answer.header("x-request-id").unwrap_or_default();
        assert_eq!(upstream.last().header("x-request-id"), Some(id));
        assert_eq!(gateway.log_line_where(|line| line["request_id"] == id)["status"], 200);
        if accepted {
            assert_eq!(Some(id), sent);
        } else {
            assert!(id.len() == 32 && id.bytes().all(|byte| byte.is_ascii_hexdigit()), "{id:?} for {sent:?}");
        }
    }
    let ids: Vec<String> = gateway.log().iter().filter_map(|line| line["request_id"].as_str().map(str::to_owned)).collect();
    let distinct: std::collections::BTreeSet<_> = ids.iter().collect();
    assert_eq!(distinct.len(), ids.len(), "an id has come twice");
}

#[test]
fn a_trace_goes_on_or_begins() {
    let upstream = Upstream::start();
    let gateway = with_header(&upstream, "x-forwarded-for");
    let trace = "4bf92f3577b34da6a3ce929d0e0e4736";
    let good = format!("00-{trace}-00f067aa0ba902b7-01");
    for (sent, is_continued) in [
        (good.clone(), true),
        (format!("00-{trace}-00f067aa0ba902b7-00"), true),
        (format!("cc-{trace}-00f067aa0ba902b7-01-what-the-future-brings"), true),
        (format!("ff-{trace}-00f067aa0ba902b7-01"), false),
        (format!("00-{trace}-0000000000000000-01"), false),
        (format!("00-{}-00f067aa0ba902b7-01", "0".repeat(32)), false),
        (format!("00-{}-00f067aa0ba902b7-01", trace.to_uppercase()), false),
        (format!("00-{trace}-00f067aa0ba902b7"), false),
        (format!("{good}\r\ntraceparent: {good}"), false),
        ("nonsense".to_owned(), false),
    ] {
        let answer = ask(&gateway, STRANGER, &format!("traceparent: {sent}\r\ntracestate: a=b\r\n"));
        let request = upstream.last();
        let forwarded = request.header("traceparent").unwrap_or_default();
        let parts: Vec<&str> = forwarded.split('-').collect();
        assert_eq!(parts.iter().map(|part| part.len()).collect::<Vec<_>>(), [2, 32, 16, 2], "{forwarded}");
        assert_eq!(parts[0], "00");
        assert_eq!(parts[1] == trace, is_continued, "{sent}: {forwarded}");
        assert_ne!(parts[2], "00f067aa0ba902b7", "a hop has a span of its own");
        assert_eq!(request.header("tracestate"), is_continued.then_some("a=b"), "{sent}");
        let id = answer.header("x-request-id").map(str::to_owned);
        let line = gateway.log_line_where(|line| line["request_id"].as_str() == id.as_deref());
        assert_eq!(line["trace_id"], parts[1]);
    }
}

#[test]
fn the_most_specific_route_takes_a_request() {
    let upstream = Upstream::start();
    let gateway = Gateway::config(
        r#"
server: { threads: 1 }
listeners:
  public: { address: "127.0.0.1:{port}" }
  private: { address: "127.0.0.1:{port:private}" }
upstreams: { up: { targets: ["{up}"] } }
defaults: { upstream: up }
routes:
  any-host: { listeners: [public], match: { path: /host }, auth: public }
  wildcard: { listeners: [public], match: { path: /host, hosts: ["*.example.com"] }, auth: public }
  deeper: { listeners: [public], match: { path: /host, hosts: ["*.eu.example.com"] }, auth: public }
  exact: { listeners: [public], match: { path: /host, hosts: [api.example.com] }, auth: public }
  rest: { listeners: [public], match: { path: /p/** }, auth: public }
  named: { listeners: [public], match: { path: "/p/{id}" }, auth: public }
  literal: { listeners: [public], match: { path: /p/me }, auth: public }
  below: { listeners: [public], match: { path: "/p/{id}/items" }, auth: public }
  read: { listeners: [public], match: { path: /m, methods: [GET] }, auth: public }
  write: { listeners: [public], match: { path: /m, methods: [POST, PUT] }, auth: public }
  old: { listeners: [public], match: { path: /v }, auth: public }
  new: { listeners: [public], match: { path: /v, headers: { x-api-version: "2" } }, auth: public }
  newest: { listeners: [public], match: { path: /v, headers: { x-api-version: "2" }, query: { beta: present } }, auth: public }
  private: { listeners: [private], match: { path: /private }, auth: public }
"#,
    )
    .var("up", upstream.address())
    .start();
    let mut client = gateway.client();
    for (line, more, route) in [
        ("GET /host", "Host: other.example", Some("any-host")),
        ("GET /host", "Host: x.example.com", Some("wildcard")),
        ("GET /host", "Host: x.y.example.com", Some("wildcard")),
        ("GET /host", "Host: x.eu.example.com", Some("deeper")),
        ("GET /host", "Host: API.example.com.:8080", Some("exact")),
        ("GET /host", "Host: example.com", Some("any-host")),
        ("GET /p", "Host: a", Some("rest")),
        ("GET /p/", "Host: a", Some("rest")),
        ("GET /p/1", "Host: a", Some("named")),
        ("GET /p/me", "Host: a", Some("literal")),
        ("GET /p/%6De", "Host: a", Some("literal")),
        ("GET /p/me/items", "Host: a", Some("below")),
        ("GET /p/1/items/2", "Host: a", Some("rest")),
        ("GET /m", "Host: a", Some("read")),
        ("HEAD /m", "Host: a", Some("read")),
        ("POST /m", "Host: a\r\nContent-Length: 0", Some("write")),
        ("DELETE /m", "Host: a", None),
        ("GET /v", "Host: a", Some("old")),
        ("GET /v", "Host: a\r\nX-API-Version: 2", Some("new")),
        ("GET /v", "Host: a\r\nX-API-Version: 2\r\nX-API-Version: 3", Some("old")),
        ("GET /v?beta", "Host: a\r\nX-API-Version: 2", Some("newest")),
        ("GET /v?beta", "Host: a", Some("old")),
        ("GET /private", "Host: a", None),
        ("GET /host/", "Host: a", None),
        ("GET /P/1", "Host: a", None),
    ] {
        client.send(format!("{line} HTTP/1.1\r\n{more}\r\n\r\n"));
        let method = line.split(' ').next().unwrap_or_default();
        let answer = client.read_answer_to(method).unwrap_or_else(|error| panic!("{line}: {error}"));
        let id = answer.header("x-request-id").map(str::to_owned);
        let logged = gateway.log_line_where(|line| line["request_id"].as_str() == id.as_deref());
        assert_eq!(logged["route"].as_str(), route, "{line} with {more:?}");
        let status = match (route, method) {
            (Some(_), _) => 200,
            (None, "DELETE") => 405,
            (None, _) => 404,
        };
        assert_eq!(answer.status, status, "{line} with {more:?}");
        if status == 405 {
            let mut allowed: Vec<&str> = answer.header("allow").unwrap_or_default().split(", ").collect();
            allowed.sort_unstable();
            assert_eq!(allowed, ["GET", "HEAD", "POST", "PUT"]);
        }
    }
    assert_eq!(crate::harness::get(gateway.address_of("private"), "/private", &[]).status, 200);
    assert_eq!(crate::harness::get(gateway.address_of("private"), "/host", &[]).status, 404);
}

#[test]
fn an_upstream_learns_how_the_client_came() {
    let upstream = Upstream::start();
    let gateway = with_header(&upstream, "forwarded");
    ask(&gateway, STRANGER, "Forwarded: for=6.6.6.6;host=evil\r\n");
    assert_eq!(upstream.last().header("forwarded"), Some("for=127.0.0.1;host=\"a\";proto=http"));
    ask(&gateway, TRUSTED, "Forwarded: for=192.0.2.1;proto=https\r\n");
    assert_eq!(upstream.last().header("forwarded"), Some("for=192.0.2.1;proto=https, for=127.0.0.2;host=\"a\";proto=https"));
    assert_eq!(upstream.last().header("x-forwarded-proto"), Some("https"), "as the client came to the first proxy");
    let gateway = with_header(&upstream, "x-forwarded-for");
    ask(&gateway, TRUSTED, "Forwarded: for=192.0.2.1\r\nX-Forwarded-Proto: https\r\n");
    assert_eq!(upstream.last().header("forwarded"), None, "nobody has checked it");
    assert_eq!(upstream.last().header("x-forwarded-proto"), Some("https"));
    // What is no scheme is not handed on.
    ask(&gateway, TRUSTED, "X-Forwarded-Proto: gopher\r\n");
    assert_eq!(upstream.last().header("x-forwarded-proto"), Some("http"));
}
