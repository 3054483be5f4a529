//! Decides which protocol is spoken to an upstream's targets, and how HTTP/2 connections to them are used.
//!
//! Does not decide when a request is sent again: see `retry.rs`. Without TLS nothing is negotiated: HTTP/2 is then spoken by prior
//! knowledge (RFC 9113 section 3.3).

use std::time::Duration;

use pingora_core::upstreams::peer::{ALPN, PeerOptions};
use schemars::JsonSchema;
use serde::Deserialize;

use crate::config::diagnostic::Diagnostic;
use crate::config::types::{At, Period, Size};
use crate::relay::upstream::in_range;
use crate::reply::problem::Kind;

/// What is spoken to an upstream.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Protocol {
    /// HTTP/1.1. The only one that carries WebSockets.
    Http1,
    /// HTTP/2, many requests at a time on a connection; what gRPC needs. Without TLS by prior knowledge.
    H2,
    /// Whichever of the two the target chooses in its TLS handshake. Needs `tls`.
    Auto,
}

/// How HTTP/2 connections to an upstream are used.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct UpstreamHttp2Settings {
    /// How many requests at a time a connection carries, at most; fewer where the target says so. 1 to 1000; default 100.
    pub streams: Option<At<u16>>,
    /// How often a connection is asked whether it still lives; one that does not answer within 5s is closed. 1s to 1h. Default: never.
    /// Servers of gRPC take more than one in five minutes for an attack, unless they are told otherwise.
    pub ping: Option<At<Period>>,
    /// How much of one answer may be under way before the client has read it; of all answers on a connection four times as much. Where both sides
    /// of a call send at once, a whole message of the server's has to fit. 64KiB to 64MiB; default 5MiB, which is more than a message of gRPC may
    /// have unless both sides agree on more.
    pub window: Option<At<Size>>,
}

/// Likewise, as it runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Http2 {
    pub streams: u16,
    pub ping: Option<Duration>,
    /// Bytes.
    pub window: u32,
}

pub static UPGRADE_UNSUPPORTED: Kind = Kind {
    code: "upgrade-unsupported",
    status: 501,
    error: "Not implemented",
    about: "A WebSocket was asked for on a route whose upstream speaks HTTP/2 (`protocol: h2`), which does not carry it.",
};

/// What one stream may have under way to us before it waits for the client to read (RFC 9113 section 5.2). Pingora writes a piece of a request
/// and sends on an answer one after the other: a server that reads nothing until it has sent its message must get rid of it meanwhile.
const WINDOW: u32 = 5 << 20;
/// So many times that for all streams of a connection.
const STREAMS_AT_ONCE: u32 = 4;

// === impl Protocol ===

impl Protocol {
    /// What is written, or the default; all that cannot take effect is refused.
    pub fn compile(
        settings: Option<&At<Protocol>>,
        http2: Option<&At<UpstreamHttp2Settings>>,
        has_tls: bool,
        wrong: &mut Vec<Diagnostic>,
    ) -> (Protocol, Http2) {
        let protocol = settings.map_or(Protocol::Http1, |protocol| protocol.value);
        if let Some(written) = settings.filter(|written| written.value == Protocol::Auto && !has_tls) {
            let message = "`auto` lets the TLS handshake decide, and this upstream has no `tls`: expected `http1` or `h2`";
            wrong.push(Diagnostic::at(&written.place, "inert", message));
        }
        if let Some(written) = http2.filter(|_| protocol == Protocol::Http1) {
            let message = "this does nothing: HTTP/2 is not spoken to this upstream";
            wrong.push(Diagnostic::at(&written.place, "inert", message).help("add `protocol: h2`, or remove `http2`"));
        }
        (protocol, Http2::compile(http2, wrong))
    }
}

// === impl Http2 ===

impl Http2 {
    fn compile(settings: Option<&At<UpstreamHttp2Settings>>, wrong: &mut Vec<Diagnostic>) -> Http2 {
        let Some(UpstreamHttp2Settings { streams, ping, window }) = settings.map(|settings| &settings.value) else {
            return Http2::default();
        };
        if let (Some(settings), None, None, None) = (settings, streams, ping, window) {
            let message = "this says nothing: expected at least one of `streams`, `ping` and `window`";
            wrong.push(Diagnostic::at(&settings.place, "inert", message));
        }
        let window = window.as_ref().map_or(WINDOW, |window| {
            if !(64 << 10..=64 << 20).contains(&window.value.0) {
                let message = format!("`{}` is out of range: expected 64KiB to 64MiB", window.value);
                wrong.push(Diagnostic::at(&window.place, "out-of-range", message));
            }
            u32::try_from(window.value.0).unwrap_or(WINDOW)
        });
        let streams = streams.as_ref().map_or(DEFAULT_STREAMS, |streams| {
            if !(1..=1000).contains(&streams.value) {
                let message = format!("`{}` is out of range: expected 1 to 1000", streams.value);
                wrong.push(Diagnostic::at(&streams.place, "out-of-range", message));
            }
            streams.value
        });
        let ping = ping.as_ref().map(|ping| in_range(Some(ping), ping.value, Period::seconds(1), Period::seconds(3600), wrong));
        Http2 { streams, ping, window }
    }

    /// Says it to Pingora.
    pub(in crate::relay) fn apply(self, options: &mut PeerOptions) {
        options.alpn = ALPN::H2;
        // Pingora's own default is one: each request a connection.
        options.max_h2_streams = usize::from(self.streams);
        options.h2_ping_interval = self.ping;
        options.h2_stream_window_size = Some(self.window);
        options.h2_connection_window_size = Some(self.window.saturating_mul(STREAMS_AT_ONCE));
    }
}

const DEFAULT_STREAMS: u16 = 100;

impl Default for Http2 {
    fn default() -> Self {
        Http2 { streams: DEFAULT_STREAMS, ping: None, window: WINDOW }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::relay::upstream::tests::at;

    fn compile(protocol: Option<Protocol>, http2: Option<UpstreamHttp2Settings>, has_tls: bool) -> ((Protocol, Http2), Vec<&'static str>) {
        let mut wrong = Vec::new();
        let compiled = Protocol::compile(protocol.map(at).as_ref(), http2.map(at).as_ref(), has_tls, &mut wrong);
        (compiled, wrong.iter().map(|wrong| wrong.code).collect())
    }

    #[test]
    fn http_1_is_spoken_where_nothing_is_written() {
        assert_eq!(compile(None, None, false), ((Protocol::Http1, Http2::default()), vec![]));
        assert_eq!(compile(None, None, true).0.0, Protocol::Http1);
        assert_eq!(compile(Some(Protocol::Auto), None, true), ((Protocol::Auto, Http2::default()), vec![]));
    }

    #[test]
    fn what_cannot_take_effect_is_refused() {
        let http2 = |streams: Option<u16>, ping: Option<u64>| UpstreamHttp2Settings {
            window: None,
            streams: streams.map(at),
            ping: ping.map(Period::seconds).map(at),
        };
        assert_eq!(compile(Some(Protocol::Auto), None, false).1, ["inert"]);
        assert_eq!(compile(None, Some(http2(Some(5), None)), true).1, ["inert"]);
        assert_eq!(compile(Some(Protocol::H2), Some(http2(None, None)), false).1, ["inert"]);
        assert_eq!(compile(Some(Protocol::H2), Some(http2(Some(0), Some(0))), false).1, ["out-of-range", "out-of-range"]);
        let (compiled, wrong) = compile(Some(Protocol::H2), Some(http2(Some(7), Some(9))), false);
        assert_eq!(compiled, (Protocol::H2, Http2 { streams: 7, ping: Some(Duration::from_secs(9)), window: WINDOW }));
        assert!(wrong.is_empty());
    }
}
