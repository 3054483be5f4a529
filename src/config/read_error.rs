//! Why a value could not be read: what serde says, in our words, with the place and the entry that is to blame.

use std::fmt::{self, Display};

use serde::de::{self, Expected, Unexpected};

use super::diagnostic::{Diagnostic, Place};
use super::keys::unknown_key;
use super::render::{HOLDS_SECRETS, IS_SECRET};
use super::yaml::{Node, Value};

/// Why a value could not be read.
#[derive(Debug)]
pub struct ReadError(pub(super) Box<Inner>);

#[derive(Debug)]
pub(super) struct Inner {
    pub what: What,
    pub place: Option<Place>,
    /// The address of the innermost entry or item that could not be read, to leave out.
    pub culprit: Option<usize>,
    /// The text that was found there, if it was a single value.
    found: Option<String>,
    /// What this says has been said.
    pub silent: bool,
}

#[derive(Debug)]
pub(super) enum What {
    Told { code: &'static str, message: String, help: Option<String> },
    Missing { key: &'static str, whom: Option<String> },
    Unknown { key: String, known: &'static [&'static str] },
    NoValue { whom: Option<String> },
}
// === impl ReadError ===

impl ReadError {
    pub(super) fn new(code: &'static str, message: impl Into<String>) -> Self {
        ReadError(Box::new(Inner {
            what: What::Told { code, message: message.into(), help: None },
            place: None,
            culprit: None,
            found: None,
            silent: false,
        }))
    }

    pub(super) fn of(what: What) -> Self {
        ReadError(Box::new(Inner { what, place: None, culprit: None, found: None, silent: false }))
    }

    pub(super) fn help(mut self, text: impl Into<String>) -> Self {
        if let What::Told { help, .. } = &mut self.0.what {
            *help = Some(text.into());
        }
        self
    }

    /// Fills in the place unless a closer one is known: that of the key for what is missing, else that of the value.
    pub(super) fn placed(mut self, key: &Place, value: &Place, name: Option<&str>) -> Self {
        if self.0.place.is_none() {
            let missing = match &mut self.0.what {
                What::Missing { whom, .. } => {
                    *whom = name.map(str::to_owned);
                    true
                }
                What::NoValue { whom } => {
                    *whom = name.map(str::to_owned);
                    false
                }
                What::Told { .. } | What::Unknown { .. } => false,
            };
            self.0.place = Some(if missing { key.clone() } else { value.clone() });
        }
        self
    }

    pub(super) fn caused_by(mut self, node: &Node) -> Self {
        if self.0.culprit.is_none() {
            self.0.culprit = Some(address(node));
            self.0.found = match &node.value {
                Value::Scalar(scalar) => Some(short(&scalar.text)),
                Value::List(_) | Value::Map(_) => None,
            };
        }
        self
    }

    /// Takes what was found out of the message where somebody may have written a secret in the wrong place.
    pub(super) fn below(mut self, key: &str) -> Self {
        if (HOLDS_SECRETS.contains(&key) || IS_SECRET.contains(&key))
            && let (What::Told { message, help, .. }, Some(found)) = (&mut self.0.what, &self.0.found)
            && message.contains(found.as_str())
        {
            *message = message.replace(&format!("the text `{found}`"), "text").replace(&format!("`{found}`"), "text");
            *help = None;
        }
        self
    }

    pub(super) fn into_diagnostic(self) -> Option<Diagnostic> {
        let Inner { what, place, culprit: _, found: _, silent } = *self.0;
        let place = place.filter(|_| !silent)?;
        Some(match what {
            What::Told { code, message, help } => {
                let diagnostic = Diagnostic::at(&place, code, message);
                match help {
                    Some(help) => diagnostic.help(help),
                    None => diagnostic,
                }
            }
            What::Missing { key, whom } => {
                let whom = whom.map_or_else(|| "this entry".to_owned(), |name| format!("`{name}`"));
                let diagnostic = Diagnostic::at(&place, "missing-key", format!("{whom} has no `{key}`, which it needs"));
                if key == "auth" {
                    diagnostic.help("say who may call: `auth: [NAME]` with names in `authenticators`, or `auth: public`")
                } else {
                    diagnostic
                }
            }
            What::NoValue { whom } => {
                let whom = whom.map_or_else(|| "this entry".to_owned(), |name| format!("`{name}`"));
                Diagnostic::at(&place, "no-value", format!("{whom} is written without a value")).help("give it a value, or remove it")
            }
            What::Unknown { key, known } => unknown_key(&place, &key, known.iter().copied()),
        })
    }
}

impl Display for ReadError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.0.what {
            What::Told { message, .. } => f.write_str(message),
            What::Missing { key, .. } => write!(f, "`{key}` is missing"),
            What::Unknown { key, .. } => write!(f, "`{key}` is not a key here"),
            What::NoValue { .. } => f.write_str("written without a value"),
        }
    }
}

impl std::error::Error for ReadError {}

impl de::Error for ReadError {
    fn custom<T: Display>(message: T) -> Self {
        ReadError::new("bad-value", message.to_string())
    }
    fn invalid_type(found: Unexpected<'_>, expected: &dyn Expected) -> Self {
        ReadError::new("wrong-type", format!("found {}: expected {}", unexpected(found), in_words(&expected.to_string())))
    }
    fn invalid_value(found: Unexpected<'_>, expected: &dyn Expected) -> Self {
        let expected = expected.to_string();
        let code = if expected.starts_with("a nonzero") { "out-of-range" } else { "bad-value" };
        ReadError::new(code, format!("found {}: expected {}", unexpected(found), in_words(&expected)))
    }
    fn invalid_length(length: usize, expected: &dyn Expected) -> Self {
        let found = if length == 0 { "an empty list".to_owned() } else { format!("{length} entries") };
        ReadError::new(
            if length == 0 { "empty-list" } else { "bad-value" },
            format!("found {found}: expected {}", in_words(&expected.to_string())),
        )
    }
    fn unknown_field(key: &str, known: &'static [&'static str]) -> Self {
        ReadError::of(What::Unknown { key: key.to_owned(), known })
    }
    fn missing_field(key: &'static str) -> Self {
        ReadError::of(What::Missing { key, whom: None })
    }
}

fn unexpected(found: Unexpected<'_>) -> String {
    match found {
        Unexpected::Bool(b) => format!("`{b}`"),
        Unexpected::Unsigned(n) => format!("`{n}`"),
        Unexpected::Signed(n) => format!("`{n}`"),
        Unexpected::Float(n) => format!("`{n}`"),
        Unexpected::Str(text) => format!("`{}`", short(text)),
        Unexpected::Seq => "a list".to_owned(),
        Unexpected::Map => "a mapping".to_owned(),
        _ => "something else".to_owned(),
    }
}

/// What serde and the standard library expect, in our words.
pub(super) fn in_words(expected: &str) -> String {
    match expected {
        "a string" => "text".to_owned(),
        "a sequence" => "a list, such as `[a, b]`".to_owned(),
        "a map" => "a mapping".to_owned(),
        "socket address" => "an address and port, such as `0.0.0.0:8080` or `[::]:8080`".to_owned(),
        "IP address" => "an IP address, such as `192.0.2.1` or `2001:db8::1`".to_owned(),
        _ if expected.starts_with("a nonzero") => "a whole number from 1".to_owned(),
        _ => expected.replacen(": expected ", ": ", 1),
    }
}

/// Long texts are cut: a message is a line.
pub(super) fn short(text: &str) -> String {
    if text.chars().count() <= 60 { text.to_owned() } else { text.chars().take(60).chain(['…']).collect() }
}

/// Nodes are told apart by where they are in memory; the tree does not move while it is read.
pub(super) fn address(node: &Node) -> usize {
    std::ptr::from_ref(node) as usize
}
