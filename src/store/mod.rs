//! The Redis or Valkey over which gateways share things: where it is and how it is reached.
//!
//! Decides how one gets a connection: to a single server, to the master that Sentinels name, or to the nodes of a cluster; with TLS and as
//! whom. What is asked over it, and what follows where it does not answer, is decided by who asks: `server/limits_store.rs`.

pub mod link;
pub mod settings;

pub use self::link::Link;
pub use self::settings::{Store, StoreSettings};
