//! Decides where an access log goes and in which format, as it is written. Opens nothing: see `writer.rs`.

use schemars::JsonSchema;
use serde::Deserialize;

use super::super::writer::To;
use crate::config::diagnostic::Diagnostic;
use crate::config::types::At;

/// One line a request.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct AccessLogSettings {
    /// `stdout` (default), or a file, reopened on SIGUSR1.
    pub to: Option<At<String>>,
    /// `json` (default), or `combined`, which programs for the logs of nginx and Apache read; it holds less.
    pub format: Option<LogFormat>,
}

/// How a line is spelt.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum LogFormat {
    /// An object with all that is known.
    #[default]
    Json,
    /// Client, user, time, request line, status, bytes, referer and user agent.
    Combined,
}

/// An access log, as it runs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AccessLog {
    pub to: To,
    pub format: LogFormat,
}

// === impl AccessLogSettings ===

impl AccessLogSettings {
    pub fn compile(&self) -> Result<AccessLog, Vec<Diagnostic>> {
        Ok(AccessLog { to: self.target()?, format: self.format.unwrap_or_default() })
    }

    /// Where lines go. A relative path is relative to the file it stands in. Opens nothing: whether the file can be opened is known
    /// where it is used, and `check` may run elsewhere.
    fn target(&self) -> Result<To, Vec<Diagnostic>> {
        let AccessLogSettings { to, format: _ } = self;
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
