//! How it is known that a key does something.

/// The proof of a key. Names of tests are those of functions below `tests/it`.
pub enum Proof {
    /// A configuration, `[[a||b]]` being `a` with the key and `b` without it, and the requests that tell the sides apart. Without
    /// requests, what its own tests say tells them apart.
    Differs(&'static str, &'static [&'static str]),
    /// A test that needs sockets or clocks, and writes its configuration through the harness: it fails when the key is left out of all
    /// that it writes (`left_out.rs` runs it so).
    Test(&'static str),
    /// Such a test where the key must be there: it fails when this stands in the key's place.
    TestInstead(&'static str, &'static str),
    /// Such a test where the key allows or completes something: without it, or with this in its place, the configuration is refused with
    /// this code.
    TestRefused(&'static str, Option<&'static str>, &'static str),
}
