//! The parts of rate limits: arithmetic, hand-over, response headers. `buckets.rs` and `rate_limit.rs` put them together.

pub mod handover;
pub mod pace;
pub(super) mod table;
