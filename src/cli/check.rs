//! `sluice check`: whether a configuration is right, and what of it is doubtful. Starts nothing.

use std::path::PathBuf;
use std::process::ExitCode;

use clap::Args;

use crate::clock;
use crate::config::compile;
use crate::config::warnings::warnings;
use crate::state::State;

/// Check a configuration.
///
/// Tells every mistake at once, each with its place and what to do about it. Opens no socket and contacts nobody, but reads the files and
/// the environment that the configuration refers to. Runs no tests: see `sluice test`. What is right but doubtful, such as a certificate that expires within 30 days, is a
/// warning on standard error.
#[derive(Args)]
pub struct CheckArgs {
    /// A file, or a folder whose *.yaml are one configuration
    config: PathBuf,
}

pub fn run(args: &CheckArgs) -> ExitCode {
    match compile::load(&args.config, &super::environment, &State::default(), None) {
        Ok(gateway) => {
            for doubt in warnings(&gateway, clock::now().unix_ms) {
                eprintln!("warning: {doubt}");
            }
            super::print(&format!(
                "{}: {}, {}, {}; configuration {}\n",
                args.config.display(),
                count(gateway.routes.len(), "route"),
                count(gateway.upstreams.len(), "upstream"),
                count(gateway.tests.len(), "test"),
                gateway.fingerprint
            ))
        }
        Err(mistakes) => super::refuse(&mistakes),
    }
}

fn count(number: usize, noun: &str) -> String {
    format!("{number} {noun}{}", if number == 1 { "" } else { "s" })
}
