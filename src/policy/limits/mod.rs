//! The parts of rate limits, from the user's words to the answer: the compiled limit, whose bucket, the arithmetic, the table,
//! the response headers, hand-over. `rate_limit.rs` and `buckets.rs` put them together.

pub mod account;
pub mod asks;
pub(super) mod at_once;
pub mod by;
pub mod charge;
pub mod crowd;
pub mod for_tags;
pub mod handover;
pub mod hash;
pub mod headers;
pub mod key;
pub mod label;
pub(super) mod level;
pub mod limit;
mod measure;
pub mod pace;
pub mod period;
pub mod places;
pub mod quota;
pub mod refusal;
pub mod shared;
pub mod sharing;
mod spelling;
pub(super) mod table;
pub mod throttle;
pub mod used;
pub mod window;
