//! Decides where an access log goes and in which format, as it is written. Opens nothing: see `writer.rs`.

use schemars::JsonSchema;
use serde::Deserialize;

use super::super::writer::To;
use crate::config::diagnostic::Diagnostic;
use crate::config::types::{At, Percent};

/// One line a request.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct AccessLogSettings {
    /// `stdout` (default), or a file, reopened on SIGUSR1.
    pub to: Option<At<String>>,
    /// `json` (default), or `combined`, which programs for the logs of nginx and Apache read; it holds less.
    pub format: Option<LogFormat>,
    /// The share of the requests that went well that have a line, such as `1%`; `0%` for none of them. Default: all. What was refused or failed,
    /// was tried more than once, or would have been refused by a shadowed policy, always has its line.
    pub sample: Option<At<Percent>>,
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
    /// The share of the requests that went well that have a line, where not all have.
    pub sample: Option<Percent>,
}

const ALL: Percent = Percent(10_000);

// === impl AccessLogSettings ===

impl AccessLogSettings {
    pub fn compile(&self) -> Result<AccessLog, Vec<Diagnostic>> {
        let sample = match &self.sample {
            Some(sample) if sample.value == ALL => {
                let message = "`sample: 100%` has no effect: all requests have their line";
                Err(vec![Diagnostic::at(&sample.place, "inert", message).help("leave it out, or write a smaller share")])
            }
            sample => Ok(sample.as_ref().map(|sample| sample.value)),
        };
        match (self.target(), sample) {
            (Ok(to), Ok(sample)) => Ok(AccessLog { to, format: self.format.unwrap_or_default(), sample }),
            (to, sample) => Err([to.err(), sample.err()].into_iter().flatten().flatten().collect()),
        }
    }

    /// Where lines go. A relative path is relative to the file it stands in. Opens nothing: whether the file can be opened is known
    /// where it is used, and `check` may run elsewhere.
    fn target(&self) -> Result<To, Vec<Diagnostic>> {
        let AccessLogSettings { to, format: _, sample: _ } = self;
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
