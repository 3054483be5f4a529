//! Decides where an access log goes, as it is written. Opens nothing: see `writer.rs`.

use schemars::JsonSchema;
use serde::Deserialize;

use super::super::writer::To;
use crate::config::diagnostic::Diagnostic;
use crate::config::types::At;

/// One JSON line a request.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct AccessLogSettings {
    /// `stdout` (default), or a file, reopened on SIGUSR1.
    pub to: Option<At<String>>,
    /// `json`, the only one.
    pub format: Option<LogFormat>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum LogFormat {
    Json,
}

// === impl AccessLogSettings ===

impl AccessLogSettings {
    /// Where lines go. A relative path is relative to the file it stands in. Opens nothing: whether the file can be opened is known
    /// where it is used, and `check` may run elsewhere.
    pub fn compile(&self) -> Result<To, Vec<Diagnostic>> {
        let AccessLogSettings { to, format } = self;
        match format {
            None | Some(LogFormat::Json) => {} // the one format that there is
        }
        let Some(to) = to else { return Ok(To::Stdout) };
        match to.as_str() {
            "stdout" => Ok(To::Stdout),
            "" | "stderr" | "-" => Err(vec![
                Diagnostic::at(
                    &to.place,
                    "access-log-target",
                    "`to` is not where an access log can go: expected `stdout` or the path of a file",
                )
                .help("standard error is for the process log"),
            ]),
            path if path.ends_with('/') => Err(vec![Diagnostic::at(
                &to.place,
                "access-log-target",
                "`to` is a folder: expected `stdout` or the path of a file, such as `/var/log/sluice/access.log`",
            )]),
            path => Ok(To::File(to.place.source.path.parent().map_or_else(|| path.into(), |folder| folder.join(path)))),
        }
    }
}
