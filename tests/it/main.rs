//! Tests that see the crate from outside, over real sockets: one binary, the harness and modules named like the chapters of `src/`.

mod bench_configs;
mod config_golden;
mod corpora;
mod harness;
