//! The table of contents, in the order in which a request meets the chapters.
//!
//! Decides nothing. `main.rs` turns a command line into an exit code; everything else is below.

#![forbid(unsafe_code)]

pub mod cli;
pub mod config;
pub mod echo;
pub mod state;

pub mod entry;
pub mod listen;
pub mod policy;
pub mod relay;
pub mod reply;
pub mod report;

pub mod ctx;
