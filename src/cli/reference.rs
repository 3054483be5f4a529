//! `sluice reference`: the configuration's keys, as a page or as a JSON Schema for editors.

use std::process::ExitCode;

use clap::{Args, ValueEnum};

use crate::config::reference;

/// Print the reference of the configuration.
#[derive(Args)]
pub struct ReferenceArgs {
    /// Markdown to read, or a JSON Schema for editors
    #[arg(value_enum, default_value_t = Form::Markdown)]
    form: Form,
}

#[derive(Clone, Copy, ValueEnum)]
enum Form {
    Markdown,
    Schema,
}

pub fn run(args: &ReferenceArgs) -> ExitCode {
    match args.form {
        Form::Markdown => super::print(&reference::markdown()),
        Form::Schema => super::print(&format!("{:#}\n", reference::schema())),
    }
}
