//! From a decision to an answer of an upstream: rewrite and headers, target, attempt, retry.

pub mod balance;
pub mod discovery;
pub mod health;
pub mod peer;
pub mod pool;
pub mod rewrite;
pub mod target;
pub mod upstream;
