//! Leaves a key out of every configuration that a test writes, where the environment names one: a test that proves the key fails then.
//!
//! `SLUICE_TESTS_WITHOUT=listeners.*.http2.streams` leaves it out, `*` being any name and `[]` any item; with `SLUICE_TESTS_INSTEAD=2`
//! that stands in its place. A section that says nothing without the key goes with it, and what is called
//! `kept` keeps the key, so that whatever needs such a one is not refused. With an empty path configurations are written anew and nothing is left out. What was done is told on stderr.
//! Does not run tests so, and does not judge them: see `every_key/left_out.rs`.

use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::sync::{Arc, LazyLock};

use sluice::config::diagnostic::Source;
use sluice::config::yaml::{self, Node, Scalar, Value};

pub const WITHOUT: &str = "SLUICE_TESTS_WITHOUT";
pub const INSTEAD: &str = "SLUICE_TESTS_INSTEAD";
/// What is printed once for each configuration, and then how often the key was found in it.
pub const FOUND: &str = "left out, so often: ";
/// What is printed where the configuration is refused since it lacks the key, and then why.
pub const REFUSED: &str = "refused without the key: ";

const KEPT: &str = "kept";

struct Key {
    path: Vec<String>,
    instead: Option<Node>,
}

static HAS_LEFT_OUT: AtomicBool = AtomicBool::new(false);

static KEY: LazyLock<Option<Key>> = LazyLock::new(|| {
    let path = std::env::var(WITHOUT).ok()?;
    let instead = std::env::var(INSTEAD).ok().map(|text| parse(&text).expect("what stands instead is YAML"));
    Some(Key { path: split(&path), instead })
});

/// Whether configurations are written anew.
pub fn is_on() -> bool {
    KEY.is_some()
}

/// Whether a key has been left out, so that the test is to fail. What it sets up before that takes the time that it takes.
pub fn has_left_out() -> bool {
    HAS_LEFT_OUT.load(Relaxed)
}

/// The text without the key, and whether it was there. A text that cannot be read stays as it is.
pub fn from(text: String) -> (String, bool) {
    let Some(key) = KEY.as_ref() else { return (text, false) };
    let Some(mut tree) = parse(&text) else { return (text, false) };
    let found = leave_out(&mut tree, &key.path, key.instead.as_ref());
    HAS_LEFT_OUT.fetch_or(found > 0, Relaxed);
    // A line of its own: the name of the test may stand before it.
    eprintln!("\n{FOUND}{found}");
    let mut out = String::new();
    write(&tree, &mut out);
    (out, found > 0)
}

fn split(path: &str) -> Vec<String> {
    path.replace("[]", ".[]").split('.').filter(|part| !part.is_empty()).map(str::to_owned).collect()
}

fn parse(text: &str) -> Option<Node> {
    yaml::parse(&Arc::new(Source::new("left-out.yaml", text))).ok().map(|(tree, _)| tree)
}

/// How often the key was there.
fn leave_out(node: &mut Node, path: &[String], instead: Option<&Node>) -> usize {
    let Some((first, rest)) = path.split_first() else { return 0 };
    match &mut node.value {
        Value::Scalar(_) => 0,
        Value::List(items) if first == "[]" => items.iter_mut().map(|item| leave_out(item, rest, instead)).sum(),
        Value::List(_) => 0,
        Value::Map(entries) => {
            let is_it = |name: &str| first == "*" && name != KEPT || first == name;
            if !rest.is_empty() {
                let mut all = 0;
                entries.retain_mut(|(name, below)| {
                    let found = if is_it(&name.text) { leave_out(below, rest, instead) } else { 0 };
                    all += found;
                    // Nobody would write a section that says nothing; a name stays.
                    found == 0 || first == "*" || !matches!(&below.value, Value::Map(left) if left.is_empty())
                });
                return all;
            }
            let found = entries.iter().filter(|(name, _)| is_it(&name.text)).count();
            match instead {
                Some(instead) => {
                    entries.iter_mut().filter(|(name, _)| is_it(&name.text)).for_each(|(_, below)| *below = instead.clone());
                }
                None => entries.retain(|(name, _)| !is_it(&name.text)),
            }
            found
        }
    }
}

/// JSON, which is YAML; numbers and truth values as they were written.
fn write(node: &Node, out: &mut String) {
    let text = |text: &str, out: &mut String| out.push_str(&serde_json::Value::from(text).to_string());
    match &node.value {
        _ if node.is_null() => out.push_str("null"),
        Value::Scalar(Scalar { text: said, plain: true, .. }) if serde_json::from_str::<serde_json::Value>(said).is_ok() => {
            out.push_str(said)
        }
        Value::Scalar(scalar) => text(&scalar.text, out),
        Value::List(items) => {
            out.push('[');
            for (n, item) in items.iter().enumerate() {
                out.push_str(if n > 0 { ", " } else { "" });
                write(item, out);
            }
            out.push(']');
        }
        Value::Map(entries) => {
            out.push('{');
            for (n, (key, below)) in entries.iter().enumerate() {
                out.push_str(if n > 0 { ", " } else { "" });
                text(&key.text, out);
                out.push_str(": ");
                write(below, out);
            }
            out.push('}');
        }
    }
}

#[test]
fn a_key_is_left_out_wherever_it_stands() {
    let left = |text: &str, path: &str, instead: Option<&str>| {
        let mut tree = parse(text).expect("it is YAML");
        let found = leave_out(&mut tree, &split(path), instead.map(|text| parse(text).expect("it is YAML")).as_ref());
        let mut out = String::new();
        write(&tree, &mut out);
        (out, found)
    };
    let text = "upstreams: { a: { targets: [{ address: '1', weight: 2 }, b] }, c: { targets: [{ weight: 3, at: 1.10 }] } }\nempty:\n";
    let without = r#"{"upstreams": {"a": {"targets": [{"address": "1"}, "b"]}, "c": {"targets": [{"at": 1.10}]}}, "empty": null}"#;
    assert_eq!(left(text, "upstreams.*.targets[].weight", None), (without.to_owned(), 2));
    let instead = r#"{"a": {"b": [1]}, "c": true}"#;
    assert_eq!(left("a: { b: 2 }\nc: true", "a.b", Some("[1]")), (instead.to_owned(), 1));
    assert_eq!(left(instead, "", None), (instead.to_owned(), 0));
    assert_eq!(left("a: { b: { c: { d: 1 } }, e: {} }", "a.b.c.d", None), (r#"{"a": {"e": {}}}"#.to_owned(), 1));
    assert_eq!(left("a: { b: { d: 1 }, kept: { d: 2 } }", "a.*.d", None), (r#"{"a": {"b": {}, "kept": {"d": 2}}}"#.to_owned(), 1));
}
