//! Every kind of mistake in a configuration: its stable code and what it means. A test holds that no code of the source is missing.

/// (code, one sentence).
pub const CODES: &[(&str, &str)] = &[
    ("x","y"),
];
