//! The table of contents, in the order in which a request meets the chapters.
//!
//! Decides nothing. `main.rs` turns a command line into an exit code; everything else is below.

#![forbid(unsafe_code)]

pub mod cli;
pub mod config;

pub mod admin;
pub mod ask;
pub mod control;
pub mod keep;
pub mod reload;
pub mod server;
pub mod state;
pub mod store;
pub mod upgrade;

pub mod ctx;
pub mod decide;
pub mod exchange;
pub mod proxy;
pub mod simulate;

pub mod entry;
pub mod listen;
pub mod policy;
pub mod relay;
pub mod reply;
pub mod report;

pub mod clock;
pub mod echo;
pub mod text;
