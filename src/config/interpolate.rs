//! Decides what `${env:NAME}`, `${env:NAME:-default}` and `${file:path}` in values stand for. `$${` is a literal `${`.
//!
//! Runs over the tree before it is read, so that a value is put in as one value, whatever it holds. Never looks into keys: a `${` there is
//! a mistake. What was put in is hidden: no message shows it.

use std::io::Read;
use std::path::Path;

use super::diagnostic::{Diagnostic, Hidden, Place};
use super::types::Secret;
use super::yaml::{Node, Scalar, Value};

/// Looks up an environment variable.
pub type Env<'a> = &'a dyn Fn(&str) -> Option<String>;

/// More than any secret, certificate or key set has.
const LARGEST_FILE: u64 = 1 << 20;

/// Puts in what the values of a tree refer to, and hides it in the source that the tree came from.
pub fn interpolate(root: &mut Node, env: Env<'_>) -> Vec<Diagnostic> {
    let mut walk = Walk { env, errors: Vec::new(), hidden: Vec::new() };
    walk.node(root);
    root.place.source.hide(walk.hidden);
    walk.errors
}

struct Walk<'a> {
    env: Env<'a>,
    errors: Vec<Diagnostic>,
    hidden: Vec<Hidden>,
}

// === impl Walk ===

impl Walk<'_> {
    fn node(&mut self, node: &mut Node) {
        match &mut node.value {
            Value::Scalar(scalar) => self.scalar(scalar, &node.place),
            Value::List(items) => items.iter_mut().for_each(|item| self.node(item)),
            Value::Map(entries) => {
                for (key, value) in entries {
                    if key.text.contains("${") {
                        self.errors.push(
                            Diagnostic::at(&key.place, "interpolation", "`${` in a key: only values are interpolated")
                                .help("write the name of the key itself"),
                        );
                    }
                    self.node(value);
                }
            }
        }
    }

    fn scalar(&mut self, scalar: &mut Scalar, place: &Place) {
        if !scalar.text.contains("${") {
            return;
        }
        match self.text(&scalar.text, place) {
            Ok((text, put_in)) => {
                scalar.text = text;
                if let Some(everywhere) = put_in {
                    scalar.interpolated = true;
                    self.hide(place, scalar.text.clone(), everywhere);
                }
            }
            Err(error) => {
                self.errors.push(error);
                // What could not be put in is not judged any further, and is not shown either.
                scalar.interpolated = true;
            }
        }
    }

    fn hide(&mut self, place: &Place, text: String, everywhere: bool) {
        self.hidden.push(Hidden { line: place.line, column: place.column, text: Secret::new(text), everywhere });
    }

    /// The text with everything put in. If anything was: whether any of it came from outside the file.
    fn text(&mut self, text: &str, place: &Place) -> Result<(String, Option<bool>), Diagnostic> {
        let (mut out, mut rest, mut put_in) = (String::with_capacity(text.len()), text, None);
        while let Some(at) = rest.find("${") {
            let (before, reference) = rest.split_at(at);
            if let Some(before) = before.strip_suffix('$') {
                out.push_str(before);
                out.push_str("${");
                rest = &reference[2..];
                continue;
            }
            out.push_str(before);
            let Some(end) = reference.find('}') else {
                return Err(Diagnostic::at(place, "interpolation", "this `${` is never closed").help("write `$${` for a literal `${`"));
            };
            let (value, outside) = self.value(&reference[2..end], place)?;
            out.push_str(&value);
            self.hide(place, value, outside);
            put_in = Some(outside || put_in == Some(true));
            rest = &reference[end + 1..];
        }
        out.push_str(rest);
        Ok((out, put_in))
    }

    /// What a reference stands for, and whether it came from outside the file.
    fn value(&self, reference: &str, place: &Place) -> Result<(String, bool), Diagnostic> {
        if reference.contains("${") {
            return Err(Diagnostic::at(place, "interpolation", "a `${` inside of another one").help("a default is plain text, without `}`"));
        }
        if let Some(variable) = reference.strip_prefix("env:") {
            self.variable(variable, place)
        } else if let Some(path) = reference.strip_prefix("file:") {
            Ok((file(path, place)?, true))
        } else {
            Err(Diagnostic::at(
                place,
                "interpolation",
                format!("`${{{reference}}}` is unknown: expected `${{env:NAME}}`, `${{env:NAME:-default}}` or `${{file:path}}`"),
            )
            .help("write `$${` for a literal `${`"))
        }
    }

    fn variable(&self, variable: &str, place: &Place) -> Result<(String, bool), Diagnostic> {
        let (name, default) = match variable.split_once(":-") {
            Some((name, default)) => (name, Some(default)),
            None => (variable, None),
        };
        let is_name = !name.is_empty()
            && name.chars().all(|c| c.is_ascii_alphanumeric() || c == '_')
            && !name.starts_with(|c: char| c.is_ascii_digit());
        if !is_name {
            return Err(Diagnostic::at(place, "interpolation", format!("`{name}` is not the name of an environment variable"))
                .help("letters, digits and `_`; a default follows `:-`"));
        }
        match ((self.env)(name), default) {
            (Some(value), _) if !value.is_empty() => Ok((value, true)),
            (_, Some(default)) => Ok((default.to_owned(), false)),
            (found, None) => {
                let state = if found.is_some() { "empty" } else { "not set" };
                Err(Diagnostic::at(place, "env-unset", format!("the environment variable `{name}` is {state}"))
                    .help(format!("set it, or give a default: `${{env:{name}:-default}}`")))
            }
        }
    }
}

/// What a file holds, less one newline at its end.
fn file(path: &str, place: &Place) -> Result<String, Diagnostic> {
    let bad = |why: String| {
        Diagnostic::at(place, "file-unreadable", format!("the file `{path}` {why}"))
            .help("relative paths start at the folder of the configuration file")
    };
    if path.is_empty() {
        return Err(Diagnostic::at(place, "interpolation", "`${file:}` names no file"));
    }
    let mut text = read_beside(place, path).map_err(bad)?;
    if text.ends_with('\n') {
        text.pop();
        if text.ends_with('\r') {
            text.pop();
        }
    }
    if text.is_empty() { Err(bad("is empty".to_owned())) } else { Ok(text) }
}

/// The text of a file that a configuration names at `place`, at most 1 MiB. Relative paths start at the folder of the configuration file.
/// The file is noted, so that `server.watch` follows it: whatever a configuration names is read here.
///
/// # Errors
/// What is wrong with it, in words that follow its name.
pub fn read_beside(place: &Place, path: &str) -> Result<String, String> {
    String::from_utf8(read_bytes_beside(place, path)?).map_err(|_| "is not UTF-8 text".to_owned())
}

/// As [`read_beside`], of a file that need not be text.
///
/// # Errors
/// What is wrong with it, in words that follow its name.
pub fn read_bytes_beside(place: &Place, path: &str) -> Result<Vec<u8>, String> {
    let full = place.source.path.parent().unwrap_or(Path::new("")).join(path);
    let open = place.source.files.note(&full).and_then(|meta| {
        // A pipe or a device could keep the gateway waiting.
        if meta.is_file() { std::fs::File::open(&full) } else { Err(std::io::Error::other("not a regular file")) }
    });
    let mut bytes = Vec::new();
    open.and_then(|file| file.take(LARGEST_FILE + 1).read_to_end(&mut bytes))
        .map_err(|error| format!("cannot be read: {}", why(&error)))?;
    if bytes.len() as u64 > LARGEST_FILE {
        return Err("is larger than 1MiB".to_owned());
    }
    Ok(bytes)
}

/// An error of the system in words, without its number.
pub fn why(error: &std::io::Error) -> String {
    match error.kind() {
        std::io::ErrorKind::NotFound => "there is no such file".to_owned(),
        std::io::ErrorKind::PermissionDenied => "permission denied".to_owned(),
        std::io::ErrorKind::IsADirectory => "it is a folder".to_owned(),
        _ => {
            let text = error.to_string();
            text.split(" (os error").next().unwrap_or_default().to_lowercase()
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::super::diagnostic::Source;
    use super::super::yaml;
    use super::*;

    fn env(name: &str) -> Option<String> {
        match name {
            "HOST" => Some("a.example".to_owned()),
            "EMPTY" => Some(String::new()),
            "YAML" => Some("{a: b}\n- c".to_owned()),
            _ => None,
        }
    }

    fn run(path: &Path, text: &str) -> Result<String, Diagnostic> {
        let mut root = yaml::parse(&Arc::new(Source::new(path, text))).unwrap().0;
        let mut errors = interpolate(&mut root, &env);
        if let Some(error) = errors.pop() {
            return Err(error);
        }
        let Value::Map(entries) = root.value else { panic!() };
        let Value::Scalar(scalar) = &entries[0].1.value else { panic!() };
        Ok(scalar.text.clone())
    }

    fn value(written: &str) -> Result<String, Diagnostic> {
        run(Path::new("a.yaml"), &format!("a: '{written}'\n"))
    }

    #[test]
    fn variables_and_defaults_are_put_in() {
        assert_eq!(value("http://${env:HOST}:${env:PORT:-80}/").unwrap(), "http://a.example:80/");
        assert_eq!(value("${env:EMPTY:-x}").unwrap(), "x");
        assert_eq!(value("${env:PORT:-}").unwrap(), "");
        assert_eq!(value("${env:YAML}").unwrap(), "{a: b}\n- c");
    }

    #[test]
    fn two_dollars_stand_for_one() {
        assert_eq!(value("$${env:HOST} $x $$ {}").unwrap(), "${env:HOST} $x $$ {}");
        assert_eq!(value("$${a}${env:HOST}").unwrap(), "${a}a.example");
    }

    #[test]
    fn what_cannot_be_put_in_is_told() {
        for (written, code) in [
            ("${env:NOBODY}", "env-unset"),
            ("${env:EMPTY}", "env-unset"),
            ("${env:}", "interpolation"),
            ("${env:A-B}", "interpolation"),
            ("${vault:x}", "interpolation"),
            ("${env:HOST", "interpolation"),
            ("${env:A:-${env:HOST}}", "interpolation"),
            ("${file:}", "interpolation"),
            ("${file:nowhere}", "file-unreadable"),
            ("${file:/}", "file-unreadable"),
        ] {
            assert_eq!(value(written).unwrap_err().code, code, "{written}");
        }
    }

    #[test]
    fn keys_are_not_interpolated() {
        assert_eq!(run(Path::new("a.yaml"), "'${env:HOST}': 1").unwrap_err().code, "interpolation");
    }

    #[test]
    fn a_file_is_found_beside_the_configuration_and_loses_one_newline() {
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join("token"), "hush\n\n").unwrap();
        std::fs::write(folder.path().join("empty"), "\n").unwrap();
        std::fs::write(folder.path().join("binary"), [0xff, 0xfe]).unwrap();
        let config = folder.path().join("a.yaml");
        assert_eq!(run(&config, "a: ${file:token}").unwrap(), "hush\n");
        assert_eq!(run(&config, "a: ${file:empty}").unwrap_err().code, "file-unreadable");
        assert_eq!(run(&config, "a: ${file:binary}").unwrap_err().code, "file-unreadable");
    }

    #[test]
    fn what_was_put_in_is_hidden_in_part_and_as_a_whole() {
        let mut root = yaml::parse(&Arc::new(Source::new("a.yaml", "a: x-${env:HOST}\n"))).unwrap().0;
        assert!(interpolate(&mut root, &env).is_empty());
        let told = Diagnostic::at(&root.place, "bad-value", "`x-a.example` or a.example");
        assert!(!told.message.contains("a.example"), "{}", told.message);
    }
}
