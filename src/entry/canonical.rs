//! Decides the one canonical form of a request's host, path and query, and refuses what has two readings.

use schemars::JsonSchema;
use serde::Deserialize;

/// What a request asks for, in canonical form.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Target;

/// A spelling with two readings that a route may opt in to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Spelling {
    /// `%2F` in a segment; it stays encoded.
    EncodedSlash,
    /// `//`; empty segments stay.
    DoubleSlash,
    /// `;` in a segment; it stays.
    Semicolon,
    /// `%5C` in a segment; it stays encoded.
    Backslash,
}
