//! From a decision to an answer of an upstream: rewrite and headers, target, attempt, retry.

pub mod rewrite;
pub mod upstream;
