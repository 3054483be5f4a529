//! Between what clients speak and what upstreams speak, where a route says so. A file for each pair.

pub mod grpc_timeout;
pub mod grpc_web;
