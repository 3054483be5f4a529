//! A new configuration in place: read, checked, tested, and only then the one that runs. A refused one changes nothing and says why.
//!
//! Decides whether a configuration may run. Opening and closing what it asks for is `server/running.rs`'s.

use std::path::Path;

use crate::clock;
use crate::config::files_read::FilesRead;
use crate::config::plan::Gateway;
use crate::config::warnings::warnings;
use crate::config::{compile, render};
use crate::simulate::run_tests;
use crate::state::State;

/// Why a configuration may not run.
#[derive(Debug)]
pub struct Refused {
    /// The diagnostics or failed tests, as `sluice check` prints them.
    pub text: String,
}

/// Reads, checks and compiles the configuration at `path` and runs its `tests:`. Notes the files that were read, whatever comes of it.
///
/// # Errors
/// Every mistake, or every test that failed.
pub fn prepare(path: &Path, state: &State, earlier: Option<&Gateway>, read: &FilesRead) -> Result<Gateway, Refused> {
    let gateway = compile::load_noting(path, &crate::config::environment, state, earlier, read)
        .map_err(|mistakes| Refused { text: render::render(&mistakes, false) })?;
    let failed: Vec<_> = run_tests(&gateway).into_iter().filter_map(|test| test.failure.map(|why| (test.name, why))).collect();
    if failed.is_empty() {
        for doubt in warnings(&gateway, clock::now().unix_ms) {
            log::warn!("{doubt}");
        }
        return Ok(gateway);
    }
    let mut text = String::new();
    for (name, why) in &failed {
        text.push_str(&format!("test `{name}`: {why}\n"));
    }
    text.push_str(&format!("{} of {} tests failed\n", failed.len(), gateway.tests.len()));
    Err(Refused { text })
}
