//! One file per subcommand. Here only: the command line itself, and what its exit codes mean.
//!
//! 0 all is well; 1 the thing asked about failed; 2 the command line is wrong; 78 the configuration is (EX_CONFIG of sysexits).

mod check;
pub mod echo;
mod explain;
mod key;
mod limits;
mod orders;
mod reference;
mod routes;
mod run;
mod test;

use std::io::{IsTerminal, Write};
use std::process::ExitCode;

use clap::{Parser, Subcommand};

use crate::config::diagnostic::Diagnostic;
use crate::config::environment;
use crate::config::render::render;

/// An API gateway and edge proxy whose operators know what it will do before it does it.
#[derive(Parser)]
#[command(version, propagate_version = true, disable_help_subcommand = true, max_term_width = 110, after_help = EXIT_CODES)]
struct CommandLine {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    Run(run::RunArgs),
    Check(check::CheckArgs),
    Routes(routes::RoutesArgs),
    Explain(explain::ExplainArgs),
    Test(test::TestArgs),
    #[command(subcommand)]
    Key(key::KeyCommand),
    #[command(subcommand)]
    Limits(limits::LimitsCommand),
    Reload(orders::ReloadArgs),
    Upgrade(orders::UpgradeArgs),
    Echo(echo::EchoArgs),
    Reference(reference::ReferenceArgs),
}

const EXIT_CODES: &str = "Exit codes: 0 all is well; 1 the thing asked about failed; 2 the command line is wrong; 78 the configuration is.";

/// Runs the command line of this process.
pub fn main() -> ExitCode {
    // The table of limits is touched here and there: a huge page for each place would make 64 MiB resident at once.
    let _ = rustix::thread::disable_transparent_huge_pages(true);
    match CommandLine::parse().command {
        Command::Run(args) => run::run(&args),
        Command::Check(args) => check::run(&args),
        Command::Routes(args) => routes::run(&args),
        Command::Explain(args) => explain::run(&args),
        Command::Test(args) => test::run(&args),
        Command::Key(command) => key::run(&command),
        Command::Limits(command) => limits::run(&command),
        Command::Reload(args) => orders::reload(&args),
        Command::Upgrade(args) => orders::upgrade(&args),
        Command::Echo(args) => echo::run(args),
        Command::Reference(args) => reference::run(&args),
    }
}

/// Prints what is wrong with a configuration; the exit code that goes with it.
fn refuse(mistakes: &[Diagnostic]) -> ExitCode {
    eprint!("{}", render(mistakes, std::io::stderr().is_terminal()));
    ExitCode::from(crate::config::EXIT_CODE)
}

/// Prints a complaint that has no place in a file.
fn complain(what: impl std::fmt::Display, code: u8) -> ExitCode {
    eprintln!("sluice: {what}");
    ExitCode::from(code)
}

/// Writes to standard output; a reader that has gone is no error of ours.
fn print(text: &str) -> ExitCode {
    written(std::io::stdout().lock().write_all(text.as_bytes()))
}

fn written(result: std::io::Result<()>) -> ExitCode {
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(e) if e.kind() == std::io::ErrorKind::BrokenPipe => ExitCode::SUCCESS,
        Err(e) => complain(format_args!("standard output: {e}"), 1),
    }
}
