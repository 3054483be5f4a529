//! What a start and a reload wait for: reading, checking and compiling 100, 1,000 and 10,000 routes. `cargo bench --bench config`
//!
//! Time is per configuration. It should grow with the routes and no faster.

use std::fmt::Write;
use std::path::Path;

use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use sluice::config::compile::load;
use sluice::state::State;

/// Routes as gateways have them: ten hosts, a service, a resource with an id, and something of their own.
fn written(routes: usize) -> String {
    let mut text = String::from(
        "listeners: { public: { address: \"127.0.0.1:8080\" } }\n\
         authenticators: { partners: { api_key: { header: x-api-key } } }\n\
         consumers: { acme: { keys: [{ sha256: \"9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08\" }] } }\n\
         limits: { browse: { rate: 100/m, by: [client_ip] } }\n\
         upstreams:\n",
    );
    for n in 0..routes.div_ceil(10) {
        let _ = writeln!(text, "  service-{n}: {{ targets: [\"127.0.0.1:{}\"] }}", 1024 + n);
    }
    text.push_str("defaults: { limits: [browse] }\nroutes:\n");
    for n in 0..routes {
        let _ = writeln!(
            text,
            "  route-{n}:\n    match: {{ hosts: [team{}.example.com], path: \"/api/v1/service-{n}/{{id}}/items\", methods: [GET, POST] }}\n    \
             auth: [partners]\n    upstream: service-{}\n    request_headers: {{ set: {{ x-route: \"{n}\" }} }}",
            n % 10,
            n / 10,
        );
    }
    text
}

fn loading(criterion: &mut Criterion) {
    let folder = tempfile::tempdir().expect("a folder");
    let mut group = criterion.benchmark_group("load");
    group.sample_size(10);
    for routes in [100, 1_000, 10_000] {
        let file = folder.path().join(format!("{routes}.yaml"));
        std::fs::write(&file, written(routes)).expect("a file");
        // As in a running gateway: pools and series of the snapshot before are there.
        let state = State::default();
        group.throughput(Throughput::Elements(routes as u64));
        group.bench_with_input(BenchmarkId::new("routes", routes), &file, |b, file: &std::path::PathBuf| b.iter(|| compiled(file, &state)));
    }
    group.finish();
}

fn compiled(file: &Path, state: &State) -> usize {
    match load(file, &|name| std::env::var(name).ok(), state, None) {
        Ok(gateway) => gateway.routes.len(),
        Err(wrong) => panic!("{}", wrong[0].message),
    }
}

criterion_group!(benches, loading);
criterion_main!(benches);
