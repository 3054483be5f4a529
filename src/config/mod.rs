//! From files to a snapshot: read with positions, check, compile. In this order.

pub mod check;
pub mod codes;
pub mod compile;
pub mod diagnostic;
pub mod document;
pub mod effective;
mod files;
pub mod interpolate;
pub mod keys;
pub mod load;
pub mod plan;
pub mod read;
pub mod read_error;
pub mod reference;
pub mod render;
pub mod suggest;
pub mod types;
pub mod yaml;
