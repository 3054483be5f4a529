//! Decides a request's id.

/// A request id, as logged, returned and forwarded.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RequestId;
