//! All keys but those of policies (`policies.rs`), each with its proof: a list a section. CONTRIBUTING.md says how a row is added.

mod authenticators;
mod callers;
mod choice;
mod choosing;
mod finding;
mod limits;
mod listeners;
mod retries;
mod routes;
mod server;
mod tests;
mod upstreams;

use super::proof::Proof;

/// A key as the schema has it, `*` for a name and `[]` for an item, and how it is known that it does something.
pub type Row = (&'static str, Proof);

/// The lists. A topic with more than three keys of its own has a list of its own.
const LISTS: &[&[Row]] = &[
    server::KEYS,
    listeners::KEYS,
    authenticators::KEYS,
    callers::KEYS,
    limits::KEYS,
    upstreams::KEYS,
    retries::KEYS,
    choosing::KEYS,
    finding::KEYS,
    routes::KEYS,
    tests::KEYS,
];

pub fn rows() -> impl Iterator<Item = &'static Row> {
    LISTS.iter().chain(&choice::KEYS).copied().flatten()
}
