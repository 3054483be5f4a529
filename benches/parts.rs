//! Criterion benches of single parts. `cargo bench --bench parts`.

mod choose;
mod route;

criterion::criterion_main!(route::entry, choose::choosing);
