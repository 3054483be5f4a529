//! From files to a snapshot: read with positions, check, compile. In this order.

pub mod check;
pub mod codes;
pub mod compile;
pub mod diagnostic;
pub mod document;
pub mod effective;
mod elsewhere;
mod files;
pub mod files_read;
pub mod interpolate;
pub mod keys;
pub mod load;
mod names;
pub mod plan;
pub mod read;
pub mod read_error;
pub mod reference;
pub mod render;
pub mod suggest;
pub mod types;
pub mod warnings;
pub mod yaml;

/// The exit code of a refused configuration: EX_CONFIG of sysexits.
pub const EXIT_CODE: u8 = 78;

/// The environment of this process, as `${env:NAME}` sees it.
pub fn environment(name: &str) -> Option<String> {
    std::env::var(name).ok()
}
