//! Real sockets on both sides of the real binary: `Client` -> `Gateway` -> `Upstream`.
//!
//! Decides how tests talk and listen, with bounded waits everywhere. Decides nothing about what is right.

// A module of tests uses some of it; none uses all.
#![allow(dead_code, unused_imports)]

mod client;
pub mod dns;
mod gateway;
pub mod h11;
pub mod h2_upstream;
pub mod haproxy;
pub mod http2;
pub mod left_out;
mod nginx;
pub mod oidc;
pub mod openssl;
mod pki;
mod ports;
mod python;
pub mod redis;
mod tests;
pub mod tls_front;
mod upstream;

use std::time::{Duration, Instant};

pub use client::{Client, ReadError, Response, get, post, request};
pub use gateway::{Config, Failure, Gateway};
pub use nginx::Nginx;
pub use pki::{Ca, Leaf, TlsClient};
pub use ports::{free_port, keep, nobody};
pub use python::{PythonClient, PythonServer, python};
pub use upstream::{Answer, Gate, Request, Step, Upstream};

/// Longer than anything takes on a busy machine; what is still waited for then is a failure.
pub const PATIENCE: Duration = Duration::from_secs(20);

/// The same; less where a test is run to see it fail.
pub fn patience() -> Duration {
    if left_out::has_left_out() { Duration::from_secs(8) } else { PATIENCE }
}

/// The fields of a WebSocket's handshake.
pub const HANDSHAKE: &str =
    "Host: a\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n";
/// The answer that it gets.
pub const SWITCH: &str = "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n\r\n";

/// Asks again and again until there is something, and fails after `PATIENCE`.
#[track_caller]
pub fn eventually<T>(what: &str, mut ask: impl FnMut() -> Option<T>) -> T {
    let begin = Instant::now();
    loop {
        if let Some(found) = ask() {
            return found;
        }
        assert!(begin.elapsed() < patience(), "waited in vain: {what}");
        std::thread::sleep(Duration::from_millis(10));
    }
}
