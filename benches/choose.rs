//! The choice of a target among 2, 30 and 1,000, in each way, with what is noted of an answer.
//!
//! All targets are asked about in turn, so that of a thousand each is colder than of two: what is left of a difference is the processor's caches.

use std::hint::black_box;

use criterion::{BenchmarkId, Criterion, Throughput, criterion_group};
use sluice::config::compile::load_text;
use sluice::config::plan::Gateway;
use sluice::relay::attempt::outcome::{Outcome, Tried, report};
use sluice::relay::balance::{Wanted, choose};
use sluice::state::State;

criterion_group!(choosing, ways);

const WAYS: [(&str, &str); 7] = [
    ("round_robin", ""),
    ("least_requests", ", balance: least_requests"),
    ("peak_ewma", ", balance: peak_ewma"),
    ("random", ", balance: random"),
    ("hash", ", balance: hash, hash_by: [client_ip]"),
    ("sticky", ", sticky: { cookie: c, secret: 0123456789abcdef0123456789abcdef }"),
    ("guarded", ", outlier_detection: {}, circuit_breaker: {}"),
];

fn gateway(keys: &str, count: usize) -> Gateway {
    let one = |n: usize| format!("{{ address: \"10.0.{}.{}:80\", weight: {}, priority: {} }}", n / 250, n % 250, 1 + n % 3, n % 2);
    let targets = (0..count).map(one).collect::<Vec<_>>().join(", ");
    let text = format!(
        "listeners: {{ l: {{ address: 127.0.0.1:1 }} }}
upstreams: {{ u: {{ targets: [{targets}]{keys} }} }}
routes: {{ r: {{ match: {{ path: / }}, auth: public, upstream: u }} }}"
    );
    load_text("bench.yaml", &text, &|_| None, &State::default()).unwrap_or_else(|mistakes| panic!("{mistakes:?}"))
}

fn ways(criterion: &mut Criterion) {
    for (name, keys) in WAYS {
        let mut group = criterion.benchmark_group(format!("choose/{name}"));
        group.throughput(Throughput::Elements(1));
        for count in [2, 30, 1_000] {
            let gateway = gateway(keys, count);
            let pool = &gateway.upstreams[0].pool;
            let stuck = pool.upstream.sticky.as_ref().map(|sticky| sticky.of("u", "10.0.0.1:80"));
            let mut turn = 0u64;
            group.bench_function(BenchmarkId::from_parameter(count), |bencher| {
                bencher.iter(|| {
                    turn += 1;
                    let wanted =
                        Wanted { key: Some(turn.wrapping_mul(0x9e37_79b9_7f4a_7c15)), stuck, now: turn * 1_000, ..Wanted::default() };
                    let chosen = choose(black_box(pool), wanted, || fastrand::u64(..)).expect("nobody is out");
                    report(pool, Tried::of(&chosen, false), Outcome::Head { status: 200, took: 1_000_000 }, turn * 1_000);
                });
            });
        }
        group.finish();
    }
}
