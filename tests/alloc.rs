//! Pins what our own code allocates for an accepted request: nothing to route, judge, authenticate and limit it with a token that is
//! remembered, and a counted few to write heads.
//!
//! And what choosing a target allocates, and judging it: nothing. Its own binary, because an allocator is the whole process's; each thread counts
//! its own calls.

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;
use std::future::Future;
use std::net::SocketAddr;
use std::pin::pin;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};

use http::header::HOST;
use pingora_http::RequestHeader;
use sluice::config::compile;
use sluice::config::plan::{Action, Gateway, Relay, Route};
use sluice::ctx::{Facts, Now, Scheme};
use sluice::decide::{Decision, decide};
use sluice::listen::tls::facts::TlsFacts;
use sluice::policy::client_certificate::facts::described;
use sluice::policy::limits::headers::headers;
use sluice::relay::attempt::outcome;
use sluice::relay::balance::{Wanted, choose};
use sluice::relay::message::send::make_head;
use sluice::report::access_log::Line;
use sluice::report::metrics::route::Outcome;
use sluice::state::State;

/// The system's allocator, which counts the calls of each thread.
struct Counting;

thread_local! {
    static CALLS: Cell<usize> = const { Cell::new(0) };
}

#[expect(unsafe_code, reason = "an allocator cannot be wrapped without it")]
// SAFETY: every call is passed on unchanged to the system's allocator.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        count();
        // SAFETY: the caller's promises are the system allocator's conditions.
        unsafe { System.alloc(layout) }
    }
    unsafe fn realloc(&self, old: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        count();
        // SAFETY: as above.
        unsafe { System.realloc(old, layout, size) }
    }
    unsafe fn dealloc(&self, old: *mut u8, layout: Layout) {
        // SAFETY: as above.
        unsafe { System.dealloc(old, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

fn count() {
    let _ = CALLS.try_with(|calls| calls.set(calls.get() + 1));
}

/// How often `run` allocates, and what it returns.
fn allocations<T>(run: impl FnOnce() -> T) -> (usize, T) {
    let before = CALLS.get();
    let made = run();
    (CALLS.get() - before, made)
}

fn ready<T>(future: impl Future<Output = T>) -> T {
    match pin!(future).poll(&mut Context::from_waker(Waker::noop())) {
        Poll::Ready(done) => done,
        Poll::Pending => panic!("nothing here waits"),
    }
}

const NOW: Now = Now { mono: 1_000_000_000, unix_ms: 1_800_000_000_000 };
const SECRET: &str = "0123456789abcdef0123456789abcdef";

const CONFIG: &str = "
listeners:
  l: { address: 127.0.0.1:1, limits: [address] }
  s: { address: 127.0.0.1:3, limits: [address], tls: { certificates: { main: { chain: main.pem, key: main.key } }, client_certificates: { ca: main.pem, required: false } } }
authenticators:
  idp: { jwt: { issuer: i, audiences: [a], algorithms: [HS256], keys: { secret: 0123456789abcdef0123456789abcdef }, forward: { x-user: sub, x-roles: roles } } }
  old: { jwt: { issuer: o, audiences: [a], algorithms: [HS256], keys: { secret: 0123456789abcdef0123456789abcdef } } }
  opaque: { introspection: { url: \"http://127.0.0.1:1/\", client_id: g, client_secret: s } }
  keys: { api_key: { header: x-api-key, forward: { x-client: consumer } } }
  mesh: { client_certificate: { forward: { x-mesh-user: uri, x-mesh-client: consumer } } }
consumers:
  acme:
    keys: [{ sha256: 9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08 }]
    identities: [{ authenticator: idp, claim: tenant, is: acme }, { authenticator: mesh, claim: uri, is: \"spiffe://example/acme\" }]
    plan: large
    scopes: [read]
plans: { large: { rate: 100000/h } }
limits:
  address: { rate: 100000/h, by: [client_ip] }
  browse: { rate: 100000/h, by: [consumer, subject] }
  write: { rate: 100000/h, by: [subject, client_ip], per: route }
upstreams: { u: { targets: [127.0.0.1:2] } }
routes:
  orders:
    listeners: [l]
    match: { hosts: [api.example.com], path: '/api/{version}/orders/**', methods: [GET], headers: { x-api: present }, query: { debug: absent } }
    auth: [idp, keys]
    allow: { scopes: [read] }
    limits: [browse, write]
    ip_filter: { deny: [203.0.113.0/24] }
    body: { limit: 1MiB }
    rewrite: { strip_prefix: /api }
    request_headers: { set: { x-a: b }, remove: [x-c] }
    response_headers: { security: strict }
    upstream: u
  either: { listeners: [l], match: { path: /either }, auth: [old, idp, opaque], allow: { scopes: [read] }, limits: [browse], upstream: u }
  open: { listeners: [l], match: { path: /open }, auth: public, limits: [address], upstream: u }
  mesh: { listeners: [s], match: { path: /mesh }, auth: [mesh], allow: { scopes: [read], claims: { uri: \"spiffe://example/acme\" } }, limits: [browse, write], upstream: u }
";

fn token() -> String {
    use base64::Engine;
    use base64::engine::general_purpose::URL_SAFE_NO_PAD as BASE64;
    let claims = r#"{"iss":"i","aud":"a","sub":"ada","tenant":"acme","scope":"read","roles":["x","y"],"exp":1900000000}"#;
    let signed = format!("{}.{}", BASE64.encode(br#"{"alg":"HS256"}"#), BASE64.encode(claims));
    let key = aws_lc_rs::hmac::Key::new(aws_lc_rs::hmac::HMAC_SHA256, SECRET.as_bytes());
    format!("{signed}.{}", BASE64.encode(aws_lc_rs::hmac::sign(&key, signed.as_bytes())))
}

fn load() -> Gateway {
    let folder = tempfile::tempdir().expect("a folder can be made");
    let key = rcgen::KeyPair::generate().expect("a key can be made");
    let own = rcgen::CertificateParams::new(["api.example.com".to_owned()]).and_then(|params| params.self_signed(&key));
    let own = own.expect("it can sign itself").pem();
    for (name, text) in [("main.pem", own.as_str()), ("main.key", &key.serialize_pem()), ("sluice.yaml", CONFIG)] {
        std::fs::write(folder.path().join(name), text).expect("a file can be written");
    }
    let gateway = compile::load(&folder.path().join("sluice.yaml"), &|_| None, &State::default(), None);
    gateway.unwrap_or_else(|mistakes| panic!("{mistakes:?}"))
}

fn head(target: &str, host: &str, headers: &[(&'static str, &str)]) -> RequestHeader {
    let mut head = RequestHeader::build("GET", target.as_bytes(), None).expect("it is a head");
    head.insert_header(HOST, host).expect("it is a header");
    for (name, value) in headers {
        head.append_header(*name, *value).expect("it is a header");
    }
    head
}

fn facts(tls: Option<&Arc<TlsFacts>>) -> Facts {
    let (listener, scheme) = if tls.is_some() { (1, Scheme::Https) } else { (0, Scheme::Http) };
    let mut facts = Facts::new(listener, SocketAddr::from(([192, 0, 2, 1], 5)), scheme, NOW);
    facts.tls = tls.cloned();
    facts
}

/// Decides, and fails where the request is not relayed.
fn relayed<'g>(gateway: &'g Gateway, head: &RequestHeader, target: &str, facts: &mut Facts) -> (&'g Route, &'g Relay) {
    match ready(decide(gateway, &gateway.buckets, head, target.as_bytes(), facts)) {
        Ok(Decision::Relay(route)) => match &route.action {
            Action::Upstream(relay) => (route, relay),
            Action::Respond(_) | Action::Redirect(_) => panic!("the route has an upstream"),
        },
        Ok(Decision::Answer(..) | Decision::Fixed(_)) => panic!("it is relayed"),
        Err(stop) => panic!("it is refused: {stop:?}"),
    }
}

#[test]
fn an_accepted_request_costs_no_allocation_until_its_heads_are_written() {
    let gateway = load();
    let authorization = format!("Bearer {}", token());
    let usual = [("user-agent", "curl/8.5"), ("accept", "*/*"), ("x-api", "1"), ("x-c", "d")];
    let with = |more: (&'static str, &'static str)| [usual[0], usual[1], usual[2], usual[3], more];
    let mut by_token = head("/api/v1/orders/17?full=1", "api.example.com", &usual);
    by_token.insert_header("authorization", authorization.as_str()).expect("it is a header");
    let by_key = head("/api/v1/orders/17?full=1", "api.example.com", &with(("x-api-key", "test")));
    let mut by_either = head("/either", "api.example.com", &usual);
    by_either.insert_header("authorization", authorization.as_str()).expect("it is a header");
    let public = head("/open", "any.example", &usual);
    let by_certificate = head("/mesh", "api.example.com", &usual);
    let certificate = described(&serde_json::json!({ "uri": "spiffe://example/acme" })).expect("it describes one");
    let tls = TlsFacts { server_name: Some("api.example.com".into()), client: Some(Arc::new(certificate)), ..TlsFacts::default() };
    let tls = Arc::new(tls);
    for (what, head, target, tls) in [
        ("a remembered token", &by_token, "/api/v1/orders/17?full=1", None),
        ("a remembered token of the second of two issuers", &by_either, "/either", None),
        ("an API key", &by_key, "/api/v1/orders/17?full=1", None),
        ("a public route", &public, "/open", None),
        ("a certificate of the connection", &by_certificate, "/mesh", Some(&tls)),
    ] {
        // The first request verifies, remembers and opens buckets.
        relayed(&gateway, head, target, &mut facts(tls));
        let (calls, mut known) = allocations(|| facts(tls));
        assert_eq!(calls, 0, "{what}: facts");
        let (calls, (route, relay)) = allocations(|| relayed(&gateway, head, target, &mut known));
        assert_eq!(calls, 0, "{what}: from the head to the decision");

        let mut sent = head.clone();
        let upstream = relay.upstream.pool.targets();
        let host = upstream.first().expect("there is a target").host_header.clone();
        let (calls, ()) = allocations(|| make_head(&gateway, route, relay, &known, &host, None, &mut sent));
        println!("{what}: {calls} allocations for the head upstream");
        assert!(calls <= UPSTREAM_HEAD, "{what}: {calls} allocations for the head upstream, {UPSTREAM_HEAD} at most");

        let (calls, told) = allocations(|| {
            let mut told = 0;
            headers(&known.charges, &mut |_, _| told += 1);
            told
        });
        assert_eq!(told, 5, "{what}");
        println!("{what}: {calls} allocations for what limits tell");
        assert!(calls <= LIMIT_HEADERS, "{what}: {calls} allocations for what limits tell the client, {LIMIT_HEADERS} at most");

        let mut line = Vec::with_capacity(4096);
        let (calls, ()) = allocations(|| write_line(route, &known, &mut line));
        assert_eq!(calls, 0, "{what}: the line of the access log");
        assert!(line.ends_with(b"}\n"));

        // The first one makes the counters.
        route.series.done(Outcome::Status(200), 100, Some(10));
        let (calls, ()) = allocations(|| route.series.done(Outcome::Status(200), 100, Some(10)));
        assert_eq!(calls, 0, "{what}: the figures");
    }
}

/// Forwarded fields, request id, trace, identity and the route's own: values, and names in the spelling in which they are sent.
const UPSTREAM_HEAD: usize = 12;
/// Five values that share one allocation, and its count of references.
const LIMIT_HEADERS: usize = 2;

fn write_line(route: &Route, facts: &Facts, out: &mut Vec<u8>) {
    let trace = facts.trace.trace_id();
    Line {
        unix_ms: facts.now.unix_ms,
        request_id: facts.request_id.as_bytes(),
        trace_id: trace.as_bytes(),
        client: Some(facts.client),
        host: facts.target.host().as_bytes(),
        method: b"GET",
        path: facts.target.path().as_bytes(),
        query: facts.target.query().unwrap_or_default().as_bytes(),
        route: &route.name,
        caller: facts.identity.as_deref(),
        status: Some(200),
        total_us: Some(100),
        ..Line::default()
    }
    .append_to(out);
}

/// Every way of choosing, over so many targets; of some weight 2, so that nothing is simpler than it may be.
fn choices(count: usize) -> Gateway {
    let targets = |more: fn(usize) -> &'static str| {
        let one = |n: usize| format!("{{ address: \"10.0.{}.{}:80\"{} }}", n / 250, n % 250, more(n));
        (0..count).map(one).collect::<Vec<_>>().join(", ")
    };
    let (plain, weights) = (|_| "", |n| if n % 2 == 0 { ", weight: 2" } else { "" });
    let (priorities, zones) = (|n| if n % 2 == 0 { ", priority: 1" } else { "" }, |n| if n % 2 == 0 { ", zone: a" } else { ", zone: b" });
    let guards = "outlier_detection: { success_rate: {}, latency: {} }, circuit_breaker: { slow: { after: 1s } }";
    let ways = [
        ("even", targets(plain), ""),
        ("weighted", targets(weights), ""),
        ("least", targets(weights), "balance: least_requests"),
        ("fast", targets(weights), "balance: peak_ewma"),
        ("random", targets(weights), "balance: random"),
        ("hash", targets(weights), "balance: hash, hash_by: [header:x-user]"),
        ("sticky", targets(weights), "sticky: { cookie: c, secret: 0123456789abcdef0123456789abcdef }"),
        ("priorities", targets(priorities), "slow_start: 10s"),
        ("zones", targets(zones), "balance: least_requests"),
        ("guarded", targets(weights), guards),
    ];
    let mut text = String::from("server: { zone: a }\nlisteners: { l: { address: 127.0.0.1:1 } }\nupstreams:\n");
    ways.iter().for_each(|(name, targets, more)| text += &format!("  {name}: {{ targets: [{targets}], {more} }}\n"));
    text += "routes:\n";
    ways.iter().for_each(|(name, ..)| text += &format!("  {name}: {{ match: {{ path: /{name} }}, auth: public, upstream: {name} }}\n"));
    let gateway = compile::load_text("choices.yaml", &text, &|_| None, &State::default());
    gateway.unwrap_or_else(|mistakes| panic!("{mistakes:?}"))
}

#[test]
fn choosing_a_target_and_judging_it_allocates_nothing_whichever_way_and_among_however_many() {
    for count in [2, 1_000] {
        for upstream in &choices(count).upstreams {
            let (pool, what) = (&upstream.pool, format!("{} among {count}", upstream.name));
            let mut random = 1u64;
            let mut draw = || {
                random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
                random
            };
            let stuck = pool.upstream.sticky.as_ref().map(|sticky| sticky.of(&upstream.name, "10.0.0.1:80"));
            let first = pool.targets()[0].endpoints()[0].addr;
            let tried = [first];
            for n in 0..40u64 {
                let tried = if n % 4 == 3 { &tried[..] } else { &[] };
                let wanted = Wanted { tried, key: (n % 2 == 0).then_some(n * 7_919), stuck, now: n * 1_000_000_000 };
                let (calls, chosen) = allocations(|| choose(pool, wanted, &mut draw));
                let chosen = chosen.unwrap_or_else(|| panic!("{what}: nobody is out"));
                assert_eq!(calls, 0, "{what}: choosing");
                for outcome in [outcome::Outcome::Head { status: 200, took: 1_000_000 }, outcome::Outcome::Whole] {
                    // The first one makes the circuit of an address.
                    outcome::report(pool, outcome::Tried::of(&chosen, false), outcome, n);
                    let (calls, ()) = allocations(|| outcome::report(pool, outcome::Tried::of(&chosen, false), outcome, n));
                    assert_eq!(calls, 0, "{what}: {outcome:?}");
                }
                assert_eq!(allocations(|| drop(chosen)).0, 0, "{what}: giving it back");
            }
        }
    }
}
