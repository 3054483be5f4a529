//! Decides what an upstream's `retries` mean: how many attempts there are.
//!
//! Does not decide about the failure of one: see `retry.rs`.

use schemars::JsonSchema;
use serde::Deserialize;

use crate::config::diagnostic::Diagnostic;
use crate::config::types::At;

/// Whether another attempt is made: after a failed connect, and for idempotent methods after a reused connection died.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct RetriesSettings {
    /// How many attempts in all, the first included. 1 to 4; default 2.
    pub attempts: At<u8>,
}

/// The compiled form.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Retries {
    /// Attempts in all, the first included: 1 to 4.
    pub attempts: u8,
}

const DEFAULT_ATTEMPTS: u8 = 2;

// === impl Retries ===

impl Retries {
    pub fn compile(settings: Option<&RetriesSettings>, wrong: &mut Vec<Diagnostic>) -> Retries {
        let attempts = match settings {
            None => DEFAULT_ATTEMPTS,
            Some(RetriesSettings { attempts }) => {
                if !(1..=4).contains(&attempts.value) {
                    let message = format!("`{}` is not a number of attempts: expected 1 to 4, the first included", attempts.value);
                    wrong.push(Diagnostic::at(&attempts.place, "out-of-range", message).help("`1` makes no second attempt"));
                }
                attempts.value
            }
        };
        Retries { attempts }
    }
}
