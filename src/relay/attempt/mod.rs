//! One attempt at one target: the connection, what is spoken on it, how long it may take, and what became of it.
//!
//! `peer` says to Pingora where to and how (`protocol`, `tls`, `proxied`, `reuse`); `connector`, `connect` and `open` do it; `kept` holds what rests; `timeouts` and `deadline` bound it;
//! `tunnel` goes on after an upgrade; `h2_fault` reads what HTTP/2 broke with; `outcome` reports. Does not decide whether there is another: `retry.rs`.

pub mod connect;
pub mod connector;
pub mod deadline;
pub mod h2_fault;
pub mod kept;
pub mod open;
pub mod outcome;
pub mod peer;
pub mod protocol;
pub mod proxied;
pub mod reuse;
pub mod timeouts;
pub mod tls;
pub mod tunnel;
