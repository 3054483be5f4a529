//! Lookup of a route among 10, 1,000 and 10,000, and the canonical form of a target.
//!
//! `lookup` sends a hundred requests in turn, spread over the whole table. `lookup_in_turn` sends one to each route, in an order
//! that no cache foresees: of 10,000 routes each is then cold, which costs what the processor's cache misses cost.

use std::collections::BTreeMap;
use std::hint::black_box;
use std::sync::Arc;

use criterion::{BenchmarkId, Criterion, Throughput, criterion_group};
use http::{HeaderMap, Method, Request};
use sluice::config::diagnostic::{Place, Source};
use sluice::config::types::At;
use sluice::entry::canonical::canonicalise;
use sluice::entry::route::{Choice, MatchSettings, RouteMatch, Table};

criterion_group!(entry, lookup, compile, canonical);

const SIZES: [usize; 3] = [10, 1_000, 10_000];

fn place() -> Place {
    Place { source: Arc::new(Source::new("bench.yaml", "")), line: 1, column: 1, width: 1 }
}

fn at<T>(value: T) -> At<T> {
    At { value, place: place() }
}

/// Routes as gateways have them: ten hosts, a service, a resource with an id, below it a literal.
fn settings(count: usize) -> Vec<MatchSettings> {
    let one = |n: usize| MatchSettings {
        hosts: Some(at(vec![at(format!("team{}.example.com", n % 10))])),
        path: at(format!("/api/v1/service-{n}/{{id}}/items")),
        methods: Some(at(vec![at("GET".to_owned()), at("POST".to_owned())])),
        headers: BTreeMap::new(),
        query: BTreeMap::new(),
    };
    (0..count).map(one).collect()
}

fn table(settings: &[MatchSettings]) -> Table {
    let routes: Vec<RouteMatch<'_>> =
        settings.iter().enumerate().map(|(index, settings)| RouteMatch { index, name: "route", place: place(), settings }).collect();
    Table::compile(&routes).expect("routes that do not tie")
}

fn lookup(criterion: &mut Criterion) {
    measure(criterion, "lookup", 100);
    measure(criterion, "lookup_in_turn", 10_000);
}

/// As many different requests for every size: else the larger tables would also pay for reading more requests.
fn measure(criterion: &mut Criterion, name: &str, requests: usize) {
    let headers = HeaderMap::new();
    let mut group = criterion.benchmark_group(name);
    group.throughput(Throughput::Elements(1));
    for size in SIZES {
        let settings = settings(size);
        let table = table(&settings);
        let requests: Vec<(String, String)> = (0..requests)
            .map(|n| n * 7_919 % size)
            .map(|n| (format!("team{}.example.com", n % 10), format!("/api/v1/service-{n}/0123456789/items")))
            .collect();
        let mut turn = 0;
        group.bench_function(BenchmarkId::from_parameter(size), |bencher| {
            bencher.iter(|| {
                let (host, path) = &requests[turn];
                turn = (turn + 1) % requests.len();
                let choice = table.choose(&Method::GET, black_box(host), black_box(path), None, &headers);
                assert!(matches!(choice, Choice::Route { .. }));
            });
        });
    }
    group.finish();
}

fn compile(criterion: &mut Criterion) {
    let settings = settings(10_000);
    criterion.bench_function("compile/10000", |bencher| bencher.iter(|| table(black_box(&settings))));
}

fn canonical(criterion: &mut Criterion) {
    let head = Request::builder().header("host", "api.example.com:8080").body(()).expect("a request").into_parts().0;
    for (name, target) in
        [("plain", "/api/v1/orders/0123456789/items?page=2&size=50"), ("escaped", "/api/v1/orders/%7Euser/caf%c3%a9?page=2&size=50")]
    {
        criterion
            .bench_function(&format!("canonical/{name}"), |bencher| bencher.iter(|| canonicalise(&head, black_box(target.as_bytes()))));
    }
}
