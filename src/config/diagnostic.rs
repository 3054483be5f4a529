//! What is said about a configuration that is not accepted: place, message, help.
//!
//! Decides what a mistake is made of and that no interpolated value is ever part of it. Does not decide what is a mistake: see
//! `read.rs`, `check/` and `plan.rs`. How it looks is in `render.rs`, the codes are in `codes.rs`.

use std::cell::RefCell;
use std::cmp::Ordering;
use std::collections::{BTreeSet, HashMap};
use std::fmt;
use std::path::PathBuf;
use std::sync::{Arc, OnceLock};

pub use super::codes::CODES;
use super::files_read::FilesRead;
pub use super::render::render;
use super::types::Secret;

/// A place in a configuration file. Lines and columns count from 1, columns in characters.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Place {
    pub source: Arc<Source>,
    pub line: u32,
    pub column: u32,
    /// How many characters the caret underlines; at least 1.
    pub width: u32,
}

/// One configuration file as it was read. Two are the same when their paths are.
pub struct Source {
    /// The path as the user wrote it; shown in messages, base of relative paths.
    pub path: PathBuf,
    pub text: String,
    /// Where every other file that this one names is noted when it is read.
    pub files: FilesRead,
    /// What interpolation put into this file's values; set once, after it was read.
    hidden: OnceLock<HiddenValues>,
}

/// A value that interpolation made: no message shows it.
pub struct Hidden {
    pub line: u32,
    pub column: u32,
    pub text: Secret,
    /// Hidden in messages about other places too: it came from outside the file, not from a default written there.
    pub everywhere: bool,
}

/// The same, for quick answers: each value once, and those of a place.
#[derive(Default)]
struct HiddenValues {
    everywhere: BTreeSet<String>,
    here: HashMap<(u32, u32), Vec<String>>,
}

/// What is shown for an interpolated value.
pub const INTERPOLATED: &str = "[interpolated]";

/// One mistake. Every kind has a stable code, so that each can be listed, tested and searched for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Diagnostic {
    /// Stable, such as `unknown-key`; the list is [`CODES`].
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
        Diagnostic { code, place: Some(place.clone()), message: place.redact(message.into()), help: None }
    }

    pub fn nowhere(code: &'static str, message: impl Into<String>) -> Self {
        Diagnostic { code, place: None, message: message.into(), help: None }
    }

    #[must_use]
    pub fn help(mut self, help: impl Into<String>) -> Self {
        let help = help.into();
        self.help = match &self.place {
            // A suggestion made from an interpolated value would tell most of it.
            Some(place) if place.is_interpolated() && help.contains("did you mean") => None,
            Some(place) => Some(place.redact(help)),
            None => Some(help),
        };
        self
    }
}

/// Sorts by place, those without one first, and drops what was said twice.
pub fn sort(diagnostics: &mut Vec<Diagnostic>) {
    diagnostics.sort_by(|a, b| (&a.place, a.code, &a.message).cmp(&(&b.place, b.code, &b.message)));
    diagnostics.dedup();
}

// === impl Source ===

impl Source {
    /// Takes every value that interpolation put into this file out of a text.
    pub fn without_interpolated(&self, text: String) -> String {
        match self.hidden.get() {
            Some(hidden) => hidden.everywhere.iter().fold(text, without),
            None => text,
        }
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

    /// Whether interpolation made the value at this place, or a part of it.
    pub fn is_interpolated(&self) -> bool {
        self.source.hidden.get().is_some_and(|hidden| hidden.here.contains_key(&(self.line, self.column)))
    }

    /// Takes every interpolated value of the file out of a text.
    fn redact(&self, mut text: String) -> String {
        let Some(hidden) = self.source.hidden.get() else { return text };
        let here = hidden.here.get(&(self.line, self.column));
        text = hidden.everywhere.iter().chain(here.into_iter().flatten()).fold(text, without);
        if here.is_some()
            && let Some(end) = text.find(": did you mean")
        {
            text.truncate(end);
        }
        text
    }
}

impl fmt::Debug for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}:{}", self.source.path.display(), self.line, self.column)
    }
}

fn without(text: String, value: &String) -> String {
    if value.is_empty() || !text.contains(value.as_str()) {
        return text;
    }
    let text = text.replace(&format!("`{value}`"), &format!("`{INTERPOLATED}`"));
    // A short value, such as `1`, occurs in other words; without its quotes it tells nothing.
    if value.chars().count() >= 4 { text.replace(value.as_str(), INTERPOLATED) } else { text }
}

// === impl Source ===

impl Source {
    pub fn new(path: impl Into<PathBuf>, text: impl Into<String>) -> Self {
        Source { path: path.into(), text: text.into(), files: FilesRead::default(), hidden: OnceLock::new() }
    }

    /// Likewise; what it names is noted in a list that is kept.
    #[must_use]
    pub fn noting(mut self, files: &FilesRead) -> Self {
        self.files = files.clone();
        self
    }

    /// Takes every value that came from outside the file out of a text.
    pub fn redact(&self, text: String) -> String {
        self.hidden.get().into_iter().flat_map(|hidden| &hidden.everywhere).fold(text, without)
    }

    /// Says which values no message may show. The first call counts.
    pub fn hide(&self, values: Vec<Hidden>) {
        self.hidden.get_or_init(|| {
            let mut all = HiddenValues::default();
            for Hidden { line, column, text, everywhere } in values {
                if everywhere {
                    all.everywhere.insert(text.reveal().to_owned());
                }
                all.here.entry((line, column)).or_default().push(text.reveal().to_owned());
            }
            all
        });
    }
}

impl PartialEq for Source {
    fn eq(&self, other: &Self) -> bool {
        self.path == other.path
    }
}

impl Eq for Source {}

impl PartialOrd for Source {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Source {
    fn cmp(&self, other: &Self) -> Ordering {
        self.path.cmp(&other.path)
    }
}

impl fmt::Debug for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.path.display())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn place(line: u32, column: u32) -> Place {
        let source = Source::new("a.yaml", "x: ${env:X}\ny: 1\n");
        source.hide(vec![Hidden { line: 1, column: 4, text: Secret::new("10.0.0.9"), everywhere: true }]);
        Place { source: Arc::new(source), line, column, width: 1 }
    }

    #[test]
    fn an_interpolated_value_is_in_no_message_and_no_help() {
        let told = Diagnostic::at(&place(2, 4), "bad-value", "`10.0.0.9` and 10.0.0.9/8 are not it").help("not `10.0.0.9`");
        assert_eq!(told.message, "`[interpolated]` and [interpolated]/8 are not it");
        assert_eq!(told.help.as_deref(), Some("not `[interpolated]`"));
    }

    #[test]
    fn no_suggestion_is_made_from_an_interpolated_value() {
        let told = Diagnostic::at(&place(1, 4), "bad-value", "`10.0.0.9` is wrong: did you mean `10.0.0.8`?").help("did you mean `10.0`?");
        assert_eq!(told.message, "`[interpolated]` is wrong");
        assert_eq!(told.help, None);
    }

    #[test]
    fn diagnostics_are_sorted_by_place_and_told_once() {
        let mut all = vec![
            Diagnostic::at(&place(2, 1), "b", "later"),
            Diagnostic::at(&place(1, 1), "a", "sooner"),
            Diagnostic::at(&place(2, 1), "b", "later"),
            Diagnostic::nowhere("c", "first"),
        ];
        sort(&mut all);
        assert_eq!(all.iter().map(|d| d.message.as_str()).collect::<Vec<_>>(), ["first", "sooner", "later"]);
    }
}
