//! `sluice reload` and `sluice upgrade`: ask the running process, print its verdict. Carry out nothing themselves.

use std::path::PathBuf;
use std::process::ExitCode;

use clap::Args;

use crate::control::{Order, ask};

/// Have the running process read its configuration again.
///
/// Waits for its verdict: 0 where the new configuration is in place, 1 where it was refused, in which case nothing has changed, or where
/// no such process runs.
#[derive(Args)]
pub struct ReloadArgs {
    /// The file or folder that the running process was started with.
    config: PathBuf,
}

/// Have the running process hand over to the binary that is now in its place.
///
/// Waits for its verdict: 0 where the new process serves, 1 where it could not, in which case the old one goes on, or where no such process
/// runs.
#[derive(Args)]
pub struct UpgradeArgs {
    /// The file or folder that the running process was started with.
    config: PathBuf,
}

pub fn reload(args: &ReloadArgs) -> ExitCode {
    order(&args.config, Order::Reload)
}

pub fn upgrade(args: &UpgradeArgs) -> ExitCode {
    order(&args.config, Order::Upgrade)
}

fn order(config: &std::path::Path, order: Order) -> ExitCode {
    match ask(config, order) {
        Ok(verdict) if verdict.ok => super::print(&format!("{}\n", verdict.text.trim_end())),
        Ok(verdict) => {
            eprintln!("{}", verdict.text.trim_end());
            ExitCode::FAILURE
        }
        Err(why) => super::complain(why, 1),
    }
}
