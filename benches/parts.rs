//! Criterion benches of single parts. `cargo bench --bench parts`.

mod route;

criterion::criterion_main!(route::entry);
