//! Decides a request's trace and span (W3C Trace Context, level 1).

/// Trace id, parent and own span id, flags.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TraceContext;
