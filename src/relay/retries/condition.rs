//! Decides how the conditions of `retries.on` are written, and whether one has come true.

use std::borrow::Cow;
use std::fmt;

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Deserializer, de};

use super::verdict::Cause;
use crate::config::diagnostic::Diagnostic;
use crate::config::types::At;
use crate::relay::attempt::protocol::Protocol;
use crate::reply::grpc::Status;

/// One condition as it is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Condition {
    Connect,
    Reset,
    Timeout,
    /// Of HTTP.
    Status(u16),
    /// Of gRPC, where the head of an answer is all of it.
    Grpc(Status),
}

/// All conditions of an upstream.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Conditions {
    connect: bool,
    reset: bool,
    timeout: bool,
    statuses: Box<[u16]>,
    /// A bit for each status of gRPC.
    grpc: u32,
}

/// No answer below this is one to try again after, but for calls of gRPC.
pub const LEAST_STATUS: u16 = 400;
const WHAT: &str = "`connect`, `reset`, `timeout`, a status from 400 to 599 or one of gRPC such as `grpc-unavailable`";

// === impl Condition ===

impl Condition {
    pub fn parse(text: &str) -> Option<Condition> {
        match text {
            "connect" => Some(Condition::Connect),
            "reset" => Some(Condition::Reset),
            "timeout" => Some(Condition::Timeout),
            _ => match text.strip_prefix("grpc-") {
                // An answer that is OK has nothing to be tried again for.
                Some(name) => Status::named(name).filter(|status| status.number() != 0).map(Condition::Grpc),
                None if text.len() == 3 => text.parse().ok().filter(|status| (LEAST_STATUS..=599).contains(status)).map(Condition::Status),
                None => None,
            },
        }
    }
}

impl fmt::Display for Condition {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Condition::Connect => f.write_str("connect"),
            Condition::Reset => f.write_str("reset"),
            Condition::Timeout => f.write_str("timeout"),
            Condition::Status(status) => write!(f, "{status}"),
            Condition::Grpc(status) => write!(f, "grpc-{}", status.name().to_ascii_lowercase().replace('_', "-")),
        }
    }
}

impl<'de> Deserialize<'de> for Condition {
    fn deserialize<D: Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
        let text = String::deserialize(d)?;
        Condition::parse(&text).ok_or_else(|| de::Error::custom(format_args!("`{text}` is nothing to try again after: expected {WHAT}")))
    }
}

impl JsonSchema for Condition {
    fn inline_schema() -> bool {
        true
    }
    fn schema_name() -> Cow<'static, str> {
        "RetryCondition".into()
    }
    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({ "type": ["string", "integer"], "pattern": "^(connect|reset|timeout|[45][0-9]{2}|grpc-[a-z-]+)$", "minimum": 400, "maximum": 599 })
    }
}

// === impl Conditions ===

impl Conditions {
    pub fn compile(settings: Option<&At<Vec<At<Condition>>>>, protocol: Protocol, wrong: &mut Vec<Diagnostic>) -> Conditions {
        let Some(written) = settings else { return Conditions { connect: true, ..Conditions::default() } };
        if written.value.is_empty() {
            let message = "an empty list: expected what a request is sent again after, such as `[connect, reset, 503]`";
            wrong.push(Diagnostic::at(&written.place, "empty-list", message).help("`attempts: 1` makes no second attempt"));
        }
        let mut all = Conditions::default();
        let mut statuses = Vec::new();
        for (position, one) in written.value.iter().enumerate() {
            if written.value[..position].iter().any(|earlier| earlier.value == one.value) {
                wrong.push(Diagnostic::at(&one.place, "listed-twice", format!("`{}` stands here twice", one.value)));
            }
            match one.value {
                Condition::Connect => all.connect = true,
                Condition::Reset => all.reset = true,
                Condition::Timeout => all.timeout = true,
                Condition::Status(status) => statuses.push(status),
                Condition::Grpc(_) if protocol == Protocol::Http1 => {
                    let message = format!("`{}` has no effect here: over HTTP/1 no upstream speaks gRPC", one.value);
                    wrong.push(Diagnostic::at(&one.place, "inert", message).help("add `protocol: h2` to the upstream"));
                }
                Condition::Grpc(status) => all.grpc |= 1 << status.number(),
            }
        }
        all.statuses = statuses.into();
        all
    }

    /// Whether a request is sent again after this. What no target has begun with, and what died in the pool, is, without a word.
    pub fn has(&self, cause: Cause) -> bool {
        match cause {
            Cause::Connect => self.connect,
            Cause::Unprocessed | Cause::Stale => true,
            Cause::Reset => self.reset,
            Cause::Timeout => self.timeout,
            Cause::Status(status) => self.statuses.contains(&status),
            Cause::Grpc(status) => self.grpc & (1 << status.number()) != 0,
        }
    }

    pub fn reads_answers(&self) -> bool {
        !self.statuses.is_empty() || self.grpc != 0
    }

    pub fn is_more_than_connect(&self) -> bool {
        self.reset || self.timeout || self.reads_answers()
    }
}

impl fmt::Display for Conditions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let words = [(self.connect, Condition::Connect), (self.reset, Condition::Reset), (self.timeout, Condition::Timeout)];
        let words = words.into_iter().filter_map(|(is_set, word)| is_set.then_some(word));
        let statuses = self.statuses.iter().map(|status| Condition::Status(*status));
        let grpc = Status::all().filter(|status| self.grpc & (1 << status.number()) != 0).map(Condition::Grpc);
        for (n, one) in words.chain(statuses).chain(grpc).enumerate() {
            write!(f, "{}{one}", if n == 0 { "" } else { ", " })?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::relay::upstream::tests::at;

    #[test]
    fn conditions_read_as_they_are_written() {
        for text in ["connect", "reset", "timeout", "400", "503", "599", "grpc-unavailable", "grpc-resource-exhausted", "grpc-cancelled"] {
            assert_eq!(Condition::parse(text).unwrap().to_string(), text);
        }
        for text in ["", "5xx", "200", "399", "600", "+503", "grpc-ok", "grpc-nothing", "grpc-", "UNAVAILABLE", "Connect"] {
            assert_eq!(Condition::parse(text), None, "{text}");
        }
    }

    #[test]
    fn only_what_is_written_comes_true() {
        let written = at(["reset", "503", "grpc-unavailable"].map(|one| at(Condition::parse(one).unwrap())).into());
        let mut wrong = Vec::new();
        let all = Conditions::compile(Some(&written), Protocol::H2, &mut wrong);
        assert!(wrong.is_empty());
        assert_eq!(all.to_string(), "reset, 503, grpc-unavailable");
        let grpc = |name| Cause::Grpc(Status::named(name).unwrap());
        for (cause, is_in) in [
            (Cause::Connect, false),
            (Cause::Unprocessed, true),
            (Cause::Stale, true),
            (Cause::Reset, true),
            (Cause::Timeout, false),
            (Cause::Status(503), true),
            (Cause::Status(502), false),
            (grpc("unavailable"), true),
            (grpc("internal"), false),
        ] {
            assert_eq!(all.has(cause), is_in, "{cause:?}");
        }
        let codes = |words: &[&str]| {
            let mut wrong = Vec::new();
            Conditions::compile(
                Some(&at(words.iter().map(|one| at(Condition::parse(one).unwrap())).collect())),
                Protocol::Http1,
                &mut wrong,
            );
            wrong.iter().map(|one| one.code).collect::<Vec<_>>()
        };
        assert_eq!(codes(&[]), ["empty-list"]);
        assert_eq!(codes(&["503", "503"]), ["listed-twice"]);
        assert_eq!(codes(&["grpc-unavailable"]), ["inert"]);
    }
}
