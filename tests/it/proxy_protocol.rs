//! Load balancers in front that speak the PROXY protocol: the client they speak for is the client, for everything.

use std::process::Command;

use proxy_header::{ProxiedAddress, ProxyHeader, SslInfo, Tlv};

use crate::harness::haproxy::Haproxy;
use crate::harness::{Client, Gateway, Upstream, eventually};

fn start(upstream: &Upstream, listener: &str) -> Gateway {
    let config = r#"
listeners: { public: { address: "127.0.0.1:{port}", {listener} } }
limits: { few: { rate: 2/h, by: [client_ip] } }
upstreams: { up: { targets: ["{up}"] } }
routes:
  open: { match: { path: /open/** }, auth: public, upstream: up }
  few: { match: { path: /few }, auth: public, limits: [few], respond: { status: 204 } }
  inside: { match: { path: /inside }, auth: public, ip_filter: { allow: [192.0.2.0/24] }, respond: { status: 204 } }
"#;
    Gateway::config(config).var("listener", listener).var("up", upstream.address()).start()
}

fn dropped(gateway: &Gateway, reason: &str) -> f64 {
    gateway.metric_now(&format!("sluice_connections_dropped_total{{listener=\"public\",reason=\"{reason}\"}}"))
}

fn version_2(client: &str, tlvs: Vec<Tlv<'_>>) -> Vec<u8> {
    let client: std::net::SocketAddr = client.parse().expect("it is an address");
    let own = if client.is_ipv4() { "10.0.0.9:443" } else { "[2001:db8::9]:443" };
    let mut bytes = Vec::new();
    let address = ProxiedAddress::stream(client, own.parse().expect("it is an address"));
    ProxyHeader::with_tlvs(Some(address), tlvs).encode_v2(&mut bytes).expect("it fits");
    bytes
}

/// A connection that begins with a header, in one piece or byte by byte.
fn through(gateway: &Gateway, header: &[u8], is_bytewise: bool) -> Client {
    let mut client = gateway.client();
    match is_bytewise {
        false => drop(client.send(header).local_address()),
        true => header.iter().for_each(|byte| {
            client.send([*byte]);
            // So that it is looked at in between, now and then.
            std::thread::yield_now();
        }),
    }
    client
}

const TRUSTED: &str = "proxy_protocol: { trusted: [127.0.0.1/32] }";

#[test]
fn the_client_that_a_load_balancer_speaks_for_is_the_client_of_every_request() {
    let upstream = Upstream::start();
    let gateway = start(&upstream, TRUSTED);
    let mut local = Vec::new();
    ProxyHeader::with_local().encode_v2(&mut local).expect("it fits");
    let mut number = 0;
    for (header, expected) in [
        (b"PROXY TCP4 192.0.2.7 10.0.0.9 4000 443\r\n".to_vec(), "192.0.2.7"),
        (b"PROXY TCP6 2001:db8::7 2001:db8::9 4000 443\r\n".to_vec(), "2001:db8::7"),
        (b"PROXY UNKNOWN\r\n".to_vec(), "127.0.0.1"),
        (version_2("192.0.2.8:4000", vec![]), "192.0.2.8"),
        (version_2("[2001:db8::8]:4000", vec![Tlv::UniqueId(b"one"[..].into()), Tlv::Noop(700)]), "2001:db8::8"),
        (local, "127.0.0.1"),
    ] {
        for is_bytewise in [false, true] {
            let mut client = through(&gateway, &header, is_bytewise);
            for _ in 0..2 {
                number += 1;
                let path = format!("/open/{number}");
                // What the client says of itself is not believed: it is no trusted proxy.
                assert_eq!(client.get(&path, &[("x-forwarded-for", "198.51.100.1")]).status, 200);
                let sent = upstream.last();
                assert_eq!((sent.target.as_str(), sent.header("x-forwarded-for")), (path.as_str(), Some(expected)));
                assert_eq!(sent.header("x-forwarded-proto"), Some("http"));
                assert_eq!(gateway.log_line_where(|line| line["path"] == path.as_str())["client"], expected);
            }
        }
    }
}

#[test]
fn filters_limits_and_caps_are_about_the_client_that_is_spoken_for() {
    let upstream = Upstream::start();
    let gateway = start(&upstream, &format!("{TRUSTED}, connections: {{ per_address: 2 }}"));
    let from = |address: &str| through(&gateway, format!("PROXY TCP4 {address} 10.0.0.9 4000 443\r\n").as_bytes(), false);
    assert_eq!(from("192.0.2.7").get("/inside", &[]).status, 204);
    assert_eq!(from("198.51.100.7").get("/inside", &[]).code(), "address-refused");
    // The places of those before may be given back a moment after they have left.
    let few = |address| eventually("a place", || from(address).try_request("GET", "/few", &[], b"").ok()).status;
    for (address, expected) in [("192.0.2.1", [204, 204, 429]), ("192.0.2.2", [204, 204, 429])] {
        assert_eq!([(); 3].map(|()| few(address)), expected);
    }
    // Served once, so that nobody takes their places before they do.
    let mut held: Vec<Client> = (0..2).map(|_| from("192.0.2.50")).collect();
    held.iter_mut().for_each(|client| assert_eq!(client.get("/inside", &[]).status, 204));
    eventually("the places to be taken", || {
        let mut third = from("192.0.2.50");
        third.try_request("GET", "/inside", &[], b"").is_err().then_some(())
    });
    assert_eq!(from("192.0.2.51").get("/inside", &[]).status, 204);
    eventually("the count", || (dropped(&gateway, "per_address") >= 1.0).then_some(()));
    drop(held);
    eventually("a place", || from("192.0.2.50").try_request("GET", "/inside", &[], b"").ok());
    let gateway = start(&upstream, &format!("{TRUSTED}, connections: {{ rate_per_address: 2/h }}"));
    let from = |address: &str| through(&gateway, format!("PROXY TCP4 {address} 10.0.0.9 4000 443\r\n").as_bytes(), false);
    for address in ["192.0.2.7", "192.0.2.8"] {
        assert_eq!(from(address).get("/inside", &[]).status, 204);
        assert_eq!(from(address).get("/inside", &[]).status, 204);
        from(address).send("GET /inside HTTP/1.1\r\nHost: a\r\n\r\n").expect_close();
    }
    eventually("the count", || (dropped(&gateway, "rate_per_address") == 2.0).then_some(()));
}

#[test]
fn who_may_not_or_does_not_speak_for_a_client_is_closed_and_counted() {
    let upstream = Upstream::start();
    let gateway = start(&upstream, &format!("{TRUSTED}, deadlines: {{ header: 1s }}"));
    let header = "PROXY TCP4 192.0.2.7 10.0.0.9 4000 443\r\n";
    let request = "GET /open/a HTTP/1.1\r\nHost: a\r\n\r\n";
    // No header where there must be one, and what begins as one but is none.
    gateway.client().send(request).expect_close();
    gateway.client().send("\x16\x03\x01\x02\x00\x01\x00").expect_close();
    for wrong in ["PROXY TCP4 192.0.2.7 10.0.0.9 4000 443 \r\n", "PROXY TCP4 a b 1 2\r\n", "\r\n\r\n\0\r\nQUIT\n\x21\x11\x7f\x7f"] {
        gateway.client().send(format!("{wrong}{request}")).expect_close();
    }
    // One that does not come, or not to its end.
    gateway.client().expect_close();
    gateway.client().send(&header[..20]).expect_close();
    gateway.client().send(&header[..20]).finish_sending().expect_close();
    // From somewhere else, with and without.
    let stranger = || Client::connect_from([127, 0, 0, 2].into(), gateway.address());
    stranger().send(format!("{header}{request}")).expect_close();
    stranger().send(request).expect_close();
    // Counted once the connection has been closed.
    eventually("all counts", || {
        let reasons = ["proxy_missing", "proxy_invalid", "header_deadline", "cut", "proxy_untrusted"];
        (reasons.map(|reason| dropped(&gateway, reason)) == [2.0, 3.0, 2.0, 1.0, 2.0]).then_some(())
    });
    assert!(upstream.requests().is_empty());
    // A health check that only connects is nothing to count.
    gateway.client().finish_sending().expect_close();
    assert_eq!(dropped(&gateway, "cut"), 1.0);
}

#[test]
fn where_the_header_is_optional_others_are_clients_of_their_own() {
    let upstream = Upstream::start();
    let gateway = start(&upstream, "proxy_protocol: { trusted: [127.0.0.1/32], required: false }");
    let stranger = || Client::connect_from([127, 0, 0, 2].into(), gateway.address());
    for (mut client, expected) in [
        (gateway.client(), "127.0.0.1"),
        (stranger(), "127.0.0.2"),
        (through(&gateway, &version_2("192.0.2.9:1", vec![]), false), "192.0.2.9"),
    ] {
        // Also where the first byte could be that of a header.
        assert_eq!(client.post("/open/a", &[], b"x").status, 200);
        assert_eq!(upstream.last().header("x-forwarded-for"), Some(expected));
    }
    stranger().send("PROXY UNKNOWN\r\nGET /open/a HTTP/1.1\r\nHost: a\r\n\r\n").expect_close();
    eventually("the count", || (dropped(&gateway, "proxy_untrusted") == 1.0).then_some(()));
}

#[test]
fn the_tls_that_a_load_balancer_has_ended_makes_the_scheme() {
    let upstream = Upstream::start();
    let gateway = start(&upstream, TRUSTED);
    for (client_ssl, scheme) in [(true, "https"), (false, "http")] {
        let mut info = SslInfo::new(client_ssl, false, false, 1);
        info.append_tlv(Tlv::SslVersion("TLSv1.3".into()));
        let mut client = through(&gateway, &version_2("192.0.2.7:1", vec![Tlv::Ssl(info), Tlv::Authority("shop.example".into())]), true);
        assert_eq!(client.get("/open/a", &[]).status, 200);
        assert_eq!(upstream.last().header("x-forwarded-proto"), Some(scheme));
    }
}

#[test]
fn haproxy_in_front_speaks_for_its_clients() {
    let upstream = Upstream::start();
    let gateway = start(&upstream, TRUSTED);
    let ways = [
        ("", "send-proxy"),
        ("", "send-proxy-v2"),
        ("ssl crt both.pem alpn http/1.1", "send-proxy-v2-ssl-cn proxy-v2-options authority,unique-id,crc32c"),
    ];
    let haproxy = Haproxy::start(gateway.address(), &ways);
    for index in 0..2 {
        let mut client = Client::connect_from([127, 0, 0, 7].into(), haproxy.address(index));
        for _ in 0..2 {
            assert_eq!(client.get("/open/a", &[]).status, 200);
            assert_eq!(
                (upstream.last().header("x-forwarded-for"), upstream.last().header("x-forwarded-proto")),
                (Some("127.0.0.7"), Some("http"))
            );
        }
    }
    let port = haproxy.address(2).port();
    let said = Command::new("curl")
        .args([
            "-sSk",
            "--interface",
            "127.0.0.8",
            "--resolve",
            &format!("shop.example:{port}:127.0.0.1"),
            &format!("https://shop.example:{port}/open/tls"),
        ])
        .output()
        .expect("curl is installed: scripts/setup.sh test");
    assert!(said.status.success(), "{}", String::from_utf8_lossy(&said.stderr));
    let sent = upstream.last();
    assert_eq!(
        (sent.target.as_str(), sent.header("x-forwarded-for"), sent.header("x-forwarded-proto")),
        ("/open/tls", Some("127.0.0.8"), Some("https"))
    );
}
