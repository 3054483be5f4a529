//! What is said about a configuration that is not accepted: place, caret, help.
//!
//! Decides how a mistake is shown. Does not decide what is one: see `read.rs`, `check.rs` and `plan.rs`.

use std::cell::RefCell;
use std::fmt;
use std::path::PathBuf;
use std::sync::Arc;

/// A place in a configuration file. Lines and columns count from 1, columns in characters.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Place {
    pub source: Arc<Source>,
    pub line: u32,
    pub column: u32,
    /// How many characters the caret underlines; at least 1.
    pub width: u32,
}

/// One configuration file as it was read.
#[derive(PartialEq, Eq, PartialOrd, Ord)]
pub struct Source {
    /// The path as the user wrote it; shown in messages, base of relative paths.
    pub path: PathBuf,
    pub text: String,
}

/// One mistake. Every kind has a stable code, so that each can be listed, tested and searched for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Diagnostic {
    /// Stable, such as `unknown-key`; the list is in `codes()`.
    pub code: &'static str,
    pub place: Option<Place>,
    /// What was found and what was expected. Never holds an interpolated value.
    pub message: String,
    /// What to do about it.
    pub help: Option<String>,
}

// === impl Diagnostic ===

impl Diagnostic {
    pub fn at(place: &Place, code: &'static str, message: impl Into<String>) -> Self {
        Diagnostic { code, place: Some(place.clone()), message: message.into(), help: None }
    }

    pub fn nowhere(code: &'static str, message: impl Into<String>) -> Self {
        Diagnostic { code, place: None, message: message.into(), help: None }
    }

    #[must_use]
    pub fn help(mut self, help: impl Into<String>) -> Self {
        self.help = Some(help.into());
        self
    }
}

// === impl Place ===

thread_local! {
    static ANNOUNCED: RefCell<Option<Place>> = const { RefCell::new(None) };
}

impl Place {
    /// Puts a place aside for the [`At`](super::types::At) that is about to be read on this thread: serde has no other way to carry it.
    pub fn announce(self) {
        ANNOUNCED.with(|slot| slot.replace(Some(self)));
    }

    /// Takes what was announced last.
    pub fn take_announced() -> Option<Place> {
        ANNOUNCED.with(|slot| slot.take())
    }
}

impl fmt::Debug for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}:{}", self.source.path.display(), self.line, self.column)
    }
}

// === impl Source ===

impl fmt::Debug for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.path.display())
    }
}
