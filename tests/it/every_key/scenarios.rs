//! All keys but those of policies, each with its proof.

/// How it is known that a key does something.
pub enum Proof {
    /// A configuration, `[[a||b]]` being `a` with the key and `b` without it, and the requests that tell the sides apart. Without
    /// requests, what its own tests say tells them apart.
    Differs(&'static str, &'static [&'static str]),
    /// The name of a test that needs sockets or clocks.
    Test(&'static str),
}

use Proof::{Differs, Test};

const ANY: &str = "GET http://h/a";
/// `sub: ada`, issuer `i`, audience `a`, expired in 2001, signed with the secret of the scenarios.
const HS: &str = "GET http://h/a | authorization: Bearer {hs}";

pub const KEYS: &[(&str, Proof)] = &[
];
