//! The command line becomes an exit code. Nothing else happens here.

// Linked, it takes the place of the C library's `malloc`, for Rust and C alike (docs/decisions/0059).
use mimalloc as _;

fn main() -> std::process::ExitCode {
    sluice::cli::main()
}
