//! WebSockets between a client and a server that others wrote (Python's `websockets`), through the gateway.

use std::time::Duration;

use rustix::process::Signal;
use serde_json::{Value, json};

use super::harness::*;
use super::keys::{Signer, now};

const TEXT: &str = r#"
server: { threads: 2, settle: 0s, drain: DRAIN }
listeners:
  public: { address: "127.0.0.1:{port}", deadlines: { body: 300ms, keep_alive: 300ms } }
OTHER
authenticators:
  idp: { jwt: { issuer: i, audiences: [a], algorithms: [ES256], keys: { file: jwks.json } } }
upstreams:
  chat: { targets: ["{chat}"], timeouts: { idle: 10m } }
  hasty: { targets: ["{chat}"], timeouts: { idle: 250ms } }
routes:
  any: { ON match: { path: /** }, auth: public, upstream: chat }
  pages: { ON match: { path: /pages/** }, auth: public, upstream: chat, websocket: { origins: ["https://shop.example"] } }
  native: { ON match: { path: /native/** }, auth: public, upstream: chat, websocket: { origins: ["https://shop.example", none] } }
  shadowed: { ON match: { path: /shadowed/** }, auth: public, upstream: chat, websocket: { origins: ["https://shop.example"] }, shadow: [websocket] }
  hasty: { ON match: { path: /hasty/** }, auth: public, upstream: hasty }
  short: { ON match: { path: /short/** }, auth: public, upstream: chat, websocket: { idle: 250ms } }
  steady: { ON match: { path: /steady/** }, auth: public, upstream: chat, websocket: { idle: 1500ms } }
  long: { ON match: { path: /long/** }, auth: public, upstream: hasty, websocket: { idle: 10m } }
  until: { ON match: { path: /until/** }, auth: [idp], upstream: chat, websocket: { close_at_expiry: true } }
  beyond: { ON match: { path: /beyond/** }, auth: [idp], upstream: chat }
"#;

fn text(drain: &str, with_other: bool) -> String {
    let (other, on) = match with_other {
        true => ("  other: { address: \"127.0.0.1:{port:other}\" }\n", "listeners: [public, other], "),
        false => ("", "listeners: [public], "),
    };
    TEXT.replace("DRAIN", drain).replace("OTHER\n", other).replace("ON ", on)
}

struct Setup {
    gateway: Gateway,
    _server: PythonServer,
    signer: Signer,
}

fn start(drain: &str, with_other: bool) -> Setup {
    let server = PythonServer::start("websocket_server.py", &[]);
    let signer = Signer::generate("one");
    let config = Gateway::config(&text(drain, with_other)).var("chat", server.address()).file("jwks.json", signer.jwks());
    Setup { gateway: config.start(), _server: server, signer }
}

impl Setup {
    fn begin(&self, what: &str, path: &str, headers: Value) -> PythonClient {
        self.begin_at(self.gateway.address(), what, path, headers)
    }

    fn begin_at(&self, address: std::net::SocketAddr, what: &str, path: &str, headers: Value) -> PythonClient {
        PythonClient::start("websocket_client.py", &[what, &format!("ws://{address}{path}"), &headers.to_string()])
    }

    #[track_caller]
    fn ask(&self, what: &str, path: &str, headers: Value) -> Value {
        self.begin(what, path, headers).said()
    }

    #[track_caller]
    fn wait_for_open(&self, route: &str, count: f64) {
        let series = format!("sluice_websockets{{route=\"{route}\"}}");
        eventually("open WebSockets", || (self.gateway.metric_now(&series) == count).then_some(()));
    }

    #[track_caller]
    fn line(&self, route: &str) -> Value {
        self.gateway.log_line_where(|line| line["route"] == route)
    }
}

#[test]
fn messages_of_every_kind_and_size_pass_both_ways() {
    let setup = start("10m", false);
    let told = setup.ask("exchange", "/echo", json!({ "origin": "https://anywhere.example" }));
    assert_eq!(told["subprotocol"], "chat.v1");
    assert!(told["extensions"][0].as_str().unwrap().starts_with("permessage-deflate"), "{told}");
    assert_eq!(told["echoed"], json!([true, true, true, true, true, true, true]));
    assert_eq!((&told["pong"], &told["close"]), (&json!(true), &json!([4001, "done"])));

    let line = setup.line("any");
    assert_eq!((&line["status"], &line["path"]), (&json!(101), &json!("/echo")));
    assert!(line.get("code").is_none() && line.get("gateway_us").is_none(), "{line}");
    // Compressed, but not to nothing: half of what was sent was random enough.
    let (received, sent) = (line["bytes_in"].as_u64().unwrap(), line["bytes_out"].as_u64().unwrap());
    assert!(received > 1000 && sent > 1000, "{line}");
    assert!(line["total_us"].as_u64().unwrap() > 0);
    // The server answers the Close and then ends the connection; the client waits for that.
    assert_eq!(line["closed_by"], "upstream");

    let gateway = &setup.gateway;
    assert_eq!(gateway.metric("sluice_websockets{route=\"any\"}"), 0.0);
    assert_eq!(gateway.metric("sluice_websockets_opened_total{route=\"any\"}"), 1.0);
    assert_eq!(gateway.metric("sluice_websockets_closed_total{route=\"any\",by=\"upstream\"}"), 1.0);
    #[expect(clippy::cast_precision_loss, reason = "a few megabytes")]
    for (direction, bytes) in [("in", received as f64), ("out", sent as f64)] {
        assert_eq!(gateway.metric(&format!("sluice_websocket_bytes_total{{route=\"any\",direction=\"{direction}\"}}")), bytes);
    }
    assert_eq!(gateway.metric("sluice_websocket_duration_seconds_count{route=\"any\"}"), 1.0);
    assert_eq!(gateway.metric("sluice_request_duration_seconds_count{route=\"any\"}"), 0.0, "it is no slow request");
}

#[test]
fn the_server_learns_who_asks_and_its_pings_are_answered() {
    let setup = start("10m", false);
    let token = setup.signer.token(&json!({ "iss": "i", "aud": "a", "sub": "u1", "exp": now() + 3600 }));
    let told = setup.ask("facts", "/beyond/facts", json!({ "authorization": format!("Bearer {token}"), "x-forwarded-for": "9.9.9.9" }));
    let headers = &told["facts"]["headers"];
    assert_eq!((&headers["x-forwarded-for"], headers.get("authorization")), (&json!("127.0.0.1"), None));
    assert!(headers["sec-websocket-key"].is_string() && headers["x-request-id"].is_string(), "{headers}");
    assert_eq!(told["pong"], "the pong has come");
    assert_eq!(setup.line("beyond")["subject"], "u1");
}

#[test]
fn pages_of_other_origins_are_refused_before_the_upstream_is_asked() {
    let setup = start("10m", false);
    let evil = json!({ "origin": "https://evil.example" });
    for (path, headers) in [("/pages/echo", evil.clone()), ("/pages/echo", json!({})), ("/native/echo", evil.clone())] {
        let told = setup.ask("exchange", path, headers);
        assert_eq!((&told["status"], &told["problem"]["code"]), (&json!(403), &json!("origin-refused")), "{path}");
    }
    let line = setup.gateway.log_line_where(|line| line["code"] == "origin-refused");
    assert_eq!((&line["reason"], line.get("target")), (&json!("origin `https://evil.example` is not listed"), None));
    assert_eq!(setup.gateway.metric("sluice_refusals_total{policy=\"websocket\",code=\"origin-refused\"}"), 3.0);
    let shop = json!({ "origin": "https://shop.example" });
    for (path, headers) in [("/pages/echo", shop), ("/native/echo", json!({})), ("/shadowed/echo", evil)] {
        assert_eq!(setup.ask("exchange", path, headers)["pong"], true, "{path}");
    }
    assert_eq!(setup.line("shadowed")["would_refuse"], json!(["origin-refused"]));
    // A request that is no handshake is not the policy's business.
    let page = setup.gateway.get("/pages/x", &[("origin", "https://evil.example")]);
    assert_eq!(page.status, 426, "the server's own answer");
}

#[test]
fn explain_says_what_a_handshake_meets() {
    let setup = start("10m", false);
    let explain = |args: &[&str]| {
        let handshake = ["-H", "connection: upgrade", "-H", "upgrade: websocket"];
        let output = setup.gateway.sluice(&[&["explain", "sluice.yaml"], args, &handshake].concat());
        String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned()
    };
    let refused = explain(&["GET http://h/pages/a", "-H", "origin: https://evil.example"]);
    assert!(refused.contains("websocket  refused") && refused.contains("403 origin-refused"), "{refused}");
    let short = explain(&["GET http://h/short/a"]);
    assert!(short.contains("websocket  passed        idle 250ms") && short.contains("closed after 250ms of silence"), "{short}");
    let until = explain(&["GET http://h/until/a", "--claims", r#"{"sub":"u1","exp":4102444800}"#]);
    assert!(until.contains("closed after 10m of silence, closed at 2100-01-01T00:00:00.000Z when the credential expires"), "{until}");
}

#[test]
fn a_tunnel_that_is_silent_both_ways_is_closed_and_no_other() {
    let setup = start("10m", false);
    for (route, path) in [("short", "/short/echo"), ("hasty", "/hasty/echo")] {
        let told = setup.ask("stay", path, json!({}));
        assert_eq!(told, json!({ "received": 0, "close": [1001, "idle"] }), "{route}");
        let line = setup.line(route);
        assert_eq!((&line["code"], &line["status"], &line["closed_by"]), (&json!("websocket-idle"), &json!(101), &json!("gateway")));
        assert_eq!(line["reason"], "silence for 250ms");
    }
    // Longer than the idle time of the upstream, and than every deadline of the listener; whoever speaks, it is not silent.
    let quiet = setup.begin("stay", "/long/echo", json!({}));
    let pushed = setup.begin("busy", "/steady/push", json!({}));
    let talking = setup.begin("talk", "/steady/echo", json!({}));
    setup.wait_for_open("long", 1.0);
    setup.wait_for_open("steady", 2.0);
    let begin = std::time::Instant::now();
    eventually("a time longer than the silence that is allowed", || (begin.elapsed() > Duration::from_millis(2500)).then_some(()));
    setup.wait_for_open("long", 1.0);
    setup.wait_for_open("steady", 2.0);
    assert_eq!(setup.gateway.metric_now("sluice_upstream_requests_total{upstream=\"chat\",result=\"idle_timeout\"}"), 0.0);
    drop((quiet, pushed, talking));
    setup.wait_for_open("steady", 0.0);
    assert_eq!(setup.gateway.metric("sluice_websockets_closed_total{route=\"steady\",by=\"client\"}"), 2.0);
}

#[test]
fn a_tunnel_ends_with_its_token_however_busy_it_is() {
    let setup = start("10m", false);
    let header = |exp: f64| {
        let token = setup.signer.token(&json!({ "iss": "i", "aud": "a", "sub": "u1", "exp": exp }));
        json!({ "authorization": format!("Bearer {token}") })
    };
    // Four clients must have begun by then, however long one takes on this machine.
    let begin = std::time::Instant::now();
    setup.ask("exchange", "/echo", json!({}));
    #[expect(clippy::cast_precision_loss, reason = "seconds")]
    let soon = now() as f64 + 4.5_f64.max(8.0 * begin.elapsed().as_secs_f64());
    let ends = [("stay", "/until/echo"), ("busy", "/until/push"), ("talk", "/until/echo")]
        .map(|(what, path)| setup.begin(what, path, header(soon)));
    let lives = setup.begin("stay", "/beyond/echo", header(soon));
    setup.wait_for_open("until", 3.0);
    setup.wait_for_open("beyond", 1.0);
    for client in ends {
        assert_eq!(client.said()["close"], json!([1008, "token expired"]));
    }
    let lines = eventually("three lines", || {
        let lines: Vec<Value> = setup.gateway.log().into_iter().filter(|line| line["route"] == "until").collect();
        (lines.len() == 3).then_some(lines)
    });
    for line in lines {
        assert_eq!((&line["code"], &line["status"], &line["closed_by"]), (&json!("websocket-expired"), &json!(101), &json!("gateway")));
    }
    setup.wait_for_open("beyond", 1.0);
    drop(lives);
}

#[test]
fn a_tunnel_ends_with_its_key_where_keys_end() {
    let begin = std::time::Instant::now();
    let server = PythonServer::start("websocket_server.py", &[]);
    // A gateway and a client must have begun by then, however long such things take on this machine.
    let until = now() + 8 * begin.elapsed().as_secs() + 5;
    let date = std::process::Command::new("date").args(["-u", "-d", &format!("@{until}"), "+%FT%TZ"]).output().unwrap();
    let key = "{ sha256: \"9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08\"MORE }";
    let text = format!(
        r#"
server: {{ threads: 1, settle: 0s }}
listeners: {{ l: {{ address: "127.0.0.1:{{port}}" }} }}
admin: {{ address: "127.0.0.1:{{admin}}" }}
authenticators: {{ keys: {{ api_key: {{ header: x-api-key }} }} }}
consumers: {{ acme: {{ keys: [{key}] }} }}
upstreams: {{ chat: {{ targets: ["{{chat}}"] }} }}
routes: {{ until: {{ match: {{ path: /until/** }}, auth: [keys], upstream: chat, websocket: {{ close_at_expiry: true }} }} }}
"#
    );
    let ends = text.replace("MORE", &format!(", expires: {}", String::from_utf8(date.stdout).unwrap().trim()));
    let gateway = Gateway::config(&ends).var("chat", server.address()).start();
    let setup = Setup { gateway, _server: server, signer: Signer::generate("none") };
    assert_eq!(setup.ask("stay", "/until/echo", json!({ "x-api-key": "test" }))["close"], json!([1008, "token expired"]));
    assert_eq!(setup.line("until")["code"], "websocket-expired");
    // Where none ends, it would be a key without effect.
    let refused = Gateway::config(&text.replace("MORE", "")).var("chat", "127.0.0.1:1").try_start().err().unwrap();
    assert!(refused.stderr.contains("no key has an `expires`"), "{}", refused.stderr);
}

#[test]
fn a_tunnel_ends_when_its_caller_is_revoked_and_no_other_does() {
    let server = PythonServer::start("websocket_server.py", &[]);
    let signer = Signer::generate("one");
    let text = text("10m", false).replace("routes:\n", "revocation: { file: revoked.jsonl }\nroutes:\n");
    let config = Gateway::config(&text).var("chat", server.address()).file("jwks.json", signer.jwks()).file("revoked.jsonl", "");
    let mut setup = Setup { gateway: config.start(), _server: server, signer };
    let open = |setup: &Setup, what: &str, sub: &str| {
        let token = setup.signer.token(&json!({ "iss": "i", "aud": "a", "sub": sub, "iat": now(), "exp": now() + 3600 }));
        setup.begin(
            what,
            if what == "busy" { "/beyond/push" } else { "/beyond/echo" },
            json!({ "authorization": format!("Bearer {token}") }),
        )
    };
    let revoke = |setup: &Setup, lines: &str| {
        let new = setup.gateway.dir().join("new");
        std::fs::write(&new, lines).unwrap();
        std::fs::rename(new, setup.gateway.dir().join("revoked.jsonl")).unwrap();
    };
    let gone = ["stay", "busy", "talk"].map(|what| open(&setup, what, "u1"));
    let stays = open(&setup, "stay", "u2");
    setup.wait_for_open("beyond", 4.0);
    let first = "{\"sub\":\"u1\",\"before\":\"2999-01-01T00:00:00Z\",\"reason\":\"left\"}\n";
    revoke(&setup, first);
    for client in gone {
        assert_eq!(client.said()["close"], json!([1008, "credential revoked"]));
    }
    let lines = eventually("three lines", || {
        let lines: Vec<Value> = setup.gateway.log().into_iter().filter(|line| line["route"] == "beyond").collect();
        (lines.len() == 3).then_some(lines)
    });
    for line in lines {
        assert_eq!((&line["code"], &line["status"], &line["closed_by"]), (&json!("websocket-revoked"), &json!(101), &json!("gateway")));
        assert!(line["reason"].as_str().unwrap().ends_with("what opened the tunnel has been revoked"), "{line}");
    }
    setup.wait_for_open("beyond", 1.0);
    // A tunnel hears of the lists of later configurations, too. Here its signing key is withdrawn.
    setup.gateway.reload(&text.replace("drain: 10m", "drain: 9m"));
    revoke(&setup, &format!("{first}{{\"kid\":\"one\",\"authenticator\":\"idp\"}}\n"));
    assert_eq!(stays.said()["close"], json!([1008, "credential revoked"]));
    let token = setup.signer.token(&json!({ "iss": "i", "aud": "a", "sub": "u2", "exp": now() + 3600 }));
    let refused = setup.gateway.get("/beyond/echo", &[("authorization", &format!("Bearer {token}"))]);
    assert_eq!((refused.status, refused.code().as_str()), (401, "credential-revoked"));
    let line = setup.gateway.log_line_where(|line| line["code"] == "credential-revoked");
    assert_eq!(line["reason"], "the key that the token is signed with is revoked");
}

#[test]
fn the_log_says_who_ended_it() {
    let setup = start("10m", false);
    assert_eq!(setup.ask("busy", "/native/leave", json!({}))["close"], json!([4002, "enough"]));
    assert_eq!(setup.line("native")["closed_by"], "upstream");
    let client = setup.begin("stay", "/any/echo", json!({}));
    setup.wait_for_open("any", 1.0);
    drop(client);
    let line = setup.line("any");
    assert_eq!(line["closed_by"], "client", "{line}");
}

#[test]
fn a_stop_closes_tunnels_at_the_end_of_the_drain_and_tells_them() {
    let mut setup = start("3s", false);
    let client = setup.begin("talk", "/echo", json!({}));
    setup.wait_for_open("any", 1.0);
    setup.gateway.signal(Signal::TERM);
    eventually("the end of the listener", || Client::try_connect(setup.gateway.address()).err());
    // It has not noticed.
    let bytes = || setup.gateway.metric_now("sluice_websocket_bytes_total{route=\"any\",direction=\"out\"}");
    let before = bytes();
    eventually("messages during the drain", || (bytes() > before).then_some(()));
    assert_eq!(client.said()["close"], json!([1001, "going away"]));
    assert_eq!(setup.gateway.wait_for_exit().code(), Some(0));
    let line = setup.line("any");
    assert_eq!((&line["code"], &line["status"], &line["closed_by"]), (&json!("drain-ended"), &json!(101), &json!("gateway")));
    assert!(line["bytes_out"].as_u64().unwrap() > 0);
}

#[test]
fn a_listener_that_is_removed_closes_its_tunnels_at_the_end_of_the_drain() {
    let mut setup = start("1s", true);
    let gone = setup.begin_at(setup.gateway.address_of("other"), "stay", "/native/echo", json!({}));
    let stays = setup.begin("stay", "/any/echo", json!({}));
    setup.wait_for_open("native", 1.0);
    setup.wait_for_open("any", 1.0);
    setup.gateway.reload(&text("1s", false));
    assert_eq!(gone.said()["close"], json!([1001, "going away"]));
    assert_eq!(setup.line("native")["code"], "drain-ended");
    setup.wait_for_open("any", 1.0);
    drop(stays);
}
