//! `sluice run`: the gateway itself.

use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Args, ValueEnum};

use crate::report::process_log::Format;
use crate::server::{Start, run as serve, this_program};

/// Serve a configuration until stopped.
///
/// SIGHUP reads it again, SIGUSR1 opens the access log anew, SIGUSR2 starts the binary that is now in this one's place and hands
/// over to it, SIGTERM and SIGINT stop: not ready, `settle`, close, `drain`.
#[derive(Args)]
pub struct RunArgs {
    /// A file, or a folder whose *.yaml are one configuration
    config: PathBuf,
    /// How the process log on standard error is written
    #[arg(long, value_enum, default_value_t = LogFormat::Text)]
    log_format: LogFormat,
}

#[derive(Clone, Copy, ValueEnum)]
enum LogFormat {
    Text,
    Json,
}

pub fn run(args: &RunArgs) -> ExitCode {
    let log = match args.log_format {
        LogFormat::Text => Format::Text,
        LogFormat::Json => Format::Json,
    };
    let rest = std::env::args_os().skip(1).collect();
    serve(&Start { program: this_program(), args: rest, config: args.config.clone(), log })
}
