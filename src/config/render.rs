//! Decides how mistakes look: `path:line:column: error[code]: message`, the line itself with a caret below, help.
//!
//! A quoted line must not show a secret. The rule: values that follow, on the line or by indentation, a key of [`HOLDS_SECRETS`] or
//! [`IS_SECRET`], or one with a word of [`SECRET_WORDS`] in its name, are shown as `…`, be they pointed at or not; keys and brackets stay. Of
//! a value of [`IS_SECRET`] that goes on over several lines, no line is shown. Knows nothing of YAML beyond that, because it also shows what is not YAML.

use std::collections::HashMap;
use std::fmt::Write;
use std::sync::Arc;

use super::diagnostic::{Diagnostic, Place, Source};

/// Keys below which values may be secret, or somebody may have written a secret in the wrong place.
pub(super) const HOLDS_SECRETS: &[&str] =
    &["key", "keys", "set", "add", "headers", "request_headers", "response_headers", "x-api-key", "api-key", "apikey"];

/// Words in the names of keys (as in `x-internal-secret`) that make them such.
const SECRET_WORDS: &[&str] = &["secret", "password", "token", "credential", "cookie", "authorization"];

/// Keys whose value is a secret as a whole.
pub(super) const IS_SECRET: &[&str] = &["secret", "password", "token", "inline", "sha256"];

/// Longer lines are cut on both sides of the caret.
const LONGEST: usize = 120;

/// What may be shown of a part of a line.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Care {
    /// Everything.
    None,
    /// Keys and brackets.
    Keys,
    /// Nothing.
    All,
}

/// A source cut into lines, and what may be shown of each because of the keys above it.
struct Lines<'a> {
    lines: Vec<(&'a str, Care)>,
}

/// All diagnostics as text, in the order given, then a line that counts them. Paths are shown as they were given to the loader.
pub fn render(diagnostics: &[Diagnostic], color: bool) -> String {
    let mut out = String::new();
    let paint = |code: &'static str| if color { code } else { "" };
    let (bold, red, blue, plain) = (paint("\x1b[1m"), paint("\x1b[1;31m"), paint("\x1b[1;34m"), paint("\x1b[0m"));
    let mut sources: HashMap<*const Source, Lines> = HashMap::new();
    for diagnostic in diagnostics {
        let Diagnostic { code, place, message, help } = diagnostic;
        if let Some(place) = place {
            let _ = write!(out, "{bold}{}:{}:{}: {plain}", clean(&place.source.path.display().to_string()), place.line, place.column);
        }
        let _ = writeln!(out, "{red}error[{code}]{plain}{bold}: {}{plain}", clean(message));
        let mut gutter = 1;
        if let Some(place) = place {
            let lines = sources.entry(Arc::as_ptr(&place.source)).or_insert_with(|| Lines::cut(&place.source.text));
            if let Some((line, carets)) = lines.quote(place) {
                let number = place.line.to_string();
                gutter = number.len();
                let _ = writeln!(out, " {blue}{number} |{plain} {line}");
                let _ = writeln!(out, " {blue}{:gutter$} |{plain} {red}{carets}{plain}", "");
            }
        }
        if let Some(help) = help {
            let _ = writeln!(out, " {blue}{:gutter$} ={plain} {bold}help{plain}: {}", "", clean(help));
        }
        out.push('\n');
    }
    let _ = match diagnostics.len() {
        1 => writeln!(out, "1 error"),
        n => writeln!(out, "{n} errors"),
    };
    out
}

/// Without what a terminal would obey (control characters and those that turn the direction of writing), and without who calls in a URL.
fn clean(text: &str) -> String {
    let chars: Vec<char> = text.chars().collect();
    let mut out = String::with_capacity(text.len());
    let mut at = 0;
    while at < chars.len() {
        if let Some(end) = userinfo(&chars, at) {
            out.push('…');
            at = end;
            continue;
        }
        let c = chars[at];
        at += 1;
        if is_unsafe(c) { out.extend(c.escape_unicode()) } else { out.push(c) }
    }
    out
}

/// Where the user and password of a URL that begin here end: before the `@` (RFC 3986 section 3.2.1).
fn userinfo(text: &[char], at: usize) -> Option<usize> {
    if at < 3 || text[at - 3..at] != [':', '/', '/'] {
        return None;
    }
    let authority = text[at..].iter().take_while(|c| !c.is_whitespace() && !"/?#\"'`,{}".contains(**c));
    authority.enumerate().filter(|(_, c)| **c == '@').last().map(|(length, _)| at + length)
}

fn is_unsafe(c: char) -> bool {
    c.is_control() || matches!(c, '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}' | '\u{feff}')
}

/// How many columns of a terminal a character takes, near enough for a caret to stand below it.
fn columns(c: char) -> usize {
    match c {
        '\u{300}'..='\u{36f}' | '\u{fe00}'..='\u{fe0f}' => 0,
        '\u{1100}'..='\u{115f}'
        | '\u{2e80}'..='\u{a4cf}'
        | '\u{ac00}'..='\u{d7a3}'
        | '\u{f900}'..='\u{faff}'
        | '\u{fe30}'..='\u{fe6f}'
        | '\u{ff00}'..='\u{ff60}'
        | '\u{1f300}'..='\u{1faff}' => 2,
        _ => 1,
    }
}

fn care_for(key: &str) -> Care {
    let key = key.to_ascii_lowercase();
    if IS_SECRET.contains(&key.as_str()) {
        Care::All
    } else if HOLDS_SECRETS.contains(&key.as_str()) || key.split(['-', '_']).any(|word| SECRET_WORDS.contains(&word)) {
        Care::Keys
    } else {
        Care::None
    }
}

/// The pieces of a line: a key with its colon, a bracket or comma or blank, or a value.
enum Piece {
    Key(Care),
    Frame,
    Value,
}

/// Cuts a line (as characters) into pieces: (start, end, piece).
fn pieces(line: &[char]) -> Vec<(usize, usize, Piece)> {
    let mut found = Vec::new();
    let mut at = 0;
    let ends_key = |at: usize| line.get(at) == Some(&':') && line.get(at + 1).is_none_or(|c| c.is_whitespace() || "{[\"'".contains(*c));
    while at < line.len() {
        let start = at;
        let c = line[at];
        if c.is_whitespace() || "{}[],".contains(c) || (c == '-' && line.get(at + 1).is_none_or(|c| c.is_whitespace())) {
            at += 1;
            found.push((start, at, Piece::Frame));
            continue;
        }
        let name;
        if c == '"' || c == '\'' {
            at += 1;
            while at < line.len() && line[at] != c {
                at += if line[at] == '\\' && c == '"' { 2 } else { 1 };
            }
            at = (at + 1).min(line.len());
            name = start + 1..at.saturating_sub(1).max(start + 1);
        } else {
            // A plain scalar may hold blanks; it ends at a comma or bracket, or where a key ends.
            while at < line.len() && !",{}[]".contains(line[at]) && !ends_key(at) {
                at += 1;
            }
            name = start..at;
        }
        if ends_key(at) {
            at += 1;
            found.push((start, at, Piece::Key(care_for(&line[name].iter().collect::<String>()))));
        } else {
            at = at.max(start + 1);
            let blanks = line[start..at].iter().rev().take_while(|c| c.is_whitespace()).count();
            found.push((start, at - blanks, Piece::Value));
        }
    }
    found
}

// === impl Lines ===

impl<'a> Lines<'a> {
    fn cut(text: &'a str) -> Self {
        let mut lines = Vec::new();
        // The keys that the current line stands below: (indentation, starts with a dash, care for what is below).
        let mut above: Vec<(usize, bool, Care)> = Vec::new();
        let mut rest = text;
        while !rest.is_empty() {
            let end = rest.find(['\n', '\r']).unwrap_or(rest.len());
            let line = &rest[..end];
            rest = &rest[end..];
            rest = rest.strip_prefix("\r\n").or_else(|| rest.strip_prefix(['\n', '\r'])).unwrap_or(rest);
            let trimmed = line.trim_start_matches([' ', '\t']);
            let indent = line.len() - trimmed.len();
            let dash = trimmed.starts_with("- ") || trimmed == "-";
            if trimmed.is_empty() || trimmed.starts_with('#') {
                lines.push((line, above.last().map_or(Care::None, |(_, _, care)| *care)));
                continue;
            }
            // A list may stand at the indentation of its key.
            while above.last().is_some_and(|(i, d, _)| *i > indent || (*i == indent && (*d || !dash))) {
                above.pop();
            }
            let care = above.last().map_or(Care::None, |(_, _, care)| *care);
            lines.push((line, care));
            above.push((indent, dash, care.max(below(trimmed))));
        }
        Lines { lines }
    }

    /// The line as it may be shown, and the carets below it. None where the file has no such line.
    fn quote(&self, place: &Place) -> Option<(String, String)> {
        let (line, above) = *self.lines.get((place.line as usize).checked_sub(1)?)?;
        let line: Vec<char> = line.chars().collect();
        let from = (place.column as usize).saturating_sub(1).min(line.len());
        let to = (from + place.width.max(1) as usize).min(line.len()).max(from);
        let masked = mask(&line, above);

        let (first, last) = window(line.len(), from, to);
        let (mut shown, mut carets) = (String::new(), String::new());
        let mut hiding = false;
        if first > 0 {
            shown.push('…');
            carets.push(' ');
        }
        for at in first..last {
            let caret = if (from..to).contains(&at) { '^' } else { ' ' };
            if masked[at] {
                // However long the value is, one sign stands for it.
                if !hiding {
                    shown.push('…');
                    carets.push(caret);
                }
                hiding = true;
                continue;
            }
            hiding = false;
            let c = match line[at] {
                '\t' => ' ',
                c if is_unsafe(c) => '\u{fffd}',
                c => c,
            };
            shown.push(c);
            for _ in 0..columns(c) {
                carets.push(caret);
            }
        }
        if last < line.len() {
            shown.push('…');
        }
        if from == to {
            carets.push('^');
        }
        Some((shown.trim_end().to_owned(), carets.trim_end().to_owned()))
    }
}

/// The care that is due for what stands below a line, because of any key on it.
fn below(line: &str) -> Care {
    let line: Vec<char> = line.chars().collect();
    let pieces = pieces(&line);
    let mut care = Care::None;
    for (at, (_, _, piece)) in pieces.iter().enumerate() {
        match piece {
            // With nothing behind it, a key of that name may as well be the name of a route.
            Piece::Key(Care::All) if at + 1 < pieces.len() => care = Care::All,
            Piece::Key(own) => care = care.max((*own).min(Care::Keys)),
            Piece::Frame | Piece::Value => {}
        }
    }
    care
}

/// Which characters of a line are not shown.
fn mask(line: &[char], above: Care) -> Vec<bool> {
    let mut masked = vec![false; line.len()];
    if above == Care::All {
        let indent = line.iter().take_while(|c| c.is_whitespace()).count();
        masked[indent..].fill(true);
        return masked;
    }
    // Brackets end what a key inside of them began, and so do commas; outside of brackets both may be part of a value.
    let (mut care, mut base, mut outer) = (above, above, Vec::new());
    for (start, end, piece) in pieces(line) {
        match piece {
            Piece::Key(own) => care = care.max(own),
            Piece::Frame => {
                match line[start] {
                    '{' | '[' => outer.push(std::mem::replace(&mut base, care)),
                    '}' | ']' => base = outer.pop().unwrap_or(care),
                    ',' if !outer.is_empty() => {}
                    _ => continue,
                }
                care = base;
            }
            Piece::Value => masked[start..end].fill(care != Care::None),
        }
    }
    for at in 0..line.len() {
        if let Some(end) = userinfo(line, at) {
            masked[at..end].fill(true);
        }
    }
    masked
}

/// The part of a line that is shown: all of it, or some characters on both sides of the caret.
fn window(length: usize, from: usize, to: usize) -> (usize, usize) {
    if length <= LONGEST {
        return (0, length);
    }
    let to = to.min(from + LONGEST / 2);
    let first = from.saturating_sub(LONGEST / 3);
    (first, (first + LONGEST).max(to).min(length))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shown(text: &str, line: u32, column: u32, width: u32) -> String {
        let place = Place { source: Arc::new(Source::new("a.yaml", text)), line, column, width };
        render(&[Diagnostic::at(&place, "bad-value", "no").help("yes")], false)
    }

    #[test]
    fn a_mistake_is_shown_with_its_line_a_caret_and_help() {
        assert_eq!(
            shown("routes:\n  rate: 10/sec\n", 2, 9, 6),
            "a.yaml:2:9: error[bad-value]: no\n 2 |   rate: 10/sec\n   |         ^^^^^^\n   = help: yes\n\n1 error\n"
        );
    }

    #[test]
    fn the_caret_stands_below_its_word_behind_tabs_and_wide_characters() {
        assert!(shown("a:\t東京x: bad", 1, 9, 3).contains(" 1 | a: 東京x: bad\n   |           ^^^\n"));
        assert!(shown("ä: bad", 1, 4, 3).contains(" 1 | ä: bad\n   |    ^^^\n"));
    }

    #[test]
    fn lines_are_counted_as_yaml_counts_them() {
        for text in ["a: 1\r\nb: 2\r\n", "a: 1\rb: 2\r", "a: 1\nb: 2\n"] {
            assert!(shown(text, 2, 4, 1).contains(" 2 | b: 2\n   |    ^\n"), "{text:?}");
        }
    }

    #[test]
    fn a_place_behind_the_end_of_the_file_is_no_panic() {
        assert!(shown("a: 1\n", 9, 9, 9).starts_with("a.yaml:9:9: error"));
        assert!(shown("a: 1\n", 1, 9, 9).contains("   |     ^\n"));
        assert!(shown("", 1, 1, 1).starts_with("a.yaml:1:1: error"));
    }

    #[test]
    fn a_long_line_is_cut_on_both_sides_of_the_caret() {
        let text = format!("{}bad{}", "x".repeat(300), "y".repeat(300));
        let told = shown(&text, 1, 301, 3);
        let line = told.lines().nth(1).unwrap();
        assert!(line.contains("xbady") && line.chars().count() < 140, "{line}");
        assert!(line.starts_with(" 1 | …") && line.ends_with('…'), "{line}");
    }

    #[test]
    fn a_neighbouring_secret_is_not_shown() {
        for (text, line, column, width) in [
            ("  keys: { secret: hunter2, fil: x }", 1, 28, 3),
            ("  secret: hunter2 # hunter2\n", 1, 3, 6),
            ("set: { x-a: hunter2, x-b: bad }", 1, 27, 3),
            ("keys: [{ sha256: hunter2 }, { sha256: bad }]", 1, 39, 3),
            ("headers: { authorization: Bearer hunter2, x: bad }", 1, 46, 3),
            ("  set:\n    x-a: hunter2\n", 2, 5, 3),
            ("set:\n- hunter2\n", 2, 1, 1),
            ("inline: |\n  {\"k\":\n  \"hunter2\"}\n", 3, 3, 1),
            ("inline: '{\"k\":\"hunter2\"}' bad", 1, 27, 3),
            ("secret: hunter2", 1, 9, 7),
            ("keys: { secret: hunter2 }", 1, 7, 19),
            ("set:\n  a: {\n    b: \"x\\\"hunter2\", c: hunter2 }", 3, 5, 1),
            ("\"secret\": 'hunter2", 1, 11, 1),
            ("secret: a,b}]hunter2, c: hunter2", 1, 1, 6),
            ("  { sha256: hunter2 }], sha256: hunter2", 1, 5, 6),
            ("keys: [hunter2], plan: free", 1, 8, 7),
        ] {
            let told = shown(text, line, column, width);
            assert!(!told.contains("hunter2"), "{told}");
            assert!(told.contains('…'), "{told}");
        }
    }

    #[test]
    fn the_caret_stands_below_what_is_masked() {
        let told = shown("a: { keys: [{ sha256: hunter2 }], plan: fre }", 1, 41, 3);
        assert!(told.contains(" 1 | a: { keys: [{ sha256: … }], plan: fre }\n"), "{told}");
        let told = shown("set: { x-a: hunter2, x-b: bad }", 1, 27, 3);
        assert!(told.contains(" 1 | set: { x-a: …, x-b: … }\n   |                     ^\n"), "{told}");
    }

    #[test]
    fn a_key_that_is_a_neighbour_of_a_secret_elsewhere_is_not_masked() {
        assert!(shown("set:\n  x: 1\nroute: plain\n", 3, 1, 5).contains("route: plain"));
    }

    #[test]
    fn what_a_terminal_would_obey_is_not_written() {
        let told = shown("a: \u{1b}[31m\u{202e}x", 1, 1, 1);
        assert!(!told.contains('\u{1b}') && !told.contains('\u{202e}'), "{told:?}");
        let told = render(&[Diagnostic::nowhere("bad-value", "`\u{1b}[2J\n`")], false);
        assert_eq!(told, "error[bad-value]: `\\u{1b}[2J\\u{a}`\n\n1 error\n");
    }

    #[test]
    fn colour_is_only_there_when_asked_for() {
        assert!(render(&[Diagnostic::nowhere("bad-value", "x")], true).contains("\x1b[1;31merror[bad-value]\x1b[0m"));
        assert!(render(&[], false).starts_with("0 errors"));
    }
}
