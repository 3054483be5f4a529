//! Asks other servers over HTTP for the gateway's own purposes, such as the keys of an identity provider.
//!
//! Decides how such a question is bounded: in time, in size, and in where it may lead. Does not decide what is asked nor what an answer means.

pub mod address;
pub mod client;
pub mod kept;
pub mod stream;
mod tls;
pub mod written;

pub use self::address::Address;
pub use self::client::{Question, Reply, ask};
pub use self::kept::Kept;
pub use self::stream::{Lines, follow_lines};
pub use self::tls::{Trust, read_roots, secure_as};

/// How servers are reached.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Way {
    /// The proxy that all questions go through.
    pub proxy: Option<Address>,
    pub trust: Trust,
}
