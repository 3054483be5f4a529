//! Reads single claims out of a token: by name or JSON Pointer, as text or as a list of words.
//!
//! Decides what counts as a claim's text. Does not decide which claims a token must have: see `jwt/`.

use std::fmt::{self, Write as _};

use serde_json::Value;

/// Where a claim stands: a name such as `sub` or `https://example.com/roles`, or a JSON Pointer (RFC 6901) such as `/realm/roles`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ClaimPath {
    written: Box<str>,
    steps: Box<[Box<str>]>,
}

/// Why a claim could not be read as a list of words.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NotWords;

// === impl ClaimPath ===

impl ClaimPath {
    /// `None` where the text is empty or a pointer with a `~` that stands for nothing.
    pub fn parse(text: &str) -> Option<Self> {
        if text.is_empty() || text == "/" {
            return None;
        }
        let steps = match text.strip_prefix('/') {
            Some(pointer) => pointer.split('/').map(unescape).collect::<Option<_>>()?,
            None => Box::from([Box::from(text)]),
        };
        Some(ClaimPath { written: text.into(), steps })
    }

    /// As it was written.
    pub fn as_str(&self) -> &str {
        &self.written
    }

    /// The claim's value. What is missing and what is `null` are the same.
    pub fn find<'a>(&self, claims: &'a Value) -> Option<&'a Value> {
        let mut here = claims;
        for step in &self.steps {
            here = match here {
                Value::Object(members) => members.get(&**step)?,
                Value::Array(list) if is_index(step) => list.get(step.parse::<usize>().ok()?)?,
                Value::Array(_) | Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => return None,
            };
        }
        if here.is_null() { None } else { Some(here) }
    }
}

/// RFC 6901 section 4: an index has no leading zeros.
fn is_index(step: &str) -> bool {
    step == "0" || (!step.starts_with('0') && !step.is_empty() && step.bytes().all(|b| b.is_ascii_digit()))
}

/// RFC 6901 section 4: `~1` is `/`, `~0` is `~`, nothing else may follow a `~`.
fn unescape(step: &str) -> Option<Box<str>> {
    let mut out = String::with_capacity(step.len());
    let mut rest = step.chars();
    while let Some(c) = rest.next() {
        out.push(match c {
            '~' => match rest.next()? {
                '0' => '~',
                '1' => '/',
                _ => return None,
            },
            c => c,
        });
    }
    Some(out.into())
}

/// Whether a value is this text: a string, a number or a truth value by its text, a list by any of its members.
pub fn has_text(value: &Value, text: &str) -> bool {
    match value {
        Value::Array(list) => list.iter().any(|member| is_text(member, text)),
        Value::Null | Value::Object(_) | Value::String(_) | Value::Number(_) | Value::Bool(_) => is_text(value, text),
    }
}

fn is_text(value: &Value, text: &str) -> bool {
    match value {
        Value::String(s) => s == text,
        Value::Bool(b) => text == if *b { "true" } else { "false" },
        Value::Number(n) => {
            let mut compare = Compare { left: text };
            write!(compare, "{n}").is_ok() && compare.left.is_empty()
        }
        Value::Null | Value::Array(_) | Value::Object(_) => false,
    }
}

/// Compares what is printed into it with a text, so that numbers need no buffer.
struct Compare<'a> {
    left: &'a str,
}

impl fmt::Write for Compare<'_> {
    fn write_str(&mut self, s: &str) -> fmt::Result {
        self.left = self.left.strip_prefix(s).ok_or(fmt::Error)?;
        Ok(())
    }
}

/// A string split at spaces (RFC 8693 section 4.2), or a list of strings.
pub fn words(value: &Value) -> Result<Vec<String>, NotWords> {
    match value {
        Value::String(text) => Ok(text.split(' ').filter(|word| !word.is_empty()).map(str::to_owned).collect()),
        Value::Array(list) => list.iter().map(|word| word.as_str().map(str::to_owned).ok_or(NotWords)).collect(),
        Value::Null => Ok(Vec::new()),
        Value::Bool(_) | Value::Number(_) | Value::Object(_) => Err(NotWords),
    }
}

/// About how many bytes a value takes on the heap.
pub fn footprint(value: &Value) -> usize {
    match value {
        Value::Null | Value::Bool(_) | Value::Number(_) => 0,
        Value::String(text) => text.len(),
        Value::Array(list) => list.iter().map(|member| size_of::<Value>() + footprint(member)).sum(),
        // Name, value, hash and slot of an entry.
        Value::Object(members) => {
            members.iter().map(|(name, value)| size_of::<String>() + size_of::<Value>() + 24 + name.len() + footprint(value)).sum()
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn find<'a>(path: &str, claims: &'a Value) -> Option<&'a Value> {
        ClaimPath::parse(path).unwrap().find(claims)
    }

    #[test]
    fn a_claim_is_found_by_name_or_by_pointer() {
        let claims =
            json!({ "sub": "u1", "https://x.example/roles": ["a"], "realm": { "roles": ["x", "y"], "a/b": 1, "~": 2 }, "none": null });
        assert_eq!(find("sub", &claims), Some(&json!("u1")));
        assert_eq!(find("https://x.example/roles", &claims), Some(&json!(["a"])));
        assert_eq!(find("/realm/roles", &claims), Some(&json!(["x", "y"])));
        assert_eq!(find("/realm/roles/1", &claims), Some(&json!("y")));
        assert_eq!(find("/realm/a~1b", &claims), Some(&json!(1)));
        assert_eq!(find("/realm/~0", &claims), Some(&json!(2)));
        for missing in ["realm/roles", "/realm/roles/01", "/realm/roles/+1", "/realm/roles/2", "/sub/x", "none", "/none"] {
            assert_eq!(find(missing, &claims), None, "{missing}");
        }
    }

    #[test]
    fn what_points_nowhere_is_not_a_claim() {
        for text in ["", "/", "/a~", "/a~2b"] {
            assert_eq!(ClaimPath::parse(text), None, "{text}");
        }
    }

    #[test]
    fn values_are_compared_by_their_text() {
        for (value, text) in [
            (json!("a"), "a"),
            (json!(12), "12"),
            (json!(-1.5), "-1.5"),
            (json!(true), "true"),
            (json!(["x", 7, false]), "7"),
            (json!(["x", 7, false]), "false"),
        ] {
            assert!(has_text(&value, text), "{value} is {text}");
        }
        for (value, text) in [
            (json!("a"), "A"),
            (json!(12), "1"),
            (json!(1), "12"),
            (json!(true), "false"),
            (json!([["x"]]), "x"),
            (json!({ "x": 1 }), "x"),
            (json!(null), "null"),
        ] {
            assert!(!has_text(&value, text), "{value} is not {text}");
        }
    }

    #[test]
    fn words_come_from_text_or_a_list() {
        assert_eq!(words(&json!("a b  c ")).unwrap(), ["a", "b", "c"]);
        assert_eq!(words(&json!(["a", "b c"])).unwrap(), ["a", "b c"]);
        assert_eq!(words(&json!("")).unwrap(), [""; 0]);
        for odd in [json!(1), json!({ "a": 1 }), json!(["a", 1]), json!(true)] {
            assert_eq!(words(&odd), Err(NotWords), "{odd}");
        }
    }
}
