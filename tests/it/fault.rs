//! Faults that the gateway makes on purpose.

use super::harness::*;

fn config(fault: &str) -> Config {
    let text = format!(
        r#"
server: {{ threads: 1 }}
listeners: {{ public: {{ address: "127.0.0.1:{{port}}" }} }}
upstreams: {{ shop: {{ targets: ["{{shop}}"] }} }}
routes:
  shop: {{ match: {{ path: /shop }}, auth: public, upstream: shop, fault: {fault} }}
"#
    );
    Gateway::config(&text)
}

#[test]
fn only_requests_with_the_header_are_refused_on_purpose_and_all_are_told() {
    let shop = Upstream::start();
    let gateway = config("{ abort: { status: 502, share: 100% }, only_header: x-fault }").var("shop", shop.address()).start();
    let mut client = gateway.client();
    assert_eq!(client.get("/shop", &[]).status, 200);
    let refused = client.get("/shop", &[("x-fault", "any")]);
    assert_eq!((refused.status, &refused.json()["code"], &refused.json()["status"]), (502, &"fault-injected".into(), &502.into()));
    let line = gateway.log_line_where(|line| line["status"] == 502);
    assert_eq!((&line["code"], &line["fault"]), (&"fault-injected".into(), &"abort".into()), "{line}");
    assert_eq!(line["reason"], "`fault` of the route, for 100%");
    assert_eq!(gateway.metric(r#"sluice_faults_total{route="shop",fault="abort"}"#), 1.0);
    assert_eq!(gateway.metric(r#"sluice_requests_total{route="shop",status_class="5xx",code="fault-injected"}"#), 1.0);
    assert_eq!(shop.requests().len(), 1);
    let explain = |headers: &[&str]| {
        let output = gateway.sluice(&[&["explain", "sluice.yaml", "http://h/shop"], headers].concat());
        String::from_utf8(output.stdout).unwrap()
    };
    assert!(explain(&[]).contains("not without x-fault"), "{}", explain(&[]));
    assert!(explain(&["-H", "x-fault: 1"]).contains("502 fault-injected"), "{}", explain(&["-H", "x-fault: 1"]));
    // Not for everybody: nothing to warn of.
    assert!(!String::from_utf8(gateway.sluice(&["check", "sluice.yaml"]).stderr).unwrap().contains("fault"));
}

#[test]
fn a_delay_is_waited_for_and_told() {
    let shop = Upstream::start();
    let gateway = config("{ delay: { for: 300ms, share: 100% } }").var("shop", shop.address()).start();
    let begun = std::time::Instant::now();
    assert_eq!(gateway.get("/shop", &[]).status, 200);
    assert!(begun.elapsed() >= std::time::Duration::from_millis(300));
    let line = gateway.log_line_where(|line| line["path"] == "/shop");
    assert_eq!(line["fault"], "delay");
    assert!(line["waited_us"].as_u64().unwrap() >= 300_000, "{line}");
    assert_eq!(gateway.metric(r#"sluice_faults_total{route="shop",fault="delay"}"#), 1.0);
    let told = String::from_utf8(gateway.sluice(&["explain", "sluice.yaml", "http://h/shop"]).stdout).unwrap();
    assert!(told.contains("100% wait 300ms"), "{told}");
    let warned = gateway.sluice(&["check", "sluice.yaml"]);
    let warned = String::from_utf8([warned.stdout, warned.stderr].concat()).unwrap();
    assert!(warned.contains("`fault` of route `shop` is for every request: 100% wait 300ms"), "{warned}");
}

#[test]
fn about_the_share_that_is_written_is_refused() {
    let shop = Upstream::start();
    let gateway = config("{ abort: { status: 503, share: 20% }, delay: { for: 1ms, share: 0.5% } }").var("shop", shop.address()).start();
    let mut client = gateway.client();
    let refused = (0..400).filter(|_| client.get("/shop", &[]).status == 503).count();
    // Off by more than seven standard deviations, once in 10^12.
    assert!((24..=136).contains(&refused), "{refused}");
}
