//! Text with what a route's pattern matched put in: the path of a `rewrite`, the place of a `redirect`.
//!
//! Decides which templates make sense. Does not decide when they are used.

use super::rewrite::is_path;
use crate::config::diagnostic::Diagnostic;
use crate::config::types::At;

/// A template, compiled for one pattern.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Template(Box<[Piece]>);

#[derive(Clone, Debug, PartialEq, Eq)]
enum Piece {
    Text(Box<str>),
    /// Index into the names of the route's pattern.
    Capture(usize),
}

/// What a template is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Leads {
    /// A path, without a query.
    ToPath,
    /// A `Location`: a path or an absolute URL, with a query if need be.
    ToLocation,
}

// === impl Template ===

impl Template {
    /// `names` are those of the route's pattern, `rest` included.
    ///
    /// # Errors
    /// A `{` without its `}`, a name that the pattern does not have, text that is no path or place.
    pub fn compile(template: &At<String>, names: &[&str], leads: Leads) -> Result<Template, Vec<Diagnostic>> {
        let mut wrong = Vec::new();
        let mut fail = |code, message: String, help: Option<String>| {
            let diagnostic = Diagnostic::at(&template.place, code, message);
            wrong.push(match help {
                Some(help) => diagnostic.help(help),
                None => diagnostic,
            });
        };
        let mut pieces = Vec::new();
        let mut left = template.as_str();
        let absolute = left.starts_with("https://") || left.starts_with("http://");
        match leads {
            Leads::ToPath if !left.starts_with('/') => {
                fail("bad-path", format!("`{left}` is not a path: expected it to begin with `/`"), None)
            }
            Leads::ToLocation if !left.starts_with('/') && !absolute => {
                fail("bad-path", format!("`{left}` is not a place to redirect to: expected `/` or `https://`"), None);
            }
            Leads::ToPath | Leads::ToLocation => {}
        }
        while let Some(open) = left.find('{') {
            let Some(close) = left[open..].find('}').map(|at| open + at) else {
                fail("bad-template", "a `{` without its `}`".to_owned(), None);
                break;
            };
            let (literal, name) = (&left[..open], &left[open + 1..close]);
            left = &left[close + 1..];
            if !literal.is_empty() {
                pieces.push(Piece::Text(literal.into()));
            }
            match names.iter().position(|known| *known == name) {
                Some(index) => pieces.push(Piece::Capture(index)),
                None => {
                    let known: Vec<_> = names.iter().map(|name| format!("`{{{name}}}`")).collect();
                    let help =
                        if known.is_empty() { "its pattern names nothing".to_owned() } else { format!("it names {}", known.join(", ")) };
                    fail("unknown-capture", format!("`{{{name}}}` is not named by the path of this route"), Some(help));
                }
            }
        }
        if !left.is_empty() && !left.contains('{') {
            pieces.push(Piece::Text(left.into()));
        }
        let is_good = |text: &str| match leads {
            Leads::ToPath => is_path(&format!("/{text}")),
            Leads::ToLocation => text.bytes().all(|byte| byte.is_ascii_graphic() && !matches!(byte, b'\\' | b'}')),
        };
        if !pieces.iter().all(|piece| matches!(piece, Piece::Text(text) if is_good(text)) || matches!(piece, Piece::Capture(_))) {
            fail("bad-path", "not a path: expected visible ASCII without `?`, `#` and `\\`".to_owned(), None);
        }
        if wrong.is_empty() { Ok(Template(pieces.into())) } else { Err(wrong) }
    }

    /// The text, with the values of the names that it was compiled with.
    pub fn fill(&self, captures: &[&str]) -> String {
        let mut text = String::with_capacity(64);
        for piece in &self.0 {
            match piece {
                Piece::Text(literal) => text.push_str(literal),
                Piece::Capture(index) => text.push_str(captures.get(*index).copied().unwrap_or_default()),
            }
        }
        text
    }

    pub fn needs_captures(&self) -> bool {
        self.0.iter().any(|piece| matches!(piece, Piece::Capture(_)))
    }
}
