//! A request head, through every decision: what goes upstream is a sound head with the same framing, says of the caller only what
//! the gateway knows, and its log line is one line of JSON.

use std::net::SocketAddr;
use std::pin::pin;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};

use http::HeaderValue;
use pingora_http::RequestHeader;
use serde_json::json;
use sluice::config::plan::{Action, Gateway, Relay, Route};
use sluice::ctx::{Facts, Now, Scheme};
use sluice::decide::{Decision, decide};
use sluice::entry::canonical::raw_target;
use sluice::listen::head::{Head, HeadBounds, Judged, judge};
use sluice::policy::Stop;
use sluice::relay::message::hop_by_hop::without_hop_by_hop;
use sluice::relay::message::send::make_head;
use sluice::report::access_log::Line;
use sluice::simulate::own_headers;

pub fn hold(data: &[u8]) {
    let Judged::Complete(judged) = judge(data, &HeadBounds::default()) else { return };
    let head = parse(&data[judged.leading..][..judged.len]);
    let target = raw_target(data).expect("a complete head has a target");
    for (peer, assumed) in [("10.0.0.1:7", false), ("192.0.2.1:7", false), ("192.0.2.1:7", true)] {
        let mut facts =
            Facts::new(0, peer.parse::<SocketAddr>().expect("an address"), Scheme::Http, Now { mono: 1, unix_ms: 1_750_000_000_000 });
        if assumed {
            let claims = json!({"sub": "u1", "tenant": "acme", "scope": "orders:read", "realm_access": {"roles": ["a", "b"]}});
            facts.assumed = Some(Arc::new(claims));
        }
        ask(&super::GATEWAY, judged, &head, target, &mut facts);
    }
}

fn parse(bytes: &[u8]) -> RequestHeader {
    let mut fields = [httparse::EMPTY_HEADER; 256];
    let mut parsed = httparse::Request::new(&mut fields);
    parsed.parse(bytes).expect("`head` holds");
    let (method, target) = (parsed.method.expect("a method"), parsed.path.expect("a target"));
    let mut head = RequestHeader::build(method, target.as_bytes(), None).expect("`head` holds");
    head.set_version(if parsed.version == Some(0) { http::Version::HTTP_10 } else { http::Version::HTTP_11 });
    for field in parsed.headers.iter() {
        head.append_header(field.name.to_owned(), field.value).expect("`head` holds");
    }
    head
}

fn ask(gateway: &Gateway, judged: Head, head: &RequestHeader, target: &[u8], facts: &mut Facts) {
    let decided = {
        let mut decision = pin!(decide(gateway, &gateway.buckets, head, target, facts));
        match decision.as_mut().poll(&mut Context::from_waker(Waker::noop())) {
            Poll::Ready(decided) => decided,
            Poll::Pending => panic!("nothing is asked that could make it wait"),
        }
    };
    let route = facts.route.map(|index| &gateway.routes[index]);
    match decided {
        Ok(Decision::Relay(route)) => {
            let Action::Upstream(relay) = &route.action else { panic!("a route without an upstream") };
            relayed(gateway, route, relay, judged, head, facts);
        }
        Ok(Decision::Answer(_, answer)) | Err(Stop::Answer(answer)) => drop(own_headers(answer.status, route, facts, &answer.headers)),
        Ok(Decision::Fixed(_)) => {}
        Err(Stop::Refuse(problem)) => {
            assert!((400..600).contains(&problem.kind.status));
            facts.refused = Some((problem.kind, problem.reason.clone()));
            own_headers(problem.kind.status, route, facts, &problem.headers);
        }
    }
    log(gateway, head, facts);
}

fn relayed(gateway: &Gateway, route: &Route, relay: &Relay, judged: Head, head: &RequestHeader, facts: &Facts) {
    let mut sent = head.clone();
    let coding = head.headers.get(http::header::TRANSFER_ENCODING).cloned();
    without_hop_by_hop(&mut sent, head.version);
    make_head(gateway, route, relay, facts, &HeaderValue::from_static("orders.internal"), None, &mut sent);
    // As Pingora writes it, with the framing that it decides on.
    if let Some(coding) = coding {
        sent.insert_header(http::header::TRANSFER_ENCODING, coding).expect("it came so");
    }
    let mut bytes = format!("{} ", sent.method).into_bytes();
    bytes.extend_from_slice(sent.raw_path());
    bytes.extend_from_slice(b" HTTP/1.1\r\n");
    for (name, value) in &sent.headers {
        bytes.extend_from_slice(format!("{name}: ").as_bytes());
        bytes.extend_from_slice(value.as_bytes());
        bytes.extend_from_slice(b"\r\n");
    }
    bytes.extend_from_slice(b"\r\n");
    let larger = HeadBounds { bytes: 1 << 20, fields: 200, line: 1 << 20 };
    let shown = String::from_utf8_lossy(&bytes);
    match judge(&bytes, &larger) {
        Judged::Complete(again) => {
            assert_eq!((again.len, again.body, again.upgrade), (bytes.len(), judged.body, judged.upgrade), "{shown}");
        }
        other => panic!("{other:?}: {shown}"),
    }
    for (name, expected) in [("x-user-id", "u1"), ("x-user-role", "a,b"), ("x-tenant", "acme"), ("x-client-id", "acme")] {
        for (sent, value) in spelt(&sent, name) {
            assert!(sent == name && value == expected && facts.identity.is_some(), "{shown}");
        }
    }
    // Set by one route; on others a client may use the name for something of its own, but not misspell it.
    for (sent, value) in spelt(&sent, "x-internal-auth") {
        assert!(sent == "x-internal-auth" && (*route.name != *"orders" || value == "hush"), "{shown}");
    }
}

/// The fields whose names some servers take for this one.
fn spelt<'h>(head: &'h RequestHeader, name: &'h str) -> impl Iterator<Item = (&'h str, &'h HeaderValue)> {
    head.headers.iter().map(|(sent, value)| (sent.as_str(), value)).filter(move |(sent, _)| sent.replace('_', "-") == name)
}

fn log(gateway: &Gateway, head: &RequestHeader, facts: &Facts) {
    let trace = facts.trace.trace_id();
    let mut out = Vec::new();
    Line {
        request_id: facts.request_id.as_bytes(),
        trace_id: trace.as_bytes(),
        client: Some(facts.client),
        host: facts.target.host().as_bytes(),
        method: head.method.as_str().as_bytes(),
        path: facts.target.path().as_bytes(),
        query: facts.target.query().unwrap_or_default().as_bytes(),
        credentials: &gateway.credential_parameters,
        code: facts.refused.as_ref().map_or("", |(kind, _)| kind.code),
        reason: facts.refused.as_ref().and_then(|(_, reason)| reason.as_deref()).unwrap_or_default(),
        user_agent: head.headers.get(http::header::USER_AGENT).map_or(&[][..], HeaderValue::as_bytes),
        would_refuse: &facts.would_refuse,
        ..Line::default()
    }
    .append_to(&mut out);
    assert_eq!(out.iter().position(|byte| *byte == b'\n'), Some(out.len() - 1), "not one line");
    let line: serde_json::Value = serde_json::from_slice(&out).expect("JSON");
    assert!(line.is_object());
}
