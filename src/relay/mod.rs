//! From a decision to an answer of an upstream: rewrite and headers, target, attempt, retry.

pub mod address;
pub mod balance;
pub mod choice;
pub mod connect;
pub mod deadline;
pub mod discovery;
pub mod edits;
pub mod framing;
pub mod h2_fault;
pub mod head;
pub mod health;
pub mod hop_by_hop;
pub mod peer;
pub mod pool;
pub mod protocol;
pub mod retry;
pub mod rewrite;
pub mod send;
pub mod strip;
pub mod target;
pub mod template;
pub mod timeouts;
pub mod tls;
pub mod translate;
pub mod tunnel;
pub mod upstream;
