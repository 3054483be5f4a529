//! A second upstream gets a copy of requests, and nobody waits for it.

use super::harness::h2_upstream::{H2Upstream, field};
use super::harness::http2::{Http2, get_fields};
use super::harness::tls_front::TlsFront;
use super::harness::*;

fn config(mirror: &str, more: &str) -> Config {
    spoken(mirror, more, "", "")
}

/// With more keys of the first upstream and of that for copies.
fn spoken(mirror: &str, more: &str, of_shop: &str, of_shadow: &str) -> Config {
    let text = format!(
        r#"
server: {{ threads: 1 }}
listeners: {{ public: {{ address: "127.0.0.1:{{port}}" }} }}
authenticators: {{ keys: {{ api_key: {{ header: x-api-key, forward: {{ x-partner: consumer }} }} }} }}
consumers: {{ acme: {{ keys: [{{ sha256: "9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08" }}] }} }}
upstreams:
  shop: {{ targets: ["{{shop}}"]{of_shop} }}
  shadow: {{ targets: ["{{shadow}}"]{of_shadow}, timeouts: {{ connect: 10s, response: 20s }} }}
routes:
  shop: {{ match: {{ path: /shop/** }}, auth: [keys], rewrite: {{ strip_prefix: /shop }}, upstream: shop, mirror: {mirror} }}
  {more}
"#
    );
    Gateway::config(&text)
}

/// The preimage of `9f86d0..`.
const KEY: (&str, &str) = ("x-api-key", "test");

fn recording() -> Upstream {
    Upstream::script(|_| [vec![Step::ReadBody], Answer::new(500).header("x-from", "shadow").steps()].concat())
}

fn result(gateway: &Gateway, result: &str) -> f64 {
    gateway.metric(&format!("sluice_mirrored_total{{route=\"shop\",result=\"{result}\"}}"))
}

#[test]
fn a_copy_is_what_the_first_upstream_got_but_for_its_mark_and_its_answer_is_nobodys() {
    let (shop, shadow) = (Upstream::start(), recording());
    let gateway = config("{ upstream: shadow, body: 1KiB }", "").var("shop", shop.address()).var("shadow", shadow.address()).start();
    let mut client = gateway.client();
    for (method, body) in [("POST", &b"an order"[..]), ("GET", b""), ("PUT", b"another")] {
        let answer = client.try_request(method, "/shop/orders?x=1", &[KEY, ("x-own", "a"), ("cookie", "b=c")], body).unwrap();
        assert_eq!((answer.status, answer.text(), answer.header("x-from")), (200, "hello from upstream", None));
    }
    shadow.wait_for_requests(3);
    let (firsts, copies) = (shop.requests(), shadow.requests());
    for first in &firsts {
        let copy = copies.iter().find(|copy| copy.method == first.method).expect("each has its copy");
        let fields = |request: &Request| {
            let own = |name: &str| ["content-length", "x-mirrored-from"].contains(&name);
            let mut fields: Vec<_> = request
                .headers
                .iter()
                .map(|(name, value)| (name.to_ascii_lowercase(), value.clone()))
                .filter(|(name, _)| !own(name))
                .collect();
            fields.sort();
            fields
        };
        assert_eq!((&copy.target, &copy.body, fields(copy)), (&first.target, &first.body, fields(first)));
        let text = String::from_utf8_lossy(&copy.head).to_ascii_lowercase();
        assert!(
            text.contains("x-mirrored-from: shop\r\n") && text.contains("x-partner: acme\r\n") && !text.contains("x-api-key"),
            "{text}"
        );
    }
    eventually("all are counted", || (result(&gateway, "answered") == 3.0).then_some(()));
    assert_eq!(gateway.metric(r#"sluice_upstream_requests_total{upstream="shadow",result="5xx"}"#), 3.0);
    assert_eq!(gateway.metric(r#"sluice_requests_total{route="shop",status_class="2xx",code=""}"#), 3.0);
    // A connection serves one copy after the other.
    assert!(gateway.metric(r#"sluice_upstream_connections_total{upstream="shadow",connection="new"}"#) < 3.5);
    let told = String::from_utf8(gateway.sluice(&["explain", "sluice.yaml", "http://h/shop/a", "-H", "x-api-key: test"]).stdout).unwrap();
    assert!(told.contains("mirror     100% to shadow, bodies up to 1KiB"), "{told}");
}

#[test]
fn chunks_are_copied_whole_and_a_body_that_is_too_large_is_not_copied_at_all() {
    let (shop, shadow) = (Upstream::script(|_| [vec![Step::ReadBody], Answer::ok("ok").steps()].concat()), recording());
    let gateway = config("{ upstream: shadow, body: 10B }", "").var("shop", shop.address()).var("shadow", shadow.address()).start();
    let chunked = "POST /shop/a HTTP/1.1\r\nHost: a\r\nX-Api-Key: test\r\nTransfer-Encoding: chunked\r\n\r\n";
    let mut client = gateway.client();
    assert_eq!(client.send(format!("{chunked}5\r\nhello\r\n5\r\nworld\r\n0\r\n\r\n")).read().status, 200);
    assert_eq!(client.send(format!("{chunked}5\r\nhello\r\n6\r\nworlds\r\n0\r\n\r\n")).read().status, 200);
    assert_eq!(client.try_request("POST", "/shop/b", &[KEY], b"more than ten").unwrap().status, 200);
    shadow.wait_for_requests(1);
    eventually("both are counted", || (result(&gateway, "body-too-large") == 2.0 && result(&gateway, "answered") == 1.0).then_some(()));
    let copies = shadow.requests();
    assert_eq!(copies.iter().map(|copy| copy.body.as_slice()).collect::<Vec<_>>(), [b"helloworld"]);
}

#[test]
fn a_mirror_that_never_answers_takes_nothing_from_clients_and_what_it_cannot_take_is_counted() {
    let (shop, shadow) = (Upstream::start(), Upstream::script(|_| vec![Step::Hang]));
    let gateway = config("{ upstream: shadow }", "").var("shop", shop.address()).var("shadow", shadow.address()).start();
    let mut client = gateway.client();
    // More than the queue and what may be on its way at once.
    for _ in 0..1400 {
        assert_eq!(client.get("/shop/a", &[KEY]).status, 200);
    }
    let dropped = result(&gateway, "queue-full");
    assert!((100.0..=312.0).contains(&dropped), "{dropped}");
    assert!(shadow.open_connections() <= 64, "{}", shadow.open_connections());
    let line = gateway.log_line_where(|line| line["path"] == "/shop/a");
    assert_eq!(line["upstream"], "shop");
}

#[test]
fn so_large_a_share_is_copied_as_is_written_and_what_is_refused_is_not() {
    let (shop, shadow) = (Upstream::start(), recording());
    let gateway = config("{ upstream: shadow, share: 25% }", "").var("shop", shop.address()).var("shadow", shadow.address()).start();
    let mut client = gateway.client();
    for _ in 0..400 {
        assert_eq!(client.get("/shop/a", &[KEY]).status, 200);
        assert_eq!(client.get("/shop/refused", &[]).status, 401);
    }
    // Off by more than seven standard deviations, once in 10^12. Others may be on their way.
    eventually("what was copied is answered", || (result(&gateway, "answered") >= 40.0).then_some(()));
    eventually("none is on its way", || (result(&gateway, "answered") as usize == shadow.requests().len()).then_some(()));
    let copies = shadow.requests();
    assert!(copies.len() <= 160, "{}", copies.len());
    assert!(copies.iter().all(|copy| copy.target == "/a"));
}

#[test]
fn a_mirror_where_nobody_listens_is_counted_and_harms_nobody() {
    let shop = Upstream::start();
    let gateway = config("{ upstream: shadow }", "").var("shop", shop.address()).var("shadow", nobody()).start();
    assert_eq!(gateway.get("/shop/a", &[KEY]).status, 200);
    eventually("it is counted", || (result(&gateway, "failed") == 1.0).then_some(()));
    assert_eq!(gateway.metric(r#"sluice_upstream_requests_total{upstream="shadow",result="connect_failed"}"#), 1.0);
}

#[test]
fn copies_go_over_http_2_where_their_upstream_speaks_it() {
    let (shop, shadow) = (Upstream::script(|_| [vec![Step::ReadBody], Answer::ok("ok").steps()].concat()), H2Upstream::start(&[]));
    let gateway =
        spoken("{ upstream: shadow }", "", "", ", protocol: h2").var("shop", shop.address()).var("shadow", &shadow.address).start();
    let mut client = gateway.client();
    // More than a stream may have under way at first.
    let large = vec![b'x'; 64 * 1024];
    for (count, method, body) in [(1.0, "GET", &b""[..]), (2.0, "POST", b"an order"), (3.0, "PUT", &large)] {
        assert_eq!(client.try_request(method, "/shop/no-length?x=1", &[KEY, ("x-own", "a")], body).unwrap().text(), "ok");
        eventually("it is answered", || (result(&gateway, "answered") == count).then_some(()));
        let copies = shadow.requests("/no-length?x=1", count as usize);
        let copy = copies.last().unwrap();
        assert_eq!((&copy["method"], &copy["length"]), (&method.into(), &body.len().into()), "{copy}");
        assert_eq!((field(copy, "x-mirrored-from"), field(copy, "x-own"), field(copy, ":scheme")), (vec!["shop"], vec!["a"], vec!["http"]));
        assert_eq!(field(copy, ":authority"), [shop.requests().last().unwrap().header("host").unwrap()]);
    }
    assert_eq!(shadow.events("connection").len(), 1, "one serves one copy after the other");
}

#[test]
fn copies_of_requests_over_http_2_are_those_of_any_other() {
    let (shop, shadow) = (H2Upstream::start(&[]), recording());
    let gateway =
        spoken("{ upstream: shadow }", "", ", protocol: h2", "").var("shop", &shop.address).var("shadow", shadow.address()).start();
    let mut client = Http2::connect(gateway.address());
    client.ask(1, &get_fields("/shop/no-length", &[KEY]));
    assert_eq!(client.answer(1).text(), "hello, world");
    let copy = shadow.wait_for_requests(1).remove(0);
    let first = &shop.requests("/no-length", 1)[0];
    assert_eq!((copy.method.as_str(), copy.target.as_str(), copy.header("x-mirrored-from")), ("GET", "/no-length", Some("shop")));
    assert_eq!(copy.header("host"), field(first, ":authority").first().copied());
    eventually("it is counted", || (result(&gateway, "answered") == 1.0).then_some(()));
}

#[test]
fn copies_go_over_tls_to_whom_their_upstream_believes_and_nobody_else() {
    let (shop, shadow) = (Upstream::start(), recording());
    let (authority, other) = (Ca::new("Ours"), Ca::new("Other"));
    let front = TlsFront::start(&authority.server(&["localhost"]), shadow.address());
    for (ca, how) in [(authority.pem.clone(), "answered"), (other.pem.clone(), "failed")] {
        let config = spoken("{ upstream: shadow }", "", "", ", tls: { ca: ca.pem }").file("ca.pem", ca);
        let gateway = config.var("shop", shop.address()).var("shadow", format!("localhost:{}", front.address().port())).start();
        assert_eq!(gateway.get("/shop/a", &[KEY]).status, 200);
        eventually(how, || (result(&gateway, how) == 1.0).then_some(()));
    }
    assert_eq!(shadow.requests().len(), 1);
}
