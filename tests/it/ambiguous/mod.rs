//! Requests that two parsers could read differently, on a real socket: what is answered, what is logged, what reaches the upstream byte for byte.
//!
//! The rows are in the files below, one a group; this one sends them and compares. Every row cites where the rule is written.

mod fields;
mod framing;
mod identity;
mod lines;
mod paths;
mod slow;
mod tokens;

use std::collections::BTreeMap;
use std::net::IpAddr;

use serde_json::Value;

use crate::harness::{Client, Config, Gateway, Response, Upstream, h11};

/// One raw request and what must become of it.
pub struct Row {
    /// The number of an RFC and its section.
    rfc: &'static str,
    bytes: Vec<u8>,
    expect: Expect,
    /// Sent to the listener with narrow bounds.
    is_tight: bool,
    /// Sent from the address of the trusted proxy.
    is_trusted: bool,
    /// What must be found in `reason` of the log line.
    reason: &'static str,
}

pub enum Expect {
    /// Refused with a status and a code, nothing forwarded; whether the connection may be used again.
    Refused(u16, &'static str, After),
    /// Forwarded like this, but for the fields that the gateway adds to every request.
    Forwarded(Vec<u8>),
    /// Forwarded like this, all fields as they are; `{id}` and `{trace}` stand for what differs from request to request.
    ForwardedExactly(Vec<u8>),
    /// The fault shows in the body: refused with 400 and a code, the upstream's request never completed, both sides closed.
    Cut(&'static str),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum After {
    Open,
    Closed,
}

// === impl Row ===

impl Row {
    pub fn new(rfc: &'static str, bytes: impl AsRef<[u8]>, expect: Expect) -> Row {
        Row { rfc, bytes: bytes.as_ref().to_vec(), expect, is_tight: false, is_trusted: false, reason: "" }
    }

    /// A GET of a target.
    pub fn get(rfc: &'static str, target: impl AsRef<[u8]>, expect: Expect) -> Row {
        let target = target.as_ref();
        Row::new(rfc, [b"GET ", target, b" HTTP/1.1\r\nHost: a.example\r\n\r\n"].concat(), expect)
    }

    /// A GET with more fields, each line without its end.
    pub fn with(rfc: &'static str, lines: impl AsRef<[u8]>, expect: Expect) -> Row {
        Row::new(rfc, [b"GET /x HTTP/1.1\r\nHost: a.example\r\n", lines.as_ref(), b"\r\n\r\n"].concat(), expect)
    }

    /// A POST with more fields and a body.
    pub fn post(rfc: &'static str, lines: impl AsRef<[u8]>, body: impl AsRef<[u8]>, expect: Expect) -> Row {
        Row::new(rfc, [b"POST /x HTTP/1.1\r\nHost: a.example\r\n", lines.as_ref(), b"\r\n\r\n", body.as_ref()].concat(), expect)
    }

    pub fn tight(mut self) -> Row {
        self.is_tight = true;
        self
    }

    pub fn trusted(mut self) -> Row {
        self.is_trusted = true;
        self
    }

    pub fn because(mut self, reason: &'static str) -> Row {
        self.reason = reason;
        self
    }
}

/// Refused before it was a request: the end of the connection.
pub fn bad(status: u16, code: &'static str) -> Expect {
    Expect::Refused(status, code, After::Closed)
}

/// Refused as a request: the connection goes on.
pub fn no(status: u16, code: &'static str) -> Expect {
    Expect::Refused(status, code, After::Open)
}

/// Forwarded; request line, the client's fields and the body as they must arrive, fields without the empty line.
pub fn to(head: impl AsRef<[u8]>, body: impl AsRef<[u8]>) -> Expect {
    Expect::Forwarded([head.as_ref(), b"\r\n{added}\r\n", body.as_ref()].concat())
}

/// A GET that arrives under this target, with no field but those of every request.
pub fn target(target: &str) -> Expect {
    to(format!("GET {target} HTTP/1.1\r\nHost: a.example"), "")
}

const ADDED: &str =
    "x-forwarded-for: 127.0.0.1\r\nx-forwarded-proto: http\r\nx-forwarded-host: {host}\r\nx-request-id: {id}\r\ntraceparent: {trace}\r\n";

const GOOD: &str = "GET /good HTTP/1.1\r\nHost: a.example\r\n\r\n";

const CONFIG: &str = r#"
server: { threads: 1 }
clients: { trusted_proxies: [127.0.0.2] }
listeners:
  public: { address: "127.0.0.1:{port}", heads: { bytes: 256KiB, line: 256KiB } }
  tight: { address: "127.0.0.1:{port:tight}", heads: { bytes: 2KiB, fields: 20, line: 1KiB } }
  hasty: { address: "127.0.0.1:{port:hasty}", deadlines: { header: 1s } }
authenticators:
  idp:
    jwt:
      issuer: https://idp.example
      audiences: [orders]
      algorithms: [ES256, RS256]
      keys: { file: jwks.json }
      max_lifetime: 1h
      forward: { x-user-id: sub, x-user-role: roles }
  other: { jwt: { issuer: "https://other.example", audiences: [orders], algorithms: [ES256], keys: { file: jwks.json }, forward: { x-user-id: sub } } }
  partners: { api_key: { header: x-api-key, forward: { x-client-id: consumer } } }
consumers: { acme: { keys: [{ sha256: "2bb80d537b1da3e38bd30361aa855686bde0eacd7162fef6a25fe97bf527a25b" }] } } # `secret`
upstreams: { up: { targets: ["{up}"] } }
defaults: { upstream: up }
routes:
  any: { listeners: [public], match: { path: /** }, auth: public }
  good: { listeners: [tight, hasty], match: { path: /good }, auth: public }
  slash: { listeners: [public], match: { path: /slash/** }, auth: public, accept: [encoded_slash] }
  double: { listeners: [public], match: { path: /double/** }, auth: public, accept: [double_slash] }
  semicolon: { listeners: [public], match: { path: /semicolon/** }, auth: public, accept: [semicolon] }
  backslash: { listeners: [public], match: { path: /backslash/** }, auth: public, accept: [backslash] }
  token: { listeners: [public], match: { path: /token }, auth: [idp] }
  among: { listeners: [public], match: { path: /among }, auth: [other, idp] }
  key: { listeners: [public], match: { path: /key }, auth: [partners] }
  small: { listeners: [public], match: { path: /small }, auth: public, body: { limit: 10B } }
  get: { listeners: [tight], match: { path: /get, methods: [GET] }, auth: public }
"#;

pub fn gateway(upstream: &Upstream, jwks: String) -> Config {
    Gateway::config(CONFIG).var("up", upstream.address()).file("jwks.json", jwks)
}

/// Sends the rows one after the other and compares everything; all that differs is told at once.
#[track_caller]
fn run(rows: Vec<Row>) {
    run_with(rows, tokens::Idp::new().jwks());
}

#[track_caller]
fn run_with(rows: Vec<Row>, jwks: String) {
    let upstream = Upstream::start();
    let gateway = gateway(&upstream, jwks).start();
    let mut wrong = Vec::new();
    let mut expected_log = Vec::new();
    for row in &rows {
        let text = String::from_utf8_lossy(&row.bytes[..row.bytes.len().min(300)]).into_owned();
        for what in send(&gateway, &upstream, row, &mut expected_log) {
            wrong.push(format!("RFC {}: {text:?}\n    {what}", row.rfc));
        }
    }
    compare_log(&gateway, &expected_log, &mut wrong);
    compare_strict(&upstream, &mut wrong);
    let stderr = gateway.stderr();
    if stderr.contains("panicked") {
        wrong.push(format!("a panic: {stderr}"));
    }
    assert!(wrong.is_empty(), "{} of {} rows differ:\n{}", wrong.len(), rows.len(), wrong.join("\n"));
}

/// Codes that nobody can be shown to get but by some row.
#[test]
fn every_refusal_of_a_head_has_a_row() {
    let idp = tokens::Idp::new();
    let groups = [fields::rows(), framing::heads(), framing::bodies(), identity::rows(), lines::lines(), lines::hosts(), paths::rows()];
    let rows: Vec<Row> = groups.into_iter().flatten().chain(tokens::rows(&idp)).collect();
    assert!(rows.len() > 400, "{}", rows.len());
    let has = |code: &str| {
        rows.iter().any(|row| match row.expect {
            Expect::Refused(_, of, _) | Expect::Cut(of) => of == code,
            Expect::Forwarded(_) | Expect::ForwardedExactly(_) => false,
        })
    };
    let head = sluice::listen::head::KINDS.iter().map(|kind| kind.code);
    let canonical = sluice::entry::canonical::KINDS.iter().map(|kind| kind.code);
    // What a provider says of a token that nobody here can read: see `introspection.rs`.
    let token = sluice::policy::jwt::kinds::KINDS.iter().map(|kind| kind.code).filter(|code| *code != "token-inactive");
    let missing: Vec<_> = head.chain(canonical).chain(token).filter(|code| !has(code)).collect();
    assert!(missing.is_empty(), "no row is refused with {missing:?}");
}

/// What must be in the log: request id, status, code, a part of the reason.
type Logged = (String, u16, &'static str, &'static str);

fn send(gateway: &Gateway, upstream: &Upstream, row: &Row, log: &mut Vec<Logged>) -> Vec<String> {
    let mut wrong = Vec::new();
    let before = upstream.requests().len();
    let address = if row.is_tight { gateway.address_of("tight") } else { gateway.address() };
    let source: IpAddr = if row.is_trusted { [127, 0, 0, 2] } else { [127, 0, 0, 1] }.into();
    let mut client = Client::connect_from(source, address);
    client.send(&row.bytes);
    let method = if row.bytes.starts_with(b"HEAD ") { "HEAD" } else { "GET" };
    let answer = match client.read_answer_to(method) {
        Ok(answer) => answer,
        Err(error) => return vec![format!("no answer: {error}")],
    };
    let id = answer.header("x-request-id").unwrap_or_default().to_owned();
    let (status, code, after) = match &row.expect {
        Expect::Refused(status, code, after) => (*status, *code, *after),
        Expect::Cut(code) => (400, *code, After::Closed),
        Expect::Forwarded(_) | Expect::ForwardedExactly(_) => (200, "", says_after(&answer)),
    };
    log.push((id.clone(), status, code, row.reason));
    let got = if answer.status == 200 { String::new() } else { code_of(&answer, &id, &mut wrong, method) };
    if (answer.status, got.as_str()) != (status, code) && (method != "HEAD" || answer.status != status) {
        wrong.push(format!("{status} {code} was expected; got {} {got}", answer.status));
    }
    if says_after(&answer) != after {
        wrong.push(format!("the connection should be {after:?}; the answer says {:?}", says_after(&answer)));
    }
    // Whatever was refused: the listener, and the connection where it is kept, serve the next request.
    match says_after(&answer) {
        After::Open => client.send(GOOD),
        After::Closed => {
            client.expect_close();
            client = Client::connect(address);
            client.send(GOOD)
        }
    };
    match client.try_read() {
        Ok(good) if good.status == 200 => log.push((good.header("x-request-id").unwrap_or_default().to_owned(), 200, "", "")),
        Ok(other) => wrong.push(format!("the good request after it got {}", other.status)),
        Err(error) => wrong.push(format!("the good request after it got no answer: {error}")),
    }
    let wanted = if let Expect::Refused(..) = row.expect { 1 } else { 2 };
    let requests = match row.expect {
        // Its end is recorded when the upstream sees the connection close, perhaps after the good one.
        Expect::Cut(_) => upstream.wait_for_requests(before + 2),
        _ => upstream.requests(),
    };
    let fresh = &requests[before..];
    if fresh.len() != wanted {
        wrong.push(format!("{wanted} requests should have been forwarded, the good one included: {fresh:?}"));
        return wrong;
    }
    match &row.expect {
        Expect::Refused(..) => {}
        Expect::Cut(_) => {
            if fresh.iter().filter(|request| !request.is_complete).count() != 1 {
                wrong.push(format!("exactly one request should be incomplete: {fresh:?}"));
            }
        }
        Expect::Forwarded(expected) | Expect::ForwardedExactly(expected) => {
            let got = String::from_utf8_lossy(&[fresh[0].head.as_slice(), &fresh[0].raw_body].concat()).into_owned();
            let host = fresh[0].header("host").unwrap_or_default();
            let trace = fresh[0].header("traceparent").unwrap_or_default();
            let expected = String::from_utf8_lossy(expected).replace("{added}", ADDED);
            let expected = expected.replace("{host}", host).replace("{id}", &id).replace("{trace}", trace);
            if got != expected {
                wrong.push(format!("forwarded {got:?}\n    expected  {expected:?}"));
            }
            if !fresh[0].is_complete {
                wrong.push("the upstream's request is not complete".to_owned());
            }
        }
    }
    wrong
}

fn says_after(answer: &Response) -> After {
    if answer.is_keep_alive() { After::Open } else { After::Closed }
}

fn code_of(answer: &Response, id: &str, wrong: &mut Vec<String>, method: &str) -> String {
    if method == "HEAD" {
        return String::new();
    }
    let problem: Value = serde_json::from_slice(&answer.body).unwrap_or_default();
    if answer.header("content-type") != Some("application/problem+json") {
        wrong.push(format!("not a problem document: {:?}", String::from_utf8_lossy(&answer.body)));
    }
    if problem["request_id"] != id {
        wrong.push(format!("the problem's request id is not that of the header, {id:?}: {problem}"));
    }
    problem["code"].as_str().unwrap_or_default().to_owned()
}

/// One line a request, with the same code that the client read; nothing is missing and nothing is there twice.
fn compare_log(gateway: &Gateway, expected: &[Logged], wrong: &mut Vec<String>) {
    let lines = gateway.log_lines(expected.len());
    if lines.len() != expected.len() {
        wrong.push(format!("{} log lines, {} requests", lines.len(), expected.len()));
    }
    let by_id: BTreeMap<&str, &Value> = lines.iter().map(|line| (line["request_id"].as_str().unwrap_or_default(), line)).collect();
    for (id, status, code, reason) in expected {
        let Some(line) = by_id.get(id.as_str()) else {
            wrong.push(format!("no log line for the {status} {code} with id {id:?}"));
            continue;
        };
        let logged = (line["status"].as_u64(), line["code"].as_str().unwrap_or_default());
        if logged != (Some(u64::from(*status)), *code) {
            wrong.push(format!("{status} {code} is not what was logged: {line}"));
        } else if code.starts_with("path-") && line["path"].as_str().is_none_or(str::is_empty) {
            wrong.push(format!("{status} {code} does not tell the path: {line}"));
        }
        if !line["reason"].as_str().unwrap_or_default().contains(reason) {
            wrong.push(format!("the reason should say {reason:?}: {line}"));
        }
    }
}

/// h11 must read the upstream's bytes as the same requests; what it cannot read must have been cut off by the gateway on purpose.
fn compare_strict(upstream: &Upstream, wrong: &mut Vec<String>) {
    let (raw, requests) = (upstream.raw(), upstream.requests());
    for (number, (parsed, error)) in h11::parse(&raw).into_iter().enumerate() {
        let ours: Vec<_> = requests.iter().filter(|request| request.connection == number).collect();
        let is_cut = ours.last().is_some_and(|request| !request.is_complete);
        if let Some(error) = error
            && !is_cut
        {
            wrong.push(format!("h11 refuses what was forwarded: {error}: {:?}", String::from_utf8_lossy(&raw[number])));
        }
        let bytes: usize = ours.iter().map(|request| request.head.len() + request.raw_body.len()).sum();
        if bytes != raw[number].len() && !is_cut {
            wrong.push(format!("{} bytes were forwarded, {bytes} of them in requests", raw[number].len()));
        }
        if parsed.len() != ours.len() {
            wrong.push(format!(
                "h11 reads {} requests, the upstream {}: {:?}",
                parsed.len(),
                ours.len(),
                String::from_utf8_lossy(&raw[number])
            ));
            continue;
        }
        for (theirs, ours) in parsed.iter().zip(ours) {
            let headers: Vec<_> = ours.headers.iter().map(|(name, value)| (name.to_ascii_lowercase(), value.clone())).collect();
            let same = (&theirs.method, &theirs.target, theirs.complete) == (&ours.method, &ours.target, ours.is_complete)
                && theirs.content() == ours.body
                && theirs.utf8_headers() == headers
                && theirs.version == "1.1"
                && theirs.trailers.is_empty();
            if !same {
                wrong.push(format!("h11 reads {theirs:?}, the upstream {ours:?}"));
            }
        }
    }
}
