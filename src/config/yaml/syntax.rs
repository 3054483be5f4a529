//! Says in our words what the parser of YAML found wrong. Decides nothing.

use granit_parser::ErrorKind;

use super::DEEPEST;
use crate::config::diagnostic::{Diagnostic, Place};

pub(super) fn too_deep(place: &Place) -> Diagnostic {
    Diagnostic::at(place, "too-deep", format!("mappings and lists are nested more than {DEEPEST} deep here"))
}

/// The parser's verdict in our words.
pub(super) fn syntax(place: &Place, kind: &ErrorKind) -> Diagnostic {
    let (message, help) = match kind {
        ErrorKind::UnclosedFlowCollection { open } => (format!("this `{open}` is never closed"), ""),
        ErrorKind::UnclosedQuotedScalar => ("this quote is never closed".to_owned(), ""),
        ErrorKind::MismatchedFlowCollectionEnd { open, close } => (format!("`{open}` is closed by `{close}`"), ""),
        ErrorKind::MisplacedFlowCollectionEnd => ("this bracket closes nothing".to_owned(), ""),
        ErrorKind::TabInBlockIndentation
        | ErrorKind::TabInIndentation
        | ErrorKind::TabNotAllowed
        | ErrorKind::TabAtBlockScalarStart
        | ErrorKind::TabInPlainScalar => ("a tab where only spaces may stand".to_owned(), "indent with spaces"),
        ErrorKind::MappingValueNotAllowed => {
            ("a `:` where no key may stand".to_owned(), "is the line indented like its neighbours? A value that holds `: ` must be quoted")
        }
        ErrorKind::InvalidTrailingSingleQuotedScalar | ErrorKind::InvalidTrailingDoubleQuotedScalar => {
            ("text follows the closing quote".to_owned(), "put the quotes around the whole value")
        }
        ErrorKind::UnexpectedCharacter { character } if character.is_control() => {
            (format!("the control character U+{:04X} must not stand in the file", u32::from(*character)), "")
        }
        ErrorKind::UnexpectedCharacter { character } => (format!("a value cannot begin with `{character}`"), "quote it"),
        ErrorKind::UnknownAnchor => {
            ("this alias has no anchor before it".to_owned(), "an anchor is written `&name`; a value that begins with `*` must be quoted")
        }
        ErrorKind::DirectiveDisallowed => ("directives (`%`) are not read".to_owned(), "remove the line"),
        ErrorKind::RecursionLimitExceeded => return too_deep(place),
        ErrorKind::SimpleKeyExpected | ErrorKind::InvalidSimpleKey => {
            ("a key without `:`".to_owned(), "write `key: value`; is the line indented like its neighbours?")
        }
        ErrorKind::ExpectedBlockSequenceEntry | ErrorKind::BlockSequenceEntryNotAllowed | ErrorKind::BlockEntryInFlowCollection => (
            "a list and a mapping cannot be mixed".to_owned(),
            "each entry of a list begins with `- `; is the line indented like its neighbours?",
        ),
        ErrorKind::ExpectedFlowMappingSeparator => ("expected `,` or `}` here".to_owned(), ""),
        ErrorKind::ExpectedFlowSequenceSeparator => ("expected `,` or `]` here".to_owned(), ""),
        ErrorKind::UnknownQuotedScalarEscape => {
            ("an unknown escape in a double-quoted text".to_owned(), "write `\\\\` for a backslash, or use single quotes")
        }
        ErrorKind::ExpectedBlockMappingKey | ErrorKind::InvalidIndentation | ErrorKind::InvalidFlowScalarIndent => {
            ("the indentation fits nothing above".to_owned(), "entries of one mapping begin in the same column")
        }
        ErrorKind::CommentNotSeparated => ("a comment needs a blank before its `#`".to_owned(), "quote the value if the `#` is part of it"),
        ErrorKind::BomInsideDocument => ("a byte-order mark inside the file".to_owned(), "remove it"),
        _ => ("this is not YAML".to_owned(), "is the line indented like its neighbours, are quotes and brackets closed?"),
    };
    let diagnostic = Diagnostic::at(place, "yaml-syntax", message);
    if help.is_empty() { diagnostic } else { diagnostic.help(help) }
}
