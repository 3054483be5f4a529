//! Decides how large request heads may be, and how much memory clients can make a listener hold before they are requests.
//!
//! Does not judge a head: see `head.rs`.

use std::sync::atomic::{AtomicUsize, Ordering};

use schemars::JsonSchema;
use serde::Deserialize;

use super::head::HeadBounds;
use crate::config::diagnostic::Diagnostic;
use crate::config::types::{At, Size};
use crate::reply::problem::Kind;

pub static HEADS_FULL: Kind = Kind {
    code: "heads-full",
    status: 503,
    error: "Service unavailable",
    about: "Request heads that are not complete yet fill `heads.memory` of the listener, and this one would have needed more than 4KiB of it. Many clients that send large heads slowly, most likely on purpose.",
};

/// How large request heads may be.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct HeadsSettings {
    /// Bytes in all, request line included; more gets 431. Default 64KiB, from 1KiB to 256KiB.
    pub bytes: Option<At<Size>>,
    /// Number of fields; more gets 431. Default 100, at most 200.
    pub fields: Option<At<u16>>,
    /// Bytes of one line: a longer request line gets 414, a longer field 431. Default 32KiB, or `bytes` where that is less.
    pub line: Option<At<Size>>,
    /// Bytes that are read ahead while a request is served, for pipelined requests; what is beyond waits until its turn. Default 16KiB, from 1KiB to 1MiB.
    pub ahead: Option<At<Size>>,
    /// Memory for the incomplete heads of all connections together, where they are larger than 4KiB; more gets 503. Default 64MiB, at least 1MiB.
    pub memory: Option<At<Size>>,
}

/// How much is read before it is a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Buffers {
    /// While another request of the connection is served.
    pub ahead: usize,
    /// Of heads that are incomplete and larger than [`SMALL`], over all connections.
    pub memory: usize,
}

/// Heads up to this size are not counted: nearly all are, and `connections.max` bounds them.
pub const SMALL: usize = 4 << 10;

/// What incomplete heads hold of a listener's memory.
#[derive(Debug, Default)]
pub struct Held(AtomicUsize);

/// What one of them holds; given back when this is dropped.
#[derive(Debug)]
pub struct Share<'a> {
    held: &'a Held,
    bytes: usize,
}

// === impl HeadBounds, Buffers ===

impl Default for HeadBounds {
    fn default() -> Self {
        HeadBounds { bytes: 64 << 10, fields: 100, line: 32 << 10 }
    }
}

impl Default for Buffers {
    fn default() -> Self {
        Buffers { ahead: 16 << 10, memory: 64 << 20 }
    }
}

pub(super) fn compile(settings: Option<&HeadsSettings>, mistakes: &mut Vec<Diagnostic>) -> (HeadBounds, Buffers) {
    let (mut bounds, mut buffers) = (HeadBounds::default(), Buffers::default());
    let Some(HeadsSettings { bytes, fields, line, ahead, memory }) = settings else { return (bounds, buffers) };
    let mut size = |written: &Option<At<Size>>, least: Size, most: Size, what: &str, bound: &mut usize| {
        let Some(written) = written else { return };
        if !(least..=most).contains(&written.value) {
            let message = format!("`{}` is out of range for {what}: expected `{least}` to `{most}`", written.value);
            mistakes.push(Diagnostic::at(&written.place, "out-of-range", message));
        }
        *bound = usize::try_from(written.0).unwrap_or(usize::MAX);
    };
    size(bytes, Size::kib(1), Size::kib(256), "request heads", &mut bounds.bytes);
    bounds.line = bounds.line.min(bounds.bytes);
    size(line, Size(256), Size::kib(256), "one line of a head", &mut bounds.line);
    size(ahead, Size::kib(1), Size::mib(1), "what is read ahead", &mut buffers.ahead);
    size(memory, Size::mib(1), Size(1 << 40), "the memory of incomplete heads", &mut buffers.memory);
    if let Some(line) = line.as_ref().filter(|line| usize::try_from(line.0).is_ok_and(|line| line > bounds.bytes)) {
        let message = format!("a line of `{}` never comes: the whole head has {} at most", line.value, Size(bounds.bytes as u64));
        mistakes.push(Diagnostic::at(&line.place, "inert", message).help("lower `line`, or raise `bytes`"));
    }
    if let Some(fields) = fields {
        if !(1..=200).contains(&fields.value) {
            let message = format!("`{}` is out of range for the number of fields: expected 1 to 200", fields.value);
            mistakes.push(Diagnostic::at(&fields.place, "out-of-range", message));
        }
        bounds.fields = usize::from(fields.value);
    }
    (bounds, buffers)
}

// === impl Held, Share ===

impl Held {
    /// A share of nothing yet.
    pub fn share(&self) -> Share<'_> {
        Share { held: self, bytes: 0 }
    }
}

impl Share<'_> {
    /// Grows to the size of an incomplete head. False: there is no room for it under `most`.
    pub fn covers(&mut self, size: usize, most: usize) -> bool {
        if size <= SMALL.max(self.bytes) {
            return true;
        }
        let more = size - self.bytes;
        let all = self.held.0.fetch_add(more, Ordering::Relaxed).saturating_add(more);
        self.bytes = size;
        all <= most
    }
}

impl Drop for Share<'_> {
    fn drop(&mut self) {
        if self.bytes > 0 {
            self.held.0.fetch_sub(self.bytes, Ordering::Relaxed);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn heads_share_a_bound_and_give_back_what_they_held() {
        let held = Held::default();
        let (mut one, mut two, mut small) = (held.share(), held.share(), held.share());
        assert!(small.covers(SMALL, 0), "small ones are not counted");
        assert!(one.covers(6000, 10_000) && one.covers(5000, 10_000));
        assert!(!two.covers(5000, 10_000));
        drop(two);
        assert!(held.share().covers(4100, 11_000) && !one.covers(10_001, 10_000));
        drop((one, small));
        assert_eq!(held.0.into_inner(), 0);
    }
}
