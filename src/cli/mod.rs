//! One file per subcommand.

pub mod echo;

/// Runs the command line.
pub fn main() -> std::process::ExitCode {
    std::process::ExitCode::from(2)
}
