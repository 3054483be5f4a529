//! Sets up what the process itself says: one line an event on standard error. Requests are in the access log, not here.
//!
//! Decides which events are worth a line and how it is spelt. Does not decide what happened.

use std::io::Write;
use std::time::{SystemTime, UNIX_EPOCH};

use env_logger::{Builder, Target, WriteStyle};
use log::{Level, LevelFilter, Record};

use super::civil::rfc3339;
use super::json::push_string;

/// How an event is spelt.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Format {
    /// `2026-11-21T23:12:59.042Z INFO  reload: ...`
    #[default]
    Text,
    /// One JSON object: `time`, `level`, `target`, `message`.
    Json,
}

/// What is said unless the environment asks for something else. Pingora speaks of each broken connection, which the access log
/// has with its cause; only its errors outside of requests are of use.
const QUIET: &[(&str, LevelFilter)] = &[
    ("sluice", LevelFilter::Info),
    ("pingora_proxy", LevelFilter::Off),
    ("pingora_core::apps", LevelFilter::Off),
    ("pingora_core::services", LevelFilter::Error),
    ("pingora_core::server", LevelFilter::Error),
    ("pingora_core::connectors", LevelFilter::Error),
];

/// Starts the process log. `SLUICE_LOG`, or else `RUST_LOG`, overrides what is said (`debug`, `sluice=debug,pingora_proxy=warn`).
/// A second call changes nothing.
pub fn init(format: Format) {
    let wanted = ["SLUICE_LOG", "RUST_LOG"].iter().find_map(|name| std::env::var(name).ok().filter(|filter| !filter.is_empty()));
    let mut builder = builder(wanted.as_deref());
    builder.target(Target::Stderr).write_style(WriteStyle::Never);
    builder.format(move |out, record| out.write_all(&line(format, unix_ms(), record)));
    if builder.try_init().is_err() {
        log::debug!("the process log was set up before");
    }
}

fn builder(wanted: Option<&str>) -> Builder {
    let mut builder = Builder::new();
    builder.filter_level(LevelFilter::Warn);
    // A level without a target is for everything: `error` must silence us too, `debug` must show what is hidden here.
    let is_for_all = |filter: &str| filter.split(',').any(|part| part.trim().parse::<LevelFilter>().is_ok());
    if !wanted.is_some_and(is_for_all) {
        for (target, level) in QUIET {
            builder.filter_module(target, *level);
        }
    }
    if let Some(filter) = wanted {
        builder.parse_filters(filter);
    }
    builder
}

fn unix_ms() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_millis() as u64)
}

/// One event as one line, its newline included. Newlines and control characters within are escaped, so that nothing that a peer
/// sent can look like an event of its own.
fn line(format: Format, unix_ms: u64, record: &Record<'_>) -> Vec<u8> {
    let message = record.args().to_string();
    let target = record.target().strip_prefix("sluice::").unwrap_or(record.target());
    let mut out = Vec::with_capacity(80 + message.len());
    match format {
        Format::Text => {
            out.extend_from_slice(&rfc3339(unix_ms));
            out.extend_from_slice(match record.level() {
                Level::Error => b" ERROR ",
                Level::Warn => b" WARN  ",
                Level::Info => b" INFO  ",
                Level::Debug => b" DEBUG ",
                Level::Trace => b" TRACE ",
            });
            out.extend_from_slice(target.as_bytes());
            out.extend_from_slice(b": ");
            for character in message.chars() {
                // Quotes and backslashes stay as they are: this is for reading.
                if character.is_control() {
                    out.extend(character.escape_default().map(|escaped| escaped as u8));
                } else {
                    out.extend_from_slice(character.encode_utf8(&mut [0; 4]).as_bytes());
                }
            }
        }
        Format::Json => {
            out.extend_from_slice(b"{\"time\":\"");
            out.extend_from_slice(&rfc3339(unix_ms));
            out.extend_from_slice(b"\",\"level\":\"");
            out.extend_from_slice(record.level().as_str().to_ascii_lowercase().as_bytes());
            out.extend_from_slice(b"\",\"target\":");
            push_string(&mut out, target.as_bytes());
            out.extend_from_slice(b",\"message\":");
            push_string(&mut out, message.as_bytes());
            out.push(b'}');
        }
    }
    out.push(b'\n');
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use log::Log;

    fn written(format: Format, message: &str) -> String {
        let record =
            |args| line(format, 1_700_000_000_042, &Record::builder().level(Level::Warn).target("sluice::reload").args(args).build());
        String::from_utf8(record(format_args!("{message}"))).unwrap()
    }

    fn says(wanted: Option<&str>, target: &str, level: Level) -> bool {
        let logger = builder(wanted).build();
        logger.enabled(&log::Metadata::builder().target(target).level(level).build())
    }

    #[test]
    fn an_event_is_one_readable_line() {
        assert_eq!(written(Format::Text, r#"kept "a\b" as it was"#), "2023-11-14T22:13:20.042Z WARN  reload: kept \"a\\b\" as it was\n");
    }

    #[test]
    fn what_a_peer_sent_cannot_look_like_another_event() {
        for format in [Format::Text, Format::Json] {
            let line = written(format, "bad\n2026 INFO \x1b[31mforged\r\n\u{85}");
            assert_eq!(line.lines().count(), 1, "{line:?}");
            assert!(!line.trim_end().chars().any(char::is_control), "{line:?}");
        }
    }

    #[test]
    fn json_on_request() {
        let line = written(Format::Json, "said \"no\"\nand went");
        let value: serde_json::Value = serde_json::from_str(&line).unwrap();
        assert_eq!(
            value,
            serde_json::json!({ "time": "2023-11-14T22:13:20.042Z", "level": "warn", "target": "reload", "message": "said \"no\"\nand went" })
        );
    }

    #[test]
    fn it_is_quiet_about_single_requests() {
        assert!(says(None, "sluice::reload", Level::Info));
        assert!(!says(None, "sluice::reload", Level::Debug));
        assert!(!says(None, "pingora_proxy::proxy_h1", Level::Error));
        assert!(!says(None, "pingora_core::apps::http_app", Level::Error));
        assert!(says(None, "pingora_core::server", Level::Error));
        assert!(!says(None, "pingora_core::server", Level::Info));
        assert!(says(None, "hickory_resolver", Level::Warn));
        assert!(!says(None, "hickory_resolver", Level::Info));
    }

    #[test]
    fn the_environment_overrides_it() {
        assert!(says(Some("debug"), "tokio", Level::Debug));
        assert!(says(Some("debug"), "pingora_proxy", Level::Debug));
        assert!(!says(Some("error"), "sluice::reload", Level::Warn));
        assert!(says(Some("tokio=debug"), "sluice::reload", Level::Info));
        assert!(says(Some("pingora_proxy=warn"), "pingora_proxy", Level::Warn));
        assert!(says(Some("sluice=trace"), "sluice::relay", Level::Trace));
        assert!(!says(Some("sluice=error"), "sluice", Level::Warn));
    }
}
