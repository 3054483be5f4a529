//! Decides which versions of HTTP a listener speaks. How a connection tells which one it is: see `front.rs`.

use schemars::JsonSchema;
use serde::Deserialize;

use crate::config::diagnostic::Diagnostic;
use crate::config::types::At;

/// A version of HTTP.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Protocol {
    /// HTTP/1.1, and HTTP/1.0 for clients that have nothing newer.
    Http1,
    /// HTTP/2: with TLS by ALPN, on a plain listener by prior knowledge (RFC 9113 section 3).
    Http2,
}

/// The versions that a listener speaks: one at least.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Protocols {
    pub http1: bool,
    pub http2: bool,
}

// === impl Protocols ===

impl Protocols {
    /// What is wrong in a list that was written.
    pub fn check(written: &At<Vec<At<Protocol>>>, mistakes: &mut Vec<Diagnostic>) {
        if written.is_empty() {
            let message = "an empty list: expected `http1`, `http2` or both";
            mistakes
                .push(Diagnostic::at(&written.place, "empty-list", message).help("to serve nothing on this address, remove the listener"));
        }
        for (at, protocol) in written.iter().enumerate() {
            if written[..at].iter().any(|other| other.value == protocol.value) {
                mistakes.push(Diagnostic::at(&protocol.place, "listed-twice", "this stands in the list already"));
            }
        }
    }

    /// Both where nothing was written.
    pub fn compile(written: Option<&At<Vec<At<Protocol>>>>) -> Self {
        let has = |protocol| written.is_none_or(|written| written.iter().any(|other| other.value == protocol));
        Protocols { http1: has(Protocol::Http1), http2: has(Protocol::Http2) }
    }
}

impl Default for Protocols {
    fn default() -> Self {
        Protocols::compile(None)
    }
}
