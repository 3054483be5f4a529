//! The answers that the gateway itself makes when it refuses: one table of kinds, one type.
//!
//! Decides what a refusal is called and which status it has. Does not decide whether to refuse: each kind is declared
//! beside the code that raises it and only collected here. Rendering is in `render.rs`.

use std::borrow::Cow;

use http::{HeaderName, HeaderValue};
use smallvec::SmallVec;

/// A kind of refusal. Its `code` is stable: clients, logs, metrics and alerts all use it.
#[derive(Debug, PartialEq, Eq)]
pub struct Kind {
    /// Such as `rate-limited`.
    pub code: &'static str,
    pub status: u16,
    /// The plain words that clients look for, such as `Too many requests`; member `error` of the problem document.
    pub error: &'static str,
    /// What it means and what to do about it; a row of `docs/problems.md`.
    pub about: &'static str,
}

/// One refusal of one request (RFC 9457 section 3).
#[derive(Debug, Clone)]
pub struct Problem {
    pub kind: &'static Kind,
    /// For the client: what exactly was wrong. Never holds a credential nor a detail of an upstream.
    pub detail: Option<Cow<'static, str>>,
    /// For the log and `explain` only, such as `expired 3 s ago, leeway 0 s`.
    pub reason: Option<String>,
    /// Further members of the document, such as `limit` and `key`.
    pub members: SmallVec<[(&'static str, String); 2]>,
    /// Such as `WWW-Authenticate`, `Allow`, `Retry-After`.
    pub headers: SmallVec<[(HeaderName, HeaderValue); 2]>,
}

// === impl Problem ===

impl Problem {
    pub fn new(kind: &'static Kind) -> Self {
        Problem { kind, detail: None, reason: None, members: SmallVec::new(), headers: SmallVec::new() }
    }

    #[must_use]
    pub fn detail(mut self, detail: impl Into<Cow<'static, str>>) -> Self {
        self.detail = Some(detail.into());
        self
    }

    #[must_use]
    pub fn reason(mut self, reason: impl Into<String>) -> Self {
        self.reason = Some(reason.into());
        self
    }

    #[must_use]
    pub fn member(mut self, name: &'static str, value: impl Into<String>) -> Self {
        self.members.push((name, value.into()));
        self
    }

    #[must_use]
    pub fn header(mut self, name: HeaderName, value: HeaderValue) -> Self {
        self.headers.push((name, value));
        self
    }
}
