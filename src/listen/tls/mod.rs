//! TLS towards clients: what is known of a connection that has it.
//!
//! Decides nothing yet.

pub mod facts;
