//! From files to a snapshot: read with positions, check, compile. In this order.

pub mod diagnostic;
pub mod document;
pub mod types;
