//! Tests that see the crate from outside, over real sockets: one binary, the harness and modules named like the chapters of `src/`.

#![expect(clippy::disallowed_methods, reason = "the harness polls, and plays slow upstreams, on threads of its own")]

mod access_log;
mod ambiguous;
mod balance;
mod bench_configs;
mod change;
mod cli;
mod client_certificates;
mod config_golden;
mod consumers;
mod corpora;
mod entry;
mod every_key;
mod examples;
mod explain;
mod failing;

mod grpc;
mod harness;
mod hostile;
mod http2;
mod https;
mod introspection;
mod keys;
mod limits;
mod listen;
mod misbehaving;
mod notify;
mod passed;
mod pool;
mod prometheus;
mod provider;
mod proxied_upstream;
mod proxy_protocol;
mod readme;
mod relay;
mod release;
mod reload;
mod removed_listener;
mod schema;
mod stalled;
mod stop;
mod streaming;
mod tls;
mod tls_by_name;
mod tls_peers;
mod troubleshooting;
mod unix_listener;
mod unix_upstream;
mod upgrade;
mod upstream_faults;
mod upstream_h2;
mod upstream_tls;
mod websocket;
