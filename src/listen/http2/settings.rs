//! What a listener allows connections of HTTP/2, and its safe defaults. Decides nothing while it runs.

use std::time::Duration;

use h2::server::Builder;
use schemars::JsonSchema;
use serde::Deserialize;

use super::super::head::HeadBounds;
use crate::config::diagnostic::{Diagnostic, Place};
use crate::config::types::{At, Rate, Size};

/// What connections of HTTP/2 may do. Heads are bounded by `heads`, times by `deadlines`, as in HTTP/1.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Http2Settings {
    /// Requests at once on one connection; more are refused with REFUSED_STREAM. Default 100, at most 1000.
    pub streams: Option<At<u16>>,
    /// How often a client may reset streams on one connection, or make the gateway reset them; more ends the connection. Default 200/10s.
    pub resets: Option<At<Rate>>,
    /// How many frames that ask for nothing (PING, SETTINGS, PRIORITY, WINDOW_UPDATE, empty DATA) a client may send on one connection; requests and answers earn some. More ends the connection. Default 1000/10s.
    pub frames: Option<At<Rate>>,
    /// Bytes of a request's body that a client may send ahead of the upstream; four times as many on one connection. Default 256KiB, from 64KiB to 16MiB.
    pub window: Option<At<Size>>,
}

/// The same, compiled.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Http2 {
    pub streams: u16,
    pub resets: Rate,
    pub frames: Rate,
    pub window: u32,
}

/// How much larger than `heads.bytes` a head may be to be answered with a document; the frame layer answers larger ones with a bare 431.
const SLACK: usize = 16 << 10;
/// What waits for the client of one stream in the frame layer.
const SEND_BYTES: usize = 64 << 10;
/// The most that is asked of clients that take small frames: RFC 9113 section 4.2.
const STREAMS_MOST: u16 = 1000;
const TEN_SECONDS: Duration = Duration::from_secs(10);
const WINDOW_LEAST: u64 = 64 << 10;
const WINDOW_MOST: u64 = 16 << 20;

// === impl Http2 ===

impl Http2 {
    /// What is wrong in what was written at `place`; `is_spoken` tells whether the listener speaks HTTP/2 at all.
    pub fn check(settings: &Http2Settings, place: &Place, is_spoken: bool, mistakes: &mut Vec<Diagnostic>) {
        let Http2Settings { streams, resets: _, frames: _, window } = settings;
        if !is_spoken {
            let message = "`http2` has no effect: the listener's `protocols` do not have it";
            mistakes.push(Diagnostic::at(place, "inert", message).help("add `http2` to `protocols`, or remove this"));
        }
        if let Some(streams) = streams.as_ref().filter(|streams| !(1..=STREAMS_MOST).contains(&streams.value)) {
            let message = format!("`{}` is out of range: expected a whole number from 1 to {STREAMS_MOST}", streams.value);
            mistakes.push(Diagnostic::at(&streams.place, "out-of-range", message));
        }
        if let Some(window) = window.as_ref().filter(|window| !(WINDOW_LEAST..=WINDOW_MOST).contains(&window.0)) {
            let message = format!("`{}` is out of range: expected from 64KiB to 16MiB", window.value);
            mistakes.push(Diagnostic::at(&window.place, "out-of-range", message));
        }
    }

    pub fn compile(settings: Option<&Http2Settings>) -> Self {
        let none = Http2Settings { streams: None, resets: None, frames: None, window: None };
        let Http2Settings { streams, resets, frames, window } = settings.unwrap_or(&none);
        Http2 {
            streams: streams.as_ref().map_or(100, |streams| streams.value),
            resets: resets.as_ref().map_or(Rate { count: 200, per: TEN_SECONDS }, |rate| rate.value),
            frames: frames.as_ref().map_or(Rate { count: 1000, per: TEN_SECONDS }, |rate| rate.value),
            window: window.as_ref().map_or(256 << 10, |window| u32::try_from(window.0).unwrap_or(u32::MAX)),
        }
    }

    /// What the frame layer enforces by itself.
    pub fn options(&self, heads: &HeadBounds) -> Builder {
        let mut options = Builder::new();
        options.max_concurrent_streams(u32::from(self.streams));
        options.max_header_list_size(u32::try_from(heads.bytes + SLACK).unwrap_or(u32::MAX));
        options.max_send_buffer_size(SEND_BYTES);
        options.initial_window_size(self.window);
        options.initial_connection_window_size(self.window * 4);
        options
    }
}

impl Default for Http2 {
    fn default() -> Self {
        Http2::compile(None)
    }
}
