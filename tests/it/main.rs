//! Tests that see the crate from outside, as one binary.

mod config_golden;
