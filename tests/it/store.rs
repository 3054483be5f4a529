//! Limits of several gateways over a real store: what they count together, and what becomes of them when the store is in trouble.

use super::harness::redis::Redis;
use super::harness::*;

/// The hash of the key `acme-key`.
fn hash(key: &str) -> String {
    sluice::policy::api_key::hash_key(key.as_bytes()).iter().map(|byte| format!("{byte:02x}")).collect()
}

/// A gateway with a limit of each sort, over a store.
pub fn gateway(store: &str) -> Gateway {
    config(store).start()
}

pub fn config(store: &str) -> Config {
    let acme = hash("acme-key");
    Gateway::config(&format!(
        r#"
server: {{ threads: 1, settle: 0s, limits_store: {{ {store} }} }}
listeners: {{ public: {{ address: "127.0.0.1:{{port}}" }} }}
admin: {{ address: "127.0.0.1:{{admin}}" }}
authenticators: {{ keys: {{ api_key: {{ header: x-api-key }} }} }}
consumers: {{ acme: {{ keys: [ {{ sha256: "{acme}" }} ], plan: gold }} }}
plans: {{ gold: {{ rate: 1000/s, quota: 24/day, time_zone: Europe/Berlin, shared: true }} }}
limits:
  bucket: {{ rate: 24/h, by: ["header:x-caller", client_ip], shared: true }}
  fixed: {{ rate: 24/h, window: fixed, by: ["header:x-caller", client_ip], shared: true }}
  sliding: {{ rate: 24/24h, window: sliding, by: ["header:x-caller", client_ip], shared: true }}
  month: {{ quota: 24/month, time_zone: Europe/Berlin, by: ["header:x-caller", client_ip], shared: true }}
  slow: {{ rate: 10/s, burst: 1, throttle: {{ wait: 10s }}, by: ["header:x-caller", client_ip], shared: true }}
routes:
  plan: {{ match: {{ path: /plan }}, auth: [keys], respond: {{ status: 204 }} }}
  bucket: {{ match: {{ path: /bucket }}, auth: public, limits: [bucket], respond: {{ status: 204 }} }}
  fixed: {{ match: {{ path: /fixed }}, auth: public, limits: [fixed], respond: {{ status: 204 }} }}
  sliding: {{ match: {{ path: /sliding }}, auth: public, limits: [sliding], respond: {{ status: 204 }} }}
  month: {{ match: {{ path: /month }}, auth: public, limits: [month], respond: {{ status: 204 }} }}
  slow: {{ match: {{ path: /slow }}, auth: public, limits: [slow], respond: {{ status: 204 }} }}
"#
    ))
}

fn over(redis: &Redis) -> String {
    format!("redis: \"{}\"", redis.address())
}

#[track_caller]
pub fn waits_for(gateway: &Gateway, series: &str, value: f64) {
    eventually(&format!("{series} {value}"), || {
        (gateway.metrics_now().contains(series) && gateway.metric_now(series) == value).then_some(())
    });
}

/// Whether one request is admitted. Never is anything said but yes and no.
#[track_caller]
pub fn asks(gateway: &Gateway, path: &str, caller: &str) -> bool {
    let answer = gateway.get(path, &[("x-caller", caller), ("x-api-key", "acme-key")]);
    assert!(matches!(answer.status, 204 | 429), "{path}: {}", answer.status);
    answer.status == 204
}

/// How many are admitted at all gateways, until they have refused for a while.
pub fn admitted(gateways: &[&Gateway], path: &str, caller: &str) -> usize {
    let (mut count, mut refused) = (0, 0);
    eventually("refusals", || {
        for gateway in gateways {
            let is_admitted = asks(gateway, path, caller);
            count += usize::from(is_admitted);
            refused = if is_admitted { 0 } else { refused + 1 };
        }
        (refused >= 10 * gateways.len()).then_some(())
    });
    count
}

#[test]
fn whatever_is_shared_counts_at_all_gateways_together_and_goes_on_after_a_restart() {
    let redis = Redis::start(&[]);
    let both = [gateway(&over(&redis)), gateway(&over(&redis))];
    for gateway in &both {
        waits_for(gateway, "sluice_limit_gateways", 2.0);
    }
    let sorts = ["/plan", "/bucket", "/fixed", "/sliding", "/month"];
    for path in sorts {
        let all = admitted(&[&both[0], &both[1]], path, "a");
        // Each may be one part ahead of what it has heard.
        assert!((24..=36).contains(&all), "{path}: {all} of 24");
    }
    let headers = both[0].get("/plan", &[("x-api-key", "acme-key")]);
    assert_eq!((headers.status, headers.code().as_str()), (429, "quota-exceeded"));
    assert!(headers.header("ratelimit-policy").unwrap_or_default().contains("\"gold-quota\";q=24"), "{headers:?}");
    drop(both);
    // Another process, which has heard of nobody, learns it from the store after the first requests.
    let new = gateway(&over(&redis));
    waits_for(&new, "sluice_limit_store_up", 1.0);
    for path in sorts {
        let more = admitted(&[&new], path, "a");
        assert!(more < 12, "{path}: {more} more after a restart");
    }
}

#[test]
fn a_shared_limit_that_delays_gives_each_its_turn() {
    let redis = Redis::start(&[]);
    let both = [gateway(&over(&redis)), gateway(&over(&redis))];
    for gateway in &both {
        waits_for(gateway, "sluice_limit_gateways", 2.0);
    }
    // All at once, so that somebody has to wait however slow this machine is.
    let mut clients: Vec<_> = (0..6).map(|n| both[n % 2].client()).collect();
    clients.iter_mut().for_each(|client| _ = client.send("GET /slow HTTP/1.1\r\nHost: h\r\nX-Caller: a\r\n\r\n"));
    assert!(clients.iter_mut().all(|client| client.read().status == 204), "nobody is refused who may wait for ten seconds");
    let delayed = both.iter().map(|gateway| gateway.metric("sluice_limit_delayed_total{limit=\"slow\"}")).sum::<f64>();
    assert!(delayed >= 1.0, "{}", both[0].metrics());
}

#[test]
fn explain_tells_how_exact_a_shared_limit_is() {
    let redis = Redis::start(&[]);
    let gateway = gateway(&over(&redis));
    let file = gateway.file().display().to_string();
    let told = gateway.sluice(&["explain", &file, "GET http://a/month"]);
    let told = String::from_utf8_lossy(&told.stdout).into_owned() + &String::from_utf8_lossy(&told.stderr);
    assert!(
        told.contains("shared: a gateway admits its part of what is left, settled every 20 ms; at a moment at most 24 / gateways"),
        "{told}"
    );
}

/// The lines of the log that tell that the store has gone, and that it is there.
pub fn turns(gateway: &Gateway) -> (usize, usize) {
    let log = gateway.stderr();
    (log.matches("the store of limits at").count(), log.matches("limits are shared over the store").count())
}

#[test]
fn a_store_that_is_slow_full_or_gone_is_told_once_each_and_nobody_notices_but_by_the_part() {
    let mut redis = Redis::start(&[]);
    let gateways = [gateway(&over(&redis)), gateway(&over(&redis)), gateway(&over(&redis))];
    for gateway in &gateways {
        waits_for(gateway, "sluice_limit_gateways", 3.0);
    }
    type Act = fn(&mut Redis);
    let troubles: [(&str, Act, Act); 3] = [
        ("slow", |redis| _ = redis.cli(&["CLIENT", "PAUSE", "600000", "ALL"]), |redis| redis.again()),
        ("full", |redis| _ = redis.cli(&["CONFIG", "SET", "maxmemory", "1"]), |redis| _ = redis.cli(&["CONFIG", "SET", "maxmemory", "0"])),
        ("gone", |redis| redis.kill(), |redis| redis.again()),
    ];
    for (round, (what, begin, end)) in troubles.into_iter().enumerate() {
        let failures = gateways[0].metric("sluice_limit_store_failures_total");
        begin(&mut redis);
        for gateway in &gateways {
            waits_for(gateway, "sluice_limit_store_up", 0.0);
            assert_eq!(gateway.status()["limits_store"]["is_up"], false, "{what}");
            // A third of 24 for each, of callers whom nobody knew.
            for path in ["/bucket", "/fixed", "/sliding", "/month"] {
                let count = (0..20).filter(|_| asks(gateway, path, what)).count();
                assert_eq!(count, 8, "{what}: {path}");
            }
        }
        // It is tried again and again, and told once.
        eventually("more failures", || (gateways[0].metric_now("sluice_limit_store_failures_total") >= failures + 3.0).then_some(()));
        for gateway in &gateways {
            eventually("the line", || (turns(gateway) == (round + 1, round + 1)).then_some(()));
        }
        if what == "full" {
            assert!(gateways[0].stderr().contains("OOM"), "{}", gateways[0].stderr());
        }
        end(&mut redis);
        for gateway in &gateways {
            waits_for(gateway, "sluice_limit_store_up", 1.0);
            eventually("the line", || (turns(gateway) == (round + 1, round + 2)).then_some(()));
            waits_for(gateway, "sluice_limit_gateways", 3.0);
        }
        // What the windows counted meanwhile is settled: all of it is used up.
        for path in ["/fixed", "/sliding", "/month"] {
            eventually("what was counted is settled", || gateways.iter().all(|gateway| !asks(gateway, path, what)).then_some(()));
        }
    }
}
